"""A batch in lines: what each event means to people, and the renderers that print it as it comes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, TextIO

from keyscale.cli.batch_text import SKIPPED, closing_text, done_text, failed_text, one_line, summary, total_parts
from keyscale.cli.progress import Lines, clock_text, lost_text, note_text
from keyscale.cli.terminal import SafeStream, write_path

if TYPE_CHECKING:
    from keyscale.engine.batch.events import BatchEvent, BatchProgress, ClipEvent, Report
    from keyscale.engine.events import Event, Failed, Note

__all__ = ["TOTAL_INTERVAL", "BatchLines", "Plain", "Silent"]

TOTAL_INTERVAL = 30.0
"""Least seconds between two plain lines on the whole batch."""

LOOKED_AT = frozenset({"connect", "prepare"})
"""Phases that a clip goes through as well whose result is there already."""


class BatchLines(Lines):
    """What renderers for people have in common: what an event means. Itself it shows notes and failures alone."""

    def __init__(self, out: TextIO | None, err: SafeStream, **how: Any) -> None:
        super().__init__(out, err, **how)
        self._began: dict[int, float] = {}
        """When the clips that run were begun."""
        self._ended: set[int] = set()

    def handle(self, event: Event | BatchEvent) -> None:
        """As of `Renderer.handle`."""
        with self._telling:
            match event.event:
                case "clip":
                    self._clip(event)
                case "batch":
                    self._total(event)
                case "batch_done":
                    self._finish(event.report)
                case "note":
                    self._note(note_text(event), event)
                case _:
                    pass  # the end of the process prints an error, whatever the renderer

    def _clip(self, event: ClipEvent) -> None:
        from keyscale.engine.batch.events import ENDED, ClipStatus

        if event.index in self._ended:
            return
        name, of = one_line(event.clip, self._err.encoding), event.of
        if event.status is ClipStatus.RUNNING:
            self._began.setdefault(event.index, self._clock())
        if of is not None and of.event == "note":
            if of.level == "warning" or self._verbosity:
                self._note(f"{name}: {note_text(of)}", of)
        elif event.status is ClipStatus.RUNNING:
            self._running(event, name)
        if event.status in ENDED:
            self._ended.add(event.index)
            self._ending(event, name, self._began.pop(event.index, None))
        elif event.status is ClipStatus.WAITING:
            self._began.pop(event.index, None)
            self._gone(event.index)

    def _ending(self, event: ClipEvent, name: str, began: float | None) -> None:
        from keyscale.engine.batch.events import ClipStatus

        self._gone(event.index)
        of = event.of
        if of is not None and of.event == "done":
            if lost := lost_text(of):
                self._say(f"{name}: {lost}", "yellow")
            if event.status is ClipStatus.DONE:
                self._made(name, done_text(of))
                self._hand_over(of.output)
            else:
                self._skipped(name, of.frames)
        elif event.status is ClipStatus.FAILED:
            failed = of if of is not None and of.event == "error" else None
            self._failed(name, failed, None if began is None else self._clock() - began)
        elif event.status is ClipStatus.STOPPED and began is not None:
            self._stopped(name)
        elif event.status is ClipStatus.SKIPPED:
            self._skipped(name, event.frames)

    def _hand_over(self, path: str) -> None:
        write_path(path, self._out)

    def _note(self, text: str, note: Note) -> None:
        self._say(text, "yellow" if note.level == "warning" else "")

    def _running(self, event: ClipEvent, name: str) -> None:
        pass

    def _gone(self, index: int) -> None:
        pass

    def _made(self, name: str, text: str) -> None:
        pass

    def _skipped(self, name: str, frames: int | None) -> None:
        pass

    def _stopped(self, name: str) -> None:
        pass

    def _failed(self, name: str, failed: Failed | None, seconds: float | None) -> None:
        after = "" if seconds is None else f" after {clock_text(seconds)}"
        self._say(f"{name}: failed{after}: {failed_text(failed, '  ')}", "red")

    def _total(self, progress: BatchProgress) -> None:
        pass

    def _finish(self, report: Report) -> None:
        pass

    def _close(self, report: Report, width: int | None) -> None:
        if lines := summary(report, width=width, path=self._report, encoding=self._err.encoding):
            self._line("\n".join(lines), "")
        self._line(closing_text(report), "red" if report.failed else "green")


class Silent(BatchLines):
    """Warnings and failures only, and in the end how many failed."""

    def _note(self, text: str, note: Note) -> None:
        if note.level == "warning":
            self._say(text)

    def _finish(self, report: Report) -> None:
        if report.failed:
            self._line(closing_text(report), "")


class Plain(BatchLines):
    """A line where a clip begins and ends, and every half minute one on all of them."""

    _printed: float | None = None
    """When the last line on all of them was."""

    def __init__(self, out: TextIO | None, err: SafeStream, **how: Any) -> None:
        super().__init__(out, err, **how)
        self._told: set[int] = set()
        """Running clips that were said to have begun."""

    def _running(self, event: ClipEvent, name: str) -> None:
        of = event.of
        # Of hundreds that are there already it is enough to hear that they were skipped.
        if of is None or of.event != "progress" or of.phase in LOOKED_AT or event.index in self._told:
            return
        self._told.add(event.index)
        self._say(f"{name}: begun, {event.frames} frames" if event.frames is not None else f"{name}: begun")

    def _gone(self, index: int) -> None:
        self._told.discard(index)

    def _made(self, name: str, text: str) -> None:
        self._say(f"{name}: done, {text}")

    def _skipped(self, name: str, frames: int | None) -> None:
        held = "" if frames is None else f" ({frames} frames)"
        self._say(f"{name}: skipped, {SKIPPED}{held}")

    def _stopped(self, name: str) -> None:
        self._say(f"{name}: stopped; what is finished is kept")

    def _total(self, progress: BatchProgress) -> None:
        now = self._clock()
        if now - (self._printed or self._since) >= TOTAL_INTERVAL:
            self._printed = now
            self._say(", ".join(total_parts(progress, now - self._since, progress.eta_s)))

    def _finish(self, report: Report) -> None:
        self._close(report, max(20, shutil.get_terminal_size().columns) if self._err.isatty() else None)
