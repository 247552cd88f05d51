"""Which times a source's frames have where the container's cannot be taken as they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext

from keyscale.engine.errors import InputError
from keyscale.engine.source.open import demuxed, drained, frame_is_damaged, open_source, prepare_decoder
from keyscale.engine.source.timeline import JOINT, SKIPPED, UNSHOWN, PacketLog, Retiming, retimed_video

if TYPE_CHECKING:
    from av.video.stream import VideoStream

    from keyscale.engine.source.measure import Scan

__all__ = ["choose_times", "decoded", "in_order_of_display"]

CODING_TIMES = frozenset({"avi", "asf", "asf_o", "nuv"})
"""Formats that store when a packet is decoded, not when its picture is shown. Of Matroska it is tracks that were taken
over from AVI with their header (`V_MS/VFW/FOURCC`)."""

WITHOUT_TIMES = frozenset(
    {"avs2", "avs3", "cavsvideo", "dirac", "dnxhd", "evc", "h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo"}
    | {"obu", "vc1", "vvc"}
)
"""Elementary streams: times of their packets are those of a parser, some of which count pictures and not ticks."""

ONE_BEHIND = frozenset({"mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs that hold back one picture at most, so that libavformat knows their order of display by the types."""

REORDERED = frozenset({"h264", "hevc", *ONE_BEHIND})
"""Codecs whose headers, or libavformat by their pictures, tell how many are held back."""

PADDING = {"wmav1": 2048, "wmav2": 2048, "aac": 1024, "mp3": 1105, "mp2": 481, "ac3": 256}
"""Samples that FFmpeg's encoders of sound put before it."""

LEAST_PART = 3
"""Packets of the picture from which a part is not what a cut left over."""

MISPLACED = 4
"""Frames by which a time that libavformat gave to the wrong picture is off at most."""

CHECKED_FRAMES = 48
"""Frames decoded from the head to check an order of display that was not decoded."""


def choose_times(path: str | Path, scan: Scan) -> Retiming | None:
    """The times of the packets of a scanned source; None where the container's are good, wherever it is entered.

    - Times that start again: each part follows the one before it.
    - Times of decoding alone (AVI): the n-th frame shown has the n-th of them, as players show it. What libavformat
      makes of them for H.264 and streams with B-frames begins some frames late.
    - No times (elementary streams): frames of equal length in the order of display.
    - Times of some packets alone (MPEG program streams): those that are found when reading from the start, since after
      a seek others are guessed.
    """
    log = scan.log
    if not len(log.pts):
        return None
    if parts := log.parts:
        own = replace(log.own(), joints=tuple(part.packet for part in parts))
        pts = own.pts if _is_regular(log) else _placed(path, scan, own.joints).pts
        return log.joined(_undecodable(path, scan, own), scan.time_base, pts)
    if all(pts <= SKIPPED for pts in log.pts) or (scan.container in WITHOUT_TIMES and not _is_even(log)):
        return _even(path, scan)
    if _stores_coding_times(scan) and all(dts is not None for dts in log.dts) and log.dts != log.pts:
        return in_order_of_display(path, scan, log.dts, delay=_delay(scan))
    if None not in log.positions and not log.resized:
        return None
    own = log.own() if _is_regular(log) else _placed(path, scan, ())
    return replace(own, joints=tuple(log.resized))


def decoded(packets: Iterator[Any], stream: VideoStream) -> Iterator[list[av.VideoFrame] | None]:
    """What each packet decodes to, None where it does not; ends where the file cannot be read on."""
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            return
        if packet is None:
            return
        try:
            yield drained(stream) if packet is JOINT else packet.decode()
        except av.FFmpegError:
            yield None


def _stores_coding_times(scan: Scan) -> bool:
    return scan.container in CODING_TIMES or ("matroska" in scan.container and scan.has_tag)


