"""Networks as OpenVINO graphs, and the same between integer pixels.

Up to the end everything of a stack of convolutions stays on one grid: the input's, or for a network that folds the one
of its cells. Where cells of pixels are channels, these stand in the order in which a cell lies in memory (row, column,
colour), so that taking a picture apart into cells, and putting the result's cells into their rows, copies runs of whole
rows of a cell. An RRDB network is two graphs: the trunk, and the tail, which needs twenty times the memory a pixel and
is therefore run on a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from keyscale.engine.errors import ModelError
from keyscale.engine.models.enlarger import RESIDUAL, SLOPE, bilinear
from keyscale.engine.models.openvino import load_openvino
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.wording import say

__all__ = [
    "UNQUANTISED",
    "build_graph",
    "build_tail",
    "cell_order",
    "convolution",
    "enlargement",
    "folded",
    "interleaved",
    "read_graph",
    "tensor",
    "with_pixels",
]

Item = TypeVar("Item", bound=np.generic)

UNQUANTISED = ("base", "cells")
"""Nodes to leave out of quantisation: the enlarged input itself, and the sum with it."""

_SAME = ([1, 1], [1, 1], [1, 1], [1, 1])
"""Strides, padding before and behind, dilations of a 3x3 convolution that keeps the size."""


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
    """A network as an `openvino.Model`; of an RRDB network all that comes before its tail.

    Args:
        state: arrays or CPU tensors by the keys of the network in torch, any float type.
        spec: what they are.

    Returns:
        A graph of f32 with dynamic sides, `fold` being `spec.align`. A plain network's has the input `picture`,
        `(1, 3 * fold**2, H / fold, W / fold)`: RGB in [0, 1], as `folded` gives it but for the order of the axes. The
        others' is `codes`, twice as many channels: the same in 0..255, first the whole numbers and then the rest,
        both of which bf16 holds, whereas of a picture in [0, 1] it would keep eight bits at the best. The output is
        `cells`, `(1, 3 * side**2, H / fold, W / fold)` with `side = scale * fold`: channel
        `(row * side + column) * 3 + colour` of a cell of the result, nominally in [0, 1], not clamped. Of an RRDB
        network it is the `features` that `build_tail` takes.

    Raises:
        ModelError: a tensor is absent, of another shape, or holds NaN.
    """
    ops = load_openvino().opset13
    fold, side, is_plain = spec.align, spec.scale * spec.align, spec.architecture == "plain"
    channels = 3 * fold**2
    given = ops.parameter(
        [1, channels if is_plain else 2 * channels, -1, -1], np.float32, name="picture" if is_plain else "codes"
    )
    if spec.architecture == "rrdb":
        return _model(given, _trunk(state, spec, given), "features", spec.name)
    last, y = spec.blocks + 1, given
    keys = [f"convs.{index}" if is_plain else f"body.{2 * index}" for index in range(last + 1)]
    for index, key in enumerate(keys):
        shape = (spec.features if index < last else 3 * side**2, spec.features if index else channels)
        weight, bias = convolution(state, key, shape, spec)
        if index == 0:
            weight = weight[:, cell_order(fold)] if is_plain else _of_codes(weight, fold)
        if index == last:
            weight, bias = weight[cell_order(side)], bias[cell_order(side)]
        y = _convolved(y, weight, bias, key)
        if index < last and is_plain:
            y = ops.relu(y)
        elif index < last:
            y = ops.prelu(y, ops.constant(tensor(state, f"body.{2 * index + 1}.weight", (spec.features,), spec)))
    if is_plain:
        # As a convolution: of the ways to say it, the one that the CPU plugin adds in place.
        base = ops.convolution(given, ops.constant(enlargement(spec)), *_SAME, name="base")
    else:
        codes = ops.add(*ops.split(given, ops.constant(1), 2).outputs())
        repeated = ops.tile(codes, ops.constant(np.array([1, side**2, 1, 1])))
        base = ops.multiply(repeated, ops.constant(np.float32(1 / 255)), name="base")
    return _model(given, ops.add(y, base, name="cells"), "cells", spec.name)


def build_tail(state: Mapping[str, Any], spec: ModelSpec) -> Any:
    """What an RRDB network does from the features of its trunk on; None of other networks, which are one graph.

    Returns:
        A graph from `features`, f32 `(1, features, R, C)`, sides dynamic, to `cells`, f32 `(1, 3, 4 * R, 4 * C)`: the
        pixels, RGB, nominally in [0, 1], not clamped. A pixel depends on `TAIL_HALO` cells around its own.

    Raises:
        ModelError: as `build_graph`.
    """
    if spec.architecture != "rrdb":
        return None
    ops = load_openvino().opset13
    features = ops.parameter([1, spec.features, -1, -1], np.float32, name="features")
    y, square = features, (spec.features, spec.features)
    twice, axes = ops.constant(np.array([2, 2], np.float32)), ops.constant(np.array([2, 3]))
    for key in ("conv_up1", "conv_up2"):
        y = ops.interpolate(
            y, twice, "nearest", "scales", axes=axes,
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        y = _leaky(_convolved(y, *convolution(state, key, square, spec), key))
    y = _leaky(_convolved(y, *convolution(state, "conv_hr", square, spec), "conv_hr"))
    y = _convolved(y, *convolution(state, "conv_last", (3, spec.features), spec), "conv_last")
    return _model(features, y, "cells", f"{spec.name} tail")


def _trunk(state: Mapping[str, Any], spec: ModelSpec, codes: Any) -> Any:
    """The features of an RRDB network before they are enlarged, `(1, features, H / fold, W / fold)`."""
    ops = load_openvino().opset13
    weight, bias = convolution(state, "conv_first", (spec.features, 3 * spec.align**2), spec)
    first = y = _convolved(codes, _of_codes(weight, spec.align), bias, "conv_first")
    share = np.float32(RESIDUAL)
    for block in range(spec.blocks):
        z = y
        for dense in (1, 2, 3):
            seen, begun = [z], z
            for layer in (1, 2, 3, 4, 5):
                key = f"body.{block}.rdb{dense}.conv{layer}"
                channels = spec.features + (layer - 1) * spec.growth
                shape = (spec.growth if layer < 5 else spec.features, channels)
                weight, bias = convolution(state, key, shape, spec)
                joined = ops.concat(seen, 1) if len(seen) > 1 else z
                if layer < 5:
                    seen.append(_leaky(_convolved(joined, weight, bias, key)))
                else:
                    z = ops.add(_convolved(joined, share * weight, share * bias, key), begun)
        y = ops.add(ops.multiply(z, ops.constant(share)), y)
    return ops.add(first, _convolved(y, *convolution(state, "conv_body", (spec.features,) * 2, spec), "conv_body"))


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
    """The graph between pictures as they lie in memory; `features` at either end stay as they are.

    Args:
        graph: as `build_graph` or `build_tail` gives it; left as it is.
        dtype: of pictures as `folded` gives them and as `interleaved` takes them, `(1, H / fold, W / fold, channels)`.
            What comes out is uint8 in 0..255, rounded half up and clamped; or float32 in [0, 1], not clamped. What goes
            in is the same, but codes are codes in float32 too.
    """
    ops = load_openvino().opset13
    inner = graph.clone()
    given, result = inner.get_parameters()[0], inner.get_results()[0]
    z = result.input_value(0).get_node()
    takes, gives = given.get_friendly_name(), result.output(0).get_any_name()
    if takes != "features":
        channels = given.get_partial_shape()[1].get_length()
        pixels = ops.parameter([1, -1, -1, channels], dtype, name="pixels")
        y = pixels
        if dtype is np.uint8:
            y = ops.convert(y, np.float32)
        if dtype is np.uint8 and takes == "picture":
            y = ops.divide(y, ops.constant(np.float32(255)))
        y = ops.transpose(y, ops.constant(np.array([0, 3, 1, 2])))
        for target in given.output(0).get_target_inputs():
            target.replace_source_output(y.output(0))
        given = pixels
    if gives != "features":
        if dtype is np.uint8:
            # Before the transposition, where these fuse with the last convolution's result.
            scaled = ops.multiply(ops.clamp(z, 0.0, 1.0), ops.constant(np.float32(255)))
            z = ops.floor(ops.add(scaled, ops.constant(np.float32(0.5))))
        z = ops.transpose(z, ops.constant(np.array([0, 2, 3, 1])))
        if dtype is np.uint8:
            z = ops.convert(z, np.uint8)
    return _model(given, z, gives, graph.friendly_name)


def enlargement(spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Weights of the convolution that enlarges all three colours: `bilinear`, and nothing from one to another."""
    one = bilinear(spec.scale, spec.fold)
    outputs, inputs = one.shape[:2]
    every = np.zeros((outputs, 3, inputs, 3, 3, 3), np.float32)
    for colour in range(3):
        every[:, colour, :, colour] = one
    return every.reshape(3 * outputs, 3 * inputs, 3, 3)


