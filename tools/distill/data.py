"""Training pairs: tiles of degraded pictures, and what the teacher makes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from tools.distill.degrade import Picture, degrade, shrink
from tools.distill.teacher import Teacher

__all__ = [
    "CLIPS",
    "PHOTOS",
    "TILE",
    "Pairs",
    "Part",
    "Sources",
    "cut",
    "find_sources",
    "in_parts",
    "keep",
    "make_tile",
    "make_tiles",
    "open_pairs",
    "picture_of",
    "prepare",
]

TILE = 128
"""Side of a training tile in low-resolution pixels: the teacher's receptive field, 34 each way, fits inside."""

PHOTOS = ("Kodak24", "gb82", "gb82_screen")
"""Folders of photographs that may be used for training: unrestricted use, CC0, CC0."""

CLIPS = (
    "flower_960x540_2997_aac.mp4",
    "animation_bbb_1280x720_aac51.mp4",
    "animation_bbb_800x640_sar64-45.mp4",
    "multi_2video_2audio_2subs_nasa.mp4",
)
"""Clips that may be used for training: CC0, CC-BY-3.0 (Blender Foundation), CC-BY-3.0, public domain (NASA)."""

CLIP_SHARE = 0.22
"""Of all tiles; there are fewer scenes in the clips than in the photographs."""
SCREEN_SHARE = 0.06
"""Of all tiles: pictures of screens."""
FRAMES_A_CLIP = 48
PART = 32
"""Tiles or scenes that a process makes at a time."""


@dataclass(frozen=True)
class Sources:
    """Where pictures come from; in a fixed order, as seeds refer to places in it."""

    photos: tuple[Path, ...]
    screens: tuple[Path, ...]
    clips: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """Of all files, for the notes beside what is made from them."""
        return [path.name for path in (*self.photos, *self.screens, *self.clips)]


Part = tuple[Sources, int, range]
"""Sources, the seed of a series, and indices in it."""
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Tiles and targets on disk, mapped into memory.

    Attributes:
        low: uint8 `(N, TILE, TILE, 3)`.
        high: uint8 `(N, 4 * TILE, 4 * TILE, 3)`, the teacher's x4 result.
    """

    low: npt.NDArray[np.uint8]
    high: npt.NDArray[np.uint8]


def find_sources(images: Path, clips: Path) -> Sources:
    """The material that may be trained on, of the folders named in `PHOTOS` and `CLIPS`.

    Raises:
        FileNotFoundError: a folder or clip of the list is absent.
    """
    photos: list[Path] = []
    screens: list[Path] = []
    for name in PHOTOS:
        found = sorted(path for path in (images / name).iterdir() if path.suffix.lower() in {".png", ".jpg"})
        (screens if "screen" in name else photos).extend(found)
    files = tuple(clips / name for name in CLIPS)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(file)
    return Sources(tuple(photos), tuple(screens), files)


@lru_cache(maxsize=48)
def _photo(path: Path) -> Picture:
    return np.asarray(Image.open(path).convert("RGB"))


@lru_cache(maxsize=8)
def _frames(path: Path) -> list[Picture]:
    """Frames spread over a clip; decoded whole, as clips of this size are."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES_A_CLIP, len(frames))).round().astype(int)
    return [frames[i].to_ndarray(format="rgb24") for i in chosen]


def make_tile(sources: Sources, seed: int, index: int) -> Picture:
    """Tile number `index` of a seed's endless series: RGB uint8 `(TILE, TILE, 3)`."""
    rng = np.random.default_rng((seed, index))
    kind = rng.random()
    if kind < CLIP_SHARE:
        frames = _frames(sources.clips[rng.integers(len(sources.clips))])
        picture, gentle, strongest = frames[rng.integers(len(frames))], True, 3.0
    elif kind < CLIP_SHARE + SCREEN_SHARE:
        picture = _photo(sources.screens[rng.integers(len(sources.screens))])
        side = min(*picture.shape[:2], 1200)
        picture, gentle, strongest = cut(rng, picture, side), False, 4.0
    else:
        picture, gentle, strongest = _photo(sources.photos[rng.integers(len(sources.photos))]), False, 4.5
    tiny = rng.random() < 0.5
    picture = shrink(rng, picture, TILE, strongest=strongest if tiny else min(strongest, 2.2))
    # Some context for the codec and the filters, which the tile then loses again.
    picture = cut(rng, picture, TILE + 32)
    return cut(rng, degrade(rng, picture, gentle=gentle), TILE)


