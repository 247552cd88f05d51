"""Noise that flickers, taken out of decoded pictures before a network sees it: a gated mean with the neighbours.

Each sample becomes the mean of itself and of those at the same place in up to `REACH` pictures before and after it,
each counted only where it agrees with it: the two samples, and the sums around them, differ by no more than noise
does. Nothing is counted across a cut, a flash or a fade, or of a picture that has moved as a whole.

A result depends on the pictures within `READ_AROUND` source frames and on nothing else, so that a chunk is the same
whichever were made before it. A picture that is repeated exactly counts once, and its repeats come out equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.geometry import Window
from keyscale.engine.source.planes import CHROMA_REACH, LAYOUTS, Layout, plane_samples
from keyscale.engine.source.probe import Orientation

__all__ = ["READ_AROUND", "STEADY_FORMATS", "Moment", "Steady", "steadied"]

Samples = npt.NDArray[np.signedinteger[Any]]

UPRIGHT = Orientation()

REACH = 3
"""Pictures on each side: seven in all leave a seventh of the change from frame to frame that noise makes."""

HELD = 4
"""Equal frames in a row that are a still picture, which is left as it is. Rates that are converted repeat a frame up to
three times (24 shown at 60, 10 at 30)."""

READ_AROUND = REACH * HELD - REACH
"""Source frames on each side of one on which its result may depend: two equal ones, twice three, and one more."""

STEADY_FORMATS = frozenset(LAYOUTS)
"""Pixel formats whose pictures can be made steady: planes of Y'CbCr, or grey."""

BOX = 5
"""Side of the square whose sum has to agree too, in samples: it tells soft edges and slow changes from noise."""
EDGE = BOX // 2
INNER = np.s_[EDGE:-EDGE, EDGE:-EDGE]

TILE = 8
"""Side of the blocks in which noise and motion are measured."""
MOST_TILES = 512
"""Blocks that are measured in a picture, evenly spread over all of it."""

SAMPLE_LIMIT = 3.0
"""Standard deviations of the difference of two noisy samples that count as agreement: 99.7 % of noise."""
BOX_LIMIT = 2.5
"""The same for the sums: 98.8 %."""
TILE_LIMIT = 3.0
"""The same for the mean of a tile."""
SPREAD_LIMIT = 1.4
"""Standard deviation of the changes in a tile that counts as agreement, as a multiple of that of noise: noise may be
stronger here than where it was measured."""

STILL_SHARE = 0.5
"""Tiles that have to agree for a picture to count: fewer do after a cut and while the camera moves."""
STILL_CORRELATION = 0.3
"""Of the changes to the picture before with those to the one after, in the median tile. Where noise is all that
changes it is 1/2, since both contain the noise of the picture between; where a camera moves evenly it is -1."""
MOST_DRIFT = 0.5
"""Codes of 8 bits by which a picture may be brighter or darker as a whole: more is a fade, a flash or a lamp."""

QUIET_QUARTER = 0.25
"""Noise is measured in the quarter of the tiles that change least, and where texture is least."""
QUARTER_IS_LOW = 1.07, 1.18
"""Standard deviation of white noise divided by what is read in the quietest quarter of tiles of 64 samples: of changes,
1 / (1 - 0.674 / sqrt(2 * 63)) and the smaller of two, and of second differences, which depend on each other (drawn from
100,000 tiles of noise)."""

BAND = 1 << 17
"""Samples that are averaged at once, so that they stay in the processor's cache."""

MOST_NOISE = 12.0
"""Codes of 8 bits that are taken for noise at most: what changes more is content."""

LEAST_NOISE, FULL_NOISE = 0.25, 0.75
"""Codes of 8 bits of noise: below the first `auto` leaves a picture alone, from the second on it does all it can."""


@dataclass(frozen=True, eq=False)
class Steady:
    """What is asked for."""

    strength: float | None
    """Share of the mean in the result, 0 to 1; None is all of it where there is noise to speak of."""
    part_of: Callable[[int], Window]
    """The decoded pixels that are needed of a picture, by its pts."""
    size: tuple[int, int]
    """Width and height of the pictures that these are parts of; one of another size is made steady as a whole."""
    orientation: Orientation = UPRIGHT
    """That of these pictures; likewise."""


@dataclass(frozen=True, eq=False)
class Moment:
    """A source frame: its number, its time and its picture."""

    index: int
    pts: int
    picture: av.VideoFrame | None
    """None where it cannot be decoded."""
    orientation: Orientation = UPRIGHT


