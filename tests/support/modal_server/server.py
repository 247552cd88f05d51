"""The server as tests use it: a context manager with its own thread and event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from grpclib import Status

from .core import Core, Settings
from .dispatch import RecordedCall
from .images import ImageRecord
from .state import InputState
from .tasks import Task, TaskState

T = TypeVar("T")

ANSWER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """A container that runs."""

    id: str
    app: str
    function: str
    pid: int | None
    """None until the process is started."""
    ready: bool
    """It has imported the code, run `@modal.enter` and asked for an input."""
    calls: tuple[str, ...]
    """Ids of the calls that it works on."""


class ModalServer:
    """Modal's control plane on 127.0.0.1, for the real client and the real container entry point.

    What a test switches on holds until it switches it off; all methods may be called from any thread.

        with ModalServer(folder, python=Path(sys.executable)) as server:
            server.deploy("app.py", cwd=folder)
            ...
    """

    def __init__(self, folder: Path, *, python: Path, **settings: Any) -> None:
        """Prepare a server.

        Args:
            folder: For blobs, mounted files and the containers' logs; new or empty. Nothing in it is deleted.
            python: The interpreter of the containers. It needs `modal` and what the image installs.
            **settings: The other fields of `Settings`.
        """
        self._folder = folder
        self._settings = Settings(python=python, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._core: Core | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._loop.run_forever, name="modal-server", daemon=True)
        self._thread.start()
        try:
            self._core = self._await(self._make())
            self._await(self._core.start())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        try:
            if self._core is not None:
                self._await(self._core.stop())
            self._await(_drain())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(ANSWER_S)
            self._loop.close()

    @property
    def url(self) -> str:
        """What `MODAL_SERVER_URL` has to be."""
        return f"http://127.0.0.1:{self._the_core.port}"

    def environment(self) -> dict[str, str]:
        """Variables with which the client uses this server, and neither a proxy nor the user's own configuration."""
        return {
            "MODAL_CONFIG_PATH": str(self._folder / "no-such-file.toml"),
            "MODAL_ENVIRONMENT": "main",
            "MODAL_PROFILE": "",
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": self._settings.token.id,
            "MODAL_TOKEN_SECRET": self._settings.token.secret,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def deploy(
        self, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the real `modal deploy` with these arguments; its exit code is the caller's to look at."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODAL_")}
        return subprocess.run(
            [sys.executable, "-m", "modal", "deploy", *arguments],
            cwd=cwd,
            env=inherited | self.environment() | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    # What there is

    def calls(self, rpc: str | None = None) -> list[RecordedCall]:
        """The requests that came in so far, or those to one RPC; failed ones too."""
        return self._on_loop(lambda: [r for r in self._the_core.dispatcher.records if rpc in {None, r.rpc}])

    def running_tasks(self, function: str | None = None) -> list[TaskInfo]:
        """The containers that run or are being started, or those of one function."""

        def look() -> list[TaskInfo]:
            found = [self._info(task) for task in self._the_core.scheduler.tasks.values()]
            return [task for task in found if function in {None, task.function}]

        return self._on_loop(look)

    def task_ids(self) -> list[str]:
        """All containers that there ever were, the first one first."""
        return self._on_loop(lambda: list(self._the_core.containers.logs))

    def logs(self, task_id: str) -> str:
        """What a container has written to its standard output and error so far."""
        path = self._on_loop(lambda: self._the_core.containers.logs[task_id])
        return path.read_text(errors="replace") if path.exists() else ""

    def images(self) -> list[ImageRecord]:
        """Every image layer that was asked for, the first one first. None was built."""
        return self._on_loop(lambda: list(self._the_core.world.images.values()))

    def image_of(self, app: str, function: str) -> list[ImageRecord]:
        """The layers of a deployed function's image, the lowest first.

        Raises:
            KeyError: The app or the function is not deployed.
        """

        def look() -> list[ImageRecord]:
            world = self._the_core.world
            found = world.app_named(app)
            if found is None:
                raise KeyError(app)
            definition = world.functions[found.function_ids[function]].current
            assert definition is not None
            return world.layers(definition.function.image_id)

        return self._on_loop(look)

    # What tests change

    def set_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Make the secret that `Secret.from_name` finds; containers that run already keep what they got."""
        self._on_loop(lambda: self._the_core.resources.set_secret(name, dict(values)))

    def undeploy(self, app: str) -> None:
        """Take a deployed app down, with its containers and calls.

        Raises:
            KeyError: No such app is deployed.
        """

        def stop() -> None:
            found = self._the_core.world.app_named(app)
            if found is None:
                raise KeyError(app)
            self._the_core.scheduler.stop_app(found)

        self._on_loop(stop)

    def pause(self, *, hang: bool = False, for_s: float | None = None) -> None:
        """Be gone for clients: refuse connections and break those that exist, or let them hang. Containers go on.

        Args:
            hang: Connections stay, or are accepted, and nothing passes.
            for_s: Come back by itself after so many seconds; None waits for `resume`.
        """
        self._await(self._the_core.shut(hang=hang))
        if for_s is not None:
            self._on_loop(lambda: self._loop.call_later(for_s, lambda: asyncio.ensure_future(self._the_core.open())))

    def resume(self) -> None:
        """Be back, with everything that was known before."""
        self._await(self._the_core.open())

    def fail_next(self, rpc: str, status: Status, times: int = 1, message: str = "a fault that a test made") -> None:
        """Let the next requests of that name fail, whoever sends them."""
        self._on_loop(lambda: self._the_core.dispatcher.faults.fail_next(rpc, status, times, message))

    def accepted(self) -> list[str]:
        """Calls that were ever accepted and have not ended."""

        def look() -> list[str]:
            calls = self._the_core.world.calls.values()
            return [call.id for call in calls if any(one.state is not InputState.DONE for one in call.inputs)]

        return self._on_loop(look)

    def failures(self, rpc: str) -> int:
        """How many of the next requests of that name will fail still."""
        return self._on_loop(lambda: self._the_core.dispatcher.faults.due(rpc))

    def pass_on(self) -> None:
        """Take back every `fail_next`."""
        self._on_loop(self._the_core.dispatcher.faults.pass_on)

    def set_latency(self, rpc: str, seconds: float, *, of: Literal["request", "answer"] = "request") -> None:
        """Hold every request of that name back before anything is done, or its answer after all is done; 0 ends that.

        Answers of streaming RPCs are not held back.
        """

        def change() -> None:
            faults = self._the_core.dispatcher.faults
            (faults.request_latency_s if of == "request" else faults.answer_latency_s)[rpc] = seconds

        self._on_loop(change)

    def kill_container(
        self, task_id: str, outcome: Literal["crashed", "preempted", "internal failure"] = "crashed"
    ) -> None:
        """Kill a container at once, by SIGKILL.

        Args:
            task_id: The container.
            outcome: What that means for its input. `crashed`: it fails, as if its own code had brought the container
                down (`RemoteError` for the client, or a retry by the function's policy). `preempted`: another
                container starts it anew, which no policy counts. `internal failure`: Modal lost it; the input is
                started anew too, but only 8 times.

        Raises:
            KeyError: No such container runs.
        """
        self._on_loop(lambda: self._the_core.scheduler.tasks[task_id].end(outcome))

    def crash(self, task_id: str) -> None:
        """Kill a container; its input fails. See `kill_container`."""
        self.kill_container(task_id, "crashed")

    def preempt(self, task_id: str, *, grace_s: float = 5.0) -> None:
        """Take a container's machine away as Modal does: SIGINT, and SIGKILL after the grace. Its input starts anew.

        Raises:
            KeyError: No such container runs.
        """

        def interrupt() -> None:
            task = self._the_core.scheduler.tasks[task_id]
            task.state, task.ending = TaskState.STOPPING, "preempted"
            task.send(signal.SIGINT)
            self._loop.call_later(grace_s, task.send, signal.SIGKILL)

        self._on_loop(interrupt)

    def expire(self, call_id: str) -> None:
        """Forget the results of a call, as Modal does after seven days.

        Raises:
            KeyError: No such call was made.
        """

        def change() -> None:
            self._the_core.world.calls[call_id].expired = True

        self._on_loop(change)

    def drop_ephemeral_queues(self) -> None:
        """Let ephemeral queues vanish, as those of a client that died do after a while."""
        self._on_loop(self._the_core.queues.forget_ephemeral)

    @property
    def _the_core(self) -> Core:
        assert self._core is not None, "the server is not running"
        return self._core

    def _info(self, task: Task) -> TaskInfo:
        world = self._the_core.world
        function = world.functions[task.function_id]
        return TaskInfo(
            id=task.id,
            app=world.apps[function.app_id].name,
            function=function.name,
            pid=task.pid,
            ready=task.state is TaskState.READY,
            calls=tuple(one.call.id for one in task.inputs.values()),
        )

    async def _make(self) -> Core:
        return Core(self._settings, self._folder)

    def _on_loop(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._await(act())

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(ANSWER_S)


async def _drain() -> None:
    """Let what was cancelled end, so that the loop closes with nothing left on it."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    # Transports close in callbacks of their own.
    await asyncio.sleep(0.05)
