"""Addresses, `scheme://...`, where names of files stand as well; shown without what may be secret in them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["is_address", "is_link", "local_name", "redacted", "shown"]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LINK = re.compile(r"https?://", re.IGNORECASE)
_WITHIN = re.compile(r"""\b(?!r2:)[A-Za-z][A-Za-z0-9+.-]+:/{1,2}[^\s'"<>]+""")

LONGEST_NAME = 120
"""Characters of a file's name that are taken from an address: what is added to it has room too."""

NO_NAME = "video"
"""What a file is called whose address has no name."""


def is_address(text: str) -> bool:
    """Whether it is written as an address, `r2://...`, and not as a file's name."""
    return _ADDRESS.match(text) is not None


def is_link(text: str) -> bool:
    """Whether it is an address of the kinds of which videos are read, `https://` and `http://`."""
    return _LINK.match(text) is not None


def shown(address: str) -> str:
    """An address for people, without user, password, query and fragment."""
    scheme, _, rest = address.partition("://")
    try:
        split = urlsplit(address)
        host = split.netloc.rpartition("@")[2]
    except ValueError:
        host, split = "", None
    # A password with an unescaped slash or question mark leaves the rest of itself where path or query begin.
    if split is None or "@" in rest.replace(split.netloc, "", 1):
        return f"{scheme}://..."
    return f"{scheme}://{host}{split.path}"


def redacted(text: str) -> str:
    """A text in which each address that has a user, a query or a fragment is as `shown`.

    Of storage a key may have any character, and an address no secret. One slash is what becomes of two in a path.
    """
    return _WITHIN.sub(lambda found: shown(_two_slashes(found[0])) if re.search("[@?#]", found[0]) else found[0], text)


def _two_slashes(address: str) -> str:
    return re.sub(":/(?!/)", "://", address, count=1)


def local_name(video: str) -> Path:
    """The video's path; of an address the name of its file, in the current folder."""
    if not is_address(video):
        return Path(video)
    try:
        last = urlsplit(video).path.rpartition("/")[2]
    except ValueError:
        last = ""
    # What no system takes for a name, or a shell for a flag; a name that begins with a dot would be hidden.
    name = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", unquote(last)).lstrip(".-").rstrip(". ")
    path = Path(name or NO_NAME)
    return path if len(name) <= LONGEST_NAME else Path(path.stem[: LONGEST_NAME - 10] + path.suffix[:10])
