"""`keyscale devices`: every device, tried."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
import torch

from keyscale.cli.app import run
from keyscale.engine.models import devices, golden
from keyscale.engine.models.openvino import cpu_precisions
from keyscale.engine.models.openvino_model import OpenvinoModel

no_gpu = pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU"
)


@pytest.fixture(autouse=True)
def as_if_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_measured", {})
    monkeypatch.setattr(devices, "MEASURED_S", 0.1)
    monkeypatch.setattr(devices, "WINDOW", (64, 96))


def reported(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert run(["devices", "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_the_cpu_is_one_with_what_a_job_would_take(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    *_, cpu = reported(capsys)
    assert time.monotonic() - began < 20
    assert (cpu["device"], cpu["runtime"], cpu["problems"]) == ("cpu", "openvino", [])
    assert "thread" in cpu["description"]
    assert cpu["precision"] == ("int8" if "int8" in cpu_precisions() else cpu["precision"])
    assert (cpu["decibels"] or 99) > 50
    assert 1 < cpu["frames_per_second"] < 1e5
    assert (cpu["model"], cpu["window"]) == ("keyscale-compact-x2", [64, 96])


@no_gpu
def test_auto_takes_the_cpu_where_nothing_else_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert [(each["device"], each["auto"]) for each in reported(capsys)] == [("cpu", True)]


def test_the_speed_is_that_of_the_network_which_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarge = OpenvinoModel.enlarge

    def slow(self: OpenvinoModel, *given: Any, **more: Any) -> Any:
        time.sleep(0.05)
        return enlarge(self, *given, **more)

    monkeypatch.setattr(OpenvinoModel, "enlarge", slow)
    assert 2 < reported(capsys)[-1]["frames_per_second"] < 20


def test_the_table_says_the_same_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "device"
    (cpu,) = [row for row in rows if row.startswith("cpu (")]
    assert "openvino" in cpu
    assert "dB from fp32" in cpu or "the reference" in cpu
    assert "64x96 through keyscale-compact-x2" in rows[-1]


@no_gpu
def test_a_gpu_that_torch_does_not_reach_is_listed_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver, and a torch without CUDA: the usual mistake."""
    monkeypatch.setattr(devices, "may_have_gpu", lambda: True)
    gpu, cpu = reported(capsys)
    assert (gpu["device"], gpu["precision"], gpu["auto"], gpu["frames_per_second"]) == ("cuda", None, False, None)
    assert "there is no device cuda on this machine" in gpu["problems"][0]
    assert len(gpu["problems"]) == 1
    assert cpu["auto"]
    assert run(["devices"]) == 0
    told = capsys.readouterr().out
    assert "failed" in told
    assert "cuda: there is no device cuda" in told


@pytest.mark.skipif("int8" not in cpu_precisions(), reason="OpenVINO has no int8 on this CPU")
def test_a_precision_that_fails_is_left_for_fp32_and_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarge = OpenvinoModel.enlarge

    def broken(self: OpenvinoModel, *given: Any, **more: Any) -> Any:
        made = enlarge(self, *given, **more)
        return made if self.precision == "fp32" else made // 2

    monkeypatch.setattr(OpenvinoModel, "enlarge", broken)
    *_, cpu = reported(capsys)
    assert (cpu["precision"], cpu["decibels"], cpu["auto"]) == ("fp32", None, True)
    assert "dB from fp32 in int8" in cpu["problems"][0]


def test_without_any_the_exit_code_is_that_of_a_device(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(devices, "may_have_gpu", lambda: False)
    cpu_precisions.cache_clear()
    try:
        assert run(["devices"]) == 4
    finally:
        cpu_precisions.cache_clear()
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[:2] == ["cpu", "-"]
    assert "OpenVINO does not load" in told.out
    assert told.err.startswith("error: networks run on no device of this machine: OpenVINO does not load")


def test_what_it_does_not_know_is_an_error_of_the_command_line() -> None:
    for arguments in (["--jsn"], ["cuda"]):
        assert run(["devices", *arguments]) == 2
