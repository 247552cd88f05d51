"""The official networks on a CPU: torch, OpenVINO in fp32, and what `--precision auto` takes, in the same minutes.

    python -m bench.runtimes [--rounds N] [--model NAME ...] [--size WxH] [--json FILE]

Each turn runs every way once on the same picture; what is given is the ratio to torch within a turn, so that other load
on the machine meets all alike, and that of CPU time, which it hardly moves. The weights have to be on the machine, but
for SRVGG networks, where random ones of the same shape are as fast. torch runs layer by layer, with channels last.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from bench.run import spread, weights_to_use
from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError
from keyscale.engine.job import Precision
from keyscale.engine.machine import share_cores
from keyscale.engine.models import choose_execution, describe, golden, load_model, open_model
from keyscale.engine.models.enlarger import Enlarger
from keyscale.engine.models.execution import Execution
from keyscale.engine.models.openvino import cpu_precisions, thread_count

SIZES = {
    "realesr-general-x4v3": (464, 272),
    "realesr-animevideov3": (464, 272),
    "RealESRGAN_x4plus": (232, 136),
}
"""Networks and the pictures they are measured on: a quarter of 1080x1920 with some context, half of that for RRDB."""


def measure(name: str, size: tuple[int, int], rounds: int, folder: Path) -> dict[str, Any]:
    """Seconds a picture of every way, in turns, and their ratios within a turn."""
    given, which = weights_to_use(folder, name)
    spec = describe(given)
    fastest = choose_execution(spec, "cpu", Precision.AUTO, on_cpu=cpu_precisions())
    models: dict[str, Enlarger] = {
        "torch fp32": load_model(given),
        "openvino fp32": open_model(given, Execution("openvino", "fp32", "cpu")),
    }
    left = None
    try:
        models[f"auto: {fastest.precision}"] = open_model(given, fastest, unasked=True)
    except DeviceError as error:
        left = error.message
    tile = (golden.tile() >> 8).astype(np.uint8)
    frame = np.tile(tile, (-(-size[1] // golden.HEIGHT), -(-size[0] // golden.WIDTH), 1))[: size[1], : size[0]]
    pixels, whole = np.ascontiguousarray(frame), Window(0, 0, *size)
    seconds: dict[str, list[float]] = {way: [] for way in models}
    cpu: dict[str, list[float]] = {way: [] for way in models}
    for turn in range(rounds + 1):
        for way, model in models.items():
            began, before = time.perf_counter(), time.process_time()
            model.enlarge(pixels, whole)
            if turn:  # in the first one graphs are compiled
                seconds[way].append(time.perf_counter() - began)
                cpu[way].append(time.process_time() - before)
    return {
        "model": name,
        "weights": which,
        "size": size,
        "left": left,
        "seconds": {way: spread(values) for way, values in seconds.items()},
        "decibels": {way: model.decibels for way, model in models.items()},
        "faster": {way: faster(seconds, way) for way in models},
        "less_cpu": {way: faster(cpu, way) for way in models},
    }


def faster(spent: dict[str, list[float]], way: str) -> dict[str, float]:
    """How many times as long torch took in the same turn."""
    return spread([a / b for a, b in zip(spent["torch fp32"], spent[way], strict=True)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.runtimes", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", action="append", choices=list(SIZES), help="of these networks; all if left out")
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), help="of the picture, WxH")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    share_cores()  # as jobs do; without it torch's threads spend CPU time on waiting
    with tempfile.TemporaryDirectory(prefix="keyscale-bench-") as folder:
        found = [
            measure(name, options.size or SIZES[name], options.rounds, Path(folder)) for name in options.model or SIZES
        ]
    console = Console(width=120)
    console.print(", ".join(f"{key}: {value}" for key, value in machine(thread_count()).items()))
    table = Table("network", "picture", "way", "s a picture", "times as fast as torch", "by CPU time", "dB")
    for each in found:
        for way, seconds in each["seconds"].items():
            near = each["decibels"][way]
            table.add_row(
                each["model"],
                "{}x{}".format(*each["size"]),
                way,
                f"{seconds['median']:.3f}",
                *("{median:.2f} ({min:.2f} to {max:.2f})".format(**each[kind][way]) for kind in ("faster", "less_cpu")),
                "-" if near is None else f"{near:.1f}",
            )
        if each["left"]:
            console.print(each["left"])
    console.print(table)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine(thread_count()), "found": found}, indent=1) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()
