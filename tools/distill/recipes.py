"""The students that are shipped, and how long each is trained: on a CPU in hours, on a GPU with ten times the data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tools.distill.train import Recipe

__all__ = ["PLANS", "START_FROM", "Plan", "training_order"]

FEATURES = 32
SHARPEN_X2 = 0.1
"""Less than at x4: halved, the teacher's picture keeps less that a student cannot know. With 0.4 the student came out
at 1.1 of its gradient energy."""

START_FROM = {
    "keyscale-compact-x4": "keyscale-tiny-x4",
    "keyscale-compact-x2": "keyscale-tiny-x2",
    "keyscale-tiny-x2": "keyscale-tiny-x4",
}
"""The student that another one begins as. The deeper one does not train well from nothing: its channels die."""


@dataclass(frozen=True)
class Plan:
    """What one run of the recipe makes."""

    pairs: int
    """Tiles to train on."""
    held: int
    """Tiles to judge on."""
    students: dict[str, Recipe]
    """By name, in the order in which they are listed to people."""


def _students(steps: int, batch: int) -> dict[str, Recipe]:
    first = Recipe(features=FEATURES, blocks=4, scale=4, steps=steps, batch=batch, detail=0.3, sharpen=0.5)
    # Those that begin as a finished student ask for details at once, and learn more gently.
    deeper = replace(
        first, blocks=8, steps=steps // 2, muon_rate=0.01, adam_rate=1e-3, decay=1.0, detail_from=0.0, sharpen=0.4
    )
    return {
        "keyscale-compact-x4": deeper,
        "keyscale-compact-x2": replace(deeper, scale=2, steps=steps // 8, sharpen=SHARPEN_X2),
        "keyscale-tiny-x4": first,
        "keyscale-tiny-x2": replace(deeper, blocks=4, scale=2, steps=steps // 8, sharpen=SHARPEN_X2),
    }


PLANS = {
    # Some two hours on two cores; the shipped weights were made by this one.
    "cpu": Plan(4608, 48, _students(8000, 16)),
    "full": Plan(46080, 192, _students(80000, 64)),
}


def training_order(plan: Plan) -> list[str]:
    """Names of the plan's students, each after the one that it starts from."""
    order: list[str] = []

    def place(name: str) -> None:
        if name not in order:
            if name in START_FROM:
                place(START_FROM[name])
            order.append(name)

    for name in plan.students:
        place(name)
    return order
