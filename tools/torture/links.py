"""Symbolic links where keyscale reads and writes: followed where they are given, refused where they were planted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.torture.cases import Case
from tools.torture.lab import Lab
from tools.torture.material import upscale
from tools.torture.report import Section

__all__ = ["PRECIOUS", "run_links"]

PRECIOUS = b"mine"
"""What a file elsewhere holds, before and after."""

WORK = ".out.mp4.keyscale"


@dataclass(frozen=True, kw_only=True)
class _Planted:
    name: str
    plant: Callable[[Path, Path], object]
    """Given the case's folder and one elsewhere, which holds `precious`."""
    codes: frozenset[int]
    says: str | None = None
    flags: tuple[str, ...] = ()
    source: str = "in.mp4"
    keyframes: str | None = None
    output: str = "out.mp4"


def _link(name: str, target: str) -> Callable[[Path, Path], object]:
    """A link in the case's folder; `{there}` is the folder elsewhere."""
    return lambda here, there: (here / name).symlink_to(target.format(there=there))


def _in_work(name: str, target: str) -> Callable[[Path, Path], object]:
    def plant(here: Path, there: Path) -> None:
        (here / WORK).mkdir()
        _link(f"{WORK}/{name}", target)(here, there)

    return plant


def _outside() -> Iterator[_Planted]:
    refused, works = frozenset({4}), frozenset({0})
    yield _Planted(name="the work folder a link", plant=_link(WORK, "{there}"), codes=refused, says="symbolic link")
    yield _Planted(
        name="the work folder a dangling link", plant=_link(WORK, "{there}/no"), codes=refused, says="symbolic link"
    )
    yield _Planted(
        name="the work folder a link to itself", plant=_link(WORK, WORK), codes=refused, says="symbolic link"
    )
    yield _Planted(
        name="the work folder a file", plant=lambda here, _: (here / WORK).write_bytes(PRECIOUS), codes=refused
    )
    for name in ("lock", "joined.mp4", "0123456789abcdef", "anything", "remote.json"):
        for target in ("{there}/precious", "{there}/new", "{there}"):
            where = {"{there}/precious": "a file", "{there}/new": "nothing", "{there}": "a folder"}[target]
            yield _Planted(
                name=f"{name} in the work folder a link to {where}",
                plant=_in_work(name, target),
                codes=refused,
                says="symbolic link",
            )
    over = ("--overwrite",)
    for target in ("{there}/precious", "{there}/new", "out.mp4", "{there}"):
        where = {"{there}/precious": "a file", "{there}/new": "nothing", "out.mp4": "itself", "{there}": "a folder"}[
            target
        ]
        yield _Planted(
            name=f"the output a link to {where}",
            plant=_link("out.mp4", target),
            codes=frozenset({2, 4}),
            says="already exists|directory",
        )
        codes = frozenset({2}) if target == "{there}" else works
        yield _Planted(
            name=f"the output a link to {where}, --overwrite", plant=_link("out.mp4", target), codes=codes, flags=over
        )
    yield _Planted(
        name="the output a link to the source",
        plant=_link("out.mp4", "in.mp4"),
        codes=frozenset({2}),
        says="same file",
        flags=over,
    )
    yield _Planted(
        name="the output a hard link of the source",
        plant=lambda here, _: (here / "out.mp4").hardlink_to(here / "in.mp4"),
        codes=frozenset({2}),
        says="same file",
        flags=over,
    )
    yield _Planted(name="the output's folder a link", plant=_link("to", "{there}"), codes=works, output="to/out.mp4")
    yield _Planted(
        name="the output's folder a dangling link", plant=_link("to", "{there}/no"), codes=refused, output="to/out.mp4"
    )
    yield _Planted(name="the source a link", plant=_link("in2.mp4", "in.mp4"), codes=works, source="in2.mp4")
    yield _Planted(
        name="the source a dangling link", plant=_link("in2.mp4", "no"), codes=frozenset({3}), source="in2.mp4"
    )
    yield _Planted(
        name="the source a link to itself", plant=_link("in2.mp4", "in2.mp4"), codes=frozenset({3}), source="in2.mp4"
    )
    yield _Planted(
        name="the source a link to a device",
        plant=_link("in2.mp4", "/dev/zero"),
        codes=frozenset({3}),
        source="in2.mp4",
    )
    yield _Planted(
        name="the keyframes a link to itself", plant=_link("k.json", "k.json"), codes=frozenset({2}), keyframes="k.json"
    )
    yield _Planted(
        name="the keyframes a link to a device",
        plant=_link("k.json", "/dev/zero"),
        codes=frozenset({2}),
        keyframes="k.json",
        says="larger than 64 MiB",
    )


