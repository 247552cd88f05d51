"""The measures of `bench.quality` on cases whose answers are known, and its table with stand-ins for networks."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from rich.console import Console

from bench import crops, flicker, judging, metrics, quality, sets, tables
from bench.candidates import Candidate, halved
from bench.metrics import Pixels, Plane

ndimage = pytest.importorskip("scipy.ndimage")


def photo(height: int, width: int, seed: int = 1) -> Pixels:
    """Smooth colours with some texture."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (height, width, 3)), (3, 3, 0))
    fine = ndimage.gaussian_filter(rng.normal(0, 1, (height, width, 3)), (0.7, 0.7, 0))
    return np.asarray(np.clip(128 + 400 * smooth + 15 * fine, 0, 255), dtype=np.uint8)


def repeated(pixels: Pixels, scale: int = 4) -> Pixels:
    return np.repeat(np.repeat(pixels, scale, 0), scale, 1)


def smooth(pixels: Pixels, scale: int = 4) -> Pixels:
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def plane(values: npt.NDArray[np.float64]) -> Plane:
    return values.astype(np.float32)


@pytest.mark.parametrize("offset", [1, 5, 20])
def test_psnr_of_a_constant_offset(offset: int) -> None:
    picture = np.full((20, 30, 3), 100, dtype=np.uint8)
    assert metrics.psnr(picture, picture + np.uint8(offset)) == pytest.approx(20 * math.log10(255 / offset))
    assert metrics.psnr(picture, picture) == metrics.PSNR_CAP


def test_luma_runs_from_16_to_235() -> None:
    ends = metrics.luma(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8))
    assert ends.tolist() == [[16, pytest.approx(235, abs=1e-3)]]


def test_ssim_against_an_independent_formulation() -> None:
    a = metrics.luma(photo(60, 80))
    b = metrics.luma(photo(60, 80)[:, ::-1]) * np.float32(0.3) + a * np.float32(0.7)
    assert metrics.ssim(a, a) == pytest.approx(1, abs=1e-6)

    def mean(of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(of, 1.5, radius=5)[5:-5, 5:-5])

    x, y = a.astype(float), b.astype(float)
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    expected = ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=1e-5)
    assert expected < 0.95


def test_gradient_energy_of_a_ramp() -> None:
    ramp = plane(np.tile(3.0 * np.arange(40), (20, 1)))
    assert metrics.gradient_energy(ramp) == pytest.approx((3.0**2 + 0) / 2)


def test_grid_ratio_tells_blocks_from_even_gradients() -> None:
    low = photo(40, 50)
    blocks = metrics.phase_energies(metrics.luma(repeated(low)), 4)
    assert metrics.grid_ratio(blocks) == pytest.approx(4)
    assert blocks[:, :3].max() == 0
    ramp = plane(np.add.outer(2.0 * np.arange(80), 3.0 * np.arange(80)))
    assert metrics.grid_ratio(metrics.phase_energies(ramp, 4)) == pytest.approx(1)
    assert metrics.grid_ratio(metrics.phase_energies(np.zeros((16, 16), dtype=np.float32), 4)) == 1


def test_phase_means_see_a_checkerboard() -> None:
    checks = plane(2.0 * (-1.0) ** np.add.outer(np.arange(43), np.arange(42)))
    assert metrics.phase_means(checks, 2).tolist() == [[2, -2], [-2, 2]]
    assert metrics.phase_means(checks, 4).std() == pytest.approx(2)
    assert metrics.phase_means(np.full((16, 16), 7, dtype=np.float32), 4).std() == 0


def test_overshoot_is_what_leaves_the_neighbourhood() -> None:
    low = metrics.luma(photo(30, 30))
    wide = np.repeat(np.repeat(low, 4, 0), 4, 1)
    assert metrics.overshoot(wide, low, 4) == 0
    flat = np.full((10, 10), 100, dtype=np.float32)
    halo = np.full((40, 40), 100, dtype=np.float32)
    halo[:20], halo[20:22] = 103, 98
    assert metrics.overshoot(halo, flat, 4) == pytest.approx((20 * 3 + 2 * 2) / 40)


