"""What POSIX has and Windows has not: each call with what is done there instead. No other module makes them."""

from __future__ import annotations

import math
import os
import random
import sys
from contextlib import suppress
from pathlib import Path

__all__ = [
    "CAN_RUN_ANEW",
    "KILLED",
    "OWN_GROUP",
    "address_space_limit",
    "bound_cores",
    "keep_to_cores",
    "process_age",
    "run_anew",
    "sync",
    "usable_cores",
]

KILLED = 1 if sys.platform == "win32" else -9
"""Exit code of a process that was killed, as `subprocess` tells it."""

OWN_GROUP = 0x200 if sys.platform == "win32" else 0
"""`creationflags` of a child that Ctrl-C in a terminal is not to reach: Windows ignores `start_new_session`, and has
CREATE_NEW_PROCESS_GROUP."""

CAN_RUN_ANEW = sys.platform != "win32"
"""Whether `run_anew` does what it says."""

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def bound_cores() -> int:
    """Cores that this process may run on; on systems that bind no process to some cores, all there are."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return cores


def keep_to_cores(count: int) -> None:
    """Let this process, and all threads that it starts from now on, see no more than `count` of its cores.

    For a container that has a share of a large machine: decoders, encoders and networks start a thread for each core
    that they see, and would wait for each other within that share. Which cores is drawn, so that neighbours do not
    meet on the first ones. Nothing where the system binds no process to cores, or refuses to.
    """
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > count > 0:
            with suppress(OSError):
                os.sched_setaffinity(0, random.SystemRandom().sample(cores, count))


def process_age() -> float | None:
    """Seconds since this process was started, by the kernel's own clock; None where there is no /proc to tell.

    Field 22 of /proc/self/stat, see proc_pid_stat(5), in ticks since the machine started.
    """
    if sys.platform == "linux":
        with suppress(OSError, ValueError, IndexError):
            stat, uptime = Path("/proc/self/stat").read_text(), Path("/proc/uptime").read_text()
            # The name of the program, which may hold spaces, ends with the last parenthesis; after it comes field 3.
            ticks = int(stat.rpartition(")")[2].split()[19])
            return max(0.0, float(uptime.split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))
    return None


def usable_cores() -> int:
    """Cores whose time this process has: `bound_cores`, or fewer where a container has a quota of CPU time."""
    return max(1, math.ceil(min(bound_cores(), _quota())))


def _quota() -> float:
    """CPU time a second that the control groups of this process may have, in seconds; infinite without a quota.

    `cpu.max` holds "QUOTA PERIOD" or "max PERIOD" (cgroup-v2.rst of the kernel); version 1 has a file for each of the
    two, and -1 for none. A container may see its own group as the root, or a path that exists outside alone.
    """
    least = math.inf
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return least
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / controllers
        for group in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            if not group.is_relative_to(root):
                break
            try:
                if controllers:
                    quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                else:
                    quota, period = (group / "cpu.max").read_text().split()
                if float(quota) > 0:  # "max" is no number
                    least = min(least, float(quota) / float(period))
            except (OSError, ValueError, ZeroDivisionError):
                continue
    return least


def run_anew() -> None:
    """Put a new process of the same command line in this one's place; returns only where that is not done.

    Files are closed by it and locks let go of. Windows would give the new process another number, and whoever waits
    for this one would find it ended.
    """
    if CAN_RUN_ANEW:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very command


def address_space_limit() -> int | None:
    """Bytes of address space that this process may have; None where it may have all, as everywhere but on Linux."""
    limit = None
    if sys.platform == "linux":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limit = None if soft == resource.RLIM_INFINITY else soft
    return limit


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, outlive a power cut.

    Windows opens no folders, and flushes a file only for who may write to it.

    Raises:
        OSError: it cannot be opened or written to the disk.
    """
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
