"""The camera glides: positions measured in the output follow the keyframes to a tenth of an output pixel."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.numbered import (
    SMALL,
    Result,
    grey,
    numbered,
    planes,
    run,
    shown,
    small_job,
    write_video,
)

from keyscale.engine.camera.framing import load_framing
from keyscale.engine.camera.geometry import Geometry, Window, place
from keyscale.engine.camera.sampler import sample
from keyscale.engine.job import Codec, Encoding, Fit, ModelChoice

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[Any]

SOURCE = (160, 120)
BLOB = (81.3, 57.8)
"""Centre of the bright spot, in source pixels from the picture's edge."""
NEAR = 0.1
"""Output pixels."""
FINE = Encoding(codec=Codec.H264, crf=4, preset="ultrafast")


def spot(
    size: tuple[int, int] = SOURCE, centre: tuple[float, float] = BLOB, sigma: float = 5.0
) -> npt.NDArray[np.uint8]:
    """A soft bright spot on dark grey; a pixel's value is that at its middle."""
    x, y = np.arange(size[0]) + 0.5 - centre[0], np.arange(size[1]) + 0.5 - centre[1]
    glow = np.exp(-np.add.outer(y**2, x**2) / (2 * sigma**2))
    return np.asarray(np.rint(30 + 200 * glow)[..., None].repeat(3, axis=2), np.uint8)


def centre_of(picture: npt.NDArray[Any]) -> tuple[float, float]:
    """Where the spot is in a picture, in pixels from its edge: the mean place of what shines."""
    light = np.clip(picture.astype(float) - 50, 0, None)
    light = light if light.ndim == 2 else light.mean(axis=2)
    x, y = np.arange(light.shape[1]) + 0.5, np.arange(light.shape[0]) + 0.5
    return float((light.sum(0) * x).sum() / light.sum()), float((light.sum(1) * y).sum() / light.sum())


def keyframes(path: Path, *entries: tuple[float, float, float, float, float], **more: Any) -> str:
    """A keyframes file of (time, x, y, width, height)."""
    names = ("time", "x", "y", "width", "height")
    rects = [dict(zip(names, entry, strict=True)) for entry in entries]
    path.write_text(json.dumps({"version": 1, "keyframes": rects, **more}))
    return str(path)


def film(tmp_path: Path, file: str, *, frames: int = 60, size: tuple[int, int] = (256, 192), **more: Any) -> Result:
    """The spot stands still and the camera moves; `size` is the target."""
    source = write_video(tmp_path / "in.mkv", [spot()] * frames, codec="ffv1", pixel_format="yuv444p")
    job = small_job(source, tmp_path / "out.mp4", size=size, keyframes=file, encoding=FINE, **more)
    return run(job)


def follow(result: Result, file: str, size: tuple[int, int], *, network: bool = False) -> Floats:
    """Check every frame's spot against the camera's rectangle; the places in the output `(N, 2)`.

    A network draws the spot anew and may move its middle, by the same amount in every frame: the source stands still.
    """
    camera = load_framing(file)
    times = result.plan.info.times()[result.plan.source_index]
    found = np.array([centre_of(picture) for picture in grey(result.path)])
    rects = [camera.rect_at(float(time)).inside(*SOURCE).cover(size[0] / size[1]) for time in times]
    wanted = np.array(
        [((BLOB[0] - rect.x) * size[0] / rect.width, (BLOB[1] - rect.y) * size[1] / rect.height) for rect in rects]
    )
    assert found.shape == wanted.shape
    own = np.median(found - wanted, axis=0) if network else 0
    assert np.abs(own).max() < 1.5
    assert np.abs(found - wanted - own).max() < NEAR
    return found


def glides(places: Floats, step: float, near: float = 0.08) -> None:
    """Every frame moves on by the same amount: no stairs."""
    steps = np.diff(places)
    assert (np.sign(steps) == np.sign(step)).all()
    np.testing.assert_allclose(steps, step, atol=near)


# 0.11 source pixels a frame at 25 frames a second, 4 output pixels to each.
PANS = {
    "right": ((50.0, 33.0), (50.0 + 0.11 * 59, 33.0)),
    "left": ((56.49, 33.25), (50.0, 33.25)),
    "down": ((50.5, 30.0), (50.5, 30.0 + 0.07 * 59)),
    "diagonal": ((50.0, 30.0), (50.0 + 0.11 * 59, 30.0 + 0.05 * 59)),
}


