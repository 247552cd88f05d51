"""Python arguments -> a checked `Job`, and the engine's words about flags -> words about arguments."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from numbers import Integral, Rational, Real
from typing import TYPE_CHECKING, NoReturn, TypeGuard, TypeVar

import numpy as np

from keyscale.engine.camera.framing import Framing, Keyframe, Segment, parse_framing
from keyscale.engine.errors import KeyscaleError, UsageError
from keyscale.engine.job import (
    Codec,
    Compute,
    Encoding,
    Fit,
    Job,
    Mode,
    ModelChoice,
    Precision,
    Target,
    Trim,
    Verify,
    bit_depth_of,
    check_job,
    checked_rate,
    default_output,
    parse_size,
    rate_of,
    remote_options,
)
from keyscale.engine.storage.settings import split_output

if TYPE_CHECKING:
    from keyscale.engine.job import RemoteOptions

__all__ = ["FLAGS", "Request", "in_python", "read_arguments", "said_in_python"]

Choice = TypeVar("Choice", bound=StrEnum)
Value = TypeVar("Value")

SWITCHES = {
    "--audio": "audio=True",
    "--keep-going-on-decode-errors": "keep_going_on_decode_errors=True",
    "--local": "remote=False",
    "--no-audio": "audio=False",
    "--no-keep-going-on-decode-errors": "keep_going_on_decode_errors=False",
    "--no-offline": "offline=False",
    "--no-resume": "resume=False",
    "--offline": "offline=True",
    "--overwrite": "overwrite=True",
    "--remote": "remote=True",
    "--resume": "resume=True",
    "--update": "update=True",
}
"""Flags without a value."""

FLAGS = SWITCHES | {
    "-o": "output",
    **{
        f"--{name.replace('_', '-')}": name
        for name in (
            *("bit_depth", "chunk_seconds", "codec", "crf", "denoise", "device", "end", "fit", "fps", "max_cost"),
            *("mode", "model", "output", "precision", "preset", "remote_containers", "remote_fallback", "size"),
            *("start", "tile", "verify"),
        )
    },
    "--start/--end": "start or end",
    "VIDEO": "video",
    "KEYFRAMES.json": "keyframes",
}
"""How messages name what the user gave -> its Python argument."""

_WORDS = "|".join(
    (
        *(item.value for kind in (Codec, Fit, Mode, Precision, Verify) for item in kind),
        r"cpu|mps|cuda(?::\d+)?|lanczos|local|none|source|real[a-z]+-[\w-]+|RealESRGAN_\w+",
    )
)
# What stands in backquotes is a command and stays one.
_FLAG = re.compile(
    r"(?P<command>`[^`]*`|'keyscale [^']*')"
    rf"|(?<![\w/.-])(?P<flag>{'|'.join(sorted(map(re.escape, FLAGS), key=len, reverse=True))})(?![\w/-]|\.\w)"
    rf"(?: (?P<word>{_WORDS})(?![\w-]))?"
)

_PATH = "a path as text, or an object such as pathlib.Path"

LARGEST_WHOLE = 2**1023
"""Beyond it a float holds no number, and Python refuses to write some thousands of digits into a message."""


class _Short(reprlib.Repr):
    """As `reprlib.repr`, for integers of any length too."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) <= LARGEST_WHOLE else f"an integer of {x.bit_length()} bits"


