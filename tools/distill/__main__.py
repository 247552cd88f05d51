"""From photographs to the networks in the package, in one command.

    python -m tools.distill --images DIR --clips DIR --work DIR [--plan cpu|full] [--device DEVICE] [--into DIR]

Every step is skipped where its result is there already, and training goes on at its last checkpoint: after an
interruption, run the same command again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from keyscale.engine.models import load_model
from tools.distill.data import find_sources, make_tiles, open_pairs, prepare
from tools.distill.export import export
from tools.distill.quantise import TILES
from tools.distill.recipes import PLANS, donor_of, training_order
from tools.distill.scenes import open_scenes, prepare_scenes
from tools.distill.teacher import Teacher
from tools.distill.train import is_finished, train

TEACHER = "realesr-general-x4v3"
SEED, SCENE_SEED, HELD_SEED, CALIBRATION_SEED = 1, 3, 7, 11
"""Of the series of tiles and scenes: to train on, to learn calm from, to judge on, to take activation ranges from."""


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(prog="python -m tools.distill", description="Train the networks in the package.")
    parser.add_argument("--images", type=Path, required=True, help="folder with the folders Kodak24, gb82, gb82_screen")
    parser.add_argument(
        "--clips", type=Path, required=True, help="folder with the clips named in tools/distill/data.py"
    )
    parser.add_argument("--work", type=Path, required=True, help="where pairs, checkpoints and logs go")
    parser.add_argument("--plan", choices=PLANS, default="cpu", help="how much: cpu (hours) or full (for a GPU)")
    parser.add_argument("--device", default="cpu", help="where teacher and students run: cpu, cuda, mps")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; its own choice if left out")
    parser.add_argument("--only", action="append", metavar="NAME", help="train this student alone; may be repeated")
    parser.add_argument("--into", type=Path, help="where the finished files go; WORK/shipped if left out")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    began = time.monotonic()

    def log(text: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True)

    plan = PLANS[given.plan]
    try:
        sources = find_sources(given.images, given.clips)
    except FileNotFoundError as error:
        parser.error(f"{error.filename or error} is not there; see tools/distill/README.md for what is needed")
    teacher = Teacher(load_model(TEACHER, given.device, "fp32", on_note=log))
    prepare(given.work / "train", sources, teacher, count=plan.pairs, seed=SEED, log=log)
    prepare(given.work / "held", sources, teacher, count=plan.held, seed=HELD_SEED, log=log)
    prepare_scenes(given.work / "scenes", sources, teacher, count=plan.scenes, seed=SCENE_SEED, log=log)
    pairs, held = open_pairs(given.work / "train"), open_pairs(given.work / "held")
    scenes = open_scenes(given.work / "scenes")
    checkpoints = {name: given.work / "students" / f"{name}.ckpt" for name in plan.stages}
    for name in training_order(plan):
        if given.only and name not in given.only:
            continue
        donor = donor_of(name)
        if donor and not is_finished(checkpoints[donor]):
            parser.error(
                f"{name} begins as {donor}, which is not trained to its end yet: leave --only out, or train that first"
            )
        train(
            checkpoints[name],
            plan.stages[name],
            pairs,
            held,
            scenes=scenes,
            device=torch.device(given.device),
            start_from=checkpoints[donor] if donor else None,
            log=log,
        )
    finished = {name: checkpoints[name] for name in plan.students}
    missing = [name for name, path in finished.items() if not is_finished(path)]
    if missing:
        log(f"not exported: {', '.join(missing)} are not trained to their end yet")
        return
    tiles = make_tiles(sources, seed=CALIBRATION_SEED, count=TILES)
    log(f"wrote {export(finished, tiles, held, given.into or given.work / 'shipped', log=log)}")


if __name__ == "__main__":
    main()
