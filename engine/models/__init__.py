"""Real-ESRGAN networks: which there are (`registry`), their weights, and running them (`load_model`).

Importing this package imports no torch; `load_model`, and `describe` of a checkpoint's path, do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keyscale.engine.errors import ModelError, UsageError
from keyscale.engine.models.registry import (
    ModelSpec,
    WeightsFile,
    all_models,
    defaults_for,
    family,
    find,
)

if TYPE_CHECKING:
    from keyscale.engine.models.model import Model

__all__ = [
    "ModelSpec",
    "WeightsFile",
    "all_models",
    "defaults_for",
    "describe",
    "family",
    "find",
    "load_model",
]

GENERAL = "realesr-general-x4v3"
WEAK_DENOISE = "realesr-general-wdn-x4v3"
CHECKPOINT_SUFFIXES = frozenset({".pth", ".pt", ".safetensors"})


def _checkpoint(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The path that is meant, or None where a registry name is."""
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str):
        if any(spec.name.lower() == name_or_path.lower() for spec in all_models()):
            return None
        looks_like_path = path.suffix.lower() in CHECKPOINT_SUFFIXES or len(path.parts) > 1
        if not looks_like_path and not path.is_file():
            return None
    if not path.is_file():
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
    from keyscale.engine.models import networks, weights

    return networks.inspect(weights.load_state_dict(path), name=path.stem)


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
    """A network ready to run, its weights verified and, where they are absent, downloaded.

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

    from keyscale.engine.models import networks, weights
    from keyscale.engine.models.model import Model, parse_precision, resolve_device

    # Before a download that would turn out to be useless.
    parse_precision(precision)
    resolve_device(device)
    if path:
        state = weights.load_state_dict(path)
        spec, digest = networks.inspect(state, name=path.stem), weights.sha256_of(path)
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
        raise UsageError(f"denoise {denoise} is out of range", remedy="Give a number from 0 to 1.")
    if spec is None or spec.name != GENERAL:
        raise UsageError(f"denoise is a setting of {GENERAL} alone", remedy=f"Leave it out, or use --model {GENERAL}.")
