"""What a batch says in words: a clip's last line, the totals, the table at the end. Nothing here writes anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from keyscale.cli.progress import clock_text, rate_text
from keyscale.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keyscale.engine.batch.events import BatchProgress, ClipReport, Report
    from keyscale.engine.events import Done, Failed

__all__ = [
    "LISTED",
    "SKIPPED",
    "can_encode",
    "closing_text",
    "dollars_text",
    "done_text",
    "failed_text",
    "middle",
    "one_line",
    "summary",
    "total_parts",
    "wrapped",
]

LISTED = 40
"""Most clips that the table at the end lists, those that failed apart: of more than that only the number is told."""

SKIPPED = "its result is there and came from the same job"

_LINE_ENDS = re.compile("[\n\t\u2028\u2029]")


def can_encode(text: str, encoding: str) -> bool:
    """Whether a stream of that encoding can carry `text` as it is."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def one_line(name: str, encoding: str) -> str:
    """A name that is safe to print and stays on its line, as it will look in a stream of that encoding."""
    text = _LINE_ENDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), printable(name))
    return text.encode(encoding, "backslashreplace").decode(encoding)


def middle(text: str, cells: int, mark: str = "…") -> str:
    """`text` in at most `cells` cells of a terminal: what lies in the middle gives way to `mark`, of one cell."""
    from rich.cells import cell_len

    if cell_len(text) <= cells:
        return text
    if cells < 2:
        return mark[: max(0, cells)]
    # The end tells one clip of a folder from the next, and has the suffix.
    head, tail = "", ""
    front, back = (cells - 1) // 2, cells - 1 - (cells - 1) // 2
    for letter in text:
        if cell_len(head + letter) > front:
            break
        head += letter
    for letter in reversed(text):
        if cell_len(letter + tail) > back:
            break
        tail = letter + tail
    return f"{head}{mark}{tail}"


def wrapped(parts: Iterable[str], width: int) -> list[str]:
    """Parts in lines of at most `width` cells where they fit at all, with commas between them."""
    from rich.cells import cell_len

    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + cell_len(part) + 3 <= width:
            lines[-1] += f", {part}"
        else:
            if lines:
                lines[-1] += ","
            lines.append(part)
    return lines


def dollars_text(dollars: float) -> str:
    """`0.1234` -> `"$0.123"`."""
    return f"${dollars:.3f}"


def done_text(done: Done) -> str:
    """What became of a clip that was made."""
    parts = [f"{done.frames} frames in {clock_text(done.seconds)}"]
    if made := done.frames - done.resumed_frames:
        parts += [rate_text(made / done.seconds)] if done.seconds > 0 else []
    if done.resumed_frames:
        parts.append(f"{done.resumed_frames} taken from an earlier run")
    if done.remote is not None:
        parts.append(f"{dollars_text(done.remote.dollars)} at list prices")
    if done.published is not None:
        parts.append(f"stored at {done.published}")
    return printable(", ".join(parts))


def failed_text(failed: Failed | None, indent: str) -> str:
    """Why a clip failed, and beneath it, indented, what to do."""
    if failed is None:
        return "nothing says why"
    text = printable(failed.message)
    return f"{text}\n{indent}-> {printable(failed.remedy)}" if failed.remedy else text


def total_parts(progress: BatchProgress, elapsed: float, eta: float | None) -> list[str]:
    """How far a batch is, part by part.

    Args:
        progress: where it stands.
        elapsed: seconds since it began.
        eta: seconds that it still takes; None where that is not known.
    """
    parts = [f"{progress.done + progress.skipped + progress.failed} of {progress.clips} clips"]
    counts = (("done", progress.done), ("skipped", progress.skipped), ("failed", progress.failed))
    parts += [f"{count} {word}" for word, count in (*counts, ("running", progress.running)) if count]
    if progress.total:
        more = "+" if progress.planned + progress.failed < progress.clips else ""
        parts.append(f"{progress.frame}/{progress.total}{more} frames")
    if progress.fps is not None:
        parts.append(rate_text(progress.fps))
    if eta is not None:
        parts.append(f"ETA {clock_text(eta)}")
    parts.append(f"elapsed {clock_text(elapsed)}")
    if progress.dollars is not None:
        parts.append(dollars_text(progress.dollars))
    return parts


