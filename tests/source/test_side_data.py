"""Side data of kinds that PyAV does not know is no obstacle, and what viewers may miss of it is told."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.boxes import add_to_entry, box
from support.clips import make_clip
from support.embedded import exif, in_jpeg
from support.numbered import grey, numbered, numbers, run, shown, small_job, write_video

from keyscale.engine.source.probe import probe

SIZE = (64, 48)


def with_content(packet: Any, content: bytes, stream: Any) -> Any:
    """A packet of `stream` at the place of another one, with other content."""
    copy = av.Packet(content)
    copy.pts, copy.dts, copy.time_base, copy.duration = packet.pts, packet.dts, packet.time_base, packet.duration
    copy.is_keyframe, copy.stream = packet.is_keyframe, stream
    return copy


def in_png(picture: bytes) -> bytes:
    chunk = b"eXIf" + exif()
    place = picture.index(b"IDAT") - 4
    return (
        picture[:place]
        + struct.pack(">I", len(exif()))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + picture[place:]
    )


def still(path: Path, codec: str, pixel_format: str) -> Path:
    """Number 5 as one picture."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt, context.time_base = *SIZE, pixel_format, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(numbered(5, SIZE), format="rgb24").reformat(format=pixel_format)
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
    return path


def test_a_jpeg_with_exif(tmp_path: Path) -> None:
    path = still(tmp_path / "a.jpg", "mjpeg", "yuvj420p")
    path.write_bytes(in_jpeg(path.read_bytes()))
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == [5]


def test_a_jpeg_that_is_turned_by_exif(tmp_path: Path) -> None:
    path = still(tmp_path / "a.jpg", "mjpeg", "yuvj420p")
    path.write_bytes(in_jpeg(path.read_bytes(), orientation=6))
    info = probe(path)
    assert (info.width, info.height) == (48, 64)


def test_a_png_with_exif(tmp_path: Path) -> None:
    path = still(tmp_path / "a.png", "png", "rgb24")
    path.write_bytes(in_png(path.read_bytes()))
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == [5]


def test_a_tiff(tmp_path: Path) -> None:
    path = still(tmp_path / "a.tiff", "tiff", "rgb24")
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == [5]


