"""What changes in mid-stream: each frame is shown by its own aspect, range, matrix and field order.

A source is a transport stream of parts that follow each other, each encoded with settings of its own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.filter import Graph
from av.video.stream import VideoStream
from support.numbered import grey, planes, run, small_job

from keyscale.engine.choices import DynamicRange
from keyscale.engine.errors import DecodeError
from keyscale.engine.job import Codec, Encoding, Fit
from keyscale.engine.source.probe import probe

Picture = npt.NDArray[np.uint8]

SIZE = (160, 96)
RATE = 25
FRAMES = 15
"""Of a part."""
CLEAR = Encoding(codec=Codec.H264, crf=2, preset="ultrafast")


@dataclass(frozen=True)
class Part:
    """Frames of one kind."""

    picture: Callable[[int], Picture | av.VideoFrame]
    """RGB, or a frame as it is, of the n-th frame of the part."""
    aspect: Fraction = Fraction(1)
    tags: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Matrix, range, primaries, transfer."""
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    first_field: str | None = None
    """`tff` or `bff` of interlaced frames."""


def write_parts(path: Path, codec: str, parts: Sequence[Part], frames: int = FRAMES) -> Path:
    content = b""
    for number, part in enumerate(parts):
        file = io.BytesIO()
        with av.open(file, "w", format="mpegts") as out:
            stream = out.add_stream(codec, rate=RATE, options={"g": str(frames), "bf": "0"} | part.options)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = SIZE
            stream.pix_fmt = part.pixel_format
            context = stream.codec_context
            context.sample_aspect_ratio = part.aspect
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = part.tags
            context.thread_count = 1
            for n in range(frames):
                picture = part.picture(n)
                if isinstance(picture, av.VideoFrame):
                    frame = picture
                else:
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=part.pixel_format)
                if part.first_field is not None:
                    frame = with_fields(frame, part.first_field)
                frame.pts, frame.time_base = number * frames + n + 10, Fraction(1, RATE)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        content += file.getvalue()
    path.write_bytes(content)
    return path


