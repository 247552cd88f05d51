"""The encoder of a chunk: what it does about packets whose decoding time the encoder left unset."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from keyscale.engine.choices import Codec, Mode
from keyscale.engine.job import Encoding
from keyscale.engine.pipeline.encoder import ChunkWriter
from keyscale.engine.plan.encoding import resolve_encoding
from keyscale.engine.source.tone import SDR

SIZE, RATE = (96, 72), Fraction(25)
GARBAGE = -140283483736544
"""Seen of x265 4.1 for streams of two frames, in every other process."""


class Spoiled:
    """A stream of an encoder whose packets have decoding times that it left unset."""

    def __init__(self, stream: Any, spoiled: set[int], dts: int) -> None:
        self._stream, self._spoiled, self._dts, self._count = stream, spoiled, dts, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def encode(self, frame: av.VideoFrame | None) -> Iterator[Any]:
        for packet in self._stream.encode(frame):
            if self._count in self._spoiled:
                packet.dts = self._dts
            self._count += 1
            yield packet


@pytest.mark.parametrize("dts", [GARBAGE, -GARBAGE])
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("spoiled", [{0}, {0, 1}], ids=["the first", "two"])
def test_decoding_times_that_were_left_unset_are_made_up(
    tmp_path: Path, frames: int, spoiled: set[int], dts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = Encoding(codec=Codec.HEVC, bit_depth=10, preset="ultrafast", crf=20)
    settings = resolve_encoding(encoding, Mode.FAST, SDR, "mp4", RATE)
    path = tmp_path / "chunk.mp4"
    with ChunkWriter(path, settings, SDR.encoded("hevc"), SIZE, RATE) as writer:
        monkeypatch.setattr(writer, "_stream", Spoiled(writer._stream, spoiled, dts))
        for n in range(frames):
            writer.write(np.full((SIZE[1], SIZE[0], 3), 20000 + 9000 * n, np.uint16))
    with av.open(path) as container:
        shown = [frame.pts * frame.time_base for frame in container.decode(video=0)]  # type: ignore[operator]
    assert shown == [n / RATE for n in range(frames)]
