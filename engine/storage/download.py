"""An object from storage to a file: taken up again where the connection broke, checked, named when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from keyscale.engine.errors import Interrupted, StorageError
from keyscale.engine.storage.client import Connection, bare_tag, stored_sha256
from keyscale.engine.storage.errors import ObjectDamaged, StorageFault, StorageUnreachable

__all__ = ["receive"]

BLOCK = 1 << 16
"""Bytes read at once: little enough that a stop is noticed on a slow line."""

OnProgress = Callable[[int, int], None]


@dataclass
class _State:
    """How much of the object is in the partial file."""

    have: int = 0
    total: int | None = None
    etag: str | None = None
    stored_sha256: str | None = None
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def complete(self) -> bool:
        return self.total is not None and self.have == self.total


def receive(
    connection: Connection,
    key: str,
    path: Path,
    *,
    sha256: str | None,
    size: int | None,
    on_progress: OnProgress | None,
    should_stop: Callable[[], bool],
) -> None:
    """Bring an object to `path`, by way of `<name>.part`, which is gone afterwards whatever happened.

    Args:
        connection: to the bucket.
        key: of the object.
        path: replaced if it is there.
        sha256: what the object has to have; None takes what was stored with it, if anything was.
        size: bytes it has to have, if known.
        on_progress: called with bytes so far and bytes in all.
        should_stop: asked often.

    Raises:
        ObjectMissing: no such object.
        ObjectDamaged: other content or size.
        StorageFault: refused, or not reachable for too long.
        StorageError: the file cannot be written.
        Interrupted: `should_stop` said so.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with _created(part) as stream:
            state = _fetch(connection, key, stream, part, size, on_progress, should_stop)
            _check(key, state, sha256)
            with _writing(part):
                os.fsync(stream.fileno())
        with _writing(path):
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _fetch(
    connection: Connection,
    key: str,
    stream: FileIO,
    part: Path,
    size: int | None,
    on_progress: OnProgress | None,
    should_stop: Callable[[], bool],
) -> _State:
    state = _State()
    action = f"download of {key}"
    patience = connection.patience(should_stop)
    while True:
        before = state.have
        body = _request(connection, key, action, state, stream, part, size, should_stop)
        fault: StorageFault | None = None
        try:
            with contextlib.closing(body):
                while not state.complete and (block := body.read(BLOCK)):
                    _write(stream, block, part)
                    state.digest.update(block)
                    state.have += len(block)
                    if on_progress is not None and state.total:
                        on_progress(state.have, state.total)
                    if should_stop():
                        raise Interrupted("stopped during a download")
        except (StorageError, Interrupted):
            raise
        except Exception as error:
            fault = connection.fault_of(error, action)
            if fault is None:
                raise
        if state.complete:
            return state
        if state.have > before:
            patience.renew()
        patience.bear(fault or StorageUnreachable(f"the {action} failed: the connection ended too early"))


def _request(
    connection: Connection,
    key: str,
    action: str,
    state: _State,
    stream: FileIO,
    part: Path,
    size: int | None,
    should_stop: Callable[[], bool],
) -> Any:
    """The body from where the file ends, of the very object that was begun with."""
    further: dict[str, Any] = {"Range": f"bytes={state.have}-"} if state.have else {}
    if state.have and state.etag and not state.etag.startswith("W/"):  # a weak tag matches nothing, not even itself
        further["IfMatch"] = state.etag
    try:
        answer = connection.call("get_object", action, should_stop=should_stop, Key=key, **further)
    except StorageFault as fault:
        if fault.code not in {"PreconditionFailed", "412", "InvalidRange", "416"}:
            raise
        changed = True
    else:
        # Not every server looks at the condition.
        tags = bare_tag(answer.get("ETag")), bare_tag(state.etag)
        changed = bool(state.have) and all(tags) and tags[0] != tags[1]
        if changed:
            answer["Body"].close()
    if changed:
        raise ObjectDamaged(f"{key} was changed in storage while it was downloaded")
    # Told by its range, not by the status: rclone gives ranges with status 200.
    if state.have and not str(answer.get("ContentRange", "")).startswith(f"bytes {state.have}-"):
        # A server without ranges begins anew.
        with _writing(part):
            stream.seek(0)
            stream.truncate()
        state.have, state.digest = 0, hashlib.sha256()
    if state.total is None or not state.have:
        state.total, state.etag = answer["ContentLength"], answer.get("ETag")
        state.stored_sha256 = stored_sha256(answer)
        if size is not None and state.total != size:
            answer["Body"].close()
            raise ObjectDamaged(
                f"{key} has {state.total} bytes in storage, not {size}: it was damaged or replaced there"
            )
    return answer["Body"]


def _check(key: str, state: _State, sha256: str | None) -> None:
    found = state.digest.hexdigest()
    wanted = sha256 if sha256 is not None else state.stored_sha256
    if wanted is not None and found != wanted:
        raise ObjectDamaged(
            f"{key} was damaged in storage: its content has the SHA-256 {found}, not {wanted}",
            remedy="Run the job again; what was downloaded is deleted.",
        )


def _write(stream: FileIO, block: bytes, part: Path) -> None:
    rest = memoryview(block)
    with _writing(part):
        while rest:
            rest = rest[stream.write(rest) :]


@contextlib.contextmanager
def _created(part: Path) -> Iterator[FileIO]:
    with _writing(part):
        # Unbuffered, so that a full disk shows at the write and not when the file is closed.
        stream = part.open("wb", buffering=0)
    with stream:
        yield stream


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}",
            remedy="Free some space, or check the rights of its folder.",
        ) from error
