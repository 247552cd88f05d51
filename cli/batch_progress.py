"""A batch on a terminal: a live block with the total and a bar for each running clip, what has ended above it."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TextIO

from keyscale.cli.batch_lines import BatchLines, Plain, Silent
from keyscale.cli.batch_text import SKIPPED, can_encode, failed_text, middle, total_parts, wrapped
from keyscale.cli.progress import Live, clock_text, counted, rate_text, renderer
from keyscale.cli.terminal import SafeStream

if TYPE_CHECKING:
    from rich.text import Text

    from keyscale.engine.batch.events import BatchProgress, ClipEvent, Report
    from keyscale.engine.events import Failed, Progress

__all__ = ["batch_renderer"]

LEAST_BAR, MOST_BAR = 6, 40
"""Cells of a bar."""

LEAST_NAME = 16
"""Cells that a name is given before anything else is shown of its clip."""

LAYOUTS = (
    ("phase", "bar", "count", "rate"),
    ("phase", "bar", "count"),
    ("phase", "bar", "share"),
    ("phase", "share"),
    ("share",),
)
"""What stands beside a clip's name, by falling width."""


_Row = tuple[str, "Progress | None"]
"""A running clip: its name, and how far it is."""


def _share(progress: Progress | None) -> float:
    """How much of a phase is done, 0 to 1."""
    return min(1.0, progress.frame / progress.total) if progress is not None and progress.total else 0.0


def _texts(progress: Progress | None) -> dict[str, str]:
    if progress is None:
        return {"phase": "starting", "count": "", "rate": "", "share": ""}
    return {
        "phase": str(progress.phase),
        "count": counted(progress),
        "rate": rate_text(progress.fps, progress.unit),
        "share": _percent(progress.frame, progress.total) if progress.total else "",
    }


