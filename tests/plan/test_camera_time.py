"""Which output frame a cut falls on, and how the camera moves while a frame stands (docs/keyframes.md)."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.films import camera, film, planned, uneven
from support.numbered import run, small_job, write_video

from keyscale.engine.camera.framing import Framing, parse_framing
from keyscale.engine.errors import FramingError
from keyscale.engine.job import Fit
from keyscale.engine.plan.describe import summarise
from keyscale.engine.plan.plan import Plan
from keyscale.engine.source.probe import VideoInfo

NTSC = {name: Fraction(number * 1000, 1001) for name, number in (("23.976", 24), ("29.97", 30), ("59.94", 60))}
MS = Fraction(1, 1000)


def steps(*times: float, hold: bool = True) -> Framing:
    """A camera that cuts to x = 100, 200, ... at the times."""
    rows: list[dict[str, Any]] = []
    for number, time in enumerate((0.0, *times)):
        row = {"time": time, "x": 100 * number, "y": 0, "width": 607.5, "height": 1080}
        if not hold and number:
            rows.append(row | {"x": 100 * (number - 1)})
        rows.append(row | ({"ease": "hold"} if hold else {}))
    return parse_framing(json.dumps(rows), "k.json")


def cuts(plan: Plan) -> list[int]:
    """Source frames with which the camera's x begins to differ."""
    changes = np.flatnonzero(np.diff(plan.rects[:, 0]) != 0) + 1
    return [int(n) for n in plan.source_index[changes]]


# Cuts on the frame that is meant


@pytest.mark.parametrize(("written", "rate"), [*NTSC.items(), ("23.98", NTSC["23.976"]), ("59.9401", NTSC["59.94"])])
@pytest.mark.parametrize("base", [None, MS, Fraction(1, 90000)], ids=["fine", "ms", "90k"])
def test_frame_numbers_at_an_ntsc_rate_are_those_frames(written: str, rate: Fraction, base: Fraction | None) -> None:
    """{"fps": 29.97, ... {"frame": 30}} switched at frame 31 of video of 30000/1001 frames a second."""
    numbers = [30, 61, 500, 997]
    rows = [
        f'{{"frame": {n}, "x": {100 * i}, "y": 0, "width": 607.5, "height": 1080, "ease": "hold"}}'
        for i, n in enumerate([0, *numbers])
    ]
    framing = parse_framing(f'{{"fps": {written}, "keyframes": [{",".join(rows)}]}}', "k.json")
    assert cuts(planned(film(1000, rate, time_base=base), None, framing=framing)) == numbers


@pytest.mark.parametrize("hold", [True, False], ids=["hold", "equal times"])
@pytest.mark.parametrize(
    "rate", [Fraction(24), Fraction(30), Fraction(60), *NTSC.values()], ids=lambda r: f"{float(r):.5g}"
)
@pytest.mark.parametrize("base", [None, MS], ids=["fine", "ms"])
@pytest.mark.parametrize("decimals", [2, 3, 6, 12])
def test_rounded_times_mean_the_frame(hold: bool, rate: Fraction, base: Fraction | None, decimals: int) -> None:
    """30 a second in Matroska: cuts at frames 31, 34, 37 came at 32, 35, 38; half of all rounded times round up."""
    if decimals == 2 and rate == NTSC["59.94"]:
        pytest.skip("a hundredth of a second is more than half a frame: which one is meant cannot be told")
    numbers = [31, 34, 37, 101, 500]
    info = film(600, rate, time_base=base)
    times = [round(float(n / rate), decimals) for n in numbers]
    assert cuts(planned(info, None, framing=steps(*times, hold=hold))) == numbers


@pytest.mark.parametrize("time", [1.0, 1.01, 1.02, 1.035])
def test_a_cut_between_two_frames_is_at_the_later_one(time: float) -> None:
    """25 frames a second: of 1.01 no rounding makes 1.00."""
    assert cuts(planned(film(50, 25), 25, framing=steps(time))) == [25 if time == 1 else 26]


def test_a_time_base_of_one_tick_a_frame_rounds_nothing() -> None:
    assert cuts(planned(film(50, 25, time_base=Fraction(1, 25)), 25, framing=steps(1.002, 1.2))) == [26, 30]


@pytest.mark.parametrize("start", [0.9, 1.0, 31 / 30, round(31 / 30, 3)])
def test_cuts_in_a_trimmed_clip(start: float) -> None:
    framing = steps(round(34 / 30, 3), round(61 / 30, 3))
    plan = planned(film(100, 30, time_base=MS), 30, framing=framing, start=start)
    assert cuts(plan) == [34, 61]
    assert plan.source_index[0] == round(start * 30)


