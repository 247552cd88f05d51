"""The walls of docs/design.md, read off the sources: who may import whom, and when."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TORCH_AT_IMPORT = {
    "engine/models/model.py",
    "engine/models/networks.py",
    "engine/models/streaming.py",
}
"""Modules that may import torch on being imported; others do so within the function that needs it."""

OPENVINO = "engine/models/inference.py"
"""The one module that loads OpenVINO: without its telemetry."""

ABSENT = {"cv2", "torchvision", "scipy", "grpclib", "modal_proto"}
"""Packages that nothing installed needs."""

SYSTEM = "engine/system.py"
"""The one module that asks what only POSIX has."""

POSIX_MODULES = {"fcntl", "grp", "pwd", "pty", "resource", "termios"}
POSIX_CALLS = {
    *(f"os.{name}" for name in ("fork", "forkpty", "getloadavg", "getpgid", "getuid", "geteuid", "kill", "killpg")),
    *(f"os.{name}" for name in ("mkfifo", "sched_getaffinity", "sched_setaffinity", "setsid", "setxattr", "statvfs")),
    *(f"os.{name}" for name in ("uname", "wait4", "waitpid", "O_DIRECTORY", "O_NOFOLLOW", "O_TMPFILE")),
    *(
        f"signal.{name}"
        for name in ("SIGHUP", "SIGKILL", "SIGPIPE", "SIGSTOP", "pthread_sigmask", "setitimer", "sigwait")
    ),
}

STUB = ROOT / "modal_stub.py"

MODAL = "engine/runners/calls.py"
"""The one module beside the stub that talks to Modal."""

S3 = re.compile(r"engine/storage(_[a-z]+)?\.py")
"""Modules that talk to object storage."""

REMOTE = ("modal", "boto3", "botocore", "grpclib")
"""What only a remote job loads, once it runs."""

LONGEST = 450
LONGEST_OF = {"cli/options.py": 560, "cli/progress.py": 520}
"""Modules with one purpose that takes more lines: a declaration for each flag, a class for each kind of progress."""


@dataclass(frozen=True)
class Import:
    """One imported module, and whether importing the importer runs it."""

    module: str
    at_import: bool


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("keyscale", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {name_of(path): path for room in ("cli", "engine") for path in sources(room)}


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[Import]:
    """Every import that can happen at run time; those for type checkers are left out."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                for other in child.orelse:
                    yield from walk(other, at_import)
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, at_import)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{short(path)}:{child.lineno}: relative import"
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    yield Import(inner if inner in MODULES else str(child.module), at_import)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, at_import and not inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


def roots(path: Path, *, at_import: bool = False) -> set[str]:
    return {item.module.split(".")[0] for item in imports(path) if item.at_import or not at_import}


@pytest.mark.parametrize("path", sources("engine"), ids=short)
def test_the_engine_knows_nothing_of_the_command_line(path: Path) -> None:
    assert not roots(path) & {"typer", "rich", "click"}
    assert not [item.module for item in imports(path) if item.module.startswith("keyscale.cli")]


@pytest.mark.parametrize("path", [*sources("engine"), *sources("cli")], ids=short)
def test_torch_is_imported_where_a_network_runs_and_nowhere_else(path: Path) -> None:
    if short(path) not in TORCH_AT_IMPORT:
        assert "torch" not in roots(path, at_import=True)
    if short(path).startswith("cli/"):
        assert "torch" not in roots(path)


@pytest.mark.parametrize("path", [*sources("engine"), *sources("cli")], ids=short)
def test_openvino_is_loaded_in_one_place_alone(path: Path) -> None:
    assert not roots(path) & {"openvino", "openvino_telemetry", "nncf"}
    assert ('import_module("openvino' in path.read_text(encoding="utf-8")) is (short(path) == OPENVINO)


@pytest.mark.parametrize("path", [*sources("engine"), *sources("cli"), *sources("src"), STUB], ids=short)
def test_packages_that_are_not_needed_are_not_imported(path: Path) -> None:
    assert not roots(path) & ABSENT


@pytest.mark.parametrize("path", [*sources("engine"), *sources("cli"), STUB], ids=short)
def test_modal_is_imported_by_the_stub_and_by_whoever_calls_it(path: Path) -> None:
    assert ("modal" in roots(path)) is (path == STUB or short(path) == MODAL)
    if path != STUB:
        assert "modal" not in roots(path, at_import=True)


