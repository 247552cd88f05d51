"""What a container's first chunk pays for, and what is done before it: core seconds, on this machine's CPU.

    python -m bench.cold [--rounds N]

Processes of their own, so that nothing is loaded: what the memory snapshot holds is imported; then the first picture of
`--mode fast` is enlarged and the second, with and without the warm-up of `engine.worker.chunk` before. Core seconds are
those of all threads (`time.process_time`). What a GPU's first kernels take is not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from importlib import import_module


def child(*, warm: bool) -> dict[str, float]:
    """Measure in this process."""
    taken, last = {}, time.process_time()

    def lap(name: str) -> None:
        nonlocal last
        taken[name], last = time.process_time() - last, time.process_time()

    from keyscale.engine.models.openvino import load_openvino

    import_module("torch")
    load_openvino()
    import_module("keyscale.engine.worker.chunk")
    import_module("keyscale.engine.pipeline.upscaler")
    lap("import")

    import numpy as np

    from keyscale.engine.camera.geometry import Window
    from keyscale.engine.job import Mode, Precision
    from keyscale.engine.models.execution import ON_ANY_CPU, choose_execution
    from keyscale.engine.models.registry import defaults_for
    from keyscale.engine.worker.chunk import WARM_SIZE, workshop

    shop = workshop("cpu")
    if warm:
        shop.warm()
        lap("warm-up of both networks")
    spec, (width, height) = defaults_for(Mode.FAST)[2], WARM_SIZE
    network = shop.network(spec.name, choose_execution(spec, "cpu", Precision.AUTO, on_cpu=ON_ANY_CPU), None)
    lap("loading")
    for name in ("first picture", "second picture"):
        network.enlarge(np.full((height, width, 3), 128, dtype=np.uint8), Window(0, 0, width, height))
        lap(name)
    return taken


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cold", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for way in ("new", "warmed"):
        command = [sys.executable, "-c", f"from bench import cold; cold.tell(warm={way == 'warmed'})"]
        runs = [json.loads(subprocess.check_output(command, text=True)) for _ in range(given.rounds)]
        parts = ", ".join(f"{name} {statistics.median(run[name] for run in runs):.2f}" for name in runs[0])
        print(f"{way} container, core seconds, median of {given.rounds}: {parts}", flush=True)
    return 0


def tell(*, warm: bool) -> None:
    """`child`, printed for the process that started this one."""
    print(json.dumps(child(warm=warm)))


if __name__ == "__main__":
    raise SystemExit(main())
