"""The threads that a job starts, and who waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Keeper", "start_helper"]


class Keeper(threading.Thread):
    """A thread that does a job, and knows the threads that were started for it.

    A command ends its process and need not wait for threads that are busy in C code. A program goes on: whoever gave
    it a job back has to have ended all that the job began.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, target=work, daemon=True)
        self._helpers: list[threading.Thread] = []

    def keep(self, helper: threading.Thread) -> None:
        """Wait for this thread as well; called in the keeper's own thread."""
        self._helpers = [*(each for each in self._helpers if each.is_alive()), helper]

    def includes(self, thread: threading.Thread) -> bool:
        """Whether it is this thread or one of those that it waits for."""
        return thread is self or thread in self._helpers

    def run(self) -> None:
        """The job, then the end of every helper."""
        try:
            super().run()
        finally:
            for helper in self._helpers:
                helper.join()


def start_helper(name: str, work: Callable[[], None]) -> threading.Thread:
    """Run `work` in a thread of its own, which a `Keeper` that starts it waits for.

    A daemon: where a call into a network or a library cannot be interrupted, leaving the process must not wait for it.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    here = threading.current_thread()
    if isinstance(here, Keeper):
        here.keep(thread)
    return thread
