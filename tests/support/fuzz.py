"""Cases of the fuzz: a source, a camera, trim, speeds and a target, all drawn from one seed, and its command line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

DISPLAY = (128, 96)
"""Displayed pixels of every source."""
CELL, CELLS, CELLS_AT = 8, (5, 2), (44, 40)
"""Side of one bit of the number, columns and rows, and where the first one begins."""
SPOTS, SIGMA = ((34.0, 28.0), (94.0, 68.0)), 3.0
"""Centres of two soft bright spots, by which the camera's rectangle is found, and their size."""
SEEN = (22.0, 17.0, 106.0, 80.0)
"""Left, top, right and bottom of what every camera has to see, for numbers and spots to be read."""

NTSC = Fraction(30000, 1001)
RATES = [Fraction(r) for r in (5, 10, 12, 15, 24, 25, 30, 50, 60)] + [NTSC, Fraction(24000, 1001), NTSC * 2]
MPEG_RATES = [Fraction(r) for r in (24, 25, 30, 50, 60)] + [NTSC, Fraction(24000, 1001)]

_X264 = {"preset": "ultrafast", "crf": "4", "g": "12", "b-adapt": "0"}
_MPEG = {"b": "6M", "qmin": "1", "qmax": "3", "g": "12"}
_VP = {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "3M", "g": "12"}
VIDEO: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", _X264 | {"bf": "0"}),
    "h264b": ("libx264", "yuv420p", _X264 | {"bf": "2"}),
    "hevc": ("libx265", "yuv420p", {"preset": "ultrafast", "crf": "4", "x265-params": "log-level=none:pools=1"}),
    "av1": ("libsvtav1", "yuv420p", {"preset": "12", "crf": "8", "g": "24", "svtav1-params": "lp=1"}),
    "vp8": ("libvpx", "yuv420p", _VP),
    "vp9": ("libvpx-vp9", "yuv420p", _VP),
    "mpeg4": ("mpeg4", "yuv420p", _MPEG | {"bf": "0"}),
    "mpeg4b": ("mpeg4", "yuv420p", _MPEG | {"bf": "2"}),
    "mpeg2": ("mpeg2video", "yuv420p", _MPEG | {"bf": "0"}),
    "mpeg2b": ("mpeg2video", "yuv420p", _MPEG | {"bf": "2"}),
    "mpeg1": ("mpeg1video", "yuv420p", _MPEG | {"bf": "2"}),
    "mjpeg": ("mjpeg", "yuvj420p", {"qmin": "1", "qmax": "2"}),
    "ffv1": ("ffv1", "yuv444p", {}),
    "prores": ("prores_ks", "yuv422p10le", {}),
    "png": ("png", "rgb24", {}),
    "qtrle": ("qtrle", "rgb24", {}),
    "huffyuv": ("ffvhuff", "yuv420p", {}),
    "flv1": ("flv", "yuv420p", _MPEG),
    "wmv2": ("wmv2", "yuv420p", _MPEG),
    "gif": ("gif", "gray", {}),
    "apng": ("apng", "rgb24", {}),
}
"""By the fuzz's name: encoder, pixel format, options."""

_HIGH = [44100, 48000]
SOUND: dict[str, tuple[list[str], list[int]]] = {
    "aac": (["mono", "stereo", "3.0", "5.1", "7.1"], [22050, 32000, *_HIGH]),
    "libmp3lame": (["mono", "stereo"], [8000, 16000, 22050, *_HIGH]),
    "mp2": (["mono", "stereo"], [32000, *_HIGH]),
    "ac3": (["mono", "stereo", "5.1(side)"], _HIGH),
    "eac3": (["mono", "stereo", "5.1(side)"], _HIGH),
    "flac": (["mono", "stereo", "2.1", "quad", "5.1", "6.1", "7.1"], [8000, 22050, *_HIGH, 96000]),
    "pcm_s16le": (["mono", "stereo", "2.1", "quad", "5.1", "7.1", "9 channels"], [8000, 22050, *_HIGH]),
    "pcm_s16be": (["mono", "stereo"], [48000]),
    "libopus": (["mono", "stereo", "quad", "5.1", "7.1"], [48000]),
    "vorbis": (["stereo"], _HIGH),
    "alac": (["mono", "stereo", "5.1"], _HIGH),
    "wmav2": (["mono", "stereo"], _HIGH),
}
"""Encoder of the sound: layouts, and samples a second."""


