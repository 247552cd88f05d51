"""`keyscale convert`: keyframes of any format that is read, as a file of keyscale's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from keyscale.cli.terminal import SafeStream, printable, write_data, write_path

if TYPE_CHECKING:
    from keyscale.engine.camera.framing import Framing

__all__ = ["app"]

_EXAMPLES = """\
Examples:

\b
  keyscale convert editor-export.json -o camera.json
  keyscale convert crops.csv | less
  tracker talk.mp4 | keyscale convert - -o camera.json
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("convert", epilog=_EXAMPLES)
def convert(
    *,
    keyframes: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Keyframes in any supported format; - is standard input."),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; by default standard output."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "-y", help="Replace an existing FILE.")] = False,
) -> None:
    """Convert keyframes of any supported format to keyscale's own JSON."""
    from keyscale.engine.camera.framing import load_framing
    from keyscale.engine.camera.guard import refuse_misread_coordinates
    from keyscale.engine.camera.written import as_version1, write_version1
    from keyscale.engine.errors import FramingError

    framing = load_framing(keyframes)
    try:
        # Times cannot be judged without the video.
        refuse_misread_coordinates(framing)
    except FramingError as error:
        error.message = f"{keyframes}: {error.message}"
        raise
    if output is None:
        write_data(as_version1(framing), encoding="utf-8")
    else:
        write_version1(framing, output, overwrite=overwrite)
        write_path(output)
    SafeStream(sys.stderr).line(printable(_told(keyframes, framing)))


def _told(name: str, framing: Framing) -> str:
    first, last = framing.span
    count = len(framing.keyframes)
    unit = "frame" if framing.time_unit == "frames" else "s"
    lines = [
        f"{name}: read as {framing.form}: {count} keyframe{'' if count == 1 else 's'}, {first:g} to {last:g} {unit}",
        *(f"warning: {note}" for note in framing.notes),
    ]
    return "\n".join(lines)
