"""HDR as SDR: patches of known light come out as the ITU's formulas have them, to two codes.

The expected values are computed here, number by number, from the texts: BT.2100-2 tables 4 and 5 (PQ, HLG), BT.2408-7
table 1 (203 cd/m2 is reference white), BT.2390-11 clause 5.4.1 (EETF), BT.2407-0 clause 2 (matrix), BT.1886 (2.4).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type as SideData
from support.numbered import run, small_job, write_video

from keyscale.engine.choices import DynamicRange
from keyscale.engine.errors import InputError, UsageError
from keyscale.engine.job import Codec, Encoding
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.source.dolby_vision import dolby_vision_of

SIZE = (128, 64)
PQ, HLG = 16, 18
TO_SDR = Encoding(crf=2, preset="ultrafast", dynamic_range=DynamicRange.SDR)

BT2407 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
"""Linear BT.2020 -> BT.709: BT.2407-0 clause 2."""

SIGNALS = [
    (0.0, 0.0, 0.0), (0.25, 0.25, 0.25), (0.38, 0.38, 0.38), (0.5807, 0.5807, 0.5807),
    (0.75, 0.75, 0.75), (0.5, 0.42, 0.38), (0.4, 0.5, 0.45), (0.55, 0.5, 0.6),
]  # fmt: skip
"""R'G'B' in PQ or HLG: black, greys, the reference whites of both (58 % and 75 %), skin, foliage, a bright sky."""


def pq_light(signal: float) -> float:
    """cd/m2."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = signal ** (1 / m2)
    return float(10000 * (max(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def pq_signal(light: float) -> float:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (light / 10000) ** m1
    return float(((c1 + c2 * power) / (1 + c3 * power)) ** m2)


def hlg_light(signal: tuple[float, float, float]) -> list[float]:
    """cd/m2 on a display of 1000: inverse OETF, then the OOTF with a gamma of 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = [s * s / 3 if s <= 0.5 else (math.exp((s - c) / a) + b) / 12 for s in signal]
    luminance = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2]
    return [1000 * luminance**0.2 * value if luminance else 0.0 for value in scene]


def eetf(light: float, peak: float) -> float:
    top, white = pq_signal(peak), pq_signal(203)
    e1, most = pq_signal(light) / top, white / top
    knee = 1.5 * most - 0.5
    if e1 < knee:
        return light
    t = (e1 - knee) / (1 - knee)
    e2 = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return pq_light(e2 * top)


def sdr_of(signal: tuple[float, float, float], transfer: int, peak: float) -> list[float]:
    """R'G'B' in 0..1."""
    light = [pq_light(s) for s in signal] if transfer == PQ else hlg_light(signal)
    light = [min(value, peak) for value in light]
    brightest = max(light)
    gain = eetf(brightest, peak) / brightest / 203 if brightest > 0 else 0.0
    wide = [value * gain for value in light]
    linear = [sum(m * w for m, w in zip(row, wide, strict=True)) for row in BT2407]
    return [min(max(value, 0.0), 1.0) ** (1 / 2.4) for value in linear]


def ycc(rgb: list[float], kr: float, kb: float, bits: int) -> list[float]:
    """Limited code values: H.273 clause 8.3."""
    luma = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
    step = 2.0 ** (bits - 8)
    cb, cr = (rgb[2] - luma) / (2 * (1 - kb)), (rgb[0] - luma) / (2 * (1 - kr))
    return [(219 * luma + 16) * step, (224 * cb + 128) * step, (224 * cr + 128) * step]


