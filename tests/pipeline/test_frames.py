"""Which source frame stands in every output frame, read from the pictures themselves.

Every source frame carries its number. What must be shown is computed here from the contract, in fractions: output
frame n shows the last source frame at or before n / rate, mapped through trim and speed, plus one tick of the
source's time base (less where a tick is as long as a frame); there are as many as fit the duration, rounded.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clips import make_clip, number_of
from support.numbered import (
    SMALL,
    Segment,
    contract,
    even,
    grey,
    interrupt,
    leftovers,
    numbered,
    numbers,
    planes,
    run,
    set_edit,
    shown,
    small_job,
    times,
    turn,
    write_video,
)

NTSC = Fraction(30000, 1001)
NTSC60 = Fraction(60000, 1001)
B_FRAMES = {"bf": "3", "b-adapt": "0", "g": "12", "preset": "veryfast", "crf": "8"}


def keyframes(folder: Path, **more: Any) -> str:
    """A keyframes file of the whole small picture, with trim or segments."""
    rect = {"time": 0, "x": 0, "y": 0, "width": SMALL[0], "height": SMALL[1]}
    path = folder / "keyframes.json"
    path.write_text(json.dumps({"version": 1, "keyframes": [rect], **more}))
    return str(path)


RATES = [
    (24, 30), (25, 30), (NTSC, 30), (30, 25), (30, NTSC), (50, 30), (50, 25), (NTSC60, 30), (NTSC60, NTSC),
    (60, 25), (60, 24), (120, 30), (10, 60), (30, 10), (24, NTSC60),
]  # fmt: skip


@pytest.mark.parametrize(("source_rate", "rate"), RATES, ids=lambda rate: f"{float(rate):.5g}")
def test_frames_are_chosen_by_time(tmp_path: Path, source_rate: Fraction | int, rate: Fraction | int) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=40, rate=source_rate, size=SMALL)
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(rate)))
    expected = contract(
        even(40, source_rate), 40 / Fraction(source_rate), Fraction(rate), tick=result.plan.info.time_base
    )
    assert shown(result.path) == expected
    assert times(result.path) == even(len(expected), rate)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("in.mp4", "libx264", B_FRAMES),
        ("in.mov", "libx264", B_FRAMES),
        ("in.mkv", "libx264", B_FRAMES),
        ("in.ts", "libx264", B_FRAMES),
        ("in.flv", "libx264", B_FRAMES),
        ("in.avi", "libx264", {"bf": "0"}),
        ("in.mp4", "libx264", B_FRAMES | {"x264-params": "open-gop=1:b-pyramid=2:ref=4"}),
        ("in.ts", "libx264", B_FRAMES | {"x264-params": "open-gop=1"}),
        ("in.mkv", "libx264", B_FRAMES | {"x264-params": "intra-refresh=1"}),
        ("in.mp4", "libx265", {"preset": "ultrafast", "crf": "8", "x265-params": "log-level=error:bframes=3"}),
        ("in.mkv", "libx265", {"preset": "ultrafast", "x265-params": "log-level=error:open-gop=1:keyint=12"}),
        ("in.ts", "libx265", {"preset": "ultrafast", "x265-params": "log-level=error:open-gop=1:keyint=12"}),
        ("in.mp4", "libsvtav1", {"preset": "10", "crf": "20"}),
        ("in.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16", "crf": "10"}),
        ("in.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "crf": "4", "b": "2M"}),
        ("in.mpg", "mpeg2video", {"bf": "2", "b": "4M"}),
        ("in.ts", "mpeg2video", {"bf": "2", "b": "4M"}),
        ("in.avi", "mpeg4", {"qscale": "2", "b": "4M"}),
        ("in.mp4", "mpeg4", {"bf": "2", "b": "4M"}),
        ("in.mov", "prores_ks", {}),
        ("in.mkv", "ffv1", {}),
        ("in.avi", "mjpeg", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_every_frame_of_every_format_is_shown_once(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVT_LOG", "1")
    formats = {"prores_ks": "yuv422p10le", "ffv1": "yuv420p", "mjpeg": "yuvj420p"}
    source = write_video(
        tmp_path / name, numbers(40), codec=codec, options=options, pixel_format=formats.get(codec, "yuv420p")
    )
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(25)))
    assert shown(result.path) == list(range(40))

    # From the middle on: the decoder seeks or decodes from the start, but shows the same frames.
    trimmed = run(small_job(source, tmp_path / "part.mp4", rate=Fraction(25), start=0.6, end=1.2))
    assert shown(trimmed.path) == list(range(15, 30))


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.ts"])
@pytest.mark.parametrize("begin", [Fraction(0), Fraction(1, 2), Fraction(37), Fraction(95443)])
def test_the_first_frame_is_second_0(tmp_path: Path, name: str, begin: Fraction) -> None:
    """Containers that start later, the last one just before the clock of a transport stream wraps around."""
    source = make_clip(tmp_path / name, frames=30, rate=25, size=SMALL, video_start=begin, options=B_FRAMES)
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(25), start=0.2, end=1.0))
    assert shown(result.path) == list(range(5, 25))
    assert times(result.path)[0] == 0


VFR = [
    ("in.mkv", Fraction(1, 1000), [0, 33, 67, 100, 233, 250, 267, 600, 633, 1100, 1133, 1167, 1200]),
    ("in.mp4", Fraction(1, 600), [0, 20, 40, 47, 61, 100, 101, 180, 300, 301, 330, 500, 520]),
    ("in.ts", Fraction(1, 90000), [0, 3003, 6006, 12012, 13000, 21000, 60000, 60900, 66000, 90000, 93003, 96006]),
    ("in.mkv", Fraction(1, 1000), [0, 40, 80, 5080, 5120, 11000, 11040, 11080]),
]


@pytest.mark.parametrize(("name", "base", "pts"), VFR)
@pytest.mark.parametrize("rate", [Fraction(30), Fraction(10), NTSC60], ids=["30", "10", "59.94"])
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_variable_rates_keep_their_times(
    tmp_path: Path, name: str, base: Fraction, pts: list[int], rate: Fraction, b_frames: str
) -> None:
    options = B_FRAMES | {"bf": b_frames}
    source = write_video(tmp_path / name, numbers(len(pts)), pts=pts, time_base=base, rate=1 / base, options=options)
    result = run(small_job(source, tmp_path / "out.mp4", rate=rate))
    info = result.plan.info
    assert info.variable_rate
    assert [int(p) * info.time_base for p in info.pts - info.pts[0]] == [p * base for p in pts]
    expected = contract([p * base for p in pts], info.duration, rate, tick=info.time_base)
    assert shown(result.path) == expected


@pytest.mark.parametrize("rate", [24, 30, NTSC, 60, 120], ids=lambda rate: f"{float(rate):.5g}")
def test_rounded_times_show_every_frame_once(tmp_path: Path, rate: Fraction | int) -> None:
    """A time base of 1 ms rounds 66.67 to 67: at the source's own rate every frame is still shown exactly once."""
    source = make_clip(tmp_path / "in.mkv", frames=60, rate=rate, size=SMALL)
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(rate)))
    assert shown(result.path) == list(range(60))
    assert not result.plan.info.variable_rate


