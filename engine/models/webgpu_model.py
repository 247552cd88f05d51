"""A network through ONNX Runtime's WebGPU provider: pixels up, the result's pixels down, all between on the adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import Interrupted
from keyscale.engine.models.enlarger import TAIL_HALO, finished, surrounded
from keyscale.engine.models.onnx_graph import build_onnx
from keyscale.engine.models.openvino_graph import folded
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.webgpu import BINDING, described, fault, open_session
from keyscale.engine.source.colour import PixelArray

__all__ = ["WebgpuModel", "WebgpuPrecision"]

WebgpuPrecision = Literal["fp32", "fp16"]

SIZES = 32
"""Windows of plain networks are made a multiple of this wide and high: kernels are made for each size anew."""


class WebgpuModel:
    """A network on the adapter that WebGPU takes. One thread at a time."""

    place = "webgpu"

    def __init__(self, state: Mapping[str, Any], spec: ModelSpec, *, sha256: str, precision: WebgpuPrecision) -> None:
        """Put a state dict to work.

        Args:
            state: as `build_onnx` takes it; kept for `exact`.
            spec: what it is.
            sha256: digest of the weights that results depend on.
            precision: to compute in.

        Raises:
            DeviceError: the provider is not installed, there is no adapter, or it does not run the network.
        """
        self.spec = spec
        self.sha256 = sha256
        self.precision = precision
        self.decibels: float | None = None
        self._state = state
        self._sessions: dict[bool, Any] = {}
        self._session(floats=precision == "fp16")

    @property
    def bytes_per_pixel(self) -> float:
        """Bytes of the two largest tensors per input pixel; for an RRDB network more, so that its tail fits too.

        The tail has 16 times as many features per cell, but only for the wanted part: this makes tiles about 170 cells
        wide without their context.
        """
        spec, cell = self.spec, self.spec.align**2
        if spec.architecture == "rrdb":
            return (6 * spec.features + 7 * spec.growth) * 4 / cell
        return 2 * 4 * max(spec.features / cell, 3 * spec.scale**2)

    def describe(self) -> str:
        """`webgpu` and the adapter's name."""
        return described()

    def budget(self) -> float:
        """Bytes of two tensors."""
        return 2 * BINDING

    def exact(self) -> WebgpuModel | None:
        """The same in fp32 of a model in fp16, which may overflow."""
        if self.precision == "fp32":
            return None
        return WebgpuModel(self._state, self.spec, sha256=self.sha256, precision="fp32")

    def enlarge(
        self, pixels: PixelArray, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> PixelArray:
        """See `Enlarger.enlarge`."""
        if should_stop is not None and should_stop():
            raise Interrupted("stopped while a frame was being upscaled")
        spec, cell, scale = self.spec, self.spec.align, self.spec.scale
        deep = pixels.dtype == np.uint16
        floats = deep or self.precision == "fp16"
        around = inner.aligned(cell)
        if spec.architecture == "plain":
            halo = spec.halo
            more = (-(around.width + 2 * halo) % SIZES, -(around.height + 2 * halo) % SIZES)
            seen = surrounded(pixels, around, halo, more=more)
            shown, around = inner.within(around), Window(halo, halo, halo + around.width, halo + around.height)
        else:
            # Zeros beyond the frame's border, as their convolutions have them by themselves.
            odd = ((0, -pixels.shape[0] % cell), (0, -pixels.shape[1] % cell), (0, 0))
            seen = np.pad(pixels, odd, mode="edge") if any(map(any, odd)) else pixels
            shown = inner.within(around)
        given = folded(seen.astype(np.float32) / np.float32(65535 if deep else 255) if floats else seen, cell)
        part = np.array([[around.y0, around.x0], [around.y1, around.x1]]) // cell
        feed = {"begin": part[0], "end": part[1]}
        cut = np.array([[shown.y0, shown.x0], [shown.y1, shown.x1]]) * scale
        if spec.architecture == "rrdb":
            begin = np.maximum(part[0] - TAIL_HALO, 0)
            feed = {"begin": begin, "end": np.minimum(part[1] + TAIL_HALO, given.shape[:2])}
            cut += (part[0] - begin) * scale * cell
            feed |= {"shown_begin": cut[0], "shown_end": cut[1]}
            cut = cut - cut[0]
        session = self._session(floats=floats)
        try:
            (result,) = session.run(None, {"pixels": given[None], **feed})
        except Exception as error:  # its exceptions have no base of their own
            raise fault(error, self.spec.name, self.precision) from error
        return finished(result[0][cut[0][0] : cut[1][0], cut[0][1] : cut[1][1]], pixels)

    def _session(self, *, floats: bool) -> Any:
        if floats not in self._sessions:
            graph = build_onnx(self._state, self.spec, half=self.precision == "fp16", floats=floats)
            self._sessions[floats] = open_session(graph, self.spec.name, self.precision)
        return self._sessions[floats]
