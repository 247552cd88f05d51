"""Fetching one published weights file over HTTP: resumable, checked, safe between processes.

Bytes go to `<name>.part` beside the final name; only a file with the right SHA-256 is renamed to it.
"""

from __future__ import annotations

import errno
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Literal, NoReturn

import filelock

from keyscale import __version__
from keyscale.engine.errors import ModelError
from keyscale.engine.files import sha256_file
from keyscale.engine.models.registry import WeightsFile
from keyscale.engine.wording import say

__all__ = ["download", "sha256_of", "url_of"]

URL_VARIABLE = "KEYSCALE_WEIGHTS_URL"
"""Environment: base address of a mirror; a file is fetched from `BASE/FILENAME`."""

TIMEOUT_S = 30.0
"""Longest silence of the server, in seconds."""
PAUSES_S = (1.0, 4.0)
"""Seconds to wait before the second and the third try."""
LOCK_TIMEOUT_S = 1800.0
"""Longest wait, in seconds, for another process that downloads the same file."""
BLOCK = 1 << 18
"""Bytes read at once."""

Notify = Callable[[str], None]
OnProgress = Callable[[int, int | None], None]


class _TransientError(Exception):
    """A fault that another try may not meet."""


def sha256_of(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of a file.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return sha256_file(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def url_of(file: WeightsFile) -> str | None:
    """Where the file is fetched from: the mirror if one is set, else its own address.

    Raises:
        ModelError: the address is not an http or https one.
    """
    base = os.environ.get(URL_VARIABLE)
    url = f"{base.rstrip('/')}/{file.filename}" if base and file.url else file.url
    if url is not None and urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ModelError(f"{URL_VARIABLE} is {base}, which is not an http or https address")
    return url


def download(
    file: WeightsFile,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
    on_note: Notify | None = None,
    pauses: Sequence[float] | None = None,
) -> Path:
    """Fetch a file into a folder and return its path.

    Takes up where an earlier download broke off. Of several processes one downloads, the others wait.

    Args:
        file: what to fetch; has a `url`.
        folder: made if absent.
        on_progress: called with bytes so far and bytes in all (None if unknown).
        on_note: called with a sentence for people.
        pauses: seconds before each further try; `PAUSES_S` by default.

    Raises:
        ModelError: not reachable, not there, no room or rights on disk, or a wrong checksum.
    """
    url = url_of(file)
    if url is None:
        raise ModelError(f"{file.filename} is not published for download")
    note = on_note or (lambda _: None)
    path = folder / file.filename
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{file.filename}.lock")
        _acquire(lock, file, note)
    except OSError as error:
        _disk_fault(folder, error)
    try:
        # The process that held the lock before may have just finished the very same file.
        if path.is_file() and sha256_of(path) == file.sha256:
            return path
        _try_repeatedly(url, file, path, on_progress, note, PAUSES_S if pauses is None else pauses)
    finally:
        lock.release()
    return path


def _acquire(lock: filelock.BaseFileLock, file: WeightsFile, note: Notify) -> None:
    try:
        lock.acquire(timeout=0.5)
    except filelock.Timeout:
        note(f"waiting for another process that downloads {file.filename}")
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except filelock.Timeout as error:
            raise ModelError(
                f"another process has been downloading {file.filename} for {LOCK_TIMEOUT_S / 60:.0f} minutes",
                remedy="End that process, or try again later.",
            ) from error


def _try_repeatedly(
    url: str,
    file: WeightsFile,
    path: Path,
    on_progress: OnProgress | None,
    note: Notify,
    pauses: Sequence[float],
) -> None:
    part = path.with_name(path.name + ".part")
    tries = len(pauses) + 1
    note(f"downloading {file.filename} ({file.size / 1e6:.1f} MB) from {_shown(url)}")
    for attempt in range(1, tries + 1):
        try:
            resumed = _fetch(url, file, part, on_progress)
            found = sha256_of(part)
            if found == file.sha256:
                _publish(part, path)
                return
            _delete(part)
            message = f"what {_shown(url)} gave has the SHA-256 {found}, not {file.sha256}"
            if not resumed:
                raise ModelError(
                    f"{message}; it was deleted",
                    remedy=f"A proxy or mirror may have altered it: try another network, or another {URL_VARIABLE}.",
                )
            fault = f"{message} (the part kept from an earlier download was wrong)"
        except _TransientError as error:
            fault = str(error)
        if attempt < tries:
            note(f"{fault}; trying again ({attempt + 1} of {tries})")
            time.sleep(pauses[attempt - 1])
    raise ModelError(
        f"{file.filename} could not be downloaded from {_shown(url)}: {fault}",
        remedy=say(
            "Check the network and run the command again (it takes up where it stopped), or put the file into a folder "
            "and name that in KEYSCALE_WEIGHTS_DIR, or use {mode=fast}, which needs no download."
        ),
    )


def _fetch(url: str, file: WeightsFile, part: Path, on_progress: OnProgress | None) -> bool:
    """Bring `part` to its full length; whether some of it was there before."""
    have = _size(part)
    if have > file.size:
        _delete(part)
        have = 0
    if have == file.size:
        return True
    headers = {"User-Agent": f"keyscale/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - url_of lets http and https through alone
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            have = _start(response, have, part)
            _check_length(url, response, file, have)
            _receive(response, file, part, have, on_progress)
            return have > 0
    except urllib.error.HTTPError as error:
        with error:
            _http_fault(url, file, error, part)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _TransientError(f"{_shown(url)} is not reachable: {reason}") from error


def _start(response: http.client.HTTPResponse, have: int, part: Path) -> int:
    """The byte at which the answer begins; a server without ranges sends the whole file."""
    if response.status != 206:
        return 0
    said = response.headers.get("Content-Range") or ""
    if not said.startswith(f"bytes {have}-"):
        _delete(part)
        raise _TransientError(f"the server was asked to go on at byte {have} and answers {said!r}")
    return have


def _check_length(url: str, response: http.client.HTTPResponse, file: WeightsFile, have: int) -> None:
    """Notice an error page or another version before it is written over what already exists."""
    if response.length is not None and have + response.length != file.size:
        raise ModelError(
            f"{_shown(url)} gives {have + response.length} bytes, but {file.filename} has {file.size}",
            remedy="A login page, proxy or mirror may have answered instead of the server: check the network and "
            f"{URL_VARIABLE}.",
        )


def _receive(
    response: http.client.HTTPResponse,
    file: WeightsFile,
    part: Path,
    have: int,
    on_progress: OnProgress | None,
) -> None:
    with _open(part, "ab" if have else "wb") as stream:
        while block := response.read(BLOCK):
            _write(stream, block, part)
            have += len(block)
            if have > file.size:
                break  # not this file; the checksum says so
            if on_progress:
                on_progress(have, file.size)
    if have < file.size:
        raise _TransientError(f"the connection ended after {have} of {file.size} bytes")


def _write(stream: FileIO, block: bytes, part: Path) -> None:
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
    except OSError as error:
        _disk_fault(part, error)


def _http_fault(url: str, file: WeightsFile, error: urllib.error.HTTPError, part: Path) -> NoReturn:
    said = f"{_shown(url)} answers {error.code} {error.reason}"
    if error.code == 416:
        _delete(part)
    if error.code in {408, 416, 425, 429} or error.code >= 500:
        raise _TransientError(said) from error
    raise ModelError(
        f"{file.filename} could not be downloaded: {said}",
        remedy=say(
            "Check {}, or put the file into a folder and name that in KEYSCALE_WEIGHTS_DIR, or use {mode=fast}, which "
            "needs no download.",
            URL_VARIABLE,
        ),
    ) from error


def _disk_fault(path: Path, error: OSError) -> NoReturn:
    remedy = (
        "Free some space, or name another folder in KEYSCALE_CACHE_DIR."
        if error.errno in {errno.ENOSPC, errno.EDQUOT}
        else "Check its rights, or name another folder in KEYSCALE_CACHE_DIR."
    )
    raise ModelError(f"{path} cannot be written: {error.strerror or error}", remedy=remedy) from error


def _open(part: Path, mode: Literal["ab", "wb"]) -> FileIO:
    try:
        # Unbuffered, so that a full disk shows at the write and not when the file is closed.
        return part.open(mode, buffering=0)
    except OSError as error:
        _disk_fault(part, error)


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _delete(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError as error:
        _disk_fault(part, error)


def _publish(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except OSError as error:
        _disk_fault(path, error)


def _shown(url: str) -> str:
    """The address without what may be secret in it: user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
