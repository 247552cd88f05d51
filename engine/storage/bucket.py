"""Object storage: a bucket of any S3-compatible service, set up for Cloudflare R2.

Everything that is staged for a job lies below `temp/upscale_<job id>/`. Each object is stored with its SHA-256
(`x-amz-meta-sha256`), by which it is checked wherever it is read. No key and no signature appears in a message, a
`repr` or a log record.
"""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from keyscale.engine.errors import RemoteError
from keyscale.engine.storage.cleanup import Publication, StaleJob, abort_uploads, delete_job, stale_jobs
from keyscale.engine.storage.client import Connection, bare_tag, stored_sha256
from keyscale.engine.storage.download import receive
from keyscale.engine.storage.errors import (
    ObjectDamaged,
    ObjectMissing,
    StorageFault,
    StorageRefused,
    StorageUnreachable,
    never,
)
from keyscale.engine.storage.settings import (
    TRIALS_PREFIX,
    StorageSettings,
    is_trial,
    job_of,
    job_prefix,
    key_fault,
    new_job_id,
    new_trial,
    parse_address,
    publication_id,
    source_key,
)
from keyscale.engine.storage.upload import Shipment, read_sha256, read_size, send

__all__ = [
    "ObjectDamaged",
    "ObjectInfo",
    "ObjectMissing",
    "StaleJob",
    "Storage",
    "StorageFault",
    "StorageRefused",
    "StorageSettings",
    "StorageUnreachable",
    "job_of",
    "job_prefix",
    "key_fault",
    "new_job_id",
    "parse_address",
    "publication_id",
    "source_key",
]

PATIENCE_S = 60.0
TIMEOUT_S = 60.0
LONGEST_SIGNATURE_S = 7 * 24 * 3600
"""Seconds that a presigned address can be valid, by the rules of its signature."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object in storage."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """S3's own mark of the content, without quotes: MD5, or another for an object sent in parts."""
    modified: datetime
    """In UTC."""
    content_type: str | None = None
    """None where the object was only listed."""
    sha256: str | None = None
    """What was stored with the object; None where nothing was, or where it was only listed."""


