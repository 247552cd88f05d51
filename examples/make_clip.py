"""Draw the example clip and its camera: `court.mp4` and `court.json`.

A basketball court from the stands, 640x360 at 25 frames a second, with a whistle and a click for each bounce. All of
it is drawn: the picture at four times its size with Pillow and NumPy, then reduced, blurred and given some noise, so
that it is about as sharp as a broadcast of that size. The same versions of the libraries give the same frames.

    python examples/make_clip.py            write both files beside this script
    python examples/make_clip.py --to DIR   write them elsewhere
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = ["FRAMES", "HEIGHT", "RATE", "WIDTH", "ball_at", "camera", "camera_text", "frames", "main", "project"]

WIDTH, HEIGHT, RATE, FRAMES = 640, 360, 25, 100
SUPER = 4
"""Drawn pixels to a pixel of the clip, each way."""

LENGTH, DEPTH, STANDS = 20.0, 11.0, 13.0
"""Metres of the court along and away from the viewer, and where the stands begin."""

EYE = (10.0, -8.6, 6.2)
"""Where the viewer sits, in metres: along the court, towards it, above it."""
PITCH = math.radians(20)
FOCAL = 0.78 * WIDTH
"""Focal length in pixels of the clip."""

SAMPLE_RATE = 48_000

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Point = tuple[float, float]
Place = tuple[float, float, float]
Colour = tuple[int, int, int]

HOOP: Place = (18.0, 5.5, 3.05)
SKIN: tuple[Colour, ...] = ((120, 78, 52), (242, 204, 182), (84, 54, 40), (236, 190, 166), (142, 92, 62))


def project(place: Place) -> Point:
    """Metres on the court -> pixels of the clip."""
    x, y, z = (a - b for a, b in zip(place, EYE, strict=True))
    forward = y * math.cos(PITCH) - z * math.sin(PITCH)
    up = y * math.sin(PITCH) + z * math.cos(PITCH)
    return WIDTH / 2 + FOCAL * x / forward, HEIGHT / 2 - FOCAL * up / forward


def pixels_per_metre(place: Place) -> float:
    """How large a metre at that place is in the clip."""
    _, y, z = (a - b for a, b in zip(place, EYE, strict=True))
    return FOCAL / (y * math.cos(PITCH) - z * math.sin(PITCH))


# --- what happens ------------------------------------------------------------------------------------------------

BOUNCES = (0.0, 0.44, 0.88, 1.92, 2.36)
"""Seconds at which the ball meets the floor."""
PASS, CATCH, SHOT, THROUGH, LANDING = 1.10, 1.70, 2.56, 3.52, 3.98


def _carrier_x(time: float) -> float:
    """Where the one who has, or last had, the ball is along the court."""
    if time < PASS:
        return 2.6 + 2.6 * time
    if time < CATCH:
        return 5.46
    return min(13.6, 9.8 + 4.6 * (time - CATCH))


def ball_at(time: float) -> Place:
    """The ball's centre."""
    if PASS <= time < CATCH:
        share = (time - PASS) / (CATCH - PASS)
        return 6.0 + share * 4.3, 3.6 + share * 0.6, 1.3 + 2.2 * share * (1 - share)
    if SHOT <= time < THROUGH:
        share = (time - SHOT) / (THROUGH - SHOT)
        x, y, z = 13.9, 4.2, 2.3
        rise = 4 * 1.5 * share * (1 - share)
        return x + share * (HOOP[0] - x), y + share * (HOOP[1] - y), z + share * (HOOP[2] - z) + rise
    if time >= THROUGH:
        fall = min(1.0, (time - THROUGH) / (LANDING - THROUGH))
        return HOOP[0] + 0.1 * fall, HOOP[1] - 0.3 * fall, HOOP[2] - fall**2 * (HOOP[2] - 0.13)
    before = max((bounce for bounce in BOUNCES if bounce <= time), default=BOUNCES[0])
    share = min(1.0, (time - before) / 0.44)
    return _carrier_x(time) + 0.55, 3.6 if time < PASS else 4.2, 0.13 + 4 * 0.95 * share * (1 - share)


