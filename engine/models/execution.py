"""What runs a network, in which arithmetic, where: decided by rule, without loading what will run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keyscale.engine.errors import UsageError
from keyscale.engine.job import Precision
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.wording import say

__all__ = ["Execution", "choose_execution", "needs_openvino", "possible_executions"]

DEVICES = ("cpu", "cuda", "mps")
"""Where `auto` may lead."""


_IN_TORCH: dict[Precision, Literal["fp32", "fp16", "bf16"]] = {
    Precision.FP32: "fp32",
    Precision.FP16: "fp16",
    Precision.BF16: "bf16",
}


@dataclass(frozen=True)
class Execution:
    """One way to run a network."""

    runtime: Literal["torch", "openvino"]
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    device: str
    """`cpu`, `mps`, `cuda` or `cuda:N`."""

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}, {self.device}"


def choose_execution(spec: ModelSpec, device: str, asked: Precision, *, has_int8: bool) -> Execution:
    """How a network runs on a device.

    Shipped networks run through OpenVINO on the CPU, in int8 if that is there, and through torch elsewhere and in
    fp16 and bf16; all others run through torch, in fp16 on CUDA and fp32 elsewhere unless something else is asked
    for: bf16 and fp16 are slower than fp32 on many CPUs.

    Args:
        spec: the network.
        device: `cpu`, `mps`, `cuda` or `cuda:N`.
        asked: the precision, or `AUTO`.
        has_int8: whether OpenVINO computes in int8 on this CPU; asked only where `needs_openvino` says so.

    Raises:
        UsageError: int8 of a network that has none, or elsewhere than on a CPU that has it.
    """
    if asked is Precision.INT8:
        if not spec.quantised:
            raise UsageError(
                say("{precision=int8} is not there for {}", spec.name),
                remedy=say(
                    "Leave {precision} out, or use a network that comes with keyscale, such as {mode=fast} has."
                ),
            )
        if device != "cpu":
            raise UsageError(
                say("{precision=int8} runs on the CPU alone, not on {}", device),
                remedy=say("Give {device=cpu}, or leave {precision} out."),
            )
        if not has_int8:
            raise UsageError("OpenVINO has no int8 on this CPU", remedy=say("Leave {precision} out, or use fp32."))
        return Execution("openvino", "int8", device)
    if spec.shipped and device == "cpu" and asked in {Precision.AUTO, Precision.FP32}:
        int8 = asked is Precision.AUTO and has_int8 and bool(spec.quantised)
        return Execution("openvino", "int8" if int8 else "fp32", device)
    if asked is Precision.AUTO:
        return Execution("torch", "fp16" if device.startswith("cuda") else "fp32", device)
    return Execution("torch", _IN_TORCH[asked], device)


def needs_openvino(spec: ModelSpec, device: str, asked: Precision) -> bool:
    """Whether `choose_execution` depends on what OpenVINO can do here; `device` may be `auto`."""
    return spec.shipped and device in {"auto", "cpu"} and asked in {Precision.AUTO, Precision.INT8}


def possible_executions(spec: ModelSpec, device: str, asked: Precision, *, has_int8: bool) -> tuple[Execution, ...]:
    """How a network may run on the device that was asked for: one way, or one for each device behind `auto`.

    Raises:
        UsageError: as `choose_execution`, where no device is left.
    """
    if device != "auto":
        return (choose_execution(spec, device, asked, has_int8=has_int8),)
    if asked is Precision.INT8:
        return (choose_execution(spec, "cpu", asked, has_int8=has_int8),)
    return tuple(choose_execution(spec, each, asked, has_int8=has_int8) for each in DEVICES)
