"""A plan as a contact sheet: its moments, each with the source beside what it will show, above a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from keyscale.engine.plan.describe import summarise
from keyscale.engine.plan.plan import Plan
from keyscale.engine.review.camera_track import CameraTrack, Moment, moments, runs, track_of
from keyscale.engine.review.pictures import (
    CAMERA,
    DIM,
    INK,
    PAPER,
    WARNING,
    font,
    in_lines,
    seen,
    source_pixels,
    source_view,
)

__all__ = ["Panel", "contact_sheet", "where_warned"]

WIDTH = 1280
MARGIN, GAP, CAPTION = 20, 12, 22
SOURCE = (320, 240)
"""Most pixels of a source frame, across and down."""
LANE = 64
"""Pixels of height of a curve on the timeline."""
CUT, BAND, TRIMMED = (255, 90, 120), (46, 90, 150), (44, 50, 66)
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
"""Seconds between the marks of a timeline."""


class Panel:
    """A column of text and pictures that grows downwards, `WIDTH` pixels wide."""

    def __init__(self) -> None:
        self.parts: list[tuple[Image.Image, int, int]] = []
        self.bottom = MARGIN

    def text(self, words: str, size: int = 14, colour: tuple[int, int, int] = INK, indent: int = 0) -> None:
        """Add a paragraph."""
        for line in in_lines(words, size, WIDTH - 2 * MARGIN - indent):
            image = Image.new("RGB", (WIDTH - 2 * MARGIN - indent, size + 6), PAPER)
            ImageDraw.Draw(image).text((0, 1), line, font=font(size), fill=colour)
            self.picture(image, MARGIN + indent)

    def picture(self, image: Image.Image, left: int) -> None:
        """Add a picture beneath what is there."""
        self.parts.append((image, left, self.bottom))
        self.bottom += image.height

    def drawn(self) -> Image.Image:
        """All of it."""
        sheet = Image.new("RGB", (WIDTH, self.bottom + MARGIN), PAPER)
        for image, left, top in self.parts:
            sheet.paste(image, (left, top))
        return sheet


def contact_sheet(plan: Plan) -> Image.Image:
    """The sheet of a plan, 1280 pixels wide.

    Raises:
        KeyscaleError: the source cannot be decoded.
    """
    track = track_of(plan)
    chosen = moments(plan, track)
    panel = Panel()
    panel.text(f"keyscale preview: {plan.info.path}", 20)
    panel.bottom += GAP
    _grid(plan, track, chosen, panel)
    panel.picture(_timeline(plan, track, chosen), MARGIN)
    panel.bottom += GAP
    for warning in where_warned(plan, track):
        panel.text(f"warning: {warning}", 14, WARNING)
    for label, value in summarise(plan):
        panel.text(f"{label}: {value}", 13, DIM)
    return panel.drawn()


def where_warned(plan: Plan, track: CameraTrack) -> list[str]:
    """The plan's warnings, and for what happens at some frames alone the seconds of the result at which it does."""
    rate = float(plan.rate)
    places = {"over the frame's border": track.outside, "is enlarged another": track.blurred}
    told = []
    for warning in map(str, plan.warnings):
        where = next((frames for words, frames in places.items() if words in warning), None)
        found = [] if where is None else runs(where)
        spans = ", ".join(f"{begin / rate:.2f} to {end / rate:.2f} s" for begin, end in found[:6])
        told.append(f"{warning} ({spans}{', ...' if len(found) > 6 else ''})" if spans else warning)
    return told