@pytest.mark.parametrize("suffix", [".avi", ".mov", ".mkv"])
def test_motion_jpeg_with_exif_in_every_frame(tmp_path: Path, suffix: str) -> None:
    plain = write_video(
        tmp_path / f"plain{suffix}", numbers(10), codec="mjpeg", pixel_format="yuvj420p", tags=(5, 2, 2, 2)
    )
    path = tmp_path / f"exif{suffix}"
    with av.open(plain) as source, av.open(path, "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            assert number < 10
            out.mux(with_content(packet, in_jpeg(bytes(packet)), stream))
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == list(range(10))


def with_sei(
    source: Path, path: Path, payload_type: int, payload: bytes, *, first: int = 0, last: int = 1 << 30
) -> Path:
    """H.264 with a message (supplemental enhancement information) before the pictures `first` to `last`."""
    nal = bytes([6, payload_type, len(payload)]) + payload + b"\x80"
    with av.open(source) as given, av.open(path, "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if packet.size:
                message = struct.pack(">I", len(nal)) + nal if first <= number < last else b""
                out.mux(with_content(packet, message + bytes(packet), stream))
    return path


def test_lcevc_is_passed_over(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mp4", frames=6, rate=25, size=SIZE)
    path = with_sei(plain, tmp_path / "lcevc.mp4", 4, b"\xb4\x00\x50" + bytes(range(1, 17)))
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == list(range(6))


def test_captions_in_the_picture_are_told_of(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mp4", frames=6, rate=25, size=SIZE)
    # ATSC A/53 part 4: one pair of CEA-608, "resume caption loading".
    captions = b"\xb5\x00\x31GA94\x03" + bytes([0xC1, 0xFF, 0xFC, 0x94, 0x2C]) + b"\xff"
    path = with_sei(plain, tmp_path / "cc.mp4", 4, captions)
    assert any("closed captions" in note and "left out" in note for note in probe(path).notes)
    assert not any("captions" in note for note in probe(plain).notes)


CC = b"\xb5\x00\x31GA94\x03" + bytes([0xC1, 0xFF, 0xFC, 0x94, 0x2C]) + b"\xff"


def told(path: Path) -> list[str]:
    return [note for note in probe(path).notes if "left out" in note]


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_captions_that_begin_late_are_told_of(tmp_path: Path, suffix: str) -> None:
    """Of the first frames alone nobody was told."""
    plain = make_clip(tmp_path / "plain.mp4", frames=40, rate=25, size=SIZE)
    late = with_sei(plain, tmp_path / f"cc{suffix}", 4, CC, first=30)
    assert [note for note in told(late) if "closed captions" in note]
    assert not told(plain)


@pytest.mark.parametrize(("active", "expected"), [(8, []), (10, ["(AFD) is left out"])])
def test_the_active_part_of_the_picture_is_told_of(tmp_path: Path, active: int, expected: list[str]) -> None:
    plain = make_clip(tmp_path / "plain.mp4", frames=6, rate=25, size=SIZE)
    path = with_sei(plain, tmp_path / "afd.mp4", 4, b"\xb5\x00\x31DTG1" + bytes([0x41, 0xF0 | active]))
    assert [note[-len("(AFD) is left out") :] for note in told(path)] == expected


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("in.mov", "qtrle", "argb"),
        ("in.mov", "prores_ks", "yuva444p10le"),
        ("in.mkv", "ffv1", "bgra"),
        ("in.png", "png", "rgba"),
    ],
)
@pytest.mark.parametrize("opacity", [128, 255])
def test_transparency_is_told_of(tmp_path: Path, name: str, codec: str, pixel_format: str, opacity: int) -> None:
    picture = np.full((48, 64, 4), (200, 100, 50, opacity), np.uint8)
    picture[:24, :, 3] = 255
    path = tmp_path / name
    with av.open(path, "w", format="image2" if name.endswith("png") else None) as out:
        stream = out.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pixel_format)))
        out.mux(stream.encode(None))
    assert bool([note for note in told(path) if "transparency" in note]) == (opacity < 255)


