"""Frame rates as people and programs write them."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["NTSC", "nominal_rate"]

NTSC = {"23.976": 24, "23.98": 24, "29.97": 30, "47.952": 48, "47.95": 48, "59.94": 60, "119.88": 120}
"""How rates are written that are multiples of 1000/1001."""

NEAR_NTSC = 5e-4
"""Frames a second by which a number of three decimals or more may miss the multiple of 1000/1001 that it means."""


def nominal_rate(value: float) -> Fraction:
    """Frames a second as they are meant: 29.97, 23.976 and their like, with any more decimals, are NTSC's fractions.

    Args:
        value: a finite number above 0.
    """
    text = repr(float(value))
    if text in NTSC:
        return Fraction(NTSC[text] * 1000, 1001)
    nearest = Fraction(round(value * 1.001) * 1000, 1001)
    if nearest and value != round(value) and abs(value - nearest) < NEAR_NTSC:
        return nearest
    return Fraction(text)
