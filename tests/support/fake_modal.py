"""What keyscale asks of Modal, without Modal: calls are worked on by forked processes that run the real chunk function.

It stands below `engine.remote.modal_client.Calls`, in place of the package `modal`: what that makes of an answer, of
Modal's exceptions and of a server that is away is ours, and runs as it is. What is left out is Modal's own client, its
protocol and its container entry point; `support.modal_server` has those, at ten times the price.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import random
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Literal, Self

from grpclib import Status

from support.forked import fork, say_to

__all__ = ["FakeModal", "Pace", "Stay", "use_fake"]

ADDRESS, TOKEN = "KEYSCALE_TEST_MODAL", "ak-of-the-tests"
RETRIES = 8
RPCS = {"spawn": "FunctionMap", "get": "FunctionGetOutputs", "cancel": "FunctionCallCancel"}
EXCEPTIONS = {
    Status.ABORTED: "ConflictError",
    Status.FAILED_PRECONDITION: "ConflictError",
    Status.NOT_FOUND: "NotFoundError",
    Status.DATA_LOSS: "DataLossError",
    Status.UNAUTHENTICATED: "AuthError",
    Status.PERMISSION_DENIED: "PermissionDeniedError",
    Status.RESOURCE_EXHAUSTED: "ResourceExhaustedError",
    Status.UNAVAILABLE: "ServiceError",
}
"""What Modal's client raises for a status of gRPC."""


# In the client's process


def use_fake() -> None:
    """Let this process's `Calls` reach the server that the environment names."""
    import modal.exception

    from keyscale.engine.remote import modal_client

    fake = SimpleNamespace(
        exception=modal.exception,
        config=SimpleNamespace(config={"server_url": os.environ["MODAL_SERVER_URL"]}),
        Function=SimpleNamespace(from_name=lambda _, name: _Function(name)),
        Cls=SimpleNamespace(from_name=lambda _, name: lambda: SimpleNamespace(upscale_chunk=_Function(name))),
        Queue=SimpleNamespace(from_name=lambda *_, **__: _Queue()),
        FunctionCall=SimpleNamespace(from_id=_Call),
    )
    modal_client._modal = lambda: fake


_connections = threading.local()


def _ask(method: str, *arguments: Any) -> Any:
    """What the server answers to this thread; its exceptions are raised here."""
    import modal.exception

    try:
        if getattr(_connections, "own", None) is None:
            _connections.own = Client(os.environ[ADDRESS])
        _connections.own.send((os.environ.get("MODAL_TOKEN_SECRET"), method, arguments))
        kind, content = _connections.own.recv()
    except (OSError, EOFError) as error:
        _connections.own = None
        raise modal.exception.ConnectionError(f"the server has gone: {error}") from error
    if kind == "modal":
        name, text = content
        raise getattr(modal.exception, name)(text)
    if kind == "raised":
        raise content
    if kind == "timeout":
        raise TimeoutError
    return content


class _Function:
    def __init__(self, name: str) -> None:
        self._name = name

    def hydrate(self) -> None:
        _ask("hydrate")

    def spawn(self, *arguments: Any) -> _Call:
        # The last argument is the queue of `news`, which the server knows.
        return _Call(_ask("spawn", self._name, arguments[:3]))


class _Call:
    def __init__(self, call_id: str) -> None:
        self.object_id = call_id

    def get(self, timeout: float) -> Any:
        return _ask("get", self.object_id, timeout)

    def cancel(self) -> None:
        _ask("cancel", self.object_id)

    def get_call_graph(self) -> list[SimpleNamespace]:
        task_id = _ask("container_of", self.object_id)
        return [SimpleNamespace(function_call_id=self.object_id, task_id=task_id, children=[])]


