"""Recordings laid end to end (`cat a.mp4 b.mp4`) in formats of which FFmpeg reads the first one alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.clips import clicks_in, clicks_track, make_clip
from support.numbered import SMALL, numbers, run, shown, small_job, turn, write_video

from keyscale.engine.errors import InputError
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.media import stream_media
from keyscale.engine.source.probe import probe
from keyscale.engine.source.reader import SourceFrame, read_frames

RATE = 30
ONSET = 0.002
"""Seconds by which a click may be early or late."""

FRAMES = 15
"""Of a recording."""


def recording(path: Path, first: int, codec: str = "libx264", sound: str | None = "aac", **more: Any) -> bytes:
    """Numbered frames with a click at 0.1 and 0.3 s, as a file's content."""
    track = clicks_track([0.1, 0.3], seconds=FRAMES / RATE, sample_rate=more.get("sample_rate", 48000), channels=1)
    make_clip(
        path,
        frames=FRAMES,
        rate=RATE,
        size=SMALL,
        first_number=first,
        sounds=[track] if sound else [],
        **{"codec": codec, "audio_codec": sound or "aac", "options": {"g": "5", "bf": "0"}, **more},
    )
    return path.read_bytes()


def laid(path: Path, parts: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def expected(parts: int) -> list[int]:
    return [100 * part + number for part in range(parts) for number in range(FRAMES)]


def check(source: Path, frames: list[int], clicks: list[float] | None = None) -> None:
    result = run(small_job(source, source.with_name("out.mp4"), rate=Fraction(RATE), overwrite=True))
    assert shown(result.path) == frames
    if clicks is not None:
        heard = clicks_in(result.path)
        assert len(heard) == len(clicks)
        assert np.abs(np.array(heard) - clicks).max() <= ONSET


REORDERED = {"g": "5", "bf": "2"}


@pytest.mark.parametrize(
    ("suffix", "codec", "sound", "options"),
    [
        (".mp4", "libx264", "aac", REORDERED),
        (".mov", "mpeg4", "pcm_s16le", {}),
        (".flv", "libx264", "aac", REORDERED),
        (".mkv", "libx264", "aac", REORDERED),
        (".webm", "libvpx", "libopus", {"deadline": "realtime"}),
        (".nut", "mpeg4", "mp2", {}),
        (".mxf", "mpeg2video", "pcm_s16le", {"bf": "2"}),
        (".wmv", "wmv2", None, {}),
        (".ogv", "libvpx", "libopus", {"deadline": "realtime"}),
        (".ivf", "libvpx", None, {"deadline": "realtime"}),
        (".y4m", "rawvideo", None, {}),
    ],
)
def test_all_of_them_are_shown_and_heard(
    tmp_path: Path, suffix: str, codec: str, sound: str | None, options: dict[str, str]
) -> None:
    """The result had the first one's frames, with exit code 0."""
    parts = [recording(tmp_path / f"{k}{suffix}", 100 * k, codec, sound, options=options) for k in range(3)]
    source = laid(tmp_path / f"in{suffix}", parts)
    clicks = [part / 2 + time for part in range(3) for time in (0.1, 0.3)]
    check(source, expected(3), clicks if sound else None)
    warnings = prepare_plan(small_job(source, tmp_path / "out.mp4", overwrite=True)).warnings
    assert any("times start again 2 time(s)" in warning for warning in warnings)
    assert not probe(tmp_path / f"0{suffix}").beginnings


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe+empty_moov+default_base_moof"])
def test_fragmented_movies(tmp_path: Path, flags: str) -> None:
    """FFmpeg left the second movie's fragments out, or the first of them."""
    parts = [
        write_video(
            tmp_path / f"{first}.mp4",
            numbers(FRAMES, first=first),
            rate=RATE,
            options={"g": "5"},
            container_options={"movflags": flags},
        ).read_bytes()
        for first in (0, 100)
    ]
    check(laid(tmp_path / "in.mp4", parts), expected(2))


@pytest.mark.parametrize(
    ("codec", "first", "second"),
    [
        ("libx264", {"bf": "0", "profile": "baseline"}, {"bf": "3", "profile": "high", "x264-params": "weightp=2"}),
        ("libx265", {"x265-params": "log-level=none:pools=1"}, {"x265-params": "ctu=16:bframes=0:log-level=none"}),
    ],
)
def test_recordings_that_were_coded_with_other_settings(
    tmp_path: Path, codec: str, first: dict[str, str], second: dict[str, str]
) -> None:
    """Their headers stand in the container, and the decoder is that of the first one."""
    settings = [first, second, first]
    parts = [recording(tmp_path / f"{k}.mp4", 100 * k, codec, options=each) for k, each in enumerate(settings)]
    source = laid(tmp_path / "in.mp4", parts)
    check(source, expected(3), [part / 2 + time for part in range(3) for time in (0.1, 0.3)])
    check_range(source, 1.1, expected(3)[33:])


def check_range(source: Path, start: float, frames: list[int]) -> None:
    result = run(small_job(source, source.with_name("cut.mp4"), rate=Fraction(RATE), start=start, overwrite=True))
    assert shown(result.path) == frames


def test_another_clock_and_another_size(tmp_path: Path) -> None:
    one = recording(tmp_path / "one.mp4", 0)
    other = tmp_path / "other.mov"
    large = (picture.repeat(2, axis=0).repeat(2, axis=1) for picture in numbers(FRAMES, first=100))
    clock = {"video_track_timescale": "90000"}
    write_video(other, large, rate=Fraction(RATE), options={"g": "5"}, container_options=clock)
    check(laid(tmp_path / "in.mp4", [one, other.read_bytes()]), expected(2))


TITLES = ("0.0", "0.1", "1.0", "1.1")


def test_chapters_of_all_of_them(tmp_path: Path) -> None:
    parts = []
    for number in range(2):
        path = tmp_path / f"{number}.mp4"
        recording(path, 100 * number)
        titled = tmp_path / f"titled{number}.mp4"
        with av.open(path) as source, av.open(titled, "w") as out:
            streams = [out.add_stream_from_template(stream) for stream in source.streams]
            spans = [(0, 200), (200, 500)]
            chapters: Any = [
                {
                    "id": k,
                    "start": start,
                    "end": end,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": f"{number}.{k}"},
                }
                for k, (start, end) in enumerate(spans)
            ]
            out.set_chapters(chapters)
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)
        parts.append(titled.read_bytes())
    result = run(small_job(laid(tmp_path / "in.mp4", parts), tmp_path / "out.mp4"))
    with av.open(result.path) as container:
        chapters = container.chapters()
    assert tuple(each["metadata"]["title"] for each in chapters) == TITLES
    begins = [float(each["start"] * (each["time_base"] or 0)) for each in chapters]
    assert begins == pytest.approx([0, 0.2, 0.5, 0.7])


