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
from typing import TYPE_CHECKING

from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.events import ENDED, BatchDone, BatchEvent, ClipStatus, Fault
from keyscale.engine.batch.ledger import Ledger, OpenClip
from keyscale.engine.batch.messages import Answer, Ended, Hello, Opened, Order, Planned, Told
from keyscale.engine.batch.pool import Crew, Heard, WorkerProcess
from keyscale.engine.batch.report import write_report
from keyscale.engine.batch.retries import AGAIN_S, Again
from keyscale.engine.errors import EnvironmentFault, FramingError, InputError, Interrupted, KeyscaleError, UsageError
from keyscale.engine.events import Done, Event, Failed, Note, Phase, Progress, failure
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

STILLBORN = 3
"""Workers in a row that may die before they are up; then it is this machine."""

OWN_FAULTS = frozenset(kind.__name__ for kind in (UsageError, FramingError, InputError))
"""Failures of planning that working on the clip would not mend."""

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
    look_for_gpus: bool = True
    """Whether the jobs may run on CUDA devices."""
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
        supervisor.crew.close()
        supervisor.leave_report()


class _Supervisor:
    def __init__(self, options: BatchOptions, stop: StopFlag, more: Callable[[], Sequence[BatchClip]] | None) -> None:
        self.options = options
        self.crew = Crew(jobs=options.jobs, remote=options.remote is not None, look_for_gpus=options.look_for_gpus)
        self._stop, self._more = stop, more
        self._clips = Ledger(remote=options.remote is not None)
        self._again = Again(options.again_s)
        self._waiting: deque[OpenClip] = deque()
        self._suspects: deque[OpenClip] = deque()
        """A worker died over them; each is tried again alone."""
        self._busy: deque[tuple[float, OpenClip]] = deque()
        """Their outputs were locked; to be tried again at that time."""
        self._unplanned: deque[OpenClip] = deque()
        self._failed_fast = False
        self._stillborn = 0
        self._report_at = time.monotonic()
        self._report_due = False
        self._reported = False
        self._ask_at = time.monotonic()

    # The loop

    def run(self, clips: Sequence[BatchClip]) -> Iterator[BatchEvent]:
        yield from self._learn(clips)
        yield self._clips.progress()
        while not self._stops() and (self._clips.open() or self._more is not None):
            if self._more is not None and time.monotonic() >= self._ask_at:
                self._ask_at = time.monotonic() + MORE_S
                came = self._more()
                yield from self._learn([*came, *self._again.due(time.monotonic(), besides=came)])
            yield from self._hand_out()
            yield from self._hear(POLL_S)
            if self._more is not None and self._clips.drop(self.crew.working_on()):
                self._report_due = True
            self._report()
            if self._clips.is_due():
                yield self._clips.progress()
        if self._stops():
            yield from self._end()
        yield self._clips.progress()
        ended = self._clips.report(finished=not any(clip.status is ClipStatus.STOPPED for clip in self._clips.all()))
        unwritten = None
        if self.options.report is not None:
            try:
                write_report(ended, self.options.report)
            except KeyscaleError as error:
                # What became of the clips is told all the same.
                unwritten = Fault.of(failure(error))
        self._reported = True
        yield BatchDone(report=ended, unwritten=unwritten)

    def leave_report(self) -> None:
        """Write how it stood where it came to no end: whoever read its events has gone."""
        if not self._reported:
            self._report_at, self._report_due = time.monotonic(), True
            self._report()

    def _report(self) -> None:
        """Write how it stands, for whoever looks at it while the batch goes on or after it was killed."""
        if self.options.report is None or not self._report_due or time.monotonic() < self._report_at:
            return
        self._report_due = False
        began = time.monotonic()
        # What is wrong with it is told by the last one.
        with contextlib.suppress(KeyscaleError):
            write_report(self._clips.report(finished=False), self.options.report)
        # That of a hundred thousand clips takes a while.
        ended = time.monotonic()
        self._report_at = ended + max(REPORT_S, 10 * (ended - began))

    def _stops(self) -> bool:
        return self._stop.is_set() or self._failed_fast

    def _learn(self, clips: Sequence[BatchClip]) -> Iterator[BatchEvent]:
        for work in clips:
            clip = self._clips.add(work)
            yield self._clips.tell(clip)
            if work.job is None:
                assert work.fault is not None
                yield from self._settle(clip, failure(work.fault))
            else:
                if work.job.overwrite:
                    # What this batch, or another one, makes from now on is not made twice.
                    clip.outdated = identity_of(Path(work.output))
                self._waiting.append(clip)
                self._unplanned.append(clip)

    def _hand_out(self) -> Iterator[BatchEvent]:
        now = time.monotonic()
        while self._busy and self._busy[0][0] <= now:
            self._waiting.append(self._busy.popleft()[1])
        open_clips = len(self._waiting) + len(self._suspects)
        for worker in self.crew.free(open_clips):
            if self._suspects and not worker.running:
                yield from self._order(worker, self._suspects.popleft(), alone=True)
            elif self._waiting and not worker.alone:
                yield from self._order(worker, self._waiting.popleft())
        self._assist()
        self._unplanned = deque(clip for clip in self._unplanned if clip.frames is None and clip.status not in ENDED)
        # Who has but one clip to do learns its frames soon enough.
        if self._clips.known > 1 and (scout := self.crew.free_scout(len(self._unplanned))):
            clip = self._unplanned.popleft()
            assert clip.work.job is not None
            scout.order(Order(index=clip.index, job=clip.work.job, remote=self.options.remote, plan_only=True))

    def _assist(self) -> None:
        """Have workers that have nothing to do make chunks of the clips that have most before them."""

        def open_clips() -> list[OpenClip]:
            return [clip for clip in self._clips.all() if self._may_assist(clip)]

        for worker in self.crew.idle(lambda: bool(open_clips())):
            if not (candidates := open_clips()):
                return
            clip = max(candidates, key=lambda clip: clip.frames_left / (1 + clip.assistants))
            assert clip.work.job is not None
            clip.assistants += 1
            worker.order(Order(index=clip.index, job=clip.work.job, assist=clip.source_sha256))

    def _may_assist(self, clip: OpenClip) -> bool:
        # Whoever helps takes whole chunks: each of them has to have one, and another one to come.
        chunk = (clip.frames or 0) / clip.chunks
        return (
            clip.status is ClipStatus.RUNNING
            and clip.source_sha256 is not None
            and clip.frames_left >= 2 * chunk * (1 + clip.assistants)
        )

    def _order(self, worker: WorkerProcess, clip: OpenClip, *, alone: bool = False) -> Iterator[BatchEvent]:
        assert clip.work.job is not None
        folder = Path(clip.work.output).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fault: KeyscaleError = storage_error(error, folder)
            if isinstance(error, FileExistsError | NotADirectoryError):
                fault = UsageError(f"{folder} is no folder", remedy="Remove that file, or name another output.")
            yield from self._settle(clip, failure(fault))
            return
        clip.status = ClipStatus.RUNNING
        worker.alone = alone
        remote = self.options.remote
        worker.order(
            Order(
                index=clip.index,
                job=clip.work.job,
                outdated=clip.outdated,
                remote=remote,
                shares=self.crew.shares,
            )
        )

    # What comes back

    def _hear(self, timeout_s: float) -> Iterator[BatchEvent]:
        try:
            heard = self.crew.heard.get(timeout=timeout_s)
        except queue.Empty:
            return
        while True:
            yield from self._judge(heard)
            try:
                heard = self.crew.heard.get_nowait()
            except queue.Empty:
                return

    def _judge(self, heard: Heard) -> Iterator[BatchEvent]:
        worker, answer = heard.worker, heard.answer
        if answer is None:
            yield from self._mourn(worker)
        elif isinstance(answer, Hello):
            self.crew.greeted(worker, answer)
            self._stillborn = 0
        elif worker is self.crew.scout:
            yield from self._scouted(worker, answer)
        else:
            yield from self._progressed(worker, answer)

    def _scouted(self, scout: WorkerProcess, answer: Answer) -> Iterator[BatchEvent]:
        match answer:
            case Planned():
                yield from self._planned(answer)
            case Told(index=index, event=Failed() as failed) if failed.error in OWN_FAULTS:
                clip = self._clips[index]
                if clip in self._waiting:
                    self._waiting.remove(clip)
                    yield from self._settle(clip, failed)
            case Ended(index=index):
                scout.running.discard(index)
            case _:
                pass

    def _planned(self, answer: Planned) -> Iterator[BatchEvent]:
        clip = self._clips[answer.index]
        if clip.frames is None and clip.status not in ENDED:
            clip.frames, clip.chunks, clip.source_size = answer.frames, answer.chunks, answer.source_size
            yield self._clips.tell(clip)

    def _progressed(self, worker: WorkerProcess, answer: Answer) -> Iterator[BatchEvent]:
        match answer:
            case Told(index=index, event=event) if index == worker.assists:
                running = self._clips[index].status is ClipStatus.RUNNING
                if running and isinstance(event, Failed) and event.error != Interrupted.__name__:
                    # Its own worker makes the chunks that this one could not.
                    message = f"a second worker could not help: {event.message}"
                    yield self._clips.tell(self._clips[index], Note(level="info", message=message))
            case Ended(index=index) if index == worker.assists:
                self._clips[index].assistants -= 1
                worker.assists = None
            case Planned():
                yield from self._planned(answer)
            case Opened(index=index, source_sha256=sha256):
                self._clips[index].source_sha256 = sha256
            case Told(index=index, event=Done() | Failed() as last):
                self._clips[index].last = last
            case Told(index=index, event=event):
                clip = self._clips[index]
                if isinstance(event, Progress) and event.phase is Phase.UPSCALE:
                    clip.frame = event.frame
                yield from self._told(clip, event)
            case Ended(index=index):
                worker.running.discard(index)
                worker.alone = False
                clip = self._clips[index]
                assert clip.last is not None
                yield from self._ended(clip, clip.last)
            case _:
                pass

    def _told(self, clip: OpenClip, event: Event) -> Iterator[BatchEvent]:
        """Pass an event of a clip on; a note that it had before, as it was tried before, only once."""
        if isinstance(event, Note):
            if event.message in clip.notes:
                return
            clip.notes.add(event.message)
        yield self._clips.tell(clip, event)

    def _ended(self, clip: OpenClip, last: Done | Failed) -> Iterator[BatchEvent]:
        clip.last = clip.source_sha256 = None
        if isinstance(last, Failed) and last.error == "OutputBusy" and not self._stops():
            clip.status = ClipStatus.WAITING
            clip.waited += 1
            # Each time it is planned again: seldom, where it takes long.
            self._busy.append((time.monotonic() + min(BUSY_S * clip.waited, MOST_BUSY_S), clip))
            message = "another process is working on its result: it is waited for"
            yield from self._told(clip, Note(level="warning", message=message))
            return
        yield from self._settle(clip, last)

    def _mourn(self, worker: WorkerProcess) -> Iterator[BatchEvent]:
        """A worker is gone. Its clips are tried again, each alone; who takes a worker twice has failed."""
        lost = [self._clips[index] for index in sorted(worker.running)]
        if worker.assists is not None:
            self._clips[worker.assists].assistants -= 1
        if worker is self.crew.scout:
            # Whoever makes the clip will find the same.
            self.crew.bury(worker)
            return
        how = self.crew.bury(worker)
        if self._stops():
            return
        self._stillborn += not worker.ready
        if self._stillborn >= STILLBORN:
            raise EnvironmentFault(
                f"the processes that do the work do not start: one was ended {how}",
                remedy="Run `keyscale upscale` on one clip: it says what this machine lacks.",
            )
        for clip in lost:
            if not worker.ready:
                clip.status = ClipStatus.WAITING  # it was not looked at
                self._waiting.appendleft(clip)
                continue
            if clip.last is not None:
                yield from self._ended(clip, clip.last)  # all that was missing was the word that it ended
                continue
            clip.deaths, clip.source_sha256 = clip.deaths + 1, None
            if clip.deaths < TRIES:
                clip.status = ClipStatus.WAITING
                self._suspects.append(clip)
                message = f"the process that worked on it was ended {how}: it is tried again"
                yield from self._told(clip, Note(level="warning", message=message))
            else:
                yield from self._settle(
                    clip,
                    Failed(
                        error="WorkerDied",
                        message=f"the process that worked on {clip.work.name} was ended {how}, twice",
                        remedy="Memory may be short, or a library crashes on this video: run it alone to see which.",
                        exit_code=1,
                    ),
                )

    def _settle(self, clip: OpenClip, last: Done | Failed) -> Iterator[BatchEvent]:
        if isinstance(last, Done):
            self._again.succeeded(clip.work)
            clip.status = ClipStatus.SKIPPED if last.skipped else ClipStatus.DONE
            if clip.frames is None:
                clip.frames = last.frames
        elif last.error == Interrupted.__name__:
            clip.status = ClipStatus.STOPPED
        else:
            if self._more is not None and (wait_s := self._again.failed(clip.work, last, time.monotonic())) is not None:
                yield from self._told(clip, Note(level="info", message=f"it will be tried again in {wait_s:.0f} s"))
            last = clip.work.named(last)
            clip.status = ClipStatus.FAILED
            self._failed_fast = self._failed_fast or self.options.fail_fast
        self._report_due = True
        yield self._clips.tell(clip, last)

    # The end

    def _end(self) -> Iterator[BatchEvent]:
        """Stop the workers, hear their last words, and say which clips were not finished."""
        self.crew.stop()
        deadline = time.monotonic() + self.crew.patience_s
        while any(worker.running for worker in self.crew.workers) and time.monotonic() < deadline:
            yield from self._hear(POLL_S)
            if self._clips.is_due():
                yield self._clips.progress()
        for clip in self._clips.all():
            if clip.status not in ENDED:
                clip.status = ClipStatus.STOPPED
                yield self._clips.tell(clip)
