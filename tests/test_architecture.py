"""The walls of docs/design.md, read off the sources: who may import whom, and when.

The rules are the tables below; each test lists all that breaks one.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STUB = "modal_stub.py"

GROUND = (
    *(
        "wording",
        "errors",
        "system",
        "addresses",
        "serialization",
        "patience",
        "files",
        "rates",
        "forms",
        "quantities",
        "options",
        "choices",
        "calm",
    ),
    *("target", "job", "run_options", "events", "settings", "machine", "threads"),
)
ROOMS = (
    *(
        "camera",
        "source",
        "models",
        "device",
        "plan",
        "workspace",
        "pipeline",
        "output",
        "worker",
        "storage",
        "runners",
    ),
    *("remote", "batch", "review"),
)
FRONT = ("request", "arguments", "argument_types", "api", "framing_ai", "doctor")
ORDER = (*GROUND, *ROOMS, *FRONT)
"""Files and packages of the engine; each may import what stands left of it."""

CLOSED = {"worker": {"output", "storage", "runners"}, "storage": {*ROOMS, *FRONT} - {"storage"}}
"""Room -> what none of its modules reaches, not by way of others either: a container has neither keys nor a result to
join, and storage knows nothing of videos."""

STANDS_ON = {
    "wording": set[str](),
    "errors": {"wording"},
    "system": set[str](),
    "addresses": set[str](),
    "patience": set[str](),
    "threads": set[str](),
    "serialization": {"errors"},
    "files": {"errors", "system", "wording"},
    "rates": set[str](),
    "forms": {"errors"},
    "quantities": {"errors", "forms", "rates", "wording"},
    "options": {"errors", "forms"},
    "choices": set[str](),
    "target": {"choices", "options", "quantities"},
    "calm": {"forms", "options"},
    "job": {"addresses", "calm", "choices", "errors", "forms", "options", "target", "wording"},
    "run_options": {"choices", "forms", "job", "options", "quantities", "wording"},
    "machine": {"errors", "system"},
    "events": {"addresses", "errors", "job", "wording"},
    "settings": {"errors", "forms", "job", "options", "wording"},
    "camera.timemap": set[str](),
    "camera.geometry": {"job"},
    "camera.sampler": {"camera.geometry"},
    "source.frame_filters": set[str](),
    "source.colour": {"source.frame_filters"},
    "models.shipped": {"errors"},
    "models.registry": {"errors", "forms", "job", "models.foreign_findings", "models.shipped"},
    "models.execution": {"errors", "job", "models.registry", "wording"},
}
"""Module -> all that it may import of the engine."""

COMMAND_LINE = frozenset({"typer", "rich", "click"})
S3 = frozenset({"boto3", "botocore", "s3transfer"})
REMOTE = frozenset({"modal", "grpclib"}) | S3
"""What only a remote job loads, once it runs."""

EARLY = dict.fromkeys(
    [
        f"cli/{name}.py"
        for name in ("batch", "compare", "config", "options", "plan", "preview", "progress", "settings", "upscale")
    ],
    ("", *GROUND),
) | {"cli/batch_jobs.py": ("", *GROUND, "batch", "request")}
"""Module of the command line -> what it may import of the engine on being imported itself: commands are built of the
declarations of their options. The others, which `keyscale --help` loads too, import nothing then."""

IMPORTED_BY = (
    (COMMAND_LINE, ("cli/",)),
    ({"torch"}, ("engine/",)),
    ({"modal"}, ("engine/remote/modal_client.py", STUB)),
    (S3, ("engine/storage/",)),
    ({"openvino", "openvino_telemetry", "nncf"}, ()),
    ({"cv2", "torchvision", "scipy", "grpclib", "modal_proto"}, ()),
)
"""Packages -> the beginnings of the paths of all modules that import them. OpenVINO is loaded by its name, in one
function, without its telemetry; what nobody imports need not be installed."""

AT_IMPORT = (
    ({"torch"}, ("engine/models/torch_", "engine/device/")),
    ({"modal"}, (STUB,)),
    (S3, ()),
)
"""The same of modules that import them on being imported themselves; others do within the function that needs them."""

LOADS_OPENVINO = "engine/models/openvino.py"

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

STUB_LOADS = {f"keyscale.engine.{name}" for name in ("models.registry", "remote.names", "remote.prices")}
"""What the stub imports of the engine on a machine that deploys."""

OPEN_PACKAGES = {"engine/models/__init__.py"}
"""Packages that hold functions, which import late whatever is heavy."""

LONGEST = 400

WITHOUT = {
    "keyscale.cli.app": {"torch", "numpy", "av", "PIL", "keyscale.engine.plan", *REMOTE},
    "keyscale.cli.upscale": {"torch", "numpy", "av", "PIL", "msgspec", "rich", "keyscale.engine.plan", *REMOTE},
    "keyscale.engine.models": {"torch", "openvino", "numpy", "safetensors"},
    "keyscale.engine.models.openvino_model": {"torch", "openvino"},
    "keyscale.engine.plan.plan": {"torch", "openvino", *COMMAND_LINE},
    "keyscale.engine.pipeline.upscaler": {"torch", "openvino"},
    "keyscale.engine.pipeline.chunks": {"torch", "openvino", *COMMAND_LINE},
    "keyscale.engine.worker.chunk": {"torch", "openvino", "keyscale.engine.storage", *COMMAND_LINE, *REMOTE},
    "keyscale.engine.storage.bucket": {"torch", "av", *COMMAND_LINE, *REMOTE},
    "keyscale.engine.runners.local": {"torch", "openvino", *COMMAND_LINE, *REMOTE},
    "keyscale.engine.remote.run": {"torch", "openvino", *COMMAND_LINE, *REMOTE},
    "keyscale.engine.remote.state": {"torch", "openvino", "numpy", "av"},
    "keyscale.engine.remote.prices": {"torch", "openvino", "numpy", "av"},
}
"""Module -> what importing it does not load."""


@dataclass(frozen=True)
class Import:
    """One imported module, and whether importing the importer runs it."""

    module: str
    at_import: bool
    for_types: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("keyscale", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {name_of(path): path for room in ("cli", "engine") for path in sorted((ROOT / room).rglob("*.py"))}
SOURCES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (*MODULES.values(), *sorted((ROOT / "src").glob("*/*.py")), ROOT / STUB)
    if not path.is_symlink()
}
ENGINE = {path: SOURCES[path] for path in SOURCES if path.startswith("engine/")}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def all_imports(path: Path) -> tuple[Import, ...]:
    def walk(node: ast.AST, at_import: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                for inner in child.body:
                    yield from walk(ast.Module([inner], []), at_import, True)
                for inner in child.orelse:
                    yield from walk(ast.Module([inner], []), at_import, for_types)
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, at_import, for_types)
            elif isinstance(child, ast.ImportFrom):
                for alias in child.names:
                    inside = f"{child.module}.{alias.name}"
                    yield Import(inside if inside in MODULES else str(child.module), at_import, for_types)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, at_import and not function, for_types)

    return tuple(walk(tree_of(path), True, False))


def imports(path: Path) -> list[Import]:
    """Every import that can happen at run time."""
    return [item for item in all_imports(path) if not item.for_types]


def own_imports(name: str) -> set[str]:
    """What a module imports of `cli` and `engine` at run time."""
    return {item.module for item in imports(MODULES[name]) if item.module in MODULES} - {name}


def room_of(module: str) -> str:
    """The first name beneath `keyscale.engine`; empty for others."""
    return module.removeprefix("keyscale.engine.").partition(".")[0] if module.startswith("keyscale.engine.") else ""


def wrong(found: Iterable[str]) -> str:
    return "\n".join(sorted(set(found)))


def test_every_module_of_the_engine_has_its_room() -> None:
    assert not wrong(name for name in MODULES if room_of(name) and room_of(name) not in ORDER)
    assert not wrong(name for name in ORDER if not any(room_of(module) == name for module in MODULES))


def test_rooms_import_what_stands_left_of_them() -> None:
    place = {name: number for number, name in enumerate(ORDER)}
    assert not wrong(
        f"{path} imports {item.module}"
        for path, file in ENGINE.items()
        for here in [room_of(name_of(file))]
        for item in all_imports(file)
        for there in [room_of(item.module)]
        if here and there and there != here and place[there] > place[here]
    )


def test_rooms_that_are_closed_reach_nothing_of_what_they_must_not_know() -> None:
    def reached(name: str) -> set[str]:
        found, due = set[str](), [name]
        while due:
            if (module := due.pop()) not in found:
                found.add(module)
                due += own_imports(module)
        return found

    assert not wrong(
        f"{name} reaches {other}"
        for name in MODULES
        for other in reached(name)
        if room_of(other) in CLOSED.get(room_of(name), set())
    )


def test_the_lowest_modules_stand_on_little() -> None:
    assert not wrong(
        f"{name} imports {other}"
        for name, allowed in STANDS_ON.items()
        for other in own_imports(f"keyscale.engine.{name}")
        if other.removeprefix("keyscale.engine.") not in allowed
    )


def test_what_only_posix_has_is_called_in_one_module_alone() -> None:
    """Type checkers for Windows see names that are not there, but no `getattr`, and not that a call does harm there."""
    others = {path: file for path, file in SOURCES.items() if path != SYSTEM}
    found = [
        f"{path}: {i.module}" for path, file in others.items() for i in imports(file) if i.package in POSIX_MODULES
    ]
    found += [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path, file in others.items()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in POSIX_CALLS
    ]
    assert not wrong(found)


def test_modules_import_one_another_without_circles() -> None:
    circles: list[str] = []
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circles.append(" -> ".join((*trail[trail.index(name) :], name)))
        elif name not in done:
            for other in sorted(own_imports(name)):
                visit(other, (*trail, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())
    assert not wrong(circles)


def test_imports_name_the_whole_path() -> None:
    assert not wrong(
        f"{path}:{node.lineno}"
        for path, file in SOURCES.items()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ImportFrom) and node.level
    )


def test_packages_of_rooms_import_nothing() -> None:
    """So that a light module of a room can be imported without what its neighbours load."""
    assert not wrong(
        path
        for path, file in ENGINE.items()
        if file.name == "__init__.py" and len(tree_of(file).body) > 1 and path not in OPEN_PACKAGES
    )


def test_the_engine_knows_nothing_of_the_command_line_and_that_imports_it_late() -> None:
    """Importing the engine would cost every --help its start-up time; commands need the options that they take."""
    assert not wrong(
        f"{path} imports {item.module}"
        for path, file in SOURCES.items()
        for item in imports(file)
        if (path in ENGINE and item.module.startswith("keyscale.cli"))
        or (path.startswith("cli/") and item.at_import and room_of(item.module) not in EARLY.get(path, ("",)))
    )


def test_packages_are_imported_where_they_belong() -> None:
    assert not wrong(
        f"{path} imports {item.module}"
        for table, late_too in ((IMPORTED_BY, True), (AT_IMPORT, False))
        for packages, places in table
        for path, file in SOURCES.items()
        for item in imports(file)
        if item.package in packages and (late_too or item.at_import) and not path.startswith(places)
    )
    loaders = [path for path, file in ENGINE.items() if 'import_module("openvino' in file.read_text(encoding="utf-8")]
    assert loaders == [LOADS_OPENVINO]


def test_the_tables_name_places_that_there_are() -> None:
    """A wall around a file that was renamed would hold nothing."""
    for packages, places in (*IMPORTED_BY, *AT_IMPORT):
        for place in places:
            importers = [path for path in SOURCES if path.startswith(place)]
            assert {item.package for path in importers for item in imports(SOURCES[path])} & packages, place
    assert {f"keyscale.engine.{name}" for name in STANDS_ON} | STUB_LOADS | set(WITHOUT) <= set(MODULES)


def test_the_stub_imports_nothing_of_the_engine_that_deploying_would_have_to_load() -> None:
    early = {item.module for item in imports(SOURCES[STUB]) if item.at_import and item.package == "keyscale"}
    assert early == STUB_LOADS


def test_modules_stay_short_enough_to_be_read() -> None:
    lines = {path: len(file.read_text(encoding="utf-8").splitlines()) for path, file in SOURCES.items()}
    assert not wrong(f"{path}: {count}" for path, count in lines.items() if count > LONGEST)


@pytest.mark.processes
def test_importing_a_module_loads_nothing_heavy() -> None:
    found: list[str] = []
    for module, absent in WITHOUT.items():
        code = f"import sys, {module}; print('\\n'.join(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        found += [f"{module} loads {name}" for name in set(done.stdout.split()) & absent]
    assert not wrong(found)
