"""Random remote jobs, and the bill that Modal and R2 would write for each, metered at the servers.

The prices are written out here once more, by modal.com/pricing, modal.com/docs/guide/resources and
developers.cloudflare.com/r2/pricing: a container is paid from its start to its end, its `scaledown_window` included,
for cores and memory by reservation or use, whichever is more.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.fake_modal import Pace
from support.faulty_place import FRAMES, ForkedPlace

__all__ = ["Billed", "bills"]

CORE_S, GIB_S = 0.0000131, 0.00000222
WRITE, READ = 4.5e-6, 0.36e-6
CORES, GIB, IDLE_S = 4.0, 8.0, 10.0
"""Of containers that make chunks."""
ASKING_CORES, ASKING_GIB, ASKING_IDLE_S = 0.25, 1.0, 60.0
"""Of the one that tells what is deployed; each job finds none running."""

PACE = Pace(frame_s=0.06, area=64 * 64, start_s=2.0, varies=0.2)


@dataclass(frozen=True, kw_only=True)
class Billed:
    """One job."""

    what: str
    estimate: float
    """Dollars by `plan --remote`, before it."""
    told: float
    """By its summary, after it."""
    bill: float
    containers: int
    requests: tuple[int, int]
    """To storage: writes, reads."""


def bills(place: ForkedPlace, folder: Path, jobs: int, seed: int, learning: int = 3) -> Iterator[Billed]:
    """Run jobs of random length, size, chunks and containers, and bill each; `learning` more teach speeds before."""
    draw, modal = random.Random(seed), place.fake
    for number in range(learning + jobs):
        containers = draw.randint(1, 4)
        side, rate = draw.choice((64, 96, 128)), draw.choice((1, 2))
        flags = ["--size", f"{side}x{side}", "--fps", str(rate), "--end", str(draw.randint(20, FRAMES))]
        flags += ["--chunk-seconds", str(draw.randint(5, 20)), "--model", "lanczos"]
        flags += ["--remote", "--remote-containers", str(containers)]
        own = {"KEYSCALE_CACHE_DIR": str(folder / "cache"), "KEYSCALE_GPU": "none", "KEYSCALE_CONTAINERS": "4"}
        own |= {"KEYSCALE_STATE_DIR": str(folder / "state")}
        source, output = place.clip(folder), folder / f"{number}.mp4"
        modal.deploy(4, 900.0, pace=PACE)
        modal.stays()
        plan = place.run("plan", source, "-o", output, *flags, "--json", environment=own)
        assert plan.returncode == 0, plan.stderr
        before = len(place.proxy.requests)
        client = place.client("upscale", source, "-o", output, *flags, **own)
        assert client.end() == 0, client.errors
        stays, requests = modal.stays(), place.proxy.requests[before:]
        reads = sum(line.startswith(("GET", "HEAD")) and "list-type" not in line for line in requests)
        writes = sum(line.startswith(("PUT", "POST")) for line in requests)
        bill = writes * WRITE + reads * READ
        bill += (PACE.start_s + ASKING_IDLE_S) * (ASKING_CORES * CORE_S + ASKING_GIB * GIB_S)
        for stay in stays:
            seconds = stay.seconds + IDLE_S
            bill += seconds * (max(CORES, stay.core_seconds / seconds) * CORE_S + GIB * GIB_S)
        if number >= learning:
            yield Billed(
                what=" ".join(flags[:8]) + f" --remote-containers {containers}",
                estimate=json.loads(plan.stdout)["remote"]["dollars"],
                told=client.last["remote"]["dollars"],
                bill=bill,
                containers=len(stays),
                requests=(writes, reads),
            )
