"""Clients of `--remote` that are killed or interrupted: what stays, and that another one goes on from there."""

from __future__ import annotations

import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from support.faulty_place import (
    DELETES,
    FETCHES_CHUNK,
    READS_SOURCE,
    SENDS_SOURCE,
    Asked,
    Client,
    FaultyPlace,
    ForkedPlace,
)

from keyscale.engine.storage.bucket import Storage


def killed_with_two_calls(faulty: FaultyPlace, folder: Path) -> Client:
    """A client that was killed while two calls, which it knew, ran and could do nothing."""
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(folder)
    faulty.proxy.wait_held(2)
    faulty.wait_started(folder, 2)
    client.kill()
    return client


@pytest.mark.parametrize(
    ("point", "way", "held", "started"),
    [
        pytest.param(SENDS_SOURCE, "resume", 1, 0, id="while it sends the source, then resumed"),
        pytest.param(READS_SOURCE, "resume", 2, 2, id="while containers work, then resumed"),
        pytest.param(FETCHES_CHUNK, "again", 1, 3, id="while it fetches a chunk, then the same command again"),
        pytest.param(DELETES, "again", 1, 0, id="while it cleans up, then the same command again"),
    ],
)
def test_a_killed_client_is_followed_by_another_that_starts_no_chunk_twice(
    faulty: FaultyPlace,
    tmp_path: Path,
    point: Asked,
    way: str,
    held: int,
    started: int,
) -> None:
    before = faulty.spawned()
    after_connect = point is DELETES  # the trial of the storage deletes too
    let_read = faulty.proxy.hold(READS_SOURCE if after_connect else point)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(1)
    if after_connect:
        faulty.proxy.hold(point)
        let_read()
    faulty.proxy.wait_held(held)
    faulty.wait_started(tmp_path, started)
    client.kill()
    assert not (tmp_path / "out.mp4").exists()
    faulty.proxy.release()
    follower = faulty.upscale(tmp_path) if way == "again" else faulty.resume(tmp_path, client.job)
    faulty.check_done(follower, tmp_path)
    assert faulty.spawned() - before == 3
    if way == "resume":
        assert follower.job == client.job


def test_after_a_kill_another_job_for_the_same_output_stops_the_calls_of_the_first(
    faulty: FaultyPlace,
    tmp_path: Path,
) -> None:
    before = faulty.spawned()
    client = killed_with_two_calls(faulty, tmp_path)
    other = faulty.upscale(tmp_path, "--crf", "30")
    faulty.proxy.wait_held(2 + 2)
    assert client.job not in " ".join(faulty.left())
    faulty.proxy.release()
    faulty.check_done(other, tmp_path)
    assert other.job != client.job
    assert faulty.spawned() - before == 2 + 3


@pytest.mark.parametrize("way", ["resume", "again"])
def test_a_killed_client_whose_work_folder_was_removed_is_followed_all_the_same(
    faulty: FaultyPlace, tmp_path: Path, way: str
) -> None:
    before = faulty.spawned()
    client = killed_with_two_calls(faulty, tmp_path)
    shutil.rmtree(tmp_path / ".out.mp4.keyscale")
    status = faulty.run("remote", "status", environment=faulty.home(tmp_path))
    assert status.stdout.count(": running") == 2, status
    follower = faulty.upscale(tmp_path) if way == "again" else faulty.resume(tmp_path, client.job)
    follower.until(lambda event: "goes on: 2 calls were started" in event.get("message", ""))
    faulty.proxy.release()
    faulty.check_done(follower, tmp_path)
    assert faulty.spawned() - before == 3


def test_after_a_kill_and_without_the_work_folder_another_job_stops_the_calls_of_the_first(
    faulty: FaultyPlace, tmp_path: Path
) -> None:
    client = killed_with_two_calls(faulty, tmp_path)
    shutil.rmtree(tmp_path / ".out.mp4.keyscale")
    other = faulty.upscale(tmp_path, "--crf", "30")
    faulty.proxy.wait_held(2 + 2)
    assert client.job not in " ".join(faulty.left())
    faulty.proxy.release()
    faulty.check_done(other, tmp_path)


