"""Many clips in one run: each is done, skipped or failed on its own, whatever happens to the others or to a worker."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import psutil
import pytest
from support.clips import make_clip, numbers_in
from support.numbered import leftovers, run, small_job
from support.reports import read_report

from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.events import BatchDone, BatchEvent, BatchProgress, ClipEvent, ClipReport, ClipStatus, Report
from keyscale.engine.batch.process import LOOK
from keyscale.engine.batch.supervisor import BatchOptions, run_batch
from keyscale.engine.errors import InputError
from keyscale.engine.events import Phase, Progress
from keyscale.engine.job import Job
from keyscale.engine.workspace.fingerprint import read_stamp
from keyscale.engine.workspace.folder import WorkFolder, work_folder_of

pytestmark = pytest.mark.processes

ONE = BatchOptions(jobs=1, device="cpu")
TWO = BatchOptions(jobs=2, device="cpu")
SILENCE_S = 3.0
"""Longest time between two events: the contract's 2 s, and what a busy machine adds."""
LONG = 2400
"""Frames of a clip that takes a few seconds, in 25 chunks."""


def job_for(source: Path, output: Path, **more: Any) -> Job:
    return replace(small_job(source, output, **({"chunk_seconds": 1.0} | more)), update=True)


def batch_clip(source: Path, output: Path, **more: Any) -> BatchClip:
    job = job_for(source, output, **more)
    return BatchClip(name=source.name, video=str(source), keyframes=None, output=str(output), job=job)


def overwriting(clips: Sequence[BatchClip]) -> list[BatchClip]:
    return [replace(clip, job=replace(clip.job, overwrite=True)) for clip in clips if clip.job is not None]


@pytest.fixture
def clips(tmp_path: Path) -> list[BatchClip]:
    """Three short clips."""
    (tmp_path / "out").mkdir(exist_ok=True)
    sources = [make_clip(tmp_path / f"{name}.mp4", frames=36, rate=24, first_number=n) for n, name in enumerate("abc")]
    return [batch_clip(source, tmp_path / "out" / source.name) for source in sources]


@pytest.fixture
def long_clip(tmp_path: Path) -> BatchClip:
    """One that is worked on for a few seconds."""
    (tmp_path / "out").mkdir(exist_ok=True)
    source = make_clip(tmp_path / "long.mp4", frames=LONG, rate=24)
    return batch_clip(source, tmp_path / "out" / "long.mp4", chunk_seconds=4.0)


def processes() -> list[psutil.Process]:
    """Those that batches of this process have started; the suite's servers are its children too."""
    return [child for child in psutil.Process().children() if "keyscale.engine.batch.process" in words_of(child)]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing where it has ended and nobody asked how yet."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def workers() -> list[psutil.Process]:
    """The processes that make clips, and not the one that plans ahead."""
    return [child for child in processes() if "scout" not in words_of(child)]


class Told:
    """What a batch told, checked for what holds of every batch."""

    def __init__(self, events: Iterator[BatchEvent], on_event: Callable[[BatchEvent], None] | None = None) -> None:
        self.events: list[BatchEvent] = []
        times = [time.monotonic()]
        for event in events:
            times.append(time.monotonic())
            self.events.append(event)
            if on_event is not None:
                on_event(event)
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < SILENCE_S
        frames = [event.frame for event in self.events if isinstance(event, BatchProgress)]
        assert frames == sorted(frames)
        assert [type(event) for event in self.events].count(BatchDone) == 1
        assert processes() == []

    @property
    def report(self) -> Report:
        last = self.events[-1]
        assert isinstance(last, BatchDone)
        return last.report

    @property
    def ends(self) -> dict[str, str]:
        return {clip.clip: clip.status.value for clip in self.report.clips}

    def clip(self, name: str) -> ClipReport:
        return next(clip for clip in self.report.clips if clip.clip == name)


def batch(clips: Sequence[BatchClip], options: BatchOptions = ONE, stop: StopFlag | None = None, **more: Any) -> Told:
    return Told(run_batch(clips, options, stop or StopFlag(), more=more.get("more")), more.get("on_event"))


