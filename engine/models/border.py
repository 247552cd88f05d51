"""What a plain network sees beyond the border of the frame: its last pixels, repeated."""

from __future__ import annotations

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.source.colour import PixelArray

__all__ = ["surrounded"]


def surrounded(pixels: PixelArray, inner: Window, halo: int, *, more: tuple[int, int] = (0, 0)) -> PixelArray:
    """A part of a picture with full context on every side, where the picture ends by repeating its edge.

    A network that pads with zeros sees a black frame around every picture. The shipped ones answer with a rim of a few
    pixels in another colour (up to 70 codes off on flat white), so that they are never shown the end of a picture.

    Args:
        pixels: `(H, W, 3)`; shows at least `halo` pixels around `inner`, except where the frame ends.
        inner: the part; may reach over the frame's border on the right and below, by less than a cell of pixels.
        halo: pixels of context.
        more: width and height to add on the right and below, for a size that others share.

    Returns:
        `(inner.height + 2 * halo + more[1], inner.width + 2 * halo + more[0], 3)`, contiguous, `inner` in it at
        (`halo`, `halo`).
    """
    height, width = pixels.shape[:2]
    y0, x0 = inner.y0 - halo, inner.x0 - halo
    y1, x1 = inner.y1 + halo + more[1], inner.x1 + halo + more[0]
    seen = pixels[max(0, y0) : y1, max(0, x0) : x1]
    missing = ((max(0, -y0), max(0, y1 - height)), (max(0, -x0), max(0, x1 - width)), (0, 0))
    if not any(map(any, missing)):
        return np.ascontiguousarray(seen)
    return np.pad(seen, missing, mode="edge")
