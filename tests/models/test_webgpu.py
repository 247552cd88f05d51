"""GPUs that torch does not reach: WebGPU for real on a software adapter, and which device is taken."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from support.clips import number_of
from support.numbered import SMALL, grey, interrupt, numbered, planes, run, small_job, write_video
from torch import Tensor

from keyscale.cli.app import run as command
from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError, UsageError
from keyscale.engine.job import Compute, Encoding, Job, ModelChoice, Precision
from keyscale.engine.machine import Gpus
from keyscale.engine.models import (
    find,
    golden,
    gpus,
    load_openvino_model,
    load_webgpu_model,
    onnx_graph,
    open_model,
    possible_executions,
    to_try,
    webgpu,
    webgpu_model,
)
from keyscale.engine.models.execution import CLOSE, Execution
from keyscale.engine.models.torch_networks import Network, RRDBNet, SRVGGNetCompact
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.source.colour import PixelArray

TINY = find("keyscale-tiny-x2")


@pytest.fixture(autouse=True)
def as_if_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "_measured", {})


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mkv", [numbered(n) for n in range(3)], codec="ffv1")


def job(clip: Path, name: str, device: str, **more: Any) -> Job:
    model, compute = ModelChoice(name=TINY.name), Compute(device=device, **more)
    size = (SMALL[0] * 2, SMALL[1] * 2)
    return small_job(clip, clip.with_name(name), size=size, model=model, compute=compute)


def no_gpu_of_torchs(monkeypatch: pytest.MonkeyPatch, *fit: str) -> None:
    monkeypatch.setattr(gpus, "find_gpus", lambda: Gpus(fit=fit))


# On an adapter


def test_a_whole_job_runs_there_and_gives_what_the_cpu_gives(software_gpu: str, clip: Path) -> None:
    made = run(job(clip, "webgpu.mp4", "webgpu"))
    assert (made.done.device, made.done.runtime) == ("webgpu fp32", "onnxruntime")
    assert made.done.decibels is not None
    assert made.done.decibels >= golden.LEAST["fp32"]
    (told,) = [note for note in made.notes if note.startswith("device ")]
    assert software_gpu in told
    assert "software on the CPU" in told
    exact = run(job(clip, "cpu.mp4", "cpu", precision=Precision.FP32))
    assert len(planes(made.path)) == len(planes(exact.path)) == 3
    for ours, theirs in zip(planes(made.path), planes(exact.path), strict=True):
        off = np.abs(np.frombuffer(ours, np.uint8).astype(int) - np.frombuffer(theirs, np.uint8))
        assert off.max() <= 2  # a code, and what x264 makes of it
        assert (off > 0).mean() < 0.02


def test_what_the_provider_lacks_does_not_run_on_the_cpu_instead(
    software_gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_node_that_it_lacks(*given: Any, **more: Any) -> bytes:
        model = onnx.load_from_string(onnx_graph.build_onnx(*given, **more))
        (place,) = [n for n, node in enumerate(model.graph.node) if node.op_type == "DepthToSpace"]
        after = model.graph.node[place]
        # Of one pixel to one: nothing changes.
        lacking = onnx.helper.make_node("SpaceToDepth", [after.input[0]], ["lacking"], blocksize=1)
        model.graph.node.insert(place, lacking)
        after.input[0] = "lacking"
        made: bytes = model.SerializeToString()
        return made

    monkeypatch.setattr(webgpu_model, "build_onnx", with_a_node_that_it_lacks)
    with pytest.raises(DeviceError, match=r"does not run in fp32 on webgpu .*fallback to CPU EP has been explicitly"):
        load_webgpu_model(TINY.name, "fp32")


def random_state(network: Network) -> dict[str, Tensor]:
    """Each layer keeps the spread of its input; grey, textured pictures come out."""
    generator, state = torch.Generator().manual_seed(1), {}
    for key, value in network.state_dict().items():
        if value.ndim == 4:
            state[key] = torch.randn(value.shape, generator=generator) * (1.2 / value[0].numel() ** 0.5)
        else:
            state[key] = torch.full(value.shape, 0.25 if key.endswith("weight") else 0.0)
    if isinstance(network, RRDBNet):
        state["conv_last.bias"] = torch.full((3,), 0.5)
    return state


NETWORKS: dict[str, Callable[[], Network]] = {
    "srvgg x4": lambda: SRVGGNetCompact(features=8, blocks=2, scale=4),
    "rrdb x2": lambda: RRDBNet(features=8, blocks=1, scale=2, growth=4),
    "rrdb x4": lambda: RRDBNet(features=8, blocks=1, scale=4, growth=4),
}


def picture(height: int, width: int, dtype: type[np.uint8] | type[np.uint16]) -> npt.NDArray[Any]:
    tile = golden.tile()[:height, :width]
    return np.ascontiguousarray(tile if dtype is np.uint16 else (tile >> 8).astype(np.uint8))


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_kind_of_network_gives_what_it_gives_on_the_cpu(software_gpu: str, tmp_path: Path, kind: str) -> None:
    """With context on all sides and at a corner of a frame of odd sides, of 8 bits and of 16."""
    path = tmp_path / "net.pth"
    torch.save(random_state(NETWORKS[kind]()), path)
    there, here = load_webgpu_model(path, "fp32"), load_openvino_model(path, "fp32")
    for dtype, inner in ((np.uint8, Window(8, 6, 22, 18)), (np.uint16, Window(16, 9, 31, 25))):
        pixels: PixelArray = picture(25, 31, dtype)
        made, wanted = there.enlarge(pixels, inner), here.enlarge(pixels, inner)
        assert made.shape == wanted.shape == (there.spec.scale * inner.height, there.spec.scale * inner.width, 3)
        assert made.dtype == dtype
        assert np.abs(made.astype(int) - wanted).max() <= (1 if dtype is np.uint8 else 8)
        assert wanted.std() > 2


def test_windows_and_tiles_of_a_shipped_network_do_not_show(software_gpu: str) -> None:
    there, here = load_webgpu_model(TINY.name, "fp32"), load_openvino_model(TINY.name, "fp32")
    pixels = picture(47, 63, np.uint8)
    whole = here.enlarge(pixels, Window(0, 0, 63, 47))
    for inner in (Window(0, 0, 63, 47), Window(3, 5, 20, 30), Window(41, 20, 63, 47)):
        made = there.enlarge(pixels, inner)
        wanted = whole[inner.y0 * 2 : inner.y1 * 2, inner.x0 * 2 : inner.x1 * 2]
        assert np.abs(made.astype(int) - wanted).max() <= 1


def test_fp16_is_there_where_it_was_asked_for(software_gpu: str) -> None:
    try:
        model = open_model(TINY.name, Execution("onnxruntime", "fp16", "webgpu"))
    except DeviceError as error:
        assert software_gpu in error.message
        assert "--precision fp32" in (error.remedy or "")
        pytest.skip(f"{software_gpu} has no fp16")
    assert model.decibels is not None
    assert CLOSE < model.decibels < 100


# Which device is taken


def test_software_is_no_gpu_and_the_message_says_so(
    software_gpu: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu_of_torchs(monkeypatch)
    with pytest.raises(DeviceError, match="no GPU on this machine that networks run on") as caught:
        run(job(clip, "out.mp4", "gpu"))
    assert f"WebGPU has {software_gpu} alone, which is software" in caught.value.message
    assert "--device webgpu" in caught.value.message
    assert caught.value.exit_code == 4
    made = run(job(clip, "out.mp4", "auto"))
    assert made.done.device.startswith("cpu ")
    assert not any("WebGPU" in warning for warning in made.plan.warnings), "no news on a desktop that has it"


def test_the_environment_can_ask_for_software(software_gpu: str, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu_of_torchs(monkeypatch)
    monkeypatch.setenv(webgpu.SOFTWARE, "1")
    made = run(job(clip, "out.mp4", "gpu"))
    assert made.done.device == "webgpu fp32"
    assert list(map(str, made.plan.executions)) == ["onnxruntime fp32, webgpu"]
    assert made.plan.estimate.device == "webgpu"


def test_auto_leaves_a_gpu_that_is_slower_than_the_cpu_and_says_so(
    software_gpu: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu_of_torchs(monkeypatch)
    monkeypatch.setenv(webgpu.SOFTWARE, "1")
    monkeypatch.setattr(gpus, "TRIAL_MACS", 1e8)
    made = run(job(clip, "out.mp4", "auto"))
    assert made.done.device.startswith("cpu ")
    (told,) = [note for note in made.notes if "times as fast as" in note]
    assert told.startswith(f"webgpu ({software_gpu}")
    assert float(told.split(" is ")[1].split()[0]) < gpus.BETTER
    # One that is fast enough is taken.
    monkeypatch.setattr(gpus, "BETTER", 0.0)
    assert run(job(clip, "other.mp4", "auto")).done.device == "webgpu fp32"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What each runtime would list. Nothing else is stood in for: none of these is here."""

    def these(*, torchs: tuple[str, ...] = (), intel: tuple[str, ...] = (), adapters: tuple[str, ...] = ()) -> None:
        no_gpu_of_torchs(monkeypatch, *torchs)
        monkeypatch.setattr(gpus, "intel_gpus", lambda: intel)
        found = tuple(webgpu.Adapter(name, is_software="soft" in name) for name in adapters)
        monkeypatch.setattr(webgpu, "adapters", lambda: found)

    return these