def is_upscaling(event: BatchEvent, name: str, *, frame: int = 1) -> bool:
    return (
        isinstance(event, ClipEvent)
        and event.clip == name
        and isinstance(event.of, Progress)
        and event.of.phase is Phase.UPSCALE
        and event.of.frame >= frame
    )


@pytest.mark.parametrize("options", [ONE, TWO], ids=["one worker", "two workers"])
def test_every_clip_is_made_as_it_is_alone(clips: list[BatchClip], tmp_path: Path, options: BatchOptions) -> None:
    told = batch(clips, options)
    assert told.ends == {"a.mp4": "done", "b.mp4": "done", "c.mp4": "done"}
    assert told.report.finished
    assert (told.report.done, told.report.skipped, told.report.failed, told.report.stopped) == (3, 0, 0, 0)
    for number, clip in enumerate(clips):
        assert clip.job is not None
        alone = run(replace(clip.job, output=str(tmp_path / f"alone-{number}.mp4")))
        assert numbers_in(Path(clip.output)) == numbers_in(alone.path)
        assert read_stamp(Path(clip.output)) == alone.done.key == told.clip(clip.name).key
    assert leftovers(tmp_path / "out", "a.mp4", "b.mp4", "c.mp4") == []


def test_a_second_run_does_nothing_and_says_so(clips: list[BatchClip]) -> None:
    batch(clips)
    before = [Path(clip.output).stat().st_mtime_ns for clip in clips]
    told = batch(clips)
    assert told.ends == {"a.mp4": "skipped", "b.mp4": "skipped", "c.mp4": "skipped"}
    assert told.report.finished
    assert [Path(clip.output).stat().st_mtime_ns for clip in clips] == before


def test_overwriting_makes_what_is_up_to_date_again(clips: list[BatchClip]) -> None:
    assert set(batch(clips).ends.values()) == {"done"}
    before = [Path(clip.output).stat().st_mtime_ns for clip in clips]
    assert set(batch(overwriting(clips)).ends.values()) == {"done"}
    assert all(Path(clip.output).stat().st_mtime_ns > at for clip, at in zip(clips, before, strict=True))
    assert set(batch(clips).ends.values()) == {"skipped"}


def test_only_what_changed_is_done_again(clips: list[BatchClip], tmp_path: Path) -> None:
    batch(clips)
    make_clip(tmp_path / "b.mp4", frames=30, rate=24)
    told = batch(clips)
    assert told.ends == {"a.mp4": "skipped", "b.mp4": "done", "c.mp4": "skipped"}
    assert told.clip("b.mp4").frames == 30


