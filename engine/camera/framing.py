"""The virtual camera: keyframes -> the rectangle it sees at any time, then moved and cut to fit.

A rectangle is (x, y, width, height): float pixels of the displayed source frame, origin top left. The
vectorised functions take and give rows of these four, as float64 `(N, 4)`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import attrgetter
from os import PathLike
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera import keyframes
from keyscale.engine.camera.contents import (
    SMALLEST_SIDE,
    Contents,
    Interpolation,
    Keyframe,
    Segment,
    SourceSize,
    TimeUnit,
    Units,
)
from keyscale.engine.errors import FramingError, UsageError

__all__ = [
    "Framing",
    "Interpolation",
    "Keyframe",
    "Rect",
    "Segment",
    "SourceSize",
    "TimeUnit",
    "Units",
    "cover_all",
    "far_outside",
    "framing_of",
    "load_framing",
    "parse_framing",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

SHRINKABLE = 1.0
"""Pixels by which a rectangle may be larger than the frame and still be shrunk to it (editors round)."""

WHOLE = "the whole frame"
"""The form of a camera without keyframes."""

NOISE = 1e-6
"""Pixels below which a difference is float rounding."""

SHORTEST = 1e-12
"""Seconds; keyframes closer than this count as this far apart in slopes, so that none overflows."""


@dataclass(frozen=True, slots=True)
class Rect:
    """What the camera sees, in float pixels of the displayed source frame, origin top left."""

    x: float
    y: float
    width: float
    height: float

    def inside(self, width: float, height: float) -> Rect:
        """This rectangle moved inside a frame of `width` x `height` pixels, its size kept.

        A side that is longer than the frame's is shrunk to it: an interpolation may overshoot. A keyframe that is
        itself larger than the frame is an error of `Framing.inside_at`.
        """
        return _rect(_inside(self._row(), width, height))

    def cover(self, aspect: float) -> Rect:
        """This rectangle cut about its centre to `aspect`, width divided by height (above 0)."""
        return _rect(cover_all(self._row(), aspect))

    def _row(self) -> Floats:
        return np.array([[self.x, self.y, self.width, self.height]], dtype=np.float64)


@dataclass(frozen=True)
class Framing(Contents):
    """What a keyframes file says, and the camera that follows from it."""

    def __post_init__(self) -> None:
        if not self.keyframes:
            raise FramingError("there are no keyframes", remedy="Give at least one keyframe.")

    @classmethod
    def whole(cls, width: float, height: float) -> Framing:
        """The camera without a keyframes file: the whole frame of `width` x `height` pixels, always."""
        return cls((Keyframe(0.0, 0.0, 0.0, width, height),), form=WHOLE)

    @property
    def is_whole(self) -> bool:
        """Whether there is no keyframes file."""
        return self.form == WHOLE

    @cached_property
    def span(self) -> tuple[float, float]:
        """Times of the first keyframe and of the last."""
        times = [keyframe.time for keyframe in self.keyframes]
        return min(times), max(times)

    @cached_property
    def keyframe_rects(self) -> Floats:
        """The keyframes' rectangles `(K, 4)` in the order of `keyframes`."""
        values = chain.from_iterable(map(attrgetter("x", "y", "width", "height"), self.keyframes))
        return np.fromiter(values, np.float64, 4 * len(self.keyframes)).reshape(-1, 4)

    def rect_at(self, time: float) -> Rect:
        """The rectangle at `time`, seconds after the first displayed frame, as `rects_at` computes it.

        Raises:
            FramingError: see `rects_at`.
        """
        return _rect(self.rects_at(np.array([time], dtype=np.float64)))

    def rects_at(self, times: Floats, slack: float = 0.0) -> Floats:
        """The rectangles `(N, 4)` at `times` `(N,)`, seconds in any order; neither moved nor cut.

        At exactly the time of a keyframe its own rectangle comes back; where two keyframes share a time, the
        later in the file. Before the first keyframe and after the last they stand still. A cut is there up to
        `slack` seconds early: what is asked for and what the file says may each be rounded.

        Raises:
            FramingError: catmull-rom overshoots to a rectangle without width or height; names the time.
        """
        track = self._track
        left, right = track.around(times, slack)
        moving = track.joined[left]
        length = np.where(moving, track.times[right] - track.times[left], 1.0)
        # Before the first keyframe the quotient is negative: there the first rectangle stands.
        u = np.where(moving, np.clip((times - track.times[left]) / length, 0.0, 1.0), 0.0)[:, None]
        start = track.rects[left]
        step = track.rects[right] - start
        if track.tangents is None:
            return start + u * step
        # Cubic Hermite in powers of u, so that a side that stands still stays exactly as it is.
        first = track.tangents[0][left]
        last = track.tangents[1][left]
        rects = start + u * (first + u * (3 * step - 2 * first - last + u * (first + last - 2 * step)))
        self._refuse_overshoot(rects, times)
        return rects

    def inside_at(self, times: Floats, width: float, height: float, slack: float = 0.0) -> tuple[Floats, Bools]:
        """`rects_at(times, slack)` moved inside a frame of `width` x `height` pixels, and which rows `(N,)` moved.

        A keyframe that is larger than the frame is told from catmull-rom overshooting between two keyframes that
        fit, which is shrunk to the frame.

        Raises:
            FramingError: a keyframe that is seen is larger than the frame by more than one pixel; names its
                index in the file. Or see `rects_at`.
        """
        rects = self.rects_at(times, slack)
        rows = np.flatnonzero(_larger(rects, width, height))
        for near in self._track.around(times[rows], slack):
            wrong = near[_larger(self._track.rects[near], width, height)]
            if wrong.size:
                index = int(self._track.order[wrong[0]])
                _refuse_larger(self.keyframe_rects[index], width, height, f"keyframe {index}: the rectangle")
        inside = _inside(rects, width, height)
        return inside, np.any(np.abs(inside[:, :2] - rects[:, :2]) > NOISE, axis=1)

    def _refuse_overshoot(self, rects: Floats, times: Floats) -> None:
        gone = np.flatnonzero(rects[:, 2:].min(axis=1, initial=np.inf) < SMALLEST_SIDE)
        if gone.size:
            index = gone[0]
            raise FramingError(
                f"at {times[index]:.3f} s {self.interpolation} overshoots: the camera's rectangle would be "
                f"{rects[index, 2]:.6g} x {rects[index, 3]:.6g} pixels",
                remedy='Use "interpolation": "smooth", which never overshoots, or add a keyframe there.',
            )

    @cached_property
    def _track(self) -> _Track:
        times = np.fromiter(map(attrgetter("time"), self.keyframes), np.float64, len(self.keyframes))
        hold = np.fromiter(map(attrgetter("hold"), self.keyframes), np.bool_, len(self.keyframes))
        # Stable, because keyframes of one time count in the order of the file.
        order = np.argsort(times, kind="stable")
        times, hold, rects = times[order], hold[order], self.keyframe_rects[order]
        joined = np.append(~hold[:-1] & (times[1:] > times[:-1]), False)
        tangents = None
        if self.interpolation is Interpolation.SMOOTH:
            tangents = _smooth_tangents(times, rects, joined)
        elif self.interpolation is Interpolation.CATMULL_ROM:
            tangents = _catmull_rom_tangents(rects, joined)
        return _Track(times, rects, joined, tangents, order)


