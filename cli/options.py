"""Options as flags: what the command line makes of the declarations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption

from keyscale.engine.forms import Model
from keyscale.engine.job import Job
from keyscale.engine.options import Option, in_panels, option, options_of
from keyscale.engine.run_options import (
    BatchRequest,
    CompareRequest,
    PreviewOutput,
    RemoteOptions,
    StillOutput,
    Terminal,
)
from keyscale.engine.wording import say

__all__ = [
    "GroupedCommand",
    "PlanOutput",
    "batch_options",
    "compare_options",
    "job_options",
    "owners",
    "parameter",
    "plan_options",
    "preview_options",
    "upscale_options",
]


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


@dataclass(frozen=True, kw_only=True)
class PlanOutput:
    """What `keyscale plan` is asked for alone."""

    json: bool = option(
        False,
        "Print the whole plan as JSON, with every frame.",
        "Running",
        opposite="",
        no_setting="the program that reads the output has to ask for its form",
        docs="`plan` only: print the whole plan as JSON, with every frame",
    )


def job_options(kind: type[Job] = Job) -> dict[str, Option]:
    """What is said of a job and of where it runs, by name."""
    return options_of(kind, RemoteOptions, Terminal)


def upscale_options(kind: type[Job] = Job) -> dict[str, Option]:
    """What `upscale` takes."""
    return options_of(kind, RemoteOptions, StillOutput, Terminal)


def plan_options(kind: type[Job] = Job) -> dict[str, Option]:
    """What `plan` takes."""
    return options_of(kind, RemoteOptions, Terminal, PlanOutput)


def batch_options(kind: type[Job] = Job) -> dict[str, Option]:
    """What `batch` takes beside its inputs: every clip has its own video, keyframes and place, and is updated."""
    own = options_of(BatchRequest)
    others = {name: each for name, each in job_options(kind).items() if name not in {"video", "keyframes", "update"}}
    return {each.name: each for each in in_panels((own | (others | own)).values())}


def preview_options(kind: type[Job] = Job) -> dict[str, Option]:
    """What `preview` takes: the output is the preview's."""
    own = options_of(PreviewOutput)
    others = {name: each for name, each in job_options(kind).items() if name != "update"}
    return {each.name: each for each in in_panels((others | own).values())}


def compare_options(kind: type[Job] = Job) -> dict[str, Option]:
    """What `compare` takes: two videos, and of the job between them what decides what it shows."""
    own = options_of(CompareRequest)
    others = {name: each for name, each in options_of(kind, Terminal).items() if name not in {"update", *own}}
    return {each.name: each for each in in_panels((own | others).values())}


def owners(flag: str) -> dict[str, Option]:
    """The commands that have a flag, each with what it means there.

    Args:
        flag: with its dashes; a switch's contrary and a short flag are found too.
    """
    kinds = {
        "upscale": upscale_options(),
        "batch": batch_options(),
        "plan": plan_options(),
        "preview": preview_options(),
        "compare": compare_options(),
    }
    return {
        command: each
        for command, declared in kinds.items()
        for each in declared.values()
        if each.panel and flag in {f"--{each.key}", f"--{each.contrary or each.key}", f"-{each.short or each.key}"}
    }


def parameter(each: Option) -> TyperArgument | TyperOption:
    """The parameter of a command that an option is. It only takes the text; `Option.read` says what that means."""
    about = str(say(each.help))

    def complete(ctx: Any, args: list[str], incomplete: str) -> list[str]:  # noqa: ARG001 - Typer passes it
        from keyscale.cli.completion import words_for

        return words_for(each, incomplete, ctx.params)

    if not each.panel:
        return TyperArgument(
            param_decls=[each.name],
            type=str,
            required=each.required,
            metavar=each.metavar,
            help=about,
            show_default=False,
            autocompletion=complete,
        )
    flag = f"--{each.key}/--{each.contrary}" if each.contrary else f"--{each.key}"
    counts = each.name == "verbose"
    default = None if each.is_switch or each.required or counts else each.written(each.default)
    return TyperOption(
        param_decls=[each.name, flag, *([f"-{each.short}"] if each.short else [])],
        type=None if each.is_switch else int if counts else str,
        is_flag=True if each.is_switch else None,
        count=counts,
        multiple=isinstance(each.form, Model),
        required=each.required,
        default=(each.default is not each.is_negated) if each.is_switch else default,
        metavar="" if counts else None if each.is_switch else each.metavar or each.form.metavar,
        help=about,
        show_default=default is not None or (each.is_switch and each.default and not each.is_negated),
        envvar=list(each.variables) if each.no_setting and each.variables else None,
        show_envvar=True,
        rich_help_panel=each.panel,
        autocompletion=complete,
    )