@dataclass(frozen=True)
class Player:
    """One of the ten."""

    number: int
    home: bool
    x: float
    y: float
    swing: float
    """Phase of the stride."""
    speed: float
    """Metres a second along the court."""
    skin: Colour

    def place(self, time: float) -> Place:
        """Where the feet are."""
        if self.number == 7:
            return (_carrier_x(time) if time < CATCH else 5.46 + 1.9 * (time - CATCH)), self.y, 0.0
        if self.number == 23:
            x = 8.2 + 1.6 * time / CATCH if time < CATCH else _carrier_x(time)
            return x, self.y, max(0.0, 0.5 - 6 * (time - SHOT - 0.1) ** 2) if time > SHOT - 0.2 else 0.0
        return self.x + self.speed * time, self.y + 0.25 * math.sin(1.7 * time + self.swing), 0.0


PLAYERS = (
    Player(7, True, 2.6, 3.7, 0.0, 2.6, SKIN[0]),
    Player(23, True, 8.2, 4.4, 1.0, 3.0, SKIN[1]),
    Player(11, True, 11.6, 8.6, 2.0, 1.0, SKIN[2]),
    Player(34, True, 15.2, 2.6, 3.0, 0.5, SKIN[3]),
    Player(5, True, 6.4, 7.6, 4.0, 1.9, SKIN[4]),
    Player(8, False, 4.0, 5.2, 1.5, 2.1, SKIN[3]),
    Player(14, False, 11.6, 5.8, 2.5, 0.8, SKIN[0]),
    Player(42, False, 16.0, 6.4, 0.5, 0.3, SKIN[4]),
    Player(19, False, 13.6, 9.2, 5.0, 0.7, SKIN[1]),
    Player(3, False, 12.6, 1.8, 4.2, 0.9, SKIN[2]),
)

# --- the picture -------------------------------------------------------------------------------------------------


def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(round(size * SUPER))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _drawn(places: Sequence[Place]) -> list[Point]:
    return [(x * SUPER, y * SUPER) for x, y in map(project, places)]


def _floor(rng: np.random.Generator) -> Image.Image:
    """Planks seen in perspective, over the whole picture."""
    width, height = WIDTH * SUPER, HEIGHT * SUPER
    column, row = np.meshgrid((np.arange(width) + 0.5) / SUPER, (np.arange(height) + 0.5) / SUPER)
    # The ray through a pixel, met with the floor.
    right, down = (column - WIDTH / 2) / FOCAL, (row - HEIGHT / 2) / FOCAL
    forward, fall = math.cos(PITCH) - down * math.sin(PITCH), math.sin(PITCH) + down * math.cos(PITCH)
    distance = EYE[2] / np.maximum(fall, 0.02)
    x, y = EYE[0] + right * distance, EYE[1] + forward * distance
    plank = np.floor(y / 0.22).astype(np.int64)
    board = np.floor((x + (plank * 37 % 11) * 0.31) / 2.4).astype(np.int64)
    tone = rng.uniform(0.90, 1.08, 4096)[(plank * 53 + board * 97) % 4096]
    grain = rng.normal(0, 1, (1024, 1024))
    grain = (grain + np.roll(grain, 1, 1) + np.roll(grain, 2, 1) + np.roll(grain, 3, 1)) / 4
    tone += 0.05 * grain[(y / 0.02).astype(np.int64) % 1024, (x / 0.05).astype(np.int64) % 1024]
    seam = np.minimum(y / 0.22 % 1, 1 - y / 0.22 % 1) * 0.22
    tone *= 1 - 0.30 * np.exp(-((seam / 0.012) ** 2))
    glow = 0.86 + 0.22 * np.exp(-(((x - 10) / 9) ** 2) - ((y - 4) / 7) ** 2)
    wood = np.array([214.0, 160.0, 100.0]) * (tone * glow)[..., None]
    return Image.fromarray(np.clip(wood, 0, 255).astype(np.uint8))


