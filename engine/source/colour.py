"""Exact colour: decoded frames -> RGB arrays -> encoder frames, by the source's own matrix and range.

Code points are those of ITU-T H.273, as FFmpeg's `AVColorSpace`, `AVColorPrimaries` and
`AVColorTransferCharacteristic` number them. Conversions are swscale's, told everything explicitly: its defaults
are BT.601 limited, 24 code values off for BT.709.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from keyscale.engine.source.frame_filters import with_chroma_location

__all__ = ["Colour", "PixelArray", "colour_of_frame", "from_rgb", "guess_matrix", "to_rgb", "yuv_to_rgb"]

PixelArray = npt.NDArray[np.unsignedinteger[Any]]
"""RGB pixels `(H, W, 3)`: uint8 in 0..255, or uint16 in 0..65535."""

PIECE = 8192
"""Rows of a product; OpenBLAS shares out what has more than 262,144 multiplications."""

UNSPECIFIED = 2
RGB_MATRIX = 0
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18
BT2020 = 9
"""Of a matrix and of primaries."""
LEFT, CENTRE, TOP_LEFT = 1, 2, 3
"""`AVChromaLocation`: where a chroma sample lies among the luma samples that share it."""

MATRIX_NAMES = {
    0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020c",
}  # fmt: skip
TRANSFER_NAMES = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "iec61966-2-4",
    13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", PQ: "smpte2084", HLG: "arib-std-b67",
}  # fmt: skip

SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""H.273 matrix -> swscale's `SWS_CS_*` number; BT.601's two names share one."""

LUMA_WEIGHTS = {
    1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593),
}  # fmt: skip
"""H.273 table 4: matrix -> (K_R, K_B)."""

# Chroma is filtered bicubically at full resolution and rounded, not truncated.
SWS_FLAGS = int(
    av.video.reformatter.Interpolation.BICUBIC
    | av.video.reformatter.Interpolation.ACCURATE_RND
    | av.video.reformatter.Interpolation.FULL_CHR_H_INT
    | av.video.reformatter.Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True, kw_only=True)
class Colour:
    """How code values of a stream stand for colour. Never unspecified in matrix and range."""

    matrix: int
    full_range: bool
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    assumed: bool = False
    """True where the stream names no matrix and `guess_matrix` chose it."""
    chroma_location: int = 0
    """Where chroma samples lie, `AVChromaLocation`; 0: frames that are read say it themselves, and those that are
    written have it where `usual_chroma_location` says."""

    @property
    def hdr(self) -> Literal["pq", "hlg"] | None:
        """The HDR transfer function, if it is one."""
        return "pq" if self.transfer == PQ else "hlg" if self.transfer == HLG else None

    def describe(self) -> str:
        """Words for people, such as `bt709 limited`."""
        words = [MATRIX_NAMES.get(self.matrix, str(self.matrix)), "full" if self.full_range else "limited"]
        if self.hdr:
            words.append(TRANSFER_NAMES[self.transfer])
        if self.assumed:
            words.append("(assumed)")
        return " ".join(words)

    def encoded(self, codec: str) -> Colour:
        """The colour of a result made from this source: the same, but Y'CbCr where the source is RGB.

        ProRes has no place to say that a picture is of full range: its results are limited.
        """
        if self.matrix == RGB_MATRIX:
            colour = Colour(matrix=1, full_range=False, primaries=self.primaries, transfer=self.transfer)
        else:
            colour = replace(self, full_range=False) if codec == "prores" else self
        return replace(colour, chroma_location=usual_chroma_location(colour.matrix, colour.primaries))


def guess_matrix(height: int) -> int:
    """The matrix players assume for untagged video: BT.709 from 720 lines up, else BT.601."""
    return 1 if height >= 720 else 6


def usual_chroma_location(matrix: int, primaries: int) -> int:
    """Where the chroma of a stream lies that does not say: top left in BT.2020 (its table 4), else left."""
    return TOP_LEFT if BT2020 in {matrix, primaries} else LEFT