class _Shot:
    """A picture, and the frames in a row that show it."""

    def __init__(self, moment: Moment, *, after_gap: bool) -> None:
        self.moments = [moment]
        """Those that were not given yet."""
        self.last = moment.index
        self.count = 1
        self.after_gap = after_gap
        """Whether the source frame before it was not asked for."""
        self.picture = moment.picture
        self.layout = LAYOUTS.get(moment.picture.format.name) if moment.picture is not None else None
        self.planes: list[Samples] = []
        """Y', Cb and Cr, each with its edges repeated by `EDGE`."""
        if self.picture is None or self.layout is None:
            return
        for plane in _apart(self.picture, self.layout):
            padded = np.empty((plane.shape[0] + 2 * EDGE, plane.shape[1] + 2 * EDGE), np.int16)
            padded[INNER] = plane
            padded[:EDGE], padded[-EDGE:] = padded[EDGE], padded[-EDGE - 1]
            padded[:, :EDGE], padded[:, -EDGE:] = padded[:, EDGE, None], padded[:, -EDGE - 1, None]
            self.planes.append(padded)
        self.tiles = _tiles(self.planes[0][INNER])
        self.means = self.tiles.mean(axis=(1, 2), dtype=np.float32)
        self._sums: dict[int, Samples] = {}
        self._spreads: dict[int, npt.NDArray[np.float32]] = {}
        """By the last frame of the other shot."""

    @property
    def is_held(self) -> bool:
        """Whether it is a still picture."""
        return self.count >= HELD

    def sums(self, number: int) -> Samples:
        """Sums of a plane over the squares of `BOX` around its samples."""
        if number not in self._sums:
            assert self.layout is not None
            plane = self.planes[number]
            if self.layout.bits > 10:
                plane = plane.astype(np.int32)
            across = plane[:, :-4] + plane[:, 1:-3]
            across += plane[:, 2:-2]
            across += plane[:, 3:-1]
            across += plane[:, 4:]
            both = across[:-4] + across[1:-3]
            both += across[2:-2]
            both += across[3:-1]
            both += across[4:]
            self._sums[number] = both
        return self._sums[number]

    def spread(self, other: _Shot) -> npt.NDArray[np.float32]:
        """Standard deviations of the changes to another picture, in each tile."""
        if self.last > other.last:
            return other.spread(self)
        if other.last not in self._spreads:
            changes = (other.tiles - self.tiles).reshape(len(self.tiles), -1).astype(np.float32)
            changes -= changes.mean(axis=1, keepdims=True)
            self._spreads[other.last] = np.sqrt(np.einsum("nx,nx->n", changes, changes) / changes.shape[1])
        return self._spreads[other.last]

    def is_like(self, other: _Shot) -> bool:
        """Whether samples of the two can be compared."""
        if self.picture is None or other.picture is None or self.layout is None or self.layout is not other.layout:
            return False
        tags = [(each.colorspace, each.color_range) for each in (self.picture, other.picture)]
        return tags[0] == tags[1] and self.planes[0].shape == other.planes[0].shape

    def equals(self, other: _Shot) -> bool:
        """Whether the two show the same."""
        # Pictures that differ nearly always do so in the middle.
        return self.is_like(other) and all(
            np.array_equal(mine[len(mine) // 2], theirs[len(theirs) // 2]) and np.array_equal(mine, theirs)
            for mine, theirs in zip(self.planes, other.planes, strict=True)
        )


def steadied(
    moments: Iterable[Moment], wanted: Collection[int], steady: Steady, should_stop: Callable[[], bool]
) -> Iterator[Moment]:
    """The wanted moments, in order, their pictures made steady; these are changed in place where nobody else has them.

    Args:
        moments: ascending; all source frames within `READ_AROUND` of each wanted one.
        wanted: numbers of source frames.
        steady: how.
        should_stop: says whether `moments` ended too early; what still lacks neighbours is dropped then.
    """
    shots: list[_Shot] = []
    done = 0
    for moment in moments:
        shot = _Shot(moment, after_gap=bool(shots) and shots[-1].last != moment.index - 1)
        if shots and not shot.after_gap and shots[-1].equals(shot):
            same = shots[-1]
            same.count += 1
            same.last = moment.index
            if moment.index in wanted:
                same.moments.append(moment)
            if not same.is_held:
                continue
            # A still picture may last for minutes: its frames are not kept.
            done, ready = min(done, len(shots) - 1), len(shots)
        else:
            shots.append(shot)
            if moment.index not in wanted:
                shot.moments.clear()
            ready = len(shots) - REACH
            if shot.after_gap or shot.picture is None:
                ready = len(shots) - 1
        for number in range(done, ready):
            yield from _given(shots, number, steady)
        done = max(done, ready)
        # Those that the next one looks back at are kept, and the last one, which may go on.
        spare = min(max(0, done - REACH), len(shots) - 1)
        del shots[:spare]
        done -= spare
    if not should_stop():
        for number in range(done, len(shots)):
            yield from _given(shots, number, steady)


def _given(shots: list[_Shot], number: int, steady: Steady) -> Iterator[Moment]:
    """The wanted frames of a shot, made steady where it is not held."""
    shot = shots[number]
    moments = shot.moments
    shot.moments = []
    picture = shot.picture
    if moments and picture is not None and shot.layout is not None and not shot.is_held:
        part = Window(0, 0, picture.width, picture.height)
        is_usual = {each.orientation for each in moments} == {steady.orientation}
        if is_usual and (picture.width, picture.height) == steady.size:
            first, *others = (steady.part_of(each.pts) for each in moments)
            part = reduce(Window.union, others, first)
        _calm(picture, shot, _side(shots, number, -1), _side(shots, number, 1), part, steady.strength)
        # The shot's own memory holds the same samples for all of its frames.
        moments = [replace(each, picture=picture) for each in moments]
    yield from moments


def _side(shots: list[_Shot], number: int, step: int) -> list[_Shot]:
    """The neighbours on one side, from the nearest on, up to where pictures can no longer be compared."""
    found: list[_Shot] = []
    centre = shots[number]
    while len(found) < REACH and 0 <= number + step < len(shots):
        later = shots[max(number, number + step)]
        number += step
        if later.after_gap or not centre.is_like(shots[number]):
            break
        found.append(shots[number])
        if shots[number].is_held:
            break
    return found


def _noise(shot: _Shot, neighbours: Sequence[_Shot]) -> float:
    """Standard deviation of a picture's noise in its own codes; 0 where none can be told from texture and motion.

    That is the least of three: from the changes to the picture before and to the one after, in the tiles that change
    least, and from the second differences within the tiles that have least texture (Immerkaer, Fast Noise Variance
    Estimation, 1996). Tiles without any change or texture count for nothing (captions, borders, copied blocks), nor do
    those that hold the darkest or the brightest code of all: white and black cut noise off.
    """
    lowest, highest = shot.tiles.min(axis=(1, 2)), shot.tiles.max(axis=(1, 2))
    within = (lowest > lowest.min(initial=0x7FFF)) & (highest < highest.max(initial=0))
    tiles = shot.tiles[within]
    twice = tiles[:, :-2] - 2 * tiles[:, 1:-1] + tiles[:, 2:]
    second = np.abs(twice[:, :, :-2] - 2 * twice[:, :, 1:-1] + twice[:, :, 2:])
    least = _quiet(second.mean(axis=(1, 2), dtype=np.float32)) * math.sqrt(math.pi / 2) / 6 * QUARTER_IS_LOW[1]
    for other in neighbours:
        least = min(least, _quiet(shot.spread(other)[within]) / math.sqrt(2) * QUARTER_IS_LOW[0])
    return least


def _quiet(values: npt.NDArray[np.float32]) -> float:
    """The quartile of those that are not 0; 0 where less than a twentieth of all are not."""
    some = values[values > 0]
    return float(np.quantile(some, QUIET_QUARTER)) if len(some) and len(some) * 20 >= len(values) else 0.0


def _tiles(plane: Samples) -> Samples:
    """`(N, TILE, TILE)`, evenly spread, some `MOST_TILES` at most."""
    down, across = plane.shape[0] // TILE, plane.shape[1] // TILE
    apart = max(1, math.ceil((down * across / MOST_TILES) ** 0.5))
    cells = plane[: down * TILE, : across * TILE].reshape(down, TILE, across, TILE)[::apart, :, ::apart]
    return cells.transpose(0, 2, 1, 3).reshape(-1, TILE, TILE)


def _is_moving(before: _Shot, centre: _Shot, after: _Shot) -> bool:
    """Whether the camera moves, by more than noise hides."""
    one, two = before.tiles - centre.tiles, after.tiles - centre.tiles
    energy = np.sqrt(_products(one, one) * _products(two, two))
    some = energy > 0
    return bool(some.any()) and float(np.median(_products(one, two)[some] / energy[some])) < STILL_CORRELATION


def _products(one: Samples, two: Samples) -> npt.NDArray[np.float32]:
    """Of each tile."""
    return np.asarray(np.einsum("nyx,nyx->n", one, two, dtype=np.float32, casting="unsafe"))


def _counted(centre: _Shot, side: Sequence[_Shot], noise: float, unit: float) -> Iterator[_Shot]:
    """Those neighbours of one side that show the same scene by a camera that stands still, in the same light."""
    spread = 2**0.5 * noise
    for shot in side:
        changes = shot.means - centre.means
        agrees = np.abs(changes) <= TILE_LIMIT * spread / TILE + unit / 4
        agrees &= shot.spread(centre) <= SPREAD_LIMIT * spread + unit / 4
        if abs(float(np.median(changes))) > MOST_DRIFT * unit or float(agrees.mean()) < STILL_SHARE:
            return
        yield shot


def _calm(
    picture: av.VideoFrame,
    shot: _Shot,
    before: list[_Shot],
    after: list[_Shot],
    part: Window,
    strength: float | None,
) -> None:
    """Write the gated mean into a part of the picture of a shot."""
    layout = shot.layout
    assert layout is not None
    unit = 2.0 ** (layout.bits - 8)
    nearest = [side[0] for side in (before, after) if side]
    noise = _noise(shot, nearest) if nearest else 0.0
    if strength is None:
        strength = min(1.0, max(0.0, (noise / unit - LEAST_NOISE) / (FULL_NOISE - LEAST_NOISE)))
    if noise == 0 or strength == 0:
        return
    noise = min(noise, MOST_NOISE * unit)
    before, after = (list(_counted(shot, side, noise, unit)) for side in (before, after))
    # At the first and the last picture of a scene the next two tell whether the camera stands.
    three = [before[0], shot, after[0]] if before and after else [shot, *before[:2], *after[:2]]
    if len(three) < 3 or _is_moving(*three):
        return
    picture.make_writable()
    limits = int(SAMPLE_LIMIT * 2**0.5 * noise), int(BOX_LIMIT * 2**0.5 * noise * BOX)
    for number, out in enumerate(_apart(picture, layout)):
        y0, y1, x0, x1 = part.y0, part.y1, part.x0, part.x1
        if number:
            # As many chroma samples more as the filter that enlarges them reads.
            y0, y1 = (y0 >> layout.down) - CHROMA_REACH, -(-y1 >> layout.down) + CHROMA_REACH
            x0, x1 = (x0 >> layout.across) - CHROMA_REACH, -(-x1 >> layout.across) + CHROMA_REACH
        x0, x1, y1 = max(0, x0), min(out.shape[1], x1), min(out.shape[0], y1)
        rows = max(1, BAND // (x1 - x0))
        for top in range(max(0, y0), y1, rows):
            region = np.s_[top : min(y1, top + rows), x0:x1]
            out[region] = _mean(shot, [*before, *after], number, region, limits, np.float32(strength))


def _mean(
    shot: _Shot,
    neighbours: Sequence[_Shot],
    number: int,
    region: tuple[slice, slice],
    limits: tuple[int, int],
    strength: np.float32,
) -> Samples:
    """The gated mean of a region of one plane."""
    centre, square = shot.planes[number][INNER][region], shot.sums(number)[region]
    total, count = np.zeros_like(centre), np.ones_like(centre)
    for other in neighbours:
        change = other.planes[number][INNER][region] - centre
        agrees = np.abs(change) <= limits[0]
        agrees &= np.abs(other.sums(number)[region] - square) <= limits[1]
        ones = agrees.astype(np.int16)
        count += ones
        change *= ones
        total += change
    mean = total.astype(np.float32)
    mean *= strength
    mean /= count
    return centre + np.rint(mean, out=mean).astype(np.int16)


def _apart(picture: av.VideoFrame, layout: Layout) -> list[npt.NDArray[Any]]:
    """Y', Cb and Cr of a picture, in its own memory."""
    planes = [plane_samples(plane, layout, number) for number, plane in enumerate(picture.planes)]
    return [planes[0], planes[1][..., 0], planes[1][..., 1]] if layout.interleaved else list(planes)
