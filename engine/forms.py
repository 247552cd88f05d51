"""What the value of an option can be: how people write it, what a program may give, and what is wrong with it."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn, TypeGuard

__all__ = [
    "LARGEST_WHOLE",
    "LOOKS",
    "SMALLEST_TILE",
    "Choice",
    "Device",
    "Dial",
    "Form",
    "Look",
    "Model",
    "Number",
    "Path",
    "Refused",
    "Switch",
    "Text",
    "Tile",
    "ValueKind",
    "Whole",
    "is_whole",
    "quoted",
    "short",
]

SMALLEST_TILE = 32
"""Side in source pixels; in smaller tiles the network's context is nearly all there is."""

LARGEST_WHOLE = 2**1023
"""Beyond it a float holds no number, and Python refuses to write some thousands of digits into a message."""


LOOKS = {"natural": 0.0, "balanced": 0.75, "crisp": 1.0}
"""The looks that have names, as shares of the crisp end; a job that asks for none is balanced. Its share is a little
past the best by VMAF, as a viewer preferred it (tools/training/README.md, "Shares")."""


class ValueKind(StrEnum):
    """What a value has to be in a settings file; the texts are those of messages."""

    TEXT = "text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    YES_NO = "true or false"
    CHOICE = "one of"
    PATH = "a path"
    MODEL = "a model's name or path"


class Refused(ValueError):
    """What is wrong with a value, to stand behind the option's name."""

    def __init__(self, why: str, remedy: str | None = None) -> None:
        super().__init__(why)
        self.why, self.remedy = why, remedy


class _Short(reprlib.Repr):
    """As `reprlib.repr`, for integers of any length too."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) <= LARGEST_WHOLE else f"an integer of {x.bit_length()} bits"


short = _Short().repr
"""A value in a message, however large it is."""


def quoted(text: str) -> str:
    """The beginning of a text in a message."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


class Form:
    """A kind of value. `read` and `take` raise `Refused`, `check` what is wrong with a value of any origin."""

    kind: ClassVar[ValueKind] = ValueKind.TEXT
    metavar: str = "TEXT"
    annotation: str = "str"
    """Its type in the signature of the Python API."""
    must_be: str = "text"
    """What a program has to give."""
    none: str | None = None
    """The word for the value None, where it is one that can be asked for."""
    words: tuple[str, ...] = ()
    """What is likely to be asked for, for shells that complete it."""

    def read(self, text: str) -> Any:
        """The value that this text stands for."""
        return text

    def take(self, value: object) -> Any:
        """The value of what a program gives."""
        if not isinstance(value, str):
            self.refuse(value)
        return value

    def check(self, value: Any) -> None:
        """Raise `Refused` where no job can have this value."""

    def written(self, value: Any) -> Any:
        """The value as people write it: text, a number, or yes or no; None where it is left to the job."""
        return self.none if value is None else value

    def given_as(self, value: Any) -> Any:
        """The value as a program would give it: the inverse of `take`."""
        return self.none if value is None else value

    def refuse(self, value: object) -> NoReturn:
        """Raise `Refused` for what a program gave."""
        raise Refused(f"is {short(value)}", f"It must be {self.must_be}.")


class Switch(Form):
    """Yes or no."""

    kind = ValueKind.YES_NO
    metavar = ""
    annotation = "bool"
    must_be = "True or False"

    _words: ClassVar = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True) | dict.fromkeys(
        ("0", "false", "f", "no", "n", "off"), False
    )

    def read(self, text: str) -> bool:
        found = self._words.get(text.strip().lower())
        if found is None:
            raise Refused(f"{quoted(text)} is neither true nor false", "Give true or false.")
        return found

    def take(self, value: object) -> bool:
        return value if isinstance(value, bool) else self.refuse(value)


class Choice(Form):
    """One of the words of an enumeration."""

    kind = ValueKind.CHOICE

    def __init__(self, kind: type[StrEnum]) -> None:
        self._kind = kind
        self.words = tuple(item.value for item in kind)
        self.metavar = f"<{'|'.join(self.words)}>"
        *most, last = (f'"{word}"' for word in self.words)
        self.annotation = f"Literal[{', '.join([*most, last])}]"
        self.must_be = f"{', '.join(most)} or {last}"

    def read(self, text: str) -> StrEnum:
        try:
            return self._kind(text.strip().lower())
        except ValueError:
            near = get_close_matches(text.strip().lower(), self.words, n=1)
            meant = f"Did you mean {near[0]}?" if near else None
            raise Refused(f"{quoted(text)} is not one of {', '.join(map(repr, self.words))}", meant) from None

    def take(self, value: object) -> StrEnum:
        try:
            return self._kind(value if isinstance(value, str) else "")
        except ValueError:
            self.refuse(value)

    def written(self, value: StrEnum) -> str:
        return value.value

    given_as = written


