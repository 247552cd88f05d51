"""Section: mutated videos and keyframes files, each through the command line."""

from __future__ import annotations

import random
import time

from tools.torture.cases import CLEAN, Case
from tools.torture.lab import Lab
from tools.torture.material import KINDS, make_video, upscale
from tools.torture.mutate import mutated_framing, mutated_video
from tools.torture.report import Section

__all__ = ["VIDEOS", "mutations"]

VIDEOS = FRAMINGS = 500
"""How many of either are tried in full."""

KEEP_GOING = "--keep-going-on-decode-errors"


def mutations(lab: Lab) -> list[Section]:
    """Try the seed's variants: a share of them takes every so many-th number, so that all kinds are in it."""
    videos = Section(
        name="mutated videos",
        about="Videos of six containers with sound and, where there is room, subtitles, damaged byte by byte and part "
        "by part; every second one with --keep-going-on-decode-errors, every third without --end. Each has to "
        "end in a verified result or in one clean message with exit code 3 or 6, and code 2 where its times make "
        "the result too long.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        sound = {kind.suffix: make_video(folder / f"in{kind.suffix}", kind).read_bytes() for kind in KINDS}
    for number in _numbers(VIDEOS, lab):
        suffix, damage, content = mutated_video(sound, number, lab.seed)
        with lab.folder() as folder:
            name = f"in{suffix}"
            (folder / name).write_bytes(content)
            more = [*([KEEP_GOING] if number % 2 else []), *(["--end", "5"] if number % 3 else [])]
            case = Case(name=f"video {number}, {suffix} {damage}", arguments=upscale(name, *more), codes=CLEAN)
            lab.attempt(case, folder, videos)
    videos.seconds = time.monotonic() - began

    framings = Section(
        name="mutated keyframes",
        about="Every form of the keyframes file, damaged as text and value by value. Each has to end in a verified "
        "result or in one clean message with exit code 2.",
    )
    began = time.monotonic()
    for number in _numbers(FRAMINGS, lab):
        damage, content = mutated_framing(number, lab.seed)
        with lab.folder() as folder:
            (folder / "in.mp4").write_bytes(sound[".mp4"])
            (folder / "camera.json").write_bytes(content)
            case = Case(
                name=f"keyframes {number}, {damage}",
                arguments=upscale("in.mp4", keyframes="camera.json"),
                codes=frozenset({0, 2}),
            )
            lab.attempt(case, folder, framings)
    framings.seconds = time.monotonic() - began
    return [videos, framings]


def _numbers(full: int, lab: Lab) -> list[int]:
    """The numbers of the variants that are tried; drawn, since a fixed step would leave kinds of damage out."""
    return sorted(random.Random(lab.seed).sample(range(full), min(full, lab.count(full))))  # noqa: S311
