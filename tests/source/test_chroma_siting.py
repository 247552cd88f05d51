"""A red edge stands where the edge in luma stands: chroma is read and written where a stream says that it lies.

Pictures have one edge between grey and red, at a place between pixels. Each plane is drawn from that place: a sample
is the mean over its own width about its own middle, which for chroma is where the stream's `chroma_location` puts it.
Where an edge stands in a plane that was decoded is read by its area, which no symmetric filter changes.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from support.numbered import run, small_job, write_video

from keyscale.engine.job import Codec, Encoding, Fit
from keyscale.engine.source.frame_filters import frame_tags
from keyscale.engine.source.probe import probe

Floats = npt.NDArray[np.float64]

SIZE = (64, 48)
EDGE = {"x": 29.3, "y": 21.6}
"""Where the edge stands, in pixels from the left or from the top."""
SLOPE = 0.06
"""Pixels that the edge moves in each row (or column), so that rounding to code values averages out."""
NEAR = 0.1
"""Pixels of the result."""
BEFORE = (85, 85, 85)
AFTER = {1: (232, 100, 100), 6: (233, 85, 85), 9: (207, 100, 100)}
"""R'G'B' at 8 bits on the two sides, by matrix: grey and red whose luma and red chroma are whole codes to 0.03, far
enough from black and white that nothing is cut off."""
SITES = {"left": (0.0, 0.5), "center": (0.5, 0.5), "topleft": (0.0, 0.0)}
"""Where the chroma of two by two luma samples lies: pixels right of, and below, the first one's middle."""
KR_KB = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""H.273 table 4."""


def ycc(colour: tuple[int, int, int], matrix: int, *, full: bool) -> Floats:
    """R'G'B' -> code values at 8 bits, H.273 clause 8.3."""
    kr, kb = KR_KB[matrix]
    red, green, blue = (value / 255 for value in colour)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    if full:
        return np.array([255 * luma, 255 * cb + 128, 255 * cr + 128])
    return np.array([219 * luma + 16, 224 * cb + 128, 224 * cr + 128])


def plane_of(frame: av.VideoFrame, number: int) -> npt.NDArray[Any]:
    """Code values of a plane `(H, W)`."""
    plane = frame.planes[number]
    dtype: Any = np.uint8 if frame.format.components[0].bits == 8 else np.dtype("<u2")
    return np.frombuffer(bytes(plane), dtype).reshape(plane.height, -1)[:, : plane.width]


def middles(plane: tuple[int, int], size: tuple[int, int], site: str) -> tuple[Floats, Floats]:
    """Where the middles of a plane's columns and rows lie, in luma pixels; sizes are (width, height)."""
    found: list[Floats] = []
    for count, whole, offset in zip(plane, size, SITES[site], strict=True):
        step = whole / count
        found.append(0.5 + (0.0 if step == 1 else offset) + step * np.arange(count, dtype=np.float64))
    return found[0], found[1]


