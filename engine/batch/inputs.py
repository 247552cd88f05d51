"""Which clips a batch has: folders, manifests, files and patterns -> `Clip`s, each video with its keyframes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from keyscale.engine.addresses import is_address, shown
from keyscale.engine.batch.clip import Clip
from keyscale.engine.batch.folders import Pattern, file_stat, is_folder, is_pattern, natural_key, walk
from keyscale.engine.batch.manifest import MANIFEST_SUFFIXES, read_manifest
from keyscale.engine.errors import FramingError, InputError, KeyscaleError, UsageError
from keyscale.engine.files import VIDEO_SUFFIXES
from keyscale.engine.settings import PRESET_NAME
from keyscale.engine.wording import say

__all__ = ["Inputs", "Video", "find_clips", "folder_of", "is_manifest", "unreadable"]

KEYFRAMES_SUFFIXES = (
    (".json", ".keyframes.json"),
    ("_keyframes.json", ".camera.json"),
    (".csv", ".jsonl", ".cmd"),
)
"""What follows a video's name in that of its keyframes. Each line is looked for where nothing of the one before is:
other names of editors, and formats that are no JSON. `.txt` may be a transcript."""

JSON_SUFFIXES = KEYFRAMES_SUFFIXES[0] + KEYFRAMES_SUFFIXES[1]

_OWN_RESULT = re.compile(r".\.keyscale\.(mp4|mov)$", re.IGNORECASE)
"""What `keyscale upscale` calls a result beside its source."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video that was found, not yet paired with its keyframes."""

    path: Path
    relative: Path
    """Beneath the folder that was searched; its name alone where the file itself was named."""
    name: str
    """How people know it, see `Clip.name`."""


def find_clips(
    paths: Sequence[str | Path],
    *,
    output_dir: str | Path,
    keyframes_dir: str | Path | None = None,
    recursive: bool = False,
    whole_frame: bool = False,
    on_unreadable: Callable[[str], None] | None = None,
) -> tuple[Clip, ...]:
    """All clips of a batch, in a stable order: by input, within one as people sort names, in a manifest by line.

    In a folder `talk.mp4` belongs to `talk.json` or `talk.keyframes.json`, and where neither is there to another name
    of `KEYFRAMES_SUFFIXES`, in any case. Left out of folders and patterns are hidden files and folders (keyscale's work
    folders among them), results that `keyscale upscale` left beside their sources (`talk.keyscale.mp4`), and all
    beneath `output_dir`. A video that two inputs name is one clip, that of the manifest where one of them is a
    manifest; what manifests name twice is two.

    Args:
        paths: folders, videos, manifests (`.csv`, `.jsonl`, `.ndjson`), and patterns (`*`, `?`, `[...]`, `**`), which
            are expanded here where no file has that very name. Keyframes files beside a named video, `keyscale.toml`,
            and the output folder among other inputs are passed over, so that a shell's `folder/*` works.
        output_dir: where results go; it need not be there yet.
        keyframes_dir: where keyframes files are instead of beside the videos, in the same subfolders.
        recursive: subfolders too.
        whole_frame: a video without keyframes is taken as a whole; otherwise it is a clip with a fault.
        on_unreadable: told, in words, of each subfolder that cannot be read and is left out; None makes it an error.

    Returns:
        At least one clip; whatever is wrong with one alone is its `fault`.

    Raises:
        UsageError: an input is not there or cannot be read, a manifest is wrong as a whole, there is no clip at all,
            or the output folder is the only input: results would have the names of their sources there.
    """
    inputs = Inputs(
        paths, output_dir=output_dir, keyframes_dir=keyframes_dir, recursive=recursive, whole_frame=whole_frame
    )
    clips: list[Clip] = []
    listed = {source: read_manifest(source) for source in inputs.sources if is_manifest(source)}
    seen = {_place(clip.video) for rows in listed.values() for clip in rows}
    for source in inputs.sources:
        if source in listed:
            clips += (inputs.completed(clip) for clip in listed[source])
            continue
        for video in inputs.videos(source, _refusal(folder_of(source), on_unreadable)):
            path = _place(video.path)
            if path not in seen:
                seen.add(path)
                clips.append(inputs.clip(video))
    inputs.check_left_over(clips)
    if not clips:
        looked = ", ".join(str(source) for source in inputs.sources)
        deeper = "" if recursive else say(" Give {recursive=True} to look into subfolders.")
        *most, last = sorted(VIDEO_SUFFIXES)
        remedy = say("Videos end in {} or {}.{}", ", ".join(most), last, deeper)
        raise UsageError(f"there is no video in {looked}", remedy=remedy)
    return tuple(clips)


def folder_of(path: str | Path) -> Path:
    """Where settings beside an input would be: a folder itself, the folder of a file, where a pattern begins."""
    path = Path(path)
    if is_folder(path):
        return path
    if is_pattern(str(path)) and not os.path.lexists(path):
        return Pattern(str(path)).root
    return path.parent


