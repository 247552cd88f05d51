"""A short look at an installed keyscale, as whoever installs it finds it: `make smoke`.

    python tools/smoke.py                     the wheel of this checkout, in an environment made for it
    python tools/smoke.py --environment ENV   what is installed in a virtual environment

Without --environment the wheel stands in its environment alone; everything that it needs comes from the environment of
the Python that runs this script. What is checked runs in an empty folder, without the settings of whoever runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

ROOT = Path(__file__).resolve().parents[1]
CLIP, CAMERA = ROOT / "examples" / "court.mp4", ROOT / "examples" / "court.json"

LIMIT_S = 60.0
"""What the checks may take on two cores; making wheel and environment does not count."""

WIDTH, HEIGHT, RATE, FRAMES = 216, 384, Fraction(30), 138
"""Of the result: less than twice what the camera sees, four seconds with 0.6 of them at half speed."""
NETWORK = "keyscale-compact-x2"
SOUND_SLACK_S = 0.02
"""By which sound and picture may differ in length."""
METADATA = "import importlib.metadata; print(importlib.metadata.version('keyscale'))"
FLAT = 10.0
"""Standard deviation of the code values below which a picture shows nothing."""


class Wrong(Exception):
    """What was found is not what should be."""


@dataclass(frozen=True)
class Installed:
    """A virtual environment that keyscale is installed in, and an empty folder to use it in."""

    environment: Path
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def scripts(self) -> Path:
        """Where its commands stand."""
        return self.environment / ("Scripts" if os.name == "nt" else "bin")

    def keyscale(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `keyscale ARGUMENTS`."""
        return self._run([self.scripts / "keyscale", *arguments])

    def python(self, code: str, *arguments: str | Path) -> str:
        """What a program prints that knows this environment alone."""
        done = self._run([self.scripts / "python", "-I", "-c", code, *arguments])
        if done.returncode:
            raise Wrong(f"Python ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603
                [str(part) for part in command],
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Wrong(str(error)) from error


def installed_in(environment: Path, folder: Path) -> Installed:
    """That environment, with variables under which nobody's own settings count."""
    (folder / "here").mkdir()
    own = ("KEYSCALE_", "MODAL_", "R2_", "PYTHON")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    for name in ("CACHE", "CONFIG", "STATE"):
        variables[f"KEYSCALE_{name}_DIR"] = str(folder / name.lower())
    return Installed(environment.absolute(), folder / "here", variables)


def install(folder: Path) -> Path:
    """Build the wheel and install it, alone, in a new environment; returns that."""
    environment, python = folder / "environment", Path(sys.executable)
    _make([python, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT])
    (wheel,) = (folder / "dist").glob("*.whl")
    _make([python, "-m", "venv", "--without-pip", environment])
    inside = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    _make([python, "-m", "pip", "--python", inside, "install", *options, wheel])
    # A path file's lines are appended, and path files found there are not read: an editable keyscale stays out of it.
    packages = _make([inside, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    needed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (Path(packages) / "needed.pth").write_text("\n".join(needed) + "\n", encoding="utf-8")
    return environment


def _make(command: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise Wrong(f"{' '.join(str(part) for part in command[1:4])} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def check_place(there: Installed) -> str:
    """The package is imported from the environment."""
    found = Path(there.python("import keyscale; print(keyscale.__file__)"))
    if not found.resolve().is_relative_to(there.environment.resolve()):
        raise Wrong(f"keyscale is imported from {found}, not from {there.environment}")
    return "the package is installed"


def check_version(there: Installed) -> str:
    """The command and the package's metadata have one version."""
    expected = f"keyscale {there.python(METADATA)}"
    done = there.keyscale("--version")
    _expect("--version", done, 0)
    if done.stdout.strip() != expected:
        raise Wrong(f"--version says {done.stdout.strip()!r}, installed is {expected!r}")
    return expected


def check_plan(there: Installed) -> str:
    """`plan`, on the command line and in Python."""
    done = there.keyscale("plan", CLIP, CAMERA, "--size", f"{WIDTH}x{HEIGHT}", "--json")
    _expect("plan", done, 0)
    frames = json.loads(done.stdout)["frames"]
    count = len(frames) if isinstance(frames, list) else frames
    code = "import sys, keyscale; print(keyscale.plan(sys.argv[1], sys.argv[2]).frames)"
    if (count, there.python(code, CLIP, CAMERA)) != (FRAMES, str(FRAMES)):
        raise Wrong(f"the plan has {count} frames, not {FRAMES}")
    return f"plan: {count} frames"


def check_refusal(there: Installed) -> str:
    """What is no video is refused with its exit code, in a sentence, and leaves nothing."""
    (there.folder / "text.mp4").write_text("This is no video.\n")
    for name in ("text.mp4", "absent.mp4"):
        done = there.keyscale("upscale", name, "-o", "refused.mp4", "--progress", "none")
        _expect(f"upscale {name}", done, 3)
        if not done.stderr.startswith("error: ") or "Traceback" in done.stderr or name not in done.stderr:
            raise Wrong(f"upscale {name} says {done.stderr!r}")
    left = sorted(path.name for path in there.folder.iterdir())
    if left != ["text.mp4"]:
        raise Wrong(f"a refusal left {left}")
    return "bad input: exit code 3"


def check_upscale(there: Installed) -> str:
    """The example clip, by a network that comes with keyscale."""
    arguments = ("--size", f"{WIDTH}x{HEIGHT}", "--device", "cpu", "--progress", "json")
    done = there.keyscale("upscale", CLIP, CAMERA, "-o", "clip.mp4", *arguments)
    _expect("upscale", done, 0)
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if (last["event"], last["model"], bool(last["inferred_frames"])) != ("done", NETWORK, True):
        raise Wrong(f"upscale ended with {last}")
    check_clip(there.folder / "clip.mp4")
    left = sorted(path.name for path in there.folder.iterdir())
    if left != ["clip.mp4", "text.mp4"]:
        raise Wrong(f"upscale left {left}")
    return f"upscale: {FRAMES} frames of {WIDTH}x{HEIGHT} by {NETWORK}, {last['device']}"


def check_clip(path: Path) -> None:
    """Decode all of a result: size, rate, times, sound, and that there is something to be seen.

    Raises:
        Wrong: it is not what was asked for.
    """
    try:
        with av.open(str(path)) as container:
            video, sound = container.streams.video[0], container.streams.audio[0]
            spread: list[float] = []
            times: list[Fraction] = []
            heard = Fraction(0)
            for frame in container.decode(video, sound):
                if isinstance(frame, av.VideoFrame):
                    if (frame.width, frame.height) != (WIDTH, HEIGHT):
                        raise Wrong(f"a frame has {frame.width}x{frame.height} pixels, not {WIDTH}x{HEIGHT}")
                    times.append(Fraction(frame.pts or 0) * Fraction(video.time_base or 0))
                    spread.append(float(frame.to_ndarray(format="gray").std()))
                elif isinstance(frame, av.AudioFrame):
                    heard += Fraction(frame.samples, frame.sample_rate)
    except (OSError, IndexError, av.FFmpegError) as error:
        raise Wrong(f"the result cannot be decoded: {error}") from error
    if times != [n / RATE for n in range(FRAMES)]:
        raise Wrong(f"the result has {len(times)} frames up to {float(max(times, default=Fraction(0))):.3f} s")
    if min(spread) < FLAT:
        raise Wrong(f"frame {spread.index(min(spread))} of the result is flat")
    if abs(heard - FRAMES / RATE) > SOUND_SLACK_S + 2048 / 44100:  # an encoder's frame at either end
        raise Wrong(f"the result has {float(heard):.3f} s of sound")


def _expect(what: str, done: subprocess.CompletedProcess[str], code: int) -> None:
    if done.returncode != code:
        raise Wrong(f"{what} ended with exit code {done.returncode}, not {code}:\n{done.stderr.strip()}")


CHECKS: tuple[Callable[[Installed], str], ...] = (check_place, check_version, check_plan, check_refusal, check_upscale)


def main() -> int:
    """Check, and say how long it took; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description="Check an installed keyscale.")
    parser.add_argument("--environment", type=Path, help="a virtual environment; without it one is made")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds that the checks may take (%(default)s)")
    asked = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="keyscale-smoke-") as name:
            folder = Path(name).resolve()
            began = time.monotonic()
            environment = asked.environment
            if environment is None:
                environment = install(folder)
                print(f"{time.monotonic() - began:6.1f} s  made wheel and environment", flush=True)
            there = installed_in(environment, folder)
            began = time.monotonic()
            for check in CHECKS:
                at = time.monotonic()
                print(f"{'':8}{check(there)}", f"({time.monotonic() - at:.1f} s)", flush=True)
            seconds = time.monotonic() - began
            if seconds > asked.limit:
                raise Wrong(f"the checks took {seconds:.1f} s, more than {asked.limit:g} s")
    except Wrong as wrong:
        print(f"smoke: {wrong}", file=sys.stderr)
        return 1
    print(f"smoke: all is well, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
