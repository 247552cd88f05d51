"""A clip of a batch as it is given to whoever makes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from keyscale.engine.errors import FramingError, InputError, KeyscaleError, ModelError, UsageError
from keyscale.engine.job import Failed, Job

__all__ = ["BatchClip"]

OF_THE_ROW = frozenset(kind.__name__ for kind in (UsageError, FramingError, InputError, ModelError))
"""Failures that what a manifest says of a clip may be the cause of."""


@dataclass(frozen=True, kw_only=True)
class BatchClip:
    """One clip: a job, or why there can be none."""

    name: str
    """How people know it: its path beneath the folder, or as the manifest names it."""
    video: str
    keyframes: str | None
    output: str
    job: Job | None = None
    fault: KeyscaleError | None = None
    """Set where `job` is not: the clip fails with it, and the others go on."""
    where: str = ""
    """Manifest and line that name it; empty where none does."""

    def named(self, failed: Failed) -> Failed:
        """The failure, with manifest and line where they may be at fault and are not in its message yet."""
        if not self.where or failed.error not in OF_THE_ROW or failed.message.startswith(self.where):
            return failed
        return replace(failed, message=f"{self.where}: {failed.message}")
