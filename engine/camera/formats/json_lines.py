"""JSON Lines: a keyframe a line; a first line without a rectangle declares units, as the long form's fields do."""

from __future__ import annotations

from typing import Any

from keyscale.engine.camera.contents import Contents
from keyscale.engine.camera.fields import Repeated, decode, object_of
from keyscale.engine.camera.formats import autoflip
from keyscale.engine.camera.formats.version1 import DECLARATIONS, clock_of, source_of, units_of
from keyscale.engine.camera.rows import is_row, keyframes_of, unit_of_times
from keyscale.engine.errors import FramingError

__all__ = ["NAME", "read", "read_text", "recognise", "recognise_text"]

NAME = "JSON Lines"


def recognise(document: Any) -> bool:
    """A single line: one keyframe by itself."""
    return is_row(document)


def recognise_text(text: str) -> bool:
    """More than one line, the first of which is an object by itself."""
    begin = len(text[:1000]) - len(text[:1000].lstrip())
    end = text.find("\n", begin)
    if end < 0 or text[begin] != "{" or not text[begin:end].rstrip().endswith("}") or not text[end:].strip():
        return False
    first = text[begin:end]
    try:
        return isinstance(decode(first, ""), dict | Repeated)
    except FramingError:
        return False


def read(document: Any, name: str) -> Contents:
    """The one keyframe."""
    return _contents([document], name, ["line 1"])


def read_text(text: str, name: str) -> Contents:
    """The lines, in their order; empty ones are passed over.

    Raises:
        FramingError: a line is not JSON, or its keyframe is wrong; names the line.
    """
    rows: list[Any] = []
    places: list[str] = []
    for count, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            places.append(f"line {count}")
            rows.append(decode(line, f"{name}: line {count}"))
    return _contents(rows, name, places)


def _contents(rows: list[Any], name: str, places: list[str]) -> Contents:
    if autoflip.recognise(rows):
        return autoflip.read(rows, name)
    declared: dict[str, Any] = {}
    if isinstance(rows[0], dict) and not is_row(rows[0]) and rows[0].keys() <= DECLARATIONS:
        declared = object_of(rows[0], f"{name}: {places[0]}", DECLARATIONS)
        rows, places = rows[1:], places[1:]
    clock = clock_of(declared, name)
    return Contents(
        keyframes=keyframes_of(rows, clock, name, places=places),
        units=units_of(declared, name),
        time_unit=unit_of_times(rows, clock),
        source=source_of(declared, name),
        form=NAME,
    )
