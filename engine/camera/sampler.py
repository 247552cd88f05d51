"""The camera: a float rectangle of a super-resolved picture -> target pixels, by Pillow's antialiased Lanczos.

Pillow is the library that resamples float boxes; a slow pan therefore glides instead of stepping by whole pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from keyscale.engine.camera.geometry import FILTER_RADIUS, Geometry, Window

__all__ = ["Box", "Upright", "box_in", "mixed", "resize", "sample", "upright"]

Pixels = npt.NDArray[np.unsignedinteger[Any]]
Box = tuple[float, float, float, float]


def sample(
    pixels: Pixels,
    window: Window,
    scale: int,
    geometry: Geometry,
    rect: npt.NDArray[np.float64],
    placement: npt.NDArray[np.int32],
    target: tuple[int, int],
) -> Pixels:
    """One output picture `(H, W, 3)` of the target size and of the dtype of `pixels`.

    Args:
        pixels: `(scale * window.height, scale * window.width, 3)`, uint8 or uint16.
        window: the lattice pixels that `pixels` show.
        scale: super-resolved pixels to a lattice pixel.
        geometry: the grids, and the free rotation.
        rect: x, y, width, height of the camera in displayed pixels.
        placement: x, y, width, height of the part of the target to fill; the rest is black.
        target: width and height of the result.
    """
    left, top, width, height = (int(v) for v in placement)
    if geometry.rotation:
        turned = upright(window, scale, geometry, rect, (width, height))
        pixels, box = _unrotated(pixels, turned), turned.box
    else:
        box = box_in(pixels.shape, window, scale, geometry, rect)
    picture = resize(pixels, box, (width, height))
    if (width, height) == target:
        return picture
    canvas = np.zeros((target[1], target[0], 3), dtype=pixels.dtype)
    canvas[top : top + height, left : left + width] = picture
    return canvas


def mixed(source: Pixels, made: Pixels, share: float) -> Pixels:
    """Between two pictures of one shape and dtype, rounded half up; `share` (0 to 1) is that of the second one."""
    difference = np.subtract(made, source, dtype=np.float32)
    difference *= np.float32(share)
    difference += source
    difference += np.float32(0.5)
    return difference.astype(source.dtype)


def box_in(
    shape: tuple[int, ...], window: Window, scale: int, geometry: Geometry, rect: npt.NDArray[np.float64]
) -> Box:
    """The rectangle of `rect` in a picture of `window` whose height and width begin `shape`: left, top, right, bottom.

    Other arguments as of `sample`; `geometry` without free rotation.
    """
    x0, y0, x1, y1 = geometry.boxes(rect[None])[0]
    return (
        max(0.0, (x0 - window.x0) * scale),
        max(0.0, (y0 - window.y0) * scale),
        min(float(shape[1]), (x1 - window.x0) * scale),
        min(float(shape[0]), (y1 - window.y0) * scale),
    )


def resize(pixels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """The part `box` (left, top, right, bottom) of `pixels` `(H, W, 3)` at `size` (width, height), by Lanczos."""
    width, height = size
    x0, y0 = round(box[0]), round(box[1])
    whole = max(abs(a - b) for a, b in zip(box, (x0, y0, x0 + width, y0 + height), strict=True)) < 1e-6
    if whole:
        # Lanczos at whole-pixel positions and 1:1 is the identity.
        return np.ascontiguousarray(pixels[y0 : y0 + height, x0 : x0 + width])
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=box))
    out = np.empty((height, width, 3), dtype=np.uint16)
    for channel in range(3):
        plane = Image.fromarray(pixels[..., channel].astype(np.float32))
        resized = np.asarray(plane.resize(size, Image.Resampling.LANCZOS, box=box))
        _store_rounded(resized, out[..., channel])
    return out


def _store_rounded(values: npt.NDArray[np.float32], plane: Pixels) -> None:
    np.clip(values + np.float32(0.5), 0, np.iinfo(plane.dtype).max, out=plane, casting="unsafe")


@dataclass(frozen=True, eq=False)
class Upright:
    """Where a camera's rectangle, with a margin for the filter, lies in a picture that is seen freely rotated."""

    size: tuple[int, int]
    """Width and height at full resolution."""
    origin: npt.NDArray[np.float64]
    """The place of its corner, x and y in pixels of the picture."""
    right: npt.NDArray[np.float64]
    """From a pixel to the next in its row."""
    down: npt.NDArray[np.float64]
    """From a pixel to the next in its column."""
    box: Box
    """The rectangle without the margin, within it."""


def upright(
    window: Window, scale: int, geometry: Geometry, rect: npt.NDArray[np.float64], size: tuple[int, int]
) -> Upright:
    """What has to be turned upright for a result of that `size`; other arguments as of `sample`."""
    across, down = (density * scale for density in geometry.density)
    x, y, width, height = (float(v) for v in rect)
    margin_x = math.ceil(FILTER_RADIUS * max(1.0, width * across / size[0]))
    margin_y = math.ceil(FILTER_RADIUS * max(1.0, height * down / size[1]))
    columns = math.ceil(width * across) + 2 * margin_x
    rows = math.ceil(height * down) + 2 * margin_y
    left, top = x - margin_x / across, y - margin_y / down

    def source(u: float, v: float) -> npt.NDArray[np.float64]:
        seen_x, seen_y = geometry.unrotated(np.array(left + u / across), np.array(top + v / down))
        return np.array([seen_x * across - window.x0 * scale, seen_y * down - window.y0 * scale])

    origin = source(0, 0)
    box = (float(margin_x), float(margin_y), margin_x + width * across, margin_y + height * down)
    return Upright((columns, rows), origin, source(1, 0) - origin, source(0, 1) - origin, box)


def _unrotated(pixels: Pixels, turned: Upright) -> Pixels:
    columns, rows = turned.size
    (a, d), (b, e), (c, f) = turned.right, turned.down, turned.origin
    # Plane by plane as floats: of 8-bit pictures Pillow's bicubic transform cuts the fraction off, which darkens them.
    result = np.empty((rows, columns, 3), dtype=pixels.dtype)
    for channel in range(3):
        plane = Image.fromarray(pixels[..., channel].astype(np.float32))
        made = plane.transform(
            (columns, rows), Image.Transform.AFFINE, (a, b, c, d, e, f), resample=Image.Resampling.BICUBIC
        )
        _store_rounded(np.asarray(made), result[..., channel])
    return result
