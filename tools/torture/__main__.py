"""`python -m tools.torture`: what keyscale does with what nobody wishes it. See docs/reliability.md."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.torture.batch_sections import BATCHES
from tools.torture.endurance import endurance
from tools.torture.hostile import hostile_keyframes, hostile_sources, planted_checkpoints, planted_links
from tools.torture.killed import killed
from tools.torture.lab import Lab, laboratory
from tools.torture.mutations import mutations
from tools.torture.odd_names import odd_names
from tools.torture.report import Section, as_json, as_markdown, conditions
from tools.torture.storage import changing_sources, full_disks

__all__ = ["SECTIONS", "main"]

Sections = Section | list[Section]

SECTIONS: dict[str, Callable[[Lab], Sections]] = {
    "keyframes": hostile_keyframes,
    "videos": hostile_sources,
    "checkpoints": planted_checkpoints,
    "links": planted_links,
    "mutations": mutations,
    "disks": full_disks,
    "sources": changing_sources,
    "names": odd_names,
    "kills": killed,
    **BATCHES,
    "endurance": endurance,
}
"""By the name that `--only` takes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections that are asked for; 1 where anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m tools.torture", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="a section; may be given again")
    parser.add_argument("--share", type=float, default=1.0, help="how much of each section, 0 to 1 (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default 1)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the page's part with the figures to this file")
    parser.add_argument(
        "--failures", type=Path, default=Path("torture-failures"), help="folder for the input of failing cases"
    )
    given = parser.parse_args(argv)
    if not 0 < given.share <= 1:
        parser.error("--share is above 0 and at most 1")
    if platform.system() != "Linux":
        parser.error("it needs Linux: /proc, address-space limits and tmpfs")

    def say(line: str) -> None:
        print(line.encode(errors="backslashreplace").decode(), flush=True)

    say(conditions())
    sections: list[Section] = []
    with laboratory(failures=given.failures.absolute(), seed=given.seed, share=given.share, say=say) as lab:
        for name in given.only or SECTIONS:
            made = SECTIONS[name](lab)
            for section in made if isinstance(made, list) else [made]:
                sections.append(section)
                say(f"\n{section.name}\n" + "\n".join(f"  {line}" for line in section.lines()))
            # After each: what took an hour is not lost with what comes after it.
            if given.json:
                as_json(sections, given.json)
            if given.markdown:
                share = "" if given.share == 1 else f" --share {given.share:g}"
                only = "".join(f" --only {name}" for name in given.only or ())
                command = f"python -m tools.torture{only}{share} --seed {given.seed}"
                given.markdown.write_text(as_markdown(sections, command), encoding="utf-8")
    violations = sum(len(section.violations) for section in sections)
    say(f"\n{sum(section.cases for section in sections)} cases, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
