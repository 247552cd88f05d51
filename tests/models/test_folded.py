"""Plain networks that fold 2x2 pixels into channels: the numbers of a direct implementation, from any window."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from support.pictures import most, picture, run_graph, whole
from torch import Tensor
from torch.nn import functional

from keyscale.engine.camera.geometry import Window
from keyscale.engine.errors import ModelError
from keyscale.engine.models import describe, load_model, shipped
from keyscale.engine.models.enlarger import Enlarger
from keyscale.engine.models.openvino import load_openvino
from keyscale.engine.models.openvino_graph import UNQUANTISED, build_graph, folded, interleaved, read_graph
from keyscale.engine.models.openvino_model import OpenvinoModel
from keyscale.engine.models.registry import ModelSpec, macs_per_pixel, receptive_field
from keyscale.engine.models.torch_model import Model
from keyscale.engine.models.torch_networks import PlainNet, build, inspect
from keyscale.engine.pipeline.upscaler import Upscaler

Pixels = npt.NDArray[Any]

SIZE = (61, 47)


def state_of(*, features: int = 8, blocks: int = 2, scale: int = 2, fold: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Random weights whose pictures have the spread of their input."""
    generator = torch.Generator().manual_seed(seed)
    channels = [3 * fold**2, *[features] * (blocks + 1), 3 * (scale * fold) ** 2]
    state = {}
    for index, (before, after) in enumerate(pairwise(channels)):
        gain = 0.1 if index == blocks + 1 else 1.4
        weight = torch.randn(after, before, 3, 3, generator=generator) * gain / (9 * before) ** 0.5
        state[f"convs.{index}.weight"] = weight
        state[f"convs.{index}.bias"] = torch.randn(after, generator=generator) * 0.01
    return state


def reference(state: dict[str, Tensor], x: Tensor, *, scale: int, fold: int) -> Tensor:
    """The definition, step by step."""
    y = functional.pixel_unshuffle(x, fold)
    last = len(state) // 2 - 1
    for index in range(last + 1):
        y = functional.conv2d(y, state[f"convs.{index}.weight"], state[f"convs.{index}.bias"], padding=1)
        if index < last:
            y = functional.relu(y)
    zeros = functional.pad(x, (fold, fold, fold, fold))
    enlarged = functional.interpolate(zeros, scale_factor=scale, mode="bilinear", align_corners=False)
    edge = scale * fold
    return functional.pixel_shuffle(y, edge) + enlarged[..., edge:-edge, edge:-edge]


def in_torch(state: dict[str, Tensor]) -> Model:
    return Model(state, inspect(state, name="folded"), sha256="0" * 64, device="cpu", precision="fp32")


def in_openvino(state: dict[str, Tensor]) -> OpenvinoModel:
    spec = inspect(state, name="folded")
    return OpenvinoModel(build_graph(state, spec), spec, sha256="0" * 64, precision="fp32")


def quantised(state: dict[str, Tensor], path: Path) -> OpenvinoModel:
    """In int8, by way of the files that are shipped of such a network."""
    nncf = pytest.importorskip("nncf")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    spec = inspect(state, name="folded")
    cells = folded(picture(64, 48), spec.fold).transpose(2, 0, 1)[None].astype(np.float32) / 255
    graph = nncf.quantize(
        build_graph(state, spec),
        nncf.Dataset([cells]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=1,
        ignored_scope=nncf.IgnoredScope(names=list(UNQUANTISED)),
    )
    load_openvino().serialize(graph, path)
    graph = read_graph(path.read_bytes(), path.with_suffix(".bin").read_bytes())
    return OpenvinoModel(graph, spec, sha256="0" * 64, precision="int8")


RUNTIMES: dict[str, Callable[[dict[str, Tensor]], Enlarger]] = {"torch": in_torch, "openvino": in_openvino}


# What such a network is


def test_it_is_read_off_its_tensors() -> None:
    spec = inspect(state_of(features=8, blocks=3), name="net")
    assert (spec.architecture, spec.features, spec.blocks, spec.scale, spec.fold) == ("plain", 8, 3, 2, 2)
    assert (spec.halo, spec.halo_is_exact, spec.align) == (10, True, 2)
    assert inspect(state_of(scale=4)).scale == 4
    assert inspect(state_of(fold=1)).fold == 1


@pytest.mark.parametrize(
    ("first", "last"),
    [(12, 27), (12, 47), (12, 3), (27, 48), (6, 48), (12, 0)],
    ids=["an odd cell", "no cell", "less than one", "folded by 3", "no colours", "nothing"],
)
def test_other_channels_are_refused(first: int, last: int) -> None:
    state = state_of() | {"convs.0.weight": torch.zeros(8, first, 3, 3), "convs.3.weight": torch.zeros(last, 8, 3, 3)}
    with pytest.raises(ModelError, match=f"with {first} input channels, 4 convolutions and {last} channels"):
        build(state, name="net")


@pytest.mark.parametrize(
    ("features", "blocks", "scale", "macs"), [(32, 4, 2, 13_536), (48, 6, 2, 37_584), (64, 4, 4, 66_240)]
)
def test_its_cost_is_that_of_a_quarter_of_the_pixels(features: int, blocks: int, scale: int, macs: int) -> None:
    assert macs_per_pixel("plain", features=features, blocks=blocks, scale=scale, fold=2) == macs
    weights = [value for value in state_of(features=features, blocks=blocks, scale=scale).values() if value.ndim == 4]
    assert macs == sum(value.numel() for value in weights) / 4


def test_its_context_is_in_whole_cells() -> None:
    assert receptive_field("plain", blocks=4, scale=2, fold=2) == 12
    model = in_torch(state_of(blocks=1))
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, :, 12, 12] = 0
    # A cell, and three of context each way.
    moved = (model(changed) - model(x)).abs().amax(1)[0] > 0
    rows, columns = moved.any(1).nonzero(), moved.any(0).nonzero()
    assert [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1] == [12, 40, 12, 40]
    assert model.spec.halo == 6


