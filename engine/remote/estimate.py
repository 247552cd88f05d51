"""What the chunks of a job take and cost on Modal, and over how many containers of which kind they are spread.

The bill is that of `engine.remote.prices`: a container is paid from its start to its end, so that each one adds its
start and its idle time to the work, which is the same however it is spread. Speeds are those of the user's own jobs, as
`engine.models.speeds` keeps them, and where there are none a share of data sheets and rounded figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keyscale.engine.errors import UsageError
from keyscale.engine.models.speeds import Measured, known_speeds, measured_speed, remember, typical
from keyscale.engine.plan.describe import RemoteEstimate, RemoteSplit
from keyscale.engine.plan.plan import LANCZOS, Chunk, Plan
from keyscale.engine.remote.prices import (
    CORES,
    GPUS,
    IDLE_S,
    READ,
    WIDE_CORES,
    WRITE,
    asking_cost,
    check_suited,
    cost,
    encodes,
    gpu_of,
    wanted_containers,
    wanted_gpus,
)
from keyscale.engine.run_options import RemoteOptions
from keyscale.engine.wording import say
from keyscale.engine.worker.contract import Deployment, Made

__all__ = [
    "affordable",
    "affordable_estimate",
    "dollars_text",
    "estimate",
    "estimate_of",
    "remember_calls",
    "storage_cost",
]

FP16_SHARE = 0.15
"""Of the data sheet's dense fp16 rate that small convolutions are taken to reach."""

CORE_FRAME_S = 0.046
"""Core seconds of a 1080x1920 frame, decoded to RGB, converted back and encoded by libx264's `veryfast`: 11, 4 and 31
ms, measured on one core of an AMD EPYC."""
SAMPLING_S = {1: 0.017, 2: 0.034, 4: 0.120}
"""Core seconds in which such a frame is sampled, by the network's scale; measured likewise."""
SLOWER = {"libx265": 2.4, "libsvtav1": 3.0}
"""How much more than libx264's such a frame takes by other encoders, roughly."""
CORES_SHARE = 0.9
"""Of a container's cores that its threads keep at work."""

START_S = 20.0
"""Seconds until a container that was not running begins its first chunk; a guess, until it was measured."""
CALL_S = 1.0
"""Seconds of a call beside its frames: source opened, chunk stored, the next call on its way; a guess likewise."""

JOB_WRITES, JOB_READS, CALL_WRITES, CALL_READS = 4, 10, 2, 7
"""Requests to storage, as `bench/remote.py` counts them for a source of one part; of calls those of the client too."""

WORTH_IT = 0.9
"""More cores are asked for where they bring the cost below this share: these containers have starts of their own to
pay, and estimates vary by as much."""

FULL_HD = 1080 * 1920


@dataclass(frozen=True)
class _Speed:
    """Of frames in one kind of container."""

    frame_s: float
    call_s: float
    start_s: float
    measured: bool


def _network_of(plan: Plan) -> str:
    return plan.model.name if plan.model else LANCZOS


def _making_key(gpu: str, cores: int, network: str, encoder: str, preset: str | None) -> str:
    return f"remote making {gpu} {cores} {network} {encoder} {preset or 'default'}"


def _network_key(gpu: str, network: str) -> str:
    return f"remote network {gpu} {network}"


def _cores_key(network: str, encoder: str, preset: str | None) -> str:
    return f"remote cores {network} {encoder} {preset or 'default'}"


_CALL_KEY = "remote call"


def _start_key(gpu: str) -> str:
    return f"remote start {gpu}"


