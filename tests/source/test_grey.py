"""Grey that says nothing of its range: stills and raw video mean all codes, video codecs the limited ones."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import VideoReformatter
from support.numbered import run, small_job, write_video

from keyscale.engine.job import Codec, Encoding
from keyscale.engine.source.colour import Colour, to_rgb
from keyscale.engine.source.probe import probe

LEVELS = np.array([0, 16, 40, 128, 200, 235, 255, 90])
"""Grey values at 8 bits, side by side."""
SIZE = (128, 64)
FINE = Encoding(codec=Codec.H264, crf=2, preset="ultrafast")


def picture(top: int = 255) -> npt.NDArray[np.uint16]:
    row = np.repeat(np.rint(LEVELS * top / 255).astype(np.uint16), SIZE[0] // len(LEVELS))
    return np.repeat(row[None], SIZE[1], axis=0)


def pgm(path: Path) -> Path:
    path.write_bytes(b"P5\n%d %d\n255\n" % SIZE + picture().astype(np.uint8).tobytes())
    return path


def pgm16(path: Path) -> Path:
    path.write_bytes(b"P5\n%d %d\n65535\n" % SIZE + picture(65535).astype(">u2").tobytes())
    return path


def png(path: Path) -> Path:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.tobytes() for row in picture().astype(np.uint8))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def pfm(path: Path) -> Path:
    """Floats from 0 to 1, the lowest row first."""
    path.write_bytes(b"Pf\n%d %d\n-1.0\n" % SIZE + (picture() / 255).astype("<f4")[::-1].tobytes())
    return path


def coded(codec: str, pixel_format: str, **options: str) -> Any:
    def write(path: Path) -> Path:
        frame = av.VideoFrame(*SIZE, pixel_format)
        bits = frame.format.components[0].bits
        dtype: Any = np.uint8 if bits == 8 else np.dtype("<u2")
        components = len(frame.format.components)
        wide = frame.planes[0].line_size // np.dtype(dtype).itemsize
        values = np.full((SIZE[1], wide), (1 << bits) - 1, dtype)  # opaque
        values[:, : SIZE[0] * components : components] = picture((1 << bits) - 1)
        frame.planes[0].update(values.tobytes())
        tags = (2, 0, 2, 2)
        return write_video(path, [frame] * 2, codec=codec, options=options, pixel_format=pixel_format, tags=tags)

    return write


FULL = {
    "PGM": ("in.pgm", pgm),
    "PGM of 16 bits": ("in.pgm", pgm16),
    "PFM": ("in.pfm", pfm),
    "PNG": ("in.png", png),
    "JPEG-LS": ("in.avi", coded("jpegls", "gray")),
    "Y800 in AVI": ("in.avi", coded("rawvideo", "gray")),
    "raw grey in Matroska": ("in.mkv", coded("rawvideo", "gray")),
    "FFV1": ("in.mkv", coded("ffv1", "gray")),
    "FFV1 of 10 bits": ("in.mkv", coded("ffv1", "gray10le")),
    "FFV1 of 16 bits": ("in.mkv", coded("ffv1", "gray16le")),
    "JPEG 2000": ("in.mov", coded("jpeg2000", "gray")),
    "PNG with opacity": ("in.mov", coded("png", "ya8")),
}


def greys(path: Path, top: float) -> npt.NDArray[np.float64]:
    """Grey values at 8 bits of a result, by its own range."""
    with av.open(path) as container:
        frame = next(container.decode(video=0))
    plane = frame.planes[0]
    dtype: Any = np.uint8 if top == 255 else np.dtype("<u2")
    values = np.frombuffer(bytes(plane), dtype).reshape(plane.height, -1)[:, : plane.width]
    middle = values.reshape(plane.height, len(LEVELS), -1)[:, :, 4:-4].mean(axis=(0, 2)) * 255 / top
    found = middle if int(frame.color_range) == 2 else (middle - 16) * 255 / 219
    return np.asarray(found, np.float64)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("depth", [8, 10])
def test_all_codes_are_meant(tmp_path: Path, name: str, depth: Any) -> None:
    file, write = FULL[name]
    source = write(tmp_path / file)
    encoding = Encoding(codec=Codec.H264, crf=2, preset="ultrafast", bit_depth=depth)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding, rate=Fraction(25)))
    np.testing.assert_allclose(greys(result.path, 255 if depth == 8 else 1023), LEVELS, atol=2)


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {"qp": "0"}), ("libx265", {"x265-params": "log-level=error"})]
)
def test_video_codecs_define_it_as_limited(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    """H.264 and HEVC: `video_full_range_flag` is 0 where it is not sent."""
    source = coded(codec, "gray", **options)(tmp_path / "in.mkv")
    assert not probe(source).colour.full_range


def test_what_is_tagged_is_followed(tmp_path: Path) -> None:
    frame = av.VideoFrame(*SIZE, "gray")
    values = np.zeros((SIZE[1], frame.planes[0].line_size), np.uint8)
    values[:, : SIZE[0]] = np.rint(16 + picture() * 219 / 255)
    frame.planes[0].update(values.tobytes())
    source = write_video(tmp_path / "in.mkv", [frame] * 2, codec="ffv1", pixel_format="gray", tags=(6, 1, 6, 6))
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=FINE))
    np.testing.assert_allclose(greys(result.path, 255), LEVELS, atol=2)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "pixel_format",
    ["gray", "gray9le", "gray10le", "gray10be", "gray12le", "gray14le", "gray16le", "gray16be", "ya8", "ya16le"],
)
def test_every_code_is_exact(pixel_format: str, full: bool, deep: bool) -> None:
    """By H.273 clause 8.3; 10 bits were 3 codes off, 16 bits 256."""
    layout = av.VideoFormat(pixel_format)
    bits, step = layout.components[0].bits, len(layout.components)
    codes = np.linspace(0, 2**bits - 1, 256).round().astype(int)
    frame = av.VideoFrame(256, 4, pixel_format)
    plane = frame.planes[0]
    kind = np.dtype(f"{'>' if pixel_format.endswith('be') else '<'}u{-(-bits // 8)}")
    row = np.zeros(plane.line_size // kind.itemsize, kind)
    row[: 256 * step : step] = codes
    plane.update(np.tile(row, (4, 1)).tobytes())
    pixels = to_rgb(frame, Colour(matrix=1, full_range=full), deep=deep, reformatter=VideoReformatter())
    unit = 2.0 ** (bits - 8)
    wanted = codes / (2.0**bits - 1) if full else ((codes - 16 * unit) / (219 * unit)).clip(0, 1)
    np.testing.assert_allclose(pixels[2, :, 1], wanted * (65535 if deep else 255), atol=0.51)
