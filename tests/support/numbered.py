"""Videos written frame by frame with chosen times and colour, jobs run on them, and what their results show."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from keyscale.engine.errors import Interrupted
from keyscale.engine.events import Done, Event, Note
from keyscale.engine.job import Encoding, Fit, Job, ModelChoice, Target, Trim
from keyscale.engine.plan.plan import Plan
from keyscale.engine.runners.local import run_local
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.workspace.folder import beneath, work_folder_of
from support.clips import number_of
from support.clips import numbered as numbered

Picture = npt.NDArray[np.uint8]
Segment = tuple[Fraction, Fraction, Fraction]
"""Start and end in seconds of the source, and speed."""

SMALL = (64, 48)
"""Size at which the cells of a numbered picture fill the frame."""

SHARP = {"crf": "8", "preset": "ultrafast", "bf": "0"}
"""x264 settings that leave numbers and colours readable."""


@dataclass(frozen=True)
class Result:
    """A job that succeeded."""

    plan: Plan
    events: list[Event]
    path: Path

    @property
    def done(self) -> Done:
        last = self.events[-1]
        assert isinstance(last, Done)
        return last

    @property
    def notes(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Note)]


def small_job(source: Path, output: Path, **more: Any) -> Job:
    """Sampling only, the numbered picture's own size, the source's rate; `more` replaces fields of `Job`."""
    rate = more.pop("rate", None)
    size = more.pop("size", SMALL)
    fit = more.pop("fit", Fit.COVER)
    fields: dict[str, Any] = {
        "target": Target(width=size[0], height=size[1], rate=rate, fit=fit),
        "model": ModelChoice(name="lanczos"),
        "encoding": Encoding(preset="ultrafast", crf=10),
        "trim": Trim(start=more.pop("start", None), end=more.pop("end", None)),
    }
    return Job(source=str(source), output=str(output), **(fields | more))


def run(job: Job, stop: StopFlag | None = None) -> Result:
    """Do a job to its end."""
    prepared = prepare(job)
    return Result(prepared.plan, list(run_local(prepared, stop or StopFlag())), Path(job.output))


class _StopAfter(StopFlag):
    """Set as soon as so many chunks of a job are finished."""

    def __init__(self, output: Path, chunks: int) -> None:
        super().__init__()
        self._folder, self._chunks = work_folder_of(output), chunks

    def is_set(self) -> bool:
        return super().is_set() or sum(path.match("chunk-*.json") for path in beneath(self._folder)) >= self._chunks


def interrupt(job: Job, *, chunks: int) -> None:
    """Begin a job and stop it once `chunks` chunks are finished."""
    try:
        for _ in run_local(prepare(job), _StopAfter(Path(job.output), chunks)):
            pass
    except Interrupted:
        return
    raise AssertionError("the job was done before it could be stopped")


def contract(
    source: Sequence[Fraction],
    duration: Fraction,
    rate: Fraction,
    *,
    tick: Fraction,
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
    segments: Sequence[Segment] = (),
) -> list[int]:
    """Indices of the source frames shown, for source frames at the times `source`, the first at 0."""
    end = duration if end is None else end
    stretches: list[Segment] = []
    position = start
    for begin, finish, speed in sorted(segments):
        first, last = max(begin, position), min(finish, end)
        if first >= last:
            continue
        if first > position:
            stretches.append((position, first, Fraction(1)))
        stretches.append((first, last, speed))
        position = last
    if position < end:
        stretches.append((position, end, Fraction(1)))
    total = sum(((last - first) / speed for first, last, speed in stretches), Fraction(0))
    count = max(1, int(total * rate + Fraction(1, 2)))
    steps = sorted(b - a for a, b in pairwise(source))
    slack = min(tick, steps[len(steps) // 2] / 2) if steps else Fraction(0)
    indices = []
    for n in range(count):
        left, at = n / rate, stretches[-1][1]
        for first, last, speed in stretches:
            if left <= (last - first) / speed:
                at = first + left * speed
                break
            left -= (last - first) / speed
        indices.append(max(0, bisect_right(source, at + slack) - 1))
    return indices


def even(count: int, rate: Fraction | int) -> list[Fraction]:
    return [n / Fraction(rate) for n in range(count)]


def write_video(
    path: Path,
    pictures: Iterable[Picture | av.VideoFrame],
    *,
    rate: Fraction | int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    tags: tuple[int, int, int, int] = (1, 1, 1, 1),
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB pictures, or frames as they are.

    Args:
        path: where to write; the container follows the extension.
        pictures: of one size.
        rate: frames a second, where `pts` is not given.
        pts: times of the frames in units of `time_base`.
        time_base: of `pts`; one frame where it is not given.
        codec: FFmpeg's encoder.
        options: of the encoder.
        pixel_format: of the stream.
        tags: matrix, range, primaries, transfer as H.273 numbers them (range: 1 limited, 2 full); 2 and 0 are no tag.
        container_options: of the muxer.
    """
    base = time_base or 1 / Fraction(rate)
    usual = SHARP if codec == "libx264" else {}
    with av.open(path, "w", container_options=container_options or {}) as out:
        stream: VideoStream | None = None
        for number, picture in enumerate(pictures):
            if isinstance(picture, av.VideoFrame):
                frame = picture
            else:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if stream is None:
                made = out.add_stream(codec, rate=Fraction(rate), options=usual | (options or {}))
                assert isinstance(made, VideoStream)
                stream = made
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixel_format
                context = stream.codec_context
                context.time_base = base
                context.colorspace, context.color_range, context.color_primaries, context.color_trc = tags
                context.thread_count = 1
            if frame.format.name != pixel_format and not isinstance(picture, av.VideoFrame):
                frame = frame.reformat(format=pixel_format, dst_colorspace=tags[0] if tags[0] in {1, 5, 9} else 5)
            frame.pts = pts[number] if pts is not None else number
            frame.time_base = base
            out.mux(stream.encode(frame))
        assert stream is not None
        out.mux(stream.encode(None))
    return path


