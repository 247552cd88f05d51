"""Calls to the functions that are deployed on Modal: the one place, beside `modal_stub.py`, that imports its client.

A call is waited for in a thread of its own, since waiting is what Modal's client does best: one request stays open
for each call until there is an answer. What a call ends with is a `CallEnd`: Modal's exceptions are needed here alone.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from keyscale.engine.errors import KeyscaleError, RemoteError
from keyscale.engine.patience import Patience
from keyscale.engine.remote.names import APP, CHUNK, DEPLOYED, ENGINE, QUEUE
from keyscale.engine.worker.contract import Deployment, read_deployment

__all__ = ["CallEnd", "Calls", "Outcome"]

CONNECT_S = 5.0
"""How long the server's port is knocked at before the client, which tries for a minute, is let loose."""
DESCRIBE_S = 120.0
"""How long the start of the first container may take."""
CANCEL_S = 10.0
"""How long cancelling may take, of all calls together."""
WAIT_S = 50.0
"""How long one request for a result stays open."""
PATIENCE_S = 300.0
"""How long the server may be out of reach while calls run: they go on without it."""
START_PATIENCE_S = 60.0
"""The same while a call is being started: nothing is lost yet."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

LOG_IN = "Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal setup`."
LOGS = "Look at `modal app logs keyscale`."
DEPLOY = "Run `keyscale remote deploy`."


class CallEnd(Enum):
    """How a call ended."""

    ANSWERED = "answered"
    """The function returned: `Outcome.answer`."""
    TIMEOUT = "timeout"
    """It took longer than the function may."""
    CRASHED = "crashed"
    """The container died, or the function raised what may pass."""
    GONE = "gone"
    """Its result is not kept any more, or it was cancelled elsewhere."""
    FAILED = "failed"
    """The same call would fail again: `Outcome.error`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a call."""

    kind: CallEnd
    answer: dict[str, Any] | None = None
    error: RemoteError | None = None
    """What to tell people, for all kinds but `ANSWERED`."""


class Calls:
    """The deployed functions, once `connect` found them."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        """Nothing is reached out for."""
        self._patience_s = patience_s
        self._function: Any = None
        self._queue: Any = None
        self._closed = threading.Event()

    def check_reachable(self) -> None:
        """Raise a `RemoteError` within seconds where Modal is not to be reached."""
        _check_reachable(_modal().config.config["server_url"])

    def connect(self) -> Deployment:
        """Find server, credentials and functions, and ask what is deployed; starts a small container.

        Raises:
            RemoteError: whichever is missing, with what to set or run.
        """
        modal = _modal()
        _check_reachable(modal.config.config["server_url"])
        with _told("ask what is deployed"):
            try:
                describe = modal.Function.from_name(APP, DEPLOYED)
                describe.hydrate()
            except modal.exception.NotFoundError:
                raise RemoteError(
                    f"the Modal app {APP!r} with the function {DEPLOYED!r} is not deployed", remedy=DEPLOY
                ) from None
            call = describe.spawn()
            try:
                answer = call.get(timeout=DESCRIBE_S)
            except TimeoutError:
                _quietly(call.cancel)
                raise RemoteError(
                    f"no container of {APP!r} answered within {DESCRIBE_S:.0f} s",
                    remedy="Look at `modal app logs keyscale`, and try again.",
                ) from None
        deployment = read_deployment(answer)
        with _told("find the functions"):
            try:
                self._function = getattr(modal.Cls.from_name(APP, ENGINE)(), CHUNK)
                self._queue = modal.Queue.from_name(QUEUE, create_if_missing=True)
                self._queue.hydrate()
            except modal.exception.NotFoundError:
                raise RemoteError(f"{ENGINE}.{CHUNK} is not deployed", remedy=DEPLOY) from None
        return deployment

    def spawn(self, job_json: str, chunk: Mapping[str, int], urls: Mapping[str, str]) -> str:
        """Start a call; its id.

        Raises:
            RemoteError: it cannot be started.
        """
        with _told("start a chunk"):
            return self._persistently(lambda: str(self._spawn(job_json, chunk, urls)))

    def _spawn(self, job_json: str, chunk: Mapping[str, int], urls: Mapping[str, str]) -> str:
        found: str = self._function.spawn(job_json, dict(chunk), dict(urls), self._queue).object_id
        return found

    def wait(self, call_id: str) -> Outcome:
        """Wait for a call to end, however long that takes; a server that is away for a while is borne.

        `close` ends it with `GONE`.
        """
        modal = _modal()
        call = modal.FunctionCall.from_id(call_id)
        patience = self._patience(self._patience_s)
        while not self._closed.is_set():
            try:
                answer = call.get(timeout=WAIT_S)
            except modal.exception.InputCancellation:  # no `Exception`
                return _outcome(CallEnd.GONE, "a call was cancelled elsewhere")
            except Exception as error:  # whatever the function raised is raised here: `_judged` tells it apart
                ended = _judged(modal, error)
                if ended is not None:
                    return ended
                if _is_waiting(modal, error):
                    patience.renew()
                elif not patience.bear():
                    return Outcome(kind=CallEnd.FAILED, error=_unreachable("wait for a chunk"))
                continue
            if isinstance(answer, dict):
                return Outcome(kind=CallEnd.ANSWERED, answer=answer)
            return _outcome(CallEnd.FAILED, f"a chunk was answered with {type(answer).__name__}", DEPLOY)
        return _outcome(CallEnd.GONE, "nobody waits for the chunk any more")

    def state(self, call_id: str) -> str:
        """What a call does, in a word: `running`, `finished`, or how it ended; or why that is not known."""
        modal = _modal()
        try:
            modal.FunctionCall.from_id(call_id).get(timeout=0)
        except modal.exception.InputCancellation:
            return "cancelled"
        except Exception as error:  # as in `wait`
            if _is_waiting(modal, error):
                return "running"
            ended = _judged(modal, error)
            if ended is None:
                return "not known: Modal is out of reach"
            return "cancelled" if _is_cancelled(modal, error) else str(ended.error)
        return "finished"

    def news(self, partition: str, *, wait_s: float) -> list[dict[str, Any]]:
        """What containers report since the last time, after `wait_s` seconds at most; nothing where that fails."""
        modal = _modal()
        try:
            found = self._queue.get_many(100, block=True, timeout=wait_s, partition=partition)
        except queue.Empty:
            return []
        except (modal.exception.Error, OSError, TimeoutError):
            self._closed.wait(wait_s)
            return []
        return [news for news in found if isinstance(news, dict)]

    def cancel(self, call_ids: list[str], partition: str | None = None) -> list[str]:
        """Stop calls and forget what they report; tries all of them, for some seconds.

        Returns:
            The calls that may still run, since Modal did not answer.
        """
        modal = _modal()
        left = set(call_ids)

        def stop(call_id: str) -> None:
            try:
                modal.FunctionCall.from_id(call_id).cancel()
            except modal.exception.NotFoundError:
                pass
            except Exception:  # this thread has nobody to raise it to; for the caller the call may still run
                return
            left.discard(call_id)

        def forget() -> None:
            _quietly(lambda: self._queue.clear(partition=partition))

        threads = [threading.Thread(target=stop, args=(call_id,), daemon=True) for call_id in call_ids]
        if partition is not None and self._queue is not None:
            threads.append(threading.Thread(target=forget, daemon=True))
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + CANCEL_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sorted(left)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def close(self) -> None:
        """Let threads that wait come back soon, once their calls are cancelled or ended."""
        self._closed.set()

    def _persistently(self, act: Callable[[], str]) -> str:
        modal, patience = _modal(), self._patience(min(self._patience_s, START_PATIENCE_S))
        while True:
            try:
                return act()
            except _passing(modal):
                if not patience.bear() or self._closed.is_set():
                    raise

    def _patience(self, seconds: float) -> Patience:
        return Patience(seconds, first_pause_s=FIRST_PAUSE_S, longest_pause_s=LONGEST_PAUSE_S, rest=self._closed.wait)


def _modal() -> Any:
    try:
        import modal
        import modal.config
        import modal.exception
    except ImportError as error:
        raise RemoteError("the package modal is not installed", remedy="pip install 'modal~=1.6.4'") from error
    return modal


def _passing(modal: Any) -> tuple[type[BaseException], ...]:
    """Faults of the way to the server, or of the server itself, that may pass."""
    e = modal.exception
    return (
        e.ConnectionError,
        e.ServiceError,
        e.InternalError,
        e.InternalFailure,
        e.ResourceExhaustedError,
        ConnectionError,
        socket.gaierror,
    )


def _is_waiting(modal: Any, error: Exception) -> bool:
    """Whether `get` only says that there is no result yet."""
    e = modal.exception
    return isinstance(error, TimeoutError) and not isinstance(error, e.FunctionTimeoutError | e.OutputExpiredError)


def _is_cancelled(modal: Any, error: Exception) -> bool:
    """Whether the call was cancelled: Modal says so in words alone where its container had begun to work."""
    return isinstance(error, modal.exception.RemoteError) and "cancelled by user" in str(error)


def _judged(modal: Any, error: Exception) -> Outcome | None:
    """What an exception of `get` says of the call; None where it says something of the way to the server alone."""
    e = modal.exception
    if _is_waiting(modal, error) or (isinstance(error, _passing(modal)) and not isinstance(error, KeyscaleError)):
        return None
    if _is_cancelled(modal, error):
        return _outcome(CallEnd.GONE, "a call was cancelled elsewhere")
    ends: tuple[tuple[Any, CallEnd, str, str], ...] = (
        # Raised by the function, as something that may pass.
        (KeyscaleError, CallEnd.CRASHED, str(error), LOGS),
        (e.FunctionTimeoutError, CallEnd.TIMEOUT, "a chunk took longer than the function may", LOGS),
        ((e.OutputExpiredError, e.NotFoundError), CallEnd.GONE, "the result of a call is not kept any more", LOGS),
        (e.AuthError, CallEnd.FAILED, "Modal does not accept the token", LOG_IN),
        ((e.InvalidError, e.PermissionDeniedError, e.VersionError), CallEnd.FAILED, "Modal refuses the call", DEPLOY),
        (Exception, CallEnd.CRASHED, f"a container failed ({_short(error)})", LOGS),
    )
    return next(_outcome(kind, text, remedy) for wanted, kind, text, remedy in ends if isinstance(error, wanted))


def _outcome(kind: CallEnd, text: str, remedy: str = LOGS) -> Outcome:
    return Outcome(kind=kind, error=RemoteError(text, remedy=remedy))


def _short(error: BaseException) -> str:
    """The first line of an exception's text, without what may be a link."""
    line = next(iter(str(error).strip().splitlines()), "")
    words = [word if "://" not in word and "X-Amz-" not in word else "(a link)" for word in line.split()]
    return f"{type(error).__name__}: {' '.join(words)}"[:300] if words else type(error).__name__


