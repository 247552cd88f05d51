"""`keyscale upscale`: flags -> `Job` -> a runner -> progress, and the finished path on stdout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyscale.cli.options import upscale_options
from keyscale.cli.progress import ProgressKind
from keyscale.cli.settings import RunCommand

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event as StopFlag

    from keyscale.cli.progress import Renderer
    from keyscale.engine.events import Done, Event
    from keyscale.engine.job import Job
    from keyscale.engine.quantities import Samples
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
  keyscale upscale talk.mp4 camera.json --still 12.5   talk.12.5s.png

The path of the finished file is printed on stdout. After an interruption, run the same command again: it
continues from the finished chunks.
"""


def upscale(
    *,
    progress: ProgressKind,
    quiet: bool,
    verbose: int,
    notify: bool,
    on_done: str | None,
    still: float | None,
    sample: Samples | None,
    **values: Any,
) -> None:
    """Crop VIDEO along KEYFRAMES.json, upscale what the camera sees, and write a verified clip."""
    from keyscale.cli.apart import claim_new_process
    from keyscale.cli.notices import announced
    from keyscale.cli.progress import renderer, shown
    from keyscale.cli.source import local_source
    from keyscale.cli.terminal import write_path
    from keyscale.engine.addresses import local_name
    from keyscale.engine.errors import DeviceLost
    from keyscale.engine.events import Note
    from keyscale.engine.request import request_of
    from keyscale.engine.system import run_anew

    made = None
    with announced(values["output"] or str(local_name(values["video"])), notify=notify, on_done=on_done) as ending:
        with shown(renderer(progress, quiet=quiet, verbosity=verbose)) as view:
            try:
                if still is not None or sample is not None:
                    made = _make_part(still, sample, values, view)
                    ending.output = made[-1]
                else:
                    request = request_of(values)
                    ending.output = request.job.output
                    made = [run_job(local_source(request.job, view), request.remote, view).output]
            except DeviceLost as error:
                if not claim_new_process():
                    raise
                view.handle(Note(level="warning", message=f"{error.message}: tried again in a new process"))
        if made is None:
            run_anew()  # finished chunks are kept
            return
    if progress is not ProgressKind.JSON:
        for path in made:
            write_path(path)


def command() -> RunCommand:
    """The command with its flags."""
    return RunCommand("upscale", upscale, upscale_options(), epilog=_EXAMPLES)


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
    return _finished(done)


def _make_part(still: float | None, sample: Samples | None, values: dict[str, Any], view: Renderer) -> list[str]:
    """Make one frame of a job, or samples; the paths of what was made."""
    from keyscale.cli.apart import look_at
    from keyscale.cli.signals import show_events
    from keyscale.cli.source import local_source
    from keyscale.engine.errors import StorageError, UsageError
    from keyscale.engine.request import networks_of, request_of
    from keyscale.engine.wording import say

    if still is not None and sample is not None:
        raise UsageError(
            say("{still} makes one frame and {sample} makes clips: only one of them can be given"),
            remedy=say("Give either {still} or {sample}."),
        )
    option = "sample" if still is None else "still"
    if values["remote"]:
        raise UsageError("runs on this machine only, not on Modal", option=option, remedy=say("Give {remote=False}."))
    if values["update"]:
        raise UsageError(
            say("is always made, so {update=True} has no meaning for it"),
            option=option,
            remedy=say("Leave {update=True} out; {overwrite=True} replaces what is there."),
        )
    names = networks_of(values["model"]) if sample is not None else []
    first = {"model": names[0]} if names else {}
    request = request_of(values | first | ({} if still is None else {"output": None}))
    if request.job.publish_to is not None:
        raise UsageError(
            say("{output} {} is an address: a part of a result is made here", values["output"]),
            remedy=say("Give {output} a file's name."),
        )
    from keyscale.engine.runners.prepare import prepare_still
    from keyscale.engine.runners.sample import prepare_for_models, prepare_samples, run_samples
    from keyscale.engine.runners.still import StillRun, still_path

    paths: list[str] = []
    labels: list[str] = []
    page = None
    if names:
        output = Path(request.job.output)
        page = output.with_name(f"{output.stem}.sample.compare.html")
        if os.path.lexists(page) and not request.job.overwrite:
            raise StorageError(
                f"{page} already exists", remedy=say("Give {overwrite=True}, or another name with {output}.")
            )
    job = local_source(request.job, view)

    def start(stop: StopFlag) -> Generator[Event, None, None]:
        if still is not None:
            paths.append(still_path(values["output"], request.job.source, still))
            return StillRun(prepare_still(job, look=look_at()), stop, still, paths[0]).events()
        assert sample is not None
        if not names:
            samples = prepare_samples(job, sample, look=look_at())
        else:
            own_labels, by_model = prepare_for_models(job, names, sample, look=look_at())
            labels.extend(own_labels)
            samples = [prepared for each in by_model for prepared in each]
        paths.extend(prepared.job.output for prepared in samples)
        return run_samples(samples, stop)

    kept = "nothing is left" if still is not None else "finished chunks are kept"
    _finished(show_events(start, view, kept=kept, remedy="Run the same command again."))
    if page is not None:
        from keyscale.engine.review.compare import write_samples_page

        count = len(paths) // len(labels)
        stretches = [paths[number::count] for number in range(count)]
        write_samples_page(stretches, labels, str(page), overwrite=job.overwrite, look=look_at())
        paths.append(str(page))
    return paths


def _finished(last: Event | None) -> Done:
    if last is None or last.event != "done":
        raise RuntimeError("the run ended without a result")
    return last
