"""`steady`: noise averaged away over neighbouring frames, and nothing else of the picture changed.

Sources are lossless, so that what is read is what was drawn plus the noise that was added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from support.numbered import planes, run, small_job, write_video

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DecodeError, UsageError
from keyscale.engine.job import Calm, Encoding, Job
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.probe import VideoInfo, probe
from keyscale.engine.source.reader import Lost, read_frames
from keyscale.engine.source.steady import READ_AROUND, Moment, Steady, steadied

Codes = npt.NDArray[np.float64]

WIDTH, HEIGHT = 112, 64
DOWN, ACROSS = np.mgrid[:HEIGHT, :WIDTH].astype(float)
SCENE = 110 + 50 * np.sin(ACROSS / 7) * np.cos(DOWN / 9) + 30 * ((ACROSS // 16 + DOWN // 16) % 2)
OTHER = 200 - SCENE / 2
"""Another scene of like brightness."""
LOSSLESS = {"qp": "0", "preset": "ultrafast", "g": "12"}


def noisy(luma: Sequence[Codes], sigma: float, seed: int = 0) -> list[Codes]:
    chance = np.random.default_rng(seed)
    return [each + chance.normal(0, sigma, each.shape) for each in luma]


def frame_of(luma: Codes, number: int, pixel_format: str = "yuv420p") -> av.VideoFrame:
    """A picture of these 8-bit codes of luma, without colour."""
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], pixel_format)
    bits = frame.format.components[0].bits
    dtype = np.uint8 if bits == 8 else np.uint16
    for index, plane in enumerate(frame.planes):
        codes = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        codes[:] = 1 << bits - 1
        if index == 0:
            codes[:, : plane.width] = np.clip(np.rint(luma * 2 ** (bits - 8)), 0, 2**bits - 1)
    frame.pts = number
    return frame


def luma_of(frame: av.VideoFrame) -> Codes:
    """In codes of 8 bits."""
    bits = frame.format.components[0].bits
    plane = frame.planes[0]
    codes: npt.NDArray[Any] = np.frombuffer(memoryview(plane), np.uint8 if bits == 8 else np.uint16)
    codes = codes.reshape(plane.height, -1)
    return np.asarray(codes[:, : plane.width] * 2.0 ** (8 - bits))


def calmed(luma: Sequence[Codes], strength: float | None = 1.0, pixel_format: str = "yuv420p") -> list[Codes]:
    """What `steadied` makes of a film."""
    whole = Steady(strength, lambda _: Window(0, 0, WIDTH, HEIGHT), (WIDTH, HEIGHT))
    film = [Moment(n, n, frame_of(each, n, pixel_format)) for n, each in enumerate(luma)]
    found = [each.picture for each in steadied(film, range(len(film)), whole, lambda: False)]
    return [luma_of(picture) for picture in found if picture is not None]


def written(luma: Sequence[Codes], pixel_format: str = "yuv420p") -> list[Codes]:
    return [luma_of(frame_of(each, 0, pixel_format)) for each in luma]


def change(film: Sequence[Codes]) -> float:
    """Root mean square change from frame to frame, but at the ends, where there are fewer neighbours."""
    return float(np.mean([np.mean((a - b) ** 2) for a, b in pairwise(film[4:-4])]) ** 0.5)


def smooth(picture: Codes) -> Codes:
    """Means over 5 by 5: what an eye sees beneath noise."""
    return np.asarray(np.lib.stride_tricks.sliding_window_view(picture, (5, 5)).mean(axis=(2, 3)))


# Still content. A mean of seven leaves a seventh of the change (0.143) and 8.5 dB; rounding to codes adds to it.


@pytest.mark.parametrize("strength", [None, 1.0], ids=["auto", "1"])
@pytest.mark.parametrize(("sigma", "most", "gain"), [(2, 0.24, 7.3), (5, 0.19, 7.8), (8, 0.18, 7.8)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "yuv422p10le", "yuv444p12le", "gray"])
def test_still_noise_is_averaged_away(
    sigma: float, most: float, gain: float, strength: float | None, pixel_format: str
) -> None:
    film = noisy([SCENE] * 16, sigma)
    after, before = calmed(film, strength, pixel_format), written(film, pixel_format)
    assert change(after) <= most * change(before)
    errors = [float(np.mean((each[8] - SCENE) ** 2)) for each in (before, after)]
    assert 10 * np.log10(errors[0] / errors[1]) >= gain


def test_where_white_cuts_noise_off_the_rest_is_averaged_all_the_same() -> None:
    scene = SCENE.copy()
    scene[:, :60] = 255
    film = noisy([scene] * 16, 5)
    grey = np.s_[:, 64:]
    after, before = ([each[grey] for each in codes] for codes in (calmed(film), written(film)))
    assert change(after) <= 0.2 * change(before)


def test_half_the_strength_leaves_half_the_noise() -> None:
    film = noisy([SCENE] * 16, 5)
    half, none = (change(calmed(film, strength)) for strength in (0.5, 0.0))
    assert none == change(written(film))
    # A frame weighs 1/2 + 1/14 and each neighbour 1/14: of two frames in a row the square root of 1/4 + 1/196 is left.
    assert half / none == pytest.approx(0.505, abs=0.03)


def test_clean_pictures_are_not_touched() -> None:
    moving = [np.roll(SCENE, 3 * n, 1) for n in range(10)]
    for film in ([SCENE] * 8, moving, [SCENE + n for n in range(8)]):
        assert np.array_equal(calmed(film), written(film))


# What moves or changes. Means over many draws of the noise show what was mixed in.


def averaged(clean: Sequence[Codes], sigma: float, number: int, draws: int = 20) -> Codes:
    """The mean result of one frame, less the clean one."""
    film = [calmed(noisy(clean, sigma, seed))[number] for seed in range(draws)]
    return np.asarray(np.mean(film, axis=0) - written(clean)[number])


@pytest.mark.parametrize("sigma", [2, 5])
@pytest.mark.parametrize("speed", [1, 3, 8])
def test_a_bright_thing_that_moves_leaves_no_ghost(sigma: float, speed: int) -> None:
    clean = []
    for n in range(8):
        picture = SCENE.copy()
        picture[20:50, 10 + speed * n : 40 + speed * n] = 235
        clean.append(picture)
    assert np.abs(smooth(averaged(clean, sigma, 4))).max() <= 2


@pytest.mark.parametrize("sigma", [2, 5])
def test_nothing_is_counted_across_a_cut(sigma: float) -> None:
    film = noisy([SCENE] * 5 + [OTHER] * 5, sigma)
    alone = calmed(film[:5]) + calmed(film[5:])
    assert all(np.array_equal(a, b) for a, b in zip(calmed(film), alone, strict=True))


def test_a_flash_stays_as_it_is_and_spreads_to_no_other_frame() -> None:
    clean = [SCENE] * 4 + [SCENE + 60] + [SCENE] * 5
    film = noisy(clean, 3)
    found = calmed(film)
    assert np.array_equal(found[4], written(film)[4])
    assert all(abs(each.mean() - SCENE.mean()) < 0.1 for n, each in enumerate(found) if n != 4)


@pytest.mark.parametrize("pace", [1.0, 4.0, -2.0])
def test_fades_keep_their_pace(pace: float) -> None:
    clean = [SCENE + pace * n for n in range(12)]
    film = noisy(clean, 3)
    for before, after in zip(written(film), calmed(film), strict=True):
        assert abs(after.mean() - before.mean()) < 0.02
        assert np.abs(smooth(after - before)).max() < 5  # noise alone


def test_a_lamp_that_flickers_keeps_flickering() -> None:
    film = noisy([SCENE + 3 * (n % 2) for n in range(12)], 2)
    for before, after in zip(written(film), calmed(film), strict=True):
        assert abs(after.mean() - before.mean()) < 0.02


def pan(speed: float) -> list[Codes]:
    """A camera that moves evenly, `speed` pixels a frame."""
    places = np.arange(WIDTH)
    return [np.array([np.interp(places + speed * n, places, row, period=WIDTH) for row in SCENE]) for n in range(14)]


@pytest.mark.parametrize("speed", [2.0, 0.4])
def test_a_pan_is_left_alone(speed: float) -> None:
    film = noisy(pan(speed), 1)
    for before, after in zip(written(film), calmed(film), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("speed", [0.1, 0.3])
@pytest.mark.parametrize("sigma", [3, 5])
def test_where_noise_hides_that_the_camera_moves_pictures_come_nearer_to_the_clean_ones(
    speed: float, sigma: float
) -> None:
    clean = pan(speed)
    film = noisy(clean, sigma)

    def off(pictures: Sequence[Codes]) -> float:
        return float(np.mean([(smooth(a) - smooth(b)) ** 2 for a, b in zip(pictures, clean, strict=True)]) ** 0.5)

    assert off(calmed(film)) < off(written(film))


# Repeats.


@pytest.mark.parametrize("times", [2, 3])
def test_repeats_stay_repeats_and_count_once(times: int) -> None:
    film = noisy([SCENE] * 9, 4)
    repeated = [each for each in film for _ in range(times)]
    once = calmed(film)
    assert all(np.array_equal(each, once[n // times]) for n, each in enumerate(calmed(repeated)))


def test_a_still_picture_is_left_alone_however_long_it_stands() -> None:
    film = noisy([SCENE] * 4, 4) + noisy([SCENE], 4, 9) * 60 + noisy([SCENE] * 4, 4, 2)
    found, before = calmed(film), written(film)
    assert all(np.array_equal(a, b) for a, b in zip(found[4:64], before[4:64], strict=True))
    assert not np.array_equal(found[3], before[3])
    assert not np.array_equal(found[64], before[64])


# Whichever frames are asked for.


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    """A lossless film with noise, repeats, a cut, a flash, a fade and a still picture."""
    path = tmp_path_factory.mktemp("steady") / "film.mkv"
    luma = noisy([SCENE] * 14, 4)
    luma[5:5] = [luma[4]] * 2
    luma += noisy([OTHER] * 12, 2, 1) + noisy([OTHER + 40], 2, 2) + noisy([OTHER] * 6, 3, 3)
    luma += [luma[-1]] * 7 + noisy([SCENE - n for n in range(8)], 4, 4) + noisy([SCENE] * 10, 4, 5)
    write_video(path, (frame_of(each, n) for n, each in enumerate(luma)), rate=25, options=LOSSLESS)
    return probe(path)


def read(info: VideoInfo, wanted: Sequence[int], part: Window | None = None) -> dict[int, npt.NDArray[Any]]:
    """RGB of these frames by number."""
    window = part or Window(0, 0, *info.lattice)
    steady = Steady(1.0, lambda _: window, info.decoded_size)
    found = read_frames(
        info, info.pts[list(wanted)].tolist(), deep=False, keep_going=False, should_stop=lambda: False, steady=steady
    )
    pictures = [frame.pixels for frame in found if not isinstance(frame, Lost)]
    return dict(zip(wanted, pictures, strict=True))


def test_a_frame_is_the_same_whichever_others_are_asked_for(film: VideoInfo) -> None:
    count = len(film.pts)
    whole = read(film, range(count))
    parts = [range(n, min(n + 11, count)) for n in range(0, count, 11)]
    for wanted in [*parts, range(0, count, 2), (3, 30, 31, 55)]:
        for number, picture in read(film, wanted).items():
            assert np.array_equal(picture, whole[number]), number


def test_a_window_holds_what_the_whole_picture_has_there(film: VideoInfo) -> None:
    part = Window(35, 21, 90, 56)
    wanted = range(20)
    whole = read(film, wanted)
    for number, picture in read(film, wanted, part).items():
        region = np.s_[part.y0 : part.y1, part.x0 : part.x1]
        assert np.array_equal(picture[region], whole[number][region])


def test_a_job_is_the_same_in_chunks_of_any_length(film: VideoInfo, tmp_path: Path) -> None:
    def made(chunk_seconds: float) -> list[bytes]:
        job = small_job(
            Path(film.path),
            tmp_path / f"{chunk_seconds}.mp4",
            size=(WIDTH, HEIGHT),
            rate=Fraction(40),
            calm=Calm(steady=1.0),
            chunk_seconds=chunk_seconds,
            encoding=Encoding(crf=0, preset="ultrafast"),
        )
        return planes(run(job).path)

    assert made(0.7) == made(100)


def torn(film: VideoInfo, path: Path, numbers: slice) -> Path:
    """The film with the pictures of some packets overwritten."""
    content = bytearray(Path(film.path).read_bytes())
    with av.open(film.path) as container:
        places = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size][numbers]
    for place, size in places:
        content[place + 40 : place + size - 40] = bytes(size - 80)
    path.write_bytes(content)
    return path


def test_neighbours_that_cannot_be_decoded_are_done_without(film: VideoInfo, tmp_path: Path) -> None:
    """Frames that nobody shows may be damaged; the same film, its first keyframe's pictures torn."""
    info = probe(torn(film, tmp_path / "broken.mkv", slice(8, 11)), tolerate_damage=True)
    wanted = range(12, 20)
    steady = Steady(1.0, lambda _: Window(0, 0, *info.lattice), info.decoded_size)
    pts = info.pts[list(wanted)].tolist()
    found = read_frames(info, pts, deep=False, keep_going=False, should_stop=lambda: False, steady=steady)
    assert [frame.pts for frame in found if not isinstance(frame, Lost)] == pts


