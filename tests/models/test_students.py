"""The networks in the package: their files, the same network in torch and in OpenVINO, and how one is chosen."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.numbered import interrupt, numbered, run, small_job, write_video
from support.pictures import as_picture, most, picture, run_graph, whole
from torch import Tensor
from torch.nn import functional

from keyscale.cli.app import run as run_command
from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError, Interrupted, KeyscaleError, ModelError, UsageError
from keyscale.engine.job import Compute, Job, ModelChoice, Precision
from keyscale.engine.models import (
    ModelSpec,
    all_models,
    choose_execution,
    find,
    load_model,
    load_openvino_model,
    needs_openvino,
    possible_executions,
    shipped,
    to_try,
)
from keyscale.engine.models.enlarger import Enlarger
from keyscale.engine.models.openvino import load_openvino, plugin_at_work, thread_count
from keyscale.engine.models.openvino_graph import UNQUANTISED, build_graph, cell_order, with_pixels
from keyscale.engine.models.openvino_model import OpenvinoModel
from keyscale.engine.models.registry import macs_per_pixel
from keyscale.engine.models.torch_networks import PlainNet, build, inspect
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.plan.describe import plan_to_json, summarise
from keyscale.engine.runners.prepare import prepare_plan

Pixels = npt.NDArray[Any]
Kind = Literal["fp32", "int8"]

DATA = Path(__file__).resolve().parents[2] / "engine" / "models" / "data"
SHIPPED = [spec for spec in all_models() if spec.shipped]
COMPACT = find("keyscale-compact-x4")


def state_of(*, features: int = 8, blocks: int = 2, scale: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Random weights whose pictures have the spread of their input."""
    generator = torch.Generator().manual_seed(seed)
    channels = [3, *[features] * (blocks + 1), 3 * scale**2]
    state = {}
    for index, (before, after) in enumerate(pairwise(channels)):
        gain = 0.1 if index == blocks + 1 else 1.4
        state[f"convs.{index}.weight"] = (
            torch.randn(after, before, 3, 3, generator=generator) * gain / (9 * before) ** 0.5
        )
        state[f"convs.{index}.bias"] = torch.randn(after, generator=generator) * 0.01
    return state


# What is shipped


def test_every_file_is_the_one_that_the_manifest_names() -> None:
    looks = [look for one in shipped.read_manifest().students for look in (one.natural, one.balanced, one.crisp)]
    listed = [file for look in looks for file in (look.weights, *look.quantised)]
    for file in listed:
        content = (DATA / file.filename).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256), file.filename
    assert {path.name for path in DATA.iterdir()} == {shipped.MANIFEST, *(file.filename for file in listed)}
    assert sum(file.size for file in listed) < 4_000_000


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_the_weights_are_those_of_the_shape_that_is_listed(spec: ModelSpec) -> None:
    model = load_model(spec.name)
    assert isinstance(model.network, PlainNet)
    found = inspect(model.network.state_dict(), name=spec.name)
    assert (found.architecture, found.features, found.blocks, found.scale, found.fold) == (
        "plain",
        spec.features,
        spec.blocks,
        spec.scale,
        spec.fold,
    )
    arrays = shipped.read_state(spec.files[0].filename, spec.files[0].sha256)
    assert {str(array.dtype) for array in arrays.values()} == {"float16"}
    assert spec.licence == "MIT"


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = shipped.read_manifest()
    assert shipped.write(manifest.students, tmp_path).read_bytes() == (DATA / shipped.MANIFEST).read_bytes()
    monkeypatch.setattr(shipped, "data_file", lambda name: tmp_path / name)
    assert shipped.read_manifest() == manifest
    (tmp_path / "net.bin").write_bytes(b"abc")
    assert shipped.measured(tmp_path / "net.bin").sha256 == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 1, "students": []}'])
def test_a_damaged_manifest_is_an_error(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "data_file", lambda name: tmp_path / name)
    (tmp_path / shipped.MANIFEST).write_bytes(content)
    with pytest.raises(ModelError, match="students"):
        shipped.read_manifest()


