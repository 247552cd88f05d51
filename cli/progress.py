"""Events of a run -> a Rich bar, plain lines, or NDJSON; bars and lines go to stderr, NDJSON is data on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Self, TextIO, cast

from keyscale.cli.notices import TerminalShare
from keyscale.cli.terminal import SafeStream, printable, write_data
from keyscale.engine.choices import ProgressKind

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from keyscale.engine.batch.events import BatchEvent
    from keyscale.engine.events import Done, Event, Note, Progress

__all__ = [
    "Json",
    "Lines",
    "Live",
    "ProgressKind",
    "Renderer",
    "clock_text",
    "counted",
    "lost_text",
    "note_text",
    "rate_text",
    "renderer",
    "shown",
]

PLAIN_INTERVAL = 5.0
"""Least seconds between two plain lines within a phase."""


class Renderer(ABC):
    """Shows the events of one run or batch. A context manager; `handle` may be called from any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - most hold nothing
        pass

    @abstractmethod
    def handle(self, event: Event | BatchEvent) -> None:
        """Show one event.

        Raises:
            BrokenPipeError: the reader of stdout has left.
        """

    def restore(self) -> None:  # noqa: B027 - most draw nothing that stays
        """Give the terminal back just before the process is ended by force: no lock is taken."""


def renderer(
    kind: ProgressKind | str = ProgressKind.AUTO,
    *,
    classes: tuple[type[Lines], type[Lines], type[Lines]] | None = None,
    quiet: bool = False,
    verbosity: int = 0,
    report: str | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Renderer:
    """The renderer of a kind.

    Args:
        kind: One of `ProgressKind`.
        classes: Of silence, plain lines and live bars; None is those of a run.
        quiet: Hides progress, notes of level info and a batch's table; warnings, results and errors stay.
        verbosity: From 1 on, lines carry the time since the start, and notes of a batch of level info are shown.
        report: Where a batch's report will stand, for the hint at it; None where there will be none.
        stdout: Where data goes; None is `sys.stdout`.
        stderr: Where everything else goes; None is `sys.stderr`.
        clock: Monotonic seconds.
    """
    kind = ProgressKind(kind)
    out = stdout if stdout is not None else sys.stdout
    err = SafeStream(stderr if stderr is not None else sys.stderr)
    if kind is ProgressKind.JSON:
        return Json(out, quiet=quiet)
    silent, plain, bars = classes or (_Silent, _Plain, _Bar)
    if quiet or kind is ProgressKind.NONE:
        return silent(out, err, verbosity=0, clock=clock, report=report)
    dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
    wants_bars = kind is ProgressKind.RICH or (kind is ProgressKind.AUTO and err.isatty() and not dumb)
    return (bars if wants_bars else plain)(out, err, verbosity=verbosity, clock=clock, report=report)


@contextlib.contextmanager
def shown(view: Renderer) -> Iterator[Renderer]:
    """Show events within the block; an error that leaves it is the last of them."""
    from keyscale.engine.events import failure

    with view:
        try:
            yield view
        except (Exception, KeyboardInterrupt) as error:
            # The reader of the events may be what failed.
            with contextlib.suppress(OSError):
                view.handle(failure(error))
            raise


def clock_text(seconds: float) -> str:
    """`75` -> `"1:15"`, `3675` -> `"1:01:15"`."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def counted(progress: Progress) -> str:
    """How much of how much, with its unit."""
    if progress.unit == "frames":
        return f"{progress.frame}/{progress.total} frames" if progress.total else f"{progress.frame} frames"
    if progress.phase.value == "fetch" and not progress.frame and not progress.total:
        return "the network"  # it is loaded, from this machine
    return f"{progress.frame / 1e6:.1f}" + (f"/{progress.total / 1e6:.1f} MB" if progress.total else " MB")


def rate_text(fps: float | None, unit: str = "frames") -> str:
    """Units a second; empty where that is not known."""
    if fps is None:
        return ""
    if unit == "bytes":
        return f"{fps / 1e6:.3g} MB/s"
    return f"{fps:.3g} fps" if fps < 100 else f"{fps:.0f} fps"


def note_text(note: Note) -> str:
    """A note for people, safe to print."""
    return printable(f"warning: {note.message}" if note.level == "warning" else note.message)


def lost_text(done: Done) -> str | None:
    """The warning that frames of the source were bridged; None where none were."""
    if not done.lost_frames:
        return None
    lost, were = ("frame", "was") if done.lost_frames == 1 else ("frames", "were")
    return f"warning: {done.lost_frames} source {lost} could not be decoded and {were} bridged"


def _done_text(done: Done) -> str:
    if done.skipped:
        stored = "" if done.published is None else f", stored at {done.published}"
        return printable(f"done: {done.output} is already up to date{stored}")
    parts = [f"{done.frames} frames in {clock_text(done.seconds)}"]
    if done.resumed_frames:
        parts.append(f"{done.resumed_frames} taken from an earlier run")
    if done.device == "none":
        parts.append("sampled without a network")
    else:
        parts.append(f"{done.inferred_frames} computed by {done.model} ({done.runtime}, {done.device})")
    if done.remote is not None:
        if done.remote.local_frames:
            parts.append(f"{done.remote.local_frames} frames made here, as that failed remotely")
        parts.append(f"{done.remote.seconds:.0f} container seconds, ${done.remote.dollars:.3f} at list prices")
    if done.published is not None:
        parts.append(f"stored at {done.published}")
    return printable(f"done: {', '.join(parts)}")


class Json(Renderer):
    """NDJSON: an event a line, UTF-8, on stdout."""

    def __init__(self, out: TextIO | None, *, quiet: bool) -> None:
        self._out = out
        self._quiet = quiet
        self._lock = threading.Lock()
        self._closed = False

    def handle(self, event: Event | BatchEvent) -> None:
        """As of `Renderer.handle`; nothing comes after the last event."""
        from keyscale.engine.serialization import as_json

        if self._out is None or (self._quiet and _is_progress(event)):
            return
        text = as_json(event)
        with self._lock:
            # A signal's farewell and the run itself may both want the last word; a reader is promised one.
            if self._closed:
                return
            self._closed = event.event in ("done", "batch_done", "error")
            write_data(text + "\n", self._out, encoding="utf-8")


def _is_progress(event: Event | BatchEvent) -> bool:
    """Whether an event tells of no result and no fault."""
    if event.event == "note":
        return event.level == "info"
    if event.event != "clip":
        return event.event in ("progress", "batch")
    from keyscale.engine.batch.events import ENDED

    return event.status not in ENDED and (event.of is None or event.of.event != "note" or event.of.level != "warning")


class Lines(Renderer):
    """What is printed for people: lines on stderr, with the time since the start where more is asked for."""

    def __init__(
        self,
        out: TextIO | None,
        err: SafeStream,
        *,
        verbosity: int,
        clock: Callable[[], float],
        report: str | None = None,
    ) -> None:
        """Arguments as of `renderer`."""
        self._out = out
        self._err = err
        self._report = report
        self._verbosity = verbosity
        self._clock = clock
        self._since = clock()
        self._telling = threading.RLock()
        """Held while an event is shown, so that its lines stay together."""

    def _say(self, text: str, style: str = "") -> None:
        self._line(f"[{self._clock() - self._since:8.1f} s] {text}" if self._verbosity else text, style)

    def _line(self, text: str, style: str) -> None:  # noqa: ARG002 - what is plain has no style
        self._err.line(text)


class Live(Lines):
    """Lines above a block at the bottom of the terminal, which `_draw` draws again and again, in a thread of Rich's."""

    _redirect_stderr = True
    """Whether what libraries print goes above the block too."""

    def __init__(self, out: TextIO | None, err: SafeStream, **how: Any) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(out, err, **how)
        self._share = TerminalShare(err, os.environ)
        self._height = 1
        """Of the block, in lines."""
        # Rich would take a bar into a pipe for a mistake; a person who asks for one there wants it.
        self._console = Console(file=cast(IO[str], err), force_terminal=True)
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=self._redirect_stderr,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._err.write(self._share.end())
        self._err.flush()

    def restore(self) -> None:
        """As of `Renderer.restore`."""
        up = f"\x1b[{self._height - 1}A" if self._height > 1 else ""
        with contextlib.suppress(OSError, ValueError):
            os.write(self._err.fileno(), f"\r{up}\x1b[0J\x1b[?25h{self._share.end()}".encode())

    def _line(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style=style), soft_wrap=True)

    @abstractmethod
    def _draw(self) -> RenderableType:
        """What stands at the bottom of the terminal."""


