"""Rows and columns of pictures resampled on a device, as products of small matrices in single precision.

A sample of the result depends on a few neighbours alone, so that a matrix from all of a row to all of the result would
be nearly all zeros: for a result of 1080x1920 from one of 1214x2160 22 billion multiplications instead of one.
`BLOCK` samples of the result at a time are a product of their own, with the samples that they read gathered before.

torch multiplies float32 matrices on CUDA without TF32 unless it is told otherwise, and nothing here tells it so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keyscale.engine.device.taps import Taps

__all__ = ["Bands", "resampled", "upload_bands"]

BLOCK = 32

MOST_GATHERED = 1 << 26
"""Samples that are gathered at once: 256 MiB. A frame of 1080x1920 from one of 2430x4320 gathers half as many."""


@dataclass(frozen=True, eq=False)
class Bands:
    """The weights of a row's resampling on a device."""

    count: int
    """Samples of the result."""
    read: Tensor
    """The samples that each block reads, one block after another `(blocks * span,)`, int32."""
    weights: Tensor
    """`(blocks, span, BLOCK)` float32."""


def upload_bands(all_taps: tuple[Taps, ...], send: Callable[[npt.NDArray[np.uint8]], Tensor]) -> tuple[Bands, ...]:
    """Weights on the device, sent in one piece: a few kilobytes for each direction.

    Args:
        all_taps: of the rows to resample.
        send: bytes in host memory -> the same on the device, without waiting.
    """
    most = max(taps.weights.shape[1] for taps in all_taps)
    blocks = [_Blocks(taps, most) for taps in all_taps]
    places = np.empty(sum(len(each.place) for each in blocks), np.int32)
    begin = place = 0
    for each in blocks:
        places[place : place + len(each.place)] = each.place + begin
        place, begin = place + len(each.place), begin + each.size
    weights = np.concatenate([each.weights for each in blocks])
    read = [each.read for each in blocks]
    ends = np.cumsum([0, *(part.nbytes for part in (weights, places, *read))])
    sent = send(np.concatenate([part.reshape(-1).view(np.uint8) for part in (weights, places, *read)]))
    parts = [sent[low:high] for low, high in pairwise(ends)]
    steps = torch.arange(most, device=sent.device) * BLOCK
    index = parts[1].view(torch.int32)[:, None] + steps
    flat = torch.zeros(begin, device=sent.device).scatter_(0, index.view(-1), parts[0].view(torch.float32))
    matrices = torch.split(flat, [each.size for each in blocks])
    return tuple(
        Bands(len(each.place), part.view(torch.int32), matrix.view(-1, each.span, BLOCK))
        for each, part, matrix in zip(blocks, parts[2:], matrices, strict=True)
    )


class _Blocks:
    """Taps by blocks: what each reads, and where each sample's first weight stands in its block."""

    def __init__(self, taps: Taps, most: int) -> None:
        count = len(taps.start)
        numbers = np.arange(count)
        first = np.minimum.reduceat(taps.start, numbers[::BLOCK])
        within = taps.start - np.repeat(first, BLOCK)[:count]
        self.span = int(within.max()) + most
        self.size = len(first) * self.span * BLOCK
        self.place = (numbers // BLOCK * self.span + within) * BLOCK + numbers % BLOCK
        self.read = np.minimum(first[:, None] + np.arange(self.span), taps.size - 1).astype(np.int32)
        self.weights = np.zeros((count, most), np.float32)
        self.weights[:, : taps.weights.shape[1]] = taps.weights


def resampled(
    picture: Tensor,
    across: Bands | None,
    down: Bands | None,
    *,
    between: Callable[[Tensor], Tensor],
    half: Tensor,
    columns_first: bool = False,
) -> Tensor:
    """A picture's rows resampled, and then its columns; or the other way about.

    Args:
        picture: `(C, H, W)` float32 or uint8.
        across, down: to which width and height; None leaves it.
        between: what is done with the first results, in place.
        half: what is added to each result, such as a half that is to be cut off; `(1, 1, 1)`.
        columns_first: the order.

    Returns:
        `(h, C, w)`, perhaps not contiguous: rows of the result hold their channels one after another.
    """
    lines = picture.permute(1, 0, 2)
    if columns_first and down is not None:
        lines = between(_columns(lines, down, half))
    if across is not None:
        # In strips, so that what is gathered of a large picture takes little memory.
        strip = max(1, MOST_GATHERED // (lines.shape[1] * across.read.numel()))
        made = [_rows(part, across, half) for part in torch.split(lines, strip)]
        lines = made[0] if len(made) == 1 else torch.cat(made)
        lines = lines if columns_first else between(lines)
    if down is not None and not columns_first:
        lines = _columns(lines, down, half)
    return lines.reshape(*lines.shape[:2], -1)[..., : across.count if across is not None else None]


def _rows(lines: Tensor, across: Bands, half: Tensor) -> Tensor:
    """`(H, C, W)` -> `(H, C, blocks, BLOCK)`."""
    height, channels = lines.shape[:2]
    blocks, span, _ = across.weights.shape
    read = lines.index_select(2, across.read).to(torch.float32).view(height * channels, blocks, span)
    rows = torch.baddbmm(half, read.permute(1, 0, 2), across.weights)
    return rows.view(blocks, height, channels, BLOCK).permute(1, 2, 0, 3)


def _columns(lines: Tensor, down: Bands, half: Tensor) -> Tensor:
    """`(H, C, ...)` -> `(h, C, all the rest)`."""
    blocks, span, _ = down.weights.shape
    channels = lines.shape[1]
    read = lines.index_select(0, down.read).to(torch.float32).view(blocks, span, -1)
    columns = torch.baddbmm(half, down.weights.transpose(1, 2), read)
    return columns.view(blocks * BLOCK, channels, -1)[: down.count]
