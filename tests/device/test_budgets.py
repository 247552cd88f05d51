"""What a frame costs on a device, counted: waits, bytes each way, kernels, and nothing of its pixels on the host.

A frame of 1080x1920 at 8 bit from a window of 607x1080 through keyscale-compact-x2 in fp16, the usual vertical video of
a horizontal one. The simulated device counts exactly and tells nothing of time. How often a convolution adds its bias
in a kernel of its own is cuDNN's, and not counted.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.numbered import write_video
from support.pictures import picture
from support.simulated_cuda import SimulatedGpu

from keyscale.engine.camera.geometry import Geometry, Window, place
from keyscale.engine.device.line import DeviceLine
from keyscale.engine.job import Fit
from keyscale.engine.models import load_model
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.source import colour as host_colour
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.planes import Planes
from keyscale.engine.source.probe import probe
from keyscale.engine.source.reader import SourceFrame, read_frames

SOURCE, TARGET = (1920, 1080), (1080, 1920)
RECTS = [(600.4, 0.0, 607.5, 1080.0), (600.4, 0.0, 607.5, 1080.0), (612.9, 0.0, 607.5, 1080.0)]
"""The camera of three frames; it stands still for the second, and moves by a fraction of a pixel for the third."""

MB = 1_000_000


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Planes]:
    """Three different decoded pictures."""
    path = tmp_path_factory.mktemp("budget") / "in.avi"
    small = picture(SOURCE[0] // 10, SOURCE[1] // 10)
    pictures = [np.roll(np.tile(small, (10, 10, 1)), 40 * number, axis=1) for number in range(3)]
    write_video(path, pictures, codec="rawvideo")
    info = probe(path)
    read = read_frames(info, info.pts.tolist(), deep=False, keep_going=False, should_stop=lambda: False, planes=True)
    return [each.picture for each in read if isinstance(each, SourceFrame) and isinstance(each.picture, Planes)]


@pytest.fixture
def counted(frames: list[Planes], gpu: SimulatedGpu, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Counts of each of the three frames, one after another, the second and third with the tables of the first."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("pixels on the host")

    for owner, name in ((Image, "fromarray"), (host_colour, "to_rgb"), (host_colour, "from_rgb")):
        monkeypatch.setattr(owner, name, refuse)
    geometry = Geometry(display=SOURCE, lattice=SOURCE)
    rects = np.array(RECTS)
    placements = place(rects, TARGET, Fit.COVER)
    windows = geometry.windows(rects, placements, 2)
    model = load_model("keyscale-compact-x2", "cuda", "fp16")
    line = DeviceLine(
        Upscaler(model, SOURCE),
        geometry=geometry,
        scale=2,
        target=TARGET,
        colour=Colour(matrix=1, full_range=False),
        pixel_format="yuv420p",
        deep=False,
    )
    counts = []
    for source, rect, placement, window in zip(frames, rects, placements, windows, strict=True):
        gpu.reset_counts()
        core = Window(*(int(v) for v in window))
        shown = line.shown(line.picture(source, core), source, core, rect, placement)
        assert gpu.waits == [] or source is frames[0]
        # The arithmetic would take seconds and counts nothing: of the queue only the events are left.
        stream = gpu.default_stream
        stream.queue = deque(thunk for thunk in stream.queue if getattr(thunk, "__name__", "") == "reach")
        shown.result()
        counts.append({"waits": gpu.waits, "sent": gpu.sent, "fetched": gpu.fetched, "launches": gpu.launches})
    return counts


def test_a_frame_keeps_its_budget(counted: list[dict[str, Any]]) -> None:
    _, still, moved = counted
    for frame in (still, moved):
        assert frame["waits"] == ["event"]
        assert frame["fetched"] < 3.2 * MB
    assert still["sent"] < 1.1 * MB
    assert moved["sent"] < 1.25 * MB  # with the weights of the new rectangle
    assert len(still["launches"]) <= 51, still["launches"]
    assert len(moved["launches"]) <= 56, moved["launches"]
