"""Measurements that need a process of their own: peak memory and start-up time."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["median_seconds", "peak_of_job"]

KEYSCALE = Path(sys.executable).with_name("keyscale")


def _environment(threads: int | None) -> Mapping[str, str]:
    return os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}


def peak_of_job(arguments: Mapping[str, Any], threads: int | None) -> dict[str, float]:
    """Run one job in a fresh process: `peak_mb` (maximum resident set), `frames` and `seconds`.

    Args:
        arguments: of `main` below.
        threads: of torch; None is its own choice.
    """
    command = [sys.executable, "-m", "bench.children", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(threads))
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "the measured process failed")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def median_seconds(arguments: Sequence[str], repeats: int) -> tuple[float, float, float]:
    """Median, least and most wall-clock seconds of the `keyscale` command; one run before is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        subprocess.run([str(KEYSCALE), *arguments], capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]), min(seconds[1:]), max(seconds[1:])


def _peak_mb() -> float:
    """Maximum resident set of this process so far, in units of 2**20 bytes; NaN on Windows."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux hands ru_maxrss of the process that forked through exec: the bench's own memory would be the least.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**10
    peak = math.nan
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
    return peak


def main(arguments: Mapping[str, Any]) -> None:
    """The child: run the job and print what it took."""
    import threading

    from keyscale.engine.events import Done
    from keyscale.engine.job import Job, ModelChoice, Target, Trim
    from keyscale.engine.runners.local import run_local
    from keyscale.engine.runners.prepare import prepare

    job = Job(
        source=arguments["source"],
        keyframes=arguments["keyframes"],
        output=arguments["output"],
        target=Target(width=1080, height=1920),
        trim=Trim(end=arguments["end"]),
        model=ModelChoice(name=arguments["model"]),
        overwrite=True,
        resume=False,
    )
    for event in run_local(prepare(job), threading.Event()):
        if isinstance(event, Done):
            print(json.dumps({"peak_mb": _peak_mb(), "frames": event.frames, "seconds": event.seconds}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
