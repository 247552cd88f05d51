"""Python arguments -> a checked request, in the words of who gave arguments."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import Parameter, Signature

import numpy as np

from keyscale.engine.camera.framing import Framing, Keyframe, Segment, parse_framing
from keyscale.engine.errors import KeyscaleError, UsageError
from keyscale.engine.forms import short
from keyscale.engine.job import Job, Trim
from keyscale.engine.options import Option, options_of
from keyscale.engine.request import Request, check_remote_options, request_of
from keyscale.engine.run_options import RemoteOptions
from keyscale.engine.wording import as_argument, say, worded

__all__ = [
    "POSITIONAL",
    "annotation_of",
    "arguments_of",
    "describe_arguments",
    "read_arguments",
    "said_in_python",
    "signature_of",
]

CAMERAS = ("Framing", "Sequence[Mapping[str, Any]]", "Mapping[str, Any]")
"""What a camera may be beside the path of a file."""

POSITIONAL = ("video", "keyframes", "output")
"""Arguments that need not be named."""


def arguments_of(kind: type[Job] = Job) -> Mapping[str, Option]:
    """What `keyscale.upscale` takes, by name, the positional ones first."""
    return options_of(kind, RemoteOptions)


def read_arguments(given: Mapping[str, object], kind: type[Job] = Job) -> Request:
    """Check the arguments of `keyscale.upscale`, those that are given; reads no file.

    Raises:
        TypeError: there is no such argument.
        UsageError: a value is of a wrong type, out of range, or contradicts another; the message names the argument.
    """
    options = arguments_of(kind)
    if unknown := given.keys() - options.keys():
        raise TypeError(f"there is no argument {min(unknown)!r}")
    with said_in_python():
        framing = _framing(given.get("keyframes"))
        values = {
            name: options[name].take(value) for name, value in given.items() if name != "keyframes" or framing is None
        }
        request = replace(request_of(values, kind=kind), framing=framing)
        asked = [name for name, value in values.items() if value not in (None, options[name].default)]
        check_remote_options(asked, remote=request.remote is not None)
        if request.remote is not None and framing is not None:
            raise UsageError(
                say(
                    "is {}, and {remote=True} needs a file of keyframes",
                    "a Framing" if isinstance(given.get("keyframes"), Framing) else "no file",
                ),
                option="keyframes",
                remedy="Give the path of a keyframes file: `keyscale remote resume` has to find it again.",
            )
    return request


def signature_of(kind: type[Job] = Job) -> Signature:
    """The signature of `keyscale.upscale`: the positional arguments, and each option with its default."""
    parameters = []
    for each in arguments_of(kind).values():
        positional = each.name in POSITIONAL
        parameters.append(
            Parameter(
                each.name,
                Parameter.POSITIONAL_OR_KEYWORD if positional else Parameter.KEYWORD_ONLY,
                default=Parameter.empty
                if each.required
                else each.default
                if positional
                else each.given_as(each.default),
                annotation=annotation_of(each),
            )
        )
    return Signature(sorted(parameters, key=lambda one: one.kind))


def annotation_of(each: Option) -> str:
    """The type of an argument, as Python writes it."""
    also = f" | {' | '.join(CAMERAS)}" if each.name == "keyframes" else ""
    return f"{each.form.annotation}{also}{' | None' if each.is_optional else ''}"


def describe_arguments(*functions: Callable[..., object]) -> None:
    """Let `help()` and `inspect.signature` show the options that functions take as `**options`."""
    about = "\n".join(
        f"        {each.name}: {worded(say(each.python or each.help), as_argument)}"
        for each in arguments_of().values()
        if each.name not in POSITIONAL
    )
    for function in functions:
        function.__signature__ = signature_of().replace(  # type: ignore[attr-defined]  # inspect reads it
            return_annotation=function.__annotations__["return"]
        )
        if function.__doc__ is not None:
            function.__doc__ = function.__doc__.replace("        options: {options}", about)


@contextmanager
def said_in_python() -> Iterator[None]:
    """Let errors that leave the block speak of arguments."""
    try:
        yield
    except KeyscaleError as error:
        error.word(as_argument)
        raise


def _framing(value: object) -> Framing | None:
    if isinstance(value, Framing):
        return _checked(value)
    if isinstance(value, Mapping | list | tuple):
        return _read(value, "keyframes hold")
    if value is not None and not isinstance(value, str | os.PathLike):
        raise UsageError(
            f"is {short(value)}",
            option="keyframes",
            remedy="It must be the path of a keyframes file, a list of dicts, or a Framing.",
        )
    return None


def _read(document: object, what: str) -> Framing:
    """Plain data, as a file of it is read; numbers may be of other libraries."""
    try:
        text = json.dumps(document, default=_plain)
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"{what} {error}", remedy="Its numbers must be floats.") from error
    return parse_framing(text, "keyframes")


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else float(value)  # type: ignore[arg-type]  # or it raises TypeError


def _checked(framing: Framing) -> Framing:
    """A camera that a program made, by the rules of the keyframes file."""
    _check_part(framing.trim, Trim, "trim")
    for name, kind in (("keyframes", Keyframe), ("segments", Segment)):
        parts: object = getattr(framing, name)
        if isinstance(parts, str) or not isinstance(parts, Sequence):
            raise UsageError(f"keyframes is a Framing whose {name} are {short(parts)}", remedy="They must be a tuple.")
        for index, part in enumerate(parts):
            _check_part(part, kind, f"{name[:-1]} {index}")
    document = {
        "keyframes": [
            {"time": k.time, "x": k.x, "y": k.y, "width": k.width, "height": k.height}
            | ({"ease": "hold"} if _holds(k, index) else {})
            for index, k in enumerate(framing.keyframes)
        ],
        "interpolation": framing.interpolation,
        "trim": dataclasses.asdict(framing.trim),
        "segments": [dataclasses.asdict(segment) for segment in framing.segments],
        "rotation": framing.rotation,
        "units": framing.units,
        "time_unit": framing.time_unit,
        "source": None if framing.source is None else dict(zip(("width", "height"), framing.source, strict=True)),
    }
    form = framing.form or "a Framing"
    return replace(_read(document, "keyframes is a Framing that holds"), form=form, notes=framing.notes)


def _check_part(value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise UsageError(
            f"keyframes is a Framing whose {what} is {short(value)}", remedy=f"It must be a {kind.__name__}."
        )


def _holds(keyframe: Keyframe, index: int) -> bool:
    hold: object = keyframe.hold
    if not isinstance(hold, bool | np.bool_):
        raise UsageError(
            f"keyframes is a Framing whose keyframe {index} has hold {short(hold)}", remedy="It must be True or False."
        )
    return bool(hold)
