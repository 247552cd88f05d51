"""Decoded, upright RGB frames of a source, asked for by pts in ascending order.

One decoder lives through the whole job: it seeks only where the next wanted frame is far ahead, and is drained at
the end. A wanted frame that the decoder does not give, or gives damaged, is an error that names its time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

from keyscale.engine.errors import DecodeError, EnvironmentFault
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.source.media import Media, OpenMedia, local_media
from keyscale.engine.source.open import drained, frame_is_damaged, prepare_decoder
from keyscale.engine.source.planes import Planes, SourcePicture
from keyscale.engine.source.probe import Orientation, VideoInfo
from keyscale.engine.source.shown import Shown, matrix_of, orientation_of
from keyscale.engine.source.steady import READ_AROUND, Moment, Steady, steadied
from keyscale.engine.source.timeline import JOINT
from keyscale.engine.source.tone import ToneMapping
from keyscale.engine.wording import say

__all__ = ["Lost", "SourceFrame", "read_frames"]

SEEK_SECONDS = 3.0
"""A gap longer than this is worth a seek; decoding on is exact and mostly faster below it."""

BACK_OFF_SECONDS = (0.0, 2.0, 10.0, 60.0)
"""How far before the wanted frame a seek aims, one try after another, until decoding starts early enough."""

DEINTERLACE_LEAD = 3
"""Frames decoded before the wanted one so that the deinterlacer has its neighbours, as in one long run."""

FRAMES_AFTER = 2
"""Frames that the deinterlacer still gets after the last flagged one, which needs the next."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One displayed frame."""

    pts: int
    picture: SourcePicture
    """As `pixels`, or as planes where these were asked for."""

    @property
    def pixels(self) -> PixelArray:
        """RGB `(H, W, 3)` on the oriented lattice: uint8, or uint16 in 0..65535 for deep jobs."""
        assert not isinstance(self.picture, Planes), "planes were asked for"
        return self.picture


@dataclass(frozen=True)
class Lost:
    """A wanted frame that cannot be decoded; given only where damage is tolerated."""

    pts: int


def read_frames(
    info: VideoInfo,
    wanted: list[int],
    *,
    deep: bool,
    keep_going: bool,
    should_stop: Callable[[], bool],
    open_media: OpenMedia | None = None,
    tone: ToneMapping | None = None,
    planes: bool = False,
    steady: Steady | None = None,
) -> Iterator[SourceFrame | Lost]:
    """The frames with the pts in `wanted` (ascending, unique, from `info.pts`), each exactly once and in order.

    They are read from the file that `info` names, or from what `open_media` opens. With `tone` HDR becomes SDR.
    With `planes` those come as planes of which `PlanesOf` says so. With `steady` neighbours are read as well; one that
    cannot be decoded is done without.

    Raises:
        DecodeError: a wanted frame is missing or damaged, unless `keep_going` makes it a `Lost`; or HDR is kept of a
            source that is not HDR throughout.
        EnvironmentFault: the decoder cannot start its threads.
        InputError: the file can no longer be read.
        KeyscaleError: whatever the file object behind `open_media` meets.
    """
    if not wanted:
        return
    shown = Shown(info, tone, deep=deep, planes=planes)
    media = open_media or (lambda: local_media(info))
    moments = _moments(info, wanted, steady, media, keep_going=keep_going, should_stop=should_stop)
    if steady is not None:
        numbers = set(info.pts.searchsorted(wanted).tolist())
        moments = steadied(moments, numbers, steady, should_stop)
    for each in moments:
        if each.picture is None:
            yield Lost(each.pts)
        else:
            yield SourceFrame(each.pts, shown(each.picture, each.orientation))


