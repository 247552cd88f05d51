"""What upscalers are judged on: moving originals, made small and compressed as footage is.

Clips of `KEYSCALE_SHARED` (`../shared`), and pictures over which a camera pans. Everything that is made of them lies
in a work folder and is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter
from PIL import Image

from bench.metrics import Pixels
from keyscale.engine.source.colour import FULL, SWS_MATRIX, Colour, from_rgb, guess_matrix, to_rgb

__all__ = ["CLIPS", "RATE", "TRAINED_ON", "Clip", "Source", "find_clips", "find_source", "reduced"]

TRAINED_ON = ("Kodak24", "gb82", "lomiri", "skimage", "gb82_screen")
"""Folders of pictures that the shipped networks learn from, see `tools/training/material.py`. Nothing in them is
judged, and no clip is trained on."""

RATE = 30
"""Frames a second of everything that is encoded here, whatever the clip's own rate."""
BT709 = Colour(matrix=1, full_range=False, primaries=1, transfer=1)
CELL = 32
"""Sides of originals are multiples of this, so that a reduction by 2, 4, 8/3 and 16/9 has whole and even sides."""


@dataclass(frozen=True)
class Clip:
    """A moving original."""

    name: str
    kind: str
    """What it shows."""
    file: str
    """Below `KEYSCALE_SHARED`. A picture becomes a pan of one pixel down and right a frame, which is a fraction of a
    pixel once it is reduced."""
    second: float = 0.5
    """Where to begin."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of the part that is judged, in pixels as decoded: rotation tags are not followed."""
    reduce: int = 1
    """The part is first reduced by this, by area averages: what is sharp by itself."""


CLIPS = (  # VMAF v1 takes no pictures of less than 256 rows
    Clip("flower", "foliage", "clips/flower_960x540_2997_aac.mp4", box=(200, 100, 840, 452)),
    Clip("bbb", "animation", "clips/animation_bbb_1280x720_aac51.mp4", box=(220, 180, 860, 532)),
    Clip("talk", "faces", "clips/fragmented_1080x720.mp4", second=0.1, box=(264, 170, 904, 522)),
    Clip("dog", "people, dim light", "clips/people_dog_1280x720_rot90_aac.mp4", box=(600, 240, 1240, 592)),
    Clip("desktop", "screens", "clips/screencast_1920x1080_60_hevc_aacmono.mp4", 8, (200, 110, 1480, 814), 2),
    Clip("message", "text", "clips/screencast_1920x1080_60_hevc_aacmono.mp4", 13.5, (320, 130, 1600, 834), 2),
    Clip("crowd", "crowds (a pan)", "images/BSD100_x4/img_086_SRF_4_HR.png"),
    Clip("tackle", "sports (a pan)", "images/CID22_val/2190188.png"),
    Clip("bridge", "night (a pan)", "images/CID22_val/2389166.png"),
)


@dataclass(frozen=True)
class Source:
    """How the small clip is encoded."""

    name: str
    """`clean` (lossless 4:2:0), `noiseN` (the same with noise), `crfN` (x264) or `hevcN` (x265)."""
    codec: str
    options: dict[str, str]
    noise: int = 0
    """Standard deviation in codes of the noise in every pixel, anew in every frame."""


def find_source(name: str) -> Source:
    """The encoder's settings of a name.

    Raises:
        ValueError: the name is none of these forms.
    """
    if name == "clean":
        return Source(name, "libx264", {"qp": "0", "preset": "medium"})
    if name.removeprefix("noise") in {"1", "2", "3", "5", "8"}:
        return Source(name, "libx264", {"qp": "0", "preset": "medium"}, int(name.removeprefix("noise")))
    for prefix, codec in (("crf", "libx264"), ("hevc", "libx265")):
        number = name.removeprefix(prefix)
        if number != name and number.isdecimal() and int(number) <= 51:
            more = {"x265-params": "log-level=error:pools=1:frame-threads=1"} if codec == "libx265" else {}
            return Source(name, codec, {"crf": number, "preset": "medium", **more})
    raise ValueError(f"{name!r} is no source; there are clean, noiseN (1 to 8), crfN and hevcN (up to 51)")


def find_clips(names: Sequence[str]) -> list[Clip]:
    """The clips of these names, all if there are none.

    Raises:
        ValueError: there is no such clip.
    """
    known = {clip.name: clip for clip in CLIPS}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no clip {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(CLIPS)


def _averages(length: int, count: int) -> npt.NDArray[np.float32]:
    """Weights `(count, length)` of the mean over each of `count` equal parts of a line of `length` pixels."""
    edges = np.arange(count + 1) * length / count
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * count / length, dtype=np.float32)


