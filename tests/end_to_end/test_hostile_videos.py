"""Damaged files and extreme sizes: a verified result or an error for people, never a traceback, a hang, half a file."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.clips import clicks_track, make_clip
from support.numbered import SMALL, Result, grey, leftovers, run, small_job, times, write_video

from keyscale.engine.errors import KeyscaleError
from keyscale.engine.job import Encoding, Fit, Job

SECONDS = 20
"""No case may take longer; a sound clip of this size takes about 0.1 s."""
TINY = (16, 16)
FINE = Encoding(preset="ultrafast", crf=4)


@pytest.fixture(scope="module")
def sound_clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three small clips with sound, as bytes."""
    folder = tmp_path_factory.mktemp("clips")
    made = {}
    for suffix in (".mp4", ".mkv", ".ts"):
        path = make_clip(
            folder / f"clip{suffix}",
            frames=24,
            rate=24,
            size=SMALL,
            options={"g": "8", "bf": "2", "preset": "veryfast"},
            sounds=[clicks_track([0.3, 0.6], seconds=1, sample_rate=48000, channels=1)],
        )
        made[suffix] = path.read_bytes()
    return made


def flipped_bytes(content: bytes, drawn: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(drawn.choice([1, 2, 5, 20, 100])):
        damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
    return bytes(damaged)


def flipped_head(content: bytes, drawn: random.Random) -> bytes:
    """Most of what a reader believes stands in the first kilobyte."""
    head = min(1024, len(content))
    return flipped_bytes(content[:head], drawn) + content[head:]


def flipped_tail(content: bytes, drawn: random.Random) -> bytes:
    """The index of an MP4, the last frames of the others."""
    tail = max(0, len(content) - 3000)
    return content[:tail] + flipped_bytes(content[tail:], drawn)


def cut_off(content: bytes, drawn: random.Random) -> bytes:
    return content[: drawn.randrange(len(content))]


def hole(content: bytes, drawn: random.Random) -> bytes:
    start = drawn.randrange(len(content))
    return content[:start] + content[start + drawn.randrange(1, 2000) :]


def zeroed(content: bytes, drawn: random.Random) -> bytes:
    start = drawn.randrange(len(content))
    stretch = drawn.randrange(1, 2000)
    return content[:start] + bytes(min(stretch, len(content) - start)) + content[start + stretch :]


def doubled(content: bytes, drawn: random.Random) -> bytes:
    start = drawn.randrange(len(content))
    return content[:start] + content[start // 2 :]


KINDS: list[Callable[[bytes, random.Random], bytes]] = [
    flipped_bytes, flipped_bytes, flipped_head, flipped_tail, cut_off, hole, zeroed, doubled,
]  # fmt: skip


def variant(clips: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """The damaged file of that number: the same in every run."""
    drawn = random.Random(number)
    suffix = (".mp4", ".mkv", ".ts")[number % 3]
    kind = KINDS[number // 3 % len(KINDS)]
    return suffix, kind(clips[suffix], drawn)


def attempt(job: Job) -> tuple[Result | None, KeyscaleError | None]:
    """The result, or the error for people; anything else is not caught."""
    try:
        return run(job), None
    except KeyscaleError as error:
        return None, error


def survive(tmp_path: Path, name: str, content: bytes, *, keep_going: bool) -> str:
    """Try the file; `done`, or the name of the error."""
    source, output = tmp_path / name, tmp_path / "out.mp4"
    source.write_bytes(content)
    try:
        result = run(
            small_job(source, output, size=TINY, rate=Fraction(24), keep_going_on_decode_errors=keep_going, end=5.0)
        )
    except KeyscaleError as error:
        assert error.exit_code in {3, 6}, (name, error.message)
        assert error.message
        assert not output.exists()
        outcome = type(error).__name__
    else:
        assert result.done.frames == result.plan.frames == len(times(output))
        outcome = "done"
    assert source.read_bytes() == content
    work = tmp_path / ".out.mp4.keyscale"
    if outcome == "done":
        assert leftovers(tmp_path, name) == ["out.mp4"]
    output.unlink(missing_ok=True)
    source.unlink()
    for path in sorted(work.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    if work.exists():
        work.rmdir()
    return outcome


BATCH = 20


@pytest.mark.parametrize("first", range(0, 240, BATCH))
def test_damaged_videos(tmp_path: Path, sound_clips: dict[str, bytes], first: int) -> None:
    """In one process, one after another: what a broken file does to a decoder must not reach the next one."""
    outcomes: dict[str, int] = {}
    for number in range(first, first + BATCH):
        suffix, content = variant(sound_clips, number)
        try:
            outcome = survive(tmp_path, f"in{suffix}", content, keep_going=number % 2 == 1)
        except Exception as error:
            error.add_note(f"variant {number} ({KINDS[number // 3 % len(KINDS)].__name__}, {suffix})")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert sum(outcomes.values()) == BATCH
    assert outcomes.keys() <= {"done", "InputError", "DecodeError", "VerificationError"}


@pytest.mark.parametrize("number", [23, 92, 248, 362, 419, 1136, 1232, 1760, 3537])
def test_videos_that_once_got_through(tmp_path: Path, sound_clips: dict[str, bytes], number: int) -> None:
    """Damaged sound, a stream that appears in mid-file, frames without times, an index that asks for all memory."""
    suffix, content = variant(sound_clips, number)
    survive(tmp_path, f"in{suffix}", content, keep_going=number % 2 == 1)


def test_the_undamaged_clips_succeed(tmp_path: Path, sound_clips: dict[str, bytes]) -> None:
    for suffix, content in sound_clips.items():
        assert survive(tmp_path, f"in{suffix}", content, keep_going=False) == "done"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(1000, 2000, 100))
def test_more_damaged_videos(tmp_path: Path, sound_clips: dict[str, bytes], first: int) -> None:
    for number in range(first, first + 100):
        suffix, content = variant(sound_clips, number)
        try:
            survive(tmp_path, f"in{suffix}", content, keep_going=number % 2 == 1)
        except Exception as error:
            error.add_note(f"variant {number} ({KINDS[number // 3 % len(KINDS)].__name__}, {suffix})")
            raise


# Sizes


def flat(size: tuple[int, int], level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((size[1], size[0], 3), level, np.uint8)


@pytest.mark.parametrize(
    "size",
    [(1, 1), (2, 2), (3, 5), (1, 64), (64, 1), (2, 480), (161, 121), (16, 4000), (4000, 16), (7, 2000), (33, 31)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
@pytest.mark.parametrize("fit", list(Fit))
def test_sizes(tmp_path: Path, size: tuple[int, int], fit: Fit) -> None:
    source = write_video(
        tmp_path / "in.mov", [flat(size, level) for level in (200, 60, 120)], codec="png", pixel_format="rgb24"
    )
    result = run(small_job(source, tmp_path / "out.mp4", size=(54, 96), fit=fit, encoding=FINE))
    assert (result.plan.info.width, result.plan.info.height) == size
    pictures = list(grey(result.path))
    assert [picture.shape for picture in pictures] == [(96, 54)] * 3
    if fit is not Fit.CONTAIN or min(size) * 20 > max(size):  # else a line too thin for 4:2:0
        middles = [float(picture[48, 27]) for picture in pictures]
        np.testing.assert_allclose(middles, [200, 60, 120], atol=4)


@pytest.mark.parametrize("target", [(2, 2), (2, 96), (96, 2), (16, 2048), (2048, 16)], ids=lambda t: f"{t[0]}x{t[1]}")
def test_target_sizes(tmp_path: Path, target: tuple[int, int]) -> None:
    """An encoder may refuse a size, before any work; a size that it takes comes out as asked."""
    source = make_clip(tmp_path / "in.mp4", frames=3, rate=25, size=SMALL)
    result, failure = attempt(small_job(source, tmp_path / "out.mp4", size=target))
    if failure is not None:
        assert failure.exit_code == 4
        assert f"{target[0]}x{target[1]}" in failure.message
        assert leftovers(tmp_path, "in.mp4") == []
    else:
        assert result is not None
        assert [picture.shape for picture in grey(result.path)] == [target[::-1]] * 3


@pytest.mark.slow
@pytest.mark.parametrize("size", [(7680, 4320), (4320, 7680), (8192, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_very_large_sources(tmp_path: Path, size: tuple[int, int]) -> None:
    source = write_video(
        tmp_path / "in.mp4", [flat(size, level) for level in (200, 60)], options={"g": "1", "crf": "20"}
    )
    result = run(small_job(source, tmp_path / "out.mp4", size=(54, 96), encoding=FINE))
    assert (result.plan.info.width, result.plan.info.height) == size
    np.testing.assert_allclose([float(picture[48, 27]) for picture in grey(result.path)], [200, 60], atol=4)
