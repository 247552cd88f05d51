"""A job on this machine: everything checked first, then all chunks here, join, verify, publish."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event as StopFlag
from typing import TYPE_CHECKING, Literal, TypeVar

import av

import keyscale
from keyscale.engine.errors import InputError, Interrupted, StorageError, UsageError
from keyscale.engine.framing import load_framing
from keyscale.engine.job import Done, Event, Job, Note, Phase, dumps
from keyscale.engine.models import Execution, ModelSpec, defaults_for, describe, needs_openvino
from keyscale.engine.mux import Assembly, assemble
from keyscale.engine.pipeline import Tally, run_chunks
from keyscale.engine.plan import LANCZOS, Plan, make_plan
from keyscale.engine.probe import probe
from keyscale.engine.runners.background import in_background
from keyscale.engine.runners.meter import Meter
from keyscale.engine.speeds import known_speeds, remember_speed
from keyscale.engine.threads import share_cores, usable_cores
from keyscale.engine.verify import verify
from keyscale.engine.workfolder import WorkFolder, publish, sha256_file, work_folder_of
from keyscale.engine.writer import check_encoder, chunk_suffix, storage_error

if TYPE_CHECKING:
    from keyscale.engine.models.interface import Enlarger
    from keyscale.engine.upscaler import Upscaler

__all__ = ["Prepared", "prepare", "prepare_plan", "run_local"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that passed every check that can be made before long work."""

    job: Job
    plan: Plan
    source_stat: tuple[int, int]
    """Size and modification time in ns of the source as planned."""


def prepare_plan(job: Job) -> Plan:
    """Probe, read the keyframes and plan. No network runs; torch is imported for a checkpoint's path only, and
    OpenVINO where it has to be asked what it can do on this CPU.

    Raises:
        KeyscaleError: the source, the keyframes, the model or the settings are wrong.
    """
    _check_paths(job)
    framing = load_framing(job.keyframes) if job.keyframes is not None else None
    models = _models(job)
    info = probe(job.source, tolerate_damage=job.keep_going_on_decode_errors)
    return make_plan(job, info, framing, models, known_speeds(), has_int8=_has_int8(job, models.values()))


def prepare(job: Job) -> Prepared:
    """Plan, and check all that can fail before long work: output, rights, space, encoder.

    Raises:
        KeyscaleError: of the kind that fails.
    """
    output = Path(job.output)
    before = _stat(job)
    plan = prepare_plan(job)
    _check_absent(job)
    _check_folder(output, plan)
    return Prepared(job=job, plan=plan, source_stat=before)


def run_local(prepared: Prepared, stop: StopFlag) -> Iterator[Event]:
    """Do the job; the last event is `Done`. At least one event every 2 s.

    Raises:
        Interrupted: `stop` was set; finished chunks are kept.
        KeyscaleError: whatever failed; nothing was published.
    """
    return _Run(prepared, stop).events()


