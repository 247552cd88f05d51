"""`keyscale models`: list, fetch, verify."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keyscale.cli.models import app
from keyscale.engine.errors import KeyscaleError, ModelError
from keyscale.engine.models import all_models

OFFICIAL = "realesr-animevideov3.pth"
SHIPPED = [spec.name for spec in all_models() if spec.shipped]
ENDS = tuple(
    f"{look}{end}" for look in ("", "-natural", "-crisp") for end in (".safetensors", ".int8.xml", ".int8.bin")
)
"""How the names of a shipped network's files end."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where weights are looked for; made, empty."""
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("KEYSCALE_WEIGHTS_DIR", raising=False)
    return folder


@pytest.fixture
def with_official(cache: Path, shared: Path) -> Path:
    path = cache / OFFICIAL
    path.symlink_to(shared / "weights" / OFFICIAL)
    return path


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        pass


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, (SystemExit, KeyscaleError)):
        raise result.exception
    return result


def verified() -> list[str]:
    """What `verify` prints of files outside the package."""
    result = run("verify")
    assert result.exit_code == 0
    return [line for line in result.stdout.splitlines() if "keyscale-" not in Path(line).name]


class TestList:
    def test_a_line_for_every_network(self) -> None:
        heading, *lines = run("list").stdout.splitlines()
        assert heading.split() == ["name", "scale", "architecture", "MACs/px", "licence", "weights"]
        assert [line.split()[0] for line in lines] == [spec.name for spec in all_models()]
        assert lines[4].split() == [
            *("realesr-general-x4v3", "x4", "srvgg", "64x32", "1.21", "M", "BSD-3-Clause", "not", "here")
        ]

    def test_what_is_shipped_is_said_to_be_in_the_package(self) -> None:
        lines = run("list").stdout.splitlines()[1:]
        assert [line.split()[0] for line in lines if line.endswith("in the package")] == SHIPPED

    def test_it_says_where_weights_lie(self, with_official: Path) -> None:
        (line,) = [line for line in run("list").stdout.splitlines() if "animevideov3" in line]
        assert line.endswith(str(with_official))

    def test_as_json(self, with_official: Path) -> None:
        rows = json.loads(run("list", "--json").stdout)
        assert [row["name"] for row in rows] == [spec.name for spec in all_models()]
        assert [row["found"] for row in rows if row["found"] and not row["shipped"]] == [str(with_official)]
        by_name = {row["name"]: row for row in rows}
        x2plus = by_name["RealESRGAN_x2plus"]
        assert (x2plus["scale"], x2plus["align"], x2plus["macs_per_pixel"]) == (2, 2, 4483008)
        general = by_name["realesr-general-x4v3"]
        assert general["files"][0]["url"].endswith("/v0.2.5.0/realesr-general-x4v3.pth")
        compact = by_name["keyscale-compact-x4"]
        assert compact["shipped"]
        assert Path(compact["found"]).is_file()
        assert [file["filename"].removeprefix("keyscale-compact-x4") for file in compact["files"]] == list(ENDS)


class TestFetch:
    def test_what_is_shipped_needs_no_fetching(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYSCALE_WEIGHTS_URL", "http://127.0.0.1:1")
        result = run("fetch", "keyscale-compact-x2")
        assert Path(result.stdout.strip()).name == "keyscale-compact-x2.safetensors"
        assert result.stderr == ""

    def test_the_path_of_what_is_here_is_printed_alone(self, with_official: Path) -> None:
        result = run("fetch", "realesr-animevideov3")
        assert result.exit_code == 0
        assert result.stdout == f"{with_official}\n"

    def test_an_unknown_name(self) -> None:
        result = run("fetch", "realesr-animevideov4")
        assert isinstance(result.exception, ModelError)
        assert "realesr-animevideov3" in (result.exception.remedy or "")

    @pytest.mark.loopback
    def test_a_server_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from keyscale.engine.models import download

        monkeypatch.setattr(download, "PAUSES_S", ())
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("KEYSCALE_WEIGHTS_URL", "http://127.0.0.1:1")
        result = run("fetch", "realesr-general-x4v3")
        assert isinstance(result.exception, ModelError)
        assert "not reachable" in result.exception.message
        assert result.stdout == ""
        assert "downloading realesr-general-x4v3.pth (4.9 MB)" in result.stderr

    @pytest.mark.loopback
    def test_what_is_not_here_is_downloaded(self, cache: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        handler = partial(SilentHandler, directory=str(shared / "weights"))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            monkeypatch.setenv("KEYSCALE_WEIGHTS_URL", f"http://127.0.0.1:{server.server_address[1]}")
            result = run("fetch", "realesr-animevideov3")
            server.shutdown()
        assert result.stdout == f"{cache / OFFICIAL}\n"
        assert "fetch: 2.5/2.5 MB" in result.stderr
        assert verified() == [f"ok     {cache / OFFICIAL}"]

    @pytest.mark.loopback
    def test_quietly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from keyscale.engine.models import download

        monkeypatch.setattr(download, "PAUSES_S", ())
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("KEYSCALE_WEIGHTS_URL", "http://127.0.0.1:1")
        assert run("fetch", "realesr-general-x4v3", "--quiet").stderr == ""


class TestVerify:
    def test_good_weights(self, with_official: Path) -> None:
        assert verified() == [f"ok     {with_official}"]

    def test_what_is_shipped_is_verified_too(self, cache: Path) -> None:
        result = run("verify")
        assert result.exit_code == 0
        names = [Path(line.removeprefix("ok     ")).name for line in result.stdout.splitlines()]
        assert names == [f"{name}{end}" for name in SHIPPED for end in ENDS]
        assert f"there are no other weights in {cache}" in result.stderr

    def test_a_wrong_file_among_good_ones(self, with_official: Path, cache: Path) -> None:
        wrong = cache / "RealESRGAN_x4plus.pth"
        wrong.write_bytes(b"other")
        result = run("verify")
        assert isinstance(result.exception, ModelError)
        assert str(wrong) in result.exception.message
        assert result.stdout.splitlines()[-2:] == [f"ok     {with_official}", f"wrong  {wrong}"]

    def test_several_wrong_files_are_all_named(self, cache: Path) -> None:
        for name in ("RealESRGAN_x4plus.pth", "RealESRGAN_x2plus.pth"):
            (cache / name).write_bytes(b"other")
        result = run("verify")
        assert isinstance(result.exception, ModelError)
        assert result.exception.message.startswith(f"2 of {2 + len(ENDS) * len(SHIPPED)} weights files are wrong")
        assert "RealESRGAN_x4plus.pth" in result.exception.message
        assert "RealESRGAN_x2plus.pth" in result.exception.message


@pytest.mark.processes
def test_help_loads_neither_torch_nor_the_engine_s_models() -> None:
    code = (
        "import sys\nfrom keyscale.cli.models import app\n"
        "sys.exit('torch' in sys.modules or 'keyscale.engine.models' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
