"""`--remote` from end to end: the real command line, Modal's real client and containers, a real S3 server."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.clips import make_clip, sound_of
from support.numbered import leftovers, planes, shown, times, write_video
from support.remote_place import Place, events_of
from support.s3.proxy import Proxy
from support.s3.rclone import RcloneServer
from support.s3.server import via

from keyscale.engine.files import sha256_file
from keyscale.engine.plan.transfer import load_plan
from keyscale.engine.storage.bucket import Storage
from keyscale.engine.workspace.folder import beneath

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COURT, CAMERA = EXAMPLES / "court.mp4", EXAMPLES / "court.json"
PHASES = ["connect", "prepare", "stage", "upscale", "join", "verify", "publish"]
SIGNED = (b"X-Amz-Signature", b"X-Amz-Credential", b"AWSAccessKeyId")
BEAT_S = 2.5
"""Events come every 2 s; half a second for a machine that does much else."""
LINKS = 7
"""That a call is given: source, plan, record to read and to write, chunk, and to take both back."""


@dataclass
class Seen:
    """What was to be seen of a run while it went on."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Content of files in state and work folders, by path and number."""
    modes: dict[str, int] = field(default_factory=dict)
    containers: dict[int, dict[str, str]] = field(default_factory=dict)
    """Environment of every container's process, by its id."""
    arguments: list[str] = field(default_factory=list)


@contextmanager
def watched(place: Place, *, pid: int | None = None) -> Iterator[Seen]:
    """Keep what state files, work folders and containers held while the block ran."""
    seen, over = Seen(), threading.Event()

    def look() -> None:
        for root in (place.state, *place.folder.glob(".*.keyscale")):
            for path in beneath(root):
                try:
                    if path.is_file() and path.suffix not in {".mp4", ".part", ".nut"}:
                        seen.files[f"{path}#{path.stat().st_mtime_ns}"] = path.read_bytes()
                        seen.modes[path.name] = path.stat().st_mode & 0o777
                except OSError:
                    continue  # it went away meanwhile
        for task in place.modal.running_tasks():
            if task.pid is None:
                continue
            try:
                process = psutil.Process(task.pid)
                if task.function.startswith("Engine"):
                    seen.containers[task.pid] = process.environ()
                seen.arguments += process.cmdline()
            except psutil.Error:
                continue

    def watch() -> None:
        while not over.wait(0.05):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@contextmanager
def stored(place: Place) -> Iterator[dict[str, bytes]]:
    """Keep what was in the bucket while the block ran, by key."""
    assert isinstance(place.s3, RcloneServer)
    bucket = place.s3.data / place.settings.bucket
    found: dict[str, bytes] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for path in beneath(bucket):
                with contextlib.suppress(OSError):  # it went away meanwhile
                    if path.is_file():
                        found[path.relative_to(bucket).as_posix()] = path.read_bytes()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def answers(place: Place, since: int = 0) -> list[dict[str, Any]]:
    """What the calls of `upscale_chunk` returned, in the order in which they ended."""
    found = []
    for call in place.modal.calls("FunctionPutOutputs")[since:]:
        for output in call.request.outputs:
            content = pickle.loads(output.result.data) if output.result.data else None  # noqa: S301 - of our own
            if isinstance(content, dict) and "index" in content:
                found.append(content)
    return found


def tasks(place: Place) -> list[dict[str, Any]]:
    """The task that each chunk's call was given."""
    found = []
    for call in place.modal.calls("FunctionMap"):
        text = re.search(rb'\{"schema":\d+,"version".*?"excerpt_begins":[^}]*\}', call.request.SerializeToString())
        if text is not None:
            found.append(json.loads(text[0]))
    return found


