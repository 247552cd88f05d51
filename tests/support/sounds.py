"""Videos whose sound is known channel by channel: each has a tone of its own, or bursts at known times."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from keyscale.engine.source.sound import Samples, decoded_sound, frame_of, samples_of
from support.clips import numbered
from support.numbered import SMALL, Picture

__all__ = ["LOUD", "channels_of_tones", "tones", "tones_in", "write_sound"]

LOUD = 0.2
"""Height of a tone."""


def tones(channels: int, seconds: float = 1.5, rate: int = 48000) -> Samples:
    """Channel `n` has a tone of 300 + 150 n Hz, `(channels, samples)`."""
    time = np.arange(round(seconds * rate)) / rate
    each = [LOUD * np.sin(2 * np.pi * (300 + 150 * channel) * time) for channel in range(channels)]
    return np.stack(each).astype(np.float32)


def write_sound(
    path: Path,
    sounds: Sequence[Samples],
    *,
    codec: str,
    layout: str,
    rate: int = 48000,
    frames: int = 25,
    fps: int = 25,
    sound_start: float = 0.0,
    video_start: float = 0.0,
    video_codec: str = "libx264",
    video_options: dict[str, str] | None = None,
    picture: Picture | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video with numbered frames, or `picture` again and again, and tracks of sound.

    Args:
        path: where to write; the container follows the extension.
        sounds: one track each, `(channels, samples)`.
        codec: FFmpeg's encoder of the sound.
        layout: FFmpeg's name of its layout.
        rate: samples a second.
        frames: how many.
        fps: frames a second.
        sound_start: seconds at which the sound begins.
        video_start: seconds at which the picture begins.
        video_codec: FFmpeg's encoder of the picture.
        video_options: of that encoder.
        picture: instead of numbered ones.
        options: of the sound's encoder.
    """
    size = SMALL if picture is None else (picture.shape[1], picture.shape[0])
    usual = {"preset": "ultrafast", "bf": "0", "g": "25"} if video_codec == "libx264" else {"g": "12"}
    with av.open(path, "w") as out:
        video = out.add_stream(video_codec, rate=fps, options=usual | (video_options or {}))
        assert isinstance(video, VideoStream)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, fps)
        video.codec_context.thread_count = 1
        tracks = []
        for _ in sounds:
            track = out.add_stream(codec, rate=rate, options={"strict": "-2"} | (options or {}))
            assert isinstance(track, AudioStream)
            track.codec_context.layout = layout
            track.codec_context.time_base = Fraction(1, rate)
            tracks.append(track)
        due: list[Any] = []
        for number in range(frames):
            shown = numbered(number, size) if picture is None else picture
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts, frame.time_base = number + round(video_start * fps), Fraction(1, fps)
            due += video.encode(frame)
        due += video.encode(None)
        for track, sound in zip(tracks, sounds, strict=True):
            for place in range(0, sound.shape[1], 1152):
                at = place + round(sound_start * rate)
                piece = sound[:, place : place + 1152]
                due += track.encode(frame_of(piece, layout=layout, rate=rate, place=at))
            due += track.encode(None)
        for packet in sorted(due, key=lambda packet: (packet.dts or 0) * packet.time_base):
            out.mux(packet)
    return path


def channels_of_tones(path: Path, track: int = 0) -> list[int | None]:
    """Which channel of `tones` each channel of a file holds; None where it holds less than half of one's height."""
    with av.open(path) as container:
        stream = container.streams.audio[track]
        parts = [samples_of(frame) for packet in container.demux(stream) for frame in decoded_sound(packet)]
        rate = stream.rate
    return tones_in(np.concatenate(parts, axis=1), rate)


def tones_in(sound: Samples, rate: int) -> list[int | None]:
    """As `channels_of_tones`, of samples of at least 0.75 s."""
    sound = sound[:, rate // 4 : rate // 4 + rate // 2]
    window = np.hanning(sound.shape[1])
    heights = np.abs(np.fft.rfft(sound * window, axis=1)) * 2 / window.sum()
    found: list[int | None] = []
    for each in heights:
        tone = (each.argmax() * rate / sound.shape[1] - 300) / 150
        is_one = abs(tone - round(tone)) < 0.1 and each.max() > LOUD / 2
        found.append(round(tone) if is_one else None)
    return found
