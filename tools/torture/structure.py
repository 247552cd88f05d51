"""The skeletons of containers: where their boxes, elements, chunks and packets stand, and how to write some anew."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Part", "boxes", "chunks", "element", "elements", "patch_box", "skeleton", "ts_packets", "unsigned"]

NESTED_BOXES = frozenset({
    b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf", b"moof", b"traf", b"mvex", b"stsd",
})  # fmt: skip
NESTED_ELEMENTS = frozenset({
    0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0x1C53BB6B, 0xBB, 0xB7, 0x114D9B74, 0x4DBB, 0xA0,
    0x55B0, 0x1254C367, 0x7373, 0x67C8,
})  # fmt: skip
"""Segment, Info, Tracks and what is in them, Cluster, Cues, SeekHead, BlockGroup, Tags."""


@dataclass(frozen=True)
class Part:
    """One piece of a container: header `[start, body)`, content `[body, end)`."""

    start: int
    body: int
    end: int
    name: bytes
    size_at: int
    """Where its size field stands."""
    size_length: int
    """Bytes of the size field; 0 where it has none."""


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """The boxes of an MP4 or MOV, outer before inner."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", content, start)
        if size < 8 or start + size > end:
            return
        yield Part(start, start + 8, start + size, name, start, 4)
        if name in NESTED_BOXES:
            yield from boxes(content, start + (16 if name == b"stsd" else 8), start + size)
        start += size


def elements(content: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """The elements of a Matroska or WebM file, outer before inner."""
    end = len(content) if end is None else end
    while start + 2 <= end and content[start]:
        width = 9 - content[start].bit_length()
        name = content[start : start + width]
        at = start + width
        if width > 4 or at >= end or not content[at]:
            return
        length = 9 - content[at].bit_length()
        size = int.from_bytes(content[at : at + length], "big") & ((1 << 7 * length) - 1)
        body = at + length
        stop = end if size == (1 << 7 * length) - 1 else body + size
        if stop > end:
            return
        yield Part(start, body, stop, name, at, length)
        if int.from_bytes(name, "big") in NESTED_ELEMENTS:
            yield from elements(content, body, stop)
        start = stop


def chunks(content: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """The chunks of an AVI, outer before inner."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        name, size = struct.unpack_from("<4sI", content, start)
        stop = start + 8 + size
        if stop > end:
            return
        yield Part(start, start + 8, stop, name, start + 4, 4)
        if name in {b"RIFF", b"LIST"}:
            yield from chunks(content, start + 12, stop)
        start = stop + size % 2


def ts_packets(content: bytes) -> Iterator[Part]:
    """The packets of a transport stream."""
    for start in range(0, len(content) - 187, 188):
        yield Part(start, start + 4, start + 188, b"ts", start, 0)


def skeleton(content: bytes, suffix: str) -> list[Part]:
    """The parts of a file of that extension."""
    walk = {".mp4": boxes, ".mov": boxes, ".mkv": elements, ".webm": elements, ".avi": chunks, ".ts": ts_packets}
    return list(walk[suffix](content))


def patch_box(content: bytes, name: bytes, offset: int, value: bytes, *, which: int = 0) -> bytes:
    """Overwrite bytes in the content of box number `which` of that name."""
    part = [part for part in boxes(content) if part.name == name][which]
    at = part.body + offset
    return content[:at] + value + content[at + len(value) :]


def element(name: int, *content: bytes) -> bytes:
    """A Matroska element."""
    body = b"".join(content)
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (len(body) | 1 << 56).to_bytes(8, "big") + body


def unsigned(name: int, value: int) -> bytes:
    """A Matroska element that holds a number."""
    return element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
