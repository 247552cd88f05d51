"""A job of which notes are kept on this machine, so that another client can go on with it, or end it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event as StopFlag

from keyscale.engine.errors import RemoteError, StorageError
from keyscale.engine.events import Event, Note, Phase
from keyscale.engine.remote import leftovers
from keyscale.engine.remote.dispatch import FanOut
from keyscale.engine.remote.leftovers import UNKNOWN_CALLS, end_job
from keyscale.engine.remote.modal_client import Calls
from keyscale.engine.remote.state import (
    JobNote,
    RemoteState,
    absolute_job,
    drop_state,
    forget_ended,
    forget_note,
    is_damaged,
    keep_note,
    notes_of,
    state_of,
    state_path,
    state_path_of,
)
from keyscale.engine.runners.prepare import Prepared
from keyscale.engine.runners.progress import Meter, signs_of_life
from keyscale.engine.runners.run import Run
from keyscale.engine.storage.bucket import Storage, job_prefix, new_job_id
from keyscale.engine.workspace.fingerprint import own_checkpoint
from keyscale.engine.workspace.folder import WorkFolder

__all__ = ["NotedRun"]

HASTY_S = 12.0
"""How long an interrupted job may take to cancel its calls and to remove what it staged."""
SENT_S = 15.0
"""How long the end of an interrupted upload is waited for, which notices by itself."""


class NotedRun(Run):
    """What a remote run does about its own notes, and about those that earlier clients left for the same output."""

    def __init__(self, prepared: Prepared, stop: StopFlag, options_json: str, calls: Calls) -> None:
        """`options_json` is how it is run, for whoever goes on with it."""
        super().__init__(prepared, stop)
        self.job_id = new_job_id()
        self.checkpoint = own_checkpoint(prepared.plan)
        self._options_json = options_json
        self.calls = calls
        self.storage: Storage | None = None
        self.fan_out: FanOut | None = None
        self.sending = threading.Lock()
        """Held while something is on its way to storage."""

    def note_job(self, path: Path, *, publishing: str = "") -> None:
        """Keep the job's note, in place of those of earlier jobs for the same output that are over.

        Args:
            path: of its state.
            publishing: the job's key, once only its upload is left.

        Raises:
            StorageError: it cannot be written.
        """
        keep_note(
            JobNote(
                job_id=self.job_id,
                job=absolute_job(self.job, self.checkpoint),
                state=str(path.absolute()),
                options=self._options_json,
                publishing=publishing,
            )
        )
        forget_ended(self.job, but=self.job_id, finished=bool(publishing))

    def note_finished(self, folder: WorkFolder) -> None:
        """As `Run.note_finished`: who is killed from here on may have left the upload to another one."""
        if self.job.publish_to is not None:
            self.note_job(state_path(folder.root), publishing=self.key)

    def is_noted(self) -> bool:
        """As `Run.is_noted`."""
        return self._unpublished() is not None

    def upload_later(self) -> str:
        """As `Run.upload_later`."""
        job_id = self._unpublished()
        return f"`keyscale remote resume {job_id}` uploads it." if job_id else super().upload_later()

    def settled(self) -> None:
        """As `Run.settled`; jobs of which something may run or lie in storage stay known."""
        forget_ended(self.job)
        for note in notes_of(self.job):
            if note.job_id == self.job_id:
                with contextlib.suppress(StorageError):  # what is left was told, and the result stands
                    keep_note(replace(note, finished=True, publishing=""))

    def end_others(self, path: Path, storage: Storage, calls: Calls) -> Iterator[Event]:
        """Stop and remove what earlier clients left, but of the job whose state is at `path`.

        What cannot be ended stays known, and is told.
        """
        state = RemoteState.read(path)
        for note in notes_of(self.job):
            left = state_of(note)
            here = (storage.settings.endpoint, storage.settings.bucket)
            is_own = state is not None and state.job_id == note.job_id and state.lies_in(*here)
            if is_own or (left is None and not is_damaged(note)):
                continue
            try:
                may_run = yield from self.during(Phase.STAGE, partial(_end, note, left, storage, calls))
            except RemoteError as error:
                remedy = f"`keyscale remote cancel {note.job_id}` ends it"
                message = f"an earlier job for this output is left as it is ({error.message}): {remedy}"
                yield Note(level="warning", message=message)
                continue
            if may_run is not None:
                yield Note(level="warning", message=may_run)
                continue
            if left is None:
                message = f"what was kept of the earlier job {note.job_id} is damaged: {UNKNOWN_CALLS}"
                yield Note(level="warning", message=message)
            forget_note(note.job_id)

    def leave(self, path: Path, meter: Meter) -> Iterator[Event]:
        """`leave_nothing`, with signs of life."""
        over = threading.Event()

        def leave() -> None:
            try:
                self.leave_nothing(path)
            finally:
                over.set()

        threading.Thread(target=leave, name="keyscale-leave", daemon=True).start()
        yield from signs_of_life(meter, over, HASTY_S, self.stop.is_set)
        yield from self.told()
        if not over.is_set():
            with contextlib.suppress(StorageError):
                self.note_job(path)
            message = (
                f"remote job {self.job_id} is left as it is, since Modal or storage did not answer in time: calls may "
                f"still run, and `keyscale remote cancel {self.job_id}` stops them and removes what was staged"
            )
            yield Note(level="warning", message=message)

    def leave_nothing(self, path: Path) -> None:
        """Cancel what runs and remove what was staged; what cannot be done is said."""
        assert self.storage is not None
        if self.sending.acquire(timeout=SENT_S):  # what is on its way would arrive after all was removed
            self.sending.release()
        self.calls.close()
        dropped = not path.exists()
        state = self.fan_out.settle() if self.fan_out is not None else RemoteState.read(path)
        leave = self.fan_out.leave if self.fan_out is not None else lambda: True
        settings = self.storage.settings
        if state is not None and not state.lies_in(settings.endpoint, settings.bucket):
            state = None  # of an earlier client: nobody could remove it from here
        job_id = self.job_id if state is None else state.job_id
        left = leftovers.leave_nothing(settings, job_id, state, path, self.calls, leave, is_hasty=self.stop.is_set)
        if left is None and dropped:
            forget_note(job_id)  # which a command that cancelled the job left to this client
        elif left is not None:
            self.notes.append(Note(level="warning", message=left))
            # Another command may have removed the note just before.
            with contextlib.suppress(StorageError):
                self.note_job(path)

    def _unpublished(self) -> str | None:
        """The job of this very key whose finished file was still to be stored elsewhere."""
        return next((note.job_id for note in notes_of(self.job) if note.publishing == self.key), None)


def _end(
    note: JobNote, state: RemoteState | None, storage: Storage, calls: Calls, _: Callable[[int, int], None]
) -> str | None:
    """A message about calls that may still run, once the rest of a job has been ended; None where none does."""
    if state is not None:
        return end_job(state, storage, calls)
    storage.delete_prefix(job_prefix(note.job_id))
    drop_state(state_path_of(note), note.job_id)
    return None
