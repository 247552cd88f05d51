"""What is refused since the GPUs that a deployment may get do not do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keyscale.cli.app import run
from keyscale.engine.errors import EncoderError, UsageError
from keyscale.engine.job import Codec, Compute, Encoding, Job
from keyscale.engine.plan.plan import Plan
from keyscale.engine.remote.prices import check_suited
from keyscale.engine.runners.prepare import prepare_plan

COURT = Path(__file__).resolve().parents[2] / "examples" / "court.mp4"


def planned(codec: Codec, device: str = "auto") -> Plan:
    job = Job(source=str(COURT), output="out.mp4", encoding=Encoding(codec=codec), compute=Compute(device=device))
    return prepare_plan(job, remote=True)


@pytest.fixture(scope="module")
def nvenc() -> Plan:
    return planned(Codec.H264_NVENC)


@pytest.mark.parametrize("gpus", [("L4", "A10", "T4"), ("l40s!",), ("A10G",)])
def test_gpus_that_encode_are_taken(nvenc: Plan, gpus: tuple[str, ...]) -> None:
    check_suited(nvenc, gpus)


@pytest.mark.parametrize(
    ("gpus", "lacking"), [(("H100",), "H100,"), (("L4", "A100", "H100"), "A100 and H100,"), ((), "CPUs,")]
)
def test_one_gpu_that_does_not_encode_is_enough_to_refuse(nvenc: Plan, gpus: tuple[str, ...], lacking: str) -> None:
    with pytest.raises(EncoderError, match=f"h264_nvenc with --remote: {lacking}") as caught:
        check_suited(nvenc, gpus)
    assert "another --codec" in str(caught.value.remedy)
    assert "T4, L4, A10, L40S" in str(caught.value.remedy)
    check_suited(replace(nvenc, encoder=planned(Codec.H264).encoder), gpus)


def test_not_every_gpu_that_encodes_knows_av1() -> None:
    plan = planned(Codec.AV1_NVENC)
    check_suited(plan, ("L4", "L40S"))
    with pytest.raises(EncoderError, match="av1_nvenc with --remote: A10 and T4,"):
        check_suited(plan, ("L4", "A10", "T4"))


def test_a_device_that_is_not_deployed_is_refused() -> None:
    check_suited(planned(Codec.H264, "cpu"), ())
    check_suited(planned(Codec.H264, "cuda"), ("L4",))
    with pytest.raises(UsageError, match="--device cpu with --remote: the deployed functions run on cuda"):
        check_suited(planned(Codec.H264, "cpu"), ("L4",))


@pytest.mark.parametrize(
    ("flags", "gpus", "code", "told"),
    [
        (["--codec", "hevc_nvenc"], "H100", 4, "hevc_nvenc with --remote: H100"),
        (["--device", "cpu"], "L4", 2, "--device cpu with --remote"),
    ],
)
def test_a_plan_refuses_what_the_run_would_refuse(
    flags: list[str],
    gpus: str,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KEYSCALE_GPU", gpus)
    assert run(["plan", str(COURT), "-o", "out.mp4", "--remote", *flags]) == code
    assert told in capsys.readouterr().err
