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
SMOOTH = 8 / 255
"""Range within 5x5 source pixels below which a place counts as smooth."""


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
    """Take the mean error at each place of a cell in smooth areas out of a network's last bias, in place.

    A pattern of a code shows in skies, and of the losses `grid` alone asks for the places of a cell to be alike, one
    batch at a time. The sources are the originals averaged, without any codec: what the conversions of
    `damage.through_codec` do to brightness goes out with it.
    """
    side = network.scale * network.fold
    total, count = torch.zeros(3 * side**2), 0
    with torch.inference_mode():
        for frames in held.high:
            original = to_floats(frames.copy())
            x = functional.avg_pool2d(original, network.scale)
            error = functional.pixel_unshuffle(network(x) - original, side)
            widest = (functional.max_pool2d(x, 5, 1, 2) + functional.max_pool2d(-x, 5, 1, 2)).amax(1, keepdim=True)
            smooth = functional.pixel_unshuffle((widest < SMOOTH).float(), network.fold).amin(1) > 0
            # The border is another matter: zeros lie beyond it here.
            smooth[:, :BORDER] = smooth[:, -BORDER:] = smooth[..., :BORDER] = smooth[..., -BORDER:] = False
            total += error.permute(1, 0, 2, 3)[:, smooth].sum(1)
            count += int(smooth.sum())
    if count:
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
