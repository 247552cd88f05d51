"""Whether a result is still as long as it was made: by its packets and by its container, without decoding anything."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from av.error import FFmpegError
from av.stream import Disposition

from keyscale.engine.errors import KeyscaleError
from keyscale.engine.source.open import demuxed, open_source

__all__ = ["is_whole"]

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"

_TO_THE_END = 0
"""Of an MP4 box: it ends where the file does."""


def is_whole(path: Path, frames: int) -> bool:
    """Whether a result has all its packets: one that was cut off has not, within whichever track it was.

    Args:
        path: an MP4, QuickTime, Matroska or WebM file that keyscale made.
        frames: packets that its video has to have.
    """
    try:
        # Players and demuxers take what is there: sound that ends early is no error to them.
        if not _ends_within(path):
            return False
        with open_source(path) as container:
            video = next(
                stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
            )
            found = 0
            for packet in demuxed(container):
                if packet.is_corrupt:
                    return False
                found += packet.size > 0 and packet.stream_index == video.index
            return found == frames
    except (KeyscaleError, FFmpegError, StopIteration, OSError):
        return False


def _ends_within(path: Path) -> bool:
    """Whether the outermost boxes or elements of a file end where it ends, or before."""
    length = path.stat().st_size
    with path.open("rb") as file:
        step = _after_element if file.read(4) == _EBML else _after_box
        place = 0
        while place < length:
            file.seek(place)
            after = step(file, place)
            if after is None:
                return True
            if not place < after <= length:
                return False
            place = after
    return True


def _after_box(file: BinaryIO, place: int) -> int | None:
    """Where the MP4 box that begins at `place` ends; None is the end of the file, `place` an unreadable header."""
    head = file.read(16)
    size = int.from_bytes(head[:4], "big")
    if size == 1:
        size = int.from_bytes(head[8:16], "big")
    elif size == _TO_THE_END and len(head) >= 8:
        return None
    return place + size if size >= 8 else place


def _after_element(file: BinaryIO, place: int) -> int | None:
    """As `_after_box`, of a Matroska file's EBML header and segment."""
    head = file.read(12)
    if head[:4] not in {_EBML, _SEGMENT} or len(head) < 5 or not head[4]:
        return place
    width = 9 - head[4].bit_length()
    size = int.from_bytes(head[4 : 4 + width], "big") - (1 << 7 * width)
    if size == (1 << 7 * width) - 1:
        return None  # of unknown length
    return place + 4 + width + size
