"""A plan as a small clip without sound: the camera over the source, beside what the result will show."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keyscale.engine.job import Codec, Encoding, Mode
from keyscale.engine.pipeline.encoder import ChunkWriter
from keyscale.engine.plan.encoding import resolve_encoding
from keyscale.engine.plan.plan import Plan
from keyscale.engine.review.camera_track import track_of
from keyscale.engine.review.pictures import CAMERA, INK, PAPER, WARNING, font, seen, source_pixels, source_view
from keyscale.engine.source.tone import SDR

__all__ = ["even", "silent_clip", "write_preview_clip"]

SOURCE = (640, 480)
"""Most pixels of the source, across and down."""

GAP, STRIP = 8, 28
"""Pixels between both pictures, and of height of the line beneath them."""


def even(value: float) -> int:
    """The nearest even whole number, 2 or more: 4:2:0 video has even sides only."""
    return max(2, 2 * round(value / 2))


def silent_clip(path: Path, size: tuple[int, int], rate: Fraction, crf: int) -> ChunkWriter:
    """What writes an MP4 in H.264 and SDR, whatever the path's extension; `size` is even, `rate` in frames a second."""
    encoding = Encoding(codec=Codec.H264, crf=crf, preset="veryfast")
    settings = resolve_encoding(encoding, Mode.FAST, SDR, "mp4", rate)
    return ChunkWriter(path, settings, SDR.encoded(settings.codec), size, rate)


def write_preview_clip(plan: Plan, path: Path) -> None:
    """Write the clip at the rate of the result, as of `silent_clip`.

    Raises:
        KeyscaleError: the source cannot be decoded, or the file cannot be written.
    """
    info, track, rate = plan.info, track_of(plan), float(plan.rate)
    factor = min(1.0, SOURCE[0] / info.width, SOURCE[1] / info.height)
    size = (even(info.width * factor), even(info.height * factor))
    shown = (even(min(size[1] * plan.job.target.aspect, 2 * SOURCE[0])), size[1])
    whole = (size[0] + GAP + shown[0], size[1] + STRIP)
    speeds = dict(track.speeds)
    speed = plan.time_map.stretches[0].speed
    with silent_clip(path, whole, plan.rate, crf=23) as writer:
        for frame, pixels in source_pixels(plan, range(plan.frames)):
            speed = speeds.get(frame, speed)
            picture = Image.new("RGB", whole, PAPER)
            picture.paste(source_view(plan, track, frame, pixels, size), (0, 0))
            picture.paste(seen(plan, frame, pixels, shown), (size[0] + GAP, 0))
            draw = ImageDraw.Draw(picture)
            done = round((whole[0] - 1) * frame / max(1, plan.frames - 1))
            draw.rectangle((0, size[1], done, size[1] + 2), fill=CAMERA)
            words = f"{frame / rate:.2f} s   source {track.seconds[frame]:.2f} s   zoom {track.zoom[frame]:.2f}"
            words += f"   speed {speed:g}" if track.speeds else ""
            warned = "   over the border" if track.outside[frame] else ""
            colour = WARNING if warned else INK
            draw.text((4, size[1] + STRIP / 2 + 1), words + warned, font=font(13), fill=colour, anchor="lm")
            writer.write(np.asarray(picture))
