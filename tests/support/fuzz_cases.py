"""Draws a case of the fuzz from its seed."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

from support.fuzz import (
    DISPLAY,
    KINDS,
    MS,
    RATES,
    SEEN,
    SOUND,
    WHOLE,
    Camera,
    Case,
    Key,
    Kind,
    Moment,
    Rect,
    Shape,
    Track,
)
from support.fuzz_oracle import Clock, cover

__all__ = ["case_of"]

MOST_FRAMES = 150
"""Of a result: a case has to take well under a second."""
TARGETS = [(96, 72), (128, 96), (160, 120), (96, 96), (72, 96), (80, 140)]
SPEEDS = [Fraction(n) for n in ("0.25", "0.5", "0.8", "1.5", "2", "3")]


def case_of(seed: int) -> Case:
    """The case of a seed: the same on every machine."""
    rng = Random(f"keyscale fuzz {seed}")
    while True:
        case = _drawn(rng, seed)
        clock = Clock(case)
        if clock.most_frames() <= MOST_FRAMES and clock.length() > Fraction(1, 5):
            return case


def _drawn(rng: Random, seed: int) -> Case:
    # What people have most, and what can be told most about.
    kind = rng.choices(KINDS, weights=[3 if kind.variable and kind.begins else 1 for kind in KINDS])[0]
    codec = rng.choice(kind.video)
    rate, times, last = _times(rng, kind, codec)
    joint = rng.randrange(6, len(times) - 5) if kind.joins and rate and rng.random() < 0.2 else 0
    base = rng.choice(kind.bases) if kind.bases and rng.random() < 0.5 else None
    offset = Fraction(0)
    if kind.begins and not joint and rng.random() < 0.3:
        offset = Fraction(rng.choice([7, 30, 600])) / rate if rate else Fraction(rng.choice([3, 40]), 2)
    track = None
    if kind.sound and rng.random() < 0.85:
        track = _track(rng, kind, times[-1] + last, late=kind.begins and not joint, early=offset > 1, joint=bool(joint))
    tick = Fraction(1, base) if base else kind.tick or (1 / rate if rate else MS)
    start, end = _trim(rng, rate, times)
    target, fit = rng.choice(TARGETS), rng.choice(["cover", "cover", "contain", "stretch"])
    tries = range(20 if rng.random() < 0.85 else 0)
    camera = next(filter(None, (_camera(rng, rate, times, target, fit) for _ in tries)), None)
    if camera is None and not _sees(WHOLE, target, fit, 0.0):
        fit = "contain"
    return Case(
        seed=seed,
        kind=kind,
        codec=codec,
        rate=rate,
        times=times,
        last=last,
        base=base,
        offset=offset,
        joint=joint,
        shape=_shape(rng, kind, codec),
        track=track,
        start=start,
        end=end,
        camera=camera,
        target=target,
        fit=fit,
        fps=None if rate and rng.random() < 0.4 else rng.choice([r for r in RATES if r >= 10]),
        until_video=rng.random() < 0.2,
        output=rng.choice([".mp4", ".mp4", ".mkv", ".mov"]),
        tick=tick,
    )


def _times(rng: Random, kind: Kind, codec: str) -> tuple[Fraction | None, tuple[Fraction, ...], Fraction]:
    """Rate, times of the frames, and how long the last one stands."""
    uneven = kind.variable and codec not in {"mpeg2", "mpeg2b", "mpeg1", "prores"} and rng.random() < 0.4
    if not uneven:
        rates = [r for r in kind.rates if codec not in {"mpeg2", "mpeg2b", "mpeg1"} or r >= 24]
        rate = rng.choice(rates)
        count = max(16, round(rate * Fraction(rng.randrange(90, 190), 100)))
        return rate, tuple(n / rate for n in range(min(count, 70))), 1 / rate
    usual = rng.choice([20, 30, 40, 50, 100])
    steps = [rng.choice([1, 1, 1, 2]) * usual for _ in range(24)]
    if rng.random() < 0.5:
        steps = [10 * rng.randrange(usual // 10, usual // 5 + 1) for _ in steps]
    for _ in range(rng.randrange(1, 3)):
        steps[rng.randrange(24)] = 10 * rng.randrange(60, 90)
    total, times = 0, [0]
    for step in steps:
        total += step
        times.append(total)
    return None, tuple(Fraction(time, 1000) for time in times), Fraction(steps[-1], 1000)


def _track(rng: Random, kind: Kind, picture: Fraction, *, late: bool, early: bool, joint: bool) -> Track:
    codec = rng.choice(kind.sound)
    layouts, rates = SOUND[codec]
    if kind.suffix in {".mxf", ".flv", ".3gp"}:
        layouts = layouts[:2]
    if kind.suffix in {".avi", ".nut"}:
        layouts = [layout for layout in layouts if layout != "9 channels"]
    rate = 48000 if kind.suffix == ".mxf" else rng.choice(rates)
    if kind.suffix in {".mp4", ".flv"} and rate < 16000:
        rate = 22050
    begins, ends = Fraction(0), picture
    # MXF lays sound out by the pictures.
    if not joint and kind.suffix != ".mxf":
        if late and rng.random() < 0.3:
            begins = Fraction(rng.choice([200, 400, 700]), 1000)
        elif early and rng.random() < 0.4:
            begins = Fraction(-rng.choice([300, 600]), 1000)
        ends = max(begins, ends) + Fraction(rng.choice([0, 0, 0, 500, 900]), 1000)
        if rng.random() < 0.2:
            ends = max(begins + Fraction(1, 5), picture - Fraction(2, 5))
    return Track(codec, rng.choice(layouts), rate, begins, max(ends, begins + Fraction(1, 5)))


def _shape(rng: Random, kind: Kind, codec: str) -> Shape:
    chance = rng.random()
    if kind.suffix in {".mp4", ".mov"} and chance < 0.25:
        return Shape(turned=rng.choice([90, 180, 270]))
    if codec == "mjpeg" and kind.suffix in {".avi", ".mov", ".mkv"} and chance < 0.7:
        return Shape(exif=True)
    if kind.suffix == ".mkv" and codec not in {"mjpeg", "prores"} and chance < 0.2:
        return Shape(crop=rng.choice([(16, 2, 8, 16), (2, 4, 14, 12), (10, 6, 32, 10)]), by_container=True)
    if codec in {"h264", "h264b"} and chance < 0.4 and kind.suffix != ".flv":
        return Shape(crop=rng.choice([(16, 0, 0, 16), (2, 4, 14, 12), (0, 6, 32, 10)]))
    if codec in {"h264", "h264b", "hevc"} and kind.suffix not in {".h264", ".avi"} and chance > 0.8:
        return Shape(aspect=rng.choice([Fraction(4, 3), Fraction(2), Fraction(2, 3)]))
    return Shape()


def moment(rng: Random, rate: Fraction | None, times: tuple[Fraction, ...], index: int, *, between: bool) -> Moment:
    """The time of frame `index`, or one halfway to the next, as people write it."""
    following = times[index + 1] if index + 1 < len(times) else times[-1] + Fraction(1, 50)
    if between:
        written = f"{float((times[index] + following) / 2):.6f}"
        return Moment(written, Fraction(written))
    places = 3 if rate is None else rng.choice([3, 3, 6])
    return Moment(f"{float(times[index]):.{places}f}", times[index])


def _trim(rng: Random, rate: Fraction | None, times: tuple[Fraction, ...]) -> tuple[Moment | None, Moment | None]:
    count = len(times)
    start = moment(rng, rate, times, rng.randrange(1, count // 2), between=rng.random() < 0.3)
    end = moment(rng, rate, times, rng.randrange(count // 2 + 1, count), between=rng.random() < 0.3)
    return start if rng.random() < 0.55 else None, end if rng.random() < 0.5 else None


def _camera(
    rng: Random,
    rate: Fraction | None,
    times: tuple[Fraction, ...],
    target: tuple[int, int],
    fit: str,
) -> Camera | None:
    form = rng.choice(["short", "long", "long", "percent", "normalized", "ms", "frames", "csv", "lines", "source"])
    form = "long" if form == "frames" and rate is None else form
    long = form not in {"short", "csv", "lines"}
    rotation = rng.choice([-5.0, -2.5, 1.5, 4.0]) if long and rng.random() < 0.25 else 0.0
    way = rng.choice(["still", "pan", "pan", "hold", "hold", "cut", "cut"])
    count = len(times)
    number = 1 if way == "still" else rng.randrange(2, 4)
    at = sorted(rng.sample(range(1, count - 1), number - 1))
    if any(b - a < 3 for a, b in zip([0, *at], [*at, count], strict=True)):
        return None
    keys: list[Key] = []
    for place, index in enumerate([0, *at]):
        rect = _rect(rng, target, fit, rotation)
        if rect is None:
            return None
        cut = way in {"hold", "cut"}
        between = bool(place) and form != "frames" and cut and rng.random() < 0.3
        time = moment(rng, rate, times, index, between=between)
        hold = way == "hold" and form != "csv"
        if way == "cut" and place:
            keys.append(Key(time, keys[-1].rect))
        keys.append(Key(time, rect, hold=hold))
    segments: tuple[tuple[Moment, Moment, Fraction], ...] = ()
    if long and form != "frames" and rng.random() < 0.45:
        edges = sorted(rng.sample(range(count), rng.choice([2, 4])))
        moments = [moment(rng, rate, times, index, between=rng.random() < 0.3) for index in edges]
        pairs = list(zip(moments[::2], moments[1::2], strict=True))
        segments = tuple((a, b, rng.choice(SPEEDS)) for a, b in pairs)
    trim = long and form != "frames" and rng.random() < 0.5
    return Camera(tuple(keys), form, rotation, segments, trim)


def _rect(rng: Random, target: tuple[int, int], fit: str, rotation: float) -> Rect | None:
    """A rectangle that sees what has to be seen, by its size's quarter beyond the frame at most."""
    aspect = target[0] / target[1]
    for _ in range(200):
        width = rng.uniform(84, DISPLAY[0])
        height = width / aspect if fit == "cover" and rng.random() < 0.7 else rng.uniform(63, DISPLAY[1])
        if height > DISPLAY[1]:
            continue
        x, y = rng.uniform(-3, DISPLAY[0] - width + 3), rng.uniform(-3, DISPLAY[1] - height + 3)
        rect = (round(x, 3), round(y, 3), round(width, 3), round(height, 3))
        if _sees(rect, target, fit, rotation):
            return rect
    return None


def _sees(rect: Rect, target: tuple[int, int], fit: str, rotation: float) -> bool:
    x, y, width, height = cover(rect, target) if fit == "cover" else cover(rect, None)
    spare = 1.5 + math.tan(math.radians(abs(rotation))) * 40
    left, top, right, bottom = SEEN
    return x <= left - spare and y <= top - spare and x + width >= right + spare and y + height >= bottom + spare
