"""Judge upscalers against originals, on compressed moving footage, through the whole product.

    python -m bench.quality [--quick | --docs] [--ratio R ...] [--source NAME ...] [--clips NAME ...] [--frames N]
                            [--only WORD ...] [--student NAME=FILE ...] [--set OPTION=VALUE ...] [--heavy] [--looks]
                            [--finalists] [--results FILE]
    python -m bench.quality --table FILE ...

Originals are reduced by area averages, encoded as footage is, enlarged to their own size by a keyscale job (CRF 4) and
compared with what they were. Every row is appended to a file of JSON lines as soon as it is measured, and a row that is
there already is not measured again: a run that was interrupted goes on, and tables are made of several runs. Other
weights are measured anew; after changes to the engine begin another file.

Networks come from `KEYSCALE_WEIGHTS_DIR` or the cache, material from `../shared` (or `KEYSCALE_SHARED`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.candidates import HEAVY, Candidate, candidates, enlarge
from bench.footage import Clip, Source, Store, find_clips, find_source, read
from bench.machine import confine, machine

__all__ = ["Options", "main", "parse", "shared_folder"]

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "quality.md"
VERSION = 2
"""Of the definitions: rows of another version are measured again."""

RATIOS = (2.0, 16 / 9, 4.0)
"""Of a full table; 16/9 is an upright camera in 1080p footage whose result is 1080 wide."""
SOURCES = ("clean", "crf18", "crf23", "crf33")
"""Of a default run."""
ALL_SOURCES = ("clean", "crf18", "crf23", "crf28", "crf33", "hevc28")
"""Of a full table."""
NAMED_RATIOS = {"1.78": 16 / 9, "2.67": 8 / 3, "1.33": 4 / 3}


@dataclass(frozen=True)
class Options:
    """The command line, but for what concerns output alone."""

    ratios: tuple[float, ...]
    sources: tuple[Source, ...]
    clips: tuple[Clip, ...]
    frames: int
    only: tuple[str, ...]
    students: tuple[tuple[str, Path], ...]
    settings: tuple[dict[str, str], ...]
    """Options of jobs with keyscale's own choice of networks, each set a candidate."""
    everywhere: bool
    """The published networks at every source."""
    heavy: bool
    looks: bool
    """The default networks at each look, and at half strength."""
    finalists: bool
    whole: bool
    shared: Path
    work: Path
    results: Path


def shared_folder(given: Path | None) -> Path:
    """Where the material lies."""
    return given or Path(os.environ.get("KEYSCALE_SHARED") or ROOT.parent / "shared")


