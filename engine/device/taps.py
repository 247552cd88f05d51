"""Which samples of a row make each one of a resampled row, and by what weights: Pillow's Lanczos, swscale's bicubic.

Both are computed in double precision here and applied wherever the pictures are. A row is a line of a picture in
either direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.geometry import FILTER_RADIUS

__all__ = ["Taps", "lanczos", "swscale_bicubic"]

CHROMA_ACROSS, CHROMA_DOWN = 1 << 14, 1 << 12
"""What swscale's integer weights of a row and of a column add up to (`initFilter` in libswscale/utils.c)."""

PILLOW_UNIT = 1 << 22
"""Of Pillow's integer weights for 8-bit pictures."""

SHARPNESS = 0.6
"""swscale's cubic: the parameter C of Mitchell and Netravali's family, with B = 0."""


@dataclass(frozen=True, eq=False)
class Taps:
    """`n` samples out of `size`."""

    size: int
    start: npt.NDArray[np.int64]
    """The first sample that is read for each one `(n,)`; `start + k <= size` where its weights are not zero."""
    weights: npt.NDArray[np.float64]
    """`(n, k)`, each row of sum 1, zero beyond the last sample."""

    def dense(self) -> npt.NDArray[np.float32]:
        """The matrix `(n, size)` that a column of samples is multiplied with."""
        count, taps = self.weights.shape
        matrix = np.zeros((count, self.size + taps), np.float32)
        np.put_along_axis(matrix, self.start[:, None] + np.arange(taps), self.weights.astype(np.float32), 1)
        return matrix[:, : self.size]


def lanczos(begin: float, end: float, size: int, count: int, *, deep: bool = False) -> Taps:
    """`count` samples of the stretch from `begin` to `end` of a row of `size`, antialiased.

    As `precompute_coeffs` of Pillow's Resample.c, which takes the box in single precision, and, unless `deep`, as its
    `normalize_coeffs_8bpc`.
    """
    low, high = np.float32(begin), np.float32(end)
    scale = float(high - low) / count
    coarse = max(scale, 1.0)
    support = FILTER_RADIUS * coarse
    centre = float(low) + (np.arange(count) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    place = first[:, None] + np.arange(int((last - first).max()))
    distance = (place - centre[:, None] + 0.5) / coarse
    seen = (np.abs(distance) < FILTER_RADIUS) & (place < last[:, None])
    weights = np.where(seen, np.sinc(distance) * np.sinc(distance / FILTER_RADIUS), 0.0)
    weights /= weights.sum(1, keepdims=True)
    return Taps(size, first, weights if deep else np.rint(weights * PILLOW_UNIT) / PILLOW_UNIT)


def swscale_bicubic(size: int, count: int, place: int, wanted: int, unit: int) -> Taps:
    """A whole row of `size` samples as `count`, as swscale's `initFilter` does, edges repeated.

    Args:
        size: samples of the row.
        count: samples wanted.
        place: where a sample lies in its cell of the row, in 256ths from the cell's edge.
        wanted: the same of the samples wanted.
        unit: what the integer weights add up to.
    """
    step = ((size << 16) + (count >> 1)) // count
    taps = 5 if step <= 1 << 16 else 1 + (4 * size + count - 1) // count
    taps = max(1, min(taps, size - 2))
    # In units of half a 65536th of a sample.
    centre = (wanted * step >> 7) - (place * 0x10000 >> 7) + 2 * step * np.arange(count, dtype=np.int64)
    first = _towards_zero(centre - (taps - 2) * (1 << 16), 1 << 17)
    position = first[:, None] + np.arange(taps)
    distance = np.abs(position * (1 << 17) - centre[:, None]) / float(1 << 17)
    if step > 1 << 16:
        distance = distance * count / size
    near = (2 - SHARPNESS) * distance**3 - (3 - SHARPNESS) * distance**2 + 1
    far = -SHARPNESS * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    cubic = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    # What lies beyond an edge goes to the sample at the edge.
    start = np.clip(first, 0, max(0, size - taps))
    weights = np.zeros_like(cubic)
    rows = np.repeat(np.arange(count), taps)
    np.add.at(weights, (rows, (np.clip(position, 0, size - 1) - start[:, None]).ravel()), cubic.ravel())
    return Taps(size, start, _in_units(weights, unit))


def _in_units(weights: npt.NDArray[np.float64], unit: int) -> npt.NDArray[np.float64]:
    """Weights as whole parts of `unit` that add up to it, what is rounded at one carried to the next."""
    weights = weights / weights.sum(1, keepdims=True) * unit
    result, carried = np.zeros_like(weights), np.zeros(len(weights))
    for tap in range(weights.shape[1]):
        exact = weights[:, tap] + carried
        result[:, tap] = np.rint(exact)
        carried = exact - result[:, tap]
    return result / unit


def _towards_zero(values: npt.NDArray[np.int64], divisor: int) -> npt.NDArray[np.int64]:
    """Integer division as in C."""
    result: npt.NDArray[np.int64] = np.sign(values) * (np.abs(values) // divisor)
    return result
