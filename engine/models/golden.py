"""The golden tile: a small picture on which a network that was just loaded is compared with itself in fp32 on the CPU.

A GPU whose fp16 is broken, a driver that computes fp32 in fewer bits, a card that torch has no code for: they are found
here, before the work and not in its result; and so is a network that loses too much in fewer bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError
from keyscale.engine.models.enlarger import BrokenPicture, OutOfMemory
from keyscale.engine.models.execution import CLOSE
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from keyscale.engine.models.enlarger import Enlarger

__all__ = ["LEAST", "check", "decibels", "tile"]

LEAST = {"fp32": 80.0, "fp16": 35.0, "bf16": 35.0, "int8": 30.0}
"""Decibels from fp32 below which a device does not compute what it should. Convolutions in TF32 would be at 60 to 70
where fp32 was asked for."""

MOST = 120.0
"""Decibels of results that are equal, or differ by less than 16 bits show."""

WIDTH, HEIGHT = 64, 48

_measured: dict[tuple[str, str, str, str], float] = {}
"""By digest of the weights, runtime, precision and device: once a process."""


@cache
def tile() -> PixelArray:
    """The picture, `(48, 64, 3)` uint16: colours, edges, lines and texture as footage has them."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    light = 0.3 + 0.25 * x / WIDTH + 0.1 * np.sin(y / 9)
    # Waves of every direction, weaker the finer they are: the spectrum of photographs.
    pace, turn = 0.2 * 1.08 ** np.arange(28), 2.4 * np.arange(28)
    waves = np.sin(pace * (np.cos(turn) * x[..., None] + np.sin(turn) * y[..., None]) + turn**2)
    texture = (0.006 * waves / pace).sum(-1)
    disc = np.hypot(x - 20, y - 22) < 15
    lines = (x // 4 % 2 == 1) & (np.abs(x - 47) < 12) & (np.abs(y - 34) < 9)
    tint = np.stack((np.full_like(x, 0.05), 0.02 * np.cos(x / 11), -0.06 * y / HEIGHT), -1)
    picture = (light + texture - 0.25 * disc - 0.2 * lines)[..., None] + tint + disc[..., None] * (0.12, 0, -0.05)
    for axis in (0, 1):
        # As soft as video is.
        picture = (np.roll(picture, 1, axis) + 2 * picture + np.roll(picture, -1, axis)) / 4
    return np.asarray(np.rint(picture.clip(0, 1) * 65535).astype(np.uint16))


def decibels(made: PixelArray, wanted: PixelArray) -> float:
    """PSNR of a deep picture against another, up to `MOST`."""
    error = float(np.mean(((made.astype(np.float64) - wanted) / 65535) ** 2))
    return min(MOST, -10 * math.log10(error)) if error else MOST


def check(model: Enlarger, exact: Callable[[], Enlarger], *, unasked: bool) -> float | None:
    """Hold a loaded network to the golden tile, once a process; how near it came, in decibels.

    Args:
        model: as it is to be used.
        exact: loads the same in fp32 on the CPU.
        unasked: its precision is one that nobody asked for, and has to be `CLOSE`.

    Returns:
        None where the network in fp32 makes no picture of the tile either, so that it tells nothing.

    Raises:
        DeviceError: it is too far from fp32, or fails.
    """
    name, precision, place = model.spec.name, model.precision, model.place
    key = (model.sha256, type(model).__name__, precision, place)
    if key not in _measured:
        whole = Window(0, 0, WIDTH, HEIGHT)
        try:
            wanted = exact().enlarge(tile(), whole)
        except BrokenPicture:
            return None
        try:
            _measured[key] = decibels(model.enlarge(tile(), whole), wanted)
        except BrokenPicture as error:
            raise DeviceError(
                f"{name} gives NaN or black in {precision} on {place}",
                remedy=say("Use {precision=fp32}, or another {device}."),
            ) from error
        except (OutOfMemory, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DeviceError(
                f"{name} does not run in {precision} on {place}: {reason}",
                remedy=say("Use {device=cpu}, or see whether driver and torch fit each other."),
            ) from error
    found = _measured[key]
    least = max(CLOSE, LEAST[precision]) if unasked else LEAST[precision]
    if found < least:
        raise DeviceError(
            f"{name} is {found:.1f} dB from fp32 in {precision} on {place}, and {least:.0f} dB are wanted",
            remedy=say("Use {precision=fp32}, or another {device}."),
        )
    return found
