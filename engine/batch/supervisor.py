"""Many clips given to a few worker processes: which works on what, what becomes of those that fail or die with them.

The process that runs this touches no video: a clip whose decoder crashes takes a worker with it, not the batch.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as StopFlag
from typing import TYPE_CHECKING, Any

from keyscale.engine.batch.clip import BatchClip, ClipState
from keyscale.engine.batch.clip_table import ClipTable
from keyscale.engine.batch.events import ENDED, BatchDone, BatchEvent, ClipStatus, Fault
from keyscale.engine.batch.messages import Answer, Ended, Hello, Opened, Order, Planned, Told
from keyscale.engine.batch.pool import WorkerPool, WorkerProcess
from keyscale.engine.batch.report import write_report
from keyscale.engine.batch.retries import AGAIN_S, Again
from keyscale.engine.errors import (
    DeviceLost,
    EnvironmentFault,
    FramingError,
    InputError,
    Interrupted,
    KeyscaleError,
    OutputBusy,
    UsageError,
)
from keyscale.engine.events import Done, Event, Failed, Note, failure
from keyscale.engine.files import storage_error
from keyscale.engine.workspace.folder import identity_of

if TYPE_CHECKING:
    from keyscale.engine.run_options import RemoteOptions

__all__ = ["BatchOptions", "run_batch"]

POLL_S = 0.25

BUSY_S, MOST_BUSY_S = 2.0, 15.0
"""How long a clip waits at first and at most whose output another process is working on, before it is tried again."""

TRIES = 2
"""How often a clip may take its worker with it: the second time it was alone, and it was that clip."""

FAILED_STARTS = 3
"""Workers in a row that may die before they are up; then it is this machine."""

OWN_FAULTS = frozenset(kind.__name__ for kind in (UsageError, FramingError, InputError))
"""Failures of planning that working on the clip would not mend."""

INTERRUPTED = Interrupted.__name__

REPORT_S = 1.0
"""How often the report is written at most."""

MORE_S = 1.0
"""How often it is asked whether more clips came up."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How a batch runs."""

    jobs: int | None = None
    """Clips that are worked on at once: worker processes here, clips of the one worker remotely. None is what is
    fastest for this machine, one for each GPU; remotely `REMOTE_JOBS`."""
    remote: RemoteOptions | None = None
    fail_fast: bool = False
    """The first failure stops everything."""
    device: str = "auto"
    """Where networks run, as of a job; `cpu` where none run."""
    report: Path | None = None
    """Where the report is written: as clips end, and in the end."""
    again_s: float = AGAIN_S
    """Seconds after which a clip of a watched folder that failed by the machine's fault is tried again at first."""


def run_batch(
    clips: Sequence[BatchClip],
    options: BatchOptions,
    stop: StopFlag,
    *,
    more: Callable[[], Sequence[BatchClip]] | None = None,
) -> Generator[BatchEvent, None, None]:
    """Do all clips; at least one event every 2 s, the last one is `BatchDone`.

    Args:
        clips: in the order in which they are begun.
        options: how.
        stop: set it to end early: finished chunks are kept, the report says what was not finished.
        more: asked several times a second for clips that came up since; with it the batch ends by `stop` alone.

    Raises:
        EnvironmentFault: no worker can be started.
    """
    supervisor = _Supervisor(options, stop, more)
    try:
        yield from supervisor.run(clips)
    finally:
        supervisor.pool.close()
        if not supervisor.reported:
            # The reader of the events has gone.
            supervisor.write_report_now()


