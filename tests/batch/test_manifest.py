"""Manifests: what CSV and JSON Lines may say, what is refused at once, and the jobs that come of them."""

from __future__ import annotations

import codecs
import json
import os
import random
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from keyscale.cli.batch_jobs import batch_clips
from keyscale.cli.options import job_options
from keyscale.engine.batch import manifest
from keyscale.engine.batch.clip import BatchClip, Clip
from keyscale.engine.batch.inputs import find_clips
from keyscale.engine.batch.manifest import MAX_ROWS, columns_of, read_manifest
from keyscale.engine.batch.outputs import Places
from keyscale.engine.errors import InputError, KeyscaleError, UsageError
from keyscale.engine.job import Codec, Mode


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes, name: str = "list.csv") -> tuple[Clip, ...]:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(path)


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# What it says


def test_a_row_names_video_keyframes_output_and_flags() -> None:
    [clip] = read("video,keyframes,output,size,fps\na.mp4,k/a.json,best/a.mp4,720x1280,29.97\n", "in/list.csv")
    assert clip == Clip(
        name="a.mp4",
        video=Path("in/a.mp4"),
        keyframes=Path("in/k/a.json"),
        stem=Path("a"),
        output=Path("best/a.mp4"),
        options={"size": "720x1280", "fps": "29.97"},
        where="in/list.csv: line 2",
    )


def test_json_lines_say_the_same_with_types() -> None:
    row = {"video": "a.mp4", "keyframes": None, "output": "b", "crf": 18, "no_audio": True, "denoise": 0.5, "end": "9"}
    [clip] = read("\n" + lines(row), "list.jsonl")
    assert (clip.video, clip.keyframes, clip.output) == (Path("a.mp4"), None, Path("b"))
    assert clip.options == {"crf": 18, "no-audio": True, "denoise": 0.5, "end": "9"}
    assert clip.where == "list.jsonl: line 2"


@pytest.mark.parametrize(
    "text",
    [
        'Video,NO-Audio\n"a, b.mp4",yes\n',
        'video,no_audio\r\n"a, b.mp4",yes\r\n',
        '\ufeffvideo, no-audio\n"a, b.mp4", yes',
        'video,no-audio,,\n\n"a, b.mp4",yes,,\n,,,\n',
        'video,no-audio\n"a, b.mp4",yes,,,\n',
        '"video","no-audio"\n"a, b.mp4","yes"\n',
    ],
)
def test_what_spreadsheets_write_is_read(text: str) -> None:
    [clip] = read(text)
    assert (clip.video, clip.options, clip.fault) == (Path("a, b.mp4"), {"no-audio": "yes"}, None)


def test_quoted_cells_may_hold_line_ends_and_the_lines_are_still_counted_right() -> None:
    first, second = read('video,model\n"new\nline.mp4",\n" a ""b"".mp4",x\n')
    assert (first.video, first.where) == (Path("new\nline.mp4"), "list.csv: line 2")
    assert (second.video, second.where) == (Path(' a "b".mp4'), "list.csv: line 4")


def test_names_that_are_not_utf8_can_be_written_in_json() -> None:
    [clip] = read(b'{"video": "caf\\udce9.mp4"}\n', "list.jsonl")
    assert os.fsencode(clip.video) == b"caf\xe9.mp4"


def test_paths_are_beneath_the_manifest_and_may_lie_elsewhere() -> None:
    clips = read("video\nsub/a.mp4\n../b.mp4\n/videos/c.mp4\n", "in/list.csv")
    assert [clip.video for clip in clips] == [Path("in/sub/a.mp4"), Path("in/../b.mp4"), Path("/videos/c.mp4")]
    assert [clip.stem for clip in clips] == [Path("sub/a"), Path("b"), Path("c")]


def test_a_checkpoint_is_looked_for_beneath_the_manifest_and_a_models_name_is_left_alone() -> None:
    clips = read("video,model\na.mp4,nets/mine.pth\nb.mp4,mine.safetensors\nc.mp4,RealESRGAN_x4plus\n", "in/list.csv")
    models = [clip.options["model"] for clip in clips]
    assert models == ["in/nets/mine.pth", "in/mine.safetensors", "RealESRGAN_x4plus"]


