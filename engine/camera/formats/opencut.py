"""`crop_keyframes` of OpenCut's reframing: seconds and pixels, with the size of the picture they were made for."""

from __future__ import annotations

from typing import Any

from keyscale.engine.camera.contents import Contents, SourceSize
from keyscale.engine.camera.fields import RATE, list_of, number, object_of
from keyscale.engine.camera.formats.version1 import clock_of, units_of
from keyscale.engine.camera.rows import ENDS, SIZES, keyframes_of, unit_of_times

__all__ = ["NAME", "read", "recognise"]

NAME = "OpenCut crop_keyframes"

SIZES_OF_SOURCE = (("original_width", "original_height"), ("source_width", "source_height"))


def recognise(document: Any) -> bool:
    """An object with a list `crop_keyframes`."""
    return isinstance(document, dict) and isinstance(document.get("crop_keyframes"), list)


def read(document: Any, name: str) -> Contents:
    """Its keyframes; where they hold no size, all have `crop_width` x `crop_height`.

    Raises:
        FramingError: a keyframe is wrong; names its index and the field.
    """
    top = object_of(document, name)
    rows = list_of(top, "crop_keyframes", name)
    common = {axis: top[key] for axis, key in (("x", "crop_width"), ("y", "crop_height")) if top.get(key) is not None}
    whole = [
        row | {SIZES[axis][0]: size for axis, size in common.items() if not _has_size(row, axis)}
        if isinstance(row, dict)
        else row
        for row in rows
    ]
    source = next((keys for keys in SIZES_OF_SOURCE if all(top.get(key) is not None for key in keys)), None)
    clock = clock_of(top, name)
    return Contents(
        keyframes=keyframes_of(whole, clock, name, also=("confidence", "tracked_subject", "source")),
        units=units_of(top, name),
        time_unit=unit_of_times(rows, clock),
        source=None if source is None else SourceSize(*(number(top, key, name, RATE) for key in source)),
        form=NAME,
    )


def _has_size(row: dict[str, Any], axis: str) -> bool:
    return any(key in row for key in (*SIZES[axis], *ENDS[axis]))
