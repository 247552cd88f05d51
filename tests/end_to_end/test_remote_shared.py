"""Jobs in one process that share a number of calls, as those of a batch do."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.clips import make_clip, numbers_in
from support.faulty_place import FRAMES, READS_SOURCE, SIZE, FaultyPlace

pytestmark = [pytest.mark.slow, pytest.mark.processes]

PROGRAM = """
import sys, threading
from fractions import Fraction
from keyscale.engine.run_options import RemoteOptions
from keyscale.engine.job import Job, ModelChoice, Target
from keyscale.engine.serialization import dumps
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.remote.run import run_remote
from keyscale.engine.remote.slots import Slots

slots, whole_lines = Slots(2), threading.Lock()

def work(name, chunk_seconds):
    job = Job(
        source=f"{name}.mkv", output=f"{name}.mp4", chunk_seconds=chunk_seconds, model=ModelChoice(name="lanczos"),
        target=Target(width=64, height=64, rate=Fraction(1)),
    )
    for event in run_remote(prepare(job, remote=True), RemoteOptions(), threading.Event(), slots=slots):
        with whole_lines:
            print(f"{name} {dumps(event)}", flush=True)

long, short = threading.Thread(target=work, args=("long", 10)), threading.Thread(target=work, args=("short", 20))
long.start()
sys.stdin.readline()
short.start()
long.join()
short.join()
"""


def calls_in_order(place: FaultyPlace, since: int) -> list[str]:
    """The job of each chunk's call in the order in which these came to Modal, and `ended` for each that ended."""
    found = []
    for call in place.modal.calls()[since:]:
        if call.rpc == "FunctionMap":
            task = re.search(rb'"job_id":"([^"]+)"', call.request.SerializeToString())
            if task is not None:
                found.append(task[1].decode())
        if call.rpc == "FunctionPutOutputs":
            for output in call.request.outputs:
                content = pickle.loads(output.result.data) if output.result.data else None  # noqa: S301 - of our own
                if isinstance(content, dict) and "index" in content:
                    found.append("ended")
    return found


@pytest.mark.parametrize("faulty_place", ["modal"], indirect=True)
def test_a_long_and_a_short_job_share_two_calls_and_the_short_one_is_not_kept_waiting_for_the_end_of_the_long_one(
    faulty: FaultyPlace, tmp_path: Path
) -> None:
    faulty.deploy(containers=4)
    for name in ("long", "short"):
        make_clip(tmp_path / f"{name}.mkv", frames=FRAMES, rate=1, size=SIZE)
    before, since = faulty.spawned(), len(faulty.modal.calls())
    faulty.proxy.hold(READS_SOURCE)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=faulty.environment(**faulty.home(tmp_path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told: dict[str, list[dict[str, object]]] = {"long": [], "short": []}
    waits = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            name, _, event = line.partition(" ")
            told[name].append(json.loads(event))
            if name == "short" and told[name][-1].get("phase") == "upscale":
                waits.set()

    reader = threading.Thread(target=listen)
    reader.start()
    try:
        end = time.monotonic() + 60
        while faulty.spawned() - before < 2:
            assert time.monotonic() < end, told
            time.sleep(0.05)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert waits.wait(60), told
        time.sleep(1)
        assert faulty.spawned() - before == 2, "there is room for four, and two are all that they share"
        faulty.proxy.release()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdin.close()
        process.stdout.close()
    for name in ("long", "short"):
        assert [number for _, number in numbers_in(tmp_path / f"{name}.mp4")] == list(range(FRAMES))
        assert told[name][-1]["event"] == "done"
    order = calls_in_order(faulty, since)
    running = [order[:end].count("ended") for end in range(len(order) + 1)]
    running = [end - 2 * ended for end, ended in enumerate(running)]
    assert max(running) == 2, order
    started = [job for job in order if job != "ended"]
    long = started[0]
    assert (started.count(long), len(started)) == (6, 9)
    assert (started[:2], started[-1]) == ([long, long], long), "the short one was served among the long one's"
    assert faulty.left() == []
