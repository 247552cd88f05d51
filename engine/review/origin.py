"""The job that a result came from: of the videos and cameras that are near, those that give the result's key.

Near is what a batch's report beside the result names, what lies in the result's folder, and in the current one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from keyscale.engine.camera.framing import Framing, load_framing
from keyscale.engine.choices import Codec, Fit, Mode
from keyscale.engine.errors import InputError, KeyscaleError, UsageError
from keyscale.engine.files import CAMERA_SUFFIXES, REPORT_NAME, VIDEO_SUFFIXES, sha256_file
from keyscale.engine.job import Job, Target
from keyscale.engine.runners.prepare import Look, prepare_plan
from keyscale.engine.source.probe import VideoInfo, probe
from keyscale.engine.wording import say
from keyscale.engine.workspace.fingerprint import job_key, read_stamp

__all__ = ["origin_of"]

MOST = 20
"""Videos, and keyframes files, that are tried."""

CODECS = {"hevc": Codec.HEVC, "av1": Codec.AV1, "prores": Codec.PRORES}


def origin_of(result: str, job: Job, look: Look = probe) -> Job:
    """The job whose key the result carries, with a source and a camera that are near.

    Size, rate and codec are read off the result, mode and fit are tried; `job` has to say what else was asked for.

    Raises:
        UsageError: nothing that is near is it; says what to name.
        KeyscaleError: the result cannot be read.
    """
    path = Path(result)
    info = look(result, tolerate_damage=True, sound=False)
    key = read_stamp(path)
    remedy = "Name the source first, and the camera last: keyscale compare VIDEO RESULT KEYFRAMES.json."
    if key is None:
        raise UsageError(f"{result} has no job key, so its source cannot be found", remedy=remedy)
    try:
        near = _near(path)
    except OSError as error:
        raise InputError(f"cannot read the folder {path.parent}: {error.strerror}", remedy=remedy) from error
    videos = [other for other in near if other.suffix.lower() in VIDEO_SUFFIXES]
    cameras = [other for other in near if other.suffix.lower() in CAMERA_SUFFIXES]
    framings: list[tuple[str | None, Framing | None]] = [(None, None)]
    for camera in cameras[:MOST]:
        try:
            framings.append((str(camera), load_framing(camera)))
        except KeyscaleError:  # many other files are JSON
            continue
    framings = [*framings[1:], framings[0]]
    rates = dict.fromkeys((job.target.rate, info.rate, None))
    for video in videos[:MOST]:
        try:
            source = look(str(video), tolerate_damage=job.keep_going_on_decode_errors, sound=job.encoding.audio)
            content = ""
            for (camera_path, framing), rate in itertools.product(framings, rates):
                for tried in _jobs(job, str(video), result, info, rate):
                    try:
                        plan = prepare_plan(tried, framing=framing, look=lambda *_, found=source, **__: found)
                    except KeyscaleError:  # that camera is of another video
                        break
                    if plan.frames != len(info.pts):  # whatever the fit and the mode
                        break
                    content = content or sha256_file(video)
                    if job_key(plan, content) == key:
                        return replace(tried, keyframes=camera_path)
        except (KeyscaleError, OSError):  # no video, or one that cannot be read
            continue
    raise UsageError(
        f"no video and camera beside {result} or in the current folder give its key with these flags",
        remedy=say("{} Or give the flags that it was made with, such as {crf=} and {start=}.", remedy, 18, 1.5),
    )


def _near(path: Path) -> list[Path]:
    """Files that may be source or camera of a result, the likelier ones first, each once.

    Raises:
        OSError: the result's folder cannot be read.
    """
    own = path.name.split(".keyscale.")[0]
    found = _reported(path)
    listed = [list(path.parent.iterdir())]
    with contextlib.suppress(OSError):
        listed.append(list(Path().iterdir()))
    for others in listed:
        files = [other for other in others if other.is_file()]
        found += sorted(files, key=lambda other: (not other.name.startswith(own), other.name))
    once: dict[Path, Path] = {}
    for each in found:
        once.setdefault(each.resolve(), each)
    once.pop(path.resolve(), None)
    return list(once.values())


def _reported(path: Path) -> list[Path]:
    """What the report of a batch beside a result says that it was made of; names in it begin in that batch's folder."""
    try:
        clips = json.loads((path.parent / REPORT_NAME).read_bytes())["clips"]
        clip = next(each for each in clips if Path(each["output"]).name == path.name)
        named = [Path(clip[name]) for name in ("video", "keyframes") if clip[name] is not None]
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return []
    return [each for each in named if each.is_file()]


def _jobs(job: Job, source: str, result: str, info: VideoInfo, rate: Fraction | None) -> Iterator[Job]:
    """The job as it may have been: with the result's size and codec, in any mode, with any fit."""
    codec = CODECS.get(info.codec, Codec.AUTO) if job.encoding.codec is Codec.AUTO else job.encoding.codec
    for mode, fit in itertools.product(dict.fromkeys((job.model.mode, *Mode)), dict.fromkeys((job.target.fit, *Fit))):
        yield replace(
            job,
            source=source,
            output=result,
            keyframes=None,
            target=Target(width=info.width, height=info.height, rate=rate, fit=fit),
            encoding=replace(job.encoding, codec=codec),
            model=replace(job.model, mode=mode),
        )