def _speed(plan: Plan, gpu: str, cores: int, encoder: str, preset: str | None, speeds: Mapping[str, float]) -> _Speed:
    """How long a frame, a call and a start take in a container with that GPU and this number of cores."""
    area, network = plan.job.target.width * plan.job.target.height, _network_of(plan)
    kind = gpu_of(gpu)
    making = measured_speed(speeds, _making_key(kind.name, cores, network, encoder, preset), area)
    call, start = measured_speed(speeds, _CALL_KEY, 1), measured_speed(speeds, _start_key(kind.name), 1)
    if making is not None:
        frame_s = area * making
    else:
        per_mac = measured_speed(speeds, _network_key(kind.name, network), 1)
        macs = plan.estimate.macs / plan.frames
        network_s = macs * (2 / (kind.tflops * 1e12 * FP16_SHARE) if per_mac is None else per_mac)
        on_gpu = kind.name != "none"
        own = measured_speed(speeds, _cores_key(network, encoder, preset), area) if on_gpu else None
        sampling = SAMPLING_S[min(SAMPLING_S, key=lambda scale: abs(scale - plan.scale))] * area / FULL_HD
        around = CORE_FRAME_S * SLOWER.get(encoder, 1.0) * area / FULL_HD
        if encoder.endswith("_nvenc"):
            around /= 3  # what is left is decoding and conversion
        busy = sampling + around if own is None else area * own
        stages = [busy / (CORES_SHARE * cores)]
        if own is None:
            stages.append(sampling / max(1, cores // 2))  # the number of threads that sample
        if not on_gpu:
            stages = [stages[0] + network_s * CORES / cores]  # one after the other on the same cores
        frame_s = max(network_s, *stages)
    return _Speed(frame_s, CALL_S if call is None else call, START_S if start is None else start, making is not None)


def _split(gpu: str, cores: int, containers: int, chunks: int, frames: int, encoder: str, speed: _Speed) -> RemoteSplit:
    rounds = -(-chunks // containers)
    seconds = speed.start_s + rounds * (speed.call_s + frames / chunks * speed.frame_s)
    return RemoteSplit(
        gpu=gpu_of(gpu).name,
        cores=cores,
        containers=containers,
        encoder=encoder,
        minutes=seconds / 60,
        dollars=sum(_parts(gpu, cores, containers, chunks, frames, speed).values()),
        measured=speed.measured,
    )


def _parts(gpu: str, cores: int, containers: int, chunks: int, frames: int, speed: _Speed) -> dict[str, float]:
    """As of `RemoteEstimate.parts`."""
    return {
        "work": cost(gpu, chunks * speed.call_s + frames * speed.frame_s, cores),
        "start": cost(gpu, containers * speed.start_s, cores),
        "idle": cost(gpu, containers * IDLE_S, cores),
        "asking": asking_cost(),
        "storage": storage_cost(chunks),
    }


def storage_cost(calls: int) -> float:
    """Dollars for a job's requests to storage."""
    return (JOB_WRITES + CALL_WRITES * calls) * WRITE + (JOB_READS + CALL_READS * calls) * READ


def estimate(
    plan: Plan,
    gpus: Sequence[str],
    *,
    containers: int,
    cores: Sequence[int] = (CORES, WIDE_CORES),
    deadline_s: float | None = None,
    chunks: int | None = None,
    frames: int | None = None,
    speeds: Mapping[str, float] | None = None,
) -> RemoteEstimate:
    """What the chunks of a plan take and cost on the first of the GPUs, split as is cheapest; and on the other kinds.

    With a deadline as few containers are taken as keep it, since each adds its start and its idle time; without one
    as many as there may be. More cores are taken where they make it clearly cheaper.

    Args:
        plan: what is to be made.
        gpus: of the containers, in order of preference; empty for CPUs.
        containers: that run at once at most.
        cores: that a container can have, the usual number first.
        deadline_s: seconds within which the last chunk should be made.
        chunks: to be made; all by default.
        frames: in them.
        speeds: as of `known_speeds`, which is the default.

    Raises:
        UsageError: no split keeps the deadline.
    """
    speeds = known_speeds() if speeds is None else speeds
    chunks, frames = max(1, len(plan.chunks) if chunks is None else chunks), plan.frames if frames is None else frames
    most = max(1, min(containers, chunks))
    asked = plan.encoder.encoder, plan.encoder.preset

    def best(gpu: str, counts: Iterable[int], encoder: tuple[str, str | None] = asked) -> RemoteSplit | None:
        """The cheapest split that keeps the deadline; more cores than usual only where they are worth it."""
        found: list[RemoteSplit] = []
        for width in cores[:1] if gpu == "none" else cores:
            speed = _speed(plan, gpu, width, *encoder, speeds)
            splits = [_split(gpu, width, count, chunks, frames, encoder[0], speed) for count in counts]
            found += [split for split in splits if deadline_s is None or split.minutes * 60 <= deadline_s]
        usual = [split for split in found if split.cores == cores[0]]
        cheapest = min(found, key=lambda split: split.dollars, default=None)
        first = min(usual, key=lambda split: split.dollars, default=cheapest)
        return cheapest if cheapest and first and cheapest.dollars < WORTH_IT * first.dollars else first

    gpu = (tuple(gpus) or ("none",))[0]
    counts = [most] if deadline_s is None else range(1, most + 1)
    chosen = best(gpu, counts)
    if chosen is None:
        speed = _speed(plan, gpu, cores[-1], *asked, speeds)
        fastest = _split(gpu, cores[-1], most, chunks, frames, asked[0], speed).minutes
        raise UsageError(
            say(
                "the chunks take {} minutes in {}, longer than {remote_deadline}",
                *(f"{fastest:.1f}", "1 container" if most == 1 else f"{most} containers"),
            ),
            remedy=say("Raise {remote_deadline}, or allow more: {remote_containers}, or KEYSCALE_CONTAINERS."),
        )
    others = [best(kind.name, counts) for kind in GPUS if kind.name != chosen.gpu and encodes(kind, plan)]
    if deadline_s is None and most > 1:
        others.append(best(gpu, [1]))
    by_gpu = {"libx264": ("h264_nvenc", "p4"), "libx265": ("hevc_nvenc", "p4")}.get(asked[0])
    if by_gpu is not None and by_gpu[0].partition("_")[0] in gpu_of(gpu).nvenc:
        others.append(best(gpu, counts, by_gpu))
    speed = _speed(plan, gpu, chosen.cores, *asked, speeds)
    return RemoteEstimate(
        chosen=chosen,
        why=_why(chosen, gpus, cores[0], deadline_s, most),
        alternatives=tuple(sorted(filter(None, others), key=lambda split: split.dollars)),
        chunks=chunks,
        most=max(1, containers) if deadline_s is None else chosen.containers,
        parts=_parts(gpu, chosen.cores, chosen.containers, chunks, frames, speed),
        call_seconds=speed.call_s,
        frame_seconds=speed.frame_s,
        start_seconds=speed.start_s,
    )


def _why(chosen: RemoteSplit, gpus: Sequence[str], usual: int, deadline_s: float | None, most: int) -> str:
    words = []
    if len(gpus) > 1:
        words.append(f"{chosen.gpu} is the first of {','.join(gpus)}")
    if chosen.cores != usual:
        words.append(f"with {usual} cores the GPU would wait for them")
    if deadline_s is not None:
        words.append(f"the cheapest that takes {deadline_s / 60:g} minutes at most")
    elif most > 1:
        words.append(say("as many at once as allowed, since no {remote_deadline} is given"))
    return ", ".join(words) or "there is no other choice"


def estimate_of(
    plan: Plan, deployment: Deployment, options: RemoteOptions, missing: Sequence[Chunk] | None = None
) -> RemoteEstimate:
    """What a plan's chunks, or those that are missing, are expected to take where functions are deployed so.

    Raises:
        UsageError: as of `estimate`.
    """
    return estimate(
        plan,
        deployment.gpus,
        containers=min(deployment.containers, options.containers or deployment.containers),
        cores=deployment.cores or (CORES,),
        deadline_s=options.deadline_s,
        chunks=None if missing is None else len(missing),
        frames=None if missing is None else sum(chunk.frames for chunk in missing),
    )


def affordable_estimate(plan: Plan, environment: Mapping[str, str], options: RemoteOptions) -> RemoteEstimate:
    """What a planned job is expected to take by a deployment with this environment.

    Raises:
        UsageError: it asks for another device than is deployed, is expected to cost too much or to take too long, or a
            variable is not of its form.
        EncoderError: as of `check_suited`.
    """
    gpus, most = wanted_gpus(environment), wanted_containers(environment)
    check_suited(plan, gpus)
    expected = estimate(plan, gpus, containers=min(most, options.containers or most), deadline_s=options.deadline_s)
    affordable(expected, options.max_cost)
    return expected


def affordable(expected: RemoteEstimate, most: float | None) -> None:
    """Raise a `UsageError` where more than `most` dollars are expected."""
    if most is not None and expected.dollars > most:
        raise UsageError(
            say(
                "the job is estimated at {}, more than {max_cost} {}",
                dollars_text(expected.dollars, above=most),
                f"{most:g}",
            ),
            remedy=say("Raise {max_cost}, trim the job, or run it with {remote=False}."),
        )


def dollars_text(amount: float, *, above: float = 0.0) -> str:
    """An amount of dollars in as many digits, two at least, as show that it is more than another."""
    digits = next((digits for digits in (2, 4, 6, 8) if amount <= 0 or float(f"{amount:.{digits}f}") > above), 10)
    return f"${amount:.{digits}f}"


def remember_calls(plan: Plan, mades: Sequence[Made], cores: int, call_s: float | None) -> None:
    """Keep how fast chunks were made, for later estimates: of each kind of GPU the median, weighted by frames.

    Args:
        plan: of the job.
        mades: its chunks; those that were there already say nothing of this job.
        cores: of its containers.
        call_s: what a call took beside its frames, if that is known.
    """
    encoder, network, area = plan.encoder, _network_of(plan), plan.job.target.width * plan.job.target.height
    found = []
    for gpu in {gpu_of(made.gpu).name for made in mades}:
        own = [made for made in mades if gpu_of(made.gpu).name == gpu and not made.again and made.frames]
        weights, frames = [float(made.frames) for made in own], sum(made.frames for made in own)

        def keep(key: str, pixels: int, values: Sequence[float], weights: Sequence[float] = weights) -> None:
            if values:
                found.append(Measured(key, pixels, frames, typical(values, weights)))  # noqa: B023 - used at once

        making = [made.stages.making / (made.frames * area) for made in own]
        keep(_making_key(gpu, cores, network, encoder.encoder, encoder.preset), area, making)
        if gpu != "none":  # there the network would be in it
            busy = [made.stages.cpu / (made.frames * area) for made in own]
            keep(_cores_key(network, encoder.encoder, encoder.preset), area, busy)
        inferred = [made for made in own if made.stages.macs]
        per_mac = [made.stages.network / made.stages.macs for made in inferred]
        keep(_network_key(gpu, network), 1, per_mac, [float(made.frames) for made in inferred])
        starts = [made.stages.start for made in own if made.stages.start]
        keep(_start_key(gpu), 1, starts, [1.0] * len(starts))
        if call_s is not None:
            keep(_CALL_KEY, 1, [call_s], [1.0])
    remember(found)
