"""`keyscale plan`: what `upscale` would do with the same flags, as a table or as JSON."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from keyscale.cli.options import plan_options
from keyscale.cli.settings import ConfiguredCommand

if TYPE_CHECKING:
    from keyscale.engine.plan.describe import RemoteEstimate
    from keyscale.engine.plan.plan import Plan

__all__ = ["command", "plan"]

_EXAMPLES = """\
Examples:

\b
  keyscale plan talk.mp4 camera.json
  keyscale plan talk.mp4 camera.json --fps source --json > plan.json
"""


def plan(*, json: bool, **values: Any) -> None:
    """Show what upscale would do with the same flags: frames, camera, network, chunks. Runs no network."""
    from keyscale.cli.apart import look_at
    from keyscale.cli.source import local_source
    from keyscale.cli.terminal import write_data
    from keyscale.engine.request import request_of

    request = request_of(values)
    # After the flags: a wrong one is answered at once.
    from keyscale.engine.runners.prepare import prepare_plan

    job = local_source(request.job, quiet=values["quiet"])
    found, expected = prepare_plan(job, remote=request.remote is not None, look=look_at()), None
    if request.remote is not None:
        from keyscale.engine.remote.estimate import affordable_estimate

        expected = affordable_estimate(found, os.environ, request.remote)
    if json:
        from keyscale.engine.plan.describe import plan_to_json

        write_data(plan_to_json(found, expected).rstrip("\n") + "\n", encoding="utf-8")
    else:
        write_data(_table(found, expected))


def command() -> ConfiguredCommand:
    """The command with its flags."""
    return ConfiguredCommand("plan", plan, plan_options(), epilog=_EXAMPLES)


def _table(found: Plan, expected: RemoteEstimate | None) -> str:
    from rich.table import Table
    from rich.text import Text

    from keyscale.cli.terminal import drawn, printable
    from keyscale.engine.plan.describe import summarise

    rows = [(label, printable(value)) for label, value in summarise(found, expected)]
    warnings = [printable(f"warning: {warning}") for warning in found.warnings]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label), Text(value))
    texts = [Text(warning, style="yellow") for warning in warnings]
    return drawn(table, *texts, least_width=max(80, *(len(label) + 2 + 2 * len(value) for label, value in rows), 0))
