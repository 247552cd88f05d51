"""Times, sizes and rates, in the ways in which people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational
from typing import ClassVar

from keyscale.engine.errors import UsageError
from keyscale.engine.forms import LARGEST_WHOLE, Form, Number, Refused, ValueKind, is_whole, quoted, short
from keyscale.engine.rates import NTSC
from keyscale.engine.wording import say

__all__ = ["MAX_SIDE", "Rate", "Relative", "Samples", "Size", "Stretches", "Time"]

MAX_SIDE = 16384
"""Largest target width or height in pixels (the limit of HEVC level 6.2 and of AV1 in common decoders)."""


class Time(Number):
    """Seconds; people may write minutes and hours too."""

    kind = ValueKind.TEXT
    metavar = "TIME"

    _number = r"\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}"
    _seconds = re.compile(_number, re.ASCII)
    _clock = re.compile(r"(?:(\d{1,5}):([0-5]?\d)|(\d{1,7})):([0-5]?\d(?:\.\d{0,9})?)", re.ASCII)
    _units = re.compile(
        rf"(?=.)(?:(\d{{1,5}}) ?h)? ?(?:(\d{{1,7}}) ?m(?:in)?)? ?(?:({_number}) ?s)? ?(?:(\d{{1,9}}) ?ms)?", re.ASCII
    )

    def read(self, text: str) -> float:
        """`"90"`, `"1.5"`, `"1,5"`, `"1:30"`, `"0:01:30.250"`, `"1m30s"` or `"250ms"` -> seconds."""
        written = text.strip().lower()
        if re.fullmatch(r"\d+,\d{3}", written):
            raise Refused(
                f"{quoted(text.strip())} may mean thousands or a fraction",
                f"Write {written.replace(',', '')} or {written.replace(',', '.')}.",
            )
        written = written.replace(",", ".") if written.count(",") == 1 and "." not in written else written
        if self._seconds.fullmatch(written):
            return float(written)
        if found := self._clock.fullmatch(written):
            hours, minutes, long_minutes, seconds = found.groups()
            return 3600 * int(hours or 0) + 60 * int(minutes or long_minutes) + float(seconds)
        if found := self._units.fullmatch(written):
            hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
            return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
        raise Refused(
            f"{quoted(text.strip())} is not a time", "Write seconds such as 12.5, or MM:SS, or H:MM:SS.mmm, or 1m30s."
        )


@dataclass(frozen=True)
class Samples:
    """How many stretches of a result, and of how many seconds each."""

    count: int
    seconds: float


class Stretches(Form):
    """A number of stretches and their length in seconds."""

    metavar = "S|NxS"
    _written = re.compile(r"(?:(\d{1,3}) ?[x\u00d7*] ?)?(\d{1,4}(?:[.,]\d{1,3})?) ?s?", re.ASCII)

    def read(self, text: str) -> Samples:
        """`"5"` or `"3x2"` -> how many, and seconds."""
        found = self._written.fullmatch(text.strip().lower())
        samples = Samples(int(found[1] or 1), float(found[2].replace(",", "."))) if found else None
        if samples is None or not samples.count or not samples.seconds:
            raise Refused(
                f"{quoted(text.strip())} is not a length",
                "Write seconds, such as 5, or how many stretches of how many seconds: 3x2.",
            )
        return samples


@dataclass(frozen=True)
class Relative:
    """What a size is made of where it depends on what the camera sees: its own shape or another one, and how often."""

    shape: Fraction | None
    """Width divided by height; None is the camera's."""
    factor: float | None
    """Pixels of the result to one that the camera sees; None is the network's scale."""

    @classmethod
    def of(cls, text: str) -> Relative | None:
        """What `"9:16"` or `"2x"` means, as `Size.read` gives it; None for anything else."""
        if found := _SHAPE.fullmatch(text):
            sides = Fraction(found[1]), Fraction(found[2])
            return cls(sides[0] / sides[1], None) if all(0 < side < _SHAPES for side in sides) else None
        found = _FACTOR.fullmatch(text)
        factor = float(found[1] or found[2]) if found else 0.0
        return cls(None, factor) if 0 < factor <= LARGEST_FACTOR else None


_SHAPE = re.compile(r"(\d{1,4}(?:\.\d{1,4})?) ?[:/] ?(\d{1,4}(?:\.\d{1,4})?)", re.ASCII)
_FACTOR = re.compile(r"(\d{1,3}(?:\.\d{1,4})?) ?[x\u00d7]|[x\u00d7] ?(\d{1,3}(?:\.\d{1,4})?)", re.ASCII)

_SHAPES = 100
"""Below it both sides are a shape, such as 9:16, and no size that anybody wants."""

LARGEST_FACTOR = 16.0


