"""`keyscale remote`: the deployed functions, jobs that a client left, and what lies in storage."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyscale.cli.progress import ProgressKind, clock_text, renderer, shown
from keyscale.cli.terminal import printable, write_data, write_path

if TYPE_CHECKING:
    from datetime import datetime

    from keyscale.engine.remote.modal_client import Calls
    from keyscale.engine.remote.state import JobNote, RemoteState
    from keyscale.engine.storage.bucket import Storage

__all__ = ["app"]

app = typer.Typer(
    help="Run on Modal GPUs: deploy, status, cancel, resume, clean.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id, which the run printed.", show_default=False)
]
_AGE = re.compile(r"(\d{1,5}(?:\.\d+)?)([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.command("deploy")
def deploy() -> None:
    """Deploy this version's functions to Modal. Repeat it after every update of keyscale.

    Reads KEYSCALE_GPU (GPUs in order of preference, L4,A10,T4), KEYSCALE_CONTAINERS (most containers at once, 10),
    KEYSCALE_TIMEOUT (seconds that a chunk may take, 900; at least 6) and R2_SECRET (the Modal secret with the R2_*
    variables that process_framing_ai reads, r2-credentials; or none).
    """
    from keyscale.engine.errors import RemoteError
    from keyscale.engine.remote import prices
    from keyscale.engine.remote.modal_client import Calls

    # Where the stub itself reads them, what is wrong would come as a traceback.
    for wanted in (prices.wanted_gpus, prices.wanted_containers, prices.wanted_timeout):
        wanted(os.environ)
    Calls().check_reachable()  # `modal deploy` would try for a minute
    done = subprocess.run([sys.executable, "-m", "modal", "deploy", "-m", "keyscale.modal_stub"], check=False)
    if done.returncode:
        raise RemoteError(
            f"modal deploy failed with exit code {done.returncode}",
            remedy="See what it printed above. Credentials are set by MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or "
            "`modal setup`; a secret that is missing by `modal secret create r2-credentials` with the R2_* variables, "
            "or R2_SECRET=none does without it.",
        )


@app.command("status")
def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Show only this job.", show_default=False)] = None,
) -> None:
    """Show unfinished jobs and the state of their calls."""
    from keyscale.engine.errors import RemoteError
    from keyscale.engine.remote.modal_client import Calls
    from keyscale.engine.remote.state import all_notes, find_note, state_of

    notes = [find_note(job)] if job is not None else all_notes()
    found = [(note, state_of(note)) for note in notes]
    calls = Calls()
    unknown = None
    if any(state is not None and state.calls for _, state in found):
        try:
            calls.check_reachable()  # each call would be asked for until Modal's client gives up, a minute each
        except RemoteError as error:
            unknown = f"not known: {error.message}"
    lines = []
    for note, state in found:
        lines.append(f"{note.job_id}  {note.job.output}")
        lines += [f"    {line}" for line in _state_lines(note, state, calls, unknown)]
    if not lines:
        lines = ["no remote job is unfinished on this machine"]
    write_data("".join(f"{printable(line)}\n" for line in lines))


def _state_lines(note: JobNote, state: RemoteState | None, calls: Calls, unknown: str | None) -> list[str]:
    """What is left to do of a job, and what its calls do; `unknown` says so where Modal cannot be asked."""
    from keyscale.engine.remote.leftovers import clock_of

    lines = []
    for call in sorted(state.calls if state is not None else (), key=lambda call: call.start):
        doing = unknown or calls.state(call.id)
        if call.since and doing in {"queued", "running", "queued or running"}:
            age = clock_text(time.time() - call.since)
            doing += f" for {age}" if doing == "queued" else f", started {age} ago"
        lines.append(f"frames {call.start} to {call.end} (chunk {call.index}): {doing}")
    lines += [
        f"frames {call.start} to {call.end} (chunk {call.index}): not known: Modal never gave its id; "
        f"if it runs, it ends by {clock_of(call.until)}"
        for call in (state.unnamed if state is not None else ())
    ]
    resume, cancel = (f"`keyscale remote {way} {note.job_id}`" for way in ("resume", "cancel"))
    if note.finished:
        lines.append(f"the file is finished, only clean-up is left; {cancel} does it")
    elif note.publishing:
        if os.path.lexists(note.job.output):
            lines.append(f"the file is finished, its upload to {note.job.publish_to} is not; {resume} does it")
        else:
            lines.append(f"the finished file is gone before it was stored elsewhere; {resume} makes it anew")
    elif state is None:
        lines.append(
            f"no call is known to run; {resume} goes on from the finished chunks, {cancel} removes what is in storage"
        )
    elif not lines and state.sent:
        lines.append(f"no call runs; what was sent may be in storage; {resume} goes on, {cancel} removes it")
    elif not lines:
        lines.append(f"no call was started; the source is being sent, or was when the client ended; {resume} goes on")
    return lines


@app.command("cancel")
def cancel(job: JobArgument) -> None:
    """Stop a job's calls and remove its staged files. Finished chunks on this machine are kept."""
    from keyscale.engine.remote.leftovers import UNKNOWN_CALLS
    from keyscale.engine.remote.state import find_note, forget_note, is_damaged, is_followed
    from keyscale.engine.workspace.folder import WorkFolder

    note = find_note(job)
    damaged = is_damaged(note)
    removed = _end(note)
    if note.publishing and note.job.publish_to is not None:
        removed += _take_back(note.job.publish_to)
        WorkFolder.remove_finished(Path(note.job.output), note.publishing)
    write_data(f"{job} is cancelled, {removed} objects were removed\n")
    if is_followed(note):
        write_data("a client still works on it: it ends, and removes what it sends meanwhile\n")
    else:
        forget_note(job)
    if damaged:
        write_data(f"what was kept of it is damaged: {UNKNOWN_CALLS}\n")


