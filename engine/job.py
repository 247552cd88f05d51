"""What the user asked for (`Job`): frozen data, how it is written, and the rules that flags and arguments share.

Here belongs what is wrong whatever the source is; what of a `Job` the source does not allow, the plan finds out.
Messages name flags, as all of the engine's do; `engine.arguments` says them in Python's words. Times are seconds of the
source's own timeline, sizes are pixels. Nothing here touches a file or a network.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Literal

from keyscale.engine.errors import UsageError

__all__ = [
    "CHECKPOINT_SUFFIXES",
    "JOB_VERSION",
    "SMALLEST_TILE",
    "Codec",
    "Compute",
    "Encoding",
    "Fit",
    "Job",
    "Mode",
    "ModelChoice",
    "Precision",
    "RemoteOptions",
    "Target",
    "Trim",
    "Verify",
    "bit_depth_of",
    "check_job",
    "checked_rate",
    "default_output",
    "is_address",
    "parse_rate",
    "parse_size",
    "rate_of",
    "remote_options",
]

JOB_VERSION = 1
"""Schema version of `Job` and of the events; raised when a field changes its meaning."""

CHECKPOINT_SUFFIXES = frozenset({".pth", ".pt", ".safetensors"})
"""Files that hold a network's weights."""

MAX_SIDE = 16384
"""Largest target width or height in pixels (the limit of HEVC level 6.2 and of AV1 in common decoders)."""

SMALLEST_TILE = 32
"""Side in source pixels; in smaller tiles the network's context is nearly all there is."""

MOST_CONTAINERS = 1000

MAX_RATE_TEXT = 32
"""Longest text of a rate."""

