"""Remote jobs that end: their calls stopped, what they staged removed, by who started them or by another one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from keyscale.engine.errors import RemoteError, StorageError
from keyscale.engine.remote.modal_client import Calls
from keyscale.engine.remote.state import RemoteState, drop_state, find_note, state_of
from keyscale.engine.storage.bucket import Storage, StorageFault, StorageSettings, job_prefix

__all__ = ["UNKNOWN_CALLS", "calls_left", "clock_of", "end_job", "leave_nothing", "stop_calls"]

CLEAN_PATIENCE_S = 60.0
"""How long storage may be out of reach while what was staged is removed."""
HASTY_PATIENCE_S = 10.0
"""The same where a user waits who interrupted the job."""
HASTY_TIMEOUT_S = 5.0
"""How long one request may be silent then."""

UNKNOWN_CALLS = (
    "calls that it had started are not known; without what it had staged they fail, or end with their time limit"
)
"""What is said of a job whose kept state is damaged."""


def end_job(state: RemoteState, storage: Storage, calls: Calls) -> str | None:
    """Cancel a job's calls and remove what it staged.

    Returns:
        A message about calls that may still run; None where none does.

    Raises:
        RemoteError: it is staged elsewhere.
        StorageFault: something may be left in storage.
    """
    state.check_place(storage.settings.endpoint, storage.settings.bucket)
    running = calls.cancel([call.id for call in state.calls], state.job_id)
    storage.delete_prefix(job_prefix(state.job_id))
    return calls_left(state, running)


def leave_nothing(
    settings: StorageSettings,
    job_id: str,
    state: RemoteState | None,
    path: Path,
    calls: Calls,
    leave: Callable[[], bool],
    *,
    is_hasty: Callable[[], bool],
) -> str | None:
    """Cancel the calls of a job that ends, remove what it staged, and with that its state.

    Args:
        settings: where it is staged.
        job_id: of the job.
        state: with all calls that may run; None where nothing was staged.
        path: where the state is kept.
        calls: Modal's.
        leave: waits a little for what follows the calls; whether all of it ended.
        is_hasty: whether a user waits; may come to be true meanwhile.

    Returns:
        A message about what could not be ended, and how to end it; the state stays then.
    """
    started = [call.id for call in state.calls] if state is not None else []
    try:
        running = calls.cancel(started, job_id) if started else []
    finally:
        ended = leave()
    cancel = f"`keyscale remote cancel {job_id}`"
    may_run = calls_left(state, running) if state is not None else None
    also = f"; {may_run}" if may_run is not None else ""
    try:
        _remove_staged(settings, job_id, is_hasty=is_hasty)
        if not ended and not running:
            leave()  # a call that ends late may have stored something
            _remove_staged(settings, job_id, is_hasty=is_hasty)
        if state is None or may_run is None:
            drop_state(path, job_id)
            return None
        known = tuple(call for call in state.calls if call.id in running)
        replace(state, calls=known, starting=state.unnamed).save(path)
        return may_run
    except StorageFault as fault:
        return f"{job_prefix(job_id)} may be left in storage ({fault.message}): {cancel} removes it{also}"
    except StorageError as error:
        return f"remote job {job_id} stays noted as unfinished ({error.message}): {cancel} forgets it{also}"


def _remove_staged(settings: StorageSettings, job_id: str, *, is_hasty: Callable[[], bool]) -> None:
    """Remove what a job staged; `is_hasty` may come to be true meanwhile.

    Raises:
        StorageFault: something may be left.
    """
    deadline = time.monotonic() + CLEAN_PATIENCE_S
    with Storage(settings, patience_s=HASTY_PATIENCE_S, timeout_s=HASTY_TIMEOUT_S) as storage:
        while True:
            try:
                storage.delete_prefix(job_prefix(job_id))
                return
            except StorageFault as fault:
                if not fault.transient or is_hasty() or time.monotonic() >= deadline:
                    raise


def stop_calls(job_id: str) -> str | None:
    """Cancel the calls that this machine knows of a job, if any; a message about those that may still run."""
    try:
        state = state_of(find_note(job_id))
    except RemoteError:
        return None
    if state is None:
        return None
    calls, running = Calls(), [call.id for call in state.calls]
    if running:
        with contextlib.suppress(RemoteError):
            calls.check_reachable()
            running = calls.cancel(running)
    return calls_left(state, running)


def calls_left(state: RemoteState, running: Collection[str]) -> str | None:
    """A message about calls that may still run; None where none does.

    Args:
        state: of their job.
        running: ids of those that could not be cancelled.
    """
    told = []
    if running:
        told.append(
            f"{_calls(running)} may still run, since Modal did not confirm the cancellation: "
            f"`keyscale remote cancel {state.job_id}` stops {'it' if len(running) == 1 else 'them'}"
        )
    if unnamed := state.unnamed:
        until = clock_of(max(call.until for call in unnamed))
        told.append(
            f"{_calls(unnamed)} may run whose id Modal never gave: without what was staged nothing can be made, and "
            f"by {until} all is over"
        )
    return "; ".join(told) or None


def clock_of(at: float) -> str:
    """A Unix time on this machine's clock, with the day where that is not today."""
    time_there, now = datetime.fromtimestamp(at).astimezone(), datetime.now().astimezone()
    return f"{time_there:%H:%M}" if time_there.date() == now.date() else f"{time_there:%Y-%m-%d %H:%M}"


def _calls(found: Collection[object]) -> str:
    return "1 call" if len(found) == 1 else f"{len(found)} calls"
