"""What a job has spent, and what is not begun since it would bring the cost above the bound."""

from __future__ import annotations

import pytest

from keyscale.engine.errors import UsageError
from keyscale.engine.plan.describe import RemoteEstimate, RemoteSplit
from keyscale.engine.remote.estimate import storage_cost
from keyscale.engine.remote.prices import IDLE_S, asking_cost, cost
from keyscale.engine.remote.spending import WAITED_S, Account, Budget
from keyscale.engine.worker.contract import Made, Stages

GPU, CORES, START = "L4", 4, 20.0
FRAMES, CALL_S = 100, 50.0
"""Of a call, and how long it is expected to take."""


def expected(dollars: float, gpu: str = GPU) -> RemoteEstimate:
    split = RemoteSplit(
        gpu=gpu, cores=CORES, containers=2, encoder="libx264", minutes=1, dollars=dollars, measured=False
    )
    return RemoteEstimate(
        chosen=split,
        why="",
        alternatives=(),
        chunks=4,
        most=2,
        parts={},
        call_seconds=0.0,
        frame_seconds=CALL_S / FRAMES,
        start_seconds=START,
    )


def made(
    seconds: float, *, container: str = "ta-1", start: float | None = None, again: bool = False, gpu: str = "NVIDIA L4"
) -> Made:
    return Made(
        plan_sha256="",
        index=0,
        start=0,
        end=FRAMES,
        frames=FRAMES,
        lost=0,
        inferred=0,
        size=1,
        sha256="",
        seconds=seconds,
        gpu=gpu,
        container=container,
        stages=Stages(start=start, making=seconds - 2),
        network="",
        bytes_read=1,
        again=again,
    )


def opened(most: float | None = None, dollars: float = 0.0, gpu: str = GPU) -> Account:
    return Budget(most).open(expected(dollars, gpu))


def paid(seconds: float, calls: int) -> float:
    return cost(GPU, seconds, CORES) + asking_cost() + storage_cost(calls)


def test_a_container_is_paid_from_its_start_to_the_end_of_its_idle_time() -> None:
    account = opened()
    account.begun("a", FRAMES, 0.0)
    account.made("a", 30.0, made(10.0, start=12.0))
    assert account.seconds == pytest.approx(12 + 10 + IDLE_S)
    account.begun("b", FRAMES, 30.0)
    account.made("b", 45.0, made(14.0))
    assert account.seconds == pytest.approx(12 + 25 + IDLE_S), "the second between two calls is paid too"
    assert account.spent == pytest.approx(paid(12 + 25 + IDLE_S, 2))
    assert account.call_seconds == pytest.approx((25 - 8 - 12) / 2)


def test_each_container_is_paid_and_where_its_start_is_not_known_it_counts_as_expected() -> None:
    account = opened()
    for number in range(3):
        account.begun(f"{number}", FRAMES, 0.0)
        account.made(f"{number}", 40.0, made(10.0, container=f"ta-{number}"))
    assert account.seconds == pytest.approx(3 * (START + 10 + IDLE_S))


def test_another_gpu_than_the_first_costs_its_own_price() -> None:
    account = opened()
    account.begun("a", FRAMES, 0.0)
    account.made("a", 30.0, made(10.0, start=20.0, gpu="Tesla T4"))
    assert account.spent == pytest.approx(cost("T4", 40, CORES) + asking_cost() + storage_cost(1))


def test_what_another_call_had_made_was_paid_without_a_container_of_this_job() -> None:
    account = opened()
    account.begun("a", FRAMES, 0.0)
    account.made("a", 1.0, made(10.0, again=True))
    assert account.seconds == pytest.approx(10)
    assert account.call_seconds is None


@pytest.mark.parametrize(
    ("answer", "at", "seconds"),
    [
        pytest.param({}, 30.0, 30.0, id="crashed: as long as it was waited for"),
        pytest.param({}, 5000.0, 900.0, id="and no longer than a call may take"),
        pytest.param({"seconds": 8.0, "gpu": "NVIDIA L4"}, 30.0, 8.0, id="refused: as long as it says"),
        pytest.param(
            {"seconds": 8.0, "gpu": "NVIDIA L4", "container": "ta-9"}, 30.0, START + 8.0 + IDLE_S, id="in a container"
        ),
        *(
            pytest.param({"seconds": told, "gpu": ["L4"], "container": []}, 30.0, 30.0, id=f"or says nonsense: {told}")
            for told in ("long", -1.0, float("nan"), float("inf"), None, [3])
        ),
    ],
)
def test_calls_that_came_to_nothing_are_paid(answer: dict[str, object], at: float, seconds: float) -> None:
    account = opened()
    account.begun("a", FRAMES, 0.0)
    account.given_up("a", at, answer, longest_s=900.0)
    assert account.seconds == pytest.approx(seconds)
    assert account.spent == pytest.approx(paid(seconds, 1))


def test_what_a_call_waited_for_its_container_costs_nothing() -> None:
    account = opened()
    account.begun("a", FRAMES, 0.0)
    account.works("a", 400.0)
    account.works("of another job", 400.0)
    account.given_up("a", 410.0, {}, longest_s=900.0)
    assert account.seconds == pytest.approx(10)


# The bound


