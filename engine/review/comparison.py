"""Two videos at the same moments: a source as its camera sees it and what was made of it, or two results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import numpy as np

from keyscale.engine.choices import Fit, Reference, Until
from keyscale.engine.job import Compute, Encoding, Job, ModelChoice, Target, Trim, default_output
from keyscale.engine.plan.plan import LANCZOS, Plan
from keyscale.engine.review.camera_track import moments, track_of
from keyscale.engine.review.measures import Pixels, psnr, sharpness
from keyscale.engine.review.pictures import seen, source_pixels
from keyscale.engine.runners.prepare import Look, prepare_plan
from keyscale.engine.source.probe import probe
from keyscale.engine.workspace.fingerprint import read_stamp

__all__ = ["Compared", "Pair", "compared", "frames_of", "pair_of", "summary"]

APART = 2
"""Frames by which both may differ in length without a word: rounding at either end."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Both videos as plans that give the same number of pictures of one size: that of the second one."""

    before: Plan
    after: Plan
    notes: tuple[str, ...]

    @property
    def frames(self) -> int:
        """How many pictures both have."""
        return min(self.before.frames, self.after.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self.after.job.target.width, self.after.job.target.height

    @property
    def rate(self) -> Fraction:
        """Pictures a second."""
        return self.after.rate

    @property
    def names(self) -> tuple[str, str]:
        """What both are called."""
        return Path(self.before.info.path).name, Path(self.after.info.path).name


@dataclass(frozen=True, eq=False)
class Compared:
    """Both pictures of a moment, `(H, W, 3)`, and how they differ."""

    frame: int
    before: Pixels
    after: Pixels
    sharper: float
    """Sharpness of the second one as a multiple of the first one's."""
    psnr: float | None
    """dB of the one that isn't the reference; None where neither is."""


def pair_of(job: Job, after: str, look: Look = probe) -> Pair:
    """What is compared.

    Args:
        job: its source, camera, trim and fit are of the first video; size and rate are taken from the second.
        after: the second video.
        look: what probes a source.

    Raises:
        KeyscaleError: a video or the camera cannot be read, or they do not go together.
    """
    result = look(after, tolerate_damage=True, sound=False)
    size = (max(2, result.width - result.width % 2), max(2, result.height - result.height % 2))
    first = replace(
        job,
        output=default_output(job.source),
        target=Target(width=size[0], height=size[1], rate=result.rate, fit=job.target.fit),
        encoding=Encoding(audio=job.encoding.audio),
        model=ModelChoice(name=LANCZOS),
        compute=Compute(),
    )
    second = replace(
        first,
        source=after,
        keyframes=None,
        output=default_output(after),
        target=replace(first.target, fit=Fit.STRETCH),
        trim=Trim(),
        encoding=Encoding(audio=False),
        until=Until.VIDEO,
        keep_going_on_decode_errors=True,
    )
    plans = prepare_plan(first, look=look), prepare_plan(second, look=lambda *_, **__: result)
    notes = []
    if read_stamp(Path(job.source)) is not None and read_stamp(Path(after)) is None:
        notes.append(
            f"{Path(job.source).name} was made by keyscale, {Path(after).name} was not: if one was made of the other, "
            "name the source first and the result second"
        )
    if abs(plans[0].frames - plans[1].frames) > APART:
        seconds = [f"{float(plan.duration):.3f} s" for plan in plans]
        notes.append(
            f"the first gives {seconds[0]} and the second lasts {seconds[1]}: what both have is compared. They show "
            "the same only if camera, trim and speed are those that the second was made with"
        )
    return Pair(*plans, notes=tuple(notes))


def frames_of(pair: Pair, most: int) -> list[int]:
    """Frames at which to compare: the camera's moments, and others evenly between them where there is room."""
    track = track_of(pair.before)
    found = {moment.frame for moment in moments(pair.before, track, most) if moment.frame < pair.frames}
    for frame in np.linspace(0, pair.frames - 1, most + 2)[1:-1].round().astype(int).tolist():
        if len(found) < min(most, pair.frames):
            found.add(frame)
    return sorted(found)


def compared(pair: Pair, frames: Sequence[int], reference: Reference = Reference.NONE) -> Iterator[Compared]:
    """Both pictures at each of `frames` (ascending), measured.

    Raises:
        KeyscaleError: a frame cannot be decoded.
    """
    sides = (source_pixels(plan, frames) for plan in (pair.before, pair.after))
    for (frame, first), (_, second) in zip(*sides, strict=True):
        before, after = (
            np.asarray(seen(plan, frame, pixels, pair.size))
            for plan, pixels in ((pair.before, first), (pair.after, second))
        )
        yield Compared(
            frame=frame,
            before=before,
            after=after,
            sharper=sharpness(after) / max(sharpness(before), 1e-9),
            psnr=None if reference is Reference.NONE else psnr(after, before),
        )


def summary(found: Sequence[tuple[float, float | None]]) -> str:
    """Sharpness and PSNR of the moments, their means, in words."""
    words = f"the second is {fmean(sharper for sharper, _ in found):.2f} times as sharp"
    levels = [level for _, level in found if level is not None]
    return words + (f", PSNR {fmean(levels):.2f} dB" if levels else "") + f" (mean of {len(found)} moments)"
