"""Times of packets where those of the container do not do: times that start again, that are guessed, or that are none.

Packets are counted from the file's start, in each stream by itself. What holds for packet n holds however the file is
opened, whereas a place that a seek finds does not say which of two equal times was meant. So a source with times of its
own is read from its start; what comes before the wanted keyframe is passed over without decoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keyscale.engine.source.open import demuxed
from keyscale.engine.source.parts import Part, Track, is_ahead, is_back, length_of, near_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

__all__ = ["JOINT", "SKIPPED", "UNSHOWN", "PacketLog", "Retiming", "Span", "retimed_video", "shifted"]

UNSHOWN = -(2**63)
"""In place of a pts: the decoder needs the packet, no frame has its time."""

SKIPPED = UNSHOWN + 1
"""In place of a pts: the packet cannot be decoded, since its part has not had a keyframe yet."""

OUTLASTS = Fraction(1, 4)
"""Seconds by which sound has to be longer than the picture of its part, so that the part is as long as the sound."""

SEQUENCE_HEADER = b"\0\0\1\xb3"
HEADER_BYTES = 256
"""Of a packet of MPEG-1 or MPEG-2 in which its sequence header stands, if it has one."""


class _Joint:
    """Stands between two packets where the decoder has to begin anew."""


JOINT = _Joint()


@dataclass(frozen=True, kw_only=True)
class Span:
    """Packets of one stream, other than the picture, that belong to one part of a joined recording."""

    stream: int
    packet: int
    """The first one, counted in its stream from the file's start."""
    shift: Fraction
    """Seconds to add to the container's time."""
    begins: Fraction
    """Container time, in seconds after the shift, from which the part is heard."""
    ends: Fraction | None
    """Where the next part begins; None for the last one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retiming:
    """The times of a source's packets, where they are not those of its container."""

    pts: npt.NDArray[np.int64]
    """Of the picture's packets in the order of coding `(N,)`, in units of its time base; `UNSHOWN` and `SKIPPED`."""
    keyframes: npt.NDArray[np.int64]
    """Which of the picture's packets are keyframes, ascending `(K,)`."""
    joints: tuple[int, ...] = ()
    """Packets of the picture before which the decoder begins anew: where times start again."""
    spans: tuple[Span, ...] = ()
    """Of all other streams, where times start again."""
    recordings: tuple[Fraction, ...] = ()
    """Seconds to add to the container's time in each recording but the first, of those that lie end to end."""
    ordered: bool = False
    """The times were found by the order of display, so that a packet without one has none to be shown at."""

    def shown(self) -> npt.NDArray[np.int64]:
        """All times that frames may have, ascending."""
        return np.sort(self.pts[self.pts > SKIPPED])

    @property
    def without_frames(self) -> int:
        """Packets behind the first shown one that have no frame; 0 where each second one has none, as with fields."""
        after = self.pts[np.argmax(self.pts > SKIPPED) :]
        count = int(np.count_nonzero(after == UNSHOWN))
        return count if count < 0.4 * len(after) else 0

    def keyframe_before(self, pts: int) -> int:
        """The last packet with a keyframe at or before `pts`, in the order of coding; 0 where there is none."""
        times = self.pts[self.keyframes]
        found = np.flatnonzero((times > SKIPPED) & (times <= pts))
        return int(self.keyframes[found[-1]]) if found.size else 0


def retimed_video(container: InputContainer, stream: Stream, retiming: Retiming, *, begin: int = 0) -> Iterator[Any]:
    """The picture's packets of a container at its start, from number `begin` on, with their times; `JOINT` between
    two parts. The last one is empty, to drain the decoder."""
    number = -1
    joints = frozenset(retiming.joints)
    for packet in demuxed(container, stream):
        if packet.size == 0:
            if packet.pts is None:
                yield packet
            continue
        number += 1
        if number < begin:
            continue
        if number in joints and number > begin:
            yield JOINT
        pts = int(retiming.pts[number]) if number < len(retiming.pts) else UNSHOWN
        if pts == SKIPPED:
            continue
        packet.pts = None if pts == UNSHOWN else pts
        packet.dts = None
        yield packet