def _lines(draw: ImageDraw.ImageDraw) -> None:
    white, thick = (246, 243, 236), round(1.7 * SUPER)

    def path(points: Sequence[Point], *, close: bool = False) -> None:
        drawn = _drawn([(x, y, 0.0) for x, y in points])
        draw.line([*drawn, drawn[0]] if close else drawn, fill=white, width=thick, joint="curve")

    def arc(x: float, y: float, radius: float, first: float, last: float) -> None:
        angles = np.radians(np.linspace(first, last, 60))
        path([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles])

    for left in (True, False):

        def side(x: float, left: bool = left) -> float:
            return x if left else LENGTH - x

        low, high, depth, middle = 3.7, 7.3, 4.3, DEPTH / 2
        corners = [(side(0), low), (side(depth), low), (side(depth), high), (side(0), high)]
        draw.polygon(_drawn([(x, y, 0.0) for x, y in corners]), fill=(172, 52, 46))
        path(corners)
        arc(side(depth), middle, 1.4, -90 if left else 90, 90 if left else 270)
        path([(side(0), middle - 4.7), (side(1.6), middle - 4.7)])
        path([(side(0), middle + 4.7), (side(1.6), middle + 4.7)])
        arc(side(1.2), middle, 4.72, -85 if left else 95, 85 if left else 265)
    centre = (LENGTH / 2, DEPTH / 2)
    disc = [(centre[0] + 1.4 * math.cos(a), centre[1] + 1.4 * math.sin(a), 0.0) for a in np.radians(range(0, 360, 6))]
    draw.polygon(_drawn(disc), fill=(38, 70, 124))
    arc(*centre, 1.4, 0, 360)
    path([(LENGTH / 2, 0), (LENGTH / 2, DEPTH)])
    path([(0, 0), (LENGTH, 0), (LENGTH, DEPTH), (0, DEPTH)], close=True)


def _stands(image: Image.Image, rng: np.random.Generator) -> None:
    """The crowd, the boards in front of it, and the table with the score."""
    draw = ImageDraw.Draw(image)
    _, edge = project((LENGTH / 2, STANDS, 0.0))
    _, top = project((LENGTH / 2, STANDS, 0.8))
    draw.rectangle((0, 0, WIDTH * SUPER, top * SUPER), fill=(26, 28, 38))
    shirts = [
        (196, 58, 52),
        (44, 78, 140),
        (222, 216, 204),
        (60, 62, 70),
        (226, 170, 60),
        (84, 124, 96),
        (148, 148, 156),
    ]
    row_height = 15.0
    for row in range(9, -1, -1):
        base = top - row * row_height * (1 - 0.02 * row) + 2
        draw.rectangle((0, (base - 2) * SUPER, WIDTH * SUPER, base * SUPER), fill=(44, 46, 58))
        light = 0.50 + 0.42 * math.exp(-row / 4)
        step = 11.5 - 0.35 * row
        for seat in range(int(WIDTH / step) + 2):
            if rng.random() < 0.10:
                continue
            x = (seat + 0.5 * (row % 2)) * step + rng.uniform(-1.2, 1.2)
            y = base - 9 + rng.uniform(-1.2, 1.2)
            body = shirts[rng.integers(len(shirts))]
            face = SKIN[rng.integers(len(SKIN))]
            hair = [(30, 24, 22), (74, 50, 32), (150, 112, 62), (60, 58, 60)][rng.integers(4)]

            def lit(colour: Colour, light: float = light) -> Colour:
                return (int(colour[0] * light), int(colour[1] * light), int(colour[2] * light))

            def box(cx: float, cy: float, rx: float, ry: float) -> tuple[float, float, float, float]:
                return (cx - rx) * SUPER, (cy - ry) * SUPER, (cx + rx) * SUPER, (cy + ry) * SUPER

            draw.rounded_rectangle(box(x, y + 6.5, 4.1, 4.2), radius=2.0 * SUPER, fill=lit(body))
            draw.ellipse(box(x, y - 0.4, 2.5, 3.0), fill=lit(hair))
            draw.ellipse(box(x, y + 0.4, 2.1, 2.5), fill=lit(face))
    draw.rectangle((0, top * SUPER, WIDTH * SUPER, edge * SUPER), fill=(18, 30, 58))
    texts = ("KEYSCALE", "CENTRE COURT", "SHARP EDGES", "REAL-ESRGAN", "CAMERA BY KEYFRAMES")
    fills = ((18, 30, 58), (232, 234, 238), (206, 60, 48), (18, 30, 58), (238, 190, 58))
    inks = ((250, 250, 250), (26, 34, 54), (255, 246, 236), (120, 214, 255), (30, 26, 18))
    x, height = -22.0, edge - top
    while x < WIDTH:
        for text, fill, ink in zip(texts, fills, inks, strict=True):
            font = _font(height * 0.62)
            width = draw.textlength(text, font=font) / SUPER + 22
            draw.rectangle((x * SUPER, top * SUPER, (x + width) * SUPER, edge * SUPER), fill=fill)
            draw.text(((x + width / 2) * SUPER, (top + height / 2) * SUPER), text, font=font, fill=ink, anchor="mm")
            x += width
    draw.line((0, top * SUPER, WIDTH * SUPER, top * SUPER), fill=(210, 214, 222), width=SUPER)


