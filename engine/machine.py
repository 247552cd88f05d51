"""This machine: how threads share its cores, its devices, memory and limits.

Torch is imported only where a driver says that there may be a GPU for it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from keyscale.engine.errors import EnvironmentFault
from keyscale.engine.system import address_space_limit, bound_cores, usable_cores

__all__ = [
    "Gpus",
    "check_address_space",
    "choose_device",
    "describe_device",
    "find_gpus",
    "give_back_memory",
    "lacks_kernels",
    "may_have_gpu",
    "share_cores",
]

SPIN_COUNT = "1000"
"""Turns that a thread of GNU OpenMP spins at a barrier before it sleeps; what libgomp itself takes once a process has
more threads than cores. Its default, 300,000, is about a millisecond."""

MIB = 2**20
LEAST_SPACE = 768 * MIB
SPACE_EACH_CORE = 64 * MIB
"""Libraries start a thread for each core, and glibc gives a thread an arena of 64 MiB of address space (HEAP_MAX_SIZE
in its malloc/arena.c)."""

CUDA_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
"""NVIDIA's driver library, by the names under which torch's own CUDA runtime looks for it."""

CUDA_SUCCESS, CUDA_ERROR_NO_DEVICE = 0, 100
"""Of `CUresult` in cuda.h."""


def share_cores() -> None:
    """Let OpenMP's threads sleep soon at barriers; to be called before torch is imported.

    The network's threads meet at a barrier after every layer. One that spins there keeps the encoder, the decoder or
    another job from the core that the last one is waiting for, and both slow down by more than their share; how
    much varies widely with what else runs (`bench/contention.py` measures it). A container's quota of CPU time is
    unknown to OpenMP: with a thread for each core all of them would be stopped until the next period, most of the time.
    What the user set in OpenMP's own variables stands.
    """
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if usable_cores() < bound_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


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
        if not Path("/dev/dxg").exists():  # Windows' GPUs, of any maker, in WSL
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
    return next(iter(find_gpus().fit), "cpu")


@dataclass(frozen=True)
class Gpus:
    """GPUs of this machine that torch knows of."""

    fit: tuple[str, ...] = ()
    """Those that networks can run on, by order of merit: `cuda`, or `cuda:N` of several, and `mps`."""
    unfit: tuple[str, ...] = ()
    """What is wrong with each of the others, for people."""


def find_gpus() -> Gpus:
    """The GPUs of this machine; torch is imported where a driver tells of one."""
    if not may_have_gpu():
        return Gpus()
    share_cores()
    import torch

    fit, unfit = [], []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = f"cuda:{number}"
            if (wrong := lacks_kernels(device)) is None:
                fit.append(device)
            else:
                unfit.append(wrong)
        if torch.cuda.device_count() == 1:
            fit = ["cuda"] * len(fit)
    if torch.backends.mps.is_available():
        fit.append("mps")
    return Gpus(tuple(fit), tuple(unfit))


def lacks_kernels(device: str) -> str | None:
    """What is wrong with a CUDA device that torch was not built for, for people; None for one that it was.

    A binary runs on what has its major and at least its minor compute capability, one for `sm_90a` on that alone;
    PTX (`compute_90`) is compiled for everything from its own on (CUDA C++ Programming Guide, 5.1).
    """
    import torch

    has = torch.cuda.get_device_capability(device)
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch) for arch in torch.cuda.get_arch_list()]
    if not any(built):  # ROCm
        return None
    for kind, major, minor, only in (match.groups() for match in built if match):
        least = int(major), int(minor)
        if has == least or (kind == "compute" and has >= least) or (not only and has[0] == least[0] and has >= least):
            return None
    return (
        f"{describe_device(device)} does not run with torch {torch.__version__}, which has no kernels for its "
        f"compute capability {has[0]}.{has[1]}"
    )


def describe_device(device: str) -> str:
    """Words for people, such as `cuda (NVIDIA L4)` or `cpu (4 threads)`, of where torch computes."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device


def check_address_space() -> None:
    """Refuse a limit of address space with which no network loads.

    Below it libraries do not say that memory has run out: OpenBLAS ends the process while numpy is imported, OpenVINO
    crashes or its threads wait for ever. What is just above it fails with a message of its own. A small job took 1.3
    to 1.45 GiB on one to four cores, one without a network 0.6 GiB; the bound lies between the two.

    Raises:
        EnvironmentFault: `ulimit -v`, or what a batch system sets in its place, is too low.
    """
    limit = address_space_limit()
    # Libraries start their threads by the cores that they see, whatever the quota.
    needed = LEAST_SPACE + SPACE_EACH_CORE * bound_cores()
    if limit is not None and limit < needed:
        raise EnvironmentFault(
            f"this process is limited to {limit // MIB} MiB of address space, and its libraries need more than "
            f"{needed // MIB} MiB on {bound_cores()} cores",
            remedy="Raise the limit (`ulimit -v unlimited`, or the batch system's own), or run on fewer cores "
            "(`taskset -c 0,1 keyscale ...`).",
        )


def give_back_memory() -> None:
    """Trim the heap of glibc; elsewhere nothing.

    Encoders allocate and free buffers of many sizes from many threads, each with an arena of its own. Without this,
    memory grows by some 8 % from a job of one chunk to one of eight (`make bench`).
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
