"""Windows of source frames through a network: tiles, precision, out-of-memory back-off, reuse of equal pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from keyscale.engine.colour import PixelArray
from keyscale.engine.errors import DeviceError, KeyscaleError
from keyscale.engine.geometry import Window

if TYPE_CHECKING:
    from keyscale.engine.models.model import Model

__all__ = ["Upscaler"]

SMALLEST_TILE = 32
"""Source pixels; below this the context is many times the tile."""

CPU_BUDGET = 512 * 2**20
"""Bytes of activations on a CPU: with frames, encoder and torch itself a 1080x1920 job stays below 1.5 GB."""

GPU_SHARE = 0.6
"""Part of the GPU's free memory to plan with; the allocator's rounding and cuDNN's workspace need the rest."""

OTHER_BUDGET = 2 * 2**30
"""Bytes of activations where the device does not tell its free memory (MPS)."""

BLACK = 1.5 / 255
"""An output whose brightest value is below this, from an input that is not dark, is a failed one."""
DARK = 8 / 255


@dataclass(frozen=True, eq=False)
class _Made:
    """The last result, kept for exact repeats."""

    pixels: PixelArray
    core: Window
    result: PixelArray


class Upscaler:
    """Runs a model over windows. One thread at a time.

    Args:
        model: the network.
        lattice: width and height of the frames.
        tile: side of a tile in source pixels; None follows the memory, 0 never tiles.
        should_stop: asked between tiles and, by some networks, within one.
        on_note: told when a tile is halved or a frame is recomputed.
    """

    def __init__(
        self,
        model: Model,
        lattice: tuple[int, int],
        *,
        tile: int | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.lattice = lattice
        self.inferred = 0
        """Windows that went through the network; exact repeats are not among them."""
        self.macs = 0
        """Multiply-accumulates spent, context included."""
        self._tile = tile or None
        self._automatic = tile is None
        self._should_stop = should_stop
        self._note = on_note or (lambda _: None)
        self._made: _Made | None = None

    def forget(self) -> None:
        """Drop the last result: what follows must not depend on what came before (chunks are made alone)."""
        self._made = None

    def __call__(self, frame: PixelArray, core: Window) -> PixelArray:
        """Super-resolve `core` of a frame.

        Args:
            frame: `(H, W, 3)` of the whole lattice, uint8 or uint16.
            core: the pixels wanted; context is taken from the frame around them.

        Returns:
            `(scale * core.height, scale * core.width, 3)` of the frame's dtype.

        Raises:
            DeviceError: out of memory at the smallest tile.
            KeyscaleError: the network gives no finite picture, in fp32 either.
            Interrupted: `should_stop` said so.
        """
        repeated = self._repeat(frame, core)
        if repeated is not None:
            return repeated
        result = self._compute(frame, core)
        self.inferred += 1
        self._made = _Made(frame, core, result)
        return result

    def _repeat(self, frame: PixelArray, core: Window) -> PixelArray | None:
        made = self._made
        if made is None or not made.core.holds(core) or made.pixels.shape != frame.shape:
            return None
        spec = self.model.spec
        seen = core.widened(spec.halo, spec.align, self.lattice)
        region = np.s_[seen.y0 : seen.y1, seen.x0 : seen.x1]
        if made.pixels is not frame and not np.array_equal(made.pixels[region], frame[region]):
            return None
        scale = spec.scale
        y, x = (core.y0 - made.core.y0) * scale, (core.x0 - made.core.x0) * scale
        return made.result[y : y + core.height * scale, x : x + core.width * scale]

    def _compute(self, frame: PixelArray, core: Window) -> PixelArray:
        while True:
            tile = self._side(core)
            try:
                return self._tiled(frame, core, tile)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            smaller = min(tile, max(core.width, core.height)) // 2
            if smaller < SMALLEST_TILE:
                raise DeviceError(
                    f"{self.model.device} is out of memory even for a tile of {tile} pixels",
                    remedy="Close other programs, or use another --device.",
                )
            self._tile = smaller
            self._note(f"{self.model.device} is out of memory: tiles of {smaller} pixels from here on")
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _side(self, core: Window) -> int:
        whole = max(core.width, core.height)
        if self._tile is not None:
            return self._tile
        if not self._automatic:
            return whole
        spec = self.model.spec
        context = core.widened(spec.halo, spec.align, self.lattice)
        budget = self._budget()
        per_pixel = _bytes_per_pixel(self.model)
        if context.width * context.height * per_pixel <= budget:
            return whole
        return max(4 * SMALLEST_TILE, int(math.sqrt(budget / per_pixel)) - 2 * spec.halo)

    def _budget(self) -> float:
        device = self.model.device
        if device.type == "cpu":
            return CPU_BUDGET
        if device.type == "cuda":
            return GPU_SHARE * torch.cuda.mem_get_info(device)[0]
        return OTHER_BUDGET

    def _tiled(self, frame: PixelArray, core: Window, side: int) -> PixelArray:
        spec = self.model.spec
        scale = spec.scale
        out = np.empty((core.height * scale, core.width * scale, 3), dtype=frame.dtype)
        for tile in _split(core, side):
            context = tile.widened(spec.halo, spec.align, self.lattice)
            pixels = frame[context.y0 : context.y1, context.x0 : context.x1]
            y, x = (tile.y0 - context.y0) * scale, (tile.x0 - context.x0) * scale
            to_y, to_x = (tile.y0 - core.y0) * scale, (tile.x0 - core.x0) * scale
            height, width = tile.height * scale, tile.width * scale
            with torch.inference_mode():
                sr = self._infer(_to_tensor(pixels, self.model.device))
                inner = sr[0, :, y : y + height, x : x + width]
                out[to_y : to_y + height, to_x : to_x + width] = _to_pixels(inner, frame.dtype)
            self.macs += context.width * context.height * spec.macs_per_pixel
        return out

    def _infer(self, x: torch.Tensor) -> torch.Tensor:
        y = self.model(x, should_stop=self._should_stop)
        if _is_picture(x, y):
            return y
        if self.model.precision != "fp32":
            self._note(f"{self.model.precision} gave a broken picture: recomputed in fp32")
            y = self.model.to_precision("fp32")(x, should_stop=self._should_stop)
            if _is_picture(x, y):
                return y
        raise KeyscaleError(
            f"{self.model.spec.name} gave NaN or black for a picture that is neither",
            remedy="Check the weights with `keyscale models verify`, or use another --model or --device.",
        )


def _split(core: Window, side: int) -> list[Window]:
    """Tiles of nearly equal size that cover `core`, none longer than `side`."""
    rows, columns = math.ceil(core.height / side), math.ceil(core.width / side)
    ys = [core.y0 + core.height * i // rows for i in range(rows + 1)]
    xs = [core.x0 + core.width * i // columns for i in range(columns + 1)]
    return [Window(x0, y0, x1, y1) for y0, y1 in pairwise(ys) for x0, x1 in pairwise(xs)]


def _bytes_per_pixel(model: Model) -> float:
    """Peak bytes of activations per input pixel.

    Counted from the layers: an SRVGG network holds two feature maps and its output, on a CPU only strips of the
    maps; an RRDB network peaks at two feature maps on the quadrupled grid.
    """
    spec = model.spec
    size = model.dtype.itemsize
    output = 3 * spec.scale**2 * size * 3
    if spec.architecture == "srvgg":
        return output + (0 if model.device.type == "cpu" else 3 * spec.features * size)
    return output + 2.5 * 16 * spec.features * size / spec.align**2


def _to_tensor(pixels: PixelArray, device: torch.device) -> torch.Tensor:
    contiguous = np.ascontiguousarray(pixels)
    if contiguous.dtype == np.uint16:
        tensor = torch.from_numpy(contiguous.astype(np.float32))
        top = 65535.0
    else:
        tensor = torch.from_numpy(contiguous)
        top = 255.0
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    else:
        tensor = tensor.to(device)
    return (tensor.to(torch.float32) / top).permute(2, 0, 1)[None]


def _to_pixels(y: torch.Tensor, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> PixelArray:
    """`(3, H, W)` in about [0, 1] -> `(H, W, 3)`, rounded on the device so that few bytes cross to the host.

    `y` is used up: float32 values are overwritten.
    """
    top = 255.0 if dtype == np.uint8 else 65535.0
    scaled = y.to(torch.float32).clamp_(0, 1).mul_(top).add_(0.5).permute(1, 2, 0)
    if dtype == np.uint8:
        return np.asarray(_to_host(scaled.to(torch.uint8).contiguous()).numpy())
    # Not every device stores uint16; int32 holds its range.
    return np.asarray(_to_host(scaled.to(torch.int32).contiguous()).numpy().astype(np.uint16))


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return pinned


def _is_picture(x: torch.Tensor, y: torch.Tensor) -> bool:
    if not bool(torch.isfinite(y.sum(dtype=torch.float32))):
        return False
    return not (float(x.mean()) > DARK and float(y.max()) < BLACK)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator and MPS raise plain RuntimeErrors.
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error) or "can't allocate" in str(error)