class _Queue:
    def hydrate(self) -> None:
        _ask("hydrate")

    def get_many(self, count: int, *, timeout: float, partition: str, **_: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = _ask("news", partition, count, timeout)
        if not found:
            raise queue.Empty
        return found

    def clear(self, *, partition: str) -> None:
        _ask("forget", partition)


# In a container's process


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast containers are made out to be: what is left of a time they sleep."""

    frame_s: float = 0.0
    """That a frame takes at least."""
    area: int | None = None
    """Pixels of such a frame: others take longer or shorter by theirs. None: all take the same."""
    start_s: float = 0.0
    """Between the start of a container's process and its first call."""
    varies: float = 0.0
    """The share by which both differ from container to container at most."""

    def of(self, container: int) -> Pace:
        """That of the container of that number, always the same."""
        share = 1 + self.varies * (2 * random.Random(container).random() - 1)
        return replace(self, frame_s=self.frame_s * share, start_s=self.start_s * share)


def _contain(pipe: Connection, name: str, timeout_s: float, pace: Pace, log: str) -> None:
    time.sleep(pace.start_s)
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    say_to(opened, opened)
    from keyscale.engine.pipeline.encoder import ChunkWriter
    from keyscale.engine.worker.chunk import make_chunk, workshop

    own = workshop("cpu")
    own.container = name
    write = ChunkWriter.write

    def write_slowly(writer: ChunkWriter, pixels: Any) -> None:
        time.sleep(pace.frame_s * (1 if pace.area is None else pixels.shape[0] * pixels.shape[1] / pace.area))
        write(writer, pixels)

    if pace.frame_s:
        ChunkWriter.write = write_slowly  # type: ignore[method-assign, assignment]  # this process's own
    while True:
        try:
            job_json, chunk, urls = pipe.recv()
        except EOFError:
            own.close()
            return

        def report(job_id: str, news: dict[str, Any]) -> None:
            pipe.send(("news", (job_id, news)))

        try:
            pipe.send(("answer", make_chunk(own, job_json, chunk, urls, report, timeout_s=timeout_s)))
        except Exception as error:  # Modal hands on whatever a function raises
            pipe.send(("raised", error))


# In the tests' process


@dataclass
class _Work:
    """A call of `upscale_chunk`."""

    id: str
    arguments: tuple[Any, ...]
    outcome: tuple[str, Any] | None = None
    begun: bool = False
    tries: int = 0


@dataclass
class _Container:
    """A process that works on one call after another."""

    id: str
    process: Any
    pipe: Connection
    work: _Work | None = None
    ending: str = "crashed"
    """What it means for its call where it dies."""
    born: float = field(default_factory=time.monotonic)
    last: float = 0.0
    """When its latest call ended."""
    was_killed: bool = False

    @property
    def calls(self) -> tuple[str, ...]:
        return (self.work.id,) if self.work else ()

    def kill(self, ending: str) -> None:
        self.ending, self.was_killed = ending, True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended, or has no group of its own yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A container, for whoever writes a bill."""

    seconds: float
    """From the start of its process to the end of its last call."""
    core_seconds: float
    """That it used in that time."""


@dataclass(frozen=True)
class _Recorded:
    rpc: str
    request: Any = field(default_factory=SimpleNamespace)


class FakeModal:
    """What tests of `--remote` use of `ModalServer`: the same methods do the same. Use it in a `with` statement."""

    def __init__(self, folder: Path) -> None:
        """`folder` is for the containers' logs."""
        self._folder = folder
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._works: dict[str, _Work] = {}
        self._waiting: list[_Work] = []
        self._containers: list[_Container] = []
        self._most, self._timeout_s, self._pace = 0, 900.0, Pace()
        self._stays: list[Stay] = []
        self._news: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._records: list[_Recorded] = []
        self._latency_s = 0.0
        self._failures: dict[str, list[tuple[Status, str]]] = defaultdict(list)
        self._lost, self._scarce = 0, False
        self._describing_s = 0.0
        self._paused = False
        self._door: socket.socket | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._names: list[str] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._listener = Listener()
        self._open_door()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._close_door()
        self._end_containers()

    def environment(self) -> dict[str, str]:
        return {
            "MODAL_SERVER_URL": f"http://127.0.0.1:{self._port}",
            "MODAL_TOKEN_SECRET": TOKEN,
            ADDRESS: str(self._listener.address),
        }

    def deploy(self, containers: int, timeout_s: float, *, pace: Pace | None = None) -> None:
        """Let calls be worked on by so many containers at once, each for so long; those of before are ended.

        With a `pace` that is slow enough it makes no difference how fast this machine is.
        """
        self._end_containers()
        with self._changed:
            self._most, self._timeout_s, self._pace = containers, timeout_s, pace or Pace()

    def stays(self) -> list[Stay]:
        """All containers since the last time, which are ended: their idle time is whoever asks to add."""
        self._end_containers()
        with self._changed:
            found, self._stays = self._stays, []
        return found

    # What tests look at and change

    def calls(self, rpc: str | None = None) -> list[_Recorded]:
        with self._changed:
            return [record for record in self._records if rpc in {None, record.rpc}]

    def running_tasks(self, _: str | None = None) -> list[_Container]:
        with self._changed:
            return list(self._containers)

    def task_ids(self) -> list[str]:
        return list(self._names)

    def logs(self, task_id: str) -> str:
        path = self._folder / f"{task_id}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill_container(self, task_id: str, outcome: Literal["crashed", "preempted", "internal failure"]) -> None:
        with self._changed:
            lost = next(container for container in self._containers if container.id == task_id)
            lost.kill(outcome)
            if lost.work is None:  # nobody follows it
                self._containers.remove(lost)

    def pause(self, *, for_s: float | None = None) -> None:
        self._close_door()
        with self._changed:
            self._paused = True
            self._changed.notify_all()
        if for_s is not None:
            threading.Timer(for_s, self.resume).start()

    def resume(self) -> None:
        with self._changed:
            if not self._paused:
                return
            self._paused = False
        self._open_door()

    def fail_next(self, rpc: str, status: Status, times: int = 1, message: str = "a fault that a test made") -> None:
        """Let the next requests of that name fail; those that wait for a call's end are among them."""
        with self._changed:
            self._failures[rpc] += [(status, message)] * times
            self._changed.notify_all()

    def failures(self, rpc: str) -> int:
        """How many of the next requests of that name will fail still."""
        with self._changed:
            return len(self._failures[rpc])

    def lose_next(self, times: int = 1) -> None:
        """Accept so many of the next calls of chunks and lose the answers, as a line that breaks in between does."""
        with self._changed:
            self._lost = times

    def starve(self, *, scarce: bool = True) -> None:
        """Let there be no container for calls, or all of them again; what works goes on."""
        with self._changed:
            self._scarce = scarce
            self._hand_out()

    def describe_slowly(self, seconds: float) -> None:
        """Let a call that asks what is deployed take so long."""
        with self._changed:
            self._describing_s = seconds

    def pass_on(self) -> None:
        """Take back all that a test has let go wrong."""
        with self._changed:
            self._failures.clear()
            self._lost, self._describing_s = 0, 0.0
        self.starve(scarce=False)

    def accepted(self) -> list[str]:
        """Calls that were ever accepted and have not ended."""
        with self._changed:
            return [call.id for call in self._works.values() if call.outcome is None]

    def set_latency(self, rpc: Literal["FunctionMap"], seconds: float, *, of: Literal["answer"]) -> None:  # noqa: ARG002 - as `ModalServer`'s
        """Hold back the answers to calls of chunks, until there is none; those of `describe` are not held back."""
        with self._changed:
            self._latency_s = seconds
            self._changed.notify_all()

    # The server

    def _open_door(self) -> None:
        """Let the port be knocked at, which is all that is done with it."""
        self._door = socket.create_server(("127.0.0.1", self._port), backlog=64)

    def _close_door(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            door.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                pipe = self._listener.accept()
                threading.Thread(target=self._serve, args=(pipe,), daemon=True).start()

    def _serve(self, pipe: Any) -> None:
        with contextlib.suppress(OSError, EOFError), pipe:
            while True:
                token, method, arguments = pipe.recv()
                if self._paused:
                    time.sleep(0.1)
                    pipe.send(("modal", ("ConnectionError", "the server is paused")))
                elif token != TOKEN:
                    pipe.send(("modal", ("AuthError", "Token validation failed")))
                elif failure := self._failure(RPCS.get(method, "")):
                    pipe.send(failure)
                else:
                    answer: Callable[..., tuple[str, Any]] = getattr(self, f"_on_{method}")
                    pipe.send(answer(*arguments))

    def _failure(self, rpc: str) -> tuple[str, Any] | None:
        with self._changed:
            if not self._failures[rpc]:
                return None
            status, message = self._failures[rpc].pop(0)
            return "modal", (EXCEPTIONS[status], message)

    def _on_hydrate(self) -> tuple[str, Any]:
        return "answer", None

    def _on_spawn(self, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        from keyscale.engine.remote.names import DEPLOYED
        from keyscale.engine.worker.chunk import here

        call = _Work(f"fc-{next(self._numbers):04}", arguments)
        with self._changed:
            self._records.append(_Recorded("FunctionMap", SimpleNamespace(function_id=name)))
            self._works[call.id] = call
            if name == DEPLOYED:
                told = here(device="cpu", gpus=(), containers=self._most, timeout_s=int(self._timeout_s))
                threading.Timer(self._describing_s, self._end, (call, ("answer", told))).start()
                return "answer", call.id
            self._waiting.append(call)
            self._hand_out()
            if self._lost:
                self._lost -= 1
                return "modal", ("ConnectionError", "the line broke")
            end = time.monotonic() + self._latency_s
            while (left := end - time.monotonic()) > 0 and self._latency_s:
                self._changed.wait(left)
        return "answer", call.id

    def _end(self, call: _Work, outcome: tuple[str, Any]) -> None:
        with self._changed:
            call.outcome = call.outcome or outcome
            self._changed.notify_all()

    def _on_get(self, call_id: str, timeout_s: float) -> tuple[str, Any]:
        with self._changed:
            call = self._works.get(call_id)
            if call is None:
                return "modal", ("NotFoundError", "no such call")
            if not self._changed.wait_for(
                lambda: call.outcome is not None or self._paused or self._failures[RPCS["get"]], timeout_s
            ):
                return "timeout", None
            if failure := self._failure(RPCS["get"]):
                return failure
            if call.outcome is None:
                return "modal", ("ConnectionError", "the server is paused")
            return call.outcome

    def _on_container_of(self, call_id: str) -> tuple[str, Any]:
        with self._changed:
            return "answer", next((one.id for one in self._containers if call_id in one.calls), "")

    def _on_cancel(self, call_id: str) -> tuple[str, Any]:
        with self._changed:
            call = self._works.get(call_id)
            if call is None:
                return "modal", ("NotFoundError", "no such call")
            if call.outcome is None and not call.begun:
                if call in self._waiting:  # else it is one that asks what is deployed
                    self._waiting.remove(call)
                call.outcome = ("modal", ("InputCancellation", "Input was cancelled by user"))
            elif call.outcome is None:
                call.outcome = ("modal", ("RemoteError", "Input was cancelled by user"))
                for container in self._containers:
                    if container.work is call:
                        container.kill("cancelled")
            self._changed.notify_all()
        return "answer", None

    def _on_news(self, partition: str, count: int, timeout_s: float) -> tuple[str, Any]:
        with self._changed:
            self._changed.wait_for(lambda: self._news[partition] or self._paused, timeout_s)
            found, self._news[partition] = self._news[partition][:count], self._news[partition][count:]
            return "answer", found

    def _on_forget(self, partition: str) -> tuple[str, Any]:
        with self._changed:
            self._news.pop(partition, None)
        return "answer", None

    # Containers; with the lock held

    def _hand_out(self) -> None:
        while self._waiting and not self._scarce:
            free = next((container for container in self._containers if container.work is None), None)
            if free is None:
                if len(self._containers) >= self._most:
                    return
                free = self._new_container()
            call = self._waiting.pop(0)
            call.begun, call.tries, free.work = True, call.tries + 1, call
            free.pipe.send(call.arguments)
            threading.Thread(target=self._follow, args=(free, call), daemon=True).start()

    def _new_container(self) -> _Container:
        name = f"ta-{next(self._numbers):04}"
        self._names.append(name)
        pipe, there = Pipe()
        clean: Mapping[str, str] = {
            key: value for key, value in os.environ.items() if not key.startswith(("R2_", "MODAL_", "AWS_"))
        }
        process = fork(
            *(_contain, there, name, self._timeout_s, self._pace.of(len(self._names))),
            str(self._folder / f"{name}.log"),
            environment={**clean, "MODAL_IS_REMOTE": "1", "OMP_NUM_THREADS": "1"},
            folder=self._folder,
        )
        there.close()
        self._containers.append(_Container(name, process, pipe))
        return self._containers[-1]

    def _follow(self, container: _Container, call: _Work) -> None:
        """Wait for what becomes of a call."""
        end = time.monotonic() + self._timeout_s
        outcome: tuple[str, Any] | None = None
        with contextlib.suppress(EOFError, OSError):
            while outcome is None:
                if not container.pipe.poll(max(0.0, end - time.monotonic())):
                    container.kill("timeout")
                    container.process.join()
                    break
                kind, content = container.pipe.recv()
                if kind == "news":
                    with self._changed:
                        self._news[content[0]].append(content[1])
                        self._changed.notify_all()
                else:
                    outcome = kind, content
        with self._changed:
            container.work, container.last = None, time.monotonic()
            if outcome is None or container.was_killed:  # which may come just as it has answered
                container.kill(container.ending)
                container.process.join()
                container.pipe.close()
                self._containers.remove(container)
                self._stays.append(Stay(seconds=container.last - container.born, core_seconds=0.0))
            if call.outcome is None:
                call.outcome = outcome or self._after_death(container, call)
            self._hand_out()
            self._changed.notify_all()

    def _after_death(self, container: _Container, call: _Work) -> tuple[str, Any] | None:
        if container.ending == "timeout":
            return "modal", ("FunctionTimeoutError", f"Task's current input hit its timeout of {self._timeout_s:.0f}s")
        if container.ending == "crashed" or call.tries > RETRIES:
            return "modal", ("RemoteError", "the container was killed")
        call.begun = False
        self._waiting.insert(0, call)
        return None

    def _end_containers(self) -> None:
        with self._changed:
            ended = list(self._containers)
            for container in ended:
                last = container.last or time.monotonic()
                self._stays.append(
                    Stay(seconds=last - container.born, core_seconds=_core_seconds(container.process.pid))
                )
                container.kill("crashed")
                if container.work is None:  # nobody follows it
                    self._containers.remove(container)
        for container in ended:
            container.process.join()


def _core_seconds(pid: int) -> float:
    """CPU time of a process so far: fields 14 and 15 of proc_pid_stat(5)."""
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, ValueError):
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
