"""How far a batch is, how fast it goes, and when it will be done: `BatchProgress` out of the events of its clips."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from keyscale.engine.batch.events import ENDED, BatchProgress, ClipEvent, ClipStatus
from keyscale.engine.events import Done, Phase, Progress
from keyscale.engine.runners.progress import HEARTBEAT_SECONDS, SHORTEST_SECONDS, SPAN_SECONDS

__all__ = ["LEAST_SECONDS", "REST_SHARE", "BatchMeter"]

LEAST_SECONDS = 2.0
"""How long frames must have been made before a rate is told."""

REST_SHARE = 0.05
"""What joining and verifying take for each frame, as a share of what upscaling takes: assumed until clips of this
batch have shown it."""

PRIOR_SPREAD = 0.5
"""How much the lengths of clips must differ, as a share of their mean, until what they show of the time for each frame
counts as much as what is assumed of it."""

_AFTER = frozenset({Phase.JOIN, Phase.VERIFY, Phase.PUBLISH})


@dataclass(kw_only=True)
class _Open:
    """A clip that has not ended."""

    frames: int | None = None
    made: int = 0
    """Frames of the result that are there."""
    found: int | None = None
    """Those of them that an earlier run had made; None until upscaling has begun."""
    upscaling: bool = False
    after: float | None = None
    """When the last frame was there and joining could begin."""
    last: Progress | None = None
    heard: float = 0.0
    """When `last` was."""
    idle: float = 0.0
    """Its part of the time in which clips were worked on, and none was upscaled."""

    @property
    def left(self) -> int:
        return max(0, (self.frames or 0) - self.made)


class _Costs:
    """Seconds that a clip takes for something, by its frames: a straight line through those that were measured.

    Ridge regression towards an assumed slope. Clips of one length show what a clip takes, but not how much of that
    comes of its frames: for a clip a hundred times as long, a hundred times as much would be wrong by far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._frames = self._seconds = 0.0
        """Means; then sums of squares and products of what differs from them."""
        self._spread = self._common = 0.0

    def add(self, frames: int, seconds: float) -> None:
        self.count += 1
        off = frames - self._frames
        self._frames += off / self.count
        self._seconds += (seconds - self._seconds) / self.count
        self._spread += off * (frames - self._frames)
        self._common += off * (seconds - self._seconds)

    def of(self, frames: int, assumed: float) -> float:
        """What a clip of so many frames may take; `assumed` is seconds a frame, for what was not measured."""
        if not self.count:
            return assumed * frames
        most = self._seconds / self._frames if self._frames else 0.0
        weight = (PRIOR_SPREAD * self._frames) ** 2
        slope = assumed
        if weight + self._spread > 0:
            slope = (self._common + weight * assumed) / (weight + self._spread)
        return self._seconds + min(max(0.0, slope), most) * (frames - self._frames)


