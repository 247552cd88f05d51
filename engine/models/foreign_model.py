"""A foreign network at work, through OpenVINO or through ONNX Runtime's WebGPU provider.

It never sees a picture's end, but the edge repeated, as shipped networks do: nobody knows what it was trained with. One
that takes pictures of one size alone gets tiles of that size; on WebGPU every one does, since what computes shapes in a
graph would run on the CPU.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError, Interrupted
from keyscale.engine.models import webgpu
from keyscale.engine.models.enlarger import CPU_BUDGET, OutOfMemory, finished, surrounded
from keyscale.engine.models.foreign import Floats, Foreign, describe
from keyscale.engine.models.openvino import compiled, described, is_out_of_memory, load_openvino
from keyscale.engine.models.openvino_model import BYTES, HINTS, CpuPrecision, infer
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.source.colour import PixelArray

__all__ = ["ForeignModel"]

TILE = 256
"""Side of a tile on WebGPU, without its context, where memory allows that."""


class ForeignModel:
    """A foreign network on a device. One thread at a time."""

    def __init__(
        self, file: Foreign, *, precision: CpuPrecision, device: str = "cpu", spec: ModelSpec | None = None
    ) -> None:
        """Put a file to work.

        Args:
            file: what was read.
            precision: to compute in; one that the device has.
            device: `cpu`, `intel`, `intel:N` or `webgpu`.
            spec: of the plan, by which all of a job's chunks are made; None finds it by a trial.

        Raises:
            ModelError: as `describe`.
            DeviceError: it does not run on that device; on WebGPU, it cannot be made into a graph of one size or in
                fp16.
        """
        self.spec = spec or describe(file)
        assert self.spec.findings is not None
        self.sha256, self.precision, self.place = file.sha256, precision, device
        self.decibels: float | None = None
        self._file, self._size = file, self.spec.findings.size
        if device == "webgpu":
            halo, align = self.spec.halo, self.spec.align
            most = int(math.sqrt(self.budget() / self.bytes_per_pixel))
            side = max(align, min(TILE, most - 2 * halo) // align * align) + 2 * halo
            self._size = self._size or (side, side)
            half = precision == "fp16"
            try:
                self._session = webgpu.open_session(_of_one_size(file, self._size, half), self.spec.name, precision)
            except OutOfMemory as error:
                raise DeviceError(f"the memory of webgpu does not hold {file.path}: {error}") from error
        else:
            self._request = compiled(
                load_openvino().Core(), file.graph, HINTS[precision], device
            ).create_infer_request()

    @property
    def bytes_per_pixel(self) -> float:
        """Peak bytes of activations per input pixel, and those of the picture and the result."""
        assert self.spec.findings is not None
        return self.spec.findings.bytes_per_pixel * BYTES[self.precision] / 4 + 3 * 4 * (1 + 2 * self.spec.scale**2)

    def describe(self) -> str:
        """The device and what there is of it."""
        return webgpu.described() if self.place == "webgpu" else described(self.place)

    def budget(self) -> float:
        """Bytes of activations."""
        return 2 * webgpu.BINDING if self.place == "webgpu" else CPU_BUDGET

    def exact(self) -> ForeignModel | None:
        """The same in fp32 of a model in bf16 or fp16."""
        return (
            None
            if self.precision == "fp32"
            else ForeignModel(self._file, precision="fp32", device=self.place, spec=self.spec)
        )

    def enlarge(
        self, pixels: PixelArray, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> PixelArray:
        """See `Enlarger.enlarge`."""
        halo, align, scale = self.spec.halo, self.spec.align, self.spec.scale
        around = inner.aligned(align)
        across, down = around.width, around.height
        if self._size:
            across, down = (side - 2 * halo for side in self._size)
        more = max(0, across - around.width), max(0, down - around.height)
        seen = surrounded(pixels, around, halo, more=more)
        floats = seen.astype(np.float32) / np.float32(65535 if pixels.dtype == np.uint16 else 255)
        whole = np.empty((scale * (around.height + more[1]), scale * (around.width + more[0]), 3), np.float32)
        # The last of a row or column lies over the one before, so that all are of one size.
        for y in (min(y, around.height + more[1] - down) for y in range(0, around.height, down)):
            for x in (min(x, around.width + more[0] - across) for x in range(0, around.width, across)):
                if should_stop is not None and should_stop():
                    raise Interrupted("stopped while a frame was being upscaled")
                made = self._run(floats[y : y + down + 2 * halo, x : x + across + 2 * halo], should_stop)
                shown = made[scale * halo : scale * (halo + down), scale * halo : scale * (halo + across)]
                whole[scale * y : scale * (y + down), scale * x : scale * (x + across)] = shown
        part = inner.within(around)
        return finished(whole[part.y0 * scale : part.y1 * scale, part.x0 * scale : part.x1 * scale], pixels)

    def _run(self, picture: Floats, should_stop: Callable[[], bool] | None) -> Floats:
        """The network itself, `(H, W, 3)` to `(scale * H, scale * W, 3)`."""
        if self.place == "webgpu":
            (end,) = self._session.get_inputs()
            kind = np.float16 if "float16" in end.type else np.float32
            given = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], kind)
            try:
                (result,) = self._session.run(None, {end.name: given})
            except Exception as error:  # its exceptions have no base of their own
                raise webgpu.fault(error, self.spec.name, self.precision) from error
            made: Floats = result[0].transpose(1, 2, 0).astype(np.float32)
            return made
        try:
            infer(self._request, np.ascontiguousarray(picture[None]), should_stop)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(str(error)) from error
        found: Floats = self._request.get_output_tensor(0).data[0]
        return found


def _of_one_size(file: Foreign, size: tuple[int, int], half: bool) -> bytes:
    """The file's model for pictures of a width and height, in fp16 if `half`, its files beside it taken in."""
    import onnx

    try:
        model = onnx.load(str(file.path))
        known = {each.name for each in model.graph.initializer}
        (given,) = (each for each in model.graph.input if each.name not in known)
        for side, length in zip(given.type.tensor_type.shape.dim, (1, 3, size[1], size[0]), strict=True):
            side.Clear()
            side.dim_value = length
        # They may say that sizes are free.
        del model.graph.value_info[:]
        for side in model.graph.output[0].type.tensor_type.shape.dim:
            side.Clear()
        if half:
            converter = importlib.import_module("onnxruntime.transformers.float16")
            model = converter.convert_float_to_float16(onnx.shape_inference.infer_shapes(model), keep_io_types=True)
        made: bytes = model.SerializeToString()
    except Exception as error:  # checker, protobuf and converter have no common exception
        what = "cannot be converted to fp16" if half else "cannot be given one size"
        raise DeviceError(f"{file.path} {what} for webgpu: {str(error)[:200]}") from error
    return made
