"""Sentences that name options, so that each surface can name them in its own words.

The engine doesn't know who asked: on the command line an option is `--crf`, in a program `crf`, in a settings file a
key. What it says is therefore a `Said`: a plain text that names flags, with the options in it kept apart from the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

__all__ = ["Named", "Said", "Surface", "as_argument", "as_data", "as_flag", "from_data", "say", "worded"]


@dataclass(frozen=True, slots=True)
class Named:
    """An option in a sentence, with the value that the sentence gives it, if any."""

    name: str
    """As of the Python API: `bit_depth`."""
    value: object = None


Surface = Callable[[Named], str]
"""How a surface writes an option."""

_SPELLED = {"video": "VIDEO", "keyframes": "KEYFRAMES.json", "output": "-o"}
_OPPOSITES = {"remote": "--local"}
"""What isn't written as `--name` and `--no-name`; a test compares them with the flags that there are."""


def as_flag(named: Named) -> str:
    """`--crf`, `--codec av1`, `--no-audio`."""
    flag = _SPELLED.get(named.name) or f"--{named.name.replace('_', '-')}"
    match named.value:
        case None | True:
            return flag
        case False:
            return _OPPOSITES.get(named.name) or f"--no-{flag[2:]}"
        case _:
            return f"{flag} {named.value}"


def as_argument(named: Named) -> str:
    """`crf`, `codec="av1"`, `audio=False`."""
    match named.value:
        case None:
            return named.name
        case str():
            return f'{named.name}="{named.value}"'
        case _:
            return f"{named.name}={named.value}"


class Said(str):
    """A text that names options; as it stands it names them as flags."""

    __slots__ = ("parts",)
    parts: tuple[str | Named, ...]

    def __new__(cls, parts: Sequence[str | Named]) -> Said:
        """A text of these parts, in their order."""
        said = super().__new__(cls, "".join(part if isinstance(part, str) else as_flag(part) for part in parts))
        said.parts = tuple(parts)
        return said

    def __reduce__(self) -> tuple[Any, ...]:
        return Said, (self.parts,)


def say(template: str, *values: object) -> Said:
    """A sentence with options in it: `say("{crf} {} is out of range for {codec=}", 60, codec)`.

    Args:
        template: `{name}` is an option, `{name=value}` one with a value, `{name=True}` a switch; `{}` takes the next of
            `values` as text, `{name=}` as an option's value.
        values: put in as they are, whatever is in them; a `Named` or a `Said` stays one.
    """
    parts: list[str | Named] = []
    due = iter(values)
    for text, field, _, _ in Formatter().parse(template):
        parts.append(text)
        if field is None:
            continue
        name, equals, value = field.partition("=")
        if name:
            given = (value or str(next(due))) if equals else None
            parts.append(Named(name, {"True": True, "False": False}.get(given, given) if given else None))
            continue
        match next(due):
            case Said() as said:
                parts += said.parts
            case Named() as named:
                parts.append(named)
            case other:
                parts.append(str(other))
    return Said([part for part in parts if part != ""])


def worded(text: str, surface: Surface) -> str:
    """The text as a surface words it; one that names no option is itself."""
    if not isinstance(text, Said):
        return text
    return "".join(part if isinstance(part, str) else surface(part) for part in text.parts)


def as_data(text: str | None) -> list[Any] | None:
    """The parts of a text that names options, as plain data for another process; None for any other."""
    if not isinstance(text, Said):
        return None
    return [part if isinstance(part, str) else [part.name, part.value] for part in text.parts]


def from_data(data: object) -> Said | None:
    """The inverse of `as_data`; None for what is of another form."""
    if not isinstance(data, list) or not all(isinstance(part, str) or _is_named(part) for part in data):
        return None
    return Said([part if isinstance(part, str) else Named(*part) for part in data])


def _is_named(part: object) -> bool:
    return isinstance(part, list) and len(part) == 2 and isinstance(part[0], str)
