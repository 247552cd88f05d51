"""Small pictures for networks, and how a graph of OpenVINO is run on one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.geometry import Window
from keyscale.engine.models.openvino import load_openvino

Pixels = npt.NDArray[Any]


def picture(width: int, height: int, dtype: Any = np.uint8, seed: int = 1) -> Pixels:
    """A ramp with noise on it."""
    top = np.iinfo(dtype).max
    ramp = np.add.outer(np.arange(height), np.arange(width)) / (height + width)
    grain = np.random.default_rng(seed).random((height, width, 3))
    return ((0.7 * ramp[..., None] + 0.3 * grain) * top).astype(dtype)


def most(a: Pixels, b: Pixels) -> int:
    """The largest difference in code values."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


def whole(size: tuple[int, int]) -> Window:
    return Window(0, 0, *size)


def as_picture(cells: Pixels, scale: int) -> Pixels:
    """`(1, 3*scale**2, H, W)` -> `(scale*H, scale*W, 3)`, by the graph's contract."""
    _, _, height, width = cells.shape
    rows = cells[0].reshape(scale, scale, 3, height, width).transpose(3, 0, 4, 1, 2)
    enlarged: Pixels = rows.reshape(height * scale, width * scale, 3)
    return enlarged


def run_graph(graph: Any, given: Pixels) -> Pixels:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    result = load_openvino().Core().compile_model(graph, "CPU", settings)({0: given})[0]
    return np.asarray(result)
