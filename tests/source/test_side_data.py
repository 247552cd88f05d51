"""Side data of kinds that PyAV does not know is no obstacle, and what viewers may miss of it is told."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.boxes import add_to_entry, box
from support.clips import make_clip
from support.embedded import exif, in_jpeg
from support.numbered import numbered, numbers, run, shown, small_job, write_video

from keyscale.engine.source.probe import probe

SIZE = (64, 48)


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
            copy = av.Packet(in_jpeg(bytes(packet)))
            copy.pts = copy.dts = packet.pts
            copy.time_base, copy.duration, copy.is_keyframe, copy.stream = (
                packet.time_base,
                packet.duration,
                True,
                stream,
            )
            assert number < 10
            out.mux(copy)
    assert shown(run(small_job(path, tmp_path / "out.mp4")).path) == list(range(10))


def with_sei(source: Path, path: Path, payload_type: int, payload: bytes, *, first: int = 0) -> Path:
    """H.264 with a message of supplemental enhancement information before each picture from number `first` on."""
    nal = bytes([6, payload_type, len(payload)]) + payload + b"\x80"
    with av.open(source) as given, av.open(path, "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if packet.size:
                message = struct.pack(">I", len(nal)) + nal if number >= first else b""
                copy = av.Packet(message + bytes(packet))
                copy.pts, copy.dts, copy.time_base, copy.duration = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    packet.duration,
                )
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                out.mux(copy)
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
