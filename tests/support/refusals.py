"""Commands that are refused: what they say, and that everything is as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keyscale.cli.app import run

__all__ = ["Refused", "refused"]

Refused = Callable[..., None]
"""Takes a command line, its exit code, a part of its message, and the name of a file that is in its way."""


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command in the test's folder, where a file is in its way, and checks that it is refused."""
    monkeypatch.chdir(tmp_path)

    def check(args: list[str], code: int, message: str, in_its_way: str = "there.png") -> None:
        Path(in_its_way).write_text("mine")
        before = sorted(tmp_path.iterdir())
        assert run(args) == code
        assert message in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before
        assert Path(in_its_way).read_text() == "mine"

    return check
