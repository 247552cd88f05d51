"""Networks as ONNX graphs from the source's pixels to the result's, for ONNX Runtime's WebGPU provider.

Every operator is one that the provider has: a graph of which a node would run on the CPU does not load. Cells of pixels
and the order of their channels are those of `openvino_graph`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keyscale.engine.models.enlarger import RESIDUAL, SLOPE
from keyscale.engine.models.openvino_graph import cell_order, convolution, enlargement, tensor
from keyscale.engine.models.registry import ModelSpec

__all__ = ["build_onnx"]

OPSET, IR_VERSION = 18, 9
"""Of ONNX 1.14, which every ONNX Runtime reads that takes the provider."""

AXES = (2, 3)
"""Rows and columns of the layout `(1, channels, H, W)`."""


class _Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self, *, half: bool) -> None:
        from onnx import TensorProto, helper, numpy_helper

        self.types, self.helper, self.arrays = TensorProto, helper, numpy_helper
        self.half = half
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: npt.ArrayLike, dtype: type = np.float32) -> str:
        """The name of a new constant."""
        name = f"constant{len(self.constants)}"
        self.constants.append(self.arrays.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The name of what a new node gives."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def convolved(self, x: str, weight: npt.ArrayLike, bias: npt.ArrayLike) -> str:
        """A 3x3 convolution that keeps the size, in the network's own arithmetic."""
        dtype = np.float16 if self.half else np.float32
        given = self.constant(weight, dtype), self.constant(bias, dtype)
        return self.op("Conv", x, *given, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def leaky(self, x: str) -> str:
        """The LeakyReLU of RRDB networks."""
        return self.op("LeakyRelu", x, alpha=SLOPE)

    def single(self, x: str) -> str:
        """The same in fp32."""
        return self.op("Cast", x, to=self.types.FLOAT) if self.half else x


def build_onnx(state: Mapping[str, Any], spec: ModelSpec, *, half: bool, floats: bool) -> bytes:
    """A network as a serialised ONNX model.

    Args:
        state: arrays or CPU tensors by the keys of the network in torch, any float type.
        spec: what they are.
        half: compute in fp16, but for the enlarged input and the sum with it.
        floats: pictures are float32 in [0, 1], what comes out not clamped; else uint8, rounded half up.

    Returns:
        A graph with the inputs `pixels`, `(1, H / fold, W / fold, 3 * fold**2)` as `folded` gives them, and `begin` and
        `end`, int64 `(2,)`: row and column of the part that is wanted and of its end, in cells. Of an RRDB network
        these count features, and `shown_begin` and `shown_end` tell which pixels of their enlargement are wanted. The
        output is `result`, `(1, scale * H, scale * W, 3)` of that part.

    Raises:
        ModelError: a tensor is absent, of another shape, or holds NaN.
    """
    graph = _Graph(half=half)
    types, value = graph.types, graph.helper.make_tensor_value_info
    kind = types.FLOAT if floats else types.UINT8
    cells = "pixels"
    if not floats:
        cells = graph.op("Mul", graph.op("Cast", cells, to=types.FLOAT), graph.constant(1 / 255))
    picture = graph.op("Transpose", cells, perm=[0, 3, 1, 2])
    x = graph.op("Cast", picture, to=types.FLOAT16) if half else picture
    inputs = ["begin", "end"]
    if spec.architecture == "rrdb":
        inputs += ["shown_begin", "shown_end"]
        y = graph.single(_rrdb(graph, state, spec, x))
        y = graph.op("Slice", y, "shown_begin", "shown_end", graph.constant(AXES, np.int64))
    else:
        y = graph.single(_stack(graph, state, spec, x))
        y = graph.op("Add", y, _base(graph, spec, picture))
        y = graph.op("Slice", y, "begin", "end", graph.constant(AXES, np.int64))
        if spec.scale * spec.align > 1:
            y = graph.op("DepthToSpace", y, blocksize=spec.scale * spec.align, mode="DCR")
    if not floats:
        codes = graph.op("Mul", graph.op("Clip", y, graph.constant(0), graph.constant(1)), graph.constant(255))
        y = graph.op("Floor", graph.op("Add", codes, graph.constant(0.5)))
    y = graph.op("Transpose", y, perm=[0, 2, 3, 1])
    graph.nodes.append(graph.helper.make_node("Cast", [y], ["result"], to=kind))
    model = graph.helper.make_model(
        graph.helper.make_graph(
            graph.nodes,
            spec.name,
            [
                value("pixels", kind, [1, "height", "width", 3 * spec.align**2]),
                *(value(name, types.INT64, [2]) for name in inputs),
            ],
            [value("result", kind, [1, "result_height", "result_width", 3])],
            graph.constants,
        ),
        opset_imports=[graph.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    serialised: bytes = model.SerializeToString()
    return serialised


def _stack(graph: _Graph, state: Mapping[str, Any], spec: ModelSpec, x: str) -> str:
    """What a plain or SRVGG network adds to the enlarged input, `(1, 3 * side**2, H / fold, W / fold)`."""
    is_plain, last = spec.architecture == "plain", spec.blocks + 1
    ends = 3 * spec.align**2, 3 * (spec.scale * spec.align) ** 2
    for index in range(last + 1):
        key = f"convs.{index}" if is_plain else f"body.{2 * index}"
        shape = (spec.features if index < last else ends[1], spec.features if index else ends[0])
        weight, bias = convolution(state, key, shape, spec)
        if index == 0:
            weight = weight[:, cell_order(spec.align)]
        if index == last:
            order = cell_order(spec.scale * spec.align)
            weight, bias = weight[order], bias[order]
        x = graph.convolved(x, weight, bias)
        if index < last and is_plain:
            x = graph.op("Relu", x)
        elif index < last:
            slopes = tensor(state, f"body.{2 * index + 1}.weight", (spec.features,), spec)
            x = graph.op("PRelu", x, graph.constant(slopes[:, None, None], np.float16 if graph.half else np.float32))
    return x


def _base(graph: _Graph, spec: ModelSpec, picture: str) -> str:
    """The enlarged input that a plain or SRVGG network is added to, in fp32."""
    if spec.architecture == "plain":
        weight = enlargement(spec)
        return graph.op("Conv", picture, graph.constant(weight), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    repeated = np.tile(np.eye(3, dtype=np.float32), (spec.scale**2, 1))[:, :, None, None]
    return graph.op("Conv", picture, graph.constant(repeated), kernel_shape=[1, 1])


def _rrdb(graph: _Graph, state: Mapping[str, Any], spec: ModelSpec, x: str) -> str:
    """The pixels of an RRDB network from its features between `begin` and `end`, `(1, 3, 4 * rows, 4 * columns)`."""
    square = (spec.features, spec.features)
    share = np.float32(RESIDUAL)
    weight, bias = convolution(state, "conv_first", (spec.features, 3 * spec.align**2), spec)
    first = y = graph.convolved(x, weight[:, cell_order(spec.align)], bias)
    scale = graph.constant(share, np.float16 if graph.half else np.float32)
    for block in range(spec.blocks):
        z = y
        for dense in (1, 2, 3):
            seen, begun = [z], z
            for layer in (1, 2, 3, 4, 5):
                channels = spec.features + (layer - 1) * spec.growth
                shape = (spec.growth if layer < 5 else spec.features, channels)
                weight, bias = convolution(state, f"body.{block}.rdb{dense}.conv{layer}", shape, spec)
                joined = graph.op("Concat", *seen, axis=1) if len(seen) > 1 else z
                if layer < 5:
                    seen.append(graph.leaky(graph.convolved(joined, weight, bias)))
                else:
                    z = graph.op("Add", graph.convolved(joined, share * weight, share * bias), begun)
        y = graph.op("Add", graph.op("Mul", z, scale), y)
    y = graph.op("Add", first, graph.convolved(y, *convolution(state, "conv_body", square, spec)))
    y = graph.op("Slice", y, "begin", "end", graph.constant(AXES, np.int64))
    for key in ("conv_up1", "conv_up2"):
        y = graph.op(
            "Resize", y, "", graph.constant([1, 1, 2, 2]),
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        y = graph.leaky(graph.convolved(y, *convolution(state, key, square, spec)))
    y = graph.leaky(graph.convolved(y, *convolution(state, "conv_hr", square, spec)))
    return graph.convolved(y, *convolution(state, "conv_last", (3, spec.features), spec))
