"""From a trained student to the files in the package: fp16 safetensors, the int8 graph, the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.shipped import Student as Shipped
from keyscale.engine.models.shipped import measured, write
from tools.distill.quantise import quantise
from tools.distill.train import load_student

__all__ = ["export"]

LARGEST_FILE = 2**20
"""Bytes; weights travel in every wheel."""


def export(
    checkpoints: Mapping[str, Path],
    tiles: npt.NDArray[np.uint8],
    folder: Path,
    *,
    log: Callable[[str], None],
) -> Path:
    """Write all students' files and the manifest that names them; the manifest's path.

    Args:
        checkpoints: by the student's name, in the order in which they are to be listed.
        tiles: calibration pictures, RGB uint8 `(N, H, W, 3)`.
        folder: where to; `engine/models/data` of a checkout is where the package has them.
        log: told what was written.

    Raises:
        ValueError: a file is larger than `LARGEST_FILE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = []
    for name, checkpoint in checkpoints.items():
        student, recipe = load_student(checkpoint, torch.device("cpu"))
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
