"""The command line as a whole: commands, exit codes, messages, signals, and what start-up does not load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.clips import make_clip

import keyscale
from keyscale.cli.app import run
from keyscale.cli.signals import stopping
from keyscale.engine import request
from keyscale.engine.choices import Codec, Fit, Mode
from keyscale.engine.errors import (
    EncoderError,
    FramingError,
    InputError,
    Interrupted,
    KeyscaleError,
    RemoteError,
    UsageError,
    VerificationError,
)
from keyscale.engine.system import bound_cores

MAIN = "from keyscale.cli.app import main; main()"


def keyscale_process(*args: str, code: str = MAIN, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


# Help


@pytest.mark.parametrize("args", [["--help"], ["-h"]])
def test_help_names_the_commands_and_shows_examples(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for word in ("upscale", "plan", "models", "Examples"):
        assert word in out


def test_without_arguments_the_help_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: keyscale" in err


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 2
    assert "error" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr() == (f"keyscale {keyscale.__version__}\n", "")


@pytest.mark.processes
def test_the_package_runs_as_a_module_too() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "keyscale", "nosuch.mp4"], check=False, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 3
    assert said.stderr.startswith("error: cannot read nosuch.mp4")


FLAGS = (
    "--output -o --overwrite --size --fit --fps --start --end --mode --model --denoise --steady --offline --device "
    "--precision --tile --codec --crf --preset --bit-depth --no-audio --chunk-seconds --resume --no-resume "
    "--verify --keep-going-on-decode-errors --progress --local --quiet -q --verbose -v"
)


@pytest.mark.parametrize("command", ["upscale", "plan"])
def test_the_help_of_a_command_lists_every_flag_in_groups(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run([command, "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    for word in [*FLAGS.split(), "VIDEO", "KEYFRAMES.json", "Input:", "Framing:", "Output:", "Model:", "Running:"]:
        assert word in words


@pytest.mark.processes
@pytest.mark.parametrize("args", [["--help"], ["upscale", "--help"], ["plan", "--help"], ["models", "--help"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    """It answers at once; whoever imports a network to print a flag's name makes everyone wait."""
    code = (
        "import sys\n"
        "from keyscale.cli.app import run\n"
        f"code = run({args!r})\n"
        "heavy = {'torch', 'av', 'numpy', 'PIL', 'modal', 'boto3', 'msgspec', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    found = keyscale_process(code=code)
    assert (found.returncode, found.stderr) == (0, "[]\n")


# Commands


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The options that make a request, which then ends the command."""
    seen: list[dict[str, object]] = []

    def request_of(values: dict[str, object]) -> None:
        seen.append(values)
        raise UsageError("enough")

    monkeypatch.setattr(request, "request_of", request_of)
    return seen


@pytest.mark.parametrize(
    "args",
    [
        ["upscale", "a.mp4", "k.json", "--mode", "quality"],
        ["a.mp4", "k.json", "--mode", "quality"],
        ["--mode", "quality", "a.mp4", "k.json"],
        ["a.mp4", "--mode", "quality", "--", "k.json"],
        ["plan", "a.mp4", "k.json", "--mode", "quality"],
        ["plan", "--json", "a.mp4", "k.json", "--mode", "QUALITY"],
    ],
)
def test_the_word_upscale_may_be_left_out(args: list[str], asked: list[dict[str, object]]) -> None:
    assert run(args) == 2
    [flags] = asked
    assert (flags["video"], flags["keyframes"], flags["mode"]) == (
        "a.mp4",
        "k.json",
        Mode.QUALITY,
    )


@pytest.mark.parametrize(
    ("args", "video"),
    [
        (["./plan"], "./plan"),
        (["--", "-odd.mp4"], "-odd.mp4"),
        (["upscale", "--", "-odd.mp4"], "-odd.mp4"),
        (["upscale", "plan"], "plan"),
        ([os.fsdecode(b"caf\xe9.mp4")], os.fsdecode(b"caf\xe9.mp4")),
    ],
)
def test_odd_names_of_videos(args: list[str], video: str, asked: list[dict[str, object]]) -> None:
    assert run(args) == 2
    assert asked[0]["video"] == video


def test_choices_ignore_case(asked: list[dict[str, object]]) -> None:
    flags = "--mode FAST --fit Contain --codec HEVC --precision FP16 --verify Quick --progress NONE"
    assert run(["a.mp4", *flags.split(" ")]) == 2
    assert asked[0]["fit"] is Fit.CONTAIN
    assert asked[0]["codec"] is Codec.HEVC


def test_local_is_accepted(asked: list[dict[str, object]]) -> None:
    assert run(["a.mp4", "--local"]) == 2
    assert len(asked) == 1


def test_a_mistyped_command_is_not_taken_for_a_video(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["upscal", "a.mp4"]) == 2
    assert "Did you mean 'keyscale upscale'?" in capsys.readouterr().err


def test_a_video_named_nearly_like_a_command_is_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, object]]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").touch()
    assert run(["model"]) == 2
    assert asked[0]["video"] == "model"


# Failures


@pytest.mark.parametrize(
    "args",
    [
        ["upscale"],
        ["a.mp4", "k.json", "extra"],
        ["a.mp4", "--no-such-flag"],
        ["a.mp4", "--mode", "slow"],
        ["a.mp4", "--crf", "low"],
        ["a.mp4", "--size", "0x0"],
        ["a.mp4", "--size"],
        ["plan", "a.mp4", "--tile", "3"],
        ["models", "no-such-command"],
    ],
)
def test_a_wrong_command_line_is_one_message_and_exit_code_2(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("  -> ")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (KeyscaleError("what", remedy="do"), 1),
        (UsageError("what", remedy="do"), 2),
        (FramingError("what", remedy="do"), 2),
        (InputError("what", remedy="do"), 3),
        (EncoderError("what", remedy="do"), 4),
        (RemoteError("what", remedy="do"), 5),
        (VerificationError("what", remedy="do"), 6),
        (Interrupted("what", remedy="do"), 130),
        (Interrupted("what", remedy="do", exit_code=143), 143),
    ],
)
@pytest.mark.parametrize("command", ["upscale", "plan"])
def test_an_error_becomes_its_exit_code_and_one_message(
    error: KeyscaleError,
    exit_code: int,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_with(error, monkeypatch)
    assert run([command, "a.mp4"]) == exit_code
    assert capsys.readouterr() == ("", "error: what\n  -> do\n")


def test_an_error_without_a_remedy_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(InputError("no video stream"), monkeypatch)
    assert run(["a.mp4"]) == 3
    assert capsys.readouterr().err == "error: no video stream\n"


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (ZeroDivisionError("by zero"), 1, "ZeroDivisionError"),
        (MemoryError(), 4, "memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(5, "Input/output error"), 1, "OSError"),
        (RuntimeError("can't start new thread"), 4, "thread"),
    ],
)
def test_any_other_exception_is_a_message_too(
    error: BaseException,
    exit_code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_with(error, monkeypatch)
    assert run(["a.mp4"]) == exit_code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


def limited_process(mebibytes: int, *args: str) -> subprocess.CompletedProcess[str]:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({mebibytes << 20},) * 2)"
    return keyscale_process(*args, code=f"{limit}; {MAIN}")


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.parametrize("mebibytes", [200, 300, 600])  # OpenBLAS ends the process, or OpenVINO crashes
@pytest.mark.parametrize("command", ["upscale", "plan"])
def test_too_little_address_space_is_told_before_anything_is_loaded(
    command: str, mebibytes: int, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=4, rate=24)
    ended = limited_process(mebibytes, command, str(clip))
    assert ended.returncode == 4, ended.stderr
    assert ended.stderr.startswith(f"error: this process is limited to {mebibytes} MiB of address space")
    assert ended.stderr.count("\n  -> ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_address_space_that_runs_out_later_is_never_taken_for_a_defect(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=4, rate=24)
    enough_to_begin = 800 + 64 * bound_cores()
    ended = limited_process(enough_to_begin, "upscale", str(clip), "--size", "128x96", "--model", "keyscale-tiny-x2")
    assert ended.returncode in {0, 3, 4, 6}, ended.stderr
    assert "Traceback" not in ended.stderr
    if ended.returncode:
        assert ended.stderr.count("\n  -> ") == 1
        assert not list(tmp_path.glob("*.keyscale.mp4"))


def test_a_reader_that_left_ends_the_command_quietly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(BrokenPipeError(), monkeypatch)
    assert run(["a.mp4"]) == 141
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        ([], False),
        (["-v"], False),
        (["-vv"], True),
        (["-v", "-v"], True),
        (["--verbose", "-v"], True),
        (["-qvv"], True),
        (["--", "-vv"], False),
    ],
)
def test_tracebacks_are_for_vv(
    flags: list[str],
    printed: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_with(InputError("no video stream"), monkeypatch)
    assert run(["a.mp4", *flags]) == 3
    assert ("Traceback" in capsys.readouterr().err) is printed


@pytest.mark.parametrize("flags", [["--bogus", "--progress", "json"], ["--progress=json", "--crf", "x"]])
@pytest.mark.parametrize("command", [["a.mp4"], ["batch", "a.mp4", "-o", "out"]])
def test_a_command_line_that_cannot_be_parsed_is_the_last_event_too(
    command: list[str], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, *flags]) == 2
    out, err = capsys.readouterr()
    [told] = [json.loads(line) for line in out.splitlines()]
    assert (told["event"], told["exit_code"]) == ("error", 2)
    assert err.startswith(f"error: {told['message']}\n  -> ")


def test_a_failure_is_the_last_event_and_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["a.mp4", "--size", "3x4", "--progress", "json"]) == 2
    out, err = capsys.readouterr()
    [line] = out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["error"], event["exit_code"]) == ("error", "UsageError", 2)
    assert err.startswith(f"error: {event['message']}\n")


@pytest.mark.processes
def test_a_message_with_any_name_prints_on_any_terminal() -> None:
    found = keyscale_process("--start", "ü\udcff\x1b[2J", "a.mp4", PYTHONIOENCODING="ascii")
    assert found.returncode == 2
    assert found.stderr.startswith("error: --start '")
    assert "Traceback" not in found.stderr
    assert "\x1b" not in found.stderr


@pytest.mark.processes
def test_a_closed_pipe_is_no_traceback() -> None:
    for args in (["--help"], ["--version"], ["a.mp4", "--size", "3x4", "--progress", "json"]):
        read, write = os.pipe()
        os.close(read)
        try:
            found = subprocess.run(
                [sys.executable, "-c", MAIN, *args],
                check=False,
                stdout=write,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
            )
        finally:
            os.close(write)
        assert found.returncode != 0
        assert "Traceback" not in found.stderr
        assert "BrokenPipe" not in found.stderr


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def request_of(_: object) -> None:
        raise error

    monkeypatch.setattr(request, "request_of", request_of)


# Signals

BLOCKED = """
    import signal, sys, threading, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    from keyscale.cli.signals import stopping

    def say(text):
        print(text, flush=True)

    worker = threading.Thread(target=time.sleep, args=(600,))  # a forward: it cannot be interrupted
    with stopping(
        announce=lambda: say("announce"),
        farewell=lambda code: say(f"farewell {code}"),
        restore=lambda: say("restore"),
        grace=GRACE,
    ) as state:
        state.cooperative = True
        worker.start()
        say("ready")
        worker.join()
"""


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed `ready`."""
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            said = b""
            # No more than that: what a buffer held would be lost to `communicate`.
            while not said.endswith(b"\n") and (more := os.read(child.stdout.fileno(), 1)):
                said += more
            assert said == b"ready\n"
            yield child
        finally:
            child.kill()


def rest(child: subprocess.Popen[str], timeout: float = 60) -> list[str]:
    return child.communicate(timeout=timeout)[0].split("\n")[:-1]


CTRL_C_ON_IMPORT = """
import os, signal, sys

class Dropped:
    # What is raised in here is printed and forgotten.
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_IMPORT"]:
            sys.meta_path.remove(self)
            Dropped()

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C")
@pytest.mark.parametrize(
    ("module", "start"),
    [
        ("keyscale.cli.app", ["-m", "keyscale"]),
        ("keyscale.cli.app", ["-c", "from keyscale.cli.start import main; main()"]),
        ("typer", ["-m", "keyscale"]),
        ("keyscale.cli.upscale", ["-c", "from keyscale.cli.start import main; main()"]),
        ("msgspec", ["-m", "keyscale"]),
        ("av", ["-m", "keyscale"]),
        ("openvino", ["-m", "keyscale"]),
        ("keyscale.engine.pipeline.upscaler", ["-c", "from keyscale.cli.start import main; main()"]),
    ],
)
def test_ctrl_c_during_an_import_is_neither_lost_nor_shown_as_a_traceback(
    module: str, start: list[str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CTRL_C_ON_IMPORT, encoding="utf-8")
    clip = make_clip(tmp_path / "clip.mp4", frames=5, rate=25)
    output = tmp_path / "out.mp4"
    done = subprocess.run(
        [sys.executable, *start, "upscale", str(clip), "-o", str(output), "--size", "128x96"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "INTERRUPTED_IMPORT": module},
    )
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    assert not output.exists()


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_finalizer_is_not_lost(signum: signal.Signals) -> None:
    code = f"""
        import os, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from keyscale.cli.signals import SignalReceived, stopping

        class Dropped:
            # What is raised in here is printed and forgotten.
            def __del__(self):
                os.kill(os.getpid(), {int(signum)})
                for _ in range(100):
                    pass

        def drop():
            Dropped()
            print("dropped", flush=True)

        print("ready", flush=True)
        try:
            with stopping(announce=lambda: None, farewell=print, restore=lambda: None):
                drop()
        except SignalReceived as error:
            print(error.exit_code)
    """
    with process(code) as child:
        assert rest(child) == [f"{128 + signum}"]


@pytest.mark.processes
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_run_that_does_not_stop_is_ended_by_force(signum: signal.Signals, code: int) -> None:
    with process(BLOCKED.replace("GRACE", "1.5")) as child:
        began = time.monotonic()
        child.send_signal(signum)
        assert rest(child) == ["announce", f"farewell {code}", "restore"]
        assert child.returncode == code
        assert time.monotonic() - began >= 1.4


@pytest.mark.processes
def test_a_second_signal_does_not_wait() -> None:
    with process(BLOCKED.replace("GRACE", "600")) as child:
        child.send_signal(signal.SIGINT)
        assert child.stdout is not None
        assert child.stdout.readline() == "announce\n"
        child.send_signal(signal.SIGINT)
        assert rest(child) == ["farewell 130", "restore"]
        assert child.returncode == 130


@pytest.mark.processes
def test_a_closed_terminal_that_sends_its_signal_twice_is_no_second_signal() -> None:
    with process(BLOCKED.replace("GRACE", "1.5")) as child:
        began = time.monotonic()
        child.send_signal(signal.SIGHUP)
        assert child.stdout is not None
        assert child.stdout.readline() == "announce\n"
        child.send_signal(signal.SIGHUP)
        assert rest(child) == ["farewell 129", "restore"]
        assert child.returncode == 129
        assert time.monotonic() - began >= 1.4


@pytest.mark.processes
def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    code = """
        import signal, sys
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        from keyscale.cli.signals import stopping

        with stopping(announce=lambda: None, farewell=lambda code: None, restore=lambda: None, grace=60) as state:
            state.cooperative = True
            print("ready", flush=True)
            print(state.stop.wait(1.0), flush=True)
        print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True)
    """
    with process(code) as child:
        child.send_signal(signal.SIGHUP)
        assert rest(child) == ["False", "True"]
        assert child.returncode == 0


@pytest.mark.processes
def test_a_run_that_stops_is_left_to_end_itself() -> None:
    code = """
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from keyscale.cli.signals import stopping

        def forced(code):
            print("forced", flush=True)

        with stopping(
            announce=lambda: print("announce", flush=True),
            farewell=forced,
            restore=lambda: None,
            grace=60,
        ) as state:
            state.cooperative = True
            print("ready", flush=True)
            state.stop.wait()
        print("left", signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
        sys.exit(state.exit_code)
    """
    with process(code) as child:
        child.send_signal(signal.SIGTERM)
        assert rest(child) == ["announce", "left True"]
        assert child.returncode == 143


@pytest.mark.processes
def test_while_nothing_watches_the_signal_is_raised() -> None:
    """Checks before the work need not know of signals, and clean up after themselves."""
    code = """
        import signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from keyscale.cli.signals import SignalReceived, stopping

        try:
            with stopping(announce=lambda: None, farewell=lambda code: None, restore=lambda: None, grace=60):
                try:
                    print("ready", flush=True)
                    time.sleep(600)
                finally:
                    print("cleaned", flush=True)
        except SignalReceived as stopped:
            sys.exit(stopped.exit_code)
    """
    with process(code) as child:
        child.send_signal(signal.SIGTERM)
        assert rest(child) == ["cleaned"]
        assert child.returncode == 143


@pytest.mark.processes
def test_a_message_that_nobody_reads_does_not_hold_the_end() -> None:
    code = BLOCKED.replace("GRACE", "0.5").replace(
        'announce=lambda: say("announce")', "announce=lambda: time.sleep(600)"
    )
    with process(code) as child:
        child.send_signal(signal.SIGINT)
        assert rest(child) == ["farewell 130", "restore"]
        assert child.returncode == 130


@pytest.mark.processes
def test_a_bar_gives_the_cursor_back_when_ended_by_force() -> None:
    code = """
        import signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from keyscale.cli.progress import renderer
        from keyscale.cli.signals import stopping
        from keyscale.engine.events import Note, Phase, Progress

        sys.stderr = sys.stdout
        print("ready", flush=True)
        with renderer("rich", stderr=sys.stdout) as view:
            view.handle(Progress(phase=Phase.UPSCALE, frame=1, total=9))
            with stopping(
                announce=lambda: view.handle(Note(level="info", message="stopping")),
                farewell=lambda code: None,
                restore=view.restore,
                grace=0.5,
            ) as state:
                state.cooperative = True
                signal.raise_signal(signal.SIGINT)
                time.sleep(600)
    """
    with process(code) as child:
        out = child.communicate(timeout=60)[0]
        assert child.returncode == 130
        assert "stopping" in out
        assert out.rindex("\x1b[?25h") > out.rindex("\x1b[?25l")


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping(announce=_never, farewell=_never_coded, restore=_never) as state:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
            assert not state.stop.wait(0.1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_installed() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    during = []

    def work() -> None:
        with stopping(announce=_never, farewell=_never_coded, restore=_never):
            during.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]


def _never() -> None:
    raise AssertionError


def _never_coded(_code: int) -> None:
    raise AssertionError
