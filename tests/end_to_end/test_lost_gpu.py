"""A CUDA error that leaves a process without its GPU: the command goes on in a new process, a container is given up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.clips import make_clip, numbers_in

from keyscale import modal_stub
from keyscale.engine.errors import DeviceError, DeviceLost, KeyscaleError


@pytest.mark.processes
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_command_is_tried_once_more_in_a_new_process(tmp_path: Path, gpu_processes: Path, times: int) -> None:
    gpu_processes.write_text(str(times))
    source, output = make_clip(tmp_path / "in.mp4", frames=4, rate=24), tmp_path / "out.mp4"
    words = ["upscale", str(source), "-o", str(output), "--size", "128x128", "--model", "keyscale-tiny-x2"]
    done = subprocess.run(
        [sys.executable, "-m", "keyscale", *words, "--device", "cuda", "--fps", "source"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr.count("tried again in a new process") == 1
    if times == 1:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(output)
        assert len(numbers_in(output)) == 4
    else:
        assert done.returncode == 4
        assert "error: cuda failed: CUDA error: an illegal memory access" in done.stderr
        assert "-> Run it again: finished chunks are kept" in done.stderr
        assert not output.exists()


@pytest.mark.parametrize(
    ("error", "ends"), [(DeviceLost("gone"), True), (DeviceError("absent"), False), (KeyscaleError("x"), False)]
)
def test_a_container_whose_gpu_is_lost_takes_no_more_calls(
    monkeypatch: pytest.MonkeyPatch, error: KeyscaleError, ends: bool
) -> None:
    def make_chunk(*_: Any, **__: Any) -> None:
        raise error

    ended: list[bool] = []
    monkeypatch.setattr("keyscale.engine.worker.chunk.make_chunk", make_chunk)
    monkeypatch.setattr("modal.experimental.stop_fetching_inputs", lambda: ended.append(True))
    engine: Any = modal_stub.Engine._get_user_cls()  # type: ignore[attr-defined]
    made = engine()
    made._workshop = None
    with pytest.raises(type(error)):
        engine.upscale_chunk._get_raw_f()(made, "{}", {}, {})
    assert bool(ended) is ends
