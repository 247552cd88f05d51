"""Where each clip's result goes: beneath the output folder, and for no two at the same place."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from keyscale.engine.batch.clip import Clip
from keyscale.engine.errors import UsageError
from keyscale.engine.files import VIDEO_SUFFIXES
from keyscale.engine.wording import say
from keyscale.engine.workspace.folder import is_work_folder

__all__ = ["LONGEST_NAME", "Places", "place"]

LONGEST_NAME = 255
"""Bytes of a file name on common file systems."""

MOST_FOLDERS = 200
"""Of an output, one within the other: the library that makes them goes down by one call a folder."""

MOST_NAMED = 3
"""Clips that want the same place and are named in the message of each of them."""

_Key = tuple[str, str]


def place(clip: Clip, output_dir: Path, suffix: str) -> Path:
    """Where the result goes: the manifest's output, else the clip's stem, beneath `output_dir`. Nothing is made.

    Args:
        clip: whose result.
        output_dir: the batch's output folder; it and what is beneath it need not be there.
        suffix: `.mp4` or the like, added where a manifest's output does not end as videos do.

    Raises:
        UsageError: it would be outside the folder (`..`, an absolute path, a linked folder), or a link, or in a work
            folder, or where a file stands in place of a folder; a name has more than 255 bytes, or it is within 200
            folders or more.
    """
    path = clip.stem if clip.output is None else clip.output
    at = f"{clip.where}: " if clip.where else ""

    def refused(why: str, remedy: str) -> UsageError:
        return UsageError(f"{at}the output {path} {why}", remedy=remedy)

    if len(path.parts) > MOST_FOLDERS:
        raise UsageError(
            f"{at}the output is within {len(path.parts) - 1} folders, at most {MOST_FOLDERS - 1} are possible",
            remedy="Name another output in a manifest.",
        )
    for wrong, why, remedy in (
        (path.is_absolute(), "is an absolute path", "Write it relative to the output folder."),
        (".." in path.parts, "contains '..'", "Write it without '..'."),
        (not path.name, "is not a file name", "Name a file beneath the output folder."),
    ):
        if wrong:
            raise refused(why, remedy)
    if clip.output is None or path.suffix.lower() not in VIDEO_SUFFIXES:
        path = path.with_name(path.name + suffix)
    for name in path.parts:
        if is_work_folder(name):
            raise refused("has the name of a folder in which keyscale works", "Choose another output.")
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise UsageError(
                f"{at}the output's name {name} has {len(os.fsencode(name))} bytes, at most {LONGEST_NAME} are possible",
                remedy="Rename the video, or name another output in a manifest.",
            )
    path = output_dir / path
    try:
        parent = os.path.realpath(path.parent)
        if not _is_beneath(parent, os.path.realpath(output_dir)):
            raise refused(f"is in {parent}, through a linked folder", "Remove the link, or choose another output.")
        for folder in takewhile(lambda folder: folder != output_dir, path.parents):
            if os.path.lexists(folder) and not folder.is_dir():
                raise refused(f"cannot be made: {folder} is not a folder", "Remove that file.")
        if path.is_symlink():
            raise refused("is a symbolic link", "Remove it; a result is a file of its own.")
    except OSError as error:
        raise refused(f"cannot be made: {error.strerror or error}", "Choose another output.") from error
    return path


def _is_beneath(parent: str, root: str) -> bool:
    return parent == root or parent.startswith(root.rstrip(os.sep) + os.sep)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class Places:
    """The places of a whole batch, remembered for clips that come later (`--watch`)."""

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._owners: dict[_Key, Clip] = {}
        self._sources: dict[_Key, Path] = {}

    def take(self, wanted: Sequence[tuple[Clip, str]]) -> tuple[Path | UsageError, ...]:
        """The place of each clip, with its suffix as for `place`, or why it has none.

        Two clips that would have the same place have none, names that differ in case alone included: macOS and Windows
        see one name there. One that came in an earlier call keeps its place, and has it again if it comes back.
        """
        found: list[Path | UsageError] = []
        claims: dict[_Key, list[Clip]] = {}
        for clip, suffix in wanted:
            self._sources[self._key(clip.video)] = clip.video
            try:
                target = place(clip, self._output_dir, suffix)
            except UsageError as error:
                found.append(error)
                continue
            found.append(target)
            claims.setdefault(self._key(target), []).append(clip)
        return tuple(
            each if isinstance(each, UsageError) else self._claimed(clip, each, claims[self._key(each)])
            for (clip, _), each in zip(wanted, found, strict=True)
        )

    def _key(self, path: Path) -> _Key:
        """Equal for paths that are one file on some system: beneath the output folder no case is told apart."""
        parent = os.path.realpath(path.parent)
        root = os.path.realpath(self._output_dir)
        beneath = os.path.relpath(parent, root) if _is_beneath(parent, root) else None
        folder = parent if beneath is None else f"{root}{os.sep}{_folded(beneath)}"
        return folder, _folded(path.name)

    def _claimed(self, clip: Clip, target: Path, claims: Sequence[Clip]) -> Path | UsageError:
        key = self._key(target)
        result = f"{clip.where}: the result {target}" if clip.where else f"the result {target}"
        if key in self._sources:
            return UsageError(
                f"{result} would take the place of the source {self._sources[key]}",
                remedy=say("Choose another output folder with {output}."),
            )
        owner = self._owners.get(key)
        others = [other for other in claims if other is not clip]
        if owner is not None and owner.video != clip.video:
            others.append(owner)
        if others:
            names = " and ".join(other.where or str(other.video) for other in others[:MOST_NAMED])
            if len(others) > MOST_NAMED:
                names += f" and {len(others) - MOST_NAMED} more"
            return UsageError(
                f"{result} would be that of {names} too",
                remedy="Name an output for each in a manifest, or rename a video.",
            )
        self._owners[key] = clip
        return target
