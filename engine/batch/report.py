"""The file that keeps the report of a batch."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from pathlib import Path

import msgspec

from keyscale.engine.batch.events import Report
from keyscale.engine.batch.inputs import JSON_SUFFIXES
from keyscale.engine.errors import StorageError, UsageError
from keyscale.engine.files import VIDEO_SUFFIXES
from keyscale.engine.serialization import as_json
from keyscale.engine.settings import PRESET_NAME
from keyscale.engine.system import sync
from keyscale.engine.wording import say
from keyscale.engine.workspace.folder import is_work_folder
from keyscale.engine.workspace.locks import private_folder

__all__ = ["check_report_name", "check_report_path", "write_report"]

_BEGINNING = re.compile(rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"keyscale"\s*:')


def check_report_name(path: Path, output_dir: Path) -> None:
    """Make sure that a report would not be taken for something else; nothing is made, and no folder need be there.

    Raises:
        UsageError: the name is that of a video, a preset, a work folder or something in one, or of the keyframes of a
            video beside it. Videos in `output_dir` are results: no keyframes are looked for beside them.
    """
    _check_name(path)
    name = path.name.casefold()  # as macOS and Windows find it
    stems = {name.removesuffix(suffix) for suffix in JSON_SUFFIXES if name.endswith(suffix)}
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

    A draft is made and removed again; those of killed processes are removed.

    Raises:
        UsageError: a folder, a link, a device, or a file that is no report: such a thing is not replaced. Or a name
            of another meaning, see `check_report_name`.
        StorageError: the folder is missing or cannot be written to.
    """
    try:
        _check_target(path)
        with private_folder(path.parent) as private:
            (private / "report").touch()
    except OSError as error:
        raise _storage_error(error, path) from error


def write_report(report: Report, path: Path) -> None:
    """Write a report as indented JSON, whole or not at all: readers see the old one or the new one.

    Names with bytes that are not UTF-8 are escaped, see `as_json`.

    Raises:
        UsageError, StorageError: as of `check_report_path`, or the disk is full; nothing is left then.
    """
    text = msgspec.json.format(as_json(report), indent=2)
    try:
        _check_target(path)
        # Its draft has a folder of its own, whose lock tells whether the process that made it still writes.
        with private_folder(path.parent) as private:
            draft = private / "report"
            draft.write_text(text + "\n", encoding="utf-8")
            sync(draft)
            draft.replace(path)
    except OSError as error:
        raise _storage_error(error, path) from error
    # The report is there: a folder that cannot be opened or synced changes nothing of that.
    with contextlib.suppress(OSError):
        sync(path.parent)


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
        raise UsageError(f"the report's path {path} is not an ordinary file", remedy=elsewhere)
    with path.open("rb") as file:
        beginning = file.read(4096)
    if beginning and not _BEGINNING.match(beginning):
        what = f"{path} already exists and is not a report of keyscale, so it is not replaced"
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