def with_fields(frame: av.VideoFrame, first: str) -> av.VideoFrame:
    """The frame flagged as interlaced: what encoders go by, and PyAV has no attribute for."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, RATE))
    graph.link_nodes(source, graph.add("setfield", first), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


FINE: dict[str, dict[str, str]] = {
    "mpeg2video": {"qmin": "1", "qmax": "2"},
    "libx264": {"crf": "4", "preset": "ultrafast"},
    "libx265": {"x265-params": "log-level=error:crf=4", "preset": "ultrafast"},
}


# Sample aspect


def square(aspect: Fraction) -> Callable[[int], Picture]:
    """A white square, as displayed, in the middle of grey."""
    picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    # Pixels that the square covers in part are grey in part.
    share = (24 / float(aspect) + 0.5 - np.abs(np.arange(SIZE[0]) + 0.5 - SIZE[0] / 2)).clip(0, 1)
    picture[24:72] = np.rint(90 + 140 * share)[:, None]
    return lambda _: picture


def box_of(picture: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    """Middle across, middle down, width and height of what is white, to a part of a pixel."""
    white = ((picture.astype(float) - 90) / 140).clip(0, 1)
    white[picture < 95] = 0
    height, width = white.shape
    columns, rows = (
        white[height // 2 - 4 : height // 2 + 4].mean(axis=0),
        white[:, width // 2 - 4 : width // 2 + 4].mean(axis=1),
    )
    across, down = columns @ (np.arange(width) + 0.5) / columns.sum(), rows @ (np.arange(height) + 0.5) / rows.sum()
    return float(across), float(down), float(columns.sum()), float(rows.sum())


ASPECTS = {
    "wider": (Fraction(1), Fraction(4, 3)),
    "narrower": (Fraction(4, 3), Fraction(1)),
    "PAL, 16:9 then 4:3": (Fraction(16, 11), Fraction(12, 11)),
    "there and back": (Fraction(1), Fraction(64, 45), Fraction(1)),
}


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("name", ASPECTS)
def test_a_square_stays_square(tmp_path: Path, name: str, codec: str) -> None:
    parts = [Part(square(aspect), aspect=aspect, options=FINE[codec]) for aspect in ASPECTS[name]]
    if codec == "mpeg2video" and name != "wider":
        pytest.skip("MPEG-2 stores the aspect of the display, of which it knows four")
    source = write_parts(tmp_path / "in.ts", codec, parts)
    first = ASPECTS[name][0]
    info = probe(source)
    assert (info.width, info.height) == (round(SIZE[0] * first), SIZE[1])
    size = (info.width * 2, info.height * 2)
    result = run(small_job(source, tmp_path / "out.mp4", size=size, encoding=CLEAR, fit=Fit.STRETCH))
    pictures = list(grey(result.path))
    assert len(pictures) == FRAMES * len(parts)
    for number, aspect in enumerate(ASPECTS[name]):
        # Shown whole within the first one's frame: what is wider than that becomes less high.
        scale = 2 * min(1.0, float(first / aspect))
        for picture in pictures[number * FRAMES + 1 : (number + 1) * FRAMES - 1 : 6]:
            across, down, width, height = box_of(picture)
            assert width == pytest.approx(48 * scale, abs=1.0)
            assert height == pytest.approx(48 * scale, abs=1.0)
            assert (across, down) == pytest.approx((size[0] / 2, size[1] / 2), abs=0.6)


def test_one_aspect_throughout_is_not_touched(tmp_path: Path) -> None:
    """Not even by a part of a pixel: 64:45 is no whole number of anything."""
    aspect = Fraction(64, 45)
    source = write_parts(
        tmp_path / "in.ts", "libx264", [Part(square(aspect), aspect=aspect, options=FINE["libx264"])] * 2
    )
    result = run(small_job(source, tmp_path / "out.mp4", size=(228, 96), encoding=CLEAR, fit=Fit.STRETCH))
    for picture in list(grey(result.path))[::10]:
        assert picture[0].min() > 80


# Range and matrix

PATCHES = np.array([(200, 30, 30), (30, 180, 30), (30, 30, 200), (220, 220, 40), (128, 128, 128)]) / 255
"""R'G'B', side by side."""
KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""H.273 table 4."""


def codes_of(matrix: int, value_range: int, bits: int) -> npt.NDArray[np.float64]:
    """Code values of the patches `(5, 3)`, by H.273 clause 8.3."""
    kr, kb = KR_KB[matrix]
    red, green, blue = PATCHES.T
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    step, top = 2.0 ** (bits - 8), 2.0**bits - 1
    if value_range == 2:
        return np.stack([top * luma, top * cb + 128 * step, top * cr + 128 * step], axis=1)
    return np.stack([(219 * luma + 16) * step, (224 * cb + 128) * step, (224 * cr + 128) * step], axis=1)


@dataclass(frozen=True)
class Patches:
    """A part of the five patches in exact code values."""

    tags: tuple[int, int, int, int] = (1, 1, 1, 1)
    pixel_format: str = "yuv420p"

    def __call__(self, _: int) -> av.VideoFrame:
        frame = av.VideoFrame(*SIZE, self.pixel_format)
        bits = frame.format.components[0].bits
        for codes, plane in zip(codes_of(self.tags[0], self.tags[1], bits).T, frame.planes, strict=True):
            dtype: Any = np.uint8 if bits == 8 else np.dtype("<u2")
            values = np.zeros((plane.height, plane.line_size // np.dtype(dtype).itemsize), dtype)
            values[:, : plane.width] = np.repeat(np.rint(codes), plane.width // len(PATCHES))
            plane.update(values.tobytes())
        return frame


LIMITED, FULL = (1, 1, 1, 1), (1, 2, 1, 1)
COLOURS = {
    "limited, full": [Patches(), Patches(FULL)],
    "full, limited": [Patches(FULL), Patches()],
    "full by its format": [Patches(), Patches(FULL, "yuvj420p")],
    "BT.601, BT.709": [Patches((6, 1, 6, 6)), Patches()],
    "BT.709, BT.601": [Patches(), Patches((5, 1, 5, 6))],
    "BT.709, BT.2020, BT.601": [Patches(), Patches((9, 1, 9, 14)), Patches((6, 1, 6, 6))],
    "matrix and range": [Patches((6, 1, 6, 6)), Patches(FULL)],
    "8 bit, 10 bit of another range": [Patches(), Patches(FULL, "yuv420p10le")],
    "4:2:0, 4:4:4 of another matrix": [Patches(), Patches((6, 1, 6, 6), "yuv444p")],
}


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("name", COLOURS)
def test_colours_stay_what_they_are(tmp_path: Path, name: str, depth: Any, codec: str) -> None:
    if codec == "libx265" and "format" in name:
        pytest.skip("x265 has no such format")
    parts = [Part(each, tags=each.tags, pixel_format=each.pixel_format, options=FINE[codec]) for each in COLOURS[name]]
    source = write_parts(tmp_path / "in.ts", codec, parts, frames=6)
    encoding = Encoding(codec=Codec.H264, crf=2, preset="ultrafast", bit_depth=depth)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding))
    wanted = codes_of(parts[0].tags[0], parts[0].tags[1], depth)
    seen = 0
    with av.open(result.path) as container:
        for frame in container.decode(video=0):
            seen += 1
            assert (int(frame.colorspace), int(frame.color_range)) == parts[0].tags[:2]
            for codes, plane in zip(wanted.T, frame.planes, strict=True):
                dtype: Any = np.uint8 if depth == 8 else np.dtype("<u2")
                values = np.frombuffer(bytes(plane), dtype).reshape(plane.height, -1)[:, : plane.width]
                each = values.reshape(plane.height, len(PATCHES), -1)
                edge = each.shape[2] // 3
                np.testing.assert_allclose(each[:, :, edge:-edge].mean(axis=(0, 2)), codes, atol=2.0 * depth / 8)
    assert seen == 6 * len(parts)


# Fields


def bar(x: int) -> Picture:
    picture = np.full((SIZE[1], SIZE[0], 3), 40, np.uint8)
    picture[:, x : x + 12] = 220
    return picture


def moving(n: int) -> Picture:
    return bar(8 + 8 * n)


def fields(top_first: bool) -> Callable[[int], Picture]:
    """The bar moves four pixels from field to field; the one that is shown first has it where `moving` has it."""

    def picture(n: int) -> Picture:
        early, late = bar(8 + 8 * n), bar(12 + 8 * n)
        woven = late.copy()
        woven[0 if top_first else 1 :: 2] = early[0 if top_first else 1 :: 2]
        return woven

    return picture


def combs(picture: npt.NDArray[Any]) -> float:
    values = picture.astype(float)
    return float(np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2).mean())


def place(picture: npt.NDArray[Any]) -> float:
    """Where the bar's left edge is."""
    row = picture[20:-20].astype(float).mean(axis=0)
    return float(((row > 130) * np.arange(len(row)))[row > 130].min())