def test_a_video_named_more_than_once_is_told_apart_by_its_line() -> None:
    clips = read("video,output\na.mp4,x\nb.mp4,\na.mp4,y\n")
    assert [clip.name for clip in clips] == ["a.mp4 (line 2)", "b.mp4", "a.mp4 (line 4)"]


# Rows that are wrong by themselves


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("a.mp4", "1 cells, the header has 3"),
        ("a.mp4,,,x", "a cell stands beyond the columns that have a name"),
        (",k.json,", "no video is named"),
        ("a.mp4,,sub/", "output 'sub/' is a folder"),
        ("a.mp4,," + "x" * 5000, "output has more than 4096 characters"),
        ("x" * 5000 + ",,", "video has more than 4096 characters"),
    ],
)
def test_a_wrong_row_of_csv_is_a_fault_of_that_row(row: str, why: str) -> None:
    fine, wrong, other = read(f"video,keyframes,output\nfine.mp4,,\n{row}\nother.mp4,,\n")
    assert (fine.fault, other.fault) == (None, None)
    assert wrong.fault is not None
    assert wrong.fault.message == f"list.csv: line 3: {why}"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{"video": "a.mp4"', "not JSON: Expecting ',' delimiter at column 18"),
        ("nothing", "not JSON: Expecting value at column 1"),
        ('["a.mp4"]', "a list where an object should be"),
        ("null", "null where an object should be"),
        ("{}", "no video is named"),
        ('{"video": 5}', "video is 5, it must be text"),
        ('{"video": "a.mp4", "keyframes": ["k"]}', "keyframes is a list, it must be text"),
        ('{"video": "a.mp4", "size": {"w": 1}}', "size is an object, it must be text, a number, true or false"),
        ('{"video": "a.mp4", "crf": NaN}', "not JSON: NaN is not a number of JSON"),
        ('{"video": "a.mp4", "crf": 1' + "0" * 5000 + "}", "not JSON: Exceeds the limit"),
        ('{"video": "a.mp4", "fps": 1, "fps": 2}', "fps is given twice"),
        ('{"video": "a\\u0000.mp4"}', "video holds a zero byte"),
        ('{"video": "a.mp4", "preset": "\\u0000"}', "preset holds a zero byte"),
        ('{"video": "a\\ud800.mp4"}', "is not a file name"),
    ],
)
def test_a_wrong_line_of_json_is_a_fault_of_that_line(row: str, why: str) -> None:
    fine, wrong, other = read(f'{{"video": "fine.mp4"}}\n{row}\n{{"video": "other.mp4"}}\n', "list.ndjson")
    assert (fine.fault, other.fault) == (None, None)
    assert wrong.fault is not None
    assert wrong.fault.message.startswith("list.ndjson: line 2: ")
    assert why in wrong.fault.message


# Manifests that are wrong as a whole