_DEVICE = re.compile(r"auto|cpu|mps|cuda(?::\d{1,3})?", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Fit(StrEnum):
    """How a camera rectangle of another shape meets the target."""

    COVER = "cover"
    CONTAIN = "contain"
    STRETCH = "stretch"


class Mode(StrEnum):
    """Preset of model and encoder defaults."""

    FAST = "fast"
    QUALITY = "quality"


class Codec(StrEnum):
    """Video encoder; `AUTO` is H.264, and 10-bit HEVC for HDR sources."""

    AUTO = "auto"
    H264 = "h264"
    HEVC = "hevc"
    AV1 = "av1"
    PRORES = "prores"
    H264_NVENC = "h264_nvenc"
    HEVC_NVENC = "hevc_nvenc"
    AV1_NVENC = "av1_nvenc"


class Precision(StrEnum):
    """Arithmetic of the network; `AUTO` is int8 for shipped networks on the CPU, fp16 on CUDA, and fp32 elsewhere."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class Verify(StrEnum):
    """`FULL` decodes every frame of the finished file, `QUICK` its packets and both ends."""

    FULL = "full"
    QUICK = "quick"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Size, shape and rate of the result."""

    width: int = 1080
    height: int = 1920
    fit: Fit = Fit.COVER
    rate: Fraction | None = Fraction(30)
    """Frames a second; None keeps the source's rate."""

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            if not 2 <= value <= MAX_SIDE:
                raise UsageError(
                    f"target {name} {value} is out of range",
                    remedy=f"Give --size WIDTHxHEIGHT with both sides from 2 to {MAX_SIDE}.",
                )
            if value % 2:
                raise UsageError(
                    f"target {name} {value} is odd, and 4:2:0 video has even sides only",
                    remedy=f"Use {value - 1} or {value + 1}.",
                )

    @property
    def aspect(self) -> float:
        """Width divided by height."""
        return self.width / self.height


@dataclass(frozen=True, kw_only=True)
class Trim:
    """Part of the source to use, in seconds; None is the source's own end."""

    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Encoder settings; None takes the default of mode and codec."""

    codec: Codec = Codec.AUTO
    crf: int | None = None
    """Constant rate factor (lower is better); 0-51 for H.264 and HEVC, 0-63 for AV1."""
    preset: str | None = None
    bit_depth: Literal[8, 10] | None = None
    audio: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which network: the mode's own, or a registry name, or a checkpoint's path."""

    mode: Mode = Mode.FAST
    name: str | None = None
    denoise: float | None = None
    """0 keeps noise as the wdn twin does, 1 is the general network; None is 1."""
    offline: bool = False

    def __post_init__(self) -> None:
        if self.denoise is not None and not 0 <= self.denoise <= 1:
            raise UsageError(f"--denoise {self.denoise} is out of range", remedy="Give a number from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how the network runs."""

    device: str = "auto"
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:N`."""
    precision: Precision = Precision.AUTO
    tile: int | None = None
    """Side of a tile in source pixels; None follows the memory, 0 never tiles."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video to make: everything the user asked for, and nothing of what the source is."""

    source: str
    output: str
    keyframes: str | None = None
    target: Target = field(default_factory=Target)
    trim: Trim = field(default_factory=Trim)
    encoding: Encoding = field(default_factory=Encoding)
    model: ModelChoice = field(default_factory=ModelChoice)
    compute: Compute = field(default_factory=Compute)
    chunk_seconds: float = 8.0
    overwrite: bool = False
    update: bool = False
    """A result that is there is left as it is where it came of this very job, and made anew where keyscale made it of
    another one."""
    resume: bool = True
    verify: Verify = Verify.FULL
    keep_going_on_decode_errors: bool = False
    publish_to: str | None = None
    """`r2://bucket/key` where the finished file goes as well."""
    version: int = JOB_VERSION

    def __post_init__(self) -> None:
        if self.version != JOB_VERSION:
            raise UsageError(
                f"this job is of schema version {self.version}, this program reads version {JOB_VERSION}",
                remedy="Use the same keyscale version on both sides.",
            )
        if not 0.1 <= self.chunk_seconds <= 3600:
            raise UsageError(
                f"--chunk-seconds {self.chunk_seconds} is out of range", remedy="Give 0.1 to 3600 seconds."
            )


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """How a job runs remotely."""

    containers: int | None = None
    """How many calls run at once at most; None takes what the deployment allows."""
    fallback_local: bool = False
    """Make here what cannot be made there, and say so."""
    max_cost: float | None = None
    """Dollars above which nothing is begun."""


def parse_size(text: str) -> tuple[int, int]:
    """`"1080x1920"` -> `(1080, 1920)`.

    Raises:
        UsageError: any other form.
    """
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise UsageError(f"--size {text!r} is not a size", remedy="Write WIDTHxHEIGHT, such as 1080x1920.")
    return int(width[:9]), int(height[:9])


def parse_rate(text: str) -> Fraction | None:
    """`"30"`, `"29.97"`, `"30000/1001"` -> frames a second as a fraction; `"source"` -> None.

    29.97, 23.976, 47.952, 59.94 and 119.88 are read as the NTSC rates (multiples of 1000/1001) they stand for.

    Raises:
        UsageError: not a rate, or outside 1 to 480 frames a second.
    """
    if text.lower() == "source":
        return None
    ntsc = {"23.976": 24, "23.98": 24, "29.97": 30, "47.952": 48, "47.95": 48, "59.94": 60, "119.88": 120}
    try:
        rate = Fraction(ntsc[text] * 1000, 1001) if text in ntsc else Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--fps {text!r} is not a rate", remedy="Write 30, 30000/1001 or source.") from error
    if not 1 <= rate <= 480:
        raise UsageError(f"--fps {text} is out of range", remedy="Give 1 to 480 frames a second.")
    return rate.limit_denominator(1_000_000)


def default_output(video: str, codec: Codec = Codec.AUTO) -> str:
    """Where a job that names no output goes: `NAME.keyscale.mp4` beside the source, `.mov` for ProRes."""
    source = Path(video)
    return str(source.parent / f"{source.stem}.keyscale.{'mov' if codec is Codec.PRORES else 'mp4'}")


def is_address(text: str) -> bool:
    """Whether it is written as an address, `r2://...`, and not as a file's name."""
    return _ADDRESS.match(text) is not None


def rate_of(text: str) -> Fraction | None:
    """`parse_rate` of what somebody wrote, which may be anything.

    Raises:
        UsageError: not a rate, or one that takes long to work out.
    """
    # An exponent such as 1e999999999 would be worked out digit by digit.
    if text.lower() != "source" and (len(text) > MAX_RATE_TEXT or "e" in text.lower()):
        raise UsageError(f"--fps {text[:MAX_RATE_TEXT]!r} is not a rate", remedy="Write 30, 30000/1001 or source.")
    return parse_rate(text)


def checked_rate(rate: Fraction) -> Fraction | None:
    """A rate that is a fraction already, as `parse_rate` gives it; errors as there."""
    rate = rate.limit_denominator(1_000_000)
    return parse_rate(f"{rate.numerator}/{rate.denominator}")


def bit_depth_of(bits: int | None) -> Literal[8, 10] | None:
    """Bits a sample as `Encoding` has them; raises a `UsageError` where they are not offered."""
    match bits:
        case None | 8 | 10:
            return bits
        case _:
            raise UsageError(f"--bit-depth {bits} is not offered", remedy="Give 8 or 10.")


def check_job(job: Job, *, start: str | None = None, end: str | None = None) -> Job:
    """The job itself, if nothing in it is wrong whatever the source is; touches no file.

    Args:
        job: what is asked for.
        start: how the trim's start was written, for messages; None is its seconds.
        end: the same of its end.

    Raises:
        UsageError: a value is wrong; the message names its flag.
    """
    _named(job.source, "VIDEO", "Name the source video.")
    _named(job.keyframes, "KEYFRAMES.json", "Name the keyframes file, or leave it out to use the whole picture.")
    _named(job.output, "--output", "Name a file, or leave --output out.")
    _named(job.model.name, "--model", "'keyscale models list' shows the names.")
    _named(job.encoding.preset, "--preset", "Name a preset of the encoder, or leave --preset out.")
    if not _DEVICE.fullmatch(job.compute.device):
        raise UsageError(
            f"--device {job.compute.device!r} is not a device",
            remedy="Give auto, cpu, mps, cuda, or cuda:N such as cuda:0.",
        )
    tile = job.compute.tile
    if tile is not None and tile != 0 and tile < SMALLEST_TILE:
        raise UsageError(
            f"--tile {tile} is too small",
            remedy=f"Give auto, 0 (never tile), or {SMALLEST_TILE} or more source pixels.",
        )
    _check_trim(job, start, end)
    _check_crf(job)
    return job


def remote_options(*, containers: int | None, fallback_local: bool, max_cost: float | None) -> RemoteOptions:
    """How a job runs remotely.

    Raises:
        UsageError: a value is out of range.
    """

    if containers is not None and not 1 <= containers <= MOST_CONTAINERS:
        raise UsageError(
            f"--remote-containers {containers} is out of range", remedy=f"Give 1 to {MOST_CONTAINERS}, or leave it out."
        )
    if max_cost is not None and not max_cost >= 0:
        raise UsageError(f"--max-cost {max_cost} is out of range", remedy="Give dollars, such as 2.50.")
    return RemoteOptions(containers=containers, fallback_local=fallback_local, max_cost=max_cost)


def _named(value: str | None, flag: str, remedy: str) -> None:
    if value is not None and (not value.strip() or "\0" in value):
        raise UsageError(f"{flag} is empty" if not value.strip() else f"{flag} holds a zero byte", remedy=remedy)


def _check_trim(job: Job, start: str | None, end: str | None) -> None:
    for flag, value in (("--start", job.trim.start), ("--end", job.trim.end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{flag} {value} is out of range", remedy="Give seconds from 0 on.")
    if job.trim.end is not None and job.trim.end <= (job.trim.start or 0.0):
        after = f"--start {start or format(job.trim.start, 'g')}" if job.trim.start else "the start of the video"
        raise UsageError(
            f"--end {end or format(job.trim.end, 'g')} is not after {after}",
            remedy="Give a later --end, or leave it out.",
        )


def _check_crf(job: Job) -> None:
    crf, codec = job.encoding.crf, job.encoding.codec
    # What auto comes to hangs on source and container: the plan checks it.
    top = 63 if codec in {Codec.AUTO, Codec.AV1, Codec.AV1_NVENC} else 51
    if crf is not None and not 0 <= crf <= top:
        allowed = "51 (smallest), with AV1 to 63" if codec is Codec.AUTO else f"{top} (smallest)"
        raise UsageError(f"--crf {crf} is out of range for --codec {codec}", remedy=f"Give 0 (best) to {allowed}.")
