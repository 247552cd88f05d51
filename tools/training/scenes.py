"""Training scenes: two successive frames as footage has them, small and damaged, and the originals of both."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from tools.training import damage
from tools.training.damage import Picture, add_noise, grade, through_codec, write_text
from tools.training.material import Material, open_picture

__all__ = ["RATIOS", "Scenes", "make_scene", "open_scenes", "prepare_scenes", "side_of"]

RATIOS = {
    2: {Fraction(2): 0.5, Fraction(16, 9): 0.22, Fraction(3, 2): 0.14, Fraction(4, 3): 0.14},
    4: {Fraction(4): 0.5, Fraction(16, 5): 0.12, Fraction(8, 3): 0.24, Fraction(9, 4): 0.14},
}
"""By a network's scale: how many times larger than the source results are to be, and each ratio's part of all scenes.
At other ratios than its own a network's result is sampled down to the target by the camera, in training as in jobs."""

FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
"""What reduces an original to the source: a sensor's cells average areas, and so do many scalers; bicubic is the
commonest default of the others."""
LONGEST_SEQUENCE = 6
SCREEN_SHARE = 0.12
PART = 32
"""Scenes that a process makes at a time."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes of one ratio, mapped into memory.

    Attributes:
        low: uint8 `(N, 2, L, L, 3)`: two successive frames.
        high: uint8 `(N, 2, H, H, 3)`: their originals, `H = ratio * L`.
    """

    low: npt.NDArray[np.uint8]
    high: npt.NDArray[np.uint8]


def side_of(scale: int, ratio: Fraction) -> int:
    """Side of a scene's small frames: about 192 or 256 pixels of the original, a multiple that both grids share."""
    unit = math.lcm(ratio.denominator, 2)
    return {2: 96, 4: 72}[scale] // unit * unit


def make_scene(material: Material, *, scale: int, ratio: Fraction, seed: int, index: int) -> tuple[Picture, Picture]:
    """Scene number `index` of a seed's endless series: `low` and `high` of `Scenes`, without `N`."""
    rng = np.random.default_rng((seed, scale, ratio.numerator, ratio.denominator, index))
    small = side_of(scale, ratio)
    large = int(small * ratio)
    count = int(rng.integers(3, LONGEST_SEQUENCE + 1))
    # Pixels of the original a frame; a third of the scenes stand still, as most of a tripod's picture does.
    speed = np.zeros(2) if rng.random() < 0.33 else rng.normal(0, 4, 2)
    if rng.random() < 0.6:
        speed = speed.round()
    zoom = float(rng.normal(0, 0.004)) if rng.random() < 0.25 else 0.0
    room = math.ceil(np.abs(speed).max() * (count - 1) + abs(zoom) * (count - 1) * large) + 4
    need = large + 2 * room
    chosen = material.screens if rng.random() < SCREEN_SHARE else material.photos
    picture = open_picture(chosen[rng.integers(len(chosen))])
    # Originals are soft as video is where a picture is taken as it is, and sharp to the pixel where it is reduced.
    most = min(6.0, min(picture.size) / need)
    reduction = math.exp(rng.uniform(0, math.log(max(most, 1.0))))
    side = min(need * reduction, *picture.size)
    left, top = (float(rng.uniform(0, length - side)) for length in picture.size)
    box = (left, top, left + side, top + side)
    resampling = Image.Resampling.LANCZOS if rng.random() < 0.5 else Image.Resampling.BICUBIC
    original = np.asarray(picture.resize((need, need), resampling, box=box))
    if rng.random() < 0.1:
        original = write_text(rng, original)
    if rng.random() < 0.25:
        original = grade(rng, original)
    canvas = Image.fromarray(original)
    frames = []
    for t in range(count):
        x, y = room + speed * (t - (count - 1) / 2)
        if zoom or speed.any():
            grown = 1 + zoom * (t - (count - 1) / 2)
            inset = large * (1 - grown) / 2
            placed = (grown, 0.0, x + inset, 0.0, grown, y + inset)
            exact = not zoom and float(x).is_integer() and float(y).is_integer()
            resample = Image.Resampling.NEAREST if exact else Image.Resampling.BICUBIC
            frames.append(canvas.transform((large, large), Image.Transform.AFFINE, placed, resample=resample))
        else:
            frames.append(canvas.crop((room, room, room + large, room + large)))
    filter_ = FILTERS[rng.integers(len(FILTERS))]
    softened = float(rng.uniform(0.3, 0.9)) if rng.random() < 0.12 else 0.0
    source = [frame.filter(ImageFilter.GaussianBlur(softened)) if softened else frame for frame in frames]
    source = [frame.resize((small, small), filter_) for frame in source]
    if rng.random() < 0.08:
        mask = ImageFilter.UnsharpMask(1, int(rng.integers(30, 100)), 2)
        source = [frame.filter(mask) for frame in source]
    low = [np.asarray(frame) for frame in source]
    if rng.random() < 0.3:
        low = add_noise(rng, low)
    if rng.random() > 0.12:
        h264 = rng.random() < 0.75
        low = through_codec(
            low,
            codec="libx264" if h264 else "libx265",
            crf=int(rng.integers(14, 36)) if h264 else int(rng.integers(18, 34)),
            preset=("veryfast", "fast", "medium")[rng.integers(3)] if h264 else "veryfast",
            pixel_format="yuv420p" if rng.random() < 0.9 else "yuv444p",
        )
    at = int(rng.integers(0, count - 1))
    return np.stack(low[at : at + 2]), np.stack([np.asarray(frame) for frame in frames[at : at + 2]])


