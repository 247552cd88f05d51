"""`keyscale convert`, and keyframes from standard input and as plain data (docs/keyframes.md)."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.numbered import leftovers, numbers, write_video

import keyscale
from keyscale.cli.app import run
from keyscale.engine.camera.framing import load_framing
from keyscale.engine.errors import UsageError

TABLE = "t,cx,cy,w,h\n0,20,24,30,40\n1,44,24,30,40\n"
ROWS: list[dict[str, Any]] = [
    {"t": 0, "cx": 20, "cy": 24, "w": 30, "h": 40},
    {"t": 1, "cx": 44, "cy": 24, "w": 30, "h": 40},
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", numbers(50), rate=25)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "crops.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def pipe(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return pipe


def test_a_file_is_written_whole_and_told(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "camera.json"
    assert run(["convert", str(table), "-o", str(target)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{target}\n"
    assert f"{table}: read as CSV: 2 keyframes, 0 to 1 s" in err
    document = json.loads(target.read_text())
    assert document["version"] == 1
    assert document["keyframes"][1] == {"time": 1, "x": 29, "y": 4, "width": 30, "height": 40}
    assert load_framing(target).keyframes == load_framing(table).keyframes
    assert leftovers(tmp_path, "camera.json", "crops.csv") == []
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(table.stat().st_mode)


def test_without_a_file_it_is_data_on_stdout(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(table)]) == 0
    assert len(json.loads(capsys.readouterr().out)["keyframes"]) == 2


def test_standard_input_is_converted(piped: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    piped("0 crop w 30, crop h 40, crop x 5, crop y 4; 1 crop x 29")
    assert run(["convert", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["units"] == "pixels"
    assert [row["ease"] for row in document["keyframes"]] == ["hold", "hold"]


def test_a_file_that_is_there_is_kept(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "camera.json"
    target.write_text("mine")
    assert run(["convert", str(table), "-o", str(target)]) == 4
    assert "already exists" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert run(["convert", str(table), "-o", str(target), "--overwrite"]) == 0
    assert json.loads(target.read_text())["version"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,x,y,width,height\n0,0.1,0,0.5,1", "within 0..1"),
        ("time,x,y,width\n0,1,2,3", "'height' is missing"),
        ("<fcpxml>", "FCPXML"),
        ("[{]", "not JSON"),
    ],
)
def test_what_cannot_be_read_is_not_converted(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.txt"
    source.write_text(text)
    assert run(["convert", str(source), "-o", str(tmp_path / "out.json")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert str(source) in err
    assert not (tmp_path / "out.json").exists()


def test_a_folder_that_is_not_there_is_told(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(table), "-o", str(tmp_path / "none" / "camera.json")]) == 4
    assert str(tmp_path / "none" / "camera.json") in capsys.readouterr().err


def test_the_plan_reads_standard_input_and_tells_it_first(
    clip: Path, piped: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    piped(TABLE)
    assert run(["plan", str(clip), "-", "--size", "60x80", "--model", "lanczos"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "CSV: 2 keyframes from 0.000 to 1.000 s; 0.000 to 2.000 s of the video are used" in lines[1]
    assert "sees 30x40 pixels at x 5 to 29, y 4: 39% of the frame" in lines[2]


def test_a_misread_file_is_named_before_any_work(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text('[{"time": 0, "x": 0.2, "y": 0, "width": 0.5, "height": 1}]')
    assert run(["upscale", str(clip), str(camera), "-o", str(tmp_path / "out.mp4")]) == 2
    err = capsys.readouterr().err
    assert f"{camera}: all coordinates lie within 0..1" in err
    assert 'Write {"units": "normalized", "keyframes": [...]}, or pixels if they are pixels.' in err
    assert leftovers(tmp_path, "camera.json") == []


def test_a_remote_job_needs_a_file(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["upscale", str(clip), "-", "--remote"]) == 2
    assert "standard input" in capsys.readouterr().err


# From Python


@pytest.mark.parametrize(
    "camera",
    [ROWS, tuple(ROWS), {"keyframes": ROWS}, [row | {"cx": np.float32(row["cx"])} for row in ROWS]],
    ids=["list", "tuple", "dict", "NumPy's numbers"],
)
def test_plain_data_is_a_camera(clip: Path, table: Path, camera: Any) -> None:
    plain = keyscale.plan(clip, camera, size=(60, 80), model="lanczos")
    by_file = keyscale.plan(clip, table, size=(60, 80), model="lanczos")
    np.testing.assert_array_equal(plain.rects, by_file.rects)


@pytest.mark.parametrize(
    ("camera", "said"),
    [
        ([], "the list of keyframes is empty"),
        ([5], "keyframe 0 is 5, it must be an object"),
        ([{"time": 0}], "keyframe 0: field 'x' is missing"),
        ([{"time": object()}], "keyframes hold"),
        ({"keyframes": ROWS, "zoom": 1}, "unknown key 'zoom'"),
    ],
)
def test_plain_data_is_held_to_the_rules_of_the_file(clip: Path, camera: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        keyscale.upscale(clip, camera)
    assert said in caught.value.message
    assert "keyframes" in caught.value.message