class BatchMeter:
    """Makes the `BatchProgress` events of a batch of the `ClipEvent`s.

    The rate is that of the last 30 s in which frames were made: the time in which no clip was being upscaled does not
    count. Frames that earlier runs had made, and those of skipped clips, are progress but no work: they make no rate.

    What is left is the frames that are missing, by that rate, and what else clips take:

    - *Pauses.* Time in which clips are worked on but none is upscaled, since one is read, joined or verified and no
      other has its turn. It is measured with the clips that are done, and what the open clips are still to take of it
      is added. Where clips overlap it is next to nothing.
    - *The end.* The last clip is joined and verified when no frame is missing any more. What that takes is measured
      too, with `REST_SHARE` assumed before. No less than this is added, and no clip's own joining and
      verifying takes longer than what is told. So the remaining time does not come near 0 before the last clip ends.

    Clips that fail take their missing frames out of what is left, not out of the total. Once a clip is stopped nothing
    is told of the remaining time: the batch ends with frames missing, and when they are made depends on when it is run
    again.

    Args:
        remote: whether calls cost something: dollars are told from the start.
        clock: seconds, monotonic.
    """

    def __init__(self, *, remote: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self._running: dict[int, _Open] = {}
        """Those of them that are worked on."""
        self._known: set[int] = set()
        self._ended = dict.fromkeys(ENDED, 0)
        self._planned = 0
        """Clips that ended with their frames known."""
        self._total = 0
        """Frames of those."""
        self._frame = 0
        """Frames that are there, of all clips."""
        self._work = 0
        """Frames that were made in this run."""
        self._busy = 0.0
        """Seconds in which frames were being made, up to `_at`."""
        self._at = clock()
        self._past: deque[tuple[float, int]] = deque()
        self._pauses, self._rests = _Costs(), _Costs()
        """What the clips that were done in this run took beside upscaling."""
        self._dollars: float | None = 0.0 if remote else None
        self._told: float | None = None
        self._told_frame = 0
        self._changed = False

    def handle(self, event: ClipEvent) -> None:
        """Something happened to a clip; one that was not heard of before is known from now on."""
        self._advance()
        if event.index in self._known and event.index not in self._open:
            return  # it has ended
        self._known.add(event.index)
        clip = self._open.setdefault(event.index, _Open())
        clip.frames = event.frames if event.frames is not None else clip.frames
        running = event.status is ClipStatus.RUNNING
        self._changed = self._changed or running is not (event.index in self._running) or event.status in ENDED
        if running:
            self._running[event.index] = clip
        else:
            self._running.pop(event.index, None)
        if isinstance(event.of, Progress):
            self._progressed(clip, event.of)
        if not running:
            clip.upscaling = False
        if event.status in ENDED:
            self._end(event.index, clip, event.status, event.of if isinstance(event.of, Done) else None)

    def forget(self, index: int, status: ClipStatus, *, planned: bool) -> None:
        """A clip that ended so counts no more: it is made again, as another one. Its frames stay counted."""
        self._known.discard(index)
        self._ended[status] -= 1
        self._planned -= planned
        self._changed = True

    def is_due(self) -> bool:
        """Whether it is time to tell: something changed and a moment passed, or the heartbeat."""
        if self._told is None:
            return True
        silence = self._clock() - self._told
        changed = self._changed or self._frame > self._told_frame
        return silence >= HEARTBEAT_SECONDS or (changed and silence >= SHORTEST_SECONDS)

    def progress(self) -> BatchProgress:
        """Where the batch stands now."""
        self._advance()
        planned = [clip.frames for clip in self._open.values() if clip.frames is not None]
        self._told = self._at
        self._told_frame = self._frame
        self._changed = False
        rate = self._rate()
        return BatchProgress(
            clips=len(self._known),
            done=self._ended[ClipStatus.DONE],
            skipped=self._ended[ClipStatus.SKIPPED],
            failed=self._ended[ClipStatus.FAILED],
            running=len(self._running),
            planned=self._planned + len(planned),
            frame=self._told_frame,
            total=self._total + sum(planned),
            fps=rate,
            eta_s=self._eta(rate) if len(planned) == len(self._open) else None,
            dollars=self._dollars,
        )

    def _advance(self) -> None:
        """Count the time since the last call for what went on in it."""
        now = self._clock()
        passed, self._at = now - self._at, now
        if any(clip.upscaling for clip in self._running.values()):
            self._busy += passed
        elif self._past:
            # Before the first frame it is the start of the batch that is waited for, not a clip.
            for clip in self._running.values():
                clip.idle += passed / len(self._running)

    def _progressed(self, clip: _Open, progress: Progress) -> None:
        clip.last, clip.heard = progress, self._at
        if progress.phase is Phase.UPSCALE:
            if clip.found is None:
                clip.found = progress.frame
                self._find(clip, progress.frame)
            self._make(clip, progress.frame)
            clip.upscaling = progress.total == 0 or progress.frame < progress.total
            if clip.upscaling:
                clip.after = None
            elif clip.after is None:
                clip.after = self._at
        elif progress.phase in _AFTER:
            clip.upscaling = False
            clip.after = self._at if clip.after is None else clip.after

    def _make(self, clip: _Open, frame: int) -> None:
        if not self._past:
            self._past.append((self._busy, self._work))
        if gained := self._find(clip, frame):
            self._work += gained
            self._past.append((self._busy, self._work))

    def _find(self, clip: _Open, frame: int) -> int:
        """So many frames of a clip are there; how many more than before."""
        # A clip that is begun again may have less: what was counted stays counted, and is not counted twice.
        gained = max(0, frame - clip.made)
        clip.made += gained
        self._frame += gained
        return gained

    def _end(self, index: int, clip: _Open, status: ClipStatus, done: Done | None) -> None:
        del self._open[index]
        self._ended[status] += 1
        if done is not None:
            clip.frames = done.frames if clip.frames is None else clip.frames
            if done.remote is not None:
                self._dollars = (self._dollars or 0.0) + done.remote.dollars
        if clip.frames is None:
            return
        self._planned += 1
        self._total += clip.frames
        if status is ClipStatus.DONE:
            self._learn(clip, clip.frames, done)
        if status is ClipStatus.SKIPPED:
            self._find(clip, clip.frames)

    def _learn(self, clip: _Open, frames: int, done: Done | None) -> None:
        """What a clip that is done has shown of the time that clips take."""
        if clip.found is None and done is not None:
            self._find(clip, done.resumed_frames)
        self._make(clip, frames)
        self._pauses.add(frames, clip.idle)
        self._rests.add(frames, self._at - clip.after if clip.after is not None else 0.0)

    def _rate(self) -> float | None:
        while len(self._past) > 2 and self._busy - self._past[1][0] > SPAN_SECONDS:
            self._past.popleft()
        if not self._past:
            return None
        then, before = self._past[0]
        seconds, made = self._busy - then, self._work - before
        return made / seconds if seconds >= LEAST_SECONDS and made > 0 else None

    def _eta(self, rate: float | None) -> float | None:
        if self._ended[ClipStatus.STOPPED]:
            return None
        if not self._open:
            return 0.0 if self._known else None
        if rate is None:
            return None
        rest_each = REST_SHARE / rate if self._rests.count else self._rest_so_far(rate)
        alone = len(self._running) <= 1
        upscaling = sum(clip.left for clip in self._open.values()) / rate
        pauses = sum(
            max(0.0, self._pauses.of(clip.frames or 0, rest_each if alone else 0.0) - clip.idle)
            for clip in self._open.values()
        )
        last = self._rest(self._open[max(self._open)], rest_each)
        after = [self._rest(clip, rest_each) for clip in self._open.values() if clip.after is not None]
        return max([upscaling + max(pauses, last), *after])

    def _rest_so_far(self, rate: float) -> float:
        """Seconds of joining and verifying a frame, while no clip is done."""
        after = [clip for clip in self._open.values() if clip.after is not None and clip.frames]
        return max([REST_SHARE / rate, *((self._at - (clip.after or 0.0)) / (clip.frames or 1) for clip in after)])

    def _rest(self, clip: _Open, assumed: float) -> float:
        """Seconds that joining and verifying a clip are still to take."""
        expected = self._rests.of(clip.frames or 0, assumed)
        if clip.after is None:
            return expected
        took = self._at - clip.after
        if clip.last is None or clip.last.phase is Phase.UPSCALE:
            return expected - took if expected > took else took
        if clip.last.eta_s is None:
            # Nothing tells how long this phase takes: as long again as it has taken is a guess that keeps off 0.
            told = took if clip.last.frame < clip.last.total or clip.last.total == 0 else 0.0
        else:
            told = max(0.0, clip.last.eta_s - (self._at - clip.heard))
        if clip.last.phase is Phase.JOIN:
            told += took  # every frame is decoded after it: that takes no less
        return max(expected - took, told)
