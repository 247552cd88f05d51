"""Section: two hours' worth of frames through the pipeline, watched for memory that grows and files that stay open."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tools.torture.cases import Case
from tools.torture.lab import Lab
from tools.torture.material import make_long
from tools.torture.nursery import Running
from tools.torture.report import Section

__all__ = ["endurance"]

FRAMES = 216_000
"""Two hours at 30 frames a second."""
RATE = 30
WARM = 0.2
"""Share of a phase after which memory has to be flat: allocators, caches and the camera's tables are filled by then."""
GROWTH_MIB = 16.0
"""Most that memory may grow over two hours' worth of frames, after the warming."""
EVERY = 0.25
"""Seconds between two looks."""


@dataclass(frozen=True)
class Look:
    """The child at one moment."""

    phase: str
    frame: int
    mib: float
    descriptors: int
    threads: int


def endurance(lab: Lab) -> list[Section]:
    """Sampling alone, which is as fast as the pipeline gets, and a network of one layer."""
    return [
        _long_run(lab, "endurance, sampling alone", ("--model", "lanczos"), FRAMES),
        _long_run(lab, "endurance, through a network", ("--model", "keyscale-tiny-x2"), FRAMES // 4),
    ]


def _long_run(lab: Lab, name: str, model: tuple[str, ...], full: int) -> Section:
    frames = max(5 * RATE, lab.count(full))
    section = Section(
        name=name,
        about=f"{frames} frames of {frames / RATE / 60:.0f} minutes of video and sound, {' '.join(model)}, in chunks "
        "of 8 s: made, joined, and verified by decoding all of it.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        make_long(folder / "in.mkv", frames=frames, rate=RATE)
        size = "16x16" if "lanczos" in model else "96x72"
        arguments = ("upscale", "in.mkv", "-o", "out.mp4", *model, "--size", size, "--fps", "source")
        arguments = (*arguments, "--preset", "ultrafast", "--progress", "json")
        looks: list[Look] = []
        case = Case(name=name, arguments=arguments, codes=frozenset({0}), seconds=7200, peak_mib=1024)
        ended = lab.attempt(case, folder, section, meanwhile=lambda running: _watch(running, looks))
        section.figures += _told(looks, frames, ended.seconds)
        faults = _faults(looks, frames)
        if faults:
            lab.fail(section, case, folder, ended, faults)
    section.seconds = time.monotonic() - began
    return section


def _watch(running: Running, looks: list[Look]) -> None:
    child = psutil.Process(running.pid)
    told = _Told(running.out)
    while not running.ended_within(EVERY):
        told.read()
        try:
            mib = child.memory_info().rss / 2**20
            looks.append(Look(told.phase, told.frame, mib, child.num_fds(), child.num_threads()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue  # it ends just now


class _Told:
    """What a run's events say, read as they come."""

    def __init__(self, path: Path) -> None:
        self.phase = "start"
        self.frame = 0
        self._path = path
        self._place = 0

    def read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._place += len(line)
                event = json.loads(line)
                self.phase = event.get("phase", self.phase)
                self.frame = event.get("frame", self.frame)


def _warm(looks: list[Look], phase: str) -> list[Look]:
    """What was seen of a phase after its first part."""
    of_phase = [look for look in looks if look.phase == phase]
    return of_phase[int(WARM * len(of_phase)) :]


def slope(looks: list[Look]) -> float:
    """MiB that memory grows by for each frame, by least squares; 0 where there is too little to tell."""
    if len(looks) < 8 or looks[-1].frame == looks[0].frame:
        return 0.0
    frames, memory = np.array([look.frame for look in looks]), np.array([look.mib for look in looks])
    return float(np.polyfit(frames, memory, 1)[0])


def _faults(looks: list[Look], frames: int) -> list[str]:
    faults = []
    for phase in ("upscale", "verify"):
        warm = _warm(looks, phase)
        # Over so few frames as a tenth has, the same growth is within the noise of the allocator.
        grown = slope(warm) * frames
        if grown > GROWTH_MIB:
            faults.append(f"memory grows by {grown:.1f} MiB over {frames} frames of {phase}")
    warm = _warm(looks, "upscale")
    for what, counts in (
        ("descriptors", [look.descriptors for look in warm]),
        ("threads", [look.threads for look in warm]),
    ):
        # The number breathes with the chunk that is open; a leak would show in what the second half needs at least.
        half = len(counts) // 2
        if half > 8 and min(counts[half:]) > max(counts[:half]):
            faults.append(f"open {what} grow from {max(counts[:half])} to {min(counts[half:])}")
    return faults


def _told(looks: list[Look], frames: int, seconds: float) -> list[str]:
    lines = [f"{frames} frames in {seconds:.0f} s, {frames / seconds:.0f} a second from start to verified file."]
    for phase in dict.fromkeys(look.phase for look in looks):
        warm = _warm(looks, phase)
        if len(warm) < 8:
            continue
        memory = [look.mib for look in warm]
        descriptors = [look.descriptors for look in warm]
        threads = [look.threads for look in warm]
        lines.append(
            f"{phase}: {min(memory):.0f} to {max(memory):.0f} MiB, growth {slope(warm) * FRAMES:+.1f} MiB for each "
            f"{FRAMES} frames; {min(descriptors)} to {max(descriptors)} descriptors, "
            f"{min(threads)} to {max(threads)} threads."
        )
    return lines
