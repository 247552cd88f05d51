"""An exception -> the event with which a run ends: what people read, and the exit code of its kind."""

from __future__ import annotations

from keyscale.engine.errors import EnvironmentFault, KeyscaleError
from keyscale.engine.job import Failed

__all__ = ["failure"]

NO_THREAD = "can't start new thread"
"""What CPython's `threading` says with a plain RuntimeError where the system refuses a thread."""


def failure(error: BaseException) -> Failed:
    """The last event of a run that `error` ended; any exception has one."""
    name = type(error).__name__
    if isinstance(error, KeyscaleError):
        return Failed(error=name, message=error.message, remedy=error.remedy, exit_code=error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return Failed(
            error="Interrupted",
            message="interrupted",
            remedy=None,
            exit_code=getattr(error, "exit_code", 130),
        )
    if isinstance(error, MemoryError):
        return Failed(
            error=name,
            message="this machine's memory is exhausted",
            remedy="Close other programs, or give a smaller --tile, such as --tile 128.",
            exit_code=EnvironmentFault.exit_code,
        )
    text = str(error)
    if isinstance(error, ImportError):
        return Failed(
            error=name,
            message=f"a library does not load: {text}",
            remedy="See whether memory or address space (ulimit -v) is limited, and install keyscale again.",
            exit_code=EnvironmentFault.exit_code,
        )
    if isinstance(error, RuntimeError) and text == NO_THREAD:
        return Failed(
            error=name,
            message="the system lets this process start no further thread",
            remedy="See whether the number of processes (ulimit -u, a container's pids limit) or the address space "
            "(ulimit -v) is limited.",
            exit_code=EnvironmentFault.exit_code,
        )
    return Failed(
        error=name,
        message=f"unexpected {name}: {text}" if text else f"unexpected {name}",
        remedy="This is a defect of keyscale. Run the command again with -vv and report what it prints.",
        exit_code=1,
    )
