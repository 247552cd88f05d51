"""`process_framing_ai`, called as existing editors call it: from another process, by its name on Modal."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.clips import clicks_track, make_clip, numbers_in, sound_of
from support.fake_modal import use_fake
from support.faulty_place import ForkedPlace
from support.numbered import planes, shown, small_job, times
from support.numbered import run as run_here
from support.remote_place import Place

from keyscale.engine import framing_ai
from keyscale.engine.framing_ai import FramingRequest, process
from keyscale.engine.job import Encoding
from keyscale.engine.remote import modal_client
from keyscale.engine.storage.bucket import Storage

pytestmark = pytest.mark.processes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CAMERA: dict[str, Any] = json.loads((EXAMPLES / "court.json").read_text())
WHOLE = [{"time": 0, "x": 0, "y": 0, "width": 64, "height": 48}]
SMALL = {"output_width": 64, "output_height": 48, "keyframes": WHOLE}

CLIENT = """
import json, sys, modal
function = modal.Function.from_name("keyscale", "process_framing_ai")
for arguments in json.load(sys.stdin):
    try:
        print(json.dumps(list(function.remote_gen(**arguments))), flush=True)
    except Exception as error:
        print(json.dumps([{"raised": repr(error)}]), flush=True)
"""

CASES: dict[str, dict[str, Any]] = {
    "as it is called": {
        "input_key": "in/court.mp4",
        "output_key": "out/court.mp4",
        "keyframes": CAMERA["keyframes"],
        "source_start_time": 0.0,
        "source_end_time": 0.6,
    },
    "a part": {**SMALL, "output_key": "out/part.mp4", "source_start_time": 1.0, "source_end_time": 2.0},
    "without sound": {**SMALL, "output_key": "out/silent.mp4", "include_audio": False, "source_end_time": 0.5},
    "slowed down": {
        **SMALL,
        "output_key": "out/slow.mp4",
        "segment_data": {"trim_start": 1, "trim_end": 2, "segments": [{"start": 1, "end": 2, "speed": 0.5}]},
    },
    "turned": {**SMALL, "output_key": "out/turned.mp4", "rotation": 7.5, "source_end_time": 0.5},
    "another rate": {**SMALL, "output_key": "out/rate.mp4", "fps": 29.97, "source_end_time": 1.0},
    "numbers as JSON has them": {
        **SMALL,
        "output_key": "out/json.mp4",
        "output_width": 64.0,
        "rotation": None,
        "source_end_time": 0.5,
    },
    "no such video": {**SMALL, "input_key": "in/absent.mp4", "output_key": "out/x.mp4"},
    "no video": {**SMALL, "input_key": "in/words.mp4", "output_key": "out/x.mp4"},
    "bad keyframe": {**SMALL, "keyframes": [{"time": 0, "x": "left"}], "output_key": "out/x.mp4"},
    "keyframes of another kind": {**SMALL, "keyframes": ["left", None], "output_key": "out/x.mp4"},
    "no keyframes": {**SMALL, "keyframes": [], "output_key": "out/x.mp4"},
    "odd size": {**SMALL, "output_width": 811, "output_key": "out/x.mp4"},
    "size of another kind": {**SMALL, "output_width": "wide", "output_key": "out/x.mp4"},
    "a size that is not whole": {**SMALL, "output_height": 64.5, "output_key": "out/x.mp4"},
    "a rotation as text": {**SMALL, "rotation": "90", "output_key": "out/x.mp4"},
    "no rate": {**SMALL, "fps": None, "output_key": "out/x.mp4"},
    "a rate that is none": {**SMALL, "fps": 1000, "output_key": "out/x.mp4"},
    "user of another kind": {**SMALL, "user_id": 7, "output_key": "out/x.mp4"},
    "keyframes that are no list": {**SMALL, "keyframes": None, "output_key": "out/x.mp4"},
    "segments that are no dict": {**SMALL, "segment_data": "slow", "output_key": "out/x.mp4"},
    "fan_out that is neither": {**SMALL, "fan_out": "yes", "output_key": "out/x.mp4"},
    "sound that is neither": {**SMALL, "include_audio": "yes", "output_key": "out/x.mp4"},
    "time of another kind": {**SMALL, "source_start_time": "0:01", "output_key": "out/x.mp4"},
    "another user's folder": {**SMALL, "input_key": "../other/in/numbers.mp4", "output_key": "out/x.mp4"},
    "out of the folder": {**SMALL, "output_key": "out/../../x.mp4"},
    "a user with a slash": {**SMALL, "user_id": "a/b", "output_key": "out/x.mp4"},
    "a user above": {**SMALL, "user_id": "..", "output_key": "out/x.mp4"},
    "no user": {**SMALL, "user_id": "", "output_key": "out/x.mp4"},
    "a folder": {**SMALL, "output_key": "out/x/"},
    "an empty part": {**SMALL, "output_key": "out//x.mp4"},
    "a line break": {**SMALL, "output_key": "out/x\n.mp4"},
    "a key that is too long": {**SMALL, "output_key": f"{'x' * 1020}.mp4"},
    "no container": {**SMALL, "output_key": "out/x.txt"},
    "times that end before they begin": {
        **SMALL,
        "output_key": "out/x.mp4",
        "source_start_time": 2,
        "source_end_time": 1,
    },
    "a time before the start": {**SMALL, "output_key": "out/x.mp4", "source_start_time": -1},
}


def arguments(case: str) -> dict[str, Any]:
    return {"job_id": f"job-{case.replace(' ', '-')}", "user_id": "ann", "input_key": "in/numbers.mp4"} | CASES[case]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sound = clicks_track([0.5, 1.5, 2.5], seconds=3, sample_rate=48000)
    path = tmp_path_factory.mktemp("numbers") / "numbers.mp4"
    return make_clip(path, frames=90, rate=30, size=(64, 48), sounds=[sound], options={"crf": "8"})


@pytest.fixture(scope="module")
def items(deployed: Place, numbers: Path) -> dict[str, list[dict[str, Any]]]:
    """What each case yielded, all of them asked for by one client."""
    with Storage(deployed.settings) as storage:
        storage.upload(EXAMPLES / "court.mp4", "ann/in/court.mp4")
        storage.upload(numbers, "ann/in/numbers.mp4")
        storage.upload(numbers, "other/in/numbers.mp4")
        storage.put("ann/in/words.mp4", b"These are words. " * 100)
        for key in ("ann/out/part.mp4", "ann/out/x.mp4"):
            # As a container leaves them that is killed while it stores its result.
            bucket = {"Bucket": deployed.settings.bucket, "Key": key}
            upload = storage.client.create_multipart_upload(**bucket)["UploadId"]
            storage.client.upload_part(**bucket, UploadId=upload, PartNumber=1, Body=b"half")
        assert sum(key.endswith("(upload)") for key in deployed.left()) == 2
    client = {k: v for k, v in deployed.environment().items() if not k.startswith("R2_")}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps([arguments(case) for case in CASES]),
        env=client,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr + deployed.logs()
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


def result(place: Place, key: str, folder: Path) -> Path:
    path = folder / Path(key).name
    with Storage(place.settings) as storage:
        storage.download(key, path)
    return path


SUCCESSES = [
    "as it is called",
    "a part",
    "without sound",
    "slowed down",
    "turned",
    "another rate",
    "numbers as JSON has them",
]


@pytest.mark.parametrize("case", SUCCESSES)
def test_progress_has_its_keys_never_falls_and_the_last_item_says_what_came_of_it(
    items: dict[str, list[dict[str, Any]]], case: str
) -> None:
    first, *middle, last = items[case]
    assert first["call_id"].startswith("fc-")
    assert {key: first[key] for key in ("progress", "phase", "current", "total")} == {
        "progress": 0, "phase": "start", "current": 0, "total": 0,
    }  # fmt: skip
    assert middle
    for item in middle:
        assert set(item) == {"progress", "phase", "message", "current", "total"}
        assert (type(item["progress"]), type(item["phase"]), type(item["message"])) == (int, str, str)
        assert 0 <= item["progress"] <= 100
    percents = [item["progress"] for item in middle]
    assert percents == sorted(percents)
    assert percents[-1] == 99
    phases = list(dict.fromkeys(item["phase"] for item in middle))
    assert phases == [p for p in ("fetch", "prepare", "upscale", "join", "verify", "publish") if p in phases]
    assert {"fetch", "upscale", "publish"} <= set(phases)
    assert set(last) == {"status", "output_key", "frames_processed"}
    assert (last["status"], last["output_key"]) == ("success", CASES[case]["output_key"])


def test_by_default_the_result_has_810x1440_at_30_a_second_and_the_sound(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
    tmp_path: Path,
) -> None:
    assert items["as it is called"][-1]["frames_processed"] == 18
    path = result(deployed, "ann/out/court.mp4", tmp_path)
    with av.open(path) as container:
        (video,), (audio,) = container.streams.video, container.streams.audio
        assert (video.width, video.height, video.average_rate, video.frames) == (810, 1440, Fraction(30), 18)
        assert audio.duration is not None
        assert audio.time_base is not None
        assert float(audio.duration * audio.time_base) == pytest.approx(0.6, abs=0.05)
    with Storage(deployed.settings) as storage:
        head = storage.head("ann/out/court.mp4")
    assert head is not None
    assert (head.content_type, head.size) == ("video/mp4", path.stat().st_size)


def test_start_and_end_times_choose_the_part(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
    tmp_path: Path,
) -> None:
    path = result(deployed, "ann/out/part.mp4", tmp_path)
    assert shown(path) == list(range(30, 60))
    _, sound, rate = sound_of(path)
    assert np.abs(sound[0]).argmax() / rate == pytest.approx(0.5, abs=0.03)


def test_sound_can_be_left_out(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
    tmp_path: Path,
) -> None:
    with av.open(result(deployed, "ann/out/silent.mp4", tmp_path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    with av.open(result(deployed, "ann/out/part.mp4", tmp_path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_segments_change_the_speed(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
    tmp_path: Path,
) -> None:
    path = result(deployed, "ann/out/slow.mp4", tmp_path)
    assert shown(path) == [30 + n // 2 for n in range(60)]
    _, sound, rate = sound_of(path)
    assert sound.shape[1] / rate == pytest.approx(2.0, abs=0.05)


def test_rotation_is_that_of_the_keyframes_file(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
    numbers: Path,
    tmp_path: Path,
) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps({"keyframes": WHOLE, "rotation": 7.5}))
    job = small_job(
        numbers, tmp_path / "here.mp4", keyframes=str(camera), end=0.5, rate=Fraction(30), encoding=Encoding()
    )
    here = run_here(job)
    there = result(deployed, "ann/out/turned.mp4", tmp_path)
    assert planes(there) == planes(here.path)
    straight = result(deployed, "ann/out/part.mp4", tmp_path)
    assert planes(straight)[0] != planes(there)[0]


def test_a_rate_of_29_97_is_the_broadcast_one(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
    tmp_path: Path,
) -> None:
    found = times(result(deployed, "ann/out/rate.mp4", tmp_path))
    assert found[1] - found[0] == Fraction(1001, 30000)


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("no such video", "ann/in/absent.mp4"),
        ("no video", "in/words.mp4 is not a video"),
        ("bad keyframe", "keyframes: keyframe 0: field 'x' is 'left'"),
        ("keyframes of another kind", "keyframes: keyframe 0 is 'left'"),
        ("no keyframes", "keyframes: the list of keyframes is empty"),
        ("odd size", "811 is odd"),
        ("size of another kind", "output_width is 'wide', it has to be a whole number"),
        ("a size that is not whole", "output_height is 64.5, it has to be a whole number"),
        ("a rotation as text", "rotation is '90', it has to be a number, or None"),
        ("no rate", "fps is None, it has to be a number"),
        ("a rate that is none", "fps 1000 is out of range"),
        ("user of another kind", "user_id is 7, it has to be a text"),
        ("keyframes that are no list", "keyframes is None, it has to be a list of keyframes"),
        ("segments that are no dict", "segment_data is 'slow', it has to be a dict, or None"),
        ("fan_out that is neither", "fan_out is 'yes', it has to be True or False"),
        ("sound that is neither", "include_audio is 'yes', it has to be True or False"),
        ("time of another kind", "source_start_time is '0:01', it has to be a number of seconds, or None"),
        ("another user's folder", "not a key of a user's folder"),
        ("out of the folder", "not a key of a user's folder"),
        ("a user with a slash", "not a key of a user's folder"),
        ("a user above", "not a key of a user's folder"),
        ("no user", "not a key of a user's folder"),
        ("a folder", "output_key 'ann/out/x/' names a folder, not an object"),
        ("an empty part", "has an empty part"),
        ("a line break", "has control characters"),
        ("a key that is too long", "has a key of more than 1024 bytes"),
        ("no container", "ends in '.txt'"),
        ("times that end before they begin", "source_end_time 1 is not after source_start_time 2"),
        ("a time before the start", "source_start_time -1.0 is out of range"),
    ],
)
def test_what_goes_wrong_is_the_last_item_and_nothing_else(
    items: dict[str, list[dict[str, Any]]], case: str, text: str
) -> None:
    assert items[case][0]["call_id"].startswith("fc-")
    last = items[case][-1]
    assert set(last) == {"status", "error"}
    assert last["status"] == "error"
    assert text in last["error"]
    assert "Traceback" not in last["error"]
    assert "/tmp" not in last["error"], "the container's own folders say nothing to an editor"  # noqa: S108


@pytest.mark.parametrize("case", [case for case in CASES if case not in {*SUCCESSES, "no such video", "no video"}])
def test_what_is_wrong_with_the_request_is_told_before_anything_is_downloaded(
    items: dict[str, list[dict[str, Any]]], case: str
) -> None:
    assert [item.get("phase") for item in items[case]] == ["start", None]


@pytest.mark.loopback
def test_storage_that_is_down_is_told_soon(numbers: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {
        "R2_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "R2_ACCESS_KEY_ID": "me",
        "R2_SECRET_ACCESS_KEY": "word",
        "R2_BUCKET_NAME": "videos",
    }
    began = time.monotonic()
    request = FramingRequest(**arguments("a part"))
    told = list(process(request, environment, device="cpu"))
    assert time.monotonic() - began < 25
    assert [item["status"] for item in told] == ["error"]
    assert f"127.0.0.1:{port}" in told[0]["error"]


def test_nothing_is_written_where_something_went_wrong(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
) -> None:
    inputs = {"ann/in/court.mp4", "ann/in/numbers.mp4", "ann/in/words.mp4", "other/in/numbers.mp4"}
    assert set(deployed.left()) - inputs == {f"ann/{CASES[case]['output_key']}" for case in SUCCESSES}


def test_what_a_killed_call_had_begun_to_store_is_taken_back_by_the_next_one_even_if_it_fails(
    items: dict[str, list[dict[str, Any]]], deployed: Place
) -> None:
    assert items["a part"][-1]["status"] == "success"
    assert items["no such video"][-1]["status"] == "error"
    assert [key for key in deployed.left() if key.endswith("(upload)")] == []


def test_the_function_that_can_be_spawned_reports_to_a_queue(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
) -> None:
    code = """
