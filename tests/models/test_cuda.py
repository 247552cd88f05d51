"""What only a CUDA GPU shows. Skipped without one, unless KEYSCALE_REQUIRE_CUDA=1 makes that a failure."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from support.shared import shared_dir

from keyscale.engine.camera.geometry import Window
from keyscale.engine.models import load_model
from keyscale.engine.pipeline.upscaler import Upscaler

REQUIRED = os.environ.get("KEYSCALE_REQUIRE_CUDA") == "1"

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and not REQUIRED, reason="no CUDA device (KEYSCALE_REQUIRE_CUDA=1 fails instead)"
)


@pytest.fixture
def animevideo(shared: object, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = shared_dir()
    assert folder is not None
    monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(folder / "weights"))
    return "realesr-animevideov3"


def frame(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])


def test_fp16_on_cuda_agrees_with_fp32_on_the_cpu(animevideo: str) -> None:
    pixels, window = frame(120, 160), Window(8, 8, 152, 112)
    exact = Upscaler(load_model(animevideo), (160, 120))(pixels, window)
    fast = Upscaler(load_model(animevideo, "cuda", "fp16"), (160, 120))(pixels, window)
    difference = np.abs(exact.astype(int) - fast.astype(int))
    assert difference.max() <= 3, f"histogram: {np.bincount(difference.ravel())}"
    assert difference.mean() < 0.3


def test_running_out_of_memory_halves_the_tile_and_loses_nothing(animevideo: str) -> None:
    model = load_model(animevideo, "cuda", "fp32")
    notes: list[str] = []
    pixels, window = frame(270, 480), Window(0, 0, 480, 270)
    torch.cuda.empty_cache()
    whole = Upscaler(model, (480, 270), tile=0)(pixels, window)
    # What the frame took, workspaces of cuDNN included: half of it does not hold the frame, but a quarter of the frame.
    taken = torch.cuda.memory_reserved(0)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.5 * taken / total)
        upscaler = Upscaler(model, (480, 270), tile=0, on_note=notes.append)
        tiled = upscaler(pixels, window)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("out of memory" in note for note in notes)
    assert np.abs(whole.astype(int) - tiled.astype(int)).max() <= 1
