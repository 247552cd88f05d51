"""Sections: a batch whose disk is full or read-only, and one whose sources change while they are read."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle, product
from pathlib import Path
from typing import Any, TypeVar

from tools.torture.batches import Batch, Place, fail, left_over, same, statuses
from tools.torture.disks import FILLER, Disk, NoDiskError, small_disk
from tools.torture.lab import ALL_FROM, Lab
from tools.torture.material import KINDS, make_noise, make_video
from tools.torture.nursery import Ended
from tools.torture.report import Section
from tools.torture.storage import CHANGES, SIZE

__all__ = ["batch_disks", "batch_sources"]

T = TypeVar("T")

SMALL = ("a.mp4", "b.mp4", "d.mp4")
LARGE = "c.mp4"
NAMES = (*SMALL, LARGE)
FLAGS = (
    *("list.csv", "-o", "out", "--whole-frame", "--model", "lanczos", "--fps", "source"),
    *("--preset", "ultrafast", "--crf", "16", "--chunk-seconds", "1", "--progress", "json"),
)
JOBS = ("1", "2")
"""Workers; two of them share the chunks of the large clip."""
LIMIT_S = 240.0
MIB = 2**20

LEVELS = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""What is left of the disk at the start, as a multiple of the large clip's result."""
ENOUGH = 3 * MIB
"""Bytes with which the small clips are begun: each is estimated to need 2 MiB."""
INODES = (4, 6, 8, 10, 14, 20)
FILLED = 8
"""How often it is filled at a random moment in full."""
MOMENTS = 3
"""How often each change is done in full."""


def _undisturbed(lab: Lab, section: Section, root: Path) -> tuple[Place, float]:
    place = Place.made_in(root / "undisturbed")
    _furnish(lab, place)
    with Batch(place, FLAGS) as batch:
        ended = batch.wait(LIMIT_S)
        section.add("undisturbed", f"exit {ended.code}", seconds=ended.seconds, peak_mib=ended.peak_mib)
        if ended.code:
            fail(lab, section, "undisturbed", place, batch, ended, [f"exit code {ended.code}"])
    return place, ended.seconds


def _furnish(lab: Lab, place: Place) -> None:
    inbox = place.folder / "in"
    inbox.mkdir()
    for number, name in enumerate(SMALL):
        make_video(inbox / name, KINDS[0], frames=12 + number)
    make_noise(inbox / LARGE, frames=120, size=SIZE, seed=lab.seed)
    rows = [f"in/{name},{name},{'320x240' if name == LARGE else '16x16'}" for name in sorted(NAMES)]
    (place.folder / "list.csv").write_text("\n".join(["video,output,size", *rows]) + "\n", encoding="utf-8")


def _copied(whole: Place, root: Path) -> Place:
    place = Place.made_in(root)
    shutil.copytree(whole.folder / "in", place.folder / "in")
    shutil.copy2(whole.folder / "list.csv", place.folder)
    return place


# Disks


def batch_disks(lab: Lab) -> Section:
    """The output folder is a small disk."""
    section = Section(
        name="batches on full disks",
        about="Three small clips and a large one; the output folder is a tmpfs that is nearly full from the start, "
        "has room for a few files only, or is filled at a random moment, for one worker and for two. Whatever fails "
        "fails with exit code 4 of its own, small clips are done where the large one is refused beforehand, and "
        "given room the same command does the rest: results equal to an undisturbed run's. A read-only disk is told "
        "of before anything begins.",
    )
    began = time.monotonic()
    drawn = random.Random(f"{lab.seed} batch disks")  # noqa: S311
    turns = cycle(JOBS)
    with lab.folder() as root:
        whole, seconds = _undisturbed(lab, section, root)
        place = _copied(whole, root / "full")
        once = (whole.out / LARGE).stat().st_size
        try:
            with small_disk(place.out, 64 * MIB) as disk:
                for level, jobs in _with_jobs(lab, _some(lab, LEVELS), turns):
                    _fill_up_to(disk, int(level * once))
                    _full(lab, section, place, disk, whole, f"{level:g} times the large result left", jobs)
                for inodes, jobs in _with_jobs(lab, _some(lab, INODES), turns):
                    disk.resize(64 * MIB, inodes)
                    _full(lab, section, place, disk, whole, f"room for {inodes - 1} files", jobs)
                for _, jobs in _with_jobs(lab, range(lab.count(FILLED)), turns):
                    moment = drawn.uniform(0.3, 1.0) * seconds
                    _full(lab, section, place, disk, whole, f"filled after {moment:.2f} s", jobs, fill_after=moment)
                disk.read_only()
                _read_only(lab, section, place)
        except NoDiskError as error:
            section.skipped.append(f"no small disk can be mounted here ({error})")
    section.seconds = time.monotonic() - began
    return section


