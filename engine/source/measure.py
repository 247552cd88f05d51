"""A source file scanned and measured with PyAV: the raw readings that `probe` makes sense of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import av
import numpy as np
import numpy.typing as npt

from keyscale.engine.errors import InputError
from keyscale.engine.source.frame_filters import FrameTags, frame_tags
from keyscale.engine.source.matroska import is_whole
from keyscale.engine.source.open import demuxed, frame_is_damaged, open_source, prepare_decoder, reason_of
from keyscale.engine.source.order import choose_times, decoded, in_order_of_display
from keyscale.engine.source.side_data import CAPTIONS, TRANSPARENCY, Type, has_captions, side_data_of, told_of
from keyscale.engine.source.streams import UNLISTED, Spans, stream_facts
from keyscale.engine.source.timeline import SKIPPED, PacketLog, Retiming, retimed_video
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["FirstFrame", "Measured", "Scan", "measure"]

T = TypeVar("T")

STREAMING = frozenset({"mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v"})
"""Formats without an index, made to be cut anywhere: a broken last frame is how a recording ends."""

HIDDEN_FRAMES = frozenset({"vp8", "vp9", "av1"})
"""Codecs whose packets may hold no displayed frame."""

SHORT = frozenset({"truehd", "mlp"})
"""Codecs of sound with packets of less than a millisecond, of which two may have one time in Matroska."""

HEAD_FRAMES = 12
"""Frames decoded from the head to compare with the packets."""

TAIL_SECONDS = (1, 5, 30)
"""How far before the end decoding is tried, to find the last frame that is whole."""

MAX_PIXELS = 16384 * 8704
"""Largest picture decoded: that of the highest levels of HEVC and AV1. What declares more is damaged."""


class Scan:
    """Everything the container tells without decoding: streams, claims, packets of the video stream.

    Args:
        container: just opened.
        stream: its video.
        path: its name, for errors.
        sound: whether the sound's codecs are asked for what they are.
        look_ahead: with which the container was opened.
        video_look_ahead: what of that is needed to find the video.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        path: str,
        *,
        sound: bool = True,
        look_ahead: int = 0,
        video_look_ahead: int = 0,
    ) -> None:
        context = stream.codec_context
        self.container = container.format.name
        self.index = stream.index
        self.video_number = [each.index for each in container.streams.video].index(stream.index)
        """How many streams of pictures stand before it."""
        self.codec = context.codec.canonical_name
        self.reordered: int = context.reorder_depth
        """Pictures that the decoder holds back, to put them in the order of display."""
        self.has_tag = bool(context.codec_tag.strip("\0"))
        self.time_base: Fraction = stream.time_base or Fraction(1, 90_000)
        self.sample_aspect_ratio = stream.sample_aspect_ratio or context.sample_aspect_ratio
        self.average_rate = stream.average_rate
        self.start_time = stream.start_time
        self.field_order = context.field_order
        self.header_frames = stream.frames or None
        self.header_duration = container.duration / av.time_base if container.duration else None
        self.is_mov = "mov" in self.container
        self.streaming = bool(STREAMING & set(self.container.split(",")))
        self.has_size = context.width > 0 and context.height > 0  # FFmpeg drops one that is beyond its own limit
        self.look_ahead, self.video_look_ahead = look_ahead, video_look_ahead
        self._streams = [stream_facts(s, sound=sound) for s in container.streams]
        if context.width * context.height > MAX_PIXELS:
            raise InputError(
                f"{path} declares pictures of {context.width}x{context.height} pixels",
                remedy="The largest picture that is read has as many as 16384x8704.",
            )
        # VP8 and VP9 keep it beside the picture, where no decoder here looks.
        self.left_out = {TRANSPARENCY} if stream.metadata.get("alpha_mode") == "1" else set[str]()
        """What comes with the picture and is not carried over, as far as packets tell."""
        self._read_packets(container, stream, path)

    def streams(self, make: Callable[..., T]) -> tuple[T, ...]:
        """The streams as `make(**facts)` objects."""
        joined = bool(self.log.parts)
        return tuple(
            make(
                **facts,
                **self._spans.times(facts["index"], facts["codec"]),
                disordered=joined or facts["index"] in self._disordered,
            )
            for facts in self._streams
        )

    def sounds(self) -> Iterator[tuple[str, int, float]]:
        """Codec, samples a second, and container time in seconds of the first packet of each sound."""
        for facts in self._streams:
            begins = self._spans.times(facts["index"], facts["codec"]).get("begins")
            if facts["kind"] == "audio" and begins is not None:
                yield facts["codec"], facts.get("sample_rate", 0), begins

    @property
    def missing(self) -> int:
        """Bytes to look into the file for streams of which too little was found so far; 0 where there are none."""
        return self._spans.look_ahead(self._streams, unlisted=bool(UNLISTED & set(self.container.split(","))))

    def _read_packets(self, container: InputContainer, stream: VideoStream, path: str) -> None:
        pts: list[int] = []
        is_stream = self.streaming
        self.log = PacketLog(
            stream.index, self.codec, may_step_ahead=is_stream, has_dts=is_stream or "flv" in self.container
        )
        self.missing_pts = self.corrupt_packets = self.last_duration = 0
        last = None
        ends = 0.0
        self.read_error: str | None = None
        indexed_end = max((e.pos + e.size for e in stream.index_entries), default=0) if self.is_mov else 0
        self.beyond_file = indexed_end > container.size > 0
        started = False
        latest: dict[int, int] = {}
        self._disordered: set[int] = set()
        self._spans = Spans()
        try:
            for packet in demuxed(
                container, *container.streams, on_unknown=self._spans.unknown, on_recording=self.log.begin_recording
            ):
                self._spans.add(packet)
                time_base = packet.time_base
                if packet.pts is not None and time_base is not None:
                    ends = max(ends, float((packet.pts + (packet.duration or 0)) * time_base))
                    before = latest.get(packet.stream_index, packet.pts - 1)
                    if packet.pts < before + (self._streams[packet.stream_index]["codec"] not in SHORT):
                        self._disordered.add(packet.stream_index)
                    latest[packet.stream_index] = packet.pts
                if packet.size:
                    self.log.add(packet)
                if packet.stream_index != stream.index or packet.size == 0:
                    continue
                if CAPTIONS not in self.left_out and has_captions(self.codec, packet):
                    self.left_out.add(CAPTIONS)
                # Packets before the first keyframe can not be decoded, so they are never displayed. That keyframe may
                # itself be hidden by an edit list that begins between keyframes.
                started = started or packet.is_keyframe
                if not started or packet.is_discard:
                    continue
                self.corrupt_packets += packet.is_corrupt
                if packet.pts is None:
                    self.missing_pts += 1
                    continue
                pts.append(packet.pts)
                if last is None or packet.pts >= last:
                    last, self.last_duration = packet.pts, packet.duration or 0
        except (av.FFmpegError, OSError) as error:
            self.read_error = reason_of(error)
        except ValueError as error:
            raise InputError(f"{path} cannot be read ({error})", remedy="Check the file.") from error
        self.pts = np.array(sorted(pts), dtype=np.int64)
        start = container.start_time / av.time_base if container.start_time else 0.0
        self.ends = ends
        self.read_seconds = max(0.0, ends - start)
        claimed = self.header_duration or 0.0
        self.claims_more = "matroska" in self.container and claimed - ends > max(0.5, 0.02 * claimed)
        """The header tells a longer time than packets do: what is cut off, or a last frame that stands for long."""


