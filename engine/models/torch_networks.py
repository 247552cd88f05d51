"""The networks as torch modules: Real-ESRGAN's two, with the keys of the official weights files, and keyscale's own.

`SRVGGNetCompact` is a stack of 3x3 convolutions with learned activations, `RRDBNet` the generator of ESRGAN, and
`PlainNet` a stack of convolutions and ReLUs, small enough to be shipped. All are fully convolutional, pad with zeros
at the border, and take and give RGB in [0, 1] (the result may overshoot).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from keyscale.engine.errors import Interrupted, ModelError
from keyscale.engine.models.enlarger import RESIDUAL, SLOPE, TAIL_HALO, bilinear
from keyscale.engine.models.registry import Architecture, ModelSpec

__all__ = [
    "Network",
    "PlainNet",
    "RRDBNet",
    "SRVGGNetCompact",
    "build",
    "check_stop",
    "folded",
    "inspect",
]

StateDict = Mapping[str, Tensor]
ShouldStop = Callable[[], bool]

FOLDS = {3: 1, 12: 2}
"""`fold` of a plain network by the channels of its first convolution."""
TAIL_ROWS = 64
"""Rows of features that RRDBNet's tail enlarges at once: bounds its memory, at 2 * `TAIL_HALO` rows a strip."""


def check_stop(should_stop: ShouldStop | None) -> None:
    """Leave a long forward pass when asked to.

    Raises:
        Interrupted: `should_stop()` is true.
    """
    if should_stop is not None and should_stop():
        raise Interrupted("stopped while a frame was being upscaled")


def folded(x: Tensor, fold: int) -> Tensor:
    """Cells of pixels to channels, as `torch.pixel_unshuffle`: `(N, 3, H, W)` -> `(N, 3*fold**2, H/fold, W/fold)`."""
    return x if fold == 1 else functional.pixel_unshuffle(x, fold).contiguous(memory_format=torch.channels_last)


class SRVGGNetCompact(nn.Module):
    """Convolution and PReLU, `blocks + 1` times, a last convolution, pixel shuffle, plus the input repeated."""

    def __init__(self, *, features: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.fold = 1
        self.body = nn.ModuleList([nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)])
        for _ in range(blocks):
            self.body.extend([nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)])
        self.body.append(nn.Conv2d(features, 3 * scale**2, 3, padding=1))

    def forward(self, x: Tensor, should_stop: ShouldStop | None = None) -> Tensor:
        """`(N, 3, H, W)` -> `(N, 3, scale*H, scale*W)`; `should_stop` is asked before every layer."""
        y = x
        for layer in self.body:
            check_stop(should_stop)
            y = layer(y)
        # Each input pixel repeated; before the shuffle that is the same sum, on a part of the pixels.
        count, _, height, width = y.shape
        y.view(count, 3, self.scale**2, height, width).add_(x.unsqueeze(2))
        shuffled: Tensor = functional.pixel_shuffle(y, self.scale)
        return shuffled


class PlainNet(nn.Module):
    """Convolution and ReLU, `blocks + 1` times, a last convolution, pixel shuffle, plus the input enlarged bilinearly.

    With `fold` 2 it first folds 2x2 pixels into channels: its convolutions then run on a quarter of the pixels.
    """

    def __init__(self, *, features: int, blocks: int, scale: int, fold: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.fold = fold
        self.fused = False
        """Convolution, bias and ReLU in one kernel, which cuDNN alone has: as passes of their own the latter two are
        half of what moves through memory."""
        channels = [3 * fold**2, *[features] * (blocks + 1), 3 * (scale * fold) ** 2]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))
        self.base: Tensor
        self.register_buffer("base", torch.from_numpy(bilinear(scale, fold)).repeat(3, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor, should_stop: ShouldStop | None = None) -> Tensor:
        """`(N, 3, H, W)`, sides multiples of `fold` -> `(N, 3, scale*H, scale*W)`.

        `should_stop` is asked before every layer.
        """
        x = folded(x, self.fold)
        y = x
        for conv in self.convs[:-1]:
            assert isinstance(conv, nn.Conv2d)
            check_stop(should_stop)
            if self.fused:
                y = torch.cudnn_convolution_relu(y, conv.weight, conv.bias, (1, 1), (1, 1), (1, 1), 1)
            else:
                y = functional.relu(conv(y), inplace=True)
        check_stop(should_stop)
        y = self.convs[-1](y).add_(functional.conv2d(x, self.base, padding=1, groups=3))
        shuffled: Tensor = functional.pixel_shuffle(y, self.scale * self.fold)
        return shuffled


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it, and a weighted residual."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, features, H, W)` -> the same shape."""
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, functional.leaky_relu(conv(seen), SLOPE, inplace=True)), 1)
        return torch.add(x, self.conv5(seen), alpha=RESIDUAL)


