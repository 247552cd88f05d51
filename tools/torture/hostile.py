"""Sections: input made to do harm. A tenth of the rest is all of it: each case has its own reason."""

from __future__ import annotations

import time
from dataclasses import replace

from tools.torture.cases import CLEAN, Case
from tools.torture.hostile_framings import hostile_framings
from tools.torture.hostile_models import PAYLOAD, hostile_models
from tools.torture.hostile_videos import hostile_videos
from tools.torture.lab import Lab
from tools.torture.links import run_links
from tools.torture.material import KINDS, make_video, upscale
from tools.torture.nursery import Nursery
from tools.torture.report import Section

__all__ = ["hostile_keyframes", "hostile_sources", "planted_checkpoints", "planted_links"]


def hostile_keyframes(lab: Lab) -> Section:
    """Keyframes files that are too large, too deep, too many, no numbers, no text."""
    section = Section(
        name="hostile keyframes",
        about="Files of 100 MB, of a million keyframes (which have to work), nested up to a million deep, with numbers "
        "beyond all numbers, keys given twice, text that is none. Refused with exit code 2, or done.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        video = make_video(folder / "in.mp4", KINDS[0]).read_bytes()
    for framing in lab.chosen(list(hostile_framings())):
        with lab.folder() as folder:
            (folder / "in.mp4").write_bytes(video)
            (folder / "camera.json").write_bytes(framing.content())
            case = Case(
                name=framing.name,
                arguments=upscale("in.mp4", keyframes="camera.json"),
                codes=frozenset({0 if framing.works else 2}),
                says=framing.says,
                seconds=framing.seconds,
                peak_mib=framing.peak_mib,
            )
            lab.attempt(case, folder, section)
    section.seconds = time.monotonic() - began
    return section


def hostile_sources(lab: Lab) -> Section:
    """Videos whose headers lie beyond all bounds."""
    section = Section(
        name="hostile videos",
        about="Headers that declare 65535x65535 pixels, 2^31 frames, tables of 2^32 entries, clocks of 0, frames that "
        "last 68 years or come 2^31 times a second, boxes that are nested 10,000 deep. Refused with exit code 3, "
        "or, where the lie matters to nobody, a verified result.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        videos = hostile_videos(folder)
    for video in lab.chosen(videos):
        with lab.folder() as folder:
            (folder / f"in{video.suffix}").write_bytes(video.content)
            case = Case(
                name=video.name,
                arguments=upscale(f"in{video.suffix}", *video.flags),
                codes=frozenset({3}) if video.refused else CLEAN,
                says=video.refused,
                seconds=video.seconds,
                peak_mib=video.peak_mib,
            )
            lab.attempt(case, folder, section)
    section.seconds = time.monotonic() - began
    return section


def planted_checkpoints(lab: Lab) -> Section:
    """Checkpoints with code in them, bombs, and networks that no machine holds."""
    section = Section(
        name="hostile checkpoints",
        about="Pickles with code, whose payload would make a file; archives that unpack to a thousand times their "
        "size; tensors, layers and headers that are declared and not there. Refused with exit code 4, and no "
        "payload is run.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        video = make_video(folder / "in.mp4", KINDS[0]).read_bytes()
    # torch takes seconds to load, and is what reads them: it is loaded once, and no thread of it runs yet.
    with Nursery(lab.nursery.environment, ("torch", "safetensors.torch")) as nursery:
        _try_checkpoints(replace(lab, nursery=nursery), section, video)
    section.seconds = time.monotonic() - began
    return section


def _try_checkpoints(lab: Lab, section: Section, video: bytes) -> None:
    for model in lab.chosen(list(hostile_models())):
        with lab.folder() as folder:
            (folder / "in.mp4").write_bytes(video)
            model.write(folder / f"model{model.suffix}")
            own = {"lanczos": f"model{model.suffix}"}
            case = Case(
                name=model.name,
                arguments=tuple(own.get(word, word) for word in upscale("in.mp4", "--size", "64x64")),
                codes=frozenset({4}),
                says=model.says,
                peak_mib=512,
            )
            ended = lab.attempt(case, folder, section)
            if (folder / PAYLOAD).exists():
                lab.fail(section, case, folder, ended, ["the payload was run"])


def planted_links(lab: Lab) -> Section:
    """Symbolic links in the output folder and in the work folder."""
    section = Section(
        name="links",
        about="Symbolic links in the place of the output, of the work folder, of anything in it, and of a stopped "
        "job's chunks: to a file, a folder, nothing, itself. What lies behind them is never written to.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        video = make_video(folder / "in.mp4", KINDS[0]).read_bytes()
        film = make_video(folder / "film.mp4", KINDS[0], frames=480, size=(320, 240)).read_bytes()
    run_links(lab, section, video, film)
    section.seconds = time.monotonic() - began
    return section
