"""Damage, drawn by a seed: to the bytes of a video, along its structure, and to a keyframes file's bytes and values."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from tools.torture.structure import Part, skeleton

__all__ = ["FRAMINGS", "mutated_framing", "mutated_video"]

INTERESTING = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    32_767,
    32_768,
    65_535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
"""Values at which readers of fields go wrong."""


# Bytes


def flipped(content: bytes, drawn: random.Random) -> bytes:
    """Some bytes anywhere."""
    damaged = bytearray(content)
    for _ in range(drawn.choice([1, 2, 5, 20, 100])):
        damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
    return bytes(damaged)


def flipped_bit(content: bytes, drawn: random.Random) -> bytes:
    """One bit."""
    damaged = bytearray(content)
    damaged[drawn.randrange(len(damaged))] ^= 1 << drawn.randrange(8)
    return bytes(damaged)


def flipped_head(content: bytes, drawn: random.Random) -> bytes:
    """Bytes of the first kilobyte, where most of what a reader believes stands."""
    head = min(1024, len(content))
    return flipped(content[:head], drawn) + content[head:]


def flipped_tail(content: bytes, drawn: random.Random) -> bytes:
    """Bytes of the last kilobytes: the index of an MP4, the last frames of the others."""
    tail = max(0, len(content) - 3000)
    return content[:tail] + flipped(content[tail:], drawn)


def cut_off(content: bytes, drawn: random.Random) -> bytes:
    """Truncated."""
    return content[: drawn.randrange(1, len(content))]


def hole(content: bytes, drawn: random.Random) -> bytes:
    """A stretch taken out."""
    start = drawn.randrange(len(content))
    return content[:start] + content[start + drawn.randrange(1, 2000) :]


def zeroed(content: bytes, drawn: random.Random) -> bytes:
    """A stretch of zeros, as a download with holes has it."""
    start = drawn.randrange(len(content))
    stretch = min(drawn.randrange(1, 4000), len(content) - start)
    return content[:start] + bytes(stretch) + content[start + stretch :]


def repeated(content: bytes, drawn: random.Random) -> bytes:
    """A block that comes again, once or often."""
    start = drawn.randrange(len(content))
    end = min(len(content), start + drawn.randrange(1, 4000))
    return content[:end] + content[start:end] * drawn.choice([1, 2, 50]) + content[end:]


def swapped(content: bytes, drawn: random.Random) -> bytes:
    """Two blocks in each other's place."""
    a, b, c, d = sorted(drawn.randrange(len(content)) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


# Structure


def _field(part: Part, content: bytes, drawn: random.Random) -> bytes:
    """A field of a part, of 1 to 8 bytes, with a value that readers stumble over."""
    width = drawn.choice([1, 2, 4, 4, 4, 8])
    place = part.body + drawn.randrange(max(1, min(96, part.end - part.body)))
    value = drawn.choice(INTERESTING) % (1 << 8 * width)
    written = value.to_bytes(width, drawn.choice(["big", "little"]))
    return content[:place] + written + content[place + width :]


def _size(part: Part, content: bytes, drawn: random.Random) -> bytes:
    """The size that a part declares."""
    if not part.size_length:
        return _field(part, content, drawn)
    old = int.from_bytes(content[part.size_at : part.size_at + part.size_length], "big")
    limit = 1 << 8 * part.size_length
    new = drawn.choice([*INTERESTING, old - 1, old + 1, old * 2, old // 2]) % limit
    return content[: part.size_at] + new.to_bytes(part.size_length, "big") + content[part.size_at + part.size_length :]


def _renamed(part: Part, content: bytes, drawn: random.Random) -> bytes:
    place = part.start + (4 if part.size_at == part.start and part.size_length else 0)
    return content[:place] + drawn.randbytes(drawn.choice([1, 4])) + content[place + 4 :]


def _removed(part: Part, content: bytes, _: random.Random) -> bytes:
    return content[: part.start] + content[part.end :]


def _doubled(part: Part, content: bytes, drawn: random.Random) -> bytes:
    return content[: part.end] + content[part.start : part.end] * drawn.choice([1, 3, 100]) + content[part.end :]


def _emptied(part: Part, content: bytes, _: random.Random) -> bytes:
    return content[: part.body] + bytes(part.end - part.body) + content[part.end :]


BY_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped, flipped_bit, flipped_head, flipped_tail, cut_off, hole, zeroed, repeated, swapped,
)  # fmt: skip
BY_STRUCTURE: tuple[Callable[[Part, bytes, random.Random], bytes], ...] = (
    _field, _field, _field, _size, _size, _renamed, _removed, _doubled, _emptied,
)  # fmt: skip


def mutated_video(videos: Mapping[str, bytes], number: int, seed: int) -> tuple[str, str, bytes]:
    """Variant `number`: its extension, what was done to it, and its content; the same for the same seed.

    Args:
        videos: sound files by extension.
        number: of the variant; neighbours differ in extension and in kind of damage.
        seed: another one gives other damage.
    """
    drawn = random.Random(f"{seed} video {number}")  # noqa: S311
    suffixes = sorted(videos)
    suffix = suffixes[number % len(suffixes)]
    content = videos[suffix]
    kinds = len(BY_BYTES) + len(BY_STRUCTURE) + 1
    kind = number // len(suffixes) % kinds
    if kind < len(BY_BYTES):
        damage = BY_BYTES[kind]
        return suffix, damage.__name__, damage(content, drawn)
    if kind == kinds - 1:
        other = videos[drawn.choice(suffixes)]
        joint = drawn.randrange(len(content)), drawn.randrange(len(other))
        return suffix, "spliced", content[: joint[0]] + other[joint[1] :]
    change = BY_STRUCTURE[kind - len(BY_BYTES)]
    for _ in range(drawn.choice([1, 1, 2, 4])):
        parts = skeleton(content, suffix)
        if parts:
            content = change(drawn.choice(parts), content, drawn)
    return suffix, f"part{change.__name__}", content


# Keyframes

_KEYFRAMES = [
    {"time": 0, "x": 0, "y": 0, "width": 40.5, "height": 30},
    {"time": 0.4, "x": 20.25, "y": 4, "width": 32, "height": 24, "ease": "hold"},
    {"time": 0.8, "x": 8, "y": 12, "width": 48, "height": 36},
]
FRAMINGS: tuple[Any, ...] = (
    _KEYFRAMES,
    {
        "version": 1, "interpolation": "smooth", "keyframes": _KEYFRAMES, "rotation": -1.5,
        "trim": {"start": 0.1, "end": 0.9}, "segments": [{"start": 0.2, "end": 0.4, "speed": 0.5}],
    },
    {"fps": 24, "keyframes": [{"frame": 6 * n, "x": n, "y": n, "width": 32, "height": 24} for n in range(4)]},
    {
        "interpolation": "catmull-rom", "keyframes": _KEYFRAMES,
        "segment_data": {
            "boundaries": [0, 0.3, 0.6, 1], "segmentSpeeds": {"1": 2}, "trimRange": {"start": 0, "end": 0.9},
        },
    },
    {
        "keyframes": _KEYFRAMES,
        "segment_data": {"trim_start": 0.1, "trim_end": 0.8, "segments": [{"start": 0.2, "end": 0.4, "speed": 4}]},
    },
)  # fmt: skip
"""Every form of the file that docs/keyframes.md describes."""

_LITERALS = (
    "0", "-1", "1e-7", "1e9", "-1e9", "1e308", "1e999", "-1e999", "NaN", "Infinity", "null", "true", "false", '""',
    '"0"', "[]", "{}", "0.1", "2", "1e-320", "-0.0", "63.999999", "64.5", "99999999999999999999", "1" * 5000,
    '"hold"', '"linear"', '"smooth"', "[[]]", '[{"time":0}]', '"\\ud800"', '"\\u0000"',
)  # fmt: skip


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every container in a document with each of its keys or indices."""
    found: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        each = pending.pop()
        inside = (
            list(each.items()) if isinstance(each, dict) else list(enumerate(each)) if isinstance(each, list) else []
        )
        found += [(each, key) for key, _ in inside]
        pending += [value for _, value in inside]
    return found


def _other_value(document: Any, drawn: random.Random) -> None:
    container, key = drawn.choice(_places(document))
    container[key] = f"LITERAL {drawn.randrange(len(_LITERALS))}"


def _other_number(document: Any, drawn: random.Random) -> None:
    numbers = [(c, k) for c, k in _places(document) if isinstance(c[k], int | float)]
    container, key = drawn.choice(numbers)
    container[key] *= drawn.choice([-1, 0.5, 1.0001, 2, 10, 1e3, 1e-3, 1e8, 1e-8])


def _without(document: Any, drawn: random.Random) -> None:
    container, key = drawn.choice(_places(document))
    del container[key]


def _renamed_key(document: Any, drawn: random.Random) -> None:
    container, key = drawn.choice([(c, k) for c, k in _places(document) if isinstance(c, dict)])
    container[drawn.choice(["time", "frame", "zoom", "start", "speed", "", "KEY" * 100, "\x1b[2J"])] = container.pop(
        key
    )


def _shuffled(document: Any, drawn: random.Random) -> None:
    lists = [c[k] for c, k in _places(document) if isinstance(c[k], list)] or [document]
    drawn.shuffle(drawn.choice(lists))


def _moved(document: Any, drawn: random.Random) -> None:
    """A value in the place of another."""
    (a, b), (c, d) = drawn.choice(_places(document)), drawn.choice(_places(document))
    a[b] = json.loads(json.dumps(c[d]))


_BY_VALUE: tuple[Callable[[Any, random.Random], None], ...] = (
    _other_value, _other_value, _other_value, _other_number, _other_number, _without, _renamed_key, _shuffled, _moved,
)  # fmt: skip


def _inserted(content: bytes, drawn: random.Random) -> bytes:
    """A byte that stands for something in JSON, or in no text."""
    place = drawn.randrange(len(content) + 1)
    return (
        content[:place] + drawn.choice([*(bytes([b]) for b in b'{}[]",:-.eE\\ \n0'), b"\xff", b"\0"]) + content[place:]
    )


def _key_again(content: bytes, drawn: random.Random) -> bytes:
    """A key a second time in its object."""
    found = list(re.finditer(rb'"\w+": ?[^,{}\[\]]+', content))
    if not found:
        return content
    match = drawn.choice(found)
    return content[: match.end()] + b", " + match[0] + content[match.end() :]


_BY_TEXT = (flipped, flipped_bit, cut_off, hole, zeroed, repeated, swapped, _inserted, _inserted, _key_again)


def mutated_framing(number: int, seed: int) -> tuple[str, bytes]:
    """Variant `number` of a keyframes file: what was done to it, and its content; the same for the same seed."""
    drawn = random.Random(f"{seed} framing {number}")  # noqa: S311
    document = json.loads(json.dumps(FRAMINGS[number % len(FRAMINGS)]))
    kind = number // len(FRAMINGS) % (len(_BY_TEXT) + len(_BY_VALUE))
    if kind < len(_BY_TEXT):
        damage = _BY_TEXT[kind]
        return damage.__name__.lstrip("_"), damage(json.dumps(document).encode(), drawn)
    change = _BY_VALUE[kind - len(_BY_TEXT)]
    for _ in range(drawn.choice([1, 1, 2, 3])):
        if _places(document):
            change(document, drawn)
    text = json.dumps(document)
    for index, literal in enumerate(_LITERALS):
        text = text.replace(f'"LITERAL {index}"', literal)
    return change.__name__.lstrip("_"), text.encode("utf-8", "surrogatepass")