@pytest.mark.parametrize(
    ("torchs", "intel", "adapters", "gpu", "auto"),
    [
        (("cuda:0", "cuda:1"), ("intel",), ("Arc",), ["cuda:0", "intel", "webgpu"], ["cuda:0", "cpu"]),
        (("mps",), (), ("M3",), ["mps", "webgpu"], ["mps", "cpu"]),
        ((), ("intel:0", "intel:1"), ("Arc",), ["intel:0", "webgpu"], ["intel:0", "webgpu", "cpu"]),
        ((), (), ("Radeon", "softpipe"), ["webgpu"], ["webgpu", "cpu"]),
        ((), ("intel",), ("softpipe",), ["intel"], ["intel", "cpu"]),
        ((), (), ("softpipe",), None, ["cpu"]),
        ((), (), (), None, ["cpu"]),
    ],
)
def test_the_order_of_merit(
    listed: Callable[..., None],
    torchs: tuple[str, ...],
    intel: tuple[str, ...],
    adapters: tuple[str, ...],
    gpu: list[str] | None,
    auto: list[str],
) -> None:
    listed(torchs=torchs, intel=intel, adapters=adapters)
    assert list(gpus.candidates("auto")) == auto
    if gpu is None:
        with pytest.raises(DeviceError, match="there is no GPU on this machine"):
            gpus.candidates("gpu")
    else:
        assert list(gpus.candidates("gpu")) == gpu


