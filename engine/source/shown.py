"""Decoded frames as they are displayed."""

from __future__ import annotations

from dataclasses import replace

import av
from av.video.reformatter import VideoReformatter

from keyscale.engine.errors import DecodeError
from keyscale.engine.source.canvas import fitted
from keyscale.engine.source.colour import UNSPECIFIED, Colour, colour_of_frame, to_rgb
from keyscale.engine.source.frame_filters import AspectMeter
from keyscale.engine.source.planes import PlanesOf, SourcePicture
from keyscale.engine.source.probe import Orientation, VideoInfo
from keyscale.engine.source.side_data import Type, side_data_of
from keyscale.engine.source.tone import ToneMapper, ToneMapping, tone_mapping
from keyscale.engine.wording import say

__all__ = ["Shown", "matrix_of", "orientation_of"]


class Shown:
    """Decoded frames as they are displayed, each by its own colour, sample aspect ratio, orientation and transfer."""

    def __init__(self, info: VideoInfo, tone: ToneMapping | None, *, deep: bool, planes: bool) -> None:
        self._info, self._tone = info, tone
        self._planes_of = PlanesOf(info) if planes and tone is None else None
        self._deep = deep
        self._reformatter, self._aspect_of = VideoReformatter(), AspectMeter()
        self._mappers: dict[ToneMapping, ToneMapper] = {}

    def __call__(self, picture: av.VideoFrame, orientation: Orientation) -> SourcePicture:
        """RGB `(H, W, 3)` on the oriented lattice, or planes.

        Args:
            picture: as decoded, deinterlaced or made steady.
            orientation: its own.

        Raises:
            DecodeError: HDR is kept, and this frame is SDR, or of the other transfer function.
        """
        info = self._info
        colour = colour_of_frame(picture, info.colour)
        stretch = self._aspect_of(picture) / float(info.frame_aspect)
        mapper = self._mapper_of(picture, colour)
        planes = None
        if self._planes_of is not None and mapper is None and orientation == info.orientation:
            planes = self._planes_of(picture, colour, stretch)
        if planes is not None:
            return planes
        pixels = to_rgb(picture, colour, deep=self._deep or mapper is not None, reformatter=self._reformatter)
        if mapper is not None:
            pixels = mapper(pixels, deep=self._deep)
        upright = orientation.apply(info.crop.apply(fitted(pixels, info.decoded_size, stretch)))
        # A quarter turn more or less: pixels lie the other way too.
        aspect = info.sample_aspect_ratio
        turned = 1 / aspect**2 if orientation.transpose else aspect**2
        return fitted(
            upright, info.lattice, float(turned) if orientation.transpose != info.orientation.transpose else 1
        )

    def _mapper_of(self, picture: av.VideoFrame, colour: Colour) -> ToneMapper | None:
        """What makes SDR of a frame; None where it is to stay as it is."""
        info, told = self._info, int(picture.color_trc)
        transfer = info.colour.transfer if told in {0, UNSPECIFIED} else told
        own = replace(colour, transfer=transfer, primaries=int(picture.color_primaries))
        if self._tone is None and own.hdr != info.colour.hdr and info.colour.hdr is not None:
            seconds = float(((picture.pts or 0) - int(info.pts[0])) * info.time_base)
            raise DecodeError(
                f"{info.path}: the frame at {seconds:.3f} s is {own.hdr or 'sdr'} in a source that begins as "
                f"{info.colour.hdr}",
                remedy=say("Make all of it SDR with {dynamic_range=sdr}, or split the source there."),
            )
        if own.hdr is None:
            return None
        mapping = self._tone if own.hdr == info.colour.hdr else tone_mapping(own, None)
        if mapping is None:
            return None
        if mapping not in self._mappers:
            self._mappers[mapping] = ToneMapper(mapping)
        return self._mappers[mapping]


def orientation_of(picture: av.VideoFrame, info: VideoInfo, *, oriented: bool) -> Orientation:
    """That of a frame; `oriented`: one that was decoded in the same run told its own."""
    matrix = matrix_of(picture)
    if matrix:
        return Orientation.from_matrix(matrix)
    # A message that ends a rotation leaves frames without one; in an excerpt no frame has the container's.
    return Orientation() if oriented else info.orientation


def matrix_of(picture: av.VideoFrame) -> bytes | None:
    """The display matrix that a frame carries."""
    return side_data_of(picture).get(Type.DISPLAYMATRIX)