WOVEN = {"flags": "+ildct+ilme"}
TFF, BFF = (
    {codec: Part(fields(first == "tff"), options=FINE[codec] | WOVEN, first_field=first) for codec in FINE}
    for first in ("tff", "bff")
)
PROGRESSIVE = {codec: Part(moving, options=FINE[codec]) for codec in FINE}
FIELDS = {
    "progressive, then top field first": [PROGRESSIVE, TFF],
    "top field first, then progressive": [TFF, PROGRESSIVE],
    "progressive, then bottom field first": [PROGRESSIVE, BFF],
    "top field first, then bottom": [TFF, BFF],
    "bottom field first, then top": [BFF, TFF],
    "in between": [PROGRESSIVE, TFF, PROGRESSIVE, BFF],
    "throughout": [TFF, TFF],
}


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("name", FIELDS)
def test_each_frame_by_its_own_fields(tmp_path: Path, name: str, codec: str) -> None:
    parts = [kind[codec] for kind in FIELDS[name]]
    source = write_parts(tmp_path / "in.ts", codec, parts)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=CLEAR))
    pictures = list(grey(result.path))
    assert len(pictures) == FRAMES * len(parts)
    for number, picture in enumerate(pictures):
        assert combs(picture) < 3, number
        # A bar that jumps between parts leaves its neighbours' fields no way to tell.
        if number % FRAMES not in (0, FRAMES - 1):
            assert place(picture) == pytest.approx(8 + 8 * (number % FRAMES), abs=1), number


