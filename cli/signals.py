"""A run's events shown; SIGINT, SIGTERM and SIGHUP ask it to stop, and end the process where it does not.

A handler written in Python runs between two bytecodes of the main thread: not while that thread waits in C
code, and for ever if it takes a lock that the main thread holds just then. So the interpreter's own wakeup
socket hands the signal's number to a thread that may lock, print and wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from keyscale.cli.raising import raise_soon

if TYPE_CHECKING:
    from keyscale.cli.progress import Renderer
    from keyscale.engine.batch.events import BatchEvent
    from keyscale.engine.events import Event

__all__ = ["GRACE", "SignalReceived", "Stopping", "show_events", "stopping"]

T = TypeVar("T", bound="Event | BatchEvent")

GRACE = 1.5
"""Seconds from the first signal until the process is ended by force."""

COURTESY = 0.25
"""Seconds that a message may take before it is given up: its reader may have stopped reading."""


HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""A terminal that was closed, or a connection that dropped; None on systems that have no such signal."""
HANDLED = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


class SignalReceived(KeyboardInterrupt):
    """Raised in the main thread by a signal while nothing there watches `Stopping.stop`."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.exit_code = 128 + signum


class Stopping:
    """What a run knows of the signals that reached it."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        """Set by the first signal."""
        self.cooperative = False
        """Whether the main thread watches `stop`; while it does not, a signal raises `SignalReceived` in it."""
        self.signum: int | None = None
        """The first signal's number."""

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.signum if self.signum is not None else signal.SIGINT)


@contextlib.contextmanager
def stopping(
    *,
    announce: Callable[[], None],
    farewell: Callable[[int], None],
    restore: Callable[[], None],
    grace: float = GRACE,
) -> Iterator[Stopping]:
    """Handle SIGINT, SIGTERM and SIGHUP within the block; the handlers from before are back after it.

    The first signal sets `Stopping.stop` and calls `announce`. Where the block is not left `grace` seconds
    later, and at a second signal, `farewell(exit_code)` and `restore()` are called and the process ends at
    once; a further SIGHUP counts for none, since a terminal that is closed may send several. All three are
    called from other threads. Outside the main thread, and for a signal that is ignored (`nohup`, a shell's
    `&`), nothing is installed.
    """
    state = Stopping()
    handled = (
        [number for number in HANDLED if signal.getsignal(number) is not signal.SIG_IGN]
        if threading.current_thread() is threading.main_thread()
        else []
    )
    if not handled:
        yield state
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    ending = threading.Lock()  # taken once: by the end of the block, or to end the process by force

    def on_signal(signum: int, frame: FrameType | None) -> None:
        if not state.cooperative:
            raise_soon(frame, SignalReceived(signum))

    def end_by_force(code: int) -> None:
        if ending.acquire(blocking=False):
            _within(COURTESY, lambda: farewell(code))
            _within(COURTESY, restore)
            os._exit(code)

    def watch() -> None:
        deadline: float | None = None
        while True:
            reader.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            try:
                data = reader.recv(1)
            except TimeoutError:
                return end_by_force(state.exit_code)
            if not data:
                return None
            signum = data[0]
            # The socket receives the numbers of all signals that have a Python handler.
            if signum not in handled or (deadline is not None and signum == HANGUP):
                continue
            if deadline is not None:
                return end_by_force(128 + signum)
            deadline = time.monotonic() + grace
            state.signum = signum
            state.stop.set()
            _within(COURTESY, announce)

    thread = threading.Thread(target=watch, name="keyscale-signals", daemon=True)
    thread.start()
    # While handlers are changed nothing may be raised here: half of them would stay in place.
    state.cooperative = True
    old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    old = {number: signal.signal(number, on_signal) for number in handled}
    try:
        state.cooperative = False
        yield state
    finally:
        state.cooperative = True
        ending.acquire()
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_fd)
        writer.close()
        thread.join()
        reader.close()


def show_events(
    start: Callable[[threading.Event], Generator[T, None, None]],
    view: Renderer,
    *,
    kept: str,
    remedy: str,
    grace: float = GRACE,
) -> T | None:
    """Show the events of a run, which signals end cleanly; the last of them.

    Args:
        start: begins the run; what it is given is set once it has to stop.
        view: shows them.
        kept: what becomes of unfinished work, for people.
        remedy: how to go on after an interruption.
        grace: seconds from the first signal until the process is ended by force.

    Raises:
        Interrupted: a signal ended it before it had finished.
        KeyscaleError: whatever else failed.
    """
    from keyscale.cli.terminal import show_failure
    from keyscale.engine.errors import Interrupted
    from keyscale.engine.events import Note, failure

    def announce() -> None:
        view.handle(Note(level="info", message=f"stopping: {kept}"))

    def farewell(exit_code: int) -> None:
        failed = failure(Interrupted("interrupted", remedy=remedy, exit_code=exit_code))
        view.handle(failed)
        show_failure(failed)

    last: T | None = None
    with stopping(announce=announce, farewell=farewell, restore=view.restore, grace=grace) as state:
        events = start(state.stop)
        state.cooperative = True
        try:
            for last in events:
                view.handle(last)
        except Interrupted as error:
            error.exit_code = state.exit_code
            error.remedy = error.remedy or remedy
            raise
        finally:
            # Reached early where the view raised: the run must not go on for a reader that left.
            state.stop.set()
            events.close()
    return last


def _within(seconds: float, call: Callable[[], None]) -> None:
    def guarded() -> None:
        with contextlib.suppress(Exception):
            call()

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(seconds)
