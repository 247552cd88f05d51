"""Side data of decoded frames, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
from av.sidedata.sidedata import Type

__all__ = ["Type", "side_data_of"]


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
    return {data.type: bytes(data) for data in found}
