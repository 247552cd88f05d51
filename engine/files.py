"""Files: written whole, named in one step, hashed; folders for caches; an OSError in words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from os import PathLike
from pathlib import Path

import platformdirs

from keyscale.engine.errors import StorageError
from keyscale.engine.system import sync
from keyscale.engine.wording import say

__all__ = [
    "CAMERA_SUFFIXES",
    "REPORT_NAME",
    "VIDEO_SUFFIXES",
    "advice_on",
    "cache_folder",
    "drafted",
    "publish",
    "sha256_file",
    "storage_error",
    "write_private",
]

REPORT_NAME = "report.json"
"""What a batch tells of its clips, in the folder of the results."""

CAMERA_SUFFIXES = (".json", ".jsonl", ".csv", ".cmd")
"""What is taken for keyframes in a folder; a file named by itself may be called anything."""

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in re.findall(r"\w+", "3g2 3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf nut ogv ts vob webm wmv y4m")
)
"""What is taken for a video in a folder and by a pattern; a file named by itself may be called anything."""


def storage_error(error: OSError, path: Path) -> StorageError:
    """What an operating-system error on writing `path` means to people."""
    remedies = {
        errno.ENOSPC: "Free some space, then run the same command: finished chunks are kept.",
        errno.EDQUOT: "Free some of your quota, then run the same command: finished chunks are kept.",
        errno.EACCES: "Check the rights of the folder.",
        errno.EPERM: "Check the rights of the folder.",
        errno.EROFS: say("Choose a folder that can be written, with {output}."),
    }
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return StorageError(f"cannot write {path}: {reason}", remedy=remedies.get(error.errno or 0))


def cache_folder() -> Path:
    """`KEYSCALE_CACHE_DIR`, else the user's cache folder; it may not exist yet."""
    chosen = os.environ.get("KEYSCALE_CACHE_DIR")
    if not chosen:
        return platformdirs.user_cache_path("keyscale")
    try:
        return Path(chosen).expanduser()
    except RuntimeError:  # the home of nobody
        return Path(chosen)


def sha256_file(path: Path, on_progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's content; `on_progress` hears the bytes read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            done += len(block)
            if on_progress is not None:
                on_progress(done)
    return digest.hexdigest()


def publish(finished: Path, output: Path, *, overwrite: bool) -> None:
    """Give the verified file its name, in one step.

    Raises:
        StorageError: it cannot be renamed, or another program has made the output meanwhile.
    """
    try:
        sync(finished)
        if overwrite:
            finished.replace(output)
        else:
            # A link fails where the name is taken; a rename would replace it without asking.
            try:
                os.link(finished, output)
            except FileExistsError as error:
                raise StorageError(
                    f"{output} has appeared during the job", remedy=say("Give {overwrite=True} or another {output}.")
                ) from error
            except OSError:
                finished.replace(output)  # file systems without links
            else:
                finished.unlink()
    except OSError as error:
        raise storage_error(error, output) from error
    # The file is published: a folder that may not be opened, or that cannot be synced, changes nothing of that.
    with contextlib.suppress(OSError):
        sync(output.parent)


@contextmanager
def drafted(path: str, *, overwrite: bool) -> Iterator[Path]:
    """A draft beside `path` that the block fills, and that then gets this name in one step.

    A block that fails leaves nothing.

    Raises:
        StorageError: the name is taken and may not be replaced, is no usable one, or cannot be written.
    """
    output = Path(path)
    draft = output.with_name(f".{output.name[:50]}.{os.getpid()}.tmp")
    made = False
    try:
        if os.path.lexists(output) and not overwrite:
            raise StorageError(
                f"{path} already exists", remedy=say("Give {overwrite=True}, or another name with {output}.")
            )
        if output.is_dir():
            raise StorageError(f"{path} is a directory", remedy=say("Give a file name with {output}."))
        draft.touch()
        made = True
        yield draft
        publish(draft, output, overwrite=overwrite)
    except ValueError as error:
        if made:
            raise
        raise StorageError(f"{path!r} is not a usable name: {error}") from error
    except OSError as error:
        raise storage_error(error, output) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            draft.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by this user alone; its folder is made where it is not there.

    Raises:
        StorageError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with its mode, not given it afterwards: there is no moment at which others can read it.
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)  # of a full disk a part may have been written
        raise storage_error(error, path) from error


def advice_on(path: str | PathLike[str], suffixes: Iterable[str]) -> str:
    """What to do where a file that was named is not there: the name of one that is nearly alike, if there is one.

    Args:
        path: as it was given.
        suffixes: those of files that may be meant, in lower case.
    """
    given = Path(path)
    if re.match(r"(www\.|[\w-]+(\.[\w-]+)*\.(com|org|net|io|tv|dev)/)", str(path), re.IGNORECASE):
        return f"If it is an address, write https://{path}. Otherwise check the path."
    try:
        names = (other.name for other in given.parent.iterdir() if other.suffix.lower() in suffixes)
        others = [name for name in names if name != given.name]  # it may be a link to nowhere
    except (OSError, ValueError):
        return f"There is no folder {given.parent}: check the path." if not given.parent.exists() else "Check the path."
    by_name = {text.lower(): name for name in sorted(others) for text in (Path(name).stem, name)}
    near = get_close_matches(given.name.lower(), by_name, n=1, cutoff=0.75)
    return f"Did you mean {given.with_name(by_name[near[0]])}?" if near else "Check the path."
