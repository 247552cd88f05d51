"""What a batch shows: bars, plain lines, JSON lines or nothing, the table at the end, and finished paths on stdout."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from keyscale.cli.batch_progress import batch_renderer
from keyscale.cli.batch_text import LISTED, middle, one_line
from keyscale.cli.progress import Renderer
from keyscale.engine.batch.events import (
    BatchDone,
    BatchEvent,
    BatchProgress,
    ClipEvent,
    ClipReport,
    ClipStatus,
    Fault,
    Report,
)
from keyscale.engine.events import Done, Failed, Note, Phase, Progress, RemoteUse
from keyscale.engine.serialization import as_json

ESCAPE = "\x1b"
NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")
Shown = BatchEvent | Note | Failed

WAITING, RUNNING = ClipStatus.WAITING, ClipStatus.RUNNING
DONE, SKIPPED, FAILED, STOPPED = ClipStatus.DONE, ClipStatus.SKIPPED, ClipStatus.FAILED, ClipStatus.STOPPED


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class AsciiTerminal(Terminal):
    encoding = "ascii"


def clip(
    status: ClipStatus,
    of: Progress | Note | Done | Failed | None = None,
    *,
    index: int = 0,
    name: str | None = None,
    frames: int | None = 300,
) -> ClipEvent:
    return ClipEvent(index=index, clip=name or f"{'abcdefgh'[index % 8]}.mp4", status=status, frames=frames, of=of)


def progress(frame: int, total: int = 300, *, phase: Phase = Phase.UPSCALE, fps: float | None = None) -> Progress:
    return Progress(phase=phase, frame=frame, total=total, fps=fps)


def done(
    output: str = "out/a.mp4", *, resumed: int = 0, lost: int = 0, dollars: float | None = None, skipped: bool = False
) -> Done:
    return Done(
        output=output,
        frames=300,
        seconds=12.0,
        resumed_frames=resumed,
        inferred_frames=300 - resumed,
        lost_frames=lost,
        device="cpu int8",
        model="small",
        skipped=skipped,
        remote=None
        if dollars is None
        else RemoteUse(job_id="j", containers=1, gpus=("T4",), seconds=9.0, dollars=dollars),
    )


def total(**changes: object) -> BatchProgress:
    said: dict[str, object] = {
        "clips": 40,
        "done": 9,
        "skipped": 2,
        "failed": 1,
        "running": 2,
        "planned": 39,
        "frame": 1200,
        "total": 4800,
        "fps": 12.34,
        "eta_s": 300.0,
    }
    return BatchProgress(**(said | changes))  # type: ignore[arg-type]


def entry(status: ClipStatus, name: str = "a.mp4", *, message: str = "no video stream") -> ClipReport:
    made = status in {DONE, SKIPPED}
    fault = Fault(error="InputError", message=message, remedy="Give a video.", exit_code=3)
    return ClipReport(
        clip=name,
        status=status,
        video=name,
        keyframes=None,
        output=f"out/{name}",
        frames=300 if made else None,
        seconds=12.0 if status is DONE else None,
        fps=25.0 if status is DONE else None,
        size=(1080, 1920) if made else None,
        output_bytes=1_234_567 if made else None,
        error=fault if status is FAILED else None,
    )


def report(entries: Iterable[ClipReport], *, dollars: float | None = None) -> Report:
    clips = tuple(entries)
    counts = {status: sum(one.status is status for one in clips) for status in ClipStatus}
    return Report(
        keyscale="0.1.0",
        began="2026-01-02T03:04:05+00:00",
        seconds=245.0,
        finished=True,
        done=counts[DONE],
        skipped=counts[SKIPPED],
        failed=counts[FAILED],
        stopped=counts[STOPPED],
        frames=300 * counts[DONE],
        dollars=dollars,
        clips=clips,
    )


WHY = Failed(error="InputError", message="c.mp4 has no video stream", remedy="Give a video.", exit_code=3)
INFO = Note(level="info", message="device: cpu")
WARNING = Note(level="warning", message="untagged colour is read as BT.709")
END = BatchDone(report=report([entry(DONE), entry(SKIPPED, "b.mp4"), entry(FAILED, "c.mp4")]))
RUN: tuple[BatchEvent, ...] = (
    clip(WAITING),
    clip(WAITING, index=1),
    clip(WAITING, index=2),
    clip(RUNNING),
    clip(RUNNING, progress(0)),
    clip(RUNNING, INFO),
    clip(RUNNING, WARNING),
    total(),
    clip(RUNNING, progress(0, phase=Phase.PREPARE), index=1),
    clip(SKIPPED, done("out/b.mp4", skipped=True), index=1),
    clip(RUNNING, progress(150)),
    clip(FAILED, WHY, index=2),
    clip(DONE, done(lost=2)),
    total(),
    END,
)


def shown(
    kind: str,
    events: Iterable[Shown],
    *,
    quiet: bool = False,
    verbosity: int = 0,
    terminal: bool = False,
    path: str | None = None,
) -> tuple[str, str]:
    """stdout and stderr of a batch of `events`."""
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    with batch_renderer(
        kind, quiet=quiet, verbosity=verbosity, report=path, stdout=out, stderr=err, clock=Clock()
    ) as view:
        for event in events:
            view.handle(event)
    return out.getvalue(), err.getvalue()


def screen(text: str) -> list[str]:
    """The lines that a terminal of any size shows once `text` was written to it, without colours."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif not piece.startswith(ESCAPE):
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
        elif piece.endswith("A"):
            row -= int(piece[2:-1])
            assert row >= 0, "the cursor has left the top"
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece == "\x1b[0J":
            lines = [*lines[:row], lines[row][:column]]
        else:
            assert piece[-1] in "mhl", f"what does {piece!r} do?"
    while lines and not lines[-1]:
        lines.pop()
    return [line.rstrip() for line in lines]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


