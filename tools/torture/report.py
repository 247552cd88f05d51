"""What a section of the torture found: counts, the worst cases, and every violation."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keyscale.engine.system import usable_cores

__all__ = ["Section", "as_json", "as_markdown", "conditions"]


@dataclass(kw_only=True)
class Section:
    """One group of cases; filled while they run."""

    name: str
    about: str
    """One sentence: what was done."""
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Wall clock of the whole section."""
    slowest: tuple[float, str] = (0.0, "")
    """Seconds, and the case."""
    largest: tuple[float, str] = (0.0, "")
    """MiB resident at most, and the case."""
    figures: list[str] = field(default_factory=list)
    """What else is worth telling, a sentence each."""
    skipped: list[str] = field(default_factory=list)
    """What was not done, and why."""
    violations: list[str] = field(default_factory=list)

    def add(self, case: str, outcome: str, *, seconds: float, peak_mib: float) -> None:
        """Count one case."""
        self.cases += 1
        self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, (seconds, case))
        self.largest = max(self.largest, (peak_mib, case))

    def lines(self) -> list[str]:
        """The section in plain lines, for a terminal and for the page alike."""
        told = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        lines = []
        if self.cases:
            lines.append(f"{self.cases} cases in {self.seconds:.0f} s: {told}.")
        if self.slowest[1]:
            lines.append(f"Slowest: {self.slowest[0]:.1f} s ({self.slowest[1]}).")
        if self.largest[1]:
            lines.append(f"Most memory: {self.largest[0]:.0f} MiB ({self.largest[1]}).")
        lines += self.figures
        lines += [f"Not done: {reason}" for reason in self.skipped]
        lines.append(f"Violations: {len(self.violations)}.")
        return lines + [f"VIOLATION {text}" for text in self.violations]


def conditions() -> str:
    """Where the figures were taken: cores, system, versions; no names and no dates."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("av", "numpy", "torch", "openvino"))
    return f"{usable_cores()} cores, {platform.system()}, Python {platform.python_version()}, {libraries}"


def as_markdown(sections: Sequence[Section], command: str) -> str:
    """The sections as docs/reliability.md holds them."""
    lines = [f"`{command}` on {conditions()}.", ""]
    for section in sections:
        lines += [f"### {section.name}", "", section.about, ""]
        lines += [f"- {line}" for line in section.lines()]
        lines.append("")
    return "\n".join(lines)


def as_json(sections: Sequence[Section], path: Path) -> None:
    """Write the sections to `path`."""
    content: dict[str, Any] = {"conditions": conditions(), "sections": [vars(section) for section in sections]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
