"""A browser for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.browser import NAMES, Browser, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; tests of pages are skipped where there is none."""
    program = chromium()
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)}")
    with Browser(program) as running:
        yield running
