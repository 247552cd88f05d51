"""Colour on a device: planes of Y'CbCr -> RGB -> planes, with the numbers of `source/colour.py`.

That is swscale's integer arithmetic where it makes RGB of 8 bits, weights and roundings alike, and the equations of
H.273 above. What differs is the order of a sum: one code at most, and of RGB about one value in a thousand. Of code
values that no colour has (luma and chroma beyond white at once) swscale makes black where its integers overflow; here
they are white.
"""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keyscale.engine.camera.geometry import Window
from keyscale.engine.device.resample import resampled, upload_bands
from keyscale.engine.device.taps import CHROMA_ACROSS, CHROMA_DOWN, Taps, swscale_bicubic
from keyscale.engine.source.colour import LUMA_WEIGHTS, Colour, usual_chroma_location, yuv_to_rgb
from keyscale.engine.source.planes import Layout, Planes

__all__ = ["FromPlanes", "ToPlanes"]

CENTRE = 128
"""The middle of a cell of samples, in 256ths of it."""

FINE, FINER = 128, 512
"""Steps to a code value of 8 bits in which swscale keeps chroma between its two filters, and after them."""


class FromPlanes:
    """RGB of the planes of one kind of source: format, size, colour and place of chroma."""

    def __init__(self, planes: Planes, device: torch.device, *, deep: bool) -> None:
        self.top = 65535 if deep else 255
        layout, self._layout = planes.layout, planes.layout
        bits, (width, height) = layout.bits, planes.size
        exact, offset = yuv_to_rgb(planes.colour, bits)
        # Chroma that swscale filters stands in steps of its own, cut off to whole ones where it makes 8 bits of it.
        self._cut = not deep and bool(layout.across or layout.down) and not layout.grey
        self._rounded = self._cut and bool(layout.down)
        between = FINE * 2.0 ** (8 - bits) if self._cut else 1.0
        unit = FINER * 2.0 ** (8 - bits) if self._rounded else between
        self._brightest = 2.0**bits - 2.0 ** (bits - 16)
        matrix = exact / (65535 / self.top)
        if not deep and not layout.grey:
            matrix = _swscale_matrix(planes.colour) / 2.0 ** (bits - 8)
        bias = 0.5 - matrix @ offset
        self._luma = float(matrix[0, 0])
        if layout.grey:
            self._bias = torch.full((1, 1, 1), 0.5 - self._luma * offset[0], device=device)
            return
        self._bias = torch.from_numpy(bias.astype(np.float32)[:, None]).to(device)
        self._chroma = torch.from_numpy((matrix[:, 1:] / unit).astype(np.float32)).to(device)
        place_x, place_y = (_place(planes.chroma_location, axis, 1) for axis in (0, 1))
        across, down = planes.samples[1].shape[1], planes.samples[1].shape[0]
        self._across = self._down = None
        if layout.across:
            dense = swscale_bicubic(across, width, place_x, CENTRE, CHROMA_ACROSS).dense().T * np.float32(between)
            self._across = torch.from_numpy(np.ascontiguousarray(dense)).to(device)
        if layout.down:
            dense = swscale_bicubic(down, height, place_y, CENTRE, CHROMA_DOWN).dense() * np.float32(unit / between)
            self._down = torch.from_numpy(dense).to(device)

    def __call__(self, sent: Tensor, part: Window, chroma: Window) -> Tensor:
        """RGB `(3, H, W)` of a part of the decoded picture: whole numbers from 0 to `top` as float32.

        Args:
            sent: its samples, one plane after another `(N,)`, uint8 or int16.
            part: the pixels wanted.
            chroma: the chroma samples that were sent.
        """
        luma = sent[: part.area].view(part.height, part.width)
        if self._layout.grey:
            grey = self._settled(torch.add(self._bias, luma[None], alpha=self._luma))
            return grey.expand(3, -1, -1)
        shape = (chroma.height, chroma.width)
        if self._layout.interleaved:
            colours = sent[part.area :].view(*shape, 2).permute(2, 0, 1)
        else:
            colours = sent[part.area :].view(2, *shape)
        colours = colours.to(torch.float32)
        if self._across is not None:
            colours = torch.matmul(colours, self._across[chroma.x0 : chroma.x1, part.x0 : part.x1])
        # Where swscale's integers end: rows at the top, and planes of 16 bits at both ends.
        if self._cut:
            colours = colours.clamp_(max=256 * FINE - 1).floor_()
        elif self._across is not None:
            colours = colours.clamp_(max=self._brightest)
        if self._down is not None:
            colours = torch.matmul(self._down[part.y0 : part.y1, chroma.y0 : chroma.y1], colours)
        if self._rounded:
            colours = colours.round_()
        if not self._cut and self._across is not None:
            colours = colours.clamp_(0, self._brightest)
        rgb = torch.addmm(self._bias, self._chroma, colours.reshape(2, -1)).view(3, part.height, part.width)
        return self._settled(rgb.add_(luma, alpha=self._luma))

    def _settled(self, rgb: Tensor) -> Tensor:
        return rgb.floor_().clamp_(0, self.top)


