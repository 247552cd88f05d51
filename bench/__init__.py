"""Measurements of keyscale on this machine: `make bench`, or `python -m bench.run --help`."""

import sys
from pathlib import Path

from keyscale.engine.machine import share_cores

# As every job does before it loads torch, so that all that is compared runs under the same rule.
share_cores()

# At the end, where it hides nothing: remote jobs are measured against the servers of the tests, in `tests/support`.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
