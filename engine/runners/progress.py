"""Progress that can be believed: rate over the recent past, never going back; and while blocking work goes on."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Literal, TypeVar

from keyscale.engine.errors import Interrupted
from keyscale.engine.events import Event, Phase, Progress
from keyscale.engine.threads import start_helper

__all__ = ["Meter", "in_background", "signs_of_life", "summed"]

T = TypeVar("T")

POLL_SECONDS = 0.25

HEARTBEAT_SECONDS = 1.5
"""Longest silence between two events; the contract is 2 s."""

SHORTEST_SECONDS = 0.2
"""Shortest time between two events."""

SPAN_SECONDS = 30.0
"""The recent past over which the rate is taken."""


class Meter:
    """Makes the `Progress` events of one phase.

    Args:
        phase: which.
        total: units of the phase, 0 while not known.
        unit: what is counted.
        done: units that were there before it began; they do not count for the rate.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        phase: Phase,
        total: int,
        *,
        unit: Literal["frames", "bytes"] = "frames",
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = phase
        self.unit = unit
        self.total = total
        self._clock = clock
        self._told: float | None = None
        self._frame = done
        self._past: deque[tuple[float, int]] = deque([(clock(), done)])

    def is_due(self, frame: int) -> bool:
        """Whether it is time to tell: something changed and a moment passed, or the heartbeat."""
        if self._told is None:
            return True
        silence = self._clock() - self._told
        return silence >= HEARTBEAT_SECONDS or (frame > self._frame and silence >= SHORTEST_SECONDS)

    def begin(self, frame: int) -> Progress:
        """The first event, once the work itself begins: what came before does not count for the rate."""
        self._past = deque([(self._clock(), max(frame, self._frame))])
        return self.progress(frame)

    def progress(self, frame: int) -> Progress:
        """The event for `frame` frames done."""
        now = self._clock()
        self._frame = max(frame, self._frame)
        if self.total:
            self._frame = min(self._frame, self.total)
        self._told = now
        self._past.append((now, self._frame))
        while len(self._past) > 2 and now - self._past[1][0] > SPAN_SECONDS:
            self._past.popleft()
        then, earlier = self._past[0]
        gained, seconds = self._frame - earlier, now - then
        fps = gained / seconds if gained > 0 and seconds > 0 else None
        eta = (self.total - self._frame) / fps if fps and self.total else None
        return Progress(phase=self.phase, frame=self._frame, total=self.total, unit=self.unit, fps=fps, eta_s=eta)


def summed(report: Callable[[int, int], None]) -> Callable[[int, int | None], None]:
    """What adds up the progress of downloads that follow one another, and reports (done, total) of all so far."""
    before = last = size = 0

    def on_progress(done: int, total: int | None) -> None:
        nonlocal before, last, size
        before += size if done < last else 0
        last, size = done, total or done
        report(before + done, before + size)

    return on_progress


def in_background(
    phase: Phase,
    work: Callable[[Callable[[int, int], None]], T],
    should_stop: Callable[[], bool],
    *,
    unit: Literal["frames", "bytes"] = "frames",
) -> Generator[Event, None, T]:
    """Run `work(report)`; what it reports as (done, total) becomes `Progress` events, with a heartbeat.

    Work that nobody waits for any more ends with its next report, or by itself.

    Raises:
        Interrupted: `should_stop` said so; the thread, a daemon, is left to notice.
        BaseException: whatever `work` raises.
    """
    outcome: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
    meter = Meter(phase, 0, unit=unit)
    done = 0
    left = threading.Event()

    def report(now: int, total: int) -> None:
        nonlocal done
        if left.is_set():
            raise Interrupted("interrupted")
        done, meter.total = now, max(total, meter.total)

    def run() -> None:
        try:
            outcome.put((work(report), None))
        except BaseException as error:
            outcome.put((None, error))

    start_helper(f"keyscale-{phase.value}", run)
    try:
        while True:
            try:
                result, error = outcome.get(timeout=POLL_SECONDS)
                break
            except queue.Empty:
                if should_stop():
                    raise Interrupted("interrupted") from None
                if meter.is_due(done):
                    yield meter.progress(done)
    finally:
        left.set()
    if error is not None:
        raise error
    if meter.total:
        yield meter.progress(meter.total)
    return result  # type: ignore[return-value]  # None only beside an error, or where T is None


def signs_of_life(
    meter: Meter, over: threading.Event, longest_s: float, is_hasty: Callable[[], bool] = lambda: True
) -> Iterator[Progress]:
    """Progress events until `over` is set, or for `longest_s` seconds from when `is_hasty`."""
    end = math.inf
    while not over.wait(POLL_SECONDS) and time.monotonic() < end:
        if end == math.inf and is_hasty():
            end = time.monotonic() + longest_s
        if meter.is_due(0):
            yield meter.progress(0)
