"""What a file says about itself: metadata worth keeping, and chapters on the result's timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from av.container.input import InputContainer

from keyscale.engine.camera.timemap import TimeMap
from keyscale.engine.source.open import chapters_of

if TYPE_CHECKING:
    from av.container.core import Chapter

__all__ = ["map_span", "mapped_chapters", "needs_mdta", "worth_keeping"]

_MILLISECOND = Fraction(1, 1000)

_STALE = frozenset(
    {
        # Statements about the old file's coding, which the new one makes false; the muxer writes its own.
        "bps",
        "compatible_brands",
        "duration",
        "encoder",
        "encoding_tool",
        "itunsmpb",
        "major_brand",
        "minor_version",
        "number_of_bytes",
        "number_of_frames",
        "rotate",
        "vendor_id",
        # The mov muxer would make a timecode track of it, counting in the old file's frames.
        "timecode",
        # Which job made it, see `engine.workspace.fingerprint`.
        "com.keyscale.job",
        "keyscale_job",
    }
)


def worth_keeping(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries of a container's or stream's metadata that stay true of the new file."""
    return {key: value for key, value in metadata.items() if not _is_stale(key)}


def needs_mdta(metadata: Mapping[str, str]) -> bool:
    """True where a key such as `com.apple.quicktime.make` is lost unless MP4 keeps metadata as free keys."""
    return any("." in key for key in metadata)


def map_span(start: float, end: float, time_map: TimeMap) -> tuple[float, float] | None:
    """Source seconds `[start, end)` in output seconds, clipped to the map; None where nothing of it is left.

    A span without length is kept where its moment is.
    """
    if start == end:
        if not time_map.start <= start < time_map.end:
            return None
    elif end <= time_map.start or start >= time_map.end:
        return None
    first, last = time_map.to_output(np.array([start, end])).tolist()
    return float(first), float(last)


def mapped_chapters(
    source: InputContainer, origin: Fraction, time_map: TimeMap, recordings: Sequence[Fraction] = ()
) -> list[Chapter]:
    """The source's chapters on the result's timeline, in milliseconds, clipped to it.

    Args:
        source: an open container.
        origin: its time, in seconds, of the first displayed video frame.
        time_map: trim and speed.
        recordings: as of `Retiming`.
    """
    shifts = (Fraction(0), *recordings)
    chapters: list[Chapter] = []
    for recording, chapter in chapters_of(source):
        base = chapter["time_base"]
        if base is None or recording >= len(shifts):
            continue
        begins, ends = (chapter[edge] * base + shifts[recording] - origin for edge in ("start", "end"))
        span = map_span(float(begins), float(ends), time_map)
        if span is None:
            continue
        start, end = (round(second * 1000) for second in span)
        chapters.append(
            {
                "id": len(chapters) + 1,
                "start": start,
                "end": max(end, start + 1),
                "time_base": _MILLISECOND,
                "metadata": dict(chapter["metadata"]),
            }
        )
    return chapters


def _is_stale(key: str) -> bool:
    # mkvmerge writes `BPS-eng`; Matroska tags come in upper case.
    base = key.lower().partition("-")[0]
    return base in _STALE or base.startswith("_statistics")