@pytest.mark.parametrize(
    ("text", "why", "remedy"),
    [
        ("video,sise\na.mp4,1x1\n", "line 1: unknown column 'sise'", "Did you mean size?"),
        ("video,colour\na.mp4,red\n", "line 1: unknown column 'colour'", "Known: video, keyframes, output, bit-depth"),
        ("video,remote\na.mp4,1\n", "remote holds for a whole batch", "Give --remote on the command line."),
        ("video,Keyframes_Dir\na.mp4,1\n", "keyframes-dir holds for a whole batch", "--keyframes-dir"),
        ("video,fps,FPS\na.mp4,1,2\n", "the column fps is there 2 times", "Keep one"),
        ("a.mp4,a.json\n", "no column is named video", "The first row names the columns"),
        ("video;keyframes\na.mp4;a.json\n", "not separated by commas", "with commas"),
        ("", "has no header", "The first row"),
        ("\n\n", "has no header", "The first row"),
        ("video,fps\n", "names no video", "a row for each"),
        ('video\n"a.mp4\n', "not CSV", "Quotation marks"),
        ('video\n"a"b.mp4\n', "line 2: not CSV", "Quotation marks"),
        ("video\nb\0.mp4\n", "line 2 holds a zero byte", "UTF-8"),
        (b"video\ncaf\xe9.mp4\n", "line 2 is not UTF-8", "Save the file as UTF-8."),
        ("video\na.mp4\n".encode("utf-16"), "line 1 holds a zero byte", "UTF-8"),
    ],
)
def test_csv_that_is_wrong_as_a_whole_is_refused(text: str | bytes, why: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        read(text)
    assert "list.csv" in caught.value.message
    assert remedy in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"video": "a.mp4"}\n{"video": "b.mp4", "sise": 1}\n', "line 2: unknown column 'sise'"),
        ('{"video": "a.mp4", "progress": "none"}\n', "line 1: progress holds for a whole batch"),
        ("[" * 10_000 + "]" * 10_000, "line 1: lists or objects are nested too deeply"),
        ('{"video": ' + '{"a":' * 10_000 + "1" + "}" * 10_001, "line 1: lists or objects are nested too deeply"),
        (b'{"video": "\xff"}\n', "line 1 is not UTF-8"),
        ("", "names no video"),
    ],
)
def test_json_lines_that_are_wrong_as_a_whole_are_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read(text, "list.jsonl")


