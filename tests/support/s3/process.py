"""A server as a process: started with its log in a file, waited for, and gone for certain afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

KEEPER = Path(__file__).with_name("keeper.py")
START_S = 240.0
STOP_S = 60.0


class Unavailable(Exception):
    """A server cannot be had on this machine; says why."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A command that listens on a port."""

    def __init__(
        self, command: Sequence[str | Path], *, port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = [str(word) for word in command]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port
        self.log = log

    def launch(self) -> None:
        """Start it, without waiting for it to listen."""
        assert self._process is None, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                # Ctrl-C in a terminal is for the test run, which then stops its servers itself.
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return once it listens.

        Raises:
            Unavailable: it ended, or does not listen after minutes.
        """
        end = time.monotonic() + START_S
        while not listens(self.port):
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise Unavailable(f"{self._command[0]} does not start:\n{self.tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once; what it stored stays."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()

    def tail(self, lines: int = 60) -> str:
        """The end of its log."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
