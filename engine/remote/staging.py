"""What a remote job needs in object storage: sent there, linked to, brought back, removed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from keyscale import __version__
from keyscale.engine.errors import InputError, Interrupted, KeyscaleError
from keyscale.engine.files import sha256_file
from keyscale.engine.models.execution import Execution
from keyscale.engine.plan.plan import Chunk, Plan
from keyscale.engine.plan.transfer import dump_plan, for_transfer
from keyscale.engine.remote.excerpt import make_excerpt, worth_excerpt
from keyscale.engine.storage.bucket import Storage, job_prefix, source_key
from keyscale.engine.worker.contract import Made, Task, read_task

__all__ = ["LINK_SECONDS", "Staging", "kept_task"]

LINK_SECONDS = 24 * 3600
"""How long links are good for: longer than a chunk waits and works; a call that finds one expired is started anew."""


class Staging:
    """The objects of one job, all below its prefix."""

    def __init__(self, storage: Storage, job_id: str, suffix: str) -> None:
        """Nothing is sent.

        Args:
            storage: the bucket.
            job_id: of the job.
            suffix: of chunk files.
        """
        self.storage, self.job_id, self.suffix = storage, job_id, suffix
        self.prefix = job_prefix(job_id)

    def prepare(
        self,
        plan: Plan,
        execution: Execution | None,
        checkpoint: Path | None,
        folder: Path,
        source_sha256: str,
        should_stop: Callable[[], bool],
        tell: Callable[[str], object],
    ) -> tuple[Task, str, Path, bytes]:
        """What is to be sent: the task, the source's key, the file behind it, and the plan.

        That file is the source, or an excerpt of it in `folder` where that is much smaller. Where there should be one
        and cannot be, `tell` is given a sentence about it.

        Raises:
            InputError: the source or the checkpoint cannot be read.
        """
        source = Path(plan.job.source)
        data = dump_plan(for_transfer(plan))
        begins, digest = None, source_sha256
        try:
            if worth_excerpt(plan, source.stat().st_size):
                excerpt = make_excerpt(plan, folder / "excerpt.nut", should_stop=should_stop)
                if excerpt is not None:
                    source, begins, digest = excerpt.path, excerpt.begins, excerpt.sha256
                elif not should_stop():
                    tell(f"all of {source} is sent: the part that is needed cannot be cut out of it exactly")
            task = Task(
                version=__version__,
                job_id=self.job_id,
                plan_sha256=hashlib.sha256(data).hexdigest(),
                execution=execution,
                checkpoint=checkpoint.name if checkpoint else None,
                checkpoint_sha256=sha256_file(checkpoint) if checkpoint else None,
                source_size=source.stat().st_size,
                source_sha256=digest,
                excerpt_begins=begins,
            )
        except OSError as error:
            raise InputError(f"cannot read {error.filename or source}: {error.strerror}") from error
        return task, source_key(self.job_id, source.suffix.lower()), source, data

    def send(
        self,
        key: str,
        source: Path,
        task: Task,
        data: bytes,
        checkpoint: Path | None,
        *,
        report: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> Task:
        """Send plan, checkpoint and source; parts of the source that are there already are not sent again.

        Raises:
            StorageFault: it cannot be stored.
            InputError: the source cannot be read, or changes.
            Interrupted: `should_stop` said so; what was sent stays.
        """
        if should_stop():  # whoever removes what was staged may have done so already
            raise Interrupted("stopped before anything was sent")
        self.storage.put(f"{self.prefix}plan", data)
        if checkpoint is not None:
            self.storage.upload(checkpoint, f"{self.prefix}checkpoint", should_stop=should_stop)
        sent = self.storage.upload(source, key, sha256=task.source_sha256, on_progress=report, should_stop=should_stop)
        return replace(task, source_tag=sent.etag)

    def is_there(self, key: str, task: Task) -> bool:
        """Whether an earlier run staged all of it."""
        found = self.storage.head(key)
        if found is None or (found.size, found.etag) != (task.source_size, task.source_tag):
            return False
        if found.sha256 not in {None, task.source_sha256}:
            return False
        others = [f"{self.prefix}plan", *([f"{self.prefix}checkpoint"] if task.checkpoint else [])]
        return all(self.storage.head(other) is not None for other in others)

    def links(self, key: str, piece: Chunk, *, checkpoint: bool) -> dict[str, str]:
        """What a call is given, and nothing else: links that expire."""
        name = self._name(piece)
        storage, seconds = self.storage, LINK_SECONDS
        urls = {
            "source": storage.presign_get(key, seconds),
            "plan": storage.presign_get(f"{self.prefix}plan", seconds),
            "record": storage.presign_get(f"{name}.json", seconds),
            "record_to": storage.presign_put(f"{name}.json", seconds),
            "chunk": storage.presign_put(f"{name}{self.suffix}", seconds),
            "chunk_back": storage.presign_delete(f"{name}{self.suffix}", seconds),
            "record_back": storage.presign_delete(f"{name}.json", seconds),
        }
        if checkpoint:
            urls["checkpoint"] = storage.presign_get(f"{self.prefix}checkpoint", seconds)
        return urls

    def fetch(self, piece: Chunk, made: Made, path: Path, should_stop: Callable[[], bool]) -> None:
        """Bring a finished piece here.

        Raises:
            ObjectDamaged: it is not what the container made.
            StorageFault, StorageError, Interrupted: as `Storage.download`.
        """
        key = f"{self._name(piece)}{self.suffix}"
        self.storage.download(key, path, sha256=made.sha256, size=made.size, should_stop=should_stop)

    def drop(self, piece: Chunk) -> None:
        """Remove a piece, so that the next call makes it anew."""
        for suffix in (".json", self.suffix):
            self.storage.delete(f"{self._name(piece)}{suffix}")

    def _name(self, piece: Chunk) -> str:
        # With its frames: a chunk that was split has several pieces.
        return f"{self.prefix}chunks/{piece.index:05d}-{piece.start}-{piece.end}"


def kept_task(task_json: str) -> Task | None:
    """What an earlier client gave its calls; None where another version of keyscale wrote it."""
    try:
        return read_task(task_json)
    except KeyscaleError:
        return None
