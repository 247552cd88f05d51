"""What is known of each clip of a batch while it goes on: whoever changes that tells it on through here."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.events import ENDED, BatchProgress, ClipEvent, ClipStatus, Report
from keyscale.engine.batch.progress import BatchMeter
from keyscale.engine.batch.report import Reporter
from keyscale.engine.events import Done, Event, Failed
from keyscale.engine.workspace.folder import Identity

__all__ = ["Ledger", "OpenClip"]

MOST_ENDED = 10_000
"""Clips that ended and are yet kept one by one while a folder is watched: it may be watched for years. Of earlier ones
only the number is kept."""


@dataclass(eq=False)
class OpenClip:
    """What is known of one clip."""

    index: int
    work: BatchClip
    status: ClipStatus = ClipStatus.WAITING
    frames: int | None = None
    chunks: int = 1
    frame: int = 0
    """Frames that are there."""
    source_size: tuple[int, int] | None = None
    source_sha256: str | None = None
    """Known once its chunks are being made."""
    assistants: int = 0
    waited: int = 0
    """How often its output was locked."""
    outdated: Identity | None = None
    """The result that it had when it became known, where that is to be replaced."""
    notes: set[str] = field(default_factory=set)
    deaths: int = 0
    last: Done | Failed | None = None
    """Its last event, held back until its worker is done with it."""

    @property
    def frames_left(self) -> int:
        """Frames that are not there yet."""
        return (self.frames or 0) - self.frame


class Ledger:
    """All clips of a batch by their indices, how far they are together, and what is reported of them.

    Args:
        remote: whether calls cost something.
    """

    def __init__(self, *, remote: bool) -> None:
        self.known = 0
        """Clips so far."""
        self._clips: dict[int, OpenClip] = {}
        self._meter, self._reporter = BatchMeter(remote=remote), Reporter()
        self._latest: dict[tuple[str, str], int] = {}
        """The clip of each video and output: where a folder is watched, an earlier one has been superseded."""
        self._ended_since = False
        """A clip ended, or another took the place of one that had, since it was last looked which to forget."""

    def __getitem__(self, index: int) -> OpenClip:
        return self._clips[index]

    def add(self, work: BatchClip) -> OpenClip:
        """Another clip became known."""
        clip = self._clips[self.known] = OpenClip(self.known, work)
        self.known += 1
        self._latest[work.video, work.output] = clip.index
        self._ended_since = True
        self._reporter.add(work)
        return clip

    def all(self) -> list[OpenClip]:
        """Those that are kept, in order."""
        return list(self._clips.values())

    def open(self) -> bool:
        """Whether any has not ended."""
        return any(clip.status not in ENDED for clip in self._clips.values())

    def tell(self, clip: OpenClip, of: Event | None = None) -> ClipEvent:
        """Say how a clip stands, and what happened to it."""
        event = ClipEvent(
            index=clip.index,
            clip=clip.work.name,
            status=clip.status,
            frames=clip.frames,
            source_size=clip.source_size,
            of=of,
        )
        self._ended_since = self._ended_since or clip.status in ENDED
        self._meter.handle(event)
        self._reporter.handle(event)
        return event

    def is_due(self) -> bool:
        """As of `BatchMeter.is_due`."""
        return self._meter.is_due()

    def progress(self) -> BatchProgress:
        """As of `BatchMeter.progress`."""
        return self._meter.progress()

    def report(self, *, finished: bool) -> Report:
        """As of `Reporter.report`."""
        return self._reporter.report(finished=finished)

    def drop(self, busy: AbstractSet[int]) -> bool:
        """Forget clips that ended: those whose video has changed since and was taken again, and the oldest of many.

        Args:
            busy: indices of those that a worker still does something for; they stay.

        Returns:
            Whether any was forgotten.
        """
        if not self._ended_since:
            return False
        all_ended = [clip for clip in self._clips.values() if clip.status in ENDED]
        ended = [clip for clip in all_ended if clip.index not in busy]
        self._ended_since = len(ended) < len(all_ended)
        latest = []
        for clip in ended:
            if self._latest.get((clip.work.video, clip.work.output)) == clip.index:
                latest.append(clip)
                continue
            # What was wrong with it has been mended, or is told of its successor.
            self._meter.forget(clip.index, clip.status, planned=clip.frames is not None)
            self._reporter.forget(clip.index)
            del self._clips[clip.index]
        # A failed one may yet be mended, and then counts no more.
        old = [clip for clip in latest if clip.status in {ClipStatus.DONE, ClipStatus.SKIPPED}]
        for clip in old[: max(0, len(old) - MOST_ENDED)]:
            self._reporter.condense(clip.index)
            del self._clips[clip.index], self._latest[clip.work.video, clip.work.output]
        return len(latest) < len(ended) or len(old) > MOST_ENDED
