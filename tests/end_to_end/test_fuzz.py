"""Sources of every kind, cameras and targets in combinations that nobody thought of, against an oracle of its own.

One case alone: `FUZZ_SEED=123 pytest tests/end_to_end/test_fuzz.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.fuzz_cases import case_of
from support.fuzz_oracle import faults
from support.fuzz_source import write_source

from keyscale.cli.app import run

CASES, QUICK = 500, 10
CHOSEN = os.environ.get("FUZZ_SEED", "")
SEEDS = [int(seed) for seed in CHOSEN.split(",")] if CHOSEN else list(range(CASES))


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[] if CHOSEN or n < QUICK else pytest.mark.slow) for n in SEEDS]
)
def test_frames_sound_and_camera_are_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    case = case_of(seed)
    source = write_source(case, tmp_path)
    code = run(case.arguments(source, tmp_path))
    assert code == 0, f"seed {seed}: {capsys.readouterr().err}\n{case}"
    wrong = faults(case, tmp_path / f"out{case.output}")
    assert not wrong, f"seed {seed}: " + "; ".join(wrong) + f"\n{case}"
