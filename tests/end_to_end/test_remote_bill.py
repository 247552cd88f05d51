"""What remote jobs are estimated at and said to have cost, beside what the servers meter."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bills import bills
from support.faulty_place import ForkedPlace


@pytest.mark.parametrize(("jobs", "learning"), [(1, 1), pytest.param(20, 3, marks=pytest.mark.slow)])
def test_estimate_and_summary_are_within_a_tenth_of_the_bill(
    forked_place: ForkedPlace, tmp_path: Path, jobs: int, learning: int
) -> None:
    for billed in bills(forked_place, forked_place.fake, tmp_path, jobs, seed=7, learning=learning):
        assert billed.estimate == pytest.approx(billed.bill, rel=0.10), billed
        assert billed.told == pytest.approx(billed.bill, rel=0.10), billed