def _make_part(part: tuple[Material, int, Fraction, int, range]) -> tuple[Picture, Picture]:
    material, scale, ratio, seed, indices = part
    low, high = zip(
        *(make_scene(material, scale=scale, ratio=ratio, seed=seed, index=index) for index in indices), strict=True
    )
    return np.stack(low), np.stack(high)


def _folder(folder: Path, ratio: Fraction) -> Path:
    return folder / f"{ratio.numerator}-{ratio.denominator}"


def prepare_scenes(
    folder: Path,
    material: Material,
    *,
    scale: int,
    count: int,
    seed: int,
    log: Callable[[str], None],
    workers: int | None = None,
) -> None:
    """Have about `count` scenes for networks of a scale in a folder, by ratio, and a note of what they were made from.

    Made anew unless that note says the same already.

    Args:
        folder: gets a folder for each ratio with `low.npy` and `high.npy`, see `Scenes`.
        material: what scenes are cut from.
        scale: of the network, 2 or 4.
        count: of scenes of all ratios.
        seed: of the series.
        log: told in words what happens.
        workers: processes; as many as there are cores if None.
    """
    counts = {ratio: max(1, round(share * count)) for ratio, share in RATIOS[scale].items()}
    note = {
        "seed": seed,
        "scenes": {str(ratio): [wanted, side_of(scale, ratio)] for ratio, wanted in counts.items()},
        "material": material.names,
        "made by": sha256(b"".join(Path(module).read_bytes() for module in (__file__, damage.__file__))).hexdigest(),
    }
    mark = folder / "scenes.json"
    if mark.is_file() and json.loads(mark.read_text()) == note:
        log(f"{folder}: scenes are there")
        return
    mark.unlink(missing_ok=True)
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for ratio, wanted in counts.items():
            place = _folder(folder, ratio)
            place.mkdir(parents=True, exist_ok=True)
            small = side_of(scale, ratio)
            large = int(small * ratio)
            low = np.lib.format.open_memmap(place / "low.npy", "w+", np.uint8, (wanted, 2, small, small, 3))
            high = np.lib.format.open_memmap(place / "high.npy", "w+", np.uint8, (wanted, 2, large, large, 3))
            ranges = [range(start, min(start + PART, wanted)) for start in range(0, wanted, PART)]
            parts = [(material, scale, ratio, seed, indices) for indices in ranges]
            for indices, (views, originals) in zip(ranges, pool.map(_make_part, parts), strict=True):
                low[indices.start : indices.stop] = views
                high[indices.start : indices.stop] = originals
            log(f"{place}: {wanted} scenes")
    mark.write_text(json.dumps(note, indent=1))


def open_scenes(folder: Path, scale: int) -> dict[Fraction, Scenes]:
    """The scenes that `prepare_scenes` left in a folder, by ratio.

    Raises:
        FileNotFoundError: it did not finish there.
    """
    if not (folder / "scenes.json").is_file():
        raise FileNotFoundError(f"{folder / 'scenes.json'}: prepare the scenes first")
    return {
        ratio: Scenes(
            np.load(_folder(folder, ratio) / "low.npy", mmap_mode="r"),
            np.load(_folder(folder, ratio) / "high.npy", mmap_mode="r"),
        )
        for ratio in RATIOS[scale]
    }
