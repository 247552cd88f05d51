"""Which part of the source is used, and how fast: trim and speeds as version 1 and as editors write them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeVar

from keyscale.engine.camera.contents import LARGEST, Segment
from keyscale.engine.camera.fields import SPEED, TIME, list_of, number, number_of, object_of, show, unique
from keyscale.engine.camera.rows import Clock
from keyscale.engine.errors import FramingError
from keyscale.engine.job import Trim

__all__ = ["SEGMENT_DATA_KEYS", "agreed", "segment_data", "segments", "trim", "whole_trim"]

T = TypeVar("T")

SEGMENT_DATA_KEYS = frozenset(
    {"trim_start", "trim_end", "segments", "trimRange", "boundaries", "segmentSpeeds", "userSplits", "speeds"}
)

_TRIM_KEYS = frozenset({"start", "end"})
_SEGMENT_KEYS = frozenset({"start", "end", "speed"})

AT_ZERO = 0.01
"""Seconds: a boundary below is the source's start, as the editors that write boundaries compare them."""

_SECONDS = Clock()


def trim(values: dict[str, Any], where: str, start: str = "start", end: str = "end", clock: Clock = _SECONDS) -> Trim:
    """The trim under two keys of an object, either of which may be left out."""
    found = [clock.read(values[key], f"{where}: field '{key}'") if key in values else None for key in (start, end)]
    return Trim(start=found[0], end=found[1])


def trim_range(value: Any, where: str, clock: Clock = _SECONDS) -> Trim:
    """A trim as `{"start": ..., "end": ...}`, or as `[start, end]` where either may be null."""
    unique(value, where)
    if not isinstance(value, list):
        return trim(object_of(value, where, _TRIM_KEYS), where, clock=clock)
    if len(value) != 2:
        raise FramingError(f"{where} is a list of {len(value)}, it must hold a start and an end")
    ends = [
        None if end is None else clock.read(end, f"{where}: {name}")
        for name, end in zip(("start", "end"), value, strict=True)
    ]
    return Trim(start=ends[0], end=ends[1])


def agreed(what: str, here: str, one: T | None, there: str, other: T | None) -> T | None:
    """The value that is given, or both where they are equal."""
    if one is not None and other is not None and one != other:
        raise FramingError(
            f"{what} is given in {here} and in {there} with different values", remedy="Keep one of them."
        )
    return one if one is not None else other


def whole_trim(one: Trim, here: str, other: Trim, there: str, where: str) -> Trim:
    """Two trims that say the same or complete one another, as one.

    Raises:
        FramingError: they differ, or leave nothing.
    """
    whole = Trim(
        start=agreed(f"{where}: start", here, one.start, there, other.start),
        end=agreed(f"{where}: end", here, one.end, there, other.end),
    )
    start = whole.start or 0.0
    if whole.end is not None and whole.end <= start:
        raise FramingError(
            f"{where}: it ends at {whole.end:.12g} s and starts at {start:.12g} s, nothing is left",
            remedy="Give an end after the start.",
        )
    return whole


def segments(values: Any, where: str, clock: Clock = _SECONDS) -> tuple[Segment, ...]:
    """A list of `{"start", "end", "speed"}`, by start.

    Raises:
        FramingError: one is wrong, or two overlap; names their indices.
    """
    rows = list_of({"segments": values}, "segments", where)
    return _ordered([_segment(value, f"{where}: segment {i}", clock) for i, value in enumerate(rows)], where)


def _segment(value: Any, where: str, clock: Clock) -> Segment:
    values = object_of(value, where, _SEGMENT_KEYS)
    for key in ("start", "end"):
        if key not in values:
            raise FramingError(f"{where}: field '{key}' is missing")
    start, end = (clock.read(values[key], f"{where}: field '{key}'") for key in ("start", "end"))
    if end <= start:
        raise FramingError(f"{where}: field 'end' is {end:.12g}, it must be above 'start', {start:.12g}")
    return Segment(start, end, number(values, "speed", where, SPEED))


