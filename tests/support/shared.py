"""What several test modules need."""

from __future__ import annotations

import os
from pathlib import Path


def shared_dir() -> Path | None:
    """The folder of shared test material, or None where there is none.

    It is named by `KEYSCALE_SHARED`, else it is `shared` beside the checkout.
    """
    given = os.environ.get("KEYSCALE_SHARED")
    folder = Path(given) if given else Path(__file__).resolve().parents[3] / "shared"
    return folder if folder.is_dir() else None
