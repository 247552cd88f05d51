"""Random faults and commands, in seeded sequences: whatever happens, nothing that costs money is forgotten.

After each sequence: every call that was ever accepted has ended or is known to `remote status`; every object that a job
staged is gone, or the job is known; no file looks finished that is not; exit codes are of their kind; and what is known
can be ended by what `status` names. `REMOTE_SEED=17 pytest tests/end_to_end/test_remote_random.py` runs one alone, and
`REMOTE_SEED=5000` and above use Modal's own client and containers.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from grpclib import Status
from support.clips import numbers_in
from support.faulty_place import (
    DELETES,
    FETCHES_CHUNK,
    FRAMES,
    LISTS,
    READS_SOURCE,
    SENDS_SOURCE,
    STORES_CHUNK,
    Client,
    FaultyPlace,
    ForkedPlace,
    faulty_on,
    forked_on,
)
from support.s3.server import S3Server

from keyscale.engine.storage.bucket import Storage

AT_ONCE = 6
"""Sequences that run side by side, each in a place of its own: they mostly wait."""
OFTEN, FORKED = 24, 3000
REAL_OFTEN, REAL = range(5000, 5002), range(5000, 5100)
CHOSEN = [int(seed) for seed in os.environ.get("REMOTE_SEED", "").split(",") if seed]


def blocks() -> list[Any]:
    """Seeds that run side by side."""
    if CHOSEN:
        return [pytest.param([seed], id=f"seed-{seed}") for seed in CHOSEN if seed not in REAL]
    return [
        pytest.param(
            range(first, first + AT_ONCE),
            id=f"seeds-{first}-to-{first + AT_ONCE - 1}",
            marks=() if first < OFTEN else pytest.mark.slow,
        )
        for first in range(0, FORKED, AT_ONCE)
    ]


IMPATIENT = (
    "import keyscale.engine.remote.leftovers as e; import keyscale.engine.remote.run as r; "
    "import keyscale.engine.remote.dispatch as d; import keyscale.engine.remote.modal_client as m; "
    "r.STORAGE_PATIENCE_S = e.CLEAN_PATIENCE_S = e.HASTY_PATIENCE_S = e.HASTY_TIMEOUT_S = r.CONNECTED_S = 2; "
    "r.PATIENCE_S = d.START_S = m.START_PATIENCE_S = 2; m.WAIT_S = 1"
)
REFUSALS = (Status.ABORTED, Status.NOT_FOUND, Status.DATA_LOSS, Status.UNAUTHENTICATED, Status.UNAVAILABLE)
FULL = {4}
"""A client may also find no room on this machine, where its disk was filled."""
ENDINGS = {0, 5, 128 + signal.SIGHUP, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGKILL}
"""A client may also end by the signal itself, where it came before anything had begun, or after its last word."""
EARLY = {-signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM}
REQUESTS = (SENDS_SOURCE, READS_SOURCE, STORES_CHUNK, FETCHES_CHUNK, DELETES, LISTS)


class RandomSequence:
    """One sequence in a folder of its own, step by step."""

    def __init__(self, faulty: FaultyPlace, folder: Path, seed: int) -> None:
        self.faulty, self.folder, self.rng = faulty, folder, random.Random(seed)
        self.clients: list[Client] = []
        self.said: list[str] = []
        self.steps: list[str] = []
        self.before = set(faulty.accepted())
        self.was_full = False
        self.elsewhere = faulty.s3.new_bucket()
        """Where a user may look by mistake."""

    def run(self) -> None:
        """A job, and up to seven things that happen to it."""
        ways: tuple[Callable[[], None], ...] = (
            *(self.refuse, self.hold, self.release, self.break_storage, self.delay),
            *(self.outage, self.lose_token, self.fill_disk, self.interrupt, self.kill, self.lose_container),
            *(self.command, self.follow, self.lose_object),
            *((self.lose_answers, self.starve) if isinstance(self.faulty, ForkedPlace) else ()),
        )
        if self.rng.random() < 0.5:
            self.rng.choice(ways[:7])()
        self.begin("upscale")
        for _ in range(self.rng.randrange(2, 8)):
            time.sleep(self.rng.choice((0.0, 0.1, 0.5, 1.5)))
            self.rng.choice(ways)()
        # What is held would be waited for as long as the place lets it.
        if self.rng.random() < 0.5:
            self.release()
        else:
            for client in self.clients:
                with contextlib.suppress(ProcessLookupError):
                    if client.runs:
                        client.signal(signal.SIGTERM)
            self.steps.append("SIGTERM to all")

    def begin(self, way: str) -> None:
        known, bucket = sorted(self.known()), self.bucket() if way != "upscale" else {}
        if way == "resume" and known:
            home = self.faulty.home(self.folder)
            client = self.faulty.client("remote", "resume", self.rng.choice(known), first=IMPATIENT, **home, **bucket)
        else:
            other = ("--crf", "30") if way == "other" else ()
            client = self.faulty.upscale(self.folder, *other, first=IMPATIENT, **bucket)
        self.steps.append(way)
        self.clients.append(client)
        if self.rng.random() < 0.1:
            self.fill_disk()

    def bucket(self) -> dict[str, str]:
        """The variable that names a bucket, mostly the right one."""
        chosen = self.rng.choice((self.faulty.direct, self.faulty.direct, self.elsewhere)).bucket
        self.steps.append(chosen)
        return {"R2_BUCKET_NAME": chosen}

    def lose_object(self) -> None:
        with Storage(self.faulty.direct) as storage:
            if found := [each.key for each in storage.list("temp/upscale_")]:
                self.steps.append("an object is lost")
                storage.delete(self.rng.choice(found))

    def refuse(self) -> None:
        rpc = self.rng.choice(("FunctionMap", "FunctionGetOutputs", "FunctionCallCancel"))
        status, times = self.rng.choice(REFUSALS), self.rng.choice((1, 1, 3, 10))
        self.steps.append(f"{rpc}: {times} x {status.name}")
        self.faulty.modal.fail_next(rpc, status, times=times)

    def hold(self) -> None:
        self.steps.append("hold")
        self.faulty.proxy.hold(self.rng.choice(REQUESTS))

    def release(self) -> None:
        self.steps.append("release")
        self.faulty.proxy.release()
        self.faulty.proxy.pass_on()
        self.faulty.modal.pass_on()
        self.faulty.modal.set_latency("FunctionMap", 0, of="answer")
        self.limit_files(resource.RLIM_INFINITY)

    def lose_token(self) -> None:
        self.steps.append("the token is rejected")
        for rpc in ("FunctionMap", "FunctionGetOutputs", "FunctionCallCancel"):
            self.faulty.modal.fail_next(rpc, Status.UNAUTHENTICATED, times=10)

    def lose_answers(self) -> None:
        assert isinstance(self.faulty, ForkedPlace)
        times = self.rng.choice((1, 2, 5))
        self.steps.append(f"the answers to {times} accepted calls are lost")
        self.faulty.fake.lose_next(times)

    def starve(self) -> None:
        assert isinstance(self.faulty, ForkedPlace)
        self.steps.append("no container is free")
        self.faulty.fake.starve()

    def fill_disk(self) -> None:
        size = self.rng.choice((0, 300, 4096))
        self.steps.append(f"no file grows beyond {size} bytes")
        self.limit_files(size)
        self.was_full = True

    def limit_files(self, size: int) -> None:
        for client in self.clients:
            with contextlib.suppress(ProcessLookupError):
                if client.runs:
                    client.limit_files(size)

    def break_storage(self) -> None:
        status, code = self.rng.choice(((403, "AccessDenied"), (503, "SlowDown"), (404, "NoSuchKey")))
        self.steps.append(f"storage: {code}")
        self.faulty.proxy.answer(self.rng.choice(REQUESTS), status, code)

    def delay(self) -> None:
        # The real server holds an answer back for as long as was said, whatever is said later.
        seconds = self.rng.choice((0.5, 4, 30 if isinstance(self.faulty, ForkedPlace) else 8))
        self.steps.append(f"calls are named after {seconds} s")
        self.faulty.modal.set_latency("FunctionMap", seconds, of="answer")

    def outage(self) -> None:
        seconds = self.rng.choice((0.5, 6))
        self.steps.append(f"Modal is away for {seconds} s")
        self.faulty.modal.pause(for_s=seconds)

    def interrupt(self) -> None:
        if running := [client for client in self.clients if client.runs]:
            number = self.rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            self.steps.append(number.name)
            if not isinstance(self.faulty, ForkedPlace):
                time.sleep(1)  # a signal that comes while Python itself starts is none of keyscale's
            with contextlib.suppress(ProcessLookupError):
                self.rng.choice(running).signal(number)

    def kill(self) -> None:
        if running := [client for client in self.clients if client.runs]:
            self.steps.append("kill")
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                self.rng.choice(running).kill()

    def lose_container(self) -> None:
        if tasks := self.faulty.modal.running_tasks():
            outcome: Any = self.rng.choice(("crashed", "preempted", "internal failure"))
            self.steps.append(f"a container: {outcome}")
            self.faulty.modal.kill_container(self.rng.choice(tasks).id, outcome)

    def command(self) -> None:
        known = sorted(self.known())
        ways = [("remote", "status"), ("remote", "clean", "--older-than", "0s")]
        ways += [("remote", "cancel", job) for job in known]
        chosen = self.rng.choice(ways)
        token = {"MODAL_TOKEN_SECRET": "as-wrong"} if self.rng.random() < 0.2 else {}
        self.steps.append(" ".join(chosen))
        done = self.faulty.run(*chosen, environment=self.faulty.home(self.folder) | token | self.bucket())
        assert done.returncode in {0, 5}, done
        self.said += [done.stdout, done.stderr]

    def follow(self) -> None:
        if not any(client.runs for client in self.clients):
            self.begin(self.rng.choice(("upscale", "other", "resume")))

    def left(self) -> list[str]:
        """What lies in both buckets."""
        with Storage(self.elsewhere) as storage:
            return self.faulty.left() + [found.key for found in storage.list("")]

    def bucket_of(self, job: str) -> dict[str, str]:
        """The variable by which `cancel` finds a job, as a user takes it from the error."""
        paths = self.folder / "state" / "remote" / f"{job}.state", self.folder / ".out.mp4.keyscale" / "remote.json"
        states = [json.loads(path.read_text()) for path in paths if path.exists()]
        places = [state["bucket"] for state in states if state["job_id"] == job]
        return {"R2_BUCKET_NAME": places[0]} if places else {}

    def known(self) -> dict[str, list[dict[str, object]]]:
        """Jobs that notes lead to, with the calls that are known of each, named or not."""
        found: dict[str, list[dict[str, object]]] = {}
        for note in (self.folder / "state" / "remote").glob("*.json"):
            job = note.stem
            found[job] = []
            for path in (note.with_suffix(".state"), self.folder / ".out.mp4.keyscale" / "remote.json"):
                if path.exists():
                    state = json.loads(path.read_text())
                    if state["job_id"] == job:
                        found[job] += state["calls"] + state["starting"]
        return found

    def check(self) -> None:
        """What has to hold once the clients have ended, before anything is mended."""
        for client in self.clients:
            code = client.end(90)
            finished = code == 4 and "already exists" in client.errors  # by the client before it
            of_its_kind = code in (ENDINGS | FULL if self.was_full else ENDINGS) or finished
            idle = not client.events or client.last["event"] in {"done", "error"}
            assert of_its_kind or (code in EARLY and idle), (code, client.errors)
            self.said += [client.errors, *(json.dumps(event) for _, event in client.events)]
        keys = self.faulty.settings.secret_key, self.faulty.modal.environment()["MODAL_TOKEN_SECRET"]
        for secret in (*keys, "X-Amz-", "Traceback", "a defect of keyscale"):
            assert not [text for text in self.said if secret in text], secret
        known = self.known()
        named = {call["id"] for calls in known.values() for call in calls if "id" in call}
        unnamed = sum("until" in call for calls in known.values() for call in calls)
        deadline = time.monotonic() + self.faulty.outage_s + 10  # what a container needs to hear that it is cancelled
        while (
            len(strays := set(self.faulty.accepted()) - named - self.before) > unnamed and time.monotonic() < deadline
        ):
            time.sleep(0.1)  # one without what it needs ends by itself
        assert len(strays) <= unnamed, f"forgotten: {strays}; known: {known}"
        jobs = {found[1] for key in self.left() if (found := re.match(r"temp/upscale_([^/]+)/", key))}
        assert jobs <= set(known), f"forgotten in storage: {jobs - set(known)}"
        output = self.folder / "out.mp4"
        if output.exists():
            assert [number for _, number in numbers_in(output)] == list(range(FRAMES))
            assert any(client.last["event"] == "done" for client in self.clients if client.events)

    def sweep(self) -> None:
        """Leave nothing to the next sequence."""
        self.faulty.leave()
        self.clean()

    def clean(self) -> None:
        """Sweep both buckets."""
        for place in (self.faulty.direct, self.elsewhere):
            home = self.faulty.home(self.folder) | {"R2_BUCKET_NAME": place.bucket}
            self.faulty.run("remote", "clean", "--older-than", "0s", environment=home)

    def end(self) -> None:
        """All that is known can be ended by what `status` names."""
        self.faulty.mend()
        self.faulty.modal.set_latency("FunctionMap", 0, of="answer")
        home = self.faulty.home(self.folder)
        told = self.faulty.run("remote", "status", environment=home)
        assert told.returncode == 0, told.stderr
        assert all(job in told.stdout for job in self.known()), told.stdout
        for job in self.known():
            state, home = self.folder / "state" / "remote" / f"{job}.state", home | self.bucket_of(job)
            done = self.faulty.run("remote", "cancel", job, environment=home)
            if done.returncode == 5 and "never gave" in done.stderr:
                # Later it is over for certain.
                state.write_text(re.sub(r'"until":[0-9.]+', '"until":0', state.read_text()))
                done = self.faulty.run("remote", "cancel", job, environment=home)
            assert done.returncode == 0, done.stderr
        self.clean()
        assert self.known() == {}
        assert self.left() == []
        deadline = time.monotonic() + 40
        while self.faulty.accepted() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.faulty.accepted() == []


@pytest.fixture(scope="module")
def forked_places(tmp_path_factory: pytest.TempPathFactory, rclone: S3Server) -> Iterator[list[ForkedPlace]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(forked_on(tmp_path_factory.mktemp("forked"), rclone)) for _ in range(AT_ONCE)]


@pytest.mark.parametrize("seeds", blocks())
def test_whatever_happens_no_call_and_no_object_is_forgotten(
    forked_places: list[ForkedPlace], tmp_path: Path, seeds: Sequence[int]
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [
            pool.submit(play, RandomSequence(place, tmp_path / str(seed), seed), seed)
            for place, seed in zip(forked_places, seeds, strict=False)
        ]
    if errors := [error for run in runs if (error := run.exception())]:
        raise BaseExceptionGroup("of sequences that ran side by side", errors)


@pytest.fixture(scope="module")
def modal_place(
    tmp_path_factory: pytest.TempPathFactory, rclone: S3Server, container_python: Path
) -> Iterator[FaultyPlace]:
    yield from faulty_on(tmp_path_factory.mktemp("modal"), rclone, container_python)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, id=f"seed-{seed}", marks=() if CHOSEN or seed in REAL_OFTEN else pytest.mark.slow)
        for seed in (set(REAL) & set(CHOSEN) if CHOSEN else REAL)
    ],
)
def test_the_same_holds_with_modals_own_client_protocol_and_containers(
    modal_place: FaultyPlace, tmp_path: Path, seed: int
) -> None:
    play(RandomSequence(modal_place, tmp_path, seed), seed)


def play(sequence: RandomSequence, seed: int) -> None:
    sequence.folder.mkdir(exist_ok=True)
    try:
        sequence.run()
        sequence.check()
        sequence.end()
    except BaseException as error:
        error.add_note(f"seed {seed}: {'; '.join(sequence.steps)}")
        sequence.sweep()
        raise
    finally:
        sequence.faulty.leave()
