"""Section: two batches over one folder, begun at random offsets, one of them killed at a random moment."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import psutil

from tools.torture.batch_kills import FLAGS, LIMIT_S, NAMES, make_clips
from tools.torture.batches import Batch, Place, fail, left_over, same, statuses
from tools.torture.lab import Lab
from tools.torture.nursery import Ended
from tools.torture.report import Section

__all__ = ["PAIRS", "batch_pairs"]

PAIRS = 40
"""How many in full."""


def batch_pairs(lab: Lab) -> Section:
    """Run two at once, kill one or none, and look at what the other has made."""
    section = Section(
        name="two batches at once",
        about="The same batch of three clips twice over one output folder, the second begun at a random moment of "
        "the first, each with one worker or two. In three of four cases one of them is killed at a random "
        "moment (alone, or with all of its processes). The other one ends with exit code 0, every result "
        "equals an undisturbed run's, and nothing is left; what one that was killed left after the other had "
        "looked for such things is gone after the next run.",
    )
    began = time.monotonic()
    drawn = random.Random(f"{lab.seed} pairs")  # noqa: S311
    ends: Counter[str] = Counter()
    with lab.folder() as root:
        whole = Place.made_in(root / "undisturbed")
        make_clips(whole.folder)
        with Batch(whole, ("list.csv", *FLAGS)) as batch:
            seconds = batch.wait(LIMIT_S).seconds
        for number in range(lab.count(PAIRS)):
            _one(lab, section, drawn, number, seconds, whole, root / f"{number}", ends)
            shutil.rmtree(root / f"{number}")
    told = ", ".join(f"{count} {status}" for status, count in ends.most_common())
    section.figures.append(f"Clips of the batches that were not killed: {told}.")
    section.seconds = time.monotonic() - began
    return section


def _one(
    lab: Lab,
    section: Section,
    drawn: random.Random,
    number: int,
    seconds: float,
    whole: Place,
    root: Path,
    ends: Counter[str],
) -> None:
    place = Place.made_in(root)
    for entry in whole.folder.iterdir():
        if entry.is_file():
            shutil.copy2(entry, place.folder)
    jobs = [drawn.choice("12") for _ in range(2)]
    # Half of them at once, since their first steps then meet.
    offset = drawn.choice([0.0, drawn.uniform(0, seconds)])
    moment = drawn.uniform(0.2, seconds)
    victim = (None, 0, 1, drawn.randrange(2))[number % 4]
    thorough = drawn.random() < 0.5
    story = f"pair {number}, --jobs {' and '.join(jobs)}, offset {offset:.2f} s"
    if victim is not None:
        story += f", number {victim} killed after {moment:.2f} s{' with its workers' if thorough else ''}"
    with contextlib.ExitStack() as held:
        # Reports of their own: two runs that write one would say so of each other's.
        first, second = (held.enter_context(_begun(place, jobs[turn], turn, offset)) for turn in range(2))
        if victim is not None:
            time.sleep(moment)
            _kill((first, second)[victim], thorough)
        for turn, batch in enumerate((first, second)):
            ended = batch.wait(LIMIT_S)
            if turn == victim and ended.code == -9:
                continue
            ends.update(statuses(batch.report))
            faults = _judged(batch, ended)
            if turn == 1 or victim == 1:
                faults += _results(place, whole)
                faults += _left(place, jobs[turn], turn, ends)
            section.add(story, f"exit {ended.code}", seconds=ended.seconds, peak_mib=ended.peak_mib)
            if faults:
                fail(lab, section, story, place, batch, ended, faults)


def _begun(place: Place, jobs: str, turn: int, offset: float) -> Batch:
    if turn:
        time.sleep(offset)
    return Batch(place, ("list.csv", *FLAGS, "--jobs", jobs, "--report", f"out/report-{turn}.json"))


def _kill(batch: Batch, thorough: bool) -> None:
    workers = batch.workers() if thorough else []
    batch.kill()
    for process in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _judged(batch: Batch, ended: Ended) -> list[str]:
    faults = [f"exit code {ended.code}"] if ended.code else []
    if "Traceback" in ended.stderr:
        faults.append("a traceback")
    if not set(statuses(batch.report)) <= {"done", "skipped"}:
        faults.append(f"the report says {statuses(batch.report)}")
    return faults


def _results(place: Place, whole: Place) -> list[str]:
    """Judged once both have ended, or the other one was killed."""
    faults = []
    for clip in NAMES:
        if not (place.out / clip).exists():
            faults.append(f"no {clip}")
        elif not same(place.out / clip, whole.out / clip):
            faults.append(f"{clip} differs from that of an undisturbed run")
    return faults


def _left(place: Place, jobs: str, turn: int, ends: Counter[str]) -> list[str]:
    expected = [*NAMES, "report-0.json", "report-1.json"]
    if not left_over(place, expected):
        return []
    ends["(something left until the next run)"] += 1
    with _begun(place, jobs, turn, 0) as third:
        ended = third.wait(LIMIT_S)
        return [*_judged(third, ended), *left_over(place, expected)]
