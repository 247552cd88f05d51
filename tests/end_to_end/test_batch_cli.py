"""`keyscale batch` as it is called: exit codes, what it prints, signals, kill -9, and a folder that is watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clips import make_clip, numbers_in
from support.numbered import leftovers
from support.reports import read_report

pytestmark = pytest.mark.processes

SMALL = ("--size", "64x48", "--fps", "source", "--model", "lanczos", "--preset", "ultrafast", "--crf", "10")
LARGE = (*SMALL, "--chunk-seconds", "4")
LONG = 2400
"""Frames of a clip that takes a few seconds."""
CAMERA = {"keyframes": [{"time": 0, "x": 0, "y": 0, "width": 64, "height": 48}]}
PROGRAM = "from keyscale.cli.app import main; main()"


class Command:
    """A `keyscale` process of its own session, with what it wrote."""

    def __init__(self, folder: Path, *arguments: str | Path, **more: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **more,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err)),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        with stream:
            lines += iter(stream.readline, "")

    def until(self, seen: Callable[[], bool], timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while not seen():
            assert time.monotonic() < end, (self.out, self.err)
            assert self.process.poll() is None, (self.out, self.err)
            time.sleep(0.02)

    def end(self, timeout_s: float = 120) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            pytest.fail(f"it hung: {self.out} {self.err}")
        finally:
            for thread in self._threads:
                thread.join(30)

    @property
    def errors(self) -> str:
        return "".join(self.err)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts commands in the test's folder, and ends those that a failed test leaves."""
    begun: list[Command] = []

    def start(*arguments: str | Path, **more: Any) -> Command:
        begun.append(Command(tmp_path, *arguments, **more))
        return begun[-1]

    yield start
    for each in begun:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
        each.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips with their cameras."""
    inbox = tmp_path / "in"
    inbox.mkdir()
    for number, name in enumerate(("a", "b", "c")):
        put_clip(inbox, name, first_number=number)
    return inbox


def put_clip(inbox: Path, name: str, *, frames: int = 24, first_number: int = 0) -> None:
    make_clip(inbox / f"{name}.mp4", frames=frames, rate=24, first_number=first_number)
    (inbox / f"{name}.json").write_text(json.dumps(CAMERA))


def workers_of(run: Command) -> list[psutil.Process]:
    return psutil.Process(run.process.pid).children()


def is_upscaling(run: Command, clip: str) -> bool:
    """Whether some frames of that clip are made."""
    own = [event["of"] for event in run.events if event["event"] == "clip" and event["clip"] == clip and event["of"]]
    return any(event["event"] == "progress" and event["phase"] == "upscale" and event["frame"] > 200 for event in own)


def in_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell's script in which `"$@"` is a batch."""
    given = ["bash", "-c", script, "bash", sys.executable, "-c", PROGRAM, "batch", "in", "-o", "out", *SMALL]
    return subprocess.run(given, cwd=folder, capture_output=True, text=True, check=False)


def done_names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.glob("*.mp4"))