def test_through_a_file_object_they_are_the_same(tmp_path: Path) -> None:
    """As a remote worker reads them, which does not search the file for them."""
    source = laid(tmp_path / "in.mp4", [recording(tmp_path / f"{k}.mp4", 100 * k) for k in range(3)])
    info = probe(source)
    content = io.BytesIO(source.read_bytes())
    content.name = "in.mp4"
    wanted = info.pts[[3, 16, 44]].tolist()

    def pictures(media: Any = None) -> list[bytes]:
        frames = read_frames(info, wanted, deep=False, keep_going=False, should_stop=lambda: False, open_media=media)
        return [frame.pixels.tobytes() for frame in frames if isinstance(frame, SourceFrame)]

    assert len(pictures()) == 3
    assert pictures() == pictures(partial(stream_media, content, replace(info, path="in.mp4")))


def test_a_movie_without_a_file_type_is_one_recording(tmp_path: Path) -> None:
    """As old cameras write them."""
    content = write_video(tmp_path / "one.mov", numbers(10), options={"g": "5"}).read_bytes()
    plain = tmp_path / "in.mov"
    plain.write_bytes(content.replace(b"ftyp", b"wide", 1))
    assert len(probe(plain).pts) == 10


def test_sound_that_begins_with_the_second_one_is_an_error(tmp_path: Path) -> None:
    """Its streams are those of the first; nothing is left out without a word."""
    parts = [recording(tmp_path / "one.mp4", 0, sound=None), recording(tmp_path / "other.mp4", 100)]
    with pytest.raises(InputError, match=r"recording 2 .* has 1 audio stream, the first 0") as error:
        probe(laid(tmp_path / "in.mp4", parts))
    assert "Split the file" in str(error.value.remedy)


@pytest.mark.parametrize(
    ("codec", "sample_rate", "what"),
    [("libx265", 48000, "video in hevc, the first in h264"), ("libx264", 44100, "sound of 44100 Hz")],
)
def test_what_the_decoders_of_the_first_cannot_take_is_an_error(
    tmp_path: Path, codec: str, sample_rate: int, what: str
) -> None:
    one = recording(tmp_path / "one.mp4", 0)
    other = recording(tmp_path / "other.mp4", 100, codec, sample_rate=sample_rate, options={"preset": "ultrafast"})
    with pytest.raises(InputError, match=what):
        probe(laid(tmp_path / "in.mp4", [one, other]))


@pytest.mark.parametrize("turned", [0, 1])
def test_recordings_that_are_turned_differently_are_an_error(tmp_path: Path, turned: int) -> None:
    parts = [tmp_path / "0.mp4", tmp_path / "1.mp4"]
    for number, part in enumerate(parts):
        recording(part, 100 * number)
    turn(parts[turned], (0, 1, -1, 0))
    source = laid(tmp_path / "in.mp4", [part.read_bytes() for part in parts])
    with pytest.raises(InputError, match=r"recording 2 .* has another orientation than the first"):
        probe(source)


def test_recordings_that_are_turned_alike_are_continued(tmp_path: Path) -> None:
    for number in range(2):
        recording(tmp_path / f"{number}.mp4", 100 * number)
        turn(tmp_path / f"{number}.mp4", (0, 1, -1, 0))
    info = probe(laid(tmp_path / "in.mp4", [(tmp_path / f"{number}.mp4").read_bytes() for number in range(2)]))
    assert (len(info.pts), info.orientation.transpose) == (2 * FRAMES, True)


def test_one_that_was_cut_off_is_told(tmp_path: Path) -> None:
    one, other = (recording(tmp_path / f"{k}.mp4", 100 * k) for k in range(2))
    source = laid(tmp_path / "in.mp4", [one, other[:2000]])
    with pytest.raises(InputError, match=r"is truncated or damaged: reading stopped after 0\.5\d s: recording 2"):
        probe(source)
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(RATE), keep_going_on_decode_errors=True))
    assert shown(result.path) == expected(1)