READ = """
import resource, sys, time
from pathlib import Path
from keyscale.engine.batch.manifest import read_manifest
from keyscale.engine.errors import UsageError
peak, began = (lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024), time.process_time()
before = peak()
try:
    read_manifest(Path(sys.argv[1]))
except UsageError as error:
    print(peak() - before, time.process_time() - began, error.message)
"""
"""Prints MiB and CPU seconds that it took, and the refusal."""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("list.csv", "one line", "is longer than 1 MiB"),
        ("list.jsonl", "one line", "is longer than 1 MiB"),
        ("list.csv", "endless zeros", "is longer than 1 MiB"),
        ("list.csv", "long lines", "is larger than 64 MiB"),
        ("list.jsonl", "long lines", "is larger than 64 MiB"),
        ("list.csv", "empty lines", "has more than 1000000 lines"),
        ("list.csv", "one quoted cell", "field larger than field limit"),
        ("list.csv", "cells without end", "is longer than 1 MiB"),
        pytest.param("list.csv", "short rows", "has more than 100000 rows", marks=pytest.mark.slow),
        pytest.param("list.jsonl", "short rows", "has more than 100000 rows", marks=pytest.mark.slow),
    ],
)
def test_a_manifest_of_any_size_is_refused_within_little_memory_and_time(name: str, kind: str, why: str) -> None:
    row = b'{"video":"a.mp4"}\n' if name.endswith("jsonl") else b"a.mp4\n"
    with Path(name).open("wb") as file:
        file.write(b"video\n" if name.endswith("csv") else row)
        match kind:
            case "one line":
                file.writelines([b"x" * 2**20] * 100)
            case "endless zeros":
                file.truncate(2**33)
            case "long lines":
                file.writelines([row[:-1] + b" " * 60_000 + b"\n"] * 1200)
            case "empty lines":
                file.writelines([b"\n" * 2**20] * 3)
            case "one quoted cell":
                file.write(b'"')
                file.writelines([b"a.mp4,\n" * 2**17] * 8)
            case "cells without end":
                file.writelines([b'"a\n",' * 2**17] * 8)
            case _:
                file.writelines([row * 1000] * (MAX_ROWS // 1000 + 1))
    done = subprocess.run([sys.executable, "-c", READ, name], capture_output=True, text=True, check=True, timeout=120)
    mebibytes, seconds, message = done.stdout.split(" ", 2)
    assert re.search(why, message)
    assert int(mebibytes) < 250
    assert float(seconds) < 20


def test_as_many_rows_as_are_allowed_are_read_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_ROWS", 20)
    assert len(read("video\n" + "a.mp4\n" * 20)) == 20
    with pytest.raises(UsageError, match="has more than 20 rows"):
        read("video\n" + "a.mp4\n" * 21)


@pytest.mark.parametrize("name", ["nowhere.csv", "folder.csv"])
def test_a_manifest_that_cannot_be_read_is_named(name: str) -> None:
    Path("folder.csv").mkdir()
    with pytest.raises(UsageError, match=f"cannot read {name}"):
        read_manifest(Path(name))


def test_damaged_manifests_end_in_clips_or_in_a_clean_error() -> None:
    sound = {
        "list.csv": b'video,keyframes,output,size,no-audio\n"a, b.mp4",a.json,x/y.mp4,720x1280,yes\nc.mp4,,,,\n' * 3,
        "list.jsonl": lines({"video": "a.mp4", "crf": 18}, {"video": "b.mp4", "output": "x", "fps": 30}).encode() * 3,
    }
    rng = random.Random(5)
    outcomes = {"clips": 0, "refused": 0}
    for turn in range(600):
        name = ("list.csv", "list.jsonl")[turn % 2]
        data = bytearray(sound[name])
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[place] = rng.randrange(256)
                case 1:
                    del data[place : place + rng.randint(1, 20)]
                case 2:
                    data[place:place] = rng.choice([b'"', b",", b"\n", b"\r", b"{", b"]", b"\\u0000", b"../", b"NaN"])
                case _:
                    data[place:place] = data[: rng.randint(1, 60)]
        try:
            clips = read(bytes(data), name)
        except UsageError as error:
            assert name in error.message
            outcomes["refused"] += 1
        else:
            assert clips
            assert all(clip.fault is None or "line" in clip.fault.message for clip in clips)
            batch_clips(clips, output_dir=Path("out"), flags={})
            outcomes["clips"] += 1
    assert min(outcomes.values()) > 50, outcomes


# As the inputs of a batch


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")


def test_rows_without_keyframes_take_those_beside_the_video() -> None:
    touch("in/a.mp4", "in/a.json", "in/b.mp4", "k.json", "in/c.mp4")
    read("video,keyframes\na.mp4,\nb.mp4,../k.json\nc.mp4,\ngone.mp4,\n", "in/list.csv")
    a, b, c, gone = find_clips(["in/list.csv"], output_dir="out")
    assert (a.keyframes, b.keyframes) == (Path("in/a.json"), Path("in/../k.json"))
    assert c.fault is not None
    assert c.fault.message.startswith("in/list.csv: line 4: no keyframes file: neither in/c.json")
    assert isinstance(gone.fault, InputError)
    assert gone.fault.message == "in/list.csv: line 5: cannot read in/gone.mp4: no such file"
    assert not find_clips(["in/list.csv"], output_dir="out", whole_frame=True)[2].fault


def test_a_folder_of_keyframes_holds_for_a_manifest_too() -> None:
    touch("in/day/a.mp4", "in/day/a.json", "k/day/a.json")
    read("video\nday/a.mp4\n", "in/list.csv")
    [clip] = find_clips(["in/list.csv"], output_dir="out", keyframes_dir="k")
    assert clip.keyframes == Path("k/day/a.json")


def test_a_manifest_beside_videos_is_one_input_among_others_and_is_not_looked_for_in_folders() -> None:
    touch("in/a.mp4", "in/b.mp4")
    read("video,output\na.mp4,first\na.mp4,second\n", "in/list.CSV")
    names = [clip.name for clip in find_clips(["in/list.CSV", "in"], output_dir="out", whole_frame=True)]
    assert names == ["a.mp4 (line 2)", "a.mp4 (line 3)", "in/b.mp4"]


# The jobs


def jobs(text: str, name: str = "in/list.csv", **flags: Any) -> tuple[BatchClip, ...]:
    read(text, name)
    touch("in/a.mp4", "in/b.mp4", "in/c.mp4")
    clips = find_clips([name], output_dir="out", whole_frame=True)
    return batch_clips(clips, output_dir=Path("out"), flags=flags)


def test_flags_of_the_terminal_and_of_the_batch_are_no_columns() -> None:
    per_clip = {name for name, each in job_options().items() if each.key in columns_of()}
    assert {"size", "crf", "audio", "keep_going_on_decode_errors"} < per_clip
    assert not {"video", "keyframes", "output", "overwrite", "resume", "remote", "offline", "quiet"} & per_clip


def test_a_clips_own_flags_win_over_the_batchs() -> None:
    own, batch = jobs(
        "video,size,mode,fps,no-audio,chunk-seconds\na.mp4,720x1280,QUALITY,source,yes,2\nb.mp4,,,,,\n",
        size=(640, 360),
        mode=Mode.FAST,
        fps=Fraction(25),
        audio=True,
        crf=20,
    )
    assert own.job is not None
    assert batch.job is not None
    assert (own.job.target.width, own.job.target.rate, own.job.model.mode) == (720, None, Mode.QUALITY)
    assert (own.job.encoding.audio, own.job.chunk_seconds, own.job.encoding.crf) == (False, 2.0, 20)
    assert (batch.job.target.width, batch.job.target.rate, batch.job.model.mode) == (640, Fraction(25), Mode.FAST)
    assert (batch.job.encoding.audio, batch.job.chunk_seconds) == (True, 8.0)
    where = "in/list.csv: line 2"
    assert own == BatchClip(
        name="a.mp4", video="in/a.mp4", keyframes=None, output="out/a.mp4", job=own.job, where=where
    )
    assert (own.job.source, own.job.output, own.job.update) == ("in/a.mp4", "out/a.mp4", True)


def test_json_types_mean_what_the_text_would() -> None:
    text = lines(
        {"video": "a.mp4", "fps": 29.97, "start": 2, "crf": 18.0, "no-audio": True, "tile": 256, "denoise": 1},
        {
            "video": "b.mp4",
            "fps": "29.97",
            "start": "2",
            "crf": "18",
            "no-audio": "true",
            "tile": "256",
            "denoise": "1",
        },
    )
    typed, written = jobs(text, "in/list.jsonl")
    assert typed.job is not None
    assert written.job is not None
    for part in ("target", "trim", "encoding", "model", "compute"):
        assert getattr(typed.job, part) == getattr(written.job, part)
    assert (typed.job.target.rate, typed.job.trim.start, typed.job.encoding.crf) == (Fraction(30000, 1001), 2.0, 18)


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("size", "big", "size 'big' is not a size"),
        ("mode", "slow", "mode 'slow' is not one of 'fast', 'quality'"),
        ("crf", "best", "crf 'best' is not a whole number"),
        ("crf", 18.5, "crf '18.5' is not a whole number"),
        ("crf", 99, "crf 99 is out of range"),
        ("no-audio", "maybe", "no-audio 'maybe' is neither true nor false"),
        ("no-audio", 2, "no-audio must be true or false, not 2"),
        ("size", True, "size must be text or a number, not True"),
        ("end", "1:99", "end '1:99' is not a time"),
        ("device", "tpu", "device 'tpu' is not a device"),
        ("chunk-seconds", 0, "chunk-seconds 0.0 is out of range"),
    ],
)
def test_a_wrong_value_is_a_fault_that_names_line_and_flag(option: str, value: object, why: str) -> None:
    wrong, fine = jobs(lines({"video": "a.mp4", option: value}, {"video": "b.mp4"}), "in/list.jsonl")
    assert isinstance(wrong.fault, UsageError)
    assert wrong.fault.message.startswith(f"in/list.jsonl: line 1: {option} ")
    assert why in wrong.fault.message
    assert wrong.job is None
    assert fine.job is not None


