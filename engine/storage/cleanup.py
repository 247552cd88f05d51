"""What is left in storage: files on their way there and what jobs staged; found, and deleted for certain.

The parts of an unfinished upload take room and show in no listing of objects. A finished file goes to a key of the
user's own, where nothing can be swept by its prefix; a small object in a folder among those of jobs tells of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from keyscale.engine.errors import UsageError
from keyscale.engine.storage.client import Connection
from keyscale.engine.storage.errors import ObjectMissing, StorageFault, StorageRefused
from keyscale.engine.storage.settings import JOBS_PREFIX, is_publication, job_of, job_prefix, publication_id
from keyscale.engine.threads import start_helper

__all__ = ["Publication", "StaleJob", "abort_uploads", "delete_job", "destination_of", "stale_jobs"]

END_PATIENCE_S = 5.0
"""How long storage may be out of reach at the end: what is left then is found by its note."""

THREADS = 8
"""Objects deleted at once; R2 does not take `delete_objects` from this client, which would need a Content-MD5."""
PASSES = 3
"""Times that a prefix is looked through: a part under way while its upload is aborted can still arrive after it."""


class Publication:
    """A finished file on its way to a key, noted for the length of a `with` block.

    What was begun there before is aborted first; after a failure so is what is left of this one. A note that cannot be
    removed, or should not be since an upload may be left, stays for `stale_jobs`.
    """

    def __init__(self, connection: Connection, key: str) -> None:
        self._connection, self._key = connection, key
        self._note = _note_of(publication_id(key))

    def __enter__(self) -> Publication:
        """Note it.

        Raises:
            StorageFault: it cannot be noted.
        """
        self._connection.call(
            "put_object", f"note of the upload of {self._key}", Key=self._note, Body=self._key.encode()
        )
        # Who may write may not be allowed to list; then nobody can say what was begun before.
        with contextlib.suppress(StorageRefused):
            abort_uploads(self._connection, self._key)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(StorageFault):  # whatever ended the upload is what is to be told
            if kind is not None:
                abort_uploads(self._connection, self._key, patience_s=END_PATIENCE_S)
            self._connection.call(
                "delete_object", f"deletion of {self._note}", patience_s=END_PATIENCE_S, Key=self._note
            )


def destination_of(connection: Connection, job_id: str) -> str | None:
    """The key to which a finished file is on its way; None where `job_id` is of no publication, or the note is gone.

    Raises:
        StorageFault: refused, or not reachable for too long.
    """
    if not is_publication(job_id):
        return None
    try:
        key = connection.content(_note_of(job_id), f"look at {_note_of(job_id)}").decode(errors="replace")
    except ObjectMissing:
        return None
    # Nobody else's note may lead to uploads that are none of keyscale's.
    return key if publication_id(key) == job_id else None


def abort_uploads(connection: Connection, key: str, *, patience_s: float | None = None) -> int:
    """Abort all unfinished uploads of one object, and say how many there were.

    Raises:
        StorageFault: refused, or not reachable for too long.
    """
    aborted = 0
    for upload in list(connection.uploads(key, patience_s=patience_s)):
        if upload["Key"] != key:
            continue
        try:
            connection.call(
                "abort_multipart_upload",
                f"clean-up of the upload of {key}",
                patience_s=patience_s,
                Key=key,
                UploadId=upload["UploadId"],
            )
        except StorageFault as fault:
            if fault.code != "NoSuchUpload":  # it ended since it was listed
                raise
        else:
            aborted += 1
    return aborted


def _note_of(job_id: str) -> str:
    return f"{job_prefix(job_id)}destination"


@dataclass(frozen=True, kw_only=True)
class StaleJob:
    """What one job has in storage."""

    job_id: str
    objects: int
    uploads: int
    """Multipart uploads that were neither completed nor aborted."""
    size: int
    """Bytes of the objects and of the parts of those uploads."""
    newest: datetime
    """When the last of it was written, in UTC."""
    destination: str | None = None
    """The key to which a finished file was on its way, where this is no job but such a publication; unfinished uploads
    of that key are counted in."""


def delete_job(connection: Connection, prefix: str) -> int:
    """Delete all objects below a job's prefix and abort all multipart uploads there.

    Of a publication, unfinished uploads of its destination go first. A prefix with nothing below it is no error. A
    fault ends the work only once everything else was tried.

    Args:
        connection: to the bucket.
        prefix: `temp/upscale_<job id>/`.

    Returns:
        How many objects and uploads were removed.

    Raises:
        UsageError: `prefix` is not a job's.
        StorageFault: the first of those met.
    """
    job_id = job_of(prefix)
    if job_id is None or prefix != job_prefix(job_id):
        raise UsageError(
            f"{prefix!r} is not the folder of a job, and nothing else is ever deleted as a whole",
            remedy=f"Such a folder is named {JOBS_PREFIX}JOB/.",
        )
    sweep = _Sweep(connection)
    if (destination := destination_of(connection, job_id)) is not None:
        # Before the note goes by which they are found.
        for _ in range(PASSES):
            aborted = abort_uploads(connection, destination)
            sweep.removed += aborted
            if not aborted:
                break
    for _ in range(PASSES):
        remains = sweep.look(prefix)
        if not remains:
            break
        sweep.remove_all(remains)
        if sweep.fault is not None:
            break
    if sweep.fault is not None:
        raise sweep.fault
    return sweep.removed


@dataclass(frozen=True, kw_only=True)
class _Remnant:
    """An object, or an unfinished upload of one."""

    key: str
    upload_id: str | None = None


class _Sweep:
    """One clean-up: how much it removed, and the first fault it met."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.removed = 0
        self.fault: Exception | None = None

    @property
    def _patience_s(self) -> float | None:
        # Once the server was waited for in vain, the rest is tried once each: not a minute for every object.
        return 0.0 if self.fault is not None else None

    def look(self, prefix: str) -> list[_Remnant]:
        """What is there; unfinished uploads first, since they may still become objects."""
        found: list[_Remnant] = []
        with self._noting():
            uploads = self._connection.uploads(prefix, patience_s=self._patience_s)
            found.extend(_Remnant(key=item["Key"], upload_id=item["UploadId"]) for item in uploads)
        with self._noting():
            objects = self._connection.objects(prefix, patience_s=self._patience_s)
            found.extend(_Remnant(key=item["Key"]) for item in objects)
        return found

    def remove_all(self, remnants: list[_Remnant]) -> None:
        """`remove` each, several at once."""
        due = deque(remnants)

        def work() -> None:
            with contextlib.suppress(IndexError):
                while True:
                    self.remove(due.popleft())

        # No pool: its threads are waited for where the program ends, even if a server is silent.
        threads = [start_helper(f"keyscale-clean-{number}", work) for number in range(min(THREADS, len(remnants)))]
        for thread in threads:
            thread.join()

    def remove(self, remnant: _Remnant) -> None:
        """Delete or abort it; what went by itself since it was seen is not counted."""
        key, upload_id = remnant.key, remnant.upload_id
        with self._noting():
            if upload_id is None:
                self._connection.call("delete_object", f"deletion of {key}", patience_s=self._patience_s, Key=key)
            else:
                self._connection.call(
                    "abort_multipart_upload",
                    f"clean-up of the upload of {key}",
                    patience_s=self._patience_s,
                    Key=key,
                    UploadId=upload_id,
                )
            with self._lock:
                self.removed += 1

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except StorageFault as fault:
            if fault.code not in {"NoSuchUpload", "NoSuchKey"}:
                self.fault = self.fault or fault
        except Exception as error:  # a thread has nobody to raise it to
            self.fault = self.fault or error