def test_where_reading_begins_changes_nothing(tmp_path: Path) -> None:
    source = write_parts(tmp_path / "in.ts", "libx264", [kind["libx264"] for kind in FIELDS["in between"]])
    lossless = Encoding(codec=Codec.H264, crf=0, preset="ultrafast")
    whole = planes(run(small_job(source, tmp_path / "whole.mp4", size=SIZE, encoding=lossless)).path)
    for first in (14, 15, 16, 29, 30, 31, 46):
        part = small_job(
            source, tmp_path / "part.mp4", size=SIZE, encoding=lossless, start=first / RATE, overwrite=True
        )
        assert planes(run(part).path) == whole[first:]


# Transfer functions


def level(signal: float, tags: tuple[int, int, int, int]) -> Part:
    """Grey of that signal, 0 to 1, in limited code values."""
    frame = np.full((SIZE[1] * 3 // 2, SIZE[0]), 128, np.uint8)
    frame[: SIZE[1]] = round(16 + 219 * signal)
    return Part(lambda _: av.VideoFrame.from_ndarray(frame, format="yuv420p"), tags=tags, options={"qp": "4", "b": "0"})


SDR_GREY = level(0.4, (1, 1, 1, 1))
PQ_WHITE, HLG_WHITE = level(0.5807, (9, 1, 9, 16)), level(0.75, (9, 1, 9, 18))
LUMA = {id(SDR_GREY): 103.6, id(PQ_WHITE): 213.8, id(HLG_WHITE): 213.8}
"""Of the parts in SDR: reference white of HDR is 213.8 by hand, see test_hdr_to_sdr.py."""


@pytest.mark.parametrize(
    ("parts", "to"),
    [
        ([SDR_GREY, PQ_WHITE], DynamicRange.KEEP),
        ([SDR_GREY, HLG_WHITE, SDR_GREY], DynamicRange.KEEP),
        ([PQ_WHITE, SDR_GREY], DynamicRange.SDR),
        ([HLG_WHITE, PQ_WHITE, SDR_GREY], DynamicRange.SDR),
        ([SDR_GREY, PQ_WHITE], DynamicRange.SDR),
    ],
    ids=["SDR, PQ", "SDR, HLG, SDR", "PQ, SDR to SDR", "HLG, PQ, SDR to SDR", "SDR, PQ to SDR"],
)
def test_hdr_and_sdr_in_one_stream_end_as_sdr(tmp_path: Path, parts: list[Part], to: DynamicRange) -> None:
    """Frames of PQ were shown as if they were SDR: grey and flat."""
    source = write_parts(tmp_path / "in.ts", "libx264", parts, frames=6)
    encoding = Encoding(codec=Codec.H264, crf=2, preset="ultrafast", dynamic_range=to)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding))
    found = [float(picture[20:-20, 20:-20].mean()) for picture in lumas(result.path)]
    assert found == pytest.approx([LUMA[id(part)] for part in parts for _ in range(6)], abs=2)


def lumas(path: Path) -> list[npt.NDArray[Any]]:
    with av.open(path) as container:
        return [frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)]


@pytest.mark.parametrize("second", [SDR_GREY, HLG_WHITE], ids=["sdr", "hlg"])
def test_hdr_that_is_kept_has_to_be_hdr_throughout(tmp_path: Path, second: Part) -> None:
    source = write_parts(tmp_path / "in.ts", "libx264", [PQ_WHITE, second], frames=6)
    with pytest.raises(DecodeError, match=r"the frame at 0\.240 s is (sdr|hlg) in a source that begins as pq") as error:
        run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=Encoding(preset="ultrafast")))
    assert "--dynamic-range sdr" in str(error.value.remedy)
