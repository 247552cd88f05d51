"""Chunks of one video laid end to end: checked, then handed out as packets with running frame numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container.input import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from keyscale.engine.errors import EncoderError
from keyscale.engine.files import storage_error

__all__ = ["Joint", "Timed", "concatenate", "joined_video", "scan_chunks"]

Timed = tuple[float, "Packet[Any]"]
"""Decoding time in seconds of the result, and the packet due then."""

_REMEDY = "Delete this chunk and run the job again: it is computed anew."


@dataclass(frozen=True)
class Joint:
    """What a first pass over the chunks found."""

    counts: tuple[int, ...]
    """Frames of each chunk."""
    delay: int
    """Frames by which decoding runs ahead of display, over all chunks."""

    @property
    def frames(self) -> int:
        """Frames of the whole."""
        return sum(self.counts)


def scan_chunks(
    chunks: Sequence[Path],
    rate: Fraction,
    *,
    on_chunk: Callable[[int], None] | None = None,
) -> Joint:
    """Read every chunk's packets once and check that they join.

    Args:
        chunks: files with one video stream each, in order, at least one.
        rate: frames a second of all of them.
        on_chunk: called with the number of chunks done.

    Raises:
        EncoderError: a chunk is unreadable, not of constant rate, or made with other settings than the first.
    """
    counts: list[int] = []
    delay = 0
    shape: tuple[Any, ...] | None = None
    for number, path in enumerate(chunks):
        try:
            with av.open(f"file:{path}") as container:
                stream = only_video(container, path)
                found = (stream.codec_context.name, stream.width, stream.height, stream.codec_context.extradata)
                numbers = [_frame_number(packet, rate) for packet in container.demux(stream) if packet.size]
        except FFmpegError as error:
            raise EncoderError(f"chunk {path.name} cannot be read: {error.strerror}", remedy=_REMEDY) from error
        if shape is None:
            shape = found
        elif found != shape:
            raise EncoderError(
                f"chunk {path.name} was encoded with other settings than {chunks[0].name}, so they do not join",
                remedy="Delete the chunk folder and run the job again on one version of keyscale.",
            )
        if sorted(numbers) != list(range(len(numbers))) or not numbers:
            raise EncoderError(f"chunk {path.name} is not {rate} frames a second without gaps", remedy=_REMEDY)
        delay = max(delay, *(order - shown for order, shown in enumerate(numbers)))
        counts.append(len(numbers))
        if on_chunk:
            on_chunk(number + 1)
    return Joint(tuple(counts), delay)


def joined_video(chunks: Sequence[Path], joint: Joint, rate: Fraction, out: Stream) -> Iterator[Timed]:
    """The chunks' packets for stream `out`, timed in frames from 0, in decoding order.

    Raises:
        EncoderError: a chunk changed since it was scanned, or became unreadable.
    """
    first = 0
    for path, count in zip(chunks, joint.counts, strict=True):
        seen = 0
        try:
            with av.open(f"file:{path}") as container:
                for packet in container.demux(only_video(container, path)):
                    if not packet.size:
                        continue
                    frame = first + _frame_number(packet, rate)
                    due = first + seen - joint.delay
                    _retime(packet, out, 1 / rate, pts=frame, dts=due, duration=1)
                    seen += 1
                    yield float(due / rate), packet
        except FFmpegError as error:
            raise EncoderError(f"chunk {path.name} cannot be read: {error.strerror}", remedy=_REMEDY) from error
        if seen != count:
            raise EncoderError(f"chunk {path.name} changed while it was joined", remedy=_REMEDY)
        first += count


def concatenate(chunks: Sequence[Path], output: Path, rate: Fraction) -> None:
    """Lay pieces of one chunk end to end, as one file of their own kind.

    Raises:
        EncoderError: as `scan_chunks`.
        StorageError: `output` cannot be written.
    """
    joint = scan_chunks(chunks, rate)
    try:
        with av.open(f"file:{chunks[0]}") as first, av.open(f"file:{output}", "w") as out:
            stream = out.add_stream_from_template(only_video(first, chunks[0]), opaque=True)
            stream.time_base = 1 / rate
            for _, packet in joined_video(chunks, joint, rate, stream):
                out.mux_one(packet)
    except OSError as error:
        raise storage_error(error, output) from error


def only_video(container: InputContainer, path: Path) -> VideoStream:
    """The one stream of a chunk.

    Raises:
        EncoderError: not exactly one video stream.
    """
    if len(container.streams) != 1 or not container.streams.video:
        raise EncoderError(f"chunk {path.name} does not hold exactly one video stream", remedy=_REMEDY)
    return container.streams.video[0]


def _retime(packet: Packet[Any], out: Stream, time_base: Fraction, *, pts: int, dts: int, duration: int) -> None:
    packet.stream = out
    packet.time_base = time_base
    packet.pts, packet.dts, packet.duration = pts, dts, duration


def _frame_number(packet: Packet[Any], rate: Fraction) -> int:
    # Matroska rounds to milliseconds, hence the rounding here.
    if packet.pts is None:
        return -1
    return round(packet.pts * packet.time_base * rate)
