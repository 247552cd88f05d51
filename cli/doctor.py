"""`keyscale doctor`: what works here and what does not, for people and for bug reports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from keyscale.cli.terminal import printable, write_data

if TYPE_CHECKING:
    from keyscale.engine.doctor import Finding

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("doctor")
def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    ask_deployed: Annotated[
        bool,
        typer.Option(
            "--ask-deployed",
            help="Start a small container on Modal, for a fraction of a cent, to ask which version is deployed.",
        ),
    ] = False,
) -> int:
    """Check Python, encoders, devices, networks, folders, storage and Modal, and say how to fix what fails.

    Prints no secrets, so the output can go into a bug report. Exit code 4 means that something on this machine is
    wrong, 5 that only storage or Modal is. What is not set up is not an error.
    """
    from keyscale.engine.doctor import examine
    from keyscale.engine.errors import EnvironmentFault, RemoteError

    found: list[Finding] = []
    for finding in examine(os.environ, ask_deployed=ask_deployed):
        found.append(finding)
        if not as_json:
            write_data(_lines(finding))
    if as_json:
        import msgspec

        write_data(msgspec.json.encode({"findings": found}).decode() + "\n")
    codes = {finding.exit_code for finding in found if finding.exit_code}
    if not codes:
        return 0
    return RemoteError.exit_code if codes == {RemoteError.exit_code} else EnvironmentFault.exit_code


def _lines(finding: Finding) -> str:
    lines = [f"{finding.state:<6}{finding.subject:<26}{printable(finding.found)}"]
    if finding.remedy is not None:
        lines.append(f"{'':<6}-> {printable(finding.remedy)}")
    return "".join(f"{line}\n" for line in lines)
