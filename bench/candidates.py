"""What is judged: plain filters, published networks, and the students with and without quantisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.metrics import Pixels
from bench.sets import SCALE
from keyscale.engine.geometry import Window
from keyscale.engine.job import Precision
from keyscale.engine.models import all_models, choose_execution, find, load_model, open_model
from tools.distill.teacher import Teacher

if TYPE_CHECKING:
    from keyscale.engine.models.interface import Enlarger

__all__ = ["TEACHER", "Candidate", "enlarge", "find_candidates", "halved"]

TEACHER = "realesr-general-x4v3"
OTHERS = ("realesr-animevideov3",)
"""Published networks that are compared."""
PRECISIONS = (Precision.FP32, Precision.INT8)
"""Each student's rows: as trained, and quantised."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A row of the table."""

    name: str
    scale: int
    run: Callable[[Pixels], Pixels] = field(repr=False)
    """RGB uint8 `(H, W, 3)` -> `(scale * H, scale * W, 3)`."""
    macs: int | None = None
    """Multiply-accumulate operations per input pixel; None for filters."""
    is_teacher: bool = False
    unquantised: str | None = None
    """Of an int8 row: the name of the same network's row in fp32."""
    timed: Callable[[Pixels], Pixels] | None = field(default=None, repr=False)
    """What is timed, where `run` takes a shorter way to the same pictures."""


def enlarge(model: Enlarger, pixels: Pixels) -> Pixels:
    """Run a network on a whole picture: the one place that knows how a network is called.

    Args:
        model: of any runtime.
        pixels: RGB uint8 `(H, W, 3)`.

    Returns:
        RGB uint8 `(scale * H, scale * W, 3)`.
    """
    height, width = pixels.shape[:2]
    # Pillow's arrays are read-only, which torch warns of.
    pixels = np.require(pixels, requirements=["C", "W"])
    return np.asarray(model.enlarge(pixels, Window(0, 0, width, height)), dtype=np.uint8)


def halved(pixels: Pixels) -> Pixels:
    """To half the size by torch's antialiased bicubic filter, as `tools/distill` makes the targets of x2 students."""
    import torch
    from torch.nn import functional

    x = torch.tensor(pixels).permute(2, 0, 1)[None].float()
    size = (pixels.shape[0] // 2, pixels.shape[1] // 2)
    y = functional.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
    return np.ascontiguousarray(y[0].clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _resized(pixels: Pixels, *, scale: int, kernel: Image.Resampling) -> Pixels:
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, kernel))


def _candidate(model: Enlarger, label: str) -> Candidate:
    unquantised = f"{model.spec.name} {Precision.FP32.value}" if model.precision == Precision.INT8.value else None
    return Candidate(
        label, model.spec.scale, partial(enlarge, model), model.spec.macs_per_pixel, unquantised=unquantised
    )


def _shipped(name: str, precision: Precision, label: str) -> Candidate:
    """A network of the package, run on the CPU as keyscale runs it when asked for that precision."""
    # Where this CPU has no int8, OpenVINO computes the same quantised network some other way.
    execution = choose_execution(find(name), "cpu", precision, has_int8=True)
    return _candidate(open_model(name, execution, offline=True), label)


def _reference(name: str) -> Candidate:
    """One of Real-ESRGAN's networks: timed as keyscale runs it, in torch, but drawing its pictures through OpenVINO.

    In float32 these are the same pictures but for rounding, a code at most, and a run of the bench would mostly wait
    for them otherwise.
    """
    model = load_model(name, offline=True)
    drawn = Teacher(model, exact=True)
    return replace(_candidate(model, name), run=lambda pixels: drawn(pixels[None])[0], timed=partial(enlarge, model))


def find_candidates(checkpoints: Sequence[Path] = (), only: Sequence[str] = ()) -> list[Candidate]:
    """Everything that can be compared here, at x4 and, if there is an x2 student, at x2; the teacher last at each.

    Args:
        checkpoints: of students that are not in the registry; as trained alone, since int8 needs calibration.
        only: words of which one must be in a candidate's name; the teacher is always there.

    Raises:
        KeyscaleError: weights are absent or wrong.
    """

    def wanted(label: str) -> bool:
        return not only or any(word.lower() in label.lower() for word in only)

    networks = [_reference(name) for name in OTHERS if wanted(name)]
    for spec in all_models():
        if spec.shipped:
            labels = {precision: f"{spec.name} {precision.value}" for precision in PRECISIONS}
            networks += [_shipped(spec.name, p, label) for p, label in labels.items() if wanted(label)]
    networks += [_candidate(load_model(path), f"{path.stem} fp32") for path in checkpoints]
    teacher = _reference(TEACHER)
    found: list[Candidate] = []
    for scale in sorted({SCALE, *(network.scale for network in networks)}, reverse=True):
        for kernel in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
            label = kernel.name.capitalize()
            if wanted(label):
                found.append(Candidate(label, scale, partial(_resized, scale=scale, kernel=kernel)))
        found += [network for network in networks if network.scale == scale]
        found.append(_teacher_at(scale, teacher))
    return found


def _teacher_at(scale: int, teacher: Candidate) -> Candidate:
    """The teacher, or what x2 students learn from."""

    def scaled(enlarger: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
        return enlarger if scale == teacher.scale else lambda pixels: halved(enlarger(pixels))

    name = f"{TEACHER} (teacher)" if scale == teacher.scale else f"{TEACHER}, halved (teacher)"
    timed = scaled(teacher.timed) if teacher.timed is not None else None
    return Candidate(name, scale, scaled(teacher.run), teacher.macs, is_teacher=True, timed=timed)
