"""Threads that send the parts of an upload, and the count of bytes that they share."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable

from keyscale.engine.errors import Interrupted

__all__ = ["BytesSent", "OnProgress", "Senders"]

GRACE_S = 3.0
"""Longest wait, in seconds, for requests under way when an upload is given up."""
TICK_S = 0.1
"""Seconds between two looks at progress, faults and the wish to stop."""

OnProgress = Callable[[int, int], None]


class BytesSent:
    """Bytes sent, part by part, as one figure that never falls although parts are sent anew after a fault."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self._total = total
        self._on_progress = on_progress
        self._sent: dict[int, int] = {}
        self._told = -1
        self._lock = threading.Lock()

    def counter(self, number: int) -> Callable[[int], None]:
        """A function that takes the bytes of this part that were sent so far; for any thread."""

        def count(sent: int) -> None:
            with self._lock:
                self._sent[number] = sent

        return count

    def tell(self) -> None:
        """Report, if there is something new."""
        with self._lock:
            # The last byte is not reported before the object is complete.
            sent = min(sum(self._sent.values()), max(self._total - 1, 0))
        if self._on_progress is not None and sent > self._told:
            self._told = sent
            self._on_progress(sent, self._total)

    def finish(self) -> None:
        """Report that all is there."""
        if self._on_progress is not None:
            self._on_progress(self._total, self._total)


class Senders:
    """Threads that send parts, and at most one part that waits for them."""

    def __init__(
        self,
        put: Callable[[int, bytes, Callable[[], bool]], str],
        meter: BytesSent,
        should_stop: Callable[[], bool],
        *,
        threads: int,
    ) -> None:
        self.etags: dict[int, str] = {}
        self._put = put
        self._meter = meter
        self._should_stop = should_stop
        self._parts: queue.Queue[tuple[int, bytes]] = queue.Queue(maxsize=1)
        self._left = 0
        self._fault: Exception | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        # Daemons: a request that hangs must not keep the program from ending.
        self._threads = [
            threading.Thread(target=self._run, name=f"keyscale-upload-{index}", daemon=True) for index in range(threads)
        ]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        end = time.monotonic() + GRACE_S
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))

    def submit(self, number: int, data: bytes) -> None:
        """Hand a part over as soon as a thread is about to be free.

        Raises:
            StorageFault: sending any part failed.
            Interrupted: `should_stop` said so.
        """
        with self._lock:
            self._left += 1
        while True:
            self.look()
            with contextlib.suppress(queue.Full):
                self._parts.put((number, data), timeout=TICK_S)
                return

    def finish(self) -> None:
        """Wait until every part is stored; raises as `submit`."""
        while True:
            self.look()
            with self._lock:
                if not self._left:
                    return
            time.sleep(TICK_S / 10)

    def look(self) -> None:
        """Report progress, and raise what there is to raise, as `submit`."""
        self._meter.tell()
        if self._fault is not None:
            raise self._fault
        if self._should_stop():
            raise Interrupted("stopped during an upload")

    def _stopped(self) -> bool:
        return self._ended.is_set() or self._should_stop()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                number, data = self._parts.get(timeout=TICK_S)
            except queue.Empty:
                continue
            try:
                etag = self._put(number, data, self._stopped)
            except Exception as fault:
                # The first is the cause; those after it only follow from it.
                self._fault = self._fault or fault
                self._ended.set()
                return
            with self._lock:
                self.etags[number] = etag
                self._left -= 1
