"""What flags and variables mean for `--remote`, and what is said where something is not set up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from support.clips import make_clip
from support.numbered import planes, shown
from support.remote_place import Place, events_of
from support.s3.proxy import Proxy
from support.s3.server import via

from keyscale.cli.app import run
from keyscale.cli.settings import is_remote
from keyscale.engine.errors import UsageError
from keyscale.engine.models.torch_networks import SRVGGNetCompact
from keyscale.engine.run_options import RemoteOptions
from keyscale.engine.storage.bucket import Storage
from keyscale.engine.storage.settings import split_output

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COURT, CAMERA = EXAMPLES / "court.mp4", EXAMPLES / "court.json"
QUICK_S = 15.0
"""Within which a fault has to be told that shows before anything is sent; most of it is the start of Python."""


# MODAL_ENABLED


@pytest.mark.parametrize("word", ["true", "TRUE", "True", "1", "yes", "on", "On", " true "])
def test_modal_enabled_makes_remote_the_default(word: str) -> None:
    assert is_remote(word)


@pytest.mark.parametrize("word", ["false", "FALSE", "0", "no", "off", "", "  "])
def test_modal_enabled_may_say_no(word: str) -> None:
    assert not is_remote(word)


@pytest.mark.parametrize("word", ["maybe", "2", "enabled", "y", "t"])
def test_another_word_in_modal_enabled_is_an_error(word: str) -> None:
    with pytest.raises(UsageError, match="is neither yes nor no") as caught:
        is_remote(word)
    assert "--remote or --local" in str(caught.value.remedy)


@pytest.mark.parametrize("command", ["upscale", "plan"])
def test_modal_enabled_is_heeded_by_the_commands(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MODAL_ENABLED", "perhaps")
    assert run([command, str(COURT), "-o", str(tmp_path / "out.mp4")]) == 2
    assert "MODAL_ENABLED='perhaps' is neither yes nor no" in capsys.readouterr().err
    monkeypatch.setenv("MODAL_ENABLED", "yes")
    for name in [name for name in os.environ if name.startswith("R2_")]:
        monkeypatch.delenv(name)
    expected = {"upscale": (5, "R2_BUCKET_NAME is not set"), "plan": (0, "1 chunk in up to 1 container with L4 GPUs")}[
        command
    ]
    code = run([command, str(COURT), "-o", str(tmp_path / "out.mp4")])
    out, err = capsys.readouterr()
    assert (code, expected[1] in out + err) == (expected[0], True)
    if command == "plan":
        assert run([command, str(COURT), "--local"]) == 0
        assert "containers" not in capsys.readouterr().out


# Flags


@pytest.mark.parametrize("containers", [0, -1, 1001])
def test_so_many_containers_are_refused(containers: int) -> None:
    with pytest.raises(UsageError, match="out of range"):
        RemoteOptions(containers=containers)


@pytest.mark.parametrize("dollars", [-0.01, float("nan")])
def test_such_a_cost_is_refused(dollars: float) -> None:
    with pytest.raises(UsageError, match="out of range"):
        RemoteOptions(max_cost=dollars)


@pytest.mark.parametrize("command", ["upscale", "plan", "preview", "batch"])
@pytest.mark.parametrize(
    "flags",
    [("--max-cost", "3"), ("--remote-containers", "2"), ("--remote-deadline", "9"), ("--max-queue", "60")],
    ids=lambda flags: flags[0],
)
def test_what_concerns_remote_runs_alone_is_refused_here(
    command: str,
    flags: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit of dollars that nothing heeds looks like one that holds."""
    out = tmp_path / "out"
    assert run([command, str(COURT), "-o", str(out / "a.mp4" if command != "batch" else out), *flags]) == 2
    assert f"{flags[0]} is for --remote alone" in capsys.readouterr().err
    assert run([command, str(COURT), "-o", str(out / "a.mp4"), "--local", *flags]) == 2
    assert not out.exists()
    # A default holds for other runs, too.
    monkeypatch.setenv(f"KEYSCALE_{flags[0][2:].upper().replace('-', '_')}", flags[1])
    if command == "plan":
        assert run(["plan", str(COURT)]) == 0


@pytest.mark.parametrize("output", ["clip.mp4", "a/b.mp4", "C:/clips/a.mp4", "r2:/odd.mp4", None])
def test_a_path_stays_a_path(output: str | None) -> None:
    assert split_output(output) == (output, None)


