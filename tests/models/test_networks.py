"""The networks: the numbers of the original ones, any window size, precision, devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from keyscale.engine.errors import DeviceError, Interrupted, ModelError, UsageError
from keyscale.engine.models import describe, load_model, torch_networks
from keyscale.engine.models.torch_model import Model
from keyscale.engine.models.torch_networks import RRDBNet, SRVGGNetCompact, build, inspect
from keyscale.engine.models.weights import sha256_of

GOLDEN = Path(__file__).parent / "golden" / "networks.npz"
CASES = ("srvgg_x4", "srvgg_x2", "rrdb_x4", "rrdb_x2", "rrdb_x1")
TOLERANCE = 1e-5
"""Largest difference in fp32: sums are taken in another order by other convolution kernels."""


@pytest.fixture(scope="module")
def golden() -> Iterator[Any]:
    with np.load(GOLDEN) as arrays:
        yield arrays


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state_of(golden: Any, case: str) -> dict[str, Tensor]:
    prefix = f"{case}/state/"
    return {key.removeprefix(prefix): torch.from_numpy(golden[key]) for key in golden if key.startswith(prefix)}


def random_network(network: torch_networks.Network, seed: int = 0) -> torch_networks.Network:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    return network.eval().requires_grad_(False)


def small_model(network: torch_networks.Network, precision: str = "fp32") -> Model:
    state = random_network(network).state_dict()
    return Model(state, inspect(state, name="small"), sha256="0" * 64, device="cpu", precision=precision)


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


class TestSameNumbersAsTheOriginals:
    """`golden/networks.npz` was made by the networks of basicsr 1.4.2 and realesrgan 0.3.0."""

    @pytest.mark.parametrize("case", CASES)
    def test_network(self, golden: Any, case: str) -> None:
        network, _ = build(state_of(golden, case))
        with torch.inference_mode():
            y = network(torch.from_numpy(golden[f"{case}/x"]))
        assert difference(y, torch.from_numpy(golden[f"{case}/y"])) <= TOLERANCE

    @pytest.mark.parametrize("case", CASES)
    def test_model(self, golden: Any, case: str) -> None:
        state = state_of(golden, case)
        model = Model(state, inspect(state), sha256="", device="cpu", precision="fp32")
        y = model(torch.from_numpy(golden[f"{case}/x"]))
        assert difference(y, torch.from_numpy(golden[f"{case}/y"])) <= TOLERANCE

    @pytest.mark.parametrize("case", CASES)
    def test_state_dict_has_the_same_keys_in_the_same_order(self, golden: Any, case: str) -> None:
        state = state_of(golden, case)
        assert list(build(state)[0].state_dict()) == list(state)

    def test_official_weights(self, golden: Any, shared: Path) -> None:
        model = load_model(shared / "weights" / "realesr-animevideov3.pth")
        y = model(torch.from_numpy(golden["realesr-animevideov3/x"]))
        assert difference(y, torch.from_numpy(golden["realesr-animevideov3/y"])) <= TOLERANCE


class TestReadingACheckpoint:
    @pytest.mark.parametrize(
        ("case", "expected"),
        [
            ("srvgg_x4", ("srvgg", 4, 8, 3, 5, 1)),
            ("srvgg_x2", ("srvgg", 2, 12, 2, 4, 1)),
            ("rrdb_x4", ("rrdb", 4, 6, 2, 34, 1)),
            ("rrdb_x2", ("rrdb", 2, 4, 1, 38, 2)),
            ("rrdb_x1", ("rrdb", 1, 4, 1, 76, 4)),
        ],
    )
    def test_its_shape_is_read_off(self, golden: Any, case: str, expected: tuple[object, ...]) -> None:
        spec = inspect(state_of(golden, case), name="mine")
        found = (spec.architecture, spec.scale, spec.features, spec.blocks, spec.halo, spec.align)
        assert found == expected
        assert (spec.name, spec.family, spec.licence, spec.files) == ("mine", "custom", "unknown", ())

    def test_the_cost_of_a_checkpoint_counts_its_own_growth(self, golden: Any) -> None:
        state = state_of(golden, "rrdb_x4")
        per_cell = {"conv_up1": 4, "conv_up2": 16, "conv_hr": 16, "conv_last": 16}
        expected = sum(
            value.numel() * per_cell.get(key.split(".")[0], 1) for key, value in state.items() if value.ndim == 4
        )
        assert inspect(state).macs_per_pixel == expected

    def test_a_network_of_another_kind(self) -> None:
        with pytest.raises(ModelError, match=r"mine is not a Real-ESRGAN network: its 1 tensors begin with model\.0"):
            build({"model.0.weight": torch.zeros(1)}, name="mine")

    def test_other_input_channels(self) -> None:
        state = random_network(SRVGGNetCompact(features=4, blocks=1, scale=2)).state_dict()
        state["body.0.weight"] = torch.zeros(4, 1, 3, 3)
        with pytest.raises(ModelError, match="with 1 input channels"):
            build(state)

    def test_rrdb_with_other_input_channels(self) -> None:
        state = random_network(RRDBNet(features=4, blocks=1, scale=4, growth=2)).state_dict()
        state["conv_first.weight"] = torch.zeros(4, 27, 3, 3)
        with pytest.raises(ModelError, match="with 27 input channels"):
            build(state)

    def test_an_activation_that_is_not_prelu(self) -> None:
        state = random_network(SRVGGNetCompact(features=4, blocks=1, scale=2)).state_dict()
        kept = {key: value for key, value in state.items() if value.ndim == 4 or key.endswith("bias")}
        with pytest.raises(ModelError, match="without PReLU slopes"):
            build(kept)

    def test_kernels_of_another_size(self) -> None:
        state = random_network(SRVGGNetCompact(features=4, blocks=1, scale=2)).state_dict()
        state["body.0.weight"] = torch.zeros(4, 3, 5, 5)
        with pytest.raises(ModelError, match=r"body\.0\.weight has the shape \(4, 3, 5, 5\)"):
            build(state)

    def test_a_tensor_that_is_missing(self) -> None:
        state = random_network(RRDBNet(features=4, blocks=2, scale=4, growth=2)).state_dict()
        del state["body.1.rdb2.conv3.bias"]
        with pytest.raises(ModelError, match=r"does not fit.*body\.1\.rdb2\.conv3\.bias"):
            build(state)

    def test_a_tensor_of_another_shape(self) -> None:
        state = random_network(SRVGGNetCompact(features=4, blocks=1, scale=2)).state_dict()
        state["body.2.bias"] = torch.zeros(5)
        with pytest.raises(ModelError, match=r"looks like srvgg x2 with 4 features and 1 blocks.*body\.2\.bias"):
            build(state)

    def test_a_path_is_described_by_its_checkpoint(self, tmp_path: Path) -> None:
        path = tmp_path / "my-net.pth"
        torch.save({"params_ema": random_network(RRDBNet(features=4, blocks=1, scale=2)).state_dict()}, path)
        spec = describe(path)
        assert (spec.name, spec.architecture, spec.scale, spec.blocks) == ("my-net", "rrdb", 2, 1)
        model = load_model(str(path))
        assert model.spec == spec
        assert model.sha256 == sha256_of(path)


class TestAnyWindow:
    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 3), (8, 8)])
    @pytest.mark.parametrize(
        "network",
        [
            SRVGGNetCompact(features=4, blocks=2, scale=4),
            RRDBNet(features=4, blocks=1, scale=4, growth=2),
            RRDBNet(features=4, blocks=1, scale=2, growth=2),
            RRDBNet(features=4, blocks=1, scale=1, growth=2),
        ],
        ids=["srvgg_x4", "rrdb_x4", "rrdb_x2", "rrdb_x1"],
    )
    def test_every_size_is_enlarged_exactly(self, network: torch_networks.Network, size: tuple[int, int]) -> None:
        model = small_model(network)
        y = model(picture(2, 3, *size))
        assert y.shape == (2, 3, size[0] * model.spec.scale, size[1] * model.spec.scale)
        assert y.dtype == torch.float32
        assert y.isfinite().all()

    def test_an_odd_window_is_completed_by_its_last_row_and_column(self) -> None:
        model = small_model(RRDBNet(features=4, blocks=1, scale=2, growth=2))
        x = picture(1, 3, 5, 7)
        whole = torch.cat((x, x[:, :, -1:]), 2)
        whole = torch.cat((whole, whole[:, :, :, -1:]), 3)
        assert difference(model(x), model(whole)[:, :, :10, :14]) == 0

    @pytest.mark.parametrize(
        "network",
        [
            SRVGGNetCompact(features=4, blocks=2, scale=2),
            RRDBNet(features=4, blocks=1, scale=4, growth=2),
            RRDBNet(features=4, blocks=1, scale=2, growth=2),
        ],
        ids=["srvgg_x2", "rrdb_x4", "rrdb_x2"],
    )
    def test_a_window_with_its_halo_gives_what_the_whole_picture_gives(self, network: torch_networks.Network) -> None:
        model = small_model(network)
        halo, scale = model.spec.halo, model.spec.scale
        x = picture(1, 3, 2 * halo + 18, 2 * halo + 18)
        low, high = 8, 10 + 2 * halo
        window = model(x[:, :, low:high, low:high])
        whole = model(x)[:, :, scale * low : scale * high, scale * low : scale * high]
        inner = slice(scale * halo, -scale * halo)
        assert difference(window[:, :, inner, inner], whole[:, :, inner, inner]) <= TOLERANCE
        assert difference(window, whole) > 10 * TOLERANCE, "beyond that it does depend on the window"


def test_the_tail_of_rrdb_runs_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(RRDBNet(features=4, blocks=1, scale=4, growth=2))
    x = picture(1, 3, 11, 6)
    with torch.inference_mode():
        whole = network(x)
        monkeypatch.setattr(torch_networks, "TAIL_ROWS", 3)
        assert difference(network(x), whole) <= TOLERANCE


class TestStopping:
    @pytest.mark.parametrize(
        "network",
        [SRVGGNetCompact(features=4, blocks=1, scale=4), RRDBNet(features=4, blocks=3, scale=4, growth=2)],
        ids=["srvgg", "rrdb"],
    )
    def test_a_forward_pass_ends_when_asked_to(self, network: torch_networks.Network) -> None:
        model = small_model(network)
        asked: list[None] = []

        def on_second_question() -> bool:
            asked.append(None)
            return len(asked) == 2

        with pytest.raises(Interrupted):
            model(picture(1, 3, 200, 4), should_stop=on_second_question)
        assert len(asked) == 2

    def test_it_goes_on_while_it_is_not(self) -> None:
        model = small_model(SRVGGNetCompact(features=4, blocks=1, scale=4))
        assert model(picture(1, 3, 9, 4), should_stop=lambda: False).shape == (1, 3, 36, 16)

    def test_the_network_itself_asks_too(self) -> None:
        network = random_network(SRVGGNetCompact(features=4, blocks=1, scale=4))
        with pytest.raises(Interrupted):
            network(picture(1, 3, 4, 4), lambda: True)


class TestPrecision:
    def test_bf16_gives_bf16_close_to_fp32(self) -> None:
        network = SRVGGNetCompact(features=8, blocks=2, scale=4)
        half, full = small_model(network, "bf16"), small_model(network)
        x = picture(1, 3, 9, 9)
        y = half(x)
        assert y.dtype == half.dtype == torch.bfloat16
        assert difference(y.float(), full(x)) < 0.1

    def test_the_fp32_twin_of_a_half_model_computes_with_the_unrounded_weights(self) -> None:
        network = SRVGGNetCompact(features=8, blocks=2, scale=4)
        half, full = small_model(network, "bf16"), small_model(network)
        twin = half.to_precision("fp32")
        x = picture(1, 3, 9, 9)
        assert difference(twin(x), full(x)) == 0
        assert (twin.precision, twin.sha256, twin.spec) == ("fp32", half.sha256, half.spec)

    def test_twins_are_built_once_and_know_each_other(self) -> None:
        half = small_model(SRVGGNetCompact(features=4, blocks=1, scale=4), "bf16")
        twin = half.to_precision("fp32")
        assert half.to_precision("fp32") is twin
        assert twin.to_precision("bf16") is half
        assert twin.to_precision("fp32") is twin

    def test_fp16_on_the_cpu_runs_or_says_that_it_cannot(self) -> None:
        try:
            model = small_model(SRVGGNetCompact(features=4, blocks=1, scale=4), "fp16")
        except DeviceError as error:
            assert "fp16" in error.message
        else:
            assert model(picture(1, 3, 5, 5)).dtype == torch.float16

    @pytest.mark.parametrize("precision", ["auto", "float32", ""])
    def test_no_other_precision(self, precision: str) -> None:
        with pytest.raises(UsageError, match="is not a precision"):
            load_model("realesr-general-x4v3", precision=precision, offline=True)

    def test_inputs_of_another_float_type_are_taken(self) -> None:
        model = small_model(SRVGGNetCompact(features=4, blocks=1, scale=4))
        x = picture(1, 3, 5, 5)
        assert difference(model(x.double()), model(x)) == 0

    def test_the_result_is_not_clamped(self) -> None:
        model = small_model(SRVGGNetCompact(features=4, blocks=1, scale=4))
        y = model(picture(1, 3, 9, 9))
        assert y.min() < 0 or y.max() > 1


class TestDevices:
    @pytest.mark.parametrize("device", ["tpu", "gpu", "meta", "cuda:x", "xpu", ""])
    def test_what_is_no_device(self, device: str) -> None:
        with pytest.raises(DeviceError, match="is not a device") as caught:
            load_model("realesr-general-x4v3", device=device, offline=True)
        assert caught.value.remedy is not None

    def test_a_device_that_is_not_here(self) -> None:
        with pytest.raises(DeviceError, match="there is no device cuda:99 on this machine") as caught:
            load_model("realesr-general-x4v3", device="cuda:99", offline=True)
        assert caught.value.remedy is not None
        assert "--device cpu" in caught.value.remedy

    @pytest.mark.skipif(torch.backends.mps.is_available(), reason="has an Apple GPU")
    def test_mps_without_an_apple_gpu(self) -> None:
        with pytest.raises(DeviceError, match="no device mps"):
            load_model("realesr-general-x4v3", device="mps", offline=True)


class TestDenoise:
    @pytest.fixture(autouse=True)
    def weights(self, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(shared / "weights"))

    def test_the_ends_are_the_two_networks(self) -> None:
        x = picture(1, 3, 12, 12)
        general, weak = load_model("realesr-general-x4v3"), load_model("realesr-general-wdn-x4v3")
        assert difference(load_model("realesr-general-x4v3", denoise=1)(x), general(x)) == 0
        assert difference(load_model("realesr-general-x4v3", denoise=0)(x), weak(x)) == 0
        assert difference(general(x), weak(x)) > 0.001

    def test_between_them_the_weights_are_mixed(self) -> None:
        states = [
            load_model(name).to_precision("fp32").network.state_dict()
            for name in ("realesr-general-x4v3", "realesr-general-wdn-x4v3")
        ]
        mixed = load_model("realesr-general-x4v3", denoise=0.25).network.state_dict()
        for key, value in mixed.items():
            assert difference(value, 0.25 * states[0][key] + 0.75 * states[1][key]) < 1e-6

    def test_the_digest_tells_mixtures_apart(self) -> None:
        general = load_model("realesr-general-x4v3")
        digests = [load_model("realesr-general-x4v3", denoise=share).sha256 for share in (1, 0.5, 0.25, 0)]
        assert digests[0] == general.sha256
        assert len(set(digests)) == 4

    def test_plain_general_does_without_the_twin(self, shared: Path, tmp_path: Path) -> None:
        name = "realesr-general-x4v3.fp16-from-ncnn.pth"
        (tmp_path / name).symlink_to(shared / "weights" / name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KEYSCALE_WEIGHTS_DIR", str(tmp_path))
            patch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
            load_model("realesr-general-x4v3", denoise=1.0, offline=True)
            with pytest.raises(ModelError, match="realesr-general-wdn-x4v3"):
                load_model("realesr-general-x4v3", denoise=0.9, offline=True)


class TestDenoiseWhereItMakesNoSense:
    @pytest.mark.parametrize("name", ["realesr-animevideov3", "RealESRGAN_x4plus", "some/net.pth"])
    def test_no_other_network_has_it(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "some").mkdir()
        (tmp_path / "some" / "net.pth").touch()
        with pytest.raises(UsageError, match="denoise is a setting of realesr-general-x4v3"):
            load_model(name, denoise=0.5)

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
    def test_out_of_range(self, share: float) -> None:
        with pytest.raises(UsageError, match="out of range"):
            load_model("realesr-general-x4v3", denoise=share)
