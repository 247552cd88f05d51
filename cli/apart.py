"""What a command does where the process is its own: look at a source apart from it, and begin anew in another."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyscale.engine.runners.prepare import Look

__all__ = ["claim_new_process", "look_at", "own_process"]

AGAIN = "_KEYSCALE_AGAIN"
"""Set in the environment of a process that took another one's place."""

_is_own = False


def own_process() -> None:
    """This process was started for one command."""
    global _is_own  # noqa: PLW0603 - a fact about the process
    _is_own = True


def look_at() -> Look:
    """What probes a source."""
    if _is_own:
        from keyscale.engine.source.apart import probe_apart

        return probe_apart
    from keyscale.engine.source.probe import probe

    return probe


def claim_new_process() -> bool:
    """Whether a new process may take this one's place, which only one may; marks the environment for it if so."""
    from keyscale.engine.system import CAN_RUN_ANEW

    if not _is_own or not CAN_RUN_ANEW or AGAIN in os.environ:
        return False
    os.environ[AGAIN] = "1"
    return True
