"""The faults of `make mutants` can be seeded: each one's text stands in its file once, and its test is there."""

from __future__ import annotations

import pytest

from tools.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks)
def test_a_fault_can_be_seeded(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
    file, *names = mutant.test.partition("[")[0].split("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    assert all(f"def {name}(" in source or f"class {name}" in source for name in names)
