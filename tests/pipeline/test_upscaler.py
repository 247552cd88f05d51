"""Windows through a network: tiles that do not show, memory that runs out, broken pictures, repeats, devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.numbered import SMALL, numbered, planes, run, small_job, write_video
from torch import Tensor

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError, Interrupted, KeyscaleError
from keyscale.engine.job import Compute, ModelChoice
from keyscale.engine.machine import choose_device, describe_device
from keyscale.engine.models import load_model, openvino_model
from keyscale.engine.models.enlarger import BrokenPicture
from keyscale.engine.models.openvino_model import OpenvinoModel
from keyscale.engine.models.torch_model import Model
from keyscale.engine.models.torch_networks import Network, RRDBNet, SRVGGNetCompact, inspect
from keyscale.engine.pipeline.upscaler import Upscaler

Pixels = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


NETWORKS: dict[str, Callable[[], Network]] = {
    "srvgg x4": lambda: SRVGGNetCompact(features=8, blocks=4, scale=4),
    "srvgg x2": lambda: SRVGGNetCompact(features=8, blocks=4, scale=2),
    "rrdb x4": lambda: RRDBNet(features=8, blocks=1, scale=4, growth=4),
    "rrdb x2": lambda: RRDBNet(features=8, blocks=1, scale=2, growth=4),
}


def state_of(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that make grey, textured pictures: each layer keeps the spread of its input."""
    network = NETWORKS[kind]()
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in network.state_dict().items():
        if value.ndim == 4:
            state[key] = torch.randn(value.shape, generator=generator) * (1.2 / value[0].numel() ** 0.5)
        elif value.ndim == 1 and key.endswith("weight"):
            state[key] = torch.full(value.shape, 0.25)
        else:
            state[key] = torch.zeros(value.shape)
    if isinstance(network, RRDBNet):
        state["conv_last.bias"] = torch.full((3,), 0.5)
    return state


class Bounded(Model):
    """A real network on a device with room for a given number of input pixels at once."""

    def __init__(
        self, kind: str, *, room: int = 10**9, precision: str = "fp32", error: Exception | None = None
    ) -> None:
        state = state_of(kind)
        super().__init__(state, inspect(state, name=kind), sha256="0" * 64, device="cpu", precision=precision)
        self.room = room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        self.calls: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, *, should_stop: Callable[[], bool] | None = None) -> Tensor:
        height, width = x.shape[2:]
        if height * width > self.room:
            raise self.error
        self.calls.append((width, height))
        return super().__call__(x, should_stop=should_stop)


class Broken(Model):
    """A real network whose reduced precision gives `value` everywhere."""

    def __init__(self, value: float, *, precision: str, also_fp32: bool = False) -> None:
        state = state_of("srvgg x2")
        super().__init__(state, inspect(state, name="broken"), sha256="0" * 64, device="cpu", precision=precision)
        self.value, self.also_fp32 = value, also_fp32
        self.fp32_calls = 0

    def __call__(self, x: Tensor, *, should_stop: Callable[[], bool] | None = None) -> Tensor:
        y = super().__call__(x, should_stop=should_stop)
        return torch.full_like(y, self.value)

    def to_precision(self, precision: str) -> Model:
        self.fp32_calls += 1
        if self.also_fp32:
            return Broken(self.value, precision=precision, also_fp32=True)
        return super().to_precision(precision)


def noise(width: int, height: int, dtype: Any = np.uint8, seed: int = 1) -> Pixels:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, (height, width, 3)).astype(dtype)