def test_ssimulacra2_against_the_reference_implementation() -> None:
    pytest.importorskip("ssimulacra2")
    grey = np.full((256, 256, 3), 128, dtype=np.uint8)
    assert metrics.ssimulacra2(grey, grey) == pytest.approx(100)
    # libjxl's own tool gives 89.732 and 59.779; a flat picture shows most of how borders are treated.
    assert metrics.ssimulacra2(grey, grey + np.uint8(5)) == pytest.approx(89.732, abs=4)
    assert metrics.ssimulacra2(grey, grey + np.uint8(20)) == pytest.approx(59.779, abs=4)
    assert metrics.ssimulacra2(grey[:200], grey[:200]) is None


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("cut", [flicker.pan_windows, flicker.slide_windows])
@pytest.mark.parametrize("way", [(1, 1), (0, 1), (1, 0)])
def test_a_pan_by_whole_pixels_leaves_nothing_of_repetition(
    scale: int, cut: Callable[[Pixels, tuple[int, int]], list[Pixels]], way: tuple[int, int]
) -> None:
    enlarge = partial(repeated, scale=scale)
    for step in (4, 2):
        motion = (step * way[0], step * way[1])
        pans = [cut(photo(412, 420), motion)]
        assert all(window.shape == (96, 96, 3) for window in pans[0])
        left = flicker.pan_energy(enlarge, pans, motion)
        if step == 4:
            # Rounded again, as their bytes are.
            assert left == pytest.approx(0, abs=0 if cut is flicker.pan_windows else 0.01)
        else:
            assert left > flicker.pan_energy(partial(smooth, scale=scale), pans, motion) > 0


def test_a_pattern_that_does_not_move_shows_in_a_pan() -> None:
    pattern = np.arange(96 * 4) % 5

    def enlarge(pixels: Pixels) -> Pixels:
        return np.asarray(np.clip(repeated(pixels) + pattern[:, None], 0, 255), dtype=np.uint8)

    assert flicker.pan_energy(enlarge, [flicker.pan_windows(photo(412, 412), (4, 4))], (4, 4)) > 1


def test_noise_flickers_and_a_static_input_does_not() -> None:
    still = [np.full((40, 50, 3), 120, dtype=np.uint8)]
    assert flicker.noise_energy(repeated, still, 0) == 0
    # The difference of two frames has twice the variance; rounding adds 1/12 to each.
    weights = float(np.square(np.array([65.481, 128.553, 24.966]) / 255).sum())
    assert flicker.noise_energy(repeated, still, 5) == pytest.approx(2 * (25 + 1 / 12) * weights, rel=0.05)
    assert flicker.noise_energy(repeated, still, 5) == flicker.noise_energy(repeated, still, 5)
    # What is equal in all channels does not average out in luma.
    whole = 2 * (25 + 1 / 12) * (219 / 255) ** 2
    assert flicker.noise_energy(repeated, still, 5, grey=True) == pytest.approx(whole, rel=0.1)


def test_noise_at_full_size_is_tried_in_the_middle() -> None:
    scene = photo(400, 501)
    assert np.array_equal(flicker.centre(scene), scene[120:280, 170:330])
    assert flicker.centre(photo(90, 400)).shape == (90, 160, 3)


def test_coding_keeps_odd_sizes_and_repeats() -> None:
    picture = photo(61, 83)
    coded = sets.encoded([picture, picture], 12)
    assert coded.shape == picture.shape
    assert np.array_equal(coded, sets.encoded([picture, picture], 12))
    assert metrics.psnr(picture, sets.encoded([picture], 40)) < metrics.psnr(picture, coded)


def test_halved_keeps_a_ramp_where_it_is() -> None:
    ramp = np.repeat(np.tile(np.arange(64, dtype=np.uint8), (8, 1))[..., None], 3, axis=2)
    assert np.abs(halved(ramp)[2, 4:-4, 0].astype(float) - (2 * np.arange(4, 28) + 0.5)).max() <= 0.5


def test_nothing_that_is_trained_on_is_judged_on() -> None:
    trained = pytest.importorskip("tools.distill.data")
    assert not set(trained.PHOTOS) & set(sets.STILLS.values())
    assert not set(trained.CLIPS) & {clip.file for clip in sets.FOOTAGE}


def test_stills_are_read_in_pairs_and_as_colour(tmp_path: Path) -> None:
    for number in range(4):
        original = Image.fromarray(photo(41, 48, number)).convert("L" if number == 2 else "RGB")
        original.save(tmp_path / f"img_{number}_HR.png")
        original.resize((12, 10)).save(tmp_path / f"img_{number}_LR.png")
    one = sets.PictureSet("pairs", partial(sets._stills, tmp_path))
    samples = list(one.load(None))
    assert [sample.name for sample in samples] == [f"img_{number}_HR" for number in range(4)]
    assert {sample.low.shape for sample in samples} == {(10, 12, 3)}
    assert {sample.truth.shape for sample in samples if sample.truth is not None} == {(40, 48, 3)}
    assert [sample.name for sample in one.load(2)] == ["img_0_HR", "img_2_HR"]
    coded = list(sets._coded_stills(one, 1))
    assert coded[0].low.shape == (10, 12, 3)


