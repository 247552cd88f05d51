"""Measure keyscale on this machine: speed against the bare network, peak memory, start-up time.

    python -m bench.run [--quick] [--frames N] [--rounds N] [--threads N] [--only PART] [--json FILE]

What is compared is run in turns within the same minutes, and given as a ratio within each turn: other load on the
machine meets all alike. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import material
from bench.children import median_seconds, peak_of_job
from bench.loops import NetworkAlone, PerFrameLoop, pipeline
from bench.machine import machine
from keyscale.engine.job import Job, ModelChoice, Target, Trim
from keyscale.engine.models import find, load_model, open_model
from keyscale.engine.models.weights import locate
from keyscale.engine.runners.prepare import prepare_plan

NETWORK = "realesr-general-x4v3"
CLIP_SIZE = (854, 480)
CAMERA = (292.0, 0.0, 270.0, 480.0)
"""What the camera sees of the clip: a quarter of 1080x1920 each way."""
PLAN_SECONDS = 600


@dataclass(frozen=True)
class Options:
    """The command line."""

    frames: int
    rounds: int
    threads: int | None
    quick: bool
    folder: Path


def weights_to_use(folder: Path, network: str = NETWORK) -> tuple[str, str]:
    """The network's name where its weights are on this machine, else a checkpoint of its shape; and which it is."""
    spec = find(network)
    if locate(spec) is not None:
        return network, "trained"
    shape = material.network(folder / f"{network}.pth", features=spec.features, blocks=spec.blocks)
    return str(shape), "random, of the same shape"


