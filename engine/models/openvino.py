"""OpenVINO itself: loaded without its telemetry, and what it can do on this CPU."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from glob import glob
from typing import Any

from keyscale.engine.errors import DeviceError
from keyscale.engine.system import usable_cores
from keyscale.engine.wording import say

__all__ = [
    "compiled",
    "cpu_precisions",
    "described",
    "intel_gpus",
    "is_out_of_memory",
    "last_line",
    "load_openvino",
    "plugin_at_work",
    "plugin_name",
    "thread_count",
]

TELEMETRY = "openvino_telemetry"


def load_openvino() -> Any:
    """The `openvino` package.

    Importing it sends an event to its makers and writes an identifier into the home folder, if its telemetry
    package is installed, which its requirements see to. While it is imported here, that package cannot be found:
    OpenVINO then takes its own stub, which does nothing.

    Raises:
        DeviceError: it is not installed, or does not load here.
    """
    present = "openvino" in sys.modules or TELEMETRY in sys.modules
    if not present:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # what the import system takes for "not there"
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise DeviceError(
            f"OpenVINO does not load: {error}",
            remedy=say("Run `pip install openvino`; on a GPU, such as {device=cuda}, networks run without it."),
        ) from error
    finally:
        if not present:
            del sys.modules[TELEMETRY]


@cache
def cpu_precisions() -> frozenset[str]:
    """In what OpenVINO's CPU plugin computes here beside fp32: of `int8`, `bf16` and `fp16`, what the CPU has.

    Others it takes too, and computes in fp32.

    Raises:
        DeviceError: OpenVINO does not load, or its CPU plugin does not.
    """
    core = load_openvino().Core()
    with plugin_at_work():
        there = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return frozenset(ours for ours, theirs in (("int8", "INT8"), ("bf16", "BF16"), ("fp16", "FP16")) if theirs in there)


def plugin_name(device: str) -> str:
    """What OpenVINO calls a device: `CPU`, `GPU` or `GPU.N`."""
    kind, _, number = device.partition(":")
    return "CPU" if kind == "cpu" else f"GPU.{number}" if number else "GPU"


@cache
def intel_gpus() -> tuple[str, ...]:
    """Intel's GPUs that OpenVINO finds: none, `("intel",)`, or `("intel:0", "intel:1", ...)` of several.

    Its GPU plugin is loaded for that, on Linux only where there is a driver for any GPU.
    """
    if platform.system() == "Darwin":
        return ()  # OpenVINO has no GPU plugin there
    if platform.system() == "Linux" and not any(map(glob, ("/dev/dri/renderD*", "/dev/dxg"))):
        return ()
    try:
        numbers = load_openvino().Core().get_property("GPU", "AVAILABLE_DEVICES")
    except (DeviceError, RuntimeError):  # it has no such plugin, or that has no OpenCL
        return ()
    return ("intel",) if len(numbers) == 1 else tuple(f"intel:{number}" for number in numbers)


@contextmanager
def plugin_at_work(device: str = "cpu") -> Iterator[None]:
    """Around what makes OpenVINO load the plugin of a device, which it does late, and compile with it.

    Raises:
        DeviceError: the plugin cannot be loaded, or does not start its threads.
        MemoryError: there is no memory for it.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        reason = last_line(error)
        if device != "cpu":
            raise DeviceError(
                f"OpenVINO's GPU plugin does not work on {device}: {reason}",
                remedy=say("See whether Intel's driver for OpenCL is up to date, or use another {device}."),
            ) from error
        raise DeviceError(
            f"OpenVINO's CPU plugin does not work here: {reason}",
            remedy=say(
                "See whether memory, address space (ulimit -v) or the number of threads (ulimit -u) is limited, and "
                "whether openvino is installed whole."
            ),
        ) from error


def compiled(core: Any, graph: Any, hint: str, device: str) -> Any:
    """A graph compiled for a device of this machine, computing in what `hint` names (`f32`, `bf16`, `f16`).

    Raises:
        DeviceError, MemoryError: as `plugin_at_work`.
    """
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if device == "cpu":
        # Pinned threads of two jobs would meet on the same cores.
        settings |= {"INFERENCE_NUM_THREADS": thread_count(), "ENABLE_CPU_PINNING": False}
    with plugin_at_work(device):
        return core.compile_model(graph, plugin_name(device), settings)


def described(device: str) -> str:
    """`cpu` and the number of threads, or the GPU and its name."""
    if device != "cpu":
        return f"{device} ({load_openvino().Core().get_property(plugin_name(device), 'FULL_DEVICE_NAME')})"
    threads = thread_count()
    return f"cpu ({threads} {'thread' if threads == 1 else 'threads'})"


def last_line(error: Exception) -> str:
    """The reason in an error of OpenVINO's, whose text is a list of places in its source, innermost last."""
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Whether OpenVINO means by it that memory has run out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in text or "bad alloc" in text or "cannot allocate" in text


def thread_count() -> int:
    """Threads for a network: the cores that this process may use, or fewer by `OMP_NUM_THREADS`, as for torch."""
    allowed = usable_cores()
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(allowed, int(first)) if first.isascii() and first.isdigit() and int(first) else allowed
