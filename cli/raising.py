"""Exceptions for signals, raised where Python does not drop them."""

from __future__ import annotations

import sys

# As in `start.py`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["raise_soon"]

IMPORTING = "<frozen importlib."
"""How the file names of the import system's own code begin."""


def raise_soon(frame: FrameType | None, error: BaseException) -> None:
    """Raise `error` in the main thread: now, or right after the import or `__del__` in which a signal has reached it.

    In the middle of an import it would be turned into an `ImportError` by some libraries. In a callback of the import
    system, and in any `__del__`, it would be printed and forgotten.

    Args:
        frame: where the signal reached the main thread, as its handler is given it.
        error: what to raise.
    """
    outermost = None
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING) or frame.f_code.co_name == "__del__":
            outermost = frame
        frame = frame.f_back
    if outermost is None:
        raise error
    has_returned = False

    def follow(current: FrameType, event: str, _: object) -> None:
        nonlocal has_returned
        if has_returned:
            sys.setprofile(None)
            raise error
        has_returned = current is outermost and event == "return"

    sys.setprofile(follow)
