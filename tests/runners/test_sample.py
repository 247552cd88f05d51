"""`--sample`: telling stretches of a result, frame by frame those of the whole job."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.clips import clicks_in, clicks_track, make_clip, numbers_in
from support.numbered import interrupt, leftovers, planes, run, small_job, write_video
from support.pictures import picture
from support.places import camera
from support.refusals import Refused

from keyscale.cli.app import run as run_command
from keyscale.engine.job import Compute, Job, ModelChoice
from keyscale.engine.plan.sample import sample_of, telling_stretches
from keyscale.engine.quantities import Samples
from keyscale.engine.runners.local import run_local
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.runners.sample import prepare_samples, run_samples
from keyscale.engine.workspace.folder import work_folder_of

Pixels = npt.NDArray[Any]

MOVING: dict[str, Any] = {
    "version": 1,
    "keyframes": [
        {"time": 0.0, "x": 2.0, "y": 4.0, "width": 48.0, "height": 36.0},
        {"time": 1.0, "x": 2.0, "y": 4.0, "width": 48.0, "height": 36.0},
        {"time": 1.4, "x": 46.3, "y": 30.7, "width": 48.0, "height": 36.0},
        {"time": 1.8, "x": 46.3, "y": 30.7, "width": 32.0, "height": 24.0},
    ],
}


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [picture(96, 72, seed=n // 3 if 20 <= n < 30 else n) for n in range(45)]
    return write_video(tmp_path_factory.mktemp("clip") / "moving.mkv", frames, rate=15, codec="ffv1")


def job_of(moving: Path, folder: Path, document: dict[str, Any] = MOVING, **more: Any) -> Job:
    keyframes = str(camera(folder, document))
    fields = {"size": (96, 72), "compute": Compute(device="cpu"), "chunk_seconds": 0.5} | more
    return small_job(moving, folder / "clip.mp4", keyframes=keyframes, **fields)


def made(job: Job, asked: Samples) -> list[Path]:
    samples = prepare_samples(job, asked)
    list(run_samples(samples, StopFlag()))
    return [Path(sample.job.output) for sample in samples]


@pytest.mark.parametrize("model", ["lanczos", "keyscale-compact-x2"])
def test_its_frames_are_those_of_the_whole_job(moving: Path, tmp_path: Path, encoded: list[Pixels], model: str) -> None:
    """At another rate, trimmed, with slow motion."""
    rows = [
        row | {"x": row["x"] / 2, "y": 1.0, "width": 1.2 * row["width"], "height": 0.9 * row["width"]}
        for row in MOVING["keyframes"]
    ]
    segments = [{"start": 0.5, "end": 1.2, "speed": 0.4}]
    document = {"version": 1, "keyframes": rows, "segments": segments, "trim": {"start": 0.2}}
    job = job_of(moving, tmp_path, document, rate=Fraction(30), model=ModelChoice(name=model))
    plan = run(job).plan
    whole = encoded.copy()
    encoded.clear()
    made(job, Samples(2, 0.4))
    parts = telling_stretches(plan, 2, 0.4)
    assert len(parts) == 2
    expected = [whole[frame] for begin, end in parts for frame in range(begin, end)]
    assert len(encoded) == len(expected) == 24
    for number, (sampled, full) in enumerate(zip(encoded, expected, strict=True)):
        np.testing.assert_array_equal(sampled, full, err_msg=str(number))


def test_stretches_are_where_the_camera_moves_and_where_it_sees_least(moving: Path, tmp_path: Path) -> None:
    """15 frames a second: it moves from frame 15 to 21, is close from 27 on, and stands elsewhere."""
    plan = prepare(job_of(moving, tmp_path)).plan
    assert telling_stretches(plan, 1, 0.4) == [(16, 22)]
    [moves, close] = telling_stretches(plan, 2, 0.4)
    assert moves == (16, 22)
    assert close[0] >= 27
    many = telling_stretches(plan, 20, 0.4)
    assert 4 <= len(many) <= 7
    assert all(first[1] <= second[0] for first, second in pairwise(many))
    assert telling_stretches(plan, 1, 60) == [(0, 45)]
    assert telling_stretches(plan, 2, 0.001) == [(16, 17), (27, 28)]


def test_a_camera_that_stands_is_sampled_in_the_middle(moving: Path, tmp_path: Path) -> None:
    plan = prepare(small_job(moving, tmp_path / "clip.mp4")).plan
    [(begin, end)] = telling_stretches(plan, 1, 1.0)
    assert (begin, end - begin) == (15, 15)


def test_sound_stays_with_the_picture(tmp_path: Path) -> None:
    """Frames count from the source's first; clicks at 1.0 s and at 2.2 s, of which the second is in slow motion."""
    sound = clicks_track([1.0, 2.2], seconds=4, sample_rate=48000)
    source = make_clip(tmp_path / "talk.mp4", frames=100, rate=25, sounds=[sound])
    keyframes = camera(tmp_path, {
        "version": 1,
        "keyframes": [{"time": 0.0, "x": 0, "y": 0, "width": 64, "height": 48}],
        "segments": [{"start": 2.0, "end": 2.4, "speed": 0.5}],
    })  # fmt: skip
    plan = prepare(small_job(source, tmp_path / "clip.mp4", keyframes=str(keyframes))).plan
    for begin, end, clicks in [(20, 40, [0.2]), (45, 75, [0.6])]:
        output = tmp_path / f"{begin}.mp4"
        part = sample_of(plan, begin, end, str(output))
        assert part.time_map.start == pytest.approx(begin / 25)
        prepared = prepare(replace(plan.job, output=str(output)))
        list(run_local(replace(prepared, plan=part), StopFlag()))
        assert [number for _, number in numbers_in(output)] == plan.source_index[begin:end].tolist()
        assert clicks_in(output) == pytest.approx(clicks, abs=0.004)


