"""A job of which notes are kept on this machine, so that another client can go on with it, or end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event as StopFlag

from keyscale.engine.errors import RemoteError, StorageError
from keyscale.engine.events import Event, Note, Phase
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
from keyscale.engine.runners.run import Run
from keyscale.engine.storage.bucket import Storage, job_prefix, new_job_id
from keyscale.engine.workspace.fingerprint import own_checkpoint
from keyscale.engine.workspace.folder import WorkFolder

__all__ = ["NotedRun"]


class NotedRun(Run):
    """What a remote run does about its own notes, and about those that earlier clients left for the same output."""

    def __init__(self, prepared: Prepared, stop: StopFlag, options_json: str) -> None:
        """`options_json` is how it is run, for whoever goes on with it."""
        super().__init__(prepared, stop)
        self.job_id = new_job_id()
        self.checkpoint = own_checkpoint(prepared.plan)
        self._options_json = options_json

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
            is_own = state is not None and state.job_id == note.job_id
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
