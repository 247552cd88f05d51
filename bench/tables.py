"""The table of `bench.quality`: its columns, on a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.table import Table

from bench.judging import Row
from bench.sets import CRF

__all__ = ["COLUMNS", "LEGEND", "Column", "markdown", "terminal"]

NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """Measures that share a cell."""

    title: str
    keys: tuple[str, ...]
    form: str
    """Format of each number."""
    legend: str

    def cell(self, row: Row) -> str:
        """The row's numbers, or a dash where there are none."""
        values = [row.values.get(key) for key in self.keys]
        if all(value is None for value in values):
            return NOTHING
        return "/".join(NOTHING if value is None else format(value, self.form) for value in values)


COLUMNS = (
    Column("PSNR", ("teacher_psnr",), ".2f", "dB over R, G and B, against the teacher's picture"),
    Column("SSIM", ("teacher_ssim",), ".4f", "of luma, against the teacher's picture"),
    Column("int8-fp32", ("own_psnr",), ".1f", "dB of int8 against the same network in fp32, both rounded to codes"),
    Column("sharp", ("sharpness",), ".3f", "gradient energy of luma, as a multiple of the teacher's"),
    Column("over", ("overshoot",), ".2f", "codes by which luma leaves the range of the 3x3 input pixels, mean"),
    Column("shift", ("shift_r", "shift_g", "shift_b"), "+.2f", "mean difference to the teacher in R, G, B, codes"),
    Column("grid", ("grid",), ".3f", "largest share of gradient energy at one place in the input pixel, / teacher's"),
    Column(
        "pattern",
        ("pattern",),
        ".3f",
        "standard deviation in codes of the mean difference to the teacher by place in the input pixel",
    ),
    Column("PSNR-Y", ("truth_psnr",), ".2f", "dB of luma against the original, a border of one input pixel left out"),
    Column("SSIM-Y", ("truth_ssim",), ".4f", "of luma against the original, likewise"),
    Column("SSIMU2", ("truth_ssimulacra2",), ".1f", "SSIMULACRA 2 against the original, 100 is equal"),
    Column(
        "noise 2/5",
        ("noise_2", "noise_5"),
        ".3f",
        "energy of frame differences of still pictures under Gaussian "
        "noise of 2 and 5 codes, as multiples of the teacher's",
    ),
    Column(
        "full 1/2/5/8",
        ("full_1", "full_2", "full_5", "full_8"),
        ".2f",
        "the same of the middle of photographs and frames at full size, under noise of 1, 2, 5 and 8 codes",
    ),
    Column("grey 5", ("grey_5",), ".2f", "the same under noise of 5 codes that is equal in all channels"),
    Column(
        "pan 1/2",
        ("pan_half", "pan_across"),
        ".2f",
        "energy that is left of frame differences in a pan once the motion is undone, as a multiple of the teacher's: "
        "reduced photographs that move by half an input pixel down and right, and to the right alone",
    ),
    Column(
        "slide 1/2 1/4",
        ("slide_half", "slide_quarter"),
        ".2f",
        "the same of photographs at full size that move to the right by a half and by a quarter of an input pixel",
    ),
    Column("pan 1", ("pan_1",), ".3f", "the same in steps of whole input pixels, in codes squared"),
    Column("kMAC", ("kmacs",), ".1f", "thousand multiply-accumulate operations per input pixel"),
    Column("ms", ("ms",), ".0f", "median for a frame of 480x270, all candidates in turns"),
    Column("speed", ("speed",), ".1f", "median multiple of the teacher's speed in the same turn"),
)

LEGEND = (
    "Means over the pictures of a set; sharp and grid compare sums over the set. The rows of all sets are means over "
    f"the sets, each counting alike. crf{CRF} sets are the same inputs after x264 at that rate factor: a still as one "
    "intra-coded frame, a frame of footage after the frames before it. At x2 the teacher is its x4 picture halved by "
    "an antialiased bicubic filter, and so is the original."
)


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Those in which anything stands."""
    return [column for column in COLUMNS if any(column.cell(row) != NOTHING for row in rows)]


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows of one set and scale after each other, with the set's name, scale and number of pictures."""
    for (name, scale), group in groupby(rows, key=lambda row: (row.set_name, row.scale)):
        own = list(group)
        yield f"{name} x{scale} ({own[0].pictures})", own


def terminal(rows: Sequence[Row]) -> Table:
    """For Rich."""
    columns = _columns(rows)
    table = Table(title="quality")
    for title in ("set (pictures)", "upscaler"):
        table.add_column(title, no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for label, group in _groups(rows):
        for index, row in enumerate(group):
            cells = (column.cell(row) for column in columns)
            table.add_row("" if index else label, row.candidate, *cells, end_section=index == len(group) - 1)
    return table


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown(rows: Sequence[Row], conditions: str) -> str:
    """A fragment: conditions, the table, and what its columns mean."""
    columns = _columns(rows)
    lines = [conditions, "", _line(["set (pictures)", "upscaler", *(column.title for column in columns)])]
    lines.append(_line(["---", "---", *("--:" for _ in columns)]))
    for label, group in _groups(rows):
        lines += [
            _line(["" if index else label, row.candidate, *(column.cell(row) for column in columns)])
            for index, row in enumerate(group)
        ]
    lines += ["", LEGEND, ""]
    lines += [f"- *{column.title}*: {column.legend}." for column in columns]
    return "\n".join(lines) + "\n"