@dataclass(frozen=True, kw_only=True)
class FirstFrame:
    """What the first decoded frame says of itself."""

    width: int
    height: int
    pixel_format: str
    bit_depth: int
    is_rgb: bool
    is_grey: bool
    subsampled: bool
    """Several luma samples share a chroma sample."""
    full_range_format: bool
    matrix: int
    range: int
    primaries: int
    transfer: int
    display_matrix: bytes | None
    mastering: bytes | None
    light_level: bytes | None
    left_out: tuple[str, ...]
    """What comes with the frame and is not carried over, in words."""
    tags: FrameTags


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Times of the displayed frames, and what was seen while measuring them."""

    pts: npt.NDArray[np.int64]
    last_duration: int
    by: Literal["packets", "decoding"]
    retiming: Retiming | None
    """Times that are not the container's; None where they are."""
    first_frame: FirstFrame
    interlaced: bool
    damaged: int
    notes: tuple[str, ...]


def measure(path: str | Path, scan: Scan, *, tolerate_damage: bool) -> Measured:
    """Times of the displayed frames, by packets where they can be trusted, else by decoding all.

    Raises:
        InputError: truncated (unless tolerated), or no frame can be decoded.
    """
    notes = _check_whole(path, scan, tolerate_damage=tolerate_damage)
    retiming = choose_times(path, scan)
    if scan.log.parts:
        notes.append(
            f"the source's times start again {len(scan.log.parts)} time(s), as in recordings that were joined: "
            "each part follows the one before it"
        )
    elif retiming is not None and retiming.ordered and scan.streaming:
        silent = retiming.without_frames
        if silent:
            notes.append(f"{silent} packet(s) of the picture give no frame: they are damaged, or hold headers alone")
    head, facts, damaged, interlaced = _decode(path, scan, retiming, limit=HEAD_FRAMES)
    numbered = [pts if pts > SKIPPED else None for pts in scan.log.pts]
    if retiming is None and head != sorted(head) and np.all(np.diff([pts for pts in numbered if pts is not None]) > 0):
        # The muxer took the order of coding for that of display, as FFmpeg does with raw HEVC.
        retiming = in_order_of_display(path, scan, numbered)
        head, facts, damaged, interlaced = _decode(path, scan, retiming, limit=HEAD_FRAMES)
    if facts is None:
        why = "" if scan.has_size else " (it declares no picture size, or one that is too large)"
        raise InputError(f"no frame of {path} can be decoded{why}", remedy="Check that it plays in a video player.")
    times = scan.pts if retiming is None else retiming.shown()
    pts = np.unique(times[times >= head[0]])
    in_head = pts[pts <= head[-1]]
    missing = scan.missing_pts if retiming is None or not retiming.ordered else 0
    agree = not missing and np.array_equal(in_head, np.unique(head)) and len(pts) > 0
    repeated = len(np.unique(times)) != len(times)
    by_decoding = bool(
        missing or not len(pts) or ((not agree or repeated) and (scan.codec in HIDDEN_FRAMES or interlaced))
    )
    if by_decoding:
        head, facts, damaged, interlaced = _decode(path, scan, retiming, limit=None)
        assert facts is not None
        pts = np.unique(np.array(head, dtype=np.int64))
    elif scan.streaming:
        pts, dropped = _without_broken_tail(path, scan, retiming, pts)
        if dropped:
            notes.append(f"the last {dropped} frame(s) of the recording are cut off and left out")
    if not len(pts):
        raise InputError(
            f"the frames of {path} have no times that can be relied on", remedy="Remux or convert the file first."
        )
    return Measured(
        pts=pts,
        last_duration=scan.last_duration,
        by="decoding" if by_decoding else "packets",
        retiming=retiming,
        first_frame=facts,
        interlaced=interlaced,
        damaged=damaged,
        notes=tuple(notes),
    )


