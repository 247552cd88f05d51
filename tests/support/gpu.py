"""The fixture `gpu`; torch is loaded once a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.simulated_cuda import SimulatedGpu


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    """One simulated CUDA device of 4 GiB."""
    from support.simulated_cuda import simulated_cuda

    with simulated_cuda() as gpus:
        yield gpus[0]
