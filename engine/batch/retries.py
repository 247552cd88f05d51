"""Clips of a watched folder that failed by the machine's fault: tried again after a while, each time a longer one."""

from __future__ import annotations

from collections.abc import Iterable

from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.errors import EnvironmentFault, RemoteError
from keyscale.engine.events import Failed

__all__ = ["AGAIN_S", "MOST_AGAIN_S", "Again"]

AGAIN_S = 60.0
"""Seconds until a failed clip is tried again, at first."""

MOST_AGAIN_S = 3600.0
"""Seconds until it is tried again, at most: what is not mended is told once an hour."""

PASSING = frozenset({EnvironmentFault.exit_code, RemoteError.exit_code})
"""Exit codes of what may be mended elsewhere than in the clip: space, rights, memory, the network."""


class Again:
    """Which clips are tried again, and when.

    Args:
        first_s: seconds until the first time; doubled with each further one, up to `MOST_AGAIN_S`.
    """

    def __init__(self, first_s: float = AGAIN_S) -> None:
        self._first_s = first_s
        self._failures: dict[tuple[str, str], tuple[BatchClip, int, float | None]] = {}
        """By video and output: the clip, how often it has failed, and when it is tried again; None while it is."""

    def failed(self, work: BatchClip, last: Failed, now: float) -> float | None:
        """Seconds until a clip is tried again that failed just now; None where the fault is its own.

        Args:
            work: the clip.
            last: how it failed.
            now: monotonic seconds.
        """
        _, times, _ = self._failures.pop((work.video, work.output), (work, 0, None))
        if work.job is None or last.exit_code not in PASSING:
            return None
        times += 1
        wait = min(self._first_s * 2.0 ** min(times - 1, 32), MOST_AGAIN_S)
        self._failures[work.video, work.output] = (work, times, now + wait)
        return wait

    def succeeded(self, work: BatchClip) -> None:
        """It is no longer tried again."""
        self._failures.pop((work.video, work.output), None)

    def due(self, now: float, besides: Iterable[BatchClip]) -> list[BatchClip]:
        """The clips to try again now, each once.

        Args:
            now: monotonic seconds.
            besides: clips that are tried anyhow, as they have changed.
        """
        for work in besides:
            self.succeeded(work)
        due = [work for work, _, at in self._failures.values() if at is not None and at <= now]
        for work in due:
            self._failures[work.video, work.output] = (*self._failures[work.video, work.output][:2], None)
        return due