def _check_whole(path: str | Path, scan: Scan, *, tolerate_damage: bool) -> list[str]:
    claimed, read = scan.header_duration, scan.read_seconds
    if scan.beyond_file:
        problem = "its index points past the end of the file"
    elif scan.read_error:
        problem = f"reading stopped after {read:.2f} s: {scan.read_error}"
    elif scan.corrupt_packets and not scan.streaming:
        problem = f"{scan.corrupt_packets} packet(s) are cut off, the last readable one ends at {read:.2f} s"
    elif scan.claims_more and not is_whole(path):
        # Some muxers count from second 0, some from the first frame: the later end tells a whole file for sure.
        problem = f"its header says {claimed or 0:.2f} s, {read:.2f} s can be read"
    else:
        return []
    if not tolerate_damage:
        raise InputError(
            f"{path} is truncated or damaged: {problem}",
            remedy=say("Copy or download it again, or use what is there with {keep_going_on_decode_errors=True}."),
        )
    return [f"the source is truncated or damaged: {problem}"]


def _decode(
    path: str | Path, scan: Scan, retiming: Retiming | None, *, limit: int | None, start: int | None = None
) -> tuple[list[int], FirstFrame | None, int, bool]:
    """pts of good frames from the head, or from a keyframe before `start`, the first one's facts, how many were
    damaged, whether interlaced."""
    times: list[int] = []
    facts: FirstFrame | None = None
    damaged = interlaced = 0
    with open_source(path, look_ahead=scan.video_look_ahead) as container:
        stream = container.streams[scan.index]
        assert isinstance(stream, av.VideoStream)
        prepare_decoder(stream)
        if retiming is not None:
            begin = 0 if start is None else retiming.keyframe_before(start)
            packets = retimed_video(container, stream, retiming, begin=begin)
        else:
            if start is not None:
                try:
                    container.seek(max(start, int(scan.pts[0])), stream=stream)
                except (av.FFmpegError, OSError):
                    return [], None, 0, False
            packets = demuxed(container, stream)
        for frames in decoded(packets, stream):
            if frames is None:
                damaged += facts is not None
                continue
            for frame in frames:
                if frame_is_damaged(frame):
                    damaged += facts is not None
                elif frame.pts is not None:
                    if facts is None:
                        facts = _frame_facts(frame)
                    times.append(frame.pts)
                    interlaced += frame.interlaced_frame
            if limit is not None and len(times) >= limit:
                break
    return times, facts, damaged, 2 * interlaced > len(times)


