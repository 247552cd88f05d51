"""Which clips a batch has: folders, patterns, odd names, where results go, and files that are still growing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from keyscale.engine.batch.clip import Clip
from keyscale.engine.batch.inputs import find_clips, folder_of
from keyscale.engine.batch.outputs import Places, place
from keyscale.engine.batch.watch import Watch
from keyscale.engine.errors import FramingError, InputError, UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, so that paths in tests are as short as those that people write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str | bytes, content: str = "x") -> None:
    for name in names:
        path = Path(os.fsdecode(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def videos(clips: Iterable[Clip]) -> list[str]:
    return [str(clip.video) for clip in clips]


def find(*paths: str, **more: object) -> tuple[Clip, ...]:
    return find_clips(paths, **{"output_dir": "out", "whole_frame": True} | more)  # type: ignore[arg-type]


# A video and its keyframes


@pytest.mark.parametrize("name", ["talk.json", "talk.keyframes.json"])
def test_a_video_belongs_to_the_keyframes_beside_it(name: str) -> None:
    touch("in/talk.mp4", f"in/{name}", "in/other.json")
    [clip] = find("in", whole_frame=False)
    assert clip == Clip(name="talk.mp4", video=Path("in/talk.mp4"), keyframes=Path("in", name), stem=Path("talk"))


def test_two_keyframes_files_for_a_video_are_its_fault() -> None:
    touch("in/talk.mp4", "in/talk.json", "in/talk.keyframes.json")
    [clip] = find("in")
    assert isinstance(clip.fault, FramingError)
    assert clip.fault.message == "both in/talk.json and in/talk.keyframes.json are there"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".cmd"])
def test_keyframes_of_another_format_are_taken_where_there_is_no_json(suffix: str) -> None:
    touch("in/talk.mp4", f"in/talk{suffix}", "in/talk.txt", "in/talk.srt", f"in/other{suffix}")
    [clip] = find("in", whole_frame=False)
    assert (clip.fault, clip.keyframes) == (None, Path(f"in/talk{suffix}"))
    touch("in/talk.json")
    [clip] = find("in", whole_frame=False)
    assert (clip.fault, clip.keyframes) == (None, Path("in/talk.json"))


def test_two_keyframes_files_of_other_formats_are_the_videos_fault() -> None:
    touch("in/talk.mp4", "in/talk.jsonl", "in/talk.csv")
    [clip] = find("in")
    assert isinstance(clip.fault, FramingError)
    assert clip.fault.message == "both in/talk.csv and in/talk.jsonl are there"


def test_what_is_no_format_of_keyframes_is_left_alone() -> None:
    touch("in/talk.mp4", "in/talk.txt", "in/talk.srt", "in/talk.keyframes.csv")
    [clip] = find("in", whole_frame=False)
    assert clip.fault is not None
    assert "or one ending in _keyframes.json, .camera.json, .csv, .jsonl or .cmd" in str(clip.fault.remedy)


@pytest.mark.parametrize(
    "name", ["talk_keyframes.json", "talk.camera.json", "TALK.JSON", "Talk_Keyframes.json", "talk.CSV"]
)
def test_other_names_and_any_case_are_found(name: str) -> None:
    touch("in/talk.mp4", f"in/{name}")
    [clip] = find("in")
    assert (clip.fault, clip.keyframes) == (None, Path("in") / name)


def test_the_usual_name_stands_above_others() -> None:
    touch("in/talk.mp4", "in/talk_keyframes.json", "in/TALK.json", "in/talk.json")
    [clip] = find("in")
    assert (clip.fault, clip.keyframes) == (None, Path("in/talk.json"))


def test_two_other_names_are_the_videos_fault() -> None:
    touch("in/talk.mp4", "in/talk_keyframes.json", "in/talk.camera.json")
    [clip] = find("in")
    assert isinstance(clip.fault, FramingError)
    assert clip.fault.message == "both in/talk_keyframes.json and in/talk.camera.json are there"


def test_keyframes_of_another_video_are_not_taken_for_their_case() -> None:
    touch("in/talk.mp4", "in/Talk.mp4", "in/Talk.json")
    if len(list(Path("in").iterdir())) < 3:
        pytest.skip("names differ by more than case here")
    clips = {clip.name: clip for clip in find("in")}
    assert clips["Talk.mp4"].keyframes == Path("in/Talk.json")
    assert clips["talk.mp4"].keyframes is None


def test_a_manifest_called_like_its_video_is_no_keyframes_file() -> None:
    touch("in/talk.mp4")
    touch("in/talk.csv", content="video,size\ntalk.mp4,64x64\n")
    [clip] = find("in/talk.csv", whole_frame=True)
    assert (clip.fault, clip.keyframes) == (None, None)


def test_a_video_without_keyframes_is_a_fault_of_that_clip_alone() -> None:
    touch("in/a.mp4", "in/b.mp4", "in/b.json")
    lone, paired = find("in", whole_frame=False)
    assert paired.fault is None
    assert isinstance(lone.fault, FramingError)
    assert lone.fault.message == "no keyframes file: neither in/a.json nor in/a.keyframes.json is there"
    assert "--whole-frame" in str(lone.fault.remedy)


def test_with_whole_frame_a_video_needs_no_keyframes_and_uses_those_that_are_there() -> None:
    touch("in/a.mp4", "in/b.mp4", "in/b.json")
    assert [(clip.keyframes, clip.fault) for clip in find("in")] == [(None, None), (Path("in/b.json"), None)]


def test_keyframes_may_lie_in_a_folder_of_their_own_with_the_same_subfolders() -> None:
    touch("in/a.mp4", "in/day/b.mp4", "in/a.json", "k/a.json", "k/day/b.keyframes.json")
    clips = find("in", keyframes_dir="k", recursive=True, whole_frame=False)
    assert [str(clip.keyframes) for clip in clips] == ["k/a.json", "k/day/b.keyframes.json"]


def test_a_folder_of_keyframes_that_is_not_there_is_refused() -> None:
    touch("in/a.mp4")
    with pytest.raises(UsageError, match="--keyframes-dir k is no folder"):
        find("in", keyframes_dir="k")


# Folders


def test_clips_come_in_the_order_that_people_expect() -> None:
    touch(*(f"in/{name}.mp4" for name in ("clip10", "Clip2", "clip1", "b", "2", "10", "A")))
    assert videos(find("in")) == [f"in/{name}.mp4" for name in ("2", "10", "A", "b", "clip1", "Clip2", "clip10")]


def test_subfolders_are_searched_only_if_that_is_asked_for() -> None:
    touch("in/a.mp4", "in/day 2/b.MOV", "in/day 10/b.mkv")
    assert videos(find("in")) == ["in/a.mp4"]
    clips = find("in", recursive=True)
    assert videos(clips) == ["in/a.mp4", "in/day 2/b.MOV", "in/day 10/b.mkv"]
    assert [clip.stem for clip in clips] == [Path("a"), Path("day 2/b"), Path("day 10/b")]
    assert [clip.name for clip in clips] == ["a.mp4", "day 2/b.MOV", "day 10/b.mkv"]


def test_hidden_files_work_folders_own_results_and_other_files_are_left_out() -> None:
    touch("in/a.mp4", "in/.b.mp4", "in/.a.mp4.keyscale/0/chunk-00000.mp4", "in/a.keyscale.mp4", "in/a.txt", "in/a")
    os.mkfifo("in/pipe.mp4")
    Path("in/folder.mp4").mkdir()
    Path("in/to_pipe.mp4").symlink_to("pipe.mp4")
    assert videos(find("in", recursive=True)) == ["in/a.mp4"]


def test_a_link_that_leads_nowhere_is_a_fault_of_that_clip() -> None:
    touch("in/a.mp4", "in/a.json", "in/gone.json")
    Path("in/gone.mp4").symlink_to("nowhere.mp4")
    Path("in/itself.mp4").symlink_to("itself.mp4")
    clips = {clip.name: clip.fault for clip in find("in")}
    assert clips["a.mp4"] is None
    for name in ("gone.mp4", "itself.mp4"):
        assert isinstance(clips[name], InputError)
        assert "a link that leads nowhere" in str(clips[name])


def test_results_in_an_output_folder_beneath_the_input_are_no_inputs() -> None:
    touch("in/a.mp4", "in/out/a.mp4", "in/out/deep/a.mp4", "in/outer/b.mp4")
    assert videos(find("in", output_dir="in/out", recursive=True)) == ["in/a.mp4", "in/outer/b.mp4"]
    Path("link").symlink_to("in/out")
    assert videos(find("in", output_dir="link", recursive=True)) == ["in/a.mp4", "in/outer/b.mp4"]
    assert videos(find("in/**/*.mp4", output_dir="in/out")) == ["in/a.mp4", "in/outer/b.mp4"]


@pytest.mark.parametrize("given", ["in", "in/*.mp4", "./x/../in"])
def test_the_input_folder_cannot_be_the_output_folder(given: str) -> None:
    touch("in/a.mp4", "x/y")
    with pytest.raises(UsageError, match="is both the input and the output folder") as caught:
        find(given, output_dir="in")
    assert "-o" in str(caught.value.remedy)


def test_loops_of_links_end_and_a_linked_folder_is_searched_once() -> None:
    touch("in/z/a.mp4")
    Path("in/z/up").symlink_to("..")
    Path("in/itself").symlink_to("itself")
    Path("in/again").symlink_to("z")
    touch("elsewhere/b.mp4")
    Path("in/linked").symlink_to("../elsewhere")
    Path("in/twice").symlink_to("../elsewhere")
    assert videos(find("in", recursive=True)) == ["in/linked/b.mp4", "in/z/a.mp4"]


def test_a_link_to_a_video_is_a_video() -> None:
    touch("elsewhere/b.mp4")
    Path("in").mkdir()
    Path("in/a.mp4").symlink_to("../elsewhere/b.mp4")
    assert videos(find("in")) == ["in/a.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named() -> None:
    touch("in/a.mp4", "in/closed/b.mp4")
    Path("in/closed").chmod(0)
    try:
        with pytest.raises(UsageError, match="cannot read the folder in/closed"):
            find("in", recursive=True)
    finally:
        Path("in/closed").chmod(0o700)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has a folder refuse to be listed from then on: the superuser may read everything."""
    scandir = os.scandir
    refused: set[str] = set()

    def scan(path: Path) -> object:
        if str(path) in refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr("keyscale.engine.batch.folders.os.scandir", scan)
    return refused.add


