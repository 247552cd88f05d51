"""Videos whose headers declare what is not there: sizes, counts, rates, times beyond all bounds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.video.stream import VideoStream

from tools.torture.material import KINDS, make_video, picture
from tools.torture.structure import boxes, element, patch_box, unsigned

__all__ = ["HostileVideo", "hostile_videos", "png"]

HUGE = 65_535
FULL = 2**32 - 1
START_CODE = b"\x00\x00\x00\x01"


@dataclass(frozen=True, kw_only=True)
class HostileVideo:
    """A file to be written, and how the command has to end."""

    name: str
    suffix: str
    content: bytes
    refused: str | None = None
    """Where it has to be refused: a pattern of the message. Else a verified result is right as well."""
    flags: tuple[str, ...] = ()
    peak_mib: int = 512
    seconds: float = 60.0


def _u32(value: int) -> bytes:
    return struct.pack(">I", value)


# MP4


def _mp4(base: bytes) -> Iterator[HostileVideo]:
    def made(name: str, content: bytes, *, refused: str | None = None, flags: tuple[str, ...] = ()) -> HostileVideo:
        return HostileVideo(name=f"mp4: {name}", suffix=".mp4", content=content, refused=refused, flags=flags)

    def patched(*patches: tuple[bytes, int, bytes]) -> bytes:
        content = base
        for box, offset, value in patches:
            content = patch_box(content, box, offset, value)
        return content

    huge = struct.pack(">HH", HUGE, HUGE)
    yield made("track of 65535x65535", patched((b"tkhd", 76, _u32(HUGE << 16) * 2)))
    yield made("sample entry of 65535x65535", patched((b"avc1", 24, huge)))
    for count in (2**31, FULL, 170_000_000):
        for size in (0, 1, 1000):
            yield made(f"{count} frames of {size} bytes", patched((b"stsz", 4, _u32(size) + _u32(count))))
            yield made(
                f"{count} frames of {size} bytes in one chunk",
                patched(
                    (b"stsz", 4, _u32(size) + _u32(count)),
                    (b"stsc", 4, _u32(1) + _u32(1) + _u32(count)),
                    (b"stts", 4, _u32(1) + _u32(count) + _u32(512)),
                ),
            )
    for box in (b"stts", b"ctts", b"stsc", b"stco", b"elst", b"stss", b"stsd", b"dref"):
        for count in (2**31 - 1, FULL):
            yield made(f"{count} entries of {box.decode()}", patched((box, 4, _u32(count))))
    yield made("2^31 frames of one duration", patched((b"stts", 8, _u32(2**31))))
    for value in (0, 1, 2**31 - 1, FULL):
        yield made(f"a duration of {value} for each frame", patched((b"stts", 12, _u32(value))))
        yield made(f"a movie clock of {value}", patched((b"mvhd", 12, _u32(value))))
        yield made(f"a track clock of {value}", patched((b"mdhd", 12, _u32(value))))
        yield made(f"a movie of {value} ticks", patched((b"mvhd", 16, _u32(value)), (b"mdhd", 16, _u32(value))))
        yield made(f"an edit that lasts {value}", patched((b"elst", 8, _u32(value))))
        yield made(f"an edit from {value}", patched((b"elst", 12, _u32(value))))
        yield made(f"an edit at the rate {value}", patched((b"elst", 16, _u32(value))))
    yield made("4 thousand million frames a second", patched((b"mdhd", 12, _u32(FULL)), (b"stts", 12, _u32(1))))
    yield made(
        "one frame in 68 years",
        patched((b"mdhd", 12, _u32(1)), (b"stts", 12, _u32(2**31 - 1))),
        refused="output frames|frames",
    )
    yield made(
        "the same, 30 a second",
        patched((b"mdhd", 12, _u32(1)), (b"stts", 12, _u32(2**31 - 1))),
        refused="frames",
        flags=("--fps", "30"),
    )
    yield made(
        "the same, but a second of it",
        patched((b"mdhd", 12, _u32(1)), (b"stts", 12, _u32(2**31 - 1))),
        flags=("--fps", "30", "--end", "1"),
    )
    for matrix in ((0, 0, 0, 0), (-(2**31), 0, 0, -(2**31)), (2**31 - 1, 1, 1, 2**31 - 1), (0, 1, 1, 0)):
        a, b, c, d = matrix
        yield made(f"a matrix of {matrix}", patched((b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))))
    for box in (b"ftyp", b"moov", b"trak", b"mdat", b"stsd", b"avc1", b"avcC", b"udta"):
        found = next((part for part in boxes(base) if part.name == box), None)
        for size in (0, 1, 7, 2**31, FULL):
            if found is not None:
                content = base[: found.start] + _u32(size) + base[found.start + 4 :]
                yield made(f"{box.decode()} of {size} bytes", content)
    deep = b""
    for _ in range(10_000):
        deep = struct.pack(">I4s", len(deep) + 8, b"moov") + deep
    yield made("boxes 10000 deep", base[:32] + deep + base[32:])
    yield made("100 000 tracks", base + b"".join([struct.pack(">I4s", 8, b"trak")] * 100_000))


# Matroska


def _jpeg(size: tuple[int, int]) -> bytes:
    context = av.CodecContext.create("mjpeg", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt, context.time_base = "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(0, size), format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))


def _matroska(
    frame: bytes,
    *,
    codec: bytes = b"V_MJPEG",
    size: tuple[int, int] = (64, 48),
    display: tuple[int, int] | None = None,
    scale: int = 1_000_000,
    duration: bytes | None = None,
    step: int | None = None,
    clusters: tuple[int, ...] = (0, 40, 80),
    more: bytes = b"",
) -> bytes:
    video = unsigned(0xB0, size[0]) + unsigned(0xBA, size[1])
    if display is not None:
        video += unsigned(0x54B0, display[0]) + unsigned(0x54BA, display[1])
    track = unsigned(0xD7, 1) + unsigned(0x73C5, 1) + unsigned(0x83, 1) + element(0x86, codec) + element(0xE0, video)
    if step is not None:
        track += unsigned(0x23E383, step)
    info = unsigned(0x2AD7B1, scale) + (element(0x4489, duration) if duration is not None else b"")
    blocks = [
        element(0x1F43B675, unsigned(0xE7, time), element(0xA3, b"\x81\x00\x00\x80" + frame)) for time in clusters
    ]
    head = element(0x1A45DFA3, element(0x4282, b"matroska"))
    return head + element(
        0x18538067, element(0x1549A966, info), element(0x1654AE6B, element(0xAE, track + more)), *blocks
    )


def _mkv() -> Iterator[HostileVideo]:
    frame = _jpeg((64, 48))

    def made(name: str, content: bytes, *, refused: str | None = None, flags: tuple[str, ...] = ()) -> HostileVideo:
        return HostileVideo(name=f"mkv: {name}", suffix=".mkv", content=content, refused=refused, flags=flags)

    yield made("nothing odd", _matroska(frame))
    for side in (HUGE, 2**31 - 1, 2**63):
        yield made(f"a track of {side} by {side}", _matroska(frame, size=(side, side)))
        yield made(f"displayed {side} times as wide as high", _matroska(frame, display=(side, 1)))
        yield made(f"displayed {side} times as high as wide", _matroska(frame, display=(1, side)))
    for value in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield made(f"a clock of {value} ns", _matroska(frame, scale=value))
        yield made(f"frames of {value} ns", _matroska(frame, step=value))
        yield made(f"a frame at tick {value}", _matroska(frame, clusters=(0, 40, value)))
        yield made(f"first of all a frame at tick {value}", _matroska(frame, clusters=(value, value + 40, value + 80)))
    for text, number in (("no number", float("nan")), ("infinite", float("inf")), ("1e300", 1e300), ("-1", -1.0)):
        yield made(f"a duration that is {text}", _matroska(frame, duration=struct.pack(">d", number)))
    yield made("a frame 35 years later", _matroska(frame, clusters=(0, 40, 2**40)), refused="frames")
    yield made("a frame 35 years later, kept short", _matroska(frame, clusters=(0, 40, 2**40)), flags=("--end", "1"))
    yield made("a frame five minutes later", _matroska(frame, clusters=(0, 40, 300_000)), flags=("--fps", "30"))
    sizes = ((HUGE, HUGE), (16_384, 16_384), (2**24, 2**24))
    for size in sizes:
        yield made(
            f"raw pictures of {size[0]}x{size[1]}",
            _matroska(bytes(1000), codec=b"V_UNCOMPRESSED", size=size, more=element(0x56AA, b"I420")),
        )
    yield made(
        "a codec's data of 2^40 bytes", _matroska(frame, more=b"\x63\xa2\x01\x00\x01\x00\x00\x00\x00\x00" + bytes(64))
    )
    for name, at in (("VP8", _vp8(16_383)), ("VP9", _vp9(65_536))):
        yield made(f"{name} pictures as large as it can say", _matroska(at, codec=f"V_{name}".encode()))


# Pictures and elementary streams


def _vp8(side: int) -> bytes:
    tag = (0 << 0) | (0 << 1) | (1 << 4) | (100 << 5)
    return struct.pack("<I", tag)[:3] + b"\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(200)


def _vp9(side: int) -> bytes:
    bits = "10" + "00" + "0" + "0" + "1" + "0" + f"{0x498342:024b}" + "001" + "0"
    bits += f"{side - 1:016b}" * 2 + "0" + "0" * 40
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return int(bits, 2).to_bytes(len(bits) // 8, "big") + bytes(200)


def png(width: int, height: int, rows: int) -> bytes:
    """A black PNG that declares `width` x `height` grey pixels and holds the first `rows` rows of them."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 + width)) for _ in range(rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _exp_golomb(value: int) -> str:
    text = f"{value + 1:b}"
    return "0" * (len(text) - 1) + text


