"""Planes to RGB and back on a device, against `source/colour.py`, on the CPU: one code at most, whatever the format."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from av.video.reformatter import VideoReformatter
from support.numbered import Picture, turn, write_video

from keyscale.engine.camera.geometry import Window
from keyscale.engine.device.colour import ToPlanes, encoder_layout
from keyscale.engine.device.frames import Sender
from keyscale.engine.source.colour import Colour, PixelArray, from_rgb
from keyscale.engine.source.planes import LAYOUTS, Planes
from keyscale.engine.source.probe import VideoInfo, probe
from keyscale.engine.source.reader import SourceFrame, read_frames

CPU = torch.device("cpu")
TAGS = [(matrix, value_range) for matrix in (1, 4, 5, 7, 9) for value_range in (1, 2)]
"""H.273 matrix and range (1 limited, 2 full): all that can be read."""


def noise(pixel_format: str, size: tuple[int, int], seed: int = 1) -> av.VideoFrame:
    """Nearly all codes of limited video: where a filter overshoots the rest, swscale's integers overflow."""
    frame = av.VideoFrame(*size, pixel_format)
    layout, generator = LAYOUTS[pixel_format], np.random.default_rng(seed)
    dtype: Any = np.uint8 if layout.bits == 8 else np.uint16
    for number, plane in enumerate(frame.planes):
        low, high = (value << (layout.bits - 8) for value in ((32, 224) if number else (16, 236)))
        rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        rows[...] = generator.integers(low, high, rows.shape).astype(dtype) << layout.shift
    return frame


def frames(path: Path, *, deep: bool, planes: bool) -> tuple[VideoInfo, list[SourceFrame]]:
    info = probe(path)
    wanted = [int(pts) for pts in info.pts]
    read = read_frames(info, wanted, deep=deep, keep_going=False, should_stop=lambda: False, planes=planes)
    return info, [frame for frame in read if isinstance(frame, SourceFrame)]


def on_device(frame: SourceFrame, window: Window, *, deep: bool) -> PixelArray:
    assert isinstance(frame.picture, Planes)
    rgb = Sender(CPU, deep=deep).rgb(frame.picture, window)
    return rgb.permute(1, 2, 0).numpy().astype(np.uint16 if deep else np.uint8)


