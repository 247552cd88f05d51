"""`--update`: a result that is there is made again only where something that decides it has changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import av
import numpy as np
import pytest
import torch
from support.clips import clicks_track, make_clip
from support.numbered import Result, leftovers, run, small_job

import keyscale
from keyscale.engine.errors import OutputBusy, StorageError
from keyscale.engine.events import Note, Phase, Progress
from keyscale.engine.job import Codec, Compute, Encoding, Job, Mode, ModelChoice, Precision, Target, Trim, Verify
from keyscale.engine.models.torch_networks import SRVGGNetCompact
from keyscale.engine.runners.local import LocalRun
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.workspace.fingerprint import read_stamp
from keyscale.engine.workspace.folder import WorkFolder

CAMERA = {"keyframes": [{"time": 0, "x": 0, "y": 0, "width": 32, "height": 24}]}


def updating(source: Path, output: Path, **more: Any) -> Job:
    return replace(small_job(source, output, **more), update=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    hum = clicks_track([0.2], seconds=1, sample_rate=48000, channels=1)
    return make_clip(tmp_path / "source.mp4", frames=12, rate=24, sounds=[hum])


def save_checkpoint(path: Path, *, seed: int) -> None:
    """A user's own network, of random weights."""
    torch.manual_seed(seed)
    torch.save({"params": SRVGGNetCompact(features=4, blocks=1, scale=2).state_dict()}, path)


def was_skipped(result: Result) -> bool:
    skipped = result.done.skipped
    assert skipped == any(note.startswith("skipped: ") for note in result.notes)
    return skipped


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov", "out.webm"])
def test_a_result_carries_the_key_of_its_job_and_is_not_made_twice(source: Path, tmp_path: Path, name: str) -> None:
    codec = Codec.AV1 if name.endswith(".webm") else Codec.AUTO
    job = updating(source, tmp_path / name, encoding=Encoding(codec=codec))
    first = run(job)
    assert not was_skipped(first)
    assert len(first.done.key) == 64
    assert read_stamp(first.path) == first.done.key
    before = first.path.stat().st_mtime_ns
    second = run(job)
    assert was_skipped(second)
    assert second.done.key == first.done.key
    assert second.done.frames == first.done.frames
    assert second.path.stat().st_mtime_ns == before
    assert leftovers(tmp_path, source.name, Path(job.output).name) == []


def test_a_job_without_update_carries_its_key_too(source: Path, tmp_path: Path) -> None:
    made = run(small_job(source, tmp_path / "out.mp4"))
    assert read_stamp(made.path) == made.done.key
    assert was_skipped(run(updating(source, tmp_path / "out.mp4")))


def test_nothing_is_read_but_the_source_where_the_result_is_up_to_date(source: Path, tmp_path: Path) -> None:
    job = updating(source, tmp_path / "out.mp4", size=(256, 192), model=ModelChoice())
    run(job)
    phases = {event.phase for event in run(job).events if isinstance(event, Progress)}
    assert phases == {Phase.PREPARE}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda job: replace(job, target=Target(width=64, height=64, rate=None)), id="size"),
        pytest.param(lambda job: replace(job, target=replace(job.target, rate=Fraction(30))), id="rate"),
        pytest.param(lambda job: replace(job, trim=Trim(start=0.25)), id="trim"),
        pytest.param(lambda job: replace(job, encoding=replace(job.encoding, crf=20)), id="CRF"),
        pytest.param(lambda job: replace(job, encoding=replace(job.encoding, audio=False)), id="sound"),
        pytest.param(lambda job: replace(job, model=ModelChoice(name="keyscale-tiny-x2")), id="model"),
        pytest.param(lambda job: replace(job, chunk_seconds=0.2), id="chunks"),
        pytest.param(lambda job: replace(job, keep_going_on_decode_errors=True), id="damage"),
    ],
)
def test_a_changed_setting_makes_it_again(source: Path, tmp_path: Path, change: Callable[[Job], Job]) -> None:
    job = updating(source, tmp_path / "out.mp4", size=(128, 96))
    first = run(job)
    again = run(change(job))
    assert not was_skipped(again)
    assert read_stamp(again.path) == again.done.key != first.done.key
    assert was_skipped(run(change(job)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda job: replace(job, verify=Verify.QUICK), id="how it is verified"),
        pytest.param(lambda job: replace(job, resume=False), id="whether it resumes"),
        pytest.param(lambda job: replace(job, compute=Compute(device="auto")), id="what is the default"),
        pytest.param(lambda job: replace(job, compute=Compute(tile=64)), id="tiles of a network that there is none of"),
        pytest.param(
            lambda job: replace(job, encoding=replace(job.encoding, codec=Codec.H264, bit_depth=8)),
            id="defaults by their names",
        ),
        pytest.param(
            lambda job: replace(job, model=replace(job.model, mode=Mode.QUALITY)), id="a mode that decides nothing"
        ),
    ],
)
def test_what_changes_nothing_in_the_result_makes_nothing_again(
    source: Path, tmp_path: Path, change: Callable[[Job], Job]
) -> None:
    job = updating(source, tmp_path / "out.mp4")
    run(job)
    assert was_skipped(run(change(job)))


