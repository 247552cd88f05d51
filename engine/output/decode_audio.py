"""The sound of one stream of the source as an endless tape, read by position.

Sound is placed by its timestamps, never by counting what was decoded: a gap is silence, an overlap is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.error import FFmpegError
from av.stream import Discard

from keyscale.engine.errors import DecodeError
from keyscale.engine.source.open import demuxed, open_source
from keyscale.engine.source.sound import Mixer, Samples, channels_of, decoded_sound, layout_of
from keyscale.engine.source.timeline import Retiming, Span, shifted
from keyscale.engine.wording import say

__all__ = ["PIECE", "AudioReport", "AudioSource", "Decoder", "Tape", "gapless", "measure_audio", "silence"]

PIECE = 0.5
"""Seconds of sound handled at a time."""

_JITTER = 0.010
"""Seconds by which a timestamp may miss the end of the sound before it without being believed: millisecond
containers round, capture devices tremble."""
_SEEK_FROM = 10.0
"""Seconds of source before which everything is decoded from the start."""
_RUN_UP = 1.0
"""Seconds decoded before the wanted place after a seek, for decoders that need the past."""
_MARGIN = 0.2
"""Seconds before the wanted place in which a decoding error already matters."""

Placed = tuple[int | None, Samples]
"""Sound and the position of its first sample; None where it follows what came before."""


@dataclass(frozen=True, kw_only=True)
class AudioSource:
    """An audio stream and the timeline it is placed on."""

    path: str
    index: int
    """Stream index."""
    origin: Fraction
    """Container time in seconds of the first displayed video frame: source time 0."""
    rate: int
    """Samples a second as decoded (`measure_audio`); positions count these from source time 0."""
    look_ahead: int = 0
    """Of `open_source`."""
    retiming: Retiming | None = None
    """The source's times where they are not the container's, as `VideoInfo.retiming`."""

    @property
    def seekable(self) -> bool:
        """Whether a time is found by a seek: not where it may occur twice."""
        return self.retiming is None or not self.retiming.spans


@dataclass
class AudioReport:
    """What went wrong on the way, counted while sound is decoded."""

    lost: int = 0
    """Packets that could not be decoded and became silence."""


def measure_audio(path: str, index: int, *, look_ahead: int = 0) -> tuple[int, str]:
    """Sample rate and channel layout (`layout_of`) of stream `index` as decoded, which headers of HE-AAC get wrong.

    Where nothing of it can be decoded they are what the header says. `look_ahead` is that of `open_source`.
    """
    with open_source(path, look_ahead=look_ahead) as demuxer:
        stream = _only(demuxer, index)
        try:
            for packet in demuxed(demuxer, stream):
                for frame in decoded_sound(packet):
                    return frame.sample_rate, layout_of(frame)
        except FFmpegError:
            pass
        channels = channels_of(stream)
        return stream.sample_rate or 48000, layout_of(stream) if channels else "stereo"


def silence(channels: int, count: int) -> Samples:
    """`count` samples of nothing."""
    return np.zeros((channels, count), np.float32)


class Tape:
    """Sound by position, read forward, with a little of the past kept.

    Args:
        pieces: sound without gaps and without end.
        start: position of its first sample; before it there is silence.
        channels: of each piece.
        keep: samples by which a read may go back behind the start of the one before.
    """

    def __init__(self, pieces: Iterator[Samples], *, start: int, channels: int, keep: int) -> None:
        self._pieces, self._start, self._keep = pieces, start, keep
        self._sound = silence(channels, 0)

    def read(self, start: int, stop: int) -> Samples:
        """Samples `[start, stop)`, shape `(channels, stop - start)`."""
        surplus = start - self._keep - self._start
        if surplus > self._keep:
            while surplus >= self._sound.shape[1]:
                surplus -= self._sound.shape[1]
                self._start += self._sound.shape[1]
                self._sound = next(self._pieces)
            self._sound = self._sound[:, surplus:]
            self._start += surplus
        missing = stop - self._start - self._sound.shape[1]
        if missing > 0:
            parts = [self._sound]
            while missing > 0:
                parts.append(next(self._pieces))
                missing -= parts[-1].shape[1]
            self._sound = np.concatenate(parts, axis=1)
        sound = self._sound[:, max(0, start - self._start) : max(0, stop - self._start)]
        before = stop - start - sound.shape[1]
        return np.pad(sound, ((0, 0), (before, 0))) if before else sound

    def from_position(self, zero: int) -> Callable[[int, int], Samples]:
        """`read` with positions counted from `zero`."""
        return lambda start, stop: self.read(zero + start, zero + stop)


def gapless(heard: Iterator[Placed], first: int, rate: int, channels: int) -> Iterator[Samples]:
    """Sound from position `first` on without end: silence where there is none."""
    tolerance = round(_JITTER * rate)
    piece = round(PIECE * rate)
    place = first
    begun = False
    for stated, sound in heard:
        position = place if stated is None or (begun and abs(stated - place) <= tolerance) else stated
        while position > place:
            count = min(piece, position - place)
            place += count
            yield silence(channels, count)
        fresh = sound[:, place - position :]
        if fresh.shape[1]:
            begun = True
            place += fresh.shape[1]
            yield fresh
    while True:
        yield silence(channels, piece)


class Decoder:
    """Decodes one stream to float samples of one rate and layout, each piece with its position.

    Args:
        source: the stream.
        layout: channel layout to mix to.
        report: counts what is lost.
        keep_going: skip what cannot be decoded instead of raising.
    """

    def __init__(self, source: AudioSource, layout: str, report: AudioReport, *, keep_going: bool) -> None:
        self._source, self._layout = source, layout
        self._report, self._keep_going = report, keep_going

    def from_sample(self, first: int) -> Iterator[Placed]:
        """Pieces from the one that holds position `first`, or from an earlier one.

        Raises:
            DecodeError: what is needed cannot be decoded, and `keep_going` is False.
        """
        wanted = first / self._source.rate
        if wanted > _SEEK_FROM and self._source.seekable:
            pieces = self._run(wanted, seek=True)
            lost = self._report.lost
            try:
                head = next(pieces, None)
            except DecodeError:
                # What lies between two points of synchronisation (TrueHD) may need what came before.
                head = None
            # Some containers seek badly: then everything is decoded.
            if head is not None and head[0] is not None and head[0] <= first:
                yield head
                yield from pieces
                return
            pieces.close()
            self._report.lost = lost
        yield from self._run(wanted, seek=False)

    def _run(self, wanted: float, *, seek: bool) -> Generator[Placed]:
        mixer = Mixer(self._layout, self._source.rate)
        last: tuple[Span | None, int] = None, 0
        with open_source(self._source.path, look_ahead=self._source.look_ahead) as demuxer:
            stream = _only(demuxer, self._source.index)
            if seek and stream.time_base:
                target = (Fraction(wanted - _RUN_UP) + self._source.origin) / stream.time_base
                try:
                    demuxer.seek(int(target), stream=stream)
                except FFmpegError:
                    return
            for frame, span in self._frames(demuxer, stream, wanted):
                position = self._position(frame)
                for sound in mixer.mix(frame):
                    if span is None or position is None:
                        yield position, sound
                        position = None
                        continue
                    place, kept = self._within(span, position, sound)
                    if last[0] not in (None, span) and 0 < place - last[1] <= _JITTER * self._source.rate:
                        # Where a part begins is known exactly: its time is not one that trembles.
                        yield last[1], silence(sound.shape[0], place - last[1])
                    if kept.shape[1]:
                        yield place, kept
                        last = span, place + kept.shape[1]
                    position += sound.shape[1]

    def _within(self, span: Span, position: int, sound: Samples) -> tuple[int, Samples]:
        """The sound that is heard in its part of a joined recording: what reaches over a joint is cut off."""
        rate, origin = self._source.rate, self._source.origin
        cut = min(max(0, round((span.begins - origin) * rate) - position), sound.shape[1])
        stop = sound.shape[1] if span.ends is None else max(cut, round((span.ends - origin) * rate) - position)
        return position + cut, sound[:, cut:stop]

    def _frames(
        self, demuxer: InputContainer, stream: AudioStream, wanted: float
    ) -> Iterator[tuple[AudioFrame, Span | None]]:
        packets = shifted(demuxer, stream, self._source.retiming)
        span: Span | None = None
        place = float("-inf")
        heard = False
        while True:
            frames: list[AudioFrame] = []
            try:
                following = next(packets, None)
                if following is None:
                    return
                packet, span = following
                if packet.pts is not None:
                    place = float(packet.pts * packet.time_base - self._source.origin)
                frames = decoded_sound(packet)
            except EOFError:
                return
            except FFmpegError as error:
                if place >= wanted - _MARGIN:
                    self._fail(max(place, 0.0), error, stream.codec_context.name, heard=heard)
            heard = heard or bool(frames)
            yield from ((frame, span) for frame in frames)

    def _position(self, frame: AudioFrame) -> int | None:
        if frame.pts is None or frame.time_base is None:
            return None
        return round((frame.pts * frame.time_base - self._source.origin) * self._source.rate)

    def _fail(self, place: float, error: FFmpegError, codec: str, *, heard: bool) -> None:
        if not self._keep_going:
            # A decoder that refuses a whole stream is no damage at one place.
            until = "at" if heard or place == 0 else "from its beginning to"
            raise DecodeError(
                f"audio stream {self._source.index} ({codec}) cannot be decoded {until} {place:.3f} s: "
                f"{error.strerror}",
                remedy=say(
                    "Give {keep_going_on_decode_errors=True} to have silence there, or {audio=False} to leave the "
                    "sound out; finished chunks are kept."
                ),
            ) from error
        self._report.lost += 1


def _only(demuxer: InputContainer, index: int) -> AudioStream:
    for stream in demuxer.streams:
        if stream.index != index:
            stream.discard = Discard.all
    stream = demuxer.streams[index]
    if not isinstance(stream, AudioStream):
        raise DecodeError(f"stream {index} of the source is not audio")
    return stream
