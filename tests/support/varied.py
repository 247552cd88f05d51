"""Small videos in every shape that reads differently: containers, codecs, ways to order and to cut pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from support.numbered import Picture, turn, write_video

FRAMES = 72
SIZE = (160, 96)


def moving(count: int = FRAMES, size: tuple[int, int] = SIZE, seed: int = 5) -> Iterator[Picture]:
    """Noise that drifts: each picture is like the one before and differs from it everywhere."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    large = noise.repeat(8, axis=0).repeat(8, axis=1)
    for number in range(count):
        yield np.roll(large, (number, 2 * number), axis=(0, 1))


def fields() -> Iterator[Picture]:
    """Pictures of two fields each, the upper one first."""
    pictures = list(moving(2 * FRAMES))
    for first, second in zip(pictures[::2], pictures[1::2], strict=True):
        both = first.copy()
        both[1::2] = second[1::2]
        yield both


def _x264(**more: str) -> dict[str, str]:
    return {"preset": "ultrafast", "crf": "20", "g": "12", "bf": "3", "b-adapt": "0", "sc_threshold": "0"} | more


def _x265(**more: str) -> dict[str, str]:
    wanted = {"keyint": "12", "min-keyint": "12", "bframes": "3", "scenecut": "0", "log-level": "none", "pools": "1"}
    return {"preset": "ultrafast", "x265-params": ":".join(f"{k}={v}" for k, v in (wanted | more).items())}


def _write(path: Path, **more: Any) -> Path:
    more.setdefault("rate", 24)
    return write_video(path, more.pop("pictures", None) or moving(), **more)


def _uneven() -> list[int]:
    steps = np.random.default_rng(2).integers(20, 90, FRAMES)
    return [int(time) for time in np.cumsum(steps)]


def _later(path: Path) -> Path:
    """A file that begins two hours after 0, in a format that says so."""
    start = 7200 * 90_000
    return _write(path, options=_x264(), pts=[start + 3750 * n for n in range(FRAMES)], time_base=Fraction(1, 90_000))


VARIED: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "index behind, B-frames": (".mp4", lambda p: _write(p, options=_x264())),
    "index in front": (".mp4", lambda p: _write(p, options=_x264(), container_options={"movflags": "faststart"})),
    "fragments": (
        ".mp4",
        lambda p: _write(p, options=_x264(), container_options={"movflags": "frag_keyframe+empty_moov"}),
    ),
    "open groups, H.264": (".mkv", lambda p: _write(p, options=_x264(**{"x264-params": "open-gop=1"}))),
    "open groups, H.264, in MP4": (".mp4", lambda p: _write(p, options=_x264(**{"x264-params": "open-gop=1"}))),
    "open groups, HEVC": (".mp4", lambda p: _write(p, codec="libx265", options=_x265(**{"open-gop": "1"}))),
    "open groups, HEVC, in a stream": (".ts", lambda p: _write(p, codec="libx265", options=_x265(**{"open-gop": "1"}))),
    "10 bits": (
        ".mp4",
        lambda p: _write(p, codec="libx265", options=_x265(), pixel_format="yuv420p10le", tags=(9, 1, 9, 16)),
    ),
    "uneven times": (".mp4", lambda p: _write(p, options=_x264(), pts=_uneven(), time_base=Fraction(1, 1000))),
    "uneven times in Matroska": (
        ".mkv",
        lambda p: _write(p, options=_x264(), pts=_uneven(), time_base=Fraction(1, 1000)),
    ),
    "one keyframe alone": (".mp4", lambda p: _write(p, options=_x264(g="250"))),
    "turned": (".mp4", lambda p: turn(_write(p, options=_x264()), (0, 1, -1, 0))),
    "a broadcast's piece": (".ts", lambda p: _write(p, options=_x264())),
    "hours after 0": (".ts", _later),
    "interlaced MPEG-2": (
        ".ts",
        lambda p: _write(
            p, pictures=fields(), codec="mpeg2video", options={"g": "12", "bf": "2", "flags": "+ildct+ilme", "b": "2M"}
        ),
    ),
    "VP9": (
        ".webm",
        lambda p: _write(
            p,
            codec="libvpx-vp9",
            options={"g": "24", "deadline": "realtime", "cpu-used": "8", "b": "400k", "auto-alt-ref": "1"},
        ),
    ),
    "VP8": (".webm", lambda p: _write(p, codec="libvpx", options={"g": "24", "deadline": "realtime", "b": "400k"})),
    "AV1": (
        ".mp4",
        lambda p: _write(p, codec="libsvtav1", options={"preset": "12", "g": "24", "svtav1-params": "lp=1"}),
    ),
    "ProRes": (".mov", lambda p: _write(p, codec="prores_ks", pixel_format="yuv422p10le", tags=(1, 1, 1, 1))),
    "Motion JPEG": (".mov", lambda p: _write(p, codec="mjpeg", pixel_format="yuvj420p", tags=(5, 2, 2, 2))),
    "MPEG-4 in AVI": (".avi", lambda p: _write(p, codec="mpeg4", options={"g": "12", "b": "2M"})),
    "H.264 in AVI": (".avi", lambda p: _write(p, options=_x264(bf="0"))),
    "MPEG-4 with B-frames in AVI": (
        ".avi",
        lambda p: _write(p, codec="mpeg4", options={"g": "12", "bf": "2", "b": "2M"}),
    ),
    "H.264 with B-frames in AVI": (".avi", lambda p: _write(p, options=_x264())),
    "a program stream": (".mpg", lambda p: _write(p, codec="mpeg2video", options={"g": "12", "bf": "2", "b": "400k"})),
    "an elementary stream": (".h264", lambda p: _write(p, options=_x264())),
    "cropped by the codec": (
        ".mp4",
        lambda p: _write(p, options=_x264(**{"x264-params": "crop-rect=20,2,12,6"})),
    ),
    "DNxHR": (
        ".mov",
        lambda p: _write(
            p,
            pictures=moving(size=(256, 128)),
            codec="dnxhd",
            options={"profile": "dnxhr_sq"},
            pixel_format="yuv422p",
            pts=[40_000 + 512 * n for n in range(FRAMES)],
            time_base=Fraction(1, 12_288),
        ),
    ),
}
"""By what is special about it: the extension, and what writes it."""


def write_varied(folder: Path, name: str) -> Path:
    """One of `VARIED`, in a folder of its own name."""
    suffix, write = VARIED[name]
    return write(folder / f"{name}{suffix}")
