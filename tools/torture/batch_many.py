"""Section: 200 clips in one run, watched for what grows; then the run that skips them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tools.torture.batches import Batch, Place, fail, left_over, statuses
from tools.torture.lab import Lab
from tools.torture.material import KINDS, make_video
from tools.torture.report import Section

__all__ = ["Look", "batch_many", "growth", "risen"]

CLIPS = 200
"""How many in full."""
LEAST = 24
"""How many at least: fewer tell nothing of growth."""

SIZES = ((64, 48), (32, 24), (56, 42), (28, 22), (60, 46), (36, 28))
"""Of the sources: by turns they take the x2 and the x4 network to reach the target."""
TARGET = "96x72"
FLAGS = (
    *("in", "-o", "out", "--whole-frame", "--size", TARGET, "--fps", "source", "--preset", "ultrafast"),
    *("--jobs", "1", "--progress", "json"),
)

WARM = 0.25
"""Share of the clips after which memory has to be flat: networks, graphs and the heap's arenas are there by then."""
WARM_CLIPS = 12
"""The same as a number, at least: each of the `SIZES` twice."""
GROWTH_MIB = 16.0
"""Most that a process may grow by from the warming on; what moves without a leak is a few MiB."""
EVERY_S = 0.1
SECONDS = 3600.0
SKIP_SECONDS = 1.0
"""Longest that a clip that is skipped may take, on two busy cores."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A process at one moment."""

    clips: int
    """Clips that had ended."""
    mib: float
    """Resident."""
    descriptors: int
    threads: int


def batch_many(lab: Lab) -> Section:
    """Make them, look, and skip them."""
    count = max(LEAST, lab.count(CLIPS))
    section = Section(
        name="many clips",
        about=f"{count} clips with sound in one run of one worker, through x2 and x4 networks by turns: memory, "
        "descriptors and threads of the batch's process, its worker and its scout. Then the same command "
        "again, which skips them all.",
    )
    began = time.monotonic()
    with lab.folder() as root:
        place = Place.made_in(root)
        names = _make(place.folder / "in", count)
        _first(lab, section, place, names)
        _second(lab, section, place, names)
    section.seconds = time.monotonic() - began
    return section


def _make(folder: Path, count: int) -> list[str]:
    """Clips of different content, length and size."""
    folder.mkdir()
    names = [f"clip{number}.mp4" for number in range(count)]
    for number, name in enumerate(names):
        make_video(folder / name, KINDS[0], frames=12 + number % 7, size=SIZES[number % len(SIZES)])
    return names


def _first(lab: Lab, section: Section, place: Place, names: Sequence[str]) -> None:
    looks: dict[str, list[Look]] = {"batch": [], "worker-0": [], "scout": []}
    seen: dict[int, str] = {}
    with Batch(place, FLAGS) as batch:
        ended_clips = 0
        while batch.is_up and time.monotonic() - batch.began < SECONDS:
            fresh = [event["status"] for event in batch.look() if event["event"] == "clip"]
            ended_clips += sum(status in {"done", "failed"} for status in fresh)
            _look(batch, ended_clips, looks, seen)
            time.sleep(EVERY_S)
        ended = batch.wait(SECONDS)
        faults = _faults(batch, len(names), "done", ended.code) + left_over(place, names)
        if len(seen) > len(looks):
            faults.append(f"{len(seen)} processes were there: {sorted(seen.values())}")
        warm = {who: _warm(seen_of, len(names)) for who, seen_of in looks.items()}
        for who in looks:
            faults += _grown(who, warm[who])
        networks = {clip["model"] for clip in (batch.report or {"clips": []})["clips"]}
        if len(networks) < 2:
            faults.append(f"only {networks} ran")
        peak = max(look.mib for of in looks.values() for look in of)
        section.add(f"{len(names)} clips", f"exit {ended.code}", seconds=ended.seconds, peak_mib=peak)
        section.figures.append(f"{len(names)} clips in {ended.seconds:.0f} s, {ended.seconds / len(names):.2f} s each.")
        section.figures += [_told(who, looks[who], warm[who]) for who in looks]
        if faults:
            fail(lab, section, "many clips", place, batch, ended, faults)


