"""GPUs of a batch: each worker has one, a lost one costs a process and not the clip. They are simulated."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.clips import make_clip, numbers_in
from support.numbered import small_job

from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.events import BatchDone, BatchEvent, ClipEvent, ClipStatus
from keyscale.engine.batch.messages import Hello
from keyscale.engine.batch.pool import WorkerPool, WorkerProcess, cpu_workers
from keyscale.engine.batch.supervisor import BatchOptions, run_batch
from keyscale.engine.events import Failed, Note
from keyscale.engine.job import Compute, ModelChoice

FOUR = ("cuda:0", "cuda:1", "cuda:2", "cuda:3")


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> WorkerPool:
    """A pool whose processes are not started."""
    monkeypatch.setattr(WorkerProcess, "start", lambda *_, **__: None)
    monkeypatch.setattr(WorkerProcess, "exit_reason", lambda _: "by signal SIGKILL")
    return WorkerPool(jobs=None, remote=False, device="auto")


def fill(pool: WorkerPool, gpus: tuple[str, ...]) -> list[str | None]:
    """Start as many workers as there are to be, each with a clip; their GPUs."""
    list(pool.free(99))
    if not pool.workers[0].ready:
        pool.greeted(pool.workers[0], Hello(gpus=gpus))
    for number, worker in enumerate(pool.free(99)):
        if worker.running:
            break
        worker.running.add(number)
    return [worker.gpu for worker in pool.workers]


@pytest.mark.parametrize("dead", [(0,), (2,), (3,), (1, 2), (0, 3), (0, 1, 2)])
def test_a_worker_that_follows_a_dead_one_takes_its_gpu(pool: WorkerPool, dead: tuple[int, ...]) -> None:
    assert sorted(map(str, fill(pool, FOUR))) == list(FOUR)
    for worker in [pool.workers[n] for n in dead]:
        pool.remove(worker)
    assert sorted(map(str, fill(pool, FOUR))) == list(FOUR)


def test_the_process_that_plans_ahead_does_not_answer_for_the_one_that_looks(pool: WorkerPool) -> None:
    list(pool.free(9))
    scout = pool.free_scout(9)
    assert scout is not None
    pool.greeted(scout, Hello(gpus=()))
    assert sorted(map(str, fill(pool, FOUR))) == list(FOUR)


def test_more_workers_than_gpus_are_spread_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerProcess, "start", lambda *_, **__: None)
    gpus = fill(WorkerPool(jobs=5, remote=False, device="cuda"), ("cuda:0", "cuda:2"))
    assert sorted(map(str, gpus)) == ["cuda:0"] * 3 + ["cuda:2"] * 2


@pytest.mark.parametrize(
    ("device", "found", "size"),
    [
        ("cuda:1", None, 1),
        ("mps", None, 1),
        ("auto", ("mps",), 1),
        ("auto", ("cuda",), 1),
        ("cuda", ("cuda:0", "cuda:1"), 2),
        ("auto", (), None),
        ("cpu", None, None),
    ],
)
def test_there_is_one_worker_for_each_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, found: tuple[str, ...] | None, size: int | None
) -> None:
    monkeypatch.setattr(WorkerProcess, "start", lambda *_, **__: None)
    monkeypatch.setattr("keyscale.engine.batch.pool.usable_cores", lambda: 16)
    pool = WorkerPool(jobs=None, remote=False, device=device)
    if found is not None:
        list(pool.free(1))
        pool.greeted(pool.workers[0], Hello(gpus=found))
    assert pool.size == (cpu_workers(16) if size is None else size)


def clips(folder: Path, *devices: str) -> list[BatchClip]:
    (folder / "out").mkdir()
    found = []
    for number, device in enumerate(devices):
        source = make_clip(folder / f"{number}.mp4", frames=4, rate=24, first_number=number)
        output = folder / "out" / source.name
        model, compute = ModelChoice(name="keyscale-tiny-x2"), Compute(device=device)
        job = small_job(source, output, size=(128, 128), model=model, compute=compute)
        found.append(BatchClip(name=source.name, video=str(source), keyframes=None, output=str(output), job=job))
    return found


def done_of(clips: list[BatchClip], **options: str) -> tuple[BatchDone, list[tuple[int, str]]]:
    """Make the clips; how it ended, and what was said of each."""
    events: list[BatchEvent] = list(run_batch(clips, BatchOptions(jobs=2, **options), threading.Event()))  # type: ignore[arg-type]
    last = events[-1]
    assert isinstance(last, BatchDone)
    said = [(e.index, e.of.message) for e in events if isinstance(e, ClipEvent) and isinstance(e.of, Note | Failed)]
    return last, said


@pytest.mark.processes
def test_clips_go_to_all_gpus_and_those_that_name_one_to_that(tmp_path: Path, gpu_processes: Path) -> None:
    work = clips(tmp_path, "auto", "cuda", "cuda:1")
    last, said = done_of(work)
    assert [clip.status for clip in last.report.clips] == [ClipStatus.DONE] * 3, said
    used = {index: message for index, message in said if message.startswith("device")}
    assert "cuda:1 (GPU 1), torch fp16" in used[2]
    assert {message.partition("(")[2][:5] for message in (used[0], used[1])} == {"GPU 0", "GPU 1"}, said


@pytest.mark.processes
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lost_gpu_ends_the_process_and_the_clip_is_tried_once_more(
    tmp_path: Path, gpu_processes: Path, times: int
) -> None:
    gpu_processes.write_text(str(times))
    work = clips(tmp_path, "cuda")
    last, said = done_of(work, device="cuda:0")
    clip = last.report.clips[0]
    assert sum("illegal memory access" in message and "tried again" in message for _, message in said) == 1
    if times == 1:
        assert clip.status is ClipStatus.DONE
        assert len(numbers_in(Path(work[0].output))) == 4
    else:
        assert clip.status is ClipStatus.FAILED
        assert clip.error is not None
        assert (clip.error.error, clip.error.exit_code) == ("DeviceLost", 4)
        assert not Path(work[0].output).exists()
