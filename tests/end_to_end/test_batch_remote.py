"""`keyscale batch --remote`: several clips follow their chunks at once, and a second run sends nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.clips import clicks_track, make_clip, numbers_in
from support.remote_place import Place, events_of
from support.reports import read_report

FLAGS = ("--size", "64x64", "--fps", "source", "--model", "lanczos", "--chunk-seconds", "1", "--whole-frame")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four clips of three chunks each."""
    inbox = tmp_path / "in"
    inbox.mkdir()
    for number, name in enumerate("abcd"):
        hum = clicks_track([0.5], seconds=3, sample_rate=48000, channels=1)
        make_clip(inbox / f"{name}.mp4", frames=36, rate=12, first_number=100 * number, sounds=[hum])
    return inbox


def test_all_clips_are_made_remotely_their_calls_share_a_bound_and_a_second_run_sends_nothing(
    deployed: Place, folder: Path, tmp_path: Path
) -> None:
    given = ("batch", folder, "-o", tmp_path / "out", *FLAGS, "--remote", "--remote-containers", "2")
    done = deployed.run(*given, "--progress", "json")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{deployed.logs()}"
    for number, name in enumerate("abcd"):
        made = [found for _, found in numbers_in(tmp_path / "out" / f"{name}.mp4")]
        assert made == list(range(100 * number, 100 * number + 36))
    report = read_report(tmp_path / "out" / "report.json")
    assert (report.done, report.failed) == (4, 0)
    assert report.dollars is not None
    assert all(clip.device == "none" for clip in report.clips)  # sampled, without a network
    events = events_of(done.stdout)
    assert max(event["running"] for event in events if event["event"] == "batch") > 1
    assert deployed.left() == []
    calls = len(deployed.modal.calls("FunctionMap"))
    again = deployed.run(*given)
    assert again.returncode == 0, again.stderr
    assert "4 skipped" in again.stderr
    assert len(deployed.modal.calls("FunctionMap")) == calls


def test_the_cost_of_all_clips_together_is_bounded(deployed: Place, folder: Path, tmp_path: Path) -> None:
    done = deployed.run("batch", folder, "-o", tmp_path / "out", *FLAGS, "--remote", "--max-cost", "0.0001")
    assert done.returncode == 1
    assert "more than --max-cost" in done.stderr
    assert "Traceback" not in done.stderr
    assert deployed.left() == []


@pytest.mark.slow
def test_an_interrupted_batch_leaves_nothing_in_storage_and_can_be_gone_on_with(
    deployed: Place, folder: Path, tmp_path: Path
) -> None:
    given = ("batch", folder, "-o", tmp_path / "out", *FLAGS, "--remote", "--progress", "json")
    process = deployed.start(*given)
    assert process.stdout is not None
    for line in process.stdout:
        if '"phase":"upscale"' in line:
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert deployed.left() == []
    done = deployed.run(*given)
    assert done.returncode == 0, f"{done.stderr}\n{deployed.logs()}"
    for number, name in enumerate("abcd"):
        made = [found for _, found in numbers_in(tmp_path / "out" / f"{name}.mp4")]
        assert made == list(range(100 * number, 100 * number + 36))
    assert deployed.left() == []