def test_a_job_that_lies_in_another_bucket_stays_known(faulty: FaultyPlace, tmp_path: Path) -> None:
    client = killed_with_two_calls(faulty, tmp_path)
    shutil.rmtree(tmp_path / ".out.mp4.keyscale")
    faulty.proxy.release()
    elsewhere = faulty.s3.new_bucket()
    other = faulty.upscale(tmp_path, "--crf", "30", R2_BUCKET_NAME=elsewhere.bucket)
    assert other.end() == 0, other.errors
    assert f"`keyscale remote cancel {client.job}` ends it" in other.notes
    status = faulty.run("remote", "status", environment=faulty.home(tmp_path))
    assert status.stdout.startswith(f"{client.job}  ")
    done = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert done.returncode == 0, done.stderr
    assert faulty.left() == []


@pytest.mark.parametrize(
    "more",
    [pytest.param((), id="the same job"), pytest.param(("--crf", "30"), id="another one", marks=pytest.mark.slow)],
)
def test_a_job_in_another_bucket_is_left_as_it_is_where_its_work_folder_is_there(
    forked_place: ForkedPlace, tmp_path: Path, more: tuple[str, ...]
) -> None:
    faulty, home = forked_place, forked_place.home(tmp_path)
    client = killed_with_two_calls(faulty, tmp_path)
    other = faulty.upscale(tmp_path, *more, R2_BUCKET_NAME=faulty.s3.new_bucket().bucket)
    assert other.end() == 5
    other.check()
    assert f"is staged in the bucket {faulty.settings.bucket}" in other.last["message"]
    assert faulty.run("remote", "status", environment=home).stdout.count(": running") == 2
    done = faulty.run("remote", "cancel", client.job, environment=home)
    assert done.returncode == 0, done.stderr
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize(("first", "disk_is_full"), [("cancel", True), ("clean", False)])
def test_a_job_that_could_not_be_removed_is_not_forgotten_by_who_looks_in_another_bucket(
    forked_place: ForkedPlace, tmp_path: Path, first: str, disk_is_full: bool
) -> None:
    faulty, home = forked_place, forked_place.home(tmp_path)
    client = killed_with_two_calls(faulty, tmp_path)
    faulty.proxy.answer(DELETES, 403, "AccessDenied")
    commands = [("cancel", client.job), ("clean", "--older-than", "0s")]
    for command in commands if first == "cancel" else reversed(commands):
        process = faulty.start("remote", *command, environment=home)
        if disk_is_full and sys.platform == "linux":
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        process.communicate(timeout=60)
        assert process.wait() == 5
    elsewhere = {"R2_BUCKET_NAME": faulty.s3.new_bucket().bucket}
    faulty.mend()
    refused = faulty.run("remote", "cancel", client.job, environment=home | elsewhere)
    assert refused.returncode == 5
    assert f"is staged in the bucket {faulty.settings.bucket}" in refused.stderr
    assert faulty.run("remote", "cancel", client.job, environment=home).returncode == 0
    faulty.check_clean(tmp_path)
    assert "no remote job is unfinished" in faulty.run("remote", "status", environment=home).stdout


def test_a_job_of_which_objects_are_gone_is_not_sent_again_beside_its_running_calls(
    forked_place: ForkedPlace, tmp_path: Path
) -> None:
    faulty = forked_place
    client = killed_with_two_calls(faulty, tmp_path)
    before = set(faulty.accepted())
    with Storage(faulty.direct) as storage:
        storage.delete(f"temp/upscale_{client.job}/plan")
    follower = faulty.resume(tmp_path, client.job)
    follower.until(lambda event: event.get("message", "").endswith(" begins"))
    assert before & set(faulty.accepted()) == set()
    faulty.proxy.release()
    faulty.check_done(follower, tmp_path)


