"""Clips that appear while a batch runs, given once they have stopped growing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyscale.engine.batch.clip import Clip
from keyscale.engine.batch.folders import file_stat
from keyscale.engine.batch.inputs import Inputs, is_manifest, unreadable
from keyscale.engine.errors import UsageError
from keyscale.engine.wording import say

__all__ = ["SETTLE_S", "Watch"]

SETTLE_S = 5.0
"""Seconds without a change after which a file counts as finished."""

MOST_REMEMBERED = 100_000
"""Most clips that are gone and yet remembered."""

_Version = tuple[tuple[str, int, int], ...]
"""Name, size in bytes and time of change in ns of the video and of what belongs to it."""


@dataclass
class _Seen:
    version: _Version | None = None
    """None while it is not complete."""
    since: float = 0.0
    given: _Version | None = None


class Watch:
    """Looks into folders again and again, by listing them: that works on network file systems too."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        output_dir: str | Path,
        keyframes_dir: str | Path | None = None,
        recursive: bool = False,
        whole_frame: bool = False,
        settle_s: float = SETTLE_S,
        on_unreadable: Callable[[str], None] | None = None,
    ) -> None:
        """Arguments as of `find_clips`, but for `settle_s` in seconds, and:

        Args:
            on_unreadable: told once, in words, of each folder that cannot be read; None where nobody wants to know.

        Raises:
            UsageError: an input is not there, is the output folder, or is a manifest.
        """
        self._inputs = Inputs(
            paths, output_dir=output_dir, keyframes_dir=keyframes_dir, recursive=recursive, whole_frame=whole_frame
        )
        for source in filter(is_manifest, self._inputs.sources):
            raise UsageError(
                f"{source} is a manifest, which says once and for all what there is",
                remedy=say("Watch a folder, or leave {watch} out."),
            )
        self._settle_s = settle_s
        self._on_unreadable = on_unreadable
        self._unreadable: set[Path] = set()
        """Folders that were told of."""
        self._seen: dict[Path, _Seen] = {}

    def poll(self, now: float) -> tuple[Clip, ...]:
        """Clips whose files have not changed for `settle_s`, each version of one once, in the order of `find_clips`.

        A video without keyframes waits, as does an empty one. A clip whose video or keyframes change is given again
        once they have settled; one that was gone and comes back unchanged is not. Folders that cannot be read are
        passed over until they can.

        Args:
            now: monotonic seconds.

        Returns:
            Often nothing. Whatever is wrong with a clip alone is its `fault`.
        """
        present: set[Path] = set()
        settled: list[Clip] = []
        for source in self._inputs.sources:
            for video in self._inputs.videos(source, self._pass_over):
                key = video.path.absolute()
                if key in present:
                    continue
                present.add(key)
                keyframes = self._inputs.keyframes(video)
                version = _version([video.path, *keyframes]) if keyframes or self._inputs.whole_frame else None
                seen = self._seen.setdefault(key, _Seen())
                if version is None or seen.version != version:
                    seen.version, seen.since = version, now
                elif seen.given != version and now - seen.since >= self._settle_s:
                    seen.given = version
                    settled.append(self._inputs.clip(video))
        gone = self._seen.keys() - present
        for key in gone:
            # What was given is remembered: files on a mount that is away for a while would all be given again.
            self._seen[key].version = None
            if len(gone) > MOST_REMEMBERED:
                del self._seen[key]
        return tuple(settled)

    def _pass_over(self, folder: Path, error: OSError) -> None:
        if self._on_unreadable is not None and folder not in self._unreadable:
            self._unreadable.add(folder)
            self._on_unreadable(f"{unreadable(folder, error)}; it is passed over until it can be read")


def _version(paths: Sequence[Path]) -> _Version | None:
    """None where a file is gone or empty."""
    version = []
    for path in paths:
        info = file_stat(path)
        if info is None or not info.st_size:
            return None
        version.append((path.name, info.st_size, info.st_mtime_ns))
    return tuple(version)