def reduced(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """To a width and height by exact area averages, also where the factor is no whole number."""
    across, down = _averages(pixels.shape[1], size[0]), _averages(pixels.shape[0], size[1])
    small = np.tensordot(down, pixels.astype(np.float32), axes=(1, 0))
    small = np.tensordot(across, small, axes=(1, 1)).transpose(1, 0, 2)
    return np.ascontiguousarray((small + 0.5).astype(np.uint8))


def small_size(pixels: Pixels, ratio: float) -> tuple[int, int]:
    """Width and height of an original once it is reduced; even, and the nearest to the ratio."""
    return (2 * round(pixels.shape[1] / ratio / 2), 2 * round(pixels.shape[0] / ratio / 2))


def _pixels(frame: av.VideoFrame, colour: Colour) -> Pixels:
    # swscale's defaults darken textures of 4:2:0 by more than a code.
    return to_rgb(frame, colour, deep=False, reformatter=VideoReformatter()).astype(np.uint8, copy=False)


def originals(shared: Path, clip: Clip, frames: int, *, whole: bool = False) -> list[Pixels]:
    """RGB frames of a clip, cut to multiples of `CELL`.

    Args:
        shared: `KEYSCALE_SHARED`.
        clip: one of `CLIPS`.
        frames: how many; fewer where the clip ends.
        whole: the whole picture instead of the part that is judged otherwise.
    """
    path = shared / clip.file
    if path.suffix == ".png":
        with Image.open(path) as image:
            picture = np.asarray(image.convert("RGB"))
        height, width = (side - frames for side in picture.shape[:2])
        found = [picture[step : step + height, step : step + width] for step in range(frames)]
    else:
        found = []
        with av.open(str(path)) as container:
            container.seek(int(max(0.0, clip.second - 0.5) * av.time_base))
            for frame in container.decode(video=0):
                if frame.time is not None and frame.time >= clip.second:
                    matrix = frame.colorspace if frame.colorspace in SWS_MATRIX else guess_matrix(frame.height)
                    found.append(_pixels(frame, Colour(matrix=matrix, full_range=frame.color_range == FULL)))
                if len(found) == frames:
                    break
    if clip.box and not whole:
        left, top, right, bottom = clip.box
        found = [frame[top:bottom, left:right] for frame in found]
    if clip.reduce > 1:
        height, width = (side // clip.reduce for side in found[0].shape[:2])
        cut = (slice(height * clip.reduce), slice(width * clip.reduce))
        found = [reduced(frame[cut], (width, height)) for frame in found]
    height, width = (side // CELL * CELL for side in found[0].shape[:2])
    return [np.ascontiguousarray(frame[:height, :width], dtype=np.uint8) for frame in found]


def write(path: Path, frames: Sequence[Pixels], source: Source) -> Path:
    """Encode RGB frames at `RATE`: 4:2:0, BT.709, limited range. The file appears whole or not at all."""
    height, width = frames[0].shape[:2]
    unfinished = path.with_name(f"{path.stem}.part{path.suffix}")
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(source.codec, rate=RATE)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        context.options, context.thread_count = dict(source.options), 1
        for index, pixels in enumerate(frames):
            frame = from_rgb(pixels, BT709, "yuv420p", reformatter=VideoReformatter())
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    unfinished.replace(path)
    return path


def read(path: Path) -> list[Pixels]:
    """All frames of a BT.709 video, as RGB."""
    with av.open(str(path)) as container:
        return [_pixels(frame, BT709) for frame in container.decode(video=0)]


@dataclass(frozen=True)
class Store:
    """Originals, references and small clips in a work folder."""

    folder: Path
    shared: Path
    frames: int
    whole: bool = False

    def _place(self, clip: Clip) -> Path:
        place = self.folder / f"{clip.name}-{self.frames}{'-whole' if self.whole else ''}"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def originals(self, clip: Clip) -> list[Pixels]:
        """The frames of a clip."""
        path = self._place(clip) / "original.npy"
        if not path.is_file():
            found = originals(self.shared, clip, self.frames, whole=self.whole)
            unfinished = path.with_suffix(".part.npy")
            np.save(unfinished, np.stack(found))
            unfinished.replace(path)
        return list(np.load(path))

    def reference(self, clip: Clip) -> Path:
        """The original as a video that VMAF reads: x264 at CRF 1, which no eye tells from it."""
        path = self._place(clip) / "original.mp4"
        return path if path.is_file() else write(path, self.originals(clip), find_source("crf1"))

    def small(self, clip: Clip, ratio: float, source: Source) -> Path:
        """The clip reduced by a ratio and compressed."""
        path = self._place(clip) / f"x{ratio:g}-{source.name}.mp4"
        if path.is_file():
            return path
        frames = self.originals(clip)
        size = small_size(frames[0], ratio)
        chance = np.random.default_rng(0)
        pictures = [reduced(frame, size) for frame in frames]
        if source.noise:
            # The same in the three colours: noise of luma alone.
            noisy = [each + chance.normal(0, source.noise, (*each.shape[:2], 1)) for each in pictures]
            pictures = [np.clip(np.rint(each), 0, 255).astype(np.uint8) for each in noisy]
        return write(path, pictures, source)