class Inputs:
    """What a batch was pointed at, checked; looks into it as often as asked."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        output_dir: str | Path,
        keyframes_dir: str | Path | None,
        recursive: bool,
        whole_frame: bool,
    ) -> None:
        """Arguments as of `find_clips`.

        Raises:
            UsageError: an input is not there, or is the output folder.
        """
        self._output_dir = Path(output_dir)
        self._keyframes_dir = None if keyframes_dir is None else Path(keyframes_dir)
        self._recursive = recursive
        self.whole_frame = whole_frame
        if self._keyframes_dir is not None and not is_folder(self._keyframes_dir):
            raise UsageError(
                f"{self._keyframes_dir} is no folder",
                option="keyframes_dir",
                remedy="Name the folder of the keyframes files.",
            )
        if not paths:
            raise UsageError("no inputs are given", remedy="Name a folder, a manifest, or videos.")
        named = [self._checked(path, alone=len(paths) == 1) for path in paths]
        # A shell's `folder/*` names them beside their videos.
        self._named_keyframes = [path for path in named if _is_keyframes(path)]
        self.sources = tuple(
            path
            for path in named
            if not _is_keyframes(path) and path.name != PRESET_NAME and not (len(named) > 1 and self._is_output(path))
        )
        """Folders, files and patterns, in the order in which they were given."""
        self._manifests = {_place(path) for path in self.sources if is_manifest(path)}
        self._names: dict[Path, dict[str, list[str]]] = {}
        """Of each folder the names in it, by how they are written without case, since `videos` looked last."""

    def _checked(self, given: str | Path, *, alone: bool) -> Path:
        text = str(given)
        if not text or "\0" in text:
            raise UsageError(f"an input is {text!r}", remedy="Name a folder, a manifest, or videos.")
        if is_address(text):
            raise UsageError(
                f"{shown(text)} is an address, and a batch looks into folders, files and manifests",
                remedy="Name it in a manifest, in the column video, or make it by `keyscale upscale`.",
            )
        path = Path(text)
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            if not is_pattern(text):
                raise UsageError(f"{path} does not exist", remedy="Check the path.") from error
            root = Pattern(text).root
            if not is_folder(root):
                raise UsageError(f"the folder {root} of {path} does not exist") from error
            self._check_not_output(root)
            return path
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        if stat.S_ISDIR(mode):
            if alone:
                self._check_not_output(path)
        elif not stat.S_ISREG(mode):
            raise UsageError(
                f"{path} is neither a file nor a folder", remedy="Name a folder, a manifest, or videos; save a stream."
            )
        return path

    def _is_output(self, folder: Path) -> bool:
        try:
            return folder.samefile(self._output_dir)
        except OSError:
            return False

    def _check_not_output(self, folder: Path) -> None:
        if self._is_output(folder):
            raise UsageError(
                f"{folder} is both the input and the output folder: results would replace their sources",
                remedy=say(
                    "Choose another output folder with {output}; {} would not be looked into.", folder / "results"
                ),
            )

    def videos(self, source: Path, on_error: Callable[[Path, OSError], None]) -> list[Video]:
        """The videos of one of `sources`, sorted; `on_error` is told of each folder that cannot be read."""
        self._names.clear()
        if is_folder(source):
            root, depth, pattern = source, None if self._recursive else 1, None
        elif is_pattern(str(source)) and not os.path.lexists(source):
            pattern = Pattern(str(source))
            root, depth = pattern.root, pattern.depth
        elif file_stat(source) is not None:
            return [Video(path=source, relative=Path(source.name), name=str(source))]
        else:
            return []
        alone = len(self.sources) == 1
        found = [
            Video(path=path, relative=relative, name=str(relative if alone else path))
            for path, relative in walk(root, depth=depth, leave_out=self._output_dir, on_error=on_error)
            if _is_video(path.name)
            and not _OWN_RESULT.search(path.name)
            and (pattern is None or pattern.matches(relative))
        ]
        return sorted(found, key=lambda video: natural_key(video.relative))

    def _folder(self, video: Video) -> Path:
        return video.path.parent if self._keyframes_dir is None else self._keyframes_dir / video.relative.parent

    def keyframes(self, video: Video) -> list[Path]:
        """The keyframes files that are there for a video: one, none, or one too many; of a name in any case."""
        folder, stem = self._folder(video), video.path.stem
        # Where case tells videos apart, each has keyframes of its own.
        others = {Path(name).stem for name in self._named(video.path.parent, stem, VIDEO_SUFFIXES)} - {stem}
        for suffixes in KEYFRAMES_SUFFIXES:
            exact = [folder / f"{stem}{suffix}" for suffix in suffixes]
            alike = (name for name in self._named(folder, stem, suffixes) if name[: len(stem)] not in others)
            found = [path for path in exact if self._is_there(path)] or [
                path for name in alike if self._is_there(path := folder / name)
            ]
            if found:
                return found
        return []

    def _named(self, folder: Path, stem: str, suffixes: Iterable[str]) -> list[str]:
        """The names in a folder that are `stem` and one of the suffixes, in any case."""
        if folder not in self._names:
            self._names[folder] = {}
            # Where a folder may be entered and not listed, a file is found by its exact name alone.
            with suppress(OSError):
                for name in sorted(path.name for path in folder.iterdir()):
                    self._names[folder].setdefault(name.casefold(), []).append(name)
        names = self._names[folder]
        return [name for suffix in sorted(suffixes) for name in names.get(f"{stem}{suffix}".casefold(), ())]

    def _is_there(self, path: Path) -> bool:
        # A list that is named as a manifest lists videos, beside whichever it lies.
        return file_stat(path) is not None and not (
            path.suffix.lower() in MANIFEST_SUFFIXES and _place(path) in self._manifests
        )

    def clip(self, video: Video) -> Clip:
        """The video with its keyframes, or with the fault that it has none, or two."""
        fault: KeyscaleError | None = None
        found = self.keyframes(video)
        if file_stat(video.path) is None:
            what = f"cannot read {video.path}: it is gone, or a link that leads nowhere"
            fault = InputError(what, remedy="Restore what it leads to, or remove it.")
        elif len(found) > 1:
            there = " and ".join(map(str, found))
            fault = FramingError(f"both {there} are there", remedy="Keep one of them.")
        elif not (found or self.whole_frame):
            either, other = (self._folder(video) / f"{video.path.stem}{suffix}" for suffix in KEYFRAMES_SUFFIXES[0])
            *most, last = (suffix for suffixes in KEYFRAMES_SUFFIXES[1:] for suffix in suffixes)
            fault = FramingError(
                f"no keyframes file: neither {either} nor {other} is there",
                remedy=say(
                    "Add it (or one ending in {} or {}), or give {whole_frame=True} to use the whole picture.",
                    ", ".join(most),
                    last,
                ),
            )
        return Clip(
            name=video.name,
            video=video.path,
            stem=video.relative.with_name(video.relative.stem),
            keyframes=found[0] if found and fault is None else None,
            fault=fault,
        )

    def completed(self, clip: Clip) -> Clip:
        """A manifest's clip, with the keyframes beside its video where the manifest names none."""
        fault, keyframes = clip.fault, clip.keyframes
        if fault is not None:
            return clip
        if clip.link is None and file_stat(clip.video) is None:
            there = os.path.lexists(clip.video)
            why = "no ordinary file, or a link that leads nowhere" if there else "no such file"
            fault = InputError(f"{clip.where}: cannot read {clip.video}: {why}", remedy="Correct the path.")
        elif keyframes is None and clip.link is not None:
            if not self.whole_frame:
                fault = FramingError(
                    f"{clip.where}: no keyframes are named, and beside an address none are looked for",
                    remedy=say("Name a file in the column keyframes, or give {whole_frame=True}."),
                )
        elif keyframes is None:
            relative = clip.stem.with_name(clip.video.name)
            paired = self.clip(Video(path=clip.video, relative=relative, name=clip.name))
            keyframes = paired.keyframes
            if paired.fault is not None:
                fault = FramingError(f"{clip.where}: {paired.fault.message}", remedy=paired.fault.remedy)
        elif os.path.lexists(keyframes) and file_stat(keyframes) is None:
            # A pipe that nobody writes to would hold up the batch for ever.
            what = f"{clip.where}: keyframes {keyframes} is not an ordinary file"
            fault = FramingError(what, remedy="Name a JSON file.")
        return replace(clip, keyframes=keyframes, fault=fault)

    def check_left_over(self, clips: Sequence[Clip]) -> None:
        """Raise a `UsageError` for a named keyframes file whose video was not named."""
        videos = {(clip.video.parent, clip.video.stem.casefold()) for clip in clips}
        for path in self._named_keyframes:
            stems = {path.name[: -len(end)].casefold() for end in JSON_SUFFIXES if path.name.lower().endswith(end)}
            if not videos & {(path.parent, stem) for stem in stems}:
                raise UsageError(
                    f"{path} is no video", remedy="Name the video: its keyframes are found beside it by their name."
                )


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _place(path: Path) -> str:
    return os.path.normpath(path.absolute())


def is_manifest(path: Path) -> bool:
    """Whether a manifest stands there, by its name."""
    return path.suffix.lower() in MANIFEST_SUFFIXES and file_stat(path) is not None


def _is_keyframes(path: Path) -> bool:
    return path.suffix.lower() == ".json" and file_stat(path) is not None


def unreadable(folder: Path, error: OSError) -> str:
    """What people are told of a folder that cannot be read."""
    return f"cannot read the folder {folder}: {error.strerror or error}"


def _refusal(root: Path, on_unreadable: Callable[[str], None] | None) -> Callable[[Path, OSError], None]:
    def refuse(folder: Path, error: OSError) -> None:
        # Every disk has a lost+found; an input that holds nothing to read is a mistake.
        if on_unreadable is None or folder == root:
            raise UsageError(unreadable(folder, error)) from error
        on_unreadable(f"{unreadable(folder, error)}; what is in it is left out")

    return refuse
