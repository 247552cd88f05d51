"""One audio track of the source, cut and stretched to the sample as the picture is, and encoded anew.

Each stretch of the time map has its exact number of samples, so nothing adds up over a long video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.packet import Packet

from keyscale.engine.camera.timemap import TimeMap
from keyscale.engine.output.concat import Timed
from keyscale.engine.output.decode_audio import PIECE, AudioReport, AudioSource, Decoder, Tape, gapless, silence
from keyscale.engine.output.time_stretch import CONTEXT, stretched
from keyscale.engine.source.sound import MOST_MIXED, Mixer, Samples, frame_of

__all__ = ["AudioTarget", "choose_target", "encoded_audio", "mapped_audio"]

_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""What FFmpeg's AAC encoder takes; libopus is always fed 48 kHz."""
_LAYOUTS = {
    # FFmpeg's AAC encoder writes these as plain channel configurations, which every player reads.
    "aac": {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "7.1", 8: "7.1"},
    # Opus' channel mapping family 1 (RFC 7845, 5.1.1.2).
    "opus": {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"},
}
_BIT_RATES = {
    "aac": {1: 96_000, 2: 192_000, 3: 256_000, 4: 320_000, 5: 384_000, 6: 448_000, 8: 576_000},
    "opus": {1: 80_000, 2: 144_000, 3: 208_000, 4: 256_000, 5: 304_000, 6: 352_000, 7: 400_000, 8: 448_000},
}
_ENCODERS = {"aac": "aac", "opus": "libopus"}
_FORMATS = {"aac": "fltp", "opus": "flt", "pcm_s24le": "s32"}


@dataclass(frozen=True)
class AudioTarget:
    """How a track is encoded."""

    codec: str
    encoder: str
    format: str
    """Sample format of the encoder."""
    sample_rate: int
    layout: str
    bit_rate: int
    note: str
    """What of the source could not be kept, as a sentence; empty where all was."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return av.AudioLayout(self.layout).nb_channels


def choose_target(codec: str, *, sample_rate: int, layout: str) -> AudioTarget:
    """The nearest that the encoder of `codec` (`aac`, `opus`, `pcm_s24le`) takes to the source's rate and layout.

    Args:
        codec: FFmpeg's name of the codec.
        sample_rate: samples a second of the source.
        layout: as `engine.source.sound.layout_of` tells it.
    """
    channels = av.AudioLayout(layout).nb_channels
    if codec == "pcm_s24le":
        return AudioTarget(
            codec=codec,
            encoder=codec,
            format=_FORMATS[codec],
            sample_rate=sample_rate,
            layout=layout,
            bit_rate=0,
            note="",
        )
    kept = _LAYOUTS[codec].get(channels, "7.1")
    unnamed = layout == f"{channels} channels"
    rate = 48000
    if codec == "aac":
        rate = next((each for each in _RATES if each >= sample_rate), _RATES[-1])
    notes = []
    if unnamed and channels > MOST_MIXED:
        notes.append(f"of its {channels} channels the first {MOST_MIXED} are kept, as {kept}; mov and mkv hold all")
    elif kept != layout and not (unnamed and channels <= 2) and not (channels == 6 and layout.startswith("5.1")):
        notes.append(f"its channels {layout} became {kept}")
    if rate < sample_rate:
        notes.append(f"its sample rate {sample_rate} became {rate}")
    return AudioTarget(
        codec=codec,
        encoder=_ENCODERS[codec],
        format=_FORMATS[codec],
        sample_rate=rate,
        layout=kept,
        bit_rate=_BIT_RATES[codec][av.AudioLayout(kept).nb_channels],
        note=" and ".join(notes),
    )


def mapped_audio(
    source: AudioSource,
    *,
    time_map: TimeMap,
    target: AudioTarget,
    duration: Fraction,
    report: AudioReport,
    keep_going: bool = False,
) -> Iterator[Samples]:
    """The source's sound on the result's timeline.

    Args:
        source: the audio stream.
        time_map: trim and speed.
        target: its rate and layout are what comes out.
        duration: seconds of the result; sound is cut or followed by silence to be exactly as long.
        report: filled in on the way.
        keep_going: what cannot be decoded becomes silence.

    Yields:
        Pieces of sound, `round(duration * target.sample_rate)` samples in all.

    Raises:
        DecodeError: the audio cannot be decoded, unless `keep_going`.
    """
    total = round(duration * target.sample_rate)
    cut = _cut(source, time_map, target, Decoder(source, target.layout, report, keep_going=keep_going))
    if target.sample_rate != source.rate:
        cut = _resampled(cut, source.rate, target)
    done = 0
    for piece in cut:
        kept = piece[:, : total - done]
        done += kept.shape[1]
        if kept.size:
            yield kept
        if done == total:
            return
    while done < total:
        count = min(total - done, round(PIECE * target.sample_rate))
        done += count
        yield silence(target.channels, count)


def encoded_audio(pieces: Iterator[Samples], target: AudioTarget, out: AudioStream) -> Iterator[Timed]:
    """The pieces as packets of stream `out`, whose container must have written its header.

    The encoder's priming comes first, at a time below 0: the header of MP4 and Matroska tells players to skip it.
    """
    place = 0
    for piece in pieces:
        # Packed, since planar frames of eight channels cannot be filled; the encoder's context turns them.
        form = "s32" if target.format == "s32" else "flt"
        frame = frame_of(piece, layout=target.layout, rate=target.sample_rate, place=place, format=form)
        place += piece.shape[1]
        for packet in out.encode(frame):
            yield _due(packet), packet
    for packet in out.encode(None):
        yield _due(packet), packet


def _due(packet: Packet[AudioStream]) -> float:
    return float((packet.dts or 0) * packet.time_base)


def _cut(source: AudioSource, time_map: TimeMap, target: AudioTarget, decoder: Decoder) -> Iterator[Samples]:
    """The stretches one after another, at the source's rate."""
    rate = source.rate
    start = round(time_map.start * rate)
    first = start if time_map.stretches[0].speed == 1 else start - round(CONTEXT * rate)
    tape = Tape(
        gapless(decoder.from_sample(first), first, rate, target.channels),
        start=first,
        channels=target.channels,
        keep=round(4 * CONTEXT * rate),
    )
    piece = round(PIECE * rate)
    out_end = 0.0
    for stretch in time_map.stretches:
        out_start, out_end = out_end, out_end + stretch.duration
        count = round(out_end * rate) - round(out_start * rate)
        begin = round(stretch.start * rate)
        if stretch.speed == 1:
            for done in range(0, count, piece):
                yield tape.read(begin + done, begin + min(count, done + piece))
        else:
            yield from stretched(
                tape.from_position(begin),
                samples_in=round(stretch.end * rate) - begin,
                samples_out=count,
                rate=rate,
            )


def _resampled(pieces: Iterator[Samples], rate: int, target: AudioTarget) -> Iterator[Samples]:
    mixer = Mixer(target.layout, target.sample_rate)
    place = 0
    for piece in pieces:
        frame = frame_of(piece, layout=target.layout, rate=rate, place=place)
        place += piece.shape[1]
        yield from mixer.mix(frame)
    yield from mixer.mix(None)
