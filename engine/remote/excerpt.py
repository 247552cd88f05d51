"""The part of a source that a plan needs, copied without encoding: what is sent instead of a file many times as long.

An excerpt holds the video's packets alone, byte for byte and with the source's own times, from the keyframe where the
reader would begin. Where that cannot be had exactly there is none, and the whole file is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from keyscale.engine.errors import DecodeError, InputError
from keyscale.engine.files import sha256_file, storage_error
from keyscale.engine.plan.plan import Plan
from keyscale.engine.source.media import Media, OpenMedia, excerpt_media, local_media
from keyscale.engine.source.reader import BACK_OFF_SECONDS, DEINTERLACE_LEAD, Lost, read_frames
from keyscale.engine.source.steady import READ_AROUND
from keyscale.engine.source.timeline import JOINT

__all__ = ["Excerpt", "make_excerpt", "worth_excerpt"]

SHARE = 0.5
"""An excerpt is worth its time where it spans less than this part of the source."""

SMALLEST = 16 << 20
"""Bytes of a source below which it is not worth the time."""

BEYOND = 32
"""Packets in a row after the last frame needed, before it is taken for the end: twice the deepest reordering of any
codec here. The deinterlacer, which looks at one more frame, and a decoder that holds some back find them there."""

COMPARED = 3
"""Beginnings of chunks that are decoded from both files and compared, and the very last frame."""

CONTAINER = "nut"
"""FFmpeg's container of excerpts: it takes most codecs' packets as they are, and keeps any time exactly."""

CONTAINER_OF = {"prores": "mov", "dnxhd": "mov"}
"""Of codecs that `CONTAINER` does not hold."""

BY_TAG = frozenset({"mpeg4", "mjpeg", "prores", "dnxhd"})
"""Codecs whose decoders go by the four letters of the container: kept for them. For others they are left out."""

KNOWN = BY_TAG | {"h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "ffv1"}
"""Codecs that are known to decode from an excerpt as they do from the source."""

CHANGING = ("new_extradata", "param_change", "palette")
"""Side data by which a packet changes the decoder's settings; an excerpt cannot carry it."""


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A finished excerpt."""

    path: Path
    begins: int
    """pts of the keyframe that it begins with, which is needed to open it: see `excerpt_media`."""
    packets: int
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """Which packets of the source an excerpt holds."""

    back_off: float | None
    """Seconds before the first frame that a seek aims at; None for the source's start."""
    begins: int
    pts: tuple[int, ...]
    """Of all packets, in coding order."""
    digest: bytes
    """Of their times, kinds and bytes."""


class _Inexact(Exception):
    """An excerpt would not be exact; its text says why, for those who debug this."""


def worth_excerpt(plan: Plan, file_size: int) -> bool:
    """Whether what the plan needs of a source of `file_size` bytes is much less than all of it."""
    first, last = _span(plan)
    seconds = (last - first) * float(plan.info.time_base)
    return file_size >= SMALLEST and seconds < SHARE * float(plan.info.duration)


