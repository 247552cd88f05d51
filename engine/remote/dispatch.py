"""The calls of a staged job: started, followed, tried again, their results brought here and finished as chunks."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

from keyscale.engine.errors import Interrupted, KeyscaleError, RemoteError, StorageError, VerificationError
from keyscale.engine.events import Event, Note
from keyscale.engine.output.concat import concatenate, scan_chunks
from keyscale.engine.pipeline.chunks import Tally
from keyscale.engine.plan.plan import Chunk, Plan
from keyscale.engine.remote.modal_client import Calls
from keyscale.engine.remote.modal_errors import CallEnd, Outcome, Unanswered, without_links
from keyscale.engine.remote.pieces import Piece, Pieces
from keyscale.engine.remote.slots import Slots
from keyscale.engine.remote.spending import Account
from keyscale.engine.remote.staging import Staging
from keyscale.engine.remote.state import Call, RemoteState, Starting, was_cancelled
from keyscale.engine.remote.waiting import Waiting
from keyscale.engine.runners.progress import Meter
from keyscale.engine.storage.bucket import ObjectDamaged, ObjectMissing
from keyscale.engine.wording import say
from keyscale.engine.worker.contract import Made, read_made, read_task
from keyscale.engine.workspace.folder import WorkFolder

__all__ = ["FanOut"]

POLL_S = 0.25
NEWS_S = 0.5
"""How long one request for reports waits."""
ASK_S = 20.0
"""How often Modal is asked whether calls work of which no report came."""
LEAVE_S = 3.0
"""How long threads are waited for in the end."""
START_S = 10.0
"""How long calls are waited for in the end that are just being started, so that they can be cancelled."""
UNNAMED_S = 600.0
"""How long a call waits for its container at most, as far as anyone can say; longer where a job may wait longer."""
MOST_NOTES = 20
"""Of a chunk, that are shown."""
SHORTEST_S = 0.5
"""Seconds of the result below which a piece is not split."""


@dataclass(frozen=True)
class _News:
    """What a thread that waited for a call has to say."""

    call_id: str
    outcome: Outcome
    at: float
    """When the call's end was known; what it made is fetched after that."""
    made: Made | None = None
    path: Path | None = None
    fault: KeyscaleError | None = None


