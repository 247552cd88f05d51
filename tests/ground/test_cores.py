"""How many threads a process is given: cores that it is bound to, and a container's quota of CPU time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from keyscale.engine import machine, system
from keyscale.engine.models.openvino import thread_count

CORES = 16


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of control groups, for a process on 16 cores."""
    monkeypatch.setattr(system, "CGROUPS", tmp_path / "sys")
    monkeypatch.setattr(system, "OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(system, "bound_cores", lambda: CORES)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def put(groups: Path, own: str, files: dict[str, str]) -> None:
    (groups / "cgroup").write_text(own)
    for name, text in files.items():
        path = groups / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        # Version 2: docker run --cpus 4, its group seen as the root
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, CORES),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, CORES),
        # systemd: the least of the group's own and those above it
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "300000 100000\n"}, 2),
        # Version 1
        ("5:cpu,io:/x\n", {"cpu,io/x/cpu.cfs_quota_us": "800000", "cpu,io/x/cpu.cfs_period_us": "100000"}, 8),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, CORES),
        # A path that exists outside the container alone
        ("1:cpu:/docker/0f\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        # Nothing of the kind, or nothing that can be read
        ("3:cpuset:/\n2:memory:/\n", {"cpuset/cpu.max": "100000 100000\n"}, CORES),
        ("0::/\n", {"cpu.max": "nonsense\n"}, CORES),
        ("nonsense", {}, CORES),
    ],
)  # fmt: skip
def test_a_quota_is_counted_in_cores(groups: Path, own: str, files: dict[str, str], cores: int) -> None:
    put(groups, own, files)
    assert system.usable_cores() == cores


def test_without_control_groups_all_cores_are_usable(groups: Path) -> None:
    assert system.usable_cores() == CORES


def test_the_networks_threads_keep_to_the_quota(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(groups, "0::/\n", {"cpu.max": "300000 100000\n"})
    monkeypatch.setattr(machine, "bound_cores", lambda: CORES)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    assert thread_count() == 3
    machine.share_cores()
    assert os.environ.pop("OMP_NUM_THREADS") == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    machine.share_cores()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert thread_count() == 2