def test_how_a_network_runs_counts_by_what_it_comes_to(source: Path, tmp_path: Path) -> None:
    network = ModelChoice(name="keyscale-tiny-x2")
    job = updating(source, tmp_path / "out.mp4", size=(128, 96), model=network)
    job = replace(job, compute=Compute(device="cpu", precision=Precision.INT8))
    run(job)
    assert was_skipped(run(replace(job, compute=Compute(device="cpu"))))
    assert was_skipped(run(replace(job, compute=replace(job.compute, tile=64))))
    assert not was_skipped(run(replace(job, compute=Compute(device="cpu", precision=Precision.FP32))))


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(Compute(device="cpu"), id="device"),
        pytest.param(Compute(precision=Precision.INT8), id="precision"),
        pytest.param(Compute(device="cpu", precision=Precision.INT8), id="both"),
    ],
)
def test_to_ask_for_what_this_machine_does_anyway_changes_nothing(
    source: Path, tmp_path: Path, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = updating(source, tmp_path / "out.mp4", size=(128, 96), model=ModelChoice(name="keyscale-tiny-x2"))
    monkeypatch.setattr("keyscale.engine.workspace.fingerprint.choose_device", lambda _: "cpu")
    run(job)
    assert was_skipped(run(replace(job, compute=compute)))
    # The same on a machine that would have taken another device.
    monkeypatch.setattr("keyscale.engine.workspace.fingerprint.choose_device", lambda _: "cuda")
    assert not was_skipped(run(replace(job, compute=compute)))
    assert was_skipped(run(replace(job, compute=compute)))


def test_a_checkpoint_of_another_name_is_the_same_network(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    save_checkpoint(first, seed=1)
    shutil.copy(first, second)
    job = updating(source, tmp_path / "out.mp4", size=(128, 96), model=ModelChoice(name=str(first)))
    run(job)
    assert was_skipped(run(replace(job, model=ModelChoice(name=str(second)))))
    save_checkpoint(second, seed=2)
    assert not was_skipped(run(replace(job, model=ModelChoice(name=str(second)))))


def test_another_content_of_the_source_makes_it_again_and_another_name_does_not(source: Path, tmp_path: Path) -> None:
    job = updating(source, tmp_path / "out.mp4")
    run(job)
    moved = tmp_path / "moved.mp4"
    shutil.move(source, moved)
    assert was_skipped(run(replace(job, source=str(moved))))
    make_clip(moved, frames=13, rate=24)
    assert not was_skipped(run(replace(job, source=str(moved))))


def test_another_camera_makes_it_again_and_another_writing_of_the_same_does_not(source: Path, tmp_path: Path) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps(CAMERA))
    job = updating(source, tmp_path / "out.mp4", keyframes=str(camera))
    run(job)
    camera.write_text(json.dumps(CAMERA, indent=4))
    assert was_skipped(run(job))
    camera.write_text(json.dumps(CAMERA).replace('"x": 0', '"x": 1'))
    assert not was_skipped(run(job))


def test_another_version_of_the_engine_makes_it_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = updating(source, tmp_path / "out.mp4")
    run(job)
    monkeypatch.setattr(keyscale, "__version__", "99.0")
    assert not was_skipped(run(job))


def test_what_keyscale_did_not_make_is_not_replaced(source: Path, tmp_path: Path) -> None:
    output = make_clip(tmp_path / "out.mp4", frames=3, rate=24)
    before = output.read_bytes()
    with pytest.raises(StorageError, match="keyscale did not make it"):
        prepare(updating(source, output))
    assert output.read_bytes() == before
    assert not was_skipped(run(replace(updating(source, output), overwrite=True)))


def test_a_link_to_a_result_is_not_taken_for_one(source: Path, tmp_path: Path) -> None:
    run(updating(source, tmp_path / "out.mp4"))
    (tmp_path / "link.mp4").symlink_to("out.mp4")
    with pytest.raises(StorageError, match="already exists"):
        prepare(updating(source, tmp_path / "link.mp4"))


def test_a_damaged_result_that_no_longer_names_its_job_is_not_taken_for_done(source: Path, tmp_path: Path) -> None:
    job = updating(source, tmp_path / "out.mp4")
    made = run(job).path
    made.write_bytes(made.read_bytes()[:100])
    with pytest.raises(StorageError, match="already exists"):
        prepare(job)


def test_an_empty_file_is_no_result_that_anyone_would_miss(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").touch()
    assert not was_skipped(run(updating(source, tmp_path / "out.mp4")))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov"])
def test_a_result_that_was_cut_off_is_made_again(source: Path, tmp_path: Path, name: str) -> None:
    job = updating(source, tmp_path / name)
    first = run(job)
    content = first.path.read_bytes()
    first.path.write_bytes(content[: len(content) * 3 // 4])
    assert read_stamp(first.path) == first.done.key  # it stands in front
    second = run(job)
    assert not was_skipped(second)
    assert was_skipped(run(job))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov", "out.webm"])
@pytest.mark.parametrize("lost", [1, 2000])
def test_a_result_whose_sound_was_cut_off_at_the_end_is_made_again(tmp_path: Path, name: str, lost: int) -> None:
    # The sound goes on for longer than the pictures: the file's last bytes are sound alone.
    rng = np.random.default_rng(7)
    noise = rng.uniform(-0.5, 0.5, (2, 48000)).astype(np.float32)
    source = make_clip(tmp_path / "source.mp4", frames=12, rate=24, sounds=[noise])
    codec = Codec.AV1 if name.endswith(".webm") else Codec.AUTO
    job = updating(source, tmp_path / name, encoding=Encoding(codec=codec, preset="8" if codec is Codec.AV1 else None))
    whole = run(job).path
    content = whole.read_bytes()
    whole.write_bytes(content[:-lost])
    assert not was_skipped(run(job))
    assert was_skipped(run(job))


def test_a_result_used_as_a_source_does_not_pass_its_key_on(source: Path, tmp_path: Path) -> None:
    first = run(updating(source, tmp_path / "first.mp4"))
    for name in ("second.mp4", "second.mkv", "second.mov"):
        second = run(updating(first.path, tmp_path / name))
        with av.open(str(second.path)) as container:
            stamps = [value for value in container.metadata.values() if " job " in value]
        assert len(stamps) == 1
        assert read_stamp(second.path) == second.done.key != first.done.key


def test_metadata_that_only_free_keys_hold_keeps_the_key_of_the_job_too(tmp_path: Path) -> None:
    source = tmp_path / "phone.mov"
    with (
        av.open(str(make_clip(tmp_path / "plain.mp4", frames=6, rate=24))) as plain,
        av.open(str(source), "w", container_options={"movflags": "use_metadata_tags"}) as phone,
    ):
        phone.metadata["com.apple.quicktime.make"] = "Phone"
        stream = phone.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                phone.mux(packet)
    job = updating(source, tmp_path / "out.mp4")
    made = run(job)
    with av.open(str(made.path)) as container:
        assert container.metadata["com.apple.quicktime.make"] == "Phone"
    assert was_skipped(run(job))


def test_what_another_process_finished_meanwhile_is_not_made_again(source: Path, tmp_path: Path) -> None:
    job = updating(source, tmp_path / "out.mp4")
    late = prepare(job)
    run(job)
    before = Path(job.output).stat().st_mtime_ns

    events = list(LocalRun(late, StopFlag()).events())
    assert any(isinstance(event, Note) and event.message.startswith("skipped: ") for event in events)
    assert Path(job.output).stat().st_mtime_ns == before
    assert leftovers(tmp_path, source.name, Path(job.output).name) == []


def test_an_output_that_another_process_works_on_is_told_apart_from_other_faults(source: Path, tmp_path: Path) -> None:
    job = updating(source, tmp_path / "out.mp4")
    other = WorkFolder.open_for(tmp_path / "out.mp4", "0" * 64, ".mkv", resume=True)
    with other, pytest.raises(OutputBusy, match="another process is working on"):
        run(job)
