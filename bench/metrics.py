"""How an enlarged picture differs from another, and what is wrong with it by itself.

Pictures are RGB uint8 `(H, W, 3)`; differences are in code values, 0..255.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = [
    "PSNR_CAP",
    "Floats",
    "Pixels",
    "Plane",
    "cropped",
    "gradient_energy",
    "grid_ratio",
    "luma",
    "overshoot",
    "phase_energies",
    "phase_means",
    "psnr",
    "ssim",
    "ssimulacra2",
    "ssimulacra2_is_there",
]

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

PSNR_CAP = 100.0
"""dB of equal pictures; a single code of difference in a picture of 1920x1080 is 116 dB, so this is a round number."""

SSIM_SIDE, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Window and constants of Wang et al. (2004), Image quality assessment: from error visibility to structural
similarity."""

SSIMULACRA2_SIDE = 225
"""Least side in pixels that SSIMULACRA 2 is computed for. Its six scales end at 8 pixels; the package that is used here
gives smaller pictures fewer scales, but the weights of the first ones: another measure."""


def luma(pixels: Pixels) -> Plane:
    """BT.601's Y in 16..235 `(H, W)`, as the super-resolution literature compares it (MATLAB's rgb2ycbcr)."""
    plane = np.full(pixels.shape[:2], 16, dtype=np.float32)
    for channel, weight in enumerate((65.481, 128.553, 24.966)):
        plane += np.float32(weight / 255) * pixels[..., channel]
    return plane


def cropped(pixels: Pixels, border: int) -> Pixels:
    """Without so many pixels on every side."""
    return pixels[border:-border, border:-border] if border else pixels


def psnr(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255, over all values of two arrays; at most `PSNR_CAP`."""
    error = float(np.mean(np.square(a.astype(np.float32) - b.astype(np.float32)), dtype=np.float64))
    return min(PSNR_CAP, float(10 * np.log10(255**2 / error))) if error else PSNR_CAP


def _windowed(plane: Plane) -> Plane:
    """Gaussian-weighted means over all whole windows `(H - 10, W - 10)`."""
    place = np.arange(SSIM_SIDE) - SSIM_SIDE // 2
    weights = np.exp(-(place**2) / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).astype(np.float32)
    height, width = (side - SSIM_SIDE + 1 for side in plane.shape)
    rows = np.zeros((height, plane.shape[1]), dtype=np.float32)
    for index, weight in enumerate(weights):
        rows += weight * plane[index : index + height]
    result = np.zeros((height, width), dtype=np.float32)
    for index, weight in enumerate(weights):
        result += weight * rows[:, index : index + width]
    return result


def ssim(a: Plane, b: Plane) -> float:
    """Structural similarity of two planes in 0..255: mean over whole windows, 1 for equal ones (Wang et al. 2004)."""
    # Around zero, float32 is exact enough for the variances, which do not change.
    a, b = a - np.float32(128), b - np.float32(128)
    mean_a, mean_b = _windowed(a), _windowed(b)
    covariance = _windowed(a * b) - mean_a * mean_b
    variances = _windowed(a * a + b * b) - (mean_a**2 + mean_b**2)
    mean_a, mean_b = mean_a + np.float32(128), mean_b + np.float32(128)
    both, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    values = ((2 * both + SSIM_C1) * (2 * covariance + SSIM_C2)) / ((squares + SSIM_C1) * (variances + SSIM_C2))
    return float(values.mean(dtype=np.float64))


@lru_cache(maxsize=1)
def _ssimulacra2() -> Callable[[io.BytesIO, io.BytesIO], float] | None:
    try:
        compute: Callable[[io.BytesIO, io.BytesIO], float] = importlib.import_module("ssimulacra2").compute_ssimulacra2
    except ImportError:
        return None
    return compute


def ssimulacra2_is_there() -> bool:
    """Whether the package is installed."""
    return _ssimulacra2() is not None


def _png(pixels: Pixels) -> io.BytesIO:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=0)
    data.seek(0)
    return data


def ssimulacra2(truth: Pixels, pixels: Pixels) -> float | None:
    """SSIMULACRA 2 of the package of that name: 100 for equal pictures, 30 is low quality, below 0 very low.

    The package mirrors at two of the four borders where libjxl's own tool pads with zeros, so its scores differ from
    the tool's (by up to 2 points on photographs of 512x512); they compare among themselves.

    Returns:
        None where the package is not installed or a side is shorter than `SSIMULACRA2_SIDE`.
    """
    compute = _ssimulacra2()
    if compute is None or min(truth.shape[:2]) < SSIMULACRA2_SIDE:
        return None
    return float(compute(_png(truth), _png(pixels)))


def phase_energies(plane: Plane, scale: int) -> Floats:
    """Mean squared forward differences by their place within an input pixel.

    Args:
        plane: `(scale * H, scale * W)`.
        scale: output pixels per input pixel.

    Returns:
        `(2, scale)` in codes squared: vertical and horizontal differences; column `p` holds those between the output
        rows (columns) `scale * i + p` and the next one. The last column lies on the borders of input pixels.
    """
    found = np.empty((2, scale))
    for axis in (0, 1):
        squares = np.square(np.diff(plane, axis=axis))
        for phase in range(scale):
            part = squares[phase::scale] if axis == 0 else squares[:, phase::scale]
            found[axis, phase] = part.mean(dtype=np.float64)
    return found


def gradient_energy(plane: Plane) -> float:
    """Mean of squared forward differences over both directions, in codes squared: how sharp or noisy a picture is."""
    return float(np.mean([np.square(np.diff(plane, axis=axis)).mean(dtype=np.float64) for axis in (0, 1)]))


def grid_ratio(energies: Floats) -> float:
    """Largest phase of `phase_energies` over their mean, the two directions averaged.

    1 where all phases are alike; `scale` where all differences lie on the borders of input pixels (blocks).
    """
    means = energies.mean(axis=1)
    return float(np.mean(energies.max(axis=1)[means > 0] / means[means > 0])) if means.any() else 1.0


def phase_means(difference: Plane, scale: int) -> Floats:
    """Mean by place within an input pixel `(scale, scale)` in codes, of a plane `(scale * H, scale * W)`.

    Of the difference to another picture: the spread of these means is a pattern that lies over the whole picture, as
    a rounding error that is different for each channel before the pixel shuffle makes it.
    """
    height, width = (side // scale for side in difference.shape)
    cells = difference[: height * scale, : width * scale].reshape(height, scale, width, scale)
    return np.asarray(cells.mean(axis=(0, 2), dtype=np.float64))


def overshoot(plane: Plane, low: Plane, scale: int) -> float:
    """Mean distance in codes by which luma leaves the range of the 3x3 input pixels around it: halos and ringing.

    Args:
        plane: `(scale * H, scale * W)`.
        low: the input `(H, W)`.
        scale: output pixels per input pixel.
    """
    height, width = low.shape
    padded = np.pad(low, 1, mode="edge")
    around = np.stack([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)])
    most, least = (np.repeat(np.repeat(of, scale, 0), scale, 1) for of in (around.max(axis=0), around.min(axis=0)))
    beyond = np.maximum(plane - most, 0) + np.maximum(least - plane, 0)
    return float(beyond.mean(dtype=np.float64))
