"""Other people's networks: ONNX files whose scale, context and cells a trial finds, and those that it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.numbered import SMALL, Result, grey, numbered, planes, run, small_job, write_video
from support.pictures import most, picture

from keyscale.cli.app import run as command
from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import DeviceError, ModelError, UsageError
from keyscale.engine.job import Compute, ModelChoice, Precision
from keyscale.engine.models import (
    ModelSpec,
    choose_execution,
    describe,
    foreign,
    golden,
    open_model,
    possible_executions,
)
from keyscale.engine.models.enlarger import Enlarger
from keyscale.engine.models.execution import Execution
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.workspace.fingerprint import job_key


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(golden, "_measured", {})
    return tmp_path / "cache"


def save(
    path: Path,
    nodes: Sequence[Any],
    constants: Mapping[str, Any] | None = None,
    *,
    takes: Sequence[Any] = (1, 3, "h", "w"),
    gives: Sequence[Any] = (1, 3, "H", "W"),
    kind: int = TensorProto.FLOAT,
    gives_kind: int | None = None,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = (),
    beside: str | None = None,
) -> Path:
    """An ONNX file; its result is what the last node gives, or those of `outputs`.

    Args:
        path: where.
        nodes: operator, inputs and attributes; each gives what is named after its place, `1`, `2`, ...
        constants: by name.
        takes, gives: shapes.
        kind, gives_kind: their types.
        inputs, outputs: their names.
        beside: the name of a file beside it for the constants.
    """
    made = [helper.make_node(op, names, [str(n)], **about) for n, (op, names, about) in enumerate(nodes, 1)]
    arrays = {name: np.asarray(value) for name, value in (constants or {}).items()}
    graph = helper.make_graph(
        made,
        "network",
        [helper.make_tensor_value_info(name, kind, takes) for name in inputs],
        [helper.make_tensor_value_info(name, gives_kind or kind, gives) for name in outputs or [str(len(nodes))]],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if beside is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=beside, size_threshold=0)
    return path


ASYMMETRIC = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def nearest(path: Path, scale: float | tuple[float, float] = 2, **more: Any) -> Path:
    """Each pixel repeated."""
    down, across = scale if isinstance(scale, tuple) else (scale, scale)
    sizes = np.array([1, 1, down, across], np.float32)
    return save(path, [("Resize", ("x", "", "sizes"), ASYMMETRIC)], {"sizes": sizes}, **more)


def kernel(side: int, *, seed: int = 1, channels: int = 3, dtype: type = np.float32) -> npt.NDArray[Any]:
    """A convolution that keeps the brightness: the pixel itself, and a tenth of its surroundings."""
    values = np.random.default_rng(seed).random((channels, channels, side, side)) / (10 * channels * side**2)
    for channel in range(channels):
        values[channel, channel, side // 2, side // 2] += 0.95
    return values.astype(dtype)


def convolution(path: Path, side: int = 3, *, dilation: int = 1, seed: int = 1, **more: Any) -> Path:
    """A convolution and each pixel repeated twice."""
    pad = (side // 2) * dilation
    about = {"kernel_shape": [side] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2}
    dtype = np.float16 if more.get("kind") == TensorProto.FLOAT16 else np.float32
    constants = {"weight": kernel(side, seed=seed, dtype=dtype), "sizes": np.array([1, 1, 2, 2], np.float32)}
    nodes: list[Any] = [("Conv", ("x", "weight"), about), ("Resize", ("1", "", "sizes"), ASYMMETRIC)]
    return save(path, nodes, constants, **more)


def in_cells(path: Path, cell: int, **more: Any) -> Path:
    """Cells of pixels as channels, a convolution between them, and pixels again."""
    weight = kernel(3, channels=3 * cell**2)
    about = {"kernel_shape": [3, 3], "pads": [1] * 4}
    nodes: list[Any] = [
        ("SpaceToDepth", ("x",), {"blocksize": cell}),
        ("Conv", ("1", "weight"), about),
        ("DepthToSpace", ("2",), {"blocksize": cell}),
    ]
    return save(path, nodes, {"weight": weight}, **more)


def by_strides(path: Path, **more: Any) -> Path:
    """Cells of 2x2 pixels by a convolution that steps over them."""
    weight = np.zeros((12, 3, 2, 2), np.float32)
    for channel in range(12):
        weight[channel, channel % 3, channel // 6, channel // 3 % 2] = 1
    nodes: list[Any] = [
        ("Conv", ("x", "weight"), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ("1", "mixing"), {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("DepthToSpace", ("2",), {"blocksize": 2}),
    ]
    return save(path, nodes, {"weight": weight, "mixing": kernel(3, channels=12)}, **more)


def global_mean(path: Path, share: float = 0.2, **more: Any) -> Path:
    """Each pixel, and a share of the mean of all."""
    nodes: list[Any] = [
        ("GlobalAveragePool", ("x",), {}),
        ("Mul", ("1", "share"), {}),
        ("Mul", ("x", "rest"), {}),
        ("Add", ("3", "2"), {}),
    ]
    return save(path, nodes, {"share": np.float32(share), "rest": np.float32(1 - share)}, **more)


def opened(path: Path, device: str = "cpu", precision: str = "fp32") -> Enlarger:
    runtime = "onnxruntime" if device == "webgpu" else "openvino"
    return open_model(path, Execution(runtime, precision, device))  # type: ignore[arg-type]  # as given


def enlarged(model: Enlarger, pixels: npt.NDArray[Any], inner: Window | None = None) -> npt.NDArray[Any]:
    height, width = pixels.shape[:2]
    return model.enlarge(pixels, inner or Window(0, 0, width, height))


# What the trial finds


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_the_scale_is_measured_and_a_pixel_is_repeated_so_many_times(tmp_path: Path, scale: int) -> None:
    path = nearest(tmp_path / "net.onnx", scale)
    spec = describe(path)
    assert (spec.name, spec.family, spec.scale, spec.licence) == ("net", "custom", scale, "unknown")
    assert (spec.halo, spec.halo_is_exact, spec.align) == (0, True, 1)
    for dtype in (np.uint8, np.uint16):
        pixels = picture(37, 23, dtype)
        wanted = pixels.repeat(scale, 0).repeat(scale, 1)
        assert np.array_equal(enlarged(opened(path), pixels), wanted)


@pytest.mark.parametrize(
    ("make", "halo", "align"),
    [
        (lambda path: convolution(path, 3), 1, 1),
        (lambda path: convolution(path, 7), 3, 1),
        (lambda path: convolution(path, 3, dilation=9), 9, 1),
        (lambda path: convolution(path, 5, dilation=30), 60, 1),
        (lambda path: in_cells(path, 2), 2, 2),
        (lambda path: in_cells(path, 8), 8, 8),
        (by_strides, 2, 2),
    ],
    ids=["3x3", "7x7", "dilated", "wide", "cells of 2", "cells of 8", "strides"],
)
def test_context_and_cells_are_those_of_the_convolutions(
    tmp_path: Path, make: Callable[[Path], Path], halo: int, align: int
) -> None:
    spec = describe(make(tmp_path / "net.onnx"))
    assert (spec.halo, spec.halo_is_exact, spec.align) == (halo, True, align)


def test_what_sees_to_one_side_alone_has_that_for_its_context(tmp_path: Path) -> None:
    """A kernel of two columns, of which the second lies five pixels to the right."""
    weight = np.zeros((3, 3, 1, 2), np.float32)
    weight[range(3), range(3), 0, :] = 0.9, 0.1
    about = {"kernel_shape": [1, 2], "dilations": [1, 5], "pads": [0, 0, 0, 5]}
    assert describe(save(tmp_path / "net.onnx", [("Conv", ("x", "w"), about)], {"w": weight})).halo == 5


def test_the_cost_is_that_of_the_convolutions_and_the_memory_that_of_their_pictures(tmp_path: Path) -> None:
    spec = describe(convolution(tmp_path / "net.onnx", 5))
    assert spec.macs_per_pixel == 3 * 3 * 5 * 5
    assert spec.findings is not None
    # A picture in fp32 and the enlarged one twice, before and behind its transposition.
    assert 4 * (3 + 12) <= spec.findings.bytes_per_pixel <= 2 * 4 * (12 + 12)


def test_a_trial_is_made_once_for_each_content(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = convolution(tmp_path / "net.onnx", 3)
    found = describe(path)
    tried: list[str] = []
    shutil.copy(path, tmp_path / "copy.onnx")
    real = foreign._tried

    def counted(file: foreign.Foreign) -> ModelSpec:
        tried.append(file.path.name)
        return real(file)

    monkeypatch.setattr(foreign, "_tried", counted)
    assert describe(tmp_path / "copy.onnx").findings == found.findings
    assert describe(tmp_path / "copy.onnx").name == "copy"
    assert tried == []
    convolution(path, 5)
    assert describe(path).halo == 2
    (first, second) = sorted((cache / "networks").iterdir())
    first.write_text(first.read_text()[:30])
    second.write_text("{}")
    assert (describe(path).halo, describe(tmp_path / "copy.onnx").halo) == (2, 1)
    assert tried == ["net.onnx", "net.onnx", "copy.onnx"]


# What runs


@pytest.mark.parametrize("make", [convolution, lambda path: in_cells(path, 4)], ids=["plain", "in cells"])
def test_a_part_is_the_same_whatever_is_seen_around_it(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = opened(make(tmp_path / "net.onnx"))
    halo, align, scale = model.spec.halo, model.spec.align, model.spec.scale
    frame = picture(61, 43)
    whole = enlarged(model, frame)
    for core in (Window(0, 0, 9, 7), Window(20, 12, 33, 29), Window(50, 40, 61, 43)):
        seen = core.widened(halo, align, (61, 43))
        part = enlarged(model, frame[seen.y0 : seen.y1, seen.x0 : seen.x1], core.within(seen))
        wanted = whole[core.y0 * scale : core.y1 * scale, core.x0 * scale : core.x1 * scale]
        assert most(part, np.ascontiguousarray(wanted)) == 0


def test_no_rim_is_darker_than_the_picture(tmp_path: Path) -> None:
    """The kernel's weights add up to one, so that flat white stays flat white if the edge is repeated."""
    weight = kernel(5)
    weight /= weight.sum((1, 2, 3), keepdims=True)
    about = {"kernel_shape": [5, 5], "pads": [2] * 4}
    model = opened(save(tmp_path / "net.onnx", [("Conv", ("x", "weight"), about)], {"weight": weight}))
    assert (enlarged(model, np.full((12, 20, 3), 235, np.uint8)) == 235).all()


