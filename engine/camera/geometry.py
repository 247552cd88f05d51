"""From camera rectangles to the pixels they need: boxes on the source lattice and integer windows.

Three grids meet here. *Displayed* pixels are what keyframes speak of: square, rotation applied. The *lattice* is the
stored picture after orientation, its pixels perhaps not square. *Super-resolved* pixels are `scale` to a lattice
pixel each way. All coordinates are of pixel edges: the picture spans 0 to its width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keyscale.engine.job import Fit

__all__ = ["FILTER_RADIUS", "Geometry", "Window", "place"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

FILTER_RADIUS = 3.0
"""Support of the Lanczos filter in pixels of the coarser grid, as in Pillow."""

WARP_RADIUS = 2.0
"""Support of the bicubic filter that undoes a free rotation."""


@dataclass(frozen=True)
class Window:
    """Integer lattice pixels `[x0, x1) x [y0, y1)`."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Lattice pixels across."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Lattice pixels down."""
        return self.y1 - self.y0

    @property
    def area(self) -> int:
        """Lattice pixels."""
        return self.width * self.height

    def union(self, other: Window) -> Window:
        """The smallest window that holds both."""
        return Window(min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1))

    def aligned(self, align: int) -> Window:
        """The smallest window on multiples of `align` that holds this one; it may reach over the frame's border."""
        low_x, low_y = self.x0 // align * align, self.y0 // align * align
        return Window(low_x, low_y, -(-self.x1 // align) * align, -(-self.y1 // align) * align)

    def widened(self, halo: int, align: int, lattice: tuple[int, int]) -> Window:
        """This window with `halo` pixels of context, on multiples of `align`, cut off at the frame's border."""
        seen = Window(self.x0 - halo, self.y0 - halo, self.x1 + halo, self.y1 + halo).aligned(align)
        return Window(max(0, seen.x0), max(0, seen.y0), min(lattice[0], seen.x1), min(lattice[1], seen.y1))

    def within(self, other: Window) -> Window:
        """This window in the coordinates of `other`: from its origin."""
        return Window(self.x0 - other.x0, self.y0 - other.y0, self.x1 - other.x0, self.y1 - other.y0)

    def holds(self, other: Window) -> bool:
        """True where `other` lies inside this window."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and self.x1 >= other.x1 and self.y1 >= other.y1


@dataclass(frozen=True)
class Geometry:
    """Sizes of the displayed picture and of its lattice, and the free rotation of the keyframes file."""

    display: tuple[int, int]
    lattice: tuple[int, int]
    rotation: float = 0.0
    """Degrees counter-clockwise about the centre, the canvas kept."""

    @property
    def density(self) -> tuple[float, float]:
        """Lattice pixels to a displayed pixel, across and down."""
        return self.lattice[0] / self.display[0], self.lattice[1] / self.display[1]

    def unrotated(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Points of the rotated canvas -> the points of the displayed picture that are seen there."""
        angle = math.radians(self.rotation)
        cosine, sine = math.cos(angle), math.sin(angle)
        centre_x, centre_y = self.display[0] / 2, self.display[1] / 2
        dx, dy = x - centre_x, y - centre_y
        return centre_x + dx * cosine - dy * sine, centre_y + dx * sine + dy * cosine

    def boxes(self, rects: Floats) -> Floats:
        """Camera rectangles `(N, 4)` as x, y, width, height -> the lattice boxes that hold them, as edges `(N, 4)`."""
        x0, y0, width, height = rects.T
        x1, y1 = x0 + width, y0 + height
        if self.rotation:
            xs, ys = self.unrotated(np.stack([x0, x1, x1, x0]), np.stack([y0, y0, y1, y1]))
            x0, x1, y0, y1 = xs.min(0), xs.max(0), ys.min(0), ys.max(0)
        across, down = self.density
        return np.stack([x0 * across, y0 * down, x1 * across, y1 * down], axis=1)

    def ratios(self, rects: Floats, placements: Ints) -> Floats:
        """Target pixels to a lattice pixel for each rectangle `(N,)`, the larger of both directions."""
        across, down = self.density
        return np.maximum(placements[:, 2] / (rects[:, 2] * across), placements[:, 3] / (rects[:, 3] * down))

    def windows(self, rects: Floats, placements: Ints, scale: int) -> Ints:
        """Lattice windows `(N, 4)` as x0, y0, x1, y1 that sampling reads, without the network's context."""
        across, down = self.density
        coarse_x = np.maximum(1.0, rects[:, 2] * across * scale / placements[:, 2])
        coarse_y = np.maximum(1.0, rects[:, 3] * down * scale / placements[:, 3])
        margin_x, margin_y = FILTER_RADIUS * coarse_x / scale, FILTER_RADIUS * coarse_y / scale
        if self.rotation:
            # The warp samples a rectangle widened by the filter's margin, in any direction.
            margin_x = margin_y = np.hypot(margin_x, margin_y) + (WARP_RADIUS + 2) / scale
        boxes = self.boxes(rects)
        low = np.floor(boxes[:, :2] - np.stack([margin_x, margin_y], axis=1))
        high = np.ceil(boxes[:, 2:] + np.stack([margin_x, margin_y], axis=1))
        size = np.array(self.lattice, dtype=np.float64)
        low = np.clip(low, 0, size - 1)
        high = np.clip(high, low + 1, size)
        return np.concatenate([low, high], axis=1).astype(np.int32)


def place(rects: Floats, target: tuple[int, int], fit: Fit) -> Ints:
    """Where each rectangle `(N, 4)` lands in the target: x, y, width, height in target pixels `(N, 4)`.

    The whole target for `cover` and `stretch`; for `contain` the largest centred box of the rectangle's shape, the
    rest stays black.
    """
    width, height = target
    count = len(rects)
    if fit is not Fit.CONTAIN:
        return np.tile(np.array([0, 0, width, height], dtype=np.int32), (count, 1))
    factor = np.minimum(width / rects[:, 2], height / rects[:, 3])
    across = np.clip(np.rint(rects[:, 2] * factor), 1, width)
    down = np.clip(np.rint(rects[:, 3] * factor), 1, height)
    left, top = (width - across) // 2, (height - down) // 2
    return np.stack([left, top, across, down], axis=1).astype(np.int32)
