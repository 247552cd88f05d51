"""The output file under PyAV."""

from __future__ import annotations

import os
from io import SEEK_SET
from pathlib import Path

__all__ = ["Sink"]


class Sink:
    """The output file as PyAV writes it: unbuffered, so that the muxer's second look at it finds everything.

    A file that is closed before its container makes PyAV skip the trailer, which for an abandoned result would move
    every byte once more to make room for the index.
    """

    def __init__(self, path: Path) -> None:
        # Where the muxer opens it again to make room for the index; without the prefix `a:b.mp4` is a protocol.
        self.name = f"file:{path}"
        self._file = path.open("wb", buffering=0)

    @property
    def closed(self) -> bool:
        """True after `settle` or `close`."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Write all of `data`, which one call of the system need not do."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        return len(data)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()

    def settle(self) -> None:
        """Have the file on the disk itself, and close it."""
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def close(self) -> None:
        """Give the file up as it is."""
        self._file.close()
