"""Draw details side by side: the source, Lanczos, a student in int8, and the teacher.

    python -m bench.crops [--to docs] [--student keyscale-compact-x4] [--shared DIR]

From clips that may be published; whose they are stands below each picture. Networks come from `KEYSCALE_WEIGHTS_DIR` or
the cache.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.candidates import TEACHER, Candidate, find_candidates
from bench.metrics import Pixels
from bench.sets import SCALE
from keyscale.engine.errors import KeyscaleError
from keyscale.engine.probe import probe
from keyscale.engine.reader import SourceFrame, read_frames

ROOT = Path(__file__).resolve().parents[1]

PAPER, INK, DIM = (15, 19, 30), (244, 245, 248), (160, 168, 184)
MARGIN, GAP, HEAD = 16, 10, 30


@dataclass(frozen=True)
class Scene:
    """A detail of a clip."""

    name: str
    file: str
    second: float
    shrink: int
    """The frame is first reduced by this (antialiased bicubic): small sources are what upscaling is for."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom of the detail, in pixels of the reduced frame."""
    credit: str


SCENES = (
    Scene(
        "flower",
        "flower_960x540_2997_aac.mp4",
        1.0,
        2,
        (190, 60, 330, 160),
        "Flower from mdn/interactive-examples, CC0 1.0, reduced to 480x270. One of the clips that were trained on.",
    ),
    Scene(
        "bunny",
        "animation_bbb_1280x720_aac51.mp4",
        2.4,
        3,
        (80, 0, 220, 100),
        "Big Buck Bunny, (c) Blender Foundation, peach.blender.org, CC-BY 3.0, reduced to 426x240. "
        "One of the clips that were trained on.",
    ),
)


def source(clips: Path, scene: Scene) -> Pixels:
    """The reduced frame `(H, W, 3)`."""
    info = probe(clips / scene.file)
    index = int(np.abs(info.times() - scene.second).argmin())
    (frame,) = read_frames(info, [int(info.pts[index])], deep=False, keep_going=False, should_stop=lambda: False)
    assert isinstance(frame, SourceFrame)
    pixels = np.asarray(frame.pixels, dtype=np.uint8)
    image = Image.fromarray(pixels)
    size = (image.width // scene.shrink, image.height // scene.shrink)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def panels(low: Pixels, scene: Scene, candidates: Sequence[Candidate]) -> list[tuple[str, Image.Image]]:
    """Labels and enlarged details: the source's pixels, then what each candidate makes of the whole frame."""
    box = tuple(SCALE * side for side in scene.box)
    whole = Image.fromarray(low)
    repeated = whole.resize((SCALE * whole.width, SCALE * whole.height), Image.Resampling.NEAREST)
    found = [("source, pixels repeated", repeated)]
    found += [(candidate.name, Image.fromarray(candidate.run(low))) for candidate in candidates]
    return [(label, image.crop((box[0], box[1], box[2], box[3]))) for label, image in found]


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all scenes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.crops", description="Draw details side by side.")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="folder of the pictures")
    parser.add_argument("--student", default="keyscale-compact-x4", help="name of an x4 student")
    parser.add_argument("--shared", type=Path, help="folder of the clips")
    given = parser.parse_args(arguments)
    shared = given.shared or Path(os.environ.get("KEYSCALE_SHARED") or ROOT.parent / "shared")
    try:
        found = find_candidates(only=("Lanczos", f"{given.student} int8"))
    except KeyscaleError as error:
        print(f"{error}\n{error.remedy or ''}", file=sys.stderr)
        return 2
    candidates = [c for c in found if c.scale == SCALE]
    if [c.name for c in candidates[:2]] != ["Lanczos", f"{given.student} int8"] or TEACHER not in candidates[-1].name:
        print(f"there is no x4 student named {given.student}", file=sys.stderr)
        return 2
    for scene in SCENES:
        if not (shared / "clips" / scene.file).is_file():
            print(f"{shared / 'clips' / scene.file} is not there; see --shared and KEYSCALE_SHARED", file=sys.stderr)
            return 2
        low = source(shared / "clips", scene)
        path = given.to / f"crops-{scene.name}.png"
        size = save(compose(panels(low, scene, candidates), scene.credit), path)
        print(f"{path}: {size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
