"""The right to run networks in a process that does several jobs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["Turn"]

POLL_S = 0.05


class Turn:
    """The right to run networks: one job at a time has it, so that two do not take the cores from each other.

    A job whose turn it is not reads its source and fills its queues meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self, check: Callable[[], None]) -> Iterator[None]:
        """Have the turn within the block; `check` is called while it is waited for, and ends that by raising."""
        while not self._lock.acquire(timeout=POLL_S):
            check()
        try:
            yield
        finally:
            self._lock.release()
