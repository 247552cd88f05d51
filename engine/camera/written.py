"""A camera as a keyframes file of this program's own format, version 1."""

from __future__ import annotations

import json
from typing import Any

from keyscale.engine.camera.contents import Interpolation, Keyframe, TimeUnit
from keyscale.engine.camera.framing import Framing
from keyscale.engine.files import drafted

__all__ = ["as_version1", "write_version1"]


def as_version1(framing: Framing) -> str:
    """The text of the file, a keyframe a line; reading it gives an equal camera.

    Units and the source's size are declared as they were read, since only a video tells what they come to.
    """
    head: dict[str, Any] = {"version": 1}
    if framing.units is not None:
        head["units"] = framing.units.value
    if framing.time_unit is not None:
        head["time_unit"] = framing.time_unit.value
    if framing.source is not None:
        head["source"] = {"width": framing.source.width, "height": framing.source.height}
    if framing.interpolation is not Interpolation.LINEAR:
        head["interpolation"] = framing.interpolation.value
    tail: dict[str, Any] = {}
    trim = {name: value for name in ("start", "end") if (value := getattr(framing.trim, name)) is not None}
    if trim:
        tail["trim"] = trim
    if framing.segments:
        tail["segments"] = [{"start": s.start, "end": s.end, "speed": s.speed} for s in framing.segments]
    if framing.rotation:
        tail["rotation"] = framing.rotation
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    rows = ",\n".join(f"    {json.dumps(_row(keyframe, framing.time_unit))}" for keyframe in framing.keyframes)
    lines.append(f'  "keyframes": [\n{rows}\n  ]{"," if tail else ""}')
    lines.append(",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in tail.items()))
    return "\n".join(["{", *(line for line in lines if line), "}"]) + "\n"


def write_version1(framing: Framing, path: str, *, overwrite: bool) -> None:
    """Write `as_version1` as a file, whole or not at all.

    Raises:
        StorageError: it is there and may not be replaced, or it cannot be written.
    """
    with drafted(path, overwrite=overwrite) as draft:
        draft.write_text(as_version1(framing), encoding="utf-8")


def _row(keyframe: Keyframe, unit: TimeUnit | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "frame" if unit is TimeUnit.FRAMES else "time": keyframe.time,
        "x": keyframe.x,
        "y": keyframe.y,
        "width": keyframe.width,
        "height": keyframe.height,
    }
    return row | {"ease": "hold"} if keyframe.hold else row
