"""The report of a batch: what became of each clip, gathered from its events, and the file that keeps it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

import msgspec

import keyscale
from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.events import ENDED, ClipEvent, ClipReport, ClipStatus, Fault, Report
from keyscale.engine.batch.inputs import KEYFRAMES_SUFFIXES, VIDEO_SUFFIXES
from keyscale.engine.errors import InputError, StorageError, UsageError
from keyscale.engine.events import Done, Failed, Note, Progress, failure
from keyscale.engine.serialization import as_json, loads
from keyscale.engine.settings import PRESET_NAME
from keyscale.engine.system import may_be_alive, sync
from keyscale.engine.wording import say
from keyscale.engine.workspace.folder import is_work_folder

__all__ = [
    "MOST_WARNINGS",
    "REPORT_VERSION",
    "Reporter",
    "check_report_name",
    "check_report_path",
    "read_report",
    "write_report",
]

REPORT_VERSION = 1
"""Of the fields of `Report`; raised when one changes its meaning."""

MOST_WARNINGS = 50
"""Different warnings of a clip that are kept; of what comes after them only the number is."""

_FINISHED = (ClipStatus.DONE, ClipStatus.SKIPPED, ClipStatus.FAILED)

_BEGINNING = re.compile(rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"keyscale"\s*:')


@dataclass(kw_only=True)
class _Kept:
    """What is known of one clip so far."""

    clip: BatchClip
    status: ClipStatus = ClipStatus.WAITING
    frames: int | None = None
    source_size: tuple[int, int] | None = None
    began: float | None = None
    seconds: float | None = None
    warnings: dict[str, None] = field(default_factory=dict)
    unkept: int = 0
    """Warnings beyond those that are kept."""
    output_bytes: int | None = None
    done: Done | None = None
    failed: Failed | None = None


class Reporter:
    """Makes the report of a batch of what it is told. May be used from several threads.

    Args:
        clips: those that are known from the start; their indices are their places here.
        clock: seconds, monotonic.
        began: when the batch began, with a time zone; None is now.
    """

    def __init__(
        self,
        clips: Iterable[BatchClip] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        began: datetime | None = None,
    ) -> None:
        self._clock = clock
        self._began = (began or datetime.now(UTC)).astimezone(UTC)
        self._since = clock()
        self._lock = threading.Lock()
        self._kept = {index: _Kept(clip=clip) for index, clip in enumerate(clips)}
        self._known = len(self._kept)
        self._condensed = dict.fromkeys(ENDED, 0)
        """How many clips ended so of which nothing else is kept; and, of all those:"""
        self._condensed_frames = 0
        self._dollars: float | None = None
        """What all cost that are not kept."""

    def add(self, clip: BatchClip) -> int:
        """Another clip became known; its index is returned."""
        with self._lock:
            index, self._known = self._known, self._known + 1
            self._kept[index] = _Kept(clip=clip)
            return index

    def forget(self, index: int) -> None:
        """A clip is in the report no more: its video has changed, and it is made again as another one.

        What it cost stays counted.
        """
        with self._lock:
            self._spend(_clip_report(self._kept.pop(index)))

    def condense(self, index: int) -> None:
        """A clip that ended is in the report's numbers alone from now on."""
        with self._lock:
            clip = _clip_report(self._kept.pop(index))
            self._condensed[clip.status] += 1
            if clip.status is ClipStatus.DONE:
                self._condensed_frames += clip.frames or 0
            self._spend(clip)

    def _spend(self, clip: ClipReport) -> None:
        if clip.dollars is not None:
            self._dollars = (self._dollars or 0.0) + clip.dollars

    def handle(self, event: ClipEvent) -> None:
        """Something happened to a clip that was given or added before.

        Raises:
            KeyError: no clip has that index.
        """
        with self._lock:
            kept = self._kept[event.index]
            now = self._clock()
            kept.status = event.status
            kept.frames = event.frames if event.frames is not None else kept.frames
            kept.source_size = event.source_size or kept.source_size
            if event.status is ClipStatus.RUNNING and kept.began is None:
                kept.began = now
            match event.of:
                case Note(level="warning", message=message):
                    _warn(kept, message)
                case Done() as done:
                    kept.done, kept.failed = done, None
                    kept.frames = done.frames
                    kept.output_bytes = _size_of(done.output)
                case Failed() as failed:
                    kept.failed = failed
                case Note() | Progress() | None:
                    pass
                case _:
                    assert_never(event.of)
            if event.status in ENDED and kept.seconds is None and kept.began is not None:
                kept.seconds = now - kept.began

    def clip(self, index: int) -> ClipReport:
        """What is known of one clip.

        Raises:
            KeyError: no clip has that index.
        """
        with self._lock:
            return _clip_report(self._kept[index])

    def report(self, *, finished: bool) -> Report:
        """What is known of all.

        Args:
            finished: whether the batch has ended by itself: not interrupted, nor still going on.
        """
        with self._lock:
            clips = tuple(_clip_report(kept) for kept in self._kept.values())
            seconds = self._clock() - self._since
            count = {status: sum(clip.status is status for clip in clips) for status in ClipStatus}
            listed_stopped = len(clips) - sum(count[status] for status in _FINISHED)
            count.update((status, count[status] + number) for status, number in self._condensed.items())
            dollars = [clip.dollars for clip in clips if clip.dollars is not None]
            dollars += [self._dollars] if self._dollars is not None else []
            frames = self._condensed_frames
        return Report(
            version=REPORT_VERSION,
            keyscale=keyscale.__version__,
            began=self._began.isoformat(timespec="seconds"),
            seconds=seconds,
            finished=finished,
            done=count[ClipStatus.DONE],
            skipped=count[ClipStatus.SKIPPED],
            failed=count[ClipStatus.FAILED],
            stopped=listed_stopped + self._condensed[ClipStatus.STOPPED],
            frames=frames + sum(clip.frames or 0 for clip in clips if clip.status is ClipStatus.DONE),
            dollars=sum(dollars) if dollars else None,
            clips=clips,
        )


