"""CSV: a first row that names the columns, `time,x,y,width,height` or their other names, then a row a keyframe.

Lines that begin with `#` are comments; `# units: percent`, `# time_unit: ms`, `# fps: 25` declare what numbers count.
"""

from __future__ import annotations

import csv
import re
from typing import Any

from keyscale.engine.camera.contents import Contents
from keyscale.engine.camera.fields import did_you_mean, show
from keyscale.engine.camera.formats.version1 import clock_of, units_of
from keyscale.engine.camera.rows import (
    KEYFRAME_KEYS,
    KNOWN,
    RECTANGLE_KEYS,
    TIME_KEYS,
    keyframes_of,
    unit_of_times,
)
from keyscale.engine.errors import FramingError

__all__ = ["NAME", "read_text", "recognise_text"]

NAME = "CSV"

SEPARATORS = (",", ";", "\t")

_DECLARATION = re.compile(r"^[ \t]*#[ \t]*(units|time_unit|fps)[ \t]*[:=][ \t]*([\w./]+)[ \t]*$", re.MULTILINE)

TEXTS = frozenset({"ease"})
"""Columns that are no numbers."""


def recognise_text(text: str) -> bool:
    """A first line of names, one of which is that of a time or of a rectangle's side."""
    header = _header(text)
    return len(header) >= 3 and not header[0].startswith(("[", "{")) and bool(_known(header))


def read_text(text: str, name: str) -> Contents:
    """The rows, in their order.

    Raises:
        FramingError: a column or a row is wrong; names its line.
    """
    separator = _separator(_first_line(text))
    lines = ("" if line.lstrip().startswith("#") else line for line in text.splitlines())
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    try:
        for cells in reader:
            where = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = _columns(cells, f"{name}: {where}")
                continue
            if len(cells) != len(columns):
                raise FramingError(f"{name}: {where}: {len(cells)} cells, and the header has {len(columns)}")
            rows.append({key: _value(key, cell, separator) for key, cell in zip(columns, cells, strict=True)})
            places.append(where)
    except csv.Error as error:
        raise FramingError(f"{name}: line {reader.line_num}: {error}", remedy="Write plain CSV.") from error
    if any(key in columns for key in TIME_KEYS if key != "frame") and "frame" in columns:
        # Both say when, and the time needs no rate.
        for row in rows:
            del row["frame"]
    declared = _declared(text)
    clock = clock_of(declared, name)
    return Contents(
        keyframes=keyframes_of(rows, clock, name, places=places),
        units=units_of(declared, name),
        time_unit=unit_of_times(rows, clock),
        form=NAME,
    )


def _declared(text: str) -> dict[str, Any]:
    found = _DECLARATION.finditer(text[:10_000])
    return {each[1]: _value(each[1], each[2], ",") for each in found}


def _first_line(text: str) -> str:
    """The first line that is neither empty nor a comment."""
    lines = text[:10_000].splitlines()
    return next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")


def _separator(first: str) -> str:
    return max(SEPARATORS, key=first.count)


def _header(text: str) -> list[str]:
    first = _first_line(text)
    return [cell.strip().strip('"').strip() for cell in first.split(_separator(first))]


def _known(header: list[str]) -> set[str]:
    return {cell.lower() for cell in header} & (RECTANGLE_KEYS | TIME_KEYS.keys())


def _columns(cells: list[str], where: str) -> list[str]:
    columns = [cell.strip().lower() for cell in cells]
    for column in columns:
        if column not in KEYFRAME_KEYS:
            raise FramingError(
                f"{where}: unknown column {show(column)}",
                remedy=f"{did_you_mean(column, KEYFRAME_KEYS)}Known here: {', '.join(sorted(KNOWN))}.",
            )
        if columns.count(column) > 1:
            raise FramingError(f"{where}: column {show(column)} is given twice", remedy="Keep one of them.")
    return columns


def _value(key: str, cell: str, separator: str) -> Any:
    """A number where the cell is one, else the text, which the reader of keyframes judges."""
    text = cell.strip()
    if key in TEXTS:
        return text or "linear"
    try:
        # Where semicolons separate, the comma is the decimal mark.
        return float(text.replace(",", ".") if separator == ";" else text)
    except ValueError:
        return text
