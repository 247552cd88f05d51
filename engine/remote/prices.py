"""What a remote job costs, by list prices of Modal and assumed speeds of its GPUs, and whether those can do it.

Prices are those of modal.com/pricing in dollars a second, without regional or non-preemptible surcharges; they change,
and this is the one file that holds them. Speeds were not measured on those GPUs: they are a share of the data sheets'
dense fp16 rates, and the summary of a run tells what it came to.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyscale.engine.errors import EncoderError, UsageError
from keyscale.engine.plan.describe import RemoteEstimate
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from keyscale.engine.plan.plan import Plan
    from keyscale.engine.run_options import RemoteOptions

__all__ = [
    "CONTAINERS",
    "CORES",
    "GIB",
    "GPU",
    "GPUS",
    "LEAST_TIMEOUT_S",
    "MOST_TIMEOUT_S",
    "PREFERRED",
    "TIMEOUT_S",
    "Budget",
    "affordable",
    "affordable_estimate",
    "check_suited",
    "cost",
    "deployment_estimate",
    "estimate",
    "gpu_of",
    "wanted_containers",
    "wanted_gpus",
    "wanted_timeout",
]

CORE_SECOND = 0.0000131
"""Dollars for a physical core and second."""
GIB_SECOND = 0.00000222
"""Dollars for a GiB of memory and second."""

PREFERRED = "L4,A10,T4"
"""GPUs that `modal_stub.py` asks for unless `KEYSCALE_GPU` says otherwise: cheap ones that encode video as well. By
data sheet and price the first does the most for a dollar among those."""

CONTAINERS = 20
"""Containers at once, unless `KEYSCALE_CONTAINERS` says otherwise."""

TIMEOUT_S = 900
"""Seconds after which a chunk is given up, unless `KEYSCALE_TIMEOUT` says otherwise."""

LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 6, 24 * 3600
"""What `KEYSCALE_TIMEOUT` may say. A call gives up 3 s before its time at the latest (`engine.worker.chunk`), and has
as much left for its work then; a day is the longest that Modal gives a function."""

CORES, GIB = 4.0, 8.0
"""What a container of `modal_stub.py` asks for; a test holds the two together."""

FP16_SHARE = 0.15
"""Of the data sheet's dense fp16 rate that small convolutions are taken to reach."""

FRAME_S = 0.05
"""Seconds that decoding, sampling and encoding are taken to need for a 1080x1920 frame on four cores: half of what
docs/benchmarks.md has for two, a small network included."""

START_S = 20.0
"""Seconds until a container that was not running makes its first frame; a guess."""


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
    GPU(name="H100", dollars_s=0.001097, tflops=989),
    GPU(name="H200", dollars_s=0.001261, tflops=989),
    GPU(name="B200", dollars_s=0.001736, tflops=2250),
)

_NAMES = tuple(dict.fromkeys(name for gpu in GPUS for name in (gpu.name.partition("-")[0], gpu.name)))
"""Of the GPUs that can be asked for; one that comes with several sizes of memory also without it."""

CPU = GPU(name="none", dollars_s=0.0, tflops=1.0)


def gpu_of(name: str) -> GPU:
    """The entry that a driver's name (`NVIDIA A10G`) or Modal's own means; an unknown one counts as the dearest."""
    wanted = name.upper().replace("NVIDIA ", "").replace("TESLA ", "")
    if wanted in {"CPU", "NONE"}:
        return CPU
    found = [gpu for gpu in GPUS if _matches(gpu.name, wanted)]
    return max(found or GPUS, key=lambda gpu: (len(gpu.name), gpu.dollars_s) if found else (0, gpu.dollars_s))


def _matches(name: str, wanted: str) -> bool:
    kind, _, memory = name.partition("-")
    return wanted.replace("-", " ").split(" ")[0].rstrip("G!") in {kind, f"{kind}G"} and (
        not memory or memory in wanted or wanted == kind
    )


def cost(gpu: str, seconds: float) -> float:
    """Dollars for `seconds` of a container with that GPU, or `cpu`."""
    return seconds * (gpu_of(gpu).dollars_s + CORES * CORE_SECOND + GIB * GIB_SECOND)


