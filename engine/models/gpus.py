"""Which devices of this machine `auto` and `gpu` mean, by order of merit.

torch's GPUs come first, then Intel's through OpenVINO, then whatever WebGPU has. An adapter of WebGPU's that is
software is passed over, since the CPU's own networks are many times as fast.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError
from keyscale.engine.machine import find_gpus
from keyscale.engine.models import golden, webgpu
from keyscale.engine.models.openvino import intel_gpus
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.wording import Said, say

if TYPE_CHECKING:
    from keyscale.engine.models.enlarger import Enlarger

__all__ = [
    "BETTER",
    "CONTESTED",
    "candidates",
    "check_there",
    "compared",
    "kinds",
    "windows_a_second",
]

CONTESTED = ("intel", "webgpu")
"""Kinds of GPU that `auto` compares with the CPU: a small one may be slower than a CPU of many cores in int8."""

BETTER = 1.25
"""How many times as fast as the CPU such a GPU has to be: between two that are alike the choice would change."""

HOW = "`keyscale devices` tells what there is"

TRIAL_MACS = 40e9
"""Multiply-accumulates of the window that both are timed with: some tenths of a second on a CPU."""


def candidates(asked: str, *, mine: str | None = None) -> tuple[str, ...]:
    """The devices that a job may run on, the best first; for `auto` the CPU is the last one.

    Args:
        asked: a job's `device`.
        mine: the GPU that this process was given, instead of all of torch's.

    Raises:
        DeviceError: `gpu`, and there is none.
    """
    if asked not in {"auto", "gpu"}:
        return (mine,) if asked == "cuda" and mine is not None and mine.startswith("cuda") else (asked,)
    if mine is not None:
        return (mine, "cpu") if asked == "auto" else (mine,)
    fit = find_gpus().fit[:1]
    if asked == "auto":
        return (*(fit or _others()), "cpu")
    found = (*fit, *_others())
    if not found:
        missing = say("there is no GPU on this machine that networks run on: {}", _what_is_missing())
        raise DeviceError(missing, remedy=say("Use {device=cpu} or {device=auto}; {}.", HOW))
    return found


def kinds(asked: str) -> tuple[str, ...]:
    """The kinds of GPU among the candidates, for `possible_executions`; none where a device is named.

    Raises:
        DeviceError: as `candidates`.
    """
    if asked not in {"auto", "gpu"}:
        return ()
    return tuple(dict.fromkeys(each.partition(":")[0] for each in candidates(asked) if each != "cpu"))


def check_there(device: str) -> None:
    """See that a device which was asked for is there, where no network is loaded that would show it.

    Raises:
        DeviceError: it is not.
    """
    kind = device.partition(":")[0]
    if kind == "intel" and device not in {*intel_gpus(), kind if intel_gpus() else None}:
        raise DeviceError(
            f"there is no device {device} on this machine: OpenVINO finds {', '.join(intel_gpus()) or 'no GPU'}",
            remedy=say("Use {device=cpu}, or see whether Intel's driver for OpenCL (intel-opencl-icd) is installed."),
        )
    if kind == "webgpu":
        webgpu.provider_devices()
    elif kind in {"auto", "gpu"}:
        candidates(device)
    elif kind in {"cuda", "mps"}:
        from keyscale.engine.models.torch_device import resolve_device

        resolve_device(device)


def _others() -> tuple[str, ...]:
    """GPUs that torch does not reach."""
    adapters = webgpu.adapters()
    takes = adapters and (webgpu.wants_software() or not adapters[0].is_software)
    return (*intel_gpus()[:1], *(("webgpu",) if takes else ()))


def _software_alone() -> Said | None:
    """Why WebGPU is passed over where its adapter is software, for people; None where it is not."""
    adapters = webgpu.adapters()
    if not adapters or not adapters[0].is_software or webgpu.wants_software():
        return None
    return say(
        "WebGPU has {} alone, which is software on the CPU and is taken only if named ({device=webgpu}, or {}=1)",
        adapters[0].name,
        webgpu.SOFTWARE,
    )


def _what_is_missing() -> Said:
    """Why there is none, kind by kind."""
    other: str | None = _software_alone()
    if other is None:
        try:
            webgpu.provider_devices()
            other = "WebGPU finds no adapter"
        except DeviceError as error:
            other = f"{error.message} ({error.remedy})"
    torchs = "; ".join(find_gpus().unfit) or "torch finds none"
    return say("{}; OpenVINO finds none of Intel's; {}", torchs, other)


def compared(gpu: Enlarger, cpu: Enlarger) -> float:
    """How many times as fast as on the CPU a network is on a GPU, measured with a window of a moderate size."""
    spec = gpu.spec
    side = round(math.sqrt(TRIAL_MACS / spec.macs_per_pixel)) - 2 * spec.halo
    size = (min(608, max(32, side)),) * 2
    return windows_a_second(gpu, size, seconds=0.2) / windows_a_second(cpu, size, seconds=0.2)


def windows_a_second(model: Enlarger, size: tuple[int, int], *, seconds: float) -> float:
    """Windows of a width and height that a network enlarges in a second, measured for some `seconds`.

    The first is not counted, since a graph is compiled for it. A device that would take many times as long for one is
    measured with a smaller window alone.
    """
    quarter = (max(32, size[0] // 4), max(32, size[1] // 4))
    for part, (width, height) in ((8, (golden.WIDTH, golden.HEIGHT)), (4, quarter), (1, size)):
        pixels, inner = _picture(model, width, height)
        model.enlarge(pixels, inner)
        spent: list[float] = []
        until = time.perf_counter() + (seconds if part == 1 else 0)
        while not spent or time.perf_counter() < until:
            began = time.perf_counter()
            model.enlarge(pixels, inner)
            spent.append(time.perf_counter() - began)
        found = width * height / (size[0] * size[1]) / statistics.median(spent)
        if 1 / found > part * seconds:
            break  # what a GPU takes for the least window is more than that window's share
    return found


def _picture(model: Enlarger, width: int, height: int) -> tuple[PixelArray, Window]:
    halo, align = model.spec.halo, model.spec.align
    halo = -(-halo // align) * align
    across, down = -(-(width + 2 * halo) // golden.WIDTH), -(-(height + 2 * halo) // golden.HEIGHT)
    frame = np.tile((golden.tile() >> 8).astype(np.uint8), (down, across, 1))
    pixels = np.ascontiguousarray(frame[: height + 2 * halo, : width + 2 * halo])
    return pixels, Window(halo, halo, halo + width, halo + height)
