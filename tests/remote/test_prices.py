"""What a second of a container costs, and what a deployment asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyscale.engine.errors import UsageError
from keyscale.engine.remote import prices
from keyscale.engine.remote.prices import cost, gpu_of, wanted_containers, wanted_gpus
from keyscale.engine.worker import chunk

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA B300 SXM6 AC", "B200"),
        ("h100!", "H100"),
        ("B200+", "B200"),
        ("rtx-pro-6000", "RTX-PRO-6000"),
        ("l4", "L4"),
        ("A100-40GB", "A100-40GB"),
        ("A100", "A100-80GB"),
        ("cpu", "none"),
        ("none", "none"),
    ],
)
def test_a_gpu_is_known_by_its_drivers_name_and_by_modals(driver: str, name: str) -> None:
    assert gpu_of(driver).name == name


@pytest.mark.parametrize("driver", ["NVIDIA RTX 9090", "NVIDIA RTX 6000 Ada Generation", ""])
def test_an_unknown_gpu_counts_as_the_dearest(driver: str) -> None:
    assert gpu_of(driver).dollars_s == max(gpu.dollars_s for gpu in prices.GPUS)


def test_a_container_costs_its_gpu_its_cores_and_its_memory() -> None:
    around = prices.CORES * prices.CORE_SECOND + prices.GIB * prices.GIB_SECOND
    assert cost("cpu", 100) == pytest.approx(100 * around)
    assert cost("NVIDIA L4", 3600) == pytest.approx(3600 * (gpu_of("L4").dollars_s + around))
    assert cost("NVIDIA L4", 3600) == pytest.approx(1.05, abs=0.01)
    assert cost("NVIDIA L4", 3600, 8) - cost("L4", 3600) == pytest.approx(3600 * 4 * prices.CORE_SECOND)
    assert cost("L4", 0) == 0


def test_what_is_not_deployed_yet_goes_by_the_variables() -> None:
    assert wanted_gpus({}) == wanted_gpus({"KEYSCALE_GPU": " "}) == tuple(prices.PREFERRED.split(","))
    assert wanted_gpus({"KEYSCALE_GPU": " H100 ,L4"}) == ("H100", "L4")
    assert wanted_gpus({"KEYSCALE_GPU": "a10g,H100!,B200+,RTX-PRO-6000"}) == ("a10g", "H100!", "B200+", "RTX-PRO-6000")
    assert wanted_gpus({"KEYSCALE_GPU": "None"}) == ()
    assert wanted_containers({"KEYSCALE_CONTAINERS": ""}) == prices.CONTAINERS
    assert wanted_containers({"KEYSCALE_CONTAINERS": "3"}) == 3


@pytest.mark.parametrize("text", ["foo", "L4,A11", "L4,none", "H100?", "RTX", "A10-40GB", ","])
def test_gpus_that_nobody_knows_are_an_error_that_names_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="KEYSCALE_GPU is") as told:
        wanted_gpus({"KEYSCALE_GPU": text})
    assert "H200" in str(told.value.remedy)
    assert "RTX-PRO-6000" in str(told.value.remedy)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "1e3", "²", "9" * 30])
def test_a_number_of_containers_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="KEYSCALE_CONTAINERS is"):
        wanted_containers({"KEYSCALE_CONTAINERS": text})


def test_a_chunk_has_from_six_seconds_to_a_day() -> None:
    assert prices.wanted_timeout({}) == prices.TIMEOUT_S == 900
    for text in ("6", "86400"):
        assert prices.wanted_timeout({"KEYSCALE_TIMEOUT": text}) == int(text)
    for text in ("0", "5", "86401", "soon", "6.5"):
        with pytest.raises(UsageError, match=f"KEYSCALE_TIMEOUT is '?{text}"):
            prices.wanted_timeout({"KEYSCALE_TIMEOUT": text})


@pytest.mark.parametrize("path", ["modal_stub.py", "cli/remote.py"])
def test_the_defaults_of_a_deployment_are_told_as_they_are(path: str) -> None:
    told = " ".join((ROOT / path).read_text(encoding="utf-8").split())
    assert prices.PREFERRED in told
    assert re.search(rf"containers\b[^()]* at once[^()]*\W{prices.CONTAINERS}\)", told)
    assert re.search(rf"seconds\b[^()]*\W{prices.TIMEOUT_S}\b", told)


def test_the_shortest_time_of_a_chunk_leaves_half_of_it_for_work() -> None:
    assert max(chunk.LEAST_SPARE_S, chunk.SPARE_SHARE * prices.LEAST_TIMEOUT_S) == prices.LEAST_TIMEOUT_S / 2


def test_the_first_of_the_preferred_gpus_does_the_most_for_a_dollar_and_all_encode_video() -> None:
    preferred = [gpu_of(name) for name in prices.PREFERRED.split(",")]
    assert max(preferred, key=lambda gpu: gpu.tflops / cost(gpu.name, 1)) == preferred[0]
    assert all(gpu.nvenc for gpu in preferred)