def test_a_manifest_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (student, *_) = shipped.read_manifest().students
    two = replace(student, fold=2)
    shipped.write([two], tmp_path)
    monkeypatch.setattr(shipped, "data_file", lambda name: tmp_path / name)
    assert shipped.read_manifest().students == (two,)


# The numbers


@pytest.mark.parametrize(("scale", "fold"), [*product([1, 2, 4], [1, 2])])
@pytest.mark.parametrize("size", [(2, 2), (12, 10), (40, 150)])
def test_it_gives_what_its_definition_gives(size: tuple[int, int], scale: int, fold: int) -> None:
    state = state_of(scale=scale, fold=fold)
    network, _ = build(dict(state))
    assert isinstance(network, PlainNet)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    wanted = reference(state, x, scale=scale, fold=fold)
    torch.testing.assert_close(network(x), wanted, atol=1e-5, rtol=0)


def test_an_odd_picture_is_completed_by_its_last_row_and_column() -> None:
    state = state_of()
    x = torch.rand(1, 3, 5, 7)
    completed = functional.pad(x, (0, 1, 0, 1), mode="replicate")
    wanted = reference(state, completed, scale=2, fold=2)[:, :, :10, :14]
    torch.testing.assert_close(in_torch(state)(x), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "fold"), [*product([1, 2, 4], [1, 2])])
def test_its_graph_takes_cells_and_gives_cells(scale: int, fold: int) -> None:
    state = state_of(scale=scale, fold=fold)
    graph = build_graph(state, inspect(state))
    x = np.random.default_rng(3).random((18, 26, 3), np.float32)
    cells = run_graph(graph, folded(x, fold).transpose(2, 0, 1)[None])
    wanted = reference(state, torch.from_numpy(x).permute(2, 0, 1)[None], scale=scale, fold=fold)
    enlarged = interleaved(np.ascontiguousarray(cells[0].transpose(1, 2, 0)), scale * fold)
    assert np.abs(enlarged - wanted[0].permute(1, 2, 0).numpy()).max() < 1e-4
    assert graph.input("picture").partial_shape.to_string() == f"[1,{3 * fold**2},?,?]"
    assert graph.output("cells").partial_shape[1].get_length() == 3 * (scale * fold) ** 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_cells_lie_row_by_row_column_by_column(dtype: Any, fold: int) -> None:
    pixels = np.arange(6 * 12 * 3).reshape(6, 12, 3).astype(dtype)
    cells = folded(pixels, fold)
    assert cells.shape == (6 // fold, 12 // fold, 3 * fold**2)
    assert np.array_equal(cells[1, 2].reshape(fold, fold, 3), pixels[fold : 2 * fold, 2 * fold : 3 * fold])
    assert np.array_equal(interleaved(cells, fold), pixels)
    assert np.array_equal(folded(pixels[:, ::-1], fold), folded(pixels[:, ::-1].copy(), fold))


def test_what_has_no_whole_cells_is_not_folded() -> None:
    with pytest.raises(ValueError, match="reshape"):
        folded(np.zeros((4, 5, 3), np.uint8), 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 40), (37, 42), SIZE])
