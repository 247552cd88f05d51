"""Sections: disks that fill, disks that are read-only, and sources that change while they are read."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tools.torture.cases import Case, done_event, last_phase
from tools.torture.disks import FILLER, Disk, NoDiskError, small_disk
from tools.torture.lab import Lab
from tools.torture.material import KINDS, RATE, make_noise, make_video
from tools.torture.nursery import Running
from tools.torture.report import Section

__all__ = ["FLAGS", "SIZE", "changing_sources", "full_disks"]

T = TypeVar("T")

SIZE = (320, 240)
FLAGS = (
    "--model", "lanczos", "--size", "320x240", "--fps", "source", "--preset", "ultrafast", "--crf", "16",
    "--chunk-seconds", "1", "--progress", "json",
)  # fmt: skip
CHUNKS = 6
"""Of the job that meets full disks."""
WORK = ".out.mp4.keyscale"
MIB = 2**20


def _arguments(source: Path, *more: str) -> tuple[str, ...]:
    return ("upscale", str(source), "-o", "out.mp4", *FLAGS, *more)


@contextmanager
def _timed(section: Section) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        section.seconds += time.monotonic() - began


# Full disks


def full_disks(lab: Lab) -> Section:
    """The output's disk fills at every point of a job, and then has room again."""
    section = Section(
        name="full disks",
        about="The output folder is a small tmpfs. Its size is chosen so that it is full while chunks are made, while "
        "they are joined, and on the very edge of being enough; the number of its files likewise; or another "
        "program takes the rest during each phase. Each run ends with exit code 4 and nothing but a work folder, "
        "or with the result where nothing had to be written any more; given room, the same command ends with the "
        "same bytes as an undisturbed run, and no chunk is made twice.",
    )
    with _timed(section), lab.folder() as folder:
        source = make_noise(folder / "in.mp4", frames=CHUNKS * RATE, size=SIZE, seed=lab.seed)
        whole = _undisturbed(lab, section, folder, source)
        try:
            with small_disk(folder / "disk", 64 * MIB) as disk:
                _fill(lab, section, disk, source, whole)
        except NoDiskError as error:
            section.skipped.append(f"no small disk can be mounted here ({error})")
    return section


def _undisturbed(lab: Lab, section: Section, folder: Path, source: Path) -> bytes:
    case = Case(name="undisturbed", arguments=_arguments(source), codes=frozenset({0}))
    here = folder / "undisturbed"
    here.mkdir()
    lab.attempt(case, here, section)
    return (here / "out.mp4").read_bytes() if (here / "out.mp4").exists() else b""


def _fill(lab: Lab, section: Section, disk: Disk, source: Path, whole: bytes) -> None:
    once = len(whole)
    counted: Counter[str] = Counter()
    levels = [int(once * share) for share in (0.75, 0.85, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 1.75, 1.9)]
    levels += [2 * once + (n << 12) for n in (-64, -16, -4, 0, 4, 8, 12, 16, 20, 24, 32, 64)]
    for size in _some(lab, levels):
        disk.resize(size)
        _full(lab, section, disk, source, whole, counted, f"a disk of {size / once:.3f} times the result")
    for inodes in _some(lab, list(range(2, 14))):
        disk.resize(64 * MIB, inodes)
        _full(lab, section, disk, source, whole, counted, f"a disk for {inodes - 1} files")
    disk.resize(MIB)
    _full(lab, section, disk, source, whole, counted, "a disk that is too small from the start")
    for phase in _some(lab, ["upscale", "join", "verify"] * 8):
        disk.resize(64 * MIB)
        _full(lab, section, disk, source, whole, counted, f"filled during {phase}", phase)
    told = ", ".join(f"{phase} {count} times" for phase, count in counted.most_common())
    section.figures.append(f"What stopped for want of room was in: {told}.")
    disk.resize(64 * MIB)
    disk.read_only()
    case = Case(
        name="a read-only disk", arguments=_arguments(source), codes=frozenset({4}), says="Read-only|cannot write"
    )
    lab.attempt(case, disk.path, section)


def _some(lab: Lab, things: Sequence[T]) -> list[T]:
    """A share of the things, from all over the list, three at least."""
    count = max(3, lab.count(len(things)))
    return [things[int((n + 0.5) * len(things) / count)] for n in range(count)]