def _warn(kept: _Kept, message: str) -> None:
    if message in kept.warnings:
        return
    if len(kept.warnings) < MOST_WARNINGS:
        kept.warnings[message] = None
    else:
        kept.unkept += 1


def _size_of(output: str) -> int | None:
    try:
        return Path(output).stat().st_size
    except (OSError, ValueError):
        return None  # someone took it away since, or it never was a file here


def _clip_report(kept: _Kept) -> ClipReport:
    clip, done = kept.clip, kept.done
    warnings = tuple(kept.warnings)
    if kept.unkept:
        warnings = (*warnings, f"and {kept.unkept} more warnings")
    report = ClipReport(
        clip=clip.name,
        status=kept.status,
        video=clip.video,
        keyframes=clip.keyframes,
        output=clip.output,
        frames=kept.frames,
        seconds=kept.seconds,
        source_size=kept.source_size,
        warnings=warnings,
        error=_fault(kept) if kept.status is ClipStatus.FAILED else None,
    )
    if done is None or kept.status not in {ClipStatus.DONE, ClipStatus.SKIPPED}:
        return report
    made = 0 if kept.status is ClipStatus.SKIPPED else done.frames - done.resumed_frames
    target = clip.job.target if clip.job is not None else None
    return replace(
        report,
        seconds=done.seconds,
        fps=made / done.seconds if made > 0 and done.seconds > 0 else None,
        size=(target.width, target.height) if target is not None else None,
        output_bytes=kept.output_bytes,
        resumed_frames=done.resumed_frames,
        lost_frames=done.lost_frames,
        device=done.device if kept.status is ClipStatus.DONE else None,
        runtime=done.runtime if kept.status is ClipStatus.DONE else None,
        model=done.model,
        key=done.key or None,
        dollars=done.remote.dollars if done.remote is not None else None,
        published=done.published,
    )


def _fault(kept: _Kept) -> Fault | None:
    of = kept.failed
    if of is None and kept.clip.fault is not None:
        of = failure(kept.clip.fault)
    if of is None:
        return None
    return Fault.of(of)


def check_report_name(path: Path, output_dir: Path) -> None:
    """Make sure that a report would not be taken for something else; nothing is made, and no folder need be there.

    Raises:
        UsageError: the name is that of a video, a preset, a work folder or something in one, or of the keyframes of a
            video beside it. Videos in `output_dir` are results: no keyframes are looked for beside them.
    """
    _check_name(path)
    name = path.name.casefold()  # as macOS and Windows find it
    stems = {name.removesuffix(suffix) for suffix in KEYFRAMES_SUFFIXES if name.endswith(suffix)}
    try:
        if not stems or Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(output_dir)):
            return
        beside = [file for file in path.parent.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES]
    except (OSError, ValueError):
        return  # `check_report_path` tells what is wrong with the folder
    for video in beside:
        if video.stem.casefold() in stems:
            what = f"the report {path} would be taken for the keyframes of {video}"
            raise UsageError(what, remedy=say("Give another name with {report}."))