def _without_broken_tail(
    path: str | Path, scan: Scan, retiming: Retiming | None, pts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int]:
    """Drop planned frames after the last one that decodes, at the end of a format made to be cut anywhere."""
    good: list[int] = []
    for back in TAIL_SECONDS:
        start = int(pts[-1]) - int(back / scan.time_base)
        good = sorted(_decode(path, scan, retiming, limit=None, start=start)[0])
        if good and good[0] < pts[-1]:
            break
    if not good:
        return pts, 0
    tail = pts > good[-1]
    gap = ~np.isin(pts, good) & (pts > good[0])
    # A hole just before the last good frame belongs to the cut as well: its references are gone.
    keep = ~(tail | gap)
    return pts[keep], int(np.count_nonzero(~keep))


def _frame_facts(frame: av.VideoFrame) -> FirstFrame:
    side = side_data_of(frame)
    return FirstFrame(
        width=frame.width,
        height=frame.height,
        pixel_format=frame.format.name,
        bit_depth=max(8, frame.format.components[0].bits),
        is_rgb=frame.format.is_rgb or frame.format.has_palette,
        is_grey=len(frame.format.components) < 3 and not frame.format.has_palette,
        subsampled=(frame.format.chroma_width(8), frame.format.chroma_height(8)) != (8, 8),
        full_range_format=frame.format.name.startswith("yuvj"),
        matrix=int(frame.colorspace),
        range=int(frame.color_range),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        display_matrix=side.get(Type.DISPLAYMATRIX),
        mastering=side.get(Type.MASTERING_DISPLAY_METADATA),
        light_level=side.get(Type.CONTENT_LIGHT_LEVEL),
        left_out=told_of(frame, side),
        tags=frame_tags(frame),
    )
