"""Slots that several jobs share: never more than there are, in the order of asking, and none that is lost."""

from __future__ import annotations

import random
import threading
import time

import pytest

from keyscale.engine.remote.slots import Share, Slots


class Asker:
    """A job's part, and how often it was told that it is its turn."""

    def __init__(self, slots: Slots) -> None:
        self.turns = 0
        self.share = slots.share(self._told)

    def _told(self) -> None:
        self.turns += 1


def test_so_many_are_given_and_no_more() -> None:
    share = Slots(2).share()
    assert [share.take() for _ in range(4)] == [True, True, False, False]
    share.give()
    assert [share.take() for _ in range(2)] == [True, False]


def test_who_asked_first_has_the_next_one() -> None:
    slots = Slots(1)
    holder, first, second = (slots.share() for _ in range(3))
    assert holder.take()
    assert not first.take()
    assert not second.take()
    holder.give()
    assert not second.take()
    assert first.take()
    first.give()
    assert second.take()


def test_a_job_that_asks_again_stands_behind_those_who_wait() -> None:
    slots = Slots(1)
    long, short = slots.share(), slots.share()
    assert long.take()
    assert not short.take()
    long.give()
    assert not long.take()
    assert short.take()
    short.give()
    assert long.take()


def test_jobs_that_always_want_more_take_turns() -> None:
    slots = Slots(2)
    jobs = [slots.share() for _ in range(3)]
    taken: list[int] = []
    held: list[Share] = []
    for step in range(60):
        for number, job in enumerate(jobs):
            if job.take():
                taken.append(number)
                held.append(job)
        if step % 2:
            held.pop(0).give()
    counts = [taken[6:].count(number) for number in range(3)]
    assert sum(counts) > 20
    assert max(counts) - min(counts) <= 1


def test_a_place_in_the_line_is_one_however_often_a_job_asks() -> None:
    slots = Slots(1)
    holder, eager, other = (slots.share() for _ in range(3))
    assert holder.take()
    for _ in range(5):
        assert not eager.take()
    assert not other.take()
    holder.give()
    assert eager.take()
    eager.give()
    assert not eager.take()
    assert other.take()


def test_the_next_in_the_line_is_told_that_it_is_its_turn() -> None:
    slots = Slots(1)
    holder, first, second = (Asker(slots) for _ in range(3))
    assert holder.share.take()
    assert not first.share.take()
    assert not second.share.take()
    assert (first.turns, second.turns) == (0, 0)
    holder.share.give()
    assert (first.turns, second.turns) == (1, 0)
    assert first.share.take()
    assert second.turns == 0


def test_where_several_are_free_one_after_another_is_told() -> None:
    slots = Slots(2)
    holder, first, second = (Asker(slots) for _ in range(3))
    assert [holder.share.take(), holder.share.take()] == [True, True]
    assert not first.share.take()
    assert not second.share.take()
    holder.share.close()
    assert (first.turns, second.turns) == (1, 0)
    assert first.share.take()
    assert second.turns == 1
    assert second.share.take()


@pytest.mark.parametrize("way", ["withdraw", "close"])
def test_who_leaves_the_line_keeps_nobody_waiting(way: str) -> None:
    slots = Slots(1)
    holder, leaving, patient = (Asker(slots) for _ in range(3))
    assert holder.share.take()
    assert not leaving.share.take()
    assert not patient.share.take()
    holder.share.give()
    getattr(leaving.share, way)()
    assert patient.turns == 1
    assert patient.share.take()


def test_closing_gives_back_what_is_held_and_a_late_giver_gives_nothing_twice() -> None:
    slots = Slots(2)
    with slots.share() as gone:
        assert gone.take()
        assert gone.take()
    gone.give()
    gone.close()
    share = slots.share()
    assert [share.take() for _ in range(3)] == [True, True, False]


def test_what_runs_already_counts_even_beyond_the_number() -> None:
    slots = Slots(1)
    resumed, other = slots.share(), slots.share()
    resumed.occupy()
    resumed.occupy()
    assert not other.take()
    resumed.give()
    assert not other.take()
    resumed.give()
    assert other.take()


def test_the_number_can_be_lowered_and_not_raised() -> None:
    slots = Slots()
    slots.at_most(3)
    slots.at_most(2)
    slots.at_most(5)
    share = slots.share()
    assert [share.take() for _ in range(3)] == [True, True, False]


def test_with_many_threads_there_are_never_too_many_and_everyone_ends() -> None:
    slots, lock = Slots(3), threading.Lock()
    now = most = 0
    ended: list[int] = []

    def job(number: int) -> None:
        nonlocal now, most
        dice, turn = random.Random(number), threading.Event()
        share = slots.share(turn.set)
        for _ in range(40):
            # Woken when it is its turn: nobody is forgotten, or this would hang.
            while not share.take():
                assert turn.wait(20)
                turn.clear()
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(dice.random() * 0.002)
            with lock:
                now -= 1
            share.give()
        share.close()
        ended.append(number)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == list(range(12))
    assert most == 3
