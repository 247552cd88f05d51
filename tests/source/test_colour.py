"""Code values come out as they went in: every matrix, range and depth, tags carried, nothing converted by a default.

Patches of known colours are written as exact code values in lossless files. What a code value stands for is computed
here from ITU-T H.273 (clause 8.3, equations 20 to 48), with its K_R and K_B of table 4.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter
from support.numbered import run, small_job, write_video

from keyscale.engine.errors import UsageError
from keyscale.engine.job import Codec, Encoding
from keyscale.engine.source.colour import Colour, from_rgb, guess_matrix, to_rgb
from keyscale.engine.source.probe import probe

Floats = npt.NDArray[np.float64]

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
LIMITED, FULL = 1, 2
PATCH = 32
COLOURS = np.array(
    [
        (0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.02, 0.02, 0.02),
        (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1),
        (1, 0, 1), (1, 1, 0), (0.8, 0.5, 0.4), (0.1, 0.3, 0.7),
    ],
    dtype=np.float64,
)  # fmt: skip
"""R'G'B' in 0..1, four to a row, three rows: extremes, greys, skin, sky."""
SIZE = (4 * PATCH, 3 * PATCH)
NEAR = 2
"""Code values that an output may be off."""


def codes_of(rgb: Floats, matrix: int, value_range: int, bits: int) -> Floats:
    """R'G'B' `(N, 3)` in 0..1 -> Y', Cb, Cr as code values of `bits` bits, not rounded."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = rgb.T
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    step, top = 2.0 ** (bits - 8), 2.0**bits - 1
    if value_range == FULL:
        codes = np.stack([top * luma, top * cb + 128 * step, top * cr + 128 * step], axis=1).clip(0, top)
    else:
        codes = np.stack([(219 * luma + 16) * step, (224 * cb + 128) * step, (224 * cr + 128) * step], axis=1)
    return np.asarray(codes, np.float64)


def expected_codes(matrix: int, value_range: int, bits: int, depth: int) -> Floats:
    """What stands in an output of `depth` bits: the source's code values, which are whole, in that depth."""
    codes = np.rint(codes_of(COLOURS, matrix, value_range, bits))
    if value_range == LIMITED:
        return np.asarray(codes * 2.0 ** (depth - bits), np.float64)
    gain = (2.0**depth - 1) / (2.0**bits - 1)
    middle = np.array([0, 2.0 ** (bits - 1), 2.0 ** (bits - 1)])
    whole = (codes - middle) * gain + middle * 2.0 ** (depth - bits)
    return np.asarray(whole.clip(0, 2.0**depth - 1), np.float64)


