"""Fixtures of the whole suite."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.shared import shared_dir

pytest_plugins = (
    "support.s3.fixtures",
    "support.remote_place",
    "support.faulty_place",
    "support.guard",
    "support.certificates",
    "support.gpu",
    "support.software_gpu",
    "support.refusals",
)

LONG = ("end_to_end", "storage", "tooling", "cli", "batch", "output", "api")
"""Folders whose files take longest, the longest first."""

# No settings of whoever runs the tests.
os.environ["KEYSCALE_CONFIG_DIR"] = os.devnull + "/none"
os.environ.pop("KEYSCALE_CONFIG", None)
os.environ["MODAL_CONFIG_PATH"] = os.devnull + "/none"

# A shell that starts the tests in the background has SIGINT ignored, nohup SIGHUP; what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test material; tests that need it are skipped where it is absent."""
    folder: Path | None = shared_dir()
    if folder is None:
        pytest.skip("no shared test material: set KEYSCALE_SHARED to its folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first, so that no worker is left with one of them at the end."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)