def _sps(side: int) -> bytes:
    """A sequence of H.264 Baseline with pictures of `side` x `side` pixels."""
    blocks = side // 16 - 1
    bits = f"{66:08b}" + "0" * 8 + f"{62:08b}" + _exp_golomb(0) + _exp_golomb(0) + _exp_golomb(2) + _exp_golomb(1) + "0"
    bits += _exp_golomb(blocks) * 2 + "1" + "1" + "0" + "0" + "1"
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return START_CODE + b"\x67" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _h264(side: int, after: int) -> bytes:
    """A transport stream of H.264 whose pictures, from number `after` on, are said to be of another size."""
    made = io.BytesIO()
    with av.open(made, "w", format="mpegts") as out:
        options = {"g": "1", "profile": "baseline", "preset": "ultrafast"}
        stream = out.add_stream("libx264", rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets: list[Packet[Any]] = []
        for number in range(24):
            packets += stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24"))
        packets += stream.encode(None)
        for number, packet in enumerate(packets):
            told = packet
            if number >= after:
                units = bytes(packet).split(START_CODE)
                told = Packet(b"".join(_sps(side) if unit[:1] == b"\x67" else START_CODE + unit for unit in units[1:]))
                told.stream, told.pts, told.dts, told.time_base = stream, packet.pts, packet.dts, packet.time_base
                told.is_keyframe = packet.is_keyframe
            out.mux(told)
    return made.getvalue()


def _pictures() -> Iterator[HostileVideo]:
    def made(
        name: str, suffix: str, content: bytes, *, refused: str | None = None, peak_mib: int = 512
    ) -> HostileVideo:
        return HostileVideo(name=name, suffix=suffix, content=content, refused=refused, peak_mib=peak_mib, seconds=180)

    declared = "16384x16384|can be decoded|cannot be read|can be read|no video"
    yield made("PNG of 65535x65535", ".png", png(HUGE, HUGE, 16), refused=declared)
    yield made("PNG of 2^31 by 1", ".png", png(2**31 - 1, 1, 0), refused=declared)
    yield made("PNG of 16384x16384, all there", ".png", png(16_384, 16_384, 16_384), refused=declared)
    yield made("PNG of 16000x16000, all there", ".png", png(16_000, 16_000, 16_000), peak_mib=4096)
    yield made("PNG of 8192x8192, all there", ".png", png(8192, 8192, 8192), peak_mib=4096)
    gif = (
        b"GIF89a"
        + struct.pack("<HH", HUGE, HUGE)
        + b"\x80\x00\x00"
        + b"\x00\x00\x00\xff\xff\xff"
        + b","
        + struct.pack("<HHHH", 0, 0, HUGE, HUGE)
        + b"\x00"
        + b"\x02\x02\x4c\x01\x00"
        + b";"
    )
    yield made("GIF of 65535x65535", ".gif", gif, refused=declared)
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 2**31 - 1, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, HUGE, HUGE, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(100)
    )
    yield made("BMP of 65535x65535", ".bmp", bmp, refused=declared)
    whole = _jpeg((64, 48))
    at = whole.index(b"\xff\xc0") + 5
    yield made(
        "JPEG of 65535x65535",
        ".jpg",
        whole[:at] + struct.pack(">HH", 65_500, 65_500) + whole[at + 4 :],
        refused=declared,
    )
    yield made(
        "Y4M of 65535x65535", ".y4m", b"YUV4MPEG2 W65535 H65535 F25:1 C420\nFRAME\n" + bytes(10_000), refused=declared
    )
    yield made(
        "Y4M of 2^31 frames a second",
        ".y4m",
        b"YUV4MPEG2 W64 H48 F2147483647:1 C420\n" + (b"FRAME\n" + bytes(64 * 72)) * 5,
    )
    yield made(
        "Y4M of 2^-31 frames a second",
        ".y4m",
        b"YUV4MPEG2 W64 H48 F1:2147483647 C420\n" + (b"FRAME\n" + bytes(64 * 72)) * 5,
        refused="frames",
    )
    ivf = b"DKIF" + struct.pack("<HH4sHHIIII", 0, 32, b"VP80", HUGE, HUGE, FULL, 1, FULL, 0)
    yield made("IVF of 65535x65535 and 2^32 frames", ".ivf", ivf + struct.pack("<IQ", 210, 0) + _vp8(16_383))
    for side in (8192, 16_000, 16_384, HUGE + 1):
        for after in (0, 20):
            name = f"H.264 of {side}x{side} from picture {after} on"
            yield made(name, ".ts", _h264(side, after), peak_mib=4096)