def _numbered(log: PacketLog, joints: tuple[int, ...] = ()) -> Retiming:
    """Each packet's number in place of its time: decoded frames then tell which packet they are of."""
    own = log.own()
    return replace(own, pts=np.where(own.pts == SKIPPED, SKIPPED, np.arange(len(own.pts))), joints=joints)


def _order(
    path: str | Path, scan: Scan, *, limit: int | None = None, joints: tuple[int, ...] = ()
) -> tuple[list[int], set[int]]:
    """Numbers of packets in the order in which their frames are shown, and which of them are not to be shown.

    These are damaged and come before the first whole frame. What cannot be decoded after it keeps its place, so that a
    reader that needs it gets an error.
    """
    order: list[int] = []
    head: set[int] = set()
    lost: list[int] = []
    latest = -1
    whole = False
    with open_source(path, look_ahead=scan.video_look_ahead) as container:
        stream = container.streams[scan.index]
        assert isinstance(stream, av.VideoStream)
        prepare_decoder(stream)

        def noted() -> Iterator[Any]:
            nonlocal latest
            for packet in retimed_video(container, stream, _numbered(scan.log, joints)):
                latest = packet.pts if packet is not JOINT and packet.pts is not None else latest
                yield packet

        for frames in decoded(noted(), stream):
            if frames is None and whole:
                lost.append(latest)
            for frame in frames or ():
                if frame.pts is not None:
                    order.append(int(frame.pts))
                    whole = whole or not frame_is_damaged(frame)
                    if not whole:
                        head.add(order[-1])
            if limit is not None and len(order) >= limit:
                return order, head
    given = set(order)
    for number in lost:
        # Threads tell of a packet some packets later.
        missing = next((n for n in range(number, -1, -1) if n not in given and scan.log.pts[n] != SKIPPED), None)
        if missing is not None:
            given.add(missing)
            _insert(order, missing)
    return order, head


def _insert(order: list[int], number: int) -> None:
    order.insert(next((at for at, other in enumerate(order) if other > number), len(order)), number)


def _is_even(log: PacketLog) -> bool:
    """Whether the packets' times are a frame apart, so that they can be taken."""
    steps = np.diff(np.array(log.pts, np.int64))
    return bool(np.ptp(np.append(steps, log.durations)) == 0)


def _even(path: str | Path, scan: Scan) -> Retiming:
    """Frames of equal length; how long they are, the codec's headers say, else libavformat takes 25 a second."""
    order, damaged = _order(path, scan)
    own = scan.log.own()
    own.pts[own.pts > SKIPPED] = UNSHOWN
    length = round(sum(scan.log.durations) / len(order)) if order else 0
    usual = int(np.median(scan.log.durations))
    if -0.1 < length / max(1, usual) - 1 < 0.4:
        # Packets of headers alone have a duration too, and so have pictures that are lost; those before the rate is
        # known have another one. Twice as long are pictures of two fields, a packet each.
        length = usual
    for place, number in enumerate(order):
        if number not in damaged:
            own.pts[number] = place * (length or round(1 / (25 * scan.time_base)))
    return replace(own, ordered=True)


def _delay(scan: Scan) -> int:
    """Ticks from a time of decoding to that of display: in ASF times of sound allow for it, in AVI they do not.

    Nor do they in ASF that was copied from AVI: which of both it is tells the time at which the sound begins, by what
    its encoder puts before it.
    """
    times = [dts for dts in scan.log.dts if dts is not None]
    if "asf" not in scan.container or len(times) < 2:
        return 0
    if scan.codec not in REORDERED:
        return max(0, scan.start_time - min(times)) if scan.start_time is not None else 0
    delay = scan.reordered * int(np.median(np.diff(np.sort(times))))
    for codec, rate, begins in scan.sounds():
        padding = Fraction(PADDING.get(codec, 0), rate or 48000)
        off = (Fraction(begins) + padding) / scan.time_base - min(times)
        return delay if abs(off - delay) <= abs(off - padding / scan.time_base) else 0
    return delay


