"""What the upscaler asks of a network, and what networks have in common whichever runtime they run in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.geometry import Window
from keyscale.engine.source.colour import PixelArray

if TYPE_CHECKING:
    from keyscale.engine.models.registry import ModelSpec

__all__ = [
    "BLACK",
    "CPU_BUDGET",
    "DARK",
    "RESIDUAL",
    "SLOPE",
    "TAIL_HALO",
    "BrokenPicture",
    "Enlarger",
    "OutOfMemory",
    "bilinear",
    "finished",
    "surrounded",
]

CPU_BUDGET = 512 * 2**20
"""Bytes of activations on a CPU: with frames, encoder and the runtime itself a 1080x1920 job stays below 1.5 GB."""

SLOPE = 0.2
"""Of RRDB networks: negative slope of the LeakyReLUs."""
RESIDUAL = 0.2
"""Of RRDB networks: weight of a dense block's and of a whole block's residual, as in ESRGAN."""
TAIL_HALO = 2
"""Of RRDB networks: rows and columns of features around its own on which a pixel of the enlarged tail depends: a
convolution on the 2x grid, three on the 4x."""

BLACK = 1.5 / 255
"""An output whose brightest value is below this, from an input that is not dark, is a failed one."""
DARK = 8 / 255


class OutOfMemory(Exception):
    """The device's memory does not hold this window; a smaller one may fit."""


class BrokenPicture(Exception):
    """The network gave NaN, or black for a picture that is not dark."""


class Enlarger(Protocol):
    """A network on a device that takes and gives pictures as the stages pass them on."""

    decibels: float | None
    """How close it came to fp32 on the golden tile; None where that was not measured."""

    @property
    def spec(self) -> ModelSpec:
        """What the network is."""

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of what its results depend on."""

    @property
    def precision(self) -> str:
        """`fp32`, `fp16`, `bf16` or `int8`."""

    @property
    def place(self) -> str:
        """The device: `cpu`, `mps`, `cuda` or `cuda:N`."""

    @property
    def bytes_per_pixel(self) -> float:
        """Peak bytes of activations per input pixel."""

    def describe(self) -> str:
        """Device and what there is of it, for people, such as `cpu (4 threads)`."""

    def budget(self) -> float:
        """Bytes of activations that the device has room for now."""

    def enlarge(
        self, pixels: PixelArray, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> PixelArray:
        """Enlarge a picture and cut a part out of the result.

        Args:
            pixels: `(H, W, 3)` uint8 or uint16 RGB: `inner` and its context, less where the frame ends; cut out of the
                frame at a multiple of `spec.align`, and up to one unless the frame ends before.
            inner: the input pixels whose enlargement is wanted.
            should_stop: asked before long work, and by some networks within it.

        Returns:
            `(scale * inner.height, scale * inner.width, 3)` of the same dtype, rounded half up.

        Raises:
            OutOfMemory: the window is too large.
            BrokenPicture: the result is NaN or black without reason.
            Interrupted: `should_stop` said so.
        """

    def exact(self) -> Enlarger | None:
        """The same network in fp32 where this one may overflow, else None."""


def bilinear(scale: int, fold: int) -> npt.NDArray[np.float32]:
    """Bilinear enlargement of one colour as a 3x3 convolution between cells of pixels.

    To it a plain network adds what it knows better. Its weights are exact in fp16 for scales of 1, 2 and 4.

    Args:
        scale: output pixels per input pixel along each side.
        fold: side of the cells of input pixels; the output's cells have `scale * fold`.

    Returns:
        `((scale * fold)**2, fold**2, 3, 3)`; pixels of a cell by row and column. Pixel centres lie half a pixel from
        their edges, as in `torch.nn.functional.interpolate` with `align_corners=False`.
    """
    side = scale * fold
    places = (np.arange(side) + 0.5) / scale - 0.5
    line = np.zeros((side, fold, 3), np.float32)
    for neighbour in (0, 1):
        nearest = np.floor(places).astype(int) + neighbour
        line[np.arange(side), nearest % fold, nearest // fold + 1] += 1 - np.abs(places - nearest)
    kernel: npt.NDArray[np.float32] = np.einsum("iry,jcx->ijrcyx", line, line).reshape(side**2, fold**2, 3, 3)
    return kernel


def surrounded(pixels: PixelArray, inner: Window, halo: int, *, more: tuple[int, int] = (0, 0)) -> PixelArray:
    """A part of a picture with full context on every side, where the picture ends by repeating its edge.

    A network that pads with zeros sees a black frame around every picture. The shipped ones answer with a rim of a few
    pixels in another colour (up to 70 codes off on flat white), so that they are never shown the end of a picture.

    Args:
        pixels: `(H, W, 3)`; shows at least `halo` pixels around `inner`, except where the frame ends.
        inner: the part; may reach over the frame's border on the right and below, by less than a cell of pixels.
        halo: pixels of context.
        more: width and height to add on the right and below, for a size that others share.

    Returns:
        `(inner.height + 2 * halo + more[1], inner.width + 2 * halo + more[0], 3)`, contiguous, `inner` in it at
        (`halo`, `halo`).
    """
    height, width = pixels.shape[:2]
    y0, x0 = inner.y0 - halo, inner.x0 - halo
    y1, x1 = inner.y1 + halo + more[1], inner.x1 + halo + more[0]
    seen = pixels[max(0, y0) : y1, max(0, x0) : x1]
    missing = ((max(0, -y0), max(0, y1 - height)), (max(0, -x0), max(0, x1 - width)), (0, 0))
    if not any(map(any, missing)):
        return np.ascontiguousarray(seen)
    return np.pad(seen, missing, mode="edge")


def finished(result: npt.NDArray[Any], pixels: PixelArray) -> PixelArray:
    """What a network gave, as a picture of its input's kind.

    Args:
        result: `(H, W, 3)`: codes already, or float32, nominally in [0, 1].
        pixels: what was enlarged, uint8 or uint16.

    Raises:
        BrokenPicture: it is not finite, or black where the input is not dark.
    """
    top = 65535 if pixels.dtype == np.uint16 else 255
    if result.dtype == np.float32:
        if not np.isfinite(result.sum()):
            raise BrokenPicture
        result = (result.clip(0, 1) * np.float32(top) + np.float32(0.5)).astype(pixels.dtype)
    if result.max(initial=0) < BLACK * top and pixels.mean() > DARK * top:
        raise BrokenPicture
    return result
