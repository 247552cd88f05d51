"""Work in progress: `.<name>.keyscale/` beside the output, its lock, and which chunks in it are finished.

A chunk is finished when its record stands beside it and the file's size and SHA-256 are the record's. Files get
their names by `os.replace` after `fsync`, so a crash at any moment leaves a whole chunk or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from keyscale.engine.errors import OutputBusy, StorageError, UsageError
from keyscale.engine.files import sha256_file, storage_error
from keyscale.engine.serialization import dumps, loads
from keyscale.engine.system import sync
from keyscale.engine.wording import say
from keyscale.engine.workspace.locks import PRIVATE, held, lock_of

if TYPE_CHECKING:
    from keyscale.engine.plan.plan import Chunk

__all__ = [
    "REMOTE_STATE",
    "REMOTE_STATE_VERSION",
    "Identity",
    "WorkFolder",
    "beneath",
    "identity_of",
    "is_work_folder",
    "remote_job_of",
    "work_folder_of",
]

Identity = tuple[int, int, int]
"""Number, size in bytes and time of change in ns of a file: one that takes its place has others."""

REMOTE_STATE = "remote.json"
"""What a remote run keeps in the folder while its calls run, see `engine.remote.state`."""

REMOTE_STATE_VERSION = 1
"""Schema version of that file."""

PUBLISHING = "publishing"
"""Holds the key of a job whose result is about to get its name: once that is there, all beside it is done with."""

OPEN = "open"
"""Stands beside the chunks of a job as long as somebody works on it: others may make some of them."""

LONGEST_NAME = 255
"""Bytes of a file name on common file systems."""


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What a finished chunk is, to be found again and checked."""

    index: int
    frames: int
    size: int
    sha256: str
    lost: int = 0
    """Source frames that could not be decoded and were bridged while the chunk was made."""


@dataclass(frozen=True, kw_only=True)
class _RemoteJob:
    """Of what a remote run keeps, what others need to know."""

    version: int
    job_id: str


def identity_of(path: Path) -> Identity | None:
    """Which file stands at `path`; None where none does, or that cannot be told."""
    try:
        info = path.lstat()
    except (OSError, ValueError):
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns


def work_folder_of(output: Path) -> Path:
    """`.<name>.keyscale` beside the output; a name too long for that is replaced by its hash."""
    name = f".{output.name}.keyscale"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(output.name)).hexdigest()[:32]}.keyscale"
    return output.parent / name


def is_work_folder(name: str) -> bool:
    """Whether keyscale may call a folder for work so, or a folder for a moment."""
    name = name.lower()
    return (name.startswith(".") and name.endswith(".keyscale")) or name.startswith(PRIVATE)


def _locked(root: Path) -> filelock.BaseFileLock:
    """The lock of a work folder, held; the folder is made where it is not there."""
    while True:
        try:
            root.mkdir(exist_ok=True)
            return lock_of(root / "lock")
        except FileNotFoundError:
            if not root.parent.is_dir():
                raise
        except FileExistsError:
            if os.path.lexists(root) and not root.is_dir():
                raise
        # It went between two steps: another process is done with it.


def beneath(folder: Path) -> Iterator[Path]:
    """All that stands in a folder and in those within it; links are not followed, what goes meanwhile may be missing.

    `Path.rglob` raises where a folder goes while it is listed.
    """
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def _refuse_links(paths: Iterable[Path]) -> None:
    """Raise a `StorageError` where one of them is a link: what is written would go elsewhere."""
    for path in paths:
        if path.is_symlink():
            raise StorageError(f"{path} is a symbolic link", remedy="Remove it; keyscale makes no links there.")


def remote_job_of(output: Path) -> str | None:
    """The id of a remote job for this output that is not finished; None where there is none."""
    try:
        state = loads((work_folder_of(output) / REMOTE_STATE).read_bytes(), _RemoteJob)
    except (OSError, UsageError):
        return None
    return state.job_id if state.version == REMOTE_STATE_VERSION else None


