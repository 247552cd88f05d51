"""A plan as one page for a browser: the camera over the source, to scrub through. It loads nothing but the source."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image

from keyscale.engine.plan.describe import summarise
from keyscale.engine.plan.plan import Plan
from keyscale.engine.review.camera_track import CameraTrack, moments, runs, track_of
from keyscale.engine.review.pictures import source_pixels
from keyscale.engine.review.sheet import where_warned

__all__ = ["filled", "image_data", "link_to", "preview_page"]

MOST_FRAMES = 20_000
"""Output frames whose rectangle a page holds; of more, those that are left out are interpolated."""

MOST_PICTURES = 240
PICTURE = (480, 360)
"""Most pixels of an embedded frame, across and down."""

JPEG_QUALITY = 75


def preview_page(plan: Plan, page: Path, *, embed: bool) -> str:
    """The text of the page.

    Args:
        plan: what is shown.
        page: where it will lie: the source is linked from there.
        embed: put up to 240 frames of the source into it, at most 480 pixels wide, instead of the link.

    Raises:
        KeyscaleError: the source cannot be decoded.
    """
    info, track = plan.info, track_of(plan)
    chosen = moments(plan, track)
    begins = [stream.begins for stream in info.streams if stream.begins is not None]
    # Browsers count in the container's time, and move what begins below zero up to it.
    offset = float(info.origin) - min(0.0, *begins, 0.0)
    stands = np.append(np.diff(info.times()), float(info.last_duration * info.time_base))
    kept = _kept(plan, track, [moment.frame for moment in chosen])
    shown = plan.source_index[kept]
    pictures: list[tuple[int, str]] = []
    if embed:
        spread = np.linspace(0, plan.frames - 1, min(plan.frames, MOST_PICTURES - len(chosen))).round()
        frames = sorted({*spread.astype(int).tolist(), *(moment.frame for moment in chosen)})
        factor = min(1.0, PICTURE[0] / info.width, PICTURE[1] / info.height)
        size = (max(2, round(info.width * factor)), max(2, round(info.height * factor)))
        for frame, pixels in source_pixels(plan, frames):
            image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
            pictures.append((frame, image_data(image, JPEG_QUALITY)))
    document = {
        "name": Path(info.path).name,
        "source": None if embed else link_to(info.path, page),
        "width": info.width,
        "height": info.height,
        "rotation": plan.geometry.rotation,
        "whole": max(float(info.duration), plan.time_map.end),
        "rate": float(plan.rate),
        "frames": plan.frames,
        "target": [plan.job.target.width, plan.job.target.height],
        "fit": plan.job.target.fit.value,
        "n": kept.tolist(),
        "second": track.seconds[kept].round(6).tolist(),
        "media": (info.times()[shown] + offset).round(6).tolist(),
        "stands": stands[shown].round(6).tolist(),
        "rects": plan.rects[kept].round(3).tolist(),
        "asked": {str(n): track.asked[n].round(3).tolist() for n in kept.tolist() if track.outside[n]},
        "zoom": track.zoom[kept].round(4).tolist(),
        "stretches": [[s.start, s.end, s.speed] for s in plan.time_map.stretches],
        "cuts": track.cuts,
        "keyframes": track.keyframes,
        "warned": runs(track.outside | track.blurred),
        "moments": [{"frame": moment.frame, "reasons": moment.reasons} for moment in chosen],
        "warnings": where_warned(plan, track),
        "facts": summarise(plan),
        "pictures": pictures,
    }
    return filled("preview.html", f"keyscale preview: {Path(info.path).name}", document)


def filled(template: str, title: str, document: Any) -> str:
    """A page of this folder, after the head that all have, with its title and its data in it."""
    folder = files("keyscale.engine.review")
    text = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in ("head.html", template))
    # A name must not end the script that holds it.
    data = json.dumps(document).replace("<", "\\u003c")
    return text.replace("@TITLE@", html.escape(title)).replace("@DATA@", data)


def image_data(image: Image.Image, quality: int) -> str:
    """A picture as a `data:` address, as a JPEG of this quality, with all of its chroma."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def link_to(path: str, page: Path) -> str:
    """The address of a file, relative to a page where one leads to it."""
    target = Path(path).absolute()
    try:
        relative = os.path.relpath(target, page.absolute().parent)
    except ValueError:  # another drive
        return target.as_uri()
    # Without the point a colon in the name would be taken for the end of a scheme.
    return "./" + quote(os.fsencode(relative).replace(os.sep.encode(), b"/"))


def _kept(plan: Plan, track: CameraTrack, wanted: Sequence[int]) -> npt.NDArray[np.intp]:
    """Output frames that a page holds: all, or `MOST_FRAMES` evenly and those at which the camera does something."""
    if plan.frames <= MOST_FRAMES:
        return np.arange(plan.frames)
    spread = np.linspace(0, plan.frames - 1, MOST_FRAMES).round().astype(np.intp)
    about = [n for frame in (*track.cuts, *dict(track.keyframes), *wanted) for n in (frame - 1, frame)]
    return np.unique(np.concatenate([spread, np.array(about, np.intp)]).clip(0, plan.frames - 1))
