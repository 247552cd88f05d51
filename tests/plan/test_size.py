"""Sizes that follow the camera: a shape and the network's scale, or a factor; in pixels in the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.clips import make_clip
from support.films import camera, film, planned

import keyscale
from keyscale.cli.app import run
from keyscale.engine.choices import Fit, Mode
from keyscale.engine.errors import UsageError
from keyscale.engine.models.registry import defaults_for, find
from keyscale.engine.plan.plan import Plan

FAST = defaults_for(Mode.FAST)
X2 = find("RealESRGAN_x2plus")
Rows = list[tuple[float, float, float, float, float]]
WIDE: Rows = [(0, 0, 0, 1920, 1080)]
NARROW: Rows = [(0, 100, 0, 540, 960)]


def size_of(rows: Rows, relative: str, models: Any = FAST, fit: Fit = Fit.COVER) -> tuple[int, int]:
    return pixels(plan_of(rows, relative, models, fit))


def plan_of(rows: Rows, relative: str, models: Any = FAST, fit: Fit = Fit.COVER) -> Plan:
    return planned(film(10, 25), 25, framing=camera(rows), size=(0, 0, relative), fit=fit, models=models)


def pixels(plan: Plan) -> tuple[int, int]:
    target = plan.job.target
    assert target.relative is None
    return target.width, target.height


@pytest.mark.parametrize(
    ("rows", "relative", "expected"),
    [
        (NARROW, "2x", (1080, 1920)),
        (NARROW, "x2", (1080, 1920)),
        (NARROW, "1x", (540, 960)),
        (NARROW, "1.5x", (810, 1440)),
        (WIDE, "0.5x", (960, 540)),
        ([(0, 0, 0, 607.5, 1080)], "2x", (1214, 2160)),
        # The largest rectangle: those that are closer are enlarged more.
        ([(0, 0, 0, 540, 960), (0.4, 0, 0, 270, 480)], "2x", (1080, 1920)),
    ],
)
def test_a_factor_enlarges_what_the_camera_sees(rows: Rows, relative: str, expected: tuple[int, int]) -> None:
    assert size_of(rows, relative) == expected


def test_no_larger_network_is_taken_than_the_factor_needs() -> None:
    """607.5 pixels twice would be 1216, a hair above the x2 network's."""
    for width in (607.5, 601.3, 333.4):
        plan = plan_of([(0, 10, 10, width, width * 16 / 9)], "2x")
        assert plan.scale == 2
        assert plan.ratio <= 2


@pytest.mark.parametrize(
    ("rows", "relative", "models", "fit", "expected"),
    [
        (NARROW, "9:16", FAST, Fit.COVER, (2160, 3840)),
        (NARROW, "9:16", {2: X2}, Fit.COVER, (1080, 1920)),
        (NARROW, "9:16", {}, Fit.COVER, (540, 960)),
        # 1080 * 9 / 16 = 607.5 columns of the picture, four times.
        (WIDE, "9:16", FAST, Fit.COVER, (2430, 4320)),
        (WIDE, "1:1", FAST, Fit.COVER, (4320, 4320)),
        (WIDE, "2.4:1", FAST, Fit.COVER, (7680, 3200)),
        # Shown whole: 1920 columns are 9/16 of 3413.3 rows.
        (WIDE, "9:16", {}, Fit.CONTAIN, (1918, 3412)),
        (NARROW, "16:9", {}, Fit.CONTAIN, (1706, 958)),
    ],
)
def test_a_shape_keeps_the_larger_side_that_the_network_gives(
    rows: Rows, relative: str, models: Any, fit: Fit, expected: tuple[int, int]
) -> None:
    assert size_of(rows, relative, models, fit) == expected


@pytest.mark.parametrize(
    ("rows", "relative", "said"),
    [
        (WIDE, "16x", "16x would be 30720x17280 pixels"),
        (WIDE, "99:1", None),
        ([(0, 10, 10, 3, 3)], "0.3x", "0.3x would be 0x0 pixels"),
    ],
)
def test_a_side_out_of_range_is_an_error_that_names_both(rows: Rows, relative: str, said: str | None) -> None:
    if said is None:
        assert size_of(rows, relative) == (7680, 76)
        return
    with pytest.raises(UsageError, match=said) as caught:
        size_of(rows, relative)
    assert caught.value.option == "size"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    row = {"time": 0, "x": 8, "y": 4, "width": 54, "height": 96}
    (folder / "talk.json").write_text(json.dumps({"version": 1, "keyframes": [row]}))
    return make_clip(folder / "talk.mp4", frames=8, rate=25, size=(128, 104))


QUICK = ["--model", "lanczos", "--fps", "source", "--preset", "ultrafast"]


def test_every_surface_takes_it_and_the_result_has_it(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(clip), str(clip.with_suffix(".json")), *QUICK]
    assert run(["plan", *given, "--size", "2x"]) == 0
    assert "108x192" in capsys.readouterr().out
    (tmp_path / "keyscale.toml").write_text('size = "4:3"\n')
    assert run(["plan", *given, "--json", "--config", "keyscale.toml"]) == 0
    target = json.loads(capsys.readouterr().out)["target"]
    assert (target["width"], target["height"]) == (54, 40)
    plan = keyscale.plan(given[0], given[1], size="2x", model="lanczos")
    assert pixels(plan) == (108, 192)
    done = keyscale.upscale(
        given[0], given[1], "clip.mp4", size="2x", model="lanczos", fps="source", preset="ultrafast"
    ).run()
    made = keyscale.plan(done.output)
    assert (made.info.width, made.info.height) == (108, 192)
    # Written out in pixels it is the same job.
    assert run(["upscale", *given, "--size", "108x192", "-o", "clip.mp4", "--update"]) == 0
    assert "skipped" in capsys.readouterr().err


@pytest.mark.processes
def test_a_batch_tells_the_pixels(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(f"video,output,size\n{clip},one,2x\n{clip},two,9:16\n")
    assert run(["batch", str(tmp_path / "clips.csv"), "-o", str(tmp_path / "out"), "--jobs", "1", *QUICK]) == 0
    clips = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["clips"]
    assert [each["size"] for each in clips] == [[108, 192], [54, 96]]
