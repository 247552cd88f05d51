"""No call that Modal accepted is forgotten: it has ended, or `remote status` knows it and the client said so."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest
from grpclib import Status
from support.faulty_place import (
    DELETES,
    LISTS,
    READS_SOURCE,
    SENDS_SOURCE,
    Asked,
    Client,
    FaultyPlace,
    ForkedPlace,
    asked,
)

HASTY = (
    "import keyscale.engine.remote.modal_client as m; import keyscale.engine.remote.dispatch as d; "
    "m.WAIT_S = 1; m.ASK_PAUSE_S = 0.1; d.LEAVE_S = 0.5; d.START_S = 1"
)
"""Shorter pauses. A request that waits for a call's end isn't failed by Modal's own server any more once it waits."""


def begun(faulty: FaultyPlace, folder: Path, *, first: str = "", **more: str) -> Client:
    """A client two of whose calls run and can do nothing."""
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(folder, first=f"{HASTY}; {first}", **more)
    faulty.proxy.wait_held(2)
    faulty.wait_started(folder, 2)
    return client


def status_of(faulty: FaultyPlace, folder: Path) -> str:
    return faulty.run("remote", "status", environment=faulty.home(folder)).stdout


def past_doubt(folder: Path, job: str) -> None:
    """Let it be so late that calls without an id have ended for certain."""
    state = folder / "state" / "remote" / f"{job}.state"
    kept = json.loads(state.read_text())
    assert kept["starting"]
    for call in kept["starting"]:
        call["until"] = time.time() - 1
    state.write_text(json.dumps(kept))


def wait_idle(faulty: FaultyPlace) -> None:
    """Return once no container works on anything."""
    end = time.monotonic() + 20
    while any(task.calls for task in faulty.modal.running_tasks()) and time.monotonic() < end:
        time.sleep(0.1)


@pytest.mark.parametrize(
    "status",
    [
        *(Status.ABORTED, Status.NOT_FOUND, Status.UNAUTHENTICATED),
        # To the client the same as others of these; tests/remote/test_modal_errors.py holds that.
        *(pytest.param(each, marks=pytest.mark.slow) for each in (Status.FAILED_PRECONDITION, Status.DATA_LOSS)),
    ],
)
def test_one_refusal_to_tell_of_a_call_changes_nothing(faulty: FaultyPlace, tmp_path: Path, status: Status) -> None:
    before = faulty.spawned()
    client = begun(faulty, tmp_path)
    faulty.modal.fail_next("FunctionGetOutputs", status)
    while faulty.modal.failures("FunctionGetOutputs"):
        time.sleep(0.02)
    faulty.proxy.release()
    faulty.check_done(client, tmp_path)
    assert faulty.spawned() - before == 3


@pytest.mark.parametrize(
    "status",
    [Status.ABORTED, Status.UNAUTHENTICATED, pytest.param(Status.PERMISSION_DENIED, marks=pytest.mark.slow)],
)
def test_calls_of_which_modal_refuses_to_tell_are_cancelled(
    faulty: FaultyPlace, tmp_path: Path, status: Status
) -> None:
    client = begun(faulty, tmp_path)
    faulty.modal.fail_next("FunctionGetOutputs", status, times=6)
    assert client.end() == 5
    client.check()
    faulty.mend()
    faulty.check_clean(tmp_path)
    assert "no call is known to run" in status_of(faulty, tmp_path)


def test_a_call_that_modal_does_not_know_any_more_is_cancelled_before_another_takes_its_place(
    faulty: FaultyPlace, tmp_path: Path
) -> None:
    client = begun(faulty, tmp_path)
    faulty.modal.fail_next("FunctionGetOutputs", Status.NOT_FOUND, times=6)
    client.until(lambda event: "again" in event.get("message", ""))
    deadline = time.monotonic() + 20
    while sum(len(task.calls) for task in faulty.modal.running_tasks()) > 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sum(len(task.calls) for task in faulty.modal.running_tasks()) <= 2
    faulty.modal.pass_on()
    faulty.proxy.release()
    faulty.check_done(client, tmp_path)


def test_calls_that_can_neither_be_followed_nor_cancelled_stay_known(faulty: FaultyPlace, tmp_path: Path) -> None:
    client = begun(faulty, tmp_path)
    faulty.modal.fail_next("FunctionGetOutputs", Status.UNAUTHENTICATED, times=6)
    faulty.modal.fail_next("FunctionCallCancel", Status.UNAUTHENTICATED, times=50)
    assert client.end() == 5
    client.check()
    assert "2 calls may still run, since Modal did not confirm the cancellation" in client.notes
    assert f"`keyscale remote cancel {client.job}` stops them" in client.notes
    home = faulty.home(tmp_path)
    refused = faulty.run("remote", "cancel", client.job, environment=home)
    assert refused.returncode == 5
    assert client.job in status_of(faulty, tmp_path)
    faulty.modal.pass_on()
    # Whatever has run on found nothing to work on, as it was removed.
    assert faulty.run("remote", "cancel", client.job, environment=home).returncode == 0
    faulty.mend()
    faulty.check_clean(tmp_path)
    assert "no remote job is unfinished" in status_of(faulty, tmp_path)


