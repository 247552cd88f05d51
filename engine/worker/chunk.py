"""One chunk made where there is nothing of the client's but links: the body of a remote call.

A fault that another try may not meet is raised; one that it would meet again is returned. What was stored before is
not made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from keyscale import __version__
from keyscale.engine.errors import DeviceError, KeyscaleError, ModelError, RemoteError
from keyscale.engine.files import sha256_file
from keyscale.engine.job import Mode, Precision
from keyscale.engine.models.execution import ON_ANY_CPU, Execution, choose_execution
from keyscale.engine.models.registry import defaults_for
from keyscale.engine.pipeline.chunks import Tally, run_chunks
from keyscale.engine.pipeline.encoder import chunk_suffix
from keyscale.engine.plan.plan import LANCZOS, Chunk, Plan
from keyscale.engine.plan.transfer import LARGEST, load_plan
from keyscale.engine.serialization import dumps, loads
from keyscale.engine.source.media import excerpt_media, stream_media
from keyscale.engine.system import process_age, usable_cores
from keyscale.engine.wording import say
from keyscale.engine.worker.contract import (
    SCHEMA,
    Deployment,
    Made,
    Stages,
    Task,
    TooSlow,
    as_answer,
    read_task,
    refusal,
)
from keyscale.engine.worker.links import LinkMissing, fetch, is_gone, send, take_back
from keyscale.engine.worker.ranged_file import RangedFile
from keyscale.engine.workspace.folder import WorkFolder

if TYPE_CHECKING:
    from keyscale.engine.models.enlarger import Enlarger
    from keyscale.engine.models.registry import ModelSpec
    from keyscale.engine.pipeline.upscaler import Upscaler

__all__ = ["Workshop", "here", "make_chunk", "workshop"]

REPORT_SECONDS = 1.0
RECORD_BYTES = 1 << 16
CHECKPOINT_BYTES = 1 << 30
SPARE_SHARE, LEAST_SPARE_S = 0.1, 3.0
"""Of a call's time: by so much earlier it gives up. Ended by Modal, it could not say how far it came."""

MOST_START_S = 600.0
"""What a container may take to start. A process that seems older was restored from a snapshot with its clock."""

WARM_SIZE = (640, 1088)
"""Width and height of the picture that warms a GPU: about what a 1080x1920 result shows of a 1080p source."""

Report = Callable[[str, dict[str, Any]], None]
"""Told a job's id, and how far the call is."""


class Workshop:
    """What a container keeps from one call to the next: the network that it loaded, the plan that it read."""

    def __init__(self, *, device: str, gpu: str, container: str) -> None:
        """Nothing is loaded yet.

        Args:
            device: `cuda` or `cpu`: what the container was asked for.
            gpu: its name, `cpu` where there is none.
            container: which one this is.
        """
        self.device, self.gpu, self.container = device, gpu, container
        self.is_new = True
        """Whether no call came yet."""
        self._network: tuple[tuple[str, Execution, float | None, float | None], Enlarger] | None = None
        self._warmed: dict[tuple[str, Execution, float | None, float | None], Enlarger] = {}
        self._plan: tuple[str, Plan] | None = None
        self._checkpoints: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Remove the files that were fetched."""
        if self._checkpoints is not None:
            self._checkpoints.cleanup()
            self._checkpoints = None

    def checkpoint(self, task: Task, url: str) -> Path:
        """The client's own checkpoint, fetched once."""
        if self._checkpoints is None:
            self._checkpoints = tempfile.TemporaryDirectory(prefix="keyscale-checkpoint-")
        # Its content is part of its place, so that two checkpoints of one file name are two networks.
        path = Path(self._checkpoints.name) / str(task.checkpoint_sha256)[:16] / str(task.checkpoint)
        if not path.is_file():
            data = fetch(url, name="the checkpoint", most=CHECKPOINT_BYTES)
            if hashlib.sha256(data).hexdigest() != task.checkpoint_sha256:
                raise ModelError(
                    "the checkpoint in storage is not the one that was staged", remedy="Run the command again."
                )
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        return path

    def plan(self, task: Task, url: str) -> Plan:
        """The job's plan, fetched once."""
        if self._plan is None or self._plan[0] != task.plan_sha256:
            data = fetch(url, name="the plan", most=LARGEST)
            if hashlib.sha256(data).hexdigest() != task.plan_sha256:
                raise RemoteError(
                    "the plan in storage is not the one that was staged", remedy="Run the command again: it is new."
                )
            self._plan = task.plan_sha256, load_plan(data)
        return self._plan[1]

    def network(
        self,
        name: str,
        execution: Execution,
        denoise: float | None = None,
        look: float | None = None,
        spec: ModelSpec | None = None,
    ) -> Enlarger:
        """A network, loaded once; arguments as of `open_model`.

        Raises:
            KeyscaleError: as `open_model`.
        """
        key = name, execution, denoise, look
        if key in self._warmed:
            return self._warmed[key]
        if self._network is None or self._network[0] != key:
            from keyscale.engine.machine import share_cores
            from keyscale.engine.models import open_model

            share_cores()
            self._network = None  # the device may not hold two
            self._network = key, open_model(name, execution, denoise, look, spec=spec, offline=True)
        return self._network[1]

    def warm(self) -> None:
        """Load the networks of the usual mode, which are small, and run each once, before a chunk waits for that.

        The first picture on a device loads its libraries and kernels. What fails here fails again, and is told, in the
        chunk that needs it; a container that does not start could say nothing.
        """
        import numpy as np

        from keyscale.engine.camera.geometry import Window

        width, height = WARM_SIZE
        for spec in defaults_for(Mode.FAST).values():
            try:
                execution = choose_execution(spec, self.device, Precision.AUTO, on_cpu=ON_ANY_CPU)
                network = self.network(spec.name, execution)
                network.enlarge(np.full((height, width, 3), 128, dtype=np.uint8), Window(0, 0, width, height))
            except Exception:
                logging.getLogger(__name__).exception("%s cannot be warmed up", spec.name)
                continue
            self._warmed[spec.name, execution, None, None] = network


