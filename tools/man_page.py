"""The manual page, from the commands themselves; `python -m tools.option_tables` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

import keyscale
from keyscale.cli.app import app
from keyscale.cli.help import TOPICS

__all__ = ["PAGE", "commands", "page"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "keyscale.1"


def page() -> str:
    """The whole page in troff's `man` macros."""
    root: Any = get_command(app)
    context = root.make_context("keyscale", [], resilient_parsing=True)
    lines = [
        f'.TH KEYSCALE 1 "" "keyscale {keyscale.__version__}" "User Commands"',
        ".SH NAME",
        f"keyscale \\- {_text(root.help)}",
        ".SH SYNOPSIS",
        ".B keyscale",
        "[\\fIupscale\\fR] \\fIVIDEO\\fR [\\fIKEYFRAMES.json\\fR] [\\fIFLAGS\\fR]",
        ".br",
        ".B keyscale",
        "\\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
    ]
    for path, command, ctx in commands(root, context, "keyscale"):
        lines += [f".SS {_text(path)}", _text((command.help or "").replace("\b", ""))]
        for param in command.get_params(ctx):
            if param.name != "help" and (record := param.get_help_record(ctx)):
                lines += [".TP", f".B {_text(record[0])}", _text(record[1])]
    for topic, text in TOPICS.items():
        lines += [f".SH {topic.replace('-', ' ').upper()}", ".nf", *map(_line, text.splitlines()), ".fi"]
    return "\n".join(lines) + "\n"


def commands(group: Any, context: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Every command beneath a group: as it is called, itself, and its context."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        ctx = command.make_context(name, [], parent=context, resilient_parsing=True)
        if hasattr(command, "list_commands"):
            yield from commands(command, ctx, f"{path} {name}")
        else:
            yield f"{path} {name}", command, ctx


def _line(text: str) -> str:
    """A line as it stands."""
    return "\\&" + text.replace("\\", "\\e").replace("-", "\\-")


def _text(text: str) -> str:
    """Words as troff takes them: `-` as a minus, that it can be copied; no line begins with a control character."""
    plain = re.sub(r"\s+", " ", text).strip().replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
