"""No test starts a process or opens a connection by accident: what it doesn't ask for is refused, and fails it.

A test asks by the marker `processes` or `loopback`, or by a fixture that comes with a server. Nothing may ever reach
another machine.
"""

from __future__ import annotations

import multiprocessing.util
import sys
from collections.abc import Iterator
from typing import Any, Never

import pytest

__all__ = ["no_accidents"]

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.startfile"}
SERVED = {
    *("swift", "rclone", "server", "bucket", "proxy"),
    *("place", "deployed", "swift_place", "faulty_place", "faulty", "forked_place", "container_python"),
}
"""Fixtures that come with servers; they are started as processes."""


class Refused(BaseException):
    """No `Exception`: nothing that handles faults of a network or a program may take this for one."""


class _Watch:
    """What the running test may do; an audit hook can't be taken back, so that there is one for all tests."""

    def __init__(self) -> None:
        self.processes = self.loopback = True
        self.accidents: list[str] = []
        sys.addaudithook(self._hear)

    def refuse(self, what: str) -> Never:
        self.accidents.append(what)
        raise Refused(f"{what}: mark the test with `processes` or `loopback` if that is its point")

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event in STARTS and not self.processes:
            self.refuse(f"a process ({event} {given[:2]!r})")
        if event == "socket.connect" and isinstance(given[1], tuple):
            host = str(given[1][0])
            is_here = host.startswith("127.") or host in {"::1", "localhost"}
            if not self.loopback or not is_here:
                self.refuse(f"a connection to {host}")


_watch = _Watch()


@pytest.fixture(autouse=True)
def no_accidents(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse processes and connections to a test that doesn't ask for them."""
    served = bool(SERVED & set(request.fixturenames))
    _watch.processes = served or request.node.get_closest_marker("processes") is not None
    _watch.loopback = served or _watch.processes or request.node.get_closest_marker("loopback") is not None
    _watch.accidents.clear()
    if not _watch.processes:
        # `multiprocessing` starts its own in a way of which no event tells.
        monkeypatch.setattr(
            multiprocessing.util,
            "spawnv_passfds",
            lambda path, *_: _watch.refuse(f"a process of multiprocessing ({path!r})"),
        )
    yield
    accidents = list(_watch.accidents)
    _watch.processes = _watch.loopback = True
    assert not accidents, accidents
