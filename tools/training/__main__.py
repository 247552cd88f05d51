"""From photographs to the networks in the package, in one command.

    python -m tools.training --images DIR [--images DIR ...] --work DIR [--plan cpu|full] [--device DEVICE] [--into DIR]

Every step is skipped where its result is there already, and training goes on at its last checkpoint: after an
interruption, run the same command again.
"""

from __future__ import annotations

import argparse
import time
from fractions import Fraction
from pathlib import Path

import torch

from keyscale.engine.errors import DeviceError
from keyscale.engine.forms import LOOKS
from keyscale.engine.models.torch_device import resolve_device
from tools.training.export import export, mixture
from tools.training.material import find_material
from tools.training.quantise import PICTURES
from tools.training.recipes import CRISP, NATURAL, PLANS
from tools.training.scenes import Scenes, open_scenes, prepare_scenes
from tools.training.train import is_finished, train

SEED, HELD_SEED, CALIBRATION_SEED = 1, 7, 11
"""Of the series of scenes: to train on, to score on, to take activation ranges from."""


def _device(text: str) -> torch.device:
    try:
        return resolve_device(text)
    except DeviceError as error:
        raise argparse.ArgumentTypeError(f"{error.message}. {error.remedy}") from error


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(prog="python -m tools.training", description="Train the networks in the package.")
    parser.add_argument(
        "--images", type=Path, action="append", required=True, help="folder with folders of tools/training/material.py"
    )
    parser.add_argument("--work", type=Path, required=True, help="where scenes, checkpoints and logs go")
    parser.add_argument("--plan", choices=PLANS, default="cpu", help="how much: cpu (hours) or full (for a GPU)")
    parser.add_argument("--device", type=_device, default="cpu", help="where networks are trained: cpu, cuda, mps")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; its own choice if left out")
    names = list(PLANS["cpu"].networks)
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help="train this network alone; may be repeated"
    )
    parser.add_argument("--into", type=Path, help="where the finished files go; WORK/shipped if left out")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    began = time.monotonic()

    def log(text: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True)

    work: Path = given.work
    plan, device = PLANS[given.plan], given.device
    try:
        material = find_material(given.images)
    except FileNotFoundError as error:
        parser.error(f"{error.filename or error} is not there; see tools/training/README.md for what is needed")
    scenes: dict[int, dict[Fraction, Scenes]] = {}
    held: dict[int, dict[Fraction, Scenes]] = {}
    calibration: dict[int, Scenes] = {}
    for scale in sorted({network.natural.scale for network in plan.networks.values()}):
        for what, count, seed in (
            ("train", plan.scenes, SEED),
            ("held", plan.held, HELD_SEED),
            ("calibration", 2 * PICTURES, CALIBRATION_SEED),
        ):
            prepare_scenes(given.work / f"{what}-x{scale}", material, scale=scale, count=count, seed=seed, log=log)
        scenes[scale] = open_scenes(given.work / f"train-x{scale}", scale)
        held[scale] = open_scenes(given.work / f"held-x{scale}", scale)
        # Half of all scenes are of this ratio, and the pictures of one size.
        calibration[scale] = open_scenes(given.work / f"calibration-x{scale}", scale)[Fraction(scale)]

    def checkpoint(name: str, end: str) -> Path:
        return work / "networks" / f"{name}-{end}.ckpt"

    for name, network in plan.networks.items():
        if given.only and name not in given.only:
            continue
        scale = network.natural.scale
        for end, recipe, start in (
            (NATURAL, network.natural, None),
            (CRISP, network.crisp, checkpoint(name, NATURAL)),
        ):
            train(checkpoint(name, end), recipe, scenes[scale], held[scale], device=device, start_from=start, log=log)
    ends = {name: (checkpoint(name, NATURAL), checkpoint(name, CRISP)) for name in plan.networks}
    missing = [name for name, paths in ends.items() if not all(map(is_finished, paths))]
    if missing:
        log(f"not exported: {', '.join(missing)} are not trained to their end yet")
        return
    looks = {name: {look: mixture(*paths, share) for look, share in LOOKS.items()} for name, paths in ends.items()}
    log(f"wrote {export(looks, calibration, given.into or given.work / 'shipped', log=log)}")


if __name__ == "__main__":
    main()