def shifted(container: InputContainer, stream: Stream, retiming: Retiming | None) -> Iterator[tuple[Any, Span | None]]:
    """The packets of a stream that is not the picture, with their times, and the part of the recording that they are
    of; None where its times are those of the container. Where that is not so, the container has to be at its start.
    """
    spans = [span for span in retiming.spans if span.stream == stream.index] if retiming is not None else []
    if not spans:
        yield from ((packet, None) for packet in demuxed(container, stream))
        return
    number = -1
    for packet in demuxed(container, stream):
        number += packet.size > 0
        span = next(span for span in reversed(spans) if span.packet <= max(0, number))
        ticks = round(span.shift / packet.time_base)
        if packet.pts is not None:
            packet.pts += ticks
        if packet.dts is not None:
            packet.dts += ticks
        yield packet, span


class PacketLog:
    """What is noted of packets while a file is read once from its start."""

    def __init__(self, video: int, codec: str, *, may_step_ahead: bool, has_dts: bool) -> None:
        """Nothing is noted yet.

        Args:
            video: index of the stream that is the picture.
            codec: FFmpeg's name of its codec.
            may_step_ahead: the format is made to be cut anywhere, so that a long step ahead is a joint too.
            has_dts: the format stores times of decoding.
        """
        self.pts: list[int] = []
        self.dts: list[int | None] = []
        self.durations: list[int] = []
        self.keyframes: list[int] = []
        self.positions: list[int | None] = []
        """Of the container's unit that each packet is the first to begin in; None where it begins inside one."""
        self.resized: list[int] = []
        """Packets of the picture with which its size changes, where the decoder would drop the frame that it holds."""
        self._sequence_size: bytes | None = None
        self._video, self._has_sequences = video, codec in {"mpeg1video", "mpeg2video"}
        self._may_step_ahead, self._has_dts = may_step_ahead, has_dts
        self._tracks: dict[int, Track] = {}
        self._started = False
        self._anew: set[int] = set()
        self._recordings: list[Part] = []

    def begin_recording(self) -> None:
        """What follows is of another recording, whatever its times are."""
        self._anew = set(self._tracks)

    def add(self, packet: Any) -> None:
        """Note a packet that is not empty."""
        is_video = packet.stream_index == self._video
        track = self._tracks.get(packet.stream_index)
        if track is None:
            base = packet.time_base or Fraction(1)
            track = self._tracks[packet.stream_index] = Track(base, packet.stream.type, float(base))
        anew = packet.stream_index in self._anew
        self._anew.discard(packet.stream_index)
        if anew or (packet.pts is not None and not packet.is_discard):
            ahead = not anew and self._may_step_ahead and is_ahead(track, packet)
            if anew or ahead or is_back(track, packet, has_dts=self._has_dts):
                counts = {index: each.count for index, each in self._tracks.items()}
                track.finish_part(Part(track.count, counts, ahead))
                if anew and is_video:
                    self._recordings.append(track.parts[-1])
                # A gap in reception loses nothing that can be decoded; a cut in mid-group does.
                self._started = self._started and (not is_video or ahead)
            elif track.top is not None:
                track.widest = max(track.widest, packet.pts - track.top)
        if packet.pts is not None and not packet.is_discard:
            track.low = packet.pts if track.low is None else min(track.low, packet.pts)
            track.top = packet.pts if track.top is None else max(track.top, packet.pts)
            track.end = max(track.end, packet.pts + (packet.duration or 0))
            track.dts = packet.dts if packet.dts is not None else track.dts
            track.intra = track.intra and packet.is_keyframe
        track.count += 1
        if is_video:
            self._note_picture(packet)

    def _note_picture(self, packet: Any) -> None:
        number = len(self.pts)
        self._started = self._started or packet.is_keyframe
        if packet.is_keyframe:
            self.keyframes.append(number)
            if self._has_sequences:
                self._note_size(packet, number)
        if not self._started:
            self.pts.append(SKIPPED if self._tracks[self._video].parts else UNSHOWN)
        else:
            self.pts.append(UNSHOWN if packet.pts is None or packet.is_discard else packet.pts)
        self.dts.append(packet.dts)
        self.durations.append(packet.duration or 0)
        self.positions.append(packet.pos)

    def _note_size(self, packet: Any, number: int) -> None:
        head = bytes(memoryview(packet)[:HEADER_BYTES])
        at = head.find(SEQUENCE_HEADER)
        if at < 0:
            return
        # 12 bits of width and 12 of height (ISO 13818-2, 6.2.2.1).
        size = head[at + 4 : at + 7]
        if self._sequence_size not in (None, size):
            self.resized.append(number)
        self._sequence_size = size

    @property
    def parts(self) -> list[Part]:
        """Where the picture's times start again, as far as the other streams agree."""
        track = self._tracks.get(self._video)
        if track is None:
            return []
        sounds = {index: each for index, each in self._tracks.items() if each.kind == "audio" and each.count > 8}
        return [
            part
            for part in track.parts
            if not part.ahead
            or all(near_of(each, part.counts.get(index, 0)) is not None for index, each in sounds.items())
        ]

    def own(self) -> Retiming:
        """The container's own times, packet by packet."""
        return Retiming(pts=np.array(self.pts, np.int64), keyframes=np.array(self.keyframes, np.int64))

    def joined(self, hidden: frozenset[int], time_base: Fraction, pts: npt.NDArray[np.int64]) -> Retiming:
        """Times where each part follows the one before: its first frame where the last one's time is over.

        Where the sound of a part is longer than its picture by more than `OUTLASTS`, the next one waits for its end.
        Otherwise the picture decides, and sound that reaches over the joint is cut there, as sound before the first
        frame of a file is.

        Args:
            hidden: packets of the picture that turned out not to be shown.
            time_base: of the picture.
            pts: of the picture's packets in the order of coding `(N,)`, as they stand in their part.
        """
        pts = pts.copy()
        pts[list(hidden)] = UNSHOWN
        parts = self.parts
        first = [0, *(part.packet for part in parts)]
        stops = [*first[1:], len(pts)]
        shown = [np.sort(pts[a:b][pts[a:b] > SKIPPED]) for a, b in itertools.pairwise([*first, len(pts)])]
        steps = np.concatenate([np.diff(each) for each in shown])
        usual = int(np.median(steps)) if steps.size else max(1, int(np.median(self.durations)))
        for start, stop, times in zip(first[:-1], stops[:-1], shown[:-1], strict=True):
            # libavformat guesses the time of the last picture before a joint by what follows it.
            last = start + int(np.argmax(pts[start:stop]))
            if times.size > 1 and self.positions[last] is None and usual < times[-1] - times[-2] <= 3 * usual:
                pts[last] = times[-1] = times[-2] + usual
        others = [index for index in self._tracks if index != self._video]
        numbers = {index: self._numbers(index, parts) for index in others}
        shifts: list[int] = []
        joints: list[Fraction] = []
        end = Fraction(0)
        for k, times in enumerate(shown):
            low = int(times[0]) * time_base if times.size else end
            high = low + length_of(times, usual) * time_base if times.size else low
            for index in others:
                ends = self._tracks[index].ends(numbers[index][k][1])
                if ends is not None and ends - high > OUTLASTS:
                    # By whole frames, so that all parts stand on one grid.
                    high += ceil((ends - high) / (usual * time_base)) * usual * time_base
            # Down: a frame that is a little early is shown all the same, one that is late only at the next time.
            shifts.append((end - low) // time_base if k else 0)
            joints.append(low + shifts[-1] * time_base)
            # Not from where the shift has put it, in whole ticks, lest that adds up.
            end = (end if k else low) + high - low
        for start, stop, shift in zip(first, stops, shifts, strict=True):
            pts[start:stop][pts[start:stop] > SKIPPED] += shift
        spans = [
            Span(
                stream=index,
                packet=numbers[index][k][0],
                shift=shifts[k] * time_base,
                begins=joints[k] if k else Fraction(-(2**40)),
                ends=joints[k + 1] if k + 1 < len(joints) else None,
            )
            for index in others
            for k in range(len(shown))
        ]
        return Retiming(
            recordings=tuple(shifts[parts.index(part) + 1] * time_base for part in self._recordings),
            pts=pts,
            keyframes=np.array(self.keyframes, np.int64),
            joints=tuple(sorted({*first[1:], *self.resized})),
            spans=tuple(spans),
        )

    def _numbers(self, index: int, parts: list[Part]) -> list[tuple[int, int | None]]:
        """Of stream `index`, for each part: its first packet, and which of the stream's own parts it is.

        A stream whose own times do not start again there changes over where the picture does in the file.
        """
        track = self._tracks[index]
        found: list[tuple[int, int | None]] = [(0, 0)]
        used = -1
        for part in parts:
            count = part.counts.get(index, 0)
            own = near_of(track, count)
            if own is None or own <= used:
                found[-1] = found[-1][0], None
                found.append((count, None))
            else:
                used = own
                found.append((track.parts[own].packet, own + 1))
        return found
