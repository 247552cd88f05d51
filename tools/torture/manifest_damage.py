"""Manifests drawn by a seed: damaged as text, row by row, and with values that mean harm."""

from __future__ import annotations

import codecs
import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

from tools.torture.mutate import cut_off, flipped, flipped_bit, hole, repeated, swapped, zeroed

__all__ = ["FIFO", "OUTSIDE", "mutated_manifest"]

OUTSIDE = "outside"
"""A folder beside the output folder, in which nothing may be written."""
FIFO = "pipe"
"""A named pipe in the working directory that nobody writes to."""

_Rows = list[dict[str, Any]]
_Damage = Callable[[_Rows, str, random.Random], bytes]

ROWS: _Rows = [
    {"video": "a.mp4", "keyframes": "cameras/a.json", "output": "one", "size": "16x16"},
    {"video": "b, c.mp4", "output": "two/b", "size": "32x18", "start": 0.1, "end": "0.3", "no-audio": True, "crf": 20},
    {"video": "a.mp4", "output": "three/deep/x.mov", "codec": "h264"},
    {"video": "sub/d.mp4", "keyframes": "sub/camera.json", "end": "0:00.25", "fps": 12},
]
"""A sound manifest: every kind of column, names with a comma and a space, a folder in a folder."""

COLUMNS = ("video", "keyframes", "output", "size", "start", "end", "no-audio", "crf", "codec", "fps")

PLACES = (
    "..", "../a.mp4", "../../../../etc/cron.d/x",
    f"../{OUTSIDE}/x", "one/../../x", "/", "/etc/passwd", "//x", ".", "./", "", " ", "~", "~root/x",
    "$HOME/x", "a.mp4", "A.MP4", "one", "ONE.mp4", "two", "two/b.mp4/x", "linked/x", "linked/../x", "link.mp4",
    "link", "dangling", "report.json", ".one.mp4.keyscale/x", ".one.mp4.keyscale", ".hidden", ".keyscale-check-x/y",
    "x" * 255, "x" * 256, "x" * 251, "d/" * 100 + "x", "d/" * 3000 + "x", "new\nline", "tab\tand\rreturn",
    "\x1b[31mred\x1b[0m", "\u202eevil", "\ufeffbom", "nul\0byte", "CON", "NUL.mp4", "aux.txt", "LPT1", "C:\\x",
    "a:b", "x|y", "*", "-", "-o", "--help", "'; rm -rf x", "x.csv", "x.mp4.mp4", "x.mkv", "x.exe", "trailing. ",
    "/dev/stdin", "/dev/zero", "/dev/full", "/dev/fd/0", "/dev/tty", "/proc/self/mem", "/proc/self/environ", FIFO,
    "cameras", "cameras/a.json", "list.csv", "s3://bucket/x", "http://127.0.0.1:9/x.mp4", "file:a.mp4",
    "concat:a.mp4|a.mp4", "pipe:0", "e\u0301.mp4", "\u00e9.mp4",
)  # fmt: skip
"""Names for videos, keyframes and outputs, most of which are none."""

VALUES = (
    "", " ", "0", "-1", "1e9", "1e308", "1e999", "NaN", "inf", "null", "true", "yes", "maybe", "7x7", "16x16x16",
    "99999x99999", "0x0", "-2x-2", "16X16", "source", "0.5", "1:30", "::", "99:99:99", "1" * 400, "9" * 5000,
    "--help", "lanczos", "cuda:99", "keyscale-tiny-x2", FIFO, "/dev/zero", "cameras/a.json", "../weights.pth",
    "h265", "prores", "ultrafast", "\x1b[2J", "\ufffd", "1_000", "\u0663", "0b1", "1/0", "30000/1001",
)  # fmt: skip
"""Values for flags."""

NAMES = (
    "video", "Video", "VIDEO ", "vidio", "keyframe", "no_audio", "No-Audio", "overwrite", "output_dir", "jobs",
    "config", "remote", "watch", "report", "", " ", "help", "chunk-seconds", "__class__", "\x1b[1m", "x" * 5000,
    "video\u200b",
)  # fmt: skip
"""Names for columns."""

