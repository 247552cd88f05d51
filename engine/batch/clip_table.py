"""All clips of a batch: what is known of each, how far they are together, and what is reported of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import keyscale
from keyscale.engine.batch.clip import BatchClip, ClipState
from keyscale.engine.batch.events import ENDED, BatchProgress, ClipEvent, ClipReport, ClipStatus, Fault, Report
from keyscale.engine.batch.progress import Forecast
from keyscale.engine.events import Done, Event, Failed, Note, Progress
from keyscale.engine.runners.progress import HEARTBEAT_SECONDS, SHORTEST_SECONDS

__all__ = ["MOST_WARNINGS", "ClipTable", "clip_report"]

MOST_ENDED = 10_000
"""Clips that ended and are yet kept one by one while a folder is watched: it may be watched for years. Of earlier ones
only the numbers are kept."""

MOST_WARNINGS = 50
"""Different warnings of a clip that are kept; of what comes after them only the number is."""


class ClipTable:
    """The clips by their indices. May be used from several threads.

    Args:
        remote: whether calls cost something: dollars are told from the start.
        clock: seconds, monotonic.
        began: when the batch began, with a time zone; None is now.
    """

    def __init__(
        self, *, remote: bool = False, clock: Callable[[], float] = time.monotonic, began: datetime | None = None
    ) -> None:
        self.known = 0
        """Clips so far."""
        self._clips: dict[int, ClipState] = {}
        self._running: dict[int, ClipState] = {}
        self._latest: dict[tuple[str, str], int] = {}
        """The clip of each video and output: where a folder is watched, an earlier one has been superseded."""
        self._condensed: Counter[ClipStatus] = Counter()
        """How many clips ended so of which nothing else is kept."""
        self._condensed_frames = 0
        """Frames of the results of those that were done."""
        self._past_frame = self._past_total = 0
        """Frames that are there, and all, of clips that are kept no more."""
        self._remote = remote
        self._dollars: float | None = None
        """What all cost so far; None where nothing that costs was done."""
        self._clock, self._forecast = clock, Forecast(clock)
        self._began, self._began_s = (began or datetime.now(UTC)).astimezone(UTC), clock()
        self._told_s: float | None = None
        self._changed = False
        """Something happened since progress was told; and since it was looked which clips to forget, one ended."""
        self._ended_since = False
        self._lock = threading.RLock()

    def __getitem__(self, index: int) -> ClipState:
        return self._clips[index]

    def all(self) -> list[ClipState]:
        """Those that are kept, in order."""
        return list(self._clips.values())

    def open(self) -> bool:
        """Whether any has not ended."""
        return any(clip.status not in ENDED for clip in self._clips.values())

    def add(self, work: BatchClip) -> ClipState:
        """Another clip became known."""
        with self._lock:
            clip = self._clips[self.known] = ClipState(self.known, work)
            self.known += 1
            self._latest[work.video, work.output] = clip.index
            self._ended_since = True
            return clip

    def tell(self, clip: ClipState, of: Event | None = None, *, status: ClipStatus | None = None) -> ClipEvent:
        """Take note of what happened to a clip and how it stands now, and give the event that says so.

        Args:
            clip: one of the table.
            of: its own event.
            status: how it stands from now on; None is as before. What has ended stays so.
        """
        with self._lock:
            forecast, made, was_running = self._forecast, clip.made, clip.index in self._running
            forecast.advance(self._running.values())
            ends = status in ENDED and clip.status not in ENDED
            if status is not None and clip.status not in ENDED:
                clip.status = status
            match of:
                case Progress():
                    forecast.progressed(clip, of)
                case Note(level="warning", message=message) if message not in clip.warnings:
                    if len(clip.warnings) < MOST_WARNINGS:
                        clip.warnings.append(message)
                    else:
                        clip.more_warnings += 1
                case Done():
                    clip.result, clip.frames, clip.output_bytes = of, of.frames, _size_of(of.output)
                    if of.remote is not None:
                        self._dollars = (self._dollars or 0.0) + of.remote.dollars
                case Failed():
                    clip.result = of
                case _:
                    pass
            if clip.status is ClipStatus.RUNNING:
                self._running[clip.index] = clip
                clip.began_s = forecast.now if clip.began_s is None else clip.began_s
            else:
                self._running.pop(clip.index, None)
                clip.upscaling = False
            if ends:
                clip.seconds = None if clip.began_s is None else forecast.now - clip.began_s
                forecast.ended(clip)
                self._ended_since = True
            is_running = clip.index in self._running
            self._changed = self._changed or ends or is_running is not was_running or clip.made > made
        return ClipEvent(
            index=clip.index,
            clip=clip.work.name,
            status=clip.status,
            frames=clip.frames,
            source_size=clip.source_size,
            of=of,
        )

    def is_due(self) -> bool:
        """Whether it is time to tell progress: something changed and a moment passed, or the heartbeat."""
        if self._told_s is None:
            return True
        silence = self._clock() - self._told_s
        return silence >= HEARTBEAT_SECONDS or (self._changed and silence >= SHORTEST_SECONDS)

    def progress(self) -> BatchProgress:
        """Where the batch stands now.

        Clips that failed take their missing frames out of what is left, not out of the total. Once a clip is stopped
        no remaining time is given: the batch ends with frames missing, and when they are made depends on
        when it is run again.
        """
        with self._lock:
            self._forecast.advance(self._running.values())
            self._told_s, self._changed = self._forecast.now, False
            clips = self._clips.values()
            count = self._condensed + Counter(clip.status for clip in clips)
            left = [clip for clip in clips if clip.status not in ENDED]
            rate, eta = self._forecast.rate(), None
            if not left:
                eta = 0.0 if count else None
            elif rate is not None and all(clip.frames is not None for clip in left):
                eta = self._forecast.remaining(left, rate)
            return BatchProgress(
                clips=count.total(),
                done=count[ClipStatus.DONE],
                skipped=count[ClipStatus.SKIPPED],
                failed=count[ClipStatus.FAILED],
                running=len(self._running),
                planned=self._condensed.total() + sum(clip.frames is not None for clip in clips),
                frame=self._past_frame + sum(clip.made for clip in clips),
                total=self._past_total + sum(clip.frames or 0 for clip in clips),
                fps=rate,
                eta_s=None if count[ClipStatus.STOPPED] else eta,
                dollars=0.0 if self._remote and self._dollars is None else self._dollars,
            )

    def report(self, *, finished: bool) -> Report:
        """What is known of all.

        Args:
            finished: whether the batch has ended by itself: not interrupted, nor still going on.
        """
        with self._lock:
            clips = self._clips.values()
            count = self._condensed + Counter(clip.status for clip in clips)
            ended = (count[ClipStatus.DONE], count[ClipStatus.SKIPPED], count[ClipStatus.FAILED])
            done = [clip for clip in clips if clip.status is ClipStatus.DONE]
            return Report(
                keyscale=keyscale.__version__,
                began=self._began.isoformat(timespec="seconds"),
                seconds=self._clock() - self._began_s,
                finished=finished,
                done=ended[0],
                skipped=ended[1],
                failed=ended[2],
                stopped=count.total() - sum(ended),
                frames=self._condensed_frames + sum(clip.frames or 0 for clip in done),
                dollars=self._dollars,
                clips=tuple(map(clip_report, clips)),
            )

    def drop(self, busy: AbstractSet[int]) -> bool:
        """Forget clips that ended: those whose video has changed since and was taken again, and the oldest of many.

        What they cost, and their frames, stay counted.

        Args:
            busy: indices of those that a worker still does something for; they stay.

        Returns:
            Whether any was forgotten.
        """
        if not self._ended_since:
            return False
        with self._lock:
            all_ended = [clip for clip in self._clips.values() if clip.status in ENDED]
            ended = [clip for clip in all_ended if clip.index not in busy]
            self._ended_since = len(ended) < len(all_ended)
            latest = [clip for clip in ended if self._latest.get(_place(clip)) == clip.index]
            # A failed one may yet be mended, and then counts no more.
            old = [clip for clip in latest if clip.status in {ClipStatus.DONE, ClipStatus.SKIPPED}]
            old = old[: max(0, len(old) - MOST_ENDED)]
            for clip in old:
                self._condensed[clip.status] += 1
                self._condensed_frames += (clip.frames or 0) * (clip.status is ClipStatus.DONE)
                del self._latest[_place(clip)]
            # What was wrong with superseded clips has been fixed, or is reported for their successors.
            gone = [clip for clip in ended if self._latest.get(_place(clip)) != clip.index]
            for clip in gone:
                self._past_frame += clip.made
                self._past_total += clip.frames or 0
                self._changed = True
                del self._clips[clip.index]
            return bool(gone)


def _place(clip: ClipState) -> tuple[str, str]:
    return clip.work.video, clip.work.output


def _size_of(output: str) -> int | None:
    try:
        return Path(output).stat().st_size
    except (OSError, ValueError):
        return None  # someone took it away since, or it never was a file here


def clip_report(clip: ClipState) -> ClipReport:
    """What the report says of a clip."""
    work, result = clip.work, clip.result
    more = (f"and {clip.more_warnings} more warnings",) if clip.more_warnings else ()
    report = ClipReport(
        clip=work.name,
        status=clip.status,
        video=work.video,
        keyframes=work.keyframes,
        output=work.output,
        frames=clip.frames,
        seconds=clip.seconds,
        source_size=clip.source_size,
        warnings=(*clip.warnings, *more),
        error=Fault.of(result) if clip.status is ClipStatus.FAILED and isinstance(result, Failed) else None,
    )
    if not isinstance(result, Done) or clip.status not in {ClipStatus.DONE, ClipStatus.SKIPPED}:
        return report
    was_made = clip.status is ClipStatus.DONE
    made = result.frames - result.resumed_frames if was_made else 0
    target = work.job.target if work.job is not None else None
    return replace(
        report,
        seconds=result.seconds,
        fps=made / result.seconds if made > 0 and result.seconds > 0 else None,
        size=clip.size or ((target.width, target.height) if target is not None else None),
        output_bytes=clip.output_bytes,
        resumed_frames=result.resumed_frames,
        lost_frames=result.lost_frames,
        device=result.device if was_made else None,
        runtime=result.runtime if was_made else None,
        model=result.model,
        look=result.look,
        strength=result.strength,
        steady=result.steady,
        key=result.key or None,
        dollars=result.remote.dollars if result.remote is not None else None,
        published=result.published,
    )
