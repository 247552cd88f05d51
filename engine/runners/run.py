"""What every runner does alike: find finished chunks, have the others made, join, verify, publish."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event as StopFlag
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from keyscale.engine.errors import InputError, Interrupted, ModelError, RemoteError, StorageError
from keyscale.engine.events import Done, Event, Note, Phase
from keyscale.engine.files import publish, sha256_file
from keyscale.engine.output.mux import Assembly, assemble
from keyscale.engine.output.verify import verify
from keyscale.engine.pipeline.chunks import Tally
from keyscale.engine.pipeline.encoder import chunk_suffix
from keyscale.engine.plan.plan import LANCZOS, Chunk
from keyscale.engine.plan.tracks import content_type_of
from keyscale.engine.runners.prepare import Prepared, check_absent, check_source
from keyscale.engine.runners.progress import Meter, in_background
from keyscale.engine.wording import say
from keyscale.engine.workspace.fingerprint import is_whole, job_key, pixels_of, read_stamp, stamp
from keyscale.engine.workspace.folder import WorkFolder, identity_of

if TYPE_CHECKING:
    from keyscale.engine.storage.bucket import StorageSettings

__all__ = ["Run"]

T = TypeVar("T")

TAKEN_BACK_S = 10.0
"""How long an interrupted upload of the result may take to end."""

BYTES = frozenset({Phase.FETCH, Phase.PREPARE, Phase.CONNECT, Phase.STAGE, Phase.PUBLISH})
"""Phases that are counted in bytes."""


class Run(ABC):
    """One job from its plan to the published file; a runner says how missing chunks are made."""

    def __init__(self, prepared: Prepared, stop: StopFlag) -> None:
        self.prepared = prepared
        self.job = prepared.job
        self.plan = prepared.plan
        self.stop = stop
        self.began = time.monotonic()
        self.tally = Tally()
        self.notes: list[Note] = []
        """What the work itself has to say, told at the next chance."""
        self.spent: dict[Phase, float] = {}
        """Seconds of the phases that have ended, but for that of making chunks."""
        self.resumed = 0
        self.published: str | None = None
        """Where the finished file stands as well."""
        self.source_sha256 = ""
        """Of the source's content, once it was read."""
        self.key = ""
        """The job's, from then on."""

    @abstractmethod
    def load(self) -> Iterator[Event]:
        """Make ready what makes chunks; before the source is read."""

    @abstractmethod
    def made_by(self) -> str:
        """All that decides the pixels of a chunk beside source and plan: network, arithmetic, library versions."""

    @abstractmethod
    def make(self, missing: list[Chunk], folder: WorkFolder, meter: Meter) -> Iterator[Event]:
        """Have these chunks finished in the folder; `meter.begin` is told once that itself begins."""

    @abstractmethod
    def done(self) -> Done:
        """The last event."""

    def events(self) -> Generator[Event, None, None]:
        """Do the job; the last event is `Done`. At least one event every 2 s.

        Raises:
            Interrupted: `stop` was set; finished chunks are kept.
            KeyscaleError: whatever failed; nothing was published.
        """
        for warning in self.plan.warnings:
            yield Note(level="warning", message=warning)
        destination = self._destination()
        output = Path(self.job.output)
        if (self.job.update or destination is not None) and output.exists():
            yield from self._identify()
            if self._is_finished(output):
                WorkFolder.remove_finished(output, self.key)
                yield from self._skip(output, destination)
                return
            check_absent(self.job)
        yield from self.load()
        if destination is not None:
            yield from self._check_destination(destination)
        yield from self._identify()
        suffix = chunk_suffix(self.plan.encoder)
        with WorkFolder.open_for(output, self._chunks_key(), suffix, resume=self.job.resume) as folder:
            # Another process may have finished it while this one prepared.
            replaces = check_absent(self.job)
            finished_meanwhile = self.job.update and replaces and self._is_done(output)
            if finished_meanwhile:
                folder.clear()
            else:
                yield from self._upscale(folder)
                joined = folder.joined(output.suffix)
                assembly = yield from self._join(folder, joined)
                yield from self._verify(joined, assembly)
                check_source(self.prepared)
                self.note_finished(folder)
                folder.announce(self.key)
                publish(joined, output, overwrite=self.job.overwrite or replaces)
                folder.clear()
                if destination is not None:
                    # Within: another process would take it for an upload whose client died, and abort it.
                    yield from self._publish(output, destination)
        if finished_meanwhile:
            yield from self._skip(output, destination)
            return
        yield replace(self.done(), key=self.key)

    def note_finished(self, folder: WorkFolder) -> None:  # noqa: B027 - not every runner keeps notes
        """The finished file is about to get its name."""

    def is_noted(self) -> bool:
        """Whether an earlier run noted that of this very job, and was not through with storing the file elsewhere."""
        return False

    def settled(self) -> None:  # noqa: B027 - as above
        """Nothing of the job is left to do."""

    def upload_later(self) -> str:
        """How a finished file is stored that could not be stored now."""
        if self.job.overwrite:
            return say("The same command with {update=True} instead of {overwrite=True} uploads it.")
        return "The same command uploads it."

    def _is_finished(self, output: Path) -> bool:
        """Whether the result is there already, and does not have to be made anew."""
        return self._is_done(output) and (self.job.update or not self.job.overwrite or self.is_noted())

    def _is_done(self, output: Path) -> bool:
        if output.is_symlink() or read_stamp(output) != self.key:
            return False
        outdated = self.prepared.outdated
        return (outdated is None or outdated != identity_of(output)) and is_whole(output, self.plan.frames)

    def _skip(self, output: Path, destination: tuple[StorageSettings, str] | None) -> Iterator[Event]:
        """Leave a result as it is; where it has to be stored elsewhere as well, see to that."""
        yield Note(level="info", message=f"skipped: {output} was made from the same source, camera and settings")
        if destination is not None:
            with WorkFolder.open_for(output, self.key, chunk_suffix(self.plan.encoder), resume=True):
                stored = yield from self._check_destination(destination, output)
                if not stored:
                    yield Note(level="info", message=f"only its upload to {self.job.publish_to} is missing")
                    yield from self._publish(output, destination)
            self.published = self.job.publish_to
        self.settled()
        yield Done(
            output=self.job.output,
            frames=self.plan.frames,
            seconds=time.monotonic() - self.began,
            resumed_frames=0,
            inferred_frames=0,
            lost_frames=0,
            device="none",
            **self.network_made_with(),
            published=self.published,
            key=self.key,
            skipped=True,
        )

    def network_made_with(self) -> dict[str, Any]:
        """What `Done` says of the network and of what it was given."""
        model, steady = self.plan.model, self.job.calm.steady
        if model is None:
            return {"model": LANCZOS, "steady": steady}
        return {"model": model.name, "look": model.look, "strength": self.plan.strength, "steady": steady}

    def _destination(self) -> tuple[StorageSettings, str] | None:
        """Bucket and key where the finished file goes as well."""
        if self.job.publish_to is None:
            return None
        from keyscale.engine.storage.bucket import StorageSettings, parse_address

        bucket, key = parse_address(self.job.publish_to)
        return StorageSettings.from_environment(os.environ).of_address(bucket), key

    def _check_destination(
        self, destination: tuple[StorageSettings, str], finished: Path | None = None
    ) -> Generator[Event, None, bool]:
        """Whether the finished file is stored there already; something else may have to be replaced.

        Raises:
            StorageError: it is, and may not be replaced.
            RemoteError: the storage cannot be used.
        """
        from keyscale.engine.storage.bucket import Storage

        settings, key = destination

        def look(_: Callable[[int, int], None]) -> bool:
            storage.check()
            stored = storage.head(key)
            if stored is None:
                return False
            if finished is not None and stored.sha256 == sha256_file(finished):
                return True
            if not (self.job.overwrite or self.job.update):
                raise StorageError(
                    f"{self.job.publish_to} already exists",
                    remedy=say("Give {overwrite=True}, or another address with {output}."),
                )
            return False

        with Storage(settings) as storage:
            return (yield from self.during(Phase.CONNECT, look))

    def _publish(self, output: Path, destination: tuple[StorageSettings, str]) -> Iterator[Event]:
        from keyscale.engine.storage.bucket import Storage

        settings, key = destination
        kind = content_type_of(self.plan.container)
        sending = threading.Lock()

        def send(report: Callable[[int, int], None]) -> None:
            with sending:
                storage.publish(output, key, kind, on_progress=report, should_stop=self.stop.is_set)

        with Storage(settings) as storage:
            try:
                yield from self.during(Phase.PUBLISH, send)
            except (RemoteError, Interrupted) as error:
                # What was begun in storage is taken back before the connection goes.
                if sending.acquire(timeout=TAKEN_BACK_S):
                    sending.release()
                also = "" if isinstance(error, Interrupted) else error.remedy or ""
                left = f"The finished file is {output}; only its upload is missing. {self.upload_later()}"
                error.remedy = f"{left} {also}".rstrip()
                raise
        self.published = self.job.publish_to

    def _identify(self) -> Iterator[Event]:
        """Read the source, once, and with its content the job's key."""
        if self.source_sha256:
            return
        source = Path(self.job.source)

        def read(report: Callable[[int, int], None]) -> tuple[str, str]:
            try:
                content = sha256_file(source, lambda done: report(done, self.prepared.source_stat[0]))
            except OSError as error:
                raise InputError(f"cannot read {source}: {error}") from error
            try:
                return content, job_key(self.plan, content)
            except OSError as error:
                raise ModelError(f"the network's weights cannot be read: {error}") from error

        self.source_sha256, self.key = yield from self.during(Phase.PREPARE, read)

    def _chunks_key(self) -> str:
        """SHA-256 over all that decides the pixels of a chunk: source content, plan, model, engine."""
        parts = f"{self.source_sha256}\0{self.made_by()}\0".encode("utf-8", "surrogateescape")
        return hashlib.sha256(parts + pixels_of(self.plan)).hexdigest()

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
            self.check_stop()
        if self.resumed:
            message = f"resumed: {len(chunks) - len(missing)} of {len(chunks)} chunks were finished already"
            yield Note(level="info", message=message)
        meter = Meter(Phase.UPSCALE, self.plan.frames, done=self.resumed)
        if not missing:
            yield meter.begin(self.resumed)
            return
        yield from self.make(missing, folder, meter)
        self.check_stop()
        yield from self.told()
        yield meter.progress(self.plan.frames)

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
                retiming=plan.info.retiming,
                on_progress=lambda share: report(round(share * plan.frames), plan.frames),
                should_stop=self.stop.is_set,
                keep_going=self.job.keep_going_on_decode_errors,
                extra_metadata=stamp(plan, self.key),
                look_ahead=plan.info.look_ahead,
            )

        assembly = yield from self.during(Phase.JOIN, work)
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

        yield from self.during(Phase.VERIFY, work)

    def during(self, phase: Phase, work: Callable[[Callable[[int, int], None]], T]) -> Generator[Event, None, T]:
        """Run `work` in a thread while its progress is told; it is given a function for (done, total)."""
        unit: Literal["frames", "bytes"] = "bytes" if phase in BYTES else "frames"
        began = time.monotonic()
        result = yield from in_background(phase, work, self.stop.is_set, unit=unit)
        self.spent[phase] = time.monotonic() - began
        yield from self.told()
        self.check_stop()
        return result

    def told(self) -> Iterator[Event]:
        """The notes that have come up since."""
        while self.notes:
            yield self.notes.pop(0)

    def check_stop(self) -> None:
        """Raise `Interrupted` once `stop` is set."""
        if self.stop.is_set():
            raise Interrupted("interrupted")
