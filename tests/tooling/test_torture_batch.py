"""Torture of `keyscale batch`: a seeded tenth of what `make torture` does with it, and what that has found before."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.clips import make_clip
from support.numbered import interrupt, leftovers, run, small_job

from keyscale.cli.batch_jobs import batch_clips
from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.events import BatchDone
from keyscale.engine.batch.inputs import find_clips
from keyscale.engine.batch.outputs import MOST_NAMED
from keyscale.engine.batch.report import check_report_path
from keyscale.engine.batch.supervisor import BatchOptions, run_batch
from keyscale.engine.errors import StorageError
from keyscale.engine.job import Job
from keyscale.engine.plan.plan import Chunk
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.workspace.folder import PUBLISHING, WorkFolder, beneath, work_folder_of
from keyscale.engine.workspace.locks import private_folder
from tools.torture.batch_faults import batch_disks, batch_sources
from tools.torture.batch_kills import batch_kills
from tools.torture.batch_manifests import batch_manifests
from tools.torture.batch_many import Look, batch_many, growth, risen
from tools.torture.batch_pairs import batch_pairs
from tools.torture.batches import Batch, Place, decoded
from tools.torture.disks import NoDiskError, small_disk
from tools.torture.lab import Lab, laboratory
from tools.torture.manifest_damage import mutated_manifest
from tools.torture.material import KINDS, make_video
from tools.torture.report import Section

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are looked at and disks mounted as Linux does"
)

KEY = "ab" * 32


TENTH = 0.1


@pytest.fixture(scope="module", params=[0.01, pytest.param(TENTH, marks=pytest.mark.slow)], ids="share {}".format)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("torture")
    with laboratory(failures=folder / "failures", seed=2, share=request.param, say=print, scratch=folder) as opened:
        yield opened


def held(lab: Lab, section: Section, *, least: int) -> None:
    """Nothing was violated, and the section did what it is there for: of a tenth so many cases at least."""
    assert section.violations == []
    if section.skipped:
        pytest.skip("; ".join(section.skipped))
    assert section.cases >= max(1, round(least * lab.share / TENTH))


# The sections


@pytest.mark.processes
def test_a_batch_that_is_killed_is_finished_by_the_same_command_as_if_it_had_not_been(lab: Lab) -> None:
    held(lab, batch_kills(lab), least=11)


@pytest.mark.processes
@pytest.mark.slow
def test_many_clips_in_one_run_take_no_more_than_a_few_and_are_skipped_afterwards(lab: Lab) -> None:
    held(lab, batch_many(lab), least=2)


@pytest.mark.processes
def test_mutated_manifests_end_in_results_or_in_clear_messages(lab: Lab) -> None:
    held(lab, batch_manifests(lab), least=50)


@pytest.mark.processes
def test_two_batches_over_one_folder_make_all_of_it_even_if_one_is_killed(lab: Lab) -> None:
    held(lab, batch_pairs(lab), least=4)


@pytest.mark.processes
def test_clips_for_which_the_disk_has_no_room_fail_and_are_made_once_it_has(lab: Lab) -> None:
    held(lab, batch_disks(lab), least=8)


@pytest.mark.processes
def test_a_source_that_changes_fails_its_own_clip_alone(lab: Lab) -> None:
    held(lab, batch_sources(lab), least=4)  # where the batch ended first, nothing could change


# The tools themselves


@pytest.mark.processes
def test_the_memory_of_a_batch_is_its_own_and_not_that_of_who_started_it(tmp_path: Path) -> None:
    ballast = bytearray(400 * 2**20)
    place = Place.made_in(tmp_path)
    make_video(place.folder / "a.mp4", KINDS[0], frames=12)
    flags = ("--whole-frame", "--model", "lanczos", "--size", "64x48", "--progress", "json")
    with Batch(place, ("a.mp4", "-o", "out", *flags)) as batch:
        ended = batch.wait(60)
    assert ended.code == 0, ended.stderr
    assert 30 < ended.peak_mib < len(ballast) / 2**20


def test_manifests_are_the_same_for_the_same_seed_and_of_many_kinds() -> None:
    made = [mutated_manifest(number, 1) for number in range(500)]
    assert made[:88] == [mutated_manifest(number, 1) for number in range(88)]
    assert made[:88] != [mutated_manifest(number, 2) for number in range(88)]
    assert len({content for _, _, content in made}) > 400
    assert len({(suffix, damage) for suffix, damage, _ in made}) >= 30
    assert max(len(content) for _, _, content in made) > 2**20


def test_memory_that_grows_with_the_clips_is_seen_and_noise_is_not() -> None:
    def looks(each: float) -> list[Look]:
        return [Look(clips=n, mib=300 + each * n + n % 3, descriptors=9 + n % 2, threads=8) for n in range(50, 199)]

    assert abs(growth(looks(0))) < 0.01
    assert growth(looks(0.5)) == pytest.approx(0.5, abs=0.01)
    assert risen([5, 6, 5, 6, 7, 8, 7, 8])
    assert not risen([5, 6, 5, 6, 5, 6, 5, 6])


def test_results_that_differ_in_sound_alone_are_told_apart(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", KINDS[0], frames=24)
    assert decoded(whole) == decoded(whole)
    done = [
        run(replace(small_job(whole, tmp_path / f"{silent}.mp4"), encoding=_sound(silent))) for silent in (False, True)
    ]
    assert decoded(done[0].path) != decoded(done[1].path)


def _sound(silent: bool) -> Any:
    return replace(small_job(Path("a"), Path("b")).encoding, audio=not silent)


# What it has found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job of three chunks."""
    source = make_clip(tmp_path / "in.mp4", frames=72, rate=24)
    return replace(small_job(source, tmp_path / "out.mp4", chunk_seconds=1.0), update=True)


