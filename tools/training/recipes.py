"""The networks that are shipped: their shapes, how long each end is trained, and how the ends are mixed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from keyscale.engine.forms import LOOKS
from tools.training.losses import Weights
from tools.training.train import Recipe

__all__ = ["BALANCED", "CRISP", "NATURAL", "PLANS", "Network", "Plan"]

NATURAL, BALANCED, CRISP = LOOKS
"""The two ends of each network, nearest to the original and with more of the strength of details that it has, and their
mixture between them."""


@dataclass(frozen=True)
class Network:
    """What one shipped network is made of."""

    natural: Recipe
    crisp: Recipe
    """Begins as the natural end, so that the weights of both average (network interpolation, arXiv 1811.10515)."""


@dataclass(frozen=True)
class Plan:
    """What one run of the recipe makes."""

    scenes: int
    """To train on, for each scale."""
    held: int
    """To score on, for each scale."""
    networks: dict[str, Network]
    """By name, in the order in which they are listed to people."""


def _plan(*, scenes: int, held: int, effort: int, batch: int) -> Plan:
    def network(features: int, blocks: int, scale: int, fold: int, steps: int) -> Network:
        natural = Recipe(
            features=features,
            blocks=blocks,
            scale=scale,
            fold=fold,
            steps=steps * effort,
            batch=batch,
            patch=52 if scale == 2 else 42,
            margin=8 if scale == 2 else 6,
            weights=NATURAL_WEIGHTS[scale],
            half=True,
        )
        crisp = replace(
            natural,
            steps=max(1, steps // 6) * effort,
            muon_rate=natural.muon_rate / 2,
            adam_rate=natural.adam_rate / 2,
            decay=1.0,
            weights=CRISP_WEIGHTS[scale],
            sharpen=CRISP_SHARPEN[scale],
            seed=1,
        )
        return Network(natural, crisp)

    return Plan(
        scenes,
        held,
        {
            "keyscale-compact-x4": network(32, 8, 4, 1, 5500),
            "keyscale-compact-x2": network(32, 8, 2, 2, 7000),
            "keyscale-tiny-x4": network(32, 4, 4, 1, 4000),
            "keyscale-tiny-x2": network(32, 4, 2, 2, 4000),
        },
    )


NATURAL_WEIGHTS = {
    2: Weights(texture=0.3, gradient=0.1, grid=1.0, change=0.3),
    4: Weights(texture=0.5, gradient=0.1, grid=1.0, change=0.2),
}
CRISP_WEIGHTS = {
    2: Weights(texture=1.0, gradient=0.1, grid=1.0, change=0.2),
    4: Weights(texture=1.5, gradient=0.1, grid=1.0, change=0.2),
}
"""By scale."""
CRISP_SHARPEN = {2: 0.4, 4: 0.5}

PLANS = {
    "cpu": _plan(scenes=3600, held=64, effort=1, batch=16),
    "full": _plan(scenes=36000, held=256, effort=8, batch=32),
}
