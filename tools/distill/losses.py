"""What a student is asked for: the teacher's pixels, and the teacher's amount of detail where pixels cannot be met.

A pixel loss alone rewards the mean of all plausible details, which is soft. Where the student cannot know the phase of
a texture it can still know its strength: the second and third terms compare amplitudes, not positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Weights", "distance", "gradient_energy", "halve", "sharpened"]

BLOCK = 8
"""Side of the blocks within which gradient energy is compared, in output pixels: two low-resolution pixels of x4."""


@dataclass(frozen=True)
class Weights:
    """Of the terms, relative to the mean absolute difference of pixels in [0, 1]."""

    gradient: float = 0.0
    """Mean absolute difference of forward differences: edges in place."""
    energy: float = 0.0
    """Mean absolute difference of the root mean square gradient of blocks: texture of the right strength."""
    spectrum: float = 0.0
    """Mean absolute difference of the amplitudes of 8x8 cosine transforms: no frequency too weak or too strong."""


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


def _amplitudes(x: Tensor, basis: Tensor) -> Tensor:
    luma = x.mean(1, keepdim=True)
    return functional.conv2d(luma, basis, stride=BLOCK // 2).abs()


def cosine_basis(device: torch.device) -> Tensor:
    """The 63 patterns of the 8x8 DCT-II beside the constant one, orthonormal: `(63, 1, 8, 8)`."""
    n = torch.arange(BLOCK, dtype=torch.float64)
    rows = torch.cos(torch.pi * (n[None] + 0.5) * n[:, None] / BLOCK) * (2 / BLOCK) ** 0.5
    rows[0] /= 2**0.5
    basis = torch.einsum("iy,jx->ijyx", rows, rows).reshape(BLOCK**2, 1, BLOCK, BLOCK)
    return basis[1:].float().to(device)


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


def distance(result: Tensor, target: Tensor, weights: Weights) -> tuple[Tensor, dict[str, float]]:
    """The loss to descend, and its terms by name, each before its weight.

    Args:
        result: RGB `(N, 3, H, W)`, nominally in [0, 1].
        target: the same shape.
        weights: of the terms beside the pixels'.
    """
    pixels = (result - target).abs().mean()
    total, terms = pixels, {"pixels": pixels.item()}
    if weights.gradient:
        pairs = zip(_differences(result), _differences(target), strict=True)
        term = torch.stack([(a - b).abs().mean() for a, b in pairs]).sum()
        total, terms["gradient"] = total + weights.gradient * term, term.item()
    if weights.energy:
        term = (_block_strength(result) - _block_strength(target)).abs().mean()
        total, terms["energy"] = total + weights.energy * term, term.item()
    if weights.spectrum:
        basis = cosine_basis(result.device)
        term = (_amplitudes(result, basis) - _amplitudes(target, basis)).abs().mean()
        total, terms["spectrum"] = total + weights.spectrum * term, term.item()
    return total, terms
