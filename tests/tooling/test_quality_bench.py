"""The measures of `bench.quality` on cases with known answers, its rows and tables, and what is drawn beside it."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import blind, candidates, crops, footage, metrics, quality, tables
from bench.machine import machine
from bench.metrics import Motion, Pixels, grey
from keyscale.engine.review.measures import busiest
from tools.training import material

ndimage = pytest.importorskip("scipy.ndimage")

SHARED = quality.shared_folder(None)
needs_vmaf = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed (the extra `bench`)"
)
needs_clips = pytest.mark.skipif(not (SHARED / "clips").is_dir(), reason="../shared is not there")


def photo(height: int, width: int, seed: int = 1) -> Pixels:
    """Smooth colours with some texture."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (height, width, 3)), (3, 3, 0))
    fine = ndimage.gaussian_filter(rng.normal(0, 1, (height, width, 3)), (0.7, 0.7, 0))
    return np.asarray(np.clip(128 + 400 * smooth + 15 * fine, 0, 255), dtype=np.uint8)


def pan(frames: int = 3, step: int = 1) -> list[Pixels]:
    """A camera that moves down and right over a photograph."""
    picture = photo(160 + frames * step, 192 + frames * step)
    return [picture[n * step : n * step + 160, n * step : n * step + 192] for n in range(frames)]


def still(frames: int = 3) -> list[Pixels]:
    return [photo(160, 192)] * frames


def planes(clip: list[Pixels]) -> list[metrics.Plane]:
    return [grey(frame) for frame in clip]


def blurred(clip: list[Pixels], sigma: float = 1.5) -> list[Pixels]:
    return [np.asarray(ndimage.gaussian_filter(frame, (sigma, sigma, 0)), dtype=np.uint8) for frame in clip]


@pytest.mark.parametrize("offset", [1, 5, 20])
def test_psnr_and_shift_of_a_constant_offset(offset: int) -> None:
    clip = [np.full((20, 30, 3), 100, dtype=np.uint8)] * 2
    other = [frame + np.array([0, offset, 0], dtype=np.uint8) for frame in clip]
    assert metrics.psnr(clip, other) == pytest.approx(20 * math.log10(255 / offset) + 10 * math.log10(3))
    assert metrics.psnr(clip, clip) == metrics.PSNR_CAP
    assert metrics.colour_shift(other, clip) == pytest.approx(offset)
    assert metrics.colour_shift(clip, clip) == 0


def test_sharpness_of_a_clip_of_half_the_contrast_is_a_half() -> None:
    clip = planes(still())
    assert metrics.sharpness([plane * np.float32(0.5) for plane in clip], clip) == pytest.approx(0.5)
    assert metrics.sharpness(planes(blurred(still())), clip) < 0.75


@pytest.mark.parametrize("ratio", [2.0, 16 / 9, 8 / 3, 4.0])
@pytest.mark.parametrize("cells", [1, 2, 8])
def test_a_grid_at_the_cells_of_the_network_or_the_codec_shows(ratio: float, cells: int) -> None:
    clip = [np.random.default_rng(1).normal(128, 10, (160, 192)).astype(np.float32)]
    across = np.arange(192)
    grid = (4 * np.cos(2 * np.pi * across / (ratio * cells) + 0.3)).astype(np.float32)
    assert metrics.grid_energy(clip, clip, ratio) == pytest.approx(1)
    assert metrics.grid_energy([plane + grid for plane in clip], clip, ratio) > 2
    elsewhere = (4 * np.cos(2 * np.pi * across / 5.1)).astype(np.float32)
    assert metrics.grid_energy([plane + elsewhere for plane in clip], clip, ratio) < 1.5


@pytest.mark.parametrize("ratio", [2, 4])
def test_steps_of_repeated_pixels_are_told_in_colours(ratio: int) -> None:
    across = np.arange(192)
    smooth = np.empty((96, 192, 3), np.uint8)
    smooth[..., 0] = 128 + 60 * np.sin(across / 30)
    smooth[..., 1] = 128
    smooth[..., 2] = (128 + 60 * np.cos(np.arange(96) / 20))[:, None]
    rough = smooth[::ratio, ::ratio].repeat(ratio, 0).repeat(ratio, 1)
    assert metrics.colour_steps([smooth], [smooth], ratio) == 1
    found = metrics.colour_steps([rough], [smooth], ratio)
    assert found is not None
    assert found > 100
    assert metrics.colour_steps([rough], [smooth], 16 / 9) is None


