"""Which pixels of a decoded picture are shown, and pictures of another size than the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.sampler import resize
from keyscale.engine.source.colour import PixelArray

__all__ = ["SAME_ASPECT", "Crop", "fitted"]

SAME_SHAPE = 1.05
"""Ratio of two pictures' shapes up to which one is stretched to the other: coded sizes are multiples of 2, 8 or 16."""

SAME_ASPECT = 0.002
"""How far two sample aspect ratios may lie apart and mean the same."""


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


def fitted(pixels: PixelArray, size: tuple[int, int], stretch: float = 1.0) -> PixelArray:
    """A picture of another shape than the first one shown whole within that one's canvas, the rest black.

    One of the same sample aspect ratio and nearly the canvas's shape is stretched to it.

    Args:
        pixels: the picture `(H, W, 3)`, uint8 or uint16.
        size: width and height of the canvas.
        stretch: the picture's sample aspect ratio divided by the first one's.
    """
    height, width = pixels.shape[:2]
    same_aspect = abs(stretch - 1) <= SAME_ASPECT
    if (width, height) == size and same_aspect:
        return pixels
    across, down = size[0] / (width * stretch), size[1] / height
    if same_aspect and max(across, down) <= SAME_SHAPE * min(across, down):
        return resize(pixels, (0.0, 0.0, width, height), size)
    scale = min(across, down)
    inner = min(size[0], max(1, round(width * stretch * scale))), min(size[1], max(1, round(height * scale)))
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.zeros((size[1], size[0], 3), dtype=pixels.dtype)
    canvas[top : top + inner[1], left : left + inner[0]] = resize(pixels, (0.0, 0.0, width, height), inner)
    return canvas
