"""`keyscale devices`: what runs on each device of this machine, whether it computes rightly, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keyscale.cli.terminal import drawn, printable, write_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyscale.engine.models.devices import DeviceReport

__all__ = ["app"]

app = typer.Typer(
    help="Devices of this machine: what runs on each, how close to fp32, how fast.",
    rich_markup_mode=None,
    add_completion=False,
)


@app.command("devices")
def devices(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array instead of the table.")] = False,
) -> None:
    """Run the default network on every device: runtime, precision, closeness to fp32, speed.

    The exit code is 4 if no network runs on any device.
    """
    import msgspec

    from keyscale.engine.errors import DeviceError
    from keyscale.engine.models.devices import MODEL, WINDOW, look_at_devices

    found = look_at_devices()
    if as_json:
        about = {"model": MODEL.name, "window": WINDOW}
        write_data(msgspec.json.encode([{**vars(each), **about} for each in found]).decode() + "\n")
    else:
        write_data(_table(found))
    if not any(each.works for each in found):
        raise DeviceError(
            "networks run on no device of this machine: " + "; ".join(found[-1].problems),
            remedy="Lanczos sampling needs none: --model lanczos.",
        )


def _table(found: Sequence[DeviceReport]) -> str:
    from rich.table import Table
    from rich.text import Text

    from keyscale.engine.models.devices import MODEL, WINDOW

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("device", overflow="fold")
    for heading in ("runs in", "golden tile", "frames/s", "--device auto"):
        table.add_column(heading, no_wrap=True)
    for each in found:
        tile = "the reference" if each.works else "failed"
        table.add_row(
            printable(each.description),
            f"{each.runtime} {each.precision}" if each.works else "-",
            tile if each.decibels is None else f"{each.decibels:.1f} dB from fp32",
            "-" if (speed := each.frames_per_second) is None else f"{speed:.{1 if speed >= 1 else 3}f}",
            "takes it" if each.auto else "",
        )
    notes = [f"{each.device}: {problem}" for each in found for problem in each.problems]
    notes.append(
        f"Frames are windows of {WINDOW[0]}x{WINDOW[1]} through {MODEL.name} alone, without decoder and encoder."
    )
    return drawn(table, *(Text(printable(note)) for note in notes), least_width=120)
