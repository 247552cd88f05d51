"""Videos that exist on paper alone, cameras for them, and their plans."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from keyscale.engine.camera.framing import Framing, parse_framing
from keyscale.engine.job import Fit, Job, Target, Trim
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.options import build
from keyscale.engine.plan.plan import Plan, make_plan
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.probe import HeaderClaims, Orientation, StreamInfo, VideoInfo

STILL = VideoInfo(
    path="paper.mp4",
    container="mov,mp4,m4a,3gp,3g2,mj2",
    streams=(StreamInfo(index=0, kind="video", codec="h264", default=True),),
    video_index=0,
    codec="h264",
    width=1920,
    height=1080,
    stored_width=1920,
    stored_height=1080,
    sample_aspect_ratio=Fraction(1),
    orientation=Orientation(),
    pixel_format="yuv420p",
    bit_depth=8,
    colour=Colour(matrix=1, full_range=False, primaries=1, transfer=1),
    interlaced=False,
    field_order="progressive",
    time_base=Fraction(1, 12800),
    pts=np.array([0], dtype=np.int64),
    last_duration=512,
    measured_by="packets",
    rate=Fraction(25),
    variable_rate=False,
    header=HeaderClaims(frames=1, duration=0.04, average_rate=Fraction(25)),
    damaged=0,
)


def film(
    frames: int, rate: Fraction | int, *, time_base: Fraction | None = None, start: int = 0, **more: Any
) -> VideoInfo:
    """Frames at a constant rate, rounded to the time base as a muxer does."""
    rate = Fraction(rate)
    base = time_base or 1 / (rate * 512)
    pts = np.array([start + round(n / rate / base) for n in range(frames)], dtype=np.int64)
    return dataclasses.replace(
        STILL, time_base=base, pts=pts, last_duration=max(1, round(1 / rate / base)), rate=rate, **more
    )


def uneven(pts: Sequence[int], base: Fraction, last: int, rate: Fraction | int = 30) -> VideoInfo:
    return dataclasses.replace(
        STILL,
        time_base=base,
        pts=np.array(pts, dtype=np.int64),
        last_duration=last,
        rate=Fraction(rate),
        variable_rate=True,
    )


def planned(
    info: VideoInfo,
    rate: Fraction | int | None = 30,
    *,
    framing: Framing | None = None,
    models: dict[int, ModelSpec] | None = None,
    speeds: dict[str, float] | None = None,
    size: tuple[int, int] | tuple[int, int, str] = (1080, 1920),
    fit: Fit = Fit.COVER,
    start: float | None = None,
    end: float | None = None,
    output: str = "out.mp4",
    **more: Any,
) -> Plan:
    given = build(Target, {"size": size})
    target = dataclasses.replace(given, fit=fit, rate=Fraction(rate) if rate is not None else None)
    job = Job(source=info.path, output=output, target=target, trim=Trim(start=start, end=end), **more)
    return make_plan(job, info, framing, models or {}, speeds or {"cpu": 1e-11})


def camera(
    rects: Sequence[tuple[float, float, float, float, float]] = ((0, 0, 0, 1920, 1080),), **more: Any
) -> Framing:
    names = ("time", "x", "y", "width", "height")
    entries = [dict(zip(names, rect, strict=True)) for rect in rects]
    return parse_framing(json.dumps({"version": 1, "keyframes": entries, **more}), "k.json")
