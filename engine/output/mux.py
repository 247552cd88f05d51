"""The finished file: chunks of video joined by stream copy, with the source's other tracks on the new timeline.

Every track is a generator of packets in decoding order; they are merged by time, so that the muxer never holds
more than a moment of the file.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import SEEK_SET
from pathlib import Path

import av
from av.error import FFmpegError

from keyscale.engine.camera.timemap import TimeMap
from keyscale.engine.errors import DecodeError, EncoderError, Interrupted
from keyscale.engine.files import storage_error
from keyscale.engine.output.concat import Joint, joined_video, scan_chunks
from keyscale.engine.output.metadata import mapped_chapters, needs_mdta, worth_keeping
from keyscale.engine.output.streams import AudioTrack, Build, add_track, add_video, main_video
from keyscale.engine.plan.tracks import Container, TrackPlan
from keyscale.engine.source.open import open_source
from keyscale.engine.source.timeline import Retiming
from keyscale.engine.wording import say

__all__ = ["Assembly", "AudioTrack", "Sink", "assemble"]

_FORMATS: dict[Container, str] = {"mp4": "mp4", "mov": "mov", "mkv": "matroska", "webm": "webm"}

_SCAN_SHARE = 0.15
"""Part of the progress that the first pass over the chunks takes."""

_NO_AUDIO = say("Repair the source, or run the same command with {audio=False}: finished chunks are kept.")
_STOP_EVERY = 64
"""Packets between two looks at `should_stop`."""


class Sink:
    """The output file as PyAV writes it: unbuffered, so that the muxer's second look at it finds everything.

    A file that is closed before its container makes PyAV skip the trailer, which for an abandoned result would move
    every byte once more to make room for the index.
    """

    def __init__(self, path: Path) -> None:
        # Where the muxer opens it again to make room for the index; without the prefix `a:b.mp4` is a protocol.
        self.name = f"file:{path}"
        self._file = path.open("wb", buffering=0)

    @property
    def closed(self) -> bool:
        """True after `settle` or `close`."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Write all of `data`, which one call of the system need not do."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        return len(data)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()

    def settle(self) -> None:
        """Have the file on the disk itself, and close it."""
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def close(self) -> None:
        """Give the file up as it is."""
        self._file.close()


@dataclass(frozen=True)
class Assembly:
    """What `assemble` wrote, for verification and the report."""

    video_frames: int
    audio: tuple[AudioTrack, ...]
    """In the order of the result's audio streams."""
    lost_audio: int
    """Packets of audio that could not be decoded and became silence."""
    notes: tuple[str, ...]
    """Things a person should know, as sentences."""


def assemble(
    *,
    chunks: Sequence[Path],
    output: Path,
    container: Container,
    rate: Fraction,
    source: str,
    video_index: int | None = None,
    origin: Fraction,
    time_map: TimeMap,
    tracks: tuple[TrackPlan, ...],
    retiming: Retiming | None = None,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    keep_going: bool = False,
    extra_metadata: dict[str, str] | None = None,
    look_ahead: int = 0,
) -> Assembly:
    """Write `output` from the chunks and the source's other tracks, and have it on disk on return.

    Args:
        chunks: video files in order, one video stream each, closed GOPs, constant rate, at least one.
        output: the file to write, replaced where it exists; its folder must exist.
        container: the format, whatever `output` is named.
        rate: frames a second of the chunks and of the result.
        source: the file that the other tracks, chapters and metadata come from.
        video_index: the source's stream that was upscaled, for its language, title and dispositions; None takes the
            first that is not cover art.
        origin: container time in seconds of the source's first displayed video frame: source time 0.
        time_map: trim and speed, in seconds of the source.
        tracks: what `plan_tracks` decided for `container`.
        retiming: the source's times where they are not the container's; `origin` is of these.
        on_progress: called with 0 to 1, never falling.
        should_stop: asked often; True ends the work.
        keep_going: audio that cannot be decoded becomes silence and is counted.
        extra_metadata: entries to add to the file's own, or to put in their place.
        look_ahead: with which the source has to be opened for all its streams to be found, see `open_source`.

    Raises:
        EncoderError: the chunks do not join, or an encoder refuses its settings.
        InputError: the source cannot be opened.
        DecodeError: audio of the source cannot be decoded, and `keep_going` is False.
        StorageError: the disk is full, or `output` may not be written.
        Interrupted: `should_stop` said so.

    Whatever is raised, an unfinished `output` is removed.
    """
    report = _rising(on_progress)
    halt = _halter(should_stop)

    def scanned(done: int) -> None:
        halt()
        report(_SCAN_SHARE * done / len(chunks))

    if not chunks:
        raise EncoderError("there are no chunks to join")
    joint = scan_chunks(chunks, rate, on_chunk=scanned)
    sink: Sink | None = None
    try:
        sink = Sink(output)
        result = _write(
            sink,
            chunks=chunks,
            joint=joint,
            kind=container,
            rate=rate,
            source=source,
            video_index=video_index,
            origin=origin,
            time_map=time_map,
            tracks=tracks,
            retiming=retiming,
            report=report,
            halt=halt,
            keep_going=keep_going,
            extra_metadata=extra_metadata or {},
            look_ahead=look_ahead,
        )
        sink.settle()
    except BaseException as error:
        if sink is not None:
            sink.close()
            with contextlib.suppress(OSError):
                output.unlink()
        if isinstance(error, OSError):
            raise storage_error(error, output) from error
        if isinstance(error, FFmpegError):
            raise EncoderError(f"{output.name} could not be put together: {error.strerror}") from error
        raise
    report(1.0)
    return result


