"""What tells two pictures apart in numbers, and where to look."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["PSNR_CAP", "Pixels", "busiest", "grey", "psnr", "sharpness"]

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

PSNR_CAP = 100.0
"""dB of equal pictures."""

STEP = 16
"""Pixels of the lattice on which details begin."""


def grey(pixels: Pixels) -> Plane:
    """Mean of the channels `(H, W)`, in codes."""
    return np.asarray(pixels.astype(np.float32).mean(axis=2))


def sharpness(pixels: Pixels) -> float:
    """Root of the mean squared forward differences, down plus across, in codes; noise and ringing count as well."""
    plane = grey(pixels)
    return float(np.sqrt(sum(np.square(np.diff(plane, axis=axis)).mean(dtype=np.float64) for axis in (0, 1))))


def psnr(pixels: Pixels, reference: Pixels) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255, over all values; the same either way round."""
    error = np.square(pixels.astype(np.float32) - reference).mean(dtype=np.float64)
    return min(PSNR_CAP, float(10 * np.log10(255**2 / error))) if error else PSNR_CAP


def busiest(pixels: Pixels, size: tuple[int, int]) -> tuple[int, int]:
    """Top and left of the detail of `size` (width, height) with the strongest gradients, on a lattice of 16 pixels."""
    plane = grey(pixels)
    energy = np.zeros_like(plane)
    energy[:-1] += np.abs(np.diff(plane, axis=0))
    energy[:, :-1] += np.abs(np.diff(plane, axis=1))
    sums = np.pad(energy.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    width, height = min(size[0], plane.shape[1]), min(size[1], plane.shape[0])
    tops = np.arange(0, plane.shape[0] - height + 1, STEP)[:, None]
    lefts = np.arange(0, plane.shape[1] - width + 1, STEP)[None]
    strength = (
        sums[tops + height, lefts + width] - sums[tops, lefts + width] - sums[tops + height, lefts] + sums[tops, lefts]
    )
    row, column = np.unravel_index(int(strength.argmax()), strength.shape)
    return int(row) * STEP, int(column) * STEP