def _end(note: JobNote) -> int:
    """Stop a job's calls and remove what it staged; how many objects that was.

    Raises:
        RemoteError: it is staged elsewhere, or a call may still run.
        StorageFault: something may be left in storage.
    """
    import dataclasses

    from keyscale.engine.errors import RemoteError
    from keyscale.engine.remote.leftovers import calls_left
    from keyscale.engine.remote.modal_client import Calls
    from keyscale.engine.remote.state import drop_state, is_damaged, is_followed, state_of, state_path_of
    from keyscale.engine.storage.bucket import job_prefix

    job, state = note.job_id, state_of(note)
    with _storage() as storage:
        settings = storage.settings
    if is_damaged(note):
        drop_state(state_path_of(note), job)
    left = None
    while state is not None:
        # A client that goes on cancels the call itself that it is just starting.
        left = dataclasses.replace(state, starting=()) if is_followed(note) else state
        state.check_place(settings.endpoint, settings.bucket)
        calls, ended = Calls(), [call.id for call in state.calls]
        if ended:
            calls.check_reachable()
        if running := calls.cancel(ended):
            raise RemoteError(
                f"calls of {job} may still run: Modal did not take the cancellation of {len(running)}",
                remedy=f"Check credentials and network, then run `keyscale remote cancel {job}` again.",
            )
        # Before what is staged: a client that still follows the job sees by it that it is over. Until then it may have
        # started calls in the place of those that were cancelled.
        state = None if drop_state(state_path_of(note), job, ended=ended, staged=left) else state_of(note)
    with _storage() as storage:
        removed = storage.delete_prefix(job_prefix(job))
    if left is not None and (may_run := calls_left(left, ())) is not None:
        raise RemoteError(
            f"{job}: {may_run}", remedy=f"After that `keyscale remote cancel {job}` forgets the job; nothing is staged."
        )
    drop_state(state_path_of(note), job)
    return removed


@app.command("resume")
def resume(
    job: JobArgument,
    progress: Annotated[
        ProgressKind,
        typer.Option("--progress", case_sensitive=False, help="How to show progress, as for 'keyscale upscale'."),
    ] = ProgressKind.AUTO,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only warnings, errors and the result.")] = False,
) -> None:
    """Continue a job whose client ended. Its finished and running chunks are used."""
    import dataclasses

    from keyscale.cli.upscale import run_job
    from keyscale.engine.remote.state import find_note
    from keyscale.engine.run_options import RemoteOptions
    from keyscale.engine.serialization import loads

    with shown(renderer(progress, quiet=quiet)) as view:
        note = find_note(job)
        wanted = note.job
        if note.finished:
            _end(note)
            # The file is there: with this flag that is looked at, and nothing is made again.
            wanted = dataclasses.replace(wanted, overwrite=False, update=True)
        done = run_job(wanted, loads(note.options, RemoteOptions), view)
    if progress is not ProgressKind.JSON:
        write_path(done.output)


