"""What a second of a container on Modal costs, what its GPUs can do, and which of them a deployment asks for.

Prices are those of modal.com/pricing as of 2026-07-01, in dollars a second, for the Starter and Team plans, without the
surcharges for a region (1.5 to 1.75 times) or for containers that are not preempted (3 times). Modal charges a
container from its start to its end, idle time included, for its GPU, and for cores and memory by reservation or use,
whichever is more (modal.com/docs/guide/resources). Storage is Cloudflare R2 by developers.cloudflare.com/r2/pricing of
the same month, beyond what is free each month. Prices change, and this is the one file that holds them.

B300, which Modal may give for `B200+`, has no listed price of its own and counts as B200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyscale.engine.errors import EncoderError, UsageError
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from keyscale.engine.plan.plan import Plan

__all__ = [
    "ASKING_CORES",
    "ASKING_GIB",
    "ASKING_IDLE_S",
    "CONTAINERS",
    "CORES",
    "CPU",
    "GIB",
    "GPU",
    "GPUS",
    "IDLE_S",
    "LEAST_TIMEOUT_S",
    "MOST_TIMEOUT_S",
    "PREFERRED",
    "READ",
    "TIMEOUT_S",
    "WIDE_CORES",
    "WRITE",
    "asking_cost",
    "check_suited",
    "cost",
    "encodes",
    "gpu_of",
    "wanted_containers",
    "wanted_gpus",
    "wanted_timeout",
]

CORE_SECOND = 0.0000131
"""Dollars for a physical core and second."""
GIB_SECOND = 0.00000222
"""Dollars for a GiB of memory and second."""
WRITE, READ = 4.50e-6, 0.36e-6
"""Dollars for a request to R2 that stores or lists (class A), and for one that reads (class B); deleting is free."""

PREFERRED = "L4,A10,T4"
"""GPUs that `modal_stub.py` asks for unless `KEYSCALE_GPU` says otherwise: cheap ones that encode video as well. By
data sheet and price the first does the most for a dollar among those."""

CONTAINERS = 10
"""Containers at once, unless `KEYSCALE_CONTAINERS` says otherwise: the number of GPUs that Modal's Starter plan allows.
Its Team plan allows 50."""

TIMEOUT_S = 900
"""Seconds after which a chunk is given up, unless `KEYSCALE_TIMEOUT` says otherwise."""

LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 6, 24 * 3600
"""What `KEYSCALE_TIMEOUT` may say. A call gives up 3 s before its time at the latest (`engine.worker.chunk`), and has
as much left for its work then; a day is the longest that Modal gives a function."""

CORES, WIDE_CORES, GIB = 4, 8, 8.0
"""Physical cores that a container of `modal_stub.py` reserves and is held to, usually and where the GPU would wait for
four, and GiB of memory that it reserves; a test holds them together."""

IDLE_S = 10
"""Seconds that a container waits for another chunk before it ends (`scaledown_window`), which are paid. Between two
chunks of a job lies less than one."""

ASKING_CORES, ASKING_GIB, ASKING_IDLE_S = 0.25, 1.0, 60
"""The same of the small container that is asked what is deployed. It waits longer: the next command asks again."""

ASKING_START_S = 5.0
"""Seconds in which it starts and answers; a guess."""


@dataclass(frozen=True, kw_only=True)
class GPU:
    """A kind of GPU on Modal."""

    name: str
    """As Modal names it."""
    dollars_s: float
    tflops: float
    """Dense fp16 with tensor cores, by NVIDIA's data sheets."""
    nvenc: tuple[str, ...] = ()
    """Codecs that it encodes."""


GPUS = (
    GPU(name="T4", dollars_s=0.000164, tflops=65, nvenc=("h264", "hevc")),
    GPU(name="L4", dollars_s=0.000222, tflops=121, nvenc=("h264", "hevc", "av1")),
    GPU(name="A10", dollars_s=0.000306, tflops=125, nvenc=("h264", "hevc")),
    GPU(name="L40S", dollars_s=0.000542, tflops=362, nvenc=("h264", "hevc", "av1")),
    GPU(name="A100-40GB", dollars_s=0.000583, tflops=312),
    GPU(name="A100-80GB", dollars_s=0.000694, tflops=312),
    GPU(name="RTX-PRO-6000", dollars_s=0.000842, tflops=500, nvenc=("h264", "hevc", "av1")),
    GPU(name="H100", dollars_s=0.001097, tflops=989),
    GPU(name="H200", dollars_s=0.001261, tflops=989),
    GPU(name="B200", dollars_s=0.001736, tflops=2250),
)

_NAMES = tuple(
    dict.fromkeys(name for gpu in GPUS for name in ("A100" if gpu.name.startswith("A100") else gpu.name, gpu.name))
)
"""Of the GPUs that can be asked for; one that comes with several sizes of memory also without it."""

CPU = GPU(name="none", dollars_s=0.0, tflops=1.0)


