"""What is odd about a camera: it is told, and the job is done."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.framing import Framing, far_outside
from keyscale.engine.job import Fit, Target
from keyscale.engine.source.probe import VideoInfo
from keyscale.engine.wording import say

__all__ = ["camera_warnings"]

MANY = 3
"""Keyframes from which on a camera is expected to move: editors store two for one that stands."""

SQUEEZED = 1000
"""How many times the clip has to last as long as the keyframes: as where seconds are declared milliseconds."""

CUT = 0.02
"""Part of the picture that may be cut off without a word."""


def camera_warnings(
    camera: Framing,
    target: Target,
    info: VideoInfo,
    used: tuple[float, float],
    rects: npt.NDArray[np.float64],
    moved: npt.NDArray[np.bool_],
    *,
    whole: bool,
) -> list[str]:
    """Warnings about a camera.

    Args:
        camera: in pixels and seconds of the source.
        target: what is made.
        info: the source.
        used: first and last second of the source that are used.
        rects: what is seen, for each output frame `(N, 4)`.
        moved: where the camera was moved inside `(N,)`.
        whole: there are no keyframes.
    """
    if whole:
        return _whole_picture(target, info)
    warnings = list(camera.notes)
    outside = far_outside(camera.keyframe_rects, info.width, info.height)
    if outside:
        warnings.append(f"{outside} keyframe(s) lie far outside the {info.width}x{info.height} frame")
    if count := int(np.count_nonzero(moved)):
        warnings.append(f"the camera reaches over the frame's border in {count} frame(s) and is moved inside")
    warnings += _out_of_time(camera, info, used)
    stands = len(rects) > 1 and float(np.ptp(rects, axis=0).max()) == 0
    if stands and len(camera.keyframes) >= MANY:
        warnings.append(f"the camera never moves, though there are {len(camera.keyframes)} keyframes")
    return warnings


def _out_of_time(camera: Framing, info: VideoInfo, used: tuple[float, float]) -> list[str]:
    times = np.array([keyframe.time for keyframe in camera.keyframes])
    duration = float(info.duration)
    warnings: list[str] = []
    ends = max(duration, used[1])
    if late := sum(segment.start >= ends for segment in camera.segments):
        first = next(segment.start for segment in camera.segments if segment.start >= ends)
        warnings.append(
            f"{late} of {len(camera.segments)} segments lie after the video's end and do nothing: they begin at "
            f"{first:g} s, and it lasts {duration:.3f} s"
        )
    return warnings + _keyframes_out_of_time(camera, times, info, used)


def _keyframes_out_of_time(
    camera: Framing, times: npt.NDArray[np.float64], info: VideoInfo, used: tuple[float, float]
) -> list[str]:
    first, last = float(times.min()), float(times.max())
    if len(times) == 1:
        # One keyframe before the part that is used is a camera that stands.
        if first < used[1]:
            return []
        return [
            f"the only keyframe lies outside the clip: it is at {first:g} s, and {used[0]:g} to {used[1]:g} s of the "
            "video are used, where the camera stands"
        ]
    if first >= used[1] or (last <= used[0] and used[0] > 0):
        return [
            f"all keyframes lie outside the clip: they are from {first:g} to {last:g} s, and {used[0]:g} to "
            f"{used[1]:g} s of the video are used, where the camera stands"
        ]
    # A frame beyond the end is where editors put the last one.
    beyond = int((times > float(info.duration + 1 / info.rate)).sum())
    if beyond:
        return [
            f"{beyond} of {len(times)} keyframes lie after the video's end: they reach {last:g} s, and it lasts "
            f"{float(info.duration):.3f} s"
        ]
    moves = float(np.ptp(camera.keyframe_rects, axis=0).max()) > 0 and last > first
    if camera.time_unit is not None and moves and last * SQUEEZED <= float(info.duration) * 1.05:
        return [
            f"all keyframes lie within the first {last:g} s of {float(info.duration):.3f} s, and the camera stands "
            "after them: is the unit of their times the declared one?"
        ]
    return []


def _whole_picture(target: Target, info: VideoInfo) -> list[str]:
    """Without keyframes, `cover` cuts the picture to the target's shape: that is told, with what else there is."""
    if target.fit is not Fit.COVER:
        return []
    shape = info.width / info.height
    width, height = info.width, info.height
    if shape > target.aspect:
        width = round(info.height * target.aspect)
    else:
        height = round(info.width / target.aspect)
    seen = width * height / (info.width * info.height)
    if seen >= 1 - CUT:
        return []
    own = f"{info.width - info.width % 2}x{info.height - info.height % 2}"
    return [
        say(
            "there are no keyframes, so {fit=cover} crops the picture: of {} pixels the middle {} is shown, {}; "
            "{fit=contain} shows all of it, and so does {size} {}",
            f"{info.width}x{info.height}",
            f"{width}x{height}",
            f"{seen:.0%}",
            own,
        )
    ]