def colour_of_frame(frame: av.VideoFrame, first: Colour) -> Colour:
    """The colour of one frame of a stream: what it says of itself, and for the rest what held for the first one."""
    matrix, value_range = int(frame.colorspace), int(frame.color_range)
    if frame.format.is_rgb or frame.format.has_palette:
        return first if first.matrix == RGB_MATRIX else replace(first, matrix=RGB_MATRIX, full_range=True)
    if matrix not in LUMA_WEIGHTS:
        matrix = first.matrix if first.matrix != RGB_MATRIX else guess_matrix(frame.height)
    full = frame.format.name.startswith("yuvj") or first.full_range
    if value_range in {LIMITED, FULL}:
        full = value_range == FULL
    if (matrix, full) == (first.matrix, first.full_range):
        return first
    return replace(first, matrix=matrix, full_range=full)


def to_rgb(frame: av.VideoFrame, colour: Colour, *, deep: bool, reformatter: VideoReformatter) -> PixelArray:
    """A decoded frame as RGB `(H, W, 3)`: uint16 in 0..65535 when `deep`, else uint8."""
    if colour.matrix == RGB_MATRIX:
        # swscale takes 8-bit RGB to 16 bits by way of Y'CbCr and ends 0.4 % too dark.
        wide = deep and frame.format.components[0].bits > 8
        array: Any = reformatter.reformat(
            frame, format="rgb48le" if wide else "rgb24", interpolation=SWS_FLAGS, threads=1
        ).to_ndarray()
        return array.astype(np.uint16) * np.uint16(257) if deep and not wide else np.asarray(array)
    if frame.format.name.startswith(("gray", "ya")):
        return _grey_to_rgb(frame, colour, deep=deep)
    # What the stream left open is written onto the frame, since swscale reads it there.
    if colour.chroma_location:
        frame = with_chroma_location(frame, colour.chroma_location)
    if not colour.full_range and frame.format.name.startswith("yuvj"):
        frame = _without_range_in_format(frame)
    value_range = FULL if colour.full_range else LIMITED
    frame.colorspace = colour.matrix
    frame.color_range = value_range
    if deep:
        planes: Any = reformatter.reformat(
            frame, format="yuv444p16le", interpolation=SWS_FLAGS, dst_color_range=value_range, threads=1
        ).to_ndarray()
        bits = frame.format.components[0].bits
        # Where swscale only copies, it fills the low bits of full-range luma with the high ones.
        planes[..., 0] &= 0x10000 - (1 << (16 - bits))
        return _codes_to_rgb(planes, colour, bits)
    array = reformatter.reformat(
        frame, format="rgb24", interpolation=SWS_FLAGS, dst_color_range=FULL, threads=1
    ).to_ndarray()
    return np.asarray(array)


def _grey_to_rgb(frame: av.VideoFrame, colour: Colour, *, deep: bool) -> PixelArray:
    """Grey of any depth; swscale is up to 3 codes of 10 bits off, and takes floats for limited whatever it is told."""
    name, bits = frame.format.name, frame.format.components[0].bits
    is_float = name.startswith(("grayf", "yaf"))
    kind = f"{'>' if name.endswith('be') else '<'}{'f' if is_float else 'u'}{-(-bits // 8)}"
    samples: Any = frame.planes[0]  # a buffer, which the stub does not tell
    step = len(frame.format.components)  # alpha stands beside it
    rows = np.frombuffer(samples, kind).reshape(frame.height, -1)[:, : frame.width * step : step]
    top, dtype = (65535, np.uint16) if deep else (255, np.uint8)
    if is_float:
        grey = (np.nan_to_num(rows).clip(0, 1) * top + 0.5).astype(dtype)
    else:
        codes, black, white = np.arange(1 << bits), 0.0, 2.0**bits - 1
        if not colour.full_range:
            black, white = 16 * 2.0 ** (bits - 8), 235 * 2.0 ** (bits - 8)
        grey = (((codes - black) / (white - black)).clip(0, 1) * top + 0.5).astype(dtype)[rows & ((1 << bits) - 1)]
    return np.repeat(grey[..., None], 3, axis=2)


def _without_range_in_format(frame: av.VideoFrame) -> av.VideoFrame:
    """A `yuvj...` frame as one of `yuv...`: H.264's decoder keeps the format where only the range in it changes."""
    plain = av.VideoFrame(frame.width, frame.height, frame.format.name.replace("yuvj", "yuv"))
    for source, target in zip(frame.planes, plain.planes, strict=True):
        rows = np.zeros((target.height, target.line_size), np.uint8)
        rows[:, : target.width] = np.frombuffer(bytes(source), np.uint8).reshape(-1, source.line_size)[
            :, : source.width
        ]
        target.update(rows.tobytes())
    return plain


