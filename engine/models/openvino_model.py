"""A network through OpenVINO, on the CPU or on a GPU of Intel's.

A graph of a plain network is compiled for each size of window: for sizes left open the CPU plugin fuses less and needs
a third more time. Windows are widened a little so that those of a moving camera share a size; what comes out for a
pixel is the same to the last bit. Convolutions of other networks take so much longer that it makes no difference to
them: one graph takes every size.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import Interrupted
from keyscale.engine.models.enlarger import CPU_BUDGET, TAIL_HALO, OutOfMemory, finished, surrounded
from keyscale.engine.models.openvino import compiled, described, is_out_of_memory, load_openvino
from keyscale.engine.models.openvino_graph import folded, interleaved, with_pixels
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.source.colour import PixelArray

__all__ = ["BYTES", "HINTS", "CpuPrecision", "OpenvinoModel", "infer"]

CpuPrecision = Literal["fp32", "bf16", "fp16", "int8"]

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""What the plugin is told; by itself it takes bf16 where the processor supports that. A quantised graph says for each
of its layers what it is computed in, and the rest stays in fp32."""

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Of a value between two layers."""

STEP = 8
"""Input pixels of which a window's sides are made multiples."""
ROOM = 8
"""Of a camera that moves away: a new size gets an eighth more on each side, since compiling takes as long as
two or three windows do."""
JUMP = 1.5
"""Ratio of areas from which a larger window is a cut and not a movement."""
SURPLUS = 1.6
"""How many times the area needed a compiled size may have; above (1 + 1/ROOM)**2, so that room is of use."""
MOST_GRAPHS = 12
"""Kept: each holds some megabytes beside its activations."""

TAIL_BYTES = 96 * 2**20
"""Of activations for the rows that an RRDB network's tail enlarges at once."""
LEAST_TAIL_ROWS = 8
"""At once, however wide the window is: the context of a row are `TAIL_HALO` more on each side."""

ASKED_EVERY_MS = 100
"""How often it is asked whether to stop while a graph runs; the plugin leaves it between two layers."""

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Ready:
    """A compiled graph with its memory."""

    request: Any
    size: int
    """Bytes of activations."""


