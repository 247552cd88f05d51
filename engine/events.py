"""What a run reports: progress, notes and its last event, which an exception has too.

Frozen data with a JSON form, `engine.serialization`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from keyscale.engine.addresses import redacted
from keyscale.engine.errors import EnvironmentFault, KeyscaleError
from keyscale.engine.job import JOB_VERSION
from keyscale.engine.wording import say

__all__ = ["Done", "Event", "Failed", "Note", "Phase", "Progress", "RemoteUse", "failure"]

NO_THREAD = "can't start new thread"
"""What CPython's `threading` says with a plain RuntimeError where the system refuses a thread."""


class Phase(StrEnum):
    """What a run is doing; phases follow one another in this order."""

    DOWNLOAD = "download"
    """The source is fetched from its address; counted in bytes."""
    FETCH = "fetch"
    """Weights are downloaded; counted in bytes."""
    CONNECT = "connect"
    """Storage and the remote functions are tried, before anything is sent."""
    PREPARE = "prepare"
    """The source is hashed; counted in bytes."""
    STAGE = "stage"
    """The source goes to the object storage; counted in bytes."""
    UPSCALE = "upscale"
    JOIN = "join"
    VERIFY = "verify"
    PUBLISH = "publish"
    """The finished file goes to the object storage; counted in bytes."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the run stands; sent on change and at least every 2 s. `frame` never goes back within a phase."""

    event: Literal["progress"] = "progress"
    schema: int = JOB_VERSION
    phase: Phase
    frame: int
    """How many `unit`s are done."""
    total: int
    """How many there are; 0 while that is not known."""
    unit: Literal["frames", "bytes"] = "frames"
    fps: float | None = None
    """Units a second over the recent past, of this run alone; None until measured."""
    eta_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a person should know: the device chosen, a warning of the plan, what was resumed."""

    event: Literal["note"] = "note"
    schema: int = JOB_VERSION
    level: Literal["info", "warning"]
    message: str


@dataclass(frozen=True, kw_only=True)
class RemoteUse:
    """What a remote run took."""

    job_id: str
    containers: int
    """Different containers that made chunks."""
    gpus: tuple[str, ...]
    """Names of their GPUs, as the driver gives them; `cpu` where there was none."""
    seconds: float
    """Container seconds that are paid, start and idle time included."""
    dollars: float
    """The same at list prices, see `engine.remote.prices`, with storage and asking what is deployed."""
    local_frames: int = 0
    """Frames that were made on this machine in the end (`--remote-fallback local`)."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The last event of a run that succeeded: the file stands under its name and was verified."""

    event: Literal["done"] = "done"
    schema: int = JOB_VERSION
    output: str
    frames: int
    seconds: float
    """Wall-clock seconds of this run."""
    resumed_frames: int
    """Frames taken from chunks that an earlier run had finished."""
    inferred_frames: int
    """Frames that went through the network in this run."""
    lost_frames: int
    """Source frames that could not be decoded and were bridged (`--keep-going-on-decode-errors`)."""
    device: str
    """Device and precision; `none` where no network ran."""
    model: str
    look: float | None = None
    """Share of the crisp end in the network's weights; None of a network without two ends, or none."""
    strength: float = 1.0
    """How much of the network's picture is shown."""
    steady: float | None = 0.0
    """How much noise was averaged away; None went by the noise that there was."""
    runtime: str = "none"
    """`torch`, `openvino`, or `none`."""
    decibels: float | None = None
    """How close the network came to fp32 on the CPU, on the golden tile (PSNR); None where it ran in that, or none."""
    published: str | None = None
    """Where the file stands as well, `r2://bucket/key`."""
    remote: RemoteUse | None = None
    key: str = ""
    """The job's key, see `engine.workspace.fingerprint`."""
    skipped: bool = False
    """The result was there already and came from the same job: nothing was made."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The last event of a run that failed; nothing was published."""

    event: Literal["error"] = "error"
    schema: int = JOB_VERSION
    error: str
    """Class name of the error."""
    message: str
    remedy: str | None
    exit_code: int


Event = Progress | Note | Done | Failed


def failure(error: BaseException) -> Failed:
    """The last event of a run that `error` ended; any exception has one."""
    name = type(error).__name__
    if isinstance(error, KeyscaleError):
        message, remedy = redacted(error.message), None if error.remedy is None else redacted(error.remedy)
        return Failed(error=name, message=message, remedy=remedy, exit_code=error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return Failed(
            error="Interrupted",
            message="interrupted",
            remedy=None,
            exit_code=getattr(error, "exit_code", 130),
        )
    if isinstance(error, MemoryError):
        return Failed(
            error=name,
            message="this machine's memory is exhausted",
            remedy=say("Close other programs, or give a smaller {tile}, such as 128."),
            exit_code=EnvironmentFault.exit_code,
        )
    text = str(error)
    if isinstance(error, ImportError):
        return Failed(
            error=name,
            message=f"a library does not load: {text}",
            remedy="See whether memory or address space (ulimit -v) is limited, and install keyscale again.",
            exit_code=EnvironmentFault.exit_code,
        )
    if isinstance(error, RuntimeError) and text == NO_THREAD:
        return Failed(
            error=name,
            message="the system lets this process start no further thread",
            remedy="See whether the number of processes (ulimit -u, a container's pids limit) or the address space "
            "(ulimit -v) is limited.",
            exit_code=EnvironmentFault.exit_code,
        )
    return Failed(
        error=name,
        message=f"unexpected {name}: {text}" if text else f"unexpected {name}",
        remedy="This is a defect of keyscale. Run the command again with -vv and report what it prints.",
        exit_code=1,
    )
