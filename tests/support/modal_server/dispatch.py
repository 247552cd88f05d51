"""From an RPC's name to the method that answers it, with what holds for all of them: who may call, faults, records."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import grpclib.const
import grpclib.server
from grpclib import GRPCError, Status
from modal_proto import api_grpc

# The client repeats a request under the same key when the answer was lost. These would otherwise act twice.
ONCE = frozenset(
    {
        "AppCreate",
        "FunctionCallPutDataOut",
        "FunctionMap",
        "FunctionPutInputs",
        "FunctionPutOutputs",
        "FunctionRetryInputs",
        "QueueGet",
        "QueuePut",
    }
)
REMEMBERED = 4096


@dataclass(frozen=True, kw_only=True)
class Token:
    """What clients sign in with."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks."""

    task_id: str | None
    """The container; None for a client outside."""
    patience_s: float | None
    """For how long the caller waits for the answer; None where it does not say."""

    def wait_s(self, most: float) -> float:
        """How long an answer may be held back: a little less than the caller waits, and at most `most` seconds."""
        return most if self.patience_s is None else max(0.0, min(most, self.patience_s - 0.5))


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One request as it came in."""

    rpc: str
    request: Any
    at: float
    """Monotonic seconds."""
    task_id: str | None
    """The container that asked; None for a client outside."""


Method = TypeVar("Method", bound=Callable[..., Any])


def rpc(method: Method) -> Method:
    """Mark a method as the answer to an RPC: `function_map` to `FunctionMap`, and so on.

    It takes `request`, `caller`, both or none, and gives the response, or None where the response has no fields. One
    that answers a streaming RPC is an asynchronous generator of responses.
    """
    vars(method)["rpc"] = _rpc_name(method.__name__)
    return method


class Faults:
    """What tests make go wrong or slow."""

    def __init__(self) -> None:
        self.request_latency_s: dict[str, float] = {}
        """How long a request is held back before anything is done."""
        self.answer_latency_s: dict[str, float] = {}
        """How long the answer is held back after all is done."""
        self._failures: defaultdict[str, deque[GRPCError]] = defaultdict(deque)

    def fail_next(self, rpc: str, status: Status, times: int, message: str) -> None:
        """Let the next `times` requests of that name fail; they add to those that wait already."""
        self._failures[rpc].extend(GRPCError(status, message) for _ in range(times))

    def pass_on(self) -> None:
        """Take back every `fail_next`."""
        self._failures.clear()

    def due(self, rpc: str) -> int:
        """How many of the next requests of that name will fail."""
        return len(self._failures[rpc])

    async def meet(self, rpc: str) -> None:
        """Wait or fail as asked for."""
        await asyncio.sleep(self.request_latency_s.get(rpc, 0.0))
        if self._failures[rpc]:
            raise self._failures[rpc].popleft()


class Dispatcher:
    """Answers every RPC of the control plane that one of the sections knows; the others are UNIMPLEMENTED."""

    def __init__(self, sections: Iterable[object], *, token: Token) -> None:
        self.faults = Faults()
        self.records: list[RecordedCall] = []
        self._token = token
        self._handlers: dict[str, Any] = {}
        self._answers: OrderedDict[tuple[str, str], Any] = OrderedDict()
        for section in sections:
            for _, method in inspect.getmembers(section, inspect.ismethod):
                if name := getattr(method, "rpc", None):
                    self._handlers[name] = method
        unknown = self._handlers.keys() - _known_rpcs()
        if unknown:
            raise ValueError(f"no such RPC in modal_proto: {', '.join(sorted(unknown))}")

    def door(self, task_id: str | None) -> Door:
        """What a server on one socket serves: all clients (None), or the container of one task."""
        return Door(self, task_id)

    async def answer(
        self, rpc: str, stream: grpclib.server.Stream[Any, Any], handler: grpclib.const.Handler, task_id: str | None
    ) -> None:
        """Read one request from the stream and answer it."""
        request = await stream.recv_message()
        metadata = {key: str(value) for key, value in (stream.metadata or {}).items()}
        if task_id is None:
            self._check_token(metadata)
        self.records.append(RecordedCall(rpc=rpc, request=request, at=time.monotonic(), task_id=task_id))
        await self.faults.meet(rpc)
        method = self._handlers.get(rpc)
        if method is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"this server does not know {rpc}")
        patience = stream.deadline.time_remaining() if stream.deadline else None
        caller = Caller(task_id=task_id, patience_s=patience)
        offered = {"request": request, "caller": caller}
        arguments = {name: offered[name] for name in inspect.signature(method).parameters}
        if inspect.isasyncgenfunction(method):
            async for response in method(**arguments):
                await stream.send_message(response)
            return
        key = (rpc, metadata.get("x-idempotency-key", ""))
        response = self._answers.get(key)
        if response is None:
            response = await method(**arguments)
            if response is None:
                response = handler.reply_type()
            if rpc in ONCE and key[1]:
                self._answers[key] = response
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        await asyncio.sleep(self.faults.answer_latency_s.get(rpc, 0.0))
        await stream.send_message(response)

    def _check_token(self, metadata: Mapping[str, str]) -> None:
        given = (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret"))
        if given != (self._token.id, self._token.secret):
            raise GRPCError(
                Status.UNAUTHENTICATED, "Token validation failed. Please check that your token is valid and try again."
            )


class Door:
    """The service as grpclib wants it, for those who come through one socket."""

    def __init__(self, dispatcher: Dispatcher, task_id: str | None) -> None:
        self._dispatcher = dispatcher
        self._task_id = task_id

    def __mapping__(self) -> Mapping[str, grpclib.const.Handler]:
        return {path: self._handler(path.rpartition("/")[2], given) for path, given in _all_handlers().items()}

    def _handler(self, rpc: str, given: grpclib.const.Handler) -> grpclib.const.Handler:
        async def answer(stream: grpclib.server.Stream[Any, Any]) -> None:
            await self._dispatcher.answer(rpc, stream, given, self._task_id)

        return given._replace(func=answer)


def _all_handlers() -> dict[str, grpclib.const.Handler]:
    """Path, message types and cardinality of every RPC in modal_proto, with functions that are to be replaced."""

    class Anything:
        def __getattr__(self, name: str) -> None:
            return None

    return api_grpc.ModalClientBase.__mapping__(cast(Any, Anything()))


def _known_rpcs() -> set[str]:
    return {path.rpartition("/")[2] for path in _all_handlers()}


def _rpc_name(method: str) -> str:
    return re.sub(r"(?:^|_)([a-z])", lambda match: match[1].upper(), method)
