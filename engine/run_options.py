"""Options of where jobs run, of batches and of commands, declared as those of a `Job` are."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from math import inf
from typing import Any

from keyscale.engine import forms, quantities
from keyscale.engine.choices import Fallback, ProgressKind, Reference
from keyscale.engine.job import NOT_MEANT
from keyscale.engine.options import check_fields, option
from keyscale.engine.wording import say

__all__ = [
    "MODAL_ENABLED",
    "BatchRequest",
    "CompareRequest",
    "PreviewOutput",
    "RemoteOptions",
    "StillOutput",
    "Terminal",
]

MODAL_ENABLED = "MODAL_ENABLED"
"""The variable that says whether jobs run remotely where nothing else does."""


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """Where a job's chunks are made, and how if that is not here."""

    remote: bool = option(
        False,
        "Run on Modal GPUs through object storage, or on this machine. "
        f"By default {MODAL_ENABLED} decides, else this machine.",
        "Running",
        opposite="local",
        per_clip=False,
        variables=(MODAL_ENABLED,),
        docs="make the chunks on Modal GPUs, or here; see [remote.md](remote.md)",
        python="Make the chunks on Modal GPUs. The environment variable MODAL_ENABLED is for commands alone.",
        default_docs="`--local`, or by `MODAL_ENABLED`",
    )
    containers: int | None = option(
        None,
        "With {remote}: most containers at once; by default what the deployment allows.",
        "Running",
        name="remote_containers",
        per_clip=False,
        between=(1, 1000),
        remedy="Give 1 to 1000, or leave it out.",
        docs="with `--remote`: most containers at once",
        default_docs="what the deployment allows",
    )
    fallback: Fallback = option(
        Fallback.NONE,
        "With {remote}: if chunks cannot be made there, fail, or make them here.",
        "Running",
        name="remote_fallback",
        per_clip=False,
        docs="with `--remote`: if chunks cannot be made there, fail, or make them here",
    )
    deadline: float | None = option(
        None,
        "With {remote}: finish the chunks within this time, in as few containers as possible.",
        "Running",
        name="remote_deadline",
        metavar="MINUTES",
        per_clip=False,
        between=(0, inf),
        remedy="Give minutes, such as 10.",
        docs="with `--remote`: finish the chunks within this time, in as few containers as possible",
        default_docs="none: as many containers as allowed",
    )
    max_cost: float | None = option(
        None,
        "With {remote}: start nothing that would bring the cost above this.",
        "Running",
        metavar="DOLLARS",
        per_clip=False,
        between=(0, inf),
        remedy="Give dollars, such as 2.50.",
        docs="with `--remote`: start nothing that would bring the cost above this",
        default_docs="none",
    )

    max_queue: float = option(
        1800.0,
        "With {remote}: give up after waiting this long for a GPU.",
        "Running",
        metavar="SECONDS",
        per_clip=False,
        between=(1, 86400),
        docs="with `--remote`: give up once every call has waited this long for a GPU",
        default_docs="1800",
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def deadline_s(self) -> float | None:
        """Seconds within which the chunks are to be made."""
        return None if self.deadline is None else self.deadline * 60

    @property
    def fallback_local(self) -> bool:
        """Whether to make here what cannot be made there, and say so."""
        return self.fallback is Fallback.LOCAL


def _overwrite(help: str) -> Any:  # noqa: A002 - as of `option`
    return option(False, help, "Output", short="y", opposite="", no_setting=NOT_MEANT)


def _shown_in(help: str, **more: Any) -> Any:  # noqa: A002 - as of `option`
    remedy = say("Name a file, or leave {output} out.")
    no_setting = "it names the result of a single run"
    return option(None, help, "Output", form=forms.Path(), short="o", remedy=remedy, no_setting=no_setting, **more)


def _input(default: Any, help: str, **more: Any) -> Any:  # noqa: A002 - as of `option`
    return option(default, help, "", form=forms.Path(), no_setting="inputs are named on the command line", **more)


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What a batch is asked for beside its inputs and what holds for each clip."""

    keyframes_dir: str | None = option(
        None,
        "Folder of the keyframes files, with the same subfolders; by default beside the videos.",
        "Input",
        form=forms.Path(),
        metavar="FOLDER",
        remedy="Give a path; '.' is the current folder.",
        docs="folder of the keyframes files, with the same subfolders",
        default_docs="beside the videos",
    )
    recursive: bool = option(False, "Include subfolders; the results mirror them.", "Input", short="r")
    whole_frame: bool = option(
        False, "Use the whole picture of videos without a keyframes file; otherwise that is an error.", "Input"
    )
    watch: bool = option(
        False,
        "Keep watching for new videos, until Ctrl-C or SIGTERM.",
        "Input",
        opposite="",
        no_setting="a command that is expected to end would not",
    )
    output: str = option(
        MISSING,
        "Folder of the results. What was made from the same source, camera and settings is skipped.",
        "Output",
        form=forms.Path(),
        short="o",
        metavar="FOLDER",
        required=True,
        remedy="Give a path; '.' is the current folder.",
        no_setting="it names the result of a single run",
        default_docs="required",
    )
    report: str | None = option(
        None,
        "Outcome of every clip, as JSON; by default report.json in the output folder.",
        "Output",
        form=forms.Path(),
        remedy="Give a path; '.' is the current folder.",
        not_beside_inputs="it names a file that is written, and a folder of clips may be anyone's",
        docs="outcome of every clip, as JSON",
        default_docs="`report.json` in the output folder",
    )
    overwrite: bool = _overwrite("Make every clip again, and replace any existing result once the new one is verified.")
    jobs: int | None = option(
        None,
        "Worker processes (with {remote}: clips) at once, 1 to 64; by default one per GPU, or one per two CPU cores.",
        "Running",
        short="j",
        between=(1, 64),
        docs="worker processes (with `--remote`: clips) at once; 1 to 64",
        default_docs="see [below](#what-runs-at-once)",
    )
    fail_fast: bool = option(False, "Stop everything at the first clip that fails.", "Running")


@dataclass(frozen=True, kw_only=True)
class PreviewOutput:
    """What a preview is asked for beside the job that it shows."""

    output: str | None = _shown_in(
        "The preview: .png is a contact sheet, .html a page to scrub through, .mp4 a small clip. By default "
        "NAME.preview.png beside the source.",
        docs="the preview: `.png` is a contact sheet, `.html` a page, `.mp4` a small clip",
        default_docs="`NAME.preview.png` beside the source",
    )
    overwrite: bool = _overwrite("Replace an existing preview.")
    embed: bool = option(
        False,
        "In a page: embed reduced frames of the source instead of linking to it.",
        "Output",
        opposite="",
        no_setting="it is for a page that is sent elsewhere",
        docs="in a page: embed reduced frames of the source instead of linking to it, so that the page can be sent",
    )


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What a comparison is asked for beside the job that it shows."""

    video: str = _input(
        MISSING,
        "The first video: a source, or an earlier result. Alone: a result, whose source is looked for beside it.",
        metavar="VIDEO",
        required=True,
        remedy="Name the source, then the result.",
    )
    result: str | None = _input(
        None,
        "The second video; its size and frame rate are used.",
        metavar="RESULT",
        remedy="Name the result, or leave it out.",
    )
    keyframes: str | None = _input(
        None,
        "The camera that the second was made with; by default the whole picture.",
        metavar="KEYFRAMES.json",
        remedy="Name the keyframes file, or leave it out.",
    )
    output: str | None = _shown_in(
        "The comparison: .png shows details at 1:1, .html a slider, .mp4 a split screen. By default "
        "RESULT.compare.png.",
        docs="the comparison: `.png` shows details at 1:1, `.html` a slider, `.mp4` a split screen",
        default_docs="`RESULT.compare.png`",
    )
    overwrite: bool = _overwrite("Replace an existing comparison.")
    reference: Reference = option(
        Reference.NONE,
        "Which of the two is the original; PSNR is then measured against it.",
        "Output",
        no_setting="it is for a single comparison",
        docs="which of the two is the original; PSNR is then measured against it",
    )


@dataclass(frozen=True, kw_only=True)
class StillOutput:
    """What `keyscale upscale` is asked for alone."""

    still: float | None = option(
        None,
        "Make one frame instead of the clip: the one at this second of the result, as a PNG.",
        "Output",
        form=quantities.Time(),
        between=(0, inf),
        remedy="Give seconds from 0 on.",
        no_setting="it is for looking at a single frame",
        docs="`upscale` only: make one frame instead of the clip, the one at this second of the result, as a PNG",
        default_docs="none",
    )
    sample: quantities.Samples | None = option(
        None,
        "Make samples instead of the clip: 5 is five seconds of it, 3x2 three parts of two seconds.",
        "Output",
        form=quantities.Stretches(),
        no_setting="it is for looking at a part of a single result",
        docs="`upscale` only: make samples instead of the clip: `5` is five seconds of it, `3x2` three parts of two "
        "seconds each, see [below](#preview)",
        default_docs="none",
    )


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """What commands are asked for beside jobs: where defaults come from, and what is shown."""

    config: str | None = option(
        None,
        "A file of defaults; otherwise keyscale.toml beside the input. See 'keyscale config show'.",
        "Running",
        form=forms.Path(),
        remedy=say("Name a settings file, or leave {config} out."),
        variables=("KEYSCALE_CONFIG",),
        no_setting="a settings file does not name another one",
        docs="defaults for flags, see [config.md](config.md)",
        default_docs="`keyscale.toml` beside the input",
    )
    progress: ProgressKind = option(
        ProgressKind.AUTO,
        "How to show progress; json goes to stdout. auto is a bar on a terminal, else plain lines.",
        "Running",
        docs="how to show progress, see [below](#progress)",
    )
    notify: bool = option(
        False,
        "Ring the terminal's bell at the end, and ask the terminal for a notification.",
        "Running",
        docs="ring the terminal's bell at the end, and ask the terminal for a notification (OSC 9, or 777)",
    )
    on_done: str | None = option(
        None,
        "Run this command at the end, also after an error.",
        "Running",
        metavar="COMMAND",
        remedy="Give a command, or leave it out.",
        not_beside_inputs="it is a command that is run, and a folder of clips may be anyone's",
        default_docs="none",
        docs="run this shell command at the end, also after an error, with `KEYSCALE_DONE_OUTPUT`, "
        "`KEYSCALE_DONE_CODE` (the exit code) and `KEYSCALE_DONE_MESSAGE` in its environment; `plan` runs none, nor "
        "does a command whose flags are wrong",
    )
    quiet: bool = option(False, "Show only warnings, errors and the result.", "Running", short="q")
    verbose: int = option(
        0,
        "Show the time on every line; -vv also prints the traceback of an error.",
        "Running",
        short="v",
        no_setting="it is for looking into a single run",
        docs="show the time on every line; `-vv` also prints the traceback of an error",
        default_docs="off",
    )