def test_the_result_is_the_local_one_made_by_several_containers(deployed: Place) -> None:
    flags = (COURT, CAMERA, "--size", "540x960", "--chunk-seconds", "0.5", "--device", "cpu")
    here = deployed.run("upscale", *flags, "-o", "here.mp4", "--local")
    assert here.returncode == 0, here.stderr
    there = deployed.run("upscale", *flags, "-o", "there.mp4", "--remote", "--progress", "json")
    assert there.returncode == 0, there.stderr + deployed.logs()
    assert deployed.left() == []
    local, remote = deployed.folder / "here.mp4", deployed.folder / "there.mp4"
    assert planes(remote) == planes(local)
    assert len(planes(remote)) == 138
    assert times(remote) == times(local)
    (start, sound, rate), (start_here, sound_here, rate_here) = sound_of(remote), sound_of(local)
    assert (start, rate) == (start_here, rate_here)
    assert np.array_equal(sound, sound_here)
    events = events_of(there.stdout)
    assert [event["event"] for event in events].count("done") == 1
    done = events[-1]
    assert (done["event"], done["frames"], done["runtime"]) == ("done", 138, "openvino")
    assert done["device"] == "remote cpu int8"
    # Three may run; on a busy machine the last one comes up after the others are through.
    assert 2 <= done["remote"]["containers"] <= 3
    assert done["remote"]["gpus"] == ["cpu"]
    assert done["remote"]["seconds"] > 0
    assert done["remote"]["dollars"] > 0
    assert done["remote"]["local_frames"] == 0
    assert len({answer["container"] for answer in answers(deployed)}) == done["remote"]["containers"]
    assert sorted(answer["index"] for answer in answers(deployed)) == list(range(9))
    assert not list(deployed.folder.glob(".*.keyscale"))
    assert not list(deployed.state.rglob("*.json"))


@pytest.mark.slow
def test_four_clips_at_once_share_deployment_and_bucket(deployed: Place) -> None:
    folder = deployed.folder / "four"
    folder.mkdir()
    for number in range(4):
        make_clip(folder / f"clip{number}.mp4", frames=60 + number, rate=30, first_number=1000 * number)
    running = [
        deployed.start(
            *("upscale", folder / f"clip{number}.mp4", "-o", folder / f"result{number}.mp4", "--remote"),
            *("--model", "lanczos", "--size", "64x64", "--crf", "8", "--chunk-seconds", "1", "--no-audio"),
        )
        for number in range(4)
    ]
    outputs = [process.communicate(timeout=200) for process in running]
    assert [process.returncode for process in running] == [0] * 4, outputs
    for number in range(4):
        assert shown(folder / f"result{number}.mp4") == [1000 * number + n for n in range(60 + number)]
    assert leftovers(folder, *(f"{kind}{n}.mp4" for kind in ("clip", "result") for n in range(4))) == []
    assert deployed.left() == []
    assert not list(deployed.state.rglob("*.json"))


def test_the_events_are_those_of_a_local_run_with_two_phases_more(deployed: Place) -> None:
    clip = make_clip(deployed.folder / "spoken.mp4", frames=90, rate=30)
    process = deployed.start(
        *("upscale", clip, "--model", "lanczos", "--size", "64x64", "--chunk-seconds", "1", "--remote"),
        *("-o", f"r2://{deployed.settings.bucket}/results/told.mp4", "--overwrite", "--progress", "json"),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    arrived = [(time.monotonic(), json.loads(line)) for line in process.stdout]
    complaints = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert (process.wait(30), complaints) == (0, "")
    events = [event for _, event in arrived]
    assert (events[-1]["device"], events[-1]["runtime"]) == ("none", "none"), "no network ran"
    assert events[-1]["remote"]["gpus"] == ["cpu"]
    assert [event["event"] for event in events if event["event"] in {"done", "error"}] == ["done"]
    assert events[-1]["event"] == "done"
    progress = [event for event in events if event["event"] == "progress"]
    order = [PHASES.index(event["phase"]) for event in progress]
    assert order == sorted(order)
    assert {"connect", "stage", "upscale", "publish"} <= {event["phase"] for event in progress}
    for before, after in pairwise(progress):
        if before["phase"] == after["phase"]:
            assert before["frame"] <= after["frame"]
    for event in progress:
        assert event["unit"] == ("frames" if event["phase"] in {"upscale", "join", "verify"} else "bytes")
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(arrived)]
    assert max(gaps) < BEAT_S
    with Storage(deployed.settings) as storage:
        head = storage.head("results/told.mp4")
        storage.delete("results/told.mp4")
    local = deployed.folder / "told.mp4"
    assert head is not None
    assert (head.content_type, head.size, head.sha256) == ("video/mp4", local.stat().st_size, sha256_file(local))
    assert deployed.left() == []