@pytest.mark.parametrize("end", [".safetensors", ".int8.xml", ".int8.bin"])
def test_a_damaged_file_is_never_used(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in DATA.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / f"{COMPACT.name}{end}"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setattr(shipped, "data_file", lambda name: tmp_path / name)
    with pytest.raises(ModelError, match=f"{COMPACT.name}{end}") as caught:
        load_openvino_model(COMPACT.name, "fp32" if end == ".safetensors" else "int8")
    assert caught.value.remedy == "Install keyscale again."
    if end == ".safetensors":
        with pytest.raises(ModelError, match="SHA-256"):
            load_model(COMPACT.name)


# The architecture


def test_plain_networks_are_read_off_their_tensors() -> None:
    spec = inspect(state_of(features=8, blocks=3, scale=2), name="net")
    assert (spec.architecture, spec.features, spec.blocks, spec.scale) == ("plain", 8, 3, 2)
    assert (spec.halo, spec.halo_is_exact, spec.align) == (5, True, 1)
    assert macs_per_pixel("plain", features=32, blocks=8, scale=4) == 88_416


@pytest.mark.parametrize(
    ("key", "shape"),
    [("convs.0.weight", (8, 1, 3, 3)), ("convs.3.weight", (47, 8, 3, 3)), ("convs.1.weight", (8, 8, 1, 1))],
)
def test_what_is_no_plain_network_is_refused(key: str, shape: tuple[int, ...]) -> None:
    state = state_of() | {key: torch.zeros(shape)}
    with pytest.raises(ModelError, match=r"net|convs"):
        build(state, name="net")


def test_without_weights_a_plain_network_enlarges_its_input_bilinearly() -> None:
    state = {key: torch.zeros_like(value) for key, value in state_of(scale=2).items()}
    network, _ = build(state)
    x = torch.rand(1, 3, 5, 7)
    enlarged = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    # Beyond the border it sees zeros, as its convolutions do.
    assert torch.allclose(network(x)[..., 2:-2, 2:-2], enlarged[..., 2:-2, 2:-2], atol=1e-6)


@pytest.mark.parametrize("load", [load_model, partial(load_openvino_model, precision="int8")], ids=["torch", "int8"])
@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_smooth_colours_have_no_steps_where_source_pixels_end(spec: ModelSpec, load: Callable[[str], Enlarger]) -> None:
    """Networks that added to repeated pixels left most of the change there.

    In 16 bits, which round nothing: colours that change by a code of 8 bits a source pixel.
    """
    size = (120, 80)
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    frame = 257 * np.stack((60 + across, 220 - across, 40 + 2 * down), -1).astype(np.uint16)
    result = Upscaler(load(spec.name), size)(frame, whole(size)) / 257
    for way in (result, result.swapaxes(0, 1)):
        steps = np.abs(np.diff(way, axis=1).mean(axis=0))[32:-32]
        places = np.array([steps[place :: spec.scale].mean(axis=0) for place in range(spec.scale)])
        assert (np.ptp(places, axis=0) < 0.25).all(), places


# The graph


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (17, 9), (40, 33)])
def test_the_graph_gives_the_picture_of_the_torch_network(scale: int, size: tuple[int, int]) -> None:
    state = state_of(scale=scale, features=16)
    network, spec = build(state)
    graph = build_graph(state, spec)
    x = torch.rand(1, 3, size[1], size[0], generator=torch.Generator().manual_seed(2))
    ours = as_picture(run_graph(graph, x.numpy()), scale)
    theirs = network(x)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-4
    assert graph.input("picture").partial_shape.to_string() == "[1,3,?,?]"
    assert graph.output("cells").partial_shape[1].get_length() == 3 * scale**2
    assert graph.output("cells").partial_shape.is_dynamic
    assert {op.get_friendly_name() for op in graph.get_ops()} >= set(UNQUANTISED)


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_a_shipped_graph_is_the_network_that_is_shipped(spec: ModelSpec) -> None:
    """Within a few codes, in int8: a graph of other weights would be far off."""
    size = (64, 48)
    frame = picture(*size)
    exact = Upscaler(load_model(spec.name), size)(frame, whole(size))
    same = Upscaler(load_openvino_model(spec.name, "fp32"), size)(frame, whole(size))
    near = Upscaler(load_openvino_model(spec.name, "int8"), size)(frame, whole(size))
    assert most(same, exact) <= 1
    assert np.abs(near.astype(int) - exact).mean() < 2