def numbers(count: int, size: tuple[int, int] = SMALL, first: int = 0) -> Iterator[Picture]:
    """Numbered pictures, one after another."""
    for number in range(first, first + count):
        yield numbered(number, size)


def shown(path: Path) -> list[int]:
    """The number in every frame of a result of a numbered picture's size, in order of display."""
    return [number_of(picture) for picture in grey(path)]


def grey(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Every frame's brightness `(H, W)`, in order of display."""
    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="gray")


def planes(path: Path) -> list[bytes]:
    """Every frame's decoded code values, in order of display: equal results are equal in every bit."""
    with av.open(path) as container:
        return [b"".join(bytes(plane) for plane in frame.planes) for frame in container.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    """Every frame's time in seconds, in order of display."""
    with av.open(path) as container:
        return [Fraction(frame.pts or 0) * (frame.time_base or 0) for frame in container.decode(video=0)]


def leftovers(folder: Path, *expected: str) -> list[str]:
    """Names in a folder other than those expected."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in expected)


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix (a, b, c, d of ISO 14496-12, whole numbers) into the picture's `tkhd` of an MP4."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd")
    # Version 0: 4 bytes type, 4 version and flags, 20 of times and track, 8 reserved, 8 of layer and volume.
    start = place + 4 + 4 + 20 + 8 + 8
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def set_edit(path: Path, *, media_time: int, seconds: Fraction) -> Path:
    """Make the one edit of an MP4's only track begin at `media_time` (track units) and last `seconds`."""
    content = bytearray(path.read_bytes())
    movie = content.index(b"mvhd")
    timescale = struct.unpack(">I", content[movie + 16 : movie + 20])[0]
    place = content.index(b"elst")
    version, count = content[place + 4], struct.unpack(">I", content[place + 8 : place + 12])[0]
    assert (version, count) == (0, 1)
    content[place + 12 : place + 20] = struct.pack(">Ii", round(seconds * timescale), media_time)
    path.write_bytes(content)
    return path
