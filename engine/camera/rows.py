"""One keyframe of a list: its time and rectangle, under any of the names that are in use for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from keyscale.engine.camera.contents import LARGEST, Keyframe, TimeUnit
from keyscale.engine.camera.fields import ANY, SIDE, TIME, number, number_of, object_of, seconds_of_clock, show
from keyscale.engine.errors import FramingError

__all__ = [
    "ENDS",
    "KEYFRAME_KEYS",
    "RECTANGLE_KEYS",
    "SIZES",
    "TIME_KEYS",
    "Clock",
    "is_row",
    "keyframes_of",
    "unit_of_times",
]

TIME_KEYS: dict[str, TimeUnit | None] = {
    **dict.fromkeys(("time", "t", "timestamp"), None),
    **dict.fromkeys(("ms", "time_ms", "timestamp_ms"), TimeUnit.MILLISECONDS),
    **dict.fromkeys(("us", "time_us", "timestamp_us"), TimeUnit.MICROSECONDS),
    "frame": TimeUnit.FRAMES,
}
"""Names of a keyframe's time, with what they count; None counts what the file declares, else seconds."""

STARTS = {"x": ("x", "left", "x1"), "y": ("y", "top", "y1")}
SIZES = {"x": ("width", "w"), "y": ("height", "h")}
ENDS = {"x": ("x2", "right"), "y": ("y2", "bottom")}
CENTRES = {"x": ("cx", "center_x", "x_center"), "y": ("cy", "center_y", "y_center")}
"""Names of a rectangle's edges, sides and centre, across and down; the first is what an error calls it."""

RECTANGLE_KEYS = frozenset(name for names in (STARTS, SIZES, ENDS, CENTRES) for axis in names.values() for name in axis)

KEYFRAME_KEYS = RECTANGLE_KEYS | set(TIME_KEYS) | {"ease"}

KNOWN = frozenset({"time", "frame", "x", "y", "width", "height", "ease"})
"""What an error lists: the names of this program's own format."""

Read = Callable[[dict[str, Any], str], float]


@dataclass(frozen=True)
class Clock:
    """What the times of a file count."""

    unit: TimeUnit | None = None
    """As declared."""
    rate: Fraction | None = None
    """Frames a second of frame numbers."""

    @property
    def declared(self) -> TimeUnit | None:
        """The unit of what `seconds` gives: frame numbers without a rate stay what they are."""
        if self.unit is None:
            return None
        return TimeUnit.FRAMES if self.unit is TimeUnit.FRAMES and self.rate is None else TimeUnit.SECONDS

    def read(self, value: Any, what: str) -> float:
        """A number in the declared unit or a text such as "00:01.500", as `seconds`; `what` opens the error."""
        if isinstance(value, str) and self.unit is not TimeUnit.FRAMES:
            clock = seconds_of_clock(value)
            if clock is not None:
                return clock
        return self.seconds(number_of(value, what, TIME))

    def seconds(self, value: float, unit: TimeUnit | None = None) -> float:
        """A number in a unit, else in the declared one, as seconds; without a rate, frames stay frames."""
        match unit or self.unit:
            case TimeUnit.MILLISECONDS:
                return value / 1000
            case TimeUnit.MICROSECONDS:
                return value / 1_000_000
            case TimeUnit.FRAMES if self.rate is not None:
                return value * self.rate.denominator / self.rate.numerator
            case _:
                return value


@dataclass(frozen=True)
class _Shape:
    """How a keyframe with certain keys is read."""

    time: Read
    axes: tuple[Callable[[dict[str, Any], str], tuple[float, float]], ...]


def is_row(value: Any) -> bool:
    """Whether a value looks like a keyframe: an object with a time and a side or an edge."""
    return isinstance(value, dict) and bool(TIME_KEYS.keys() & value) and bool(RECTANGLE_KEYS & value.keys())


def unit_of_times(rows: Sequence[Any], clock: Clock) -> TimeUnit | None:
    """The unit of keyframes' times once they are read: None where neither the file nor a key says what they count."""
    if clock.unit is not None:
        return clock.declared
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    says = any(unit is not None and key in first for key, unit in TIME_KEYS.items())
    return TimeUnit.SECONDS if says or any(isinstance(first.get(key), str) for key in TIME_KEYS) else None


