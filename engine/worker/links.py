"""Where a link leads and what can go wrong there; small files fetched from one, files sent to one and taken back.

A container has no keys to the storage, only links. A link may be a secret (it carries its own signature), so that no
message, `repr` or traceback here shows more of it than its host.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from keyscale import __version__
from keyscale.engine.errors import RemoteError
from keyscale.engine.patience import Patience

__all__ = [
    "LONGEST_ANSWER",
    "Link",
    "LinkBarred",
    "LinkChanged",
    "LinkError",
    "LinkExpired",
    "LinkMissing",
    "LinkRefused",
    "LinkUnreachable",
    "LinkUnsuitable",
    "Passing",
    "Via",
    "fetch",
    "is_gone",
    "send",
    "take_back",
]

CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
"""S3's name for a fault, in the body of its answer."""
LONGEST_ANSWER = 1 << 16
"""Bytes of an answer without content that are read at most."""

TRANSIENT = frozenset({408, 425, 429})
"""Answers below 500 that another try may not get."""
TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")
"""`http.client`'s words where a proxy gives no tunnel to the server."""
PROXY_ASKS = 407
"""A proxy wants a user and a password."""
NO_SPACE = 507
"""The one from 500 up that it would get too."""

UNQUOTED = "".join(map(chr, range(0x21, 0x7F)))
"""What a request line may hold as it is."""

ADDRESS = "Check the storage's address."

PATIENCE_S = 60.0
ASIDE_S = 10.0
"""The same where what is asked is not part of the work."""
SILENCE_S = 60.0
"""How long one try may wait for the server; it may answer only once everything is stored."""


class LinkError(RemoteError):
    """A file behind a link cannot be read, or stored there."""

    transient = False
    """True where the same link may work later."""

    status: int | None = None
    """The server's answer, where that is what is wrong."""


class LinkRefused(LinkError):
    """The server answers, and refuses: no rights, a link that is not valid, or a certificate that is not trusted."""


class LinkExpired(LinkRefused):
    """It refuses as it does once a link's time is over: a new link may do."""


class LinkMissing(LinkError):
    """Nothing is stored there."""


class LinkChanged(LinkError):
    """What is stored is no longer what it was at the first read, or not what was announced."""


class LinkUnsuitable(LinkError):
    """The server does not give parts of files."""


class LinkUnreachable(LinkError):
    """The server was not reached, or gave nothing, for as long as patience lasts."""

    transient = True


class LinkBarred(LinkRefused):
    """It is the proxy that refuses."""


class Passing(Exception):
    """A fault that another try may not meet."""

    def __init__(self, why: str, *, nobody: bool = False) -> None:
        """`nobody`: no host has this name, or nothing listens at its port."""
        super().__init__(why)
        self.nobody = nobody


@dataclass(frozen=True, kw_only=True)
class Via:
    """An HTTP proxy that requests go through."""

    host: str
    port: int
    said: str
    """What messages call it."""
    remedy: str
    """What to do where it refuses."""
    authorization: str | None = field(default=None, repr=False)
    """What requests say in the header `Proxy-Authorization`."""