def test_a_cell_lies_as_its_pixels_do() -> None:
    assert cell_order(2).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def test_pixels_are_rounded_half_up_and_clamped() -> None:
    """A network of zeros but for a bias of half a code, and one far below black."""
    state = {key: torch.zeros_like(value) for key, value in state_of(scale=2, blocks=0, features=1).items()}
    state["convs.1.bias"] += 0.5 / 255
    state["convs.1.bias"][8:] = -2.0
    _, spec = build(state)
    values = np.arange(255, dtype=np.uint8).reshape(15, 17)
    # Three pixels wide and high, so that the one in the middle has neighbours of its own value.
    frame = values.repeat(3, 0).repeat(3, 1)[None, ..., None].repeat(3, 3)
    result = run_graph(with_pixels(build_graph(state, spec), np.uint8), frame)
    colour = result.reshape(45, 51, 4, 3)[1::3, 1::3]
    assert np.array_equal(colour[..., 0, 0], values + 1)
    assert (colour[..., 2] == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"convs.1.weight": torch.zeros(8, 8, 1, 1)},
        {"convs.1.bias": torch.full((8,), float("nan"))},
    ],
)
def test_a_graph_of_wrong_tensors_is_refused(change: dict[str, Tensor]) -> None:
    spec = inspect(state_of())
    with pytest.raises(ModelError, match=r"convs\.1"):
        build_graph(state_of() | change, spec)
    with pytest.raises(ModelError, match=r"convs\.0\.weight"):
        build_graph({}, spec)


# Through OpenVINO


def students() -> list[Callable[[], OpenvinoModel]]:
    kinds: tuple[Kind, ...] = ("fp32", "int8")
    return [partial(load_openvino_model, spec.name, kind) for spec in SHIPPED[:2] for kind in kinds]


@pytest.mark.parametrize("load", students(), ids=["x4 fp32", "x4 int8", "x2 fp32", "x2 int8"])
def test_a_pixel_does_not_depend_on_window_tile_or_size_to_the_last_bit(load: Callable[[], OpenvinoModel]) -> None:
    size = (160, 120)
    frame = picture(*size)
    scale = load().spec.scale
    everything = Upscaler(load(), size)(frame, whole(size))
    assert 20 < everything.std() < 120
    moved = Upscaler(load(), size)
    for window in (
        Window(0, 0, 40, 40), Window(17, 23, 90, 71), Window(18, 23, 91, 71), Window(99, 61, 160, 120),
        Window(80, 60, 81, 61), Window(0, 119, 160, 120), Window(20, 30, 140, 100),
    ):  # fmt: skip
        same = everything[window.y0 * scale : window.y1 * scale, window.x0 * scale : window.x1 * scale]
        assert most(moved(frame, window), same) == 0
    for tile in (33, 50):
        assert most(Upscaler(load(), size, tile=tile)(frame, whole(size)), everything) == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 70), (70, 1), (37, 41)])
@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_any_size(kind: Kind, size: tuple[int, int]) -> None:
    frame = picture(*size)
    result = Upscaler(load_openvino_model("keyscale-tiny-x4", kind), size)(frame, whole(size))
    exact = Upscaler(load_model("keyscale-tiny-x4"), size)(frame, whole(size))
    assert np.abs(result.astype(int) - exact).max() <= (1 if kind == "fp32" else 24)


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_8_and_16_bit_agree(kind: Kind) -> None:
    size = (60, 40)
    model = load_openvino_model("keyscale-tiny-x2", kind)
    shallow = Upscaler(model, size)(picture(*size), whole(size))
    deep = Upscaler(model, size)(picture(*size).astype(np.uint16) * np.uint16(257), whole(size))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - shallow).max() <= 0.51


def heights(first: int, last: int, frames: int) -> list[int]:
    return [round(first + (last - first) * n / (frames - 1)) for n in range(frames)]


