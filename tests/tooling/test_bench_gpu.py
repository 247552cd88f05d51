"""`python -m bench.gpu`: refuses without a card, and measures something on a CPU to show that it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from bench import gpu


def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench.gpu", *arguments])
    return gpu.main()


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert ask(monkeypatch) == 4
    said = capsys.readouterr()
    assert "there is no device cuda on this machine" in said.err
    assert said.out == ""
    assert ask(monkeypatch, "--device", "cpu") == 2
    assert "--quick" in capsys.readouterr().err


def test_a_quick_run_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = tmp_path / "numbers.json"
    monkeypatch.setattr(gpu, "SOURCE", (320, 180))
    monkeypatch.setattr(gpu, "TARGET", (180, 320))
    monkeypatch.setattr(gpu, "PICTURES", 3)
    assert ask(monkeypatch, "--device", "cpu", "--quick", "--json", str(numbers)) == 0
    found = json.loads(numbers.read_text())
    [stage] = found["stages"]
    assert (stage["network"], stage["window"], stage["waits"]) == ("keyscale-tiny-x2", "68x120", None)
    assert min(stage[key] for key in ("ms_up", "ms_network", "ms_down", "fps", "tera_macs")) > 0
    x264, nvenc = found["jobs"]
    assert x264["fps"] > 0
    assert "fps" in nvenc or "h264_nvenc" in nvenc["left_out"]
    assert "keyscale-tiny-x2" in capsys.readouterr().out
