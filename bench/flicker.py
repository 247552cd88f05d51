"""How restless an upscaler is over time: still pictures under noise, and slow pans.

An upscaler is a function from RGB uint8 `(H, W, 3)` to `(scale * H, scale * W, 3)`. Energies are mean squared
differences of luma, in codes squared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from bench.metrics import Pixels, luma
from bench.sets import SCALE, reduced

__all__ = ["FRAMES", "MARGIN", "centre", "noise_energy", "pan_energy", "pan_windows"]

Enlarge = Callable[[Pixels], Pixels]

FRAMES = 6
MARGIN = 12
"""Input pixels at each border that are not compared in a pan: what the network's zero padding and what moves into sight
do there is no flicker."""
PAN_SIDE = 96
"""Side of the window that pans, in input pixels."""
FULL_SIDE = 160
"""Side of the window of a picture at full size, in input pixels."""


def centre(picture: Pixels) -> Pixels:
    """The middle of a picture, `FULL_SIDE` pixels or less each way, not reduced.

    A frame at full size has softer edges than a picture that was reduced, and the teacher calms it more.
    """
    top, left = (max(0, (side - FULL_SIDE) // 2) for side in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + FULL_SIDE, left : left + FULL_SIDE])


def noise_energy(enlarge: Enlarge, pictures: Sequence[Pixels], sigma: float, *, seed: int = 1) -> float:
    """Energy of the difference between neighbouring frames of a still scene with a sensor's noise.

    Args:
        enlarge: the upscaler.
        pictures: inputs `(H, W, 3)`, `FRAMES` frames of each.
        sigma: of Gaussian noise, independent by frame, pixel and channel, in codes; 0 gives 0.
        seed: of the noise, which is the same for every upscaler.
    """
    rng = np.random.default_rng(seed)
    energies = []
    for picture in pictures:
        before = None
        for _ in range(FRAMES):
            noisy = picture + rng.normal(0, sigma, picture.shape)
            after = luma(enlarge(np.clip(np.round(noisy), 0, 255).astype(np.uint8)))
            if before is not None:
                energies.append(float(np.mean(np.square(after - before), dtype=np.float64)))
            before = after
    return float(np.mean(energies))


def pan_windows(photo: Pixels, step: int) -> Iterator[Pixels]:
    """`FRAMES` windows that move right and down over a photograph by `step` / `SCALE` input pixels each.

    The photograph is moved by whole pixels of its own before it is reduced, so that steps of less than an input pixel
    are exact.

    Args:
        photo: at least `SCALE * PAN_SIDE + (FRAMES - 1) * step` pixels high and wide.
        step: in pixels of the photograph.
    """
    for index in range(FRAMES):
        moved = photo[index * step :, index * step :]
        yield np.ascontiguousarray(reduced(moved)[:PAN_SIDE, :PAN_SIDE])


def pan_energy(enlarge: Enlarge, photos: Sequence[Pixels], step: int) -> float:
    """Energy of what is left of the difference between neighbouring frames of a pan once the motion is undone.

    Args:
        enlarge: the upscaler; `step * scale / SCALE` has to be whole, as the motion in its output.
        photos: as for `pan_windows`.
        step: as for `pan_windows`. A step of whole input pixels is undone exactly by every upscaler that treats all
            input pixels alike: it tells whether one does.
    """
    energies = []
    for photo in photos:
        outputs = [luma(enlarge(window)) for window in pan_windows(photo, step)]
        scale = outputs[0].shape[0] // PAN_SIDE
        motion, rest = divmod(step * scale, SCALE)
        assert not rest, "the pan moves by fractions of an output pixel"
        edge = MARGIN * scale
        inside = slice(edge, outputs[0].shape[0] - edge)
        ahead = slice(edge + motion, outputs[0].shape[0] - edge + motion)
        for before, after in pairwise(outputs):
            difference = before[ahead, ahead] - after[inside, inside]
            energies.append(float(np.mean(np.square(difference), dtype=np.float64)))
    return float(np.mean(energies))