@pytest.mark.parametrize("size", [(64, 48), (40, 32)], ids=["64x48", "40x32"])
def test_a_network_of_one_size_gives_what_one_of_any_size_gives(tmp_path: Path, size: tuple[int, int]) -> None:
    """For pictures that are smaller, and that are many tiles."""
    takes = (1, 3, size[1], size[0])
    fixed, free = convolution(tmp_path / "fixed.onnx", 5, takes=takes), convolution(tmp_path / "free.onnx", 5)
    spec = describe(fixed)
    assert spec.findings is not None
    assert (spec.scale, spec.halo, spec.halo_is_exact, spec.findings.size) == (2, 2, True, size)
    assert spec.macs_per_pixel > describe(free).macs_per_pixel  # context is computed for each tile
    for width, height in ((11, 5), (101, 75)):
        pixels = picture(width, height, np.uint16)
        assert most(enlarged(opened(fixed), pixels), enlarged(opened(free), pixels)) <= 1


def test_a_network_in_half_precision_is_one_of_pictures_too(tmp_path: Path) -> None:
    half = opened(convolution(tmp_path / "half.onnx", 3, kind=TensorProto.FLOAT16))
    pixels = picture(30, 20)
    assert half.spec.halo == 1
    assert most(enlarged(half, pixels), enlarged(opened(convolution(tmp_path / "full.onnx", 3)), pixels)) <= 1


