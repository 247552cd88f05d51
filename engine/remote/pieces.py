"""Which parts of a job are waiting, running or there, and what becomes of one whose call went wrong.

A piece is a chunk, or a part of one that took too long. No clock runs here and nothing is called.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from keyscale.engine import errors
from keyscale.engine.errors import KeyscaleError, RemoteError
from keyscale.engine.plan.plan import Chunk
from keyscale.engine.remote.modal_errors import CallEnd, Outcome, without_links
from keyscale.engine.wording import Said, from_data, say
from keyscale.engine.worker.contract import Made, TooSlow
from keyscale.engine.worker.links import LinkExpired

__all__ = ["ATTEMPTS", "Piece", "Pieces", "refused"]

ATTEMPTS = 4
"""How often a piece is started at most; what it is a part of counts too."""

SLOW_CALLS = 8
"""How many calls of a chunk may run out of time: each was paid for, and one tells how small the pieces have to be."""

STUCK_CALLS = 2
"""The same of calls for a piece that made no frame at all: fewer frames do not help."""

SHARE = 0.7
"""Of the frames that a call made in its time, the next pieces have so many: containers differ, and vary."""

SLOW = say("Deploy with a longer KEYSCALE_TIMEOUT or a faster KEYSCALE_GPU, or give a shorter {chunk_seconds}.")
STUCK = "Look at `modal app logs keyscale`; where containers only need longer, deploy with a longer KEYSCALE_TIMEOUT."

FIRST_PAUSE_S = 1.0
"""Before the second start; doubled before each further one."""

EXPIRED = frozenset({LinkExpired.__name__})
"""Refusals that new links may end."""


@dataclass(eq=False)
class Piece:
    """Output frames that one call makes."""

    chunk: Chunk
    starts: int = 0
    """How often it, or what it is a part of, was started."""
    stuck: int = 0
    """How often no frame of it was made in a call's whole time."""
    due: float = 0.0
    """When it may be started, on the clock of whoever asks."""
    heard: float | None = None
    """When a container was last known to work on it, on the same clock; None where it waits for one, as far as is
    known."""
    frames: int = 0
    """Reported as done by the call that runs."""


@dataclass
class _Parts:
    """What there is of one chunk."""

    whole: Chunk
    made: dict[int, tuple[Chunk, Made, Path]] = field(default_factory=dict)
    slow: int = 0
    """Calls that ran out of time."""

    @property
    def complete(self) -> bool:
        return sum(part.frames for part, _, _ in self.made.values()) == self.whole.frames