@app.command("clean")
def clean(
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="AGE", help="Age since the last change: 90s, 30m, 12h or 1d."),
    ] = "1d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
) -> None:
    """Remove what ended clients left in storage: staged files, interrupted uploads, test objects."""
    from keyscale.engine.errors import RemoteError
    from keyscale.engine.storage.bucket import job_prefix

    age = _age(older_than)
    total = [0, 0, 0]
    running: list[str] = []

    def tell(what: str, amount: tuple[int, int, int], newest: datetime) -> None:
        # At once: what is already gone is told even where the next one cannot be removed.
        end = "" if dry_run else ", removed"
        write_data(f"{what}  {_amount(*amount)}, last changed {newest:%Y-%m-%d %H:%M} UTC{end}\n")
        total[:] = (before + more for before, more in zip(total, amount, strict=True))

    with _storage() as storage:
        for stale in storage.stale_jobs(age):
            if not dry_run:
                # Before what is staged: a client that still follows the job sees by it that it is over.
                may_run = _stop_here(stale.job_id)
                storage.delete_prefix(job_prefix(stale.job_id))
                if may_run is None:
                    _forget_here(stale.job_id)
                else:
                    running.append(f"{stale.job_id}: {may_run}")
            what = stale.job_id if stale.destination is None else printable(f"on its way to {stale.destination}")
            tell(what, (stale.objects, stale.uploads, stale.size), stale.newest)
        if trials := storage.stale_trials(age):
            for trial in () if dry_run else trials:
                storage.delete(trial.key)
            size = sum(trial.size for trial in trials)
            tell("trials of the bucket", (len(trials), 0, size), max(trial.modified for trial in trials))
    if not any(total[:2]):
        write_data(f"nothing is older than {older_than}\n")
        return
    write_data(f"{'would be removed' if dry_run else 'removed'}: {_amount(*total)}\n")
    if running:
        raise RemoteError(
            "; ".join(running), remedy="`keyscale remote status` knows them; check the credentials and the network."
        )


def _stop_here(job_id: str) -> str | None:
    """Stop what this machine knows to run of a job; a message about what may still run."""
    from keyscale.engine.remote.leftovers import stop_calls
    from keyscale.engine.remote.state import all_notes, drop_state, state_of, state_path_of

    if (may_run := stop_calls(job_id)) is not None:
        return may_run
    for note in all_notes():
        if note.job_id == job_id:
            drop_state(state_path_of(note), job_id, staged=state_of(note))
    return None


def _forget_here(job_id: str) -> None:
    """Forget a job of which nothing is left, unless its result is still to be stored elsewhere."""
    from keyscale.engine.remote.state import all_notes, drop_state, forget_note, is_followed, state_path_of

    for note in all_notes():
        if note.job_id == job_id:
            drop_state(state_path_of(note), job_id)
            if not note.publishing and not is_followed(note):
                forget_note(job_id)


def _take_back(address: str) -> int:
    """Remove what a client that ended has begun to store at an address; how many objects and uploads that was."""
    from keyscale.engine.storage.bucket import Storage, StorageSettings, job_prefix, parse_address, publication_id

    bucket, key = parse_address(address)
    with Storage(StorageSettings.from_environment(os.environ).of_address(bucket)) as storage:
        return storage.delete_prefix(job_prefix(publication_id(key)))


def _amount(objects: int, uploads: int, size: int) -> str:
    counts = ((objects, "object"), (uploads, "unfinished upload"))
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts]
    return ", ".join((*parts, f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size} bytes"))


def _age(text: str) -> timedelta:
    from keyscale.engine.errors import UsageError

    found = _AGE.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(f"--older-than {text!r} is no age", remedy="Write 90s, 30m, 12h or 1d.")
    settings: dict[str, Any] = {_UNITS[found[2]]: float(found[1])}
    return timedelta(**settings)


def _storage() -> Storage:
    from keyscale.engine.storage.bucket import Storage, StorageSettings

    return Storage(StorageSettings.from_environment(os.environ))