@dataclass(frozen=True)
class Kind:
    """What a container can hold, and which ways of telling times it has."""

    suffix: str
    video: tuple[str, ...]
    sound: tuple[str, ...] = ()
    rates: tuple[Fraction, ...] = tuple(RATES)
    variable: bool = False
    """Frames may stand as long as they like."""
    begins: bool = False
    """The file, and its sound, may begin elsewhere than at 0."""
    tick: Fraction | None = None
    """Seconds of its time base, where that is its own; else a frame's length."""
    bases: tuple[int, ...] = ()
    """Ticks a second that may be asked for."""
    joins: bool = False
    """Files of it laid end to end are one."""


MS = Fraction(1, 1000)
KINDS = (
    Kind(".mp4", ("h264", "h264b", "hevc", "av1", "mpeg4", "mpeg4b", "mjpeg"), ("aac", "alac", "flac", "libopus", "ac3",
         "libmp3lame"), variable=True, begins=True, bases=(600, 1000, 12800, 30000, 90000), joins=True),
    Kind(".mov", ("h264", "h264b", "hevc", "mjpeg", "prores", "png", "qtrle", "mpeg4"), ("aac", "pcm_s16le",
         "pcm_s16be", "alac"), variable=True, begins=True, bases=(600, 1000, 30000, 90000)),
    Kind(".mkv", ("h264", "h264b", "hevc", "vp8", "vp9", "mpeg4", "mpeg4b", "mpeg2", "mjpeg", "ffv1", "prores"),
         ("flac", "pcm_s16le", "aac", "libopus", "vorbis", "mp2", "libmp3lame", "ac3", "eac3"), variable=True,
         begins=True, tick=MS, joins=True),
    Kind(".webm", ("vp8", "vp9", "av1"), ("libopus", "vorbis"), variable=True, begins=True, tick=MS),
    Kind(".ts", ("h264", "h264b", "hevc", "mpeg2", "mpeg2b"), ("aac", "mp2", "ac3", "libmp3lame", "libopus"),
         tuple(MPEG_RATES), begins=True, tick=Fraction(1, 90000), joins=True),
    Kind(".mpg", ("mpeg1", "mpeg2", "mpeg2b"), ("mp2", "ac3"), tuple(MPEG_RATES), tick=Fraction(1, 90000), joins=True),
    Kind(".avi", ("h264", "h264b", "mpeg4", "mpeg4b", "mjpeg", "ffv1", "huffyuv", "mpeg2"), ("pcm_s16le", "ac3")),
    Kind(".flv", ("h264", "h264b", "flv1"), ("aac",), variable=True, tick=MS),
    Kind(".wmv", ("wmv2", "mpeg4"), ("wmav2",), tick=MS),
    Kind(".mxf", ("mpeg2", "mpeg2b"), ("pcm_s16le",), (Fraction(24), Fraction(25), Fraction(30), NTSC)),
    Kind(".nut", ("h264", "mpeg4", "ffv1", "mjpeg"), ("flac", "pcm_s16le", "mp2"), variable=True, begins=True),
    Kind(".3gp", ("h264", "mpeg4"), ("aac",), bases=(1000, 90000)),
    Kind(".h264", ("h264", "h264b"), rates=(Fraction(25),)),
    Kind(".gif", ("gif",), rates=(Fraction(5), Fraction(10), Fraction(20), Fraction(25)), variable=True,
         tick=Fraction(1, 100)),
    Kind(".apng", ("apng",), rates=(Fraction(5), Fraction(10), Fraction(25))),
)  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """A second of the source as it is written, and the one that is meant: a frame's, or the very same."""

    written: str
    meant: Fraction