@pytest.mark.parametrize("pan", PANS)
@pytest.mark.parametrize("size", [(256, 192), (64, 48), (40, 30)], ids=["x4", "x1", "x0.6"])
def test_a_slow_pan_glides(tmp_path: Path, pan: str, size: tuple[int, int]) -> None:
    (x0, y0), (x1, y1) = PANS[pan]
    file = keyframes(tmp_path / "k.json", (0, x0, y0, 64, 48), (59 / 25, x1, y1, 64, 48))
    result = film(tmp_path, file, size=size)
    places = follow(result, file, size)
    for axis, (begin, end) in enumerate(((x0, x1), (y0, y1))):
        if begin != end:
            glides(places[:, axis], (begin - end) / 59 * size[0] / 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["realesr-animevideov3", "realesr-general-x4v3"])
def test_a_slow_pan_glides_through_a_network(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(shared / "weights"))
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    x1 = 50.0 + 0.11 * 39
    file = keyframes(tmp_path / "k.json", (0, 50, 33, 64, 48), (39 / 25, x1, 33, 64, 48))
    choice = ModelChoice(name=name, offline=True)
    result = film(tmp_path, file, frames=40, model=choice)
    assert result.plan.scale == 4
    places = follow(result, file, (256, 192), network=True)
    # Measured from a coded picture, whose noise depends on the encoder's threads: up to 0.083 was seen.
    glides(places[:, 0], -0.44, near=0.1)


def test_a_zoom_holds_its_centre(tmp_path: Path) -> None:
    """The rectangle shrinks about the spot: it stays where it is and grows."""
    begin, end = 96.0, 48.0

    def rect(width: float) -> tuple[float, float, float, float]:
        return BLOB[0] - width / 2, BLOB[1] - width * 0.75 / 2, width, width * 0.75

    file = keyframes(tmp_path / "k.json", (0, *rect(begin)), (59 / 25, *rect(end)))
    result = film(tmp_path, file)
    places = follow(result, file, (256, 192))
    np.testing.assert_allclose(places, [[128, 96]] * 60, atol=NEAR)
    sizes = [float((picture.astype(float) > 130).sum()) ** 0.5 for picture in grey(result.path)]
    np.testing.assert_allclose(sizes[-1] / sizes[0], 2, rtol=0.03)
    assert (np.diff(sizes) > -0.3).all()


@pytest.mark.parametrize("interpolation", ["linear", "smooth", "catmull-rom"])
def test_every_interpolation_is_followed(tmp_path: Path, interpolation: str) -> None:
    file = keyframes(
        tmp_path / "k.json",
        (0, 50, 33, 64, 48),
        (0.7, 62.3, 30.1, 64, 48),
        (1.5, 52.7, 36.4, 70, 52.5),
        (2.3, 55.5, 31.2, 60, 45),
        interpolation=interpolation,
    )
    follow(film(tmp_path, file), file, (256, 192))


def test_a_cut_is_a_cut(tmp_path: Path) -> None:
    file = keyframes(
        tmp_path / "k.json", (0, 50, 33, 64, 48), (1.2, 50, 33, 64, 48), (1.2, 60, 36, 64, 48), (2, 60, 36, 64, 48)
    )
    places = follow(film(tmp_path, file), file, (256, 192))
    jumps = np.flatnonzero(np.abs(np.diff(places[:, 0])) > 1)
    assert jumps.tolist() == [29]  # frame 30 stands at 1.2 s


def test_a_repeated_frame_is_an_exact_repeat(tmp_path: Path) -> None:
    """The camera is looked up at the time of the source frame, so at twice the rate every picture stands twice."""
    file = keyframes(tmp_path / "k.json", (0, 50, 33, 64, 48), (1, 60, 33, 64, 48))
    source = write_video(tmp_path / "in.mkv", [spot()] * 20, codec="ffv1", pixel_format="yuv444p")
    encoding = Encoding(codec=Codec.H264, crf=0, preset="ultrafast")  # without loss
    job = small_job(source, tmp_path / "out.mp4", size=(256, 192), keyframes=file, encoding=encoding, rate=Fraction(50))
    found = planes(run(job).path)
    assert len(found) == 40
    assert found[0::2] == found[1::2]
    assert len(set(found)) == 20