def test_a_subfolder_that_may_not_be_read_is_left_out_and_told_of(closed: Callable[[str], None]) -> None:
    touch("in/a.mp4", "in/b/c.mp4", "in/lost+found/d.mp4")
    closed("in/lost+found")
    told: list[str] = []
    assert videos(find("in", recursive=True, on_unreadable=told.append)) == ["in/a.mp4", "in/b/c.mp4"]
    assert told == ["cannot read the folder in/lost+found: Permission denied; what is in it is left out"]


@pytest.mark.parametrize("given", ["in", "in/*.mp4"])
def test_an_input_that_may_not_be_read_itself_is_refused(closed: Callable[[str], None], given: str) -> None:
    touch("in/a.mp4", "x/b.mp4")
    closed("in")
    with pytest.raises(UsageError, match="cannot read the folder in: Permission denied"):
        find("x", given, on_unreadable=print)


def test_a_watched_folder_that_may_not_be_read_is_told_of_once(closed: Callable[[str], None]) -> None:
    touch("in/a.mp4", "in/closed/b.mp4")
    closed("in/closed")
    told: list[str] = []
    folder = watch("in", recursive=True, whole_frame=True, on_unreadable=told.append)
    assert settled(folder, 0.0) == ["a.mp4 None"]
    assert settled(folder, 20.0) == []
    assert told == ["cannot read the folder in/closed: Permission denied; it is passed over until it can be read"]


