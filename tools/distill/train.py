"""Training one student: batches, schedule, checkpoints, resume, log."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tools.distill.data import TILE, Pairs
from tools.distill.losses import distance, excess, gradient_energy, halve, sharpened
from tools.distill.optimizer import Muon
from tools.distill.scenes import Scenes
from tools.distill.student import Student

__all__ = ["Recipe", "Score", "is_finished", "load_student", "score", "train"]

CHECKPOINT_SECONDS = 60
LOG_STEPS, SCORE_STEPS = 100, 1000
TEACHER_SCALE = 4
QUARTERS = 4
"""How often a scene that moves by quarters of a pixel is shown for each time that another one is: a sharp student is
worst at those (1.6 of the teacher's differences in slow slides where it has 0.8 in those by half a pixel)."""
CALM_BLOCK = 8
"""Side of the blocks whose restlessness is compared with the teacher's, in low-resolution pixels."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a student depends on beside the data; written into its checkpoint and compared on resume."""

    features: int
    blocks: int
    scale: int
    steps: int
    batch: int = 16
    patch: int = 64
    """Side of a training patch in low-resolution pixels."""
    margin: int = 4
    """Low-resolution pixels at a patch's border that the loss leaves out: the teacher saw what lies beyond."""
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    """For the first and the last convolution and all biases."""
    warm_up: int = 100
    """Steps in which the rates rise to their full value."""
    decay: float = 0.5
    """Last part of the steps, in which the rates fall to zero."""
    averaging: float = 0.998
    """Of the running average of weights that is kept as the result, a step."""
    detail_from: float = 0.5
    """Part of the steps after which `detail` and `sharpen` count; the teacher's pixels alone before."""
    detail: float = 0.0
    """Weight of the strength of details, see `losses.distance`."""
    sharpen: float = 0.0
    """How much sharper than the teacher the target is, see `losses.sharpened`."""
    calm: float = 0.0
    """Weight of restlessness beyond the teacher's (`losses.excess`), relative to that of pixels; scenes are learned
    from where it is not 0."""
    allowed: float = 1.0
    """How restless a student may be, as a part of its teacher's root mean square differences."""
    grain: bool = False
    """Train with the noise that 8 bits give to activations, so that the int8 network stays near this one
    (quantisation noise, arXiv 2004.07320)."""
    half: bool = False
    """Convolve in bfloat16 while training: on a CPU with AMX twice as fast, and as coarse as 8-bit activations are."""
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """A student against the teacher on the held-out tiles."""

    psnr: float
    """Decibel over RGB, the mean of the tiles'."""
    energy: float
    """Gradient energy of luma relative to the teacher's; 1 is as sharp."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from: pictures `(N, 3, H, W)` in [0, 1], of one height and width."""

    low: Tensor
    high: Tensor
    """The teacher's results for `low`, at the student's scale."""
    motions: tuple[tuple[int, int], ...] = ()
    """The last pictures are scenes: first the first views of as many as there are motions here, then the second views
    of the same; these lie so far down and right, in output pixels."""


class _Batches:
    """Random patches, put together in a thread of their own. Batch n depends on the seed and n alone.

    Nothing is flipped or turned: the teacher's result for a mirrored picture is another one (31 dB away), and a
    student that must please both meets neither.
    """

    def __init__(self, pairs: Pairs, scenes: Scenes | None, recipe: Recipe, first: int, device: torch.device) -> None:
        if recipe.calm and scenes is None:
            raise ValueError("calm is learned from scenes, and there are none")
        self.pairs, self.recipe, self.device = pairs, recipe, device
        self.unit = TEACHER_SCALE // recipe.scale
        self.scenes = scenes if recipe.calm else None
        if self.scenes is not None:
            # A motion has to be one of whole output pixels, that it can be undone.
            followed = np.flatnonzero((self.scenes.motion % self.unit == 0).all(1))
            quarters = followed[(self.scenes.motion[followed] % 2).any(1)]
            self.followed = np.concatenate((followed, *[quarters] * (QUARTERS - 1)))
        self.queue: Queue[Batch] = Queue(4)
        Thread(target=self._fill, args=(first,), daemon=True).start()

    def _fill(self, step: int) -> None:
        while step < self.recipe.steps:
            self.queue.put(self._make(step))
            step += 1

    def _make(self, step: int) -> Batch:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, step))
        side, up = recipe.patch, TEACHER_SCALE
        seen = recipe.batch // 2 if self.scenes is not None else 0
        low = np.empty((recipe.batch + 2 * seen, side, side, 3), np.uint8)
        high = np.empty((len(low), up * side, up * side, 3), np.uint8)

        def place() -> tuple[tuple[slice, slice], tuple[slice, slice]]:
            y, x = rng.integers(0, TILE + 1 - side, 2)
            return np.s_[y : y + side, x : x + side], np.s_[up * y : up * (y + side), up * x : up * (x + side)]

        for i in range(recipe.batch):
            n, (small, large) = rng.integers(len(self.pairs.low)), place()
            low[i], high[i] = self.pairs.low[n][small], self.pairs.high[n][large]
        motions = []
        for i in range(seen):
            assert self.scenes is not None
            n, (small, large) = rng.choice(self.followed), place()
            for view in (0, 1):
                row = recipe.batch + view * seen + i
                low[row], high[row] = self.scenes.low[n, view][small], self.scenes.high[n, view][large]
            down, right = self.scenes.motion[n] // self.unit
            motions.append((int(down), int(right)))
        return Batch(to_floats(low), to_floats(high), tuple(motions))

    def next(self) -> Batch:
        """The next step's pictures, on the device."""
        batch = self.queue.get()
        low, high = (part.to(self.device, non_blocking=True) for part in (batch.low, batch.high))
        return Batch(low, as_target(high, self.recipe.scale), batch.motions)