def _avi(base: bytes) -> Iterator[HostileVideo]:
    def patched(name: bytes, offset: int, value: bytes) -> bytes:
        at = base.index(name) + 8 + offset
        return base[:at] + value + base[at + len(value) :]

    for what, name, offset in (
        ("2^32 frames in the head", b"avih", 16), ("2^32 frames of a stream", b"strh", 32),
        ("a rate of 2^32", b"strh", 24), ("a scale of 2^32", b"strh", 20), ("2^32 streams", b"avih", 24),
        ("a start at 2^32", b"strh", 28), ("samples of 2^32 bytes", b"strh", 44),
    ):  # fmt: skip
        yield HostileVideo(name=f"avi: {what}", suffix=".avi", content=patched(name, offset, b"\xff" * 4))
    for offset, what in ((20, "a scale of 0"), (24, "a rate of 0")):
        yield HostileVideo(name=f"avi: {what}", suffix=".avi", content=patched(b"strh", offset, bytes(4)))
    sides = struct.pack("<ii", HUGE, HUGE)
    yield HostileVideo(name="avi: 65535x65535", suffix=".avi", content=patched(b"strf", 4, sides))
    raw = patched(b"strf", 4, sides)
    at = raw.index(b"strf") + 8 + 16
    raw = raw[:at] + bytes(4) + raw[at + 4 :]
    at = raw.index(b"strh") + 12
    raw = raw[:at] + b"DIB " + raw[at + 4 :]
    yield HostileVideo(name="avi: raw pictures of 65535x65535", suffix=".avi", content=raw)


def hostile_videos(scratch: Path) -> list[HostileVideo]:
    """All of them; `scratch` is a folder to work in."""
    mp4 = make_video(scratch / "base.mp4", KINDS[0]).read_bytes()
    avi = make_video(scratch / "base.avi", KINDS[5]).read_bytes()
    return [*_mp4(mp4), *_mkv(), *_pictures(), *_avi(avi)]
