"""The fixture `software_gpu`: WebGPU for real, on a Vulkan driver that is a program on the CPU.

Tests without it, and the processes that they start, find no Vulkan driver: results are the same on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__: list[str] = []

DRIVERS = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
"""What Vulkan's loader reads: manifests of the only drivers to load."""

NO_DRIVER = os.devnull + "/none"

SOFTWARE_DRIVER = "KEYSCALE_TEST_VULKAN"
"""Environment variable: a driver's manifest, such as lavapipe's `lvp_icd.x86_64.json`."""

# Workers of pytest-xdist inherit both.
for _name in DRIVERS:
    if os.environ.get(_name, NO_DRIVER) != NO_DRIVER:
        os.environ[SOFTWARE_DRIVER] = os.environ[_name]
    os.environ[_name] = NO_DRIVER

ROOT = Path(__file__).parents[2]

KNOWN = (
    ROOT / ".venv" / "lavapipe" / "lvp_icd.json",  # .ci/software-vulkan
    Path("/usr/lib/chromium/vk_swiftshader_icd.json"),
    *sorted(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json")),
)


def _driver() -> str | None:
    return os.environ.get(SOFTWARE_DRIVER) or next((str(path) for path in KNOWN if path.is_file()), None)


@pytest.fixture(scope="session")
def _software_gpu() -> str:
    """The manifest of a driver on which the provider makes a session; else the test is skipped."""
    from keyscale.engine.errors import DeviceError
    from keyscale.engine.models import load_webgpu_model, webgpu

    if not webgpu.is_installed():
        pytest.skip("WebGPU is not installed: pip install 'keyscale[gpu]'")
    driver = _driver()
    if driver is None:
        pytest.skip("no software Vulkan driver: .ci/software-vulkan installs one where it may")
    with pytest.MonkeyPatch.context() as patch:
        _use(patch, driver)
        try:
            load_webgpu_model("keyscale-tiny-x2", "fp32")
        except DeviceError as error:
            pytest.skip(f"{driver} does not do: {error.message}")
        finally:
            webgpu.adapters.cache_clear()
    return driver


@pytest.fixture
def software_gpu(_software_gpu: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of WebGPU's only adapter, which is software."""
    from keyscale.engine.models import webgpu

    _use(monkeypatch, _software_gpu)
    yield webgpu.adapters()[0].name
    webgpu.adapters.cache_clear()


def _use(patch: pytest.MonkeyPatch, driver: str) -> None:
    from keyscale.engine.models import webgpu

    for name in DRIVERS:
        patch.setenv(name, driver)
    patch.delenv(webgpu.SOFTWARE, raising=False)
    webgpu.adapters.cache_clear()
