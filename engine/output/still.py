"""One picture as a PNG, of 16 bits a sample where it has more than 8, with what says how its code values are shown."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from keyscale.engine.source.colour import FULL, RGB_MATRIX, Colour, PixelArray

__all__ = ["write_png"]

SRGB = 13
"""H.273's transfer of sRGB: what players take BT.709 for, and what viewers of pictures take for granted."""


def write_png(path: Path, pixels: PixelArray, colour: Colour) -> None:
    """Write RGB `(H, W, 3)`, uint8 or uint16, as it is.

    HDR says so by a `cICP` chunk (PNG, third edition, 11.3.2.6), SDR of known primaries by `sRGB` or `cHRM`.

    Raises:
        OSError: the file cannot be written.
    """
    kind = "rgb48be" if pixels.dtype.itemsize == 2 else "rgb24"
    frame = av.VideoFrame.from_ndarray(pixels, format=kind)
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, kind
    encoder.time_base, encoder.sample_aspect_ratio = Fraction(1), Fraction(1)
    frame.pts = 0
    for each in (encoder, frame):
        each.colorspace, each.color_range, each.color_primaries = RGB_MATRIX, FULL, colour.primaries
        each.color_trc = colour.transfer if colour.hdr else SRGB
    path.write_bytes(b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None))))
