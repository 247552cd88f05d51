"""The Dolby Vision configuration record of a video track, which PyAV does not show.

It tells whether a decoder that knows nothing of Dolby Vision sees an HDR10, HLG or SDR picture (profiles 4, 7, 8, 9),
or colours of its own, IPT-PQ-c2, that look green and purple (profile 5, and 10 and 20 where they say so). Written after
"Dolby Vision streams within the ISO base media file format", 2.2, "... within the MPEG-2 transport stream format", 1.2,
and the block addition mappings of Matroska.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from keyscale.engine.source.boxes import VISUAL_ENTRY, all_boxes, boxes, sample_entries
from keyscale.engine.source.matroska import block_additions

__all__ = ["DolbyVision", "dolby_vision_of"]

BOXES = (b"dvcC", b"dvvC", b"dvwC")
"""Names of the record in MP4 and Matroska, by profile."""

ALONE = {5: True, 10: False, 20: False}
"""Profiles whose picture may have no base that others can show: whether it never has one."""

LARGEST_RECORD = 64
"""Bytes of a record that are read; it has 24."""

TRANSPORT_HEAD = 2 << 20
"""Bytes at the beginning in which the tables of a transport stream are looked for."""

DESCRIPTOR = 0xB0
"""Of a transport stream's program map: DOVI_video_stream_descriptor."""


@dataclass(frozen=True, kw_only=True)
class DolbyVision:
    """What the record says."""

    profile: int
    compatibility: int
    """`dv_bl_signal_compatibility_id`: what the base looks like to others; 0 is like nothing."""

    @property
    def has_base(self) -> bool:
        """Whether others see a picture of usual colours."""
        return not (self.profile in ALONE and (ALONE[self.profile] or self.compatibility == 0))


def dolby_vision_of(path: Path, container: str, index: int) -> DolbyVision | None:
    """The record of the stream of that index; None where there is none, or the file's structure is not as usual.

    Args:
        path: the file.
        container: FFmpeg's demuxer name.
        index: of the stream: in MP4 the number of its track, elsewhere the record of any track is taken.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if "mov" in container:
            record = _in_mp4(file, index)
        elif "matroska" in container:
            additions = block_additions(file)
            record = next((additions[name] for name in BOXES if name in additions), None)
        elif container == "mpegts":
            record = _in_transport_stream(file.read(TRANSPORT_HEAD))
        else:
            record = None
    # Two bytes of version, then 7 bits of profile, 6 of level, 3 flags, 4 bits of compatibility.
    if record is None or len(record) < 5:
        return None
    return DolbyVision(profile=record[2] >> 1, compatibility=record[4] >> 4)


def _in_mp4(file: BinaryIO, index: int) -> bytes | None:
    """In the sample entry of the track."""
    size = file.seek(0, os.SEEK_END)
    tracks = [trak for moov in boxes(file, 0, size, b"moov") for trak in boxes(file, *moov, b"trak")]
    for mdia in boxes(file, *tracks[index], b"mdia") if index < len(tracks) else ():
        for first, last in sample_entries(file, mdia):
            for name, begin, end in all_boxes(file, first + VISUAL_ENTRY, last):
                if name in BOXES:
                    file.seek(begin)
                    return file.read(min(end - begin, LARGEST_RECORD))
    return None


def _in_transport_stream(head: bytes) -> bytes | None:
    """In the descriptors of a stream in a program map; a packet is 188 bytes, 192 with a time before it."""
    for stride, offset in ((188, 0), (192, 4)):
        packets = [head[place : place + 188] for place in range(offset, len(head) - 187, stride)]
        if len(packets) < 2 or any(packet[0] != 0x47 for packet in packets[:8]):
            continue
        for packet in packets:
            section = _section(packet)
            if section is not None and section[0] == 2:
                record = _in_program_map(section)
                if record is not None:
                    return record
    return None


def _section(packet: bytes) -> bytes | None:
    """The table that begins in a packet."""
    if packet[0] != 0x47 or not packet[1] & 0x40:
        return None
    begin = 5 + packet[4] if packet[3] & 0x20 else 4
    if begin >= 187 or packet[begin : begin + 3] == b"\0\0\1":
        return None
    section = packet[begin + 1 + packet[begin] :]
    return section if len(section) > 12 else None


def _in_program_map(section: bytes) -> bytes | None:
    end = min(len(section), 3 + (int.from_bytes(section[1:3], "big") & 0xFFF) - 4)
    place = 12 + (int.from_bytes(section[10:12], "big") & 0xFFF)
    while place + 5 <= end:
        length = int.from_bytes(section[place + 3 : place + 5], "big") & 0xFFF
        inner, place = section[place + 5 : place + 5 + length], place + 5 + length
        at = 0
        while at + 2 <= len(inner):
            tag, size = inner[at], inner[at + 1]
            if tag == DESCRIPTOR:
                return inner[at + 2 : at + 2 + size]
            at += 2 + size
    return None