def test_the_plan_has_what_is_there(listed: Callable[..., None], clip: Path) -> None:
    listed(intel=("intel",), adapters=("Arc A380",))
    assert list(map(str, prepare(job(clip, "out.mp4", "gpu")).plan.executions)) == [
        "openvino fp16, intel",
        "onnxruntime fp32, webgpu",
    ]
    auto = list(map(str, prepare(job(clip, "out.mp4", "auto")).plan.executions))
    assert auto[-2:] == ["openvino fp16, intel", "onnxruntime fp32, webgpu"]
    assert {way.rpartition(" ")[2] for way in auto} == {"cpu", "cuda", "mps", "intel", "webgpu"}


def test_a_gpu_that_fails_is_left_for_the_next_gpu_and_never_for_the_cpu(
    listed: Callable[..., None], clip: Path
) -> None:
    """OpenVINO has no such GPU here, and says so once a network is to be compiled for it."""
    listed(intel=("intel",))
    with pytest.raises(DeviceError, match="OpenVINO's GPU plugin does not work on intel") as caught:
        run(job(clip, "out.mp4", "gpu"))
    assert caught.value.exit_code == 4
    assert not clip.with_name("out.mp4").exists()
    made = run(job(clip, "out.mp4", "auto"))
    assert made.done.device.startswith("cpu ")
    assert any("does not work on intel" in note and "taking" in note for note in made.notes)


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("intel", "no device intel on this machine: OpenVINO finds no GPU"),
        ("intel:1", "no device intel:1 on this machine"),
        ("webgpu", "WebGPU finds no adapter"),
        ("gpu", "there is no GPU on this machine"),
    ],
)
@pytest.mark.parametrize("network", ["keyscale-tiny-x2", "lanczos"])
def test_what_was_asked_for_and_is_not_there_is_an_error(
    clip: Path, capsys: pytest.CaptureFixture[str], device: str, told: str, network: str
) -> None:
    arguments = ["upscale", str(clip), "-o", str(clip.with_name("out.mp4")), "--size", "128x128"]
    assert command([*arguments, "--device", device, "--model", network]) == 4
    error = capsys.readouterr().err
    assert told in error
    assert not clip.with_name("out.mp4").exists()


def test_without_the_extra_the_message_says_what_to_install(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webgpu, "PACKAGES", ("no_such_package_of_anyone",))
    webgpu.adapters.cache_clear()
    for device in ("webgpu", "gpu"):
        arguments = ["upscale", str(clip), "-o", str(clip.with_name("out.mp4")), "--size", "128x128"]
        assert command([*arguments, "--device", device]) == 4
        assert "pip install 'keyscale[gpu]'" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["intel", "webgpu"])
def test_precisions_that_they_have(device: str) -> None:
    ways = {asked: possible_executions(TINY, device, asked, on_cpu=()) for asked in (Precision.FP32, Precision.FP16)}
    assert [way[0].precision for way in ways.values()] == ["fp32", "fp16"]
    for asked in (Precision.BF16, Precision.INT8):
        with pytest.raises(UsageError, match="--precision"):
            possible_executions(TINY, device, asked, on_cpu=())
    (auto,) = possible_executions(TINY, device, Precision.AUTO, on_cpu=())
    wanted = ["openvino fp16, intel", "openvino fp32, intel"] if device == "intel" else ["onnxruntime fp32, webgpu"]
    assert list(map(str, to_try([auto], [device], any_precision=True))) == wanted


