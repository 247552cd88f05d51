"""Slower and faster sound at the same pitch, in step with the picture.

Why not FFmpeg's atempo: each of its instances may wander by half a window (21 ms at 48 kHz); below 0.5x instances
are chained, and the wandering of one is stretched by the next; what falls between two windows is lost. Measured,
clicks came up to 38 ms early at 0.5x and 200 ms at 0.1x, were repeated when slowed and missing when sped up.

This is the same method, waveform-similarity overlap-add (Verhelst and Roelands, 1993), in one pass for any speed,
with anchors: around every sharp onset the source is copied verbatim to its exact place in the result and the
material between is stretched, so that an onset is heard once, unblurred, and on time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from keyscale.engine.source.sound import Samples

__all__ = ["CONTEXT", "stretched"]

_HALF = 0.020
"""Seconds of half a window, and from one window to the next."""
_REACH = 0.008
"""Seconds by which a window may be moved to fit its neighbour: most of a period of the lowest voices."""
_CLEAR = 0.002
"""Seconds between an onset and the nearest window that is not copied verbatim."""

CONTEXT = 0.1
"""Seconds of sound before and after a stretch that `stretched` may ask for."""

_BLOCK = 0.5
"""Seconds read at a time."""

_PAST = 32
"""Milliseconds of sound that an onset is compared with."""
_AHEAD = 12
"""Milliseconds after an onset within which a steeper one would replace it."""
_RISE = 10.0
"""Growth of power that makes an onset."""
_FLOOR = 1e-7
"""Power (of full scale 1) that counts as silence: -70 dB."""


def stretched(
    read: Callable[[int, int], Samples], *, samples_in: int, samples_out: int, rate: int
) -> Iterator[Samples]:
    """Play `samples_in` samples in the time of `samples_out`, without changing the pitch.

    Args:
        read: `read(start, stop)` gives those samples of the source, counted from the start of the stretch; also
            from `CONTEXT` seconds before it and until `CONTEXT` after its end. Calls run forward without gaps.
        samples_in: length of the stretch in the source.
        samples_out: length in the result.
        rate: samples a second.

    Yields:
        Pieces of the result, `samples_out` samples in all.
    """
    if samples_out <= 0:
        return
    if samples_in <= 0:
        yield np.zeros((read(0, 0).shape[0], samples_out), np.float32)
        return
    yield from _Stretcher(read, samples_in, samples_out, rate).run()


class _Stretcher:
    def __init__(self, read: Callable[[int, int], Samples], samples_in: int, samples_out: int, rate: int):
        self._read = read
        self._in, self._out, self._rate = samples_in, samples_out, rate
        self._speed = samples_in / samples_out
        self._half = max(1, round(_HALF * rate))
        self._reach = round(_REACH * rate)
        self._guard = self._half + self._reach + round(_CLEAR * rate)
        # Beside an anchor the map runs faster or slower than the speed asked for until it is back on course. Below
        # speed 1 that takes the longer, the slower it is, or time would run backwards.
        self._recovery = 2 * self._guard * max(1.0, 1 / self._speed)
        self._window = (0.5 - 0.5 * np.cos(np.pi * np.arange(2 * self._half) / self._half)).astype(np.float32)
        context = round(CONTEXT * rate)
        self._base = -context
        self._stop = samples_in + context
        self._sound: Samples = self._read(self._base, self._base)
        self._mono = np.zeros(0, np.float32)
        self._onsets = _Onsets(rate, self._base)
        self._anchors = _Anchors(self._speed, self._guard, self._recovery)

    def run(self) -> Iterator[Samples]:
        count = -(-self._out // self._half) + 1
        first = self._out - (count - 1) * self._half
        batch: list[Samples] = []
        place = first - self._half
        tail: Samples | None = None
        for number in range(count):
            moment = first + number * self._half
            self._prepare(moment)
            if number == 0:
                # Verbatim, so that the sound goes on from whatever was played before this stretch.
                place = moment - self._half
            else:
                end = number == count - 1
                wanted = round(self._in if end else self._anchors.source_at(moment)) - self._half
                held = end or self._anchors.holds(moment)
                place = wanted if held else self._fitting(wanted, place + self._half)
            frame = self._sound[:, place - self._base : place - self._base + 2 * self._half] * self._window
            if tail is not None:
                piece = tail + frame[:, : self._half]
                batch.append(piece[:, max(0, self._half - moment) :])
            tail = frame[:, self._half :]
            if len(batch) == 32:
                yield np.concatenate(batch, axis=1)
                batch = []
        if batch:
            yield np.concatenate(batch, axis=1)

    def _prepare(self, moment: int) -> None:
        """Read and search for onsets as far as the window at `moment` of the result needs."""
        nearest = self._anchors.source_at(moment)
        self._forget(min(nearest, moment * self._speed) - CONTEXT * self._rate - 3 * self._guard)
        wanted = max(
            nearest + 2 * self._guard + self._half,
            (moment + self._guard + self._recovery) * self._speed + self._anchors.patience + self._half,
        )
        while self._base + self._mono.size < min(wanted, self._stop):
            start = self._base + self._mono.size
            stop = min(start + round(_BLOCK * self._rate), self._stop)
            piece = self._read(start, stop)
            # Unequal weights: channels in opposite phase do not cancel.
            weights = np.linspace(1, 0.6, piece.shape[0], dtype=np.float32)
            mono = weights @ piece / weights.sum()
            self._sound = np.concatenate([self._sound, piece], axis=1)
            self._mono = np.concatenate([self._mono, mono])
            for position, strength in self._onsets.feed(mono):
                if 0 <= position < self._in:
                    self._anchors.propose(self._sharpen(position), strength)
            self._anchors.settle(float("inf") if stop == self._stop else self._onsets.done)

    def _forget(self, before: float) -> None:
        surplus = int(before) - self._base
        if surplus > self._rate:
            self._sound = self._sound[:, surplus:].copy()
            self._mono = self._mono[surplus:].copy()
            self._base += surplus

    def _sharpen(self, position: int) -> int:
        """The sample at which the onset near `position` begins."""
        step = self._rate // 1000 + 1
        low = max(0, position - step - self._base)
        slope = np.abs(np.diff(self._mono[low : position + 3 * step - self._base]))
        if not slope.size:
            return position
        return self._base + low + int(np.argmax(slope >= 0.5 * slope.max()))

    def _fitting(self, wanted: int, natural: int) -> int:
        """The place within reach of `wanted` where the source is most like what follows at `natural`."""
        low = wanted - self._reach - self._base
        segment = self._mono[low : low + 2 * self._reach + self._half]
        follow = self._mono[natural - self._base : natural - self._base + self._half]
        energy = float(follow @ follow)
        if segment.size < 2 * self._reach + self._half or energy < _FLOOR * self._half:
            return wanted
        size = 1 << (segment.size - 1).bit_length()
        product = np.fft.rfft(segment, size) * np.conj(np.fft.rfft(follow, size))
        likeness = np.fft.irfft(product, size)[: 2 * self._reach + 1]
        sums = np.concatenate([[0.0], np.cumsum(segment.astype(np.float64) ** 2)])
        energies = sums[self._half :][: likeness.size] - sums[: likeness.size]
        likeness /= np.sqrt(np.maximum(energies, 1e-12) * energy)
        # Among equals the nearest: what is steady or shapeless stays on time.
        likeness -= 0.1 * np.abs(np.arange(-self._reach, self._reach + 1)) / max(1, self._reach)
        return wanted - self._reach + int(np.argmax(likeness))


class _Anchors:
    """The map from the result's samples to the source's: the speed asked for, but verbatim around onsets."""

    def __init__(self, speed: float, guard: int, recovery: float) -> None:
        self._speed, self._guard, self._recovery = speed, guard, recovery
        self._points: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        self._held: deque[float] = deque()
        self._last = float("-inf")
        self._proposed: deque[tuple[int, float]] = deque()
        self._spacing = 2 * guard * max(1.0, speed)
        self.patience = self._spacing
        """Samples of the source after an onset that must be known before it is settled."""

    def propose(self, position: int, strength: float) -> None:
        self._proposed.append((position, strength))

    def settle(self, known: float) -> None:
        """Take or leave the onsets that have a rival no more, the source being searched up to `known`."""
        while self._proposed and self._proposed[0][0] + self.patience <= known:
            position, strength = self._proposed.popleft()
            rivals = (power for place, power in self._proposed if place - position < self._spacing)
            if position - self._last >= self._spacing and all(power < 2 * strength for power in rivals):
                self._hold(position)

    def _hold(self, position: int) -> None:
        self._last = position
        moment = position / self._speed
        begin, end = moment - self._guard, moment + self._guard
        if self._points[-1][0] > begin - self._recovery:
            # No room to come back on course between two anchors: straight from one to the other.
            if len(self._points) > 1:
                self._points.pop()
        else:
            self._points.append((begin - self._recovery, (begin - self._recovery) * self._speed))
        if begin <= 0:
            self._points.clear()
        self._points.append((begin, float(position - self._guard)))
        self._points.append((end, float(position + self._guard)))
        self._points.append((end + self._recovery, (end + self._recovery) * self._speed))
        self._held.append(moment)

    def source_at(self, moment: float) -> float:
        """Sample of the source for sample `moment` of the result; moments never go back."""
        while len(self._points) > 1 and self._points[1][0] <= moment:
            self._points.popleft()
        start, source = self._points[0]
        if len(self._points) == 1 or moment < start:
            return moment * self._speed
        end, target = self._points[1]
        return source + (target - source) * (moment - start) / (end - start)

    def holds(self, moment: float) -> bool:
        """True where the source is copied verbatim."""
        while self._held and self._held[0] < moment - self._guard:
            self._held.popleft()
        return bool(self._held) and abs(self._held[0] - moment) <= self._guard


class _Onsets:
    """Finds where sound rises steeply, a millisecond at a time."""

    def __init__(self, rate: int, start: int) -> None:
        self._hop = max(1, rate // 1000)
        self._rest = np.zeros(0, np.float32)
        self._powers = np.full((2, _PAST + _AHEAD), _FLOOR)
        self._begin = start - (_PAST + _AHEAD) * self._hop
        self._before = np.float32(0)
        self.done = start - _AHEAD * self._hop
        """Sample up to which onsets are final."""

    def feed(self, mono: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
        """Take more sound; returns position and strength of the onsets that are final now."""
        mono = np.concatenate([self._rest, mono])
        hops = mono.size // self._hop
        self._rest = mono[hops * self._hop :]
        if not hops:
            return []
        used = mono[: hops * self._hop]
        # The slope besides the sound itself: a click is seen above a loud low tone.
        slope = np.diff(used, prepend=self._before)
        self._before = used[-1]
        powers = np.stack([(each.reshape(hops, -1).astype(np.float64) ** 2).mean(axis=1) for each in (used, slope)])
        self._powers = np.concatenate([self._powers, powers], axis=1)

        sums = np.cumsum(np.pad(self._powers, ((0, 0), (1, 0))), axis=1)
        past = (sums[:, _PAST:-1] - sums[:, : -_PAST - 1]) / _PAST
        now = self._powers[:, _PAST:]
        rises = (now / (past + _FLOOR)).max(axis=0)
        found = []
        for hop in np.flatnonzero(rises[: rises.size - _AHEAD] > _RISE):
            around = rises[max(0, hop - _AHEAD) : hop + _AHEAD + 1]
            if rises[hop] >= around.max():
                found.append((self._begin + (_PAST + int(hop)) * self._hop, float(now[:, hop].max())))
        surplus = self._powers.shape[1] - _PAST - _AHEAD
        self._powers = self._powers[:, surplus:]
        self._begin += surplus * self._hop
        self.done = self._begin + _PAST * self._hop
        return found