# Where things go


@pytest.mark.parametrize("kind", ["rich", "plain", "none", "auto"])
@pytest.mark.parametrize("quiet", [False, True])
def test_stdout_has_the_path_of_each_clip_that_was_made_as_it_finishes(kind: str, quiet: bool) -> None:
    assert shown(kind, RUN, quiet=quiet)[0] == "out/a.mp4\n"


def test_a_path_is_there_as_soon_as_its_clip_is() -> None:
    out = io.StringIO()
    with batch_renderer("plain", stdout=out, stderr=io.StringIO()) as view:
        for event in RUN[:-2]:
            view.handle(event)
        assert out.getvalue() == "out/a.mp4\n"


@pytest.mark.parametrize("kind", ["rich", "plain", "none"])
def test_a_path_cannot_steer_the_terminal_that_it_is_written_to(kind: str) -> None:
    evil = "\x1b]0;owned\x07x.mp4"
    for out, told in ((Terminal(), "\\x1b]0;owned\\x07x.mp4\n"), (io.StringIO(), f"{evil}\n")):
        with batch_renderer(kind, stdout=out, stderr=Terminal()) as view:
            view.handle(clip(DONE, done(evil)))
        assert out.getvalue() == told


def test_a_path_keeps_the_bytes_of_its_name() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    with batch_renderer("plain", stdout=out, stderr=io.StringIO()) as view:
        view.handle(clip(DONE, done(NOT_UTF8)))
    assert isinstance(out.buffer, io.BytesIO)
    assert out.buffer.getvalue() == b"caf\xe9.mp4\n"


def test_json_goes_to_stdout_and_nothing_to_stderr() -> None:
    out, err = shown("json", RUN)
    assert err == ""
    assert len(out.splitlines()) == len(RUN)


