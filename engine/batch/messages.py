"""What a batch and its worker processes say to each other, over a pipe each way.

Pickled and not as JSON: file names that are not UTF-8 have no form there. Both ends are this program.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from keyscale.engine.events import Event
from keyscale.engine.job import Job
from keyscale.engine.workspace.folder import Identity

if TYPE_CHECKING:
    from keyscale.engine.run_options import RemoteOptions

__all__ = ["Answer", "Ended", "Hello", "Opened", "Order", "Planned", "Request", "Stop", "Told", "receive", "send"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Do this job."""

    index: int
    """Of the clip."""
    job: Job
    outdated: Identity | None = None
    """As of `Prepared.outdated`."""
    remote: RemoteOptions | None = None
    plan_only: bool = False
    """Only plan it, and tell how many frames it has."""
    shares: bool = False
    """Other workers may be sent to make some of its chunks."""
    assist: str | None = None
    """Make chunks of a job that another worker has; this is the SHA-256 of its source."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Stop what runs, keep what is finished, and end."""


@dataclass(frozen=True, kw_only=True)
class Hello:
    """The first message of a worker."""

    gpus: tuple[str, ...]
    """GPUs that networks can run on, `cuda:N` or `mps`; none where it was not to look. It uses the first."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A clip was probed and planned."""

    index: int
    frames: int
    chunks: int
    source_size: tuple[int, int]
    """Displayed pixels, width and height."""
    size: tuple[int, int]
    """The same of the result."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A clip's chunks are being made: another worker may help."""

    index: int
    source_sha256: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """An event of a clip."""

    index: int
    event: Event


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The clip's order is done with, well or badly; its last event came before."""

    index: int


Request = Order | Stop
Answer = Hello | Planned | Opened | Told | Ended


def send(pipe: IO[bytes], message: Request | Answer) -> None:
    """Write one message.

    Raises:
        OSError: nobody reads any more.
    """
    pickle.dump(message, pipe)
    pipe.flush()


def receive(pipe: IO[bytes]) -> object | None:
    """The next message; None once the other end is gone, even if that was in the middle of one."""
    try:
        message: object = pickle.load(pipe)  # noqa: S301 - the other end is this program, nobody else has the pipe
    except (EOFError, pickle.UnpicklingError, OSError):
        return None
    return message
