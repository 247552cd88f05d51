"""The worker processes of a batch, as its supervisor sees them: started, given orders, heard, missed when they die."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import IO, cast

from keyscale.engine.batch.messages import Answer, Order, Request, Stop, receive, send
from keyscale.engine.batch.worker import LOOK
from keyscale.engine.system import KILLED, OWN_GROUP

__all__ = ["Heard", "WorkerProcess"]

LAST_WORDS = 20
"""Lines of a worker's stderr that are kept, to be told if it dies."""

DEATH_S = 5.0
"""How long a worker that closed its pipe is waited for."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What came from a worker; None is that nothing more will."""

    worker: WorkerProcess
    answer: Answer | None


@dataclass(eq=False)
class WorkerProcess:
    """One worker. All that it says goes into the queue that `start` was given."""

    name: str
    """For people who look at the processes."""
    running: set[int] = field(default_factory=set)
    """Clips that it works on."""
    assists: int | None = None
    """A clip of another worker of which it makes chunks."""
    alone: bool = False
    """It has a clip that is to be the only one."""
    ready: bool = False
    """It said hello."""

    def start(self, heard: queue.Queue[Heard], environment: dict[str, str], *, look: bool = False) -> None:
        """Start the process.

        Args:
            heard: gets what it says.
            environment: of the process.
            look: have it count CUDA devices first.

        Raises:
            OSError: this machine starts no more processes.
        """
        # Without -P the working directory would be searched for modules first.
        command = [sys.executable, "-P", "-m", "keyscale.engine.batch.worker", self.name, *([LOOK] if look else [])]
        self._process = subprocess.Popen(  # noqa: S603 - this program
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for the batch, which then says what is to be done.
            start_new_session=True,
            creationflags=OWN_GROUP,
        )
        self._heard = heard
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._threads = [
            threading.Thread(target=self._hear, name=f"keyscale-{self.name}", daemon=True),
            threading.Thread(target=self._overhear, name=f"keyscale-{self.name}-stderr", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def _orders(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdin)

    @property
    def is_up(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def order(self, order: Order) -> None:
        """Send a job; one that cannot be sent comes back with the worker's death."""
        if order.assist is None:
            self.running.add(order.index)
        else:
            self.assists = order.index
        self._send(order)

    def stop(self) -> None:
        """Ask it to stop its jobs and to end."""
        self._send(Stop())

    def _send(self, request: Request) -> None:
        # A worker that is gone is heard of on the other pipe.
        with contextlib.suppress(OSError, ValueError):
            send(self._orders, request)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, so long at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def kill(self) -> None:
        """End it at once; returns once it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let go of the pipes of a process that ended; the threads end with them."""
        if self.is_up:
            self.kill()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            # What was not sent before it died cannot be flushed.
            with contextlib.suppress(OSError):
                cast(IO[bytes], pipe).close()

    def epitaph(self) -> str:
        """How it ended, for people; it is waited for a moment."""
        try:
            code = self._process.wait(DEATH_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = KILLED
        self._threads[1].join(DEATH_S)
        how = f"with exit code {code}"
        if code < 0:
            try:
                how = f"by signal {signal.Signals(-code).name}"
            except ValueError:
                how = f"by signal {-code}"
        words = next((line for line in reversed(self._words) if line.strip()), "")
        return f"{how} ({words.strip()[:300]})" if words else how

    def _hear(self) -> None:
        pipe = cast(IO[bytes], self._process.stdout)
        while (answer := receive(pipe)) is not None:
            self._heard.put(Heard(worker=self, answer=cast(Answer, answer)))
        self._heard.put(Heard(worker=self, answer=None))

    def _overhear(self) -> None:
        for line in cast(IO[bytes], self._process.stderr):
            self._words.append(line.decode("utf-8", "replace"))


def environment_for(*, threads: int | None = None, gpu: int | None = None) -> dict[str, str]:
    """The environment of a worker.

    Args:
        threads: of the network; what the user set in OpenMP's own variable stands.
        gpu: the one CUDA device that it sees, counted among those that this process may see.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    if gpu is not None:
        visible = [each for each in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
        environment["CUDA_VISIBLE_DEVICES"] = visible[gpu] if gpu < len(visible) else str(gpu)
    return environment
