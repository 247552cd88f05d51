"""The teacher's pictures of many tiles.

On a CPU its network runs through OpenVINO, in bfloat16 where the CPU computes that fast (AMX): about ten times as fast
as torch in float32, and 52 dB from it on photographs, where a student is at most 36 dB from its teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from keyscale.engine.models.inference import load_openvino
from keyscale.engine.models.networks import SRVGGNetCompact

if TYPE_CHECKING:
    from keyscale.engine.models.model import Model

__all__ = ["Teacher", "srvgg_graph"]

Pixels = npt.NDArray[np.uint8]


class Teacher:
    """A function from RGB uint8 `(N, H, W, 3)` to `(N, scale * H, scale * W, 3)`.

    Attributes:
        batch: pictures to give it at once.
        note: what decides its results, for the note beside them.
    """

    def __init__(self, model: Model) -> None:
        """`model`: loaded where it is to run; an SRVGG network where that is the CPU."""
        self.scale = model.spec.scale
        self.note = {"teacher": model.spec.name, "teacher_sha256": model.sha256, "teacher_runs": "torch fp32"}
        self.batch = 32
        self._model, self._compiled = model, None
        if model.device.type == "cpu":
            openvino = load_openvino()
            core = openvino.Core()
            # Without AMX bfloat16 is emulated, or slower than float32.
            fast = "amx_bf16" in _cpu_flags() and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            kind = "bf16" if fast else "f32"
            self._compiled = core.compile_model(srvgg_graph(model), "CPU", {"INFERENCE_PRECISION_HINT": kind})
            self.note["teacher_runs"] = f"openvino {kind}"
            self.batch = 4

    def __call__(self, low: Pixels) -> Pixels:
        """The teacher's pictures."""
        x = torch.from_numpy(np.array(low)).permute(0, 3, 1, 2).float().div_(255).contiguous()
        if self._compiled is None:
            y = self._model(x.to(self._model.device)).float().cpu()
        else:
            y = torch.from_numpy(next(iter(self._compiled(x.numpy()).values())))
        return y.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 - grows while it is read
            return next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return set()


def srvgg_graph(model: Model) -> Any:
    """An SRVGG network as an `openvino.Model` in float32: `(N, 3, H, W)` -> `(N, 3, scale*H, scale*W)`, not clamped."""
    network = model.network
    assert isinstance(network, SRVGGNetCompact)
    openvino = load_openvino()
    ops = openvino.opset13
    x = y = ops.parameter([-1, 3, -1, -1], np.float32, name="picture")
    convolutions, activations = network.stack()
    for index, layer in enumerate(convolutions):
        assert layer.bias is not None
        weight, bias = (value.detach().float().contiguous().numpy() for value in (layer.weight, layer.bias))
        y = ops.convolution(y, ops.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1])
        y = ops.add(y, ops.constant(bias.reshape(1, -1, 1, 1)))
        if index < len(activations):
            slopes = activations[index]
            assert isinstance(slopes, torch.nn.PReLU)
            y = ops.prelu(y, ops.constant(slopes.weight.detach().float().numpy()))
    repeat = np.repeat(np.eye(3, dtype=np.float32), model.spec.scale**2, axis=0).reshape(-1, 3, 1, 1)
    y = ops.add(y, ops.convolution(x, ops.constant(repeat), [1, 1], [0, 0], [0, 0], [1, 1]))
    y = ops.depth_to_space(y, "depth_first", model.spec.scale)
    return openvino.Model([y], [x], model.spec.name)