@pytest.mark.parametrize("denominator", [24, 25, 30, 60])
def test_a_tick_of_one_frame_forgives_nothing(tmp_path: Path, denominator: int) -> None:
    source = write_video(
        tmp_path / "in.mp4",
        numbers(20),
        rate=denominator,
        container_options={"video_track_timescale": str(denominator)},
    )
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(denominator)))
    assert result.plan.info.time_base == Fraction(1, denominator)
    assert shown(result.path) == list(range(20))
    half = run(small_job(source, tmp_path / "half.mp4", rate=Fraction(denominator, 2)))
    assert shown(half.path) == list(range(0, 20, 2))


@pytest.mark.parametrize("hidden", [0, 5, 12, 17])
def test_an_edit_list_hides_the_frames_before_it(tmp_path: Path, hidden: int) -> None:
    """An edit begins between keyframes: what it hides is decoded, but is not part of the video."""
    source = write_video(tmp_path / "in.mp4", numbers(40), options={"bf": "0", "g": "12"})
    set_edit(source, media_time=hidden * 512, seconds=Fraction(40 - hidden, 25))
    result = run(small_job(source, tmp_path / "out.mp4"))
    assert shown(result.path) == list(range(hidden, 40))


def test_an_edit_list_hides_the_frames_after_it(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", numbers(40), options={"bf": "0", "g": "12"})
    set_edit(source, media_time=512 * 3, seconds=Fraction(20, 25))
    result = run(small_job(source, tmp_path / "out.mp4"))
    assert shown(result.path) == list(range(3, 23))


# Rows of ISO 14496-12's matrix: a stored point (x, y) is displayed at (a x + c y, b x + d y).
TURNS = {
    "90 clockwise": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "90 counter-clockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}


@pytest.mark.parametrize("turned", TURNS)
def test_a_display_matrix_is_applied(tmp_path: Path, turned: str) -> None:
    a, b, c, d = matrix = TURNS[turned]
    width, height = SMALL
    # Stored so that the matrix turns it upright: stored[y, x] is what is seen at the place that the matrix gives.
    stored_size = (width, height) if a else (height, width)
    ys, xs = np.mgrid[0 : stored_size[1], 0 : stored_size[0]]
    seen_x, seen_y = a * xs + c * ys, b * xs + d * ys
    seen_x, seen_y = seen_x - seen_x.min(), seen_y - seen_y.min()
    pictures = [np.ascontiguousarray(picture[seen_y, seen_x]) for picture in numbers(6, first=0b101100111000)]
    assert pictures[0].shape[:2] == stored_size[::-1]
    source = turn(write_video(tmp_path / "in.mp4", pictures), matrix)
    result = run(small_job(source, tmp_path / "out.mp4"))
    assert (result.plan.info.width, result.plan.info.height) == SMALL
    assert shown(result.path) == list(range(0b101100111000, 0b101100111000 + 6))


@pytest.mark.parametrize(
    ("start", "end"),
    [(0.4, 1.2), (0.41, 1.19), (0.0, 0.01), (1.55, None), (None, 0.5), (0.3999999, 1.2000001), (1.599, 1.6)],
)
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), NTSC60], ids=["25", "30", "59.94"])
def test_trims_between_frames(tmp_path: Path, start: float | None, end: float | None, rate: Fraction) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=40, rate=25, size=SMALL, options=B_FRAMES)
    result = run(small_job(source, tmp_path / "out.mp4", rate=rate, start=start, end=end))
    expected = contract(
        even(40, 25),
        Fraction(40, 25),
        rate,
        tick=result.plan.info.time_base,
        start=Fraction(str(start or 0)),
        end=Fraction(str(end)) if end is not None else None,
    )
    assert shown(result.path) == expected


