"""Files around a job: what is refused before work, what a stopped job leaves, what the next one takes from it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from threading import Event as StopFlag
from types import SimpleNamespace
from typing import Any

import pytest
from support.clips import make_clip
from support.numbered import SMALL, interrupt, leftovers, planes, run, shown, small_job

from keyscale.engine import system
from keyscale.engine.errors import (
    EnvironmentFault,
    InputError,
    KeyscaleError,
    ModelError,
    StorageError,
    UsageError,
)
from keyscale.engine.events import Done, Phase, Progress
from keyscale.engine.job import Codec, Compute, Encoding, Job, ModelChoice, Target
from keyscale.engine.models import speeds
from keyscale.engine.models.speeds import Measured
from keyscale.engine.plan.estimate import Estimate
from keyscale.engine.runners.local import run_local
from keyscale.engine.runners.prepare import prepare, prepare_plan
from keyscale.engine.workspace.folder import work_folder_of

BIG = (320, 240)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 64x48 in 0.8 s."""
    path: Path = make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=20, rate=25, size=SMALL)
    return path


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 frames of 320x240 in 8 s."""
    path: Path = make_clip(tmp_path_factory.mktemp("clips") / "longer.mp4", frames=200, rate=25, size=BIG)
    return path


def refused(job: Job, kind: type[KeyscaleError], code: int, says: str) -> KeyscaleError:
    """The job fails before any work, with words and a remedy."""
    with pytest.raises(kind, match=says) as caught:
        prepare(job)
    assert caught.value.exit_code == code
    assert caught.value.remedy
    return caught.value


# Refused before any work


def test_the_output_may_not_be_the_input(clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    shutil.copy(clip, source)
    content = source.read_bytes()
    symlink, hard = tmp_path / "symlink.mp4", tmp_path / "hard.mp4"
    symlink.symlink_to(source)
    hard.hardlink_to(source)
    (tmp_path / "below").mkdir()
    for output in (source, symlink, hard, tmp_path / "below" / ".." / "in.mp4", Path(os.path.relpath(source))):
        refused(small_job(source, output, overwrite=True), UsageError, 2, "same file")
        refused(small_job(output, source, overwrite=True), UsageError, 2, "same file")
    assert source.read_bytes() == content
    assert leftovers(tmp_path, "in.mp4", "symlink.mp4", "hard.mp4", "below") == []


def test_what_exists_is_not_overwritten_unasked(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_text("mine")
    refused(small_job(clip, output), StorageError, 4, "already exists")
    assert output.read_text() == "mine"
    dangling = tmp_path / "dangling.mp4"
    dangling.symlink_to(tmp_path / "nowhere")
    refused(small_job(clip, dangling), StorageError, 4, "already exists")
    assert leftovers(tmp_path) == ["dangling.mp4", "out.mp4"]

    assert shown(run(small_job(clip, output, overwrite=True)).path) == list(range(20))


def test_what_appears_during_the_job_is_not_overwritten(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    events = run_local(prepare(small_job(clip, output)), StopFlag())
    # The chunks are made and joined by then.
    assert any(isinstance(event, Progress) and event.phase is Phase.JOIN for event in events)
    output.write_text("mine")
    with pytest.raises(StorageError, match="appeared"):
        list(events)
    assert output.read_text() == "mine"
    # The finished chunks are kept: with --overwrite the job is done at once.
    assert run(small_job(clip, output, overwrite=True)).done.resumed_frames == 20
    assert leftovers(tmp_path, "out.mp4") == []


def test_a_failing_job_leaves_the_old_result(longer: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_text("mine")
    stop = StopFlag()
    stop.set()
    with pytest.raises(KeyscaleError):
        list(run_local(prepare(small_job(longer, output, overwrite=True)), stop))
    assert output.read_text() == "mine"
    assert leftovers(tmp_path, "out.mp4") == []


def test_folders_that_cannot_be_written(clip: Path, tmp_path: Path) -> None:
    """Also refused to the superuser: no such folder, a file in its place, a file system of the kernel's."""
    (tmp_path / "file").write_text("")
    refused(small_job(clip, tmp_path / "missing" / "out.mp4"), StorageError, 4, "missing")
    refused(small_job(clip, tmp_path / "file" / "out.mp4"), StorageError, 4, "file")
    if Path("/proc").is_dir():
        refused(small_job(clip, Path("/proc/out.mp4")), StorageError, 4, "/proc")
    assert leftovers(tmp_path, "file") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_rights(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    refused(small_job(clip, folder / "out.mp4"), StorageError, 4, "locked")


@pytest.mark.parametrize(("on", "flags"), [("linux", os.O_RDONLY), ("darwin", os.O_RDONLY), ("win32", os.O_RDWR)])
def test_files_are_flushed_as_each_system_allows(
    on: str, flags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows opens no folders, and flushes nothing through a handle that may only read."""
    path = tmp_path / "file"
    path.touch()
    opened = []
    really = os.open

    def watched(path: Path, flags: int) -> int:
        opened.append((path, flags))
        return really(path, flags)

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(sys, "platform", on)
    system.sync(path)
    system.sync(tmp_path)
    monkeypatch.undo()
    assert opened == [(path, flags), *([(tmp_path, flags)] if on != "win32" else [])]


def test_an_output_that_is_a_folder(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    refused(small_job(clip, tmp_path / "out.mp4", overwrite=True), UsageError, 2, "directory")


@pytest.mark.loopback
def test_sources_that_are_no_files(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    refused(small_job(tmp_path, output), InputError, 3, "directory")
    refused(small_job(tmp_path / "missing.mp4", output), InputError, 3, "missing.mp4")
    refused(small_job(Path("nul\0.mp4"), output), InputError, 3, "nul")
    refused(small_job(Path("x" * 300), output), InputError, 3, "xxx")
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    refused(small_job(pipe, output), InputError, 3, "regular")
    with socket.socket(socket.AF_UNIX) as server:
        name = os.path.relpath(tmp_path / "s")
        if len(name) < 100:
            server.bind(name)
            refused(small_job(tmp_path / "s", output), InputError, 3, "regular")


TEXTS = {
    "empty": b"",
    "one byte": b"\0",
    "text": b"This is a line of text, not a video.\n" * 40,
    "json": b'[{"time": 0, "x": 0, "y": 0, "width": 64, "height": 48}]',
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile clip.mp4\n",
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n",
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "zip": b"PK\x03\x04" + bytes(200),
    "zeros": bytes(100_000),
    "noise": random.Random(1).randbytes(100_000),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_sources_that_are_no_videos(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(TEXTS[kind])
    refused(small_job(source, tmp_path / "out.mp4"), InputError, 3, "in.mp4")
    assert leftovers(tmp_path, "in.mp4") == []


@pytest.mark.parametrize(
    "name",
    ["take:2.mp4", "with space.mp4", "-o.mp4", "100%d.mp4", "ünï→日本.mp4", "new\nline.mp4", "a'b\"c.mp4", "~.mp4"],
)
def test_names_are_only_names(clip: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / f"in {name}"
    shutil.copy(clip, source)
    output = tmp_path / name
    assert shown(run(small_job(source, output)).path) == list(range(20))
    assert leftovers(tmp_path) == sorted([source.name, name])


def test_the_longest_name(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / f"{'x' * 251}.mp4"
    run(small_job(clip, output))
    assert leftovers(tmp_path) == [output.name]


def test_a_full_disk_is_seen_beforehand(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**9, used=10**9, free=1000))
    error = refused(small_job(clip, tmp_path / "out.mp4"), StorageError, 4, "free")
    assert "MiB" in error.message
    assert leftovers(tmp_path) == []


WRONG_PAIRS = [
    (".mp4", Codec.PRORES), (".webm", Codec.H264), (".webm", Codec.HEVC), (".webm", Codec.PRORES),
    (".mov", Codec.AV1),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec"), WRONG_PAIRS)
def test_containers_that_do_not_hold_a_codec(clip: Path, tmp_path: Path, suffix: str, codec: Codec) -> None:
    job = small_job(clip, tmp_path / f"out{suffix}", encoding=Encoding(codec=codec))
    refused(job, UsageError, 2, codec.value)


RIGHT_PAIRS = [
    (".mp4", Codec.H264), (".mp4", Codec.HEVC), (".mp4", Codec.AV1), (".mov", Codec.H264), (".mov", Codec.HEVC),
    (".mov", Codec.PRORES), (".mkv", Codec.H264), (".mkv", Codec.HEVC), (".mkv", Codec.AV1),
    (".mkv", Codec.PRORES), (".webm", Codec.AV1), (".webm", Codec.AUTO), (".m4v", Codec.AUTO), (".MP4", Codec.AUTO),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec"), RIGHT_PAIRS)
def test_containers_that_hold_a_codec(clip: Path, tmp_path: Path, suffix: str, codec: Codec) -> None:
    """Several chunks, so that joining by stream copy is shown for each as well."""
    job = small_job(clip, tmp_path / f"out{suffix}", encoding=Encoding(codec=codec), chunk_seconds=0.2, size=(64, 64))
    result = run(job)
    assert len(result.plan.chunks) == 4
    assert len(planes(result.path)) == 20


@pytest.mark.parametrize("name", ["out", "out.avi", "out.mp4.part", "out.gif", "mp4", ".mp4"])
def test_extensions_that_name_no_container(clip: Path, tmp_path: Path, name: str) -> None:
    refused(small_job(clip, tmp_path / name), UsageError, 2, "extension")


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        (Encoding(crf=52), "52"),
        (Encoding(crf=-1), "-1"),
        (Encoding(codec=Codec.AV1, crf=64), "64"),
        (Encoding(preset="fastest"), "fastest"),
        (Encoding(codec=Codec.AV1, preset="slow"), "slow"),
        (Encoding(codec=Codec.HEVC, preset="8"), "8"),
    ],
)
def test_encoder_settings_out_of_range(clip: Path, tmp_path: Path, encoding: Encoding, says: str) -> None:
    refused(small_job(clip, tmp_path / "out.mp4", encoding=encoding), UsageError, 2, says)


def test_prores_has_no_crf_and_10_bit_only(clip: Path, tmp_path: Path) -> None:
    for encoding in (Encoding(codec=Codec.PRORES, crf=10), Encoding(codec=Codec.PRORES, bit_depth=8)):
        refused(small_job(clip, tmp_path / "out.mov", encoding=encoding), UsageError, 2, "prores")


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (0, 48), (64, 16386), (-2, 2), (1, 1)])
def test_target_sizes_out_of_range(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError) as caught:
        Target(width=size[0], height=size[1])
    assert caught.value.exit_code == 2
    assert caught.value.remedy


@pytest.mark.parametrize("codec", [Codec.H264_NVENC, Codec.HEVC_NVENC, Codec.AV1_NVENC])
def test_an_encoder_that_is_not_there(clip: Path, tmp_path: Path, codec: Codec) -> None:
    job = small_job(clip, tmp_path / "out.mp4", encoding=Encoding(codec=codec), size=(256, 256))
    error: EnvironmentFault | None = None
    try:
        prepare(job)
    except EnvironmentFault as raised:
        error = raised
    if error is None:
        pytest.skip("this machine has NVENC")
    assert error.exit_code == 4
    assert error.remedy
    assert "nvenc" in error.message
    assert leftovers(tmp_path) == []


# Models


def test_an_unknown_model(clip: Path, tmp_path: Path) -> None:
    for name in ("realesr-general-x4v4", "missing.pth", str(tmp_path)):
        refused(small_job(clip, tmp_path / "out.mp4", model=ModelChoice(name=name)), ModelError, 4, "no ")


def test_a_checkpoint_that_is_none(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for content in (b"", b"text", clip.read_bytes()):
        path.write_bytes(content)
        refused(small_job(clip, tmp_path / "out.mp4", model=ModelChoice(name=str(path))), ModelError, 4, "model")


def test_weights_with_a_wrong_checksum(
    clip: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    content = bytearray((shared / "weights" / "realesr-animevideov3.pth").read_bytes())
    content[-1000] ^= 1
    (weights / "realesr-animevideov3.pth").write_bytes(content)
    monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(weights))
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    output = tmp_path / "out.mp4"
    choice = ModelChoice(name="realesr-animevideov3", offline=True)
    job = small_job(clip, output, model=choice, size=(128, 96))
    with pytest.raises(ModelError, match=r"realesr-animevideov3\.pth") as caught:
        run(job)
    assert caught.value.exit_code == 4
    assert caught.value.remedy
    assert not output.exists()
    assert not work_folder_of(output).exists()


def test_absent_weights_without_a_network(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    choice = ModelChoice(name="realesr-animevideov3", offline=True)
    with pytest.raises(ModelError) as caught:
        run(small_job(clip, tmp_path / "out.mp4", model=choice, size=(128, 96)))
    assert caught.value.exit_code == 4
    assert leftovers(tmp_path, "empty") == []


def test_a_tilde_in_the_cache_directory_is_the_home_folder_for_weights_and_speeds(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", "~/cache")
    monkeypatch.delenv("KEYSCALE_WEIGHTS_DIR", raising=False)
    run(small_job(clip, tmp_path / "out.mp4", model=ModelChoice(), size=(128, 96)))
    assert (home / "cache" / "speeds.json").is_file()
    absent = ModelChoice(name="realesr-animevideov3", offline=True)
    with pytest.raises(ModelError, match=re.escape(str(home / "cache" / "weights"))):
        run(small_job(clip, tmp_path / "other.mp4", model=absent, size=(128, 96)))
    assert leftovers(tmp_path, "home", "out.mp4") == []


def test_a_cache_directory_in_the_home_of_nobody(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", "~no-such-user/cache")
    output = tmp_path / "out.mp4"
    run(small_job(clip, output, model=ModelChoice(), size=(128, 96), end=Fraction(1, 5)))
    assert output.is_file()


def test_a_short_or_tiny_job_does_not_spoil_the_estimate_of_others(
    clip: Path, longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(cache))
    on_cpu = Compute(device="cpu")

    def job(name: str, **more: Any) -> Job:
        return small_job(longer, tmp_path / name, model=ModelChoice(), size=(640, 480), compute=on_cpu, **more)

    def estimate() -> Estimate:
        return prepare_plan(job("plan.mp4")).estimate

    run(job("frame.mp4", start=1, end=1.04))
    assert not estimate().measured
    run(job("many.mp4", end=1))
    known = estimate()
    assert (known.measured, known.all_measured) == (True, True)
    run(job("again.mp4", start=1, end=1.04))
    run(small_job(clip, tmp_path / "tiny.mp4", model=ModelChoice(), size=(4, 4), compute=on_cpu))
    # Some frames while the machine slept.
    names = list(json.loads((cache / "speeds.json").read_text())["runs"])
    speeds.remember(Measured(name[: name.index(" 2^")], 2 ** (int(name.split("^")[1]) - 1), 8, 999.0) for name in names)
    assert list(json.loads((cache / "speeds.json").read_text())["runs"]) == names
    assert estimate() == known


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"runs": 1}', '{"runs": {"cpu x 2^9": [[1]]}}', '{"cpu x": 1e-3}']
)
def test_measurements_that_cannot_be_read_are_none(
    content: str, longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path))
    (tmp_path / "speeds.json").write_text(content)
    assert speeds.known_speeds() == speeds.TABLE
    job = small_job(longer, tmp_path / "out.mp4", model=ModelChoice(), size=(640, 480))
    assert not prepare_plan(job).estimate.measured


# While a job runs


def during(job: Job, act: Callable[[], object]) -> None:
    """Run the job and do something to the world once pictures are being made."""
    acted = False
    for event in run_local(prepare(job), StopFlag()):
        if not acted and isinstance(event, Progress) and event.phase is Phase.UPSCALE:
            act()
            acted = True
    assert acted


def test_a_source_that_changes_is_noticed(clip: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    shutil.copy(clip, source)

    def append() -> None:
        with source.open("ab") as file:
            file.write(b"\0\0\0\x08free")

    with pytest.raises(InputError, match="changed"):
        during(small_job(source, output), append)
    assert not output.exists()


def test_a_source_that_goes_away(longer: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    shutil.copy(longer, source)
    with pytest.raises(InputError):
        during(small_job(source, output), source.unlink)
    assert not output.exists()


def test_a_work_folder_that_goes_away(longer: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    job = small_job(longer, output, chunk_seconds=0.5)
    with pytest.raises(KeyscaleError) as caught:
        during(job, lambda: shutil.rmtree(work_folder_of(output)))
    assert caught.value.exit_code in {1, 4}
    assert not output.exists()
    assert len(planes(run(job).path)) == 200


def test_two_jobs_do_not_share_an_output(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    first = run_local(prepare(small_job(clip, output)), StopFlag())
    for event in first:
        if isinstance(event, Progress) and event.phase is Phase.UPSCALE:
            break
    with pytest.raises(StorageError, match="another process"):
        run(small_job(clip, output))
    # Other outputs in the same folder are free.
    run(small_job(clip, tmp_path / "other.mp4"))
    list(first)
    assert shown(output) == list(range(20))
    assert leftovers(tmp_path) == ["other.mp4", "out.mp4"]


def command(source: Path, output: Path, *more: str) -> list[str]:
    code = "import sys; from keyscale.cli.app import main; sys.exit(main())"
    size = "x".join(map(str, BIG))
    flags = ["--model", "lanczos", "--size", size, "--fps", "source", "--chunk-seconds", "0.5", "--crf", "10"]
    words = [sys.executable, "-c", code, "upscale", str(source), "-o", str(output), *flags]
    return [*words, "--preset", "ultrafast", *more]


def process(source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(source, output, "--progress", "json", *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def follow(running: subprocess.Popen[str], frames: int) -> None:
    """Read events until `frames` frames are made."""
    assert running.stdout is not None
    for line in running.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["phase"] == "upscale" and event["frame"] >= frames:
            return
    raise AssertionError("the job ended first")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 frames of 640x480 in 36 s: long enough for a process to be stopped in the middle."""
    folder = tmp_path_factory.mktemp("clips")
    path: Path = make_clip(folder / "film.mp4", frames=900, rate=25, size=(640, 480))
    return path


@pytest.mark.processes
def test_a_second_process_is_refused(film: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with process(film, output) as first:
        follow(first, 1)
        second = subprocess.run(command(film, output, "-q"), capture_output=True, text=True, check=False)
        first.kill()
    assert second.returncode == 4
    assert "another process" in second.stderr
    assert not output.exists()


@pytest.mark.processes
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_and_keeps_what_is_done(film: Path, tmp_path: Path, number: int, code: int) -> None:
    output = tmp_path / "out.mp4"
    with process(film, output) as running:
        follow(running, 100)
        running.send_signal(number)
        asked = time.monotonic()
        told, _ = running.communicate(timeout=30)
        assert time.monotonic() - asked < 2
    assert running.returncode == code
    last = json.loads(told.splitlines()[-1])
    assert (last["event"], last["exit_code"]) == ("error", code)
    assert not output.exists()
    found = subprocess.run(command(film, output, "--progress", "json"), capture_output=True, text=True, check=True)
    done = json.loads(found.stdout.splitlines()[-1])
    assert done["resumed_frames"] >= 75
    assert (done["output"], found.stderr) == (str(output), "")
    assert leftovers(tmp_path) == ["out.mp4"]


@pytest.mark.processes
def test_a_full_disk_in_mid_job(film: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: writing fails in the middle of a chunk."""
    code = (
        "import resource, signal, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "from keyscale.cli.app import main\n"
        "sys.exit(main())\n"
    )
    output = tmp_path / "out.mp4"
    words = command(film, output, "-q")
    words[2] = code
    found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 4, found.stderr
    assert "Traceback" not in found.stderr
    assert not output.exists()
    assert subprocess.run(command(film, output, "-q"), check=False).returncode == 0
    assert len(planes(output)) == 900


# Resume


def half_done(source: Path, output: Path, **more: Any) -> Job:
    job: Job = small_job(source, output, chunk_seconds=0.5, size=BIG, **more)
    interrupt(job, chunks=4)
    assert not output.exists()
    return job


def finished_chunks(output: Path) -> list[Path]:
    return sorted(work_folder_of(output).glob("*/chunk-*.mp4"))


@pytest.fixture(scope="module")
def reference(longer: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Decoded frames of the job done in one go."""
    output = tmp_path_factory.mktemp("reference") / "out.mp4"
    return list(planes(run(small_job(longer, output, chunk_seconds=0.5, size=BIG)).path))


def test_finished_chunks_are_not_made_again(longer: Path, tmp_path: Path, reference: list[bytes]) -> None:
    output = tmp_path / "out.mp4"
    job = half_done(longer, output)
    chunks = finished_chunks(output)
    assert len(chunks) >= 4
    interrupt(job, chunks=len(chunks) + 2)
    assert len(finished_chunks(output)) >= len(chunks) + 2
    before = {path.name: path.stat().st_mtime_ns for path in finished_chunks(output)}

    prepared = prepare(job)
    for event in run_local(prepared, StopFlag()):
        if isinstance(event, Progress) and event.phase is Phase.JOIN:
            after = {path.name: path.stat().st_mtime_ns for path in finished_chunks(output)}
        if isinstance(event, Done):
            done = event
    assert {name: after[name] for name in before} == before
    assert len(after) == len(prepared.plan.chunks)
    assert done.resumed_frames == sum(
        chunk.frames for chunk in prepared.plan.chunks if f"chunk-{chunk.index:05d}.mp4" in before
    )
    assert planes(output) == reference
    assert leftovers(tmp_path) == ["out.mp4"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "no record": lambda path: path.with_suffix(".json").unlink(),
    "a record cut off": lambda path: path.with_suffix(".json").write_bytes(b'{"index":0,'),
    "a record of nothing": lambda path: path.with_suffix(".json").write_bytes(b"[]"),
    "a record of zeros": lambda path: path.with_suffix(".json").write_bytes(bytes(100)),
    "another chunk's record": lambda path: shutil.copy(path.with_name("chunk-00001.json"), path.with_suffix(".json")),
    "a folder": as_folder,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_chunk_is_made_again(longer: Path, tmp_path: Path, reference: list[bytes], damage: str) -> None:
    output = tmp_path / "out.mp4"
    job = half_done(longer, output)
    chunks = finished_chunks(output)
    DAMAGE[damage](chunks[0])
    if damage == "a folder":
        # Not a thing that a crash leaves: said plainly, never taken for a chunk.
        with pytest.raises(StorageError, match="chunk-00000"):
            run(job)
        return
    result = run(job)
    kept = {path.name for path in chunks[1:]}
    assert result.done.resumed_frames == sum(
        chunk.frames for chunk in result.plan.chunks if f"chunk-{chunk.index:05d}.mp4" in kept
    )
    assert planes(output) == reference
    assert leftovers(tmp_path) == ["out.mp4"]


def test_starting_over(longer: Path, tmp_path: Path, reference: list[bytes]) -> None:
    output = tmp_path / "out.mp4"
    half_done(longer, output)
    result = run(small_job(longer, output, chunk_seconds=0.5, size=BIG, resume=False))
    assert result.done.resumed_frames == 0
    assert planes(output) == reference
    assert leftovers(tmp_path) == ["out.mp4"]


def keyframes(path: Path, x: float) -> str:
    path.write_text(json.dumps([{"time": 0, "x": x, "y": 0, "width": 160, "height": 120}]))
    return str(path)


OTHER: dict[str, dict[str, Any]] = {
    "quality": {"encoding": Encoding(preset="ultrafast", crf=12)},
    "preset": {"encoding": Encoding(preset="superfast", crf=10)},
    "depth": {"encoding": Encoding(preset="ultrafast", crf=10, bit_depth=10)},
    "codec": {"encoding": Encoding(codec=Codec.HEVC, preset="ultrafast", crf=10)},
    "rate": {"rate": Fraction(24)},
    "size": {"size": (320, 320)},
    "trim": {"start": 0.04},
    "chunks": {"chunk_seconds": 1.0},
}


@pytest.mark.parametrize("what", OTHER)
def test_other_settings_take_nothing_over(longer: Path, tmp_path: Path, what: str) -> None:
    output = tmp_path / "out.mp4"
    half_done(longer, output)
    result = run(small_job(longer, output, **({"chunk_seconds": 0.5, "size": BIG} | OTHER[what])))
    assert result.done.resumed_frames == 0
    # What the earlier settings left goes as well: the output is there.
    assert leftovers(tmp_path) == ["out.mp4"]


def test_another_camera_takes_nothing_over(longer: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    half_done(longer, output, keyframes=keyframes(tmp_path / "a.json", 0))
    moved = small_job(longer, output, chunk_seconds=0.5, size=BIG, keyframes=keyframes(tmp_path / "b.json", 0.25))
    assert run(moved).done.resumed_frames == 0


def test_another_source_of_the_same_name_takes_nothing_over(tmp_path: Path) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    make_clip(source, frames=200, rate=25, size=BIG)
    job = half_done(source, output)
    make_clip(source, frames=200, rate=25, size=BIG, first_number=1)
    assert run(job).done.resumed_frames == 0


def test_settings_that_change_no_pixel_keep_the_chunks(longer: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "renamed.mp4", tmp_path / "out.mp4"
    half_done(longer, output)
    shutil.copy(longer, source)
    job = small_job(
        source,
        output,
        chunk_seconds=0.5,
        size=BIG,
        overwrite=True,
        encoding=Encoding(preset="ultrafast", crf=10, audio=False),
        compute=Compute(device="auto"),
    )
    assert run(job).done.resumed_frames > 0


def test_remains_of_a_killed_process_go(longer: Path, tmp_path: Path, reference: list[bytes]) -> None:
    """Parts and joined files that no process came to remove."""
    output = tmp_path / "out.mp4"
    job = half_done(longer, output)
    folder = finished_chunks(output)[0].parent
    (folder / "chunk-00007.part.mp4").write_bytes(b"half a chunk")
    (folder / "chunk-00007.tmp").write_bytes(b"{")
    (folder.parent / "joined.mp4").write_bytes(b"half a file")
    (folder.parent / "encoder-check.mp4").write_bytes(b"")
    (folder.parent / "0123456789abcdef").mkdir()
    (folder.parent / "0123456789abcdef" / "chunk-00000.mp4").write_bytes(b"of another job")
    run(job)
    assert planes(output) == reference
    assert leftovers(tmp_path) == ["out.mp4"]


def test_a_link_in_place_of_the_work_folder_is_not_followed(clip: Path, tmp_path: Path) -> None:
    output, elsewhere = tmp_path / "out.mp4", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    work_folder_of(output).symlink_to(elsewhere)
    with pytest.raises(StorageError, match="symbolic link"):
        run(small_job(clip, output))
    assert leftovers(elsewhere) == ["precious"]
    assert not output.exists()


@pytest.mark.processes
@pytest.mark.slow
def test_killed_at_any_moment(film: Path, tmp_path: Path) -> None:
    """kill -9, at moments drawn once, then the same command: the same decoded frames, and nothing beside them."""
    whole = tmp_path / "whole.mp4"
    began = time.monotonic()
    subprocess.run(command(film, whole, "-q"), check=True)
    seconds = time.monotonic() - began
    expected = planes(whole)
    assert len(expected) == 900
    drawn = random.Random(20)
    output = tmp_path / "out.mp4"
    for share in sorted(drawn.uniform(0.1, 0.95) for _ in range(5)):
        running = subprocess.Popen(command(film, output, "-q"))
        time.sleep(share * seconds)
        running.kill()
        running.wait()
        if not output.exists():
            found = subprocess.run(command(film, output, "-q"), capture_output=True, text=True, check=False)
            assert (found.returncode, found.stderr) == (0, "")
        assert planes(output) == expected
        assert leftovers(tmp_path, "whole.mp4") == ["out.mp4"]
        output.unlink()


@pytest.mark.processes
@pytest.mark.slow
def test_killed_again_and_again(film: Path, tmp_path: Path) -> None:
    """Every run adds to what the ones before have made."""
    output = tmp_path / "out.mp4"
    kept = 0
    for _ in range(12):
        with process(film, output) as running:
            follow(running, kept + 40)
            running.kill()
        kept = 0
        for record in work_folder_of(output).glob("*/chunk-*.json"):
            kept += json.loads(record.read_text())["frames"]
        if kept > 700:
            break
    assert kept >= 300
    found = subprocess.run(command(film, output, "--progress", "json"), capture_output=True, text=True, check=True)
    assert json.loads(found.stdout.splitlines()[-1])["resumed_frames"] == kept
    assert len(planes(output)) == 900
    assert leftovers(tmp_path) == ["out.mp4"]
