"""The example clip and its camera: they load, they plan, and they are what their script draws."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from keyscale.engine.camera.framing import load_framing
from keyscale.engine.job import Job, Target
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.probe import probe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLIP, CAMERA = EXAMPLES / "court.mp4", EXAMPLES / "court.json"

MOST_BYTES = 400_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_clip", EXAMPLES / "make_clip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules["make_clip"] = module
    spec.loader.exec_module(module)
    return module


def test_the_clip_is_small_and_what_it_says() -> None:
    info = probe(CLIP)
    assert CLIP.stat().st_size < MOST_BYTES
    assert (info.width, info.height, info.rate, len(info.pts)) == (640, 360, Fraction(25), 100)
    assert not info.variable_rate
    assert not info.colour.assumed
    assert not info.notes
    assert [stream.codec for stream in info.streams] == ["h264", "aac"]


def test_the_camera_file_is_what_the_script_writes(script: ModuleType) -> None:
    assert CAMERA.read_text(encoding="utf-8") == script.camera_text()


def test_the_camera_stays_within_the_frame_and_follows_the_ball(script: ModuleType) -> None:
    framing = load_framing(CAMERA)
    for number in range(script.FRAMES):
        time = number / script.RATE
        rect = framing.rect_at(time)
        assert rect == rect.inside(script.WIDTH, script.HEIGHT)
        assert rect.width / rect.height == pytest.approx(9 / 16)
        x, y = script.project(script.ball_at(time))
        assert rect.x <= x <= rect.x + rect.width
        assert rect.y <= y <= rect.y + rect.height


def test_the_demo_plans_without_a_warning(tmp_path: Path) -> None:
    plan = prepare_plan(
        Job(
            source=str(CLIP),
            keyframes=str(CAMERA),
            output=str(tmp_path / "out.mp4"),
            target=Target(width=540, height=960),
        )
    )
    assert plan.warnings == ()
    assert plan.ratio == pytest.approx(4)
    # 4 s, of which 0.6 s at half speed.
    assert plan.duration == pytest.approx(4.6, abs=1 / 60)


@pytest.mark.slow
def test_the_clip_shows_the_frames_that_the_script_draws(script: ModuleType) -> None:
    with av.open(str(CLIP)) as container:
        decoded = [frame.to_ndarray(format="rgb24", src_colorspace="ITU709") for frame in container.decode(video=0)]
    drawn = list(script.frames())
    assert len(decoded) == len(drawn) == script.FRAMES
    for number, (found, expected) in enumerate(zip(decoded, drawn, strict=True)):
        error = float(np.mean((found.astype(np.float64) - expected) ** 2))
        # 31 dB when the clip was made, 27 dB at most for the frame before or after.
        assert 10 * np.log10(255**2 / error) > 29, f"frame {number}"
