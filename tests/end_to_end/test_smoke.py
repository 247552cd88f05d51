"""`make smoke` passes on what is installed well, and on nothing else."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tools import smoke

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="the wrappers are shell scripts"), pytest.mark.processes]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed from its wheel; `bin/real` is its command."""
    environment = smoke.install(tmp_path_factory.mktemp("installed"))
    (environment / "bin" / "keyscale").rename(environment / "bin" / "real")
    return environment


def check(environment: Path, limit: float = 600) -> subprocess.CompletedProcess[str]:
    """Smoke; much time is given, since the machine that runs these tests may do much else."""
    command = [sys.executable, str(ROOT / "tools" / "smoke.py"), "--environment", str(environment)]
    return subprocess.run([*command, "--limit", str(limit)], capture_output=True, text=True, check=False, timeout=600)


def wrap(environment: Path, script: str) -> None:
    """Let `keyscale` be a shell script, in which `real` is the command."""
    path = environment / "bin" / "keyscale"
    path.write_text(f"#!/bin/bash\nreal={shlex.quote(str(environment / 'bin' / 'real'))}\n{script}\n")
    path.chmod(0o755)


def test_what_is_installed_well_passes_and_the_time_is_told(installed: Path) -> None:
    wrap(installed, 'exec "$real" "$@"')
    done = check(installed)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^smoke: all is well, ([\d.]+) s$", done.stdout, re.MULTILINE)
    assert found
    assert float(found[1]) > 0


UPSCALE_ONLY = '[ "$1" = upscale ] && [ "${2##*/}" = court.mp4 ]'


QUICK = [
    ("exit 127", "--version ended with exit code 127"),
    ('[ "$1" = --version ] && { echo keyscale 9.9; exit; }; exec "$real" "$@"', "--version says 'keyscale 9.9'"),
    (f'{UPSCALE_ONLY} && set -- "$@" --fps 25; exec "$real" "$@"', "the result has 115 frames"),
    ('"$real" "$@"; code=$?; [ $code = 3 ] && echo x >refused.mp4; exit $code', "a refusal left"),
]  # fmt: skip
REST = [
    ('[ "$1" = plan ] && set -- "$@" --end 2; exec "$real" "$@"', "the plan has"),
    (f'{UPSCALE_ONLY} && exit 4; exec "$real" "$@"', "upscale ended with exit code 4"),
    (f'{UPSCALE_ONLY} && set -- "$@" --size 108x192; exec "$real" "$@"', "upscale ended with"),
    (f'{UPSCALE_ONLY} && set -- "$@" --size 218x384; exec "$real" "$@"', "218x384 pixels, not 216x384"),
    (f'{UPSCALE_ONLY} && set -- "$@" --model lanczos; exec "$real" "$@"', "upscale ended with"),
    (f'{UPSCALE_ONLY} && set -- "$@" --no-audio; exec "$real" "$@"', "cannot be decoded"),
    (f'"$real" "$@"; code=$?; {UPSCALE_ONLY} && truncate -s -90000 clip.mp4; exit $code', "cannot be decoded"),
    (f'"$real" "$@"; code=$?; {UPSCALE_ONLY} && touch .left; exit $code', "upscale left ['.left', 'clip.mp4'"),
    ('"$real" "$@"; code=$?; [ "$2" = text.mp4 ] && exit 0; exit $code', "upscale text.mp4 ended with exit code 0"),
    ('[ "$2" = absent.mp4 ] && { echo "Traceback" >&2; exit 3; }; exec "$real" "$@"', "upscale absent.mp4 says"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "said"),
    [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in REST)],
    ids=lambda value: re.sub(r"[^a-z0-9]+", "-", value.lower())[-30:],
)
def test_what_is_wrong_fails_and_is_named(installed: Path, script: str, said: str) -> None:
    wrap(installed, script)
    done = check(installed)
    assert done.returncode == 1, done.stdout
    assert said in done.stderr, done.stderr
    assert "all is well" not in done.stdout


@pytest.mark.slow
def test_a_picture_without_content_is_noticed(installed: Path) -> None:
    grey = (
        "import av, sys; from fractions import Fraction\n"
        "source = av.open(sys.argv[1]); out = av.open('grey.mp4', 'w')\n"
        "video = out.add_stream('libx264', rate=30); video.width, video.height = 216, 384; video.pix_fmt = 'yuv420p'\n"
        "sound = out.add_stream_from_template(source.streams.audio[0])\n"
        "for n in range(138):\n"
        "    frame = av.VideoFrame(216, 384, 'yuv420p')\n"
        "    [frame.planes[i].update(bytes([128]) * frame.planes[i].buffer_size) for i in range(3)]\n"
        "    frame.pts, frame.time_base = n, Fraction(1, 30)\n"
        "    out.mux(video.encode(frame))\n"
        "out.mux(video.encode())\n"
        "for packet in source.demux(source.streams.audio[0]):\n"
        "    if packet.dts is not None:\n"
        "        packet.stream = sound; out.mux(packet)\n"
        "out.close()\n"
    )
    program = (
        f"{shlex.quote(str(installed / 'bin' / 'python'))} -c {shlex.quote(grey)} clip.mp4 && mv grey.mp4 clip.mp4"
    )
    wrap(installed, f'"$real" "$@"; code=$?; {UPSCALE_ONLY} && {program} >&2; exit $code')
    done = check(installed)
    assert done.returncode == 1
    assert "frame 0 of the result is flat" in done.stderr, done.stderr


def test_taking_longer_than_the_limit_fails(installed: Path) -> None:
    wrap(installed, 'exec "$real" "$@"')
    done = check(installed, limit=0.5)
    assert done.returncode == 1
    assert "more than 0.5 s" in done.stderr


def test_the_checkout_itself_is_not_what_is_checked(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "checkout.pth").write_text(f"{ROOT / 'src'}\n")
    done = check(environment)
    assert done.returncode == 1
    assert "keyscale is imported from" in done.stderr


@pytest.mark.slow
def test_settings_of_whoever_runs_it_do_not_count(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(installed, 'exec "$real" "$@"')
    for name, value in {"KEYSCALE_SIZE": "64x64", "MODAL_ENABLED": "true", "PYTHONPATH": str(ROOT / "src")}.items():
        monkeypatch.setenv(name, value)
    done = check(installed)
    assert done.returncode == 0, done.stderr