def to_floats(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 `(N, H, W, 3)` -> float32 `(N, 3, H, W)` in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)


def as_target(high: Tensor, scale: int) -> Tensor:
    """The teacher's x4 result at the student's scale."""
    return high if scale == TEACHER_SCALE else halve(high)


def _rate(recipe: Recipe, step: int) -> float:
    """Part of the full learning rate at a step: a ramp up, a plateau, a ramp down to zero."""
    falling = (recipe.steps - step) / (recipe.decay * recipe.steps)
    return min(1.0, (step + 1) / recipe.warm_up, falling)


def score(student: Student, pairs: Pairs, device: torch.device) -> Score:
    """How near a student comes to the teacher on tiles that it was not trained on."""
    decibel = made = wanted = 0.0
    with torch.inference_mode():
        for i in range(0, len(pairs.low), 4):
            x = to_floats(pairs.low[i : i + 4].copy()).to(device)
            target = as_target(to_floats(pairs.high[i : i + 4].copy()).to(device), student.scale)
            y = student(x).clamp(0, 1)
            decibel -= 10 * (y - target).square().mean((1, 2, 3)).clamp_min(1e-10).log10().sum().item()
            made += gradient_energy(y.mean(1, keepdim=True)).item()
            wanted += gradient_energy(target.mean(1, keepdim=True)).item()
    return Score(decibel / len(pairs.low), made / wanted)


def _new_student(recipe: Recipe, device: torch.device) -> Student:
    student = Student(features=recipe.features, blocks=recipe.blocks, scale=recipe.scale)
    for kernel in student.parameters():
        if kernel.ndim == 4:
            kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
    return student.to(device)