def test_both_runtimes_agree(size: tuple[int, int], scale: int, dtype: Any) -> None:
    state = state_of(scale=scale)
    frame = picture(*size, dtype)
    ours = Upscaler(in_openvino(state), size)(frame, whole(size))
    theirs = Upscaler(in_torch(state), size)(frame, whole(size))
    assert ours.shape == (scale * size[1], scale * size[0], 3)
    assert most(ours, theirs) <= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("size", [(20, 16), (21, 15)])
def test_beyond_its_border_a_frame_goes_on_as_its_edge(size: tuple[int, int], runtime: str) -> None:
    """An odd frame, its last cell completed, is a frame one pixel larger that repeats its edge."""
    state = state_of()
    frame = picture(*size)
    enough = 2 * inspect(state).halo
    wide = np.pad(frame, ((enough, enough + size[1] % 2), (enough, enough + size[0] % 2), (0, 0)), mode="edge")
    x = torch.from_numpy(wide.astype(np.float32) / 255).permute(2, 0, 1)[None]
    y = reference(state, x, scale=2, fold=2)[0].permute(1, 2, 0).numpy()
    wanted = (y.clip(0, 1) * 255 + 0.5).astype(np.uint8)[2 * enough :, 2 * enough :][: 2 * size[1], : 2 * size[0]]
    assert most(Upscaler(RUNTIMES[runtime](state), size)(frame, whole(size)), wanted) <= 1


# From any window


def windows(size: tuple[int, int]) -> list[Window]:
    """Every parity of origin and size, inside and at each border and corner of a frame."""
    width, height = size
    spans_x, spans_y = (
        [(0, 9), (0, 10), (20, 29), (20, 30), (21, 30), (21, 31), (side - 9, side), (side - 10, side)] for side in size
    )
    both = [Window(x0, y0, x1, y1) for (x0, x1), (y0, y1) in product(spans_x, spans_y)]
    return [*both, Window(width - 1, height - 1, width, height), Window(3, 0, width - 2, height)]


def check_windows(load: Callable[[], Enlarger], size: tuple[int, int], dtype: Any) -> None:
    frame = picture(*size, dtype)
    everything = Upscaler(load(), size)(frame, whole(size))
    assert 20 < everything.std() / (np.iinfo(dtype).max / 255) < 120
    scale = load().spec.scale
    moved = Upscaler(load(), size)
    for window in windows(size):
        moved.forget()
        same = everything[window.y0 * scale : window.y1 * scale, window.x0 * scale : window.x1 * scale]
        assert most(moved(frame, window), same) == 0, window
    for tile in (32, 33):
        assert most(Upscaler(load(), size, tile=tile)(frame, whole(size)), everything) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [SIZE, (60, 48)], ids=["odd", "even"])
def test_a_pixel_does_not_depend_on_the_window_in_openvino(size: tuple[int, int], dtype: Any) -> None:
    check_windows(partial(in_openvino, state_of()), size, dtype)


@pytest.mark.parametrize("size", [SIZE, (60, 48)], ids=["odd", "even"])
def test_a_pixel_does_not_depend_on_the_window_in_torch(size: tuple[int, int]) -> None:
    check_windows(partial(in_torch, state_of()), size, np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nor_in_int8(dtype: Any, tmp_path: Path) -> None:
    state = state_of(features=16)
    near = quantised(state, tmp_path / "net.xml")
    check_windows(lambda: near, SIZE, dtype)
    frame = picture(*SIZE, dtype)
    exact = Upscaler(in_torch(state), SIZE)(frame, whole(SIZE))
    difference = np.abs(Upscaler(near, SIZE)(frame, whole(SIZE)).astype(np.int64) - exact)
    assert difference.mean() < 2 * (np.iinfo(dtype).max / 255)


def test_windows_of_either_parity_share_a_graph() -> None:
    model = in_openvino(state_of())
    upscaler = Upscaler(model, (200, 100))
    frame = picture(200, 100)
    for step in range(12):
        upscaler(frame, Window(20 + step, 11, 103 + step, 72))
    assert model.compilations == 1


# A checkpoint of one's own


def test_a_checkpoint_is_read_off_its_tensors(tmp_path: Path) -> None:
    state = state_of()
    save_file(state, tmp_path / "net.safetensors")
    spec = describe(tmp_path / "net.safetensors")
    assert isinstance(spec, ModelSpec)
    assert (spec.name, spec.fold, spec.shipped) == ("net", 2, False)
    frame = picture(*SIZE)
    ours = Upscaler(load_model(tmp_path / "net.safetensors"), SIZE)(frame, whole(SIZE))
    assert most(ours, Upscaler(in_torch(state), SIZE)(frame, whole(SIZE))) == 0
