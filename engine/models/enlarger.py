"""What the upscaler asks of a network, whichever runtime it runs in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from keyscale.engine.camera.geometry import Window

if TYPE_CHECKING:
    from keyscale.engine.models.registry import ModelSpec
    from keyscale.engine.source.colour import PixelArray

__all__ = ["BLACK", "CPU_BUDGET", "DARK", "BrokenPicture", "Enlarger", "OutOfMemory"]

CPU_BUDGET = 512 * 2**20
"""Bytes of activations on a CPU: with frames, encoder and the runtime itself a 1080x1920 job stays below 1.5 GB."""

BLACK = 1.5 / 255
"""An output whose brightest value is below this, from an input that is not dark, is a failed one."""
DARK = 8 / 255


class OutOfMemory(Exception):
    """The device's memory does not hold this window; a smaller one may fit."""


class BrokenPicture(Exception):
    """The network gave NaN, or black for a picture that is not dark."""


class Enlarger(Protocol):
    """A network on a device that takes and gives pictures as the stages pass them on."""

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
