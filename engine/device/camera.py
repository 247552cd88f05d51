"""The camera on a device: a float rectangle of a super-resolved picture -> target pixels, as `camera/sampler.py` does.

Pillow keeps whole code values between its two passes over 8-bit pictures, and so does this: without that results are up
to 28 codes off. Of deeper ones it keeps floats. What differs is rounding: at most one code, of some 0.02 % of values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keyscale.engine.camera.geometry import Geometry, Window
from keyscale.engine.camera.sampler import Box, Upright, box_in, upright
from keyscale.engine.device.resample import Bands, resampled, upload_bands
from keyscale.engine.device.taps import lanczos
from keyscale.engine.models.torch_picture import DevicePicture

__all__ = ["Camera"]

Floats = npt.NDArray[np.float64]


class Camera:
    """Samples pictures of one job.

    Args:
        geometry: the grids, and the free rotation.
        scale: super-resolved pixels to a lattice pixel.
        target: width and height of results.
        send: bytes in host memory -> the same on the device, without waiting.
    """

    def __init__(
        self,
        geometry: Geometry,
        scale: int,
        target: tuple[int, int],
        device: torch.device,
        send: Callable[[npt.NDArray[np.uint8]], Tensor],
    ) -> None:
        self._geometry, self._scale, self._target, self._send = geometry, scale, target, send
        self._half = torch.full((1, 1, 1), 0.5, device=device)
        self._nothing = torch.zeros((1, 1, 1), device=device)
        self._bands: tuple[object, tuple[Bands, ...]] = (None, ())

    def __call__(
        self, picture: DevicePicture, window: Window, rect: Floats, placement: npt.NDArray[np.int32]
    ) -> Tensor:
        """One output picture `(H, 3, W)`: whole numbers from 0 to `picture.top` as float32, perhaps not contiguous.

        Arguments as of `sampler.sample`.
        """
        left, top, width, height = (int(v) for v in placement)
        geometry, scale = self._geometry, self._scale
        pixels = picture.pixels.permute(2, 0, 1)
        if geometry.rotation:
            turned = upright(window, scale, geometry, rect, (width, height))
            pixels, box = self._unrotated(pixels, picture.top, turned), turned.box
        else:
            box = box_in(picture.shape, window, scale, geometry, rect)
        shown = self._resized(pixels, picture.top, box, (width, height))
        if (width, height) == self._target:
            return shown
        canvas = shown.new_zeros((self._target[1], 3, self._target[0]))
        canvas[top : top + height, :, left : left + width] = shown
        return canvas

    def _resized(self, pixels: Tensor, top: int, box: Box, size: tuple[int, int]) -> Tensor:
        width, height = size
        x0, y0 = round(box[0]), round(box[1])
        if max(abs(a - b) for a, b in zip(box, (x0, y0, x0 + width, y0 + height), strict=True)) < 1e-6:
            return pixels[:, y0 : y0 + height, x0 : x0 + width].permute(1, 0, 2).to(torch.float32)
        key = (box, size, tuple(pixels.shape))
        if self._bands[0] != key:
            # A camera that stands still sends them once.
            deep = top != 255
            across = lanczos(box[0], box[2], pixels.shape[2], width, deep=deep)
            down = lanczos(box[1], box[3], pixels.shape[1], height, deep=deep)
            self._bands = key, upload_bands((across, down), self._send)
        columns, rows = self._bands[1]
        if top != 255:
            floats = resampled(pixels, columns, rows, between=lambda first: first, half=self._nothing)
            return _codes(floats.add_(0.5), top)
        # `ImagingResampleInner` of Pillow 13.
        lower, narrower = pixels.shape[1] - height, pixels.shape[2] - width
        shown = resampled(
            pixels,
            columns,
            rows,
            between=lambda first: _codes(first, top),
            half=self._half,
            columns_first=lower > 0 and lower > 2 * narrower,
        )
        return _codes(shown, top)

    def _unrotated(self, pixels: Tensor, top: int, turned: Upright) -> Tensor:
        u, v = (np.arange(count) + 0.5 for count in turned.size)
        places = [(turned.origin[i] + turned.right[i] * u, turned.down[i] * v) for i in (0, 1)]
        return _codes(_warped(pixels, places, self._send).add_(0.5), top)


def _codes(values: Tensor, top: int) -> Tensor:
    """Whole code values, in place: what lies above them is cut off, so that a half has to be added before."""
    return values.floor_().clamp_(0, top)


def _warped(
    pixels: Tensor, places: list[tuple[Floats, Floats]], send: Callable[[npt.NDArray[np.uint8]], Tensor]
) -> Tensor:
    """Each pixel of the result from anywhere in a picture, by Pillow's bicubic filter (`BICUBIC` in its Geometry.c).

    Args:
        pixels: `(3, H, W)`.
        places: for x and for y a term for each column and one for each row of the result; their sum is the place in
            `pixels`, whose pixel centres lie at halves.
        send: as of `Camera`.

    Returns:
        `(3, rows, columns)`, 0 where the place is outside.
    """
    # Whole parts and fractions apart: in single precision a place would be up to 1/2000 pixel off.
    terms = [term - 0.5 * (number == 0) for pair in places for number, term in enumerate(pair)]
    packed = np.concatenate([part for term in terms for part in (np.floor(term), term - np.floor(term))])
    sent = send(packed.astype(np.float32).view(np.uint8)).view(torch.float32)
    lengths = [len(term) for term in terms for _ in range(2)]
    x_column, dx_column, x_row, dx_row, y_column, dy_column, y_row, dy_row = torch.split(sent, lengths)
    height, width = pixels.shape[1:]
    inside: Tensor | None = None
    nearest: list[Tensor] = []
    weights: list[list[Tensor]] = []
    for size, column, row, part_column, part_row in (
        (width, x_column, x_row, dx_column, dx_row),
        (height, y_column, y_row, dy_column, dy_row),
    ):
        fraction = part_column[None] + part_row[:, None]
        carried = fraction.floor()
        place, fraction = column[None] + row[:, None] + carried, fraction - carried
        # The place itself, half a pixel on, has to lie within the picture.
        reached = place + fraction + 0.5
        within = (reached >= 0) & (reached < size)
        inside = within if inside is None else inside & within
        nearest.append(place.long())
        weights.append(_cubic(fraction))
    flat = pixels.to(torch.float32).reshape(3, -1)
    result = torch.zeros((3, *nearest[0].shape), device=pixels.device)
    for j in range(4):
        line = (nearest[1] + (j - 1)).clamp_(0, height - 1) * width
        for i in range(4):
            index = line + (nearest[0] + (i - 1)).clamp_(0, width - 1)
            result.addcmul_(flat[:, index.view(-1)].view_as(result), (weights[0][i] * weights[1][j])[None])
    assert inside is not None
    return result.mul_(inside)


def _cubic(d: Tensor) -> list[Tensor]:
    """Weights of the four pixels around, the second of which is `d` pixels before the place."""
    squared, cubed = d * d, d * d * d
    return [
        -d + 2 * squared - cubed,
        1 - 2 * squared + cubed,
        d + squared - cubed,
        cubed - squared,
    ]
