"""Keyframes that cannot be meant as they are written: an error that names the unit which they are likely in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.contents import LARGEST, Units
from keyscale.engine.camera.framing import Framing
from keyscale.engine.errors import FramingError
from keyscale.engine.job import Trim

__all__ = ["refuse_misread_coordinates", "refuse_misread_times"]

Floats = npt.NDArray[np.float64]

NO_PIXELS = 1.25
"""Pixels of the largest side up to which nobody means pixels, while a camera may reach as far over the whole frame."""

BESIDE = 1.0
"""Parts of the frame by which a camera may reach over its borders."""

PERCENT = (-5.0, 105.0)
"""What percent may come to: editors let the camera reach a little over the borders."""

LARGER = 1.5
"""Whole frames of a side beyond which parts of the frame are taken for pixels; what is smaller may be a slip."""

_WHOLE = {Units.NORMALIZED: 1, Units.PERCENT: 100}

SMALL_SIDE = 300
"""Pixels of the frame's shorter side, below which a rectangle within 100 pixels of the corner may well be meant."""

FAR_BEYOND, VERY_FAR_BEYOND = 5, 40
"""How many times the clip's length whole numbers, and any, have to reach before they are taken for another unit."""

MOST_OF_IT = 0.5
"""Part of the clip that frame numbers have to span, and other times where none lies in the clip as written."""


def refuse_misread_coordinates(framing: Framing, size: tuple[int, int] | None = None) -> None:
    """Raise a `FramingError` for coordinates that nobody means in the declared units, or as pixels where none are.

    Args:
        framing: as it was read.
        size: width and height of the displayed picture; None where there is no video to compare with.
    """
    rects = framing.keyframe_rects
    if framing.units in _WHOLE:
        side, whole = float(rects[:, 2:].max()), _WHOLE[framing.units]
        if side > LARGER * whole:
            percent = whole == 1 and side <= PERCENT[1]
            likely = Units.PERCENT if percent else Units.PIXELS
            raise FramingError(
                f"units are declared as {framing.units}, where {whole} is the whole frame, and a rectangle has a side "
                f"of {side:g}: are these {likely}?",
                remedy=_declared(framing, "units", likely) + (", or pixels if they are pixels." if percent else "."),
            )
        if framing.units is Units.PERCENT and side <= NO_PIXELS:
            raise FramingError(
                f"units are declared as percent, and no rectangle has a side above {side:g}: are these parts of the "
                "frame?",
                remedy=f"{_declared(framing, 'units', 'normalized')}.",
            )
    if framing.units is not None:
        return
    low = float(rects[:, :2].min())
    ends = rects[:, :2] + rects[:, 2:]
    high = float(ends.max())
    if rects[:, 2:].max() <= NO_PIXELS and low >= -BESIDE and high <= 1 + BESIDE:
        raise FramingError(
            f"all coordinates lie within {_reach(low, high, 1)}: are these parts of the frame?",
            remedy=f"{_declared(framing, 'units', 'normalized')}, or pixels if they are pixels.",
        )
    if size is None or min(size) < SMALL_SIDE or framing.source is not None:
        return
    # Pixels that all lie in the corner, and yet reach far across a hundred: a full height is 100.
    fits = low >= PERCENT[0] and high <= PERCENT[1]
    if fits and (ends.max(axis=0) > 50).all() and rects[:, 2:].max() > 20:
        raise FramingError(
            f"all coordinates lie within {_reach(low, high, 100)} of a {size[0]}x{size[1]} frame: are these percent?",
            remedy=f"{_declared(framing, 'units', 'percent')}, or pixels if they are pixels.",
        )


def _reach(low: float, high: float, whole: int) -> str:
    """From where to where coordinates reach: `0..1`, or where they reach over it, how far."""
    return f"{min(low, 0.0):.4g}..{max(high, whole):.4g}"


