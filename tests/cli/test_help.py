"""Help for every command, and the manual page that is made of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from typer.main import get_command

from keyscale.cli.app import COMMANDS, app, run
from keyscale.cli.help import SYNONYMS, TOPICS
from keyscale.cli.options import upscale_options
from keyscale.cli.settings import OTHER_VARIABLES
from keyscale.engine.errors import EnvironmentFault, InputError, RemoteError, UsageError, VerificationError
from keyscale.engine.quantities import Size
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


def said(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["help", *words.split()]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    return text


def test_each_topic_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(said(topic, capsys) == text for topic, text in TOPICS.items())
    assert all(topic in said("", capsys) for topic in TOPICS)
    assert all(said(spoken, capsys) == TOPICS[topic] for spoken, topic in SYNONYMS.items())
    indented = [line for text in TOPICS.values() for line in text.splitlines() if len(line) > 73]
    assert indented == []


def test_topics_have_what_there_is() -> None:
    assert all(re.search(rf"\b{name}\b", TOPICS["sizes"]) for name in Size.named)
    codes = {kind.exit_code for kind in (UsageError, InputError, EnvironmentFault, RemoteError, VerificationError)}
    assert all(re.search(rf"^{code} ", TOPICS["exit-codes"], re.MULTILINE) for code in {0, 1, *codes})
    assert json.loads(TOPICS["keyframes"].partition("\n\n")[2].partition("\n\n")[0])[1]["x"] == 1100
    named = set(re.findall(r"KEYSCALE_[A-Z_]+", TOPICS["environment"])) - {"KEYSCALE_SIZE", "KEYSCALE_CRF"}
    assert named == OTHER_VARIABLES - {
        *("KEYSCALE_CONTAINERS", "KEYSCALE_GPU", "KEYSCALE_TIMEOUT"),  # of deployments: docs/remote.md
        *("KEYSCALE_DONE_CODE", "KEYSCALE_DONE_MESSAGE", "KEYSCALE_DONE_OUTPUT"),  # that keyscale itself sets
    }


@pytest.mark.parametrize("name", [each.key for each in upscale_options().values() if each.panel])
def test_each_flag_is_explained_with_and_without_its_dashes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(f"--{name}", capsys)
    assert f"--{name}" in text.splitlines()[0]
    assert "commands: upscale" in text
    if name not in {*TOPICS, *SYNONYMS, *COMMANDS}:
        assert said(name.replace("-", "_"), capsys) == text


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("size", ["1080x1920", "KEYSCALE_SIZE", "commands: upscale, batch, plan, preview, compare"]),
        ("-y", ["--overwrite", "commands: upscale, plan", "commands: batch", "commands: preview"]),
        ("no-resume", ["--resume, --no-resume"]),
        ("jobs", ["commands: batch"]),
        ("--bitrate", ["--crf"]),
        ("models fetch", ["Usage: keyscale models fetch"]),
    ],
)
def test_help_tells_of(word: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = said(word, capsys)
    assert [part for part in parts if part not in text] == []


def test_the_manual_page_has_every_command_and_flag() -> None:
    text = page().replace("\\-", "-")
    for path, (command, _) in ALL.items():
        assert f".SS {path}\n" in text
        for param in command.params:
            assert all(flag in text for flag in param.opts if flag.startswith("--"))
    assert {path.split()[1] for path in ALL} == set(COMMANDS)
    assert all(f".SH {topic.replace('-', ' ').upper()}\n" in text for topic in TOPICS)


@pytest.mark.processes
def test_troff_reads_the_manual_page() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not here")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input=page(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    assert "--crf" in re.sub(".\b", "", done.stdout)  # bold is overstruck