def estimate(plan: Plan, *, gpu: str, containers: int) -> RemoteEstimate:
    """What the chunks of a plan take and cost.

    Args:
        plan: what is to be made.
        gpu: of the containers, or `none`.
        containers: that run at once at most.
    """
    kind = gpu_of(gpu)
    network = plan.estimate.macs * 2 / (kind.tflops * 1e12 * FP16_SHARE)
    pixels = plan.job.target.width * plan.job.target.height * plan.frames
    work = max(network, FRAME_S * pixels / (1080 * 1920))
    running = max(1, min(containers, len(plan.chunks)))
    rounds = -(-len(plan.chunks) // running)
    seconds = START_S + work * rounds / len(plan.chunks)
    return RemoteEstimate(
        chunks=len(plan.chunks),
        containers=running,
        gpu=kind.name,
        minutes=seconds / 60,
        dollars=cost(kind.name, work + running * START_S),
    )


def deployment_estimate(plan: Plan, environment: Mapping[str, str], *, containers: int | None) -> RemoteEstimate:
    """`estimate` for what a deployment with this environment would have.

    Raises:
        UsageError: a variable is not of its form.
    """
    gpu = (wanted_gpus(environment) or ("none",))[0]
    most = wanted_containers(environment)
    return estimate(plan, gpu=gpu, containers=min(most, containers or most))


def wanted_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """GPUs in order of preference, by `KEYSCALE_GPU`; empty where the functions are to run on CPUs.

    Raises:
        UsageError: one is not known here.
    """
    text = environment.get("KEYSCALE_GPU", "").strip() or PREFERRED
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if [part.lower() for part in chosen] == ["none"]:
        return ()
    # "A10G" is Modal's older name, and "!" asks for none that is faster.
    wrong = [part for part in chosen if part.upper().removesuffix("!").replace("A10G", "A10") not in _NAMES]
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


class Budget:
    """What several jobs may cost together, by their estimates. May be used from any thread."""

    def __init__(self, most: float | None) -> None:
        """`most` is dollars; None is no bound."""
        self._most = most
        self._lock = threading.Lock()
        self._taken = self._lost = 0.0

    def take(self, expected: RemoteEstimate) -> None:
        """Count a job in that is about to begin.

        Raises:
            UsageError: all that began and this one are expected to cost more; it is not counted then.
        """
        with self._lock:
            total = self._taken + expected.dollars
            if self._most is not None and total > self._most:
                raise UsageError(
                    say(
                        "with this clip, estimated at {}, those that were begun come to {}, more than {max_cost=}",
                        _dollars(expected.dollars),
                        _dollars(total, above=self._most),
                        f"{self._most:g}",
                    ),
                    remedy=say("Raise {max_cost} and run the command again: what is finished is not done again."),
                )
            self._taken = total

    def lose(self, dollars: float) -> None:
        """Count what was paid for a call that came to nothing: its frames have to be made all the same.

        Raises:
            UsageError: with it all that was begun is expected to cost more.
        """
        with self._lock:
            self._lost += dollars
            self._taken += dollars
            if self._most is not None and self._taken > self._most:
                raise UsageError(
                    say(
                        "calls that were given up cost {}: with them the job is estimated at {}, more than {max_cost=}",
                        _dollars(self._lost),
                        _dollars(self._taken, above=self._most),
                        f"{self._most:g}",
                    ),
                    remedy=say(
                        "Look at `modal app logs keyscale`, or raise {max_cost} and run the command again: what is "
                        "finished is not done again."
                    ),
                )


def affordable_estimate(plan: Plan, environment: Mapping[str, str], options: RemoteOptions) -> RemoteEstimate:
    """What a planned job is expected to take remotely.

    Raises:
        UsageError: it asks for another device than is deployed, is expected to cost too much, or a variable is wrong.
        EncoderError: as of `check_suited`.
    """
    check_suited(plan, wanted_gpus(environment))
    expected = deployment_estimate(plan, environment, containers=options.containers)
    affordable(expected, options.max_cost)
    return expected


def affordable(expected: RemoteEstimate, most: float | None) -> None:
    """Raise a `UsageError` where more than `most` dollars are expected."""
    if most is not None and expected.dollars > most:
        raise UsageError(
            say(
                "the job is estimated at {}, more than {max_cost} {}",
                _dollars(expected.dollars, above=most),
                f"{most:g}",
            ),
            remedy=say("Raise {max_cost}, trim the job, or run it with {remote=False}."),
        )


def _dollars(amount: float, *, above: float = 0.0) -> str:
    """An amount of dollars in as many digits, two at least, as show that it is more than another."""
    digits = next((digits for digits in (2, 4, 6, 8) if amount <= 0 or float(f"{amount:.{digits}f}") > above), 10)
    return f"${amount:.{digits}f}"


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
    if asked.partition(":")[0] not in {"auto", device}:
        raise UsageError(
            say("{device=} with {remote=True}: the deployed functions run on {}", asked, device),
            remedy=say("Leave {device} out, or deploy with another KEYSCALE_GPU."),
        )
    if not plan.encoder.encoder.endswith("_nvenc"):
        return
    lacking = [name for name in gpus or ("CPUs",) if not gpus or plan.encoder.codec not in gpu_of(name).nvenc]
    if lacking:
        able = ", ".join(gpu.name for gpu in GPUS if plan.encoder.codec in gpu.nvenc)
        raise EncoderError(
            say(
                "{} with {remote=True}: {}, where the deployed functions may run, cannot encode with it",
                plan.encoder.encoder,
                " and ".join(lacking),
            ),
            remedy=say("Choose another {codec}, or deploy with a KEYSCALE_GPU of those that can: {}.", able),
        )
