"""A library that crashes on a source takes down a process of its own, and the command reports the crash."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.sounds import tones, write_sound

from keyscale.engine.errors import InputError
from keyscale.engine.source.apart import PROGRAM, probe_apart
from keyscale.engine.source.probe import VideoInfo, probe

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("apart") / "in.mov", [tones(2)], codec="pcm_s16le", layout="stereo")


def crashing(steps: str, name: str) -> tuple[str, ...]:
    """A program that tells `steps` and dies of a signal as a library would make it."""
    script = f"import os, signal; print({steps!r}, flush=True); os.kill(os.getpid(), signal.{name})"
    return (sys.executable, "-c", script)


def facts(info: VideoInfo) -> dict[str, object]:
    return {field.name: getattr(info, field.name) for field in dataclasses.fields(info) if field.name != "pts"}


def test_what_is_found_apart_is_what_is_found_here(source: Path) -> None:
    apart, here = probe_apart(source), probe(source)
    assert facts(apart) == facts(here)
    assert np.array_equal(apart.pts, here.pts)
    assert facts(probe_apart(source, sound=False)) == facts(probe(source, sound=False))


def test_what_is_wrong_with_a_file_is_told_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(InputError, match="not a video") as here:
        probe(path)
    with pytest.raises(InputError) as apart:
        probe_apart(path)
    assert str(apart.value) == str(here.value)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_crash_over_sound_names_the_track_and_the_remedy(source: Path, name: str) -> None:
    program = crashing("it was scanned\naudio stream 1 was decoded", name)
    with pytest.raises(InputError) as caught:
        probe_apart(source, program=program)
    assert name in str(caught.value)
    assert "audio stream 1" in str(caught.value)
    assert "--no-audio" in (caught.value.remedy or "")


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_crash_over_the_picture_names_no_remedy_that_does_not_help(source: Path) -> None:
    with pytest.raises(InputError) as caught:
        probe_apart(source, sound=False, program=crashing("its picture was scanned", "SIGSEGV"))
    assert "--no-audio" not in (caught.value.remedy or "")


def test_where_no_process_can_be_started_it_is_probed_here(source: Path) -> None:
    assert facts(probe_apart(source, program=("/nonexistent/python",))) == facts(probe(source))


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_process_that_is_ended_from_outside_is_no_crash(source: Path) -> None:
    assert facts(probe_apart(source, program=crashing("it was scanned", "SIGTERM"))) == facts(probe(source))


def test_the_process_tells_what_it_does(source: Path) -> None:
    done = subprocess.run([*PROGRAM, str(source), "0", "1"], capture_output=True, check=True)
    assert done.stdout.startswith(b"it was scanned\naudio stream 1 was decoded\n\0")
    done = subprocess.run([*PROGRAM, str(source), "0", "0"], capture_output=True, check=True)
    assert done.stdout.startswith(b"its picture was scanned\n\0")


@pytest.mark.skipif(sys.platform == "win32", reason="a link stands for the interpreter")
def test_the_command_tells_of_a_crash(source: Path, tmp_path: Path) -> None:
    """The command itself, whose interpreter starts a process that crashes: any crash over a file looks like that."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, signal\n"
        "if any('engine.source.apart' in word for word in sys.orig_argv):\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "keyscale", "plan", str(source), "--model", "lanczos"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 3
    assert "crashed" in done.stderr
    assert "SIGSEGV" in done.stderr
