"""What becomes of the source's other streams: copied, encoded anew, or dropped with a reason.

Pure: a decision from the header's claims, the container and the time map; `output.mux` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from keyscale.engine.camera.timemap import TimeMap
from keyscale.engine.errors import UsageError
from keyscale.engine.source.probe import StreamInfo

__all__ = [
    "CONTAINERS",
    "Container",
    "TrackPlan",
    "container_of",
    "content_type_of",
    "is_readable",
    "plan_tracks",
    "video_codec_fits",
]

Container = Literal["mp4", "mov", "mkv", "webm"]

CONTAINERS: dict[str, Container] = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "mkv",
    ".webm": "webm",
}
"""Container by file extension, in lower case."""

_CONTENT_TYPES: dict[Container, str] = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "mkv": "video/matroska",
    "webm": "video/webm",
}
"""As registered with IANA; Matroska by RFC 9559."""

_SAME_END = 0.05
"""Seconds by which a time map may end before the source does and still count as untrimmed: a frame or two, from
rounding to whole frames."""

# The tables hold FFmpeg's codec names and are what the muxers of FFmpeg 8.1 accept (`avformat_query_codec`, asked
# by a test), less what they accept and common players do not: PCM in MP4, and codecs of another era.
_PCM_MOV = {f"pcm_{kind}" for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be")}
_PCM_MKV = {f"pcm_{kind}" for kind in ("u8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f64le")}

_VIDEO: dict[Container, frozenset[str]] = {
    "mp4": frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"}),
    "mov": frozenset({"h264", "hevc", "prores", "mpeg4", "mjpeg"}),
    "mkv": frozenset({"h264", "hevc", "av1", "vp8", "vp9", "prores", "ffv1", "mpeg4", "mpeg2video", "mjpeg"}),
    "webm": frozenset({"vp8", "vp9", "av1"}),
}
_AUDIO: dict[Container, frozenset[str]] = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "dts"}),
    "mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_mulaw", "pcm_alaw", *_PCM_MOV}),
    "mkv": frozenset(
        {"aac", "mp3", "mp2", "ac3", "eac3", "dts", "truehd", "mlp", "alac", "opus", "vorbis", "flac", "tta"}
        | {"wavpack", *_PCM_MKV}
    ),
    "webm": frozenset({"opus", "vorbis"}),
}
_SUBTITLE: dict[Container, frozenset[str]] = {
    "mp4": frozenset({"mov_text"}),
    "mov": frozenset({"mov_text"}),
    "mkv": frozenset(
        {"subrip", "ass", "webvtt", "text"}
        | {"hdmv_pgs_subtitle", "hdmv_text_subtitle", "dvd_subtitle", "dvb_subtitle", "arib_caption"}
    ),
    "webm": frozenset({"webvtt"}),
}
_COVER: dict[Container, frozenset[str]] = {
    # FFmpeg's mov muxer writes cover art (`covr`) into MP4 alone.
    "mp4": frozenset({"mjpeg", "png"}),
    "mov": frozenset(),
    "mkv": frozenset({"mjpeg", "png", "bmp", "gif", "webp", "tiff"}),
    "webm": frozenset(),
}
_AUDIO_ENCODER: dict[Container, str] = {"mp4": "aac", "mov": "aac", "mkv": "opus", "webm": "opus"}
_MANY_CHANNELS: dict[Container, str] = {"mov": "pcm_s24le", "mkv": "pcm_s24le"}
"""What holds more channels than the encoders above, where the container holds that."""
_MOST_CHANNELS = 8

_LOWEST_MP3 = 16_000
"""Samples a second below which MP3 is of MPEG-2.5, which ISO 14496-12 files have no object type for."""


@dataclass(frozen=True)
class TrackPlan:
    """What happens to one stream of the source other than the video that is upscaled."""

    index: int
    """Stream index in the source."""
    kind: Literal["audio", "subtitle", "attachment", "cover", "video", "data"]
    action: Literal["copy", "encode", "drop"]
    codec: str | None
    """FFmpeg's codec name in the result; of the source where the stream is dropped."""
    reason: str
    """Why, as a clause for people. Empty where there is nothing to tell; never of a stream that is dropped."""
    missed: bool = False
    """Of a dropped stream: somebody may miss it who has not asked for that, which is worth a warning."""


def container_of(path: str) -> Container:
    """The container that a path's extension asks for.

    Raises:
        UsageError: another extension, or none.
    """
    suffix = PurePath(path).suffix
    container = CONTAINERS.get(suffix.lower())
    if container is None:
        what = f"ends in {suffix!r}, which keyscale cannot write" if suffix else "has no extension"
        raise UsageError(f"the output {path!r} {what}", remedy=f"End its name in {', '.join(CONTAINERS)}.")
    return container


def content_type_of(container: Container) -> str:
    """The media type of files of a container."""
    return _CONTENT_TYPES[container]


def video_codec_fits(container: Container, codec: str) -> bool:
    """True where `container` can hold video of FFmpeg's codec name `codec` (`h264`, not `libx264`)."""
    return codec in _VIDEO[container]


