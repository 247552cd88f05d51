"""The keyframes file: its JSON forms, read strictly into plain data.

`keyscale.engine.camera.framing` computes the camera from it; docs/keyframes.md describes the format for users.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from keyscale.engine.errors import FramingError
from keyscale.engine.job import Trim

__all__ = ["MAX_BYTES", "SMALLEST_SIDE", "Contents", "Interpolation", "Keyframe", "Segment", "load", "parse"]

T = TypeVar("T")

MAX_BYTES = 64 * 2**20
"""Largest keyframes file in bytes; about a million keyframes."""

MOST_PARTS = 2_500_000
"""Most lists and objects in a file. A keyframe takes 42 bytes at least, so that no file of that size needs more; an
empty list takes three, and thirty times that in memory."""

LARGEST = 1e9
"""Largest magnitude of any number in the file: far beyond every video, and safe to multiply in float64."""

SMALLEST_SIDE = 1e-6
"""Smallest width or height in pixels; below it the scale to the target leaves the range of float32."""


class Interpolation(StrEnum):
    """How the camera moves from one keyframe to the next."""

    LINEAR = "linear"
    SMOOTH = "smooth"
    CATMULL_ROM = "catmull-rom"


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


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a keyframes file says, checked."""

    keyframes: tuple[Keyframe, ...]
    """In the order of the file, at least one."""
    interpolation: Interpolation = Interpolation.LINEAR
    trim: Trim = field(default_factory=Trim)
    segments: tuple[Segment, ...] = ()
    """By start, without overlaps."""
    rotation: float = 0.0
    """Degrees counter-clockwise."""


class _Limits(NamedTuple):
    low: float
    high: float
    positive: bool = False


_ANY = _Limits(-LARGEST, LARGEST)
_TIME = _Limits(0, LARGEST)
_SIDE = _Limits(SMALLEST_SIDE, LARGEST, positive=True)
_RATE = _Limits(1e-6, LARGEST, positive=True)
_SPEED = _Limits(0.1, 10)

# Exact types, because a bool is an int to Python.
_NUMBERS = frozenset({float, int})

_TOP_KEYS = frozenset({"version", "interpolation", "keyframes", "trim", "segments", "rotation", "fps", "segment_data"})
_KEYFRAME_KEYS = frozenset({"time", "frame", "x", "y", "width", "height", "ease"})
_SEGMENT_KEYS = frozenset({"start", "end", "speed"})
_NULLABLE = frozenset(
    {"trim", "segments", "segment_data", "rotation", "interpolation", "fps", "start", "end"}
    | {"trim_start", "trim_end", "trimRange", "boundaries", "segmentSpeeds"}
)
_TRIM_KEYS = frozenset({"start", "end"})
_SEGMENT_DATA_KEYS = frozenset({"trim_start", "trim_end", "segments", "trimRange", "boundaries", "segmentSpeeds"})


def load(path: str | PathLike[str]) -> Contents:
    """Read a keyframes file; errors name it as `path` was given.

    Raises:
        FramingError: the file cannot be read, or `parse` refuses it.
    """
    # Names that are not Unicode would fail again where the message is printed.
    name = str(Path(path)).encode("utf-8", "backslashreplace").decode()
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FramingError(
            f"{name}: the keyframes file cannot be read: {error.strerror or error}",
            remedy="Give the path of a JSON file that you may read.",
        ) from error
    except ValueError as error:
        raise FramingError(f"{name!r} is not a path: {error}") from error
    return parse(data, name)