def test_a_job_may_begin_all_that_it_was_expected_to_take() -> None:
    dollars = paid(2 * (START + IDLE_S) + 4 * CALL_S, 4)
    account = opened(dollars, dollars)
    clock = 0.0
    for pair in ("ab", "cd"):
        for number, call in enumerate(pair):
            assert account.may_begin(FRAMES, clock), call
            account.begun(call, FRAMES, clock)
            assert number < 2
        clock += CALL_S if pair == "cd" else START + CALL_S
        for number, call in enumerate(pair):
            account.made(call, clock, made(CALL_S, container=f"ta-{number}", start=START if pair == "ab" else None))
    assert account.spent == pytest.approx(dollars)


def test_a_job_that_takes_longer_begins_nothing_that_would_bring_it_above_the_most() -> None:
    bound = paid(START + IDLE_S + 4 * CALL_S, 4)
    account = opened(bound, paid(START + IDLE_S + 2 * CALL_S, 2))
    begun, clock = 0, START
    while account.may_begin(FRAMES, clock) and begun < 20:
        account.begun(f"{begun}", FRAMES, clock)
        clock += 1.5 * CALL_S
        account.made(f"{begun}", clock, made(1.5 * CALL_S, start=None if begun else START))
        begun += 1
    assert begun == 2, "a third one of 75 s would end at 225 s"
    assert account.spent <= bound < account.spent + cost(GPU, 1.5 * CALL_S, CORES)
    refusal = account.refusal(FRAMES)
    assert refusal.exit_code == 2
    assert "more than --max-cost" in str(refusal)
    assert f"{FRAMES} frames are left" in str(refusal)
    assert "what is finished is not done again" in str(refusal.remedy)


def test_calls_count_by_the_dearest_gpu_that_came_so_far() -> None:
    account = opened()
    for number in range(3):
        account.begun(f"{number}", FRAMES, 0.0)
    account.made("0", CALL_S, made(CALL_S, gpu="NVIDIA H100 80GB HBM3", start=START))
    running = 2 * cost("H100", CALL_S, CORES) + cost("H100", START + IDLE_S, CORES)
    assert account.commitment() == pytest.approx(account.spent + running)


def test_calls_that_run_for_longer_than_expected_count_as_long_as_they_run() -> None:
    account = opened(paid(2 * (START + IDLE_S + CALL_S), 2))
    account.begun("a", FRAMES, 0.0)
    assert account.may_begin(FRAMES, 1.0)
    assert not account.may_begin(FRAMES, 10 * CALL_S)


def test_what_was_lost_is_named_where_it_brings_the_job_above_the_most() -> None:
    account = opened(paid(START + IDLE_S + CALL_S, 1), 0.001)
    account.begun("a", FRAMES, 0.0)
    account.given_up("a", 60.0, {}, longest_s=900.0)
    assert not account.may_begin(FRAMES, 60.0)
    assert "for calls that were given up" in str(account.refusal(FRAMES))
    assert "modal app logs" in str(account.refusal(FRAMES).remedy)


def test_without_a_bound_everything_may_begin() -> None:
    account = opened(None)
    account.begun("a", FRAMES, 0.0)
    assert account.may_begin(10**9, 1e9)


def test_jobs_share_a_bound_by_what_each_is_expected_to_take_and_then_by_what_it_took() -> None:
    budget = Budget(1.0)
    first = budget.open(expected(0.6))
    with pytest.raises(UsageError, match=r"with this clip, estimated at .*more than --max-cost 1"):
        budget.open(expected(0.6))
    second = budget.open(expected(0.3))
    first.close()
    third = budget.open(expected(0.6))
    assert first.spent < 0.01
    assert second.may_begin(FRAMES, 0.0)
    assert third.may_begin(FRAMES, 0.0)


def test_a_job_that_is_expected_to_cost_more_than_the_most_is_not_begun() -> None:
    with pytest.raises(UsageError, match=r"estimated at \$0\.50, more than --max-cost 0\.4"):
        opened(0.4, 0.5)


# Containers that do not come


@pytest.mark.parametrize(
    ("gpu", "why"),
    [(GPU, "no more GPUs (Modal's Starter plan has 10,"), ("none", "no more (Modal's Starter plan has 100,")],
)
def test_it_is_told_where_fewer_containers_came_than_calls_ran_and_one_waited_long(gpu: str, why: str) -> None:
    account = opened(gpu=gpu)
    for number in range(3):
        account.begun(f"{number}", FRAMES, 0.0)
    for number in range(3):
        account.made(f"{number}", WAITED_S * (number + 1), made(10.0, container=f"ta-{number % 2}"))
    told = account.fewer_came()
    assert told is not None
    assert "2 containers came for 3 calls" in told
    assert f"the account may have {why}" in told


@pytest.mark.parametrize(("containers", "waited"), [(3, 100.0), (1, 30.0)], ids=["all came", "none waited long"])
def test_else_it_is_not(containers: int, waited: float) -> None:
    account = opened()
    for number in range(3):
        account.begun(f"{number}", FRAMES, 0.0)
    for number in range(3):
        account.made(f"{number}", waited + 10, made(10.0, container=f"ta-{number % containers}"))
    assert account.fewer_came() is None
