"""What is not as planned is not published: each thing that a finished file is held against, on its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from support.clips import clicks_track, make_clip
from support.numbered import SMALL, Result, run, small_job

from keyscale.engine.errors import VerificationError
from keyscale.engine.job import Verify
from keyscale.engine.output.mux import Assembly, AudioTrack
from keyscale.engine.output.verify import verify
from keyscale.engine.plan.plan import Plan

FRAMES, RATE = 100, 25
SECONDS = Fraction(FRAMES, RATE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Four seconds with sound, as they were published."""
    folder = tmp_path_factory.mktemp("finished")
    sound = clicks_track([0.5, 3.5], seconds=float(SECONDS), sample_rate=48000)
    source = make_clip(folder / "in.mp4", frames=FRAMES, rate=RATE, size=SMALL, sounds=[sound])
    return run(small_job(source, folder / "out.mp4", rate=Fraction(RATE)))


def assembled(**more: Any) -> Assembly:
    """What was joined, as the file has it."""
    track: dict[str, Any] = {
        "index": 1,
        "codec": "aac",
        "start": Fraction(0),
        "duration": SECONDS,
        "action": "copy",
    } | more
    return Assembly(video_frames=FRAMES, audio=(AudioTrack(**track),), lost_audio=0, notes=())


def test_a_file_as_it_was_planned_passes(finished: Result) -> None:
    told: list[float] = []
    verify(finished.path, finished.plan, assembled(), on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1, abs=0.02)


def resized(plan: Plan) -> Plan:
    return replace(plan, job=replace(plan.job, target=replace(plan.job.target, width=plan.job.target.width + 2)))


def longer(plan: Plan) -> Plan:
    return replace(plan, source_index=plan.source_index[[*range(FRAMES), -1]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (resized, "has the size 64x48, planned is 66x48"),
        (longer, "has a frame count of 100, planned is 101"),
        (lambda plan: replace(plan, rate=Fraction(24)), "has times off its rate by more than one tick"),
        (
            lambda plan: replace(plan, encoder=replace(plan.encoder, codec="hevc")),
            "has the codec h264, planned is hevc",
        ),
    ],
    ids=["size", "frames", "rate", "codec"],
)
def test_a_picture_that_was_planned_otherwise_is_refused(
    finished: Result, change: Callable[[Plan], Plan], says: str
) -> None:
    with pytest.raises(VerificationError, match=says) as caught:
        verify(finished.path, change(finished.plan), assembled())
    assert "it was not published" in caught.value.message
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("assembly", "says"),
    [
        (assembled(start=Fraction(1, 5)), "audio track 0 starting at"),
        (assembled(duration=SECONDS + Fraction(1, 4)), "audio track 0 ending at"),
        (replace(assembled(), audio=()), "audio tracks with sound: 1, planned is 0"),
        (replace(assembled(), audio=assembled().audio * 2), "audio tracks with sound: 1, planned is 2"),
    ],
    ids=["late", "long", "one too many", "one missing"],
)
def test_sound_that_was_planned_otherwise_is_refused(finished: Result, assembly: Assembly, says: str) -> None:
    with pytest.raises(VerificationError, match=says):
        verify(finished.path, finished.plan, assembly)


@pytest.mark.parametrize("place", [0.3, 0.9])
def test_frames_that_cannot_be_decoded_are_refused(finished: Result, tmp_path: Path, place: float) -> None:
    broken = shutil.copyfile(finished.path, tmp_path / "broken.mp4")
    content = bytearray(broken.read_bytes())
    start = content.index(b"mdat") + 4
    at = start + int((len(content) - start) * place)
    content[at : at + 400] = bytes(400)
    broken.write_bytes(content)
    with pytest.raises(VerificationError, match=r"undecodable frames: [1-9]"):
        verify(broken, finished.plan, assembled())


def test_a_quick_look_decodes_both_ends(finished: Result, tmp_path: Path) -> None:
    quick = replace(finished.plan, job=replace(finished.plan.job, verify=Verify.QUICK))
    verify(finished.path, quick, assembled())
    torn = shutil.copyfile(finished.path, tmp_path / "torn.mp4")
    with torn.open("r+b") as file:
        file.truncate(torn.stat().st_size * 9 // 10)
    with pytest.raises(VerificationError):
        verify(torn, quick, assembled())
