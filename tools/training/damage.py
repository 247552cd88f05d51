"""What footage is and what it suffers before it is fed in: graphics, grading, noise, lossy codecs over some frames.

Every function takes a generator, so that a picture depends on its seed alone. Pictures are RGB uint8 `(H, W, 3)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageDraw, ImageFont

from keyscale.engine.source.colour import Colour, from_rgb, to_rgb

__all__ = ["Picture", "add_noise", "grade", "through_codec", "write_text"]

Picture = npt.NDArray[np.uint8]

WORDS = (
    "HOME 2 : 1",
    "AWAY",
    "LIVE",
    "00:43.7",
    "Goal!",
    "3rd & 7",
    "#23 SMITH",
    "REPLAY",
    "Q4",
    "87'",
    "4K",
    "@clips",
)
"""Graphics, as on scoreboards and captions."""


def write_text(rng: np.random.Generator, picture: Picture) -> Picture:
    """One to four captions, some on a ground of their own, 10 to 48 pixels high."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 5))):
        font = ImageFont.load_default(size=float(rng.uniform(10, 48)))
        place = (int(rng.integers(0, image.width - 8)), int(rng.integers(0, image.height - 8)))
        light, dark = (245, 245, 240), (15, 18, 40)
        ink, ground = (light, dark) if rng.random() < 0.6 else (dark, light)
        text = WORDS[rng.integers(len(WORDS))]
        if rng.random() < 0.6:
            left, top, right, bottom = draw.textbbox(place, text, font=font)
            draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=ground)
        draw.text(place, text, fill=ink, font=font)
    return np.asarray(image)


def grade(rng: np.random.Generator, picture: Picture) -> Picture:
    """Gamma, contrast and brightness; one in ten loses its colour."""
    x = np.linspace(0, 1, 256)
    curve = np.clip((x ** rng.uniform(0.6, 1.6) - 0.5) * rng.uniform(0.6, 1.25) + 0.5 + rng.uniform(-0.1, 0.1), 0, 1)
    table: Picture = np.round(curve * 255).astype(np.uint8)
    graded: Picture = table[picture]
    if rng.random() < 0.1:
        grey = np.asarray(Image.fromarray(graded).convert("L"))
        return np.repeat(grey[..., None], 3, axis=2)
    return graded


def add_noise(rng: np.random.Generator, frames: Sequence[Picture]) -> list[Picture]:
    """Read noise and shot noise of one strength, drawn anew for each frame; grey in four of ten cases."""
    channels = 1 if rng.random() < 0.4 else 3
    read, shot = rng.uniform(0.5, 5), rng.uniform(0, 0.4)
    noisy = []
    for frame in frames:
        base = frame.astype(np.float32)
        noise = rng.standard_normal((*frame.shape[:2], channels), dtype=np.float32)
        noisy.append(np.clip(np.round(base + noise * np.sqrt(read**2 + shot**2 * base)), 0, 255).astype(np.uint8))
    return noisy


def through_codec(frames: Sequence[Picture], *, codec: str, crf: int, preset: str, pixel_format: str) -> list[Picture]:
    """A sequence after a lossy codec, BT.709 in limited range, converted both ways as jobs convert.

    Args:
        frames: of one size, with even sides.
        codec: `libx264` or `libx265`.
        crf: constant rate factor.
        preset: of the encoder.
        pixel_format: 8-bit Y'CbCr, such as `yuv420p`.
    """
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt, encoder.framerate, encoder.time_base = pixel_format, Fraction(30), Fraction(1, 30)
    encoder.thread_count = 1
    own = {
        # With macroblock trees this libx264 reads memory that it never wrote: other tiles in every process.
        "libx264": {"x264-params": "mbtree=0"},
        "libx265": {"x265-params": "log-level=none:pools=1:frame-threads=1"},
    }
    encoder.options = {"crf": str(crf), "preset": preset} | own[codec]
    decoder = av.CodecContext.create("h264" if codec == "libx264" else "hevc", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    colour, reformatter = Colour(matrix=1, full_range=False), VideoReformatter()
    packets = []
    for index, pixels in enumerate(frames):
        coded = from_rgb(np.ascontiguousarray(pixels), colour, pixel_format, reformatter=reformatter)
        coded.pts = index
        packets += encoder.encode(coded)
    packets += encoder.encode(None)
    decoded = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    decoded.sort(key=lambda frame: frame.pts or 0)
    pictures = [to_rgb(frame, colour, deep=False, reformatter=reformatter) for frame in decoded]
    return [picture.astype(np.uint8, copy=False) for picture in pictures]
