"""The `clap` box of MP4 and MOV (ISO 14496-12, 12.1.4): which part of the stored picture is shown."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from keyscale.engine.source.canvas import Crop

__all__ = ["clean_apertures"]

VISUAL_ENTRY = 78
"""Bytes of a `VisualSampleEntry` before the boxes that it holds."""

Box = tuple[bytes, int, int]
"""Type, and where its content begins and ends."""


def clean_apertures(path: str | os.PathLike[str]) -> list[Crop]:
    """What `clap` hides of each video track, in the order of the file; nothing of those that have no such box."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return [
            _crop_of(file, mdia)
            for moov in _boxes(file, 0, size, b"moov")
            for trak in _boxes(file, *moov, b"trak")
            for mdia in _boxes(file, *trak, b"mdia")
            if _handler(file, mdia) == b"vide"
        ]


def _boxes(file: BinaryIO, start: int, end: int, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Where the content of each box of that type begins and ends."""
    yield from ((first, last) for kind, first, last in _all_boxes(file, start, end) if kind == wanted)


def _all_boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
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


def _handler(file: BinaryIO, mdia: tuple[int, int]) -> bytes:
    for start, _ in _boxes(file, *mdia, b"hdlr"):
        file.seek(start + 8)
        return file.read(4)
    return b""


def _crop_of(file: BinaryIO, mdia: tuple[int, int]) -> Crop:
    for minf in _boxes(file, *mdia, b"minf"):
        for stbl in _boxes(file, *minf, b"stbl"):
            for start, end in _boxes(file, *stbl, b"stsd"):
                for _, first, last in _all_boxes(file, start + 8, end):
                    file.seek(first + 24)
                    width, height = struct.unpack(">HH", file.read(4).ljust(4, b"\0"))
                    for begin, stop in _boxes(file, first + VISUAL_ENTRY, last, b"clap"):
                        file.seek(begin)
                        return _aperture(file.read(stop - begin), width, height)
                    return Crop()
    return Crop()


def _aperture(content: bytes, width: int, height: int) -> Crop:
    """Size and offset of the middle are fractions; the first pixel is the nearest whole one."""
    if len(content) < 32:
        return Crop()
    # Since the second edition the offsets are signed; denominators of 0 mean nothing.
    a, b, c, d, e, f, g, h = struct.unpack_from(">IIIIiIiI", content)
    if not (b and d and f and h):
        return Crop()
    shown, lines = Fraction(a, b), Fraction(c, d)
    left = round((width - shown) / 2 + Fraction(e, f))
    top = round((height - lines) / 2 + Fraction(g, h))
    crop = Crop(left=left, top=top, right=width - left - round(shown), bottom=height - top - round(lines))
    return crop if crop.fits(width, height) else Crop()