def test_one_refusal_to_cancel_changes_nothing(faulty: FaultyPlace, tmp_path: Path) -> None:
    client = begun(faulty, tmp_path)
    faulty.modal.fail_next("FunctionCallCancel", Status.ABORTED)
    client.signal(signal.SIGINT)
    assert client.end() == 130
    client.check()
    faulty.check_clean(tmp_path)
    assert "no call is known to run" in status_of(faulty, tmp_path)


def test_a_call_that_is_named_too_late_for_an_interrupted_client_is_told_and_known(
    faulty: FaultyPlace, tmp_path: Path
) -> None:
    faulty.proxy.hold(READS_SOURCE)
    faulty.modal.set_latency("FunctionMap", 30, of="answer")
    client = faulty.upscale(tmp_path, first=HASTY)
    faulty.proxy.wait_held(1)
    client.signal(signal.SIGINT)
    assert client.end() == 130
    faulty.modal.set_latency("FunctionMap", 0, of="answer")
    client.check()
    assert "1 call may run whose id Modal never gave" in client.notes
    told = status_of(faulty, tmp_path)
    assert client.job in told
    assert "Modal never gave its id; if it runs, it ends by" in told
    refused = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert refused.returncode == 5
    assert "never gave" in refused.stderr
    assert client.job in status_of(faulty, tmp_path)
    past_doubt(tmp_path, client.job)
    assert faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path)).returncode == 0
    assert "no remote job is unfinished" in status_of(faulty, tmp_path)
    faulty.mend()
    faulty.check_clean(tmp_path)


def test_a_client_that_is_killed_while_modal_names_a_call_leaves_it_known(faulty: FaultyPlace, tmp_path: Path) -> None:
    faulty.proxy.hold(READS_SOURCE)
    faulty.modal.set_latency("FunctionMap", 30, of="answer")
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(1)
    client.kill()
    faulty.modal.set_latency("FunctionMap", 0, of="answer")
    assert "never gave its id" in status_of(faulty, tmp_path)
    faulty.proxy.cut()
    faulty.mend()
    wait_idle(faulty)  # whatever the call still stores is gone before another test looks
    cleaned = faulty.run("remote", "clean", "--older-than", "0s", environment=faulty.home(tmp_path))
    assert cleaned.returncode == 5
    assert f"{client.job}: 1 call may run whose id Modal never gave" in cleaned.stderr
    assert faulty.left() == []


@pytest.mark.parametrize("ending", ["it goes on", "Ctrl-C", "it is killed"])
def test_a_call_whose_acceptance_was_lost_and_that_was_asked_for_anew_is_told_and_known(
    forked_place: ForkedPlace, tmp_path: Path, ending: str
) -> None:
    faulty = forked_place
    faulty.proxy.hold(READS_SOURCE)
    faulty.fake.lose_next()
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    faulty.wait_started(tmp_path, 1)
    # Both containers work on the same frames, and Modal told the id of one alone.
    assert len(faulty.accepted()) >= 2
    if ending == "it is killed":
        client.kill()
    elif ending == "Ctrl-C":
        client.signal(signal.SIGINT)
        assert client.end() == 130
    else:
        faulty.proxy.release()
        assert client.end() == 0, client.errors
    assert "not known: Modal never gave its id; if it runs, it ends by" in status_of(faulty, tmp_path)
    if ending != "it is killed":
        client.check()
        assert "1 call may run whose id Modal never gave" in client.notes
    faulty.mend()
    refused = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert refused.returncode == 5
    # Whoever is killed may just have been asking for one more.
    untold = r"\d calls? may run" if ending == "it is killed" else "1 call may run"
    assert re.search(f"{untold} whose id Modal never gave", refused.stderr), refused.stderr
    assert client.job in status_of(faulty, tmp_path)
    wait_idle(faulty)
    past_doubt(tmp_path, client.job)
    assert faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path)).returncode == 0
    assert faulty.left() == []
    assert "no remote job is unfinished" in status_of(faulty, tmp_path)


def test_ctrl_c_while_it_is_asked_what_is_deployed_leaves_no_call(forked_place: ForkedPlace, tmp_path: Path) -> None:
    before = len(forked_place.modal.calls("FunctionMap"))
    forked_place.fake.describe_slowly(60)
    client = forked_place.upscale(tmp_path)
    while len(forked_place.modal.calls("FunctionMap")) == before:
        time.sleep(0.02)
    began = time.monotonic()
    client.signal(signal.SIGINT)
    assert client.end() == 130
    assert time.monotonic() - began < 6
    client.check()
    assert "may be left" not in client.notes
    assert forked_place.accepted() == []
    forked_place.check_clean(tmp_path)


