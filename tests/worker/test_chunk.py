"""One chunk made from links alone, between objects of a real S3 server; Modal has no part in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from support.clips import make_clip
from support.numbered import planes, shown, small_job
from support.numbered import run as run_here
from support.s3.server import S3Server

from keyscale.engine.errors import DecodeError, DeviceError, InputError, RemoteError
from keyscale.engine.job import Job, ModelChoice, Target
from keyscale.engine.models import ON_ANY_CPU, Execution, choose_execution
from keyscale.engine.models.torch_networks import SRVGGNetCompact
from keyscale.engine.plan.plan import Chunk, Plan
from keyscale.engine.remote.staging import Staging
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.serialization import dumps
from keyscale.engine.storage.bucket import Storage, new_job_id
from keyscale.engine.worker import chunk as chunk_module
from keyscale.engine.worker.chunk import Workshop, make_chunk, may_pass
from keyscale.engine.worker.contract import Task, read_task
from keyscale.engine.worker.links import LinkMissing, LinkRefused, LinkUnreachable, send

FRAMES = 60


def silent(*news: object) -> None:
    """Takes reports of progress."""


def opened() -> closing[Workshop]:
    """A container that has done nothing yet."""
    return closing(Workshop(device="cpu", gpu="cpu", container="ta-1"))


@pytest.fixture
def shop() -> Iterator[Workshop]:
    with opened() as shop:
        yield shop


@dataclasses.dataclass(frozen=True)
class Staged:
    """A job in storage, and what its calls are given."""

    staging: Staging
    plan: Plan
    task: Task
    source_key: str

    @property
    def storage(self) -> Storage:
        return self.staging.storage

    def links(self, chunk: Chunk) -> dict[str, str]:
        return self.staging.links(self.source_key, chunk, checkpoint=self.task.checkpoint is not None)

    def make(self, number: int = 1, workshop: Workshop | None = None, **changed: Any) -> dict[str, Any]:
        """Call `make_chunk` as the deployed function does; `changed` replaces fields of the task."""
        chunk = self.plan.chunks[number]
        task = dataclasses.replace(self.task, **changed)
        with opened() if workshop is None else nullcontext(workshop) as shop:
            return make_chunk(shop, dumps(task), dataclasses.asdict(chunk), self.links(chunk), silent)

    def key(self, number: int, suffix: str) -> str:
        chunk = self.plan.chunks[number]
        return f"{self.staging.prefix}chunks/{chunk.index:05d}-{chunk.start}-{chunk.end}{suffix}"

    def fetch(self, number: int, path: Path) -> Path:
        self.storage.download(self.key(number, ".mp4"), path)
        return path


@pytest.fixture
def storage(rclone: S3Server) -> Iterator[Storage]:
    with Storage(rclone.new_bucket()) as storage:
        yield storage


def stage(
    storage: Storage, job: Job, folder: Path, *, checkpoint: Path | None = None, execution: Execution | None = None
) -> Staged:
    plan = prepare_plan(job, remote=True)
    if plan.model is not None and execution is None:
        execution = choose_execution(plan.model, "cpu", job.compute.precision, on_cpu=ON_ANY_CPU)
    staging = Staging(storage, new_job_id(), ".mp4")
    digest = hashlib.sha256(Path(job.source).read_bytes()).hexdigest()
    task, key, source, data = staging.prepare(plan, execution, checkpoint, folder, digest, lambda: False, silent)
    task = staging.send(key, source, task, data, checkpoint, report=silent, should_stop=lambda: False)
    return Staged(staging, plan, task, key)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", frames=FRAMES, rate=30, size=(64, 48), options={"crf": "8"})


@pytest.fixture
def staged(storage: Storage, clip: Path, tmp_path: Path) -> Staged:
    """Three chunks of twenty frames, sampled without a network."""
    return stage(storage, small_job(clip, tmp_path / "out.mp4", chunk_seconds=0.7), tmp_path)


def test_a_chunk_is_made_of_its_frames_alone_and_stored_as_it_is_answered(staged: Staged, tmp_path: Path) -> None:
    answer = staged.make(1)
    assert (answer["status"], answer["index"], answer["start"], answer["end"]) == ("ok", 1, 20, 40)
    assert (answer["frames"], answer["lost"], answer["inferred"], answer["again"]) == (20, 0, 0, False)
    assert (answer["container"], answer["gpu"], answer["network"]) == ("ta-1", "cpu", "lanczos")
    assert answer["seconds"] > 0
    path = staged.fetch(1, tmp_path / "chunk.mp4")
    assert shown(path) == list(range(20, 40))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == answer["sha256"]
    assert path.stat().st_size == answer["size"]
    assert json.dumps(answer), "plain data"


def test_a_chunk_is_the_one_that_a_local_run_makes(staged: Staged, clip: Path, tmp_path: Path) -> None:
    here = run_here(small_job(clip, tmp_path / "here.mp4", chunk_seconds=0.7))
    found: list[bytes] = []
    for number in range(3):
        staged.make(number)
        found += planes(staged.fetch(number, tmp_path / f"{number}.mp4"))
    assert found == planes(here.path)


def test_another_source_of_the_same_size_is_refused(staged: Staged, storage: Storage) -> None:
    content = bytearray(storage.get(staged.source_key))
    content[-1] ^= 1
    storage.put(staged.source_key, bytes(content))
    assert not staged.staging.is_there(staged.source_key, staged.task)
    answer = staged.make(1)
    assert (answer["status"], answer["error"]) == ("error", "LinkChanged")


def test_a_chunk_that_is_there_is_not_made_again(staged: Staged) -> None:
    first = staged.make(1)
    staged.storage.delete(staged.source_key)
    staged.storage.delete(f"{staged.staging.prefix}plan")
    assert staged.make(1) == first | {"again": True}


@pytest.mark.parametrize("record", [b"", b"not json", b'{"schema": 1}', b"other"])
def test_a_record_that_is_not_of_this_chunk_is_not_believed(staged: Staged, record: bytes) -> None:
    answer = staged.make(1)
    if record == b"other":
        record = json.dumps(answer | {"plan_sha256": "0" * 64}).encode()
    staged.storage.put(staged.key(1, ".json"), record)
    staged.storage.delete(staged.key(1, ".mp4"))
    assert staged.make(1)["again"] is False
    assert staged.storage.head(staged.key(1, ".mp4")) is not None


def test_the_record_is_stored_after_the_chunk(staged: Staged, shop: Workshop) -> None:
    chunk = staged.plan.chunks[1]
    links = staged.links(chunk) | {"chunk": staged.links(chunk)["chunk"] + "0"}
    answer = make_chunk(shop, dumps(staged.task), dataclasses.asdict(chunk), links, silent)
    assert (answer["status"], answer["error"]) == ("error", "LinkRefused")
    assert staged.storage.head(staged.key(1, ".json")) is None


def test_no_answer_quotes_a_link(staged: Staged) -> None:
    chunk = staged.plan.chunks[1]
    for name in ("source", "plan", "record", "record_to", "chunk"):
        links = staged.links(chunk)
        links[name] += "0"
        with opened() as shop:
            answer = make_chunk(shop, dumps(staged.task), dataclasses.asdict(chunk), links, silent)
        assert answer["status"] == "error", name
        assert "X-Amz" not in json.dumps(answer)
        staged.staging.drop(chunk)


# Refused, since it would fail again


def test_a_call_of_another_version_is_refused(staged: Staged) -> None:
    answer = staged.make(version="0.0.1")
    assert (answer["status"], answer["error"], answer["exit_code"]) == ("error", "RemoteError", 5)
    assert "the call is of keyscale 0.0.1" in answer["message"]
    assert "keyscale remote deploy" in answer["remedy"]
    with pytest.raises(RemoteError, match="of another keyscale"):
        read_task('{"schema": 1}')


def test_a_plan_that_is_not_the_one_that_was_sent_is_refused(staged: Staged) -> None:
    answer = staged.make(plan_sha256="0" * 64)
    assert "the plan in storage is not the one that was staged" in answer["message"]


def test_a_source_that_is_no_video_is_refused(staged: Staged) -> None:
    staged.storage.put(staged.source_key, bytes(staged.task.source_size))
    staged = dataclasses.replace(staged, task=dataclasses.replace(staged.task, source_tag=""))
    answer = staged.make()
    assert (answer["status"], answer["error"], answer["exit_code"]) == ("error", "InputError", 3)
    assert staged.storage.head(staged.key(1, ".json")) is None


def test_a_source_that_is_gone_is_refused(staged: Staged) -> None:
    staged.storage.delete(staged.source_key)
    answer = staged.make()
    assert (answer["status"], answer["error"], answer["exit_code"]) == ("error", "LinkMissing", 5)


def test_a_device_that_is_not_this_containers_is_refused(storage: Storage, clip: Path, tmp_path: Path) -> None:
    job = Job(source=str(clip), output=str(tmp_path / "out.mp4"), target=Target(width=128, height=96))
    staged = stage(storage, job, tmp_path, execution=Execution(runtime="torch", precision="fp16", device="cuda"))
    answer = staged.make(0)
    assert answer["status"] == "error"
    assert "the job asks for cuda, the deployed functions run on cpu" in answer["message"]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (LinkUnreachable("the server is away"), True),
        (DeviceError("no GPU"), True),
        (LinkRefused("expired"), False),
        (LinkMissing("gone"), False),
        (InputError("no video"), False),
        (DecodeError("damaged"), False),
    ],
)
def test_what_another_container_may_do_is_raised(error: Any, again: bool) -> None:
    assert may_pass(error) is again


# Where a call's time goes


def test_an_answer_tells_where_its_seconds_went(storage: Storage, clip: Path, tmp_path: Path, shop: Workshop) -> None:
    job = Job(
        source=str(clip), output=str(tmp_path / "out.mp4"), target=Target(width=128, height=96), chunk_seconds=1.0
    )
    staged = stage(storage, job, tmp_path)
    first, second = (staged.make(number, shop) for number in range(2))
    for answer in (first, second):
        stages = answer["stages"]
        assert answer["gpu"] == "cpu"
        assert min(stages[name] for name in ("ready", "making", "network", "cpu", "storing")) > 0
        assert stages["network"] <= stages["making"]
        assert stages["ready"] + stages["making"] + stages["storing"] == pytest.approx(answer["seconds"], abs=0.05)
        assert staged.plan.model is not None
        assert stages["macs"] >= 30 * 64 * 48 * staged.plan.model.macs_per_pixel
    assert first["stages"]["ready"] > second["stages"]["ready"], "the network is loaded once"
    assert second["stages"]["start"] is None


def test_a_container_tells_how_long_it_took_to_start_in_its_first_call_alone(staged: Staged, shop: Workshop) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_module, "process_age", lambda: 12.5)
        first, second = (staged.make(number, shop) for number in range(2))
        assert (first["stages"]["start"], second["stages"]["start"]) == (12.5, None)
        # Restored from a snapshot with the clock of the container that it was taken of.
        patch.setattr(chunk_module, "process_age", lambda: 86400.0)
        assert staged.make(2)["stages"]["start"] is None


def test_a_refusal_tells_its_container(staged: Staged) -> None:
    answer = staged.make(version="0.0.0")
    assert (answer["status"], answer["container"], answer["gpu"]) == ("error", "ta-1", "cpu")


# Networks


def test_what_was_warmed_is_not_loaded_again_and_gives_the_same(
    storage: Storage, clip: Path, tmp_path: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(
        source=str(clip), output=str(tmp_path / "out.mp4"), target=Target(width=128, height=96), chunk_seconds=1.0
    )
    staged = stage(storage, job, tmp_path)
    assert staged.make(0)["status"] == "ok"
    cold = planes(staged.fetch(0, tmp_path / "cold.mp4"))
    storage.delete(staged.key(0, ".json"))
    shop.warm()

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a network is loaded that was warmed")

    monkeypatch.setattr("keyscale.engine.models.open_model", loaded)
    assert staged.make(0, shop)["status"] == "ok"
    assert planes(staged.fetch(0, tmp_path / "warm.mp4")) == cold


def test_a_container_that_cannot_be_warmed_starts_and_says_so(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError("no kernel image is available for execution on the device")

    monkeypatch.setattr("keyscale.engine.models.open_model", fail)
    shop.warm()
    assert caplog.text.count("cannot be warmed up") == 2
    assert "no kernel image" in caplog.text


@pytest.mark.parametrize("model", [ModelChoice(), ModelChoice(look=0.0, strength=0.4)], ids=["usual", "look"])
def test_a_network_is_loaded_once_and_gives_what_it_gives_here(
    storage: Storage, clip: Path, tmp_path: Path, shop: Workshop, model: ModelChoice
) -> None:
    def job(name: str) -> Job:
        return Job(
            source=str(clip),
            output=str(tmp_path / name),
            model=model,
            target=Target(width=128, height=96, rate=Fraction(30)),
            chunk_seconds=1.0,
        )

    staged = stage(storage, job("there.mp4"), tmp_path)
    answers = [staged.make(number, shop) for number in range(2)]
    assert [answer.get("inferred") for answer in answers] == [30, 30], answers
    assert answers[0]["network"] == answers[1]["network"]
    assert staged.plan.model is not None
    assert staged.task.execution is not None
    network = shop.network(staged.plan.model.name, staged.task.execution, None, model.look)
    assert shop.network(staged.plan.model.name, staged.task.execution, None, model.look) is network
    here = run_here(job("here.mp4"))
    found = [frame for number in range(2) for frame in planes(staged.fetch(number, tmp_path / f"{number}.mp4"))]
    assert found == planes(here.path)


def save_onnx(path: Path) -> None:
    """Each pixel repeated twice."""
    given = [onnx.helper.make_tensor_value_info("x", 1, (1, 3, "h", "w"))]
    gives = [onnx.helper.make_tensor_value_info("y", 1, (1, 3, "H", "W"))]
    sizes = onnx.helper.make_tensor("sizes", 1, [4], [1, 1, 2, 2])
    node = onnx.helper.make_node("Resize", ["x", "", "sizes"], ["y"], mode="nearest")
    graph = onnx.helper.make_graph([node], "nearest", given, gives, [sizes])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)


def save_checkpoint(path: Path) -> None:
    torch.manual_seed(1)
    torch.save({"params": SRVGGNetCompact(features=4, blocks=1, scale=2).state_dict()}, path)


@pytest.mark.parametrize(("name", "save"), [("own.pth", save_checkpoint), ("own.onnx", save_onnx)])
def test_a_checkpoint_comes_by_a_link_and_is_checked(
    storage: Storage, clip: Path, tmp_path: Path, shop: Workshop, name: str, save: Callable[[Path], None]
) -> None:
    own = tmp_path / name
    save(own)
    job = Job(
        source=str(clip),
        output=str(tmp_path / "out.mp4"),
        target=Target(width=128, height=96),
        model=ModelChoice(name=str(own)),
        chunk_seconds=0.5,
    )
    staged = stage(storage, job, tmp_path, checkpoint=own)
    own.unlink()
    assert staged.make(0, shop)["inferred"] == 15
    storage.delete(f"{staged.staging.prefix}checkpoint")
    assert staged.make(1, shop)["status"] == "ok", "it is fetched once"
    storage.put(f"{staged.staging.prefix}checkpoint", b"another")
    answer = staged.make(2)
    assert (answer["status"], answer["error"]) == ("error", "ModelError")
    assert "not the one that was staged" in answer["message"]


# Progress


def test_progress_is_reported_and_what_that_raises_ends_the_call(
    staged: Staged, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_module, "REPORT_SECONDS", 0.0)
    chunk = staged.plan.chunks[1]
    told: list[dict[str, Any]] = []

    def tell(job_id: str, news: dict[str, Any]) -> None:
        assert job_id == staged.task.job_id
        told.append(news)

    make_chunk(shop, dumps(staged.task), dataclasses.asdict(chunk), staged.links(chunk), tell)
    assert told
    assert {(news["index"], news["start"]) for news in told} == {(1, 20)}
    frames = [news["frames"] for news in told]
    assert frames == sorted(frames)
    assert frames[-1] <= 20

    class Cancelled(BaseException):
        pass

    def cancel(*_: object) -> None:
        raise Cancelled

    other = staged.plan.chunks[2]
    with pytest.raises(Cancelled):
        make_chunk(shop, dumps(staged.task), dataclasses.asdict(other), staged.links(other), cancel)
    assert staged.storage.head(staged.key(2, ".json")) is None


def test_a_chunk_of_a_job_that_is_removed_before_it_is_stored_is_taken_back(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_late(url: str, content: Path | bytes, *, name: str) -> None:
        if name.startswith("chunk"):  # whose call was cancelled; its container does not know it yet
            staged.storage.delete_prefix(staged.staging.prefix)
        send(url, content, name=name)

    monkeypatch.setattr(chunk_module, "send", send_late)
    answer = staged.make(1)
    assert (answer["status"], answer["message"]) == ("error", "the job was removed from storage")
    assert list(staged.storage.list(staged.staging.prefix)) == []