class Bars(BatchLines, Live):
    """One live block at the bottom of the terminal, bounded by its height; see `renderer` for the arguments."""

    _redirect_stderr = False

    def __init__(self, out: TextIO | None, err: SafeStream, **how: Any) -> None:
        self._drawing = threading.Lock()
        """Guards what is drawn. Nothing is waited for while it is held: the thread that draws has Rich's locks."""
        self._rows: dict[int, _Row] = {}
        self._last: tuple[BatchProgress, float] | None = None
        self._hidden = True
        super().__init__(out, err, **how)  # Rich draws once at this point
        fancy = can_encode("✓\u2013✗■━…", self._err.encoding)
        self._marks = ("✓", "\u2013", "✗", "■") if fancy else ("+", "-", "x", "#")
        self._cut = "…" if fancy else "~"
        self._bar_mark = "━" if fancy else "-"

    def __enter__(self) -> Self:
        self._hidden = False
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        # Rich draws a last time, whatever the height of the terminal: that has to be nothing.
        self._hidden = True
        super().__exit__()

    # What has happened

    def _hand_over(self, path: str) -> None:
        if self._out is None or not SafeStream(self._out).isatty():
            super()._hand_over(path)
            return
        # The same terminal most likely: the block makes room, as the cursor stands within it.
        hidden, self._hidden = self._hidden, True
        try:
            self._live.refresh()
            super()._hand_over(path)
        finally:
            self._hidden = hidden
        self._live.refresh()

    def _running(self, event: ClipEvent, name: str) -> None:
        of = event.of
        with self._drawing:
            before = self._rows.get(event.index)
            progress = of if of is not None and of.event == "progress" else before[1] if before else None
            self._rows[event.index] = (name, progress)

    def _gone(self, index: int) -> None:
        with self._drawing:
            self._rows.pop(index, None)

    def _made(self, name: str, text: str) -> None:
        self._say(f"{self._marks[0]} {name}: {text}", "green")

    def _skipped(self, name: str, frames: int | None) -> None:
        del frames
        self._say(f"{self._marks[1]} {name}: skipped, {SKIPPED}", "dim")

    def _failed(self, name: str, failed: Failed | None, seconds: float | None) -> None:
        del seconds
        self._say(f"{self._marks[2]} {name}: {failed_text(failed, '  ')}", "red")

    def _stopped(self, name: str) -> None:
        self._say(f"{self._marks[3]} {name}: stopped; what is finished is kept", "yellow")

    def _total(self, progress: BatchProgress) -> None:
        with self._drawing:
            self._last = (progress, self._clock())
        self._share.show(progress.frame, progress.total, "batch")

    def _finish(self, report: Report) -> None:
        # What comes now is the end: nothing is drawn beneath it any more.
        self._hidden = True
        self._live.refresh()
        self._close(report, max(20, self._console.width))

    # What is drawn, by a thread of Rich's own

    def _draw(self) -> Text:
        from rich.cells import cell_len
        from rich.text import Text

        with self._drawing:
            rows = [self._rows[index] for index in sorted(self._rows)]
            last = self._last
        if self._hidden:
            self._height = 0
            return Text("")
        width, height = self._console.size
        # The lowest line that scrolled past stays in sight even on a small terminal.
        height = max(1, height - 1)
        lines = self._total_lines(last, width)[:height]
        room = height - len(lines)
        if len(rows) > room:
            rows, left = rows[: max(0, room - 1)], len(rows) - max(0, room - 1)
            lines += self._clip_lines(rows, width)
            lines += [Text(f"and {left} more")] if room else []
        else:
            lines += self._clip_lines(rows, width)
        for line in lines:
            if cell_len(line.plain) > width:
                line.truncate(width - 1, overflow="crop")
                line.append(self._cut)
        self._height = len(lines)
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    def _total_lines(self, last: tuple[BatchProgress, float] | None, width: int) -> list[Text]:
        from rich.text import Text

        now = self._clock()
        if last is None:
            return [Text(f"starting, {clock_text(now - self._since)}")]
        progress, since = last
        eta = None if progress.eta_s is None else max(0.0, progress.eta_s - (now - since))
        parts = total_parts(progress, now - self._since, eta)
        share = progress.frame / progress.total if progress.total else 0.0
        percent = f" {_percent(progress.frame, progress.total)}"
        bar = self._bar(share, min(MOST_BAR, max(LEAST_BAR, width - len("total ") - len(percent))))
        return [Text.assemble(("total ", "bold"), bar, percent), *(Text(line) for line in wrapped(parts, width))]

    def _clip_lines(self, rows: list[_Row], width: int) -> list[Text]:
        if not rows:
            return []
        from rich.cells import cell_len
        from rich.text import Text

        texts = [_texts(progress) for _, progress in rows]
        widest = {part: max(len(text[part]) for text in texts) for part in texts[0]} | {"bar": LEAST_BAR}
        longest = max(cell_len(shown) for shown, _ in rows)
        for layout in LAYOUTS:
            columns = [part for part in layout if widest[part]]
            name = width - sum(widest[part] + 1 for part in columns)
            if name >= min(longest, LEAST_NAME):
                break
        bar = 0
        if "bar" in columns:
            bar = min(MOST_BAR, LEAST_BAR + max(0, name - longest))
            name -= bar - LEAST_BAR
        name = min(name, longest)
        lines = []
        for (full, progress), text in zip(rows, texts, strict=True):
            shown = middle(full, name, self._cut)
            line = Text(shown + " " * (name - cell_len(shown)))
            for part in columns:
                line.append(" ")
                if part == "bar":
                    line.append_text(self._bar(_share(progress), bar))
                else:
                    line.append(text[part].ljust(widest[part]) if part == "phase" else text[part].rjust(widest[part]))
            lines.append(line)
        return lines

    def _bar(self, share: float, cells: int) -> Text:
        from rich.text import Text

        done = max(0, min(cells, int(share * cells)))
        # Without colours what is missing would look like what is there.
        rest = " " if self._console.no_color or self._console.color_system is None else self._bar_mark
        return Text.assemble((self._bar_mark * done, "bar.complete"), (rest * (cells - done), "bar.back"))


def _percent(frame: int, total: int) -> str:
    return f"{100 * min(frame, total) // total if total else 0} %"


batch_renderer = partial(renderer, classes=(Silent, Plain, Bars))
"""The renderer of a batch: as `renderer`, and the paths of finished files go to stdout as they finish."""