@pytest.mark.parametrize("rounded", [1.033, 1.0333, 1.034])
@pytest.mark.parametrize("base", [None, MS], ids=["fine", "ms"])
def test_a_trim_begins_with_the_frame_that_its_rounded_time_means(rounded: float, base: Fraction | None) -> None:
    """1.033 shows frame 30 for another 0.3 ms; who wrote it meant frame 31, at 1.0333."""
    by_flag = planned(film(100, 30, time_base=base), 30, framing=steps(2), start=rounded)
    by_file = planned(film(100, 30, time_base=base), 30, framing=camera(trim={"start": rounded}))
    assert by_flag.source_index.tolist() == by_file.source_index.tolist() == list(range(31, 100))


def test_a_trim_between_frames_is_taken_as_it_is() -> None:
    assert planned(film(100, 25), 25, start=1.03).time_map.start == 1.03


@pytest.mark.parametrize("speed", [0.5, 0.25, 2])
def test_cuts_and_speeds_on_rounded_times(speed: float) -> None:
    """A stretch from 1.033 to 2.067 s means frames 31 to 62, and each of them stands as long as the next."""
    segment = {"start": 1.033, "end": 2.067, "speed": speed}
    rows = [(0, 0, 0, 607.5, 1080), (1.133, 0, 0, 607.5, 1080), (1.133, 500, 0, 607.5, 1080)]
    plan = planned(film(100, 30), 30, framing=camera(rows, segments=[segment]))
    assert cuts(plan) == [34 if speed < 1 else 35], "twice as fast every second frame is shown, 31, 33, 35"
    shown = plan.source_index[(plan.source_index >= 31) & (plan.source_index < 62)].tolist()
    expected = [31 + int(n * speed) for n in range(int(31 / speed + 0.5))]
    assert shown == expected


@pytest.mark.parametrize("speed", [0.25, 0.1])
@pytest.mark.parametrize(("start", "end"), [(0.233, 0.6), (0.333, 0.4), (0.067, 0.7)])
def test_slow_motion_does_not_make_a_clocks_rounding_longer(start: float, end: float, speed: float) -> None:
    """Frame 7 stands at 233 ms in Matroska; at a quarter of the speed what followed came 1.3 ms late, or a frame."""
    segment = {"start": start, "end": end, "speed": speed}
    fine, coarse = (
        planned(film(100, 30, time_base=base), 30, framing=camera(segments=[segment])).source_index.tolist()
        for base in (None, MS)
    )
    assert coarse == fine


