"""What is seen and heard of a run by those who look elsewhere: title and taskbar of the terminal, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import typer

from keyscale.cli.terminal import SafeStream, printable

if TYPE_CHECKING:
    from keyscale.engine.events import Failed

__all__ = ["Ending", "TerminalShare", "announced"]

TITLED = re.compile(r"(xterm|screen|tmux|rxvt|alacritty|foot|st|wezterm|ghostty)\b")
"""Values of TERM of terminals that keep titles (XTWINOPS 22 and 23) and take one by OSC 2."""

TASKBAR = frozenset({"WezTerm", "ghostty", "iTerm.app", "vscode"})
"""Values of TERM_PROGRAM of terminals that show OSC 9;4; Windows Terminal and ConEmu have variables of their own."""


class TerminalShare:
    """How much of a run is done, as the terminal's title and, where it shows one, the taskbar's progress."""

    def __init__(self, stream: SafeStream, environment: Mapping[str, str]) -> None:
        is_terminal = _is_terminal(stream)
        self._stream = stream
        self._titled = is_terminal and TITLED.match(environment.get("TERM", "")) is not None
        shows = (
            environment.get("WT_SESSION") or environment.get("ConEmuPID") or environment.get("TERM_PROGRAM") in TASKBAR
        )
        self._in_taskbar = is_terminal and bool(shows)
        self._percent: int | None = None

    def show(self, done: int, total: int, of: str) -> None:
        """Tell how much is done of something, where its percent has changed."""
        percent = min(100, 100 * done // total) if total else 0
        if percent == self._percent or not (self._titled or self._in_taskbar):
            return
        text = "\x1b[22;2t" if self._titled and self._percent is None else ""
        if self._titled:
            text += f"\x1b]2;{percent} % {of}: keyscale\x07"
        if self._in_taskbar:
            text += f"\x1b]9;4;1;{percent}\x07"
        self._percent = percent
        self._stream.write(text)
        self._stream.flush()

    def end(self) -> str:
        """What gives the terminal its title back and clears the taskbar; empty where nothing was shown."""
        if self._percent is None:
            return ""
        self._percent = None
        return ("\x1b]2;\x07\x1b[23;2t" if self._titled else "") + ("\x1b]9;4;0;\x07" if self._in_taskbar else "")


@dataclass
class Ending:
    """What a run ends with."""

    output: str
    """The file, or the folder, that it makes."""


@contextlib.contextmanager
def announced(output: str, *, notify: bool, on_done: str | None) -> Iterator[Ending]:
    """Announce the end of the block, however it ends: on the terminal, and by a command.

    Args:
        output: what is made; the block may correct it.
        notify: ring the terminal's bell and ask it for a notification.
        on_done: a command for the system's shell; its environment has `KEYSCALE_DONE_OUTPUT`, `KEYSCALE_DONE_CODE`,
            which is the exit code, and `KEYSCALE_DONE_MESSAGE`. What becomes of it doesn't change the exit code.
    """
    ending, failed = Ending(output), None
    try:
        yield ending
    except BaseException as error:
        failed = _failure(error)
        raise
    finally:
        name = PurePath(ending.output).name
        code = failed.exit_code if failed is not None else 0
        message = f"{name} is done" if failed is None else f"{name} failed: {failed.message}"
        if notify:
            _notify(SafeStream(sys.stderr), printable(message), os.environ)
        if on_done is not None:
            _run(
                on_done,
                {
                    "KEYSCALE_DONE_OUTPUT": ending.output,
                    "KEYSCALE_DONE_CODE": str(code),
                    "KEYSCALE_DONE_MESSAGE": message,
                },
            )


def _is_terminal(stream: SafeStream) -> bool:
    """Whether a terminal itself reads it, not a program that draws what a terminal would."""
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):
        return False


def _failure(error: BaseException) -> Failed:
    from keyscale.engine.errors import KeyscaleError
    from keyscale.engine.events import failure

    # A batch that ends with failed clips has told them.
    if isinstance(error, typer.Exit) or not isinstance(error, Exception | KeyboardInterrupt):
        return failure(KeyscaleError("see the messages"))
    return failure(error)


def _notify(stream: SafeStream, message: str, environment: Mapping[str, str]) -> None:
    if not _is_terminal(stream):
        return
    text = message.replace(";", ",")[:200]
    # urxvt and GNOME's terminals know 777; others that know a notification know iTerm's 9.
    known = environment.get("VTE_VERSION") or environment.get("TERM", "").startswith("rxvt")
    stream.write(f"\x1b]777;notify;keyscale;{text}\x07" if known else f"\x1b]9;keyscale: {text}\x07")
    stream.write("\a")
    stream.flush()


def _run(command: str, variables: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(  # noqa: S602 - the user's own command; what varies comes in its environment
            command,
            shell=True,
            env=os.environ | variables,
            stdout=sys.stderr,  # on stdout the result's path alone is data
            check=False,
        )
    except OSError as error:
        SafeStream(sys.stderr).line(f"warning: the command of --on-done cannot be run: {error.strerror}")
        return
    if done.returncode:
        SafeStream(sys.stderr).line(f"warning: the command of --on-done ended with exit code {done.returncode}")
