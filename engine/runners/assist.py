"""Chunks made for a job that another process of this machine has begun: for a device that has nothing else to do."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from threading import Event as StopFlag

from keyscale.engine.job import Event, Phase
from keyscale.engine.pipeline.encoder import chunk_suffix
from keyscale.engine.runners.local import LocalRun
from keyscale.engine.runners.prepare import Prepared
from keyscale.engine.runners.progress import Meter
from keyscale.engine.runners.shared import Shared
from keyscale.engine.workspace.folder import WorkFolder

__all__ = ["Assistance"]


class Assistance(LocalRun):
    """Takes chunks from the end of the job, while its own process comes from the beginning."""

    def __init__(self, prepared: Prepared, stop: StopFlag, shared: Shared, source_sha256: str) -> None:
        """`source_sha256` is of the source's content, as the job's own process read it."""
        super().__init__(prepared, stop, shared, shares=True)
        self.source_sha256 = source_sha256

    def events(self) -> Generator[Event, None, None]:
        """Make chunks until none is left that nobody has. No event is the last one, as none ends the job.

        Raises:
            KeyscaleError: a chunk cannot be made here; what was claimed is given back.
        """
        yield from self.load()
        output = Path(self.job.output)
        folder = WorkFolder.joined_by(output, self._chunks_key(), chunk_suffix(self.plan.encoder))
        if folder is None:
            return
        meter = Meter(Phase.UPSCALE, self.plan.frames)
        try:
            for chunk in reversed(self.plan.chunks):
                if self.stop.is_set():
                    return
                if folder.claim(chunk):
                    yield from self.make_chunks([chunk], folder, meter)
        finally:
            folder.let_go()
