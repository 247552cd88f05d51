"""Tracks of the source that are copied without decoding: audio, subtitles, cover art."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.container.input import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Stream

from keyscale.engine.camera.timemap import TimeMap
from keyscale.engine.errors import DecodeError
from keyscale.engine.output.concat import Timed
from keyscale.engine.output.metadata import map_span
from keyscale.engine.plan.tracks import Container
from keyscale.engine.source.open import open_source
from keyscale.engine.source.timeline import Retiming, shifted

__all__ = ["CopiedSpan", "copied_audio", "copied_subtitles", "picture_of"]

_LEAD_IN = Fraction(1, 10)
"""Seconds of audio kept before time 0 where an edit list hides them: decoders need them to start cleanly (AAC one
packet, Opus 80 ms)."""


@dataclass
class CopiedSpan:
    """What a copied track turned out to cover, in seconds of the result; None until a packet was copied."""

    start: Fraction | None = None
    end: Fraction | None = None


def copied_audio(
    source: str,
    index: int,
    out: Stream,
    *,
    container: Container,
    origin: Fraction,
    end: Fraction,
    span: CopiedSpan,
    look_ahead: int = 0,
) -> Iterator[Timed]:
    """The packets of audio stream `index` from time 0 to `end` seconds of the result, at most half a packet longer.

    Args:
        source: the file.
        index: its audio stream.
        out: the stream of the result.
        container: where it goes: an edit list hides what comes before time 0, Matroska has none.
        origin: container time in seconds of the first displayed video frame.
        end: where the result's video ends.
        span: filled in on the way.
        look_ahead: of `open_source`.

    Raises:
        DecodeError: the source becomes unreadable.
    """
    last: int | None = None
    with open_source(source, look_ahead=look_ahead) as demuxer:
        stream = _only(demuxer, index)
        base = _base(stream)
        shift = round(origin / base)
        expected = 0
        lead: Fraction | None = None
        for packet in _packets(demuxer, stream):
            stated = packet.pts if packet.pts is not None else packet.dts
            pts = expected if stated is None else stated - shift
            length = packet.duration or 0
            expected = pts + length
            if lead is None:
                lead = _lead_in(demuxer, packet, container)
            # Where an edit list hides the lead-in, the packet that reaches into it counts whole.
            if (pts + (length if container in ("mp4", "mov") else 0)) * base < -lead:
                continue
            # Beyond the middle of a packet, leaving it out is closer to `end` than keeping it.
            if (pts + Fraction(length, 2)) * base >= end:
                break
            if last is not None:
                # Matroska takes two packets at one of its milliseconds, as it has them of TrueHD.
                pts = max(pts, last if container == "mkv" else last + 1)
            last = pts
            length = min(length, max(1, round(end / base) - pts))
            _send(packet, out, base, pts, length)
            if span.start is None:
                span.start = max(Fraction(0), pts * base)
            span.end = (pts + length) * base
            yield float(pts * base), packet


def copied_subtitles(
    source: str,
    index: int,
    out: Stream,
    *,
    origin: Fraction,
    time_map: TimeMap,
    retiming: Retiming | None = None,
    look_ahead: int = 0,
) -> Iterator[Timed]:
    """The packets of subtitle stream `index` on the result's timeline, clipped to it; `look_ahead` as above.

    Raises:
        DecodeError: the source becomes unreadable.
    """
    millisecond = Fraction(1, 1000)
    last = -1
    with open_source(source, look_ahead=look_ahead) as demuxer:
        stream = _only(demuxer, index)
        base = _base(stream)
        for packet in _packets(demuxer, stream, retiming):
            if packet.pts is None:
                continue
            start = packet.pts * base - origin
            span = map_span(float(start), float(start + (packet.duration or 0) * base), time_map)
            if span is None:
                continue
            pts = max(round(span[0] * 1000), last)
            last = pts
            _send(packet, out, millisecond, pts, max(0, round(span[1] * 1000) - pts))
            yield pts / 1000, packet


def picture_of(source: str, index: int, *, look_ahead: int = 0) -> Packet[Any] | None:
    """The picture held by cover-art stream `index`; None where the stream is empty. `look_ahead` as above."""
    with open_source(source, look_ahead=look_ahead) as demuxer:
        return next(_packets(demuxer, _only(demuxer, index)), None)


def _only(demuxer: InputContainer, index: int) -> Stream:
    for stream in demuxer.streams:
        if stream.index != index:
            stream.discard = Discard.all
    return demuxer.streams[index]


def _packets(demuxer: InputContainer, stream: Stream, retiming: Retiming | None = None) -> Iterator[Packet[Any]]:
    position: Fraction | None = None
    try:
        for packet, _ in shifted(demuxer, stream, retiming):
            if packet.size:
                position = packet.pts * packet.time_base if packet.pts is not None else position
                yield packet
    except FFmpegError as error:
        where = f" after {float(position):.3f} s" if position is not None else ""
        raise DecodeError(f"stream {stream.index} of the source cannot be read{where}: {error.strerror}") from error


def _base(stream: Stream) -> Fraction:
    return stream.time_base or Fraction(1, 1000)


def _lead_in(demuxer: InputContainer, packet: Packet[Any], container: Container) -> Fraction:
    """Seconds before time 0 from which on packets are kept; `packet` is the track's first."""
    if container in ("mp4", "mov"):
        return _LEAD_IN
    # Matroska has no edit list: what comes earlier would push the whole file, picture too, to a later start. It has
    # a codec delay, which the muxer takes from what FFmpeg knows of the source's priming.
    context = packet.stream.codec_context
    head = context.extradata
    samples = 0
    if context.codec.canonical_name == "opus" and head and len(head) >= 12:
        samples, rate = int.from_bytes(head[10:12], "little"), 48000
    elif "matroska" in demuxer.format.name and packet.has_sidedata("skip_samples"):
        samples, rate = (
            int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little"),
            context.sample_rate,
        )
    return Fraction(samples, rate) + Fraction(1, 1000) if samples else Fraction(0)


def _send(packet: Packet[Any], out: Stream, base: Fraction, pts: int, duration: int) -> None:
    packet.stream = out
    packet.time_base = base
    packet.pts = packet.dts = pts
    packet.duration = duration
