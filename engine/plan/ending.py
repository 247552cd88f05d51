"""Where a source begins and ends for a job: its picture, or its sound where that lasts longer."""

from __future__ import annotations

import math

from keyscale.engine.choices import Until
from keyscale.engine.job import Job
from keyscale.engine.plan.tracks import is_readable
from keyscale.engine.source.probe import VideoInfo
from keyscale.engine.wording import say

__all__ = ["early_sound", "source_end", "told_of_end"]

OUTLASTS = 0.064
"""Seconds by which the sound has to be longer than the picture to count: three AAC packets of 48 kHz.

Ordinary recordings end that unevenly, since an encoder fills its last packet and gives those it looked ahead for.
"""

EARLY = 0.1
"""Seconds of sound before the picture that need no word: codecs' lead-in (Opus 80 ms)."""

ROUNDING = 0.05
"""Parts of a frame that are no reason for one frame more: clocks of milliseconds round."""


def source_end(job: Job, info: VideoInfo) -> float:
    """Seconds of the source's own timeline at which it ends: with its picture, held to the end of the sound if asked.

    A picture is held for whole frames of the source's rate, and only where the sound outlasts it by more than one.
    """
    picture = float(info.duration)
    longer = _sound_end(job, info) - picture
    frame = float(1 / info.rate)
    if job.until is Until.VIDEO or longer <= max(frame, OUTLASTS):
        return picture
    return picture + math.ceil(longer / frame - ROUNDING) * frame


def told_of_end(job: Job, info: VideoInfo, end: float) -> list[str]:
    """What a person should know where the sound is longer than the picture and `end` seconds of the source are used."""
    picture = float(info.duration)
    longer = _sound_end(job, info) - picture
    if longer <= max(float(1 / info.rate), OUTLASTS) or end < picture:
        return []
    if end > picture:
        lasts = f"the sound lasts {longer:.3f} s longer than the picture"
        held = f"its last frame is held for {end - picture:.3f} s"
        return [say("{}: {}; {until=video} cuts the sound instead", lasts, held)]
    if job.until is Until.VIDEO:
        return [say("the last {} of the sound are cut, as {until=video} asks", f"{longer:.3f} s")]
    return []


def early_sound(job: Job, info: VideoInfo) -> list[str]:
    """What of the sound comes before the picture, and is left out."""
    if not job.encoding.audio:
        return []
    told = []
    for stream in info.streams:
        early = float(info.origin) - stream.begins if stream.begins is not None else 0.0
        if stream.kind == "audio" and is_readable(stream) and early > EARLY:
            told.append(f"audio stream {stream.index} begins {early:.3f} s before the picture; that part is left out")
    return told


def _sound_end(job: Job, info: VideoInfo) -> float:
    if not job.encoding.audio:
        return 0.0
    ends = [s.ends for s in info.streams if s.kind == "audio" and is_readable(s) and s.ends is not None]
    return max(ends, default=0.0) - float(info.origin)
