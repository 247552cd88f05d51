"""Which pixels of a source are shown: cropping in containers and codecs, sizes that change, animations."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.clips import numbered
from support.embedded import pixel_crop
from support.numbered import SMALL, Picture, grey, numbers, run, shown, small_job, turn, write_video

from keyscale.engine.errors import InputError
from keyscale.engine.job import Encoding, Fit
from keyscale.engine.source.canvas import Crop
from keyscale.engine.source.matroska import is_whole
from keyscale.engine.source.probe import probe

SIZE = (192, 128)
EDGES_X, EDGES_Y = (72, 120), (48, 88)
"""Where the bright square in the test picture begins and ends, in stored pixels."""

CROPS = [Crop(left=20, right=36, top=16, bottom=8), Crop(left=2, bottom=32), Crop(left=34, top=2, right=2, bottom=2)]
FINE = Encoding(preset="ultrafast", crf=4)


def square(size: tuple[int, int] = SIZE) -> Picture:
    picture = np.full((size[1], size[0], 3), 60, np.uint8)
    picture[EDGES_Y[0] : EDGES_Y[1], EDGES_X[0] : EDGES_X[1]] = 200
    return picture


def still(path: Path, **more: object) -> Path:
    options = {"crf": "4", "bf": "0", "preset": "veryfast"} | dict(more.pop("options", {}))  # type: ignore[call-overload]
    return write_video(path, [square()] * 6, rate=25, options=options, **more)  # type: ignore[arg-type]


def edges(line: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Where a line goes over the middle grey, up and down, in pixels from its beginning."""
    above = line > 130
    up, down = int(np.flatnonzero(above)[0]), int(np.flatnonzero(above)[-1]) + 1

    def between(at: int) -> float:
        low, high = line[at - 1], line[at]
        return at - 0.5 + float((130 - low) / (high - low)) if 0 < at < len(line) else float(at)

    return between(up), between(down)


def check(source: Path, crop: Crop, *, aspect: Fraction = Fraction(1)) -> None:
    """The square's edges lie where they do in the cropped picture, at twice its displayed size."""
    info = probe(source)
    width, height = crop.size(*SIZE)
    assert (info.width, info.height) == (round(width * aspect), height)
    target = (2 * round(width * aspect), 2 * height)
    result = run(
        small_job(source, source.parent / "out.mp4", size=target, fit=Fit.STRETCH, encoding=FINE, overwrite=True)
    )
    picture = list(grey(result.path))[2].astype(np.float64)
    across = edges(picture[2 * (68 - crop.top)])
    down = edges(picture[:, round(2 * (96 - crop.left) * aspect)])
    wide = target[0] / width
    assert across == pytest.approx([wide * (x - crop.left) for x in EDGES_X], abs=0.2)
    assert down == pytest.approx([2 * (y - crop.top) for y in EDGES_Y], abs=0.2)


def name_of(crop: Crop) -> str:
    return f"{crop.left},{crop.top},{crop.right},{crop.bottom}"


@pytest.mark.parametrize("crop", CROPS, ids=name_of)
def test_cropping_of_matroska_is_applied(tmp_path: Path, crop: Crop) -> None:
    check(pixel_crop(still(tmp_path / "in.mkv"), crop), crop)


def test_matroska_displays_what_is_left_at_the_size_that_it_names(tmp_path: Path) -> None:
    crop = Crop(left=32)
    source = pixel_crop(still(tmp_path / "in.mkv"), crop, display=(320, 128))
    check(source, crop, aspect=Fraction(2))


@pytest.mark.parametrize("crop", CROPS, ids=name_of)
@pytest.mark.parametrize("name", ["in.mp4", "in.ts", "in.h264"])
def test_cropping_of_the_codec_is_applied_to_the_pixel(tmp_path: Path, name: str, crop: Crop) -> None:
    sides = f"{crop.left},{crop.top},{crop.right},{crop.bottom}"
    check(still(tmp_path / name, options={"x264-params": f"crop-rect={sides}"}), crop)


