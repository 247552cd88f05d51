"""Measurements of keyscale on this machine: `make bench`, or `python -m bench.run --help`."""

from keyscale.engine.machine import share_cores

# As every job does before it loads torch, so that all that is compared runs under the same rule.
share_cores()
