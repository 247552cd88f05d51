"""Progress: the meter on a clock of its own, and work in a thread that is told about."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Generator

import pytest

from keyscale.engine.errors import DecodeError, Interrupted
from keyscale.engine.events import Event, Phase, Progress
from keyscale.engine.runners import progress
from keyscale.engine.runners.progress import HEARTBEAT_SECONDS, SHORTEST_SECONDS, Meter, in_background

Report = Callable[[int, int], None]

CONTRACT_SECONDS = 2.0
"""Longest silence that a run may keep."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(events: Generator[Event, None, int]) -> tuple[list[Progress], int]:
    seen: list[Progress] = []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return seen, end.value
        assert isinstance(event, Progress)
        seen.append(event)


# --- the meter ---------------------------------------------------------------------------------------------------


def test_the_heartbeat_keeps_the_contract() -> None:
    assert HEARTBEAT_SECONDS + progress.POLL_SECONDS < CONTRACT_SECONDS


def test_the_first_event_is_due_at_once() -> None:
    assert Meter(Phase.UPSCALE, 10, clock=Clock()).is_due(0)


def test_a_change_is_due_after_a_moment_and_silence_after_the_heartbeat() -> None:
    clock = Clock()
    subject = Meter(Phase.UPSCALE, 10, clock=clock)
    subject.progress(0)
    assert not subject.is_due(1)
    clock.now += SHORTEST_SECONDS
    assert subject.is_due(1)
    assert not subject.is_due(0)
    clock.now += HEARTBEAT_SECONDS - SHORTEST_SECONDS
    assert subject.is_due(0)


def test_whatever_is_reported_progress_never_goes_back_or_beyond_its_total() -> None:
    clock, rng = Clock(), random.Random(3)
    subject = Meter(Phase.UPSCALE, 1000, clock=clock)
    before = 0
    for _ in range(500):
        clock.now += rng.random()
        event = subject.progress(rng.randrange(-50, 1200))
        assert before <= event.frame <= event.total == 1000
        before = event.frame
    assert before == 1000


def test_the_rate_leaves_out_what_was_there_before() -> None:
    clock = Clock()
    subject = Meter(Phase.UPSCALE, 100, done=60, clock=clock)
    assert subject.progress(60).fps is None
    clock.now += 5
    event = subject.progress(70)
    assert event.fps == pytest.approx(2)
    assert event.eta_s == pytest.approx(15)


def test_the_rate_is_that_of_the_recent_past() -> None:
    clock = Clock()
    subject = Meter(Phase.UPSCALE, 10_000, clock=clock)
    for second in range(200):
        subject.progress(second * 10)
        clock.now += 1
    for second in range(60):
        event = subject.progress(2000 + second)
        clock.now += 1
    assert event.fps == pytest.approx(1, rel=0.05)
    assert event.eta_s == pytest.approx(10_000 - 2059, rel=0.05)


def test_a_standstill_has_no_rate_and_the_end_no_time_left() -> None:
    clock = Clock()
    subject = Meter(Phase.JOIN, 8, clock=clock)
    clock.now += 4
    still = subject.progress(0)
    assert (still.fps, still.eta_s) == (None, None)
    clock.now += 4
    assert subject.progress(8).eta_s == 0


def test_a_total_that_is_not_known_yet_limits_nothing() -> None:
    clock = Clock()
    subject = Meter(Phase.PREPARE, 0, unit="bytes", clock=clock)
    clock.now += 1
    event = subject.progress(5_000_000)
    assert (event.frame, event.total, event.unit, event.eta_s) == (5_000_000, 0, "bytes", None)


# --- work in a thread --------------------------------------------------------------------------------------------


def test_work_in_the_background_gives_its_result_and_its_last_progress() -> None:
    def work(report: Report) -> int:
        report(3, 10)
        return 42

    events, result = run(in_background(Phase.JOIN, work, lambda: False))
    assert result == 42
    assert [(event.phase, event.frame, event.total) for event in events] == [(Phase.JOIN, 10, 10)]


def test_work_that_reports_nothing_still_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.02)

    def work(_: Report) -> int:
        time.sleep(0.6)
        return 1

    times = []
    events = in_background(Phase.VERIFY, work, lambda: False)
    while True:
        try:
            next(events)
        except StopIteration:
            break
        times.append(time.monotonic())
    assert len(times) >= 3
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.35


def test_events_follow_the_work_and_never_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "SHORTEST_SECONDS", 0.0)

    def work(report: Report) -> int:
        for step in (1, 4, 2, 9, 7):
            report(step, 10)
            time.sleep(0.05)
        return 0

    events, _ = run(in_background(Phase.JOIN, work, lambda: False))
    frames = [event.frame for event in events]
    assert frames == sorted(frames)
    assert frames[-1] == 10
    assert len(set(frames)) >= 3


def test_an_error_of_the_work_is_raised_where_the_events_are_read() -> None:
    def work(_: Report) -> int:
        raise DecodeError("the frame at 1 s cannot be decoded")

    with pytest.raises(DecodeError, match="at 1 s"):
        run(in_background(Phase.VERIFY, work, lambda: False))


def test_a_stop_does_not_wait_for_the_work() -> None:
    release = threading.Event()

    def work(_: Report) -> int:
        release.wait(30)
        return 0

    began = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            run(in_background(Phase.JOIN, work, lambda: True))
        assert time.monotonic() - began < CONTRACT_SECONDS
    finally:
        release.set()
