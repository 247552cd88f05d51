"""Help for every command, and the manual page that is made of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
from typer.main import get_command

from keyscale.cli.app import COMMANDS, app
from tools.man_page import commands, page

ROOT: Any = get_command(app)
CONTEXT = ROOT.make_context("keyscale", [], resilient_parsing=True)
ALL = {path: (command, context) for path, command, context in commands(ROOT, CONTEXT, "keyscale")}


@pytest.mark.parametrize("path", ["keyscale", *ALL])
def test_help_fits_a_terminal_of_80_columns(path: str) -> None:
    command, context = ALL.get(path, (ROOT, CONTEXT))
    context.terminal_width = 80
    lines = command.get_help(context).splitlines()
    assert len(lines) > 3
    assert [line for line in lines if len(line) > 80] == []


def test_the_manual_page_has_every_command_and_flag() -> None:
    text = page().replace("\\-", "-")
    for path, (command, _) in ALL.items():
        assert f".SS {path}\n" in text
        for param in command.params:
            assert all(flag in text for flag in param.opts if flag.startswith("--"))
    assert {path.split()[1] for path in ALL} == set(COMMANDS)


@pytest.mark.processes
def test_troff_reads_the_manual_page() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not here")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input=page(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    assert "--crf" in re.sub(".\b", "", done.stdout)  # bold is overstruck
