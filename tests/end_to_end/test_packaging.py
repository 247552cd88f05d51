"""What is installed: one top-level package, whether the wheel is built from the checkout or from the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import keyscale

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, *options: str) -> Path:
    """Build with the backend that is installed here, offline; the wheel's path."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *options, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    through = tmp_path_factory.mktemp("through-sdist")
    wheels = {"checkout": build(tmp_path_factory.mktemp("checkout"), "--wheel"), "sdist": build(through)}
    (archive,) = through.glob("*.tar.gz")
    return wheels | {"archive": archive}


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return {name for name in file.namelist() if not name.endswith("/")}


@pytest.mark.parametrize("way", ["checkout", "sdist"])
def test_the_wheel_puts_one_name_on_the_path_and_the_manual_page_beside_the_command(
    built: dict[str, Path], way: str
) -> None:
    names = members(built[way])
    info, data = (f"keyscale-{keyscale.__version__}.{kind}" for kind in ("dist-info", "data"))
    # Installers put `data` into the environment: `man` looks in share/man beside each bin of PATH.
    assert {name for name in names if name.startswith(data)} == {f"{data}/data/share/man/man1/keyscale.1"}
    assert {name.split("/")[0] for name in names} == {"keyscale", info, data}


@pytest.mark.parametrize("way", ["checkout", "sdist"])
def test_the_wheel_holds_every_module_page_and_shipped_network(built: dict[str, Path], way: str) -> None:
    expected = {"keyscale/__init__.py", "keyscale/__main__.py", "keyscale/py.typed", "keyscale/modal_stub.py"}
    for room in ("cli", "engine"):
        expected |= {f"keyscale/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / room).rglob("*.py")}
    expected |= {f"keyscale/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "engine").rglob("*.html")}
    data = ROOT / "engine" / "models" / "data"
    expected |= {f"keyscale/{path.relative_to(ROOT).as_posix()}" for path in data.iterdir()}
    assert {name for name in members(built[way]) if name.startswith("keyscale/")} == expected


def test_what_modal_deploys_is_in_the_wheel_as_it_is_in_the_checkout(built: dict[str, Path]) -> None:
    for way in ("checkout", "sdist"):
        with zipfile.ZipFile(built[way]) as file:
            assert file.read("keyscale/modal_stub.py") == (ROOT / "modal_stub.py").read_bytes()


def test_the_wheel_is_small(built: dict[str, Path]) -> None:
    assert built["checkout"].stat().st_size < 8_000_000


def test_both_ways_give_the_same_files(built: dict[str, Path]) -> None:
    assert members(built["checkout"]) == members(built["sdist"])


def test_the_metadata_names_command_licence_and_python(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["checkout"]) as file:
        info = f"keyscale-{keyscale.__version__}.dist-info"
        metadata = message_from_bytes(file.read(f"{info}/METADATA"))
        commands = file.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in file.namelist()
    assert metadata["Version"] == keyscale.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "keyscale = keyscale.cli.start:main" in commands


def test_the_sdist_holds_what_it_takes_to_test_and_use_it(built: dict[str, Path]) -> None:
    with tarfile.open(built["archive"]) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert names >= {"Makefile", "constraints.txt", "README.md", "pyproject.toml", "tests/conftest.py"}
    assert names >= {"examples/court.mp4", "examples/court.json"}
    assert not [name for name in names if name.startswith((".venv", "dist"))]


def test_the_wheel_runs_where_the_checkout_is_not(built: dict[str, Path], tmp_path: Path) -> None:
    # Python imports from a zip file as from a folder.
    code = (
        f"import sys; sys.path.insert(0, {str(built['sdist'])!r}); import keyscale.cli.app as app; "
        "assert app.__file__.startswith(sys.path[0]), app.__file__; sys.argv = ['keyscale', '--version']; app.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"keyscale {keyscale.__version__}\n"), done.stderr
