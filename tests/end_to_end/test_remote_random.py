"""Random faults and commands, in seeded sequences: whatever happens, nothing that costs money is forgotten.

After each sequence: every call that was ever accepted has ended or is known to `remote status`; every object that a job
staged is gone, or the job is known; no file looks finished that is not; exit codes are of their kind; and what is known
can be ended by what `status` names. A seed that failed is run alone by `-k "seed-17"`.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import time
from collections.abc import Callable
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
    ForkedPlace,
)

OFTEN, MORE = range(6), range(6, 1000)
IMPATIENT = (
    "import keyscale.engine.remote.leftovers as e; import keyscale.engine.remote.run as r; "
    "import keyscale.engine.remote.dispatch as d; import keyscale.engine.remote.modal_client as m; "
    "r.STORAGE_PATIENCE_S = e.CLEAN_PATIENCE_S = e.HASTY_PATIENCE_S = e.HASTY_TIMEOUT_S = r.CONNECTED_S = 2; "
    "r.PATIENCE_S = d.START_S = m.START_PATIENCE_S = 2; m.WAIT_S = 1"
)
REFUSALS = (Status.ABORTED, Status.NOT_FOUND, Status.DATA_LOSS, Status.UNAUTHENTICATED, Status.UNAVAILABLE)
ENDINGS = {0, 5, 128 + signal.SIGHUP, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGKILL}
"""A client may also end by the signal itself, where it came before anything had begun."""
EARLY = {-signal.SIGHUP, -signal.SIGTERM}
REQUESTS = (SENDS_SOURCE, READS_SOURCE, STORES_CHUNK, FETCHES_CHUNK, DELETES, LISTS)


class Sequence:
    """One sequence in a folder of its own, step by step."""

    def __init__(self, faulty: ForkedPlace, folder: Path, seed: int) -> None:
        self.faulty, self.folder, self.rng = faulty, folder, random.Random(seed)
        self.clients: list[Client] = []
        self.said: list[str] = []
        self.steps: list[str] = []
        self.before = set(faulty.accepted())

    def run(self) -> None:
        """A job, and up to seven things that happen to it."""
        ways: tuple[Callable[[], None], ...] = (
            *(self.refuse, self.hold, self.release, self.break_storage, self.delay),
            *(self.outage, self.interrupt, self.kill, self.lose_container, self.command, self.follow),
        )
        if self.rng.random() < 0.5:
            self.rng.choice(ways[:6])()
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
        known = sorted(self.known())
        if way == "resume" and known:
            client = self.faulty.client(
                "remote", "resume", self.rng.choice(known), first=IMPATIENT, **self.faulty.home(self.folder)
            )
        else:
            client = self.faulty.upscale(self.folder, *(("--crf", "30") if way == "other" else ()), first=IMPATIENT)
        self.steps.append(way)
        self.clients.append(client)

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

    def break_storage(self) -> None:
        status, code = self.rng.choice(((403, "AccessDenied"), (503, "SlowDown"), (404, "NoSuchKey")))
        self.steps.append(f"storage: {code}")
        self.faulty.proxy.answer(self.rng.choice(REQUESTS), status, code)

    def delay(self) -> None:
        seconds = self.rng.choice((0.5, 4, 30))
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
        done = self.faulty.run(*chosen, environment=self.faulty.home(self.folder) | token)
        assert done.returncode in {0, 5}, done
        self.said += [done.stdout, done.stderr]

    def follow(self) -> None:
        if not any(client.runs for client in self.clients):
            self.begin(self.rng.choice(("upscale", "other", "resume")))

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
            finished = code == 4 and "is already there" in client.errors  # by the client before it
            assert code in ENDINGS or finished or (code in EARLY and not client.events), (code, client.errors)
            self.said += [client.errors, *(json.dumps(event) for _, event in client.events)]
        for secret in (self.faulty.settings.secret_key, "X-Amz-", "Traceback", "a defect of keyscale"):
            assert not [text for text in self.said if secret in text], secret
        known = self.known()
        named = {call["id"] for calls in known.values() for call in calls if "id" in call}
        unnamed = sum("until" in call for calls in known.values() for call in calls)
        deadline = time.monotonic() + 10
        while (
            len(strays := set(self.faulty.accepted()) - named - self.before) > unnamed and time.monotonic() < deadline
        ):
            time.sleep(0.1)  # one without what it needs ends by itself
        assert len(strays) <= unnamed, f"forgotten: {strays}; known: {known}"
        jobs = {found[1] for key in self.faulty.left() if (found := re.match(r"temp/upscale_([^/]+)/", key))}
        assert jobs <= set(known), f"forgotten in storage: {jobs - set(known)}"
        output = self.folder / "out.mp4"
        if output.exists():
            assert [number for _, number in numbers_in(output)] == list(range(FRAMES))
            assert any(client.last["event"] == "done" for client in self.clients if client.events)

    def end(self) -> None:
        """All that is known can be ended by what `status` names."""
        self.faulty.mend()
        self.faulty.modal.set_latency("FunctionMap", 0, of="answer")
        home = self.faulty.home(self.folder)
        for job in self.known():
            state = self.folder / "state" / "remote" / f"{job}.state"
            done = self.faulty.run("remote", "cancel", job, environment=home)
            if done.returncode == 5 and "never gave" in done.stderr:
                # Later it is over for certain.
                state.write_text(re.sub(r'"until":[0-9.]+', '"until":0', state.read_text()))
                done = self.faulty.run("remote", "cancel", job, environment=home)
            assert done.returncode == 0, done.stderr
        self.faulty.run("remote", "clean", "--older-than", "0s", environment=home)
        assert self.known() == {}
        assert self.faulty.left() == []
        deadline = time.monotonic() + 20
        while self.faulty.accepted() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.faulty.accepted() == []


@pytest.mark.parametrize(
    "seed",
    [
        *(pytest.param(seed, id=f"seed-{seed}") for seed in OFTEN),
        *(pytest.param(seed, id=f"seed-{seed}", marks=pytest.mark.slow) for seed in MORE),
    ],
)
def test_whatever_happens_no_call_and_no_object_is_forgotten(
    forked_place: ForkedPlace, tmp_path: Path, seed: int
) -> None:
    sequence = Sequence(forked_place, tmp_path, seed)
    try:
        sequence.run()
        sequence.check()
        sequence.end()
    except BaseException as error:
        error.add_note(f"seed {seed}: {'; '.join(sequence.steps)}")
        raise