def _some(lab: Lab, things: tuple[Any, ...]) -> list[Any]:
    """A share of the things, from all over the list."""
    count = lab.count(len(things))
    return [things[int((n + 0.5) * len(things) / count)] for n in range(count)]


def _with_jobs(lab: Lab, things: Iterable[T], turns: Iterator[str]) -> Iterable[tuple[T, str]]:
    """Each with one worker and with two; of a small share with one of them in turn."""
    return product(things, JOBS) if lab.share >= ALL_FROM else [(thing, next(turns)) for thing in things]


def _fill_up_to(disk: Disk, left: int) -> None:
    with (disk.path / FILLER).open("wb", buffering=0) as file:
        file.truncate(0)
        block = bytes(1 << 16)
        while disk.free() > left:
            file.write(block[: max(4096, min(len(block), disk.free() - left))])


def _full(
    lab: Lab,
    section: Section,
    place: Place,
    disk: Disk,
    whole: Place,
    name: str,
    jobs: str,
    *,
    fill_after: float | None = None,
) -> None:
    enough = fill_after is None and disk.free() >= ENOUGH
    name = f"{name}, --jobs {jobs}"
    with Batch(place, (*FLAGS, "--jobs", jobs)) as batch:
        if fill_after is not None:
            time.sleep(fill_after)
            disk.fill()
        ended = batch.wait(LIMIT_S)
        faults = _full_faults(batch, ended, enough=enough)
        section.add(name, _outcome(ended), seconds=ended.seconds, peak_mib=ended.peak_mib)
        if faults:
            fail(lab, section, name, place, batch, ended, faults)
    (disk.path / FILLER).unlink(missing_ok=True)
    disk.resize(64 * MIB)
    _again(lab, section, place, whole, f"{name}, with room again", jobs)
    for entry in list(disk.path.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _outcome(ended: Ended) -> str:
    return {0: "all done", 1: "some failed", 4: "refused as a whole"}.get(ended.code, f"exit {ended.code}")


def _full_faults(batch: Batch, ended: Ended, *, enough: bool) -> list[str]:
    faults = [] if ended.code in {0, 1, 4} else [f"exit code {ended.code}"]
    if "Traceback" in ended.stderr:
        faults.append("a traceback")
    if ended.code == 4:
        # The report itself has no room: then at least that is said.
        return faults if "report" in ended.stderr or "cannot" in ended.stderr else [*faults, "no clear message"]
    clips = _by_name(batch)
    if len(clips) != len(NAMES):
        return [*faults, "no whole report"]
    for name, clip in clips.items():
        if clip["status"] == "failed" and clip["error"]["exit_code"] != 4:
            faults.append(f"{name} failed with {clip['error']}")
    large = clips[LARGE]["error"]
    if enough and large is not None and " free, the job needs about " in large["message"]:
        faults += [f"{name} fits and is {clips[name]['status']}" for name in SMALL if clips[name]["status"] != "done"]
    return faults


def _by_name(batch: Batch) -> Mapping[str, Any]:
    """What the report says of each clip."""
    return {Path(clip["video"]).name: clip for clip in (batch.report or {"clips": []})["clips"]}


def _again(lab: Lab, section: Section, place: Place, whole: Place, name: str, jobs: str) -> None:
    with Batch(place, (*FLAGS, "--jobs", jobs)) as batch:
        ended = batch.wait(LIMIT_S)
        faults = [] if ended.code == 0 else [f"exit code {ended.code}"]
        faults += _unequal(place, whole, NAMES) + left_over(place, NAMES)
        section.add(name, _outcome(ended), seconds=ended.seconds, peak_mib=ended.peak_mib)
        if faults:
            fail(lab, section, name, place, batch, ended, faults)


def _unequal(place: Place, whole: Place, names: tuple[str, ...]) -> list[str]:
    faults = []
    for name in names:
        if not (place.out / name).exists():
            faults.append(f"no {name}")
        elif not same(place.out / name, whole.out / name):
            faults.append(f"{name} differs from that of an undisturbed run")
    return faults


def _read_only(lab: Lab, section: Section, place: Place) -> None:
    with Batch(place, FLAGS) as batch:
        ended = batch.wait(LIMIT_S)
        section.add("a read-only disk", _outcome(ended), seconds=ended.seconds, peak_mib=ended.peak_mib)
        faults = [] if ended.code == 4 else [f"exit code {ended.code}"]
        if "Read-only" not in ended.stderr or "Traceback" in ended.stderr:
            faults.append("no clear message")
        if any(event["event"] == "clip" for event in batch.events):
            faults.append("clips were begun")
        if faults:
            fail(lab, section, "a read-only disk", place, batch, ended, faults)


# Sources


def batch_sources(lab: Lab) -> Section:
    """The source of one clip changes while the batch runs."""
    section = Section(
        name="sources that change during a batch",
        about="The source of one of four clips is appended to, cut, emptied, overwritten, replaced, removed or "
        "touched at a random moment. That clip fails with exit code 3; or it equals an undisturbed run's, of the "
        "source as it was where the change came after the last look at it, or as it is where it came before the "
        "first; never of both. The others are done. With the source as it was, the same command does the rest.",
    )
    began = time.monotonic()
    drawn = random.Random(f"{lab.seed} batch sources")  # noqa: S311
    with lab.folder() as root:
        whole, seconds = _undisturbed(lab, section, root)
        other = make_video(root / "other.mp4", KINDS[0], frames=90, size=SIZE)
        changes = [(change, act) for change, act in CHANGES.items() for _ in range(lab.count(MOMENTS))]
        # A tenth of them takes a few kinds; which ones depends on the seed.
        chosen = drawn.sample(changes, max(2, lab.count(len(changes))))
        for change, jobs in zip(chosen, cycle(JOBS), strict=False):
            place = _copied(whole, root / "changed")
            _change(lab, section, place, whole, other, change, drawn.uniform(0, seconds), jobs)
            shutil.rmtree(root / "changed")
    section.seconds = time.monotonic() - began
    return section


def _change(
    lab: Lab,
    section: Section,
    place: Place,
    whole: Place,
    other: Path,
    change: tuple[str, Callable[[Path, Path], object]],
    moment: float,
    jobs: str,
) -> None:
    victim = place.folder / "in" / LARGE
    name = f"{change[0]} after {moment:.2f} s, --jobs {jobs}"
    with Batch(place, (*FLAGS, "--jobs", jobs)) as batch:
        time.sleep(moment)
        if batch.is_up:
            change[1](victim, other)
        ended = batch.wait(LIMIT_S)
        faults = _changed_faults(batch, ended)
        faults += _unequal(place, whole, SMALL)
        if ended.code == 0 and _unequal(place, whole, (LARGE,)):
            faults += _unequal(place, _made_of_the_changed(place), (LARGE,))
        section.add(name, _outcome(ended), seconds=ended.seconds, peak_mib=ended.peak_mib)
        if faults:
            fail(lab, section, name, place, batch, ended, faults)
        shutil.rmtree(place.folder.parent / "again", ignore_errors=True)
    if victim.is_dir():
        victim.rmdir()
    victim.unlink(missing_ok=True)
    shutil.copy2(whole.folder / "in" / LARGE, victim)
    _again(lab, section, place, whole, f"{name}, then as it was", jobs)


def _made_of_the_changed(place: Place) -> Place:
    """What comes of the sources as they are now: where the change came before the clip was begun, that is right."""
    again = _copied(place, place.folder.parent / "again")
    with Batch(again, FLAGS) as batch:
        batch.wait(LIMIT_S)
    return again


def _changed_faults(batch: Batch, ended: Ended) -> list[str]:
    faults = [] if ended.code in {0, 1} else [f"exit code {ended.code}"]
    if "Traceback" in ended.stderr:
        faults.append("a traceback")
    clips = _by_name(batch)
    small = {name: clips[name]["status"] for name in SMALL if name in clips}
    faults += [f"{name} is {status}" for name, status in small.items() if status != "done"]
    if ended.code == 1 and clips[LARGE]["error"]["exit_code"] != 3:
        faults.append(f"{LARGE} failed with {clips[LARGE]['error']}")
    return faults if statuses(batch.report) else [*faults, "no report"]