_short = _Short().repr


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a program asked for."""

    job: Job
    framing: Framing | None
    """The camera, where it was given as such."""
    remote: RemoteOptions | None
    """None: on this machine."""


def read_arguments(given: Mapping[str, object]) -> Request:
    """Check the arguments of `keyscale.upscale`, all of them; reads no file.

    Raises:
        UsageError: a value is of a wrong type, out of range, or contradicts another; the message names the argument.
    """
    values = _Values(given)
    with said_in_python():
        video = values.named_path("video")
        output, publish_to = _output(values, video)
        codec = values.choice("codec", Codec)
        framing = values.framing()
        remote = None
        containers, max_cost = values.whole("remote_containers"), values.number("max_cost")
        fallback_local = values.one_of("remote_fallback", "none", "local") == "local"
        options = remote_options(containers=containers, fallback_local=fallback_local, max_cost=max_cost)
        if values.switch("remote"):
            remote = options
            if framing is not None:
                raise UsageError(
                    "keyframes is a Framing, and remote=True needs a file of keyframes",
                    remedy="Give the path of a keyframes file: `keyscale remote resume` has to find it again.",
                )
    job = _job(values, video=video, output=output, publish_to=publish_to, codec=codec, framed=framing is not None)
    return Request(job=job, framing=framing, remote=remote)


def _output(values: _Values, video: str) -> tuple[str | None, str | None]:
    try:
        return split_output(values.path("output"), video)
    except UsageError as error:
        if not error.message.startswith("output "):
            error.message = f"output: {error.message}"
        raise


def _job(values: _Values, *, video: str, output: str | None, publish_to: str | None, codec: Codec, framed: bool) -> Job:
    name = values.path("model")
    with said_in_python(video, output, name):
        width, height = values.size()
        return check_job(
            Job(
                source=video,
                output=output if output is not None else default_output(video, codec),
                keyframes=None if framed else values.path("keyframes"),
                target=Target(width=width, height=height, fit=values.choice("fit", Fit), rate=values.rate()),
                trim=Trim(start=values.number("start"), end=values.number("end")),
                encoding=Encoding(
                    codec=codec,
                    crf=values.whole("crf"),
                    preset=values.text("preset"),
                    bit_depth=bit_depth_of(values.whole("bit_depth")),
                    audio=values.switch("audio"),
                ),
                model=ModelChoice(
                    mode=values.choice("mode", Mode),
                    name=name,
                    denoise=values.number("denoise"),
                    offline=values.switch("offline"),
                ),
                compute=Compute(
                    device=values.named_text("device").strip().lower(),
                    precision=values.choice("precision", Precision),
                    tile=values.tile(),
                ),
                chunk_seconds=values.named_number("chunk_seconds"),
                overwrite=values.switch("overwrite"),
                update=values.switch("update"),
                resume=values.switch("resume"),
                verify=values.choice("verify", Verify),
                keep_going_on_decode_errors=values.switch("keep_going_on_decode_errors"),
                publish_to=publish_to,
            )
        )


class _Values:
    """The arguments by name; each method takes one as what it has to be, or refuses it."""

    def __init__(self, given: Mapping[str, object]) -> None:
        self._given = given

    def path(self, name: str) -> str | None:
        value = self._given[name]
        if value is None:
            return None
        found = os.fspath(value) if isinstance(value, str | os.PathLike) else value
        if not isinstance(found, str):
            self._refuse(name, _PATH)
        return found

    def named_path(self, name: str) -> str:
        return self._present(name, self.path(name), _PATH)

    def named_text(self, name: str) -> str:
        return self._present(name, self.text(name), "text")

    def text(self, name: str) -> str | None:
        value = self._given[name]
        if value is not None and not isinstance(value, str):
            self._refuse(name, "text")
        return value

    def switch(self, name: str) -> bool:
        value = self._given[name]
        if not isinstance(value, bool):
            self._refuse(name, "True or False")
        return value

    def whole(self, name: str) -> int | None:
        value = self._given[name]
        if value is None:
            return None
        if not _is_whole(value):
            self._refuse(name, "a whole number")
        return int(value)

    def named_number(self, name: str) -> float:
        return self._present(name, self.number(name), "a number")

    def number(self, name: str) -> float | None:
        value = self._given[name]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            self._refuse(name, "a number")
        try:
            return float(value)
        except OverflowError:
            self._refuse(name, "a number that a float holds")

    def choice(self, name: str, kind: type[Choice]) -> Choice:
        return kind(self.one_of(name, *kind))

    def one_of(self, name: str, *words: str) -> str:
        value = self._given[name]
        if not isinstance(value, str) or value not in words:
            self._refuse(name, " or ".join(filter(None, (", ".join(map(_quoted, words[:-1])), _quoted(words[-1])))))
        return value

    def size(self) -> tuple[int, int]:
        value = self._given["size"]
        if isinstance(value, str):
            return parse_size(value)
        sides = list(value) if isinstance(value, Sequence) else []
        if len(sides) != 2 or not all(map(_is_whole, sides)):
            self._refuse("size", 'two whole numbers, width and height, or text such as "1080x1920"')
        return int(sides[0]), int(sides[1])

    def rate(self) -> Fraction | None:
        value = self._given["fps"]
        if isinstance(value, bool) or not isinstance(value, str | float | Rational):
            self._refuse("fps", 'a number, a Fraction, or text such as "30000/1001" or "source"')
        if isinstance(value, Rational):
            rate = Fraction(int(value.numerator), int(value.denominator))
            if abs(rate) > LARGEST_WHOLE:
                self._refuse("fps", "a rate of frames a second")
            return checked_rate(rate)
        # By its shortest text, so that 29.97 is the NTSC rate here as it is there.
        return rate_of(value if isinstance(value, str) else repr(float(value)))

    def tile(self) -> int | None:
        value = self._given["tile"]
        if isinstance(value, str) and value == "auto":
            return None
        if not _is_whole(value) or int(value) < 0:
            self._refuse("tile", '"auto", or a whole number of source pixels, 0 or more')
        return int(value)

    def framing(self) -> Framing | None:
        value = self._given["keyframes"]
        if isinstance(value, Framing):
            return _checked(value)
        if value is not None and not isinstance(value, str | os.PathLike):
            self._refuse("keyframes", "the path of a keyframes file, or a Framing")
        return None

    def _present(self, name: str, value: Value | None, rule: str) -> Value:
        return value if value is not None else self._refuse(name, rule)

    def _refuse(self, name: str, rule: str) -> NoReturn:
        value = self._given[name]
        raise UsageError(f"{name} is {_short(value)}", remedy=f"It must be {rule}.")


def _is_whole(value: object) -> TypeGuard[Integral]:
    # A bool is an int to Python; NumPy's integers are none.
    return not isinstance(value, bool) and isinstance(value, Integral) and abs(int(value)) <= LARGEST_WHOLE


def _quoted(word: str) -> str:
    return f'"{word}"'


def _checked(framing: Framing) -> Framing:
    """A camera that a program made, by the rules of the keyframes file."""
    _check_part(framing.trim, Trim, "trim")
    for name, kind in (("keyframes", Keyframe), ("segments", Segment)):
        parts: object = getattr(framing, name)
        if isinstance(parts, str) or not isinstance(parts, Sequence):
            raise UsageError(f"keyframes is a Framing whose {name} are {_short(parts)}", remedy="They must be a tuple.")
        for index, part in enumerate(parts):
            _check_part(part, kind, f"{name[:-1]} {index}")
    try:
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
        }
        text = json.dumps(document, default=float)
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"keyframes is a Framing that holds {error}", remedy="Its numbers must be floats.") from error
    return parse_framing(text, "keyframes")


def _check_part(value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise UsageError(
            f"keyframes is a Framing whose {what} is {_short(value)}", remedy=f"It must be a {kind.__name__}."
        )


def _holds(keyframe: Keyframe, index: int) -> bool:
    hold: object = keyframe.hold
    if not isinstance(hold, bool | np.bool_):
        raise UsageError(
            f"keyframes is a Framing whose keyframe {index} has hold {_short(hold)}", remedy="It must be True or False."
        )
    return bool(hold)


def in_python(text: str, *names: str | None) -> str:
    """What the engine says to who gave flags, as it is said to who gave arguments; `names` stay as they are."""
    kept = sorted(filter(None, names), key=len, reverse=True)
    parts = re.split(rf"(?<!\w)({'|'.join(map(re.escape, kept))})(?!\w)", text) if kept else [text]
    parts[::2] = [_FLAG.sub(_argument, part) for part in parts[::2]]
    return "".join(parts)


def _argument(match: re.Match[str]) -> str:
    flag, word = match["flag"], match["word"]
    if flag is None:
        return match[0]
    if word is None:
        return FLAGS[flag]
    return f"{FLAGS[flag]} {word}" if flag in SWITCHES else f"{FLAGS[flag]}={_quoted(word)}"


@contextmanager
def said_in_python(*names: str | None) -> Iterator[None]:
    """Let errors that leave the block speak of arguments; `names`, such as those of files, stay as they are."""
    try:
        yield
    except KeyscaleError as error:
        error.message = in_python(error.message, *names)
        error.args = (error.message,)
        if error.remedy is not None:
            error.remedy = in_python(error.remedy, *names)
        raise