@pytest.mark.parametrize(
    ("terminal", "term", "bars"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_auto_draws_bars_only_on_a_terminal_that_can(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, bars: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    assert (ESCAPE in shown("auto", RUN, terminal=terminal)[1]) is bars


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        batch_renderer("loud")


# Plain


def test_plain_has_a_line_where_a_clip_begins_and_one_where_it_ends() -> None:
    assert shown("plain", RUN)[1].splitlines() == [
        "a.mp4: begun, 300 frames",
        "a.mp4: warning: untagged colour is read as BT.709",
        "b.mp4: skipped, its result is there and came from the same job (300 frames)",
        "c.mp4: failed: c.mp4 has no video stream",
        "  -> Give a video.",
        "a.mp4: warning: 2 source frames could not be decoded and were bridged",
        "a.mp4: done, 300 frames in 0:12, 25 fps",
        "clip   status   frames  time  fps       size   bytes",
        "a.mp4  done        300  0:12   25  1080x1920  1.2 MB",
        "b.mp4  skipped     300             1080x1920  1.2 MB",
        "c.mp4  failed",
        "  no video stream",
        "  -> Give a video.",
        "1 done, 1 skipped, 1 failed in 4:05",
    ]


def test_plain_has_a_line_on_all_clips_every_thirty_seconds_at_most() -> None:
    err, clock = io.StringIO(), Clock()
    with batch_renderer("plain", stdout=io.StringIO(), stderr=err, clock=clock) as view:
        for _ in range(66):
            view.handle(total())
            clock.now += 1
        view.handle(total(planned=40, dollars=0.1234, fps=None, eta_s=None, frame=0, total=0, failed=0))
        clock.now += 30
        view.handle(total(planned=40, dollars=0.1234, fps=None, eta_s=None, frame=0, total=0, failed=0))
    assert err.getvalue().splitlines() == [
        "12 of 40 clips, 9 done, 2 skipped, 1 failed, 2 running, 1200/4800 frames, 12.3 fps, ETA 5:00, elapsed 0:30",
        "12 of 40 clips, 9 done, 2 skipped, 1 failed, 2 running, 1200/4800 frames, 12.3 fps, ETA 5:00, elapsed 1:00",
        "11 of 40 clips, 9 done, 2 skipped, 2 running, elapsed 1:36, $0.123",
    ]


def test_frames_of_clips_that_are_not_planned_yet_are_hinted_at() -> None:
    err, clock = io.StringIO(), Clock()
    with batch_renderer("plain", stdout=io.StringIO(), stderr=err, clock=clock) as view:
        clock.now += 30
        view.handle(total(planned=20, eta_s=None))
    assert "1200/4800+ frames" in err.getvalue()


def test_plain_says_how_long_a_clip_took_to_fail_and_what_was_resumed_paid_and_stored() -> None:
    err, clock = io.StringIO(), Clock()
    with batch_renderer("plain", stdout=io.StringIO(), stderr=err, clock=clock) as view:
        view.handle(clip(RUNNING))
        clock.now += 65
        view.handle(clip(FAILED, WHY))
        view.handle(clip(DONE, done(resumed=60, dollars=0.5), index=1))
        view.handle(clip(DONE, done(resumed=300), index=2))
    assert err.getvalue().splitlines() == [
        "a.mp4: failed after 1:05: c.mp4 has no video stream",
        "  -> Give a video.",
        "b.mp4: done, 300 frames in 0:12, 20 fps, 60 taken from an earlier run, $0.500 at list prices",
        "c.mp4: done, 300 frames in 0:12, 300 taken from an earlier run",
    ]


def test_a_clip_that_is_begun_again_is_said_to_be() -> None:
    again: list[Shown] = [clip(RUNNING, progress(0)), clip(WAITING), clip(RUNNING, progress(0))]
    assert shown("plain", again)[1].splitlines() == ["a.mp4: begun, 300 frames"] * 2


def test_a_clip_ends_once() -> None:
    out, err = shown("plain", [clip(DONE, done()), clip(DONE, done()), clip(FAILED, WHY), clip(RUNNING, progress(1))])
    assert (out.count("\n"), err.count("\n")) == (1, 1)


def test_of_stopped_clips_only_those_that_ran_are_named() -> None:
    events = [clip(WAITING, index=1), clip(RUNNING, progress(1)), clip(STOPPED), clip(STOPPED, index=1)]
    assert shown("plain", events)[1].splitlines()[1:] == ["a.mp4: stopped; what is finished is kept"]


def test_notes_of_a_clip_are_shown_where_they_are_asked_for_and_those_of_the_batch_always() -> None:
    stopping = Note(level="info", message="stopping: finished chunks are kept")
    assert shown("plain", [clip(RUNNING, INFO), stopping])[1].splitlines() == [stopping.message]
    verbose = shown("plain", [clip(RUNNING, INFO), stopping], verbosity=1)[1].splitlines()
    assert verbose[0] == "[     0.0 s] a.mp4: device: cpu"


@pytest.mark.parametrize("kind", ["plain", "none"])
def test_plain_text_has_no_escape_codes_even_on_a_terminal(kind: str) -> None:
    assert ESCAPE not in shown(kind, RUN, terminal=True)[1]


# Quiet


@pytest.mark.parametrize("kind", ["auto", "rich", "plain"])
def test_quiet_leaves_warnings_and_failures_only(kind: str) -> None:
    assert shown(kind, (*RUN, INFO), quiet=True, terminal=True) == shown("none", RUN)


def test_none_prints_warnings_and_failures_only() -> None:
    *lines, closing = shown("none", RUN)[1].splitlines()
    assert closing.startswith("1 done, 1 skipped, 1 failed in ")
    assert lines == [
        "a.mp4: warning: untagged colour is read as BT.709",
        "c.mp4: failed: c.mp4 has no video stream",
        "  -> Give a video.",
        "a.mp4: warning: 2 source frames could not be decoded and were bridged",
    ]


def test_quiet_json_keeps_warnings_results_and_the_end() -> None:
    lines = [json.loads(line) for line in shown("json", (*RUN[:-1], INFO, WARNING, END), quiet=True)[0].splitlines()]
    assert [(line["event"], line.get("status")) for line in lines] == [
        ("clip", "running"),
        ("clip", "skipped"),
        ("clip", "failed"),
        ("clip", "done"),
        ("note", None),
        ("batch_done", None),
    ]
    assert lines[0]["of"]["level"] == "warning"


@pytest.mark.parametrize("kind", ["rich", "plain", "none"])
def test_what_ends_the_batch_itself_is_not_printed_twice(kind: str) -> None:
    """Whoever ends the process prints it."""
    assert WHY.message not in shown(kind, [WHY])[1]


# JSON


def test_json_lines_are_the_events() -> None:
    lines = shown("json", RUN)[0].splitlines()
    assert lines == [as_json(event) for event in RUN]
    last = json.loads(lines[-1])
    assert (last["event"], last["schema"], last["report"]["failed"]) == ("batch_done", 1, 1)
    assert json.loads(lines[12])["of"]["output"] == "out/a.mp4"


def test_json_has_exactly_one_last_word() -> None:
    words = [json.loads(line)["event"] for line in shown("json", [total(), END, WHY, END, total()])[0].splitlines()]
    assert words == ["batch", "batch_done"]
    words = [json.loads(line)["event"] for line in shown("json", [total(), WHY, END])[0].splitlines()]
    assert words == ["batch", "error"]


def test_json_of_names_that_are_not_utf8_is_readable_by_any_parser() -> None:
    events: list[Shown] = [
        clip(DONE, done(NOT_UTF8), name=NOT_UTF8),
        BatchDone(report=report([entry(FAILED, NOT_UTF8)])),
    ]
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with batch_renderer("json", stdout=raw) as view:
        for event in events:
            view.handle(event)
    assert isinstance(raw.buffer, io.BytesIO)
    first, last = (json.loads(line) for line in raw.buffer.getvalue().decode().splitlines())
    assert (first["clip"], first["of"]["output"]) == ("caf\\udce9.mp4", "caf\\udce9.mp4")
    assert last["report"]["clips"][0]["clip"] == "caf\\udce9.mp4"


# The table at the end


def table(entries: Iterable[ClipReport], *, path: str | None = None, kind: str = "plain") -> list[str]:
    return screen(shown(kind, [BatchDone(report=report(entries))], path=path, terminal=kind == "rich")[1])


def test_the_table_is_the_same_on_a_terminal() -> None:
    entries = [entry(DONE), entry(SKIPPED, "b.mp4"), entry(FAILED, "c.mp4"), entry(STOPPED, "d.mp4")]
    assert table(entries, kind="rich") == table(entries)


def test_small_files_are_told_in_smaller_units() -> None:
    [_, row, _] = table([replace(entry(DONE), output_bytes=18_761)])
    assert row.split()[-2:] == ["18.8", "kB"]


def test_a_batch_of_nothing_has_no_table() -> None:
    assert table([]) == ["0 done in 4:05"]


def test_the_last_line_tells_the_cost_of_a_remote_batch() -> None:
    text = shown("plain", [BatchDone(report=report([entry(DONE), entry(STOPPED)], dollars=1.5))])[1]
    assert text.splitlines()[-1] == "1 done, 1 stopped in 4:05, $1.500 at list prices"


def test_of_hundreds_of_clips_those_that_failed_are_listed_and_the_others_counted() -> None:
    entries = [entry(DONE, f"{number}.mp4") for number in range(300)]
    entries += [entry(SKIPPED, f"s{number}.mp4") for number in range(12)]
    entries[7] = entry(FAILED, "bad 7.mp4")
    entries[200] = entry(FAILED, "bad 200.mp4", message="truncated")
    assert table(entries, path="out/report.json") == [
        "clip         status  frames  time  fps  size  bytes",
        "bad 7.mp4    failed",
        "  no video stream",
        "  -> Give a video.",
        "bad 200.mp4  failed",
        "  truncated",
        "  -> Give a video.",
        "and 298 done, 12 skipped: out/report.json lists each of them",
        "298 done, 12 skipped, 2 failed in 4:05",
    ]


def test_without_failures_hundreds_of_clips_are_two_lines() -> None:
    assert table(entry(DONE, f"{number}.mp4") for number in range(LISTED + 1)) == [
        "41 done: --report FILE would list each of them",
        "41 done in 4:05",
    ]


def test_forty_clips_are_listed_whatever_number_failed_beside_them() -> None:
    entries = [entry(DONE, f"{number}.mp4") for number in range(LISTED)]
    entries += [entry(FAILED, f"f{number}.mp4") for number in range(60)]
    assert len(table(entries)) == 1 + LISTED + 3 * 60 + 1


@pytest.mark.parametrize("columns", [20, 33, 50, 79, 200])
@pytest.mark.parametrize("kind", ["rich", "plain"])
def test_the_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, kind: str) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ["short.mp4", "a rather long name in a folder/" * 4 + "end.mp4", "映像" * 40 + ".mp4"]
    events = [BatchDone(report=report(entry(DONE, name) for name in names))]
    lines = screen(shown(kind, events, terminal=True)[1])
    assert len(lines) == 5
    assert max(cell_len(line) for line in lines) <= columns
    assert ("1080x1920" in lines[1]) is (columns >= 79)
    assert lines[1].startswith("short.mp4")
    assert lines[2].startswith("a ra")


# Bars


class Drawn:
    """A terminal, and what a view with bars draws on it."""

    def __init__(self, err: Terminal | None = None) -> None:
        self.err = err or Terminal()
        self.clock = Clock()
        self.view: Renderer = batch_renderer("rich", stdout=io.StringIO(), stderr=self.err, clock=self.clock)

    def __enter__(self) -> Drawn:
        self.view.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.view.__exit__()

    def show(self, *events: Shown) -> None:
        for event in events:
            self.view.handle(event)

    def block(self) -> list[str]:
        """The lines that the next drawing of the block has."""
        for _ in range(2):  # the first that is seen may have been begun before
            mark = len(self.err.getvalue())
            give_up = time.monotonic() + 10
            while len(self.err.getvalue()) == mark:
                assert time.monotonic() < give_up
                time.sleep(0.01)
        return screen(self.err.getvalue().rpartition("\x1b[2K")[2])


def test_the_block_has_the_total_and_a_bar_for_each_running_clip() -> None:
    with Drawn() as drawn:
        drawn.clock.now += 65
        drawn.show(
            clip(RUNNING, progress(30, fps=2.5)),
            clip(RUNNING, Progress(phase=Phase.PREPARE, frame=5_000_000, total=10_000_000, unit="bytes"), index=1),
            clip(RUNNING, index=2),
            total(dollars=0.1234),
        )
        lines = drawn.block()
    assert re.fullmatch("total ━{40} 25 %", lines[0])
    assert lines[1:3] == [
        "12 of 40 clips, 9 done, 2 skipped, 1 failed, 2 running, 1200/4800 frames, 12.3 fps, ETA 5:00,",
        "elapsed 1:05, $0.123",
    ]
    assert [re.sub(" ?━+", " BAR", line).split() for line in lines[3:]] == [
        ["a.mp4", "upscale", "BAR", "30/300", "frames", "2.5", "fps"],
        ["b.mp4", "prepare", "BAR", "5.0/10.0", "MB"],
        ["c.mp4", "starting", "BAR"],
    ]


def test_the_remaining_time_counts_down_between_events() -> None:
    with Drawn() as drawn:
        drawn.show(total(eta_s=100.0))
        drawn.clock.now += 40
        assert "ETA 1:00" in "".join(drawn.block())


def test_before_anything_is_known_the_block_says_so() -> None:
    with Drawn() as drawn:
        assert drawn.block() == ["starting, 0:00"]


def test_a_clip_leaves_the_block_when_it_ends_and_is_a_line_above_it() -> None:
    with Drawn() as drawn:
        drawn.show(clip(RUNNING, progress(1)), clip(RUNNING, progress(1), index=1), clip(RUNNING, index=2), total())
        assert len(drawn.block()) == 6
        drawn.show(
            clip(DONE, done()), clip(SKIPPED, done(skipped=True), index=1), clip(FAILED, WHY, index=2), WARNING, total()
        )
        block = drawn.block()
        lines = screen(drawn.err.getvalue())
    assert len(block) == 3
    assert lines == [
        "✓ a.mp4: 300 frames in 0:12, 25 fps",
        "\u2013 b.mp4: skipped, its result is there and came from the same job",
        "✗ c.mp4: c.mp4 has no video stream",
        "  -> Give a video.",
        "warning: untagged colour is read as BT.709",
        *block,
    ]
    assert screen(drawn.err.getvalue()) == lines[:5]


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8, 12])
def test_the_block_is_bounded_by_the_height_of_the_terminal(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    monkeypatch.setenv("LINES", str(height))
    monkeypatch.setenv("COLUMNS", "150")
    with Drawn() as drawn:
        drawn.show(*(clip(RUNNING, progress(1), index=index) for index in range(8)), total())
        block = drawn.block()
    assert len(block) == max(1, min(10, height - 1))
    room = height - 1 - 2
    if 1 <= room < 8:
        assert block[-1] == f"and {8 - (room - 1)} more"


@pytest.mark.parametrize("columns", [20, 21, 30, 45, 60, 80, 300])
def test_the_block_fits_any_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ["a.mp4", "a rather long name in a folder/" * 4 + "end.mp4", "映像" * 40 + ".mp4", "e\u0301" * 60]
    with Drawn() as drawn:
        drawn.show(
            *(clip(RUNNING, progress(1, 123_456, fps=1234.5), index=i, name=name) for i, name in enumerate(names)),
            total(clips=100_000, total=123_456_789, frame=12_345_678),
        )
        block = drawn.block()
    assert max(cell_len(line) for line in block) <= columns
    rows = block[-4:]
    assert rows[0].startswith("a.mp4 ")
    assert rows[1].startswith("a r")
    assert ".mp4" in rows[1]
    assert "映" in rows[2]
    assert all(re.search(r"0 %|1/123456 frames", row) for row in rows)


def test_the_bars_are_gone_and_the_cursor_is_back_at_the_end() -> None:
    err = shown("rich", RUN, terminal=True)[1]
    assert err.count("\x1b[?25l") == 1
    assert err.rindex("\x1b[?25h") > err.rindex("\x1b[?25l")
    lines = screen(err)
    assert lines[-1] == "1 done, 1 skipped, 1 failed in 4:05"
    assert not [line for line in lines if line.startswith(("total", "12 of 40"))]
    assert [line for line in lines if line.startswith("clip   status")]


def test_the_cursor_is_back_after_an_error() -> None:
    err = Terminal()
    with pytest.raises(BrokenPipeError), batch_renderer("rich", stdout=io.StringIO(), stderr=err):
        raise BrokenPipeError
    assert err.getvalue().rindex("\x1b[?25h") > err.getvalue().rindex("\x1b[?25l")


def test_on_a_terminal_the_block_makes_room_for_a_path() -> None:
    both = Terminal()
    with batch_renderer("rich", stdout=both, stderr=both, clock=Clock()) as view:
        view.handle(clip(RUNNING, progress(1)))
        view.handle(total())
        time.sleep(0.3)  # the block is drawn by now
        view.handle(clip(DONE, done("out/odd name.mp4")))
        lines = screen(both.getvalue())
    assert lines[:2] == ["✓ a.mp4: 300 frames in 0:12, 25 fps", "out/odd name.mp4"]
    assert [line[:5] for line in lines[2:]] == ["total", "12 of", "elaps"]
    assert screen(both.getvalue()) == lines[:2]


def test_the_terminal_is_given_back_without_a_lock() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="utf-8") as err:
        view = batch_renderer("rich", stdout=io.StringIO(), stderr=err, clock=Clock())
        with view:
            view.handle(clip(RUNNING, progress(1)))
            view.handle(total())
            time.sleep(0.5)
            held = threading.Event()
            release = threading.Event()

            def hold() -> None:
                with view._telling, view._drawing:  # type: ignore[attr-defined]
                    held.set()
                    release.wait(60)

            thread = threading.Thread(target=hold)
            thread.start()
            held.wait(60)
            time.sleep(0.3)  # what was being drawn is through, and nothing else can be
            os.read(read, 1 << 16)
            view.restore()
            said = os.read(read, 1 << 16)
            release.set()
            thread.join()
    os.close(read)
    assert said == b"\r\x1b[3A\x1b[0J\x1b[?25h"