def from_rgb(pixels: PixelArray, colour: Colour, pixel_format: str, *, reformatter: VideoReformatter) -> av.VideoFrame:
    """RGB `(H, W, 3)`, uint8 or uint16, as an encoder frame of `pixel_format` tagged with `colour`."""
    value_range = FULL if colour.full_range else LIMITED
    location = colour.chroma_location or usual_chroma_location(colour.matrix, colour.primaries)
    if pixels.dtype == np.uint16:
        bits = av.VideoFormat(pixel_format).components[0].bits
        frame = av.VideoFrame.from_ndarray(_rgb_to_codes(pixels, colour, bits), format="yuv444p16le")
        frame.colorspace = colour.matrix
        frame.color_range = value_range
    else:
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.colorspace = RGB_MATRIX
        frame.color_range = FULL
    # swscale takes the place from the frame that it fills, which is labelled as the one that it reads.
    converted = reformatter.reformat(
        with_chroma_location(frame, location),
        format=pixel_format,
        interpolation=SWS_FLAGS,
        dst_colorspace=SWS_MATRIX[colour.matrix],
        dst_color_range=value_range,
        threads=1,
    )
    converted.colorspace = colour.matrix
    converted.color_range = value_range
    converted.color_primaries = colour.primaries
    converted.color_trc = colour.transfer
    return converted


# swscale's own matrix is up to 5 codes off at 10 bit, so depths above 8 leave it only the chroma filter: its
# 16-bit planes are the stream's code values shifted left, which was checked for 8, 10 and 12 bit.


def yuv_to_rgb(colour: Colour, bits: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`(M, offset)`: RGB in 0..65535 = M @ (code values - offset), by the equations of H.273 clause 8.3."""
    kr, kb = LUMA_WEIGHTS[colour.matrix]
    kg = 1 - kr - kb
    matrix = np.array(
        [
            [1, 0, 2 * (1 - kr)],
            [1, -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg],
            [1, 2 * (1 - kb), 0],
        ]
    )
    step, top = 2.0 ** (bits - 8), 2.0**bits - 1
    scale = np.array([top, top, top]) if colour.full_range else np.array([219, 224, 224]) * step
    offset = np.array([0.0 if colour.full_range else 16 * step, 128 * step, 128 * step])
    return matrix / scale * 65535, offset


def _codes_to_rgb(planes: npt.NDArray[np.uint16], colour: Colour, bits: int) -> npt.NDArray[np.uint16]:
    matrix, offset = yuv_to_rgb(colour, bits)
    shift = 2.0 ** (16 - bits)
    values = planes.reshape(-1, 3).astype(np.float32)
    values -= (offset * shift).astype(np.float32)
    multiply_rows(values, (matrix.T / shift).astype(np.float32))
    return _rounded(values, 65535).reshape(planes.shape)


def _rgb_to_codes(pixels: PixelArray, colour: Colour, bits: int) -> npt.NDArray[np.uint16]:
    matrix, offset = yuv_to_rgb(colour, bits)
    codes = pixels.reshape(-1, 3).astype(np.float32)
    multiply_rows(codes, np.linalg.inv(matrix).T.astype(np.float32))
    codes += offset.astype(np.float32)
    return (_rounded(codes, 2**bits - 1) << np.uint16(16 - bits)).reshape(pixels.shape)


def multiply_rows(rows: npt.NDArray[np.float32], matrix: npt.NDArray[np.float32]) -> None:
    """`rows @ matrix` in place `(N, 3)`, in pieces that stay in the cache and that OpenBLAS leaves to one thread.

    Its threads wait for each other by spinning, which other programs on the cores make slow: `python -m bench.matrix`.
    """
    for begin in range(0, len(rows), PIECE):
        piece = rows[begin : begin + PIECE]
        piece[:] = piece @ matrix


def _rounded(values: npt.NDArray[np.float32], top: int) -> npt.NDArray[np.uint16]:
    values += np.float32(0.5)
    np.clip(values, 0, top, out=values)
    return values.astype(np.uint16)
