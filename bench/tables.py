"""The rows of `bench.quality` as Markdown: by ratio and source over all clips, then by clip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

__all__ = ["BEGIN", "COLUMNS", "END", "Column", "insert", "markdown"]

BEGIN = "<!-- The rest is written by python -m bench.quality. -->"
END = "<!-- End of what is written by python -m bench.quality. -->"
NOTHING = "-"
ORIGINAL = "(the original)"

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A measure."""

    title: str
    key: str
    form: str
    """Format of its numbers."""
    legend: str


COLUMNS = (
    Column("VMAF phone", "phone", ".1f", "VMAF v1 for phones (five picture heights away), 100 is equal"),
    Column("neg", "neg", ".1f", "VMAF v0.6.1 neg, which gives nothing for enhancement"),
    Column("SSIMULACRA 2", "ssimulacra2", ".1f", "of two frames, 100 is equal; none below 225 pixels of height"),
    Column("JOD", "jod", ".2f", "ColorVideoVDP, 10 is equal"),
    Column("PSNR", "psnr", ".2f", "dB over R, G and B of all frames"),
    Column("sharp", "sharpness", ".2f", "root of the gradient energy, as a multiple of the original's"),
    Column("grid", "grid", ".2f", "lines at the network's cell or the codec's blocks, as a multiple of the original's"),
    Column("steps", "steps", ".2f", "of colour where a source pixel ends, by those within it; 1 is the original's"),
    Column("shift", "shift", ".2f", "largest difference of the mean R, G or B, in codes"),
    Column("ringing", "ringing", ".2f", "codes by which pixels near strong edges leave the original's range"),
    Column("still", "still", ".2f", "change from frame to frame where the original stands still, RMS codes"),
    Column("moving", "moving", ".2f", "the same elsewhere, after the original's motion"),
)
BY_CLIP = ("phone", "ssimulacra2")
"""What is told by clip; both of them in one cell."""
BY_CLIP_SOURCE = "crf23"
"""The source that is told by clip, where there is more than one: all of them would be too long to read."""


def insert(document: Path, text: str) -> None:
    """Put a text between the marks of a document; at its end where there are none."""
    old = document.read_text(encoding="utf-8") if document.is_file() else ""
    head, begin, rest = old.partition(BEGIN)
    _, _, tail = rest.partition(END)
    head = head.rstrip() + "\n\n" if head.strip() and not begin else head
    document.write_text(f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{tail or chr(10)}", encoding="utf-8")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(names: Sequence[str], numbers: Sequence[str]) -> list[str]:
    return [_line([*names, *numbers]), _line([*("---" for _ in names), *("--:" for _ in numbers)])]


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [row["values"][key] for row in rows if row["values"].get(key) is not None]
    return fmean(values) if values else None


def _cell(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each candidate, clip and condition, in the order in which they came first."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        found[row["name"], row["ratio"], row["source"], row["clip"]] = row
    return list(found.values())


def _ordered(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _source_order(name: str) -> tuple[int, int]:
    for place, prefix in enumerate(("clean", "crf", "hevc")):
        if name.startswith(prefix):
            return place, int(name.removeprefix(prefix) or 0)
    return 9, 0


def _source(name: str) -> str:
    for prefix, codec in (("crf", "x264"), ("hevc", "HEVC")):
        if name.startswith(prefix):
            return f"{codec} CRF {name.removeprefix(prefix)}"
    return name


def overall(rows: Sequence[Row]) -> list[str]:
    """Means over the clips at one ratio, by source; at the end what the originals are by themselves."""
    columns = [column for column in COLUMNS if _mean(rows, column.key) is not None]
    lines = _heading(["source", "upscaler"], [column.title for column in columns])
    for source in sorted({row["source"] for row in rows}, key=_source_order):
        here = [row for row in rows if row["source"] == source]
        names = _ordered(row["name"] for row in here)
        most = len({row["clip"] for row in here})
        for name in names:
            own = [row for row in here if row["name"] == name]
            label = name if len(own) == most else f"{name} ({len(own)} of {most} clips)"
            cells = [_cell(_mean(own, column.key), column.form) for column in columns]
            lines.append(_line(["" if name != names[0] else _source(source), label, *cells]))
    truth = [{"values": values} for values in {row["clip"]: row["own"] for row in rows}.values()]
    cells = [_cell(_mean(truth, column.key), column.form) for column in columns]
    return [*lines, _line(["", ORIGINAL, *cells])]


def by_clip(rows: Sequence[Row]) -> list[str]:
    """VMAF phone and SSIMULACRA 2 by clip, at one ratio and source."""
    clips = _ordered(row["clip"] for row in rows)
    kinds = {row["clip"]: row["kind"] for row in rows}
    forms = {column.key: column.form for column in COLUMNS}
    lines = _heading(["upscaler"], [f"{clip}: {kinds[clip]}" for clip in clips])
    for name in _ordered(row["name"] for row in rows):
        cells = []
        for clip in clips:
            own = [row for row in rows if row["name"] == name and row["clip"] == clip]
            cells.append(" / ".join(_cell(_mean(own, key), forms[key]) for key in BY_CLIP))
        lines.append(_line([name, *cells]))
    return lines


def _head(rows: Sequence[Row]) -> list[str]:
    about = rows[-1]["conditions"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    dates = sorted({row["conditions"]["date"] for row in rows})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    frames = "/".join(str(count) for count in sorted({row["frames"] for row in rows}))
    kinds = {row["clip"]: row["kind"] for row in rows}
    columns = [column for column in COLUMNS if _mean(rows, column.key) is not None]
    return [
        f"{frames} frames a clip; {about['cpu']}, {about['threads']} threads; {packages}; {when}.",
        "",
        f"Clips: {', '.join(f'{clip} ({kind})' for clip, kind in kinds.items())}.",
        "",
        *(f"- *{column.title}*: {column.legend}." for column in columns),
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Everything between the marks: what the columns mean, then the tables."""
    rows = latest(rows)
    ratios = sorted({row["ratio"] for row in rows})
    sources = {row["source"] for row in rows}
    told = BY_CLIP_SOURCE if BY_CLIP_SOURCE in sources else min(sources, key=_source_order)
    lines = [*_head(rows), "", "## Means over the clips"]
    for ratio in ratios:
        lines += ["", f"### x{ratio:.3g}", "", *overall([row for row in rows if row["ratio"] == ratio])]
    lines += ["", "## By clip", "", "VMAF phone / SSIMULACRA 2."]
    for ratio in ratios:
        own = [row for row in rows if row["ratio"] == ratio]
        places = {row["source"] for row in own}
        place = told if told in places else min(places, key=_source_order)
        here = [row for row in own if row["source"] == place]
        lines += ["", f"### x{ratio:.3g}, {_source(place)}, by clip", "", *by_clip(here)]
    return "\n".join(lines) + "\n"
