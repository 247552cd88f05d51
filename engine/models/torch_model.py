"""A network ready to run in torch: weights, device and precision chosen, any window size accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError, UsageError
from keyscale.engine.machine import describe_device
from keyscale.engine.models import torch_networks
from keyscale.engine.models.enlarger import BLACK, CPU_BUDGET, DARK, BrokenPicture, OutOfMemory, surrounded
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.wording import say

__all__ = ["Model", "Precision", "parse_precision", "resolve_device"]

Precision = Literal["fp32", "fp16", "bf16"]

GPU_SHARE = 0.6
"""Part of the GPU's free memory to plan with; the allocator's rounding and cuDNN's workspace need the rest."""

OTHER_BUDGET = 2 * 2**30
"""Bytes of activations where the device does not tell its free memory (MPS)."""

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def parse_precision(text: str) -> Precision:
    """`"fp32"`, `"fp16"` or `"bf16"`, as such.

    Raises:
        UsageError: anything else, `"auto"` too: that is decided where the device is.
    """
    precisions: tuple[Precision, ...] = get_args(Precision)
    for precision in precisions:
        if text == precision:
            return precision
    raise UsageError(f"{text!r} is no precision of a network", remedy="Use fp32, fp16 or bf16.")


def resolve_device(text: str) -> torch.device:
    """`"cpu"`, `"mps"`, `"cuda"` or `"cuda:N"` as a torch device that is there.

    Raises:
        DeviceError: not one of these, or absent on this machine.
    """
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise DeviceError(f"{text!r} is no device", remedy="Use cpu, mps, cuda or cuda:N.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            built = "" if torch.version.cuda or torch.version.hip else ", and this torch was built without CUDA"
            raise DeviceError(
                f"there is no device {text} on this machine: torch sees {count} CUDA devices{built}",
                remedy=say("Use {device=cpu}, or check the driver and which torch is installed."),
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError(
                "there is no device mps on this machine", remedy=say("Use {device=cpu}; mps needs an Apple GPU.")
            )
    elif device.type != "cpu":
        raise DeviceError(f"{text!r} is no device that keyscale uses", remedy="Use cpu, mps, cuda or cuda:N.")
    return device


def _check_precision(device: torch.device, precision: Precision) -> None:
    """Run one pixel through a convolution: what a backend lacks, it says only then."""
    if precision == "fp32" or device.type == "cuda":
        return
    dtype = _DTYPES[precision]
    try:
        with torch.inference_mode():
            pixel = torch.zeros(1, 3, 3, 3, device=device, dtype=dtype)
            functional.prelu(functional.conv2d(pixel, pixel), pixel[0, 0, 0, :1])
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"{precision} does not run on {device} with torch {torch.__version__}: {error}",
            remedy=say("Use {precision=fp32}."),
        ) from error


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
            DeviceError: no such device here, or the device cannot compute in that precision.
            ModelError: the state dict is no network of a known kind.
        """
        self.spec = spec
        self.sha256 = sha256
        """Hexadecimal digest of the weights: of the file, or for a denoise blend of both files and the share."""
        self.device = resolve_device(device)
        self.precision = parse_precision(precision)
        self.decibels: float | None = None
        self.dtype = _DTYPES[self.precision]
        """Element type of the result."""
        _check_precision(self.device, self.precision)
        self._state = {key: value.float() for key, value in state.items()}
        self._twins: dict[str, Model] = {self.precision: self}
        network, _ = torch_networks.build(self._state, name=spec.name)
        network.to(device=self.device, dtype=self.dtype)
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self.network = network

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
            y: Tensor = self.network(x, should_stop)
            return y[:, :, : height * self.spec.scale, : width * self.spec.scale]

    def to_precision(self, precision: str) -> Model:
        """The same weights on the same device in another precision; built when first asked for and kept.

        Raises:
            DeviceError: the device cannot compute in that precision.
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

        Counted from the layers: a stack of convolutions holds two feature maps and its output; an RRDB network peaks
        at two feature maps on the quadrupled grid.
        """
        size = self.dtype.itemsize
        output = 3 * self.spec.scale**2 * size * 3
        if self.spec.architecture != "rrdb":
            return output + 3 * self.spec.features * size / self.spec.fold**2
        return output + 2.5 * 16 * self.spec.features * size / self.spec.align**2

    def describe(self) -> str:
        """Device and what there is of it, for people, such as `cpu (4 threads)`."""
        return describe_device(self.place)

    def budget(self) -> float:
        """Bytes of activations that the device has room for now."""
        if self.device.type == "cpu":
            return CPU_BUDGET
        if self.device.type == "cuda":
            return GPU_SHARE * torch.cuda.mem_get_info(self.device)[0]
        return OTHER_BUDGET

    def on_cpu(self) -> Model:
        """The same in fp32 on the CPU, which the golden tile is compared with."""
        return Model(self._state, self.spec, sha256=self.sha256, device="cpu", precision="fp32")

    def exact(self) -> Model | None:
        """The same network in fp32; None where this one is in fp32."""
        return None if self.precision == "fp32" else self.to_precision("fp32")

    def enlarge(
        self, pixels: PixelArray, inner: Window, *, should_stop: Callable[[], bool] | None = None
    ) -> PixelArray:
        """See `Enlarger.enlarge`."""
        if self.spec.architecture == "plain":
            halo, cells = self.spec.halo, inner.aligned(self.spec.fold)
            pixels = surrounded(pixels, cells, halo)
            inner = inner.within(Window(cells.x0 - halo, cells.y0 - halo, cells.x1 + halo, cells.y1 + halo))
        try:
            with torch.inference_mode():
                x = _to_tensor(pixels, self.device)
                y = self(x, should_stop=should_stop)
                if not _is_picture(x, y):
                    raise BrokenPicture
                scale = self.spec.scale
                part = y[0, :, inner.y0 * scale : inner.y1 * scale, inner.x0 * scale : inner.x1 * scale]
                return _to_pixels(part, pixels.dtype)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            said = str(error)
        # Out here, where no traceback holds the tensors that did fit.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(said)


def _to_tensor(pixels: PixelArray, device: torch.device) -> Tensor:
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


def _to_pixels(y: Tensor, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> PixelArray:
    """`(3, H, W)` in about [0, 1] -> `(H, W, 3)`, rounded on the device so that few bytes cross to the host.

    `y` is used up: float32 values are overwritten.
    """
    top = 255.0 if dtype == np.uint8 else 65535.0
    scaled = y.to(torch.float32).clamp_(0, 1).mul_(top).add_(0.5).permute(1, 2, 0)
    if dtype == np.uint8:
        return np.asarray(_to_host(scaled.to(torch.uint8).contiguous()).numpy())
    # Not every device stores uint16; int32 holds its range.
    return np.asarray(_to_host(scaled.to(torch.int32).contiguous()).numpy().astype(np.uint16))


def _to_host(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return pinned


def _is_picture(x: Tensor, y: Tensor) -> bool:
    if not bool(torch.isfinite(y.sum(dtype=torch.float32))):
        return False
    return not (float(x.mean()) > DARK and float(y.max()) < BLACK)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator and MPS raise plain RuntimeErrors.
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error) or "can't allocate" in str(error)