def test_the_result_cuts_on_the_frame_too(tmp_path: Path) -> None:
    """Pixels of the finished clip: dark at left, bright at right, and a cut at 1.033 in a file of milliseconds."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = 200
    source = write_video(tmp_path / "a.mkv", [picture] * 45, rate=30)
    path = tmp_path / "k.json"
    path.write_text(
        '{"keyframes": [{"time": 0, "x": 0, "y": 0, "w": 24, "h": 36, "ease": "hold"},'
        f'{{"time": {31 / 30}, "x": 40, "y": 0, "w": 24, "h": 36}}]}}'
    )
    result = run(small_job(source, tmp_path / "b.mp4", keyframes=str(path), size=(48, 72), rate=Fraction(30)))
    with av.open(result.path) as container:
        bright = [frame.to_ndarray(format="gray").mean() > 100 for frame in container.decode(video=0)]
    assert bright == [False] * 31 + [True] * 14


# While a frame stands

PAN = [(0, 10, 0, 607.5, 1080), (3, 400, 0, 607.5, 1080)]


def pan_of(rate: float, count: int) -> np.ndarray[Any, Any]:
    return np.interp(np.arange(count) / rate, [0, 3], [10, 400])


SLIDES: dict[str, VideoInfo] = {
    "3 s": uneven([0, 3000], MS, 1000, rate=1),
    "1 s": uneven([0, 1000, 2000], MS, 1000, rate=1),
    "half a second": film(8, 2),
    "one picture": uneven([0], MS, 4000, rate=1),
}


@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.parametrize("rate", [24, 30, 60])
def test_the_camera_moves_over_a_slide(name: str, rate: int) -> None:
    """Frames at 0 and 3 s: x stayed 10 until 2.93 s and jumped to 400."""
    plan = planned(SLIDES[name], rate, framing=camera(PAN))
    np.testing.assert_allclose(plan.rects[:, 0], pan_of(rate, plan.frames), atol=0.01)


def test_the_camera_moves_while_a_screen_recording_pauses() -> None:
    """30 frames a second, nothing new from 0.5 to 2 s: there the camera moves, elsewhere it follows the frames."""
    pts = [20 * n for n in (*range(15), *range(60, 75))]
    plan = planned(uneven(pts, Fraction(1, 600), 20), 60, framing=camera(PAN))
    times = np.arange(plan.frames) / 60
    paused = (times >= 14 / 30) & (times < 2)
    np.testing.assert_allclose(plan.rects[paused, 0], pan_of(60, plan.frames)[paused], atol=0.01)
    np.testing.assert_allclose(np.diff(plan.rects[:28, 0])[::2], 0)


def test_a_cut_within_a_slide_is_at_its_own_time() -> None:
    plan = planned(SLIDES["3 s"], 30, framing=steps(1.5))
    assert plan.rects[:, 0].tolist() == [0.0] * 45 + [100.0] * (plan.frames - 45)


@pytest.mark.parametrize(
    ("info", "rate", "more"),
    [
        (film(20, 10), 30, {}),
        (film(50, 25), 120, {}),
        (film(50, NTSC["23.976"]), 60, {}),
        (film(25, 25), 30, {"segments": [{"start": 0, "end": 1, "speed": 0.1}]}),
        (film(25, 25, time_base=MS), 60, {"segments": [{"start": 0.2, "end": 0.8, "speed": 0.25}]}),
        # Every other frame dropped by a phone now and then.
        (uneven([0, 33, 67, 133, 167, 200, 267, 300, 333], MS, 33), 60, {}),
    ],
    ids=["10 to 30", "25 to 120", "film to 60", "a tenth of the speed", "slow in ms", "dropped frames"],
)
def test_in_ordinary_video_a_tracked_subject_stands_still_in_the_crop(
    info: VideoInfo, rate: int, more: dict[str, Any]
) -> None:
    """The camera follows a subject at 10 + 130 t: what it sees of each source frame is that frame's own place."""
    plan = planned(info, rate, framing=camera(PAN, **more))
    np.testing.assert_allclose(plan.rects[:, 0], 10 + 130 * info.times()[plan.source_index], atol=1e-9)


# What is odd is told


def said(plan: Plan, words: str) -> bool:
    return any(words in str(warning) for warning in plan.warnings)


@pytest.mark.parametrize(
    ("size", "seen"), [((1080, 1920), "608x1080"), ((1080, 1080), "1080x1080"), ((1920, 400), "1920x400")]
)
def test_without_keyframes_what_cover_cuts_is_told_with_the_remedy(size: tuple[int, int], seen: str) -> None:
    plan = planned(film(5, 25), size=size)
    assert said(plan, seen)
    assert said(plan, "--fit contain")
    assert said(plan, "1920x1080")
    assert dict(summarise(plan))["Keyframes"].startswith("none")


@pytest.mark.parametrize("more", [{"size": (1280, 720)}, {"fit": Fit.CONTAIN}, {"fit": Fit.STRETCH}])
def test_nothing_is_told_where_nothing_is_cut(more: dict[str, Any]) -> None:
    assert not planned(film(5, 25), 25, **more).warnings


def test_a_camera_of_another_time_is_told() -> None:
    late = camera([(100, 0, 0, 600, 900), (110.5, 90, 0, 600, 900)])
    assert said(planned(film(50, 25), 25, framing=late), "all keyframes lie outside the clip")
    early = camera([(0, 0, 0, 600, 900), (0.5, 90, 0, 600, 900)])
    assert said(planned(film(50, 25), 25, framing=early, start=1), "all keyframes lie outside the clip")
    partly = camera([(0, 0, 0, 600, 900), (1, 90, 0, 600, 900), (3.5, 0, 0, 600, 900)])
    assert said(planned(film(50, 25), 25, framing=partly), "1 of 3 keyframes lie after the video's end")
    assert not planned(film(50, 25), 25, framing=camera([(0, 0, 0, 600, 900), (2, 90, 0, 600, 900)])).warnings


@pytest.mark.parametrize(
    ("at", "flags", "told"),
    [
        (2500, {}, "the only keyframe lies outside the clip: it is at 2500 s, and 0 to 2 s"),
        (75.5, {"start": 1}, "it is at 75.5 s, and 1 to 2 s"),
        (1.5, {"end": 1}, "it is at 1.5 s, and 0 to 1 s"),
        (0, {"start": 1}, None),
        (1.96, {}, None),
    ],
)
def test_a_single_keyframe_after_what_is_used_is_told(at: float, flags: dict[str, Any], told: str | None) -> None:
    plan = planned(film(50, 25), 25, framing=camera([(at, 0, 0, 600, 900)]), **flags)
    assert said(plan, told) if told else not plan.warnings
    assert np.ptp(plan.rects, axis=0).max() == 0


