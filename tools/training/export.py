"""From trained ends to the files in the package: their mixture in fp16 safetensors, the int8 graph, the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.shipped import Student as Shipped
from keyscale.engine.models.shipped import measured, write
from tools.training.network import TrainedNet
from tools.training.pattern import pattern
from tools.training.quantise import quantise
from tools.training.scenes import Scenes
from tools.training.train import load_trained

__all__ = ["export", "mixture"]

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
    networks: Mapping[str, TrainedNet],
    calibration: Mapping[int, Scenes],
    folder: Path,
    *,
    log: Callable[[str], None],
) -> Path:
    """Write all networks' files and the manifest that names them; the manifest's path.

    Args:
        networks: by name, in the order in which they are to be listed.
        calibration: scenes that weren't trained on, by scale, of that ratio: for `pattern` and for int8.
        folder: where to; `engine/models/data` of a checkout is where the package has them.
        log: told what was written.

    Raises:
        ValueError: a file is larger than `LARGEST_FILE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = []
    for name, network in networks.items():
        assert network.last.bias is not None
        network.last.bias.data -= pattern(network, network.scale, network.fold, calibration[network.scale])
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
        quantise({key: value.float() for key, value in stored.items()}, spec, calibration[network.scale], graph)
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
