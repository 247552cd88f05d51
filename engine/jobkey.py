"""The key of a job: what its result hangs on. The result carries it, so that a later run knows whether to do it again.

It covers the source's content, the camera's effect, all settings as they came to hold (a default that is written out is
the same setting), the network's weights and the version of the engine; not the names of files, and not which machine or
how many of them made the pictures.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import keyscale
from keyscale.engine.device import choose_device
from keyscale.engine.errors import KeyscaleError
from keyscale.engine.job import Precision, dumps
from keyscale.engine.models import ModelSpec, all_models, choose_execution, needs_openvino
from keyscale.engine.plan import LANCZOS, Plan
from keyscale.engine.source import open_source
from keyscale.engine.workfolder import sha256_file

__all__ = ["job_key", "network_identity", "own_checkpoint", "pixels_of", "read_stamp", "stamp"]

_STAMP = re.compile(r"keyscale \S{1,64} job ([0-9a-f]{64})")

_FIELD = {"mp4": "encoding_tool", "mov": "com.keyscale.job", "mkv": "KEYSCALE_JOB", "webm": "KEYSCALE_JOB"}
"""Where a container keeps it. MP4: the field for the program that made the file (`©too`); QuickTime has none that the
muxer leaves alone, but free keys; Matroska and WebM take any."""


def pixels_of(plan: Plan) -> bytes:
    """SHA-256 over what the plan decides of the pictures: frames, camera, geometry, encoder, chunks, network."""
    digest = hashlib.sha256()
    for part in (
        repr((plan.info.colour, plan.info.orientation, plan.info.interlaced, plan.info.field_order)),
        repr((plan.geometry, plan.rate, plan.encoder, plan.chunks, _network_without_name(plan), plan.container)),
        dumps(plan.job.target),
        repr(_tile_that_shows(plan)),
        repr(plan.job.keep_going_on_decode_errors),
    ):
        digest.update(part.encode() + b"\0")
    for array in (plan.info.pts[plan.source_index], plan.rects, plan.placements):
        digest.update(array.tobytes())
    return digest.digest()


def _tile_that_shows(plan: Plan) -> int | None:
    """The side of a tile, where a result depends on it: not where each tile has all that its pixels hang on."""
    return plan.job.compute.tile if plan.model is not None and not plan.model.halo_is_exact else None


def _network_without_name(plan: Plan) -> ModelSpec | None:
    """The network; of a user's checkpoint without the name that its file has."""
    return plan.model if plan.model is None or own_checkpoint(plan) is None else replace(plan.model, name="")


def _way(plan: Plan) -> object:
    """How the network runs, where that is another way than the one that this machine takes unasked.

    What nobody asked for is no part of a key: `auto` may be another device on each machine, and in a container.
    """
    asked = plan.job.compute
    if plan.model is None or (asked.device == "auto" and asked.precision is Precision.AUTO):
        return None
    here = choose_device("auto")
    ways = plan.executions
    held = ways[0] if len(ways) == 1 else next(way for way in ways if way.kind == here)
    unasked = choose_execution(plan.model, here, Precision.AUTO, has_int8=_has_int8(plan, plan.model, here))
    ways_of = [(way.runtime, way.precision, way.kind) for way in (held, unasked)]
    return None if ways_of[0] == ways_of[1] else ways_of[0]


def _has_int8(plan: Plan, model: ModelSpec, device: str) -> bool:
    """Whether OpenVINO has int8 here; it is loaded and asked only where nothing else tells."""
    if not needs_openvino(model, device, Precision.AUTO):
        return False
    if any(way.precision == "int8" for way in plan.executions):
        return True
    from keyscale.engine.models.inference import cpu_has_int8

    return cpu_has_int8()


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
    """
    if plan.model is None:
        return LANCZOS
    checkpoint = own_checkpoint(plan)
    if checkpoint is not None:
        return repr([sha256_file(checkpoint)])
    return repr([file.sha256 for file in (*plan.model.files, *plan.model.quantised)])


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