def published_and_killed(job: Job, key: str) -> None:
    """What is there of a job whose process was killed right after its result had got its name."""
    output = Path(job.output)
    other = replace(job, output=str(output.with_name("other.mp4")))
    interrupt(other, chunks=2)
    work_folder_of(Path(other.output)).rename(work_folder_of(output))
    (work_folder_of(output) / PUBLISHING).write_text(key)


def test_chunks_of_a_result_that_was_published_before_the_kill_are_removed_by_the_next_run(job: Job) -> None:
    done = run(job).done
    published_and_killed(job, done.key)
    again = run(job).done
    assert again.skipped
    assert leftovers(Path(job.output).parent, "in.mp4", "out.mp4") == []


def test_chunks_of_another_job_for_the_same_output_are_not_removed_by_a_run_that_is_skipped(job: Job) -> None:
    run(job)
    published_and_killed(job, KEY)
    assert run(job).done.skipped
    assert len(list(work_folder_of(Path(job.output)).glob("*/chunk-*.json"))) == 2


def test_a_skipped_run_leaves_what_another_process_holds_alone(job: Job) -> None:
    key = run(job).done.key
    with WorkFolder.open_for(Path(job.output), KEY, ".mp4", resume=True) as folder:
        folder.announce(key)
        (folder.folder / "chunk-00000.mp4").write_bytes(b"in work")
        assert run(job).done.skipped
        assert (folder.folder / "chunk-00000.mp4").exists()


def test_a_kill_within_the_removal_leaves_what_the_next_run_removes(job: Job) -> None:
    key = run(job).done.key
    work = work_folder_of(Path(job.output))
    for left in (["lock"], ["lock", PUBLISHING], ["lock", PUBLISHING, "0123456789abcdef.gone-89abcdef"]):
        work.mkdir()
        for name in left:
            if "gone" in name:
                (work / name).mkdir()
            else:
                (work / name).write_text(key if name == PUBLISHING else "")
        assert run(job).done.skipped
        assert not work.exists(), left


def test_two_processes_that_make_the_same_chunk_do_not_write_the_same_file(tmp_path: Path) -> None:
    chunk = Chunk(index=0, start=0, end=24)
    first, second = (WorkFolder(tmp_path, KEY, ".mp4") for _ in range(2))
    first.folder.mkdir()
    assert first.part(chunk) != second.part(chunk)
    first.part(chunk).write_bytes(b"whole")
    second.part(chunk).write_bytes(b"half of it, so f")
    first.finish(chunk)
    assert first.chunk(chunk).read_bytes() == b"whole"
    assert second.lost_in(chunk) == 0


def test_whoever_looks_for_chunks_while_the_folder_is_removed_finds_none_to_make(tmp_path: Path) -> None:
    chunks = [Chunk(index=index, start=index, end=index + 1) for index in range(8)]
    taken: list[int] = []
    for _ in range(6):
        output = tmp_path / "out.mp4"
        with WorkFolder.open_for(output, KEY, ".mp4", resume=True) as owner:
            for chunk in chunks:
                owner.part(chunk).write_bytes(b"chunk")
                owner.finish(chunk)
            helper = WorkFolder.joined_by(output, KEY, ".mp4")
            assert helper is not None

            def look(helper: WorkFolder = helper) -> None:
                for _ in range(5):
                    taken.extend(chunk.index for chunk in reversed(chunks) if helper.claim(chunk))

            looking = threading.Thread(target=look)
            looking.start()
            owner.clear()
            looking.join()
            helper.let_go()
        assert taken == []
        assert not work_folder_of(output).exists()


def test_a_chunk_that_cannot_be_claimed_is_an_error_and_is_not_waited_for(tmp_path: Path) -> None:
    chunk = Chunk(index=0, start=0, end=24)
    with WorkFolder.open_for(tmp_path / "out.mp4", KEY, ".mp4", resume=True) as folder:
        in_its_place = folder.folder / "chunk-00000.claim"
        in_its_place.mkdir()
        with pytest.raises(StorageError, match=r"cannot write .*chunk-00000\.claim"):
            folder.claim(chunk)
        in_its_place.rmdir()
        assert folder.claim(chunk)


