"""Decoded sound as arrays, whatever its channels are: the one place that asks PyAV for layouts and planes.

PyAV 18.1 has two faults there. `AudioFrame.planes`, which `to_ndarray` and `from_ndarray` go by, runs past the eighth
plane of planar sound. An `AudioLayout` frees the channel map that it shares with the frame or the codec, where the
channels are named one by one (`chan` of QuickTime, say). Both end the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.plane import AudioPlane
from av.audio.resampler import AudioResampler

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

__all__ = ["MOST_MIXED", "Mixer", "Samples", "channels_of", "decoded_sound", "frame_of", "layout_of", "samples_of"]

Samples = npt.NDArray[np.float32]
"""`(channels, samples)`, full scale is 1."""

MOST_MIXED = 8
"""Channels without a place in the room (`16 channels`) that can be mixed to others: those of 7.1."""

_BY_COUNT = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""What channels that nobody named are taken for, where they become another number of channels."""

_NATIVE_ORDER = (
    *("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC"),
    *("TBR", "DL", "DR", "WL", "WR", "SDL", "SDR", "LFE2", "TSL", "TSR", "BFC", "BFL", "BFR", "SSL", "SSR", "TTL"),
    "TTR",
)
"""FFmpeg's names of channels in the order of its masks (libavutil/channel_layout.h)."""

_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def channels_of(stream: AudioStream) -> int:
    """How many channels an open stream says it has; 0 where it does not say."""
    return _kept(stream.codec_context.layout).nb_channels


def layout_of(sound: AudioFrame | AudioStream) -> str:
    """The layout in FFmpeg's order, which mixing and encoders know, that a frame's or a stream's channels stand for.

    Channels that are named one by one are put in order. Channels without names, or with names that say nothing of a
    room, are `N channels`.
    """
    return _placed(_kept(sound.layout))[0]


def decoded_sound(packet: Any) -> list[AudioFrame]:
    """What a packet of sound decodes to.

    Raises:
        av.FFmpegError: as PyAV does.
    """
    # One that holds nothing but a time (it ends FLAC in NUT) decoders refuse; one without a time drains them.
    if packet.size == 0 and packet.pts is not None:
        return []
    frames: list[AudioFrame] = packet.decode()
    for frame in frames:
        _kept(frame.layout)
    return frames


def samples_of(frame: AudioFrame) -> Samples:
    """The samples of a decoded frame, in the order in which its channels are stored."""
    name = frame.format.name
    kind = np.dtype(_TYPES[name.removesuffix("p")])
    channels = frame.layout.nb_channels
    if frame.format.is_planar:
        stored = np.stack([_plane(frame, channel, kind, frame.samples) for channel in range(channels)])
    else:
        stored = _plane(frame, 0, kind, frame.samples * channels).reshape(-1, channels).T
    if kind.kind == "f":
        return stored.astype(np.float32)
    middle, full = (128, 128.0) if kind.kind == "u" else (0, 2.0 ** (8 * kind.itemsize - 1))
    scaled: Samples = ((stored.astype(np.float64) - middle) / full).astype(np.float32)
    return scaled


def _plane(frame: AudioFrame, index: int, kind: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    plane: Any = AudioPlane(frame, index)  # a buffer, which the stub does not tell
    return np.frombuffer(plane, kind, count)


def frame_of(sound: Samples, *, layout: str, rate: int, place: int, format: str = "flt") -> AudioFrame:  # noqa: A002 - FFmpeg's word
    """A frame with packed samples, which encoders and resamplers take.

    Args:
        sound: the samples.
        layout: FFmpeg's name of a layout in its own order.
        rate: samples a second.
        place: number of the first sample, the frame's pts.
        format: `flt` or `s32`.
    """
    if format == "s32":
        sound = np.clip(np.rint(sound.astype(np.float64) * 2**31), -(2**31), 2**31 - 1).astype(np.int32)
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound.T.reshape(1, -1)), format=format, layout=layout)
    frame.sample_rate = rate
    frame.pts = place
    frame.time_base = Fraction(1, rate)
    return frame


class Mixer:
    """Frames of any layout and format, one after another, as samples of one layout and rate.

    Args:
        layout: FFmpeg's name of a layout in its own order.
        rate: samples a second.
    """

    def __init__(self, layout: str, rate: int) -> None:
        self._layout, self._rate = layout, rate
        self._resampler = AudioResampler("flt", layout, rate)
        self._form: tuple[str, str, int] | None = None
        self._place = 0

    def mix(self, frame: AudioFrame | None) -> Iterator[Samples]:
        """What comes of a frame; None gives what is still held back."""
        if frame is not None:
            layout, matrix = _placed(frame.layout)
            count = frame.layout.nb_channels
            if layout == f"{count} channels":
                if count == AudioLayout(self._layout).nb_channels:
                    layout = self._layout
                elif count in _BY_COUNT:
                    layout = _BY_COUNT[count]
                else:
                    layout, matrix = "7.1", np.eye(MOST_MIXED, count, dtype=np.float32)
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form != self._form:
                self._form = form
                self._resampler = AudioResampler("flt", self._layout, self._rate)
            if matrix is not None or layout != frame.layout.name:
                sound = samples_of(frame)
                mixed = sound if matrix is None else matrix @ sound
                frame = frame_of(mixed, layout=layout, rate=frame.sample_rate, place=self._place)
                self._place += frame.samples
        for part in self._resampler.resample(frame):
            yield samples_of(part)


@cache
def _mixes(layout: str) -> bool:
    """Whether FFmpeg can mix this layout, in its own order, to another."""
    silence = np.zeros((AudioLayout(layout).nb_channels, 64), np.float32)
    try:
        AudioResampler("flt", "stereo", 48000).resample(frame_of(silence, layout=layout, rate=48000, place=0))
    except av.FFmpegError:
        return False
    return True


def _placed(layout: AudioLayout) -> tuple[str, Samples | None]:
    """The layout that channels stand for, and the matrix that makes its channels of them; None where they are those."""
    name, count = layout.name, layout.nb_channels
    if name.startswith("ambisonic"):
        # Cardioids to either side of ACN's W and Y with SN3D, as RFC 8486 has them: all of the room, in two channels.
        matrix = np.zeros((2, count), np.float32)
        matrix[:, 0] = 0.5
        if count > 1:
            matrix[:, 1] = 0.5, -0.5
        return "stereo", matrix
    if count == 1:
        return "mono", None
    if " channels" not in name:
        return name, None
    names = [channel.name for channel in layout.channels] if " channels (" in name else []
    if len(set(names)) == count and set(names) <= set(_NATIVE_ORDER):
        order = sorted(range(count), key=lambda channel: _NATIVE_ORDER.index(names[channel]))
        native = AudioLayout("+".join(names[channel] for channel in order)).name
        if _mixes(native):
            return native, None if order == sorted(order) else np.eye(count, dtype=np.float32)[order]
    return f"{count} channels", None


def _kept(layout: AudioLayout) -> AudioLayout:
    """The layout; one that may have a map is never taken away, since the frame or the codec frees the map.

    That costs some 50 bytes for each frame of such sound, 10 MB in an hour.
    """
    if " channels (" in layout.name or layout.name.startswith("ambisonic"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return layout
