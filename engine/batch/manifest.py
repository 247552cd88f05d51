"""A manifest: videos with their keyframes, outputs and flags, as CSV or JSON Lines. No more is read than is allowed."""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from keyscale.engine.addresses import is_address, local_name
from keyscale.engine.addresses import shown as shown_address
from keyscale.engine.batch.clip import Clip
from keyscale.engine.errors import KeyscaleError, UsageError
from keyscale.engine.job import Job
from keyscale.engine.options import Document, Option, options_of
from keyscale.engine.run_options import BatchRequest, RemoteOptions, Terminal
from keyscale.engine.settings import model_beside
from keyscale.engine.wording import Named, say

__all__ = ["MANIFEST_SUFFIXES", "MAX_BYTES", "MAX_ROWS", "MAX_ROW_BYTES", "NO_ADDRESS", "columns_of", "read_manifest"]

NO_ADDRESS = "A batch writes files here; upload them afterwards, or run `keyscale upscale -o r2://...` for each clip."
"""What to do where a batch is asked to write to storage."""

MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson"})

MAX_BYTES = 64 * 2**20
"""Largest manifest in bytes."""

MAX_ROWS = 100_000
"""Most clips of a manifest; ten times as many lines."""

MAX_ROW_BYTES = 2**20
"""Longest row in bytes, however many lines it has."""

MAX_CELL = 4096
"""Longest value in characters: PATH_MAX of common systems."""

PLACES = ("video", "keyframes", "output")

_SHOWN = 40


def columns_of(kind: type[Job] = Job) -> dict[str, Option]:
    """The options that a manifest may give for a clip, by their column."""
    return {each.key: each for each in options_of(kind).values() if each.per_clip}


def read_manifest(path: Path, kind: type[Job] = Job) -> tuple[Clip, ...]:
    """The clips of a manifest, a row each, in the order of the file.

    CSV has a header row that names its columns; JSON Lines has an object a line. Both know `video`, `keyframes`,
    `output` and `columns_of`, with `-` or `_`; what is empty or null is not given. Paths are relative to the manifest's
    folder, `output` to the batch's output folder. A video may be an address.

    Args:
        path: the file.
        kind: the class of the jobs.

    Returns:
        A row that is wrong by itself is a clip with a `fault` that names its line. Whether files are there, and
        whether values make sense, is not looked at.

    Raises:
        UsageError: the file cannot be read, exceeds a bound, is not UTF-8 or nested too deep, has no header, an unknown
            column or one twice, or no row at all.
    """
    shown = str(path)
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {shown}: {getattr(error, 'strerror', None) or error}") from error
    with file, contextlib.closing(_lines(file, shown)) as lines:
        known = columns_of(kind)
        rows = _csv_rows(lines, shown, known) if path.suffix.lower() == ".csv" else _json_rows(lines, shown, known)
        clips: list[Clip] = []
        for row in rows:
            if len(clips) == MAX_ROWS:
                raise UsageError(f"{shown} has more than {MAX_ROWS} rows", remedy="Split the manifest.")
            clips.append(_clip(row, path))
    if not clips:
        raise UsageError(f"{shown} names no video", remedy="Give a row for each video.")
    return _named_apart(clips)


_Row = tuple[int, dict[str, Any], str | None]
"""The line where it begins, from 1; its values by column, without the empty ones; what is wrong with it."""


def _lines(file: BinaryIO, shown: str) -> Generator[str]:
    """Lines with their ends, as text, within all bounds."""
    total = number = 0
    while True:
        try:
            line = file.readline(MAX_ROW_BYTES + 1)
        except OSError as error:
            raise UsageError(f"cannot read {shown}: {error.strerror or error}") from error
        if not line:
            return
        number += 1
        total += len(line)
        if total > MAX_BYTES:
            raise UsageError(f"{shown} is larger than {MAX_BYTES // 2**20} MiB", remedy="Split the manifest.")
        if len(line) > MAX_ROW_BYTES:
            raise UsageError(f"{shown}: line {number} is longer than {MAX_ROW_BYTES // 2**20} MiB")
        if number > 10 * MAX_ROWS:
            raise UsageError(f"{shown} has more than {10 * MAX_ROWS} lines", remedy="Split the manifest.")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if b"\0" in line:
            raise UsageError(f"{shown}: line {number} holds a zero byte", remedy="Save the file as UTF-8 text.")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{shown}: line {number} is not UTF-8 text", remedy="Save the file as UTF-8.") from error


