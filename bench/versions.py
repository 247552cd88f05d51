"""This checkout beside another one of keyscale: whole processes, in the same minutes.

    python -m bench.versions --other CHECKOUT [--rounds N] [--frames N] [--json FILE] [--markdown FILE]

The other checkout is, say, `git worktree add ../before COMMIT`; it needs nothing installed. Either runs with this
interpreter and what is installed for it, but with its own code and the weights it ships, and each job is a fresh
`keyscale upscale` with the default network and empty folders of its own. The two take turns, and each round the other
one begins. Wall-clock and CPU seconds are the process's from its start to its end, importing and verifying included.
Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import material
from bench.machine import load_average, machine
from bench.run import spread
from keyscale.engine.system import usable_cores

THIS = Path(__file__).resolve().parents[1]
CODE = ("src", "cli", "engine")
SWEEP_SECONDS = 4
"""In which the camera crosses its clip; then it comes back."""
WARM_FRAMES = 2
"""Of the run of each version that is not counted: it leaves compiled modules, and files in the system's memory."""
RESULT = "1080x1920"
MEASURES = {"wall": "ms a frame", "cpu": "CPU ms a frame", "peak_mb": "peak MiB"}

LAUNCHER = """
import json, os, sys, time
began = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - began
peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak_mb": peak}))
sys.exit(status != 0)
"""
"""Starts a command and prints what it took, its children included.

A process of its own, and a small one: Linux hands ru_maxrss of the process that forked through exec, and the bench's
own memory would be the least.
"""


@dataclass(frozen=True)
class Case:
    """A job: a camera of full height that moves across a clip."""

    name: str
    clip: tuple[int, int]
    camera_width: int

    @property
    def title(self) -> str:
        """Its name, and what is enlarged."""
        return f"{self.name}, {self.camera_width}x{self.clip[1]}"


CASES = (
    Case("480p x4", (854, 480), 270),
    Case("720p x2.67", (1280, 720), 405),
    Case("1080p x1.78", (1920, 1080), 607),
)


@dataclass(frozen=True)
class Version:
    """A checkout, and the folder in which its processes run and keep what they keep."""

    checkout: Path
    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Of its processes: its code before any installed one, and none of the user's settings and folders."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEYSCALE_", "MODAL_"))}
        own = {f"KEYSCALE_{kind}_DIR": str(self.folder / kind.lower()) for kind in ("CACHE", "STATE", "CONFIG")}
        return kept | own | {"PYTHONPATH": str(self.checkout / "src")}

    def python(self, *arguments: str) -> str:
        """What the interpreter prints with this version's code.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.checkout.name}: {done.stderr.strip() or 'the process failed'}")
        return done.stdout

    def check(self) -> None:
        """That it is this checkout's code which runs.

        Raises:
            RuntimeError: it is another one's.
        """
        code = "import keyscale.cli, keyscale.engine as e; print(keyscale.__file__); print(e.__file__)"
        loaded = self.python("-c", code).splitlines()
        if any(not Path(file).resolve().is_relative_to(self.checkout) for file in loaded):
            raise RuntimeError(f"{self.checkout} is no checkout of keyscale: {', '.join(loaded)} would run")

    def commit(self) -> str:
        """Its commit, and whether its code differs from it."""

        def git(*arguments: str) -> str:
            command = ["git", "-C", str(self.checkout), *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

        changed = " with changes" if git("status", "--porcelain", "--", *CODE) else ""
        return (git("rev-parse", "--short", "HEAD") or "no commit") + changed


@dataclass(frozen=True)
class Work:
    """A case's files, and how many frames they are."""

    clip: Path
    camera: Path
    frames: int

    def flags(self, frames: int) -> Sequence[str]:
        """Of `keyscale plan` and `keyscale upscale`: `frames` frames, made here and from nothing."""
        framing = ["--size", RESULT, "--fps", str(material.RATE), "--end", f"{frames / material.RATE:.6f}"]
        running = ["--local", "--device", "cpu", "--offline", "--overwrite", "--no-resume", "--progress", "none"]
        return [str(self.clip), str(self.camera), "-o", "out.mp4", *framing, *running]


def moving_camera(path: Path, case: Case, seconds: float) -> Path:
    """A keyframes file that crosses the case's clip at constant speed, back and forth, for `seconds` or longer."""
    room = case.clip[0] - case.camera_width
    keyframes = [
        {
            "time": number * SWEEP_SECONDS,
            "x": room * (number % 2),
            "y": 0,
            "width": case.camera_width,
            "height": case.clip[1],
        }
        for number in range(int(seconds / SWEEP_SECONDS) + 2)
    ]
    document = {"version": 1, "interpolation": "linear", "keyframes": keyframes}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def prepare(case: Case, folder: Path, frames: int) -> Work:
    """Make a case's clip and camera."""
    stem = str(case.clip[1])
    clip = material.textured_clip(folder / f"{stem}.mp4", case.clip, frames)
    return Work(clip, moving_camera(folder / f"{stem}.json", case, frames / material.RATE), frames)


