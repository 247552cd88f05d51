"""How many clips a machine makes in a minute: a loop of `keyscale upscale`, and `keyscale batch` with so many workers.

    python -m bench.batch [--clips N] [--frames N] [--size WxH] [--jobs N ...] [--rounds N] [--json FILE]

The clips are the example's first frames, each one different in its metadata alone; the network is the default one. All
ways take turns within a round, so that each sees the same machine; the figure is a way's time as a share of the loop's
in the same round. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

from keyscale.engine.batch.pool import cpu_workers
from keyscale.engine.system import usable_cores

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KEYSCALE = Path(sys.executable).with_name("keyscale")


def make_clips(folder: Path, clips: int, frames: int) -> None:
    """Copies of the example, `frames` frames long, with its camera beside each."""
    folder.mkdir()
    for number in range(clips):
        with (
            av.open(str(EXAMPLES / "court.mp4")) as source,
            av.open(str(folder / f"clip{number}.mp4"), "w") as copy,
        ):
            copy.metadata["title"] = f"clip {number}"
            streams = {each.index: copy.add_stream_from_template(each) for each in source.streams}
            rate = source.streams.video[0].average_rate
            assert rate is not None
            for packet in source.demux():
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                if packet.pts * packet.time_base >= frames / rate:
                    continue
                packet.stream = streams[packet.stream_index]
                copy.mux(packet)
        shutil.copy(EXAMPLES / "court.json", folder / f"clip{number}.json")


def loop(folder: Path, out: Path, flags: list[str]) -> float:
    """Seconds of one command for each clip, one after another."""
    began = time.perf_counter()
    out.mkdir()
    for clip in sorted(folder.glob("*.mp4")):
        command = [KEYSCALE, "upscale", clip, clip.with_suffix(".json"), "-o", out / clip.name, *flags]
        subprocess.run([*map(str, command), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def batch(folder: Path, out: Path, flags: list[str]) -> float:
    """Seconds of one command for all clips."""
    began = time.perf_counter()
    command = [KEYSCALE, "batch", folder, "-o", out, *flags, "--quiet"]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=75, help="of each source")
    parser.add_argument("--size", default="1080x1920")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    flags = ["--size", given.size]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make_clips(root / "in", given.clips, given.frames)
        for turn in range(given.rounds):
            seconds.setdefault("loop", []).append(loop(root / "in", root / f"loop{turn}", flags))
            for jobs in given.jobs:
                out = root / f"batch{turn}-{jobs}"
                name = f"batch --jobs {jobs}"
                seconds.setdefault(name, []).append(batch(root / "in", out, [*flags, "--jobs", str(jobs)]))
            for name, found in seconds.items():
                print(f"round {turn + 1}: {name}: {found[-1]:.1f} s", file=sys.stderr)
        began = time.perf_counter()
        batch(root / "in", root / f"batch0-{given.jobs[0]}", flags)
        again = time.perf_counter() - began
    cores = usable_cores()
    print(f"{platform.machine()}, {cores} cores; {given.clips} clips of {given.frames} frames to {given.size}")
    print(f"workers by default here: {cpu_workers(cores)}\n")
    print("| | seconds, median | share of the loop, median and range |")
    print("|---|--:|--:|")
    for name, found in seconds.items():
        shares = [each / base for each, base in zip(found, seconds["loop"], strict=True)]
        told = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        print(f"| {name} | {statistics.median(found):.1f} | {told} |")
    print(f"| batch again, all skipped | {again:.1f} | |")
    if given.json is not None:
        given.json.write_text(json.dumps({"cores": cores, "seconds": seconds, "again": again}, indent=2))


if __name__ == "__main__":
    main()
