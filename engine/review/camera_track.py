"""What there is to see of a plan's camera over time, and the moments at which to look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from keyscale.engine.plan.camera_time import FrameTimes
from keyscale.engine.plan.plan import Plan

__all__ = ["CameraTrack", "Moment", "corners", "moments", "runs", "track_of"]

Floats = npt.NDArray[np.float64]

MOST = 12
"""Moments on a contact sheet."""

ALIKE = 1.005
"""Zooms whose ratio is below this are one: a camera that only pans has no extremes."""

NOTICED = 0.5
"""Pixels by which a rectangle has to be moved for that to be shown."""


@dataclass(frozen=True, eq=False)
class CameraTrack:
    """The camera at each of the plan's N output frames."""

    seconds: Floats
    """Second of the source at which the camera is looked up `(N,)`."""
    asked: Floats
    """x, y, width, height as keyframes say, neither moved inside nor cut to the target's shape `(N, 4)`."""
    outside: npt.NDArray[np.bool_]
    """Where it reaches over the frame's border and was moved inside `(N,)`."""
    blurred: npt.NDArray[np.bool_]
    """Where it sees so little that the network's result is enlarged further `(N,)`."""
    zoom: Floats
    """How often what is seen fits into the frame, by the side that fits less often; 1 is all that fits `(N,)`."""
    cuts: tuple[int, ...]
    """Output frames at which the camera jumps."""
    keyframes: tuple[tuple[int, int], ...]
    """Output frame, and the keyframe's number from 1 on in order of time, of keyframes within the part that is used."""
    speeds: tuple[tuple[int, float], ...]
    """Output frame from which on a speed holds; empty where all is played at speed 1."""


@dataclass(frozen=True)
class Moment:
    """An output frame to look at."""

    frame: int
    reasons: tuple[str, ...]


def track_of(plan: Plan) -> CameraTrack:
    """The camera of a plan, frame by frame."""
    info, framing, rate = plan.info, plan.framing, float(plan.rate)
    frame_times = FrameTimes.of(info)
    wanted = plan.time_map.to_source(np.arange(plan.frames, dtype=np.float64) / rate)
    seconds = frame_times.lookups(plan.source_index, wanted)
    slack = frame_times.cut_slack(framing)
    asked = framing.rects_at(seconds, slack)
    inside, _ = framing.inside_at(seconds, info.width, info.height, slack)
    ratios = plan.geometry.ratios(plan.rects, plan.placements)
    keyframes = sorted(framing.keyframes, key=lambda keyframe: keyframe.time)
    jumps = np.append(False, np.abs(np.diff(plan.rects, axis=0)).max(axis=1, initial=0) > NOTICED)
    at = np.array([keyframe.time for keyframe in keyframes])
    begins = np.searchsorted(seconds, at - slack).clip(0, plan.frames - 1)
    cut = np.array([earlier.hold or earlier.time == later.time for earlier, later in pairwise(keyframes)], np.bool_)
    cuts = np.unique(begins[1:][cut])
    used = (at >= plan.time_map.start - slack) & (at <= max(plan.time_map.end, float(seconds[-1])) + slack)
    edges = np.cumsum([0.0, *(stretch.duration for stretch in plan.time_map.stretches)])[:-1]
    speeds = [
        (int(np.ceil(edge * rate - 1e-6)), stretch.speed)
        for edge, stretch in zip(edges, plan.time_map.stretches, strict=True)
    ]
    return CameraTrack(
        seconds=seconds,
        asked=asked,
        outside=np.any(np.abs(inside[:, :2] - asked[:, :2]) > NOTICED, axis=1),
        blurred=ratios > plan.scale * (1 + 1e-6) if plan.model is not None else np.zeros(plan.frames, np.bool_),
        zoom=np.minimum(info.width / plan.rects[:, 2], info.height / plan.rects[:, 3]),
        cuts=tuple(cuts[jumps[cuts]].tolist()),
        keyframes=() if framing.is_whole else tuple((int(begins[n]), n + 1) for n in np.flatnonzero(used).tolist()),
        speeds=() if plan.time_map.is_uniform else tuple(speeds),
    )


def moments(plan: Plan, track: CameraTrack, most: int = MOST) -> list[Moment]:
    """The output frames worth looking at, `most` of them at most, in order, each with why.

    The first and the last come before cuts, these before the extremes of zoom, what is warned of and changes of speed;
    where there are more keyframes than have a place, those that are shown are spread evenly over them.
    """
    last = plan.frames - 1
    reasons: dict[int, list[str]] = {}

    def add(frames: Iterable[tuple[int, str]]) -> None:
        found = list(frames)
        free = most - len(reasons)
        new = [frame for frame, _ in found if frame not in reasons]
        if len(new) > free:
            taken = {new[round(place)] for place in np.linspace(0, len(new) - 1, free)} if free > 0 else set[int]()
            found = [(frame, reason) for frame, reason in found if frame in reasons or frame in taken]
        for frame, reason in found:
            reasons.setdefault(frame, []).append(reason)

    add([(0, "start"), (last, "end")])
    add((frame, "cut") for frame in track.cuts)
    if track.zoom.max() > track.zoom.min() * ALIKE:
        for wanted, reason in ((track.zoom.max(), "closest"), (track.zoom.min(), "widest")):
            alike = np.flatnonzero(np.maximum(track.zoom, wanted) <= np.minimum(track.zoom, wanted) * ALIKE)
            known = [frame for frame in (*dict(track.keyframes), *reasons) if frame in alike]
            add([(int(known[0] if known else np.abs(track.zoom - wanted).argmin()), reason)])
    add((begin, "over the border") for begin, _ in runs(track.outside))
    add((begin, "beyond the network's scale") for begin, _ in runs(track.blurred))
    add((frame, f"speed {speed:g}") for frame, speed in track.speeds if 0 < frame <= last)
    add((frame, f"keyframe {number}") for frame, number in track.keyframes)
    return [Moment(frame, tuple(reasons[frame])) for frame in sorted(reasons)]


def runs(where: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Stretches `[begin, end)` of True in `where` `(N,)`."""
    steps = np.diff(np.concatenate([[0], where.astype(np.int8), [0]]))
    return [
        (int(begin), int(end)) for begin, end in zip(np.flatnonzero(steps > 0), np.flatnonzero(steps < 0), strict=True)
    ]


def corners(plan: Plan, rects: Floats) -> Floats:
    """Corners `(N, 4, 2)` of camera rectangles `(N, 4)`, clockwise from top left, on the picture as players show it.

    That is before the free rotation of the keyframes file.
    """
    x, y, width, height = rects.T
    xs, ys = np.stack([x, x + width, x + width, x], axis=1), np.stack([y, y, y + height, y + height], axis=1)
    if plan.geometry.rotation:
        xs, ys = plan.geometry.unrotated(xs, ys)
    return np.stack([xs, ys], axis=2)
