"""Size, shape and rate of a result, and the part of the source that it shows: options of a `Job`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fractions import Fraction

from keyscale.engine import quantities
from keyscale.engine.choices import Fit
from keyscale.engine.options import check_fields, option

__all__ = ["Target", "Trim"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Size, shape and rate of the result."""

    width: int = option(
        1080,
        "Size of the result, both sides even; or a shape (9:16), a factor (2x) of what the camera sees, or a name: "
        "reel, square, 4k, ...",
        "Framing",
        name="size",
        form=quantities.Size(),
        together=("height", "relative"),
        docs="size of the result; both sides even, 2 to 16384; or a shape (`9:16`) or factor (`2x`), see "
        "[below](#sizes-that-follow-the-camera); or `reel`, `short`, `story`, `tiktok` (1080x1920), "
        "`portrait` (1080x1350), `square` (1080x1080), `720p`, `1080p`, `1440p`, `2160p`, `4k` (3840x2160), `8k`",
        python="Width and height of the result in pixels, both even, 2 to 16384; or text: '1080x1920', "
        "'9:16', '2x', 'reel'.",
    )
    height: int = 1920
    relative: str | None = None
    """What the plan makes width and height of, as `quantities.Relative.of` reads it; None where they are given."""
    fit: Fit = option(
        Fit.COVER,
        "If the camera and {size} differ in shape: crop to fill, pad with bars, or distort.",
        "Framing",
        docs="if the camera and the size differ in shape: crop the camera about its centre, pad with black bars, or "
        "distort",
    )
    rate: Fraction | None = option(
        Fraction(30),
        "Exact frame rate of the result: 30, 30000/1001, 29.97, or source.",
        "Framing",
        name="fps",
        form=quantities.Rate(),
        python="Exact frame rate of the result: 30, Fraction(30000, 1001), 29.97 (NTSC rates are read as their exact "
        "fractions), text such as '30000/1001', or 'source'.",
        docs="exact frame rate of the result: `30`, `30000/1001`, `29.97` (NTSC rates are read as their exact "
        "fractions), or `source`",
    )
    """Frames a second; None keeps the source's rate."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def aspect(self) -> float:
        """Width divided by height."""
        return self.width / self.height


@dataclass(frozen=True, kw_only=True)
class Trim:
    """Part of the source to use, in seconds; None is the source's own end."""

    start: float | None = option(
        None,
        "Start at this time of the source: seconds, MM:SS or H:MM:SS.mmm.",
        "Input",
        form=quantities.Time(),
        between=(0, sys.float_info.max),
        remedy="Give seconds from 0 on.",
        docs="start at this time of the source: `90`, `1:30` or `0:01:30.250`",
        python="Start at this second of the source. None is the keyframes file's trim, else 0.",
        default_docs="the keyframes file's trim, else 0",
    )
    end: float | None = option(
        None,
        "End at this time of the source, written like {start}.",
        "Input",
        form=quantities.Time(),
        between=(0, sys.float_info.max),
        remedy="Give seconds from 0 on.",
        docs="end at this time of the source",
        python="End at this second of the source. None is the keyframes file's trim, else the source's end.",
        default_docs="the keyframes file's trim, else the end",
    )