def closing_text(report: Report) -> str:
    """The last line: how many of which, and the time."""
    counts = (("skipped", report.skipped), ("failed", report.failed), ("stopped", report.stopped))
    parts = [f"{report.done} done", *(f"{count} {word}" for word, count in counts if count)]
    text = f"{', '.join(parts)} in {clock_text(report.seconds)}"
    return text if report.dollars is None else f"{text}, {dollars_text(report.dollars)} at list prices"


def summary(report: Report, *, width: int | None, path: str | None, encoding: str) -> list[str]:
    """The table at the end, as lines; failed clips have their message beneath.

    Args:
        report: what became of the batch.
        width: cells of the terminal, from 20 on; None is no terminal: nothing is shortened.
        path: where the report stands; None where it was not asked for.
        encoding: of the stream that this goes to.
    """
    failed = [clip for clip in report.clips if clip.status == "failed"]
    others = [clip for clip in report.clips if clip.status != "failed"]
    shown = report.clips if len(others) <= LISTED else failed
    lines = _table(shown, width, encoding) if shown else []
    if len(others) > LISTED:
        counts = (("done", report.done), ("skipped", report.skipped), ("stopped", report.stopped))
        where = f"{one_line(path, encoding)} lists" if path is not None else "--report FILE would list"
        listed = ", ".join(f"{count} {word}" for word, count in counts if count)
        lines.append(f"{'and ' if failed else ''}{listed}: {where} each of them")
    return lines


_HEADS = ("clip", "status", "frames", "time", "fps", "size", "bytes")
_GAP = 2
_LEAST_NAME = 16
_PADDED_NAME = 60


def _table(clips: Sequence[ClipReport], width: int | None, encoding: str) -> list[str]:
    from rich.cells import cell_len

    rows = [_HEADS, *(_row(clip, encoding) for clip in clips)]
    longest = max(cell_len(row[0]) for row in rows)
    columns = len(_HEADS)
    widths = [max(len(row[column]) for row in rows) for column in range(columns)]
    name = min(longest, _PADDED_NAME)
    if width is not None:
        # Columns are left out from the right until enough is there for the names.
        while columns > 2 and width - sum(widths[1:columns]) - _GAP * (columns - 1) < min(longest, _LEAST_NAME):
            columns -= 1
        name = min(longest, width - sum(widths[1:columns]) - _GAP * (columns - 1))
    mark = "…" if can_encode("…", encoding) else "~"
    lines = []
    for row, clip in zip(rows, (None, *clips), strict=True):
        shown = row[0] if width is None else middle(row[0], name, mark)
        cells = [shown + " " * (name - cell_len(shown)), row[1].ljust(widths[1])]
        cells += [row[column].rjust(widths[column]) for column in range(2, columns)]
        lines.append((" " * _GAP).join(cells).rstrip())
        if clip is not None and clip.status == "failed":
            message = "nothing says why" if clip.error is None else printable(clip.error.message)
            lines.append(f"  {message}")
            if clip.error is not None and clip.error.remedy:
                lines.append(f"  -> {printable(clip.error.remedy)}")
    return lines


def _row(clip: ClipReport, encoding: str) -> tuple[str, ...]:
    size = f"{clip.size[0]}x{clip.size[1]}" if clip.size is not None else ""
    return (
        one_line(clip.clip, encoding),
        clip.status.value,
        str(clip.frames) if clip.frames is not None else "",
        clock_text(clip.seconds) if clip.seconds is not None else "",
        f"{clip.fps:.3g}" if clip.fps is not None else "",
        size,
        _bytes_text(clip.output_bytes) if clip.output_bytes is not None else "",
    )


def _bytes_text(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
