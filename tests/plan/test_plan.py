"""The plan, made from videos that exist on paper alone: frames, counts, chunks, models, warnings."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.films import camera, film, planned, uneven
from support.numbered import Segment, contract, even

from keyscale.engine.camera.framing import Framing
from keyscale.engine.errors import FramingError, UsageError
from keyscale.engine.job import Codec, Compute, Encoding, Fit, Mode, Precision
from keyscale.engine.models.registry import ModelSpec, defaults_for, find
from keyscale.engine.models.speeds import Measured, checking_key, making_key, size_key
from keyscale.engine.plan.describe import plan_to_json, summarise
from keyscale.engine.plan.estimate import Estimate
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.probe import Orientation, VideoInfo

NTSC_FILM = Fraction(24000, 1001)
NTSC = Fraction(30000, 1001)
NTSC60 = Fraction(60000, 1001)


def times_of(info: VideoInfo) -> list[Fraction]:
    return [int(p - info.pts[0]) * info.time_base for p in info.pts]


# Which frame stands when

SOURCES: dict[str, VideoInfo] = {
    "24": film(100, 24),
    "23.976": film(100, NTSC_FILM),
    "25": film(100, 25),
    "29.97": film(100, NTSC),
    "30": film(100, 30),
    "50": film(100, 50),
    "59.94": film(100, NTSC60),
    "60": film(100, 60),
    "120": film(200, 120),
    "10": film(40, 10),
    "30 in ms": film(100, 30, time_base=Fraction(1, 1000)),
    "29.97 in ms": film(100, NTSC, time_base=Fraction(1, 1000)),
    "60 in ms": film(100, 60, time_base=Fraction(1, 1000)),
    "15 in ms": film(50, 15, time_base=Fraction(1, 1000)),
    "25 from 37 s": film(100, 25, start=37 * 12800),
    "29.97 in 1/90000": film(100, NTSC, time_base=Fraction(1, 90000), start=133200),
    "variable": uneven([0, 20, 40, 47, 61, 100, 101, 180, 300, 301, 330, 500, 520], Fraction(1, 600), 20),
    "slides": uneven([0, 5000, 5040, 12000], Fraction(1, 1000), 3000, rate=1),
}
TARGETS = [Fraction(10), Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50), NTSC60, Fraction(60)]


@pytest.mark.parametrize("rate", TARGETS, ids=lambda rate: f"{float(rate):.5g}")
@pytest.mark.parametrize("source", SOURCES)
def test_the_last_frame_at_or_before_the_time(source: str, rate: Fraction) -> None:
    info = SOURCES[source]
    plan = planned(info, rate)
    assert plan.source_index.tolist() == contract(times_of(info), info.duration, rate, tick=info.time_base)
    assert plan.rate == rate
    assert abs(plan.duration - info.duration) <= 1 / rate / 2
    assert [plan.pts(n) for n in (0, plan.frames - 1)] == info.pts[plan.source_index[[0, -1]]].tolist()


@pytest.mark.parametrize("rate", [24, 25, NTSC, 30, 48, 50, NTSC60, 60, 120], ids=lambda rate: f"{float(rate):.5g}")
@pytest.mark.parametrize(
    "base", [None, Fraction(1, 1000), Fraction(1, 90000), "frame"], ids=["fine", "ms", "90k", "frame"]
)
def test_at_its_own_rate_every_frame_is_shown_once(rate: Fraction | int, base: Any) -> None:
    """Rounding to a coarse time base neither drops nor doubles one; a tick of one frame is not taken for slack."""
    info = film(2000, rate, time_base=1 / Fraction(rate) if base == "frame" else base)
    assert planned(info, rate).source_index.tolist() == list(range(2000))
    assert planned(info, None).source_index.tolist() == list(range(2000))


@pytest.mark.parametrize("base", [Fraction(1, 16000), Fraction(1, 90000)], ids=["MP4", "TS"])
@pytest.mark.parametrize("rate", [24, 25, 30, 60, Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)])
@pytest.mark.parametrize("start", [0, 7])
def test_milliseconds_in_a_finer_time_base_are_rounded_all_the_same(
    rate: Fraction | int, base: Fraction, start: int
) -> None:
    """MKV remuxed to MP4 without encoding: a third of the frames were dropped, and others doubled, without a word."""
    times = [Fraction(round((n + start) / Fraction(rate) * 1000), 1000) for n in range(300)]
    info = dataclasses.replace(film(300, rate, time_base=base), pts=np.array([round(t / base) for t in times]))
    plan = planned(info, rate)
    assert plan.source_index.tolist() == list(range(300))


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)])
@pytest.mark.parametrize("off", [-3, 3, 10])
def test_parts_that_were_joined_some_ticks_off_lose_no_frame(rate: Fraction, off: int) -> None:
    """Four parts in 1/90000 s, each begun a few ticks early or late."""
    base = Fraction(1, 90000)
    pts = [round(n / rate / base) + n // 50 * off for n in range(200)]
    plan = planned(dataclasses.replace(film(200, rate, time_base=base), pts=np.array(pts, dtype=np.int64)), rate)
    assert plan.source_index.tolist() == list(range(200))


def test_uneven_times_are_not_forgiven_as_rounding() -> None:
    """Frames at 0, 40 and 90 ms shown every 40 ms: the one at 90 ms is not yet there at 80."""
    info = uneven([0, 40, 90, 130, 200, 240], Fraction(1, 1000), 40)
    assert planned(info, 25).source_index.tolist() == [0, 1, 1, 2, 3, 4, 5]


def test_thirds_of_a_second_in_milliseconds() -> None:
    """15 frames a second are 0, 67, 133, 200 ms: output frame 1 at 66.67 ms shows the one of 67."""
    info = film(4, 15, time_base=Fraction(1, 1000))
    assert info.pts.tolist() == [0, 67, 133, 200]
    assert planned(info, 15).source_index.tolist() == [0, 1, 2, 3]
    assert planned(info, 30).source_index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("source", "rate", "expected"),
    [
        # Worked by hand from the times: 50 to 30 takes frames 0, 1, 3 of every five; 25 to 30 shows one of five twice.
        (film(10, 50), 30, [0, 1, 3, 5, 6, 8]),
        (film(10, 25), 30, [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]),
        (film(8, 60), 30, [0, 2, 4, 6]),
        (film(4, 30), 60, [0, 0, 1, 1, 2, 2, 3, 3]),
        (film(4, 24), 60, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]),
        (film(15, 120), 24, [0, 5, 10]),
        (film(3, 10), 25, [0, 0, 0, 1, 1, 2, 2, 2]),
    ],
)
def test_cadences(source: VideoInfo, rate: int, expected: list[int]) -> None:
    assert planned(source, rate).source_index.tolist() == expected


@pytest.mark.parametrize("start", [None, 0.0, 0.04, 0.05, 0.0599, 0.06, 1.2345678])
@pytest.mark.parametrize("end", [None, 1.3, 2.0, 2.02, 3.999, 4.0])
@pytest.mark.parametrize("rate", [25, NTSC, 60], ids=lambda rate: f"{float(rate):.5g}")
def test_trims_fall_between_frames(start: float | None, end: float | None, rate: Fraction | int) -> None:
    info = film(100, 25)
    plan = planned(info, rate, start=start, end=end)
    first = Fraction(str(start or 0))
    last = Fraction(str(end)) if end is not None else Fraction(4)
    expected = contract(even(100, 25), Fraction(4), Fraction(rate), tick=info.time_base, start=first, end=last)
    assert plan.source_index.tolist() == expected
    assert abs(plan.duration - (last - first)) <= Fraction(1, 2) / rate
    assert plan.source_index[0] == int(first * 25)


SPEEDS: list[list[Segment]] = [
    [(Fraction(0), Fraction(4), speed)]
    for speed in (Fraction(1, 10), Fraction(1, 4), Fraction(1, 2), Fraction(2), Fraction(10), Fraction(3, 2))
] + [
    [(Fraction(1), Fraction(2), Fraction(1, 2)), (Fraction(5, 2), Fraction(7, 2), Fraction(4))],
    [(Fraction(0), Fraction(1), Fraction(10)), (Fraction(1), Fraction(2), Fraction(1, 10))],
    [(Fraction(1, 8), Fraction(3, 8), Fraction(5, 4)), (Fraction(7, 2), Fraction(9), Fraction(1, 4))],
]


@pytest.mark.parametrize("segments", SPEEDS, ids=lambda s: "+".join(f"{float(speed):g}" for _, _, speed in s))
@pytest.mark.parametrize("rate", [25, 30, NTSC60], ids=lambda rate: f"{float(rate):.5g}")
@pytest.mark.parametrize("trim", [(None, None), (0.5, 3.25)], ids=["whole", "trimmed"])
def test_speeds(segments: list[Segment], rate: Fraction | int, trim: tuple[float | None, float | None]) -> None:
    info = film(100, 25)
    entries = [{"start": float(a), "end": float(b), "speed": float(speed)} for a, b, speed in segments]
    plan = planned(info, rate, framing=camera(segments=entries), start=trim[0], end=trim[1])
    expected = contract(
        even(100, 25),
        Fraction(4),
        Fraction(rate),
        tick=info.time_base,
        start=Fraction(trim[0] or 0),
        end=Fraction(trim[1]) if trim[1] is not None else None,
        segments=segments,
    )
    assert plan.source_index.tolist() == expected


def test_durations_worked_by_hand() -> None:
    """4 s: half speed from 1 to 2 s is 2 s, four times from 2.5 to 3.5 s is 0.25 s; 1 + 2 + 0.5 + 0.25 + 0.5 = 4.25."""
    segments = [{"start": 1, "end": 2, "speed": 0.5}, {"start": 2.5, "end": 3.5, "speed": 4}]
    plan = planned(film(100, 25), 20, framing=camera(segments=segments))
    assert plan.frames == 85
    assert plan.duration == Fraction(17, 4)
    assert [(s.start, s.end, s.speed) for s in plan.time_map.stretches] == [
        (0, 1, 1), (1, 2, 0.5), (2, 2.5, 1), (2.5, 3.5, 4), (3.5, 4, 1),
    ]  # fmt: skip


def test_a_tenth_of_the_speed_shows_every_frame_ten_times() -> None:
    plan = planned(film(30, 30), 30, framing=camera(segments=[{"start": 0, "end": 1, "speed": 0.1}]))
    assert plan.source_index.tolist() == [n // 10 for n in range(300)]


def test_ten_times_the_speed_shows_every_tenth_frame() -> None:
    plan = planned(film(300, 30), 30, framing=camera(segments=[{"start": 0, "end": 10, "speed": 10}]))
    assert plan.source_index.tolist() == list(range(0, 300, 10))


def test_flags_go_before_the_keyframes_file() -> None:
    framing = camera(trim={"start": 1, "end": 3})
    assert planned(film(100, 25), 25, framing=framing).source_index.tolist() == list(range(25, 75))
    assert planned(film(100, 25), 25, framing=framing, start=2).source_index.tolist() == list(range(50, 75))
    assert planned(film(100, 25), 25, framing=framing, end=2).source_index.tolist() == list(range(25, 50))


def test_one_frame() -> None:
    for rate in (1, 24, 25, 30):
        plan = planned(film(1, 25), rate)
        assert plan.source_index[0] == 0
        assert plan.frames == max(1, int(rate * 0.04 + 0.5))


def test_a_warning_that_names_an_option_is_text_in_the_json() -> None:
    plan = planned(film(90, 30, bit_depth=10))
    assert (
        "the source has 10 bits, the result 8: --bit-depth 10 keeps them" in json.loads(plan_to_json(plan))["warnings"]
    )


def test_the_sources_rate_is_taken_when_asked() -> None:
    assert planned(film(100, NTSC), None).rate == NTSC
    plan = planned(uneven([0, 20, 47, 61, 100, 101], Fraction(1, 600), 20, rate=30), None)
    assert plan.rate == 30
    assert any("variable" in warning and "30" in warning for warning in plan.warnings)


# What cannot be planned


@pytest.mark.parametrize(
    ("start", "end"),
    [(4.0, None), (9.0, None), (1.0, 1.0), (2.0, 1.0), (-1.0, None), (None, 0.0), (None, -2.0), (4.0, 9.0)],
)
def test_a_trim_that_leaves_nothing(start: float | None, end: float | None) -> None:
    with pytest.raises(UsageError) as caught:
        planned(film(100, 25), start=start, end=end)
    assert caught.value.exit_code == 2
    assert caught.value.remedy


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_trim_that_is_no_number(value: float) -> None:
    info = film(100, 25)
    with pytest.raises(UsageError):
        planned(info, start=value)
    if value != float("inf"):
        with pytest.raises(UsageError):
            planned(info, end=value)


def test_a_trim_beyond_the_end_is_the_end() -> None:
    plan = planned(film(100, 25), 25, start=3, end=60)
    assert plan.frames == 25
    assert any("60" in warning for warning in plan.warnings)
    # Up to a frame is how editors round: nothing to tell.
    assert not planned(film(100, 25), 25, end=4.03, framing=WHOLE).warnings


def test_a_rectangle_larger_than_the_frame() -> None:
    with pytest.raises(FramingError) as caught:
        planned(film(100, 25), framing=camera([(0, 0, 0, 1920, 1082.5)]))
    assert caught.value.exit_code == 2
    planned(film(100, 25), framing=camera([(0, 0, 0, 1921, 1081)]))


# Chunks


@pytest.mark.parametrize("frames", [1, 2, 7, 100, 239, 240, 241, 1000, 10007])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 8.0, 3600.0])
def test_chunks_are_all_frames_once(frames: int, seconds: float) -> None:
    plan = planned(film(frames, 30), 30, chunk_seconds=seconds)
    assert plan.frames == frames
    assert [n for chunk in plan.chunks for n in range(chunk.start, chunk.end)] == list(range(frames))
    assert [chunk.index for chunk in plan.chunks] == list(range(len(plan.chunks)))
    lengths = [chunk.frames for chunk in plan.chunks]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    if frames > seconds * 30:
        assert max(lengths) <= 1.5 * max(1.0, seconds * 30) + 1


# The model

WHOLE = camera()
X4 = find("RealESRGAN_x4plus")
X2 = find("RealESRGAN_x2plus")
QUALITY = defaults_for(Mode.QUALITY)


def looking_at(width: float, height: float) -> Framing:
    return camera([(0, 100, 100, width, height)])


@pytest.mark.parametrize(
    ("width", "target", "wanted"),
    [
        (810.0, (810, 1440), None),
        (607.5, (54, 96), None),
        (607.5, (540, 960), None),
        (540.0, (1080, 1920), X2),
        (539.0, (1080, 1920), X4),
        (607.5, (1080, 1920), X2),
        (300.0, (1080, 1920), X4),
        (270.0, (1080, 1920), X4),
        (50.0, (1080, 1920), X4),
    ],
)
def test_the_scale_that_suffices(width: float, target: tuple[int, int], wanted: ModelSpec | None) -> None:
    info = dataclasses.replace(film(50, 25), width=2560, height=1600, stored_width=2560, stored_height=1600)
    plan = planned(info, framing=looking_at(width, width * 16 / 9), size=target, models=QUALITY)
    assert plan.model == wanted
    assert plan.scale == (wanted.scale if wanted else 1)
    assert plan.ratio == pytest.approx(target[0] / width)
    said = [warning for warning in plan.warnings if "no network is used" in warning]
    assert bool(said) == (wanted is None)
    if plan.ratio > 4.001:
        assert any("enlarged another" in warning for warning in plan.warnings)


def test_the_largest_ratio_of_the_job_decides() -> None:
    zoom = camera([(0, 100, 100, 540, 960), (1, 100, 100, 270, 480), (2, 100, 100, 540, 960)])
    plan = planned(film(75, 25), 25, framing=zoom, models=QUALITY)
    assert plan.model == X4
    assert plan.ratio == pytest.approx(4)
    assert planned(film(75, 25), 25, framing=zoom, models=QUALITY, end=0.0001).model == X2


def test_the_fast_mode_takes_the_shipped_network_that_suffices() -> None:
    for width, name in ((540, "keyscale-compact-x2"), (539, "keyscale-compact-x4")):
        plan = planned(film(50, 25), framing=looking_at(width, width * 16 / 9), models=defaults_for(Mode.FAST))
        assert plan.model == find(name)
        assert {str(way) for way in plan.executions} >= {"openvino int8, cpu", "torch fp16, cuda"}


def test_a_shipped_network_is_estimated_by_how_it_runs() -> None:
    def guess(speeds: dict[str, float], precision: Precision = Precision.AUTO) -> Estimate:
        compute = Compute(device="cpu", precision=precision)
        models = defaults_for(Mode.FAST)
        return planned(
            film(50, 25), framing=looking_at(270, 480), models=models, speeds=speeds, compute=compute
        ).estimate

    own = Measured("cpu openvino fp32 keyscale-compact-x4", 290 * 500, 100, 7e-12)
    speeds = {"cpu": 1e-11, "cpu openvino int8": 2e-12, own.name: own.value}
    for precision, speed, measured in ((Precision.AUTO, 2e-12, False), (Precision.FP32, 7e-12, True)):
        found = guess(speeds, precision)
        assert found.seconds == pytest.approx(found.macs * speed)
        assert found.measured is measured


def test_who_names_a_model_gets_it() -> None:
    spec = find("realesr-animevideov3")
    assert planned(film(50, 25), framing=looking_at(540, 960), models={4: spec}).model == spec
    assert planned(film(50, 25), framing=looking_at(200, 355.5), models={2: X2}).model == X2


def test_lanczos_is_only_ever_asked_for() -> None:
    plan = planned(film(50, 25), framing=looking_at(270, 480), models={})
    assert (plan.model, plan.scale, plan.estimate.macs, plan.estimate.seconds) == (None, 1, 0, None)


# Geometry


def test_cover_cuts_about_the_centre() -> None:
    plan = planned(film(2, 25), 25, size=(1080, 1920))
    np.testing.assert_allclose(plan.rects, [[656.25, 0, 607.5, 1080]] * 2)
    assert plan.placements.tolist() == [[0, 0, 1080, 1920]] * 2


def test_contain_shows_all_and_pads() -> None:
    plan = planned(film(2, 25), 25, size=(1080, 1920), fit=Fit.CONTAIN)
    np.testing.assert_allclose(plan.rects, [[0, 0, 1920, 1080]] * 2)
    # 1080 / 1920 * 1080 = 607.5, to the even 608; (1920 - 608) / 2 = 656.
    assert plan.placements.tolist() == [[0, 656, 1080, 608]] * 2


def test_stretch_shows_all_and_distorts() -> None:
    plan = planned(film(2, 25), 25, size=(1080, 1920), fit=Fit.STRETCH)
    np.testing.assert_allclose(plan.rects, [[0, 0, 1920, 1080]] * 2)
    assert plan.placements.tolist() == [[0, 0, 1080, 1920]] * 2
    assert plan.ratio == pytest.approx(1920 / 1080)


def test_the_camera_is_looked_up_at_the_time_of_the_frame_shown() -> None:
    """10 to 30 frames a second: three outputs show one source frame, and the camera stands still meanwhile."""
    pan = camera([(0, 0, 0, 607.5, 1080), (1, 1000, 0, 607.5, 1080)])
    plan = planned(film(10, 10), 30, framing=pan)
    np.testing.assert_allclose(plan.rects[:, 0], np.repeat(np.arange(10) * 100.0, 3))


def test_windows_hold_the_rectangles_and_stay_inside() -> None:
    pan = camera([(0, 0, 0, 300, 533), (1, 1620, 547, 300, 533)])
    for models in ({}, QUALITY):
        plan = planned(film(26, 25), 25, framing=pan, models=models)
        x, y, width, height = plan.rects.T
        assert (plan.windows[:, 0] <= x).all()
        assert (plan.windows[:, 1] <= y).all()
        assert (plan.windows[:, 2] >= x + width).all()
        assert (plan.windows[:, 3] >= y + height).all()
        assert plan.windows.min() >= 0
        assert plan.windows[:, 2].max() <= 1920
        assert plan.windows[:, 3].max() <= 1080
        assert (plan.windows[:, 2] - x - width).max() < 14
        assert plan.window(0).width == plan.windows[0, 2] - plan.windows[0, 0]


def test_rotation_by_the_display_matrix() -> None:
    """Stored 1920x1080, shown upright: keyframes and lattice are 1080x1920."""
    info = dataclasses.replace(
        film(5, 25), width=1080, height=1920, orientation=Orientation(transpose=True, flip_x=True)
    )
    plan = planned(info, 25, size=(540, 960))
    assert plan.geometry.lattice == (1080, 1920)
    np.testing.assert_allclose(plan.rects[0], [0, 0, 1080, 1920])


def test_pixels_that_are_not_square() -> None:
    """720x480 of 32:27 are shown 853 wide: rectangles are in what is shown, windows in what is stored."""
    info = dataclasses.replace(
        film(5, 25), width=853, height=480, stored_width=720, stored_height=480, sample_aspect_ratio=Fraction(32, 27)
    )
    plan = planned(info, 25, size=(270, 480), models={4: X4})
    np.testing.assert_allclose(plan.rects[0], [(853 - 270) / 2, 0, 270, 480])
    left = 291.5 * 720 / 853
    assert left - 4 <= plan.windows[0, 0] <= left
    # Across, 270 output pixels stand for 228 stored ones: more than 1.
    assert plan.ratio == pytest.approx(853 / 720)
    assert plan.model == X4


def test_a_free_rotation_reads_the_turned_corners() -> None:
    framing = camera([(0, 900, 500, 120, 80)], rotation=90)
    plan = planned(film(2, 25), 25, framing=framing, size=(120, 80))
    # Turned about (960, 540), a rectangle 20 left of and at the centre comes from 20 below it, and on its side.
    x0, y0, x1, y1 = plan.windows[0].tolist()
    assert (x0 + x1) / 2 == pytest.approx(960, abs=2)
    assert (y0 + y1) / 2 == pytest.approx(540, abs=2)
    assert y1 - y0 >= 120
    assert x1 - x0 >= 80


# Warnings and the estimate


def test_warnings() -> None:
    info = dataclasses.replace(
        film(50, 25), interlaced=True, field_order="tff", damaged=3, notes=("a note of the probe",)
    )
    framing = camera([(0, 3000, 0, 607.5, 1080)])
    plan = planned(info, framing=framing, models=QUALITY)
    text = "\n".join(plan.warnings)
    for words in ("interlaced (tff)", "3 frame(s)", "a note of the probe", "far outside", "moved inside"):
        assert words in text
    assert planned(film(50, 25), 25, models=QUALITY, framing=WHOLE).warnings == ()


def test_the_estimate() -> None:
    spec = find("realesr-general-x4v3")
    framing = looking_at(270, 480)
    guess = planned(film(50, 25), 50, framing=framing, models={4: spec}, speeds={"cpu": 1e-11}).estimate
    assert (guess.inferred_frames, guess.device, guess.measured) == (50, "cpu", False)
    # The rectangle, 3 / 4 pixel of filter and 34 pixels of context on each side; 1.209 M MAC a pixel.
    pixels = (270 + 2 * 35) * (480 + 2 * 35)
    assert guess.macs == pytest.approx(50 * pixels * 1.209e6, rel=0.01)
    assert guess.seconds == pytest.approx(guess.macs * 1e-11)
    own = Measured("cpu openvino fp32 realesr-general-x4v3", pixels, 100, 4e-12)
    for size, measured in ((1, True), (4, True), (1 / 4, True), (16, False), (1 / 16, False)):
        near = dataclasses.replace(own, pixels=int(pixels * size))
        known = planned(
            film(50, 25), 50, framing=framing, models={4: spec}, speeds={"cpu": 1e-11, near.name: near.value}
        ).estimate
        assert known.measured is measured
        assert known.seconds == pytest.approx(known.macs * (4e-12 if measured else 1e-11))
    cuda = planned(
        film(50, 25),
        framing=framing,
        models={4: spec},
        speeds={"cpu": 1e-11, "cuda": 1e-13},
        compute=Compute(device="cuda:1"),
    ).estimate
    assert cuda.device == "cuda"
    assert cuda.seconds == pytest.approx(cuda.macs * 1e-13)


def test_the_whole_job_is_estimated_by_its_parts_and_told_in_words() -> None:
    area, spec = 540 * 960, find("realesr-general-x4v3")
    measured = [
        Measured("cpu openvino fp32 realesr-general-x4v3", 340 * 550, 100, 4e-12),
        Measured(making_key("libx264", "medium", network=True), area, 100, 2e-8),
        Measured(checking_key("full"), area, 100, 1e-8),
        Measured(size_key("libx264"), area, 100, 0.01),
    ]
    given: dict[str, Any] = {"size": (540, 960), "models": {4: spec}, "framing": looking_at(270, 480)}
    given |= {"encoding": Encoding(crf=22, preset="medium"), "compute": Compute(device="cpu")}
    plan = planned(film(5000, 25), 50, speeds={each.name: each.value for each in measured}, **given)
    found = plan.estimate
    assert (found.measured, found.all_measured) == (True, True)
    assert found.making_seconds == pytest.approx(10000 * area * 2e-8)
    assert found.checking_seconds == pytest.approx(10000 * area * 1e-8)
    assert found.seconds is not None
    assert found.job_seconds == pytest.approx(found.seconds + found.making_seconds + found.checking_seconds)
    assert found.likely_bytes == pytest.approx(10000 * area * 0.01 / 2)
    assert found.likely_bytes <= found.output_bytes
    rows = dict(summarise(plan))
    assert rows["Estimate"].startswith("1:18:40 on cpu: ")
    for words in (
        "network 1:16:05",
        "sampling and encoding 1:44 more",
        "checking 0:52",
        "(measured here)",
        "5000 frames",
    ):
        assert words in rows["Estimate"]
    assert rows["Size"].startswith("about 26 MB, at most ")
    told = json.loads(plan_to_json(plan))["estimate"]
    assert told["job_seconds"] == found.job_seconds
    assert told["likely_bytes"] == found.likely_bytes

    plain = planned(film(5000, 25), 50, size=(540, 960))
    assert plain.estimate.seconds is None
    assert plain.estimate.job_seconds == plain.estimate.making_seconds + plain.estimate.checking_seconds
    assert "(not measured here yet)" in dict(summarise(plain))["Estimate"]
    assert "network" not in dict(summarise(plain))["Estimate"]


def test_the_guess_of_bytes_follows_size_length_and_quality() -> None:
    small = planned(film(500, 25), size=(540, 960)).estimate.output_bytes
    assert planned(film(500, 25), size=(1080, 1920)).estimate.output_bytes > 3 * small
    assert planned(film(500, 25), size=(540, 960), encoding=Encoding(crf=12)).estimate.output_bytes > 1.5 * small


def test_the_encoder_follows_the_source() -> None:
    hdr = dataclasses.replace(film(5, 25), colour=Colour(matrix=9, full_range=False, primaries=9, transfer=16))
    assert planned(film(5, 25)).encoder.encoder == "libx264"
    assert planned(film(5, 25)).encoder.bit_depth == 8
    chosen = planned(hdr).encoder
    assert (chosen.encoder, chosen.bit_depth, chosen.codec_tag) == ("libx265", 10, "hvc1")
    assert planned(hdr, output="out.mkv").encoder.codec_tag is None
    assert planned(film(5, 25), output="out.webm").encoder.codec == "av1"
    with pytest.raises(UsageError):
        planned(film(5, 25), encoding=Encoding(codec=Codec.PRORES))
    with pytest.raises(UsageError):
        planned(film(5, 25), output="out.txt")


# Size and weight


def test_two_hours_are_planned_in_seconds_and_little_memory() -> None:
    info = film(2 * 3600 * 60, 60)
    pan = camera([(n, (n * 37) % 1300, 0, 607.5, 1080) for n in range(0, 7200, 2)], interpolation="smooth")
    tracemalloc.start()
    try:
        plan = planned(info, 60, framing=pan, models=QUALITY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plan.frames == 432_000
    assert len(plan.chunks) == 900
    assert peak < 200 * 2**20


@pytest.mark.processes
def test_planning_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from keyscale.engine.plan import describe, plan\n"
        "from keyscale.engine.source import probe\n"
        "from keyscale.engine.runners import local\n"
        "print(sorted({'torch', 'typer', 'rich', 'modal', 'boto3'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# As JSON and as a table


def test_the_plan_as_json() -> None:
    info = film(20, 25, start=640)
    pan = camera([(0, 0, 0, 270, 480), (0.4, 40, 0, 270, 480)])
    plan = planned(info, 50, framing=pan, models=QUALITY)
    found = json.loads(plan_to_json(plan))
    assert found["version"] == 1
    assert found["source"]["rate"] == "25/1"
    assert found["source"]["time_base"] == "1/12800"
    assert found["target"]["rate"] == "50/1"
    assert (found["target"]["width"], found["target"]["height"], found["target"]["frames"]) == (1080, 1920, 40)
    assert (found["model"]["name"], found["model"]["scale"], found["scale"]) == ("RealESRGAN_x4plus", 4, 4)
    assert found["ratio"] == pytest.approx(4)
    assert found["chunks"] == [{"index": 0, "start": 0, "end": 40}]
    assert found["warnings"] == list(plan.warnings)
    assert found["segments"] == [{"start": 0, "end": 0.8, "speed": 1}]
    assert found["estimate"]["inferred_frames"] == 20
    assert [frame["n"] for frame in found["frames"]] == list(range(40))
    frame = found["frames"][5]
    # Output 5 stands at 0.1 s and shows source frame 2, of 0.08 s: pts 640 + 2 * 512, the camera at a fifth of its way.
    assert (frame["pts"], frame["time"], frame["rect"]) == (1664, 0.08, [8, 0, 270, 480])
    sampled = json.loads(plan_to_json(planned(info, 50)))
    assert sampled["model"] is None
    assert sampled["scale"] == 1


def test_the_plan_as_a_table() -> None:
    rows = dict(summarise(planned(film(20, NTSC), None, framing=looking_at(270, 480), models=QUALITY)))
    assert "1920x1080" in rows["Source"]
    assert "29.97" in rows["Source"]
    assert "1080x1920" in rows["Target"]
    assert "RealESRGAN_x4plus" in rows["Model"]
    assert "Estimate" in rows
    assert "sampling only" in dict(summarise(planned(film(20, 25))))["Model"]
    assert list(rows)[:3] == ["Source", "Keyframes", "Camera"]
    assert rows["Keyframes"].endswith("1 keyframe at 0.000 s; 0.000 to 0.667 s of the video are used")
    assert rows["Camera"].startswith("sees 270x480 pixels at x 100, y 100: 6% of the frame;")