def test_ringing_is_what_leaves_the_original_near_strong_edges() -> None:
    step = np.full((64, 64), 50, dtype=np.float32)
    step[:, 32:] = 200
    halo = step.copy()
    halo[:, 28:30] -= 10
    # Columns 23 to 39 lie within eight pixels of the edge at 31; two of them are ten codes too dark.
    assert metrics.ringing([halo], [step]) == pytest.approx(2 * 10 / 17)
    assert metrics.ringing([step], [step]) == 0
    assert metrics.ringing([np.asarray(ndimage.gaussian_filter(step, 2))], [step]) == pytest.approx(0, abs=1e-3)
    flat = np.full((64, 64), 50, dtype=np.float32)
    assert metrics.ringing([halo], [flat]) is None


def test_a_still_original_tells_flicker() -> None:
    motion = Motion(planes(still()))
    assert metrics.restlessness(planes(still()), motion)[0] == 0
    flickering = [plane + np.float32(3 * (n % 2)) for n, plane in enumerate(planes(still()))]
    change, elsewhere = metrics.restlessness(flickering, motion)
    assert change == pytest.approx(3)
    assert elsewhere is None


def test_a_pan_is_followed() -> None:
    motion = Motion(planes(pan()))
    change, left = metrics.restlessness(planes(pan()), motion)
    assert change is None
    assert left is not None
    # The motion looks beyond the border at one row and column of blocks alone.
    assert left < 4
    stuck = [plane + np.float32(20) * (np.arange(192) % 3 == 0) for plane in planes(pan())]
    assert (metrics.restlessness(stuck, motion)[1] or 0) > 10


def test_ssimulacra2_against_the_reference_implementation() -> None:
    pytest.importorskip("ssimulacra2")
    clip = [np.full((256, 256, 3), 128, dtype=np.uint8)] * 2
    assert metrics.ssimulacra2(clip, clip) == pytest.approx(100)
    # libjxl's own tool gives 89.732 and 59.779; a flat picture shows most of how borders are treated.
    for offset, expected in ((5, 89.732), (20, 59.779)):
        score = metrics.ssimulacra2([frame + np.uint8(offset) for frame in clip], clip)
        assert score == pytest.approx(expected, abs=4)
    assert metrics.ssimulacra2([frame[:200] for frame in clip], [frame[:200] for frame in clip]) is None


