"""What a case of the fuzz has to give, worked out in fractions from how it was drawn, and a result held against it.

Nothing here is of the engine: what is a rule of its own (how long a frame stands before the camera moves over it, when
a sound counts as longer than its picture) is written down once more, from docs/design.md and docs/keyframes.md.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from keyscale.engine.source.sound import samples_of
from support.fuzz import CELL, CELLS, CELLS_AT, DISPLAY, MS, SIGMA, SPOTS, WHOLE, Case, Key, Rect

__all__ = ["Clock", "cover", "faults"]

ONSET, SLOWED = 0.002, 0.0005
"""Seconds by which a burst may be early or late, and of the source's, which slow motion makes longer."""
NEAR = 0.2
"""Source pixels by which a spot may stand elsewhere: what lossy codecs leave of a soft spot in a tiny picture."""
EDGE = Fraction(6, 100)
"""Seconds about a joint, an end or a change of speed in which a burst may be cut or smeared."""
ROUNDED = 0.001
"""Instead of the latter where times are milliseconds: FFmpeg rounds both ends of an encoder's padding."""
PACKET = 2048
"""Samples of a packet of sound at most, those of Windows Media Audio."""
CHANNELS = {".mp4": 8, ".mov": 16, ".mkv": 16}
"""That a result has at most: AAC's."""
PLACED = {"mono", "stereo", "3.0", "5.1", "5.1(side)", "7.1"}
"""Layouts that every encoder of a result has."""
AC3_DELAY = 256
"""Samples that AC-3 needs to begin, which AVI, having no times, cannot say."""
PADDING = Fraction(3, 10)
"""Seconds by which codecs and containers may make a source longer than it is meant to be."""


def cover(rect: Rect, target: tuple[int, int] | None) -> Rect:
    """A rectangle moved inside the frame, and cut about its centre to the shape of a target."""
    x, y, width, height = rect
    x = min(max(x, 0.0), DISPLAY[0] - width)
    y = min(max(y, 0.0), DISPLAY[1] - height)
    if target is None:
        return x, y, width, height
    aspect = target[0] / target[1]
    across, down = min(width, height * aspect), min(height, width / aspect)
    return x + (width - across) / 2, y + (height - down) / 2, across, down


class Clock:
    """Seconds of the source and of the result."""

    def __init__(self, case: Case) -> None:
        self.case = case
        picture = case.times[-1] + case.last
        track, wanted = case.track, not case.until_video
        self.end, self.latest = picture, picture
        if track is not None and wanted and track.ends >= picture:
            self.latest = track.ends + PADDING
        if track is not None and wanted and track.ends > picture + Fraction(1, 5):
            # What may be padding of an encoder does not count.
            self.end = track.ends - (0 if track.codec.startswith("pcm_") else Fraction(PACKET, track.rate))
        elif case.rate is None:
            # How long the last of uneven frames stands is told by few containers.
            self.end, self.latest = case.times[-1] + MS, self.latest + PADDING
        self.start = case.start.meant if case.start else Fraction(0)
        if case.end is not None and case.end.meant < self.end:
            self.end = self.latest = case.end.meant
        self.rate = case.fps or case.rate or Fraction(0)

    def stretches(self, end: Fraction) -> list[tuple[Fraction, Fraction, Fraction]]:
        """Start and end in the source, and speed, of what is played until `end`."""
        made, at = [], self.start
        for a, b, speed in self.case.camera.segments if self.case.camera else ():
            first, last = max(a.meant, at), min(b.meant, end)
            if first < last:
                made += [(at, first, Fraction(1)), (first, last, speed)]
                at = last
        made.append((at, end, Fraction(1)))
        return [each for each in made if each[0] < each[1]]

    def length(self, end: Fraction | None = None) -> Fraction:
        """Seconds of the result."""
        each = self.stretches(self.end if end is None else end)
        return sum(((b - a) / speed for a, b, speed in each), Fraction(0))

    def most_frames(self) -> int:
        """That the result may have."""
        return math.floor(self.length(self.latest) * self.rate + Fraction(1, 2))

    def to_source(self, output: Fraction) -> Fraction:
        """The second of the source that is shown at one of the result."""
        for a, b, speed in self.stretches(self.latest):
            if output < (b - a) / speed:
                return a + output * speed
            output -= (b - a) / speed
        return self.latest

    def to_output(self, time: Fraction) -> tuple[Fraction, Fraction] | None:
        """Inversely, and the speed there; None where it is not played."""
        output = Fraction(0)
        for a, b, speed in self.stretches(self.latest):
            if a <= time < b:
                return output + (time - a) / speed, speed
            output += (b - a) / speed
        return None


