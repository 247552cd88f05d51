"""`keyscale batch`: folders, manifests and patterns -> jobs -> worker processes -> a table and a report."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from keyscale.cli import batch_options as batch_opt
from keyscale.cli import options as opt
from keyscale.cli import remote_options as remote_opt
from keyscale.cli.progress import ProgressKind

if TYPE_CHECKING:
    from keyscale.cli.batch_view import BatchRenderer
    from keyscale.engine.batch.clip import BatchClip
    from keyscale.engine.batch.events import BatchDone
    from keyscale.engine.batch.supervisor import BatchOptions

__all__ = ["batch"]

GRACE_S = 8.0
"""Seconds from the first signal until the process is ended by force: workers have their own, shorter ones."""
REMOTE_GRACE_S = 70.0


def batch(
    *,
    inputs: batch_opt.InputsArgument,
    keyframes_dir: batch_opt.KeyframesDirOption = None,
    recursive: batch_opt.RecursiveOption = False,
    whole_frame: batch_opt.WholeFrameOption = False,
    watch: batch_opt.WatchOption = False,
    start: opt.StartOption = None,
    end: opt.EndOption = None,
    keep_going: opt.KeepGoingOption = False,
    size: opt.SizeOption = "1080x1920",
    fit: opt.FitOption = opt.FitChoice.COVER,
    fps: opt.FpsOption = "30",
    output: batch_opt.OutputDirOption,
    report: batch_opt.ReportOption = None,
    overwrite: batch_opt.OverwriteOption = False,
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
    jobs: batch_opt.JobsOption = None,
    fail_fast: batch_opt.FailFastOption = False,
    chunk_seconds: opt.ChunkSecondsOption = 8.0,
    resume: opt.ResumeOption = True,
    remote: remote_opt.RemoteOption = None,
    remote_containers: remote_opt.ContainersOption = None,
    remote_fallback: remote_opt.FallbackOption = remote_opt.FallbackChoice.NONE,
    max_cost: remote_opt.MaxCostOption = None,
    config: opt.ConfigOption = None,  # noqa: ARG001 - the command's class has read it
    progress: opt.ProgressOption = ProgressKind.AUTO,
    quiet: opt.QuietOption = False,
    verbose: opt.VerboseOption = 0,
) -> None:
    """Crop and upscale many videos, each once; go on where an earlier run stopped."""
    from keyscale.cli.batch_view import batch_renderer
    from keyscale.engine.errors import StorageError
    from keyscale.engine.events import Note, failure

    output_dir = Path(output)
    report_path = Path(report) if report is not None else output_dir / "report.json"
    with batch_renderer(progress, quiet=quiet, verbosity=verbose, report=str(report_path)) as view:
        try:
            _check_named({"--output": output, "--keyframes-dir": keyframes_dir, "--report": report})
            is_remote = remote_opt.is_remote(remote, os.environ)
            remote_options = remote_opt.build_remote_options(
                containers=remote_containers, fallback=remote_fallback, max_cost=max_cost
            )
            flags: dict[str, Any] = {
                "start": start,
                "end": end,
                "keep_going": keep_going,
                "size": size,
                "fit": fit,
                "fps": fps,
                "overwrite": overwrite,
                "codec": codec,
                "crf": crf,
                "preset": preset,
                "bit_depth": bit_depth,
                "no_audio": no_audio,
                "verify": verify,
                "mode": mode,
                "model": model,
                "denoise": denoise,
                "offline": offline,
                "device": device,
                "precision": precision,
                "tile": tile,
                "chunk_seconds": chunk_seconds,
                "resume": resume,
            }
            found, more = _clips(
                inputs,
                output_dir,
                flags,
                on_unreadable=lambda message: view.handle(Note(level="warning", message=message)),
                watch=watch,
                keyframes_dir=keyframes_dir,
                recursive=recursive,
                whole_frame=whole_frame,
            )
            _check_places(output_dir, report_path)
            from keyscale.engine.batch.supervisor import BatchOptions

            options = BatchOptions(
                jobs=jobs,
                remote=remote_options if is_remote else None,
                fail_fast=fail_fast,
                look_for_gpus=device.strip().lower() in {"auto", "cuda"} and (model or "").lower() != "lanczos",
                report=report_path,
            )
            last = _run(found, more, options, view)
        except (Exception, KeyboardInterrupt) as error:
            # The reader of the events may be what failed.
            with contextlib.suppress(OSError):
                view.handle(failure(error))
            raise
    if last.report.failed:
        raise typer.Exit(1)
    if last.unwritten is not None:
        raise StorageError(last.unwritten.message, remedy=last.unwritten.remedy)


def _check_named(given: dict[str, str | None]) -> None:
    """An empty name would be the current folder: a script's variable is not set.

    Raises:
        UsageError: one is empty, or an address in storage.
    """
    from keyscale.engine.batch.manifest import NO_ADDRESS
    from keyscale.engine.errors import UsageError
    from keyscale.engine.job import is_address

    for flag, value in given.items():
        if value is not None and is_address(value):
            raise UsageError(f"{flag} {value} is no folder or file here", remedy=NO_ADDRESS)
        if value is not None and not value.strip():
            raise UsageError(f"{flag} is empty", remedy="Give a path; '.' is the current folder.")


def _clips(
    inputs: Sequence[str], output_dir: Path, flags: dict[str, Any], *, watch: bool, **where: Any
) -> tuple[Sequence[BatchClip], Callable[[], Sequence[BatchClip]] | None]:
    """The clips that there are, and how to ask for those that come up."""
    from keyscale.cli.batch_jobs import batch_clips
    from keyscale.engine.batch.inputs import find_clips
    from keyscale.engine.batch.outputs import Places
    from keyscale.engine.batch.watch import Watch

    places = Places(output_dir)
    if not watch:
        found = find_clips(inputs, output_dir=output_dir, **where)
        return batch_clips(found, output_dir=output_dir, flags=flags, places=places), None
    watched = Watch(inputs, output_dir=output_dir, **where)
    none_yet = batch_clips([], output_dir=output_dir, flags=flags, places=places)

    def more() -> Sequence[BatchClip]:
        settled = watched.poll(time.monotonic())
        return batch_clips(settled, output_dir=output_dir, flags=flags, places=places)

    return none_yet, more


def _check_places(output_dir: Path, report: Path) -> None:
    """Make the output folder, and make sure that results and the report can be written.

    Raises:
        StorageError, UsageError: that is not so.
    """
    import tempfile

    from keyscale.engine.batch.report import check_report_name, check_report_path
    from keyscale.engine.errors import StorageError

    check_report_name(report, output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except (OSError, RecursionError) as error:
        # pathlib goes down by one call a folder.
        reason = error.strerror if isinstance(error, OSError) else "too many folders within each other"
        raise StorageError(
            f"the output folder {output_dir} cannot be made or written to: {reason}",
            remedy="Choose another one with -o.",
        ) from error
    check_report_path(report)


def _run(
    clips: Sequence[BatchClip],
    more: Callable[[], Sequence[BatchClip]] | None,
    options: BatchOptions,
    view: BatchRenderer,
) -> BatchDone:
    """Do the batch, showing its events; signals end it cleanly. Its last event.

    Raises:
        Interrupted: a signal ended it before all was finished.
    """
    from keyscale.cli.progress import show_failure
    from keyscale.cli.signals import stopping
    from keyscale.engine.batch.supervisor import run_batch
    from keyscale.engine.errors import Interrupted
    from keyscale.engine.events import Note, failure

    remedy = "Run the same command again: what is finished is not done again."
    doing = "finished clips and chunks are kept"
    if options.remote is not None:
        doing = "calls are cancelled and staged files removed, finished clips and chunks are kept"

    def announce() -> None:
        view.handle(Note(level="info", message=f"stopping: {doing}"))

    def farewell(exit_code: int) -> None:
        failed = failure(Interrupted("interrupted", remedy=remedy, exit_code=exit_code))
        view.handle(failed)
        show_failure(failed)

    last: BatchDone | None = None
    grace = GRACE_S if options.remote is None else REMOTE_GRACE_S
    with stopping(announce=announce, farewell=farewell, restore=view.restore, grace=grace) as state:
        state.cooperative = True
        events = run_batch(clips, options, state.stop, more=more)
        try:
            for event in events:
                if event.event == "batch_done":
                    last = event
                    if last.unwritten is not None and (last.report.failed or not last.report.finished):
                        # The exit code tells of something else.
                        view.handle(Note(level="warning", message=last.unwritten.message))
                view.handle(event)
        finally:
            # Reached early where the view raised: the workers must not go on for a reader that left.
            state.stop.set()
            events.close()
        if last is None:
            raise RuntimeError("the batch ended without a report")
        if state.signum is not None and not last.report.finished:
            raise Interrupted("interrupted", remedy=remedy, exit_code=state.exit_code)
    return last
