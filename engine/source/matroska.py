"""What is read of Matroska and WebM here, since FFmpeg does not hand it on: cropping, and whether a file is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from keyscale.engine.source.canvas import Crop

__all__ = ["EBML_HEADER", "block_additions", "is_whole", "pixel_crops", "recordings_of_matroska"]

EBML_HEADER = b"\x1a\x45\xdf\xa3"
"""ID of the element with which a file begins."""

# Element IDs of RFC 9559 (Matroska) and RFC 8794 (EBML).
SEGMENT, CLUSTER, TRACKS, TRACK_ENTRY, TRACK_TYPE, VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0x83, 0xE0
BLOCK_ADDITION_MAPPING, BLOCK_ADD_ID_TYPE, BLOCK_ADD_ID_EXTRA_DATA = 0x41E4, 0x41E7, 0x41ED
PIXEL_CROP = {"bottom": 0x54AA, "top": 0x54BB, "left": 0x54CC, "right": 0x54DD}

VIDEO_TRACK = 1
"""`TrackType` of pictures."""

MOST_TRACKS = 16 << 20
"""Bytes of `Tracks` that are read; attachments are not among them."""

MOST_CONTENT = 4096
"""Bytes of an element that are read."""


@dataclass(frozen=True)
class _Element:
    id: int
    start: int
    """Where its content begins."""
    end: int | None
    """Where it ends; None where its size is not known (live recordings)."""


def pixel_crops(path: str | os.PathLike[str]) -> list[Crop]:
    """The cropping of each video track, in the order of the file; none where it has no list of tracks."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        crops = (_crop_of(file, entry, size) for entry in _tracks(file, size))
        return [crop for crop in crops if crop is not None]


def block_additions(file: BinaryIO) -> dict[bytes, bytes]:
    """What tracks say of additions to their blocks: data by type, such as `dvcC`."""
    size = file.seek(0, os.SEEK_END)
    found: dict[bytes, bytes] = {}
    for entry in _tracks(file, size):
        for mapping in _children(file, entry.start, min(entry.end or size, size)):
            if mapping.id == BLOCK_ADDITION_MAPPING:
                inner = list(_children(file, mapping.start, min(mapping.end or size, size)))
                contents = {each.id: _content(file, each) for each in inner}
                found[contents.get(BLOCK_ADD_ID_TYPE, b"")] = contents.get(BLOCK_ADD_ID_EXTRA_DATA, b"")
    return found


def recordings_of_matroska(file: BinaryIO, size: int) -> Iterator[int]:
    """Where files begin that were laid end to end, as far as their sizes are known."""
    end: int | None = 0
    for element in _children(file, 0, size):
        if element.id == int.from_bytes(EBML_HEADER, "big") and end is not None:
            yield end
        end = element.end


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether the file ends where its last element does: nothing of it was cut off."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        segments = [element for element in _children(file, 0, size) if element.id == SEGMENT]
        if not segments:
            return False
        segment = segments[0]
        if segment.end is not None:
            return segment.end <= size
        end: int | None = segment.start
        for element in _top_level(file, size):
            end = element.end
            if end is None and element.id == CLUSTER:
                end = element.start
        return end == size


def _tracks(file: BinaryIO, size: int) -> Iterator[_Element]:
    """The entries of the list of tracks."""
    for element in _top_level(file, size):
        if element.id == TRACKS and element.end is not None and element.end - element.start <= MOST_TRACKS:
            yield from (
                entry for entry in _children(file, element.start, min(element.end, size)) if entry.id == TRACK_ENTRY
            )
            return


def _top_level(file: BinaryIO, size: int) -> Iterator[_Element]:
    """The elements of the first segment; those in clusters of unknown size are given beside them."""
    for segment in _children(file, 0, size):
        if segment.id == SEGMENT:
            yield from _children(file, segment.start, size if segment.end is None else min(segment.end, size))
            return


def _children(file: BinaryIO, place: int, stop: int) -> Iterator[_Element]:
    while place < stop:
        file.seek(place)
        head = file.read(12)
        number = _number(head, 0, keep_marker=True)
        length = _number(head, number[1], keep_marker=False) if number is not None else None
        if number is None or length is None:
            return
        start = place + number[1] + length[1]
        unknown = length[0] == (1 << (7 * length[1])) - 1
        yield _Element(number[0], start, None if unknown else start + length[0])
        # Of an unknown size are segments, which `_top_level` enters, and clusters: what follows is in them.
        if unknown and number[0] == SEGMENT:
            return
        place = start if unknown else start + length[0]


def _number(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """An EBML number of variable length at `at`, and how many bytes it takes."""
    if at >= len(data) or data[at] == 0:
        return None
    length = 9 - data[at].bit_length()
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ((1 << (7 * length)) - 1)), length


def _crop_of(file: BinaryIO, entry: _Element, size: int) -> Crop | None:
    """The cropping of a track; None where it is no video."""
    kind = None
    sides: dict[str, int] = {}
    for element in _children(file, entry.start, min(entry.end or size, size)):
        if element.id == TRACK_TYPE:
            kind = _unsigned(file, element)
        elif element.id == VIDEO:
            for inner in _children(file, element.start, min(element.end or size, size)):
                sides |= {side: _unsigned(file, inner) for side, id_ in PIXEL_CROP.items() if id_ == inner.id}
    return Crop(**sides) if kind == VIDEO_TRACK else None


def _unsigned(file: BinaryIO, element: _Element) -> int:
    content = _content(file, element)
    return int.from_bytes(content, "big") if len(content) <= 8 else 0


def _content(file: BinaryIO, element: _Element) -> bytes:
    """What a small element holds."""
    if element.end is None or element.end - element.start > MOST_CONTENT:
        return b""
    file.seek(element.start)
    return file.read(element.end - element.start)
