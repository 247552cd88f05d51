"""`Crops` of ClipsAI, as its `to_dict()` gives it: a crop size, and segments that each stand at one place.

https://github.com/ClipsAI/clipsai, clipsai/resize/crops.py; older versions write `startTime`, newer ones `start_time`.
"""

from __future__ import annotations

from typing import Any

from keyscale.engine.camera.contents import Contents, Keyframe, SourceSize, TimeUnit, Units
from keyscale.engine.camera.fields import ANY, RATE, SIDE, TIME, list_of, number, object_of
from keyscale.engine.errors import FramingError

__all__ = ["NAME", "read", "recognise"]

NAME = "ClipsAI Crops"

WIDTHS = ("crop_width", "cropWidth", "resize_width", "resizeWidth")
HEIGHTS = ("crop_height", "cropHeight", "resize_height", "resizeHeight")
FULL_WIDTHS, FULL_HEIGHTS = ("original_width", "originalWidth"), ("original_height", "originalHeight")
STARTS, ENDS = ("start_time", "startTime"), ("end_time", "endTime")


def recognise(document: Any) -> bool:
    """An object with the size of the crop and segments that have a start and a corner."""
    found = document.get("crops", document) if isinstance(document, dict) else None
    if not isinstance(found, dict) or not any(key in found for key in WIDTHS):
        return False
    segments = found.get("segments")
    first = segments[0] if isinstance(segments, list) and segments else None
    return isinstance(first, dict) and any(key in first for key in STARTS) and "x" in first


def read(document: Any, name: str) -> Contents:
    """Each segment's rectangle stands until the next one's start, where the picture cuts.

    Raises:
        FramingError: a value is missing or wrong; names the segment and the field.
    """
    crops = object_of(document.get("crops", document), name)
    width, height = (number(crops, _key(crops, keys), name, SIDE) for keys in (WIDTHS, HEIGHTS))
    rows = list_of(crops, "segments", name)
    found = []
    for index, row in enumerate(rows):
        where = f"{name}: segment {index}"
        values = object_of(row, where)
        start = number(values, _key(values, STARTS), where, TIME)
        if _key(values, ENDS) in values and not number(values, _key(values, ENDS), where, TIME) >= start:
            raise FramingError(f"{where}: it ends before it starts")
        x, y = number(values, "x", where, ANY), number(values, "y", where, ANY)
        found.append(Keyframe(0.0 + start, x, y, width, height, hold=True))
    source = None
    if any(key in crops for key in FULL_WIDTHS):
        source = SourceSize(*(number(crops, _key(crops, keys), name, RATE) for keys in (FULL_WIDTHS, FULL_HEIGHTS)))
    return Contents(keyframes=tuple(found), units=Units.PIXELS, time_unit=TimeUnit.SECONDS, source=source, form=NAME)


def _key(values: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((key for key in keys if key in values), keys[0])