def test_damage_that_spreads_is_an_error_as_without(film: VideoInfo, tmp_path: Path) -> None:
    """Every other frame is shown; one between them, from which others are predicted, is torn."""
    broken = torn(film, tmp_path / "broken.mkv", slice(15, 16))
    info = probe(broken, tolerate_damage=True)
    shown = info.pts[12:20:2].tolist()
    steady = Steady(1.0, lambda _: Window(0, 0, *info.lattice), info.decoded_size)
    for way in (None, steady):
        with pytest.raises(DecodeError):
            list(read_frames(info, shown, deep=False, keep_going=False, should_stop=lambda: False, steady=way))


# What is planned and said.


def job_of(info: VideoInfo, folder: Path, **more: Any) -> Job:
    return small_job(Path(info.path), folder / "out.mp4", size=(WIDTH, HEIGHT), **more)


def test_the_plan_names_it_and_the_key_depends_on_it(film: VideoInfo, tmp_path: Path) -> None:
    from keyscale.engine.plan.describe import plan_to_json, summarise
    from keyscale.engine.workspace.fingerprint import pixels_of

    plans = [prepare_plan(job_of(film, tmp_path, calm=Calm(steady=s))) for s in (0.0, None, 0.5)]
    assert [dict(summarise(plan)).get("Steady", "").partition(",")[0] for plan in plans] == [
        "",
        "as much as there is noise",
        "strength 0.5",
    ]
    assert ['"steady":0.0' in plan_to_json(plans[0]), '"steady":"auto"' in plan_to_json(plans[1])] == [True, True]
    assert len({pixels_of(plan) for plan in plans}) == 3


