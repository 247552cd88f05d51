"""From a trained student to the files in the package: fp16 safetensors, the int8 graph, the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch.nn import functional

from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.shipped import Student as Shipped
from keyscale.engine.models.shipped import measured, write
from tools.distill.data import Pairs
from tools.distill.quantise import quantise
from tools.distill.student import Student
from tools.distill.train import as_target, load_student, to_floats

__all__ = ["export", "without_pattern"]

LARGEST_FILE = 2**20
"""Bytes; weights travel in every wheel."""
SMOOTH = 8 / 255
"""Range within 5x5 input pixels below which a place counts as smooth."""


def without_pattern(student: Student, held: Pairs) -> None:
    """Take what a student adds at each place of a cell in smooth areas out of its last bias, in place.

    Nothing in the losses asks for the places of a cell to be alike, and a fixed pattern of a code or two shows in
    skies.
    """
    scale = student.scale
    total, count = torch.zeros(3 * scale**2), 0
    with torch.inference_mode():
        for i in range(0, len(held.low), 4):
            x = to_floats(held.low[i : i + 4].copy())
            target = as_target(to_floats(held.high[i : i + 4].copy()), scale)
            error = functional.pixel_unshuffle(student(x).clamp(0, 1) - target, scale)
            widest = functional.max_pool2d(x, 5, 1, 2) + functional.max_pool2d(-x, 5, 1, 2)
            smooth = widest.amax(1) < SMOOTH
            # The border is another matter, and clamped colours answer to no bias.
            smooth &= (x.amax(1) < 0.97) & (x.amin(1) > 0.03)
            smooth[:, :8], smooth[:, -8:], smooth[:, :, :8], smooth[:, :, -8:] = False, False, False, False
            total += error.permute(1, 0, 2, 3)[:, smooth].sum(1)
            count += int(smooth.sum())
    if count:
        assert student.last.bias is not None
        student.last.bias.data -= total / count


def export(
    checkpoints: Mapping[str, Path],
    tiles: npt.NDArray[np.uint8],
    held: Pairs,
    folder: Path,
    *,
    log: Callable[[str], None],
) -> Path:
    """Write all students' files and the manifest that names them; the manifest's path.

    Args:
        checkpoints: by the student's name, in the order in which they are to be listed.
        tiles: calibration pictures, RGB uint8 `(N, H, W, 3)`.
        held: pairs that were not trained on, for `without_pattern`.
        folder: where to; `engine/models/data` of a checkout is where the package has them.
        log: told what was written.

    Raises:
        ValueError: a file is larger than `LARGEST_FILE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = []
    for name, checkpoint in checkpoints.items():
        student, recipe = load_student(checkpoint, torch.device("cpu"))
        without_pattern(student, held)
        stored = {key: value.to(torch.float16) for key, value in student.folded().items()}
        spec = ModelSpec(
            name=name,
            family="student",
            architecture="plain",
            scale=recipe.scale,
            features=recipe.features,
            blocks=recipe.blocks,
        )
        weights, graph = folder / f"{name}.safetensors", folder / f"{name}.int8.xml"
        save_file(stored, weights)
        weights.chmod(0o644)
        # Quantised is what is stored, so that fp32 and int8 are two forms of the same numbers.
        quantise({key: value.float() for key, value in stored.items()}, spec, tiles, graph)
        files = [measured(path) for path in (weights, graph, graph.with_suffix(".bin"))]
        for file in files:
            log(f"{file.filename}: {file.size} bytes")
            if file.size > LARGEST_FILE:
                raise ValueError(f"{file.filename} has {file.size} bytes, more than {LARGEST_FILE}")
        shipped.append(
            Shipped(
                name=name,
                features=recipe.features,
                blocks=recipe.blocks,
                scale=recipe.scale,
                weights=files[0],
                quantised=(files[1], files[2]),
            )
        )
    return write(shipped, folder)
