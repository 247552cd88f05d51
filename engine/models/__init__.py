"""The networks: which there are (`registry`), their weights, and running them (`open_model`, `load_model`).

Importing this package imports neither torch nor OpenVINO. `open_model` imports what the execution names; torch is
also what reads a checkpoint, so that `describe` of a path imports it, and so does loading any network but the shipped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyscale.engine.errors import DeviceError, ModelError, UsageError
from keyscale.engine.job import CHECKPOINT_SUFFIXES
from keyscale.engine.models.execution import (
    ON_ANY_CPU,
    Execution,
    choose_execution,
    needs_openvino,
    possible_executions,
    to_try,
)
from keyscale.engine.models.looks import at_look
from keyscale.engine.models.registry import (
    ModelSpec,
    WeightsFile,
    all_models,
    defaults_for,
    family,
    find,
)
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from keyscale.engine.models.enlarger import Enlarger
    from keyscale.engine.models.openvino_model import CpuPrecision, OpenvinoModel
    from keyscale.engine.models.torch_model import Model
    from keyscale.engine.models.webgpu_model import WebgpuModel, WebgpuPrecision

__all__ = [
    "ON_ANY_CPU",
    "Execution",
    "ModelSpec",
    "WeightsFile",
    "all_models",
    "at_look",
    "choose_execution",
    "defaults_for",
    "describe",
    "family",
    "find",
    "load_model",
    "load_openvino_model",
    "load_webgpu_model",
    "needs_openvino",
    "open_model",
    "possible_executions",
    "to_try",
]

GENERAL = "realesr-general-x4v3"
WEAK_DENOISE = "realesr-general-wdn-x4v3"


def _checkpoint(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The path that is meant, or None where a registry name is."""
    path = Path(name_or_path)
    try:
        path = path.expanduser()
        is_there = path.is_file()
    except (OSError, RuntimeError, ValueError):
        is_there = False  # a name too long for a file, or the home of nobody
    if isinstance(name_or_path, str):
        if any(spec.name.lower() == name_or_path.lower() for spec in all_models()):
            return None
        looks_like_path = path.suffix.lower() in CHECKPOINT_SUFFIXES or len(path.parts) > 1
        if not looks_like_path and not is_there:
            return None
    if not is_there:
        raise ModelError(
            f"there is no checkpoint at {path}",
            remedy="Check the path; a published model is given by its name alone, such as RealESRGAN_x4plus.",
        )
    return path


def describe(name_or_path: str | os.PathLike[str]) -> ModelSpec:
    """What a network is: scale, context, cost.

    A registry name is looked up, upper and lower case alike. A checkpoint's path is read (this imports torch), and an
    ONNX file is tried, once a file: the spec is named after the file's stem, its family is `custom` and its licence
    `unknown`.

    Raises:
        ModelError: no such model or file, or a checkpoint that is none of the known networks; as `foreign.describe`.
    """
    path = _checkpoint(name_or_path)
    if path is None:
        return find(str(name_or_path))
    from keyscale.engine.models import foreign, torch_networks, weights

    if path.suffix.lower() == foreign.SUFFIX:
        return foreign.describe(foreign.read(path))
    return torch_networks.inspect(weights.load_state_dict(path), name=path.stem)


