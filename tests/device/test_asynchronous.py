"""Frames under way: faults that asynchronous code has are seen on the simulated device, and memory may end anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.numbered import Picture, write_video
from support.pictures import picture
from support.simulated_cuda import SimulatedGpu

from keyscale.engine.camera.geometry import Geometry, Window, place
from keyscale.engine.device import frames as device_frames
from keyscale.engine.device import line as device_line
from keyscale.engine.device.camera import Camera
from keyscale.engine.device.line import DeviceLine
from keyscale.engine.errors import DeviceError, DeviceLost, KeyscaleError
from keyscale.engine.job import Fit
from keyscale.engine.models import load_model
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.planes import Planes
from keyscale.engine.source.probe import probe
from keyscale.engine.source.reader import SourceFrame, read_frames

SIZE, TARGET = (96, 72), (112, 84)
FRAMES = 4


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Planes]:
    path = tmp_path_factory.mktemp("frames") / "in.mkv"
    write_video(path, [picture(*SIZE, seed=number) for number in range(FRAMES)], codec="ffv1")
    info = probe(path)
    read = read_frames(info, info.pts.tolist(), deep=False, keep_going=False, should_stop=lambda: False, planes=True)
    return [each.picture for each in read if isinstance(each, SourceFrame) and isinstance(each.picture, Planes)]


def luma(frame: av.VideoFrame) -> Picture:
    plane = frame.planes[0]
    rows: npt.NDArray[Any] = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
    return rows[:, : plane.width].astype(np.uint8)


def made(
    sources: list[Planes], device: str = "cuda", notes: list[str] | None = None, precision: str = "fp32"
) -> list[Picture]:
    """All frames, the next one begun before one is taken, as in the pipeline; the camera moves."""
    rects = np.array([(4 + 0.3 * number, 3.0, 84.0, 63.0) for number in range(len(sources))])
    geometry = Geometry(display=SIZE, lattice=SIZE)
    placements = place(rects, TARGET, Fit.COVER)
    windows = geometry.windows(rects, placements, 2)
    line = DeviceLine(
        Upscaler(
            load_model("keyscale-tiny-x2", device, precision),
            SIZE,
            on_note=None if notes is None else notes.append,
        ),
        geometry=geometry,
        scale=2,
        target=TARGET,
        colour=Colour(matrix=1, full_range=False),
        pixel_format="yuv420p",
        deep=False,
    )

    def begun() -> Iterator[Any]:
        for source, rect, placement, window in zip(sources, rects, placements, windows, strict=True):
            core = Window(*(int(v) for v in window))
            yield line.shown(line.picture(source, core), source, core, rect, placement)

    found, waiting = [], None
    for each in begun():
        if waiting is not None:
            found.append(waiting.result())
        waiting = each
    assert waiting is not None
    # Read last, as an encoder that looks ahead may.
    return [luma(frame) for frame in (*found, waiting.result())]


def most(one: list[Picture], other: list[Picture]) -> int:
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def wanted(sources: list[Planes]) -> list[Picture]:
    """By the same code on the CPU, where nothing is late."""
    return made(sources, "cpu")


def test_frames_under_way_are_right(gpu: SimulatedGpu, sources: list[Planes], wanted: list[Picture]) -> None:
    assert most(made(sources), wanted) <= 1
    assert gpu.waits.count("event") == FRAMES


def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_line._Moment, "wait", lambda _: None)
    monkeypatch.setattr(device_line._Moment, "since", lambda *_: 0.0)


def one_buffer_up(monkeypatch: pytest.MonkeyPatch) -> None:
    reuse(monkeypatch, device_frames)


def one_buffer_down(monkeypatch: pytest.MonkeyPatch) -> None:
    reuse(monkeypatch, device_line)


def reuse(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """One pinned buffer for all frames, as if copies were done once they are issued."""
    kept: dict[Any, torch.Tensor] = {}
    staging = module.staging

    def same(size: int, device: torch.device, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        buffer = kept.setdefault(dtype, staging(1 << 16, device, dtype))
        return buffer[:size]

    monkeypatch.setattr(module, "staging", same)


@pytest.mark.parametrize("fault", [no_wait, one_buffer_up, one_buffer_down])
def test_a_wait_that_is_missing_or_a_buffer_used_too_early_is_seen(
    gpu: SimulatedGpu,
    sources: list[Planes],
    wanted: list[Picture],
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
) -> None:
    fault(monkeypatch)
    assert most(made(sources), wanted) > 20


def test_an_operand_on_the_host_is_seen(
    gpu: SimulatedGpu, sources: list[Planes], monkeypatch: pytest.MonkeyPatch
) -> None:
    init = Camera.__init__

    def left(camera: Camera, *arguments: Any) -> None:
        init(camera, *arguments)
        camera._half = torch.full((1, 1, 1), 0.5)

    monkeypatch.setattr(Camera, "__init__", left)
    with pytest.raises(RuntimeError, match="same device"):
        made(sources)


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_memory_may_end_at_any_allocation(
    gpu: SimulatedGpu, sources: list[Planes], wanted: list[Picture], step: int
) -> None:
    """Once: the frame comes all the same. That is tried at allocations of the first two frames."""
    made(sources)
    gpu.reset_counts()
    model = load_model("keyscale-tiny-x2", "cuda", "fp32")
    loading = gpu.allocations
    del model
    gpu.reset_counts()
    made(sources)
    each = (gpu.allocations - loading) // FRAMES
    for number in range(loading + 1, loading + 2 * each, step):
        gpu.reset_counts()
        gpu.fail_allocation(number)
        notes: list[str] = []
        assert most(made(sources, notes=notes), wanted) <= 1, number


def test_memory_that_stays_short_is_an_error(
    gpu: SimulatedGpu, sources: list[Planes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the network, where no smaller tile helps."""

    def full(name: str, _: Any) -> None:
        if name == "baddbmm":
            raise torch.OutOfMemoryError("CUDA out of memory. (simulated)")

    gpu.on_launch = full
    with pytest.raises(DeviceError, match="cuda is out of memory for a frame beside the network"):
        made(sources)


def test_a_device_that_fails_says_so(gpu: SimulatedGpu, sources: list[Planes]) -> None:
    made(sources)
    launches = len(gpu.launches)
    gpu.reset_counts()
    gpu.fail_launch(launches - 30, RuntimeError("CUDA error: an illegal memory access was encountered"), sticky=True)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        made(sources)


def test_pictures_that_are_always_broken_are_made_in_fp32_from_then_on(
    gpu: SimulatedGpu, sources: list[Planes], wanted: list[Picture]
) -> None:
    """Three have to show it; the fourth is under way when the third is taken."""
    spoiled: list[int] = []

    def spoil(name: str, result: torch.Tensor) -> None:
        if name == "pixel_shuffle" and result.dtype == torch.float16:
            result.fill_(float("nan"))
            spoiled.append(result.shape[-1])

    gpu.on_result = spoil
    notes: list[str] = []
    found = made(sources * 2, notes=notes, precision="fp16")
    assert most(found[:FRAMES], wanted) <= 1
    assert spoiled.count(max(spoiled)) == 4
    assert len(notes) == 1


def test_a_picture_that_is_black_in_fp32_too_is_an_error(gpu: SimulatedGpu, sources: list[Planes]) -> None:
    def black(name: str, result: torch.Tensor) -> None:
        if name == "pixel_shuffle":
            result.zero_()

    gpu.on_result = black
    for precision in ("fp16", "fp32"):
        with pytest.raises(KeyscaleError, match="NaN or black"):
            made(sources, precision=precision)
