"""What a student is asked for: the teacher's pixels, and the teacher's amount of detail where pixels cannot be met.

A pixel loss alone rewards the mean of all plausible details, which is soft. Where the student cannot know the phase of
a texture it can still know its strength: the second term compares that of small blocks, not positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["displaced", "distance", "excess", "gradient_energy", "halve", "sharpened"]

ROUNDING = 0.65 / 255
"""Root mean square difference of two frames that 8-bit activations and pixels add to whatever the network's own is.
Measured: brightness of keyscale-compact-x4 in int8 beside fp32, under noise of one code."""

BLOCK = 8
"""Side of the blocks whose gradients are compared, in output pixels: two low-resolution pixels of x4."""


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def gradient_energy(x: Tensor) -> Tensor:
    """Mean square of the forward differences along both axes, of pictures `(N, C, H, W)`: a scalar."""
    across, down = _differences(x)
    return across.square().mean() + down.square().mean()


def _block_strength(x: Tensor) -> Tensor:
    across, down = _differences(x)
    square = across[..., :-1, :].square() + down[..., :, :-1].square()
    # The small constant keeps the root's slope finite on flat blocks; it is half a code in 255.
    return (functional.avg_pool2d(square.mean(1, keepdim=True), BLOCK) + (0.5 / 255) ** 2).sqrt()


def halve(x: Tensor) -> Tensor:
    """Pictures at half the size, antialiased: what an x2 student is asked for, of the teacher's x4 result."""
    return functional.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)


def sharpened(x: Tensor, amount: float) -> Tensor:
    """Pictures in [0, 1] with what a 5x5 binomial blur takes away added once more, `amount` times.

    A student that predicts details only in part shows the mean of what they might be, too faint by about the part it
    misses. Asked for more than the teacher shows, it comes out right.
    """
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device) / 16
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 5, 5)
    blurred = functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=x.shape[1])
    return (x + amount * (x - blurred)).clamp(0, 1)


def distance(result: Tensor, target: Tensor, detail: float) -> tuple[Tensor, dict[str, float]]:
    """The loss to descend, and its terms by name, each before its weight.

    Args:
        result: RGB `(N, 3, H, W)`, nominally in [0, 1].
        target: the same shape.
        detail: weight of the mean absolute difference of the blocks' root mean square gradients, relative to that of
            pixels; at 0 it is not computed.
    """
    pixels = (result - target).abs().mean()
    if not detail:
        return pixels, {"pixels": pixels.item()}
    strength = (_block_strength(result) - _block_strength(target)).abs().mean()
    return pixels + detail * strength, {"pixels": pixels.item(), "strength": strength.item()}


def displaced(before: Tensor, after: Tensor, motion: tuple[int, int]) -> Tensor:
    """What is left of the difference between two views of one scene once their motion is undone.

    Args:
        before: `(C, H, W)`.
        after: the same shape, its origin `motion` pixels further down and right in the scene.
        motion: down and right, whole pixels from 0.
    """
    down, right = motion
    height, width = before.shape[-2:]
    return before[..., down:, right:] - after[..., : height - down, : width - right]


def excess(
    before: Tensor,
    after: Tensor,
    teacher_before: Tensor,
    teacher_after: Tensor,
    motions: Sequence[tuple[int, int]],
    *,
    side: int,
    allowed: float,
) -> Tensor:
    """By how much two views of a scene differ more than in the teacher's pictures, a scalar.

    Compared are root mean square differences of blocks, once the motion is undone, of brightness and of two colour
    differences; the student's with `ROUNDING`, which it will have in int8, on top. What is as calm as the teacher's
    costs nothing: asked for still more calm, a student gives up details.

    Args:
        before: RGB `(N, 3, H, W)`, nominally in [0, 1].
        after: the second views, the same shape.
        teacher_before: the teacher's pictures of the same views.
        teacher_after: the same shape.
        motions: of each scene, see `displaced`.
        side: of the blocks, in pixels.
        allowed: part of the teacher's that costs nothing yet.
    """
    # Brightness of BT.601, and differences that hold colour alone, which the eye follows less.
    planes = torch.tensor([[0.299, 0.587, 0.114], [0.25, -0.25, 0.0], [0.0, -0.25, 0.25]], device=before.device)

    def blocks(first: Tensor, second: Tensor, motion: tuple[int, int], floor: float) -> Tensor:
        left = torch.einsum("pc,chw->phw", planes, displaced(first, second, motion))
        # It also keeps the root's slope finite where nothing differs.
        return (functional.avg_pool2d(left.square(), side) + floor**2).sqrt()

    parts = [
        functional.relu(
            blocks(own, later, motion, ROUNDING) - allowed * blocks(goal, then, motion, 0.1 * ROUNDING)
        ).mean()
        for own, later, goal, then, motion in zip(before, after, teacher_before, teacher_after, motions, strict=True)
    ]
    return torch.stack(parts).mean()