_WEIRD: tuple[Any, ...] = (
    None, True, False, 0, -1, 30.0, 1e308, 10**400, [], {}, [[]], {"video": "a.mp4"}, "\ud800", "caf\udce9.mp4",
    "\U0001f600", "LITERAL NaN", "LITERAL Infinity", "LITERAL 1e999", "LITERAL -0.0", "LITERAL 1e-400",
    "LITERAL " + "9" * 5000, "LITERAL 01", "LITERAL 'a'", "LITERAL \"\\ud83d\"", "LITERAL \"\\u0000\"",
)  # fmt: skip
"""Values of JSON; a literal is written as it is."""


def mutated_manifest(number: int, seed: int) -> tuple[str, str, bytes]:
    """Variant `number`: suffix, what was done to it, and its content; the same for the same seed."""
    drawn = random.Random(f"{seed} manifest {number}")  # noqa: S311
    suffix = (".csv", ".jsonl")[number % 2]
    damage = _DAMAGES[number // 2 % len(_DAMAGES)]
    rows = [dict(row) for row in ROWS]
    return suffix, damage.__name__.lstrip("_"), damage(rows, suffix, drawn)


def written(rows: _Rows, suffix: str) -> bytes:
    """The rows as CSV or JSON Lines."""
    if suffix == ".csv":
        columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
        file = io.StringIO()
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        return file.getvalue().encode("utf-8", "surrogatepass")
    lines = []
    for row in rows:
        text = json.dumps(row)
        for value in _WEIRD:
            if isinstance(value, str) and value.startswith("LITERAL "):
                text = text.replace(json.dumps(value), value.removeprefix("LITERAL "))
        lines.append(text)
    return "".join(line + "\n" for line in lines).encode()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value.removeprefix("LITERAL ")
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _column_of(content: bytes, drawn: random.Random) -> bytes:
    """One of the text's bytes in a place where it means something, or none that text has."""
    place = drawn.randrange(len(content) + 1)
    meaning = [bytes([byte]) for byte in b'",;\t\r\n{}[]:\\/ .\x1a\x0b\x1c']
    piece = drawn.choice([*meaning, b"\xff", b"\xc3", b"\xed\xa0\x80", b'""'])
    return content[:place] + piece + content[place:]


# As text


def _bytes(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    change = drawn.choice([flipped, flipped_bit, cut_off, hole, zeroed, repeated, swapped])
    return change(written(rows, suffix), drawn)


def _inserted(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    content = written(rows, suffix)
    for _ in range(drawn.choice([1, 1, 2, 5])):
        content = _column_of(content, drawn)
    return content


def _quotes(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    """A quotation mark more or less; in CSV what follows is then one cell."""
    content = written(rows, suffix)
    marks = [place for place, byte in enumerate(content) if byte == ord('"')]
    if drawn.random() < 0.4 and marks:
        place = drawn.choice(marks)
        return content[:place] + content[place + 1 :]
    place = drawn.randrange(len(content))
    more = content[:place] + b'"' + content[place:]
    return more + b"x,y,z\n" * drawn.choice([0, 0, 300_000])


def _zero_bytes(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    content = written(rows, suffix)
    place = drawn.randrange(len(content) + 1)
    return content[:place] + bytes(drawn.choice([1, 2, 100, 2**21])) + content[place:]


def _marks(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    """Byte order marks, and other encodings."""
    content = written(rows, suffix)
    bom = codecs.BOM_UTF8
    place = drawn.randrange(len(content))
    text = content.decode()
    return drawn.choice([
        bom + content, bom + bom + content, content[:place] + bom + content[place:], bom, b"", b"\n" * 1000,
        text.encode("utf-16"), text.encode("utf-16-be"), text.encode("utf-32"),
        text.replace("a", "\u00e4").encode("latin-1"),
    ])  # fmt: skip


def _line_ends(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    end = drawn.choice([b"\r\n", b"\r", b"\n\n\n", b"\n\r", b"\x0b", b"\x0c", "\u2028".encode(), "\x85".encode(), b""])
    return written(rows, suffix).replace(b"\n", end)


def _huge(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    """A field, a number of columns, of rows, or a line far beyond all that is of use."""
    match drawn.randrange(5):
        case 0:
            drawn.choice(rows)[drawn.choice(COLUMNS)] = "x" * drawn.choice([4096, 4097, 131_072, 131_073, 2_000_000])
        case 1:
            drawn.choice(rows).update({f"column{number}": "x" for number in range(drawn.choice([10, 20_000]))})
        case 2:
            rows *= 1000
        case 3:
            rows += [{"video": f"absent-{number}.mp4"} for number in range(2000)]
        case _:
            return written(rows, suffix) + b" " * 2_000_000 + b"\n"
    return written(rows, suffix)


def _deep(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    depth = drawn.choice([3, 100, 990, 1000, 10_000, 200_000])
    opening, closing = drawn.choice([("[", "]"), ('{"a":', "}"), ("(", ")"), ('"', '"')])
    value = opening * depth + "1" + closing * drawn.choice([depth, depth - 1, 0])
    line = f'{{"video": "a.mp4", "output": {value}}}\n' if suffix == ".jsonl" else f"a.mp4,{value}\n"
    return written(rows, suffix) + line.encode()


# Row by row


def _columns_moved(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    """Values under the names of others: in all rows or in one."""
    names = drawn.sample(COLUMNS, len(COLUMNS))
    moved = dict(zip(COLUMNS, names, strict=True))
    some = rows if drawn.random() < 0.5 else [drawn.choice(rows)]
    for row in some:
        values = list(row.items())
        row.clear()
        row.update({moved.get(name, name): value for name, value in values})
    return written(rows, suffix)


def _columns_renamed(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    old, new = drawn.choice(COLUMNS[:4]), drawn.choice(NAMES)
    if suffix == ".csv":
        head, _, rest = written(rows, suffix).partition(b"\n")
        return head.replace(old.encode(), new.encode(), 1) + b"\n" + rest
    for row in rows:
        if old in row:
            row[new] = row.pop(old)
    return written(rows, suffix)


def _cells(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    """Rows that are too short or too long, or given again, in part."""
    lines = written(rows, suffix).splitlines(keepends=True)
    place = drawn.randrange(len(lines))
    line = lines[place].rstrip(b"\n")
    lines[place] = drawn.choice([
        line[: drawn.randrange(len(line))] + b"\n", line + b",,,,,\n", line + b",x,y\n", line + line + b"\n", b",\n",
        b",,,,,,,,,\n", line * 50 + b"\n", line.replace(b",", b";") + b"\n", b"\n", lines[0],
    ])  # fmt: skip
    return b"".join(lines)


def _twice(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    """Two rows for one result, by the same name or by one that some systems hold for the same."""
    row = dict(drawn.choice(rows))
    output = str(row.get("output", "sub/d"))
    row["output"] = drawn.choice([output, output.upper(), output + ".mp4", "./" + output, output + "/", output.title()])
    rows.insert(drawn.randrange(len(rows) + 1), row)
    if suffix == ".jsonl" and drawn.random() < 0.3:
        return written(rows, suffix).replace(b'"video"', b'"video": "a.mp4", "VIDEO"', 1)
    return written(rows, suffix)


def _places(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    for _ in range(drawn.choice([1, 1, 2])):
        drawn.choice(rows)[drawn.choice(["video", "keyframes", "output", "output", "output"])] = drawn.choice(PLACES)
    return written(rows, suffix)


def _values(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    more = ("tile", "model", "device", "denoise", "bit-depth", "chunk-seconds", "verify", "fit", "preset", "mode")
    options = (*COLUMNS[3:], *more)
    for _ in range(drawn.choice([1, 1, 2, 4])):
        drawn.choice(rows)[drawn.choice(options)] = drawn.choice(VALUES)
    return written(rows, suffix)


def _kinds(rows: _Rows, suffix: str, drawn: random.Random) -> bytes:
    """Values of JSON where others are expected; a row that is none."""
    for _ in range(drawn.choice([1, 2])):
        drawn.choice(rows)[drawn.choice(COLUMNS)] = drawn.choice(_WEIRD)
    content = written(rows, suffix)
    if suffix == ".jsonl" and drawn.random() < 0.4:
        lines = ["null", "[]", "1", '"a.mp4"', "{}", "{", "[" * 100, "# remark", "{}{}", '{"video":}']
        content += drawn.choice(lines).encode() + b"\n"
    return content


_DAMAGES: tuple[_Damage, ...] = (
    _bytes, _bytes, _inserted, _inserted, _quotes, _zero_bytes, _marks, _line_ends, _huge, _deep, _columns_moved,
    _columns_renamed, _cells, _twice, _places, _places, _places, _places, _values, _values, _kinds, _kinds,
)  # fmt: skip
