"""A keyframes file of any format that is read -> its checked contents.

Each format is a module of `formats/`: it recognises a text or plain data by its shape, and reads it.
`keyscale.engine.camera.framing` computes the camera; docs/keyframes.md describes the formats for users.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from keyscale.engine.camera.contents import Contents
from keyscale.engine.camera.fields import decode
from keyscale.engine.camera.formats import (
    autoflip,
    clipsai,
    csv_table,
    editor,
    json_lines,
    label_studio,
    opencut,
    sendcmd,
    unread,
    version1,
)
from keyscale.engine.errors import FramingError
from keyscale.engine.files import CAMERA_SUFFIXES, advice_on
from keyscale.engine.wording import say

__all__ = ["MAX_BYTES", "STANDARD_INPUT", "load", "parse"]

MAX_BYTES = 64 * 2**20
"""Largest keyframes file in bytes; about a million keyframes."""

MOST_PARTS = 2_500_000
"""Most lists and objects in a file. A keyframe takes 42 bytes at least, so that no file of that size needs more; an
empty list takes three, and thirty times that in memory."""

STANDARD_INPUT = "-"
"""The path that stands for standard input."""

VIDEO = re.compile(
    rb"(?P<mp4>.{4}(ftyp|moov|mdat|wide))|(?P<mkv>\x1aE\xdf\xa3)|(?P<avi>RIFF.{4}AVI )|(?P<ts>G.{187}G|.{4}G.{191}G)"
    rb"|(?P<ps>\0\0\x01[\xba\xb3])|(?P<flv>FLV\x01)|(?P<ogg>OggS\0)|(?P<asf>0&\xb2u\x8ef\xcf\x11)|(?P<mxf>\x06\x0e\+4)",
    re.DOTALL,
)
"""What files of video containers begin with."""

_VIDEOS = {
    "mp4": "MP4 or QuickTime",
    "mkv": "Matroska or WebM",
    "avi": "AVI",
    "ts": "MPEG-TS",
    "ps": "MPEG",
    "flv": "FLV",
    "ogg": "Ogg",
    "asf": "Windows Media",
    "mxf": "MXF",
}

TEXTS: tuple[tuple[Callable[[str], bool], Callable[[str, str], Contents]], ...] = (
    (autoflip.recognise_text, autoflip.read_text),
    (sendcmd.recognise_text, sendcmd.read_text),
    (csv_table.recognise_text, csv_table.read_text),
    (json_lines.recognise_text, json_lines.read_text),
)
"""Formats that are no JSON: what recognises one, and what reads it."""

DOCUMENTS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], Contents]], ...] = (
    (editor.recognise, editor.read),
    (opencut.recognise, opencut.read),
    (clipsai.recognise, clipsai.read),
    (autoflip.recognise, autoflip.read),
    (label_studio.recognise, label_studio.read),
    (json_lines.recognise, json_lines.read),
)
"""Formats that are JSON, beside this program's own."""


def load(path: str | PathLike[str]) -> Contents:
    """Read a keyframes file, or standard input where the path is "-"; errors name it as `path` was given.

    Raises:
        FramingError: the file cannot be read, or `parse` refuses it.
    """
    if path == STANDARD_INPUT:
        return parse(_standard_input(), "standard input")
    # Names that are not Unicode would fail again where the message is printed.
    name = str(Path(path)).encode("utf-8", "backslashreplace").decode()
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FramingError(
            f"{name}: the keyframes file cannot be read: {error.strerror or error}",
            remedy=advice_on(path, CAMERA_SUFFIXES)
            if isinstance(error, FileNotFoundError)
            else "Give the path of a file that you may read.",
        ) from error
    except ValueError as error:
        raise FramingError(f"{name!r} is not a path: {error}") from error
    return parse(data, name)


def _standard_input() -> bytes | str:
    if sys.stdin is None or sys.stdin.closed:
        raise FramingError("standard input is closed", remedy="Pipe the keyframes in, or name their file.")
    try:
        buffer = getattr(sys.stdin, "buffer", None)
        return sys.stdin.read(MAX_BYTES + 1) if buffer is None else buffer.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise FramingError(
            f"standard input cannot be read: {error}", remedy="Pipe the keyframes in, or name their file."
        ) from error


def parse(text: str | bytes, name: str) -> Contents:
    """Read the text of a keyframes file; `name` opens every error message.

    Raises:
        FramingError: of no format that is read (line and column where it is no JSON), or a rule of its format is
            broken (index and field).
    """
    text = _decoded(text, name)
    for recognises, read in TEXTS:
        if recognises(text):
            return read(text, name)
    unread.refuse_text(text, name)
    return parse_document(decode(text, name), name)


def parse_document(document: Any, name: str) -> Contents:
    """Read what a JSON text comes to; as `parse`."""
    for recognises, read in DOCUMENTS:
        if recognises(document):
            return read(document, name)
    unread.refuse_document(document, name)
    return version1.read(document, name)


def _decoded(text: str | bytes, name: str) -> str:
    if isinstance(text, bytes) and (match := VIDEO.match(text)):
        raise FramingError(
            f"{name}: this is a video ({_VIDEOS[match.lastgroup or '']}), not a keyframes file",
            remedy=say("{video} comes first, then {keyframes}."),
        )
    if len(text) > MAX_BYTES:
        raise FramingError(
            f"{name}: the file is larger than {MAX_BYTES // 2**20} MiB",
            remedy="Thin the keyframes out: between two of them the camera is interpolated.",
        )
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FramingError(
                f"{name}: byte {error.start} is not UTF-8 text", remedy="Save the file as UTF-8."
            ) from error
    text = text.removeprefix("\ufeff")
    if text.count("[") + text.count("{") > MOST_PARTS:
        raise FramingError(f"{name}: there are too many lists and objects", remedy="A keyframe is one object.")
    if not text.strip():
        raise FramingError(f"{name}: the file is empty", remedy="Give at least one keyframe.")
    return text
