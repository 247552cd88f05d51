"""Faults that the tests have to catch: each is put into a copy of the sources, one at a time, and its test is run.

    make mutants
    make mutants MUTANTS='remote storage'   # those whose file or name has one of these words in it

A test that passes although its fault is there does not hold what it is there for; a fault whose text is no longer in
the sources has to be seeded anew. Each names the test of `make test` that stands for what it breaks.
The list makes this module longer than others may be.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    *("bench", "cli", "docs", "engine", "examples", "src", "tests", "tools"),
    *("Makefile", "README.md", "constraints.txt", "modal_stub.py", "pyproject.toml"),
)
PASSED, FAILED = 0, 1
"""Exit codes of pytest; any other one says that the test itself could not be run."""
LIMIT_S = 600.0


@dataclass(frozen=True)
class Mutant:
    """One fault."""

    breaks: str
    """What no longer holds, in a few words."""
    file: str
    old: str
    """Text that stands in the file once."""
    new: str
    test: str
    """What has to fail, by its node id."""


MUTANTS = (
    # camera
    Mutant(
        "at a cut the camera is the later keyframe's",
        "engine/camera/framing.py",
        'np.searchsorted(begins, times, side="right") - 1',
        'np.searchsorted(begins, times, side="left") - 1',
        "tests/camera/test_framing.py::TestCuts::test_two_keyframes_of_one_time_are_a_cut_to_the_later_in_the_file",
    ),
    Mutant(
        "twice as fast is half as long",
        "engine/camera/timemap.py",
        "return (self.end - self.start) / self.speed",
        "return (self.end - self.start) * self.speed",
        "tests/plan/test_plan.py::test_durations_worked_by_hand",
    ),
    Mutant(
        "what is read of a frame lies within it",
        "engine/camera/geometry.py",
        "low = np.clip(low, 0, size - 1)",
        "low = low + 0",
        "tests/plan/test_plan.py::test_windows_hold_the_rectangles_and_stay_inside",
    ),
    Mutant(
        "parts of the frame are not read as pixels",
        "engine/camera/guard.py",
        "if rects[:, 2:].max() <= NO_PIXELS and",
        "if rects[:, 2:].max() <= 0 and",
        "tests/camera/test_formats.py::test_what_cannot_be_meant_is_an_error_that_names_the_unit",
    ),
    # source
    Mutant(
        "untagged video is read as players read it",
        "engine/source/colour.py",
        "return 1 if height >= 720 else 6",
        "return 1 if height > 720 else 6",
        "tests/source/test_colour.py::test_untagged_sources_are_read_as_players_read_them",
    ),
    Mutant(
        "chroma lies where the result says",
        "engine/source/colour.py",
        "        with_chroma_location(frame, location),",
        "        frame,",
        "tests/source/test_chroma_siting.py::test_chroma_is_written_where_the_result_says",
    ),
    Mutant(
        "each frame by its own colour",
        "engine/source/shown.py",
        "colour = colour_of_frame(picture, info.colour)",
        "colour = info.colour",
        "tests/source/test_changes.py::test_colours_stay_what_they_are",
    ),
    Mutant(
        "HDR is rolled off as BT.2390 has it",
        "engine/source/tone.py",
        "knee = 1.5 * most - 0.5",
        "knee = most - 0.01",
        "tests/source/test_hdr_to_sdr.py::test_patches",
    ),
    Mutant(
        "colours are rounded, not cut off",
        "engine/source/colour.py",
        "values += np.float32(0.5)",
        "values += np.float32(0.0)",
        "tests/source/test_colour.py::test_codes_are_rounded_and_not_cut_off",
    ),
    Mutant(
        "a joined recording goes on where its first part ends",
        "engine/source/timeline.py",
        "pts[start:stop][pts[start:stop] > SKIPPED] += shift",
        "pts[start:stop][pts[start:stop] > SKIPPED] += 0 * shift",
        "tests/source/test_timeline.py::test_the_same_recording_twice_and_three_times",
    ),
    Mutant(
        "what is rounded at a joint is not carried over",
        "engine/source/timeline.py",
        "length_of(times, usual) * time_base",
        "int(times[-1] - times[0] + usual) * time_base",
        "tests/source/test_timeline.py::test_clocks_that_round_add_nothing_up_over_joints",
    ),
    Mutant(
        "a frame is shown at its time, whatever its source and camera",
        "engine/plan/plan.py",
        "slack = rounded(info) + 1e-9",
        "slack = 1e-9 - rounded(info)",
        "tests/end_to_end/test_fuzz.py",
    ),
    Mutant(
        "cropping is applied",
        "engine/source/canvas.py",
        "return pixels[self.top : height - self.bottom, self.left : width - self.right]",
        "return pixels",
        "tests/source/test_canvas.py::test_cropping_of_matroska_is_applied",
    ),
    # models
    Mutant(
        "weights are those that their name promises",
        "engine/models/weights.py",
        "if found != file.sha256:",
        "if not found:",
        "tests/models/test_weights.py::TestFinding::test_a_file_that_is_not_what_its_name_says",
    ),
    Mutant(
        "fp32 is not TF32",
        "engine/models/torch_device.py",
        "setattr(where, name, exact)",
        "pass",
        "tests/models/test_gpu_faults.py::test_fp32_is_not_tf32",
    ),
    Mutant(
        "a card without kernels is passed over",
        "engine/machine.py",
        "if (wrong := lacks_kernels(device)) is None:",
        "if not (wrong := None):",
        "tests/models/test_gpu_faults.py::test_auto_passes_over_a_card_without_kernels_and_says_so_in_the_plan",
    ),
    # device
    Mutant(
        "a frame is waited for",
        "engine/device/line.py",
        "self._event.synchronize()",
        "pass",
        "tests/device/test_asynchronous.py::test_frames_under_way_are_right",
    ),
    Mutant(
        "a broken picture from a device is made anew",
        "engine/device/line.py",
        "return data[:count] if is_sound(data[count:].view(np.float32).tolist()) else None",
        "return data[:count]",
        "tests/device/test_device_jobs.py::test_pictures_that_are_broken_in_half_precision_are_made_anew",
    ),
    Mutant(
        "whole codes stand between the camera's passes",
        "engine/device/camera.py",
        "between=lambda first: _codes(first, top),",
        "between=lambda first: first.sub_(0.5),",
        "tests/device/test_device_camera.py::test_a_rectangle_is_sampled_as_on_the_host",
    ),
    Mutant(
        "chroma lies where the stream has it, on a device too",
        "engine/device/colour.py",
        "{1: (0, 128), 2: (128, 128),",
        "{1: (128, 128), 2: (128, 128),",
        "tests/device/test_planes.py::test_rgb_of_planes",
    ),
    Mutant(
        "a window of a turned picture is the one that is seen",
        "engine/source/planes.py",
        "if turned.flip_x:",
        "if turned.flip_y:",
        "tests/device/test_planes.py::test_windows_of_turned_and_mirrored_pictures",
    ),
    # plan
    Mutant(
        "a rounded time shows its own frame",
        "engine/plan/plan.py",
        'np.searchsorted(times, wanted + slack, side="right") - 1',
        'np.searchsorted(times, wanted - slack, side="right") - 1',
        "tests/plan/test_plan.py::test_at_its_own_rate_every_frame_is_shown_once",
    ),
    Mutant(
        "a cut is on the frame that its rounded time means",
        "engine/plan/camera_time.py",
        "return min(rounding + self.rounded + NOTICED, self.usual / 4)",
        "return 0.0",
        "tests/plan/test_camera_time.py::test_rounded_times_mean_the_frame",
    ),
    Mutant(
        "the camera moves over a slide",
        "engine/plan/camera_time.py",
        "return np.where(np.repeat(long, count), np.maximum(wanted, begin), begin)",
        "return begin",
        "tests/plan/test_camera_time.py::test_the_camera_moves_over_a_slide",
    ),
    Mutant(
        "sound that is stretched is encoded anew",
        "engine/plan/tracks.py",
        "        time_map.is_uniform\n        and time_map.start == 0",
        "        time_map.start == 0",
        "tests/plan/test_tracks.py::test_audio_that_is_cut_or_stretched_is_encoded_anew",
    ),
    # workspace, and the files under it
    Mutant(
        "what appeared during the job is not overwritten",
        "engine/files.py",
        "os.link(finished, output)",
        "finished.replace(output)",
        "tests/workspace/test_job_files.py::test_what_appears_during_the_job_is_not_overwritten",
    ),
    Mutant(
        "a result of other chunks or encoders is made again",
        "engine/workspace/fingerprint.py",
        "repr((plan.geometry, plan.rate, plan.encoder, plan.chunks, _network_without_name(plan), plan.container)),",
        "repr((plan.geometry, plan.rate, plan.chunks, _network_without_name(plan), plan.container)),",
        "tests/workspace/test_update.py::test_a_changed_setting_makes_it_again",
    ),
    # pipeline
    Mutant(
        "a frame is shown from its own time on",
        "engine/pipeline/chunks.py",
        "while outputs and plan.pts(outputs[0][1]) <= frame.pts:",
        "while outputs and plan.pts(outputs[0][1]) < frame.pts:",
        "tests/pipeline/test_frames.py::test_one_frame",
    ),
    # output
    Mutant(
        "a file with too few frames is not published",
        "engine/output/verify.py",
        "if len(video) != plan.frames:",
        "if len(video) > plan.frames:",
        "tests/output/test_verify.py::test_a_picture_that_was_planned_otherwise_is_refused",
    ),
    Mutant(
        "a file with damaged frames is not published",
        "engine/output/verify.py",
        "        _check_pictures(path, plan, full=full, on_progress=on_progress, should_stop=should_stop)\n",
        "",
        "tests/output/test_verify.py::test_frames_that_cannot_be_decoded_are_refused",
    ),
    # worker
    Mutant(
        "no more is fetched than was asked for",
        "engine/worker/links.py",
        "    if len(answer) > most:\n        raise",
        "    if len(answer) > most + 99:\n        raise",
        "tests/worker/test_links.py::test_more_than_the_most_is_refused",
    ),
    Mutant(
        "bytes of two versions make no file",
        "engine/worker/ranged_file.py",
        "(self.size is not None and total != self.size) or replaced",
        "self.size is not None and total != self.size",
        "tests/worker/test_ranged_file.py::test_a_file_that_changes_between_two_reads_is_an_error",
    ),
    # storage
    Mutant(
        "no result lies where clean-up removes it",
        "engine/storage/settings.py",
        "if key.startswith((JOBS_PREFIX, TRIALS_PREFIX)):",
        "if key.startswith(TRIALS_PREFIX):",
        "tests/storage/test_bucket.py::TestNames::test_no_address_lies_where_clean_up_would_remove_what_is_stored_there",
    ),
    Mutant(
        "unfinished uploads of a job go with it",
        "engine/storage/cleanup.py",
        'found.extend(_Remnant(key=item["Key"], upload_id=item["UploadId"]) for item in uploads)',
        'found.extend(_Remnant(key=item["Key"], upload_id=item["UploadId"]) for item in list(uploads)[:0])',
        "tests/storage/test_bucket.py::TestCleanUp::test_all_of_a_job_goes_unfinished_uploads_included_and_nothing_else",
    ),
    # runners
    Mutant(
        "progress never goes back",
        "engine/runners/progress.py",
        "        now = self._clock()\n        self._frame = max(frame, self._frame)",
        "        now = self._clock()\n        self._frame = frame",
        "tests/runners/test_progress.py::test_whatever_is_reported_progress_never_goes_back_or_beyond_its_total",
    ),
    # remote
    Mutant(
        "pauses between tries double",
        "engine/remote/pieces.py",
        "piece.due = now + FIRST_PAUSE_S * 2 ** (piece.starts - 1)",
        "piece.due = now + FIRST_PAUSE_S",
        "tests/remote/test_pieces.py::test_a_crash_is_tried_again_after_pauses_that_double_and_then_given_up",
    ),
    Mutant(
        "no call is begun that would bring the job above its bound",
        "engine/remote/spending.py",
        "            return self._budget.allows(self, self.commitment(frames, at))",
        "            return True",
        "tests/remote/test_spending.py::test_a_job_that_takes_longer_begins_nothing_that_would_bring_it_above_the_most",
    ),
    Mutant(
        "idle time is paid",
        "engine/remote/spending.py",
        "        return self.start + self.last - self.first + IDLE_S",
        "        return self.start + self.last - self.first",
        "tests/remote/test_spending.py::test_a_container_is_paid_from_its_start_to_the_end_of_its_idle_time",
    ),
    Mutant(
        "a container that dies costs a try and not the job",
        "engine/remote/modal_errors.py",
        'CallEnd.CRASHED, f"a container failed',
        'CallEnd.FAILED, f"a container failed',
        "tests/end_to_end/test_remote_faults.py::"
        "test_a_container_that_dies_in_the_middle_of_a_chunk_costs_only_time[forked]",
    ),
    Mutant(
        "a call is forgotten only once it ended",
        "engine/remote/dispatch.py",
        "        if news.outcome.ended:\n",
        "        if True:\n",
        "tests/end_to_end/test_remote_forgotten.py::"
        "test_calls_that_can_neither_be_followed_nor_cancelled_stay_known[forked]",
    ),
    Mutant(
        "a call whose acceptance was lost stays known",
        "engine/remote/dispatch.py",
        "starting=(*self._state.starting, anew)",
        "starting=self._state.starting",
        "tests/end_to_end/test_remote_forgotten.py::"
        "test_a_call_whose_acceptance_was_lost_and_that_was_asked_for_anew_is_told_and_known[Ctrl-C]",
    ),
    Mutant(
        "no job is sent again beside its running calls",
        "engine/remote/run.py",
        "            if not has_calls and (",
        "            if (",
        "tests/end_to_end/test_remote_killed.py::"
        "test_a_job_of_which_objects_are_gone_is_not_sent_again_beside_its_running_calls",
    ),
    Mutant(
        "a job in another bucket is left as it is",
        "engine/remote/resumable.py",
        "            state = None  # of an earlier client",
        "            pass  # of an earlier client",
        "tests/end_to_end/test_remote_killed.py::"
        "test_a_job_in_another_bucket_is_left_as_it_is_where_its_work_folder_is_there[the same job]",
    ),
    Mutant(
        "where a job lies is kept until its objects are gone",
        "engine/remote/state.py",
        "            if staged is None:\n",
        "            if True:\n",
        "tests/end_to_end/test_remote_killed.py::"
        "test_a_job_that_could_not_be_removed_is_not_forgotten_by_who_looks_in_another_bucket",
    ),
    Mutant(
        "a call that lost its container waits for another",
        "engine/remote/dispatch.py",
        "                        piece.heard = None",
        "                        pass",
        "tests/end_to_end/test_remote_faults.py::"
        "test_calls_that_lost_their_containers_wait_like_those_that_never_had_one",
    ),
    Mutant(
        "what a container says is shown without links",
        "engine/remote/pieces.py",
        "if text is not None and without_links(text) == text",
        "if text is not None",
        "tests/remote/test_pieces.py::test_sentences_that_name_options_are_shown_without_links_and_in_one_line",
    ),
    Mutant(
        "decoders rest before they are freed",
        "engine/source/open.py",
        "            context.flush_buffers()",
        "            pass",
        "tests/source/test_frame_filters.py::"
        "test_jobs_of_one_process_that_look_at_their_sources_do_not_wait_for_each_other_for_ever",
    ),
    Mutant(
        "a damaged chunk is not joined",
        "engine/remote/staging.py",
        "sha256=made.sha256",
        "sha256=None",
        "tests/end_to_end/test_remote_faults.py::"
        "test_a_chunk_that_is_damaged_in_storage_is_made_again[forked-the same size]",
    ),
    # review
    Mutant(
        "a preview draws the rectangle where the camera is",
        "engine/review/pictures.py",
        "points = _points(corners(plan, plan.rects[frame][None])[0] * factor)",
        "points = _points(corners(plan, plan.rects[frame][None])[0] * factor + 2)",
        "tests/review/test_preview.py::test_the_rectangle_is_where_the_camera_is_to_a_pixel",
    ),
    Mutant(
        "a preview shows the cuts",
        "engine/review/camera_track.py",
        "[earlier.hold or earlier.time == later.time for",
        "[earlier.time == later.time for",
        "tests/review/test_preview.py::test_moments_are_keyframes_cuts_and_extremes_of_zoom",
    ),
    # batch
    Mutant(
        "a clip that nobody mends is tried once an hour",
        "engine/batch/retries.py",
        "wait = min(self._first_s * 2.0 ** min(times - 1, 32), MOST_AGAIN_S)",
        "wait = self._first_s * 2.0 ** min(times - 1, 32)",
        "tests/batch/test_retries.py::test_it_takes_twice_as_long_each_time_and_an_hour_at_most",
    ),
    Mutant(
        "names that are one on some systems are one",
        "engine/batch/outputs.py",
        'return unicodedata.normalize("NFC", name).casefold()',
        "return name.casefold()",
        "tests/batch/test_inputs.py::test_names_that_are_one_on_some_systems_are_one_here",
    ),
    Mutant(
        "a worker has a GPU of its own",
        "engine/batch/pool.py",
        "min(self._gpus, key=taken.count)",
        "self._gpus[number % len(self._gpus)]",
        "tests/batch/test_gpus.py::test_a_worker_that_follows_a_dead_one_takes_its_gpu",
    ),
    # cli
    Mutant(
        "a name cannot drive the terminal",
        "cli/terminal.py",
        'return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)',
        "return text",
        "tests/cli/test_terminal.py::test_a_name_cannot_drive_the_terminal",
    ),
    # settings
    Mutant(
        "inputs beside different presets need a decision",
        "engine/settings.py",
        "    if found and without:\n",
        "    if False:\n",
        "tests/ground/test_settings.py::test_inputs_beside_different_presets_need_a_decision",
    ),
    Mutant(
        "a neighbour's sample counts only where it agrees",
        "engine/source/steady.py",
        "        ones = agrees.astype(np.int16)\n",
        "        ones = np.ones_like(centre)\n",
        "tests/source/test_steady.py::test_a_bright_thing_that_moves_leaves_no_ghost",
    ),
    Mutant(
        "a look between two mixes by its distance from the lower one",
        "engine/models/looks.py",
        "    blend = (share - below.share) / (above.share - below.share)\n",
        "    blend = share\n",
        "tests/models/test_look.py::test_a_look_between_mixes_the_weights_beside_it",
    ),
    Mutant(
        "a part of the network's picture is mixed with the source's",
        "engine/pipeline/chunks.py",
        "    return mixed(sample(_seen(group), group.window, 1, *how), shown, plan.strength)\n",
        "    return mixed(shown, shown, plan.strength)\n",
        "tests/models/test_look.py::test_a_part_of_the_network_s_picture",
    ),
    Mutant(
        "windows of an ONNX network have all of its context",
        "engine/models/foreign.py",
        "            halo=halo,\n",
        "            halo=halo // 2,\n",
        "tests/models/test_foreign.py::test_context_and_cells_are_those_of_the_convolutions",
    ),
    Mutant(
        "packets of a later recording are in the first one's time base",
        "engine/source/continued.py",
        "                    setattr(packet, name, round(value * base / stream.time_base))\n",
        "                    setattr(packet, name, value)\n",
        "tests/source/test_appended.py::test_another_clock_and_another_size",
    ),
)


def main() -> int:
    """Try the chosen faults; 1 where one is not caught."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="in the file's name or in what is broken; without, all of them")
    words = parser.parse_args().words
    chosen = [one for one in MUTANTS if not words or any(word in one.file or word in one.breaks for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="keyscale-mutants-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, copy / name)
        # What fails anyhow would catch everything.
        if code := _run([one.test for one in chosen], copy):
            print(f"the tests fail without any fault (pytest ends with {code})")
            return 1
        for mutant in chosen:
            began = time.monotonic()
            found = _try(mutant, copy)
            missed += found != "caught"
            print(f"{found:10} {time.monotonic() - began:5.0f} s  {mutant.file}: {mutant.breaks}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} are caught")
    return 1 if missed else 0


def _try(mutant: Mutant, copy: Path) -> str:
    """`caught`, or what went otherwise."""
    path = copy / mutant.file
    before = path.read_text(encoding="utf-8")
    if before.count(mutant.old) != 1:
        return "not there"
    path.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return {FAILED: "caught", PASSED: "MISSED"}.get(_run([mutant.test], copy), "no test")
    finally:
        path.write_text(before, encoding="utf-8")


def _run(tests: Sequence[str], copy: Path) -> int:
    # Before the checkout, which an editable installation names. No byte code: a file may be changed twice a second.
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        environment.setdefault("KEYSCALE_SHARED", str(shared))
    # `not slow`: what only `make test-full` would catch does not count.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    done = subprocess.run(  # noqa: S603 - pytest, with the names of tests that stand above
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
