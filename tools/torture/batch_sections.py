"""The sections about `keyscale batch`, by the names that `--only` takes."""

from __future__ import annotations

from collections.abc import Callable

from tools.torture.batch_faults import batch_disks, batch_sources
from tools.torture.batch_kills import batch_kills
from tools.torture.batch_manifests import batch_manifests
from tools.torture.batch_many import batch_many
from tools.torture.batch_pairs import batch_pairs
from tools.torture.lab import Lab
from tools.torture.report import Section

__all__ = ["BATCHES"]

BATCHES: dict[str, Callable[[Lab], Section]] = {
    "batch-kills": batch_kills,
    "batch-pairs": batch_pairs,
    "batch-many": batch_many,
    "batch-manifests": batch_manifests,
    "batch-disks": batch_disks,
    "batch-sources": batch_sources,
}