class _Run:
    def __init__(self, prepared: Prepared, stop: StopFlag) -> None:
        self.job = prepared.job
        self.plan = prepared.plan
        self.source_stat = prepared.source_stat
        self.stop = stop
        self.began = time.monotonic()
        self.tally = Tally()
        self.notes: list[Note] = []
        self.model: Enlarger | None = None
        self.execution: Execution | None = None
        self.upscaler: Upscaler | None = None
        self.resumed = 0

    def events(self) -> Iterator[Event]:
        for warning in self.plan.warnings:
            yield Note(level="warning", message=warning)
        yield from self._load()
        key = yield from self._key()
        output = Path(self.job.output)
        suffix = chunk_suffix(self.plan.encoder)
        with WorkFolder.open_for(output, key, suffix, resume=self.job.resume) as folder:
            # Another process may have finished it while this one prepared.
            _check_absent(self.job)
            yield from self._upscale(folder)
            joined = folder.joined(output.suffix)
            assembly = yield from self._join(folder, joined)
            yield from self._verify(joined, assembly)
            self._check_source()
            publish(joined, output, overwrite=self.job.overwrite)
            folder.clear()
        yield self._done()

    def _load(self) -> Iterator[Event]:
        spec = self.plan.model
        if spec is None:
            if self.job.compute.device not in {"auto", "cpu"}:
                # Nothing would run there, but who asks for a device that is absent is told so.
                share_cores()
                from keyscale.engine.models.model import resolve_device

                resolve_device(self.job.compute.device)
            return
        share_cores()
        from keyscale.engine.device import choose_device
        from keyscale.engine.models import open_model
        from keyscale.engine.upscaler import Upscaler

        asked = self.job.compute
        ways = self.plan.executions
        # Which of several devices is there needs torch to tell.
        device = ways[0].device if len(ways) == 1 else choose_device(asked.device)
        execution = next(way for way in ways if way.device == device)
        named = self.job.model.name

        def load(report: Callable[[int, int], None]) -> Enlarger:
            fetched = _Sum(report)
            return open_model(
                named if named is not None and named.lower() != spec.name.lower() else spec.name,
                execution,
                self.job.model.denoise,
                offline=self.job.model.offline,
                on_progress=fetched,
                on_note=lambda message: self.notes.append(Note(level="info", message=message)),
            )

        self.model = yield from self._during(Phase.FETCH, load)
        chosen = "chosen: " if asked.device == "auto" else ""
        self.execution = execution
        how = f"{self.model.describe()}, {execution.runtime} {execution.precision}"
        yield Note(level="info", message=f"device {chosen}{how}; model {spec.name} x{spec.scale}")
        self.upscaler = Upscaler(
            self.model,
            self.plan.info.lattice,
            tile=asked.tile,
            should_stop=self.stop.is_set,
            on_note=lambda message: self.notes.append(Note(level="warning", message=message)),
        )

    def _key(self) -> Generator[Event, None, str]:
        """SHA-256 over all that decides the pixels of a chunk: source content, plan, model, engine."""
        source = Path(self.job.source)

        def read(report: Callable[[int, int], None]) -> str:
            return sha256_file(source, lambda done: report(done, self.source_stat[0]))

        try:
            content = yield from self._during(Phase.PREPARE, read)
        except OSError as error:
            raise InputError(f"cannot read {source}: {error}") from error
        digest = hashlib.sha256()
        plan = self.plan
        for part in (
            keyscale.__version__,
            repr(sorted(av.library_versions.items())),
            content,
            repr((plan.info.colour, plan.info.orientation, plan.info.interlaced, plan.info.field_order)),
            repr((plan.geometry, plan.rate, plan.encoder, plan.chunks, plan.model, plan.container)),
            dumps(self.job.target),
            repr(self.job.compute.tile),
            repr(self.job.keep_going_on_decode_errors),
            f"{self.model.sha256} {self.execution}" if self.model else LANCZOS,
        ):
            digest.update(part.encode() + b"\0")
        for array in (plan.info.pts[plan.source_index], plan.rects, plan.placements):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _upscale(self, folder: WorkFolder) -> Iterator[Event]:
        chunks = self.plan.chunks
        missing = []
        for chunk in chunks:
            lost = folder.lost_in(chunk)
            if lost is not None:
                self.resumed += chunk.frames
                self.tally.lost += lost
            else:
                missing.append(chunk)
            self._check_stop()
        if self.resumed:
            message = f"resumed: {len(chunks) - len(missing)} of {len(chunks)} chunks were finished already"
            yield Note(level="info", message=message)
        meter = Meter(Phase.UPSCALE, self.plan.frames, done=self.resumed)
        yield meter.progress(self.resumed)
        if not missing:
            return
        for tally in run_chunks(
            self.plan,
            missing,
            folder,
            self.upscaler,
            sampler_threads=max(1, usable_cores() // 2),
            should_stop=self.stop.is_set,
            tally=self.tally,
        ):
            yield from self._notes()
            if meter.is_due(self.resumed + tally.frames):
                yield meter.progress(self.resumed + tally.frames)
        self._check_stop()
        yield from self._notes()
        yield meter.progress(self.plan.frames)
        if self.upscaler is not None and self.execution is not None and self.upscaler.macs:
            per_mac = self.upscaler.seconds / self.upscaler.macs
            remember_speed(self.execution, self.upscaler.model.spec.name, per_mac)

    def _join(self, folder: WorkFolder, joined: Path) -> Generator[Event, None, Assembly]:
        plan = self.plan

        def work(report: Callable[[int, int], None]) -> Assembly:
            return assemble(
                chunks=[folder.chunk(chunk) for chunk in plan.chunks],
                output=joined,
                container=plan.container,
                rate=plan.rate,
                source=self.job.source,
                video_index=plan.info.video_index,
                origin=plan.info.origin,
                time_map=plan.time_map,
                tracks=plan.tracks,
                on_progress=lambda share: report(round(share * plan.frames), plan.frames),
                should_stop=self.stop.is_set,
                keep_going=self.job.keep_going_on_decode_errors,
            )

        assembly = yield from self._during(Phase.JOIN, work)
        if assembly.lost_audio:
            message = f"{assembly.lost_audio} packet(s) of sound could not be decoded and are silent"
            yield Note(level="warning", message=message)
        for message in assembly.notes:
            yield Note(level="warning", message=message)
        return assembly

    def _verify(self, joined: Path, assembly: Assembly) -> Iterator[Event]:
        plan = self.plan

        def work(report: Callable[[int, int], None]) -> None:
            verify(
                joined,
                plan,
                assembly,
                on_progress=lambda share: report(round(share * plan.frames), plan.frames),
                should_stop=self.stop.is_set,
            )

        yield from self._during(Phase.VERIFY, work)

    def _during(self, phase: Phase, work: Callable[[Callable[[int, int], None]], T]) -> Generator[Event, None, T]:
        """Run `work` in a thread while its progress is told; it is given a function for (done, total)."""
        unit: Literal["frames", "bytes"] = "bytes" if phase in {Phase.FETCH, Phase.PREPARE} else "frames"
        result = yield from in_background(phase, work, self.stop.is_set, unit=unit)
        yield from self._notes()
        self._check_stop()
        return result

    def _notes(self) -> Iterator[Event]:
        while self.notes:
            yield self.notes.pop(0)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Interrupted("interrupted")

    def _check_source(self) -> None:
        if _stat(self.job) != self.source_stat:
            raise InputError(
                f"{self.job.source} was changed during the job; nothing was published",
                remedy="Run the command again once the file is complete.",
            )

    def _done(self) -> Done:
        return Done(
            output=self.job.output,
            frames=self.plan.frames,
            seconds=time.monotonic() - self.began,
            resumed_frames=self.resumed,
            inferred_frames=self.upscaler.inferred if self.upscaler else 0,
            lost_frames=self.tally.lost,
            device=f"{self.execution.device} {self.execution.precision}" if self.execution else "none",
            model=self.plan.model.name if self.plan.model else LANCZOS,
            runtime=self.execution.runtime if self.execution else "none",
        )


class _Sum:
    """Adds up the progress of downloads that follow one another."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report
        self._before = self._last = self._total = 0

    def __call__(self, done: int, total: int | None) -> None:
        if done < self._last:
            self._before += self._total
        self._last, self._total = done, total or done
        self._report(self._before + done, self._before + self._total)


def _models(job: Job) -> dict[int, ModelSpec]:
    name = job.model.name
    if name is None:
        models = defaults_for(job.model.mode)
    elif name.lower() == LANCZOS:
        models = {}
    else:
        share_cores()
        spec = describe(name)
        models = {spec.scale: spec}
    if job.model.denoise is not None and not any(spec.family == "general" for spec in models.values()):
        raise UsageError(
            "--denoise works with realesr-general-x4v3 alone",
            remedy="Add --model realesr-general-x4v3, or leave --denoise out.",
        )
    return models


def _has_int8(job: Job, models: Iterable[ModelSpec]) -> bool:
    """Whether OpenVINO has int8 here; it is loaded and asked only where that matters."""
    if not any(needs_openvino(spec, job.compute.device, job.compute.precision) for spec in models):
        return False
    from keyscale.engine.models.inference import cpu_has_int8

    return cpu_has_int8()


def _check_paths(job: Job) -> None:
    source, output = Path(job.source), Path(job.output)
    try:
        same = source.exists() and output.exists() and source.samefile(output)
    except OSError:
        same = False
    if same or source.absolute() == output.absolute():
        raise UsageError(f"input and output are the same file, {source}", remedy="Choose another name with -o.")
    try:
        folder = output.is_dir()
    except OSError as error:
        raise UsageError(
            f"the output {output} is no usable name: {error.strerror}", remedy="Choose a shorter name with -o."
        ) from error
    if folder:
        raise UsageError(f"the output {output} is a directory", remedy="Give a file name with -o.")


def _check_absent(job: Job) -> None:
    if not job.overwrite and os.path.lexists(job.output):
        raise StorageError(f"{job.output} is already there", remedy="Give --overwrite, or another name with -o.")


def _stat(job: Job) -> tuple[int, int]:
    try:
        info = Path(job.source).stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {job.source}: {reason}", remedy="Check the path of the video.") from error
    return info.st_size, info.st_mtime_ns


def _check_folder(output: Path, plan: Plan) -> None:
    """Rights and space of the output's folder, and the encoder, by opening it there once."""
    folder = output.parent
    if not folder.is_dir():
        raise StorageError(f"the folder {folder} is not there", remedy="Create it, or choose another -o.")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(error, folder) from error
    # The chunks and the joined file stand beside each other for a moment.
    needed = 2 * plan.estimate.output_bytes
    if free < needed:
        raise StorageError(
            f"{folder} has {free / 2**20:.0f} MiB free, the job needs about {needed / 2**20:.0f} MiB",
            remedy="Free some space, or choose another -o.",
        )
    if work_folder_of(output).is_symlink():
        raise StorageError(f"{work_folder_of(output)} is a symbolic link", remedy="Remove it; keyscale works there.")
    try:
        # A folder of its own, since another process may hold the work folder's lock.
        with tempfile.TemporaryDirectory(prefix=".keyscale-check-", dir=folder) as private:
            check_encoder(
                plan.encoder,
                plan.info.colour.encoded(plan.encoder.codec),
                (plan.job.target.width, plan.job.target.height),
                plan.rate,
                Path(private),
            )
    except OSError as error:
        raise storage_error(error, folder) from error
