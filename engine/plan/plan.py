"""The plan: what every output frame shows, by which network, in which chunks. Pure data from a pure function.

A question about behaviour is answered here, without running a network. Arrays, not objects a frame: two hours at
60 frames a second plan in about a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.framing import Framing, cover_all
from keyscale.engine.camera.geometry import Geometry, Window, place
from keyscale.engine.camera.guard import refuse_misread_coordinates, refuse_misread_times
from keyscale.engine.camera.keyframes import STANDARD_INPUT
from keyscale.engine.camera.source_units import in_source_units
from keyscale.engine.camera.timemap import Stretch, TimeMap
from keyscale.engine.choices import DynamicRange
from keyscale.engine.errors import FramingError, InputError, UsageError
from keyscale.engine.job import Fit, Job, Precision
from keyscale.engine.models.execution import ON_ANY_CPU, Execution, possible_executions
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.plan.camera_time import FrameTimes, rounded
from keyscale.engine.plan.camera_warnings import camera_warnings
from keyscale.engine.plan.encoding import EncoderSettings, resolve_encoding
from keyscale.engine.plan.ending import early_sound, source_end, told_of_end
from keyscale.engine.plan.estimate import Estimate, make_estimate
from keyscale.engine.plan.size import in_pixels
from keyscale.engine.plan.tracks import Container, TrackPlan, container_of, plan_tracks
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.probe import VideoInfo
from keyscale.engine.source.steady import STEADY_FORMATS
from keyscale.engine.source.tone import SDR, ToneMapping, tone_mapping
from keyscale.engine.wording import say

__all__ = ["LANCZOS", "Chunk", "Plan", "chunks_of", "make_plan"]

LANCZOS = "lanczos"
"""The model name that asks for sampling without a network."""

LONGEST = 24 * 3600
"""Seconds of a result: a plan takes some 300 bytes a frame, and damaged times may claim centuries."""

MOST_FRAMES = LONGEST * 60
"""Frames of a result: a day at 60 a second."""

EVENLY = 1e-9
"""Slack for comparing float ratios with whole numbers."""


@dataclass(frozen=True)
class Chunk:
    """Output frames `[start, end)`, made and kept as one file."""

    index: int
    start: int
    end: int

    @property
    def frames(self) -> int:
        """How many output frames."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that an executor, a preview and the verification need."""

    job: Job
    info: VideoInfo
    framing: Framing
    """In pixels of the displayed source, and in seconds."""
    rate: Fraction
    time_map: TimeMap
    container: Container
    encoder: EncoderSettings
    geometry: Geometry
    source_index: npt.NDArray[np.int32]
    """Index into `info.pts` of the source frame that each output frame shows `(N,)`."""
    rects: npt.NDArray[np.float64]
    """x, y, width, height that the camera sees, in displayed source pixels, inside the frame and fitted `(N, 4)`."""
    placements: npt.NDArray[np.int32]
    """x, y, width, height of the target's part to fill `(N, 4)`."""
    windows: npt.NDArray[np.int32]
    """x0, y0, x1, y1 of the lattice pixels that sampling reads `(N, 4)`."""
    model: ModelSpec | None
    """None is sampling only."""
    executions: tuple[Execution, ...]
    """How the network will run: one way, or one for each device that `auto` may turn out to be."""
    chunks: tuple[Chunk, ...]
    tracks: tuple[TrackPlan, ...]
    warnings: tuple[str, ...]
    estimate: Estimate
    tone: ToneMapping | None = None
    """How an HDR source becomes SDR; None where it stays what it is."""

    @property
    def frames(self) -> int:
        """Output frames."""
        return len(self.source_index)

    @property
    def colour(self) -> Colour:
        """Of the result's picture."""
        return (self.info.colour if self.tone is None else SDR).encoded(self.encoder.codec)

    @property
    def scale(self) -> int:
        """Super-resolved pixels to a source pixel; 1 for sampling only."""
        return self.model.scale if self.model else 1

    @property
    def strength(self) -> float:
        """How much of the network's picture is shown, above 0; the rest is the source, sampled. 1 without a network."""
        return self.job.model.strength if self.model else 1.0

    @property
    def duration(self) -> Fraction:
        """Seconds of the result's picture."""
        return self.frames / self.rate

    @property
    def ratio(self) -> float:
        """The largest ratio of target pixels to source pixels in the job."""
        return float(self.geometry.ratios(self.rects, self.placements).max())

    def pts(self, frame: int) -> int:
        """The source pts that output frame `frame` shows."""
        return int(self.info.pts[self.source_index[frame]])

    def window(self, frame: int) -> Window:
        """The lattice pixels that sampling output frame `frame` reads."""
        return Window(*(int(v) for v in self.windows[frame]))


