"""From trained ends to the files in the package: each look in fp16 safetensors and as int8 graph, and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.shipped import Look, measured, write
from keyscale.engine.models.shipped import Student as Shipped
from tools.training.network import TrainedNet
from tools.training.pattern import pattern
from tools.training.quantise import quantise
from tools.training.recipes import BALANCED
from tools.training.scenes import Scenes
from tools.training.train import load_trained

__all__ = ["export", "export_look", "mixture"]

LARGEST_FILE = 2**20
"""Bytes; weights travel in every wheel."""


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


def export(
    looks: Mapping[str, Mapping[str, TrainedNet]],
    calibration: Mapping[int, Scenes],
    folder: Path,
    *,
    log: Callable[[str], None],
) -> Path:
    """Write all networks' files and the manifest that names them; the manifest's path.

    Args:
        looks: by a network's name, in the order in which they are to be listed, and by the name of each of its looks.
        calibration: scenes that weren't trained on, by scale, of that ratio: for `pattern` and for int8.
        folder: where to; `engine/models/data` of a checkout is where the package has them.
        log: told what was written.

    Raises:
        ValueError: a file is larger than `LARGEST_FILE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = []
    for name, networks in looks.items():
        files = {}
        for look, network in networks.items():
            files[look] = export_look(network, name, look, calibration[network.scale], folder)
            for file in (files[look].weights, *files[look].quantised):
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
                **files,
            )
        )
    return write(shipped, folder)


def export_look(network: TrainedNet, name: str, look: str, scenes: Scenes, folder: Path) -> Look:
    """Write the files of one network at one look; what they are."""
    assert network.last.bias is not None
    network.last.bias.data -= pattern(network, network.scale, network.fold, scenes)
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
    stem = name if look == BALANCED else f"{name}-{look}"
    weights, graph = folder / f"{stem}.safetensors", folder / f"{stem}.int8.xml"
    save_file(stored, weights)
    weights.chmod(0o644)
    # Quantised is what is stored, so that fp32 and int8 are two forms of the same numbers.
    quantise({key: value.float() for key, value in stored.items()}, spec, scenes, graph)
    return Look(weights=measured(weights), quantised=(measured(graph), measured(graph.with_suffix(".bin"))))