def test_weights_beside_the_model_belong_to_it(tmp_path: Path) -> None:
    one, apart = convolution(tmp_path / "one.onnx", 3), convolution(tmp_path / "two.onnx", 3, beside="weights.bin")
    pixels = picture(30, 20)
    assert np.array_equal(enlarged(opened(one), pixels), enlarged(opened(apart), pixels))
    before = foreign.sha256_of(apart)
    assert opened(apart).sha256 == before
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[:4] = np.float32(0.2).tobytes()
    (tmp_path / "weights.bin").write_bytes(weights)
    assert foreign.sha256_of(apart) != before
    assert most(enlarged(opened(one), pixels), enlarged(opened(apart), pixels)) > 2
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"two\.onnx has tensors in .*weights\.bin, which is not there"):
        describe(apart)


@pytest.mark.parametrize("name", ["../weights.bin", "/weights.bin", "a/../../weights.bin"])
def test_a_model_reads_no_files_of_other_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "below").mkdir()
    path = convolution(tmp_path / "below" / "net.onnx", 3, beside="weights.bin")
    shutil.copy(tmp_path / "below" / "weights.bin", tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    for array in model.graph.initializer:
        next(entry for entry in array.external_data if entry.key == "location").value = name
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="does not lie beside it"):
        describe(path)


