"""Windows of source frames through a network: tiles, precision, out-of-memory back-off, reuse of equal pixels."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError, KeyscaleError
from keyscale.engine.models.enlarger import BrokenPicture, OutOfMemory
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from keyscale.engine.device.frames import DeviceFrame
    from keyscale.engine.models.enlarger import Enlarger
    from keyscale.engine.models.torch_picture import DevicePicture

__all__ = ["Upscaler"]

SMALLEST_TILE = 32
"""Source pixels; below this the context is many times the tile."""

ALWAYS_BROKEN = 3
"""Broken pictures, and none that was not, after which a job stays in fp32: the device has that fault for every one."""

MOST_CALLS = 4096
"""Windows whose times are kept: a film has hundreds of thousands."""


@dataclass(frozen=True, eq=False)
class _Made:
    """The last result, kept for exact repeats."""

    pixels: Any
    core: Window
    result: Any


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
        model: Enlarger,
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
        self.seconds = 0.0
        """Time spent on them: of the network alone, whatever else held the job up."""
        self.calls: deque[tuple[int, float]] = deque(maxlen=MOST_CALLS)
        """Multiply-accumulates and seconds of the latest windows; not of the first, for which a graph is compiled."""
        self._timed = False
        self._tile = tile or None
        self._automatic = tile is None
        self._should_stop = should_stop
        self._note = on_note or (lambda _: None)
        self._made: _Made | None = None
        self._broken = self._whole = 0
        """Pictures of the reduced precision that were broken, and that were not."""
        self._told = False
        self._running: Enlarger = model
        """What the windows of a `DeviceFrame` go through."""

    def forget(self) -> None:
        """Drop the last result: what follows must not depend on what came before (chunks are made alone)."""
        self._made = None

    @overload
    def __call__(self, frame: PixelArray, core: Window) -> PixelArray: ...

    @overload
    def __call__(self, frame: DeviceFrame, core: Window) -> DevicePicture: ...

    def __call__(self, frame: Any, core: Window) -> Any:
        """Super-resolve `core` of a frame.

        Args:
            frame: `(H, W, 3)` of the whole lattice, uint8 or uint16; or one whose windows are sent to the device.
            core: the pixels wanted; context is taken from the frame around them.

        Returns:
            `(scale * core.height, scale * core.width, 3)` of the frame's dtype; of a `DeviceFrame` a picture on the
            device, which is not waited for and may turn out to be broken.

        Raises:
            DeviceError: out of memory at the smallest tile.
            KeyscaleError: the network gives no finite picture, in fp32 either.
            Interrupted: `should_stop` said so.
        """
        repeated = self._repeat(frame, core)
        if repeated is not None:
            return repeated
        before, began = self.macs, time.perf_counter()
        result = self._compute(frame, core)
        if isinstance(result, np.ndarray):
            self.took(self.macs - before, time.perf_counter() - began)
        self.inferred += 1
        self._made = _Made(frame, core, result)
        return result

    def took(self, macs: int, seconds: float) -> None:
        """Count the time of a window. For one on a device `DeviceLine.finished` calls this once the frame is there."""
        self.seconds += seconds
        if self._timed:
            self.calls.append((macs, seconds))
        self._timed = True

    def sound(self) -> None:
        """Note that a picture from a device was not broken."""
        self._whole += 1

    def again(self, frame: DeviceFrame, core: Window) -> DevicePicture:
        """`core` in fp32, after a picture on a device that turned out to be broken.

        Raises:
            DeviceError: out of memory at the smallest tile.
            KeyscaleError: that was fp32.
        """
        exact = self.model.exact()
        if exact is None:
            raise self.broken()
        self._broken += 1
        self._tell_of_broken()
        self._running = exact
        picture: DevicePicture = self._compute(frame, core)
        if self._whole or self._broken < ALWAYS_BROKEN:
            self._running = self.model
        return picture

    def _tell_of_broken(self) -> None:
        if not self._told:
            self._told = True
            self._note(f"{self.model.precision} gave a broken picture: recomputed in fp32, as any other that is")

    def broken(self) -> KeyscaleError:
        """What is raised where the network gives no picture in fp32 either."""
        return KeyscaleError(
            f"{self.model.spec.name} gave NaN or black for a picture that is neither",
            remedy=say("Check the weights with `keyscale models verify`, or use another {model} or {device}."),
        )

    def _repeat(self, frame: Any, core: Window) -> Any:
        made = self._made
        if made is None or not made.core.holds(core) or made.pixels.shape != frame.shape:
            return None
        spec = self.model.spec
        seen = core.widened(spec.halo, spec.align, self.lattice)
        region = np.s_[seen.y0 : seen.y1, seen.x0 : seen.x1]
        if not isinstance(frame, np.ndarray):
            equal = frame.equals(made.pixels, seen)
        else:
            equal = made.pixels is frame or np.array_equal(made.pixels[region], frame[region])
        if not equal:
            return None
        scale = spec.scale
        y, x = (core.y0 - made.core.y0) * scale, (core.x0 - made.core.x0) * scale
        return made.result[y : y + core.height * scale, x : x + core.width * scale]

    def _compute(self, frame: Any, core: Window) -> Any:
        while True:
            tile = self._side(core)
            try:
                return self._tiled(frame, core, tile)
            except OutOfMemory as error:
                said = str(error)
            smaller = min(tile, max(core.width, core.height)) // 2
            if smaller < SMALLEST_TILE:
                raise DeviceError(
                    f"{self.model.place} is out of memory even for a tile of {tile} pixels ({said})",
                    remedy=say("Close other programs, or use another {device}."),
                )
            self._tile = smaller
            self._note(f"{self.model.place} is out of memory: tiles of {smaller} pixels from here on")

    def _side(self, core: Window) -> int:
        whole = max(core.width, core.height)
        if self._tile is not None:
            return self._tile
        if not self._automatic:
            return whole
        spec = self.model.spec
        context = core.widened(spec.halo, spec.align, self.lattice)
        budget = self.model.budget()
        per_pixel = self.model.bytes_per_pixel
        if context.width * context.height * per_pixel <= budget:
            return whole
        return max(4 * SMALLEST_TILE, int(math.sqrt(budget / per_pixel)) - 2 * spec.halo)

    def _tiled(self, frame: Any, core: Window, side: int) -> Any:
        tiles = _split(core, side)
        if len(tiles) == 1:
            return self._tile_of(frame, core)
        scale = self.model.spec.scale
        height, width = core.height * scale, core.width * scale
        on_host = isinstance(frame, np.ndarray)
        out = np.empty((height, width, 3), dtype=frame.dtype) if on_host else frame.blank(height, width)
        for tile in tiles:
            y, x = (tile.y0 - core.y0) * scale, (tile.x0 - core.x0) * scale
            out[y : y + tile.height * scale, x : x + tile.width * scale] = self._tile_of(frame, tile)
        return out

    def _tile_of(self, frame: Any, tile: Window) -> Any:
        spec = self.model.spec
        seen = tile.widened(spec.halo, spec.align, self.lattice)
        pixels = frame[seen.y0 : seen.y1, seen.x0 : seen.x1]
        inner = Window(tile.x0 - seen.x0, tile.y0 - seen.y0, tile.x1 - seen.x0, tile.y1 - seen.y0)
        result = self._enlarged(pixels, inner)
        self.macs += seen.area * spec.macs_per_pixel
        return result

    def _enlarged(self, pixels: Any, inner: Window) -> Any:
        if not isinstance(pixels, np.ndarray):
            return self._running.enlarge(pixels, inner, should_stop=self._should_stop)
        if self._whole or self._broken < ALWAYS_BROKEN:
            try:
                result = self.model.enlarge(pixels, inner, should_stop=self._should_stop)
            except BrokenPicture:
                self._broken += 1
            else:
                self._whole += 1
                return result
        exact = self.model.exact()
        if exact is not None:
            self._tell_of_broken()
            try:
                return exact.enlarge(pixels, inner, should_stop=self._should_stop)
            except BrokenPicture:
                pass
        raise self.broken()


def _split(core: Window, side: int) -> list[Window]:
    """Tiles of nearly equal size that cover `core`, none longer than `side`."""
    rows, columns = math.ceil(core.height / side), math.ceil(core.width / side)
    ys = [core.y0 + core.height * i // rows for i in range(rows + 1)]
    xs = [core.x0 + core.width * i // columns for i in range(columns + 1)]
    return [Window(x0, y0, x1, y1) for y0, y1 in pairwise(ys) for x0, x1 in pairwise(xs)]
