"""The shared flags: what each means as a `Job`, and what is refused before anything is opened."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

import pytest
from support.flags import build_job

from keyscale.engine import job as jobs
from keyscale.engine.errors import UsageError
from keyscale.engine.job import default_output
from keyscale.engine.quantities import Time


def test_without_flags_the_job_is_the_engines_own_default() -> None:
    assert build_job(video="talk.mp4") == jobs.Job(source="talk.mp4", output="talk.keyscale.mp4")


def test_every_flag_reaches_the_job() -> None:
    job = build_job(
        video="talk.mkv",
        keyframes="camera.json",
        output="clip.mov",
        overwrite=True,
        size="1920x1080",
        fit=jobs.Fit.CONTAIN,
        fps="30000/1001",
        start="1:30",
        end="2:00.5",
        mode=jobs.Mode.QUALITY,
        model="realesr-general-x4v3",
        denoise=0.25,
        steady=0.5,
        offline=True,
        device="CUDA:1",
        precision=jobs.Precision.BF16,
        tile="256",
        codec=jobs.Codec.AV1,
        crf=60,
        preset="8",
        bit_depth=10,
        audio=False,
        chunk_seconds=2.5,
        resume=False,
        verify=jobs.Verify.QUICK,
        keep_going_on_decode_errors=True,
    )
    assert job == jobs.Job(
        source="talk.mkv",
        output="clip.mov",
        keyframes="camera.json",
        target=jobs.Target(width=1920, height=1080, fit=jobs.Fit.CONTAIN, rate=Fraction(30000, 1001)),
        trim=jobs.Trim(start=90.0, end=120.5),
        encoding=jobs.Encoding(codec=jobs.Codec.AV1, crf=60, preset="8", bit_depth=10, audio=False),
        model=jobs.ModelChoice(mode=jobs.Mode.QUALITY, name="realesr-general-x4v3", denoise=0.25, offline=True),
        calm=jobs.Calm(steady=0.5),
        compute=jobs.Compute(device="cuda:1", precision=jobs.Precision.BF16, tile=256),
        chunk_seconds=2.5,
        overwrite=True,
        resume=False,
        verify=jobs.Verify.QUICK,
        keep_going_on_decode_errors=True,
    )


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        (" 7 ", 7.0),
        ("1:30", 90.0),
        ("01:05.25", 65.25),
        ("90:00", 5400.0),
        ("0:01:30.250", 90.25),
        ("10:59:59.999", 39599.999),
        ("1:2:3", 3723.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert Time().read(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "-1",
        "1:60",
        "1:75:00",
        "1:2:3:4",
        ":30",
        "1:",
        "nan",
        "inf",
        "1e3",
        "1,5,2",
        "1m30",
        "٣",
        "+1",
    ],
)
def test_what_is_not_a_time_is_refused_with_the_flags_name(text: str) -> None:
    with pytest.raises(UsageError, match="--end") as caught:
        build_job(video="talk.mp4", end=text)
    assert caught.value.remedy is not None
    assert "MM:SS" in caught.value.remedy


# Refusals


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"size": "1080"}, "--size"),
        ({"size": "1080x"}, "--size"),
        ({"size": "-2x4"}, "--size"),
        ({"size": "1081x1920"}, "1081"),
        ({"size": "0x2"}, "width 0"),
        ({"size": "999999999999x2"}, "width"),
        ({"fps": "fast"}, "--fps"),
        ({"fps": "0"}, "--fps"),
        ({"fps": "1/0"}, "--fps"),
        ({"fps": "1e999999999"}, "--fps"),
        ({"fps": "9" * 100_000}, "--fps"),
        ({"start": "soon"}, "--start"),
        ({"end": "0"}, "--end"),
        ({"start": "5", "end": "5"}, "--end 5 is not after --start 5"),
        ({"start": "1:00", "end": "59"}, "--end 59 is not after --start 60"),
        ({"denoise": 1.5}, "--denoise"),
        ({"denoise": float("nan")}, "--denoise"),
        ({"device": "gpus"}, "--device"),
        ({"device": "cuda:x"}, "--device"),
        ({"device": ""}, "--device"),
        ({"tile": "31"}, "--tile"),
        ({"tile": "-1"}, "--tile"),
        ({"tile": "big"}, "--tile"),
        ({"tile": "12.5"}, "--tile"),
        ({"crf": -1}, "--crf"),
        ({"crf": 52, "codec": jobs.Codec.H264}, "--crf"),
        ({"crf": 64, "codec": jobs.Codec.AV1}, "--crf"),
        ({"bit_depth": 9}, "--bit-depth"),
        ({"chunk_seconds": 0.0}, "--chunk-seconds"),
        ({"chunk_seconds": float("nan")}, "--chunk-seconds"),
        ({"chunk_seconds": float("inf")}, "--chunk-seconds"),
        ({"model": ""}, "--model"),
        ({"preset": " "}, "--preset"),
        ({"output": ""}, "-o"),
        ({"keyframes": ""}, "KEYFRAMES.json"),
        ({"video": ""}, "VIDEO"),
        ({"video": "a\0b"}, "VIDEO"),
    ],
)
def test_a_wrong_value_names_its_flag_and_says_what_to_do(flags: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_job(**{"video": "talk.mp4"} | flags)
    assert named in caught.value.message
    assert caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("tile", "meaning"), [("auto", None), ("AUTO", None), ("0", 0), ("32", 32), ("512", 512)])
def test_tiles(tile: str, meaning: int | None) -> None:
    assert build_job(video="talk.mp4", tile=tile).compute.tile == meaning


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        ("30", Fraction(30)),
        ("29.97", Fraction(30000, 1001)),
        ("24000/1001", Fraction(24000, 1001)),
        ("source", None),
        ("SOURCE", None),
    ],
)
def test_rates(fps: str, rate: Fraction | None) -> None:
    assert build_job(video="talk.mp4", fps=fps).target.rate == rate


# The result's name


@pytest.mark.parametrize(
    ("video", "output"),
    [
        ("talk.mp4", "talk.keyscale.mp4"),
        ("in/talk.final.mkv", "in/talk.final.keyscale.mp4"),
        ("/a b/talk", "/a b/talk.keyscale.mp4"),
        ("./-odd.webm", "-odd.keyscale.mp4"),
        (".hidden", ".hidden.keyscale.mp4"),
        (os.fsdecode(b"caf\xe9.mp4"), os.fsdecode(b"caf\xe9.keyscale.mp4")),
    ],
)
def test_the_result_goes_beside_the_source(video: str, output: str) -> None:
    assert default_output(video) == str(output)


def test_prores_goes_to_mov() -> None:
    assert default_output("talk.mp4", jobs.Codec.PRORES) == "talk.keyscale.mov"
    assert build_job(video="talk.mp4", codec=jobs.Codec.PRORES).output == "talk.keyscale.mov"