def stale_jobs(connection: Connection, older_than: timedelta) -> list[StaleJob]:
    """Jobs of which nothing was written for `older_than`, the oldest first.

    Raises:
        StorageFault: refused, or not reachable for too long.
    """
    tallies: dict[str, _Tally] = {}
    before = datetime.now(UTC) - older_than
    for item in connection.objects(JOBS_PREFIX):
        if (job_id := job_of(item["Key"])) is not None:
            tallies.setdefault(job_id, _Tally()).add(item["Size"], item["LastModified"])
            tallies[job_id].objects += 1
    for upload in connection.uploads(JOBS_PREFIX):
        if (job_id := job_of(upload["Key"])) is not None:
            tallies.setdefault(job_id, _Tally()).begun(upload)
    found = []
    for job_id, tally in tallies.items():
        if tally.newest >= before:
            continue
        tally.destination = destination_of(connection, job_id)
        if tally.destination is not None:
            for upload in connection.uploads(tally.destination):
                if upload["Key"] == tally.destination:
                    tally.begun(upload)
        # An upload begun long ago may be under way still.
        for key, upload_id in tally.unfinished:
            _count_parts(connection, tally, key, upload_id)
        if tally.newest < before:
            found.append(tally.job(job_id))
    return sorted(found, key=lambda job: job.newest)


def _count_parts(connection: Connection, tally: _Tally, key: str, upload_id: str) -> None:
    try:
        for part in connection.parts(key, upload_id):
            tally.add(part["Size"], part["LastModified"])
    except StorageFault as fault:
        if fault.code != "NoSuchUpload":
            raise


class _Tally:
    """What was found of one job so far."""

    def __init__(self) -> None:
        self.objects = self.uploads = self.size = 0
        self.newest = datetime.min.replace(tzinfo=UTC)
        self.unfinished: list[tuple[str, str]] = []
        self.destination: str | None = None

    def begun(self, upload: Mapping[str, Any]) -> None:
        """Count an unfinished upload, as S3 lists it, without its parts."""
        self.add(0, upload["Initiated"])
        self.uploads += 1
        self.unfinished.append((upload["Key"], upload["UploadId"]))

    def add(self, size: int, written: datetime) -> None:
        self.size += size
        self.newest = max(self.newest, written.astimezone(UTC))

    def job(self, job_id: str) -> StaleJob:
        return StaleJob(
            job_id=job_id,
            objects=self.objects,
            uploads=self.uploads,
            size=self.size,
            newest=self.newest,
            destination=self.destination,
        )
