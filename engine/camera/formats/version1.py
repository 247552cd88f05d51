"""This program's own format: a bare list of keyframes, or an object with the list and more (docs/keyframes.md)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, TypeVar

from keyscale.engine.camera.contents import Contents, Interpolation, SourceSize, TimeUnit, Units
from keyscale.engine.camera.fields import (
    ANY,
    RATE,
    Repeated,
    list_of,
    number,
    number_of,
    object_of,
    show,
)
from keyscale.engine.camera.rows import Clock, keyframes_of, unit_of_times
from keyscale.engine.camera.stretches import (
    SEGMENT_DATA_KEYS,
    agreed,
    segment_data,
    segments,
    trim,
    whole_trim,
)
from keyscale.engine.errors import FramingError
from keyscale.engine.rates import nominal_rate

__all__ = ["NAME", "TOP_KEYS", "read"]

W = TypeVar("W", Units, TimeUnit)

NAME = "keyscale's own format, version 1"

DECLARATIONS = frozenset({"fps", "units", "time_unit", "source"})
TOP_KEYS = DECLARATIONS | {
    *("version", "interpolation", "keyframes", "trim", "segments", "rotation", "segment_data"),
}
_TRIM_KEYS = frozenset({"start", "end"})
_SIZE_KEYS = frozenset({"width", "height"})


def read(document: Any, name: str) -> Contents:
    """What a list or an object says.

    Raises:
        FramingError: a rule of the format is broken; names index and field.
    """
    bare = isinstance(document, list)
    if not bare and not isinstance(document, dict | Repeated):
        raise FramingError(
            f"{name}: the file is {show(document)}, it must be a list of keyframes or an object",
            remedy='Write [{"time": 0, "x": 0, "y": 0, "width": 607.5, "height": 1080}].',
        )
    if isinstance(document, dict):
        _refuse_misplaced(document, name)
    top = object_of({"keyframes": document} if bare else document, name, TOP_KEYS)
    version = top.get("version", 1)
    if isinstance(version, bool) or version != 1:
        raise FramingError(
            f"{name}: field 'version' is {show(version)}, it must be 1",
            remedy="Save the file in version 1 of the format.",
        )
    clock, units, source = clock_of(top, name), units_of(top, name), source_of(top, name)
    data_trim, data_segments = segment_data(top.get("segment_data", {}), f"{name}: segment_data")
    if "segment_data" in top and clock.declared is TimeUnit.FRAMES:
        raise FramingError(
            f'{name}: segment_data is in seconds, and "time_unit" says that times are frames',
            remedy="Give the frames a second as fps.",
        )
    rows = list_of(top, "keyframes", name)
    own_trim = trim(object_of(top.get("trim", {}), f"{name}: trim", _TRIM_KEYS), f"{name}: trim", clock=clock)
    own_segments = segments(top["segments"], name, clock) if "segments" in top else None
    speeds = agreed(f"{name}: speed", "'segments'", own_segments, "'segment_data'", data_segments)
    return Contents(
        keyframes=keyframes_of(rows, clock, name, also=("origin",)),
        interpolation=_interpolation(top.get("interpolation", "linear"), name),
        trim=whole_trim(own_trim, "'trim'", data_trim, "'segment_data'", f"{name}: trim"),
        segments=speeds or (),
        rotation=number(top, "rotation", name, ANY) if "rotation" in top else 0.0,
        units=units,
        time_unit=unit_of_times(rows, clock),
        source=source,
        form=("a list of keyframes" if bare else NAME) + (f", times in {clock.unit}" if clock.unit else ""),
    )


def clock_of(top: dict[str, Any], name: str) -> Clock:
    """What times count, by the fields `time_unit` and `fps`."""
    unit = _word(top, "time_unit", TimeUnit, name)
    return Clock(unit, _rate(top["fps"], name) if "fps" in top else None)


def units_of(top: dict[str, Any], name: str) -> Units | None:
    """What coordinates count, by the field `units`."""
    return _word(top, "units", Units, name)


def source_of(top: dict[str, Any], name: str) -> SourceSize | None:
    """The picture that coordinates were made for, by the field `source`."""
    if "source" not in top:
        return None
    size = object_of(top["source"], f"{name}: source", _SIZE_KEYS)
    return SourceSize(*(number(size, side, f"{name}: source", RATE) for side in ("width", "height")))


def _word(top: dict[str, Any], key: str, words: type[W], name: str) -> W | None:
    value = top.get(key)
    if value is not None and value not in list(words):
        raise FramingError(f"{name}: field '{key}' is {show(value)}, it must be {', '.join(words)}")
    return None if value is None else words(value)


def _rate(value: Any, name: str) -> Fraction:
    """Frames a second; a fraction is a text such as "30000/1001"."""
    if isinstance(value, str) and "/" in value[:32]:
        try:
            rate = Fraction(value[:32])
        except (ValueError, ZeroDivisionError) as error:
            raise FramingError(f"{name}: field 'fps' is {show(value)}, it must be a rate such as 30000/1001") from error
        if not 0 < rate <= RATE.high:
            raise FramingError(f"{name}: field 'fps' is {show(value)}, it must be above 0")
        return rate
    return nominal_rate(number_of(value, f"{name}: field 'fps'", RATE))


def _interpolation(value: Any, name: str) -> Interpolation:
    if value not in list(Interpolation):
        raise FramingError(f"{name}: field 'interpolation' is {show(value)}, it must be linear, smooth or catmull-rom")
    return Interpolation(value)


def _refuse_misplaced(document: dict[str, Any], name: str) -> None:
    if "keyframes" not in document and {"time", "x", "y", "width", "height"} & document.keys():
        raise FramingError(
            f"{name}: this is one keyframe, not a list of them", remedy="Put square brackets around it: [{...}]."
        )
    for key in document:
        if key not in TOP_KEYS and key in SEGMENT_DATA_KEYS:
            raise FramingError(f"{name}: unknown key {show(key)}", remedy=f"{key} belongs inside segment_data.")