def make_chunk(
    workshop: Workshop,
    job_json: str,
    chunk: Mapping[str, int],
    urls: Mapping[str, str],
    report: Report,
    *,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Make one chunk and store it.

    Args:
        workshop: of this container.
        job_json: a `Task`.
        chunk: `index`, `start` and `end`: the output frames `[start, end)`.
        urls: links to read `source`, `plan`, `record` and, where the task names one, `checkpoint`; and to write
            `chunk` and `record_to`, and to remove these (`chunk_back`, `record_back`).
        report: told the job's id and `{"index", "start", "frames"}` at once and about once a second; what it raises
            ends the call.
        timeout_s: seconds after which the call is ended by force; it is refused shortly before, as `TooSlow`.

    Returns:
        `Made` as plain data, or a `refusal`.

    Raises:
        KeyscaleError: a fault that may pass.
    """
    began = time.monotonic()
    start = process_age() if workshop.is_new else None
    workshop.is_new = False
    try:
        task = read_task(job_json)
        wanted = Chunk(chunk["index"], chunk["start"], chunk["end"])
        report(task.job_id, {"index": wanted.index, "start": wanted.start, "frames": 0})
        found = _stored(urls["record"], task, wanted)
        if found is not None:
            return as_answer(dataclasses.replace(found, again=True))
        with tempfile.TemporaryDirectory(prefix="keyscale-") as folder:
            made = _make(workshop, task, wanted, urls, report, Path(folder), began, timeout_s)
            if start is not None and start <= MOST_START_S:
                made = dataclasses.replace(made, stages=dataclasses.replace(made.stages, start=start))
        send(urls["record_to"], dumps(made).encode(), name=f"the record of chunk {wanted.index}")
        if is_gone(urls["plan"], name="the plan"):
            # The job was cleaned away meanwhile, and nobody would look for what came after that.
            for stored in ("chunk", "record"):
                take_back(urls[f"{stored}_back"], name=f"the {stored}")
            raise RemoteError("the job was removed from storage", remedy="Run the command again.")
        return as_answer(made)
    except KeyscaleError as error:
        if may_pass(error):
            raise
        fault = error
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        # A defect, which another try would meet again.
        fault = KeyscaleError(f"unexpected {type(error).__name__}: {error}", remedy="Please report it.")
    return refusal(fault, seconds=time.monotonic() - began, gpu=workshop.gpu, container=workshop.container)


def may_pass(error: KeyscaleError) -> bool:
    """Whether another container may do what this one could not: the network, or a GPU that is not there or broken."""
    return bool(getattr(error, "transient", False)) or isinstance(error, DeviceError)


def _stored(url: str, task: Task, chunk: Chunk) -> Made | None:
    """What an earlier call stored for this chunk."""
    try:
        made = loads(fetch(url, name=f"the record of chunk {chunk.index}", most=RECORD_BYTES), Made)
    except LinkMissing:
        return None
    except KeyscaleError as error:
        if may_pass(error) or isinstance(error, RemoteError):
            raise
        return None  # of another version, or damaged: the chunk is made
    return made if made.is_of(task, chunk) else None


def _make(
    workshop: Workshop,
    task: Task,
    chunk: Chunk,
    urls: Mapping[str, str],
    report: Report,
    folder: Path,
    began: float,
    timeout_s: float | None,
) -> Made:
    plan = workshop.plan(task, urls["plan"])
    notes: list[str] = []
    upscaler = _upscaler(workshop, task, plan, urls, notes)
    ready, busy = time.monotonic(), time.process_time()
    read = 0

    def is_late() -> bool:
        if timeout_s is None:
            return False
        return time.monotonic() - began >= timeout_s - max(SPARE_SHARE * timeout_s, LEAST_SPARE_S)

    def count(size: int) -> None:
        nonlocal read
        read += size

    tally = Tally()
    with closing(_source(task, urls["source"], count)) as file:
        if task.excerpt_begins is None:
            media = partial(stream_media, file, plan.info)
        else:
            media = partial(excerpt_media, file, plan.info, begins=task.excerpt_begins)
        output = folder / f"chunk{chunk_suffix(plan.encoder)}"
        with WorkFolder.open_for(output, task.plan_sha256, output.suffix, resume=False) as work:
            told = began
            for state in run_chunks(
                plan,
                [chunk],
                work,
                upscaler,
                sampler_threads=max(1, usable_cores() // 2),
                should_stop=is_late,
                tally=tally,
                open_media=media,
            ):
                if time.monotonic() - told >= REPORT_SECONDS:
                    told = time.monotonic()
                    report(task.job_id, {"index": chunk.index, "start": chunk.start, "frames": state.frames})
            path = work.chunk(chunk)
            if not path.exists():
                raise TooSlow(
                    f"{tally.frames} of {chunk.frames} frames were made in {time.monotonic() - began:.0f} s",
                    frames=tally.frames,
                    remedy="Deploy with a faster KEYSCALE_GPU or a longer KEYSCALE_TIMEOUT.",
                )
            done, busy = time.monotonic(), time.process_time() - busy
            size, digest = path.stat().st_size, sha256_file(path)
            send(urls["chunk"], path, name=f"chunk {chunk.index}")
            path.unlink()
            work.clear()
    return Made(
        plan_sha256=task.plan_sha256,
        index=chunk.index,
        start=chunk.start,
        end=chunk.end,
        frames=tally.frames,
        lost=tally.lost,
        inferred=upscaler.inferred if upscaler else 0,
        size=size,
        sha256=digest,
        seconds=time.monotonic() - began,
        gpu=workshop.gpu,
        container=workshop.container,
        stages=Stages(
            ready=ready - began,
            making=done - ready,
            network=upscaler.seconds if upscaler else 0.0,
            macs=upscaler.macs if upscaler else 0,
            cpu=busy,
            storing=time.monotonic() - done,
        ),
        network=f"{upscaler.model.sha256} {task.execution}" if upscaler else LANCZOS,
        bytes_read=read,
        notes=tuple(notes),
    )


def _source(task: Task, url: str, count: Callable[[int], None]) -> RangedFile:
    return RangedFile(
        url,
        size=task.source_size,
        tag=task.source_tag or None,
        sha256=task.source_sha256,
        name="the source",
        on_bytes=count,
    )


def _upscaler(workshop: Workshop, task: Task, plan: Plan, urls: Mapping[str, str], notes: list[str]) -> Upscaler | None:
    if plan.model is None or task.execution is None:
        return None
    if task.execution.kind != workshop.device:
        raise RemoteError(
            f"the job asks for {task.execution.kind}, the deployed functions run on {workshop.device}",
            remedy=say("Leave {device} out with {remote=True}, or deploy with another KEYSCALE_GPU."),
        )
    from keyscale.engine.pipeline.upscaler import Upscaler

    name = plan.model.name if task.checkpoint is None else str(workshop.checkpoint(task, urls["checkpoint"]))
    return Upscaler(
        workshop.network(name, task.execution, plan.job.model.denoise, plan.job.model.look, plan.model),
        plan.info.lattice,
        tile=plan.job.compute.tile,
        on_note=notes.append,
    )


def here(
    *, device: str, gpus: tuple[str, ...], containers: int, timeout_s: int, cores: tuple[int, ...] = ()
) -> dict[str, Any]:
    """A `Deployment` as plain data."""
    return as_answer(
        Deployment(
            schema=SCHEMA,
            version=__version__,
            libraries=repr(sorted(av.library_versions.items())),
            device=device,
            gpus=gpus,
            containers=containers,
            timeout_s=timeout_s,
            cores=cores,
        )
    )


def workshop(device: str) -> Workshop:
    """The workshop of this container.

    Raises:
        DeviceError: it was asked for a GPU, and torch finds none. Another container may have one.
    """
    container = os.environ.get("MODAL_TASK_ID") or platform.node()
    if device != "cuda":
        return Workshop(device=device, gpu="cpu", container=container)
    import torch

    if not torch.cuda.is_available():
        raise DeviceError("the container has no GPU that torch can use", remedy="Deploy with another KEYSCALE_GPU.")
    return Workshop(device=device, gpu=torch.cuda.get_device_name(0), container=container)
