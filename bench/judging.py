"""Every candidate on every picture: one row of measures for each candidate and set, and one over all sets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bench import flicker, metrics
from bench.candidates import Candidate, halved
from bench.metrics import Floats, Pixels
from bench.sets import SCALE, Sample

__all__ = ["ALL", "Row", "flicker_measures", "judge_set", "over_all_sets", "speed_measures"]

ALL = "all sets"

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    candidate: str
    scale: int
    set_name: str
    pictures: int
    values: Values
    """By the keys of `bench.tables.COLUMNS`; None where a measure does not apply."""


@dataclass(frozen=True, eq=False)
class _Scores:
    """What one candidate did on one picture. Arrays and energies are pooled over a set before they are compared."""

    means: dict[str, float]
    """Measures that are averaged over the pictures which have them."""
    phases: Floats = field(repr=False)
    """`metrics.phase_energies`."""
    pattern: Floats = field(repr=False)
    """`metrics.phase_means` of the difference to the teacher."""
    gradient: float


def judge_set(set_name: str, samples: Iterable[Sample], candidates: Sequence[Candidate], *, threads: int) -> list[Row]:
    """The rows of one set, in the order of the candidates.

    Args:
        set_name: as it appears in the table.
        samples: its pictures.
        candidates: with the teacher among them at each scale.
        threads: pictures that are measured at once; networks run one after the other.
    """
    scores: list[list[_Scores]] = [[] for _ in candidates]
    with ThreadPoolExecutor(threads) as pool:
        for sample in samples:
            teacher = next(c for c in candidates if c.is_teacher and c.scale == SCALE).run(sample.low)
            references = {SCALE: teacher, SCALE // 2: halved(teacher)}
            truths = {} if sample.truth is None else {SCALE: sample.truth, SCALE // 2: halved(sample.truth)}
            outputs = [references[c.scale] if c.is_teacher else c.run(sample.low) for c in candidates]
            by_name = {c.name: output for c, output in zip(candidates, outputs, strict=True)}
            floats = [by_name.get(c.unquantised) if c.unquantised else None for c in candidates]
            done = pool.map(
                lambda c, output, own, low=sample.low, truths=truths, references=references: _score(
                    output, references[c.scale], truths.get(c.scale), low, c.scale, own, is_teacher=c.is_teacher
                ),
                candidates,
                outputs,
                floats,
            )
            for found, one in zip(scores, done, strict=True):
                found.append(one)
    teachers = {c.scale: pictures for c, pictures in zip(candidates, scores, strict=True) if c.is_teacher}
    return [
        Row(c.name, c.scale, set_name, len(pictures), _pooled(pictures, teachers[c.scale]))
        for c, pictures in zip(candidates, scores, strict=True)
    ]


def _score(
    output: Pixels,
    reference: Pixels,
    truth: Pixels | None,
    low: Pixels,
    scale: int,
    unquantised: Pixels | None,
    *,
    is_teacher: bool,
) -> _Scores:
    plane, goal = metrics.luma(output), metrics.luma(reference)
    difference = output.astype(np.float32) - reference
    means = {"overshoot": metrics.overshoot(plane, metrics.luma(low), scale)}
    means |= {f"shift_{name}": float(difference[..., c].mean(dtype=np.float64)) for c, name in enumerate("rgb")}
    if not is_teacher:
        means |= {"teacher_psnr": metrics.psnr(output, reference), "teacher_ssim": metrics.ssim(plane, goal)}
    if unquantised is not None:
        means["own_psnr"] = metrics.psnr(output, unquantised)
    if truth is not None:
        original, made = (metrics.luma(metrics.cropped(of, scale)) for of in (truth, output))
        means |= {"truth_psnr": metrics.psnr(original, made), "truth_ssim": metrics.ssim(original, made)}
        score = metrics.ssimulacra2(truth, output)
        if score is not None:
            means["truth_ssimulacra2"] = score
    return _Scores(
        means=means,
        phases=metrics.phase_energies(plane, scale),
        pattern=metrics.phase_means(plane - goal, scale),
        gradient=metrics.gradient_energy(plane),
    )


def _pooled(pictures: Sequence[_Scores], teacher: Sequence[_Scores]) -> Values:
    """One candidate's measures over a set."""
    values: dict[str, float | None] = {}
    for key in dict.fromkeys(key for picture in pictures for key in picture.means):
        values[key] = statistics.fmean(picture.means[key] for picture in pictures if key in picture.means)
    own, other = (sum(picture.gradient for picture in of) for of in (pictures, teacher))
    values["sharpness"] = own / other if other else None
    grids = [metrics.grid_ratio(np.sum([picture.phases for picture in of], axis=0)) for of in (pictures, teacher)]
    values["grid"] = grids[0] / grids[1]
    # A pattern that is the same in all pictures stays; what the pictures' contents leave by chance averages out.
    values["pattern"] = float(np.mean([picture.pattern for picture in pictures], axis=0).std())
    return values


