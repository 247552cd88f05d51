"""`keyscale upscale`: flags -> `Job` -> a runner -> progress, and the finished path on stdout."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from keyscale.cli.options import job_options
from keyscale.cli.progress import ProgressKind
from keyscale.cli.settings import RunCommand

if TYPE_CHECKING:
    from keyscale.cli.progress import Renderer
    from keyscale.engine.events import Done
    from keyscale.engine.job import Job
    from keyscale.engine.run_options import RemoteOptions

__all__ = ["command", "run_job", "upscale"]

REMOTE_GRACE = 40.0
"""Seconds that a remote run has to cancel its calls and to remove what it staged; a second signal ends it at once."""

_EXAMPLES = """\
Examples:

\b
  keyscale upscale talk.mp4 camera.json
  keyscale upscale talk.mp4 camera.json -o clip.mp4 --mode quality --crf 16
  keyscale upscale talk.mp4 --size 3840x2160 --fit contain --fps source

The path of the finished file is printed on stdout. After an interruption the same command goes on from the
finished chunks.
"""


def upscale(*, progress: ProgressKind, quiet: bool, verbose: int, **values: Any) -> None:
    """Crop VIDEO along KEYFRAMES.json, upscale what the camera sees, write a verified clip."""
    from keyscale.cli.progress import renderer
    from keyscale.cli.terminal import write_path
    from keyscale.engine.events import failure
    from keyscale.engine.request import request_of

    with renderer(progress, quiet=quiet, verbosity=verbose) as view:
        try:
            request = request_of(values)
            done = run_job(request.job, request.remote, view)
        except (Exception, KeyboardInterrupt) as error:
            # The reader of the events may be what failed.
            with contextlib.suppress(OSError):
                view.handle(failure(error))
            raise
    if progress is not ProgressKind.JSON:
        write_path(done.output)


def command() -> RunCommand:
    """The command with its flags."""
    return RunCommand("upscale", upscale, job_options(), epilog=_EXAMPLES)


def run_job(job: Job, remote: RemoteOptions | None, view: Renderer) -> Done:
    """Do a job, here or remotely, showing its events; signals end it cleanly.

    Raises:
        KeyscaleError: whatever failed; nothing half done has a finished name.
    """
    from keyscale.cli.apart import look_at
    from keyscale.cli.signals import GRACE, stopping
    from keyscale.cli.terminal import show_failure
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
            events = run_local(prepare(job, look=look_at()), state.stop)
        else:
            from keyscale.engine.remote.run import run_remote

            events = run_remote(prepare(job, remote=True, look=look_at()), remote, state.stop)
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
