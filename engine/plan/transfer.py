"""A whole plan as bytes and back: what is sent to where a chunk is made.

The form is `MAGIC`, the version, the SHA-256 of the rest, and the rest: MessagePack, deflated. Arrays stand in it as
little-endian bytes of the differences between neighbouring rows, the bytes of equal weight side by side: times and
cameras change smoothly, so that most of these bytes are zero. Nothing is rounded.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import PurePath
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
import numpy.typing as npt

from keyscale.engine.errors import KeyscaleError, RemoteError
from keyscale.engine.plan.plan import Plan
from keyscale.engine.wording import Said

__all__ = ["PLAN_VERSION", "dump_plan", "for_transfer", "load_plan"]

PLAN_VERSION = 6
"""Version of the form and of every field in it; raised when one of either changes."""

MAGIC = b"keyscale plan\n"

HEAD = struct.Struct(f"<{len(MAGIC)}sH32s")

LARGEST = 1 << 30
"""Bytes that a plan may take once inflated; a day at 120 frames a second takes less."""

LEVEL = 3
"""Of deflate: 6 takes three times as long for two hours of a moving camera and saves a fifteenth (tried once)."""

SAME_VERSION = "Use the same keyscale version on both sides: run `keyscale remote deploy`."


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    plan: Plan
    macs: str
    """Of the plan's estimate, which holds 0 here: MessagePack ends at 64 bits, a long film's count does not."""


@dataclass(frozen=True, kw_only=True)
class _Array:
    """An array as it is packed."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def dump_plan(plan: Plan) -> bytes:
    """All of a plan, compressed; `load_plan` gives back an equal one, arrays bit for bit."""
    sheet = _Sheet(plan=replace(plan, estimate=replace(plan.estimate, macs=0)), macs=str(plan.estimate.macs))
    body = zlib.compress(msgspec.msgpack.encode(sheet, enc_hook=_encode), LEVEL)
    return HEAD.pack(MAGIC, PLAN_VERSION, hashlib.sha256(body).digest()) + body


def load_plan(data: bytes) -> Plan:
    """The inverse of `dump_plan`.

    Raises:
        RemoteError: no plan, one of another version, a damaged one, or one beyond `LARGEST`.
    """
    if len(data) < HEAD.size or not data.startswith(MAGIC):
        raise RemoteError("what was sent is no plan", remedy=SAME_VERSION)
    _, version, digest = HEAD.unpack_from(data)
    if version != PLAN_VERSION:
        raise RemoteError(
            f"the plan is of version {version}, this program reads version {PLAN_VERSION}", remedy=SAME_VERSION
        )
    body = memoryview(data)[HEAD.size :]
    if hashlib.sha256(body).digest() != digest:
        raise RemoteError("the plan was damaged on its way (its checksum is wrong)", remedy="Run the command again.")
    try:
        sheet = msgspec.msgpack.decode(_inflated(body), type=_Sheet, dec_hook=_decode)
    except (msgspec.MsgspecError, KeyscaleError, ValueError, TypeError) as error:
        if isinstance(error, RemoteError):
            raise
        raise RemoteError(f"the plan cannot be read ({error})", remedy=SAME_VERSION) from error
    estimate = replace(sheet.plan.estimate, macs=int(sheet.macs))
    return replace(sheet.plan, estimate=estimate)


def for_transfer(plan: Plan) -> Plan:
    """The same plan with bare file names: no folder of this machine goes elsewhere with it.

    That holds for source, output, keyframes and a checkpoint given by its path: where a chunk is made, none of them is
    opened by its name. Nor does that place learn where the result is published.
    """
    job = replace(
        plan.job,
        source=_bare(plan.job.source),
        output=_bare(plan.job.output),
        keyframes=None if plan.job.keyframes is None else _bare(plan.job.keyframes),
        publish_to=None,
        model=replace(plan.job.model, name=None if plan.job.model.name is None else _bare(plan.job.model.name)),
    )
    return replace(plan, job=job, info=replace(plan.info, path=_bare(plan.info.path)))


def _bare(path: str) -> str:
    return PurePath(path).name


def _inflated(body: memoryview) -> bytes:
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(body, LARGEST)
    except zlib.error as error:
        raise RemoteError(f"the plan cannot be inflated ({error})", remedy="Run the command again.") from error
    if not inflater.eof:
        raise RemoteError(f"the plan takes more than {LARGEST >> 20} MiB", remedy="Trim the job into several.")
    return content


def _encode(value: Any) -> Any:
    if isinstance(value, (Fraction, Said)):
        return str(value)
    if isinstance(value, np.ndarray):
        return _packed(value)
    raise TypeError(f"{type(value).__name__} has no place in a plan")


def _decode(kind: type, value: Any) -> Any:
    if kind is Fraction:
        return Fraction(value)
    if get_origin(kind) is np.ndarray:
        # ndarray[shape, dtype[scalar]] is what the plan's fields are annotated with.
        (scalar,) = get_args(get_args(kind)[1])
        return _unpacked(msgspec.convert(value, _Array), np.dtype(scalar))
    raise TypeError(f"{kind.__name__} has no place in a plan")


def _packed(array: npt.NDArray[Any]) -> _Array:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    # Differences of the bit patterns wrap around and come back exactly, for floats as for integers.
    bits = little.view(f"<u{little.itemsize}")
    steps = bits.copy()
    np.subtract(bits[1:], bits[:-1], out=steps[1:])
    planes = steps.reshape(-1).view(np.uint8).reshape(-1, little.itemsize).T
    return _Array(dtype=little.dtype.str, shape=array.shape, data=planes.tobytes())


def _unpacked(packed: _Array, expected: np.dtype[Any]) -> npt.NDArray[Any]:
    dtype = np.dtype(packed.dtype)
    if dtype != expected:
        raise ValueError(f"an array of {dtype} where {expected} belongs")
    planes = np.frombuffer(packed.data, np.uint8).reshape(dtype.itemsize, -1)
    steps = np.ascontiguousarray(planes.T).view(f"<u{dtype.itemsize}").reshape(packed.shape)
    bits = np.cumsum(steps, axis=0, dtype=steps.dtype)
    return bits.view(dtype).astype(expected, copy=False)
