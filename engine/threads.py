"""Threads: those of a job and who waits for them, those of a pipeline, and the lock to run networks.

What passes between the threads of a pipeline is bounded: back-pressure, one failure for all, no thread left behind.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Channel", "Keeper", "NetworkLock", "Stages", "Stopped", "start_helper"]

T = TypeVar("T")

POLL_SECONDS = 0.1
"""How long a blocked put or get waits before it looks at the stop flag."""

LOCK_POLL_SECONDS = 0.05
"""How long a job that waits to run its network does so before it looks whether to go on waiting."""


class Keeper(threading.Thread):
    """A thread that does a job, and knows the threads that were started for it.

    A command ends its process and need not wait for threads that are busy in C code. A program goes on: once
    a job is given back, all that it began has to have ended.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, target=work, daemon=True)
        self._helpers: list[threading.Thread] = []

    def keep(self, helper: threading.Thread) -> None:
        """Wait for this thread as well; called in the keeper's own thread."""
        self._helpers = [*(each for each in self._helpers if each.is_alive()), helper]

    def includes(self, thread: threading.Thread) -> bool:
        """Whether it is this thread or one of those that it waits for."""
        return thread is self or thread in self._helpers

    def run(self) -> None:
        """The job, then the end of every helper."""
        try:
            super().run()
        finally:
            for helper in self._helpers:
                helper.join()


def start_helper(name: str, work: Callable[[], None]) -> threading.Thread:
    """Run `work` in a thread of its own, which a `Keeper` that starts it waits for.

    A daemon: where a call into a network or a library cannot be interrupted, leaving the process must not wait for it.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    here = threading.current_thread()
    if isinstance(here, Keeper):
        here.keep(thread)
    return thread


class Stopped(Exception):
    """Another stage failed or the job was stopped: leave quietly."""


class Channel(Generic[T]):
    """A bounded queue of items that ends."""

    _END = object()

    def __init__(self, stages: Stages, size: int) -> None:
        self._stages = stages
        self._queue: queue.Queue[object] = queue.Queue(maxsize=size)

    def put(self, item: T) -> None:
        """Hand over one item; blocks while the channel is full.

        Raises:
            Stopped: the stages were stopped.
        """
        self._put(item)

    def close(self) -> None:
        """No more items follow."""
        self._put(self._END)

    def __iter__(self) -> Iterator[T]:
        while True:
            self._stages.check()
            try:
                item = self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if item is self._END:
                return
            yield item  # type: ignore[misc]  # only put() and close() fill the queue

    def _put(self, item: object) -> None:
        while True:
            self._stages.check()
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue


class Stages:
    """The threads of one pipeline. The first failure stops all and is raised in `wait`."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._halt = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._lock = threading.Lock()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own.

        A daemon: where a network call can not be interrupted, leaving the process must not wait for it.
        """
        self._threads.append(start_helper(f"keyscale-{name}", lambda: self._guard(work)))

    def stopped(self) -> bool:
        """Whether the job was stopped from outside or a stage failed."""
        return self._halt.is_set() or self._should_stop()

    def check(self) -> None:
        """Raise `Stopped` when `stopped`."""
        if self.stopped():
            raise Stopped

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for all threads; True when all have ended.

        Raises:
            BaseException: the first failure of a stage, once all have ended.
        """
        alive = [thread for thread in self._threads if thread.is_alive()]
        if alive:
            alive[0].join(seconds)
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def dismiss(self, seconds: float) -> None:
        """Stop all stages and give them `seconds` to leave; a thread in a network call stays behind."""
        self._halt.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            pass
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
            self._halt.set()


class NetworkLock:
    """Held by the one job of a process that runs its network, so that two do not take the cores from each other.

    A job that waits for it reads its source and fills its queues meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold it within the block; `check` is called while it is waited for, and ends that by raising."""
        while not self._lock.acquire(timeout=LOCK_POLL_SECONDS):
            check()
        try:
            yield
        finally:
            self._lock.release()