def test_an_address_is_published_to_and_kept_under_its_last_part() -> None:
    assert split_output("r2://videos/a b/clip.mp4") == ("clip.mp4", "r2://videos/a b/clip.mp4")
    assert split_output("R2://videos/clip.mp4") == ("clip.mp4", "R2://videos/clip.mp4")


def test_the_copy_of_an_address_never_has_the_name_of_the_video_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    address = "r2://videos/clip.mp4"
    for video in ("clip.mp4", "./clip.mp4", str(tmp_path / "clip.mp4"), "link.mp4"):
        assert split_output(address, video) == ("clip.keyscale.mp4", address)
    for video in ("other.mp4", "absent/clip.mp4", "clip.mkv"):
        assert split_output(address, video) == ("clip.mp4", address)
    assert split_output("clip.mp4", "clip.mp4") == ("clip.mp4", None), "what is asked for by its name is refused later"


@pytest.mark.parametrize("command", ["plan", "upscale"])
def test_a_video_may_be_published_under_its_own_name(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("R2_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "clip.mp4", frames=5, rate=30)
    code = run([command, "clip.mp4", "-o", "r2://videos/clip.mp4", "--local", "--model", "lanczos", "--size", "64x64"])
    # The job itself stops where storage would be needed.
    assert code == {"plan": 0, "upscale": 5}[command], capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["s3://videos/clip.mp4", "r2://videos", "r2://videos/", "r2:///clip.mp4", "r2://videos/a/../b.mp4"]
)
def test_another_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["upscale", str(COURT), "-o", address]) == 2
    assert "Write r2://BUCKET/KEY" in capsys.readouterr().err


# Plans and costs


def plan_json(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, object]:
    assert run(["plan", str(COURT), str(CAMERA), "--json", *flags]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_plan_tells_what_a_remote_job_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEYSCALE_GPU", "KEYSCALE_CONTAINERS"):
        monkeypatch.delenv(name, raising=False)
    remote = plan_json(capsys, "--remote", "--chunk-seconds", "1")["remote"]
    assert isinstance(remote, dict)
    assert set(remote) == {
        *("chunks", "containers", "gpu", "cores", "encoder", "minutes", "dollars", "measured", "parts", "why"),
        "alternatives",
    }
    assert (remote["chunks"], remote["containers"], remote["gpu"]) == (5, 5, "L4")
    assert remote["minutes"] > 0
    assert remote["dollars"] > 0
    assert plan_json(capsys, "--local")["remote"] is None
    assert run(["plan", str(COURT), str(CAMERA), "--remote", "--chunk-seconds", "1"]) == 0
    table = capsys.readouterr().out
    assert "5 chunks in up to 5 containers with L4 GPUs and 4 cores each" in table
    assert f"${remote['dollars']:.2f} at list prices (work $" in table
    assert "1 container with L4 GPUs" in table


def test_a_deadline_decides_over_how_many_containers_a_job_is_spread(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--remote", "--chunk-seconds", "1")
    hurried = plan_json(capsys, *flags, "--remote-deadline", "0.5")["remote"]
    patient = plan_json(capsys, *flags, "--remote-deadline", "60")["remote"]
    assert isinstance(hurried, dict)
    assert isinstance(patient, dict)
    assert 1 == patient["containers"] <= hurried["containers"]
    assert patient["dollars"] <= hurried["dollars"]
    assert hurried["minutes"] <= 0.5
    assert run(["plan", str(COURT), *flags, "--remote-deadline", "0.01"]) == 2
    assert "longer than --remote-deadline" in capsys.readouterr().err


def test_a_plan_goes_by_the_variables_of_the_deployment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path))  # speeds of earlier jobs on this machine lie there
    monkeypatch.setenv("KEYSCALE_GPU", "H100, L4")
    monkeypatch.setenv("KEYSCALE_CONTAINERS", "2")
    dear = plan_json(capsys, "--remote", "--chunk-seconds", "1")["remote"]
    monkeypatch.setenv("KEYSCALE_GPU", "none")
    slow = plan_json(capsys, "--remote", "--chunk-seconds", "1", "--remote-containers", "1")["remote"]
    assert isinstance(dear, dict)
    assert isinstance(slow, dict)
    assert (dear["gpu"], dear["containers"]) == ("H100", 2)
    assert (slow["gpu"], slow["containers"]) == ("none", 1)
    assert slow["minutes"] > dear["minutes"]
    monkeypatch.setenv("KEYSCALE_CONTAINERS", "many")
    assert run(["plan", str(COURT), "--remote"]) == 2
    assert "KEYSCALE_CONTAINERS is 'many'" in capsys.readouterr().err