def off(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[int, float]:
    """The largest difference, and the share of values that differ."""
    assert a.shape == b.shape
    difference = np.abs(a.astype(np.int64) - b.astype(np.int64))
    return int(difference.max()), float((difference > 0).mean())


def check(path: Path, *, deep: bool, whole: bool = False) -> None:
    """Windows at every edge and in the middle show what the reader's RGB shows there."""
    info, here = frames(path, deep=deep, planes=False)
    _, there = frames(path, deep=deep, planes=True)
    width, height = info.lattice
    corners = [Window(0, 0, width, height)] if whole else [
        Window(0, 0, width, height), Window(0, 0, 21, 14), Window(width - 20, height - 17, width, height),
        Window(9, 5, width - 6, height - 9),
    ]  # fmt: skip
    for one, other in zip(here, there, strict=True):
        for window in corners:
            shown = one.pixels[window.y0 : window.y1, window.x0 : window.x1]
            most, share = off(on_device(other, window, deep=deep), shown)
            # Of 65535, where a code of 12 bits is 16.
            assert most <= (6 if deep else 1), (window, most, share)
            # swscale makes 8-bit RGB of grey by way of 16 bits, and rounds twice.
            assert deep or share < (0.01 if info.pixel_format == "gray" else 0.002), (window, share)


PLANAR = [name for name in LAYOUTS if name != "nv12" and not name.startswith("yuvj")]


@pytest.mark.parametrize("deep", [False, True], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("pixel_format", PLANAR)
def test_rgb_of_planes(tmp_path: Path, pixel_format: str, deep: bool) -> None:
    path = write_video(tmp_path / "in.mkv", [noise(pixel_format, (62, 50))], codec="ffv1", pixel_format=pixel_format)
    check(path, deep=deep)


@pytest.mark.parametrize("pixel_format", ["nv12", "yuvj420p"])
def test_rgb_of_formats_that_few_codecs_have(tmp_path: Path, pixel_format: str) -> None:
    codec = "mjpeg" if pixel_format == "yuvj420p" else "rawvideo"
    path = tmp_path / "in.avi"
    tags = (5, 2, 2, 2) if codec == "mjpeg" else (1, 1, 1, 1)
    write_video(path, [noise(pixel_format, (62, 50))], codec=codec, pixel_format=pixel_format, tags=tags)
    _, [frame] = frames(path, deep=False, planes=True)
    assert isinstance(frame.picture, Planes)
    assert frame.picture.layout is LAYOUTS[pixel_format] or pixel_format == "yuvj420p"
    for deep in (False, True):
        check(path, deep=deep)


@pytest.mark.parametrize(("matrix", "value_range"), TAGS)
def test_rgb_by_every_matrix_and_range(tmp_path: Path, matrix: int, value_range: int) -> None:
    for pixel_format in ("yuv420p", "yuv422p10le"):
        path = write_video(
            tmp_path / f"{pixel_format}.mkv",
            [noise(pixel_format, (62, 50))],
            codec="ffv1",
            pixel_format=pixel_format,
            tags=(matrix, value_range, 2, 2),
        )
        check(path, deep="10" in pixel_format, whole=True)


@pytest.mark.parametrize("size", [(61, 50), (62, 49), (63, 47), (30, 18)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_rgb_of_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    """swscale stretches the chroma of such a picture a little; so does this."""
    for pixel_format in ("yuv420p", "yuv422p"):
        path = write_video(
            tmp_path / f"{pixel_format}.mkv", [noise(pixel_format, size)], codec="ffv1", pixel_format=pixel_format
        )
        check(path, deep=False)


@pytest.mark.parametrize("matrix", list(itertools.chain.from_iterable(
    ([(a, 0, 0, d), (0, a, d, 0)]) for a, d in itertools.product((1, -1), (1, -1)))))  # fmt: skip
def test_windows_of_turned_and_mirrored_pictures(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    source = write_video(tmp_path / "in.mp4", [noise("yuv420p", (62, 50))], options={"crf": "0"})
    check(turn(source, matrix), deep=False)


def test_what_does_not_go_as_planes_comes_as_rgb(tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (50, 62, 3), np.uint8)
    for pixel_format, codec, end in (
        ("bgr0", "ffv1", "mkv"), ("yuv420p16le", "ffv1", "mkv"), ("yuva420p", "ffv1", "mkv"),
        ("gray10le", "ffv1", "mkv"), ("yuv411p", "ffv1", "mkv"), ("rgb24", "png", "mov"), ("gray16le", "ffv1", "mkv"),
    ):  # fmt: skip
        path = write_video(tmp_path / f"{pixel_format}.{end}", [picture], codec=codec, pixel_format=pixel_format)
        for deep in (False, True):
            _, [here] = frames(path, deep=deep, planes=False)
            _, [there] = frames(path, deep=deep, planes=True)
            assert not isinstance(there.picture, Planes), pixel_format
            part = Window(3, 4, 40, 33)
            rgb = Sender(CPU, deep=deep).rgb(there.picture, part).permute(1, 2, 0).numpy()
            assert np.array_equal(rgb, here.pixels[part.y0 : part.y1, part.x0 : part.x1])


def test_pictures_of_another_size_come_as_rgb(tmp_path: Path) -> None:
    """Two recordings in one file: the second is scaled to the first one's canvas."""
    first, second = (
        write_video(tmp_path / f"{n}.ts", [noise("yuv420p", size)] * 4, codec="mpeg2video", rate=Fraction(25))
        for n, size in enumerate(((64, 48), (96, 64)))
    )
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    info, read = frames(both, deep=False, planes=True)
    kinds = {isinstance(frame.picture, Planes) for frame in read}
    assert info.lattice == (64, 48)
    assert kinds == {True, False}
    assert all(frame.picture.shape == (48, 64, 3) for frame in read)


# RGB to the encoder's planes


def pictures(deep: bool, size: tuple[int, int] = (66, 48)) -> dict[str, Picture]:
    width, height = size
    generator = np.random.default_rng(2)
    y, x = np.mgrid[0:height, 0:width]
    waves = 0.5 + 0.24 * np.sin(x / 13)[..., None] * np.array([1, 0.3, -0.6]) + 0.2 * np.cos(y / 17 + x / 29)[..., None]
    edges = (generator.random((height // 6 + 1, width // 6 + 1, 3)) > 0.5).repeat(6, 0).repeat(6, 1)[:height, :width]
    made = {"noise": generator.random((height, width, 3)), "waves": waves, "edges": edges.astype(float)}
    top, dtype = (65535, np.uint16) if deep else (255, np.uint8)
    return {name: np.rint(values.clip(0, 1) * top).astype(dtype) for name, values in made.items()}


FORMATS = {"yuv420p": 8, "yuv422p": 8, "yuv444p": 8, "nv12": 8, "yuv420p10le": 10, "yuv422p10le": 10, "p010le": 10}


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("location", [0, 2, 3], ids=["usual", "centre", "top left"])
def test_planes_of_rgb(pixel_format: str, location: int) -> None:
    deep, layout = FORMATS[pixel_format] > 8, encoder_layout(pixel_format)
    tags = TAGS if location == 0 else TAGS[1:2]
    for (name, pixels), (matrix, value_range) in itertools.product(pictures(deep).items(), tags):
        colour = Colour(matrix=matrix, full_range=value_range == 2, chroma_location=location)
        wanted = from_rgb(pixels, colour, pixel_format, reformatter=VideoReformatter())
        height, width = pixels.shape[:2]
        to_planes = ToPlanes(colour, pixel_format, (width, height), CPU, deep=deep)
        out = torch.zeros(to_planes.bytes, dtype=torch.uint8)
        rgb = torch.from_numpy(pixels.astype(np.float32)).permute(0, 2, 1)
        to_planes(rgb.contiguous(), out.view(to_planes.dtype))
        samples: npt.NDArray[Any] = out.numpy().view(np.uint16 if deep else np.uint8)
        begin = 0
        for plane, shape in zip(wanted.planes, to_planes.shapes, strict=True):
            there = np.frombuffer(memoryview(plane), samples.dtype).reshape(plane.height, -1)[
                :, : int(np.prod(shape[1:]))
            ]
            here = samples[begin : begin + there.size].reshape(there.shape)
            begin += there.size
            most, share = off(here >> layout.shift, there >> layout.shift)
            assert most <= 1, (name, matrix, value_range, shape)
            assert share < 0.15, (name, matrix, value_range, shape)


def test_formats_that_no_encoder_here_takes_are_refused() -> None:
    for name in ("yuv411p", "rgb24", "yuv420p16le", "cuda"):
        with pytest.raises(ValueError, match=name):
            encoder_layout(name)
