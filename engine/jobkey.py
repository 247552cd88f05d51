"""The key of a job: what its result hangs on. The result carries it, so that a later run knows whether to do it again.

It covers the source's content, the camera's effect, all settings as they came to hold (a default that is written out is
the same setting), the network's weights and the version of the engine; not the names of files, and not which machine or
how many of them made the pictures.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import keyscale
from keyscale.engine.errors import KeyscaleError
from keyscale.engine.job import dumps
from keyscale.engine.models import all_models
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
        repr((plan.geometry, plan.rate, plan.encoder, plan.chunks, plan.model, plan.container)),
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


def _way(plan: Plan) -> object:
    """How the network runs, as far as was asked for: `auto` may be another device on each machine."""
    if plan.model is None:
        return None
    if plan.job.compute.device == "auto":
        return plan.job.compute.precision
    return [(way.runtime, way.precision, way.kind) for way in plan.executions]


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
