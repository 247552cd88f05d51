"""What somebody asked for, on the command line or in a program: the values of options -> a checked `Job`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from keyscale.engine.addresses import is_address, is_link, local_name, shown
from keyscale.engine.choices import Codec
from keyscale.engine.errors import UsageError
from keyscale.engine.files import VIDEO_SUFFIXES
from keyscale.engine.job import Job, check_job, default_output
from keyscale.engine.options import build, options_of
from keyscale.engine.run_options import RemoteOptions
from keyscale.engine.storage.settings import split_output
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from keyscale.engine.camera.framing import Framing

__all__ = ["Request", "check_remote_options", "networks_of", "request_of"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job, and where it runs."""

    job: Job
    remote: RemoteOptions | None
    """None: on this machine."""
    framing: Framing | None = None
    """The camera, where it was given as such and not as a file."""


def request_of(values: Mapping[str, Any], *, kind: type[Job] = Job) -> Request:
    """The values of options, each checked by itself, as one request; touches no file but a network's.

    Args:
        values: by option; those that are missing are as declared.
        kind: the class of the job.

    Raises:
        UsageError: values contradict each other, several networks are named, or the output is an address of another
            form.
    """
    video = values["video"]
    _check_inputs(video, values.get("keyframes"))
    if names := networks_of(values.get("model")):
        raise UsageError(
            say("names several networks, {}, and a whole clip is made with one", " and ".join(names)),
            option="model",
            remedy=say("Name one; or `keyscale upscale` with {sample=} makes five seconds with each of them.", "5"),
        )
    try:
        output, publish_to = split_output(values.get("output"), video)
    except UsageError as error:
        raise UsageError(say("{output}: {}", error.message), remedy=error.remedy) from error
    if output is None:
        output = default_output(video, values.get("codec", Codec.AUTO))
    job = build(kind, {**values, "output": output}, publish_to=publish_to)
    remote = build(RemoteOptions, values)
    if remote.remote and job.keyframes == "-":
        raise UsageError(
            say("is standard input, and {remote=True} needs a file of keyframes"),
            option="keyframes",
            remedy="Give the path of a keyframes file: `keyscale remote resume` has to find it again.",
        )
    return Request(job=check_job(job), remote=remote if remote.remote else None)


def networks_of(model: str | None) -> list[str]:
    """The networks of a list with commas; none where it names one, or is the path of a file."""
    if model is None or "," not in model or Path(model).expanduser().exists():
        return []
    names = [name.strip() for name in model.split(",") if name.strip()]
    return names if len(names) > 1 else []


def check_remote_options(asked: Iterable[str], *, remote: bool) -> None:
    """Raise a `UsageError` where a run on this machine was asked for what concerns remote ones alone.

    Args:
        asked: options that were given with the very run; defaults from settings hold for other runs too.
        remote: whether it is one.
    """
    idle = [name for name in asked if name in options_of(RemoteOptions) and name != "remote"]
    if idle and not remote:
        raise UsageError(
            say(f"{{{idle[0]}}} is for {{remote=True}} alone, and this runs on this machine"),
            remedy=say(f"Give {{remote=True}} too, or leave {{{idle[0]}}} out."),
        )


def _check_inputs(video: str, keyframes: str | None) -> None:
    """Raise a `UsageError` for names that stand in each other's place, or that no file has."""
    if is_address(video) and not is_link(video):
        raise UsageError(
            f"{shown(video)} is an address of a kind that no video is read from",
            remedy="Give an https:// or http:// address, or download it and name the file.",
        )
    if keyframes is not None and is_address(keyframes):
        raise UsageError(
            say("{keyframes} is {}, an address, and has to be a file here", shown(keyframes)),
            remedy="Download it, and name the file.",
        )
    ends = PurePath(keyframes or "").suffix.lower()
    if local_name(video).suffix.lower() == ".json":
        swapped = ends in VIDEO_SUFFIXES
        raise UsageError(
            say(
                "{video} is {}, which looks like keyframes{}",
                shown(video) if is_address(video) else video,
                f", and {keyframes} like a video" * swapped,
            ),
            remedy=say("The video comes first: {video} {keyframes}."),
        )
    if ends in VIDEO_SUFFIXES:
        raise UsageError(
            say("{keyframes} is {}, which looks like a video", keyframes),
            remedy=say(
                "For the name of the result give {output} {}; several videos are made by `keyscale batch`.", keyframes
            ),
        )
