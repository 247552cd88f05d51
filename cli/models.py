"""`keyscale models`: which networks there are, and their weights on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyscale.cli.progress import renderer
from keyscale.cli.terminal import drawn, printable, write_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyscale.engine.models import ModelSpec

__all__ = ["app"]

app = typer.Typer(
    help="Networks and their weights: list, fetch, verify.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command("list")
def list_models(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array instead of the table.")] = False,
) -> None:
    """List all networks, what they cost, and where their weights are."""
    import msgspec

    from keyscale.engine.models import all_models

    rows = [_row(spec) for spec in all_models()]
    write_data(msgspec.json.encode(rows).decode() + "\n" if as_json else _table(rows))


def _row(spec: ModelSpec) -> dict[str, Any]:
    from keyscale.engine.models.weights import locate

    found = locate(spec)
    return {
        "name": spec.name,
        "family": spec.family,
        "scale": spec.scale,
        "architecture": spec.architecture,
        "blocks": spec.blocks,
        "features": spec.features,
        "halo": spec.halo,
        "halo_is_exact": spec.halo_is_exact,
        "align": spec.align,
        "fold": spec.fold,
        "macs_per_pixel": spec.macs_per_pixel,
        "licence": spec.licence,
        "shipped": spec.shipped,
        "found": str(found) if found else None,
        "files": [
            {"filename": file.filename, "sha256": file.sha256, "size": file.size, "url": file.url}
            for file in spec.all_files
        ],
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "scale", "architecture", "MACs/px", "licence", "weights"):
        table.add_column(heading, no_wrap=heading != "weights", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            f"x{row['scale']}",
            f"{row['architecture']} {row['features']}x{row['blocks']}",
            f"{row['macs_per_pixel'] / 1e6:.2f} M",
            row["licence"],
            Text("in the package" if row["shipped"] else printable(row["found"]) if row["found"] else "not here"),
        )
    return drawn(table, least_width=120 + max(2 * len(row["found"] or "") for row in rows))


@app.command("fetch")
def fetch(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from 'keyscale models list'.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Download a network's weights if needed. Prints the path of the verified file."""
    from keyscale.engine.events import Note, Phase
    from keyscale.engine.models import find, weights
    from keyscale.engine.runners.progress import Meter, summed

    spec = find(name)
    meter = Meter(Phase.FETCH, 0, unit="bytes")
    with renderer(quiet=quiet) as show:

        def report(done: int, total: int) -> None:
            begins, meter.total = not meter.total, total
            # What an earlier download left does not count towards the rate.
            show.handle(meter.begin(done) if begins else meter.progress(done))

        def on_note(message: str) -> None:
            show.handle(Note(level="info", message=message))

        path = weights.ensure(spec, offline=False, on_progress=summed(report), on_note=on_note)
    write_data(f"{path}\n")


@app.command("verify")
def verify() -> None:
    """Verify the SHA-256 of all weights files. Covers the package, the weights folder and the cache."""
    from keyscale.engine.errors import ModelError
    from keyscale.engine.models import all_models, weights

    wrong: list[ModelError] = []
    count = fetched = 0
    for spec in all_models():
        for path, file in weights.known_files(spec):
            count += 1
            fetched += not spec.shipped
            try:
                weights.check(path, file)
            except ModelError as error:
                wrong.append(error)
                write_data(f"wrong  {path}\n")
            else:
                write_data(f"ok     {path}\n")
    if not fetched:
        places = " or ".join(str(folder) for folder in weights.search_dirs())
        typer.echo(f"there are no other weights in {places}", err=True)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise ModelError(
            f"{len(wrong)} of {count} weights files are wrong:\n" + "\n".join(error.message for error in wrong),
            remedy=wrong[0].remedy,
        )
