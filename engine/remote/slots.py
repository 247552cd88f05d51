"""How many calls run at once, where several jobs of a process share that number."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Share", "Slots"]


class Slots:
    """So many calls at once. Jobs stand in line for them, each with one place: a long one does not keep others out."""

    def __init__(self, count: int | None = None) -> None:
        """All are free.

        Args:
            count: how many there are; None for as many as `at_most` allows.
        """
        self._lock = threading.Lock()
        self._count = count
        self._taken = 0
        self._line: deque[Share] = deque()

    def share(self, wake: Callable[[], object] = lambda: None) -> Share:
        """A job's part in them.

        Args:
            wake: called, from any thread, when it is the job's turn to `take` again; returns at once.
        """
        return Share(self, wake)

    def at_most(self, count: int) -> None:
        """Let there be no more than `count`; those that are taken stay so."""
        with self._lock:
            self._count = count if self._count is None else min(self._count, count)

    @property
    def _is_free(self) -> bool:
        return self._count is None or self._taken < self._count

    @property
    def _next(self) -> Share | None:
        return self._line[0] if self._line and self._is_free else None


class Share:
    """A job's part in `Slots`. May be used by several threads; `close` it, or use it in a `with` statement."""

    def __init__(self, slots: Slots, wake: Callable[[], object]) -> None:
        self._slots, self._wake = slots, wake
        self._held = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> bool:
        """A slot, if one is free and no other job asked before; else a place in the line, kept until it is this
        job's turn, or until `withdraw`."""
        slots = self._slots
        with slots._lock:
            first = slots._line[0] if slots._line else self
            taken = slots._is_free and first is self
            if taken:
                self._count(1)
                if slots._line:
                    slots._line.popleft()
            elif self not in slots._line:
                slots._line.append(self)
            after = slots._next if taken else None
        if after is not None:
            after._wake()  # further ones may be free
        return taken

    def occupy(self) -> None:
        """Count one that is in use already, whether or not one is free."""
        with self._slots._lock:
            self._count(1)

    def give(self) -> None:
        """Give one back."""
        self._leave(give=1, withdraw=False)

    def withdraw(self) -> None:
        """Leave the line: nothing more is wanted for now."""
        self._leave(give=0, withdraw=True)

    def close(self) -> None:
        """Leave the line and give back whatever is held; again is no error."""
        self._leave(give=None, withdraw=True)

    def _leave(self, *, give: int | None, withdraw: bool) -> None:
        slots = self._slots
        with slots._lock:
            # Not below none: `close` may have come before a thread that gives its own back.
            back = min(self._held, self._held if give is None else give)
            self._count(-back)
            left = withdraw and self in slots._line
            if left:
                slots._line.remove(self)
            after = slots._next if back or left else None
        if after is not None:
            after._wake()

    def _count(self, change: int) -> None:
        self._held += change
        self._slots._taken += change
