"""What real footage suffers before it is fed in: resizing, blur, noise, text burnt in, and lossy codecs.

Every function takes a generator, so that a picture depends on its seed alone. Pictures are RGB uint8 `(H, W, 3)`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from fractions import Fraction

import av
import av.error
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = ["Picture", "degrade", "encode_as_video", "shrink"]

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
"""Resizing filters in use; bicubic twice, as it is the commonest default."""

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
"""Burnt-in graphics, as on scoreboards and captions."""

VIDEO_FRAMES = 4
"""Frames of a coded sequence; the last one is predicted from the others, as most frames of a video are."""


def shrink(rng: np.random.Generator, picture: Picture, smallest: int, *, strongest: float = 5.0) -> Picture:
    """Reduce by a random factor from 1 to `strongest` (log-uniform), no side below `smallest` pixels.

    The two sides differ by up to 8 %, as anamorphic and wrongly tagged footage does.
    """
    height, width = picture.shape[:2]
    most = min(strongest, min(height, width) / smallest)
    factor = math.exp(rng.uniform(0, math.log(max(most, 1.0))))
    stretch = math.exp(rng.uniform(-0.04, 0.04)) if rng.random() < 0.3 else 1.0
    size = (
        max(smallest, round(width / factor * stretch)),
        max(smallest, round(height / factor / stretch)),
    )
    if size == (width, height):
        return picture
    chosen = FILTERS[rng.integers(len(FILTERS))]
    return np.asarray(Image.fromarray(picture).resize(size, chosen))


def degrade(rng: np.random.Generator, picture: Picture, *, gentle: bool = False) -> Picture:
    """A picture as a phone, a broadcast or a web page would hand it on.

    Args:
        rng: where all choices come from.
        picture: RGB uint8 `(H, W, 3)`, sides of at least 64 pixels.
        gentle: for frames that a codec has already been through: one in two is left alone.

    Returns:
        The same shape.
    """
    if gentle and rng.random() < 0.5:
        return picture
    if rng.random() < 0.08:
        picture = _write_text(rng, picture)
    if rng.random() < 0.3:
        picture = _grade(rng, picture)
    if rng.random() < 0.35:
        picture = _blur(rng, picture)
    if rng.random() < 0.15:
        picture = np.asarray(Image.fromarray(picture).filter(ImageFilter.UnsharpMask(1, int(rng.integers(40, 150)), 2)))
    if rng.random() < 0.35:
        picture = _add_noise(rng, picture)
    coder = rng.random()
    if coder < 0.25:
        return picture
    if coder < 0.45:
        return _jpeg(rng, picture)
    if rng.random() < 0.15:
        picture = _jpeg(rng, picture)
    return encode_as_video(
        _camera_move(rng, picture),
        codec="libx264" if coder < 0.78 else "libx265",
        crf=int(rng.integers(18, 37)),
        pixel_format=("yuv420p", "yuv420p", "yuv420p", "yuv422p", "yuv444p")[rng.integers(5)],
    )


def _write_text(rng: np.random.Generator, picture: Picture) -> Picture:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 5))):
        font = ImageFont.load_default(size=float(rng.uniform(8, 28)))
        place = (int(rng.integers(0, image.width - 8)), int(rng.integers(0, image.height - 8)))
        light, dark = (245, 245, 240), (15, 18, 40)
        ink, ground = (light, dark) if rng.random() < 0.6 else (dark, light)
        text = WORDS[rng.integers(len(WORDS))]
        if rng.random() < 0.6:
            left, top, right, bottom = draw.textbbox(place, text, font=font)
            draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=ground)
        draw.text(place, text, fill=ink, font=font)
    return np.asarray(image)


def _grade(rng: np.random.Generator, picture: Picture) -> Picture:
    """Gamma, contrast and brightness; one in ten loses its colour."""
    x = np.linspace(0, 1, 256)
    curve = np.clip((x ** rng.uniform(0.6, 1.6) - 0.5) * rng.uniform(0.6, 1.25) + 0.5 + rng.uniform(-0.1, 0.1), 0, 1)
    table: npt.NDArray[np.uint8] = np.round(curve * 255).astype(np.uint8)
    graded: Picture = table[picture]
    if rng.random() < 0.1:
        grey = np.asarray(Image.fromarray(graded).convert("L"))
        return np.repeat(grey[..., None], 3, axis=2)
    return graded


def _blur(rng: np.random.Generator, picture: Picture) -> Picture:
    """Out of focus (Gaussian), or along a straight movement of up to nine pixels."""
    if rng.random() < 0.7:
        return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 1.6)))))
    angle, reach = rng.uniform(0, math.pi), rng.uniform(0.5, 4.5)
    steps = np.linspace(-reach, reach, 9)
    image = Image.fromarray(picture)
    total: Floats = np.zeros(picture.shape, dtype=np.float32)
    for step in steps:
        moved = image.transform(
            image.size,
            Image.Transform.AFFINE,
            (1, 0, step * math.cos(angle), 0, 1, step * math.sin(angle)),
            resample=Image.Resampling.BILINEAR,
        )
        total += np.asarray(moved, dtype=np.float32)
    # What moved in from outside is black; the plain picture stands there.
    edge = math.ceil(reach)
    result = picture.copy()
    inner = np.s_[edge:-edge, edge:-edge]
    result[inner] = np.round(total[inner] / len(steps)).astype(np.uint8)
    return result


def _add_noise(rng: np.random.Generator, picture: Picture) -> Picture:
    """Read noise and shot noise; grainier than one pixel in a third of the cases, as demosaicing leaves it."""
    height, width = picture.shape[:2]
    channels = 1 if rng.random() < 0.4 else 3
    noise = rng.standard_normal((height, width, channels), dtype=np.float32)
    if rng.random() < 0.33:
        noise = _soften(noise)
    base = picture.astype(np.float32)
    read, shot = rng.uniform(0.5, 8), rng.uniform(0, 0.6)
    noisy = base + noise * np.sqrt(read**2 + shot**2 * base)
    result: Picture = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    return result


def _soften(noise: Floats) -> Floats:
    """Average 2x2 neighbours, keeping the variance."""
    return (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))) / np.float32(2)


def _jpeg(rng: np.random.Generator, picture: Picture) -> Picture:
    data = io.BytesIO()
    Image.fromarray(picture).save(
        data, "JPEG", quality=int(rng.integers(30, 96)), subsampling=(0, 2, 2)[rng.integers(3)]
    )
    data.seek(0)
    return np.asarray(Image.open(data).convert("RGB"))


def _camera_move(rng: np.random.Generator, picture: Picture) -> list[Picture]:
    """A few frames that pan and zoom a little and end with the picture itself."""
    image = Image.fromarray(picture)
    shift = rng.uniform(-4, 4, size=2) * (rng.random() < 0.7)
    zoom = rng.uniform(-0.01, 0.01)
    frames = []
    for left in range(VIDEO_FRAMES - 1, 0, -1):
        scale = 1 + zoom * left
        moved = image.transform(
            image.size,
            Image.Transform.AFFINE,
            (scale, 0, shift[0] * left, 0, scale, shift[1] * left),
            resample=Image.Resampling.BICUBIC,
        )
        frames.append(np.asarray(moved))
    return [*frames, picture]


def encode_as_video(frames: Sequence[Picture], *, codec: str, crf: int, pixel_format: str) -> Picture:
    """The last frame of a sequence after a lossy codec, BT.709 in limited range.

    Sides are cut to even numbers for the codec; the odd row or column comes back uncoded.
    """
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixel_format
    encoder.framerate, encoder.time_base = Fraction(30), Fraction(1, 30)
    encoder.thread_count = 1
    own = {
        # With macroblock trees this libx264 reads memory that it never wrote: other tiles in every process.
        "libx264": {"x264-params": "mbtree=0"},
        "libx265": {"x265-params": "log-level=none:pools=1:frame-threads=1"},
    }
    encoder.options = {"crf": str(crf), "preset": "veryfast"} | own[codec]
    decoder = av.CodecContext.create("h264" if codec == "libx264" else "hevc", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    packets = []
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
        coded = frame.reformat(format=pixel_format, src_colorspace="ITU709", dst_colorspace="ITU709")
        coded.pts = index
        packets += encoder.encode(coded)
    packets += encoder.encode(None)
    decoded = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    last = max(decoded, key=lambda frame: frame.pts or 0)
    result = frames[-1].copy()
    result[:height, :width] = last.reformat(
        format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709"
    ).to_ndarray()
    return result