@pytest.mark.parametrize("angle", [17.0, -30.0, 90.0, 180.0])
def test_the_free_rotation_is_counter_clockwise(tmp_path: Path, angle: float) -> None:
    """What lies right of the centre is seen above it after a quarter turn; the canvas keeps its size."""
    middle = (SOURCE[0] / 2, SOURCE[1] / 2)
    spots = (100.4, 52.6)
    source = write_video(tmp_path / "in.mkv", [spot(centre=spots)] * 3, codec="ffv1", pixel_format="yuv444p")
    file = keyframes(tmp_path / "k.json", (0, 40, 20, 96, 72), rotation=angle)
    result = run(small_job(source, tmp_path / "out.mp4", size=(256, 192), keyframes=file, encoding=FINE))
    turn = math.radians(angle)
    dx, dy = spots[0] - middle[0], spots[1] - middle[1]
    seen = (
        middle[0] + dx * math.cos(turn) + dy * math.sin(turn),
        middle[1] - dx * math.sin(turn) + dy * math.cos(turn),
    )
    wanted = ((seen[0] - 40) * 256 / 96, (seen[1] - 20) * 192 / 72)
    for picture in grey(result.path):
        np.testing.assert_allclose(centre_of(picture), wanted, atol=0.15)


# The sampler alone


