"""A container: the record of one process that runs a function."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from modal_proto import api_pb2

from .processes import signal_group
from .state import Definition, Input


class TaskState(Enum):
    """How far a container is."""

    STARTING = "starting"
    """It has not asked for an input yet: it imports, or runs `@modal.enter`."""
    READY = "ready"
    STOPPING = "stopping"
    """It gets no more inputs and will end by itself."""
    ENDED = "ended"


@dataclass(kw_only=True, eq=False)
class Task:
    """One container."""

    id: str
    function_id: str
    definition: Definition
    log: Path
    state: TaskState = TaskState.STARTING
    pid: int | None = None
    """Also the id of its process group."""
    started_at: float = field(default_factory=time.monotonic)
    idle_since: float = field(default_factory=time.monotonic)
    inputs: dict[str, Input] = field(default_factory=dict)
    """What it works on, by id."""
    ending: str | None = None
    """Why it was ended from outside; None where it ends by itself."""
    start_result: api_pb2.GenericResult | None = None
    """The error that it reported before it was ready."""
    exit_code: int | None = None

    def end(self, reason: str) -> None:
        """Kill the process with all it has started. The first reason stays."""
        self.ending = self.ending or reason
        self.state = TaskState.STOPPING if self.state is not TaskState.STARTING else self.state
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process group, if there still is one."""
        if self.pid is not None and self.state is not TaskState.ENDED:
            signal_group(self.pid, number)

    def describe_end(self) -> str:
        """In words, how the process ended."""
        if self.ending == "startup timeout":
            return f"was not ready within {self.definition.function.startup_timeout_secs}s"
        if self.exit_code is not None and self.exit_code < 0:
            return f"was killed by signal {-self.exit_code}"
        return f"exited with code {self.exit_code}"
