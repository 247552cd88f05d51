"""A clip of a batch as it is given to whoever makes it."""

from __future__ import annotations

from dataclasses import dataclass

from keyscale.engine.errors import KeyscaleError
from keyscale.engine.job import Job

__all__ = ["BatchClip"]


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
