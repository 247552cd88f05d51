"""A place whose ways break: requests to storage are held or refused, and clients are killed at a chosen moment."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from keyscale.engine.storage.bucket import Storage
from support.clips import clicks_track, make_clip, numbers_in
from support.fake_modal import FakeModal, Pace, use_fake
from support.forked import Forked
from support.modal_server import ModalServer
from support.remote_place import Place
from support.s3.proxy import Proxy
from support.s3.server import S3Server, via

__all__ = ["Client", "FaultyPlace", "ForkedPlace", "faulty", "faulty_on", "faulty_place", "forked_on", "forked_place"]

SILENCE_S = 5.0
"""Longest time between two events: the contract's 2 s, and what a machine adds that is busy with much else. How well
the 2 s are kept on another one is seen in test_remote.py."""
FRAMES = 60
CHUNKS = 3
SIZE = (64, 64)

Asked = Callable[[str], bool]
"""Whether it is this request, by its first line."""


def asked(pattern: str) -> Asked:
    """Requests whose first line matches a regular expression; `BUCKET` stands for any bucket's name."""
    found = re.compile(pattern.replace("BUCKET", "/keyscale-[0-9]+"))
    return lambda line: found.match(line) is not None


SENDS_SOURCE = asked(r"(PUT|POST) BUCKET/temp/upscale_[^/]+/source")
SENDS_PLAN = asked(r"PUT BUCKET/temp/upscale_[^/]+/plan")
STORES_CHUNK = asked(r"PUT BUCKET/temp/upscale_[^/]+/chunks/.*mp4")
STORES_RECORD = asked(r"PUT BUCKET/temp/upscale_[^/]+/chunks/.*json")
READS_SOURCE = asked(r"GET BUCKET/temp/upscale_[^/]+/source")
FETCHES_CHUNK = asked(r"GET BUCKET/temp/upscale_[^/]+/chunks/.*mp4")
DELETES = asked(r"DELETE ")
LISTS = asked(r"GET BUCKET/?\?")


class Client:
    """A `keyscale` process whose events are read while it runs."""

    def __init__(self, process: subprocess.Popen[str] | Forked) -> None:
        self._process = process
        self.events: list[tuple[float, dict[str, Any]]] = []
        """With the time at which each came."""
        self._more = threading.Condition()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self.events.append((time.monotonic(), json.loads(line)))
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors += self._process.stderr

    def until(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 90) -> None:
        """Return once such an event came."""
        with self._more:
            came = self._more.wait_for(lambda: any(wanted(event) for _, event in self.events), timeout_s)
        assert came, f"it did not come: {[event for _, event in self.events][-5:]} {self._errors}"

    def until_phase(self, phase: str) -> None:
        """Return once it told of progress in a phase."""
        self.until(lambda event: event.get("phase") == phase)

    def signal(self, number: signal.Signals) -> None:
        pid = self._process.pid
        while os.getpgid(pid) != pid:  # a forked one that is not the program yet
            time.sleep(0.01)
        os.kill(pid, number)

    def limit_files(self, size: int) -> None:
        """Let no file that it writes grow beyond so many bytes, as on a disk that is full; on Linux alone."""
        if sys.platform == "linux":
            _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def kill(self) -> None:
        """As a machine does that loses its power."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.end()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self, timeout_s: float = 180) -> int:
        """Its exit code, once it ended."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            pytest.fail(f"the client hung: {[event for _, event in self.events][-5:]} {self._errors}")
        finally:
            for thread in self._threads:
                thread.join(30)
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                stream.close()
        return code

    @property
    def errors(self) -> str:
        """What it wrote to its standard error."""
        return "".join(self._errors)

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1][1]

    @property
    def notes(self) -> str:
        return "\n".join(event["message"] for _, event in self.events if event["event"] == "note")

    @property
    def job(self) -> str:
        """The id of its remote job."""
        found = re.search(r"remote job ([0-9A-Za-z-]+) ", self.notes)
        assert found, self.notes
        return found[1]

    def check(self) -> None:
        """What holds for every run: signs of life, progress that never goes back, one last event, no noise."""
        times = [at for at, _ in self.events]
        silences = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(silences, default=0.0) < SILENCE_S, silences
        frames: dict[str, int] = {}
        for _, event in self.events:
            if event["event"] == "progress":
                assert event["frame"] >= frames.get(event["phase"], 0), event
                frames[event["phase"]] = event["frame"]
        ends = [event["event"] for _, event in self.events if event["event"] in {"done", "error"}]
        assert ends == [self.last["event"]], ends
        for noise in ("Traceback", "unhandled", "Exception ignored", "never awaited", "Fatal Python", "X-Amz-"):
            assert noise not in self.errors, self.errors


