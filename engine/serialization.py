"""Data classes as JSON, both ways: `dumps` and `loads`."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, TypeVar

import msgspec

from keyscale.engine.errors import UsageError

__all__ = ["as_json", "dumps", "loads"]

T = TypeVar("T")

# What `os.fsdecode` makes of bytes that are not UTF-8.
_UNDECODABLE = re.compile("[\ud800-\udfff]")


def _encode(value: Any) -> Any:
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, str):  # one that knows more than its text, as `engine.wording.Said`
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _decode(kind: type, value: Any) -> Any:
    if kind is Fraction:
        return Fraction(value)
    raise TypeError(f"{kind.__name__} has no JSON form")


def dumps(value: Any) -> str:
    """One line of JSON for any data class of the engine's; fractions become `"30000/1001"`."""
    return msgspec.json.encode(value, enc_hook=_encode).decode()


def loads(text: str | bytes, kind: type[T]) -> T:
    """The inverse of `dumps`.

    Raises:
        UsageError: not JSON, or not the fields of `kind`.
    """
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=_decode)
    except msgspec.MsgspecError as error:
        raise UsageError(f"not a {kind.__name__}: {error}") from error


def as_json(value: Any) -> str:
    """One line of JSON, as of `dumps`, whatever names are in it.

    JSON has no form for the bytes of a name that is not UTF-8, and any parser must be able to read the line: such a
    byte becomes the text `\\udcXX` (a backslash and five characters, XX being the byte).
    """
    try:
        return dumps(value)
    except UnicodeEncodeError:
        return dumps(_escaped(msgspec.to_builtins(value, enc_hook=_encode)))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return _UNDECODABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    if isinstance(value, dict):
        return {name: _escaped(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(part) for part in value]
    return value
