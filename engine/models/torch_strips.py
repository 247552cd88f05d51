"""Stacks of convolutions on the CPU in strips of rows: the numbers of the usual forward pass, a fraction of its memory.

A strip goes through all layers before the next one starts. Every convolution keeps the last two rows of its input
and puts them before the next strip's, so nothing is computed twice and no layer's whole activation ever exists:
what a strip needs stays in the processor's cache. Each layer lags one row behind the one before it; the last
strip, which brings the zero rows below the picture, lets them all catch up.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from keyscale.engine.models.torch_networks import ShouldStop, Stack, check_stop, folded

__all__ = ["STRIP_PIXELS", "forward", "strip_rows"]

STRIP_PIXELS = 16384
"""Pixels of a strip on the grid of the convolutions, batch and width included: 4 MB of 64-channel fp32 activations.
Where it was measured, sizes from 8,000 to 32,000 were equally fast."""
MIN_ROWS, MAX_ROWS = 8, 64


def strip_rows(batch: int, width: int) -> int:
    """Rows of a strip for pictures of that many columns."""
    return min(max(STRIP_PIXELS // (batch * width), MIN_ROWS), MAX_ROWS)


def forward(network: Stack, x: Tensor, should_stop: ShouldStop | None = None, *, rows: int | None = None) -> Tensor:
    """What `network(x)` gives, computed strip by strip.

    Args:
        network: on the CPU.
        x: RGB `(N, 3, H, W)` of the network's dtype, channels last; the network's `fold` divides H and W.
        should_stop: asked before every strip.
        rows: of a strip, on the grid of the convolutions; `strip_rows` by default.

    Returns:
        `(N, 3, scale*H, scale*W)`, contiguous.

    Raises:
        Interrupted: `should_stop` said so.
    """
    x = folded(x, network.fold)
    count, _, height, width = x.shape
    side = network.scale * network.fold
    step = rows or strip_rows(count, width)
    result = x.new_empty((count, 3, side * height, side * width))
    layers = _Layers(network, x, min(step, height))
    done = 0
    for top in range(0, height, step):
        check_stop(should_stop)
        body = layers.feed(x[:, :, top : top + step], last=top + step >= height)
        if body.shape[2]:
            ready = done + body.shape[2]
            result[:, :, side * done : side * ready] = network.shuffled_onto(body, x, done)
            done = ready
    return result


class _Layers:
    """The convolutions of a network, each with the input rows that its next result still needs.

    All buffers are made once: kept rows that came and went between the strips' own allocations would leave the
    heap full of holes, larger than the memory that strips save.
    """

    def __init__(self, network: Stack, like: Tensor, rows: int) -> None:
        """For pictures like `like`, in strips of at most `rows` rows."""
        self.convolutions, self.activations = network.stack()
        self.like = like
        self.kept = [self._rows(like.new_zeros(self._size(conv, 2)), conv, 2) for conv in self.convolutions]
        # The row of zeros above the picture.
        self.count = [1] * len(self.convolutions)
        # The last strip grows by a row in every layer; three more are those kept and the zeros below.
        most = rows + len(self.convolutions) + 3
        self.buffer = like.new_empty(max(self._size(conv, most) for conv in self.convolutions))

    def _size(self, conv: nn.Conv2d, rows: int) -> int:
        return self.like.shape[0] * conv.in_channels * rows * self.like.shape[3]

    def _rows(self, storage: Tensor, conv: nn.Conv2d, rows: int) -> Tensor:
        """So many rows of a convolution's input at the start of a flat storage, channels last."""
        count, _, _, width = self.like.shape
        flat = storage[: self._size(conv, rows)]
        return flat.view(count, rows, width, conv.in_channels).permute(0, 3, 1, 2)

    def feed(self, rows: Tensor, *, last: bool) -> Tensor:
        """Rows of the picture in, those rows of the last convolution out that are ready by now (maybe none)."""
        for index, conv in enumerate(self.convolutions):
            before = self.count[index]
            seen = self._rows(self.buffer, conv, before + rows.shape[2] + last)
            seen[:, :, :before] = self.kept[index][:, :, :before]
            seen[:, :, before : before + rows.shape[2]] = rows
            if last:
                seen[:, :, -1] = 0
            self.count[index] = after = min(2, seen.shape[2])
            self.kept[index][:, :, :after] = seen[:, :, -after:]
            if seen.shape[2] < 3:
                return rows.new_empty((rows.shape[0], self.convolutions[-1].out_channels, 0, rows.shape[3]))
            rows = functional.conv2d(seen, conv.weight, conv.bias, padding=(0, 1))
            if index < len(self.activations):
                rows = self.activations[index](rows)
        return rows
