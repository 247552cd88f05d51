"""The key of a job: what its result depends on; and whether a result is whole.

A result carries its key, so that a later run knows whether to do it again. The key covers the source's content, the
camera's effect, all settings as they came to hold (a default that is written out is the same setting), the network's
weights and the version of the engine; not the names of files, and not which machine or how many of them made the
pictures.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from av.error import FFmpegError
from av.stream import Disposition

import keyscale
from keyscale.engine.errors import KeyscaleError
from keyscale.engine.files import sha256_file
from keyscale.engine.job import Precision
from keyscale.engine.machine import choose_device
from keyscale.engine.models import ModelSpec, all_models, choose_execution, needs_openvino
from keyscale.engine.plan.plan import LANCZOS, Plan
from keyscale.engine.serialization import dumps
from keyscale.engine.source.open import demuxed, open_source

__all__ = ["is_whole", "job_key", "network_identity", "own_checkpoint", "pixels_of", "read_stamp", "stamp"]

_STAMP = re.compile(r"keyscale \S{1,64} job ([0-9a-f]{64})")

_FIELD = {"mp4": "encoding_tool", "mov": "com.keyscale.job", "mkv": "KEYSCALE_JOB", "webm": "KEYSCALE_JOB"}
"""Where a container keeps it. MP4: the field for the program that made the file (`©too`); QuickTime has none that the
muxer leaves alone, but free keys; Matroska and WebM take any."""

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"

_TO_THE_END = 0
"""Of an MP4 box: it ends where the file does."""


def pixels_of(plan: Plan) -> bytes:
    """SHA-256 over what the plan decides of the pictures: frames, camera, geometry, encoder, chunks, network."""
    digest = hashlib.sha256()
    for part in (
        repr((plan.info.colour, plan.info.orientation, plan.info.crop, plan.info.interlaced, plan.info.field_order)),
        repr((plan.geometry, plan.rate, plan.encoder, plan.chunks, _network_without_name(plan), plan.container)),
        dumps(plan.job.target),
        repr(_tile_that_shows(plan)),
        repr(plan.job.keep_going_on_decode_errors),
        repr(plan.tone),
        repr((plan.strength, plan.job.calm.steady)),
    ):
        digest.update(part.encode() + b"\0")
    for array in (plan.info.pts[plan.source_index], plan.rects, plan.placements):
        digest.update(array.tobytes())
    return digest.digest()


def _tile_that_shows(plan: Plan) -> int | None:
    """The side of a tile, where a result depends on it: not where each tile has all that its pixels depend on."""
    return plan.job.compute.tile if plan.model is not None and not plan.model.halo_is_exact else None


def _network_without_name(plan: Plan) -> ModelSpec | None:
    """The network; of a user's file without its name, and without what only the cost of running it depends on."""
    if plan.model is None or own_checkpoint(plan) is None:
        return plan.model
    found = plan.model.findings
    if found is not None:
        found = replace(found, macs_per_pixel=0, bytes_per_pixel=0)
    return replace(plan.model, name="", findings=found)


def _way(plan: Plan) -> object:
    """How the network runs, where that is another way than the one that this machine takes unasked.

    What nobody asked for is no part of a key: `auto` may be another device on each machine, and in a container.
    """
    asked = plan.job.compute
    if plan.model is None or (asked.device == "auto" and asked.precision is Precision.AUTO):
        return None
    here = "cpu" if plan.model.findings else choose_device("auto").partition(":")[0]
    ways = plan.executions
    held = next((way for way in ways if way.kind == here), ways[0])
    unasked = choose_execution(plan.model, here, Precision.AUTO, on_cpu=_on_cpu(plan, here))
    ways_of = [(way.runtime, way.precision, way.kind) for way in (held, unasked)]
    return None if ways_of[0] == ways_of[1] else ways_of[0]


def _on_cpu(plan: Plan, device: str) -> frozenset[str]:
    """In what OpenVINO computes here beside fp32; it is loaded and asked only where nothing else tells."""
    if not needs_openvino(device, Precision.AUTO):
        return frozenset()
    if any(way.precision == "int8" for way in plan.executions):
        return frozenset({"int8"})
    from keyscale.engine.models.openvino import cpu_precisions

    return cpu_precisions()


