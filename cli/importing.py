"""Signals that reach the main thread while it imports something."""

from __future__ import annotations

import sys

# As in `start.py`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["raise_outside_imports"]

IMPORTING = "<frozen importlib."
"""How the file names of the import system's own code begin."""


def raise_outside_imports(frame: FrameType | None, error: BaseException) -> None:
    """Raise `error` in the main thread: now, or right after the import in which a signal has reached it.

    In the middle of an import it would be turned into an `ImportError` by some libraries, and be printed and forgotten
    where it hits a callback of the import system.

    Args:
        frame: where the signal reached the main thread, as its handler is given it.
        error: what to raise.
    """
    outermost = None
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            outermost = frame
        frame = frame.f_back
    if outermost is None:
        raise error
    imported = False

    def follow(current: FrameType, event: str, _: object) -> None:
        nonlocal imported
        if imported:
            sys.setprofile(None)
            raise error
        imported = current is outermost and event == "return"

    sys.setprofile(follow)