def test_no_color_is_honoured_and_a_bar_can_be_read_without(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    assert colour.search(shown("rich", RUN, terminal=True)[1])
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(shown("rich", RUN, terminal=True)[1])
    with Drawn() as drawn:
        drawn.show(total())
        assert drawn.block()[0] == "total " + "━" * 10 + " " * 31 + "25 %"


@pytest.mark.parametrize("message", ["[red]x[/red] :smile: [/oops]", "path [a-z].mp4"])
def test_names_and_messages_are_not_markup(message: str) -> None:
    with Drawn() as drawn:
        drawn.show(clip(RUNNING, progress(1), name=message))
        drawn.show(clip(RUNNING, Note(level="warning", message=message), name=message))
        drawn.show(total())
        assert message in drawn.block()[-1]
    assert f"{message}: warning: {message}" in screen(drawn.err.getvalue())


# Names and terminals


@pytest.mark.parametrize("kind", ["rich", "plain", "none"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "utf-16"])
def test_any_name_prints_on_any_terminal(kind: str, encoding: str) -> None:
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    names = [NOT_UTF8, "映像.mp4", "naïve 🎬.mp4"]
    with batch_renderer(kind, stdout=io.StringIO(), stderr=err) as view:
        for index, name in enumerate(names):
            view.handle(clip(RUNNING, WARNING, index=index, name=name))
        view.handle(total())
        time.sleep(0.3 if kind == "rich" else 0)
        view.handle(BatchDone(report=report(entry(FAILED, name) for name in names)))
    err.flush()
    assert isinstance(err.buffer, io.BytesIO)
    text = err.buffer.getvalue().decode(encoding)
    assert "caf\\udce9.mp4" in text
    if encoding == "ascii":
        assert text.isascii()
        assert "\\u2501" not in text  # bars and marks have forms of their own there


def test_what_is_too_long_for_an_ascii_terminal_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    with Drawn(AsciiTerminal()) as drawn:
        drawn.show(clip(RUNNING, progress(1), name="映像" * 20), total())
        block = drawn.block()
    assert all(line.isascii() for line in block)
    assert re.fullmatch(r"\\u6620.*~.*\\u50cf .*0 %", block[-1])
    assert max(len(line) for line in block) <= 30


@pytest.mark.parametrize(("kind", "quiet"), [("none", False), ("plain", True)])
def test_who_asks_for_silence_hears_how_many_failed_and_else_nothing(kind: str, quiet: bool) -> None:
    assert shown(kind, RUN, quiet=quiet)[1].splitlines()[-1].startswith("1 done, 1 skipped, 1 failed in ")
    assert shown(kind, [BatchDone(report=report([entry(DONE)]))], quiet=quiet) == ("", "")


def test_a_name_cannot_drive_the_terminal_nor_make_lines_of_its_own() -> None:
    evil = "a\n\x1b]0;owned\x07\x9b2J\u202egpj\t\u2028.mp4"
    safe = "a\\n\\x1b]0;owned\\x07\\x9b2J\\u202egpj\\t\\u2028.mp4"
    assert one_line(evil, "utf-8") == safe
    events: list[Shown] = [
        clip(RUNNING, progress(1), name=evil),
        clip(RUNNING, WARNING, name=evil),
        clip(DONE, done(), name=evil),
        clip(FAILED, WHY, index=1, name=evil),
        BatchDone(report=report([entry(DONE, evil), entry(FAILED, evil)])),
    ]
    for kind in ("plain", "none"):
        text = shown(kind, events, path=evil)[1]
        assert not set(text) & set("\x1b\x07\x9b\u202e\u2028\t")
        assert text.count(safe) >= 2
        assert all(line.startswith((safe, "  ", "clip", "1 done")) for line in text.splitlines())


@pytest.mark.parametrize("cells", range(12))
def test_a_name_gives_way_in_its_middle(cells: int) -> None:
    for name in ("clips/one.mp4", "映像映像映像.mp4"):
        cut = middle(name, cells)
        assert cell_len(cut) <= cells
        assert cells < 2 or "…" in cut
    assert middle("clips/one.mp4", 9) == "clip….mp4"
    assert middle("clips/one.mp4", 13) == "clips/one.mp4"
    assert middle("clips/one.mp4", 9, "~") == "clip~.mp4"


@pytest.fixture
def broken_pipe() -> Iterator[io.TextIOWrapper]:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", encoding="utf-8")
    yield stream
    with pytest.raises(BrokenPipeError):
        stream.close()


@pytest.mark.parametrize("kind", ["rich", "plain", "none"])
def test_a_batch_outlives_the_reader_of_its_progress(kind: str, broken_pipe: io.TextIOWrapper) -> None:
    out = io.StringIO()
    with batch_renderer(kind, stdout=out, stderr=broken_pipe) as view:
        for event in RUN:
            view.handle(event)
    assert out.getvalue() == "out/a.mp4\n"


@pytest.mark.parametrize("kind", ["rich", "plain", "none", "json"])
def test_a_reader_of_data_that_left_is_reported(kind: str, broken_pipe: io.TextIOWrapper) -> None:
    err = io.StringIO()
    with pytest.raises(BrokenPipeError), batch_renderer(kind, stdout=broken_pipe, stderr=err) as view:
        view.handle(clip(DONE, done()))


@pytest.mark.processes
def test_a_batch_without_standard_streams(tmp_path: Path) -> None:
    """As under `>&- 2>&-`, where Python has None for them."""
    flag = tmp_path / "through"
    code = (
        "import pathlib, sys\n"
        "sys.stdout = sys.stderr = None\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_batch_view import RUN\n"
        "from keyscale.cli.batch_progress import batch_renderer\n"
        "from keyscale.cli.progress import ProgressKind\n"
        "for kind in ProgressKind:\n"
        "    with batch_renderer(kind) as view:\n"
        "        for event in RUN: view.handle(event)\n"
        f"pathlib.Path({str(flag)!r}).touch()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], check=True, timeout=60)
    assert flag.exists()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not errors


@pytest.mark.parametrize("kind", ["rich", "plain", "json"])
def test_clips_may_be_told_of_from_many_threads_at_once(kind: str) -> None:
    out = Terminal() if kind == "rich" else io.StringIO()
    err = Terminal()
    with batch_renderer(kind, stdout=out, stderr=err) as view:

        def work(number: int) -> None:
            for turn in range(5):
                index, name = 5 * number + turn, f"clip {number} {turn}"
                for frame in range(0, 300, 30):
                    view.handle(clip(RUNNING, progress(frame), index=index, name=name))
                    view.handle(total())
                view.handle(clip(FAILED, WHY, index=index, name=name))
                view.handle(clip(DONE, done(f"out/{number}/{turn}"), index=index + 1000, name=name))

        in_threads(6, work)
    lines = out.getvalue().splitlines()
    if kind == "json":
        assert len([json.loads(line) for line in lines]) == 6 * 5 * 22
        return
    assert sorted(lines) == sorted(f"out/{number}/{turn}" for number in range(6) for turn in range(5))
    lines = screen(err.getvalue())
    failures = [at for at, line in enumerate(lines) if WHY.message in line]
    assert len(failures) == 30
    assert all(lines[at + 1] == "  -> Give a video." for at in failures)


@pytest.mark.processes
def test_loading_the_view_loads_neither_the_engine_nor_rich() -> None:
    code = "import sys, keyscale.cli.batch_progress; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"rich", "msgspec", "numpy", "keyscale.engine.batch.events"} & set(loaded.stdout.split())
