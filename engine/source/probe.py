"""What a source file is: `VideoInfo`, header claims apart from measured values.

Times of frames are measured by reading every packet of the video stream (no decoding: a 10-minute clip takes
well under a second), and checked against frames decoded from its head. Where packets and frames are known to
differ (hidden VP8/VP9 frames, missing pts, one packet a field) the whole stream is decoded instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keyscale.engine.errors import InputError
from keyscale.engine.source.appended import beginnings_of
from keyscale.engine.source.canvas import Crop
from keyscale.engine.source.clean_aperture import clean_apertures
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.matroska import pixel_crops
from keyscale.engine.source.measure import FirstFrame, Measured, Scan, measure
from keyscale.engine.source.open import check_orientations, open_source, video_stream
from keyscale.engine.source.source_colour import check_dolby_vision, colour_of_source
from keyscale.engine.source.streams import FARTHEST, UNLISTED
from keyscale.engine.source.timeline import Retiming

__all__ = ["HeaderClaims", "Orientation", "StreamInfo", "VideoInfo", "probe"]

StreamKind = Literal["video", "audio", "subtitle", "data", "attachment", "unknown"]

LONG_GAP_SECONDS = 60
"""A step between two frames that is worth a warning."""

SLOWEST, FASTEST = Fraction(1, 1000), Fraction(1000)
"""Frames a second that a source can be taken for; beyond, its times are damaged, or no rate that an encoder takes."""

FRAMES_ONLY = frozenset({"vp8", "vp9", "av1", "gif", "png", "apng", "webp", "jpegls", "jpeg2000", "bmp", "qtrle"})
"""Codecs that know no fields."""

MOST_BETWEEN_GAPS = Fraction(120)
"""Frames a second that are believed where their mean is lower by far."""

STANDARD_RATES = tuple(
    sorted(
        [Fraction(n) for n in (5, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 144, 200, 240)]
        + [Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120, 240)]
    )
)


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """One stream of the source, as its header describes it."""

    index: int
    kind: StreamKind
    codec: str | None
    """FFmpeg's codec name (`h264`, `aac`, `mov_text`); None where no decoder is known."""
    language: str | None = None
    title: str | None = None
    attached_picture: bool = False
    """Cover art: a picture stored as a video stream."""
    default: bool = False
    sample_rate: int | None = None
    channels: int | None = None
    begins: float | None = None
    """Measured: container time in seconds of its first packet; None where that is not known or not believed."""
    ends: float | None = None
    """Measured: container time in seconds of its end, without what an encoder fills its last packet up with."""
    disordered: bool = False
    """Measured: packet times step back, as pictures do in coding order; of sound, no container takes a copy."""


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become displayed ones: transpose first, then flip."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Stored `(H, W, 3)` -> displayed, a contiguous array."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.flip_x:
            pixels = pixels[:, ::-1]
        if self.flip_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    @classmethod
    def from_matrix(cls, matrix: bytes) -> Orientation:
        """FFmpeg's display matrix: nine int32, row vectors times matrix, 16.16 fixed point.

        An angle between the quarter turns is taken for the nearest one, as players do.
        """
        a, b, _, c, d, *_ = (int(v) for v in np.frombuffer(matrix[:36], dtype=np.int32))
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, flip_x=c < 0, flip_y=b < 0)
        return cls(flip_x=a < 0, flip_y=d < 0)


