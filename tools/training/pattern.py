"""What a network draws into smooth places: its mean error at each place of a cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tools.training.scenes import Scenes
from tools.training.train import to_floats

__all__ = ["pattern"]

BORDER = 8
"""Cells at the border of a scene that are left out of the mean: zeros lie beyond it here."""
SMOOTH = 8 / 255
"""Range within 5x5 source pixels below which a place counts as smooth."""


def pattern(run: Callable[[Tensor], Tensor], scale: int, fold: int, scenes: Scenes) -> Tensor:
    """The mean error at each place of a cell in smooth areas; zeros where the scenes have none.

    A pattern of a code shows in skies. The sources are the originals averaged, without any codec, so that what codecs
    do to smooth places is no part of it.

    Args:
        run: the network, RGB `(N, 3, H, W)` in [0, 1] -> `(N, 3, scale*H, scale*W)`.
        scale: of the network.
        fold: of the network.
        scenes: that it wasn't trained on, of the ratio `scale`.

    Returns:
        `(3 * (scale * fold)**2,)` in the order of `torch.pixel_unshuffle`, of values in [0, 1].
    """
    side = scale * fold
    total, count = torch.zeros(3 * side**2), 0
    with torch.inference_mode():
        for frames in scenes.high:
            original = to_floats(frames.copy())
            x = functional.avg_pool2d(original, scale)
            error = functional.pixel_unshuffle(run(x) - original, side)
            widest = (functional.max_pool2d(x, 5, 1, 2) + functional.max_pool2d(-x, 5, 1, 2)).amax(1, keepdim=True)
            smooth = functional.pixel_unshuffle((widest < SMOOTH).float(), fold).amin(1) > 0
            smooth[:, :BORDER] = smooth[:, -BORDER:] = smooth[..., :BORDER] = smooth[..., -BORDER:] = False
            total += error.permute(1, 0, 2, 3)[:, smooth].sum(1)
            count += int(smooth.sum())
    return total / max(count, 1)
