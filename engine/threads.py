"""Peace between the network's threads and everything else that runs."""

from __future__ import annotations

import os
import sys

__all__ = ["share_cores"]


def share_cores() -> None:
    """Let OpenMP's threads sleep at barriers instead of spinning; to be called before torch is imported.

    The network's threads meet at a barrier after every layer. One that spins there keeps the encoder, the decoder or
    another job from the core that the last one is waiting for: beside one other busy process a frame then takes
    several times as long. What the user set in `OMP_WAIT_POLICY` stands.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