ODD_NAMES = [
    b"two words",
    b"new\nline",
    b"tab\tand\rreturn",
    b"\"quotes\" and 'these'",
    b"-o",
    b"--help",
    b"caf\xe9",
    b"caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac",
    b"a[1]*?",
    b"$(touch x); `y` | z",
    b"back\\slash",
    b"dots.in.it",
    b"ends with a dot.",
    b"%s %d {x}",
    b"x" * 246,
]


@pytest.mark.parametrize("stem", ODD_NAMES)
def test_names_of_every_kind_are_found_by_folder_by_name_and_by_pattern(stem: bytes) -> None:
    touch(b"in/" + stem + b".mp4", b"in/" + stem + b".json")
    name = os.fsdecode(stem)
    for given in ("in", f"in/{name}.mp4", "in/*.mp4", "**/*.mp4"):
        [clip] = find(given, whole_frame=False)
        assert (clip.fault, clip.video, clip.keyframes) == (None, Path(f"in/{name}.mp4"), Path(f"in/{name}.json"))
        assert place(clip, Path("out"), ".mp4").name == f"{name}.mp4"


def test_a_name_with_which_no_keyframes_name_is_possible_is_a_clip_all_the_same() -> None:
    touch("in/" + "x" * 251 + ".mp4")
    [clip] = find("in")
    assert clip.fault is None
    [clip] = find("in", whole_frame=False)
    assert isinstance(clip.fault, FramingError)