def parse(text: str | bytes, name: str) -> Contents:
    """Read the text of a keyframes file; `name` opens every error message.

    Raises:
        FramingError: not JSON (line and column), or a rule of the format is broken (index and field).
    """
    document = _json(text, name)
    bare = isinstance(document, list)
    if not bare and not isinstance(document, dict | _Repeated):
        raise FramingError(
            f"{name}: the file is {_show(document)}, it must be a list of keyframes or an object",
            remedy='Write [{"time": 0, "x": 0, "y": 0, "width": 607.5, "height": 1080}].',
        )
    top = _object({"keyframes": document} if bare else document, name, _TOP_KEYS)
    version = top.get("version", 1)
    if isinstance(version, bool) or version != 1:
        raise FramingError(
            f"{name}: field 'version' is {_show(version)}, it must be 1",
            remedy="Save the file in version 1 of the format.",
        )
    fps = _number(top, "fps", name, _RATE) if "fps" in top else None
    data_trim, data_segments = _segment_data(top.get("segment_data", {}), f"{name}: segment_data")
    own_trim = _trim(_object(top.get("trim", {}), f"{name}: trim", _TRIM_KEYS), f"{name}: trim")
    own_segments = _segments(top["segments"], name) if "segments" in top else None
    segments = _agreed(f"{name}: speed", "'segments'", own_segments, "'segment_data'", data_segments)
    return Contents(
        keyframes=_keyframes(_list(top, "keyframes", name), fps, name),
        interpolation=_interpolation(top.get("interpolation", "linear"), name),
        trim=_whole_trim(own_trim, "'trim'", data_trim, "'segment_data'", f"{name}: trim"),
        segments=segments or (),
        rotation=_number(top, "rotation", name, _ANY) if "rotation" in top else 0.0,
    )


class _Repeated:
    """Stands for a JSON object with a repeated key, until a reader that knows its place refuses it."""

    def __init__(self, key: str) -> None:
        self.key = key


def _json(text: str | bytes, name: str) -> Any:
    if len(text) > MAX_BYTES:
        raise FramingError(
            f"{name}: the file is larger than {MAX_BYTES // 2**20} MiB",
            remedy="Thin the keyframes out: between two of them the camera is interpolated.",
        )
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FramingError(
                f"{name}: byte {error.start} is not UTF-8 text", remedy="Save the file as UTF-8."
            ) from error
    text = text.removeprefix("\ufeff")
    if text.count("[") + text.count("{") > MOST_PARTS:
        raise FramingError(f"{name}: there are too many lists and objects", remedy="A keyframe is one object.")
    if not text.strip():
        raise FramingError(f"{name}: the file is empty", remedy="Give at least one keyframe.")
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except json.JSONDecodeError as error:
        raise FramingError(
            f"{name}: not JSON: {error.msg} at line {error.lineno} column {error.colno}",
            remedy="JSON has no comments, no trailing commas, and double quotes only.",
        ) from error
    except RecursionError as error:
        raise FramingError(
            f"{name}: lists or objects are nested too deeply", remedy="Keyframes need three levels."
        ) from error
    except ValueError as error:
        # Python refuses to convert integers of more than 4300 digits and does not say where they stand.
        raise FramingError(f"{name}: a number has thousands of digits") from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repeated:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    count = Counter(key for key, _ in pairs)
    return _Repeated(count.most_common(1)[0][0])


def _show(value: Any) -> str:
    """`value` as an error message shows it: short, and printable on any terminal."""
    if isinstance(value, dict | _Repeated):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return ascii(value if len(value) <= 40 else value[:40] + "...")
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else shown[:40] + "..."


def _unique(value: Any, where: str) -> Any:
    if isinstance(value, _Repeated):
        raise FramingError(f"{where}: key {_show(value.key)} is given twice in one object", remedy="Keep one of them.")
    return value


def _object(value: Any, where: str, keys: frozenset[str]) -> dict[str, Any]:
    values = _unique(value, where)
    if not isinstance(values, dict):
        raise FramingError(f"{where} is {_show(value)}, it must be an object")
    if not keys.issuperset(values):
        unknown = next(key for key in values if key not in keys)
        remedy = f"Known here: {', '.join(sorted(keys))}."
        if keys is _TOP_KEYS and unknown in _SEGMENT_DATA_KEYS:
            remedy = f"{unknown} belongs inside segment_data."
        raise FramingError(f"{where}: unknown key {_show(unknown)}", remedy=remedy)
    # Editors write null for what is not set.
    return {key: value for key, value in values.items() if value is not None or key not in _NULLABLE}