def with_clap(path: Path, crop: Crop) -> Path:
    """Append a `clap` to the only sample entry of an MP4 or MOV whose index is its last box."""
    width, height = crop.size(*SIZE)
    # Offsets of the middle, in halves.
    box = struct.pack(
        ">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, crop.left - crop.right, 2, crop.top - crop.bottom, 2
    )
    content = bytearray(path.read_bytes())
    entry = content.index(b"avc1", content.index(b"stsd")) - 4
    end = entry + struct.unpack_from(">I", content, entry)[0]
    place = content.index(b"moov")
    outer = [place - 4]
    for kind in (b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        place = content.index(kind, place)
        outer.append(place - 4)
    for box_start in (*outer, entry):
        size = struct.unpack_from(">I", content, box_start)[0]
        struct.pack_into(">I", content, box_start, size + len(box))
    content[end:end] = box
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("crop", CROPS, ids=name_of)
@pytest.mark.parametrize("name", ["in.mp4", "in.mov"])
def test_clean_apertures_are_applied(tmp_path: Path, name: str, crop: Crop) -> None:
    check(with_clap(still(tmp_path / name), crop), crop)


def test_a_clean_aperture_is_cut_out_before_the_picture_is_turned(tmp_path: Path) -> None:
    crop = CROPS[0]
    source = turn(with_clap(still(tmp_path / "in.mp4"), crop), (0, 1, -1, 0))
    width, height = crop.size(*SIZE)
    assert (probe(source).width, probe(source).height) == (height, width)
    result = run(small_job(source, tmp_path / "out.mp4", size=(height, width), encoding=FINE))
    picture = list(grey(result.path))[2].astype(np.float64)
    # A quarter turn clockwise: stored rows become columns from the right.
    expected = [height - (y - crop.top) for y in reversed(EDGES_Y)]
    assert edges(picture[96 - crop.left]) == pytest.approx(expected, abs=0.2)


def test_a_clean_aperture_that_leaves_nothing_is_not_believed(tmp_path: Path) -> None:
    source = with_clap(still(tmp_path / "in.mp4"), CROPS[0])
    content = bytearray(source.read_bytes())
    struct.pack_into(">I", content, content.index(b"clap") + 4, 5000)
    source.write_bytes(content)
    assert (probe(source).width, probe(source).height) == SIZE


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4", "in.mov", "in.ts"])
def test_what_is_not_cropped_is_shown_whole(tmp_path: Path, name: str) -> None:
    check(still(tmp_path / name), Crop())


def enlarged(count: int, size: tuple[int, int], first: int) -> Iterator[Picture]:
    for number in range(first, first + count):
        yield np.asarray(Image.fromarray(numbered(number, SMALL)).resize(size, Image.Resampling.NEAREST))


SIZES = [(64, 48), (128, 96), (96, 72)]

CHANGING: dict[str, tuple[str, str, dict[str, str], str]] = {
    "VP8": ("in.webm", "libvpx", {"deadline": "realtime", "g": "5"}, "yuv420p"),
    "VP9": ("in.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "5"}, "yuv420p"),
    "H.264": ("in.ts", "libx264", {"g": "5", "bf": "2", "preset": "ultrafast", "crf": "8"}, "yuv420p"),
    "HEVC": ("in.ts", "libx265", {"preset": "ultrafast", "x265-params": "keyint=5:log-level=none:pools=1"}, "yuv420p"),
    "MPEG-2": ("in.ts", "mpeg2video", {"g": "5"}, "yuv420p"),
    "Motion JPEG": ("in.mkv", "mjpeg", {}, "yuvj420p"),
}


def changing(path: Path, codec: str, options: dict[str, str], pixel_format: str, sizes: list[tuple[int, int]]) -> Path:
    """One stream, 15 frames of each size, at 30 frames a second."""
    parts = [
        write_video(
            path.with_name(f"part{number}{path.suffix}"),
            enlarged(15, size, 15 * number),
            rate=30,
            pts=list(range(30 + 15 * number, 45 + 15 * number)),
            time_base=Fraction(1, 30),
            codec=codec,
            options=options,
            pixel_format=pixel_format,
        )
        for number, size in enumerate(sizes)
    ]
    if path.suffix == ".ts":
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path
    with av.open(parts[0]) as template, av.open(path, "w") as out:
        stream = out.add_stream_from_template(template.streams.video[0])
        for part in parts:
            with av.open(part) as container:
                for packet in container.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        out.mux(packet)
    return path


@pytest.mark.parametrize("kind", CHANGING)
@pytest.mark.parametrize("sizes", [SIZES, SIZES[1::-1]], ids=["grows", "shrinks"])
def test_pictures_of_another_size_are_scaled_to_the_first_ones(
    tmp_path: Path, kind: str, sizes: list[tuple[int, int]]
) -> None:
    name, codec, options, pixel_format = CHANGING[kind]
    source = changing(tmp_path / name, codec, options, pixel_format, sizes)
    assert (probe(source).width, probe(source).height) == sizes[0]
    frames = list(range(15 * len(sizes)))
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(30)))
    assert shown(result.path) == frames
    late = run(small_job(source, tmp_path / "late.mp4", rate=Fraction(30), start=0.4))
    assert shown(late.path) == frames[12:]