def _basket(draw: ImageDraw.ImageDraw, *, front: bool) -> None:
    x, y, z = HOOP
    if not front:
        draw.line(
            _drawn([(20.6, y, 0.0), (20.6, y, 2.4), (x + 0.55, y, 3.4)]),
            fill=(44, 46, 54),
            width=5 * SUPER,
            joint="curve",
        )
        board = [
            (x + 0.45, y - 0.9, 2.9),
            (x + 0.45, y + 0.9, 2.9),
            (x + 0.45, y + 0.9, 3.95),
            (x + 0.45, y - 0.9, 3.95),
        ]
        draw.polygon(_drawn(board), fill=(226, 232, 238), outline=(40, 44, 52), width=SUPER)
        inner = [
            (x + 0.44, y - 0.3, 3.1),
            (x + 0.44, y + 0.3, 3.1),
            (x + 0.44, y + 0.3, 3.55),
            (x + 0.44, y - 0.3, 3.55),
        ]
        draw.polygon(_drawn(inner), outline=(206, 60, 48), width=SUPER)
    angles = np.linspace(0, math.pi, 24) + (math.pi if front else 0)
    rim = [(x + 0.23 * math.cos(a), y + 0.23 * math.sin(a), z) for a in angles]
    draw.line(_drawn(rim), fill=(226, 92, 40), width=round(1.6 * SUPER), joint="curve")
    for k in range(9):
        a, b = (angles[0] + math.pi * (k + s) / 8 for s in (0.0, 0.7))
        ends: list[Place] = [
            (x + 0.23 * math.cos(a), y + 0.23 * math.sin(a), z),
            (x + 0.13 * math.cos(b), y + 0.13 * math.sin(b), z - 0.42),
        ]
        draw.line(_drawn(ends), fill=(240, 240, 240), width=round(0.6 * SUPER))