import json, sys, modal
function = modal.Function.from_name("keyscale", "process_framing_ai_job")
arguments = json.load(sys.stdin)
with modal.Queue.ephemeral() as queue:
    call = function.spawn(**arguments, queue=queue)
    last = call.get(timeout=100)
    print(json.dumps([last, queue.get_many(1000, block=False, partition=arguments["job_id"])]))
"""
    given = arguments("a part") | {"output_key": "out/spawned.mp4"}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(given), env=deployed.environment(),
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + deployed.logs()
    last, told = json.loads(done.stdout)
    assert last == {"status": "success", "output_key": "out/spawned.mp4", "frames_processed": 30}
    assert told[0]["call_id"].startswith("fc-")
    assert [item["progress"] for item in told] == sorted(item["progress"] for item in told)
    assert told[-1]["phase"] == "publish"


def test_the_function_that_can_be_spawned_can_be_cancelled(
    items: dict[str, list[dict[str, Any]]],
    deployed: Place,
) -> None:
    code = """
import json, sys, modal
function = modal.Function.from_name("keyscale", "process_framing_ai_job")
arguments = json.load(sys.stdin)
with modal.Queue.ephemeral() as queue:
    call = function.spawn(**arguments, queue=queue)
    while queue.get(partition=arguments["job_id"], timeout=60)["phase"] != "upscale":
        pass
    call.cancel()
    try:
        print("ended by itself", call.get(timeout=60))
    except modal.exception.RemoteError as error:
        print(error)
