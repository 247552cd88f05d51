"""What is asked for, checked: the rules that flags and Python arguments have in common.

Here belongs what is wrong whatever the source is; what of a `Job` the source does not allow, the plan finds out.
Messages name flags, as all of the engine's do; `engine.arguments` says them in Python's words.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Literal

from keyscale.engine.errors import UsageError
from keyscale.engine.job import Codec, Job, RemoteOptions, parse_rate

__all__ = [
    "NO_ADDRESS",
    "SMALLEST_TILE",
    "bit_depth_of",
    "check_job",
    "checked_rate",
    "default_output",
    "is_address",
    "rate_of",
    "remote_options",
    "split_output",
]

SMALLEST_TILE = 32
"""Side in source pixels; in smaller tiles the network's context is nearly all there is."""

NO_ADDRESS = "A batch writes files here; upload them afterwards, or run `keyscale upscale -o r2://...` for each clip."
"""What to do where a batch is asked to write to storage."""

MOST_CONTAINERS = 1000

MAX_RATE_TEXT = 32
"""Longest text of a rate."""

_DEVICE = re.compile(r"auto|cpu|mps|cuda(?::\d{1,3})?", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def default_output(video: str, codec: Codec = Codec.AUTO) -> str:
    """Where a job that names no output goes: `NAME.keyscale.mp4` beside the source, `.mov` for ProRes."""
    source = Path(video)
    return str(source.parent / f"{source.stem}.keyscale.{'mov' if codec is Codec.PRORES else 'mp4'}")


def is_address(text: str) -> bool:
    """Whether it is written as an address, `r2://...`, and not as a file's name."""
    return _ADDRESS.match(text) is not None


def split_output(output: str | None, video: str | None = None) -> tuple[str | None, str | None]:
    """An output as a local name and, where it is an address in storage, that address.

    The file of `r2://bucket/path/name.mp4` is kept here as `name.mp4` in the current folder, or as `name.keyscale.mp4`
    where that is the video itself.

    Args:
        output: as given.
        video: the source.

    Raises:
        UsageError: it is an address of another form.
    """
    if output is None or not is_address(output):
        return output, None
    from keyscale.engine.storage import parse_address

    _, key = parse_address(output)
    here = Path(key.rpartition("/")[2])
    if video is not None and _is_same(here, Path(video)):
        here = here.with_stem(f"{here.stem}.keyscale")
    return str(here), output


def rate_of(text: str) -> Fraction | None:
    """`engine.job.parse_rate` of what somebody wrote, which may be anything.

    Raises:
        UsageError: not a rate, or one that takes long to work out.
    """
    # An exponent such as 1e999999999 would be worked out digit by digit.
    if text.lower() != "source" and (len(text) > MAX_RATE_TEXT or "e" in text.lower()):
        raise UsageError(f"--fps {text[:MAX_RATE_TEXT]!r} is not a rate", remedy="Write 30, 30000/1001 or source.")
    return parse_rate(text)


def checked_rate(rate: Fraction) -> Fraction | None:
    """A rate that is a fraction already, as `engine.job.parse_rate` gives it; errors as there."""
    rate = rate.limit_denominator(1_000_000)
    return parse_rate(f"{rate.numerator}/{rate.denominator}")


def bit_depth_of(bits: int | None) -> Literal[8, 10] | None:
    """Bits a sample as `Encoding` has them; raises a `UsageError` where they are not offered."""
    match bits:
        case None | 8 | 10:
            return bits
        case _:
            raise UsageError(f"--bit-depth {bits} is not offered", remedy="Give 8 or 10.")


def check_job(job: Job, *, start: str | None = None, end: str | None = None) -> Job:
    """The job itself, if nothing in it is wrong whatever the source is; touches no file.

    Args:
        job: what is asked for.
        start: how the trim's start was written, for messages; None is its seconds.
        end: the same of its end.

    Raises:
        UsageError: a value is wrong; the message names its flag.
    """
    _named(job.source, "VIDEO", "Name the source video.")
    _named(job.keyframes, "KEYFRAMES.json", "Name the keyframes file, or leave it out to use the whole picture.")
    _named(job.output, "--output", "Name a file, or leave --output out.")
    _named(job.model.name, "--model", "'keyscale models list' shows the names.")
    _named(job.encoding.preset, "--preset", "Name a preset of the encoder, or leave --preset out.")
    if not _DEVICE.fullmatch(job.compute.device):
        raise UsageError(
            f"--device {job.compute.device!r} is not a device",
            remedy="Give auto, cpu, mps, cuda, or cuda:N such as cuda:0.",
        )
    tile = job.compute.tile
    if tile is not None and tile != 0 and tile < SMALLEST_TILE:
        raise UsageError(
            f"--tile {tile} is too small",
            remedy=f"Give auto, 0 (never tile), or {SMALLEST_TILE} or more source pixels.",
        )
    _check_trim(job, start, end)
    _check_crf(job)
    return job


def remote_options(*, containers: int | None, fallback_local: bool, max_cost: float | None) -> RemoteOptions:
    """How a job runs remotely.

    Raises:
        UsageError: a value is out of range.
    """
    if containers is not None and not 1 <= containers <= MOST_CONTAINERS:
        raise UsageError(
            f"--remote-containers {containers} is out of range", remedy=f"Give 1 to {MOST_CONTAINERS}, or leave it out."
        )
    if max_cost is not None and not max_cost >= 0:
        raise UsageError(f"--max-cost {max_cost} is out of range", remedy="Give dollars, such as 2.50.")
    return RemoteOptions(containers=containers, fallback_local=fallback_local, max_cost=max_cost)


def _is_same(output: Path, video: Path) -> bool:
    try:
        return output.absolute() == video.absolute() or output.samefile(video)
    except (OSError, ValueError):
        return False  # one of them is not there, or has no usable name, which others tell


def _named(value: str | None, flag: str, remedy: str) -> None:
    if value is not None and (not value.strip() or "\0" in value):
        raise UsageError(f"{flag} is empty" if not value.strip() else f"{flag} holds a zero byte", remedy=remedy)


def _check_trim(job: Job, start: str | None, end: str | None) -> None:
    for flag, value in (("--start", job.trim.start), ("--end", job.trim.end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{flag} {value} is out of range", remedy="Give seconds from 0 on.")
    if job.trim.end is not None and job.trim.end <= (job.trim.start or 0.0):
        after = f"--start {start or format(job.trim.start, 'g')}" if job.trim.start else "the start of the video"
        raise UsageError(
            f"--end {end or format(job.trim.end, 'g')} is not after {after}",
            remedy="Give a later --end, or leave it out.",
        )


def _check_crf(job: Job) -> None:
    crf, codec = job.encoding.crf, job.encoding.codec
    # What auto comes to hangs on source and container: the plan checks it.
    top = 63 if codec in {Codec.AUTO, Codec.AV1, Codec.AV1_NVENC} else 51
    if crf is not None and not 0 <= crf <= top:
        allowed = "51 (smallest), with AV1 to 63" if codec is Codec.AUTO else f"{top} (smallest)"
        raise UsageError(f"--crf {crf} is out of range for --codec {codec}", remedy=f"Give 0 (best) to {allowed}.")