# Inputs


def test_inputs_keep_their_order_and_a_video_named_twice_is_one_clip() -> None:
    touch("b/1.mp4", "a/1.mp4", "a/2.mp4")
    clips = find("b", "a/2.mp4", "a")
    assert videos(clips) == ["b/1.mp4", "a/2.mp4", "a/1.mp4"]
    assert [clip.name for clip in clips] == ["b/1.mp4", "a/2.mp4", "a/1.mp4"]


def test_what_a_shell_makes_of_a_star_works() -> None:
    touch("in/a.mp4", "in/a.json", "in/b.mp4", "in/b.keyframes.json", "in/more/c.mp4", "in/more/c.json")
    touch("in/keyscale.toml", "in/out/a.mp4", "in/out/report.json")
    star = sorted(map(str, Path("in").iterdir()))
    assert len(star) == 7
    clips = find(*star, output_dir="in/out", whole_frame=False)
    assert videos(clips) == ["in/a.mp4", "in/b.mp4", "in/more/c.mp4"]
    assert not [clip for clip in clips if clip.fault]


def test_keyframes_named_without_their_video_are_refused() -> None:
    touch("in/a.json", "in/b.mp4")
    with pytest.raises(UsageError, match=r"in/a\.json is no video"):
        find("in/a.json", "in/b.mp4")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*.mp4", ["a", "b"]),
        ("in/?.mp4", ["a", "b"]),
        ("in/[b-z].*", ["b"]),
        ("in/**/*.mp4", ["a", "b", "x/c", "x/y/d"]),
        ("in/**", ["a", "b", "x/c", "x/y/d"]),
        ("in/*/*.mp4", ["x/c"]),
        ("in/**/y/*", ["x/y/d"]),
        ("*/x/**/d.mp4", ["in/x/y/d"]),
    ],
)
def test_patterns_are_expanded_without_a_shell(pattern: str, found: list[str]) -> None:
    touch("in/a.mp4", "in/b.mp4", "in/x/c.mp4", "in/x/y/d.mp4", "in/x/y/.e.mp4", "in/a.json")
    assert [str(clip.stem) for clip in find(pattern)] == found


def test_a_file_whose_name_looks_like_a_pattern_is_that_file() -> None:
    touch("in/[a].mp4", "in/a.mp4")
    assert videos(find("in/[a].mp4")) == ["in/[a].mp4"]