"""
    given = arguments("as it is called") | {"output_key": "out/cancelled.mp4", "source_end_time": None}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(given), env=deployed.environment(),
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.stdout == "Input was cancelled by user\n", done.stderr
    assert "ann/out/cancelled.mp4" not in deployed.left()


# Long results


LONG: dict[str, Any] = {
    "job_id": "job-long",
    "user_id": "ann",
    "input_key": "in/long.mkv",
    "fps": 1,
    "output_width": 64,
    "output_height": 64,
    "keyframes": [{"time": 0, "x": 0, "y": 0, "width": 64, "height": 64}],
}
"""A minute, a frame a second."""


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clicks = clicks_track([1.0, 40.0], seconds=61, sample_rate=8000)
    path = tmp_path_factory.mktemp("minute") / "long.mkv"
    return make_clip(path, frames=61, rate=1, size=(64, 64), sounds=[clicks])


@pytest.fixture
def spread(
    forked_place: ForkedPlace, minute: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ForkedPlace]:
    """This process as the container that is called: it has the secret, and reaches Modal."""
    for name, value in forked_place.environment(KEYSCALE_STATE_DIR=str(tmp_path / "state")).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(modal_client, "_modal", modal_client._modal)  # put back in the end
    use_fake()
    forked_place.deploy(containers=2)
    with Storage(forked_place.direct) as storage:
        storage.upload(minute, "ann/in/long.mkv")
    yield forked_place
    with Storage(forked_place.direct) as storage:
        for found in list(storage.list("ann/")):
            storage.delete(found.key)


def called(**changed: Any) -> list[dict[str, Any]]:
    return list(process(FramingRequest(**{**LONG, **changed}), os.environ, device="cpu"))


def test_a_long_result_is_made_by_other_containers_with_the_same_progress_and_pictures(
    spread: ForkedPlace, tmp_path: Path
) -> None:
    before = spread.spawned()
    here = called(output_key="out/here.mp4", fan_out=False)
    assert spread.spawned() == before
    there = called(output_key="out/there.mp4")
    assert spread.spawned() > before + 2
    assert here[-1] == {"status": "success", "output_key": "out/here.mp4", "frames_processed": 61}
    assert there[-1] == {**here[-1], "output_key": "out/there.mp4"}
    for items in (here, there):
        assert all(set(item) == {"progress", "phase", "message", "current", "total"} for item in items[:-1])
        assert [item["progress"] for item in items[:-1]] == sorted(item["progress"] for item in items[:-1])
    assert list(dict.fromkeys(item["phase"] for item in there[:-1])) == list(
        dict.fromkeys(item["phase"] for item in here[:-1])
    )
    one, other = (result(spread, f"ann/out/{name}.mp4", tmp_path) for name in ("here", "there"))
    assert numbers_in(one) == numbers_in(other)
    assert [number for _, number in numbers_in(other)] == list(range(61))
    assert np.array_equal(sound_of(one)[1], sound_of(other)[1])
    assert sorted(spread.left()) == ["ann/in/long.mkv", "ann/out/here.mp4", "ann/out/there.mp4"]


def test_a_result_of_less_than_a_minute_is_made_in_one_container(spread: ForkedPlace) -> None:
    before = spread.spawned()
    assert called(output_key="out/short.mp4", source_end_time=59.0, include_audio=False)[-1]["frames_processed"] == 59
    assert spread.spawned() == before


def test_where_other_containers_are_out_of_reach_a_long_result_is_made_in_this_one(spread: ForkedPlace) -> None:
    before = spread.spawned()
    spread.modal.pause()
    assert called(output_key="out/alone.mp4", include_audio=False)[-1]["frames_processed"] == 61
    assert spread.spawned() == before


def test_where_no_other_container_comes_soon_a_long_result_is_made_in_this_one(
    spread: ForkedPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing_ai, "QUEUE_S", 1.0)
    spread.fake.starve()
    assert called(output_key="out/alone.mp4", include_audio=False)[-1]["frames_processed"] == 61
    assert spread.accepted() == []


def test_whoever_leaves_a_long_job_leaves_no_call_running(spread: ForkedPlace) -> None:
    spread.slow_down(0.2)
    with closing(process(FramingRequest(**LONG, output_key="out/left.mp4"), os.environ, device="cpu")) as items:
        next(item for item in items if spread.accepted())
    assert spread.accepted() == []
    assert spread.left() == ["ann/in/long.mkv"]


@pytest.mark.slow
def test_a_long_result_is_spread_over_modals_own_containers(deployed: Place, minute: Path, tmp_path: Path) -> None:
    with Storage(deployed.settings) as storage:
        storage.upload(minute, "ann/in/long.mkv")
    before = len(deployed.modal.calls("FunctionMap"))
    client = {k: v for k, v in deployed.environment().items() if not k.startswith("R2_")}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], input=json.dumps([{**LONG, "output_key": "out/long.mp4"}]), env=client,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + deployed.logs()
    items = json.loads(done.stdout)
    assert items[-1] == {"status": "success", "output_key": "out/long.mp4", "frames_processed": 61}, deployed.logs()
    assert len(deployed.modal.calls("FunctionMap")) - before > 3, deployed.logs()
    made = result(deployed, "ann/out/long.mp4", tmp_path)
    assert [number for _, number in numbers_in(made)] == list(range(61))
