"""Starting the real container entry point: one process a container, with the files and the environment of its image."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from grpclib.server import Server
from modal_proto import api_pb2

from .deploying import layout
from .dispatch import Door
from .processes import Watchman
from .scheduler import Scheduler
from .state import ENVIRONMENT, Function, World
from .tasks import Task

ROOT = PurePosixPath("/root")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Containers:
    """Starts containers and waits for their ends."""

    def __init__(
        self,
        world: World,
        scheduler: Scheduler,
        *,
        folder: Path,
        python: Path,
        environment: Mapping[str, str],
        door: Callable[[str], Door],
    ) -> None:
        self._world = world
        self._scheduler = scheduler
        self._folder = folder
        self._python = python
        self._environment = dict(environment)
        self._door = door
        self._watchman = Watchman()
        self._running: dict[Task, asyncio.Task[None]] = {}
        self.logs: dict[str, Path] = {}

    @property
    def sockets(self) -> Path:
        """A folder with a short path."""
        return self._watchman.folder

    def start(self, function: Function) -> None:
        """Start a container for a function; it is known to the scheduler from here on."""
        assert function.current is not None
        task_id = self._world.new_id("ta")
        log = self._folder / "logs" / f"{task_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        task = Task(id=task_id, function_id=function.id, definition=function.current, log=log)
        self._scheduler.tasks[task.id] = task
        self.logs[task.id] = log
        self._running[task] = asyncio.create_task(self._run(task, function))

    async def close(self) -> None:
        """Kill all containers and wait until they are gone."""
        for task in list(self._running):
            task.end("terminated")
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._watchman.close()

    async def _run(self, task: Task, function: Function) -> None:
        socket = self.sockets / f"{task.id}.sock"
        server = Server([self._door(task.id)])
        try:
            await server.start(path=str(socket))
            await self._live(task, function, socket)
        except OSError as error:
            task.log.write_text(f"the container could not be started: {error}\n")
        finally:
            server.close()
            with suppress(FileNotFoundError):
                socket.unlink()
            self._running.pop(task, None)
            self._scheduler.ended(task)

    async def _live(self, task: Task, function: Function, socket: Path) -> None:
        files = self._materialised(task.definition.function)
        root = files / ROOT.relative_to("/")
        arguments = self._folder / "tasks" / f"{task.id}.bin"
        arguments.parent.mkdir(parents=True, exist_ok=True)
        arguments.write_bytes(self._arguments(task, function).SerializeToString())
        environment = self._variables(task.definition.function, root) | {
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
            "MODAL_SERVER_URL": f"unix://{socket}",
            "MODAL_TASK_ID": task.id,
        }
        with task.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(self._python),
                "-m",
                "modal._container_entrypoint",
                cwd=root,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        task.pid = process.pid
        self._watchman.add(process.pid)
        if task.ending is not None:
            # Ended while it was being started: `end` had no process yet to kill.
            task.end(task.ending)
        try:
            task.exit_code = await process.wait()
        finally:
            # What the container started and left behind.
            task.send(signal.SIGKILL)
            self._watchman.remove(process.pid)

    def _arguments(self, task: Task, function: Function) -> api_pb2.ContainerArguments:
        app = self._world.apps[function.app_id]
        found = layout(self._world, app)
        for dependency in task.definition.function.object_dependencies:
            entry = found.objects.add(object_id=dependency.object_id)
            if dependency.object_id in self._world.volumes.values():
                entry.volume_metadata.CopyFrom(api_pb2.VolumeMetadata())
        return api_pb2.ContainerArguments(
            task_id=task.id,
            function_id=function.id,
            app_id=app.id,
            function_def=task.definition.function,
            serialized_params=task.definition.serialized_params,
            environment_name=ENVIRONMENT,
            app_layout=found,
        )

    def _variables(self, function: api_pb2.Function, root: Path) -> dict[str, str]:
        """What Modal gives a container, and nothing of this process's own environment."""
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        found = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": f"{self._python.parent}:{PATH}",
            "PYTHONPATH": str(root),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(home),
        }
        for layer in self._world.layers(function.image_id) if function.image_id else []:
            found.update(layer.variables)
        for secret_id in function.secret_ids:
            found.update(self._world.secrets[secret_id].values)
        found.update(self._environment)
        return found | {
            "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_LOOPBACK",
            "MODAL_ENVIRONMENT": ENVIRONMENT,
            "MODAL_IMAGE_ID": function.image_id,
            "MODAL_IS_REMOTE": "1",
            "MODAL_REGION": "loopback",
        }

    def _materialised(self, function: api_pb2.Function) -> Path:
        """A folder with the files that the function's image was copied and its mounts, as if it were `/`.

        Functions with the same files share it.
        """
        mount_ids = [
            layer.context_mount_id
            for layer in (self._world.layers(function.image_id) if function.image_id else [])
            if layer.context_mount_id and any(command.strip() == "COPY . /" for command in layer.commands)
        ]
        mount_ids.extend(sorted(function.mount_ids))
        files = {file.filename: file for mount_id in mount_ids for file in self._world.mounts[mount_id]}
        listing = "\n".join(f"{name} {file.sha256_hex} {file.mode}" for name, file in sorted(files.items()))
        folder = self._folder / "mounted" / hashlib.sha256(listing.encode()).hexdigest()[:16]
        if not folder.exists():
            (folder / ROOT.relative_to("/")).mkdir(parents=True)
            for name, file in files.items():
                path = folder / PurePosixPath(name).relative_to("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((self._folder / "files" / file.sha256_hex).read_bytes())
                path.chmod((file.mode or 0o644) | 0o600)
        return folder
