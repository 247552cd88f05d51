"""The streams of an open file: what their headers say of them, and when each begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from keyscale.engine.source.sound import channels_of

__all__ = ["FARTHEST", "PROBED", "UNLISTED", "Spans", "stream_facts"]

FARTHEST = 256 << 20
"""Bytes into a file in which streams are looked for: FFmpeg holds all packets until there in memory."""

PROBED = 5_000_000
"""Bytes that FFmpeg looks at by itself."""

_ENOUGH = 2 << 20
"""Bytes after a stream's first packet in which its parameters are told."""

UNLISTED = frozenset({"flv", "mpeg", "mpegts", "wtv"})
"""Formats whose headers do not list the streams: one is known once a packet of it came."""

_FULL = 0.9
"""Of the duration of the packet before it, what a last packet has at least that is filled up; clocks of milliseconds
round."""

_EXACT = frozenset({"flac", "alac", "tta", "wavpack", "truehd", "mlp", "ape", "tak"})
"""Lossless codecs, whose last packet is as long as what is left of the sound."""

_BELIEVED = 0.5
"""Part of its span in which a stream has to hold something: damaged times make spans of days."""


def stream_facts(stream: Any, *, sound: bool) -> dict[str, Any]:
    """Fields of a `StreamInfo`; of a sound's codec nothing is asked unless `sound`."""
    context = stream.codec_context
    metadata = stream.metadata
    facts: dict[str, Any] = {
        "index": stream.index,
        "kind": stream.type,
        "codec": context.codec.canonical_name if context is not None else getattr(stream, "name", None),
        "language": metadata.get("language"),
        "title": metadata.get("title"),
        "attached_picture": bool(stream.disposition & av.stream.Disposition.attached_pic),
        "default": bool(stream.disposition & av.stream.Disposition.default),
    }
    if stream.type == "attachment":
        facts["codec"] = None
    if sound and stream.type == "audio" and context is not None:
        facts |= {"sample_rate": context.sample_rate, "channels": channels_of(stream)}
    return facts


@dataclass
class _Span:
    base: Fraction
    begins: int
    ends: int
    at: int | None
    """Byte at which its first packet lies."""
    held: int
    """Sum of durations."""
    usual: int
    """Duration of the packet before the last one."""
    last: int
    """Duration of the last one."""
    cut: int
    """Of the last one, what is marked as padding."""


class Spans:
    """When each stream begins and ends, and where those begin that no header lists, by the packets of the whole file.

    `unknown` is asked for where a packet of a stream comes that FFmpeg did not find when the file was opened.
    """

    def __init__(self) -> None:
        self._spans: dict[int, _Span] = {}
        self._position = 0
        self._unknown: int | None = None

    def add(self, packet: Any) -> None:
        """Every packet in the order of the file."""
        if packet.pos is not None:
            self._position = packet.pos
        if packet.pts is None or packet.time_base is None or packet.size == 0 or packet.is_discard:
            return
        duration = packet.duration or 0
        span = self._spans.get(packet.stream_index)
        if span is None:
            span = _Span(packet.time_base, packet.pts, packet.pts, packet.pos, 0, 0, 0, 0)
            self._spans[packet.stream_index] = span
        span.begins = min(span.begins, packet.pts)
        span.held += duration
        if packet.pts + duration >= span.ends:
            span.ends = packet.pts + duration
            span.usual, span.last = span.last, duration
            span.cut = _discarded(packet) if packet.stream.type == "audio" else 0

    def unknown(self) -> None:
        """A packet of a stream that the open container does not list."""
        if self._unknown is None:
            self._unknown = self._position

    def times(self, index: int, codec: str | None) -> dict[str, Any]:
        """`begins` and `ends` of a stream in seconds of the container, where they are known and can be believed.

        Encoders fill up the last packet: what may be padding of it does not count.
        """
        span = self._spans.get(index)
        if span is None or (span.held and span.held < _BELIEVED * (span.ends - span.begins)):
            return {}
        padding = span.cut
        exact = codec is None or codec in _EXACT or codec.startswith("pcm_")
        if not padding and not exact and span.last >= _FULL * span.usual:
            padding = span.last
        return {
            "begins": float(span.begins * span.base),
            "ends": float((span.ends - padding) * span.base),
        }

    def look_ahead(self, streams: list[dict[str, Any]], *, unlisted: bool) -> int:
        """Bytes to look into the file for what was not found in it so far; 0 where nothing is missing.

        Args:
            streams: the facts of the streams that were found.
            unlisted: whether what is known of streams that begin late are guesses (FLV's header tells of sound, and
                of no rate).
        """
        places = [self._unknown] if self._unknown is not None else []
        for facts in streams:
            span = self._spans.get(facts["index"])
            if span is None or not span.at or facts["codec"] is None or "sample_rate" not in facts:
                continue
            if facts["sample_rate"] == 0 or (unlisted and span.at > PROBED - _ENOUGH):
                places.append(span.at)
        return max(PROBED, min(places) + _ENOUGH) if places else 0


def _discarded(packet: Any) -> int:
    """Of a packet of sound, how much at its end is not played, in its time base; 0 where no decoder knows the track."""
    if packet.stream.codec_context is None or not packet.has_sidedata("skip_samples"):
        return 0
    samples = int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[4:8], "little")
    rate = packet.stream.codec_context.sample_rate
    return round(Fraction(samples, rate) / packet.time_base) if rate else 0