def _csv_rows(lines: Iterator[str], shown: str, known: Mapping[str, Option]) -> Iterator[_Row]:
    number = taken = 0

    def bounded() -> Iterator[str]:
        """Lines for the CSV reader, which joins those of a quoted cell: a row is held within bounds too."""
        nonlocal number, taken
        for line in lines:
            number, taken = number + 1, taken + len(line)
            if taken > MAX_ROW_BYTES:
                raise UsageError(
                    f"{shown}: the row before line {number} is longer than {MAX_ROW_BYTES // 2**20} MiB",
                    remedy="A quotation mark may be missing.",
                )
            yield line

    # A name that begins with a space stands in quotation marks.
    reader = csv.reader(bounded(), strict=True, skipinitialspace=True)
    columns: list[str] | None = None
    while True:
        begins, taken = number + 1, 0
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise UsageError(
                f"{shown}: line {begins}: not CSV: {error}", remedy='Quotation marks in a cell are doubled: "".'
            ) from error
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = _header(cells, f"{shown}: line {begins}", known)
            continue
        fault = None
        if len(cells) < len(columns):
            fault = f"{len(cells)} cells, the header has {len(columns)}"
        elif any(cell.strip() for cell, name in zip_longest(cells, columns) if not name):
            fault = "a cell stands beyond the columns that have a name"
        values = {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
        yield begins, values, fault
    if columns is None:
        raise UsageError(f"{shown} has no header", remedy="The first row names the columns: video,keyframes,output.")


def _header(cells: Sequence[str], where: str, known: Mapping[str, Option]) -> list[str]:
    """The columns, by the names of `_column`; what has no name may have no values either."""
    if len(cells) == 1 and (";" in cells[0] or "\t" in cells[0]):
        raise UsageError(f"{where}: the cells are not separated by commas", remedy="Export the table with commas.")
    if "video" not in map(_plain, cells):
        raise UsageError(
            f"{where}: no column is named video", remedy="The first row names the columns: video,keyframes,output."
        )
    columns = [_column(cell, where, known) if cell.strip() else "" for cell in cells]
    for name, count in Counter(columns).items():
        if name and count > 1:
            raise UsageError(f"{where}: the column {name} is there {count} times", remedy="Keep one of them.")
    return columns


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _column(given: str, where: str, known: Mapping[str, Option]) -> str:
    name = _plain(given)
    if name in known or name in PLACES:
        return name
    for each in options_of(Job, RemoteOptions, BatchRequest, Terminal).values():
        if name in {each.key, each.contrary}:
            raise UsageError(
                f"{where}: {name} holds for a whole batch, not for one clip",
                remedy=say("Give {} on the command line.", Named(each.name, each.is_switch or None)),
            )
    names = [*PLACES, *sorted(known)]
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    raise UsageError(
        f"{where}: unknown column {_short(given)}",
        remedy=f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}.",
    )


def _json_rows(lines: Iterator[str], shown: str, known: Mapping[str, Option]) -> Iterator[_Row]:
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        where = f"{shown}: line {line}"
        try:
            pairs = json.loads(text.rstrip(), object_pairs_hook=_Pairs, parse_constant=_no_constant)
        except RecursionError as error:
            raise UsageError(
                f"{where}: lists or objects are nested too deeply", remedy="A line is one flat object."
            ) from error
        except ValueError as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            yield line, {}, f"not JSON: {reason}"
            continue
        if not isinstance(pairs, _Pairs):
            yield line, {}, f"{_kind(pairs)} where an object should be"
            continue
        names = [_column(name, where, known) for name, _ in pairs]
        twice = [name for name, count in Counter(names).items() if count > 1]
        values = {name: value for name, (_, value) in zip(names, pairs, strict=True) if value not in (None, "")}
        yield line, values, f"{twice[0]} is given twice" if twice else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with keys that are there twice."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _clip(row: _Row, manifest: Path) -> Clip:
    line, values, fault = row
    where = f"{manifest}: line {line}"
    video = values.get("video")
    if isinstance(video, str) and is_address(video) and len(video) <= MAX_CELL and "\0" not in video:
        place = shown_address(video)
        stem = local_name(video).with_suffix("")
        clip = Clip(name=place, video=Path(place), link=video, stem=stem, where=where)
    elif isinstance(video, str) and len(video) <= MAX_CELL and "\0" not in video:
        # The video's own place beneath the manifest, or its name alone where it lies elsewhere.
        stem = Path(video)
        stem = Path(stem.name) if stem.is_absolute() or ".." in stem.parts else stem
        stem = stem.with_name(stem.stem) if stem.name else stem
        clip = Clip(name=video, video=manifest.parent / video, stem=stem, where=where)
    else:
        unknown = f"{manifest.name} line {line}"
        clip = Clip(name=unknown, video=manifest, stem=Path(unknown), where=where)
    try:
        if fault is not None:
            raise UsageError(f"{where}: {fault}")
        options: dict[str, Document] = {}
        for name, value in values.items():
            options[name] = _value(value, f"{where}: {name}", is_path=name in PLACES)
        _, keyframes, output = (options.pop(name, None) for name in PLACES)
        if video is None:
            raise UsageError(f"{where}: no video is named")
        if isinstance(output, str) and output.endswith("/"):
            raise UsageError(
                f"{where}: output {_short(output)} is a folder", remedy=say("Name a file beneath {output}.")
            )
        if isinstance(output, str) and is_address(output):
            raise UsageError(f"{where}: output {_short(output)} is no file", remedy=NO_ADDRESS)
        if isinstance(model := options.get("model"), str):
            options["model"] = model_beside(model, manifest.parent)
    except KeyscaleError as error:
        return replace(clip, fault=error)
    return replace(
        clip,
        keyframes=manifest.parent / keyframes if isinstance(keyframes, str) else None,
        output=Path(output) if isinstance(output, str) else None,
        options=options,
    )


def _value(value: object, what: str, *, is_path: bool) -> Document:
    if not isinstance(value, str) and (is_path or not isinstance(value, bool | int | float)):
        wanted = "text" if is_path else "text, a number, true or false"
        raise UsageError(f"{what} is {_kind(value)}, it must be {wanted}")
    if isinstance(value, str) and len(value) > MAX_CELL:
        raise UsageError(f"{what} has more than {MAX_CELL} characters")
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{what} holds a zero byte")
    if is_path and isinstance(value, str):
        try:
            os.fsencode(value)
        except UnicodeEncodeError as error:
            raise UsageError(f"{what} {_short(value)} is not a file name") from error
    return value


def _kind(value: Any) -> str:
    match value:
        case _Pairs():
            return "an object"
        case list():
            return "a list"
        case str():
            return _short(value)
        case None:
            return "null"
        case _:
            return json.dumps(value)[:_SHOWN]


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _named_apart(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """A video may be named more than once, for several results."""
    count = Counter(clip.name for clip in clips)
    return tuple(
        replace(clip, name=f"{clip.name} (line {clip.where.rpartition(' ')[2]})") if count[clip.name] > 1 else clip
        for clip in clips
    )
