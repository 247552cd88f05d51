"""Sound that outlasts its picture, or cannot be copied, is heard to its end and at its time in the result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.clips import clicks_in, clicks_track
from support.numbered import run, shown, small_job
from support.sounds import write_sound

from keyscale.engine.choices import Until
from keyscale.engine.plan.describe import plan_to_json, summarise
from keyscale.engine.runners.prepare import prepare_plan

CLICKS = [0.5, 1.5, 2.9]


def recording(path: Path, codec: str, *, rate: int = 48000, tracks: int = 1, seconds: float = 3.0) -> Path:
    """A second of picture at 25 a second, and three seconds of sound."""
    clicks = clicks_track([click for click in CLICKS if click < seconds], seconds=seconds, sample_rate=rate)
    return write_sound(path, [clicks] * tracks, codec=codec, layout="stereo", rate=rate, frames=25)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("in.mp4", "aac"), ("in.mkv", "flac"), ("in.mov", "pcm_s16le"), ("in.ts", "mp2"), ("in.mkv", "libmp3lame")],
)
def test_the_last_frame_is_held_while_the_sound_lasts(tmp_path: Path, name: str, codec: str) -> None:
    result = run(small_job(recording(tmp_path / name, codec), tmp_path / "out.mp4"))
    numbers = shown(result.path)
    assert numbers[:25] == list(range(25))
    assert set(numbers[25:]) == {24}
    assert len(numbers) in {75, 76}  # the packet in which MP3 ends is filled up
    assert np.abs(np.array(clicks_in(result.path)) - CLICKS).max() < 0.002


def test_every_track_is_kept_to_its_end(tmp_path: Path) -> None:
    result = run(small_job(recording(tmp_path / "in.mkv", "flac", tracks=2), tmp_path / "out.mkv"))
    assert len(shown(result.path)) == 75
    for track in (0, 1):
        assert np.abs(np.array(clicks_in(result.path, track)) - CLICKS).max() < 0.002


def test_the_sound_is_cut_with_the_picture_if_asked(tmp_path: Path) -> None:
    job = small_job(recording(tmp_path / "in.mkv", "flac"), tmp_path / "out.mp4", until=Until.VIDEO)
    result = run(job)
    assert shown(result.path) == list(range(25))
    assert len(clicks_in(result.path)) == 1


def test_a_trim_reaches_into_what_is_held(tmp_path: Path) -> None:
    source = recording(tmp_path / "in.mkv", "flac")
    result = run(small_job(source, tmp_path / "out.mp4", start=0.8, end=2.0))
    assert shown(result.path) == [*range(20, 25), *[24] * 25]
    assert np.abs(np.array(clicks_in(result.path)) - [0.7]).max() < 0.002


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.03])
def test_sound_as_long_as_the_picture_adds_nothing(tmp_path: Path, seconds: float) -> None:
    source = recording(tmp_path / "in.mp4", "aac", seconds=seconds)
    assert prepare_plan(small_job(source, tmp_path / "out.mp4")).frames == 25


@pytest.mark.parametrize("rate", [8000, 11025, 12000])
def test_mp3_that_mp4_does_not_hold_is_encoded(tmp_path: Path, rate: int) -> None:
    source = recording(tmp_path / "in.mkv", "libmp3lame", rate=rate, seconds=1.0)
    result = run(small_job(source, tmp_path / "out.mp4"))
    assert [(track.action, track.codec) for track in result.plan.tracks] == [("encode", "aac")]
    assert np.abs(np.array(clicks_in(result.path)) - [0.5]).max() < 0.003


def test_mp3_that_mp4_holds_is_copied(tmp_path: Path) -> None:
    source = recording(tmp_path / "in.mkv", "libmp3lame", rate=16000, seconds=1.0)
    result = run(small_job(source, tmp_path / "out.mp4"))
    assert [(track.action, track.codec) for track in result.plan.tracks] == [("copy", "mp3")]


def test_sound_before_the_picture_is_told_of(tmp_path: Path) -> None:
    clicks = clicks_track([0.25, 1.25], seconds=2, sample_rate=48000)
    source = write_sound(tmp_path / "in.mkv", [clicks], codec="flac", layout="stereo", frames=25, video_start=1.0)
    result = run(small_job(source, tmp_path / "out.mp4"))
    assert np.abs(np.array(clicks_in(result.path)) - [0.25]).max() < 0.002
    assert any("audio stream 1 begins 1.000 s before the picture" in note for note in result.notes)


def test_the_plan_names_every_stream_that_is_left_out(tmp_path: Path) -> None:
    source = recording(tmp_path / "in.mkv", "flac", tracks=2, seconds=1.0)
    job = small_job(source, tmp_path / "out.mp4")
    plan = prepare_plan(job)
    assert not [value for label, value in summarise(plan) if label == "Left out"]
    silent = prepare_plan(small_job(source, tmp_path / "out.mp4", encoding=type(job.encoding)(audio=False)))
    left = [value for label, value in summarise(silent) if label == "Left out"]
    assert left == [f"audio stream {index} (flac): the sound is not wanted" for index in (1, 2)]
    tracks = json.loads(plan_to_json(silent))["tracks"]
    assert [(track["index"], track["action"], bool(track["reason"])) for track in tracks] == [
        (1, "drop", True),
        (2, "drop", True),
    ]
