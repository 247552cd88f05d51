"""What a client keeps of a remote job, so that another one can go on with it: ids and keys, never a link.

The state lies in the job's own work folder. A small note in the user's state directory leads from a job's id to it;
beside the note is a copy of the state, since a work folder may be removed while calls run.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import filelock
import platformdirs

from keyscale.engine.errors import KeyscaleError, RemoteError, StorageError
from keyscale.engine.files import storage_error, write_private
from keyscale.engine.job import Job
from keyscale.engine.serialization import dumps, loads
from keyscale.engine.workspace.folder import REMOTE_STATE, REMOTE_STATE_VERSION
from keyscale.engine.workspace.locks import held, lock_of

LOCK_POLL_S = 0.02

__all__ = [
    "Call",
    "JobNote",
    "RemoteState",
    "Starting",
    "absolute_job",
    "all_notes",
    "check_notes",
    "drop_state",
    "find_note",
    "forget_ended",
    "forget_note",
    "is_damaged",
    "is_followed",
    "keep_note",
    "notes_of",
    "state_folder",
    "state_of",
    "state_path",
    "state_path_of",
    "take_up",
    "was_cancelled",
]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that was started for the output frames `[start, end)`."""

    id: str
    index: int
    start: int
    end: int
    since: float = 0.0
    """Unix time at which it was started, in seconds; 0 where that is not known."""


@dataclass(frozen=True, kw_only=True)
class Starting:
    """A call that was asked for, and of which Modal has not told the id: it may run."""

    index: int
    start: int
    end: int
    until: float
    """Unix time at which it is over at the latest, in seconds."""


@dataclass(frozen=True, kw_only=True)
class RemoteState:
    """A job that is staged."""

    version: int = REMOTE_STATE_VERSION
    job_id: str
    endpoint: str
    bucket: str
    """Where it is staged."""
    key: str
    """Of the work folder: what decides the pixels."""
    task_json: str
    """The `Task` that its calls are given."""
    source_key: str
    sent: bool = False
    """Whether all of it was."""
    calls: tuple[Call, ...] = field(default=())
    starting: tuple[Starting, ...] = field(default=())

    @property
    def unnamed(self) -> tuple[Starting, ...]:
        """Calls that may run and cannot be cancelled, since nobody knows their ids."""
        now = time.time()
        return tuple(call for call in self.starting if call.until > now)

    def save(self, path: Path) -> None:
        """Write it and its copy, each whole or not at all, readable by this user alone.

        Raises:
            StorageError: it cannot be written.
        """
        write_private(_copy_path(self.job_id), dumps(self))
        write_private(path, dumps(self))

    def save_again(self, path: Path) -> bool:
        """Write it over what is kept there; False, and nothing written, where another command dropped that.

        Raises:
            StorageError: it cannot be written.
        """
        with _alone(self.job_id):
            if not path.exists():
                return False
            self.save(path)
            return True

    def lies_in(self, endpoint: str, bucket: str) -> bool:
        """Whether it is staged in this bucket."""
        return (self.endpoint, self.bucket) == (endpoint, bucket)

    def check_place(self, endpoint: str, bucket: str) -> None:
        """Raise a `RemoteError` where the job lies in another bucket than this one: nothing would be found there."""
        if not self.lies_in(endpoint, bucket):
            raise RemoteError(
                f"remote job {self.job_id} is staged in the bucket {self.bucket} at {self.endpoint}, and {bucket} at "
                f"{endpoint} is set",
                remedy="Set R2_BUCKET_NAME and the endpoint to those, then run or cancel it.",
            )

    @classmethod
    def read(cls, path: Path) -> RemoteState | None:
        """What was kept; None where there is nothing that can be used."""
        try:
            state = loads(path.read_bytes(), cls)
        except (OSError, KeyscaleError):
            return None
        return state if state.version == REMOTE_STATE_VERSION else None


@dataclass(frozen=True, kw_only=True)
class JobNote:
    """Where a job id leads to."""

    job_id: str
    job: Job
    state: str
    """Path of its `RemoteState`."""
    options: str = "{}"
    """How it was run, as JSON of the runner's own options."""
    publishing: str = ""
    """The job's key, once its finished file stands here or is about to; only its upload is left to do then."""
    finished: bool = False
    """All is done, but what was staged could not be removed, or a call not be cancelled."""


def state_path(root: Path) -> Path:
    """Where the state lies in a work folder."""
    return root / REMOTE_STATE


def state_path_of(note: JobNote) -> Path:
    """Where the state of a note's job lies."""
    return Path(note.state)


def state_of(note: JobNote) -> RemoteState | None:
    """What is staged of a note's job, and its calls; None where all of that was removed."""
    found = (RemoteState.read(path) for path in (state_path_of(note), _copy_path(note.job_id)))
    return next((state for state in found if state is not None and state.job_id == note.job_id), None)


def is_followed(note: JobNote) -> bool:
    """Whether a client works on the job: it holds the lock of the work folder."""
    path = state_path_of(note).with_name("lock")
    if not path.exists():
        return False
    try:
        with held(path):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False


def is_damaged(note: JobNote) -> bool:
    """Whether a state of a note's job was kept that cannot be read: something of the job may run or lie in storage."""
    if state_of(note) is not None:
        return False
    path = state_path_of(note)
    return _copy_path(note.job_id).exists() or (path.exists() and RemoteState.read(path) is None)


