"""A plan as a small clip without sound: the camera over the source, beside what the result will show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keyscale.engine.job import Codec, Encoding, Mode
from keyscale.engine.pipeline.encoder import ChunkWriter
from keyscale.engine.plan.encoding import resolve_encoding
from keyscale.engine.plan.plan import Plan
from keyscale.engine.review.camera_track import track_of
from keyscale.engine.review.pictures import CAMERA, INK, PAPER, WARNING, font, never, seen, source_pixels, source_view
from keyscale.engine.source.tone import SDR

__all__ = ["even", "write_preview_clip"]

SOURCE = (640, 480)
"""Most pixels of the source, across and down."""

GAP, STRIP = 8, 28
"""Pixels between both pictures, and of height of the line beneath them."""

ENCODING = Encoding(codec=Codec.H264, crf=23, preset="veryfast")


def even(value: float) -> int:
    """The nearest even whole number, 2 or more: 4:2:0 video has even sides only."""
    return max(2, 2 * round(value / 2))


def write_preview_clip(plan: Plan, path: Path, should_stop: Callable[[], bool] = never) -> None:
    """Write the clip as MP4, whatever the path's extension, at the rate of the result.

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
    settings = resolve_encoding(ENCODING, Mode.FAST, SDR, "mp4", plan.rate)
    with ChunkWriter(path, settings, SDR.encoded(settings.codec), whole, plan.rate) as writer:
        for frame, pixels in source_pixels(plan, range(plan.frames), should_stop):
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