def test_a_video_that_a_manifest_names_is_the_manifests_wherever_else_it_is_found() -> None:
    """As of a shell's `in/*`, which names the manifest after the videos."""
    touch("in/a.mp4", "in/b.mp4", "x/c.mp4")
    read("video,output\n../in/a.mp4,first\n../x/c.mp4,\n", "in/list.csv")
    clips = find_clips(["in/a.mp4", "in/b.mp4", "in/list.csv", "x"], output_dir="out", whole_frame=True)
    assert [(clip.name, clip.output) for clip in clips] == [
        ("in/b.mp4", None),
        ("../in/a.mp4", Path("first")),
        ("../x/c.mp4", None),
    ]


@pytest.mark.parametrize("name", ["r2://bucket/a.mp4", "s3://bucket/a.mp4"])
def test_an_address_in_storage_is_no_output_of_a_clip(name: str) -> None:
    [wrong] = jobs(f"video,output\na.mp4,{name}\n")
    assert wrong.fault is not None
    assert wrong.fault.message == f"in/list.csv: line 2: output {name!r} is no file"


def test_an_output_within_hundreds_of_folders_is_refused() -> None:
    deep, fine = jobs(f"video,output\na.mp4,{'d/' * 1500}a\nb.mp4,{'d/' * 100}b\n")
    assert fine.fault is None
    assert deep.fault is not None
    assert "in/list.csv: line 2: the output is within 1500 folders" in deep.fault.message