def make_plan(
    job: Job,
    info: VideoInfo,
    framing: Framing | None,
    models: Mapping[int, ModelSpec],
    speeds: Mapping[str, float],
    *,
    on_cpu: Collection[str] = ON_ANY_CPU,
    gpus: Collection[str] = (),
) -> Plan:
    """Plan a job.

    Args:
        job: what is asked for.
        info: what the source is.
        framing: the camera; None is the whole frame.
        models: the family to choose from, by scale; empty samples without a network.
        speeds: what was measured here, as `engine.models.speeds.known_speeds` has it.
        on_cpu: in what OpenVINO computes on this CPU beside fp32.
        gpus: kinds of GPU that are there, as of `possible_executions`.

    Raises:
        UsageError: trim or settings that leave nothing or contradict each other.
        FramingError: a rectangle that does not fit the frame.
    """
    warnings = list(info.notes)
    frame_times = FrameTimes.of(info)
    camera = _camera(job, info, framing)
    rate = job.target.rate if job.target.rate is not None else info.rate
    warnings += _rate_warnings(job, info, rate)
    whole = source_end(job, info)
    time_map = _time_map(job, info, camera, frame_times, whole, warnings)
    warnings += told_of_end(job, info, time_map.end)
    if time_map.start == 0:
        warnings += early_sound(job, info)
    container = container_of(job.output)
    to_sdr = job.encoding.dynamic_range is DynamicRange.SDR and info.colour.hdr is not None
    tone = tone_mapping(info.colour, info.mastering) if to_sdr else None
    encoder = resolve_encoding(job.encoding, job.model.mode, info.colour if tone is None else SDR, container, rate)

    _check_length(info, time_map, rate)
    count = max(1, int(Fraction(time_map.duration).limit_denominator(10**9) * rate + Fraction(1, 2)))
    wanted = time_map.to_source(np.arange(count, dtype=np.float64) * rate.denominator / rate.numerator)
    source_index = _choose_frames(info, wanted)
    with _named(job):
        lookups = frame_times.lookups(source_index, wanted)
        rects, moved = camera.inside_at(lookups, info.width, info.height, frame_times.cut_slack(camera))
    job = replace(job, target=in_pixels(job.target, rects, max(models, default=1)))
    target = (job.target.width, job.target.height)
    if job.target.fit is Fit.COVER:
        rects = cover_all(rects, job.target.aspect)
    placements = place(rects, target, job.target.fit)
    geometry = Geometry(display=(info.width, info.height), lattice=info.lattice, rotation=camera.rotation % 360)
    warnings += camera_warnings(
        camera, job.target, info, (time_map.start, time_map.end), rects, moved, whole=framing is None
    )
    if info.bit_depth > 8 and tone is None and encoder.bit_depth == 8:
        warnings.append(say("the source has {} bits, the result 8: {bit_depth=10} keeps them", info.bit_depth))

    warnings += _steady_warnings(job, info)
    ratio = float(geometry.ratios(rects, placements).max())
    model = _choose_model(models, ratio, warnings)
    if job.model.strength == 0 and model is not None:
        warnings.append(say("{strength=0} shows nothing of a network's picture: no network is used"))
        model = None
    elif job.model.strength < 1 and model is None:
        warnings.append(say("{strength=} changes nothing: no network is used", f"{job.model.strength:g}"))
    compute = job.compute
    executions = (
        possible_executions(model, compute.device, compute.precision, on_cpu=on_cpu, gpus=gpus) if model else ()
    )
    on_cpu_in = next((way.precision for way in executions if way.kind == "cpu"), None)
    if model is not None and model.blend and compute.precision is Precision.AUTO and on_cpu_in is not None:
        warnings.append(
            say(
                "{look=} is between those that there are in int8 (natural, balanced and crisp): on a CPU it takes {}, "
                "which is slower",
                f"{model.look:g}",
                on_cpu_in,
            )
        )
    # The source is sampled too where only a part of the network's picture is shown.
    windows = geometry.windows(rects, placements, model.scale if model and job.model.strength == 1 else 1)
    tracks = plan_tracks(
        info.streams,
        info.video_index,
        container,
        time_map,
        source_duration=whole,
        audio=job.encoding.audio,
    )
    warnings += [
        f"{track.kind} stream {track.index} is left out: {track.reason}"
        for track in tracks
        if track.action == "drop" and track.missed
    ]
    return Plan(
        job=job,
        info=info,
        framing=camera,
        rate=rate,
        time_map=time_map,
        container=container,
        encoder=encoder,
        geometry=geometry,
        source_index=source_index,
        rects=rects,
        placements=placements,
        windows=windows,
        model=model,
        executions=executions,
        chunks=chunks_of(count, rate, job.chunk_seconds),
        tracks=tracks,
        warnings=tuple(warnings),
        estimate=make_estimate(job, info, encoder, model, executions, windows, source_index, speeds),
        tone=tone,
    )