def _ball(image: Image.Image, time: float) -> None:
    place = ball_at(time)
    x, y = (v * SUPER for v in project(place))
    radius = 0.16 * pixels_per_metre(place) * SUPER
    side = math.ceil(radius)
    u, v = np.meshgrid(*(np.arange(-side, side + 1) / radius,) * 2)
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
    turn = 5.0 * time
    p, q = u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)
    seam = np.minimum.reduce(
        [np.abs(p), np.abs(q), np.abs(np.hypot(p - 1.15, q) - 0.75), np.abs(np.hypot(p + 1.15, q) - 0.75)]
    )
    shade = 0.45 + 0.55 * np.clip(-0.45 * u - 0.6 * v + 0.66 * depth, 0, 1)
    colour = np.where((seam < 0.07)[..., None], np.array([52, 30, 22]), np.array([236, 122, 42])) * shade[..., None]
    tile = np.concatenate([colour, 255.0 * (np.hypot(u, v) <= 1)[..., None]], axis=2)
    sprite = Image.fromarray(np.clip(tile, 0, 255).astype(np.uint8))
    image.paste(sprite, (round(x - side), round(y - side)), sprite)


def _shadow(layer: ImageDraw.ImageDraw, place: Place, size: float) -> None:
    x, y, z = place
    ring = [
        (x + 0.25 * z + size * math.cos(a), y + 0.2 * z + 0.6 * size * math.sin(a), 0.0)
        for a in np.linspace(0, 2 * math.pi, 24)
    ]
    layer.polygon(_drawn(ring), fill=round(120 / (1 + 0.5 * z)))


def _player(draw: ImageDraw.ImageDraw, player: Player, time: float) -> None:
    x0, y0, z0 = player.place(time)
    unit = pixels_per_metre((x0, y0, z0)) * SUPER
    foot_x, foot_y = (v * SUPER for v in project((x0, y0, z0)))
    jersey, trim = ((206, 54, 48), (255, 240, 226)) if player.home else ((40, 86, 168), (250, 214, 80))
    shorts = (164, 36, 34) if player.home else (28, 62, 128)
    stride = math.sin(9 * time + player.swing) * min(1.0, 0.35 + player.speed / 4)
    shooting = player.number == 23 and SHOT - 0.25 < time < THROUGH
    dribbling = (player.number == 7 and time < PASS) or (player.number == 23 and CATCH < time <= SHOT - 0.25)

    def at(across: float, above: float) -> Point:
        return foot_x + across * unit, foot_y - above * unit

    def limb(points: Sequence[Point], width: float, fill: Colour) -> None:
        thick = max(2, round(width * unit))
        draw.line(points, fill=fill, width=thick, joint="curve")
        for px, py in (points[0], points[-1]):
            draw.ellipse((px - thick / 2, py - thick / 2, px + thick / 2, py + thick / 2), fill=fill)

    dark: Colour = (int(player.skin[0] * 0.82), int(player.skin[1] * 0.82), int(player.skin[2] * 0.82))
    for sign, skin in ((-1, dark), (1, player.skin)):
        reach, lift = 0.36 * stride * sign, 0.16 * max(0.0, stride * sign)
        knee, foot = at(0.08 * sign + 0.7 * reach, 0.52 + lift), at(0.08 * sign + reach, 0.06 + lift)
        limb([at(0.08 * sign, 0.95), knee, foot], 0.13, skin)
        limb([at(0.08 * sign + 0.88 * reach, 0.22 + lift), foot], 0.12, (244, 244, 244))
        limb([foot, (foot[0] + 0.15 * unit, foot[1])], 0.12, (32, 32, 36) if player.home else (244, 248, 250))
        limb([at(0.07 * sign, 1.0), at(0.09 * sign + 0.5 * reach, 0.68 + 0.6 * lift)], 0.22, shorts)
    far = [at(-0.2, 1.5), at(-0.34, 1.24), at(-0.2 - 0.3 * stride, 1.06)]
    near = [at(0.2, 1.5), at(0.36, 1.24), at(0.3 + 0.3 * stride, 1.08)]
    if shooting:
        far, near = [at(-0.16, 1.5), at(-0.02, 1.78), at(0.16, 2.06)], [at(0.2, 1.5), at(0.34, 1.76), at(0.3, 2.12)]
    elif dribbling:
        near = [at(0.2, 1.5), at(0.42, 1.26), at(0.56, 1.10 + 0.06 * math.sin(14 * time))]
    limb(far, 0.10, dark)
    draw.polygon(
        [at(-0.24, 1.56), at(0.24, 1.56), at(0.22, 1.25), at(0.21, 0.92), at(-0.21, 0.92), at(-0.22, 1.25)], fill=jersey
    )
    for sign in (-1, 1):
        draw.line(
            [at(0.235 * sign, 1.54), at(0.215 * sign, 1.25), at(0.2 * sign, 0.93)],
            fill=trim,
            width=max(2, round(0.035 * unit)),
            joint="curve",
        )
    draw.line([at(-0.21, 0.94), at(0.21, 0.94)], fill=trim, width=max(2, round(0.03 * unit)))
    font = _font(0.33 * unit / SUPER)
    draw.text(
        at(0, 1.26),
        str(player.number),
        font=font,
        fill=trim,
        anchor="mm",
        stroke_width=max(1, round(0.012 * unit)),
        stroke_fill=trim,
    )
    limb(near, 0.10, player.skin)
    limb([at(0, 1.56), at(0.01, 1.66)], 0.11, dark)
    head = at(0.02, 1.78)
    draw.ellipse(
        (head[0] - 0.12 * unit, head[1] - 0.155 * unit, head[0] + 0.12 * unit, head[1] + 0.15 * unit), fill=player.skin
    )
    draw.pieslice(
        (head[0] - 0.13 * unit, head[1] - 0.17 * unit, head[0] + 0.12 * unit, head[1] + 0.11 * unit),
        165,
        350,
        fill=(32, 26, 24),
    )
    draw.line(
        [(head[0] - 0.11 * unit, head[1] - 0.05 * unit), (head[0] + 0.115 * unit, head[1] - 0.05 * unit)],
        fill=trim,
        width=max(2, round(0.035 * unit)),
    )


