"""`keyscale batch` in processes of its own: started, heard, killed, and what it leaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import psutil

from tools.torture.cases import Case
from tools.torture.lab import KEEP, Lab
from tools.torture.nursery import START, Ended
from tools.torture.report import Section

__all__ = ["Batch", "Place", "decoded", "fail", "left_over", "same"]

WORKER = "keyscale.engine.batch.process"
SCOUT = "scout"
"""Name of the worker that only plans."""

MEASURE_S = 0.1
"""How often memory is looked at."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where batches of one case run: the working directory, and folders for all that they keep elsewhere."""

    folder: Path
    """The working directory; `out` in it is the output folder."""
    beside: Path

    @classmethod
    def made_in(cls, root: Path) -> Place:
        """A new one beneath `root`."""
        place = cls(folder=root / "work", beside=root / "beside")
        for path in (place.folder, place.temporary, place.cache):
            path.mkdir(parents=True)
        return place

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.folder / "out"

    @property
    def temporary(self) -> Path:
        """What processes are told to use for temporary files."""
        return self.beside / "tmp"

    @property
    def cache(self) -> Path:
        """What they are told to use for what they remember."""
        return self.beside / "cache"

    def environment(self) -> dict[str, str]:
        """Of the processes: nothing of the user's own decides how a case ends, nor does a case change it."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("KEYSCALE_") or name in KEEP}
        return own | {
            "TMPDIR": str(self.temporary),
            "KEYSCALE_CACHE_DIR": str(self.cache),
            "XDG_CONFIG_HOME": str(self.beside / "config"),
            "XDG_CACHE_HOME": str(self.beside / "xdg-cache"),
            "XDG_STATE_HOME": str(self.beside / "xdg-state"),
            "OPENBLAS_NUM_THREADS": "1",
        }

    def processes(self) -> list[psutil.Process]:
        """All that run here, whoever started them."""
        mark = f"TMPDIR={self.temporary}".encode()
        found = []
        for pid in psutil.pids():
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(pid))
            except (OSError, psutil.NoSuchProcess):
                continue
        return [process for process in found if process.pid != os.getpid()]

    def kill_all(self) -> None:
        """`kill -9` for whatever runs here."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class Batch:
    """A `keyscale batch` with its events. A context manager: at its end nothing of it runs any more."""

    def __init__(self, place: Place, arguments: Sequence[str], *, program: str = START) -> None:
        self._place = place
        self.arguments = ("batch", *arguments)
        self.began = time.monotonic()
        self._files = [place.beside / f"{name}-{time.monotonic_ns()}" for name in ("stdout", "stderr")]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", program, *self.arguments],
                cwd=place.folder,
                env=place.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._peak_mib = 0.0
        self._measure_at = self.began
        self._read = 0
        self.events: list[dict[str, Any]] = []
        """As far as `look` has read them."""

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_up:
            self.kill()
            self._place.kill_all()
            self._ended_within(None)
        for file in self._files:
            file.unlink(missing_ok=True)

    @property
    def is_up(self) -> bool:
        """Whether the process that runs the batch is there."""
        if self.process.poll() is None:
            if time.monotonic() >= self._measure_at:
                self._measure()
            return True
        return False

    def _measure(self) -> None:
        # Not what `wait4` tells: that is never less than what this process itself had when it started the batch.
        pids = (self.process.pid, *(worker.pid for worker in self.workers()))
        self._peak_mib = max(self._peak_mib, *map(_peak_mib, pids))
        self._measure_at = time.monotonic() + MEASURE_S

    def _ended_within(self, seconds: float | None) -> bool:
        until = None if seconds is None else time.monotonic() + seconds
        while self.is_up:
            if until is not None and time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def look(self) -> list[dict[str, Any]]:
        """The events that came since the last look."""
        with self._files[0].open("rb") as file:
            file.seek(self._read)
            fresh = []
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                fresh.append(json.loads(line))
        self.events += fresh
        return fresh

    def workers(self, *, scout: bool = True) -> list[psutil.Process]:
        """The processes that it has started."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if scout or SCOUT not in child.cmdline():
                        found.append(child)
        return found

    def kill(self) -> None:
        """`kill -9` for the batch itself: its group holds nothing else."""
        if self.is_up:  # else its number may be another's by now
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> Ended:
        """Wait for its end; it is killed with all its workers `seconds` after its start."""
        timed_out = not self._ended_within(max(0.0, self.began + seconds - time.monotonic()))
        if timed_out:
            self.kill()
            self._place.kill_all()
            self._ended_within(None)
        self.look()
        out, err = (file.read_text(encoding="utf-8", errors="backslashreplace") for file in self._files)
        return Ended(
            code=self.process.returncode,
            seconds=time.monotonic() - self.began,
            # Of the largest of its processes, the last moments before its end left out.
            peak_mib=self._peak_mib,
            timed_out=timed_out,
            stdout=out,
            stderr=err,
        )

    @property
    def report(self) -> dict[str, Any] | None:
        """What it said in the end."""
        last = self.events[-1] if self.events else {}
        return last["report"] if last.get("event") == "batch_done" else None


def _peak_mib(pid: int) -> float:
    """The largest resident set that a process had since its program was started; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def decoded(path: Path) -> str:
    """A digest of all that a result shows and sounds: every decoded frame with its time, every sample."""
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for frame in container.decode(*container.streams.video, *container.streams.audio):
            assert isinstance(frame, av.VideoFrame | av.AudioFrame)
            digest.update(repr((type(frame).__name__, frame.pts, frame.time_base)).encode())
            # Not the planes themselves: what pads their lines is anything.
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def same(made: Path, undisturbed: Path) -> bool:
    """Whether two results show and sound the same."""
    return made.read_bytes() == undisturbed.read_bytes() or decoded(made) == decoded(undisturbed)


def left_over(place: Place, expected: Sequence[str], *, patience_s: float = 6.0) -> list[str]:
    """What is there that should not be: processes, and files in the output folder, for temporary files, in the cache.

    Args:
        place: where batches have run.
        expected: what may stand in the output folder beside the report.
        patience_s: how long workers of a batch that was killed may take to end.
    """
    until = time.monotonic() + patience_s
    while (running := place.processes()) and time.monotonic() < until:
        time.sleep(0.05)
    faults = [f"process {process.pid} still runs" for process in running]
    place.kill_all()
    allowed = {*expected, "report.json"}
    faults += [f"{path} was left over" for path in _beneath(place.out) if str(path) not in allowed]
    faults += [f"temporary {path} was left over" for path in _beneath(place.temporary)]
    faults += [f"{path} was left in the cache" for path in _beneath(place.cache) if str(path) != "speeds.json"]
    return faults


def _beneath(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*")) if folder.is_dir() else []


def fail(lab: Lab, section: Section, name: str, place: Place, batch: Batch, ended: Ended, faults: list[str]) -> None:
    """Keep a failing case for people."""
    lab.fail(section, Case(name=name, arguments=batch.arguments), place.folder, ended, faults)


def statuses(report: Mapping[str, Any] | None) -> list[str]:
    """What became of each clip."""
    return [] if report is None else [clip["status"] for clip in report["clips"]]


def cleared(place: Place) -> None:
    """Nothing was made here yet."""
    shutil.rmtree(place.out, ignore_errors=True)
