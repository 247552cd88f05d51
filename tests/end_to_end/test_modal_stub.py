"""What `modal deploy` asks Modal for: image, files, GPUs, limits. The server records it; no image is built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.modal_server import ModalServer

from keyscale.engine.models.registry import all_models
from keyscale.engine.remote import prices

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
CHUNKS = ("Engine.*", "EngineWide.*")
FUNCTIONS = ("describe", *CHUNKS, "process_framing_ai", "process_framing_ai_job")
HEAVY = FUNCTIONS[1:]


@dataclass(frozen=True)
class Deployed:
    """One deployment, as it was recorded."""

    functions: dict[str, Any]
    """`FunctionCreate` requests by the function's name."""
    layers: dict[str, list[Any]]
    """Of each function's image, the lowest first."""
    files: set[str]
    """Paths in containers of all mounted files."""

    def choices(self, name: str) -> list[Any]:
        """A function's definitions, one for each GPU, the preferred one first."""
        request = self.functions[name]
        ranked = sorted(request.function_data.ranked_functions, key=lambda one: one.rank)
        return [one.function for one in ranked] or [request.function]

    def gpus(self, name: str) -> list[str]:
        return [choice.resources.gpu_config.gpu_type for choice in self.choices(name)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalServer]:
    with ModalServer(tmp_path_factory.mktemp("modal"), python=Path(sys.executable)) as server:
        server.set_secret("r2-credentials", {"R2_BUCKET_NAME": "videos"})
        server.set_secret("mine", {"R2_BUCKET_NAME": "videos"})
        yield server


