"""What planning needs to know of a network that only a trial can tell."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Findings"]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a trial showed of a foreign network (`foreign.describe`)."""

    halo: int
    """As of `ModelSpec`."""
    beyond: float
    """By how many codes of 255 the trial's result changed with what lies farther away than that; 0 is exact."""
    align: int
    """As of `ModelSpec`."""
    macs_per_pixel: int
    """As of `ModelSpec`."""
    bytes_per_pixel: int
    """Of activations in fp32, per input pixel."""
    size: tuple[int, int] | None
    """Width and height of the only pictures that it takes; None takes any."""
