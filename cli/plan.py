"""`keyscale plan`: what `upscale` would do with the same flags, as a table or as JSON."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from keyscale.cli import options as opt
from keyscale.cli import remote_options as remote_opt
from keyscale.cli.progress import ProgressKind

if TYPE_CHECKING:
    from keyscale.engine.job import RemoteOptions
    from keyscale.engine.plan.describe import RemoteEstimate
    from keyscale.engine.plan.plan import Plan

__all__ = ["plan"]

JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the whole plan, every frame of it, as JSON.",
        rich_help_panel="Running",
    ),
]


def plan(
    *,
    video: opt.VideoArgument,
    keyframes: opt.KeyframesArgument = None,
    start: opt.StartOption = None,
    end: opt.EndOption = None,
    keep_going: opt.KeepGoingOption = False,
    size: opt.SizeOption = "1080x1920",
    fit: opt.FitOption = opt.FitChoice.COVER,
    fps: opt.FpsOption = "30",
    output: opt.OutputOption = None,
    overwrite: opt.OverwriteOption = False,
    update: opt.UpdateOption = False,
    codec: opt.CodecOption = opt.CodecChoice.AUTO,
    crf: opt.CrfOption = None,
    preset: opt.PresetOption = None,
    bit_depth: opt.BitDepthOption = None,
    no_audio: opt.NoAudioOption = False,
    verify: opt.VerifyOption = opt.VerifyChoice.FULL,
    mode: opt.ModeOption = opt.ModeChoice.FAST,
    model: opt.ModelOption = None,
    denoise: opt.DenoiseOption = None,
    offline: opt.OfflineOption = False,
    device: opt.DeviceOption = "auto",
    precision: opt.PrecisionOption = opt.PrecisionChoice.AUTO,
    tile: opt.TileOption = "auto",
    chunk_seconds: opt.ChunkSecondsOption = 8.0,
    resume: opt.ResumeOption = True,
    remote: remote_opt.RemoteOption = None,
    remote_containers: remote_opt.ContainersOption = None,
    remote_fallback: remote_opt.FallbackOption = remote_opt.FallbackChoice.NONE,
    max_cost: remote_opt.MaxCostOption = None,
    config: opt.ConfigOption = None,  # noqa: ARG001 - the command's class reads it
    progress: opt.ProgressOption = ProgressKind.AUTO,  # noqa: ARG001
    quiet: opt.QuietOption = False,  # noqa: ARG001
    verbose: opt.VerboseOption = 0,  # noqa: ARG001
    as_json: JsonOption = False,
) -> None:
    """Show what upscale would do with the same flags: frames, camera, model, chunks. Runs no network."""
    from keyscale.cli.progress import write_data

    is_remote = remote_opt.is_remote(remote, os.environ)
    options = remote_opt.build_remote_options(containers=remote_containers, fallback=remote_fallback, max_cost=max_cost)
    output, publish_to = remote_opt.split_output(output, video)
    job = opt.build_job(
        publish_to=publish_to,
        video=video,
        keyframes=keyframes,
        start=start,
        end=end,
        keep_going=keep_going,
        size=size,
        fit=fit,
        fps=fps,
        output=output,
        overwrite=overwrite,
        update=update,
        codec=codec,
        crf=crf,
        preset=preset,
        bit_depth=bit_depth,
        no_audio=no_audio,
        verify=verify,
        mode=mode,
        model=model,
        denoise=denoise,
        offline=offline,
        device=device,
        precision=precision,
        tile=tile,
        chunk_seconds=chunk_seconds,
        resume=resume,
    )
    # After the flags: a wrong one is answered at once.
    from keyscale.engine.runners.prepare import prepare_plan

    found = prepare_plan(job, remote=is_remote)
    expected = _remote_estimate(found, options) if is_remote else None
    if as_json:
        from keyscale.engine.plan.describe import plan_to_json

        write_data(plan_to_json(found, expected).rstrip("\n") + "\n", encoding="utf-8")
    else:
        write_data(_table(found, expected))


def _remote_estimate(found: Plan, options: RemoteOptions) -> RemoteEstimate:
    from keyscale.engine.remote.prices import affordable, check_suited, deployment_estimate, wanted_gpus

    check_suited(found, wanted_gpus(os.environ))
    expected = deployment_estimate(found, os.environ, containers=options.containers)
    affordable(expected, options.max_cost)
    return expected


def _table(found: Plan, expected: RemoteEstimate | None) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from keyscale.cli.progress import printable
    from keyscale.engine.plan.describe import summarise

    rows = [(label, printable(value)) for label, value in summarise(found, expected)]
    warnings = [printable(f"warning: {warning}") for warning in found.warnings]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label), Text(value))
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        # Whoever reads a pipe looks for a whole value on its line.
        console.width = max(80, *(len(label) + 2 + 2 * len(value) for label, value in rows), 0)
    # Captured, since Rich answers a reader that left by ending the process.
    with console.capture() as capture:
        console.print(table)
        for warning in warnings:
            console.print(Text(warning, style="yellow"), soft_wrap=True)
    return "".join(f"{line.rstrip(' ')}\n" for line in capture.get().splitlines())
