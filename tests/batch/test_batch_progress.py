"""How far a batch is and when it will be done: figures that can be believed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.clip_table import ClipTable
from keyscale.engine.batch.events import BatchProgress, ClipEvent, ClipStatus
from keyscale.engine.batch.progress import LEAST_SECONDS
from keyscale.engine.events import Done, Failed, Phase, Progress, RemoteUse

STEP = 0.5
"""Seconds of a simulated batch between two looks."""


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class BatchMeter(ClipTable):
    """A table of clips that become known with their first event."""

    def handle(self, event: ClipEvent) -> None:
        while self.known <= event.index:
            self.add(BatchClip(name=event.clip, video=f"{self.known}.mp4", keyframes=None, output=f"{self.known}"))
        clip = self[event.index]
        clip.frames = event.frames if event.frames is not None else clip.frames
        self.tell(clip, event.of, status=event.status)


def event(
    index: int,
    status: ClipStatus = ClipStatus.RUNNING,
    of: Progress | Done | Failed | None = None,
    frames: int | None = None,
) -> ClipEvent:
    return ClipEvent(index=index, clip=f"{index}.mp4", status=status, frames=frames, of=of)


def made(frame: int, total: int, phase: Phase = Phase.UPSCALE, eta: float | None = None) -> Progress:
    return Progress(phase=phase, frame=frame, total=total, eta_s=eta)


def done(frames: int, *, resumed: int = 0, skipped: bool = False, dollars: float | None = None) -> Done:
    return Done(
        output="out.mp4",
        frames=frames,
        seconds=1.0,
        resumed_frames=resumed,
        inferred_frames=frames - resumed,
        lost_frames=0,
        device="cpu fp32",
        model="small",
        skipped=skipped,
        remote=None
        if dollars is None
        else RemoteUse(job_id="j", containers=1, gpus=("T4",), seconds=1.0, dollars=dollars),
    )


FAILED = Failed(error="InputError", message="no video stream", remedy=None, exit_code=3)


# A batch in a model world


@dataclass(eq=False)
class Clip:
    """A clip, and how long its parts take; it is moved on by `step`."""

    frames: int
    resumed: int = 0
    skipped: bool = False
    fails_at: int | None = None
    read_s: float = 1.0
    rest_s: float = 0.0
    made: float = 0.0
    spent: float = 0.0
    ended: bool = field(default=False, init=False)

    def wants_network(self) -> bool:
        return not self.skipped and self.spent >= self.read_s and self.made < self.frames and not self.ended

    def step(self, frames: float, seconds: float) -> tuple[ClipStatus, Progress | Done | Failed]:
        if self.spent < self.read_s:
            self.spent += seconds
            return ClipStatus.RUNNING, Progress(phase=Phase.PREPARE, frame=1, total=2, unit="bytes")
        if self.skipped:
            self.ended = True
            return ClipStatus.SKIPPED, done(self.frames, skipped=True)
        if self.made < self.frames:
            self.made = min(self.frames, max(self.made, self.resumed) + frames)
            if self.fails_at is not None and self.made >= self.fails_at:
                self.ended = True
                return ClipStatus.FAILED, FAILED
            return ClipStatus.RUNNING, made(int(self.made), self.frames)
        self.spent += seconds
        left = self.read_s + self.rest_s - self.spent
        if left > 0:
            return ClipStatus.RUNNING, made(1, 2, Phase.VERIFY, left)
        self.ended = True
        return ClipStatus.DONE, done(self.frames, resumed=self.resumed)


def batch(clips: list[Clip], *, lanes: int, rate: float, networks: int = 1) -> list[tuple[float, BatchProgress]]:
    """Seconds since the start and what was told then, until all clips have ended.

    Args:
        clips: in order.
        lanes: clips that are worked on at once.
        rate: frames a second of a network.
        networks: clips that are upscaled at once at most.
    """
    return list(_batch(clips, lanes, rate, networks))


def _batch(clips: list[Clip], lanes: int, rate: float, networks: int) -> Iterator[tuple[float, BatchProgress]]:
    clock = Clock()
    began = clock.now
    meter = BatchMeter(clock=clock)
    for index, clip in enumerate(clips):
        meter.handle(event(index, ClipStatus.WAITING, frames=clip.frames))
    while any(not clip.ended for clip in clips):
        clock.now += STEP
        running = [clip for clip in clips if not clip.ended][:lanes]
        having = [clip for clip in running if clip.wants_network()][:networks]
        for clip in running:
            status, of = clip.step(rate * STEP if clip in having else 0.0, STEP)
            meter.handle(event(clips.index(clip), status, of))
        yield clock.now - began, meter.progress()


WORLDS = {
    "one clip after the other": ([Clip(600, rest_s=6.0) for _ in range(8)], 1, 1),
    "one clip after the other, mostly pauses": ([Clip(100, rest_s=10.0) for _ in range(12)], 1, 1),
    "two in turn": ([Clip(600, rest_s=6.0) for _ in range(8)], 2, 1),
    "two devices": ([Clip(600, rest_s=6.0) for _ in range(8)], 2, 2),
    "clips of many lengths": ([Clip(60 * (1 + n * 7 % 11), rest_s=0.6 * (1 + n * 7 % 11)) for n in range(12)], 2, 1),
}


def test_short_clips_say_little_of_how_long_the_end_of_a_long_one_takes() -> None:
    """Most of what a short clip takes to be joined and verified is the same for any clip."""
    short = [Clip(25, read_s=0.5, rest_s=1.5) for _ in range(6)]
    told = batch([*short, Clip(9000, read_s=0.5, rest_s=12.0)], lanes=1, rate=30)
    end = told[-1][0]
    since = [(now, progress) for now, progress in told if progress.frame > sum(clip.frames for clip in short) + 900]
    assert len(since) > 100
    for now, progress in since:
        assert progress.eta_s == pytest.approx(end - now, rel=0.15, abs=8.0)


@pytest.mark.parametrize("world", WORLDS)
def test_the_remaining_time_is_right_once_a_clip_is_done(world: str) -> None:
    clips, lanes, networks = WORLDS[world]
    told = batch([replace(clip) for clip in clips], lanes=lanes, rate=20.0, networks=networks)
    end = told[-1][0]
    first = next(at for at, progress in told if progress.done)
    for at, progress in told:
        if first <= at < end:
            assert progress.eta_s is not None
            assert progress.eta_s == pytest.approx(end - at, rel=0.1, abs=2.0), f"at {at} of {end}"


def test_what_is_skipped_fails_or_was_made_before_only_shortens_the_remaining_time() -> None:
    clips = [Clip(600, resumed=300, rest_s=6.0), Clip(600, skipped=True), Clip(600, fails_at=200)] * 3
    told = batch([replace(clip) for clip in clips], lanes=1, rate=20.0)
    end = told[-1][0]
    assert [told[-1][1].done, told[-1][1].skipped, told[-1][1].failed] == [3, 3, 3]
    first = next(at for at, progress in told if progress.done)
    for at, progress in told:
        if first <= at < end:
            assert progress.eta_s is not None
            assert progress.eta_s > 0.8 * (end - at)


@pytest.mark.parametrize("world", WORLDS)
def test_the_remaining_time_does_not_come_near_nothing_before_the_end(world: str) -> None:
    clips, lanes, networks = WORLDS[world]
    told = batch([replace(clip) for clip in clips], lanes=lanes, rate=20.0, networks=networks)
    end = told[-1][0]
    for at, progress in told:
        if progress.eta_s is not None and progress.eta_s < 1.0:
            assert end - at < 2.5


def test_a_single_clip_that_is_verified_for_long_is_not_said_to_be_done() -> None:
    told = batch([Clip(200, rest_s=60.0)], lanes=1, rate=20.0)
    end = told[-1][0]
    after = [(at, progress.eta_s) for at, progress in told if progress.frame == progress.total and at < end]
    assert len(after) > 100
    for at, eta in after[2:]:
        assert eta == pytest.approx(end - at, abs=1.0)


def test_the_remaining_time_stays_off_nothing_while_no_phase_tells_its_own() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    for frame in range(0, 201, 20):
        meter.handle(event(0, of=made(frame, 200), frames=200))
        clock.now += 1
    for _ in range(30):
        clock.now += 1
        meter.handle(event(0, of=made(1, 10, Phase.JOIN)))
        eta = meter.progress().eta_s
        assert eta is not None
        assert eta > 1


def test_the_remaining_time_is_not_known_before_all_are_planned_and_a_rate_was_measured() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    meter.handle(event(0, ClipStatus.WAITING))
    meter.handle(event(1, ClipStatus.WAITING))
    assert meter.progress().eta_s is None
    meter.handle(event(0, of=made(0, 100), frames=100))
    clock.now += LEAST_SECONDS / 2
    meter.handle(event(0, of=made(5, 100)))
    assert meter.progress().fps is None
    clock.now += LEAST_SECONDS
    meter.handle(event(0, of=made(15, 100)))
    told = meter.progress()
    assert (told.fps, told.eta_s, told.planned, told.total) == (5.0, None, 1, 100)
    meter.handle(event(1, ClipStatus.WAITING, frames=50))
    told = meter.progress()
    assert told.eta_s is not None
    assert told.eta_s > (85 + 50) / 5.0
    assert (told.planned, told.total) == (2, 150)


def test_a_clip_that_failed_before_it_was_planned_holds_up_no_estimate() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    meter.handle(event(0, ClipStatus.FAILED, FAILED))
    meter.handle(event(1, of=made(0, 100), frames=100))
    clock.now += 5
    meter.handle(event(1, of=made(50, 100)))
    told = meter.progress()
    assert told.eta_s is not None
    assert (told.clips, told.planned, told.failed) == (2, 1, 1)


def test_skipped_and_resumed_frames_are_progress_but_no_work() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    for index in range(3):
        meter.handle(event(index, ClipStatus.WAITING, frames=1000))
    clock.now += 1
    meter.handle(event(0, ClipStatus.SKIPPED, done(1000, skipped=True)))
    meter.handle(event(1, of=made(900, 1000)))
    for frame in range(901, 951):
        clock.now += 1
        meter.handle(event(1, of=made(frame, 1000)))
    told = meter.progress()
    assert told.fps == pytest.approx(1.0)
    assert (told.frame, told.total) == (1950, 3000)
    assert told.eta_s == pytest.approx(50 + 1000, rel=0.15)


def test_the_rate_is_of_the_recent_past_in_which_frames_were_made() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    frame = 0
    for second in range(100):
        meter.handle(event(0, of=made(frame, 10_000), frames=10_000))
        frame += 10 if second < 50 else 2
        clock.now += 1
    assert meter.progress().fps == pytest.approx(2.0, rel=0.05)
    clock.now += 1
    meter.handle(event(0, of=made(1, 2, Phase.JOIN)))
    before = meter.progress().fps
    clock.now += 300
    assert meter.progress().fps == before


def test_frames_never_go_back_even_where_a_clip_is_begun_again() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    seen = []
    for status, frame in [
        (ClipStatus.RUNNING, 0),
        (ClipStatus.RUNNING, 60),
        (ClipStatus.WAITING, None),
        (ClipStatus.RUNNING, 40),
        (ClipStatus.RUNNING, 80),
    ]:
        clock.now += 10
        meter.handle(event(0, status, None if frame is None else made(frame, 100), frames=100))
        seen.append(meter.progress().frame)
    assert seen == [0, 60, 60, 60, 80]
    meter.handle(event(0, ClipStatus.FAILED, FAILED))
    assert meter.progress().frame == 80


def three_at_half() -> BatchMeter:
    """Three clips of 100 frames, each half made."""
    clock = Clock()
    meter = BatchMeter(clock=clock)
    for index in range(3):
        meter.handle(event(index, of=made(0, 100), frames=100))
    clock.now += 10
    for index in range(3):
        meter.handle(event(index, of=made(50, 100)))
    return meter


def test_failed_clips_leave_what_is_to_be_done() -> None:
    meter = three_at_half()
    before = meter.progress().eta_s
    meter.handle(event(0, ClipStatus.FAILED, FAILED))
    meter.handle(event(1, ClipStatus.FAILED, FAILED))
    told = meter.progress()
    assert told.eta_s is not None
    assert before is not None
    assert told.eta_s < before / 2
    assert (told.frame, told.total) == (150, 300)
    meter.handle(event(2, ClipStatus.DONE, done(100)))
    assert meter.progress().eta_s == 0.0


def test_a_batch_that_is_stopped_tells_no_remaining_time_to_its_end() -> None:
    meter = three_at_half()
    assert meter.progress().eta_s is not None
    meter.handle(event(0, ClipStatus.DONE, done(100)))
    for index in (1, 2):
        meter.handle(event(index, ClipStatus.STOPPED))
        assert meter.progress().eta_s is None
    told = meter.progress()
    assert (told.frame, told.total, told.running) == (200, 300, 0)


def test_clips_that_are_stopped_before_they_were_planned_tell_no_remaining_time() -> None:
    meter = BatchMeter(clock=Clock())
    for index in range(2):
        meter.handle(event(index, ClipStatus.WAITING))
        meter.handle(event(index, ClipStatus.STOPPED))
    assert meter.progress().eta_s is None


def test_counts_are_of_the_clips_that_are_known() -> None:
    meter = BatchMeter(clock=Clock())
    assert meter.progress().clips == 0
    assert meter.progress().eta_s is None
    statuses = [ClipStatus.WAITING, ClipStatus.RUNNING, ClipStatus.DONE, ClipStatus.SKIPPED, ClipStatus.FAILED]
    for index, status in enumerate(statuses):
        ends: dict[str, Done | Failed] = {"done": done(10), "skipped": done(10, skipped=True), "failed": FAILED}
        of = ends.get(status)
        meter.handle(event(index, status, of))
    told = meter.progress()
    assert (told.clips, told.running, told.done, told.skipped, told.failed) == (5, 1, 1, 1, 1)
    meter.handle(event(1, ClipStatus.WAITING))
    meter.handle(event(2, ClipStatus.RUNNING))
    told = meter.progress()
    assert (told.running, told.done) == (0, 1)


def test_dollars_are_told_where_calls_cost_something() -> None:
    local, remote = BatchMeter(clock=Clock()), BatchMeter(remote=True, clock=Clock())
    assert local.progress().dollars is None
    assert remote.progress().dollars == 0.0
    for index in range(2):
        remote.handle(event(index, ClipStatus.DONE, done(10, dollars=0.25)))
    assert remote.progress().dollars == 0.5


def test_it_is_time_to_tell_after_a_change_and_at_least_every_two_seconds() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    assert meter.is_due()
    meter.progress()
    assert not meter.is_due()
    meter.handle(event(0, frames=100))
    assert not meter.is_due()
    clock.now += 0.25
    assert meter.is_due()
    meter.progress()
    clock.now += 0.25
    assert not meter.is_due()
    meter.handle(event(0, of=made(10, 100)))
    assert meter.is_due()
    meter.progress()
    clock.now += 1.9
    assert meter.is_due()


def test_many_events_of_hundreds_of_clips_take_little_time() -> None:
    clock = Clock()
    meter = BatchMeter(clock=clock)
    began = time.process_time()
    for index in range(300):
        meter.handle(event(index, ClipStatus.WAITING, frames=100))
    for index in range(300):
        for frame in range(0, 101, 2):
            clock.now += 0.02
            meter.handle(event(index, of=made(frame, 100)))
            if meter.is_due():
                meter.progress()
        meter.handle(event(index, ClipStatus.DONE, done(100)))
    assert meter.progress().frame == 30_000
    assert time.process_time() - began < 8