class Whole(Form):
    """A whole number; `offered` are the only ones that there are, if any."""

    kind = ValueKind.WHOLE
    metavar = "N"
    must_be = "a whole number"

    def __init__(self, offered: Sequence[int] = ()) -> None:
        self._offered = tuple(offered)
        self.annotation = f"Literal[{', '.join(map(str, offered))}]" if offered else "int"
        if offered:
            self.metavar = "|".join(map(str, offered))

    def read(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise Refused(f"{quoted(text)} is not a whole number") from None

    def take(self, value: object) -> int:
        return int(value) if is_whole(value) else self.refuse(value)

    def check(self, value: int) -> None:
        if self._offered and value not in self._offered:
            raise Refused(f"{short(value)} is not supported", f"Give {' or '.join(map(str, self._offered))}.")


class Number(Form):
    """Any number."""

    kind = ValueKind.NUMBER
    metavar = "X"
    annotation = "float"
    must_be = "a number"

    def read(self, text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            raise Refused(f"{quoted(text)} is not a number") from None

    def take(self, value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, Real):
            self.refuse(value)
        try:
            return float(value)
        except OverflowError:
            raise Refused(f"is {short(value)}", "It must be a number that a float holds.") from None


class Text(Form):
    """Any text but none at all."""

    def check(self, value: str) -> None:
        if not value.strip() or "\0" in value:
            raise Refused("holds a zero byte" if value.strip() else "is empty")


class Path(Text):
    """The name of a file or folder; in a settings file it is relative to that file."""

    kind = ValueKind.PATH
    metavar = "FILE"
    annotation = "str | PathLike[str]"
    must_be = "a path as text, or an object such as pathlib.Path"

    def take(self, value: object) -> str:
        found = os.fspath(value) if isinstance(value, str | os.PathLike) else value
        return found if isinstance(found, str) else self.refuse(value)


class Model(Path):
    """A network's name, or a checkpoint's path."""

    kind = ValueKind.MODEL


class Tile(Form):
    """Side of a tile in source pixels; None follows the memory."""

    metavar = "auto|N"
    words = ("auto",)
    annotation = 'int | Literal["auto"]'
    must_be = '"auto", or a whole number of source pixels, 0 or more'
    none = "auto"
    _remedy = f"Give auto, 0 (never tile), or {SMALLEST_TILE} or more source pixels."

    def read(self, text: str) -> int | None:
        if text.lower() == self.none:
            return None
        if not (text.isascii() and text.isdigit()):
            raise Refused(f"{quoted(text)} is not a tile size", self._remedy)
        return int(text[:9])

    def take(self, value: object) -> int | None:
        if isinstance(value, str) and value == self.none:
            return None
        return int(value) if is_whole(value) and int(value) >= 0 else self.refuse(value)

    def check(self, value: int) -> None:
        if value != 0 and value < SMALLEST_TILE:
            raise Refused(f"{value} is too small", self._remedy)

    def written(self, value: int | None) -> str:
        return "auto" if value is None else str(value)


class Dial(Number):
    """How much of something: 0 to 1, where 0 is off; None is for the program to find out."""

    kind = ValueKind.TEXT
    metavar = "auto|off|0..1"
    words = ("auto", "off")
    annotation = 'float | Literal["auto", "off"]'
    must_be = '"auto", "off", or a number from 0 to 1'
    none = "auto"
    _remedy = "Give auto, off, or a number from 0 to 1."

    def read(self, text: str) -> float | None:
        word = text.strip().lower()
        if word in self.words:
            return 0.0 if word == "off" else None
        try:
            return float(word)
        except ValueError:
            raise Refused(f"{quoted(text)} is neither auto nor off nor a number", self._remedy) from None

    def take(self, value: object) -> float | None:
        return self.read(value) if isinstance(value, str) and value in self.words else super().take(value)

    def check(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise Refused(f"{short(value)} is out of range", self._remedy)

    def written(self, value: float | None) -> str | float:
        return "auto" if value is None else value or "off"

    given_as = written


class Device(Form):
    """Where a network runs."""

    metavar = "DEVICE"
    words = ("auto", "gpu", "cpu", "cuda", "mps", "intel", "webgpu")
    _known = re.compile(r"auto|gpu|cpu|mps|webgpu|(?:cuda|intel)(?::\d{1,3})?", re.ASCII)

    def read(self, text: str) -> str:
        return text.strip().lower()

    def take(self, value: object) -> str:
        return self.read(super().take(value))

    def check(self, value: str) -> None:
        if not self._known.fullmatch(value):
            raise Refused(
                f"{quoted(value)} is not a device",
                "Give auto, gpu, cpu, cuda, mps, intel or webgpu, or cuda:N such as cuda:0.",
            )


class Look(Form):
    """Where between a network's natural (0) and crisp end (1)."""

    metavar = "LOOK"
    words = tuple(LOOKS)
    annotation = 'float | Literal["natural", "balanced", "crisp"]'
    must_be = '"natural", "balanced", "crisp", or a number from 0 to 1'
    _names: ClassVar = {share: name for name, share in LOOKS.items()}

    def read(self, text: str) -> float:
        try:
            return float(LOOKS.get(text.strip().lower(), text))
        except ValueError:
            near = get_close_matches(text.strip().lower(), LOOKS, n=1)
            remedy = f"Did you mean {near[0]}?" if near else "Give natural, balanced, crisp, or a number from 0 to 1."
            raise Refused(f"{quoted(text)} is not a look", remedy) from None

    def take(self, value: object) -> float:
        if isinstance(value, str) and value in LOOKS:
            return LOOKS[value]
        if isinstance(value, bool) or not isinstance(value, Real):
            self.refuse(value)
        return float(value)

    def written(self, value: float) -> str | float:
        return self._names.get(value, value)

    given_as = written


def is_whole(value: object) -> TypeGuard[Integral]:
    """Whether a program gave a whole number that can be used."""
    # A bool is an int to Python; NumPy's integers are none.
    return not isinstance(value, bool) and isinstance(value, Integral) and abs(int(value)) <= LARGEST_WHOLE
