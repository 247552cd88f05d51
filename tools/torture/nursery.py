"""`keyscale` command lines in child processes of their own: forked from one that has it loaded, or started anew.

A process of its own is what makes a case honest: what it leaks, how it crashes and what it takes is its own. Loading
the program takes five times as long as a small job, so most cases are forked from a process that has loaded it and
runs no thread; those whose memory or start matters are started anew.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Ended", "Nursery", "Running"]

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

LOADED = (
    "keyscale.cli.app",
    "keyscale.cli.progress",
    "keyscale.cli.signals",
    "keyscale.engine.runners.local",
    "keyscale.engine.runners.prepare",
    "keyscale.engine.remote.run",
    "numpy.ma",
    "PIL.ImageFile",
)
"""What a small job loads."""

START = "import sys; sys.argv[0] = 'keyscale'; from keyscale.cli.app import main; main()"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of a child."""

    code: int
    """Exit code; where a signal ended it, its negative number."""
    seconds: float
    """Wall clock from its start."""
    peak_mib: float
    """Its largest resident set in units of 2**20 bytes, the interpreter and the libraries included."""
    timed_out: bool
    """It was killed because its time was up."""
    stdout: str
    stderr: str


class Running:
    """A child that was started; `wait` must be called once."""

    def __init__(self, nursery: Nursery, pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self.out = out
        """File that its stdout goes to."""
        self._nursery = nursery
        self._err = err
        self._began = time.monotonic()

    def kill(self) -> None:
        """`kill -9`."""
        os.kill(self.pid, signal.SIGKILL)

    def ended_within(self, seconds: float) -> bool:
        """Whether it ends in that time; `wait` then returns at once."""
        return self._nursery.answers_within(seconds)

    def wait(self, seconds: float) -> Ended:
        """Wait for its end; it is killed `seconds` after its start."""
        timed_out = not self.ended_within(max(0.0, self._began + seconds - time.monotonic()))
        if timed_out:
            self.kill()
        answer = self._nursery.answer()
        return Ended(
            code=answer["code"],
            seconds=time.monotonic() - self._began,
            peak_mib=answer["peak_kib"] / 1024,
            timed_out=timed_out,
            stdout=self.out.read_text(encoding="utf-8", errors="backslashreplace"),
            stderr=self._err.read_text(encoding="utf-8", errors="backslashreplace"),
        )


class Nursery:
    """Runs one child after another. A context manager."""

    def __init__(self, environment: Mapping[str, str], also: Sequence[str] = ()) -> None:
        """Make one ready.

        Args:
            environment: of the children.
            also: modules to load beside what a small job loads, for cases that need them.
        """
        self.environment = dict(environment)
        self._also = tuple(also)
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "tools.torture.nursery", *self._also],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running()
        if kind is not None:
            process.kill()
        process.communicate()
        self._process = None

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        out: Path,
        err: Path,
        address_mib: int | None = None,
        environment: Mapping[str, str] | None = None,
        anew: bool = False,
    ) -> Running:
        """Start `keyscale ARGUMENTS` in `folder`.

        Args:
            arguments: after the program's name; surrogates stand for bytes that are not UTF-8.
            folder: the working directory.
            out: file for its stdout.
            err: file for its stderr.
            address_mib: limit of its address space; None is none.
            environment: variables to add.
            anew: a fresh interpreter instead of a fork.
        """
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "out": str(out),
            "err": str(err),
            "address_mib": address_mib,
            "environment": dict(environment or {}),
            "anew": anew,
        }
        out.touch()  # it is watched from the first moment on
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        return Running(self, self.answer()["pid"], out, err)

    def answers_within(self, seconds: float) -> bool:
        """Whether there is something for `answer` to read."""
        if b"\n" in self._heard:
            return True
        stdout = self._running().stdout
        assert stdout is not None
        return bool(select.select([stdout], [], [], seconds)[0])

    def answer(self) -> dict[str, Any]:
        """The next line that the process says."""
        stdout = self._running().stdout
        assert stdout is not None
        # Not through a buffered reader: `select` would not see what that holds.
        while b"\n" not in self._heard:
            block = os.read(stdout.fileno(), 1 << 16)
            if not block:
                raise RuntimeError("the process that starts the cases has ended")
            self._heard += block
        line, _, self._heard = self._heard.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("use it as a context manager")
        return self._process


def _serve() -> None:
    # Loaded here, so that no case has to; nothing of it may start a thread, which a fork would not take along.
    for name in (*LOADED, *sys.argv[1:]):
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
            return
        print(json.dumps({"pid": pid}), flush=True)
        _, status, used = os.wait4(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "peak_kib": used.ru_maxrss}), flush=True)


def _become(request: Mapping[str, Any]) -> None:
    """In the child: be the program. Leaves by `SystemExit`, as the program does."""
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request["address_mib"] is not None:
        limit = request["address_mib"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if request["anew"]:
        os.execv(sys.executable, [sys.executable, "-c", START, *request["arguments"]])  # noqa: S606
    main: Callable[[], None] = importlib.import_module("keyscale.cli.app").main
    sys.argv = ["keyscale", *request["arguments"]]
    main()


if __name__ == "__main__":
    _serve()