# What is refused

GAUSSIAN: list[Any] = [("RandomNormalLike", ("x",), {"scale": 0.01}), ("Add", ("x", "1"), {})]
RAMP: list[Any] = [
    ("Mul", ("x", "none"), {}),
    ("Add", ("1", "step"), {}),
    ("CumSum", ("2", "axis"), {}),
    ("Add", ("x", "3"), {}),
]
STEP = {"none": np.float32(0), "step": np.float32(0.001), "axis": np.int64(3)}
TWICE: list[Any] = [("Identity", ("x",), {}), ("Identity", ("x",), {})]
LAST = (1, "h", "w", 3)
FIRST = {"starts": np.array([0]), "ends": np.array([1]), "axes": np.array([1])}
PLUS = {"one": np.float32(1)}

BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty file": (lambda path: path.write_bytes(b""), "cannot be read as an ONNX model"),
    "text": (lambda path: path.write_text("a network"), "cannot be read as an ONNX model"),
    "cut short": (lambda path: path.write_bytes(convolution(path, 9).read_bytes()[:-300]), "cannot be read as an ONNX"),
    "an operator of its own": (lambda path: save(path, [("Sharpen", ("x",), {})]), r"OpenVINO \S+ lacks: Sharpen"),
    "two pictures in": (
        lambda path: save(path, [("Add", ("x", "y"), {})], inputs=("x", "y")),
        "2 inputs and 1 outputs",
    ),
    "two pictures out": (lambda path: save(path, TWICE, outputs=("1", "2")), "1 inputs and 2 outputs"),
    "bytes": (lambda path: save(path, [("Identity", ("x",), {})], kind=TensorProto.UINT8), "it takes u8"),
    "one channel": (lambda path: nearest(path, takes=(1, 1, "h", "w")), r"it takes tensors of the shape \[1,1,"),
    "channels last": (lambda path: save(path, TWICE[:1], takes=LAST, gives=LAST), r"the shape \[1,\?,\?,3\] alone"),
    "a batch of four": (lambda path: nearest(path, takes=(4, 3, "h", "w")), r"it takes tensors of the shape \[4,3,"),
    "no batch": (lambda path: save(path, TWICE[:1], takes=(3, "h", "w"), gives=(3, "h", "w")), r"shape \[3,\?,\?\]"),
    "brightness alone": (
        lambda path: save(path, [("Slice", ("x", "starts", "ends", "axes"), {})], FIRST, gives=(1, "c", "H", "W")),
        r"it gives tensors of the shape \[1,1,",
    ),
    "half as large": (lambda path: nearest(path, 0.5), "of 64x64 pixels it makes 32x32 of 3 channels"),
    "by one and a half": (lambda path: nearest(path, 1.5), "it makes 96x96"),
    "wider than high": (lambda path: nearest(path, (2, 4)), "it makes 256x128"),
    "too large": (lambda path: nearest(path, 16), "it makes 1024x1024"),
    "not finite": (lambda path: save(path, [("Sub", ("x", "one"), {}), ("Log", ("1",), {})], PLUS), "is not finite"),
    "codes of 0 to 255": (
        lambda path: save(path, [("Mul", ("x", "small"), {})], {"small": np.float32(1 / 255)}),
        "does not show the picture that it was given, RGB from 0 to 1",
    ),
    "a negative": (lambda path: save(path, [("Neg", ("x",), {})]), "does not show the picture"),
    "never the same": (lambda path: save(path, GAUSSIAN), "does not give the same result for the same picture"),
    "another thing at each place": (lambda path: save(path, RAMP, STEP), "depends on where its picture begins"),
    "of one tiny size": (lambda path: nearest(path, takes=(1, 3, 16, 16)), r"\[1,3,16,16\] alone; 32 pixels a side"),
    "of one size and all-seeing": (
        lambda path: global_mean(path, takes=(1, 3, 64, 64)),
        r"pictures of 64x64 alone, and what lies 24 pixels away changes them by \d",
    ),
    "of one size that takes all memory": (
        lambda path: nearest(path, 8, takes=(1, 3, 1080, 1920)),
        r"pictures of 1920x1080, the only ones it takes, need \d+ MiB of memory, and 512 are the most",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_network_of_pictures_is_refused_with_what_was_found(tmp_path: Path, kind: str) -> None:
    make, said = BROKEN[kind]
    path = tmp_path / "net.onnx"
    make(path)
    with pytest.raises(ModelError, match=said) as refused:
        describe(path)
    assert str(path) in refused.value.message
    assert refused.value.remedy


def test_a_job_is_refused_before_anything_is_made(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = nearest(tmp_path / "net.onnx", 1.5)
    code = command(["upscale", str(clip), "--model", str(network), "-o", str(tmp_path / "out.mp4"), "--size", "64x48"])
    assert code == 4
    said = capsys.readouterr().err
    assert "of 64x64 pixels it makes 96x96" in said
    assert "Export it with one input and one output" in said
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["in.mkv", "net.onnx"]


# Jobs


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mkv", [numbered(n, SMALL) for n in range(3)], codec="ffv1")


TWICE_AS_LARGE = (SMALL[0] * 2, SMALL[1] * 2)


def job_with(clip: Path, network: Path, name: str = "out.mp4", **compute: Any) -> Any:
    chosen = Compute(**compute) if compute else Compute(device="cpu")
    return small_job(
        clip, clip.with_name(name), size=TWICE_AS_LARGE, model=ModelChoice(name=str(network)), compute=chosen
    )


def test_a_whole_job_shows_each_source_pixel_twice(clip: Path, tmp_path: Path) -> None:
    made: Result = run(job_with(clip, nearest(tmp_path / "my net.onnx")))
    assert (made.done.runtime, made.plan.scale) == ("openvino", 2)
    assert any("model my net x2" in note for note in made.notes)
    frames = list(grey(made.path))
    assert len(frames) == 3
    for frame, source in zip(frames, grey(clip), strict=True):
        off = np.abs(frame.astype(int) - source.repeat(2, 0).repeat(2, 1))
        assert np.percentile(off, 95) <= 2  # of x264 at crf 8


def test_tiles_give_the_same_pictures(clip: Path, tmp_path: Path) -> None:
    network = convolution(tmp_path / "net.onnx", 5)
    whole, tiled = run(job_with(clip, network)), run(job_with(clip, network, "tiled.mp4", device="cpu", tile=32))
    assert planes(whole.path) == planes(tiled.path)


def test_the_key_of_a_job_covers_the_network_and_not_its_name(clip: Path, tmp_path: Path) -> None:
    network, copy = convolution(tmp_path / "net.onnx"), tmp_path / "copy.onnx"
    shutil.copy(network, copy)
    other = convolution(tmp_path / "other.onnx", seed=2)
    apart = convolution(tmp_path / "apart.onnx", beside="weights.bin")
    keys = [job_key(prepare_plan(job_with(clip, each)), "0" * 64) for each in (network, copy, other, apart)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    asked = job_with(clip, network, device="cpu", precision=Precision.FP32)
    assert job_key(prepare_plan(asked), "0" * 64) == keys[0]


def test_a_network_that_sees_the_whole_picture_runs_with_a_warning(clip: Path, tmp_path: Path) -> None:
    plan = prepare_plan(job_with(clip, global_mean(tmp_path / "net.onnx")))
    assert plan.model is not None
    assert (plan.model.halo, plan.model.halo_is_exact) == (80, False)
    said = "net sees farther than the 80 pixels of context that it is given: up to "
    assert any(said in str(warning) for warning in plan.warnings)
    faint = prepare_plan(job_with(clip, global_mean(tmp_path / "faint.onnx", share=0.001)))
    assert faint.model is not None
    assert not faint.model.halo_is_exact
    assert not any("sees farther" in str(warning) for warning in faint.warnings)


def test_weights_beside_the_model_are_not_sent_elsewhere(clip: Path, tmp_path: Path) -> None:
    job = job_with(clip, convolution(tmp_path / "net.onnx", beside="weights.bin"))
    with pytest.raises(UsageError, match="weights in files beside it") as refused:
        prepare_plan(job, remote=True)
    assert "as one file" in str(refused.value.remedy)
    whole = job_with(clip, convolution(tmp_path / "whole.onnx"), device="auto")
    assert prepare_plan(whole, remote=True).executions == (Execution("openvino", "fp32", "cpu"),)


# Devices and precisions


@pytest.mark.parametrize(
    ("device", "asked", "on_cpu", "wanted"),
    [
        ("cpu", Precision.AUTO, {"int8", "bf16"}, Execution("openvino", "fp32", "cpu")),
        ("cpu", Precision.AUTO, {"int8", "bf16", "fp16"}, Execution("openvino", "fp16", "cpu")),
        ("cpu", Precision.BF16, {"bf16"}, Execution("openvino", "bf16", "cpu")),
        ("intel:1", Precision.AUTO, set(), Execution("openvino", "fp16", "intel:1")),
        ("webgpu", Precision.AUTO, set(), Execution("onnxruntime", "fp32", "webgpu")),
        ("webgpu", Precision.FP16, set(), Execution("onnxruntime", "fp16", "webgpu")),
    ],
)
def test_what_runs_it(tmp_path: Path, device: str, asked: Precision, on_cpu: set[str], wanted: Execution) -> None:
    assert choose_execution(describe(nearest(tmp_path / "net.onnx")), device, asked, on_cpu=on_cpu) == wanted


def test_devices_of_torchs_are_passed_over_and_refused(tmp_path: Path) -> None:
    spec = describe(nearest(tmp_path / "net.onnx"))
    ways = possible_executions(spec, "auto", Precision.AUTO, on_cpu=(), gpus=("cuda", "webgpu"))
    assert [way.device for way in ways] == ["cpu", "webgpu"]
    for device in ("cuda", "cuda:1", "mps"):
        with pytest.raises(UsageError, match=f"net is an ONNX model, .* not on {device}") as refused:
            choose_execution(spec, device, Precision.AUTO, on_cpu=())
        assert "--device webgpu" in str(refused.value.remedy)
    with pytest.raises(UsageError, match="precision int8 is not there for net"):
        choose_execution(spec, "cpu", Precision.INT8, on_cpu={"int8"})


def test_fewer_bits_are_held_to_the_golden_tile(tmp_path: Path) -> None:
    """The convolution of huge and tiny weights: bf16 loses the tiny ones, and says so."""
    from keyscale.engine.models.openvino import cpu_precisions

    if "bf16" not in cpu_precisions():
        pytest.skip("this CPU has no bf16")
    gentle = opened(convolution(tmp_path / "net.onnx"), precision="bf16")
    assert gentle.decibels is not None
    assert golden.LEAST["bf16"] <= gentle.decibels < golden.MOST
    weight = np.concatenate((np.eye(3) * 500, np.eye(3) * 500))[..., None, None].astype(np.float32)
    back = np.concatenate((np.eye(3) * 0.5, np.eye(3) * -0.498), 1)[..., None, None].astype(np.float32)
    nodes: list[Any] = [("Conv", ("x", "weight"), {}), ("Add", ("1", "bias"), {}), ("Conv", ("2", "back"), {})]
    bias = np.concatenate((np.full(3, 300.0), np.full(3, 300 * 0.5 / 0.498)))[None, :, None, None].astype(np.float32)
    harsh = save(tmp_path / "harsh.onnx", nodes, {"weight": weight, "bias": bias, "back": back})
    with pytest.raises(DeviceError, match="from fp32 in bf16 on cpu"):
        opened(harsh, precision="bf16")


# On WebGPU


def shaped(path: Path) -> Path:
    """Enlarged to a size that the graph computes from its input's, as exporters write it."""
    nodes: list[Any] = [
        ("Shape", ("x",), {"start": 2}),
        ("Mul", ("1", "two"), {}),
        ("Concat", ("first", "2"), {"axis": 0}),
        ("Conv", ("x", "weight"), {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("Resize", ("4", "", "", "3"), ASYMMETRIC),
    ]
    return save(path, nodes, {"two": np.int64(2), "first": np.array([1, 3]), "weight": kernel(3)})


@pytest.mark.parametrize("make", [by_strides, shaped])
def test_webgpu_gives_what_the_cpu_gives(software_gpu: str, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "net.onnx")
    there, here = opened(path, "webgpu"), opened(path)
    assert there.describe().startswith(f"webgpu ({software_gpu}")
    assert there.decibels is not None
    assert there.decibels >= golden.LEAST["fp32"]
    for dtype, inner in ((np.uint8, Window(0, 0, 300, 40)), (np.uint16, Window(8, 4, 150, 27))):
        pixels = picture(300, 40, dtype)
        assert most(enlarged(there, pixels, inner), enlarged(here, pixels, inner)) <= (1 if dtype is np.uint8 else 8)


def test_a_network_on_webgpu_may_have_weights_beside_it_and_one_size(software_gpu: str, tmp_path: Path) -> None:
    path = convolution(tmp_path / "net.onnx", beside="weights.bin", takes=(1, 3, 48, 64))
    pixels = picture(90, 50)
    assert most(enlarged(opened(path, "webgpu"), pixels), enlarged(opened(path), pixels)) <= 1


def test_half_precision_on_webgpu_is_that_of_the_same_network(software_gpu: str, tmp_path: Path) -> None:
    path, pixels = convolution(tmp_path / "net.onnx"), picture(50, 40)
    half = opened(path, "webgpu", "fp16")
    assert half.decibels is not None
    assert 45 < half.decibels < golden.MOST
    assert most(enlarged(half, pixels), enlarged(opened(path), pixels)) <= 2


def test_an_operator_that_webgpu_lacks_does_not_run_on_the_cpu_instead(software_gpu: str, tmp_path: Path) -> None:
    """Which is `SpaceToDepth`."""
    with pytest.raises(DeviceError, match=r"net does not run in fp32 on webgpu .*fallback to CPU EP has been explicit"):
        opened(in_cells(tmp_path / "net.onnx", 2), "webgpu")
