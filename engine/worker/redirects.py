"""Where redirects from a link lead."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from keyscale.engine.patience import Patience
from keyscale.engine.worker.links import (
    ADDRESS,
    LONGEST_ANSWER,
    PATIENCE_S,
    SILENCE_S,
    UNQUOTED,
    Link,
    LinkRefused,
    Passing,
    Via,
)

__all__ = ["Located", "located"]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 10
EMPTY = 416
"""Of a file without a byte: no part can be given."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where redirects from a link have led."""

    url: str
    authorization: str | None
    media_type: str
    """As the server tells it, such as `video/mp4`; empty where it does not."""


def located(
    url: str,
    *,
    name: str,
    authorization: str | None = None,
    patience_s: float = PATIENCE_S,
    nobody_s: float | None = None,
    route: Callable[[str], Via | None] = lambda _: None,
    rest: Callable[[float], object] = time.sleep,
) -> Located:
    """Follow a link's redirects, which `Link` does not; faults that may pass are tried again.

    `authorization` goes to no other server than the one of `url`. A redirect from https to http is not followed.
    `nobody_s`, if given, replaces `patience_s` where no host has the name or nothing listens at the port. `route` gives
    the proxy for a link. `rest` sleeps for the given seconds between two tries, or raises.

    Raises:
        LinkError: as `fetch`.
    """
    patience = Patience(patience_s, silence_counts=True, rest=rest)
    short_s = patience_s if nobody_s is None else min(patience_s, nobody_s)
    short = Patience(short_s, silence_counts=True, rest=rest)
    followed = 0
    while True:
        link = Link(url, name, authorization=authorization, via=route(url))
        try:
            silence_s = max(0.1, min(SILENCE_S, patience_s))
            with closing(link.connection(silence_s=silence_s)) as connection, link.quietly():
                connection.request("GET", link.target, headers=link.headers | {"Range": "bytes=0-0"})
                with closing(connection.getresponse()) as response:
                    status, headers = response.status, response.headers
                    # A server that knows no ranges would send all of the file.
                    body = response.read(LONGEST_ANSWER) if status >= 300 else b""
            found = headers.get("Location") if status in REDIRECTS else None
            if found is None:
                if status >= 300 and status != EMPTY:
                    raise link.meaning(status, body)
                media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
                return Located(url=url, authorization=authorization, media_type=media_type)
        except Passing as fault:
            if not (short if fault.nobody else patience).bear():
                raise link.unreachable(fault, short_s if fault.nobody else patience_s) from None
            continue
        followed += 1
        try:
            # Headers come as Latin-1, whatever their bytes are.
            place = quote(found.encode("latin-1", "replace"), safe=UNQUOTED)
            before, target = urlsplit(url), urlsplit(urljoin(url, place))
        except ValueError:
            raise link.fault(LinkRefused, "it leads to what is no link", ADDRESS) from None
        if followed > MOST_REDIRECTS or (before.scheme, target.scheme) == ("https", "http"):
            why = "without encryption" if followed <= MOST_REDIRECTS else "round in circles"
            raise link.fault(LinkRefused, f"it leads on {why}, which is not followed", ADDRESS)
        if (before.scheme, before.netloc) != (target.scheme, target.netloc):
            authorization = None
        url = urlunsplit(target)
