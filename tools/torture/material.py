"""The sound files that torture starts from: small videos with sound and subtitles, made with PyAV alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream

__all__ = ["FLAGS", "KINDS", "RATE", "Kind", "make_long", "make_noise", "make_video", "upscale"]

SIZE = (64, 48)
RATE = 24
SAMPLE_RATE = 48_000
TICK = Fraction(1, 1000)

FLAGS = ("--model", "lanczos", "--size", "16x16", "--fps", "source", "--preset", "ultrafast", "--progress", "json")
"""What makes a job small: no network, a tiny result."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A container, and what is put into it."""

    suffix: str
    video: str
    audio: str
    subtitles: str | None
    options: tuple[tuple[str, str], ...] = ()


KINDS = (
    Kind(suffix=".mp4", video="libx264", audio="aac", subtitles="mov_text", options=(("g", "8"), ("bf", "2"))),
    Kind(suffix=".mov", video="mpeg4", audio="pcm_s16le", subtitles="mov_text", options=(("g", "8"),)),
    Kind(suffix=".mkv", video="libx264", audio="flac", subtitles="subrip", options=(("g", "8"), ("bf", "2"))),
    Kind(suffix=".webm", video="libvpx-vp9", audio="libopus", subtitles="webvtt", options=(("g", "8"),)),
    # Text has no place in a transport stream, and nothing but pictures and sound in AVI.
    Kind(suffix=".ts", video="libx264", audio="aac", subtitles=None, options=(("g", "8"), ("bf", "2"))),
    Kind(suffix=".avi", video="mpeg4", audio="libmp3lame", subtitles=None, options=(("g", "8"),)),
)


def upscale(source: str, *more: str, keyframes: str | None = None, output: str = "out.mp4") -> tuple[str, ...]:
    """The arguments of a small job over files in the working directory."""
    return ("upscale", source, *([keyframes] if keyframes is not None else []), "-o", output, *FLAGS, *more)


def picture(number: int, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    """An RGB picture `(H, W, 3)` with a bar that moves with `number`."""
    width, height = size
    pixels = np.full((height, width, 3), 110, np.uint8)
    place = 3 * number % width
    pixels[:, place : place + 8] = (220, 60, 30)
    pixels[:: max(1, height // 6)] = 40
    return pixels


def make_video(path: Path, kind: Kind, *, frames: int = 24, size: tuple[int, int] = SIZE) -> Path:
    """Write a video of moving bars with a hum and, where the container holds it, a line of text.

    Args:
        path: where to write.
        kind: the container and its codecs.
        frames: how many, 24 a second.
        size: width and height in pixels.
    """
    seconds = Fraction(frames, RATE)
    with av.open(path, "w") as out:
        video = _video(out, kind.video, size, dict(kind.options))
        audio = out.add_stream(kind.audio, rate=SAMPLE_RATE)
        assert isinstance(audio, AudioStream)
        audio.codec_context.layout = "mono"
        words = out.add_mux_stream(kind.subtitles, time_base=TICK) if kind.subtitles else None
        out.start_encoding()
        due: list[Packet[Any]] = [*_pictures(video, (picture(n, size) for n in range(frames)))]
        due += _sound(audio, seconds)
        if words is not None:
            packet = Packet(b"Hello, world.")
            packet.stream, packet.time_base = words, TICK
            packet.pts = packet.dts = 100
            packet.duration = 500
            due.append(packet)
        out.mux(sorted(due, key=lambda packet: (packet.dts or 0) * packet.time_base))
    return path


def make_noise(path: Path, *, frames: int, size: tuple[int, int], seed: int = 0) -> Path:
    """Write an MP4 that no encoder makes small: the result's size is then known beforehand."""
    drawn = np.random.default_rng(seed)
    with av.open(path, "w") as out:
        video = _video(out, "libx264", size, {"g": "24", "preset": "ultrafast", "crf": "20"})
        noise = (drawn.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(frames))
        out.mux(list(_pictures(video, noise)))
    return path


def make_long(path: Path, *, frames: int, rate: int) -> Path:
    """Write a Matroska file of so many frames, a second of picture and sound over and over, by copying packets."""
    unit = path.with_name(f"unit-{path.name}")
    with av.open(unit, "w") as out:
        video = _video(out, "libx264", SIZE, {"g": str(rate), "bf": "0", "preset": "ultrafast"}, rate=rate)
        audio = out.add_stream("pcm_s16le", rate=8000)
        assert isinstance(audio, AudioStream)
        audio.codec_context.layout = "mono"
        out.start_encoding()
        due = [*_pictures(video, (picture(n) for n in range(rate))), *_sound(audio, Fraction(1), 8000)]
        out.mux(sorted(due, key=lambda packet: (packet.dts or 0) * packet.time_base))
    with av.open(unit) as source, av.open(path, "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams if s.type in {"video", "audio"}}
        packets = [packet for packet in source.demux() if packet.size]
        kept = [(bytes(p), p.stream_index, p.pts, p.dts, p.duration, p.time_base, p.is_keyframe) for p in packets]
        left = frames
        for second in itertools.count():
            for content, index, pts, dts, duration, base, is_key in kept:
                packet = Packet(content)
                packet.stream, packet.time_base, packet.is_keyframe = streams[index], base, is_key
                shift = round(second / base)
                packet.pts, packet.dts, packet.duration = (pts or 0) + shift, (dts or 0) + shift, duration
                if streams[index].type == "video":
                    if not left:
                        unit.unlink()
                        return path
                    left -= 1
                out.mux_one(packet)
    raise AssertionError


def _video(
    out: av.container.OutputContainer, codec: str, size: tuple[int, int], options: dict[str, str], *, rate: int = RATE
) -> VideoStream:
    video = out.add_stream(codec, rate=rate, options=options)
    assert isinstance(video, VideoStream)
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    context = video.codec_context
    context.time_base = Fraction(1, rate)
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    context.thread_count = 1
    return video


def _pictures(video: VideoStream, pictures: Iterator[npt.NDArray[np.uint8]]) -> Iterator[Packet[Any]]:
    for number, pixels in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = number, video.codec_context.time_base
        frame.colorspace = frame.color_range = 1
        yield from video.encode(frame)
    yield from video.encode(None)


def _sound(track: AudioStream, seconds: Fraction, rate: int = SAMPLE_RATE) -> Sequence[Packet[Any]]:
    context = track.codec_context
    samples = (0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    resampler = av.AudioResampler(
        format=context.format, layout="mono", rate=rate, frame_size=context.frame_size or 1024
    )
    packets: list[Packet[Any]] = []
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        packets += track.encode(part)
    return packets + track.encode(None)