@contextmanager
def _named(job: Job) -> Iterator[None]:
    """Let errors of the camera name its file."""
    try:
        yield
    except FramingError as error:
        if job.keyframes is not None:
            name = "standard input" if job.keyframes == STANDARD_INPUT else job.keyframes
            error.message = f"{name}: {error.message}"
        raise


def _camera(job: Job, info: VideoInfo, framing: Framing | None) -> Framing:
    """The camera in pixels and seconds of the source, if it can be meant so."""
    if framing is None:
        return Framing.whole(info.width, info.height)
    with _named(job):
        refuse_misread_coordinates(framing, (info.width, info.height))
        refuse_misread_times(framing, float(info.duration), float(info.rate), job.trim)
        return in_source_units(framing, info.width, info.height, info.times(), float(info.rate))


def _rate_warnings(job: Job, info: VideoInfo, rate: Fraction) -> list[str]:
    warnings: list[str] = []
    if info.variable_rate:
        chosen = say("{fps=source} is taken as {}", f"{float(rate):g}") if job.target.rate is None else "chosen by time"
        warnings.append(say("the source has a variable frame rate (about {}): {}", f"{float(info.rate):.3f}", chosen))
    if info.interlaced:
        warnings.append(f"the source is interlaced ({info.field_order}) and is deinterlaced, one frame a frame")
    if info.damaged:
        warnings.append(f"{info.damaged} frame(s) of the source cannot be decoded")
    return warnings


def _steady_warnings(job: Job, info: VideoInfo) -> list[str]:
    if job.calm.steady == 0 or info.pixel_format in STEADY_FORMATS:
        return []
    why = f"the source's pictures are {info.pixel_format}, which is not averaged"
    if job.calm.steady is not None:
        raise UsageError(why, option="steady", remedy=say("Leave {steady} out, or convert the source to yuv420p."))
    return [say("{steady=auto} does nothing: {}", why)]


