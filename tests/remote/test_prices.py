"""What a remote job is expected to take and cost."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from keyscale.engine.errors import UsageError
from keyscale.engine.job import Job, Mode, ModelChoice, Target
from keyscale.engine.plan.plan import Plan
from keyscale.engine.remote import prices
from keyscale.engine.remote.prices import Budget, affordable, cost, deployment_estimate, estimate, gpu_of
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.worker import chunk

COURT = Path(__file__).resolve().parents[2] / "examples" / "court.mp4"


def planned(tmp_path: Path, *, mode: Mode = Mode.FAST, chunk_seconds: float = 1.0) -> Plan:
    return prepare_plan(
        Job(
            source=str(COURT),
            output=str(tmp_path / "out.mp4"),
            target=Target(rate=Fraction(25)),
            model=ModelChoice(mode=mode),
            chunk_seconds=chunk_seconds,
        ),
        remote=True,
    )


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Four chunks of one second at 1080x1920."""
    plan = planned(tmp_path)
    assert len(plan.chunks) == 4
    return plan


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("h100!", "H100"),
        ("l4", "L4"),
        ("A100-40GB", "A100-40GB"),
        ("A100", "A100-80GB"),
        ("cpu", "none"),
        ("none", "none"),
    ],
)
def test_a_gpu_is_known_by_its_drivers_name_and_by_modals(driver: str, name: str) -> None:
    assert gpu_of(driver).name == name


def test_an_unknown_gpu_counts_as_the_dearest() -> None:
    assert gpu_of("NVIDIA RTX 9090").dollars_s == max(gpu.dollars_s for gpu in prices.GPUS)


def test_a_container_costs_its_gpu_its_cores_and_its_memory() -> None:
    around = prices.CORES * prices.CORE_SECOND + prices.GIB * prices.GIB_SECOND
    assert cost("cpu", 100) == pytest.approx(100 * around)
    assert cost("NVIDIA L4", 3600) == pytest.approx(3600 * (gpu_of("L4").dollars_s + around))
    assert cost("NVIDIA L4", 3600) == pytest.approx(1.05, abs=0.01)
    assert cost("L4", 0) == 0


def test_more_containers_take_less_time_and_cost_only_their_starts(plan: Plan) -> None:
    one, two, many = (estimate(plan, gpu="L4", containers=number) for number in (1, 2, 50))
    assert one.minutes > two.minutes > many.minutes
    assert (one.chunks, one.containers, many.containers) == (4, 1, 4)
    assert two.dollars - one.dollars == pytest.approx(cost("L4", prices.START_S))
    assert estimate(plan, gpu="L4", containers=3).minutes == pytest.approx(two.minutes), "two rounds in both cases"


def test_a_large_network_takes_longer_and_a_faster_gpu_less(tmp_path: Path) -> None:
    small = estimate(planned(tmp_path), gpu="L4", containers=1)
    large = planned(tmp_path, mode=Mode.QUALITY)
    large = replace(large, estimate=replace(large.estimate, macs=large.estimate.macs * 100))
    assert estimate(large, gpu="L4", containers=1).minutes > small.minutes
    assert estimate(large, gpu="H100", containers=1).minutes < estimate(large, gpu="T4", containers=1).minutes


def test_without_a_network_the_pictures_alone_take_time(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    plan = replace(plan, model=None, estimate=replace(plan.estimate, macs=0))
    found = estimate(plan, gpu="L4", containers=1)
    assert found.minutes * 60 == pytest.approx(prices.START_S + 100 * prices.FRAME_S)


def test_what_is_not_deployed_yet_is_estimated_by_the_variables(plan: Plan) -> None:
    usual = deployment_estimate(plan, {}, containers=None)
    assert (usual.gpu, usual.containers) == (prices.PREFERRED.split(",")[0], 4)
    assert deployment_estimate(plan, {"KEYSCALE_GPU": "", "KEYSCALE_CONTAINERS": ""}, containers=None) == usual
    assert deployment_estimate(plan, {"KEYSCALE_GPU": " H100 ,L4"}, containers=None).gpu == "H100"
    assert deployment_estimate(plan, {"KEYSCALE_GPU": "a10g,H100!"}, containers=None).gpu == "A10"
    assert deployment_estimate(plan, {"KEYSCALE_GPU": "None"}, containers=None).gpu == "none"
    assert deployment_estimate(plan, {"KEYSCALE_CONTAINERS": "3"}, containers=None).containers == 3
    assert deployment_estimate(plan, {"KEYSCALE_CONTAINERS": "3"}, containers=2).containers == 2
    assert deployment_estimate(plan, {"KEYSCALE_CONTAINERS": "3"}, containers=9).containers == 3


@pytest.mark.parametrize("text", ["foo", "L4,A11", "L4,none", "H100?", ","])
def test_gpus_that_nobody_knows_are_an_error_that_names_those_there_are(plan: Plan, text: str) -> None:
    with pytest.raises(UsageError, match="KEYSCALE_GPU is") as told:
        deployment_estimate(plan, {"KEYSCALE_GPU": text}, containers=None)
    assert "H200" in str(told.value.remedy)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "1e3", "²", "9" * 30])
def test_a_number_of_containers_that_is_none_is_an_error(plan: Plan, text: str) -> None:
    with pytest.raises(UsageError, match="KEYSCALE_CONTAINERS is"):
        deployment_estimate(plan, {"KEYSCALE_CONTAINERS": text}, containers=None)


def test_a_chunk_has_from_six_seconds_to_a_day() -> None:
    assert prices.wanted_timeout({}) == prices.TIMEOUT_S == 900
    for text in ("6", "86400"):
        assert prices.wanted_timeout({"KEYSCALE_TIMEOUT": text}) == int(text)
    for text in ("0", "5", "86401", "soon", "6.5"):
        with pytest.raises(UsageError, match=f"KEYSCALE_TIMEOUT is '?{text}"):
            prices.wanted_timeout({"KEYSCALE_TIMEOUT": text})


def test_the_shortest_time_of_a_chunk_leaves_half_of_it_for_work() -> None:
    assert max(chunk.LEAST_SPARE_S, chunk.SPARE_SHARE * prices.LEAST_TIMEOUT_S) == prices.LEAST_TIMEOUT_S / 2


def test_what_costs_more_than_the_most_is_refused(plan: Plan) -> None:
    found = estimate(plan, gpu="L4", containers=4)
    affordable(found, None)
    affordable(found, found.dollars)
    with pytest.raises(UsageError, match="more than --max-cost 0"):
        affordable(found, 0)


def test_calls_that_were_given_up_count_against_the_most(plan: Plan) -> None:
    found = estimate(plan, gpu="L4", containers=4)
    budget = Budget(found.dollars + 0.10)
    budget.take(found)
    budget.lose(0.06)
    with pytest.raises(UsageError, match=r"calls that were given up cost \$0\.12.* more than --max-cost"):
        budget.lose(0.06)
    unbound = Budget(None)
    unbound.take(found)
    unbound.lose(1e6)


def test_the_first_of_the_preferred_gpus_does_the_most_for_a_dollar_and_all_encode_video() -> None:
    preferred = [gpu_of(name) for name in prices.PREFERRED.split(",")]
    assert max(preferred, key=lambda gpu: gpu.tflops / cost(gpu.name, 1)) == preferred[0]
    assert all(gpu.nvenc for gpu in preferred)