def over_all_sets(rows: Sequence[Row], more: Mapping[str, Mapping[tuple[str, int], float | None]]) -> list[Row]:
    """A row for each candidate: measures averaged over the sets that have them, each set counting alike.

    Args:
        rows: of all sets.
        more: measures of the candidate itself, by key and then by its name and scale.
    """
    found = []
    for candidate, scale in dict.fromkeys((row.candidate, row.scale) for row in rows):
        own = [row for row in rows if (row.candidate, row.scale) == (candidate, scale)]
        values: dict[str, float | None] = {}
        for key in dict.fromkeys(key for row in own for key in row.values):
            numbers = [value for row in own if (value := row.values.get(key)) is not None]
            values[key] = statistics.fmean(numbers) if numbers else None
        values |= {key: of[candidate, scale] for key, of in more.items() if (candidate, scale) in of}
        found.append(Row(candidate, scale, ALL, sum(row.pictures for row in own), values))
    return found


def flicker_measures(
    candidates: Sequence[Candidate], stills: Sequence[Pixels], photos: Sequence[Pixels], frames: Sequence[Pixels]
) -> dict[str, dict[tuple[str, int], float | None]]:
    """Energies of `bench.flicker`, but for pans of whole pixels relative to the teacher's.

    Args:
        candidates: with the teacher among them at each scale.
        stills: inputs that noise is added to.
        photos: originals that are panned over; the middle of the first ones, as many as `stills`, gets noise at full
            size.
        frames: of footage, whose middle gets noise too.
    """
    windows = [flicker.centre(picture) for picture in (*photos[: len(stills)], *frames)]
    measures: dict[str, Callable[[Candidate], float | None]] = {
        "noise_2": lambda c: flicker.noise_energy(c.run, stills, 2.0),
        "noise_5": lambda c: flicker.noise_energy(c.run, stills, 5.0),
        "full_1": lambda c: flicker.noise_energy(c.run, windows, 1.0),
        "full_2": lambda c: flicker.noise_energy(c.run, windows, 2.0),
        "full_5": lambda c: flicker.noise_energy(c.run, windows, 5.0),
        "full_8": lambda c: flicker.noise_energy(c.run, windows, 8.0),
        "grey_5": lambda c: flicker.noise_energy(c.run, windows, 5.0, grey=True),
    }
    for key, cut, motion in (
        ("pan_1", flicker.pan_windows, (SCALE, SCALE)),
        ("pan_half", flicker.pan_windows, (SCALE // 2, SCALE // 2)),
        ("pan_across", flicker.pan_windows, (0, SCALE // 2)),
        ("slide_half", flicker.slide_windows, (0, SCALE // 2)),
        ("slide_quarter", flicker.slide_windows, (0, SCALE // 4)),
    ):
        measures[key] = partial(_pan_energy, [cut(photo, motion) for photo in photos], motion)
    found: dict[str, dict[tuple[str, int], float | None]] = {}
    for key, measure in measures.items():
        energies = {(c.name, c.scale): measure(c) for c in candidates}
        teachers = {c.scale: energies[c.name, c.scale] for c in candidates if c.is_teacher}
        found[key] = {
            (name, scale): energy if key == "pan_1" else _part(energy, teachers[scale])
            for (name, scale), energy in energies.items()
        }
    return found


def _pan_energy(pans: Sequence[Sequence[Pixels]], motion: tuple[int, int], candidate: Candidate) -> float | None:
    if any(step * candidate.scale % SCALE for step in motion):
        return None  # by less than a pixel of its output
    return flicker.pan_energy(candidate.run, pans, motion)


def _part(energy: float | None, whole: float | None) -> float | None:
    return energy / whole if energy is not None and whole else None


def speed_measures(
    candidates: Sequence[Candidate], picture: Pixels, rounds: int
) -> tuple[dict[str, dict[tuple[str, int], float | None]], dict[str, list[float]]]:
    """Median milliseconds for one picture, uint8 to uint8, in turns, so that other load meets all alike.

    Args:
        candidates: with the teacher at `SCALE` among them.
        picture: the input.
        rounds: turns; one before them is not counted.

    Returns:
        `ms` and `speed` (the median over the turns of the teacher's seconds by the candidate's), and all seconds.
    """
    seconds: list[list[float]] = [[] for _ in candidates]
    for turn in range(rounds + 1):
        for taken, candidate in zip(seconds, candidates, strict=True):
            began = time.perf_counter()
            (candidate.timed or candidate.run)(picture)
            if turn:
                taken.append(time.perf_counter() - began)
    teacher = next(taken for c, taken in zip(candidates, seconds, strict=True) if c.is_teacher and c.scale == SCALE)
    measures: dict[str, dict[tuple[str, int], float | None]] = {"ms": {}, "speed": {}}
    for c, taken in zip(candidates, seconds, strict=True):
        measures["ms"][c.name, c.scale] = 1000 * statistics.median(taken)
        measures["speed"][c.name, c.scale] = statistics.median(a / b for a, b in zip(teacher, taken, strict=True))
    return measures, {f"{c.name} x{c.scale}": taken for c, taken in zip(candidates, seconds, strict=True)}