@dataclass(frozen=True, kw_only=True)
class HeaderClaims:
    """What the container says about itself; none of it is relied on."""

    frames: int | None
    duration: float | None
    """Seconds."""
    average_rate: Fraction | None


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """A source as displayed: rotation and sample aspect applied, colour resolved, frames timed."""

    path: str
    container: str
    """FFmpeg's demuxer name, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
    streams: tuple[StreamInfo, ...]
    video_index: int
    codec: str
    width: int
    """Displayed width in square pixels, as a browser reports it."""
    height: int
    stored_width: int
    """Width of the decoded picture as far as it is shown, before orientation and sample aspect."""
    stored_height: int
    sample_aspect_ratio: Fraction
    orientation: Orientation
    pixel_format: str
    bit_depth: int
    colour: Colour
    interlaced: bool
    field_order: Literal["progressive", "tff", "bff", "unknown"]
    time_base: Fraction
    pts: npt.NDArray[np.int64]
    """Presentation times of the displayed frames, ascending, unique, in `time_base` units `(N,)`."""
    last_duration: int
    """Duration of the last frame in `time_base` units."""
    measured_by: Literal["packets", "decoding"]
    rate: Fraction
    """Measured between gaps, where frames are even there, else on average; on a standard rate where it is near one."""
    variable_rate: bool
    header: HeaderClaims
    damaged: int
    """Frames that were seen to be undecodable while measuring."""
    mastering: bytes | None = None
    """Raw `AVMasteringDisplayMetadata` of an HDR source."""
    light_level: bytes | None = None
    """Raw `AVContentLightMetadata` of an HDR source."""
    crop: Crop = Crop()  # noqa: RUF009 - it is frozen
    """What the container hides of the decoded picture; the codec's own cropping is done by the decoder."""
    retiming: Retiming | None = None
    """The packets' times where they are not the container's; `pts` and `origin` are of these."""
    look_ahead: int = 0
    """With which the file has to be opened (`open_source`) for all its streams to be found."""
    video_look_ahead: int = 0
    """The same for the video alone: it is opened again and again, and what is looked at is read each time."""
    beginnings: tuple[int, ...] = ()
    """Bytes at which recordings begin behind the first one, where FFmpeg does not read them by itself."""
    notes: tuple[str, ...] = field(default=())
    """Warnings about the file, for the plan."""
    frame_aspect: Fraction = Fraction(1)
    """Sample aspect ratio in the first frame itself, 1 where it says none: what others differ from where it changes."""

    @property
    def origin(self) -> Fraction:
        """Container time in seconds of the first displayed frame: second 0 of the source's own timeline."""
        return int(self.pts[0]) * self.time_base

    @property
    def duration(self) -> Fraction:
        """Seconds from the first displayed frame to the end of the last."""
        return int(self.pts[-1] - self.pts[0] + self.last_duration) * self.time_base

    @property
    def may_be_interlaced(self) -> bool:
        """Whether frames of this codec can be two fields: any of them may be, whatever the first ones are."""
        return self.codec not in FRAMES_ONLY

    @property
    def lattice(self) -> tuple[int, int]:
        """`(width, height)` of the stored picture after orientation: the pixels that the network sees."""
        if self.orientation.transpose:
            return self.stored_height, self.stored_width
        return self.stored_width, self.stored_height

    @property
    def decoded_size(self) -> tuple[int, int]:
        """`(width, height)` of the first decoded picture, before it is cropped; later ones are scaled to it."""
        crop = self.crop
        return self.stored_width + crop.left + crop.right, self.stored_height + crop.top + crop.bottom

    def times(self) -> npt.NDArray[np.float64]:
        """Seconds of each frame on the source's own timeline `(N,)`."""
        seconds: npt.NDArray[np.float64] = (self.pts - self.pts[0]) * float(self.time_base)
        return seconds


def probe(path: str | Path, *, tolerate_damage: bool = False, sound: bool = True) -> VideoInfo:
    """Read what `path` is; decodes a few frames at most, all of them for the rare streams that need it.

    Args:
        path: the file.
        tolerate_damage: use what can be read of it.
        sound: whether the sound is looked at; without, its packets are passed over.

    Raises:
        InputError: no such file, not a video, no video stream, truncated, or nothing in it can be decoded.
            With `tolerate_damage` truncation becomes a note.
    """
    scan, late = _scan(path, sound=sound)
    check_orientations(path)
    check_dolby_vision(path, scan)
    measured = measure(path, scan, tolerate_damage=tolerate_damage)
    first = measured.first_frame
    crop = _crop(path, scan, first.width, first.height)
    width, height = crop.size(first.width, first.height)
    aspect = _sample_aspect(scan, first)
    shown_width, shown_height = _displayed(width, height, aspect)
    orientation = Orientation.from_matrix(first.display_matrix) if first.display_matrix else Orientation()
    if orientation.transpose:
        shown_width, shown_height = shown_height, shown_width
    rate, variable = _rate(measured, scan)
    last = _last_duration(measured, scan, rate)
    notes = [*late, *measured.notes, *_told_of(scan, first)]
    colour = colour_of_source(path, scan, first)
    if colour.assumed:
        notes.append(f"the source names no colour matrix; {colour.describe()} as players do for {height} lines")
    gap = float(np.diff(measured.pts).max(initial=0) * scan.time_base)
    if gap > LONG_GAP_SECONDS:
        notes.append(f"one frame of the source stands for {gap:.0f} s: its times may be damaged")
    return VideoInfo(
        path=str(path),
        container=scan.container,
        streams=scan.streams(StreamInfo),
        video_index=scan.index,
        codec=scan.codec,
        width=shown_width,
        height=shown_height,
        stored_width=width,
        stored_height=height,
        crop=crop,
        sample_aspect_ratio=aspect,
        orientation=orientation,
        pixel_format=first.pixel_format,
        bit_depth=first.bit_depth,
        colour=colour,
        interlaced=measured.interlaced,
        field_order=_field_order(measured, scan.field_order),
        time_base=scan.time_base,
        pts=measured.pts,
        last_duration=last,
        measured_by=measured.by,
        rate=rate,
        variable_rate=variable,
        header=HeaderClaims(frames=scan.header_frames, duration=scan.header_duration, average_rate=scan.average_rate),
        damaged=measured.damaged,
        mastering=first.mastering,
        light_level=first.light_level,
        retiming=measured.retiming,
        look_ahead=scan.look_ahead,
        video_look_ahead=scan.video_look_ahead,
        beginnings=beginnings_of(path),
        notes=tuple(notes),
        frame_aspect=first.tags.sample_aspect or Fraction(1),
    )


def _told_of(scan: Scan, first: FirstFrame) -> list[str]:
    return [f"{words} is left out" for words in dict.fromkeys((*first.left_out, *sorted(scan.left_out)))]


