"""How an upscaled clip differs from its original.

Frames are RGB uint8 `(H, W, 3)`, planes their grey, the mean of R, G and B, in float32 `(H, W)`; clips are lists of
either. Differences are in code values, 0..255.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import subprocess
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from keyscale.engine.review.measures import PSNR_CAP, Pixels, grey

__all__ = [
    "PSNR_CAP",
    "Pixels",
    "Plane",
    "cell_periods",
    "colour_shift",
    "grey",
    "grid_energy",
    "jod",
    "psnr",
    "restlessness",
    "ringing",
    "sharpness",
    "ssimulacra2",
    "vmaf",
]

Plane = npt.NDArray[np.float32]

SSIMULACRA2_SIDE = 225
"""Least side in pixels that SSIMULACRA 2 is computed for. Its six scales end at 8 pixels; the package that is used here
gives smaller pictures fewer scales, but the weights of the first ones: another measure."""

BLOCK = 16
"""Side of the blocks that are watched for restlessness, in pixels."""
STILL_SHARE = 0.3
"""Share of the blocks of a pair of frames, those that change least in the original, which may count as standing still:
in a clip of an unsteady hand something has to, and in a pan nothing does that some motion explains better."""
REACH = 8
"""Longest motion from frame to frame that is looked for, in pixels each way."""

STRONG = 40.0
"""Codes by which neighbouring grey values differ at a strong edge."""
AROUND = 8
"""Pixels around strong edges in which ringing is looked for, and around each of those within which the original's range
is taken: as far as this, blur stays in it."""

VMAF_MODELS = {"phone": "vmaf_v1.0.16_5d0h", "neg": "vmaf_v0.6.1neg"}
"""VMAF v1 at a distance of five picture heights, as phones are watched, and VMAF without gain for enhancement."""


def psnr(a: Sequence[Pixels], b: Sequence[Pixels]) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255, of the mean squared error over all values of two clips."""
    errors = [np.square(x.astype(np.float32) - y).mean(dtype=np.float64) for x, y in zip(a, b, strict=True)]
    error = float(np.mean(errors))
    return min(PSNR_CAP, float(10 * np.log10(255**2 / error))) if error else PSNR_CAP


def colour_shift(frames: Sequence[Pixels], originals: Sequence[Pixels]) -> float:
    """Largest absolute difference of the clips' mean R, G and B, in codes."""
    means = [np.mean([frame.mean(axis=(0, 1)) for frame in clip], axis=0) for clip in (frames, originals)]
    return float(np.abs(means[0] - means[1]).max())


@lru_cache(maxsize=1)
def _ssimulacra2() -> Callable[[io.BytesIO, io.BytesIO], float] | None:
    try:
        compute: Callable[[io.BytesIO, io.BytesIO], float] = importlib.import_module("ssimulacra2").compute_ssimulacra2
    except ImportError:
        return None
    return compute


def _png(pixels: Pixels) -> io.BytesIO:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=0)
    data.seek(0)
    return data