def patches(values: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """One value a patch -> a plane of that shape."""
    rows = values.reshape(3, 4)
    return np.repeat(np.repeat(rows, shape[0] // 3, axis=0), shape[1] // 4, axis=1)


def yuv_frame(codes: npt.NDArray[Any], pixel_format: str) -> av.VideoFrame:
    """A frame of the twelve patches with these code values."""
    frame = av.VideoFrame(SIZE[0], SIZE[1], pixel_format)
    for number, plane in enumerate(frame.planes):
        dtype = np.uint8 if frame.format.components[0].bits == 8 else np.dtype("<u2")
        values = np.zeros((plane.height, plane.line_size // np.dtype(dtype).itemsize), dtype)
        # A fourth plane is opacity.
        what = codes[:, number] if number < codes.shape[1] else np.full(12, 2 ** frame.format.components[0].bits - 1)
        values[:, : plane.width] = patches(np.rint(what), (plane.height, plane.width))
        plane.update(values.tobytes())
    return frame


def middles(frame: av.VideoFrame) -> Floats:
    """Mean code values in the middles of the patches `(12, planes)`."""
    found = []
    for plane in frame.planes[:3]:
        dtype = np.uint8 if frame.format.components[0].bits == 8 else np.dtype("<u2")
        values = np.frombuffer(bytes(plane), dtype).reshape(plane.height, -1)[:, : plane.width]
        down, across = plane.height // 3, plane.width // 4
        found.append(
            [
                values[
                    row * down + down // 4 : (row + 1) * down - down // 4,
                    col * across + across // 4 : (col + 1) * across - across // 4,
                ].mean()
                for row, col in itertools.product(range(3), range(4))
            ]
        )
    return np.array(found).T


def means(frame: av.VideoFrame) -> list[float]:
    """Mean code value of each plane of 16-bit values."""
    return [
        float(np.frombuffer(bytes(plane), "<u2").reshape(plane.height, -1)[:, : plane.width].mean())
        for plane in frame.planes
    ]


def source_clip(
    path: Path, matrix: int, value_range: int, bits: int, *, sampling: str = "420", tags: Any = None, frames: int = 3
) -> Path:
    """The twelve patches without loss, tagged; primaries and transfer follow the matrix."""
    pixel_format = f"yuv{sampling}p" + ("" if bits == 8 else f"{bits}le")
    codes = codes_of(COLOURS, matrix, value_range, bits)
    primaries = {1: 1, 5: 5, 6: 6, 7: 7, 9: 9}[matrix]
    transfer = {1: 1, 5: 6, 6: 6, 7: 7, 9: 14}[matrix]
    pictures = [yuv_frame(codes, pixel_format) for _ in range(frames)]
    all_tags = tags or (matrix, value_range, primaries, transfer)
    # libx264's qp 0 is without loss in both depths, and its stream carries all four tags.
    written: Path = write_video(
        path, pictures, options={"qp": "0", "crf": "0"}, pixel_format=pixel_format, tags=all_tags
    )
    return written


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def side_data(frame: Any, kind: SideData) -> bytes | None:
    found = frame.side_data.get(kind)
    return bytes(found) if found is not None else None


def tags_of(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    return int(frame.colorspace), int(frame.color_range), int(frame.color_primaries), int(frame.color_trc)


FINE: dict[Codec, Encoding] = {
    Codec.H264: Encoding(codec=Codec.H264, crf=2, preset="ultrafast"),
    Codec.HEVC: Encoding(codec=Codec.HEVC, crf=2, preset="ultrafast"),
    Codec.AV1: Encoding(codec=Codec.AV1, crf=4, preset="10"),
    Codec.PRORES: Encoding(codec=Codec.PRORES),
}

CASES = [
    (matrix, value_range, bits, codec, depth)
    for matrix in (1, 6, 9)
    for value_range in (LIMITED, FULL)
    for bits in (8, 10)
    for codec, depth in ((Codec.H264, 8), (Codec.H264, 10), (Codec.HEVC, 8), (Codec.HEVC, 10), (Codec.AV1, 10))
] + [
    (5, LIMITED, 8, Codec.H264, 8),
    (5, LIMITED, 10, Codec.H264, 10),
    (7, LIMITED, 8, Codec.H264, 8),
    (7, LIMITED, 10, Codec.H264, 10),
    (1, LIMITED, 8, Codec.AV1, 8),
    (9, FULL, 8, Codec.AV1, 8),
    (1, LIMITED, 8, Codec.PRORES, 10),
    (6, LIMITED, 10, Codec.PRORES, 10),
    (9, LIMITED, 10, Codec.PRORES, 10),
    (1, FULL, 8, Codec.PRORES, 10),
]


@pytest.mark.parametrize(
    ("matrix", "value_range", "bits", "codec", "depth"),
    CASES,
    ids=lambda value: value.value if isinstance(value, Codec) else str(value),
)
def test_code_values_and_tags_are_carried(
    tmp_path: Path, matrix: int, value_range: int, bits: int, codec: Codec, depth: Any
) -> None:
    source = source_clip(tmp_path / "in.mp4", matrix, value_range, bits)
    suffix = ".mov" if codec is Codec.PRORES else ".mp4"
    fine = FINE[codec]
    encoding = Encoding(codec=codec, crf=fine.crf, preset=fine.preset, bit_depth=depth)
    result = run(small_job(source, tmp_path / f"out{suffix}", size=SIZE, encoding=encoding))

    wanted_tags = tags_of(decoded(source)[0])
    expected = expected_codes(matrix, value_range, bits, depth)
    if codec is Codec.PRORES and value_range == FULL:
        # Its bitstream has no place for the range: it is always limited, so the values are converted.
        wanted_tags = (wanted_tags[0], LIMITED, *wanted_tags[2:])
        expected = codes_of(COLOURS, matrix, LIMITED, depth)
    # Rounded to 8 bits, a pure colour may lie just outside of what RGB can say: it is the nearest colour then.
    near = NEAR + (0.5 if depth > bits else 0)
    frames = decoded(result.path)
    assert len(frames) == 3
    for frame in frames:
        assert frame.format.components[0].bits == depth
        np.testing.assert_allclose(middles(frame), expected, atol=near)
        found = tags_of(frame)
        if codec is Codec.PRORES and found[1] == 0:
            found = (found[0], LIMITED, *found[2:])
        assert found == wanted_tags


@pytest.mark.parametrize("sampling", ["422", "444"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("value_range", [LIMITED, FULL])
def test_other_chroma_samplings(tmp_path: Path, sampling: str, bits: int, value_range: int) -> None:
    source = source_clip(tmp_path / "in.mp4", 1, value_range, bits, sampling=sampling)
    depths: tuple[Any, ...] = (8, 10)
    for depth in depths:
        encoding = Encoding(codec=Codec.H264, crf=2, preset="ultrafast", bit_depth=depth)
        result = run(small_job(source, tmp_path / f"out{depth}.mp4", size=SIZE, encoding=encoding))
        expected = expected_codes(1, value_range, bits, depth)
        np.testing.assert_allclose(middles(decoded(result.path)[0]), expected, atol=NEAR)


@pytest.mark.parametrize("container", [".mp4", ".mov", ".mkv"])
def test_tags_are_carried_into_every_container(tmp_path: Path, container: str) -> None:
    source = source_clip(tmp_path / "in.mkv", 9, FULL, 10)
    result = run(small_job(source, tmp_path / f"out{container}", size=SIZE, encoding=FINE[Codec.HEVC]))
    assert tags_of(decoded(result.path)[0]) == (9, FULL, 9, 14)


@pytest.mark.parametrize(("height", "matrix"), [(96, 6), (576, 6), (718, 6), (720, 1), (1080, 1)])
def test_untagged_sources_are_read_as_players_read_them(tmp_path: Path, height: int, matrix: int) -> None:
    size = (128, height)
    codes = codes_of(np.array([[0.8, 0.5, 0.4]]), matrix, LIMITED, 8)[0]
    frame = av.VideoFrame(*size, "yuv420p")
    for value, plane in zip(codes, frame.planes, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    source = write_video(tmp_path / "in.mp4", [frame, frame], options={"qp": "0"}, tags=(2, 0, 2, 2))
    assert tags_of(decoded(source)[0])[0] == 2
    result = run(small_job(source, tmp_path / "out.mp4", size=size, encoding=FINE[Codec.H264]))
    found = decoded(result.path)[0]
    assert tags_of(found)[:2] == (matrix, LIMITED)
    for value, plane in zip(codes, found.planes, strict=True):
        assert (
            abs(np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width].mean() - value) < NEAR
        )
    assert any("no colour matrix" in warning for warning in result.plan.warnings)
    assert guess_matrix(height) == matrix


def test_a_matrix_of_rgb_on_a_yuv_stream_is_a_mistake(tmp_path: Path) -> None:
    source = source_clip(tmp_path / "in.mkv", 6, LIMITED, 8, tags=(3, LIMITED, 2, 2))
    assert probe(source).colour == Colour(matrix=6, full_range=False, assumed=True)


@pytest.mark.parametrize("bits", [8, 10])
def test_2020_primaries_without_a_matrix_are_2020(tmp_path: Path, bits: int) -> None:
    source = source_clip(tmp_path / "in.mp4", 9, LIMITED, bits, tags=(2, LIMITED, 9, 14))
    assert probe(source).colour.matrix == 9


# HDR

HDR10 = (
    "log-level=error:lossless=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):"
    "max-cll=1000,400"
)


@pytest.mark.parametrize(("transfer", "name"), [(16, "pq"), (18, "hlg")])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_hdr_stays_hdr(tmp_path: Path, transfer: int, name: str, suffix: str) -> None:
    codes = codes_of(COLOURS, 9, LIMITED, 10)
    source = write_video(
        tmp_path / "in.mp4",
        [yuv_frame(codes, "yuv420p10le") for _ in range(4)],
        codec="libx265",
        options={"preset": "ultrafast", "x265-params": HDR10},
        pixel_format="yuv420p10le",
        tags=(9, LIMITED, 9, transfer),
    )
    info = probe(source)
    assert info.colour.hdr == name
    encoding = Encoding(crf=2, preset="ultrafast")
    result = run(small_job(source, tmp_path / f"out{suffix}", size=SIZE, encoding=encoding))
    frames = decoded(result.path)
    assert len(frames) == 4
    assert frames[0].format.name == "yuv420p10le"
    assert tags_of(frames[0]) == (9, LIMITED, 9, transfer)
    np.testing.assert_allclose(middles(frames[0]), codes, atol=NEAR)
    with av.open(result.path) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "hevc"
        if suffix != ".mkv":
            assert context.codec_tag == "hvc1"
    for kind in (SideData.MASTERING_DISPLAY_METADATA, SideData.CONTENT_LIGHT_LEVEL):
        before, after = side_data(decoded(source)[0], kind), side_data(frames[0], kind)
        assert before is not None
        assert after == before


def test_hdr_is_not_squeezed_into_8_bit(tmp_path: Path) -> None:
    source = source_clip(tmp_path / "in.mp4", 9, LIMITED, 10, tags=(9, LIMITED, 9, 16))
    encoding = Encoding(bit_depth=8)
    with pytest.raises(UsageError, match="HDR") as caught:
        run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding))
    assert caught.value.exit_code == 2


def test_a_real_hlg_clip(shared: Path, tmp_path: Path) -> None:
    source = shared / "clips" / "hlg_hevc10_1920x1080.mp4"
    result = run(small_job(source, tmp_path / "out.mp4", size=(96, 54), encoding=Encoding(preset="ultrafast")))
    frame = decoded(result.path)[0]
    assert tags_of(frame) == tags_of(decoded(source)[0]) == (9, LIMITED, 9, 18)
    assert frame.format.name == "yuv420p10le"
    # Means of luma and chroma are those of the source, whatever the sampling does.
    np.testing.assert_allclose(means(frame), means(decoded(source)[0]), atol=2)


def test_a_dark_frame_of_a_deep_source_does_not_flash(tmp_path: Path) -> None:
    """Told by its values, a 16-bit picture that is nearly black would be taken for one of 8 bits."""
    dark = codes_of(np.full((12, 3), 0.002), 1, LIMITED, 10)
    bright = codes_of(np.full((12, 3), 0.9), 1, LIMITED, 10)
    levels = [bright, dark, dark, bright, dark]
    source = write_video(
        tmp_path / "in.mp4",
        [yuv_frame(codes, "yuv420p10le") for codes in levels],
        options={"qp": "0"},
        pixel_format="yuv420p10le",
    )
    encoding = Encoding(codec=Codec.H264, crf=2, preset="ultrafast", bit_depth=10)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding))
    for frame, codes in zip(decoded(result.path), levels, strict=True):
        np.testing.assert_allclose(middles(frame), codes, atol=NEAR)


# Sources that are not Y'CbCr 4:2:0


def rgb_frame(pixel_format: str) -> av.VideoFrame:
    picture = np.stack([patches(COLOURS[:, i], (SIZE[1], SIZE[0])) for i in range(3)], axis=-1)
    if av.VideoFormat(pixel_format).components[0].bits == 8:
        # Only from 8 bits are the values of other orders of 8 bits exact.
        frame = av.VideoFrame.from_ndarray(np.rint(picture * 255).astype(np.uint8), format="rgb24")
    else:
        frame = av.VideoFrame.from_ndarray(np.rint(picture * 65535).astype(np.uint16), format="rgb48le")
    return frame if frame.format.name == pixel_format else frame.reformat(format=pixel_format)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("in.mkv", "ffv1", "bgr0"),
        ("in.mkv", "ffv1", "gbrp10le"),
        ("in.mkv", "ffv1", "gbrp16le"),
        ("in.mov", "png", "rgb24"),
        ("in.mov", "png", "rgba"),
        ("in.mov", "png", "rgb48be"),
        ("in.mov", "qtrle", "rgb24"),
        ("in.avi", "rawvideo", "bgr24"),
        ("in.mkv", "libx264rgb", "rgb24"),
        ("in.mp4", "libx265", "gbrp"),
    ],
)
@pytest.mark.parametrize("depth", [8, 10])
def test_rgb_becomes_709_limited(tmp_path: Path, name: str, codec: str, pixel_format: str, depth: Any) -> None:
    options = {"libx264rgb": {"qp": "0"}, "libx265": {"x265-params": "log-level=error:lossless=1"}}.get(codec, {})
    source = write_video(
        tmp_path / name,
        [rgb_frame(pixel_format) for _ in range(3)],
        codec=codec,
        options=options,
        pixel_format=pixel_format,
        tags=(0, FULL, 1, 13),
    )
    encoding = Encoding(codec=Codec.H264, crf=2, preset="ultrafast", bit_depth=depth)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding, rate=Fraction(25)))
    frames = decoded(result.path)
    assert len(frames) == 3
    top = 2 ** av.VideoFormat(pixel_format).components[0].bits - 1
    stored = np.rint(COLOURS * top) / top
    np.testing.assert_allclose(middles(frames[1]), codes_of(stored, 1, LIMITED, depth), atol=NEAR)
    assert tags_of(frames[1])[:2] == (1, LIMITED)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "bits", "value_range"),
    [
        ("in.avi", "mjpeg", "yuvj420p", 8, FULL),
        ("in.mov", "prores_ks", "yuv422p10le", 10, LIMITED),
        ("in.mov", "prores_ks", "yuva444p10le", 10, LIMITED),
        ("in.mkv", "ffv1", "yuv411p", 8, LIMITED),
        ("in.mkv", "ffv1", "yuv440p", 8, LIMITED),
        ("in.mkv", "ffv1", "yuv420p12le", 12, LIMITED),
        ("in.mkv", "ffv1", "yuv444p16le", 16, LIMITED),
        ("in.mkv", "ffv1", "yuva420p", 8, LIMITED),
        ("in.avi", "rawvideo", "yuv420p", 8, LIMITED),
    ],
)
@pytest.mark.parametrize("depth", [8, 10])
def test_other_pixel_formats(
    tmp_path: Path, name: str, codec: str, pixel_format: str, bits: int, value_range: int, depth: Any
) -> None:
    codes = codes_of(COLOURS, 6, value_range, bits)
    source = write_video(
        tmp_path / name,
        [yuv_frame(codes, pixel_format) for _ in range(3)],
        codec=codec,
        options={"qscale": "1"} if codec == "mjpeg" else {},
        pixel_format=pixel_format,
        tags=(6, value_range, 6, 6),
    )
    assert probe(source).colour.matrix in {5, 6}
    encoding = Encoding(codec=Codec.H264, crf=2, preset="ultrafast", bit_depth=depth)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding, rate=Fraction(25)))
    out = decoded(result.path)[1]
    expected = expected_codes(6, value_range, bits, depth)
    # JPEG's quantiser and ProRes lose a little before we begin.
    near = NEAR + (2 if codec in {"mjpeg", "prores_ks"} else 0)
    np.testing.assert_allclose(middles(out), expected, atol=near)


