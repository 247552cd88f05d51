"""Lists of FFmpeg's `sendcmd` filter that set the sides of a `crop` filter: `1.5 crop x 100, crop y 20;`.

https://ffmpeg.org/ffmpeg-filters.html#sendcmd_002c-asendcmd. A command sets its value from its time on, so each
keyframe stands until the next.
"""

from __future__ import annotations

import math
import re

from keyscale.engine.camera.contents import Contents, Keyframe, TimeUnit, Units
from keyscale.engine.camera.fields import ANY, SIDE, TIME, number_of, seconds_of_clock, show
from keyscale.engine.errors import FramingError

__all__ = ["NAME", "read_text", "recognise_text"]

NAME = "an FFmpeg sendcmd list"

SIDES = {"x": "x", "y": "y", "w": "width", "h": "height", "out_w": "width", "out_h": "height"}
"""Commands of the crop filter, and what they set."""

_TIME = r"(?:\d+:)?(?:\d+:)?\d+(?:\.\d*)?(?:us|ms|s)?"
_INTERVAL = re.compile(rf"\s*({_TIME})(?:\s*-\s*({_TIME}))?\s+(.*)", re.DOTALL)
_COMMAND = re.compile(r"(?:\[([^\]]*)\]\s*)?([\w@.]+)\s+(\w+)\s+(.*)", re.DOTALL)
_COMMENT = re.compile(r"#[^\n]*")


def recognise_text(text: str) -> bool:
    """A first interval with a command for some filter."""
    head = _COMMENT.sub("", text[:4000])
    interval = _INTERVAL.match(head)
    return interval is not None and _COMMAND.match(interval[3].lstrip()) is not None


def read_text(text: str, name: str) -> Contents:
    """The crop at each time at which a command changes it.

    Raises:
        FramingError: a command cannot be followed, or the rectangle is not known whole; names the interval.
    """
    changes: list[tuple[float, int, str, float]] = []
    for index, part in enumerate(part for part in _COMMENT.sub("", text).split(";") if part.strip()):
        where = f"{name}: interval {index}"
        interval = _INTERVAL.fullmatch(part.rstrip())
        if interval is None:
            raise FramingError(f"{where}: {show(part.strip())} is not an interval with commands")
        start = _seconds(interval[1], where)
        end = math.inf if interval[2] is None else _seconds(interval[2], where)
        for command in interval[3].split(","):
            flags, side, value = _command(command.strip(), where)
            # A command without a flag is sent on entering.
            for flag, time in (("enter", start), ("leave", end)):
                if flag in flags and math.isfinite(time):
                    changes.append((time, index, side, value))
    rectangle: dict[str, float] = {}
    rows: dict[float, Keyframe] = {}
    changes.sort(key=lambda change: change[:2])
    for position, (time, _, side, value) in enumerate(changes):
        rectangle[side] = value
        if position + 1 < len(changes) and changes[position + 1][0] == time:
            continue
        missing = [key for key, what in SIDES.items() if what not in rectangle and key in {"x", "y", "w", "h"}]
        if missing:
            raise FramingError(
                f"{name}: at {time:g} s the crop is not known: crop {missing[0]} is not set by then",
                remedy=f"Set all of it at the first time: '{time:g} crop w 608, crop h 1080, crop x 0, crop y 0;'.",
            )
        rows[time] = Keyframe(time, rectangle["x"], rectangle["y"], rectangle["width"], rectangle["height"], hold=True)
    if not rows:
        raise FramingError(f"{name}: there are no commands for a crop filter")
    return Contents(keyframes=tuple(rows.values()), units=Units.PIXELS, time_unit=TimeUnit.SECONDS, form=NAME)


def _seconds(text: str, where: str) -> float:
    clock = seconds_of_clock(text) if ":" in text else None
    if clock is not None:
        return clock
    plain = text.rstrip("mus")
    factor = {"us": 1e6, "ms": 1e3}.get(text[len(plain) :], 1.0)
    try:
        value = float(plain) / factor
    except ValueError as error:
        raise FramingError(f"{where}: {show(text)} is no time") from error
    return number_of(value, f"{where}: its time", TIME)


def _command(text: str, where: str) -> tuple[set[str], str, float]:
    """When a command is sent, the side that it sets, and to what."""
    found = _COMMAND.fullmatch(text)
    if found is None:
        raise FramingError(f"{where}: {show(text)} is no command")
    flags = {flag.strip() for flag in found[1].replace("|", "+").split("+")} if found[1] else {"enter"}
    target, command, argument = found[2], found[3], found[4].strip().strip("'\"")
    if target.partition("@")[0].lower() not in {"crop", "parsed_crop_0"} and "crop" not in target.lower():
        raise FramingError(
            f"{where}: a command for {show(target)} cannot be followed", remedy="Keep those for crop alone."
        )
    if command not in SIDES:
        raise FramingError(f"{where}: crop has no command {show(command)}", remedy="It has w, h, x and y.")
    try:
        value = float(argument)
    except ValueError as error:
        raise FramingError(
            f"{where}: crop {command} is {show(argument)}, it must be a number",
            remedy="Expressions are not worked out: write the pixels that they come to.",
        ) from error
    if unknown := flags - {"enter", "leave"}:
        raise FramingError(f"{where}: the flag {show(min(unknown))} cannot be followed", remedy="Use enter or leave.")
    side = SIDES[command]
    return flags, side, number_of(value, f"{where}: crop {command}", SIDE if side in {"width", "height"} else ANY)
