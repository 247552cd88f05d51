"""A size that follows the camera, in pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from keyscale.engine.choices import Fit
from keyscale.engine.errors import UsageError
from keyscale.engine.job import Target
from keyscale.engine.quantities import MAX_SIDE, Relative
from keyscale.engine.wording import say

__all__ = ["in_pixels"]

SLACK = 1e-6
"""Pixels that a side may lack, by the rounding of floats, to count as whole."""


def in_pixels(target: Target, rects: npt.NDArray[np.float64], scale: int) -> Target:
    """The target with its width and height, where these follow from what the camera sees.

    A factor enlarges the largest rectangle; a shape is that of the largest part or frame of a rectangle that is so
    shaped, as `fit` has it, enlarged by the network. Sides are even, rounded down, so that no larger network is needed.

    Args:
        target: what is asked for.
        rects: x, y, width, height that the camera sees, in displayed source pixels `(N, 4)`.
        scale: of the largest network that the job may take, 1 without one.

    Raises:
        UsageError: a side is out of range.
    """
    asked = None if target.relative is None else Relative.of(target.relative)
    if asked is None:
        return target
    sizes = rects[:, 2:]
    if asked.shape is not None:
        shape = float(asked.shape)
        within = np.minimum if target.fit is Fit.COVER else np.maximum
        sizes = within(sizes, sizes[:, ::-1] * np.array([shape, 1 / shape]))
    largest = sizes[sizes.prod(axis=1).argmax()] * (scale if asked.factor is None else asked.factor)
    if asked.shape is not None:
        longer = _even(largest.max())
        largest = np.array([longer, longer / shape] if shape >= 1 else [longer * shape, longer])
    width, height = (_even(side) for side in largest.tolist())
    if not 2 <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise UsageError(
            say("{size} {} would be {}x{} pixels here, a side is 2 to {}", target.relative, width, height, MAX_SIDE),
            remedy=say("Give {size} WIDTHxHEIGHT."),
        )
    return replace(target, width=width, height=height, relative=None)


def _even(side: float) -> int:
    return 2 * int((side + SLACK) // 2)