class ResidualBlock(nn.Module):
    """Three dense blocks within a weighted residual (RRDB)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, features, H, W)` -> the same shape."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL)


class RRDBNet(nn.Module):
    """ESRGAN's generator; below x4 it first folds 2x2 (x2) or 4x4 (x1) pixels into channels."""

    def __init__(self, *, features: int, blocks: int, scale: int, growth: int = 32) -> None:
        super().__init__()
        self.scale = scale
        self.unshuffle = 4 // scale
        self.conv_first = nn.Conv2d(3 * self.unshuffle**2, features, 3, padding=1)
        self.body = nn.ModuleList(ResidualBlock(features, growth) for _ in range(blocks))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x: Tensor, should_stop: ShouldStop | None = None) -> Tensor:
        """`(N, 3, H, W)`, sides multiples of `4 / scale` -> `(N, 3, scale*H, scale*W)`.

        `should_stop` is asked before every block and every strip of the tail.
        """
        first = self.conv_first(functional.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x)
        y = first
        for block in self.body:
            check_stop(should_stop)
            y = block(y)
        y = first + self.conv_body(y)
        rows = y.shape[2]
        strips = []
        for top in range(0, rows, TAIL_ROWS):
            check_stop(should_stop)
            above = min(top, TAIL_HALO)
            strip = self._enlarge(y[:, :, top - above : top + TAIL_ROWS + TAIL_HALO])
            strips.append(strip[:, :, 4 * above : 4 * (above + min(TAIL_ROWS, rows - top))])
        return strips[0] if len(strips) == 1 else torch.cat(strips, 2)

    def _enlarge(self, y: Tensor) -> Tensor:
        for conv in (self.conv_up1, self.conv_up2):
            y = functional.leaky_relu(conv(functional.interpolate(y, scale_factor=2)), SLOPE, inplace=True)
        result: Tensor = self.conv_last(functional.leaky_relu(self.conv_hr(y), SLOPE, inplace=True))
        return result


Network = SRVGGNetCompact | PlainNet | RRDBNet


def _last_layer(state: StateDict, pattern: str, name: str) -> int:
    # Each layer has a tensor at least; a number far beyond would have a network built that no memory holds.
    last = max(int(match[1]) for key in state if (match := re.match(pattern, key)))
    if last >= len(state):
        raise ModelError(f"{name} has {len(state)} tensors, and numbers its layers up to {last}")
    return last


def _four_dimensional(state: StateDict, key: str) -> tuple[int, int]:
    weight = state[key]
    if weight.ndim != 4 or tuple(weight.shape[2:]) != (3, 3):
        raise ModelError(f"{key} has the shape {tuple(weight.shape)}; a 3x3 convolution was expected")
    return weight.shape[0], weight.shape[1]


