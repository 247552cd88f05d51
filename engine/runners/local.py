"""A job on this machine: all chunks are made here, or some of a job that another process of it has begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event as StopFlag
from typing import TYPE_CHECKING

import av

import keyscale
from keyscale.engine.errors import DeviceError, ModelError, StorageError, VerificationError
from keyscale.engine.events import Done, Event, Note, Phase
from keyscale.engine.job import Precision
from keyscale.engine.machine import share_cores
from keyscale.engine.models import Execution
from keyscale.engine.models.speeds import Measured, checking_key, making_key, remember, size_key, speed_key
from keyscale.engine.pipeline.chunks import run_chunks
from keyscale.engine.pipeline.encoder import chunk_suffix
from keyscale.engine.plan.describe import settings_in_words
from keyscale.engine.plan.estimate import size_at
from keyscale.engine.plan.plan import LANCZOS, Chunk
from keyscale.engine.runners.prepare import Prepared
from keyscale.engine.runners.progress import Meter, summed
from keyscale.engine.runners.run import Run
from keyscale.engine.runners.shared import Shared
from keyscale.engine.system import usable_cores
from keyscale.engine.workspace.fingerprint import network_identity
from keyscale.engine.workspace.folder import WorkFolder, remote_job_of

if TYPE_CHECKING:
    from keyscale.engine.models.enlarger import Enlarger
    from keyscale.engine.pipeline.upscaler import Upscaler

__all__ = ["Assistance", "LocalRun", "run_local"]

POLL_S = 0.25


def run_local(prepared: Prepared, stop: StopFlag, shared: Shared | None = None) -> Generator[Event, None, None]:
    """Do the job here; events and errors as of `Run.events`. `shared` is what jobs of this process have in common."""
    return LocalRun(prepared, stop, shared).events()


class LocalRun(Run):
    """A job whose chunks are made by this process."""

    def __init__(
        self, prepared: Prepared, stop: StopFlag, shared: Shared | None = None, *, shares: bool = False
    ) -> None:
        """`shared` is what jobs of this process have in common; with `shares` other processes make chunks too."""
        super().__init__(prepared, stop)
        self.shared = shared or Shared()
        self.shares = shares
        self._shared_chunks: list[Chunk] = []
        """Those that other processes may make."""
        self.model: Enlarger | None = None
        self.execution: Execution | None = None
        self.upscaler: Upscaler | None = None
        self._making_began = self.began

    def events(self) -> Generator[Event, None, None]:
        """As `Run.events`, with a warning about a remote job that was left for the same output."""
        job_id = remote_job_of(Path(self.job.output))
        if job_id is not None:
            message = f"remote job {job_id} for this output is not finished: `keyscale remote cancel` ends it"
            yield Note(level="warning", message=message)
        yield from super().events()

    def load(self) -> Iterator[Event]:
        """Load the network, or raise where its device is absent."""
        spec = self.plan.model
        if spec is None:
            if self.job.compute.device not in {"auto", "cpu"}:
                # Nothing would run there, but a device that was asked for and is absent is an error.
                share_cores()
                from keyscale.engine.models.gpus import check_there

                check_there(self.job.compute.device)
            return
        share_cores()
        from keyscale.engine.models import gpus, open_model, to_try
        from keyscale.engine.pipeline.upscaler import Upscaler

        asked = self.job.compute
        ways = self.plan.executions
        unasked = asked.precision is Precision.AUTO
        named = self.job.model.name
        # What is left of a remote job is made here by whatever is here: its plan then has all ways.
        meant = "auto" if len(ways) > 1 and any(way.kind == "cpu" for way in ways) else asked.device
        devices = gpus.candidates(meant, mine=self.shared.gpu)

        def load(report: Callable[[int, int], None]) -> tuple[Enlarger, Execution]:
            try:
                weights = network_identity(self.plan)
            except OSError as error:
                raise ModelError(f"the network's weights cannot be read: {error}") from error

            def opened(execution: Execution) -> Enlarger:
                open_it = partial(
                    open_model,
                    named if named is not None and named.lower() != spec.name.lower() else spec.name,
                    execution,
                    self.job.model.denoise,
                    self.job.model.look,
                    spec=spec,
                    offline=self.job.model.offline,
                    unasked=unasked,
                    on_progress=summed(report),
                    on_note=lambda message: self.notes.append(Note(level="info", message=message)),
                )
                return self.shared.network((spec.name, weights, execution, self.job.model.denoise, unasked), open_it)

            left = to_try(ways, devices, any_precision=unasked)
            while True:
                execution = left.pop(0)
                try:
                    model = opened(execution)
                    on_cpu = [way for way in left if way.kind == "cpu"]
                    if execution.kind not in gpus.CONTESTED or not on_cpu:
                        return model, execution
                    other = opened(on_cpu[0])
                    ratio = gpus.compared(model, other)
                    message = f"{model.describe()} is {ratio:.1f} times as fast as {other.describe()}"
                    self.notes.append(Note(level="info", message=message))
                    if ratio >= gpus.BETTER:
                        return model, execution
                    return other, on_cpu[0]
                except DeviceError as error:
                    if not left:
                        raise
                    self.notes.append(Note(level="warning", message=f"{error.message}: taking {left[0]} instead"))

        self.model, self.execution = yield from self.during(Phase.FETCH, load)
        chosen = "chosen: " if asked.device in {"auto", "gpu"} else ""
        how = f"{self.model.describe()}, {self.execution.runtime} {self.execution.precision}"
        if self.model.decibels is not None:
            how += f" ({self.model.decibels:.1f} dB from fp32)"
        yield Note(
            level="info", message=f"device {chosen}{how}; model {spec.name} x{spec.scale}{settings_in_words(self.plan)}"
        )
        self.upscaler = Upscaler(
            self.model,
            self.plan.info.lattice,
            tile=asked.tile,
            should_stop=self.stop.is_set,
            on_note=lambda message: self.notes.append(Note(level="warning", message=message)),
        )

    def made_by(self) -> str:
        """As `Run.made_by`."""
        network = LANCZOS
        if self.model and self.execution:  # whichever of several GPUs it is
            network = f"{self.model.sha256} {replace(self.execution, device=self.execution.kind)}"
        return f"{keyscale.__version__} {sorted(av.library_versions.items())!r} {network}"

    def make(self, missing: list[Chunk], folder: WorkFolder, meter: Meter) -> Iterator[Event]:
        """Make chunks, with progress of the whole job."""
        yield meter.begin(self.resumed)
        if self.shares:
            yield from self._make_with_others(missing, folder, meter)
        else:
            yield from self.make_chunks(missing, folder, meter)
        self.check_stop()
        self._remember_making()

    def make_chunks(self, chunks: list[Chunk], folder: WorkFolder, meter: Meter) -> Iterator[Event]:
        """Make these chunks, or those of them that can be claimed where others make some too."""
        waited = False
        self._making_began = time.monotonic()
        for tally in run_chunks(
            self.plan,
            chunks,
            folder,
            self.upscaler,
            sampler_threads=max(1, usable_cores() // 2),
            should_stop=self.stop.is_set,
            tally=self.tally,
            network_lock=self.shared.network_lock,
            claim=folder.claim if self.shares else None,
        ):
            yield from self.told()
            done = self.resumed + tally.frames + self._made_by_others(folder)
            if waited and not tally.waits:
                yield meter.begin(done)  # what it waited does not count for the rate
                self._making_began = time.monotonic()
            waited = tally.waits
            if meter.is_due(done):
                yield meter.progress(done)

    def _make_with_others(self, missing: list[Chunk], folder: WorkFolder, meter: Meter) -> Iterator[Event]:
        """Make what nobody else makes, and wait for the rest; what another one gave up is made here too."""
        self._shared_chunks = missing
        while left := [chunk for chunk in missing if not folder.is_there(chunk)]:
            self.check_stop()
            first = next((number for number, chunk in enumerate(left) if folder.claim(chunk)), None)
            if first is not None:
                yield from self.make_chunks(left[first:], folder, meter)
                continue
            if not folder.is_open:
                raise StorageError(
                    f"{folder.folder} was removed while chunks were made in it", remedy="Run the same command again."
                )
            time.sleep(POLL_S)
            if meter.is_due(done := self.resumed + self.tally.frames + self._made_by_others(folder)):
                yield meter.progress(done)
        for chunk in missing:
            if chunk.index not in folder.claimed:
                lost = folder.lost_in(chunk)
                if lost is None:
                    raise VerificationError(f"chunk {chunk.index} was made by another worker, and is not whole")
                self.tally.lost += lost

    def _remember_making(self) -> None:
        """Keep how long the network took for windows of each size, and what sampling and encoding took beside it."""
        upscaler, execution, plan = self.upscaler, self.execution, self.plan
        found = []
        if upscaler is not None and execution is not None:
            per_mac: dict[int, list[float]] = {}
            for macs, seconds in upscaler.calls:
                # One for all windows whose size is the same power of two.
                pixels = 2 ** ((macs // upscaler.model.spec.macs_per_pixel).bit_length() - 1)
                per_mac.setdefault(pixels, []).append(seconds / macs)
            key = speed_key(execution, upscaler.model.spec.name)
            found += [Measured(key, size, len(each), median(each)) for size, each in per_mac.items()]
        if not self.shares:
            beside = time.monotonic() - self._making_began - (upscaler.seconds if upscaler is not None else 0)
            area, frames = self._area, self.tally.frames
            encoder = plan.encoder
            how = {"steady": plan.job.calm.steady != 0, "mixed": plan.strength < 1}
            key = making_key(encoder.encoder, encoder.preset, network=upscaler is not None, **how)
            found.append(Measured(key, area, frames, max(beside, 1e-6) / (area * max(1, frames))))
        remember(found)

    def note_finished(self, folder: WorkFolder) -> None:
        """Keep how long joining and verifying took, and how large results become."""
        area, frames, encoder = self._area, self.plan.frames, self.plan.encoder
        seconds = self.spent[Phase.JOIN] + self.spent[Phase.VERIFY]
        size = folder.joined(Path(self.job.output).suffix).stat().st_size
        per_pixel = size / (area * frames) / size_at(encoder.crf)
        remember(
            [
                Measured(checking_key(self.job.verify), area, frames, seconds / (area * frames)),
                Measured(size_key(encoder.encoder), area, frames, per_pixel),
            ]
        )

    @property
    def _area(self) -> int:
        return self.job.target.width * self.job.target.height

    def _made_by_others(self, folder: WorkFolder) -> int:
        others = [chunk for chunk in self._shared_chunks if chunk.index not in folder.claimed]
        return sum(chunk.frames for chunk in others if folder.is_there(chunk))

    def done(self) -> Done:
        """What came out of it."""
        return Done(
            output=self.job.output,
            frames=self.plan.frames,
            seconds=time.monotonic() - self.began,
            resumed_frames=self.resumed,
            inferred_frames=self.upscaler.inferred if self.upscaler else 0,
            lost_frames=self.tally.lost,
            device=f"{self.execution.device} {self.execution.precision}" if self.execution else "none",
            **self.network_made_with(),
            runtime=self.execution.runtime if self.execution else "none",
            decibels=self.model.decibels if self.model else None,
            published=self.published,
        )


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
