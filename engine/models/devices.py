"""The devices of this machine: what would run on each, whether it computes as it should, how fast."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from keyscale.engine.errors import DeviceError
from keyscale.engine.job import Mode, Precision
from keyscale.engine.machine import describe_device, may_have_gpu, share_cores
from keyscale.engine.models import defaults_for, needs_openvino, open_model, possible_executions, to_try
from keyscale.engine.models.enlarger import BrokenPicture, Enlarger, OutOfMemory
from keyscale.engine.models.execution import Execution
from keyscale.engine.models.gpus import BETTER, CONTESTED, candidates, windows_a_second
from keyscale.engine.models.openvino import intel_gpus
from keyscale.engine.models.webgpu import adapters

__all__ = ["MODEL", "WINDOW", "DeviceReport", "look_at_devices"]

MODEL = defaults_for(Mode.FAST)[2]
"""The network that is tried: what a job takes which enlarges a 1080p source to 1080x1920."""

WINDOW = (608, 1080)
"""Width and height of the part of a source that is enlarged for the speed: a 9:16 crop of 1080p."""

MEASURED_S = 1.5
"""Seconds for which a device is measured."""


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """What was found of one device."""

    device: str
    """`cpu`, `mps`, `cuda:N`, `intel`, `intel:N` or `webgpu`."""
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
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

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
    meant = {each.partition(":")[0] for each in candidates("auto")}
    # Some GPUs `auto` compares with the CPU.
    contested = bool(meant.intersection(CONTESTED))
    with _silent_drivers():
        reports = [_tried(device, measure=measure or contested) for device in _devices()]
    # As a job does: where the best one fails the next comes.
    works = [each for each in reports if each.works and each.kind in meant]
    cpu = next((each.frames_per_second for each in works if each.device == "cpu"), None)
    auto = next((each.device for each in works if not _loses(each, cpu)), "cpu")
    return [replace(each, auto=each.device == auto and each.works) for each in reports]


@contextmanager
def _silent_drivers() -> Iterator[None]:
    """Drop what drivers write to the process's stderr about what they lack: the reports have what matters of it."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without one
        yield
        return
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        os.close(nothing)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _loses(report: DeviceReport, cpu: float | None) -> bool:
    speed = report.frames_per_second
    return report.kind in CONTESTED and cpu is not None and (speed is None or speed < BETTER * cpu)


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
    yield from intel_gpus()
    if adapters():
        yield "webgpu"
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
    for way in to_try(ways, [device], any_precision=True):
        try:
            model = open_model(MODEL.name, way, unasked=True)
            speed = windows_a_second(model, WINDOW, seconds=MEASURED_S) if measure else None
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
    if device == "webgpu":
        return f"webgpu ({adapters()[0].name})"
    try:
        return describe_device(device)
    except (RuntimeError, AssertionError, ValueError):  # what torch says of a GPU that is not there
        return device
