"""Keyframes files that are made to exhaust memory, time or the stack, or to get something past the checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

__all__ = ["HostileFraming", "hostile_framings"]

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class HostileFraming:
    """A file to be written, and how the command has to end."""

    name: str
    content: Callable[[], bytes]
    works: bool = False
    """It is a valid file, however odd: the job has to succeed."""
    says: str | None = None
    seconds: float = 60.0
    peak_mib: int = 512


def _rectangle(**more: object) -> dict[str, object]:
    return {"time": 0, "x": 0, "y": 0, "width": 32, "height": 24} | more


def _with(field: str, literal: str, count: int = 1, before: str = "", after: str = "") -> Callable[[], bytes]:
    """One keyframe with a field as it stands in the text, unquoted: `literal` so many times between two others."""

    def content() -> bytes:
        text = json.dumps([_rectangle(**{field: "HERE"})])
        return text.replace('"HERE"', before + literal * count + after).encode()

    return content


def _times(piece: str, count: int, head: str = "", tail: str = "") -> Callable[[], bytes]:
    """`piece` over and over between `head` and `tail`."""

    def content() -> bytes:
        return (head + piece * count + tail).encode()

    return content


def _many(count: int, keyframe: Callable[[int], str], head: str = "[", tail: str = "]") -> Callable[[], bytes]:

    def content() -> bytes:
        return (head + ",".join(keyframe(n) for n in range(count)) + tail).encode()

    return content


def _pan(n: int) -> str:
    return f'{{"time":{n / 1e6:.6f},"x":{n % 32},"y":1,"width":32,"height":24}}'


def _long(**more: object) -> Callable[[], bytes]:
    return json.dumps({"keyframes": [_rectangle()]} | more).encode


def _large() -> Iterator[HostileFraming]:
    yield HostileFraming(
        name="100 MB of keyframes",
        content=lambda: _many(1_900_000, _pan)().ljust(100_000_000),
        says="larger than 64 MiB",
    )
    yield HostileFraming(name="100 MB of spaces", content=lambda: b" " * 100_000_000, says="larger than 64 MiB")
    yield HostileFraming(name="64 MiB of spaces", content=lambda: b" " * (64 * MIB), says="empty")
    for interpolation in ("linear", "smooth", "catmull-rom"):
        head = f'{{"interpolation":"{interpolation}","keyframes":['
        yield HostileFraming(
            name=f"a million keyframes, {interpolation}",
            content=_many(1_000_000, _pan, head, "]}"),
            works=True,
            seconds=240,
            peak_mib=1024,
        )
    yield HostileFraming(
        name="a million keyframes at one time",
        content=_many(1_000_000, lambda n: f'{{"time":0,"x":{n % 32},"y":1,"width":32,"height":24}}'),
        works=True,
        seconds=240,
        peak_mib=1024,
    )
    yield HostileFraming(
        name="a hundred thousand segments",
        content=_many(
            100_000,
            lambda n: f'{{"start":{n / 1e5:.5f},"end":{n / 1e5 + 5e-6:.6f},"speed":{0.5 + n % 3}}}',
            '{"keyframes":[{"time":0,"x":0,"y":0,"width":32,"height":24}],"segments":[',
            "]}",
        ),
        works=True,
    )
    yield HostileFraming(
        name="a million boundaries",
        content=_many(
            1_000_000,
            lambda n: f"{n / 1e6:.6f}",
            '{"keyframes":[{"time":0,"x":0,"y":0,"width":32,"height":24}],"segment_data":{"boundaries":[',
            "]}}",
        ),
        works=True,
    )
    yield HostileFraming(
        name="a hundred thousand segments that overlap",
        content=_many(
            100_000,
            lambda n: f'{{"start":{n / 1e5:.5f},"end":1,"speed":2}}',
            '{"keyframes":[{"time":0,"x":0,"y":0,"width":32,"height":24}],"segments":[',
            "]}",
        ),
        says="overlap",
    )


def _bombs() -> Iterator[HostileFraming]:
    for what, piece in (
        ("lists", "[]"),
        ("objects", "{}"),
        ("numbers", "0.5"),
        ("texts", '"abcdefgh"'),
        ("nulls", "null"),
    ):
        count = 60 * MIB // (len(piece) + 1)
        yield HostileFraming(
            name=f"{count / 1e6:.0f} million {what}",
            content=_times(f"{piece},", count, "[", f"{piece}]"),
            peak_mib=1024,
            seconds=240,
        )
    yield HostileFraming(
        name="5 million different keys", peak_mib=1536, seconds=240,
        content=_many(5_000_000, lambda n: f'"{n:x}":0', "{", "}"),
    )  # fmt: skip
    for depth in (10_000, 1_000_000):
        yield HostileFraming(name=f"lists {depth} deep", content=_times("[", depth, tail="]" * depth), says="nested")
        yield HostileFraming(
            name=f"objects {depth} deep", content=_times('{"keyframes":', depth, tail="1" + "}" * depth), says="nested"
        )
        yield HostileFraming(
            name=f"a keyframe's field {depth} deep", content=_with("x", "[", depth, after="]" * depth), says="nested"
        )
    yield HostileFraming(name="lists that never end", content=_times("[", 60 * MIB), says="nested|too many")
    yield HostileFraming(
        name="a key of 60 MB", content=_times("k", 60_000_000, '[{"', '":0}]'), says=r"unknown key 'k+\.\.\.'"
    )
    yield HostileFraming(name="a text of 60 MB", content=_with("x", "v", 60_000_000, '"', '"'), says="'x' is")
    yield HostileFraming(
        name="an escaped text of 60 MB", content=_with("x", "\\ud83d\\ude00", 5_000_000, '"', '"'), says="'x' is"
    )
    yield HostileFraming(name="60 million digits", content=_with("x", "9", 60_000_000), says="thousands of digits")
    yield HostileFraming(
        name="60 million decimals", content=_with("x", "1", 60_000_000, "0."), works=True, peak_mib=768
    )


def _numbers() -> Iterator[HostileFraming]:
    refused = {
        "1e999999": "finite", "-1e999999": "finite", "1e400": "finite", "NaN": "finite", "Infinity": "finite",
        "-Infinity": "finite", "1e10": "at most", "9" * 4299: "at most", "9" * 5000: "digits", "true": "a number",
        "null": "a number", '"1"': "without quotes", "[]": "a list", "{}": "an object", "0x10": "not JSON",
        "1_0": "not JSON", "+1": "not JSON", ".5": "not JSON", "1.": "not JSON", "01": "not JSON", "nan": "not JSON",
        "\u0661": "not JSON",
    }  # fmt: skip
    for literal, says in refused.items():
        shown = literal if len(literal) < 20 else f"{len(literal)} digits"
        yield HostileFraming(name=f"x is {shown}", content=_with("x", literal), says=says)
    for literal in ("1e-999999", "-1e-999999", "-0.0", "0e999999", "1e-320", "5E-324"):
        yield HostileFraming(name=f"x is {literal}", content=_with("x", literal), works=True)
        yield HostileFraming(name=f"width is {literal}", content=_with("width", literal), says="'width'")
    for literal in ("1e9", "-1e9"):
        yield HostileFraming(name=f"x is {literal}", content=_with("x", literal), works=True)
    yield HostileFraming(name="time is 1e9", content=_with("time", "1e9"), works=True)
    yield HostileFraming(name="time is -1e-9", content=_with("time", "-1e-9"), says="'time'")
    yield HostileFraming(name="width is 1e9", content=_with("width", "1e9"), says="larger than the frame")
    yield HostileFraming(
        name="a rectangle of a millionth of a pixel",
        content=_long(units="pixels", keyframes=[_rectangle(width=1e-6, height=1e-6)]),
        works=True,
    )
    yield HostileFraming(
        name="a rectangle that may be a millionth of the frame",
        content=_long(keyframes=[_rectangle(width=1e-6, height=1e-6)]),
        says="are these parts of the frame",
    )
    yield HostileFraming(name="rotation is 1e9", content=_long(rotation=1e9), works=True)
    yield HostileFraming(name="rotation is 1e-9", content=_long(rotation=1e-9), works=True)
    yield HostileFraming(
        name="version is 1e999999", content=lambda: _long(version="V")().replace(b'"V"', b"1e999999"), says="'version'"
    )
    yield HostileFraming(
        name="fps is 1e-6",
        content=lambda: json.dumps(
            {"fps": 1e-6, "keyframes": [{"frame": 10**9, "x": 0, "y": 0, "width": 32, "height": 24}]}
        ).encode(),
        says="'frame'",
    )
    yield HostileFraming(
        name="speed is 0.1 to the end of time",
        content=_long(segments=[{"start": 0, "end": 1e9, "speed": 0.1}]),
        works=True,
    )
    yield HostileFraming(
        name="segments of a billionth of a second",
        content=_long(segments=[{"start": 1e-9 * n, "end": 1e-9 * (n + 1), "speed": 10} for n in range(1000)]),
        works=True,
    )
    yield HostileFraming(
        name="a trim of a billionth of a second", content=_long(trim={"start": 0.5, "end": 0.500000001}), works=True
    )
    yield HostileFraming(name="a trim beyond the end", content=_long(trim={"start": 1e9}), says="trim")


def _texts() -> Iterator[HostileFraming]:
    whole = json.dumps([_rectangle()])
    yield HostileFraming(
        name="a key twice", content=lambda: b'[{"time":0,"x":0,"x":1,"y":0,"width":32,"height":24}]', says="twice"
    )
    yield HostileFraming(
        name="a key a million times", content=lambda: b"[{" + b",".join([b'"x":0'] * 1_000_000) + b"}]", says="twice"
    )
    yield HostileFraming(name="keyframes twice", content=lambda: b'{"keyframes":[],"keyframes":[]}', says="twice")
    yield HostileFraming(name="invalid UTF-8", content=lambda: whole.encode() + b"\xff", says="UTF-8")
    yield HostileFraming(name="an overlong encoding", content=lambda: b"\xc0\xdb" + whole.encode(), says="UTF-8")
    yield HostileFraming(name="surrogates in UTF-8", content=lambda: b'[{"\xed\xa0\x80":0}]', says="UTF-8")
    yield HostileFraming(name="half a surrogate pair", content=lambda: b'[{"\\ud800":0}]', says="unknown key")
    yield HostileFraming(name="UTF-16", content=partial(whole.encode, "utf-16"), says="UTF-8")
    yield HostileFraming(name="UTF-32", content=partial(whole.encode, "utf-32"), says="UTF-8")
    yield HostileFraming(name="a byte order mark", content=partial(whole.encode, "utf-8-sig"), works=True)
    yield HostileFraming(name="two byte order marks", content=("\ufeff\ufeff" + whole).encode, says="JSON")
    yield HostileFraming(name="zeros", content=lambda: bytes(1000), says="JSON")
    yield HostileFraming(
        name="terminal codes in a key", content=lambda: b'[{"\\u001b[2J\\u001b]0;owned\\u0007":0}]', says=r"\\x1b"
    )
    yield HostileFraming(name="raw terminal codes", content=lambda: b'[{"\x1b[2J":0}]', says="not JSON")
    yield HostileFraming(name="a key that turns the text", content='[{"\u202egnp.exe":0}]'.encode, says=r"\\u202e")
    yield HostileFraming(name="lines in a key", content=lambda: b'[{"a\\nerror: all is well":0}]', says=r"a\\n")
    yield HostileFraming(name="JSON and more", content=lambda: whole.encode() + b"[]", says="not JSON")
    yield HostileFraming(name="a comment", content=lambda: b"//\n" + whole.encode(), says="not JSON")
    for text in ("", " ", "null", "0", '""', "true", "[]", "{}", "[[]]", "[null]", '{"keyframes":{}}', "\ufeff"):
        yield HostileFraming(name=f"nothing but {text!r}", content=text.encode)


def hostile_framings() -> list[HostileFraming]:
    """All of them; each content is made when it is needed."""
    return [*_large(), *_bombs(), *_numbers(), *_texts()]
