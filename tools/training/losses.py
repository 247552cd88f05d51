"""How far a result is from its original: pixels, the strength of details, and what changes from frame to frame.

A pixel loss alone rewards the mean of all plausible details, which is soft. Where a network cannot know the phase of
a texture it can still know its strength: the second term compares that of neighbourhoods, not positions. The
neighbourhoods overlap and begin at another place in every step: fixed blocks draw a grid of their own period.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Weights", "distance", "gradient_energy", "sharpened"]

SIDE, STRIDE = 8, 4
"""Of the neighbourhoods whose gradients are compared, in output pixels."""
CELL = 4
"""Side of the squares of output pixels that one place of the last convolution makes, in all shipped networks."""
FLOOR = 0.5 / 255
"""Keeps the root's slope finite in flat neighbourhoods."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the terms of the loss, relative to that of pixels."""

    gradient: float = 0.0
    """Mean absolute error of forward differences, of pictures reduced by 1, 2 and 4."""
    texture: float = 0.0
    """Mean absolute difference of the neighbourhoods' root mean square gradients, of pictures averaged over a cell at
    every place: what repeats from cell to cell does not count as strength, so that a grid gains nothing."""
    grid: float = 0.0
    """Mean absolute error at each place of a cell, the mean of a whole batch, less that of all places."""
    change: float = 0.0
    """Mean absolute error of the difference of two successive frames."""


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def gradient_energy(x: Tensor) -> Tensor:
    """Mean square of the forward differences along both axes, of pictures `(N, C, H, W)`: a scalar."""
    across, down = _differences(x)
    return across.square().mean() + down.square().mean()


def _strength(x: Tensor, offset: tuple[int, int]) -> Tensor:
    across, down = _differences(x[..., offset[0] :, offset[1] :])
    square = across[..., :-1, :].square() + down[..., :, :-1].square()
    return (functional.avg_pool2d(square.mean(1, keepdim=True), SIDE, STRIDE) + FLOOR**2).sqrt()


def sharpened(x: Tensor, amount: float) -> Tensor:
    """Pictures in [0, 1] with what a 5x5 binomial blur takes away added once more, `amount` times."""
    if not amount:
        return x
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device) / 16
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 5, 5)
    blurred = functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=x.shape[1])
    return (x + amount * (x - blurred)).clamp(0, 1)


def distance(
    result: Tensor, target: Tensor, weights: Weights, offset: tuple[int, int] = (0, 0)
) -> tuple[Tensor, dict[str, float]]:
    """The loss to descend, and its terms by name, each before its weight.

    Args:
        result: RGB `(2N, 3, H, W)`, nominally in [0, 1]: N first frames, then the frames that follow them.
        target: the same shape.
        weights: of the terms; one at 0 is not computed.
        offset: down and right, where the first neighbourhood begins, each below `STRIDE`.
    """
    error = result - target
    loss = error.abs().mean()
    terms = {"pixels": loss.item()}
    if weights.gradient:
        parts = []
        for size in (1, 2, 4):
            reduced = functional.avg_pool2d(error, size) if size > 1 else error
            across, down = _differences(reduced)
            parts.append(across.abs().mean() + down.abs().mean())
        gradient = torch.stack(parts).mean()
        loss, terms["gradient"] = loss + weights.gradient * gradient, gradient.item()
    if weights.texture:
        averaged = (functional.avg_pool2d(picture, CELL, 1) for picture in (result, target))
        made, wanted = (_strength(picture, offset) for picture in averaged)
        texture = (made - wanted).abs().mean()
        loss, terms["texture"] = loss + weights.texture * texture, texture.item()
    if weights.grid:
        # What is the same at one place of all cells of all pictures is no picture.
        rows, columns = (side // CELL * CELL for side in error.shape[-2:])
        whole = error[..., :rows, :columns]
        cells = whole.reshape(*whole.shape[:2], rows // CELL, CELL, columns // CELL, CELL)
        places = cells.mean((0, 2, 4))
        grid = (places - places.mean((1, 2), keepdim=True)).abs().mean()
        loss, terms["grid"] = loss + weights.grid * grid, grid.item()
    if weights.change:
        first, second = error.chunk(2)
        change = (second - first).abs().mean()
        loss, terms["change"] = loss + weights.change * change, change.item()
    return loss, terms
