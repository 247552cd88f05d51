"""What random remote jobs are estimated at, and said to have cost, beside the bill that servers here meter for them.

    python -m bench.bills [--jobs N] [--seed N] [--json FILE]

Clients, chunks and storage are real; containers are forked processes whose start and frames take a pretended time
that varies by a fifth from one to another, so that two cores do for four of them. They are billed as ones without a
GPU, which multiplies the price of the same seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.bills import Billed, bills  # noqa: E402 - the servers of the tests are what it runs against
from support.fake_modal import FakeModal  # noqa: E402
from support.faulty_place import ForkedPlace  # noqa: E402
from support.s3.proxy import Proxy  # noqa: E402
from support.s3.rclone import RcloneServer  # noqa: E402


def measure(jobs: int, seed: int) -> Iterator[Billed]:
    """Run the jobs."""
    with tempfile.TemporaryDirectory(prefix="keyscale-bench-") as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        s3 = RcloneServer(folder / "s3")
        s3.start()
        try:
            with (
                FakeModal(folder / "modal") as modal,
                Proxy(s3.endpoint) as proxy,
                closing(ForkedPlace(folder, s3, modal, proxy)) as place,
            ):
                yield from bills(place, modal, folder, jobs, seed)
        finally:
            s3.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.bills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args()
    found = []
    for one in measure(given.jobs, given.seed):
        found.append(one)
        print(
            f"{one.what}: bill ${one.bill:.5f}, estimate {one.estimate / one.bill:.3f} of it, summary "
            f"{one.told / one.bill:.3f}; containers: {one.containers}, writes and reads: {one.requests}",
            flush=True,
        )
    for name, ratios in (
        ("estimate", [one.estimate / one.bill for one in found]),
        ("summary", [one.told / one.bill for one in found]),
    ):
        median = statistics.median(ratios)
        print(f"{name}: {median:.3f} of the bill, median of {len(found)}; {min(ratios):.3f} to {max(ratios):.3f}")
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
