"""Trim and speed: output time <-> source time, for picture, sound, subtitles and chapters alike.

Source times are seconds after the first displayed frame; output times are seconds of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Stretch", "TimeMap"]

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stretch:
    """Source seconds `[start, end)` played at `speed` (2 is twice as fast)."""

    start: float
    end: float
    speed: float

    @property
    def duration(self) -> float:
        """Seconds of output."""
        return (self.end - self.start) / self.speed


@dataclass(frozen=True)
class TimeMap:
    """Consecutive stretches, in order and without gaps, at least one."""

    stretches: tuple[Stretch, ...]

    @property
    def start(self) -> float:
        """First source second used."""
        return self.stretches[0].start

    @property
    def end(self) -> float:
        """Source second at which the output ends."""
        return self.stretches[-1].end

    @property
    def duration(self) -> float:
        """Seconds of output."""
        return sum(stretch.duration for stretch in self.stretches)

    @property
    def is_uniform(self) -> bool:
        """True where every stretch plays at speed 1."""
        return all(stretch.speed == 1 for stretch in self.stretches)

    def to_source(self, output: Seconds) -> Seconds:
        """Output seconds `(N,)` -> source seconds `(N,)`, held at both ends."""
        out_edges, source_edges = self._edges()
        return np.interp(output, out_edges, source_edges)

    def to_output(self, source: Seconds) -> Seconds:
        """Source seconds `(N,)` -> output seconds `(N,)`, held at both ends."""
        out_edges, source_edges = self._edges()
        return np.interp(source, source_edges, out_edges)

    def _edges(self) -> tuple[Seconds, Seconds]:
        source = [self.stretches[0].start, *(s.end for s in self.stretches)]
        output = np.concatenate([[0.0], np.cumsum([s.duration for s in self.stretches])])
        return output, np.asarray(source, dtype=np.float64)
