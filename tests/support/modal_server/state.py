"""What the server knows: apps, functions, images, mounts, calls and their inputs, and the bell that tells of changes.

Everything here lives on the server's event loop and is touched from no other thread.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .images import ImageRecord

T = TypeVar("T")

ENVIRONMENT = "main"
SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
FAILURE = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
TERMINATED = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED
TIMEOUT = api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT
INTERNAL_FAILURE = api_pb2.GenericResult.GENERIC_STATUS_INTERNAL_FAILURE


class Bell:
    """Wakes whoever waits for the state to change; all changes ring the same bell."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Let everyone who waits look again."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, ready: Callable[[], T | None], timeout_s: float) -> T | None:
        """What `ready` gives once it gives anything but None; None if that is not within `timeout_s` seconds.

        `ready` is asked at least once, so that a time of 0 polls.
        """
        end = time.monotonic() + timeout_s
        while True:
            event = self._event
            found = ready()
            left = end - time.monotonic()
            if found is not None or left <= 0:
                return found
            try:
                async with asyncio.timeout(left):
                    await event.wait()
            except TimeoutError:
                return ready()


@dataclass(kw_only=True)
class Definition:
    """One version of a function, as `FunctionCreate` brought it."""

    id: str
    function: api_pb2.Function
    """Of the first choice, where the function names several GPUs."""
    data: api_pb2.FunctionData
    serialized_params: bytes = b""

    @property
    def max_containers(self) -> int | None:
        """How many containers the function may have at once; None for as many as there is room for."""
        settings = self.function.autoscaler_settings
        limit = settings.max_containers or self.function.concurrency_limit
        return limit or None

    @property
    def scaledown_s(self) -> float:
        """After how many idle seconds a container is stopped; Modal's own default is a minute."""
        return float(self.function.autoscaler_settings.scaledown_window or self.function.task_idle_timeout_secs or 60)

    @property
    def inputs_per_container(self) -> int:
        """How many inputs one container works on at once."""
        return max(1, self.function.target_concurrent_inputs or self.function.max_concurrent_inputs)


@dataclass(kw_only=True)
class Function:
    """A function of an app, or a variant of one with parameters or options of its own."""

    id: str
    app_id: str
    name: str
    base_id: str = ""
    current: Definition | None = None
    """What runs. None until the app is published."""
    handle: api_pb2.FunctionHandleMetadata = field(default_factory=api_pb2.FunctionHandleMetadata)
    pending: list[Input] = field(default_factory=list)
    """Inputs that no container has, the next one first."""
    failed_starts: int = 0
    """How many containers in a row ended before they asked for an input."""


@dataclass(kw_only=True)
class App:
    """An app and the layout that was published last."""

    id: str
    name: str
    state: int
    function_ids: dict[str, str] = field(default_factory=dict)
    class_ids: dict[str, str] = field(default_factory=dict)
    version: int = 0
    deployed_at: float = 0.0


class InputState(Enum):
    """Where an input is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


@dataclass(kw_only=True, eq=False)
class Input:
    """One set of arguments and what became of it."""

    id: str
    idx: int
    call: Call
    message: api_pb2.FunctionInput
    state: InputState = InputState.QUEUED
    ready_at: float = 0.0
    """Not handed out before this time (monotonic seconds): the delay of a retry."""
    task_id: str = ""
    started_at: float = 0.0
    retry_count: int = 0
    internal_failures: int = 0
    cancelled_at: float | None = None
    output: api_pb2.FunctionGetOutputsItem | None = None
    entry: int = 0
    """Outputs of a call are numbered in the order in which they came, from 1."""


@dataclass(kw_only=True, eq=False)
class Call:
    """A call of a function: `spawn` and `remote` have one input, `map` has many."""

    id: str
    function_id: str
    kind: int
    """A `FunctionCallInvocationType`: who waits for it, and therefore who retries."""
    retry_policy: api_pb2.FunctionRetryPolicy
    inputs: list[Input] = field(default_factory=list)
    entries: int = 0
    data_out: dict[int, api_pb2.DataChunk] = field(default_factory=dict)
    """What a generator yielded, by its index from 1."""
    expired: bool = False

    @property
    def retried_by_client(self) -> bool:
        """Whether the waiting client itself asks for the retries."""
        return self.kind == api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC


@dataclass(frozen=True, kw_only=True)
class Secret:
    """Variables for the environment of a container. Their values stay out of its repr."""

    id: str
    name: str
    values: dict[str, str] = field(repr=False)


class World:
    """All that the server knows."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.apps: dict[str, App] = {}
        self.functions: dict[str, Function] = {}
        self.definitions: dict[str, Definition] = {}
        self.calls: dict[str, Call] = {}
        self.inputs: dict[str, Input] = {}
        self.images: dict[str, ImageRecord] = {}
        self.mounts: dict[str, tuple[api_pb2.MountFile, ...]] = {}
        self.secrets: dict[str, Secret] = {}
        self.volumes: dict[str, str] = {}
        self._counters: defaultdict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1))

    def new_id(self, prefix: str) -> str:
        """An id that was not given before, such as `fc-000000000007`; the prefix tells the client its kind."""
        return f"{prefix}-{next(self._counters[prefix]):012d}"

    def app_named(self, name: str) -> App | None:
        """The deployed app of that name."""
        return next(
            (app for app in self.apps.values() if app.name == name and app.state == api_pb2.APP_STATE_DEPLOYED), None
        )

    def function(self, function_id: str) -> Function:
        """Raises NOT_FOUND where there is none that runs."""
        found = self.functions.get(function_id)
        if found is None or found.current is None:
            raise GRPCError(Status.NOT_FOUND, f"Function {function_id} not found")
        return found

    def call(self, call_id: str) -> Call:
        """Raises NOT_FOUND where there is none."""
        found = self.calls.get(call_id)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"FunctionCall {call_id} not found")
        return found

    def layers(self, image_id: str) -> list[ImageRecord]:
        """The layers of an image, the lowest first."""
        found: dict[str, ImageRecord] = {}

        def visit(layer_id: str) -> None:
            layer = self.images[layer_id]
            for base in layer.bases:
                visit(base)
            found[layer_id] = layer

        visit(image_id)
        return list(found.values())