class Pieces:
    """The pieces of a job."""

    def __init__(self, chunks: Iterable[Chunk], shortest: int) -> None:
        """All wait.

        Args:
            chunks: to be made.
            shortest: frames below which a piece is not split.
        """
        self._shortest = shortest
        self._parts = {chunk.index: _Parts(chunk) for chunk in chunks}
        self.waiting: deque[Piece] = deque(Piece(parts.whole) for parts in self._parts.values())
        self.running: dict[str, Piece] = {}
        """By the id of the call."""
        self._done = 0

    @property
    def left(self) -> bool:
        """Whether anything is not there yet."""
        return bool(self.waiting or self.running)

    @property
    def frames(self) -> int:
        """Frames that are there, and those that running calls report."""
        return self._done + sum(min(piece.frames, piece.chunk.frames) for piece in self.running.values())

    @property
    def longest(self) -> int:
        """Frames of the longest piece that waits."""
        return max((piece.chunk.frames for piece in self.waiting), default=0)

    @property
    def frames_left(self) -> int:
        """Frames of pieces that wait or run."""
        return sum(piece.chunk.frames for piece in (*self.waiting, *self.running.values()))

    def is_due(self, now: float) -> bool:
        """Whether `take` would give one."""
        return any(piece.due <= now for piece in self.waiting)

    def take(self, now: float) -> Piece | None:
        """The next piece that may be started."""
        for _ in range(len(self.waiting)):
            piece = self.waiting.popleft()
            if piece.due <= now:
                piece.starts += 1
                piece.frames, piece.heard = 0, None
                return piece
            self.waiting.append(piece)
        return None

    def adopt(self, call_id: str, part: Chunk) -> bool:
        """Take over a call that an earlier client started; False where its chunk is not wanted (any more)."""
        for piece in list(self.waiting):
            whole = piece.chunk
            if whole.index != part.index or not (whole.start <= part.start < part.end <= whole.end):
                continue
            self.waiting.remove(piece)
            # What an earlier client had split is still split.
            for start, end in ((whole.start, part.start), (part.end, whole.end)):
                if start < end:
                    self.waiting.append(Piece(replace(whole, start=start, end=end)))
            self.running[call_id] = Piece(part, starts=1)
            return True
        return False

    def reported(self, now: float, index: int, start: int, frames: int) -> str | None:
        """A call says how far it is; the call's id where it is the first that is heard of it."""
        for call_id, piece in self.running.items():
            if (piece.chunk.index, piece.chunk.start) == (index, start):
                is_first, piece.heard = piece.heard is None, now
                piece.frames = max(piece.frames, frames)
                return call_id if is_first else None
        return None

    def queued(self, busy: Collection[str], oldest: float) -> int:
        """How many of these calls wait for a container.

        One of which nothing was heard since `oldest` lost its own: it would have ended by now.
        """
        running = (piece for call_id, piece in self.running.items() if call_id in busy)
        return sum(piece.heard is None or piece.heard < oldest for piece in running)

    def finished(self, call_id: str, made: Made, path: Path) -> list[tuple[Made, Path]] | None:
        """A piece is here, in `path`; all of its chunk's in order once that is whole, else None."""
        piece = self.running.pop(call_id)
        parts = self._parts[piece.chunk.index]
        parts.made[piece.chunk.start] = piece.chunk, made, path
        self._done += piece.chunk.frames
        if not parts.complete:
            return None
        return [(made, path) for _, (_, made, path) in sorted(parts.made.items())]

    def failed(self, call_id: str, outcome: Outcome, now: float) -> str | None:
        """Let a piece wait to be started again, or its parts.

        Returns:
            What a person should know of it, if anything.

        Raises:
            KeyscaleError: it would fail again, or has failed too often.
        """
        piece = self.running.pop(call_id)
        error = outcome.error or RemoteError("a call ended without an answer")
        what = f"frames {piece.chunk.start} to {piece.chunk.end} (chunk {piece.chunk.index})"
        is_timeout = outcome.kind is CallEnd.TIMEOUT
        if outcome.kind is CallEnd.ANSWERED and outcome.answer is not None:
            kind = outcome.answer.get("error")
            is_timeout = kind == TooSlow.__name__
            if not is_timeout and not (isinstance(kind, str) and kind in EXPIRED):
                raise refused(outcome.answer, what)
            error = RemoteError(_message(outcome.answer), remedy=_remedy(outcome.answer))
        if outcome.kind is CallEnd.FAILED:
            raise error
        made = min(_frames(outcome) or piece.frames, piece.chunk.frames)
        if is_timeout and (parts := self._ran_out(piece, made, what, error)):
            self.waiting.extend(Piece(part, starts=piece.starts) for part in parts)
            return f"{what} took too long and are made in {len(parts)} parts ({error.message})"
        if piece.starts >= ATTEMPTS:
            raise RemoteError(
                f"{what} failed {piece.starts} times, the last time so: {error.message}",
                remedy=SLOW if is_timeout else error.remedy,
            )
        piece.due = now + FIRST_PAUSE_S * 2 ** (piece.starts - 1)
        self.waiting.append(piece)
        return f"{what} are started again: {error.message}"

    def _ran_out(self, piece: Piece, made: int, what: str, error: RemoteError) -> list[Chunk]:
        """The parts in which a piece is to be made of which a call made so many frames in its time; none: as it is."""
        chunk = self._parts[piece.chunk.index]
        chunk.slow += 1
        if not made:
            piece.stuck += 1
            if piece.stuck >= STUCK_CALLS:
                message = f"{what}: no frame was made in all the time of {piece.stuck} calls ({error.message})"
                raise RemoteError(message, remedy=STUCK)
            return []
        if chunk.slow >= SLOW_CALLS:
            message = f"{what}: {chunk.slow} calls of this chunk took too long, the last time so: {error.message}"
            raise RemoteError(message, remedy=SLOW)
        start, frames = piece.chunk.start, piece.chunk.frames
        count = min(max(2, math.ceil(frames / max(1, SHARE * made))), frames // self._shortest)
        if piece.starts >= ATTEMPTS or count < 2:
            return []
        ends = [start + round(frames * number / count) for number in range(count + 1)]
        return [replace(piece.chunk, start=begin, end=end) for begin, end in itertools.pairwise(ends)]


def _frames(outcome: Outcome) -> int:
    """How many frames a call says that it made until its time was up."""
    frames = (outcome.answer or {}).get("frames")
    return max(0, frames) if isinstance(frames, int) else 0


def refused(answer: dict[str, object], what: str) -> KeyscaleError:
    """The error that a call answered with, whatever is in its answer.

    One that only this process can have (`Interrupted`) is no container's to raise, and becomes a `RemoteError`.
    """
    kind = getattr(errors, str(answer.get("error")), None)
    if not (isinstance(kind, type) and issubclass(kind, KeyscaleError)) or issubclass(kind, errors.Interrupted):
        kind = RemoteError
    return kind(say("{}: {}", what, _message(answer)), remedy=_remedy(answer))


def _message(answer: dict[str, object]) -> str:
    return _told(answer, 0, "message") or "a container failed and did not say why"


def _remedy(answer: dict[str, object]) -> str | None:
    return _told(answer, 1, "remedy") or None


def _told(answer: dict[str, object], place: int, plain: str) -> str:
    """A sentence of a container, with the options in it where it has nothing else that has to be taken out."""
    said = answer.get("said")
    text: Said | None = from_data(said[place]) if isinstance(said, list) and len(said) == 2 else None
    return text if text is not None and without_links(text) == text else without_links(answer.get(plain))
