"""The same command gives the same frames and the same account, whatever happened in between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from support.clips import make_clip
from support.numbered import planes, run, small_job

from keyscale.engine.errors import DeviceError, UsageError
from keyscale.engine.job import Compute, Encoding
from keyscale.engine.runners.prepare import prepare


@pytest.mark.processes
def test_h264_does_not_depend_on_what_the_heap_held(shared: Path, tmp_path: Path) -> None:
    """MALLOC_PERTURB_ fills fresh memory: an encoder that reads what it never wrote then gives other packets."""
    results = []
    for fill in ("0", "85"):
        output = tmp_path / f"fill:{fill}.mp4"
        code = "import sys; from keyscale.cli.app import run; sys.exit(run(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "upscale", str(shared / "clips/flower_960x540_2997_aac.mp4")]
        command += ["-o", str(output), "--model", "lanczos", "--size", "216x384", "--end", "1", "--progress", "none"]
        subprocess.run(
            command, env=os.environ | {"MALLOC_PERTURB_": fill}, check=True, capture_output=True, timeout=120
        )
        with av.open(f"file:{output}") as container:
            results.append([frame.to_ndarray().tobytes() for frame in container.decode(video=0)])
    assert results[0] == results[1]


def test_a_relative_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "in.mp4", frames=5, rate=30)
    run(small_job(Path("in.mp4"), Path("take:2.mp4")))
    assert len(planes(tmp_path / "take:2.mp4")) == 5


def test_a_device_that_is_absent_is_an_error_without_a_network_too(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", frames=2, rate=30)
    with pytest.raises(DeviceError, match="cuda:99"):
        run(small_job(tmp_path / "in.mp4", tmp_path / "out.mp4", compute=Compute(device="cuda:99")))
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.mp4"]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", frames=2, rate=30)
    with pytest.raises(UsageError, match="not a usable name"):
        prepare(small_job(tmp_path / "in.mp4", tmp_path / f"{'n' * 252}.mp4"))


def test_ten_bits_made_eight_are_told(shared: Path, tmp_path: Path) -> None:
    source = shared / "clips/hdr_vp9p2_10bit_426x240.webm"
    told = prepare(small_job(source, tmp_path / "out.mp4")).plan.warnings
    assert any("--bit-depth 10 keeps them" in warning for warning in told)
    kept = prepare(small_job(source, tmp_path / "out.mp4", encoding=Encoding(bit_depth=10))).plan.warnings
    assert not any("--bit-depth" in warning for warning in kept)
