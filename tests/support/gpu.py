"""The fixtures `gpu` and `gpu_processes`; torch is loaded once a test asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.simulated_cuda import SimulatedGpu

START = """
import os, sys
if {{"keyscale", "keyscale.engine.batch.process"}} & set(sys.orig_argv) and "scout" not in sys.orig_argv:
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from support.simulated_cuda import simulated_cuda
    simulation = simulated_cuda(count=2)
    gpus = simulation.__enter__()
    for gpu in gpus:
        gpu.name = f"GPU {{gpu.index}}"
    faults = Path({faults!r})
    if left := int(faults.read_text()):
        faults.write_text(str(left - 1))
        for gpu in gpus:
            gpu.fail_launch(60, RuntimeError("CUDA error: an illegal memory access was encountered"), sticky=True)
"""
"""What the interpreter of a command or of a worker runs first: two GPUs, which fail for good after some kernels, in as
many processes as a file says."""


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    """One simulated CUDA device of 4 GiB."""
    from support.simulated_cuda import simulated_cuda

    with simulated_cuda() as gpus:
        yield gpus[0]


@pytest.fixture
def gpu_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes that are started have two simulated GPUs; the file holds in how many of them those fail."""
    faults, start = tmp_path / "faults", tmp_path / "start"
    faults.write_text("0")
    start.mkdir()
    tests = str(Path(__file__).parents[1])
    (start / "sitecustomize.py").write_text(START.format(tests=tests, faults=str(faults)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(start), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return faults
