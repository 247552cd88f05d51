"""The deployed functions with a stopwatch: every chunk takes as long as a GPU is pretended to need for it.

The chunk itself is really made, read from storage and stored there; what is left of the time the container sleeps, so
that one machine can stand for many.
"""

from __future__ import annotations

import os
import time
from typing import Any

import modal

from keyscale import modal_stub as real
from keyscale.engine.remote.names import APP, DEPLOYED

SECONDS = float(os.environ.get("BENCH_CHUNK_SECONDS", "0"))

app = modal.App(APP)


@app.function(image=real.image, name=DEPLOYED)
def describe() -> dict[str, Any]:
    """As the real one."""
    from keyscale.engine.worker.chunk import here

    return here(device=real.DEVICE, gpus=(), containers=real.CONTAINERS, timeout_s=real.TIMEOUT_S)


@app.cls(
    image=real.image,
    env={"BENCH_CHUNK_SECONDS": str(SECONDS)},
    max_containers=real.CONTAINERS,
    timeout=real.TIMEOUT_S,
    startup_timeout=120,
)
class Engine:
    """As the real one, and as slow as it is told to be."""

    @modal.enter()
    def open(self) -> None:
        from keyscale.engine.worker.chunk import workshop

        self._workshop = workshop(real.DEVICE)

    @modal.method()
    def upscale_chunk(
        self,
        job_json: str,
        chunk: dict[str, int],
        urls: dict[str, str],
        queue: modal.Queue | None = None,  # noqa: ARG002 - the signature of the real one
    ) -> dict[str, Any]:
        from keyscale.engine.worker.chunk import make_chunk

        began = time.monotonic()
        answer = make_chunk(self._workshop, job_json, chunk, urls, lambda *_: None)
        time.sleep(max(0.0, SECONDS - (time.monotonic() - began)))
        return answer