def _moments(
    info: VideoInfo,
    wanted: list[int],
    steady: Steady | None,
    open_media: OpenMedia,
    *,
    keep_going: bool,
    should_stop: Callable[[], bool],
) -> Iterator[Moment]:
    """The wanted frames as they were decoded, and those around them where they are to be made steady."""
    numbers = info.pts.searchsorted(wanted)
    first = wanted[0]
    if steady is not None:
        around = numbers[:, None] + np.arange(-READ_AROUND, READ_AROUND + 1)
        numbers = np.unique(around.clip(0, len(info.pts) - 1))
    asked = info.pts[numbers].tolist()
    decoder = _Decoder(info, open_media, wanted, keep_going=keep_going)
    expected = zip(numbers.tolist(), asked, strict=True)
    number, want = next(expected)
    for frame in decoder.frames(asked, should_stop):
        while want is not None and want < frame.pts:
            decoder.lose(want)
            yield Moment(number, want, None, info.orientation)
            number, want = next(expected, (number, None))
        if want is None:
            return
        if frame_is_damaged(frame.picture) and frame.pts >= first:
            # Damage to a frame that is not shown spreads to those that are predicted from it.
            decoder.lose(frame.pts, broken=True)
            if frame.pts != want:
                continue
            yield Moment(number, want, None, info.orientation)
        elif frame.pts < want:
            continue
        else:
            picture = None if frame_is_damaged(frame.picture) else frame.picture
            yield Moment(number, want, picture, orientation_of(frame.picture, info, oriented=decoder.oriented))
        number, want = next(expected, (number, None))
        if want is None:
            return
    while want is not None and not should_stop():
        decoder.lose(want)
        yield Moment(number, want, None, info.orientation)
        number, want = next(expected, (number, None))


@dataclass(frozen=True, eq=False)
class _Decoded:
    pts: int
    picture: av.VideoFrame