def test_spherical_and_stereoscopic_pictures_are_told_of(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mp4", frames=6, rate=25, size=SIZE)
    stereo = box(b"st3d", bytes([0, 0, 0, 0, 2]))  # side by side
    projection = box(b"proj", box(b"prhd", bytes(16)) + box(b"equi", bytes(20)))
    spherical = box(b"sv3d", box(b"svhd", b"\0\0\0\0test\0") + projection)
    path = tmp_path / "sphere.mp4"
    path.write_bytes(add_to_entry(plain.read_bytes(), b"vide", stereo + spherical))
    notes = probe(path).notes
    assert any("spherical" in note for note in notes)
    assert any("stereoscopic" in note for note in notes)
    assert np.array_equal(shown(run(small_job(path, tmp_path / "out.mp4")).path), range(6))


def orientation(degrees: int) -> bytes:
    """Display orientation (H.264, D.1.27): anticlockwise, repeated with every picture."""
    bits = "000" + f"{round(degrees * 65536 / 360):016b}" + "010" + "0" + "1"
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize(("before", "after"), [(0, 180), (180, 0), (180, 180)])
def test_an_orientation_that_changes_in_mid_stream_is_followed(tmp_path: Path, before: int, after: int) -> None:
    """The second half was upside down."""
    turned = [before] * 10 + [after] * 10
    pictures = [
        picture[::-1, ::-1].copy() if degrees else picture for picture, degrees in zip(numbers(20), turned, strict=True)
    ]
    plain = write_video(tmp_path / "plain.mp4", pictures, options={"g": "10"})
    first = with_sei(plain, tmp_path / "first.mp4", 47, orientation(before), last=10)
    path = with_sei(first, tmp_path / "in.mp4", 47, orientation(after), first=10)
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == list(range(20))
    again = run(small_job(path, tmp_path / "cut.mp4", start=0.44))
    assert shown(again.path) == list(range(11, 20))


def test_a_quarter_turn_in_mid_stream_keeps_the_canvas(tmp_path: Path) -> None:
    white = np.full((48, 64, 3), 255, np.uint8)
    plain = write_video(tmp_path / "plain.mp4", [white] * 20, options={"g": "10"})
    path = with_sei(plain, tmp_path / "in.mp4", 47, orientation(90), first=10)
    pictures = list(grey(run(small_job(path, tmp_path / "out.mp4")).path))
    assert all(picture[24].min() > 200 for picture in pictures[:10])
    for picture in pictures[10:]:
        lit = np.flatnonzero(picture[24] > 128)
        # 48 x 64 within 64 x 48: 36 columns in the middle.
        assert (lit[0], lit[-1]) == (14, 49)


def hdr10_plus() -> bytes:
    """ITU-T T.35 of ST 2094-40: one window, no curve."""
    bits = (
        "10110101" + f"{0x3C:016b}" + f"{1:016b}" + f"{4:08b}" + f"{1:08b}" + "01" + f"{400:027b}" + "0"
        + 3 * f"{1000:017b}" + f"{500:017b}" + "0000" + f"{0:010b}" + "0" + "0" + "0"
    )  # fmt: skip
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def hevc_with_sei(source: Path, path: Path, payload: bytes, *, nal_type: int = 39) -> Path:
    """HEVC with a message, or another unit, before each picture."""
    unit = bytes([nal_type << 1, 1]) + payload
    with av.open(source) as given, av.open(path, "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                head, tail = (struct.pack(">I", len(unit)) + unit, b"") if nal_type == 39 else (b"", unit)
                content = head + bytes(packet) + (struct.pack(">I", len(tail)) + tail if tail else b"")
                out.mux(with_content(packet, content, stream))
    return path


def hdr_plain(path: Path) -> Path:
    options = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0:pools=1"}
    return write_video(
        path, numbers(6), codec="libx265", options=options, pixel_format="yuv420p10le", tags=(9, 1, 9, 16)
    )


def test_hdr10_plus_is_told_of(tmp_path: Path) -> None:
    plain = hdr_plain(tmp_path / "plain.mp4")
    payload = hdr10_plus()
    message = bytes([4, len(payload)]) + payload + b"\x80"
    path = hevc_with_sei(plain, tmp_path / "in.mp4", message)
    assert any("HDR10+" in note for note in told(path))
    assert not told(plain)


def test_dolby_vision_of_each_scene_is_told_of(tmp_path: Path) -> None:
    """An RPU is a unit of type 62 behind the picture; what it holds need not be understood."""
    plain = hdr_plain(tmp_path / "plain.mp4")
    path = hevc_with_sei(plain, tmp_path / "in.mp4", b"\x19" + bytes(range(1, 40)), nal_type=62)
    assert [note for note in told(path) if "Dolby Vision" in note]
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == list(range(6))


def icc_png(picture: bytes, profile: bytes) -> bytes:
    chunk = b"iCCP" + b"name\0\0" + zlib.compress(profile)
    place = picture.index(b"IDAT") - 4
    sized = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return picture[:place] + sized + picture[place:]


def icc_jpeg(picture: bytes, profile: bytes) -> bytes:
    content = b"ICC_PROFILE\0\x01\x01" + profile
    return picture[:2] + b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content + picture[2:]


@pytest.mark.parametrize("described", [b"Display P3", b"Adobe RGB (1998)", b"sRGB IEC61966-2.1"])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_colour_profile_is_told_of(tmp_path: Path, kind: str, described: bytes) -> None:
    """sRGB is what pictures without a profile are taken for."""
    path = still(tmp_path / f"in.{kind}", *(("png", "rgb24") if kind == "png" else ("mjpeg", "yuvj420p")))
    assert not told(path)
    # ICC.1:2022, 7.2: 128 bytes of header with the signature "acsp", then tags.
    profile = bytes(36) + b"acsp" + bytes(88) + struct.pack(">I", 0) + described
    path.write_bytes((icc_png if kind == "png" else icc_jpeg)(path.read_bytes(), profile))
    assert bool([note for note in told(path) if "colour profile" in note]) == (not described.startswith(b"sRGB"))