@pytest.mark.parametrize("path", [*sources("engine"), *sources("cli"), STUB], ids=short)
def test_object_storage_is_talked_to_in_its_modules_alone_and_loaded_once_it_is(path: Path) -> None:
    packages = {"boto3", "botocore", "s3transfer"}
    if not S3.fullmatch(short(path)):
        assert not roots(path) & packages
    assert not roots(path, at_import=True) & packages


def test_the_stub_imports_nothing_of_the_engine_that_deploying_would_have_to_load() -> None:
    early = {item.module for item in imports(STUB) if item.at_import and item.module.startswith("keyscale")}
    assert early == {f"keyscale.engine.{name}" for name in ("models.registry", "prices", "remote_names")}


@pytest.mark.parametrize("module", ["container", "links", "task", "ranged", "deployment"])
def test_what_makes_a_chunk_knows_neither_keys_nor_modal(module: str) -> None:
    reached: set[str] = set()
    due = [f"keyscale.engine.{module}"]
    while due:
        name = due.pop()
        if name not in reached:
            reached.add(name)
            due += [item.module for item in imports(MODULES[name]) if item.module in MODULES]
    assert not [name for name in reached if "storage" in name or name.startswith("keyscale.engine.runners")]


def test_what_only_posix_has_is_called_in_one_module_alone() -> None:
    """Type checkers for Windows see names that are not there, but no `getattr`, and not that a call does harm there."""
    wrong = []
    for path in [*sources("engine"), *sources("cli"), *sources("src"), STUB]:
        if short(path) == SYSTEM:
            continue
        wrong += [f"{short(path)}: {module}" for module in roots(path) & POSIX_MODULES]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in POSIX_CALLS:
                wrong.append(f"{short(path)}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong


@pytest.mark.parametrize("path", sources("cli"), ids=short)
def test_the_command_line_imports_the_engine_only_once_a_command_runs(path: Path) -> None:
    early = [item.module for item in imports(path) if item.at_import and item.module.startswith("keyscale.engine")]
    assert not early, "importing the engine costs every --help its start-up time"


def test_engine_modules_import_one_another_without_circles() -> None:
    graph = {
        name: {item.module for item in imports(path) if item.module in MODULES and item.module != name}
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for other in sorted(graph[name]):
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("errors", set()),
        ("system", set()),
        ("job", {"errors"}),
        ("geometry", {"job"}),
        ("sampler", {"geometry", "colour"}),
        ("timemap", set()),
        ("colour", {"errors"}),
        ("models.shipped", {"errors"}),
        ("models.registry", {"errors", "job", "models.shipped"}),
        ("models.execution", {"errors", "job", "models.registry"}),
    ],
)
def test_the_lowest_modules_stand_on_little(module: str, allowed: set[str]) -> None:
    own = {item.module for item in imports(MODULES[f"keyscale.engine.{module}"]) if item.module in MODULES}
    assert own <= {f"keyscale.engine.{name}" for name in allowed}


@pytest.mark.parametrize("path", [*sources("engine"), *sources("cli"), STUB], ids=short)
def test_modules_stay_short_enough_to_be_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_OF.get(short(path), LONGEST)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("keyscale.cli.app", {"torch", "numpy", "av", "PIL", "keyscale.engine.plan", *REMOTE}),
        ("keyscale.engine.plan", {"torch", "openvino", "typer", "rich"}),
        ("keyscale.engine.models", {"torch", "openvino", "numpy", "safetensors"}),
        ("keyscale.engine.upscaler", {"torch", "openvino"}),
        ("keyscale.engine.models.compiled", {"torch", "openvino"}),
        ("keyscale.engine.pipeline", {"torch", "openvino", "typer", "rich"}),
        ("keyscale.engine.runners.local", {"torch", "openvino", "typer", "rich", *REMOTE}),
        ("keyscale.engine.runners.remote", {"torch", "openvino", "typer", "rich", *REMOTE}),
        ("keyscale.engine.storage", {"torch", "av", "typer", "rich", *REMOTE}),
        ("keyscale.engine.container", {"torch", "openvino", "typer", "rich", "keyscale.engine.storage", *REMOTE}),
        ("keyscale.engine.prices", {"torch", "openvino", "numpy", "av"}),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not set(done.stdout.split()) & absent
