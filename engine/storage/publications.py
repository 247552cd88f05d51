"""Finished files on their way into storage: noted there, so that what a dead client began can be found and taken back.

The parts of an unfinished upload take room and show in no listing of objects. A finished file goes to a key of the
user's own, where nothing can be swept by its prefix; a small object in a folder among those of jobs tells of it.
"""

from __future__ import annotations

import contextlib

from keyscale.engine.storage.client import Connection
from keyscale.engine.storage.errors import ObjectMissing, StorageFault, StorageRefused
from keyscale.engine.storage.settings import is_publication, job_prefix, publication_id

__all__ = ["Publication", "abort_uploads", "destination_of"]

END_PATIENCE_S = 5.0
"""How long storage may be out of reach at the end: what is left then is found by its note."""


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