def own_checkpoint(plan: Plan) -> Path | None:
    """The user's checkpoint, where the job names no published network."""
    name = plan.job.model.name
    if plan.model is None or name is None or name.lower() in {spec.name.lower() for spec in all_models()}:
        return None
    return Path(name).expanduser()


def network_identity(plan: Plan) -> str:
    """The weights that the plan's network may be run with, by content.

    Raises:
        OSError: the user's checkpoint cannot be read.
        ModelError: a file that belongs to it is not there.
    """
    if plan.model is None:
        return LANCZOS
    checkpoint = own_checkpoint(plan)
    if checkpoint is not None:
        if plan.model.findings:
            from keyscale.engine.models.foreign import sha256_of

            return repr([sha256_of(checkpoint)])
        return repr([sha256_file(checkpoint)])
    mixed = [plan.model.blend] if plan.model.blend else []
    return repr([*(file.sha256 for file in (*plan.model.files, *plan.model.quantised)), *mixed])


def job_key(plan: Plan, source_sha256: str) -> str:
    """The key of a planned job whose source has this content, as 64 hexadecimal digits.

    Where device or precision was asked for and a driver tells of a GPU, torch is loaded to see whether it runs there.

    Raises:
        OSError: the user's checkpoint cannot be read.
    """
    job = plan.job
    digest = hashlib.sha256(pixels_of(plan))
    for part in (
        keyscale.__version__,
        source_sha256,
        network_identity(plan),
        repr(1.0 if job.model.denoise is None else job.model.denoise),
        repr(_way(plan)),
        repr((plan.time_map, plan.tracks)),
    ):
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def stamp(plan: Plan, key: str) -> dict[str, str]:
    """The metadata by which the result carries its key."""
    return {_FIELD[plan.container]: f"keyscale {keyscale.__version__} job {key}"}


def read_stamp(path: Path) -> str | None:
    """The key of the job that a file is the result of; None where keyscale did not make it, or it cannot be read."""
    try:
        with open_source(path) as container:
            values = list(container.metadata.values())
    except (KeyscaleError, UnicodeError):
        return None
    found = (_STAMP.search(value) for value in values)
    return next((match[1] for match in found if match), None)


def is_whole(path: Path, frames: int) -> bool:
    """Whether a result has all its packets: one that was cut off has not, within whichever track it was.

    Args:
        path: an MP4, QuickTime, Matroska or WebM file that keyscale made.
        frames: packets that its video has to have.
    """
    try:
        # Players and demuxers take what is there: sound that ends early is no error to them.
        if not _ends_within(path):
            return False
        with open_source(path) as container:
            video = next(
                stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
            )
            found = 0
            for packet in demuxed(container):
                if packet.is_corrupt:
                    return False
                found += packet.size > 0 and packet.stream_index == video.index
            return found == frames
    except (KeyscaleError, FFmpegError, StopIteration, OSError):
        return False


def _ends_within(path: Path) -> bool:
    """Whether the outermost boxes or elements of a file end where it ends, or before."""
    length = path.stat().st_size
    with path.open("rb") as file:
        step = _after_element if file.read(4) == _EBML else _after_box
        place = 0
        while place < length:
            file.seek(place)
            after = step(file, place)
            if after is None:
                return True
            if not place < after <= length:
                return False
            place = after
    return True


def _after_box(file: BinaryIO, place: int) -> int | None:
    """Where the MP4 box that begins at `place` ends; None is the end of the file, `place` an unreadable header."""
    head = file.read(16)
    size = int.from_bytes(head[:4], "big")
    if size == 1:
        size = int.from_bytes(head[8:16], "big")
    elif size == _TO_THE_END and len(head) >= 8:
        return None
    return place + size if size >= 8 else place


def _after_element(file: BinaryIO, place: int) -> int | None:
    """As `_after_box`, of a Matroska file's EBML header and segment."""
    head = file.read(12)
    if head[:4] not in {_EBML, _SEGMENT} or len(head) < 5 or not head[4]:
        return place
    width = 9 - head[4].bit_length()
    size = int.from_bytes(head[4 : 4 + width], "big") - (1 << 7 * width)
    if size == (1 << 7 * width) - 1:
        return None  # of unknown length
    return place + 4 + width + size
