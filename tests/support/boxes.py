"""MP4 and QuickTime files with other boxes than the muxer writes; `moov` must come last, so that offsets stay true."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

__all__ = ["add_to_entry", "box", "named_channels"]

LABELS = {"L": 1, "R": 2, "C": 3, "LFE": 4, "Ls": 5, "Rs": 6, "Lt": 38, "Rt": 39, "Mono": 42, "unused": 0} | {
    "unknown": 0xFFFFFFFF,
    **{f"d{number}": 65536 + number for number in range(24)},
}
"""`AudioChannelLabel` of Apple's Core Audio: loudspeakers, and discrete channels by number."""


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def add_to_entry(content: bytes, handler: bytes, extra: bytes, *, instead: bytes = b"") -> bytes:
    """The file with `extra` at the end of the first sample entry of the track that `handler` (`soun`, `vide`) names.

    A box of the kind `instead` is taken out of that entry.
    """

    def change(stsd: bytes) -> bytes:
        size = struct.unpack(">I", stsd[8:12])[0]
        entry = stsd[12 : 8 + size]
        place = entry.find(instead) if instead else -1
        if place > 0:
            length = struct.unpack(">I", entry[place - 4 : place])[0]
            entry = entry[: place - 4] + entry[place - 4 + length :]
        entry += extra
        return stsd[:8] + struct.pack(">I", len(entry) + 4) + entry + stsd[8 + size :]

    def of_track(track: bytes) -> bytes:
        place = track.find(b"hdlr")
        if track[place + 12 : place + 16] != handler:
            return track
        return _changed(track, [b"mdia", b"minf", b"stbl", b"stsd"], change)

    return _changed(content, [b"moov", b"trak"], of_track)


def named_channels(content: bytes, names: Sequence[str]) -> bytes:
    """The file with a `chan` box that names its sound's channels one by one (QuickTime File Format, "Audio channel
    layout atom").
    """
    each = b"".join(struct.pack(">II", LABELS[name], 0) + bytes(12) for name in names)
    chan = box(b"chan", struct.pack(">IIII", 0, 0, 0, len(names)) + each)
    return add_to_entry(content, b"soun", chan, instead=b"chan")


def _changed(content: bytes, path: list[bytes], change: Callable[[bytes], bytes]) -> bytes:
    parts = []
    for kind, body in _boxes(content):
        if kind != path[0]:
            parts.append(box(kind, body))
        else:
            parts.append(box(kind, change(body) if len(path) == 1 else _changed(body, path[1:], change)))
    return b"".join(parts)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        yield kind, content[place + 8 : place + size]
        place += size
