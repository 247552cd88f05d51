"""Devices of torch: whether one is there and computes right, and what its errors mean."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

import torch
from torch.nn import functional

from keyscale.engine.errors import DeviceError, DeviceLost, UsageError
from keyscale.engine.machine import describe_device, lacks_kernels
from keyscale.engine.models.enlarger import OutOfMemory
from keyscale.engine.wording import say

__all__ = [
    "DTYPES",
    "FREE_MEMORY",
    "Precision",
    "check_precision",
    "device_fault",
    "on_device",
    "parse_precision",
    "resolve_device",
    "without_tf32",
]

Precision = Literal["fp32", "fp16", "bf16"]
Result = TypeVar("Result")

OTHER_TORCH = say("Use {device=cpu} or another {device}, or install a torch that was built for this GPU.")

FREE_MEMORY = say("Close other programs, or use another {device}.")

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

SHORTAGES = ("out of memory", "can't allocate", "ALLOC_FAILED", "unable to find an engine")
"""How torch, cuDNN and cuBLAS say that memory has run out. The last is cuDNN's where no algorithm's workspace fits;
what a device cannot compute at all is found when a model is loaded."""

UNSUPPORTED = ("unable to find an engine", "NOT_SUPPORTED")
"""How cuDNN says of the first, small convolution that the device does not compute in that precision."""

NO_KERNELS = ("no kernel image", "ARCH_MISMATCH")
"""How CUDA and cuDNN say that they were not built for this device."""

FAILURES = ("CUDA error", "HIP error", "CUDNN_STATUS", "CUBLAS_STATUS", "MIOPEN_STATUS")
"""Whatever else these say: after most of it the process's context is dead and every further call fails alike."""


def parse_precision(text: str) -> Precision:
    """`"fp32"`, `"fp16"` or `"bf16"`, as such.

    Raises:
        UsageError: anything else, `"auto"` too: that is decided where the device is.
    """
    precisions: tuple[Precision, ...] = get_args(Precision)
    for precision in precisions:
        if text == precision:
            return precision
    raise UsageError(f"{text!r} is not a precision", remedy="Use fp32, fp16 or bf16.")


def resolve_device(text: str) -> torch.device:
    """`"cpu"`, `"mps"`, `"cuda"` or `"cuda:N"` as a torch device that is there.

    Raises:
        DeviceError: not one of these, absent on this machine, or one that torch has no kernels for.
    """
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise DeviceError(f"{text!r} is not a device", remedy="Use cpu, mps, cuda or cuda:N.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) < count:
            if (wrong := lacks_kernels(text)) is not None:
                raise DeviceError(wrong, remedy=OTHER_TORCH)
        else:
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
        raise DeviceError(f"{text!r} is not a device that keyscale uses", remedy="Use cpu, mps, cuda or cuda:N.")
    return device


def check_precision(device: torch.device, precision: Precision) -> None:
    """Run a small convolution and wait for it: what a device lacks, it says only then.

    Raises:
        DeviceError: the device does not compute in that precision, or torch has no kernels for it.
        DeviceLost: it failed.
    """
    if device.type == "cpu" and precision == "fp32":
        return
    dtype = DTYPES[precision]
    try:
        with torch.inference_mode():
            x = torch.full((1, 64, 16, 16), 0.5, device=device, dtype=dtype)
            weight = torch.full((64, 64, 3, 3), 1 / 576, device=device, dtype=dtype)
            y = functional.prelu(functional.conv2d(x, weight), weight[:1, 0, 0, 0])
            right = abs(float(y.float().mean()) - 0.5) < 0.01
    except (RuntimeError, TypeError) as error:
        said = _first_line(str(error))
        fault = None if any(words in said for words in UNSUPPORTED) else device_fault(error, device)
        if isinstance(fault, OutOfMemory):
            fault = DeviceError(f"{device} is out of memory: {said}", remedy=FREE_MEMORY)
        if fault is not None:
            raise fault from error
    else:
        if right:
            return
        said = "it gives wrong numbers"
    raise DeviceError(
        f"{precision} does not run on {device} with torch {torch.__version__}: {said}",
        remedy=say("Use another {device}.") if precision == "fp32" else say("Use {precision=fp32}."),
    )


def device_fault(error: Exception, device: torch.device) -> OutOfMemory | DeviceError | None:
    """What torch means by an error of a device; None where it is none of the device's."""
    said = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(words in said for words in SHORTAGES):
        return OutOfMemory(_first_line(said))
    if any(words in said for words in NO_KERNELS):
        return DeviceError(f"{describe_device(str(device))} does not run with this torch: {said}", remedy=OTHER_TORCH)
    if device.type == "cuda" and any(words in said for words in FAILURES):
        return DeviceLost(
            f"{device} failed: {_first_line(said)}",
            remedy="Run it again: finished chunks are kept. If it fails again, look into the driver's log (dmesg).",
        )
    return None


def on_device(device: torch.device, work: Callable[[], Result]) -> Result:
    """What `work` gives.

    Raises:
        OutOfMemory: the device has no room for it; what torch kept for later is given back.
        DeviceError: see `device_fault`.
    """
    try:
        return work()
    except RuntimeError as error:
        fault = device_fault(error, device)
        if fault is None:
            raise
    # Out here, where no traceback holds the tensors that did fit.
    if isinstance(fault, OutOfMemory) and device.type == "cuda":
        torch.cuda.empty_cache()
    raise fault


def _first_line(said: str) -> str:
    return said.strip().partition("\n")[0]


_tf32 = threading.Lock()
_tf32_held: list[Any] = []


@contextmanager
def without_tf32() -> Iterator[None]:
    """cuDNN's fp32 convolutions in fp32 within the block, whatever torch's settings say.

    The setting is the whole process's and is read as a convolution is issued: it is changed while a network is
    issued, and put back by the last thread that leaves. A program's own convolutions in other threads may be
    more exact for that time.
    """
    where: Any = torch.backends.cudnn
    setting: tuple[str, object] = ("allow_tf32", False)
    if hasattr(where, "conv"):  # torch 2.9; the setting above would then be one for two
        where, setting = where.conv, ("fp32_precision", "ieee")
    name, exact = setting
    with _tf32:
        _tf32_held.append(getattr(where, name))
        setattr(where, name, exact)
    try:
        yield
    finally:
        with _tf32:
            before = _tf32_held.pop()
            if not _tf32_held:
                setattr(where, name, before)
