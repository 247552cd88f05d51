"""What files carry beside their pictures: EXIF in a JPEG, cropping in a Matroska file."""

from __future__ import annotations

import struct
from pathlib import Path

from keyscale.engine.source.canvas import Crop

__all__ = ["ebml", "exif", "in_jpeg", "pixel_crop"]


def exif(orientation: int = 1) -> bytes:
    """A TIFF structure with the camera's make and the picture's orientation."""
    entries = struct.pack("<HHII", 0x010F, 2, 9, 38) + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + struct.pack("<I", 0) + b"FUJIFILM\0"


def in_jpeg(picture: bytes, orientation: int = 1) -> bytes:
    content = b"Exif\0\0" + exif(orientation)
    return picture[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content + picture[2:]


def ebml(number: int, content: bytes) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + bytes([0x80 | len(content)]) + content


def pixel_crop(path: Path, crop: Crop, display: tuple[int, int] | None = None) -> Path:
    """Write Matroska's cropping in place of the track's colour description, which the codec's own tags repeat."""
    content = bytearray(path.read_bytes())
    start = content.index(b"\x55\xb0", content.index(b"\x16\x54\xae\x6b"))
    length = content[start + 2] & 0x7F
    assert content[start + 2] & 0x80
    end = start + 3 + length
    sides = ((0x54CC, crop.left), (0x54BB, crop.top), (0x54DD, crop.right), (0x54AA, crop.bottom))
    inside = b"".join(ebml(number, bytes([value])) for number, value in sides if value)
    if display is not None:
        # The muxer says 4, unknown, where it knows no shape; 0 is pixels.
        content[content.index(b"\x54\xb2\x81\x04") + 3] = 0
        inside += ebml(0x54B0, struct.pack(">H", display[0])) + ebml(0x54BA, struct.pack(">H", display[1]))
    spare = end - start - len(inside)
    assert spare >= 2 or spare == 0, spare
    content[start:end] = inside + (b"\xec" + bytes([0x80 | (spare - 2)]) + bytes(spare - 2) if spare else b"")
    path.write_bytes(content)
    return path
