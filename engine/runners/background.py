"""One blocking piece of work in a thread, with events while it goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import Literal, TypeVar

from keyscale.engine.errors import Interrupted
from keyscale.engine.job import Event, Phase
from keyscale.engine.runners.progress import Meter
from keyscale.engine.threads import start_helper

__all__ = ["in_background"]

T = TypeVar("T")

POLL_SECONDS = 0.25


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
