"""How long faults that may pass are borne: tries with growing pauses, until it has lasted too long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

__all__ = ["FIRST_PAUSE_S", "LONGEST_PAUSE_S", "Patience"]

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0


class Patience:
    """Bears faults for some seconds. For one thread at a time."""

    def __init__(
        self,
        seconds: float,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        silence_counts: bool = False,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        """Begin.

        Args:
            seconds: for how long faults are borne.
            first_pause_s: before the second try; doubled before each further one.
            longest_pause_s: that a pause grows to.
            silence_counts: count from now, and from each `renew`, so that a try in which nothing comes uses patience
                up too; otherwise the count begins with the first fault.
            rest: waits for at most that many seconds.
        """
        self.seconds = seconds
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._silence_counts = silence_counts
        self._rest = rest
        self.renew()

    def renew(self) -> None:
        """Forget the faults so far: something went forward since."""
        self._pause_s = self._first_pause_s
        self._since = time.monotonic() if self._silence_counts else None

    def bear(self) -> bool:
        """Rest after a fault until another try is due; False, at once, where faults have lasted too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        left = self._since + self.seconds - now
        if left <= 0:
            return False
        # Half of the pause is random, so that those who failed together do not all come back together.
        self._rest(min(left, self._pause_s * random.uniform(0.5, 1.0)))  # noqa: S311 - spreads load, hides nothing
        self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
        return True
