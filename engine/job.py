"""What the user asked for (`Job`): frozen data, in which every option of a job is declared, once.

Help, headings and bounds stand with the fields; `engine.options` says who reads them. Here belongs what is wrong
whatever the source is; what of a `Job` the source does not allow, the plan finds out. Times are seconds of the source's
own timeline, sizes are pixels. Nothing here touches a file or a network.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Literal, TypeVar

from keyscale.engine import forms
from keyscale.engine.addresses import local_name
from keyscale.engine.calm import Calm
from keyscale.engine.choices import Codec, DynamicRange, Fit, Mode, Precision, Until, Verify, highest_crf
from keyscale.engine.errors import UsageError
from keyscale.engine.forms import SMALLEST_TILE
from keyscale.engine.options import check_fields, option, options_of, value_of
from keyscale.engine.target import Target, Trim
from keyscale.engine.wording import say

__all__ = [
    "CHECKPOINT_SUFFIXES",
    "JOB_VERSION",
    "NOT_MEANT",
    "SMALLEST_TILE",
    "Calm",
    "Codec",
    "Compute",
    "Encoding",
    "Fit",
    "Job",
    "Mode",
    "ModelChoice",
    "Precision",
    "Target",
    "Trim",
    "Verify",
    "check_job",
    "default_output",
]

JOB_VERSION = 1
"""Schema version of `Job` and of the events; raised when a field changes its meaning."""

CHECKPOINT_SUFFIXES = frozenset({".onnx", ".pth", ".pt", ".safetensors"})
"""Files that hold a network, or its weights."""

NOT_MEANT = "results would be replaced that nobody meant in that run"
"""Why no settings file says that results are to be replaced."""

J = TypeVar("J", bound="Job")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Encoder settings; None takes the default of mode and codec."""

    codec: Codec = option(
        Codec.AUTO,
        "Video encoder; auto is H.264, or 10-bit HEVC for HDR sources.",
        "Output",
        docs="the video encoder; `auto` is H.264, 10-bit HEVC for HDR sources, or AV1 for `.webm`",
    )
    crf: int | None = option(
        None,
        "Quality, lower is better: 0-51, for AV1 0-63. By default the mode decides.",
        "Output",
        between=(0, 63),
        remedy="Give 0 (best) to 51 (smallest), with AV1 to 63.",
        docs="quality, lower is better: 0 to 51, for AV1 0 to 63",
        default_docs="by mode",
    )
    preset: str | None = option(
        None,
        "The encoder's own speed preset, such as medium, or 8 for AV1.",
        "Output",
        metavar="NAME",
        remedy=say("Name a preset of the encoder, or leave {preset} out."),
        docs="the encoder's own preset: `medium`, for AV1 a number such as `8`, for NVENC `p1` to `p7`",
        default_docs="by mode",
    )
    bit_depth: Literal[8, 10] | None = option(
        None,
        "Bits per sample; by default 8, or 10 for HDR sources and ProRes.",
        "Output",
        docs="bits per sample",
        default_docs="8; 10 for HDR sources and ProRes",
    )
    dynamic_range: DynamicRange = option(
        DynamicRange.KEEP,
        "Of an HDR source: keep it HDR, or convert it to sdr (BT.709).",
        "Output",
        docs="of an HDR source: `keep` its PQ or HLG, or convert it to `sdr` (BT.709); see [below](#hdr)",
    )
    audio: bool = option(
        True,
        "Leave the sound out.",
        "Output",
        flag="no-audio",
        python="Keep the sound.",
        docs="leave the sound out",
        default_docs="`--audio`",
    )


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which network: the mode's own, or a registry name, or the path of a checkpoint or an ONNX file."""

    mode: Mode = option(
        Mode.FAST,
        "Network and encoder settings for speed or for quality.",
        "Model",
        docs="defaults for network and encoder: `keyscale-compact-x4` and `keyscale-compact-x2`, which are included, "
        "or `RealESRGAN_x4plus` and `RealESRGAN_x2plus`, which are downloaded",
    )
    name: str | None = option(
        None,
        "A network of your choice: a name from 'keyscale models list', a checkpoint or an ONNX file. With {sample} it "
        "may be given several times.",
        "Model",
        name="model",
        form=forms.Model(),
        metavar="NAME|PATH",
        remedy="'keyscale models list' shows the names.",
        docs="the network: a name from `keyscale models list`, or the path of a checkpoint or an ONNX file; `lanczos` "
        "resizes without one; with `--sample` several",
        default_docs="by mode",
    )
    denoise: float | None = option(
        None,
        "Strength of noise removal; for realesr-general-x4v3 only.",
        "Model",
        metavar="0..1",
        between=(0, 1),
        docs="strength of noise removal; for `--model realesr-general-x4v3` only",
        default_docs="1",
    )
    """0 keeps noise as the wdn twin does, 1 is the general network; None is 1."""
    look: float | None = option(
        None,
        "Between true to the source and sharp: natural, balanced, crisp, or 0 to 1; for keyscale's own networks only.",
        "Model",
        form=forms.Look(),
        between=(0, 1),
        remedy="Give natural, balanced, crisp, or a number from 0 to 1.",
        docs="between true to the source and sharp: `natural`, `balanced`, `crisp`, or a number from 0 (natural) to 1 "
        "(crisp); for keyscale's own networks only, see [look](look.md)",
        default_docs="`balanced`",
    )
    """Share of the crisp end in the network's weights; None is `LOOKS["balanced"]`."""
    strength: float = option(
        1.0,
        "How much of the network's picture is shown; the rest is the source, resized.",
        "Model",
        metavar="0..1",
        between=(0, 1),
        docs="how much of the network's picture is shown; the rest is the source, resized by Lanczos "
        "([look](look.md#strength))",
        default_docs="1",
    )
    offline: bool = option(False, "Never download weights.", "Model", per_clip=False)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how the network runs."""

    device: str = option(
        "auto",
        "Where the network runs: auto, gpu (any), cpu, cuda, cuda:N, mps, intel or webgpu.",
        "Model",
        form=forms.Device(),
        docs="`cpu`, or a GPU: `cuda`, `cuda:N`, `mps`, `intel` (through OpenVINO), `webgpu`, or `gpu` for the best "
        "that is there, in this order; `auto` is that or the CPU, and says why ([devices](models.md#devices))",
    )
    precision: Precision = option(
        Precision.AUTO,
        "Number format of the network; auto is the fastest that stays close to fp32.",
        "Model",
        docs="number format of the network; `auto` is the fastest that stays [close to fp32](models.md#precision): "
        "fp16 on CUDA; on a CPU int8 for keyscale's own networks, and for others bf16 or fp16 if the CPU has it, else "
        "fp32. If you name one that the device lacks, that is an error; `--model lanczos` has none",
    )
    tile: int | None = option(
        None,
        f"Side of a tile in source pixels, {SMALLEST_TILE} or more; auto depends on memory, 0 never tiles.",
        "Model",
        form=forms.Tile(),
        docs=f"side of a tile in source pixels, {SMALLEST_TILE} or more; `auto` depends on memory, 0 never tiles",
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video to make: everything the user asked for, and nothing of what the source is."""

    source: str = option(
        MISSING,
        "The source video, a file or an https:// address; it is never changed. Put '--' before a name that starts with "
        "'-'.",
        "",
        name="video",
        form=forms.Path(),
        metavar="VIDEO",
        required=True,
        per_clip=False,
        remedy="Name the source video.",
        no_setting="inputs are named on the command line",
    )
    keyframes: str | None = option(
        None,
        "The camera: which rectangle is shown when, in any supported format; - is standard input. Without it the whole "
        "picture is used, and {fit=cover} crops it to the shape of the result.",
        "",
        form=forms.Path(),
        metavar="KEYFRAMES.json",
        per_clip=False,
        remedy="Name the keyframes file, or leave it out to use the whole picture.",
        no_setting="inputs are named on the command line, or by a manifest",
    )
    output: str = option(
        MISSING,
        "The result; by default NAME.keyscale.mp4 beside the source (.mov for ProRes), or in the current folder if "
        "that is an address. With r2://BUCKET/KEY it is also stored there.",
        "Output",
        form=forms.Path(),
        short="o",
        per_clip=False,
        remedy=say("Name a file, or leave {output} out."),
        no_setting="it names the result of a single run",
        docs="the result; its extension chooses the container: `.mp4`, `.m4v`, `.mov`, `.mkv`, `.webm`. "
        "With `r2://BUCKET/KEY` it is stored there, and here under the key's last part",
        default_docs="`NAME.keyscale.mp4` beside the source (`.mov` for ProRes); of an address, in the current folder",
    )
    overwrite: bool = option(
        False,
        "Replace an existing result, once the new one is verified.",
        "Output",
        short="y",
        opposite="",
        per_clip=False,
        no_setting=NOT_MEANT,
        docs="replace an existing result, once the new one is verified; with `batch` also those that are up to date",
    )
    update: bool = option(
        False,
        "Skip the job if the result was made from the same source, camera and settings; replace it if keyscale made it "
        "from others.",
        "Output",
        opposite="",
        per_clip=False,
        no_setting=NOT_MEANT,
        docs="skip the job if the result was made from the same source, camera and settings (its key tells); replace "
        "it if keyscale made it from others. The source is read first, to compare",
    )
    target: Target = field(default_factory=Target)
    trim: Trim = field(default_factory=Trim)
    until: Until = option(
        Until.LONGEST, "If the sound outlasts the picture: hold the last frame, or cut the sound.", "Input"
    )
    encoding: Encoding = field(default_factory=Encoding)
    model: ModelChoice = field(default_factory=ModelChoice)
    calm: Calm = field(default_factory=Calm)
    compute: Compute = field(default_factory=Compute)
    chunk_seconds: float = option(
        8.0,
        "Length of a chunk in seconds of the result: the most that a crash can cost.",
        "Running",
        metavar="S",
        between=(0.1, 3600),
        docs="length of a chunk in seconds of the result: the most that an interruption can cost",
    )
    resume: bool = option(
        True,
        "Continue from the chunks that an earlier run of the same job finished.",
        "Running",
        per_clip=False,
        docs="continue from the chunks that an earlier run of the same job finished, or remove them first",
    )
    verify: Verify = option(
        Verify.FULL,
        "How to check the result before it gets its name: every frame, or only both ends.",
        "Output",
        docs="how to check the result before it gets its name: decode every frame, or compare all packets and decode "
        "two seconds at either end",
    )
    keep_going_on_decode_errors: bool = option(
        False,
        "Repeat the last good frame where the source cannot be decoded, and report it; otherwise that is an error.",
        "Input",
        docs="where the source cannot be decoded, repeat the last good frame or insert silence, and report how much "
        "was lost; otherwise that is an error that names the time",
    )
    publish_to: str | None = None
    """`r2://bucket/key` where the finished file goes as well."""
    version: int = JOB_VERSION

    def __post_init__(self) -> None:
        if self.version != JOB_VERSION:
            raise UsageError(
                f"this job is of schema version {self.version}, this program reads version {JOB_VERSION}",
                remedy="Use the same keyscale version on both sides.",
            )
        check_fields(self)


