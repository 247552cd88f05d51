"""Stretches of a plan that tell most of it, each as a plan of its own that makes the very same frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.timemap import Stretch, TimeMap
from keyscale.engine.plan.ending import source_end
from keyscale.engine.plan.estimate import make_estimate
from keyscale.engine.plan.plan import Plan, chunks_of
from keyscale.engine.plan.tracks import container_of, plan_tracks

__all__ = ["sample_of", "telling_stretches"]


def telling_stretches(plan: Plan, count: int, seconds: float) -> list[tuple[int, int]]:
    """Output frames `[begin, end)` of the given number of stretches that do not overlap, in order.

    By turns the one over which the camera moves most, by its own size, and the one that is enlarged most; where no
    place is ahead of others the middle of the longest part that is left. A short result has fewer.
    """
    length = min(plan.frames, max(1, round(seconds * float(plan.rate))))
    size = plan.rects[:, 2:]
    centre = plan.rects[:, :2] + size / 2
    steps = np.abs(np.diff(centre, axis=0)) / size[1:] + np.abs(np.diff(np.log(size), axis=0))
    moves = np.append(0.0, steps.sum(axis=1))
    ratios = plan.geometry.ratios(plan.rects, plan.placements)
    free = np.ones(plan.frames - length + 1, np.bool_)
    found: list[int] = []
    while len(found) < count and free.any():
        within = _sums(moves if len(found) % 2 == 0 else ratios, length)
        best, least = within[free].max(), within[free].min()
        if best - least > 1e-9 * max(1.0, best):
            begin = int(np.flatnonzero(free & (within >= best - 1e-9 * best))[0])
        else:
            begin = _middle(free)
        found.append(begin)
        free[max(0, begin - length + 1) : begin + length] = False
    return sorted((begin, begin + length) for begin in found)


def sample_of(plan: Plan, begin: int, end: int, output: str) -> Plan:
    """The plan of output frames `[begin, end)` alone, to be written to `output`: each is made as in the whole job."""
    job, info = replace(plan.job, output=output), plan.info
    time_map = _between(plan.time_map, begin / plan.rate, end / plan.rate)
    part = np.s_[begin:end]
    container = container_of(output)
    return replace(
        plan,
        job=job,
        time_map=time_map,
        container=container,
        source_index=plan.source_index[part],
        rects=plan.rects[part],
        placements=plan.placements[part],
        windows=plan.windows[part],
        chunks=chunks_of(end - begin, plan.rate, job.chunk_seconds),
        tracks=plan_tracks(
            info.streams,
            info.video_index,
            container,
            time_map,
            source_duration=source_end(job, info),
            audio=job.encoding.audio,
        ),
        estimate=make_estimate(
            job, info, plan.encoder, plan.model, plan.executions, plan.windows[part], plan.source_index[part], {}
        ),
    )


def _sums(values: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Sums over each stretch of this length."""
    total = np.append(0.0, np.cumsum(values))
    return np.asarray(total[length:] - total[:-length])


def _middle(free: npt.NDArray[np.bool_]) -> int:
    """The middle of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], free.astype(np.int8), [0]])))
    begins, ends = edges[::2], edges[1::2]
    longest = int((ends - begins).argmax())
    return int(begins[longest] + ends[longest] - 1) // 2


def _between(time_map: TimeMap, first: Fraction, last: Fraction) -> TimeMap:
    """The part of a time map between two seconds of the result."""
    parts, position = [], 0.0
    for stretch in time_map.stretches:
        low, high = max(float(first), position), min(float(last), position + stretch.duration)
        if high > low:
            start, end = (stretch.start + (at - position) * stretch.speed for at in (low, high))
            parts.append(Stretch(start, end, stretch.speed))
        position += stretch.duration
    return TimeMap(tuple(parts))
