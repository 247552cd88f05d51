"""Where flags take their values from when they are not given: files, the environment, and in which order."""

from __future__ import annotations

import json
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer

from keyscale.cli.app import run
from keyscale.cli.batch import command as batch_command
from keyscale.cli.settings import OTHER_VARIABLES, ConfiguredCommand, RunCommand, known_settings, settings_of
from keyscale.cli.upscale import command as upscale_command
from keyscale.engine.choices import Fit
from keyscale.engine.errors import UsageError
from keyscale.engine.run_options import MODAL_ENABLED
from keyscale.engine.settings import MAX_BYTES, Layer, Origin, Setting

ROOT = Path(__file__).resolve().parents[2]
COURT, CAMERA = ROOT / "examples" / "court.mp4", ROOT / "examples" / "court.json"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, an empty user config, and none of the program's variables."""
    for name in list(os.environ):
        if name.startswith("KEYSCALE_") or name == MODAL_ENABLED:
            monkeypatch.delenv(name)
    monkeypatch.setenv("KEYSCALE_CONFIG_DIR", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return Path(path)


def user(text: str) -> None:
    write("home/config.toml", text)


def preset(text: str) -> None:
    write("in/keyscale.toml", text)


# The real flags and classes, with commands that hand out what they were called with.

seen: dict[str, Any] = {}
COMMANDS = {
    "upscale": RunCommand("upscale", seen.update, upscale_command().options),
    "batch": RunCommand("batch", seen.update, batch_command().options, arguments=batch_command().params[:1]),
}


def called(*args: str) -> Any:
    """The context of a command that was called."""
    seen.clear()
    name, *rest = args
    # No result is ever written: where it would go is of no account.
    command, given = COMMANDS[name], [*rest, "-o", "out"] if name == "batch" else rest
    with command.make_context(name, given) as ctx:
        command.invoke(ctx)
    return ctx


def call(*args: str) -> dict[str, Any]:
    """What a command is called with."""
    called(*args)
    return dict(seen)


def refusal(*args: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        call(*args)
    assert caught.value.message
    return caught.value


# The layers


def test_without_files_and_variables_the_defaults_are_the_flags_own() -> None:
    assert call("upscale", "in/a.mp4")["size"] == (1080, 1920)


def test_each_layer_wins_over_those_below(monkeypatch: pytest.MonkeyPatch) -> None:
    user("size = '2x2'\ncrf = 1\nfps = 10\nchunk-seconds = 1\n")
    preset("size = '4x4'\ncrf = 2\nfps = 20\n")
    monkeypatch.setenv("KEYSCALE_SIZE", "6x6")
    monkeypatch.setenv("KEYSCALE_CRF", "3")
    found = call("upscale", "in/a.mp4", "--size", "8x8")
    assert (found["size"], found["crf"], found["fps"], found["chunk_seconds"]) == ((8, 8), 3, Fraction(20), 1.0)


def test_where_each_value_came_from_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    user("fps = 10\n")
    preset("crf = 2\n")
    monkeypatch.setenv("KEYSCALE_TILE", "256")
    ctx = called("upscale", "in/a.mp4", "--size", "8x8")
    settings = settings_of(ctx)
    assert settings["size"] == Setting("size", "8x8", Origin(Layer.COMMAND_LINE))
    assert settings["tile"] == Setting("tile", "256", Origin(Layer.ENVIRONMENT, "KEYSCALE_TILE"))
    assert settings["crf"] == Setting("crf", 2, Origin(Layer.PRESET, "in/keyscale.toml"))
    assert settings["fps"].origin == Origin(Layer.USER, str(Path("home/config.toml").absolute()))
    assert settings["fit"] == Setting("fit", "cover", Origin(Layer.BUILT_IN))
    assert [str(settings[name].origin) for name in ("size", "tile", "fit")] == [
        "command line",
        "KEYSCALE_TILE",
        "built-in",
    ]


def test_a_flag_that_repeats_its_default_still_wins() -> None:
    preset("size = '4x4'\nresume = false\n")
    assert call("upscale", "in/a.mp4", "--size", "1080x1920", "--resume")["size"] == (1080, 1920)
    assert call("upscale", "in/a.mp4", "--resume")["resume"] is True
    assert call("upscale", "in/a.mp4")["resume"] is False


def test_every_switch_that_may_be_set_can_be_switched_off_again() -> None:
    switches = {each.option.key: each.option for each in known_settings()[0].values() if each.option.is_switch}
    assert {"no-audio", "offline", "quiet", "recursive", "whole-frame", "fail-fast"} < switches.keys()
    assert [key for key, each in switches.items() if not each.contrary] == []


def test_a_switch_that_a_file_sets_is_switched_off_by_a_flag() -> None:
    preset("no-audio = true\n[batch]\nrecursive = true\nfail-fast = true\n")
    assert call("upscale", "in/a.mp4")["audio"] is False
    assert call("upscale", "in/a.mp4", "--audio")["audio"] is True
    found = call("batch", "in", "--no-recursive")
    assert (found["recursive"], found["fail_fast"]) == (False, True)
    assert call("batch", "in", "-r", "--no-fail-fast")["fail_fast"] is False


def test_values_of_a_file_arrive_as_those_of_flags_do() -> None:
    preset(
        "start = 12.5\nfps = 29.97\nfit = 'Contain'\nbit_depth = 10\nno-audio = true\ndenoise = 1\ntile = 256\n"
        "max-cost = 2.5\nremote = true\nprogress = 'plain'\n"
    )
    by_file = call("upscale", "in/a.mp4")
    Path("in/keyscale.toml").unlink()
    flags = "--start 12.5 --fps 29.97 --fit Contain --bit-depth 10 --no-audio --denoise 1 --tile 256 --max-cost 2.5"
    flags += " --remote"
    by_flag = call("upscale", "in/a.mp4", *flags.split(), "--progress", "plain")
    assert by_file == by_flag
    assert type(by_file["fit"]) is Fit
    assert type(by_file["denoise"]) is float


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("YES", True), ("0", False), ("off", False)])
def test_switches_in_the_environment(text: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    preset(f"no-audio = {str(not value).lower()}\nresume = {str(not value).lower()}")
    monkeypatch.setenv("KEYSCALE_NO_AUDIO", text)
    monkeypatch.setenv("KEYSCALE_RESUME", text)
    found = call("upscale", "in/a.mp4")
    assert (found["audio"], found["resume"]) == (not value, value)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_is_one_that_is_not_set(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preset("size = '4x4'\nremote = true")
    monkeypatch.setenv("KEYSCALE_SIZE", text)
    monkeypatch.setenv("MODAL_ENABLED", text)
    found = call("upscale", "in/a.mp4")
    assert (found["size"], found["remote"]) == ((4, 4), True)


# Where files are looked for


@pytest.mark.parametrize("video", ["in/a.mp4", "./in/a.mp4", "in/not there.mp4"])
def test_a_preset_lies_beside_the_video(video: str) -> None:
    preset("size = '4x4'\n")
    assert call("upscale", video)["size"] == (4, 4)
    assert call("upscale", "a.mp4")["size"] == (1080, 1920)


def test_a_video_of_the_current_folder_has_its_preset_there() -> None:
    write("keyscale.toml", "size = '4x4'\n")
    assert call("upscale", "a.mp4")["size"] == (4, 4)


@pytest.mark.parametrize("given", ["in", "in/list.csv", "in/*.mp4", "in/**/*.mp4", "in/a.mp4"])
def test_a_batchs_preset_lies_in_its_folder_or_beside_its_manifest(given: str) -> None:
    preset("size = '4x4'\n[batch]\njobs = 3\n")
    write("in/list.csv", "video\n")
    found = call("batch", given)
    assert (found["size"], found["jobs"]) == ((4, 4), 3)


def test_inputs_beside_different_presets_need_a_decision() -> None:
    preset("size = '4x4'\n")
    write("more/keyscale.toml", "size = '6x6'\n")
    error = refusal("batch", "in", "more")
    assert "in/keyscale.toml and more/keyscale.toml" in error.message
    assert "--config" in str(error.remedy)
    assert call("batch", "in", "./in/a.mp4")["size"] == (4, 4)
    write("bare/b.mp4", "")
    assert "lies beside one input" in refusal("batch", "in", "bare").message
    assert call("batch", "in", "more", "--config", "more/keyscale.toml")["size"] == (6, 6)


def test_a_named_preset_takes_the_place_of_the_one_beside_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    preset("size = '4x4'\ncrf = 2\n")
    write("mine.toml", "size = '6x6'\n")
    for args in (["--config", "mine.toml"], []):
        found = call("upscale", "in/a.mp4", *args)
        assert (found["size"], found["crf"]) == ((6, 6), None)
        monkeypatch.setenv("KEYSCALE_CONFIG", "mine.toml")


def test_the_null_device_is_a_preset_without_settings() -> None:
    preset("size = '4x4'\n")
    assert call("upscale", "in/a.mp4", "--config", os.devnull)["size"] == (1080, 1920)


def test_paths_in_a_file_are_beneath_it() -> None:
    preset("model = 'nets/mine.pth'\n[batch]\nkeyframes-dir = 'cameras'\n")
    assert call("upscale", "in/a.mp4")["model"] == str(Path("in/nets/mine.pth").absolute())
    assert call("batch", "in")["keyframes_dir"] == str(Path("in/cameras").absolute())
    preset("model = 'RealESRGAN_x4plus'\n[batch]\nkeyframes-dir = '/cameras'\n")
    assert call("upscale", "in/a.mp4")["model"] == "RealESRGAN_x4plus"
    assert call("batch", "in")["keyframes_dir"] == "/cameras"


def test_settings_of_the_batch_do_not_disturb_other_commands() -> None:
    preset("size = '4x4'\n[batch]\nrecursive = true\nfail_fast = true\n")
    assert call("upscale", "in/a.mp4")["size"] == (4, 4)
    found = call("batch", "in")
    assert (found["recursive"], found["fail_fast"]) == (True, True)


# --remote


@pytest.mark.parametrize(
    ("variables", "file", "flags", "remote"),
    [
        ({}, "", [], False),
        ({}, "remote = true", [], True),
        ({"MODAL_ENABLED": "false"}, "remote = true", [], False),
        ({"MODAL_ENABLED": "on"}, "remote = false", [], True),
        ({"MODAL_ENABLED": "on", "KEYSCALE_REMOTE": "0"}, "", [], False),
        ({"MODAL_ENABLED": "on"}, "remote = true", ["--local"], False),
        ({"MODAL_ENABLED": "perhaps"}, "", ["--local"], False),
    ],
)
def test_modal_enabled_is_the_environment_of_remote(
    variables: dict[str, str], file: str, flags: list[str], remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert call("upscale", "in/a.mp4", *flags)["remote"] is remote


def test_a_wrong_modal_enabled_is_not_passed_over_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    preset("remote = true")
    monkeypatch.setenv("MODAL_ENABLED", "perhaps")
    assert refusal("upscale", "in/a.mp4").message == "MODAL_ENABLED='perhaps' is neither yes nor no"


# What is refused


@pytest.mark.parametrize(
    ("text", "why", "remedy"),
    [
        ("sise = '4x4'", "sise is not a setting", "Did you mean size?"),
        ("colour = 'red'", "colour is not a setting", "Known: bit-depth, chunk-seconds, codec, crf"),
        ("crf = '18'", "crf is '18', it must be a whole number", "without quotation marks"),
        ("crf = 18.5", "crf is 18.5, it must be a whole number", None),
        ("crf = true", "crf is true, it must be a whole number", None),
        ("crf = 99", "crf 99 is out of range", "Give 0 (best) to 51"),
        ("size = true", "size is true, it must be text", None),
        ("size = ['4x4']", "size is a list, it must be text", None),
        ("size = 'big'", "size 'big' is not a size", "WIDTHxHEIGHT"),
        ("size = ''", "size is ''", "remove the line"),
        ("start = 00:01:30", "start is a date or a time, it must be text", None),
        ("fit = 'fill'", "fit 'fill' is not one of 'cover', 'contain', 'stretch'", None),
        ("fit = 3", "fit is 3, it must be one of cover, contain, stretch", None),
        ("no-audio = 'yes'", "no-audio is 'yes', it must be true or false", "without quotation marks"),
        ("no-audio = 1", "no-audio is 1, it must be true or false", None),
        ("denoise = 'much'", "denoise is 'much', it must be a number", "without quotation marks"),
        ("denoise = nan", "denoise nan is out of range", "0 to 1"),
        ("chunk-seconds = 0", "chunk-seconds 0.0 is out of range", "0.1 to 3600"),
        ("device = 'tpu'", "device 'tpu' is not a device", "auto, gpu, cpu, cuda, mps"),
        ("max-cost = -1", "max-cost -1.0 is out of range", "dollars"),
        ("remote-containers = 0", "remote-containers 0 is out of range", "1 to 1000"),
        ("crf = 0x" + "f" * 100_000, "crf is out of range", None),
        ("output = 'x.mp4'", "output cannot be a setting: it names the result of a single run", "Remove output"),
        ("overwrite = true", "overwrite cannot be a setting: results would be replaced", "Remove overwrite"),
        ("keyframes = 'k.json'", "keyframes cannot be a setting", "Remove keyframes"),
        ("config = 'other.toml'", "config cannot be a setting", "Remove config"),
        ("verbose = 2", "verbose cannot be a setting", "Remove verbose"),
        ("local = true", "local is not a setting", "Write remote = false."),
        ("no-resume = true", "no-resume is not a setting", "Write resume = false."),
        ("chunk-seconds = 1\nchunk_seconds = 2", "chunk_seconds is there twice", "Keep one"),
        ("jobs = 2", "jobs does not belong here", "beneath [batch]"),
        ("[batch]\nsize = '4x4'", "batch.size does not belong here", "at the top"),
        ("[batch]\njob = 2", "batch.job is not a setting", "Did you mean jobs?"),
        ("[batch]\njobs = 0", "batch.jobs 0 is out of range", "1 to 64"),
        ("[batch]\nwatch = true", "batch.watch cannot be a setting: a command that is expected to end", "Remove watch"),
        ("batch = 2", "batch is not a table", "[batch]"),
        ("[upscale]\nsize = '4x4'", "upscale is not a setting", "Known"),
        ("size = 4x4", "not TOML: ", "quotation marks"),
        ("size = '4x4'\nsize = '4x4'", "not TOML: ", None),
        ("a = " + "[" * 10_000, "nested too deeply", None),
        ("#" * (MAX_BYTES + 1), "is larger than 1 MiB", None),
        ("crf = 1" + "0" * 5000, "not TOML: Exceeds the limit", None),
    ],
)
@pytest.mark.parametrize("where", ["home/config.toml", "in/keyscale.toml"])
def test_a_wrong_file_is_refused_with_its_name_and_the_key(text: str, why: str, remedy: str | None, where: str) -> None:
    write(where, text)
    # Whichever command reads it: a file is right or wrong by itself.
    for command in (["upscale", "in/a.mp4", "--size", "8x8"], ["batch", "in"]):
        error = refusal(*command)
        assert where in error.message
        assert why in error.message
        if remedy is not None:
            assert remedy in str(error.remedy)


def test_a_file_that_is_not_text_is_refused() -> None:
    Path("in/keyscale.toml").write_bytes(b"size = '\xff'")
    assert "in/keyscale.toml: byte 8 is not UTF-8 text" in refusal("upscale", "in/a.mp4").message


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_what_is_called_like_a_preset_and_cannot_be_read_is_not_passed_over(kind: str) -> None:
    path = Path("in/keyscale.toml")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    assert "in/keyscale.toml" in refusal("upscale", "in/a.mp4").message


@pytest.mark.parametrize(
    ("named", "why"), [("nowhere.toml", "No such file"), ("", "--config is empty"), ("in", "no file")]
)
def test_a_preset_that_is_named_has_to_be_there(named: str, why: str) -> None:
    assert why in refusal("upscale", "in/a.mp4", "--config", named).message


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("KEYSCALE_SIZE", "big", "KEYSCALE_SIZE 'big' is not a size"),
        ("KEYSCALE_CRF", "best", "KEYSCALE_CRF 'best' is not a whole number"),
        ("KEYSCALE_FIT", "fill", "KEYSCALE_FIT 'fill' is not one of"),
        ("KEYSCALE_NO_AUDIO", "perhaps", "KEYSCALE_NO_AUDIO 'perhaps' is neither true nor false"),
    ],
)
def test_a_wrong_variable_is_named_unless_a_flag_wins_over_it(
    variable: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    error = refusal("upscale", "in/a.mp4")
    assert error.message.startswith(why)
    flags = ["--size", "8x8", "--crf", "1", "--fit", "cover", "--no-audio"]
    assert call("upscale", "in/a.mp4", *flags)["crf"] == 1


def test_a_preset_that_nobody_named_names_no_file_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[batch]\nreport = 'report.json'\n"
    preset(text)
    assert "batch.report may not stand in a preset that is found beside the inputs" in refusal("batch", "in").message
    assert call("batch", "in", "--config", "in/keyscale.toml")["report"] == str(Path("in/report.json").absolute())
    Path("in/keyscale.toml").unlink()
    user(text)
    assert call("batch", "in")["report"] == str(Path("home/report.json").absolute())
    monkeypatch.setenv("KEYSCALE_REPORT", "here.json")
    assert call("batch", "in")["report"] == "here.json"


def test_help_needs_no_settings(capsys: pytest.CaptureFixture[str]) -> None:
    write("keyscale.toml", "sise = 1")
    user("sise = 1")
    assert run(["upscale", "--help"]) == 0
    assert run(["upscale", "a.mp4", "--help"]) == 0
    assert "--config" in capsys.readouterr().out


# Variables


def test_no_setting_takes_a_variable_that_means_something_else() -> None:
    variables = {name for known in known_settings()[0].values() for name in known.variables}
    assert "KEYSCALE_CHUNK_SECONDS" in variables
    assert not variables & OTHER_VARIABLES


def test_every_variable_that_the_program_reads_is_known() -> None:
    files = [*(ROOT / "engine").rglob("*.py"), *(ROOT / "cli").rglob("*.py"), ROOT / "modal_stub.py"]
    read = {name for path in files for name in re.findall(r'"(KEYSCALE_[A-Z_]+)"', path.read_text(encoding="utf-8"))}
    assert {"KEYSCALE_CACHE_DIR", "KEYSCALE_GPU"} <= read
    tags_of_files = {"KEYSCALE_JOB"}
    assert read - tags_of_files - {"KEYSCALE_"} <= OTHER_VARIABLES


# The program itself


def test_plan_and_upscale_take_their_settings_from_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/court.mp4").symlink_to(COURT)
    preset("size = '216x384'\nfps = 15\n")
    assert run(["plan", "in/court.mp4", str(CAMERA), "--json"]) == 0
    target = json.loads(capsys.readouterr().out)["target"]
    assert (target["width"], target["height"], target["rate"]) == (216, 384, "15/1")


def test_a_wrong_setting_ends_the_program_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    preset("size = 'big'")
    for command in ("plan", "upscale"):
        assert run([command, "in/a.mp4"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "error: in/keyscale.toml: size 'big' is not a size\n  -> " in err


def test_a_wrong_setting_is_the_last_event_too(capsys: pytest.CaptureFixture[str]) -> None:
    preset("size = 'big'")
    assert run(["upscale", "in/a.mp4", "--progress", "json"]) == 2
    [line] = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["error"], event["exit_code"]) == ("error", "UsageError", 2)


def shown(*args: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert run(["config", "show", *args]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}


def test_config_show_tells_each_value_and_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    user("crf = 20\nno-audio = true")
    preset("size = '4x4'\n")
    monkeypatch.setenv("KEYSCALE_MODE", "quality")
    found = shown("in", capsys=capsys)
    assert found["user"] == f"config: {Path('home/config.toml').absolute()}"
    assert found["preset:"] == "in/keyscale.toml"
    assert found["size"] == "4x4 in/keyscale.toml"
    assert found["crf"] == f"20 {Path('home/config.toml').absolute()}"
    assert found["mode"] == "quality KEYSCALE_MODE"
    assert found["no-audio"].startswith("true ")
    assert found["fps"] == "30 built-in"
    assert found["model"] == "- built-in"
    assert found["batch.jobs"] == "- built-in"
    assert not {"output", "overwrite", "verbose", "config", "batch.watch", "batch.output"} & set(found)


def test_config_show_looks_beside_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    preset("size = '4x4'\n")
    write("keyscale.toml", "size = '6x6'\n")
    write("in/a.mp4", "x")
    assert shown(capsys=capsys)["size"] == "6x6 keyscale.toml"
    assert shown("in/a.mp4", capsys=capsys)["size"] == "4x4 in/keyscale.toml"
    assert shown("in", "--config", "keyscale.toml", capsys=capsys)["size"] == "6x6 keyscale.toml"
    assert run(["config", "show", "nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_config_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    preset("size = '4x4'\nmodel = 'x.pth'\n")
    assert run(["config", "show", "in", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["user"], found["preset"]) == (str(Path("home/config.toml").absolute()), "in/keyscale.toml")
    settings = {each["name"]: each for each in found["settings"]}
    assert settings["size"] == {"name": "size", "value": "4x4", "layer": "preset", "from": "in/keyscale.toml"}
    assert settings["crf"] == {"name": "crf", "value": None, "layer": "built-in", "from": "built-in"}
    assert settings["chunk-seconds"]["value"] == 8.0


def test_config_show_names_variables_that_mean_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEYSCALE_SISE", "KEYSCALE_OVERWRITE", "KEYSCALE_WEIGHTS_DIR", "KEYSCALE_SIZE"):
        monkeypatch.setenv(name, "2x2")
    assert run(["config", "show"]) == 0
    assert capsys.readouterr().err == (
        "note: KEYSCALE_OVERWRITE is set, and no setting is called that\n"
        "note: KEYSCALE_SISE is set, and no setting is called that\n"
    )


def test_config_show_refuses_what_the_commands_would(capsys: pytest.CaptureFixture[str]) -> None:
    preset("size = 'big'")
    assert run(["config", "show", "in"]) == 2
    assert "in/keyscale.toml: size" in capsys.readouterr().err


def test_config_path_names_the_users_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{Path('home/config.toml').absolute()}\n"


def test_a_command_that_is_not_configured_has_no_settings() -> None:
    ctx = typer.Context(COMMANDS["upscale"])
    assert settings_of(ctx) == {}
    assert issubclass(RunCommand, ConfiguredCommand)