class FaultyPlace(Place):
    """A place whose storage is reached by a proxy."""

    outage_s = 20.0
    """How long something is away that has to be waited for."""
    slow_scale = 40
    """By so much larger is what a container doesn't make in 6 s."""

    def __init__(self, folder: Path, s3: S3Server, modal: ModalServer, proxy: Proxy) -> None:
        super().__init__(folder, s3, modal)
        self.proxy, self.direct = proxy, self.settings
        self._clients: list[Client] = []
        self.settings = via(self.direct, proxy.endpoint)

    def client(self, *arguments: str | Path, first: str = "", **environment: str) -> Client:
        """`keyscale ARGUMENTS`, with its events; `first` is Python that runs before, to shorten a wait."""
        # As the installed command has it while it loads.
        quiet = "import os, signal, sys; signal.signal(signal.SIGINT, lambda *_: os._exit(130))"
        loud = "signal.signal(signal.SIGINT, signal.default_int_handler)"
        program = f"{quiet}\n{first}\n{loud}\nfrom keyscale.cli.start import main\nmain()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments), "--progress", "json"],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self._follow(process)

    def _follow(self, process: subprocess.Popen[str] | Forked) -> Client:
        self._clients.append(Client(process))
        return self._clients[-1]

    def upscale(self, folder: Path, *more: str | Path, first: str = "", **environment: str) -> Client:
        """A job of three chunks, whose output is `out.mp4` in `folder`."""
        source = self.clip(folder)
        flags = ("--size", f"{SIZE[0]}x{SIZE[1]}", "--fps", "1", "--model", "lanczos", "--chunk-seconds", "20")
        given = (source, "-o", folder / "out.mp4", *flags, "--remote", *more)
        return self.client("upscale", *given, first=first, **self.home(folder), **environment)

    def clip(self, folder: Path) -> Path:
        """A source of a minute with a frame a second, as a file of its own in `folder`."""
        source = folder / "source.mkv"
        if not source.exists():
            shutil.copyfile(self._clip(), source)
        return source

    def _clip(self) -> Path:
        made = self.folder / "made.mkv"
        if not made.exists():
            # Sound that has to be encoded anew, so that joining takes a while.
            hum = clicks_track([1.0], seconds=FRAMES, sample_rate=48000)
            make_clip(made, frames=FRAMES, rate=1, size=SIZE, sounds=[hum] * 2, audio_codec="flac")
        return made

    def resume(self, folder: Path, job: str, **environment: str) -> Client:
        return self.client("remote", "resume", job, **self.home(folder), **environment)

    def home(self, folder: Path) -> dict[str, str]:
        """Where a test's clients keep their state."""
        return {"KEYSCALE_STATE_DIR": str(folder / "state")}

    def accepted(self) -> list[str]:
        """Calls that Modal ever accepted and that have not ended."""
        return self.modal.accepted()

    def spawned(self) -> int:
        """How many chunks were started so far."""
        functions = [call.request.function_id for call in self.modal.calls("FunctionMap")]
        # A client's first call asks what is deployed.
        return sum(function != functions[0] for function in functions)

    def wait_started(self, folder: Path, count: int, timeout_s: float = 60) -> None:
        """Return once a client's state names so many calls.

        That is later than what the containers show of a call: Modal starts it before the client knows its id, and a
        client that dies in between has nothing by which another one could go on with it.
        """
        state, end = folder / ".out.mp4.keyscale" / "remote.json", time.monotonic() + timeout_s
        calls: list[Any] = []
        while len(calls) < count:
            assert time.monotonic() < end, f"only {calls} are known"
            time.sleep(0.02)
            with contextlib.suppress(FileNotFoundError):
                calls = json.loads(state.read_text())["calls"]

    def left(self) -> list[str]:
        """As of every place, but by a way that does not break."""
        mine, self.settings = self.settings, self.direct
        try:
            return super().left()
        finally:
            self.settings = mine

    def damage(self, key_end: str, content: bytes | None) -> str:
        """Overwrite the object whose key ends so, by None with as many zeros; its key."""
        with Storage(self.direct) as storage:
            found = next(found for found in storage.list("temp/") if found.key.endswith(key_end))
            storage.put(found.key, bytes(found.size) if content is None else content)
        return found.key

    def mend(self) -> None:
        """Undo all faults."""
        self.proxy.release()
        self.proxy.pass_on()
        self.proxy.flow()
        self.modal.resume()
        self.modal.pass_on()

    def leave(self) -> None:
        """Undo all faults, and end the clients of a test that failed."""
        self.mend()
        for client in self._clients:
            if client.runs:
                client.kill()
        self._clients.clear()

    def check_clean(self, folder: Path) -> None:
        """Nothing is left in the bucket, no call runs, and no file looks finished that is not."""
        end = time.monotonic() + 10
        while any(task.calls for task in self.modal.running_tasks()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(task.calls for task in self.modal.running_tasks())
        assert self.left() == []
        assert not (folder / "out.mp4").exists()

    def check_done(self, client: Client, folder: Path) -> None:
        """It succeeded, every frame is there in its place, and nothing else is left anywhere."""
        assert client.end() == 0, f"{client.errors}\n{client.last}\n{self.logs()}"
        client.check()
        assert client.last["event"] == "done"
        assert [number for _, number in numbers_in(folder / "out.mp4")] == list(range(FRAMES))
        assert self.left() == []
        assert not (folder / ".out.mp4.keyscale").exists()
        assert list((folder / "state" / "remote").glob("*")) == []


class ForkedPlace(FaultyPlace):
    """The same without Modal's own client and containers: clients and containers are forked, with all of it loaded."""

    outage_s = 2.0
    slow_scale = 1

    def __init__(self, folder: Path, s3: S3Server, modal: FakeModal, proxy: Proxy) -> None:
        # It has what the tests of such a place use of a server.
        super().__init__(folder, s3, cast(ModalServer, modal), proxy)
        self.fake = modal
        """What only a stand-in for Modal can do."""

    def deploy(self, *, containers: int = 3, **environment: str) -> None:
        timeout = environment.get("KEYSCALE_TIMEOUT")
        # A container gives up 3 s before; half of the frames fit into that, and not all.
        self.fake.deploy(containers, float(timeout or 900), pace=Pace(frame_s=0.06 if timeout else 0.0))

    def slow_down(self, frame_s: float) -> None:
        """Let one container, a new one, take so many seconds a frame."""
        self.fake.deploy(1, 900.0, pace=Pace(frame_s=frame_s))

    def client(self, *arguments: str | Path, first: str = "", **environment: str) -> Client:
        given = [*map(str, arguments), "--progress", "json"]
        return self._follow(self._forked(given, environment, first))

    def start(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Forked:
        return self._forked(list(map(str, arguments)), environment or {})

    def _forked(self, argv: list[str], environment: Mapping[str, str], first: str = "") -> Forked:
        variables = self.environment(**environment)
        return Forked(argv, environment=variables, folder=self.folder, first=first, prepare=use_fake)


def faulty_on(folder: Path, s3: S3Server, python: Path, **deployment: str) -> Iterator[FaultyPlace]:
    """A faulty place, deployed on two containers."""
    modal = ModalServer(folder / "modal", python=python, scaledown_s=90, container_environment={"OMP_NUM_THREADS": "1"})
    with modal, Proxy(s3.endpoint) as proxy, contextlib.closing(FaultyPlace(folder, s3, modal, proxy)) as place:
        place.deploy(containers=2, **deployment)
        yield place


@pytest.fixture(scope="module", params=["forked", pytest.param("modal", marks=pytest.mark.slow)])
def faulty_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rclone: S3Server
) -> Iterator[FaultyPlace]:
    """One place for the tests of a module: with forked clients and containers, then with Modal's own."""
    folder = tmp_path_factory.mktemp("faulty")
    if request.param == "modal":
        yield from faulty_on(folder, rclone, request.getfixturevalue("container_python"))
        return
    with forked_on(folder, rclone) as place:
        yield place


@pytest.fixture(scope="module")
def _shared_forked(tmp_path_factory: pytest.TempPathFactory, rclone: S3Server) -> Iterator[ForkedPlace]:
    with forked_on(tmp_path_factory.mktemp("forked"), rclone) as place:
        yield place


@pytest.fixture
def forked_place(_shared_forked: ForkedPlace) -> Iterator[ForkedPlace]:
    """A place with forked clients and containers alone, for tests that run many jobs."""
    yield _shared_forked
    _shared_forked.leave()


@contextlib.contextmanager
def forked_on(folder: Path, s3: S3Server) -> Iterator[ForkedPlace]:
    """A place with forked clients and containers."""
    with (
        FakeModal(folder / "modal") as modal,
        Proxy(s3.endpoint) as proxy,
        contextlib.closing(ForkedPlace(folder, s3, modal, proxy)) as place,
    ):
        place.deploy(containers=2)
        yield place


@pytest.fixture
def faulty(faulty_place: FaultyPlace) -> Iterator[FaultyPlace]:
    """The module's place; its faults end with the test."""
    yield faulty_place
    faulty_place.leave()