class Storage:
    """A bucket. May be used by several threads at once; `close` it, or use it in a `with` statement."""

    def __init__(
        self, settings: StorageSettings, *, patience_s: float = PATIENCE_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Set up; nothing is sent.

        Args:
            settings: bucket, endpoint and keys.
            patience_s: how long faults that may pass (no connection, a server that is overloaded) are tolerated, in
                seconds for each request; a transfer that goes forward has it anew.
            timeout_s: longest silence of the server within a request, in seconds.

        Raises:
            RemoteError: the endpoint is no address.
        """
        self.settings = settings
        self._connection = Connection(settings, patience_s=patience_s, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"Storage({self.settings!r})"

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client(self) -> Any:
        """The boto3 client, for what this class does not offer. The texts of its exceptions hold addresses."""
        return self._connection.client

    def close(self) -> None:
        """Close the open connections."""
        self._connection.close()

    def check(self) -> None:
        """Write, read and delete a tiny object below `temp/`; takes seconds, also where nothing answers.

        Raises:
            StorageFault: what does not work, and which variable to look at.
        """
        key = new_trial()
        content = secrets.token_bytes(16)
        connection = Connection(self.settings, patience_s=2.0, timeout_s=4.0, connect_timeout_s=4.0, busy_s=6.0)
        try:
            try:
                connection.call("put_object", f"trial write of {key}", Key=key, Body=content)
            except StorageUnreachable as fault:
                if fault.unanswered:
                    fault.remedy = f"{fault.remedy} {key} may be in the bucket: `keyscale remote clean` removes it."
                raise
            try:
                found = connection.content(key, f"trial read of {key}")
            finally:
                try:
                    connection.call("delete_object", f"trial deletion of {key}", Key=key)
                except StorageFault as fault:
                    left = f"{key} is left in the bucket: `keyscale remote clean` removes it, once that is allowed."
                    fault.remedy = f"{fault.remedy or ''} {left}".strip()
                    raise
        finally:
            connection.close()
        if found != content:
            raise ObjectDamaged(f"the trial read of {key} gave other content than was written just before")

    def upload(
        self,
        path: Path,
        key: str,
        *,
        content_type: str | None = None,
        sha256: str | None = None,
        part_size: int | None = None,
        resume: bool = True,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> ObjectInfo:
        """Store a file with its SHA-256: at once if it is small, else in parts.

        If it fails, the parts stay, and the next upload of that key sends only what is missing; `delete_prefix`
        removes them. An upload owns its key: other unfinished uploads of it are aborted.

        Args:
            path: the file.
            key: where to.
            content_type: stored with the object.
            sha256: of the file, lower-case hexadecimal, if it is known; else the file is read once more, before.
            part_size: bytes of a part, at least 5 MiB on most services; 8 MiB by default, and more for huge files.
                An upload that is resumed keeps its own.
            resume: False leaves other uploads of the key alone, and nothing of this one if it fails.
            on_progress: called in this thread with bytes sent or already there, and bytes in all; never falls.
            should_stop: asked often, from several threads.

        Raises:
            InputError: the file cannot be read, or it changed meanwhile.
            StorageFault: refused, or not reachable for too long.
            Interrupted: `should_stop` said so.
        """
        if sha256 is None:
            size, sha256 = read_sha256(path, should_stop)
        else:
            size = read_size(path)
        shipment = Shipment(path=path, key=key, size=size, sha256=sha256, content_type=content_type)
        send(
            self._connection,
            shipment,
            part_size=part_size,
            resume=resume,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        found = self._head(key, f"check of {key}")
        if (found.size, found.sha256) != (size, sha256):
            raise ObjectDamaged(
                f"{key} is not in storage as it was sent: {found.size} bytes with the SHA-256 {found.sha256}, "
                f"instead of {size} with {sha256}",
                remedy="Another program may write to the same key: run the job again.",
            )
        return found

    def publish(
        self,
        path: Path,
        key: str,
        content_type: str,
        *,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> ObjectInfo:
        """Store a finished file and check size, type and SHA-256 of what is there then; a failure leaves nothing.

        It owns its key: what others began to upload there is aborted. That it is on its way is noted in storage, so
        that `stale_jobs` finds what a client leaves that dies meanwhile.

        Raises:
            InputError, StorageFault, Interrupted: as `upload`.
        """
        with Publication(self._connection, key):
            found = self.upload(
                path, key, content_type=content_type, resume=False, on_progress=on_progress, should_stop=should_stop
            )
        if found.content_type != content_type:
            raise ObjectDamaged(f"{key} is stored as {found.content_type}, not as {content_type}")
        return found

    def download(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        size: int | None = None,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] = never,
    ) -> None:
        """Bring an object to a file, which appears once it is whole and checked.

        Args:
            key: of the object.
            path: replaced if it is there; `<name>.part` beside it is used meanwhile.
            sha256: what the content has to have; None takes what was stored with the object, if anything was.
            size: bytes it has to have, if known.
            on_progress: called in this thread with bytes so far and bytes in all.
            should_stop: asked often.

        Raises:
            ObjectMissing: no such object.
            ObjectDamaged: other content or size.
            StorageFault: refused, or not reachable for too long.
            StorageError: the file cannot be written.
            Interrupted: `should_stop` said so.
        """
        receive(self._connection, key, path, sha256=sha256, size=size, on_progress=on_progress, should_stop=should_stop)

    def put(self, key: str, data: bytes, content_type: str | None = None) -> None:
        """Store some bytes, without a SHA-256.

        Raises:
            StorageFault: refused, or not reachable for too long.
        """
        kind: dict[str, Any] = {} if content_type is None else {"ContentType": content_type}
        self._connection.call("put_object", f"upload of {key}", Key=key, Body=data, **kind)

    def get(self, key: str) -> bytes:
        """The content of a small object.

        Raises:
            ObjectMissing: no such object.
            StorageFault: refused, or not reachable for too long.
        """
        return self._connection.content(key, f"download of {key}")

    def head(self, key: str) -> ObjectInfo | None:
        """What there is to know about an object; None where it is not there.

        Raises:
            StorageFault: refused, or not reachable for too long.
        """
        try:
            return self._head(key, f"look-up of {key}")
        except ObjectMissing:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with `prefix`, in order of keys.

        Raises:
            StorageFault: refused, or not reachable for too long.
        """
        for item in self._connection.objects(prefix):
            yield ObjectInfo(
                key=item["Key"],
                size=item["Size"],
                etag=bare_tag(item.get("ETag")),
                modified=item["LastModified"].astimezone(UTC),
            )

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error.

        Raises:
            StorageFault: refused, or not reachable for too long.
        """
        self._connection.call("delete_object", f"deletion of {key}", Key=key)

    def delete_prefix(self, prefix: str) -> int:
        """Delete all objects below `temp/upscale_<job id>/`, abort all uploads there, and say how many there were.

        Of a publication, the unfinished uploads of its destination are aborted too.

        Everything is tried before a fault is raised. Nothing there is no error.

        Raises:
            UsageError: another prefix than a job's.
            StorageFault: the first of those met.
        """
        return delete_job(self._connection, prefix)

    def abort_uploads(self, key: str) -> int:
        """Abort all unfinished uploads of one object, and say how many there were.

        Raises:
            StorageFault: refused, or not reachable for too long.
        """
        return abort_uploads(self._connection, key)

    def stale_jobs(self, older_than: timedelta) -> builtins.list[StaleJob]:
        """Jobs of which nothing was written for `older_than`, the oldest first.

        Raises:
            StorageFault: refused, or not reachable for too long.
        """
        return stale_jobs(self._connection, older_than)

    def stale_trials(self, older_than: timedelta) -> builtins.list[ObjectInfo]:
        """Objects of `check` that were written `older_than` ago or before: of clients that died in the middle of it.

        Raises:
            StorageFault: refused, or not reachable for too long.
        """
        before = datetime.now(UTC) - older_than
        return [found for found in self.list(TRIALS_PREFIX) if is_trial(found.key) and found.modified < before]

    def presign_get(self, key: str, seconds: int) -> str:
        """An address from which anyone can read the object for so long; a secret.

        Raises:
            RemoteError: `seconds` is not within 1 to 604800 (seven days).
        """
        return self._presign("get_object", seconds, Key=key)

    def presign_put(self, key: str, seconds: int, content_type: str | None = None) -> str:
        """An address to which anyone can write the object for so long, with just that type if one is given; a secret.

        Raises:
            RemoteError: `seconds` is not within 1 to 604800 (seven days).
        """
        kind = {} if content_type is None else {"ContentType": content_type}
        return self._presign("put_object", seconds, Key=key, **kind)

    def presign_delete(self, key: str, seconds: int) -> str:
        """An address by which anyone can remove the object for that many seconds; raises as `presign_get`."""
        return self._presign("delete_object", seconds, Key=key)

    def _presign(self, operation: str, seconds: int, **parameters: str) -> str:
        if not 1 <= seconds <= LONGEST_SIGNATURE_S:
            raise RemoteError(
                f"an address cannot be signed for {seconds} seconds",
                remedy=f"It can be valid for 1 to {LONGEST_SIGNATURE_S} seconds.",
            )
        url: str = self.client.generate_presigned_url(
            operation, Params={"Bucket": self.settings.bucket, **parameters}, ExpiresIn=seconds
        )
        return url

    def _head(self, key: str, action: str) -> ObjectInfo:
        found = self._connection.call("head_object", action, Key=key)
        return ObjectInfo(
            key=key,
            size=found["ContentLength"],
            etag=bare_tag(found.get("ETag")),
            modified=found["LastModified"].astimezone(UTC),
            content_type=found.get("ContentType"),
            sha256=stored_sha256(found),
        )
