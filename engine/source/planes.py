"""Decoded pictures as the planes that the decoder gave, for a device that makes RGB of them itself.

What cannot go as planes is made RGB here, as everything is for a CPU: `planes_of` decides, and nothing else does.
Deinterlaced frames are planes like any others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from keyscale.engine.camera.geometry import Window
from keyscale.engine.source.canvas import SAME_ASPECT
from keyscale.engine.source.colour import LEFT, LUMA_WEIGHTS, Colour, PixelArray
from keyscale.engine.source.frame_filters import frame_tags

if TYPE_CHECKING:
    from keyscale.engine.source.probe import VideoInfo

__all__ = [
    "CHROMA_REACH",
    "LAYOUTS",
    "Layout",
    "Planes",
    "PlanesOf",
    "SourcePicture",
    "plane_samples",
    "same_picture",
    "stored_part",
]


@dataclass(frozen=True)
class Layout:
    """How a pixel format keeps its samples."""

    bits: int
    across: int = 0
    down: int = 0
    """Binary logarithms of luma samples to a chroma sample."""
    interleaved: bool = False
    """Cb and Cr in one plane, by turns."""
    shift: int = 0
    """Bits below the code value in two bytes; 0 in sources."""
    grey: bool = False


LAYOUTS = {
    f"{family}{sampling}p{depth}": Layout(bits, across, down)
    for sampling, (across, down) in {"420": (1, 1), "422": (1, 0), "444": (0, 0)}.items()
    for family, depth, bits in (("yuv", "", 8), ("yuvj", "", 8), ("yuv", "10le", 10), ("yuv", "12le", 12))
} | {
    "nv12": Layout(8, 1, 1, interleaved=True),
    "gray": Layout(8, grey=True),
}
"""FFmpeg's pixel formats whose planes go as they are. Not grey of more bits: swscale is up to 4 of its codes off there,
and the same source would look otherwise on a CPU."""


@dataclass(frozen=True, eq=False)
class Planes:
    """One decoded picture and how it is shown."""

    layout: Layout
    samples: tuple[npt.NDArray[np.unsignedinteger[Any]], ...]
    """Of each plane `(h, w)`, uint8 or uint16, in the decoder's own memory; chroma `(h, w, 2)` where interleaved."""
    frame: av.VideoFrame
    """Whose memory it is."""
    colour: Colour
    chroma_location: int
    """`AVChromaLocation`, never unspecified."""
    info: VideoInfo
    """Crop and orientation."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height and width of the lattice, and 3."""
        width, height = self.info.lattice
        return height, width, 3

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture as it was decoded."""
        height, width = self.samples[0].shape
        return width, height

    def stored(self, window: Window) -> Window:
        """The decoded pixels behind a window of the lattice."""
        return stored_part(self.info, window)

    def equals(self, other: object, window: Window | None = None) -> bool:
        """Whether the other shows the same, in a window of the lattice or as a whole."""
        if not isinstance(other, Planes) or self._kind != other._kind:
            return False
        if self.samples is other.samples:
            return True
        part = self.stored(window) if window is not None else Window(0, 0, *self.size)
        pairs = [
            (mine[each], theirs[each])
            for mine, theirs, each in zip(self.samples, other.samples, self.regions(part), strict=True)
        ]
        # Pictures that differ nearly always do so in the middle.
        return all(np.array_equal(a[len(a) // 2 :][:1], b[len(b) // 2 :][:1]) for a, b in pairs) and all(
            np.array_equal(a, b) for a, b in pairs
        )

    def regions(self, part: Window) -> list[tuple[slice, slice]]:
        """Rows and columns of each plane behind decoded pixels, with the chroma that a filter around them reads."""
        chroma = self.chroma_part(part)
        luma = np.s_[part.y0 : part.y1, part.x0 : part.x1]
        return [luma] + [np.s_[chroma.y0 : chroma.y1, chroma.x0 : chroma.x1]] * (len(self.samples) - 1)

    def chroma_part(self, part: Window) -> Window:
        """The chroma samples that decoded pixels are made of: `CHROMA_REACH` more on every side, within the plane."""
        layout = self.layout
        if layout.grey:
            return Window(0, 0, 0, 0)
        height, width = self.samples[1].shape[:2]
        reach_x, reach_y = CHROMA_REACH * layout.across, CHROMA_REACH * layout.down
        return Window(
            max(0, (part.x0 >> layout.across) - reach_x),
            max(0, (part.y0 >> layout.down) - reach_y),
            min(width, -(-part.x1 // (1 << layout.across)) + reach_x),
            min(height, -(-part.y1 // (1 << layout.down)) + reach_y),
        )

    @property
    def _kind(self) -> object:
        return self.layout, self.size, self.colour, self.chroma_location


def stored_part(info: VideoInfo, window: Window) -> Window:
    """The decoded pixels behind a window of the lattice."""
    x0, x1, y0, y1 = window.x0, window.x1, window.y0, window.y1
    width, height = info.lattice
    turned = info.orientation
    if turned.flip_x:
        x0, x1 = width - x1, width - x0
    if turned.flip_y:
        y0, y1 = height - y1, height - y0
    if turned.transpose:
        x0, y0, x1, y1 = y0, x0, y1, x1
    left, top = info.crop.left, info.crop.top
    return Window(x0 + left, y0 + top, x1 + left, y1 + top)


CHROMA_REACH = 3
"""Chroma samples beyond the outermost one: a cubic filter reads two, and an odd side shifts samples by up to half."""


class PlanesOf:
    """Decides for one decoded picture after another whether its planes can go as they are."""

    def __init__(self, info: VideoInfo) -> None:
        self._info = info
        self._location: int | None = None

    def __call__(self, picture: av.VideoFrame, colour: Colour, stretch: float) -> Planes | None:
        """The picture's planes; None where RGB has to be made of it here.

        That is so of formats that are not in `LAYOUTS` (RGB, palettes, alpha, floats, 16 bits, rare samplings), and of
        pictures of another size or sample aspect ratio than the first one, which are scaled to its canvas. A caller
        that maps HDR to SDR does not ask.

        Args:
            picture: as decoded, or deinterlaced.
            colour: of this picture.
            stretch: its sample aspect ratio divided by the first one's.
        """
        layout = LAYOUTS.get(picture.format.name)
        size = (picture.width, picture.height)
        # The scaling of chroma needs as many samples as its filter has.
        if layout is None or colour.matrix not in LUMA_WEIGHTS or size != self._info.decoded_size or min(size) < 16:
            return None
        if abs(stretch - 1) > SAME_ASPECT:
            return None
        samples = tuple(plane_samples(plane, layout, number) for number, plane in enumerate(picture.planes))
        return Planes(layout, samples, picture, colour, self._located(picture, colour, layout), self._info)

    def _located(self, picture: av.VideoFrame, colour: Colour, layout: Layout) -> int:
        """Where chroma lies: what the stream is known for, or the frame says; headers may change it at key frames."""
        if colour.chroma_location or not (layout.across or layout.down):
            return colour.chroma_location or LEFT
        if self._location is None or picture.key_frame:
            # swscale takes what says nothing for centred; `colour` knows a place for every stream that is silent.
            self._location = frame_tags(picture).chroma_location or LEFT
        return self._location


def plane_samples(plane: Any, layout: Layout, number: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """One plane `(h, w)` in the picture's own memory, uint8 or uint16; chroma `(h, w, 2)` where interleaved."""
    dtype = np.dtype(np.uint8 if layout.bits == 8 else "<u2")
    rows: npt.NDArray[Any] = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    if layout.interleaved and number:
        return rows[:, : 2 * plane.width].reshape(plane.height, plane.width, 2)
    return rows[:, : plane.width]


SourcePicture = PixelArray | Planes
"""What the reader gives: RGB `(H, W, 3)`, or planes."""


def same_picture(one: SourcePicture, other: SourcePicture, window: Window | None = None) -> bool:
    """Whether two pictures of one source are equal, in a window or as a whole."""
    if isinstance(one, Planes):
        return one.equals(other, window)
    if isinstance(other, Planes) or one.shape != other.shape:
        return False
    part = np.s_[:, :] if window is None else np.s_[window.y0 : window.y1, window.x0 : window.x1]
    return bool(np.array_equal(one[part], other[part]))