def test_status_knows_jobs_while_modal_is_out_of_reach(forked_place: ForkedPlace, tmp_path: Path) -> None:
    client = killed_with_two_calls(forked_place, tmp_path)
    forked_place.modal.pause()
    told = forked_place.run("remote", "status", environment=forked_place.home(tmp_path))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"{client.job}  ")
    assert told.stdout.count("not known: Modal cannot be reached at 127.0.0.1") == 2
    forked_place.mend()
    assert forked_place.run("remote", "cancel", client.job, environment=forked_place.home(tmp_path)).returncode == 0
    forked_place.check_clean(tmp_path)


def test_clean_cancels_the_calls_of_a_job_before_it_is_forgotten(faulty: FaultyPlace, tmp_path: Path) -> None:
    client = killed_with_two_calls(faulty, tmp_path)
    home = faulty.home(tmp_path)
    told = faulty.run("remote", "clean", "--older-than", "0s", environment=home | {"MODAL_TOKEN_SECRET": "as-wrong"})
    assert told.returncode == 5
    assert f"{client.job}: 2 calls may still run" in told.stderr
    assert ": running" in faulty.run("remote", "status", environment=home).stdout, (
        "whoever cancels has to know the calls"
    )
    assert faulty.left() == []
    done = faulty.run("remote", "cancel", client.job, environment=home)
    assert done.returncode == 0, done.stderr
    # While containers can do nothing: by itself no call would end.
    faulty.check_clean(tmp_path)
    faulty.proxy.cut()
    faulty.mend()
    again = faulty.upscale(tmp_path)
    faulty.check_done(again, tmp_path)


def test_clean_of_a_job_whose_calls_run_leaves_none_running(faulty: FaultyPlace, tmp_path: Path) -> None:
    killed_with_two_calls(faulty, tmp_path)
    done = faulty.run("remote", "clean", "--older-than", "0s", environment=faulty.home(tmp_path))
    assert done.returncode == 0, done.stderr
    faulty.check_clean(tmp_path)
    assert "no remote job is unfinished" in faulty.run("remote", "status", environment=faulty.home(tmp_path)).stdout


def test_status_tells_of_a_job_that_was_killed_while_sending(faulty: FaultyPlace, tmp_path: Path) -> None:
    faulty.proxy.hold(SENDS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(1)
    client.kill()
    faulty.proxy.cut()
    faulty.mend()
    home = faulty.home(tmp_path)
    lines = faulty.run("remote", "status", environment=home).stdout.splitlines()
    assert lines[0].startswith(f"{client.job}  ")
    assert "no call was started" in lines[1]
    assert f"`keyscale remote resume {client.job}` goes on" in lines[1]
    assert faulty.run("remote", "cancel", client.job, environment=home).returncode == 0
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGTERM, "connect"),
        (signal.SIGINT, "stage"),
        (signal.SIGTERM, "upscale"),
        (signal.SIGHUP, "upscale"),
        (signal.SIGINT, "fetch"),
        (signal.SIGTERM, "join"),
    ],
)
def test_an_interrupted_client_cancels_and_removes_everything_and_can_be_resumed(
    faulty: FaultyPlace,
    tmp_path: Path,
    number: signal.Signals,
    phase: str,
) -> None:
    if phase == "stage":
        faulty.proxy.answer(SENDS_SOURCE, 503, "SlowDown")
    # Without a pause, connecting may be over before there is anything to tell of it.
    pauses = {"connect": DELETES, "upscale": READS_SOURCE, "fetch": FETCHES_CHUNK}
    if phase in pauses:
        faulty.proxy.hold(pauses[phase])
    client = faulty.upscale(tmp_path)
    if phase in {"upscale", "fetch"}:
        faulty.proxy.wait_held(2 if phase == "upscale" else 1)
    elif phase == "connect":
        client.until_phase(phase)
        faulty.proxy.release()
    elif phase == "stage":
        client.until(lambda event: event.get("phase") == "stage")
    else:
        client.until_phase(phase)
    began = time.monotonic()
    client.signal(number)
    assert client.end() == 128 + number
    assert time.monotonic() - began < 20
    client.check()
    assert client.last["exit_code"] == 128 + number
    faulty.mend()
    faulty.check_clean(tmp_path)
    if phase == "connect":
        follower = faulty.upscale(tmp_path)
    else:
        follower = faulty.resume(tmp_path, client.job)
    faulty.check_done(follower, tmp_path)


