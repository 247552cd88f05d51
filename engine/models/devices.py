"""The devices of this machine: what would run on each, whether it computes as it should, how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError
from keyscale.engine.job import Mode, Precision
from keyscale.engine.machine import choose_device, describe_device, may_have_gpu, share_cores
from keyscale.engine.models import defaults_for, golden, needs_openvino, open_model, possible_executions, to_try
from keyscale.engine.models.enlarger import BrokenPicture, Enlarger, OutOfMemory
from keyscale.engine.models.execution import Execution

__all__ = ["MODEL", "WINDOW", "DeviceReport", "look_at_devices"]

MODEL = defaults_for(Mode.FAST)[2]
"""The network that is tried: what a job takes which enlarges a 1080p source to 1080x1920."""

WINDOW = (608, 1080)
"""Width and height of the part of a source that is enlarged for the speed: a 9:16 crop of 1080p."""

MEASURED_S = 1.5
"""Seconds for which a device is measured."""


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """What became of one device."""

    device: str
    """`cpu`, `mps` or `cuda:N`."""
    description: str
    """With what there is of it, such as `cpu (4 threads)`."""
    auto: bool = False
    """Whether `--device auto` takes it."""
    runtime: str | None = None
    precision: str | None = None
    decibels: float | None = None
    """Of the golden tile from fp32 on the CPU; None for fp32 on the CPU itself."""
    frames_per_second: float | None = None
    """Windows of `WINDOW` a second through the network alone."""
    problems: tuple[str, ...] = ()
    """Why it does not run, or not in its fastest precision."""

    @property
    def works(self) -> bool:
        """Whether a network runs on it."""
        return self.precision is not None


def look_at_devices(*, measure: bool = True) -> list[DeviceReport]:
    """Every device, those of a GPU first, each tried with the default network; a second or two each.

    Args:
        measure: also tell `frames_per_second`.

    Raises:
        ModelError: a file of the package is damaged.
    """
    chosen = choose_device("auto")
    reports = [_tried(device, measure=measure) for device in _devices()]
    # As a job does: where the best one fails the CPU comes next.
    works = [report.device for report in reports if report.works]
    auto = next((device for device in works if device.partition(":")[0] == chosen), "cpu")
    return [replace(each, auto=each.device == auto and each.works) for each in reports]


def _devices() -> Iterator[str]:
    if may_have_gpu():
        share_cores()
        import torch

        if torch.backends.mps.is_available():
            yield "mps"
        elif torch.cuda.is_available():
            yield from (f"cuda:{number}" for number in range(torch.cuda.device_count()))
        else:
            yield "cuda"  # trying it says why it is none for this torch
    yield "cpu"


def _tried(device: str, *, measure: bool) -> DeviceReport:
    """A network loaded as `auto` would have it on a device, and run for a while to `measure` it."""
    problems: list[str] = []
    try:
        on_cpu: frozenset[str] = frozenset()
        if needs_openvino(device, Precision.AUTO):
            from keyscale.engine.models.openvino import cpu_precisions

            on_cpu = cpu_precisions()
        ways = possible_executions(MODEL, device, Precision.AUTO, on_cpu=on_cpu)
    except DeviceError as error:
        return DeviceReport(device=device, description=device, problems=(error.message,))
    for way in to_try(ways, device, any_precision=True):
        try:
            model = open_model(MODEL.name, way, unasked=True)
            speed = _speed(model) if measure else None
        except DeviceError as error:
            problems.append(error.message)
        except (OutOfMemory, BrokenPicture) as error:
            problems.append(f"{way}: {str(error) or 'NaN or black'}")
        else:
            return _report(model, way, speed, problems)
    return DeviceReport(device=device, description=_named(device), problems=tuple(dict.fromkeys(problems)))


def _report(model: Enlarger, way: Execution, speed: float | None, problems: list[str]) -> DeviceReport:
    return DeviceReport(
        device=way.device,
        description=model.describe(),
        runtime=way.runtime,
        precision=way.precision,
        decibels=model.decibels,
        frames_per_second=speed,
        problems=tuple(problems),
    )


def _named(device: str) -> str:
    try:
        return describe_device(device)
    except (RuntimeError, AssertionError, ValueError):  # what torch says of a GPU that is not there
        return device


def _speed(model: Enlarger) -> float:
    """Windows a second, the first not counted, for which a graph is compiled."""
    width, height = WINDOW
    halo = model.spec.halo
    across, down = -(-(width + 2 * halo) // golden.WIDTH), -(-(height + 2 * halo) // golden.HEIGHT)
    frame = np.tile((golden.tile() >> 8).astype(np.uint8), (down, across, 1))
    pixels = np.ascontiguousarray(frame[: height + 2 * halo, : width + 2 * halo])
    inner = Window(halo, halo, halo + width, halo + height)
    model.enlarge(pixels, inner)
    spent: list[float] = []
    until = time.perf_counter() + MEASURED_S
    while not spent or time.perf_counter() < until:
        began = time.perf_counter()
        model.enlarge(pixels, inner)
        spent.append(time.perf_counter() - began)
    return 1 / statistics.median(spent)
