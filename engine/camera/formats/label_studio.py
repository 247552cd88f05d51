"""`VideoRectangle` sequences of Label Studio, as its JSON and JSON_MIN exports hold them: percent of the frame.

https://labelstud.io/tags/videorectangle. The rectangle is interpolated between the keyframes of a sequence; where one
is not `enabled`, the region ends, and the camera stands until the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from keyscale.engine.camera.contents import Contents, Keyframe, TimeUnit, Units
from keyscale.engine.camera.fields import ANY, RATE, SIDE, TIME, list_of, number, object_of
from keyscale.engine.errors import FramingError

__all__ = ["NAME", "read", "recognise"]

NAME = "a Label Studio VideoRectangle sequence"

DEEPEST = 8
"""Levels of lists and objects above a sequence: task, annotations, result, value."""

UPRIGHT = 0.01
"""Degrees up to which a rectangle counts as upright."""


def recognise(document: Any) -> bool:
    """Anything that holds a sequence of rectangles."""
    return next(_regions(document, DEEPEST), None) is not None


def read(document: Any, name: str) -> Contents:
    """The one region's sequence.

    Raises:
        FramingError: several regions, a rectangle that is turned, or a wrong value; names the keyframe.
    """
    regions = list(_regions(document, DEEPEST))
    different = [region for index, region in enumerate(regions) if not _is_among(region, regions[:index])]
    if len(different) > 1:
        raise FramingError(
            f"{name}: it holds {len(different)} regions of {NAME}",
            remedy="Keep the one region that the camera is to follow.",
        )
    region = different[0]
    rows = list_of(region, "sequence", name)
    by_time = all(isinstance(row, dict) and "time" in row for row in rows)
    rate = None if by_time else _rate(region, name)
    found = []
    for index, row in enumerate(rows):
        where = f"{name}: keyframe {index}"
        values = object_of(row, where)
        if "rotation" in values and abs(number(values, "rotation", where, ANY)) > UPRIGHT:
            raise FramingError(
                f"{where}: the rectangle is turned by {values['rotation']:g} degrees, and the camera stays upright",
                remedy="Turn it upright.",
            )
        if rate is None:
            time = number(values, "time", where, TIME)
        else:
            # Label Studio counts frames from 1.
            time = float(Fraction(max(0.0, number(values, "frame", where, TIME) - 1)) / rate)
        x, y = number(values, "x", where, ANY), number(values, "y", where, ANY)
        width, height = number(values, "width", where, SIDE), number(values, "height", where, SIDE)
        found.append(Keyframe(0.0 + time, x, y, width, height, hold=values.get("enabled") is False))
    return Contents(keyframes=tuple(found), units=Units.PERCENT, time_unit=TimeUnit.SECONDS, form=NAME)


def _regions(value: Any, levels: int) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        sequence = value.get("sequence")
        first = sequence[0] if isinstance(sequence, list) and sequence else None
        if isinstance(first, dict) and {"x", "y", "width", "height"} <= first.keys():
            yield value
            return
        parts: list[Any] = list(value.values()) if levels else []
    else:
        parts = value if isinstance(value, list) and levels else []
    # Long lists of plain keyframes hold no regions: the first entries tell.
    for part in parts[:100]:
        if isinstance(part, dict | list):
            yield from _regions(part, levels - 1)


def _is_among(region: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    return any(region["sequence"] == other["sequence"] for other in others)


def _rate(region: dict[str, Any], name: str) -> Fraction:
    try:
        frames, duration = (number(region, key, name, RATE) for key in ("framesCount", "duration"))
    except FramingError as error:
        raise FramingError(
            f"{name}: the keyframes of {NAME} have no time, and {error.message.removeprefix(f'{name}: ')}",
            remedy="Export it with the times of its keyframes, or with framesCount and duration.",
        ) from error
    return Fraction(frames) / Fraction(duration)
