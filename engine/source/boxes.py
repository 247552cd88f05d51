"""The boxes of MP4 and QuickTime files, as far as FFmpeg does not hand on what is in them (ISO 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["VISUAL_ENTRY", "all_boxes", "boxes", "sample_entries"]

VISUAL_ENTRY = 78
"""Bytes of a `VisualSampleEntry` before the boxes that it holds."""


def all_boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, and where its content begins and ends, of each box from `start` to `end`, as far as they are whole."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        header = 8
        if size == 1 and len(head) == 16:
            size, header = struct.unpack_from(">Q", head, 8)[0], 16
        elif size == 0:
            size = end - start
        if size < header or start + size > end:
            return
        yield kind, start + header, start + size
        start += size


def boxes(file: BinaryIO, start: int, end: int, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Where the content of each box of that type begins and ends."""
    yield from ((first, last) for kind, first, last in all_boxes(file, start, end) if kind == wanted)


def sample_entries(file: BinaryIO, mdia: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Where the content of each sample entry of a track begins and ends."""
    for minf in boxes(file, *mdia, b"minf"):
        for stbl in boxes(file, *minf, b"stbl"):
            for start, end in boxes(file, *stbl, b"stsd"):
                # Version, flags and a count stand before the entries.
                yield from ((first, last) for _, first, last in all_boxes(file, start + 8, end))
