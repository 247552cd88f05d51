"""From trained ends to the files in the package: their mixture in fp16 safetensors, the int8 graph, the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch.nn import functional

from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.shipped import Student as Shipped
from keyscale.engine.models.shipped import measured, write
from tools.training.network import TrainedNet
from tools.training.quantise import quantise
from tools.training.scenes import Scenes
from tools.training.train import load_trained, to_floats

__all__ = ["export", "mixture", "without_pattern"]

LARGEST_FILE = 2**20
"""Bytes; weights travel in every wheel."""
BORDER = 8
"""Cells at the border of a scene that are left out of its mean error."""


def mixture(natural: Path, crisp: Path, share: float) -> TrainedNet:
    """The network whose weights are `1 - share` of the natural end's and `share` of the crisp end's.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    network, _ = load_trained(natural, torch.device("cpu"))
    other, _ = load_trained(crisp, torch.device("cpu"))
    theirs = other.state_dict()
    network.load_state_dict({key: value.lerp(theirs[key], share) for key, value in network.state_dict().items()})
    return network


def without_pattern(network: TrainedNet, held: Scenes) -> None:
    """Take the mean error at each place of a cell out of a network's last bias, in place.

    Of the losses `grid` alone asks for the places of a cell to be alike, and sees one batch at a time; a fixed pattern
    of a fraction of a code is enough for a grid to stand out of a spectrum.
    """
    side = network.scale * network.fold
    total, count = torch.zeros(3 * side**2), 0
    with torch.inference_mode():
        for low, high in zip(held.low[:, 0], held.high[:, 0], strict=True):
            error = network(to_floats(low[None].copy())) - to_floats(high[None].copy())
            # The border is another matter: zeros lie beyond it here.
            inner = functional.pixel_unshuffle(error, side)[0, :, BORDER:-BORDER, BORDER:-BORDER]
            total += inner.sum((1, 2))
            count += inner.shape[1] * inner.shape[2]
    assert network.last.bias is not None
    network.last.bias.data -= total / count


def export(
    networks: Mapping[str, TrainedNet],
    pictures: Mapping[int, npt.NDArray[np.uint8]],
    held: Mapping[int, Mapping[Fraction, Scenes]],
    folder: Path,
    *,
    log: Callable[[str], None],
) -> Path:
    """Write all networks' files and the manifest that names them; the manifest's path.

    Args:
        networks: by name, in the order in which they are to be listed.
        pictures: to calibrate with, by scale: RGB uint8 `(N, H, W, 3)`.
        held: scenes that were not trained on, by scale and ratio, for `without_pattern`.
        folder: where to; `engine/models/data` of a checkout is where the package has them.
        log: told what was written.

    Raises:
        ValueError: a file is larger than `LARGEST_FILE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = []
    for name, network in networks.items():
        without_pattern(network, held[network.scale][Fraction(network.scale)])
        stored = {key: value.to(torch.float16) for key, value in network.plain().items()}
        spec = ModelSpec(
            name=name,
            family="student",
            architecture="plain",
            scale=network.scale,
            features=network.features,
            blocks=network.blocks,
            fold=network.fold,
        )
        weights, graph = folder / f"{name}.safetensors", folder / f"{name}.int8.xml"
        save_file(stored, weights)
        weights.chmod(0o644)
        # Quantised is what is stored, so that fp32 and int8 are two forms of the same numbers.
        quantise({key: value.float() for key, value in stored.items()}, spec, pictures[network.scale], graph)
        files = [measured(path) for path in (weights, graph, graph.with_suffix(".bin"))]
        for file in files:
            log(f"{file.filename}: {file.size} bytes")
            if file.size > LARGEST_FILE:
                raise ValueError(f"{file.filename} has {file.size} bytes, more than {LARGEST_FILE}")
        shipped.append(
            Shipped(
                name=name,
                features=network.features,
                blocks=network.blocks,
                scale=network.scale,
                fold=network.fold,
                weights=files[0],
                quantised=(files[1], files[2]),
            )
        )
    return write(shipped, folder)
