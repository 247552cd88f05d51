"""Section: `kill -9` at random moments of a batch, of itself or of its workers; then the same command again."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from keyscale.engine.workspace.folder import beneath
from tools.torture.batches import Batch, Place, fail, left_over, same, statuses
from tools.torture.lab import Lab
from tools.torture.material import KINDS, make_video
from tools.torture.nursery import Ended
from tools.torture.report import Section

__all__ = ["FLAGS", "NAMES", "batch_kills", "make_clips"]

KILLS = 100
"""How often in full."""

NAMES = ("a.mp4", "b.mp4", "c.mp4")
FLAGS = (
    *("-o", "out", "--whole-frame", "--fps", "source", "--preset", "ultrafast"),
    *("--chunk-seconds", "1", "--progress", "json"),
)
LIMIT_S = 240.0

VICTIMS = ("the batch", "all processes", "one worker", "all workers")
WEIGHTS = (4, 3, 2, 1)

LOOK_S = 0.0003
"""How often it is looked whether the moment has come."""


@dataclass(kw_only=True)
class _Moment:
    """When it is killed."""

    what: str
    """`time`, or what has to come up: a clip in this phase."""
    after_s: float
    """Seconds after the start, or after that."""


@dataclass(kw_only=True)
class _Counts:
    kills: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    """In which phases clips were when they were hit."""
    victims: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    skipped: int = 0
    equal: int = 0
    results: int = 0


def make_clips(folder: Path) -> None:
    """Three clips with sound and a manifest: two are sampled alone, one goes through the smallest shipped network."""
    for name, frames, size in zip(NAMES, (120, 48, 96), ((64, 48), (48, 36), (64, 48)), strict=True):
        make_video(folder / name, KINDS[0], frames=frames, size=size)
    rows = ["video,model,size", "a.mp4,lanczos,64x48", "b.mp4,keyscale-tiny-x2,96x72", "c.mp4,lanczos,48x64"]
    (folder / "list.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def batch_kills(lab: Lab) -> Section:
    """Kill, run again, compare."""
    section = Section(
        name="batches killed",
        about="`kill -9` at a random moment of a batch of three clips with sound, in 6 chunks or fewer each, one "
        "worker or two: of the batch alone, of all its processes at once, of one worker or of all of them; "
        "every fifth time the next run is killed as well. Then the same command to its end: exit code 0, "
        "every result equal to an undisturbed run's in all frames and samples, and nothing left: no work "
        "folder, draft or temporary file, and no process.",
    )
    began = time.monotonic()
    drawn = random.Random(f"{lab.seed} batch kills")  # noqa: S311
    counts = _Counts()
    with lab.folder() as root:
        whole = Place.made_in(root / "undisturbed")
        make_clips(whole.folder)
        seconds = _undisturbed(lab, section, whole)
        for number in range(lab.count(KILLS)):
            _one(lab, section, drawn, number, seconds, whole, root / f"{number}", counts)
            shutil.rmtree(root / f"{number}")
    section.figures += _told(counts)
    section.seconds = time.monotonic() - began
    return section


def _undisturbed(lab: Lab, section: Section, place: Place) -> float:
    with Batch(place, ("list.csv", *FLAGS)) as batch:
        ended = batch.wait(LIMIT_S)
        section.add("undisturbed", f"exit {ended.code}", seconds=ended.seconds, peak_mib=ended.peak_mib)
        faults = left_over(place, NAMES)
        if ended.code or faults:
            fail(lab, section, "undisturbed", place, batch, ended, [f"exit code {ended.code}", *faults])
    return ended.seconds


def _one(
    lab: Lab,
    section: Section,
    drawn: random.Random,
    number: int,
    seconds: float,
    whole: Place,
    root: Path,
    counts: _Counts,
) -> None:
    place = Place.made_in(root)
    for entry in whole.folder.iterdir():
        if entry.is_file():
            shutil.copy2(entry, place.folder)
    jobs = "12"[number % 2]
    arguments = ("list.csv", *FLAGS, "--jobs", jobs)
    story = []
    for _ in range(2 if number % 5 == 4 else 1):
        moment = _drawn_moment(drawn, seconds)
        victim = drawn.choices(VICTIMS, WEIGHTS)[0]
        with Batch(place, arguments) as batch:
            phases = _kill(batch, place, moment, victim, drawn)
            story.append(f"{victim} in {'+'.join(phases)} ({moment.what} + {moment.after_s:.3f} s)")
            counts.kills += 1
            counts.victims[victim] += 1
            counts.phases.update(phases)
            if victim.endswith(("worker", "workers")):
                # The batch goes on without them; only where none had ever come up may it give up.
                ended = batch.wait(LIMIT_S)
                if ended.code not in {0, 4} or "Traceback" in ended.stderr:
                    faults = [f"after {story[-1]} the batch ended with {ended.code}"]
                    fail(lab, section, f"kill {number}", place, batch, ended, faults)
    name = f"kill {number}, --jobs {jobs}: {', then '.join(story)}"
    with Batch(place, arguments) as batch:
        ended = batch.wait(LIMIT_S)
        faults = _judged(batch, ended, place, whole, counts)
        section.add(name, f"exit {ended.code}", seconds=ended.seconds, peak_mib=ended.peak_mib)
        if faults:
            fail(lab, section, name, place, batch, ended, faults)


def _judged(batch: Batch, ended: Ended, place: Place, whole: Place, counts: _Counts) -> list[str]:
    faults = [f"exit code {ended.code}"] if ended.code else []
    if "Traceback" in ended.stderr:
        faults.append("a traceback")
    report = batch.report
    if report is None or not report["finished"] or not set(statuses(report)) <= {"done", "skipped"}:
        faults.append(f"the report says {statuses(report)}")
    else:
        counts.resumed += sum(clip["resumed_frames"] or 0 for clip in report["clips"])
        counts.skipped += statuses(report).count("skipped")
    for clip in NAMES:
        made = place.out / clip
        counts.results += 1
        if not made.exists():
            faults.append(f"no {clip}")
        elif made.read_bytes() == (whole.out / clip).read_bytes():
            counts.equal += 1
        elif not same(made, whole.out / clip):
            faults.append(f"{clip} differs from that of an undisturbed run")
    return faults + left_over(place, NAMES)


# Moments

UPON = ("check", "claim", "part", "chunk", "joined", "verify", "published", "report", "cache")
"""What may have to come up first, so that short phases are hit too."""


def _drawn_moment(drawn: random.Random, seconds: float) -> _Moment:
    if drawn.random() < 0.4:
        return _Moment(what="time", after_s=drawn.uniform(0, 0.9 * seconds))
    what = drawn.choice(UPON)
    # Short phases are over within milliseconds, longer ones are hit anywhere.
    return _Moment(what=what, after_s=drawn.choice([0, 0, drawn.uniform(0, 0.003), drawn.uniform(0, 0.05)]))


def _kill(batch: Batch, place: Place, moment: _Moment, victim: str, drawn: random.Random) -> list[str]:
    """Wait for the moment, and kill; the phases in which clips were."""
    occurrence = drawn.randrange(3)
    for _ in _ticks(batch):
        if moment.what == "time":
            if time.monotonic() - batch.began >= moment.after_s:
                break
        elif _seen(batch, place, moment.what, occurrence):
            time.sleep(moment.after_s)
            break
    workers = batch.workers(scout=False)
    victims = {
        "the batch": [],
        "all processes": batch.workers(),
        "one worker": workers[-1:] if drawn.random() < 0.5 else workers[:1],
        "all workers": workers,
    }[victim]
    if victim in {"the batch", "all processes"}:
        batch.kill()
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return _phases(batch, place)


def _ticks(batch: Batch) -> Iterator[int]:
    for number in itertools.count():
        if not batch.is_up:
            return
        yield number
        time.sleep(LOOK_S)


def _seen(batch: Batch, place: Place, what: str, occurrence: int) -> bool:
    """Whether it has come to this for the clip of that number, or to this at all."""
    clip = NAMES[occurrence]
    work = place.out / f".{clip}.keyscale"
    match what:
        case "claim" | "part":
            seen = any(f".{what}" in path.name for path in beneath(work))
        case "chunk":
            seen = sum(path.match("chunk-*.json") for path in beneath(work)) > occurrence
        case "joined":
            seen = (work / "joined.mp4").exists()
        case "verify":
            batch.look()
            seen = any(_phase_of(event, clip) == "join" for event in batch.events)
        case "published":
            seen = (place.out / clip).exists()
        case "check" | "report":
            seen = any(path.name.startswith(f".keyscale-{what}-") for path in beneath(place.out))
        case _:
            seen = any(path.name != "speeds.json" for path in beneath(place.cache))
    return seen


def _phase_of(event: dict[str, object], clip: str) -> str | None:
    if event["event"] != "clip" or event["clip"] != clip or not isinstance(event["of"], dict):
        return None
    phase = event["of"].get("phase", event["of"]["event"])
    return str(phase)


def _phases(batch: Batch, place: Place) -> list[str]:
    """Where the clips stood, by what lies in the output folder and by what was last told of them."""
    batch.look()
    found = []
    for clip in NAMES:
        told = [phase for event in batch.events if (phase := _phase_of(event, clip)) is not None]
        status = [event["status"] for event in batch.events if event["event"] == "clip" and event["clip"] == clip]
        work = place.out / f".{clip}.keyscale"
        if (place.out / clip).exists():
            if work.exists():
                found.append("publish")
        elif (work / "joined.mp4").exists():
            found.append("verify" if {"join", "verify"} & set(told) else "join")
        elif any(path.parent != work for path in beneath(work)):
            found.append("upscale")
        elif "running" in status:
            found.append("prepare")
    if found:
        return found
    if all((place.out / clip).exists() for clip in NAMES):
        return ["after the last clip"]
    return ["between clips" if any((place.out / clip).exists() for clip in NAMES) else "start"]


def _told(counts: _Counts) -> list[str]:
    def listed(counter: Counter[str]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counter.most_common())

    return [
        f"{counts.kills} kills: {listed(counts.victims)}.",
        f"Where the clips in work stood (two or three at once): {listed(counts.phases)}.",
        f"Taken over by the last runs: {counts.resumed} frames of half-done clips, {counts.skipped} finished clips.",
        f"{counts.equal} of {counts.results} results are equal to an undisturbed run's byte by byte.",
    ]
