"""Small videos made to measure: every frame carries its number, and clicks sound at known times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from keyscale.engine.source.sound import samples_of

Samples = npt.NDArray[np.float32]

CELL = 16
"""Side in pixels of one bit of the frame number; four to a row, three rows."""
X264 = {"bf": "2", "g": "250", "preset": "ultrafast", "b-adapt": "0"}


def numbered(number: int, size: tuple[int, int] = (64, 64)) -> npt.NDArray[np.uint8]:
    """An RGB picture `(H, W, 3)` with twelve bits of `number` as dark and bright cells, on grey."""
    width, height = size
    picture = np.full((height, width, 3), 110, np.uint8)
    for bit in range(12):
        row, column = divmod(bit, 4)
        cell = picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        cell[:] = 220 if number >> bit & 1 else 30
    return picture


def number_of(picture: npt.NDArray[Any]) -> int:
    """The number in a picture made by `numbered`, `(H, W, 3)` or grey `(H, W)`, of the same size."""
    cells = (divmod(bit, 4) for bit in range(12))
    middles = [picture[row * CELL + 4 : row * CELL + 12, col * CELL + 4 : col * CELL + 12] for row, col in cells]
    return sum(int(middle.mean() > 125) << bit for bit, middle in enumerate(middles))


def clicks_track(times: Sequence[float], *, seconds: float, sample_rate: int, channels: int = 2) -> Samples:
    """Sound with a 3 ms burst of 2 kHz at each time and a faint hum between, `(channels, samples)`."""
    sound = 0.01 * np.sin(2 * np.pi * 150 * np.arange(round(seconds * sample_rate)) / sample_rate)
    length = round(0.003 * sample_rate)
    burst = 0.8 * np.sin(2 * np.pi * 2000 * np.arange(length) / sample_rate)
    for time in times:
        place = round(time * sample_rate)
        part = sound[place : place + length]
        part += burst[: part.size]
    return np.repeat(sound[None].astype(np.float32), channels, axis=0)


def make_clip(
    path: Path,
    *,
    frames: int,
    rate: Fraction | int,
    size: tuple[int, int] = (64, 64),
    first_number: int = 0,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    video_start: Fraction = Fraction(0),
    sounds: Sequence[Samples] = (),
    sample_rate: int = 48000,
    audio_codec: str = "aac",
    layout: str | None = None,
    audio_start: Fraction = Fraction(0),
    languages: Sequence[str] = (),
    dispositions: Sequence[Disposition] = (),
    subtitles: Sequence[tuple[float, float, str]] = (),
    subtitle_codec: str = "subrip",
    chapters: Sequence[tuple[float, float, str]] = (),
    metadata: dict[str, str] | None = None,
    attachments: Sequence[tuple[str, str, bytes]] = (),
) -> Path:
    """Write a video of numbered frames; the container follows the extension.

    Args:
        path: where to write.
        frames: how many.
        rate: frames a second.
        size: width and height in pixels, at least 64 by 48.
        first_number: number in the first frame.
        codec: FFmpeg's encoder of the video; tagged BT.709, limited range.
        options: of that encoder.
        video_start: seconds at which the first frame is shown.
        sounds: one audio track each, `(channels, samples)`.
        sample_rate: of all sounds.
        audio_codec: FFmpeg's encoder of all sounds.
        layout: channel layout; by default mono or stereo.
        audio_start: seconds at which all sounds begin.
        languages: of the sounds, in order.
        dispositions: of the sounds, in order.
        subtitles: start and end in seconds, and text, of one subtitle track.
        subtitle_codec: FFmpeg's name of a text codec that is plain text in the container.
        chapters: start and end in seconds, and title.
        metadata: of the container.
        attachments: name, MIME type and content (Matroska only).
    """
    with av.open(path, "w") as out:
        out.metadata.update(metadata or {})
        out.set_chapters(
            [
                {
                    "id": number + 1,
                    "start": round(start * 1000),
                    "end": round(end * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for number, (start, end, title) in enumerate(chapters)
            ]
        )
        video = _video_stream(out, codec, Fraction(rate), size, X264 if codec == "libx264" else {})
        video.options.update(options or {})
        tracks = []
        for number, sound in enumerate(sounds):
            track = out.add_stream(audio_codec, rate=sample_rate)
            assert isinstance(track, AudioStream)
            track.codec_context.layout = layout or ("mono" if sound.shape[0] == 1 else "stereo")
            track.codec_context.time_base = Fraction(1, sample_rate)
            if number < len(languages):
                track.metadata["language"] = languages[number]
            if number < len(dispositions):
                track.disposition = dispositions[number]
            tracks.append((track, sound))
        words = out.add_mux_stream(subtitle_codec, time_base=Fraction(1, 1000)) if subtitles else None
        for name, mimetype, content in attachments:
            out.add_attachment(name, mimetype, content)

        out.start_encoding()
        due: list[Packet[Any]] = []
        start = round(video_start * rate)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(first_number + number, size), format="rgb24")
            frame.pts, frame.time_base = start + number, 1 / Fraction(rate)
            frame.colorspace = frame.color_range = 1
            due += video.encode(frame)
        due += video.encode(None)
        for track, sound in tracks:
            due += _encoded(track, sound, sample_rate, round(audio_start * sample_rate))
        for begin, end, text in subtitles:
            packet = Packet(text.encode())
            assert words is not None
            packet.stream, packet.time_base = words, Fraction(1, 1000)
            packet.pts = packet.dts = round(begin * 1000)
            packet.duration = round((end - begin) * 1000)
            due.append(packet)
        out.mux(sorted(due, key=lambda packet: (packet.dts or 0) * packet.time_base))
    return path


def make_chunks(folder: Path, lengths: Sequence[int], rate: Fraction | int, **more: Any) -> list[Path]:
    """Chunk files `chunk-00000.mp4`, ... of numbered frames that count through; `more` goes to `make_clip`."""
    suffix = more.pop("suffix", ".mp4")
    paths, first = [], 0
    for index, length in enumerate(lengths):
        path = folder / f"chunk-{index:05}{suffix}"
        paths.append(make_clip(path, frames=length, rate=rate, first_number=first, **more))
        first += length
    return paths


def numbers_in(path: Path) -> list[tuple[Fraction, int]]:
    """Time in seconds and number of every frame, in order of display."""
    with av.open(path) as container:
        stream = _pictures(container.streams.video)
        return [
            (Fraction(frame.pts or 0) * (frame.time_base or 0), number_of(frame.to_ndarray(format="gray")))
            for frame in container.decode(stream)
        ]


def sound_of(path: Path, track: int = 0) -> tuple[Fraction, Samples, int]:
    """Time in seconds of the first decoded sample, all samples `(channels, N)`, and their rate.

    Gaps are not filled: the decoder's samples are laid end to end.
    """
    with av.open(path) as container:
        stream = container.streams.audio[track]
        start: Fraction | None = None
        parts = []
        for frame in container.decode(stream):
            if start is None:
                start = Fraction(frame.pts or 0) * (frame.time_base or 0)
            parts.append(samples_of(frame))
        assert start is not None
        return start, np.concatenate(parts, axis=1), stream.rate


def clicks_in(path: Path, track: int = 0) -> list[float]:
    """Times in seconds at which the clicks of `clicks_track` begin, after the first video frame."""
    start, sound, rate = sound_of(path, track)
    with av.open(path) as container:
        frame = next(container.decode(_pictures(container.streams.video)))
        offset = float(start - Fraction(frame.pts or 0) * (frame.time_base or 0))
    return [offset + place / rate for place in onsets(sound[0], rate)]


def onsets(sound: npt.NDArray[np.float32], rate: int) -> list[int]:
    """Samples at which something loud begins after 20 ms of less."""
    loud = np.flatnonzero(np.abs(sound) > 0.3)
    if not loud.size:
        return []
    return [int(loud[0]), *(int(place) for place in loud[1:][np.diff(loud) > 0.02 * rate])]


def packets_of(path: Path, index: int) -> list[tuple[Fraction, bytes]]:
    """Time and content of every packet of a stream."""
    with av.open(path) as container:
        return [
            (Fraction(packet.pts or 0) * packet.time_base, bytes(packet))
            for packet in container.demux(container.streams[index])
            if packet.size
        ]


def _video_stream(
    out: av.container.OutputContainer, codec: str, rate: Fraction, size: tuple[int, int], options: dict[str, str]
) -> VideoStream:
    video = out.add_stream(codec, rate=rate, options=dict(options))
    assert isinstance(video, VideoStream)
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    context = video.codec_context
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    context.thread_count = 1
    return video


def _encoded(track: AudioStream, sound: Samples, rate: int, start: int) -> Iterator[Packet[Any]]:
    layout = track.codec_context.layout
    for place in range(0, sound.shape[1], 1 << 16):
        piece = np.ascontiguousarray(sound[:, place : place + (1 << 16)])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout.name)
        frame.sample_rate = rate
        frame.pts, frame.time_base = start + place, Fraction(1, rate)
        yield from track.encode(frame)
    yield from track.encode(None)


def _pictures(streams: Sequence[VideoStream]) -> VideoStream:
    return next(stream for stream in streams if not stream.disposition & Disposition.attached_pic)
