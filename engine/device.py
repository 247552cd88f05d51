"""Which device a job runs on. Torch is imported only where a driver says that there may be a GPU for it."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

from keyscale.engine.threads import share_cores

__all__ = ["choose_device", "describe_device", "may_have_gpu"]

CUDA_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
"""NVIDIA's driver library, by the names under which torch's own CUDA runtime looks for it."""

CUDA_SUCCESS, CUDA_ERROR_NO_DEVICE = 0, 100
"""Of `CUresult` in cuda.h."""


def may_have_gpu() -> bool:
    """Whether torch might find a GPU here, asked of the drivers, so that torch need not be loaded for a no.

    A driver that is there and fails counts as a yes: what is wrong is torch's to say.
    """
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"  # torch has had no build for Intel's Macs since 2.3
    return _may_have_cuda() or _may_have_hip()


def _may_have_cuda() -> bool:
    for name in CUDA_LIBRARIES:
        try:
            driver = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        return False
    try:
        result = driver.cuInit(0)
        count = ctypes.c_int(0)
        if result == CUDA_SUCCESS:
            result = driver.cuDeviceGetCount(ctypes.byref(count))
    except AttributeError:
        return True
    return count.value > 0 if result == CUDA_SUCCESS else result != CUDA_ERROR_NO_DEVICE


def _may_have_hip() -> bool:
    """Whether there may be a GPU of AMD's, which torch calls CUDA."""
    if sys.platform == "linux":
        if Path("/dev/kfd").exists():
            return True
        if not Path("/dev/dxg").exists():  # Windows' GPUs, whoever makes them, in WSL
            return False
    from importlib import metadata

    try:
        return "rocm" in metadata.version("torch")
    except metadata.PackageNotFoundError:
        return True


def choose_device(asked: str) -> str:
    """`auto` -> the best device that is there; anything else is taken at its word and checked on loading."""
    if asked != "auto":
        return asked
    if not may_have_gpu():
        return "cpu"
    share_cores()
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def describe_device(device: str) -> str:
    """Words for people, such as `cuda (NVIDIA L4)` or `cpu (4 threads)`, of where torch computes."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device
