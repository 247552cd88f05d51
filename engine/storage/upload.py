"""A file to object storage: in one request, or in parts, of which those that are there already are not sent again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from keyscale.engine.errors import InputError, Interrupted
from keyscale.engine.files import sha256_file
from keyscale.engine.storage.client import Body, Connection, bare_tag, stored_sha256
from keyscale.engine.storage.errors import ObjectMissing, StorageFault
from keyscale.engine.storage.senders import BytesSent, OnProgress, Senders

__all__ = ["PART_SIZE", "Shipment", "read_sha256", "read_size", "send"]

PART_SIZE = 8 << 20
"""Bytes of a part, unless the file is so large that it would have too many of them."""
LEAST_PART_SIZE = 5 << 20
"""Bytes of a part, except the last, at least, by S3's rules."""
MOST_PARTS = 10_000
THREADS = 4
"""Parts on their way at once; two more are in memory."""


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What goes where."""

    path: Path
    key: str
    size: int
    """Bytes."""
    sha256: str
    """Of the whole file, lower-case hexadecimal; stored with the object."""
    content_type: str | None

    @property
    def headers(self) -> dict[str, Any]:
        """What the object is stored with."""
        kind = {} if self.content_type is None else {"ContentType": self.content_type}
        return {"Metadata": {"sha256": self.sha256}, **kind}


def read_sha256(path: Path, should_stop: Callable[[], bool]) -> tuple[int, str]:
    """Size in bytes and lower-case hexadecimal SHA-256 of a file.

    Raises:
        InputError: the file cannot be read.
        Interrupted: `should_stop` said so.
    """
    size = 0

    def look(done: int) -> None:
        nonlocal size
        size = done
        if should_stop():
            raise Interrupted("stopped while a file was read for upload")

    try:
        digest = sha256_file(path, look)
    except OSError as error:
        _unreadable(path, error)
    return size, digest


def read_size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        InputError: there is none, or it cannot be looked at.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        _unreadable(path, error)


def send(
    connection: Connection,
    shipment: Shipment,
    *,
    part_size: int | None,
    resume: bool,
    on_progress: OnProgress | None,
    should_stop: Callable[[], bool],
) -> None:
    """Bring a file into storage.

    Args:
        connection: to the bucket.
        shipment: what goes where.
        part_size: bytes; larger where that would give too many parts. A file of at most that goes in one request.
        resume: use what an earlier upload of the key left, and leave this one's parts there if it fails.
            Without it a failed upload leaves nothing.
        on_progress: called in this thread with bytes in storage or on the wire, and bytes in all; never falls.
        should_stop: asked often and from several threads.

    Raises:
        InputError: the file cannot be read, or it changed since it was hashed.
        StorageFault: refused, or not reachable for too long.
        Interrupted: `should_stop` said so.
    """
    meter = BytesSent(shipment.size, on_progress)
    parts = max(part_size or PART_SIZE, -(-shipment.size // MOST_PARTS))
    if shipment.size <= parts:
        _send_whole(connection, shipment, meter, should_stop)
    else:
        _send_in_parts(connection, shipment, parts, resume, meter, should_stop)
    meter.finish()


def _send_whole(connection: Connection, shipment: Shipment, meter: BytesSent, should_stop: Callable[[], bool]) -> None:
    def put(number: int, data: bytes, ended: Callable[[], bool]) -> str:
        # An empty body is given as such: boto3 would ask a file of no bytes to wait for the server's consent.
        body = Body(data, meter.counter(number), ended) if data else b""
        headers = shipment.headers
        connection.call(
            "put_object", f"upload of {shipment.key}", should_stop=ended, Key=shipment.key, Body=body, **headers
        )
        return ""

    with _opened(shipment.path) as stream, Senders(put, meter, should_stop, threads=1) as senders:
        data = _read(stream, shipment.size + 1, shipment.path)
        if hashlib.sha256(data).hexdigest() != shipment.sha256:
            _changed(shipment.path)
        senders.submit(0, data)
        senders.finish()


@dataclass(frozen=True, kw_only=True)
class _Unfinished:
    """A multipart upload under way, and what is there of it."""

    upload_id: str
    part_size: int
    parts: dict[int, tuple[int, str]]
    """Number -> bytes and ETag."""
    resumed: bool = False

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.parts.values())


class _OtherContentError(Exception):
    """The upload that was to be resumed was begun for other content."""


def _send_in_parts(
    connection: Connection,
    shipment: Shipment,
    part_size: int,
    resume: bool,
    meter: BytesSent,
    should_stop: Callable[[], bool],
) -> None:
    earlier = _earlier(connection, shipment, part_size) if resume else None
    if earlier is not None:
        try:
            _finish(connection, shipment, earlier, resume, meter, should_stop)
        except _OtherContentError:
            pass
        else:
            return
    answer = connection.call(
        "create_multipart_upload",
        f"upload of {shipment.key}",
        should_stop=should_stop,
        Key=shipment.key,
        **shipment.headers,
    )
    begun = _Unfinished(upload_id=answer["UploadId"], part_size=part_size, parts={})
    _finish(connection, shipment, begun, resume, meter, should_stop)


def _finish(
    connection: Connection,
    shipment: Shipment,
    upload: _Unfinished,
    resume: bool,
    meter: BytesSent,
    should_stop: Callable[[], bool],
) -> None:
    """Send what is missing of an upload, and complete it.

    Raises:
        _OtherContentError: it had been begun for other content; it is no longer there.
    """
    keep = False
    try:
        etags = _send_parts(connection, shipment, upload, meter, should_stop)
        _complete(connection, shipment, upload.upload_id, etags, should_stop)
        keep = True
    except (StorageFault, Interrupted):
        keep = resume
        raise
    finally:
        if not keep:
            _abort(connection, shipment.key, upload.upload_id)
    # The SHA-256 that is stored with it was given when it was begun.
    if upload.resumed and not _is_stored(connection, shipment):
        raise _OtherContentError


def _send_parts(
    connection: Connection,
    shipment: Shipment,
    upload: _Unfinished,
    meter: BytesSent,
    should_stop: Callable[[], bool],
) -> dict[int, str]:
    """ETags of all parts, after those that were missing were sent."""
    key, upload_id = shipment.key, upload.upload_id

    def put(number: int, data: bytes, ended: Callable[[], bool]) -> str:
        answer = connection.call(
            "upload_part",
            f"upload of {key}",
            should_stop=ended,
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            Body=Body(data, meter.counter(number), ended),
        )
        return f'"{bare_tag(answer.get("ETag")) or _md5(data)}"'

    digest = hashlib.sha256()
    there: dict[int, str] = {}
    with _opened(shipment.path) as stream, Senders(put, meter, should_stop, threads=THREADS) as senders:
        for number in range(1, _count(shipment.size, upload.part_size) + 1):
            data = _read(stream, upload.part_size, shipment.path)
            digest.update(data)
            if number not in upload.parts:
                senders.submit(number, data)
                continue
            _, etag = upload.parts[number]
            if bare_tag(etag) != _md5(data):
                raise _OtherContentError
            there[number] = etag
            meter.counter(number)(len(data))
            senders.look()
        # The file is read to its end, so that one that has grown is noticed too.
        digest.update(_read(stream, 1, shipment.path))
        if digest.hexdigest() != shipment.sha256:
            _changed(shipment.path)
        senders.finish()
    return {**there, **senders.etags}


def _complete(
    connection: Connection,
    shipment: Shipment,
    upload_id: str,
    etags: dict[int, str],
    should_stop: Callable[[], bool],
) -> None:
    parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
    try:
        connection.call(
            "complete_multipart_upload",
            f"upload of {shipment.key}",
            should_stop=should_stop,
            Key=shipment.key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
        )
    except StorageFault as fault:
        # A try whose answer was lost may have done it.
        if fault.code != "NoSuchUpload" or not _is_stored(connection, shipment):
            raise


def _is_stored(connection: Connection, shipment: Shipment) -> bool:
    try:
        found = connection.call("head_object", f"check of {shipment.key}", Key=shipment.key)
    except ObjectMissing:
        return False
    return bool(found["ContentLength"] == shipment.size and stored_sha256(found) == shipment.sha256)


def _earlier(connection: Connection, shipment: Shipment, part_size: int) -> _Unfinished | None:
    """The unfinished upload of the key of which the most can be used; the others are aborted."""
    usable: list[_Unfinished] = []
    for upload in list(connection.uploads(shipment.key)):
        if upload["Key"] != shipment.key:
            continue
        upload_id = upload["UploadId"]
        try:
            listed = list(connection.parts(shipment.key, upload_id))
        except StorageFault as fault:
            if fault.code == "NoSuchUpload":
                continue  # it ended since it was listed
            raise
        parts = {part["PartNumber"]: (part["Size"], part.get("ETag", "")) for part in listed}
        found = _fitting(upload_id, parts, shipment.size, part_size)
        if found is None:
            _abort(connection, shipment.key, upload_id)
        else:
            usable.append(found)
    usable.sort(key=lambda upload: upload.size)
    for other in usable[:-1]:
        _abort(connection, shipment.key, other.upload_id)
    return usable[-1] if usable else None


def _fitting(upload_id: str, parts: dict[int, tuple[int, str]], size: int, part_size: int) -> _Unfinished | None:
    """An unfinished upload as one of a file of `size` bytes; None where its parts can be of none."""
    step = max((size for size, _ in parts.values()), default=part_size)
    count = _count(size, step)
    if step < min(LEAST_PART_SIZE, part_size) or count > MOST_PARTS:
        return None
    for number, (stored, _) in parts.items():
        if number > count or stored != min(step, size - (number - 1) * step):
            return None
    return _Unfinished(upload_id=upload_id, part_size=step, parts=parts, resumed=True)


def _count(size: int, part_size: int) -> int:
    return -(-size // part_size)


def _abort(connection: Connection, key: str, upload_id: str) -> None:
    """Abort an upload, as well as it can be: whatever led here is what is to be told."""
    with contextlib.suppress(StorageFault):
        connection.call("abort_multipart_upload", f"clean-up of {key}", patience_s=5.0, Key=key, UploadId=upload_id)


def _md5(data: bytes) -> str:
    """What S3 gives a part for its ETag."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _changed(path: Path) -> NoReturn:
    raise InputError(
        f"{path} changed while it was uploaded", remedy="Let nothing write to the file, and run the job again."
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    try:
        stream = path.open("rb", buffering=0)
    except OSError as error:
        _unreadable(path, error)
    with stream:
        yield stream


def _read(stream: FileIO, amount: int, path: Path) -> bytes:
    """`amount` bytes, or fewer at the end of the file."""
    blocks: list[bytes] = []
    try:
        while amount and (block := stream.read(amount)):
            blocks.append(block)
            amount -= len(block)
    except OSError as error:
        _unreadable(path, error)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _unreadable(path: Path, error: OSError) -> NoReturn:
    raise InputError(
        f"{path} cannot be read for upload: {os.strerror(error.errno) if error.errno else error}"
    ) from error