def _time_map(
    job: Job, info: VideoInfo, camera: Framing, frame_times: FrameTimes, whole: float, warnings: list[str]
) -> TimeMap:
    start = frame_times.meant(_first(job.trim.start, camera.trim.start, 0.0))
    end = _first(job.trim.end, camera.trim.end, whole)
    # What is shorter than a rounding is meant as it stands.
    end = frame_times.meant(end) if frame_times.meant(end) > start else end
    begins = "the trim starts at {}" if job.trim.start is None else "the trim starts at {} ({start})"
    if not start >= 0:  # NaN as well
        raise UsageError(say(begins, f"{start:g} s"), remedy="Start at 0 or later.")
    if start >= whole:
        raise UsageError(
            say(begins + ", but the source ends at {}", f"{start:g} s", f"{whole:.3f} s"),
            remedy="Start before the source's end.",
        )
    if not end > start:
        raise UsageError(f"the trim from {start:g} s to {end:g} s leaves nothing", remedy="End after the start.")
    if end > whole:
        if end > whole + float(1 / info.rate):
            ends = "the trim ends at {}" if job.trim.end is None else "the trim ends at {} ({end})"
            warnings.append(say(ends + ", the source at {}: its end is used", f"{end:g} s", f"{whole:.3f} s"))
        end = whole
    edges: list[Stretch] = []
    position = start
    for segment in sorted(camera.segments, key=lambda s: s.start):
        first, last = frame_times.meant(segment.start), frame_times.meant(segment.end)
        if first == last:
            first, last = segment.start, segment.end
        first, last = max(first, position), min(last, end)
        if first >= last:
            continue
        if first > position:
            edges.append(Stretch(position, first, 1.0))
        edges.append(Stretch(first, last, segment.speed))
        position = last
    if position < end:
        edges.append(Stretch(position, end, 1.0))
    return TimeMap(tuple(edges))


def _check_length(info: VideoInfo, time_map: TimeMap, rate: Fraction) -> None:
    frames = time_map.duration * float(rate)
    if time_map.duration <= LONGEST and frames <= MOST_FRAMES:
        return
    gap = float(max(int(np.diff(info.pts).max(initial=0)), info.last_duration) * info.time_base)
    if gap > 3600:
        raise InputError(
            f"one frame of {info.path} stands for {gap:.4g} s: its times are damaged, or the result would have "
            f"{frames:.4g} frames",
            remedy=say("Choose the part to use with {start} and {end}, or remux the file."),
        )
    raise UsageError(
        f"the result would last {time_map.duration:.4g} s and have {frames:.4g} frames; a day, and {MOST_FRAMES} "
        "frames, are the most",
        remedy=say("Make it in parts, with {start} and {end}, or at a lower {fps}."),
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _choose_frames(info: VideoInfo, wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """An output frame that stands at second `wanted` of the source shows the last source frame at or before."""
    times = info.times()
    slack = rounded(info) + 1e-9
    index = np.searchsorted(times, wanted + slack, side="right") - 1
    return np.maximum(index, 0).astype(np.int32)


def _choose_model(models: Mapping[int, ModelSpec], ratio: float, warnings: list[str]) -> ModelSpec | None:
    if not models:
        return None
    if ratio <= 1 + EVENLY:
        warnings.append(f"the result is no larger than what the camera sees (ratio {ratio:.3f}): no network is used")
        return None
    enough = [scale for scale in sorted(models) if scale >= ratio - EVENLY]
    scale = enough[0] if enough else max(models)
    if ratio > scale + EVENLY:
        warnings.append(
            f"the camera is so close that the network's x{scale} picture is enlarged another {ratio / scale:.2f} times"
        )
    return models[scale]


def chunks_of(count: int, rate: Fraction, seconds: float) -> tuple[Chunk, ...]:
    """Chunks of nearly equal length, about `seconds` each."""
    pieces = max(1, round(count / max(1.0, seconds * float(rate))))
    edges = [count * i // pieces for i in range(pieces + 1)]
    return tuple(Chunk(i, a, b) for i, (a, b) in enumerate(pairwise(edges)))
