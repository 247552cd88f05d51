"""`keyscale upscale`: flags -> `Job` -> the local runner -> progress, and the finished path on stdout."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from keyscale.cli import options as opt
from keyscale.cli.progress import ProgressKind

if TYPE_CHECKING:
    from keyscale.cli.progress import Renderer
    from keyscale.engine.job import Done, Job

__all__ = ["upscale"]


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
    local: opt.LocalOption = True,  # noqa: ARG001 - the only runner so far
    progress: opt.ProgressOption = ProgressKind.AUTO,
    quiet: opt.QuietOption = False,
    verbose: opt.VerboseOption = 0,
) -> None:
    """Crop VIDEO along KEYFRAMES.json, upscale what the camera sees, write a verified clip."""
    from keyscale.cli.progress import failure, renderer, write_data

    with renderer(progress, quiet=quiet, verbosity=verbose) as view:
        try:
            job = opt.build_job(
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
            done = _run(job, view)
        except (Exception, KeyboardInterrupt) as error:
            # The reader of the events may be what failed.
            with contextlib.suppress(OSError):
                view.handle(failure(error))
            raise
    if progress is not ProgressKind.JSON:
        write_data(done.output + "\n")


def _run(job: Job, view: Renderer) -> Done:
    from keyscale.cli.progress import failure, show_failure
    from keyscale.cli.signals import stopping
    from keyscale.engine.errors import Interrupted
    from keyscale.engine.job import Note
    from keyscale.engine.runners.local import prepare, run_local

    how = "" if job.resume else " without --no-resume"
    remedy = f"Run the same command again{how}: finished chunks are not computed again."

    def announce() -> None:
        view.handle(Note(level="info", message="stopping: finished chunks are kept"))

    def farewell(exit_code: int) -> None:
        failed = failure(Interrupted("interrupted", remedy=remedy, exit_code=exit_code))
        view.handle(failed)
        show_failure(failed)

    done: Done | None = None
    with stopping(announce=announce, farewell=farewell, restore=view.restore) as state:
        prepared = prepare(job)
        events = run_local(prepared, state.stop)
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