SPEEDS: list[list[Segment]] = [
    [(Fraction(0), Fraction(40), Fraction(1, 10))],
    [(Fraction(0), Fraction(40), Fraction(1, 4))],
    [(Fraction(0), Fraction(40), Fraction(1, 2))],
    [(Fraction(0), Fraction(40), Fraction(2))],
    [(Fraction(0), Fraction(40), Fraction(10))],
    [(Fraction(2, 5), Fraction(4, 5), Fraction(1, 2)), (Fraction(1), Fraction(6, 5), Fraction(4))],
    [(Fraction(1, 3), Fraction(2, 3), Fraction(3, 10)), (Fraction(2, 3), Fraction(1), Fraction(7, 4))],
]


@pytest.mark.parametrize("segments", SPEEDS, ids=lambda s: "+".join(f"{float(speed):g}" for _, _, speed in s))
def test_speed_segments(tmp_path: Path, segments: list[Segment]) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=40, rate=25, size=SMALL)
    entries = [{"start": float(a), "end": float(b), "speed": float(speed)} for a, b, speed in segments]
    job = small_job(source, tmp_path / "out.mp4", rate=Fraction(30), keyframes=keyframes(tmp_path, segments=entries))
    result = run(job)
    expected = contract(
        even(40, 25), Fraction(40, 25), Fraction(30), tick=result.plan.info.time_base, segments=segments
    )
    assert shown(result.path) == expected


def test_trim_and_speed_together(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", frames=60, rate=NTSC, size=SMALL, options=B_FRAMES)
    segments = [{"start": 0.2, "end": 0.9, "speed": 0.5}, {"start": 1.2, "end": 5, "speed": 3}]
    file = keyframes(tmp_path, segments=segments, trim={"start": 0.5, "end": 1.75})
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(24), keyframes=file))
    expected = contract(
        [Fraction(round(n * 1000 / NTSC), 1000) for n in range(60)],
        result.plan.info.duration,
        Fraction(24),
        tick=Fraction(1, 1000),
        # As frames 15, 6, 27 and 36 stood before the clock of milliseconds rounded them.
        start=15 / NTSC,
        end=Fraction(7, 4),
        segments=[
            (6 / NTSC, 27 / NTSC, Fraction(1, 2)),
            (36 / NTSC, Fraction(5), Fraction(3)),
        ],
    )
    assert shown(result.path) == expected
    # 0.4 s at half speed, 0.3 s as they are, 0.55 s at three times: 0.8 + 0.3 + 0.1833 s.
    assert len(expected) == 31


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.ts"])
def test_one_frame(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / name, frames=1, rate=25, size=SMALL, first_number=1234)
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(25)))
    assert shown(result.path) == [1234]


