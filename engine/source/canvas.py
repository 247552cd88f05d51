"""Which pixels of a decoded picture are shown, and pictures of another size than the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from keyscale.engine.source.colour import SWS_FLAGS, PixelArray

__all__ = ["Crop", "fitted"]

SAME_SHAPE = 1.05
"""Ratio of two pictures' shapes up to which one is stretched to the other: coded sizes are multiples of 2, 8 or 16."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Columns and rows of the decoded picture that the container hides, in stored pixels."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """What is left of a picture of `width` and `height`."""
        return width - self.left - self.right, height - self.top - self.bottom

    def fits(self, width: int, height: int) -> bool:
        """Whether something is left of a picture of that size, and none of the sides is negative."""
        return min(self.left, self.top, self.right, self.bottom) >= 0 and min(self.size(width, height)) > 0

    def apply(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Stored `(H, W, 3)` -> what is left of it, a view."""
        height, width = pixels.shape[:2]
        return pixels[self.top : height - self.bottom, self.left : width - self.right]


def fitted(pixels: PixelArray, size: tuple[int, int]) -> PixelArray:
    """A picture `(H, W, 3)`, uint8 or uint16, on a canvas of `size` (width, height).

    It is stretched where it has nearly the canvas's shape, else centred on black as large as it fits.
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    across, down = size[0] / width, size[1] / height
    inner = size
    if max(across, down) > SAME_SHAPE * min(across, down):
        scale = min(across, down)
        inner = (min(size[0], max(1, round(width * scale))), min(size[1], max(1, round(height * scale))))
    form = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
    scaled: Any = frame.reformat(width=inner[0], height=inner[1], format=form, interpolation=SWS_FLAGS).to_ndarray()
    if inner == size:
        return np.asarray(scaled)
    canvas: PixelArray = np.zeros((size[1], size[0], 3), pixels.dtype)
    x, y = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[y : y + inner[1], x : x + inner[0]] = scaled
    return canvas
