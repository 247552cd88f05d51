"""`keyscale doctor`: what it looks at, what it says of what is broken, its exit code, and that it tells no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.remote_place import Place
from support.s3 import Proxy, S3Server, via
from support.s3.process import free_port

from keyscale.cli.app import run
from keyscale.engine.models import devices, shipped
from keyscale.engine.storage.bucket import Storage

SUBJECTS = {"python", "libraries", "ffmpeg", "device", "networks", "other weights", "cache", "state", "temporary files"}
REMOTE = {"object storage", "modal"}
UNSET = (
    "R2_ENDPOINT_URL",
    "R2_ACCOUNT_ID",
    "R2_BUCKET_NAME",
    "R2_ACCESS_KEY_ID",
    "R2_SECRET_ACCESS_KEY",
    "MODAL_TOKEN_ID",
)


@pytest.fixture(autouse=True)
def nothing_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "none.toml"))
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("KEYSCALE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("KEYSCALE_WEIGHTS_DIR", raising=False)


def examined(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = run(["doctor", "--json", *flags])
    return code, {each["subject"]: each for each in json.loads(capsys.readouterr().out)["findings"]}


def test_everything_is_looked_at_and_what_is_not_set_up_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = examined(capsys)
    assert code == 0
    assert found.keys() >= SUBJECTS | REMOTE
    assert {found[subject]["state"] for subject in REMOTE} == {"off"}
    for name in ("h264, 8 bit", "hevc, 8 bit", "hevc, 10 bit", "av1, 10 bit", "prores, 10 bit"):
        assert found[f"encoder {name}"]["state"] == "ok", found
    assert "keyscale-compact" in found["device"]["found"]
    assert all(each["remedy"] for each in found.values() if each["state"] != "ok")


def test_people_get_a_line_for_each_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok    encoder h264, 8 bit") for line in lines)
    at = next(n for n, line in enumerate(lines) if line.startswith("off   modal"))
    assert "modal setup" in lines[at + 1]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(["doctor"])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_network_is_a_fault_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    whole = shipped.data_file("x")
    for path in Path(str(whole)).parent.iterdir():
        content = path.read_bytes()
        (damaged / path.name).write_bytes(content[:-1] + b"?" if path.suffix == ".safetensors" else content)
    monkeypatch.setattr(shipped, "data_file", lambda filename: damaged / filename)
    code, found = examined(capsys)
    assert (code, found["networks"]["state"], found["networks"]["exit_code"]) == (4, "fault", 4)
    assert ".safetensors" in found["networks"]["found"]


def test_a_gpu_that_torch_does_not_reach_is_told_and_auto_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "_devices", lambda: iter(("cuda:99", "cpu")))
    code, found = examined(capsys)
    assert (code, found["device"]["state"]) == (0, "off")
    assert "auto is cpu" in found["device"]["found"]
    assert "cuda:99: there is no device cuda:99" in found["device"]["found"]


def test_no_device_that_runs_a_network_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "_devices", lambda: iter(("cuda:99",)))
    code, found = examined(capsys)
    assert (code, found["device"]["state"], found["device"]["exit_code"]) == (4, "fault", 4)
    assert "there is no device cuda:99" in found["device"]["found"]


@pytest.mark.parametrize(("variable", "subject"), [("KEYSCALE_CACHE_DIR", "cache"), ("KEYSCALE_STATE_DIR", "state")])
def test_a_folder_that_cannot_be_written_names_its_variable(
    variable: str, subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "folder"))
    code, found = examined(capsys)
    assert (code, found[subject]["state"]) == (4, "fault")
    assert variable in found[subject]["remedy"]


def test_a_bucket_is_tried_and_no_key_is_told(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = rclone.new_bucket()
    for name, value in rclone.environment(settings).items():
        monkeypatch.setenv(name, value)
    code, found = examined(capsys)
    assert (code, found["object storage"]["state"]) == (0, "ok")
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "not-the-secret-key")
    code, found = examined(capsys)
    assert (code, found["object storage"]["exit_code"]) == (5, 5)
    told = json.dumps(found)
    for secret in (settings.secret_key, settings.access_key, "not-the-secret-key"):
        assert secret not in told


@pytest.mark.parametrize("variable", UNSET[:5])
def test_no_variable_of_storage_is_told_in_whatever_place_a_secret_was_put(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is set alone, too, means that storage is to be set up."""
    monkeypatch.setenv(variable, "5ecretKey/+A=")
    code, found = examined(capsys)
    assert (code, found["object storage"]["state"]) == (5, "fault")
    assert "5ecretKey" not in json.dumps(found)
    for other in UNSET[:5]:
        monkeypatch.setenv(other, "5ecretKey/+A=")
    assert "5ecretKey" not in json.dumps(examined(capsys)[1])


def test_what_drivers_write_is_not_among_the_findings(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def loud() -> Iterator[str]:
        os.write(2, b"Warning: Vulkan\n")
        yield "cpu"

    monkeypatch.setattr(devices, "_devices", loud)
    assert run(["doctor"]) == 0
    out, err = capfd.readouterr()
    assert "auto is cpu" in out
    assert "Vulkan" not in err
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_a_defect_in_a_look_is_not_told_as_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Storage) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(Storage, "check", broken)
    for name in UNSET[:5]:
        monkeypatch.setenv(name, "http://127.0.0.1:9" if name.endswith("URL") else "name-of-one")
    assert run(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "did not answer" not in out
    assert "a defect" in err


@pytest.mark.slow
def test_storage_that_is_silent_takes_seconds(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Proxy(rclone.endpoint) as proxy:
        for name, value in rclone.environment(via(rclone.new_bucket(), proxy.endpoint)).items():
            monkeypatch.setenv(name, value)
        proxy.stall()
        code, found = examined(capsys)
    assert (code, found["object storage"]["state"]) == (5, "fault")
    assert found["object storage"]["seconds"] < 15


@pytest.mark.loopback
def test_modal_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MODAL_TOKEN_ID", "ak-1")
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-secret")
    monkeypatch.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{free_port()}")
    code, found = examined(capsys)
    assert (code, found["modal"]["state"], found["modal"]["exit_code"]) == (5, "fault", 5)
    assert "as-secret" not in json.dumps(found)


def test_what_is_deployed(deployed: Place) -> None:
    told = json.loads(deployed.run("doctor", "--json", "--ask-deployed").stdout)["findings"]
    found = {each["subject"]: each for each in told}
    assert {found[subject]["state"] for subject in REMOTE} == {"ok"}
    assert "is deployed, for CPUs, 3 containers at most" in found["modal"]["found"]
    told = json.loads(deployed.run("doctor", "--json").stdout)["findings"]
    assert "the functions are deployed" in told[-1]["found"]