def test_a_file_named_by_itself_may_be_called_anything() -> None:
    touch("in/stream", "in/a.keyscale.mp4", "in/.hidden.mp4")
    clips = find("in/stream", "in/a.keyscale.mp4", "in/.hidden.mp4")
    assert [str(clip.stem) for clip in clips] == ["stream", "a.keyscale", ".hidden"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("nowhere", "nowhere does not exist"),
        ("in/nowhere.mp4", r"in/nowhere\.mp4 does not exist"),
        ("in/a.mp4/b.mp4", r"in/a\.mp4/b\.mp4 does not exist"),
        ("nowhere/*.mp4", "the folder nowhere of"),
        ("", "an input is ''"),
        ("a\0b", "an input is"),
        ("in/pipe", "in/pipe is neither a file nor a folder"),
        ("y" * 300, "cannot read yyy"),
    ],
)
def test_an_input_that_is_not_there_is_named(given: str, why: str) -> None:
    touch("in/a.mp4")
    os.mkfifo("in/pipe")
    with pytest.raises(UsageError, match=why):
        find(given)


@pytest.mark.parametrize("given", [["empty"], ["empty", "in/*.mkv"]])
def test_without_a_clip_it_is_said_where_was_looked(given: list[str]) -> None:
    touch("empty/notes.txt", "empty/deeper/a.mp4", "in/a.mp4")
    with pytest.raises(UsageError, match="there is no video in " + ", ".join(given).replace("*", r"\*")) as caught:
        find(*given)
    assert "--recursive" in str(caught.value.remedy)


def test_no_inputs_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match="no inputs"):
        find()


@pytest.mark.parametrize(
    ("given", "folder"), [("in", "in"), ("in/a.mp4", "in"), ("in/*/x.mp4", "in"), ("a.mp4", "."), ("*.mp4", ".")]
)
def test_settings_lie_beside_an_input(given: str, folder: str) -> None:
    touch("in/a.mp4")
    assert folder_of(given) == Path(folder)


# Where results go


def clip_at(stem: str = "talk", *, output: str | None = None, video: str = "in/talk.mp4", where: str = "") -> Clip:
    wanted = None if output is None else Path(output)
    return Clip(name=stem, video=Path(video), stem=Path(stem), output=wanted, where=where)


def test_results_mirror_the_folders() -> None:
    assert place(clip_at("day 1/talk"), Path("out"), ".mp4") == Path("out/day 1/talk.mp4")
    assert place(clip_at("talk.v2"), Path("out"), ".mov") == Path("out/talk.v2.mov")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("output", "result"),
    [("x/best.mkv", "x/best.mkv"), ("best", "best.mp4"), ("best.take2", "best.take2.mp4"), ("best.WEBM", "best.WEBM")],
)
def test_a_manifest_names_results_with_or_without_a_suffix(output: str, result: str) -> None:
    assert place(clip_at(output=output), Path("out"), ".mp4") == Path("out", result)


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("/etc/clip.mp4", "is an absolute path"),
        ("../clip.mp4", r"contains '\.\.'"),
        ("a/../../clip.mp4", r"contains '\.\.'"),
        ("a/..", r"contains '\.\.'"),
        (".", "is not a file name"),
        ("linked/clip.mp4", "through a linked folder"),
        ("linked/deeper/clip.mp4", "through a linked folder"),
        ("dangling/clip.mp4", "through a linked folder"),
        ("sub/linked/clip.mp4", "through a linked folder"),
        ("link.mp4", "is a symbolic link"),
        ("file/clip.mp4", "out/file is not a folder"),
        ("x" * 256, "has 260 bytes, at most 255 are possible"),
        ("é" * 130 + "/clip.mp4", "has 260 bytes, at most 255 are possible"),
        ("/".join(["x" * 200] * 30), "File name too long"),
    ],
)
def test_nothing_goes_outside_the_output_folder_or_through_a_link(output: str, why: str) -> None:
    touch("out/file", "outside/x", "out/sub/x")
    Path("out/linked").symlink_to("../outside")
    Path("out/sub/linked").symlink_to(Path("outside").absolute())
    Path("out/dangling").symlink_to("../not there")
    Path("out/link.mp4").symlink_to("file")
    with pytest.raises(UsageError, match=why) as caught:
        place(clip_at(output=output, where="list.csv: line 7"), Path("out"), ".mp4")
    assert caught.value.message.startswith("list.csv: line 7: ")
    assert caught.value.remedy


