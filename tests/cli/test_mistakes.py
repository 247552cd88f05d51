"""What new users type and what they are told: what was meant, and the flag or command that does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.clips import make_clip

from keyscale.cli.app import run
from keyscale.engine.quantities import Time

CLIP = "talk.mp4 camera.json"

MISTAKES = [
    # Words and names in the wrong place.
    ("upscal talk.mp4", "'upscal' is not a command", "'keyscale upscale'"),
    ("btach clips -o out", "'btach' is not a command", "'keyscale batch'"),
    ("preveiw talk.mp4", "'preveiw' is not a command", "'keyscale preview'"),
    ("models lits", "No such command 'lits'", "keyscale models --help"),
    ("camera.json talk.mp4", "talk.mp4 like a video", "VIDEO KEYFRAMES.json"),
    ("camera.json", "looks like keyframes", "The video comes first"),
    ("talk.mp4 out.mp4", "looks like a video", "-o out.mp4"),
    ("talk.mp4 camera.json out.mp4", "(out.mp4)", "-o out.mp4"),
    ("plan talk.mp4 camera.json out.mkv", "(out.mkv)", "-o out.mkv"),
    ("my holiday talk.mp4", "'my' is not a command", "keyscale --help"),
    ("talk.mp4 camera.json one two", "(one two)", "A name with spaces goes in quotes"),
    ("rtmp://example.com/live", "is an address of a kind", "https://"),
    ("s3://bucket/talk.mp4 camera.json", "is an address of a kind", "https://"),
    ("talk.mp4 https://example.com/camera.json", "an address", "Download it"),
    (f"{CLIP} -o s3://bucket/out.mp4", "s3://bucket/out.mp4", "r2://"),
    ("camera.json clip.mp4 --fit cover", "clip.mp4 like a video", "VIDEO KEYFRAMES.json"),
    ("compare camera.json talk.mp4", "looks like keyframes", "compare VIDEO RESULT camera.json"),
    ("compare talk.mp4 camera.json", "looks like keyframes", "compare VIDEO RESULT camera.json"),
    ("preview", "Missing argument 'VIDEO'", "keyscale preview VIDEO KEYFRAMES.json"),
    ("batch clips", "Missing option '--output'", "keyscale batch FOLDER|MANIFEST|VIDEO... -o FOLDER"),
    ("doctor talk.mp4", "(talk.mp4)", "'keyscale doctor --help'"),
    (f"{CLIP} out", "(out)", "-o names the result"),
    ("help sizs", "no command, flag or topic 'sizs'", "'keyscale help sizes'"),
    ("help --sizs", "no command, flag or topic '--sizs'", "'keyscale help sizes'"),
    ("help zzz", "no command, flag or topic 'zzz'", "exit-codes"),
    # A flag where a value belongs.
    (f"{CLIP} --sample --size 90x160", "--sample needs a value, and --size stands in its place", "--sample S|NxS"),
    (f"{CLIP} -o -y", "-o needs a value, and -y stands in its place", "-o FILE"),
    (f"{CLIP} --crf --codec=hevc", "--crf needs a value, and --codec stands", "--crf N"),
    ("batch clips -o --recursive", "-o needs a value, and --recursive stands", "-o FOLDER"),
    (f"compare {CLIP} --reference --no-audio", "--reference needs a value", "--reference <none|first|second>"),
    # Flags of other commands.
    (f"plan {CLIP} --sample 3", "--sample", "flag of 'keyscale upscale'. 'keyscale plan --help'"),
    (f"preview {CLIP} --still 3", "--still", "flag of 'keyscale upscale'"),
    ("batch clips -o out --still 3", "--still", "flag of 'keyscale upscale'"),
    (f"{CLIP} --embed", "--embed", "flag of 'keyscale preview'"),
    (f"{CLIP} --jobs 4", "--jobs", "flag of 'keyscale batch'"),
    (f"{CLIP} --reference first", "--reference", "flag of 'keyscale compare'"),
    ("batch clips -o out --dry-run", "--dry-run", "'keyscale plan VIDEO KEYFRAMES.json'"),
    ("doctor --gpu", "--gpu", "'keyscale doctor --help'"),
    # Flags of other tools.
    (f"{CLIP} --dry-run", "--dry-run", "'keyscale plan'"),
    (f"{CLIP} -n", "-n", "'keyscale plan'"),
    ("-i talk.mp4", "-i", "The video is the first argument"),
    ("--input talk.mp4", "--input", "The video is the first argument"),
    ("talk.mp4 --keyframes camera.json", "--keyframes", "keyscale VIDEO KEYFRAMES.json"),
    (f"{CLIP} --out clip.mp4", "--out", "-o FILE"),
    (f"{CLIP} --scale 2", "--scale", "2x for twice what the camera sees"),
    (f"{CLIP} -s 4", "-s", "--size"),
    (f"{CLIP} --width 1080", "--width", "--size"),
    (f"{CLIP} --resolution 1080x1920", "--resolution", "--size"),
    (f"{CLIP} --aspect 9:16", "--aspect", "9:16"),
    (f"{CLIP} --framerate 30", "--framerate", "--fps"),
    (f"{CLIP} -ss 10", "-s", "--start"),
    (f"{CLIP} --from 10", "--from", "--start"),
    (f"{CLIP} -to 10", "-t", "--end"),
    (f"{CLIP} -t 10", "-t", "no flag for a length"),
    (f"{CLIP} --duration 10", "--duration", "--end"),
    (f"{CLIP} --quality high", "--quality", "--mode quality"),
    (f"{CLIP} --bitrate 8M", "--bitrate", "--crf"),
    (f"{CLIP} -crf 20", "-c", "--crf"),
    (f"{CLIP} --mute", "--mute", "--no-audio"),
    (f"{CLIP} -an", "-a", "--no-audio"),
    (f"{CLIP} --gpu", "--gpu", "--device gpu"),
    (f"{CLIP} -g 0", "-g", "--device gpu"),
    (f"{CLIP} --force", "--force", "--overwrite"),
    (f"{CLIP} --encoder libx264", "--encoder", "--codec"),
    (f"{CLIP} -c:v libx265", "-c", "--codec"),
    (f"{CLIP} --network big", "--network", "--model"),
    (f"{CLIP} --frame 12", "--frame", "--still"),
    (f"{CLIP} --preview", "--preview", "'keyscale preview'"),
    (f"{CLIP} --compare", "--compare", "'keyscale compare"),
    (f"{CLIP} --threads 4", "--threads", "taskset"),
    (f"{CLIP} --crop 100,100", "--crop", "--fit"),
    (f"{CLIP} --debug", "--debug", "-vv"),
    ("batch clips --out results", "--out", "-o FILE"),
    (f"{CLIP} --siz 1080x1920", "--siz", "--help"),
    # Values.
    (f"{CLIP} --size 1080", "one side", "1080x1920"),
    (f"{CLIP} --size 2", "one side", "2x for twice what the camera sees"),
    (f"{CLIP} --size 0x", "is not a size", "2x"),
    (f"{CLIP} --size 17x", "is not a size", "2x"),
    (f"{CLIP} --size 9:0", "width 9 is odd", "8 or 10"),
    (f"{CLIP} --size huge", "--size 'huge' is not a size", "reel"),
    (f"{CLIP} --size 1080x1921", "1921 is odd", "1920 or 1922"),
    (f"{CLIP} --fps fast", "--fps 'fast' is not a rate", "30000/1001"),
    (f"{CLIP} --fps 0", "--fps 0 is out of range", "1 to 480"),
    (f"{CLIP} --start 1:99", "--start '1:99' is not a time", "1m30s"),
    (f"{CLIP} --start 1,500", "--start '1,500' may mean thousands or a fraction", "1500 or 1.500"),
    (f"{CLIP} --start 1,5,2", "--start '1,5,2' is not a time", "1m30s"),
    (f"{CLIP} --start 10 --end 5", "--end 5 is not after --start 10", "later"),
    (f"{CLIP} --codec h266", "'h266' is not one of", "Did you mean h264?"),
    (f"{CLIP} --codec mpeg2", "'mpeg2' is not one of", "--help"),
    (f"{CLIP} --fit fill", "'fill' is not one of", "--help"),
    (f"{CLIP} --crf 70", "--crf 70 is out of range", "51"),
    (f"{CLIP} --crf 60 --codec h264", "--crf 60 is out of range", "51"),
    (f"{CLIP} --crf best", "--crf 'best' is not a whole number", "0 (best)"),
    (f"{CLIP} --device gpus", "'gpus' is not a device", "cuda"),
    (f"{CLIP} --mode best", "'best' is not one of", "--help"),
    (f"{CLIP} --tile 8", "--tile 8 is too small", "auto"),
    (f"{CLIP} --denoise 5", "--denoise 5.0 is out of range", "0 to 1"),
    (f"{CLIP} --precision half", "'half' is not one of", "--help"),
]


@pytest.mark.parametrize(("typed", "said", "advised"), MISTAKES, ids=[typed for typed, _, _ in MISTAKES])
def test_a_mistake_is_answered_with_what_was_meant(
    typed: str,
    said: str,
    advised: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.mp4").write_bytes(b"")
    (tmp_path / "camera.json").write_text("{}")
    assert run(typed.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    told, _, remedy = err.partition("\n  -> ")
    assert told.startswith("error: ")
    assert said in told
    assert advised in remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camera.json", "talk.mp4"]


@pytest.mark.parametrize(
    ("setting", "given", "means"),
    [
        ("size", "reel", "1080x1920"),
        ("size", "4K", "3840x2160"),
        ("size", "1080:1920", "1080x1920"),
        ("size", "1080\u00d71920", "1080x1920"),
        ("size", "720 * 1280", "720x1280"),
        ("size", "1080,1920", "1080x1920"),
        ("size", "UHD", "3840x2160"),
        ("size", "full hd", "1920x1080"),
        ("size", "8k", "7680x4320"),
        ("size", "9/16", "9:16"),
        ("fps", "29,97", "30000/1001"),
        ("fps", "30fps", "30"),
        ("codec", "h265", "hevc"),
        ("codec", "x264", "h264"),
        ("codec", "libsvtav1", "av1"),
    ],
)
def test_what_has_one_meaning_is_taken(
    setting: str, given: str, means: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"KEYSCALE_{setting.upper()}", given)
    assert run(["config", "show", "--json"]) == 0
    values = {each["name"]: each["value"] for each in json.loads(capsys.readouterr().out)["settings"]}
    assert values[setting] == means


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1:30", 90),
        ("1m30s", 90),
        ("1m 30s", 90),
        ("1h", 3600),
        ("2min", 120),
        ("250ms", 0.25),
        ("1,5", 1.5),
        ("0,25", 0.25),
        ("00:01:02,500", 62.5),  # as subtitles have it
        ("1m2,5s", 62.5),
    ],
)
def test_a_time_is_written_in_any_common_way(text: str, seconds: float) -> None:
    assert Time().read(text) == seconds


@pytest.mark.parametrize(
    ("typed", "same"), [("help", "--help"), ("help plan", "plan --help"), ("version", "--version")]
)
def test_words_for_what_flags_do(typed: str, same: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for command in (typed, same):
        assert run(command.split()) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""


def test_a_video_may_be_called_like_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "help").write_bytes(b"no video")
    assert run(["help"]) == 3
    assert "help is not a video" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "code", "advised"),
    [
        ("Talk.mp4", 3, "Did you mean talk.mp4?"),
        ("talk", 3, "Did you mean talk.mp4?"),
        ("talk.mov", 3, "Did you mean talk.mp4?"),
        ("in/wlak.mp4", 3, "Did you mean in/walk.MP4?"),
        ("other.mp4", 3, "Check the path."),
        ("no/talk.mp4", 3, "There is no folder no"),
        ("www.example.com/talk.mp4", 3, "write https://www.example.com/talk.mp4"),
        ("example.com/talk.mp4", 3, "write https://example.com/talk.mp4"),
        ("plan talk.mp4 camra.json", 2, "Did you mean camera.json?"),
        ("plan talk.mp4 camera", 2, "Did you mean camera.json?"),
        ("plan talk.mp4 camera.csv", 2, "Did you mean camera.json?"),
        ("plan talk.mp4 zoom.json", 2, "Check the path."),
    ],
)
def test_a_file_that_is_not_there_is_answered_with_one_that_is(
    typed: str,
    code: int,
    advised: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "talk.mp4", frames=2, rate=25)
    for name in ("camera.json", "talk.txt", "in/walk.MP4"):
        (tmp_path / name).touch()
    assert run([*(["plan"] if not typed.startswith("plan") else []), *typed.split()]) == code
    err = capsys.readouterr().err
    assert advised in err.partition("\n  -> ")[2]
