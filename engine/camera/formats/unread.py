"""Formats that are recognised and not read: an error names them, and says what would be needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from keyscale.engine.errors import FramingError

__all__ = ["refuse_document", "refuse_text"]

CROP_KEYS = "the crop of each time as CSV (time,x,y,width,height) or JSON"
BOXES = "one rectangle a time that the camera is to see: these are what was found in the picture, not what is framed"
PROJECT = f"{CROP_KEYS}: a project places clips in a timeline, and the crop's meaning depends on it"

_TEXTS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("a Final Cut Pro project (FCPXML)", re.compile(r"<(!DOCTYPE )?fcpxml"), PROJECT),
    ("a Premiere Pro or Final Cut Pro 7 project (XMEML)", re.compile(r"<(!DOCTYPE )?xmeml"), PROJECT),
    ("a Premiere Pro project", re.compile(r"<PremiereData"), PROJECT),
    ("an MLT project (Shotcut, Kdenlive)", re.compile(r"<mlt\b"), PROJECT),
    ("CVAT annotations", re.compile(r"<annotations>"), BOXES),
    ("After Effects keyframe data", re.compile(r"Adobe After Effects [\d.]+ Keyframe Data"), CROP_KEYS),
    ("an edit decision list (EDL)", re.compile(r"^TITLE:", re.MULTILINE), CROP_KEYS),
    ("subtitles (SRT or WebVTT)", re.compile(r"\d+:\d+[,.]\d+ --> "), CROP_KEYS),
    ("an XML file", re.compile(r"<\?xml|<\w+"), CROP_KEYS),
    (
        "a table of numbers without a header (as of MOT challenges)",
        re.compile(r"[-+.\d]+(\s*[,;\t]\s*[-+.\deE]+){3,}\s*$", re.MULTILINE),
        "a first line that names the columns: time,x,y,width,height",
    ),
    ("a zip archive", re.compile(r"PK\x03\x04"), "the file with the keyframes that is in it"),
)
"""Name, what such a file begins with, and what would be needed."""


def _has(*keys: str) -> Callable[[Any], bool]:
    return lambda document: isinstance(document, dict) and all(key in document for key in keys)


def _first_has(*keys: str) -> Callable[[Any], bool]:
    return lambda document: isinstance(document, list) and bool(document) and _has(*keys)(document[0])


_DOCUMENTS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("an OpenTimelineIO timeline", _has("OTIO_SCHEMA"), PROJECT),
    ("a Lottie animation", _has("layers", "fr"), CROP_KEYS),
    ("COCO annotations", _has("images", "annotations"), BOXES),
    ("annotations of Google's Video Intelligence", _has("annotation_results"), BOXES),
    ("annotations of Google's Video Intelligence", _has("annotationResults"), BOXES),
    ("what Rekognition found", _has("JobStatus", "VideoMetadata"), BOXES),
    ("a Supervisely annotation", _has("objects", "frames", "size"), BOXES),
    ("OpenPose keypoints", _has("people"), BOXES),
    ("a probe of FFmpeg", _has("streams", "format"), CROP_KEYS),
    ("a CapCut or JianYing draft", _has("materials", "tracks"), PROJECT),
    ("Label Studio annotations without a VideoRectangle", _first_has("annotations"), "a VideoRectangle sequence"),
)
"""Name, how it is recognised, and what would be needed."""


def refuse_text(text: str, name: str) -> None:
    """Raise a `FramingError` for a text in a format that is known by its beginning."""
    head = text[:2000].lstrip()
    if head[:1] in {"{", "[", '"'}:
        return
    for what, pattern, needed in _TEXTS:
        if pattern.match(head) or (pattern.flags & re.MULTILINE and pattern.search(head)):
            _refuse(name, what, needed)
    if "-->" in head:
        _refuse(name, "subtitles (SRT or WebVTT)", CROP_KEYS)


def refuse_document(document: Any, name: str) -> None:
    """Raise a `FramingError` for plain data in a format that is known by its keys."""
    for what, is_such, needed in _DOCUMENTS:
        if is_such(document):
            _refuse(name, what, needed)


def _refuse(name: str, what: str, needed: str) -> NoReturn:
    raise FramingError(f"{name}: this is {what}, which is not read", remedy=f"What is needed: {needed}.")
