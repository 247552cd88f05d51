"""One boto3 client for one bucket: set up as R2 wants it, with patience, and with its exceptions translated."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keyscale.engine.errors import Interrupted, RemoteError
from keyscale.engine.storage.errors import StorageFault, StoragePatience, fault_of, never
from keyscale.engine.storage.settings import StorageSettings

__all__ = ["Body", "Connection", "bare_tag", "stored_sha256"]

CONNECT_TIMEOUT_S = 10.0
"""Longest wait, in seconds, for a connection, and for a server to take the next bytes."""
CONNECTIONS = 16
"""Connections kept open at most: more than the threads of one upload and one clean-up."""


class Body:
    """Bytes to send, as a file: tells how many went out, and breaks the sending off when asked to."""

    def __init__(self, data: bytes, on_sent: Callable[[int], None], should_stop: Callable[[], bool]) -> None:
        self._view = memoryview(data)
        self._place = 0
        self._on_sent = on_sent
        self._should_stop = should_stop
        self._sending = False

    def rewind(self) -> None:
        """Start anew, with reads for the signature."""
        self._place, self._sending = 0, False

    def begin(self) -> None:
        """From here on reads are for the wire."""
        self._sending = True

    def read(self, amount: int | None = -1) -> bytes:
        """As of a file.

        Raises:
            Interrupted: `should_stop` said so.
        """
        if self._should_stop():
            raise Interrupted("stopped during an upload")
        end = len(self._view) if amount is None or amount < 0 else self._place + amount
        block = bytes(self._view[self._place : end])
        self._place += len(block)
        if self._sending:
            self._on_sent(self._place)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: len(self._view)}[whence]
        self._place = min(max(base + offset, 0), len(self._view))
        return self._place

    def tell(self) -> int:
        """As of a file."""
        return self._place

    def __len__(self) -> int:
        return len(self._view)


class Connection:
    """A client and how long it bears faults. May be used by several threads at once."""

    def __init__(
        self,
        settings: StorageSettings,
        *,
        patience_s: float,
        timeout_s: float,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        busy_s: float = 0.0,
    ) -> None:
        """Set up the client; nothing is sent.

        Args:
            settings: bucket, endpoint and keys.
            patience_s: how long transient faults of one request are tolerated.
            timeout_s: longest silence of the server within a request.
            connect_timeout_s: longest wait for a connection.
            busy_s: how long a server that answers, and is busy, is tolerated, where that is longer than `patience_s`.

        Raises:
            RemoteError: the endpoint is no address.
        """
        self.settings = settings
        self.patience_s, self._busy_s = patience_s, busy_s
        self.client = _client(settings, timeout_s, connect_timeout_s)
        self.client.meta.events.register("before-send.s3", _begin)
        self.client.meta.events.register("before-parameter-build.s3", _stay)

    def call(
        self,
        operation: str,
        action: str,
        *,
        should_stop: Callable[[], bool] = never,
        patience_s: float | None = None,
        **parameters: Any,
    ) -> Any:
        """One operation of S3 on the bucket, tried again while its faults are transient and patience lasts.

        Args:
            operation: name of the client's method.
            action: what it is for, as a noun, for messages.
            should_stop: asked between tries.
            patience_s: instead of the connection's own.
            parameters: of the operation, without the bucket.

        Raises:
            StorageFault: refused, or not reachable for too long.
            Interrupted: `should_stop` said so.
        """
        patience = self.patience(should_stop, patience_s)
        body = parameters.get("Body")
        while True:
            if isinstance(body, Body):
                body.rewind()  # a try before may have read a part of it
            try:
                return getattr(self.client, operation)(Bucket=self.settings.bucket, **parameters)
            except Exception as error:
                fault = fault_of(error, action, self.settings)
                if fault is None:
                    raise
            # Raised outside of the handler: boto3's exception, with the address in it, is then not even its context.
            patience.bear(fault)

    def content(self, key: str, action: str) -> bytes:
        """What a small object holds; errors as of `call`."""
        patience = self.patience()
        while True:
            answer = self.call("get_object", action, Key=key)
            try:
                with answer["Body"] as body:
                    return bytes(body.read())
            except Exception as error:
                fault = self.fault_of(error, action)
                if fault is None:
                    raise
            patience.bear(fault)

    def patience(self, should_stop: Callable[[], bool] = never, patience_s: float | None = None) -> StoragePatience:
        """A new measure of the connection's patience."""
        seconds = self.patience_s if patience_s is None else patience_s
        return StoragePatience(seconds, should_stop, busy_s=self._busy_s)

    def fault_of(self, error: Exception, action: str) -> StorageFault | None:
        """See `fault_of`."""
        return fault_of(error, action, self.settings)

    def objects(self, prefix: str, *, patience_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Every object whose key begins with `prefix`, as S3 lists it, in order of keys."""
        further: dict[str, Any] = {}
        while True:
            page = self.call("list_objects_v2", f"listing of {prefix}", patience_s=patience_s, Prefix=prefix, **further)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            further = {"ContinuationToken": page["NextContinuationToken"]}

    def uploads(self, prefix: str, *, patience_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Every unfinished multipart upload whose key begins with `prefix`, as S3 lists it."""
        further: dict[str, Any] = {}
        action = f"listing of unfinished uploads of {prefix}"
        while True:
            try:
                page = self.call("list_multipart_uploads", action, patience_s=patience_s, Prefix=prefix, **further)
            except StorageFault as fault:
                if fault.code == "NoSuchUpload":
                    return  # what rclone answers where there is none
                raise
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            further = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def parts(self, key: str, upload_id: str) -> Iterator[dict[str, Any]]:
        """Every part of an unfinished multipart upload, as S3 lists it, in order of numbers."""
        further: dict[str, Any] = {}
        while True:
            page = self.call("list_parts", f"listing of parts of {key}", Key=key, UploadId=upload_id, **further)
            yield from page.get("Parts", ())
            if not page.get("IsTruncated"):
                return
            further = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def close(self) -> None:
        """Close the open connections."""
        self.client.close()


def bare_tag(tag: str | None) -> str:
    """An ETag without quotes and without the mark of a weak one; empty where the server gives none."""
    return (tag or "").removeprefix("W/").strip('"')


def stored_sha256(answer: Mapping[str, Any]) -> str | None:
    """The SHA-256 that was stored with an object, out of an answer to GET or HEAD; None where there is none."""
    # Names of headers have no case, and some servers give them another.
    metadata = {str(name).lower(): str(value) for name, value in answer.get("Metadata", {}).items()}
    return metadata.get("sha256")


def _begin(request: Any, **_: Any) -> None:
    if isinstance(request.body, Body):
        request.body.begin()


def _stay(context: dict[str, Any], **_: Any) -> None:
    # botocore answers a redirect by asking the bucket for its region, is redirected there too, and so on until the
    # stack is full. There is one endpoint; that it points elsewhere is a fault to be told.
    context.setdefault("s3_redirect", {})["redirected"] = True


def _client(settings: StorageSettings, timeout_s: float, connect_timeout_s: float) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    for name in ("boto3", "botocore"):
        # Their debug records hold the signed headers.
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.INFO))
    # A session that knows of no files and no profile: settings are the only source, whatever AWS_PROFILE names.
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    config = Config(
        signature_version="s3v4",
        # R2 answers a misleading "Unauthorized" to the checksum trailers that newer releases of boto3 add over https.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=connect_timeout_s,
        read_timeout=timeout_s,
        # `Connection.call` alone tries again; two layers would multiply their pauses.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        s3={"addressing_style": "path"},
    )
    try:
        return boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=settings.endpoint,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            region_name=settings.region,
            config=config,
        )
    except ValueError:
        pass
    raise RemoteError(f"{settings.endpoint} is not the address of an endpoint", remedy="Check R2_ENDPOINT_URL.")