class ToPlanes:
    """Encoder planes of RGB, for one kind of result."""

    def __init__(
        self, colour: Colour, pixel_format: str, size: tuple[int, int], device: torch.device, *, deep: bool
    ) -> None:
        """`size` is width and height; `deep` says that RGB reaches to 65535 and not to 255.

        Raises:
            ValueError: a format that no encoder here takes.
        """
        self.layout = encoder_layout(pixel_format)
        self.size = size
        self.dtype = torch.uint8 if self.layout.bits == 8 else torch.int16
        self._deep, bits = deep, self.layout.bits
        to_rgb, offset = yuv_to_rgb(colour, bits)
        matrix = np.linalg.inv(to_rgb / (65535 / (65535 if deep else 255)))
        self._matrix = torch.from_numpy(matrix.astype(np.float32)).to(device)
        # swscale cuts off where it stretches 8-bit chroma to the full range: half a step is not added there.
        half = 0.0 if colour.full_range and not deep else 0.5
        self._bias = torch.from_numpy((offset + np.array([0.5, half, half])).astype(np.float32)[None, :, None]).to(
            device
        )
        self._nothing = torch.zeros((1, 1, 1), device=device)
        self._most = 2**bits - 1
        self._brightest = float(2**bits) + (0.0 if deep else half) - 2.0**-7
        location = colour.chroma_location or usual_chroma_location(colour.matrix, colour.primaries)
        wanted: dict[str, Taps] = {}
        if self.layout.across:
            place = _place(location, 0, 1)
            wanted["across"] = swscale_bicubic(size[0], size[0] // 2, CENTRE, place, CHROMA_ACROSS)
        if self.layout.down:
            place = _place(location, 1, 1)
            wanted["down"] = swscale_bicubic(size[1], size[1] // 2, CENTRE, place, CHROMA_DOWN)
        self._bands = {}
        if wanted:
            bands = upload_bands(tuple(wanted.values()), lambda data: torch.from_numpy(data).to(device))
            self._bands = dict(zip(wanted, bands, strict=True))

    @property
    def bytes(self) -> int:
        """Of all planes, filled up to a multiple of 4."""
        samples = sum(math.prod(shape) for shape in self.shapes)
        return -(-samples * self.dtype.itemsize // 4) * 4

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of each plane, in samples."""
        width, height = self.size
        chroma = (height >> self.layout.down, width >> self.layout.across)
        return [(height, width), (*chroma, 2)] if self.layout.interleaved else [(height, width), chroma, chroma]

    def __call__(self, rgb: Tensor, out: Tensor) -> None:
        """Write the planes, one after another, into `out` `(N,)` of `dtype`.

        Args:
            rgb: `(H, 3, W)` whole numbers as float32.
            out: on the same device; `bytes` in all.
        """
        height, _, width = rgb.shape
        codes = torch.baddbmm(self._bias, self._matrix.expand(height, 3, 3), rgb)
        if self._deep:
            # Above 8 bits `colour.from_rgb` rounds before chroma is filtered.
            codes = codes.floor_().clamp_(0, self._most)
        luma, chroma = codes[:, 0], codes[:, 1:]
        if self._bands:
            bands = self._bands.get("across"), self._bands.get("down")
            # swscale's rows end where its integers do, at the top alone.
            chroma = resampled(
                chroma.permute(1, 0, 2),
                *bands,
                between=lambda rows: rows.clamp_(max=self._brightest),
                half=self._nothing,
            )
            if self._deep:
                chroma = chroma.add_(0.5)
        # Luma of RGB lies within its range; chroma is filtered beyond it, or with a half ends one above.
        if self._bands or not self._deep:
            chroma = chroma.clamp_(0, self._most)
        if self.layout.shift:
            luma, chroma = (_shifted(part, self.layout.shift) for part in (luma, chroma))
        count = height * width
        colours = out[count : count + 2 * chroma.shape[0] * chroma.shape[2]]
        out[:count].view(height, width).copy_(luma)
        rows, columns = height >> self.layout.down, width >> self.layout.across
        if self.layout.interleaved:
            colours.view(rows, columns, 2).copy_(chroma.permute(0, 2, 1))
        else:
            colours.view(2, rows, columns).copy_(chroma.permute(1, 0, 2))


def encoder_layout(pixel_format: str) -> Layout:
    """How an encoder's format keeps its samples.

    Raises:
        ValueError: it is none of them.
    """
    if pixel_format in {"nv12", "p010le"}:
        shift, bits = (6, 10) if pixel_format == "p010le" else (0, 8)
        return Layout(bits, 1, 1, interleaved=True, shift=shift)
    match = re.fullmatch(r"yuv(420|422|444)p(?:(10)le)?", pixel_format)
    if match is None:
        raise ValueError(f"planes of {pixel_format} are not made on a device")
    return Layout(int(match[2] or 8), int(match[1] != "444"), int(match[1] == "420"))


def _shifted(codes: Tensor, bits: int) -> Tensor:
    """Codes in the high bits of two bytes, as the signed numbers with the same bits."""
    high = codes.floor() * 2.0**bits
    return high - (high >= 32768) * 65536.0


def _place(location: int, axis: int, sub: int) -> int:
    """Where a chroma sample lies in its cell, in 256ths: `get_local_pos` in libswscale/utils.c."""
    across, down = {1: (0, 128), 2: (128, 128), 3: (0, 0), 4: (128, 0), 5: (0, 256), 6: (128, 256)}[location]
    return ((across, down)[axis] + CENTRE) >> sub


def _swscale_matrix(colour: Colour) -> npt.NDArray[np.float64]:
    """RGB of 8 bits from 8-bit code values, in swscale's 8192ths: `ff_yuv2rgb_c_init_tables`."""
    kr, kb = LUMA_WEIGHTS[colour.matrix]
    kg = 1 - kr - kb
    red, blue = 2 * (1 - kr), 2 * (1 - kb)
    table = [round(value * 255 / 224 * 65536) for value in (red, blue, blue * kb / kg, red * kr / kg)]
    if colour.full_range:
        table = [value * 224 // 255 for value in table]
    luma = 65536 if colour.full_range else 65536 * 255 // 219
    crv, cbu, cgu, cgv = table
    y, v_red, u_blue, u_green, v_green = ((value * 8192 + 32768) >> 16 for value in (luma, crv, cbu, -cgu, -cgv))
    return np.array([[y, 0, v_red], [y, u_green, v_green], [y, u_blue, 0]]) / 8192
