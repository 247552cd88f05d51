"""keyscale for programs: its names, what they take, what they give, and what they leave behind."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pytest
from support.clips import clicks_track, make_clip
from support.flags import build_job
from support.numbered import SMALL, leftovers, planes, shown
from support.remote_place import Place

import keyscale
from keyscale import Done, Framing, Interpolation, Keyframe, KeyscaleError, Note, Plan, Progress, Upscaling
from keyscale.cli.options import compare_options, job_options, preview_options, upscale_options
from keyscale.engine.arguments import arguments_of, read_arguments
from keyscale.engine.choices import Codec, Fit, Mode, Precision, Verify
from keyscale.engine.errors import Interrupted, RemoteError, StorageError, UsageError
from keyscale.engine.events import Phase
from keyscale.engine.options import options_of
from keyscale.engine.run_options import BatchRequest, Terminal
from keyscale.engine.runners.progress import in_background
from keyscale.engine.threads import Keeper
from keyscale.engine.wording import Named, as_argument, as_flag, say, worded
from keyscale.engine.workspace.folder import work_folder_of

ROOT = Path(__file__).resolve().parents[2]
COURT, CAMERA = ROOT / "examples" / "court.mp4", ROOT / "examples" / "court.json"

QUICK: dict[str, Any] = {"size": SMALL, "fps": "source", "model": "lanczos", "preset": "ultrafast", "crf": 10}
"""Sampling alone: what a job does besides running a network."""
SHIPPED: dict[str, Any] = {"size": (216, 384), "chunk_seconds": 0.5, "device": "cpu"}
"""The example clip by a network that comes with keyscale: nine chunks, some seconds."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sound = clicks_track([0.5], seconds=2.4, sample_rate=48000)
    return make_clip(tmp_path_factory.mktemp("clip") / "in.mp4", frames=60, rate=25, size=SMALL, sounds=[sound])


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough that each phase of its job is under way when the next event is looked at."""
    return make_clip(tmp_path_factory.mktemp("long") / "in.mp4", frames=3000, rate=50, size=SMALL)


def program(code: str, *args: str | Path, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """A Python program of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, timeout=300, **more)


# The package


def test_a_dozen_names_are_public_and_each_is_there() -> None:
    assert len(keyscale.__all__) <= 12
    for name in keyscale.__all__:
        assert getattr(keyscale, name).__name__ == name
        assert inspect.getdoc(getattr(keyscale, name))


@pytest.mark.processes
def test_star_gives_the_public_names_and_no_others(tmp_path: Path) -> None:
    done = program("from keyscale import *; print(*sorted(n for n in dir() if n[0] != '_'))", cwd=tmp_path)
    assert done.stdout.split() == sorted(keyscale.__all__)


@pytest.mark.processes
def test_importing_the_package_loads_nothing_but_itself(tmp_path: Path) -> None:
    code = """
        import sys
        before = set(sys.modules)
        import keyscale
        keyscale.__version__, dir(keyscale), keyscale.__all__
        print(*sorted(set(sys.modules) - before))
    """
    assert set(program(code, cwd=tmp_path).stdout.split()) <= {"keyscale", "__future__"}


@pytest.mark.processes
def test_names_are_listed_before_they_are_loaded_and_are_the_same_each_time(tmp_path: Path) -> None:
    code = """
        import keyscale
        assert set(keyscale.__all__) <= set(dir(keyscale))
        assert keyscale.upscale is keyscale.upscale
        from keyscale.engine.events import Done
        assert keyscale.Done is Done
    """
    done = program(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.processes
def test_planning_and_asking_load_no_network(tmp_path: Path, clip: Path) -> None:
    code = """
        import sys, keyscale
        keyscale.upscale(sys.argv[1]), keyscale.plan(sys.argv[1], device="cpu")
        print({"torch", "typer", "rich", "boto3", "modal"} & set(sys.modules))
    """
    assert program(code, clip, cwd=tmp_path).stdout == "set()\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'keyscale' has no attribute 'upscal'"):
        keyscale.upscal  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_a_literal_in_its_file() -> None:
    text = (ROOT / "src" / "keyscale" / "__init__.py").read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE) == [keyscale.__version__]


