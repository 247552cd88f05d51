"""The flags that `upscale` and `plan` share, and what they mean as a `Job`.

The choices repeat the engine's enums: importing the engine would cost every `--help` its start-up time.
A test holds the two together.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from keyscale.cli.progress import ProgressKind

if TYPE_CHECKING:
    from keyscale.engine.job import Job

__all__ = [
    "BitDepthOption",
    "ChunkSecondsOption",
    "CodecChoice",
    "CodecOption",
    "ConfigOption",
    "CrfOption",
    "DenoiseOption",
    "DeviceOption",
    "EndOption",
    "FitChoice",
    "FitOption",
    "FpsOption",
    "GroupedCommand",
    "KeepGoingOption",
    "KeyframesArgument",
    "ModeChoice",
    "ModeOption",
    "ModelOption",
    "NoAudioOption",
    "OfflineOption",
    "OutputOption",
    "OverwriteOption",
    "PrecisionChoice",
    "PrecisionOption",
    "PresetOption",
    "ProgressOption",
    "QuietOption",
    "ResumeOption",
    "SizeOption",
    "StartOption",
    "TileOption",
    "UpdateOption",
    "VerboseOption",
    "VerifyChoice",
    "VerifyOption",
    "VideoArgument",
    "build_job",
    "default_output",
    "parse_time",
]

SMALLEST_TILE = 32


class GroupedCommand(TyperCommand):
    """A command whose help lists its flags under the headings of their panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags, a section for each heading, in the order of their declaration."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                unnamed = "Arguments" if param.param_type_name == "argument" else "Help"
                heading = getattr(param, "rich_help_panel", None) or unnamed
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class FitChoice(StrEnum):
    """`engine.job.Fit`."""

    COVER = "cover"
    CONTAIN = "contain"
    STRETCH = "stretch"


class ModeChoice(StrEnum):
    """`engine.job.Mode`."""

    FAST = "fast"
    QUALITY = "quality"


class CodecChoice(StrEnum):
    """`engine.job.Codec`."""

    AUTO = "auto"
    H264 = "h264"
    HEVC = "hevc"
    AV1 = "av1"
    PRORES = "prores"
    H264_NVENC = "h264_nvenc"
    HEVC_NVENC = "hevc_nvenc"
    AV1_NVENC = "av1_nvenc"