def stand_ins() -> list[Candidate]:
    def teach(pixels: Pixels) -> Pixels:
        return np.clip(smooth(pixels).astype(int) * 1.1 - 10, 0, 255).astype(np.uint8)

    return [
        Candidate("Blocks", 4, repeated),
        Candidate("Student fp32", 4, smooth, 12_345),
        Candidate(
            "Student int8",
            4,
            lambda pixels: np.minimum(smooth(pixels), 254) + np.uint8(1),
            12_345,
            unquantised="Student fp32",
        ),
        Candidate("Teacher", 4, teach, 67_890, is_teacher=True),
        Candidate("Half", 2, partial(smooth, scale=2), 2_000),
        Candidate("Teacher, halved", 2, lambda pixels: halved(teach(pixels)), 67_890, is_teacher=True),
    ]


@pytest.mark.slow
def test_the_table_has_a_row_for_each_candidate_and_set() -> None:
    originals = [photo(412, 420, seed) for seed in (1, 2)]
    samples = [sets.Sample(str(i), sets.reduced(of), of[:412, :420]) for i, of in enumerate(originals)]
    both = [
        sets.PictureSet("with originals", lambda limit: iter(samples[:limit])),
        sets.PictureSet("without", lambda limit: iter([sets.Sample("a", samples[0].low)][:limit])),
    ]
    options, _ = quality.parse(["--rounds", "1", "--threads", "1", "--limit", "2"])
    rows, seconds = quality.measure(stand_ins(), both, samples[:1], samples[1:], options, lambda _: None)
    names = [candidate.name for candidate in stand_ins()]
    assert [row.set_name for row in rows] == [name for name in (judging.ALL, *(s.name for s in both)) for _ in names]
    assert [row.candidate for row in rows] == 3 * names
    assert len(seconds) == len(names)

    first = {row.candidate: row.values for row in rows[: len(names)]}
    assert first["Teacher"]["sharpness"] == first["Teacher"]["grid"] == first["Teacher"]["noise_2"] == 1
    assert first["Teacher"].get("teacher_psnr") is None
    assert first["Blocks"]["pan_1"] == 0
    assert (first["Blocks"]["grid"] or 0) > (first["Student fp32"]["grid"] or 0)
    # One code off everywhere: 20 log10 255 dB.
    assert first["Student int8"]["own_psnr"] == pytest.approx(48.13, abs=0.02)
    assert "own_psnr" not in first["Student fp32"]
    # The stand-in for a teacher adds contrast.
    assert (first["Student fp32"]["sharpness"] or 0) == pytest.approx(1 / 1.1**2, rel=0.05)
    apart = {row.candidate: row.values for row in rows[-len(names) :]}
    assert "truth_psnr" not in apart["Half"]
    assert "teacher_psnr" in apart["Half"]

    console = Console(width=quality.WIDTH, file=io.StringIO(), record=True)
    console.print(tables.terminal(rows))
    printed = console.export_text()
    written = tables.markdown(rows, "Some machine.")
    for name in names:
        assert printed.count(f"│ {name} ") == 3
        assert written.count(f"| {name} |") == 3
    for column in tables.COLUMNS:
        if column.title != "SSIMU2" or metrics.ssimulacra2_is_there():
            assert column.title in printed
    assert json.loads(json.dumps([asdict(row) for row in rows]))[0]["candidate"] == "Blocks"


def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "bind", lambda _: None)
    assert quality.main(["--quick", "--shared", str(tmp_path)]) == 2
    assert "CID22_val" in capsys.readouterr().err


def test_details_side_by_side(tmp_path: Path) -> None:
    low = photo(120, 160)
    scene = crops.Scene("a", "a.mp4", 0, 1, (10, 20, 60, 50), "Somebody, CC0.")
    shown = crops.panels(low, scene, [Candidate("Blocks", 4, repeated), Candidate("Smooth", 4, smooth)])
    assert [image.size for _, image in shown] == 3 * [(200, 120)]
    assert np.array_equal(np.asarray(shown[0][1]), np.asarray(shown[1][1]))
    path = tmp_path / "a.png"
    picture = crops.compose(shown, scene.credit)
    assert crops.save(picture, path) == path.stat().st_size
    with Image.open(path) as image:
        assert image.width == 2 * crops.MARGIN + crops.GAP + 400