def speed(options: Options, model_name: str) -> dict[str, Any]:
    """Seconds a frame of the three loops, in turns, and their ratios within a turn."""
    clip = material.textured_clip(options.folder / "speed.mp4", CLIP_SIZE, options.frames)
    camera = material.still_camera(options.folder / "speed.json", CAMERA)
    job = Job(
        source=str(clip),
        keyframes=str(camera),
        output=str(options.folder / "speed-out.mp4"),
        target=Target(width=1080, height=1920),
        trim=Trim(end=options.frames / material.RATE),
        model=ModelChoice(name=model_name),
        overwrite=True,
        resume=False,
    )
    plan = prepare_plan(job)
    model = open_model(model_name, next(way for way in plan.executions if way.device == "cpu"))
    alone = NetworkAlone.of(model, plan)
    loop = PerFrameLoop(load_model(model_name), plan, options.folder / "speed-loop.mp4")
    model.enlarge(*alone.inputs[0])
    ways: dict[str, Callable[[], float]] = {
        "network": alone.run,
        "pipeline": lambda: pipeline(job)[0],
        "loop": loop.run,
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, run in ways.items():
            before = time.process_time()
            wall[name].append(run() / options.frames)
            cpu[name].append((time.process_time() - before) / options.frames)
    return {
        "window": "{}x{}".format(*reversed(alone.inputs[0][0].shape[:2])),
        "seconds_per_frame": {name: spread(values) for name, values in wall.items()},
        "cpu_seconds_per_frame": {name: spread(values) for name, values in cpu.items()},
        "ratios": ratios(wall),
        "cpu_ratios": ratios(cpu),
    }


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Of the pipeline and of the loop to the network in the same turn."""
    return {
        f"{name}/network": spread([a / b for a, b in zip(seconds[name], seconds["network"], strict=True)])
        for name in ("pipeline", "loop")
    }


def memory(options: Options, model_name: str) -> list[dict[str, Any]]:
    """Peak memory of 1080x1920 results: short and long with a small network, and the real one on a few frames."""
    short, long = (2, 6) if options.quick else (10, 60)
    small = str(material.network(options.folder / "small.pth", features=16, blocks=2))
    clip = material.textured_clip(options.folder / "memory.mp4", CLIP_SIZE, long * material.RATE)
    camera = str(material.still_camera(options.folder / "memory.json", CAMERA))
    full = str(material.textured_clip(options.folder / "full.mp4", (1920, 1080), 8))
    full_camera = str(material.still_camera(options.folder / "full.json", (656.25, 0, 607.5, 1080)))
    cases = [
        (f"{short} s, sampling only", str(clip), camera, "lanczos", float(short)),
        (f"{long} s, sampling only", str(clip), camera, "lanczos", float(long)),
        (f"{short} s, a network of 16 features", str(clip), camera, small, float(short)),
        (f"{long} s, a network of 16 features", str(clip), camera, small, float(long)),
        (f"8 frames, {NETWORK}, of 270x480", str(clip), camera, model_name, 8 / material.RATE),
        (f"8 frames, {NETWORK}, of 607.5x1080", full, full_camera, model_name, 8 / material.RATE),
    ]
    found = []
    for name, source, keyframes, model, end in cases:
        arguments = {
            "source": source,
            "keyframes": keyframes,
            "output": str(options.folder / "memory-out.mp4"),
            "model": model,
            "end": end,
        }
        found.append({"case": name, **peak_of_job(arguments, options.threads)})
    return found


def start_up(options: Options) -> list[dict[str, Any]]:
    """Seconds of commands that should answer at once."""
    repeats = 3 if options.quick else 9
    minute = material.textured_clip(options.folder / "minute.mp4", (640, 360), 60 * material.RATE)
    clip = material.long_clip(minute, options.folder / "long.mp4", PLAN_SECONDS // 60)
    camera = material.still_camera(options.folder / "long.json", (200.0, 0.0, 202.5, 360.0))
    planned = ["plan", str(clip), str(camera)]
    cases = [
        ("keyscale --help", ["--help"], repeats),
        ("keyscale upscale --help", ["upscale", "--help"], repeats),
        ("keyscale plan, 10-minute clip", planned, 3),
        ("keyscale plan --json, 10-minute clip", [*planned, "--json"], 3),
    ]
    found = []
    for name, arguments, times in cases:
        median, least, most = median_seconds(arguments, times)
        found.append({"case": name, "median": median, "min": least, "max": most})
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show_conditions(console: Console, about: dict[str, Any]) -> None:
    """What the numbers depend on, in two lines."""
    console.print(
        f"{about['cpu']}, {about['threads']} threads, torch {about['packages']['torch']}, Python {about['python']}, "
        f"{about['date']}; weights: {about['weights']}; {about['frames']} frames, {about['rounds']} rounds"
    )


def show_start_up(console: Console, found: list[dict[str, Any]]) -> None:
    """Print the table of `start_up`."""
    table = Table("command", "median s", "min", "max", title="start-up")
    for case in found:
        table.add_row(case["case"], *(f"{case[key]:.3f}" for key in ("median", "min", "max")))
    console.print(table)


def show_speed(console: Console, found: dict[str, Any]) -> None:
    """Print the tables of `speed`."""
    labels = {"network": "network alone", "pipeline": "keyscale, end to end", "loop": "per-frame loop"}
    for kind, title in (("", "seconds"), ("cpu_", "CPU seconds")):
        table = Table(f"{title} a frame", "median", "min", "max", title=f"{NETWORK}, windows of {found['window']}")
        for name, label in labels.items():
            values = found[f"{kind}seconds_per_frame"][name]
            table.add_row(label, *(f"{values[key]:.3f}" for key in ("median", "min", "max")))
        for name, values in found[f"{kind}ratios"].items():
            table.add_row(f"ratio {name}", *(f"{values[key]:.3f}" for key in ("median", "min", "max")), style="bold")
        console.print(table)


def show_memory(console: Console, found: list[dict[str, Any]]) -> None:
    """Print the table of `memory`."""
    table = Table("1080x1920 result", "frames", "peak MB", "seconds", title="peak memory")
    for case in found:
        table.add_row(case["case"], f"{case['frames']:.0f}", f"{case['peak_mb']:.0f}", f"{case['seconds']:.1f}")
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure keyscale on this machine.")
    parser.add_argument("--frames", type=int, help="frames of the speed comparison (12, with --quick 4)")
    parser.add_argument("--rounds", type=int, help="turns of the speed comparison (5, with --quick 1)")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if left out")
    parser.add_argument("--quick", action="store_true", help="a few minutes instead of about twenty")
    parser.add_argument("--only", choices=("start-up", "speed", "memory"), help="measure this alone")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    console = Console(width=100)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="keyscale-bench-") as folder:
        options = Options(
            frames=given.frames or (4 if given.quick else 12),
            rounds=given.rounds or (1 if given.quick else 5),
            threads=given.threads,
            quick=given.quick,
            folder=Path(folder),
        )
        model_name, weights = weights_to_use(options.folder)
        found: dict[str, Any] = {
            "conditions": machine(torch.get_num_threads())
            | {"weights": weights, "frames": options.frames, "rounds": options.rounds}
        }
        show_conditions(console, found["conditions"])
        if given.only in (None, "start-up"):
            found["start_up"] = start_up(options)
            show_start_up(console, found["start_up"])
        if given.only in (None, "speed"):
            found["speed"] = speed(options, model_name)
            show_speed(console, found["speed"])
        if given.only in (None, "memory"):
            found["memory"] = memory(options, model_name)
            show_memory(console, found["memory"])
    console.print(f"measured in {time.perf_counter() - began:.0f} s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