def keyframes_of(
    rows: Sequence[Any], clock: Clock, name: str, *, also: Iterable[str] = (), places: Sequence[str] | None = None
) -> tuple[Keyframe, ...]:
    """The keyframes of a list, in its order.

    Args:
        rows: the objects.
        clock: what their times count.
        name: of the file, which opens errors.
        also: keys that may be there as well and say nothing of the camera.
        places: what errors call each row, instead of "keyframe 3".

    Raises:
        FramingError: the list is empty, or a keyframe is wrong; names its index and the field.
    """
    if not rows:
        raise FramingError(
            f"{name}: the list of keyframes is empty",
            remedy="Give at least one keyframe; without a keyframes file the camera is the whole frame.",
        )
    allowed = KEYFRAME_KEYS.union(also)
    shapes: dict[tuple[str, ...], _Shape] = {}
    found = []
    for index, row in enumerate(rows):
        where = f"{name}: {f'keyframe {index}' if places is None else places[index]}"
        values = object_of(row, where, allowed, known=KNOWN)
        ease = values.get("ease", "linear")
        if ease not in ("hold", "linear"):
            raise FramingError(f"{where}: field 'ease' is {show(ease)}, it must be hold or linear")
        keys = tuple(values)
        shape = shapes.get(keys)
        if shape is None:
            shape = shapes[keys] = _Shape(_time(values, clock, where), (_axis(values, "x"), _axis(values, "y")))
        time = shape.time(values, where)
        (x, width), (y, height) = shape.axes[0](values, where), shape.axes[1](values, where)
        # Adding zero turns -0.0 into 0.0.
        found.append(Keyframe(0.0 + time, x, y, width, height, ease == "hold"))
    return tuple(found)


def _time(values: dict[str, Any], clock: Clock, where: str) -> Read:
    """What reads the time of keyframes with the keys of `values`."""
    given = [key for key in TIME_KEYS if key in values]
    if len(given) > 1:
        raise FramingError(f"{where}: both '{given[0]}' and '{given[1]}' are given", remedy="Keep one of them.")
    key = given[0] if given else "time"
    unit = TIME_KEYS[key]
    if unit is not None and clock.unit not in {None, unit}:
        raise FramingError(
            f'{where}: \'{key}\' does not go with "time_unit": "{clock.unit}"', remedy="Keep one of them."
        )

    if unit is TimeUnit.FRAMES and clock.rate is None and clock.unit is not TimeUnit.FRAMES:
        number(values, key, where, TIME)
        raise FramingError(
            f"{where}: field 'frame' needs the top-level field 'fps', which is missing",
            remedy='Write {"fps": 30, "keyframes": [...]}, or give \'time\' in seconds.',
        )

    def read(values: dict[str, Any], where: str) -> float:
        value = values.get(key)
        if isinstance(value, str) and unit is None and (seconds := seconds_of_clock(value)) is not None:
            if clock.unit is TimeUnit.FRAMES:
                raise FramingError(
                    f"{where}: field '{key}' is {show(value)}, and \"time_unit\" says that times are frames",
                    remedy="Leave time_unit out, or write frame numbers.",
                )
            return seconds
        time = clock.seconds(number(values, key, where, TIME), unit)
        if time > LARGEST:
            raise FramingError(f"{where}: field '{key}' is at {time:.12g} s, it must be at most {LARGEST:g} s")
        return time

    return read


def _axis(values: dict[str, Any], axis: str) -> Callable[[dict[str, Any], str], tuple[float, float]]:
    """What reads start and size of a rectangle across ("x") or down ("y") from keyframes with the keys of `values`."""
    groups = [[key for key in names[axis] if key in values] for names in (STARTS, SIZES, ENDS, CENTRES)]
    start, size, end, centre = groups
    several = next((keys for keys in groups if len(keys) > 1), None)
    if several is None and start and centre:
        several = [start[0], centre[0]]
    if several is None and size and end:
        several = [size[0], end[0]]

    def read(values: dict[str, Any], where: str) -> tuple[float, float]:
        if several is not None:
            raise FramingError(f"{where}: both '{several[0]}' and '{several[1]}' are given", remedy="Keep one of them.")
        if end and centre:
            raise FramingError(
                f"{where}: '{end[0]}' does not go with '{centre[0]}'",
                remedy=f"Give '{centre[0]}' with '{SIZES[axis][0]}', or both edges, as '{STARTS[axis][2]}' and "
                f"'{ENDS[axis][0]}'.",
            )
        if end:
            low_key = start[0] if start else STARTS[axis][0]
            low, high = number(values, low_key, where, ANY), number(values, end[0], where, ANY)
            if not high - low >= SIDE.low:
                raise FramingError(
                    f"{where}: field '{end[0]}' is {show(values[end[0]])}, it must be above '{low_key}', "
                    f"{show(values[low_key])}"
                )
            return low, high - low
        if centre:
            side = number(values, size[0] if size else SIZES[axis][0], where, SIDE)
            return number(values, centre[0], where, ANY) - side / 2, side
        low = number(values, start[0] if start else STARTS[axis][0], where, ANY)
        # Who writes the first corner so means to write the second one.
        other = ENDS[axis][0] if start and start[0] == STARTS[axis][2] else SIZES[axis][0]
        return low, number(values, size[0] if size else other, where, SIDE)

    return read
