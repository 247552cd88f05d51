"""`keyscale config`: which defaults hold, and where each of them comes from."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from keyscale.cli.settings import Resolved, ignored_variables, known_settings, read_setting, resolve
from keyscale.cli.terminal import SafeStream, printable, write_data
from keyscale.engine.errors import UsageError
from keyscale.engine.options import options_of
from keyscale.engine.run_options import Terminal
from keyscale.engine.settings import Layer, Origin, Setting, user_config

__all__ = ["app"]

app = typer.Typer(
    help="Defaults from files and the environment: show, path.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

_CONFIG = options_of(Terminal)["config"]

ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", envvar="KEYSCALE_CONFIG", help=_CONFIG.help, show_default=False),
]
PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="[PATH]",
        help="A video, folder or manifest: its keyscale.toml counts. By default the current folder.",
        show_default=False,
    ),
]


@app.command("show")
def show(
    *,
    path: PathArgument = ".",
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Show every setting, its value, and where it comes from."""
    from keyscale.engine.batch.folders import is_pattern

    if not os.path.lexists(path) and not is_pattern(path):
        raise UsageError(f"{path} does not exist", remedy="Name a video, a folder or a manifest.")
    resolved = resolve(config=config, inputs=[path], environment=os.environ)
    settings = _settings(resolved)
    if as_json:
        import msgspec

        write_data(msgspec.json.encode(_document(settings, resolved)).decode() + "\n")
    else:
        write_data(_table(settings, resolved))
    for variable in ignored_variables(os.environ):
        SafeStream(sys.stderr).line(f"note: {printable(variable)} is set, and no setting is called that")


@app.command("path")
def path() -> None:
    """Print where the user's settings file is, or would be."""
    write_data(f"{user_config()}\n")


def _settings(resolved: Resolved) -> list[Setting]:
    settings = []
    for name, known in known_settings()[0].items():
        given = resolved.values.get(name)
        value = known.option.default if given is None else read_setting(known, given)
        origin = Origin(Layer.BUILT_IN) if given is None else given.origin
        settings.append(Setting(known.name, known.option.written(value), origin))
    return settings


def _document(settings: Sequence[Setting], resolved: Resolved) -> dict[str, Any]:
    return {
        "user": printable(str(resolved.user)),
        "preset": None if resolved.preset is None else printable(str(resolved.preset)),
        "settings": [
            {
                "name": each.name,
                "value": printable(str(each.value)) if isinstance(each.value, str | Path) else each.value,
                "layer": each.origin.layer.value,
                "from": printable(str(each.origin)),
            }
            for each in settings
        ],
    }


def _table(settings: Sequence[Setting], resolved: Resolved) -> str:
    """A setting a line; none is cut, for programs that read a pipe."""
    words = {None: "-", True: "true", False: "false"}
    rows = []
    for each in settings:
        value = words[each.value] if each.value is None or isinstance(each.value, bool) else str(each.value)
        rows.append((each.name, printable(value), printable(str(each.origin))))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    absent = "" if resolved.user.is_file() else " (not there)"
    lines = [
        f"user config: {printable(str(resolved.user))}{absent}",
        f"preset: {printable(str(resolved.preset)) if resolved.preset is not None else 'none'}",
        "",
        *(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}".rstrip() for name, value, origin in rows),
    ]
    return "".join(f"{line}\n" for line in lines)