@pytest.mark.processes
@pytest.mark.parametrize("files", range(3, 8))
def test_a_clip_that_several_workers_may_make_fails_where_there_is_no_room_for_files(
    tmp_path: Path, files: int
) -> None:
    # Of lock, marks, claims and chunks any may be the first that does not fit.
    out = tmp_path / "out"
    clip = make_clip(tmp_path / "clip.mp4", frames=48, rate=24)
    job = replace(small_job(clip, out / "clip.mp4", chunk_seconds=1.0), update=True)
    work = BatchClip(name="clip.mp4", video=str(clip), keyframes=None, output=job.output, job=job)
    try:
        with small_disk(out, 64 << 20, inodes=1 + files):  # one is the folder itself
            *_, last = run_batch([work], BatchOptions(jobs=2, device="cpu"), threading.Event())
            assert isinstance(last, BatchDone)
            error = last.report.clips[0].error
            assert error is None or error.exit_code == 4
            assert error is not None or files > 5
            left = [path.name for path in out.iterdir()]
            assert "clip.mp4" not in left if error else left == ["clip.mp4"]
    except NoDiskError as error:
        pytest.skip(f"no small disk can be mounted here ({error})")


def test_a_folder_that_goes_while_it_is_listed_is_left_out(tmp_path: Path) -> None:
    for name in ("a/1/x", "b/2/y"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    listed = beneath(tmp_path)
    assert {path.name for path in (next(listed), next(listed), next(listed))} == {"a", "b", "link"}
    shutil.rmtree(tmp_path / "b")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in listed) == ["a/1", "a/1/x"]


def test_a_folder_that_another_process_removes_meanwhile_is_no_fault_of_the_output(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    faults: list[BaseException] = []
    over = threading.Event()

    def others() -> None:
        while not over.is_set():
            try:
                with WorkFolder.open_for(output, KEY, ".mp4", resume=True) as folder:
                    for number in range(5):
                        (folder.folder / f"chunk-0000{number}.mp4").write_bytes(b"")
                    folder.clear()
            except Exception as error:
                if type(error).__name__ != "OutputBusy":
                    faults.append(error)

    threads = [threading.Thread(target=others) for _ in range(3)]
    for thread in threads:
        thread.start()
    threading.Event().wait(2.0)
    over.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_folders_for_a_moment_that_killed_processes_left_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    (tmp_path / ".keyscale-check-abandoned").mkdir()
    (tmp_path / ".keyscale-check-abandoned" / "encoder-check.mp4").write_bytes(b"begun")
    with private_folder(tmp_path) as first:
        (first / "mine").write_bytes(b"")
        with private_folder(tmp_path) as second:
            assert first != second
            assert sorted(tmp_path.iterdir()) == sorted([first, second])
            assert (first / "mine").exists()
    assert list(tmp_path.iterdir()) == []


def test_many_processes_have_folders_for_a_moment_in_one_place_at_once(tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def one() -> None:
        try:
            for number in range(60):
                with private_folder(tmp_path) as own:
                    (own / f"{number}").write_bytes(b"")
                    assert (own / f"{number}").exists()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_job_left_of_its_encoder_check_is_removed_by_the_next(job: Job) -> None:
    left = Path(job.output).parent / ".keyscale-check-abandoned"
    left.mkdir()
    (left / "encoder-check.mp4").write_bytes(b"begun")
    prepare(job)
    assert not left.exists()


def test_what_a_killed_batch_left_of_its_report_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".keyscale-check-abandoned"
    left.mkdir()
    (left / "lock").touch()
    (left / "report").write_bytes(b"{")
    check_report_path(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def clips_of(folder: Path, rows: list[dict[str, str]]) -> list[Any]:
    manifest = folder / "list.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = find_clips([manifest], output_dir=folder / "out", whole_frame=True)
    return list(batch_clips(found, output_dir=folder / "out", flags={}))


def test_thousands_of_rows_for_one_result_are_told_of_in_short_messages(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=3, rate=24)
    clips = clips_of(tmp_path, [{"video": "a.mp4", "output": "one"}] * 3000)
    messages = [clip.fault.message for clip in clips]
    assert len(messages) == 3000
    assert max(map(len, messages)) < 1000
    assert all(f"and {3000 - 1 - MOST_NAMED} more too" in message for message in messages)


def test_a_manifest_whose_keyframes_are_a_pipe_does_not_wait_for_it(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=3, rate=24)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for keyframes in ("pipe", "folder", "/dev/zero"):
        [clip] = clips_of(tmp_path, [{"video": "a.mp4", "keyframes": keyframes}])
        assert "line 1" in clip.fault.message
        assert "is not an ordinary file" in clip.fault.message


@pytest.mark.parametrize("output", [".one.mp4.keyscale/x", ".ONE.mp4.Keyscale/x.mp4", ".keyscale-check-x/x"])
def test_a_result_cannot_lie_in_a_folder_that_is_removed_with_another_clips_chunks(tmp_path: Path, output: str) -> None:
    make_clip(tmp_path / "a.mp4", frames=3, rate=24)
    [one, other] = clips_of(tmp_path, [{"video": "a.mp4", "output": "one"}, {"video": "a.mp4", "output": output}])
    assert one.job is not None
    assert "line 2" in other.fault.message
    assert "in which keyscale works" in other.fault.message
