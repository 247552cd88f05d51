"""How long all calls of a job wait for a GPU at once: what is told of that, and when it was too long.

No clock runs here and nothing is called.
"""

from __future__ import annotations

from collections.abc import Sequence

from keyscale.engine.errors import RemoteError
from keyscale.engine.wording import say

__all__ = ["Waiting"]

TOLD_S = 10.0, 60.0, 300.0
"""When it is told that calls wait, in seconds; from the last one on again after as much."""


class Waiting:
    """The time in which not one of a job's calls has begun."""

    def __init__(self, gpus: Sequence[str], longest_s: float) -> None:
        """Nothing waits.

        Args:
            gpus: that are asked for, in order of preference; none where the functions run on CPUs.
            longest_s: after which the job ends.
        """
        self.longest_s = longest_s
        kinds = " or ".join(filter(None, (", ".join(gpus[:-1]), *gpus[-1:])))
        self._what = f"a GPU ({kinds})" if kinds else "a container"
        self._since: float | None = None
        self._told = 0

    def look(self, queued: int, busy: int, now: float) -> str | None:
        """What a person should know now, if anything.

        Args:
            queued: calls that have not begun.
            busy: calls that have not ended, those included.
            now: seconds, monotonic.

        Raises:
            RemoteError: all have waited for too long.
        """
        if not busy or queued < busy:
            told, since, self._told, self._since = self._told, self._since, 0, None
            return f"calls run, after {_time(now - since)}" if told and busy and since is not None else None
        self._since = now if self._since is None else self._since
        waited = now - self._since
        calls = "1 call" if queued == 1 else f"{queued} calls"
        if waited >= self.longest_s:
            raise RemoteError(
                f"{calls} waited {_time(waited)} for {self._what}, and none came",
                remedy=say(
                    "Run the same command later: finished chunks are kept. Or deploy with other GPUs in KEYSCALE_GPU, "
                    "or give a longer {max_queue}."
                ),
            )
        due = TOLD_S[self._told] if self._told < len(TOLD_S) else TOLD_S[-1] * (self._told - len(TOLD_S) + 2)
        if waited < due:
            return None
        self._told += 1
        wait = "waits" if queued == 1 else "wait"
        bound = say("{max_queue} ends the job after {}", _time(self.longest_s))
        return say("{} {} for {}, for {} so far; {}", calls, wait, self._what, _time(waited), bound)


def _time(seconds: float) -> str:
    """`75` -> `"75 s"`, `240` -> `"4 min"`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