class _Decoder:
    def __init__(self, info: VideoInfo, open_media: OpenMedia, shown: Sequence[int], *, keep_going: bool) -> None:
        self.info = info
        self.open_media = open_media
        self.keep_going = keep_going
        self.shown = frozenset(shown)
        """pts of frames that may not be missing: others are asked for to make these steady."""
        self.gap = round(SEEK_SECONDS / info.time_base)
        self.between = [(run[0], run[-1]) for run in _runs(shown, self.gap)]
        """First and last pts of what is decoded without a seek for the frames that are shown."""
        self.reason = "the decoder gives no such frame"
        self.oriented = False
        """A frame that was decoded since the last seek told its orientation."""

    def seconds(self, pts: int) -> float:
        return float((pts - int(self.info.pts[0])) * self.info.time_base)

    def lose(self, pts: int, *, broken: bool = False) -> None:
        """Raise a `DecodeError` unless the loss is tolerated.

        Args:
            pts: of the frame.
            broken: it is there, but damaged, which spreads to frames that are predicted from it.
        """
        spreads = broken and any(first <= pts <= last for first, last in self.between)
        if self.keep_going or not (spreads or pts in self.shown):
            return
        raise DecodeError(
            f"{self.info.path}: the frame at {self.seconds(pts):.3f} s cannot be decoded ({self.reason})",
            remedy=say(
                "Repair or download the file again, trim the part away with {start} or {end}, or accept the loss with "
                "{keep_going_on_decode_errors=True}."
            ),
        )

    def frames(self, wanted: list[int], should_stop: Callable[[], bool]) -> Iterator[_Decoded]:
        """Decoded frames in ascending order, everything between the wanted ones as well where that is near."""
        for run in _runs(wanted, self.gap):
            for back_off in (*BACK_OFF_SECONDS, None):
                if should_stop() or (yield from self._run(run, back_off, should_stop)):
                    break

    def _run(
        self, run: Sequence[int], back_off: float | None, should_stop: Callable[[], bool]
    ) -> Generator[_Decoded, None, bool]:
        """Decode one run after a seek (None: from the file's start); False where the seek landed too late."""
        lead, last = self._lead(run[0]), run[-1]
        self.oriented = False
        with self.open_media() as media:
            prepare_decoder(media.stream)
            begun = not self._seek(media, lead, back_off)
            pictures = self._pictures(media, run[0], last, should_stop, begun=begun)
            if not begun:
                # Frames shown before the keyframe that the seek found lack their references.
                pictures = itertools.dropwhile(lambda picture: not picture.key_frame, pictures)
                first = next(pictures, None)
                if first is None or int(first.pts or 0) > lead:
                    return False
                if self.info.orientation != Orientation() and media.begins is None and not matrix_of(first):
                    return False  # turned by a message before this keyframe, or turned back: the start tells
                pictures = itertools.chain([first], pictures)
            seen = None
            for frame in _deinterlaced(self._watched(pictures), self.info):
                if seen is None or frame.pts > seen:
                    seen = frame.pts
                    yield frame
                if frame.pts >= last:
                    break
            return True

    def _watched(self, pictures: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for picture in pictures:
            self.oriented = self.oriented or matrix_of(picture) is not None
            yield picture

    def _lead(self, first: int) -> int:
        """The earliest pts that must be decoded so that `first` comes out as in one long run."""
        if not self.info.may_be_interlaced:
            return first
        index = int(self.info.pts.searchsorted(first))
        return int(self.info.pts[max(0, index - DEINTERLACE_LEAD)])

    def _seek(self, media: Media, pts: int, back_off: float | None) -> bool:
        """Seek to `back_off` seconds before `pts`; False where that is the file's start, and nothing is done."""
        if back_off is None:
            return False
        target = pts - round(Fraction(back_off) / self.info.time_base)
        if target <= (int(self.info.pts[0]) if media.begins is None else media.begins):
            return False
        media.seek(target)
        return True

    def _pictures(
        self, media: Media, first: int, last: int, should_stop: Callable[[], bool], *, begun: bool
    ) -> Iterator[av.VideoFrame]:
        """All that the decoder gives; a packet of `[first, last]` that it refuses is a loss.

        Not so after a seek until a keyframe came out, unless decoding has `begun` at the file's start: a packet may
        need headers from the keyframe before it, and threads tell of that some packets later.
        """
        packets = media.packets()
        while not should_stop():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                # The decoder still holds frames; whether one is missed shows when it is asked for.
                self.reason = f"reading failed: {error}"
                packet = None
            try:
                if packet is JOINT:
                    frames = drained(media.stream)
                else:
                    frames = packet.decode() if packet is not None else media.stream.decode(None)
            except av.EOFError:
                return
            except av.BlockingIOError as error:
                # What a decoder itself means by it, PyAV deals with.
                raise EnvironmentFault(
                    f"the decoder of {self.info.path} cannot start its threads: {error.strerror}",
                    remedy="See whether memory (ulimit -v) or the number of threads (ulimit -u) is limited.",
                ) from error
            except av.FFmpegError as error:
                self.reason = str(error.strerror or error)
                pts = None if packet is None or packet is JOINT else packet.pts
                if begun and pts is not None and first <= pts <= last:
                    self.lose(pts, broken=True)
                frames = []
            begun = begun or any(frame.key_frame for frame in frames)
            yield from (frame for frame in frames if frame.pts is not None)
            if packet is None or (packet is not JOINT and packet.size == 0 and packet.pts is None):
                return


def _runs(wanted: Sequence[int], gap: int) -> Iterator[Sequence[int]]:
    start = 0
    for i in range(1, len(wanted)):
        if wanted[i] - wanted[i - 1] > gap:
            yield wanted[start:i]
            start = i
    yield wanted[start:]


def _deinterlaced(pictures: Iterator[av.VideoFrame], info: VideoInfo) -> Iterator[_Decoded]:
    """Each frame that is flagged as interlaced through bwdif, by its own field order; all others unchanged.

    bwdif needs the frame before and the one after. It is therefore begun with the last frame that passed, which comes
    out once more, and is given two more once the flagged ones are over.
    """
    graph: Graph | None = None
    shape: tuple[int, int, str] | None = None
    before: av.VideoFrame | None = None
    calm = 0
    for picture in pictures:
        now = (picture.width, picture.height, picture.format.name)
        if graph is not None and (now != shape or calm >= FRAMES_AFTER):
            graph.vpush(None)
            yield from _pulled(graph, info)
            graph = None
        if graph is None and picture.interlaced_frame:
            graph, shape = _bwdif(picture, info), now
            if before is not None and (before.width, before.height, before.format.name) == shape:
                graph.vpush(before)
        before = picture
        if graph is None:
            yield _Decoded(int(picture.pts or 0), picture)
            continue
        calm = 0 if picture.interlaced_frame else calm + 1
        graph.vpush(picture)
        yield from _pulled(graph, info)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph, info)


def _bwdif(picture: av.VideoFrame, info: VideoInfo) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=info.time_base
    )
    bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: Graph, info: VideoInfo) -> Iterator[_Decoded]:
    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        time_base = frame.time_base or info.time_base
        yield _Decoded(round((frame.pts or 0) * time_base / info.time_base), frame)
