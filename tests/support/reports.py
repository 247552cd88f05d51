"""Reports of batches, read as a program would read them."""

from __future__ import annotations

from pathlib import Path

from keyscale.engine.batch.events import Report
from keyscale.engine.serialization import loads


def read_report(path: Path) -> Report:
    """The inverse of `write_report`, strict about types; names that were escaped stay so."""
    return loads(path.read_bytes(), Report)
