"""Which colour a source's pictures have: by their tags, else by what is usual for such a source."""

from __future__ import annotations

from pathlib import Path

from av.error import FFmpegError
from av.video.stream import VideoStream

from keyscale.engine.errors import InputError
from keyscale.engine.source.colour import (
    BT2020,
    CENTRE,
    FULL,
    LEFT,
    LIMITED,
    LUMA_WEIGHTS,
    RGB_MATRIX,
    UNSPECIFIED,
    Colour,
    guess_matrix,
    usual_chroma_location,
)
from keyscale.engine.source.dolby_vision import dolby_vision_of
from keyscale.engine.source.frame_filters import names_chroma_location
from keyscale.engine.source.measure import FirstFrame, Scan
from keyscale.engine.source.open import demuxed, open_source

__all__ = ["check_dolby_vision", "colour_of_source"]

LIMITED_BY_DEFAULT = frozenset({"h264", "hevc", "vvc", "av1", "vp9", "vp8", "mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs that know a range, and take a stream that says nothing for limited."""

CENTRED_BY_DEFAULT = frozenset({"mjpeg", "mjpegb", "amv", "sp5x", "webp", "mpeg1video", "h261", "h263", "theora"})
"""Codecs whose chroma lies between its luma samples, as in MPEG-1 and JPEG, where the decoder does not say it."""


def check_dolby_vision(path: str | Path, scan: Scan) -> None:
    """Raise an `InputError` where a source is Dolby Vision that nothing but a Dolby decoder can show."""
    try:
        found = dolby_vision_of(Path(path), scan.container, scan.index)
    except OSError:
        return  # whatever keeps the file from being read, who reads its pictures tells
    if found is not None and not found.has_base:
        raise InputError(
            f"{path} is Dolby Vision of profile {found.profile}: its pictures have colours of their own (IPT-PQ-c2), "
            "with no HDR10, HLG or SDR beneath, and would come out green and purple",
            remedy="Export it as Dolby Vision of profile 8, HDR10, HLG or SDR, or convert it with a tool that applies "
            "Dolby Vision, such as FFmpeg's filter libplacebo.",
        )


def colour_of_source(path: str | Path, scan: Scan, first: FirstFrame) -> Colour:
    """The colour of a source by its first frame.

    Raises:
        InputError: its matrix is not one that can be read.
    """
    is_rgb = first.is_rgb
    matrix = RGB_MATRIX if is_rgb else first.matrix
    # RGB in the tag of a Y'CbCr stream, and reserved numbers, are mistakes of the muxer: treated as no tag.
    assumed = not is_rgb and matrix not in LUMA_WEIGHTS
    if not is_rgb and (matrix == 8 or 10 <= matrix <= 15):
        # H.273: 8 YCgCo, 10 BT.2020 constant luminance, 11 to 15 Y'D'zD'x, chromaticity-derived, ICtCp, IPT.
        raise InputError(
            f"the source's colour matrix (H.273 number {matrix}) is not supported",
            remedy="Convert it to BT.709 or to BT.2020 non-constant luminance first.",
        )
    if assumed:
        # 2020 primaries with no matrix tag stand for 2020, whatever the height.
        matrix = BT2020 if first.primaries == BT2020 else guess_matrix(first.height)
    full = is_rgb or first.full_range_format or first.range == FULL
    if first.is_grey and first.range not in {LIMITED, FULL}:
        # Stills and raw video know no range and mean all codes; video codecs define untagged as limited.
        full, assumed = scan.codec not in LIMITED_BY_DEFAULT, False
    return Colour(
        matrix=matrix,
        full_range=full,
        primaries=first.primaries or UNSPECIFIED,
        transfer=first.transfer or UNSPECIFIED,
        assumed=assumed,
        chroma_location=_chroma_location(path, scan, first, matrix),
    )


def _chroma_location(path: str | Path, scan: Scan, first: FirstFrame, matrix: int) -> int:
    """Where chroma lies in a stream that does not say; 0 where its frames say it, or each pixel has its own."""
    if not first.subsampled:
        return 0
    usual = usual_chroma_location(matrix, first.primaries)
    said = first.tags.chroma_location
    if said == 0:
        return CENTRE if scan.codec in CENTRED_BY_DEFAULT else usual
    if said == usual or said != LEFT or scan.codec not in {"h264", "hevc"} or _names_chroma_location(path, scan):
        return 0
    return usual


def _names_chroma_location(path: str | Path, scan: Scan) -> bool:
    with open_source(path, look_ahead=scan.video_look_ahead) as container:
        stream = container.streams[scan.index]
        assert isinstance(stream, VideoStream)
        try:
            keyframe = next(
                (packet for packet in demuxed(container, stream) if packet.size and packet.is_keyframe), None
            )
            return keyframe is not None and names_chroma_location(stream, keyframe)
        except (FFmpegError, OSError):
            return False
