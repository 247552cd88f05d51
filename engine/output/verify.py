"""The finished file against the plan, before it gets its name: frames, rate, size, duration, sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from keyscale.engine.errors import InputError, Interrupted, VerificationError
from keyscale.engine.job import Verify
from keyscale.engine.output.mux import Assembly
from keyscale.engine.plan.plan import Plan
from keyscale.engine.source.open import frame_is_damaged, open_source
from keyscale.engine.source.sound import decoded_sound

__all__ = ["verify"]

AUDIO_OFFSET = 0.020
"""Seconds that sound may be early or late."""

AUDIO_PACKET = 0.100
"""Seconds by which a track's length may differ: copied sound is cut at packets, encoders pad the last one."""

QUICK_SECONDS = 2.0
"""What `--verify quick` decodes at either end."""


@dataclass
class _Seen:
    frames: int = 0
    damaged: int = 0


def verify(
    path: Path,
    plan: Plan,
    assembly: Assembly,
    *,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Compare a finished file with its plan; every frame is decoded unless the job says `quick`.

    Raises:
        VerificationError: something differs; the message says what.
    """
    try:
        with open_source(path) as container:
            _check_header(container.streams.video[0], plan)
            spans = _check_packets(container, plan)
        _check_audio(spans, assembly)
        full = plan.job.verify is Verify.FULL
        if full:
            _check_sound(path, assembly, should_stop)
        _check_pictures(path, plan, full=full, on_progress=on_progress, should_stop=should_stop)
    except (InputError, av.FFmpegError) as error:
        raise VerificationError(f"the finished file cannot be read back: {error}") from error


def _differs(what: str, found: object, planned: object) -> VerificationError:
    return VerificationError(
        f"the finished file has {what} {found}, planned is {planned}; it was not published",
        remedy="Run the command again; if it fails again, report it with the output of `keyscale plan --json`.",
    )


def _check_header(stream: av.VideoStream, plan: Plan) -> None:
    size = (stream.codec_context.width, stream.codec_context.height)
    target = (plan.job.target.width, plan.job.target.height)
    if size != target:
        raise _differs("the size", "{}x{}".format(*size), "{}x{}".format(*target))
    codec = stream.codec_context.codec.canonical_name
    if codec != plan.encoder.codec:
        raise _differs("the codec", codec, plan.encoder.codec)
    colour = plan.colour
    if stream.codec_context.colorspace != colour.matrix:
        raise _differs("the colour matrix", stream.codec_context.colorspace, colour.matrix)


def _check_packets(container: av.container.InputContainer, plan: Plan) -> dict[int, tuple[float, float]]:
    """Times of all video packets; first and last second of each audio stream, relative to the picture."""
    video: list[int] = []
    spans: dict[int, tuple[float, float]] = {}
    stream = container.streams.video[0]
    for packet in container.demux():
        if packet.pts is None or packet.is_discard:
            continue
        if packet.stream_index == stream.index:
            video.append(packet.pts)
        elif packet.stream.type == "audio" and packet.time_base is not None:
            start = float(packet.pts * packet.time_base)
            end = start + float((packet.duration or 0) * packet.time_base)
            low, high = spans.get(packet.stream_index, (start, end))
            spans[packet.stream_index] = (min(low, start), max(high, end))
    if len(video) != plan.frames:
        raise _differs("a frame count of", len(video), plan.frames)
    time_base = stream.time_base or Fraction(1)
    times = np.sort(np.array(video, dtype=np.int64))
    ideal = np.arange(plan.frames) / float(plan.rate * time_base)
    # Matroska counts milliseconds; elsewhere every frame sits on its tick.
    if np.abs((times - times[0]) - ideal).max() > 1.01:
        raise _differs("times off its rate", "by more than one tick", f"{plan.rate} frames a second")
    first = float(int(times[0]) * time_base)
    return {index: (low - first, high - first) for index, (low, high) in spans.items()}


def _check_audio(spans: dict[int, tuple[float, float]], assembly: Assembly) -> None:
    found = [spans[index] for index in sorted(spans)]
    expected = [track for track in assembly.audio if track.duration > 0]
    if len(found) != len(expected):
        raise _differs("audio tracks with sound:", len(found), len(expected))
    for number, ((start, end), track) in enumerate(zip(found, expected, strict=True)):
        # Priming samples stand before the track's start in some containers; they are not played.
        if start - float(track.start) > AUDIO_OFFSET or float(track.start) - start > AUDIO_PACKET:
            raise _differs(f"audio track {number} starting at", f"{start:.3f} s", f"{float(track.start):.3f} s")
        planned_end = float(track.start + track.duration)
        if abs(end - planned_end) > AUDIO_PACKET:
            raise _differs(f"audio track {number} ending at", f"{end:.3f} s", f"{planned_end:.3f} s")


def _check_sound(path: Path, assembly: Assembly, should_stop: Callable[[], bool] | None) -> None:
    """Decode every audio track: what was encoded here must come out whole, what was copied must come out at all."""
    tracks = [track for track in assembly.audio if track.duration > 0]
    for number, track in enumerate(tracks):
        heard = broken = 0
        with open_source(path) as container:
            stream = container.streams.audio[number]
            for packet in container.demux(stream):
                if should_stop is not None and should_stop():
                    raise Interrupted("stopped while verifying")
                try:
                    heard += len(decoded_sound(packet))
                except av.FFmpegError:
                    broken += 1
        if not heard or (broken and track.action == "encode"):
            raise _differs(f"undecodable packets in audio track {number}:", broken, 0)


def _check_pictures(
    path: Path,
    plan: Plan,
    *,
    full: bool,
    on_progress: Callable[[float], None] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Decode everything, or both ends; the frames must come out whole."""
    head = plan.frames if full else min(plan.frames, round(QUICK_SECONDS * plan.rate))
    # One frame more is asked for, to see one that is too many.
    seen = _decode(path, 0, plan.frames + 1 if full else head, on_progress, should_stop)
    if seen.damaged:
        raise _differs("undecodable frames:", seen.damaged, 0)
    if seen.frames != head:
        raise _differs("decodable frames:", seen.frames, head)
    if not full and head < plan.frames:
        tail = _decode(path, float(plan.duration) - QUICK_SECONDS, None, on_progress, should_stop)
        if tail.damaged or not tail.frames:
            raise _differs("undecodable frames at its end:", tail.damaged, 0)


def _decode(
    path: Path,
    start: float,
    quota: int | None,
    on_progress: Callable[[float], None] | None,
    should_stop: Callable[[], bool] | None,
) -> _Seen:
    seen = _Seen()
    with open_source(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if start > 0 and stream.time_base is not None:
            container.seek(int(Fraction(start) / stream.time_base), stream=stream)
        try:
            for frame in container.decode(stream):
                seen.frames += 1
                seen.damaged += frame_is_damaged(frame)
                if should_stop is not None and should_stop():
                    raise Interrupted("stopped while verifying")
                if on_progress is not None and quota:
                    on_progress(min(1.0, seen.frames / quota))
                if seen.frames == quota:
                    break
        except av.FFmpegError:
            seen.damaged += 1
    return seen
