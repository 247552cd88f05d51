"""What jobs hand to the encoder."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pytest

from keyscale.engine.pipeline.encoder import ChunkWriter


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[npt.NDArray[Any]]:
    """The pictures that jobs hand to the encoder."""
    seen: list[npt.NDArray[Any]] = []
    write = ChunkWriter.write

    def kept(self: ChunkWriter, pixels: npt.NDArray[Any]) -> None:
        seen.append(pixels.copy())
        write(self, pixels)

    monkeypatch.setattr(ChunkWriter, "write", kept)
    return seen