def _scoreboard(draw: ImageDraw.ImageDraw, time: float) -> None:
    left, top, right, bottom = (v * SUPER for v in (18, 14, 154, 40))
    draw.rounded_rectangle((left, top, right, bottom), radius=4 * SUPER, fill=(16, 20, 34))
    draw.rectangle((left + 46 * SUPER, top, left + 90 * SUPER, bottom), fill=(246, 246, 248))
    middle = (top + bottom) / 2
    clock = 12.4 - time
    home = 43 if time >= THROUGH else 41
    for x, text, size, fill in (
        (23, "RED", 13, (255, 120, 104)),
        (68, f"{home}-38", 14, (20, 24, 40)),
        (122, f"Q4 {clock:04.1f}", 13, (255, 216, 96)),
    ):
        draw.text((left + x * SUPER, middle), text, font=_font(size), fill=fill, anchor="mm")


def frames() -> Iterator[Pixels]:
    """Every frame of the clip, RGB `(360, 640, 3)`."""
    rng = np.random.default_rng(20)
    court = _floor(rng)
    _lines(ImageDraw.Draw(court))
    _stands(court, rng)
    order = sorted(PLAYERS, key=lambda player: -player.y)
    for number in range(FRAMES):
        time = number / RATE
        image = court.copy()
        mask = Image.new("L", image.size)
        shadows = ImageDraw.Draw(mask)
        for player in order:
            _shadow(shadows, player.place(time), 0.42)
        _shadow(shadows, ball_at(time), 0.15)
        small = mask.resize((WIDTH, HEIGHT), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(1.2))
        image.paste((30, 18, 10), mask=small.resize(image.size, Image.Resampling.BILINEAR))
        draw = ImageDraw.Draw(image)
        _basket(draw, front=False)
        ball_y = ball_at(time)[1]
        drawn = False
        for player in order:
            if not drawn and player.y < ball_y - 0.6:
                _ball(image, time)
                drawn = True
            _player(draw, player, time)
        if not drawn:
            _ball(image, time)
        _basket(draw, front=True)
        _scoreboard(draw, time)
        reduced = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.35))
        noisy = np.asarray(reduced, dtype=np.float64) + rng.normal(0, 1.0, (HEIGHT, WIDTH, 1))
        yield np.clip(noisy + 0.5, 0, 255).astype(np.uint8)


