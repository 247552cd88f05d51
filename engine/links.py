"""Small files fetched from a link, and files sent to one, as a container does that has no keys to the storage.

Faults are those of `engine.ranged`, and as quiet as they are about the link.
"""

from __future__ import annotations

import http.client
import io
import random
import ssl
import time
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

from keyscale import __version__
from keyscale.engine.ranged import LinkMissing, LinkRefused, LinkUnreachable

__all__ = ["fetch", "send"]

PATIENCE_S = 60.0
SILENCE_S = 60.0
"""How long one try may wait for the server; it may answer only once everything is stored."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
TRANSIENT = frozenset({408, 425, 429})


class _Passing(Exception):
    """A fault that another try may not meet."""


def fetch(url: str, *, name: str, most: int, patience_s: float = PATIENCE_S) -> bytes:
    """All bytes behind a link; faults that may pass are tried again.

    Args:
        url: an http or https link.
        name: what errors call it.
        most: bytes that are taken at most.
        patience_s: seconds over all tries.

    Raises:
        LinkMissing: there is nothing.
        LinkUnreachable: no try succeeded.
        LinkRefused: the server refuses, or there is more than `most`.
    """
    return _persistently("GET", url, b"", f"{name} cannot be read", most, patience_s)


def send(url: str, content: Path | bytes, *, name: str, patience_s: float = PATIENCE_S) -> None:
    """Store a file or bytes at a link, whole or not at all; faults that may pass are tried again.

    Raises:
        LinkRefused: the server refuses: the link expired or is not valid, or there is no space.
        LinkUnreachable: no try succeeded within `patience_s` seconds.
        OSError: the file cannot be read.
    """
    _persistently("PUT", url, content, f"{name} cannot be stored", 1 << 16, patience_s)


def _persistently(method: str, url: str, content: Path | bytes, what: str, most: int, patience_s: float) -> bytes:
    split = urlsplit(url)
    if split.scheme not in {"http", "https"} or not split.hostname:
        raise LinkRefused(f"{what}: that is no http or https link")
    deadline, pause = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return _try(method, split, content, what, most)
        except _Passing as fault:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LinkUnreachable(
                    f"{what}: {split.hostname} did not do it within {patience_s:g} s ({fault})",
                    remedy="Check the network and the storage, then run or resume the job again.",
                ) from None
        time.sleep(min(left, pause * random.uniform(0.5, 1.0)))  # noqa: S311  # spreads tries
        pause = min(2 * pause, LONGEST_PAUSE_S)


def _try(method: str, split: SplitResult, content: Path | bytes, what: str, most: int) -> bytes:
    """One try; `_Passing` for what another one may not meet."""
    host = str(split.hostname)
    kind = http.client.HTTPSConnection if split.scheme == "https" else http.client.HTTPConnection
    with closing(kind(host, split.port, timeout=SILENCE_S)) as connection, _opened(content) as body:
        headers = {"User-Agent": f"keyscale/{__version__}"}
        if method == "PUT":
            headers["Content-Length"] = str(body.seek(0, io.SEEK_END))
            body.seek(0)
        try:
            target = f"{split.path or '/'}?{split.query}"
            connection.request(method, target, body=body if method == "PUT" else None, headers=headers)
            # Where the server ends the connection, the socket is the answer's own.
            with closing(connection.getresponse()) as response:
                answer = response.read(most + 1)
                whole = response.isclosed() or len(answer) > most
        except ssl.SSLCertVerificationError:
            raise LinkRefused(f"{what}: the certificate of {host} is not trusted") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Texts of these may quote the address.
            raise _Passing(getattr(error, "strerror", None) or type(error).__name__) from None
    status = response.status
    if 200 <= status < 300:
        if method == "GET" and not whole:
            raise _Passing("the answer ended early")
        if len(answer) > most:
            raise LinkRefused(f"{what}: it has more than {most} bytes")
        return answer
    if status in {404, 410} and method == "GET":
        raise LinkMissing(f"{what}: it is not at {host}", remedy="Run the command again: what was staged is gone.")
    if status == 507 or not (status >= 500 or status in TRANSIENT):
        expired = status in {401, 403}
        why = "the link expired or is not valid" if expired else f"status {status}"
        raise LinkRefused(
            f"{what} at {host}: refused, {why}",
            remedy="Run or resume the job again, which makes new links." if expired else "Look into the storage.",
        )
    raise _Passing(f"status {status}")


def _opened(content: Path | bytes) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