class PrecisionChoice(StrEnum):
    """`engine.job.Precision`."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class VerifyChoice(StrEnum):
    """`engine.job.Verify`."""

    FULL = "full"
    QUICK = "quick"


_INPUT, _FRAMING, _OUTPUT, _MODEL, _RUNNING = "Input", "Framing", "Output", "Model", "Running"

VideoArgument = Annotated[
    str,
    typer.Argument(
        metavar="VIDEO",
        help="The source video. It is only read. A name that starts with '-' goes after '--'.",
        show_default=False,
    ),
]
KeyframesArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="KEYFRAMES.json",
        help="The camera: time -> crop rectangle. Without it the whole picture is used.",
        show_default=False,
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        metavar="TIME",
        help="Begin here in the source: seconds, MM:SS or H:MM:SS.mmm.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
EndOption = Annotated[
    str | None,
    typer.Option(
        "--end",
        metavar="TIME",
        help="End here in the source, written like --start.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
KeepGoingOption = Annotated[
    bool,
    typer.Option(
        "--keep-going-on-decode-errors/--no-keep-going-on-decode-errors",
        help="Bridge source frames that cannot be decoded, and report how many; otherwise they are an error.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]

SizeOption = Annotated[
    str,
    typer.Option("--size", metavar="WxH", help="Size of the result, both even.", rich_help_panel=_FRAMING),
]
FitOption = Annotated[
    FitChoice,
    typer.Option(
        "--fit",
        case_sensitive=False,
        help="How a camera rectangle of another shape meets --size: fill it, show all with bars, or distort.",
        rich_help_panel=_FRAMING,
    ),
]
FpsOption = Annotated[
    str,
    typer.Option(
        "--fps",
        metavar="RATE",
        help="Frames a second of the result, exactly: 30, 30000/1001, 29.97 or source.",
        rich_help_panel=_FRAMING,
    ),
]

OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="The result. Without it NAME.keyscale.mp4 beside the source (.mov for ProRes). r2://BUCKET/KEY stores it "
        "there as well.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the result if it is there, once the new one is verified.",
        rich_help_panel=_OUTPUT,
    ),
]
UpdateOption = Annotated[
    bool,
    typer.Option(
        "--update",
        help="Skip the job if the result is there and came of the same source, framing and settings; make it again if "
        "keyscale made it of others.",
        rich_help_panel=_OUTPUT,
    ),
]
CodecOption = Annotated[
    CodecChoice,
    typer.Option(
        "--codec",
        case_sensitive=False,
        help="Video encoder; auto is H.264, and 10-bit HEVC for HDR sources.",
        rich_help_panel=_OUTPUT,
    ),
]
CrfOption = Annotated[
    int | None,
    typer.Option(
        "--crf",
        metavar="N",
        help="Quality, lower is better: 0-51, for AV1 0-63. Without it the mode's own.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="The encoder's own speed preset, such as medium, or 8 for AV1.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
BitDepthOption = Annotated[
    int | None,
    typer.Option(
        "--bit-depth",
        metavar="8|10",
        help="Bits a sample. Without it 8, and 10 for HDR sources.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
NoAudioOption = Annotated[
    bool,
    typer.Option("--no-audio/--audio", help="Leave the sound out.", show_default=False, rich_help_panel=_OUTPUT),
]
VerifyOption = Annotated[
    VerifyChoice,
    typer.Option(
        "--verify",
        case_sensitive=False,
        help="Check of the finished file before it gets its name: every frame, or packets and both ends.",
        rich_help_panel=_OUTPUT,
    ),
]

ModeOption = Annotated[
    ModeChoice,
    typer.Option(
        "--mode",
        case_sensitive=False,
        help="Defaults of model and encoder.",
        rich_help_panel=_MODEL,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|PATH",
        help="Another network than the mode's: a name of 'keyscale models list', or a checkpoint.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
DenoiseOption = Annotated[
    float | None,
    typer.Option(
        "--denoise",
        metavar="0..1",
        help="Strength of noise removal, for realesr-general-x4v3.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option("--offline/--no-offline", help="Never download weights.", show_default=False, rich_help_panel=_MODEL),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, mps, cuda or cuda:N.", rich_help_panel=_MODEL),
]
PrecisionOption = Annotated[
    PrecisionChoice,
    typer.Option(
        "--precision",
        case_sensitive=False,
        help="Arithmetic of the network; auto is int8 for keyscale's own on the CPU, fp16 on CUDA, else fp32.",
        rich_help_panel=_MODEL,
    ),
]
TileOption = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|N",
        help=f"Side of a tile in source pixels, {SMALLEST_TILE} or more; auto follows memory, 0 never tiles.",
        rich_help_panel=_MODEL,
    ),
]

ChunkSecondsOption = Annotated[
    float,
    typer.Option(
        "--chunk-seconds",
        metavar="S",
        help="Seconds of the result in a chunk: what a crash can cost.",
        rich_help_panel=_RUNNING,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Use chunks that an earlier run of the same job finished.",
        rich_help_panel=_RUNNING,
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="KEYSCALE_CONFIG",
        help="A file of defaults; without it keyscale.toml beside the input. 'keyscale config show' tells what holds.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]
ProgressOption = Annotated[
    ProgressKind,
    typer.Option(
        "--progress",
        case_sensitive=False,
        help="Progress on stderr, or as JSON lines on stdout; auto is a bar on a terminal, else plain lines.",
        rich_help_panel=_RUNNING,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet/--no-quiet",
        "-q",
        help="Only warnings, errors and the result.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]
VerboseOption = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        metavar="",
        help="Times on every line; -vv prints the traceback of an error too.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]

_SECONDS = re.compile(r"\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,5}):([0-5]?\d)|(\d{1,7})):([0-5]?\d(?:\.\d{0,9})?)", re.ASCII)


def parse_time(text: str, flag: str) -> float:
    """`"90"`, `"1.5"`, `"1:30"` or `"0:01:30.250"` -> seconds.

    Raises:
        UsageError: any other form; the message names `flag`.
    """
    from keyscale.engine.errors import UsageError

    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    found = _CLOCK.fullmatch(text)
    if not found:
        raise UsageError(
            f"{flag} {text!r} is not a time",
            remedy="Write seconds such as 12.5, or MM:SS, or H:MM:SS.mmm.",
        )
    hours, minutes, long_minutes, seconds = found.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or long_minutes) + float(seconds)


def default_output(video: str, codec: CodecChoice = CodecChoice.AUTO) -> str:
    """Where a job without `--output` goes: `NAME.keyscale.mp4` beside the source, `.mov` for ProRes."""
    from keyscale.engine import job as jobs

    return jobs.default_output(video, jobs.Codec(codec.value))


def _tile(text: str) -> int | None:
    from keyscale.engine.errors import UsageError

    if text.lower() == "auto":
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"--tile {text!r} is not a tile size",
            remedy=f"Give auto, 0 (never tile), or {SMALLEST_TILE} or more source pixels.",
        )
    return int(text[:9])


def build_job(
    *,
    video: str,
    keyframes: str | None = None,
    output: str | None = None,
    overwrite: bool = False,
    update: bool = False,
    size: str = "1080x1920",
    fit: FitChoice = FitChoice.COVER,
    fps: str = "30",
    start: str | None = None,
    end: str | None = None,
    mode: ModeChoice = ModeChoice.FAST,
    model: str | None = None,
    denoise: float | None = None,
    offline: bool = False,
    device: str = "auto",
    precision: PrecisionChoice = PrecisionChoice.AUTO,
    tile: str = "auto",
    codec: CodecChoice = CodecChoice.AUTO,
    crf: int | None = None,
    preset: str | None = None,
    bit_depth: int | None = None,
    no_audio: bool = False,
    chunk_seconds: float = 8.0,
    resume: bool = True,
    verify: VerifyChoice = VerifyChoice.FULL,
    keep_going: bool = False,
    publish_to: str | None = None,
) -> Job:
    """The flags as a `Job`; touches no file.

    Raises:
        UsageError: a flag's value is wrong; the message names the flag.
    """
    from keyscale.engine import job as jobs
    from keyscale.engine.job import bit_depth_of, check_job, rate_of

    trim = jobs.Trim(
        start=None if start is None else parse_time(start, "--start"),
        end=None if end is None else parse_time(end, "--end"),
    )
    width, height = jobs.parse_size(size)
    job = jobs.Job(
        source=video,
        output=output if output is not None else default_output(video, codec),
        keyframes=keyframes,
        target=jobs.Target(width=width, height=height, fit=jobs.Fit(fit.value), rate=rate_of(fps)),
        trim=trim,
        encoding=jobs.Encoding(
            codec=jobs.Codec(codec.value),
            crf=crf,
            preset=preset,
            bit_depth=bit_depth_of(bit_depth),
            audio=not no_audio,
        ),
        model=jobs.ModelChoice(mode=jobs.Mode(mode.value), name=model, denoise=denoise, offline=offline),
        compute=jobs.Compute(
            device=device.strip().lower(), precision=jobs.Precision(precision.value), tile=_tile(tile)
        ),
        chunk_seconds=chunk_seconds,
        overwrite=overwrite,
        update=update,
        resume=resume,
        verify=jobs.Verify(verify.value),
        keep_going_on_decode_errors=keep_going,
        publish_to=publish_to,
    )
    return check_job(job, start=start, end=end)