def test_calls_that_were_cancelled_are_told_as_such_where_the_clean_up_failed(
    faulty: FaultyPlace, tmp_path: Path
) -> None:
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path, first="import keyscale.engine.remote.leftovers as e; e.HASTY_PATIENCE_S = 2")
    faulty.proxy.wait_held(2)
    faulty.wait_started(tmp_path, 2)
    faulty.proxy.answer(DELETES, 503, "SlowDown")
    client.signal(signal.SIGINT)
    assert client.end() == 130
    client.check()
    assert f"`keyscale remote cancel {client.job}` removes it" in client.notes
    faulty.mend()
    status = faulty.run("remote", "status", environment=faulty.home(tmp_path))
    assert status.stdout.count(": cancelled\n") == 2, status
    done = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert done.returncode == 0, done.stderr
    faulty.check_clean(tmp_path)


def test_a_second_interrupt_ends_at_once_and_what_it_leaves_is_swept(faulty: FaultyPlace, tmp_path: Path) -> None:
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    faulty.proxy.hold(DELETES)
    client.signal(signal.SIGINT)
    faulty.proxy.wait_held(3)
    began = time.monotonic()
    client.signal(signal.SIGINT)
    assert client.end() == 130
    assert time.monotonic() - began < 2
    client.check()
    faulty.proxy.cut()  # what was held died with the client
    faulty.proxy.release()
    assert faulty.left() != []
    swept = faulty.run("remote", "clean", "--older-than", "0s", environment=faulty.home(tmp_path))
    assert swept.returncode == 0, swept.stderr
    assert client.job in swept.stdout
    faulty.check_clean(tmp_path)


def test_a_client_whose_job_is_cancelled_by_another_command_ends_and_says_so(
    faulty: FaultyPlace,
    tmp_path: Path,
) -> None:
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    done = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert done.returncode == 0, done.stderr
    assert client.end() == 5
    client.check()
    assert "cancelled by another command" in client.last["message"]
    faulty.mend()
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize("way", ["cancel", "clean"])
@pytest.mark.parametrize("dies", [False, True], ids=["it ends", "it is killed"])
def test_a_job_that_is_cancelled_while_its_client_sends_stays_known_until_that_has_ended(
    faulty: FaultyPlace, tmp_path: Path, way: str, dies: bool
) -> None:
    release = faulty.proxy.hold(SENDS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(1)
    home = faulty.home(tmp_path)
    words = ("cancel", client.job) if way == "cancel" else ("clean", "--older-than", "0s")
    done = faulty.run("remote", *words, environment=home)
    assert done.returncode == 0, done.stderr
    assert ("a client still works on it" in done.stdout) is (way == "cancel")
    assert client.job in faulty.run("remote", "status", environment=home).stdout
    if dies:
        client.kill()
        release()
        time.sleep(0.3)  # what had been sent arrives
        assert client.job in faulty.run("remote", "status", environment=home).stdout
        assert faulty.run("remote", "cancel", client.job, environment=home).returncode == 0
    else:
        release()
        assert client.end() == 5
        client.check()
        assert "cancelled by another command" in client.last["message"]
    assert faulty.left() == []
    assert "no remote job is unfinished" in faulty.run("remote", "status", environment=home).stdout
    faulty.check_clean(tmp_path)


def test_a_call_that_is_just_being_started_is_cancelled_too_where_another_command_ends_the_job(
    faulty: FaultyPlace,
    tmp_path: Path,
) -> None:
    faulty.proxy.hold(READS_SOURCE)
    faulty.modal.set_latency("FunctionMap", 8, of="answer")
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)  # both are known to Modal, and the first of them alone to the client
    faulty.wait_started(tmp_path, 1)
    done = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert done.returncode == 0, done.stderr
    faulty.modal.set_latency("FunctionMap", 0, of="answer")
    assert client.end() == 5
    assert "cancelled by another command" in client.last["message"]
    # While its container can do nothing: by itself the call would not end.
    faulty.check_clean(tmp_path)
