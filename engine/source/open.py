"""A media file opened with PyAV, and what is asked of one that is open."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.codec.context import Flags

from keyscale.engine.errors import InputError
from keyscale.engine.files import VIDEO_SUFFIXES, advice_on
from keyscale.engine.source.appended import Window, beginnings_of
from keyscale.engine.source.continued import continued, refuse
from keyscale.engine.source.side_data import Type, side_data_of
from keyscale.engine.source.webp import HEAD_BYTES, as_film, film_of, is_animated

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.container.core import Chapter
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = [
    "chapters_of",
    "check_orientations",
    "demuxed",
    "drained",
    "frame_is_damaged",
    "open_source",
    "open_stream",
    "prepare_decoder",
    "reason_of",
    "video_stream",
]

NOT_VIDEO = frozenset({"hls", "dash", "concat", "tty", "ffmetadata", "srt", "ass", "webvtt", "lrc", "sdp", "rtsp"})
"""Demuxers of playlists and texts: such a file may name other files, or is no video at all."""
SEQUENCES = frozenset({"avis", "msf1", "hevs"})
"""Brands of image sequences (AV1 Image File Format 6.3; ISO 23008-12, 10.3)."""

_following: dict[InputContainer, Sequence[Callable[[], AbstractContextManager[InputContainer]]]] = {}
"""What opens the recordings that lie behind the one that is open, in the same file. PyAV's containers take no
attributes of ours; an entry is there as long as its container is open."""


@contextmanager
def open_source(path: str | Path, *, look_ahead: int = 0) -> Iterator[InputContainer]:
    """Open a local media file for reading; it is closed at the end.

    Args:
        path: the file.
        look_ahead: bytes in which all streams begin; 0 is FFmpeg's own guess, which misses late ones of formats that
            do not list their streams.

    Raises:
        InputError: missing, not a file, no rights, empty, or no media format is recognised.
    """
    name = os.fspath(path)
    try:
        info = Path(name).stat()
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}", remedy=advice_on(name, VIDEO_SUFFIXES)) from error
    except ValueError as error:
        raise InputError(f"cannot read {name!r}: {error}", remedy="Check the path of the video.") from error
    if stat.S_ISDIR(info.st_mode):
        raise InputError(f"{name} is a directory, not a video", remedy="Give one video file.")
    if not stat.S_ISREG(info.st_mode):
        raise InputError(f"{name} is not a regular file", remedy="Save the video to a file first.")
    if info.st_size == 0:
        raise InputError(f"{name} is empty (0 bytes)", remedy="Copy or record the video again.")
    # The prefix keeps names such as "take:2.mp4" from being read as a protocol.
    target: Any = f"file:{name}"
    if _begins_as_animation(name):
        target = io.BytesIO(film_of(name, info.st_size, info.st_mtime_ns))
    elif starts := _beginnings(name):
        with Path(name).open("rb") as file, _in_turn(file, name, starts, None, look_ahead) as container:
            yield container
        return
    with _opened(target, name, "file", None, look_ahead) as container:
        yield container


def _beginnings(name: str) -> tuple[int, ...]:
    with suppress(OSError):  # what is wrong with it is said where it is opened
        return beginnings_of(name)
    return ()


def _begins_as_animation(name: str) -> bool:
    try:
        with Path(name).open("rb") as file:
            return is_animated(file.read(HEAD_BYTES))
    except OSError:
        return False  # what is wrong with it is said where it is opened


@contextmanager
def open_stream(
    file: Any, *, demuxer: str | None = None, look_ahead: int = 0, beginnings: tuple[int, ...] = ()
) -> Iterator[InputContainer]:
    """Open media that an object reads, with the checks of `open_source`; the object itself stays open.

    Args:
        file: has `read`, `seek`, `tell`, and a `name`, since FFmpeg goes by its extension too.
        demuxer: FFmpeg's name of the format; None has it found out.
        look_ahead: as of `open_source`.
        beginnings: bytes at which further recordings begin (`appended.beginnings`).

    Raises:
        InputError: it is not a video of that format.
    """
    file.seek(0, os.SEEK_SET)
    if is_animated(file.read(HEAD_BYTES)):
        file.seek(0, os.SEEK_SET)
        film: Any = io.BytesIO(as_film(file, file.name))
        film.name = file.name
        file = film
    file.seek(0, os.SEEK_SET)
    # Nothing else is opened from here, whatever the file refers to: no protocol has that name.
    if beginnings:
        with _in_turn(file, file.name, beginnings, demuxer, look_ahead) as container:
            yield container
        return
    with _opened(file, file.name, "none", demuxer, look_ahead) as container:
        yield container


def check_orientations(path: str | Path) -> None:
    """See that all recordings in a file are turned alike: the first one's decoder gives all frames its orientation.

    Raises:
        InputError: they are not.
    """
    name, turns = os.fspath(path), dict[int, bytes | None]()
    beginnings = beginnings_of(name)
    if not beginnings:
        return
    with Path(name).open("rb") as file:
        for number, window in enumerate(_windows(file, name, beginnings), 1):
            with (
                suppress(av.FFmpegError, StopIteration, InputError),  # what cannot be read is told where it is missed
                _opened(window, name, "none", None, 0) as container,
            ):
                first = next(container.decode(video_stream(container, name)))
                turns[number] = side_data_of(first).get(Type.DISPLAYMATRIX)
            if 1 in turns and turns.get(number, turns[1]) != turns[1]:
                refuse(number, "another orientation than the first")


def _windows(file: Any, name: str, beginnings: tuple[int, ...]) -> list[Window]:
    """The recordings of a file, each as a file by itself."""
    starts = (0, *beginnings)
    return [Window(file, name, start, stop) for start, stop in zip(starts, (*beginnings, None), strict=True)]


@contextmanager
def _in_turn(
    file: Any, name: str, beginnings: tuple[int, ...], demuxer: str | None, look_ahead: int
) -> Iterator[InputContainer]:
    """The first of several recordings; `demuxed` goes on with the others."""
    first, *others = (
        partial(_opened, window, name, "none", demuxer, look_ahead) for window in _windows(file, name, beginnings)
    )
    with first() as container:
        _following[container] = others
        try:
            yield container
        finally:
            del _following[container]


@contextmanager
def _opened(target: Any, name: str, protocols: str, demuxer: str | None, look_ahead: int) -> Iterator[InputContainer]:
    options = {"protocol_whitelist": protocols}
    if look_ahead:
        options |= {"probesize": str(look_ahead), "analyzeduration": str(10**12)}
    try:
        container = av.open(target, format=demuxer, options=options, metadata_errors="replace")
    except (PermissionError, FileNotFoundError) as error:
        raise InputError(f"cannot read {name}: {error.strerror}", remedy="Check the rights.") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{name} is not a video that can be read ({reason_of(error)})",
            remedy="Check that the file is complete and plays in a video player.",
        ) from error
    with container:
        if NOT_VIDEO & set(container.format.name.split(",")):
            raise InputError(
                f"{name} is a {container.format.name} text or playlist, not a video",
                remedy="Give the video file itself.",
            )
        try:
            yield container
        finally:
            _let_decoders_rest(container)


def _let_decoders_rest(container: InputContainer) -> None:
    """Wait for the decoders' threads, without Python's lock.

    PyAV holds that while it frees a decoder, which waits for its threads; these want it for a line of FFmpeg's log
    where another thread of the process listens to that (`frame_filters`). Each would wait for the other for ever.
    """
    for stream in container.streams:
        context = stream.codec_context
        if context is not None and context.is_open:
            context.flush_buffers()


def demuxed(
    container: InputContainer,
    *streams: Stream,
    on_unknown: Callable[[], None] = lambda: None,
    on_recording: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """The packets of `streams`; of one that appears in mid-file, which PyAV does not know, none.

    Of a file that holds several recordings those of all, as of the streams of the first. At the end comes an empty
    one for each stream.

    Args:
        container: is open, and was opened here.
        streams: of it; none are all.
        on_unknown: is called for each packet of a stream that is not known.
        on_recording: is called before the first packet of each recording but the first. Without it the packets end
            before one that cannot be opened: who has scanned the file knows.

    Raises:
        InputError: a later recording has streams that cannot follow those of the first.
        av.FFmpegError: damage, or a later recording cannot be opened.
    """
    ends = []
    for packet in _demuxed(container, streams, on_unknown):
        if packet.size or packet.pts is not None:
            yield packet
        else:
            ends.append(packet)
    for number, opened in enumerate(_following.get(container, ()), 2):
        if on_recording is not None:
            on_recording()
        with ExitStack() as stack:
            try:
                following = stack.enter_context(opened())
            except InputError as error:
                if on_recording is None:
                    break
                raise av.FFmpegError(errno.EIO, f"recording {number} of those in it: {error}") from error
            yield from continued(container, streams, following, _demuxed(following, (), on_unknown), number)
    yield from ends


def _demuxed(container: InputContainer, streams: Sequence[Stream], on_unknown: Callable[[], None]) -> Iterator[Any]:
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            on_unknown()
            continue  # its packet is used up; the next round leaves the stream out


def chapters_of(container: InputContainer) -> Iterator[tuple[int, Chapter]]:
    """All chapters with the number of their recording, from 0; those of one that cannot be opened are left out."""
    yield from ((0, chapter) for chapter in container.chapters())
    for number, opened in enumerate(_following.get(container, ()), 1):
        with suppress(InputError), opened() as following:
            yield from ((number, chapter) for chapter in following.chapters())


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """The stream that is the video: the default one, else the first; never cover art.

    Raises:
        InputError: there is none, or its codec is not known here.
    """
    pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & pictures]
    usable = [s for s in videos if s.codec_context is not None and s.codec_context.name != "ansi"]
    if not usable:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        why = "its video codec is not known here" if videos else f"it holds {kinds}"
        raise InputError(f"{path} has no video stream ({why})", remedy="Give a file with a picture track.")
    if container.metadata.get("major_brand") in SEQUENCES:
        # An animated AVIF begins with a still of itself for programs that show no animations.
        usable = [s for s in usable if s.duration] or usable
    default = [s for s in usable if s.disposition & av.stream.Disposition.default]
    return (default or usable)[0]


def prepare_decoder(stream: VideoStream) -> None:
    """Set the decoder of a stream up before its first packet: all cores, and pictures cropped to the pixel.

    Without the flag the decoder keeps columns on the left, so that rows begin at addresses that suit the CPU, and gives
    wider pictures than it declares.
    """
    stream.thread_type = "AUTO"
    stream.codec_context.flags |= Flags.unaligned


def drained(stream: VideoStream) -> list[av.VideoFrame]:
    """The frames that the decoder of a stream still holds; after that it begins anew.

    Raises:
        av.FFmpegError: damage.
    """
    try:
        return stream.codec_context.decode(None)
    except av.EOFError:
        return []
    finally:
        stream.codec_context.flush_buffers()


def frame_is_damaged(frame: av.VideoFrame) -> bool:
    """True where the decoder concealed errors in this frame or says that it is not whole."""
    return bool(frame.is_corrupt)


def reason_of(error: BaseException) -> str:
    """What FFmpeg or the system says of an error, in a few words."""
    return str(getattr(error, "strerror", None) or error)
