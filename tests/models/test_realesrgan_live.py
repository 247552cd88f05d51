"""The networks against those of the installed realesrgan and basicsr packages, weights drawn anew each time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from keyscale.engine.models import torch_networks

pytestmark = [
    pytest.mark.realesrgan,
    pytest.mark.skipif(
        any(importlib.util.find_spec(package) is None for package in ("basicsr", "realesrgan")),
        reason="the realesrgan package is not installed: pip install keyscale[realesrgan]",
    ),
]

ARGUMENTS = [
    ("srvgg", {"num_feat": 64, "num_conv": 32, "upscale": 4}),
    ("srvgg", {"num_feat": 64, "num_conv": 16, "upscale": 4}),
    ("srvgg", {"num_feat": 16, "num_conv": 4, "upscale": 2}),
    ("rrdb", {"num_feat": 64, "num_block": 23, "num_grow_ch": 32, "scale": 4}),
    ("rrdb", {"num_feat": 64, "num_block": 23, "num_grow_ch": 32, "scale": 2}),
    ("rrdb", {"num_feat": 64, "num_block": 6, "num_grow_ch": 32, "scale": 4}),
    ("rrdb", {"num_feat": 16, "num_block": 2, "num_grow_ch": 8, "scale": 1}),
]


def originals() -> dict[str, Any]:
    """The packages' classes, loaded as the maker of the golden numbers loads them."""
    path = Path(__file__).parents[2] / "tools" / "golden" / "make_network_goldens.py"
    spec = importlib.util.spec_from_file_location("make_network_goldens", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes: dict[str, Any] = module.reference_classes()
    return classes


@pytest.mark.parametrize(("architecture", "arguments"), ARGUMENTS)
def test_same_keys_and_same_numbers(architecture: str, arguments: dict[str, int]) -> None:
    original = originals()[architecture](num_in_ch=3, num_out_ch=3, **arguments).eval()
    network, facts = torch_networks.build(original.state_dict())
    assert (facts.architecture, facts.features) == (architecture, arguments["num_feat"])
    assert list(network.state_dict()) == list(original.state_dict())
    x = torch.rand(1, 3, 12, 16)
    with torch.inference_mode():
        y, expected = network(x), original(x)
    assert y.shape == expected.shape
    assert (y - expected).abs().max() <= 1e-5