@pytest.mark.parametrize(
    ("unit", "times", "told"),
    [
        ("ms", (0, 2, 4), True),
        ("us", (0, 1_000, 4_000), True),
        ("ms", (1, 5), True),
        ("ms", (0, 40), False),
        ("ms", (0, 2000, 4000), False),
        (None, (0, 0.004), False),
    ],
)
def test_keyframes_that_their_declared_unit_squeezes_into_the_start_are_told(
    unit: str | None, times: tuple[float, ...], told: bool
) -> None:
    declared = {} if unit is None else {"time_unit": unit}
    pan = camera([(time, 90 * n, 0, 600, 900) for n, time in enumerate(times)], **declared)
    words = "is the unit of their times the declared one?"
    assert said(planned(film(125, 25), 25, framing=pan), words) is told
    still = camera([(time, 90, 0, 600, 900) for time in times], **declared)
    assert not said(planned(film(125, 25), 25, framing=still), words)


@pytest.mark.parametrize(
    ("starts", "told"),
    [
        ((6,), "1 of 1 segments lie after the video's end and do nothing: they begin at 6 s, and it lasts 5.000 s"),
        ((1, 5, 8), "2 of 3 segments lie after the video's end and do nothing: they begin at 5 s"),
        ((0, 4.5), None),
    ],
)
def test_segments_after_the_end_are_told(starts: tuple[float, ...], told: str | None) -> None:
    segments = [{"start": start, "end": start + 1, "speed": 2} for start in starts]
    plan = planned(film(125, 25), 25, framing=camera(segments=segments))
    assert said(plan, told) if told else not plan.warnings
    inside = sum(min(start + 1, 5) - start for start in starts if start < 5)
    assert plan.time_map.duration == pytest.approx(5 - inside / 2)


TWO = [(0, 0, 0, 608, 1080), (2, 90, 0, 608, 1080)]


@pytest.mark.parametrize(
    ("fields", "question", "unit"),
    [
        ({"segments": [{"start": 1000, "end": 2000, "speed": 2}]}, "segments reach 2000 s", "ms"),
        ({"segments": [{"start": 1e6, "end": 4e6, "speed": 2}]}, "segments reach 4e+06 s", "us"),
        ({"segments": [{"start": 30, "end": 60, "speed": 0.5}]}, "segments reach 60 s", "frames"),
        ({"trim": {"start": 1000, "end": 3000}}, "trim reaches 3000 s", "ms"),
        ({"trim": {"end": 4500.5}}, "trim reaches 4500.5 s", "ms"),
        ({"trim": {"start": 50}}, "trim reaches 50 s", "frames"),
    ],
)
def test_trim_and_segments_in_another_unit_are_an_error_that_names_it(
    fields: dict[str, Any], question: str, unit: str
) -> None:
    with pytest.raises(FramingError) as caught:
        planned(film(125, 25), 25, framing=camera(TWO, **fields))
    assert question in caught.value.message
    assert "and the video lasts 5.000 s: are these " in caught.value.message
    assert f'"time_unit": "{unit}"' in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({"trim": {"end": 8}}, {}),
        ({"trim": {"end": 9999}}, {}),
        ({"trim": {"start": 1000, "end": 3000}}, {"start": 1, "end": 3}),
        ({"segments": [{"start": 2, "end": 12, "speed": 2}]}, {}),
        ({"segments": [{"start": 1000, "end": 2000, "speed": 2}], "time_unit": "s"}, {}),
        ({"segment_data": {"boundaries": [0, 2, 4], "segmentSpeeds": {"1": 2}}}, {}),
        ({"segment_data": {"userSplits": [2], "segmentSpeeds": {"1": 2}}}, {}),
    ],
)
def test_trim_and_segments_that_may_be_seconds_are_taken(fields: dict[str, Any], flags: dict[str, Any]) -> None:
    assert 0 < planned(film(125, 25), 25, framing=camera(TWO, **fields), **flags).time_map.duration <= 5


def test_a_camera_that_never_moves_is_told() -> None:
    rows = [(n / 5, 50, 0, 600, 900) for n in range(6)]
    assert said(planned(film(50, 25), 25, framing=camera(rows)), "never moves, though there are 6 keyframes")
    # Editors store two for a camera that stands.
    assert not planned(film(50, 25), 25, framing=camera([rows[0], rows[-1]])).warnings