# What is staged, and what of it is read


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of noise, 30 MB, with a keyframe each second."""
    random = np.random.default_rng(4)
    pictures = (random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(300))
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    return write_video(path, pictures, rate=25, options={"crf": "4", "g": "25"})


SAMPLED = ("--model", "lanczos", "--size", "160x120", "--fps", "source", "--preset", "ultrafast", "--no-audio")


@pytest.mark.slow
def test_a_container_reads_the_part_of_a_long_source_that_its_chunk_shows(deployed: Place, noise: Path) -> None:
    size = noise.stat().st_size
    assert size > 24e6
    flags = ("upscale", noise, *SAMPLED, "--chunk-seconds", "2")
    before = len(deployed.modal.calls("FunctionPutOutputs"))
    done = deployed.run(*flags, "-o", "long.mp4", "--remote")
    assert done.returncode == 0, done.stderr
    assert tasks(deployed)[-1] | {"source_size": size, "excerpt_begins": None} == tasks(deployed)[-1]
    read = [answer["bytes_read"] for answer in answers(deployed, before)]
    assert len(read) == 6
    assert 0.1 * size < max(read) < 0.4 * size
    assert deployed.run(*flags, "-o", "long-here.mp4", "--local").returncode == 0
    assert planes(deployed.folder / "long.mp4") == planes(deployed.folder / "long-here.mp4")


@pytest.mark.slow
def test_a_source_in_many_parts_goes_through_a_strict_server(swift_place: Place, noise: Path) -> None:
    swift_place.deploy(containers=2)
    flags = ("upscale", noise, *SAMPLED, "--chunk-seconds", "4")
    done = swift_place.run(*flags, "-o", "strict.mp4", "--remote")
    assert done.returncode == 0, done.stderr
    assert swift_place.left() == []
    assert swift_place.run(*flags, "-o", "strict-here.mp4", "--local").returncode == 0
    assert planes(swift_place.folder / "strict.mp4") == planes(swift_place.folder / "strict-here.mp4")


def test_of_a_large_source_only_the_trimmed_part_is_sent(deployed: Place, noise: Path) -> None:
    flags = ("upscale", noise, *SAMPLED, "--start", "7.3", "--end", "9.1", "--chunk-seconds", "1")
    done = deployed.run(*flags, "-o", "part.mp4", "--remote")
    assert done.returncode == 0, done.stderr
    task = tasks(deployed)[-1]
    assert task["excerpt_begins"] is not None
    assert task["source_size"] < 0.3 * noise.stat().st_size
    assert deployed.left() == []
    assert deployed.run(*flags, "-o", "part-here.mp4", "--local").returncode == 0
    found = planes(deployed.folder / "part.mp4")
    assert len(found) == 45
    assert found == planes(deployed.folder / "part-here.mp4")


@pytest.mark.slow
def test_where_no_exact_part_can_be_had_all_is_sent_and_that_is_said(deployed: Place) -> None:
    random = np.random.default_rng(5)
    pictures = (random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(150))
    lossless = deployed.folder / "lossless.avi"
    write_video(lossless, pictures, rate=25, codec="huffyuv", pixel_format="yuv422p")
    size = lossless.stat().st_size
    assert size > 17e6
    flags = ("upscale", lossless, *SAMPLED, "--start", "1", "--end", "2", "--remote", "--progress", "json")
    done = deployed.run(*flags, "-o", "all.mp4")
    assert done.returncode == 0, done.stderr
    assert tasks(deployed)[-1] | {"source_size": size, "excerpt_begins": None} == tasks(deployed)[-1]
    notes = [event["message"] for event in events_of(done.stdout) if event["event"] == "note"]
    assert f"all of {lossless} is sent: the part that is needed cannot be cut out of it exactly" in notes


# Secrets


def everything(place: Place, seen: Seen, *outputs: str) -> dict[str, bytes]:
    """All that a run left a trace in, by what it is; the links of a call's own arguments are checked and left out."""
    found = {f"output {number}": text.encode() for number, text in enumerate(outputs)}
    found |= seen.files | {"arguments of processes": "\n".join(seen.arguments).encode()}
    found |= {f"log of {task}": place.modal.logs(task).encode() for task in place.modal.task_ids()}
    for number, call in enumerate(place.modal.calls()):
        content: bytes = call.request.SerializeToString()
        if call.rpc == "FunctionMap" and b"X-Amz-Signature" in content:
            assert content.count(b"X-Amz-Signature") == LINKS
            content = re.sub(rb"https?://[^\s\"]*?X-Amz-Signature=[0-9a-f]{64}", b"", content)
        found[f"request {number}, {call.rpc}"] = content
    return found


