"""What the system allows this process, looked at before anything is loaded that takes more."""

from __future__ import annotations

from keyscale.engine.errors import EnvironmentFault
from keyscale.engine.system import address_space_limit, usable_cores

__all__ = ["check_address_space"]

MIB = 2**20
LEAST = 768 * MIB
EACH_CORE = 64 * MIB
"""Libraries start a thread for each core, and glibc gives a thread an arena of 64 MiB of address space (HEAP_MAX_SIZE
in its malloc/arena.c)."""


def check_address_space() -> None:
    """Refuse a limit of address space with which no network loads.

    Below it libraries do not say that memory has run out: OpenBLAS ends the process while numpy is imported, OpenVINO
    crashes or its threads wait for ever. What is just above it fails with a message of its own. A small job took 1.3
    to 1.45 GiB on one to four cores, one without a network 0.6 GiB; the bound lies between the two.

    Raises:
        EnvironmentFault: `ulimit -v`, or what a batch system sets in its place, is too low.
    """
    limit = address_space_limit()
    needed = LEAST + EACH_CORE * usable_cores()
    if limit is not None and limit < needed:
        raise EnvironmentFault(
            f"this process is limited to {limit // MIB} MiB of address space, and its libraries need more than "
            f"{needed // MIB} MiB on {usable_cores()} cores",
            remedy="Raise the limit (`ulimit -v unlimited`, or the batch system's own), or run on fewer cores "
            "(`taskset -c 0,1 keyscale ...`).",
        )
