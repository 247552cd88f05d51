"""The students that are shipped, and how long each is trained: on a CPU in hours, on a GPU with ten times the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tools.distill.train import Recipe

__all__ = ["DRAFT", "PLANS", "START_FROM", "Plan", "donor_of", "training_order"]

FEATURES = 32
SHARPEN_X2 = 0.1
"""Less than at x4: halved, the teacher's picture keeps less that a student cannot know. With 0.4 the student came out
at 1.1 of its gradient energy."""

DRAFT = "-draft"
"""Ends the names of students that are sharp and restless yet: what is shipped begins as its draft and is calmed."""

START_FROM = {
    "keyscale-compact-x4-draft": "keyscale-tiny-x4-draft",
    "keyscale-compact-x2-draft": "keyscale-tiny-x2-draft",
    "keyscale-tiny-x2-draft": "keyscale-tiny-x4-draft",
}
"""The draft that another one begins as. The deeper one does not train well from nothing: its channels die."""

NAMES = ("keyscale-compact-x4", "keyscale-compact-x2", "keyscale-tiny-x4", "keyscale-tiny-x2")


@dataclass(frozen=True)
class Plan:
    """What one run of the recipe makes."""

    pairs: int
    """Tiles to train on."""
    held: int
    """Tiles to judge on."""
    scenes: int
    """Scenes to learn calm from."""
    drafts: dict[str, Recipe]
    students: dict[str, Recipe]
    """Those that are shipped, by name, in the order in which they are listed to people."""

    @property
    def stages(self) -> dict[str, Recipe]:
        """All that is trained."""
        return self.drafts | self.students


def donor_of(name: str) -> str | None:
    """What a draft or student begins as; None where it begins from nothing."""
    return START_FROM.get(name) if name.endswith(DRAFT) else name + DRAFT


def _drafts(steps: int, batch: int) -> dict[str, Recipe]:
    first = Recipe(features=FEATURES, blocks=4, scale=4, steps=steps, batch=batch, detail=0.3, sharpen=0.5)
    # Those that begin as a finished student ask for details at once, and learn more gently.
    deeper = replace(
        first, blocks=8, steps=steps // 2, muon_rate=0.01, adam_rate=1e-3, decay=1.0, detail_from=0.0, sharpen=0.4
    )
    drafts = (
        deeper,
        replace(deeper, scale=2, steps=steps // 8, sharpen=SHARPEN_X2),
        first,
        replace(deeper, blocks=4, scale=2, steps=steps // 8, sharpen=SHARPEN_X2),
    )
    return {name + DRAFT: recipe for name, recipe in zip(NAMES, drafts, strict=True)}


def _calmed(drafts: dict[str, Recipe], share: float, batch: int) -> dict[str, Recipe]:
    """Each draft again, a shorter while, with a price on being more restless than the teacher.

    Calm costs details, so more of them is asked for. The margin is the receptive field: what a patch's border does
    is left out as well.

    Args:
        drafts: by name.
        share: of the steps of the CPU's plan.
        batch: patches a step of the largest student, beside as many of scenes; others get a part of it.
    """
    common: dict[str, Any] = {"muon_rate": 0.01, "adam_rate": 1e-3, "decay": 1.0, "detail_from": 0.0}
    common |= {"grain": True, "half": True}
    x2 = common | {"calm": 6.0, "allowed": 0.95, "detail": 0.5, "sharpen": 0.2, "batch": batch * 5 // 8}
    changes: tuple[dict[str, Any], ...] = (
        common | {"calm": 9.0, "allowed": 0.92, "detail": 0.65, "sharpen": 0.6, "batch": batch, "steps": 2800},
        x2 | {"steps": 800},
        common | {"calm": 8.0, "allowed": 0.93, "detail": 0.7, "sharpen": 0.7, "batch": batch // 2, "steps": 1800},
        x2 | {"steps": 800},
    )
    students = {}
    for name, change in zip(NAMES, changes, strict=True):
        draft = drafts[name + DRAFT]
        steps = round(change["steps"] * share)
        students[name] = replace(draft, margin=draft.blocks + 2, **(change | {"steps": steps}))
    return students


def _plan(pairs: int, held: int, scenes: int, *, steps: int, batch: int) -> Plan:
    drafts = _drafts(steps, batch)
    return Plan(pairs, held, scenes, drafts, _calmed(drafts, steps / 8000, batch))


PLANS = {
    # Some three hours on two cores. How the shipped weights differ from what it makes is told in README.md.
    "cpu": _plan(4608, 48, 1600, steps=8000, batch=16),
    "full": _plan(46080, 192, 16000, steps=80000, batch=64),
}


def training_order(plan: Plan) -> list[str]:
    """Names of all stages, each after the one that it starts from."""
    order: list[str] = []

    def place(name: str) -> None:
        if name not in order:
            donor = donor_of(name)
            if donor is not None:
                place(donor)
            order.append(name)

    for name in plan.stages:
        place(name)
    return order
