"""What a keyframes file says, whatever its format: the plain data that every reader of a format gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from keyscale.engine.job import Trim

__all__ = [
    "LARGEST",
    "SMALLEST_SIDE",
    "Contents",
    "Interpolation",
    "Keyframe",
    "Segment",
    "SourceSize",
    "TimeUnit",
    "Units",
]

LARGEST = 1e9
"""Largest magnitude of any number in the file: far beyond every video, and safe to multiply in float64."""

SMALLEST_SIDE = 1e-6
"""Smallest width or height in pixels; below it the scale to the target leaves the range of float32."""


class Interpolation(StrEnum):
    """How the camera moves from one keyframe to the next."""

    LINEAR = "linear"
    SMOOTH = "smooth"
    CATMULL_ROM = "catmull-rom"


class Units(StrEnum):
    """What the coordinates of keyframes count."""

    PIXELS = "pixels"
    NORMALIZED = "normalized"
    """Parts of the frame, 0 to 1."""
    PERCENT = "percent"
    """Of the frame, 0 to 100."""


class TimeUnit(StrEnum):
    """What the times of a keyframes file count."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    FRAMES = "frames"
    """Frames of the source, the first one 0."""


class SourceSize(NamedTuple):
    """Size of the picture that the coordinates were made for, in pixels."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Keyframe:
    """The camera's rectangle at one time: pixels of the displayed frame, origin top left, never rounded."""

    time: float
    """Seconds after the first displayed frame, 0 or more."""
    x: float
    y: float
    width: float
    height: float
    hold: bool = False
    """The rectangle stands until the next keyframe, where the picture cuts."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Source seconds `[start, end)` played at `speed`, 0.1 to 10 (2 is twice as fast)."""

    start: float
    end: float
    speed: float


@dataclass(frozen=True)
class Contents:
    """What a keyframes file says, checked."""

    keyframes: tuple[Keyframe, ...]
    """In the order of the file, at least one."""
    interpolation: Interpolation = Interpolation.LINEAR
    trim: Trim = field(default_factory=Trim)
    """Part of the source to use, seconds."""
    segments: tuple[Segment, ...] = ()
    """Stretches of the source with a speed of their own: by start, without overlaps."""
    rotation: float = 0.0
    """Degrees counter-clockwise, applied before the crop, on a canvas of the same size."""
    units: Units | None = None
    """What the coordinates count; None where the file doesn't say, which means pixels if they can be."""
    time_unit: TimeUnit | None = None
    """`FRAMES` where all times are frame numbers of the source, from 0; else seconds. None where the file doesn't say
    in what it counts, which means seconds if they can be."""
    source: SourceSize | None = None
    """Size of the picture that the keyframes were made for, which has the source's shape; None is the source's own."""
    form: str = field(default="", compare=False)
    """What the file was recognised as, in words."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was assumed in reading it, for people to know."""