class Size(Form):
    """Width and height in pixels, or what they are made of once it is known what the camera sees."""

    metavar = "WxH|W:H|Nx|NAME"
    annotation = "tuple[int, int] | str"
    must_be = 'two whole numbers, width and height, or text such as "1080x1920", "9:16" or "2x"'
    named: ClassVar = dict.fromkeys(("reel", "short", "story", "tiktok"), (1080, 1920)) | {
        "portrait": (1080, 1350),
        "square": (1080, 1080),
        "720p": (1280, 720),
        "1080p": (1920, 1080),
        "1440p": (2560, 1440),
        "2160p": (3840, 2160),
        "4k": (3840, 2160),
        "8k": (7680, 4320),
    }
    """Sizes that go by a name; `NNNNp` lies on its side, as everywhere."""
    words = (*named, "9:16", "2x")

    _other_names: ClassVar = {"uhd": "4k", "fhd": "1080p", "fullhd": "1080p", "full hd": "1080p", "qhd": "1440p"}
    _pair = re.compile(r"(\d+) ?[x\u00d7*:,] ?(\d+)", re.ASCII)

    def read(self, text: str) -> tuple[int, int] | tuple[int, int, str]:
        """`"1080x1920"`, also with the multiplication sign or FFmpeg's colon, or `"reel"` -> `(1080, 1920)`.

        `"9:16"` and `"2x"` -> `(0, 0, "9:16")`, `(0, 0, "2x")`: what `Relative.of` reads.
        """
        word = text.strip().lower()
        if (name := self._other_names.get(word, word)) in self.named:
            return self.named[name]
        if Relative.of(word) is not None:
            return 0, 0, word.replace(" ", "").replace("\u00d7", "x").replace("/", ":")
        remedy = (
            "Write WIDTHxHEIGHT, such as 1080x1920; a shape, such as 9:16; 2x for twice what the camera sees; or "
            f"{', '.join(self.named)}."
        )
        found = self._pair.fullmatch(word)
        if not found:
            if word.isascii() and word.isdigit():
                raise Refused(f"{quoted(text)} is one side, and a size has two", remedy)
            raise Refused(f"{quoted(text)} is not a size", remedy)
        return int(found[1][:9]), int(found[2][:9])

    def take(self, value: object) -> tuple[int, int] | tuple[int, int, str]:
        if isinstance(value, str):
            return self.read(value)
        sides = list(value) if isinstance(value, Sequence) else []
        return (int(sides[0]), int(sides[1])) if len(sides) == 2 and all(map(is_whole, sides)) else self.refuse(value)

    def check(self, value: tuple[int, int] | tuple[int, int, str]) -> None:
        if len(value) > 2:
            return
        for name, side in zip(("width", "height"), value, strict=True):
            if not 2 <= side <= MAX_SIDE:
                raise UsageError(
                    f"target {name} {short(side)} is out of range",
                    remedy=say("Give {size} WIDTHxHEIGHT with both sides from 2 to {}.", MAX_SIDE),
                )
            if side % 2:
                raise UsageError(
                    f"target {name} {side} is odd, and 4:2:0 video has even sides only",
                    remedy=f"Use {side - 1} or {side + 1}.",
                )

    def written(self, value: tuple[int, int] | tuple[int, int, str]) -> str:
        return value[2] if len(value) > 2 else f"{value[0]}x{value[1]}"


class Rate(Form):
    """Frames a second as a fraction; None keeps the source's."""

    metavar = "RATE"
    words = ("source", "24", "25", "29.97", "30", "50", "60")
    annotation = "float | Fraction | str"
    must_be = 'a number, a Fraction, or text such as "30000/1001" or "source"'
    none = "source"
    _remedy = "Write 30, 30000/1001 or source."

    def read(self, text: str) -> Fraction | None:
        """`"30"`, `"30fps"`, `"29.97"` or `"29,97"` (an NTSC rate by its usual name), `"30000/1001"` -> that rate.

        `"source"` -> None.
        """
        given, text = text, re.sub(r" ?(fps|hz)$", "", text.strip().lower())
        if text == self.none:
            return None
        if re.fullmatch(r"\d+,\d+", text):
            text = text.replace(",", ".")
        # An exponent such as 1e999999999 would be worked out digit by digit.
        if len(text) > 32 or "e" in text.lower():
            raise Refused(f"{text[:32]!r} is not a rate", self._remedy)
        try:
            rate = Fraction(NTSC[text] * 1000, 1001) if text in NTSC else Fraction(text)
        except (ValueError, ZeroDivisionError) as error:
            raise Refused(f"{quoted(given)} is not a rate", self._remedy) from error
        if not 1 <= rate <= 480:
            raise Refused(f"{text} is out of range", "Give 1 to 480 frames a second.")
        return rate.limit_denominator(1_000_000)

    def take(self, value: object) -> Fraction | None:
        if isinstance(value, bool) or not isinstance(value, str | float | Rational):
            self.refuse(value)
        if isinstance(value, Rational):
            exact = Fraction(int(value.numerator), int(value.denominator))
            if abs(exact) > LARGEST_WHOLE:
                self.refuse(value)
            rate = exact.limit_denominator(1_000_000)
            return self.read(f"{rate.numerator}/{rate.denominator}")
        # By its shortest text, so that 29.97 is the NTSC rate here as it is there.
        return self.read(value if isinstance(value, str) else repr(float(value)))

    def written(self, value: Fraction | None) -> str:
        return "source" if value is None else str(value)

    def given_as(self, value: Fraction | None) -> object:
        return int(value) if value is not None and value.denominator == 1 else super().given_as(value)