def test_a_mirrored_folder_that_is_a_link_is_refused_too() -> None:
    touch("out/x", "outside/x")
    Path("out/day").symlink_to("../outside")
    with pytest.raises(UsageError, match="through a linked folder"):
        place(clip_at("day/talk"), Path("out"), ".mp4")


def test_links_that_stay_within_the_output_folder_and_one_that_leads_to_it_are_fine() -> None:
    touch("real/sub/x")
    Path("real/linked").symlink_to("sub")
    Path("out").symlink_to("real")
    assert place(clip_at(output="linked/a.mp4"), Path("out"), ".mp4") == Path("out/linked/a.mp4")


def test_a_folder_whose_name_begins_like_the_output_folders_is_outside_it() -> None:
    touch("out/x", "outer/x")
    Path("out/linked").symlink_to("../outer")
    with pytest.raises(UsageError, match="through a linked folder"):
        place(clip_at(output="linked/a.mp4"), Path("out"), ".mp4")


def test_two_clips_for_one_result_are_faults_of_both_and_name_each_other() -> None:
    one, two, three = clip_at(video="in/talk.mp4"), clip_at(video="in/talk.mov"), clip_at("other", video="in/other.mp4")
    first, second, third = Places(Path("out")).take([(one, ".mp4"), (two, ".mp4"), (three, ".mp4")])
    assert isinstance(first, UsageError)
    assert isinstance(second, UsageError)
    assert "that of in/talk.mov too" in first.message
    assert "that of in/talk.mp4 too" in second.message
    assert third == Path("out/other.mp4")


@pytest.mark.parametrize(
    ("one", "other"), [("Talk", "tALK"), ("caf\u00e9", "cafe\u0301"), ("sub/A", "sub/a"), ("Day/a", "DAY/a")]
)
def test_names_that_are_one_on_some_systems_are_one_here(one: str, other: str) -> None:
    taken = Places(Path("out")).take([(clip_at(one, video="1.mp4"), ".mp4"), (clip_at(other, video="2.mp4"), ".mp4")])
    assert [type(each) for each in taken] == [UsageError, UsageError]


def test_the_same_name_with_another_suffix_is_another_result() -> None:
    taken = Places(Path("out")).take([(clip_at(video="1.mp4"), ".mp4"), (clip_at(video="2.mp4"), ".mov")])
    assert taken == (Path("out/talk.mp4"), Path("out/talk.mov"))


def test_a_result_never_takes_the_place_of_a_source() -> None:
    touch("in/talk.mp4", "in/other.mp4")
    own, other = clip_at("talk"), clip_at(output="other.mp4")
    beside = clip_at("third", video="in/other.mp4")
    taken = Places(Path("in")).take([(own, ".mp4"), (other, ".mp4"), (beside, ".mp4")])
    assert [type(each) for each in taken[:2]] == [UsageError, UsageError]
    assert "the place of the source in/talk.mp4" in str(taken[0])
    assert taken[2] == Path("in/third.mp4")


def test_a_place_stays_with_the_clip_that_took_it_first() -> None:
    places = Places(Path("out"))
    assert places.take([(clip_at(video="1.mp4"), ".mp4")]) == (Path("out/talk.mp4"),)
    [later] = places.take([(clip_at(video="2.mp4"), ".mp4")])
    assert "that of 1.mp4 too" in str(later)
    assert places.take([(clip_at(video="1.mp4"), ".mp4")]) == (Path("out/talk.mp4"),)


# Files that are still growing


def watch(*paths: str, **more: object) -> Watch:
    return Watch(paths, **{"output_dir": "in/out", "settle_s": 5.0} | more)  # type: ignore[arg-type]