def _second(lab: Lab, section: Section, place: Place, names: Sequence[str]) -> None:
    before = {name: (place.out / name).stat().st_mtime_ns for name in names if (place.out / name).exists()}
    with Batch(place, FLAGS) as batch:
        ended = batch.wait(SECONDS)
        faults = _faults(batch, len(names), "skipped", ended.code) + left_over(place, names)
        if any((place.out / name).stat().st_mtime_ns != at for name, at in before.items()):
            faults.append("a result was written again")
        each = ended.seconds / len(names)
        if each > SKIP_SECONDS:
            faults.append(f"{each:.2f} s for a clip that is skipped")
        section.add("all skipped", f"exit {ended.code}", seconds=ended.seconds, peak_mib=ended.peak_mib)
        section.figures.append(f"All skipped in {ended.seconds:.1f} s with start and end, {1000 * each:.0f} ms a clip.")
        if faults:
            fail(lab, section, "many clips, again", place, batch, ended, faults)


def _look(batch: Batch, clips: int, looks: dict[str, list[Look]], seen: dict[int, str]) -> None:
    for process in (psutil.Process(batch.process.pid), *batch.workers()):
        try:
            words = process.cmdline()
            who = next((word for word in words if word in looks), "batch")
            rss = process.memory_info().rss / 2**20
            looks[who].append(Look(clips=clips, mib=rss, descriptors=process.num_fds(), threads=process.num_threads()))
            seen[process.pid] = who
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ends just now


def _faults(batch: Batch, count: int, status: str, code: int) -> list[str]:
    faults = [] if code == 0 else [f"exit code {code}"]
    found = statuses(batch.report)
    return faults if found == [status] * count else [*faults, f"{found.count(status)} of {count} were {status}"]


def _warm(looks: list[Look], count: int) -> list[Look]:
    """What was seen after the warming, and before the last clips, after which a process has nothing to do any more."""
    return [look for look in looks if max(WARM * count, WARM_CLIPS) <= look.clips < count - 1]


def growth(looks: Sequence[Look]) -> float:
    """MiB that memory grows by for each clip, by least squares; 0 where there is too little to tell."""
    if len(looks) < 8 or looks[-1].clips == looks[0].clips:
        return 0.0
    return float(np.polyfit([look.clips for look in looks], [look.mib for look in looks], 1)[0])


def risen(counts: Sequence[int]) -> bool:
    """Whether the second half needs more at its least than the first half at its most: a number that only grows."""
    half = len(counts) // 2
    return half > 3 and min(counts[half:]) > max(counts[:half])


def _grown(who: str, warm: Sequence[Look]) -> list[str]:
    faults = []
    # Over the clips that were looked at: a short run's few MiB of chance are no leak in a long one.
    count = warm[-1].clips - warm[0].clips if warm else 0
    grown = growth(warm) * count
    if grown > GROWTH_MIB:
        faults.append(f"the memory of {who} grows by {grown:.1f} MiB over {count} clips")
    if risen([look.descriptors for look in warm]):
        faults.append(f"{who} has more and more descriptors")
    if risen([look.threads for look in warm]):
        faults.append(f"{who} has more and more threads")
    return faults


def _told(who: str, looks: Sequence[Look], warm: Sequence[Look]) -> str:
    name = {"batch": "The batch's own process", "worker-0": "The worker", "scout": "The scout"}[who]
    if not warm:
        peak = max((look.mib for look in looks), default=0.0)
        return f"{name}: {peak:.0f} MiB at most; it had nothing left to do after the warming."
    memory, descriptors, threads = (
        [look.mib for look in warm],
        [look.descriptors for look in warm],
        [look.threads for look in warm],
    )
    return (
        f"{name}: {min(memory):.0f} to {max(memory):.0f} MiB after the warming, growth "
        f"{1024 * growth(warm):+.0f} KiB a clip; "
        f"{min(descriptors)} to {max(descriptors)} descriptors, {min(threads)} to {max(threads)} threads."
    )