def hdr_clip(path: Path, transfer: int, *, params: str = "", matrix: int = 9, primaries: int = 9) -> Path:
    """The patches side by side, without loss, at 10 bits."""
    frame = av.VideoFrame(*SIZE, "yuv420p10le")
    codes = np.array([ycc(list(signal), 0.2627, 0.0593, 10) for signal in SIGNALS])
    for number, plane in enumerate(frame.planes):
        values = np.zeros((plane.height, plane.line_size // 2), "<u2")
        values[:, : plane.width] = np.repeat(np.rint(codes[:, number]), plane.width // len(SIGNALS))
        plane.update(values.tobytes())
    return write_video(
        path,
        [frame] * 3,
        codec="libx265",
        options={"preset": "ultrafast", "x265-params": "log-level=error:lossless=1" + params},
        pixel_format="yuv420p10le",
        tags=(matrix, 1, primaries, transfer),
        # Checksums of Matroska's elements, which the tests below grow.
        container_options={"write_crc32": "0"} if path.suffix == ".mkv" else None,
    )


def middles(frame: av.VideoFrame) -> np.ndarray[Any, Any]:
    """Mean code values of the patches `(8, 3)`."""
    found = []
    for plane in frame.planes:
        dtype: Any = np.uint8 if frame.format.components[0].bits == 8 else np.dtype("<u2")
        values = np.frombuffer(bytes(plane), dtype).reshape(plane.height, -1)[:, : plane.width]
        each = values.reshape(plane.height, len(SIGNALS), -1)
        edge = each.shape[2] // 4
        found.append(each[:, :, edge:-edge].mean(axis=(0, 2)))
    return np.array(found).T


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def tags_of(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    return int(frame.colorspace), int(frame.color_range), int(frame.color_primaries), int(frame.color_trc)


MASTER = ":master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L({},50)"
SOURCES = {
    "PQ whose display is not told": (PQ, "", 1000.0),
    "PQ of 1000": (PQ, MASTER.format(10_000_000), 1000.0),
    "PQ of 4000": (PQ, MASTER.format(40_000_000), 4000.0),
    "HLG": (HLG, "", 1000.0),
    "HLG with a mastering display, which it does not go by": (HLG, MASTER.format(40_000_000), 1000.0),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("bits", [8, 10])
def test_patches(tmp_path: Path, name: str, bits: Any) -> None:
    transfer, params, peak = SOURCES[name]
    source = hdr_clip(tmp_path / "in.mp4", transfer, params=params)
    encoding = Encoding(crf=2, preset="ultrafast", dynamic_range=DynamicRange.SDR, bit_depth=None if bits == 8 else 10)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=encoding))
    wanted = np.array([ycc(sdr_of(signal, transfer, peak), 0.2126, 0.0722, bits) for signal in SIGNALS])
    frame = frames_of(result.path)[1]
    assert frame.format.name == ("yuv420p" if bits == 8 else "yuv420p10le")
    assert tags_of(frame) == (1, 1, 1, 1)
    np.testing.assert_allclose(middles(frame), wanted, atol=2 * 2.0 ** (bits - 8))


@pytest.mark.parametrize(("transfer", "signal"), [(PQ, 0.5807), (HLG, 0.75)])
def test_reference_white_and_grey(tmp_path: Path, transfer: int, signal: float) -> None:
    """203 cd/m2 by both (BT.2408 table 1). By hand, PQ(203) = 0.5807 and PQ(1000) = 0.7518: E1 = 0.7724, the knee at
    0.6586, T = 0.3333, E2 = 0.7388 -> PQ 0.5554 -> 159 cd/m2 -> (159 / 203) ** (1 / 2.4) = 0.903 -> luma 213.8.
    Black and the light of 26 cd/m2 (grey of 18 %, HLG 0.38, PQ 0.38) stay what they are: 0.4249 -> luma 109."""
    source = hdr_clip(tmp_path / "in.mp4", transfer)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=TO_SDR))
    luma = middles(frames_of(result.path)[0])[:, 0]
    assert luma[SIGNALS.index((signal,) * 3)] == pytest.approx(213.8, abs=1.5)
    assert luma[0] == pytest.approx(16, abs=1)
    assert luma[2] == pytest.approx(109, abs=1.5)


def test_brighter_than_the_peak_is_white_and_order_is_kept(tmp_path: Path) -> None:
    levels = np.linspace(0, 1, 8)
    frame = av.VideoFrame(*SIZE, "yuv420p10le")
    for plane, codes in zip(frame.planes, (64 + 876 * levels, np.full(8, 512), np.full(8, 512)), strict=True):
        values = np.zeros((plane.height, plane.line_size // 2), "<u2")
        values[:, : plane.width] = np.repeat(np.rint(codes), plane.width // 8)
        plane.update(values.tobytes())
    for transfer in (PQ, HLG):
        source = write_video(
            tmp_path / "in.mkv", [frame] * 2, codec="ffv1", pixel_format="yuv420p10le", tags=(9, 1, 9, transfer)
        )
        result = run(small_job(source, tmp_path / f"{transfer}.mp4", size=SIZE, encoding=TO_SDR))
        found = middles(frames_of(result.path)[0])
        assert (np.diff(found[:, 0]) >= -0.5).all()
        assert found[-1, 0] == pytest.approx(235, abs=1)
        assert np.abs(found[:, 1:] - 128).max() <= 1


def test_it_is_made_as_sdr_sources_are(tmp_path: Path) -> None:
    source = hdr_clip(tmp_path / "in.mp4", PQ, params=MASTER.format(10_000_000) + ":max-cll=1000,400")
    kept = prepare(small_job(source, tmp_path / "kept.mp4", size=SIZE)).plan
    assert (kept.tone, kept.encoder.encoder, kept.encoder.bit_depth) == (None, "libx265", 10)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=TO_SDR))
    assert (result.plan.encoder.encoder, result.plan.encoder.bit_depth) == ("libx264", 8)
    assert result.plan.warnings == ()
    for codec in (Codec.HEVC, Codec.AV1):
        encoding = Encoding(codec=codec, bit_depth=10, preset=None, dynamic_range=DynamicRange.SDR)
        again = run(small_job(source, tmp_path / f"{codec}.mp4", size=SIZE, encoding=encoding))
        frame = frames_of(again.path)[0]
        assert tags_of(frame) == (1, 1, 1, 1)
        # PyAV's stub types it by name; it is a mapping by kind.
        side: Any = frame.side_data
        assert side.get(SideData.MASTERING_DISPLAY_METADATA) is None
        assert side.get(SideData.CONTENT_LIGHT_LEVEL) is None


def test_sdr_sources_are_not_touched(tmp_path: Path) -> None:
    source = hdr_clip(tmp_path / "in.mp4", 14)
    results = []
    for kind in DynamicRange:
        encoding = Encoding(crf=2, preset="ultrafast", dynamic_range=kind)
        result = run(small_job(source, tmp_path / f"{kind}.mp4", size=SIZE, encoding=encoding))
        assert result.plan.tone is None
        results.append(middles(frames_of(result.path)[0]))
    np.testing.assert_array_equal(results[0], results[1])


def test_eight_bits_of_hdr_name_the_remedy(tmp_path: Path) -> None:
    source = hdr_clip(tmp_path / "in.mp4", HLG)
    with pytest.raises(UsageError) as caught:
        prepare(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=Encoding(bit_depth=8)))
    assert "dynamic-range sdr" in str(caught.value.remedy)


def test_a_real_hlg_clip(shared: Path, tmp_path: Path) -> None:
    source = shared / "clips" / "hlg_hevc10_1920x1080.mp4"
    result = run(small_job(source, tmp_path / "out.mp4", size=(96, 54), encoding=TO_SDR, end=0.2))
    frame = frames_of(result.path)[0]
    assert (frame.format.name, tags_of(frame)) == ("yuv420p", (1, 1, 1, 1))


# Dolby Vision


def record(profile: int, compatibility: int) -> bytes:
    """Version 1.0, level 6, with base layer and RPU."""
    bits = profile << 9 | 6 << 3 | 0b101
    return bytes([1, 0]) + bits.to_bytes(2, "big") + bytes([compatibility << 4]) + bytes(19)


def in_mp4(path: Path, profile: int, compatibility: int) -> Path:
    """The record as a box at the end of the sample entry; every box around it grows."""
    content = bytearray(path.read_bytes())
    name = b"dvcC" if profile <= 7 else b"dvvC"
    box = (8 + 24).to_bytes(4, "big") + name + record(profile, compatibility)
    entry = content.index(b"hev1") - 4
    end = entry + int.from_bytes(content[entry : entry + 4], "big")
    content[end:end] = box
    for around in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hev1"):
        start = content.index(around, 0, end) - 4
        size = int.from_bytes(content[start : start + 4], "big") + len(box)
        content[start : start + 4] = size.to_bytes(4, "big")
    path.write_bytes(content)
    return path


def in_transport_stream(path: Path, profile: int, compatibility: int) -> Path:
    """The record as a descriptor of the first stream in every program map, with a new checksum."""
    content = bytearray(path.read_bytes())
    descriptor = bytes([0xB0, 5]) + record(profile, compatibility)[:5]
    for place in range(0, len(content), 188):
        packet = content[place : place + 188]
        if not packet[1] & 0x40 or packet[3] & 0x20 or packet[4] != 0 or packet[5] != 2:
            continue
        length = int.from_bytes(packet[6:8], "big") & 0xFFF
        section = bytearray(packet[5 : 8 + length - 4])
        info = int.from_bytes(section[10:12], "big") & 0xFFF
        at = 12 + info + 3
        inner = int.from_bytes(section[at : at + 2], "big") & 0xFFF
        section[at + 2 + inner : at + 2 + inner] = descriptor
        section[at : at + 2] = (0xF000 | inner + len(descriptor)).to_bytes(2, "big")
        section[1:3] = (0xB000 | length + len(descriptor)).to_bytes(2, "big")
        whole = packet[:5] + section + crc32_mpeg(section).to_bytes(4, "big")
        content[place : place + 188] = whole + b"\xff" * (188 - len(whole))
    path.write_bytes(content)
    return path


def crc32_mpeg(data: bytearray) -> int:
    """ISO 13818-1 annex A."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def in_matroska(path: Path, profile: int, compatibility: int) -> Path:
    """The record as a BlockAdditionMapping at the beginning of the track's entry."""
    content = bytearray(path.read_bytes())
    name = b"dvcC" if profile <= 7 else b"dvvC"
    mapping = b"\x41\xe7\x84" + name + b"\x41\xed" + bytes([0x80 | 24]) + record(profile, compatibility)
    # The index of elements names it before.
    tracks = content.rindex(b"\x16\x54\xae\x6b", 0, content.index(b"\x1f\x43\xb6\x75", 300))
    width = 9 - content[tracks + 4].bit_length()
    entry = content.index(b"\xae", tracks + 4 + width)
    element = b"\x41\xe4" + bytes([0x80 | len(mapping)]) + mapping
    size_at = {"tracks": (tracks + 4, width), "entry": (entry + 1, 9 - content[entry + 1].bit_length())}
    begin = size_at["entry"][0] + size_at["entry"][1]
    for at, wide in size_at.values():
        size = int.from_bytes(content[at : at + wide], "big") + len(element)
        content[at : at + wide] = size.to_bytes(wide, "big")
    content[begin:begin] = element
    # The segment's own size: unknown, as in a recording.
    segment = content.index(b"\x18\x53\x80\x67") + 4
    content[segment : segment + 8] = b"\x01" + b"\xff" * 7
    path.write_bytes(content)
    return path


PUT = {".mp4": in_mp4, ".mov": in_mp4, ".ts": in_transport_stream, ".mkv": in_matroska}


@pytest.mark.parametrize("suffix", PUT)
@pytest.mark.parametrize("profile", [5, 10])
def test_a_picture_without_a_base_is_refused(tmp_path: Path, suffix: str, profile: int) -> None:
    source = PUT[suffix](hdr_clip(tmp_path / f"in{suffix}", 2, matrix=2, primaries=2), profile, 0)
    with pytest.raises(InputError, match=f"Dolby Vision of profile {profile}") as caught:
        prepare(small_job(source, tmp_path / "out.mp4", size=SIZE))
    assert "HDR10" in str(caught.value.remedy)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("suffix", PUT)
@pytest.mark.parametrize(("profile", "compatibility", "transfer"), [(8, 4, HLG), (8, 1, PQ), (7, 6, PQ), (10, 4, HLG)])
def test_a_base_is_used(tmp_path: Path, suffix: str, profile: int, compatibility: int, transfer: int) -> None:
    source = PUT[suffix](hdr_clip(tmp_path / f"in{suffix}", transfer), profile, compatibility)
    container = {".ts": "mpegts", ".mkv": "matroska,webm"}.get(suffix, "mov,mp4,m4a,3gp,3g2,mj2")
    found = dolby_vision_of(source, container, 0)
    assert found is not None
    assert (found.profile, found.compatibility, found.has_base) == (profile, compatibility, True)
    result = run(small_job(source, tmp_path / "out.mp4", size=SIZE, encoding=TO_SDR))
    wanted = np.array([ycc(sdr_of(signal, transfer, 1000.0), 0.2126, 0.0722, 8) for signal in SIGNALS])
    np.testing.assert_allclose(middles(frames_of(result.path)[1]), wanted, atol=2)


def test_other_files_have_no_record(tmp_path: Path) -> None:
    for suffix, container in ((".mp4", "mov,mp4"), (".ts", "mpegts"), (".mkv", "matroska,webm"), (".hevc", "hevc")):
        assert dolby_vision_of(hdr_clip(tmp_path / f"in{suffix}", PQ), container, 0) is None
