"""Values of a keyframes file, read one by one and checked; every error names the place."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn

from keyscale.engine.camera.contents import LARGEST, SMALLEST_SIDE
from keyscale.engine.errors import FramingError

__all__ = [
    "ANY",
    "RATE",
    "SIDE",
    "SPEED",
    "TIME",
    "Limits",
    "Repeated",
    "decode",
    "did_you_mean",
    "list_of",
    "number",
    "number_of",
    "object_of",
    "refuse",
    "seconds_of_clock",
    "show",
    "unique",
]


class Limits(NamedTuple):
    """What a number may be."""

    low: float
    high: float
    positive: bool = False


ANY = Limits(-LARGEST, LARGEST)
TIME = Limits(0, LARGEST)
SIDE = Limits(SMALLEST_SIDE, LARGEST, positive=True)
RATE = Limits(1e-6, LARGEST, positive=True)
SPEED = Limits(0.1, 10)

# Exact types, because a bool is an int to Python.
_NUMBERS = frozenset({float, int})

_CLOCK = re.compile(r"(?:(\d{1,5}):)?(\d{1,7}):(\d{1,2}(?:[.,]\d{0,9})?)", re.ASCII)

_SMPTE = re.compile(r"\d{1,2}[:;.]\d{2}[:;.]\d{2}[:;.]\d{2,3}", re.ASCII)
"""Hours, minutes, seconds and frames of SMPTE 12M; drop-frame codes have semicolons or points."""

_NULLABLE = frozenset(
    {"trim", "segments", "segment_data", "rotation", "interpolation", "fps", "start", "end"}
    | {"trim_start", "trim_end", "trimRange", "boundaries", "segmentSpeeds", "userSplits", "speeds"}
    | {"units", "time_unit", "source"}
)
"""Keys of optional values: editors write null for what is not set."""


class Repeated:
    """Stands for a JSON object with a repeated key, until a reader that knows its place refuses it."""

    def __init__(self, key: str) -> None:
        self.key = key


def decode(text: str, where: str) -> Any:
    """A JSON text as plain data, an object with a repeated key as a `Repeated`.

    Raises:
        FramingError: not JSON; names line and column.
    """
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except json.JSONDecodeError as error:
        raise FramingError(
            f"{where}: not JSON: {error.msg} at line {error.lineno} column {error.colno}",
            remedy="JSON has no comments, no trailing commas, and double quotes only.",
        ) from error
    except RecursionError as error:
        raise FramingError(
            f"{where}: lists or objects are nested too deeply", remedy="Keyframes need three levels."
        ) from error
    except ValueError as error:
        # Python refuses to convert integers of more than 4300 digits and does not say where they stand.
        raise FramingError(f"{where}: a number has thousands of digits") from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Repeated:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    count = Counter(key for key, _ in pairs)
    return Repeated(count.most_common(1)[0][0])


def show(value: Any) -> str:
    """`value` as an error message shows it: short, and printable on any terminal."""
    if isinstance(value, dict | Repeated):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return ascii(value if len(value) <= 40 else value[:40] + "...")
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else shown[:40] + "..."


def unique(value: Any, where: str) -> Any:
    """The value, unless it is an object with a repeated key."""
    if isinstance(value, Repeated):
        raise FramingError(f"{where}: key {show(value.key)} is given twice in one object", remedy="Keep one of them.")
    return value


def object_of(
    value: Any, where: str, keys: Collection[str] | None = None, *, known: Collection[str] | None = None
) -> dict[str, Any]:
    """An object whose keys are all among `keys` (None allows any), without those that are null and optional.

    Args:
        value: what stands there.
        where: the place, for errors.
        keys: what may be in it.
        known: what an error lists of them, where they are too many.
    """
    values = unique(value, where)
    if not isinstance(values, dict):
        raise FramingError(f"{where} is {show(values)}, it must be an object")
    if keys is not None:
        for key in values:
            if key not in keys:
                near = did_you_mean(key, known or keys) or did_you_mean(key, keys)
                raise FramingError(
                    f"{where}: unknown key {show(key)}",
                    remedy=f"{near}Known here: {', '.join(sorted(known if known is not None else keys))}.",
                )
    return {key: value for key, value in values.items() if value is not None or key not in _NULLABLE}


def did_you_mean(key: str, known: Collection[str]) -> str:
    """`"Did you mean 'width'? "` where a known key is close to the one that was written, else nothing."""
    letters = {re.sub(r"[\W_]", "", name).lower(): name for name in known}
    near = get_close_matches(re.sub(r"[\W_]", "", key[:40]).lower(), list(letters), n=1, cutoff=0.7)
    return f"Did you mean '{letters[near[0]]}'? " if near else ""


def list_of(values: dict[str, Any], key: str, where: str) -> list[Any]:
    """The list under a key that has to be there."""
    if key not in values:
        raise FramingError(f"{where}: field '{key}' is missing")
    value = values[key]
    if not isinstance(value, list):
        raise FramingError(f"{where}: field '{key}' is {show(value)}, it must be a list")
    return value


def number(values: dict[str, Any], key: str, where: str, limits: Limits) -> float:
    """The number under a key that has to be there, within its limits."""
    if key not in values:
        raise FramingError(f"{where}: field '{key}' is missing")
    value = values[key]
    # The chained comparison also refuses NaN, both infinities, and integers that no float holds.
    if type(value) not in _NUMBERS or not limits.low <= value <= limits.high:
        refuse(value, f"{where}: field '{key}'", limits)
    return float(value)


def number_of(value: Any, what: str, limits: Limits) -> float:
    """A number within its limits; `what` opens the error."""
    if type(value) not in _NUMBERS or not limits.low <= value <= limits.high:
        refuse(value, what, limits)
    return float(value)


def refuse(value: Any, what: str, limits: Limits) -> NoReturn:
    """Raise the error that says why a value is no number within its limits."""
    remedy = None
    if isinstance(value, str) and _SMPTE.fullmatch(value.strip()):
        raise FramingError(
            f"{what} is {show(value)}, a timecode whose last part counts frames, which is not read",
            remedy="Write \"00:00:02.500\" with the part of a second after a point, or give frame numbers as 'frame', "
            "with 'fps'.",
        )
    if (
        isinstance(value, str)
        and value.strip()[:1] in {"-", "\u2212"}
        and seconds_of_clock(value.strip()[1:]) is not None
    ):
        rule = "at least 0"
        remedy = "Times count from the first displayed frame of the video."
    elif type(value) not in _NUMBERS:
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
    raise FramingError(f"{what} is {show(value)}, it must be {rule}", remedy=remedy)


def seconds_of_clock(text: str) -> float | None:
    """`"01:30.250"` or `"0:01:30.25"` -> 90.25 seconds; None for what is not written so.

    The decimal mark may be a comma, as subtitles write it.
    """
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
