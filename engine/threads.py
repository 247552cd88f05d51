"""Peace between the network's threads and everything else that runs."""

from __future__ import annotations

import os
import sys

from keyscale.engine.system import usable_cores

__all__ = ["share_cores", "usable_cores"]

SPIN_COUNT = "1000"
"""Turns that a thread of GNU OpenMP spins at a barrier before it sleeps; what libgomp itself takes once a process has
more threads than cores. Its default, 300,000, is about a millisecond."""


def share_cores() -> None:
    """Let OpenMP's threads sleep soon at barriers; to be called before torch is imported.

    The network's threads meet at a barrier after every layer. One that spins there keeps the encoder, the decoder or
    another job from the core that the last one is waiting for, and both slow down by more than their share; how
    much varies widely with what else runs (`bench/contention.py` measures it). What the user set in OpenMP's own
    variables stands.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
