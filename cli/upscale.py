"""`keyscale upscale`: flags -> `Job` -> a runner -> progress, and the finished path on stdout."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from keyscale.cli import options as opt
from keyscale.cli import remote_options as remote_opt
from keyscale.cli.progress import ProgressKind

if TYPE_CHECKING:
    from keyscale.cli.progress import Renderer
    from keyscale.engine.events import Done
    from keyscale.engine.job import Job, RemoteOptions

__all__ = ["run_job", "upscale"]

REMOTE_GRACE = 40.0
"""Seconds that a remote run has to cancel its calls and to remove what it staged; a second signal ends it at once."""


def upscale(
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
    progress: opt.ProgressOption = ProgressKind.AUTO,
    quiet: opt.QuietOption = False,
    verbose: opt.VerboseOption = 0,
) -> None:
    """Crop VIDEO along KEYFRAMES.json, upscale what the camera sees, write a verified clip."""
    from keyscale.cli.progress import renderer, write_path
    from keyscale.engine.events import failure

    with renderer(progress, quiet=quiet, verbosity=verbose) as view:
        try:
            is_remote = remote_opt.is_remote(remote, os.environ)
            options = remote_opt.build_remote_options(
                containers=remote_containers, fallback=remote_fallback, max_cost=max_cost
            )
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
            done = run_job(job, options if is_remote else None, view)
        except (Exception, KeyboardInterrupt) as error:
            # The reader of the events may be what failed.
            with contextlib.suppress(OSError):
                view.handle(failure(error))
            raise
    if progress is not ProgressKind.JSON:
        write_path(done.output)


def run_job(job: Job, remote: RemoteOptions | None, view: Renderer) -> Done:
    """Do a job, here or remotely, showing its events; signals end it cleanly.

    Raises:
        KeyscaleError: whatever failed; nothing half done has a finished name.
    """
    from keyscale.cli.progress import show_failure
    from keyscale.cli.signals import GRACE, stopping
    from keyscale.engine.errors import Interrupted
    from keyscale.engine.events import Note, failure
    from keyscale.engine.runners.local import run_local
    from keyscale.engine.runners.prepare import prepare

    how = "" if job.resume else " without --no-resume"
    remedy = f"Run the same command again{how}: finished chunks are not computed again."
    doing = "finished chunks are kept"
    if remote is not None:
        doing = "calls are cancelled and staged files removed, finished chunks are kept"

    def announce() -> None:
        view.handle(Note(level="info", message=f"stopping: {doing}"))

    def farewell(exit_code: int) -> None:
        failed = failure(Interrupted("interrupted", remedy=remedy, exit_code=exit_code))
        view.handle(failed)
        show_failure(failed)

    done: Done | None = None
    grace = GRACE if remote is None else REMOTE_GRACE
    with stopping(announce=announce, farewell=farewell, restore=view.restore, grace=grace) as state:
        if remote is None:
            events = run_local(prepare(job), state.stop)
        else:
            from keyscale.engine.remote.run import run_remote

            events = run_remote(prepare(job, remote=True), remote, state.stop)
        state.cooperative = True
        try:
            for event in events:
                view.handle(event)
                if event.event == "done":
                    done = event
        except Interrupted as error:
            error.exit_code = state.exit_code
            error.remedy = error.remedy or remedy
            raise
        finally:
            # Reached early where the view raised: the runner must not go on for a reader that left.
            state.stop.set()
            if close := getattr(events, "close", None):
                close()
    if done is None:
        raise RuntimeError("the run ended without a result")
    return done