def make_excerpt(plan: Plan, path: Path, *, should_stop: Callable[[], bool]) -> Excerpt | None:
    """Write what the plan needs of its source to `path`, and check it.

    All that is needed was compared: the packets one by one, and decoded frames where chunks begin and at the end.

    Args:
        plan: what is needed, and of which file.
        path: where to write; overwritten, and removed where there is no excerpt.
        should_stop: asked often; nothing is made once it says so.

    Returns:
        None where an exact one cannot be had, or `should_stop` said so.

    Raises:
        InputError: the source cannot be read.
        StorageError: `path` cannot be written.
    """
    if plan.info.codec not in KNOWN:
        return None
    tried: set[int] = set()
    for back_off in (*BACK_OFF_SECONDS, None):
        try:
            with local_media(plan.info) as media:
                cut = _choose(plan, media, back_off, should_stop)
            if cut is None or cut.begins in tried:
                continue
            tried.add(cut.begins)
            _write(plan, cut, path, should_stop)
            _compare_packets(plan, cut, path, should_stop)
            _compare_frames(plan, cut, path, should_stop)
            return Excerpt(
                path=path,
                begins=cut.begins,
                packets=len(cut.pts),
                size=path.stat().st_size,
                sha256=sha256_file(path),
            )
        except _Inexact:
            path.unlink(missing_ok=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if should_stop():
            break
    return None


def _span(plan: Plan) -> tuple[int, int]:
    """pts of the first source frame that is decoded, those that the deinterlacer needs included, and of the last."""
    index, pts = plan.source_index, plan.info.pts
    around = READ_AROUND if plan.job.calm.steady != 0 else 0
    first = max(0, int(index.min()) - around - (DEINTERLACE_LEAD if plan.info.may_be_interlaced else 0))
    return int(pts[first]), int(pts[min(len(pts) - 1, int(index.max()) + around)])


def _choose(plan: Plan, media: Media, back_off: float | None, should_stop: Callable[[], bool]) -> _Cut | None:
    """The packets from a keyframe at or before the first frame needed; None where a seek finds none there."""
    info, (first, last) = plan.info, _span(plan)
    begins = int(info.pts[0])
    sought = False
    if back_off is not None:
        target = first - round(back_off / float(info.time_base))
        if target > begins:
            media.seek(target)
            sought = True
    pts: list[int] = []
    digest = hashlib.sha256()
    for packet in _needed(media, last, should_stop, from_keyframe=sought):
        if sought and not pts:
            begins = int(packet.pts)
            if begins > first:
                return None
        pts.append(int(packet.pts))
        _add(digest, packet)
    needed = info.pts[(info.pts >= first) & (info.pts <= last)]
    if not pts or not np.isin(needed, pts).all():
        raise _Inexact("there are frames that no packet has the time of")
    return _Cut(back_off=back_off if sought else None, begins=begins, pts=tuple(pts), digest=digest.digest())


def _needed(media: Media, last: int, should_stop: Callable[[], bool], *, from_keyframe: bool) -> Iterator[Any]:
    """Packets in coding order, from here or the next keyframe, until all that is shown up to `last` has come."""
    beyond = 0
    begun = not from_keyframe
    try:
        for packet in media.packets():
            if should_stop():
                raise _Inexact("stopped")
            if packet is JOINT:
                raise _Inexact("the decoder begins anew where recordings were joined, which an excerpt does not tell")
            if packet.size == 0 and packet.pts is None:
                return
            begun = begun or packet.is_keyframe
            if not begun:
                continue
            if packet.pts is None or packet.pts < 0 or packet.size == 0 or packet.is_corrupt or packet.is_discard:
                raise _Inexact("a packet is damaged, hidden by an edit, or has no time that an excerpt can hold")
            if any(packet.has_sidedata(kind) for kind in CHANGING):
                raise _Inexact("a packet changes the decoder's settings")
            beyond = beyond + 1 if packet.pts > last else 0
            yield packet
            if beyond >= BEYOND:
                return
    except (av.FFmpegError, OSError) as error:
        raise _Inexact("the source is damaged") from error


def _write(plan: Plan, cut: _Cut, path: Path, should_stop: Callable[[], bool]) -> None:
    try:
        with path.open("wb") as file, local_media(plan.info) as media:
            if cut.back_off is not None:
                media.seek(cut.begins)
            _mux(plan, cut, media, file, should_stop)
    except av.FFmpegError as error:
        raise _Inexact("the container does not hold it") from error
    except OSError as error:
        raise storage_error(error, path) from error


def _mux(plan: Plan, cut: _Cut, media: Media, file: Any, should_stop: Callable[[], bool]) -> None:
    kind = CONTAINER_OF.get(plan.info.codec, CONTAINER)
    # Moving all times until none is negative would make other times of them.
    options = {"avoid_negative_ts": "disabled"}
    if kind == "mov":
        # Where its picture begins is stored in ticks of the movie, which are milliseconds otherwise.
        ticks = str(plan.info.time_base.denominator)
        options |= {"video_track_timescale": ticks, "movie_timescale": ticks}
    with av.open(file, "w", format=kind, options=options) as out:
        try:
            stream = out.add_stream_from_template(media.stream, opaque=True)
            if media.stream.codec_context.name in BY_TAG:
                stream.codec_context.codec_tag = media.stream.codec_context.codec_tag
        except ValueError as error:
            raise _Inexact("the container does not hold this codec") from error
        out.start_encoding()
        # The container halves ticks until they are short: whole numbers of its ticks make one of the source's.
        ratio = plan.info.time_base / (stream.time_base or plan.info.time_base)
        if ratio.denominator != 1:
            raise _Inexact("the container does not hold these times")
        scale = int(ratio)
        coding = _coding_times(cut.pts, scale)
        count = 0
        for packet in _needed(media, max(cut.pts), should_stop, from_keyframe=cut.back_off is not None):
            if count == 0 and packet.pts != cut.pts[0]:
                continue
            if count == len(cut.pts):
                break
            packet.stream, packet.time_base = stream, stream.time_base
            packet.pts, packet.dts = packet.pts * scale, coding[count]
            packet.duration = (packet.duration or 0) * scale
            out.mux(packet)
            count += 1
        if count != len(cut.pts):
            raise _Inexact("the source gives other packets the second time")


def _coding_times(pts: Sequence[int], ratio: int) -> list[int]:
    """Ascending times of coding, none after its picture's, `ratio` ticks to one of `pts`.

    The muxer asks for them and stores none. Those of the source are missing after some seeks, and pictures that are
    never shown may share a time.
    """
    shown = sorted(pts)
    late = max(ordered - coded for ordered, coded in zip(shown, pts, strict=True))
    times: list[int] = []
    for time in shown:
        tick = (time - late - 1) * ratio + 1
        times.append(max(tick, times[-1] + 1) if times else tick)
    if any(time > coded * ratio for time, coded in zip(times, pts, strict=True)):
        raise _Inexact("pictures share times that the container does not hold")
    return times


def _compare_packets(plan: Plan, cut: _Cut, path: Path, should_stop: Callable[[], bool]) -> None:
    """What was written, read back: the same packets at the same times for the same decoder."""
    with local_media(plan.info) as media:
        before = _settings(media)
    try:
        with path.open("rb") as file, excerpt_media(file, plan.info, begins=cut.begins) as media:
            if _settings(media) != before:
                raise _Inexact("the decoder's settings are not kept")
            digest, count = hashlib.sha256(), 0
            for packet in media.packets():
                if should_stop():
                    raise _Inexact("stopped")
                if packet.size:
                    _add(digest, packet)
                    count += 1
    except (av.FFmpegError, InputError) as error:
        raise _Inexact("what was written cannot be read") from error
    if count != len(cut.pts) or digest.digest() != cut.digest:
        raise _Inexact("packets or their times are not kept")


def _settings(media: Media) -> tuple[Any, ...]:
    """What the decoder is told by the container."""
    context = media.stream.codec_context
    extradata = context.extradata
    tag = context.codec_tag if context.name in BY_TAG else None
    return context.name, context.width, context.height, context.pix_fmt, tag, bytes(extradata or b"")


def _compare_frames(plan: Plan, cut: _Cut, path: Path, should_stop: Callable[[], bool]) -> None:
    """What the reader makes of the excerpt where chunks begin, and at the end, is what it makes of the source."""
    chosen = np.unique(np.linspace(0, len(plan.chunks) - 1, COMPARED).astype(int))
    wanted = {plan.pts(plan.chunks[index].start) for index in chosen} | {plan.pts(plan.frames - 1)}
    if plan.job.calm.steady != 0:  # chunks begin and end that much farther out
        numbers = plan.info.pts.searchsorted(sorted(wanted))
        around = np.concatenate([numbers - READ_AROUND, numbers + READ_AROUND]).clip(0, len(plan.info.pts) - 1)
        wanted |= set(plan.info.pts[around].tolist())

    def frames(open_media: OpenMedia) -> Iterator[Any]:
        return read_frames(
            plan.info,
            sorted(wanted),
            deep=plan.encoder.bit_depth > 8,
            keep_going=True,
            should_stop=should_stop,
            open_media=open_media,
            tone=plan.tone,
        )

    with path.open("rb") as file:
        ours = frames(partial(excerpt_media, file, plan.info, begins=cut.begins))
        try:
            for here, there in zip(frames(partial(local_media, plan.info)), ours, strict=True):
                if isinstance(here, Lost) or isinstance(there, Lost):
                    raise _Inexact("a frame is lost")
                if here.pts != there.pts or not np.array_equal(here.pixels, there.pixels):
                    raise _Inexact("a frame is not kept")
        except DecodeError as error:
            raise _Inexact("a frame cannot be shown") from error
    if should_stop():
        raise _Inexact("stopped")


def _add(digest: Any, packet: Any) -> None:
    digest.update(b"%d %d %d " % (packet.pts, packet.is_keyframe, packet.size))
    digest.update(packet)
