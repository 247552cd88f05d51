"""Random jobs on simulated containers: what they are estimated at, after a few others, beside the bill.

No time passes: containers, calls and the bill are simulated, so that they are as long as real ones; estimate, account
and what is learned are the real ones. `bench.bills` does the same with real clients and storage.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from keyscale.engine.job import Job, Target
from keyscale.engine.plan.plan import Plan
from keyscale.engine.remote.estimate import estimate, remember_calls
from keyscale.engine.remote.spending import Account, Budget
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.worker.contract import Made, Stages

COURT = Path(__file__).resolve().parents[2] / "examples" / "court.mp4"

# By modal.com/pricing and developers.cloudflare.com/r2/pricing, in dollars a second and a request.
GPU, DOLLARS_S = "NVIDIA L4", 0.000222 + 4 * 0.0000131 + 8 * 0.00000222
IDLE_S = 10.0
ASKING = 63 * (0.25 * 0.0000131 + 1 * 0.00000222)
WRITE, READ = 4.5e-6, 0.36e-6
CONTAINERS_DIFFER, CHUNKS_DIFFER = 0.08, 0.25
"""By so much at most: machines among each other, and what is seen in chunks."""


@dataclass(frozen=True)
class Billed:
    estimate: float
    told: float
    bill: float


def simulated(
    draw: random.Random, plan: Plan, account: Account, sizes: list[int], containers: int
) -> tuple[list[Made], float]:
    """Make chunks of so many frames, one call a container at once: what came back, and the bill."""
    pixels = plan.job.target.width * plan.job.target.height / (1080 * 1920)
    free: list[tuple[float, int]] = []
    born, last = [0.0] * containers, [0.0] * containers
    starts = [draw.uniform(10, 14) for _ in range(containers)]
    share = [draw.uniform(1 - CONTAINERS_DIFFER, 1 + CONTAINERS_DIFFER) for _ in range(containers)]
    for one in range(containers):
        heapq.heappush(free, (0.0, one))
    mades, pending = [], []
    for number, frames in enumerate(sizes):
        asked, one = heapq.heappop(free)
        account.begun(f"fc-{number}", frames, asked)
        is_first = last[one] == 0.0
        if is_first:
            born[one] = asked + draw.uniform(0, 5)  # not paid: Modal looks for a GPU
        begins = born[one] + starts[one] if is_first else asked + 0.2
        making = frames * 0.03 * pixels * share[one] * draw.uniform(1 - CHUNKS_DIFFER, 1 + CHUNKS_DIFFER)
        seconds = making + draw.uniform(0.5, 1.5)
        last[one] = begins + seconds
        made = Made(
            plan_sha256="",
            index=number,
            start=0,
            end=frames,
            frames=frames,
            lost=0,
            inferred=frames,
            size=1,
            sha256="",
            seconds=seconds,
            gpu=GPU,
            container=f"ta-{one}",
            stages=Stages(start=starts[one] if is_first else None, making=making, cpu=making, network=making, macs=1),
            network="",
            bytes_read=1,
        )
        pending.append((last[one] + 0.1, f"fc-{number}", made))
        heapq.heappush(free, (last[one] + 0.1, one))
        mades.append(made)
    for at, call_id, made in sorted(pending, key=lambda each: each[0]):
        account.made(call_id, at, made)
    paid = sum(ended - begun + IDLE_S for begun, ended in zip(born, last, strict=True))
    bill = paid * DOLLARS_S + ASKING + (8 + 2 * len(sizes)) * WRITE + (6 + 8 * len(sizes)) * READ
    return mades, bill


def planned(width: int) -> Plan:
    target = Target(width=width, height=width * 16 // 9, rate=Fraction(25))
    return prepare_plan(Job(source=str(COURT), output="out.mp4", target=target), remote=True)


@pytest.mark.parametrize("seed", range(5))
def test_twenty_random_jobs_are_estimated_and_told_within_a_tenth_of_their_bills(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path))
    draw = random.Random(seed)
    plans = [planned(width) for width in (540, 720, 1080)]
    found = []
    for _ in range(5 + 20):
        plan = draw.choice(plans)
        frames = draw.randint(25 * 20, 25 * 1200)
        chunks = max(1, round(frames / (25 * draw.choice((4, 8, 16)))))
        sizes = [frames * (number + 1) // chunks - frames * number // chunks for number in range(chunks)]
        containers = min(chunks, draw.randint(1, 10))
        expected = estimate(plan, ["L4"], containers=containers, cores=[4], chunks=chunks, frames=frames)
        account = Budget(None).open(expected)
        mades, bill = simulated(draw, plan, account, sizes, containers)
        remember_calls(plan, mades, 4, account.call_seconds)
        found.append(Billed(expected.dollars, account.spent, bill))
    before, after = found[0], found[5:]
    assert before.estimate != pytest.approx(before.bill, rel=0.10), "the data sheets are no better"
    for billed in after:
        assert billed.told == pytest.approx(billed.bill, rel=0.02), billed
    # A short one in a single slow container may be off by more: of forty seeds' 800 jobs three were, by 15 % at most.
    near = [billed for billed in after if billed.estimate == pytest.approx(billed.bill, rel=0.10)]
    assert len(near) >= 19
    assert sum(billed.estimate for billed in after) == pytest.approx(sum(billed.bill for billed in after), rel=0.05)