def refuse_misread_times(framing: Framing, duration: float, rate: float, trim: Trim | None = None) -> None:
    """Raise a `FramingError` for times that nobody means as seconds, unless the file declares their unit.

    Args:
        framing: as it was read.
        duration: seconds of the source.
        rate: its frames a second.
        trim: what a flag says of the trim, which stands above the file's.
    """
    if framing.time_unit is not None or duration <= 0:
        return
    times = np.array([k.time for k in framing.keyframes], dtype=np.float64)
    if len(times) > 1:
        guess = _unit_of(times, duration, rate)
        if guess is not None:
            words, unit = guess
            raise FramingError(
                f"the keyframes' times reach {times.max():g} s, and the video lasts {duration:.3f} s: "
                f"are these {words}?",
                remedy=f"{_declared(framing, 'time_unit', unit)}{_with_fps(unit)}, or s if they are seconds.",
            )
    flags = trim or Trim()
    cuts = [
        float(value)
        for value, flag in ((framing.trim.start, flags.start), (framing.trim.end, flags.end))
        if value is not None and flag is None
    ]
    # The last stretch of editors that store splits ends nowhere, and one that begins in the clip may end beyond it.
    beyond = any(s.start >= duration for s in framing.segments)
    edges = [edge for s in framing.segments for edge in (s.start, s.end) if edge < LARGEST] if beyond else []
    for what, found in (("trim reaches", cuts), ("segments reach", edges)):
        guess = _unit_of(np.array(found), duration, rate, whole=False) if found else None
        if guess is not None:
            words, unit = guess
            raise FramingError(
                f"the {what} {max(found):g} s, and the video lasts {duration:.3f} s: are these {words}?",
                remedy=f"Write seconds. Where all times of the file are {words}: "
                f"{_declared(framing, 'time_unit', unit)}{_with_fps(unit)}; or s if they are seconds.",
            )


def _unit_of(times: Floats, duration: float, rate: float, *, whole: bool = True) -> tuple[str, str] | None:
    """The unit that times are likely in, in words and as it is declared; None where they may be seconds.

    Args:
        times: as seconds `(N,)`.
        duration: seconds of the source.
        rate: its frames a second.
        whole: they are expected to span most of the clip.
    """
    first, last = float(times.min()), float(times.max())
    # Keyframes are often set at the very end, which is a frame or so beyond the last one.
    fits = duration * 1.05 + 2 / rate

    def spans(count: float) -> bool:
        # Where no keyframe lies in the clip as it is written, they may be those of a longer video.
        return not whole or first <= duration or (last - first) / count >= MOST_OF_IT * duration

    most_of_it = not whole or last / rate >= MOST_OF_IT * duration
    if (times == np.rint(times)).all() and FAR_BEYOND * duration <= last <= fits * rate and most_of_it and spans(rate):
        also_ms = last >= VERY_FAR_BEYOND * duration
        return ("frame numbers or milliseconds" if also_ms and spans(1e3) else "frame numbers"), "frames"
    for words, name, count in (("milliseconds", "ms", 1e3), ("microseconds", "us", 1e6)):
        # A trim to 9999 is meant as the end of any clip, not as a hundredth of a second.
        least = VERY_FAR_BEYOND * duration * (1 if whole else count / 1e3)
        if least <= last <= fits * count and spans(count):
            return words, name
    return None


def _with_fps(unit: str) -> str:
    return " (with fps, where it is not the video's own rate)" if unit == "frames" else ""


def _declared(framing: Framing, key: str, value: str) -> str:
    """How a file of its format declares what it counts."""
    if framing.form == "CSV":
        return f'Write a first line "# {key}: {value}"'
    if framing.form == "JSON Lines":
        return f'Write a first line {{"{key}": "{value}"}}'
    if framing.form == "a list of keyframes":
        return f'Write {{"{key}": "{value}", "keyframes": [...]}}'
    return f'Say "{key}": "{value}" beside the keyframes'
