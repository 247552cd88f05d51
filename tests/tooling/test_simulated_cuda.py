"""The simulated CUDA device: whole jobs run on it, and the faults that asynchronous code has are noticed on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.clips import numbered
from support.numbered import Picture, Result, grey, run, shown, small_job, write_video
from support.pictures import most, picture
from support.simulated_cuda import SimulatedGpu, simulated_cuda

from keyscale.engine.camera.geometry import Window
from keyscale.engine.job import Compute, ModelChoice, Precision
from keyscale.engine.models import load_model
from keyscale.engine.pipeline.upscaler import Upscaler

SIZE = (40, 32)
WINDOW = Window(4, 4, 36, 28)


@pytest.fixture(scope="module")
def exact() -> Picture:
    """What the network makes of the window in fp32 on the CPU."""
    return upscaled("cpu", "fp32")


def upscaled(device: str = "cuda", precision: str = "fp16") -> Picture:
    return Upscaler(load_model("keyscale-tiny-x2", device, precision), SIZE)(picture(*SIZE), WINDOW)


def test_a_whole_job_runs_on_it(tmp_path: Path, gpu: SimulatedGpu) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(n, (64, 48)) for n in range(4)])
    results: list[Result] = []
    # Twice on the device: the golden tile is looked at once a process.
    for device, precision in (("cuda", Precision.AUTO), ("cpu", Precision.FP32), ("cuda", Precision.AUTO)):
        gpu.launches.clear()
        job = small_job(
            source,
            tmp_path / f"{len(results)}.mp4",
            size=(128, 96),
            model=ModelChoice(name="keyscale-tiny-x2"),
            compute=Compute(device=device, precision=precision),
        )
        results.append(run(job))
    _, cpu, cuda = results
    assert shown(cuda.path) == shown(cpu.path)
    assert any("cuda (NVIDIA Simulated), torch fp16" in note for note in cuda.notes)
    assert all(most(a, b) <= 3 for a, b in zip(grey(cpu.path), grey(cuda.path), strict=True))
    assert gpu.launches.count("pixel_shuffle") == 4 + 2  # loading tries the network twice


def test_it_computes_what_the_cpu_computes(gpu: SimulatedGpu, exact: Picture) -> None:
    assert most(upscaled(), exact) <= 2
    assert gpu.sent > 0
    assert gpu.fetched == exact.nbytes + 12  # and whether it is sound


def test_a_pinned_buffer_that_is_written_again_before_its_copy_ran_is_noticed(gpu: SimulatedGpu) -> None:
    buffer = torch.full((4,), 1.0).pin_memory()
    sent = buffer.to("cuda", non_blocking=True)
    buffer.fill_(2)
    assert sent.tolist() == [2, 2, 2, 2]
    pageable = torch.full((4,), 1.0)
    sent = pageable.to("cuda", non_blocking=True)
    pageable.fill_(2)
    assert sent.tolist() == [1, 1, 1, 1]


def test_an_operand_that_was_left_on_the_cpu_is_noticed(gpu: SimulatedGpu) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="cuda") * torch.ones(3)


def test_a_stream_that_does_not_wait_for_another_is_noticed(gpu: SimulatedGpu) -> None:
    start = torch.ones(3, device="cuda")
    side, done = torch.cuda.Stream(), torch.cuda.Event()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        early = start + 1
    with pytest.raises(RuntimeError, match="another stream"):
        (early * 2).tolist()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        made = start + 1
        done.record()
    torch.cuda.current_stream().wait_event(done)
    assert (made * 2).tolist() == [4, 4, 4]


def test_waits_launches_and_bytes_are_counted(gpu: SimulatedGpu) -> None:
    pinned = torch.zeros(1000, dtype=torch.uint8).pin_memory()
    gpu.reset_counts()
    x = pinned.to("cuda", non_blocking=True)
    assert (gpu.waits, gpu.launches, gpu.sent) == ([], [], 1000)
    y = x[10:].view(-1, 10).float() / 255
    assert (gpu.waits, gpu.launches) == ([], ["_to_copy", "div"])
    back = torch.empty(y.shape, pin_memory=True).copy_(y, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    assert (gpu.waits, gpu.fetched) == ([], 3960)
    event.synchronize()
    assert gpu.waits == ["event"]
    assert float(back.abs().max()) == 0
    y.cpu()
    torch.zeros(5).to("cuda")
    assert gpu.waits == ["event", "copy to host", "copy to device"]


def test_a_graph_is_one_launch_and_computes_anew(gpu: SimulatedGpu) -> None:
    x, graph = torch.zeros(3, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x * 2 + 1)[1:]
    gpu.reset_counts()
    for n in range(3):
        x.fill_(n)
        graph.replay()
        assert y.tolist() == [2 * n + 1] * 2
    assert gpu.launches == ["fill_", "graph"] * 3
    with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="capturing"):
        y.tolist()


def test_memory_is_counted_and_ends() -> None:
    mib = 2**20
    with simulated_cuda(memory=8 * mib) as (gpu,):
        x = torch.empty(4 * mib, dtype=torch.uint8, device="cuda")
        view = x[1:]
        assert gpu.used == 4 * mib
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            torch.empty(5 * mib, dtype=torch.uint8, device="cuda")
        del x
        assert gpu.used == 4 * mib
        del view
        assert (gpu.used, gpu.peak) == (0, 4 * mib)
        assert torch.cuda.mem_get_info() == (4 * mib, 8 * mib)
        torch.cuda.empty_cache()
        assert torch.cuda.mem_get_info() == (8 * mib, 8 * mib)


def test_any_allocation_can_fail(gpu: SimulatedGpu) -> None:
    gpu.fail_allocation(2)
    first = torch.ones(3, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        torch.ones(3, device="cuda")
    assert (first + 1).tolist() == [2, 2, 2]


def test_an_error_can_leave_the_context_dead(gpu: SimulatedGpu) -> None:
    x = torch.ones(3, device="cuda")
    gpu.fail_launch(2, RuntimeError("CUDA error: an illegal memory access was encountered"), sticky=True)
    y = x + 1
    y + 1
    for operation in (lambda: y + 1, y.cpu, torch.cuda.synchronize, lambda: torch.ones(3, device="cuda")):
        with pytest.raises(RuntimeError, match="illegal"):
            operation()


def test_fp32_is_tf32_where_torch_allows_it(gpu: SimulatedGpu) -> None:
    x = torch.full((1, 1, 3, 3), 1 + 2.0**-12, device="cuda")

    def product() -> float:
        return float(torch.nn.functional.conv2d(x, torch.ones(1, 1, 1, 1, device="cuda")).max())

    assert product() == 1
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert product() == 1 + 2.0**-12
    gpu.capability = (7, 5)
    assert product() == 1 + 2.0**-12


def test_several_devices_are_apart() -> None:
    with simulated_cuda(count=2) as (first, second):
        x = torch.ones(3, device="cuda:1")
        assert (first.used, second.used) == (0, 512)
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(3, device="cuda")
        assert x.to("cuda:0").device == torch.device("cuda:0")
        with torch.cuda.device(1):
            assert torch.ones(3, device="cuda").device == torch.device("cuda:1")
    assert not torch.cuda.is_available()
