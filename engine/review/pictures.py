"""Frames of a plan to look at: the source with the camera's rectangle, and what that sees, plainly resized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from keyscale.engine.camera.geometry import Window, place
from keyscale.engine.camera.sampler import sample
from keyscale.engine.errors import DecodeError
from keyscale.engine.plan.plan import Plan
from keyscale.engine.review.camera_track import CameraTrack, corners
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.source.reader import Lost, read_frames
from keyscale.engine.source.tone import tone_mapping

__all__ = [
    "CAMERA",
    "DIM",
    "INK",
    "PAPER",
    "WARNING",
    "font",
    "in_lines",
    "seen",
    "source_pixels",
    "source_view",
]

PAPER, INK, DIM = (15, 19, 30), (244, 245, 248), (160, 168, 184)
CAMERA, WARNING = (255, 214, 64), (255, 120, 64)

DARKENED = 0.55
"""Share of `PAPER` in what the camera doesn't see."""

DASH = 6
"""Pixels of a dash, and of the gap after it."""


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that Pillow brings, in pixels."""
    return ImageFont.load_default(size)


def in_lines(text: str, size: int, width: int) -> list[str]:
    """A text in lines of at most `width` pixels, broken between words where there is room for one."""
    face, lines = font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def source_pixels(plan: Plan, frames: Sequence[int]) -> Iterator[tuple[int, PixelArray]]:
    """Each output frame of `frames` (ascending) with the source frame that it shows, uint8 `(H, W, 3)` of the lattice.

    HDR is mapped to SDR. With `--keep-going-on-decode-errors` a frame that is lost is bridged by the one before.

    Raises:
        KeyscaleError: as of `read_frames`.
    """
    info = plan.info
    tone = plan.tone or (tone_mapping(info.colour, info.mastering) if info.colour.hdr else None)
    wanted = sorted({plan.pts(frame) for frame in frames})
    due, pixels = iter(frames), None
    frame = next(due, None)
    for found in read_frames(
        info,
        wanted,
        deep=False,
        tone=tone,
        keep_going=plan.job.keep_going_on_decode_errors,
        should_stop=lambda: False,
    ):
        if not isinstance(found, Lost):
            pixels = found.pixels
        while pixels is not None and frame is not None and plan.pts(frame) <= found.pts:
            yield frame, pixels
            frame = next(due, None)
    if frame is not None and pixels is None:
        raise DecodeError(f"no frame of {info.path} that is looked at can be decoded")


def source_view(plan: Plan, track: CameraTrack, frame: int, pixels: PixelArray, size: tuple[int, int]) -> Image.Image:
    """A source frame at `size` (width, height), bright where the camera sees it, with its rectangle in `CAMERA`.

    Where the rectangle was moved inside, the one that was asked for is dashed in `WARNING`.
    """
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    factor = np.array([size[0] / plan.info.width, size[1] / plan.info.height])
    points = _points(corners(plan, plan.rects[frame][None])[0] * factor)
    dark = Image.blend(image, Image.new("RGB", size, PAPER), DARKENED)
    draw = ImageDraw.Draw(dark)
    if plan.geometry.rotation:
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon(points, fill=255)
        dark.paste(image, mask=mask)
        draw.polygon(points, outline=CAMERA, width=2)
    else:
        (left, top), (right, bottom) = points[0], points[2]
        dark.paste(image.crop((left, top, right, bottom)), (left, top))
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=CAMERA, width=2)
    if track.outside[frame]:
        outline = _points(corners(plan, track.asked[frame][None])[0] * factor)
        for begin, end in zip(outline, [*outline[1:], outline[0]], strict=True):
            _dashes(draw, begin, end)
    return dark


def seen(plan: Plan, frame: int, pixels: PixelArray, size: tuple[int, int]) -> Image.Image:
    """What an output frame shows, at `size` (width, height) by Lanczos, as `--model lanczos` would."""
    rect = plan.rects[frame]
    placement = place(rect[None], size, plan.job.target.fit)
    window = Window(*(int(v) for v in plan.geometry.windows(rect[None], placement, 1)[0]))
    part = pixels[window.y0 : window.y1, window.x0 : window.x1]
    return Image.fromarray(sample(part, window, 1, plan.geometry, rect, placement[0], size))


def _points(points: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    return [(round(float(x)), round(float(y))) for x, y in points]


def _dashes(draw: ImageDraw.ImageDraw, begin: tuple[int, int], end: tuple[int, int]) -> None:
    (x0, y0), (x1, y1) = begin, end
    length = max(abs(x1 - x0), abs(y1 - y0), 1)
    for at in range(0, length, 2 * DASH):
        to = min(length, at + DASH)
        ends = [(x0 + (x1 - x0) * step / length, y0 + (y1 - y0) * step / length) for step in (at, to)]
        draw.line(ends, fill=WARNING, width=2)