def test_devices_lists_the_adapter_with_its_tile_and_speed(
    software_gpu: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyscale.engine.models.devices.WINDOW", (64, 96))
    monkeypatch.setattr("keyscale.engine.models.devices.MEASURED_S", 0.1)
    assert command(["devices", "--json"]) == 0
    *_, there, cpu = json.loads(capsys.readouterr().out)
    assert (there["device"], there["runtime"], there["precision"]) == ("webgpu", "onnxruntime", "fp32")
    assert software_gpu in there["description"]
    assert there["decibels"] >= golden.LEAST["fp32"]
    assert 0 < there["frames_per_second"] < cpu["frames_per_second"]
    assert (there["auto"], cpu["auto"]) == (False, True)


@pytest.mark.parametrize(("seconds", "sizes"), [(0.1, {(64, 48)}), (0, {(64, 48), (152, 270), (608, 1080)})])
def test_what_is_very_slow_is_measured_with_the_golden_tiles_size_alone(
    seconds: float, sizes: set[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1 s for 64x48 pixels are 21 s for 608x1080."""
    seen: set[tuple[int, int]] = set()
    now = [0.0]

    class Device:
        spec = TINY

        def enlarge(self, pixels: PixelArray, inner: Window) -> PixelArray:
            seen.add((inner.width, inner.height))
            now[0] += seconds + 0.01
            return pixels

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    speed = gpus.windows_a_second(Device(), (608, 1080), seconds=1.5)  # type: ignore[arg-type]  # all that it asks for
    assert seen == sizes
    assert speed == pytest.approx(64 * 48 / (608 * 1080) / 0.11 if seconds else 100)


def off(ours: Path, theirs: Path, kind: type[np.generic] = np.uint8) -> int:
    """The largest difference between the codes of two results."""
    pairs = list(zip(planes(ours), planes(theirs), strict=True))
    assert pairs
    return max(int(np.abs(np.frombuffer(a, kind).astype(int) - np.frombuffer(b, kind)).max()) for a, b in pairs)


@pytest.mark.slow
def test_tiles_on_an_adapter_give_what_whole_windows_give(software_gpu: str, clip: Path) -> None:
    whole, tiled = run(job(clip, "whole.mp4", "webgpu")), run(job(clip, "tiled.mp4", "webgpu", tile=32))
    assert off(whole.path, tiled.path) <= 1


@pytest.mark.slow
def test_ten_bits_on_an_adapter_are_those_of_the_cpu(software_gpu: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(n) for n in range(3)], codec="ffv1", pixel_format="yuv420p10le")
    deep = Encoding(preset="ultrafast", crf=4, bit_depth=10)
    made = run(dataclasses.replace(job(source, "webgpu.mp4", "webgpu"), encoding=deep))
    exact = run(dataclasses.replace(job(source, "cpu.mp4", "cpu", precision=Precision.FP32), encoding=deep))
    assert made.plan.encoder.bit_depth == 10
    assert off(made.path, exact.path, np.uint16) <= 8  # of 1023: two codes of 8 bits


@pytest.mark.slow
def test_a_job_on_an_adapter_goes_on_where_it_was_stopped(software_gpu: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(n) for n in range(30)], codec="ffv1")
    whole, again = (
        dataclasses.replace(job(source, name, "webgpu"), chunk_seconds=0.5) for name in ("whole.mp4", "again.mp4")
    )
    interrupt(again, chunks=1)
    result = run(again)
    assert 0 < result.done.resumed_frames < 30
    assert planes(result.path) == planes(run(whole).path)


@pytest.mark.slow
@pytest.mark.processes
def test_a_batch_runs_on_an_adapter(software_gpu: str, tmp_path: Path) -> None:
    """In a process of its own for each worker."""
    for name in ("a.mkv", "b.mkv"):
        write_video(tmp_path / name, [numbered(n) for n in range(3)], codec="ffv1", rate=30)
    clips = [str(tmp_path / name) for name in ("a.mkv", "b.mkv")]
    flags = ["--whole-frame", "--device", "webgpu", "--model", TINY.name, "--size", "128x128"]
    report = tmp_path / "report.json"
    assert command(["batch", *clips, "-o", str(tmp_path / "out"), "--report", str(report), *flags]) == 0
    assert report.read_text().count("webgpu fp32") == 2
    for result in (tmp_path / "out").glob("*.mp4"):
        assert [number_of(np.ascontiguousarray(frame[::2, ::2])) for frame in grey(result)] == [0, 1, 2]
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