def _crop(path: str | Path, scan: Scan, width: int, height: int) -> Crop:
    crops: list[Crop] = []
    if scan.is_mov:
        crops = clean_apertures(path)
    elif "matroska" in scan.container:
        crops = pixel_crops(path)
    crop = crops[scan.video_number] if scan.video_number < len(crops) else Crop()
    return crop if crop.fits(width, height) else Crop()


def _scan(path: str | Path, *, sound: bool) -> tuple[Scan, list[str]]:
    """The scan of a file in which all streams were found, and what a person should know of those that were not."""
    look_ahead = video_look_ahead = 0
    while True:
        with open_source(path, look_ahead=look_ahead) as container:
            try:
                stream = video_stream(container, path)
            except InputError:
                if look_ahead or not UNLISTED & set(container.format.name.split(",")):
                    raise
                look_ahead = video_look_ahead = min(container.size, FARTHEST)
                continue
            scan = Scan(
                container,
                stream,
                str(path),
                sound=sound,
                look_ahead=look_ahead,
                video_look_ahead=video_look_ahead,
            )
        if scan.missing <= look_ahead:
            return scan, []
        if scan.missing > FARTHEST:
            begins = f"{scan.missing / 2**20:.0f} MiB into the file"
            return scan, [f"a stream that begins {begins} is left out: remux it, so that its header lists all streams"]
        look_ahead = scan.missing


def _sample_aspect(scan: Scan, first: FirstFrame) -> Fraction:
    ratio = scan.sample_aspect_ratio
    if scan.streaming and first.tags.sample_aspect:
        # No container declares it: what was read on opening may be that of a later frame.
        ratio = first.tags.sample_aspect
    return ratio if ratio and ratio > 0 else Fraction(1)


def _displayed(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Square-pixel size; the shorter direction is stretched, as browsers do."""
    if aspect >= 1:
        return max(1, round(width * aspect)), height
    return width, max(1, round(height / aspect))


def _field_order(measured: Measured, order: int) -> Literal["progressive", "tff", "bff", "unknown"]:
    # AVFieldOrder: 2 TT, 3 BB, 4 TB, 5 BT; the second letter is the field displayed first.
    if not measured.interlaced:
        return "progressive"
    return "tff" if order in {2, 5} else "bff" if order in {3, 4} else "unknown"


def _rate(measured: Measured, scan: Scan) -> tuple[Fraction, bool]:
    """Frames a second, and whether they vary.

    Where frames follow one another evenly but for gaps (a pause, an empty chunk of AVI), it is the rate between the
    gaps, of several rates the faster one: at the mean of all some of the frames would not be shown.
    """
    pts = measured.pts
    if len(pts) < 2:
        claimed = scan.average_rate
        sane = claimed is not None and 1 <= claimed <= 480
        return (claimed if sane and claimed is not None else Fraction(25)), False
    steps = np.diff(pts)
    median = float(np.median(steps))
    # Rounding of times to a coarse time base is one tick either way.
    variable = bool(np.any(np.abs(steps - median) > max(1.5, 0.1 * median)))
    rate = Fraction(len(pts) - 1) / (int(pts[-1] - pts[0]) * scan.time_base)
    if not SLOWEST <= rate <= FASTEST:
        return min(max(rate, SLOWEST), FASTEST), True
    near = np.maximum(0.1 * steps, np.minimum(1.0, steps / 2))
    alike = np.abs(np.diff(steps)) <= near[:-1]
    steady = steps[np.append(alike, False) | np.append(False, alike)]
    if 2 * len(steady) >= len(steps) > 1:
        steady = np.sort(steady)
        usual, middle = int(steady[len(steady) // 4]), int(steady[len(steady) // 2])
        if middle - usual < 2:
            usual = middle  # a tick apart they are one step, rounded
        even = steps[np.abs(steps - usual) <= max(0.1 * usual, min(1.0, usual / 2))]
        between_gaps = Fraction(len(even)) / (int(even.sum()) * scan.time_base)
        # Bursts of frames a millisecond apart are no rate.
        if between_gaps <= max(MOST_BETWEEN_GAPS, rate * Fraction(6, 5)):
            rate = between_gaps
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    if abs(nearest - rate) <= rate / (50 if variable else 500):
        return nearest, variable
    if variable:
        return next((standard for standard in STANDARD_RATES if standard >= rate), nearest), True
    return rate.limit_denominator(100_000), False


def _last_duration(measured: Measured, scan: Scan, rate: Fraction) -> int:
    usual = float(np.median(np.diff(measured.pts))) if len(measured.pts) > 1 else float(1 / (rate * scan.time_base))
    if scan.claims_more:
        # The file is whole, so that players hold the last frame until the time that it tells.
        end = Fraction(scan.header_duration or 0).limit_denominator(1_000_000) / scan.time_base
        return max(1, round(end) - int(measured.pts[-1]))
    claimed = measured.last_duration
    # Only MP4 and MOV store durations; other demuxers guess them, sometimes as one tick.
    if claimed > 0 and (scan.is_mov or 0.5 * usual <= claimed <= 2 * usual):
        return claimed
    return max(1, round(usual))
