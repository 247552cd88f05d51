"""A comparison written: a still of details, a page with a slider, or a clip with a split screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keyscale.engine.choices import Reference
from keyscale.engine.files import drafted
from keyscale.engine.review.clip import even, silent_clip
from keyscale.engine.review.comparison import Compared, Pair, compared, frames_of, summary
from keyscale.engine.review.measures import busiest
from keyscale.engine.review.page import filled, image_data
from keyscale.engine.review.pictures import CAMERA, DIM, INK, PAPER, WARNING, font, seen, source_pixels
from keyscale.engine.review.preview import check_kind
from keyscale.engine.review.sheet import GAP, MARGIN, WIDTH, Panel

__all__ = ["write_comparison"]

STILLS, PAGES = 4, 8
"""Moments of a still and of a page."""

DETAIL = ((WIDTH - 2 * MARGIN - GAP) // 2, 400)
"""Most pixels of a detail, across and down."""

LONGEST = 1920
"""Most pixels of a clip's longer side."""


def write_comparison(pair: Pair, path: str, *, overwrite: bool = False, reference: Reference = Reference.NONE) -> str:
    """Write a comparison in the form that the name's extension says, and say how both differ.

    Raises:
        UsageError: the extension is no form.
        StorageError: the file is there and may not be replaced, or cannot be written.
        KeyscaleError: a video cannot be decoded.
    """
    suffix = check_kind(path)
    with drafted(path, overwrite=overwrite) as draft:
        frames = frames_of(pair, PAGES if suffix == ".html" else STILLS)
        found = list(compared(pair, frames, reference))
        told = summary([(each.sharper, each.psnr) for each in found])
        if suffix == ".png":
            _still(pair, found, told).save(draft, "PNG")
        elif suffix == ".html":
            draft.write_text(_page(pair, found, told), encoding="utf-8", errors="xmlcharrefreplace")
        else:
            _clip(pair, draft)
    return told


def _words(pair: Pair, each: Compared) -> str:
    words = f"{each.frame / float(pair.rate):.2f} s: {each.sharper:.2f} times as sharp"
    return words if each.psnr is None else f"{words}, PSNR {each.psnr:.2f} dB"


def _still(pair: Pair, found: list[Compared], told: str) -> Image.Image:
    """The busiest detail of each moment, pixel by pixel, the first video on the left."""
    panel = Panel()
    panel.text(f"{pair.names[0]}  |  {pair.names[1]}", 20)
    panel.text(told, 14, DIM)
    for note in pair.notes:
        panel.text(f"warning: {note}", 14, WARNING)
    for each in found:
        panel.bottom += GAP
        panel.text(_words(pair, each), 14, INK)
        top, left = busiest(each.after, DETAIL)
        details = [side[top : top + DETAIL[1], left : left + DETAIL[0]] for side in (each.before, each.after)]
        height, width = details[0].shape[:2]
        row = Image.new("RGB", (2 * width + GAP, height), CAMERA)
        for number, detail in enumerate(details):
            row.paste(Image.fromarray(np.ascontiguousarray(detail)), (number * (width + GAP), 0))
        row.paste(PAPER, (width, 0, width + GAP, height))
        panel.picture(row, MARGIN)
    return panel.drawn()


def _page(pair: Pair, found: list[Compared], told: str) -> str:
    """Whole pictures, one over the other."""
    rows = [
        {
            "frame": each.frame,
            "words": _words(pair, each),
            "before": image_data(Image.fromarray(each.before), 92),
            "after": image_data(Image.fromarray(each.after), 92),
        }
        for each in found
    ]
    document = {"names": pair.names, "size": pair.size, "told": told, "notes": pair.notes, "moments": rows}
    return filled("compare.html", f"{pair.names[0]} and {pair.names[1]}", document)


def _clip(pair: Pair, path: Path) -> None:
    """The left half of the first video beside the right half of the second one, in every frame."""
    factor = min(1.0, LONGEST / max(pair.size))
    size = (even(pair.size[0] * factor), even(pair.size[1] * factor))
    middle = size[0] // 2
    sides = (source_pixels(plan, range(pair.frames)) for plan in (pair.before, pair.after))
    with silent_clip(path, size, pair.rate, crf=16) as writer:
        for (frame, first), (_, second) in zip(*sides, strict=True):
            picture = seen(pair.after, frame, second, size)
            picture.paste(seen(pair.before, frame, first, size).crop((0, 0, middle, size[1])), (0, 0))
            draw = ImageDraw.Draw(picture)
            draw.line([(middle, 0), (middle, size[1])], fill=CAMERA, width=2)
            face = font(max(12, size[1] // 40))
            for name, at, anchor in ((pair.names[0], middle - 8, "rd"), (pair.names[1], middle + 8, "ld")):
                draw.text(
                    (at, size[1] - 8), name, font=face, fill=INK, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0)
                )
            writer.write(np.asarray(picture))
