"""Faults that CUDA devices have, each on a simulated one: memory, kernels, precision, and contexts that die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.numbered import numbered, run, small_job, write_video
from support.pictures import most, picture, whole
from support.simulated_cuda import ARCHITECTURES, SimulatedGpu, device_without_driver, simulated_cuda

from keyscale.engine.camera.geometry import Window
from keyscale.engine.choices import Codec
from keyscale.engine.errors import DeviceError, DeviceLost, EncoderError
from keyscale.engine.job import Compute, Encoding, Job, ModelChoice, Precision
from keyscale.engine.machine import find_gpus, lacks_kernels
from keyscale.engine.models import load_model
from keyscale.engine.models import torch_networks as networks
from keyscale.engine.models.torch_model import LEAST_AUTOMATIC, SIZES, Model
from keyscale.engine.pipeline import chunks
from keyscale.engine.pipeline.encoder import ChunkWriter
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.runners.prepare import prepare

SIZE = (40, 32)
WINDOW = Window(4, 4, 36, 28)
NAME = "keyscale-tiny-x2"

NETWORKS: dict[str, Callable[[], networks.Network]] = {
    "srvgg x4": lambda: networks.SRVGGNetCompact(features=64, blocks=2, scale=4),
    "srvgg x2": lambda: networks.SRVGGNetCompact(features=24, blocks=2, scale=2),
    "plain x2": lambda: networks.PlainNet(features=48, blocks=2, scale=2),
    "plain x4, folded": lambda: networks.PlainNet(features=64, blocks=2, scale=4, fold=2),
    "rrdb x4": lambda: networks.RRDBNet(features=16, blocks=1, scale=4, growth=8),
    "rrdb x2": lambda: networks.RRDBNet(features=16, blocks=1, scale=2, growth=8),
}


def network(kind: str, precision: str = "fp32", device: str = "cuda", *, seed: int = 1) -> Model:
    """A network with weights that neither die out nor explode."""
    made = NETWORKS[kind]()
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in made.state_dict().items():
        if value.ndim == 4:
            state[key] = torch.randn(value.shape, generator=draw) / value[0].numel() ** 0.5
        else:
            state[key] = torch.full(value.shape, 0.5 if key == "conv_last.bias" else 0.0)
    return Model(state, networks.inspect(state, name=kind), sha256="0" * 64, device=device, precision=precision)


def upscaler(precision: str = "fp16", notes: list[str] | None = None) -> Upscaler:
    return Upscaler(load_model(NAME, "cuda", precision), SIZE, on_note=(notes if notes is not None else []).append)


def break_convolutions(gpu: SimulatedGpu, dtype: torch.dtype, error: Exception) -> None:
    def on_launch(name: str, dtypes: tuple[torch.dtype, ...]) -> None:
        if name == "convolution" and dtype in dtypes:
            raise error

    gpu.on_launch = on_launch


# Memory


def test_memory_that_torch_keeps_counts_as_free(gpu: SimulatedGpu) -> None:
    model = load_model(NAME, "cuda", "fp32")
    before = model.budget()
    Upscaler(model, SIZE)(picture(*SIZE), WINDOW)
    assert gpu.reserved > gpu.used
    assert model.budget() == before


@pytest.mark.parametrize("kind", ["rrdb x4", "rrdb x2", "srvgg x2", "plain x2"])
def test_tiles_do_not_depend_on_what_the_frame_before_left_in_memory(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, sides = (190, 180), list[int]()
    with simulated_cuda() as (gpu,):
        model = network(kind)
        made = Upscaler(model, size)
        # Room for a frame in one tile, with a hundredth to spare.
        gpu.memory = int(gpu.reserved + 1.01 * size[0] * size[1] * model.bytes_per_pixel / 0.6)
        side = made._side

        def noted(core: Window) -> int:
            sides.append(side(core))
            return sides[-1]

        monkeypatch.setattr(made, "_side", noted)
        gpu.dry = True
        for seed in (1, 2, 1):
            made(picture(*size, seed=seed), whole(size))
    assert sides == [190, 190, 190]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_planned_for_a_pixel_is_what_it_takes(kind: str, precision: str) -> None:
    """Never less, which would run out of memory, and at most a third more, which would be tiled too early."""
    with simulated_cuda(memory=2**40) as (gpu,):
        model = network(kind, precision)
        side = -(-(LEAST_AUTOMATIC + 2 * model.spec.halo) // SIZES) * SIZES
        context = 2 * model.spec.halo if model.spec.architecture == "plain" else 0
        before = gpu.used
        gpu.reset_counts()
        gpu.dry = True
        model.enlarge(picture(side - context, side - context), whole((side - context, side - context)))
        # Single numbers take a block of 512 bytes each.
        taken = (gpu.peak - before - 8 * 512) / side**2
        assert taken <= model.bytes_per_pixel <= 4 / 3 * taken


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=str,
)
def test_memory_that_runs_out_by_any_name_halves_the_tile_and_loses_nothing(
    gpu: SimulatedGpu, error: Exception
) -> None:
    size, notes = (70, 66), list[str]()
    model = load_model(NAME, "cuda", "fp32")
    expected = Upscaler(model, size)(picture(*size), whole(size))
    gpu.fail_launch(12, error)
    tiled = Upscaler(model, size, on_note=notes.append)(picture(*size), whole(size))
    assert most(tiled, expected) <= 1
    assert notes == ["cuda is out of memory: tiles of 35 pixels from here on"]


def test_memory_that_runs_out_at_any_allocation_of_a_frame_loses_nothing(gpu: SimulatedGpu) -> None:
    model = network("srvgg x2")
    size = (66, 64)
    expected = Upscaler(model, size)(picture(*size), whole(size))
    gpu.reset_counts()
    Upscaler(model, size)(picture(*size), whole(size))
    wanted, used = gpu.allocations, gpu.used
    assert wanted > 10
    for n in range(1, wanted + 1):
        notes: list[str] = []
        gpu.fail_allocation(n)
        result = Upscaler(model, size, on_note=notes.append)(picture(*size), whole(size))
        assert most(result, expected) <= 1, n
        assert len(notes) == 1, n
        assert gpu.used == used, n


def test_a_device_without_memory_for_the_smallest_tile_is_an_error_that_says_so() -> None:
    with simulated_cuda() as (gpu,):
        model = load_model(NAME, "cuda", "fp32")
        gpu.memory = gpu.used + 4096
        with pytest.raises(DeviceError, match=r"even for a tile of .*Tried to allocate") as caught:
            Upscaler(model, SIZE)(picture(*SIZE), WINDOW)
    assert caught.value.exit_code == 4
    assert caught.value.remedy


@pytest.mark.parametrize("n", [1, 2, 5, 12, 23])
def test_memory_that_runs_out_while_a_network_is_loaded_is_an_error_of_the_device(gpu: SimulatedGpu, n: int) -> None:
    load_model(NAME, "cuda", "fp32")
    assert gpu.allocations > 23
    gpu.fail_allocation(n)
    with pytest.raises(DeviceError, match="memory") as caught:
        load_model(NAME, "cuda", "fp32")
    assert caught.value.exit_code == 4
    assert caught.value.remedy


def test_memory_that_does_not_hold_the_fp32_twin_is_an_error_of_the_device(gpu: SimulatedGpu) -> None:
    made = upscaler("fp16")
    gpu.on_result = spoiled(torch.float16)
    gpu.memory = gpu.used + 40_000
    with pytest.raises(DeviceError, match="memory"):
        made(picture(*SIZE), WINDOW)


# What a device cannot compute


def test_a_device_that_torch_has_no_kernels_for_is_an_error_that_says_so() -> None:
    error = RuntimeError("CUDA error: no kernel image is available for execution on the device")
    with simulated_cuda(capability=(6, 0), name="Tesla P100") as (gpu,):
        break_convolutions(gpu, torch.float32, error)
        with pytest.raises(DeviceError, match=r"Tesla P100.*no kernels for its compute capability 6\.0") as caught:
            load_model(NAME, "cuda", "fp32")
    assert caught.value.exit_code == 4
    assert not isinstance(caught.value, DeviceLost)


@pytest.mark.parametrize(
    "said",
    [
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
        "not implemented for 'BFloat16'",
    ],
)
def test_bf16_that_a_card_does_not_compute_is_found_on_loading(gpu: SimulatedGpu, said: str) -> None:
    break_convolutions(gpu, torch.bfloat16, RuntimeError(said))
    with pytest.raises(DeviceError, match="bf16 does not run on cuda") as caught:
        load_model(NAME, "cuda", "bf16")
    assert "fp32" in str(caught.value.remedy)
    assert load_model(NAME, "cuda", "fp32")


def test_a_precision_that_gives_wrong_numbers_is_found_on_loading(gpu: SimulatedGpu) -> None:
    gpu.on_result = spoiled(torch.bfloat16)
    with pytest.raises(DeviceError, match=r"bf16 does not run on cuda.*wrong numbers"):
        load_model(NAME, "cuda", "bf16")


@pytest.mark.parametrize("kind", ["srvgg x2", "plain x2", "rrdb x2"])
def test_fp32_is_not_tf32(gpu: SimulatedGpu, kind: str) -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    exact, made = network(kind, device="cpu")(x), network(kind)(x).cpu()
    assert float((made - exact).abs().max()) < 1e-5
    assert torch.backends.cudnn.allow_tf32


def test_what_a_program_chose_for_its_own_convolutions_stands(gpu: SimulatedGpu) -> None:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        network("plain x2")(torch.rand(1, 3, 32, 32))
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


# Pictures that come out broken


def spoiled(dtype: torch.dtype) -> Callable[[str, torch.Tensor], None]:
    """Convolutions of that type give NaN."""

    def on_result(name: str, result: torch.Tensor) -> None:
        if name == "convolution" and result.dtype == dtype:
            result.fill_(float("nan"))

    return on_result


def test_a_card_whose_fp16_is_always_broken_is_left_in_fp32_and_told_once(gpu: SimulatedGpu) -> None:
    notes: list[str] = []
    made = upscaler("fp16", notes)
    gpu.on_result = spoiled(torch.float16)
    made.model.exact()  # loading it tries layers
    frames = [picture(*SIZE, seed=seed) for seed in range(6)]
    counts = []
    for frame in frames:
        gpu.reset_counts()
        result = made(frame, WINDOW)
        counts.append(gpu.launches.count("pixel_shuffle"))
        assert most(result, Upscaler(load_model(NAME), SIZE)(frame, WINDOW)) <= 1
    assert counts == [2, 2, 2, 1, 1, 1]
    assert len(notes) == 1
    assert "fp32" in notes[0]


def test_a_card_whose_fp16_breaks_now_and_then_keeps_it(gpu: SimulatedGpu) -> None:
    notes: list[str] = []
    made = upscaler("fp16", notes)
    broken = spoiled(torch.float16)
    counts = []
    for n in range(10):
        gpu.on_result = broken if n % 2 else None
        gpu.reset_counts()
        made(picture(*SIZE, seed=n), WINDOW)
        counts.append(gpu.launches.count("convolution"))
    assert counts[2::2] == [counts[0]] * 4
    assert counts[3::2] == [2 * counts[0]] * 4
    assert len(notes) == 1


# Values and sizes


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_deep_pictures_are_exact(gpu: SimulatedGpu, precision: str) -> None:
    model = network("srvgg x2", precision)
    size = (24, 20)
    frame = picture(*size, np.uint16)
    frame[0, :4] = [0, 1, 32767], [32768, 0, 65535], [65535] * 3, [0] * 3
    result = model.enlarge(frame, whole(size))
    exact = network("srvgg x2", device="cpu").enlarge(frame, whole(size))
    assert most(result, exact) <= (1 if precision == "fp32" else 300)
    black, white = (model.enlarge(np.full_like(frame, value), whole(size)) for value in (0, 65535))
    assert black.min() < 20000
    assert white.max() > 45000


def test_a_camera_that_zooms_meets_few_sizes(gpu: SimulatedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = set()
    model = load_model(NAME, "cuda", "fp16")
    forward = model.network.forward

    def seen(x: torch.Tensor, *more: Any) -> torch.Tensor:
        sizes.add(tuple(x.shape[2:]))
        return forward(x, *more)

    monkeypatch.setattr(model.network, "forward", seen)
    gpu.dry = True
    made = Upscaler(model, (400, 300))
    frame = picture(400, 300)
    for n in range(64):
        made(frame ^ np.uint8(n), Window(0, 0, 320 - n, 240 - n))
    assert len(sizes) <= 5
    assert all(side % SIZES == 0 for size in sizes for side in size)


def test_the_size_that_windows_are_brought_to_does_not_show(gpu: SimulatedGpu) -> None:
    frame, model = picture(90, 70), load_model(NAME, "cuda", "fp32")
    exact = load_model(NAME)
    for core in (Window(0, 0, 90, 70), Window(3, 5, 36, 38), Window(60, 50, 90, 70), Window(11, 0, 12, 70)):
        assert most(Upscaler(model, (90, 70))(frame, core), Upscaler(exact, (90, 70))(frame, core)) <= 1


@pytest.mark.parametrize("kind", NETWORKS)
def test_on_mps_no_slice_of_a_picture_is_convolved(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it was silently wrong (PyTorch's issue 180984). What convolutions are given is looked at, not computed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    given = []
    convolve = torch.nn.functional.conv2d

    def noted(x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        given.append(x)
        return convolve(x, *rest, **more)

    monkeypatch.setattr(torch.nn.functional, "conv2d", noted)
    with device_without_driver("MPS"), FakeTensorMode(), torch.inference_mode():
        with torch.device("mps"):
            made = NETWORKS[kind]()
        if isinstance(made, networks.PlainNet):
            made.base = torch.empty(made.base.shape, device="mps")
        x = torch.empty(1, 3, 150, 32, device="mps").contiguous(memory_format=torch.channels_last)
        made(x)
    assert len(given) > 1
    assert all(x.storage_offset() == 0 and x.untyped_storage().nbytes() == x.numel() * 4 for x in given)


# Devices that torch was not built for


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), ARCHITECTURES, True),
        ((8, 9), ARCHITECTURES, True),  # by sm_86
        ((10, 3), ARCHITECTURES, True),
        ((6, 1), ARCHITECTURES, False),
        ((7, 0), ARCHITECTURES, False),
        ((11, 0), ARCHITECTURES, False),
        ((12, 0), ("sm_80", "sm_90", "compute_90"), True),
        ((8, 0), ("sm_90", "compute_90"), False),
        ((9, 0), ("sm_90a",), True),
        ((9, 1), ("sm_90a",), False),
        ((9, 0), ("gfx90a", "gfx942"), True),
    ],
)
def test_what_torch_was_built_for(capability: tuple[int, int], architectures: tuple[str, ...], runs: bool) -> None:
    with simulated_cuda(capability=capability, architectures=architectures):
        wrong = lacks_kernels("cuda:0")
        assert find_gpus().fit == (("cuda",) if runs else ())
    assert (wrong is None) is runs
    assert wrong is None or f"{capability[0]}.{capability[1]}" in wrong


def job(folder: Path, device: str) -> Job:
    source = write_video(folder / "in.mkv", [numbered(n) for n in range(2)])
    return small_job(
        source,
        folder / "out.mp4",
        size=(128, 128),
        model=ModelChoice(name=NAME),
        compute=Compute(device=device, precision=Precision.FP32),
    )


def test_auto_passes_over_a_card_without_kernels_and_says_so_in_the_plan(tmp_path: Path) -> None:
    with simulated_cuda(count=3) as gpus:
        gpus[0].capability, gpus[0].name = (6, 0), "Tesla P100"
        gpus[1].name = "NVIDIA L4"
        result = run(job(tmp_path, "auto"))
    passed = [warning for warning in result.plan.warnings if "Tesla P100" in warning]
    assert len(passed) == 1
    assert "compute capability 6.0" in passed[0]
    assert passed[0] in result.notes
    assert any("device chosen: cuda:1 (NVIDIA L4)" in note for note in result.notes)
    assert gpus[1].launches
    assert not gpus[0].launches


def test_auto_goes_on_to_the_cpu_where_no_card_has_kernels(tmp_path: Path) -> None:
    with simulated_cuda(capability=(6, 0), name="Tesla P100") as (gpu,):
        result = run(job(tmp_path, "auto"))
    assert any("device chosen: cpu" in note for note in result.notes)
    assert any("Tesla P100" in warning for warning in result.plan.warnings)
    assert not gpu.launches


def test_a_card_without_kernels_that_is_asked_for_is_an_error_before_any_work(tmp_path: Path) -> None:
    with simulated_cuda(capability=(6, 0), name="Tesla P100") as (gpu,), pytest.raises(DeviceError) as caught:
        run(job(tmp_path, "cuda"))
    assert "Tesla P100" in str(caught.value)
    assert caught.value.exit_code == 4
    assert not gpu.launches
    assert not list(tmp_path.glob("*.mp4"))


# NVENC


@pytest.mark.parametrize(("device", "gpu"), [("cuda:1", "'gpu': '1'"), ("cuda:3", "'gpu': '3'"), ("cuda", None)])
@pytest.mark.parametrize("codec", [Codec.H264_NVENC, Codec.HEVC_NVENC])
def test_nvenc_is_asked_for_on_the_gpu_that_is_named(
    tmp_path: Path, device: str, gpu: str | None, codec: Codec
) -> None:
    try:
        prepare(replace(job(tmp_path, device), encoding=Encoding(codec=codec)))
    except EncoderError as error:
        assert gpu is None or gpu in str(error)
        assert gpu is not None or "gpu" not in str(error).partition("{")[2]
    else:
        pytest.skip("NVENC is here: the error that tells what it was given does not come")


def test_the_encoder_is_told_where_networks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Noted(ChunkWriter):
        def __init__(self, *given: Any, device: str, **more: Any) -> None:
            told.append(device)
            super().__init__(*given, device=device, **more)

    monkeypatch.setattr(chunks, "ChunkWriter", Noted)
    with simulated_cuda(count=2) as gpus:
        gpus[0].capability = (6, 0)
        run(job(tmp_path, "auto"))
    assert told == ["cuda:1"]


# Contexts that die


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
@pytest.mark.parametrize("n", [1, 8, -1])
def test_an_error_that_leaves_the_context_dead_is_told_from_others(gpu: SimulatedGpu, said: str, n: int) -> None:
    made = upscaler("fp32")
    gpu.reset_counts()
    made(picture(*SIZE), WINDOW)
    launches = len(gpu.launches)
    made.forget()
    # The last kernel's error shows as the host waits for the result.
    gpu.fail_launch(n % (launches + 1), RuntimeError(said), sticky=True)
    for _ in range(2):
        with pytest.raises(DeviceLost, match=said) as caught:
            made(picture(*SIZE), WINDOW)
    assert caught.value.exit_code == 4
    assert "again" in str(caught.value.remedy)


def test_a_defect_of_the_program_is_none_of_the_device(gpu: SimulatedGpu) -> None:
    gpu.fail_launch(8, RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))
    with pytest.raises(RuntimeError, match="size of tensor"):
        upscaler("fp32")(picture(*SIZE), WINDOW)