def test_a_transport_stream_cut_in_mid_gop(tmp_path: Path) -> None:
    """What comes before the first keyframe can not be shown; second 0 is the first frame that can."""
    whole = make_clip(tmp_path / "whole.ts", frames=60, rate=25, size=SMALL, options={"bf": "0", "g": "20"})
    content = whole.read_bytes()
    source = tmp_path / "in.ts"
    # The stream's tables stand in the first packets; then a fifth of the file is missing.
    source.write_bytes(content[: 188 * 3] + content[len(content) // 5 // 188 * 188 :])
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(25)))
    found = shown(result.path)
    assert found == list(range(found[0], 60))
    assert found[0] in {20, 40}


def test_interlaced_frames_are_shown_once_each(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", numbers(30), options={"x264-params": "tff=1", "crf": "4", "bf": "2"})
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(25)))
    assert result.plan.info.interlaced
    assert shown(result.path) == list(range(30))
    trimmed = run(small_job(source, tmp_path / "part.mp4", rate=Fraction(25), start=0.6, end=1.0))
    assert shown(trimmed.path) == list(range(15, 25))


def test_repeated_frames_stay_repeated(tmp_path: Path) -> None:
    pictures = [numbered(n // 5, SMALL) for n in range(40)]
    source = write_video(tmp_path / "in.mkv", pictures, codec="ffv1")
    result = run(small_job(source, tmp_path / "out.mp4", chunk_seconds=0.5))
    assert shown(result.path) == [n // 5 for n in range(40)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_many_small_chunks_are_one_clip(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=100, rate=25, size=SMALL, options=B_FRAMES)
    whole = run(small_job(source, tmp_path / f"whole{suffix}"))
    parts = run(small_job(source, tmp_path / f"parts{suffix}", chunk_seconds=0.25))
    assert len(whole.plan.chunks) == 1
    assert len(parts.plan.chunks) == 16  # of 6.25 frames each on average
    assert shown(whole.path) == shown(parts.path) == list(range(100))


def test_a_resumed_job_shows_the_same(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=200, rate=25, size=(640, 480), options=B_FRAMES)
    whole = run(small_job(source, tmp_path / "whole.mp4", chunk_seconds=1, size=(640, 480)))
    output = tmp_path / "out.mp4"
    interrupt(small_job(source, output, chunk_seconds=1, size=(640, 480)), chunks=2)
    assert not output.exists()
    again = run(small_job(source, output, chunk_seconds=1, size=(640, 480)))
    assert again.done.resumed_frames >= 50
    assert planes(output) == planes(whole.path)
    assert [number_of(picture) for picture in grey(output)] == list(range(200))
    assert leftovers(tmp_path, "in.mp4", "whole.mp4", "out.mp4") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.ts"])
def test_six_hundred_frames(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / name, frames=600, rate=NTSC, size=SMALL, options=B_FRAMES | {"g": "90"})
    for rate in (NTSC, Fraction(25), Fraction(60)):
        result = run(small_job(source, tmp_path / "out.mp4", rate=rate, overwrite=True, chunk_seconds=3))
        info = result.plan.info
        source_times = [int(p - info.pts[0]) * info.time_base for p in info.pts]
        assert len(source_times) == 600
        assert shown(result.path) == contract(source_times, info.duration, rate, tick=info.time_base)


@pytest.mark.slow
def test_long_gaps_between_what_is_shown(tmp_path: Path) -> None:
    """At 10 times the speed and 1 frame a second most frames are skipped by seeking; what is shown stays exact."""
    source = make_clip(
        tmp_path / "in.mp4", frames=4000, rate=25, size=SMALL, options=B_FRAMES | {"x264-params": "open-gop=1"}
    )
    file = keyframes(tmp_path, segments=[{"start": 0, "end": 160, "speed": 10}])
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(1), keyframes=file))
    assert shown(result.path) == list(range(0, 4000, 250))


def test_the_numbers_are_readable() -> None:
    """The tests' own eye: every number survives being drawn and read."""
    assert [number_of(picture) for picture in numbers(4096)] == list(range(4096))