# --- the sound ---------------------------------------------------------------------------------------------------


def sound() -> npt.NDArray[np.float32]:
    """A thud for each bounce, a swish and a whistle `(samples,)` in [-1, 1]."""
    rng = np.random.default_rng(4)
    time = np.arange(SAMPLE_RATE * FRAMES // RATE) / SAMPLE_RATE
    out = 0.012 * rng.normal(0, 1, time.shape)

    def after(start: float) -> Floats:
        return np.clip(time - start, 0, None)

    for bounce in (*BOUNCES, LANDING):
        since = after(bounce)
        out += 0.5 * np.sin(2 * np.pi * 130 * since) * np.exp(-since * 28) * (time >= bounce)
    since = after(THROUGH)
    out += 0.25 * rng.normal(0, 1, time.shape) * np.exp(-since * 14) * (time >= THROUGH)
    whistle = (time >= 0.1) & (time < 0.34)
    out += 0.12 * np.sin(2 * np.pi * (2350 + 60 * np.sin(2 * np.pi * 32 * time)) * time) * whistle
    return np.clip(out, -1, 1).astype(np.float32)


# --- the camera --------------------------------------------------------------------------------------------------

KEYFRAME_TIMES = (0.0, 0.5, 1.0, 1.4, 1.8, 2.3, 2.7, 3.2, 3.6, 3.9)
WIDE, CLOSE = (180.0, 320.0), (135.0, 240.0)
"""Width and height of what the camera sees, both 9:16."""


def camera() -> dict[str, object]:
    """The keyframes file: a camera that follows the ball, comes closer for the shot, and slows the shot down."""
    keyframes = []
    for time in KEYFRAME_TIMES:
        x, _ = project(ball_at(time))
        width, height = CLOSE if time > SHOT else WIDE
        left = min(max(x - width / 2, 0.0), WIDTH - width)
        top = 24.0 if height == CLOSE[1] else 20.0
        keyframes.append({"time": time, "x": round(left, 1), "y": top, "width": width, "height": height})
    return {
        "version": 1,
        "interpolation": "smooth",
        "keyframes": keyframes,
        "segments": [{"start": 2.8, "end": 3.4, "speed": 0.5}],
    }


def camera_text() -> str:
    """`camera()` as the file holds it, one keyframe a line."""
    document = camera()
    lines = []
    for key, value in document.items():
        if isinstance(value, list):
            rows = ",\n    ".join(json.dumps(row) for row in value)
            lines.append(f'  "{key}": [\n    {rows}\n  ]')
        else:
            lines.append(f'  "{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


# --- the files ---------------------------------------------------------------------------------------------------


def write_clip(path: Path) -> None:
    """H.264 and AAC, BT.709, tagged."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=RATE)
        assert isinstance(video, av.VideoStream)
        context = video.codec_context
        context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range = 1
        context.options = {"crf": "22", "preset": "slow", "threads": "1"}
        voice = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=64_000)
        assert isinstance(voice, av.AudioStream)
        for number, pixels in enumerate(frames()):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=1, dst_color_range=1
            )
            picture.colorspace, picture.color_range = 1, 1
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        samples = sound()
        for start in range(0, len(samples), 1024):
            block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(voice.encode(block))
        container.mux(voice.encode())


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Draw the example clip and its camera.")
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parent, help="folder for both files")
    folder = parser.parse_args().to
    write_clip(folder / "court.mp4")
    (folder / "court.json").write_text(camera_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
