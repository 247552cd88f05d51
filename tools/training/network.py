"""A network in its training form: kernels between the first and the last convolution are added to the identity.

A layer that does nothing but hand its input through is then the zero kernel, which is where learning starts (the
identity branch of RepVGG, arXiv 2101.03697). The branch is linear, so it is folded into the kernel: in training before
the convolution runs, and for good in `plain`, where the plain network is what remains.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TrainedNet"]


class IdentityConv(nn.Module):
    """A 3x3 convolution with as many outputs as inputs, and the identity within its kernel."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.randn(features, features, 3, 3) * (0.5 / math.sqrt(9 * features)))
        self.bias = nn.Parameter(torch.zeros(features))

    def kernel(self) -> Tensor:
        """`(features, features, 3, 3)`."""
        centre = torch.eye(self.free.shape[0], device=self.free.device, dtype=self.free.dtype)
        return self.free + functional.pad(centre[:, :, None, None], (1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, features, H, W)` -> the same shape, zeros beyond the border."""
        kernel = self.kernel().contiguous(memory_format=torch.channels_last)
        return functional.conv2d(x, kernel, self.bias, padding=1)


def _grained(y: Tensor, grain: torch.Generator | None) -> Tensor:
    if grain is None:
        return y
    step = y.detach().amax() / 255
    # The same for all pictures of a batch: drawing takes as long as convolving does.
    return y + step * (torch.rand(y.shape[1:], generator=grain, device=y.device) - 0.5)


class TrainedNet(nn.Module):
    """Fold, convolution and ReLU `blocks + 1` times, a last convolution, pixel shuffle, plus the enlarged input.

    That is bilinear: where each pixel is repeated, as in Real-ESRGAN's small networks, ones as small as these leave
    its steps in smooth colours.
    """

    def __init__(self, *, features: int, blocks: int, scale: int, fold: int = 1) -> None:
        super().__init__()
        self.features, self.blocks, self.scale, self.fold = features, blocks, scale, fold
        self.first = nn.Conv2d(3 * fold**2, features, 3, padding=1)
        self.middle = nn.ModuleList(IdentityConv(features) for _ in range(blocks))
        self.last = nn.Conv2d(features, 3 * (scale * fold) ** 2, 3, padding=1)
        # Nearly nothing at first: the picture enlarged is a better start than noise.
        nn.init.normal_(self.last.weight, std=0.1 / math.sqrt(9 * features))
        for bias in (self.first.bias, self.last.bias):
            assert bias is not None
            nn.init.zeros_(bias)

    def forward(self, x: Tensor, grain: torch.Generator | None = None) -> Tensor:
        """RGB in [0, 1], `(N, 3, H, W)` -> `(N, 3, scale*H, scale*W)`, not clamped; sides are multiples of `fold`.

        With `grain` hidden activations get noise as strong as rounding them to 8 bits would be (quantisation noise,
        arXiv 2004.07320).
        """
        y = _grained(functional.relu(self.first(functional.pixel_unshuffle(x, self.fold))), grain)
        for conv in self.middle:
            y = _grained(functional.relu(conv(y)), grain)
        enlarged = functional.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return functional.pixel_shuffle(self.last(y), self.scale * self.fold) + enlarged

    def plain(self) -> dict[str, Tensor]:
        """The weights of the plain network, named as `keyscale.engine.models.torch_networks` reads them."""
        state = {}
        for index, layer in enumerate([self.first, *self.middle, self.last]):
            weight = layer.kernel() if isinstance(layer, IdentityConv) else layer.weight
            for name, value in (("weight", weight), ("bias", layer.bias)):
                assert isinstance(value, Tensor)
                state[f"convs.{index}.{name}"] = value.detach().float().cpu().contiguous().clone()
        return state
