"""The worker processes of a batch: how many there are, their orders, what they say, and how they end."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, cast

from keyscale.engine.batch.messages import Answer, Hello, Order, Request, Stop, receive, send
from keyscale.engine.batch.process import ANY, LOOK, USE
from keyscale.engine.errors import EnvironmentFault
from keyscale.engine.system import KILLED, OWN_GROUP, usable_cores

__all__ = ["LANES", "REMOTE_JOBS", "WorkerPool", "WorkerProcess", "cpu_workers"]

LANES = 2
"""Clips that a worker has at once: while one runs its network, the last one is joined and the next one decoded."""

REMOTE_JOBS = 4
"""Clips that are staged, followed and joined at once in a remote batch; their chunks share one bound on calls."""

CLOSE_S = 4.0
REMOTE_CLOSE_S = 60.0
"""Calls have to be cancelled and staged objects removed."""

REFUSED_S = 5.0
"""How long nothing is started after the machine has refused to."""

CORES_PER_WORKER = 2
"""On two cores a second worker brings nothing, on four it takes a tenth off (docs/benchmarks.md); for more this is an
assumption, which `bench/batch.py` can replace."""

STDERR_LINES = 20
"""Lines of a worker's stderr that are kept, to be told if it dies."""

EXIT_S = 5.0
"""How long a worker that closed its pipe is waited for."""


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
    gpu: str | None = None
    """The one that it uses where a clip names none."""

    def start(self, heard: Heard, environment: dict[str, str], *, look: str | None = None) -> None:
        """Start the process.

        Args:
            heard: gets what it says.
            environment: of the process.
            look: `LOOK` or `ANY` to have it find the GPUs first.

        Raises:
            OSError: this machine starts no more processes.
        """
        # Without -P the working directory would be searched for modules first.
        command = [sys.executable, "-P", "-m", "keyscale.engine.batch.process", self.name]
        command += [look] if look else [USE + self.gpu] if self.gpu is not None else []
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
        self._stdin, self._stdout, self._stderr = self._process.stdin, self._process.stdout, self._process.stderr
        self._last_lines: deque[str] = deque(maxlen=STDERR_LINES)

        def read_answers() -> None:
            while (answer := receive(cast(IO[bytes], self._stdout))) is not None:
                heard.put((self, cast(Answer, answer)))
            heard.put((self, None))

        def read_stderr() -> None:
            for line in cast(IO[bytes], self._stderr):
                self._last_lines.append(line.decode("utf-8", "replace").strip())

        self._threads = [
            threading.Thread(target=work, name=f"keyscale-{self.name}-{work.__name__}", daemon=True)
            for work in (read_answers, read_stderr)
        ]
        for thread in self._threads:
            thread.start()

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
            send(cast(IO[bytes], self._stdin), request)

    def close(self, timeout_s: float) -> int:
        """Wait for its end, killing it after `timeout_s`, and let go of its pipes; its exit code."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            code = KILLED
        for thread in self._threads:
            thread.join()
        for pipe in (self._stdin, self._stdout, self._stderr):
            # What was not sent before it died cannot be flushed.
            with contextlib.suppress(OSError):
                cast(IO[bytes], pipe).close()
        return code

    def exit_reason(self) -> str:
        """How it ended, for people, once it has closed its pipe; it is waited for a moment."""
        code = self.close(EXIT_S)
        how = f"with exit code {code}"
        if code < 0:
            try:
                how = f"by signal {signal.Signals(-code).name}"
            except ValueError:
                how = f"by signal {-code}"
        last = next((line for line in reversed(self._last_lines) if line), "")
        return f"{how} ({last[:300]})" if last else how


Heard = queue.Queue[tuple[WorkerProcess, Answer | None]]
"""What came from workers; None is that nothing more will."""


def environment_for(*, threads: int | None = None) -> dict[str, str]:
    """The environment of a worker.

    Args:
        threads: of the network; what the user set in OpenMP's own variable stands.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment


