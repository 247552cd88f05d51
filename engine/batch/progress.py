"""How fast the clips of a batch are made, and how long what is missing will take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

from keyscale.engine.batch.clip import ClipState
from keyscale.engine.batch.events import ClipStatus
from keyscale.engine.events import Done, Phase, Progress
from keyscale.engine.runners.progress import SPAN_SECONDS

__all__ = ["LEAST_SECONDS", "REST_SHARE", "Forecast"]

LEAST_SECONDS = 2.0
"""How long frames must have been made before a rate is told."""

REST_SHARE = 0.05
"""What joining and verifying take for each frame, as a share of what upscaling takes: assumed until clips of this
batch have shown it."""

_AFTER = frozenset({Phase.JOIN, Phase.VERIFY, Phase.PUBLISH})


class _Costs:
    """Seconds that a clip takes for something, from the means of the clips that were measured."""

    def __init__(self) -> None:
        self.clips = self._frames = 0
        self._seconds = 0.0

    def add(self, frames: int, seconds: float) -> None:
        self.clips += 1
        self._frames += frames
        self._seconds += seconds

    def of(self, frames: int, assumed: float) -> float:
        """Of a clip with this number of frames; `assumed` is seconds a frame, for what was not measured."""
        if not self._frames:
            return assumed * frames
        each, mean = self._seconds / self._frames, self._frames / self.clips
        # Most of what a short clip takes is the same for any clip: in proportion, a long one would take far too much.
        return each * min(frames, mean) + min(assumed, each) * max(0.0, frames - mean)


class Forecast:
    """The rate of a batch and its remaining time.

    The rate is that of the last 30 s in which frames were made: the time in which no clip was being upscaled does not
    count. Frames that earlier runs had made, and those of skipped clips, are progress but no work: they make no rate.

    What is left is the frames that are missing, by that rate, and what else clips take:

    - *Pauses.* Time in which clips are worked on but none is upscaled, since one is read, joined or verified and no
      other may run its network. It is measured with the clips that are done, and what the open clips are still to take
      of it is added. Where clips overlap it is next to nothing.
    - *The end.* The last clip is joined and verified when no frame is missing any more. What that takes is measured
      too, with `REST_SHARE` assumed before. No less than this is added, and no clip's own joining and
      verifying takes longer than what is told. So the remaining time does not come near 0 before the last clip ends.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.now = clock()
        """When `advance` was called last."""
        self._work = 0
        """Frames that were made in this run."""
        self._busy = 0.0
        """Seconds in which frames were being made, up to `now`."""
        self._past: deque[tuple[float, int]] = deque()
        """`_busy` and `_work` as they were over the recent past."""
        self._pauses, self._rests = _Costs(), _Costs()
        """What the clips that were done in this run took beside upscaling."""

    def advance(self, running: Collection[ClipState]) -> None:
        """Count the time since the last call for what the running clips did in it."""
        now = self._clock()
        passed, self.now = now - self.now, now
        if any(clip.upscaling for clip in running):
            self._busy += passed
        elif self._past:
            # Before the first frame it is the start of the batch that is waited for, not a clip.
            for clip in running:
                clip.idle += passed / len(running)

    def progressed(self, clip: ClipState, progress: Progress) -> None:
        """A clip got on."""
        clip.progress, clip.progress_s = progress, self.now
        if progress.phase is Phase.UPSCALE:
            if not clip.begun:
                clip.begun = True
                clip.made = max(clip.made, progress.frame)
            self._make(clip, progress.frame)
            clip.upscaling = progress.total == 0 or progress.frame < progress.total
        elif progress.phase in _AFTER:
            clip.upscaling = False
        else:
            return
        if clip.upscaling:
            clip.complete_s = None
        elif clip.complete_s is None:
            clip.complete_s = self.now

    def ended(self, clip: ClipState) -> None:
        """A clip whose frames are known has ended; one that is done shows what clips take beside upscaling."""
        frames = clip.frames or 0
        if clip.status is ClipStatus.SKIPPED:
            clip.made = frames
        if clip.status is not ClipStatus.DONE:
            return
        if not clip.begun and isinstance(clip.result, Done):
            clip.made = max(clip.made, clip.result.resumed_frames)
        self._make(clip, frames)
        self._pauses.add(frames, clip.idle)
        self._rests.add(frames, self._since(clip))

    def _make(self, clip: ClipState, frame: int) -> None:
        if not self._past:
            self._past.append((self._busy, self._work))
        # A clip that is begun again may have less: what was counted stays counted, and is not counted twice.
        if frame > clip.made:
            self._work += frame - clip.made
            clip.made = frame
            self._past.append((self._busy, self._work))

    def rate(self) -> float | None:
        """Frames a second; None until enough was measured."""
        while len(self._past) > 2 and self._busy - self._past[1][0] > SPAN_SECONDS:
            self._past.popleft()
        if not self._past:
            return None
        then, before = self._past[0]
        seconds, made = self._busy - then, self._work - before
        return made / seconds if seconds >= LEAST_SECONDS and made > 0 else None

    def remaining(self, clips: Sequence[ClipState], rate: float) -> float:
        """Seconds until the last of these clips ends, whose frames are known."""
        each = REST_SHARE / rate
        if not self._rests.clips:
            each = max([each, *(self._since(clip) / clip.frames for clip in clips if clip.frames)])
        alone = sum(clip.status is ClipStatus.RUNNING for clip in clips) <= 1
        upscaling = sum(clip.frames_left for clip in clips) / rate
        pauses = sum(max(0.0, self._pauses.of(clip.frames or 0, each if alone else 0.0) - clip.idle) for clip in clips)
        ends = [self._rest(clip, each) for clip in clips if clip.complete_s is not None]
        return max([upscaling + max(pauses, self._rest(clips[-1], each)), *ends])

    def _since(self, clip: ClipState) -> float:
        """Seconds since all frames of a clip were there; 0 while some are missing."""
        return 0.0 if clip.complete_s is None else self.now - clip.complete_s

    def _rest(self, clip: ClipState, assumed: float) -> float:
        """Seconds that joining and verifying a clip are still to take."""
        expected, took = self._rests.of(clip.frames or 0, assumed), self._since(clip)
        if clip.complete_s is None:
            return expected
        if clip.progress is None or clip.progress.phase is Phase.UPSCALE:
            return expected - took if expected > took else took
        if clip.progress.eta_s is None:
            # Nothing tells how long this phase takes: as long again as it has taken is a guess that keeps off 0.
            told = took if clip.progress.frame < clip.progress.total or clip.progress.total == 0 else 0.0
        else:
            told = max(0.0, clip.progress.eta_s - (self.now - clip.progress_s))
        if clip.progress.phase is Phase.JOIN:
            told += took  # every frame is decoded after it: that takes no less
        return max(expected - took, told)
