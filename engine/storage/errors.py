"""What can go wrong with object storage, in words that give nothing away, and how long a fault is tolerated.

The texts of boto3's own exceptions carry addresses, and those of presigned requests carry signatures. They are
never passed on: a fault says in words of its own what was attempted, at which endpoint, and with what result.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from keyscale.engine.errors import Interrupted, RemoteError
from keyscale.engine.patience import Patience
from keyscale.engine.storage.proxies import proxy_for
from keyscale.engine.storage.settings import StorageSettings
from keyscale.engine.wording import say

__all__ = [
    "ObjectDamaged",
    "ObjectMissing",
    "StorageFault",
    "StoragePatience",
    "StorageRefused",
    "StorageUnreachable",
    "fault_of",
    "never",
]

STOP_S = 0.1
"""How often a pause asks whether to stop."""

_NO_NAME = "its name is not known"


class StorageFault(RemoteError):
    """Object storage did not do what it was asked to."""

    transient = False
    """Whether the same request may succeed later without anything being changed."""

    def __init__(self, message: str, *, remedy: str | None = None, code: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        """S3's name for the fault, such as `NoSuchUpload`; empty where the server did not answer."""


class StorageUnreachable(StorageFault):
    """No answer, a broken connection, or a server that says it cannot answer now."""

    transient = True
    unanswered = False
    """Whether the request was sent, so that it may have been done all the same."""


class StorageRefused(StorageFault):
    """The server answered and will answer the same again: credentials, rights, bucket, space."""


class ObjectMissing(StorageFault):
    """There is no object of that key."""


class ObjectDamaged(StorageFault):
    """What lies in storage is not what was put there."""


def never() -> bool:
    """A `should_stop` that lets everything run to its end."""
    return False


class StoragePatience:
    """Bears transient faults for some seconds, with growing pauses between the tries."""

    def __init__(self, seconds: float, should_stop: Callable[[], bool] = never, *, busy_s: float = 0.0) -> None:
        """`busy_s` is how long a server is tolerated that answers, and is busy, where that is longer."""
        self._silent, self._busy = (Patience(each, rest=self._rest) for each in (seconds, max(seconds, busy_s)))
        self._should_stop = should_stop

    def renew(self) -> None:
        """Forget the faults so far: something went forward since."""
        self._silent.renew()
        self._busy.renew()

    def bear(self, fault: StorageFault) -> None:
        """Return after a pause, when another try is due.

        Raises:
            StorageFault: `fault` itself, where it is permanent or has lasted too long.
            Interrupted: `should_stop` said so.
        """
        if self._should_stop():
            raise Interrupted("stopped while object storage was in use")
        patience = self._busy if fault.code else self._silent
        if not fault.transient or not patience.bear():
            raise fault

    def _rest(self, seconds: float) -> None:
        wake = time.monotonic() + seconds
        while (left := wake - time.monotonic()) > 0:
            if self._should_stop():
                raise Interrupted("stopped while waiting for object storage")
            time.sleep(min(left, STOP_S))


def fault_of(error: Exception, action: str, settings: StorageSettings) -> StorageFault | None:
    """What an exception of boto3 means; None where it is no fault of storage but one of the program.

    Args:
        error: as caught. Nothing of its text is taken over, except the server's code and sentence.
        action: what was attempted, as a noun: `upload of temp/x`.
        settings: for endpoint and bucket in the message, and to strike the keys out of it.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ParamValidationError,
    )
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        return _refusal(error.response, error.operation_name, action, settings)
    if isinstance(error, ParamValidationError) or not isinstance(error, BotoCoreError | HTTPError | OSError):
        return None
    return _silence(error, action, settings)


def _silence(error: Exception, action: str, settings: StorageSettings) -> StorageFault:
    """The fault where there is no answer of S3 at all."""
    from botocore.exceptions import (
        ConnectTimeoutError,
        EndpointConnectionError,
        ProxyConnectionError,
        ReadTimeoutError,
        SSLError,
    )
    from botocore.parsers import ResponseParserError

    where = f"the {action} failed: {settings.endpoint}"
    remedy = "Check R2_ENDPOINT_URL (or R2_ACCOUNT_ID)"
    if isinstance(error, ResponseParserError):
        return StorageRefused(
            f"{where} gives an answer that is not S3's", remedy=f"{remedy}, and whether a proxy answers instead."
        )
    if isinstance(error, ProxyConnectionError) and (proxy := proxy_for(settings.endpoint, or_all=False)) is not None:
        host = urlsplit(settings.endpoint).hostname or ""
        return StorageUnreachable(f"{where} cannot be reached: {proxy} does not answer", remedy=proxy.remedy(host))
    causes = _causes(error)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return StorageRefused(
            f"{where} shows a certificate that is not trusted",
            remedy=f"{remedy}, and whether a proxy stands between; AWS_CA_BUNDLE names further certificates.",
        )
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        why = "no answer in time"
    else:
        why = next(filter(None, map(_word_of, causes)), "the connection broke off")
    fault = StorageUnreachable(
        f"{where} cannot be reached ({why})", remedy=f"{remedy} and the network, then try again."
    )
    fault.unanswered = not isinstance(error, ConnectTimeoutError | EndpointConnectionError | SSLError)
    return fault


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what led to it, as botocore and urllib3 hand it on."""
    found: list[BaseException] = []
    queue: list[Any] = [error]
    while queue and len(found) < 20:
        cause = queue.pop(0)
        if not isinstance(cause, BaseException) or cause in found:
            continue
        found.append(cause)
        inner = getattr(cause, "kwargs", None)
        queue += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
        queue += inner.values() if isinstance(inner, dict) else ()
    return found