def cpu_workers(cores: int) -> int:
    """How many worker processes are fastest on a CPU with this number of cores."""
    return max(1, cores // CORES_PER_WORKER)


class WorkerPool:
    """The workers. They start as there is work for them."""

    def __init__(self, *, jobs: int | None, remote: bool, device: str) -> None:
        """Nothing is started.

        Args:
            jobs: clips at once; None is what fits this machine.
            remote: there is one worker, which only follows.
            device: that networks run on, of a job's settings; of `auto`, `gpu` and `cuda` the first worker finds the
                GPUs.
        """
        self.heard: Heard = queue.Queue()
        self.workers: list[WorkerProcess] = []
        self.scout: WorkerProcess | None = None
        self._jobs, self._remote = jobs, remote
        self._gpus: tuple[str, ...] | None = () if remote or device == "cpu" else (device,)
        """None until the first worker has found them."""
        if not remote and device in {"auto", "gpu", "cuda"}:
            self._gpus = None
        self._look = ANY if device == "gpu" else LOOK
        self._started = 0
        self._refused_until = 0.0
        """Until then it is not tried to start another process: the machine has refused one."""

    @property
    def size(self) -> int:
        """Workers that there will be if there is work for as many."""
        if self._remote or self._gpus is None:
            return 1
        if self._jobs is not None:
            return self._jobs
        return len(self._gpus) or cpu_workers(usable_cores())

    @property
    def shares(self) -> bool:
        """Whether several workers may make chunks of one clip."""
        return not self._remote and self.size > 1

    @property
    def close_s(self) -> float:
        """How long stopped workers may take to end before they are killed."""
        return REMOTE_CLOSE_S if self._remote else CLOSE_S

    @property
    def _lanes(self) -> int:
        return (self._jobs or REMOTE_JOBS) if self._remote else LANES

    def free(self, clips: int) -> Iterator[WorkerProcess]:
        """Workers that can take one of `clips` clips now, those that have least first; a worker may come twice.

        Raises:
            EnvironmentFault: none can be started, and there is none.
        """
        if self._gpus is None:
            if clips and not self.workers:
                self._start()
            return  # until it has counted: how many workers there are decides how a clip is begun
        while clips > 0:
            idle = [worker for worker in self.workers if not worker.running and worker.assists is None]
            if not idle and len(self.workers) < self.size:
                idle = self._start()
            fitting = idle or [w for w in self.workers if not w.alone and len(w.running) < self._lanes]
            if not fitting:
                return
            chosen = min(fitting, key=lambda worker: len(worker.running))
            before = len(chosen.running)
            yield chosen
            if len(chosen.running) == before:
                return  # it was not wanted
            clips -= 1

    def idle(self, wanted: Callable[[], bool]) -> Iterator[WorkerProcess]:
        """Workers that have nothing to do; as long as more are `wanted`, those that are not there yet as well."""
        for worker in list(self.workers):
            if not worker.running and worker.assists is None:
                yield worker
        while self.shares and len(self.workers) < self.size and wanted():
            if not (started := self._start()):
                return
            yield from started

    def free_scout(self, clips: int) -> WorkerProcess | None:
        """The worker that plans ahead, where it is free; it starts with the first clip to plan."""
        if clips == 0:
            return None
        if self.scout is None:
            if time.monotonic() < self._refused_until:
                return None
            scout = WorkerProcess("scout")
            try:
                scout.start(self.heard, environment_for(threads=1))
            except OSError:
                self._refused_until = time.monotonic() + REFUSED_S
                return None  # the worker that makes a clip plans it as well
            self.scout = scout
        return None if self.scout.running else self.scout

    def working_on(self) -> set[int]:
        """Indices of the clips that any worker does something for."""
        assisted = {worker.assists for worker in self._all() if worker.assists is not None}
        return assisted.union(*(worker.running for worker in self._all()))

    def greeted(self, worker: WorkerProcess, hello: Hello) -> None:
        """A worker is up."""
        worker.ready = True
        if self._gpus is None and worker is not self.scout:  # which is sooner up, and did not look
            self._gpus = hello.gpus
            worker.gpu = hello.gpus[0] if hello.gpus else None

    def remove(self, worker: WorkerProcess) -> str:
        """Forget a worker that is gone; how it ended."""
        if worker is self.scout:
            self.scout = None
        else:
            self.workers.remove(worker)
            if self._gpus is None:
                self._gpus = ()
        return worker.exit_reason()

    def stop(self) -> None:
        """Ask all of them to stop."""
        for worker in self._all():
            worker.stop()

    def close(self) -> None:
        """End all of them: those that have nothing to do any more by themselves, the others after a while."""
        self.stop()
        deadline = time.monotonic() + self.close_s
        for worker in self._all():
            worker.close(max(0.0, deadline - time.monotonic()))
        self.workers, self.scout = [], None

    def _all(self) -> list[WorkerProcess]:
        return [*self.workers, *([self.scout] if self.scout is not None else [])]

    def _start(self) -> list[WorkerProcess]:
        """Another worker; none where the machine starts no more and there are others.

        Raises:
            EnvironmentFault: there is no other.
        """
        if self.workers and time.monotonic() < self._refused_until:
            return []
        number = self._started
        taken = [worker.gpu for worker in self.workers]
        gpu = min(self._gpus, key=taken.count) if self._gpus else None
        worker = WorkerProcess(f"worker-{number}", gpu=gpu)
        cores = usable_cores()
        on_cpu = self._jobs or cpu_workers(cores)
        environment = environment_for(
            threads=max(1, cores // on_cpu) if on_cpu > 1 and not self._gpus and not self._remote else None,
        )
        try:
            worker.start(self.heard, environment, look=self._look if self._gpus is None else None)
        except OSError as error:
            if not self.workers:
                raise EnvironmentFault(
                    f"no process can be started: {error.strerror or error}",
                    remedy="End other programs, or raise the limits on processes (ulimit -u), open files (ulimit -n) "
                    "and memory (ulimit -v).",
                ) from error
            self._refused_until = time.monotonic() + REFUSED_S
            return []
        self._started += 1
        self.workers.append(worker)
        return [worker]
