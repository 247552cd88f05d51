"""What a shell completes, asked as its script asks, and what installing the script changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keyscale.cli.app import run
from keyscale.engine.models import all_models

pytestmark = pytest.mark.processes
KEYSCALE = Path(sys.executable).with_name("keyscale")


def completed(line: str, folder: Path) -> list[str]:
    """What bash is answered at the end of a line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_KEYSCALE_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [KEYSCALE], env=os.environ | asked, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("talk.mp4", "talk.json", "other.json", "notes.txt", "in/walk.mp4", "in/walk.csv"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("keyscale ", {"upscale", "batch", "plan", "doctor", "remote"}),
        ("keyscale ba", {"batch"}),
        ("keyscale remote ", {"deploy", "status", "cancel"}),
        ("keyscale help ", {"upscale", "doctor", "keyframes", "exit-codes"}),
        ("keyscale help ex", {"exit-codes"}),
        ("keyscale --cr", {"--crf"}),
        ("keyscale talk.mp4 --si", {"--size"}),
        ("keyscale upscale talk.mp4 --no-a", {"--no-audio"}),
        ("keyscale talk.mp4 --codec h", {"h264", "hevc", "h264_nvenc", "hevc_nvenc"}),
        ("keyscale plan talk.mp4 --size s", {"short", "story", "square"}),
        ("keyscale batch in --fit ", {"cover", "contain", "stretch"}),
        ("keyscale talk.mp4 --device ", {"auto", "cpu", "cuda", "mps"}),
        ("keyscale talk.mp4 --model lan", {"lanczos"}),
        ("keyscale talk.mp4 o", {"other.json"}),
        ("keyscale in/walk.mp4 ", {"in/walk.csv"}),
        ("keyscale talk.mp4 in/", {"in/walk.csv"}),
    ],
)
def test_a_line_goes_on_with(line: str, among: set[str], folder: Path) -> None:
    assert among <= set(completed(line, folder))


def test_keyframes_of_the_videos_name_come_first_and_nothing_else_is_offered(folder: Path) -> None:
    assert completed("keyscale talk.mp4 ", folder) == ["talk.json", "other.json"]


def test_models_are_those_that_there_are(folder: Path) -> None:
    assert set(completed("keyscale talk.mp4 --model ", folder)) == {spec.name for spec in all_models()} | {"lanczos"}


def test_files_are_left_to_the_shell(folder: Path) -> None:
    assert completed("keyscale ta", folder) == []
    assert completed("keyscale talk.mp4 -o ", folder) == []


@pytest.mark.parametrize(("shell", "start"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", None)])
def test_installing_says_what_it_changed_and_changes_it_once(
    shell: str, start: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("ZDOTDIR", raising=False)
    if start is not None:
        (tmp_path / start).write_text("alias ll='ls -l'")
    assert run(["completion", shell, "--install"]) == 0
    told = capsys.readouterr().out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(str(path) in told for path in files)
    if start is not None:
        lines = (tmp_path / start).read_text().splitlines()
        assert lines[0] == "alias ll='ls -l'"
        assert len(lines) == 2
        assert lines[1] in told
        assert run(["completion", shell, "--install"]) == 0
        assert "loads it already" in capsys.readouterr().out
        assert (tmp_path / start).read_text().splitlines() == lines


def test_bash_itself_completes_with_the_installed_script(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert run(["completion", "bash", "--install"]) == 0
    capsys.readouterr()
    script = (
        'PATH="$1:$PATH"; . ~/.bashrc; COMP_WORDS=(keyscale talk.mp4 --fit co); COMP_CWORD=3; '
        '_keyscale_completion keyscale; echo "${COMPREPLY[*]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(KEYSCALE.parent)], capture_output=True, text=True, check=True, cwd=folder
    )
    assert done.stdout.split() == ["cover", "contain"]


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"]) == 2
    assert "bash, zsh, fish, powershell" in capsys.readouterr().err


def installed(shell: str, home: Path) -> dict[str, str]:
    """The environment of a shell that has the script, and nothing else of a user."""
    own = {name: value for name, value in os.environ.items() if name not in {"XDG_CONFIG_HOME", "ZDOTDIR"}}
    own |= {"HOME": str(home), "PATH": f"{KEYSCALE.parent}:{os.environ['PATH']}"}
    subprocess.run([KEYSCALE, "completion", shell, "--install"], env=own, check=True, capture_output=True)
    return own


LINES = [
    ("keyscale talk.mp4 --fit c", ["contain", "cover"]),
    ("keyscale talk.mp4 --cr", ["--crf"]),
    ("keyscale in/walk.mp4 ", ["in/walk.csv"]),
    ("keyscale ta", ["talk.json", "talk.mp4"]),
    ("keyscale talk.mp4 -o no", ["notes.txt"]),
]


def test_fish_itself_completes_with_the_installed_script(folder: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not here")
    environment = installed("fish", folder)
    script = "for line in $argv; complete -C $line; echo ---; end"
    done = subprocess.run(
        ["fish", "-c", script, *(line for line, _ in LINES)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [sorted(line.split("\t")[0] for line in part.split("\n") if line) for part in done.stdout.split("---\n")]
    assert answers[:-1] == [expected for _, expected in LINES]


ZSH = """\
zmodload zsh/zpty
zpty shell zsh -i
zpty -w shell 'PROMPT=; bindkey "^I" complete-word; unsetopt automenu; setopt nolistbeep; cd -- $FOLDER; print re''ady'
zpty -r -m shell seen '*ready*'
for line in $argv; do
  # What is on the command line once Tab was pressed, and what was listed below it.
  zpty -n -w shell "$line"$'\\t'
  zpty -n -w shell $'\\C-a print -r -- "<'$'\\C-e>"\\n'
  zpty -r -m shell seen '*<*>*<*>*'
  print -r -- "$seen" '---'
done
"""


def test_zsh_itself_completes_with_the_installed_script(folder: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not here")
    environment = installed("zsh", folder) | {"FOLDER": str(folder), "TERM": "dumb"}
    one = [("keyscale talk.mp4 --cr", "--crf"), ("keyscale in/walk.mp4 ", "in/walk.csv"), ("keyscale docto", "doctor")]
    done = subprocess.run(
        ["zsh", "-f", "-c", ZSH, "zsh", *(line for line, _ in one)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers = done.stdout.split("---\n")
    for (line, expected), answer in zip(one, answers, strict=False):
        assert f"{line.rpartition(' ')[0]} {expected}" in answer.replace("\r", "")
