"""`--still`: one frame of the result, as the whole job would hand it to the encoder."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from support.numbered import leftovers, numbered, numbers, run, small_job, write_video
from support.pictures import picture
from support.places import camera
from support.refusals import Refused

from keyscale.cli.app import run as run_command
from keyscale.engine.errors import Interrupted
from keyscale.engine.events import Done
from keyscale.engine.job import Compute, Encoding, Job, ModelChoice
from keyscale.engine.runners.prepare import prepare_still
from keyscale.engine.runners.still import StillRun

Pixels = npt.NDArray[Any]


def png(path: Path) -> tuple[Pixels, dict[bytes, bytes]]:
    """The picture of a PNG, and its chunks by kind."""
    data = path.read_bytes()
    chunks, place = {}, 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks[kind] = data[place + 8 : place + 8 + length]
        place += 12 + length
    with av.open(path) as container:
        frame = next(container.decode(video=0))
        return frame.to_ndarray(), chunks


def still(job: Job, seconds: float, path: Path) -> Pixels:
    *_, last = StillRun(prepare_still(job), StopFlag(), seconds, str(path)).events()
    assert isinstance(last, Done)
    assert (last.output, last.frames) == (str(path), 1)
    return png(path)[0]


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with detail, of which some follow each other unchanged."""
    frames = [picture(96, 72, seed=n // 3 if 10 <= n < 20 else n) for n in range(30)]
    return write_video(tmp_path_factory.mktemp("clip") / "moving.mkv", frames, rate=15, codec="ffv1")


@pytest.mark.parametrize("model", ["lanczos", "keyscale-compact-x2"])
def test_it_is_the_frame_that_the_whole_job_encodes(
    moving: Path, tmp_path: Path, encoded: list[Pixels], model: str
) -> None:
    """At twice the rate, so that frames are shown twice, with a camera that moves over them, in several chunks."""
    document = {
        "version": 1,
        "keyframes": [
            {"time": 0.0, "x": 2.0, "y": 4.0, "width": 48.0, "height": 36.0},
            {"time": 2.0, "x": 40.3, "y": 20.7, "width": 48.0, "height": 36.0},
        ],
        "segments": [{"start": 0.5, "end": 0.9, "speed": 0.4}],
    }
    job = small_job(
        moving,
        tmp_path / "clip.mp4",
        keyframes=str(camera(tmp_path, document)),
        size=(96, 72),
        rate=Fraction(30),
        model=ModelChoice(name=model),
        compute=Compute(device="cpu"),
        chunk_seconds=0.5,
    )
    plan = run(job).plan
    assert len(plan.chunks) > 3
    assert (plan.model is None) == (model == "lanczos")
    edges = [chunk.start for chunk in plan.chunks[1:3]]
    for frame in {0, 1, 16, *edges, edges[0] - 1, plan.frames // 2, plan.frames - 1}:
        made = still(job, float(frame / plan.rate), tmp_path / f"{frame}.png")
        assert made.dtype == np.uint8
        np.testing.assert_array_equal(made, encoded[frame], err_msg=str(frame))


@pytest.mark.parametrize(
    ("tags", "encoding", "depth", "says"),
    [
        ((1, 1, 1, 1), Encoding(), 8, {b"sRGB": b"\x01"}),
        ((1, 1, 1, 1), Encoding(bit_depth=10), 16, {b"sRGB": b"\x01"}),
        # H.273: primaries of BT.2020, PQ, RGB, full range.
        ((9, 1, 9, 16), Encoding(preset="ultrafast"), 16, {b"cICP": bytes([9, 16, 0, 1])}),
        ((9, 1, 9, 18), Encoding(preset="ultrafast"), 16, {b"cICP": bytes([9, 18, 0, 1])}),
    ],
    ids=["8 bit", "10 bit", "PQ", "HLG"],
)
def test_deep_jobs_give_16_bits_and_hdr_says_so(
    tmp_path: Path,
    encoded: list[Pixels],
    tags: tuple[int, int, int, int],
    encoding: Encoding,
    depth: int,
    says: dict[bytes, bytes],
) -> None:
    source = write_video(
        tmp_path / "deep.mkv", numbers(3), rate=25, codec="ffv1", pixel_format="yuv420p10le", tags=tags
    )
    job = small_job(source, tmp_path / "clip.mp4", encoding=encoding)
    run(job)
    made = still(job, 0.04, tmp_path / "still.png")
    chunks = png(tmp_path / "still.png")[1]
    assert struct.unpack(">IIBB", chunks[b"IHDR"][:10]) == (64, 48, depth, 2)
    assert {kind: chunks.get(kind) for kind in says} == says
    assert (b"cICP" in chunks) == (b"cICP" in says)
    np.testing.assert_array_equal(made.astype(np.uint16), encoded[1])


@pytest.mark.parametrize(
    ("seconds", "frame"), [(0.0, 0), (0.039, 0), (0.04, 1), (0.0399, 1), (1.0, 25), (1.96, 49), (1.999, 49)], ids=str
)
def test_a_second_of_the_result_means_the_frame_that_stands_then(tmp_path: Path, seconds: float, frame: int) -> None:
    source = write_video(tmp_path / "talk.mkv", numbers(60), rate=25, codec="ffv1", pixel_format="bgr0")
    job = small_job(source, tmp_path / "clip.mp4", start=0.4)
    made = still(job, seconds, tmp_path / "still.png")
    np.testing.assert_allclose(made.astype(int), numbered(frame + 10, (64, 48)), atol=1)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "talk.mp4", numbers(50), rate=25)


FLAGS = ["--size", "64x48", "--model", "lanczos", "--progress", "none"]


def test_the_command_writes_it_beside_the_source_and_nothing_else(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip of the job's own name may be there: it is not this command's."""
    (tmp_path / "talk.keyscale.mp4").write_text("a clip")
    assert run_command([str(clip), *FLAGS, "--still", "0:01.5"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'talk.1.5s.png'}\n"
    assert png(tmp_path / "talk.1.5s.png")[0].shape == (48, 64, 3)
    assert leftovers(tmp_path, "talk.mp4", "talk.keyscale.mp4") == ["talk.1.5s.png"]
    assert (tmp_path / "talk.keyscale.mp4").read_text() == "a clip"


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--still", "2.0"], 2, "--still 2 s is not within the result, which lasts 2.000 s"),
        (["--still", "1", "--start", "1.48"], 2, "lasts 0.520 s"),
        (["--still", "-1"], 2, "--still '-1' is not a time"),
        (["--still", "soon"], 2, "--still 'soon' is not a time"),
        (["--still", "1", "--remote"], 2, "--still runs on this machine only"),
        (["--still", "1", "--update"], 2, "--still is always made"),
        (["--still", "1", "-o", "x.mp4"], 2, "-o x.mp4: a still is a PNG file"),
        (["--still", "1", "-o", "r2://bucket/x.png"], 2, "a still is a PNG file on this machine"),
        (["--still", "1", "-o", "there.png"], 4, "there.png already exists"),
        (["--still", "1", "-o", "no/x.png"], 4, "cannot write no/x.png"),
        (["--still", "1", "--model", "nosuch"], 4, "no model named 'nosuch'"),
        (["--still", "1", "--model", "lanczos", "--model", "nosuch"], 2, "names several networks, lanczos and nosuch"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_and_leaves_nothing(
    clip: Path, refused: Refused, flags: list[str], code: int, message: str
) -> None:
    refused([str(clip), "--size", "64x48", "--fps", "source", *flags], code, message)


def test_one_that_is_there_is_replaced_where_that_is_said(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "there.png").write_text("old")
    assert run_command([str(clip), *FLAGS, "--still", "1", "-o", str(tmp_path / "there.png"), "-y"]) == 0
    assert png(tmp_path / "there.png")[0].shape == (48, 64, 3)


def test_one_that_is_stopped_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    stop, path = StopFlag(), tmp_path / "still.png"
    # A picture of another shape is told of, before anything is made.
    job = small_job(clip, tmp_path / "clip.mp4", size=(48, 64))
    events = StillRun(prepare_still(job), stop, 1.0, str(path)).events()
    next(events)
    stop.set()
    with pytest.raises(Interrupted):
        list(events)
    assert leftovers(tmp_path, "talk.mp4") == []


def test_progress_as_events_ends_with_the_picture(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.png"
    assert run_command([str(clip), *FLAGS[:4], "--still", "1", "-o", str(target), "--progress", "json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events].count("done") == 1
    assert (events[-1]["event"], events[-1]["output"], events[-1]["frames"]) == ("done", str(target), 1)
