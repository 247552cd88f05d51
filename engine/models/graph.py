"""Plain networks as OpenVINO graphs: the stack itself, and the same between integer pixels.

Up to the end everything stays on the input's grid. The last convolution's channels stand in the order in which a
cell of the result lies in memory, so that putting the cells into their rows copies runs of `3 * scale` values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keyscale.engine.errors import ModelError
from keyscale.engine.models.inference import load_openvino
from keyscale.engine.models.registry import ModelSpec

__all__ = ["UNQUANTISED", "build_graph", "cell_order", "read_graph", "with_pixels"]

UNQUANTISED = ("base", "cells")
"""Nodes to leave out of quantisation: the enlarged input itself, and the sum with it."""


def cell_order(scale: int) -> npt.NDArray[np.int64]:
    """For each channel of a cell (row, column, colour), the channel of `torch.pixel_shuffle`: `(3 * scale**2,)`."""
    return np.arange(3 * scale**2).reshape(3, scale, scale).transpose(1, 2, 0).ravel()


def build_graph(state: Mapping[str, Any], spec: ModelSpec) -> Any:
    """A plain network as an `openvino.Model`.

    Args:
        state: arrays or CPU tensors under `convs.{i}.weight` and `convs.{i}.bias`, any float type.
        spec: what they are.

    Returns:
        A graph with the input `picture`, f32 `(1, 3, H, W)` RGB in [0, 1], H and W dynamic, and the output `cells`,
        f32 `(1, 3 * scale**2, H, W)`: channel `(row * scale + column) * 3 + colour` of a cell of the result. It is
        nominally in [0, 1], not clamped.

    Raises:
        ModelError: a tensor is absent, of another shape, or holds NaN.
    """
    openvino = load_openvino()
    ops = openvino.opset13
    picture = ops.parameter([1, 3, -1, -1], np.float32, name="picture")
    order = cell_order(spec.scale)
    y = picture
    last = spec.blocks + 1
    for index in range(last + 1):
        channels = (3 if index == 0 else spec.features, spec.features if index < last else len(order))
        weight = _tensor(state, f"convs.{index}.weight", (channels[1], channels[0], 3, 3), spec)
        bias = _tensor(state, f"convs.{index}.bias", (channels[1],), spec)
        if index == last:
            weight, bias = weight[order], bias[order]
        y = ops.convolution(y, ops.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1], name=f"convs.{index}")
        y = ops.add(y, ops.constant(bias.reshape(1, -1, 1, 1)))
        if index < last:
            y = ops.relu(y)
    # Repeating by a 1x1 convolution: of the ways to say it, the one that the CPU plugin adds in place.
    repeat = np.tile(np.eye(3, dtype=np.float32), (spec.scale**2, 1)).reshape(-1, 3, 1, 1)
    base = ops.convolution(picture, ops.constant(repeat), [1, 1], [0, 0], [0, 0], [1, 1], name="base")
    cells = ops.add(y, base, name="cells")
    return _model(openvino, picture, cells, spec.name)


def read_graph(xml: bytes, weights: bytes) -> Any:
    """A graph like that of `build_graph` from OpenVINO's intermediate representation.

    Raises:
        ModelError: this OpenVINO cannot read it.
    """
    openvino = load_openvino()
    try:
        return openvino.Core().read_model(model=xml, weights=weights)
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO {openvino.__version__} cannot read the int8 network: {str(error)[:200]}",
            remedy="Install a newer openvino, or use --precision fp32.",
        ) from error


def with_pixels(graph: Any, dtype: type[np.uint8] | type[np.float32]) -> Any:
    """The graph between pictures as they lie in memory.

    Args:
        graph: as `build_graph` gives it; left as it is.
        dtype: of input `(1, H, W, 3)` and output `(1, H, W, 3 * scale**2)`: uint8 in 0..255, rounded half up and
            clamped; or float32 in [0, 1], not clamped.
    """
    openvino = load_openvino()
    ops = openvino.opset13
    inner = graph.clone()
    pixels = ops.parameter([1, -1, -1, 3], dtype, name="pixels")
    y = pixels
    if dtype is np.uint8:
        y = ops.divide(ops.convert(y, np.float32), ops.constant(np.float32(255)))
    y = ops.transpose(y, ops.constant(np.array([0, 3, 1, 2])))
    for target in inner.get_parameters()[0].output(0).get_target_inputs():
        target.replace_source_output(y.output(0))
    z = inner.get_results()[0].input_value(0)
    if dtype is np.uint8:
        # Before the transposition, where these fuse with the last convolution's result.
        scaled = ops.multiply(ops.clamp(z, 0.0, 1.0), ops.constant(np.float32(255)))
        z = ops.floor(ops.add(scaled, ops.constant(np.float32(0.5))))
    z = ops.transpose(z, ops.constant(np.array([0, 2, 3, 1])))
    if dtype is np.uint8:
        z = ops.convert(z, np.uint8)
    return _model(openvino, pixels, z, graph.friendly_name)


def _model(openvino: Any, parameter: Any, result: Any, name: str) -> Any:
    parameter.output(0).set_names({parameter.friendly_name})
    result.output(0).set_names({"cells"})
    return openvino.Model([result], [parameter], name)


def _tensor(state: Mapping[str, Any], key: str, shape: tuple[int, ...], spec: ModelSpec) -> npt.NDArray[np.float32]:
    if key not in state:
        raise ModelError(f"{spec.name} has no tensor {key}")
    value = np.asarray(state[key]).astype(np.float32)
    if value.shape != shape:
        raise ModelError(f"{key} of {spec.name} has the shape {value.shape}, not {shape}")
    if not np.isfinite(value).all():
        raise ModelError(f"{key} of {spec.name} holds values that are not finite")
    return value