def load_student(path: Path, device: torch.device) -> tuple[Student, Recipe]:
    """The averaged student of a checkpoint.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    recipe = Recipe(**json.loads(content["recipe"]))
    student = _new_student(recipe, device)
    student.load_state_dict(content["average"])
    return student, recipe


def is_finished(path: Path) -> bool:
    """Whether a checkpoint is there and has made all its steps: a training that was stopped leaves one as well."""
    if not path.is_file():
        return False
    content = torch.load(path, map_location="cpu", weights_only=True)
    return bool(content["step"] == Recipe(**json.loads(content["recipe"])).steps)


class _Run:
    """The state of one training: weights, their average, optimisers, the step reached."""

    def __init__(self, path: Path, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.path, self.recipe, self.device = path, recipe, device
        self.student = _new_student(recipe, device)
        named = list(self.student.named_parameters())
        hidden = [value for name, value in named if _is_hidden(name)]
        others = [value for name, value in named if not _is_hidden(name)]
        self.muon = Muon(hidden, lr=recipe.muon_rate)
        self.adam = torch.optim.Adam(others, lr=recipe.adam_rate, betas=(0.9, 0.99))
        self.step = 0
        self._average()

    def _average(self) -> None:
        self.average = {key: value.detach().clone() for key, value in self.student.state_dict().items()}

    def start_from(self, donor: Path) -> None:
        """Take over a finished checkpoint of the same features as the first guess.

        Its layers between the first and the last are spread over this student's; those between them begin as the
        identity, which a ReLU leaves alone too: a deeper student starts as good as the donor (net2net, arXiv
        1511.05641). The last layer is taken over where the scale is the same.
        """
        given, recipe = load_student(donor, self.device)
        with torch.no_grad():
            self.student.first.load_state_dict(given.first.state_dict())
            every = self.recipe.blocks // recipe.blocks
            for index, layer in enumerate(self.student.middle):
                if index % every == 0 and index // every < recipe.blocks:
                    layer.load_state_dict(given.middle[index // every].state_dict())
                else:
                    for parameter in layer.parameters():
                        parameter.zero_()
            if recipe.scale == self.recipe.scale:
                self.student.last.load_state_dict(given.last.state_dict())
        self._average()

    def save(self) -> None:
        """Write the checkpoint; the one before stays until this one is whole."""
        content = {
            "recipe": json.dumps(dataclasses.asdict(self.recipe)),
            "student": self.student.state_dict(),
            "average": self.average,
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
        }
        draft = self.path.with_suffix(".part")
        torch.save(content, draft)
        draft.replace(self.path)

    def restore(self) -> None:
        """Go on from the checkpoint.

        Raises:
            ValueError: it belongs to another recipe.
        """
        content = torch.load(self.path, map_location="cpu", weights_only=True)
        if content["recipe"] != json.dumps(dataclasses.asdict(self.recipe)):
            raise ValueError(f"{self.path} was trained by another recipe: {content['recipe']}; remove it to train anew")
        self.student.load_state_dict(content["student"])
        self.average = {key: value.to(self.device) for key, value in content["average"].items()}
        self.muon.load_state_dict(content["muon"])
        self.adam.load_state_dict(content["adam"])
        self.step = content["step"]

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step on a batch; the terms of its loss."""
        recipe = self.recipe
        for optimizer, full in ((self.muon, recipe.muon_rate), (self.adam, recipe.adam_rate)):
            for group in optimizer.param_groups:
                group["lr"] = full * _rate(recipe, self.step)
            optimizer.zero_grad()
        cut = recipe.margin * recipe.scale
        inner = np.s_[..., cut:-cut, cut:-cut]
        grain = None
        if recipe.grain:
            # Of the step alone, so that a training that goes on after a stop draws the same.
            grain = torch.Generator(self.device).manual_seed((recipe.seed << 32) + self.step)
        x = batch.low.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.half):
            result = self.student(x, grain)
        result, teacher = result[inner].float(), batch.high[inner]
        target, detail = teacher, 0.0
        if self.step >= recipe.detail_from * recipe.steps:
            detail, target = recipe.detail, sharpened(target, recipe.sharpen)
        loss, terms = distance(result, target, detail)
        if batch.motions:
            (before, after), (wanted, then) = (part[-2 * len(batch.motions) :].chunk(2) for part in (result, teacher))
            side = CALM_BLOCK * recipe.scale
            beyond = excess(before, after, wanted, then, batch.motions, side=side, allowed=recipe.allowed)
            loss = loss + recipe.calm * beyond
            terms["excess"] = beyond.item()
        torch.autograd.backward(loss)
        self.muon.step()
        self.adam.step()
        self.step += 1
        # A young average follows quickly, so that the first guess does not linger.
        keep = min(recipe.averaging, self.step / (self.step + 10))
        for key, value in self.student.state_dict().items():
            self.average[key].lerp_(value, 1 - keep)
        if not math.isfinite(terms["pixels"]):
            raise ValueError(f"{self.path.stem} diverged at step {self.step}")
        return terms

    def averaged(self) -> Student:
        """The student whose weights are the running average."""
        student = _new_student(self.recipe, self.device)
        student.load_state_dict(self.average)
        return student


def _is_hidden(name: str) -> bool:
    return name.startswith("middle.") and name.endswith(".free")


def train(
    path: Path,
    recipe: Recipe,
    pairs: Pairs,
    held: Pairs,
    *,
    scenes: Scenes | None = None,
    device: torch.device,
    start_from: Path | None = None,
    log: Callable[[str], None],
) -> Student:
    """Train to the end, or go on where a checkpoint of the same recipe stopped.

    Args:
        path: the checkpoint; beside it, `.log` gets a JSON line every `LOG_STEPS` steps.
        recipe: what to train and how.
        pairs: to train on.
        held: to judge on.
        scenes: to learn calm from, where the recipe asks for it.
        device: CPU or GPU.
        start_from: a finished checkpoint to begin with, see `_Run.start_from`.
        log: told in words what happens.

    Raises:
        ValueError: the checkpoint belongs to another recipe, the recipe asks for calm and there are no scenes, or the
            loss is no longer finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _Run(path, recipe, device)
    if path.is_file():
        run.restore()
        log(f"{path.stem}: {run.step} of {recipe.steps} steps are done")
    elif start_from:
        run.start_from(start_from)
    batches = _Batches(pairs, scenes, recipe, run.step, device)
    sums: dict[str, float] = {}
    counted = 0
    saved = time.monotonic()
    while run.step < recipe.steps:
        for name, term in run.advance(batches.next()).items():
            sums[name] = sums.get(name, 0) + term
        counted += 1
        last = run.step == recipe.steps
        if run.step % LOG_STEPS == 0 or last:
            line = {"step": run.step, **{name: round(term / counted, 6) for name, term in sums.items()}}
            sums.clear()
            counted = 0
            if run.step % SCORE_STEPS == 0 or last:
                line |= {
                    f"held_{key}": value
                    for key, value in dataclasses.asdict(score(run.averaged(), held, device)).items()
                }
            with path.with_suffix(".log").open("a") as file:
                file.write(json.dumps(line) + "\n")
            log(f"{path.stem}: {line}")
        if time.monotonic() - saved > CHECKPOINT_SECONDS or last:
            run.save()
            saved = time.monotonic()
    return run.averaged()
