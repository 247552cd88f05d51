"""keyscale on Modal: the functions that `--remote` calls, and `process_framing_ai` for existing editors.

    keyscale remote deploy                   # or: modal deploy -m keyscale.modal_stub

Read from the environment at deployment:
    KEYSCALE_GPU         GPUs in order of preference, such as "L4,A10,T4" (the default), or "none" for CPUs alone
    KEYSCALE_CONTAINERS  containers that run at once at most (10)
    KEYSCALE_TIMEOUT     seconds after which a chunk is given up, 6 to 86400 (900)
    R2_SECRET            name of the Modal secret with the R2_* variables, for `process_framing_ai` (r2-credentials);
                         "none" for a deployment without one, where that function answers with an error

What the functions do is the engine's: `engine.worker.chunk` and `engine.framing_ai`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from queue import Full
from typing import Any

import modal
import modal.experimental

from keyscale.engine.models.registry import all_models
from keyscale.engine.remote import prices
from keyscale.engine.remote.names import APP, DEPLOYED

__all__ = ["Engine", "EngineWide", "app", "describe", "process_framing_ai", "process_framing_ai_job"]

WEIGHTS_FOLDER = "/weights"

PINNED = (
    "av==18.1.0",
    "filelock==4.2.11",
    "msgspec==0.22.0",
    "numpy==2.4.6",
    "pillow==13.0.0",
    "platformdirs==4.14.7",
    "safetensors==0.8.0",
    "torch==2.13.0",
)
"""What a chunk imports in a container, in the versions of constraints.txt; a test holds the two together."""
ON_CPUS = ("openvino==2026.4.1",)
"""What it imports besides where networks run on the CPU."""
STORAGE = ("boto3==1.44.5",)
"""For `process_framing_ai`, which reads and writes the bucket itself."""


# At deployment the variables are the user's; in the container they are those that the image carries.
GPUS = list(prices.wanted_gpus(os.environ))
CONTAINERS = prices.wanted_containers(os.environ)
TIMEOUT_S = prices.wanted_timeout(os.environ)
R2_SECRET = os.environ.get("R2_SECRET", "").strip() or "r2-credentials"
DEVICE = "cuda" if GPUS else "cpu"


def _weights() -> list[str]:
    """Commands that put every published network into the image, checked by its SHA-256."""
    commands = [f"mkdir -p {WEIGHTS_FOLDER}"]
    for spec in all_models():
        for file in spec.files:
            if file.url:
                path = f"{WEIGHTS_FOLDER}/{file.filename}"
                commands.append(
                    f"python -c \"import urllib.request as r; r.urlretrieve('{file.url}', '{path}')\""
                    f" && echo '{file.sha256}  {path}' | sha256sum --check --strict"
                )
    return commands


def _settings() -> dict[str, str]:
    return {
        "KEYSCALE_GPU": ",".join(GPUS) or "none",
        "KEYSCALE_CONTAINERS": str(CONTAINERS),
        "KEYSCALE_TIMEOUT": str(TIMEOUT_S),
        "R2_SECRET": R2_SECRET,
        "KEYSCALE_WEIGHTS_DIR": WEIGHTS_FOLDER,
        # NVIDIA's container runtime mounts the libraries of NVENC and NVDEC for `video` alone.
        "NVIDIA_DRIVER_CAPABILITIES": "compute,video,utility",
    }


def _with_engine(image: modal.Image) -> modal.Image:
    # A development checkout reaches `cli` and `engine` through links, which Modal does not follow: the engine is named
    # too. What is no Python belongs to it as well: the shipped networks.
    return image.add_local_python_source(
        "keyscale", "keyscale.engine", ignore=["**/__pycache__", "**/*.pyc", "**/.DS_Store"]
    )


_python = modal.Image.debian_slim(python_version="3.11")
# Weights before packages: they never change, and a new version of a package does not fetch them again.
_packages = _python.run_commands(*_weights()).pip_install(*PINNED, *(() if GPUS else ON_CPUS))
image = _with_engine(_packages.env(_settings()))
storage_image = _with_engine(_packages.pip_install(*STORAGE).env(_settings()))

app = modal.App(APP)


def _heavy(cores: int) -> dict[str, Any]:
    return {
        "image": image,
        "gpu": GPUS or None,
        # Reservation and limit: what a container takes above its reservation is billed too.
        "cpu": (float(cores), float(cores)),
        "memory": int(prices.GIB * 1024),
        "timeout": TIMEOUT_S,
        # Its own default is the timeout, which may be shorter than fetching a large image takes.
        "startup_timeout": 600,
        "max_containers": CONTAINERS,
        "scaledown_window": prices.IDLE_S,
    }


@app.function(
    image=image,
    cpu=(prices.ASKING_CORES, prices.ASKING_CORES),
    memory=int(prices.ASKING_GIB * 1024),
    timeout=60,
    startup_timeout=600,
    scaledown_window=prices.ASKING_IDLE_S,
    name=DEPLOYED,
)
def describe() -> dict[str, Any]:
    """What is deployed: asked before anything is sent."""
    from keyscale.engine.worker.chunk import here

    cores = (prices.CORES, prices.WIDE_CORES)
    return here(device=DEVICE, gpus=tuple(GPUS), containers=CONTAINERS, timeout_s=TIMEOUT_S, cores=cores)


class _Engine:
    """Chunks, made with a network that is loaded once a container."""

    cores = prices.CORES

    @modal.enter(snap=True)
    def load(self) -> None:
        """Import what takes seconds, before the memory is kept for later containers; no GPU is there yet."""
        from keyscale.engine.models.openvino import load_openvino

        import_module("torch")
        if not GPUS:
            load_openvino()
        import_module("keyscale.engine.worker.chunk")
        import_module("keyscale.engine.pipeline.upscaler")

    @modal.enter(snap=False)
    def open(self) -> None:
        """See that the device is there, and let it do its first work before the first chunk waits for that."""
        from keyscale.engine.system import keep_to_cores
        from keyscale.engine.worker.chunk import workshop

        # Libraries start a thread for each core that they see, which is the machine's and not the reservation. Not
        # before the snapshot: it is restored on machines with other cores.
        keep_to_cores(self.cores)
        self._workshop = workshop(DEVICE)
        if GPUS:
            self._workshop.warm()

    @modal.exit()
    def close(self) -> None:
        """Leave nothing behind where the machine is used again."""
        self._workshop.close()

    @modal.method()
    def upscale_chunk(
        self, job_json: str, chunk: dict[str, int], urls: dict[str, str], queue: modal.Queue | None = None
    ) -> dict[str, Any]:
        """One chunk, see `keyscale.engine.worker.chunk.make_chunk`.

        Progress goes to `queue`, in a partition named after the job.
        """
        from keyscale.engine.errors import DeviceLost
        from keyscale.engine.worker.chunk import make_chunk

        def report(job_id: str, news: dict[str, Any]) -> None:
            _tell(queue, news, job_id)

        try:
            return make_chunk(self._workshop, job_json, chunk, urls, report, timeout_s=TIMEOUT_S)
        except DeviceLost:
            # No network runs in this process any more: the client's next try gets another container.
            modal.experimental.stop_fetching_inputs()
            raise


# Without retries of Modal's own: the client starts again what failed, by the kind of fault and with a bound. Modal
# would do so after a timeout too, and have it paid.
@app.cls(enable_memory_snapshot=True, **_heavy(prices.CORES))
class Engine(_Engine):
    """With as many cores as most jobs need."""


@app.cls(enable_memory_snapshot=True, **_heavy(prices.WIDE_CORES))
class EngineWide(_Engine):
    """With twice as many, for jobs whose GPU would wait for them."""

    cores = prices.WIDE_CORES


def _tell(queue: modal.Queue | None, news: dict[str, Any], partition: str) -> None:
    """Put progress into a queue, if there is one; no work is given up for the sake of a progress bar."""
    if queue is not None:
        with suppress(modal.exception.Error, OSError, Full):
            queue.put(news, block=False, partition=partition)


def _framing_ai(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from keyscale.engine.framing_ai import FramingRequest, process
    from keyscale.engine.system import keep_to_cores

    keep_to_cores(prices.CORES)
    yield {
        "call_id": modal.current_function_call_id(),
        "progress": 0,
        "phase": "start",
        "message": "Starting",
        "current": 0,
        "total": 0,
    }
    yield from process(FramingRequest(**arguments), os.environ, device=DEVICE)


_SECRETS = [] if R2_SECRET.lower() == "none" else [modal.Secret.from_name(R2_SECRET)]
# The signature below stands twice: callers give these arguments by place or by name, so that `*args` would not do, and
# Modal takes a function's kind from its body: one that yields streams and cannot be spawned, the other returns.
_BUCKET: dict[str, Any] = {"secrets": _SECRETS, **_heavy(prices.CORES), "image": storage_image, "timeout": 4 * 3600}


@app.function(**_BUCKET)
def process_framing_ai(
    job_id: str,
    user_id: str,
    input_key: str,
    output_key: str,
    keyframes: list[dict[str, Any]],
    output_width: int = 810,
    output_height: int = 1440,
    fps: float = 30,
    segment_data: dict[str, Any] | None = None,
    include_audio: bool = True,
    source_start_time: float | None = None,
    source_end_time: float | None = None,
    rotation: float | None = 0,
    fan_out: bool = True,
) -> Iterator[dict[str, Any]]:
    """The whole job, from `{user_id}/{input_key}` to `{user_id}/{output_key}`: progress, and last the result.

    Long results are made by containers of `Engine`, unless `fan_out` is False.
    """
    yield from _framing_ai(dict(locals()))


@app.function(**_BUCKET)
def process_framing_ai_job(
    job_id: str,
    user_id: str,
    input_key: str,
    output_key: str,
    keyframes: list[dict[str, Any]],
    output_width: int = 810,
    output_height: int = 1440,
    fps: float = 30,
    segment_data: dict[str, Any] | None = None,
    include_audio: bool = True,
    source_start_time: float | None = None,
    source_end_time: float | None = None,
    rotation: float | None = 0,
    queue: modal.Queue | None = None,
    fan_out: bool = True,
) -> dict[str, Any]:
    """The same as a function that can be spawned, followed and cancelled: progress goes to `queue`, if there is one."""
    arguments = dict(locals())
    arguments.pop("queue")
    last: dict[str, Any] = {}
    for last in _framing_ai(arguments):
        if "status" not in last:
            _tell(queue, last, job_id)
    return last
