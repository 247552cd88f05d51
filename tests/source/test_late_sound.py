"""Sound that begins late in files whose headers list no streams is found, kept, and in step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clips import clicks_in, clicks_track
from support.numbered import run, small_job
from support.sounds import write_sound

from keyscale.engine.job import Encoding
from keyscale.engine.source.probe import probe

NOISE = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)
"""Takes some 100 kB a frame, so that sound begins beyond what FFmpeg looks at by itself."""

HEAVY = {"qp": "1"}

LATE: dict[str, dict[str, Any]] = {
    "FLV": {"suffix": ".flv", "codec": "aac", "video_options": HEAVY},
    "FLV whose header tells of no sound": {"suffix": ".flv", "codec": "aac", "video_options": HEAVY, "flags": 1},
    "transport stream": {"suffix": ".ts", "codec": "aac"},
    "transport stream with AC-3": {"suffix": ".m2ts", "codec": "ac3"},
    "VOB": {"suffix": ".vob", "codec": "ac3", "video_codec": "mpeg1video"},
    "MPEG": {"suffix": ".mpg", "codec": "mp2", "video_codec": "mpeg1video"},
    "Matroska, which lists its streams": {"suffix": ".mkv", "codec": "aac"},
}


def late(folder: Path, *, suffix: str, flags: int | None = None, sound_start: float = 9.0, **more: Any) -> Path:
    """12 s of picture with 2 s of sound from 9 s on, with clicks at 9.5 and 10.5 s."""
    clicks = clicks_track([0.5, 1.5], seconds=2, sample_rate=48000)
    path = write_sound(
        folder / f"late{suffix}",
        [clicks],
        layout="stereo",
        frames=120,
        fps=25 if "mpeg" in more.get("video_codec", "") else 10,
        sound_start=sound_start,
        picture=NOISE if "video_options" in more else None,
        **more,
    )
    if flags is not None:
        content = bytearray(path.read_bytes())
        content[4] = flags  # FLV's header: 4 is sound, 1 is pictures
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", LATE)
def test_late_sound_is_kept_at_its_time(tmp_path: Path, name: str) -> None:
    start = 3.0 if "video_codec" in LATE[name] else 9.0
    path = late(tmp_path, sound_start=start, **LATE[name])
    (sound,) = (stream for stream in probe(path).streams if stream.kind == "audio")
    assert (sound.sample_rate, sound.channels) == (48000, 2)
    result = run(small_job(path, tmp_path / "out.mp4", size=(64, 48)))
    assert np.abs(np.array(clicks_in(result.path)) - [start + 0.5, start + 1.5]).max() < 0.002


def test_late_sound_is_cut_with_the_picture(tmp_path: Path) -> None:
    result = run(small_job(late(tmp_path, **LATE["transport stream"]), tmp_path / "out.mp4", start=9.25, end=11))
    assert np.abs(np.array(clicks_in(result.path)) - [0.25, 1.25]).max() < 0.002


def test_a_late_picture_is_found(tmp_path: Path) -> None:
    clicks = clicks_track([30.25, 30.75], seconds=31, sample_rate=48000)
    path = write_sound(
        tmp_path / "late.ts",
        [clicks],
        codec="mp2",
        layout="stereo",
        frames=25,
        video_start=30.0,
        video_codec="mpeg2video",
    )
    result = run(small_job(path, tmp_path / "out.mp4"))
    assert np.abs(np.array(clicks_in(result.path)) - [0.25, 0.75]).max() < 0.002
    assert any("begins 30.0" in note and "before the picture" in note for note in result.notes)


def test_without_sound_nobody_looks_for_it(tmp_path: Path) -> None:
    path = late(tmp_path, **LATE["transport stream"])
    assert probe(path, sound=False).look_ahead == 0
    result = run(small_job(path, tmp_path / "out.mp4", encoding=Encoding(audio=False)))
    assert [track.action for track in result.plan.tracks] == ["drop"]
