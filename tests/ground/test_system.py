"""What the system tells of processes and cores."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from keyscale.engine.system import process_age, usable_cores

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells neither elsewhere"),
]


def answer(code: str) -> str:
    """What a process of its own prints."""
    code = f"import time; from keyscale.engine.system import *; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("count", [1, usable_cores(), usable_cores() + 3])
def test_a_process_keeps_to_so_many_of_its_cores_and_never_gets_more(count: int) -> None:
    code = (
        f"keep_to_cores({count}); import subprocess, sys; print(usable_cores(), subprocess.run([sys.executable, '-c', "
        "'import os; print(len(os.sched_getaffinity(0)))'], capture_output=True, text=True).stdout)"
    )
    assert answer(code).split() == [str(min(count, usable_cores()))] * 2


def test_the_age_of_a_process_is_the_time_since_it_was_started() -> None:
    began = time.monotonic()
    told = float(answer("time.sleep(0.5); print(process_age())"))
    # The kernel counts hundredths of a second.
    assert 0.48 <= told <= time.monotonic() - began + 0.02
    mine = process_age()
    assert mine is not None
    assert mine > 0
