"""Muon for kernels, beside which Adam moves the biases.

Muon (Keller Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024) replaces the momentum of a
weight matrix by the nearest orthogonal matrix, found by a Newton-Schulz iteration, so that every direction of the
matrix learns at the same pace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalised"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, as published with Muon: steep at 0, so that few steps suffice."""
STEPS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns: singular values of 0.7 to 1.2, `(M, N)`."""
    a, b, c = COEFFICIENTS
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """For kernels: the first dimension is the matrix's rows, all others its columns.

    `torch.optim.Muon` takes parameters of two dimensions alone.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every parameter that has a gradient; the loss, if `closure` computes one first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                held = state["momentum"]
                held.lerp_(parameter.grad, 1 - group["momentum"])
                nesterov = parameter.grad.lerp(held, group["momentum"])
                update = orthogonalised(nesterov.flatten(1))
                scale = max(1, update.shape[0] / update.shape[1]) ** 0.5
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)
        return loss