def ssimulacra2(frames: Sequence[Pixels], originals: Sequence[Pixels]) -> float | None:
    """SSIMULACRA 2 of the package of that name: mean over the third and the middle frame; 100 for equal pictures.

    The package mirrors at two of the four borders where libjxl's own tool pads with zeros, so its scores differ from
    the tool's (by up to 2 points on photographs of 512x512); they compare among themselves.

    Returns:
        None where the package is not installed or a side is shorter than `SSIMULACRA2_SIDE`.
    """
    compute = _ssimulacra2()
    if compute is None or min(frames[0].shape[:2]) < SSIMULACRA2_SIDE:
        return None
    places = sorted({min(2, len(frames) - 1), len(frames) // 2})
    return float(np.mean([compute(_png(originals[place]), _png(frames[place])) for place in places]))


def _gradient_energy(planes: Sequence[Plane]) -> float:
    """Mean squared forward differences, down plus across, in codes squared."""
    energies = [np.square(np.diff(plane, axis=axis)).mean() for plane in planes for axis in (0, 1)]
    return float(np.sum(energies) / len(planes))


def sharpness(planes: Sequence[Plane], originals: Sequence[Plane]) -> float:
    """Root of the gradient energy, as a multiple of the original's: 1 is as sharp; noise and ringing count."""
    return float(np.sqrt(_gradient_energy(planes) / max(_gradient_energy(originals), 1e-9)))


def _line(plane: Plane, period: float) -> float:
    """Spectral amplitude across a plane at a period in pixels, as a multiple of that of its neighbours."""
    turns = int(plane.shape[1] // period)
    count = round(turns * period)
    spectrum = np.abs(np.fft.rfft(plane[:, :count] - plane[:, :count].mean(), axis=1)).mean(axis=0)
    place = min(turns, count - turns)  # what is finer than two pixels shows at its alias
    near = np.r_[max(place - 6, 1) : max(place - 1, 1), place + 2 : place + 7]
    return float(spectrum[place] / max(spectrum[near[near < len(spectrum)]].mean(), 1e-9))


def cell_periods(ratio: float) -> tuple[float, ...]:
    """Periods in output pixels at which an upscaler may draw a grid: one and two source pixels, and blocks of eight.

    One source pixel is the cell of a network's pixel shuffle, two that of a network that folds 2x2 pixels into
    channels, eight the transform blocks of codecs.
    """
    return (ratio, 2 * ratio, 8 * ratio)


def grid_energy(planes: Sequence[Plane], originals: Sequence[Plane], ratio: float) -> float:
    """How much a grid stands out, as a multiple of the original's: 1 is none.

    For each of `cell_periods` the spectrum at that period over the mean of its ten neighbours, across and down,
    mean of every sixth frame, divided by the same of the original; the largest of the three.
    """

    def lines(clip: Sequence[Plane], period: float) -> float:
        return float(np.mean([_line(way, period) for plane in clip[::6] for way in (plane, plane.T)]))

    return max(lines(planes, period) / max(lines(originals, period), 1e-9) for period in cell_periods(ratio))


def colour_steps(frames: Sequence[Pixels], originals: Sequence[Pixels], ratio: float) -> float | None:
    """How blocky colours are: differences of neighbouring pixels where a source pixel ends, by those within it.

    Of B - Y and R - Y, across and down, mean of every sixth frame: the place of a cell with the largest mean absolute
    difference over the one with the least, divided by the same of the original. A network that adds to repeated pixels
    leaves their steps in smooth colours; `grid_energy` doesn't see them, as they rise and fall with the picture.

    Returns:
        None where source pixels aren't a whole number of pixels wide.
    """
    side = round(ratio)
    if abs(ratio - side) > 1e-6 or side < 2:
        return None

    def unevenness(clip: Sequence[Pixels]) -> float:
        found = []
        for frame in clip[::6]:
            brightness = grey(frame)
            for colour in (frame[..., 2] - brightness, frame[..., 0] - brightness):
                for way in (colour, colour.T):
                    steps = np.abs(np.diff(way, axis=1))
                    places = [float(steps[:, place::side].mean()) for place in range(side)]
                    found.append(max(places) / max(min(places), 1e-9))
        return float(np.mean(found))

    return unevenness(frames) / unevenness(originals)


def _around(plane: Plane, radius: int, choose: Callable[[Plane, Plane], Plane]) -> Plane:
    """Largest or least value of the square of `2 * radius + 1` pixels around each pixel."""
    for axis in (0, 1):
        widths = [(0, 0), (0, 0)]
        widths[axis] = (radius, radius)
        padded = np.pad(plane, widths, mode="edge")
        length = plane.shape[axis]
        found = plane
        for step in range(2 * radius + 1):
            found = choose(found, padded[step : step + length] if axis == 0 else padded[:, step : step + length])
        plane = found
    return plane


def ringing(planes: Sequence[Plane], originals: Sequence[Plane]) -> float | None:
    """Halos at strong edges: codes by which a pixel leaves the range of the original around it, mean near such edges.

    Strong edges are neighbours of the original that differ by `STRONG` codes; near and around are within `AROUND`
    pixels, down and across. Every sixth frame is looked at.

    Returns:
        None where the original has no strong edge.
    """
    beyond, count = 0.0, 0
    for plane, truth in zip(planes[::6], originals[::6], strict=True):
        edges = np.zeros_like(truth)
        edges[:-1] = np.abs(np.diff(truth, axis=0)) >= STRONG
        edges[:, :-1] = np.maximum(edges[:, :-1], np.abs(np.diff(truth, axis=1)) >= STRONG)
        near = _around(edges, AROUND, np.maximum) > 0
        most, least = _around(truth, AROUND, np.maximum), _around(truth, AROUND, np.minimum)
        beyond += float((np.maximum(plane - most, 0) + np.maximum(least - plane, 0))[near].sum(dtype=np.float64))
        count += int(near.sum())
    return beyond / count if count else None


def _blocks(plane: Plane) -> Plane:
    """Means over blocks `(H // BLOCK, W // BLOCK)`."""
    height, width = (side // BLOCK for side in plane.shape)
    cells = plane[: height * BLOCK, : width * BLOCK].reshape(height, BLOCK, width, BLOCK)
    return np.asarray(cells.mean(axis=(1, 3)))


def _moved(plane: Plane, down: int, right: int) -> Plane:
    """The pixel that lies so far up and left of each one."""
    padded = np.pad(plane, REACH, mode="edge")
    top, left = REACH - down, REACH - right
    return padded[top : top + plane.shape[0], left : left + plane.shape[1]]


def _followed(plane: Plane, places: npt.NDArray[np.intp], steps: npt.NDArray[np.intp]) -> Plane:
    """Blocks `(N, BLOCK, BLOCK)` at places `(N, 2)` in blocks, each taken so far up and left as its step `(N, 2)`."""
    padded = np.pad(plane, REACH, mode="edge")
    corners = places * BLOCK + REACH - steps
    rows, columns = (corners[:, axis, None] + np.arange(BLOCK) for axis in (0, 1))
    return np.asarray(padded[rows[:, :, None], columns[:, None, :]])


class Motion:
    """What moves in an original: for each pair of frames which blocks stand still, and the motion of each of them."""

    def __init__(self, originals: Sequence[Plane]) -> None:
        self.pairs: list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]] = []
        self.steps = [(down, right) for down in range(-REACH, REACH + 1) for right in range(-REACH, REACH + 1)]
        self.steps.sort(key=lambda step: step[0] ** 2 + step[1] ** 2)  # of equal matches the shortest
        for before, after in pairwise(originals):
            change = _blocks(np.square(after - before))
            errors = np.stack([_blocks(np.square(after - _moved(before, *step))) for step in self.steps])
            way = errors.argmin(axis=0)
            self.pairs.append(((change <= np.quantile(change, STILL_SHARE)) & (way == 0), way))


def restlessness(planes: Sequence[Plane], motion: Motion) -> tuple[float | None, float | None]:
    """Root mean square change from frame to frame, in codes: where the original stands still, and elsewhere.

    Blocks of `BLOCK` pixels. Still ones are compared with the same place of the frame before, the others with the place
    that they came from in the original, to whole pixels. None where there are no such blocks.
    """
    still_energy, moving_energy, still_count, moving_count = 0.0, 0.0, 0, 0
    for (before, after), (still, way) in zip(pairwise(planes), motion.pairs, strict=True):
        change = _blocks(np.square(after - before))
        still_energy += float(change[still].sum())
        still_count += int(still.sum())
        places = np.argwhere(~still)
        steps = np.asarray(motion.steps)[way[~still]]
        here, there = _followed(after, places, np.zeros_like(places)), _followed(before, places, steps)
        moving_energy += float(np.square(here - there).mean(axis=(1, 2)).sum())
        moving_count += len(places)
    still_change = (still_energy / still_count) ** 0.5 if still_count else None
    return still_change, (moving_energy / moving_count) ** 0.5 if moving_count else None


def vmaf(video: Path, reference: Path) -> dict[str, float]:
    """Means of VMAF over the frames of a video, by the keys of `VMAF_MODELS`.

    By libvmaf in the ffmpeg that the package imageio-ffmpeg brings, of 4:2:0 frames in the order of the files.

    Raises:
        RuntimeError: ffmpeg failed; its message is in it.
    """
    import imageio_ffmpeg

    log = video.with_suffix(".vmaf.json")
    models = "|".join(f"version={version}\\:name={key}" for key, version in VMAF_MODELS.items())
    even = "setpts=N,settb=1/30,format=yuv420p"
    graph = f"[0:v]{even}[a];[1:v]{even}[b];[a][b]libvmaf=model='{models}':log_fmt=json:log_path={log.name}:n_threads=2"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error"]
    command += ["-i", str(video.resolve()), "-i", str(reference.resolve()), "-lavfi", graph, "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=video.parent)
    if done.returncode:
        raise RuntimeError(f"ffmpeg could not compute VMAF: {done.stderr.strip()[-500:]}")
    pooled = json.loads(log.read_text(encoding="utf-8"))["pooled_metrics"]
    log.unlink()
    return {key: float(pooled[key]["mean"]) for key in VMAF_MODELS}


def jod(frames: Sequence[Pixels], originals: Sequence[Pixels], rate: float) -> float | None:
    """ColorVideoVDP in just-objectionable differences on a standard phone: 10 is equal; None without that package."""
    if importlib.util.find_spec("pycvvdp") is None:
        return None
    judge: Any = importlib.import_module("pycvvdp").cvvdp(display_name="standard_phone")
    score, _ = judge.predict(np.stack(frames), np.stack(originals), dim_order="FHWC", frames_per_second=rate)
    return float(score)
