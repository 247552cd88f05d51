"""What all numbers of a benchmark depend on."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["confine", "load_average", "machine"]

PACKAGES = ("torch", "openvino", "av", "imageio-ffmpeg", "ssimulacra2", "cvvdp")


def machine(threads: int) -> dict[str, Any]:
    """The date, this machine's CPU, `threads` as given, and the versions of Python and of the packages that are here.

    Loads none of the packages: a benchmark may have to bind itself to some cores first.
    """
    cpu = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "threads": threads,
        "python": platform.python_version(),
        "packages": packages,
    }


def load_average() -> float:
    """How many processes wanted to run in the last minute; NaN on Windows, which does not tell."""
    load = math.nan
    if sys.platform != "win32":
        load = os.getloadavg()[0]
    return load


def confine(first: int | None, end: int | None) -> None:
    """Keep this process on a slice of the cores that it may use; where no process can be bound, it stays on all."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first:end])
