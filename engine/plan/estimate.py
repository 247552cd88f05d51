"""What a job will take: time by its parts, and the size of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keyscale.engine.job import Job
from keyscale.engine.models.execution import GPU_KINDS, Execution
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.models.speeds import checking_key, making_key, measured_speed, size_key, speed_key
from keyscale.engine.plan.encoding import EncoderSettings
from keyscale.engine.source.probe import VideoInfo

__all__ = ["Estimate", "make_estimate", "size_at"]

BYTES_PER_PIXEL = 0.06
"""Upper guess of what one encoded pixel takes at CRF 16 on busy footage; halved again for each 6 of CRF."""

PRORES_BYTES_PER_PIXEL = 0.5
"""ProRes 422 HQ: 220 Mbit/s at 1920x1080 and 29.97 frames a second, by Apple's white paper, rounded up."""

TYPICAL_SHARE = 0.3
"""Of `BYTES_PER_PIXEL`, that usual footage takes."""

MAKING, CHECKING = 12e-9, 6e-9
"""Seconds of an output pixel before anything was measured: sampled and encoded; joined and verified."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the job will take, by this machine's own past runs where there are any."""

    inferred_frames: int
    """Source frames that go through the network at most; exact repeats found on the way need less."""
    macs: int
    """Multiply-accumulates of the whole job."""
    seconds: float | None
    """Network time; None for sampling only, and where nothing tells."""
    device: str
    measured: bool
    """True where `seconds` rests on measurements of this model, run in this way on windows of such sizes, here."""
    making_seconds: float
    """Sampling and encoding, as far as they do not go on beside the network."""
    checking_seconds: float
    """Joining the chunks and verifying the result."""
    all_measured: bool
    """True where all of `job_seconds` rests on measurements on this machine."""
    output_bytes: int
    """Size of the result, guessed high, for the check of free space."""
    likely_bytes: int
    """About what the size will be, by earlier results where there are any; footage differs by several times."""

    @property
    def job_seconds(self) -> float | None:
        """The whole job; None where nothing tells how long the network takes."""
        if self.seconds is None and self.macs:
            return None
        return (self.seconds or 0) + self.making_seconds + self.checking_seconds


def size_at(crf: int | None) -> float:
    """Size of a result at this CRF, as a multiple of that at CRF 16; 1 for encoders without one."""
    return 1.0 if crf is None else 2.0 ** ((16 - crf) / 6)


def make_estimate(
    job: Job,
    info: VideoInfo,
    encoder: EncoderSettings,
    model: ModelSpec | None,
    executions: tuple[Execution, ...],
    windows: npt.NDArray[np.int32],
    source_index: npt.NDArray[np.int32],
    speeds: Mapping[str, float],
) -> Estimate:
    """What a job takes whose output frames show these source frames and windows, by what was measured before."""
    fresh = np.concatenate([[True], np.diff(source_index) != 0])
    pixels = job.target.width * job.target.height * len(source_index)
    per_pixel = PRORES_BYTES_PER_PIXEL
    if encoder.crf is not None:
        per_pixel = BYTES_PER_PIXEL * size_at(encoder.crf)
    size = int(pixels * per_pixel) + 1_000_000
    device = job.compute.device.partition(":")[0]
    if device in {"auto", "gpu"}:
        there = [execution.kind for execution in executions]
        known = (kind for kind in GPU_KINDS if kind in there and any(key.startswith(f"{kind} ") for key in speeds))
        device = next(known, there[0] if device == "gpu" and there else "cpu")
    area, frames = job.target.width * job.target.height, len(source_index)
    how = {"steady": job.calm.steady != 0, "mixed": model is not None and job.model.strength < 1}
    key = making_key(encoder.encoder, encoder.preset, network=model is not None, **how)
    making = measured_speed(speeds, key, area)
    checking = measured_speed(speeds, checking_key(job.verify), area)
    seen = measured_speed(speeds, size_key(encoder.encoder), area)
    likely = size * TYPICAL_SHARE if seen is None else pixels * seen * size_at(encoder.crf)
    macs, inferred, network, own = 0, 0, None, True
    if model is not None:
        needed = windows[fresh].astype(np.int64)
        width = np.minimum(needed[:, 2] + model.halo, info.lattice[0]) - np.maximum(needed[:, 0] - model.halo, 0)
        height = np.minimum(needed[:, 3] + model.halo, info.lattice[1]) - np.maximum(needed[:, 1] - model.halo, 0)
        execution = next(each for each in executions if each.kind == device)
        macs, inferred = int((width * height).sum()) * model.macs_per_pixel, int(np.count_nonzero(fresh))
        network, own = _network_time(width * height, model, execution, speeds)
    return Estimate(
        inferred_frames=inferred,
        macs=macs,
        seconds=network,
        making_seconds=area * frames * (MAKING if making is None else making),
        checking_seconds=area * frames * (CHECKING if checking is None else checking),
        device=device,
        measured=model is not None and own,
        all_measured=own and making is not None and checking is not None,
        output_bytes=size,
        likely_bytes=min(int(likely), size),
    )


def _network_time(
    areas: npt.NDArray[np.int64], model: ModelSpec, execution: Execution, speeds: Mapping[str, float]
) -> tuple[float | None, bool]:
    """Seconds for windows of these areas, None where nothing tells, and whether all of it rests on measurements."""
    key = speed_key(execution, model.name)
    guessed = next((s for s in (speeds.get(speed_key(execution)), speeds.get(execution.kind)) if s is not None), None)
    seconds, measured = 0.0, True
    # Those whose area is the same power of two were measured together.
    doublings, where = np.unique(np.frexp(areas.astype(np.float64))[1], return_inverse=True)
    for number in range(len(doublings)):
        alike = areas[where == number]
        own = measured_speed(speeds, key, int(alike[0]))
        speed = guessed if own is None else own
        if speed is None:
            return None, False
        seconds += float(alike.sum()) * model.macs_per_pixel * speed
        measured = measured and own is not None
    return seconds, measured