def _ordered(rows: list[Segment], where: str) -> tuple[Segment, ...]:
    order = sorted(range(len(rows)), key=lambda index: rows[index].start)
    for first, second in pairwise(order):
        if rows[second].start < rows[first].end:
            low, high = sorted((first, second))
            raise FramingError(
                f"{where}: segment {low} and segment {high} overlap from {rows[second].start:.12g} s",
                remedy="End one where the other starts.",
            )
    return tuple(rows[index] for index in order)


def segment_data(value: Any, where: str) -> tuple[Trim, tuple[Segment, ...] | None]:
    """Trim and speeds as editors store them, in seconds; None where no speeds are given."""
    values = object_of(value, where, SEGMENT_DATA_KEYS)
    ranged = trim_range(values["trimRange"], f"{where}: trimRange") if "trimRange" in values else Trim()
    found = whole_trim(
        trim(values, where, "trim_start", "trim_end"),
        "'trim_start' or 'trim_end'",
        ranged,
        "'trimRange'",
        f"{where}: trim",
    )
    listed = segments(values["segments"], where) if "segments" in values else None
    bounded = None
    if any(key in values for key in ("boundaries", "userSplits", "segmentSpeeds", "speeds")):
        bounded = _bounded(values, where)
    return found, agreed(f"{where}: speed", "'segments'", listed, "'boundaries'", bounded)


def _bounded(values: dict[str, Any], where: str) -> tuple[Segment, ...]:
    """Stretch `i` runs from edge `i` to edge `i + 1`; one without a speed plays at 1.

    `boundaries` begin at 0 and end with the source. Where they begin later they are splits alone, as `userSplits`
    always are: the first stretch then runs from 0 to the first split, the last one from the last split to the end.
    """
    if "userSplits" in values and (values["userSplits"] or not values.get("boundaries")):
        edges = _edges(list_of(values, "userSplits", where), where, "split")
        splits_only = True
    else:
        edges = _edges(list_of(values, "boundaries", where), where, "boundary")
        splits_only = bool(edges) and edges[0] > AT_ZERO
    if splits_only:
        edges = [0.0, *(edge for edge in edges if edge > AT_ZERO), LARGEST]
    stretches = {str(index): index for index in range(len(edges) - 1)}
    rows = []
    for key, speed in _speeds(values, where):
        if key not in stretches:
            between = f"{len(edges)} boundaries" if not splits_only else f"the ends and {len(edges) - 2} splits"
            raise FramingError(
                f"{where}: segmentSpeeds: index {show(key)} is out of range,"
                f" there are {len(stretches)} stretches between {between}"
            )
        number_of(speed, f"{where}: segmentSpeeds: index {show(key)}", SPEED)
        start = stretches[key]
        rows.append(Segment(edges[start], edges[start + 1], float(speed)))
    return tuple(sorted(rows, key=lambda row: row.start))


def _edges(given: list[Any], where: str, what: str) -> list[float]:
    edges: list[float] = []
    for index, edge in enumerate(given):
        edges.append(number_of(edge, f"{where}: {what} {index}", TIME))
        if index and edge <= given[index - 1]:
            raise FramingError(
                f"{where}: {what} {index} is {edge:.12g}, it must be above {what} {index - 1}, {given[index - 1]:.12g}"
            )
    return edges


def _speeds(values: dict[str, Any], where: str) -> list[tuple[str, Any]]:
    key = "segmentSpeeds" if "segmentSpeeds" in values else "speeds"
    speeds = unique(values.get(key, {}), f"{where}: {key}")
    if isinstance(speeds, list):
        return [(str(index), speed) for index, speed in enumerate(speeds)]
    if not isinstance(speeds, dict):
        raise FramingError(f"{where}: field '{key}' is {show(speeds)}, it must be an object or a list")
    return list(speeds.items())
