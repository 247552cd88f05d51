"""Sources whose packets' times are not those of their frames: joined recordings, times of decoding, no times at all."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.clips import Samples, clicks_in, clicks_track, make_clip
from support.numbered import SMALL, numbers, run, set_edit, shown, small_job, write_video

from keyscale.engine.errors import DecodeError, InputError
from keyscale.engine.plan.transfer import dump_plan, load_plan
from keyscale.engine.remote.excerpt import make_excerpt
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.media import excerpt_media, stream_media
from keyscale.engine.source.probe import probe
from keyscale.engine.source.reader import SourceFrame, read_frames

RATE = 30
ONSET = 0.002
"""Seconds by which a click may be early or late."""

CODECS: dict[str, tuple[str, dict[str, str], str]] = {
    ".ts": ("libx264", {"g": "10", "bf": "2", "preset": "ultrafast"}, "mp2"),
    ".mpg": ("mpeg2video", {"g": "10", "bf": "2"}, "mp2"),
    ".vob": ("mpeg2video", {"g": "10", "bf": "0"}, "mp2"),
    ".mkv": ("libx264", {"g": "10", "bf": "2", "preset": "ultrafast"}, "aac"),
    ".webm": ("libvpx", {"g": "10", "deadline": "realtime"}, "libopus"),
    ".flv": ("libx264", {"g": "10", "bf": "2", "preset": "ultrafast"}, "aac"),
}


def clicks(frames: int) -> list[float]:
    """0.1 s and every 0.2 s after it, as long as the pictures last."""
    return [0.1 + 0.2 * number for number in range(frames * 5 // RATE)]


def recording(
    path: Path, *, first: int = 0, frames: int = 30, begin: Fraction | int = 0, sound: bool = True, **more: Any
) -> bytes:
    """A recording of numbered frames with clicks, as a file's content."""
    codec, options, audio_codec = CODECS[path.suffix]
    track = clicks_track(clicks(frames), seconds=frames / RATE, sample_rate=48000, channels=1)
    make_clip(
        path,
        frames=frames,
        rate=RATE,
        size=SMALL,
        first_number=first,
        video_start=Fraction(begin),
        audio_start=Fraction(begin),
        sounds=[track] if sound else [],
        audio_codec=audio_codec,
        **({"codec": codec, "options": options} | more),
    )
    return path.read_bytes()