def texture(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(width: int, height: int) -> npt.NDArray[np.uint8]:
    x, y = np.arange(width) / 9, np.arange(height) / 7
    waves = [np.add.outer(np.sin(y + c), np.cos(x * (1 + c / 5))) for c in range(3)]
    return np.asarray(np.rint(127 + 50 * np.stack(waves, axis=-1)), np.uint8)


def sampled(
    picture: Pixels,
    rect: tuple[float, float, float, float],
    target: tuple[int, int],
    *,
    scale: int = 1,
    display: tuple[int, int] | None = None,
    fit: Fit = Fit.STRETCH,
    rotation: float = 0.0,
    window: bool = True,
) -> Pixels:
    """`picture` is the super-resolved lattice; only the window that the geometry asks for is handed over."""
    lattice = (picture.shape[1] // scale, picture.shape[0] // scale)
    geometry = Geometry(display=display or lattice, lattice=lattice, rotation=rotation)
    rects = np.array([rect], dtype=np.float64)
    placements = place(rects, target, fit)
    part = Window(0, 0, *lattice)
    if window:
        part = Window(*(int(v) for v in geometry.windows(rects, placements, scale)[0]))
    cut = picture[part.y0 * scale : part.y1 * scale, part.x0 * scale : part.x1 * scale]
    return sample(cut, part, scale, geometry, rects[0], placements[0], target)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_whole_pixels_are_copied(dtype: Any, scale: int) -> None:
    picture = texture(160, 120).astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    rect = (40 / scale, 20 / scale, 80 / scale, 60 / scale)
    found = sampled(picture, rect, (80, 60), scale=scale)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, picture[20:80, 40:120])
    np.testing.assert_array_equal(sampled(picture, (0, 0, 160 / scale, 120 / scale), (160, 120), scale=scale), picture)


RECTS = [
    (10.3, 7.7, 60.2, 45.1), (0.0, 0.0, 160.0, 120.0), (0.25, 0.5, 30.0, 20.0), (129.9, 99.9, 30.1, 20.1),
    (50.0, 40.0, 1.5, 1.5), (3.0, 5.0, 150.0, 4.0),
]  # fmt: skip


@pytest.mark.parametrize("rect", RECTS)
@pytest.mark.parametrize("target", [(64, 48), (400, 300), (30, 90)])
def test_8_and_16_bit_agree(rect: tuple[float, float, float, float], target: tuple[int, int]) -> None:
    picture = smooth(160, 120)
    shallow = sampled(picture, rect, target)
    deep = sampled(picture.astype(np.uint16) * np.uint16(257), rect, target)
    # Pillow rounds 8-bit pictures between its two passes.
    assert np.abs(deep / 257 - shallow).max() <= 1.5


@pytest.mark.parametrize("rect", RECTS)
@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("rotation", [0.0, 17.0, 90.0])
def test_the_window_holds_all_that_is_read(
    rect: tuple[float, float, float, float], scale: int, rotation: float
) -> None:
    """Handed the window alone, the sampler gives what it gives for the whole picture."""
    picture = texture(160 * scale, 120 * scale)
    part = sampled(picture, rect, (64, 48), scale=scale, rotation=rotation)
    everything = sampled(picture, rect, (64, 48), scale=scale, rotation=rotation, window=False)
    assert np.abs(part.astype(int) - everything).max() <= 1


@pytest.mark.parametrize("rect", RECTS)
def test_sampling_is_lanczos_of_the_float_box(rect: tuple[float, float, float, float]) -> None:
    picture = texture(160, 120)
    x, y, width, height = rect
    wanted = np.asarray(
        Image.fromarray(picture).resize((64, 48), Image.Resampling.LANCZOS, box=(x, y, x + width, y + height))
    )
    assert np.abs(sampled(picture, rect, (64, 48)).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("rect", "target", "box"),
    [
        # x, y, width, height in the target: 2:1 into a square, 1:2 into a square, an odd remainder, the same shape.
        ((0.0, 0.0, 100.0, 50.0), (60, 60), (0, 15, 60, 30)),
        ((0.0, 0.0, 50.0, 100.0), (60, 60), (15, 0, 30, 60)),
        ((10.0, 10.0, 90.0, 60.0), (64, 96), (0, 26, 64, 43)),
        ((10.0, 10.0, 80.0, 60.0), (64, 48), (0, 0, 64, 48)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bars_are_black(
    rect: tuple[float, float, float, float], target: tuple[int, int], box: tuple[int, int, int, int], dtype: Any
) -> None:
    picture = np.full((120, 160, 3), 200, dtype)
    found = sampled(picture, rect, target, fit=Fit.CONTAIN)
    wanted = np.zeros((target[1], target[0], 3), dtype)
    wanted[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 200
    np.testing.assert_array_equal(found, wanted)


def test_bars_are_black_in_the_video(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", [np.full((48, 64, 3), 200, np.uint8)] * 3, codec="ffv1")
    result = run(small_job(source, tmp_path / "out.mp4", size=(96, 192), fit=Fit.CONTAIN, encoding=FINE))
    for picture in grey(result.path):
        assert picture.shape == (192, 96)
        assert picture[:58].max() <= 2
        assert picture[134:].max() <= 2
        assert abs(int(picture[96, 48]) - 200) <= 3


def test_stretch_shows_all_of_the_rectangle(tmp_path: Path) -> None:
    """64x48 to 128x48: the numbers are still there, twice as wide."""
    source = write_video(tmp_path / "in.mkv", [numbered(1234, SMALL)] * 2, codec="ffv1")
    result = run(small_job(source, tmp_path / "out.mp4", size=(128, 48), fit=Fit.STRETCH, encoding=FINE))
    picture = next(grey(result.path))
    narrow = np.asarray(Image.fromarray(picture).resize(SMALL))
    assert np.abs(narrow.astype(int) - numbered(1234, SMALL)[..., 0]).mean() < 6


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("angle", [90.0, 180.0, 270.0, -90.0])
def test_quarter_turns_are_those_of_numpy(angle: float, scale: int) -> None:
    picture = smooth(120 * scale, 120 * scale)
    found = sampled(picture, (20, 30, 64, 48), (64 * scale, 48 * scale), scale=scale, rotation=angle)
    turned = np.rot90(picture, round(angle / 90))
    wanted = turned[30 * scale : 78 * scale, 20 * scale : 84 * scale]
    assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("angle", [17.0, -3.5, 45.0, 133.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_free_rotation_is_that_of_pillow(angle: float, dtype: Any) -> None:
    """Pillow turns counter-clockwise about the centre and keeps the canvas as well."""
    picture = smooth(200, 160)
    turned = np.asarray(Image.fromarray(picture).rotate(angle, Image.Resampling.BICUBIC))
    values = picture if dtype == np.uint8 else picture.astype(np.uint16) * np.uint16(257)
    found = sampled(values, (70, 55, 60, 45), (60, 45), rotation=angle) / (257 if dtype == np.uint16 else 1)
    assert np.abs(found - turned[55:100, 70:130]).max() <= 3


@pytest.mark.parametrize("angle", [0.7, -3.5, 17.0, 45.0, 133.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [1, 2])
def test_free_rotation_keeps_brightness(angle: float, dtype: Any, scale: int) -> None:
    """Values are rounded after the turn: cut off, they would be half a code too dark in the mean."""
    picture = smooth(200 * scale, 160 * scale)
    values = picture if dtype == np.uint8 else picture.astype(np.uint16) * np.uint16(257)
    unit = 257 if dtype == np.uint16 else 1
    found = sampled(values, (70, 55, 60, 45), (60, 45), scale=scale, rotation=angle) / unit
    planes = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
    turned = np.stack([np.asarray(p.rotate(angle, Image.Resampling.BICUBIC)) for p in planes], axis=-1)
    wanted = turned[55 * scale : 100 * scale, 70 * scale : 130 * scale].astype(float)
    difference = found.mean(axis=(0, 1)) - wanted.mean(axis=(0, 1))
    assert np.abs(difference).max() < 0.1, difference


def test_what_a_rotation_leaves_open_is_black() -> None:
    picture = np.full((100, 100, 3), 200, np.uint8)
    found = sampled(picture, (0, 0, 100, 100), (100, 100), rotation=45.0)
    assert found[:10, :10].max() == 0
    assert (found[40:60, 40:60] == 200).all()


def test_pixels_that_are_not_square() -> None:
    """A lattice of 100x120 shown as 200x120: a rectangle of the display is half as wide on the lattice."""
    wide = smooth(200, 120)
    lattice = np.asarray(Image.fromarray(wide).resize((100, 120), Image.Resampling.BOX))
    found = sampled(lattice, (40, 30, 100, 60), (100, 60), display=(200, 120))
    assert np.abs(found.astype(int) - wide[30:90, 40:140]).max() <= 6
    whole = sampled(lattice, (20, 0, 60, 120), (30, 120), display=(200, 120))
    np.testing.assert_array_equal(whole, lattice[:, 10:40])


def test_sample_aspect_is_applied_to_the_result(tmp_path: Path, shared: Path) -> None:
    """720x480 pixels of 32:27: a circle of the test pattern would be an ellipse without."""
    clip = shared / "clips" / "interlaced_480i_bff_sar32-27_testpattern_cut.ts"
    result = run(small_job(clip, tmp_path / "out.mp4", size=(426, 240), encoding=FINE, end=0.2))
    info = result.plan.info
    assert (info.width, info.height, info.lattice) == (853, 480, (720, 480))
    assert [picture.shape for picture in grey(result.path)] == [(240, 426)] * 6


def test_a_picture_as_it_is_comes_out_as_it_is(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(n, SMALL) for n in range(5)], codec="ffv1")
    lossless = Encoding(codec=Codec.H264, crf=0, preset="ultrafast")
    result = run(small_job(source, tmp_path / "out.mp4", encoding=lossless))
    assert shown(result.path) == list(range(5))
    for picture, number in zip(grey(result.path), range(5), strict=True):
        assert np.abs(picture.astype(int) - numbered(number, SMALL)[..., 0]).max() <= 3


ASPECTS: list[tuple[Fit, Callable[[int, int], bool]]] = [
    (Fit.COVER, lambda width, height: abs(width / height - 9 / 16) < 1e-6),
    (Fit.STRETCH, lambda width, height: (width, height) == (64, 48)),
    (Fit.CONTAIN, lambda width, height: (width, height) == (64, 48)),
]


@pytest.mark.parametrize(("fit", "holds"), ASPECTS)
def test_what_the_camera_sees_of_the_rectangle(tmp_path: Path, fit: Fit, holds: Callable[[float, float], bool]) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(0, SMALL)] * 2, codec="ffv1")
    result = run(small_job(source, tmp_path / "out.mp4", size=(54, 96), fit=fit))
    x, y, width, height = result.plan.rects[0].tolist()
    assert holds(width, height)
    # Cut about its centre.
    assert (x + width / 2, y + height / 2) == pytest.approx((32, 24))
