"""Where the program begins: the console script, and `python -m keyscale`."""

from __future__ import annotations

import os

from keyscale.cli.raising import raise_soon

# Until `main` runs, Ctrl-C prints a traceback: nothing may be loaded here that the interpreter has not loaded anyway.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["main"]

INTERRUPTED = 128 + 2
"""Exit code after SIGINT, as `engine.errors.Interrupted` has it."""


def _on_interrupt(_: int, frame: FrameType | None) -> None:
    raise_soon(frame, KeyboardInterrupt())


def main() -> None:
    """Load the command line and run it; Ctrl-C while it loads ends the process without a word."""
    try:
        import signal

        waiting = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if waiting:  # where it is ignored, by `nohup` or a shell's `&`, it stays so
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        from keyscale.cli.app import main as run

        if waiting:
            signal.signal(signal.SIGINT, _on_interrupt)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    run()