class _Supervisor:
    def __init__(self, options: BatchOptions, stop: StopFlag, more: Callable[[], Sequence[BatchClip]] | None) -> None:
        self.options = options
        remote = options.remote is not None
        self.pool = WorkerPool(jobs=options.jobs, remote=remote, device=options.device)
        self.reported = False
        """The last event was given."""
        self._stop, self._more = stop, more
        self._clips = ClipTable(remote=remote)
        self._again = Again(options.again_s)
        self._waiting: deque[ClipState] = deque()
        self._suspects: deque[ClipState] = deque()
        """A worker died over them; each is tried again alone."""
        self._locked: deque[tuple[float, ClipState]] = deque()
        """Their outputs were locked; to be tried again at that time."""
        self._unplanned: deque[ClipState] = deque()
        self._failed_fast = False
        self._failed_starts = 0
        self._report_at = self._ask_at = time.monotonic()
        self._report_due = False

    # The loop

    def run(self, clips: Sequence[BatchClip]) -> Iterator[BatchEvent]:
        yield from self._add(clips)
        yield self._clips.progress()
        while not self._stops() and (self._clips.open() or self._more is not None):
            if self._more is not None and time.monotonic() >= self._ask_at:
                self._ask_at = time.monotonic() + MORE_S
                came = self._more()
                yield from self._add([*came, *self._again.due(time.monotonic(), besides=came)])
            yield from self._hand_out()
            yield from self._hear(POLL_S)
            if self._more is not None and self._clips.drop(self.pool.working_on()):
                self._report_due = True
            if self._report_due and time.monotonic() >= self._report_at:
                self.write_report_now()
            if self._clips.is_due():
                yield self._clips.progress()
        if self._stops():
            yield from self._stop_workers()
        yield self._clips.progress()
        ended = self._clips.report(finished=not any(clip.status is ClipStatus.STOPPED for clip in self._clips.all()))
        unwritten = None
        if self.options.report is not None:
            try:
                write_report(ended, self.options.report)
            except KeyscaleError as error:
                # What became of the clips is told all the same.
                unwritten = Fault.of(failure(error))
        self.reported = True
        yield BatchDone(report=ended, unwritten=unwritten)

    def write_report_now(self) -> None:
        """Write how it stands: it is looked at while the batch goes on, and after it was killed."""
        if self.options.report is None:
            return
        self._report_due, began = False, time.monotonic()
        # What is wrong with it is told by the last one.
        with contextlib.suppress(KeyscaleError):
            write_report(self._clips.report(finished=False), self.options.report)
        # That of a hundred thousand clips takes a while.
        ended = time.monotonic()
        self._report_at = ended + max(REPORT_S, 10 * (ended - began))

    def _stops(self) -> bool:
        return self._stop.is_set() or self._failed_fast

    def _add(self, clips: Sequence[BatchClip]) -> Iterator[BatchEvent]:
        for work in clips:
            clip = self._clips.add(work)
            yield self._clips.tell(clip)
            if work.job is None:
                assert work.fault is not None
                yield from self._finish(clip, failure(work.fault))
                continue
            if work.job.overwrite:
                # What this batch, or another one, makes from now on is not made twice.
                clip.outdated = identity_of(Path(work.output))
            self._waiting.append(clip)
            self._unplanned.append(clip)

    def _hand_out(self) -> Iterator[BatchEvent]:
        """Give clips to workers that can take one, chunks to those that have nothing to do, and plans to the scout."""
        while self._locked and self._locked[0][0] <= time.monotonic():
            self._waiting.append(self._locked.popleft()[1])
        for worker in self.pool.free(len(self._waiting) + len(self._suspects)):
            if self._suspects and not worker.running:
                yield from self._order(worker, self._suspects.popleft(), alone=True)
            elif self._waiting and not worker.alone:
                yield from self._order(worker, self._waiting.popleft())
        for worker in self.pool.idle(lambda: bool(self._to_assist())):
            if not (candidates := self._to_assist()):
                break
            clip = max(candidates, key=lambda clip: clip.frames_left / (1 + clip.assistants))
            clip.assistants += 1
            worker.order(self._order_of(clip, assist=clip.source_sha256))
        self._unplanned = deque(clip for clip in self._unplanned if clip.frames is None and clip.status not in ENDED)
        # The frames of a single clip are known soon enough.
        if self._clips.known > 1 and (scout := self.pool.free_scout(len(self._unplanned))):
            scout.order(self._order_of(self._unplanned.popleft(), plan_only=True))

    def _to_assist(self) -> list[ClipState]:
        """Clips of which a further worker could make chunks: each takes whole ones, with another one to come."""
        return [
            clip
            for clip in self._clips.all()
            if clip.status is ClipStatus.RUNNING
            and clip.source_sha256 is not None
            and clip.frames_left * clip.chunks >= 2 * (clip.frames or 0) * (1 + clip.assistants)
        ]

    def _order_of(self, clip: ClipState, **how: Any) -> Order:
        assert clip.work.job is not None
        return Order(index=clip.index, job=clip.work.job, remote=self.options.remote, **how)

    def _order(self, worker: WorkerProcess, clip: ClipState, *, alone: bool = False) -> Iterator[BatchEvent]:
        folder = Path(clip.work.output).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fault: KeyscaleError = storage_error(error, folder)
            if isinstance(error, FileExistsError | NotADirectoryError):
                fault = UsageError(f"{folder} is not a folder", remedy="Remove that file, or name another output.")
            yield from self._finish(clip, failure(fault))
            return
        clip.status, clip.result, worker.alone = ClipStatus.RUNNING, None, alone
        worker.order(self._order_of(clip, outdated=clip.outdated, shares=self.pool.shares))

    # What comes back

    def _hear(self, timeout_s: float) -> Iterator[BatchEvent]:
        """Handle all that workers have said; waits for the first of it at most so long."""
        with contextlib.suppress(queue.Empty):
            worker, answer = self.pool.heard.get(timeout=timeout_s)
            while True:
                yield from self._handle(worker, answer)
                worker, answer = self.pool.heard.get_nowait()

    def _handle(self, worker: WorkerProcess, answer: Answer | None) -> Iterator[BatchEvent]:
        if answer is None:
            yield from self._worker_died(worker)
            return
        if isinstance(answer, Hello):
            self.pool.greeted(worker, answer)
            self._failed_starts = 0
            return
        clip, is_scout = self._clips[answer.index], worker is self.pool.scout
        assists = answer.index == worker.assists
        match answer:
            case Planned():
                if clip.frames is None and clip.status not in ENDED:
                    clip.frames, clip.chunks = answer.frames, answer.chunks
                    clip.source_size, clip.size = answer.source_size, answer.size
                    yield self._clips.tell(clip)
            case Opened():
                clip.source_sha256 = answer.source_sha256
            case Told(event=Failed() as failed) if is_scout or assists:
                yield from self._could_not_help(clip, failed, is_scout=is_scout)
            case Told() if is_scout or assists:
                pass  # its own worker tells
            case Told(event=Done() | Failed() as result):
                lost = result if isinstance(result, Failed) and result.error == DeviceLost.__name__ else None
                # Told once its worker is done with it; where the device is lost, it ends now.
                clip.lost, clip.result = lost, None if lost else result
            case Told(event=event):
                yield from self._tell(clip, event)
            case Ended() if assists:
                clip.assistants -= 1
                worker.assists = None
            case Ended():
                worker.running.discard(clip.index)
                worker.alone = False
                if not is_scout:
                    yield from self._ended(clip)

    def _could_not_help(self, clip: ClipState, failed: Failed, *, is_scout: bool) -> Iterator[BatchEvent]:
        if is_scout and failed.error in OWN_FAULTS and clip in self._waiting:
            self._waiting.remove(clip)
            yield from self._finish(clip, failed)
        elif not is_scout and clip.status is ClipStatus.RUNNING and failed.error != INTERRUPTED:
            # Its own worker makes the chunks that this one could not.
            yield self._clips.tell(clip, _note(f"a second worker could not help: {failed.message}"))

    def _tell(self, clip: ClipState, event: Event) -> Iterator[BatchEvent]:
        """Pass an event of a clip on; a note that it had before, as it was tried before, only once."""
        if not isinstance(event, Note) or event.message not in clip.messages:
            clip.messages.update([event.message] if isinstance(event, Note) else [])
            yield self._clips.tell(clip, event)

    def _ended(self, clip: ClipState) -> Iterator[BatchEvent]:
        """The worker of a clip is done with it."""
        assert clip.result is not None
        clip.source_sha256 = None
        if not isinstance(clip.result, Failed) or clip.result.error != OutputBusy.__name__ or self._stops():
            yield from self._finish(clip, clip.result)
            return
        clip.status = ClipStatus.WAITING
        clip.waited += 1
        # Each time it is planned again: seldom, where it takes long.
        self._locked.append((time.monotonic() + min(BUSY_S * clip.waited, MOST_BUSY_S), clip))
        yield from self._tell(clip, _note("another process is working on its result: it is waited for", warning=True))

    def _worker_died(self, worker: WorkerProcess) -> Iterator[BatchEvent]:
        """Try its clips again, each alone; the one that takes a second worker with it has failed."""
        if worker.assists is not None:
            self._clips[worker.assists].assistants -= 1
        was_scout = worker is self.pool.scout
        how = self.pool.remove(worker)
        if was_scout or self._stops():
            return  # what the scout would have found is found when the clip is made
        self._failed_starts += not worker.ready
        if self._failed_starts >= FAILED_STARTS:
            raise EnvironmentFault(
                f"the processes that do the work do not start: one was ended {how}",
                remedy="Run `keyscale upscale` on one clip: it says what this machine lacks.",
            )
        for clip in [self._clips[index] for index in sorted(worker.running)]:
            if not worker.ready:
                clip.status = ClipStatus.WAITING  # it was not looked at
                self._waiting.appendleft(clip)
                continue
            if clip.result is not None:
                yield from self._ended(clip)  # only the word that it ended was missing
                continue
            clip.deaths, clip.source_sha256 = clip.deaths + 1, None
            if clip.deaths < TRIES:
                clip.status = ClipStatus.WAITING
                self._suspects.append(clip)
                message = f"the process that worked on it was ended {how}: it is tried again"
                if clip.lost is not None:
                    message = f"{clip.lost.message}: it is tried again in a new process"
                yield from self._tell(clip, _note(message, warning=True))
                continue
            died = Failed(
                error="WorkerDied",
                message=f"the process that worked on {clip.work.name} was ended {how}, twice",
                remedy="Memory may be short, or a library crashes on this video: run it alone to see which.",
                exit_code=1,
            )
            yield from self._finish(clip, clip.lost or died)

    def _finish(self, clip: ClipState, result: Done | Failed) -> Iterator[BatchEvent]:
        """A clip has ended, well or badly."""
        if isinstance(result, Done):
            self._again.succeeded(clip.work)
            status = ClipStatus.SKIPPED if result.skipped else ClipStatus.DONE
        elif result.error == INTERRUPTED:
            status = ClipStatus.STOPPED
        else:
            wait_s = None
            if self._more is not None:
                wait_s = self._again.failed(clip.work, result, time.monotonic())
            if wait_s is not None:
                yield from self._tell(clip, _note(f"it will be tried again in {wait_s:.0f} s"))
            result, status = clip.work.named(result), ClipStatus.FAILED
            self._failed_fast = self._failed_fast or self.options.fail_fast
        self._report_due = True
        yield self._clips.tell(clip, result, status=status)

    def _stop_workers(self) -> Iterator[BatchEvent]:
        """Stop the workers, hear what they still have to say, and say which clips were not finished."""
        self.pool.stop()
        deadline = time.monotonic() + self.pool.close_s
        while any(worker.running for worker in self.pool.workers) and time.monotonic() < deadline:
            yield from self._hear(POLL_S)
            if self._clips.is_due():
                yield self._clips.progress()
        for clip in self._clips.all():
            if clip.status not in ENDED:
                yield self._clips.tell(clip, status=ClipStatus.STOPPED)


def _note(message: str, *, warning: bool = False) -> Note:
    return Note(level="warning" if warning else "info", message=message)