def _full(
    lab: Lab,
    section: Section,
    disk: Disk,
    source: Path,
    whole: bytes,
    counted: Counter[str],
    name: str,
    phase: str | None = None,
) -> None:
    case = Case(name=name, arguments=_arguments(source), codes=frozenset({0, 4}), says="No space|free")
    filled = None if phase is None else lambda running: _fill_during(running, phase, disk)
    ended = lab.attempt(case, disk.path, section, meanwhile=filled, may_change=(FILLER,), judge_work=True)
    kept = len(list((disk.path / WORK).glob("*/chunk-*.json")))
    if ended.code:
        # The first that joining tells comes after the first that it writes.
        counted["join" if kept == CHUNKS else last_phase(ended)] += 1
    (disk.path / FILLER).unlink(missing_ok=True)
    disk.resize(64 * MIB)
    if ended.code:
        again = Case(name=f"{name}, with room again", arguments=_arguments(source), codes=frozenset({0}))
        ended = lab.attempt(again, disk.path, section, may_change=(WORK,))
        done = done_event(ended)
        if done is None or (kept and not done["resumed_frames"]):
            section.violations.append(f"{name}: {kept} chunks were kept, none was used")
    if not (disk.path / "out.mp4").exists() or (disk.path / "out.mp4").read_bytes() != whole:
        section.violations.append(f"{name}: the result differs from that of an undisturbed run")
    for entry in list(disk.path.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _fill_during(running: Running, phase: str, disk: Disk) -> None:
    if reached(running, phase):
        disk.fill()


def reached(running: Running, phase: str | None) -> bool:
    """Wait until a run tells of this phase (None: of anything); False where it ended first."""
    for _ in itertools.count():
        over = running.ended_within(0.001)
        for line in running.out.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            if phase is None or json.loads(line).get("phase") == phase:
                return True
        if over:
            return False
    raise AssertionError


# Sources


def _append(path: Path, _: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0\0\0\x08free")


def _overwrite(path: Path, _: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(20_000))


def _replace(path: Path, other: Path) -> None:
    beside = path.with_name("new.mp4")
    shutil.copy(other, beside)
    beside.replace(path)


def _become_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "appended to": _append,
    "cut to half": lambda path, _: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path, _: os.truncate(path, 0),
    "overwritten in its middle": _overwrite,
    "replaced by another video": _replace,
    "removed": lambda path, _: path.unlink(),
    "touched": lambda path, _: os.utime(path),
    "replaced by a folder": _become_folder,
    "made unreadable": lambda path, _: path.chmod(0),
}
MOMENTS = 6
"""How often each of them is done in full."""


def changing_sources(lab: Lab) -> Section:
    """The source changes at a random moment of the job."""
    section = Section(
        name="changing sources",
        about="The source is appended to, cut, emptied, overwritten, replaced, removed or touched at a random moment "
        "after the job has been planned. Exit code 3 and nothing published; or, where the change came after the "
        "last look at it, the bytes of an undisturbed run.",
    )
    drawn = random.Random(f"{lab.seed} sources")  # noqa: S311
    with _timed(section), lab.folder() as folder:
        source = make_video(folder / "in.mp4", KINDS[0], frames=150, size=SIZE)
        other = make_video(folder / "other.mp4", KINDS[0], frames=90, size=SIZE)
        began = time.monotonic()
        whole = _undisturbed(lab, section, folder, source)
        seconds = time.monotonic() - began
        for change, act in CHANGES.items():
            for _ in range(lab.count(MOMENTS)):
                _change(lab, section, source, other, whole, change, act, drawn.uniform(0, 0.7 * seconds))
    return section


def _change(
    lab: Lab,
    section: Section,
    source: Path,
    other: Path,
    whole: bytes,
    change: str,
    act: Callable[[Path, Path], object],
    moment: float,
) -> None:
    with lab.folder() as here, lab.folder() as there:
        victim = there / "in.mp4"
        shutil.copy(source, victim)

        def disturb(running: Running) -> None:
            if reached(running, None) and not running.ended_within(moment):
                act(victim, other)

        name = f"{change} after {moment:.2f} s"
        case = Case(name=name, arguments=_arguments(victim), codes=frozenset({0, 3}))
        ended = lab.attempt(case, here, section, meanwhile=disturb)
        if ended.code == 0 and (here / "out.mp4").read_bytes() != whole:
            lab.fail(section, case, here, ended, ["the result differs from that of an undisturbed run"])
