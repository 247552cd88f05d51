"""What the user asked for (`Job`) and what a run reports (`Event`): frozen data, JSON both ways.

Times are seconds of the source's own timeline, sizes are pixels. Nothing here touches a file or a network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, Literal, TypeVar

import msgspec

from keyscale.engine.errors import UsageError

__all__ = [
    "JOB_VERSION",
    "Codec",
    "Compute",
    "Done",
    "Encoding",
    "Event",
    "Failed",
    "Fit",
    "Job",
    "Mode",
    "ModelChoice",
    "Note",
    "Phase",
    "Precision",
    "Progress",
    "RemoteOptions",
    "RemoteUse",
    "Target",
    "Trim",
    "Verify",
    "dumps",
    "loads",
    "parse_rate",
    "parse_size",
]

T = TypeVar("T")

JOB_VERSION = 1
"""Schema version of `Job` and of the events; raised when a field changes its meaning."""

MAX_SIDE = 16384
"""Largest target width or height in pixels (the limit of HEVC level 6.2 and of AV1 in common decoders)."""


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


class Phase(StrEnum):
    """What a run is doing; phases follow one another in this order."""

    FETCH = "fetch"
    """Weights are downloaded; counted in bytes."""
    CONNECT = "connect"
    """Storage and the remote functions are tried, before anything is sent."""
    PREPARE = "prepare"
    """The source is hashed; counted in bytes."""
    STAGE = "stage"
    """The source goes to the object storage; counted in bytes."""
    UPSCALE = "upscale"
    JOIN = "join"
    VERIFY = "verify"
    PUBLISH = "publish"
    """The finished file goes to the object storage; counted in bytes."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the run stands; sent on change and at least every 2 s. `frame` never goes back within a phase."""

    event: Literal["progress"] = "progress"
    schema: int = JOB_VERSION
    phase: Phase
    frame: int
    """How many `unit`s are done."""
    total: int
    """How many there are; 0 while that is not known."""
    unit: Literal["frames", "bytes"] = "frames"
    fps: float | None = None
    """Units a second over the recent past, of this run alone; None until measured."""
    eta_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a person should know: the device chosen, a warning of the plan, what was resumed."""

    event: Literal["note"] = "note"
    schema: int = JOB_VERSION
    level: Literal["info", "warning"]
    message: str


@dataclass(frozen=True, kw_only=True)
class RemoteUse:
    """What a remote run took."""

    job_id: str
    containers: int
    """Different containers that made chunks."""
    gpus: tuple[str, ...]
    """Names of their GPUs, as the driver gives them; `cpu` where there was none."""
    seconds: float
    """Container seconds that were paid for chunks that came back, start-up not counted."""
    dollars: float
    """The same at list prices, see `engine.prices`, and what calls cost at most that were given up."""
    local_frames: int = 0
    """Frames that were made on this machine in the end (`--remote-fallback local`)."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The last event of a run that succeeded: the file stands under its name and was verified."""

    event: Literal["done"] = "done"
    schema: int = JOB_VERSION
    output: str
    frames: int
    seconds: float
    """Wall-clock seconds of this run."""
    resumed_frames: int
    """Frames taken from chunks that an earlier run had finished."""
    inferred_frames: int
    """Frames that went through the network in this run."""
    lost_frames: int
    """Source frames that could not be decoded and were bridged (`--keep-going-on-decode-errors`)."""
    device: str
    """Device and precision; `none` where no network ran."""
    model: str
    runtime: str = "none"
    """`torch`, `openvino`, or `none`."""
    published: str | None = None
    """Where the file stands as well, `r2://bucket/key`."""
    remote: RemoteUse | None = None
    key: str = ""
    """The job's key, see `engine.jobkey`."""
    skipped: bool = False
    """The result was there already and came of the same job: nothing was made."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The last event of a run that failed; nothing was published."""

    event: Literal["error"] = "error"
    schema: int = JOB_VERSION
    error: str
    """Class name of the error."""
    message: str
    remedy: str | None
    exit_code: int


Event = Progress | Note | Done | Failed


def _encode(value: Any) -> Any:
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _decode(kind: type, value: Any) -> Any:
    if kind is Fraction:
        return Fraction(value)
    raise TypeError(f"{kind.__name__} has no JSON form")


def dumps(value: Any) -> str:
    """One line of JSON for any of this module's dataclasses; fractions become `"30000/1001"`."""
    return msgspec.json.encode(value, enc_hook=_encode).decode()


def loads(text: str | bytes, kind: type[T]) -> T:
    """The inverse of `dumps`.

    Raises:
        UsageError: not JSON, or not the fields of `kind`.
    """
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=_decode)
    except msgspec.MsgspecError as error:
        raise UsageError(f"not a {kind.__name__}: {error}") from error


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