def _unreachable(action: str) -> RemoteError:
    return RemoteError(
        f"cannot {action}: Modal is not to be reached",
        remedy="Check the network, then `keyscale remote resume` the job.",
    )


@contextlib.contextmanager
def _told(action: str) -> Iterator[None]:
    """Modal's exceptions as ours."""
    modal = _modal()
    e = modal.exception
    try:
        yield
    except KeyscaleError:
        raise
    except e.AuthError as error:
        raise RemoteError(f"Modal does not accept the token ({_short(error)})", remedy=LOG_IN) from None
    except e.VersionError as error:
        raise RemoteError(f"Modal does not take this client ({_short(error)})", remedy="pip install -U modal") from None
    except _passing(modal):
        raise _unreachable(action) from None
    except e.Error as error:
        raise RemoteError(f"cannot {action} ({_short(error)})", remedy=DEPLOY) from None


def _check_reachable(url: str) -> None:
    """Raise a `RemoteError` at once where nobody listens."""
    split = urlsplit(url)
    if split.scheme not in {"http", "https"} or split.hostname is None:
        return
    try:
        with socket.create_connection(
            (split.hostname, split.port or (443 if split.scheme == "https" else 80)), CONNECT_S
        ):
            pass
    except OSError as error:
        raise RemoteError(
            f"Modal is not to be reached at {split.hostname} ({error.strerror or type(error).__name__})",
            remedy="Check the network.",
        ) from None


def _quietly(act: Callable[[], object]) -> None:
    # Tidying up: what went wrong before is what is told.
    with contextlib.suppress(Exception):
        act()
