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


def with_sei(source: Path, path: Path, payload_type: int, payload: bytes) -> Path:
    """An H.264 MP4 with a message of supplemental enhancement information before every picture."""
    nal = bytes([6, payload_type, len(payload)]) + payload + b"\x80"
    with av.open(source) as given, av.open(path, "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                copy = av.Packet(struct.pack(">I", len(nal)) + nal + bytes(packet))
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