def test_a_folder_is_made_and_the_paths_are_printed(
    folder: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    run = command("batch", folder, "-o", "out", *SMALL)
    assert run.end() == 0, run.errors
    assert sorted(run.out) == ["out/a.mp4\n", "out/b.mp4\n", "out/c.mp4\n"]
    assert "3 done" in run.err[-1]
    assert leftovers(tmp_path / "out", "a.mp4", "b.mp4", "c.mp4", "report.json") == []
    report = read_report(tmp_path / "out" / "report.json")
    assert (report.finished, report.done, report.frames) == (True, 3, 72)


def test_a_second_run_skips_all_and_prints_their_paths_too(folder: Path, command: Callable[..., Command]) -> None:
    assert command("batch", folder, "-o", "out", *SMALL).end() == 0
    again = command("batch", folder, "-o", "out", *SMALL)
    assert again.end() == 0
    assert "3 skipped" in again.err[-1]


def test_a_failed_clip_makes_exit_code_1_and_its_count_is_told(folder: Path, command: Callable[..., Command]) -> None:
    (folder / "b.mp4").write_bytes(b"nothing of a video")
    run = command("batch", folder, "-o", "out", *SMALL)
    assert run.end() == 1
    assert "2 done, 1 failed" in run.err[-1]
    assert "is not a video that can be read" in run.errors
    assert "Traceback" not in run.errors


def test_events_are_one_json_object_a_line_and_one_is_last(folder: Path, command: Callable[..., Command]) -> None:
    run = command("batch", folder, "-o", "out", *SMALL, "--progress", "json")
    assert run.end() == 0
    assert [event["event"] for event in run.events].count("batch_done") == 1
    assert run.events[-1]["event"] == "batch_done"
    assert run.events[-1]["report"]["done"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nowhere", "-o", "out"), 2, "nowhere"),
        (("in", "-o", "in"), 2, "output folder"),
        (("in",), 2, "--output"),
        (("in", "-o", "out", "--size", "7x7"), 2, "odd"),
        (("in", "-o", "out", "--report", "in"), 2, "folder"),
        (("in", "-o", "in/a.mp4/out"), 4, "in/a.mp4/out"),
        (("in", "-o", "out", "--jobs", "0"), 2, "--jobs"),
    ],
)
def test_what_is_wrong_for_all_is_said_before_anything_starts(
    folder: Path, tmp_path: Path, command: Callable[..., Command], arguments: tuple[str, ...], code: int, told: str
) -> None:
    run = command("batch", *arguments)
    assert run.end() == code
    assert told in run.errors
    assert "Traceback" not in run.errors
    assert run.out == []
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_ends_it_soon_and_the_same_command_goes_on(
    folder: Path, tmp_path: Path, command: Callable[..., Command], number: signal.Signals
) -> None:
    put_clip(folder, "long", frames=LONG)
    run = command("batch", folder, "-o", "out", *LARGE, "--progress", "json")
    run.until(lambda: is_upscaling(run, "long.mp4"))
    began = time.monotonic()
    os.kill(run.process.pid, number)
    assert run.end() == 128 + number
    assert time.monotonic() - began < 10
    assert "Run the same command again" in run.errors
    assert not (tmp_path / "out" / "long.mp4").exists()
    assert not read_report(tmp_path / "out" / "report.json").finished
    again = command("batch", folder, "-o", "out", *LARGE)
    assert again.end() == 0, again.errors
    assert [number for _, number in numbers_in(tmp_path / "out" / "long.mp4")] == list(range(LONG))
    assert leftovers(tmp_path / "out", "a.mp4", "b.mp4", "c.mp4", "long.mp4", "report.json") == []