def most(a: Pixels, b: Pixels) -> int:
    """The largest difference in code values."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


def whole(size: tuple[int, int]) -> Window:
    return Window(0, 0, *size)


# Tiles and windows


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("tile", [32, 33, 50, 64])
def test_tiles_do_not_show(kind: str, tile: int) -> None:
    size = (131, 97)
    model = Bounded(kind)
    assert model.spec.halo_is_exact
    frame = noise(*size)
    untiled = Upscaler(model, size, tile=0)(frame, whole(size))
    assert untiled.shape == (97 * model.spec.scale, 131 * model.spec.scale, 3)
    assert 20 < untiled.std() < 120  # a picture, not a flat field
    model.calls.clear()
    tiled = Upscaler(model, size, tile=tile)(frame, whole(size))
    assert len(model.calls) == -(-131 // tile) * -(-97 // tile)
    assert most(tiled, untiled) <= 1


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_pixel_does_not_depend_on_the_window(kind: str) -> None:
    """What a slow pan needs: the same lattice pixels come out of two windows alike."""
    size = (160, 120)
    frame = noise(*size, seed=3)
    model = Bounded(kind)
    scale = model.spec.scale
    everything = Upscaler(model, size)(frame, whole(size))
    for window in (
        Window(0, 0, 40, 40), Window(17, 23, 90, 71), Window(18, 23, 91, 71), Window(99, 61, 160, 120),
        Window(80, 60, 81, 61), Window(0, 119, 160, 120),
    ):  # fmt: skip
        part = Upscaler(model, size)(frame, window)
        same = everything[window.y0 * scale : window.y1 * scale, window.x0 * scale : window.x1 * scale]
        assert most(part, same) <= 1


def test_a_real_network_gives_the_same_pixels_from_any_window(shared: Path) -> None:
    model = load_model(str(shared / "weights" / "realesr-animevideov3.pth"))
    size = (120, 90)
    ramp = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)[..., None].repeat(3, 2)
    frame = (ramp // 2 + noise(*size, seed=4) // 4).astype(np.uint8)
    everything = Upscaler(model, size)(frame, whole(size))
    for tile in (32, 48):
        assert most(Upscaler(model, size, tile=tile)(frame, whole(size)), everything) <= 1
    part = Upscaler(model, size)(frame, Window(31, 20, 80, 61))
    assert most(part, everything[80:244, 124:320]) <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 200), (200, 1), (16, 1000), (37, 41)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_any_size(kind: str, size: tuple[int, int]) -> None:
    model = Bounded(kind)
    frame = noise(*size)
    scale = model.spec.scale
    untiled = Upscaler(model, size, tile=0)(frame, whole(size))
    assert untiled.shape == (size[1] * scale, size[0] * scale, 3)
    assert most(Upscaler(model, size, tile=32)(frame, whole(size)), untiled) <= 1


@pytest.mark.parametrize("kind", NETWORKS)
def test_8_and_16_bit_agree(kind: str) -> None:
    size = (60, 40)
    model = Bounded(kind)
    shallow = Upscaler(model, size)(noise(*size), whole(size))
    deep = Upscaler(model, size)(noise(*size).astype(np.uint16) * np.uint16(257), whole(size))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - shallow).max() <= 0.51


def test_a_dark_deep_picture_is_not_taken_for_a_shallow_one(shared: Path) -> None:
    """All values below 256 of 65535: black to the eye before, and after."""
    model = load_model(str(shared / "weights" / "realesr-animevideov3.pth"))
    size = (40, 30)
    dark = noise(*size, dtype=np.uint16) % np.uint16(256)
    result = Upscaler(model, size)(dark, whole(size))
    assert result.max() < 0.03 * 65535
    black = np.zeros((30, 40, 3), np.uint16)
    assert Upscaler(model, size)(black, whole(size)).max() < 0.03 * 65535


# Out of memory


OUT_OF_MEMORY: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "mps", "cpu"])
@pytest.mark.parametrize("tile", [None, 0, 100])
def test_out_of_memory_halves_the_tile_and_tries_the_same_frame_again(error: Exception, tile: int | None) -> None:
    size = (128, 96)
    frame = noise(*size)
    wanted = Upscaler(Bounded("srvgg x4"), size, tile=0)(frame, whole(size))
    # 128 + no context is 12,288 pixels, a tile of 64 with its context of 6 pixels at most 76 x 60.
    model = Bounded("srvgg x4", room=5000, error=error)
    notes: list[str] = []
    upscaler = Upscaler(model, size, tile=tile, on_note=notes.append)
    assert most(upscaler(frame, whole(size)), wanted) <= 1
    assert notes
    assert all("out of memory" in note for note in notes)
    halvings = len(notes)
    assert upscaler.inferred == 1

    # The smaller tile stands: the next frame does not fail first.
    other = noise(*size, seed=9)
    assert most(upscaler(other, whole(size)), Upscaler(Bounded("srvgg x4"), size, tile=0)(other, whole(size))) <= 1
    assert len(notes) == halvings
    assert upscaler.inferred == 2


def test_out_of_memory_at_the_smallest_tile_is_an_error() -> None:
    size = (128, 96)
    upscaler = Upscaler(Bounded("srvgg x4", room=900), size)
    with pytest.raises(DeviceError, match="out of memory") as caught:
        upscaler(noise(*size), whole(size))
    assert caught.value.exit_code == 4
    assert caught.value.remedy
    assert upscaler.inferred == 0


def test_a_small_frame_out_of_memory_is_an_error() -> None:
    with pytest.raises(DeviceError):
        Upscaler(Bounded("srvgg x4", room=10), (20, 20))(noise(20, 20), whole((20, 20)))


def test_other_errors_of_the_network_are_not_taken_for_memory() -> None:
    model = Bounded("srvgg x4", room=10, error=RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        Upscaler(model, (64, 64))(noise(64, 64), whole((64, 64)))


# Broken pictures


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.0], ids=str)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_broken_picture_is_made_again_in_fp32(value: float, precision: str) -> None:
    size = (48, 32)
    frame = noise(*size)
    notes: list[str] = []
    upscaler = Upscaler(Broken(value, precision=precision), size, on_note=notes.append)
    wanted = Upscaler(Bounded("srvgg x2"), size)(frame, whole(size))
    assert most(upscaler(frame, whole(size)), wanted) <= 1
    assert len(notes) == 1
    assert "fp32" in notes[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_picture_that_stays_broken_is_an_error(value: float, precision: str) -> None:
    size = (48, 32)
    upscaler = Upscaler(Broken(value, precision=precision, also_fp32=True), size)
    with pytest.raises(KeyscaleError) as caught:
        upscaler(noise(*size), whole(size))
    assert caught.value.exit_code == 1
    assert caught.value.remedy
    assert upscaler.inferred == 0


def test_black_from_black_is_a_picture() -> None:
    size = (48, 32)
    notes: list[str] = []
    model = Broken(0.0, precision="fp16", also_fp32=True)
    result = Upscaler(model, size, on_note=notes.append)(np.zeros((32, 48, 3), np.uint8), whole(size))
    assert result.max() == 0
    assert not notes


def test_one_broken_pixel_is_seen() -> None:
    class OneBadPixel(Bounded):
        def __call__(self, x: Tensor, *, should_stop: Callable[[], bool] | None = None) -> Tensor:
            y = super().__call__(x, should_stop=should_stop).clone()
            y[0, 1, -1, -1] = float("nan")
            return y

    with pytest.raises(KeyscaleError, match="NaN"):
        Upscaler(OneBadPixel("srvgg x2"), (48, 32))(noise(48, 32), whole((48, 32)))


# Repeats


def test_an_equal_frame_is_not_inferred_again() -> None:
    size = (120, 80)
    model = Bounded("srvgg x4")
    upscaler = Upscaler(model, size)
    frame = noise(*size)
    first = upscaler(frame, Window(20, 10, 80, 70))
    again = upscaler(frame.copy(), Window(20, 10, 80, 70))
    inner = upscaler(frame.copy(), Window(30, 20, 60, 50))
    assert (upscaler.inferred, len(model.calls)) == (1, 1)
    assert most(first, again) == 0
    assert most(inner, first[40:160, 40:160]) == 0

    # A change outside of what the window and its context see changes nothing.
    elsewhere = frame.copy()
    elsewhere[75:] ^= 255
    elsewhere = elsewhere.copy()
    seen = Window(30, 20, 60, 50).widened(model.spec.halo, 1, size)
    assert seen.y1 <= 75
    upscaler(elsewhere, Window(30, 20, 60, 50))
    assert upscaler.inferred == 1

    # One code value in one channel within the context is another picture.
    other = frame.copy()
    other[seen.y1 - 1, seen.x1 - 1, 2] ^= 1
    result = upscaler(other, Window(30, 20, 60, 50))
    assert upscaler.inferred == 2
    assert most(result, Upscaler(model, size)(other, Window(30, 20, 60, 50))) == 0


def test_a_larger_window_is_inferred() -> None:
    upscaler = Upscaler(Bounded("srvgg x4"), (120, 80))
    frame = noise(120, 80)
    upscaler(frame, Window(20, 10, 80, 70))
    assert upscaler(frame, Window(20, 10, 81, 70)).shape == (240, 244, 3)
    assert upscaler.inferred == 2


def test_what_is_forgotten_is_inferred() -> None:
    upscaler = Upscaler(Bounded("srvgg x4"), (64, 64))
    frame = noise(64, 64)
    upscaler(frame, whole((64, 64)))
    upscaler.forget()
    upscaler(frame, whole((64, 64)))
    assert upscaler.inferred == 2


def test_stopping_within_a_frame() -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Interrupted):
        Upscaler(Bounded("srvgg x4"), (128, 128), tile=32, should_stop=stop)(noise(128, 128), whole((128, 128)))


# The whole way


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / "small.pth"
    torch.save({"params": state_of("srvgg x4")}, path)
    return str(path)


def moving(folder: Path, count: int, rate: int) -> str:
    """A camera that moves a quarter of a pixel a frame."""
    end = (count - 1) / rate
    rect = {"y": 8, "width": 32, "height": 24}
    path = folder / "keyframes.json"
    path.write_text(json.dumps([{"time": 0, "x": 4, **rect}, {"time": end, "x": 4 + 0.25 * (count - 1), **rect}]))
    return str(path)


def test_repeated_frames_under_a_moving_camera(tmp_path: Path, checkpoint: str) -> None:
    """Ten pictures, each four times: the network sees each once, though the camera moves on with every frame."""
    source = write_video(tmp_path / "in.mkv", [numbered(n // 4) for n in range(40)], codec="ffv1")
    result = run(
        small_job(
            source,
            tmp_path / "out.mp4",
            size=(128, 96),
            model=ModelChoice(name=checkpoint),
            compute=Compute(device="cpu"),
            keyframes=moving(tmp_path, 40, 25),
        )
    )
    assert len(result.plan.chunks) == 1
    assert result.done.inferred_frames == 10
    # The camera is looked up at the time of the source frame shown, and every one of them is shown.
    assert len(set(planes(result.path))) == 40


def test_a_still_picture_is_inferred_once(tmp_path: Path, checkpoint: str) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(7) for _ in range(50)], codec="ffv1")
    job = small_job(
        source, tmp_path / "out.mp4", size=(256, 192), model=ModelChoice(name=checkpoint), rate=Fraction(50)
    )
    result = run(job)
    assert result.done.frames == 100
    assert result.done.inferred_frames <= 2  # 64 frames a group at most


def test_frames_that_the_rate_drops_are_not_inferred(tmp_path: Path, checkpoint: str) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(n) for n in range(60)], rate=60, codec="ffv1")
    job = small_job(
        source, tmp_path / "out.mp4", size=(256, 192), model=ModelChoice(name=checkpoint), rate=Fraction(10)
    )
    result = run(job)
    assert (result.done.frames, result.done.inferred_frames) == (10, 10)


def test_memory_that_runs_out_in_mid_job_loses_nothing(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(n) for n in range(12)], codec="ffv1")
    settings = {"size": (256, 192), "model": ModelChoice(name=checkpoint), "compute": Compute(device="cpu")}
    wanted = planes(run(small_job(source, tmp_path / "whole.mp4", **settings)).path)
    infer = openvino_model.infer
    calls = 0

    def short_of_memory(request: Any, given: Pixels, should_stop: Callable[[], bool] | None) -> None:
        nonlocal calls
        calls += given.dtype == np.uint8  # the golden tile is deeper
        if calls > 5 and given.shape[1] * given.shape[2] > 45 * 45:
            raise RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223:\nstd::bad_alloc")
        infer(request, given, should_stop)

    monkeypatch.setattr(openvino_model, "infer", short_of_memory)
    result = run(small_job(source, tmp_path / "out.mp4", **settings))
    assert any("out of memory" in note for note in result.notes)
    assert result.done.inferred_frames == 12
    found = planes(result.path)
    assert len(found) == 12
    # Tiles may move a value by one before encoding.
    for ours, theirs in zip(found, wanted, strict=True):
        difference = np.frombuffer(ours, np.uint8).astype(int) - np.frombuffer(theirs, np.uint8)
        assert np.abs(difference).max() <= 6


def test_a_frame_that_cannot_be_computed_fails_the_job(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(n) for n in range(12)], codec="ffv1")
    enlarge = OpenvinoModel.enlarge
    calls = 0

    def breaks_down(self: OpenvinoModel, pixels: Pixels, inner: Window, **more: Any) -> Pixels:
        nonlocal calls
        calls += pixels.dtype == np.uint8  # the golden tile is deeper
        if calls >= 7:
            raise BrokenPicture
        return enlarge(self, pixels, inner, **more)

    monkeypatch.setattr(OpenvinoModel, "enlarge", breaks_down)
    output = tmp_path / "out.mp4"
    job = small_job(source, output, size=(256, 192), model=ModelChoice(name=checkpoint), compute=Compute(device="cpu"))
    with pytest.raises(KeyscaleError, match="NaN") as caught:
        run(job)
    assert caught.value.exit_code == 1
    assert not output.exists()


# Devices


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_there_is_an_error(tmp_path: Path, checkpoint: str, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    source = write_video(tmp_path / "in.mkv", [numbered(0)], codec="ffv1")
    output = tmp_path / "out.mp4"
    job = small_job(source, output, size=(256, 192), model=ModelChoice(name=checkpoint), compute=Compute(device=device))
    with pytest.raises(DeviceError, match=device) as caught:
        run(job)
    assert caught.value.exit_code == 4
    assert caught.value.remedy
    assert not output.exists()


def test_auto_says_what_it_chose(tmp_path: Path, checkpoint: str) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(0)], codec="ffv1")
    result = run(small_job(source, tmp_path / "out.mp4", size=SMALL, model=ModelChoice(name="lanczos")))
    assert not any("device" in note for note in result.notes)
    result = run(small_job(source, tmp_path / "out2.mp4", size=(256, 192), model=ModelChoice(name=checkpoint)))
    chosen = choose_device("auto")
    assert any(chosen in note and "chosen" in note for note in result.notes)
    assert chosen in result.done.device
    assert result.done.model == "small"


class Driver:
    """CUDA's driver library, as it answers."""

    def __init__(self, result: int, devices: int = 0) -> None:
        self.result, self.devices = result, devices

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.result

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return self.result


