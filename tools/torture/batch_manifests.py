"""Section: mutated manifests, each through `keyscale batch`."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.torture.cases import MESSAGE, Case
from tools.torture.lab import Lab, LeftOver
from tools.torture.manifest_damage import FIFO, OUTSIDE, mutated_manifest
from tools.torture.material import KINDS, make_video
from tools.torture.nursery import Ended
from tools.torture.report import Section

__all__ = ["MANIFESTS", "batch_manifests"]

MANIFESTS = 500
"""How many are tried in full."""

FLAGS = (
    *("-o", "out", "--whole-frame", "--model", "lanczos", "--size", "16x16", "--fps", "source"),
    *("--preset", "ultrafast", "--offline"),
)
SECONDS = 90.0
PEAK_MIB = 1024
LINE = re.compile(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*")
"""What may stand on a terminal: nothing that steers it."""
DEFECT = re.compile(r"unexpected [A-Z]\w+")
"""What a failure that nobody foresaw is called."""
ENDS = frozenset({"done", "skipped", "failed"})
RESULTS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".m4v", ".json"})
CAMERA = [{"time": 0, "x": 8, "y": 4, "width": 40, "height": 30}]


def batch_manifests(lab: Lab) -> Section:
    """Try the seed's variants."""
    section = Section(
        name="mutated manifests",
        about="Manifests as CSV and JSON Lines: bytes flipped, quotation marks and columns out of place, rows cut, "
        "fields and nestings far too large, zero bytes and byte order marks, outputs that are absolute, lead "
        "out by `..` or through links, names of devices and of work folders, one result for two rows. Each "
        "ends with exit code 0, 1 or 2, for each clip a status and for each failure a message; nothing is "
        "written outside the output folder.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        film = make_video(folder / "in.mp4", KINDS[0], frames=8).read_bytes()
    clips: dict[str, int] = {}
    drawn = random.Random(f"{lab.seed} manifests").sample(range(MANIFESTS), lab.count(MANIFESTS))  # noqa: S311
    for number in sorted(drawn):
        with lab.folder() as folder:
            _one(lab, section, folder, number, film, clips)
    told = ", ".join(f"{count} {status}" for status, count in sorted(clips.items(), key=lambda item: -item[1]))
    section.figures.append(f"Clips of the batches that began: {told}.")
    section.seconds = time.monotonic() - began
    return section


def _one(lab: Lab, section: Section, folder: Path, number: int, film: bytes, clips: dict[str, int]) -> None:
    suffix, damage, content = mutated_manifest(number, lab.seed)
    _furnish(folder, film)
    (folder / f"list{suffix}").write_bytes(content)
    progress = ("json", "plain", "auto")[number % 3]
    case = Case(
        name=f"manifest {number}, {suffix} {damage}, --progress {progress}",
        arguments=("batch", f"list{suffix}", *FLAGS, "--progress", progress),
        codes=frozenset({0, 1, 2}),
        seconds=SECONDS,
        peak_mib=PEAK_MIB,
        environment={"KEYSCALE_WEIGHTS_DIR": str(folder / "cameras")},
    )
    before = _contents(folder)
    faults = []
    try:
        ended = lab.run(case, folder)
    except LeftOver as error:
        ended, faults = error.ended, [str(error)]
    faults += _judged(case, ended, folder, clips)
    after = _contents(folder)
    faults += [f"{name!r} was changed" for name in before if after.get(name) != before[name]]
    faults += [f"{name!r} was made outside the output folder" for name in sorted(after.keys() - before.keys())]
    faults += _misplaced(folder / "out")
    outcome = {0: "all done", 1: "some failed", 2: "refused as a whole"}.get(ended.code, f"exit {ended.code}")
    section.add(case.name, outcome, seconds=ended.seconds, peak_mib=ended.peak_mib)
    if faults:
        (folder / FIFO).unlink()  # it cannot be copied
        lab.fail(section, case, folder, ended, faults)


def _furnish(folder: Path, film: bytes) -> None:
    """Videos, cameras, a named pipe; and an output folder with links out of it."""
    for name in ("cameras", "sub", "out", OUTSIDE):
        (folder / name).mkdir()
    for name in ("a.mp4", "b, c.mp4", "sub/d.mp4"):
        (folder / name).write_bytes(film)
    for name in ("cameras/a.json", "sub/camera.json"):
        (folder / name).write_text(json.dumps(CAMERA))
    (folder / OUTSIDE / "victim.txt").write_text("not to be touched")
    os.mkfifo(folder / FIFO)
    (folder / "out" / "linked").symlink_to(folder / OUTSIDE)
    (folder / "out" / "link.mp4").symlink_to(folder / OUTSIDE / "victim.txt")
    (folder / "out" / "dangling.mp4").symlink_to(folder / OUTSIDE / "absent.mp4")


def _contents(folder: Path) -> dict[str, object]:
    """What stands in the folder, but for what was made in the output folder."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = path.readlink()
        elif name == "out" or name.startswith("out/"):
            continue
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def _misplaced(out: Path) -> list[str]:
    """What stands in the output folder and is no result."""
    faults = []
    for path in out.rglob("*"):
        if path.is_symlink() or (path.is_dir() and not path.name.endswith(".keyscale")):
            continue
        if path.suffix.lower() not in RESULTS or path.name.startswith(".keyscale"):
            faults.append(f"{str(path.relative_to(out))!r} was left over")
    return faults


def _judged(case: Case, ended: Ended, folder: Path, clips: dict[str, int]) -> list[str]:
    faults = []
    if ended.timed_out:
        return [f"not done after {case.seconds:.0f} s"]
    if ended.code not in case.codes:
        faults.append(f"exit code {ended.code}")
    if ended.peak_mib > case.peak_mib:
        faults.append(f"{ended.peak_mib:.0f} MiB resident, allowed were {case.peak_mib}")
    if "Traceback" in ended.stderr or DEFECT.search(ended.stderr + ended.stdout):
        faults.append("a traceback or an unexpected error")
    if ended.code == 2 and not MESSAGE.fullmatch(ended.stderr):
        faults.append("stderr holds something else than one message")
    steering = [line for line in ended.stderr.split("\n") if not LINE.fullmatch(line)]
    faults += [f"stderr steers the terminal: {line!r:.200}" for line in steering[:3]]
    longest = max(map(len, ended.stderr.split("\n")))
    if longest > 12_000:
        faults.append(f"a line of {longest} characters on stderr")
    if ended.code in {0, 1}:
        report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
        faults += _report_faults(report, ended, folder, clips)
        if "json" in case.arguments:
            faults += _event_faults(ended, report)
    return faults


def _report_faults(report: dict[str, Any], ended: Ended, folder: Path, clips: dict[str, int]) -> list[str]:
    faults = [] if report["finished"] else ["the report says that it did not finish"]
    if (report["failed"] > 0) != (ended.code == 1):
        faults.append(f"exit code {ended.code} with {report['failed']} failed clips")
    for clip in report["clips"]:
        status = clip["status"] if clip["error"] is None else f"{clip['status']} ({clip['error']['error']})"
        clips[status] = clips.get(status, 0) + 1
        if clip["status"] not in ENDS:
            faults.append(f"{clip['clip']!r:.80} is {clip['status']}")
        if clip["status"] == "failed":
            faults += _error_faults(clip)
        else:
            faults += _result_faults(folder, clip["output"])
    return faults


def _error_faults(clip: dict[str, Any]) -> list[str]:
    error = clip["error"]
    if error is None or not error["message"] or error["exit_code"] not in range(1, 7):
        return [f"no clear error for {clip['clip']!r:.80}: {error!r:.200}"]
    return [f"a defect for {clip['clip']!r:.80}: {error['message']!r:.200}"] if DEFECT.search(error["message"]) else []


def _result_faults(folder: Path, output: str) -> list[str]:
    path = folder / output
    if not path.is_file() or path.is_symlink():
        return [f"no result {output!r}"]
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder / "out"))
    return [] if inside else [f"the result {output!r} is outside the output folder"]


def _event_faults(ended: Ended, report: dict[str, Any]) -> list[str]:
    events = list(_events(ended.stdout))
    last = events[-1] if events else {}
    if last.get("event") != "batch_done" or [event["event"] for event in events].count("batch_done") != 1:
        return ["the last event is not the one batch_done"]
    return [] if last["report"]["clips"] == report["clips"] else ["events and file hold different reports"]


def _events(text: str) -> Iterator[dict[str, Any]]:
    # Not splitlines: names may hold what it takes for the end of a line.
    for line in text.split("\n"):
        if line:
            yield json.loads(line)
