"""The shipped networks end to end, beside the per-frame loop with Real-ESRGAN's own networks, in the same minutes.

    python -m bench.students [--cores N] [--frames N] [--rounds N] [--clip FILE --camera X,Y,W,H] [--json FILE]

Every number comes from a process that was confined to so many cores before anything was loaded. The loop is
Real-ESRGAN's video script as `bench.loops` rebuilds it, with the same encoder settings as keyscale; it is given fewer
frames, since it is slow, and no time to start up: its clock starts after its network is loaded, keyscale's before.
Where Real-ESRGAN's weights are not on the machine, random ones of the same shape take their place, which are as fast.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import material
from bench.machine import confine, machine

CLIP_SIZE = (854, 480)
CAMERA = (292.0, 0.0, 270.0, 480.0)
"""A quarter of 1080x1920 each way: what a x4 network makes is the result, without resampling."""
STUDENTS = ("keyscale-compact-x4", "keyscale-tiny-x4")
LOOPS = ("realesr-animevideov3", "realesr-general-x4v3")
LOOP_FRAMES = 4


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds a frame of every way, in turns."""
    # Late, so that the confinement to some cores comes before the libraries count them.
    from bench.loops import PerFrameLoop, pipeline
    from bench.run import weights_to_use
    from keyscale.engine.job import Job, ModelChoice, Target, Trim
    from keyscale.engine.models import load_model
    from keyscale.engine.runners.prepare import prepare_plan

    clip = options.clip or material.textured_clip(folder / "clip.mp4", CLIP_SIZE, options.frames)
    x, y, width, height = map(float, options.camera.split(",")) if options.camera else CAMERA
    camera = material.still_camera(folder / "camera.json", (x, y, width, height))

    def job(model: str, frames: int) -> Job:
        return Job(
            source=str(clip),
            keyframes=str(camera),
            output=str(folder / "out.mp4"),
            target=Target(width=1080, height=1920),
            trim=Trim(end=frames / material.RATE),
            model=ModelChoice(name=model),
            overwrite=True,
            resume=False,
        )

    loops = {}
    for name in LOOPS:
        network, _ = weights_to_use(folder, name)
        loops[name] = PerFrameLoop(load_model(network), prepare_plan(job(network, LOOP_FRAMES)), folder / "loop.mp4")
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name in STUDENTS:
            spent, done = pipeline(job(name, options.frames))
            seconds.setdefault(name, []).append(spent / done.frames)
        for name, loop in loops.items():
            seconds.setdefault(name, []).append(loop.run() / LOOP_FRAMES)
    return {
        "conditions": machine(options.cores)
        | {"cores": options.cores, "frames": options.frames, "rounds": options.rounds},
        "seconds_per_frame": seconds,
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """Print what `measure` found: medians, and ratios of medians."""
    seconds = {name: sorted(values)[len(values) // 2] for name, values in found["seconds_per_frame"].items()}
    console.print(", ".join(f"{key}: {value}" for key, value in found["conditions"].items()))
    table = Table("end to end, 270x480 -> 1080x1920", "ms a frame", *(f"times faster than {n}'s loop" for n in LOOPS))
    for name, value in seconds.items():
        label = name if name in STUDENTS else f"per-frame loop, {name}"
        table.add_row(label, f"{1000 * value:.0f}", *(f"{seconds[loop] / value:.1f}" for loop in LOOPS))
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.students", description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=2, help="cores to be confined to")
    parser.add_argument("--frames", type=int, default=150, help="frames of keyscale's jobs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--clip", type=Path, help="a clip of one's own at 30 frames a second; a textured one if left out"
    )
    parser.add_argument("--camera", help="x,y,width,height within that clip")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    confine(-options.cores, None)
    with tempfile.TemporaryDirectory(prefix="keyscale-bench-") as folder:
        found = measure(options, Path(folder))
    show(Console(width=120), found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
