"""A process that does the jobs it is sent, several at a time, and keeps device, networks and kernels warm between them.

Run as `python -m keyscale.engine.batch.process NAME`; orders come on stdin, answers go to stdout. It ends when stdin
does: a batch that is killed leaves no worker behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, cast

from keyscale.engine.batch.messages import Answer, Ended, Hello, Opened, Order, Planned, Stop, Told, receive, send
from keyscale.engine.errors import DeviceLost, Interrupted
from keyscale.engine.events import Event, Phase, Progress, failure
from keyscale.engine.plan.plan import Plan
from keyscale.engine.remote.slots import Slots
from keyscale.engine.remote.spending import Budget
from keyscale.engine.runners.fetched import fetched, with_local_source
from keyscale.engine.runners.prepare import Prepared, prepare, prepare_plan
from keyscale.engine.runners.run import Run
from keyscale.engine.runners.shared import Shared

__all__ = ["ANY", "LOOK", "USE", "main"]

LOOK = "--look-for-gpus"
"""Argument: find the GPUs before anything else, and use the first."""

ANY = "--look-for-any-gpu"
"""Argument: the same, and where torch has none the best other one."""

USE = "--gpu="
"""Argument: which GPU is meant where none is named."""

GRACE_S = 2.0
"""How long jobs may take to stop once nobody hears of them any more."""
REMOTE_GRACE_S = 45.0
"""The same for jobs that have calls to cancel and objects to remove."""


class Worker:
    """Does orders in threads of their own until it is told to stop."""

    def __init__(self, pipe: IO[bytes], gpu: str | None) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._shared = Shared(gpu=gpu)
        self._lanes: list[threading.Thread] = []
        self._remote = False
        self._slots: Slots | None = None
        self._budget: Budget | None = None

    def answer(self, message: Answer) -> None:
        """Send one message; a batch that no longer listens is about to stop this process."""
        with self._sending:
            try:
                send(self._pipe, message)
            except (OSError, ValueError):
                self._stop.set()

    def follow(self, orders: IO[bytes]) -> None:
        """Do what is ordered; returns once stopped and everything has ended, or has had its time to."""
        while isinstance(request := receive(orders), Order):
            self._lanes = [lane for lane in self._lanes if lane.is_alive()]
            self._remote = self._remote or request.remote is not None
            lane = threading.Thread(
                target=self._do, args=(request,), name=f"keyscale-clip-{request.index}", daemon=True
            )
            self._lanes.append(lane)
            lane.start()
        self._stop.set()
        if isinstance(request, Stop):
            for lane in self._lanes:
                lane.join()
        else:
            for lane in self._lanes:
                lane.join(REMOTE_GRACE_S if self._remote else GRACE_S)

    def _do(self, order: Order) -> None:
        try:
            for event in self._events(order):
                self.answer(Told(index=order.index, event=event))
        except DeviceLost as error:
            # No network runs in this process any more. The batch gives what it had to another one.
            self.answer(Told(index=order.index, event=failure(error)))
            os._exit(error.exit_code)
        except BaseException as error:  # whatever it is, it is this clip's own failure, and the others go on
            self.answer(Told(index=order.index, event=failure(error)))
        self.answer(Ended(index=order.index))

    def _events(self, order: Order) -> Iterator[Event]:
        remote = order.remote is not None
        if order.plan_only:
            self._tell_plan(order, prepare_plan(fetched(order.job, self._stop.is_set), remote=remote))
            return
        job = yield from with_local_source(order.job, self._stop.is_set)
        prepared = replace(prepare(job, remote=remote), outdated=order.outdated)
        self._tell_plan(order, prepared.plan)
        if self._stop.is_set():
            raise Interrupted("interrupted")
        run = self._run(order, prepared)
        events = run.events()
        try:
            for event in events:
                if order.shares and isinstance(event, Progress) and event.phase is Phase.UPSCALE:
                    self.answer(Opened(index=order.index, source_sha256=run.source_sha256))
                    order = replace(order, shares=False)
                yield event
        finally:
            # Here and now: what it holds must be let go before the batch hears of the end.
            events.close()

    def _run(self, order: Order, prepared: Prepared) -> Run:
        if order.remote is not None:
            from keyscale.engine.remote.run import RemoteRun

            with self._sending:
                if self._slots is None or self._budget is None:
                    self._slots, self._budget = Slots(order.remote.containers), Budget(order.remote.max_cost)
            return RemoteRun(
                prepared, order.remote, self._stop, slots=self._slots, budget=self._budget, shared=self._shared
            )
        from keyscale.engine.runners.local import Assistance, LocalRun

        if order.assist is not None:
            return Assistance(prepared, self._stop, self._shared, order.assist)
        return LocalRun(prepared, self._stop, self._shared, shares=order.shares)

    def _tell_plan(self, order: Order, plan: Plan) -> None:
        source, target = (plan.info.width, plan.info.height), (plan.job.target.width, plan.job.target.height)
        planned = Planned(
            index=order.index, frames=plan.frames, chunks=len(plan.chunks), source_size=source, size=target
        )
        self.answer(planned)


def _gpus() -> tuple[str, ...]:
    from keyscale.engine.machine import find_gpus

    if LOOK not in sys.argv and ANY not in sys.argv:
        return tuple(each.removeprefix(USE) for each in sys.argv[1:] if each.startswith(USE))
    fit = find_gpus().fit
    if fit or LOOK in sys.argv:
        return fit
    from keyscale.engine.errors import DeviceError
    from keyscale.engine.models.gpus import candidates

    try:
        return candidates("gpu")[:1]
    except DeviceError:
        return ()  # each clip asks again, and fails with the reason


def main() -> None:
    """Serve the process that started this one."""
    # A terminal and a service manager signal the whole group; the batch alone decides what to do then.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A library that prints must not end up between the messages, nor one that reads take them away.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    gpus = _gpus()
    worker = Worker(cast(IO[bytes], answers), gpus[0] if gpus else None)
    worker.answer(Hello(gpus=gpus))
    worker.follow(cast(IO[bytes], orders))
    # Threads of libraries, and a job that did not stop in its time, do not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
