"""What a container is told, and what it answers: the contract between `--remote` and the deployed functions.

All of it is JSON, so that both sides need agree on `SCHEMA` alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from keyscale.engine.errors import KeyscaleError, RemoteError
from keyscale.engine.models.execution import Execution
from keyscale.engine.plan.plan import Chunk
from keyscale.engine.serialization import loads
from keyscale.engine.wording import as_data

__all__ = [
    "SCHEMA",
    "Deployment",
    "Made",
    "Stages",
    "Task",
    "TooSlow",
    "as_answer",
    "read_deployment",
    "read_made",
    "read_task",
    "refusal",
]

SCHEMA = 2
"""Of task, answers and deployment; raised when a field changes its meaning."""


class TooSlow(RemoteError):
    """A call would not have ended in the time that it has; fewer frames may."""

    def __init__(self, message: str, *, frames: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.frames = frames
        """That were made until then."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What is deployed, as its function `describe` tells."""

    schema: int
    version: str
    """Of keyscale."""
    libraries: str
    """Versions of the libraries that the pictures pass through."""
    device: str
    """Where networks run: `cuda` or `cpu`."""
    gpus: tuple[str, ...]
    """GPUs that are asked for, in that order; empty where the functions run on CPUs."""
    containers: int
    """Containers that run at once at most."""
    timeout_s: int
    """Seconds after which a chunk is given up."""
    cores: tuple[int, ...] = ()
    """Cores of the classes that make chunks, the usual one first."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where a call's seconds went. Within `making` network and CPUs work at the same time."""

    start: float | None = None
    """From the start of the container's process to its first call; None in later calls, and where it cannot be told."""
    ready: float = 0.0
    """Plan and network fetched and loaded."""
    making: float = 0.0
    """Frames read, enlarged, sampled and encoded."""
    network: float = 0.0
    """Of these, in the network."""
    macs: int = 0
    """Multiply-accumulates of the network."""
    cpu: float = 0.0
    """Core seconds of all threads meanwhile."""
    storing: float = 0.0
    """The chunk sent to storage."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all chunks of a job have in common; the `job_json` of a call."""

    schema: int = SCHEMA
    version: str
    """Of keyscale on the client."""
    job_id: str
    plan_sha256: str
    """Of the stored plan."""
    execution: Execution | None
    """How the network runs; None where the plan has none."""
    checkpoint: str | None = None
    """File name of the network's own checkpoint, where it is none of the published ones."""
    checkpoint_sha256: str | None = None
    source_size: int
    """Bytes of what is staged: the source, or an excerpt of it."""
    source_sha256: str
    """Of the same."""
    source_tag: str = ""
    """The storage's own mark (ETag) of it once it was sent: a container reads no object that has another."""
    excerpt_begins: int | None = None
    """As `Excerpt.begins` of a staged excerpt; None where the whole source is staged."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A chunk that stands in storage; stored beside it, so that it is not made twice."""

    schema: int = SCHEMA
    status: Literal["ok"] = "ok"
    plan_sha256: str
    index: int
    start: int
    end: int
    """Output frames `[start, end)`."""
    frames: int
    lost: int
    """Source frames that could not be decoded and were bridged."""
    inferred: int
    """Frames that went through the network."""
    size: int
    sha256: str
    seconds: float
    """From the call's start to the stored chunk."""
    gpu: str
    """As the driver names it; `cpu` where there is none."""
    container: str
    """Which container it was."""
    stages: Stages = Stages()
    network: str
    """SHA-256 of the network, its runtime, precision and device."""
    bytes_read: int
    """Of the source."""
    notes: tuple[str, ...] = ()
    """What a person should know of it: a tile that was halved, a frame that was computed again."""
    again: bool = False
    """It was there already: an earlier call had stored it."""

    def is_of(self, task: Task, chunk: Chunk) -> bool:
        """Whether it is this chunk of this job."""
        return (self.schema, self.plan_sha256, self.index, self.start, self.end) == (
            SCHEMA,
            task.plan_sha256,
            chunk.index,
            chunk.start,
            chunk.end,
        )


def read_task(text: str) -> Task:
    """The task of a call.

    Raises:
        RemoteError: it is of another schema or another keyscale than this one.
    """
    from keyscale import __version__

    remedy = "Run `keyscale remote deploy`, so that both sides are of one version."
    try:
        task = loads(text, Task)
    except KeyscaleError as error:
        raise RemoteError(f"the call is of another keyscale: {error}", remedy=remedy) from error
    if (task.schema, task.version) != (SCHEMA, __version__):
        raise RemoteError(
            f"the call is of keyscale {task.version}, the deployed function of {__version__}", remedy=remedy
        )
    return task


def refusal(error: KeyscaleError, *, seconds: float, gpu: str, container: str) -> dict[str, Any]:
    """A fault that another try would meet again, as a call returns it; `seconds` of that container were used up."""
    return {
        "status": "error",
        "schema": SCHEMA,
        "error": type(error).__name__,
        "message": str(error.message),
        "remedy": None if error.remedy is None else str(error.remedy),
        "said": [as_data(error.message), as_data(error.remedy)],
        "exit_code": error.exit_code,
        "frames": error.frames if isinstance(error, TooSlow) else 0,
        "seconds": seconds,
        "gpu": gpu,
        "container": container,
    }


def as_answer(value: Made | Deployment) -> dict[str, Any]:
    """`value` as plain data, as a call returns it."""
    answer: dict[str, Any] = msgspec.to_builtins(value, enc_hook=str)
    return answer


def read_deployment(answer: object) -> Deployment:
    """What is deployed, as its function told.

    Raises:
        RemoteError: it is of another schema or another keyscale than this one.
    """
    from keyscale import __version__

    found = answer if isinstance(answer, dict) else {}
    schema, version = found.get("schema"), str(found.get("version"))
    schema = schema if isinstance(schema, int) and 0 <= schema < 1000 else 0
    version = version if re.fullmatch(r"\d[\w.+-]{0,40}", version) else "unknown"
    try:
        deployment = msgspec.convert(answer, Deployment)
    except msgspec.ValidationError:
        deployment = None
    if deployment is not None and (deployment.schema, deployment.version) == (SCHEMA, __version__):
        return deployment
    theirs, ours = (schema, _numbers(version)), (SCHEMA, _numbers(__version__))
    if theirs > ours:
        age, remedy = "a newer", "Update keyscale here, or run `keyscale remote deploy` to have this version there."
    else:
        age, remedy = "an older" if theirs != ours else "another", "Run `keyscale remote deploy`."
    raise RemoteError(
        f"{age} keyscale is deployed (version {version}, schema {schema}; here they are {__version__} and {SCHEMA})",
        remedy=remedy,
    )


def _numbers(version: object) -> tuple[int, ...]:
    """Of a release, such as (1, 2, 3) of "1.2.3.dev4"."""
    found = re.match(r"\d{1,9}(?:\.\d{1,9})*", str(version))
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def read_made(answer: object) -> Made:
    """The inverse of `as_answer` for a chunk.

    Raises:
        RemoteError: it has another form.
    """
    try:
        return msgspec.convert(answer, Made)
    except msgspec.ValidationError as error:
        raise RemoteError(
            f"the deployed functions answer in another form: {error}", remedy="Run `keyscale remote deploy`."
        ) from error