def gpu_of(name: str) -> GPU:
    """The entry that a driver's name (`NVIDIA A10G`) or Modal's own means; an unknown one counts as the dearest.

    `A100` alone is the one with more memory, which is what Modal may give.
    """
    wanted = name.upper().replace("-", " ").replace("B300", "B200").split()
    wanted = [word.rstrip("!+").replace("A10G", "A10") for word in wanted]
    if wanted in (["CPU"], ["NONE"]):
        return CPU
    found = [gpu for gpu in GPUS if set(gpu.name.split("-")) <= set(wanted)]
    if not found and "A100" in wanted:
        found = [gpu for gpu in GPUS if gpu.name.startswith("A100")]
    return max(found or GPUS, key=lambda gpu: gpu.dollars_s)


def cost(gpu: str, seconds: float, cores: float = CORES) -> float:
    """Dollars for `seconds` of a container with that GPU, or `cpu`, and `cores` cores."""
    return seconds * (gpu_of(gpu).dollars_s + cores * CORE_SECOND + GIB * GIB_SECOND)


def asking_cost() -> float:
    """Dollars for asking what is deployed, where the container that answers was not running."""
    return (ASKING_START_S + ASKING_IDLE_S) * (ASKING_CORES * CORE_SECOND + ASKING_GIB * GIB_SECOND)


def wanted_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """GPUs in order of preference, by `KEYSCALE_GPU`; empty where the functions are to run on CPUs.

    Raises:
        UsageError: one is not known here.
    """
    text = environment.get("KEYSCALE_GPU", "").strip() or PREFERRED
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if [part.lower() for part in chosen] == ["none"]:
        return ()
    # "A10G" is Modal's older name; "!" asks for none that is faster, "+" for one that may be.
    wrong = [part for part in chosen if part.upper().rstrip("!+").replace("A10G", "A10") not in _NAMES]
    if wrong or not chosen:
        raise UsageError(
            f"KEYSCALE_GPU is {text!r}, which names no GPUs ({', '.join(wrong) or 'none'})",
            remedy="Name GPUs in order of preference, such as L4,A10,T4, or none for CPUs; "
            f"known are {', '.join(_NAMES)}.",
        )
    return chosen


def wanted_containers(environment: Mapping[str, str]) -> int:
    """Containers at once, by `KEYSCALE_CONTAINERS`.

    Raises:
        UsageError: it is no whole number above 0.
    """
    return _whole_number(environment, "KEYSCALE_CONTAINERS", CONTAINERS)


def wanted_timeout(environment: Mapping[str, str]) -> int:
    """Seconds after which a chunk is given up, by `KEYSCALE_TIMEOUT`.

    Raises:
        UsageError: it is no whole number, too short for any work, or longer than Modal allows.
    """
    seconds = _whole_number(environment, "KEYSCALE_TIMEOUT", TIMEOUT_S)
    if not LEAST_TIMEOUT_S <= seconds <= MOST_TIMEOUT_S:
        raise UsageError(
            f"KEYSCALE_TIMEOUT is {seconds}, it has to be from {LEAST_TIMEOUT_S} to {MOST_TIMEOUT_S} seconds",
            remedy=f"Set KEYSCALE_TIMEOUT, or leave it out for {TIMEOUT_S}.",
        )
    return seconds


def _whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise UsageError(f"{name} is {text!r}, not a whole number above 0", remedy=f"Set {name}, or leave it out.")
    return int(text)


def encodes(gpu: GPU, plan: Plan) -> bool:
    """Whether that kind of GPU, or `CPU`, has the plan's encoder."""
    return not plan.encoder.encoder.endswith("_nvenc") or plan.encoder.codec in gpu.nvenc


def check_suited(plan: Plan, gpus: Sequence[str]) -> None:
    """See that every GPU which a container may get does what the plan asks for.

    Args:
        plan: of the job.
        gpus: that are asked for, as Modal names them; empty where the functions run on CPUs.

    Raises:
        UsageError: the job asks for another kind of device.
        EncoderError: one of them does not encode the plan's codec, and the plan asks for a GPU's encoder.
    """
    device, asked = "cuda" if gpus else "cpu", plan.job.compute.device
    if asked.partition(":")[0] not in {"auto", device, "gpu" if gpus else device}:
        raise UsageError(
            say("{device=} with {remote=True}: the deployed functions run on {}", asked, device),
            remedy=say("Leave {device} out, or deploy with another KEYSCALE_GPU."),
        )
    lacking = [name for name in gpus or ("cpu",) if not encodes(gpu_of(name), plan)]
    if lacking:
        able = ", ".join(gpu.name for gpu in GPUS if encodes(gpu, plan))
        raise EncoderError(
            say(
                "{} with {remote=True}: {}, where the deployed functions may run, cannot encode with it",
                plan.encoder.encoder,
                " and ".join(lacking if gpus else ("CPUs",)),
            ),
            remedy=say("Choose another {codec}, or deploy with a KEYSCALE_GPU of those that can: {}.", able),
        )
