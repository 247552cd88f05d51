"""The end of a run, announced; and how far it is, in the terminal's title and taskbar."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TextIO

import pytest
from support.clips import make_clip

from keyscale.cli.app import run
from keyscale.cli.notices import TerminalShare, announced
from keyscale.cli.terminal import SafeStream
from keyscale.engine.errors import InputError

XTERM = {"TERM": "xterm-256color"}


class Terminal:
    """A pseudo-terminal that nothing is typed into."""

    def __init__(self) -> None:
        self._read, write = os.openpty()
        self.stream = os.fdopen(write, "w", encoding="utf-8")

    def said(self) -> str:
        """All that was written to it."""
        self.stream.write("\0")
        self.stream.close()
        found = b""
        while not found.endswith(b"\0"):
            found += os.read(self._read, 4096)
        os.close(self._read)
        return found[:-1].decode()


def shares(environment: dict[str, str], stream: TextIO) -> None:
    share = TerminalShare(SafeStream(stream), environment)
    for done in (0, 1, 50, 50, 100):
        share.show(done, 100, "upscale")
    stream.write(share.end())


def seen(environment: dict[str, str]) -> str:
    terminal = Terminal()
    shares(environment, terminal.stream)
    return terminal.said()


def test_the_title_shows_the_share_and_comes_back() -> None:
    said = seen(XTERM)
    assert [part.split("\x07")[0] for part in said.split("\x1b]2;")[1:-1]] == [
        f"{percent} % upscale: keyscale" for percent in (0, 1, 50, 100)
    ]
    assert said.startswith("\x1b[22;2t")
    assert said.endswith("\x1b[23;2t")
    assert "\x1b]9;4" not in said


@pytest.mark.parametrize("own", [{"WT_SESSION": "1"}, {"ConEmuPID": "7"}, {"TERM_PROGRAM": "WezTerm"}])
def test_the_taskbar_shows_the_share_where_the_terminal_has_one(own: dict[str, str]) -> None:
    said = seen(own)
    assert said.count("\x1b]9;4;1;50\x07") == 1
    assert said.endswith("\x1b]9;4;0;\x07")


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}, {"TERM": "linux"}])
def test_other_terminals_are_told_nothing(environment: dict[str, str]) -> None:
    assert seen(environment) == ""


def test_a_file_is_told_nothing() -> None:
    file = io.StringIO()
    shares(XTERM | {"WT_SESSION": "1"}, file)
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("environment", "starts"),
    [
        ({"TERM": "xterm"}, "\x1b]9;keyscale: clip.mp4 is done\x07"),
        ({"VTE_VERSION": "7600"}, "\x1b]777;notify;keyscale;clip.mp4 is done\x07"),
    ],
)
def test_a_notification_is_asked_for_in_the_terminals_own_way(
    environment: dict[str, str], starts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.delenv("VTE_VERSION", raising=False)
    monkeypatch.setattr("sys.stderr", terminal.stream)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with announced("out/clip.mp4", notify=True, on_done=None):
        pass
    assert terminal.said() == f"{starts}\a"


def test_a_failure_is_announced_too_and_nothing_steers_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal.stream)
    with pytest.raises(InputError), announced("clip.mp4", notify=True, on_done=None):
        raise InputError("bad \x1b]0;title\x07 name")
    assert "clip.mp4 failed: bad \\x1b]0,title\\x07 name" in terminal.said()


COMMAND = 'echo "$KEYSCALE_DONE_CODE|$KEYSCALE_DONE_OUTPUT|$KEYSCALE_DONE_MESSAGE" >> told.txt'


@pytest.mark.processes
def test_a_command_is_run_at_the_end_whatever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "talk.mp4", frames=3, rate=30)
    flags = ["--size", "64x64", "--model", "lanczos", "--on-done", COMMAND]
    assert run(["talk.mp4", *flags]) == 0
    assert run(["talk.mp4", *flags]) == 4
    assert run(["batch", "talk.mp4", "-o", "out", *flags]) == 1
    assert run(["preview", "talk.mp4", *flags]) == 0
    assert run(["compare", "talk.mp4", "talk.keyscale.mp4", *flags]) == 0
    told = [line.split("|") for line in (tmp_path / "told.txt").read_text().splitlines()]
    assert told[0] == ["0", "talk.keyscale.mp4", "talk.keyscale.mp4 is done"]
    assert told[1][:2] == ["4", "talk.keyscale.mp4"]
    assert "already exists" in told[1][2]
    assert told[2][:2] == ["1", "out"]
    assert [line[:2] for line in told[3:]] == [["0", "talk.preview.png"], ["0", "talk.keyscale.compare.png"]]
    assert run(["talk.mp4", *flags[:-1], "echo to stdout; exit 7", "-y", "-q"]) == 0
    out, err = capfd.readouterr()
    assert "to stdout" not in out
    assert "to stdout" in err
    assert "--on-done ended with exit code 7" in err


def test_a_preset_beside_the_inputs_cannot_name_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keyscale.toml").write_text('on-done = "touch told.txt"\n')
    assert run(["talk.mp4"]) == 2
    assert "anyone's" in capsys.readouterr().err
    assert not (tmp_path / "told.txt").exists()