class Link:
    """An http or https link, all of it but the host kept secret."""

    def __init__(
        self, url: str, name: str, *, reads: bool = True, authorization: str | None = None, via: Via | None = None
    ) -> None:
        """Nothing is sent.

        Args:
            url: the link.
            name: what errors call the file.
            reads: the file is read from there; False where it is stored.
            authorization: what every request says in its header of that name.
            via: a proxy.

        Raises:
            LinkRefused: `url` is no http or https link.
        """
        self.host = "an unknown host"
        self._reads = reads
        self._what = f"{name} cannot be {'read from' if reads else 'stored at'}"
        try:
            split = urlsplit(url)
            host, self._port = split.hostname, split.port
        except ValueError:
            host = None
        # Control characters and spaces would end the request line early; http.client quotes the link in saying so.
        if not host or split.scheme not in {"http", "https"} or split.username or not re.fullmatch("[!-~]+", url):
            raise self.fault(LinkRefused, "that is no http or https link", ADDRESS)
        self.host = host
        self._is_https = split.scheme == "https"
        self._authorization = authorization
        self._via = via
        self.target = f"{split.path or '/'}?{split.query}" if split.query else split.path or "/"
        """What the request line names: path and query, and all of it to a proxy that reads the request."""
        if via is not None and not self._is_https:
            self.target = f"http://{split.netloc.rpartition('@')[2]}{self.target}"

    def __repr__(self) -> str:
        return f"<Link to {self.host}>"

    @property
    def headers(self) -> dict[str, str]:
        """What every request says."""
        said = {"User-Agent": f"keyscale/{__version__}"}
        if self._authorization is not None:
            said["Authorization"] = self._authorization
        # Through a tunnel it would reach the server.
        return said if self._is_https else said | self._to_proxy()

    def _to_proxy(self) -> dict[str, str]:
        named = self._via.authorization if self._via is not None else None
        return {} if named is None else {"Proxy-Authorization": named}

    def connection(self, *, silence_s: float) -> http.client.HTTPConnection:
        """A connection to the host, which is made with the first request; `silence_s` is waited for its next bytes."""
        kind = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
        if self._via is None:
            return kind(self.host, self._port, timeout=silence_s)
        connection = kind(self._via.host, self._via.port, timeout=silence_s)
        if self._is_https:
            connection.set_tunnel(self.host, self._port, headers=self._to_proxy())
        return connection

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """What a connection raises, as `Passing`, or as `LinkRefused` where it would raise it again."""
        try:
            yield
        except ssl.SSLCertVerificationError:
            raise self.fault(LinkRefused, "its certificate is not trusted", ADDRESS) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if found := TUNNEL.match(str(error)):
                raise self._barred(int(found[1])) from None
            # Their texts may quote a header or the address; the kind and the system's own words do not.
            why = getattr(error, "strerror", None) or type(error).__name__
            no_name = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            nobody = no_name or isinstance(error, ConnectionRefusedError)
            raise Passing(why if self._via is None else f"{self._via.said}: {why}", nobody=nobody) from None

    def _barred(self, status: int) -> LinkError | Passing:
        """What it means that a proxy answers with `status` instead of the server."""
        assert self._via is not None
        why = f"{self._via.said} answers with status {status}"
        return Passing(why) if status >= 500 else self.fault(LinkBarred, why, self._via.remedy)

    def meaning(self, status: int, body: bytes) -> LinkError | Passing:
        """What an answer means that is not the wanted one, to be raised: whether another try may get that or not."""
        asked_by_proxy = status == PROXY_ASKS and self._via is not None
        found = self._barred(status) if asked_by_proxy else self._meaning(status, body)
        if isinstance(found, LinkError):
            found.status = status
        return found

    def _meaning(self, status: int, body: bytes) -> LinkError | Passing:
        if status in TRANSIENT or (status >= 500 and status != NO_SPACE):
            return Passing(f"status {status}")
        if status in {404, 410} and self._reads:
            return self.fault(LinkMissing, "it is not there", "Run the command again: what was staged is gone.")
        named = CODE.search(body)
        code = named[1].decode() if named else ""
        if b"expired" in body.lower() or (status in {401, 403} and not code):
            remedy = "Run or resume the job again for new links."
            return self.fault(LinkExpired, "refused: the link expired or is not valid", remedy)
        if status in {401, 403}:
            is_lack = code in {"AccessDenied", "AllAccessDisabled"}
            why = "has no rights for that" if is_lack else "is not accepted"
            remedy = (
                "Give it rights to read and write in the bucket." if is_lack else "Check it and R2_SECRET_ACCESS_KEY."
            )
            return self.fault(LinkRefused, f"the key in R2_ACCESS_KEY_ID {why} ({code})", remedy)
        if 300 <= status < 400:
            return self.fault(LinkRefused, f"it leads elsewhere (status {status}), which is not followed", ADDRESS)
        return self.fault(LinkRefused, f"refused with status {status}", "Check the storage's address and its logs.")

    def fault(self, kind: type[LinkError], why: str, remedy: str) -> LinkError:
        """An error of that kind, for the file and the host."""
        return kind(f"{self._what} {self.host}: {why}", remedy=remedy)

    def unreachable(self, fault: Passing, seconds: float) -> LinkError:
        """The error where no try succeeded for so long, the last of them for this fault."""
        remedy = "Check the network and the storage, then run or resume the job again."
        return self.fault(LinkUnreachable, f"no try succeeded for {seconds:g} s ({fault})", remedy)


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
    return _persistently(Link(url, name), "GET", None, most, patience_s)


def is_gone(url: str, *, name: str) -> bool:
    """Whether the server says that nothing is stored behind a link; one byte is asked for. False where it cannot."""
    try:
        _persistently(Link(url, name), "GET", None, LONGEST_ANSWER, ASIDE_S, Range="bytes=0-0")
    except LinkMissing:
        return True
    except LinkError:
        return False
    return False


def take_back(url: str, *, name: str) -> None:
    """Remove what is stored behind a link that allows that, if it can be."""
    with suppress(LinkError):
        _persistently(Link(url, name, reads=False), "DELETE", None, LONGEST_ANSWER, ASIDE_S)


def send(url: str, content: Path | bytes, *, name: str, patience_s: float = PATIENCE_S) -> None:
    """Store a file or bytes at a link, whole or not at all; faults that may pass are tried again.

    Raises:
        LinkRefused: the server refuses: the link expired or is not valid, or there is no space.
        LinkUnreachable: no try succeeded within `patience_s` seconds.
        OSError: the file cannot be read.
    """
    _persistently(Link(url, name, reads=False), "PUT", content, LONGEST_ANSWER, patience_s)


def _persistently(
    link: Link, method: str, content: Path | bytes | None, most: int, patience_s: float, **headers: str
) -> bytes:
    patience = Patience(patience_s, silence_counts=True)
    while True:
        try:
            return _try(link, method, content, most, headers)
        except Passing as fault:
            if not patience.bear():
                raise link.unreachable(fault, patience_s) from None


def _try(link: Link, method: str, content: Path | bytes | None, most: int, more: dict[str, str]) -> bytes:
    """One try; `Passing` for what another one may not meet."""
    with closing(link.connection(silence_s=SILENCE_S)) as connection, _opened(content) as body:
        headers = link.headers | more
        if content is not None:
            headers["Content-Length"] = str(body.seek(0, io.SEEK_END))
            body.seek(0)
        with link.quietly():
            connection.request(method, link.target, body=None if content is None else body, headers=headers)
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