@pytest.mark.parametrize(
    ("sides", "most_graphs"),
    [
        ([(135 + n % 2, 240) for n in range(40)], 2),
        ([(h * 9 // 16, h) for h in heights(300, 60, 60)], 10),
        ([(h * 9 // 16, h) for h in heights(60, 300, 60)], 18),
        ([(101, 180)] + [(135, 240)] * 5, 2),
    ],
    ids=["pan", "zoom in", "zoom out", "cut"],
)
def test_windows_of_a_moving_camera_share_graphs(sides: list[tuple[int, int]], most_graphs: int) -> None:
    lattice = (640, 360)
    model = load_openvino_model("keyscale-tiny-x4", "int8")
    upscaler = Upscaler(model, lattice)
    frame = picture(*lattice)
    for step, (width, height) in enumerate(sides):
        upscaler(frame, Window(100 + step, 20, 100 + step + width, 20 + height))
    assert model.compilations <= most_graphs


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
@pytest.mark.parametrize("way", ["int8", "torch"])
@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 200, 200), (128, 128, 128), (224, 172, 140), (0, 0, 0)])
def test_a_flat_picture_stays_flat_up_to_its_border(spec: ModelSpec, way: str, colour: tuple[int, int, int]) -> None:
    # With zeros beyond the border the rim was up to 71 codes off.
    model = load_openvino_model(spec.name, "int8") if way == "int8" else load_model(spec.name)
    frame = np.full((24, 31, 3), colour, np.uint8)
    result = Upscaler(model, (31, 24))(frame, whole((31, 24))).astype(int)
    assert np.abs(result - colour).max() <= 2
    assert np.abs((result - colour).mean((0, 1))).max() < 0.7
    # What one place of the network's last convolution makes is the same everywhere.
    cell = spec.scale * spec.fold
    cells = result[:, : 31 // spec.fold * cell].reshape(24 // spec.fold, cell, 31 // spec.fold, cell, 3)
    assert np.abs(cells - cells[6:7, :, 7:8]).max() <= 1


def test_stopping() -> None:
    with pytest.raises(Interrupted):
        Upscaler(load_openvino_model(COMPACT.name, "int8"), (64, 64), should_stop=lambda: True)(
            picture(64, 64), whole((64, 64))
        )


def test_black_from_a_bright_picture_is_an_error() -> None:
    state = {key: torch.zeros_like(value) for key, value in state_of().items()}
    state["convs.3.bias"] -= 2
    spec = inspect(state, name="black")
    model = OpenvinoModel(build_graph(state, spec), spec, sha256="0" * 64, precision="fp32")
    with pytest.raises(KeyscaleError, match="black") as caught:
        Upscaler(model, (16, 16))(picture(16, 16), whole((16, 16)))
    assert caught.value.exit_code == 1
    dark = np.zeros((16, 16, 3), np.uint8)
    assert Upscaler(model, (16, 16))(dark, whole((16, 16))).max() == 0


@pytest.mark.parametrize(
    ("given", "wanted"), [("1", 1), ("1,4", 1), ("", None), ("x", None), ("0", None), ("999", None)]
)
def test_threads_follow_openmp_s_variable_and_the_cores_allowed(
    given: str, wanted: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert thread_count() == (wanted or allowed)


@pytest.mark.processes
def test_loading_openvino_sends_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """Its telemetry package would send an event on import, and keep an identifier in the home folder."""
    code = (
        "import sys\nfrom keyscale.engine.models.openvino import cpu_precisions\n"
        "assert cpu_precisions() <= {'int8', 'bf16', 'fp16'}\n"
        "assert 'openvino' in sys.modules\n"
        "sys.exit(any(name.startswith('openvino_telemetry') for name in sys.modules))"
    )
    environment = {key: value for key, value in os.environ.items() if key not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**environment, "HOME": str(tmp_path)})
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


# Which runtime and precision

GENERAL = find("realesr-general-x4v3")
ALL = {"int8", "bf16", "fp16"}


@pytest.mark.parametrize(
    ("spec", "device", "asked", "on_cpu", "wanted"),
    [
        (COMPACT, "cpu", "auto", ALL, "openvino int8, cpu"),
        (COMPACT, "cpu", "int8", ALL, "openvino int8, cpu"),
        (COMPACT, "cpu", "fp32", ALL, "openvino fp32, cpu"),
        (COMPACT, "cpu", "fp16", ALL, "openvino fp16, cpu"),
        (COMPACT, "cpu", "bf16", ALL, "openvino bf16, cpu"),
        (COMPACT, "cpu", "auto", {"bf16"}, "openvino bf16, cpu"),
        (COMPACT, "cpu", "auto", (), "openvino fp32, cpu"),
        (COMPACT, "cuda:1", "auto", ALL, "torch fp16, cuda:1"),
        (COMPACT, "mps", "auto", ALL, "torch fp32, mps"),
        (COMPACT, "cuda", "fp32", (), "torch fp32, cuda"),
        (GENERAL, "cpu", "auto", ALL, "openvino bf16, cpu"),
        (GENERAL, "cpu", "auto", {"int8", "fp16"}, "openvino fp16, cpu"),
        (GENERAL, "cpu", "auto", {"int8"}, "openvino fp32, cpu"),
        (GENERAL, "cpu", "fp32", ALL, "openvino fp32, cpu"),
        (GENERAL, "cuda", "auto", (), "torch fp16, cuda"),
        (GENERAL, "mps", "bf16", (), "torch bf16, mps"),
    ],
)
def test_who_runs_what(spec: ModelSpec, device: str, asked: str, on_cpu: set[str], wanted: str) -> None:
    assert str(choose_execution(spec, device, Precision(asked), on_cpu=on_cpu)) == wanted


@pytest.mark.parametrize("asked", ["int8", "bf16", "fp16"])
def test_what_this_cpu_has_not_is_an_error_where_it_was_asked_for(asked: str) -> None:
    with pytest.raises(DeviceError, match=f"this CPU has no {asked} in OpenVINO") as caught:
        choose_execution(COMPACT, "cpu", Precision(asked), on_cpu=ALL - {asked})
    assert "--precision fp32" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("spec", "device"), [(GENERAL, "cpu"), (COMPACT, "cuda"), (COMPACT, "mps"), (GENERAL, "cuda:0")]
)
def test_int8_elsewhere_is_refused_with_what_to_do(spec: ModelSpec, device: str) -> None:
    with pytest.raises(UsageError, match="--precision int8") as caught:
        choose_execution(spec, device, Precision.INT8, on_cpu=ALL)
    assert "--precision" in (caught.value.remedy or "")


def test_auto_is_every_device_that_may_be_found() -> None:
    auto = possible_executions(COMPACT, "auto", Precision.AUTO, on_cpu=ALL)
    assert list(map(str, auto)) == ["openvino int8, cpu", "torch fp16, cuda", "torch fp32, mps"]
    assert possible_executions(COMPACT, "auto", Precision.INT8, on_cpu=ALL) == (auto[0],)
    # Whether a GPU is there, which may have what this CPU has not, is not known yet.
    assert "torch bf16, cuda" in map(str, possible_executions(COMPACT, "auto", Precision.BF16, on_cpu=()))


def test_what_is_tried_before_it_is_an_error() -> None:
    auto = possible_executions(GENERAL, "auto", Precision.AUTO, on_cpu={"bf16"})
    tried = {
        devices[0]: list(map(str, to_try(auto, devices, any_precision=True))) for devices in (("cpu",), ("cuda", "cpu"))
    }
    assert tried["cpu"] == ["openvino bf16, cpu", "openvino fp32, cpu"]
    assert tried["cuda"] == ["torch fp16, cuda", "torch fp32, cuda", *tried["cpu"]]
    asked = possible_executions(GENERAL, "cuda:1", Precision.FP16, on_cpu=())
    assert to_try(asked, ["cuda:1"], any_precision=False) == list(asked)


def test_openvino_is_asked_only_where_it_matters() -> None:
    assert needs_openvino("auto", Precision.AUTO)
    assert needs_openvino("cpu", Precision.BF16)
    assert not needs_openvino("cpu", Precision.FP32)
    assert not needs_openvino("cuda", Precision.AUTO)


# The whole way


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mkv", [numbered(n) for n in range(6)], codec="ffv1")


def test_the_plan_names_runtime_and_precision(clip: Path, tmp_path: Path) -> None:
    for compute, wanted in (
        (Compute(device="cpu", precision=Precision.FP32), "openvino fp32, cpu"),
        (Compute(device="cuda", precision=Precision.BF16), "torch bf16, cuda"),
        (Compute(device="cuda", precision=Precision.AUTO), "torch fp16, cuda"),
        (Compute(precision=Precision.INT8), "openvino int8, cpu"),
    ):
        plan = prepare_plan(
            small_job(clip, tmp_path / "out.mp4", size=(256, 192), model=ModelChoice(), compute=compute)
        )
        assert plan.model == COMPACT
        assert dict(summarise(plan))["Runs in"] == wanted
        (execution,) = json.loads(plan_to_json(plan))["executions"]
        assert "{runtime} {precision}, {device}".format(**execution) == wanted


@pytest.mark.parametrize(("precision", "wanted"), [("auto", "int8"), ("int8", "int8"), ("fp32", "fp32")])
def test_a_job_says_what_ran(clip: Path, tmp_path: Path, precision: str, wanted: str) -> None:
    compute = Compute(device="cpu", precision=Precision(precision))
    result = run(small_job(clip, tmp_path / "out.mp4", size=(256, 192), model=ModelChoice(), compute=compute))
    assert (result.done.device, result.done.runtime, result.done.model) == (f"cpu {wanted}", "openvino", COMPACT.name)
    (note,) = [note for note in result.notes if note.startswith("device")]
    assert f"openvino {wanted}" in note
    assert f"; model {COMPACT.name} x4" in note
    assert (" dB from fp32" in note) == (wanted == "int8")
    assert (result.done.decibels or 99) > 50
    assert "thread" in note


def test_chunks_of_one_precision_are_never_used_in_another(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "long.mkv", [numbered(n) for n in range(50)], codec="ffv1")

    def job(precision: Precision) -> Job:
        compute = Compute(device="cpu", precision=precision)
        model = ModelChoice(name="keyscale-tiny-x4")
        return small_job(
            clip, tmp_path / "out.mp4", size=(256, 192), model=model, compute=compute, chunk_seconds=0.5, overwrite=True
        )

    interrupt(job(Precision.INT8), chunks=2)
    assert run(job(Precision.FP32)).done.resumed_frames == 0
    interrupt(job(Precision.INT8), chunks=2)
    assert run(job(Precision.AUTO)).done.resumed_frames > 0  # the same as int8 here


def test_the_small_scale_takes_the_small_network(clip: Path, tmp_path: Path) -> None:
    plan = prepare_plan(small_job(clip, tmp_path / "out.mp4", size=(128, 96), model=ModelChoice()))
    assert plan.model is not None
    assert plan.model.name == "keyscale-compact-x2"


def test_int8_of_another_network_is_refused_by_the_plan(clip: Path, tmp_path: Path) -> None:
    job = small_job(
        clip,
        tmp_path / "out.mp4",
        size=(256, 192),
        model=ModelChoice(name=GENERAL.name),
        compute=Compute(device="cpu", precision=Precision.INT8),
    )
    with pytest.raises(UsageError, match="int8"):
        prepare_plan(job)


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16", "fp32"])
def test_a_precision_of_no_network_is_refused(
    clip: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", "Lanczos", "--precision", precision]
    for command in (["plan", str(clip)], ["upscale", str(clip), "-o", str(tmp_path / "out.mp4")]):
        assert run_command([*command, *flags]) == 2
        error, remedy = capsys.readouterr().err.splitlines()
        assert f"--precision {precision}" in error
        assert "--model lanczos" in error
        assert "Leave --precision out" in remedy
    assert run_command(["plan", str(clip), "--model", "lanczos", "--precision", "auto"]) == 0


def test_denoise_wants_its_network_named(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--denoise") as caught:
        prepare_plan(small_job(clip, tmp_path / "out.mp4", size=(256, 192), model=ModelChoice(denoise=0.5)))
    assert "--model realesr-general-x4v3" in (caught.value.remedy or "")


@pytest.mark.processes
def test_a_job_on_the_cpu_loads_no_torch(clip: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom keyscale.cli.app import main\n"
        f"sys.argv = ['keyscale', {str(clip)!r}, '-o', {str(tmp_path / 'out.mp4')!r}, '--size', '256x192', "
        "'--device', 'cpu', '--quiet', '--verify', 'quick']\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_a_plugin_that_does_not_load_is_the_devices_fault() -> None:
    """OpenVINO loads it late, and raises whatever it met as a RuntimeError of many lines."""
    core = load_openvino().Core()
    core.register_plugin("no_such_library.so", "NOWHERE")
    with pytest.raises(DeviceError, match="no_such_library") as told, plugin_at_work():
        core.get_property("NOWHERE", "OPTIMIZATION_CAPABILITIES")
    assert "\n" not in told.value.message
    with pytest.raises(MemoryError), plugin_at_work():
        raise RuntimeError("std::bad_alloc")
