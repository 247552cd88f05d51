"""What lies in examples/ does what it says: scripts, rule, workflow and service are run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.clips import make_clip
from support.numbered import SMALL, shown

from keyscale.cli.batch import GRACE_S, REMOTE_GRACE_S
from keyscale.engine.workspace.folder import beneath, work_folder_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
KEYSCALE = Path(sys.executable).parent / "keyscale"

QUICK = ["--model", "lanczos", "--size", f"{SMALL[0]}x{SMALL[1]}", "--fps", "source", "--preset", "ultrafast"]
FRAMES = 12
CAMERA = f'[{{"time": 0, "x": 0, "y": 0, "width": {SMALL[0]}, "height": {SMALL[1]}}}]'
NAMES = ["plain", "it's two words", '--overwrite "$(date)"; #']

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="the examples are for POSIX shells"), pytest.mark.processes]


def variables(**more: str) -> dict[str, str]:
    """The environment of a shell that finds keyscale."""
    return os.environ | {"PATH": f"{KEYSCALE.parent}{os.pathsep}{os.environ['PATH']}"} | more


def shell(*command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=variables(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def add_clip(folder: Path, name: str) -> Path:
    """A video and its keyframes."""
    (folder / f"{name}.json").write_text(CAMERA)
    return make_clip(folder / f"{name}.mp4", frames=FRAMES, rate=25, size=SMALL)


def is_whole(path: Path) -> bool:
    return shown(path) == list(range(FRAMES))


def times_of(folder: Path) -> dict[str, int]:
    """When each result was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.iterdir())}


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """Three clips with difficult names, and a video without keyframes."""
    folder = tmp_path / "my talks"
    folder.mkdir()
    for name in NAMES:
        add_clip(folder, name)
    make_clip(folder / "alone.mp4", frames=FRAMES, rate=25, size=SMALL)
    return folder


def test_every_example_is_explained() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    made_by_demo = {path.name for path in EXAMPLES.glob("court-*.mp4")}
    for path in EXAMPLES.iterdir():
        if path.is_file() and path.name[0] != "." and path.name not in {"README.md", *made_by_demo}:
            assert f"]({path.name})" in text


# Scripts


