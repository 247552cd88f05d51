"""What the editor stores whose keyframes this program reads: one clip's state, or a list of clips.

A clip holds its keyframes as `crop_data` or `cropKeyframes` (frames or seconds, each with an `origin`), its trim and
speeds as `segments_data`, `segments` or `segment_data`, and perhaps `trimRange` or `timing_data` beside them. Fields of
a database are stored as texts of JSON. Whatever else a clip's record holds says nothing of the camera.
"""

from __future__ import annotations

from typing import Any

from keyscale.engine.camera.contents import Contents, SourceSize, TimeUnit
from keyscale.engine.camera.fields import ANY, RATE, decode, list_of, number, number_of, object_of, show
from keyscale.engine.camera.rows import Clock, keyframes_of
from keyscale.engine.camera.stretches import agreed, segment_data, trim_range, whole_trim
from keyscale.engine.errors import FramingError
from keyscale.engine.job import Trim
from keyscale.engine.rates import nominal_rate

__all__ = ["NAME", "read", "recognise"]

NAME = "an editor's stored state"

KEYFRAMES = ("crop_data", "cropData", "cropKeyframes")
SPEEDS = ("segments_data", "segmentsData", "segment_data", "segments")
RATES = ("framerate", "frameRate", "fps")
WIDTHS, HEIGHTS = ("sourceWidth", "source_width"), ("sourceHeight", "source_height")

USUAL_RATE = 30.0
"""Frames a second in which the editor counts where a clip doesn't say."""

_ROW_KEYS = ("origin", "id")


def recognise(document: Any) -> bool:
    """A clip's state, a list of clips, or a list of keyframes with an `origin`."""
    if isinstance(document, list):
        return bool(document) and isinstance(document[0], dict) and ("origin" in document[0] or _is_clip(document[0]))
    if not isinstance(document, dict):
        return False
    clips = document.get("clips")
    has_clips = isinstance(clips, list) and bool(clips) and isinstance(clips[0], dict) and _is_clip(clips[0])
    return has_clips or _is_clip(document)


def read(document: Any, name: str) -> Contents:
    """The camera of the one clip.

    Raises:
        FramingError: several clips, or a value is wrong; names the place.
    """
    if isinstance(document, list) and not _is_clip(document[0]):
        document = {"crop_data": document}
    clips = document if isinstance(document, list) else document.get("clips")
    if "crop_data" not in document and isinstance(clips, list) and clips:
        if len(clips) > 1:
            raise FramingError(
                f"{name}: it holds {len(clips)} clips of {NAME}: {_names(clips)}",
                remedy="Keep one clip in the file: one video is made along one camera.",
            )
        document = clips[0]
    return _clip(object_of(document, name), name)


def _is_clip(value: dict[str, Any]) -> bool:
    return any(key in value for key in (*KEYFRAMES, "segments_data"))


def _names(clips: list[Any]) -> str:
    labels = ("fileName", "filename", "name", "id")
    return ", ".join(
        next((show(str(clip[key])) for key in labels if isinstance(clip, dict) and key in clip), str(index))
        for index, clip in enumerate(clips[:5])
    ) + (", ..." if len(clips) > 5 else "")


def _clip(clip: dict[str, Any], name: str) -> Contents:
    key = next((key for key in (*KEYFRAMES, "keyframes") if clip.get(key) is not None), KEYFRAMES[0])
    rows = list_of({key: _plain(clip.get(key), f"{name}: {key}")}, key, name)
    rate_key = next((key for key in RATES if clip.get(key) is not None), None)
    notes: tuple[str, ...] = ()
    counts_frames = any(isinstance(row, dict) and "frame" in row and "time" not in row for row in rows)
    rate = nominal_rate(number(clip, rate_key, name, RATE) if rate_key else USUAL_RATE)
    if counts_frames and rate_key is None:
        notes = (
            f"the keyframes count frames without a rate: they are taken at {USUAL_RATE:g} a second, as the editor "
            'does; if they are of another rate, add "fps"',
        )
    # A stored keyframe may have both, and its time is what the frame came to.
    rows = [
        {k: v for k, v in row.items() if k != "frame"} if isinstance(row, dict) and "time" in row else row
        for row in rows
    ]
    trim, speeds = Trim(), None
    for place in SPEEDS:
        stored = _plain(clip.get(place), f"{name}: {place}")
        if stored is not None:
            if isinstance(stored, list):
                stored = {"segments": stored}
            found_trim, found_speeds = segment_data(stored, f"{name}: {place}")
            trim = whole_trim(trim, "one place", found_trim, f"'{place}'", f"{name}: trim")
            speeds = agreed(f"{name}: speed", "one place", speeds, f"'{place}'", found_speeds)
    timing = _plain(clip.get("timing_data"), f"{name}: timing_data")
    ranges = {"trimRange": clip.get("trimRange"), "timing_data": timing.get("trimRange") if timing else None}
    for place, stored in ranges.items():
        if stored is not None:
            trim = whole_trim(trim, "its speeds", trim_range(stored, f"{name}: {place}"), f"'{place}'", f"{name}: trim")
    rotation = clip.get("rotation")
    return Contents(
        keyframes=keyframes_of(rows, Clock(rate=rate), name, also=_ROW_KEYS),
        trim=trim,
        segments=speeds or (),
        rotation=0.0 if rotation is None else number_of(rotation, f"{name}: field 'rotation'", ANY),
        time_unit=TimeUnit.SECONDS if counts_frames else None,
        source=_source(clip, name),
        form=NAME,
        notes=notes,
    )


def _plain(value: Any, where: str) -> Any:
    """A field of a database is a text of JSON."""
    return decode(value, where) if isinstance(value, str) and value.strip() else (None if value == "" else value)


def _source(clip: dict[str, Any], name: str) -> SourceSize | None:
    width = next((key for key in WIDTHS if clip.get(key)), None)
    height = next((key for key in HEIGHTS if clip.get(key)), None)
    if width is None or height is None:
        return None
    return SourceSize(number(clip, width, name, RATE), number(clip, height, name, RATE))
