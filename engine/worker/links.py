"""Small files fetched from a link, and files sent to one, as a container does that has no keys to the storage.

Faults are those of `engine.worker.link`, and as quiet as they are about the link.
"""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from keyscale.engine.patience import Patience
from keyscale.engine.worker.link import LONGEST_ANSWER, Link, LinkRefused, Passing

__all__ = ["fetch", "send"]

PATIENCE_S = 60.0
SILENCE_S = 60.0
"""How long one try may wait for the server; it may answer only once everything is stored."""


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
    return _persistently(Link(url, name), None, most, patience_s)


def send(url: str, content: Path | bytes, *, name: str, patience_s: float = PATIENCE_S) -> None:
    """Store a file or bytes at a link, whole or not at all; faults that may pass are tried again.

    Raises:
        LinkRefused: the server refuses: the link expired or is not valid, or there is no space.
        LinkUnreachable: no try succeeded within `patience_s` seconds.
        OSError: the file cannot be read.
    """
    _persistently(Link(url, name, reads=False), content, LONGEST_ANSWER, patience_s)


def _persistently(link: Link, content: Path | bytes | None, most: int, patience_s: float) -> bytes:
    patience = Patience(patience_s, silence_counts=True)
    while True:
        try:
            return _try(link, content, most)
        except Passing as fault:
            if not patience.bear():
                raise link.unreachable(fault, patience_s) from None


def _try(link: Link, content: Path | bytes | None, most: int) -> bytes:
    """One try; `Passing` for what another one may not meet."""
    with closing(link.connection(silence_s=SILENCE_S)) as connection, _opened(content) as body:
        headers = link.headers
        if content is not None:
            headers["Content-Length"] = str(body.seek(0, io.SEEK_END))
            body.seek(0)
        with link.quietly():
            if content is None:
                connection.request("GET", link.target, headers=headers)
            else:
                connection.request("PUT", link.target, body=body, headers=headers)
            # Where the server ends the connection, the socket is the answer's own.
            with closing(connection.getresponse()) as response:
                answer = response.read(most + 1)
                whole = response.isclosed() or len(answer) > most
    if not 200 <= response.status < 300:
        raise link.meaning(response.status, answer)
    if content is None and not whole:
        raise Passing("the answer ended early")
    if len(answer) > most:
        raise link.fault(LinkRefused, f"it has more than {most} bytes", "Run the command again.")
    return answer


def _opened(content: Path | bytes | None) -> BinaryIO:
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content or b"")
