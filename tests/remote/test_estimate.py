"""How a job is spread over containers, and what it is expected to take and to cost."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from keyscale.engine.errors import UsageError
from keyscale.engine.job import Codec, Encoding, Job, Mode, ModelChoice, Target
from keyscale.engine.models.speeds import known_speeds
from keyscale.engine.plan.describe import RemoteEstimate, summarise
from keyscale.engine.plan.plan import Plan
from keyscale.engine.remote.estimate import START_S, affordable, estimate, remember_calls
from keyscale.engine.remote.prices import CORES, GPUS, IDLE_S, WIDE_CORES, cost
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.worker.contract import Made, Stages

COURT = Path(__file__).resolve().parents[2] / "examples" / "court.mp4"


def planned(*, mode: Mode = Mode.FAST, codec: Codec = Codec.AUTO, width: int = 1080) -> Plan:
    return prepare_plan(
        Job(
            source=str(COURT),
            output="out.mp4",
            target=Target(width=width, height=width * 16 // 9, rate=Fraction(25)),
            model=ModelChoice(mode=mode),
            encoding=Encoding(codec=codec),
            chunk_seconds=1.0,
        ),
        remote=True,
    )


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Four chunks of one second at 1080x1920."""
    found = planned()
    assert len(found.chunks) == 4
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was measured yet."""
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))


def long(chunks: int) -> dict[str, Any]:
    """So many chunks of a second."""
    return {"chunks": chunks, "frames": chunks * 25}


def test_more_containers_take_less_time_and_cost_their_starts_and_their_idle_time(plan: Plan) -> None:
    one, two, many = (estimate(plan, ["L4"], containers=number, cores=[4]) for number in (1, 2, 50))
    assert one.chosen.minutes > two.chosen.minutes > many.chosen.minutes
    assert (one.chunks, one.chosen.containers, many.chosen.containers) == (4, 1, 4)
    assert two.dollars - one.dollars == pytest.approx(cost("L4", START_S + IDLE_S))
    assert estimate(plan, ["L4"], containers=3, cores=[4]).chosen.minutes == pytest.approx(two.chosen.minutes)


def test_the_parts_of_the_cost_are_told_and_make_up_the_whole(plan: Plan) -> None:
    found = estimate(plan, ["L4"], containers=2, cores=[4])
    assert set(found.parts) == {"work", "start", "idle", "asking", "storage"}
    assert all(dollars > 0 for dollars in found.parts.values())
    assert sum(found.parts.values()) == pytest.approx(found.dollars)
    assert found.parts["idle"] == pytest.approx(2 * cost("L4", IDLE_S))


def test_with_a_deadline_as_few_containers_are_taken_as_keep_it(plan: Plan) -> None:
    size = long(240)
    fastest = estimate(plan, ["L4"], containers=10, **size).chosen
    slowest = estimate(plan, ["L4"], containers=1, **size).chosen
    between = (fastest.minutes + slowest.minutes) / 4
    chosen = estimate(plan, ["L4"], containers=10, deadline_s=between * 60, **size).chosen
    assert chosen.minutes <= between
    assert 1 < chosen.containers < 10
    assert chosen.dollars < fastest.dollars
    fewer = estimate(plan, ["L4"], containers=chosen.containers - 1, **size).chosen
    assert fewer.minutes > between
    assert estimate(plan, ["L4"], containers=10, deadline_s=86400, **size).chosen.containers == 1


def test_a_deadline_that_cannot_be_kept_is_an_error_that_tells_what_can(plan: Plan) -> None:
    with pytest.raises(UsageError, match="longer than --remote-deadline") as told:
        estimate(plan, ["L4"], containers=10, deadline_s=START_S, **long(240))
    assert "minutes in 10 containers" in str(told.value.message)
    assert "--remote-containers" in str(told.value.remedy)


def test_more_cores_are_taken_where_the_gpu_would_wait_for_them(plan: Plan) -> None:
    size = long(2400)
    chosen = estimate(plan, ["L4"], containers=1, **size)
    usual = estimate(plan, ["L4"], containers=1, cores=[CORES], **size)
    assert (chosen.chosen.cores, usual.chosen.cores) == (WIDE_CORES, CORES)
    assert chosen.dollars < 0.9 * usual.dollars
    assert "the GPU would wait" in chosen.why
    heavy = replace(plan, estimate=replace(plan.estimate, macs=plan.estimate.macs * 100))
    assert estimate(heavy, ["L4"], containers=1, **size).chosen.cores == CORES
    assert estimate(plan, [], containers=1, **size).chosen.cores == CORES


def test_other_kinds_of_gpus_fewer_containers_and_their_encoder_are_told(plan: Plan) -> None:
    found = estimate(plan, ["L4", "T4"], containers=4)
    assert found.chosen.gpu == "L4"
    assert "L4 is the first of L4,T4" in found.why
    others = [(split.gpu, split.containers, split.encoder) for split in found.alternatives]
    assert {gpu for gpu, _, _ in others} == {gpu.name for gpu in GPUS}
    assert ("L4", 1, "libx264") in others
    assert ("L4", 4, "h264_nvenc") in others
    dollars = [split.dollars for split in found.alternatives]
    assert dollars == sorted(dollars)
    assert not any(split.encoder == "h264_nvenc" for split in estimate(plan, ["H100"], containers=4).alternatives)
    on_gpu = replace(plan, encoder=replace(plan.encoder, encoder="h264_nvenc", preset="p4"))
    able = {split.gpu for split in estimate(on_gpu, ["L4"], containers=4).alternatives}
    assert able == {"T4", "A10", "L4", "L40S", "RTX-PRO-6000"}
    table = dict(summarise(plan, found))
    assert "4 containers with L4 GPUs and 4 cores each: L4 is the first of L4,T4" in table["Remote"]
    assert "not measured" in table["Estimate"]


def test_a_large_network_takes_longer_and_a_faster_gpu_less(plan: Plan) -> None:
    large = replace(plan, estimate=replace(plan.estimate, macs=plan.estimate.macs * 100))
    size = long(100)

    def minutes(plan: Plan, gpu: str) -> float:
        return estimate(plan, [gpu], containers=1, **size).chosen.minutes

    assert minutes(large, "L4") > minutes(plan, "L4")
    assert minutes(large, "H100") < minutes(large, "L4") < minutes(large, "T4")


# What was measured


def made(
    frames: int, frame_s: float, *, gpu: str = "NVIDIA L4", start: float | None = None, again: bool = False
) -> Made:
    """A chunk whose frames took so long each."""
    making = frames * frame_s
    return Made(
        plan_sha256="",
        index=0,
        start=0,
        end=frames,
        frames=frames,
        lost=0,
        inferred=frames,
        size=1,
        sha256="",
        seconds=making + 1,
        gpu=gpu,
        container="ta-1",
        stages=Stages(start=start, making=making, cpu=making * 3, network=making / 2, macs=frames * 10**9),
        network="",
        bytes_read=1,
        again=again,
    )


def measured(plan: Plan, *chunks: Made, call_s: float | None = None, cores: int = CORES) -> None:
    remember_calls(plan, chunks, cores, call_s)


def one(plan: Plan, gpu: str = "L4", chunks: int = 100) -> RemoteEstimate:
    return estimate(plan, [gpu], containers=1, cores=[CORES], **long(chunks))


def test_an_estimate_goes_by_the_speed_of_the_users_own_jobs_on_that_gpu(plan: Plan) -> None:
    before, elsewhere = one(plan), one(plan, "H100")
    measured(plan, made(100, 0.5, start=7.5), call_s=2.0)
    found = one(plan)
    assert found.chosen.measured
    assert not before.chosen.measured
    assert found.chosen.minutes * 60 == pytest.approx(7.5 + 100 * 2.0 + 2500 * 0.5)
    assert found.dollars == pytest.approx(
        cost("L4", 7.5 + IDLE_S + 200 + 1250) + found.parts["asking"] + found.parts["storage"]
    )
    assert "speeds of your own jobs" in dict(summarise(plan, found))["Estimate"]
    assert not one(plan, "H100").chosen.measured
    assert one(plan, "H100").chosen.minutes != elsewhere.chosen.minutes, "what cores need is the same on any GPU"


def test_a_slow_chunk_or_job_among_many_changes_nothing(plan: Plan) -> None:
    measured(plan, made(100, 0.02), made(100, 0.02), made(10, 3.0))
    usual = one(plan).chosen.minutes
    measured(plan, made(100, 0.02))
    measured(plan, made(20, 5.0))
    assert one(plan).chosen.minutes == pytest.approx(usual)


def test_a_long_job_counts_more_than_short_ones(plan: Plan) -> None:
    measured(plan, made(10, 1.0))
    measured(plan, made(10, 1.0))
    measured(plan, made(500, 0.1))
    assert one(plan).chosen.minutes * 60 == pytest.approx(START_S + 100 + 2500 * 0.1)


@pytest.mark.parametrize("chunk", [made(7, 9.0), made(100, 9.0, again=True)], ids=["too few frames", "of another job"])
def test_what_tells_nothing_is_not_kept(plan: Plan, chunk: Made) -> None:
    before = known_speeds()
    measured(plan, chunk)
    assert known_speeds() == before


def test_another_size_within_four_times_goes_by_the_pixels(plan: Plan) -> None:
    measured(plan, made(100, 0.4))
    half = planned(width=540)
    assert one(half).chosen.measured
    per_frame = (one(half).chosen.minutes * 60 - START_S - 100) / 2500
    assert per_frame == pytest.approx(0.4 * half.job.target.height * half.job.target.width / (1080 * 1920))


def test_another_encoder_is_estimated_anew(plan: Plan) -> None:
    measured(plan, made(100, 0.4))
    assert not one(planned(codec=Codec.HEVC)).chosen.measured


def test_what_costs_more_than_the_most_is_refused(plan: Plan) -> None:
    found = estimate(plan, ["L4"], containers=4)
    affordable(found, None)
    affordable(found, found.dollars)
    with pytest.raises(UsageError, match="more than --max-cost 0"):
        affordable(found, 0)
