"""Side data of decoded frames, by kind, and what of it viewers may miss in a result."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping
from typing import Any

import av
from av.dictionary import Dictionary
from av.sidedata.sidedata import Type

__all__ = ["CAPTIONS", "TRANSPARENCY", "Type", "has_captions", "side_data_of", "told_of"]

CAPTIONS = "closed captions (CEA-608 or 708) within the picture"
TRANSPARENCY = "transparency (what lies beneath it is shown)"
DOLBY_VISION = "Dolby Vision metadata of each scene"

LEFT_OUT = {
    Type.A53_CC: CAPTIONS,
    Type.STEREO3D: "the description of the picture as stereoscopic",
    Type.SPHERICAL: "the description of the picture as spherical (360 degrees)",
    Type.DYNAMIC_HDR_PLUS: "HDR10+ metadata of each scene",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid metadata of each scene",
    Type.DOVI_METADATA: DOLBY_VISION,
    Type.DOVI_RPU_BUFFER: DOLBY_VISION,
    Type.AFD: "the description of which part of the picture is active (AFD)",
    Type.ICC_PROFILE: "the colour profile (ICC)",
}

WHOLE_PICTURE = frozenset({0, 8})
"""Active formats that are the whole picture, or none (SMPTE ST 2016-1)."""

CAPTION_MARKS = {
    "h264": b"\xb5\x00\x31GA94\x03",
    "hevc": b"\xb5\x00\x31GA94\x03",
    "mpeg2video": b"\0\0\1\xb2GA94\x03",
}
"""What stands before captions in a packet, by the picture's codec (ATSC A/53 part 4, 6.2.3)."""

CAPTION_BYTES = 4096
"""Of a packet in which that mark is looked for: it stands before what is coded of the picture."""


def _unknown(kind: type[Type], value: int) -> Any:
    member: Any = object.__new__(kind)
    member._name_ = f"KIND_{value}"
    member._value_ = value
    return member


# PyAV 18.1 raises a `ValueError` for all of a frame's side data where FFmpeg knows one kind of it that PyAV does not:
# EXIF in pictures, LCEVC, views of stereoscopic HEVC. This is the hook of `Enum` for values that have no member.
Type._missing_ = classmethod(_unknown)  # type: ignore[assignment]  # how an enum is given one from outside


def side_data_of(frame: av.VideoFrame) -> Mapping[Type, bytes]:
    """All side data of a frame, as FFmpeg's own structures."""
    found: Any = frame.side_data  # the stub types it by name
    for data in found:
        for metadata in gc.get_referents(data):
            if isinstance(metadata, Dictionary) and len(metadata):
                # PyAV 18.1 frees what the frame frees too: the name of a colour profile in PNG ended the process. It is
                # never taken away, which costs some 50 bytes for each such frame.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(metadata))
    return {data.type: bytes(data) for data in found}


def has_captions(codec: str, packet: Any) -> bool:
    """Whether captions stand in a packet of pictures; those that begin late are in no frame that is decoded first."""
    mark = CAPTION_MARKS.get(codec)
    return mark is not None and mark in bytes(memoryview(packet)[:CAPTION_BYTES])


def told_of(frame: av.VideoFrame, side: Mapping[Type, bytes]) -> tuple[str, ...]:
    """What comes with a frame and is not carried over, in words."""
    found = set(side)
    if side.get(Type.AFD, b"\0")[0] & 15 in WHOLE_PICTURE:
        found.discard(Type.AFD)
    profile = side.get(Type.ICC_PROFILE, b"")
    if b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile:
        found.discard(Type.ICC_PROFILE)  # which pictures without one are taken for
    told = list(dict.fromkeys(words for kind, words in LEFT_OUT.items() if kind in found))
    has_alpha = any(component.is_alpha for component in frame.format.components)
    if has_alpha and frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255:
        told.append(TRANSPARENCY)
    return tuple(told)
