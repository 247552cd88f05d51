"""The flags of `batch` beside those of `upscale`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "FailFastOption",
    "InputsArgument",
    "JobsOption",
    "KeyframesDirOption",
    "OutputDirOption",
    "OverwriteOption",
    "RecursiveOption",
    "ReportOption",
    "WatchOption",
    "WholeFrameOption",
]

_INPUT, _OUTPUT, _RUNNING = "Input", "Output", "Running"

InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="FOLDER|MANIFEST|VIDEO...",
        help="Folders of videos with their keyframes, manifests (.csv, .jsonl), videos, or patterns like 'in/*.mp4'.",
        show_default=False,
    ),
]
KeyframesDirOption = Annotated[
    str | None,
    typer.Option(
        "--keyframes-dir",
        metavar="FOLDER",
        help="Where the keyframes files are, in the same subfolders; else beside the videos.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
RecursiveOption = Annotated[
    bool,
    typer.Option(
        "--recursive/--no-recursive",
        "-r",
        help="Subfolders too; the results mirror them.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
WholeFrameOption = Annotated[
    bool,
    typer.Option(
        "--whole-frame/--no-whole-frame",
        help="Use the whole picture of a video that has no keyframes file; otherwise that is an error.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
WatchOption = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Go on for videos that come up and have stopped growing, until Ctrl-C or SIGTERM.",
        rich_help_panel=_INPUT,
    ),
]
OutputDirOption = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Where the results go. What is there and came of the same source, framing and settings is skipped.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Make every clip again and replace its result, once the new one is verified, whoever made the old one.",
        rich_help_panel=_OUTPUT,
    ),
]
ReportOption = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="What became of each clip, as JSON; else report.json in the output folder.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        max=64,
        help="Worker processes, or with --remote clips, at once; else one for each GPU, or what is fastest on the CPU.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]
FailFastOption = Annotated[
    bool,
    typer.Option(
        "--fail-fast/--no-fail-fast",
        help="Stop everything at the first clip that fails.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]
