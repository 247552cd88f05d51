"""Draw details side by side, and moving: the source, Lanczos, the shipped network, its looks, and a published one.

    python -m bench.crops [--to docs] [--shared DIR]

From clips that may be published; whose they are stands below each picture. They are reduced and compressed first, as
`bench.quality` does it, and enlarged by whole jobs. Networks come from `KEYSCALE_WEIGHTS_DIR` or the cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.candidates import Candidate, enlarge
from bench.footage import Store, find_clips, find_source, read
from bench.metrics import Pixels
from bench.quality import ROOT, shared_folder
from keyscale.engine.errors import KeyscaleError
from keyscale.engine.forms import LOOKS
from keyscale.engine.job import Precision

SCALE = 4
CRF = 23
"""Of the sources."""
FRAMES = 12
REFERENCE = "realesr-general-x4v3"

PAPER, INK, DIM = (15, 19, 30), (244, 245, 248), (160, 168, 184)
MARGIN, GAP, HEAD = 16, 10, 30
LOOP_RATE = 15
"""Frames a second of loops: half speed, since restlessness is looked for."""
LOOP_QUALITY = 70
"""Of WebP: the loops show motion, the stills show pixels."""


@dataclass(frozen=True)
class Scene:
    """A detail of a clip."""

    name: str
    clip: str
    """As in `bench.footage.CLIPS`."""
    shrink: int
    """The clip is reduced by this: small sources are what upscaling is for."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom of the detail, in pixels of the reduced frame."""
    credit: str


SCENES = (
    Scene(
        "flower",
        "flower",
        2,
        (190, 60, 330, 160),
        f"Flower from mdn/interactive-examples, CC0 1.0, reduced to 480x256, x264 at CRF {CRF}. Not trained on.",
    ),
    Scene(
        "bunny",
        "bbb",
        3,
        (110, 50, 250, 150),
        f"Big Buck Bunny, (c) Blender Foundation, peach.blender.org, CC-BY 3.0, reduced to 426x234, x264 at CRF {CRF}. "
        "Not trained on.",
    ),
)


LOOK_SCENE = replace(SCENES[0], name="looks", box=(192, 96, 272, 160))

AUTO = Precision.AUTO
WAYS = (
    Candidate("Lanczos", "lanczos", AUTO),
    Candidate("keyscale", None, AUTO),
    Candidate(REFERENCE, REFERENCE, Precision.FP32),
)
LOOK_WAYS = tuple(Candidate(name, None, AUTO, settings={"look": name}) for name in LOOKS)


def enlarged(small: Path, ways: Sequence[Candidate]) -> dict[str, list[Pixels]]:
    """Frames by label: the source with its pixels repeated, then what is made of it."""
    low = read(small)
    found = {"source, pixels repeated": [np.repeat(np.repeat(frame, SCALE, 0), SCALE, 1) for frame in low]}
    height, width = found["source, pixels repeated"][0].shape[:2]
    with tempfile.TemporaryDirectory(prefix="keyscale-crops-") as folder:
        for way in ways:
            output = Path(folder) / "large.mp4"
            enlarge(small, output, (width, height), way)
            found[way.name] = read(output)
    return found


def detail(frame: Pixels, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of an enlarged frame, given in pixels of the reduced one."""
    left, top, right, bottom = (SCALE * side for side in box)
    return Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))


def compose(shown: Sequence[tuple[str, Image.Image]], credit: str) -> Image.Image:
    """Two columns of labelled panels with the credit below."""
    across, down = shown[0][1].size
    rows = -(-len(shown) // 2)
    canvas = Image.new("RGB", (2 * MARGIN + 2 * across + GAP, rows * (HEAD + down) + 36), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (label, image) in enumerate(shown):
        x, y = MARGIN + index % 2 * (across + GAP), index // 2 * (HEAD + down)
        draw.text((x, y + HEAD - 9), label, font=ImageFont.load_default(16), fill=INK, anchor="ls")
        canvas.paste(image, (x, y + HEAD))
    draw.text((MARGIN, canvas.height - 12), credit, font=ImageFont.load_default(13), fill=DIM, anchor="ls")
    return canvas


def save(image: Image.Image, path: Path) -> int:
    """Write a PNG, since a lossy file would hide what is compared; its size in bytes."""
    image.save(path, "PNG", optimize=True)
    return path.stat().st_size


def save_loop(images: Sequence[Image.Image], target: Path | BinaryIO, *, quality: int) -> None:
    """Write an animated WebP at `LOOP_RATE` that runs forwards and backwards, without a jump."""
    turning = [*images, *images[-2:0:-1]]
    turning[0].save(
        target,
        "WEBP",
        save_all=True,
        append_images=turning[1:],
        duration=round(1000 / LOOP_RATE),
        loop=0,
        quality=quality,
        method=4,
    )


def draw_still(scene: Scene, frames: Mapping[str, Sequence[Pixels]], folder: Path) -> None:
    """Write a scene's still of all panels."""
    middle = len(next(iter(frames.values()))) // 2
    shown = [(label, detail(own[middle], scene.box)) for label, own in frames.items()]
    path = folder / f"crops-{scene.name}.png"
    print(f"{path}: {save(compose(shown, scene.credit), path)} bytes")


def draw_loop(scene: Scene, frames: Mapping[str, Sequence[Pixels]], folder: Path) -> None:
    """Write a scene's loop of Lanczos beside keyscale."""
    moving = [label for label in ("Lanczos", "keyscale") if label in frames]
    pairs = zip(*(frames[label] for label in moving), strict=True)
    loop = [
        compose([(label, detail(own, scene.box)) for label, own in zip(moving, pair, strict=True)], scene.credit)
        for pair in pairs
    ]
    path = folder / f"loop-{scene.name}.webp"
    save_loop(loop, path, quality=LOOP_QUALITY)
    print(f"{path}: {path.stat().st_size} bytes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all scenes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.crops", description="Draw details side by side.")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="folder of the pictures")
    parser.add_argument("--shared", type=Path, help="folder of the material")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quality", help="folder of what is encoded once")
    given = parser.parse_args(arguments)
    store = Store(given.work, shared_folder(given.shared), FRAMES, whole=True)
    try:
        for scene in (*SCENES, LOOK_SCENE):
            (clip,) = find_clips([scene.clip])
            small = store.small(clip, scene.shrink, find_source(f"crf{CRF}"))
            frames = enlarged(small, LOOK_WAYS if scene is LOOK_SCENE else WAYS)
            draw_still(scene, frames, given.to)
            if scene is not LOOK_SCENE:
                draw_loop(scene, frames, given.to)
    except FileNotFoundError as error:
        print(f"{error.filename} is not there; see --shared and KEYSCALE_SHARED", file=sys.stderr)
        return 2
    except KeyscaleError as error:
        print(f"{error}\n{error.remedy or ''}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