def test_killed_it_leaves_no_worker_and_nothing_that_looks_finished(
    folder: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    put_clip(folder, "long", frames=LONG)
    run = command("batch", folder, "-o", "out", *LARGE, "--progress", "json")
    run.until(lambda: is_upscaling(run, "long.mp4"))
    workers = psutil.Process(run.process.pid).children(recursive=True)
    assert workers
    run.process.kill()
    run.end()
    # At once: the workers of the dead one may still hold its locks.
    again = command("batch", folder, "-o", "out", *LARGE)
    assert again.end() == 0, again.errors
    gone, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive, gone
    assert [number for _, number in numbers_in(tmp_path / "out" / "long.mp4")] == list(range(LONG))
    assert leftovers(tmp_path / "out", "a.mp4", "b.mp4", "c.mp4", "long.mp4", "report.json") == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_watched_folder_is_gone_on_with_until_a_signal_ends_it_cleanly(
    folder: Path, tmp_path: Path, command: Callable[..., Command], number: signal.Signals
) -> None:
    run = command("batch", folder, "-o", "out", "--watch", *SMALL)
    run.until(lambda: len(run.out) == 3)
    put_clip(folder, "late")
    run.until(lambda: len(run.out) == 4)
    put_clip(folder, "a", frames=12)
    run.until(lambda: len(run.out) == 5)
    os.kill(run.process.pid, number)
    assert run.end() == 0, run.errors  # all was finished
    assert done_names(tmp_path / "out") == ["a.mp4", "b.mp4", "c.mp4", "late.mp4"]
    assert len(numbers_in(tmp_path / "out" / "a.mp4")) == 12
    assert leftovers(tmp_path / "out", "a.mp4", "b.mp4", "c.mp4", "late.mp4", "report.json") == []


@pytest.mark.slow
def test_a_clip_that_was_mended_in_a_watched_folder_is_no_failure_any_more(
    folder: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    (folder / "a.json").write_text("{")
    run = command("batch", folder, "-o", "out", "--watch", *SMALL)
    run.until(lambda: len(run.out) == 2 and "a.mp4: failed" in run.errors)
    (folder / "a.json").write_text(json.dumps(CAMERA))
    run.until(lambda: len(run.out) == 3)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.end() == 0, run.errors
    report = read_report(tmp_path / "out" / "report.json")
    assert (report.done, report.failed, len(report.clips)) == (3, 0, 3)


def test_a_full_disk_behind_stdout_is_no_defect_and_leaves_a_report(folder: Path, tmp_path: Path) -> None:
    done = in_shell('"$@" > /dev/full', tmp_path)
    assert done.returncode == 4
    assert "cannot write to standard output: No space left on device" in done.stderr
    assert not read_report(tmp_path / "out" / "report.json").finished


@pytest.mark.parametrize(
    ("spoil", "code", "told"), [(False, 4, "3 done"), (True, 1, "2 done, 1 failed")], ids=["all done", "one failed"]
)
def test_a_report_that_cannot_be_written_takes_nothing_else_with_it(
    folder: Path, tmp_path: Path, command: Callable[..., Command], spoil: bool, code: int, told: str
) -> None:
    if spoil:
        (folder / "b.mp4").write_bytes(b"nothing of a video")
    (tmp_path / "reports").mkdir()
    run = command("batch", folder, "-o", "out", *SMALL, "--progress", "plain", "--report", "reports/report.json")
    run.until(lambda: (tmp_path / "out").exists() and bool(workers_of(run)))
    (tmp_path / "reports").rename(tmp_path / "gone")
    assert run.end() == code, run.errors
    assert len(run.out) == 3 - spoil
    assert told in run.errors
    assert run.errors.count("cannot write the report reports/report.json: No such file") == 1
    assert "a.mp4  done" in run.errors  # the table


def test_whoever_reads_the_events_is_told_of_a_report_that_was_not_written(
    folder: Path, tmp_path: Path, command: Callable[..., Command]
) -> None:
    (tmp_path / "reports").mkdir()
    run = command("batch", folder, "-o", "out", *SMALL, "--progress", "json", "--report", "reports/report.json")
    run.until(lambda: bool(run.out))
    (tmp_path / "reports").rename(tmp_path / "gone")
    assert run.end() == 4
    last = run.events[-1]
    assert (last["event"], last["report"]["done"]) == ("batch_done", 3)
    assert (last["unwritten"]["error"], last["unwritten"]["exit_code"]) == ("StorageError", 4)
    assert "reports/report.json" in last["unwritten"]["message"]


@pytest.mark.parametrize("flag", ["-o", "--keyframes-dir", "--report"])
def test_an_empty_name_is_not_the_current_folder(folder: Path, tmp_path: Path, flag: str) -> None:
    """A script's variable that is not set would scatter results."""
    done = in_shell(f'"$@" {flag} ""', tmp_path)
    assert done.returncode == 2
    assert " is empty" in done.stderr
    assert not list(tmp_path.glob("*.mp4"))


def test_an_address_in_storage_is_no_folder_for_results(folder: Path, tmp_path: Path) -> None:
    done = in_shell('"$@" -o r2://bucket/clips/', tmp_path)
    assert done.returncode == 2
    assert "-o r2://bucket/clips/ is not a folder" in done.stderr
    assert not (tmp_path / "r2:").exists()


def test_what_planning_finds_wrong_with_a_row_names_manifest_line_and_keyframes(folder: Path, tmp_path: Path) -> None:
    (folder / "list.csv").write_text("video,start,output\na.mp4,50,x\nb.mp4,,y\nc.mp4,,z\n")
    (folder / "b.json").write_text(json.dumps({"keyframes": [CAMERA["keyframes"][0] | {"width": 5000}]}))
    done = in_shell('"$@" in/list.csv', tmp_path)
    assert done.returncode == 1
    assert "a.mp4: failed: in/list.csv: line 2: the trim starts at 50 s" in done.stderr
    assert "b.mp4: failed: in/list.csv: line 3: in/b.json: keyframe 0: the rec" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits are told in another way elsewhere")
def test_a_machine_that_starts_no_process_is_no_defect(folder: Path, tmp_path: Path) -> None:
    done = in_shell('ulimit -n 12; "$@"', tmp_path)
    assert done.returncode == 4
    assert "no process can be started: Too many open files" in done.stderr


@pytest.mark.slow
def test_it_reads_nothing_from_stdin(folder: Path, tmp_path: Path) -> None:
    done = in_shell('printf "1\\n2\\n" | while read line; do "$@"; echo "line $line"; done', tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("line")] == ["line 1", "line 2"]


def test_a_reader_that_leaves_ends_it(folder: Path, tmp_path: Path) -> None:
    done = in_shell('"$@" --progress json | head -n 1; exit "${PIPESTATUS[0]}"', tmp_path)
    assert done.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in done.stderr