class FanOut:
    """Has chunks made by calls, several at once. `mades` holds what came back."""

    def __init__(
        self,
        plan: Plan,
        *,
        calls: Calls,
        staging: Staging,
        state: RemoteState,
        path: Path,
        folder: WorkFolder,
        containers: int,
        slots: Slots | None = None,
        longest_s: float,
        waiting: Waiting,
        stop: StopFlag,
        tally: Tally,
        account: Account,
    ) -> None:
        """Nothing is started.

        Args:
            plan: the job's.
            calls: connected.
            staging: of what is staged already.
            state: which is staged, and calls that an earlier client started.
            path: where the state is kept; it is written before and after every call.
            folder: takes the finished chunks.
            containers: calls of this job that run at once at most.
            slots: what it shares with other jobs; none are given back before `leave`, but for calls that ended.
            longest_s: how long a call may take.
            waiting: told how many calls have not begun.
            stop: ends it.
            tally: counts frames.
            account: told of each call, and asked before one is started.
        """
        self.mades: list[Made] = []
        self._plan, self._calls, self._staging, self._folder = plan, calls, staging, folder
        self._state, self._path = state, path
        self._containers, self._stop, self._tally, self._account = containers, stop, tally, account
        self._longest_s, self._waiting = longest_s, waiting
        self._task = read_task(state.task_json)
        self._pieces = Pieces((), 1)
        self._news: queue.Queue[_News | None] = queue.Queue()
        """None says that another call may be started: one was answered, or a slot is free."""
        self._reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self._busy: set[str] = set()
        """Calls that are not answered yet: fetching a result keeps no container. Each has a slot."""
        self._share = (slots or Slots(containers)).share(lambda: self._news.put(None))
        self._threads: list[threading.Thread] = []
        self._ears = threading.Thread(target=self._listen, name="keyscale-reports", daemon=True)
        self._starting: tuple[threading.Thread, Starting, queue.Queue[str | KeyscaleError | None]] | None = None

    def settle(self) -> RemoteState:
        """The state with all calls that may run; waits for one that is just being started."""
        if self._starting is not None:
            thread, starting, box = self._starting
            thread.join(START_S)
            with contextlib.suppress(queue.Empty):
                while True:
                    self._state = self._started(starting, box.get_nowait())
        return self._state

    def _started(self, starting: Starting, found: str | KeyscaleError | None) -> RemoteState:
        """The state once Modal answered, or did not; None where it is asked anew after that."""
        if found is None:
            anew = dataclasses.replace(starting, until=self._until())
            return dataclasses.replace(self._state, starting=(*self._state.starting, anew))
        if isinstance(found, Unanswered | StorageError):
            return self._state
        calls = self._state.calls
        if isinstance(found, str):
            part = {"index": starting.index, "start": starting.start, "end": starting.end}
            calls = (*calls, Call(id=found, **part, since=time.time()))
        others = tuple(one for one in self._state.starting if one != starting)
        return dataclasses.replace(self._state, calls=calls, starting=others)

    def leave(self) -> bool:
        """Wait a little for threads that wait for calls, once these are cancelled; whether all of them ended.

        Modal's client complains of threads that it loses, and a call that did not end may still store something.
        After it other jobs have the slots.
        """
        deadline = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._share.close()
        return not any(thread.is_alive() for thread in self._threads)

    def hush(self) -> None:
        """Wait a little for the thread that hears reports, whose last request may still be open."""
        if self._ears.is_alive():
            self._ears.join(2 * NEWS_S)

    def _start(self, act: Callable[[], object], name: str) -> threading.Thread:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=act, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def run(self, missing: list[Chunk], meter: Meter, *, done_before: int) -> Iterator[Event]:
        """Have these chunks finished.

        Args:
            missing: ascending.
            meter: of the whole job.
            done_before: frames that were there before.

        Raises:
            Interrupted: `stop` was set. Calls go on running.
            KeyscaleError: a chunk cannot be made, or storage or functions cannot be reached.
        """
        pieces = self._pieces = Pieces(missing, max(1, round(self._plan.rate * SHORTEST_S)))
        for call in self._state.calls:
            part = Chunk(call.index, call.start, call.end)
            if pieces.adopt(call.id, part):
                self._share.occupy()
                self._watch(call.id, part)
        strangers = [call.id for call in self._state.calls if call.id not in pieces.running]
        if strangers:
            # They stay in the state: in the end all calls are cancelled, and only what Modal confirms is forgotten.
            self._start(partial(self._calls.cancel, strangers), "keyscale-strangers")
        self._keep(self._state)
        self._ears.start()
        yield meter.begin(done_before)
        try:
            yield from self._follow(pieces, meter, done_before)
        finally:
            self._share.withdraw()

    def _follow(self, pieces: Pieces, meter: Meter, done_before: int) -> Iterator[Event]:
        while pieces.left:
            if self._stop.is_set():
                raise Interrupted("interrupted")
            wait = POLL_S
            if piece := self._next(time.monotonic()):
                call_id = yield from self._spawn(piece.chunk, meter, done_before)
                pieces.running[call_id] = piece
                self._watch(call_id, piece.chunk)
                wait = 0.0
            with contextlib.suppress(queue.Empty):
                if news := self._news.get(timeout=wait):
                    yield from self._judge(news)
            now = time.monotonic()
            while not self._reports.empty():
                report = self._reports.get()
                with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                    place = (int(report[name]) for name in ("index", "start", "frames"))
                    self._account.works(pieces.reported(now, *place), now)
            if told := self._waiting.look(pieces.queued(self._busy, now - self._longest_s), len(self._busy), now):
                yield Note(level="info", message=told)
            yield from self._progress(meter, done_before)

    def _next(self, now: float) -> Piece | None:
        """The piece to start now, with a slot for it."""
        is_due = len(self._busy) < self._containers and self._pieces.is_due(now)
        if not is_due or not self._account.may_begin(self._pieces.longest, now):
            self._share.withdraw()
            if is_due and not self._pieces.running:  # what runs is paid, and finished
                raise self._account.refusal(self._pieces.frames_left)
            return None
        return self._pieces.take(now) if self._share.take() else None

    def _progress(self, meter: Meter, done_before: int) -> Iterator[Event]:
        if meter.is_due(done_before + self._pieces.frames):
            yield meter.progress(done_before + self._pieces.frames)

    def _spawn(self, chunk: Chunk, meter: Meter, done_before: int) -> Generator[Event, None, str]:
        """Start a call, in a thread: a server that is away may take a while to answer."""
        box: queue.Queue[str | KeyscaleError | None] = queue.Queue()
        checkpoint = self._task.checkpoint is not None

        def act() -> None:
            try:
                urls = self._staging.links(self._state.source_key, chunk, checkpoint=checkpoint)
                part = dataclasses.asdict(chunk)
                box.put(self._calls.spawn(self._state.task_json, part, urls, lost=lambda: box.put(None)))
            except KeyscaleError as error:
                box.put(error)
            except Exception as error:  # a thread has nobody to raise to, and the box is waited for
                box.put(Unanswered(f"a chunk cannot be started ({type(error).__name__})"))

        starting = Starting(index=chunk.index, start=chunk.start, end=chunk.end, until=self._until())
        # Whoever finds this after a crash knows that a call may run whose id nobody has.
        self._keep(dataclasses.replace(self._state, starting=(*self._state.starting, starting)))
        self._starting = self._start(act, f"keyscale-start-{chunk.index}"), starting, box
        while True:
            try:
                found = box.get(timeout=POLL_S)
            except queue.Empty:
                if self._stop.is_set():
                    raise Interrupted("interrupted") from None
                yield from self._progress(meter, done_before)
                continue
            if found is not None:
                self._starting = None
            self._keep(self._started(starting, found))
            if found is None:
                continue
            if isinstance(found, KeyscaleError):
                raise found
            return found

    def _until(self) -> float:
        return time.time() + self._longest_s + max(UNNAMED_S, self._waiting.longest_s)

    def _watch(self, call_id: str, chunk: Chunk) -> None:
        """Wait for a call in a thread, and bring here what it made."""

        def act() -> None:
            outcome, at = self._calls.wait(call_id), time.monotonic()
            made = path = fault = None
            try:
                if outcome.answer is not None and outcome.answer.get("status") == "ok":
                    # Only now: after a fault nothing more is started before it is judged.
                    self._answered(call_id)
                    self._news.put(None)
                    made, path = self._made(outcome.answer, chunk), self._place(chunk)
                    self._staging.fetch(chunk, made, path, lambda: self._stop.is_set() or self._calls.closed)
            except (ObjectDamaged, ObjectMissing) as error:
                outcome, fault = self._dropped(chunk, error)
            except KeyscaleError as error:
                fault = error
            except Exception as error:  # a thread has nobody to raise to, and its news is waited for
                fault = RemoteError(f"chunk {chunk.index} cannot be fetched ({type(error).__name__})")
            self._news.put(_News(call_id, outcome, at, made, path, fault))

        self._account.begun(call_id, chunk.frames, time.monotonic())
        self._busy.add(call_id)
        self._start(act, f"keyscale-call-{chunk.index}")

    def _answered(self, call_id: str) -> None:
        """A call keeps no container any more: its slot is free, once."""
        with contextlib.suppress(KeyError):
            self._busy.remove(call_id)
            self._share.give()

    def _dropped(self, piece: Chunk, error: RemoteError) -> tuple[Outcome, KeyscaleError | None]:
        """What becomes of a piece that is not in storage as it was made."""
        try:
            # Its record says that the piece is there, which a new call would believe.
            self._staging.drop(piece)
        except KeyscaleError as fault:
            return Outcome(kind=CallEnd.CRASHED, error=error), fault
        return Outcome(kind=CallEnd.CRASHED, error=error), None

    def _made(self, answer: dict[str, Any], chunk: Chunk) -> Made:
        made = read_made(answer)
        if not made.is_of(self._task, chunk) or made.frames != chunk.frames:
            raise RemoteError(
                f"chunk {chunk.index} was answered with another one", remedy="Run `keyscale remote deploy`."
            )
        gpu, container, network = map(without_links, (made.gpu, made.container, made.network))
        notes = tuple(map(without_links, made.notes[:MOST_NOTES]))
        return dataclasses.replace(made, gpu=gpu, container=container, network=network, notes=notes)

    def _place(self, piece: Chunk) -> Path:
        """Where a piece goes until its chunk is whole; an interrupted run removes what is there."""
        whole = self._folder.part(piece)
        return whole if piece in self._plan.chunks else whole.with_name(f"{piece.start}-{whole.name}")

    def _judge(self, news: _News) -> Iterator[Event]:
        pieces, now = self._pieces, time.monotonic()
        self._answered(news.call_id)
        self._account.ended(news.call_id, news.at, news.made, news.outcome.answer or {}, self._longest_s)
        if news.outcome.ended:
            calls = tuple(call for call in self._state.calls if call.id != news.call_id)
            self._keep(dataclasses.replace(self._state, calls=calls))
        warning: str | None = None
        if news.fault is not None:
            raise news.fault
        if news.outcome.kind is CallEnd.ANSWERED and news.made is not None and news.path is not None:
            self.mades.append(news.made)
            networks = sorted({made.network for made in self.mades})
            if len(networks) > 1:
                raise VerificationError(
                    f"containers ran different networks: {' and '.join(networks)}",
                    remedy=say("Run `keyscale remote deploy`, and the command again with {resume=False}."),
                )
            yield from (Note(level="warning", message=text) for text in news.made.notes)
            parts = pieces.finished(news.call_id, news.made, news.path)
            if parts is not None:
                self._finish(parts)
        else:
            warning = pieces.failed(news.call_id, news.outcome, now)
        if warning is not None:
            yield Note(level="warning", message=warning)

    def _finish(self, parts: list[tuple[Made, Path]]) -> None:
        """Give a chunk whose pieces are all here its finished name."""
        chunk = next(chunk for chunk in self._plan.chunks if chunk.index == parts[0][0].index)
        whole, paths = self._folder.part(chunk), [path for _, path in parts]
        if paths != [whole]:
            concatenate(paths, whole, self._plan.rate)
            for path in paths:
                path.unlink()
        found = scan_chunks([whole], self._plan.rate).frames
        if found != chunk.frames:
            raise VerificationError(f"chunk {chunk.index} came back with {found} frames instead of {chunk.frames}")
        lost = sum(made.lost for made, _ in parts)
        self._tally.lost += lost
        self._tally.frames += chunk.frames
        self._folder.finish(chunk, lost=lost)

    def _listen(self) -> None:
        asked = time.monotonic()
        while not self._calls.closed:
            for report in self._calls.news(self._task.job_id, wait_s=NEWS_S):
                self._reports.put(report)
            if time.monotonic() - asked < min(ASK_S, self._waiting.longest_s / 3):
                continue
            # A report may be lost, or the container that sent it.
            for call_id, piece in dict(self._pieces.running).items():
                if piece.heard is None or piece.heard < asked:
                    has_begun = self._calls.has_begun(call_id)
                    if has_begun is False:
                        piece.heard = None
                    elif has_begun and piece.heard is None:
                        self._reports.put({"index": piece.chunk.index, "start": piece.chunk.start, "frames": 0})
            asked = time.monotonic()

    def _keep(self, state: RemoteState) -> None:
        """Keep the state; a `RemoteError` where another command cancelled the job, which removes what is kept."""
        # First of all, so that a call that was just started is cancelled where the job turns out to be.
        before, self._state = self._state, state
        kept = self._path.exists() if state == before else state.save_again(self._path)
        if not kept:
            raise was_cancelled(self._state.job_id)
