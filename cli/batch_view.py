"""Events of a batch -> live bars, plain lines, or NDJSON; the paths of finished files go to stdout as they finish.

As in `progress.py`, what is for people goes to stderr and never stops the batch; data goes to stdout, and a reader of
it that left raises `BrokenPipeError`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from keyscale.cli.batch_bars import Bars
from keyscale.cli.batch_lines import Plain, Silent
from keyscale.cli.progress import ProgressKind, bar_wanted
from keyscale.cli.terminal import SafeStream, write_data

if TYPE_CHECKING:
    from keyscale.engine.batch.events import BatchEvent
    from keyscale.engine.events import Failed, Note

__all__ = ["BatchRenderer", "batch_renderer"]


class BatchRenderer(Protocol):
    """Shows the events of one batch. A context manager; `handle` may be called from any thread."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def handle(self, event: BatchEvent | Note | Failed) -> None:
        """Show one event: of the batch, a note on all of it, or why there will be no `BatchDone`.

        Raises:
            BrokenPipeError: the reader of stdout has left.
        """

    def restore(self) -> None:
        """Give the terminal back just before the process is ended by force: no lock is taken."""


def batch_renderer(
    kind: ProgressKind | str = ProgressKind.AUTO,
    *,
    quiet: bool = False,
    verbosity: int = 0,
    report: str | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> BatchRenderer:
    """The renderer of a kind.

    Args:
        kind: One of `ProgressKind`.
        quiet: Hides progress, notes of level info and the table; warnings, results and errors stay.
        verbosity: From 1 on, notes of level info are shown, and lines carry the time since the start.
        report: Where the report will stand, for the hint at it; None where there will be none.
        stdout: Where data goes; None is `sys.stdout`.
        stderr: Where everything else goes; None is `sys.stderr`.
        clock: Monotonic seconds.
    """
    kind = ProgressKind(kind)
    out = stdout if stdout is not None else sys.stdout
    err = SafeStream(stderr if stderr is not None else sys.stderr)
    if kind is ProgressKind.JSON:
        return _Json(out, quiet=quiet)
    if quiet or kind is ProgressKind.NONE:
        return Silent(out, err, verbosity=0, clock=clock)
    if bar_wanted(kind, err):
        return Bars(out, err, verbosity=verbosity, clock=clock, report=report)
    return Plain(out, err, verbosity=verbosity, clock=clock, report=report)


class _Json:
    """NDJSON: an event a line, UTF-8, on stdout."""

    def __init__(self, out: TextIO | None, *, quiet: bool) -> None:
        self._out = out
        self._quiet = quiet
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def restore(self) -> None:
        pass

    def handle(self, event: BatchEvent | Note | Failed) -> None:
        from keyscale.engine.serialization import as_json

        if self._out is None or (self._quiet and _is_progress(event)):
            return
        text = as_json(event)
        with self._lock:
            # A signal's farewell and the batch itself may both want the last word; a reader is promised one.
            if self._closed:
                return
            self._closed = event.event in ("batch_done", "error")
            write_data(text + "\n", self._out, encoding="utf-8")


def _is_progress(event: BatchEvent | Note | Failed) -> bool:
    if event.event == "note":
        return event.level == "info"
    if event.event != "clip":
        return event.event == "batch"
    from keyscale.engine.batch.events import ENDED

    warns = event.of is not None and event.of.event == "note" and event.of.level == "warning"
    return event.status not in ENDED and not warns
