"""CPU time of `--steady`: milliseconds a frame, of still pictures with noise, for which it does most.

    python -m bench.steady

The least of several runs, since other work on the cores can only add to it. Of the 1080p source an upright camera sees
a part; noise is measured in the whole picture.
"""

from __future__ import annotations

import time

import av
import numpy as np

from bench.machine import confine
from keyscale.engine.camera.geometry import Window
from keyscale.engine.source.steady import Moment, Steady, steadied

FRAMES, RUNS = 16, 5
CASES = (
    (270, 480, "yuv420p", Window(0, 0, 270, 480)),
    (270, 480, "yuv420p10le", Window(0, 0, 270, 480)),
    (1920, 1080, "yuv420p", Window(650, 0, 1282, 1080)),
)


def noisy(width: int, height: int, pixel_format: str, count: int) -> list[av.VideoFrame]:
    """Grey pictures with noise of 4 codes of 8 bits."""
    chance = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        frame = av.VideoFrame(width, height, pixel_format)
        unit = 2 ** (frame.format.components[0].bits - 8)
        for plane in frame.planes:
            codes = np.frombuffer(memoryview(plane), np.uint8 if unit == 1 else np.uint16)
            codes[:] = np.rint(chance.standard_normal(codes.shape, np.float32) * 4 * unit + 128 * unit)
        frames.append(frame)
    return frames


def cpu_time(width: int, height: int, pixel_format: str, part: Window) -> float:
    """Seconds a frame."""
    least = float("inf")
    steady = Steady(1.0, lambda _: part, (width, height))
    for _ in range(RUNS):
        moments = [Moment(n, n, frame) for n, frame in enumerate(noisy(width, height, pixel_format, FRAMES))]
        began = time.process_time()
        for _ in steadied(moments, range(FRAMES), steady, lambda: False):
            pass
        least = min(least, (time.process_time() - began) / FRAMES)
    return least


def main() -> None:
    """Measure and print."""
    confine(None, 1)
    for width, height, pixel_format, part in CASES:
        seconds = cpu_time(width, height, pixel_format, part)
        print(f"{width}x{height} {pixel_format}, {part.width}x{part.height} of it: {1000 * seconds:.2f} ms")


if __name__ == "__main__":
    main()
