"""The registry: which networks there are, what they cost, and how much context they need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from keyscale.engine.errors import ModelError
from keyscale.engine.job import Mode
from keyscale.engine.models import all_models, defaults_for, describe, family, find
from keyscale.engine.models.registry import DEEP_HALO, macs_per_pixel, receptive_field


@pytest.mark.processes
def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, keyscale.engine.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_known_models() -> None:
    assert [spec.name for spec in all_models()] == [
        "keyscale-compact-x4",
        "keyscale-compact-x2",
        "keyscale-tiny-x4",
        "keyscale-tiny-x2",
        "realesr-general-x4v3",
        "realesr-general-wdn-x4v3",
        "realesr-animevideov3",
        "RealESRGAN_x4plus",
        "RealESRGAN_x2plus",
        "RealESRGAN_x4plus_anime_6B",
    ]


@pytest.mark.parametrize(
    ("name", "millions", "field", "halo", "align"),
    [
        ("realesr-general-x4v3", 1.209, 34, 34, 1),
        ("realesr-general-wdn-x4v3", 1.209, 34, 34, 1),
        ("realesr-animevideov3", 0.619, 18, 18, 1),
        ("RealESRGAN_x4plus", 17.93, 349, 80, 1),
        ("RealESRGAN_x2plus", 4.48, 698, 160, 2),
        ("RealESRGAN_x4plus_anime_6B", 5.71, 94, 94, 1),
    ],
)
def test_cost_and_context(name: str, millions: float, field: int, halo: int, align: int) -> None:
    spec = find(name)
    assert spec.macs_per_pixel / 1e6 == pytest.approx(millions, rel=1e-3)
    assert receptive_field(spec.architecture, blocks=spec.blocks, scale=spec.scale) == field
    assert spec.halo == halo
    assert spec.halo_is_exact is (halo == field)
    assert spec.align == align
    assert spec.halo % spec.align == 0


def test_a_halo_is_approximate_only_where_the_receptive_field_is_wider_than_is_practical() -> None:
    assert [spec.name for spec in all_models() if not spec.halo_is_exact] == [
        "RealESRGAN_x4plus",
        "RealESRGAN_x2plus",
    ]
    assert find("RealESRGAN_x4plus").halo == DEEP_HALO
    assert find("RealESRGAN_x2plus").halo == 2 * DEEP_HALO, "cells of 2x2 pixels"


def test_macs_count_every_convolution() -> None:
    # 3 -> 8 -> 8 -> 12 channels by three 3x3 convolutions.
    assert macs_per_pixel("srvgg", features=8, blocks=1, scale=2) == 9 * (3 * 8 + 8 * 8 + 8 * 12)


def test_every_file_is_pinned() -> None:
    seen = set()
    for spec in all_models():
        if spec.shipped:
            continue
        assert spec.licence == "BSD-3-Clause"
        assert spec.files, spec.name
        assert spec.files[0].url is not None, "the published file comes first"
        for file in spec.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.sha256 not in seen
            seen.add(file.sha256)
            assert file.size > 1_000_000
            if file.url is not None:
                assert file.url.startswith("https://github.com/xinntao/Real-ESRGAN/releases/download/v0.")
                assert file.url.endswith(f"/{file.filename}")


def test_some_networks_are_accepted_in_their_ncnn_precision_too() -> None:
    for name in ("realesr-general-x4v3", "realesr-general-wdn-x4v3", "RealESRGAN_x4plus"):
        assert [file.filename for file in find(name).files] == [f"{name}.pth", f"{name}.fp16-from-ncnn.pth"]


def test_names_are_found_in_any_case() -> None:
    assert find("realesrgan_X4PLUS") is find("RealESRGAN_x4plus")
    assert describe("REALESR-ANIMEVIDEOV3").name == "realesr-animevideov3"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("realesrgan-x4plus", "RealESRGAN_x4plus"), ("realesr-animevideo-v3", "realesr-animevideov3")],
)
def test_a_misspelt_name_is_answered_with_the_close_ones(typed: str, meant: str) -> None:
    with pytest.raises(ModelError, match=re.escape(repr(typed))) as caught:
        find(typed)
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("Did you mean")
    assert meant in caught.value.remedy


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(ModelError) as caught:
        find("zzz")
    assert caught.value.remedy is not None
    assert all(spec.name in caught.value.remedy for spec in all_models())


def test_modes() -> None:
    assert defaults_for(Mode.FAST) == {4: find("keyscale-compact-x4"), 2: find("keyscale-compact-x2")}
    assert defaults_for(Mode.QUALITY) == {4: find("RealESRGAN_x4plus"), 2: find("RealESRGAN_x2plus")}


def test_a_mode_offers_its_models_by_scale_and_a_named_model_itself_alone() -> None:
    assert family(Mode.QUALITY) == family("quality") == defaults_for(Mode.QUALITY)
    assert family("RealESRGAN_x4plus") == {4: find("RealESRGAN_x4plus")}
    assert family("RealESRGAN_x2plus") == {2: find("RealESRGAN_x2plus")}


def test_what_a_mode_gives_may_be_changed_by_its_caller() -> None:
    defaults_for(Mode.FAST).clear()
    assert defaults_for(Mode.FAST)


def test_the_manual_lists_them_all() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for spec in all_models():
        halo = f"{spec.halo} px, {'exact' if spec.halo_is_exact else 'approximate'}"
        row = rf"\| `{spec.name}` \| x{spec.scale} \| .* \| {spec.macs_per_pixel / 1e6:.2f} M \| {halo} \|"
        assert re.search(row, manual), spec.name
        for file in spec.files:
            if spec.shipped:
                continue
            if file.url is not None:
                assert f"| `{file.filename}` | {file.size} | `{file.sha256}` |" in manual
            else:
                assert f"`{file.filename}`" in manual
