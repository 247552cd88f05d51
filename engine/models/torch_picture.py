"""Pictures on a device, of which the host knows nothing until it waits for one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from keyscale.engine.models.enlarger import BLACK, DARK

__all__ = ["DevicePicture", "is_sound"]


@dataclass(eq=False)
class DevicePicture:
    """A picture, or a window of one, in the device's memory."""

    pixels: Tensor
    """RGB `(H, W, 3)`, a view of planes: whole numbers from 0 to `top`, as float32, or as uint8 where a network of an
    8-bit job made them."""
    top: int
    """255, or 65535 in jobs of more than 8 bits."""
    checks: tuple[Tensor, ...] = ()
    """Of each window that a network made: mean of its input, least and greatest of its output, `(3,)` float32."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, 3."""
        height, width, channels = self.pixels.shape
        return height, width, channels

    def __getitem__(self, region: tuple[slice, slice]) -> DevicePicture:
        """A part, without a copy."""
        return DevicePicture(self.pixels[region], self.top, self.checks)

    def __setitem__(self, region: tuple[slice, slice], part: DevicePicture) -> None:
        """Put a part in its place."""
        self.pixels[region].copy_(part.pixels)
        self.checks += part.checks


def is_sound(checks: Sequence[float]) -> bool:
    """Whether none of the windows with these `checks`, one after another, is broken: not finite, or black alone."""
    for mean, least, greatest in zip(checks[::3], checks[1::3], checks[2::3], strict=True):
        if not (math.isfinite(least) and math.isfinite(greatest)) or (mean > DARK and greatest < BLACK):
            return False
    return True
