"""The networks: which there are (`registry`), their weights, and running them (`open_model`, `load_model`).

Importing this package imports neither torch nor OpenVINO; `load_model`, and `describe` of a checkpoint's path, import
torch, and `open_model` what the execution names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keyscale.engine.errors import ModelError, UsageError
from keyscale.engine.job import CHECKPOINT_SUFFIXES
from keyscale.engine.models.execution import Execution, choose_execution, needs_openvino, possible_executions
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
    from keyscale.engine.models.openvino_model import OpenvinoModel
    from keyscale.engine.models.torch_model import Model

__all__ = [
    "Execution",
    "ModelSpec",
    "WeightsFile",
    "all_models",
    "choose_execution",
    "defaults_for",
    "describe",
    "family",
    "find",
    "load_model",
    "load_openvino_model",
    "needs_openvino",
    "open_model",
    "possible_executions",
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

    A registry name is looked up, upper and lower case alike. A checkpoint's path is read (this imports torch):
    the spec is named after the file's stem, its family is `custom` and its licence `unknown`.

    Raises:
        ModelError: no such model or file, or a checkpoint that is none of the known networks.
    """
    path = _checkpoint(name_or_path)
    if path is None:
        return find(str(name_or_path))
    from keyscale.engine.models import torch_networks, weights

    return torch_networks.inspect(weights.load_state_dict(path), name=path.stem)


def open_model(
    name_or_path: str | os.PathLike[str],
    execution: Execution,
    denoise: float | None = None,
    *,
    offline: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Enlarger:
    """A network ready to run as `execution` says; arguments and errors as of `load_model`."""
    if execution.runtime == "openvino":
        _check_denoise(denoise, find(str(name_or_path)))
        return load_openvino_model(str(name_or_path), "int8" if execution.precision == "int8" else "fp32")
    return load_model(
        name_or_path,
        execution.device,
        execution.precision,
        denoise,
        offline=offline,
        on_progress=on_progress,
        on_note=on_note,
    )


def load_openvino_model(name: str, precision: Literal["fp32", "int8"]) -> OpenvinoModel:
    """A shipped network on the CPU through OpenVINO, its files verified.

    Raises:
        ModelError: no such model, a file of the package is damaged, or OpenVINO cannot read it.
        UsageError: the network is none of those that are shipped.
        DeviceError: OpenVINO does not load.
    """
    spec = find(name)
    if not spec.shipped:
        raise UsageError(f"{spec.name} does not run through OpenVINO", remedy="Run it through torch.")
    from keyscale.engine.models import openvino_graph, shipped
    from keyscale.engine.models.openvino_model import OpenvinoModel

    if precision == "int8":
        xml, weights = (shipped.read(file.filename, file.sha256) for file in spec.quantised)
        digest = hashlib.sha256("+".join(file.sha256 for file in spec.quantised).encode()).hexdigest()
        return OpenvinoModel(openvino_graph.read_graph(xml, weights), spec, sha256=digest, precision=precision)
    state, digest = shipped.read_state(spec.files[0].filename, spec.files[0].sha256), spec.files[0].sha256
    return OpenvinoModel(openvino_graph.build_graph(state, spec), spec, sha256=digest, precision=precision)


def load_model(
    name_or_path: str | os.PathLike[str],
    device: str = "cpu",
    precision: str = "fp32",
    denoise: float | None = None,
    *,
    offline: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Model:
    """A network ready to run in torch, its weights verified and, where they are absent, downloaded.

    Args:
        name_or_path: a registry name, or the path of a checkpoint with Real-ESRGAN's key names.
        device: `cpu`, `mps`, `cuda` or `cuda:N`.
        precision: `fp32`, `fp16` or `bf16`.
        denoise: share of realesr-general-x4v3 in its mixture with the weakly denoising twin, from 0 (the twin
            alone) to 1; None is 1. At 1 the twin's file is not needed.
        offline: never download.
        on_progress: called during a download with bytes so far and bytes in all (None if unknown).
        on_note: called with sentences for people about a download.

    Raises:
        ModelError: model unknown, weights wrong, absent or not to be had.
        DeviceError: no such device here, or one that cannot compute in that precision.
        UsageError: `denoise` out of range or with another model; an unknown precision.
    """
    path = _checkpoint(name_or_path)
    _check_denoise(denoise, None if path else find(str(name_or_path)))

    from keyscale.engine.models import torch_networks, weights
    from keyscale.engine.models.torch_device import parse_precision, resolve_device
    from keyscale.engine.models.torch_model import Model

    # Before a download that would turn out to be useless.
    parse_precision(precision)
    resolve_device(device)
    if path:
        state = weights.load_state_dict(path)
        spec, digest = torch_networks.inspect(state, name=path.stem), weights.sha256_of(path)
        return Model(state, spec, sha256=digest, device=device, precision=precision)

    spec = find(str(name_or_path))
    file = weights.ensure(spec, offline=offline, on_progress=on_progress, on_note=on_note)
    state, digest = weights.load_state_dict(file), weights.sha256_of(file)
    if denoise is not None and denoise != 1:
        twin = weights.ensure(find(WEAK_DENOISE), offline=offline, on_progress=on_progress, on_note=on_note)
        other = weights.load_state_dict(twin)
        state = {key: value.float().lerp(other[key].float(), 1 - denoise) for key, value in state.items()}
        digest = weights.blend_sha256(digest, weights.sha256_of(twin), denoise)
    return Model(state, spec, sha256=digest, device=device, precision=precision)


def _check_denoise(denoise: float | None, spec: ModelSpec | None) -> None:
    if denoise is None:
        return
    if not 0 <= denoise <= 1:
        raise UsageError(f"{denoise} is out of range", option="denoise", remedy="Give 0 to 1.")
    if spec is None or spec.name != GENERAL:
        raise UsageError(
            f"is a setting of {GENERAL} alone", option="denoise", remedy=say("Leave it out, or use {model=}.", GENERAL)
        )
