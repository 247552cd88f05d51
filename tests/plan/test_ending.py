"""A source ends with its picture, or with its sound where that lasts longer and the last frame is to be held."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import pytest
from support.films import camera, film, planned

from keyscale.engine.choices import Until
from keyscale.engine.job import Encoding, Trim
from keyscale.engine.plan.plan import Plan, make_plan
from keyscale.engine.source.probe import StreamInfo, VideoInfo

FPS = 25


def with_sound(*spans: tuple[float, float], frames: int = FPS, **more: Any) -> VideoInfo:
    """A second of picture and a track of sound for each span of seconds."""
    picture = film(frames, FPS)
    tracks = (
        StreamInfo(index=1 + n, kind="audio", codec="aac", sample_rate=48000, channels=2, begins=a, ends=b, **more)
        for n, (a, b) in enumerate(spans)
    )
    return dataclasses.replace(picture, streams=(*picture.streams, *tracks))


def plan_of(info: VideoInfo, **more: Any) -> Plan:
    trim = Trim(start=more.pop("start", None), end=more.pop("end", None))
    framing = more.pop("framing", None)
    plan = planned(info, FPS)
    return make_plan(dataclasses.replace(plan.job, trim=trim, **more), info, framing, {}, {"cpu": 1e-11})


def test_the_last_frame_is_held_until_the_sound_ends() -> None:
    plan = plan_of(with_sound((0, 3)))
    assert plan.source_index.tolist() == [*range(25), *[24] * 50]
    assert [track.action for track in plan.tracks] == ["copy"]
    (told,) = [w for w in map(str, plan.warnings) if "sound lasts" in w]
    assert "2.000 s longer" in told
    assert "--until video" in told


def test_the_sound_is_cut_if_asked() -> None:
    plan = plan_of(with_sound((0, 3)), until=Until.VIDEO)
    assert plan.frames == 25
    assert any("last 2.000 s of the sound are cut" in str(warning) for warning in plan.warnings)


@pytest.mark.parametrize(("ends", "frames"), [(0.5, 25), (1.0, 25), (1.03, 25), (1.045, 25), (1.09, 28), (1.5, 38)])
def test_what_is_longer_by_a_frame_or_by_padding_is_not_held(ends: float, frames: int) -> None:
    assert plan_of(with_sound((0, ends))).frames == frames


def test_the_longest_of_several_tracks_counts() -> None:
    assert plan_of(with_sound((0, 1.0), (0, 2.0), (0.5, 1.5))).frames == 50


def test_tracks_that_are_left_out_do_not_count() -> None:
    silent = with_sound((0, 3))
    unknown = dataclasses.replace(silent.streams[1], codec=None)
    assert plan_of(dataclasses.replace(silent, streams=(silent.streams[0], unknown))).frames == 25
    assert plan_of(silent, encoding=Encoding(audio=False)).frames == 25
    cover = dataclasses.replace(silent.streams[0], index=2, attached_picture=True, ends=9.0, begins=0.0)
    assert plan_of(dataclasses.replace(with_sound((0, 1)), streams=(*with_sound((0, 1)).streams, cover))).frames == 25


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (0.5, None, [*range(12, 25), *[24] * 50]),
        (None, 0.5, list(range(12))),
        (None, 1.0, list(range(25))),
        (None, 2.0, [*range(25), *[24] * 25]),
        (2.0, 2.4, [24] * 10),
    ],
)
def test_trims_are_of_the_longer_timeline(start: float | None, end: float | None, shown: list[int]) -> None:
    plan = plan_of(with_sound((0, 3)), start=start, end=end)
    assert plan.source_index.tolist()[: len(shown)] == shown
    assert abs(plan.frames - len(shown)) <= 1
    assert [track.action for track in plan.tracks] == ["encode"]
    assert any("sound lasts" in str(warning) for warning in plan.warnings) == (end is None or end > 1)


def test_a_trim_within_the_picture_hears_nothing_of_a_cut_sound() -> None:
    plan = plan_of(with_sound((0, 3)), end=0.5, until=Until.VIDEO)
    assert not any("sound" in str(warning) for warning in plan.warnings)


def test_speed_holds_for_what_is_held() -> None:
    segments = [{"start": 1, "end": 3, "speed": 2}]
    plan = plan_of(with_sound((0, 3)), framing=camera(segments=segments))
    assert plan.source_index.tolist() == [*range(25), *[24] * 25]


def test_one_frame_is_held_for_a_whole_song() -> None:
    plan = plan_of(with_sound((0, 200), frames=1))
    assert plan.duration == Fraction(200)
    assert set(plan.source_index.tolist()) == {0}


def test_sound_before_the_picture_is_told_of() -> None:
    plan = plan_of(with_sound((-0.5, 1)))
    assert plan.frames == 25
    assert any("audio stream 1 begins 0.500 s before the picture" in str(warning) for warning in plan.warnings)
    for quiet in (plan_of(with_sound((-0.08, 1))), plan_of(with_sound((-0.5, 1)), start=0.5)):
        assert not any("before the picture" in str(warning) for warning in quiet.warnings)
