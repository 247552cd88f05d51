"""A case: one command line over given files, and what has to hold once it has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av

from keyscale.engine.workspace.folder import work_folder_of
from tools.torture.nursery import Ended

__all__ = [
    "CLEAN",
    "Case",
    "done_event",
    "error_event",
    "judge",
    "last_phase",
    "outcome_of",
    "remains",
    "work_folder_faults",
]

CLEAN = frozenset({0, 3, 6})
"""Codes in which a command over a damaged video may end: verified, refused as a source, or not published."""

MESSAGE = re.compile(r"error: [^\n]+(\n  -> [^\n]+)?\n")
"""All that stderr may hold after a failure: one message, and beneath it what to do."""

KEPT = re.compile(r"lock|publishing|[0-9a-f]{16}|[0-9a-f]{16}/chunk-\d{5}\.(mp4|mov|json)")
"""What docs/design.md allows to stay in a work folder after a failure: whole chunks and their records."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is run, and what is allowed to come of it."""

    name: str
    arguments: tuple[str, ...]
    """After `keyscale`; paths are relative to the case's folder."""
    codes: frozenset[int] = CLEAN
    """The exit codes that are right."""
    says: str | None = None
    """A pattern that the message has to match after a failure."""
    output: str | None = "out.mp4"
    """Where the result is to stand; None where the command makes none."""
    seconds: float = 60.0
    """Longest it may take."""
    peak_mib: int = 1024
    """Largest resident set it may have."""
    anew: bool = False
    """Run in a fresh interpreter."""
    environment: Mapping[str, str] = field(default_factory=dict)


def judge(
    case: Case,
    ended: Ended,
    folder: Path,
    before: Mapping[str, bytes | None],
    *,
    ignored: frozenset[str] = frozenset(),
    judge_work: bool = True,
) -> list[str]:
    """What is wrong with how a case ended; nothing where all is as promised.

    Args:
        case: what was run.
        ended: how it ended.
        folder: the case's folder as it stands now.
        before: the entries of the folder before, as `remains` tells them.
        ignored: entries that may be there or not.
        judge_work: whether the work folder's content is judged.
    """
    faults = []
    if ended.timed_out:
        faults.append(f"not done after {case.seconds:.0f} s")
    elif ended.code < 0:
        faults.append(f"ended by signal {-ended.code}")
    elif ended.code not in case.codes:
        faults.append(f"exit code {ended.code}, right were {sorted(case.codes)}")
    if ended.peak_mib > case.peak_mib:
        faults.append(f"{ended.peak_mib:.0f} MiB resident, allowed were {case.peak_mib}")
    if "Traceback" in ended.stderr or "unexpected" in ended.stderr:
        faults.append("a traceback or an unexpected error")
    if ended.code > 0 and not MESSAGE.fullmatch(ended.stderr):
        faults.append("stderr holds something else than one message")
    if ended.code > 0 and case.says is not None and not re.search(case.says, ended.stderr):
        faults.append(f"the message does not say {case.says!r}")
    if ended.code == 0 and ended.stderr:
        faults.append("stderr is not empty after a success")
    if len(ended.stderr) > 4000:
        faults.append(f"a message of {len(ended.stderr)} characters")
    return faults + _folder_faults(case, ended, folder, before, ignored, judge_work)


def _folder_faults(
    case: Case,
    ended: Ended,
    folder: Path,
    before: Mapping[str, bytes | None],
    ignored: frozenset[str],
    judge_work: bool,
) -> list[str]:
    faults = []
    after = remains(folder)
    faults += [f"{name!r} was changed" for name in before if after.get(name, b"") != before[name]]
    new = set(after) - set(before) - ignored
    if ended.code == 0 and case.output is not None:
        faults += _result_faults(case, ended, folder / case.output)
        new.discard(case.output)
    elif ended.code != 0 and not ended.timed_out:
        work = work_folder_of(folder / case.output) if case.output is not None else None
        if work is not None and judge_work:
            faults += work_folder_faults(work)
        new.discard(work.name if work is not None else "")
    if not ended.timed_out and ended.code >= 0:
        faults += [f"{name!r} was left over" for name in sorted(new)]
    return faults


def _result_faults(case: Case, ended: Ended, path: Path) -> list[str]:
    """The published file read with PyAV alone: every frame that was told of decodes."""
    done = done_event(ended)
    if done is None:
        return [] if "json" not in case.arguments else ["no last event 'done'"]
    if not path.is_file():
        return ["no result under its name"]
    try:
        with av.open(f"file:{path}") as container:
            seen = sum(not frame.is_corrupt for frame in container.decode(video=0))
    except (av.FFmpegError, OSError) as error:
        return [f"the result cannot be decoded: {error}"]
    return [] if seen == done["frames"] else [f"{seen} frames in the result, {done['frames']} were told of"]


def work_folder_faults(work: Path) -> list[str]:
    """What stands in a work folder that no failure may leave there."""
    if not work.is_dir():
        return []
    names = [str(path.relative_to(work)) for path in work.rglob("*")]
    return [f"{name!r} was left in the work folder" for name in sorted(names) if not KEPT.fullmatch(name)]


def remains(folder: Path) -> dict[str, bytes | None]:
    """The entries of a folder by name: a small file's content, a larger file's size and time, else None."""
    found: dict[str, bytes | None] = {}
    for entry in folder.iterdir():
        if entry.is_symlink():
            found[entry.name] = bytes(entry.readlink())
        elif entry.is_file():
            info = entry.stat()
            small = info.st_size <= 2**20
            found[entry.name] = entry.read_bytes() if small else f"{info.st_size} {info.st_mtime_ns}".encode()
        else:
            found[entry.name] = None
    return found


def done_event(ended: Ended) -> dict[str, object] | None:
    """The last event of a run with `--progress json`, where it is `done`."""
    return _last(ended, "done")


def error_event(ended: Ended) -> dict[str, object] | None:
    """The last event of a run with `--progress json`, where it is `error`."""
    return _last(ended, "error")


def last_phase(ended: Ended) -> str:
    """The phase that a run with `--progress json` had told of last; "start" where it had told of none."""
    phase = "start"
    for line in ended.stdout.splitlines(keepends=True):
        # A killed process may leave half a line.
        if line.endswith("\n"):
            phase = str(json.loads(line).get("phase", phase))
    return phase


def _last(ended: Ended, kind: str) -> dict[str, object] | None:
    lines = ended.stdout.splitlines()
    try:
        event: dict[str, object] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return None
    return event if event.get("event") == kind else None


def outcome_of(ended: Ended) -> str:
    """How a case ended, in a word or two, for counting."""
    if ended.timed_out:
        return "time was up"
    if ended.code < 0:
        return f"signal {-ended.code}"
    if ended.code == 0:
        return "verified result"
    event = error_event(ended)
    return f"exit {ended.code}" + (f" ({event['error']})" if event else "")
