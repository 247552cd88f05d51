"""Animated WebP, which FFmpeg does not decode: read with Pillow and handed on as a film without loss."""

from __future__ import annotations

import functools
import io
from fractions import Fraction
from typing import Any, BinaryIO, cast

import av
import numpy as np
from PIL import Image

from keyscale.engine.errors import InputError

__all__ = ["HEAD_BYTES", "as_film", "film_of", "is_animated"]

HEAD_BYTES = 32
"""Of a file, by which `is_animated` tells."""

ANIMATION = 0x02
"""Flag in the `VP8X` chunk (WebP Container Specification, "Extended File Format")."""

SHORTEST_MS, IN_ITS_PLACE_MS = 10, 100
"""Browsers show a frame of up to 10 ms for 100."""

MILLISECOND = Fraction(1, 1000)


def is_animated(head: bytes) -> bool:
    """Whether a file that begins with `head` is an animated WebP."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & ANIMATION)


@functools.lru_cache(maxsize=2)
def film_of(path: str, size: int, modified: int) -> bytes:  # noqa: ARG001 - the file as it was then
    """`as_film` of a local file; the last two are kept, since a job opens its source several times.

    Raises:
        InputError: as `as_film`.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - a name as the system has it
        return as_film(file, path)


def as_film(file: BinaryIO, name: str) -> bytes:
    """A QuickTime file with the animation's pictures and times, on black where it is transparent.

    Raises:
        InputError: it is damaged.
    """
    content = bytearray()
    while piece := file.read(1 << 20):
        content += piece
    film = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=["WEBP"]) as animation, av.open(film, "w", format="mov") as out:
            stream = out.add_stream("png", rate=1000, options={"compression_level": "1"})
            stream.width, stream.height = animation.size
            stream.pix_fmt = "rgb24"
            stream.time_base = stream.codec_context.time_base = MILLISECOND
            time = 0
            for number in range(cast(Any, animation).n_frames):
                animation.seek(number)
                picture = Image.new("RGBA", animation.size, (0, 0, 0, 255))
                picture.alpha_composite(animation.convert("RGBA"))
                stated = int(animation.info.get("duration", 0))
                duration = stated if stated > SHORTEST_MS else IN_ITS_PLACE_MS
                frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), format="rgb24")
                frame.pts, frame.time_base = time, MILLISECOND
                # The encoder holds nothing back: a picture, a packet.
                for packet in stream.encode(frame):
                    packet.duration = duration
                    out.mux(packet)
                time += duration
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read ({error})", remedy="Check the file.") from error
    return film.getvalue()
