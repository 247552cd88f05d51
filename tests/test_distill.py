"""The recipe of the shipped networks: reproducible pictures, honest losses, training that survives a stop."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from clips import make_clip
from PIL import Image

from keyscale.engine.models.shipped import read_manifest
from tools.distill import data, losses, recipes, scenes, train
from tools.distill.degrade import degrade, encode_as_video, shrink
from tools.distill.optimizer import Muon, orthogonalised
from tools.distill.student import Student

ROOT = Path(__file__).resolve().parents[1]


def photo(seed: int, height: int = 160, width: int = 160) -> npt.NDArray[np.uint8]:
    """Smooth colours with some detail, as photographs have."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


class TestDegradation:
    def test_depends_on_the_seed_alone(self) -> None:
        picture = photo(1)
        for seed in range(12):
            first, again = (degrade(np.random.default_rng(seed), picture) for _ in range(2))
            assert np.array_equal(first, again)

    @pytest.mark.slow
    def test_is_the_same_in_every_process(self) -> None:
        """With macroblock trees libx264 reads memory that it never wrote: every process got other tiles."""
        code = """
            import hashlib, numpy as np
            from test_distill import photo
            from tools.distill.degrade import degrade
            for seed in range(30):
                print(hashlib.sha256(degrade(np.random.default_rng(seed), photo(seed)).tobytes()).hexdigest())
        """

        def digests(pattern: int) -> list[str]:
            # glibc fills all memory that it hands out with this.
            path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])
            environment = os.environ | {"MALLOC_PERTURB_": str(pattern), "PYTHONPATH": path}
            command = [sys.executable, "-c", textwrap.dedent(code)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            return done.stdout.split()

        assert digests(1) == digests(170)

    def test_keeps_size_and_type_and_mostly_changes_the_picture(self) -> None:
        picture = photo(2, 150, 161)
        results = [degrade(np.random.default_rng(seed), picture) for seed in range(30)]
        assert all(result.shape == picture.shape and result.dtype == np.uint8 for result in results)
        assert sum(not np.array_equal(result, picture) for result in results) > 20

    def test_gentle_leaves_about_half_alone(self) -> None:
        picture = photo(3)
        alone = sum(np.array_equal(degrade(np.random.default_rng(s), picture, gentle=True), picture) for s in range(60))
        assert 20 <= alone <= 45

    @pytest.mark.parametrize("codec", ["libx264", "libx265"])
    def test_video_is_worse_at_a_higher_crf_but_has_the_same_colours(self, codec: str) -> None:
        picture = photo(4, 96, 97)
        errors = []
        for crf in (18, 36):
            coded = encode_as_video([picture] * 3, codec=codec, crf=crf, pixel_format="yuv420p")
            errors.append(float(np.square(coded.astype(float) - picture).mean()))
            assert np.abs(coded.astype(float).mean((0, 1)) - picture.mean((0, 1))).max() < 4
        assert 0 < errors[0] < errors[1]

    def test_shrinking_never_goes_below_the_least_side(self) -> None:
        picture = photo(5, 300, 200)
        for seed in range(40):
            small = shrink(np.random.default_rng(seed), picture, 128)
            assert min(small.shape[:2]) >= 128


@pytest.fixture
def sources(tmp_path: Path) -> data.Sources:
    paths = []
    for n in range(3):
        path = tmp_path / f"{n}.png"
        Image.fromarray(photo(n, 520, 600)).save(path)
        paths.append(path)
    clip = tmp_path / "clip.mp4"
    make_clip(clip, frames=6, rate=30, size=(256, 192))
    return data.Sources(tuple(paths[:2]), (paths[2],), (clip,))


class TestTiles:
    def test_a_tile_depends_on_seed_and_index_alone(self, sources: data.Sources) -> None:
        whole = data.make_tiles(sources, seed=5, count=8)
        assert whole.shape == (8, data.TILE, data.TILE, 3)
        assert np.array_equal(data.make_tile(sources, 5, 6), whole[6])
        assert not np.array_equal(data.make_tile(sources, 6, 6), whole[6])


class TestScenes:
    def test_a_scene_depends_on_seed_and_index_alone(self, sources: data.Sources) -> None:
        for index in range(6):
            (views, motion), (again, same) = (scenes.make_scene(sources, 5, index) for _ in range(2))
            assert views.shape == (2, data.TILE, data.TILE, 3)
            assert views.dtype == np.uint8
            assert np.array_equal(views, again)
            assert np.array_equal(motion, same)

    def test_views_differ_by_noise_or_by_their_motion(self, sources: data.Sources) -> None:
        kinds = set()
        for index in range(24):
            (first, second), motion = scenes.make_scene(sources, 6, index)
            assert not np.array_equal(first, second)
            assert ((motion >= 0) & (motion < 4)).all()
            moving = bool(motion.any())
            kinds.add(moving)
            if moving:
                back = scenes.displaced_by(first, motion / 4, 0.0)[4:-4, 4:-4]
                assert (
                    np.abs(back - second[4:-4, 4:-4]).mean() < 0.5 * np.abs(first.astype(float) - second).mean() + 0.6
                )
        assert kinds == {False, True}


class TestLosses:
    def test_equal_pictures_cost_nothing(self) -> None:
        picture = torch.rand(1, 3, 32, 32)
        assert losses.distance(picture, picture, 1.0)[0].item() == 0

    def test_a_blurred_picture_costs_more_where_detail_counts(self) -> None:
        torch.manual_seed(0)
        sharp = torch.rand(1, 3, 64, 64)
        soft = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
        loss, terms = losses.distance(soft, sharp, 0.5)
        assert terms["strength"] > 0.01
        assert loss.item() == pytest.approx(terms["pixels"] + 0.5 * terms["strength"], rel=1e-5)
        assert losses.distance(soft, sharp, 0.0)[1] == {"pixels": terms["pixels"]}

    def test_detail_asks_for_strength_and_not_for_place(self) -> None:
        # A checkerboard and its negative are opposite in every pixel and alike in texture.
        board = torch.arange(64)[:, None].add(torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
        _, terms = losses.distance(board, 1 - board, 1.0)
        assert terms["pixels"] == 1
        assert terms["strength"] == pytest.approx(0, abs=1e-6)

    def test_halving_removes_what_would_alias(self) -> None:
        stripes = torch.arange(64).remainder(2).float().expand(1, 3, 64, 64)
        halved = losses.halve(stripes)[..., 4:-4]
        assert halved.shape[2:] == (32, 24)
        assert (halved - 0.5).abs().max() < 0.02

    def test_undoing_the_motion_of_one_scene_leaves_nothing(self) -> None:
        scene = torch.rand(3, 20, 24)
        before, after = scene[..., :16, :16], scene[..., 3:19, 1:17]
        left = losses.displaced(before, after, (3, 1))
        assert left.shape[1:] == (13, 15)
        assert not left.any()
        assert losses.displaced(before, after, (1, 3)).abs().mean() > 0.1

    def test_what_is_as_calm_as_the_teacher_costs_nothing(self) -> None:
        torch.manual_seed(0)
        before, change = torch.rand(2, 3, 32, 32), 0.02 * torch.randn(2, 3, 32, 32)
        still = [(0, 0)] * 2

        def cost(strength: float, allowed: float = 1.0) -> float:
            views = before, before + strength * change, before.flip(1), before.flip(1) + change.flip(1)
            return losses.excess(*views, still, side=16, allowed=allowed).item()

        assert cost(0.5) == cost(0.0) == 0
        assert cost(1.5) > 0
        assert cost(2.0) == pytest.approx(2 * cost(1.5), rel=0.2)
        assert cost(0.9, allowed=0.8) > 0

    def test_calm_in_one_place_does_not_pay_for_another(self) -> None:
        torch.manual_seed(0)
        before, change = torch.zeros(1, 3, 32, 32), 0.02 * torch.randn(1, 3, 32, 32)
        own = change.clone()
        own[..., :16] = 0
        own[..., 16:] *= 1.2
        assert losses.excess(before, own, before, change, [(0, 0)], side=16, allowed=1.0).item() > 0

    def test_restlessness_of_a_moving_scene_is_what_its_motion_leaves(self) -> None:
        scene = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
        before, after = scene[..., :32, :32], scene[..., 2:34, 2:34]
        blank = torch.zeros(1, 3, 32, 32)
        assert losses.excess(before, after, blank, blank, [(2, 2)], side=8, allowed=1.0).item() < losses.ROUNDING
        assert losses.excess(before, after, blank, blank, [(0, 0)], side=8, allowed=1.0).item() > 0.1


class TestStudent:
    def test_folding_changes_nothing(self) -> None:
        torch.manual_seed(1)
        student = Student(features=8, blocks=2, scale=2)
        state = student.folded()
        x = torch.rand(1, 3, 9, 11)
        y = x
        for index in range(4):
            y = torch.nn.functional.conv2d(y, state[f"convs.{index}.weight"], state[f"convs.{index}.bias"], padding=1)
            y = torch.relu(y) if index < 3 else y
        expected = torch.pixel_shuffle(y, 2) + x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert torch.allclose(student(x), expected, atol=1e-6)

    def test_sees_a_pixel_more_each_way_with_every_convolution(self) -> None:
        torch.manual_seed(1)
        student = Student(features=8, blocks=2, scale=2)
        x = torch.rand(1, 3, 21, 21, requires_grad=True)
        student(x)[0, :, 20:22, 20:22].sum().backward()
        assert x.grad is not None
        rows = x.grad.abs().sum((0, 1, 3)).nonzero().ravel()
        assert (10 - int(rows.min()), int(rows.max()) - 10) == (4, 4)


class TestOptimizer:
    def test_orthogonalises(self) -> None:
        torch.manual_seed(0)
        for shape in ((8, 72), (72, 8)):
            values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
            assert values.min() > 0.5
            assert values.max() < 1.3

    def test_descends(self) -> None:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(6, 6))
        optimizer = Muon([weight], lr=0.05)
        for _ in range(100):
            optimizer.zero_grad()
            loss = (weight - torch.eye(6)).square().mean()
            torch.autograd.backward(loss)
            optimizer.step()
        assert loss.item() < 0.05


def drawn(pairs: data.Pairs) -> data.Pairs:
    """The same tiles, enlarged smoothly instead of repeated."""
    high = [Image.fromarray(tile).resize((512, 512), Image.Resampling.BICUBIC) for tile in pairs.low]
    return data.Pairs(pairs.low, np.stack([np.asarray(image) for image in high]))


def filmed(pairs: data.Pairs, *, noise: float = 4.0) -> scenes.Scenes:
    """Each tile twice: the first half under noise, the others moved; the teacher answers nothing of it."""
    rng = np.random.default_rng(0)
    low = np.stack([pairs.low, pairs.low], axis=1)
    motion = np.zeros((len(low), 2), np.int64)
    for n, tile in enumerate(pairs.low):
        if n < len(low) // 2:
            low[n] = np.clip(np.round(tile + rng.normal(0, noise, low[n].shape)), 0, 255)
        else:
            motion[n] = (2, 1 + n % 2)
            low[n, 1] = np.clip(np.round(scenes.displaced_by(tile, motion[n] / 4, 0.0)), 0, 255)
    high = np.stack([pairs.high, pairs.high], axis=1)
    return scenes.Scenes(low, high, motion)


def trained(path: Path, recipe: train.Recipe, pairs: data.Pairs, start_from: Path | None = None) -> Student:
    """Trained and judged on the same tiles and on scenes of them, on the CPU."""
    return train.train(
        path,
        recipe,
        pairs,
        pairs,
        scenes=filmed(pairs),
        device=torch.device("cpu"),
        start_from=start_from,
        log=lambda _: None,
    )


class TestTraining:
    RECIPE = train.Recipe(
        features=8,
        blocks=1,
        scale=4,
        steps=8,
        batch=4,
        patch=32,
        warm_up=2,
        detail=0.3,
        calm=0.5,
        grain=True,
    )

    @pytest.fixture
    def pairs(self) -> data.Pairs:
        low = np.stack([photo(n, data.TILE, data.TILE) for n in range(4)])
        return data.Pairs(low, low.repeat(4, 1).repeat(4, 2))

    @pytest.fixture
    def seen(self, pairs: data.Pairs) -> scenes.Scenes:
        return filmed(pairs)

    def test_a_stopped_training_ends_where_an_undisturbed_one_does(self, pairs: data.Pairs, tmp_path: Path) -> None:
        cpu = torch.device("cpu")
        whole = trained(tmp_path / "a.ckpt", self.RECIPE, pairs)

        # Checkpoints are a minute apart: the one on the way is made by hand.
        run = train._Run(tmp_path / "b.ckpt", self.RECIPE, cpu)
        batches = train._Batches(pairs, filmed(pairs), self.RECIPE, 0, cpu)
        for _ in range(3):
            run.advance(batches.next())
        run.save()
        again = trained(tmp_path / "b.ckpt", self.RECIPE, pairs)
        for key, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), key

    def test_a_training_that_was_stopped_has_not_finished(self, pairs: data.Pairs, tmp_path: Path) -> None:
        """Nothing begins as half a student, and none is shipped."""
        path, cpu = tmp_path / "a.ckpt", torch.device("cpu")
        assert not train.is_finished(path)
        run = train._Run(path, self.RECIPE, cpu)
        run.advance(train._Batches(pairs, filmed(pairs), self.RECIPE, 0, cpu).next())
        run.save()
        assert not train.is_finished(path)
        trained(path, self.RECIPE, pairs)
        assert train.is_finished(path)

    def test_a_checkpoint_of_another_recipe_is_refused(self, pairs: data.Pairs, tmp_path: Path) -> None:
        trained(tmp_path / "a.ckpt", self.RECIPE, pairs)
        other = dataclasses.replace(self.RECIPE, seed=3)
        with pytest.raises(ValueError, match="another recipe"):
            trained(tmp_path / "a.ckpt", other, pairs)

    def test_learns(self, pairs: data.Pairs, tmp_path: Path) -> None:
        wanted = drawn(pairs)
        recipe = dataclasses.replace(self.RECIPE, steps=60, batch=4)
        cpu = torch.device("cpu")
        untrained = train.score(Student(features=8, blocks=1, scale=4), wanted, cpu)
        student = trained(tmp_path / "c.ckpt", recipe, wanted)
        assert train.score(student, wanted, cpu).psnr > untrained.psnr + 2
        assert (tmp_path / "c.log").read_text().count("held_psnr") == 1

    def test_a_picture_moves_by_parts_of_a_pixel(self) -> None:
        picture = photo(3, 128, 128)
        still = scenes.displaced_by(picture, np.zeros(2), 0.0)
        assert np.abs(still - picture).max() < 1e-9
        step = np.array([0.5, 0.25])
        # Softened, since a frequency of half the sampling rate has no half-way place.
        twice = scenes.displaced_by(scenes.displaced_by(picture, step, 1.0), step, 0.0)
        assert np.abs(twice - scenes.displaced_by(picture, 2 * step, 1.0)).max() < 1
        whole = scenes.displaced_by(picture, np.array([3.0, 1.0]), 0.0)
        assert np.abs(whole[:-3, :-1] - picture[3:, 1:]).max() < 1e-9

    def test_a_picture_is_softened_as_by_a_gaussian(self) -> None:
        point = np.zeros((65, 65, 3), np.uint8)
        point[32, 32] = 255
        soft = scenes.displaced_by(point, np.zeros(2), 1.0)[..., 0] / 255
        across = soft.sum(0)
        assert soft.sum() == pytest.approx(1)
        assert (across * (np.arange(65) - 32) ** 2).sum() == pytest.approx(1.0, rel=1e-3)

    @pytest.mark.parametrize("scale", [2, 4])
    def test_views_of_scenes_follow_the_tiles(self, pairs: data.Pairs, seen: scenes.Scenes, scale: int) -> None:
        recipe = dataclasses.replace(self.RECIPE, scale=scale, batch=8)
        motions = set()
        for step in range(6):
            batch = train._Batches(drawn(pairs), seen, recipe, step, torch.device("cpu")).next()
            assert len(batch.low) == len(batch.high) == 8 + 2 * 4
            assert batch.high.shape[-1] == scale * batch.low.shape[-1]
            first, second = batch.low[8:].chunk(2)
            for before, after, motion in zip(first, second, batch.motions, strict=True):
                large = [
                    torch.nn.functional.interpolate(v[None], scale_factor=scale, mode="bicubic")
                    for v in (before, after)
                ]
                inner = np.s_[..., 8:-8, 8:-8]
                apart = losses.displaced(large[0][0], large[1][0], motion)[inner].abs().mean()
                still = (large[0] - large[1])[inner].abs().mean()
                assert apart < 0.5 * still if any(motion) else apart == still > 0
            motions |= set(batch.motions)
        # By half a pixel and a quarter, which is no whole pixel of an x2 result.
        assert motions == ({(0, 0), (2, 1), (2, 2)} if scale == 4 else {(0, 0), (1, 1)})

    def test_no_scene_is_shown_where_calm_does_not_count(self, pairs: data.Pairs, seen: scenes.Scenes) -> None:
        recipe = dataclasses.replace(self.RECIPE, calm=0.0)
        batch = train._Batches(pairs, seen, recipe, 0, torch.device("cpu")).next()
        assert not batch.motions
        calm = train._Batches(pairs, seen, self.RECIPE, 0, torch.device("cpu")).next()
        assert torch.equal(batch.low, calm.low[: recipe.batch])

    def test_calm_cannot_be_learned_from_nothing(self, pairs: data.Pairs, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no"):
            train.train(tmp_path / "a.ckpt", self.RECIPE, pairs, pairs, device=torch.device("cpu"), log=lambda _: None)

    @pytest.mark.slow
    def test_asked_for_calm_it_answers_noise_with_less(self, pairs: data.Pairs, tmp_path: Path) -> None:
        """The teacher of these scenes does not answer noise at all."""
        cpu, wanted, answers = torch.device("cpu"), drawn(pairs), []
        seen = filmed(wanted)
        still = scenes.Scenes(seen.low[:2], seen.high[:2], seen.motion[:2])
        x = train.to_floats(pairs.low)
        noisy = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 5 / 255
        for weight in (0.0, 8.0):
            recipe = dataclasses.replace(self.RECIPE, features=16, steps=300, calm=weight)
            student = train.train(
                tmp_path / f"{weight}.ckpt",
                recipe,
                wanted,
                wanted,
                scenes=still,
                device=cpu,
                log=lambda _: None,
            )
            with torch.inference_mode():
                answers.append(float((student(noisy) - student(x)).square().mean()))
        assert answers[1] < 0.8 * answers[0]

    def test_in_bfloat16_it_learns_as_well(self, pairs: data.Pairs, seen: scenes.Scenes, tmp_path: Path) -> None:
        wanted, cpu, found = drawn(pairs), torch.device("cpu"), []
        for half in (False, True):
            recipe = dataclasses.replace(self.RECIPE, steps=40, half=half)
            path = tmp_path / f"{half}.ckpt"
            student = train.train(path, recipe, wanted, wanted, scenes=seen, device=cpu, log=lambda _: None)
            assert all(value.dtype == torch.float32 for value in student.state_dict().values())
            found.append(train.score(student, wanted, cpu).psnr)
        assert abs(found[0] - found[1]) < 1

    def test_grain_is_as_strong_as_rounding_to_8_bits_and_depends_on_its_seed(self) -> None:
        torch.manual_seed(2)
        student = Student(features=8, blocks=2, scale=2)
        x = torch.rand(2, 3, 24, 24)
        plain, first, again, other = (
            student(x, None if seed is None else torch.Generator().manual_seed(seed)) for seed in (None, 1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert 0 < (first - plain).abs().max() < 0.1 * plain.abs().max()

    def test_the_x2_student_starts_from_the_x4_one(self, pairs: data.Pairs, tmp_path: Path) -> None:
        donor = trained(tmp_path / "x4.ckpt", self.RECIPE, pairs)
        recipe = dataclasses.replace(self.RECIPE, scale=2, steps=1, muon_rate=0.0, adam_rate=0.0)
        student = trained(tmp_path / "x2.ckpt", recipe, pairs, start_from=tmp_path / "x4.ckpt")
        assert torch.equal(student.first.weight, donor.first.weight)
        assert student.last.weight.shape[0] == 12

    def test_a_deeper_student_starts_as_good_as_the_one_it_begins_as(self, pairs: data.Pairs, tmp_path: Path) -> None:
        donor = trained(tmp_path / "a.ckpt", self.RECIPE, pairs)
        deeper = dataclasses.replace(self.RECIPE, blocks=3, steps=1, muon_rate=0.0, adam_rate=0.0)
        student = trained(tmp_path / "b.ckpt", deeper, pairs, start_from=tmp_path / "a.ckpt")
        x = torch.rand(1, 3, 16, 16)
        with torch.inference_mode():
            assert len(student.middle) == 3
            assert torch.allclose(student(x), donor(x), atol=1e-6)


class TestPlans:
    @pytest.mark.parametrize("plan", recipes.PLANS.values(), ids=recipes.PLANS)
    def test_a_student_is_trained_after_the_one_it_starts_from(self, plan: recipes.Plan) -> None:
        order = recipes.training_order(plan)
        assert sorted(order) == sorted(plan.stages)
        for name in order:
            if donor := recipes.donor_of(name):
                assert order.index(donor) < order.index(name)
                assert plan.stages[name].blocks % plan.stages[donor].blocks == 0
                assert plan.stages[name].features == plan.stages[donor].features

    def test_what_is_shipped_was_calmed_and_drafts_are_not_shipped(self) -> None:
        for plan in recipes.PLANS.values():
            assert all(recipe.calm for recipe in plan.students.values())
            assert list(plan.drafts) == [name + recipes.DRAFT for name in plan.students]

    def test_the_cpu_plan_is_what_the_package_holds(self) -> None:
        shipped = {each.name: each for each in read_manifest().students}
        assert list(shipped) == list(recipes.PLANS["cpu"].students)
        for name, recipe in recipes.PLANS["cpu"].students.items():
            found = shipped[name]
            assert (found.features, found.blocks, found.scale) == (recipe.features, recipe.blocks, recipe.scale)
