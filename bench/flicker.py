"""How restless an upscaler is over time: still pictures under noise, and slow pans.

An upscaler is a function from RGB uint8 `(H, W, 3)` to `(scale * H, scale * W, 3)`. Energies are mean squared
differences of luma, in codes squared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from bench.metrics import Pixels, luma
from bench.sets import SCALE, reduced

__all__ = ["FRAMES", "MARGIN", "centre", "noise_energy", "pan_energy", "pan_windows", "slide_windows"]

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


def noise_energy(
    enlarge: Enlarge, pictures: Sequence[Pixels], sigma: float, *, grey: bool = False, seed: int = 1
) -> float:
    """Energy of the difference between neighbouring frames of a still scene with a sensor's noise.

    Args:
        enlarge: the upscaler.
        pictures: inputs `(H, W, 3)`, `FRAMES` frames of each.
        sigma: of Gaussian noise, independent by frame, pixel and channel, in codes; 0 gives 0.
        grey: the same noise in all channels, as is left where a camera has taken the noise out of colours.
        seed: of the noise, which is the same for every upscaler.
    """
    rng = np.random.default_rng(seed)
    energies = []
    for picture in pictures:
        before = None
        for _ in range(FRAMES):
            noisy = picture + rng.normal(0, sigma, (*picture.shape[:2], 1 if grey else 3))
            after = luma(enlarge(np.clip(np.round(noisy), 0, 255).astype(np.uint8)))
            if before is not None:
                energies.append(float(np.mean(np.square(after - before), dtype=np.float64)))
            before = after
    return float(np.mean(energies))


def pan_windows(photo: Pixels, motion: tuple[int, int]) -> list[Pixels]:
    """`FRAMES` windows that move over a photograph, at the size to which sets reduce theirs.

    The photograph is moved by whole pixels of its own before it is reduced, so that steps of less than an input pixel
    are exact.

    Args:
        photo: at least `SCALE * PAN_SIDE` pixels high and wide, and what the pan needs.
        motion: down and right from frame to frame, in `SCALE`-ths of an input pixel.
    """
    down, right = motion
    return [
        np.ascontiguousarray(reduced(photo[index * down :, index * right :])[:PAN_SIDE, :PAN_SIDE])
        for index in range(FRAMES)
    ]


def slide_windows(photo: Pixels, motion: tuple[int, int]) -> list[Pixels]:
    """The same at the photograph's own size: moved by its Fourier transform, which is exact for what pixels can hold.

    Args:
        photo: at least `2 * PAN_SIDE` pixels high and wide; its middle is used.
        motion: as for `pan_windows`.
    """
    side = 2 * PAN_SIDE
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    spectrum = np.fft.fft2(photo[top : top + side, left : left + side].astype(np.float64), axes=(0, 1))
    turns = np.fft.fftfreq(side)
    down, right = (step / SCALE for step in motion)
    inside = slice(PAN_SIDE // 2, PAN_SIDE // 2 + PAN_SIDE)
    windows = []
    for index in range(FRAMES):
        phase = np.exp(2j * np.pi * index * (turns[:, None] * down + turns * right))
        moved = np.real(np.fft.ifft2(spectrum * phase[..., None], axes=(0, 1)))
        windows.append(np.ascontiguousarray(np.clip(np.round(moved), 0, 255).astype(np.uint8)[inside, inside]))
    return windows


def pan_energy(enlarge: Enlarge, pans: Sequence[Sequence[Pixels]], motion: tuple[int, int]) -> float:
    """Energy of what is left of the difference between neighbouring frames of a pan once the motion is undone.

    Args:
        enlarge: the upscaler; `motion * scale / SCALE` has to be whole, as the motion in its output.
        pans: frames `(PAN_SIDE, PAN_SIDE, 3)` of each.
        motion: by which all of them move, as for `pan_windows`. One of whole input pixels is undone exactly by every
            upscaler that treats all input pixels alike: it tells whether one does.
    """
    energies = []
    for windows in pans:
        outputs = [luma(enlarge(window)) for window in windows]
        scale = outputs[0].shape[0] // PAN_SIDE
        assert not any(step * scale % SCALE for step in motion), "the pan moves by fractions of an output pixel"
        down, right = (step * scale // SCALE for step in motion)
        edge, far = MARGIN * scale, outputs[0].shape[0] - MARGIN * scale
        for before, after in pairwise(outputs):
            difference = before[edge + down : far + down, edge + right : far + right] - after[edge:far, edge:far]
            energies.append(float(np.mean(np.square(difference), dtype=np.float64)))
    return float(np.mean(energies))