def leaks(place: Place, found: dict[str, bytes]) -> list[str]:
    tokens = [place.modal.environment()[name].encode() for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")]
    secrets = (place.settings.access_key.encode(), place.settings.secret_key.encode(), *tokens, *SIGNED)
    assert all(len(secret) > 7 for secret in secrets), "shorter ones are found by chance"
    return [f"{name}: {secret!r}" for name, content in found.items() for secret in secrets if secret in content]


def test_keys_and_links_are_nowhere_but_in_the_calls_own_arguments(deployed: Place) -> None:
    clip = make_clip(deployed.folder / "secretive.mp4", frames=90, rate=30)
    flags = ("upscale", clip, "--model", "lanczos", "--size", "64x64", "--chunk-seconds", "1", "--remote", "-vv")
    with watched(deployed) as seen:
        done = deployed.run(*flags, "-o", "plain.mp4")
        told = deployed.run(*flags, "-o", "said.mp4", "--progress", "json")
    assert (done.returncode, told.returncode) == (0, 0), done.stderr + told.stderr
    found = everything(deployed, seen, done.stdout, done.stderr, told.stdout, told.stderr)
    assert leaks(deployed, found) == []
    assert "90 frames in" in done.stderr
    assert "sampled without a network" in done.stderr
    assert "at list prices" in done.stderr
    # Not for want of looking.
    assert any("remote.json" in name for name in seen.files)
    assert any(name.startswith(str(deployed.state)) for name in seen.files)
    assert seen.modes["remote.json"] == 0o600
    assert {mode for name, mode in seen.modes.items() if name.startswith("20")} == {0o600}
    assert any(b"FunctionMap" in name.encode() and b"source_size" in content for name, content in found.items())


def test_a_failing_run_tells_no_secret_either(deployed: Place) -> None:
    clip = make_clip(deployed.folder / "failing.mp4", frames=60, rate=30)
    flags = ("upscale", clip, "--model", "lanczos", "--size", "64x64", "--chunk-seconds", "1", "--remote", "-vv")
    with Proxy(deployed.settings.endpoint) as proxy, watched(deployed) as seen:
        through = {"R2_ENDPOINT_URL": via(deployed.settings, proxy.endpoint).endpoint}
        # Storage quotes what it was sent, as S3 does when a signature does not match.
        proxy.answer(
            lambda line: line.startswith("PUT") and "/chunks/" in line,
            403,
            "SignatureDoesNotMatch",
            message="X-Amz-Credential=AKIA, X-Amz-Signature=0badcafe",
        )
        done = deployed.run(*flags, "-o", "never.mp4", "--progress", "json", environment=through)
    assert done.returncode == 5, done.stderr
    assert "the key in R2_ACCESS_KEY_ID is not accepted (SignatureDoesNotMatch)" in done.stderr
    assert "Traceback" in done.stderr
    assert [event["event"] for event in events_of(done.stdout)].count("error") == 1
    assert events_of(done.stdout)[-1]["event"] == "error"
    assert leaks(deployed, everything(deployed, seen, done.stdout, done.stderr)) == []
    assert not (deployed.folder / "never.mp4").exists()
    assert deployed.left() == []


def test_containers_have_no_keys_and_hear_nothing_of_the_clients_folders(deployed: Place) -> None:
    home = deployed.folder / "a folder of my own"
    home.mkdir()
    clip = make_clip(home / "private.mp4", frames=60, rate=30)
    asked = len(deployed.modal.calls())
    with watched(deployed) as seen, stored(deployed) as objects:
        done = deployed.run(
            *("upscale", clip, "--model", "lanczos", "--size", "64x64", "--chunk-seconds", "1"),
            *("-o", home / "public.mp4", "--remote"),
        )
    assert done.returncode == 0, done.stderr
    assert seen.containers
    for environment in seen.containers.values():
        assert environment["MODAL_IS_REMOTE"] == "1"
        assert environment["R2_SECRET"] == "r2-credentials"  # noqa: S105 - its name
        assert [name for name in environment if name.startswith(("R2_", "AWS_", "MODAL_TOKEN"))] == ["R2_SECRET"]
        assert deployed.settings.secret_key not in environment.values()
    told = b"".join(call.request.SerializeToString() for call in deployed.modal.calls()[asked:])
    assert b"plan_sha256" in told
    plans = [content for key, content in objects.items() if key.endswith("/plan")]
    assert plans
    plan = load_plan(plans[0])
    assert (plan.job.source, plan.job.output, plan.info.path) == ("private.mp4", "public.mp4", "private.mp4")
    for content in (told, repr(plan).encode(), *objects.values()):
        assert b"a folder of my own" not in content
        assert str(deployed.folder).encode() not in content