class WorkFolder:
    """The chunks of one job. Get it from `open_for`, which holds the lock."""

    def __init__(self, root: Path, key: str, suffix: str) -> None:
        self.root = root
        self.folder = root / key[:16]
        self.suffix = suffix
        # Two processes may make the same chunk where one outlived the job that it worked for.
        self._own = secrets.token_hex(4)
        self._claims: dict[int, filelock.BaseFileLock] = {}
        self.claimed: set[int] = set()
        """Indices of the chunks that this process made or makes."""

    @classmethod
    def joined_by(cls, output: Path, key: str, suffix: str) -> WorkFolder | None:
        """The folder of a job that another process has open, to make some of its chunks; None where there is none."""
        work = cls(work_folder_of(output), key, suffix)
        return work if work.is_open and not work.root.is_symlink() else None

    @classmethod
    @contextmanager
    def open_for(cls, output: Path, key: str, suffix: str, *, resume: bool) -> Iterator[WorkFolder]:
        """Create and lock the folder; with `resume=False` earlier chunks are removed first.

        The folder itself goes when it holds nothing at the end.

        Raises:
            StorageError: no rights, a link in its place, or another process works on the same output.
        """
        work = cls(work_folder_of(output), key, suffix)
        try:
            _refuse_links([work.root, work.root / "lock"])
            lock = _locked(work.root)
        except filelock.Timeout as error:
            raise OutputBusy(
                f"another process is working on {output}",
                remedy=say("Wait for it, or choose another output with {output}."),
            ) from error
        except OSError as error:
            raise storage_error(error, work.root) from error
        try:
            # Not before: until then another process may be removing what is looked at.
            _refuse_links(beneath(work.root))
        except BaseException:
            lock.release()
            raise
        try:
            try:
                if not resume:
                    shutil.rmtree(work.folder, ignore_errors=True)
                work.folder.mkdir(exist_ok=True)
                (work.folder / OPEN).touch()
            except OSError as error:
                raise storage_error(error, work.folder) from error
            yield work
        finally:
            work._tidy()
            lock.release()

    @property
    def is_open(self) -> bool:
        """Whether somebody works on the job, or was killed while doing so."""
        return (self.folder / OPEN).exists()

    def chunk(self, chunk: Chunk) -> Path:
        """Where the finished chunk stands."""
        return self.folder / f"chunk-{chunk.index:05d}{self.suffix}"

    def part(self, chunk: Chunk) -> Path:
        """Where the chunk is written."""
        return self.folder / f"chunk-{chunk.index:05d}.part-{self._own}{self.suffix}"

    def joined(self, suffix: str) -> Path:
        """Where the whole file is put together before it is verified and published."""
        return self.root / f"joined{suffix}"

    def claim(self, chunk: Chunk) -> bool:
        """Take a chunk that nobody makes and that is not finished; whether this process has it now.

        For jobs that several processes work on. `finish` and `let_go` give it back, and so does the process's death.

        Raises:
            StorageError: no process can take it: the disk is full, or rights are missing.
        """
        if chunk.index in self._claims:
            return True
        if not self.is_open:
            return False
        try:
            lock = lock_of(self._claim(chunk))
        except (filelock.Timeout, FileNotFoundError):
            return False  # another process has it, or has ended the job and removed its folder
        except OSError as error:
            raise storage_error(error, self._claim(chunk)) from error
        self._claims[chunk.index] = lock
        # In this order: where the job is still open, a record that is not there has not been removed either.
        if self.is_there(chunk) or not self.is_open:
            self._give_back(chunk.index, self._claim(chunk))
            self._remove_if_made_anew()
            return False
        self.claimed.add(chunk.index)
        return True

    def let_go(self) -> None:
        """Give back what was claimed and not finished."""
        for index in list(self._claims):
            self._give_back(index, self.folder / f"chunk-{index:05d}.claim")

    def _remove_if_made_anew(self) -> None:
        if not self.is_open:
            with contextlib.suppress(OSError):  # of taking the lock; with anything in them they stay
                self.folder.rmdir()
                self.root.rmdir()

    def _give_back(self, index: int, path: Path) -> None:
        lock = self._claims.pop(index)
        path.unlink(missing_ok=True)
        lock.release()

    def is_there(self, chunk: Chunk) -> bool:
        """Whether a chunk is finished, by its record alone; `lost_in` looks into it."""
        return self._record(chunk).exists()

    def lost_in(self, chunk: Chunk) -> int | None:
        """How many source frames a finished chunk had to bridge; None where it is not whole and is made again."""
        path = self.chunk(chunk)
        try:
            record = loads(self._record(chunk).read_bytes(), _Record)
            if (record.index, record.frames, record.size) != (chunk.index, chunk.frames, path.stat().st_size):
                return None
            return record.lost if sha256_file(path) == record.sha256 else None
        except (OSError, UsageError):
            return None

    def finish(self, chunk: Chunk, *, lost: int = 0) -> None:
        """Give the written part its finished name; `lost` source frames were bridged in it.

        Raises:
            StorageError: it cannot be synced or renamed.
        """
        part, path = self.part(chunk), self.chunk(chunk)
        try:
            size = part.stat().st_size
            record = _Record(index=chunk.index, frames=chunk.frames, size=size, sha256=sha256_file(part), lost=lost)
            sync(part)
            part.replace(path)
            draft = self._record(chunk).with_suffix(".tmp")
            draft.write_text(dumps(record), encoding="utf-8")
            sync(draft)
            draft.replace(self._record(chunk))
            if chunk.index in self._claims:
                self._give_back(chunk.index, self._claim(chunk))
        except OSError as error:
            raise storage_error(error, path) from error

    def clear(self) -> None:
        """Remove all chunks, of earlier jobs for this output as well: the result is published.

        The state of a remote job that is not finished stays: it tells what may still run and lie elsewhere.
        """
        for entry in list(self.root.iterdir()):
            if entry.name in {"lock", PUBLISHING, REMOTE_STATE}:
                continue
            if entry.is_dir() and not entry.is_symlink():
                # At once: who looks for chunks to make must not take those for missing whose records went first.
                with contextlib.suppress(OSError):
                    entry.replace(gone := entry.with_name(f"{entry.name}.gone-{self._own}"))
                    shutil.rmtree(gone, ignore_errors=True)
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def announce(self, key: str) -> None:
        """Say that the result of the job with this key is about to get its name.

        If the process dies right after, `remove_finished` knows by it that nothing here is wanted any more.
        """
        with contextlib.suppress(OSError):  # a full disk does not keep a finished file from its name
            (self.root / PUBLISHING).write_text(key, encoding="ascii")

    @classmethod
    def remove_finished(cls, output: Path, key: str) -> None:
        """Remove what stands here of a job whose result is there, and who published it could not remove any more.

        What belongs to jobs that are not finished stays, and so does all where another process is at work.
        """
        root = work_folder_of(output)
        note = root / PUBLISHING
        if not root.is_dir() or any(path.is_symlink() for path in (root, root / "lock", note)):
            return
        with contextlib.suppress(filelock.Timeout, OSError, UnicodeError), held(root / "lock"):
            work = cls(root, key, "")
            if note.is_file() and note.read_text(encoding="ascii") == key:
                work.clear()
                work._tidy()
            elif {entry.name for entry in root.iterdir()} <= {"lock"}:
                work._tidy()

    def _record(self, chunk: Chunk) -> Path:
        return self.folder / f"chunk-{chunk.index:05d}.json"

    def _claim(self, chunk: Chunk) -> Path:
        return self.folder / f"chunk-{chunk.index:05d}.claim"

    def _tidy(self) -> None:
        self.let_go()
        (self.folder / OPEN).unlink(missing_ok=True)
        for left in self.folder.glob("*.claim"):
            left.unlink(missing_ok=True)
        for part in self.folder.glob("*.part*"):
            part.unlink(missing_ok=True)
        for joined in self.root.glob("joined.*"):
            joined.unlink(missing_ok=True)
        if self.folder.is_dir():
            # Finished chunks stay for the next run.
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        if not self.root.is_dir():
            return
        if {entry.name for entry in self.root.iterdir()} <= {"lock", PUBLISHING}:
            shutil.rmtree(self.root, ignore_errors=True)
        else:
            (self.root / PUBLISHING).unlink(missing_ok=True)
