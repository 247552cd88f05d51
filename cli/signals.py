"""SIGINT, SIGTERM and SIGHUP during a run: ask it to stop, and end the process where it does not.

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
from collections.abc import Callable, Iterator
from types import FrameType

from keyscale.cli.importing import raise_outside_imports

__all__ = ["GRACE", "Stopped", "Stopping", "stopping"]

GRACE = 1.5
"""Seconds from the first signal until the process is ended by force."""

COURTESY = 0.25
"""Seconds that a message may take before it is given up: its reader may have stopped reading."""


HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""A terminal that was closed, or a connection that dropped; None on systems that have no such signal."""
HANDLED = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


class Stopped(KeyboardInterrupt):
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
        """Whether the main thread watches `stop`; while it does not, a signal raises `Stopped` in it."""
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

    def on_signal(signum: int, frame: FrameType | None) -> None:
        if not state.cooperative:
            raise_outside_imports(frame, Stopped(signum))

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = _Watcher(
        state=state,
        reader=reader,
        handled=handled,
        grace=grace,
        announce=announce,
        farewell=farewell,
        restore=restore,
    )
    thread = threading.Thread(target=watcher.run, name="keyscale-signals", daemon=True)
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
        watcher.dismiss()
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_fd)
        writer.close()
        thread.join()
        reader.close()


class _Watcher:
    def __init__(
        self,
        *,
        state: Stopping,
        reader: socket.socket,
        handled: list[int],
        grace: float,
        announce: Callable[[], None],
        farewell: Callable[[int], None],
        restore: Callable[[], None],
    ) -> None:
        self._state = state
        self._reader = reader
        self._handled = handled
        self._grace = grace
        self._announce = announce
        self._farewell = farewell
        self._restore = restore
        self._gate = threading.Lock()
        self._dismissed = False

    def dismiss(self) -> None:
        """After this returns the process is no longer ended by force."""
        with self._gate:
            self._dismissed = True

    def run(self) -> None:
        deadline: float | None = None
        while True:
            self._reader.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            try:
                data = self._reader.recv(1)
            except TimeoutError:
                self._leave(self._state.exit_code)
                return
            if not data:
                return
            if data[0] not in self._handled:  # the socket is told of every signal that has a Python handler
                continue
            if deadline is not None:
                if data[0] == HANGUP:
                    continue
                self._leave(128 + data[0])
                return
            deadline = time.monotonic() + self._grace
            self._state.signum = data[0]
            self._state.stop.set()
            _within(COURTESY, self._announce)

    def _leave(self, code: int) -> None:
        with self._gate:
            if self._dismissed:
                return
            _within(COURTESY, lambda: self._farewell(code))
            _within(COURTESY, self._restore)
            os._exit(code)


def _within(seconds: float, call: Callable[[], None]) -> None:
    def guarded() -> None:
        with contextlib.suppress(Exception):
            call()

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(seconds)