def test_neither_estimates_nor_the_whole_jobs_chunks_are_touched(
    moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    job = job_of(moving, tmp_path)
    interrupt(job, chunks=2)
    before = {path: path.stat().st_mtime_ns for path in work_folder_of(Path(job.output)).rglob("chunk-*")}
    assert len(before) >= 4
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    found = made(job, Samples(1, 0.4))
    assert found == [tmp_path / "clip.sample.mp4"]
    assert not (tmp_path / "cache").exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert run(job).done.resumed_frames > 0


FLAGS = ["--size", "64x48", "--model", "lanczos", "--fps", "source", "--progress", "none"]


def test_the_command_names_each_and_prints_it(moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "talk.mkv"
    shutil.copy(moving, video)
    assert run_command([str(video), *FLAGS, "--sample", "2x0,4", "-o", str(tmp_path / "x.mkv")]) == 0
    names = ["x.sample-1.mkv", "x.sample-2.mkv"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in names]
    assert leftovers(tmp_path, "talk.mkv") == names
    assert run_command([str(video), *FLAGS, "--sample", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'talk.keyscale.sample.mp4'}\n"


def page_data(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0]
    found: dict[str, Any] = json.loads(text)
    return found


def test_several_networks_make_the_same_stretches_and_a_page(
    moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second network asks for no size of its own where the size follows the camera."""
    flags = [str(moving), "--fps", "source", "--device", "cpu", "--size", "2x", "--sample", "2x0.2", "--crf", "10"]
    names = ["keyscale-compact-x2", "lanczos", "keyscale-compact-x4"]
    models = ["--model", names[0], "--model", ",".join(names[1:])]
    assert run_command([*flags, *models, "-o", str(tmp_path / "a.mkv")]) == 0
    made = [tmp_path / f"a.{name}.sample-{number}.mkv" for name in names for number in (1, 2)]
    page = tmp_path / "a.sample.compare.html"
    assert capsys.readouterr().out.splitlines() == [str(path) for path in (*made, page)]
    assert run_command([*flags, "--model", "lanczos", "-o", str(tmp_path / "one.mkv")]) == 0
    for number in (1, 2):
        alone = tmp_path / f"one.sample-{number}.mkv"
        assert planes(alone) == planes(tmp_path / f"a.lanczos.sample-{number}.mkv")
        assert planes(alone) != planes(tmp_path / f"a.keyscale-compact-x2.sample-{number}.mkv")
    data = page_data(page)
    assert data["names"] == names
    assert data["size"] == [192, 144]
    assert [len(moment["pictures"]) for moment in data["moments"]] == [3] * len(data["moments"])
    assert {moment["words"].partition(",")[0] for moment in data["moments"]} == {"sample 1", "sample 2"}
    assert "times as sharp as keyscale-compact-x2" in data["moments"][0]["words"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--model", "keyscale-compact-x2"], 2, "names several networks, lanczos and keyscale-compact-x2"),
        (["--model", "keyscale-compact-x2", "--still", "1"], 2, "names several networks"),
        (["--sample", "1", "--model", "nothing"], 4, "no model named 'nothing'"),
        (["--sample", "1", "--model", "Lanczos"], 2, "--model names one network twice"),
        (
            ["--sample", "1", "--model", "keyscale-compact-x2", "-o", "x.mp4"],
            4,
            "compare.html already exists",
        ),
        (["--sample", "long"], 2, "--sample 'long' is not a length"),
        (["--sample", "0x2"], 2, "--sample '0x2' is not a length"),
        (["--sample", "0"], 2, "--sample '0' is not a length"),
        (["--sample", "1", "--still", "1"], 2, "only one of them can be given"),
        (["--sample", "1", "--remote"], 2, "--sample runs on this machine only"),
        (["--sample", "1", "--update"], 2, "--sample is always made"),
        (["--sample", "1", "-o", "r2://bucket/x.mp4"], 2, "is an address"),
        (["--sample", "2x0.4", "-o", "x.mp4"], 4, "x.sample-2.mp4 already exists"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_anything_is_made(
    moving: Path, refused: Refused, flags: list[str], code: int, message: str
) -> None:
    refused(
        [str(moving), *FLAGS, *flags],
        code,
        message,
        in_its_way="x.sample.compare.html" if "compare" in message else "x.sample-2.mp4",
    )
