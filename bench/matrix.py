"""The colour matrix of a frame above 8 bits, as one product and in pieces: `python -m bench.matrix`.

Prints milliseconds for 1080x1920 pixels in each of two threads, as reader and writer of a job have them, on quiet cores
and beside as many busy loops as there are cores. OpenBLAS gives one large product to threads that wait for each other
by spinning, and so for whoever has their cores: seldom, but then for half a second, which is why means are told.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from keyscale.engine.source.colour import multiply_rows
from keyscale.engine.system import usable_cores

PIXELS = 1080 * 1920
THREADS = 2
TURNS = 20


def milliseconds(work: Callable[[npt.NDArray[np.float32]], object]) -> float:
    """Mean time of a frame in each of the threads."""

    def turns() -> None:
        rows = np.random.default_rng(0).random((PIXELS, 3), np.float32)
        ready.wait()
        for _ in range(TURNS):
            work(rows)

    ready = threading.Barrier(THREADS + 1)
    threads = [threading.Thread(target=turns) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return 1000 * (time.perf_counter() - began) / TURNS


def main() -> None:
    """Print the table."""
    matrix = np.eye(3, dtype=np.float32)
    print(f"{'busy loops':>10} {'one product':>12} {'in pieces':>10} {'ratio':>6}")
    for busy in (0, usable_cores()):
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        time.sleep(1)  # until they are busy
        try:
            whole = milliseconds(lambda rows: rows @ matrix)
            pieces = milliseconds(lambda rows: multiply_rows(rows, matrix))
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        print(f"{busy:>10} {whole:>12.1f} {pieces:>10.1f} {whole / pieces:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
