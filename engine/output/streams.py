"""The result's streams: each made from its template, described as in the source, and given its feed of packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.container.output import OutputContainer
from av.stream import AttachmentStream, Disposition, Stream
from av.video.stream import VideoStream

from keyscale.engine.camera.timemap import TimeMap
from keyscale.engine.errors import EncoderError
from keyscale.engine.output import metadata
from keyscale.engine.output.audio import choose_target, encoded_audio, mapped_audio
from keyscale.engine.output.concat import Timed, only_video
from keyscale.engine.output.copies import CopiedSpan, copied_audio, copied_subtitles, picture_of
from keyscale.engine.output.decode_audio import AudioReport, AudioSource, measure_audio
from keyscale.engine.plan.tracks import Container, TrackPlan
from keyscale.engine.source.timeline import Retiming
from keyscale.engine.wording import say

__all__ = ["AudioTrack", "Build", "add_track", "add_video", "main_video"]

_COVER_TYPES = {"mjpeg": "jpeg", "png": "png", "bmp": "bmp", "gif": "gif", "webp": "webp", "tiff": "tiff"}


@dataclass(frozen=True)
class AudioTrack:
    """One audio track of the result and what it should be found to hold."""

    index: int
    """Stream index in the source."""
    codec: str
    action: str
    """`copy` or `encode`."""
    start: Fraction
    """Seconds of the result at which it is first heard."""
    duration: Fraction
    """Seconds from `start` to its end."""


@dataclass
class Build:
    """The result while it is put together."""

    container: OutputContainer
    kind: Container
    source: str
    origin: Fraction
    time_map: TimeMap
    duration: Fraction
    keep_going: bool
    look_ahead: int
    retiming: Retiming | None = None
    feeds: list[Iterator[Timed]] = field(default_factory=list)
    audio: list[Callable[[], AudioTrack]] = field(default_factory=list)
    reports: list[AudioReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def add_video(build: Build, chunks: Sequence[Path], rate: Fraction, main: Stream | None) -> VideoStream:
    """The result's video stream, coded as the first chunk is and described as the source's stream `main`.

    Raises:
        EncoderError: the container does not hold the chunks' codec.
    """
    with av.open(f"file:{chunks[0]}") as chunk:
        template = only_video(chunk, chunks[0])
        try:
            video = build.container.add_stream_from_template(template, opaque=True)
        except ValueError as error:
            raise EncoderError(
                f"{build.kind} does not hold {template.codec_context.name} video",
                remedy=say("Choose another container by the output's extension, or another {codec}."),
            ) from error
        context = video.codec_context
        context.framerate = rate
        if build.kind in ("mp4", "mov"):
            # Apple's players want hvc1; of ProRes the tag alone tells the profile.
            context.codec_tag = "hvc1" if context.name == "hevc" else template.codec_context.codec_tag
        elif context.name == "prores":
            context.codec_tag = template.codec_context.codec_tag
    video.time_base = 1 / rate
    if main is not None:
        _describe(video, main)
    return video


def add_track(build: Build, plan: TrackPlan, source: Stream) -> None:
    """Add what `plan` makes of stream `source`, which is not dropped."""
    if plan.kind == "audio":
        if plan.action == "copy":
            _add_copied_audio(build, plan, source)
        else:
            _add_encoded_audio(build, plan, cast(AudioStream, source))
    elif plan.kind == "subtitle":
        out = build.container.add_stream_from_template(source)
        out.time_base = Fraction(1, 1000)
        _describe(out, source)
        build.feeds.append(
            copied_subtitles(
                build.source,
                plan.index,
                out,
                origin=build.origin,
                time_map=build.time_map,
                retiming=build.retiming,
                look_ahead=build.look_ahead,
            )
        )
    elif plan.kind == "cover":
        _add_cover(build, plan, source)
    elif plan.kind == "attachment":
        attachment = cast(AttachmentStream, source)
        _attach(
            build,
            attachment.name or f"attachment-{plan.index}",
            attachment.mimetype or "application/octet-stream",
            attachment.data,
            source,
        )


def _add_copied_audio(build: Build, plan: TrackPlan, source: Stream) -> None:
    out = build.container.add_stream_from_template(source)
    _describe(out, source)
    span = CopiedSpan()
    build.feeds.append(
        copied_audio(
            build.source,
            plan.index,
            out,
            container=build.kind,
            origin=build.origin,
            end=build.duration,
            span=span,
            look_ahead=build.look_ahead,
        )
    )

    def describe() -> AudioTrack:
        start, end = span.start or Fraction(0), span.end or Fraction(0)
        return AudioTrack(plan.index, plan.codec or "", "copy", start, max(Fraction(0), end - start))

    build.audio.append(describe)


def _add_encoded_audio(build: Build, plan: TrackPlan, source: AudioStream) -> None:
    rate, layout = measure_audio(build.source, plan.index, look_ahead=build.look_ahead)
    target = choose_target(plan.codec or "aac", sample_rate=rate, layout=layout)
    if target.note:
        build.notes.append(f"Audio stream {plan.index}: {target.note}.")
    out = build.container.add_stream(target.encoder, rate=target.sample_rate)
    if not isinstance(out, AudioStream):
        raise EncoderError(f"{target.encoder} is not an audio encoder")
    context = out.codec_context
    context.layout = target.layout
    context.format = target.format
    if target.bit_rate:
        context.bit_rate = target.bit_rate
    context.time_base = Fraction(1, target.sample_rate)
    _describe(out, source)
    report = AudioReport()
    build.reports.append(report)
    sound = mapped_audio(
        AudioSource(
            path=build.source,
            index=plan.index,
            origin=build.origin,
            rate=rate,
            retiming=build.retiming,
            look_ahead=build.look_ahead,
        ),
        time_map=build.time_map,
        target=target,
        duration=build.duration,
        report=report,
        keep_going=build.keep_going,
    )
    build.feeds.append(encoded_audio(sound, target, out))
    build.audio.append(lambda: AudioTrack(plan.index, target.codec, "encode", Fraction(0), build.duration))


def _add_cover(build: Build, plan: TrackPlan, source: Stream) -> None:
    picture = picture_of(build.source, plan.index, look_ahead=build.look_ahead)
    if picture is None:
        build.notes.append(f"The cover art in stream {plan.index} is empty and was left out.")
        return
    if build.kind == "mkv":
        kind = _COVER_TYPES[plan.codec or ""]
        name = source.metadata.get("filename") or f"cover.{'jpg' if kind == 'jpeg' else kind}"
        _attach(build, name, source.metadata.get("mimetype") or f"image/{kind}", bytes(picture), source)
        return
    out = build.container.add_stream_from_template(source, opaque=True)
    # The mov muxer takes a stream for cover art only where this is its one disposition.
    out.disposition = Disposition.attached_pic
    picture.stream = out
    picture.pts = picture.dts = 0
    build.feeds.append(iter([(-1e9, picture)]))


def _attach(build: Build, name: str, mimetype: str, data: bytes, source: Stream) -> None:
    out = build.container.add_attachment(name, mimetype, data)
    out.metadata.update({k: v for k, v in metadata.worth_keeping(source.metadata).items() if k not in out.metadata})


def _describe(out: Stream, source: Stream) -> None:
    out.metadata.update(metadata.worth_keeping(source.metadata))
    out.disposition = source.disposition


def main_video(head: InputContainer, video_index: int | None) -> Stream | None:
    """The source's stream `video_index`, or its first that is not cover art; None where there is none."""
    if video_index is not None:
        return head.streams[video_index]
    return next((s for s in head.streams.video if not s.disposition & Disposition.attached_pic), None)
