"""A comparison written: a still of details, a page with a slider, or a clip with a split screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keyscale.engine.choices import Reference
from keyscale.engine.files import drafted
from keyscale.engine.job import Job, default_output
from keyscale.engine.review.clip import even, silent_clip
from keyscale.engine.review.comparison import Compared, Pair, compared, frames_of, pair_of, summary
from keyscale.engine.review.measures import busiest
from keyscale.engine.review.page import filled, image_data
from keyscale.engine.review.pictures import CAMERA, DIM, INK, PAPER, WARNING, font, seen, source_pixels
from keyscale.engine.review.preview import check_kind
from keyscale.engine.review.sheet import GAP, MARGIN, WIDTH, Panel
from keyscale.engine.runners.prepare import Look
from keyscale.engine.source.probe import probe

__all__ = ["write_comparison", "write_samples_page"]

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


def write_samples_page(
    samples: Sequence[Sequence[str]], names: Sequence[str], path: str, *, overwrite: bool, look: Look = probe
) -> None:
    """Write a page that shows any two of several networks at the same moments.

    Args:
        samples: the files of each stretch, one by each network.
        names: of the networks.
        path: of the page.
        overwrite: whether a file there may be replaced.
        look: what probes the samples.

    Raises:
        StorageError: the page is there and may not be replaced, or cannot be written.
        KeyscaleError: a sample cannot be read.
    """
    rows: list[dict[str, object]] = []
    size: tuple[int, int] | None = None
    with drafted(path, overwrite=overwrite) as draft:
        for number, (first, *others) in enumerate(samples, 1):
            job = Job(source=first, output=default_output(first))
            pairs = [pair_of(job, other, look) for other in others]
            size, rate = pairs[0].size, float(pairs[0].rate)
            frames = frames_of(pairs[0], max(2, PAGES // len(samples)))
            for moment in zip(*(compared(pair, frames) for pair in pairs), strict=True):
                sharper = ", ".join(f"{name} {each.sharper:.2f}" for name, each in zip(names[1:], moment, strict=True))
                begins = f"sample {number}, " if len(samples) > 1 else ""
                pictures = [moment[0].before, *(each.after for each in moment)]
                rows.append(
                    {
                        "frame": moment[0].frame,
                        "words": f"{begins}{moment[0].frame / rate:.2f} s: {sharper} times as sharp as {names[0]}",
                        "pictures": [image_data(Image.fromarray(each), 92) for each in pictures],
                    }
                )
        told = "Choose what is shown on either side." if len(names) > 2 else ""
        document = {"names": names, "size": size, "told": told, "notes": [], "moments": rows}
        page = filled("compare.html", f"Samples by {' and '.join(names)}", document)
        draft.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")


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
            "pictures": [image_data(Image.fromarray(side), 92) for side in (each.before, each.after)],
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
