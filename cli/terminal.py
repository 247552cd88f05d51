"""Stdout and stderr, as commands write to them.

Messages never stop a job: when stderr is gone they go silent. Results are data: they go to stdout, and a reader that
left raises `BrokenPipeError`.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keyscale.engine.events import Failed

__all__ = ["COMMAND_LINE_ERROR", "SafeStream", "drawn", "printable", "show_failure", "write_data", "write_path"]

# Older releases of Typer use the Click that is installed, newer ones carry their own: the base class of its
# errors has no public name that holds for both.
COMMAND_LINE_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What the parser raises for a command line that it cannot read."""

# Control characters and bidi overrides would let a file name rewrite the terminal; lone surrogates are the
# bytes of names that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with control characters and undecodable bytes written as backslash escapes."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class SafeStream:
    """A text stream that writes what its encoding lacks as escapes, and falls silent once its reader left."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        """Encoding of the stream beneath."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write `text`; never raises for its characters or for a reader that left."""
        if self._stream is not None:
            try:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError):
                self._stream = None
        return len(text)

    def flush(self) -> None:
        """Flush the stream beneath."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None

    def isatty(self) -> bool:
        """Whether a terminal reads this."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Descriptor of the stream beneath."""
        if self._stream is None:
            raise OSError("the stream is gone")
        return self._stream.fileno()

    def line(self, text: str) -> None:
        """Write one line at once."""
        self.write(text + "\n")
        self.flush()


def write_data(text: str, stream: TextIO | None = None, *, encoding: str | None = None) -> None:
    """Write a result to stdout, flushed; surrogates of file names become the bytes that they stand for.

    Args:
        text: What to write, with its newline.
        stream: Another stream than stdout.
        encoding: Another encoding than the stream's own.

    Raises:
        BrokenPipeError: the reader has left.
        StorageError: it goes to a file, and that cannot be written.
    """
    out = stream if stream is not None else sys.stdout
    if out is None:  # the shell closed it: `>&-`
        return
    encoding = encoding or getattr(out, "encoding", None) or "utf-8"
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "backslashreplace")
    buffer = getattr(out, "buffer", None)
    try:
        if buffer is None:
            out.write(data.decode(encoding, "backslashreplace"))
        else:
            out.flush()
            buffer.write(data)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        from keyscale.engine.errors import StorageError

        raise StorageError(
            f"cannot write to standard output: {error.strerror}", remedy="Free some space, or send it elsewhere."
        ) from error


def write_path(path: str, stream: TextIO | None = None) -> None:
    """Write a result's path as a line, as `write_data`; a terminal gets it with escapes for what would steer it."""
    is_terminal = SafeStream(stream if stream is not None else sys.stdout).isatty()
    write_data((printable(path) if is_terminal else path) + "\n", stream)


def drawn(*renderables: RenderableType, least_width: int) -> str:
    """What Rich makes of tables and texts for stdout, as lines.

    Args:
        renderables: one beneath the other.
        least_width: cells of a line where no terminal reads: a reader of a pipe looks for a whole value on its line.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console.width = least_width
    # Captured, since Rich answers a reader that left by ending the process.
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable, soft_wrap=isinstance(renderable, Text))
    return "".join(f"{line.rstrip(' ')}\n" for line in capture.get().splitlines())


def show_failure(failed: Failed, stream: TextIO | None = None) -> None:
    """Print a failure for people: `error: MESSAGE`, and beneath it what to do."""
    text = f"error: {printable(failed.message)}"
    if failed.remedy:
        text += f"\n  -> {printable(failed.remedy)}"
    SafeStream(stream if stream is not None else sys.stderr).line(text)