def test_a_source_of_rgb_is_refused_or_told(tmp_path: Path, picture_of: Callable[[], npt.NDArray[np.uint8]]) -> None:
    path = tmp_path / "rgb.mkv"
    write_video(path, [picture_of()] * 3, codec="ffv1", pixel_format="bgr0", tags=(2, 0, 2, 2))
    with pytest.raises(UsageError, match="bgr0") as caught:
        prepare_plan(small_job(path, tmp_path / "out.mp4", calm=Calm(steady=1.0)))
    assert "--steady" in str(caught.value)
    plan = prepare_plan(small_job(path, tmp_path / "out.mp4", calm=Calm(steady=None)))
    assert any("bgr0" in str(warning) for warning in plan.warnings)


@pytest.fixture
def picture_of() -> Callable[[], npt.NDArray[np.uint8]]:
    return lambda: np.full((48, 64, 3), 90, np.uint8)


def test_it_reads_as_far_around_as_it_says() -> None:
    """Two equal frames, two neighbours shown three times each, and a third one: nothing farther away matters."""
    film = noisy([SCENE] * 30, 4)
    film = [each for each in film for _ in range(3)]
    changed = list(film)
    changed[40 - READ_AROUND - 1], changed[40 + READ_AROUND + 1] = OTHER, OTHER
    assert np.array_equal(calmed(film)[40], calmed(changed)[40])