def test_values_that_contradict_each_other_are_a_fault_that_names_the_line() -> None:
    [wrong] = jobs("video,codec,crf,end\na.mp4,h264,60,5\n")
    assert wrong.fault is not None
    assert wrong.fault.message == "in/list.csv: line 2: --crf 60 is out of range for --codec h264"
    [wrong] = jobs("video,end\na.mp4,5\n", start=7.0)
    assert wrong.fault is not None
    assert wrong.fault.message == "in/list.csv: line 2: --end 5 is not after --start 7"


def test_flags_that_are_wrong_for_all_clips_are_an_error_of_the_batch() -> None:
    with pytest.raises(UsageError, match="--end 5 is not after --start 7"):
        jobs("video\na.mp4\n", start=7.0, end=5.0)


def test_results_have_the_suffix_of_their_codec() -> None:
    first, second, third = jobs("video,codec,output\na.mp4,prores,\nb.mp4,,\nc.mp4,h264,x/c.mkv\n", codec=Codec.HEVC)
    assert [each.output for each in (first, second, third)] == ["out/a.mov", "out/b.mp4", "out/x/c.mkv"]
    assert first.job is not None
    assert first.job.encoding.codec is Codec.PRORES


def test_places_that_cannot_be_are_faults_of_their_rows() -> None:
    rows = "video,output\na.mp4,../x\nb.mp4,/etc/x\nc.mp4,same\na.mp4,SAME.mp4\nb.mp4,fine\n"
    *faulty, fine = jobs(rows)
    messages = [each.fault.message for each in faulty if isinstance(each.fault, KeyscaleError)]
    assert [message.partition(": the ")[0] for message in messages] == [f"in/list.csv: line {n}" for n in (2, 3, 4, 5)]
    assert "in/list.csv: line 5 too" in messages[2]
    assert "in/list.csv: line 4 too" in messages[3]
    assert fine.job is not None


def test_clips_that_come_later_see_what_is_taken() -> None:
    touch("in/a.mp4", "in/b.mov", "more/a.mov")
    places = Places(Path("out"))
    [first] = batch_clips(
        find_clips(["in/a.mp4"], output_dir="out", whole_frame=True), output_dir=Path("out"), flags={}, places=places
    )
    later = find_clips(["more", "in/b.mov"], output_dir="out", whole_frame=True)
    clash, fine = batch_clips(later, output_dir=Path("out"), flags={}, places=places)
    assert first.job is not None
    assert clash.fault is not None
    assert fine.job is not None


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert (manifest.MAX_BYTES, manifest.MAX_ROWS, codecs.BOM_UTF8) == (64 * 2**20, 100_000, b"\xef\xbb\xbf")
