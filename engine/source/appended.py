"""Recordings that were laid end to end in one file: FFmpeg's demuxers read the first of them alone, without a word."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from keyscale.engine.source.boxes import all_boxes
from keyscale.engine.source.matroska import EBML_HEADER, recordings_of_matroska

__all__ = ["Window", "beginnings", "beginnings_of"]

HEADERS = [
    re.compile(header)
    for header in (
        rb"FLV\x01[\x00-\x0f]\x00\x00\x00\x09\x00\x00\x00\x00",
        rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
        rb"nut/multimedia container\x00",
        rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02[\x01-\x04]",
        rb"YUV4MPEG2 W\d",
        rb"DKIF\x00\x00\x20\x00",
    )
]
"""With what a file begins: header of FLV, GUID of ASF's Header Object, file id of NUT, key of MXF's header partition
pack (SMPTE ST 377-1), magic words of YUV4MPEG2 and IVF."""

LONGEST_HEADER = 32
PIECE = 4 << 20
"""Bytes that are searched at a time."""

PAGE_HEADER, BEGINS = 27, 0x02
"""Bytes of an Ogg page before its table of segments, and the flag of a stream's first page (RFC 3533, 6)."""


class Window:
    """A part of a file as a file by itself.

    Args:
        file: can be read and searched; several windows may share it, one after the other.
        name: of the whole.
        start: byte with which the part begins.
        stop: byte behind it; None for the file's end.
    """

    def __init__(self, file: Any, name: str, start: int, stop: int | None) -> None:
        self.name = name
        self._file, self._start, self._stop, self._place = file, start, stop, 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._stop is not None:
            size = min(size, self._stop - self._start - self._place)
        if size <= 0 or self._file.seek(self._start + self._place, os.SEEK_SET) < 0:
            return b""
        content: bytes = self._file.read(size)
        self._place += len(content)
        return content

    def seek(self, offset: int, whence: int, /) -> int:
        """As of a file object."""
        if whence == os.SEEK_CUR:
            offset += self._place
        elif whence == os.SEEK_END:
            offset += (self._file.seek(0, os.SEEK_END) if self._stop is None else self._stop) - self._start
        if offset < 0:
            raise ValueError("a place before the start")
        self._place = offset
        return offset

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place


def beginnings_of(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """`beginnings` of a local file.

    Raises:
        OSError: it cannot be read.
    """
    info = Path(path).stat()
    return _beginnings_of(os.fspath(path), info.st_size, info.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _beginnings_of(name: str, size: int, modified: int) -> tuple[int, ...]:  # noqa: ARG001 - the file as it was then
    # A job opens its source again and again.
    with Path(name).open("rb") as file:
        return beginnings(file, size)


def beginnings(file: BinaryIO, size: int) -> tuple[int, ...]:
    """At which bytes of a file recordings begin behind the first one; none where FFmpeg reads them by itself.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(LONGEST_HEADER)
    if head[4:8] == b"ftyp":
        found = list(_movies(file, size))
    elif head[:4] == EBML_HEADER:
        found = list(recordings_of_matroska(file, size))
    elif head[:4] == b"OggS":
        found = list(_links(file, size))
    else:
        header = next((each for each in HEADERS if each.match(head)), None)
        found = list(_found(file, header)) if header is not None else []
    return tuple(found[1:])


def _movies(file: BinaryIO, size: int) -> Iterator[int]:
    """Where a file type stands at the top with a movie before it; what begins there may have been cut off."""
    yield 0
    end, has_movie = 0, False
    for kind, _, stop in all_boxes(file, 0, size):
        if kind == b"ftyp" and has_movie:
            yield end
            has_movie = False
        has_movie = has_movie or kind == b"moov"
        end = stop


def _links(file: BinaryIO, size: int) -> Iterator[int]:
    """Where streams of Ogg begin behind pages of others (RFC 3533, 4: sequential multiplexing, or chaining)."""
    place, in_heads = 0, False
    while place + PAGE_HEADER <= size:
        file.seek(place)
        head = file.read(PAGE_HEADER + 255)
        if head[:4] != b"OggS" or len(head) < PAGE_HEADER:
            return
        heads = bool(head[5] & BEGINS)
        if heads and not in_heads:
            yield place
        in_heads = heads
        table = head[PAGE_HEADER : PAGE_HEADER + head[26]]
        place += PAGE_HEADER + len(table) + sum(table)


def _found(file: BinaryIO, header: re.Pattern[bytes]) -> Iterator[int]:
    file.seek(0)
    tail = b""
    place = 0
    while piece := file.read(PIECE):
        piece = tail + piece
        end = 0
        for match in header.finditer(piece):
            yield place - len(tail) + match.start()
            end = match.end()
        place += len(piece) - len(tail)
        tail = piece[max(end, len(piece) - LONGEST_HEADER) :]
