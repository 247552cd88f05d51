"""What the reader reads from: the source's own file, the same through another file object, or an excerpt of it.

Times are the source's own, in its own time base, whichever it is.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from keyscale.engine.errors import InputError
from keyscale.engine.source.open import demuxed, open_source, open_stream
from keyscale.engine.source.probe import VideoInfo
from keyscale.engine.source.timeline import JOINT, retimed_video
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["Media", "OpenMedia", "excerpt_media", "local_media", "stream_media"]


class Media:
    """A source that is open."""

    def __init__(
        self,
        container: InputContainer,
        info: VideoInfo,
        *,
        index: int,
        begins: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """See `local_media`, `stream_media` and `excerpt_media`.

        Args:
            container: what is open.
            info: what the source is.
            index: of the stream that is the video.
            begins: pts of the keyframe that an excerpt begins with; None for a whole source.
            check: raises what reading has met, since FFmpeg takes any failure of a file object for its end.

        Raises:
            InputError: there is no such stream, or its times are no multiples of the source's.
        """
        streams = container.streams
        stream = streams[index] if index < len(streams) else None
        if not isinstance(stream, av.VideoStream):
            raise InputError(f"{info.path} has changed", remedy="Leave the source alone during a job.")
        ratio = info.time_base / (stream.time_base or info.time_base)
        if ratio.denominator != 1:
            raise InputError(f"an excerpt of {info.path} has times of its own", remedy="Run the command again.")
        self.stream: VideoStream = stream
        self.begins = begins
        self._container = container
        self._info = info
        self._ratio = int(ratio)
        self._check = check
        # An excerpt has the times that it was given; a whole source is read from its start where they are not its own.
        self._retiming = info.retiming if begins is None else None
        self._first = 0

    def seek(self, pts: int) -> None:
        """Go from the start to the last keyframe at or before `pts`, or near that: some formats only guess.

        Raises:
            InputError: it cannot be searched.
        """
        if self.begins is not None and not len(self.stream.index_entries):
            return  # an excerpt of one keyframe has no index: that keyframe is where it stands
        if self._retiming is not None:
            self._first = self._retiming.keyframe_before(pts)
            return
        try:
            self._container.seek(pts * self._ratio, stream=self.stream, backward=True)
        except (av.FFmpegError, OSError) as error:
            self._check()
            raise InputError(
                f"{self._info.path} cannot be searched ({error})", remedy=say("Remux the file, or leave {start} out.")
            ) from error
        self._check()

    def packets(self) -> Iterator[Any]:
        """The video's packets from here on, and an empty one at the end; `JOINT` where the decoder has to begin anew.

        Raises:
            av.FFmpegError: damage.
            OSError: a local file cannot be read on.
            KeyscaleError: whatever the file object met.
        """
        if self._retiming is None:
            packets = demuxed(self._container, self.stream)
        else:
            packets = retimed_video(self._container, self.stream, self._retiming, begin=self._first)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError):
                self._check()
                raise
            # Before the packet is used: a file that broke off in its middle looks like one that ends there.
            self._check()
            if packet is None:
                return
            if self._ratio != 1 and packet is not JOINT:
                self._rebase(packet)
            yield packet

    def _rebase(self, packet: Any) -> None:
        base: Fraction = self._info.time_base
        for name in ("pts", "dts", "duration"):
            value = getattr(packet, name)
            if value is not None:
                setattr(packet, name, value // self._ratio)
        packet.time_base = base


OpenMedia = Callable[[], AbstractContextManager[Media]]
"""Opens the source anew, at its start; the reader does so for each part that it seeks to."""


@contextmanager
def local_media(info: VideoInfo) -> Iterator[Media]:
    """The source's own file.

    Raises:
        InputError: it can no longer be read.
    """
    with open_source(info.path, look_ahead=info.video_look_ahead) as container:
        yield Media(container, info, index=info.video_index)


@contextmanager
def stream_media(file: Any, info: VideoInfo) -> Iterator[Media]:
    """The whole source through a binary file object that can seek; that stays open, to be used again.

    An error of the file's `read` or `seek` is raised as it is, here and by what `Media` does.

    Raises:
        InputError: it is not the source that `info` tells of.
    """
    guarded = _Guarded(file, info.path)
    demuxer = info.container.partition(",")[0]
    with _checked(guarded, demuxer, info.video_look_ahead, info.beginnings) as container:
        yield Media(container, info, index=info.video_index, check=guarded.check)


@contextmanager
def excerpt_media(file: Any, info: VideoInfo, *, begins: int) -> Iterator[Media]:
    """An excerpt through a binary file object, as `stream_media`.

    Args:
        file: what reads the excerpt.
        info: what the source is.
        begins: as `Excerpt.begins`.

    Raises:
        InputError: it is not an excerpt of that source.
    """
    guarded = _Guarded(file, f"an excerpt of {info.path}")
    with _checked(guarded, None, 0) as container:
        yield Media(container, info, index=0, begins=begins, check=guarded.check)


@contextmanager
def _checked(
    guarded: _Guarded, demuxer: str | None, look_ahead: int, beginnings: tuple[int, ...] = ()
) -> Iterator[InputContainer]:
    try:
        with open_stream(guarded, demuxer=demuxer, look_ahead=look_ahead, beginnings=beginnings) as container:
            guarded.check()
            yield container
    except InputError:
        guarded.check()
        raise


class _Guarded:
    """A file object as PyAV uses it: what goes wrong is kept for `check`, and looks like the file's end.

    PyAV would hand an exception on at some later call in the same thread, if at all, and print it otherwise.
    """

    def __init__(self, file: Any, name: str) -> None:
        self.name = name
        self._file = file
        self._error: Exception | None = None

    def read(self, size: int, /) -> bytes:
        if self._error is not None:
            return b""
        try:
            content: bytes = self._file.read(size)
        except Exception as error:  # whatever it is, it is raised by `check`
            self._error = error
            return b""
        return content

    def seek(self, offset: int, whence: int, /) -> int:
        if self._error is not None:
            return -errno.EIO
        try:
            position: int = self._file.seek(offset, whence)
        except ValueError:
            return -errno.EINVAL  # a place before the start, which damaged files point to
        except Exception as error:  # as in `read`
            self._error = error
            return -errno.EIO
        return position

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def check(self) -> None:
        if self._error is not None:
            raise self._error
