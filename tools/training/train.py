"""Training one network: batches, schedule, checkpoints, resume, log."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tools.training.losses import Weights, distance, gradient_energy, sharpened
from tools.training.network import TrainedNet
from tools.training.optimizer import Muon
from tools.training.scenes import RATIOS, Scenes

__all__ = ["Recipe", "Score", "is_finished", "load_trained", "score", "train"]

CHECKPOINT_SECONDS = 60
LOG_STEPS, SCORE_STEPS = 250, 1000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a network depends on beside the scenes; written into its checkpoint and compared on resume."""

    features: int
    blocks: int
    scale: int
    fold: int = 1
    steps: int
    batch: int = 16
    """Patches a step: half as many scenes, two frames of each."""
    patch: int = 52
    """Side of a patch in source pixels at most; the largest that fits both grids of a ratio is taken."""
    margin: int = 8
    """Source pixels at a patch's border that the loss leaves out: what lies beyond is missing there."""
    muon_rate: float = 0.004
    """For kernels. At 0.02 two thirds of the last layers' channels are dead after 400 steps."""
    adam_rate: float = 3e-4
    """For biases."""
    warm_up: int = 100
    """Steps in which the rates rise to their full value."""
    decay: float = 0.8
    """Last part of the steps, in which the rates fall to zero."""
    averaging: float = 0.998
    """Of the running average of weights that is kept as the result, a step."""
    weights: Weights = dataclasses.field(default_factory=Weights)
    sharpen: float = 0.0
    """How much sharper than the original the target is, see `losses.sharpened`."""
    grain: bool = False
    """Train with the noise that 8 bits give to activations, so that the int8 network stays near this one."""
    half: bool = False
    """Convolve in bfloat16 while training: faster where the processor has it."""
    seed: int = 0

    def to_json(self) -> str:
        """For a checkpoint; `from_json` reads it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """What `to_json` wrote."""
        fields = json.loads(text)
        return cls(**(fields | {"weights": Weights(**fields["weights"])}))


@dataclass(frozen=True)
class Score:
    """Results beside their originals on the held-out scenes, at the network's own scale."""

    psnr: float
    """Decibel over RGB, the mean of the scenes'."""
    energy: float
    """Gradient energy of brightness relative to the original's; 1 is as sharp."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from."""

    ratio: Fraction
    low: Tensor
    """`(2N, 3, S, S)` in [0, 1]: N first frames, then those that follow them."""
    high: Tensor
    """Their originals, `(2N, 3, ratio * S, ratio * S)`."""
    offset: tuple[int, int]
    """See `losses.distance`."""