def _of_codes(weight: npt.NDArray[np.float32], fold: int) -> npt.NDArray[np.float32]:
    """The weight of a first convolution for `codes`: both halves count alike."""
    return np.concatenate((weight[:, cell_order(fold)],) * 2, 1) / np.float32(255)


def _model(parameter: Any, result: Any, gives: str, name: str) -> Any:
    parameter.output(0).set_names({parameter.friendly_name})
    result.output(0).set_names({gives})
    return load_openvino().Model([result], [parameter], name)


def _convolved(x: Any, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], name: str) -> Any:
    ops = load_openvino().opset13
    y = ops.convolution(x, ops.constant(np.ascontiguousarray(weight)), *_SAME, name=name)
    return ops.add(y, ops.constant(bias.reshape(1, -1, 1, 1)))


def _leaky(x: Any) -> Any:
    ops = load_openvino().opset13
    return ops.prelu(x, ops.constant(np.array([SLOPE], np.float32)))


def convolution(
    state: Mapping[str, Any], key: str, channels: tuple[int, int], spec: ModelSpec
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weight and bias of a 3x3 convolution; `channels` are those of its output and of its input.

    Raises:
        ModelError: as `tensor`.
    """
    weight = tensor(state, f"{key}.weight", (*channels, 3, 3), spec)
    return weight, tensor(state, f"{key}.bias", channels[:1], spec)


def tensor(state: Mapping[str, Any], key: str, shape: tuple[int, ...], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """A tensor of a network.

    Raises:
        ModelError: it is absent, of another shape, or holds values that are not finite.
    """
    if key not in state:
        raise ModelError(f"{spec.name} has no tensor {key}")
    value = np.asarray(state[key]).astype(np.float32)
    if value.shape != shape:
        raise ModelError(f"{key} of {spec.name} has the shape {value.shape}, not {shape}")
    if not np.isfinite(value).all():
        raise ModelError(f"{key} of {spec.name} holds values that are not finite")
    return value
