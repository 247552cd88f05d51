"""The report of a batch: what it says of each clip, and the file that is whole or not there."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.reports import read_report

import keyscale
from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.clip_table import MOST_WARNINGS, ClipTable, clip_report
from keyscale.engine.batch.events import BatchDone, ClipEvent, ClipReport, ClipStatus, Fault, Report
from keyscale.engine.batch.report import (
    check_report_name,
    check_report_path,
    write_report,
)
from keyscale.engine.errors import FramingError, KeyscaleError, StorageError, UsageError
from keyscale.engine.events import Done, Failed, Note, Phase, Progress, RemoteUse, failure
from keyscale.engine.files import VIDEO_SUFFIXES
from keyscale.engine.job import Job, Target
from keyscale.engine.serialization import as_json
from keyscale.engine.workspace.folder import work_folder_of

NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reporter(ClipTable):
    """A table that begins with some clips and hears about them through events."""

    def __init__(
        self, clips: Iterable[BatchClip] = (), *, clock: Callable[[], float] = time.monotonic, **kwargs: Any
    ) -> None:
        super().__init__(clock=clock, **kwargs)
        for each in clips:
            self.add(each)

    def handle(self, event: ClipEvent) -> None:
        state = self[event.index]
        state.frames = event.frames if event.frames is not None else state.frames
        state.source_size = event.source_size or state.source_size
        self.tell(state, event.of, status=event.status)

    def clip(self, index: int) -> ClipReport:
        return clip_report(self[index])


def clip(name: str = "a.mp4", *, output: str = "out/a.mp4", fault: KeyscaleError | None = None) -> BatchClip:
    job = Job(source=name, output=output, keyframes="a.json", target=Target(width=64, height=96))
    return BatchClip(
        name=name, video=f"/in/{name}", keyframes="a.json", output=output, job=None if fault else job, fault=fault
    )


def event(
    status: ClipStatus,
    of: Progress | Note | Done | Failed | None = None,
    *,
    index: int = 0,
    frames: int | None = None,
    source_size: tuple[int, int] | None = None,
) -> ClipEvent:
    return ClipEvent(index=index, clip="a.mp4", status=status, of=of, frames=frames, source_size=source_size)


def done(
    *,
    output: str = "out/a.mp4",
    frames: int = 100,
    resumed: int = 0,
    skipped: bool = False,
    dollars: float | None = None,
) -> Done:
    return Done(
        output=output,
        frames=frames,
        seconds=8.0,
        resumed_frames=resumed,
        inferred_frames=frames - resumed,
        lost_frames=2,
        device="none" if skipped else "cpu int8",
        runtime="none" if skipped else "openvino",
        model="small",
        look=0.25,
        strength=0.5,
        published="r2://b/k",
        key="ab" * 32,
        skipped=skipped,
        remote=None
        if dollars is None
        else RemoteUse(job_id="j", containers=1, gpus=("T4",), seconds=9.0, dollars=dollars),
    )


def warning(message: str) -> Note:
    return Note(level="warning", message=message)


FAILED = Failed(error="InputError", message="no video stream", remedy="Give a video.", exit_code=3)


# What is said of a clip


def test_a_clip_that_was_made_has_all_its_figures(tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    output.write_bytes(b"x" * 1234)
    reporter = Reporter([clip(output=str(output))], clock=Clock())
    reporter.handle(event(ClipStatus.RUNNING, frames=100, source_size=(640, 360)))
    reporter.handle(event(ClipStatus.RUNNING, warning("untagged colour")))
    reporter.handle(event(ClipStatus.DONE, done(output=str(output), resumed=20, dollars=0.5)))
    assert reporter.clip(0) == ClipReport(
        clip="a.mp4",
        status=ClipStatus.DONE,
        video="/in/a.mp4",
        keyframes="a.json",
        output=str(output),
        frames=100,
        seconds=8.0,
        fps=10.0,
        source_size=(640, 360),
        size=(64, 96),
        output_bytes=1234,
        resumed_frames=20,
        lost_frames=2,
        device="cpu int8",
        runtime="openvino",
        model="small",
        look=0.25,
        strength=0.5,
        key="ab" * 32,
        dollars=0.5,
        published="r2://b/k",
        warnings=("untagged colour",),
    )


def test_a_skipped_clip_has_a_result_but_no_rate_and_no_device(tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    output.write_bytes(b"x" * 7)
    reporter = Reporter([clip(output=str(output))], clock=Clock())
    reporter.handle(event(ClipStatus.SKIPPED, done(output=str(output), skipped=True)))
    said = reporter.clip(0)
    assert (said.status, said.frames, said.output_bytes, said.size) == (ClipStatus.SKIPPED, 100, 7, (64, 96))
    assert (said.fps, said.device, said.runtime) == (None, None, None)


def test_a_result_that_was_wholly_there_before_has_no_rate() -> None:
    reporter = Reporter([clip()], clock=Clock())
    reporter.handle(event(ClipStatus.DONE, done(resumed=100)))
    assert reporter.clip(0).fps is None


def test_a_result_that_was_taken_away_since_has_no_size() -> None:
    reporter = Reporter([clip()], clock=Clock())
    reporter.handle(event(ClipStatus.DONE, done(output="/nowhere/\0/a.mp4")))
    assert reporter.clip(0).output_bytes is None


def test_a_failed_clip_has_its_error_with_the_code_and_the_time_it_took() -> None:
    clock = Clock()
    reporter = Reporter([clip()], clock=clock)
    reporter.handle(event(ClipStatus.RUNNING))
    clock.now += 3
    reporter.handle(event(ClipStatus.RUNNING, Progress(phase=Phase.UPSCALE, frame=1, total=2)))
    clock.now += 2
    reporter.handle(event(ClipStatus.FAILED, FAILED))
    clock.now += 100
    said = reporter.clip(0)
    assert said.error == Fault(error="InputError", message="no video stream", remedy="Give a video.", exit_code=3)
    assert (said.seconds, said.frames, said.fps, said.size, said.output_bytes) == (5.0, None, None, None, None)


def test_a_clip_without_a_job_fails_with_its_fault() -> None:
    fault = FramingError("line 3: no w", remedy="Add it.")
    reporter = Reporter([clip(fault=fault)], clock=Clock())
    reporter.handle(event(ClipStatus.FAILED, failure(fault)))
    said = reporter.clip(0)
    assert said.error == Fault(error="FramingError", message="line 3: no w", remedy="Add it.", exit_code=2)
    assert said.seconds is None


def test_an_interruption_is_no_error_of_the_clip() -> None:
    reporter = Reporter([clip()], clock=Clock())
    reporter.handle(
        event(ClipStatus.STOPPED, Failed(error="Interrupted", message="interrupted", remedy=None, exit_code=130))
    )
    assert (reporter.clip(0).status, reporter.clip(0).error) == (ClipStatus.STOPPED, None)


def test_a_clip_that_failed_and_was_done_in_the_end_has_no_error() -> None:
    reporter = Reporter([clip()], clock=Clock())
    reporter.handle(event(ClipStatus.WAITING, FAILED))
    reporter.handle(event(ClipStatus.DONE, done()))
    assert reporter.clip(0).error is None


def test_warnings_are_kept_once_each_in_their_order_and_notes_are_not() -> None:
    reporter = Reporter([clip()], clock=Clock())
    for message in ("b", "a", "b"):
        reporter.handle(event(ClipStatus.RUNNING, warning(message)))
    reporter.handle(event(ClipStatus.RUNNING, Note(level="info", message="device: cpu")))
    assert reporter.clip(0).warnings == ("b", "a")


def test_warnings_without_end_do_not_fill_the_memory() -> None:
    reporter = Reporter([clip()], clock=Clock())
    for number in range(MOST_WARNINGS + 1000):
        reporter.handle(event(ClipStatus.RUNNING, warning(f"frame {number} is damaged")))
    said = reporter.clip(0).warnings
    assert len(said) == MOST_WARNINGS + 1
    assert said[-1] == "and 1000 more warnings"


def test_a_clip_nobody_told_of_is_refused() -> None:
    reporter = Reporter([clip()], clock=Clock())
    for index in (1, -1):
        with pytest.raises(KeyError):
            reporter.handle(event(ClipStatus.RUNNING, index=index))


# What is said of all


def test_the_report_counts_what_became_of_the_clips() -> None:
    clock = Clock()
    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    reporter = Reporter([clip("a.mp4"), clip("b.mp4")], clock=clock, began=began)
    for name in ("c.mp4", "d.mp4", "e.mp4", "f.mp4"):
        reporter.add(clip(name))
    reporter.handle(event(ClipStatus.DONE, done(dollars=0.25), index=0))
    reporter.handle(event(ClipStatus.DONE, done(dollars=0.5), index=1))
    reporter.handle(event(ClipStatus.SKIPPED, done(skipped=True), index=2))
    reporter.handle(event(ClipStatus.FAILED, FAILED, index=3))
    reporter.handle(event(ClipStatus.STOPPED, index=4))
    clock.now += 61.5
    report = reporter.report(finished=False)
    assert (report.done, report.skipped, report.failed, report.stopped) == (2, 1, 1, 2)
    assert [said.clip for said in report.clips] == [f"{letter}.mp4" for letter in "abcdef"]
    assert (report.frames, report.dollars, report.seconds) == (200, 0.75, 61.5)
    assert (report.keyscale, report.began, report.finished) == (
        keyscale.__version__,
        "2026-01-02T01:04:05+00:00",
        False,
    )
    assert reporter.report(finished=True).finished


def test_what_is_made_here_costs_nothing_that_is_counted() -> None:
    reporter = Reporter([clip()], clock=Clock())
    reporter.handle(event(ClipStatus.DONE, done()))
    assert reporter.report(finished=True).dollars is None


def test_clips_may_become_known_and_be_told_of_from_many_threads() -> None:
    reporter = Reporter(clock=Clock())
    indices: list[int] = []

    def work() -> None:
        for number in range(200):
            index = reporter.add(clip()).index
            indices.append(index)
            reporter.handle(event(ClipStatus.DONE, done(), index=index))
            if number % 20 == 0:
                reporter.report(finished=False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(indices) == list(range(800))
    assert reporter.report(finished=True).done == 800


# The file


def full_report(name: str = "a.mp4") -> Report:
    reporter = Reporter([clip(name), clip("b.mp4")], clock=Clock())
    reporter.handle(event(ClipStatus.DONE, done(dollars=0.1), index=0, source_size=(640, 360)))
    reporter.handle(event(ClipStatus.RUNNING, warning("w"), index=1))
    reporter.handle(event(ClipStatus.FAILED, FAILED, index=1))
    return reporter.report(finished=True)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(full_report(), path)
    assert read_report(path) == full_report_at(read_report(path).began)
    assert list(tmp_path.iterdir()) == [path]


def full_report_at(began: str) -> Report:
    return replace(full_report(), began=began)


def test_a_report_is_for_people_too(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(full_report(), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["{", '  "version": 1,']
    assert any(line.strip() == '"clip": "a.mp4",' for line in lines)


def test_a_report_has_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    old = os.umask(0o027)
    try:
        write_report(full_report(), path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["new\nline \x1b[2J\t.mp4", 'quo"te\\.mp4', "映像 🎬.mp4", "\u2028.mp4"])
def test_any_name_that_is_unicode_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "report.json"
    write_report(full_report(name), path)
    assert read_report(path).clips[0].clip == name


def test_the_bytes_of_a_name_that_is_not_utf8_are_readable_by_any_parser(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(full_report(NOT_UTF8), path)
    assert json.loads(path.read_bytes())["clips"][0]["clip"] == "caf\\udce9.mp4"
    assert read_report(path).clips[0].video == "/in/caf\\udce9.mp4"


def test_an_event_has_one_line_of_json_whatever_is_in_it() -> None:
    line = as_json(BatchDone(report=full_report(NOT_UTF8)))
    assert "\n" not in line
    assert json.loads(line)["report"]["clips"][0]["clip"] == "caf\\udce9.mp4"
    line = as_json(event(ClipStatus.RUNNING, warning(NOT_UTF8)))
    assert json.loads(line)["of"] == {"event": "note", "schema": 1, "level": "warning", "message": "caf\\udce9.mp4"}


@pytest.mark.parametrize("name", ["r" * 250 + ".json", "-o", "a b'\"\n.json", f"{NOT_UTF8}.json"])
def test_a_report_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    check_report_path(path)
    assert list(tmp_path.iterdir()) == []
    write_report(full_report(), path)
    check_report_path(path)
    write_report(full_report(), path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_in_the_current_folder_needs_no_folder_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_report_path(Path("report.json"))
    write_report(full_report(), Path("report.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_reader_never_sees_half_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(full_report(), path)
    ended = threading.Event()

    def write() -> None:
        try:
            for _ in range(50):
                write_report(full_report(), path)
        finally:
            ended.set()

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not ended.is_set():
        assert read_report(path).done == 1
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    old = full_report("old.mp4")
    write_report(old, path)
    with files_of_at_most(100), pytest.raises(StorageError) as caught:
        write_report(full_report("new.mp4"), path)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert read_report(path) == old
    assert list(tmp_path.iterdir()) == [path]


# Paths, checked before long work


def refusal(path: Path) -> KeyscaleError:
    with pytest.raises(KeyscaleError) as caught:
        check_report_path(path)
    with pytest.raises(type(caught.value)):
        write_report(full_report(), path)
    assert caught.value.remedy
    return caught.value


def test_a_folder_is_no_place_for_a_report(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/"), Path()):
        error = refusal(path)
        assert isinstance(error, UsageError)
        assert "is a folder" in error.message


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path / "missing" / "report.json")
    assert isinstance(error, StorageError)
    assert error.remedy is not None
    assert str(tmp_path / "missing") in error.remedy


def test_a_file_is_no_folder_for_a_report(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert isinstance(refusal(tmp_path / "file" / "report.json"), StorageError)


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert isinstance(refusal(tmp_path / ("r" * 256)), StorageError)


def test_a_folder_that_takes_no_files_is_refused() -> None:
    error = refusal(Path("/sys/report.json") if os.geteuid() == 0 else Path("/report.json"))
    assert isinstance(error, StorageError)


def test_a_path_that_no_file_can_have_is_refused() -> None:
    assert isinstance(refusal(Path("a\0b")), UsageError)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path = tmp_path / "report.json"
    for target in (precious, tmp_path / "missing"):
        path.symlink_to(target)
        assert "symbolic link" in refusal(path).message
        path.unlink()
    assert precious.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [precious]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path(os.devnull)):
        assert "not an ordinary file" in refusal(path).message
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.parametrize("content", [b"\0\0\0 ftypisom", b"video,keyframes\n", b'{"keyframes": []}', b"[1]", b" "])
def test_a_file_that_is_no_report_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    assert "not a report" in refusal(path).message
    assert path.read_bytes() == content


# Names that mean something else to keyscale

TAKEN = {
    "clip.mp4": "the name of a video",
    "CLIP.MOV": "the name of a video",
    "keyscale.toml": "the name of a preset",
    "Keyscale.TOML": "the name of a preset",
    work_folder_of(Path("clip.mp4")).name: "the name of a folder in which keyscale works",
    f"{work_folder_of(Path('clip.mp4'))}/report.json": "in a folder in which keyscale works",
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_report_has_no_name_that_means_something_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / "out" / name
    with pytest.raises(UsageError, match=TAKEN[name]) as caught:
        check_report_name(path, tmp_path / "out")
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    path.parent.mkdir(parents=True)
    assert TAKEN[name] in refusal(path).message
    path.write_bytes(b"")  # as an empty file of any other name it would be replaced
    assert TAKEN[name] in refusal(path).message
    assert path.read_bytes() == b""


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_a_report_is_called_as_no_video_is_that_a_batch_would_find(tmp_path: Path, suffix: str) -> None:
    assert isinstance(refusal(tmp_path / f"report{suffix}"), UsageError)


@pytest.mark.parametrize("name", ["talk.json", "talk.keyframes.json", "TALK.JSON"])
def test_a_report_is_not_where_the_keyframes_of_a_video_are_looked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "talk.MP4").touch()
    (tmp_path / "talking.mp4").touch()
    with pytest.raises(UsageError, match=r"would be taken for the keyframes of .*talk\.MP4"):
        check_report_name(tmp_path / name, tmp_path / "out")


def test_a_report_may_stand_beside_videos_and_results_of_other_names_and_beside_a_result_of_its_own(
    tmp_path: Path,
) -> None:
    """A clip may be called `report.mp4`: the report of the next run still stands beside its result."""
    out = tmp_path / "out"
    out.mkdir()
    for video in (tmp_path / "talk.mp4", out / "talk.mp4", out / "report.mp4"):
        video.touch()
    (tmp_path / "link").symlink_to(out)
    paths = [tmp_path / "report.json", tmp_path / "talk.txt", tmp_path / "link" / "report.json", out / "report.json"]
    for path in paths:
        check_report_name(path, out)
        check_report_path(path)
        write_report(full_report(), path)
        check_report_name(path, out)


def test_a_name_in_a_folder_that_cannot_be_looked_into_is_left_to_the_check_of_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for folder in (tmp_path / "missing", tmp_path / "file", tmp_path / "loop"):
        check_report_name(folder / "report.json", tmp_path / "out")
        assert isinstance(refusal(folder / "report.json"), StorageError)
    check_report_name(Path("a\0b.json"), tmp_path / "out")
    assert isinstance(refusal(Path("a\0b.json")), UsageError)


PROGRAM = "from keyscale.cli.app import main; main()"


@pytest.mark.processes
@pytest.mark.parametrize("name", ["fr/clip1.mp4", "c/keyscale.toml", "fr/.clip1.mp4.keyscale", "c/clip2.json"])
def test_a_batch_with_a_report_of_such_a_name_ends_before_anything_begins(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    for file in ("clip1.mp4", "clip1.json", "clip2.mp4"):
        (folder / file).touch()
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-c", PROGRAM, "batch", "c", "-o", "fr", "--whole-frame", "--report", name]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert f"the report {name} " in ended.stderr
    assert "--report" in ended.stderr.partition(f"the report {name} ")[2]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_file_and_an_older_report_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for content in (b"", b'{"version": 0, "keyscale": "0.0.1"}'):
        path.write_bytes(content)
        check_report_path(path)
        write_report(full_report(), path)
        assert read_report(path).done == 1


KILLED = """
import os, signal, sys, time
from pathlib import Path
from keyscale.engine.batch.clip_table import ClipTable
from keyscale.engine.batch.report import write_report
def stall(_):
    print("ready", flush=True)
    time.sleep(600)
os.fsync = stall
write_report(ClipTable().report(finished=False), Path(sys.argv[1]))
"""


@pytest.mark.processes
def test_what_a_killed_batch_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            [draft] = tmp_path.iterdir()
            check_report_path(path)
            assert list(tmp_path.iterdir()) == [draft]
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(60)
    assert list(tmp_path.iterdir()) == [draft]
    check_report_path(path)
    assert list(tmp_path.iterdir()) == []


# Many clips


def test_a_report_of_ten_thousand_clips_is_written_and_read_in_seconds(tmp_path: Path) -> None:
    reporter = Reporter([clip(f"{number}.mp4") for number in range(10_000)], clock=Clock())
    for index in range(10_000):
        reporter.handle(event(ClipStatus.DONE, done(), index=index))
    began = time.process_time()
    write_report(reporter.report(finished=True), tmp_path / "report.json")
    assert len(read_report(tmp_path / "report.json").clips) == 10_000
    assert time.process_time() - began < 10