def check_job(job: J) -> J:
    """The job itself, if nothing in it is wrong whatever the source is; touches no file.

    Raises:
        UsageError: a value is wrong, or contradicts another one; the message names the option.
    """
    for each in options_of(type(job)).values():
        each.check(value_of(job, each))
    start, end = job.trim.start, job.trim.end
    if end is not None and end <= (start or 0.0):
        after = say("{start} {}", format(start, "g")) if start else "the start of the video"
        raise UsageError(
            say("{end} {} is not after {}", format(end, "g"), after), remedy=say("Give a later {end}, or leave it out.")
        )
    crf, codec = job.encoding.crf, job.encoding.codec
    top = highest_crf(codec)
    if crf is not None and top is not None and crf > top:
        raise UsageError(
            say("{crf} {} is out of range for {codec=}", crf, codec), remedy=f"Give 0 (best) to {top} (smallest)."
        )
    return job


def default_output(video: str, codec: Codec = Codec.AUTO) -> str:
    """Where a job that names no output goes: `NAME.keyscale.mp4` beside the source, `.mov` for ProRes.

    What is made of an address goes to the current folder.
    """
    source = local_name(video)
    return str(source.parent / f"{source.stem}.keyscale.{'mov' if codec is Codec.PRORES else 'mp4'}")
