"""At which time the camera is looked up, and which frame a time in the keyframes file or on a flag means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.framing import Framing
from keyscale.engine.source.probe import VideoInfo

__all__ = ["FrameTimes", "rounded"]

Seconds = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

THREE_DECIMALS, TWO_DECIMALS = 0.5e-3, 5e-3
"""Largest rounding error, in seconds, of a time with three and with two decimals."""

FINE_TICK = 0.002
"""Seconds of a tick up to which nobody sees that a frame is shown one early."""

MILLISECOND = 1e-3
"""By so much two times may differ that were rounded to milliseconds."""

NOTICED = 1e-9
"""Seconds, and parts of a decimal, below which a difference is float rounding."""

LONG_S = 0.25
"""Seconds that a frame stands at most in what counts as ordinary video, four frames a second."""

LONG_FRAMES = 2.5
"""Usual frames of its source that a frame stands at most; a frame that was dropped makes two."""

SHOWN = 2
"""Output frames that show a frame before the camera moves over it."""


@dataclass(frozen=True)
class FrameTimes:
    """When a source's frames stand."""

    times: Seconds
    """Seconds after the first frame `(N,)`."""
    last: float
    """Seconds that the last one stands."""
    rounded: float
    """Seconds by which the time base may have made a frame late, see `rounded`."""
    even: Seconds | None = None
    """When they stood before a coarse clock rounded their times; None where that is not known."""

    @classmethod
    def of(cls, info: VideoInfo) -> FrameTimes:
        """Those of a source."""
        late = _late(info)
        even = info.times() - late if late is not None else None
        return cls(info.times(), float(info.last_duration * info.time_base), rounded(info), even)

    @property
    def usual(self) -> float:
        """Seconds that a frame usually stands."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else self.last

    def slack(self, rounding: float) -> float:
        """Seconds by which a rounded time may miss the frame that it means.

        The source's own times may be rounded too. Never a quarter of a frame, beyond which a time lies between two.
        """
        return min(rounding + self.rounded + NOTICED, self.usual / 4)

    def cut_slack(self, framing: Framing) -> float:
        """Seconds that a cut may come early: to the frame that its time means, as the file's decimals tell."""
        hundredths = np.array([k.time for k in framing.keyframes]) * 100
        two = np.abs(hundredths - np.rint(hundredths)).max() < NOTICED * 100
        # Whole seconds and tenths are no roundings.
        tenths = np.abs(hundredths / 10 - np.rint(hundredths / 10)).max() < NOTICED * 10
        return self.slack(TWO_DECIMALS if two and not tenths else THREE_DECIMALS)

    def meant(self, time: float) -> float:
        """The time of the frame that a time means: that of one within its rounding, else itself.

        Where a clock of milliseconds rounded it, as it was before: slow motion would make the rounding longer.
        """
        nearest = int(np.abs(self.times - time).argmin())
        if abs(float(self.times[nearest]) - time) <= self.slack(THREE_DECIMALS):
            return float((self.times if self.even is None else self.even)[nearest])
        return time

    def lookups(self, shown: Ints, wanted: Seconds) -> Seconds:
        """When the camera is looked up for each output frame `(M,)`, in seconds of the source.

        At the time of the source frame that it shows, so that a subject which is tracked stands still in the crop, and
        a repeat is an exact repeat. While a frame stands for long, at the output frame's own time, so that the camera
        moves over it.

        Args:
            shown: index of the source frame that each output frame shows, never falling.
            wanted: source second at which each output frame stands.
        """
        begin = self.times[shown]
        first, count = np.unique(shown, return_index=True, return_counts=True)[1:]
        stands = np.append(np.diff(self.times), self.last)[shown[first]]
        # The last frame may be held beyond its end.
        stands = np.maximum(stands, wanted[first + count - 1] - begin[first])
        long = ((stands > LONG_S) | (stands > LONG_FRAMES * self.usual)) & (count > SHOWN)
        return np.where(np.repeat(long, count), np.maximum(wanted, begin), begin)


def rounded(info: VideoInfo) -> float:
    """Seconds by which rounding may have made a frame late, for which it is forgiven; never half a frame.

    A fine time base may round by a tick (66.67 ms to 67). Times that went through milliseconds before, from Matroska to
    MP4 say, keep what that did to them, and joined parts are shifted by whole ticks: where no frame is off its place at
    the source's rate by more than a millisecond and a tick, all are forgiven what the latest is late. Equal
    steps were not rounded: such a source has another rate than it says, and drifts.

    A coarse base is taken to round only where its frames do not stand on whole ticks of an even rate, and by no more
    than they are late there: one of a tick a frame rounds nothing.
    """
    steps = np.diff(info.pts)
    if not len(steps):
        return 0.0
    tick, usual = float(info.time_base), float(np.median(steps))
    if tick <= FINE_TICK:
        rounding = _late(info)
        return min(max(tick, float(rounding.max()) if rounding is not None else 0.0), usual * tick / 2)
    ticks, number = info.pts - info.pts[0], np.arange(len(info.pts), dtype=np.float64)
    late = ticks - number * float(number @ ticks) / float(number @ number)
    if np.abs(late).max() >= 1 or np.all(steps == usual):
        return 0.0
    # The rate is a little uncertain itself: by a tenth of a tick in a short clip.
    return float(min(max(late.max(), 0.0) + 0.1, usual / 2) * tick)


def _late(info: VideoInfo) -> Seconds | None:
    """Seconds by which each frame stands late of its place at the source's rate `(N,)`, where rounding explains it."""
    steps = np.diff(info.pts)
    tick = float(info.time_base)
    if not len(steps) or tick > FINE_TICK or np.all(steps == np.median(steps)):
        return None
    late: Seconds = info.times() - np.arange(len(info.pts)) / float(info.rate)
    return late if np.abs(late).max() <= MILLISECOND + tick else None
