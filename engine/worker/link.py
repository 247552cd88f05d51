"""Where a link leads, and what can go wrong there.

A link may be a secret (it carries its own signature), so that no message, `repr` or traceback here shows more of it
than its host.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from keyscale import __version__
from keyscale.engine.errors import RemoteError

__all__ = [
    "LONGEST_ANSWER",
    "Link",
    "LinkChanged",
    "LinkError",
    "LinkExpired",
    "LinkMissing",
    "LinkRefused",
    "LinkUnreachable",
    "LinkUnsuitable",
    "Passing",
]

CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
"""S3's name for a fault, in the body of its answer."""
LONGEST_ANSWER = 1 << 16
"""Bytes of an answer without content that are read at most."""

TRANSIENT = frozenset({408, 425, 429})
"""Answers below 500 that another try may not get."""
NO_SPACE = 507
"""The one from 500 up that it would get too."""

ADDRESS = "Check the storage's address."


class LinkError(RemoteError):
    """A file behind a link cannot be read, or stored there."""

    transient = False
    """True where the same link may work later."""


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


class Passing(Exception):
    """A fault that another try may not meet."""


class Link:
    """An http or https link, all of it but the host kept secret."""

    def __init__(self, url: str, name: str, *, reads: bool = True) -> None:
        """Nothing is sent.

        Args:
            url: the link.
            name: what errors call the file.
            reads: the file is read from there; False where it is stored.

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
        self.target = f"{split.path or '/'}?{split.query}" if split.query else split.path or "/"
        """Path and query, for the request line."""

    def __repr__(self) -> str:
        return f"<Link to {self.host}>"

    @property
    def headers(self) -> dict[str, str]:
        """What every request says."""
        return {"User-Agent": f"keyscale/{__version__}"}

    def connection(self, *, silence_s: float) -> http.client.HTTPConnection:
        """A connection to the host, which is made with the first request; `silence_s` is waited for its next bytes."""
        kind = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
        return kind(self.host, self._port, timeout=silence_s)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """What a connection raises, as `Passing`, or as `LinkRefused` where it would raise it again."""
        try:
            yield
        except ssl.SSLCertVerificationError:
            raise self.fault(LinkRefused, "its certificate is not trusted", ADDRESS) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Their texts may quote a header or the address; the kind and the system's own words do not.
            raise Passing(getattr(error, "strerror", None) or type(error).__name__) from None

    def meaning(self, status: int, body: bytes) -> LinkError | Passing:
        """What an answer means that is not the wanted one, to be raised: whether another try may get that or not."""
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