def _list(values: dict[str, Any], key: str, where: str) -> list[Any]:
    if key not in values:
        raise FramingError(f"{where}: field '{key}' is missing")
    value = values[key]
    if not isinstance(value, list):
        raise FramingError(f"{where}: field '{key}' is {_show(value)}, it must be a list")
    return value


def _number(values: dict[str, Any], key: str, where: str, limits: _Limits) -> float:
    if key not in values:
        raise FramingError(f"{where}: field '{key}' is missing")
    value = values[key]
    # The chained comparison also refuses NaN, both infinities, and integers that no float holds.
    if type(value) not in _NUMBERS or not limits.low <= value <= limits.high:
        _refuse(value, f"{where}: field '{key}'", limits)
    return float(value)


def _refuse(value: Any, what: str, limits: _Limits) -> NoReturn:
    remedy = None
    if type(value) not in _NUMBERS:
        rule = "a number"
        remedy = "Write the number without quotes." if isinstance(value, str) else None
    elif isinstance(value, float) and not math.isfinite(value):
        rule = "a finite number"
    elif value > limits.high:
        rule = f"at most {limits.high:g}"
    elif limits.positive and value <= 0:
        rule = "above 0"
    else:
        rule = f"at least {limits.low:g}"
    raise FramingError(f"{what} is {_show(value)}, it must be {rule}", remedy=remedy)


def _interpolation(value: Any, name: str) -> Interpolation:
    if value not in list(Interpolation):
        raise FramingError(f"{name}: field 'interpolation' is {_show(value)}, it must be linear, smooth or catmull-rom")
    return Interpolation(value)


def _keyframes(values: list[Any], fps: float | None, name: str) -> tuple[Keyframe, ...]:
    if not values:
        raise FramingError(
            f"{name}: the list of keyframes is empty",
            remedy="Give at least one keyframe; without a keyframes file the camera is the whole frame.",
        )
    return tuple(_keyframe(value, fps, f"{name}: keyframe {index}") for index, value in enumerate(values))


def _keyframe(value: Any, fps: float | None, where: str) -> Keyframe:
    values = _object(value, where, _KEYFRAME_KEYS)
    ease = values.get("ease", "linear")
    if ease not in ("hold", "linear"):
        raise FramingError(f"{where}: field 'ease' is {_show(ease)}, it must be hold or linear")
    return Keyframe(
        # Adding zero turns -0.0 into 0.0.
        0.0 + (_time_of_frame(values, fps, where) if "frame" in values else _number(values, "time", where, _TIME)),
        _number(values, "x", where, _ANY),
        _number(values, "y", where, _ANY),
        _number(values, "width", where, _SIDE),
        _number(values, "height", where, _SIDE),
        ease == "hold",
    )


def _time_of_frame(values: dict[str, Any], fps: float | None, where: str) -> float:
    if "time" in values:
        raise FramingError(f"{where}: both 'time' and 'frame' are given", remedy="Keep one of them.")
    frame = _number(values, "frame", where, _TIME)
    if fps is None:
        raise FramingError(
            f"{where}: field 'frame' needs the top-level field 'fps', which is missing",
            remedy='Write {"fps": 30, "keyframes": [...]}, or give \'time\' in seconds.',
        )
    time = frame / fps
    if time > LARGEST:
        raise FramingError(f"{where}: field 'frame' is at {time:.12g} s, it must be at most {LARGEST:g} s")
    return time


def _trim(values: dict[str, Any], where: str, start: str = "start", end: str = "end") -> Trim:
    return Trim(
        start=_number(values, start, where, _TIME) if start in values else None,
        end=_number(values, end, where, _TIME) if end in values else None,
    )


def _agreed(what: str, here: str, one: T | None, there: str, other: T | None) -> T | None:
    """The value that is given, or both where they are equal."""
    if one is not None and other is not None and one != other:
        raise FramingError(
            f"{what} is given in {here} and in {there} with different values", remedy="Keep one of them."
        )
    return one if one is not None else other