def test_a_bad_clip_fails_and_the_others_are_made(clips: list[BatchClip], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    given = [
        clips[0],
        batch_clip(bad, tmp_path / "out" / "bad.mp4"),
        BatchClip(name="row 3", video="", keyframes=None, output="", fault=InputError("nothing there", remedy="Look.")),
        *clips[1:],
    ]
    told = batch(given)
    assert told.ends == {
        "a.mp4": "done",
        "bad.mp4": "failed",
        "row 3": "failed",
        "b.mp4": "done",
        "c.mp4": "done",
    }
    error = told.clip("bad.mp4").error
    assert error is not None
    assert (error.error, error.exit_code) == ("InputError", 3)
    assert "bad.mp4" in error.message
    fault = told.clip("row 3").error
    assert fault is not None
    assert (fault.message, fault.remedy, fault.exit_code) == ("nothing there", "Look.", 3)
    assert leftovers(tmp_path / "out", "a.mp4", "b.mp4", "c.mp4") == []


def test_a_fault_is_told_before_the_clips_ahead_of_it_are_done(long_clip: BatchClip, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    told = batch([long_clip, batch_clip(bad, tmp_path / "out" / "bad.mp4")])
    ended = {ClipStatus.DONE, ClipStatus.FAILED}
    ends = [event.clip for event in told.events if isinstance(event, ClipEvent) and event.status in ended]
    assert ends == ["bad.mp4", "long.mp4"]


def test_the_first_failure_ends_all_where_that_is_asked_for(long_clip: BatchClip, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    options = replace(ONE, fail_fast=True)
    told = batch([long_clip, batch_clip(bad, tmp_path / "out" / "bad.mp4")], options)
    assert told.ends == {"long.mp4": "stopped", "bad.mp4": "failed"}
    assert not told.report.finished
    assert not Path(long_clip.output).exists()


@pytest.mark.slow
def test_frames_of_clips_that_wait_are_known_early(long_clip: BatchClip, clips: list[BatchClip]) -> None:
    told = batch([long_clip, *clips])
    progress = [event for event in told.events if isinstance(event, BatchProgress)]
    known = next(event for event in progress if event.planned == 4)
    assert known.total == LONG + 3 * 36
    assert known.frame < LONG


def test_what_is_finished_of_an_interrupted_batch_is_kept(long_clip: BatchClip, clips: list[BatchClip]) -> None:
    stop = StopFlag()

    def interrupt(event: BatchEvent) -> None:
        if is_upscaling(event, "long.mp4", frame=LONG // 3):
            stop.set()

    told = batch([clips[0], long_clip, *clips[1:]], ONE, stop, on_event=interrupt)
    assert told.ends["a.mp4"] == "done"
    assert told.ends["long.mp4"] == "stopped"
    assert not told.report.finished
    again = batch([clips[0], long_clip, *clips[1:]])
    assert (again.ends["a.mp4"], again.ends["long.mp4"]) == ("skipped", "done")
    assert again.report.finished
    assert again.clip("long.mp4").resumed_frames >= 96
    assert numbers_in(Path(long_clip.output)) == numbers_in(run(_alone(long_clip)).path)


def _alone(clip: BatchClip) -> Job:
    assert clip.job is not None
    return replace(clip.job, output=str(Path(clip.output).with_name("alone.mp4")))


def test_a_worker_that_is_killed_costs_no_clip(long_clip: BatchClip, clips: list[BatchClip]) -> None:
    killed: list[int] = []

    def kill(event: BatchEvent) -> None:
        if not killed and is_upscaling(event, "long.mp4", frame=200):
            for process in workers():
                killed.append(process.pid)
                process.kill()

    told = batch([long_clip, *clips], on_event=kill)
    assert killed
    # A short one may have got its name just before, and is found finished then.
    assert told.ends["long.mp4"] == "done"
    assert set(told.ends.values()) <= {"done", "skipped"}
    assert told.clip("long.mp4").resumed_frames >= 96
    assert any("was ended" in text and "tried again" in text for text in told.clip("long.mp4").warnings)
    assert numbers_in(Path(long_clip.output)) == numbers_in(run(_alone(long_clip)).path)


def test_a_clip_that_takes_its_worker_with_it_twice_has_failed_and_the_others_are_made(
    long_clip: BatchClip, clips: list[BatchClip]
) -> None:
    kills: list[float] = []

    def kill(event: BatchEvent) -> None:
        # What the one that was killed had said before is still to be heard, and the next is not to die of that.
        if is_upscaling(event, "long.mp4") and (not kills or time.monotonic() - kills[-1] > 1):
            kills.append(time.monotonic())
            for process in workers():
                process.kill()

    told = batch([long_clip, *clips], on_event=kill)
    assert told.ends["long.mp4"] == "failed"
    # One may have got its name just before the worker died, and is found finished then.
    assert {told.ends[name] for name in ("a.mp4", "b.mp4", "c.mp4")} <= {"done", "skipped"}
    error = told.clip("long.mp4").error
    assert error is not None
    assert error.error == "WorkerDied"
    assert "SIGKILL" in error.message
    assert told.report.finished


def test_one_long_clip_is_made_by_all_workers_and_equals_the_one_made_by_one(long_clip: BatchClip) -> None:
    pids: set[int] = set()
    busy: set[int] = set()

    def look(event: BatchEvent) -> None:
        if is_upscaling(event, "long.mp4"):
            for process in workers():
                pids.add(process.pid)
                if any(Path(file.path).suffix == ".claim" for file in process.open_files()):
                    busy.add(process.pid)

    told = batch([long_clip], replace(TWO, jobs=3), on_event=look)
    assert told.ends == {"long.mp4": "done"}
    assert len(busy) > 1, (pids, busy)
    assert told.clip("long.mp4").frames == LONG
    assert numbers_in(Path(long_clip.output)) == numbers_in(run(_alone(long_clip)).path)


@pytest.mark.slow
def test_a_helping_worker_that_is_killed_leaves_nothing_out(long_clip: BatchClip) -> None:
    killed: list[int] = []

    def kill(event: BatchEvent) -> None:
        found = workers()
        if not killed and is_upscaling(event, "long.mp4", frame=200) and len(found) > 1:
            newest = max(found, key=lambda process: process.create_time())
            killed.append(newest.pid)
            newest.kill()

    told = batch([long_clip], replace(TWO, jobs=3), on_event=kill)
    assert killed
    assert told.ends == {"long.mp4": "done"}
    assert numbers_in(Path(long_clip.output)) == numbers_in(run(_alone(long_clip)).path)
    assert leftovers(Path(long_clip.output).parent, "long.mp4", "alone.mp4") == []


@pytest.mark.slow
def test_a_work_folder_that_is_removed_by_somebody_ends_its_clip_alone(
    long_clip: BatchClip, clips: list[BatchClip]
) -> None:
    removed: list[Path] = []

    def remove(event: BatchEvent) -> None:
        if not removed and is_upscaling(event, "long.mp4", frame=200):
            removed.append(work_folder_of(Path(long_clip.output)))
            shutil.rmtree(removed[0], ignore_errors=True)

    told = batch([long_clip, *clips], TWO, on_event=remove)
    assert removed
    assert told.ends == {"long.mp4": "failed", "a.mp4": "done", "b.mp4": "done", "c.mp4": "done"}
    error = told.clip("long.mp4").error
    assert error is not None
    assert error.exit_code == 4


@pytest.mark.slow
def test_what_was_made_before_its_worker_was_killed_is_not_made_again_in_the_same_run(
    long_clip: BatchClip, clips: list[BatchClip]
) -> None:
    batch([*clips, long_clip])
    made: dict[str, int] = {}
    killed: list[int] = []

    def kill(event: BatchEvent) -> None:
        if not killed and is_upscaling(event, "long.mp4", frame=200):
            made.update({clip.output: Path(clip.output).stat().st_ino for clip in clips})
            for process in workers():
                killed.append(process.pid)
                process.kill()

    told = batch(overwriting([*clips, long_clip]), on_event=kill)
    assert killed
    assert told.ends["long.mp4"] == "done"
    assert told.clip("long.mp4").resumed_frames >= 96
    assert set(told.ends.values()) <= {"done", "skipped"}
    # The last of them may have been joined when the worker was killed; none was made from the start again.
    assert sum(Path(output).stat().st_ino != number for output, number in made.items()) <= 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_batches_over_the_same_clips_make_each_of_them_once(clips: list[BatchClip], overwrite: bool) -> None:
    if overwrite:
        batch(clips)
        clips = overwriting(clips)
    reports: list[Report] = []

    def one() -> None:
        *_, last = run_batch(clips, ONE, StopFlag())
        assert isinstance(last, BatchDone)
        reports.append(last.report)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.failed for report in reports] == [0, 0]
    for clip in clips:
        ends = sorted(found.status.value for report in reports for found in report.clips if found.clip == clip.name)
        assert ends == ["done", "skipped"]


def test_a_clip_that_another_process_works_on_is_waited_for(clips: list[BatchClip]) -> None:
    output = Path(clips[0].output)
    lock = WorkFolder.open_for(output, "0" * 64, ".mkv", resume=True)
    lock.__enter__()
    freed = False

    def free(event: BatchEvent) -> None:
        nonlocal freed
        if not freed and isinstance(event, BatchProgress) and event.done == 2:
            freed = True
            lock.__exit__(None, None, None)

    told = batch(clips, on_event=free)
    assert freed
    assert set(told.ends.values()) == {"done"}
    assert not work_folder_of(output).exists()
    assert [text for text in told.clip("a.mp4").warnings if "another process is working" in text]


def test_clips_that_come_up_later_are_made_too_until_it_is_stopped(clips: list[BatchClip]) -> None:
    stop = StopFlag()
    coming = [[clips[1]], [], [clips[2]]]

    def more() -> list[BatchClip]:
        return coming.pop(0) if coming else []

    def end(event: BatchEvent) -> None:
        if isinstance(event, BatchProgress) and event.done == 3:
            stop.set()

    told = batch(clips[:1], ONE, stop, more=more, on_event=end)
    assert told.ends == {"a.mp4": "done", "b.mp4": "done", "c.mp4": "done"}


def test_a_clip_that_was_mended_meanwhile_counts_once_and_as_done(clips: list[BatchClip]) -> None:
    stop = StopFlag()
    broken = replace(clips[0], job=None, fault=InputError("a.mp4 is broken"))
    coming = [[broken, clips[1]], [clips[0]]]

    def more() -> list[BatchClip]:
        return coming.pop(0) if coming else []

    def end(event: BatchEvent) -> None:
        if isinstance(event, BatchProgress) and event.done == 2 and event.failed == 0:
            stop.set()

    told = batch([], ONE, stop, more=more, on_event=end)
    last = [event for event in told.events if isinstance(event, BatchProgress)][-1]
    assert (last.clips, last.done, last.failed, last.planned) == (2, 2, 0, 2)
    assert (told.report.done, told.report.failed) == (2, 0)
    assert told.ends == {"a.mp4": "done", "b.mp4": "done"}


def test_the_report_is_up_to_date_while_a_watched_folder_rests(clips: list[BatchClip], tmp_path: Path) -> None:
    """Clips that end within a second of each other are all in it soon, though nothing else happens."""
    stop, path = StopFlag(), tmp_path / "report.json"
    since: list[float] = []
    read: list[int] = []

    def look(event: BatchEvent) -> None:
        if isinstance(event, BatchProgress) and event.done == 3:
            since.append(time.monotonic())
            read.append(read_report(path).done if path.exists() else 0)
            if read[-1] == 3 or since[-1] - since[0] > 30:
                stop.set()

    batch(clips, replace(ONE, report=path), stop, more=list, on_event=look)
    assert read[-1] == 3


@pytest.mark.slow
def test_a_folder_watched_for_years_does_not_fill_the_memory(
    clips: list[BatchClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest clips are listed, all are counted; what failed stays, since it may yet be mended."""
    monkeypatch.setattr("keyscale.engine.batch.clip_table.MOST_ENDED", 1)
    stop = StopFlag()
    broken = BatchClip(name="x.mp4", video="x.mp4", keyframes=None, output="out/x.mp4", fault=InputError("broken"))
    coming = [[broken], clips[:1], clips[1:2], clips[2:]]

    def more() -> Sequence[BatchClip]:
        return coming.pop(0) if coming else []

    def end(event: BatchEvent) -> None:
        if isinstance(event, BatchProgress) and event.done == 3:
            stop.set()

    told = batch([], ONE, stop, more=more, on_event=end)
    report = told.report
    assert told.ends == {"x.mp4": "failed", "c.mp4": "done"}
    assert (report.done, report.failed, report.frames) == (3, 1, 3 * 36)


def test_leaving_the_loop_ends_the_workers(long_clip: BatchClip) -> None:
    events = run_batch([long_clip], ONE, StopFlag())
    for event in events:
        if is_upscaling(event, "long.mp4"):
            break
    events.close()
    assert processes() == []
    assert not Path(long_clip.output).exists()


def test_nothing_to_do_is_done_at_once() -> None:
    assert batch([]).report.clips == ()


@pytest.mark.skipif(sys.platform == "darwin", reason="may have a GPU of Apple's")
def test_a_worker_that_looks_for_gpus_loads_no_torch_to_find_none() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "keyscale.engine.batch.process", "worker", LOOK]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},  # where there is a GPU, its driver tells of none
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "keyscale.engine.machine" in loaded
    assert "torch" not in loaded