def run(version: Version, work: Work, frames: int) -> dict[str, float]:
    """One process: seconds a frame of wall clock and CPU, and its peak memory."""
    command = [sys.executable, "-m", "keyscale", "upscale", *work.flags(frames)]
    took: dict[str, float] = json.loads(version.python("-I", "-S", "-c", LAUNCHER, *command))
    return {"wall": took["wall"] / frames, "cpu": took["cpu"] / frames, "peak_mb": took["peak_mb"]}


def choice(version: Version, work: Work) -> str:
    """The network, its scale and its arithmetic, as the version's own plan has them.

    Raises:
        RuntimeError: the plan has another number of frames, by which seconds would be divided wrongly.
    """
    plan = json.loads(version.python("-m", "keyscale", "plan", *work.flags(work.frames), "--json"))
    if plan["target"]["frames"] != work.frames:
        raise RuntimeError(f"{plan['target']['frames']} frames would be made, not {work.frames}")
    ways = ", ".join(f"{each['runtime']} {each['precision']}" for each in plan["executions"])
    name = plan["model"]["name"] if plan["model"] else "no network"
    return f"{name} x{plan['scale']}" + (f", {ways}" if ways else "")


def measure(versions: Mapping[str, Version], folder: Path, *, frames: int, rounds: int) -> list[dict[str, Any]]:
    """Every case with both versions, in turns."""
    found = []
    for case in CASES:
        work = prepare(case, folder, frames)
        chosen = {name: choice(version, work) for name, version in versions.items()}
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
        for version in versions.values():
            run(version, work, min(WARM_FRAMES, frames))
        for turn in range(rounds):
            for name in list(versions)[:: -1 if turn % 2 else 1]:
                taken[name].append(run(versions[name], work, frames))
                last = taken[name][-1]
                told = f"{1000 * last['wall']:.0f} ms a frame, {1000 * last['cpu']:.0f} of CPU"
                print(f"round {turn + 1}: {case.title}: {name}: {told}", file=sys.stderr)
        found.append(
            {
                "case": case.title,
                "network": chosen,
                **{key: {name: spread([run[key] for run in taken[name]]) for name in versions} for key in MEASURES},
                "runs": taken,
                "ratios": ratios(taken),
            }
        )
    return found


def ratios(taken: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Of this checkout's medians to the other's, by measure."""
    medians = {
        key: {name: statistics.median(run[key] for run in runs) for name, runs in taken.items()} for key in MEASURES
    }
    return {key: of["this"] / of["other"] for key, of in medians.items()}


def _cell(values: Mapping[str, float], key: str) -> str:
    """A median, and least to most where they differ from it."""
    factor = 1 if key == "peak_mb" else 1000
    median, least, most = (f"{factor * values[part]:.0f}" for part in ("median", "min", "max"))
    return median if least == most else f"{median} ({least} to {most})"


def markdown(found: Mapping[str, Any]) -> str:
    """What was measured, as a paragraph and a table."""
    about = found["conditions"]
    before, after = (f"{about['load'][when]:.1f}" for when in ("before", "after"))
    text = (
        f"{about['cpu']}, {about['cores']} cores, load average {before} before and {after} after; "
        f"torch {about['packages']['torch']}, Python {about['python']}, {about['date']}. "
        f"{about['frames']} frames a job, to {RESULT}; "
        f"rounds: {about['rounds']}; median (least to most). This checkout is {about['commits']['this']}, "
        f"the other {about['commits']['other']}; below 1 this one takes less."
    )
    head = ["job", "checkout", "network", *MEASURES.values()]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|" + "--:|" * len(MEASURES)]
    for each in found["cases"]:
        for name, network in each["network"].items():
            cells = " | ".join(_cell(each[key][name], key) for key in MEASURES)
            lines.append(f"| {each['case']} | {name} | {network} | {cells} |")
        told = " | ".join(f"**{each['ratios'][key]:.2f}**" for key in MEASURES)
        lines.append(f"| {each['case']} | this / other | | {told} |")
    return "\n".join([text, "", *lines])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.versions", description=__doc__.splitlines()[0])
    parser.add_argument("--other", type=Path, required=True, help="a checkout of keyscale, as of `git worktree add`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=60, help="frames a job; few of them make start-up matter")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--markdown", type=Path, help="append the table to this file too")
    given = parser.parse_args()
    if not (given.other / "src" / "keyscale").is_dir():
        parser.error(f"{given.other} is no checkout of keyscale: it has no src/keyscale")
    load = {"before": load_average()}
    with tempfile.TemporaryDirectory(prefix="keyscale-bench-") as scratch:
        folder = Path(scratch).resolve()
        versions = {
            name: Version(checkout.resolve(), folder / name)
            for name, checkout in (("this", THIS), ("other", given.other))
        }
        for version in versions.values():
            version.folder.mkdir()
            version.check()
        commits = {name: version.commit() for name, version in versions.items()}
        cases = measure(versions, folder, frames=given.frames, rounds=given.rounds)
    load["after"] = load_average()
    conditions = machine(usable_cores()) | {"cores": usable_cores(), "load": load, "commits": commits}
    conditions |= {"frames": given.frames, "rounds": given.rounds}
    found = {"conditions": conditions, "cases": cases}
    text = markdown(found)
    print(text)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        with given.markdown.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
