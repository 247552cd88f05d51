"""A job whose chunks are made by deployed functions, between objects in storage; the rest is done here, as ever."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from threading import Event as StopFlag

from keyscale.engine.errors import Interrupted, RemoteError
from keyscale.engine.events import Done, Event, Note, Phase, RemoteUse
from keyscale.engine.models import ON_ANY_CPU, Execution, choose_execution, possible_executions
from keyscale.engine.pipeline.encoder import chunk_suffix
from keyscale.engine.plan.describe import settings_in_words
from keyscale.engine.plan.plan import LANCZOS, Chunk
from keyscale.engine.remote.dispatch import FanOut
from keyscale.engine.remote.estimate import estimate_of, remember_calls
from keyscale.engine.remote.leftovers import end_job
from keyscale.engine.remote.modal_client import PATIENCE_S, Calls
from keyscale.engine.remote.prices import CORES, check_suited
from keyscale.engine.remote.resumable import NotedRun
from keyscale.engine.remote.slots import Slots
from keyscale.engine.remote.spending import Account, Budget
from keyscale.engine.remote.staging import Staging, kept_task
from keyscale.engine.remote.state import (
    RemoteState,
    check_notes,
    forget_note,
    state_path,
    take_up,
    was_cancelled,
)
from keyscale.engine.remote.waiting import Waiting
from keyscale.engine.run_options import RemoteOptions
from keyscale.engine.runners.local import LocalRun
from keyscale.engine.runners.prepare import Prepared, on_cpu
from keyscale.engine.runners.progress import Meter, signs_of_life
from keyscale.engine.runners.shared import Shared
from keyscale.engine.serialization import dumps
from keyscale.engine.storage.bucket import Storage, StorageSettings, StorageUnreachable, new_job_id
from keyscale.engine.worker.contract import Deployment, Made, Task
from keyscale.engine.workspace.fingerprint import network_identity
from keyscale.engine.workspace.folder import WorkFolder, work_folder_of

__all__ = ["RemoteRun", "run_remote"]

STORAGE_PATIENCE_S = 60.0
"""How long storage may be out of reach, for each request."""
CONNECTED_S = 10.0
"""How long an interrupted trial of the bucket may take to remove its object."""


def run_remote(
    prepared: Prepared, options: RemoteOptions, stop: StopFlag, *, slots: Slots | None = None
) -> Generator[Event, None, None]:
    """Do the job with remote chunks; events and errors as of `Run.events`.

    Whatever happens but the death of this process, calls are cancelled and nothing of the job is left in storage.

    Args:
        prepared: what is to be made.
        options: how.
        stop: ends it.
        slots: shared with other jobs of this process, whose calls together are no more than that.

    Raises:
        RemoteError: storage or functions are not set up, fail, or cannot be reached.
    """
    return RemoteRun(prepared, options, stop, slots=slots).events()


class RemoteRun(NotedRun):
    """A job whose chunks are made by deployed functions."""

    def __init__(
        self,
        prepared: Prepared,
        options: RemoteOptions,
        stop: StopFlag,
        *,
        slots: Slots | None = None,
        budget: Budget | None = None,
        shared: Shared | None = None,
    ) -> None:
        """What it shares with other jobs of this process: calls at once, dollars, and networks that run here."""
        super().__init__(prepared, stop, dumps(options), Calls(patience_s=PATIENCE_S))
        self.options, self.slots, self.shared = options, slots, shared
        self.budget = budget or Budget(options.max_cost)
        self.account: Account | None = None
        self.deployment: Deployment | None = None
        self.execution: Execution | None = None
        self.mades: list[Made] = []
        self.local: LocalRun | None = None
        self.local_frames = 0

    def events(self) -> Generator[Event, None, None]:
        """As `Run.events`."""
        try:
            yield from super().events()
        finally:
            if self.fan_out is not None:
                self.fan_out.hush()
            if self.storage is not None:
                self.storage.close()
            if self.account is not None:
                self.account.close()

    # Made ready

    def load(self) -> Iterator[Event]:
        """As `Run.load`."""
        tried, over, unanswered = threading.Event(), threading.Event(), threading.Event()

        def connect(_: Callable[[int, int], None]) -> Deployment:
            try:
                storage.check()
                tried.set()
                return self.calls.connect()
            except StorageUnreachable as fault:
                if fault.unanswered:
                    unanswered.set()
                raise
            finally:
                over.set()

        check_notes()
        try:
            # Within: what is not set up is no other case than what cannot be reached.
            settings = StorageSettings.from_environment(os.environ)
            storage = self.storage = Storage(settings, patience_s=STORAGE_PATIENCE_S)
            deployment = self.deployment = yield from self.during(Phase.CONNECT, connect)
        except Interrupted:
            self.calls.close()
            yield from signs_of_life(Meter(Phase.CONNECT, 0), over, CONNECTED_S)
            if not over.is_set() or unanswered.is_set():
                message = "a trial of the bucket may be left in storage: `keyscale remote clean` removes it"
                if tried.is_set():
                    message = "Modal did not answer what is deployed; a call that asks for it ends within two minutes"
                yield Note(level="warning", message=message)
            raise
        except RemoteError as error:
            if not self.options.fallback_local:
                raise
            yield Note(level="warning", message=f"everything is made on this machine: {error.message}")
            self.local = self._local_run()
            yield from self.local.load()
            return
        if self.slots is not None:
            self.slots.at_most(deployment.containers)
        check_suited(self.plan, deployment.gpus)
        self.execution = self._execution(deployment)
        expected = estimate_of(self.plan, deployment, self.options)
        if not work_folder_of(Path(self.job.output)).exists():
            # What is left of an earlier run may be less: that is told once its chunks are counted.
            self.account = self.budget.open(expected)
        how = "on CPUs" if not deployment.gpus else f"on {' or '.join(deployment.gpus)}"
        model, words = self.plan.model, settings_in_words(self.plan)
        network = f"{self.execution}; model {model.name}{words}" if model else "no network"
        yield Note(
            level="info",
            message=f"up to {expected.most} containers {how}; {network}; about ${expected.dollars:.2f}",
        )

    def _execution(self, deployment: Deployment) -> Execution | None:
        if self.plan.model is None:
            return None
        return choose_execution(self.plan.model, deployment.device, self.job.compute.precision, on_cpu=ON_ANY_CPU)

    def made_by(self) -> str:
        """As `Run.made_by`."""
        if self.deployment is None:
            assert self.local is not None
            return self.local.made_by()
        network = LANCZOS
        if self.plan.model is not None:
            network = f"{network_identity(self.plan)} {self.job.model.denoise} {self.execution}"
        return f"remote {self.deployment.version} {self.deployment.libraries} {network}"

    # Chunks

    def _upscale(self, folder: WorkFolder) -> Iterator[Event]:
        path = state_path(folder.root)
        if self.storage is not None and self.deployment is not None:
            settings = self.storage.settings
            take_up(path, self.job, folder.folder.name, (settings.endpoint, settings.bucket))
            yield from self.end_others(path, self.storage, self.calls)
        yield from super()._upscale(folder)
        state = RemoteState.read(path)
        if self.storage is not None and self.deployment is not None and self.fan_out is None and state is not None:
            settings = self.storage.settings
            if state.lies_in(settings.endpoint, settings.bucket):
                # Of a client that died just after its last chunk came.
                self.job_id = state.job_id
                yield from self.leave(path, Meter(Phase.UPSCALE, self.plan.frames, done=self.plan.frames))

    def make(self, missing: list[Chunk], folder: WorkFolder, meter: Meter) -> Iterator[Event]:
        """As `Run.make`."""
        path = state_path(folder.root)
        failed: BaseException | None = None
        if self.deployment is not None:
            try:
                yield from self._make_there(missing, folder, path, meter)
            except GeneratorExit:
                self.leave_nothing(path)
                raise
            except BaseException as error:
                failed = error
            yield from self.leave(path, meter)
            if failed is None:
                return
            if not (isinstance(failed, RemoteError) and self.options.fallback_local):
                raise failed
        left = [chunk for chunk in missing if folder.lost_in(chunk) is None]
        self.local_frames = sum(chunk.frames for chunk in left)
        if isinstance(failed, RemoteError):
            message = f"{len(left)} of {len(missing)} chunks are made on this machine: {failed.message}"
            yield Note(level="warning", message=message)
        yield from self._make_here(left, folder, meter)

    def _make_there(self, missing: list[Chunk], folder: WorkFolder, path: Path, meter: Meter) -> Iterator[Event]:
        assert self.storage is not None
        assert self.deployment is not None
        expected = estimate_of(self.plan, self.deployment, self.options, missing)
        if self.account is None:
            self.account = self.budget.open(expected)
        state = yield from self._resumed(folder, path)
        staging = Staging(self.storage, self.job_id, chunk_suffix(self.plan.encoder))
        if state is None:
            state = yield from self._stage(staging, folder, path)
        self.note_job(path)
        fan_out = self.fan_out = FanOut(
            self.plan,
            calls=self.calls,
            staging=staging,
            state=state,
            path=path,
            folder=folder,
            containers=expected.most,
            slots=self.slots,
            longest_s=self.deployment.timeout_s,
            waiting=Waiting(self.deployment.gpus, self.options.max_queue),
            stop=self.stop,
            tally=self.tally,
            account=self.account,
        )
        self.calls.choose(wide=expected.chosen.cores > CORES)
        try:
            yield from fan_out.run(missing, meter, done_before=self.resumed)
        finally:
            self.mades += fan_out.mades
            remember_calls(self.plan, fan_out.mades, expected.chosen.cores, self.account.call_seconds)
        if (message := self.account.fewer_came()) is not None:
            yield Note(level="info", message=message)

    def _resumed(self, folder: WorkFolder, path: Path) -> Generator[Event, None, RemoteState | None]:
        """A job that another client left, if it is this one and all of it is there still."""
        assert self.storage is not None
        state = RemoteState.read(path)
        if state is None:
            return None
        state.check_place(self.storage.settings.endpoint, self.storage.settings.bucket)
        task = kept_task(state.task_json)
        staging = Staging(self.storage, state.job_id, chunk_suffix(self.plan.encoder))
        is_same = state.key == folder.folder.name and self.job.resume
        if is_same and task is not None and task.execution == self.execution:
            self.job_id = state.job_id
            whole = yield from self.during(Phase.STAGE, lambda _: staging.is_there(state.source_key, task))
            if whole:
                message = f"remote job {self.job_id} goes on: {len(state.calls)} calls were started"
                yield Note(level="info", message=message)
                return state
            has_calls = bool(state.calls or state.unnamed)
            if not has_calls and (task.excerpt_begins is not None or task.source_size == self.prepared.source_stat[0]):
                return None  # staged in part: sent on under the same id; an excerpt is cut again, with the same bytes
        storage = self.storage
        may_run = yield from self.during(Phase.STAGE, lambda _: end_job(state, storage, self.calls))
        if may_run is not None:
            yield Note(level="warning", message=may_run)
        else:
            forget_note(state.job_id)
        if self.job_id == state.job_id:
            self.job_id = new_job_id()
        return None

    def _stage(self, staging: Staging, folder: WorkFolder, path: Path) -> Generator[Event, None, RemoteState]:
        checkpoint = self.checkpoint
        task, key, source, data = yield from self.during(
            Phase.STAGE,
            lambda _: staging.prepare(
                self.plan,
                self.execution,
                checkpoint,
                folder.folder,
                self.source_sha256,
                self.stop.is_set,
                lambda text: self.notes.append(Note(level="info", message=text)),
            ),
        )
        settings = staging.storage.settings
        state = RemoteState(
            job_id=self.job_id,
            endpoint=settings.endpoint,
            bucket=settings.bucket,
            key=folder.folder.name,
            task_json=dumps(task),
            source_key=key,
        )
        # Before the first byte: whoever finds this after a crash knows what may have been sent.
        state.save(path)
        self.note_job(path)
        yield Note(level="info", message=f"remote job {self.job_id} begins")

        def send(report: Callable[[int, int], None]) -> Task:
            with self.sending:
                return staging.send(key, source, task, data, checkpoint, report=report, should_stop=self.stop.is_set)

        try:
            sent = yield from self.during(Phase.STAGE, send)
        finally:
            if source != Path(self.job.source):
                source.unlink(missing_ok=True)
        state = dataclasses.replace(state, task_json=dumps(sent), sent=True)
        if not state.save_again(path):
            raise was_cancelled(self.job_id)
        return state

    # In the end

    def _local_run(self) -> LocalRun:
        plan = self.plan
        if plan.model is not None:
            ways = possible_executions(plan.model, "auto", self.job.compute.precision, on_cpu=on_cpu(self.job))
            plan = dataclasses.replace(plan, executions=ways)
        return LocalRun(dataclasses.replace(self.prepared, plan=plan), self.stop, self.shared)

    def _make_here(self, left: list[Chunk], folder: WorkFolder, meter: Meter) -> Iterator[Event]:
        if self.local is None:
            self.local = self._local_run()
            yield from self.local.load()
        self.local.resumed = self.plan.frames - sum(chunk.frames for chunk in left)
        self.local.tally = dataclasses.replace(self.tally, frames=0)
        yield from self.local.make(left, folder, meter)
        self.tally.lost = self.local.tally.lost

    def done(self) -> Done:
        """As `Run.done`."""
        self.settled()
        gpus = sorted({made.gpu for made in self.mades})
        here = self.local.done() if self.local is not None else None
        devices = []
        if self.execution is not None:
            made_on = gpus or ([] if here else [self.execution.kind])
            devices = [f"remote {device} {self.execution.precision}" for device in made_on]
        if here is not None and here.device != "none":
            devices.append(here.device)
        return Done(
            output=self.job.output,
            frames=self.plan.frames,
            seconds=time.monotonic() - self.began,
            resumed_frames=self.resumed,
            inferred_frames=sum(made.inferred for made in self.mades) + (here.inferred_frames if here else 0),
            lost_frames=self.tally.lost,
            device=" and ".join(devices) or "none",
            **self.network_made_with(),
            runtime=self.execution.runtime if self.execution else here.runtime if here else "none",
            published=self.published,
            remote=RemoteUse(
                job_id=self.job_id,
                containers=len({made.container for made in self.mades}),
                gpus=tuple(gpus),
                seconds=self.account.seconds if self.account else 0.0,
                dollars=self.account.spent if self.account else 0.0,
                local_frames=self.local_frames,
            ),
        )