def _whole_trim(one: Trim, here: str, other: Trim, there: str, where: str) -> Trim:
    trim = Trim(
        start=_agreed(f"{where}: start", here, one.start, there, other.start),
        end=_agreed(f"{where}: end", here, one.end, there, other.end),
    )
    start = trim.start or 0.0
    if trim.end is not None and trim.end <= start:
        raise FramingError(
            f"{where}: it ends at {trim.end:.12g} s and starts at {start:.12g} s, nothing is left",
            remedy="Give an end after the start.",
        )
    return trim


def _segments(values: Any, where: str) -> tuple[Segment, ...]:
    rows = _list({"segments": values}, "segments", where)
    return _ordered([_segment(value, f"{where}: segment {i}") for i, value in enumerate(rows)], where)


def _segment(value: Any, where: str) -> Segment:
    values = _object(value, where, _SEGMENT_KEYS)
    start = _number(values, "start", where, _TIME)
    end = _number(values, "end", where, _TIME)
    if end <= start:
        raise FramingError(f"{where}: field 'end' is {end:.12g}, it must be above 'start', {start:.12g}")
    return Segment(start, end, _number(values, "speed", where, _SPEED))


def _ordered(segments: list[Segment], where: str) -> tuple[Segment, ...]:
    order = sorted(range(len(segments)), key=lambda index: segments[index].start)
    for first, second in pairwise(order):
        if segments[second].start < segments[first].end:
            low, high = sorted((first, second))
            raise FramingError(
                f"{where}: segment {low} and segment {high} overlap from {segments[second].start:.12g} s",
                remedy="End one where the other starts.",
            )
    return tuple(segments[index] for index in order)


def _segment_data(value: Any, where: str) -> tuple[Trim, tuple[Segment, ...] | None]:
    values = _object(value, where, _SEGMENT_DATA_KEYS)
    trim_range = _object(values.get("trimRange", {}), f"{where}: trimRange", _TRIM_KEYS)
    trim = _whole_trim(
        _trim(values, where, "trim_start", "trim_end"),
        "'trim_start' or 'trim_end'",
        _trim(trim_range, f"{where}: trimRange"),
        "'trimRange'",
        f"{where}: trim",
    )
    listed = _segments(values["segments"], where) if "segments" in values else None
    bounded = None
    if "boundaries" in values or "segmentSpeeds" in values:
        bounded = _bounded(values, where)
    return trim, _agreed(f"{where}: speed", "'segments'", listed, "'boundaries'", bounded)


def _bounded(values: dict[str, Any], where: str) -> tuple[Segment, ...]:
    """Stretch `i` runs from `boundaries[i]` to `boundaries[i + 1]`; one without a speed plays at 1."""
    edges = _list(values, "boundaries", where)
    for index, edge in enumerate(edges):
        if type(edge) not in _NUMBERS or not _TIME.low <= edge <= _TIME.high:
            _refuse(edge, f"{where}: boundary {index}", _TIME)
        if index and edge <= edges[index - 1]:
            raise FramingError(
                f"{where}: boundary {index} is {edge:.12g}, it must be above boundary {index - 1}, "
                f"{edges[index - 1]:.12g}"
            )
    speeds = _unique(values.get("segmentSpeeds", {}), f"{where}: segmentSpeeds")
    if isinstance(speeds, list):
        speeds = {str(index): speed for index, speed in enumerate(speeds)}
    if not isinstance(speeds, dict):
        raise FramingError(f"{where}: field 'segmentSpeeds' is {_show(speeds)}, it must be an object or a list")
    stretches = {str(index): index for index in range(len(edges) - 1)}
    segments = []
    for key, speed in speeds.items():
        if key not in stretches:
            raise FramingError(
                f"{where}: segmentSpeeds: index {_show(key)} is out of range,"
                f" there are {len(stretches)} stretches between {len(edges)} boundaries"
            )
        if type(speed) not in _NUMBERS or not _SPEED.low <= speed <= _SPEED.high:
            _refuse(speed, f"{where}: segmentSpeeds: index {_show(key)}", _SPEED)
        start = stretches[key]
        segments.append(Segment(float(edges[start]), float(edges[start + 1]), float(speed)))
    return tuple(sorted(segments, key=lambda segment: segment.start))
