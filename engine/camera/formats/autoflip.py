"""AutoFlip's external rendering frames: a message a frame, as JSON, JSON Lines or protobuf text.

`ExternalRenderFrame` in mediapipe/examples/desktop/autoflip/autoflip_messages.proto: `crop_from_location` (x, y, width,
height) and `timestamp_us`. Parts of the frame, or pixels of the source where one of them is above 1. A field that is 0
may be left out, as protobuf's JSON does, which also writes 64-bit numbers as texts.
"""

from __future__ import annotations

import re
from itertools import pairwise
from statistics import median
from typing import Any

from keyscale.engine.camera.contents import Contents, Keyframe, TimeUnit, Units
from keyscale.engine.camera.fields import ANY, SIDE, TIME, number, number_of, object_of
from keyscale.engine.errors import FramingError

__all__ = ["NAME", "read", "read_text", "recognise", "recognise_text"]

NAME = "AutoFlip's external rendering frames"

CROPS = ("crop_from_location", "cropFromLocation")
TIMES = ("timestamp_us", "timestampUs")

PER_FRAME_S = 0.07
"""Seconds between keyframes up to which there is one for each frame of a video."""

WHOLE = 1 + 1e-4
"""A part of the frame may be above 1 by float32's rounding."""

_MESSAGE = re.compile(r"crop_from_location\s*:?\s*\{([^{}]*)\}|timestamp_us\s*:\s*(\d+)")
_FIELD = re.compile(r"(x|y|width|height)\s*:\s*([-+.\deE]+)")


def recognise(document: Any) -> bool:
    """A list of messages, or an object with one."""
    return _messages(document) is not None


def recognise_text(text: str) -> bool:
    """Protobuf's text form."""
    head = text[:4000].lstrip()
    return head[:1] not in {"{", "[", '"', ""} and re.search(r"crop_from_location\s*:?\s*\{", head) is not None


def read(document: Any, name: str) -> Contents:
    """The crop of each message.

    Raises:
        FramingError: a value is missing or wrong; names the frame and the field.
    """
    rows = []
    for index, message in enumerate(_messages(document) or []):
        where = f"{name}: frame {index}"
        values = object_of(message, where)
        crop = object_of(next((values[key] for key in CROPS if key in values), None), f"{where}: {CROPS[0]}")
        stamp = next((values[key] for key in TIMES if key in values), 0)
        if isinstance(stamp, str) and stamp.isdecimal() and len(stamp) <= 20:
            stamp = int(stamp)
        # Beyond the limit of seconds, in microseconds, no float is exact.
        time = number_of(stamp, f"{where}: field '{TIMES[0]}'", TIME._replace(high=TIME.high * 1e6)) / 1e6
        crop = {"x": 0, "y": 0} | crop
        place = f"{where}: {CROPS[0]}"
        x, y = number(crop, "x", place, ANY), number(crop, "y", place, ANY)
        rows.append(Keyframe(time, x, y, number(crop, "width", place, SIDE), number(crop, "height", place, SIDE)))
    if not rows:
        raise FramingError(f"{name}: there are no frames", remedy="Give at least one.")
    steps = [b.time - a.time for a, b in pairwise(sorted(rows, key=lambda row: row.time))]
    if steps and median(steps) <= PER_FRAME_S:
        # One a frame: each is that frame's own, and nothing lies between two of them.
        rows = [Keyframe(row.time, row.x, row.y, row.width, row.height, hold=True) for row in rows]
    parts = all(row.x + row.width <= WHOLE and row.y + row.height <= WHOLE for row in rows)
    return Contents(
        keyframes=tuple(rows),
        units=Units.NORMALIZED if parts else Units.PIXELS,
        time_unit=TimeUnit.SECONDS,
        form=NAME,
    )


def read_text(text: str, name: str) -> Contents:
    """Protobuf's text form, as `read`."""
    messages: list[dict[str, Any]] = []
    for found in _MESSAGE.finditer(text):
        if found[2] is None:
            try:
                crop = {field: float(value) for field, value in _FIELD.findall(found[1])}
            except ValueError as error:
                raise FramingError(f"{name}: frame {len(messages)}: {error}") from error
            if messages and CROPS[0] not in messages[-1]:
                messages[-1][CROPS[0]] = crop
            else:
                messages.append({CROPS[0]: crop})
        elif messages and TIMES[0] not in messages[-1]:
            messages[-1][TIMES[0]] = found[2]
        else:
            messages.append({TIMES[0]: found[2]})
    return read(messages, name)


def _messages(document: Any) -> list[Any] | None:
    if isinstance(document, dict):
        if any(key in document for key in CROPS):
            return [document]
        lists = [value for value in document.values() if isinstance(value, list) and _is_message(value)]
        return lists[0] if len(lists) == 1 else None
    return document if isinstance(document, list) and _is_message(document) else None


def _is_message(values: list[Any]) -> bool:
    return bool(values) and isinstance(values[0], dict) and any(key in values[0] for key in CROPS)