def expected(case: Case, count: int) -> list[list[tuple[int, Rect]]]:
    """Which source frame each of the `count` frames of a result shows, and what the camera sees of it.

    There is more than one answer where rounding decides, or the container: how long the last frame is held is its
    affair, and so is whether the camera moves over it.
    """
    clock = Clock(case)
    moments = [clock.to_source(Fraction(n) / clock.rate) for n in range(count)]
    # Containers round times of frames, and so of edges that are meant for frames; a tick is forgiven.
    loose = 2 * min(case.tick, Fraction(2, 1000)) + Fraction(6, 10000)
    sure = [_last_at(case.times, time) for time in moments]
    usual = sorted(b - a for a, b in pairwise(case.times))[(len(case.times) - 1) // 2]
    made = []
    for index, time in zip(sure, moments, strict=True):
        begins = case.times[index]
        last = _last_at(case.times, time + loose) if begins != time else index
        ends = case.times[index + 1] if index + 1 < len(case.times) else None
        stands = case.last if ends is None else ends - begins
        repeats = sure.count(index)
        long = (stands > Fraction(1, 4) or stands > usual * Fraction(5, 2)) and repeats > 2
        looked = [max(time, begins)] if long else [begins]
        if repeats > 2 and (ends is None or repeats == 3):
            looked = [begins, max(time, begins)]
        answers = [(index, rect_at(case, at)) for at in looked]
        made.append(answers + [(n, rect_at(case, case.times[n])) for n in range(index + 1, last + 1)])
    return made


def _last_at(times: tuple[Fraction, ...], time: Fraction) -> int:
    return max((n for n, at in enumerate(times) if at <= time), default=0)


def rect_at(case: Case, time: Fraction) -> Rect:
    """What the camera sees at a second of the source, in displayed pixels, moved inside and fitted."""
    target = case.target if case.fit == "cover" else None
    if case.camera is None:
        return cover(WHOLE, target)
    keys = case.camera.keys
    before = max((n for n, key in enumerate(keys) if key.time.meant <= time), default=0)
    after = min(before + 1, len(keys) - 1)
    a, b = keys[before], keys[after]
    return cover(a.rect if a.hold or a is b or time < a.time.meant else _between(a, b, time), target)


def _between(a: Key, b: Key, time: Fraction) -> Rect:
    part = float((time - a.time.meant) / (b.time.meant - a.time.meant))
    x, y, w, h = (p + (q - p) * part for p, q in zip(a.rect, b.rect, strict=True))
    return x, y, w, h


class View:
    """From displayed source pixels to those of the result, for one rectangle."""

    def __init__(self, case: Case, rect: Rect) -> None:
        width, height = rect[2:]
        size, unclear = case.target, False
        if case.fit == "contain":
            # Bars are of whole pixels, so the picture between them is too.
            scale = min(size[0] / width, size[1] / height)
            size = round(width * scale), round(height * scale)
            # How a half is rounded hangs on the last digits of the frame's time.
            unclear = any(abs(side * scale % 1 - 0.5) < 0.05 for side in (width, height))
        self.scale = size[0] / width, size[1] / height
        self.near = NEAR + unclear / min(self.scale)
        self._rect = rect
        self._at = (case.target[0] - size[0]) // 2, (case.target[1] - size[1]) // 2
        self._turn = math.radians(case.camera.rotation) if case.camera else 0.0

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        cos, sin = math.cos(self._turn), math.sin(self._turn)
        x, y = x - DISPLAY[0] / 2, y - DISPLAY[1] / 2
        x, y = cos * x + sin * y + DISPLAY[0] / 2, cos * y - sin * x + DISPLAY[1] / 2
        return (
            self._at[0] + (x - self._rect[0]) * self.scale[0],
            self._at[1] + (y - self._rect[1]) * self.scale[1],
        )


def number_in(picture: npt.NDArray[np.float64], view: View) -> int:
    """The number that a frame shows."""
    number = 0
    for bit in range(CELLS[0] * CELLS[1]):
        row, column = divmod(bit, CELLS[0])
        x, y = view(CELLS_AT[0] + CELL * (column + 0.5), CELLS_AT[1] + CELL * (row + 0.5))
        part = picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
        number |= int(part.mean() > 125) << bit
    return number


def astray(picture: npt.NDArray[np.float64], view: View) -> float:
    """Source pixels by which the spots stand elsewhere than the camera's rectangle says."""
    worst = 0.0
    for spot in SPOTS:
        x, y = view(*spot)
        reach = [math.ceil(2.6 * SIGMA * scale) for scale in view.scale]
        left, top = max(0, int(x) - reach[0]), max(0, int(y) - reach[1])
        part = np.clip(picture[top : int(y) + reach[1] + 1, left : int(x) + reach[0] + 1] - 125, 0, None)
        if part.sum() < 50:
            return math.inf
        found = (
            float((part.sum(0) * (np.arange(part.shape[1]) + left + 0.5)).sum() / part.sum()),
            float((part.sum(1) * (np.arange(part.shape[0]) + top + 0.5)).sum() / part.sum()),
        )
        worst = max(worst, *(abs(a - b) / s for a, b, s in zip(found, (x, y), view.scale, strict=True)))
    return worst


def faults(case: Case, result: Path) -> list[str]:
    """What is wrong with the result of a case: nothing, if all is well."""
    with av.open(result) as container:
        stream = container.streams.video[0]
        pictures, stamps = [], []
        for frame in container.decode(stream):
            pictures.append(frame.to_ndarray(format="gray").astype(np.float64))
            stamps.append(Fraction(frame.pts or 0) * (frame.time_base or 0))
    return [*_faults_of_pictures(case, pictures, stamps), *_faults_of_sound(case, result, stamps[0])]


def _faults_of_pictures(case: Case, pictures: list[npt.NDArray[np.float64]], stamps: list[Fraction]) -> list[str]:
    clock, told = Clock(case), []
    # The borderline of rounding, and a last frame whose length its container has rounded.
    blur = Fraction(1, 10) + (case.tick * clock.rate if clock.end > case.times[-1] else 0)
    least = math.floor(clock.length() * clock.rate + Fraction(1, 2) - blur)
    most = math.floor(clock.length(clock.latest) * clock.rate + Fraction(1, 2) + blur)
    if not max(1, least) <= len(pictures) <= max(1, most):
        told.append(f"{len(pictures)} frames instead of {least}..{most}")
    if any(abs(at - stamps[0] - Fraction(n) / clock.rate) > Fraction(6, 10000) for n, at in enumerate(stamps)):
        told.append(f"frames do not stand at {clock.rate} a second: {[float(at) for at in stamps[:5]]}")
    for n, (picture, answers) in enumerate(zip(pictures, expected(case, len(pictures)), strict=True)):
        if picture.shape != case.target[::-1]:
            return [*told, f"the picture is {picture.shape[::-1]}"]
        wrong = [_fault_of_picture(picture, index, View(case, rect)) for index, rect in answers]
        if all(wrong):
            told.append(f"frame {n}: " + ", or ".join(wrong))
    return told


def _fault_of_picture(picture: npt.NDArray[np.float64], index: int, view: View) -> str:
    if (number := number_in(picture, view)) != index:
        return f"{number} is shown instead of {index}"
    off = astray(picture, view)
    return f"of {index} the camera is {off:.2f} px off" if off > view.near else ""


def _faults_of_sound(case: Case, result: Path, zero: Fraction) -> list[str]:
    with av.open(result) as container:
        if case.track is None:
            return ["there is sound"] if container.streams.audio else []
        if not container.streams.audio:
            return ["the sound is lost"]
        channels = container.streams.audio[0].codec_context.layout.nb_channels
        sound, start, rate = _decoded(container)
    if channels < min(av.AudioLayout(case.track.layout).nb_channels, CHANNELS[case.output]):
        return [f"{case.track.layout} became {channels} channels"]
    heard = [start - float(zero) + place / rate for place in _onsets(sound.max(axis=0), rate)]
    clock = Clock(case)
    joint = [case.times[case.joint]] if case.joint else []
    edges = [clock.start, clock.end, *joint, *(edge for a, b, _ in clock.stretches(clock.latest) for edge in (a, b))]
    wanted = []
    late = Fraction(AC3_DELAY, case.track.rate) if case.kind.suffix == ".avi" and case.track.codec == "ac3" else 0
    for burst in (time + late for time in case.track.bursts):
        if (place := clock.to_output(burst)) is not None:
            clear = min(abs(burst - edge) for edge in edges) > EDGE and burst < clock.end
            near = ONSET + (ROUNDED if case.kind.tick == MS else SLOWED) * max(0.0, float(1 / place[1]) - 1)
            wanted.append((float(place[0]), near if clear else None))
        # A codec may let it be heard just before it, at the edge of what is played.
        elif clock.start - EDGE < burst < clock.end + EDGE:
            wanted.append((0.0 if burst < clock.start else float(clock.length()), None))
    quiet = [n for n, each in enumerate(sound) if each.max() < 0.3 * sound.max()]
    if any(near for _, near in wanted) and case.track.layout in PLACED:
        low = [n for n, name in enumerate(av.AudioLayout(case.track.layout).channels) if name.name == "LFE"]
        # Some codecs keep all but low frequencies from that channel.
        if quiet not in ([], low):
            return [f"channels {quiet} are quiet"]
    told = [
        f"no burst at {at:.4f}, but at {[round(time, 4) for time in heard]}"
        for at, near in wanted
        if near and not any(abs(at - time) <= near for time in heard)
    ]
    told += [
        f"a burst at {time:.4f}, instead of {[round(at, 4) for at, _ in wanted]}"
        for time in heard
        if not any(abs(at - time) <= (near or 0.25) for at, near in wanted)
    ]
    return told


def _decoded(container: av.container.InputContainer) -> tuple[npt.NDArray[np.float32], float, int]:
    """Magnitudes of a result's first track `(channels, samples)`, the first one's time, and samples a second."""
    stream = container.streams.audio[0]
    start, parts = None, []
    for frame in container.decode(stream):
        start = float((frame.pts or 0) * (frame.time_base or 0)) if start is None else start
        parts.append(np.abs(samples_of(frame)))
    return np.concatenate(parts, axis=1), start or 0.0, stream.rate


def _onsets(sound: npt.NDArray[np.float32], rate: int) -> list[int]:
    """Samples at which bursts begin."""
    loud = np.flatnonzero(sound > 0.4 * max(float(sound.max()), 0.1))
    return [int(place) for n, place in enumerate(loud) if n == 0 or place - loud[n - 1] > 0.02 * rate]
