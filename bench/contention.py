"""Two jobs at once on the same cores, with libgomp's own spinning and with keyscale's: `python -m bench.contention`.

Prints seconds per 480x270 frame of realesr-general-x4v3, one process alone and two at once. Needs the weights
(KEYSCALE_WEIGHTS_DIR, the cache, or a download).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

FRAMES = 3
LIMIT_SECONDS = 120
CHILD = f"""
import json, sys, time
from keyscale.engine.machine import share_cores
if sys.argv[1] == "keyscale":
    share_cores()
import torch
from keyscale.engine.models import load_model
model, frame, taken = load_model("realesr-general-x4v3"), torch.rand(1, 3, 270, 480), []
model(frame)
for _ in range({FRAMES}):
    began = time.perf_counter()
    model(frame)
    taken.append(time.perf_counter() - began)
print(json.dumps(taken))
"""


def seconds_per_frame(policy: str, copies: int) -> float | None:
    """Median over all frames of all copies; None where the limit ran out."""
    command = [sys.executable, "-c", CHILD, policy]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) for _ in range(copies)]
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        printed = [child.communicate(timeout=max(1.0, deadline - time.monotonic()))[0] for child in running]
    except subprocess.TimeoutExpired:
        return None
    finally:
        for child in running:
            child.kill()
            child.wait()
    return float(statistics.median(second for text in printed for second in json.loads(text)))


def main() -> None:
    """Print the table."""
    print(f"{'spinning':10} {'copies':>6} {'s/frame':>8}")
    for copies in (1, 2):
        for policy in ("libgomp", "keyscale"):
            taken = seconds_per_frame(policy, copies)
            print(f"{policy:10} {copies:6} {f'{taken:8.2f}' if taken else f'(over {LIMIT_SECONDS} s)':>8}", flush=True)


if __name__ == "__main__":
    main()
