"""Calls to the functions that are deployed on Modal: the one place, beside `modal_stub.py`, that imports its client.

A call is waited for in a thread of its own, since waiting is what Modal's client does best: one request stays open
for each call until there is an answer. What a call ends with is a `CallEnd`, so that nobody else needs Modal's
exceptions.
"""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from keyscale.engine.errors import Interrupted, RemoteError
from keyscale.engine.patience import Patience
from keyscale.engine.remote.modal_errors import (
    DEPLOY,
    LOGS,
    CallEnd,
    Outcome,
    is_about_money,
    is_cancelled,
    is_waiting,
    judged,
    never_arrived,
    outcome_of,
    passing,
    short,
    told_by,
    unreachable,
)
from keyscale.engine.remote.names import APP, CHUNK, DEPLOYED, ENGINE, QUEUE, WIDE_ENGINE
from keyscale.engine.storage.proxies import proxy_for
from keyscale.engine.worker.contract import Deployment, read_deployment

__all__ = ["Calls"]

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
ASKS = 3
"""How often a server that refuses is asked the same before it's believed: one refusal may be a fault of the moment."""
ASK_PAUSE_S = 0.5
DESCRIBE_POLL_S = 2.0
"""How soon an interrupted client notices while it waits for the first container."""


class Calls:
    """The deployed functions, once `connect` found them."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        """Nothing is reached out for."""
        self._patience_s = patience_s
        self._function: Any = None
        self._wide: Any = None
        self._queue: Any = None
        self._closed = threading.Event()

    def check_reachable(self) -> None:
        """Raise a `RemoteError` within seconds where Modal cannot be reached."""
        config = _modal().config.config
        _check_reachable(config["server_url"], by_proxy=not config.get("disable_api_proxy"))

    def check_deployed(self) -> Any:
        """The function `describe`, once server, credentials and deployment are there; starts nothing.

        Raises:
            RemoteError: whichever is missing, with what to set or run.
        """
        modal = _modal()
        self.check_reachable()
        with told_by(modal, "ask what is deployed", has_begun=False):
            try:
                describe = modal.Function.from_name(APP, DEPLOYED)
                describe.hydrate()
            except modal.exception.NotFoundError:
                raise RemoteError(
                    f"the Modal app {APP!r} with the function {DEPLOYED!r} is not deployed", remedy=DEPLOY
                ) from None
        return describe

    def connect(self) -> Deployment:
        """Find server, credentials and functions, and ask what is deployed; starts a small container.

        Raises:
            RemoteError: whichever is missing, with what to set or run.
        """
        modal = _modal()
        describe = self.check_deployed()
        with told_by(modal, "ask what is deployed"):
            call = describe.spawn()
            try:
                answer = self._first_answer(call)
            except TimeoutError:
                raise RemoteError(
                    f"no container of {APP!r} answered within {DESCRIBE_S:.0f} s",
                    remedy="Look at `modal app logs keyscale`, and try again.",
                ) from None
        deployment = read_deployment(answer)
        with told_by(modal, "find the functions", has_begun=False):
            try:
                self._function = getattr(modal.Cls.from_name(APP, ENGINE)(), CHUNK)
                self._wide = getattr(modal.Cls.from_name(APP, WIDE_ENGINE)(), CHUNK)
                self._queue = modal.Queue.from_name(QUEUE, create_if_missing=True)
                self._queue.hydrate()
            except modal.exception.NotFoundError:
                raise RemoteError(f"{ENGINE}.{CHUNK} is not deployed", remedy=DEPLOY) from None
        return deployment

    def choose(self, *, wide: bool) -> None:
        """Have calls that are started from now on made in containers with more cores."""
        if wide:
            self._function = self._wide

    def _first_answer(self, call: Any) -> Any:
        """What `describe` answers; a call that nobody waits for any more is cancelled.

        Raises:
            TimeoutError: nothing came in time.
            Interrupted: `close` was called.
            RemoteError: it failed.
        """
        modal, deadline = _modal(), time.monotonic() + DESCRIBE_S
        while not self._closed.is_set():
            try:
                return call.get(timeout=DESCRIBE_POLL_S)
            except modal.exception.InputCancellation:  # no `Exception`
                raise RemoteError(f"{DEPLOYED!r} was cancelled elsewhere", remedy="Run the command again.") from None
            except Exception as error:  # whatever the function raised is raised here
                if not is_waiting(modal, error):
                    if isinstance(error, modal.exception.Error):
                        raise
                    raise RemoteError(
                        f"the deployed function {DEPLOYED!r} failed ({short(error)})", remedy=LOGS
                    ) from None
            if time.monotonic() >= deadline:
                _quietly(call.cancel)
                raise TimeoutError
        _quietly(call.cancel)
        raise Interrupted("interrupted")

    def spawn(
        self, job_json: str, chunk: Mapping[str, int], urls: Mapping[str, str], *, lost: Callable[[], object]
    ) -> str:
        """Start a call; its id.

        Args:
            job_json: as of `make_chunk`.
            chunk: the same.
            urls: the same.
            lost: called where nobody answered and it is asked for anew: an earlier call may run beside this one.

        Raises:
            Unanswered: it may have been started; nobody knows its id.
            RemoteError: it cannot be started.
        """
        modal, patience = _modal(), self._patience(min(self._patience_s, START_PATIENCE_S))
        with told_by(modal, "start a chunk"):
            while True:
                try:
                    return str(self._function.spawn(job_json, dict(chunk), dict(urls), self._queue).object_id)
                except passing(modal) as error:
                    if is_about_money(modal, error) or not patience.bear() or self._closed.is_set():
                        raise
                    if not never_arrived(modal, error):
                        lost()

    def wait(self, call_id: str) -> Outcome:
        """Wait for a call to end, however long that takes; a server that is away for a while is borne.

        Where Modal no longer knows how a call ended, it is cancelled, so that none runs on beside the one that takes
        its place. `close` ends it with `GONE`.
        """
        modal = _modal()
        call = modal.FunctionCall.from_id(call_id)
        patience, refusals = self._patience(self._patience_s), 0
        outcome: Outcome | None = None
        while outcome is None and not self._closed.is_set():
            asked = time.monotonic()
            try:
                answer = call.get(timeout=WAIT_S)
            except modal.exception.InputCancellation:  # no `Exception`
                outcome = outcome_of(CallEnd.GONE, "a call was cancelled elsewhere")
            except Exception as error:  # whatever the function raised is raised here: `judged` tells it apart
                outcome = judged(modal, error)
                if is_waiting(modal, error) and time.monotonic() - asked < WAIT_S / 2:
                    # Too early: so it is the function's own, and would be raised again for ever.
                    outcome = outcome_of(CallEnd.GONE, f"a container failed ({short(error)})", ended=False)
                if is_waiting(modal, error) and outcome is None:
                    patience.renew()
                    refusals = 0
                elif outcome is None and not patience.bear():
                    outcome = Outcome(kind=CallEnd.FAILED, error=unreachable("wait for a chunk"), ended=False)
                elif outcome is not None and not outcome.ended:
                    refusals += 1
                    outcome = self._refused(call_id, outcome, refusals)
            else:
                outcome = Outcome(kind=CallEnd.ANSWERED, answer=answer)
                if not isinstance(answer, dict):
                    outcome = outcome_of(CallEnd.FAILED, f"a chunk was answered with {type(answer).__name__}", DEPLOY)
        return outcome or outcome_of(CallEnd.GONE, "nobody waits for the chunk any more", ended=False)

    def _refused(self, call_id: str, outcome: Outcome, refusals: int) -> Outcome | None:
        """How a call ended after `refusals` refusals in a row to say so; None to ask again, after a pause."""
        if refusals < ASKS:
            self._closed.wait(ASK_PAUSE_S * refusals)
            return None
        if outcome.kind is CallEnd.GONE and not self.cancel([call_id]):
            return replace(outcome, ended=True)
        return replace(outcome, kind=CallEnd.FAILED)

    def state(self, call_id: str) -> str:
        """What a call does, in a word: `queued`, `running`, `finished`, or how it ended; or why that is not known."""
        modal = _modal()
        try:
            modal.FunctionCall.from_id(call_id).get(timeout=0)
        except modal.exception.InputCancellation:
            return "cancelled"
        except Exception as error:  # as in `wait`
            if is_waiting(modal, error):
                return {True: "running", False: "queued", None: "queued or running"}[self.has_begun(call_id)]
            outcome = judged(modal, error)
            if outcome is None:
                return "not known: Modal is out of reach"
            if not outcome.ended:
                return f"not known: {outcome.error}"
            return "cancelled" if is_cancelled(modal, error) else str(outcome.error)
        return "finished"

    def has_begun(self, call_id: str) -> bool | None:
        """Whether a container works on a call, or has; None where Modal, which notes it by and by, doesn't tell."""
        try:
            found = list(_modal().FunctionCall.from_id(call_id).get_call_graph())
        except Exception:  # only wanted to tell more
            return None
        while found:
            one = found.pop()
            if one.function_call_id == call_id:
                return bool(one.task_id)
            found += one.children
        return None

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
            The calls that may still run, since Modal did not confirm their end.
        """
        modal = _modal()
        left = set(call_ids)

        def stop(call_id: str) -> None:
            for ask in range(1, ASKS + 1):
                try:
                    modal.FunctionCall.from_id(call_id).cancel()
                except modal.exception.NotFoundError:
                    if ask < ASKS:  # else there really is no such call
                        time.sleep(ASK_PAUSE_S)
                        continue
                except Exception:  # this thread has nobody to raise it to; for the caller the call may still run
                    time.sleep(ASK_PAUSE_S)
                    continue
                left.discard(call_id)
                return

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


def _check_reachable(url: str, *, by_proxy: bool) -> None:
    """Raise a `RemoteError` at once where nobody listens, be it a proxy that the environment names for Modal."""
    url = url.partition(",")[0]
    split = urlsplit(url)
    if split.scheme not in {"http", "https"} or split.hostname is None:
        return
    what, remedy = f"Modal cannot be reached at {split.hostname}", "Check the network."
    place = split.hostname, split.port or (443 if split.scheme == "https" else 80)
    if by_proxy and (proxy := proxy_for(url, or_all=True)) is not None:
        what, remedy = f"Modal cannot be reached by {proxy}", proxy.remedy(split.hostname)
        if not proxy.host:
            raise RemoteError(f"{proxy.variable} is not the address of a proxy", remedy=remedy)
        if importlib.util.find_spec("python_socks") is None:
            lacking = "for a proxy Modal's client needs the package python-socks, which is not installed"
            raise RemoteError(f"{what}: {lacking}", remedy=f"pip install 'modal[api-proxy-support]'. {remedy}")
        place = proxy.host, proxy.port
    try:
        with socket.create_connection(place, CONNECT_S):
            pass
    except OSError as error:
        raise RemoteError(f"{what} ({error.strerror or type(error).__name__})", remedy=remedy) from None


def _quietly(act: Callable[[], object]) -> None:
    # Tidying up: what went wrong before is what is told.
    with contextlib.suppress(Exception):
        act()
