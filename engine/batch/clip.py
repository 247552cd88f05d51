"""A clip of a batch: as its inputs name it, before any flag is applied to it, and as it is given to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from keyscale.engine.errors import FramingError, InputError, KeyscaleError, ModelError, UsageError
from keyscale.engine.events import Failed
from keyscale.engine.job import Job
from keyscale.engine.options import Document

__all__ = ["BatchClip", "Clip"]

OF_THE_ROW = frozenset(kind.__name__ for kind in (UsageError, FramingError, InputError, ModelError))
"""Failures that what a manifest says of a clip may be the cause of."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video to make, or why there is none to make."""

    name: str
    """How people know it: its path beneath the folder, or as it was named."""
    video: Path
    keyframes: Path | None = None
    """None where the whole picture is used, and where `fault` says that they are missing."""
    stem: Path
    """Where the result goes beneath the output folder, without a suffix."""
    output: Path | None = None
    """Where a manifest wants it beneath the output folder, unchecked; None follows `stem`."""
    options: Mapping[str, Document] = field(default_factory=dict)
    """Flags of this clip alone, by name without the dashes before it (`no-audio`), unchecked."""
    where: str = ""
    """Manifest and line, for messages; empty where no manifest named it."""
    fault: KeyscaleError | None = None
    """Why nothing can be made of it; the other clips go on."""


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