@dataclass(frozen=True)
class _Track:
    """Keyframes as arrays, by time."""

    times: Floats
    rects: Floats
    joined: Bools
    """`joined[i]`: the camera moves from keyframe i to i + 1."""
    tangents: tuple[Floats, Floats] | None
    """d rect / d u at the start and at the end of stretch i, for u from 0 to 1; None: straight lines."""
    order: Indices
    """Index in the file."""

    def around(self, times: Floats, slack: float) -> tuple[Indices, Indices]:
        begins = self.times
        if slack:
            cuts = np.append(False, ~self.joined[:-1])
            # Keyframes closer before a cut than the slack never show: times have to stay in order.
            begins = np.minimum.accumulate(np.where(cuts, begins - slack, begins)[::-1])[::-1]
        left = np.clip(np.searchsorted(begins, times, side="right") - 1, 0, None)
        return left, np.minimum(left + 1, len(self.times) - 1)


def load_framing(path: str | PathLike[str]) -> Framing:
    """Read a keyframes file of any format that is read (docs/keyframes.md), UTF-8 of at most 64 MiB; "-" is standard
    input.

    Raises:
        UsageError: `path` is empty, or no path at all.
        FramingError: the file cannot be read, or is not what the format asks for.
    """
    given: object = path
    name = os.fspath(given) if isinstance(given, str | PathLike) else given
    if not isinstance(name, str):
        raise UsageError(
            f"path is of type {type(given).__name__}",
            remedy="It must be a path as text, or an object such as pathlib.Path.",
        )
    if not name.strip():
        raise UsageError("path is empty", remedy="Name the keyframes file.")
    return framing_of(keyframes.load(name))


def parse_framing(text: str | bytes, name: str) -> Framing:
    """Read the text of a keyframes file; `name` opens every error message.

    Raises:
        FramingError: not JSON (line and column), or a rule of the format is broken (index and field).
    """
    return framing_of(keyframes.parse(text, name))


def cover_all(rects: Floats, aspect: float) -> Floats:
    """`Rect.cover` of each row `(N, 4)`: cut about its centre to `aspect`, width divided by height."""
    size = rects[:, 2:]
    cut = np.minimum(size, size[:, ::-1] * np.array([aspect, 1 / aspect]))
    return np.hstack([rects[:, :2] + (size - cut) / 2, cut])


