"""How commands look at a source: apart, where the process is theirs and would end with a library that crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyscale.engine.runners.prepare import Look

__all__ = ["look_at", "own_process"]

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