def in_order_of_display(path: str | Path, scan: Scan, times: Sequence[int | None], *, delay: int = 0) -> Retiming:
    """The n-th frame that is shown at the n-th time.

    Args:
        path: the source.
        scan: of it.
        times: of its packets in the order of coding; None where nothing is shown.
        delay: ticks to add to them.
    """
    own = scan.log.own()
    first = scan.log.keyframes[0] if scan.log.keyframes else 0
    timed = {number for number, time in enumerate(times) if time is not None and number >= first}
    order, damaged = _cheap_order(path, scan, first), set[int]()
    if order is None:
        order, damaged = _order(path, scan)
    # What gave no frame and no error keeps its place: it says that the last one is shown once more.
    for number in sorted(timed - set(order)):
        _insert(order, number)
        damaged.add(number)
    own.pts[:] = UNSHOWN
    ascending = sorted(time for number, time in enumerate(times) if time is not None and number in timed)
    for time, number in zip(ascending, [number for number in order if number in timed], strict=True):
        if number not in damaged:
            own.pts[number] = time + delay
    return replace(own, ordered=True)


def _is_regular(log: PacketLog) -> bool:
    """Whether times that libavformat guessed can be taken: one for each packet, in even steps."""
    if None not in log.positions:
        return True
    pts = np.array(log.pts[log.keyframes[0] if log.keyframes else 0 :], np.int64)
    first = [0, *(part.packet - (len(log.pts) - len(pts)) for part in log.parts), len(pts)]
    if np.any(pts == UNSHOWN):
        return False
    shown = [np.sort(each[each > SKIPPED]) for each in (pts[max(0, a) : b] for a, b in itertools.pairwise(first))]
    steps = np.concatenate([np.diff(each) for each in shown])
    # Pictures of film in a stream of fields last 2 or 3 of them.
    usual = np.median(steps) if steps.size else 0
    return bool(np.all((steps > 0.6 * usual) & (steps < 1.7 * usual)))


def _placed(path: str | Path, scan: Scan, joints: tuple[int, ...]) -> Retiming:
    """Frames in the order of display, each its duration behind the one before, held to the times that are stored.

    Only the first picture that begins in a unit of the container has a stored time. Where a unit begins within a start
    code libavformat gives its time to a wrong picture too.
    """
    log = scan.log
    order, _ = _order(path, scan, joints=joints)
    own = log.own()
    stored = np.array([pos is not None for pos in log.positions]) & (own.pts > SKIPPED)
    lengths = np.array(log.durations, np.int64)
    usual = int(np.median(lengths[lengths > 0])) if np.any(lengths > 0) else round(1 / (25 * scan.time_base))
    lengths[lengths <= 0] = usual
    pts = np.where(own.pts == SKIPPED, SKIPPED, UNSHOWN)
    for begin, end in itertools.pairwise([0, *joints, len(own.pts)]):
        numbers = np.array([number for number in order if begin <= number < end], np.int64)
        if not numbers.size:
            continue
        places = np.cumsum(lengths[numbers]) - lengths[numbers]
        known = np.flatnonzero(stored[numbers])
        known = known[_plausible(own.pts[numbers[known]] - places[known], usual)]
        anchors: list[int] = []
        for at in known.tolist():
            before = anchors[-1] if anchors else None
            if before is None or own.pts[numbers[at]] - own.pts[numbers[before]] >= at - before:
                anchors.append(at)
        if not anchors:
            pts[numbers] = places
            continue
        times = np.interp(places, places[anchors], own.pts[numbers[anchors]])
        head, tail = anchors[0], anchors[-1]
        times[:head] = own.pts[numbers[head]] - (places[head] - places[:head])
        times[tail:] = own.pts[numbers[tail]] + (places[tail:] - places[tail])
        pts[numbers] = np.round(times).astype(np.int64)
    return replace(own, pts=pts, ordered=True)