def _word_of(cause: BaseException) -> str | None:
    if type(cause).__name__ in {"gaierror", "NameResolutionError"}:
        return _NO_NAME
    if isinstance(cause, ssl.SSLError):
        return "no encrypted connection can be made"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    return None


_MEANINGS = {
    "AccessDenied": (
        "does not allow it in bucket {bucket}",
        "Check {}, and give the API token of R2_ACCESS_KEY_ID the right to read and write objects there.",
    ),
    "InvalidAccessKeyId": (
        "does not know the access key",
        "Check R2_ACCESS_KEY_ID, and that it belongs to the account of the endpoint.",
    ),
    "NoSuchBucket": (
        "has no bucket named {bucket}",
        "Check {}, and that the bucket belongs to the account of the endpoint.",
    ),
    "PermanentRedirect": (
        "points to another endpoint for bucket {bucket}",
        "Check R2_ENDPOINT_URL: the bucket lies elsewhere.",
    ),
    "RequestTimeTooSkewed": (
        "finds the time of the request too far from its own",
        "Set this machine's clock.",
    ),
    "SignatureDoesNotMatch": (
        "finds the signature wrong",
        "Check R2_SECRET_ACCESS_KEY, and that it belongs to R2_ACCESS_KEY_ID.",
    ),
    "Unauthorized": (
        "does not accept the credentials",
        "Check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY, and that they belong to the account of the endpoint.",
    ),
}
_SAME = {
    "401": "Unauthorized",
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "InvalidBucketName": "NoSuchBucket",
    "301": "PermanentRedirect",
    "307": "PermanentRedirect",
    "AuthorizationHeaderMalformed": "PermanentRedirect",
    "RequestExpired": "RequestTimeTooSkewed",
}
_PASSING = {
    "BadDigest",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
"""Codes that another try may not meet: too much asked at once, or bytes damaged on the way."""
_FULL = {"507", "EntityTooLarge", "InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull"}


def _refusal(response: Any, operation: str, action: str, settings: StorageSettings) -> StorageFault:
    """The fault where S3 answered with an error."""
    said = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = str(said.get("Message", ""))
    code = re.sub(r"[^A-Za-z0-9]", "", str(said.get("Code", "")))[:64] or str(status)
    if code == "404" and operation == "HeadObject":
        code = "NoSuchKey"  # an answer to HEAD has no body that could say so
    code = _SAME.get(code, code)
    if code == "InvalidArgument" and "access key" in text.lower():
        code = "InvalidAccessKeyId"  # R2's answer to a key of the wrong length
    kind, words, remedy = _meaning(code, status, settings)
    if kind is StorageRefused and code not in _MEANINGS and text:
        words = f"{words}: {_scrubbed(text, settings)}"
    return kind(f"the {action} failed: {settings.endpoint} {words}", remedy=remedy, code=code)


def _meaning(code: str, status: int, settings: StorageSettings) -> tuple[type[StorageFault], str, str]:
    """Class, what the endpoint does, and remedy."""
    if code in _MEANINGS:
        words, remedy = _MEANINGS[code]
        return StorageRefused, words.format(bucket=settings.bucket), say(remedy, settings.bucket_by)
    if code in _FULL or status in {413, 507}:
        remedy = say("Free some space there, or change {}.", settings.bucket_by)
        return StorageRefused, f"has no room for it in bucket {settings.bucket} ({code})", remedy
    if code in _PASSING or status in {408, 429} or (status >= 500 and status not in {501, 505}):
        return (
            StorageUnreachable,
            f"answers {status} {code}".removesuffix(f" {status}"),
            "Try again later; the service may be overloaded.",
        )
    if code == "NoSuchKey":
        remedy = "It may have been cleaned up: run the job again."
        return ObjectMissing, f"has no such object in bucket {settings.bucket}", remedy
    remedy = "Check the R2_ variables, and whether the endpoint speaks S3."
    return StorageRefused, f"answers {status} {code}".removesuffix(f" {status}"), remedy


def _scrubbed(text: str, settings: StorageSettings) -> str:
    """A server's sentence in one short line, without keys, and without the queries of addresses."""
    for key in (settings.access_key, settings.secret_key):
        text = text.replace(key, "***")
    text = re.sub(r"\?\S*|X-Amz-\S+", "...", text, flags=re.IGNORECASE)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:200]