def _ratio(text: str) -> float:
    try:
        ratio = NAMED_RATIOS.get(text) or float(text)
    except ValueError:
        ratio = 0.0
    if not 1 <= ratio <= 8:
        raise argparse.ArgumentTypeError(f"{text!r} is not a ratio from 1 to 8")
    return ratio


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _source(text: str) -> Source:
    try:
        return find_source(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _student(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


def _setting(text: str) -> tuple[str, str]:
    from keyscale.engine.errors import UsageError
    from keyscale.engine.job import Job
    from keyscale.engine.options import options_of

    name, _, value = text.partition("=")
    try:
        options_of(Job)[name].read(value)
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"{name!r} is not an option of a job") from error
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name, value


def parse(arguments: Sequence[str] | None = None) -> tuple[Options, argparse.Namespace]:
    """The command line, and what of it concerns output alone."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__.splitlines()[0])
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="four clips, eight frames, CRF 23, at x2 and x4")
    extent.add_argument(
        "--docs", action="store_true", help="everything with the published networks everywhere, into docs/quality.md"
    )
    parser.add_argument("--ratio", nargs="+", type=_ratio, metavar="R", help="1.78 and 2.67 mean 16/9 and 8/3")
    parser.add_argument("--source", nargs="+", type=_source, metavar="NAME", help="clean, noiseN, crfN, hevcN")
    parser.add_argument("--clips", nargs="+", default=[], metavar="NAME", help="these clips alone")
    parser.add_argument("--frames", type=_count, help="of each clip (12)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="candidates whose names hold such a word")
    parser.add_argument("--student", type=_student, action="append", default=[], metavar="NAME=FILE")
    parser.add_argument(
        "--set", type=_setting, nargs="+", action="append", default=[], metavar="OPTION=VALUE", help="a candidate"
    )
    parser.add_argument("--heavy", action="store_true", help=f"{HEAVY} too, at x4 and CRF 23")
    parser.add_argument("--looks", action="store_true", help="the default networks at each look and at half strength")
    parser.add_argument("--finalists", action="store_true", help="ColorVideoVDP too, if the package cvvdp is there")
    parser.add_argument("--whole", action="store_true", help="whole pictures instead of parts of 640x352")
    parser.add_argument("--threads", type=_count, default=2, help="cores (2): the first ones that taskset allows")
    parser.add_argument("--shared", type=Path, help="folder of the material")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quality", help="folder of what is encoded once")
    parser.add_argument("--results", type=Path, help="file of rows (results.jsonl in the work folder)")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="measure nothing: tables of such files")
    parser.add_argument("--markdown", type=Path, help="write the tables between the marks of this document")
    given = parser.parse_args(arguments)
    quick = bool(given.quick)
    sources = ("crf23",) if quick else ALL_SOURCES if given.docs else SOURCES
    try:
        clips = find_clips(given.clips or (["flower", "bbb", "talk", "message"] if quick else []))
    except ValueError as error:
        parser.error(str(error))
    options = Options(
        ratios=tuple(given.ratio or ((2.0, 4.0) if quick else RATIOS)),
        sources=tuple(given.source or (find_source(name) for name in sources)),
        clips=tuple(clips),
        frames=given.frames or (8 if quick else 12),
        only=tuple(given.only),
        students=tuple(given.student),
        settings=tuple(dict(each) for each in given.set),
        everywhere=bool(given.docs or given.source),
        heavy=given.heavy,
        looks=given.looks,
        finalists=given.finalists,
        whole=given.whole,
        shared=shared_folder(given.shared),
        work=given.work,
        results=given.results or given.work / "results.jsonl",
    )
    return options, given


def bind(threads: int) -> None:
    """Keep this process on so many cores; before torch and OpenVINO are imported, which then start as many threads."""
    confine(None, threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("version", "name", "digest", "ratio", "source", "clip", "frames", "whole"))


def measured(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; a last line that was cut off is left out."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


class Truth:
    """What a clip is compared with: its reference video, read as the results are, so that 4:2:0 costs none of them."""

    def __init__(self, store: Store, clip: Clip) -> None:
        from bench.metrics import Motion, grey, restlessness

        self.video = store.reference(clip)
        self.frames = read(self.video)
        self.planes = [grey(frame) for frame in self.frames]
        self.motion = Motion(self.planes)
        self.own = dict(zip(("still", "moving"), restlessness(self.planes, self.motion), strict=True))


def judge(candidate: Candidate, truth: Truth, small: Path, ratio: float, *, finalists: bool) -> dict[str, Any]:
    """The measures of one candidate on one small clip.

    Args:
        candidate: to judge.
        truth: what it is compared with.
        small: the clip reduced by `ratio` and compressed.
        ratio: output pixels per source pixel.
        finalists: measure ColorVideoVDP too.
    """
    from bench import footage, metrics

    height, width = truth.frames[0].shape[:2]
    with tempfile.TemporaryDirectory(prefix="keyscale-quality-") as folder:
        output = Path(folder) / "large.mp4"
        seconds = enlarge(small, output, (width, height), candidate)
        frames = read(output)
        found = metrics.vmaf(output, truth.video)
    planes = [metrics.grey(frame) for frame in frames]
    still, moving = metrics.restlessness(planes, truth.motion)
    values = found | {
        "ssimulacra2": metrics.ssimulacra2(frames, truth.frames),
        "psnr": metrics.psnr(frames, truth.frames),
        "sharpness": metrics.sharpness(planes, truth.planes),
        "grid": metrics.grid_energy(planes, truth.planes, ratio),
        "steps": metrics.colour_steps(frames, truth.frames, ratio),
        "shift": metrics.colour_shift(frames, truth.frames),
        "ringing": metrics.ringing(planes, truth.planes),
        "still": still,
        "moving": moving,
    }
    if finalists:
        values["jod"] = metrics.jod(frames, truth.frames, footage.RATE)
    return {"values": values, "seconds_per_frame": seconds / len(frames)}


def run(options: Options, threads: int) -> list[dict[str, Any]]:
    """Measure every row that is not there yet, clip by clip, and append it to the results; all rows that are wanted."""
    compared = candidates(options)
    about = machine(threads)
    store = Store(options.work, options.shared, options.frames, options.whole)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    known = {_key(row): row for row in measured(options.results)}
    rows = []
    wanted = [
        (clip, ratio, source, one)
        for clip in options.clips
        for ratio in options.ratios
        for source in options.sources
        for one in compared
        if one.takes(ratio, source.name)
    ]
    truths: dict[str, Truth] = {}
    began = time.perf_counter()
    with options.results.open("a", encoding="utf-8") as file:
        for number, (clip, ratio, source, one) in enumerate(wanted, 1):
            row: dict[str, Any] = {
                "version": VERSION,
                "name": one.name,
                "digest": one.digest,
                "ratio": ratio,
                "source": source.name,
                "clip": clip.name,
                "kind": clip.kind,
                "frames": options.frames,
                "whole": options.whole,
            }
            old = known.get(_key(row))
            if old is not None and ("jod" in old["values"] or not options.finalists):
                rows.append(old)
                continue
            if clip.name not in truths:
                truths = {clip.name: Truth(store, clip)}
            truth, small = truths[clip.name], store.small(clip, ratio, source)
            row |= judge(one, truth, small, ratio, finalists=options.finalists)
            row |= {"own": truth.own, "conditions": about}
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
            print(
                f"{number}/{len(wanted)} {time.perf_counter() - began:.0f} s: {clip.name} x{ratio:.3g} {source.name} "
                f"{one.name}: phone {row['values']['phone']:.1f}",
                file=sys.stderr,
                flush=True,
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options, given = parse(arguments)
    from bench import tables
    from keyscale.engine.errors import KeyscaleError

    if given.table:
        absent = [path for path in given.table if not path.is_file()]
        if absent:
            print(f"{absent[0]} is not there", file=sys.stderr)
            return 2
        rows = [row for path in given.table for row in measured(path)]
    else:
        if importlib.util.find_spec("imageio_ffmpeg") is None:
            print("VMAF needs imageio-ffmpeg: pip install -c constraints.txt -e '.[bench]'", file=sys.stderr)
            return 2
        if options.finalists and importlib.util.find_spec("pycvvdp") is None:
            print("ColorVideoVDP is left out: the package cvvdp is not there", file=sys.stderr)
        bind(given.threads)
        try:
            rows = run(options, given.threads)
        except FileNotFoundError as error:
            print(f"{error.filename} is not there; see --shared and KEYSCALE_SHARED", file=sys.stderr)
            return 2
        except KeyscaleError as error:
            print(f"{error}\n{error.remedy or ''}\nKEYSCALE_WEIGHTS_DIR names a folder of weights.", file=sys.stderr)
            return 2
    if not rows:
        print("there are no rows", file=sys.stderr)
        return 2
    document = given.markdown or (DOCUMENT if given.docs else None)
    text = tables.markdown(rows)
    if document is not None:
        tables.insert(document, text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
