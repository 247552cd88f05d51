"""Where cases run: a folder for each, a child process, judgement, and what a failing case leaves for people."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tools.torture.cases import Case, judge, outcome_of, remains
from tools.torture.nursery import Ended, Nursery, Running
from tools.torture.report import Section

__all__ = ["ALL_FROM", "Lab", "laboratory"]

KEEP = frozenset({"KEYSCALE_WEIGHTS_DIR"})
"""keyscale's own variables that cases may see."""
ALL_FROM = 0.1
"""The share from which on everything is tried that has a reason of its own."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The means of every section."""

    root: Path
    """Scratch, removed at the end."""
    failures: Path
    """A folder for each failing case is put here."""
    nursery: Nursery
    seed: int
    share: float
    """How much of each section is done, 0 to 1."""
    say: Callable[[str], None]

    def count(self, full: int) -> int:
        """How many of `full` cases are done: the share, at least one."""
        return max(1, round(full * self.share))

    def chosen(self, cases: Sequence[T]) -> list[T]:
        """Of cases that each have a reason of their own: all from a tenth on; of a smaller share ten times as many."""
        if self.share >= ALL_FROM:
            return list(cases)
        count = max(1, round(len(cases) * self.share / ALL_FROM))
        kept = sorted(random.Random(self.seed).sample(range(len(cases)), count))  # noqa: S311
        return [cases[number] for number in kept]

    @contextmanager
    def folder(self, parent: Path | None = None) -> Iterator[Path]:
        """A new folder for one case."""
        path = Path(tempfile.mkdtemp(prefix="case-", dir=parent or self.root))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def run(self, case: Case, folder: Path, meanwhile: Callable[[Running], object] | None = None) -> Ended:
        """Run a case's command in `folder`, do something `meanwhile`, and wait for its end."""
        with self.folder() as beside:
            temporary = beside / "tmp"
            temporary.mkdir()
            running = self.nursery.start(
                case.arguments,
                folder=folder,
                out=beside / "stdout",
                err=beside / "stderr",
                # Address space is several times what is resident; this bounds the harm of a case that has no bound.
                address_mib=4 * case.peak_mib + 6144,
                environment={"TMPDIR": str(temporary), **case.environment},
                anew=case.anew,
            )
            if meanwhile is not None:
                meanwhile(running)
            ended = running.wait(case.seconds)
            left = sorted(entry.name for entry in temporary.iterdir())
        if left and ended.code >= 0:
            raise LeftOver(ended, f"left in the folder for temporary files: {', '.join(left)}")
        return ended

    def attempt(
        self,
        case: Case,
        folder: Path,
        section: Section,
        *,
        may_change: tuple[str, ...] = (),
        judge_work: bool = True,
        meanwhile: Callable[[Running], object] | None = None,
    ) -> Ended:
        """Run a case, judge it, count it; what is wrong with it is kept for people.

        Args:
            case: what is run.
            folder: where; it holds what the case needs.
            section: what it is counted in.
            may_change: entries of the folder that the command may change or remove.
            judge_work: whether what stands in the work folder is judged; not where something was planted there.
            meanwhile: done while it runs.
        """
        before = {name: content for name, content in remains(folder).items() if name not in may_change}
        faults = []
        try:
            ended = self.run(case, folder, meanwhile)
        except LeftOver as error:
            ended, faults = error.ended, [str(error)]
        faults += judge(case, ended, folder, before, ignored=frozenset(may_change), judge_work=judge_work)
        section.add(case.name, outcome_of(ended), seconds=ended.seconds, peak_mib=ended.peak_mib)
        if faults:
            self.fail(section, case, folder, ended, faults)
        return ended

    def fail(self, section: Section, case: Case, folder: Path, ended: Ended, faults: list[str]) -> None:
        """Keep a failing case: its folder, the command, what it said, and what is wrong."""
        number = len(section.violations)
        kept = self.failures / f"{section.name.replace(' ', '-')}-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, symlinks=True, ignore_dangling_symlinks=True)
        command = " ".join(shlex.quote(word) for word in ("keyscale", *case.arguments))
        text = "\n".join(faults)
        (kept / "TORTURE.txt").write_text(
            f"{case.name}\n\n{text}\n\ncd {shlex.quote(str(kept))} && {command}\n\n"
            f"exit code {ended.code} after {ended.seconds:.1f} s, {ended.peak_mib:.0f} MiB\n\n"
            f"--- stderr\n{ended.stderr}\n--- stdout\n{ended.stdout[-4000:]}\n",
            encoding="utf-8",
            errors="backslashreplace",
        )
        section.violations.append(f"{case.name}: {'; '.join(faults)} (kept in {kept})")
        self.say(f"  VIOLATION {section.violations[-1]}")


class LeftOver(Exception):
    """A case left temporary files."""

    def __init__(self, ended: Ended, what: str) -> None:
        super().__init__(what)
        self.ended = ended


@contextmanager
def laboratory(
    *, failures: Path, seed: int, share: float, say: Callable[[str], None], scratch: Path | None = None
) -> Iterator[Lab]:
    """Set the lab up; at its end only `failures` stays, where anything failed.

    Args:
        failures: made where it is not there.
        seed: of all that is drawn.
        share: of each section, 0 to 1.
        say: shows a line.
        scratch: where to work; None is the system's folder for temporary files.
    """
    failures.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="torture-", dir=scratch))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("KEYSCALE_") or name in KEEP
    }
    # Nothing of the user's own may decide how a case ends, nor may a case change it.
    environment |= {
        "KEYSCALE_CACHE_DIR": str(root / "cache"),
        "XDG_CONFIG_HOME": str(root / "config"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        with Nursery(environment) as nursery:
            yield Lab(root=root, failures=failures, nursery=nursery, seed=seed, share=share, say=say)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if not any(failures.iterdir()):
            failures.rmdir()
