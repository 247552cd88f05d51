"""The `clap` box of MP4 and MOV (ISO 14496-12, 12.1.4): which part of the stored picture is shown."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from keyscale.engine.source.boxes import VISUAL_ENTRY, boxes, sample_entries
from keyscale.engine.source.canvas import Crop

__all__ = ["clean_apertures"]


def clean_apertures(path: str | os.PathLike[str]) -> list[Crop]:
    """What `clap` hides of each video track, in the order of the file; nothing of those that have no such box."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return [
            _crop_of(file, mdia)
            for moov in boxes(file, 0, size, b"moov")
            for trak in boxes(file, *moov, b"trak")
            for mdia in boxes(file, *trak, b"mdia")
            if _handler(file, mdia) == b"vide"
        ]


def _handler(file: BinaryIO, mdia: tuple[int, int]) -> bytes:
    for start, _ in boxes(file, *mdia, b"hdlr"):
        file.seek(start + 8)
        return file.read(4)
    return b""


def _crop_of(file: BinaryIO, mdia: tuple[int, int]) -> Crop:
    for first, last in sample_entries(file, mdia):
        file.seek(first + 24)
        width, height = struct.unpack(">HH", file.read(4).ljust(4, b"\0"))
        for begin, stop in boxes(file, first + VISUAL_ENTRY, last, b"clap"):
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
