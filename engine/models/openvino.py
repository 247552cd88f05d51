"""OpenVINO itself: loaded without its telemetry, and what it can do on this CPU."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from keyscale.engine.errors import DeviceError
from keyscale.engine.system import usable_cores
from keyscale.engine.wording import say

__all__ = ["cpu_precisions", "is_out_of_memory", "load_openvino", "plugin_at_work", "thread_count"]

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


@contextmanager
def plugin_at_work() -> Iterator[None]:
    """Around what makes OpenVINO load its CPU plugin, which it does late, and compile with it.

    Raises:
        DeviceError: the plugin cannot be loaded, or does not start its threads.
        MemoryError: there is no memory for it.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        # The whole text is a list of places in its source, innermost last.
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DeviceError(
            f"OpenVINO's CPU plugin does not work here: {reason}",
            remedy=say(
                "See whether memory, address space (ulimit -v) or the number of threads (ulimit -u) is limited, and "
                "whether openvino is installed whole."
            ),
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether OpenVINO means by it that memory has run out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in text or "bad alloc" in text or "cannot allocate" in text


def thread_count() -> int:
    """Threads for a network: the cores that this process may use, or fewer by `OMP_NUM_THREADS`, as for torch."""
    allowed = usable_cores()
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(allowed, int(first)) if first.isascii() and first.isdigit() and int(first) else allowed
