"""A network at a look: where between its natural and its crisp end its weights are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from keyscale.engine.errors import UsageError
from keyscale.engine.models.registry import ModelSpec
from keyscale.engine.wording import say

__all__ = ["at_look"]


def at_look(spec: ModelSpec, share: float | None) -> ModelSpec:
    """A network at a look: with the weights of its own, or else those of the two beside it to be mixed.

    Mixed are neighbours and not always the two ends, so that all shares lead through what is shipped as balanced.

    Args:
        spec: of a network with two ends, unless `share` is None.
        share: of the crisp end, 0 to 1; None leaves `spec` as it is.

    Raises:
        UsageError: it is out of range, or the network has no two ends.
    """
    if share is None:
        return spec
    if not 0 <= share <= 1:
        raise UsageError(f"{share} is out of range", option="look", remedy="Give 0 to 1.")
    if not spec.looks:
        raise UsageError(
            f"is a setting of keyscale's own networks, not of {spec.name}",
            option="look",
            remedy=say("Leave {look} out, or use one of them, such as {mode=fast} has."),
        )
    below, above = next(pair for pair in pairwise(spec.looks) if share <= pair[1].share)
    blend = (share - below.share) / (above.share - below.share)
    if 0 < blend < 1:
        return replace(spec, look=share, files=(below.weights, above.weights), blend=blend, quantised=())
    meant = above if blend else below
    return replace(spec, look=meant.share, files=(meant.weights,), blend=0.0, quantised=meant.quantised)
