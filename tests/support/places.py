"""A source that tells each place and frame by its colours, and a camera over it, for tests of what is seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from keyscale.cli.app import run
from keyscale.engine.camera.framing import parse_framing
from keyscale.engine.plan.plan import Plan
from keyscale.engine.review.pictures import CAMERA
from keyscale.engine.runners.prepare import prepare_plan
from support.numbered import small_job

SIZE = (320, 180)
FRAMES = 50
LOW, SPAN = 90, 150
"""Codes of red at the left, and by how many it rises to the right; of green from the top to the bottom."""

STEP = 2
"""Codes of blue from frame to frame."""

Pixels = npt.NDArray[np.uint8]

PAN: dict[str, Any] = {
    "version": 1,
    "keyframes": [
        {"time": 0.0, "x": 20.0, "y": 10.0, "width": 90.0, "height": 160.0},
        {"time": 1.0, "x": 200.0, "y": 10.0, "width": 90.0, "height": 160.0, "ease": "hold"},
        {"time": 1.4, "x": 100.0, "y": 60.0, "width": 45.0, "height": 80.0},
        {"time": 1.96, "x": 110.0, "y": 60.0, "width": 45.0, "height": 80.0},
    ],
}

TURNED: dict[str, Any] = {
    "version": 1,
    "rotation": 30,
    "keyframes": [{"time": 0.0, "x": 140.0, "y": 50.0, "width": 45.0, "height": 80.0}],
}


def place(number: int, size: tuple[int, int] = SIZE) -> Pixels:
    """A picture whose red tells the column, its green the row, and its blue the number."""
    width, height = size
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = np.rint(LOW + SPAN * np.arange(width) / width)
    picture[..., 1] = np.rint(LOW + SPAN * np.arange(height) / height)[:, None]
    picture[..., 2] = LOW + STEP * number
    return picture


def camera(folder: Path, document: object) -> Path:
    path = folder / "camera.json"
    path.write_text(json.dumps(document))
    return path


def planned(clip: Path, document: object = None, **more: Any) -> Plan:
    framing = None if document is None else parse_framing(json.dumps(document), "camera")
    return prepare_plan(small_job(clip, clip.with_name("out.mp4"), **{"size": (90, 160)} | more), framing=framing)


def previewed(clip: Path, target: Path, document: object, *flags: str) -> Path:
    """The preview of a camera over a clip, as `planned` plans it; the camera lies beside the preview."""
    named = [str(clip), str(camera(target.parent, document)), "-o", str(target), "-y"]
    assert run(["preview", *named, "--size", "90x160", "--fps", "source", "--model", "lanczos", *flags]) == 0
    return target


@dataclass(frozen=True)
class Panel:
    """A picture on the sheet, as left, top, right and bottom."""

    box: tuple[int, int, int, int]
    pixels: Pixels

    @property
    def rectangle(self) -> tuple[float, float, float, float]:
        """Where the outline lies, as x, y, width and height in parts of the panel."""
        drawn = np.argwhere((self.pixels == CAMERA).all(axis=2))
        (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0) + 1
        height, width = self.pixels.shape[:2]
        return left / width, top / height, (right - left) / width, (bottom - top) / height


def opened(path: Path) -> Pixels:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def panels(sheet: Pixels) -> list[Panel]:
    """Pictures on a sheet in the order of reading: filled rectangles of some size."""
    labels, _ = ndimage.label(sheet[..., 0] > 40)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        part = labels[rows, columns] == number
        if min(part.shape) > 60 and part.mean() > 0.98:
            found.append(
                Panel((columns.start, rows.start, columns.stop, rows.stop), np.ascontiguousarray(sheet[rows, columns]))
            )
    return sorted(found, key=lambda panel: (panel.box[1], panel.box[0]))