def plan_tracks(
    streams: tuple[StreamInfo, ...],
    video_index: int,
    container: Container,
    time_map: TimeMap,
    *,
    source_duration: float | None = None,
    audio: bool = True,
) -> tuple[TrackPlan, ...]:
    """One plan for each stream but `video_index`, in the source's order.

    Args:
        streams: all streams of the source.
        video_index: the stream that is upscaled.
        container: where the result goes.
        time_map: trim and speed of the job.
        source_duration: seconds from the first displayed frame to the end of the last one; None where it is not
            known, then a time map that starts at 0 counts as untrimmed.
        audio: False drops every audio stream, as it was asked for.
    """
    untouched = (
        time_map.is_uniform
        and time_map.start == 0
        and (source_duration is None or time_map.end >= source_duration - _SAME_END)
    )
    plans = []
    for stream in streams:
        if stream.index == video_index:
            continue
        if stream.attached_picture:
            plans.append(_plan_cover(stream, container))
        elif stream.kind == "audio":
            plans.append(_plan_audio(stream, container, untouched=untouched, wanted=audio))
        elif stream.kind == "subtitle":
            plans.append(_plan_subtitle(stream, container))
        elif stream.kind == "attachment":
            plans.append(_plan_attachment(stream, container))
        elif stream.kind == "video":
            plans.append(_dropped(stream, "video", "only one video stream is upscaled"))
        else:
            plans.append(_plan_data(stream))
    return tuple(plans)


def is_readable(stream: StreamInfo) -> bool:
    """Whether something can come of an audio stream."""
    return stream.codec is not None and stream.sample_rate != 0 and stream.channels != 0


def _dropped(
    stream: StreamInfo, kind: Literal["audio", "subtitle", "attachment", "cover", "video", "data"], reason: str
) -> TrackPlan:
    return TrackPlan(stream.index, kind, "drop", stream.codec, reason, missed=True)


def _plan_audio(stream: StreamInfo, container: Container, *, untouched: bool, wanted: bool) -> TrackPlan:
    if not wanted:
        return TrackPlan(stream.index, "audio", "drop", stream.codec, "the sound is not wanted")
    if stream.codec is None:
        return _dropped(stream, "audio", "its codec is not known, so it cannot be read")
    if not is_readable(stream):
        return _dropped(stream, "audio", "nothing in it can be decoded")
    reason = ""
    if stream.codec not in _AUDIO[container]:
        reason = f"{container} does not hold {stream.codec} audio"
    elif container == "mp4" and stream.codec == "mp3" and 0 < (stream.sample_rate or 0) < _LOWEST_MP3:
        reason = f"mp4 does not hold mp3 audio of {stream.sample_rate} Hz"
    elif stream.disordered:
        reason = "its times step back, which no copy can"
    elif not untouched:
        reason = "trim and speed cut it to the sample"
    if reason:
        codec = _AUDIO_ENCODER[container]
        if (stream.channels or 0) > _MOST_CHANNELS:
            codec = _MANY_CHANNELS.get(container, codec)
        return TrackPlan(stream.index, "audio", "encode", codec, reason)
    return TrackPlan(stream.index, "audio", "copy", stream.codec, "")


def _plan_subtitle(stream: StreamInfo, container: Container) -> TrackPlan:
    if stream.codec in _SUBTITLE[container]:
        return TrackPlan(stream.index, "subtitle", "copy", stream.codec, "")
    reason = f"{container} does not hold {stream.codec or 'unknown'} subtitles"
    if container != "mkv" and stream.codec in _SUBTITLE["mkv"]:
        reason += ", mkv does"
    elif container not in ("mp4", "mov") and stream.codec in _SUBTITLE["mp4"]:
        reason += ", mp4 and mov do"
    return _dropped(stream, "subtitle", reason)


def _plan_attachment(stream: StreamInfo, container: Container) -> TrackPlan:
    if container == "mkv":
        return TrackPlan(stream.index, "attachment", "copy", stream.codec, "")
    return _dropped(stream, "attachment", f"{container} holds no attachments, mkv does")


def _plan_cover(stream: StreamInfo, container: Container) -> TrackPlan:
    if stream.codec in _COVER[container]:
        return TrackPlan(stream.index, "cover", "copy", stream.codec, "")
    return _dropped(stream, "cover", f"{container} does not hold cover art of codec {stream.codec or 'unknown'}")


def _plan_data(stream: StreamInfo) -> TrackPlan:
    # Timecode, chapter text and makers' private tracks come without a codec of their own: nobody misses them, and
    # chapters are carried over as chapters. What has a name (GPS, KLV, ID3) is worth a warning.
    if stream.codec in (None, "bin_data", "none"):
        reason = "timecode, chapter text and makers' own data are not carried over as tracks"
        return TrackPlan(stream.index, "data", "drop", stream.codec, reason)
    return _dropped(stream, "data", f"{stream.codec} data is not carried over")
