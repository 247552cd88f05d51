"""How fast this machine has run networks before: seconds per multiply-accumulate, kept in the cache directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from keyscale.engine.models.execution import Execution

__all__ = ["cache_directory", "known_speeds", "remember_speed", "speed_key"]

CACHE_DIR_VARIABLE = "KEYSCALE_CACHE_DIR"
"""Environment: keyscale's cache directory instead of the platform's."""

FILE = "speeds.json"

TABLE = {"cpu": 1 / 150e9, "cpu openvino int8": 1 / 500e9, "mps": 1 / 1.5e12, "cuda": 1 / 15e12}
"""Seconds per MAC before anything was measured: a laptop's CPU, an M-series and a mid-range CUDA GPU, rounded."""


def speed_key(execution: Execution, model: str = "") -> str:
    """What a speed is filed under: `"device runtime precision model"`, or without the model."""
    return f"{execution.kind} {execution.runtime} {execution.precision} {model}".rstrip()


def cache_directory() -> Path:
    """`KEYSCALE_CACHE_DIR`, a leading `~` expanded, else the user's cache directory; it may not exist yet."""
    chosen = os.environ.get(CACHE_DIR_VARIABLE)
    if not chosen:
        return platformdirs.user_cache_path("keyscale")
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        return Path(chosen)  # the home of nobody


def known_speeds() -> Mapping[str, float]:
    """Seconds per MAC by `speed_key` as measured here, over the table's entries for devices alone.

    A file that is missing or unreadable counts as no measurements: it is a cache.
    """
    speeds = dict(TABLE)
    try:
        stored = json.loads((cache_directory() / FILE).read_text(encoding="utf-8"))
        speeds.update({str(k): float(v) for k, v in stored.items() if 0 < float(v) < 1})
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    return speeds


def remember_speed(execution: Execution, model: str, seconds_per_mac: float) -> None:
    """Keep a measurement for later estimates; a cache directory that cannot be written is left alone."""
    folder = cache_directory()
    measured = {k: v for k, v in known_speeds().items() if k not in TABLE}
    measured[speed_key(execution, model)] = seconds_per_mac
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In place: a draft would be left by whoever is killed beside it, and half a file counts as no measurements.
        (folder / FILE).write_text(json.dumps(measured, indent=1, sort_keys=True), encoding="utf-8")
    except OSError:
        return
