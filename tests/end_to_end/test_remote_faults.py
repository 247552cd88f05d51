"""What `--remote` does when storage, network, containers or the deployment fail under it."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from grpclib import Status
from support.clips import clicks_track, make_clip, number_of, numbers_in
from support.faulty_place import (
    CHUNKS,
    DELETES,
    FETCHES_CHUNK,
    FRAMES,
    READS_SOURCE,
    SENDS_SOURCE,
    SIZE,
    STORES_CHUNK,
    Asked,
    FaultyPlace,
    ForkedPlace,
)
from support.numbered import grey

import keyscale
from keyscale.engine.remote.prices import IDLE_S, cost

IMPATIENT = (
    "import keyscale.engine.remote.leftovers as e; import keyscale.engine.remote.run as r; "
    "r.STORAGE_PATIENCE_S = e.CLEAN_PATIENCE_S = e.HASTY_PATIENCE_S = 2; r.PATIENCE_S = 3"
)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        pytest.param({"R2_ENDPOINT_URL": "http://127.0.0.1:9"}, "R2_ENDPOINT_URL", id="nobody listens"),
        pytest.param({"R2_SECRET_ACCESS_KEY": "wrong"}, "R2_SECRET_ACCESS_KEY", id="wrong key"),
        pytest.param({"R2_BUCKET_NAME": "no-such-bucket"}, "R2_BUCKET_NAME", id="wrong bucket"),
    ],
)
def test_storage_that_cannot_be_used_is_told_within_seconds(
    faulty: FaultyPlace,
    tmp_path: Path,
    variables: dict[str, str],
    named: str,
) -> None:
    before = len(faulty.modal.calls("FunctionMap"))
    client = faulty.upscale(tmp_path, **variables)
    began = time.monotonic()
    assert client.end() == 5
    assert time.monotonic() - began < 20
    client.check()
    assert named in client.last["remedy"]
    assert len(faulty.modal.calls("FunctionMap")) == before
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        pytest.param(SENDS_SOURCE, 503, "SlowDown", id="the client cannot send the source"),
        pytest.param(READS_SOURCE, 403, "AccessDenied", id="containers cannot read it"),
        pytest.param(READS_SOURCE, 403, "ExpiredRequest", id="links expire"),
        pytest.param(STORES_CHUNK, 507, "InsufficientStorage", id="containers cannot store a chunk"),
        pytest.param(FETCHES_CHUNK, 503, "SlowDown", id="the client cannot fetch a chunk"),
    ],
)
def test_storage_that_fails_at_one_step_ends_the_job_and_nothing_is_left(
    faulty: FaultyPlace,
    tmp_path: Path,
    request_: Asked,
    status: int,
    code: str,
) -> None:
    before = faulty.spawned()
    faulty.proxy.answer(request_, status, code)
    client = faulty.upscale(tmp_path, first=IMPATIENT)
    assert client.end() == 5
    client.check()
    assert client.last["message"]
    assert client.last["remedy"]
    assert faulty.spawned() - before <= (3 * 4 if code == "ExpiredRequest" else 3)
    assert client.last["message"].count("(chunk") <= 1
    if code == "AccessDenied":
        assert "the key in R2_ACCESS_KEY_ID has no rights for that" in client.last["message"]
    faulty.mend()
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize(
    ("request_", "pattern", "put"),
    [
        pytest.param("HEAD ", rb"\r\nETag: [^\r]*", b"", id="none for HEAD"),
        pytest.param("HEAD ", rb'\r\nETag: "', b'\r\nETag: "other', id="another for HEAD"),
        pytest.param("GET ", rb"\r\nETag: ", b"\r\nETag: W/", id="weak for GET"),
        pytest.param("", rb"\r\nETag: [^\r]*", b"", id="none at all"),
    ],
)
def test_etags_as_gateways_change_them_cost_nothing(
    faulty: FaultyPlace, tmp_path: Path, request_: str, pattern: bytes, put: bytes
) -> None:
    faulty.proxy.change(lambda line: line.startswith(request_), pattern, put)
    faulty.check_done(faulty.upscale(tmp_path), tmp_path)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_dead_proxy_is_told_within_seconds_and_nothing_is_to_be_resumed(
    faulty: FaultyPlace, tmp_path: Path, variable: str
) -> None:
    dead = {"NO_PROXY": "", "no_proxy": "", variable: "http://me:secret@127.0.0.1:9"}
    installed = "import importlib.util as u; find = u.find_spec; u.find_spec = lambda name: name or find(name)"
    began = time.monotonic()
    client = faulty.upscale(tmp_path, first=installed, **dead)
    assert client.end() == 5
    assert time.monotonic() - began < 15
    client.check()
    assert f"the proxy 127.0.0.1:9 that {variable} names" in client.last["message"]
    assert f"Correct or unset {variable}, or name 127.0.0.1 in NO_PROXY." in client.last["remedy"]
    assert "resume" not in json.dumps(client.last)
    assert "secret" not in f"{client.events}{client.errors}"
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize("way", ["cancel", "resume"])
def test_storage_that_fails_at_the_clean_up_costs_a_warning_and_not_the_result(
    faulty: FaultyPlace,
    tmp_path: Path,
    way: str,
) -> None:
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path, first=IMPATIENT)
    faulty.proxy.wait_held(2)
    faulty.proxy.answer(DELETES, 503, "SlowDown")
    faulty.proxy.release()
    assert client.end() == 0, client.errors
    client.check()
    assert [number for _, number in numbers_in(tmp_path / "out.mp4")] == list(range(FRAMES))
    assert "may be left in storage" in client.notes
    assert f"`keyscale remote cancel {client.job}`" in client.notes
    faulty.mend()
    assert faulty.left() != []
    home = faulty.home(tmp_path)
    assert "the file is finished, only clean-up is left" in faulty.run("remote", "status", environment=home).stdout
    done = faulty.run("remote", way, client.job, environment=home)
    assert done.returncode == 0, done.stderr
    assert faulty.left() == []
    assert "no remote job is unfinished" in faulty.run("remote", "status", environment=home).stdout
    assert [number for _, number in numbers_in(tmp_path / "out.mp4")] == list(range(FRAMES))


def test_storage_that_is_gone_for_a_while_at_the_clean_up_is_waited_for(faulty: FaultyPlace, tmp_path: Path) -> None:
    let_read = faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    faulty.proxy.hold(DELETES)
    let_read()
    faulty.proxy.wait_held(1)
    faulty.proxy.refuse()
    faulty.proxy.release()
    time.sleep(faulty.outage_s)
    faulty.proxy.accept()
    faulty.check_done(client, tmp_path)


def test_notes_that_cannot_be_kept_are_told_before_anything_is_sent(faulty: FaultyPlace, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    before = len(faulty.proxy.requests)
    client = faulty.upscale(tmp_path)
    assert client.end() == 4
    client.check()
    assert str(tmp_path / "state") in client.last["message"]
    assert len(faulty.proxy.requests) == before


def test_notes_that_cannot_be_removed_are_told_without_a_traceback(faulty: FaultyPlace, tmp_path: Path) -> None:
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    faulty.wait_started(tmp_path, 2)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("no folder")
    faulty.proxy.release()
    assert client.end() == 4
    client.check()
    assert f"remote job {client.job} stays noted as unfinished" in client.notes
    faulty.mend()
    faulty.check_clean(tmp_path)


def test_a_container_that_dies_in_the_middle_of_a_chunk_costs_only_time(faulty: FaultyPlace, tmp_path: Path) -> None:
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    first, second = faulty.modal.running_tasks("Engine.*")
    faulty.modal.kill_container(first.id, "crashed")
    faulty.modal.kill_container(second.id, "preempted")
    faulty.proxy.release()
    faulty.check_done(client, tmp_path)


def test_a_source_that_is_damaged_in_storage_is_told_once_and_not_tried_again(
    faulty: FaultyPlace,
    tmp_path: Path,
) -> None:
    before = faulty.spawned()
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    faulty.damage("source.mkv", bytes((tmp_path / "source.mkv").stat().st_size))
    faulty.proxy.release()
    # Another object than the one that was staged: not one byte of it is decoded.
    assert client.end() == 5
    client.check()
    assert faulty.spawned() - before == 2
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize("content", [b"not what was made", None], ids=["another size", "the same size"])
def test_a_chunk_that_is_damaged_in_storage_is_made_again(
    faulty: FaultyPlace, tmp_path: Path, content: bytes | None
) -> None:
    before = faulty.spawned()
    faulty.proxy.hold(FETCHES_CHUNK)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held()
    faulty.damage(faulty.proxy.held[0].split()[1].rpartition("/")[2], content)
    faulty.proxy.release()
    faulty.check_done(client, tmp_path)
    assert "damaged" in client.notes
    assert faulty.spawned() - before == 4


def test_a_chunk_that_is_damaged_every_time_ends_the_job(faulty: FaultyPlace, tmp_path: Path) -> None:
    before = faulty.spawned()
    release = faulty.proxy.hold(FETCHES_CHUNK)
    client = faulty.upscale(tmp_path, "--chunk-seconds", "60")
    for attempt in range(4):
        faulty.proxy.wait_held()
        faulty.damage(".mp4", b"not what was made")
        # The next one is held before this one goes on: it comes soon.
        let_this = release
        if attempt < 3:
            release = faulty.proxy.hold(FETCHES_CHUNK)
        let_this()
    assert client.end() == 5
    client.check()
    assert "failed 4 times" in client.last["message"]
    assert "damaged" in client.last["message"]
    assert faulty.spawned() - before == 4
    faulty.check_clean(tmp_path)


def test_a_chunk_that_takes_too_long_is_made_in_parts(faulty: FaultyPlace, tmp_path: Path) -> None:
    scale = faulty.slow_scale
    large = SIZE[0] * scale
    faulty.deploy(containers=2, KEYSCALE_TIMEOUT="6")
    try:
        client = faulty.upscale(tmp_path, "--chunk-seconds", "60", "--size", f"{large}x{large}")
        assert client.end() == 0, client.errors
        client.check()
    finally:
        faulty.deploy(containers=2)
    assert "took too long and are made in" in client.notes
    # The function gives up by itself, and says how far it came.
    assert "of 60 frames were made in" in client.notes
    assert [number_of(picture[::scale, ::scale]) for picture in grey(tmp_path / "out.mp4")] == list(range(FRAMES))
    assert faulty.left() == []


@pytest.mark.parametrize(
    ("most", "code", "calls", "told"),
    [
        pytest.param("1", 5, 2, "no frame was made in all the time of 2 calls", id="it is tried twice"),
        pytest.param("0.0028", 2, 1, "for calls that were given up", id="or less often where that costs too much"),
    ],
)
def test_a_container_that_makes_no_frame_in_all_its_time_does_not_cost_it_for_ever(
    faulty: FaultyPlace, tmp_path: Path, most: str, code: int, calls: int, told: str
) -> None:
    faulty.deploy(containers=2, KEYSCALE_TIMEOUT="6")
    before = faulty.spawned()
    faulty.proxy.hold(READS_SOURCE)
    try:
        # Nothing was measured by this client: the job is estimated at 31 s of a container, $0.0026.
        own = {"KEYSCALE_CACHE_DIR": str(tmp_path / "cache")}
        client = faulty.upscale(tmp_path, "--chunk-seconds", "60", "--max-cost", most, **own)
        assert client.end() == code
    finally:
        faulty.deploy(containers=2)
    client.check()
    assert told in client.last["message"]
    assert "KEYSCALE_TIMEOUT" in client.last["remedy"] if code == 5 else "--max-cost" in client.last["remedy"]
    assert faulty.spawned() - before == calls
    faulty.mend()
    faulty.check_clean(tmp_path)


SOON = "import keyscale.engine.remote.waiting as w; w.TOLD_S = 0.3, 60.0, 300.0"


def test_calls_that_wait_for_a_container_are_told_as_queued_and_the_job_goes_on_with_the_first(
    forked_place: ForkedPlace, tmp_path: Path
) -> None:
    forked_place.fake.starve()
    client = forked_place.upscale(tmp_path, first=SOON)
    client.until(lambda event: "wait for a container" in event.get("message", ""))
    told = forked_place.run("remote", "status", environment=forked_place.home(tmp_path)).stdout
    assert len(re.findall(r"frames \d+ to \d+ \(chunk \d\): queued for 0:\d\d\n", told)) == 2
    forked_place.proxy.hold(READS_SOURCE)
    forked_place.fake.starve(scarce=False)
    client.until(lambda event: "calls run, after" in event.get("message", ""))
    told = forked_place.run("remote", "status", environment=forked_place.home(tmp_path)).stdout
    assert len(re.findall(r"frames \d+ to \d+ \(chunk \d\): running, started 0:\d\d ago\n", told)) == 2
    forked_place.proxy.release()
    forked_place.check_done(client, tmp_path)
    wait = r"2 calls wait for a container, for \d+ s so far; --max-queue ends the job after 30 min"
    assert re.search(wait, client.notes)


def test_a_job_whose_calls_wait_longer_than_it_may_ends_and_can_be_gone_on_with(
    forked_place: ForkedPlace, tmp_path: Path
) -> None:
    forked_place.fake.starve()
    client = forked_place.upscale(tmp_path, "--max-queue", "1")
    assert client.end() == 5
    client.check()
    assert "2 calls waited 1 s for a container, and none came" in client.last["message"]
    assert "give a longer --max-queue" in client.last["remedy"]
    assert forked_place.accepted() == []
    forked_place.check_clean(tmp_path)
    forked_place.fake.starve(scarce=False)
    forked_place.check_done(forked_place.upscale(tmp_path), tmp_path)


def test_calls_that_lost_their_containers_wait_like_those_that_never_had_one(
    forked_place: ForkedPlace, tmp_path: Path
) -> None:
    forked_place.proxy.hold(READS_SOURCE)
    client = forked_place.upscale(tmp_path, "--max-queue", "1", first=SOON)
    forked_place.proxy.wait_held(2)
    time.sleep(1.5)  # in which they work: that alone ends nothing
    assert client.runs
    forked_place.fake.starve()
    for task in forked_place.modal.running_tasks():
        forked_place.modal.kill_container(task.id, "preempted")
    assert client.end(30) == 5
    client.check()
    assert "2 calls waited 1 s for a container, and none came" in client.last["message"]
    forked_place.mend()
    forked_place.check_clean(tmp_path)


def test_a_call_whose_reports_are_lost_does_not_count_as_queued(forked_place: ForkedPlace, tmp_path: Path) -> None:
    forked_place.proxy.hold(READS_SOURCE)
    deaf = "import keyscale.engine.remote.dispatch as d, time; d.ASK_S = 1; "
    deaf += "d.Calls.news = lambda *_, wait_s: time.sleep(wait_s) or []"
    client = forked_place.upscale(tmp_path, "--max-queue", "2", first=f"{deaf}; {SOON}")
    forked_place.proxy.wait_held(2)
    client.until(lambda event: "calls run, after" in event.get("message", ""))
    time.sleep(2)
    forked_place.proxy.release()
    forked_place.check_done(client, tmp_path)


def test_a_modal_server_that_is_away_for_a_while_is_waited_for(faulty: FaultyPlace, tmp_path: Path) -> None:
    before = faulty.spawned()
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    faulty.wait_started(tmp_path, 2)  # a call whose start was not answered is started again
    faulty.modal.pause(for_s=faulty.outage_s)
    faulty.proxy.release()
    faulty.check_done(client, tmp_path)
    assert faulty.spawned() - before == 3


def test_a_modal_server_that_stays_away_ends_the_job_and_its_calls_can_be_cancelled_later(
    faulty: FaultyPlace,
    tmp_path: Path,
) -> None:
    faulty.proxy.hold(READS_SOURCE)
    client = faulty.upscale(tmp_path, first=IMPATIENT)
    faulty.proxy.wait_held(2)
    faulty.wait_started(tmp_path, 2)
    faulty.modal.pause()
    assert client.end(300) == 5
    client.check()
    assert "Modal" in client.last["message"]
    assert "calls may still run" in client.notes
    faulty.modal.resume()
    cancelled = faulty.run("remote", "cancel", client.job, environment=faulty.home(tmp_path))
    assert cancelled.returncode == 0, cancelled.stderr
    faulty.mend()
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize("status", [Status.RESOURCE_EXHAUSTED, Status.FAILED_PRECONDITION])
@pytest.mark.parametrize("when", ["before anything is sent", "before the first chunk"])
def test_a_workspace_that_may_not_spend_more_is_told_at_once(
    faulty: FaultyPlace, tmp_path: Path, status: Status, when: str
) -> None:
    spent = "Function call failed: workspace billing cycle spend limit reached"
    if when == "before anything is sent":
        faulty.modal.fail_next("FunctionMap", status, 9, spent)
    faulty.proxy.hold(SENDS_SOURCE)
    client = faulty.upscale(tmp_path)
    if when != "before anything is sent":
        faulty.proxy.wait_held()
        faulty.modal.fail_next("FunctionMap", status, 9, spent)
        faulty.proxy.release()
    began = time.monotonic()
    assert client.end() == 5
    assert time.monotonic() - began < 15
    client.check()
    assert spent in client.last["message"]
    assert client.last["remedy"] == "Look at the workspace's billing and its budget, on modal.com under Settings."
    faulty.mend()
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize("when", ["before storage is set up", "before the first chunk", "while chunks are made"])
def test_with_a_local_fallback_missing_chunks_are_made_here_and_that_is_said(
    faulty: FaultyPlace,
    tmp_path: Path,
    when: str,
) -> None:
    lacking = {"R2_BUCKET_NAME": ""} if when == "before storage is set up" else {}
    if when == "while chunks are made":
        faulty.proxy.answer(READS_SOURCE, 403, "AccessDenied")
    elif not lacking:
        faulty.modal.pause()
    client = faulty.upscale(tmp_path, "--remote-fallback", "local", first=IMPATIENT, **lacking)
    faulty.check_done(client, tmp_path)
    assert client.last["remote"]["local_frames"] == FRAMES
    assert "on this machine" in client.notes
    assert ("R2_BUCKET_NAME is not set" in client.notes) is bool(lacking)


def test_an_encoder_that_the_containers_lack_is_told_before_anything_is_sent(
    faulty: FaultyPlace, tmp_path: Path
) -> None:
    before = len(faulty.proxy.requests)
    client = faulty.upscale(tmp_path, "--codec", "h264_nvenc")
    assert client.end() == 4
    client.check()
    assert client.last["error"] == "EncoderError"
    assert "h264_nvenc with --remote: CPUs, where the deployed functions may run" in client.last["message"]
    assert not any("/upscale_" in request for request in faulty.proxy.requests[before:])
    faulty.check_clean(tmp_path)


@pytest.mark.parametrize(
    ("here", "told", "remedy"),
    [
        ("0.0.1", f"a newer keyscale is deployed (version {keyscale.__version__}", "Update keyscale here"),
        ("9.9.9", f"an older keyscale is deployed (version {keyscale.__version__}", "Run `keyscale remote deploy`."),
    ],
)
def test_another_version_that_is_deployed_is_told_before_anything_is_sent(
    faulty: FaultyPlace, tmp_path: Path, here: str, told: str, remedy: str
) -> None:
    before = len(faulty.proxy.requests)
    client = faulty.upscale(tmp_path, first=f"import keyscale; keyscale.__version__ = {here!r}")
    assert client.end() == 5
    client.check()
    assert told in client.last["message"]
    assert remedy in client.last["remedy"]
    assert not any("/upscale_" in request for request in faulty.proxy.requests[before:])
    faulty.check_clean(tmp_path)


def test_an_output_that_is_there_is_told_before_anything_is_asked_of_others(
    faulty: FaultyPlace,
    tmp_path: Path,
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"mine")
    before = len(faulty.proxy.requests)
    client = faulty.upscale(tmp_path)
    assert client.end() == 4
    client.check()
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"
    assert len(faulty.proxy.requests) == before


def test_a_disk_that_is_full_when_a_chunk_comes_ends_the_job_as_a_fault_of_this_machine(
    faulty: FaultyPlace,
    tmp_path: Path,
) -> None:
    # Files here cannot grow beyond this: enough for the notes of a job, too little for a chunk.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    client = faulty.upscale(tmp_path, "--crf", "0", first=limit)
    assert client.end() == 4
    client.check()
    faulty.check_clean(tmp_path)


def test_a_disk_that_is_full_when_a_job_is_noted_ends_it_before_anything_is_sent(
    faulty: FaultyPlace, tmp_path: Path
) -> None:
    before = len(faulty.proxy.requests)
    client = faulty.upscale(tmp_path, first="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))")
    assert client.end() == 4
    client.check()
    assert not list(tmp_path.rglob("*.tmp"))
    assert not any("/upscale_" in request and "PUT" in request for request in faulty.proxy.requests[before:])
    faulty.check_clean(tmp_path)
    assert "no remote job is unfinished" in faulty.run("remote", "status", environment=faulty.home(tmp_path)).stdout


def test_of_two_clients_for_one_output_the_second_is_turned_away(faulty: FaultyPlace, tmp_path: Path) -> None:
    faulty.proxy.hold(READS_SOURCE)
    first = faulty.upscale(tmp_path)
    faulty.proxy.wait_held(2)
    second = faulty.upscale(tmp_path)
    assert second.end() == 4
    second.check()
    assert "another process" in second.last["message"]
    faulty.proxy.release()
    faulty.check_done(first, tmp_path)


@pytest.mark.parametrize("flags", [(), ("--start", "12")])
def test_a_source_whose_sound_outlasts_the_picture_ends_as_a_local_one_does(
    faulty: FaultyPlace, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    sound = clicks_track([1.0, 25.0], seconds=30, sample_rate=48000)
    make_clip(tmp_path / "source.mkv", frames=20, rate=1, size=SIZE, sounds=[sound], audio_codec="flac")
    client = faulty.upscale(tmp_path, *flags)
    assert client.end() == 0, client.errors
    client.check()
    first = int(flags[1]) if flags else 0
    held = [19] * 10
    assert [number for _, number in numbers_in(tmp_path / "out.mp4")] == [*range(first, 20), *held]
    assert faulty.left() == []


def test_a_job_that_takes_longer_than_expected_begins_nothing_above_its_bound_and_can_go_on(
    forked_place: ForkedPlace, tmp_path: Path
) -> None:
    own = {"KEYSCALE_CACHE_DIR": str(tmp_path / "cache")}
    (tmp_path / "first").mkdir()
    forked_place.deploy(containers=1)
    first = forked_place.upscale(tmp_path / "first", **own)
    assert first.end() == 0
    usual = first.last["remote"]
    assert usual["seconds"] >= IDLE_S, "the idle time is paid too"
    # It learned that a chunk takes a tenth of a second; now one takes two. The bound is for one and a half: what the
    # first job cost beside its chunks differs by as much where the machine is busy.
    forked_place.slow_down(0.1)
    begun = forked_place.spawned()
    bound = usual["dollars"] + 1.5 * cost("cpu", 2)
    client = forked_place.upscale(tmp_path, "--max-cost", f"{bound:.6f}", **own)
    assert client.end() == 2
    client.check()
    assert "more than --max-cost" in client.last["message"]
    assert "frames are left" in client.last["message"]
    made = forked_place.spawned() - begun
    assert 1 <= made < CHUNKS
    forked_place.check_clean(tmp_path)
    forked_place.deploy(containers=1)
    again = forked_place.upscale(tmp_path, "--max-cost", "1", **own)
    forked_place.check_done(again, tmp_path)
    assert again.last["resumed_frames"] == made * FRAMES // CHUNKS
    assert forked_place.spawned() - begun == CHUNKS