def check_report_path(path: Path) -> None:
    """Make sure, before anything else is done, that a report can be written there.

    A draft is made and removed again; drafts that processes of this machine left when they were killed are removed.

    Raises:
        UsageError: a folder, a link, a device, or a file that is no report: such a thing is not replaced. Or a name
            of another meaning, see `check_report_name`.
        StorageError: the folder is missing or cannot be written to.
    """
    try:
        _check_target(path)
        _remove_left_drafts(path.parent)
        draft = _draft_beside(path)
        os.close(_create(draft))
        draft.unlink()
    except OSError as error:
        raise _storage_error(error, path) from error


def write_report(report: Report, path: Path) -> None:
    """Write a report as indented JSON, whole or not at all: readers see the old one or the new one.

    Names with bytes that are not UTF-8 are escaped, see `as_json`.

    Raises:
        UsageError, StorageError: as of `check_report_path`, or the disk is full; nothing is left then.
    """
    text = msgspec.json.format(as_json(report), indent=2)
    draft = _draft_beside(path)
    try:
        _check_target(path)
        descriptor = _create(draft)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
    except OSError as error:
        raise _storage_error(error, path) from error
    # The report is there: a folder that cannot be opened or synced changes nothing of that.
    with contextlib.suppress(OSError):
        sync(path.parent)


def read_report(path: Path) -> Report:
    """The inverse of `write_report`; names that were escaped stay so.

    Raises:
        InputError: the file cannot be read.
        UsageError: it is no report, or one of another version.
    """
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the report {path}: {error}") from error
    try:
        report = loads(text, Report)
    except (UsageError, RecursionError) as error:
        raise UsageError(
            f"{path} is {error}" if isinstance(error, UsageError) else f"{path} is nested too deeply for a report",
            remedy="Give a file that `keyscale batch --report` wrote.",
        ) from error
    if report.version != REPORT_VERSION:
        raise UsageError(
            f"{path} is a report of version {report.version}, this program reads version {REPORT_VERSION}",
            remedy="Use the keyscale version that wrote it.",
        )
    return report


def _check_target(path: Path) -> None:
    elsewhere = say("Give another path with {report}.")
    if "\0" in str(path):
        raise UsageError("the report's path has a zero byte in it", remedy=elsewhere)
    _check_name(path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if path.name:
            return
        mode = stat.S_IFDIR
    if stat.S_ISDIR(mode):
        raise UsageError(f"the report's path {path} is a folder", remedy=say("Give a file name with {report}."))
    if stat.S_ISLNK(mode):
        raise UsageError(f"the report's path {path} is a symbolic link, and those are not followed", remedy=elsewhere)
    if not stat.S_ISREG(mode):
        raise UsageError(f"the report's path {path} is no ordinary file", remedy=elsewhere)
    with path.open("rb") as file:
        beginning = file.read(4096)
    if beginning and not _BEGINNING.match(beginning):
        what = f"{path} is there already and is no report of keyscale, so it is not replaced"
        raise UsageError(what, remedy=elsewhere)


def _check_name(path: Path) -> None:
    wrong = None
    if path.suffix.lower() in VIDEO_SUFFIXES:
        wrong = "has the name of a video"
    elif path.name.casefold() == PRESET_NAME:
        wrong = "has the name of a preset, which later runs would read"
    elif is_work_folder(path.name):
        wrong = "has the name of a folder in which keyscale works"
    elif is_work_folder(path.parent.name):
        wrong = "is in a folder in which keyscale works, and which it removes"
    if wrong is not None:
        raise UsageError(
            f"the report {path} {wrong}", remedy=say("Give another path with {report}, such as report.json.")
        )


def _machine() -> str:
    return hashlib.sha256(platform.node().encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _draft_beside(path: Path) -> Path:
    # Not made of the report's own name, which may be as long as names can be.
    return path.parent / f".keyscale-report-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _create(draft: Path) -> int:
    return os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _remove_left_drafts(folder: Path) -> None:
    for draft in folder.glob(f".keyscale-report-{_machine()}-*.tmp"):
        pid = draft.name.split("-")[3]
        if not pid.isascii() or not pid.isdigit() or len(pid) > 9:
            continue
        # In a container every run may have the same number.
        if int(pid) != os.getpid() and may_be_alive(int(pid)):
            continue
        with contextlib.suppress(OSError):
            draft.unlink()


def _storage_error(error: OSError, path: Path) -> StorageError:
    remedies = {
        errno.ENOENT: say("Create the folder {}, or give another path with {report}.", path.parent),
        errno.ENOTDIR: say("Give a path in a folder with {report}."),
        **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), say("Free some space, or give a path elsewhere with {report}.")),
        errno.ENAMETOOLONG: say("Give a shorter name with {report}."),
    }
    remedy = remedies.get(error.errno or 0, say("Give a path that can be written with {report}."))
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return StorageError(f"cannot write the report {path}: {reason}", remedy=remedy)
