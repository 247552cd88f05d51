"""The recipe of the shipped networks: reproducible scenes, honest losses, training that survives a stop."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from keyscale.engine.camera.geometry import Window
from keyscale.engine.models.openvino_graph import read_graph
from keyscale.engine.models.openvino_model import OpenvinoModel
from keyscale.engine.models.shipped import read_manifest
from keyscale.engine.models.torch_networks import build, inspect
from keyscale.engine.pipeline.upscaler import Upscaler
from tools.training import damage, losses, material, recipes, scenes, train
from tools.training.export import mixture
from tools.training.losses import Weights
from tools.training.network import TrainedNet
from tools.training.optimizer import orthogonalised
from tools.training.pattern import pattern
from tools.training.quantise import quantise

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def quiet(text: str) -> None:
    """What happens is not asked here."""


def photo(seed: int, height: int = 400, width: int = 480) -> npt.NDArray[np.uint8]:
    """Smooth colours with some detail, as photographs have."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def find_pictures(root: Path) -> material.Material:
    """A picture in every folder that the recipe wants, made up, beside what lies there already."""
    for number, folder in enumerate((*material.PHOTOS, *material.SCREENS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in material.NAMES.get(folder, ("one.png",)):
            Image.fromarray(photo(number)).save(root / folder / name)
    return material.find_material([root])


def smooth_scenes(rise: int) -> scenes.Scenes:
    """Grey frames that get brighter by `rise` codes from left to right, at twice their source's size."""
    slope = np.linspace(100, 100 + rise, 192).round().astype(np.uint8)
    high = np.broadcast_to(slope[None, None, None, :, None], (2, 2, 192, 192, 3)).copy()
    return scenes.Scenes(high[:, :, ::2, ::2], high)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> material.Material:
    return find_pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def prepared(pictures: material.Material, tmp_path_factory: pytest.TempPathFactory) -> dict[Fraction, scenes.Scenes]:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.prepare_scenes(folder, pictures, scale=2, count=16, seed=1, log=quiet, workers=1)
    return scenes.open_scenes(folder, 2)


class TestMaterial:
    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="Kodak24"):
            material.find_material([tmp_path])

    def test_what_has_another_licence_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "lomiri").mkdir()
        (tmp_path / "lomiri" / "share-alike.jpg").write_bytes(b"")
        found = find_pictures(tmp_path)
        assert not any("share-alike" in name for name in found.names)