def test_a_plan_above_the_most_that_it_may_cost_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(COURT), "--remote", "--max-cost", "0.0001"]) == 2
    assert "more than --max-cost 0.0001" in capsys.readouterr().err
    assert run(["plan", str(COURT), "--remote", "--max-cost", "100"]) == 0


@pytest.mark.parametrize("most", ["0", "0.001", "0.005"])
def test_what_a_plan_is_estimated_at_is_told_in_as_many_digits_as_it_takes(
    most: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYSCALE_GPU", raising=False)
    flags = [
        "plan",
        str(COURT),
        "--remote",
        "--model",
        "lanczos",
        "--end",
        "0.1",
        "--size",
        "64x64",
        "--max-cost",
        most,
    ]
    assert run(flags) == 2
    told = re.search(r"estimated at \$([0-9.]+), more than --max-cost ([0-9.]+)", capsys.readouterr().err)
    assert told is not None
    assert float(told[1]) > float(told[2]) == float(most)


def test_a_plan_for_a_gpu_that_is_not_known_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSCALE_GPU", "foo")
    assert run(["plan", str(COURT), "--remote"]) == 2
    assert "KEYSCALE_GPU is 'foo', which names no GPUs" in capsys.readouterr().err


@pytest.mark.parametrize("age", ["1", "d", "1w", "-1d", "1 d", ""])
def test_an_age_of_another_form_is_refused(age: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["remote", "clean", "--older-than", age]) == 2
    assert "Write 90s, 30m, 12h or 1d." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("KEYSCALE_CONTAINERS", "-3", "KEYSCALE_CONTAINERS is '-3', not a whole number above 0"),
        ("KEYSCALE_TIMEOUT", "-3", "KEYSCALE_TIMEOUT is '-3', not a whole number above 0"),
        ("KEYSCALE_TIMEOUT", "5", "KEYSCALE_TIMEOUT is 5, it has to be from 6 to 86400 seconds"),
        ("KEYSCALE_TIMEOUT", "86401", "KEYSCALE_TIMEOUT is 86401, it has to be from 6 to 86400 seconds"),
        ("KEYSCALE_GPU", "L4;T4", "KEYSCALE_GPU is 'L4;T4', which names no GPUs"),
        ("KEYSCALE_GPU", "L4,foo", "names no GPUs (foo)"),
        (
            "KEYSCALE_GPU",
            "foo",
            "known are T4, L4, A10, L40S, A100, A100-40GB, A100-80GB, RTX-PRO-6000, H100, H200, B200",
        ),
    ],
)
def test_deploying_with_a_setting_that_is_none_is_refused(
    name: str, value: str, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert run(["remote", "deploy"]) == 2
    assert text in capsys.readouterr().err


# What is not set up


FLAGS = ("upscale", COURT, "--model", "lanczos", "--size", "64x64", "-o", "out.mp4", "--remote")


def fails(place: Place, *arguments: str | Path, environment: dict[str, str]) -> str:
    """The one message of a command that has to fail soon, with exit code 5 and nothing left."""
    began = time.monotonic()
    done = place.run(*arguments, environment=environment)
    assert time.monotonic() - began < QUICK_S
    assert (done.returncode, done.stdout) == (5, ""), done.stderr
    assert not (place.folder / "out.mp4").exists()
    assert not list(place.folder.glob(".*.keyscale"))
    assert place.left() == []
    return done.stderr


def closed_port() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_every_variable_of_storage_that_is_missing_is_named(place: Place) -> None:
    text = fails(place, *FLAGS, environment={name: "" for name in place.environment() if name.startswith("R2_")})
    for name in ("R2_ENDPOINT_URL", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME"):
        assert f"{name} " in text.partition("->")[0]
        assert name in text.partition("->")[2]


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("R2_SECRET_ACCESS_KEY", "another-secret", "R2_SECRET_ACCESS_KEY"),
        ("R2_BUCKET_NAME", "absent-bucket", "R2_BUCKET_NAME"),
        ("MODAL_TOKEN_SECRET", "as-wrong", "Modal does not accept the token"),
    ],
)
def test_credentials_that_are_not_accepted_are_named(
    place: Place,
    variable: str,
    value: str,
    text: str,
) -> None:
    told = fails(place, *FLAGS, environment={variable: value})
    assert text in told
    assert value not in told or variable == "R2_BUCKET_NAME"
    if variable.startswith("MODAL"):
        assert "Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal setup`." in told