def drop_state(
    path: Path, job_id: str, *, ended: Collection[str] | None = None, staged: RemoteState | None = None
) -> bool:
    """Remove the state of a job whose calls have ended; that of another job stays.

    Args:
        path: of the state.
        job_id: of the job.
        ended: the calls that were cancelled. Where the state knows of others by now, since its client goes on, nothing
            is removed; None removes it whatever it knows.
        staged: the job, where its objects are still to be removed: the copy beside the note then stays, with the place
            where they lie and `RemoteState.unnamed`.

    Returns:
        Whether it's gone.

    Raises:
        StorageError: it cannot be removed.
    """
    copy = _copy_path(job_id)
    with _alone(job_id):
        states = [state for state in map(RemoteState.read, (path, copy)) if state is not None]
        own = [state for state in states if state.job_id == job_id]
        if ended is not None and any(call.id not in ended for state in own for call in state.calls):
            return False
        if staged is not None:
            with contextlib.suppress(StorageError):  # on a full disk the copy stays as it is
                write_private(copy, dumps(replace(staged, calls=(), starting=staged.unnamed)))
        try:
            if RemoteState.read(path) in (None, *own):
                path.unlink(missing_ok=True)
            if staged is None:
                copy.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path if error.filename is None else Path(error.filename)) from error
    return True


@contextmanager
def _alone(job_id: str) -> Iterator[None]:
    """Within it no other process saves a job's state again, or drops it."""
    path = _note_path(job_id).with_suffix(".lock")
    while True:
        try:
            lock = lock_of(path, mode=0o600)
            break
        except filelock.Timeout:
            time.sleep(LOCK_POLL_S)  # who holds it writes or removes two small files, and frees it where it dies
        except OSError as error:
            raise storage_error(error, path) from error
    try:
        yield
    finally:
        lock.release()


def check_notes() -> None:
    """See that notes can be kept, before anything is sent that only they lead to.

    Raises:
        StorageError: they cannot.
    """
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise storage_error(error, folder) from error


def keep_note(note: JobNote) -> None:
    """Keep a note.

    Raises:
        StorageError: it cannot be written.
    """
    write_private(_note_path(note.job_id), dumps(note))


def find_note(job_id: str) -> JobNote:
    """The note of a job.

    Raises:
        RemoteError: there is none on this machine.
    """
    try:
        return loads(_note_path(job_id).read_bytes(), JobNote)
    except (OSError, KeyscaleError) as error:
        raise RemoteError(
            f"no unfinished remote job {job_id} is known on this machine",
            remedy="'keyscale remote status' lists those that are.",
        ) from error


def forget_note(job_id: str) -> None:
    """Remove a note and the copy of its state, if they are there."""
    with contextlib.suppress(OSError):
        _note_path(job_id).unlink(missing_ok=True)
        _copy_path(job_id).unlink(missing_ok=True)
        _note_path(job_id).with_suffix(".lock").unlink(missing_ok=True)


def notes_of(job: Job) -> list[JobNote]:
    """The notes of all jobs for the output of `job`, in the order in which they began."""
    output = Path(job.output).absolute()
    return [note for note in all_notes() if Path(note.job.output).absolute() == output]


def forget_ended(job: Job, *, but: str | None = None, finished: bool = True) -> None:
    """Remove the notes of jobs for the output of `job` of which nothing runs and nothing lies in storage any more.

    Args:
        job: whose output it is.
        but: the id of one that stays.
        finished: those too whose finished file is still to be stored elsewhere.
    """
    for note in notes_of(job):
        is_over = state_of(note) is None and not is_damaged(note)
        if note.job_id != but and is_over and (finished or not note.publishing):
            forget_note(note.job_id)


def take_up(path: Path, job: Job, key: str, place: tuple[str, str]) -> None:
    """Put the state of the very job back into its work folder, where that was removed.

    Args:
        path: of the state.
        job: whose output it is.
        key: of the work folder.
        place: endpoint and bucket that are in use.

    Raises:
        StorageError: it cannot be written.
    """
    if RemoteState.read(path) is not None:
        return
    for note in notes_of(job):
        state = state_of(note)
        if state is not None and state.lies_in(*place) and state.key == key:
            state.save(path)
            return


def was_cancelled(job_id: str) -> RemoteError:
    """The error where another command cancelled a job, which removes what is kept of it."""
    message = f"the job {job_id} was cancelled by another command"
    return RemoteError(message, remedy="Run the command again: finished chunks are kept.")


def absolute_job(job: Job, checkpoint: Path | None) -> Job:
    """The job as it can be run from another folder; `checkpoint` is the network that it names by its path, if any."""
    return replace(
        job,
        source=str(Path(job.source).absolute()),
        output=str(Path(job.output).absolute()),
        keyframes=None if job.keyframes is None else str(Path(job.keyframes).absolute()),
        model=job.model if checkpoint is None else replace(job.model, name=str(checkpoint.absolute())),
    )


def all_notes() -> list[JobNote]:
    """All jobs that are not finished, in the order in which they began."""
    notes = []
    for path in sorted(state_folder().glob("*.json")):
        with contextlib.suppress(OSError, KeyscaleError):
            notes.append(loads(path.read_bytes(), JobNote))
    return notes


def state_folder() -> Path:
    """Where remote jobs are noted, below `KEYSCALE_STATE_DIR` or the user's state folder; it may not exist yet."""
    chosen = os.environ.get("KEYSCALE_STATE_DIR")
    return (Path(chosen) if chosen else platformdirs.user_state_path("keyscale")) / "remote"


def _note_path(job_id: str) -> Path:
    if not job_id or not all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in job_id):
        raise RemoteError(f"{job_id!r} is not a job id", remedy="'keyscale remote status' lists those that are.")
    return state_folder() / f"{job_id}.json"


def _copy_path(job_id: str) -> Path:
    return _note_path(job_id).with_suffix(".state")
