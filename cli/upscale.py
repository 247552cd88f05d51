"""`keyscale upscale`: flags -> `Job` -> a runner -> progress, and the finished path on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyscale.cli.options import job_options
from keyscale.cli.progress import ProgressKind
from keyscale.cli.settings import RunCommand

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event as StopFlag

    from keyscale.cli.progress import Renderer
    from keyscale.engine.events import Done, Event
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
    from keyscale.cli.apart import may_begin_anew
    from keyscale.cli.progress import renderer, shown
    from keyscale.cli.terminal import write_path
    from keyscale.engine.errors import DeviceLost
    from keyscale.engine.events import Note
    from keyscale.engine.request import request_of
    from keyscale.engine.system import run_anew

    done = None
    with shown(renderer(progress, quiet=quiet, verbosity=verbose)) as view:
        request = request_of(values)
        try:
            done = run_job(request.job, request.remote, view)
        except DeviceLost as error:
            if not may_begin_anew():
                raise
            view.handle(Note(level="warning", message=f"{error.message}: tried again in a new process"))
    if done is None:
        run_anew()  # finished chunks are kept
        return
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
    from keyscale.cli.signals import GRACE, show_events
    from keyscale.engine.runners.local import run_local
    from keyscale.engine.runners.prepare import prepare

    def start(stop: StopFlag) -> Generator[Event, None, None]:
        if remote is None:
            return run_local(prepare(job, look=look_at()), stop)
        from keyscale.engine.remote.run import run_remote

        return run_remote(prepare(job, remote=True, look=look_at()), remote, stop)

    how = "" if job.resume else " without --no-resume"
    first = "" if remote is None else "calls are cancelled and staged files removed, "
    done = show_events(
        start,
        view,
        kept=f"{first}finished chunks are kept",
        remedy=f"Run the same command again{how}: finished chunks are not computed again.",
        grace=GRACE if remote is None else REMOTE_GRACE,
    )
    if done is None or done.event != "done":
        raise RuntimeError("the run ended without a result")
    return done
