"""How long faults are borne: pauses that grow, and an end."""

from __future__ import annotations

import time

import pytest

from keyscale.engine.patience import Patience


def pauses(patience: Patience, rests: list[float], count: int) -> list[float]:
    for _ in range(count):
        assert patience.bear()
    return rests


def test_pauses_grow_to_a_longest_and_half_of_each_is_chance() -> None:
    rests: list[float] = []
    patience = Patience(1000, first_pause_s=1, longest_pause_s=4, rest=rests.append)
    for rest, most in zip(pauses(patience, rests, 6), [1, 2, 4, 4, 4, 4], strict=True):
        assert most / 2 <= rest <= most
    assert len(set(rests)) == 6


def test_what_went_forward_begins_anew() -> None:
    rests: list[float] = []
    patience = Patience(1000, first_pause_s=1, longest_pause_s=100, rest=rests.append)
    pauses(patience, rests, 5)
    patience.renew()
    assert pauses(patience, rests, 1)[-1] <= 1


def test_it_ends_after_its_seconds_and_no_pause_goes_beyond_them() -> None:
    began, patience = time.monotonic(), Patience(0.3, first_pause_s=0.2, longest_pause_s=60)
    while patience.bear():
        pass
    assert 0.3 <= time.monotonic() - began < 0.6
    assert not patience.bear()


def test_the_count_begins_with_the_first_fault_unless_silence_counts() -> None:
    rests: list[float] = []
    usual, strict = (Patience(0.2, silence_counts=counts, rest=rests.append) for counts in (False, True))
    time.sleep(0.25)
    assert usual.bear()
    assert not strict.bear()
    strict.renew()
    assert strict.bear()


@pytest.mark.parametrize("silence_counts", [False, True])
def test_none_at_all_bears_nothing(silence_counts: bool) -> None:
    assert not Patience(0, silence_counts=silence_counts).bear()