class TestScenes:
    @pytest.mark.parametrize("scale", [2, 4])
    def test_small_and_large_frames_have_the_ratio_of_their_kind(self, scale: int, pictures: material.Material) -> None:
        for ratio in scenes.RATIOS[scale]:
            low, high = scenes.make_scene(pictures, scale=scale, ratio=ratio, seed=1, index=0)
            assert low.shape[0] == high.shape[0] == 2
            assert low.shape[1] * ratio == high.shape[1]
            assert low.dtype == high.dtype == np.uint8

    def test_the_small_frame_shows_what_the_large_one_does(self, pictures: material.Material) -> None:
        """Neither moved, nor turned, nor of another moment: its original is the nearest of all that it might be."""
        for index in range(12):
            low, high = scenes.make_scene(pictures, scale=2, ratio=Fraction(2), seed=2, index=index)
            for frame, original in zip(low, high, strict=True):
                side = len(frame)
                wanted = np.asarray(Image.fromarray(original).resize((side, side), Image.Resampling.BOX)).mean(2)
                seen = frame.mean(2)
                errors = {
                    (dy, dx): float(np.square(np.roll(seen, (dy, dx), (0, 1)) - wanted)[4:-4, 4:-4].mean())
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                }
                assert min(errors, key=lambda shift: errors[shift]) == (0, 0)

    def test_depends_on_the_seed_alone(self, pictures: material.Material) -> None:
        for index in range(6):
            first, again = (
                scenes.make_scene(pictures, scale=4, ratio=Fraction(8, 3), seed=1, index=index) for _ in range(2)
            )
            assert np.array_equal(first[0], again[0])
            assert np.array_equal(first[1], again[1])

    @pytest.mark.processes
    @pytest.mark.slow
    def test_is_the_same_in_every_process(self, tmp_path: Path) -> None:
        """With macroblock trees libx264 reads memory that it never wrote: every process got other scenes."""
        code = f"""
            import hashlib
            from fractions import Fraction
            from pathlib import Path
            from tools.training import material, scenes
            found = material.find_material([Path({str(tmp_path)!r})])
            for index in range(30):
                low, high = scenes.make_scene(found, scale=2, ratio=Fraction(2), seed=1, index=index)
                print(hashlib.sha256(low.tobytes() + high.tobytes()).hexdigest())
        """
        find_pictures(tmp_path)

        def digests(pattern: int) -> list[str]:
            # glibc fills all memory that it hands out with this.
            path = os.pathsep.join([str(ROOT), str(ROOT / "src"), *sys.path])
            environment = os.environ | {"MALLOC_PERTURB_": str(pattern), "PYTHONPATH": path}
            command = [sys.executable, "-c", textwrap.dedent(code)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            return done.stdout.split()

        assert digests(1) == digests(200)

    @pytest.mark.processes
    def test_are_made_once(self, pictures: material.Material, tmp_path: Path) -> None:
        said: list[str] = []
        for _ in range(2):
            scenes.prepare_scenes(tmp_path, pictures, scale=4, count=4, seed=1, log=said.append, workers=1)
        assert said[-1].endswith("scenes are there")
        scenes.prepare_scenes(tmp_path, pictures, scale=4, count=4, seed=2, log=said.append, workers=1)
        assert not said[-1].endswith("scenes are there")

    def test_unfinished_ones_are_not_opened(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            scenes.open_scenes(tmp_path, 2)


class TestDamage:
    @pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
    def test_a_codec_keeps_the_brightness_of_textures(self, pixel_format: str) -> None:
        """swscale's defaults take 1.5 codes from coloured noise in 4:2:0."""
        picture = np.random.default_rng(0).integers(60, 200, (64, 64, 3), dtype=np.uint8)
        coded = damage.through_codec([picture] * 2, codec="libx264", crf=1, preset="fast", pixel_format=pixel_format)
        assert np.abs(np.stack(coded).mean((0, 1, 2)) - picture.mean((0, 1))).max() < 0.5


class TestLosses:
    def test_the_original_costs_nothing(self) -> None:
        x = torch.rand(4, 3, 40, 40)
        loss, terms = losses.distance(x, x, Weights(gradient=1, texture=1, grid=1, change=1))
        assert loss.item() == 0
        assert set(terms) == {"pixels", "gradient", "texture", "grid", "change"}

    def test_texture_asks_for_strength_and_not_for_place(self) -> None:
        """A texture that is moved keeps its strength; a blurred one loses it."""
        coarse = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16), scale_factor=4, mode="bicubic")
        moved = torch.roll(coarse, 1, 3)
        blurred = torch.nn.functional.avg_pool2d(coarse, 7, 1, 3)
        cost = {
            name: losses.distance(x, coarse, Weights(texture=1))[1]["texture"]
            for name, x in (("moved", moved), ("blurred", blurred))
        }
        assert cost["moved"] < 0.3 * cost["blurred"]

    def test_texture_gains_nothing_by_a_pattern_of_cells(self) -> None:
        flat = torch.full((2, 3, 64, 64), 0.5)
        for line in ((1.0, -1.0), (1.0, 0.0, -1.0, 0.0), (1.0, 1.0, -1.0, -1.0)):
            stripes = flat + 0.02 * torch.tensor(line).repeat(64 // len(line))
            assert losses.distance(stripes, flat, Weights(texture=1))[1]["texture"] < 1e-6

    def test_a_grid_costs_and_texture_does_not(self) -> None:
        """A pattern that every cell of 4x4 pixels has; noise of the same strength has next to none."""
        flat = torch.full((2, 3, 64, 64), 0.5)
        for line in ((1.0, -1.0), (1.0, 0.0, -1.0, 0.0), (1.0, 1.0, -1.0, -1.0)):
            stripes = flat + 0.02 * torch.tensor(line).repeat(64 // len(line))
            for result in (stripes, stripes.mT):
                assert losses.distance(result, flat, Weights(grid=1))[1]["grid"] > 0.0099
        generator = torch.Generator().manual_seed(0)
        noise = flat + 0.02 * torch.randn(flat.shape, generator=generator)
        assert losses.distance(noise, flat, Weights(grid=1))[1]["grid"] < 0.001
        assert losses.distance(flat + 0.1, flat, Weights(grid=1))[1]["grid"] < 1e-6

    def test_change_asks_for_what_the_original_changes_by(self) -> None:
        """A fixed error in both frames is none of change; noise that differs is."""
        first, second = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
        originals = torch.cat((first, second))
        weights = Weights(change=1)
        assert losses.distance(originals + 0.1, originals, weights)[1]["change"] == pytest.approx(0, abs=1e-6)
        flickering = torch.cat((first + 0.1, second - 0.1))
        assert losses.distance(flickering, originals, weights)[1]["change"] == pytest.approx(0.2, abs=1e-6)

    def test_sharpening_leaves_flat_places_and_strengthens_edges(self) -> None:
        flat = torch.full((1, 3, 16, 16), 0.4)
        assert torch.allclose(losses.sharpened(flat, 0.5), flat, atol=1e-6)
        edge = flat.clone()
        edge[..., 8:] = 0.6
        assert losses.gradient_energy(losses.sharpened(edge, 0.5)) > losses.gradient_energy(edge)


class TestTraining:
    RECIPE = train.Recipe(features=8, blocks=1, scale=2, fold=2, steps=12, batch=4, patch=36, margin=4)

    @pytest.mark.parametrize("fold", [1, 2])
    def test_the_plain_network_gives_the_trained_one_s_picture(self, fold: int) -> None:
        torch.manual_seed(0)
        trained = TrainedNet(features=8, blocks=2, scale=2, fold=fold)
        network, facts = build(trained.plain())
        assert (facts.fold, facts.scale, facts.features, facts.blocks) == (fold, 2, 8, 2)
        x = torch.rand(1, 3, 24, 32)
        with torch.inference_mode():
            # At the border the one enlarges by repeating the last pixel, and the other sees zeros as its layers do.
            inner = np.s_[..., 4:-4, 4:-4]
            assert torch.allclose(network(x)[inner], trained(x)[inner], atol=1e-5)

    def test_sampling_is_that_of_the_camera(self) -> None:
        """`train.sampled` gives what Pillow gives, which samples the frames of jobs."""
        side, after = 40, 30
        picture = np.random.default_rng(0).random((side, side)).astype(np.float32)
        wanted = np.asarray(Image.fromarray(picture).resize((after, after), Image.Resampling.LANCZOS))
        found = train.sampled(torch.from_numpy(picture)[None, None], after)[0, 0].numpy()
        assert np.abs(found - wanted).max() < 1e-5

    def test_lowers_its_loss(self, prepared: dict[Fraction, scenes.Scenes], tmp_path: Path) -> None:
        recipe = dataclasses.replace(self.RECIPE, steps=150)
        before = train.score(TrainedNet(features=8, blocks=1, scale=2, fold=2), prepared[Fraction(2)], CPU)
        trained = train.train(tmp_path / "one.ckpt", recipe, prepared, prepared, device=CPU, log=quiet)
        assert train.score(trained, prepared[Fraction(2)], CPU).psnr > before.psnr

    def test_goes_on_where_it_stopped(
        self, prepared: dict[Fraction, scenes.Scenes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stop in the middle changes nothing, to the last bit."""
        whole = train.train(tmp_path / "whole.ckpt", self.RECIPE, prepared, prepared, device=CPU, log=quiet)

        class Stopped(Exception):
            pass

        def stop(text: str) -> None:
            if "'step': 6" in text:
                raise Stopped

        with monkeypatch.context() as often:
            often.setattr(train, "LOG_STEPS", 6)
            often.setattr(train, "CHECKPOINT_SECONDS", -1)
            with pytest.raises(Stopped):
                train.train(tmp_path / "cut.ckpt", self.RECIPE, prepared, prepared, device=CPU, log=stop)
        assert not train.is_finished(tmp_path / "cut.ckpt")
        said: list[str] = []
        resumed = train.train(tmp_path / "cut.ckpt", self.RECIPE, prepared, prepared, device=CPU, log=said.append)
        assert said[0] == "cut: 5 of 12 steps are done"
        assert train.is_finished(tmp_path / "cut.ckpt")
        for key, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[key]), key

    def test_another_recipe_s_checkpoint_is_refused(
        self, prepared: dict[Fraction, scenes.Scenes], tmp_path: Path
    ) -> None:
        path = tmp_path / "one.ckpt"
        recipe = dataclasses.replace(self.RECIPE, steps=1)
        train.train(path, recipe, prepared, prepared, device=CPU, log=quiet)
        with pytest.raises(ValueError, match="another recipe"):
            train.train(path, dataclasses.replace(recipe, muon_rate=0.1), prepared, prepared, device=CPU, log=quiet)

    def test_muon_s_step_has_singular_values_near_one(self) -> None:
        torch.manual_seed(0)
        values = torch.linalg.svdvals(orthogonalised(torch.randn(12, 40)))
        assert values.min() > 0.6
        assert values.max() < 1.3


class TestExport:
    def test_a_mixture_lies_between_its_ends(self, prepared: dict[Fraction, scenes.Scenes], tmp_path: Path) -> None:
        ends = []
        for name, seed in (("natural", 0), ("crisp", 1)):
            recipe = dataclasses.replace(TestTraining.RECIPE, steps=1, seed=seed)
            train.train(tmp_path / f"{name}.ckpt", recipe, prepared, prepared, device=CPU, log=quiet)
            ends.append(train.load_trained(tmp_path / f"{name}.ckpt", CPU)[0].plain())
        mixed = mixture(tmp_path / "natural.ckpt", tmp_path / "crisp.ckpt", 0.25).plain()
        for key, value in mixed.items():
            assert torch.allclose(value, 0.75 * ends[0][key] + 0.25 * ends[1][key], atol=1e-6)

    @pytest.mark.parametrize("fold", [1, 2])
    def test_a_pattern_of_all_cells_is_found(self, fold: int) -> None:
        network = TrainedNet(features=4, blocks=1, scale=2, fold=fold)
        assert network.last.bias is not None
        with torch.no_grad():
            network.last.weight.zero_()
            network.last.bias.copy_(torch.linspace(-0.01, 0.01, len(network.last.bias)))
        error = pattern(network, 2, fold, smooth_scenes(0))
        assert torch.allclose(error, network.last.bias.detach(), atol=1e-6)

    @pytest.mark.processes
    @pytest.mark.parametrize("fold", [1, 2])
    def test_int8_draws_no_pattern_of_its_own(self, fold: int, tmp_path: Path) -> None:
        """The mean error at each place of a cell stays that of the float network: none, once it's out of the bias."""
        pytest.importorskip("nncf")
        torch.manual_seed(0)
        network = TrainedNet(features=16, blocks=2, scale=2, fold=fold)
        assert network.last.bias is not None
        with torch.no_grad():
            network.last.weight.mul_(20)
            network.last.bias.sub_(pattern(network, 2, fold, smooth_scenes(40)))
        state = network.plain()
        spec = inspect(state, name="one")
        path = tmp_path / "one.xml"
        quantise(state, spec, smooth_scenes(40), path)
        graph = read_graph(path.read_bytes(), path.with_suffix(".bin").read_bytes())
        int8 = OpenvinoModel(graph, spec, sha256="0" * 64, precision="int8")

        def run(x: torch.Tensor) -> torch.Tensor:
            pictures = (x.permute(0, 2, 3, 1) * 65535).round().numpy().astype(np.uint16)
            made = [np.asarray(Upscaler(int8, (96, 96))(one, Window(0, 0, 96, 96)), np.float32) for one in pictures]
            return torch.from_numpy(np.stack(made) / 65535).permute(0, 3, 1, 2)

        assert pattern(run, 2, fold, smooth_scenes(40)).abs().max() < 0.1 / 255


def test_the_shipped_networks_are_of_the_recipe_s_shapes() -> None:
    wanted = {
        name: (network.natural.features, network.natural.blocks, network.natural.scale, network.natural.fold)
        for name, network in recipes.PLANS["cpu"].networks.items()
    }
    listed = read_manifest().students
    assert {one.name: (one.features, one.blocks, one.scale, one.fold) for one in listed} == wanted
    assert [one.name for one in listed] == list(wanted)


@pytest.mark.parametrize(
    ("device", "says"), [("zzz", "'zzz' is not a device"), ("cuda:99", "no device cuda:99"), ("meta", "meta")]
)
def test_a_device_that_is_not_there_is_told_as_the_other_arguments_are(
    device: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.training import __main__ as command

    arguments = ["--images", "nowhere", "--work", "nowhere", "--device", device]
    monkeypatch.setattr(sys, "argv", ["tools.training", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "argument --device" in told
    assert says in told


@pytest.mark.slow
@pytest.mark.processes
def test_one_command_makes_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a plan of a few steps; the files are read as the package's are."""
    pytest.importorskip("nncf", reason="the recipe's int8 needs the training extra")
    from tools.training import __main__ as command

    find_pictures(tmp_path / "images")
    small = {
        name: dataclasses.replace(
            network,
            natural=dataclasses.replace(network.natural, steps=2, batch=2),
            crisp=dataclasses.replace(network.crisp, steps=1, batch=2),
        )
        for name, network in recipes.PLANS["cpu"].networks.items()
    }
    monkeypatch.setitem(recipes.PLANS, "cpu", recipes.Plan(8, 4, small))
    monkeypatch.setattr(command, "PICTURES", 4)
    arguments = [
        "--images",
        str(tmp_path / "images"),
        "--work",
        str(tmp_path / "work"),
        "--into",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", ["tools.training", *arguments])
    command.main()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "students.json",
        *(
            f"{name}{look}{end}"
            for name in small
            for look in ("-natural", "", "-crisp")
            for end in (".safetensors", ".int8.xml", ".int8.bin")
        ),
    }
    capsys.readouterr()
    command.main()
    assert "steps are done" in capsys.readouterr().out
