"""The server's parts put together, on one event loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from grpclib.server import Server

from .blobs import Blobs
from .calling import Calling, Working
from .containers import Containers
from .deploying import Deploying
from .dispatch import Dispatcher, Token
from .queues import Queues
from .relay import Relay
from .resources import Resources
from .scheduler import Scheduler
from .state import World

TICK_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is like; times in seconds."""

    python: Path
    """The interpreter of the containers. It needs `modal` and what the image installs."""
    port: int = 0
    """On 127.0.0.1; 0 takes any that is free."""
    max_containers: int = 8
    """Of all functions together; each function's own limit holds besides."""
    scaledown_s: float = 10.0
    """Idle containers end after this time even where their function would let them wait longer."""
    cancel_grace_s: float = 10.0
    """A container that does not end a cancelled input within this time is killed."""
    failed_starts: int = 2
    """After so many containers in a row that end before they are ready, waiting inputs fail with their error."""
    retry_delay_factor: float = 1.0
    """Scales the delays between retries that the server makes."""
    queue_lease_s: float = 900.0
    """An ephemeral queue vanishes when its owner is not heard of for this time."""
    builder_version: str = "2025.06"
    """Of images, where the client does not choose one."""
    container_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for containers, above those of image and secrets: folders of this machine, numbers of threads."""
    token: Token = field(
        default_factory=lambda: Token(id=f"ak-{secrets.token_hex(8)}", secret=f"as-{secrets.token_hex(8)}")
    )


class Core:
    """All parts; every method has to be called on the server's event loop."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.world = World()
        self.scheduler = Scheduler(
            self.world,
            max_containers=settings.max_containers,
            failed_starts=settings.failed_starts,
            retry_delay_factor=settings.retry_delay_factor,
        )
        self.blobs = Blobs(self.world, folder / "blobs")
        self.resources = Resources(self.world, self.blobs, folder / "files")
        self.queues = Queues(self.world, lease_s=settings.queue_lease_s)
        self.dispatcher = Dispatcher(
            [
                Deploying(self.world, self.scheduler, builder_version=settings.builder_version),
                Calling(self.world, self.scheduler),
                Working(self.world, self.scheduler),
                self.resources,
                self.queues,
                self.blobs,
            ],
            token=settings.token,
        )
        self.containers = Containers(
            self.world,
            self.scheduler,
            folder=folder,
            python=settings.python,
            environment=settings.container_environment,
            door=self.dispatcher.door,
        )
        self._front = Server([self.dispatcher.door(None)])
        sockets = self.containers.sockets
        self._front_socket, self._blob_socket = sockets / "front.sock", sockets / "blobs.sock"
        self._front_relay, self._blob_relay = Relay(str(self._front_socket)), Relay(str(self._blob_socket))
        self._clock: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Where clients connect, on 127.0.0.1."""
        return self._front_relay.port

    async def start(self) -> None:
        """Serve."""
        await self.blobs.start(self._blob_socket)
        await self._blob_relay.start(0)
        self.blobs.serve_clients_at(f"http://127.0.0.1:{self._blob_relay.port}")
        await self._front.start(path=str(self._front_socket))
        await self._front_relay.start(self.settings.port)
        self._clock = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Kill the containers and close everything."""
        if self._clock is not None:
            self._clock.cancel()
            with suppress(asyncio.CancelledError):
                await self._clock
        await self._front_relay.close()
        await self._blob_relay.close()
        self._front.close()
        with suppress(RuntimeError):  # grpclib's way to say that it was not started
            await self._front.wait_closed()
        await self.blobs.stop()
        await self.containers.close()

    async def shut(self, *, hang: bool) -> None:
        """Be gone for clients."""
        for relay in (self._front_relay, self._blob_relay):
            await relay.shut(hang=hang)

    async def open(self) -> None:
        """Be back."""
        for relay in (self._blob_relay, self._front_relay):
            await relay.open()

    async def _tick(self) -> None:
        while True:
            self.scheduler.look_at_the_clock(
                cancel_grace_s=self.settings.cancel_grace_s, most_idle_s=self.settings.scaledown_s
            )
            for function in self.scheduler.wanted():
                self.containers.start(function)
            with suppress(TimeoutError):
                # Sooner than the next tick where something happens, so that containers start at once.
                await self.world.bell.wait(lambda: None, TICK_S)