def picture_of(rng: np.random.Generator, sources: Sources, side: int) -> Picture:
    """A photograph, or a frame of a clip in `CLIP_SHARE` of all cases, as it is; at least `side` pixels each way."""
    while True:
        if rng.random() < CLIP_SHARE:
            frames = _frames(sources.clips[rng.integers(len(sources.clips))])
            picture = frames[rng.integers(len(frames))]
        else:
            picture = _photo(sources.photos[rng.integers(len(sources.photos))])
        if min(picture.shape[:2]) >= side:
            return picture


def cut(rng: np.random.Generator, picture: Picture, side: int) -> Picture:
    """A part of a picture, `side` pixels each way where it has so many."""
    height, width = picture.shape[:2]
    top, left = int(rng.integers(max(1, height - side + 1))), int(rng.integers(max(1, width - side + 1)))
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def make_tiles(sources: Sources, *, seed: int, count: int) -> Picture:
    """The first `count` tiles of a series: RGB uint8 `(count, TILE, TILE, 3)`."""
    return _make_tiles((sources, seed, range(count)))


def _make_tiles(part: Part) -> Picture:
    sources, seed, indices = part
    return np.stack([make_tile(sources, seed, index) for index in indices])


def open_pairs(folder: Path) -> Pairs:
    """The pairs that `prepare` left in a folder.

    Raises:
        FileNotFoundError: it did not finish there.
    """
    if not (folder / "data.json").is_file():
        raise FileNotFoundError(f"{folder / 'data.json'}: prepare the data first")
    return Pairs(
        np.load(folder / "low.npy", mmap_mode="r"),
        np.load(folder / "high.npy", mmap_mode="r"),
    )


def in_parts(
    make: Callable[[Part], Made], sources: Sources, *, seed: int, count: int, workers: int | None
) -> Iterator[tuple[range, Made]]:
    """The first `count` of a series, made in several processes: some indices at a time, in order, and what they gave.

    Args:
        make: a function of a module, given sources, seed and indices.
        sources: what it cuts from.
        seed: of the series.
        count: of the series.
        workers: processes; as many as there are cores if None.
    """
    parts = [(sources, seed, range(start, min(start + PART, count))) for start in range(0, count, PART)]
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for (_, _, indices), made in zip(parts, pool.map(make, parts), strict=True):
            yield indices, made


def keep(
    folder: Path,
    note: dict[str, object],
    teacher: Teacher,
    *,
    count: int,
    fill: Callable[[Picture], None],
    log: Callable[[str], None],
) -> None:
    """Have pictures and the teacher's results in a folder, and in `data.json` what they were made from.

    Made anew unless that note says the same already.

    Args:
        folder: gets `low.npy`, uint8 `(count, TILE, TILE, 3)`, and `high.npy`, the results.
        note: all that `fill` depends on.
        teacher: makes the results.
        count: of pictures.
        fill: writes them into the array that it is given, and may put more files into the folder.
        log: told in words what happens.
    """
    note = {**note, "tile": TILE, **teacher.note}
    mark = folder / "data.json"
    if mark.is_file() and json.loads(mark.read_text()) == note:
        log(f"{folder}: {count} pictures are there")
        return
    mark.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    low = np.lib.format.open_memmap(folder / "low.npy", "w+", np.uint8, (count, TILE, TILE, 3))
    fill(low)
    side = teacher.scale * TILE
    high = np.lib.format.open_memmap(folder / "high.npy", "w+", np.uint8, (count, side, side, 3))
    for start in range(0, count, teacher.batch):
        high[start : start + teacher.batch] = teacher(low[start : start + teacher.batch])
        if start // teacher.batch % 100 == 0 or start + teacher.batch >= count:
            log(f"{folder}: {min(start + teacher.batch, count)} of {count} results")
    mark.write_text(json.dumps(note, indent=1))


def prepare(
    folder: Path,
    sources: Sources,
    teacher: Teacher,
    *,
    count: int,
    seed: int,
    log: Callable[[str], None],
    workers: int | None = None,
) -> None:
    """Have `count` tiles and the teacher's results in a folder, see `keep`."""

    def fill(low: Picture) -> None:
        for indices, tiles in in_parts(_make_tiles, sources, seed=seed, count=count, workers=workers):
            low[indices.start : indices.stop] = tiles
            if indices.stop % 640 == 0 or indices.stop == count:
                log(f"{folder}: {indices.stop} of {count} tiles")

    keep(folder, {"tiles": count, "seed": seed, "sources": sources.names}, teacher, count=count, fill=fill, log=log)
