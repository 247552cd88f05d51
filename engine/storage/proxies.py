"""Which proxy the environment names for an address, in words that give nothing of it away but host and port."""

from __future__ import annotations

import base64
import os
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

__all__ = ["Proxy", "proxy_for"]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy that requests go through."""

    variable: str
    """What names it: `HTTPS_PROXY`, or the system's settings."""
    host: str
    """Empty where it is no address."""
    port: int
    scheme: str = "http"
    """The protocol that it speaks; `http` does for https addresses too, through a tunnel."""
    authorization: str | None = field(default=None, repr=False)
    """The header of its user and password, where the variable has them."""

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port} that {self.variable} names" if self.host else "a proxy"

    def remedy(self, host: str) -> str:
        """What to do where it does not work for requests to `host`."""
        return f"Correct or unset {self.variable}, or name {host} in NO_PROXY."


def proxy_for(url: str, *, or_all: bool) -> Proxy | None:
    """The proxy for an address; None where there is none, or NO_PROXY names the host.

    Args:
        url: http or https.
        or_all: whether ALL_PROXY counts where no variable is there for the scheme: for Modal's client it does, for
            botocore it doesn't.
    """
    split, proxies = urlsplit(url), urllib.request.getproxies()
    scheme = split.scheme if proxies.get(split.scheme) or not or_all else "all"
    if not proxies.get(scheme) or urllib.request.proxy_bypass(split.netloc):
        return None
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name)), "this system's settings")
    value = proxies[scheme]
    try:
        named = urlsplit(value if "://" in value else f"http://{value}")
        pair = f"{unquote(named.username or '')}:{unquote(named.password or '')}"
        return Proxy(
            variable=variable,
            host=named.hostname or "",
            port=named.port or _PORTS.get(named.scheme, 1080),
            scheme=named.scheme,
            authorization=f"Basic {base64.b64encode(pair.encode()).decode()}" if named.username is not None else None,
        )
    except ValueError:
        return Proxy(variable=variable, host="", port=0)