def test_a_picture_of_another_shape_keeps_its_shape(tmp_path: Path) -> None:
    source = changing(tmp_path / "in.webm", *CHANGING["VP8"][1:], sizes=[(192, 96), (96, 192)])
    result = run(small_job(source, tmp_path / "out.mp4", size=(192, 96), encoding=FINE, rate=Fraction(30)))
    upright = list(grey(result.path))[20]
    assert upright[:, :70].max() < 24
    assert upright[:, 122:].max() < 24
    assert upright[:, 76:116].mean() > 40


@pytest.mark.parametrize("how", [{"lossless": True}, {"quality": 95}], ids=["lossless", "lossy"])
def test_animated_webp_is_shown(tmp_path: Path, how: dict[str, object]) -> None:
    pictures = [Image.fromarray(picture) for picture in numbers(8)]
    source = tmp_path / "in.webp"
    stay = [100, 50, 200, 100, 100, 100, 100, 300]
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=stay, **how)  # type: ignore[arg-type]
    expected = [number for number, time in enumerate(stay) for _ in range(time // 50)]
    assert shown(run(small_job(source, tmp_path / "out.mp4", rate=Fraction(20))).path) == expected
    late = run(small_job(source, tmp_path / "late.mp4", rate=Fraction(20), start=0.3))
    assert shown(late.path) == expected[6:]


@pytest.mark.parametrize("start", [None, 0.3])
def test_animated_avif_is_shown(tmp_path: Path, start: float | None) -> None:
    """It begins with a still of its first picture, which was all of it."""
    options = {"crf": "10", "preset": "12", "svtav1-params": "avif=0:lp=1"}
    source = write_video(tmp_path / "in.avif", numbers(8), rate=10, codec="libsvtav1", options=options)
    result = run(small_job(source, tmp_path / "out.mp4", rate=Fraction(10), start=start))
    assert shown(result.path) == list(range(3 if start else 0, 8))


def test_animated_webp_stands_on_black_where_it_is_transparent(tmp_path: Path) -> None:
    pictures = []
    for picture in numbers(4):
        with_alpha = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        with_alpha[:, 32:, 3] = 0
        pictures.append(Image.fromarray(with_alpha))
    source = tmp_path / "in.webp"
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=100, lossless=True)
    for picture in grey(run(small_job(source, tmp_path / "out.mp4", rate=Fraction(10))).path):
        assert picture[:, 40:].max() < 20
        assert picture[:, :30].max() > 25


def test_animated_webp_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    pictures = [Image.fromarray(picture) for picture in numbers(8)]
    source = tmp_path / "in.webp"
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=100)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(InputError, match=r"in\.webp"):
        probe(source)


def longer(path: Path, seconds: float) -> Path:
    """Write another duration into the header of a Matroska file."""
    content = bytearray(path.read_bytes())
    place = content.index(b"\x44\x89\x88")
    content[place + 3 : place + 11] = struct.pack(">d", seconds * 1000)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "codec"), [("in.webm", "libvpx"), ("in.mkv", "libx264"), ("in.webm", "libvpx-vp9")])
def test_a_last_frame_stands_until_the_time_that_the_header_tells(tmp_path: Path, name: str, codec: str) -> None:
    source = longer(write_video(tmp_path / name, numbers(30), rate=30, codec=codec), 2.5)
    frames = shown(run(small_job(source, tmp_path / "out.mp4", rate=Fraction(30))).path)
    assert frames == [*range(30), *([29] * 45)]


def test_a_file_that_is_cut_off_is_still_told_from_one_that_is_whole(tmp_path: Path) -> None:
    source = longer(write_video(tmp_path / "in.mkv", numbers(60), rate=30), 4)
    assert is_whole(source)
    source.write_bytes(source.read_bytes()[:-700])
    assert not is_whole(source)
    with pytest.raises(InputError, match=r"its header says 4\.00 s"):
        probe(source)


def test_live_recordings_whose_sizes_are_unknown_can_be_whole(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.webm", numbers(30), rate=30, codec="libvpx", container_options={"live": "1"})
    assert is_whole(source)
    source.write_bytes(source.read_bytes()[:-3])
    assert not is_whole(source)
