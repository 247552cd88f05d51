"""How fast this machine has done jobs before, kept in the cache directory, for estimates.

A run counts by its frames, and windows by their size: the speed per pixel of a tiny one says nothing of a large one.
Medians are taken, so that a run on a busy machine, or one in which it slept, is outvoted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keyscale.engine.files import cache_folder
from keyscale.engine.models.execution import Execution

__all__ = [
    "Measured",
    "checking_key",
    "known_speeds",
    "making_key",
    "measured_speed",
    "remember",
    "size_key",
    "speed_key",
    "typical",
]

FILE = "speeds.json"

FEWEST_FRAMES = 8
"""Of a run that is kept: in shorter ones it counts most how long things take to get going."""

MOST_RUNS = 9
"""Kept for each kind of work and size: the latest."""

MOST_FRAMES = 1000
"""That a run may count for, lest one long job on a busy machine outvotes all others."""

FARTHEST = 2
"""How many times the pixels may double or halve from what was measured to what is estimated."""

TABLE = {
    "cpu": 1 / 150e9,
    "cpu openvino bf16": 1 / 300e9,
    "cpu openvino fp16": 1 / 300e9,
    "cpu openvino int8": 1 / 500e9,
    "mps": 1 / 1.5e12,
    "intel": 1 / 0.5e12,
    "webgpu": 1 / 0.5e12,
    "cuda": 1 / 15e12,
}
"""Seconds per MAC before anything was measured: a laptop's CPU, an M-series, graphics of a
laptop's processor, and a mid-range CUDA GPU, rounded."""


def speed_key(execution: Execution, model: str = "") -> str:
    """What a speed is filed under: `"device runtime precision model"`, or without the model."""
    return f"{execution.kind} {execution.runtime} {execution.precision} {model}".rstrip()


def making_key(encoder: str, preset: str | None, *, network: bool, steady: bool = False, mixed: bool = False) -> str:
    """What the time of reading, sampling and encoding is filed under; beside a network only what that does not hide."""
    ways = ((network, " beside a network"), (steady, ", steady"), (mixed, ", mixed"))
    return f"making {encoder} {preset or 'default'}{''.join(words for does, words in ways if does)}"


def checking_key(verify: str) -> str:
    """What the time of joining and verifying is filed under."""
    return f"checking {verify}"


def size_key(encoder: str) -> str:
    """What the size of results is filed under."""
    return f"size {encoder}"


@dataclass(frozen=True)
class Measured:
    """What one run has shown."""

    key: str
    pixels: int
    """Of a frame, or of a window of the network."""
    frames: int
    value: float
    """Seconds per MAC or per pixel, or bytes per pixel."""

    @property
    def name(self) -> str:
        """Under which it is kept: the key, and the size as a power of two."""
        return _name(self.key, _doublings(self.pixels))


def typical(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted median: half of the weight lies on values up to it."""
    left = sum(weights) / 2
    for value, weight in sorted(zip(values, weights, strict=True)):
        left -= weight
        if left <= 0:
            return value
    raise ValueError("the median of nothing")


def measured_speed(speeds: Mapping[str, float], key: str, pixels: int) -> float | None:
    """What was measured for frames or windows of about that size; None where nothing was."""
    size = _doublings(pixels)
    for away in range(FARTHEST + 1):
        # The larger one first: small windows are the ones that deviate.
        for near in (size + away, size - away):
            if (speed := speeds.get(_name(key, near))) is not None:
                return speed
    return None


def known_speeds() -> Mapping[str, float]:
    """What was measured here, by `Measured.name`, beside the table's entries, which have the names of devices.

    A file that is missing or unreadable counts as no measurements: it is a cache.
    """
    measured = {name: typical([v for _, v in runs], [f for f, _ in runs]) for name, runs in _kept().items()}
    return TABLE | measured


def remember(found: Iterable[Measured]) -> None:
    """Keep what a run has shown for later estimates; a cache directory that cannot be written is left alone."""
    telling = [each for each in found if each.frames >= FEWEST_FRAMES and 0 < each.value < 1e3]
    if not telling:
        return
    kept = _kept()
    for each in telling:
        runs = kept.setdefault(each.name, [])
        runs.append((min(each.frames, MOST_FRAMES), each.value))
        del runs[:-MOST_RUNS]
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In place: a process that is killed would leave a draft beside it, and half a file counts as no measurements.
        (folder / FILE).write_text(json.dumps({"runs": kept}, indent=1, sort_keys=True), encoding="utf-8")
    except OSError:
        return


def _kept() -> dict[str, list[tuple[int, float]]]:
    """Frames and value of the runs kept, by `Measured.name`. Files from before runs were kept singly have none."""
    try:
        stored = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))["runs"]
        return {
            str(name): runs
            for name, given in stored.items()
            if (runs := [(int(f), float(v)) for f, v in given if int(f) > 0 and 0 < float(v) < 1e3])
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError, OverflowError):
        return {}


def _doublings(pixels: int) -> int:
    return max(1, pixels).bit_length()


def _name(key: str, doublings: int) -> str:
    return f"{key} 2^{doublings}"