@pytest.mark.processes
@pytest.mark.slow
def test_strict_mypy_accepts_a_program_and_finds_its_mistakes(tmp_path: Path) -> None:
    good = """
        from fractions import Fraction
        from pathlib import Path
        from typing import assert_type

        import keyscale
        from keyscale import Done, Framing, Interpolation, Keyframe, KeyscaleError, Note, Plan, Progress
        from keyscale import Upscaling, load_framing, plan, upscale

        camera: Framing = load_framing(Path("camera.json"))
        own = Framing((Keyframe(0.0, 0.0, 0.0, 607.5, 1080.0),), Interpolation.SMOOTH)
        found: Plan = plan("talk.mp4", own, size="1080x1920", fps=Fraction(30000, 1001))
        print(found.frames, float(found.rate), found.warnings, found.estimate.seconds)
        try:
            for event in upscale(Path("talk.mp4"), camera, Path("out.mp4"), codec="hevc", bit_depth=10, tile=0):
                match event:
                    case Progress():
                        assert_type(event, Progress)
                        print(event.phase, event.frame / max(1, event.total), event.eta_s)
                    case Note():
                        print(event.level, event.message)
                    case Done():
                        print(event.output, event.frames)
        except KeyscaleError as error:
            print(error.message, error.remedy, error.exit_code, keyscale.__version__)

        def show(event: Progress | Note | Done) -> None:
            print(event)

        with upscale("talk.mp4") as job:
            assert_type(job, Upscaling)
            done: Done = job.run(show)
            assert_type(job.result, Done | None)
    """
    bad = """
        import keyscale
        from keyscale import upscale
        from keyscale import upscal  # wrong: no such name
        keyscale.upscal("talk.mp4")  # wrong: no such name
        upscale("talk.mp4", size=1080)  # wrong: one side
        upscale("talk.mp4", fit="crop")  # wrong: no such word
        upscale("talk.mp4", bit_depth=9)  # wrong: not offered
        upscale("talk.mp4", overwrit=True)  # wrong: no such argument
        upscale("talk.mp4", None, "out.mp4", "1080x1920")  # wrong: by name alone
        upscale("talk.mp4").run().fps  # wrong: no such field
        frames: str = keyscale.plan("talk.mp4").frames  # wrong: a number
    """
    for name, text in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text).lstrip())
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, "good.py", "bad.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    found = {(m[1], int(m[2])) for m in re.finditer(r"^(\w+)\.py:(\d+): error", done.stdout, re.MULTILINE)}
    expected = {
        ("bad", number)
        for number, line in enumerate((tmp_path / "bad.py").read_text().splitlines(), 1)
        if "# wrong" in line
    }
    assert found == expected, done.stdout + done.stderr


# Arguments


def arguments(**given: Any) -> dict[str, Any]:
    """All arguments of `upscale` by name, the defaults where nothing is given."""
    bound = inspect.signature(keyscale.upscale).bind(**({"video": "talk.mp4"} | given))
    bound.apply_defaults()
    return dict(bound.arguments)


def test_upscale_and_plan_take_the_same_arguments() -> None:
    assert inspect.signature(keyscale.upscale).parameters == inspect.signature(keyscale.plan).parameters


def test_what_the_command_offers_the_function_offers() -> None:
    assert set(job_options()) - set(options_of(Terminal)) == set(arguments()) == set(arguments_of())


def test_the_help_of_the_function_tells_of_every_argument() -> None:
    told = inspect.getdoc(keyscale.upscale) or ""
    assert [name for name in arguments() if f"    {name}: " not in told] == []
    assert "--" not in told


def test_without_arguments_it_is_the_job_of_the_command_without_flags() -> None:
    found = read_arguments(arguments())
    assert found.job == build_job(video="talk.mp4")
    assert found.remote is None
    assert found.framing is None


def test_every_argument_is_the_flag_of_its_name() -> None:
    found = read_arguments(
        arguments(
            video=Path("in/talk.mp4"),
            keyframes=Path("camera.json"),
            output=Path("clip.mkv"),
            start=90,
            end=120.5,
            keep_going_on_decode_errors=True,
            size=(720, 1280),
            fit="contain",
            fps=Fraction(24000, 1001),
            overwrite=True,
            update=True,
            codec="hevc",
            crf=np.int64(20),
            preset="medium",
            bit_depth=10,
            audio=False,
            verify="quick",
            mode="quality",
            model=Path("nets/own.pth"),
            denoise=0.5,
            steady="auto",
            offline=True,
            device=" CUDA:1 ",
            precision="fp16",
            tile=256,
            chunk_seconds=4,
            resume=False,
            remote=True,
            remote_containers=3,
            remote_fallback="local",
            max_cost=2.5,
        )
    )
    assert found.job == build_job(
        video="in/talk.mp4",
        keyframes="camera.json",
        output="clip.mkv",
        start="1:30",
        end="2:00.5",
        keep_going_on_decode_errors=True,
        size="720x1280",
        fit=Fit.CONTAIN,
        fps="24000/1001",
        overwrite=True,
        update=True,
        codec=Codec.HEVC,
        crf=20,
        preset="medium",
        bit_depth=10,
        audio=False,
        verify=Verify.QUICK,
        mode=Mode.QUALITY,
        model="nets/own.pth",
        denoise=0.5,
        steady=None,
        offline=True,
        device="cuda:1",
        precision=Precision.FP16,
        tile="256",
        chunk_seconds=4.0,
        resume=False,
    )
    assert found.remote is not None
    assert (found.remote.containers, found.remote.fallback_local, found.remote.max_cost) == (3, True, 2.5)