class OpenvinoModel:
    """A network on the CPU, or on a GPU of Intel's. One thread at a time."""

    def __init__(
        self,
        graph: Any,
        spec: ModelSpec,
        *,
        sha256: str,
        precision: CpuPrecision,
        tail: Any = None,
        device: str = "cpu",
    ) -> None:
        """Put a graph to work.

        Args:
            graph: as `build_graph` gives it, or that of a plain network quantised.
            spec: what it is.
            sha256: digest of the weights that results depend on.
            precision: to compute in; one that this CPU has, as `cpu_precisions` tells, or on a GPU `fp32` or `fp16`.
            tail: as `build_tail` gives it.
            device: `cpu`, `intel` or `intel:N`.
        """
        self.place = device
        self.spec = spec
        self.sha256 = sha256
        self.precision = precision
        self.decibels: float | None = None
        self._core = load_openvino().Core()
        self._sources = graph, tail
        # fp16 may overflow, which only floats show.
        kinds = {deep: np.float32 if deep or precision == "fp16" else np.uint8 for deep in (False, True)}
        self._graphs = {(deep, False): with_pixels(graph, kinds[deep]) for deep in kinds}
        if tail is not None:
            self._graphs |= {(deep, True): with_pixels(tail, kinds[deep]) for deep in kinds}
        self._ready: dict[tuple[bool, bool, Size | None], _Ready] = {}
        self._least: Size | None = None
        self.compilations = 0
        """Graphs compiled so far."""

    @property
    def bytes_per_pixel(self) -> float:
        """Peak bytes of activations per input pixel.

        Two feature maps, the cells in f32 and as pixels. Of an RRDB network what its trunk was seen to take: features
        of the residuals, joined inputs of a dense block's layers, what came out of those before, and the result twice.
        """
        size, features, cell = BYTES[self.precision], self.spec.features, self.spec.align**2
        if self.spec.architecture == "rrdb":
            return ((6 * features + 14 * self.spec.growth) * size + 2 * features * 4) / cell + 3 * (1 + 4)
        return 2 * features * size / cell + 3 * self.spec.scale**2 * (4 + 4) + 3 * (1 + 4)

    def describe(self) -> str:
        """`cpu` and the number of threads, or the GPU and its name."""
        return described(self.place)

    def budget(self) -> float:
        """Bytes of activations."""
        return CPU_BUDGET if self._sources[1] is None else CPU_BUDGET - TAIL_BYTES

    def exact(self) -> OpenvinoModel | None:
        """The same in fp32 of a model in bf16 or fp16; None of others, which do not overflow."""
        if self.precision in {"fp32", "int8"}:
            return None
        graph, tail = self._sources
        return OpenvinoModel(graph, self.spec, sha256=self.sha256, precision="fp32", tail=tail, device=self.place)

    def _size(self, deep: bool, least: Size) -> Size:
        """Width and height of the graph to use for a window of that size, compiled already or to be."""
        area = least[0] * least[1]
        there = [
            size
            for kind, _, size in self._ready
            if size and kind == deep and size[0] >= least[0] and size[1] >= least[1]
            if size[0] * size[1] <= SURPLUS * area
        ]
        before, self._least = self._least, least
        if there:
            return min(there, key=lambda size: size[0] * size[1])
        # A camera that moves away needs a little more in every frame; after a cut, or nearing, this size will do.
        grows = before is not None and 1 < area / (before[0] * before[1]) < JUMP
        width, height = (-(-(side + side // ROOM if grows else side) // STEP) * STEP for side in least)
        return width, height

    def enlarge(
        self, pixels: PixelArray, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> PixelArray:
        """See `Enlarger.enlarge`; `should_stop` is asked while it runs too."""
        if should_stop is not None and should_stop():
            raise Interrupted("stopped while a frame was being upscaled")
        deep, cell, scale = pixels.dtype == np.uint16, self.spec.align, self.spec.scale
        top, as_floats = 65535 if deep else 255, deep or self.precision == "fp16"
        around, size = inner.aligned(cell), None
        if self.spec.architecture == "plain":
            halo = self.spec.halo
            least = (around.width + 2 * halo, around.height + 2 * halo)
            size = self._size(deep, least)
            seen = surrounded(pixels, around, halo, more=(size[0] - least[0], size[1] - least[1]))
            around = Window(halo, halo, halo + around.width, halo + around.height)
            given = folded(seen.astype(np.float32) / np.float32(top) if as_floats else seen, cell)
        else:
            # They were trained on pictures with zeros beyond the border, as their convolutions have them by themselves.
            odd = ((0, -pixels.shape[0] % cell), (0, -pixels.shape[1] % cell), (0, 0))
            seen = np.pad(pixels, odd, mode="edge") if any(map(any, odd)) else pixels
            codes = seen / np.float32(top // 255) if as_floats else seen
            rest = codes % 1 if deep else np.zeros_like(codes)
            given = np.concatenate((folded(codes - rest, cell), folded(rest, cell)), -1)
            if given.shape[:2] == (1, 1):
                size = (cell, cell)  # of a single cell in bf16 the plugin's dynamic graphs are 16 codes off
        cells = Window(around.x0 // cell, around.y0 // cell, around.x1 // cell, around.y1 // cell)
        try:
            request = self._request((deep, False, size))
            infer(request, given[None], should_stop)
            found = request.get_output_tensor(0).data
            if self._sources[1] is None:
                whole = interleaved(found[0, cells.y0 : cells.y1, cells.x0 : cells.x1], scale * cell)
            else:
                whole = self._tail(found, cells, deep, should_stop)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._ready.clear()
            raise OutOfMemory(str(error)) from error
        part = inner.within(inner.aligned(cell))
        return finished(whole[part.y0 * scale : part.y1 * scale, part.x0 * scale : part.x1 * scale], pixels)

    def _tail(
        self, features: npt.NDArray[np.float32], cells: Window, deep: bool, should_stop: Callable[[], bool] | None
    ) -> PixelArray:
        """The pixels of some cells of an RRDB network's trunk, `(4 * cells.height, 4 * cells.width, 3)`.

        On the quadrupled grid two feature maps are 16 times as large as the trunk's, so that rows are enlarged a few at
        a time.
        """
        height, width = features.shape[2:]
        x0, x1 = max(0, cells.x0 - TAIL_HALO), min(width, cells.x1 + TAIL_HALO)
        row = 16 * 2 * self.spec.features * BYTES[self.precision] * (x1 - x0)
        parts = math.ceil(cells.height / max(LEAST_TAIL_ROWS, TAIL_BYTES // row - 2 * TAIL_HALO))
        request, made = self._request((deep, True, None)), []
        for number in range(parts):
            top, bottom = (cells.y0 + cells.height * n // parts for n in (number, number + 1))
            y0, y1 = max(0, top - TAIL_HALO), min(height, bottom + TAIL_HALO)
            infer(request, np.ascontiguousarray(features[:, :, y0:y1, x0:x1]), should_stop)
            shown = np.s_[4 * (top - y0) : 4 * (bottom - y0), 4 * (cells.x0 - x0) : 4 * (cells.x1 - x0)]
            made.append(request.get_output_tensor(0).data[0][shown].copy())
        return made[0] if parts == 1 else np.concatenate(made)

    def _request(self, key: tuple[bool, bool, Size | None]) -> Any:
        ready = self._ready.pop(key, None) or self._compiled(key)
        # The last one is the most recently used.
        self._ready[key] = ready
        while len(self._ready) > 1 and (
            len(self._ready) > MOST_GRAPHS or sum(each.size for each in self._ready.values()) > CPU_BUDGET
        ):
            self._ready.pop(next(iter(self._ready)))
        return ready.request

    def _compiled(self, key: tuple[bool, bool, Size | None]) -> _Ready:
        deep, is_tail, size = key
        self.compilations += 1
        graph = self._graphs[deep, is_tail].clone()
        if size is not None:
            cell, channels = self.spec.align, graph.input(0).get_partial_shape()[3]
            graph.reshape([1, size[1] // cell, size[0] // cell, channels])
        ready = compiled(self._core, graph, HINTS[self.precision], self.place)
        area = size[0] * size[1] if size is not None else 0
        return _Ready(ready.create_infer_request(), int(area * self.bytes_per_pixel))


def infer(request: Any, given: npt.NDArray[Any], should_stop: Callable[[], bool] | None) -> None:
    """Run a graph.

    Raises:
        Interrupted: `should_stop` said so.
    """
    if should_stop is None:
        request.infer({0: given}, share_inputs=True)
        return
    request.start_async({0: given}, share_inputs=True)
    while not request.wait_for(ASKED_EVERY_MS):
        if should_stop():
            request.cancel()
            with contextlib.suppress(RuntimeError):  # so it says that it was cancelled
                request.wait()
            raise Interrupted("stopped while a frame was being upscaled")
    request.wait()
