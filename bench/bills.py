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
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from support.bills import Billed, bills
from support.faulty_place import forked_on
from support.s3.rclone import RcloneServer


def measure(jobs: int, seed: int) -> Iterator[Billed]:
    """Run the jobs."""
    with tempfile.TemporaryDirectory(prefix="keyscale-bench-") as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        with closing(RcloneServer(folder / "s3")) as s3:
            s3.start()
            with forked_on(folder, s3) as place:
                yield from bills(place, folder, jobs, seed)


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
        near = sum(0.9 <= ratio <= 1.1 for ratio in ratios)
        print(
            f"{name}: {median:.3f} of the bill, median of {len(found)}; {min(ratios):.3f} to {max(ratios):.3f}; {near} "
            "within a tenth"
        )
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
