"""A clip of a batch: as its inputs name it, as it is given to a worker, and how it stands while the batch runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from keyscale.engine.batch.events import ClipStatus
from keyscale.engine.errors import FramingError, InputError, KeyscaleError, ModelError, UsageError
from keyscale.engine.events import Done, Failed, Progress
from keyscale.engine.job import Job
from keyscale.engine.options import Document
from keyscale.engine.workspace.folder import Identity

__all__ = ["BatchClip", "Clip", "ClipState"]

OF_THE_ROW = frozenset(kind.__name__ for kind in (UsageError, FramingError, InputError, ModelError))
"""Failures that what a manifest says of a clip may be the cause of."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video to make, or why there is none to make."""

    name: str
    """How people know it: its path beneath the folder, or as it was named."""
    video: Path
    link: str | None = None
    """The address of a video that is fetched; `video` is then what may be shown of it."""
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


@dataclass(eq=False)
class ClipState:
    """What is known of a clip while its batch runs; `ClipTable` has those of all."""

    index: int
    """From 0, in the order in which clips became known."""
    work: BatchClip
    status: ClipStatus = ClipStatus.WAITING
    frames: int | None = None
    """Of the result, once it was planned."""
    chunks: int = 1
    source_size: tuple[int, int] | None = None
    """Displayed pixels, width and height."""
    size: tuple[int, int] | None = None
    """The same of the result, once it was planned."""
    result: Done | Failed | None = None
    """How the last try ended. A worker's is not told before the worker is done with the clip."""
    messages: set[str] = field(default_factory=set)
    """Of the notes that were told."""
    warnings: list[str] = field(default_factory=list)
    """Those that the report keeps, each once."""
    more_warnings: int = 0
    """How many it does not keep."""
    began_s: float | None = None
    """When a worker first reported on it, in seconds of the table's clock."""
    seconds: float | None = None
    """From then to its end."""
    output_bytes: int | None = None

    # How it is handed out
    source_sha256: str | None = None
    """Known while its chunks are being made."""
    assistants: int = 0
    """Workers that make chunks of it beside its own."""
    waited: int = 0
    """How often its output was locked."""
    outdated: Identity | None = None
    """The result that it had when it became known, where that is to be replaced."""
    deaths: int = 0
    """How often its worker died."""
    lost: Failed | None = None
    """How the device failed on which it was made, where that ended its worker."""

    # What the remaining time is made of
    made: int = 0
    """Frames of the result that are there."""
    begun: bool = False
    """Whether upscaling has begun: the frames that were there before were not made in this run."""
    upscaling: bool = False
    complete_s: float | None = None
    """When the last frame was there and joining could begin."""
    progress: Progress | None = None
    """The last that was heard, and when."""
    progress_s: float = 0.0
    idle: float = 0.0
    """Its part of the seconds in which clips were worked on and none was upscaled."""

    @property
    def frames_left(self) -> int:
        """Frames that are not there yet."""
        return max(0, (self.frames or 0) - self.made)