def far_outside(rects: Floats, width: float, height: float) -> int:
    """How many rows `(N, 4)` lie far outside a frame of `width` x `height` pixels.

    Far means: to come inside, the rectangle has to move by more than half of its own side, so that its centre
    was outside the frame. Rectangles larger than the frame count with the frame's size.
    """
    inside = _inside(rects, width, height)
    return int((np.abs(inside[:, :2] - rects[:, :2]) > inside[:, 2:] / 2 + NOISE).any(axis=1).sum())


def framing_of(contents: Contents) -> Framing:
    """The camera of what a keyframes file says."""
    return Framing(**vars(contents))


def _rect(rows: Floats) -> Rect:
    return Rect(*rows[0].tolist())


def _inside(rects: Floats, width: float, height: float) -> Floats:
    frame = np.array([width, height], dtype=np.float64)
    size = np.minimum(rects[:, 2:], frame)
    return np.hstack([np.clip(rects[:, :2], 0.0, frame - size), size])


def _larger(rects: Floats, width: float, height: float) -> Bools:
    larger: Bools = rects[:, 2:] > np.array([width, height]) + (SHRINKABLE + NOISE)
    return larger[:, 0] | larger[:, 1]


def _refuse_larger(rect: Floats, width: float, height: float, what: str) -> NoReturn:
    raise FramingError(
        f"{what} is {rect[2]:.6g} x {rect[3]:.6g} pixels, larger than the frame, {width:g} x {height:g}",
        remedy="Make it no larger than the frame. Keyframes are in pixels of the source as a player shows "
        "it: upright, with square pixels.",
    )


def _catmull_rom_tangents(rects: Floats, joined: Bools) -> tuple[Floats, Floats]:
    """Uniform Catmull-Rom: half the chord of both neighbours, the end points of a run doubled."""
    step = np.diff(rects, axis=0, append=rects[-1:])
    ahead = np.where(joined[:, None], step, 0.0)
    tangent = (ahead + np.roll(ahead, 1, axis=0)) / 2
    return tangent, np.roll(tangent, -1, axis=0)


def _smooth_tangents(times: Floats, rects: Floats, joined: Bools) -> tuple[Floats, Floats]:
    """Monotone cubic: slopes as in SciPy's `PchipInterpolator`, each run of joined keyframes apart.

    Inside a run the weighted harmonic mean of both neighbours' slopes, zero where they differ in sign
    (F. N. Fritsch and J. Butland, "A method for constructing local monotone piecewise cubic interpolants",
    SIAM J. Sci. Comput. 5(2), 1984); at its ends the three-point formula of C. Moler, "Numerical Computing
    with MATLAB", 2004.
    """
    # Row i is the stretch from keyframe i to i + 1. Rolling wraps only stretches that are not joined.
    moving = joined[:, None]
    length = np.maximum(np.diff(times, append=times[-1]), SHORTEST)[:, None]
    slope = np.where(moving, np.diff(rects, axis=0, append=rects[-1:]) / length, 0.0)
    moving_before = np.roll(moving, 1, axis=0)
    length_before = np.roll(length, 1, axis=0)
    slope_before = np.roll(slope, 1, axis=0)

    weighted = (2 * length + length_before) * slope + (length + 2 * length_before) * slope_before
    middle = np.zeros_like(slope)
    np.divide(
        3 * (length + length_before) * slope * slope_before,
        weighted,
        out=middle,
        where=(np.sign(slope) * np.sign(slope_before) > 0) & (weighted != 0),
    )
    head = _end_slope(length, slope, np.roll(length, -1, axis=0), np.roll(slope, -1, axis=0))
    tail = _end_slope(length_before, slope_before, np.roll(length, 2, axis=0), np.roll(slope, 2, axis=0))
    knot = np.select(
        [
            moving & moving_before,
            moving & np.roll(moving, -1, axis=0),
            moving_before & np.roll(moving, 2, axis=0),
        ],
        [middle, head, tail],
        # A run of two keyframes is a straight line, and a keyframe on its own has slope zero.
        slope + slope_before,
    )
    return knot * length, np.roll(knot, -1, axis=0) * length


def _end_slope(length: Floats, slope: Floats, next_length: Floats, next_slope: Floats) -> Floats:
    """Slope at a run's end from its outer stretch and the next one inwards, kept within the shape."""
    end = ((2 * length + next_length) * slope - length * next_slope) / (length + next_length)
    turns = np.sign(slope) != np.sign(next_slope)
    end = np.where(turns & (np.abs(end) > 3 * np.abs(slope)), 3 * slope, end)
    return np.where(np.sign(end) != np.sign(slope), 0.0, end)