def test_a_clip_is_given_once_its_files_have_stopped_changing() -> None:
    touch("in/a.mp4", "in/a.json")
    folder = watch("in")
    assert folder.poll(100.0) == ()
    touch("in/a.mp4", content="xx")
    assert folder.poll(104.0) == ()
    touch("in/a.json", content="xx")
    assert folder.poll(108.0) == ()
    assert folder.poll(112.9) == ()
    [clip] = folder.poll(113.0)
    assert clip == Clip(name="a.mp4", video=Path("in/a.mp4"), keyframes=Path("in/a.json"), stem=Path("a"))
    assert folder.poll(200.0) == ()


def settled(folder: Watch, now: float) -> list[str]:
    assert folder.poll(now) == ()
    return [f"{clip.name} {clip.keyframes}" for clip in folder.poll(now + 5.0)]


def test_a_changed_video_or_changed_keyframes_are_given_again() -> None:
    touch("in/a.mp4", "in/a.json")
    folder = watch("in")
    assert settled(folder, 0) == ["a.mp4 in/a.json"]
    touch("in/a.json", content="other")
    assert settled(folder, 10) == ["a.mp4 in/a.json"]
    os.utime("in/a.mp4", (1, 1))
    assert settled(folder, 20) == ["a.mp4 in/a.json"]
    assert settled(folder, 30) == []


def test_a_video_waits_silently_for_its_keyframes_and_for_its_first_byte() -> None:
    touch("in/a.mp4", "in/b.mp4", "in/b.json")
    touch("in/b.mp4", content="")
    folder = watch("in")
    assert settled(folder, 0) == []
    touch("in/a.keyframes.json", "in/b.mp4")
    assert settled(folder, 10) == ["a.mp4 in/a.keyframes.json", "b.mp4 in/b.json"]


def test_with_whole_frame_a_video_is_given_at_once_and_again_when_keyframes_come() -> None:
    touch("in/a.mp4")
    folder = watch("in", whole_frame=True)
    assert settled(folder, 0) == ["a.mp4 None"]
    touch("in/a.json")
    assert settled(folder, 10) == ["a.mp4 in/a.json"]


def test_new_files_folders_and_results_while_watching() -> None:
    Path("in").mkdir()
    folder = watch("in", recursive=True)
    assert settled(folder, 0) == []
    touch("in/day/a.mp4", "in/day/a.json", "in/out/a.mp4", "in/out/a.json", "in/.a.mp4.keyscale/x.mp4")
    assert settled(folder, 10) == ["day/a.mp4 in/day/a.json"]


def test_files_that_vanish_do_no_harm_and_are_not_given_again_when_they_come_back_unchanged() -> None:
    touch("in/a.mp4", "in/a.json", "in/b.mp4", "in/b.json")
    folder = watch("in")
    assert folder.poll(0) == ()
    Path("in/b.mp4").unlink()
    assert [clip.name for clip in folder.poll(5)] == ["a.mp4"]
    Path("in").rename("away")
    assert folder.poll(10) == ()
    Path("away").rename("in")
    touch("in/b.mp4")
    assert settled(folder, 20) == ["b.mp4 in/b.json"]


def test_both_kinds_of_keyframes_are_a_fault_that_is_told_once_and_can_be_mended() -> None:
    touch("in/a.mp4", "in/a.json", "in/a.keyframes.json")
    folder = watch("in")
    folder.poll(0)
    [clip] = folder.poll(5)
    assert isinstance(clip.fault, FramingError)
    assert folder.poll(50) == ()
    Path("in/a.json").unlink()
    assert settled(folder, 60) == ["a.mp4 in/a.keyframes.json"]


def test_patterns_and_single_files_can_be_watched_and_a_manifest_cannot() -> None:
    touch("in/a.mp4", "in/b.mkv", "list.csv")
    folder = watch("in/*.mp4", "in/b.mkv", whole_frame=True)
    assert settled(folder, 0) == ["in/a.mp4 None", "in/b.mkv None"]
    with pytest.raises(UsageError, match=r"list\.csv is a manifest"):
        watch("list.csv")
    with pytest.raises(UsageError, match="nowhere does not exist"):
        watch("nowhere")