class _Silent(Lines):
    """Warnings only."""

    def handle(self, event: Event | BatchEvent) -> None:
        text: str | None = None
        if event.event == "note" and event.level == "warning":
            text = note_text(event)
        elif event.event == "done":
            text = lost_text(event)
        if text:
            with self._telling:
                self._say(text)


class _Told(Lines):
    """All notes and the result; how far a phase is, each in its own way."""

    def handle(self, event: Event | BatchEvent) -> None:
        with self._telling:
            match event.event:
                case "progress":
                    self._progress(event)
                case "note":
                    self._say(note_text(event), "yellow" if event.level == "warning" else "")
                case "done":
                    self._end_phase()
                    if lost := lost_text(event):
                        self._say(lost, "yellow")
                    self._say(_done_text(event), "green")
                case _:
                    pass  # the end of the process prints an error, whatever the renderer

    @abstractmethod
    def _progress(self, progress: Progress) -> None:
        """Show how far a phase is."""

    def _end_phase(self) -> None:
        pass


class _Plain(_Told):
    """A line where a phase starts and ends, and every few seconds between."""

    def __init__(self, out: TextIO | None, err: SafeStream, **how: Any) -> None:
        super().__init__(out, err, **how)
        self._last: Progress | None = None
        self._phase_began = self._printed = self._since
        self._ended = False

    def _progress(self, progress: Progress) -> None:
        now = self._clock()
        whole = 0 < progress.total <= progress.frame
        if self._last is None or self._last.phase != progress.phase:
            self._end_phase()
            self._phase_began = self._printed = now
            self._ended = False
            if not whole:
                self._say(f"{progress.phase}: {counted(progress)}")
        self._last = progress
        if whole:
            self._end_phase()
        elif now - self._printed >= PLAIN_INTERVAL:
            self._printed = now
            parts = [counted(progress)]
            if progress.total:
                parts.append(f"{100 * progress.frame // progress.total} %")
            if progress.fps is not None:
                parts.append(rate_text(progress.fps, progress.unit))
            if progress.eta_s is not None:
                parts.append(f"ETA {clock_text(progress.eta_s)}")
            parts.append(f"elapsed {clock_text(now - self._since)}")
            self._say(f"{progress.phase}: {', '.join(parts)}")

    def _end_phase(self) -> None:
        if self._last is not None and not self._ended:
            self._ended = True
            self._say(f"{self._last.phase}: {counted(self._last)} in {clock_text(self._clock() - self._phase_began)}")


class _Bar(Live, _Told):
    """One live bar at the bottom of the terminal, notes above it."""

    _last: tuple[Progress, float] | None = None

    def _progress(self, progress: Progress) -> None:
        self._last = (progress, self._clock())
        self._share.show(progress.frame, progress.total, progress.phase)

    def _draw(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        now = self._clock()
        table = Table.grid(padding=(0, 1))
        elapsed = clock_text(now - self._since)
        if self._last is None:
            table.add_row("starting", elapsed)
            return table
        progress, since = self._last
        texts = [counted(progress)]
        if progress.fps is not None:
            texts.append(rate_text(progress.fps, progress.unit))
        if progress.eta_s is not None:
            texts.append(f"ETA {clock_text(progress.eta_s - (now - since))}")
        texts.append(elapsed)
        room = self._console.width - len(progress.phase) - sum(len(text) + 1 for text in texts) - 2
        total = float(progress.total) if progress.total else None
        bar = ProgressBar(total, progress.frame, width=max(4, min(40, room)), pulse=total is None)
        for column in range(len(texts) + 2):
            table.add_column(no_wrap=True, style="bold" if column == 0 else None)
        table.add_row(str(progress.phase), bar, *texts)
        return table
