"""One chunk's picture, encoded: RGB arrays or frames in, a closed-GOP file of one video stream out."""

from __future__ import annotations

import contextlib
import os
import struct
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.video.reformatter import VideoReformatter

from keyscale.engine.errors import EncoderError, KeyscaleError
from keyscale.engine.files import storage_error
from keyscale.engine.machine import give_back_memory
from keyscale.engine.plan.encoding import EncoderSettings
from keyscale.engine.source.colour import FULL, LIMITED, Colour, PixelArray, from_rgb
from keyscale.engine.wording import say

__all__ = [
    "ChunkWriter",
    "check_encoder",
    "chunk_suffix",
]


def chunk_suffix(settings: EncoderSettings) -> str:
    """File extension of a chunk: MP4 holds every codec but ProRes."""
    return ".mov" if settings.codec == "prores" else ".mp4"


DELAY, MOST_DELAY = 2, 16
"""Frames that a packet is decoded before it is shown: where pictures are reordered for B-frames, and at most.

For streams of a frame or two x265 4.1 now and then gives decoding times that are whatever its memory held
(-140283483736544, say), which the muxer refuses: those are not taken.
"""


class ChunkWriter:
    """Encodes frames 0, 1, 2, ... of a chunk. A context manager: an exception inside removes the file.

    Args:
        path: where to write; overwritten.
        settings: the encoder.
        colour: of the result; matrix and range are converted to, all four are tagged.
        size: width and height in pixels.
        rate: frames a second, exactly.
        mastering, light_level: HDR10 metadata as FFmpeg's raw structures, carried by x265.
        device: where networks run; with `cuda:N` NVENC encodes there too.

    Raises:
        EncoderError: the encoder is absent or refuses the settings.
        StorageError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        settings: EncoderSettings,
        colour: Colour,
        size: tuple[int, int],
        rate: Fraction,
        *,
        mastering: bytes | None = None,
        light_level: bytes | None = None,
        device: str = "cpu",
    ) -> None:
        self.path = path
        self.frames = 0
        self._packets = 0
        self._settings = settings
        self._colour = colour
        self._rate = rate
        self._reformatter = VideoReformatter()
        self._last: tuple[PixelArray | av.VideoFrame, av.VideoFrame] | None = None
        try:
            self._container = av.open(f"file:{path}", "w", format=chunk_suffix(settings)[1:])
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            more = _hdr_options(settings, mastering, light_level)
            kind, _, number = device.partition(":")
            if kind == "cuda" and number and settings.encoder.endswith("_nvenc"):
                more["gpu"] = number
            self._stream = self._open_stream(size, more)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._mux(None)
            self._container.close()
        except OSError as failure:
            self._discard()
            raise storage_error(failure, self.path) from failure
        except av.FFmpegError as failure:
            self._discard()
            raise EncoderError(f"{self._settings.encoder} failed: {failure}") from failure
        # The next chunk's encoder opens while this object still has a name: what the encoder holds must go now.
        del self._stream, self._container, self._reformatter
        self._last = None
        give_back_memory()

    def write(self, pixels: PixelArray | av.VideoFrame) -> None:
        """Append one picture: `(height, width, 3)`, uint8 or uint16 RGB, or a frame in the encoder's format.

        The same array again costs no conversion.
        """
        if self._last is None or self._last[0] is not pixels:
            self._last = (pixels, pixels if isinstance(pixels, av.VideoFrame) else self._converted(pixels))
        frame = self._last[1]
        frame.pts = self.frames
        frame.time_base = 1 / self._rate
        try:
            self._mux(frame)
        except OSError as error:
            raise storage_error(error, self.path) from error
        except av.FFmpegError as error:
            raise EncoderError(f"{self._settings.encoder} failed: {error}") from error
        self.frames += 1

    def _converted(self, pixels: PixelArray) -> av.VideoFrame:
        return from_rgb(pixels, self._colour, self._settings.pixel_format, reformatter=self._reformatter)

    def _open_stream(self, size: tuple[int, int], more: dict[str, str]) -> av.VideoStream:
        settings, colour = self._settings, self._colour
        if settings.encoder == "libsvtav1":
            # The library writes to stderr on its own, past FFmpeg's log; 1 leaves errors.
            os.environ.setdefault("SVT_LOG", "1")
        try:
            stream = self._container.add_stream(settings.encoder, rate=self._rate)
        except (ValueError, av.FFmpegError) as error:
            raise EncoderError(
                f"the encoder {settings.encoder} is not available ({error})", remedy=say("Choose another {codec}.")
            ) from error
        if not isinstance(stream, av.VideoStream):
            raise KeyscaleError(f"{settings.encoder} is not a video encoder")
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt = settings.pixel_format
        context.time_base = 1 / self._rate
        context.framerate = self._rate
        context.gop_size = settings.gop
        context.sample_aspect_ratio = Fraction(1)
        context.colorspace = colour.matrix
        context.color_range = FULL if colour.full_range else LIMITED
        context.color_primaries = colour.primaries
        context.color_trc = colour.transfer
        # PyAV has no attribute for it; every encoder of FFmpeg takes it as an option.
        siting = {"chroma_sample_location": str(colour.chroma_location)}
        context.options = {**dict(settings.options), **siting, **more}
        if settings.codec_tag is not None:
            context.codec_tag = settings.codec_tag
        stream.time_base = 1 / self._rate
        try:
            context.open()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise EncoderError(
                f"{settings.encoder} refuses these settings ({size[0]}x{size[1]}, {settings.pixel_format}, "
                f"{dict(settings.options) | more}): {error}",
                remedy=say("Choose another {codec}, or leave {crf} and {preset} out. NVENC needs a GPU that has it."),
            ) from error
        return stream

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            if packet.dts is not None and not self._packets - MOST_DELAY <= packet.dts <= self._packets:
                packet.dts = self._packets - DELAY
            self._packets += 1
            self._container.mux(packet)

    def _discard(self) -> None:
        # The failure that led here is the one to report.
        with contextlib.suppress(av.FFmpegError, OSError):
            self._container.close()
        self.path.unlink(missing_ok=True)


def check_encoder(
    settings: EncoderSettings, colour: Colour, size: tuple[int, int], rate: Fraction, folder: Path, device: str
) -> None:
    """Open the encoder once, before any long work.

    Raises:
        EncoderError: it is absent or refuses the settings.
        StorageError: `folder` cannot be written.
    """
    probe = ChunkWriter(folder / f"encoder-check{chunk_suffix(settings)}", settings, colour, size, rate, device=device)
    probe._discard()


def _hdr_options(settings: EncoderSettings, mastering: bytes | None, light_level: bytes | None) -> dict[str, str]:
    """HDR10 metadata for x265; AVMasteringDisplayMetadata holds R, G, B, white point, luminances as rationals."""
    if settings.encoder != "libx265" or not (mastering or light_level):
        return {}
    params = [dict(settings.options)["x265-params"]]
    if mastering and len(mastering) >= 88:
        numbers = struct.unpack("=22i", mastering[:88])
        values = [n / d if d else 0.0 for n, d in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
        has_primaries, has_luminance = numbers[20], numbers[21]
        if has_primaries and has_luminance:
            # x265 counts chromaticity in 0.00002 and luminance in 0.0001 cd/m2, green first.
            xy = [round(v * 50_000) for v in values[:8]]
            low, high = (round(v * 10_000) for v in values[8:10])
            red, green, blue, white = (f"({xy[i]},{xy[i + 1]})" for i in range(0, 8, 2))
            params.append(f"master-display=G{green}B{blue}R{red}WP{white}L({high},{low})")
    if light_level and len(light_level) >= 8:
        params.append("max-cll={},{}".format(*struct.unpack("=2I", light_level[:8])))
    return {"x265-params": ":".join(params)}
