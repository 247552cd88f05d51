"""Recordings that were laid end to end in a format of which FFmpeg reads the first ones alone, without a word."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from keyscale.engine.source.boxes import all_boxes
from keyscale.engine.source.matroska import SEGMENTS_READ, segments_in

__all__ = ["recordings_in"]

HEADERS = {
    "flv": rb"FLV\x01[\x00-\x0f]\x00\x00\x00\x09\x00\x00\x00\x00",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "nut": rb"nut/multimedia container\x00",
    "mxf": rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02[\x01-\x04]",
    "yuv4mpegpipe": rb"YUV4MPEG2 W\d",
    "ivf": rb"DKIF\x00\x00\x20\x00",
}
"""With what a file of a format begins, by FFmpeg's name of its demuxer: header of FLV, GUID of ASF's Header Object,
file id of NUT, key of MXF's header partition pack (SMPTE ST 377-1), magic words of YUV4MPEG2 and IVF."""

LONGEST_HEADER = 32
PIECE = 4 << 20
"""Bytes that are searched at a time."""


def recordings_in(path: str | os.PathLike[str], container: str) -> tuple[int, int]:
    """How many recordings a file holds, one behind the other, and how many of them are read.

    Args:
        path: the file.
        container: FFmpeg's name of its demuxer.

    Raises:
        OSError: the file cannot be read.
    """
    if "matroska" in container:
        return segments_in(path), SEGMENTS_READ
    if "mov" in container:
        return _movies_in(path), 1
    header = HEADERS.get(container)
    return (_count(path, re.compile(header)) if header is not None else 1), 1


def _movies_in(path: str | os.PathLike[str]) -> int:
    """How often a file type stands at the top, with a movie behind it."""
    with Path(path).open("rb") as file:
        kinds = [kind for kind, _, _ in all_boxes(file, 0, os.fstat(file.fileno()).st_size)]
    starts = [place for place, kind in enumerate(kinds) if kind == b"ftyp"]
    return sum(b"moov" in kinds[place:end] for place, end in pairwise([*starts, len(kinds)]))


def _count(path: str | os.PathLike[str], header: re.Pattern[bytes]) -> int:
    count = 0
    tail = b""
    with Path(path).open("rb") as file:
        while piece := file.read(PIECE):
            piece = tail + piece
            ends = [found.end() for found in header.finditer(piece)]
            count += len(ends)
            tail = piece[max(ends[-1] if ends else 0, len(piece) - LONGEST_HEADER) :]
    return count
