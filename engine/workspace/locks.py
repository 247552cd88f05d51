"""Locks on files, which end with the process that holds them, and folders for a moment that are known by theirs."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

__all__ = ["PRIVATE", "held", "lock_of", "private_folder"]

PRIVATE = ".keyscale-check-"
"""What folders of `private_folder` are called, before some letters of their own."""


def lock_of(path: Path, *, mode: int = -1) -> filelock.BaseFileLock:
    """A lock on that file, held; the file is made where it is not there.

    A process that ends removes its lock files. One that had opened such a file just before holds a lock that no other
    process sees: then it is taken again. Where the folder is missing, filelock may make it anew.

    Args:
        path: of the file.
        mode: permissions of a file that is made; -1 leaves them to the umask.

    Raises:
        filelock.Timeout: another process holds it.
        FileNotFoundError: its folder went meanwhile.
    """
    while True:
        # Taken in one thread and given back in another.
        lock = filelock.FileLock(path, blocking=False, thread_local=False, mode=mode)
        try:
            lock.acquire()
        except FileExistsError as error:
            # Of making the folder, which was there and then was not.
            raise FileNotFoundError(error.errno, f"{path.parent} went meanwhile") from error
        inside = lock._context.lock_file_fd
        try:
            if inside is not None and os.path.samestat(os.fstat(inside), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        lock.release()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """`lock_of` for a block."""
    lock = lock_of(path)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A folder in `parent` that is one's own within the block; what killed processes left of the kind is removed.

    Raises:
        OSError: it cannot be made.
    """
    for path in parent.glob(f"{PRIVATE}*"):
        if not path.is_symlink() and not (path / "lock").is_symlink():
            with contextlib.suppress(OSError, filelock.Timeout), held(path / "lock"):
                shutil.rmtree(path, ignore_errors=True)
    while True:
        path = Path(tempfile.mkdtemp(prefix=PRIVATE, dir=parent))
        try:
            lock = lock_of(path / "lock")
            break
        except (filelock.Timeout, FileNotFoundError):
            continue  # another process took it for one that was left, and removes it
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
    try:
        yield path
    finally:
        # Within the lock, so that nobody who found it makes it anew; Windows lets go of a lock's file only after it.
        shutil.rmtree(path, ignore_errors=True)
        lock.release()
        shutil.rmtree(path, ignore_errors=True)
