"""The source's file of a case of the fuzz."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream

from keyscale.engine.source.canvas import Crop
from keyscale.engine.source.sound import frame_of
from support.clips import Samples
from support.embedded import in_jpeg, pixel_crop
from support.fuzz import CELL, CELLS, CELLS_AT, DISPLAY, MS, SIGMA, SPOTS, VIDEO, Case, Track
from support.numbered import Picture, turn

__all__ = ["write_source"]


def drawn(number: int, size: tuple[int, int] = DISPLAY) -> Picture:
    """The displayed picture with a number and two spots, on a grid of `size` stored pixels `(H, W, 3)`."""
    x = (np.arange(size[0]) + 0.5) * DISPLAY[0] / size[0]
    y = (np.arange(size[1]) + 0.5) * DISPLAY[1] / size[1]
    light = np.full((size[1], size[0]), 110.0)
    for across, down in SPOTS:
        light += 110 * np.exp(-np.add.outer((y - down) ** 2, (x - across) ** 2) / (2 * SIGMA**2))
    columns, rows = np.floor((x - CELLS_AT[0]) / CELL), np.floor((y - CELLS_AT[1]) / CELL)
    for bit in range(CELLS[0] * CELLS[1]):
        row, column = divmod(bit, CELLS[0])
        light[np.ix_(rows == row, columns == column)] = 220 if number >> bit & 1 else 30
    return np.asarray(np.rint(light)[..., None].repeat(3, axis=2), np.uint8)


def stored(case: Case, number: int) -> Picture:
    """The picture as its codec gets it."""
    shape = case.shape
    # Square pixels are made by adding some, across or down: no line or column of the source is lost.
    size = round(DISPLAY[0] / max(shape.aspect, Fraction(1))), round(DISPLAY[1] * min(shape.aspect, Fraction(1)))
    picture = drawn(number, size)
    picture = np.ascontiguousarray(np.rot90(picture, shape.turned // 90))
    left, top, right, bottom = shape.crop
    return np.pad(picture, ((top, bottom), (left, right), (0, 0)), constant_values=255) if any(shape.crop) else picture


def sound_of_track(track: Track, begins: Fraction, ends: Fraction) -> Samples:
    """Bursts of 3 ms on every channel with a faint hum, `(channels, samples)`, from `begins` to `ends`."""
    channels = av.AudioLayout(track.layout).nb_channels
    count = round((ends - begins) * track.rate)
    sound = 0.01 * np.sin(2 * np.pi * 150 * np.arange(count) / track.rate)
    burst = 0.8 * np.sin(2 * np.pi * 2000 * np.arange(round(0.003 * track.rate)) / track.rate)
    for time in track.bursts:
        place = round((time - begins) * track.rate)
        if 0 <= place < count:
            part = sound[place : place + burst.size]
            part += burst[: part.size]
    return np.repeat(sound[None].astype(np.float32), channels, axis=0)


def write_source(case: Case, folder: Path) -> Path:
    """The file of a case."""
    path = folder / f"in{case.kind.suffix}"
    count = len(case.times)
    if not case.joint:
        span = (case.track.begins, case.track.ends) if case.track else None
        return _write(path, case, range(count), span)
    middle = case.times[case.joint]
    spans = ((Fraction(0), middle), (middle, case.track.ends)) if case.track else (None, None)
    parts = [
        _write(folder / f"{name}{case.kind.suffix}", case, frames, span).read_bytes()
        for name, frames, span in zip("ab", (range(case.joint), range(case.joint, count)), spans, strict=True)
    ]
    path.write_bytes(b"".join(parts))
    return path


def _write(path: Path, case: Case, frames: range, span: tuple[Fraction, Fraction] | None) -> Path:
    encoder, pixel_format, options = VIDEO[case.codec]
    first = case.times[frames[0]]
    more = {"video_track_timescale": str(case.base)} if case.base else {}
    with av.open(path, "w", container_options=more) as out:
        video = out.add_stream(encoder, rate=case.rate or Fraction(30), options=dict(options))
        assert isinstance(video, VideoStream)
        height, width = stored(case, 0).shape[:2]
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        context = video.codec_context
        context.time_base = 1 / case.rate if case.rate else max(case.kind.tick or MS, MS)
        context.thread_count = 1
        if any(case.shape.crop) and not case.shape.by_container:
            video.options["x264-params"] = "crop-rect={},{},{},{}".format(*case.shape.crop)
        if case.shape.aspect != 1:
            context.sample_aspect_ratio = case.shape.aspect
        if pixel_format.startswith("yuv4"):
            context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        sound: AudioStream | None = None
        if case.track is not None and span is not None:
            made = out.add_stream(case.track.codec, rate=case.track.rate, options={"strict": "-2", "b": "160k"})
            assert isinstance(made, AudioStream)
            sound = made
            sound.codec_context.layout = case.track.layout
            sound.codec_context.time_base = Fraction(1, case.track.rate)
        due: list[Any] = []
        for number in frames:
            frame = av.VideoFrame.from_ndarray(stored(case, number), format="rgb24")
            frame.pts = round((case.times[number] - first + case.offset) / context.time_base)
            frame.time_base = context.time_base
            due += video.encode(_as(frame, pixel_format))
        due += video.encode(None)
        if sound is not None and case.track is not None and span is not None:
            samples: npt.NDArray[np.float32] = sound_of_track(case.track, *span)
            begin = round((span[0] - first + case.offset) * case.track.rate)
            for place in range(0, samples.shape[1], 1152):
                piece = samples[:, place : place + 1152]
                layout = case.track.layout
                due += sound.encode(frame_of(piece, layout=layout, rate=case.track.rate, place=begin + place))
            due += sound.encode(None)
        for packet in sorted(due, key=lambda packet: (packet.dts or 0) * packet.time_base):
            out.mux(_with_exif(packet) if case.shape.exif and packet.stream is video else packet)
    if case.shape.by_container:
        left, top, right, bottom = case.shape.crop
        pixel_crop(path, Crop(left=left, top=top, right=right, bottom=bottom))
    if case.shape.turned:
        turn(path, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[case.shape.turned])
    return path


def _with_exif(packet: Any) -> Any:
    made: Any = Packet(in_jpeg(bytes(packet)))
    made.pts, made.dts, made.duration, made.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    made.stream, made.is_keyframe = packet.stream, True
    return made


def _as(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    if pixel_format == "rgb24":
        return frame
    made = frame.reformat(format=pixel_format, dst_colorspace=5 if pixel_format.startswith("yuvj") else 1)
    made.pts, made.time_base = frame.pts, frame.time_base
    if pixel_format.startswith("yuv4"):
        made.colorspace = made.color_range = 1
    return made
