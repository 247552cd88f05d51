"""What runs a network, in which arithmetic, where: decided by rule, without loading what will run it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from keyscale.engine.errors import DeviceError, UsageError
from keyscale.engine.job import Precision
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.wording import say

__all__ = [
    "CLOSE",
    "GPU_KINDS",
    "ON_ANY_CPU",
    "Execution",
    "choose_execution",
    "needs_openvino",
    "possible_executions",
    "to_try",
]

DEVICES = ("cpu", "cuda", "mps")
"""Where `auto` may lead on any machine."""

GPU_KINDS = ("cuda", "mps", "intel", "webgpu")
"""By order of merit: `gpu` is the first of these that is there."""

ON_ANY_CPU = frozenset({"int8"})
"""What is taken for granted of a CPU that cannot be asked, beside fp32."""

CLOSE = 50.0
"""Decibels (PSNR on the golden tile) from fp32 that a precision has to keep which nobody asked for: less than a code of
8 bits on average."""

FOREIGN_KINDS = ("cpu", "intel", "webgpu")
"""What foreign networks run on. torch has no reader for them."""

FASTEST = ("int8", "bf16", "fp16")
"""On a CPU, before fp32. Of CPUs with both, bf16 is the one that has units of its own (AMX)."""

_ON_CPU: dict[str, Literal["fp32", "fp16", "bf16", "int8"]] = {
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "int8": "int8",
}
_IN_TORCH: dict[Precision, Literal["fp32", "fp16", "bf16"]] = {
    Precision.FP32: "fp32",
    Precision.FP16: "fp16",
    Precision.BF16: "bf16",
}


@dataclass(frozen=True)
class Execution:
    """One way to run a network."""

    runtime: Literal["torch", "openvino", "onnxruntime"]
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    device: str
    """`cpu`, `mps`, `cuda`, `cuda:N`, `intel`, `intel:N` or `webgpu`."""

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}, {self.device}"


def choose_execution(spec: ModelSpec, device: str, asked: Precision, *, on_cpu: Collection[str]) -> Execution:
    """How a network runs on a device.

    On a CPU through OpenVINO: unless something else is asked for in int8 where the network has that, else in bf16 or
    fp16, each where the CPU supports it, else in fp32; a foreign network not in bf16, which would keep only 8 bits of
    its input. On Intel's GPUs through OpenVINO, and on WebGPU through ONNX Runtime. Elsewhere through torch. Unless
    something else is asked for that is fp16 on CUDA and Intel's, and fp32 on MPS and WebGPU.

    Args:
        spec: the network.
        device: of `Execution.device`.
        asked: the precision, or `AUTO`.
        on_cpu: in what OpenVINO computes on this CPU beside fp32, as `cpu_precisions` gives it; looked at only where
            `needs_openvino` says so.

    Raises:
        UsageError: int8 of a network that has none, or elsewhere than on a CPU; bf16 where a runtime has none; a
            foreign network on a device of torch's.
        DeviceError: a precision that this CPU does not have.
    """
    if asked is Precision.INT8:
        if spec.looks and not spec.quantised:
            raise UsageError(
                say(
                    "{precision=int8} is there for natural, balanced and crisp alone, not for {look=}", f"{spec.look:g}"
                ),
                remedy=say("Give {look=natural}, {look=balanced} or {look=crisp}, or leave {precision} out."),
            )
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
    kind = device.partition(":")[0]
    if spec.findings and kind not in FOREIGN_KINDS:
        raise UsageError(
            f"{spec.name} is an ONNX model, which runs on cpu, intel or webgpu, not on {device}",
            remedy=say(
                "Give {device=cpu} or {device=webgpu}, or leave {device} out; with {remote=True} deploy on CPUs "
                "(KEYSCALE_GPU=none)."
            ),
        )
    if kind in {"intel", "webgpu"} and asked is Precision.BF16:
        raise UsageError(
            say("{precision=bf16} is not there for {}", device),
            remedy=say("Leave {precision} out, or use {precision=fp32} or {precision=fp16}."),
        )
    if kind == "webgpu":
        return Execution("onnxruntime", "fp16" if asked is Precision.FP16 else "fp32", device)
    if kind == "intel":
        return Execution("openvino", "fp32" if asked is Precision.FP32 else "fp16", device)
    if device != "cpu":
        fastest: Literal["fp16", "fp32"] = "fp16" if kind == "cuda" else "fp32"
        return Execution("torch", _IN_TORCH.get(asked, fastest), device)
    if asked is Precision.AUTO:
        has = [each for each in FASTEST if each in on_cpu and (each != "int8" or spec.quantised)]
        if spec.findings:
            has = [each for each in has if each != "bf16"]
        return Execution("openvino", _ON_CPU[has[0] if has else "fp32"], device)
    if asked is not Precision.FP32 and asked.value not in on_cpu:
        raise DeviceError(
            f"this CPU has no {asked.value} in OpenVINO", remedy=say("Leave {precision} out, or use {precision=fp32}.")
        )
    return Execution("openvino", _ON_CPU[asked.value], device)


def needs_openvino(device: str, asked: Precision) -> bool:
    """Whether `choose_execution` depends on what OpenVINO can do here; `device` may be `auto`."""
    return device in {"auto", "cpu"} and asked is not Precision.FP32


def possible_executions(
    spec: ModelSpec, device: str, asked: Precision, *, on_cpu: Collection[str], gpus: Collection[str] = ()
) -> tuple[Execution, ...]:
    """How a network may run on the device that was asked for: one way, or one for each device behind `auto` or `gpu`.

    A precision that the CPU does not have may still be that of a GPU; on the CPU it is an error once that is chosen.

    Args:
        spec, device, asked, on_cpu: as of `choose_execution`; `device` may be `auto` or `gpu`, too.
        gpus: kinds of GPU, of `GPU_KINDS`: those that `gpu` may be, and which `auto` may lead to beside `DEVICES`.

    Raises:
        UsageError, DeviceError: as `choose_execution`, where no device is left.
    """
    if device not in {"auto", "gpu"}:
        return (choose_execution(spec, device, asked, on_cpu=on_cpu),)
    if asked is Precision.INT8:
        return (choose_execution(spec, "cpu" if device == "auto" else device, asked, on_cpu=on_cpu),)
    assumed = {*on_cpu, asked.value}
    kinds = dict.fromkeys((*DEVICES, *gpus)) if device == "auto" else gpus or GPU_KINDS
    if spec.findings:
        kinds = [kind for kind in kinds if kind in FOREIGN_KINDS] or kinds
    if asked is Precision.BF16:
        kinds = [kind for kind in kinds if kind in DEVICES] or kinds
    return tuple(choose_execution(spec, each, asked, on_cpu=assumed) for each in kinds)


def to_try(ways: Collection[Execution], devices: Iterable[str], *, any_precision: bool) -> list[Execution]:
    """What to load a network as, one after another, until the golden tile is passed.

    Args:
        ways: of `possible_executions`.
        devices: those that are there, by order of merit.
        any_precision: no precision was asked for: after a device's own comes fp32.
    """
    by_kind = {way.kind: way for way in ways}
    there = [replace(by_kind[kind], device=each) for each in devices if (kind := each.partition(":")[0]) in by_kind]
    exact = [replace(each, precision="fp32") if any_precision else each for each in there]
    return list(dict.fromkeys(way for both in zip(there, exact, strict=True) for way in both))