@pytest.mark.parametrize(("pixel_format", "bits"), [("gray", 8), ("gray10le", 10)])
def test_grey_stays_grey(tmp_path: Path, pixel_format: str, bits: int) -> None:
    codes = codes_of(np.repeat(COLOURS[:, :1], 3, axis=1), 6, LIMITED, bits)
    frames = [yuv_frame(codes[:, :1], pixel_format) for _ in range(3)]
    source = write_video(tmp_path / "in.mkv", frames, codec="ffv1", pixel_format=pixel_format, tags=(6, LIMITED, 6, 6))
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=FINE[Codec.H264]))
    found = middles(decoded(result.path)[0])
    np.testing.assert_allclose(found, codes_of(np.repeat(COLOURS[:, :1], 3, axis=1), 6, LIMITED, 8), atol=NEAR)


# The functions alone


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("value_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", [1, 6, 7, 9])
def test_decoding_is_that_of_the_standard(matrix: int, value_range: int, bits: int) -> None:
    colour = Colour(matrix=matrix, full_range=value_range == FULL)
    codes = np.rint(codes_of(COLOURS, matrix, value_range, bits))
    suffix = "" if bits == 8 else f"{bits}le"
    for deep in (False, True):
        frame = yuv_frame(codes, f"yuv420p{suffix}")
        rgb = to_rgb(frame, colour, deep=deep, reformatter=VideoReformatter())
        assert rgb.dtype == np.dtype(np.uint16 if deep else np.uint8)
        assert rgb.shape == (SIZE[1], SIZE[0], 3)
        top = 65535 if deep else 255
        centres = rgb[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(-1, 3) / top
        # Rounding of the code values alone is worth up to 2 of 255 in a colour channel at 8 bit.
        np.testing.assert_allclose(
            centres, COLOURS, atol=2.2 / (255 * 2.0 ** (min(bits, 10) - 8)) if deep else 2.2 / 255
        )


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize("value_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_encoding_is_that_of_the_standard(matrix: int, value_range: int, pixel_format: str, dtype: Any) -> None:
    colour = Colour(matrix=matrix, full_range=value_range == FULL, primaries=9, transfer=14)
    top = np.iinfo(dtype).max
    picture = np.stack([patches(np.rint(COLOURS[:, i] * top), (SIZE[1], SIZE[0])) for i in range(3)], axis=-1)
    frame = from_rgb(picture.astype(dtype), colour, pixel_format, reformatter=VideoReformatter())
    assert frame.format.name == pixel_format
    assert tags_of(frame) == (matrix, value_range, 9, 14)
    bits = frame.format.components[0].bits
    near = 1.25 if dtype == np.uint16 or bits == 8 else 4.5  # 8-bit colours know no more
    np.testing.assert_allclose(middles(frame), codes_of(COLOURS, matrix, value_range, bits), atol=near)


@pytest.mark.parametrize("bits", [8, 10])
def test_codes_are_rounded_and_not_cut_off(bits: int) -> None:
    colour, name = Colour(matrix=1, full_range=False), "yuv420p" if bits == 8 else "yuv420p10le"
    random = np.random.default_rng(3)
    errors = []
    for _ in range(10):
        drawn = random.uniform(0.1, 0.9, (12, 3))
        planes = [patches(np.rint(drawn[:, i] * 65535), (SIZE[1], SIZE[0])) for i in range(3)]
        frame = from_rgb(np.stack(planes, axis=-1).astype(np.uint16), colour, name, reformatter=VideoReformatter())
        errors.append(middles(frame) - codes_of(drawn, 1, LIMITED, bits))
    # Half of them are below and half above.
    bias = np.concatenate(errors).mean(axis=0)
    assert np.abs(bias).max() < 0.2, bias


def test_every_grey_survives_there_and_back() -> None:
    for bits, colour in itertools.product(
        (8, 10), (Colour(matrix=1, full_range=False), Colour(matrix=9, full_range=True))
    ):
        low, high = (0, 2**bits - 1) if colour.full_range else (16 << (bits - 8), 235 << (bits - 8))
        name = "yuv420p" if bits == 8 else "yuv420p10le"
        for start in range(low, high - 11, 12):
            codes = np.full((12, 3), 128 << (bits - 8))
            codes[:, 0] = np.arange(start, start + 12)
            frame = yuv_frame(codes, name)
            rgb = to_rgb(frame, colour, deep=bits > 8, reformatter=VideoReformatter())
            back = from_rgb(rgb, colour, name, reformatter=VideoReformatter())
            assert np.abs(middles(back) - codes).max() <= 1


def test_words_for_people() -> None:
    assert Colour(matrix=1, full_range=False).describe() == "bt709 limited"
    assert Colour(matrix=9, full_range=False, transfer=16).describe() == "bt2020nc limited smpte2084"
    assert Colour(matrix=6, full_range=True, assumed=True).describe() == "smpte170m full (assumed)"
