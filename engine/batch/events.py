"""What a batch tells: events of its clips, how far all of it is, the report in the end. Frozen, with a JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from keyscale.engine.events import Done, Failed, Note, Progress
from keyscale.engine.job import JOB_VERSION

__all__ = [
    "ENDED",
    "REPORT_VERSION",
    "BatchDone",
    "BatchEvent",
    "BatchProgress",
    "ClipEvent",
    "ClipReport",
    "ClipStatus",
    "Fault",
    "Report",
]


REPORT_VERSION = 1
"""Of the fields of `Report`; raised when one changes its meaning."""


class ClipStatus(StrEnum):
    """Where a clip stands; the last four are how it ends."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    """Its result was there already and came from the same source, framing, settings and engine."""
    FAILED = "failed"
    STOPPED = "stopped"
    """The batch was interrupted before it was finished; what it has is kept."""


ENDED = frozenset({ClipStatus.DONE, ClipStatus.SKIPPED, ClipStatus.FAILED, ClipStatus.STOPPED})


@dataclass(frozen=True, kw_only=True)
class ClipEvent:
    """Something happened to one clip."""

    event: Literal["clip"] = "clip"
    schema: int = JOB_VERSION
    index: int
    """From 0, in the order in which clips became known."""
    clip: str
    """How people know it: its path beneath the folder, or as the manifest names it."""
    status: ClipStatus
    frames: int | None = None
    """Frames of the result, once it was planned."""
    source_size: tuple[int, int] | None = None
    """Displayed pixels of the source, width and height, once it was planned."""
    of: Progress | Note | Done | Failed | None = None
    """The clip's own event; the last one of a clip is `Done` or `Failed`."""


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """Where the batch stands; at least every 2 s. `frame` never goes back."""

    event: Literal["batch"] = "batch"
    schema: int = JOB_VERSION
    clips: int
    """Known so far; `done`, `skipped`, `failed` and `running` of them."""
    done: int
    skipped: int
    failed: int
    running: int
    planned: int
    """Clips whose frames are known; `total` counts those."""
    frame: int
    """Frames of results that are there, with those that earlier runs had made."""
    total: int
    fps: float | None = None
    """Frames of results a second over the recent past; None until measured."""
    eta_s: float | None = None
    """None until every clip is planned and a rate was measured, and once a clip was stopped."""
    dollars: float | None = None
    """What remote calls took so far at list prices; None where all is made here."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a clip failed, or the report's file could not be written."""

    error: str
    """Class name of the error."""
    message: str
    remedy: str | None
    exit_code: int
    """Of its kind, as a run of that clip alone would have ended with."""

    @classmethod
    def of(cls, failed: Failed) -> Fault:
        """What `failed` tells, without its being an event."""
        return cls(error=failed.error, message=failed.message, remedy=failed.remedy, exit_code=failed.exit_code)


@dataclass(frozen=True, kw_only=True)
class ClipReport:
    """What became of one clip."""

    clip: str
    status: ClipStatus
    video: str
    keyframes: str | None
    output: str
    frames: int | None = None
    """Of the result; None where it was never planned."""
    seconds: float | None = None
    """Wall-clock seconds of this run's work on it."""
    fps: float | None = None
    """Frames that were made in this run, by those seconds."""
    source_size: tuple[int, int] | None = None
    """Displayed pixels, width and height."""
    size: tuple[int, int] | None = None
    """Pixels of the result."""
    output_bytes: int | None = None
    resumed_frames: int = 0
    lost_frames: int = 0
    device: str | None = None
    """With its precision, such as `cpu int8`."""
    runtime: str | None = None
    """What ran the network on it, such as `openvino`."""
    model: str | None = None
    look: float | None = None
    strength: float | None = None
    steady: float | None = 0.0
    """As of `Done`."""
    key: str | None = None
    """SHA-256 over all that decides the result; the result's file carries it too."""
    dollars: float | None = None
    published: str | None = None
    warnings: tuple[str, ...] = ()
    error: Fault | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a batch; `report.json` is this."""

    version: int = REPORT_VERSION
    keyscale: str
    """Version of the engine."""
    began: str
    """UTC, ISO 8601."""
    seconds: float
    finished: bool
    """False in what is written while the batch goes on, and after an interruption."""
    done: int
    skipped: int
    failed: int
    stopped: int
    """Neither finished nor failed: waiting, running, or interrupted."""
    frames: int
    """Of all results that were made in this run."""
    dollars: float | None
    clips: tuple[ClipReport, ...]
    """All that are known, in order. Where a folder is watched: without those whose video changed and was made again,
    and of those done or skipped the last 10,000; the numbers above count the others too."""


@dataclass(frozen=True, kw_only=True)
class BatchDone:
    """The last event of a batch."""

    event: Literal["batch_done"] = "batch_done"
    schema: int = JOB_VERSION
    report: Report
    unwritten: Fault | None = None
    """Why the report's file could not be written; None where it was, or none was asked for."""


BatchEvent = ClipEvent | BatchProgress | BatchDone
