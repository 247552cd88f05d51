"""What the remote path costs beside the work, and how it scales, against servers on this machine.

    python -m bench.remote [--chunk-seconds S ...] [--chunks N] [--containers N ...] [--rounds N] [--json FILE]

Deployments of the real chunk function, without a network (the job only samples). In the first, chunks take what they
take: the difference to the same job with `--local`, a job and a chunk, and requests and bytes to storage. In the others
each chunk is stretched to one of `--chunk-seconds`, as if a GPU needed that: the phase `upscale` against chunks *
seconds / containers. Latency to a far-away service is not part of it. Nothing is asserted. What jobs cost beside what
they are estimated at is measured by `python -m bench.bills`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.clips import make_clip
from support.modal_server import ModalServer
from support.s3.proxy import Proxy
from support.s3.rclone import RcloneServer
from support.s3.server import via

from bench.machine import load_average
from keyscale.engine.system import usable_cores

ROOT = Path(__file__).resolve().parents[1]
FRAMES_A_CHUNK, RATE = 3, 30
SIZE = (128, 96)


@dataclass(frozen=True)
class Run:
    """One job."""

    seconds: float
    """Of the whole command."""
    upscale: float
    """Of its phase `upscale`."""
    reads: int
    writes: int
    deletes: int
    """Requests to storage, of client and containers."""
    sent: int
    received: int
    """Bytes to and from storage, headers included."""


class Place:
    """Servers, a deployment, a clip."""

    def __init__(self, folder: Path, s3: RcloneServer, modal: ModalServer, proxy: Proxy) -> None:
        self.folder, self.s3, self.modal, self.proxy = folder, s3, modal, proxy
        self.settings = via(s3.new_bucket(), proxy.endpoint)
        self.clip = folder / "clip.mp4"

    def deploy(self, seconds: float, containers: int) -> None:
        environment = {
            "KEYSCALE_GPU": "none",
            "KEYSCALE_CONTAINERS": str(containers),
            "BENCH_CHUNK_SECONDS": str(seconds),
            "PYTHONPATH": str(ROOT),
        }
        done = self.modal.deploy("-m", "bench.remote_stub", cwd=ROOT, environment=environment)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)

    def job(self, *flags: str) -> Run:
        environment = os.environ | self.modal.environment() | self.s3.environment(self.settings)
        environment |= {"KEYSCALE_STATE_DIR": str(self.folder / "state")}
        command = [
            str(Path(sys.executable).with_name("keyscale")),
            *("upscale", str(self.clip), "-o", str(self.folder / "out.mp4"), "--overwrite"),
            *("--size", f"{SIZE[0]}x{SIZE[1]}", "--fps", str(RATE), "--model", "lanczos", "--progress", "json"),
            *("--chunk-seconds", str(FRAMES_A_CHUNK / RATE), *flags),
        ]
        before, sent, received = len(self.proxy.requests), self.proxy.sent, self.proxy.received
        began = time.perf_counter()
        marks: dict[str, tuple[float, float]] = {}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event: dict[str, Any] = json.loads(line)
                if event["event"] == "progress":
                    first, _ = marks.get(event["phase"], (time.perf_counter(), 0.0))
                    marks[event["phase"]] = (first, time.perf_counter())
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        stage_end = marks["stage"][1] if "stage" in marks else marks["upscale"][0]
        seconds, requests = time.perf_counter() - began, self.proxy.requests[before:]
        return Run(
            seconds,
            marks["upscale"][1] - stage_end,
            reads=sum(line.startswith(("GET", "HEAD")) for line in requests),
            writes=sum(line.startswith(("PUT", "POST")) for line in requests),
            deletes=sum(line.startswith("DELETE") for line in requests),
            sent=self.proxy.sent - sent,
            received=self.proxy.received - received,
        )


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    (folder / "s3").mkdir()
    with closing(RcloneServer(folder / "s3")) as s3:
        s3.start()
        with (
            Proxy(s3.endpoint) as proxy,
            ModalServer(folder / "modal", python=Path(sys.executable), max_containers=16, scaledown_s=60) as modal,
        ):
            yield Place(folder, s3, modal, proxy)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.remote", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--chunk-seconds", type=float, nargs="+", default=[2.0, 4.0], help="that a pretended GPU takes for a chunk"
    )
    parser.add_argument("--chunks", type=int, default=32, help="of the job that scales (32)")
    parser.add_argument("--containers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3, help="turns of the measurement of overhead (3)")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"{platform.machine()}, {usable_cores()} cores, load {load_average():.1f}", flush=True)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="keyscale-bench-") as name, opened(Path(name)) as place:
        most = max(given.containers)
        place.deploy(0.0, most)
        few, many = 4, given.chunks
        overheads: dict[int, list[float]] = {few: [], many: []}
        runs: dict[int, Run] = {}
        for turn in range(given.rounds + 1):
            for chunks, seconds in overheads.items():
                make_clip(place.clip, frames=chunks * FRAMES_A_CHUNK, rate=RATE, size=SIZE)
                local, remote = place.job("--local"), place.job("--remote", "--remote-containers", str(most))
                if turn:  # the first one starts containers
                    seconds.append(remote.seconds - local.seconds)
                    runs[chunks] = remote
        a, b = (statistics.median(overheads[chunks]) for chunks in (few, many))
        chunk = (b - a) / (many - few)
        found["overhead_job_s"], found["overhead_chunk_s"] = a - few * chunk, chunk
        print(
            f"overhead: {a - few * chunk:.2f} s a job, {chunk * 1000:.0f} ms a chunk with {most} containers", flush=True
        )

        for what in ("reads", "writes", "deletes", "sent", "received"):
            low, high = getattr(runs[few], what), getattr(runs[many], what)
            each = (high - low) / (many - few)
            found[what] = {"job": low - few * each, "chunk": each}
            print(f"{what} to storage: {low - few * each:.0f} a job, {each:.1f} a chunk", flush=True)

        found["scaling"] = []
        for pretended in given.chunk_seconds:
            place.deploy(pretended, most)
            place.job("--remote", "--remote-containers", str(most))  # starts the containers
            for containers in given.containers:
                run = place.job("--remote", "--remote-containers", str(containers))
                ideal = given.chunks * pretended / containers
                found["scaling"].append(
                    {"chunk_s": pretended, "containers": containers, "seconds": run.upscale, "ideal": ideal}
                )
                print(
                    f"{pretended:g} s a chunk, {containers} containers: {run.upscale:.1f} s, ideal {ideal:.1f} s, "
                    f"{run.upscale / ideal:.3f} of it",
                    flush=True,
                )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
