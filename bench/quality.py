"""Judge upscalers on pictures that none of them was trained on: likeness, faults, flicker, cost and speed, in one run.

    python -m bench.quality [--quick] [--sets NAME ...] [--limit N] [--student FILE] [--json FILE] [--markdown FILE]

Networks come from `KEYSCALE_WEIGHTS_DIR` or the cache, pictures from `../shared` (or `KEYSCALE_SHARED`). Nothing is
downloaded or asserted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from bench.candidates import Candidate
    from bench.judging import Row
    from bench.sets import PictureSet, Sample

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = "CID22"
"""Set whose pictures are used for noise, pans and timing."""
FRAME = (480, 270)
"""Width and height of the frame that is timed."""
WIDTH = 290
"""Columns of text that the table may take, however narrow the terminal is: wrapped cells cannot be compared."""


@dataclass(frozen=True)
class Options:
    """The command line."""

    sets: tuple[str, ...]
    """Names; all if empty."""
    limit: int | None
    """Pictures of each set at most."""
    rounds: int
    threads: int
    flicker_pictures: int
    """Pictures that noise is tried on; pans on twice as many."""
    students: tuple[Path, ...]
    only: tuple[str, ...]
    shared: Path


def parse(arguments: Sequence[str] | None = None) -> tuple[Options, argparse.Namespace]:
    """The command line, and what of it concerns output alone."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description="Judge upscalers.")
    parser.add_argument("--quick", action="store_true", help="three pictures of each set, two turns of timing")
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="these sets alone, such as 'CID22 crf32'")
    parser.add_argument("--limit", type=int, help="at most so many pictures of each set")
    parser.add_argument("--rounds", type=int, help="turns of the timing (5, with --quick 2); 0 for none")
    parser.add_argument("--threads", type=int, default=2, help="cores (2): the first ones that taskset allows")
    parser.add_argument("--no-flicker", action="store_true", help="leave noise and pans out")
    parser.add_argument("--student", type=Path, action="append", default=[], metavar="FILE", help="a checkpoint")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="candidates whose names hold such a word")
    parser.add_argument("--shared", type=Path, help="folder of the pictures")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    given = parser.parse_args(arguments)
    quick = bool(given.quick)
    options = Options(
        sets=tuple(given.sets),
        limit=given.limit if given.limit is not None else (3 if quick else None),
        rounds=given.rounds if given.rounds is not None else (2 if quick else 5),
        threads=given.threads,
        flicker_pictures=0 if given.no_flicker else (1 if quick else 6),
        students=tuple(given.student),
        only=tuple(given.only),
        shared=given.shared or Path(os.environ.get("KEYSCALE_SHARED") or ROOT.parent / "shared"),
    )
    return options, given


def bind(threads: int) -> None:
    """Keep this process on so many cores; before torch and OpenVINO are imported, which then start as many threads."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)


def chosen_sets(options: Options) -> list[PictureSet]:
    """The sets that were asked for.

    Raises:
        FileNotFoundError: material is absent.
        KeyError: no set of that name; its message lists those that there are.
    """
    from bench.sets import find_sets

    found = find_sets(options.shared)
    names = {name.lower(): name for name in found}
    for name in options.sets:
        if name.lower() not in names:
            raise KeyError(f"there is no set named {name!r}; there are {', '.join(found)}")
    return [found[names[name.lower()]] for name in options.sets] or list(found.values())


def measure(
    candidates: Sequence[Candidate],
    sets: Sequence[PictureSet],
    photos: Sequence[Sample],
    frames: Sequence[Sample],
    options: Options,
    say: Callable[[str], None],
) -> tuple[list[Row], dict[str, list[float]]]:
    """All rows, those over all sets first, and the seconds of the timing by candidate.

    Args:
        candidates: with the teacher among them at each scale.
        sets: to judge on.
        photos: pictures with originals for timing (the first one), pans and, half of them, noise; none leaves all that
            out.
        frames: of footage, for noise.
        options: limits, turns and threads.
        say: called with lines of progress.
    """
    from bench.judging import flicker_measures, judge_set, over_all_sets, speed_measures

    more: dict[str, dict[tuple[str, int], float | None]] = {
        "kmacs": {(c.name, c.scale): c.macs / 1000 if c.macs else None for c in candidates}
    }
    seconds: dict[str, list[float]] = {}
    if photos and options.rounds:
        frame = np.asarray(Image.fromarray(photos[0].low).resize(FRAME, Image.Resampling.BICUBIC))
        speeds, seconds = speed_measures(candidates, frame, options.rounds)
        more |= speeds
        say(f"timing: {options.rounds} turns")
    tried = photos[: options.flicker_pictures]
    if tried:
        originals = [photo.truth for photo in photos[: 2 * len(tried)] if photo.truth is not None]
        more |= flicker_measures(candidates, [photo.low for photo in tried], originals, [frame.low for frame in frames])
        say(f"noise: {len(tried)} pictures; pans: {len(originals)}")
    rows: list[Row] = []
    for one in sets:
        began = time.perf_counter()
        rows += judge_set(one.name, one.load(options.limit), candidates, threads=options.threads)
        say(f"{one.name}: {rows[-1].pictures} pictures, {time.perf_counter() - began:.0f} s")
    return over_all_sets(rows, more) + rows, seconds


def conditions(options: Options) -> dict[str, Any]:
    """What the numbers hang on."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    versions = {}
    for package in ("torch", "openvino", "numpy", "pillow", "ssimulacra2"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "threads": options.threads,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": versions,
        "limit": options.limit,
        "rounds": options.rounds,
    }


def sentence(about: dict[str, Any]) -> str:
    """The conditions in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    limit = f"at most {about['limit']} pictures of each set" if about["limit"] else "all pictures"
    return (
        f"{about['cpu']}, {about['threads']} threads (load average before: {about['load']:.1f}), Python "
        f"{about['python']}, {packages}; {limit}, {about['rounds']} turns of timing; {about['date']}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options, given = parse(arguments)
    bind(options.threads)
    from rich.console import Console

    from bench import tables
    from bench.candidates import find_candidates
    from bench.metrics import ssimulacra2_is_there
    from bench.sets import find_sets
    from keyscale.engine.errors import KeyscaleError

    began = time.perf_counter()
    about = conditions(options)
    try:
        sets = chosen_sets(options)
        timed = 1 if options.rounds else 0
        count = max(2 * options.flicker_pictures, timed)
        photos = list(find_sets(options.shared)[PHOTOS].load(count)) if count else []
        frames = list(find_sets(options.shared)["footage"].load(options.flicker_pictures)) if count else []
        candidates = find_candidates(options.students, options.only)
    except FileNotFoundError as error:
        print(f"{error} is not there; see --shared and KEYSCALE_SHARED", file=sys.stderr)
        return 2
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    except KeyscaleError as error:
        print(f"{error}\n{error.remedy or ''}\nKEYSCALE_WEIGHTS_DIR names a folder of weights.", file=sys.stderr)
        return 2
    if not ssimulacra2_is_there():
        print("SSIMULACRA 2 is left out: pip install ssimulacra2", file=sys.stderr)
    print(sentence(about), flush=True)
    rows, seconds = measure(
        candidates, sets, photos, frames, options, lambda line: print(line, file=sys.stderr, flush=True)
    )
    about["seconds"] = time.perf_counter() - began
    Console(width=max(WIDTH, Console().width)).print(tables.terminal(rows))
    print(f"measured in {about['seconds']:.0f} s")
    if given.json:
        found = {"conditions": about, "seconds_per_frame": seconds, "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text(tables.markdown(rows, sentence(about)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
