"""Plain networks as OpenVINO graphs: the stack itself, and the same between integer pixels.

Up to the end everything stays on one grid: the input's, or for a network that folds the one of its cells. Where cells
of pixels are channels, these stand in the order in which a cell lies in memory (row, column, colour), so that taking
a picture apart into cells, and putting the result's cells into their rows, copies runs of whole rows of a cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from keyscale.engine.errors import ModelError
from keyscale.engine.models.enlarger import bilinear
from keyscale.engine.models.openvino import load_openvino
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.wording import say

__all__ = ["UNQUANTISED", "build_graph", "cell_order", "folded", "interleaved", "read_graph", "with_pixels"]

Item = TypeVar("Item", bound=np.generic)

UNQUANTISED = ("base", "cells")
"""Nodes to leave out of quantisation: the enlarged input itself, and the sum with it."""


def cell_order(side: int) -> npt.NDArray[np.int64]:
    """For each channel of a cell (row, column, colour), the channel of `torch.pixel_shuffle`: `(3 * side**2,)`."""
    return np.arange(3 * side**2).reshape(3, side, side).transpose(1, 2, 0).ravel()


def folded(pixels: npt.NDArray[Item], fold: int) -> npt.NDArray[Item]:
    """A picture as the cells that a graph takes: `(H, W, 3)` -> `(H / fold, W / fold, 3 * fold**2)`, in one copy.

    Channel `(row * fold + column) * 3 + colour` of a cell.

    Args:
        pixels: of any type; `fold` divides its sides.
        fold: side of a cell; for 1 the picture itself comes back.

    Raises:
        ValueError: it does not.
    """
    if fold == 1:
        return pixels
    height, width = pixels.shape[0] // fold, pixels.shape[1] // fold
    result = np.empty((height, width, 3 * fold**2), pixels.dtype)
    # A cell's row as one item: copying it is then one move instead of one for each value.
    run = np.dtype((np.void, 3 * fold * pixels.itemsize))
    rows = np.ascontiguousarray(pixels).reshape(height, fold, width, 3 * fold).view(run)[..., 0]
    result.reshape(height, width, fold, 3 * fold).view(run)[..., 0] = rows.transpose(0, 2, 1)
    return result


def interleaved(cells: npt.NDArray[Item], side: int) -> npt.NDArray[Item]:
    """The pixels of cells, in one copy: `(H, W, 3 * side**2)` -> `(side * H, side * W, 3)`; undoes `folded`.

    Args:
        cells: of any type, a cell's channels one after another in memory.
        side: of a cell.
    """
    height, width = cells.shape[:2]
    result = np.empty((height * side, width * side, 3), cells.dtype)
    run = np.dtype((np.void, 3 * side * cells.itemsize))
    rows = cells.reshape(height, width, side, 3 * side).view(run)[..., 0]
    result.reshape(height, side, width, 3 * side).view(run)[..., 0] = rows.transpose(0, 2, 1)
    return result


def build_graph(state: Mapping[str, Any], spec: ModelSpec) -> Any:
    """A plain network as an `openvino.Model`.

    Args:
        state: arrays or CPU tensors under `convs.{i}.weight` and `convs.{i}.bias`, any float type.
        spec: what they are.

    Returns:
        A graph with the input `picture`, f32 `(1, 3 * fold**2, H / fold, W / fold)`: RGB in [0, 1], as `folded` gives
        it but for the order of the axes, the sides dynamic. Its output is `cells`, f32 `(1, 3 * side**2, H / fold,
        W / fold)` with `side = scale * fold`: channel `(row * side + column) * 3 + colour` of a cell of the result,
        nominally in [0, 1], not clamped.

    Raises:
        ModelError: a tensor is absent, of another shape, or holds NaN.
    """
    openvino = load_openvino()
    ops = openvino.opset13
    order = {0: cell_order(spec.fold), spec.blocks + 1: cell_order(spec.scale * spec.fold)}
    picture = ops.parameter([1, len(order[0]), -1, -1], np.float32, name="picture")
    y = picture
    last = spec.blocks + 1
    for index in range(last + 1):
        channels = (spec.features if index else len(order[0]), spec.features if index < last else len(order[last]))
        weight = _tensor(state, f"convs.{index}.weight", (channels[1], channels[0], 3, 3), spec)
        bias = _tensor(state, f"convs.{index}.bias", (channels[1],), spec)
        if index == 0:
            weight = weight[:, order[0]]
        if index == last:
            weight, bias = weight[order[last]], bias[order[last]]
        y = ops.convolution(y, ops.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1], name=f"convs.{index}")
        y = ops.add(y, ops.constant(bias.reshape(1, -1, 1, 1)))
        if index < last:
            y = ops.relu(y)
    # As a convolution: of the ways to say it, the one that the CPU plugin adds in place.
    base = ops.convolution(picture, ops.constant(_enlargement(spec)), [1, 1], [1, 1], [1, 1], [1, 1], name="base")
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
            remedy=say("Install a newer openvino, or use {precision=fp32}."),
        ) from error


def with_pixels(graph: Any, dtype: type[np.uint8] | type[np.float32]) -> Any:
    """The graph between pictures as they lie in memory.

    Args:
        graph: as `build_graph` gives it; left as it is.
        dtype: of input and output, pictures as `folded` gives them and as `interleaved` takes them, `(1, H / fold,
            W / fold, 3 * fold**2)` and `(1, H / fold, W / fold, 3 * (scale * fold)**2)`: uint8 in 0..255, rounded
            half up and clamped; or float32 in [0, 1], not clamped.
    """
    openvino = load_openvino()
    ops = openvino.opset13
    inner = graph.clone()
    channels = inner.get_parameters()[0].get_partial_shape()[1].get_length()
    pixels = ops.parameter([1, -1, -1, channels], dtype, name="pixels")
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


def _enlargement(spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Weights of the convolution that enlarges all three colours: `bilinear`, and nothing from one to another."""
    one = bilinear(spec.scale, spec.fold)
    outputs, inputs = one.shape[:2]
    every = np.zeros((outputs, 3, inputs, 3, 3, 3), np.float32)
    for colour in range(3):
        every[:, colour, :, colour] = one
    return every.reshape(3 * outputs, 3 * inputs, 3, 3)


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
