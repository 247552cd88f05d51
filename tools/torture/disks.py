"""Small disks of one's own: a tmpfs of any size, mounted where that is allowed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FILLER", "Disk", "NoDiskError", "small_disk"]

FILLER = "filler"
"""Name of the file that takes what is left of a disk."""

MANY = 100_000
"""Inodes where their number is not the point; no limit at all could not be taken back."""


class NoDiskError(Exception):
    """This process may not mount anything."""


class Disk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: int, inodes: int = MANY) -> None:
        """Another size in bytes, and number of inodes; folders and links count as well."""
        self._mount(f"remount,size={size},nr_inodes={inodes}")

    def read_only(self) -> None:
        """Nothing can be written from here on."""
        self._mount("remount,ro")

    def fill(self) -> None:
        """Take what is left."""
        block = bytes(1 << 20)
        with contextlib.suppress(OSError), (self.path / FILLER).open("wb", buffering=0) as file:
            while True:
                file.write(block)

    def free(self) -> int:
        """Bytes that are left."""
        info = os.statvfs(self.path)
        return info.f_bavail * info.f_frsize

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-o", options, "tmpfs", str(self.path)], check=True, capture_output=True)  # noqa: S603, S607


@contextmanager
def small_disk(path: Path, size: int, inodes: int = MANY) -> Iterator[Disk]:
    """A disk of `size` bytes at `path`, which is made; it is unmounted at the end.

    Raises:
        NoDiskError: only the superuser may, or not even that one.
    """
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    except OSError as error:
        raise NoDiskError(str(error)) from error
    if done.returncode:
        raise NoDiskError(done.stderr.strip() or "mount failed")
    try:
        yield Disk(path)
    finally:
        # Lazily, since a child that was killed may not have been buried yet.
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)  # noqa: S603, S607
