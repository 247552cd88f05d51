"""Writes what the declarations of options are the source of: tables and the manual page in docs/, and the types of the
Python API.

    python -m tools.option_tables           # write them
    python -m tools.option_tables --check   # say what is stale, with exit code 1

A table stands in the documentation between `<!-- options: NAME -->` and `<!-- end of options -->`.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from keyscale.cli.options import PlanOutput, upscale_options
from keyscale.engine.arguments import POSITIONAL, annotation_of, arguments_of
from keyscale.engine.batch.manifest import columns_of
from keyscale.engine.job import Job
from keyscale.engine.options import PANELS, Option, options_of
from keyscale.engine.run_options import BatchRequest, CompareRequest, PreviewOutput
from keyscale.engine.wording import as_argument, say, worded
from tools.man_page import PAGE, page

ROOT = Path(__file__).resolve().parents[1]
TYPES = ROOT / "engine" / "argument_types.py"
_PLACE = re.compile(r"(<!-- options: ([\w ]+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


def table(options: Iterable[Option]) -> str:
    """Flags with their defaults and what they mean, in Markdown."""
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    rows += [f"| {_flags(each)} | {_default(each)} | {_meaning(each)} |" for each in options]
    return "".join(f"{row}\n" for row in rows)


def columns(kind: type[Job] = Job) -> str:
    """The columns of a manifest that are options, as a sentence."""
    return f"{', '.join(f'`{column}`' for column in columns_of(kind))}\n"


def tables(kind: type[Job] = Job) -> dict[str, str]:
    """Every table, by its name in the documentation."""
    of_a_job = [*upscale_options(kind).values(), *options_of(PlanOutput).values()]
    return {panel: table(each for each in of_a_job if each.panel == panel) for panel in PANELS} | {
        "batch": table(options_of(BatchRequest).values()),
        "compare": table(each for each in options_of(CompareRequest).values() if each.panel),
        "preview": table(options_of(PreviewOutput).values()),
        "columns": columns(kind),
    }


def argument_types(kind: type[Job] = Job) -> str:
    """A module with the options of `keyscale.upscale` as a `TypedDict`, for type checkers and editors."""
    lines = []
    for each in arguments_of(kind).values():
        if each.name not in POSITIONAL:
            lines.append(f"    {each.name}: {annotation_of(each)}\n")
            about = f'"""{worded(say(each.python or each.help), as_argument)}"""'
            lines.append(textwrap.fill(about, 119, initial_indent="    ", subsequent_indent="    ") + "\n")
    return _MODULE + "".join(lines)


def stale(kind: type[Job] = Job) -> dict[Path, str]:
    """The files that are not as the declarations say, and what they should hold."""
    found = tables(kind)
    wanted = {TYPES: argument_types(kind), PAGE: page()}
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        wanted[path] = _PLACE.sub(lambda place: f"{place[1]}\n{found[place[2]]}\n{place[3]}", text)
    return {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main(arguments: list[str]) -> int:
    """Write what is stale, or with `--check` only name it."""
    found = stale()
    for path, text in found.items():
        print(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    return 1 if found and "--check" in arguments else 0


def _flags(each: Option) -> str:
    value = each.metavar or each.form.metavar.strip("<>")
    flag = f"--{each.key}" if each.is_switch or each.name == "verbose" else f"--{each.key} {value}"
    names = [f"-{each.short}"] if each.short else []
    names += [flag, *([f"--{each.contrary}"] if each.contrary else [])]
    return ", ".join(f"`{name}`" for name in names).replace("|", "\\|")


def _default(each: Option) -> str:
    if each.default_docs:
        return each.default_docs
    value = each.written(each.default)
    if each.is_switch:
        return "off" if not value else f"`--{each.key}`"
    return f"`{value}`"


def _meaning(each: Option) -> str:
    text = each.docs or str(say(each.help)).removesuffix(".")
    return text if each.docs else text[0].lower() + text[1:]


_MODULE = '''\
"""The options of `keyscale.upscale` as type checkers see them, written by `python -m tools.option_tables`."""

from __future__ import annotations

from fractions import Fraction
from os import PathLike
from typing import Literal, TypedDict

__all__ = ["Options"]


class Options(TypedDict, total=False):
    """Arguments by name; those that are not given are as the declarations in `engine.job` say."""

'''


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