@pytest.mark.parametrize("factor", [2, 4])
def test_a_reduction_is_the_mean_of_areas(factor: int) -> None:
    picture = photo(32, 64)
    cells = picture.reshape(32 // factor, factor, 64 // factor, factor, 3).astype(np.float64).mean(axis=(1, 3))
    small = footage.reduced(picture, (64 // factor, 32 // factor))
    assert np.abs(small - cells).max() <= 0.51


def test_a_reduction_by_a_fraction_keeps_a_ramp_where_it_is() -> None:
    ramp = np.repeat(np.tile(np.arange(64, dtype=np.uint8), (64, 1))[..., None], 3, axis=2)
    size = footage.small_size(ramp, 16 / 9)
    assert size == (36, 36)
    middles = (np.arange(36) + 0.5) * 16 / 9 - 0.5
    assert np.abs(footage.reduced(ramp, size)[0, :, 0] - middles).max() <= 0.6


def test_sources_are_named() -> None:
    assert footage.find_source("crf20").options["crf"] == "20"
    assert footage.find_source("hevc28").codec == "libx265"
    for name in ("crf", "crf99", "vp9", "crf-1"):
        with pytest.raises(ValueError, match="is no source"):
            footage.find_source(name)


def test_encoding_keeps_frames_and_colours(tmp_path: Path) -> None:
    clip = [np.full((64, 96, 3), (200, 60, 90), dtype=np.uint8) for _ in range(3)]
    for name, close in (("clean", 2), ("crf23", 4), ("hevc28", 4)):
        found = footage.read(footage.write(tmp_path / f"{name}.mp4", clip, footage.find_source(name)))
        assert len(found) == 3
        assert metrics.colour_shift(found, clip) <= close


def test_every_kind_of_picture_has_a_clip_of_its_own_and_none_was_trained_on() -> None:
    kinds = " ".join(clip.kind for clip in footage.CLIPS)
    for kind in ("text", "faces", "foliage", "crowds", "screens", "animation", "night"):
        assert kind in kinds
    assert set(footage.TRAINED_ON) == {*material.PHOTOS, *material.SCREENS}
    assert not [clip for clip in footage.CLIPS if set(Path(clip.file).parts) & set(footage.TRAINED_ON)]
    assert len({clip.name for clip in footage.CLIPS}) == len(footage.CLIPS)


@pytest.mark.parametrize(
    "arguments", [["--ratio", "0"], ["--ratio", "-1"], ["--ratio", "x"], ["--frames", "0"], ["--threads", "-3"]]
)
def test_numbers_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        quality.parse(arguments)
    assert ended.value.code == 2
    assert repr(arguments[1]) in capsys.readouterr().err


def test_a_table_of_nothing_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quality.main(["--table", str(tmp_path / "absent.jsonl")]) == 2
    assert "absent.jsonl is not there" in capsys.readouterr().err


def test_every_benchmark_tells_of_the_machine_by_the_same_words() -> None:
    about = machine(3)
    assert (about["threads"], about["python"]) == (3, platform.python_version())
    assert about["packages"].keys() >= {"torch", "openvino", "av"}
    telling = [path.name for path in Path(quality.__file__).parent.glob("*.py") if "cpuinfo" in path.read_text()]
    assert telling == ["machine.py"]


def test_conditions_are_chosen_freely() -> None:
    options, _ = quality.parse(
        ["--ratio", "2", "1.78", "2.67", "--source", "clean", "crf20", "--clips", "bbb", "--student", "a=b.safetensors"]
    )
    assert list(options.ratios) == [2.0, 16 / 9, 8 / 3]
    assert [source.name for source in options.sources] == ["clean", "crf20"]
    assert [clip.name for clip in options.clips] == ["bbb"]
    assert options.students == (("a", Path("b.safetensors")),)


def test_a_clip_or_source_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.parse(["--clips", "nothing"])
    assert "there is no clip 'nothing'; there are flower" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        quality.parse(["--source", "vp9"])
    assert "'vp9' is no source" in capsys.readouterr().err


def test_networks_are_judged_at_their_ratios() -> None:
    names = {
        ratio: {one.name for one in candidates.candidates(quality.parse([])[0]) if one.takes(ratio, "crf18")}
        for ratio in (16 / 9, 8 / 3)
    }
    assert {name[-8:-5] for name in names[16 / 9] if name.startswith("keyscale") and name.endswith("fp32")} == {"-x2"}
    assert {name[-8:-5] for name in names[8 / 3] if name.startswith("keyscale") and name.endswith("fp32")} == {"-x4"}
    assert {"Lanczos", "automatic choice"} <= names[16 / 9] & names[8 / 3]
    assert not {*candidates.REFERENCES, candidates.HEAVY} & names[8 / 3]


def row(name: str, clip: str, phone: float, **more: Any) -> dict[str, Any]:
    values = {column.key: 1.0 for column in tables.COLUMNS if column.key != "jod"} | {"phone": phone}
    about = {"date": "2026-11-30", "cpu": "Some machine", "threads": 2, "packages": {"torch": "2"}}
    condition = {"ratio": 2.0, "source": "crf23", "frames": 8, "kind": "things"} | more
    return {"name": name, "clip": clip, "values": values, "own": {"still": 0.5, "moving": 2}, "conditions": about} | (
        condition
    )


def test_tables_have_means_over_clips_and_each_clip() -> None:
    rows = [row("A", "one", 10), row("A", "two", 20), row("B", "one", 30), row("A", "one", 50, source="clean")]
    written = tables.markdown(rows)
    assert "| x264 CRF 23 | A | 15.0 |" in written
    assert "|  | B (1 of 2 clips) | 30.0 |" in written
    assert "| clean | A | 50.0 |" in written
    assert written.index("| clean |") < written.index("| x264 CRF 23 |")
    assert "| A | 10.0 / 1.0 | 20.0 / 1.0 |" in written
    assert "| B | 30.0 / 1.0 | - / - |" in written
    assert "JOD" not in written
    # A later row takes the place of an earlier one.
    assert "| x264 CRF 23 | A | 25.0 |" in tables.markdown([*rows, row("A", "one", 30)])


def test_tables_are_put_between_marks(tmp_path: Path) -> None:
    document = tmp_path / "quality.md"
    document.write_text("# Quality\n\nWords.\n", encoding="utf-8")
    for text in ("first", "second"):
        tables.insert(document, text)
    assert document.read_text(encoding="utf-8") == f"# Quality\n\nWords.\n\n{tables.BEGIN}\n\nsecond\n\n{tables.END}\n"


def test_rows_that_were_cut_off_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert list(quality.measured(path)) == []
    path.write_text(json.dumps({"name": "A"}) + "\n" + '{"name": "B', encoding="utf-8")
    assert list(quality.measured(path)) == [{"name": "A"}]


@needs_vmaf
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "bind", lambda _: None)
    where = ["--shared", str(tmp_path), "--work", str(tmp_path)]
    assert quality.main(["--quick", "--clips", "crowd", *where]) == 2
    assert "img_086" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.processes
@needs_vmaf
@needs_clips
def test_a_clip_is_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "bind", lambda _: None)
    command = ["--clips", "crowd", "--ratio", "2", "--source", "crf23", "--frames", "3", "--only", "Lanczos", "tiny"]
    command += ["--work", str(tmp_path), "--markdown", str(tmp_path / "quality.md")]
    assert quality.main(command) == 0
    results = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    found = {one["name"]: one["values"] for one in map(json.loads, results.splitlines())}
    assert set(found) == {"Lanczos", "keyscale-tiny-x2 fp32", "keyscale-tiny-x2 int8"}
    for values in found.values():
        assert 50 < values["neg"] < 95
        assert 50 < values["phone"] < 99
        assert 20 < values["psnr"] < 40
    assert f"| x264 CRF 23 | Lanczos | {found['Lanczos']['phone']:.1f} |" in (tmp_path / "quality.md").read_text(
        encoding="utf-8"
    )
    capsys.readouterr()
    assert quality.main(command) == 0
    assert "crowd x2" not in capsys.readouterr().err
    assert (tmp_path / "results.jsonl").read_text(encoding="utf-8") == results


def test_looks_are_judged_where_they_are_asked_for() -> None:
    def looks(*arguments: str) -> list[candidates.Candidate]:
        asked = quality.parse([*arguments, "--only", "natural", "crisp", "strength"])[0]
        return [one for one in candidates.candidates(asked) if one.takes(4, "crf23")]

    found = looks("--looks")
    assert [(one.name.removeprefix("keyscale-compact-x4 "), one.settings) for one in found] == [
        ("natural fp32", {"look": "natural"}),
        ("natural int8", {"look": "natural"}),
        ("crisp fp32", {"look": "crisp"}),
        ("crisp int8", {"look": "crisp"}),
        ("strength 0.5 int8", {"strength": "0.5"}),
    ]
    assert len({one.digest for one in found}) == 5
    assert not looks()


def test_details_side_by_side_and_moving(tmp_path: Path) -> None:
    scene = crops.Scene("a", "flower", 2, (10, 20, 60, 50), "Somebody, CC0.")
    frames = {label: [photo(480, 640, n) for n in range(3)] for label in ("Lanczos", "keyscale", "another")}
    crops.draw_still(scene, frames, tmp_path)
    crops.draw_loop(scene, frames, tmp_path)
    with Image.open(tmp_path / "crops-a.png") as image:
        assert image.width == 2 * crops.MARGIN + crops.GAP + 400
        assert image.height == 2 * (crops.HEAD + 120) + 36
    with Image.open(tmp_path / "loop-a.webp") as image:
        assert getattr(image, "n_frames", 1) == 4


def test_a_blind_page_names_nobody_and_its_order_follows_the_seed() -> None:
    names = ["Lanczos", "keyscale", "another", "fourth"]
    key = blind.shuffled(names, 1, "flower")
    assert sorted(key.values()) == sorted(names)
    assert list(key) == ["A", "B", "C", "D"]
    assert key == blind.shuffled(names, 1, "flower")
    assert len({tuple(blind.shuffled(names, 1, scene).values()) for scene in "abcdefgh"}) > 1
    frames = [photo(300, 400, n) for n in range(3)]
    written = blind.page({"1: foliage": [blind.show(letter, frames, (0, 16)) for letter in key]})
    assert not [name for name in names if name in written]
    assert written.count("data:image/png") == written.count("data:image/webp") == len(names)
    assert "http" not in written


def test_a_detail_is_taken_where_most_is_to_be_seen() -> None:
    frame = np.full((352, 640, 3), 128, dtype=np.uint8)
    frame[160:300, 320:480] = photo(140, 160)
    top, left = busiest(frame, blind.SIDE)
    assert top <= 160
    assert top + blind.SIDE[1] >= 300
    assert left <= 320
    assert left + blind.SIDE[0] >= 480