@pytest.mark.parametrize("silent", [LISTS, DELETES], ids=["when listed", "when deleted from"])
@pytest.mark.parametrize("longest_s", [1.5, pytest.param(12.0, marks=pytest.mark.slow)])
def test_storage_that_falls_silent_does_not_keep_an_interrupted_client(
    faulty: FaultyPlace, tmp_path: Path, silent: Asked, longest_s: float
) -> None:
    client = begun(faulty, tmp_path, first=f"import keyscale.engine.remote.resumable as r; r.HASTY_S = {longest_s}")
    faulty.proxy.hold(silent)
    began = time.monotonic()
    client.signal(signal.SIGINT)
    assert client.end() == 130
    assert time.monotonic() - began < longest_s + 3
    client.check()
    assert f"remote job {client.job} is left as it is, since Modal or storage did not answer in time" in client.notes
    assert f"`keyscale remote cancel {client.job}` stops them and removes what was staged" in client.notes
    assert client.job in status_of(faulty, tmp_path)
    faulty.proxy.cut()
    faulty.mend()
    assert faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path)).returncode == 0
    faulty.check_clean(tmp_path)


def test_a_trial_that_cannot_be_deleted_is_told(faulty: FaultyPlace, tmp_path: Path) -> None:
    faulty.proxy.answer(DELETES, 403, "AccessDenied")
    client = faulty.upscale(tmp_path)
    assert client.end() == 5
    client.check()
    assert "temp/keyscale-check-" in client.last["remedy"]
    assert "keyscale remote clean" in client.last["remedy"]
    faulty.mend()
    faulty.run("remote", "clean", "--older-than", "0s", environment=faulty.home(tmp_path))
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize("answers", [True, False])
def test_an_interrupted_trial_removes_its_object_or_says_that_it_may_be_left(
    faulty: FaultyPlace, tmp_path: Path, answers: bool
) -> None:
    faulty.proxy.hold(DELETES)
    client = faulty.upscale(tmp_path, first="import keyscale.engine.remote.run as r; r.CONNECTED_S = 2")
    faulty.proxy.wait_held(1)
    client.signal(signal.SIGINT)
    if answers:
        time.sleep(0.5)
        faulty.proxy.release()
    assert client.end() == 130
    client.check()
    assert ("`keyscale remote clean` removes it" in client.notes) is not answers
    faulty.mend()
    if not answers:
        faulty.run("remote", "clean", "--older-than", "0s", environment=faulty.home(tmp_path))
    faulty.check_clean(tmp_path)


def test_a_trial_of_which_nobody_knows_whether_it_was_written_is_told(
    forked_place: ForkedPlace, tmp_path: Path
) -> None:
    forked_place.proxy.hold(asked("PUT BUCKET/temp/keyscale-check-"))
    client = forked_place.upscale(tmp_path, first="import keyscale.engine.remote.run as r; r.CONNECTED_S = 20")
    forked_place.proxy.wait_held(1)
    client.signal(signal.SIGINT)
    while client.runs:
        forked_place.proxy.cut()
        time.sleep(0.1)
    assert client.end() == 130
    client.check()
    assert "a trial of the bucket may be left in storage: `keyscale remote clean` removes it" in client.notes


def test_clean_that_may_not_delete_keeps_the_job_known(faulty: FaultyPlace, tmp_path: Path) -> None:
    client = begun(faulty, tmp_path)
    client.kill()
    faulty.proxy.answer(DELETES, 403, "AccessDenied")
    faulty.proxy.answer(lambda line: line.startswith("POST ") and "?delete" in line, 403, "AccessDenied")
    home = faulty.home(tmp_path)
    refused = faulty.run("remote", "clean", "--older-than", "0s", environment=home)
    assert refused.returncode == 5
    assert client.job in status_of(faulty, tmp_path)
    faulty.mend()
    cancelled = faulty.run("remote", "cancel", client.job, environment=home)
    assert cancelled.returncode == 0, cancelled.stderr
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize("way", ["resume", "cancel"])
def test_a_job_whose_kept_state_is_damaged_leaves_nothing_in_storage(
    faulty: FaultyPlace, tmp_path: Path, way: str
) -> None:
    faulty.proxy.hold(SENDS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(1)
    client.kill()
    faulty.proxy.cut()
    faulty.mend()
    (tmp_path / ".out.mp4.keyscale" / "remote.json").write_text("{")
    (tmp_path / "state" / "remote" / f"{client.job}.state").write_text("")
    if way == "resume":
        follower = faulty.resume(tmp_path, client.job)
        faulty.check_done(follower, tmp_path)
        assert f"what was kept of the earlier job {client.job} is damaged" in follower.notes
        return
    cancelled = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert cancelled.returncode == 0, cancelled.stderr
    assert "what was kept of it is damaged" in cancelled.stdout
    faulty.check_clean(tmp_path)
    assert "no remote job is unfinished" in status_of(faulty, tmp_path)