def joined(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def check(source: Path, frames: list[int], at: list[float], **more: Any) -> None:
    """A job at the source's rate shows these frames, and clicks are heard at these times."""
    rate = more.pop("rate", Fraction(RATE))
    result = run(small_job(source, source.parent / "out.mp4", rate=rate, overwrite=True, **more))
    assert shown(result.path) == frames
    if at:
        heard = clicks_in(result.path)
        assert len(heard) == len(at)
        assert np.abs(np.array(heard) - at).max() <= ONSET


FIRST, SECOND = list(range(30)), list(range(100, 130))
BOTH = [*clicks(30), *(1 + time for time in clicks(30))]


@pytest.mark.parametrize("suffix", CODECS)
def test_recordings_that_were_joined_follow_each_other(tmp_path: Path, suffix: str) -> None:
    one = recording(tmp_path / f"one{suffix}")
    other = recording(tmp_path / f"other{suffix}", first=100)
    # Tags of Flash Video follow a header of 13 bytes, which stands once.
    both = joined(tmp_path / f"in{suffix}", one, other[13:] if suffix == ".flv" else other)
    check(both, FIRST + SECOND, BOTH)
    plan = prepare_plan(small_job(both, tmp_path / "out.mp4"))
    assert any("times start again 1 time(s)" in warning for warning in plan.warnings)


def test_the_same_recording_twice_and_three_times(tmp_path: Path) -> None:
    one = recording(tmp_path / "one.ts")
    check(joined(tmp_path / "in.ts", one, one), 2 * FIRST, BOTH)
    check(joined(tmp_path / "in.ts", one, one, one), 3 * FIRST, [*BOTH, *(2 + time for time in clicks(30))])


@pytest.mark.parametrize("frames", [11, 12, 13])
@pytest.mark.parametrize("suffix", [".mpg", ".vob", ".ts"])
def test_the_last_picture_before_a_joint_has_its_time(tmp_path: Path, suffix: str, frames: int) -> None:
    """In a program stream libavformat guesses it by the picture that follows, which is of another recording."""
    options = {"g": "12", "bf": "2"}
    one = recording(tmp_path / f"one{suffix}", frames=frames, codec="mpeg2video", options=options)
    other = recording(tmp_path / f"other{suffix}", first=100, codec="mpeg2video", options=options)
    both = joined(tmp_path / f"in{suffix}", one, other)
    check(both, [*range(frames), *SECOND], [*clicks(frames), *(frames / RATE + time for time in clicks(30))])
    assert probe(both).rate == RATE


@pytest.mark.parametrize("suffix", [".mkv", ".flv", ".ts"])
@pytest.mark.parametrize("rate", [Fraction(60000, 1001), Fraction(30000, 1001), Fraction(24000, 1001)], ids=float)
def test_clocks_that_round_add_nothing_up_over_joints(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    """In milliseconds a frame of 16.68 ms seems to stand for 17, and 59 of them for one too many."""
    contents: list[bytes] = []
    frames: list[int] = []
    for number, count in enumerate([59, 31, 44, 59, 23]):
        part = tmp_path / f"{number}{suffix}"
        more = {"options": {"bf": "0"}, "first_number": 100 * number, "size": SMALL}
        content = make_clip(part, frames=count, rate=rate, **more).read_bytes()  # type: ignore[arg-type]
        contents.append(content[13:] if suffix == ".flv" and number else content)
        frames += range(100 * number, 100 * number + count)
    check(joined(tmp_path / f"in{suffix}", *contents), frames, [], rate=rate)


@pytest.mark.parametrize("sound", [True, False], ids=["sound", "silent"])
def test_parts_may_be_short(tmp_path: Path, sound: bool) -> None:
    short = recording(tmp_path / "short.ts", first=50, frames=6, sound=sound)
    long = recording(tmp_path / "long.ts", sound=sound)
    at = [0.1, 0.3, 0.5, *(0.6 + time for time in clicks(30))] if sound else []
    check(joined(tmp_path / "in.ts", short, short, short, long), 3 * list(range(50, 56)) + FIRST, at)


@pytest.mark.parametrize(
    ("suffix", "codec", "bf"),
    [
        (".ts", "mpeg2video", 0),
        (".ts", "libx264", 0),
        (".ts", "libx264", 2),
        (".ts", "libx265", 0),
        (".mpg", "mpeg2video", 0),
        (".flv", "libx264", 0),
    ],
)
def test_parts_may_meet_at_one_time(tmp_path: Path, suffix: str, codec: str, bf: int) -> None:
    """The first frame of the second part has the time of the last frame of the first one."""
    coding: dict[str, Any] = {"sound": False, "codec": codec, "options": {"g": "15", "bf": str(bf)}}
    one = recording(tmp_path / f"one{suffix}", **coding)
    other = recording(tmp_path / f"other{suffix}", first=100, begin=Fraction(29, RATE), **coding)
    both = joined(tmp_path / f"in{suffix}", one, other[13:] if suffix == ".flv" else other)
    check(both, FIRST + SECOND, [])
    check(both, [*FIRST[27:], *SECOND[:3]], [], start=0.9, end=1.1)


@pytest.mark.parametrize(
    ("first", "second"), [("mpeg2video", "libx264"), ("libx264", "mpeg2video"), ("libx264", "libx265")]
)
def test_a_part_of_another_codec_is_an_error(tmp_path: Path, first: str, second: str) -> None:
    one = recording(tmp_path / "one.ts", codec=first, options={"g": "10"})
    other = recording(tmp_path / "other.ts", codec=second, options={"g": "10"})
    with pytest.raises(InputError, match=r"part 2 .* another codec"):
        probe(joined(tmp_path / "in.ts", one, other))


@pytest.mark.parametrize("sound", [True, False], ids=["sound", "silent"])
@pytest.mark.parametrize("order", ["ahead", "back"])
def test_times_may_step_far(tmp_path: Path, order: str, sound: bool) -> None:
    """A minute back and more libavformat takes for the clock's wrap, so that it comes as 26 hours ahead."""
    near = recording(tmp_path / "near.ts", sound=sound)
    far = recording(tmp_path / "far.ts", first=100, begin=100, sound=sound)
    at = BOTH if sound else []
    if order == "ahead":
        check(joined(tmp_path / "in.ts", near, far), FIRST + SECOND, at)
    else:
        check(joined(tmp_path / "in.ts", far, near), SECOND + FIRST, at)


def test_trims_reach_over_a_joint_and_begin_behind_it(tmp_path: Path) -> None:
    one = recording(tmp_path / "one.ts")
    both = joined(tmp_path / "in.ts", one, recording(tmp_path / "other.ts", first=100))
    check(both, [27, 28, 29, 100, 101, 102, 103, 104, 105], [0.0, 0.2], start=0.9, end=1.2)
    check(both, list(range(113, 130)), [0.06, 0.26, 0.46], start=1.44)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_what_a_cut_in_mid_group_leaves_without_references_is_not_shown(tmp_path: Path, codec: str) -> None:
    options = {
        "libx264": {"g": "10", "bf": "2", "preset": "veryfast", "x264-params": "open-gop=1"},
        "libx265": {"preset": "ultrafast", "x265-params": "keyint=10:min-keyint=10:open-gop=1:log-level=none:pools=1"},
        "mpeg2video": {"g": "10", "bf": "2"},
    }[codec]
    one = recording(tmp_path / "one.ts", codec=codec, options=options, sound=False)
    other = recording(tmp_path / "other.ts", first=100, codec=codec, options=options, sound=False)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(other[188 * (len(other) // 188 // 2) :])
    alone = [number for number in shown_of(cut) if number >= 100]
    assert 5 < len(alone) < 25
    check(joined(tmp_path / "in.ts", one, cut.read_bytes()), FIRST + alone, [])


def shown_of(source: Path) -> list[int]:
    return shown(run(small_job(source, source.parent / "alone.mp4", rate=Fraction(RATE), overwrite=True)).path)


def test_sound_that_outlasts_the_picture_of_its_part_is_heard(tmp_path: Path) -> None:
    track = clicks_track([0.1, 1.3], seconds=1.5, sample_rate=48000, channels=1)
    long = make_clip(
        tmp_path / "long.ts", frames=30, rate=RATE, size=SMALL, sounds=[track], audio_codec="mp2", options={"bf": "0"}
    )
    both = joined(tmp_path / "in.ts", long.read_bytes(), recording(tmp_path / "other.ts", first=100))
    result = run(small_job(both, tmp_path / "out.mp4", rate=Fraction(RATE)))
    frames = shown(result.path)
    assert frames[:30] == FIRST
    assert set(frames[30:44]) == {29}
    assert frames[-30:] == SECOND
    begin = frames.index(100) / RATE
    expected = [0.1, 1.3, *(begin + time for time in clicks(30))]
    assert np.abs(np.array(clicks_in(result.path)) - expected).max() <= ONSET


def test_a_joined_recording_reads_the_same_over_a_link_and_has_excerpts_of_its_parts(tmp_path: Path) -> None:
    one, other = recording(tmp_path / "one.ts", sound=False), recording(tmp_path / "other.ts", first=100, sound=False)
    source = joined(tmp_path / "in.ts", one, other)
    info = probe(source)
    content = io.BytesIO(source.read_bytes())
    content.name = "in.ts"
    there = partial(stream_media, content, replace(info, path="in.ts"))
    for wanted in (info.pts[[5, 31, 50]].tolist(), info.pts[40:44].tolist()):
        assert pictures(source, wanted) == pictures(source, wanted, there)

    def excerpt(start: float, end: float) -> bool:
        plan = prepare_plan(small_job(source, tmp_path / "out.mp4", start=start, end=end))
        made = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=lambda: False)
        if made is None:
            return False
        with made.path.open("rb") as file:
            wanted = info.pts[np.unique(plan.source_index)].tolist()
            assert pictures(source, wanted) == pictures(
                source, wanted, partial(excerpt_media, file, info, begins=made.begins)
            )
        return True

    assert excerpt(1.4, 1.6)
    # A decoder has to begin anew at the joint, which an excerpt cannot say: then the whole file is sent.
    assert not excerpt(0.8, 1.2)


def test_times_travel_with_the_plan(tmp_path: Path) -> None:
    one = recording(tmp_path / "one.ts")
    plan = prepare_plan(small_job(joined(tmp_path / "in.ts", one, one), tmp_path / "out.mp4"))
    sent, kept = load_plan(dump_plan(plan)).info.retiming, plan.info.retiming
    assert sent is not None
    assert kept is not None
    assert sent.pts.tolist() == kept.pts.tolist()
    assert sent.keyframes.tolist() == kept.keyframes.tolist()
    assert (sent.joints, sent.spans, sent.ordered) == (kept.joints, kept.spans, kept.ordered)


def pictures(source: Path, wanted: list[int], media: Any = None) -> list[bytes]:
    frames = read_frames(
        probe(source), wanted, deep=False, keep_going=False, should_stop=lambda: False, open_media=media
    )
    return [frame.pixels.tobytes() for frame in frames if isinstance(frame, SourceFrame)]


def wrapped(path: Path) -> Path:
    """The clock of 33 bits starts again at 0 after 26.5 hours, here within the first second."""
    recording(path, begin=95443)
    return path


def uneven(path: Path) -> Path:
    """Pictures that stand for up to 12 s, with B-frames, which are coded after what is shown that much later."""
    times = [0, 1, 2, 150, 151, 330, 331, 332, 700, 701, 1061]
    base = Fraction(1, 90000)
    return write_video(path, numbers(len(times)), pts=[3000 * time for time in times], time_base=base, options=UNEVEN)


UNEVEN = {"bf": "2", "b-adapt": "0"}


def open_groups(path: Path) -> Path:
    recording(path, options={"g": "10", "bf": "2", "preset": "veryfast", "x264-params": "open-gop=1"})
    return path


def edited(path: Path) -> Path:
    write_video(path, numbers(60), rate=30, options={"g": "10", "bf": "2"})
    return set_edit(path, media_time=15 * 512, seconds=Fraction(1))


@pytest.mark.parametrize(
    ("name", "write"),
    [("in.ts", wrapped), ("in.mkv", uneven), ("in.ts", uneven), ("in.ts", open_groups), ("in.mp4", edited)],
)
def test_times_that_are_good_stay_the_containers(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    assert probe(write(tmp_path / name)).retiming is None


IN_AVI: dict[str, tuple[str, dict[str, str]]] = {
    "H.264": ("libx264", {"bf": "0", "g": "10"}),
    "H.264, B-frames": ("libx264", {"bf": "2", "g": "10", "b-adapt": "0"}),
    "H.264, one keyframe": ("libx264", {"bf": "3", "g": "250", "b-adapt": "0"}),
    "MPEG-2": ("mpeg2video", {"bf": "0", "g": "10"}),
    "MPEG-2, B-frames": ("mpeg2video", {"bf": "2", "g": "10"}),
    "MPEG-4": ("mpeg4", {"bf": "0", "g": "10"}),
    "MPEG-4, B-frames": ("mpeg4", {"bf": "2", "g": "10"}),
    "Motion JPEG": ("mjpeg", {}),
    "MS-MPEG-4": ("msmpeg4v2", {"g": "10"}),
}

SOUND: Samples = clicks_track([0.5, 1.5, 2.5], seconds=3, sample_rate=48000, channels=1)


@pytest.mark.parametrize("kind", IN_AVI)
@pytest.mark.parametrize("rate", [10, 30])
def test_pictures_in_avi_are_shown_when_their_chunk_is_due(tmp_path: Path, kind: str, rate: int) -> None:
    source = avi(tmp_path / "in.avi", *IN_AVI[kind], rate)
    frames = list(range(3 * rate))
    check(source, frames, [0.5, 1.5, 2.5], rate=Fraction(rate))
    check(source, frames[rate : 26 * rate // 10], [0.5, 1.5], rate=Fraction(rate), start=1.0, end=2.6)


def avi(path: Path, codec: str, options: dict[str, str], rate: int) -> Path:
    coded = write_video(
        path.with_name(f"pictures{path.suffix}"),
        numbers(3 * rate),
        rate=rate,
        codec=codec,
        options=options,
        pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p",
    )
    with av.open(coded) as container:
        chunks = [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    return write_chunks(path, coded, chunks, rate)


def write_chunks(path: Path, template: Path, chunks: list[tuple[bytes, bool]], rate: int) -> Path:
    """A file of coded pictures, one to a tick of a frame, and `SOUND`."""
    with av.open(template) as like, av.open(path, "w") as out:
        video = out.add_stream_from_template(like.streams.video[0])
        audio = out.add_stream("pcm_s16le", rate=48000)
        assert isinstance(audio, av.AudioStream)
        audio.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray((SOUND * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        packets = [*audio.encode(frame), *audio.encode(None)]
        for number, (content, is_key) in enumerate(chunks):
            packet = av.Packet(content)
            packet.stream, packet.time_base = video, Fraction(1, rate)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, is_key
            packets.append(packet)
        out.mux(sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base))
    return path


def test_a_chunk_that_is_empty_shows_the_frame_before_for_longer(tmp_path: Path) -> None:
    coded = avi(tmp_path / "coded.avi", "libx264", {"bf": "0"}, 10)
    with av.open(coded) as container:
        chunks = [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    source = write_chunks(tmp_path / "in.avi", coded, [*chunks[:5], (b"", False), *chunks[5:-1]], 10)
    check(source, [0, 1, 2, 3, 4, 4, *range(5, 29)], [0.5, 1.5, 2.5], rate=Fraction(10))
    # At the mean rate, 9.67, one of the frames was not shown.
    check(source, [0, 1, 2, 3, 4, 4, *range(5, 29)], [0.5, 1.5, 2.5], rate=None)


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {"bf": "3", "b-adapt": "0"}),
        (".mov", "mpeg4", {"bf": "2"}),
        (".mkv", "libx264", {"bf": "2", "b-adapt": "0", "x264-params": "b-pyramid=none"}),
        (".mp4", "libx265", {"x265-params": "bframes=3:b-adapt=0:log-level=none:pools=1"}),
    ],
)
def test_packets_that_were_numbered_as_they_are_coded(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    """FFmpeg writes raw HEVC into MP4 so, and AVI into MOV: it was an error that blamed the frames."""
    coded = write_video(tmp_path / f"coded{suffix}", numbers(30), rate=10, codec=codec, options={"g": "10"} | options)
    source = tmp_path / f"in{suffix}"
    with av.open(coded) as container, av.open(source, "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.size:
                packet.stream, packet.time_base = stream, Fraction(1, 10)
                packet.pts = packet.dts = number
                packet.duration = 1
                out.mux(packet)
    check(source, list(range(30)), [], rate=Fraction(10))
    check(source, list(range(12, 18)), [], rate=Fraction(10), start=1.2, end=1.8)


NOT_CODED = b"\0\0\1\xb6" + bytes([0b01_0_1_0000, 0b1_0_0_11111])
"""A `VOP` of MPEG-4 that says: the one before, once more (vop_coded 0), with four bits for its time."""


def packed(path: Path) -> Path:
    """B-frames as Xvid puts them into AVI: each in the chunk of the picture before it, then a chunk without one."""
    coded = write_video(
        path.with_name("coded.avi"), numbers(30), rate=10, codec="mpeg4", options={"bf": "1", "g": "12", "qmax": "3"}
    )
    with av.open(coded) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    kinds = [picture[picture.index(b"\0\0\1\xb6") + 4] >> 6 for picture in pictures]
    chunks: list[tuple[bytes, bool]] = []
    for number, (picture, kind) in enumerate(zip(pictures, kinds, strict=True)):
        if kind == 2:
            continue
        with_next = number + 1 < len(kinds) and kinds[number + 1] == 2
        chunks.append((picture + (pictures[number + 1] if with_next else b""), kind == 0))
        if with_next:
            chunks.append((NOT_CODED, False))
    start = pictures[0].index(b"Lavc")
    name = pictures[0][start : pictures[0].index(b"\0\0\1", start)]
    mark = b"DivX503b1393p".ljust(len(name))[: len(name)]
    assert mark == b"DivX503b1393p"
    chunks[0] = (chunks[0][0].replace(name, mark), True)
    return write_chunks(path, coded, chunks, 10)


def test_packed_b_frames_are_shown_one_by_one(tmp_path: Path) -> None:
    source = packed(tmp_path / "in.avi")
    check(source, list(range(30)), [0.5, 1.5, 2.5], rate=Fraction(10))
    check(source, list(range(10, 26)), [0.5, 1.5], rate=Fraction(10), start=1.0, end=2.6)


@pytest.mark.parametrize("kind", ["MPEG-4", "MPEG-4, B-frames", "MS-MPEG-4"])
def test_pictures_in_asf_are_shown_when_they_are_due(tmp_path: Path, kind: str) -> None:
    source = avi(tmp_path / "in.asf", *IN_AVI[kind], 10)
    check(source, list(range(30)), [0.5, 1.5, 2.5], rate=Fraction(10))


@pytest.mark.parametrize("sound", ["pcm_s16le", "aac", "libmp3lame"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "2", "b-adapt": "0"}),
        ("libx264", {"bf": "3", "b-pyramid": "none", "b-adapt": "0"}),
        ("mpeg4", {"bf": "2"}),
        ("libx264", {"bf": "0"}),
    ],
)
def test_sound_in_asf_waits_for_b_frames(tmp_path: Path, codec: str, options: dict[str, str], sound: str) -> None:
    """Its times allow for the delay of decoding, as the muxer shifts them together with those of the picture; where the
    sound's padding came first, it was late by that."""
    source = make_clip(tmp_path / "in.wmv", frames=30, rate=10, size=SMALL, codec=codec,
                       options={"g": "10"} | options, sounds=[SOUND], audio_codec=sound)  # fmt: skip
    check(source, list(range(30)), [0.5, 1.5, 2.5], rate=Fraction(10))


@pytest.mark.parametrize(
    ("name", "codec", "size", "rate"),
    [
        ("in.drc", "vc2", (160, 96), Fraction(25)),
        ("in.vc2", "vc2", (160, 96), Fraction(30)),
        ("in.h263", "h263", (176, 144), Fraction(30000, 1001)),
    ],
)
def test_streams_whose_parsers_count_otherwise(
    tmp_path: Path, name: str, codec: str, size: tuple[int, int], rate: Fraction
) -> None:
    source = tmp_path / name
    muxer = "h263" if codec == "h263" else "dirac"
    with av.open(source, "w", format=muxer) as out:
        stream = out.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 600_000_000 if codec == "vc2" else 2_000_000
        for number in range(40):
            grey = np.full((size[1], size[0], 3), 40 + 4 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        out.mux(stream.encode(None))
    info = probe(source)
    assert info.rate == rate
    times = info.pts.tolist()
    assert len(set(steps(iter(times)))) == 1
    levels = [np.frombuffer(each, np.uint8).mean() for each in pictures(source, times)]
    assert np.abs(np.array(levels) - [40 + 4 * number for number in range(40)]).max() < 2


ALONE: dict[str, tuple[str, str, dict[str, str], int]] = {
    "H.264": ("in.h264", "libx264", {"g": "10", "bf": "2", "b-adapt": "0"}, 30),
    "H.264 at 50": ("in.264", "libx264", {"g": "25", "bf": "0"}, 50),
    "HEVC": ("in.hevc", "libx265", {"preset": "ultrafast", "x265-params": "keyint=12:log-level=none:pools=1"}, 30),
    "HEVC, open groups": (
        "in.h265",
        "libx265",
        {"preset": "ultrafast", "x265-params": "keyint=12:open-gop=1:log-level=none:pools=1"},
        24,
    ),
    "MPEG-2": ("in.m2v", "mpeg2video", {"g": "12", "bf": "2"}, 25),
}


@pytest.mark.parametrize("kind", ALONE)
def test_elementary_streams_have_frames_of_equal_length(tmp_path: Path, kind: str) -> None:
    name, codec, options, rate = ALONE[kind]
    source = write_video(tmp_path / name, numbers(60), rate=rate, codec=codec, options=options)
    assert probe(source).rate == rate
    check(source, list(range(60)), [], rate=None)
    check(source, list(range(23, 52)), [], rate=None, start=23 / rate, end=52 / rate)


def test_an_elementary_stream_that_is_cut_off_shows_what_is_whole(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.h264", numbers(60), rate=30, options={"g": "10", "bf": "2"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    result = run(small_job(source, tmp_path / "out.mp4"))
    frames = shown(result.path)
    assert 30 < len(frames) < 50
    assert frames[:30] == list(range(30))


def test_a_stream_of_nothing_says_so(tmp_path: Path) -> None:
    source = tmp_path / "in.h264"
    source.write_bytes(b"\0\0\0\1\x67" + bytes(500))
    with pytest.raises(InputError):
        probe(source)


@pytest.mark.parametrize(
    ("name", "codec", "g", "bf"),
    [
        ("in.vob", "mpeg2video", 12, 2),
        ("in.vob", "mpeg2video", 45, 2),
        ("in.mpg", "mpeg1video", 30, 0),
        ("in.mpg", "mpeg2video", 250, 2),
    ],
)
def test_program_streams_with_many_pictures_to_a_packet(tmp_path: Path, name: str, codec: str, g: int, bf: int) -> None:
    """Only the first of the pictures in a packet has a time; in a group of 45 two of them are guessed the same."""
    source = make_clip(
        tmp_path / name,
        frames=90,
        rate=30,
        size=SMALL,
        codec=codec,
        options={"g": str(g), "bf": str(bf)},
        sounds=[SOUND],
        audio_codec="mp2",
    )
    check(source, list(range(90)), [0.5, 1.5, 2.5])
    check(source, list(range(40, 87)), [0.167, 1.167], start=4 / 3, end=2.9)


FINE = {"flags": "+qscale", "global_quality": str(3 * 118)}
"""A quantiser of 3, in units of FF_QP2LAMBDA: packets then begin where libavformat guesses wrong."""

SMALL_PICTURES: dict[str, tuple[str, dict[str, str], int]] = {
    "MPEG-2": ("mpeg2video", {"g": "15", "bf": "2"} | FINE, 1),
    "MPEG-2, groups of 10": ("mpeg2video", {"g": "10", "bf": "1"} | FINE, 1),
    "MPEG-2, joined": ("mpeg2video", {"g": "15", "bf": "2"} | FINE, 2),
    "H.264": ("libx264", {"g": "50", "bf": "2", "preset": "ultrafast"}, 1),
    "H.264, one keyframe": ("libx264", {"g": "250", "bf": "0", "preset": "ultrafast"}, 1),
    "H.264, joined": ("libx264", {"g": "50", "bf": "2", "preset": "ultrafast"}, 2),
}


@pytest.mark.parametrize("kind", SMALL_PICTURES)
def test_program_streams_of_small_pictures_lose_none(tmp_path: Path, kind: str) -> None:
    """Of MPEG-2 libavformat guesses times that step back; of H.264 only the first picture in a packet has one."""
    codec, options, parts = SMALL_PICTURES[kind]
    sound = clicks_track([0.5], seconds=12, sample_rate=48000, channels=1)
    one = make_clip(tmp_path / "one.vob", frames=300, rate=25, size=SMALL, codec=codec, options=options,
                    sounds=[sound], audio_codec="mp2")  # fmt: skip
    source = joined(tmp_path / "in.vob", *parts * [one.read_bytes()])
    info = probe(source)
    assert info.rate == 25
    assert set(steps(iter(info.pts.tolist()))) == {3600}
    check(source, parts * list(range(300)), [0.5 + 12 * part for part in range(parts)], rate=Fraction(25))
    check(source, list(range(80, 100)), [], rate=Fraction(25), start=3.2, end=4.0)


@pytest.mark.parametrize(
    ("name", "rate", "more"),
    [
        ("in.avi", Fraction(1), {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        ("in.avi", Fraction(5), {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        ("in.avi", Fraction(5), {}),
        ("in.avi", Fraction(25, 2), {"codec": "mpeg4"}),
        ("in.mxf", Fraction(25), {"codec": "mpeg2video", "options": {"bf": "0"}}),
        ("in.mov", Fraction(5), {"options": {"video_track_timescale": "5"}}),
    ],
)
def test_no_frame_is_shown_before_its_time(tmp_path: Path, name: str, rate: Fraction, more: dict[str, Any]) -> None:
    more = dict(more)
    options = more.pop("options", {})
    scale = options.pop("video_track_timescale", None)
    source = write_video(
        tmp_path / name,
        numbers(12),
        rate=rate,
        options={"bf": "0"} | options if more.get("codec", "libx264") == "libx264" else options,
        container_options={"video_track_timescale": scale} if scale else None,
        **more,
    )
    out = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(30))).path
    frames = shown(out)
    expected = [int(Fraction(number, 30) * rate) for number in range(len(frames))]
    assert frames == [min(number, 11) for number in expected]


def steps(info_pts: Iterator[int]) -> list[int]:
    return list(np.diff(np.array(list(info_pts))))


def test_a_coarse_base_that_rounds_is_forgiven(tmp_path: Path) -> None:
    """Animations count hundredths of a second: 30 frames a second stand at 0, 3, 7, 10 of them, and all are shown."""
    pts = [round(number * 100 / 30 + 0.2) for number in range(30)]
    source = write_video(tmp_path / "in.mov", numbers(30), rate=30, pts=pts, time_base=Fraction(1, 100),
                         container_options={"video_track_timescale": "100"})  # fmt: skip
    assert set(steps(iter(probe(source).pts.tolist()))) == {3, 4}
    assert shown(run(small_job(source, tmp_path / "out.mp4", rate=Fraction(30))).path)[:29] == list(range(29))


def spoil(source: Path, first: int) -> Path:
    """Zeroes behind the first bytes of two packets of the picture, from number `first` on."""
    content = source.read_bytes()
    with av.open(source) as container:
        coded = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in [each for each in coded[first:] if content.count(each) == 1][:2]:
        content = content.replace(packet, packet[:8] + bytes(len(packet) - 8))
    source.write_bytes(content)
    return source


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("in.avi", "mpeg4", {"g": "5", "bf": "2"}),
        ("in.avi", "libx264", {"g": "5", "bf": "2"}),
        ("in.wmv", "wmv2", {"g": "5"}),
        ("in.h264", "libx264", {"g": "10", "bf": "0"}),
    ],
)
def test_a_frame_that_cannot_be_decoded_is_an_error(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """Where times are found by decoding, the frame before stood for it, and nobody was told."""
    source = spoil(write_video(tmp_path / name, numbers(30), rate=30, codec=codec, options=options), 12)
    with pytest.raises(DecodeError, match=r"the frame at 0\.\d+ s cannot be decoded"):
        run(small_job(source, tmp_path / "out.mp4", rate=Fraction(30)))
    kept = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(30), keep_going_on_decode_errors=True))
    assert kept.done.lost_frames or any("left out" in note for note in kept.notes)


def test_packets_that_give_neither_a_frame_nor_an_error_are_told(tmp_path: Path) -> None:
    """They made 26 frames a second of 30."""
    options = {"x265-params": "keyint=5:log-level=none:pools=1"}
    source = write_video(tmp_path / "in.hevc", numbers(30), rate=30, codec="libx265", options=options)
    assert probe(source).rate == 30
    assert not [note for note in probe(source).notes if "give no frame" in note]
    info = probe(spoil(source, 12))
    assert info.rate == 30
    assert [note for note in info.notes if "packet(s) of the picture give no frame" in note]
