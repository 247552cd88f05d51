"""A source probed in a process of its own, so that a library that crashes on it takes that process, not the command.

The process sends what it is about to do, line by line, and at last the `VideoInfo`; where it is ended by a crash, the
last line tells what crashed. FFmpeg's demuxers, decoders and PyAV meet a file for the first time here; what they get
through is then done again by the command itself.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from av import FFmpegError

from keyscale.engine.errors import InputError, KeyscaleError
from keyscale.engine.source.open import demuxed, open_source
from keyscale.engine.source.probe import VideoInfo, probe
from keyscale.engine.source.sound import decoded_sound
from keyscale.engine.wording import say

__all__ = ["main", "probe_apart"]

PROGRAM = (sys.executable, "-P", "-m", "keyscale.engine.source.apart")

END = b"\0"
"""After the last step; what follows is the answer."""

HEARD = 50
"""Frames of each track of sound that are decoded."""

CRASHES = frozenset(
    -number
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
    if (number := getattr(signal, name, None)) is not None
)
WINDOWS_CRASHES = 0xC0000000
"""From here on, codes of processes that Windows ended for what they did (NTSTATUS)."""


def probe_apart(
    path: str | Path, *, tolerate_damage: bool = False, sound: bool = True, program: Sequence[str] = PROGRAM
) -> VideoInfo:
    """As `probe`, in a process of its own; where none can be started, in this one.

    Args:
        path: the file.
        tolerate_damage: as of `probe`.
        sound: as of `probe`; with it the head of each track is decoded too.
        program: what is started.

    Raises:
        InputError: as `probe`; or a library crashed on the file.
    """
    command = [*program, str(path), str(int(tolerate_damage)), str(int(sound))]
    try:
        done = subprocess.run(  # noqa: S603 - this program
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except (OSError, ValueError):
        return probe(path, tolerate_damage=tolerate_damage, sound=sound)
    if done.returncode in CRASHES or done.returncode >= WINDOWS_CRASHES:
        _blame(path, done, sound=sound)
    if done.returncode == 0:
        info = pickle.loads(done.stdout.partition(END)[2])  # noqa: S301 - this program wrote it
        if isinstance(info, VideoInfo):
            return info
    # What is wrong with the file is said here, in this command's words.
    return probe(path, tolerate_damage=tolerate_damage, sound=sound)


def _blame(path: str | Path, done: subprocess.CompletedProcess[bytes], *, sound: bool) -> None:
    at = done.stdout.decode(errors="replace").strip().rpartition("\n")[2] or "it was opened"
    name = -done.returncode if done.returncode < 0 else done.returncode
    how = signal.Signals(name).name if done.returncode < 0 else f"0x{name:08X}"
    remedy = say("Leave the sound out with {audio=False}, or remux or convert the file first.")
    raise InputError(
        f"a library that reads videos crashed on {path} ({how}) while {at}",
        remedy=remedy if sound else "Remux or convert the file first.",
    )


def main() -> None:
    """Probe the file that the arguments name, and decode the head of its sound."""
    path, tolerate_damage, sound = sys.argv[1], sys.argv[2] == "1", sys.argv[3] == "1"
    _tell("it was scanned" if sound else "its picture was scanned")
    try:
        info = probe(path, tolerate_damage=tolerate_damage, sound=sound)
        for stream in info.streams:
            if sound and stream.kind == "audio" and stream.codec is not None:
                _tell(f"audio stream {stream.index} was decoded")
                _hear(path, stream.index, info.look_ahead)
    except KeyscaleError:
        sys.exit(1)
    sys.stdout.buffer.write(END + pickle.dumps(info))
    sys.stdout.buffer.flush()


def _hear(path: str, index: int, look_ahead: int) -> None:
    heard = 0
    with open_source(path, look_ahead=look_ahead) as container:
        try:
            for packet in demuxed(container, container.streams[index]):
                heard += len(decoded_sound(packet))
                if heard >= HEARD:
                    return
        except FFmpegError:
            return  # that is no crash, and is told when it is met again


def _tell(step: str) -> None:
    sys.stdout.buffer.write(step.encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
