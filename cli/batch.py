"""`keyscale batch`: folders, manifests and patterns -> jobs -> worker processes -> a table and a report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperArgument

from keyscale.cli.options import batch_options
from keyscale.cli.progress import ProgressKind, shown
from keyscale.cli.settings import RunCommand
from keyscale.engine.errors import UsageError
from keyscale.engine.options import build
from keyscale.engine.run_options import RemoteOptions

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event as StopFlag

    from keyscale.cli.progress import Renderer
    from keyscale.engine.batch.clip import BatchClip
    from keyscale.engine.batch.events import BatchDone, BatchEvent
    from keyscale.engine.batch.supervisor import BatchOptions

__all__ = ["batch", "command"]

GRACE_S = 8.0
"""Seconds from the first signal until the process is ended by force: workers have their own, shorter ones."""
REMOTE_GRACE_S = 70.0

_EXAMPLES = """\
Examples:

\b
  keyscale batch clips/ -o out/          each clips/NAME.mp4 with NAME.json
  keyscale batch clips/ -o out/ -r --mode quality --report report.json
  keyscale batch manifest.csv -o out/    columns video, keyframes, any flag
  keyscale batch inbox/ -o out/ --watch  keeps watching

Run it again to do only what is new, changed or unfinished. Exit code 1 means that some clips failed.
"""


def batch(
    *,
    inputs: Sequence[str],
    keyframes_dir: str | None,
    recursive: bool,
    whole_frame: bool,
    watch: bool,
    output: str,
    report: str | None,
    jobs: int | None,
    fail_fast: bool,
    progress: ProgressKind,
    quiet: bool,
    verbose: int,
    notify: bool,
    on_done: str | None,
    **flags: Any,
) -> None:
    """Crop and upscale many videos, each only once. Continues where an earlier run stopped."""
    from keyscale.cli.batch_progress import batch_renderer
    from keyscale.cli.notices import announced
    from keyscale.engine.errors import StorageError
    from keyscale.engine.events import Note
    from keyscale.engine.files import REPORT_NAME

    output_dir = Path(output)
    report_path = Path(report) if report is not None else output_dir / REPORT_NAME
    with announced(output, notify=notify, on_done=on_done):
        with shown(batch_renderer(progress, quiet=quiet, verbosity=verbose, report=str(report_path))) as view:
            _check_local({"output": output, "keyframes_dir": keyframes_dir, "report": report})
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

            remote = build(RemoteOptions, flags)
            options = BatchOptions(
                jobs=jobs,
                remote=remote if remote.remote else None,
                fail_fast=fail_fast,
                device="cpu" if (flags["model"] or "").lower() == "lanczos" else flags["device"],
                report=report_path,
            )
            last = _run(found, more, options, view)
        if last.report.failed:
            raise typer.Exit(1)
        if last.unwritten is not None:
            raise StorageError(last.unwritten.message, remedy=last.unwritten.remedy)


def command() -> RunCommand:
    """The command with its flags."""
    inputs = TyperArgument(
        param_decls=["inputs"],
        type=str,
        nargs=-1,
        required=True,
        metavar="FOLDER|MANIFEST|VIDEO...",
        help="Folders of videos and keyframes, manifests (.csv, .jsonl), videos, or patterns such as 'in/*.mp4'.",
        show_default=False,
    )
    return RunCommand("batch", batch, batch_options(), arguments=[inputs], epilog=_EXAMPLES)


def _check_local(given: dict[str, str | None]) -> None:
    """Raise a `UsageError` where an option is an address in storage."""
    from keyscale.engine.addresses import is_address
    from keyscale.engine.batch.manifest import NO_ADDRESS

    for name, value in given.items():
        if value is not None and is_address(value):
            raise UsageError(f"{value} is not a folder or file here", option=name, remedy=NO_ADDRESS)


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
    view: Renderer,
) -> BatchDone:
    """Do the batch, showing its events; signals end it cleanly. Its last event.

    Raises:
        Interrupted: a signal ended it before all was finished.
    """
    from keyscale.cli.signals import show_events
    from keyscale.engine.batch.supervisor import run_batch
    from keyscale.engine.errors import Interrupted
    from keyscale.engine.events import Note

    def start(stop: StopFlag) -> Generator[BatchEvent | Note, None, None]:
        with contextlib.closing(run_batch(clips, options, stop, more=more)) as events:
            for event in events:
                if event.event == "batch_done":
                    report, unwritten = event.report, event.unwritten
                    if unwritten is not None and (report.failed or not report.finished):
                        # The exit code tells of something else.
                        yield Note(level="warning", message=unwritten.message)
                yield event
        if stop.is_set() and not report.finished:
            raise Interrupted("interrupted")

    first = "" if options.remote is None else "calls are cancelled and staged files removed, "
    last = show_events(
        start,
        view,
        kept=f"{first}finished clips and chunks are kept",
        remedy="Run the same command again: what is finished is not done again.",
        grace=GRACE_S if options.remote is None else REMOTE_GRACE_S,
    )
    if last is None or last.event != "batch_done":
        raise RuntimeError("the batch ended without a report")
    return last
