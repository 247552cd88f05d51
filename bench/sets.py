"""Pictures to judge upscalers by: stills with their originals, frames of real footage, and both after x264.

None of them is trained on: `tools/distill` learns from Kodak24, gb82, gb82_screen and the clips flower, animation_bbb
and nasa. Left out for that reason too is another cut of Big Buck Bunny (ts_h264_854x480).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from bench.metrics import Pixels
from keyscale.engine.probe import Orientation, probe
from keyscale.engine.reader import SourceFrame, read_frames

__all__ = ["CRF", "FOOTAGE", "SCALE", "STILLS", "Footage", "PictureSet", "Sample", "encoded", "find_sets", "reduced"]

SCALE = 4
"""How much smaller the inputs are than their originals."""
CRF = 32
"""Of the coded sets: visibly damaged, as what is shared through messengers."""
RUN_UP = 7
"""Frames of a clip that are coded before the wanted one, which is then predicted from them as most frames are."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One input."""

    name: str
    low: Pixels
    """`(H, W, 3)`."""
    truth: Pixels | None = None
    """What it was reduced from, `(SCALE * H, SCALE * W, 3)`, where that is known."""


@dataclass(frozen=True)
class PictureSet:
    """A name, and where the samples come from."""

    name: str
    load: Callable[[int | None], Iterator[Sample]]
    """Given how many samples are wanted at most (None: all)."""


@dataclass(frozen=True)
class Footage:
    """A clip, cut where it is large."""

    name: str
    file: str
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom in displayed pixels."""
    upright: bool = True
    """Apply the file's rotation; False where the picture stands upright only without it."""


FOOTAGE = (
    Footage("sports", "sports_basketball_426x240_2997.mp4"),
    Footage("phone", "phone_vfr_270x480_aac.mp4"),
    Footage("people", "people_dog_1280x720_rot90_aac.mp4", (560, 120, 1040, 390), upright=False),
    Footage("zoo", "odd_161x121_vp9.webm"),
    Footage("talk", "bt601_640x428_aacmono.mov", (120, 60, 600, 330)),
    Footage("keys", "rot180_568x320.mov", (40, 20, 520, 290)),
)
"""Clips that a camera made; in the order in which a small limit takes them."""
FRAMES = 3
"""Of each clip, spread over it."""

STILLS = {"CID22": "CID22_val", "BSD100": "BSD100_x4", "Set5": "Set5_x4", "Set14": "Set14_x4"}
"""Names and folders of stills."""


def find_sets(shared: Path) -> dict[str, PictureSet]:
    """All sets by name, each followed by its coded twin.

    Raises:
        FileNotFoundError: a folder or clip is not there; its message names it.
    """
    plain: list[PictureSet] = []
    for name, folder in STILLS.items():
        where = shared / "images" / folder
        if not where.is_dir():
            raise FileNotFoundError(where)
        plain.append(PictureSet(name, partial(_stills, where)))
    for footage in FOOTAGE:
        if not (shared / "clips" / footage.file).is_file():
            raise FileNotFoundError(shared / "clips" / footage.file)
    plain.append(PictureSet("footage", partial(_footage, shared / "clips", coded=False)))
    found: dict[str, PictureSet] = {}
    for one in plain:
        found[one.name] = one
        name = f"{one.name} crf{CRF}"
        if one.name == "footage":
            found[name] = PictureSet(name, partial(_footage, shared / "clips", coded=True))
        else:
            found[name] = PictureSet(name, partial(_coded_stills, one))
    return found


def reduced(pixels: Pixels) -> Pixels:
    """To 1 / `SCALE` by Pillow's antialiased bicubic; a surplus on the right and below is cut off first."""
    height, width = (side // SCALE for side in pixels.shape[:2])
    image = Image.fromarray(pixels).crop((0, 0, width * SCALE, height * SCALE))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _read(path: Path) -> Pixels:
    # Set14's third picture is grey.
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` of so many places, evenly over all of them."""
    if limit is None or limit >= count:
        return list(range(count))
    return [round((index + 0.5) * count / limit - 0.5) for index in range(limit)]


def _stills(folder: Path, limit: int | None) -> Iterator[Sample]:
    originals = sorted(folder.glob("*_HR.png"))
    paired = bool(originals)
    originals = originals or sorted(folder.glob("*.png"))
    for index in _spread(len(originals), limit):
        path = originals[index]
        truth = _read(path)
        low = _read(path.with_name(path.name.replace("_HR.", "_LR."))) if paired else reduced(truth)
        yield Sample(path.stem, low, truth[: SCALE * low.shape[0], : SCALE * low.shape[1]])


def _coded_stills(plain: PictureSet, limit: int | None) -> Iterator[Sample]:
    """Each as a sequence of one frame, that is, intra-coded: repeats of it would only add bits to the first."""
    for sample in plain.load(limit):
        yield replace(sample, low=encoded([sample.low], CRF))


def _footage(folder: Path, limit: int | None, *, coded: bool) -> Iterator[Sample]:
    """The first frame of every clip, then the second of every clip, and so on."""
    places = [(clip, turn) for turn in range(FRAMES) for clip in FOOTAGE][:limit]
    for clip, turn in places:
        frames = _frames(folder, clip, turn)
        yield Sample(f"{clip.name}-{turn}", encoded(frames, CRF) if coded else frames[-1])


def _frames(folder: Path, clip: Footage, turn: int) -> list[Pixels]:
    """The wanted frame, after up to `RUN_UP` frames that precede it."""
    info = probe(folder / clip.file)
    if not clip.upright:
        info = replace(info, orientation=Orientation())
    last = round((turn + 0.5) * len(info.pts) / FRAMES)
    wanted = [int(pts) for pts in info.pts[max(0, last - RUN_UP) : last + 1]]
    left, top, right, bottom = clip.box or (0, 0, None, None)
    return [
        np.ascontiguousarray(frame.pixels[top:bottom, left:right], dtype=np.uint8)
        for frame in read_frames(info, wanted, deep=False, keep_going=False, should_stop=lambda: False)
        if isinstance(frame, SourceFrame)
    ]


def encoded(frames: Sequence[Pixels], crf: int) -> Pixels:
    """The last of a sequence of frames after x264 at a constant rate factor: 4:2:0, BT.709 in limited range.

    Odd sides are made even by repeating the last row and column, which are cut off again.
    """
    height, width = frames[0].shape[:2]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(30), Fraction(1, 30)
    encoder.thread_count = 1
    # With macroblock trees this libx264 gives other packets from run to run (docs/design.md, "The pipeline").
    encoder.options = {"crf": str(crf), "x264-params": "mbtree=0"}
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    packets = []
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.pad(pixels, padding, mode="edge"), format="rgb24")
        coded = frame.reformat(format="yuv420p", src_colorspace="ITU709", dst_colorspace="ITU709")
        coded.pts = index
        packets += encoder.encode(coded)
    packets += encoder.encode(None)
    decoded = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    last = max(decoded, key=lambda frame: frame.pts or 0)
    rgb = last.reformat(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709").to_ndarray()
    return np.ascontiguousarray(rgb[:height, :width], dtype=np.uint8)