def run_links(lab: Lab, section: Section, video: bytes, film: bytes) -> None:
    """Plant links in an output folder, and beneath the chunks of a stopped job.

    Args:
        lab: where it is done.
        section: what is added to.
        video: a small source.
        film: one that takes long enough to be stopped in the middle.
    """
    for planted in _outside():
        with lab.folder() as here, lab.folder() as there:
            (here / "in.mp4").write_bytes(video)
            (there / "precious").write_bytes(PRECIOUS)
            planted.plant(here, there)
            arguments = upscale(planted.source, *planted.flags, keyframes=planted.keyframes, output=planted.output)
            case = Case(
                name=planted.name, arguments=arguments, codes=planted.codes, says=planted.says, output=planted.output
            )
            before = _entries(there)
            may_change = ("out.mp4", "to") if planted.flags or "/" in planted.output else ()
            lab.attempt(case, here, section, may_change=may_change, judge_work=False)
            after = _entries(there) - ({"out.mp4"} if planted.output.startswith("to/") else set())
            if after != before or (there / "precious").read_bytes() != PRECIOUS:
                section.violations.append(f"{planted.name}: something elsewhere was written: {sorted(after)}")
    for name in (
        "",
        "chunk-00000.mp4",
        "chunk-00000.json",
        "chunk-00001.part.mp4",
        "chunk-00001.tmp",
        "chunk-00001.mp4",
    ):
        _beneath_chunks(lab, section, film, name)


def _beneath_chunks(lab: Lab, section: Section, film: bytes, name: str) -> None:
    """Stop a job, put a link into its folder of chunks, and run it again; it may refuse or succeed, but not follow."""
    what = f"{name or 'the folder'} of a stopped job's chunks a link"
    with lab.folder() as here, lab.folder() as there:
        (here / "in.mp4").write_bytes(film)
        (there / "precious").write_bytes(PRECIOUS)
        arguments = upscale("in.mp4", "--chunk-seconds", "1")
        key = stop_with_chunks(lab, here, arguments, 1)
        if key is None:
            section.violations.append(f"{what}: the job was done before it could be stopped")
            return
        planted = key / name if name else key
        if planted.is_dir() and not planted.is_symlink():
            for entry in planted.iterdir():
                entry.unlink()
            planted.rmdir()
        else:
            planted.unlink(missing_ok=True)
        planted.symlink_to(there / "precious" if name else there)
        case = Case(name=what, arguments=arguments, codes=frozenset({4}), says="symbolic link")
        lab.attempt(case, here, section, may_change=(WORK,), judge_work=False)
        if _entries(there) != {"precious"} or (there / "precious").read_bytes() != PRECIOUS:
            section.violations.append(f"{what}: something elsewhere was written")


def stop_with_chunks(lab: Lab, folder: Path, arguments: tuple[str, ...], chunks: int) -> Path | None:
    """`kill -9` once so many chunks are finished; the folder of the chunks, or None where the job was done first."""
    with lab.folder() as beside:
        running = lab.nursery.start(arguments, folder=folder, out=beside / "stdout", err=beside / "stderr")
        found: list[Path] = []
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not running.ended_within(0.002):
            found = list((folder / WORK).glob("*/chunk-*.json"))
            if len(found) >= chunks:
                running.kill()
                break
        ended = running.wait(30)
    return found[0].parent if ended.code == -9 and found else None


def _entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}