def test_without_a_token_of_modal_it_is_said_how_to_get_one(place: Place) -> None:
    told = fails(place, *FLAGS, environment={"MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""})
    assert "MODAL_TOKEN_ID" in told


def test_functions_that_are_not_deployed_are_to_be_deployed(place: Place) -> None:
    told = fails(place, *FLAGS, environment={})
    assert "is not deployed" in told
    assert "Run `keyscale remote deploy`." in told


@pytest.mark.loopback
def test_a_server_that_does_not_listen_is_told_at_once(place: Place) -> None:
    told = fails(place, *FLAGS, environment={"MODAL_SERVER_URL": closed_port()})
    assert "Modal cannot be reached at 127.0.0.1" in told
    told = fails(place, "remote", "deploy", environment={"MODAL_SERVER_URL": closed_port()})
    assert "Modal cannot be reached at 127.0.0.1" in told


OLD = """
import modal
app = modal.App("keyscale")

@app.function(name="describe")
def describe():
    return {answer}
"""


@pytest.mark.parametrize(
    ("answer", "deployed"),
    [
        ({"schema": 0, "version": "0.0.1"}, "version 0.0.1, schema 0"),
        ("0.0.1", "version unknown, schema 0"),
        ({"a": 1}, "version unknown, schema 0"),
    ],
)
def test_an_older_deployment_is_to_be_deployed_anew(place: Place, answer: object, deployed: str) -> None:
    (place.folder / "old.py").write_text(OLD.replace("{answer}", repr(answer)))
    assert place.modal.deploy("old.py", cwd=place.folder).returncode == 0
    told = fails(place, *FLAGS, environment={})
    assert f"an older keyscale is deployed ({deployed}; here they are" in told
    assert "Run `keyscale remote deploy`." in told


def test_publishing_is_tried_before_the_work_and_not_after_it(place: Place) -> None:
    flags = ("upscale", COURT, "--size", "64x64", "--local", "-o")
    told = fails(place, *flags, "r2://videos/out.mp4", environment={"R2_ACCESS_KEY_ID": ""})
    assert "R2_ACCESS_KEY_ID is not set" in told
    told = fails(place, *flags, "r2://absent-bucket/out.mp4", environment={})
    assert "has no bucket named absent-bucket" in told
    assert "Check the bucket in -o" in told


# What the flags do


@pytest.mark.parametrize(("device", "model"), [("mps", "lanczos"), ("cuda", "keyscale-tiny-x2")])
def test_a_device_that_the_functions_do_not_have_is_refused(deployed: Place, device: str, model: str) -> None:
    flags = ("upscale", COURT, "--size", "64x64", "-o", "mps.mp4", "--remote", "--device", device, "--model", model)
    done = deployed.run(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--device {device} with --remote: the deployed functions run on cpu" in done.stderr
    assert deployed.left() == []


def test_nothing_is_begun_that_is_estimated_to_cost_too_much(deployed: Place) -> None:
    done = deployed.run("upscale", COURT, "-o", "dear.mp4", "--remote", "--max-cost", "0.000001")
    assert (done.returncode, done.stdout) == (2, "")
    assert "more than --max-cost 1e-06" in done.stderr
    assert deployed.left() == []
    assert not (deployed.folder / "dear.mp4").exists()


def test_a_checkpoint_of_ones_own_reaches_the_containers(deployed: Place) -> None:
    torch.manual_seed(3)
    own = deployed.folder / "my net.pth"
    torch.save({"params": SRVGGNetCompact(features=4, blocks=1, scale=2).state_dict()}, own)
    clip = make_clip(deployed.folder / "plain.mp4", frames=40, rate=30)
    # In fp32: what a container's CPU has beside it is not known here.
    arithmetic = ("--device", "cpu", "--precision", "fp32")
    flags = ("upscale", clip, "--model", own, "--size", "128x128", "--chunk-seconds", "0.7", *arithmetic)
    here = deployed.run(*flags, "-o", "own-here.mp4", "--local")
    assert here.returncode == 0, here.stderr
    there = deployed.run(*flags, "-o", "own-there.mp4", "--remote", "--progress", "json")
    assert there.returncode == 0, there.stderr + deployed.logs()
    done = events_of(there.stdout)[-1]
    assert (done["runtime"], done["inferred_frames"]) == ("openvino", 40)
    found = planes(deployed.folder / "own-there.mp4")
    assert len(found) == 40
    assert found == planes(deployed.folder / "own-here.mp4")
    assert deployed.left() == []


def test_a_local_job_publishes_to_an_address_too(deployed: Place) -> None:
    clip = make_clip(deployed.folder / "published.mov", frames=20, rate=30)
    address = f"r2://{deployed.settings.bucket}/a folder/clip.mov"
    flags = ("upscale", clip, "--model", "lanczos", "--size", "64x48", "--crf", "8", "--local", "--progress", "json")
    done = deployed.run(*flags, "-o", address)
    assert done.returncode == 0, done.stderr
    assert events_of(done.stdout)[-1]["published"] == address
    assert len(shown(deployed.folder / "clip.mov")) == 20
    with Storage(deployed.settings) as storage:
        head = storage.head("a folder/clip.mov")
        storage.delete("a folder/clip.mov")
    assert head is not None
    assert (head.content_type, head.size) == ("video/quicktime", (deployed.folder / "clip.mov").stat().st_size)
    assert deployed.left() == []


# keyscale remote


def test_remote_deploy_deploys_the_stub(place: Place) -> None:
    lacking = place.run("remote", "deploy")
    assert lacking.returncode == 5
    assert "Secret 'r2-credentials' not found" in lacking.stderr
    assert "`modal secret create r2-credentials`" in lacking.stderr
    assert not place.modal.calls("AppPublish")
    place.modal.set_secret("r2-credentials", place.s3.environment(place.settings))
    done = place.run("remote", "deploy", environment={"KEYSCALE_GPU": "none", "KEYSCALE_CONTAINERS": "2"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(place.modal.calls("AppPublish")) == 1
    for name in ("describe", "Engine.*", "process_framing_ai", "process_framing_ai_job"):
        assert place.modal.image_of("keyscale", name)
    refused = place.run("remote", "deploy", environment={"MODAL_TOKEN_SECRET": "as-wrong"})
    assert refused.returncode == 5
    assert "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET" in refused.stderr


@pytest.mark.slow
def test_who_needs_no_framing_function_deploys_without_its_secret(place: Place) -> None:
    chosen = {"KEYSCALE_GPU": "none", "R2_SECRET": "none", "KEYSCALE_CONTAINERS": "1"}
    deployed_so = place.run("remote", "deploy", environment=chosen)
    assert deployed_so.returncode == 0, deployed_so.stderr
    clip = make_clip(place.folder / "plain.mp4", frames=20, rate=30, size=(64, 48))
    done = place.run("upscale", clip, "--model", "lanczos", "--size", "64x48", "--crf", "8", "-o", "a.mp4", "--remote")
    assert done.returncode == 0, done.stderr
    assert shown(place.folder / "a.mp4") == list(range(20))


@pytest.mark.loopback
def test_status_and_cancel_of_a_job_whose_client_died(deployed: Place) -> None:
    # One call at a time: once it is known, none is just being started, of which nobody would know.
    flags = ("upscale", COURT, CAMERA, "--chunk-seconds", "2", "--remote", "--remote-containers", "1")
    assert "no remote job is unfinished on this machine" in deployed.run("remote", "status").stdout
    client = deployed.start(*flags, "-o", "orphan.mp4")
    state = deployed.folder / ".orphan.mp4.keyscale" / "remote.json"
    deadline = time.monotonic() + 90
    while not (state.is_file() and json.loads(state.read_text())["calls"]):
        assert client.poll() is None, client.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    left = deployed.left()
    assert left
    status = deployed.run("remote", "status")
    assert status.returncode == 0, status.stderr
    job = status.stdout.split()[0]
    assert all(key.startswith(f"temp/upscale_{job}/") for key in left)
    assert "orphan.mp4" in status.stdout
    # A container may be starting for it.
    while re.search(r"\): queued for \d:\d\d\n", status.stdout):
        assert time.monotonic() < deadline
        status = deployed.run("remote", "status", job)
    assert re.search(r"\): running, started \d:\d\d ago\n", status.stdout)
    for wrong, why in (
        ({"MODAL_TOKEN_SECRET": "as-wrong"}, "may still run"),
        ({"MODAL_SERVER_URL": closed_port()}, "Modal cannot be reached"),
    ):
        refused = deployed.run("remote", "cancel", job, environment=wrong)
        assert (refused.returncode, refused.stdout) == (5, "")
        assert why in refused.stderr
        assert state.exists(), "whoever cancels again has to know the calls"
    cancelled = len(deployed.modal.calls("FunctionCallCancel"))
    done = deployed.run("remote", "cancel", job)
    assert (done.returncode, done.stdout.startswith(f"{job} is cancelled")) == (0, True), done.stderr
    assert len(deployed.modal.calls("FunctionCallCancel")) > cancelled
    assert deployed.left() == []
    assert not state.exists()
    assert "no remote job is unfinished" in deployed.run("remote", "status").stdout
    for command in ("status", "cancel", "resume"):
        again = deployed.run("remote", command, job)
        assert again.returncode == 5
        assert f"no unfinished remote job {job} is known" in again.stderr


@pytest.mark.parametrize("command", ["status", "cancel", "resume"])
@pytest.mark.parametrize("job", ["../../etc", "no such job", "absent"])
def test_what_is_no_job_is_refused(
    command: str, job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEYSCALE_STATE_DIR", str(tmp_path))
    assert run(["remote", command, job]) == 5
    assert "'keyscale remote status' lists those that are." in capsys.readouterr().err


def test_clean_removes_what_is_older_and_nothing_else(place: Place) -> None:
    job = "20200101t000000-0123456789ab"
    with Storage(place.settings) as storage:
        storage.put(f"temp/upscale_{job}/source.mp4", b"old")
        storage.put(f"temp/upscale_{job}/chunks/00000-0-5.mp4", b"old too")
        storage.put("temp/keyscale-check-0123456789abcdef", b"of a client that was killed")
        storage.put("temp/keyscale-check-list.txt", b"mine")
        storage.put("results/upscale_x/clip.mp4", b"mine")
        upload = {"Bucket": place.settings.bucket, "Key": f"temp/upscale_{job}/checkpoint"}
        upload["UploadId"] = storage.client.create_multipart_upload(**upload)["UploadId"]
        storage.client.upload_part(**upload, PartNumber=1, Body=b"half")
    nothing = place.run("remote", "clean")
    assert (nothing.returncode, nothing.stdout) == (0, "nothing is older than 1d\n"), nothing.stderr
    time.sleep(1.5)
    look = place.run("remote", "clean", "--older-than", "1s", "--dry-run")
    found, trials, sum_ = look.stdout.splitlines()
    assert found.startswith(f"{job}  2 objects, 1 unfinished upload, 14 bytes, last changed ")
    assert trials.startswith("trials of the bucket  1 object, 0 unfinished uploads, 27 bytes, last changed ")
    assert "removed" not in found + trials
    assert sum_ == "would be removed: 3 objects, 1 unfinished upload, 41 bytes"
    assert len(place.left()) == 6
    done = place.run("remote", "clean", "--older-than", "1s")
    assert done.stdout.splitlines() == [f"{found}, removed", f"{trials}, removed", sum_.removeprefix("would be ")]
    assert sorted(place.left()) == ["results/upscale_x/clip.mp4", "temp/keyscale-check-list.txt"]
    with Storage(place.settings) as storage:
        for key in place.left():
            storage.delete(key)


def test_clean_tells_what_it_removed_before_something_could_not_be(place: Place) -> None:
    with Storage(place.settings) as storage:
        for job in ("20200101t000000-0123456789ab", "20200102t000000-0123456789ab"):
            storage.put(f"temp/upscale_{job}/source.mp4", b"old")
            time.sleep(1.1)  # the oldest goes first
    with Proxy(place.settings.endpoint) as proxy:
        proxy.answer(lambda line: line.startswith("DELETE") and "20200102" in line, 403, "AccessDenied")
        through = {"R2_ENDPOINT_URL": via(place.settings, proxy.endpoint).endpoint}
        done = place.run("remote", "clean", "--older-than", "0s", environment=through)
    assert done.returncode == 5
    (line,) = done.stdout.splitlines()
    assert line.startswith("20200101t000000-0123456789ab  1 object, ")
    assert line.endswith(", removed")
    assert place.left() == ["temp/upscale_20200102t000000-0123456789ab/source.mp4"]