def _inspect_srvgg(state: StateDict, name: str) -> ModelSpec:
    last = _last_layer(state, r"body\.(\d{1,9})\.weight$", name)
    features, channels = _four_dimensional(state, "body.0.weight")
    out, _ = _four_dimensional(state, f"body.{last}.weight")
    scale = round((out / 3) ** 0.5)
    if channels != 3 or last < 2 or last % 2 or out != 3 * scale**2:
        raise ModelError(
            f"{name} is an SRVGG checkpoint with {channels} input channels, {last // 2} activations and {out} "
            "channels at the end; 3 input channels and 3*scale*scale at the end were expected"
        )
    if "body.1.weight" not in state:
        raise ModelError(
            f"{name} is an SRVGG checkpoint without PReLU slopes (body.1.weight): its activation is not known"
        )
    return _spec(name, "srvgg", scale=scale, features=features, blocks=last // 2 - 1)


def _inspect_rrdb(state: StateDict, name: str) -> ModelSpec:
    features, channels = _four_dimensional(state, "conv_first.weight")
    growth, _ = _four_dimensional(state, "body.0.rdb1.conv1.weight")
    scales = {3: 4, 12: 2, 48: 1}
    if channels not in scales:
        raise ModelError(
            f"{name} is an RRDBNet checkpoint with {channels} input channels; 3 (x4), 12 (x2) or 48 (x1) were expected"
        )
    blocks = _last_layer(state, r"body\.(\d{1,9})\.", name) + 1
    return _spec(name, "rrdb", scale=scales[channels], features=features, blocks=blocks, growth=growth)


def _inspect_plain(state: StateDict, name: str) -> ModelSpec:
    last = _last_layer(state, r"convs\.(\d{1,9})\.weight$", name)
    features, channels = _four_dimensional(state, "convs.0.weight")
    out, _ = _four_dimensional(state, f"convs.{last}.weight")
    fold = FOLDS.get(channels, 1)
    scale = round((out / 3) ** 0.5) // fold
    if channels not in FOLDS or last < 1 or scale < 1 or out != 3 * (scale * fold) ** 2:
        raise ModelError(
            f"{name} is a plain checkpoint with {channels} input channels, {last + 1} convolutions and {out} "
            "channels at the end; 3 input channels and 3*scale*scale at the end were expected, or four times as many "
            "of both"
        )
    return _spec(name, "plain", scale=scale, features=features, blocks=last - 1, fold=fold)


def _spec(
    name: str, architecture: Architecture, *, scale: int, features: int, blocks: int, growth: int = 32, fold: int = 1
) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="custom",
        architecture=architecture,
        scale=scale,
        features=features,
        blocks=blocks,
        growth=growth,
        fold=fold,
        licence="unknown",
    )


def inspect(state: StateDict, *, name: str = "checkpoint") -> ModelSpec:
    """Read the architecture off a state dict's keys and shapes.

    Raises:
        ModelError: not a network of these kinds; the message says what was found.
    """
    if "conv_first.weight" in state and "body.0.rdb1.conv1.weight" in state:
        return _inspect_rrdb(state, name)
    if "body.0.weight" in state:
        return _inspect_srvgg(state, name)
    if "convs.0.weight" in state:
        return _inspect_plain(state, name)
    found = ", ".join(list(state)[:3]) or "nothing"
    raise ModelError(
        f"{name} is not a Real-ESRGAN network: its {len(state)} tensors begin with {found}",
        remedy="keyscale reads SRVGGNetCompact and RRDBNet checkpoints with Real-ESRGAN's own key names, and its own. "
        "Other networks run as ONNX files.",
    )


def _empty(facts: ModelSpec) -> Network:
    shape = {"features": facts.features, "blocks": facts.blocks, "scale": facts.scale}
    match facts.architecture:
        case "srvgg":
            return SRVGGNetCompact(**shape)
        case "plain":
            return PlainNet(**shape, fold=facts.fold)
        case "rrdb":
            return RRDBNet(**shape, growth=facts.growth)
        case "foreign":
            raise ModelError(f"{facts.name} is no network of torch's")


def build(state: StateDict, *, name: str = "checkpoint") -> tuple[Network, ModelSpec]:
    """The network that a state dict belongs to, holding its tensors, in evaluation mode without gradients.

    Args:
        state: tensors by key; taken over, not copied.
        name: how messages and the description call it.

    Raises:
        ModelError: not a network of these kinds, or keys or shapes that do not fit together.
    """
    facts = inspect(state, name=name)
    # Parameters without storage: initialising what a checkpoint replaces takes longer than loading it.
    with torch.device("meta"):
        network = _empty(facts)
    try:
        network.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ModelError(
            f"{name} looks like {facts.architecture} x{facts.scale} with {facts.features} features and "
            f"{facts.blocks} blocks, but does not fit: {' '.join(lines[1:3])[:400]}"
        ) from error
    return network.eval().requires_grad_(False), facts
