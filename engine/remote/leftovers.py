"""Remote jobs that end: their calls stopped, what they staged removed, by who started them or by another one."""

from __future__ import annotations

import time
from collections.abc import Callable

from keyscale.engine.errors import RemoteError
from keyscale.engine.remote.modal_client import Calls
from keyscale.engine.remote.state import RemoteState, find_note, state_of
from keyscale.engine.storage.bucket import Storage, StorageFault, StorageSettings, job_prefix

__all__ = ["calls_left", "end_job", "remove_staged", "stop_calls"]

CLEAN_PATIENCE_S = 60.0
"""How long storage may be out of reach while what was staged is removed."""
HASTY_PATIENCE_S = 15.0
"""The same where a user waits who interrupted the job."""


def end_job(state: RemoteState, storage: Storage, calls: Calls) -> list[str]:
    """Cancel a job's calls and remove what it staged.

    Returns:
        The calls that may still run, since Modal did not answer.

    Raises:
        RemoteError: it is staged elsewhere.
        StorageFault: something may be left in storage.
    """
    state.check_place(storage.settings.endpoint, storage.settings.bucket)
    running = calls.cancel([call.id for call in state.calls], state.job_id)
    storage.delete_prefix(job_prefix(state.job_id))
    return running


def remove_staged(settings: StorageSettings, job_id: str, *, is_hasty: Callable[[], bool]) -> None:
    """Remove what a job staged; `is_hasty` may come to be true meanwhile.

    Raises:
        StorageFault: something may be left.
    """
    deadline = time.monotonic() + CLEAN_PATIENCE_S
    with Storage(settings, patience_s=HASTY_PATIENCE_S) as storage:
        while True:
            try:
                storage.delete_prefix(job_prefix(job_id))
                return
            except StorageFault as fault:
                if not fault.transient or is_hasty() or time.monotonic() >= deadline:
                    raise


def stop_calls(job_id: str) -> list[str]:
    """Cancel the calls that this machine knows of a job, if any; those that may still run, as Modal did not answer."""
    try:
        state = state_of(find_note(job_id))
    except RemoteError:
        return []
    started = [call.id for call in state.calls] if state is not None else []
    if not started:
        return []
    calls = Calls()
    try:
        calls.check_reachable()
    except RemoteError:
        return started
    return calls.cancel(started)


def calls_left(job_id: str, running: list[str]) -> str:
    """What is to be told of calls that could not be cancelled."""
    return f"Modal is out of reach, {len(running)} calls may still run: `keyscale remote cancel {job_id}` stops them"
