"""What lies in a folder: files beneath it, patterns, names in the order people expect."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

__all__ = ["Pattern", "file_stat", "is_folder", "is_pattern", "natural_key", "walk"]

_MAGIC = re.compile(r"[*?\[]")
_DIGITS = re.compile(r"([0-9]+)")


def natural_key(path: Path) -> tuple[object, ...]:
    """Sorts `clip2` before `clip10`, upper and lower case alike; no two paths are equal by it."""
    # Digits stand at the odd places of each split, so that numbers meet numbers only.
    parts = tuple(
        tuple(int(text) if place % 2 else text.casefold() for place, text in enumerate(_DIGITS.split(part)))
        for part in path.parts
    )
    return (parts, path.parts)


def file_stat(path: Path) -> os.stat_result | None:
    """What stands at `path` if that is a regular file, or a link to one; None for all else, names too long included."""
    try:
        info = path.stat()
    except (OSError, ValueError):
        return None
    return info if stat.S_ISREG(info.st_mode) else None


def is_folder(path: Path) -> bool:
    """Whether a folder stands at `path`, or a link to one; False where that cannot be told."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_pattern(text: str) -> bool:
    """Whether `text` holds `*`, `?` or `[`."""
    return _MAGIC.search(text) is not None


def walk(
    root: Path, *, depth: int | None, leave_out: Path | None, on_error: Callable[[Path, OSError], None]
) -> Iterator[tuple[Path, Path]]:
    """Regular files beneath a folder, in no order, and links that lead nowhere; hidden ones, and all in hidden folders,
    are left out. Each comes as its path with that of the folder as it was given, and its path beneath the folder.

    Links to folders are followed, but no folder is looked into twice, and real ones come before links to them: loops
    end, and a file has the same path in every run.

    Args:
        root: the folder.
        depth: how many levels of folders are looked into, 1 is `root` alone; None is all.
        leave_out: a folder that is not looked into.
        on_error: told of each folder that cannot be read; those that vanish meanwhile are passed over.
    """
    seen: set[tuple[int, int]] = set()
    if leave_out is not None:
        with contextlib.suppress(OSError):
            seen.add(_identity(leave_out))
    due: list[tuple[Path, Path, int]] = [(root, Path(), 1)]
    links: list[tuple[Path, Path, int]] = []
    while due or links:
        folder, relative, level = due.pop() if due else links.pop(0)
        try:
            identity = _identity(folder)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError as error:
            if not relative.parts:
                on_error(folder, error)
            continue
        except OSError as error:
            on_error(folder, error)
            continue
        for entry in found:
            if entry.name.startswith("."):
                continue
            is_link = entry.is_symlink()
            place = (folder / entry.name, relative / entry.name)
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
                leads_nowhere = is_link and not (is_folder or is_file or place[0].exists())
            except OSError:  # a link that leads to itself
                is_folder, is_file, leads_nowhere = False, False, is_link
            if is_file or leads_nowhere:
                yield place
            elif is_folder and (depth is None or level < depth):
                (links if is_link else due).append((*place, level + 1))


def _identity(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_dev, info.st_ino


class Pattern:
    """A glob pattern: `*`, `?`, `[...]` within a name, and `**` for any number of folders."""

    def __init__(self, text: str) -> None:
        parts = Path(text).parts
        fixed = next(place for place, part in enumerate(parts) if is_pattern(part))
        self.root = Path(*parts[:fixed])
        """The folder beneath which it matches."""
        self._parts = parts[fixed:]

    @property
    def depth(self) -> int | None:
        """How many levels of folders have to be looked into, as for `walk`."""
        return None if "**" in self._parts else len(self._parts)

    def matches(self, relative: Path) -> bool:
        """Whether it fits a path beneath `root`."""
        return _fits(relative.parts, self._parts)


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    @cache
    def rest(name: int, pattern: int) -> bool:
        if pattern == len(patterns):
            return name == len(names)
        if patterns[pattern] == "**":
            # At the end it stands for files too, as in most shells.
            if pattern == len(patterns) - 1:
                return True
            return rest(name, pattern + 1) or (name < len(names) and rest(name + 1, pattern))
        return name < len(names) and fnmatch.fnmatch(names[name], patterns[pattern]) and rest(name + 1, pattern + 1)

    return rest(0, 0)