def _write(
    sink: Sink,
    *,
    chunks: Sequence[Path],
    joint: Joint,
    kind: Container,
    rate: Fraction,
    source: str,
    video_index: int | None,
    origin: Fraction,
    time_map: TimeMap,
    tracks: tuple[TrackPlan, ...],
    retiming: Retiming | None,
    report: Callable[[float], None],
    halt: Callable[[], None],
    keep_going: bool,
    extra_metadata: dict[str, str],
    look_ahead: int,
) -> Assembly:
    with open_source(source, look_ahead=look_ahead) as head:
        options = {"max_interleave_delta": "500000"}
        metadata = worth_keeping(head.metadata) | extra_metadata
        if kind in ("mp4", "mov"):
            flags = "+use_metadata_tags" if needs_mdta(metadata) else ""
            options["movflags"] = "+faststart" + flags
            # The default, milliseconds, would round the edit lists that hold audio and picture together; this
            # one divides evenly by the frame times of all common rates.
            options["movie_timescale"] = "120000"
        out = av.open(sink, "w", format=_FORMATS[kind], container_options=options, buffer_size=1 << 18)
        out.metadata.update(metadata)
        recordings = retiming.recordings if retiming is not None else ()
        out.set_chapters(mapped_chapters(head, origin, time_map, recordings))
        build = Build(
            out,
            kind,
            source,
            origin,
            time_map,
            joint.frames / rate,
            keep_going,
            look_ahead=look_ahead,
            retiming=retiming,
        )
        video = add_video(build, chunks, rate, main_video(head, video_index))
        build.feeds.append(joined_video(chunks, joint, rate, video))
        for plan in tracks:
            if plan.action != "drop":
                add_track(build, plan, head.streams[plan.index])

    with _blamed_on_source(tracks):
        out.start_encoding()
    written = 0
    for number, (due, packet) in enumerate(heapq.merge(*build.feeds, key=lambda timed: timed[0])):
        if number % _STOP_EVERY == 0:
            halt()
            report(_SCAN_SHARE + (1 - _SCAN_SHARE) * 0.99 * written / joint.frames)
        index = packet.stream_index
        written += index == video.index
        try:
            out.mux_one(packet)
        except FFmpegError as error:
            if index == video.index:
                raise
            raise DecodeError(
                f"a track of the source ({out.streams[index].type}) is damaged at {due:.3f} s of the result: "
                f"{error.strerror}",
                remedy=_NO_AUDIO,
            ) from error
    halt()
    with _blamed_on_source(tracks):
        out.close()
    return Assembly(
        video_frames=joint.frames,
        audio=tuple(describe() for describe in build.audio),
        lost_audio=sum(each.lost for each in build.reports),
        notes=tuple(dict.fromkeys(build.notes)),
    )


@contextlib.contextmanager
def _blamed_on_source(tracks: tuple[TrackPlan, ...]) -> Iterator[None]:
    """What the muxer finds invalid in the headers that it writes comes with a copied track, if there is one."""
    try:
        yield
    except FFmpegError as error:
        copied = sorted({plan.kind for plan in tracks if plan.action == "copy"})
        if isinstance(error, OSError) or not copied:
            raise
        raise DecodeError(
            f"a track of the source ({' or '.join(copied)}) has a damaged header: {error.strerror}", remedy=_NO_AUDIO
        ) from error


def _rising(on_progress: Callable[[float], None] | None) -> Callable[[float], None]:
    highest = -1.0

    def report(value: float) -> None:
        nonlocal highest
        if on_progress is not None and value > highest:
            highest = value
            on_progress(min(1.0, value))

    return report


def _halter(should_stop: Callable[[], bool] | None) -> Callable[[], None]:
    def halt() -> None:
        if should_stop is not None and should_stop():
            raise Interrupted("stopped while the file was put together", remedy="Run the job again to go on.")

    return halt
