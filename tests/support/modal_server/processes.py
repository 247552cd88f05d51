"""Processes that must not outlive the tests, however these end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# Reads `+<group>` and `-<group>` from a pipe. The pipe closes when its other end dies, by whatever signal; the groups
# that are still noted are then killed, and the folder is removed. A process of its own, since nothing within the dying
# one can be relied upon.
WATCH = """
import os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to all processes of a group; nothing happens where none is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


class Watchman:
    """Kills process groups, and removes a folder with a short path, when this process dies or closes it."""

    def __init__(self) -> None:
        # The path of a Unix socket has little more than 100 characters; the folder of a test may need more.
        self.folder = Path(tempfile.mkdtemp(prefix="modal-"))
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", WATCH, str(self.folder)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        """From now on the group dies with this process."""
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """The group has ended; its id may be given to another."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Kill the groups that are left, and remove the folder."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
