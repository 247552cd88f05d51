"""A source that has an address, `https://...`: a copy of it here, from which the job is made as from any file.

A job reads its source several times (all packets, all bytes for its key, frames, sound), and so do `plan` and
`preview` before it. So each byte is fetched once, in ranges, into the cache, where the next command finds it: under a
name made of the address and of what the server says that tells versions apart. What was fetched of a file before an
interruption is not fetched again. Nothing of the address but the file's name is known from there on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import filelock

from keyscale.engine.addresses import is_address, local_name
from keyscale.engine.errors import InputError, Interrupted, StorageError
from keyscale.engine.events import Event, Note, Phase
from keyscale.engine.files import cache_folder, storage_error
from keyscale.engine.job import Job
from keyscale.engine.runners.progress import in_background
from keyscale.engine.storage.proxies import proxy_for
from keyscale.engine.system import sync
from keyscale.engine.worker.links import (
    UNQUOTED,
    LinkBarred,
    LinkChanged,
    LinkError,
    LinkMissing,
    LinkRefused,
    LinkUnreachable,
    LinkUnsuitable,
    Via,
)
from keyscale.engine.worker.ranged_file import PATIENCE_S, RangedFile
from keyscale.engine.worker.redirects import located
from keyscale.engine.workspace.locks import held, lock_of

__all__ = ["FOLDER", "KEPT_DAYS", "fetched", "with_local_source"]

FOLDER = "sources"
"""Of the cache folder."""

KEPT_DAYS = 7
"""How long a copy is kept after it was last used."""

FIRST_PATIENCE_S = 10.0
"""How long faults are tolerated before the server has answered at all: its name may be mistyped."""

PIECE = 1 << 20
"""Bytes read at once."""

NOBODY_S = 1.0
"""The same where no host has the name, or nothing listens at its port."""

POLL_S = 0.25

SPARE = 64 << 20
"""Bytes that stay free beside the copy."""

PAGES = frozenset({"text/html", "application/xhtml+xml"})

DOWNLOAD = "Download it first, and name the file."


def fetched(job: Job, should_stop: Callable[[], bool] = lambda: False) -> Job:
    """`with_local_source`, for those who want no events."""
    steps = with_local_source(job, should_stop)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Job = end.value
            return found


def with_local_source(job: Job, should_stop: Callable[[], bool]) -> Generator[Event, None, Job]:
    """The job itself where its source is a file; else with a copy of its source, fetched where it is not here yet.

    Raises:
        InputError: the address leads to no video, the server refuses, gives no parts of files, or is not reached.
        StorageError: there is no room in the cache, or it cannot be written.
        Interrupted: `should_stop` said so; what was fetched is kept.
    """
    if not is_address(job.source):
        return job
    fetching = _Fetching(job.source)
    try:
        path, size = yield from in_background(Phase.DOWNLOAD, fetching.fetch, should_stop, unit="bytes")
    finally:
        fetching.end()
    yield Note(level="info", message=f"source: {path.name}, {size / 1e6:.1f} MB, here as {path}")
    return replace(job, source=str(path))


class _Fetching:
    """One fetching of a file, in a thread that `end` ends."""

    def __init__(self, address: str) -> None:
        """Nothing is asked yet.

        Raises:
            InputError: it is no address.
        """
        self._name = local_name(address).name
        self._url, self._authorization = _request(address, self._name)
        self._ended = threading.Event()
        self._file: RangedFile | None = None
        self._have = 0

    def end(self) -> None:
        """Wait for the server no longer."""
        self._ended.set()
        file = self._file
        if file is not None:
            file.close()

    def fetch(self, report: Callable[[int, int], None]) -> tuple[Path, int]:
        """The copy, and its size in bytes; `report` is told how many bytes there are of how many."""
        host = str(urlsplit(self._url).hostname)
        with _in_words(self._name, host, lambda: self._have):
            with self._opened(FIRST_PATIENCE_S, NOBODY_S) as file:
                size, version = file.size, file.version
            if not size:
                raise InputError(f"{self._name} on {host} is empty (0 bytes)", remedy="Check the address.")
            folder = _folder(self._url, size, version)
            copy = folder / self._name
            try:
                with self._alone(folder, lambda: report(0, size)):
                    if not (copy.is_file() and copy.stat().st_size == size):
                        part = folder / f".{self._name}.part"
                        self._download(part, size, version, report)
                        part.replace(copy)
            except OSError as error:
                raise storage_error(error, copy) from error
        report(size, size)
        return copy, size

    @contextmanager
    def _opened(self, patience_s: float = PATIENCE_S, nobody_s: float | None = None) -> Iterator[RangedFile]:
        place = located(
            self._url,
            name=self._name,
            authorization=self._authorization,
            patience_s=patience_s,
            nobody_s=nobody_s,
            route=_route,
            rest=self._rest,
        )
        if place.media_type in PAGES:
            raise InputError(
                f"{self._name} on {urlsplit(place.url).hostname} is a web page, not a video",
                remedy="Give the address of the video file itself, or download it first.",
            )
        with closing(
            RangedFile(
                place.url,
                name=self._name,
                authorization=place.authorization,
                via=_route(place.url),
                rest=self._rest,
            )
        ) as self._file:
            yield self._file

    @contextmanager
    def _alone(self, folder: Path, waits: Callable[[], None]) -> Iterator[None]:
        """Within the block no other process writes to the folder."""
        while True:
            try:
                lock = lock_of(_lock(folder))
                break
            except filelock.Timeout:
                waits()
                self._rest(POLL_S)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)  # the last process to hold the lock may have removed it
            yield
        finally:
            lock.release()

    def _rest(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            raise Interrupted("interrupted")

    def _download(self, part: Path, size: int, version: str | None, report: Callable[[int, int], None]) -> None:
        """Fetch what `part` lacks of the file that has this size and version."""
        with part.open("ab") as out:
            have = self._have = out.tell()
            free = shutil.disk_usage(part.parent).free
            if free < size - have + SPARE:
                missing = f"{(size - have) / 2**20:.0f} MiB"
                raise StorageError(
                    f"{part.parent} has {free / 2**20:.0f} MiB free, of the source {missing} are to be fetched",
                    remedy="Free some space, or name another folder in KEYSCALE_CACHE_DIR.",
                )
            while have < size:
                before = have
                with self._opened() as file:
                    if (file.size, file.version) != (size, version):
                        raise LinkChanged("it is another file by now")
                    file.seek(have)
                    try:
                        while have < size:
                            have += out.write(file.read(PIECE))
                            self._have = have
                            report(have, size)
                    except LinkRefused:
                        # Where a redirect leads may be good for minutes only.
                        if have == before:
                            raise
            sync(part)


def _route(url: str) -> Via | None:
    """The proxy that the environment or the system names for an address.

    Raises:
        InputError: it is of another kind than HTTP proxies.
    """
    proxy = proxy_for(url, or_all=True)
    if proxy is None:
        return None
    host = str(urlsplit(url).hostname)
    if proxy.scheme != "http" or not proxy.host:
        raise InputError(
            f"cannot reach {host}: {proxy} is not written as http://HOST:PORT, and videos are read by no other kind",
            remedy=proxy.remedy(host),
        )
    return Via(
        host=proxy.host,
        port=proxy.port,
        said=str(proxy),
        remedy=proxy.remedy(host),
        authorization=proxy.authorization,
    )


def _request(address: str, name: str) -> tuple[str, str | None]:
    """The link without user and password, in ASCII, and the header that has them.

    Raises:
        InputError: it is none.
    """
    try:
        split = urlsplit(address)
        host = split.hostname or ""
        port = "" if split.port is None else f":{split.port}"
        host = f"[{host}]" if ":" in host else host.encode("idna").decode()
        if not host:
            raise ValueError
    except ValueError:  # that an encoding raises too
        raise InputError(
            f"the address of {name} is no link", remedy="Write https://HOST/PATH; @, / and ? in a password as %40, ..."
        ) from None
    authorization = None
    if split.username is not None:
        pair = f"{unquote(split.username)}:{unquote(split.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    path, query = (quote(part, safe=UNQUOTED) for part in (split.path, split.query))
    return urlunsplit((split.scheme.lower(), host + port, path or "/", query, "")), authorization


def _folder(url: str, size: int, version: str | None) -> Path:
    """Where the copy of this version of a file lies; made, and older copies that nobody used for long removed.

    Signatures in queries change from one link to the next. Where a server tells no versions apart, no copy is used
    twice.
    """
    parent = cache_folder() / FOLDER
    split = urlsplit(url)
    known = repr((split.scheme, split.netloc, split.path, size, version or secrets.token_hex(16)))
    folder = parent / hashlib.sha256(known.encode()).hexdigest()[:32]
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        os.utime(folder)
        for other in parent.iterdir():
            if re.fullmatch("[0-9a-f]{32}", other.name) and time.time() - other.stat().st_mtime > KEPT_DAYS * 86400:
                with contextlib.suppress(filelock.Timeout, OSError), held(_lock(other)):
                    shutil.rmtree(other, ignore_errors=True)
                    _lock(other).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _in_words(name: str, host: str, have: Callable[[], int]) -> Iterator[None]:
    """Faults of links as those of a source: what is wrong with a server is no matter of storage here.

    `have` tells how many bytes of the file are here.
    """
    where = f"{name} on {host}"
    try:
        yield
    except LinkMissing as error:
        raise InputError(f"there is no {where} (status {error.status})", remedy="Check the address.") from None
    except LinkUnsuitable:
        raise InputError(
            f"{where} cannot be read in parts: the server gives whole files only", remedy=DOWNLOAD
        ) from None
    except LinkChanged:
        raise InputError(
            f"{where} changed while it was fetched", remedy="Run the command again once the file is complete."
        ) from None
    except LinkBarred as error:
        why = error.message.partition(": ")[2]
        raise InputError(f"cannot read {where}: {why}", remedy=error.remedy) from None
    except LinkRefused as error:
        if error.status in {401, 403}:
            remedy = (
                "Give an address that is still valid: signed ones expire. Where the server asks for a user, write "
                "USER:PASSWORD@ before the host."
            )
            raise InputError(f"the server refuses to give {where} (status {error.status})", remedy=remedy) from None
        why = error.message.partition(": ")[2]
        raise InputError(f"cannot read {where}: {why}", remedy=f"Check the address. {DOWNLOAD}") from None
    except LinkUnreachable as error:
        why = error.message.partition(": ")[2]
        raise InputError(
            f"cannot reach {host} for {name}: {why}",
            remedy="Check the address and the network, and run the command again"
            + (": it goes on where it stopped." if have() else "."),
        ) from None
    except LinkError as error:
        raise InputError(f"cannot read {where}: {error.message}", remedy=DOWNLOAD) from None
