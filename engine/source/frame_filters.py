"""What PyAV keeps to itself of a frame, read and written through FFmpeg's own filters.

A frame carries the place of its chroma samples and its sample aspect ratio, and PyAV shows neither. FFmpeg tells both
in its log (`showinfo`, `trace_headers`), which is read once a source. While frames are read, the aspect comes as the
size of a scaled picture, and the chroma location is written by `setparams`; both take some microseconds a frame.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import av.logging
from av.bitstream import BitStreamFilterContext
from av.filter import Graph

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["AspectMeter", "FrameTags", "frame_tags", "names_chroma_location", "with_chroma_location"]

CHROMA_LOCATIONS = ("unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom")
"""FFmpeg's names, in the order of `AVChromaLocation`."""

ASPECT_UNITS = 4096
"""Pixels that stand for a sample aspect ratio of 1 in a measured picture: it is told to one in 4096."""

_FRAME_LINE = re.compile(r"\bcl:(\w+) sar:(\d+)/(\d+)")
_SITING_LINE = re.compile(r"chroma_loc_info_present_flag\s+1 = 1")

_log_lock = threading.Lock()
_local = threading.local()


@dataclass(frozen=True, kw_only=True)
class FrameTags:
    """What a frame says of itself beside its colour."""

    chroma_location: int
    """`AVChromaLocation`; 0 where it says nothing."""
    sample_aspect: Fraction | None
    """Width of a pixel divided by its height; None where it says nothing."""


def frame_tags(frame: av.VideoFrame) -> FrameTags:
    """What a decoded frame says of itself; reads FFmpeg's log, so once a source and not once a frame."""
    with _logged() as lines:
        graph = _graph(frame, "showinfo", "checksum=0")
        graph.vpush(frame)
        graph.vpull()
    found = next((match for line in lines if (match := _FRAME_LINE.search(line[2]))), None)
    if found is None:
        return FrameTags(chroma_location=0, sample_aspect=None)
    name, across, down = found.groups()
    place = CHROMA_LOCATIONS.index(name) if name in CHROMA_LOCATIONS else 0
    aspect = Fraction(int(across), int(down)) if int(across) and int(down) else None
    return FrameTags(chroma_location=place, sample_aspect=aspect)


def names_chroma_location(stream: VideoStream, packet: Packet[Any]) -> bool:
    """Whether the headers of an H.264 or HEVC stream, or of its `packet`, say where its chroma lies.

    Its decoder says "left" for one that does not.

    Raises:
        av.FFmpegError: the headers are damaged.
    """
    with _logged() as lines:
        BitStreamFilterContext("trace_headers", stream).filter(packet)
    return any(_SITING_LINE.search(line[2]) for line in lines)


def with_chroma_location(frame: av.VideoFrame, location: int) -> av.VideoFrame:
    """The same picture, its memory shared, that says its chroma lies at `location` (`AVChromaLocation`)."""
    key = (location, frame.width, frame.height, frame.format.name)
    held: dict[Any, Graph] = _local.__dict__.setdefault("labels", {})
    if key not in held:
        held.clear()
        held[key] = _graph(frame, "setparams", f"chroma_location={CHROMA_LOCATIONS[location]}")
    held[key].vpush(frame)
    return held[key].vpull()


class AspectMeter:
    """The sample aspect ratio of one frame after another."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> float:
        """Width of a pixel divided by its height, to 1 in 4096; 1 where the frame says nothing."""
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is None or shape != self._shape:
            size = f"w=max(1\\,round(sar*{ASPECT_UNITS})):h=2"
            self._graph, self._shape = _graph(frame, "scale", f"{size}:eval=frame:flags=neighbor"), shape
        self._graph.vpush(frame)
        return self._graph.vpull().width / ASPECT_UNITS


def _graph(frame: av.VideoFrame, name: str, arguments: str) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add(name, arguments), graph.add("buffersink")).configure()
    return graph


@contextmanager
def _logged() -> Iterator[list[Any]]:
    """What FFmpeg logs in this thread, as (level, name, message); the level is one for the process, hence the lock."""
    with _log_lock:
        level, skipped = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.INFO)
        # Two sources that say the same would look like one message that is repeated.
        av.logging.set_skip_repeated(False)
        try:
            with av.logging.Capture() as lines:
                yield lines
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skipped)
