"""Scenes that are seen twice, under noise or in motion, with the teacher's pictures of both views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tools.distill.data import TILE, Part, Sources, cut, in_parts, keep, make_tile, open_pairs, picture_of
from tools.distill.degrade import Picture
from tools.distill.teacher import Teacher

__all__ = ["Scenes", "displaced_by", "make_scene", "open_scenes", "prepare_scenes"]

STEPS = 4
"""Motions are multiples of this part of a pixel: a pixel of the teacher's picture."""
STILL, REDUCED = 0.55, 0.2
"""Parts of all scenes: still ones under noise, and moving ones that were reduced and so are sharp. The others move at
their full size."""
NOISE = (1.0, 9.0)
"""Standard deviation in codes."""
GREY_NOISE = 0.3
"""Part of the still scenes whose noise is the same in all channels, as cameras that denoise colour leave it."""
SOFTNESS = (0.0, 1.0)
"""Standard deviation in pixels of the Gaussian that softens scenes which move at their full size."""
EVEN = 0.6
"""Part of the moving scenes that move by half pixels: those are all that an x2 student can follow exactly."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """Two views of each scene, mapped into memory.

    Attributes:
        low: uint8 `(N, 2, TILE, TILE, 3)`.
        high: uint8 `(N, 2, 4 * TILE, 4 * TILE, 3)`, the teacher's x4 results.
        motion: int `(N, 2)`: how far down and right in the scene the second view lies, in pixels of `high`, 0 to 3.
            Both are 0 for still scenes.
    """

    low: npt.NDArray[np.uint8]
    high: npt.NDArray[np.uint8]
    motion: npt.NDArray[np.int64]


def displaced_by(
    picture: Picture | npt.NDArray[np.float64], shift: npt.NDArray[np.float64], softness: float
) -> npt.NDArray[np.float64]:
    """A picture `(H, W, 3)` softened by a Gaussian and moved up and left by parts of a pixel, by its Fourier transform.

    What leaves on one side comes back on the other.
    """
    down, across = (np.fft.fftfreq(side)[:, None] for side in picture.shape[:2])
    across = across.T
    gain = np.exp(2j * np.pi * (down * shift[0] + across * shift[1]))
    gain *= np.exp(-2 * (np.pi * softness) ** 2 * (down**2 + across**2))
    spectrum = np.fft.fft2(picture.astype(np.float64), axes=(0, 1))
    moved: npt.NDArray[np.float64] = np.real(np.fft.ifft2(spectrum * gain[..., None], axes=(0, 1)))
    return moved


def make_scene(sources: Sources, seed: int, index: int) -> tuple[Picture, npt.NDArray[np.int64]]:
    """Scene number `index` of a seed's endless series: views `(2, TILE, TILE, 3)` uint8, and the motion `(2,)`."""
    rng = np.random.default_rng((seed, index))
    kind, still = rng.random(), np.zeros(2, np.int64)
    if kind < STILL:
        # Half of them have what footage suffers, the others are as clear as their source is.
        if rng.random() < 0.5:
            # Of a series of its own, whose numbers are not those that were drawn here already.
            tile = make_tile(sources, int(rng.integers(2**32)), index)
        else:
            tile = cut(rng, picture_of(rng, sources, TILE), TILE)
        grey = rng.random() < GREY_NOISE
        noise = rng.normal(0, rng.uniform(*NOISE), (2, TILE, TILE, 1 if grey else 3))
        return _rounded(tile + noise), still
    even = rng.random() < EVEN
    motion = still
    while not motion.any():
        motion = rng.integers(0, 2, 2) * 2 if even else rng.integers(0, STEPS, 2)
    if kind < STILL + REDUCED:
        side = STEPS * TILE
        large = cut(rng, picture_of(rng, sources, side), side)
        moved = np.roll(large, (-motion[0], -motion[1]), (0, 1))
        views = [Image.fromarray(view).resize((TILE, TILE), Image.Resampling.BICUBIC) for view in (large, moved)]
        return np.stack([np.asarray(view) for view in views]), motion
    tile, softness = cut(rng, picture_of(rng, sources, TILE), TILE), rng.uniform(*SOFTNESS)
    places = (still / STEPS, motion / STEPS)
    return _rounded(np.stack([displaced_by(tile, place, softness) for place in places])), motion


def _rounded(views: npt.NDArray[np.float64]) -> Picture:
    return np.clip(np.round(views), 0, 255).astype(np.uint8)


def _make_scenes(part: Part) -> tuple[Picture, npt.NDArray[np.int64]]:
    sources, seed, indices = part
    views, motions = zip(*(make_scene(sources, seed, index) for index in indices), strict=True)
    return np.stack(views), np.stack(motions)


def open_scenes(folder: Path) -> Scenes:
    """The scenes that `prepare_scenes` left in a folder.

    Raises:
        FileNotFoundError: it did not finish there.
    """
    views = open_pairs(folder)
    shape = len(views.low) // 2, 2
    return Scenes(
        views.low.reshape(*shape, *views.low.shape[1:]),
        views.high.reshape(*shape, *views.high.shape[1:]),
        np.load(folder / "motion.npy"),
    )


def prepare_scenes(
    folder: Path,
    sources: Sources,
    teacher: Teacher,
    *,
    count: int,
    seed: int,
    log: Callable[[str], None],
    workers: int | None = None,
) -> None:
    """Have `count` scenes and the teacher's results in a folder, see `data.keep`."""

    def fill(low: Picture) -> None:
        motion = np.empty((count, 2), np.int64)
        for indices, (views, motions) in in_parts(_make_scenes, sources, seed=seed, count=count, workers=workers):
            low[2 * indices.start : 2 * indices.stop] = views.reshape(-1, TILE, TILE, 3)
            motion[indices.start : indices.stop] = motions
            if indices.stop % 640 == 0 or indices.stop == count:
                log(f"{folder}: {indices.stop} of {count} scenes")
        np.save(folder / "motion.npy", motion)

    note: dict[str, object] = {"scenes": count, "seed": seed, "sources": sources.names}
    keep(folder, note, teacher, count=2 * count, fill=fill, log=log)
