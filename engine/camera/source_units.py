"""Keyframes in the units of a source: pixels as it is shown, seconds after its first frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.contents import Keyframe, Segment, TimeUnit, Units
from keyscale.engine.camera.framing import Framing
from keyscale.engine.errors import FramingError
from keyscale.engine.job import Trim

__all__ = ["in_source_units"]

Floats = npt.NDArray[np.float64]

_WORDS = {Units.NORMALIZED: "in parts of the frame", Units.PERCENT: "in percent of the frame"}

SHAPE = 0.01
"""By how much the declared size's aspect may differ from the source's: sizes of reduced copies are rounded to even."""


def in_source_units(framing: Framing, width: int, height: int, frame_times: Floats, rate: float) -> Framing:
    """The same camera in pixels of a `width` x `height` picture, and in seconds.

    Args:
        framing: as it was read.
        width: of the displayed picture.
        height: of the displayed picture.
        frame_times: seconds of the source's frames `(N,)`, the first 0, which frame numbers are looked up in.
        rate: frames a second, for numbers beyond the last frame.

    Raises:
        FramingError: the keyframes were made for a picture of another shape.
    """
    across, down = _scales(framing, width, height)
    if (across, down) != (1.0, 1.0):
        framing = replace(
            framing,
            keyframes=tuple(
                Keyframe(k.time, k.x * across, k.y * down, k.width * across, k.height * down, k.hold)
                for k in framing.keyframes
            ),
        )
    if framing.time_unit is TimeUnit.FRAMES:
        framing = _in_seconds(framing, frame_times, rate)
    units = None if framing.units is None else Units.PIXELS
    said = [framing.form or "a Framing"]
    if framing.units in _WORDS:
        said.append(_WORDS[framing.units])
    elif framing.source is not None and (across, down) != (1.0, 1.0):
        said.append(f"scaled from {framing.source.width:g}x{framing.source.height:g}")
    return replace(framing, units=units, source=None, form=", ".join(said))


def _scales(framing: Framing, width: int, height: int) -> tuple[float, float]:
    """Pixels of the source to a unit of the keyframes, across and down."""
    made_for = framing.source
    if made_for is not None:
        across, down = width / made_for.width, height / made_for.height
        if abs(across / down - 1) > SHAPE:
            raise FramingError(
                f"the keyframes were made for a picture of {made_for.width:g}x{made_for.height:g}, and the video is "
                f"{width}x{height}, of another shape",
                remedy="Make them for this video. Sizes are those that a player shows: upright, with square pixels.",
            )
    match framing.units:
        case Units.NORMALIZED:
            return float(width), float(height)
        case Units.PERCENT:
            return width / 100, height / 100
        case _:
            return (1.0, 1.0) if made_for is None else (across, down)


def _in_seconds(framing: Framing, frame_times: Floats, rate: float) -> Framing:
    count = len(frame_times)

    def seconds(frame: float) -> float:
        if frame >= count - 1:
            return float(frame_times[-1]) + (frame - (count - 1)) / rate
        return float(np.interp(frame, np.arange(count), frame_times))

    numbers = np.array([k.time for k in framing.keyframes], dtype=np.float64)
    times = np.interp(numbers, np.arange(count), frame_times) + np.maximum(numbers - (count - 1), 0.0) / rate
    trim = framing.trim
    return replace(
        framing,
        keyframes=tuple(
            Keyframe(time, k.x, k.y, k.width, k.height, k.hold)
            for time, k in zip(times.tolist(), framing.keyframes, strict=True)
        ),
        trim=Trim(
            start=None if trim.start is None else seconds(trim.start),
            end=None if trim.end is None else seconds(trim.end),
        ),
        segments=tuple(Segment(seconds(s.start), seconds(s.end), s.speed) for s in framing.segments),
        time_unit=TimeUnit.SECONDS,
    )