def _plausible(offsets: npt.NDArray[np.int64], usual: int) -> npt.NDArray[np.bool_]:
    """Which stored times, less the durations up to them, are not a few frames off what those around them agree on.

    One that is further off is a picture that stands for long, or a gap in reception.
    """
    plausible = np.ones(len(offsets), np.bool_)
    for at, offset in enumerate(offsets):
        around = offsets[max(0, at - 2) : at + 3]
        middle = np.sort(around)[len(around) // 2]
        agreeing = np.count_nonzero(np.abs(around - middle) < usual / 2)
        plausible[at] = agreeing < 2 or not usual / 2 <= abs(offset - middle) <= MISPLACED * usual
    return plausible


def _cheap_order(path: str | Path, scan: Scan, first: int) -> list[int] | None:
    """The order of display without decoding all of it; None where that does not tell."""
    pts = np.array(scan.log.pts[first:], np.int64)
    if scan.codec in ONE_BEHIND and pts.min() > SKIPPED and len(np.unique(pts)) == len(pts):
        order = [first + int(number) for number in np.argsort(pts)]
    elif scan.codec in {"h264", "hevc"} and not _reorders(path, scan):
        order = list(range(first, len(scan.log.pts)))
    else:
        return None
    head, _ = _order(path, scan, limit=CHECKED_FRAMES)
    head = [number for number in head if number >= first]
    return order if head and head == order[: len(head)] else None


def _reorders(path: str | Path, scan: Scan) -> bool:
    """Whether H.264 or HEVC pictures are coded in another order than shown, by their picture order counts."""
    with open_source(path, look_ahead=scan.video_look_ahead) as container:
        stream = container.streams[scan.index]
        assert isinstance(stream, av.VideoStream)
        by_count = BitStreamFilterContext("dts2pts", stream)
        number = 0
        ahead: set[int] = set()
        try:
            for packet in demuxed(container, stream):
                if not packet.size:
                    continue
                packet.pts, packet.dts, packet.duration = None, number, 1
                number += 1
                ahead |= {(out.pts or 0) - (out.dts or 0) for out in by_count.filter(packet)}
                if len(ahead) > 1:
                    return True
            ahead |= {(out.pts or 0) - (out.dts or 0) for out in by_count.filter(None)}
        except (av.FFmpegError, OSError):
            return True
        return len(ahead) > 1


def _undecodable(path: str | Path, scan: Scan, own: Retiming) -> frozenset[int]:
    """Packets at the head of each later part whose pictures lack what they are predicted from."""
    numbered = _numbered(scan.log, own.joints)
    edges = [*own.joints, len(own.pts)]
    hidden: set[int] = set()
    part = -1
    waits = False
    with open_source(path, look_ahead=scan.video_look_ahead) as container:
        stream = container.streams[scan.index]
        assert isinstance(stream, av.VideoStream)
        prepare_decoder(stream)

        def begun(frames: list[av.VideoFrame]) -> bool:
            first = next((f.pts for f in frames if f.pts is not None and not frame_is_damaged(f)), None)
            if first is None:
                return False
            numbers = range(edges[part], edges[part + 1])
            hidden.update(number for number in numbers if SKIPPED < own.pts[number] < own.pts[first])
            return True

        for packet in retimed_video(container, stream, numbered):
            try:
                if packet is JOINT:
                    if waits and not begun(drained(stream)):
                        _check_decoded(path, part, edges)
                    stream.codec_context.flush_buffers()
                    part, waits = part + 1, True
                elif waits:
                    waits = not begun(packet.decode())
            except av.FFmpegError:
                continue
    if waits:
        _check_decoded(path, part, edges)
    return frozenset(hidden)


def _check_decoded(path: str | Path, part: int, edges: list[int]) -> None:
    """A part of which nothing can be decoded, though it is no mere remainder, has another codec.

    Raises:
        InputError: that is so.
    """
    packets = edges[part + 1] - edges[part]
    if packets >= LEAST_PART:
        raise InputError(
            f"no frame of part {part + 2} of the joined recording {path} can be decoded: it has another codec than the "
            f"first part, or is damaged ({packets} packets)",
            remedy="Split the file where its recordings were joined, and give each part by itself.",
        )