def open_model(
    name_or_path: str | os.PathLike[str],
    execution: Execution,
    denoise: float | None = None,
    look: float | None = None,
    *,
    spec: ModelSpec | None = None,
    offline: bool = False,
    unasked: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Enlarger:
    """A network ready to run as `execution` says, after it passed the golden tile.

    Args:
        name_or_path: as of `load_model`, and so are `denoise`, `look`, `offline`, `on_progress` and `on_note`.
        execution: of `choose_execution`.
        spec: what the plan knows of a foreign network; None finds it by a trial.
        unasked: nobody asked for its precision, so that it has to come close to fp32 (`execution.CLOSE`).

    Raises:
        KeyscaleError: as `load_model` and `load_openvino_model`.
        DeviceError: it fails on the golden tile, or is too far from fp32 there.
    """
    from keyscale.engine.models import foreign, golden

    path, _ = _named(name_or_path, denoise, look)
    about: dict[str, Any] = {"offline": offline, "on_progress": on_progress, "on_note": on_note}
    model: Enlarger

    def exact() -> Enlarger:
        if file is not None:
            return ForeignModel(file, precision="fp32", spec=spec)
        on_cpu = model.exact() if execution.kind == "cpu" else None
        return on_cpu or load_openvino_model(name_or_path, "fp32", denoise, look, **about)

    file = foreign.read(path) if path is not None and path.suffix.lower() == foreign.SUFFIX else None
    if file is not None:
        from keyscale.engine.models.foreign_model import ForeignModel
        from keyscale.engine.models.gpus import check_there

        check_there(execution.device)
        model = ForeignModel(file, precision=execution.precision, device=execution.device, spec=spec)
        if (execution.kind, execution.precision) == ("cpu", "fp32"):
            return model
    elif execution.runtime == "openvino":
        model = load_openvino_model(name_or_path, execution.precision, denoise, look, device=execution.device, **about)
        if (execution.kind, execution.precision) == ("cpu", "fp32"):
            return model
    elif execution.runtime == "onnxruntime":
        model = load_webgpu_model(
            name_or_path, "fp16" if execution.precision == "fp16" else "fp32", denoise, look, **about
        )
    else:
        model = load_model(name_or_path, execution.device, execution.precision, denoise, look, **about)
        exact = model.on_cpu
    model.decibels = golden.check(model, exact, unasked=unasked)
    return model


def load_openvino_model(
    name_or_path: str | os.PathLike[str],
    precision: CpuPrecision,
    denoise: float | None = None,
    look: float | None = None,
    *,
    device: str = "cpu",
    offline: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> OpenvinoModel:
    """A network through OpenVINO, its weights verified; arguments as of `load_model`.

    Args:
        device: `cpu`, `intel` or `intel:N`.

    Raises:
        ModelError: as `load_model`; a file of the package is damaged, or OpenVINO cannot read it.
        UsageError: int8 of a network or a look that is not shipped in it; as `load_model`.
        DeviceError: OpenVINO does not load, there is no such device, or this CPU has no such precision.
    """
    from keyscale.engine.models import openvino_graph, shipped
    from keyscale.engine.models.gpus import check_there
    from keyscale.engine.models.openvino import cpu_precisions
    from keyscale.engine.models.openvino_model import OpenvinoModel

    path, spec = _named(name_or_path, denoise, look)
    if precision == "int8" and not (spec and spec.quantised):
        which = f"{name_or_path}{f' at look {look:g}' if look is not None else ''}"
        raise UsageError(f"{which} is not there in int8", remedy=say("Leave {precision} out, or use fp32."))
    # Before a download that would turn out to be useless.
    if device != "cpu":
        check_there(device)
    if device == "cpu" and precision not in {*cpu_precisions(), "fp32"}:
        raise DeviceError(f"this CPU has no {precision} in OpenVINO", remedy=say("Use {precision=fp32}."))
    if spec is not None and precision == "int8":
        xml, weights = (shipped.read(file.filename, file.sha256) for file in spec.quantised)
        digest = hashlib.sha256("+".join(file.sha256 for file in spec.quantised).encode()).hexdigest()
        return OpenvinoModel(openvino_graph.read_graph(xml, weights), spec, sha256=digest, precision=precision)
    state, spec, digest = _arrays(path, spec, denoise, offline, on_progress, on_note)
    graph, tail = openvino_graph.build_graph(state, spec), openvino_graph.build_tail(state, spec)
    return OpenvinoModel(graph, spec, sha256=digest, precision=precision, tail=tail, device=device)


def load_webgpu_model(
    name_or_path: str | os.PathLike[str],
    precision: WebgpuPrecision,
    denoise: float | None = None,
    look: float | None = None,
    *,
    offline: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> WebgpuModel:
    """A network on a GPU through WebGPU, its weights verified; arguments as of `load_model`.

    Raises:
        ModelError, UsageError: as `load_model`.
        DeviceError: the extra `gpu` is not installed, there is no adapter, or it does not run the network.
    """
    path, spec = _named(name_or_path, denoise, look)
    from keyscale.engine.models.webgpu import provider_devices
    from keyscale.engine.models.webgpu_model import WebgpuModel

    provider_devices()  # before a download that would turn out to be useless
    state, spec, digest = _arrays(path, spec, denoise, offline, on_progress, on_note)
    return WebgpuModel(state, spec, sha256=digest, precision=precision)


def load_model(
    name_or_path: str | os.PathLike[str],
    device: str = "cpu",
    precision: str = "fp32",
    denoise: float | None = None,
    look: float | None = None,
    *,
    offline: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Model:
    """A network ready to run in torch, its weights verified and, where they are absent, downloaded.

    Args:
        name_or_path: a registry name, or the path of a checkpoint with Real-ESRGAN's key names.
        device: `cpu`, `mps`, `cuda` or `cuda:N`. Jobs run through OpenVINO on a CPU; torch is there what others are
            compared with.
        precision: `fp32`, `fp16` or `bf16`.
        denoise: share of realesr-general-x4v3 in its mixture with the weakly denoising twin, from 0 (the twin
            alone) to 1; None is 1. At 1 the twin's file is not needed.
        look: share of the crisp end in a shipped network, from 0 (the natural end) to 1; None is the balanced one.
        offline: never download.
        on_progress: called during a download with bytes so far and bytes in all (None if unknown).
        on_note: called with sentences for people about a download.

    Raises:
        ModelError: model unknown, weights wrong, absent or not to be had.
        DeviceError: no such device here, or one that cannot compute in that precision.
        UsageError: `denoise` or `look` out of range or with another model; an unknown precision.
    """
    path, spec = _named(name_or_path, denoise, look)

    from keyscale.engine.models.torch_device import parse_precision, resolve_device
    from keyscale.engine.models.torch_model import Model

    # Before a download that would turn out to be useless.
    parse_precision(precision)
    resolve_device(device)
    state, spec, digest = _weights(path, spec, denoise, offline, on_progress, on_note)
    return Model(state, spec, sha256=digest, device=device, precision=precision)


def _weights(
    path: Path | None,
    spec: ModelSpec | None,
    denoise: float | None,
    offline: bool,
    on_progress: Callable[[int, int | None], None] | None,
    on_note: Callable[[str], None] | None,
) -> tuple[Mapping[str, Any], ModelSpec, str]:
    """Tensors of a checkpoint or of a known network, what they are, and their digest."""
    from keyscale.engine.models import torch_networks, weights

    if path:
        state = weights.load_state_dict(path)
        return state, torch_networks.inspect(state, name=path.stem), weights.sha256_of(path)
    assert spec is not None
    if spec.shipped:
        arrays, spec, digest = _shipped(spec)
        return _tensors(arrays), spec, digest
    file = weights.ensure(spec, offline=offline, on_progress=on_progress, on_note=on_note)
    tensors, digest = weights.load_state_dict(file), weights.sha256_of(file)
    if denoise is None or denoise == 1:
        return tensors, spec, digest
    twin = weights.ensure(find(WEAK_DENOISE), offline=offline, on_progress=on_progress, on_note=on_note)
    mixed = weights.blended(tensors, weights.load_state_dict(twin), 1 - denoise)
    return _tensors(mixed), spec, weights.blend_sha256(digest, weights.sha256_of(twin), denoise)


def _shipped(spec: ModelSpec) -> tuple[Mapping[str, Any], ModelSpec, str]:
    """Arrays of a network of the package at its look, what it is, and their digest."""
    from keyscale.engine.models import shipped, weights

    file = spec.files[0]
    state, digest = shipped.read_state(file.filename, file.sha256), file.sha256
    if spec.blend:
        other = spec.files[1]
        state = weights.blended(state, shipped.read_state(other.filename, other.sha256), spec.blend)
        digest = weights.blend_sha256(digest, other.sha256, 1 - spec.blend)
    return state, spec, digest


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _arrays(
    path: Path | None,
    spec: ModelSpec | None,
    denoise: float | None,
    offline: bool,
    on_progress: Callable[[int, int | None], None] | None,
    on_note: Callable[[str], None] | None,
) -> tuple[Mapping[str, Any], ModelSpec, str]:
    """As `_weights`, for runtimes other than torch, which is not loaded for shipped networks."""
    if spec is not None and spec.shipped:
        return _shipped(spec)
    from keyscale.engine.models import torch_networks

    tensors, spec, digest = _weights(path, spec, denoise, offline, on_progress, on_note)
    torch_networks.build(tensors, name=spec.name)  # says what is absent, left over or of another shape
    return {key: value.float().numpy() for key, value in tensors.items()}, spec, digest


def _named(
    name_or_path: str | os.PathLike[str], denoise: float | None, look: float | None
) -> tuple[Path | None, ModelSpec | None]:
    """The checkpoint or else the known network that is meant, at its look.

    Raises:
        ModelError: there is none.
        UsageError: `denoise` or `look` is out of range, or for another network.
    """
    path = _checkpoint(name_or_path)
    spec = None if path else at_look(find(str(name_or_path)), look)
    if path and look is not None:
        at_look(describe(path), look)
    if denoise is None:
        return path, spec
    if not 0 <= denoise <= 1:
        raise UsageError(f"{denoise} is out of range", option="denoise", remedy="Give 0 to 1.")
    if spec is None or spec.name != GENERAL:
        raise UsageError(
            f"is a setting of {GENERAL} alone", option="denoise", remedy=say("Leave it out, or use {model=}.", GENERAL)
        )
    return path, spec
