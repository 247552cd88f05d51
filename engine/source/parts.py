"""Where a stream's times start again: in recordings that were joined, and in those that a camera splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Part", "Track", "is_ahead", "is_back", "length_of", "near_of"]

FORWARD_SECONDS = 10
"""A step ahead from which a stream that may be cut anywhere is taken to start again: FFmpeg's `dts_delta_threshold`."""

WRAP_SECONDS = 3600
"""A step ahead that is a joint whatever came before it."""

STEPS_KNOWN = 8
"""Packets after which it is known by how much a stream's times usually step ahead."""

SAME_PLACE = 512
"""Packets of one stream within which its times start again where those of the picture do."""


@dataclass(frozen=True)
class Part:
    """Where a stream's times start again, while the file is read."""

    packet: int
    """The first one of the part."""
    counts: dict[int, int]
    """How many packets of each stream came before it in the file."""
    ahead: bool
    """Times step ahead there, not back."""


@dataclass
class Track:
    """What is noted of a stream while the file is read."""

    base: Fraction
    kind: str
    tick: float = 0.0
    """`base` as a float: what is compared for each packet need not be exact."""
    count: int = 0
    low: int | None = None
    """Earliest and latest time of the part that is read, and where its last packet ends."""
    top: int | None = None
    end: int = 0
    dts: int | None = None
    widest: int = 0
    """Longest step ahead so far."""
    intra: bool = True
    parts: list[Part] = field(default_factory=list)
    part_ends: list[int] = field(default_factory=list)
    """Of each finished part."""

    def finish_part(self, part: Part) -> None:
        """Begin anew."""
        self.parts.append(part)
        self.part_ends.append(self.end)
        self.low = self.top = self.dts = None
        self.end, self.intra = 0, True

    def ends(self, number: int | None) -> Fraction | None:
        """Seconds at which the sound of its part `number` ends."""
        if self.kind != "audio" or number is None:
            return None
        return [*self.part_ends, self.end][number] * self.base


def near_of(track: Track, count: int) -> int | None:
    """Which of the track's own new beginnings is near its packet `count`."""
    near = [(abs(part.packet - count), number) for number, part in enumerate(track.parts)]
    closest = min(near, default=(SAME_PLACE + 1, 0))
    return closest[1] if closest[0] <= SAME_PLACE else None


def is_ahead(track: Track, packet: Any) -> bool:
    """Whether the track's times step so far ahead with this packet that they start again there."""
    if track.top is None or packet.pts <= track.top:
        return False
    step = packet.pts - track.top
    # Pictures that stand for long are no joints; what is far ahead stepped back, and libavformat took it for a wrap.
    usual = track.count >= STEPS_KNOWN and step > 4 * track.widest
    return bool(step * track.tick > (FORWARD_SECONDS if usual else WRAP_SECONDS))


def is_back(track: Track, packet: Any, *, has_dts: bool) -> bool:
    """Whether the track's times start again with this packet.

    Times of display step back in ordinary streams too, by the depth of reordering; times of decoding do not, and no
    keyframe is shown before a picture that is coded before it, or with it.
    """
    if track.top is None or track.low is None or packet.pts > track.top:
        return False
    back = (track.top - packet.pts) * track.tick
    begins_anew = packet.pts <= track.low
    if track.kind != "video":
        return bool(back > 0.5 or (back > 0.05 and begins_anew))
    behind = (track.dts - packet.dts) * track.tick if track.dts is not None and packet.dts is not None else None
    if packet.is_keyframe and not back:
        return bool(has_dts and behind is not None and behind >= 0 and packet.pos is not None)
    if packet.is_keyframe:
        # Where every picture is one, a capture's times may tremble.
        least = 0.1 if track.intra and not begins_anew else 0.005
        return bool(back > least and (behind is None or not has_dts or behind > 0))
    # Where pictures stand for long, those of display step back by seconds.
    return bool(has_dts and behind is not None and behind > 0.1)


def length_of(times: npt.NDArray[np.int64], usual: int) -> Fraction:
    """Ticks from the first of a part's times to where its last frame ends, ascending `times` `(N,)`, at least one.

    Where a clock of milliseconds rounds times of an even rate, by the slope of the line through all of them (least
    squares): what follows a part that is taken to be a tick longer comes later than is forgiven.
    """
    steps = np.diff(times)
    if len(steps) < 2 or np.ptp(steps) > 1:
        return Fraction(int(times[-1] - times[0]) + usual)
    number = np.arange(len(times)) - (len(times) - 1) / 2
    step = float(number @ (times - times[0])) / float(number @ number)
    return Fraction(round(1000 * step * len(times)), 1000)