def edge_frame(pixel_format: str, axis: str, site: str, matrix: int) -> av.VideoFrame:
    frame = av.VideoFrame(*SIZE, pixel_format)
    bits, full = frame.format.components[0].bits, pixel_format.startswith("yuvj")
    low, high = ycc(BEFORE, matrix, full=full), ycc(AFTER[matrix], matrix, full=full)
    for number, plane in enumerate(frame.planes):
        columns, rows = middles((plane.width, plane.height), SIZE, site)
        step = SIZE[0] / plane.width if axis == "x" else SIZE[1] / plane.height
        if axis == "x":
            edge = EDGE["x"] + SLOPE * (rows[:, None] - SIZE[1] / 2)
            share = (columns[None] + step / 2 - edge) / step
        else:
            edge = EDGE["y"] + SLOPE * (columns[None] - SIZE[0] / 2)
            share = (rows[:, None] + step / 2 - edge) / step
        codes = (low[number] + (high - low)[number] * share.clip(0, 1)) * 2.0 ** (bits - 8)
        dtype: Any = np.uint8 if bits == 8 else np.dtype("<u2")
        values = np.zeros((plane.height, plane.line_size // np.dtype(dtype).itemsize), dtype)
        values[:, : plane.width] = np.rint(codes)
        plane.update(values.tobytes())
    return frame


def edges(frame: av.VideoFrame, axis: str, site: str) -> tuple[float, float]:
    """Where the edge stands in luma and in red chroma, in luma pixels, read from the 12 about it on each side."""
    size = (frame.width, frame.height)
    scale = frame.width / SIZE[0]
    found = []
    for number in (0, 2):
        values = plane_of(frame, number).astype(float)
        columns, rows = middles((values.shape[1], values.shape[0]), size, site)
        along, across = (columns, rows) if axis == "x" else (rows, columns)
        values = values if axis == "x" else values.T
        step = along[1] - along[0]
        near = np.abs(along - EDGE[axis] * scale) < 12 * scale
        window = values[:, near]
        low, high = window[:, :4].mean(), window[:, -4:].mean()
        begin = along[near][0] - step / 2
        each = begin + ((high - window) / (high - low)).sum(axis=1) * step
        each -= SLOPE * (across - size[axis == "x"] / 2)
        # What lies outside of the picture is not known to a filter that reaches there.
        found.append(float(each[len(each) // 8 : -len(each) // 8].mean()))
    return found[0], found[1]


def first_frame(path: Path) -> av.VideoFrame:
    with av.open(path) as container:
        return next(container.decode(video=0))


def check(result: Path, axis: str, scale: int, site: str) -> None:
    frame = first_frame(result)
    said = ("unspecified", "left", "center", "topleft")[frame_tags(frame).chroma_location]
    # ProRes and VP9 have no place for it in their streams, and mean left.
    assert said == site or (said == "unspecified" and site == "left")
    luma, chroma = edges(frame, axis, site)
    assert luma == pytest.approx(EDGE[axis] * scale, abs=NEAR)
    assert chroma == pytest.approx(EDGE[axis] * scale, abs=NEAR)


X265 = {"x265-params": "log-level=error:lossless=1", "preset": "ultrafast"}
QP0 = {"qp": "0"}
FINEST = {"qmin": "1", "qmax": "1"}
AV1 = {"crf": "4", "preset": "12"}
TOP_LEFT, CENTRE = {"chroma_sample_location": "topleft"}, {"chroma_sample_location": "center"}
SOURCES: dict[str, tuple[str, str, str, dict[str, str], str, int]] = {
    # What it is: file, codec, pixel format, options, where its chroma lies, matrix.
    "H.264 that says nothing": ("in.mp4", "libx264", "yuv420p", QP0, "left", 1),
    "H.264, 10 bit, that says nothing": ("in.mkv", "libx264", "yuv420p10le", QP0, "left", 1),
    "H.264 that says top left": ("in.mp4", "libx264", "yuv420p", QP0 | TOP_LEFT, "topleft", 1),
    "H.264 that says centre": ("in.mp4", "libx264", "yuv420p", QP0 | CENTRE, "center", 1),
    "H.264 4:2:2": ("in.mp4", "libx264", "yuv422p", QP0, "left", 1),
    "H.264 4:2:2, 10 bit": ("in.mp4", "libx264", "yuv422p10le", QP0, "left", 1),
    "H.264 of BT.2020 that says nothing": ("in.mp4", "libx264", "yuv420p10le", QP0, "topleft", 9),
    "HEVC that says nothing": ("in.mp4", "libx265", "yuv420p", X265, "left", 1),
    "HEVC of BT.2020 that says nothing": ("in.mp4", "libx265", "yuv420p10le", X265, "topleft", 9),
    "HEVC of BT.2020 that says left": (
        "in.mp4",
        "libx265",
        "yuv420p10le",
        X265 | {"x265-params": X265["x265-params"] + ":chromaloc=0"},
        "left",
        9,
    ),
    "HEVC of BT.2020 that says top left": (
        "in.mkv",
        "libx265",
        "yuv420p10le",
        X265 | {"x265-params": X265["x265-params"] + ":chromaloc=2"},
        "topleft",
        9,
    ),
    "MPEG-2": ("in.mkv", "mpeg2video", "yuv420p", FINEST, "left", 1),
    "MPEG-1": ("in.mpg", "mpeg1video", "yuv420p", {"qmin": "1", "qmax": "1", "g": "1"}, "center", 6),
    "MPEG-4": ("in.avi", "mpeg4", "yuv420p", FINEST, "left", 6),
    "JPEG": ("in.mov", "mjpeg", "yuvj420p", FINEST, "center", 6),
    "JPEG 4:2:2": ("in.avi", "mjpeg", "yuvj422p", FINEST, "center", 6),
    "VP9": ("in.webm", "libvpx-vp9", "yuv420p", {"lossless": "1", "cpu-used": "8"}, "left", 1),
    "AV1 that says nothing": ("in.mp4", "libsvtav1", "yuv420p", AV1, "left", 1),
    "AV1 that says top left": ("in.mp4", "libsvtav1", "yuv420p10le", AV1 | TOP_LEFT, "topleft", 1),
    "ProRes": ("in.mov", "prores_ks", "yuv422p10le", {"profile": "3"}, "left", 1),
    "FFV1 in Matroska that says centre": ("in.mkv", "ffv1", "yuv420p", CENTRE, "center", 1),
    "raw 4:2:0 in Matroska": ("in.mkv", "rawvideo", "yuv420p", {}, "left", 1),
    "YUV4MPEG of JPEG's siting": ("in.y4m", "wrapped_avframe", "yuv420p", CENTRE, "center", 6),
}


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("name", SOURCES)
def test_chroma_is_read_where_it_lies(tmp_path: Path, name: str, axis: str) -> None:
    file, codec, pixel_format, options, site, matrix = SOURCES[name]
    pictures = [edge_frame(pixel_format, axis, site, matrix) for _ in range(3)]
    tags = (matrix, 2 if pixel_format.startswith("yuvj") else 1, matrix, 14 if matrix == 9 else 1)
    source = write_video(tmp_path / file, pictures, codec=codec, options=options, pixel_format=pixel_format, tags=tags)
    encoding = Encoding(codec=Codec.H264, crf=0, preset="ultrafast")
    result = run(small_job(source, tmp_path / "out.mp4", size=(128, 96), fit=Fit.STRETCH, encoding=encoding))
    check(result.path, axis, 2, "topleft" if matrix == 9 else "left")


FINE: dict[str, tuple[str, Encoding]] = {
    "H.264": ("out.mp4", Encoding(codec=Codec.H264, crf=1, preset="ultrafast")),
    "H.264 in Matroska": ("out.mkv", Encoding(codec=Codec.H264, crf=1, preset="ultrafast")),
    "H.264, 10 bit": ("out.mp4", Encoding(codec=Codec.H264, crf=1, preset="ultrafast", bit_depth=10)),
    "HEVC": ("out.mov", Encoding(codec=Codec.HEVC, crf=1, preset="ultrafast")),
    "HEVC, 10 bit": ("out.mp4", Encoding(codec=Codec.HEVC, crf=1, preset="ultrafast", bit_depth=10)),
    "AV1, 10 bit": ("out.webm", Encoding(codec=Codec.AV1, crf=1, preset="10", bit_depth=10)),
    "ProRes": ("out.mov", Encoding(codec=Codec.PRORES)),
}


@pytest.mark.parametrize(("matrix", "scale"), [(1, 1), (1, 2), (1, 4), (9, 2)])
@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("name", FINE)
def test_chroma_is_written_where_the_result_says(tmp_path: Path, name: str, matrix: int, axis: str, scale: int) -> None:
    """From a source whose chroma has no place of its own: 4:4:4."""
    file, encoding = FINE[name]
    pictures = [edge_frame("yuv444p10le", axis, "left", matrix) for _ in range(2)]
    source = write_video(
        tmp_path / "in.mkv",
        pictures,
        options={"qp": "0"},
        pixel_format="yuv444p10le",
        tags=(matrix, 1, matrix, 14 if matrix == 9 else 1),
    )
    size = (SIZE[0] * scale, SIZE[1] * scale)
    result = run(small_job(source, tmp_path / file, size=size, fit=Fit.STRETCH, encoding=encoding, rate=Fraction(25)))
    # In 4:2:2 top left is left.
    site = "topleft" if matrix == 9 and name != "ProRes" else "left"
    check(result.path, axis, scale, site)


def test_a_result_made_again_stays_where_it_is(tmp_path: Path) -> None:
    """Eight generations at x1: whatever each one shifts would add up."""
    source = write_video(
        tmp_path / "0.mp4", [edge_frame("yuv420p", "x", "left", 1) for _ in range(2)], options={"qp": "0"}
    )
    encoding = Encoding(codec=Codec.H264, crf=0, preset="ultrafast")
    for generation in range(1, 9):
        path = tmp_path / f"{generation}.mp4"
        source = run(small_job(source, path, size=SIZE, encoding=encoding)).path
    check(source, "x", 1, "left")


def test_what_the_plan_knows_of_the_source(tmp_path: Path) -> None:
    """0 leaves it to the frames, which say it; 3 is top left."""
    for matrix, options, place in ((1, {}, 0), (9, {}, 3), (9, {"chroma_sample_location": "topleft"}, 0)):
        source = write_video(
            tmp_path / "in.mp4",
            [edge_frame("yuv420p", "x", "left", matrix)],
            options={"qp": "0"} | options,
            tags=(matrix, 1, matrix, 1),
        )
        assert probe(source).colour.chroma_location == place