class _Batches:
    """Random patches, put together in a thread of their own. Batch n depends on the seed and n alone."""

    def __init__(self, scenes: Mapping[Fraction, Scenes], recipe: Recipe, first: int) -> None:
        self.scenes, self.recipe = scenes, recipe
        self.ratios = list(scenes)
        shares = np.array([RATIOS[recipe.scale][ratio] for ratio in self.ratios])
        self.shares = shares / shares.sum()
        self.queue: Queue[Batch] = Queue(4)
        Thread(target=self._fill, args=(first,), daemon=True).start()

    def _fill(self, step: int) -> None:
        while step < self.recipe.steps:
            self.queue.put(self._make(step))
            step += 1

    def _make(self, step: int) -> Batch:
        rng = np.random.default_rng((self.recipe.seed, step))
        ratio = self.ratios[rng.choice(len(self.ratios), p=self.shares)]
        scenes = self.scenes[ratio]
        unit = math.lcm(ratio.denominator, self.recipe.fold)
        side = self.recipe.patch // unit * unit
        large = int(side * ratio)
        count = self.recipe.batch // 2
        low = np.empty((2, count, side, side, 3), np.uint8)
        high = np.empty((2, count, large, large, 3), np.uint8)
        for i in range(count):
            n = rng.integers(len(scenes.low))
            y, x = rng.integers(0, (scenes.low.shape[2] - side) // unit + 1, 2) * unit
            up, left = int(y * ratio), int(x * ratio)
            small = scenes.low[n, :, y : y + side, x : x + side]
            original = scenes.high[n, :, up : up + large, left : left + large]
            # Upside down alone: chroma lies to the left of its pixels; in a mirrored picture it would to the right.
            turned = np.s_[:, ::-1] if rng.random() < 0.5 else np.s_[:]
            low[:, i], high[:, i] = small[turned], original[turned]
        down, right = rng.integers(0, 4, 2)
        return Batch(ratio, to_floats(low), to_floats(high), (int(down), int(right)))

    def next(self, device: torch.device) -> Batch:
        """The next step's pictures, on a device."""
        batch = self.queue.get()
        low, high = (part.to(device, non_blocking=True) for part in (batch.low, batch.high))
        return dataclasses.replace(batch, low=low, high=high)


def to_floats(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 `(..., H, W, 3)` -> float32 `(N, 3, H, W)` in [0, 1], the leading dimensions as one."""
    flat = torch.from_numpy(pixels.reshape(-1, *pixels.shape[-3:]))
    return flat.permute(0, 3, 1, 2).float().div_(255)


@lru_cache(maxsize=32)
def _sampling(before: int, after: int) -> Tensor:
    """What Pillow's Lanczos filter does to a row: `(after, before)`."""
    unit = Image.fromarray(np.eye(before, dtype=np.float32))
    return torch.from_numpy(np.asarray(unit.resize((before, after), Image.Resampling.LANCZOS)).copy())


def sampled(pictures: Tensor, side: int) -> Tensor:
    """Square pictures reduced as the camera reduces them: `(N, 3, S, S)` -> `(N, 3, side, side)`."""
    if pictures.shape[-1] == side:
        return pictures
    weights = _sampling(pictures.shape[-1], side).to(pictures.device)
    return weights @ pictures @ weights.T


def _rate(recipe: Recipe, step: int) -> float:
    """Part of the full learning rate at a step: a ramp up, a plateau, a ramp down to zero."""
    falling = (recipe.steps - step) / (recipe.decay * recipe.steps)
    return min(1.0, (step + 1) / recipe.warm_up, falling)


def score(network: TrainedNet, scenes: Scenes, device: torch.device) -> Score:
    """How near a network comes to the originals of scenes that it was not trained on."""
    decibel = made = wanted = 0.0
    with torch.inference_mode():
        for low, high in zip(scenes.low[:, 0], scenes.high[:, 0], strict=True):
            original = to_floats(high[None].copy()).to(device)
            result = network(to_floats(low[None].copy()).to(device)).clamp(0, 1)
            inner = np.s_[..., 16:-16, 16:-16]
            error = (result - original)[inner].square().mean().clamp_min(1e-10)
            decibel -= 10 * error.log10().item()
            made += gradient_energy(result[inner].mean(1, keepdim=True)).item()
            wanted += gradient_energy(original[inner].mean(1, keepdim=True)).item()
    return Score(decibel / len(scenes.low), made / wanted)


def _new_network(recipe: Recipe, device: torch.device) -> TrainedNet:
    network = TrainedNet(features=recipe.features, blocks=recipe.blocks, scale=recipe.scale, fold=recipe.fold)
    for kernel in network.parameters():
        if kernel.ndim == 4:
            kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
    return network.to(device)


def load_trained(path: Path, device: torch.device) -> tuple[TrainedNet, Recipe]:
    """The averaged network of a checkpoint.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    recipe = Recipe.from_json(content["recipe"])
    network = _new_network(recipe, device)
    network.load_state_dict(content["average"])
    return network, recipe


def is_finished(path: Path) -> bool:
    """Whether a checkpoint is there and has made all its steps: a training that was stopped leaves one as well."""
    if not path.is_file():
        return False
    content = torch.load(path, map_location="cpu", weights_only=True)
    return bool(content["step"] == Recipe.from_json(content["recipe"]).steps)


class _Run:
    """The state of one training: weights, their average, optimisers, the step reached."""

    def __init__(self, path: Path, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.path, self.recipe, self.device = path, recipe, device
        self.network = _new_network(recipe, device)
        self.muon = Muon((one for one in self.network.parameters() if one.ndim == 4), lr=recipe.muon_rate)
        biases = [one for one in self.network.parameters() if one.ndim < 4]
        self.adam = torch.optim.Adam(biases, lr=recipe.adam_rate, betas=(0.9, 0.99))
        self.step = 0
        self._average()

    def _average(self) -> None:
        self.average = {key: value.detach().clone() for key, value in self.network.state_dict().items()}

    def start_from(self, donor: Path) -> None:
        """Take over the averaged weights of a finished checkpoint of the same shape."""
        given, _ = load_trained(donor, self.device)
        self.network.load_state_dict(given.state_dict())
        self._average()

    def save(self) -> None:
        """Write the checkpoint; the one before stays until this one is whole."""
        content = {
            "recipe": self.recipe.to_json(),
            "network": self.network.state_dict(),
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
        if content["recipe"] != self.recipe.to_json():
            raise ValueError(f"{self.path} was trained by another recipe: {content['recipe']}; remove it to train anew")
        self.network.load_state_dict(content["network"])
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
        grain = None
        if recipe.grain:
            # Of the step alone, so that a training that goes on after a stop draws the same.
            grain = torch.Generator(self.device).manual_seed((recipe.seed << 32) + self.step)
        x = batch.low.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.half):
            result = self.network(x, grain)
        result = sampled(result.float().contiguous(), batch.high.shape[-1])
        cut = math.ceil(recipe.margin * batch.ratio)
        inner = np.s_[..., cut:-cut, cut:-cut]
        target = sharpened(batch.high, recipe.sharpen)
        # Sampled to another size, cells have another period.
        weights = recipe.weights if batch.ratio == recipe.scale else dataclasses.replace(recipe.weights, grid=0.0)
        loss, terms = distance(result[inner], target[inner], weights, batch.offset)
        torch.autograd.backward(loss)
        self.muon.step()
        self.adam.step()
        self.step += 1
        # A young average follows quickly, so that the first guess does not linger.
        keep = min(recipe.averaging, self.step / (self.step + 10))
        for key, value in self.network.state_dict().items():
            self.average[key].lerp_(value, 1 - keep)
        if not math.isfinite(terms["pixels"]):
            raise ValueError(f"{self.path.stem} diverged at step {self.step}")
        return terms

    def averaged(self) -> TrainedNet:
        """The network whose weights are the running average."""
        network = _new_network(self.recipe, self.device)
        network.load_state_dict(self.average)
        return network


def train(
    path: Path,
    recipe: Recipe,
    scenes: Mapping[Fraction, Scenes],
    held: Mapping[Fraction, Scenes],
    *,
    device: torch.device,
    start_from: Path | None = None,
    log: Callable[[str], None],
) -> TrainedNet:
    """Train to the end, or go on where a checkpoint of the same recipe stopped.

    Args:
        path: the checkpoint; beside it, `.log` gets a JSON line every `LOG_STEPS` steps.
        recipe: what to train and how.
        scenes: to train on, by ratio.
        held: to score on, by ratio.
        device: CPU or GPU.
        start_from: a finished checkpoint to begin with, see `_Run.start_from`.
        log: told in words what happens.

    Raises:
        ValueError: the checkpoint belongs to another recipe, or the loss is no longer finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    run = _Run(path, recipe, device)
    if path.is_file():
        run.restore()
        log(f"{path.stem}: {run.step} of {recipe.steps} steps are done")
    elif start_from:
        run.start_from(start_from)
    batches = _Batches(scenes, recipe, run.step)
    sums: dict[str, float] = {}
    counted = 0
    saved = time.monotonic()
    while run.step < recipe.steps:
        for name, term in run.advance(batches.next(device)).items():
            sums[name] = sums.get(name, 0) + term
        counted += 1
        last = run.step == recipe.steps
        if run.step % LOG_STEPS == 0 or last:
            line = {"step": run.step, **{name: round(term / counted, 6) for name, term in sums.items()}}
            sums.clear()
            counted = 0
            if run.step % SCORE_STEPS == 0 or last:
                found = score(run.averaged(), held[Fraction(recipe.scale)], device)
                line |= {f"held_{key}": round(value, 4) for key, value in dataclasses.asdict(found).items()}
            with path.with_suffix(".log").open("a") as file:
                file.write(json.dumps(line) + "\n")
            log(f"{path.stem}: {line}")
        if time.monotonic() - saved > CHECKPOINT_SECONDS or last:
            run.save()
            saved = time.monotonic()
    return run.averaged()