def deploy(server: ModalServer, folder: Path, **environment: str) -> Deployed:
    before = len(server.calls())
    done = server.deploy("-m", "keyscale.modal_stub", cwd=folder, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = server.calls()[before:]
    found = {}
    for call in calls:
        if call.rpc == "FunctionCreate":
            name = call.request.function.function_name or call.request.function_data.function_name
            found[name] = call.request
    files = {file.filename for call in server.calls("MountGetOrCreate") for file in call.request.files}
    return Deployed(found, {name: server.image_of("keyscale", name) for name in FUNCTIONS}, files)


@pytest.fixture(scope="module")
def usual(server: ModalServer, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Deployed without any variable."""
    return deploy(server, tmp_path_factory.mktemp("usual"), KEYSCALE_GPU="", KEYSCALE_CONTAINERS="", R2_SECRET="")


@pytest.fixture(scope="module")
def chosen(server: ModalServer, on_cpus: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Deployed with every variable."""
    return deploy(
        server,
        tmp_path_factory.mktemp("chosen"),
        KEYSCALE_GPU="H100, L40S",
        KEYSCALE_CONTAINERS="7",
        KEYSCALE_TIMEOUT="240",
        R2_SECRET="mine",  # noqa: S106 - its name
    )


@pytest.fixture(scope="module")
def on_cpus(server: ModalServer, usual: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Deployed without GPUs."""
    return deploy(server, tmp_path_factory.mktemp("cpus"), KEYSCALE_GPU="none")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def test_the_functions_have_their_names(usual: Deployed) -> None:
    assert set(usual.functions) == set(FUNCTIONS)


def test_the_image_has_the_versions_that_are_tested(usual: Deployed) -> None:
    tested = constraints()
    for packages in (packages_of(usual, name) for name in FUNCTIONS):
        assert set(packages) >= {"av", "torch", "numpy"}
        for name, version in packages.items():
            assert version == tested[name.lower()], name


def packages_of(found: Deployed, name: str) -> dict[str, str]:
    """Versions of the packages in a function's image."""
    packages = [package for layer in found.layers[name][1:] for package in layer.pip_packages]
    return dict(package.split("==") for package in packages)


def test_only_what_needs_storage_or_a_cpu_has_their_packages(usual: Deployed, on_cpus: Deployed) -> None:
    assert all("boto3" not in packages_of(usual, name) for name in ("describe", *CHUNKS))
    assert all("boto3" in packages_of(usual, name) for name in FUNCTIONS[3:])
    assert all("openvino" not in packages_of(usual, name) for name in FUNCTIONS)
    assert all("openvino" in packages_of(on_cpus, name) for name in FUNCTIONS)


def test_chunks_are_made_without_the_packages_that_their_image_does_not_have() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('boto3', 'botocore', 'openvino')))\n"
        "import keyscale.engine.worker.chunk, keyscale.engine.pipeline.upscaler, keyscale.engine.models.torch_model\n"
        "from keyscale.engine.worker.chunk import Workshop\n"
        "from keyscale.engine.models import Execution, find\n"
        "shop = Workshop(device='cpu', gpu='cpu', container='ta-1')\n"
        "shop.network('keyscale-compact-x2', Execution('torch', 'fp32', 'cpu'), None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_image_has_all_that_the_engine_imports() -> None:
    import modal_stub

    all_there = (*modal_stub.PINNED, *modal_stub.ON_CPUS, *modal_stub.STORAGE)
    pinned = {package.split("==")[0] for package in all_there}
    names = {"PIL": "pillow", "botocore": "boto3", "urllib3": "boto3"}  # what boto3 brings along
    code = r"(?m)^\s*(?:import|from) ([A-Za-z_0-9]+)|import_module\(\"([a-z_0-9]+)"
    found = {
        first or second
        for path in (ROOT / "engine").rglob("*.py")
        for first, second in re.findall(code, path.read_text())
    }
    foreign = {names.get(name, name) for name in found if name not in sys.stdlib_module_names} - {"keyscale", "modal"}
    installed = {name for name in foreign if name in constraints()}
    assert installed >= {"av", "torch", "numpy", "msgspec"}
    only_webgpu = {"onnx", "onnxruntime"}  # no container has it
    assert installed - only_webgpu <= pinned


def test_every_published_network_is_in_the_image_and_checked(usual: Deployed) -> None:
    commands = "\n".join(command for layer in usual.layers["Engine.*"] for command in layer.commands)
    files = [file for spec in all_models() for file in spec.files if file.url]
    assert files
    for file in files:
        (line,) = {line for line in commands.splitlines() if f"'{file.url}'" in line}
        assert f"'/weights/{file.filename}'" in line
        assert f"echo '{file.sha256}  /weights/{file.filename}' | sha256sum --check --strict" in line
        assert line.index("&&") < line.index("sha256sum")


def test_weights_that_are_not_what_they_should_be_stop_the_build(usual: Deployed, tmp_path: Path) -> None:
    lines = [line for layer in usual.layers["Engine.*"] for line in layer.commands if "sha256sum" in line]
    command = lines[0].removeprefix("RUN ").replace("/weights", str(tmp_path))
    name = command.rpartition(f"{tmp_path}/")[2].split("'")[0]
    source = tmp_path / "source"
    source.write_bytes(b"something else")
    command = re.sub(r"'https://[^']*'", f"'file://{source}'", command)
    there = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the image has a `python`, this machine perhaps not
    done = subprocess.run(
        ["bash", "-c", command], env=os.environ | {"PATH": there}, capture_output=True, text=True, check=False
    )
    assert (tmp_path / name).read_bytes() == b"something else"
    assert done.returncode != 0
    assert "FAILED" in done.stdout


def test_the_shipped_networks_and_every_module_of_the_engine_are_mounted(usual: Deployed) -> None:
    for path in (ROOT / "engine").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert f"/root/keyscale/{path.relative_to(ROOT).as_posix()}" in usual.files
    assert "/root/keyscale/modal_stub.py" in usual.files
    assert "/root/keyscale/py.typed" in usual.files
    assert not [name for name in usual.files if "__pycache__" in name or name.endswith(".pyc")]


def test_by_default_cheap_gpus_that_encode_video_are_asked_for(usual: Deployed) -> None:
    for name in HEAVY:
        assert usual.gpus(name) == ["L4", "A10", "T4"]
    assert usual.gpus("describe") == [""]
    table = {gpu.name: gpu for gpu in prices.GPUS}
    assert all(table[name].nvenc for name in usual.gpus("Engine.*"))
    assert ",".join(usual.gpus("Engine.*")) == prices.PREFERRED


def test_a_container_asks_for_what_its_price_is_made_of(usual: Deployed) -> None:
    for name in HEAVY:
        cores = prices.WIDE_CORES if name == "EngineWide.*" else prices.CORES
        for choice in usual.choices(name):
            assert choice.resources.milli_cpu == choice.resources.milli_cpu_max == cores * 1000
            assert choice.resources.memory_mb == prices.GIB * 1024
            assert choice.autoscaler_settings.scaledown_window == prices.IDLE_S
    (asked,) = usual.choices("describe")
    assert asked.resources.milli_cpu == asked.resources.milli_cpu_max == prices.ASKING_CORES * 1000
    assert asked.resources.memory_mb == prices.ASKING_GIB * 1024
    assert asked.autoscaler_settings.scaledown_window == prices.ASKING_IDLE_S


def test_chunks_have_their_limits_and_are_tried_again_by_the_client_alone(usual: Deployed) -> None:
    for choice in (choice for name in CHUNKS for choice in usual.choices(name)):
        assert (choice.timeout_secs, choice.startup_timeout_secs) == (900, 600)
        assert choice.autoscaler_settings.max_containers == prices.CONTAINERS
        assert choice.retry_policy.retries == 0
        assert choice.checkpointing_enabled
    for name in HEAVY[2:]:
        for choice in usual.choices(name):
            assert choice.retry_policy.retries == 0
            assert choice.timeout_secs == 4 * 3600


def test_only_the_function_for_editors_has_the_secret(usual: Deployed) -> None:
    for name in ("describe", *CHUNKS):
        assert [choice.secret_ids for choice in usual.choices(name) if choice.secret_ids] == []
    for name in HEAVY[2:]:
        assert all(len(choice.secret_ids) == 1 for choice in usual.choices(name))


def test_every_setting_can_be_chosen_and_containers_learn_of_it(chosen: Deployed, usual: Deployed) -> None:
    for name in HEAVY:
        assert chosen.gpus(name) == ["H100", "L40S"]
    for choice in (choice for name in CHUNKS for choice in chosen.choices(name)):
        assert (choice.timeout_secs, choice.autoscaler_settings.max_containers) == (240, 7)
    mine = chosen.choices("process_framing_ai")[0].secret_ids
    assert list(mine) != list(usual.choices("process_framing_ai")[0].secret_ids)
    variables = {name: value for layer in chosen.layers["Engine.*"] for name, value in layer.variables.items()}
    assert variables == {
        "KEYSCALE_GPU": "H100,L40S",
        "KEYSCALE_CONTAINERS": "7",
        "KEYSCALE_TIMEOUT": "240",
        "R2_SECRET": "mine",
        "KEYSCALE_WEIGHTS_DIR": "/weights",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,video,utility",
    }


def test_every_container_with_a_gpu_has_its_encoder(usual: Deployed) -> None:
    for name in HEAVY:
        variables = {name: value for layer in usual.layers[name] for name, value in layer.variables.items()}
        assert variables["NVIDIA_DRIVER_CAPABILITIES"].split(",") == ["compute", "video", "utility"]


def test_weights_and_packages_are_not_fetched_again_for_other_settings(chosen: Deployed, usual: Deployed) -> None:
    for name in HEAVY:
        (*below, own), (*same, other) = chosen.layers[name], usual.layers[name]
        assert [layer.commands for layer in below] == [layer.commands for layer in same]
        assert own.commands != other.commands