@pytest.mark.parametrize("given", [{"max_cost": 2.5}, {"remote_containers": 3}, {"remote_fallback": "local"}])
def test_what_concerns_remote_runs_alone_is_refused_here(given: dict[str, Any]) -> None:
    name = next(iter(given))
    with pytest.raises(UsageError, match=f"{name} is for remote=True alone") as refused:
        read_arguments({"video": "talk.mp4", **given})
    assert str(refused.value.remedy).startswith("Give remote=True too")
    assert read_arguments({"video": "talk.mp4", name: arguments_of()[name].default}).remote is None


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (30, Fraction(30)),
        (29.97, Fraction(30000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        (np.float64(59.94), Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        (Fraction(24000, 1001), Fraction(24000, 1001)),
        ("source", None),
    ],
)
def test_a_rate_is_a_number_a_fraction_or_text(fps: Any, rate: Fraction | None) -> None:
    assert read_arguments(arguments(fps=fps)).job.target.rate == rate


def test_a_place_in_storage_is_kept_here_under_its_last_part() -> None:
    job = read_arguments(arguments(output="r2://videos/a/clip.mp4")).job
    assert (job.output, job.publish_to) == ("clip.mp4", "r2://videos/a/clip.mp4")


def test_the_copy_of_an_address_never_has_the_name_of_the_video_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    job = read_arguments(arguments(video=tmp_path / "clip.mp4", output="r2://videos/clip.mp4")).job
    assert (job.output, job.publish_to) == ("clip.keyscale.mp4", "r2://videos/clip.mp4")


NAN = float("nan")
LONG = 10**5000
"""More than Python writes."""


def shortened(value: object) -> str:
    """How a test's value is called."""
    if isinstance(value, int | Fraction | tuple):
        return type(value).__name__
    return str(value)[:20].replace("\0", "0")


WRONG: dict[str, tuple[object, ...]] = {
    "video": (None, 3, b"talk.mp4", "", "a\0b"),
    "keyframes": (3, b"a.json", [], "", {"time": 0}),
    "output": (3, LONG, b"a.mp4", "", "ftp://x/y.mp4"),
    "start": (-1, NAN, float("inf"), "1:30", True, 10**400),
    "end": (-1, 0, NAN, "90"),
    "size": (1080, (1080,), (1, 2, 3), (1080.0, 1920), "1080", (1081, 1920), (0, 2), (2, LONG), None),
    "fit": ("crop", None, 1),
    "fps": (0, -30, NAN, 1e300, "fast", "1e999999999", None, True, Fraction(1, 10**50), LONG, Fraction(LONG)),
    "codec": ("vp9", None),
    "crf": (-1, 64, 17.5, "17", True, LONG, -LONG),
    "preset": ("", 3),
    "bit_depth": (9, "10", 8.0),
    "audio": (None, 1, "yes"),
    "verify": ("none", True),
    "mode": ("best", "FAST"),
    "model": ("", 4),
    "denoise": (1.5, -0.1, NAN, "1"),
    "steady": (1.5, -0.1, NAN, "1", None, True, 10**400),
    "offline": (0, None),
    "device": ("gpus", "", None, 0),
    "precision": ("fp8", None),
    "tile": (31, -1, "big", 64.0, None, True, LONG, np.array([64, 64])),
    "chunk_seconds": (0, 3601, NAN, None, "8"),
    "remote_containers": (0, 1001, 2.0),
    "remote_fallback": ("here", None),
    "max_cost": (-1, NAN, "2"),
    **dict.fromkeys(("overwrite", "update", "resume", "keep_going_on_decode_errors", "remote"), ("yes",)),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=shortened
)
@pytest.mark.parametrize("function", [keyscale.upscale, keyscale.plan])
def test_a_wrong_value_names_its_argument_and_says_what_to_do(
    function: Callable[..., object], name: str, value: object
) -> None:
    with pytest.raises(UsageError) as caught:
        function(**({"video": "talk.mp4"} | {name: value}))
    error = caught.value
    assert re.search(rf"\b{name}\b" if name != "size" else r"\bsize\b|target (width|height)", error.message)
    assert error.remedy
    assert not re.search(r"(?<!\w)--?[a-z]", error.message + error.remedy)
    assert len(error.message) < 200
    assert str(error) == error.message
    assert error.exit_code == 2


def test_arguments_that_contradict_each_other_are_both_named() -> None:
    with pytest.raises(UsageError) as caught:
        keyscale.upscale("talk.mp4", start=5, end=5)
    assert (caught.value.message, caught.value.remedy) == (
        "end 5 is not after start 5",
        "Give a later end, or leave it out.",
    )


# The engine names options; programs are told of arguments


@pytest.mark.parametrize(
    ("said", "told", "heard"),
    [
        (
            say("Give {overwrite=True}, or another name with {output}."),
            "Give --overwrite, or another name with -o.",
            "Give overwrite=True, or another name with output.",
        ),
        (say("Use {device=cpu}."), "Use --device cpu.", 'Use device="cpu".'),
        (
            say("{crf} {} is out of range for {codec=}", 64, Codec.H264_NVENC),
            "--crf 64 is out of range for --codec h264_nvenc",
            'crf 64 is out of range for codec="h264_nvenc"',
        ),
        (say("with {audio=False}: kept"), "with --no-audio: kept", "with audio=False: kept"),
        (say("run it with {remote=False}"), "run it with --local", "run it with remote=False"),
        (say("{} of {}", "a --crf.mp4", say("{video}")), "a --crf.mp4 of VIDEO", "a --crf.mp4 of video"),
    ],
)
def test_options_are_flags_to_one_and_arguments_to_the_other(said: str, told: str, heard: str) -> None:
    assert said == told
    assert worded(said, as_argument) == heard


def test_flags_in_messages_are_the_flags_that_there_are() -> None:
    for name, each in job_options().items():
        if each.panel and not each.short:
            assert as_flag(Named(name)) == f"--{each.contrary if each.is_negated else each.key}"
            if each.contrary:
                assert as_flag(Named(name, False)) == f"--{each.key if each.is_negated else each.contrary}"


def spoken(path: Path) -> Iterator[str]:
    """Every text in a module's code that is no docstring, but those that a person may type elsewhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in {"docs", "default_docs"}:
            silent |= {id(part) for part in ast.walk(node.value)}
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield re.sub(r"`[^`]*`", "", node.value)


def test_the_engine_names_no_flag_by_itself_and_no_option_that_is_not_there() -> None:
    options = {*upscale_options(), *preview_options(), *compare_options(), *options_of(BatchRequest)}
    for path in sorted((ROOT / "engine").rglob("*.py")):
        for text in spoken(path):
            if path.stem not in {"wording", "process"}:
                assert not re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-o(?!\w))", text), f"{path.name}: {text}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "say"
                and isinstance(node.args[0], ast.Constant)
            ):
                fields = [field for _, field, _, _ in Formatter().parse(str(node.args[0].value)) if field]
                assert {field.partition("=")[0] for field in fields} <= options, path.name


def test_an_error_from_within_a_job_speaks_of_arguments(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"something")
    with pytest.raises(StorageError) as caught:
        keyscale.upscale(clip, output=tmp_path / "there.mp4", **QUICK).run()
    assert caught.value.remedy == "Give overwrite=True, or another name with output."
    assert (tmp_path / "there.mp4").read_bytes() == b"something"


def test_a_warning_of_plan_and_run_speaks_of_arguments(tmp_path: Path) -> None:
    deep = make_clip(
        tmp_path / "deep.mp4", frames=8, rate=25, size=SMALL, codec="libx265", options={"x265-params": "log-level=none"}
    )
    found = keyscale.plan(deep, output=tmp_path / "out.mp4", **QUICK)
    notes = [e.message for e in keyscale.upscale(deep, output=tmp_path / "out.mp4", **QUICK) if isinstance(e, Note)]
    assert not [text for text in (*found.warnings, *notes) if "--" in text]


# Cameras made by programs


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    path = tmp_path / "camera.json"
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "interpolation": "smooth",
                "keyframes": [
                    {"time": 0, "x": 0, "y": 0, "width": SMALL[0] / 2, "height": SMALL[1] / 2},
                    {"time": 1, "x": 8.5, "y": 4.25, "width": SMALL[0] / 2, "height": SMALL[1] / 2, "ease": "hold"},
                    {"time": 1.5, "x": 0, "y": 0, "width": SMALL[0], "height": SMALL[1]},
                ],
                "trim": {"start": 0.2, "end": 2.2},
                "segments": [{"start": 1.0, "end": 1.4, "speed": 2}],
                "rotation": 3.0,
            }
        )
    )
    return path


def test_a_camera_given_as_such_is_the_camera_of_its_file(tmp_path: Path, clip: Path, camera: Path) -> None:
    by_path = keyscale.upscale(clip, camera, tmp_path / "a.mp4", **QUICK).run()
    as_such = keyscale.upscale(clip, keyscale.load_framing(camera), tmp_path / "b.mp4", **QUICK).run()
    assert as_such.key == by_path.key
    assert planes(tmp_path / "a.mp4") == planes(tmp_path / "b.mp4")


def test_a_camera_made_of_keyframes_is_planned(clip: Path) -> None:
    framing = Framing(
        (Keyframe(0.0, 0.0, 0.0, 32.0, 32.0), Keyframe(2.0, 32.0, 32.0, 32.0, 32.0)), Interpolation.SMOOTH
    )
    found = keyscale.plan(clip, framing, size=(32, 32), fps=25)
    assert isinstance(found, Plan)
    assert found.frames == 60
    assert found.rects[0].tolist() == [0, 0, 32, 32]
    assert found.rects[25].tolist() == pytest.approx([16, 16, 32, 32], abs=0.5)
    assert found.framing == framing


@pytest.mark.parametrize(
    ("keyframe", "said"),
    [
        (Keyframe(0.0, 0.0, 0.0, 0.0, 10.0), "keyframes: keyframe 0: field 'width' is 0.0, it must be above 0"),
        (Keyframe(NAN, 0.0, 0.0, 10.0, 10.0), "keyframes: keyframe 0: field 'time' is NaN, it must be a finite number"),
        (Keyframe(-1.0, 0.0, 0.0, 10.0, 10.0), "keyframes: keyframe 0: field 'time' is -1.0, it must be at least 0"),
        (Keyframe("0", 0.0, 0.0, 10.0, 10.0), "field 'time' is '0', it must be a number"),  # type: ignore[arg-type]
        (Keyframe(0.0, 0.0, 0.0, object(), 10.0), "keyframes is a Framing that holds"),  # type: ignore[arg-type]
    ],
)
def test_a_camera_made_by_a_program_is_held_to_the_rules_of_the_file(keyframe: Keyframe, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        keyscale.upscale("talk.mp4", Framing((keyframe,)))
    assert said in caught.value.message


FRAMED = Keyframe(0.0, 0.0, 0.0, 10.0, 10.0)

CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)

WRONG_CAMERAS: dict[str, tuple[dict[str, Any], ...]] = {
    # What is said: of which cameras.
    "keyframe 0 is 'x'": ({"keyframes": ("x",)}, {"keyframes": ["x"]}),
    "keyframe 1 is None": ({"keyframes": (FRAMED, None)},),
    "keyframes are 5": ({"keyframes": 5},),
    "keyframes are 'keyframes'": ({"keyframes": "keyframes"},),
    "keyframe 0 has hold 'no'": ({"keyframes": (Keyframe(0.0, 0.0, 0.0, 10.0, 10.0, hold="no"),)},),  # type: ignore[arg-type]
    "'width'": ({"keyframes": (Keyframe(0.0, 0.0, 0.0, 10**400, 10.0),)},),
    "integer division": ({"keyframes": (Keyframe(0.0, 0.0, 0.0, Fraction(LONG), 10.0),)},),  # type: ignore[arg-type]
    "Circular reference": ({"keyframes": (Keyframe(0.0, 0.0, 0.0, CIRCLE, 10.0),)},),  # type: ignore[arg-type]
    "trim is (0, 2)": ({"trim": (0, 2)},),
    "trim is None": ({"trim": None},),
    "segment 0 is (0, 1, 2)": ({"segments": ((0, 1, 2),)},),
    "segments are None": ({"segments": None},),
    "'interpolation'": ({"interpolation": 5}, {"interpolation": "sudden"}),
    "'rotation'": ({"rotation": "3"}, {"rotation": NAN}),
}


@pytest.mark.parametrize(("said", "parts"), [(said, one) for said, each in WRONG_CAMERAS.items() for one in each])
@pytest.mark.parametrize("function", [keyscale.upscale, keyscale.plan])
def test_a_camera_of_wrong_parts_is_refused_and_says_which(
    function: Callable[..., object], said: str, parts: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as caught:
        function("talk.mp4", Framing(**{"keyframes": (FRAMED,)} | parts))
    assert caught.value.message.startswith("keyframes")
    assert said in caught.value.message


def test_numbers_of_numpy_make_a_camera_too() -> None:
    zero, ten = np.array([0.0, 10.0])
    made = Framing((Keyframe(zero, zero, zero, ten, ten, hold=ten > zero), Keyframe(ten, zero, zero, ten, ten)))
    found = read_arguments(arguments(keyframes=made)).framing
    assert found is not None
    assert found.keyframes == (Keyframe(0.0, 0.0, 0.0, 10.0, 10.0, hold=True), Keyframe(10.0, 0.0, 0.0, 10.0, 10.0))


@pytest.mark.parametrize("path", [5, None, b"camera.json", ""])
def test_a_path_that_is_none_is_no_camera(path: Any) -> None:
    with pytest.raises(UsageError, match=r"^path is ") as caught:
        keyscale.load_framing(path)
    assert caught.value.remedy


def test_a_remote_job_needs_its_camera_in_a_file() -> None:
    framing = Framing((Keyframe(0.0, 0.0, 0.0, 10.0, 10.0),))
    with pytest.raises(UsageError, match="keyframes is a Framing, and remote=True"):
        keyscale.upscale("talk.mp4", framing, remote=True)


# Doing it


def test_events_come_by_iteration_and_done_is_the_last(tmp_path: Path, clip: Path) -> None:
    job = keyscale.upscale(clip, output=tmp_path / "out.mp4", **QUICK)
    assert job.output == str(tmp_path / "out.mp4")
    events = list(job)
    assert {type(event) for event in events} <= {Progress, Note, Done}
    assert [isinstance(event, Done) for event in events] == [False] * (len(events) - 1) + [True]
    assert job.result is events[-1]
    phases = list(dict.fromkeys(event.phase for event in events if isinstance(event, Progress)))
    assert phases == [phase for phase in Phase if phase in phases]
    assert {"upscale", "join", "verify"} <= set(phases)
    assert shown(tmp_path / "out.mp4") == list(range(60))
    assert leftovers(tmp_path, "out.mp4") == []


def test_run_gives_the_result_alone_and_tells_who_asked(tmp_path: Path, clip: Path) -> None:
    told: list[object] = []
    done = keyscale.upscale(clip, output=tmp_path / "out.mp4", **QUICK).run(told.append)
    assert (done.frames, done.output, done.skipped) == (60, str(tmp_path / "out.mp4"), False)
    assert told[-1] is done


def test_nothing_happens_before_it_is_iterated(tmp_path: Path, clip: Path) -> None:
    before = threading.active_count()
    job = keyscale.upscale(clip, output=tmp_path / "out.mp4", **QUICK)
    iter(job)
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []
    assert repr(job) == f"<Upscaling of {str(clip)!r} to {str(tmp_path / 'out.mp4')!r}>"


def test_a_job_is_done_once(tmp_path: Path, clip: Path) -> None:
    job = keyscale.upscale(clip, output=tmp_path / "out.mp4", **QUICK)
    job.run()
    with pytest.raises(UsageError, match="begun or closed already"):
        job.run()
    closed = keyscale.upscale(clip, output=tmp_path / "other.mp4", **QUICK)
    closed.close()
    with pytest.raises(UsageError, match="begun or closed already"):
        next(iter(closed))


def test_the_same_job_again_is_skipped_where_that_is_asked_for(tmp_path: Path, clip: Path) -> None:
    first = keyscale.upscale(clip, output=tmp_path / "out.mp4", update=True, **QUICK).run()
    again = keyscale.upscale(clip, output=tmp_path / "out.mp4", update=True, **QUICK).run()
    other = keyscale.upscale(clip, output=tmp_path / "out.mp4", update=True, **(QUICK | {"crf": 12})).run()
    assert (first.skipped, again.skipped, other.skipped) == (False, True, False)


def test_errors_are_of_one_kind_with_their_codes(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "not.mp4").write_bytes(b"not a video")
    for video, more, code in (
        ("absent.mp4", {}, 3),
        ("not.mp4", {}, 3),
        (clip, {"model": "no-such-network"}, 4),
        (clip, {"device": "cuda:99", "model": "keyscale-compact-x2", "size": (256, 256)}, 4),
        (clip, {"end": 0.1, "start": 5}, 2),
        (clip, {"start": 500}, 2),
    ):
        with pytest.raises(KeyscaleError) as caught:
            keyscale.upscale(tmp_path / video, output=tmp_path / "out.mp4", **(QUICK | more)).run()
        assert caught.value.exit_code == code, caught.value
    assert leftovers(tmp_path, "not.mp4") == []


def test_a_remote_job_that_is_not_set_up_is_a_remote_error(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("R2_", "MODAL_"))]:
        monkeypatch.delenv(name)
    job = keyscale.upscale(clip, output=tmp_path / "out.mp4", remote=True, **QUICK)
    with pytest.raises(RemoteError, match="R2_") as caught:
        job.run()
    assert caught.value.exit_code == 5


def test_plan_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    found = keyscale.plan(COURT, CAMERA, tmp_path / "out.mp4", size=(540, 960), device="cpu")
    assert (found.frames, found.rate, found.scale) == (138, Fraction(30), 4)
    assert found.warnings == ()
    assert list(tmp_path.iterdir()) == []


# Leaving it


def open_files() -> list[str]:
    """What this process has open of files and folders."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return sorted(name for name in found if name.startswith("/") and not name.startswith(("/dev/", "/proc/")))


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """No thread and no open file more after the block than before it."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    assert set(threading.enumerate()) <= threads
    if sys.platform == "linux":
        assert open_files() == files


def until(job: Upscaling, phase: str) -> None:
    """Iterate up to a phase, and leave."""
    for event in job:
        if isinstance(event, Progress) and event.phase == phase:
            break
    else:
        raise AssertionError(f"there was no {phase}")


@pytest.mark.parametrize(
    "phase", [*["prepare", "upscale"], *(pytest.param(p, marks=pytest.mark.slow) for p in ["join", "verify"])]
)
def test_leaving_the_loop_ends_the_work_in_every_phase(tmp_path: Path, long_clip: Path, phase: str) -> None:
    # Large enough that even reading it takes a while: what is left just before the end may still finish.
    size = (768, 768) if phase == "verify" else (256, 256)
    job = keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **(QUICK | {"size": size, "verify": "full"}))
    with nothing_left():
        until(job, phase)
    assert not (tmp_path / "out.mp4").exists()
    assert not [path.name for path in tmp_path.rglob("*") if ".part" in path.name or path.name.startswith("joined")]


def test_finished_chunks_are_kept_and_used(tmp_path: Path, long_clip: Path) -> None:
    arguments: dict[str, Any] = {"output": tmp_path / "out.mp4", "chunk_seconds": 2} | QUICK
    for event in keyscale.upscale(long_clip, **arguments):
        if isinstance(event, Progress) and event.phase == "upscale" and event.frame > 300:
            break
    kept = len(list(work_folder_of(tmp_path / "out.mp4").glob("*/chunk-*.json")))
    done = keyscale.upscale(long_clip, **arguments).run()
    assert kept >= 2
    assert done.resumed_frames == kept * 100
    assert shown(tmp_path / "out.mp4") == list(range(3000))


class _Boom(Exception):
    pass


@pytest.mark.parametrize("error", [_Boom(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_an_exception_in_the_loop_ends_the_work(tmp_path: Path, long_clip: Path, error: BaseException) -> None:
    def loop() -> None:
        for event in keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **QUICK):
            if isinstance(event, Progress) and event.phase == "upscale":
                raise error

    with nothing_left(), pytest.raises(type(error)):
        loop()
    assert not (tmp_path / "out.mp4").exists()


def test_an_exception_in_what_run_calls_ends_the_work(tmp_path: Path, long_clip: Path) -> None:
    def show(event: object) -> None:
        raise _Boom

    with nothing_left(), pytest.raises(_Boom):
        keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **QUICK).run(show)


def test_an_iterator_that_is_dropped_ends_the_work(tmp_path: Path, long_clip: Path) -> None:
    with nothing_left():
        events = iter(keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **QUICK))
        next(events)
        del events


def test_a_job_is_closed_with_its_block(tmp_path: Path, long_clip: Path) -> None:
    with nothing_left():
        with keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **QUICK) as job:
            events = iter(job)
            next(events)
        with pytest.raises(Interrupted):
            list(events)


def test_another_thread_may_close_it_and_the_loop_is_told(tmp_path: Path, long_clip: Path) -> None:
    job = keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **QUICK)
    with nothing_left():
        events = iter(job)
        while not (isinstance(event := next(events), Progress) and event.phase == "upscale"):
            pass
        timer = threading.Timer(0.1, job.close)
        timer.start()
        with pytest.raises(Interrupted) as caught:
            list(events)
        timer.join()
    assert caught.value.exit_code == 130
    assert "Call upscale() again" in str(caught.value.remedy)
    assert job.result is None


def test_a_failure_leaves_nothing_behind(tmp_path: Path, clip: Path) -> None:
    broken = tmp_path / "broken.mp4"
    data = bytearray(clip.read_bytes())
    at = data.index(b"mdat") + len(data) // 3
    data[at : at + 2000] = os.urandom(2000)
    broken.write_bytes(data)
    with nothing_left(), pytest.raises(KeyscaleError):
        keyscale.upscale(broken, output=tmp_path / "out.mp4", **QUICK).run()


def test_leaving_while_a_network_runs_waits_for_it(tmp_path: Path) -> None:
    first = keyscale.upscale(COURT, CAMERA, tmp_path / "out.mp4", **SHIPPED)
    for event in first:  # what is loaded once for the process counts for nobody
        if isinstance(event, Progress) and event.phase == "upscale":
            break
    for number in (1, 20, 60):
        with nothing_left():
            for event in keyscale.upscale(COURT, CAMERA, tmp_path / "out.mp4", **SHIPPED):
                if isinstance(event, Progress) and event.phase == "upscale" and event.frame >= number:
                    break
    done = keyscale.upscale(COURT, CAMERA, tmp_path / "out.mp4", **SHIPPED).run()
    assert done.frames == 138
    assert done.resumed_frames >= 60 - 15


@pytest.mark.processes
def test_a_remote_job_is_one_more_argument_and_leaves_nothing_in_storage(deployed: Place, tmp_path: Path) -> None:
    code = """
        import sys, keyscale
        arguments = dict(size=(216, 384), end=2.0, chunk_seconds=0.5, remote=True)
        for event in keyscale.upscale(sys.argv[1], sys.argv[2], "left.mp4", **arguments):
            if isinstance(event, keyscale.Progress) and event.phase == "upscale" and event.frame:
                break
        done = keyscale.upscale(sys.argv[1], sys.argv[2], "out.mp4", **arguments).run()
        print(done.frames, done.remote.containers > 0, done.device)
    """
    done = program(code, COURT, CAMERA, cwd=tmp_path, env=deployed.environment())
    assert done.returncode == 0, done.stderr + deployed.logs()
    assert re.fullmatch(r"\d+ True remote cpu \w+\n", done.stdout)
    assert deployed.left() == []
    assert not (tmp_path / "left.mp4").exists()


def test_work_that_nobody_waits_for_ends_with_its_next_report() -> None:
    ended = threading.Event()

    def work(report: Callable[[int, int], None]) -> None:
        try:
            while True:
                report(1, 2)
                time.sleep(0.01)
        finally:
            ended.set()

    events = in_background(Phase.PREPARE, work, lambda: False)
    next(events)
    events.close()
    assert ended.wait(5)


def test_a_keeper_ends_after_all_that_it_started() -> None:
    gate, order = threading.Event(), []

    def helper() -> None:
        gate.wait(10)
        order.append("helper")

    def job() -> None:
        from keyscale.engine.threads import start_helper

        start_helper("test-helper", helper)
        order.append("job")

    keeper = Keeper("test-keeper", job)
    keeper.start()
    keeper.join(0.3)
    assert keeper.is_alive()
    gate.set()
    keeper.join(10)
    assert order == ["job", "helper"]
    assert not keeper.is_alive()


# Guests in a program


def test_two_threads_do_two_jobs(tmp_path: Path, clip: Path) -> None:
    found: dict[str, Done] = {}

    def work(name: str, start: float) -> None:
        found[name] = keyscale.upscale(clip, output=tmp_path / name, start=start, **QUICK).run()

    with nothing_left():
        threads = [threading.Thread(target=work, args=(f"{i}.mp4", i * 0.4)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i in range(4):
        assert shown(tmp_path / f"{i}.mp4") == list(range(i * 10, 60))


def test_two_threads_with_one_output_are_told(tmp_path: Path, long_clip: Path) -> None:
    with keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **QUICK) as job:
        for event in job:
            if isinstance(event, Progress) and event.phase == "upscale":
                with pytest.raises(StorageError, match="another process is working on"):
                    keyscale.upscale(long_clip, output=tmp_path / "out.mp4", **QUICK).run()
                break


GUEST = """
    import json, os, signal, sys, threading
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    environment, recursion, folder = dict(os.environ), sys.getrecursionlimit(), os.getcwd()
    import keyscale
    done = keyscale.upscale(sys.argv[1], sys.argv[2], "out.mp4", size=(216, 384), end=1.0, device="cpu").run()
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert signal.set_wakeup_fd(-1) == -1
    changed = {name for name in os.environ if environment.get(name) != os.environ[name]}
    assert changed <= {"GOMP_SPINCOUNT", "OMP_NUM_THREADS", "SVT_LOG"}, changed
    assert not environment.keys() - os.environ.keys()
    assert (sys.getrecursionlimit(), os.getcwd()) == (recursion, folder)
    assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
    assert sys.stdin.read() == "one\\ntwo\\n"
"""


@pytest.mark.processes
@pytest.mark.slow
def test_a_program_finds_everything_as_it_left_it(tmp_path: Path) -> None:
    done = program(GUEST, COURT, CAMERA, cwd=tmp_path, input="one\ntwo\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out.mp4").exists()


@pytest.mark.processes
def test_ctrl_c_reaches_the_program_and_ends_the_work(tmp_path: Path, long_clip: Path) -> None:
    code = """
        import sys, threading, keyscale
        try:
            for event in keyscale.upscale(sys.argv[1], output="out.mp4", model="lanczos", size=(320, 320)):
                if isinstance(event, keyscale.Progress) and event.phase == "upscale":
                    print("begun", flush=True)
        except KeyboardInterrupt:
            print("interrupted", threading.active_count())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(long_clip)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1], err) == (0, "interrupted 1", "")
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.processes
@pytest.mark.parametrize("phase", ["prepare", "upscale", pytest.param("verify", marks=pytest.mark.slow)])
def test_a_program_that_ends_in_the_midst_of_a_job_ends(tmp_path: Path, long_clip: Path, phase: str) -> None:
    code = """
        import sys, keyscale
        size = (768, 768) if sys.argv[2] == "verify" else (256, 256)  # large enough that reading it takes a while
        job = keyscale.upscale(sys.argv[1], output="out.mp4", model="lanczos", size=size, verify="full")
        events = iter(job)
        for event in events:
            if isinstance(event, keyscale.Progress) and event.phase == sys.argv[2]:
                break
    """
    done = program(code, long_clip, phase, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "out.mp4").exists()
    assert not [path.name for path in tmp_path.rglob("*") if ".part" in path.name or path.name.startswith("joined")]
