"""Pictures of Real-ESRGAN's small networks, many of them: on a CPU through OpenVINO, in a fraction of torch's time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from keyscale.engine.models.inference import load_openvino
from keyscale.engine.models.networks import SRVGGNetCompact

if TYPE_CHECKING:
    from keyscale.engine.models.model import Model

__all__ = ["Teacher"]

Pixels = npt.NDArray[np.uint8]


class Teacher:
    """A function from RGB uint8 `(N, H, W, 3)` to `(N, scale * H, scale * W, 3)`.

    Attributes:
        batch: pictures to give it at once.
        note: what decides its results, for the note beside them.
    """

    def __init__(self, model: Model, *, exact: bool = False) -> None:
        """Nothing is computed yet.

        Args:
            model: loaded where it is to run; an SRVGG network where that is the CPU.
            exact: in float32, which gives torch's pictures but for rounding, a code at most. Otherwise OpenVINO
                chooses: on a CPU with AMX bfloat16, five times as fast as its float32 and 52 dB from it on photographs,
                where a student is at most 36 dB from its teacher.
        """
        self.scale = model.spec.scale
        self.batch = 32
        self._model, self._compiled = model, None
        runs = "torch fp32"
        if model.device.type == "cpu":
            wanted = {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
            self._compiled = load_openvino().Core().compile_model(_graph(model), "CPU", wanted)
            runs = f"openvino {self._compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()}"
            self.batch = 4
        self.note = {"teacher": model.spec.name, "teacher_sha256": model.sha256, "teacher_runs": runs}

    def __call__(self, low: Pixels) -> Pixels:
        """The teacher's pictures."""
        x = torch.from_numpy(np.array(low)).permute(0, 3, 1, 2).float().div_(255).contiguous()
        if self._compiled is None:
            y = self._model(x.to(self._model.device)).float().cpu()
        else:
            y = torch.from_numpy(next(iter(self._compiled(x.numpy()).values())))
        pixels = y.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return pixels.contiguous().numpy()


def _graph(model: Model) -> Any:
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
