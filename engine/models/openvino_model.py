"""A plain network on the CPU through OpenVINO.

A graph is compiled for each size of window: for sizes left open the CPU plugin fuses less and needs a third more
time. Windows are widened a little so that those of a moving camera share a size; what comes out for a pixel is the
same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import Interrupted
from keyscale.engine.models.enlarger import BLACK, CPU_BUDGET, DARK, BrokenPicture, OutOfMemory, surrounded
from keyscale.engine.models.openvino import is_out_of_memory, load_openvino, plugin_at_work, thread_count
from keyscale.engine.models.openvino_graph import folded, interleaved, with_pixels
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.source.colour import PixelArray

__all__ = ["OpenvinoModel"]

STEP = 8
"""Input pixels of which a window's sides are made multiples."""
ROOM = 8
"""Of a camera that moves away: a new size gets the eighth part more on each side, since compiling takes as long as
two or three windows do."""
JUMP = 1.5
"""Ratio of areas from which a larger window is a cut and not a movement."""
SURPLUS = 1.6
"""How many times the area needed a compiled size may have; above (1 + 1/ROOM)**2, so that room is of use."""
MOST_GRAPHS = 12
"""Kept: each holds some megabytes beside its activations."""


@dataclass(frozen=True, eq=False)
class _Ready:
    """A compiled graph with its memory."""

    request: Any
    size: int
    """Bytes of activations."""


class OpenvinoModel:
    """A plain network on the CPU. One thread at a time."""

    place = "cpu"

    def __init__(self, graph: Any, spec: ModelSpec, *, sha256: str, precision: Literal["fp32", "int8"]) -> None:
        """Put a graph to work.

        Args:
            graph: as `build_graph` gives it, or the same quantised.
            spec: what it is.
            sha256: digest of the weights that results depend on.
            precision: of the graph.
        """
        self.spec = spec
        self.sha256 = sha256
        self.precision = precision
        self.threads = thread_count()
        self._core = load_openvino().Core()
        self._graphs = {deep: with_pixels(graph, np.float32 if deep else np.uint8) for deep in (False, True)}
        self._ready: dict[tuple[bool, int, int], _Ready] = {}
        self._least: tuple[int, int] | None = None
        self.compilations = 0
        """Graphs compiled so far."""

    @property
    def bytes_per_pixel(self) -> float:
        """Peak bytes of activations per input pixel: two feature maps, the cells in f32 and as pixels."""
        feature = 1 if self.precision == "int8" else 4
        maps = 2 * self.spec.features * feature / self.spec.fold**2
        return maps + 3 * self.spec.scale**2 * (4 + 4) + 3 * (1 + 4)

    def describe(self) -> str:
        """`cpu` and the number of threads."""
        return f"cpu ({self.threads} {'thread' if self.threads == 1 else 'threads'})"

    def budget(self) -> float:
        """Bytes of activations."""
        return CPU_BUDGET

    def exact(self) -> None:
        """None: neither int8 nor fp32 overflows."""

    def _size(self, deep: bool, least: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the graph to use for a window of that size, compiled already or to be."""
        area = least[0] * least[1]
        there = [
            (width, height)
            for kind, width, height in self._ready
            if kind == deep and width >= least[0] and height >= least[1] and width * height <= SURPLUS * area
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
        """See `Enlarger.enlarge`; `should_stop` is asked once."""
        if should_stop is not None and should_stop():
            raise Interrupted("stopped while a frame was being upscaled")
        deep = pixels.dtype == np.uint16
        halo, fold = self.spec.halo, self.spec.fold
        around = inner.aligned(fold)
        least = (around.width + 2 * halo, around.height + 2 * halo)
        width, height = self._size(deep, least)
        seen = surrounded(pixels, around, halo, more=(width - least[0], height - least[1]))
        given = folded(seen.astype(np.float32) / np.float32(65535) if deep else seen, fold)
        try:
            request = self._request(deep, width, height)
            request.infer({0: given[None]}, share_inputs=True)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._ready.clear()
            raise OutOfMemory(str(error)) from error
        edge, rows, columns = halo // fold, around.height // fold, around.width // fold
        cells = request.get_output_tensor(0).data[0, edge : edge + rows, edge : edge + columns]
        if deep:
            cells = (cells.clip(0, 1) * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
        part, scale = inner.within(around), self.spec.scale
        whole = interleaved(cells, scale * fold)
        result = whole[part.y0 * scale : part.y1 * scale, part.x0 * scale : part.x1 * scale]
        top = 65535 if deep else 255
        if result.max(initial=0) < BLACK * top and given.mean() > (DARK if deep else DARK * top):
            raise BrokenPicture
        return result

    def _request(self, deep: bool, width: int, height: int) -> Any:
        key = (deep, width, height)
        ready = self._ready.pop(key, None) or self._compiled(key)
        # The last one is the most recently used.
        self._ready[key] = ready
        while len(self._ready) > 1 and (
            len(self._ready) > MOST_GRAPHS or sum(each.size for each in self._ready.values()) > CPU_BUDGET
        ):
            self._ready.pop(next(iter(self._ready)))
        return ready.request

    def _compiled(self, key: tuple[bool, int, int]) -> _Ready:
        deep, width, height = key
        self.compilations += 1
        graph = self._graphs[deep].clone()
        fold = self.spec.fold
        graph.reshape([1, height // fold, width // fold, 3 * fold**2])
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # By itself it takes bf16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            # Pinned threads of two jobs would meet on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        with plugin_at_work():
            compiled = self._core.compile_model(graph, "CPU", settings)
        return _Ready(compiled.create_infer_request(), int(height * width * self.bytes_per_pixel))