@dataclass(frozen=True)
class Shape:
    """How a displayed picture is stored."""

    turned: int = 0
    """Degrees clockwise by which players turn it."""
    aspect: Fraction = Fraction(1)
    """Width of a stored pixel, divided by its height."""
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, top, right and bottom that are not shown."""
    by_container: bool = False
    """Matroska's `PixelCrop` says so, not the codec's headers."""
    exif: bool = False
    """Every picture is a JPEG with EXIF."""


@dataclass(frozen=True)
class Track:
    """A track of sound, in seconds after the first frame."""

    codec: str
    layout: str
    rate: int
    begins: Fraction
    ends: Fraction

    @property
    def bursts(self) -> list[Fraction]:
        """When they begin."""
        ends = min(self.ends, Fraction(100))
        each = (Fraction(11, 100) + Fraction(31, 100) * n for n in range(40))
        return [time for time in each if self.begins + Fraction(3, 100) < time < ends - Fraction(3, 100)]


Rect = tuple[float, float, float, float]
WHOLE: Rect = (0.0, 0.0, float(DISPLAY[0]), float(DISPLAY[1]))


@dataclass(frozen=True)
class Key:
    """A keyframe: when, from which frame on or at which time, and where; `hold` and `cut` are ways to change."""

    time: Moment
    rect: Rect
    hold: bool = False


@dataclass(frozen=True)
class Camera:
    """What the keyframes file says."""

    keys: tuple[Key, ...]
    form: str
    rotation: float = 0.0
    segments: tuple[tuple[Moment, Moment, Fraction], ...] = ()
    trim: bool = False
    """The trim stands in the file and not on the command line."""


@dataclass(frozen=True)
class Case:
    """One of them."""

    seed: int
    kind: Kind
    codec: str
    rate: Fraction | None
    """Frames a second; None where frames stand unevenly long."""
    times: tuple[Fraction, ...]
    """Seconds after the first frame at which each is shown."""
    last: Fraction
    """Seconds that the last one is shown."""
    base: int | None
    offset: Fraction
    joint: int
    """Frames of the first of two recordings; 0 is one recording."""
    shape: Shape
    track: Track | None
    start: Moment | None
    end: Moment | None
    camera: Camera | None
    target: tuple[int, int]
    fit: str
    fps: Fraction | None
    """None is the source's."""
    until_video: bool
    output: str
    tick: Fraction = field(default=MS)

    def arguments(self, source: Path, folder: Path) -> list[str]:
        """The command line, without the program's name; writes the keyframes file."""
        args = ["upscale", str(source), "-o", str(folder / f"out{self.output}"), "--model", "lanczos"]
        args += ["--size", "{}x{}".format(*self.target), "--fit", self.fit, "--preset", "ultrafast", "--crf", "6"]
        args += ["--fps", "source" if self.fps is None else str(self.fps), "--progress", "none"]
        if self.until_video:
            args += ["--until", "video"]
        if self.camera is not None:
            args.insert(2, str(write_camera(self, folder)))
        if self.camera is None or not self.camera.trim:
            args += [a for flag, at in (("--start", self.start), ("--end", self.end)) if at for a in (flag, at.written)]
        return args


def write_camera(case: Case, folder: Path) -> Path:
    """The keyframes file, in the form that the case names."""
    camera = case.camera
    assert camera is not None
    unit, clock = {"percent": 100.0, "normalized": 1.0}.get(camera.form), 1000 if camera.form == "ms" else 1
    half = 0.5 if camera.form == "source" else 1.0
    across, down = (unit / DISPLAY[0], unit / DISPLAY[1]) if unit else (half, half)
    rows: list[dict[str, Any]] = []
    for key in camera.keys:
        x, y, w, h = key.rect
        row: dict[str, Any] = {"time": float(Fraction(key.time.written) * clock)}
        if camera.form == "frames":
            assert case.rate is not None
            row = {"frame": round(key.time.meant * case.rate)}
        row |= {"x": x * across, "y": y * down, "width": w * across, "height": h * down}
        rows.append(row | ({"ease": "hold"} if key.hold else {}))
    if camera.form == "csv":
        lines = ["time,x,y,width,height", *(",".join(repr(value) for value in row.values()) for row in rows)]
        return _written(folder / "camera.csv", "\n".join(lines) + "\n")
    if camera.form == "lines":
        return _written(folder / "camera.jsonl", "\n".join(json.dumps(row) for row in rows))
    if camera.form == "short":
        return _written(folder / "camera.json", json.dumps(rows))
    top: dict[str, Any] = {"keyframes": rows}
    if unit:
        top["units"] = camera.form
    if camera.form == "ms":
        top["time_unit"] = "ms"
    if camera.form == "frames":
        assert case.rate is not None
        top["fps"] = {NTSC: 29.97, Fraction(24000, 1001): 23.976, NTSC * 2: 59.94}.get(case.rate, float(case.rate))
    if camera.form == "source":
        top["source"] = {"width": DISPLAY[0] // 2, "height": DISPLAY[1] // 2}
    if camera.rotation:
        top["rotation"] = camera.rotation
    if camera.segments:
        top["segments"] = [
            {"start": float(a.written) * clock, "end": float(b.written) * clock, "speed": float(speed)}
            for a, b, speed in camera.segments
        ]
    if camera.trim:
        ends = {"start": case.start, "end": case.end}
        top["trim"] = {name: float(at.written) * clock for name, at in ends.items() if at}
    return _written(folder / "camera.json", json.dumps(top))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