def _grid(plan: Plan, track: CameraTrack, chosen: Sequence[Moment], panel: Panel) -> None:
    info, aspect = plan.info, plan.job.target.aspect
    # As many pairs in a row as there is room for at the usual size; these then fill the row.
    tall = min(SOURCE[0] / info.width, SOURCE[1] / info.height) * info.height
    wide = tall * (info.width / info.height + aspect)
    columns = max(1, round((WIDTH - 2 * MARGIN) / (wide + 1.5 * GAP)))
    cell = (WIDTH - 2 * MARGIN + GAP) // columns
    tall = min(SOURCE[1], tall * (cell - 1.5 * GAP) / wide)
    size = (max(2, round(tall * info.width / info.height)), max(2, round(tall)))
    shown = (max(2, round(tall * aspect)), size[1])
    pictures = {
        frame: (source_view(plan, track, frame, pixels, size), seen(plan, frame, pixels, shown))
        for frame, pixels in source_pixels(plan, [moment.frame for moment in chosen])
    }
    for begin in range(0, len(chosen), columns):
        row = Image.new("RGB", (WIDTH - 2 * MARGIN, CAPTION + size[1] + GAP), PAPER)
        draw = ImageDraw.Draw(row)
        for column, moment in enumerate(chosen[begin : begin + columns]):
            left, frame = column * cell, moment.frame
            number = begin + column + 1
            words = f"{number}  {frame / float(plan.rate):.2f} s  {', '.join(moment.reasons)}"
            line = in_lines(words, 13, cell - GAP)[0]
            draw.text((left, 2), line, font=font(13), fill=WARNING if track.outside[frame] else INK)
            if frame in pictures:
                row.paste(pictures[frame][0], (left, CAPTION))
                row.paste(pictures[frame][1], (left + size[0] + GAP // 2, CAPTION))
        panel.picture(row, MARGIN)


def _timeline(plan: Plan, track: CameraTrack, chosen: Sequence[Moment]) -> Image.Image:
    """Seconds of the source across: what is used and how fast, and x, y and zoom with cuts and what is warned of."""
    width, left = WIDTH - 2 * MARGIN, 84
    lanes = {
        "x": plan.rects[:, 0],
        "y": plan.rects[:, 1],
        "zoom": track.zoom,
    }
    head, band = 26, 22
    image = Image.new("RGB", (width, head + band + GAP + len(lanes) * (LANE + GAP) + 20), PAPER)
    draw = ImageDraw.Draw(image)
    whole = max(float(plan.info.duration), plan.time_map.end, 1e-3)

    def across(second: float) -> float:
        return left + (width - left - 1) * min(max(second / whole, 0.0), 1.0)

    draw.text((0, head + 3), "used", font=font(13), fill=DIM)
    draw.rectangle((left, head, width - 1, head + band), fill=TRIMMED)
    for stretch in plan.time_map.stretches:
        box = (across(stretch.start), head, across(stretch.end), head + band)
        draw.rectangle(box, fill=BAND, outline=PAPER if len(plan.time_map.stretches) > 1 else None)
        if stretch.speed != 1:
            label = f"{stretch.speed:g}x"
            if font(12).getlength(label) < box[2] - box[0]:
                draw.text(((box[0] + box[2]) / 2, head + band / 2), label, font=font(12), fill=INK, anchor="mm")
    bottom = head + band + GAP + len(lanes) * (LANE + GAP)
    top = head + band + GAP
    for begin, end in runs(track.outside | track.blurred):
        box = (across(float(track.seconds[begin])), top - 5, across(float(track.seconds[end - 1])) + 2, top - 2)
        draw.rectangle(box, fill=WARNING)
    for name, values in lanes.items():
        low, high = float(values.min()), float(values.max())
        middle = top + LANE / 2
        draw.rectangle((left, top, width - 1, top + LANE), outline=TRIMMED)
        draw.text((0, middle), name, font=font(13), fill=DIM, anchor="lm")
        unit = "{:.2f}" if name == "zoom" else "{:.0f}"
        draw.text((left - 6, top), unit.format(high), font=font(11), fill=DIM, anchor="ra")
        draw.text((left - 6, top + LANE), unit.format(low), font=font(11), fill=DIM, anchor="rd")
        heights = (
            top + LANE - 4 - (values - low) / (high - low) * (LANE - 8)
            if high > low
            else np.full(len(values), middle, np.float64)
        )
        _curve(draw, np.array([across(second) for second in track.seconds]), heights, track.cuts)
        top += LANE + GAP
    for frame in track.cuts:
        at = across(float(track.seconds[frame]))
        draw.line([(at, head), (at, bottom - GAP)], fill=CUT, width=1)
    for frame, _ in track.keyframes:
        at = across(float(track.seconds[frame]))
        draw.polygon(
            [(at, head + band - 6), (at + 4, head + band), (at, head + band + 6), (at - 4, head + band)], CAMERA
        )
    taken = -1.0
    for number, moment in enumerate(chosen, 1):
        at = across(float(track.seconds[moment.frame]))
        if at - taken > 14:
            draw.text((at, 4), str(number), font=font(13), fill=INK, anchor="ma")
            taken = at
    step = next((step for step in TICKS if whole / step <= 14), whole / 10)
    for number in range(int(whole / step) + 1):
        at = across(number * step)
        draw.text((at, bottom), f"{number * step:g} s", font=font(11), fill=DIM, anchor="ra" if number else "la")
    return image


def _curve(
    draw: ImageDraw.ImageDraw,
    xs: npt.NDArray[np.float64],
    ys: npt.NDArray[np.float64],
    cuts: tuple[int, ...],
) -> None:
    for begin, end in pairwise([0, *cuts, len(xs)]):
        # A pixel holds no more than a few points of a long film.
        picked = np.unique(np.linspace(begin, end - 1, min(end - begin, 4 * WIDTH)).astype(np.intp))
        points = [(float(xs[n]), float(ys[n])) for n in picked]
        draw.line(points if len(points) > 1 else points * 2, fill=CAMERA, width=2)
