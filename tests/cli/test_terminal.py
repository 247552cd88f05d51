"""What a run shows: a bar, plain lines, JSON lines or nothing, and where it goes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyscale.cli.progress import ProgressKind, renderer
from keyscale.cli.terminal import SafeStream, printable, show_failure, write_data, write_path
from keyscale.engine.errors import InputError, Interrupted, UsageError
from keyscale.engine.events import Done, Event, Failed, Note, Phase, Progress, failure
from keyscale.engine.serialization import loads

ESCAPE = "\x1b"


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(frame: int, total: int = 100, *, phase: Phase = Phase.UPSCALE, fps: float | None = None) -> Progress:
    eta = None if fps is None else (total - frame) / fps
    return Progress(phase=phase, frame=frame, total=total, fps=fps, eta_s=eta)


def done(output: str = "clip.mp4", *, lost: int = 0, resumed: int = 0) -> Done:
    return Done(
        output=output,
        frames=100,
        seconds=75.0,
        resumed_frames=resumed,
        inferred_frames=100 - resumed,
        lost_frames=lost,
        device="cpu fp32",
        model="small",
        runtime="torch",
    )


FAILED = Failed(error="InputError", message="no video stream", remedy="Give a video.", exit_code=3)
INFO = Note(level="info", message="device: cpu")
WARNING = Note(level="warning", message="untagged colour is read as BT.709")
RUN: tuple[Event, ...] = (INFO, WARNING, progress(0), progress(50), progress(100), done(lost=2))


def shown(
    kind: str, events: Iterable[Event], *, quiet: bool = False, verbosity: int = 0, terminal: bool = False
) -> tuple[str, str]:
    """stdout and stderr of a run of `events`."""
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    with renderer(kind, quiet=quiet, verbosity=verbosity, stdout=out, stderr=err, clock=Clock()) as view:
        for event in events:
            view.handle(event)
    return out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


# Where things go


@pytest.mark.parametrize("kind", ["rich", "plain", "none", "auto"])
def test_stdout_stays_free_for_data(kind: str) -> None:
    assert shown(kind, RUN)[0] == ""


def test_json_goes_to_stdout_and_nothing_to_stderr() -> None:
    out, err = shown("json", RUN)
    assert err == ""
    assert len(out.splitlines()) == len(RUN)


@pytest.mark.parametrize(
    ("terminal", "term", "bar"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_auto_draws_a_bar_only_on_a_terminal_that_can(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, bar: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    assert (ESCAPE in shown("auto", RUN, terminal=terminal)[1]) is bar


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        renderer("loud")


# Plain


def test_plain_has_a_line_where_a_phase_starts_and_ends_and_every_five_seconds_between() -> None:
    err, clock = io.StringIO(), Clock()
    with renderer("plain", stderr=err, clock=clock) as view:
        for frame in range(0, 121, 10):
            view.handle(progress(frame, 120, fps=10.0))
            clock.now += 1.0
    assert err.getvalue().splitlines() == [
        "upscale: 0/120 frames",
        "upscale: 50/120 frames, 41 %, 10 fps, ETA 0:07, elapsed 0:05",
        "upscale: 100/120 frames, 83 %, 10 fps, ETA 0:02, elapsed 0:10",
        "upscale: 120/120 frames in 0:12",
    ]


def test_plain_ends_a_phase_once_and_before_the_next_starts() -> None:
    err, clock = io.StringIO(), Clock()
    with renderer("plain", stderr=err, clock=clock) as view:
        view.handle(progress(0, 10, phase=Phase.UPSCALE))
        clock.now += 3
        view.handle(progress(10, 10, phase=Phase.UPSCALE))
        view.handle(progress(10, 10, phase=Phase.UPSCALE))
        view.handle(progress(1, 1, phase=Phase.JOIN))
        view.handle(progress(0, 10, phase=Phase.VERIFY))
        clock.now += 4000
        view.handle(done())
    assert err.getvalue().splitlines() == [
        "upscale: 0/10 frames",
        "upscale: 10/10 frames in 0:03",
        "join: 1/1 frames in 0:00",
        "verify: 0/10 frames",
        "verify: 0/10 frames in 1:06:40",
        "done: 100 frames in 1:15, 100 computed by small (torch, cpu fp32)",
    ]


def test_plain_knows_no_percentage_of_an_unknown_total() -> None:
    err, clock = io.StringIO(), Clock()
    with renderer("plain", stderr=err, clock=clock) as view:
        view.handle(progress(0, 0, phase=Phase.PREPARE))
        clock.now += 6
        view.handle(progress(7, 0, phase=Phase.PREPARE))
    assert err.getvalue().splitlines() == ["prepare: 0 frames", "prepare: 7 frames, elapsed 0:06"]


def test_plain_counts_no_bytes_of_a_network_that_need_not_be_downloaded() -> None:
    err, clock = io.StringIO(), Clock()
    with renderer("plain", stderr=err, clock=clock) as view:
        view.handle(replace(progress(0, 0, phase=Phase.FETCH), unit="bytes"))
        clock.now += 1
        view.handle(progress(0, 100))
    assert err.getvalue().splitlines()[:2] == ["fetch: the network", "fetch: the network in 0:01"]


def test_plain_prints_notes_and_what_was_resumed_and_lost() -> None:
    err = shown("plain", [INFO, WARNING, done(lost=1, resumed=40)])[1]
    assert err.splitlines() == [
        "device: cpu",
        "warning: untagged colour is read as BT.709",
        "warning: 1 source frame could not be decoded and was bridged",
        "done: 100 frames in 1:15, 40 taken from an earlier run, 60 computed by small (torch, cpu fp32)",
    ]


def test_verbose_puts_the_time_before_every_line() -> None:
    lines = shown("plain", RUN, verbosity=1)[1].splitlines()
    assert all(re.match(r"\[ +0\.0 s\] \S", line) for line in lines)


@pytest.mark.parametrize("kind", ["plain", "none"])
def test_plain_text_has_no_escape_codes_even_on_a_terminal(kind: str) -> None:
    assert ESCAPE not in shown(kind, RUN, terminal=True)[1]


# Quiet


@pytest.mark.parametrize("kind", ["auto", "rich", "plain"])
def test_quiet_leaves_warnings_only(kind: str) -> None:
    assert shown(kind, RUN, quiet=True, terminal=True) == shown("none", RUN)


def test_none_prints_warnings_only() -> None:
    assert shown("none", RUN)[1].splitlines() == [
        "warning: untagged colour is read as BT.709",
        "warning: 2 source frames could not be decoded and were bridged",
    ]


def test_quiet_json_keeps_warnings_and_the_result() -> None:
    events = [json.loads(line)["event"] for line in shown("json", RUN, quiet=True)[0].splitlines()]
    assert events == ["note", "done"]


@pytest.mark.parametrize("kind", ["rich", "plain", "none"])
def test_a_failure_is_not_printed_twice(kind: str) -> None:
    """Whoever ends the process prints it."""
    assert "no video stream" not in shown(kind, [FAILED])[1]


# JSON


def test_json_lines_are_the_events() -> None:
    lines = shown("json", RUN)[0].splitlines()
    kinds: list[type[Note] | type[Progress] | type[Done]] = [Note, Note, Progress, Progress, Progress, Done]
    assert [loads(line, kind) for line, kind in zip(lines, kinds, strict=True)] == list(RUN)
    assert all(json.loads(line)["schema"] == 1 for line in lines)


def test_json_has_exactly_one_last_word() -> None:
    out = shown("json", [progress(0), FAILED, FAILED, INFO, done()])[0]
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["progress", "error"]


def test_json_is_flushed_line_by_line() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(io.BufferedWriter(_Keep(raw)), encoding="ascii")
    with renderer("json", stdout=out) as view:
        view.handle(Note(level="info", message="über"))
        assert raw.getvalue().decode() == '{"event":"note","schema":1,"level":"info","message":"über"}\n'


def test_json_of_a_name_that_is_not_utf8_is_readable_by_any_parser() -> None:
    out = shown("json", [done(os.fsdecode(b"caf\xe9.mp4"))])[0]
    assert loads(out, Done).output == "caf\\udce9.mp4"


class _Keep(io.RawIOBase):
    """A raw stream that outlives the wrapper above it."""

    def __init__(self, kept: io.BytesIO) -> None:
        self._kept = kept

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._kept.write(data)  # type: ignore[arg-type]


# Rich


def test_the_bar_shows_phase_count_rate_and_remaining_time() -> None:
    err, clock = Terminal(), Clock()
    with renderer("rich", stderr=err, clock=clock) as view:
        clock.now += 65
        view.handle(progress(30, 120, fps=2.5))
        view.handle(INFO)
    text = plain_text(err.getvalue())
    for part in ("upscale", "30/120 frames", "2.5 fps", "ETA 0:36", "1:05"):
        assert part in text


def test_the_bar_is_gone_and_the_cursor_is_back_at_the_end() -> None:
    err = shown("rich", RUN, terminal=True)[1]
    assert err.count("\x1b[?25l") == 1
    assert err.rindex("\x1b[?25h") > err.rindex("\x1b[?25l")
    assert err.rindex("\x1b[2K") > err.rindex("frames in 1:15")


def test_the_cursor_is_back_after_an_error() -> None:
    err = Terminal()
    with pytest.raises(InputError), renderer("rich", stderr=err):
        raise InputError("no video stream")
    assert err.getvalue().rindex("\x1b[?25h") > err.getvalue().rindex("\x1b[?25l")


def test_notes_stand_above_the_bar() -> None:
    err = shown("rich", [progress(30), WARNING], terminal=True)[1]
    line = next(line for line in err.splitlines() if WARNING.message in line)
    assert "frames" not in line.partition(WARNING.message)[2]


@pytest.mark.parametrize("message", ["[red]x[/red] :smile: [/oops]", "path [a-z].mp4"])
def test_messages_are_not_markup(message: str) -> None:
    assert message in plain_text(shown("rich", [Note(level="info", message=message)], terminal=True)[1])


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    assert colour.search(shown("rich", RUN, terminal=True)[1])
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(shown("rich", RUN, terminal=True)[1])


@pytest.mark.parametrize("columns", ["20", "40", "300"])
def test_the_bar_fits_any_width(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown("rich", [progress(30_000, 123_456, fps=1234.5)], terminal=True)


def plain_text(text: str) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text)


# Names and terminals


@pytest.mark.parametrize("kind", ["rich", "plain", "none"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "utf-16"])
def test_any_name_prints_on_any_terminal(kind: str, encoding: str) -> None:
    names = [os.fsdecode(b"caf\xe9.mp4"), "映像.mp4", "naïve 🎬.mp4"]
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    with renderer(kind, stderr=err) as view:
        for name in names:
            view.handle(Note(level="warning", message=name))
        view.handle(progress(3))
        view.handle(done(lost=1))
    err.flush()
    raw = err.buffer
    assert isinstance(raw, io.BytesIO)
    assert "caf\\udce9.mp4" in plain_text(raw.getvalue().decode(encoding))


def test_a_name_cannot_drive_the_terminal() -> None:
    evil = "a\x1b]0;owned\x07\x9b2J\u202egpj.mp4"
    assert printable(evil) == "a\\x1b]0;owned\\x07\\x9b2J\\u202egpj.mp4"
    for kind in ("plain", "none"):
        assert ESCAPE not in shown(kind, [Note(level="warning", message=evil)])[1]


def test_printable_leaves_ordinary_text_alone() -> None:
    text = "naïve 映像 \u202f🎬 [1]\n\ttab"
    assert printable(text) == text


@pytest.fixture
def broken_pipe() -> Iterator[io.TextIOWrapper]:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", encoding="utf-8")
    yield stream
    with pytest.raises(BrokenPipeError):
        stream.close()


@pytest.mark.parametrize("kind", ["rich", "plain", "none"])
def test_a_run_outlives_the_reader_of_its_progress(kind: str, broken_pipe: io.TextIOWrapper) -> None:
    with renderer(kind, stderr=broken_pipe) as view:
        for event in RUN:
            view.handle(event)
    show_failure(FAILED, broken_pipe)


def test_a_reader_of_data_that_left_is_reported(broken_pipe: io.TextIOWrapper) -> None:
    with pytest.raises(BrokenPipeError), renderer("json", stdout=broken_pipe) as view:
        view.handle(INFO)


def test_a_stream_that_is_closed_is_silence() -> None:
    stream = io.StringIO()
    stream.close()
    safe = SafeStream(stream)
    assert not safe.isatty()
    safe.line("text")
    SafeStream(None).line("text")


@pytest.mark.processes
def test_progress_without_standard_streams(tmp_path: Path) -> None:
    """As under `>&- 2>&-`, where Python has None for them."""
    flag = tmp_path / "through"
    code = (
        "import pathlib, sys\n"
        "sys.stdout = sys.stderr = None\n"
        "from keyscale.cli.progress import ProgressKind, renderer\n"
        "from keyscale.cli.terminal import write_data\n"
        "from keyscale.engine.events import Note\n"
        "for kind in ProgressKind:\n"
        "    with renderer(kind) as view: view.handle(Note(level='warning', message='x'))\n"
        "write_data('x')\n"
        f"pathlib.Path({str(flag)!r}).touch()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert flag.exists()


# Results


def test_a_result_path_keeps_the_bytes_of_its_name() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    write_data(os.fsdecode(b"caf\xe9 \xc3\xbc.mp4") + "\n", out)
    assert isinstance(out.buffer, io.BytesIO)
    assert out.buffer.getvalue() == b"caf\xe9 \xc3\xbc.mp4\n"


def test_a_result_path_cannot_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "\x1b]0;owned\x07x.mp4"
    for out, told in ((Terminal(), "\\x1b]0;owned\\x07x.mp4\n"), (io.StringIO(), f"{evil}\n")):
        monkeypatch.setattr(sys, "stdout", out)
        write_path(evil)
        assert out.getvalue() == told


def test_a_result_that_the_terminal_cannot_show_is_escaped() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    write_data("ü\n", out)
    assert isinstance(out.buffer, io.BytesIO)
    assert out.buffer.getvalue() == b"\\xfc\n"


# Failures


@pytest.mark.parametrize(
    ("error", "name", "exit_code"),
    [
        (UsageError("--size 'x' is not a size", remedy="Write 1080x1920."), "UsageError", 2),
        (Interrupted("interrupted", exit_code=143), "Interrupted", 143),
        (KeyboardInterrupt(), "Interrupted", 130),
        (MemoryError(), "MemoryError", 4),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "ImportError", 4),
        (ZeroDivisionError("by zero"), "ZeroDivisionError", 1),
    ],
)
def test_every_exception_has_a_last_event(error: BaseException, name: str, exit_code: int) -> None:
    failed = failure(error)
    assert (failed.error, failed.exit_code) == (name, exit_code)
    assert failed.message


def test_an_unexpected_exception_is_named_and_says_how_to_learn_more() -> None:
    failed = failure(ZeroDivisionError("by zero"))
    assert "ZeroDivisionError: by zero" in failed.message
    assert failed.remedy is not None
    assert "-vv" in failed.remedy


def test_a_failure_for_people_is_a_message_and_a_remedy() -> None:
    err = io.StringIO()
    show_failure(FAILED, err)
    assert err.getvalue() == "error: no video stream\n  -> Give a video.\n"


def test_the_kinds_are_the_flags_values() -> None:
    assert [kind.value for kind in ProgressKind] == ["auto", "rich", "plain", "json", "none"]
