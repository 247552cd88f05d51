"""A network ready to run in torch: weights, device and precision chosen, any window size accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError
from keyscale.engine.machine import describe_device
from keyscale.engine.models import torch_networks
from keyscale.engine.models.enlarger import CPU_BUDGET, TAIL_HALO, BrokenPicture, OutOfMemory
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.torch_device import (
    DTYPES,
    FREE_MEMORY,
    check_precision,
    device_fault,
    on_device,
    parse_precision,
    resolve_device,
    without_tf32,
)
from keyscale.engine.models.torch_picture import DevicePicture, is_sound
from keyscale.engine.source.colour import PixelArray

__all__ = ["Model"]

GPU_SHARE = 0.6
"""Part of the GPU's free memory to plan with; the allocator's rounding and cuDNN's workspace need the rest."""

LEAST_AUTOMATIC = 128
"""Side of the smallest tile that is chosen by memory, in source pixels, without its context."""

SIZES = 32
"""Windows of plain networks are made a multiple of this wide and high: cuDNN chooses an algorithm for each size, and a
camera that zooms would have it do so for every frame. A multiple of every `fold`."""

OTHER_BUDGET = 2 * 2**30
"""Bytes of activations where the device does not tell its free memory (MPS)."""


class Model:
    """A network on a device; call it with windows of pictures as tensors, or `enlarge` with them as arrays."""

    def __init__(
        self, state: Mapping[str, Tensor], spec: ModelSpec, *, sha256: str, device: str, precision: str
    ) -> None:
        """Put a state dict to work.

        Args:
            state: float tensors on the CPU; kept (not copied) for `to_precision`.
            spec: what the state dict is.
            sha256: digest of the weights that results depend on.
            device: `cpu`, `mps`, `cuda` or `cuda:N`.
            precision: `fp32`, `fp16` or `bf16`.

        Raises:
            DeviceError: no such device here, it cannot compute in that precision, or its memory does not hold the
                network.
            ModelError: the state dict is no network of a known kind.
        """
        self.spec = spec
        self.sha256 = sha256
        """Hexadecimal digest of the weights: of the file, or for a denoise blend of both files and the share."""
        self.device = resolve_device(device)
        self.precision = parse_precision(precision)
        self.decibels: float | None = None
        self.dtype = DTYPES[self.precision]
        """Element type of the result."""
        check_precision(self.device, self.precision)
        self._state = {key: value.float() for key, value in state.items()}
        self._twins: dict[str, Model] = {self.precision: self}
        network, _ = torch_networks.build(self._state, name=spec.name)
        try:
            network.to(device=self.device, dtype=self.dtype)
            for weight in network.parameters():
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
            self._half = torch.full((1, 1, 1), 0.5, device=self.device)
        except RuntimeError as error:
            fault = device_fault(error, self.device)
            if isinstance(fault, OutOfMemory):
                fault = DeviceError(
                    f"{self.device} has no memory for {spec.name} in {self.precision}: {fault}", remedy=FREE_MEMORY
                )
            if fault is None:
                raise
            raise fault from error
        self.network = network
        if isinstance(network, torch_networks.PlainNet) and self.device.type == "cuda" and torch.version.cuda:
            network.fused = self._fuses(network)

    def __call__(self, x: Tensor, *, should_stop: Callable[[], bool] | None = None) -> Tensor:
        """Enlarge pictures, or windows of them.

        Args:
            x: RGB `(N, 3, H, W)` in [0, 1], H and W from 1; any float type and device.
            should_stop: asked every now and then while the network runs.

        Returns:
            `(N, 3, scale*H, scale*W)` on the model's device in its `dtype`, nominally in [0, 1], not clamped.
            The network pads the window's border with zeros, as where a picture ends. A size that is no multiple
            of `spec.align` is first made one by repeating the last row and column; the surplus is cut off.
            It is an inference tensor: outside `torch.inference_mode()` it can be read, not changed in place.

        Raises:
            Interrupted: `should_stop` said so.
        """
        height, width = x.shape[2:]
        down, right = -height % self.spec.align, -width % self.spec.align
        with torch.inference_mode():
            x = x.to(device=self.device, dtype=self.dtype)
            if down or right:
                x = functional.pad(x, (0, right, 0, down), mode="replicate")
            x = x.contiguous(memory_format=torch.channels_last)
            with without_tf32() if self.device.type == "cuda" and self.precision == "fp32" else nullcontext():
                y: Tensor = self.network(x, should_stop)
            return y[:, :, : height * self.spec.scale, : width * self.spec.scale]

    def _fuses(self, network: torch_networks.PlainNet) -> bool:
        """Whether cuDNN's fused layers run here and give what the others do, on noise of a usual width."""
        noise = torch.rand((1, 3, 2 * SIZES, 2 * SIZES), generator=torch.Generator().manual_seed(0))
        try:
            apart = self(noise)
            network.fused = True
            # fp16 and bf16 round the sums of all layers otherwise; a wrong layer is off by far more.
            return float((self(noise) - apart).abs().max()) < 0.02
        except RuntimeError as error:
            fault = device_fault(error, self.device)
            if isinstance(fault, DeviceError):
                raise fault from error
            return False
        finally:
            network.fused = False

    def to_precision(self, precision: str) -> Model:
        """The same weights on the same device in another precision; built when first asked for and kept.

        Raises:
            DeviceError: the device cannot compute in that precision, or its memory does not hold both.
        """
        wanted = parse_precision(precision)
        if wanted not in self._twins:
            twin = Model(self._state, self.spec, sha256=self.sha256, device=str(self.device), precision=wanted)
            self._twins[wanted] = twin
            twin._twins = self._twins
        return self._twins[wanted]

    @property
    def place(self) -> str:
        """The device: `cpu`, `mps`, `cuda` or `cuda:N`."""
        return str(self.device)

    @property
    def bytes_per_pixel(self) -> float:
        """Peak bytes of activations per input pixel.

        Counted from what tensors are alive at once; a test holds it to what a simulated device allocates. On a GPU
        an RRDB network's tail, which runs in strips, is counted for the smallest window that is made of a larger one.
        """
        spec, size = self.spec, self.dtype.itemsize
        output = 3 * spec.scale**2
        if self.device.type == "cpu":
            tail = 2.5 * 16 * spec.features * size / spec.align**2
            return 3 * output * size + (
                tail if spec.architecture == "rrdb" else 3 * spec.features * size / spec.fold**2
            )
        # The picture in fp32, once more where a plain network's is widened, and what the network takes.
        given = 12 + (12 if spec.architecture == "plain" else 0) + 3 * size + (0 if spec.fold == 1 else 3 * size)
        if spec.architecture == "rrdb":
            rows = (LEAST_AUTOMATIC + 2 * spec.halo) / spec.align
            strip = min(1.0, (torch_networks.TAIL_ROWS + 2 * TAIL_HALO) / rows)
            body, tail = 5 * spec.features + 8 * spec.growth, (2 + 36 * strip) * spec.features + 48
            network = max(body, tail) * size / spec.align**2
        else:
            maps = spec.features / spec.fold**2
            last = maps if spec.architecture == "plain" else 0
            network = max(2 * maps, last + 2 * output, maps + output) * size
        # As the network gives it, in fp32, and in 8 bits.
        result = output * (size + 4 + 1)
        return given + max(network, result)

    def describe(self) -> str:
        """Device and what there is of it, for people, such as `cpu (4 threads)`."""
        return describe_device(self.place)

    def budget(self) -> float:
        """Bytes of activations that the device has room for now."""
        if self.device.type == "cpu":
            return CPU_BUDGET
        if self.device.type == "cuda":
            # What torch keeps for tensors to come is no longer free, but room all the same.
            kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return GPU_SHARE * (torch.cuda.mem_get_info(self.device)[0] + kept)
        return OTHER_BUDGET

    def on_cpu(self) -> Model:
        """The same in fp32 on the CPU, which the golden tile is compared with."""
        return Model(self._state, self.spec, sha256=self.sha256, device="cpu", precision="fp32")

    def exact(self) -> Model | None:
        """The same network in fp32; None where this one is in fp32."""
        return None if self.precision == "fp32" else self.to_precision("fp32")

    @overload
    def enlarge(
        self, pixels: PixelArray, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> PixelArray: ...

    @overload
    def enlarge(
        self, pixels: DevicePicture, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> DevicePicture: ...

    def enlarge(
        self, pixels: PixelArray | DevicePicture, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> PixelArray | DevicePicture:
        """See `Enlarger.enlarge`; of a picture on the device nothing is waited for, and `checks` tell if it broke."""

        def work() -> PixelArray | DevicePicture:
            if isinstance(pixels, DevicePicture):
                return self._enlarged(pixels, inner, should_stop)
            deep = pixels.dtype == np.uint16
            with torch.inference_mode():
                # Not every device has uint16.
                host = torch.from_numpy(np.ascontiguousarray(pixels, np.float32 if deep else np.uint8))
                picture = DevicePicture(host.to(self.device).to(torch.float32), 65535 if deep else 255)
                made = self._enlarged(picture, inner, should_stop)
                if not is_sound(torch.cat(made.checks).tolist()):
                    raise BrokenPicture
                return np.ascontiguousarray(made.pixels.cpu().numpy(), pixels.dtype)

        return on_device(self.device, work)

    def _enlarged(self, picture: DevicePicture, inner: Window, should_stop: Callable[[], bool] | None) -> DevicePicture:
        pixels, top = picture.pixels.permute(2, 0, 1)[None], picture.top
        left, right, above, below = self._margins(picture.shape, inner)
        if left or right or above or below:
            pixels = functional.pad(pixels, (left, right, above, below), mode="replicate")
        if self.device.type == "cuda":
            x = torch.empty(pixels.shape, dtype=self.dtype, device=self.device, memory_format=torch.channels_last)
            torch.div(pixels, top, out=x)
            y = self(x, should_stop=should_stop)
            least, greatest = y.aminmax()
        else:
            # Elsewhere by the plainest operations: MPS has had wrong results in other layouts.
            x = pixels / top
            y = self(x, should_stop=should_stop)
            least, greatest = y.amin(), y.amax()
        checks = torch.stack([x.mean(dtype=torch.float32), least, greatest]).float()
        scale = self.spec.scale
        x0, y0 = (inner.x0 + left) * scale, (inner.y0 + above) * scale
        part = y[0, :, y0 : y0 + inner.height * scale, x0 : x0 + inner.width * scale]
        codes = torch.add(self._half, part, alpha=top).clamp_(0, top)
        codes = codes.to(torch.uint8) if top == 255 else codes.floor_()
        return DevicePicture(codes.permute(1, 2, 0), top, (*picture.checks, checks))

    def _margins(self, shape: tuple[int, int, int], inner: Window) -> tuple[int, int, int, int]:
        """Pixels to repeat on the left, right, above and below of a plain network's window, as `surrounded` does."""
        if self.spec.architecture != "plain":
            return 0, 0, 0, 0
        halo, cells = self.spec.halo, inner.aligned(self.spec.fold)
        height, width = shape[:2]
        across, down = (-(-(side + 2 * halo) // SIZES) * SIZES for side in (cells.width, cells.height))
        left, above = max(0, halo - cells.x0), max(0, halo - cells.y0)
        return left, max(0, across - left - width), above, max(0, down - above - height)
