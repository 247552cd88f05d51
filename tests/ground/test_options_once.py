"""One field is one option: what is declared with it is found on every surface, and is written nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyscale.cli.batch_jobs import batch_clips
from keyscale.cli.options import batch_options, job_options, plan_options
from keyscale.cli.settings import RunCommand, settings_of
from keyscale.engine.arguments import read_arguments, signature_of
from keyscale.engine.batch.manifest import read_manifest
from keyscale.engine.errors import UsageError
from keyscale.engine.job import Encoding, Job, Target
from keyscale.engine.options import Option, option
from keyscale.engine.request import request_of
from keyscale.engine.serialization import dumps, loads
from tools import option_tables


@dataclass(frozen=True, kw_only=True)
class Grained(Job):
    """A job with one option more."""

    grain: float | None = option(None, "Film grain in the result.", "Output", metavar="0..1", between=(0, 1))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEYSCALE_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(options: Mapping[str, Option], *args: str) -> dict[str, Any]:
    """What a command with these options calls its function with; whatever the settings are is in `settings`."""
    seen: dict[str, Any] = {}
    command = RunCommand("upscale", seen.update, options)
    with command.make_context("upscale", list(args)) as ctx:
        command.invoke(ctx)
        return seen | {"settings": settings_of(ctx)}


@pytest.mark.parametrize("options", [job_options(Grained), plan_options(Grained)], ids=["upscale", "plan"])
def test_it_is_a_flag(options: Mapping[str, Option], capsys: pytest.CaptureFixture[str]) -> None:
    given = called(options, "a.mp4", "--grain", "0.5")
    del given["settings"]
    job = request_of(given, kind=Grained).job
    assert isinstance(job, Grained)
    assert job.grain == 0.5
    with pytest.raises(UsageError, match=r"^--grain 2.0 is out of range$") as caught:
        called(options, "a.mp4", "--grain", "2")
    assert (caught.value.option, caught.value.remedy) == ("grain", "Give 0 to 1.")
    command = RunCommand("upscale", dict, options)
    help_text = command.get_help(command.context_class(command))
    assert "--grain 0..1" in help_text
    assert help_text.index("Output:") < help_text.index("Film grain in the result.") < help_text.index("Model:")


def test_it_is_a_flag_of_a_batch_and_a_column_of_its_manifest() -> None:
    assert called(batch_options(Grained), "-o", "out", "--grain", "0.25")["grain"] == 0.25
    Path("list.jsonl").write_text('{"video": "a.mp4", "grain": 0.5}\n{"video": "b.mp4", "grain": 2}\n')
    clips = read_manifest(Path("list.jsonl"), Grained)
    fine, wrong = batch_clips(clips, output_dir=Path("out"), flags={"grain": 0.25}, kind=Grained)
    assert isinstance(fine.job, Grained)
    assert fine.job.grain == 0.5
    assert wrong.fault is not None
    assert wrong.fault.message == "list.jsonl: line 2: grain 2.0 is out of range"


def test_it_is_a_setting_of_files_and_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("keyscale.toml").write_text("grain = 0.5\n")
    given = called(job_options(Grained), "a.mp4")
    assert (given["grain"], str(given["settings"]["grain"].origin)) == (0.5, "keyscale.toml")
    monkeypatch.setenv("KEYSCALE_GRAIN", "0.75")
    assert called(job_options(Grained), "a.mp4")["grain"] == 0.75
    monkeypatch.setenv("KEYSCALE_GRAIN", "2")
    with pytest.raises(UsageError, match=r"^KEYSCALE_GRAIN 2.0 is out of range$"):
        called(job_options(Grained), "a.mp4")
    Path("keyscale.toml").write_text("grain = 'much'\n")
    with pytest.raises(UsageError, match=r"^keyscale.toml: grain is 'much', it must be a number$"):
        called(job_options(Grained), "a.mp4")


def test_it_is_an_argument() -> None:
    job = read_arguments({"video": "a.mp4", "grain": 0.5}, Grained).job
    assert isinstance(job, Grained)
    assert job.grain == 0.5
    with pytest.raises(UsageError, match=r"^grain is '0.5'$"):
        read_arguments({"video": "a.mp4", "grain": "0.5"}, Grained)
    parameter = signature_of(Grained).parameters["grain"]
    assert (parameter.default, parameter.annotation) == (None, "float | None")
    assert "    grain: float | None\n" in option_tables.argument_types(Grained)


def test_it_is_documented() -> None:
    tables = option_tables.tables(Grained)
    assert "| `--grain 0..1` | by mode |" not in tables["Output"]
    assert "`--grain 0..1`" in tables["Output"]
    assert "film grain in the result |" in tables["Output"]
    assert "`grain`" in tables["columns"]


def test_it_is_part_of_the_job_as_it_is_stored() -> None:
    job = Grained(source="a.mp4", output="b.mp4", grain=0.5)
    assert loads(dumps(job), Grained) == job


def test_documentation_and_types_are_as_the_declarations_say() -> None:
    """`python -m tools.option_tables` writes them."""
    assert not option_tables.stale()


def test_a_job_that_was_stored_before_is_still_read() -> None:
    stored = {
        "source": "a.mp4",
        "output": "b.mp4",
        "keyframes": None,
        "target": {"width": 720, "height": 1280, "fit": "cover", "rate": "30000/1001"},
        "trim": {"start": None, "end": 2.5},
        "encoding": {"codec": "av1", "crf": 20, "preset": None, "bit_depth": 10, "audio": False},
        "model": {"mode": "fast", "name": None, "denoise": None, "offline": False},
        "calm": {"steady": 0.0},
        "compute": {"device": "auto", "precision": "auto", "tile": None},
        "chunk_seconds": 8.0,
        "overwrite": False,
        "update": False,
        "resume": True,
        "verify": "full",
        "keep_going_on_decode_errors": False,
        "publish_to": None,
        "version": 1,
    }
    job = loads(json.dumps(stored), Job)
    assert (job.target, job.trim.end) == (Target(width=720, height=1280, rate=job.target.rate), 2.5)
    assert job.encoding == Encoding(codec=job.encoding.codec, crf=20, bit_depth=10, audio=False)
    assert json.loads(dumps(job)) == stored
