"""`--look` and `--strength`: which weights run, how they are mixed, and what of the network's picture is shown."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.numbered import interrupt, numbered, planes, run, small_job, write_video
from support.pictures import Pixels, picture

from keyscale.cli.app import run as run_command
from keyscale.engine.camera.geometry import Window
from keyscale.engine.camera.sampler import mixed
from keyscale.engine.errors import ModelError, UsageError
from keyscale.engine.forms import LOOKS
from keyscale.engine.job import Calm, Codec, Compute, Encoding, Job, ModelChoice, Precision
from keyscale.engine.models import at_look, find, load_model, load_openvino_model, open_model, shipped
from keyscale.engine.models.execution import choose_execution, possible_executions
from keyscale.engine.models.golden import decibels, tile
from keyscale.engine.models.registry import ModelSpec, all_models
from keyscale.engine.pipeline.chunks import Tally, make_frame
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.plan.describe import plan_to_json, summarise
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.workspace.fingerprint import job_key

SHIPPED = [spec for spec in all_models() if spec.shipped]
SMALL = find("keyscale-tiny-x2")
WHOLE = Window(0, 0, 64, 48)
CPU = Compute(device="cpu")


def weights(spec: ModelSpec) -> list[dict[str, Any]]:
    return [shipped.read_state(look.weights.filename, look.weights.sha256) for look in spec.looks]


# Weights


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_balanced_is_what_is_shipped_without_a_word(spec: ModelSpec) -> None:
    assert at_look(spec, None) == at_look(spec, LOOKS["balanced"]) == spec
    assert [look.share for look in spec.looks] == list(LOOKS.values())
    assert spec.files[0].filename == f"{spec.name}.safetensors"


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_balanced_is_the_mixture_of_its_ends(spec: ModelSpec) -> None:
    """But for rounding to fp16, and the pattern of a cell that is taken out of the last bias."""
    natural, balanced, crisp = weights(spec)
    last = f"convs.{spec.blocks + 1}.bias"
    for key, value in balanced.items():
        between = 0.25 * natural[key].astype(np.float32) + 0.75 * crisp[key].astype(np.float32)
        assert np.abs(between - value).max() < (2e-3 if key == last else 1.1e-3), key


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_every_named_look_is_there_in_int8_and_close_to_fp32(spec: ModelSpec, name: str) -> None:
    exact = load_openvino_model(spec.name, "fp32", look=LOOKS[name])
    near = load_openvino_model(spec.name, "int8", look=LOOKS[name])
    assert decibels(near.enlarge(tile(), WHOLE), exact.enlarge(tile(), WHOLE)) > 55
    assert exact.sha256 == exact.spec.files[0].sha256 != near.sha256


@pytest.mark.parametrize(("share", "low", "high", "part"), [(0.3, 0, 1, 0.4), (0.5, 0, 1, 2 / 3), (0.9, 1, 2, 0.6)])
def test_a_look_between_mixes_the_weights_beside_it(share: float, low: int, high: int, part: float) -> None:
    states = weights(SMALL)
    found = load_model(SMALL.name, look=share)
    for key, value in found.network.state_dict().items():
        wanted = (1 - part) * states[low][key].astype(np.float64) + part * states[high][key].astype(np.float64)
        assert np.abs(value.numpy() - wanted).max() < 1e-6, key


def test_runtimes_mix_alike() -> None:
    """torch and OpenVINO in fp32, to rounding."""
    frame = picture(64, 48, seed=1)
    by_torch, by_openvino = load_model(SMALL.name, look=0.4), load_openvino_model(SMALL.name, "fp32", look=0.4)
    ways = [model.enlarge(frame, WHOLE).astype(int) for model in (by_torch, by_openvino)]
    assert np.abs(ways[0] - ways[1]).max() <= 1
    assert by_torch.sha256 == by_openvino.sha256


def test_looks_differ_and_lie_in_order() -> None:
    """From natural to crisp the details of a picture grow stronger, and each share has a digest of its own."""
    frame = picture(64, 48, seed=1)
    models = [load_openvino_model("keyscale-compact-x4", "fp32", look=share) for share in (0, 0.4, 0.75, 0.9, 1)]
    energy = [float(np.diff(model.enlarge(frame, WHOLE).astype(float), axis=1).std()) for model in models]
    assert energy == sorted(energy)
    assert energy[-1] > 1.02 * energy[0]
    assert len({model.sha256 for model in models}) == 5


def test_in_fewer_bits_a_look_between_stays_close() -> None:
    execution = choose_execution(at_look(SMALL, 0.4), "cpu", Precision.AUTO, on_cpu={"int8", "bf16"})
    assert execution.precision == "bf16"
    from keyscale.engine.models.openvino import cpu_precisions

    if "bf16" not in cpu_precisions():
        pytest.skip("this CPU has no bf16")
    assert (open_model(SMALL.name, execution, look=0.4, unasked=True).decibels or 0) > 50


# What can run, and what cannot


def test_a_look_between_is_no_int8() -> None:
    between = at_look(SMALL, 0.4)
    assert choose_execution(between, "cpu", Precision.AUTO, on_cpu={"int8"}).precision == "fp32"
    assert choose_execution(between, "cuda", Precision.AUTO, on_cpu={"int8"}).precision == "fp16"
    for device in ("cpu", "auto"):
        with pytest.raises(UsageError, match=r"natural, balanced and crisp alone, not for --look 0\.4") as told:
            possible_executions(between, device, Precision.INT8, on_cpu={"int8"})
        assert "--look natural, --look balanced or --look crisp" in (told.value.remedy or "")
    with pytest.raises(UsageError, match="int8"):
        load_openvino_model(SMALL.name, "int8", look=0.4)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(UsageError, match="out of range"):
        at_look(SMALL, share)


def test_a_damaged_end_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = SMALL.looks[2].weights
    content = shipped.data_file(damaged.filename).read_bytes()
    (tmp_path / damaged.filename).write_bytes(content[:-1])
    real = shipped.data_file
    monkeypatch.setattr(shipped, "data_file", lambda name: tmp_path / name if name == damaged.filename else real(name))
    load_model(SMALL.name, look=0.4)
    for share in (0.9, 1):
        with pytest.raises(ModelError, match="crisp"):
            load_model(SMALL.name, look=share)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mkv", [numbered(n) for n in range(6)], codec="ffv1")


@pytest.mark.parametrize(
    ("flags", "error", "remedy"),
    [
        ("--look soft", "--look 'soft' is not a look", "natural, balanced, crisp"),
        ("--look crips", "--look 'crips' is not a look", "Did you mean crisp?"),
        ("--look 1.5", "--look 1.5 is out of range", "0 to 1"),
        ("--look nan", "--look nan is out of range", "0 to 1"),
        ("--look crisp --mode quality", "--look is a setting of keyscale's own networks", "--mode fast"),
        ("--look 0.2 --model realesr-general-x4v3", "not of realesr-general-x4v3", "Leave --look out"),
        ("--look crisp --model lanczos", "--model lanczos runs none", "Leave --look out"),
        ("--look 0.2 --precision int8", "--look 0.2", "--look natural, --look balanced or --look crisp"),
        ("--strength 2", "--strength 2.0 is out of range", "0 to 1"),
        ("--strength -0.5", "--strength -0.5 is out of range", "0 to 1"),
        ("--strength half", "--strength 'half' is not a number", ""),
    ],
)
def test_what_is_wrong_is_told_before_the_work(
    clip: Path, flags: str, error: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["plan", str(clip), "--size", "2x", *flags.split()]) == 2
    said = capsys.readouterr().err
    assert error in said
    assert remedy in said


def test_a_checkpoint_has_no_ends(clip: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.safetensors"
    own.write_bytes(shipped.data_file(SMALL.files[0].filename).read_bytes())
    with pytest.raises(UsageError, match="own networks, not of mine"):
        prepare_plan(small_job(clip, tmp_path / "out.mp4", model=ModelChoice(name=str(own), look=1.0)))
    with pytest.raises(UsageError, match="own networks, not of mine"):
        load_model(own, look=1.0)


# Plan, key and report


def planned(clip: Path, size: tuple[int, int] = (128, 96), **model: Any) -> Any:
    compute = model.pop("compute", CPU)
    job = small_job(clip, clip.with_name("out.mp4"), size=size, model=ModelChoice(**model), compute=compute)
    return prepare_plan(job)


def test_the_plan_tells_look_and_strength(clip: Path) -> None:
    rows = dict(summarise(planned(clip, look=0.4, strength=0.5)))
    assert rows["Model"] == "keyscale-compact-x2, x2, look 0.4, strength 0.5"
    assert dict(summarise(planned(clip, look=1.0)))["Model"] == "keyscale-compact-x2, x2, look crisp"
    assert dict(summarise(planned(clip)))["Model"] == "keyscale-compact-x2, x2"
    model = json.loads(plan_to_json(planned(clip, look=0.0, strength=0.25)))["model"]
    assert (model["look"], model["strength"]) == (0.0, 0.25)


def test_the_plan_says_that_a_look_between_is_no_int8(clip: Path) -> None:
    plan = planned(clip, look=0.4)
    assert [way.precision for way in plan.executions] != ["int8"]
    assert any("--look 0.4 is between" in warning for warning in plan.warnings)
    exact = planned(clip, look=0.4, compute=Compute(device="cpu", precision=Precision.FP32))
    assert not any("--look" in warning for warning in (*exact.warnings, *planned(clip, look=1.0).warnings))


def test_the_key_follows_what_is_shown(clip: Path) -> None:
    def key(**model: Any) -> str:
        return job_key(planned(clip, **model), "0" * 64)

    assert key() == key(look=LOOKS["balanced"]) == key(strength=1.0)
    others = [key(look=0.0), key(look=0.4), key(look=0.5), key(look=1.0), key(strength=0.5), key(strength=0.0)]
    assert len({key(), *others}) == 7
    assert key(strength=0.0) == key(name="lanczos")


@pytest.mark.parametrize(("strength", "size"), [(0.0, (128, 96)), (0.5, (64, 48))])
def test_where_no_network_runs_that_is_said(clip: Path, strength: float, size: tuple[int, int]) -> None:
    plan = planned(clip, size, strength=strength)
    assert plan.model is None
    assert plan.strength == 1
    assert any(f"--strength {strength:g}" in warning and "no network" in warning for warning in plan.warnings)


def test_the_last_event_names_them(clip: Path, tmp_path: Path) -> None:
    model, calm = ModelChoice(name=SMALL.name, look=0.0, strength=0.5), Calm(steady=None)
    result = run(small_job(clip, tmp_path / "out.mp4", size=(128, 96), model=model, calm=calm, compute=CPU))
    done = result.done
    assert (done.model, done.look, done.strength, done.steady) == (SMALL.name, 0.0, 0.5, None)
    assert any(f"model {SMALL.name} x2, look natural, strength 0.5" in note for note in result.notes)


# The pictures


def test_shares_of_two_pictures_are_rounded_half_up() -> None:
    source, made = np.array([[[0, 10, 255]]], np.uint8), np.array([[[255, 13, 0]]], np.uint8)
    assert mixed(source, made, 0.5).tolist() == [[[128, 12, 128]]]
    assert mixed(source, made, 0.25).tolist() == [[[64, 11, 191]]]
    deep = mixed(source.astype(np.uint16) * 257, made.astype(np.uint16) * 257, 0.75)
    assert deep.dtype == np.uint16
    assert deep.tolist() == [[[49151, 3148, 16384]]]


def textured(path: Path, frames: int = 8, **more: Any) -> Path:
    return write_video(path, [picture(64, 48, seed=n // 2) for n in range(frames)], codec="ffv1", **more)


def shown(job: Job) -> Pixels:
    """Output frame 1 of a job, as the encoder is given it."""
    plan = prepare_plan(job)
    network = None if plan.model is None else load_openvino_model(plan.model.name, "int8", look=plan.model.look)
    upscaler = None if network is None else Upscaler(network, plan.info.lattice)
    return make_frame(plan, 1, upscaler, lambda: False, Tally())


@pytest.mark.parametrize(("size", "deep"), [((128, 96), True), ((114, 84), False), ((180, 140), False)])
def test_a_part_of_the_network_s_picture(tmp_path: Path, size: tuple[int, int], deep: bool) -> None:
    """Up to, at and beyond the network's scale: between the plain resize and the network's picture, to a code."""
    source = textured(tmp_path / "in.mkv", 2)
    code = 257 if deep else 1

    def at(**model: Any) -> Any:
        encoding = Encoding(bit_depth=10 if deep else 8, codec=Codec.HEVC)
        choice = ModelChoice(**({"name": SMALL.name} | model))
        made = shown(small_job(source, tmp_path / "o.mp4", size=size, encoding=encoding, model=choice, compute=CPU))
        assert made.dtype == (np.uint16 if deep else np.uint8)
        return made.astype(np.int64)

    low, high = at(name="lanczos"), at()
    assert np.array_equal(at(strength=0.0), low)
    assert np.array_equal(at(strength=1.0), high)
    assert np.abs(high - low).max() > 8 * code
    for strength in (0.25, 0.5):
        assert np.abs(at(strength=strength) - (low + (high - low) * strength)).max() <= code


@pytest.mark.parametrize(
    "model",
    [{"look": 0.4}, {"look": 0.0, "strength": 0.3}],
    ids=["between", "both"],
)
def test_chunks_repeats_and_a_resumed_job_show_the_same(tmp_path: Path, model: dict[str, Any]) -> None:
    """A panning camera over a film of 10 frames a second, shown at 30; encoded without loss."""
    source = textured(tmp_path / "in.mkv", 10, rate=10)
    moments = [{"time": t, "x": x, "y": 2, "width": 40, "height": 30} for t, x in ((0, 0), (1, 20.5))]
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps({"version": 1, "keyframes": moments}))

    def job(name: str, seconds: float) -> Job:
        return small_job(
            source,
            tmp_path / name,
            keyframes=str(camera),
            size=(80, 60),
            rate=Fraction(30),
            model=ModelChoice(name=SMALL.name, **model),
            compute=CPU,
            encoding=Encoding(crf=0, preset="ultrafast"),
            chunk_seconds=seconds,
        )

    whole = planes(run(job("whole.mp4", 10)).path)
    assert planes(run(job("chunks.mp4", 0.2)).path) == whole
    assert len(set(whole)) == 10
    assert all(whole[n] == whole[n - n % 3] for n in range(len(whole)))
    interrupt(job("resumed.mp4", 0.2), chunks=2)
    result = run(job("resumed.mp4", 0.2))
    assert result.done.resumed_frames > 0
    assert planes(result.path) == whole
