"""The golden tile: which devices and precisions are taken, told of, left or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.numbered import numbered, run, small_job, write_video

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError
from keyscale.engine.job import Compute, Job, ModelChoice, Precision
from keyscale.engine.machine import Gpus
from keyscale.engine.models import ModelSpec, find, golden, load_openvino_model, open_model
from keyscale.engine.models.enlarger import BrokenPicture, OutOfMemory
from keyscale.engine.models.execution import CLOSE, Execution
from keyscale.engine.models.openvino import cpu_precisions
from keyscale.engine.models.openvino_model import OpenvinoModel
from keyscale.engine.models.torch_networks import SRVGGNetCompact

Pixels = npt.NDArray[Any]
Fault = Callable[[Pixels], Pixels]

TINY = find("keyscale-tiny-x2")

has_bf16 = pytest.mark.skipif("bf16" not in cpu_precisions(), reason="OpenVINO has no bf16 on this CPU")


@pytest.fixture(autouse=True)
def as_if_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_measured", {})


@dataclass
class OnADevice:
    """A real network on a device with a fault."""

    fault: Fault
    precision: str = "fp16"
    place: str = "cuda"
    spec: ModelSpec = TINY
    sha256: str = "0" * 64
    decibels: float | None = None
    bytes_per_pixel: float = 0.0
    network: OpenvinoModel = field(default_factory=lambda: load_openvino_model(TINY.name, "fp32"))

    def describe(self) -> str:
        return self.place

    def budget(self) -> float:
        return 1e9

    def exact(self) -> None:
        return None

    def enlarge(self, pixels: Pixels, inner: Window, *, should_stop: Callable[[], bool] | None = None) -> Pixels:
        return self.fault(self.network.enlarge(pixels, inner, should_stop=should_stop))


def off_by(codes: float) -> Fault:
    """Every value is off by `codes` of 8 bits, one up, the next down."""

    def fault(made: Pixels) -> Pixels:
        sign = np.where(np.arange(made.size) % 2, 257, -257).reshape(made.shape)
        return (made + codes * sign).clip(0, 65535).astype(np.uint16)

    return fault


def raising(error: Exception) -> Fault:
    def fault(made: Pixels) -> Pixels:
        raise error

    return fault


def checked(model: OnADevice, *, unasked: bool = False) -> float | None:
    return golden.check(model, lambda: load_openvino_model(TINY.name, "fp32"), unasked=unasked)


def test_the_tile_is_like_a_picture_and_always_the_same() -> None:
    tile = golden.tile()
    assert tile.shape == (48, 64, 3)
    assert tile.dtype == np.uint16
    assert tile is golden.tile()
    assert tile.std() > 5000
    assert (tile % 65535 == 0).mean() < 0.02  # neither black nor white
    # Neighbours are like each other, and no two rows are the same.
    assert np.abs(np.diff(tile.astype(int), axis=1)).mean() < 0.03 * 65535
    assert len(np.unique(tile.reshape(48, -1), axis=0)) == 48


@pytest.mark.parametrize(("codes", "wanted"), [(0.0, 120.0), (0.25, 60.2), (0.8, 50.1), (4.0, 36.1)])
def test_what_is_near_enough_is_taken_with_its_figure(codes: float, wanted: float) -> None:
    found = checked(OnADevice(off_by(codes)))
    assert found == pytest.approx(wanted, abs=0.2)  # 20 * log10(255 / codes)


@pytest.mark.parametrize(
    ("precision", "codes", "unasked"),
    [("fp32", 0.1, False), ("fp16", 6.0, False), ("fp16", 0.9, True), ("bf16", 0.9, True), ("int8", 0.9, True)],
    ids=["fp32 in TF32", "fp16 off by far", "fp16 unasked", "bf16 unasked", "int8 unasked"],
)
def test_what_is_too_far_is_an_error_that_says_how_far(precision: str, codes: float, unasked: bool) -> None:
    with pytest.raises(DeviceError, match=rf"{TINY.name} is \d+\.\d dB from fp32 in {precision} on cuda") as caught:
        checked(OnADevice(off_by(codes), precision=precision), unasked=unasked)
    assert caught.value.exit_code == 4
    assert "--precision" in (caught.value.remedy or "")
    # What was asked for need only work.
    if unasked:
        assert checked(OnADevice(off_by(codes), precision=precision)) is not None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore"), "no kernel image"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "unable to find an engine"),
        (OutOfMemory("CUDA out of memory"), "out of memory"),
        (BrokenPicture(), "NaN or black"),
    ],
    ids=["card that torch has no code for", "cuDNN", "memory", "NaN"],
)
def test_what_fails_is_the_devices_fault(error: Exception, told: str) -> None:
    with pytest.raises(DeviceError, match=told) as caught:
        checked(OnADevice(raising(error)))
    assert "on cuda" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy


def test_it_is_measured_once_a_process_for_each_way() -> None:
    loaded: list[None] = []

    def exact() -> OpenvinoModel:
        loaded.append(None)
        return load_openvino_model(TINY.name, "fp32")

    for _ in range(2):
        golden.check(OnADevice(off_by(0.5)), exact, unasked=True)
    assert len(loaded) == 1
    for other in (OnADevice(off_by(0.5), place="cuda:1"), OnADevice(off_by(0.5), precision="bf16")):
        golden.check(other, exact, unasked=True)
    assert len(loaded) == 3


def test_a_network_that_makes_no_picture_of_it_in_fp32_either_tells_nothing() -> None:
    black = OnADevice(raising(BrokenPicture()))
    assert golden.check(black, lambda: black, unasked=True) is None


def test_shipped_networks_pass_in_every_precision_of_this_cpu() -> None:
    for precision in sorted(cpu_precisions()):
        model = open_model(TINY.name, Execution("openvino", precision, "cpu"), unasked=True)  # type: ignore[arg-type]
        assert model.decibels is not None
        assert CLOSE < model.decibels < 80
    assert open_model(TINY.name, Execution("openvino", "fp32", "cpu")).decibels is None


# The whole way


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mkv", [numbered(n) for n in range(6)], codec="ffv1")


def job(clip: Path, model: str, compute: Compute) -> Job:
    return small_job(clip, clip.with_name("out.mp4"), size=(256, 192), model=ModelChoice(name=model), compute=compute)


@pytest.fixture
def touchy(tmp_path: Path) -> str:
    """A checkpoint that loses much in few bits: its last layers take two large numbers from each other."""
    state = {key: torch.zeros_like(v) for key, v in SRVGGNetCompact(features=6, blocks=1, scale=4).state_dict().items()}
    for colour in range(3):
        for half, sign in ((0, 1), (3, -1)):
            state["body.0.weight"][half + colour, colour, 1, 1] = 1 + (half == 0) * 0.07
            state["body.2.weight"][half + colour, half + colour, 1, 1] = 1
            state["body.4.weight"][16 * colour : 16 * colour + 16, half + colour, 1, 1] = sign * 5.0
    torch.save(state, tmp_path / "touchy.pth")
    return str(tmp_path / "touchy.pth")


@has_bf16
def test_auto_goes_on_to_fp32_where_bf16_loses_too_much_and_tells_why(clip: Path, touchy: str) -> None:
    result = run(job(clip, touchy, Compute(device="cpu")))
    assert (result.done.device, result.done.decibels) == ("cpu fp32", None)
    (left,) = [note for note in result.notes if "dB from fp32" in note]
    assert "touchy is" in left
    assert "taking openvino fp32, cpu instead" in left


@has_bf16
def test_the_precision_that_was_asked_for_is_kept(clip: Path, touchy: str) -> None:
    result = run(job(clip, touchy, Compute(device="cpu", precision=Precision.BF16)))
    assert result.done.device == "cpu bf16"
    assert result.done.decibels is not None
    assert 35 < result.done.decibels < CLOSE


class TestADeviceThatFails:
    """Loading a network on `cuda` is what cannot be had here: it is refused as the golden tile refuses it."""

    @pytest.fixture(autouse=True)
    def broken_gpu(self, monkeypatch: pytest.MonkeyPatch) -> list[Execution]:
        tried: list[Execution] = []

        def on_a_broken_gpu(name: Any, execution: Execution, *more: Any, **options: Any) -> Any:
            tried.append(execution)
            if execution.device != "cpu":
                golden.check(OnADevice(off_by(9)), lambda: load_openvino_model(TINY.name, "fp32"), unasked=True)
            return open_model(name, execution, *more, **options)

        monkeypatch.setattr("keyscale.engine.models.open_model", on_a_broken_gpu)
        monkeypatch.setattr("keyscale.engine.models.gpus.find_gpus", lambda: Gpus(fit=("cuda",)))
        return tried

    def test_auto_goes_on_to_the_cpu_and_tells_why(self, clip: Path, broken_gpu: list[Execution]) -> None:
        result = run(job(clip, TINY.name, Compute()))
        assert result.done.device.startswith("cpu ")
        assert list(map(str, broken_gpu))[:2] == ["torch fp16, cuda", "torch fp32, cuda"]
        notes = [note for note in result.notes if "dB from fp32" in note and "cuda" in note]
        assert len(notes) == 2
        assert "taking openvino" in notes[-1]

    def test_asked_for_it_is_an_error(self, clip: Path, broken_gpu: list[Execution]) -> None:
        with pytest.raises(DeviceError, match="dB from fp32"):
            run(job(clip, TINY.name, Compute(device="cuda")))
        assert all(way.device == "cuda" for way in broken_gpu)
        assert not clip.with_name("out.mp4").exists()