@pytest.mark.parametrize(("script", "failed"), [("upscale-folder.sh", 1), ("upscale-parallel.sh", 123)])
def test_a_script_makes_every_clip_of_a_folder_and_again_only_what_is_missing(
    talks: Path, tmp_path: Path, script: str, failed: int
) -> None:
    broken = add_clip(talks, "broken")
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    command: list[str | Path] = [EXAMPLES / script, talks, tmp_path / "out put", *QUICK]

    first = shell(*command, cwd=tmp_path)
    assert first.returncode == failed, first.stderr
    assert "broken.mp4" in first.stderr
    made = times_of(tmp_path / "out put")
    assert sorted(made) == sorted(f"{name}.mp4" for name in NAMES)
    assert all(is_whole(tmp_path / "out put" / name) for name in made)

    broken.write_bytes(whole)
    second = shell(*command, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    again = times_of(tmp_path / "out put")
    assert is_whole(tmp_path / "out put" / "broken.mp4")
    assert again | made == again, "what was there was made again"
    assert len(again) == len(made) + 1


@pytest.mark.parametrize("script", ["upscale-folder.sh", "upscale-parallel.sh"])
def test_a_script_says_how_it_is_used(tmp_path: Path, script: str) -> None:
    done = shell(EXAMPLES / script, tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    assert f"#   {script} FOLDER OUTDIR" in text or f"#   JOBS=4 {script} FOLDER OUTDIR" in text
    assert os.access(EXAMPLES / script, os.X_OK)


@pytest.mark.parametrize("script", ["upscale-folder.sh", "upscale-parallel.sh"])
def test_a_folder_may_be_relative_and_begin_with_a_dash_or_hold_nothing(tmp_path: Path, script: str) -> None:
    (tmp_path / "-in").mkdir()
    assert shell(EXAMPLES / script, "-in", "-out", *QUICK, cwd=tmp_path).returncode == 0
    add_clip(tmp_path / "-in", "a")
    done = shell(EXAMPLES / script, "-in/", "-out/", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert is_whole(tmp_path / "-out" / "a.mp4")


@pytest.mark.slow
def test_an_interrupted_loop_ends_and_the_next_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.json").write_text(CAMERA)
        make_clip(tmp_path / "in" / f"{name}.mp4", frames=1500, rate=25, size=SMALL)
    command = [str(EXAMPLES / "upscale-folder.sh"), "in", "out", *QUICK, "--chunk-seconds", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=variables(), start_new_session=True, stderr=subprocess.PIPE
    ) as run:
        work = work_folder_of(tmp_path / "out" / "a.mp4")
        wait_for(lambda: sum(path.match("chunk-*.json") for path in beneath(work)) > 2)
        os.killpg(run.pid, signal.SIGINT)
        run.communicate(timeout=60)
    assert run.returncode in {130, -signal.SIGINT}
    assert not list((tmp_path / "out").glob("*.mp4"))
    done = shell(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stderr
    assert shown(tmp_path / "out" / "a.mp4") == shown(tmp_path / "out" / "b.mp4") == list(range(1500))


@pytest.mark.parametrize(
    "command",
    [
        ["upscale", "in.mp4", "-o", "$name.mp4", *QUICK],
        ["upscale", "absent.mp4"],
        ["plan", "in.mp4"],
        ["models", "list"],
        pytest.param(["batch", "folder", "-o", "out", *QUICK], marks=pytest.mark.slow),
    ],
    ids=lambda command: " ".join(command[:2]),
)
@pytest.mark.slow
def test_a_loop_that_reads_its_own_input_sees_every_line(tmp_path: Path, command: list[str]) -> None:
    make_clip(tmp_path / "in.mp4", frames=FRAMES, rate=25, size=SMALL)
    (tmp_path / "folder").mkdir()
    add_clip(tmp_path / "folder", "a")
    words = " ".join(f'"{word}"' for word in command)
    loop = f'while read -r name; do keyscale {words} >/dev/null 2>&1; echo "$name"; done'
    done = subprocess.run(
        ["sh", "-c", loop], cwd=tmp_path, env=variables(), input="one\ntwo\nthree\n", capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.stdout.split() == ["one", "two", "three"]


# The rule for make


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def rule(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return shell("make", "-k", "-j2", "-f", EXAMPLES / "clips.mk", f"FLAGS={shlex.join(QUICK)}", *more, cwd=folder)


@needs_make
def test_the_rule_makes_what_is_missing_or_older_than_its_sources(tmp_path: Path) -> None:
    names = ["plain", "it's", "a,b(c)"]
    for name in names:
        add_clip(tmp_path, name)
    make_clip(tmp_path / "alone.mp4", frames=FRAMES, rate=25, size=SMALL)
    broken = add_clip(tmp_path, "broken")
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])

    first = rule(tmp_path)
    assert first.returncode == 2, first.stdout + first.stderr
    made = times_of(tmp_path / "clips")
    assert sorted(made) == sorted(f"{name}.mp4" for name in names)
    assert all(is_whole(tmp_path / "clips" / name) for name in made)

    broken.write_bytes(whole)
    second = rule(tmp_path)
    assert second.returncode == 0, second.stderr
    assert is_whole(tmp_path / "clips" / "broken.mp4")
    assert times_of(tmp_path / "clips") | made == times_of(tmp_path / "clips"), "what was there was made again"
    assert "Nothing to be done" in rule(tmp_path).stdout


@pytest.mark.slow
@needs_make
def test_the_rule_follows_changed_keyframes_and_keeps_the_old_clip_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    add_clip(tmp_path / "in", "a")
    where = ["SOURCE=in", "CLIPS=out"]
    assert rule(tmp_path, *where).returncode == 0
    old = (tmp_path / "out" / "a.mp4").read_bytes()

    camera = tmp_path / "in" / "a.json"
    newer(camera, "{not JSON")
    assert rule(tmp_path, *where).returncode == 2
    assert (tmp_path / "out" / "a.mp4").read_bytes() == old

    newer(camera, CAMERA)  # as it was: nothing to compute, and the clip counts as new again
    assert rule(tmp_path, *where).returncode == 0
    assert (tmp_path / "out" / "a.mp4").read_bytes() == old
    assert "Nothing to be done" in rule(tmp_path, *where).stdout

    newer(camera, CAMERA.replace('"x": 0', '"x": 4').replace(f'"width": {SMALL[0]}', f'"width": {SMALL[0] - 8}'))
    assert rule(tmp_path, *where).returncode == 0
    assert (tmp_path / "out" / "a.mp4").read_bytes() != old


def newer(path: Path, text: str) -> None:
    """Write a file, and let it be younger than all that was made so far."""
    time.sleep(0.02)
    path.write_text(text)


@needs_make
def test_the_rule_refuses_names_that_make_cannot_hold_apart(tmp_path: Path) -> None:
    add_clip(tmp_path, "two words")
    add_clip(tmp_path, "words")
    done = rule(tmp_path)
    assert done.returncode == 2
    assert "spaces in their names" in done.stderr
    assert not (tmp_path / "clips").exists()


# The workflow


def run_steps(workflow: str) -> list[str]:
    """The commands of a workflow's steps, in order; enough of YAML for this one file."""
    steps = []
    lines = iter(workflow.splitlines())
    for line in lines:
        if found := re.fullmatch(r" +(?:- )?run: (.+)", line):
            assert found[1][0] not in "|>\"'", "a block or a quoted text: read it as YAML does"
            steps.append(found[1])
    return steps


@needs_make
@pytest.mark.slow
def test_the_workflows_steps_run(tmp_path: Path) -> None:
    text = (EXAMPLES / "github-actions.yml").read_text(encoding="utf-8")
    assert "\t" not in text
    steps = run_steps(text)
    assert "make smoke" in steps
    # The environment that these tests run in stands for the one that the first step makes.
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "venv" / ".installed").touch()
    for step in steps:
        done = shell("bash", "-e", "-c", step, cwd=ROOT, MAKEFLAGS=f" -- SMOKE=--limit=600 VENV={tmp_path / 'venv'}")
        assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^smoke: all is well, [\d.]+ s$", done.stdout, re.MULTILINE)


# The service


def unit() -> dict[str, list[str]]:
    """The settings of the service by name; a name may be given more than once."""
    found: dict[str, list[str]] = {}
    for line in (EXAMPLES / "keyscale-watch.service").read_text(encoding="utf-8").splitlines():
        if line.strip() and line[0] not in "#;[":
            name, equals, value = line.partition("=")
            assert equals
            assert not value.endswith("\\"), "a continued line: join it first"
            found.setdefault(name, []).append(value.strip())
    return found


def words_of(command: str) -> list[str]:
    """A command line by the rules of systemd.service(5): quotes, C escapes, `%%` and `$$`; no shell.

    Specifiers and variables are refused: the example uses none.
    """
    words: list[str] = []
    word, quote, inside, i = "", "", False, 0
    escapes = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
    while i < len(command):
        char = command[i]
        i += 1
        if char == "\\" and quote != "'":
            word, inside = word + escapes.get(command[i], command[i]), True
            i += 1
        elif quote:
            quote, word = ("", word) if char == quote else (quote, word + char)
        elif char in "'\"" and not inside:
            quote, inside = char, True
        elif char in " \t":
            words += [word] if inside else []
            word, inside = "", False
        else:
            word, inside = word + char, True
    assert not quote, "a quote is not closed"
    words += [word] if inside else []
    for each in words:
        assert not re.search(r"%(?!%)|\$(?!\$)", each.replace("%%", "").replace("$$", "")), each
    return [each.replace("%%", "%").replace("$$", "$") for each in words]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/bin/a b  c", ["/bin/a", "b", "c"]),
        ("/bin/a \"b c\" 'd e'", ["/bin/a", "b c", "d e"]),
        ('/bin/a b"c d', ["/bin/a", 'b"c', "d"]),
        ("/bin/a b\\x c", ["/bin/a", "bx", "c"]),
        ("/bin/a b\\sc 100%% $$x", ["/bin/a", "b c", "100%", "$x"]),
        ("/bin/a ''", ["/bin/a", ""]),
    ],
)
def test_commands_are_read_as_systemd_does(command: str, words: list[str]) -> None:
    assert words_of(command) == words


def test_the_service_waits_as_long_as_keyscale_may_take_to_stop() -> None:
    settings = unit()
    (seconds,) = settings["TimeoutStopSec"]
    assert max(GRACE_S, REMOTE_GRACE_S) < float(seconds) <= 2 * REMOTE_GRACE_S
    assert settings["KillSignal"] == ["SIGTERM"]
    assert settings["SuccessExitStatus"] == [str(128 + signal.SIGTERM)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_service(tmp_path: Path) -> None:
    text = (EXAMPLES / "keyscale-watch.service").read_text(encoding="utf-8")
    copy = tmp_path / "keyscale-watch.service"
    copy.write_text(text.replace("/opt/keyscale/bin/keyscale", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until it holds; a failure if it does not within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


@contextlib.contextmanager
def service(root: Path) -> Iterator[subprocess.Popen[str]]:
    """What the service starts, with its folders beneath `root`."""
    settings = unit()
    (line,) = settings["ExecStart"]
    places = {"/opt/keyscale/bin/keyscale": str(KEYSCALE), "/srv/keyscale": str(root)}

    def placed(word: str) -> str:
        for old, new in places.items():
            word = word.replace(old, new)
        return word

    own = dict(word.split("=", 1) for line in settings["Environment"] for word in words_of(line))
    inside = {name: str(root / value.strip("/")) for name, value in own.items()}
    with subprocess.Popen(
        [placed(word) for word in words_of(line)],
        cwd=root,
        env=os.environ | inside,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_the_service_makes_what_arrives_and_ends_when_it_is_stopped(tmp_path: Path) -> None:
    settings = unit()
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    quick = f'model = "lanczos"\nsize = "{SMALL[0]}x{SMALL[1]}"\nfps = "source"\n'
    (tmp_path / "in" / "keyscale.toml").write_text(quick)
    add_clip(tmp_path / "in", "it's there already")
    with service(tmp_path) as process:
        wait_for((tmp_path / "out" / "it's there already.mp4").exists)
        add_clip(tmp_path / "in", "it arrives")
        wait_for((tmp_path / "out" / "it arrives.mp4").exists)
        assert process.poll() is None
        process.send_signal(getattr(signal, settings["KillSignal"][0]))
        out, _ = process.communicate(timeout=float(settings["TimeoutStopSec"][0]))
    assert str(process.returncode) in {"0", *settings["SuccessExitStatus"]}, out
    assert "Traceback" not in out
    for name in ("it's there already", "it arrives"):
        assert is_whole(tmp_path / "out" / f"{name}.mp4")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".mp4") == ["report.json"]