@pytest.mark.skipif(sys.platform == "darwin", reason="has no CUDA")
@pytest.mark.parametrize(
    ("driver", "asked"),
    [
        pytest.param(None, False, id="no driver"),
        pytest.param(Driver(100), False, id="no device"),
        pytest.param(Driver(0, 0), False, id="none counted"),
        pytest.param(Driver(0, 2), True, id="two devices"),
        pytest.param(Driver(999), True, id="a driver that fails"),
        pytest.param(object(), True, id="a driver of another kind"),
    ],
)
def test_auto_asks_torch_where_the_driver_does_not_deny_a_device(
    driver: object, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> object:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr("ctypes.CDLL", load)
    monkeypatch.setattr("keyscale.engine.machine._may_have_hip", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80"])
    for sees in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda sees=sees: sees)
        assert choose_device("auto") == ("cuda" if asked and sees else "cpu")


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "darwin", reason="may have a GPU of Apple's")
def test_a_network_on_the_cpu_loads_neither_torch_nor_what_only_remote_jobs_need(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(0)], codec="ffv1")
    code = (
        "import sys\n"
        "from keyscale.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "needless = ('torch', 'keyscale.engine.remote', 'keyscale.engine.storage.bucket', 'modal', 'boto3')\n"
        "print([name for name in needless if name in sys.modules])\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", code, "upscale", str(source), "-o", str(tmp_path / "out.mp4"), "--size", "128x96"]
    # Where there is a GPU, its driver tells of none.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "KEYSCALE_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "device chosen: cpu" in done.stderr


def test_choices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("cuda:3") == "cuda:3"
    assert "threads" in describe_device("cpu")
