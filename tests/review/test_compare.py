"""`keyscale compare` (docs/use.md): the same moments of both videos side by side, and what is measured of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.browser import Browser, Page
from support.numbered import leftovers, run, small_job, times, write_video
from support.places import PAN, Pixels, camera, opened, panels, place
from support.refusals import Refused

from keyscale.cli.app import run as run_command
from keyscale.engine.choices import Codec, Fit, Mode
from keyscale.engine.job import Encoding, ModelChoice
from keyscale.engine.review.compare import write_samples_page
from keyscale.engine.review.measures import busiest, psnr, sharpness

SLOWED: dict[str, Any] = PAN | {"segments": [{"start": 1.0, "end": 1.4, "speed": 0.5}], "trim": {"start": 0.2}}
RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "talk.mp4", (place(n) for n in range(50)), rate=25)


@pytest.fixture
def made(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a result of the source beside a copy of it and its camera."""
    video, keyframes = tmp_path / "talk.mp4", camera(tmp_path, SLOWED)
    shutil.copy(source, video)

    def make(name: str = "clip.mp4", **more: Any) -> Path:
        fields = {"size": (90, 160), "keyframes": str(keyframes)} | more
        return run(small_job(video, tmp_path / name, **fields)).path

    return make


def flat(path: Path, colours: Iterable[tuple[int, int, int]], size: tuple[int, int] = (128, 96)) -> Path:
    """A lossless video of one colour a frame."""
    pictures = (np.full((size[1], size[0], 3), colour, np.uint8) for colour in colours)
    return write_video(path, pictures, rate=25, codec="ffv1", pixel_format="bgr0")


def test_a_source_is_shown_as_its_camera_saw_it(made: Callable[..., Path], tmp_path: Path) -> None:
    """Trim, speed, cut and zoom: each place and frame has colours of its own, so both are the same picture."""
    clip, target = made(), tmp_path / "look.png"
    files = [str(tmp_path / name) for name in ("talk.mp4", "clip.mp4", "camera.json")]
    assert clip.exists()
    assert run_command(["compare", *files, "-o", str(target)]) == 0
    found = panels(opened(target))
    assert len(found) == 8
    for before, after in zip(found[::2], found[1::2], strict=True):
        assert before.pixels.shape == after.pixels.shape == (160, 90, 3)
        assert np.abs(before.pixels.astype(int) - after.pixels).mean() < 2
    # The moments themselves are not alike: their blue counts frames.
    blues = [panel.pixels[..., 2].mean() for panel in found[::2]]
    assert np.diff(blues).min() > 5


def test_without_the_camera_both_are_not_alike_and_that_is_told(
    made: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "look.png"
    assert run_command(["compare", str(tmp_path / "talk.mp4"), str(made()), "-o", str(target)]) == 0
    # 1.8 s of the source, 0.4 of them at half speed.
    assert "the first gives 2.000 s and the second lasts 2.200 s" in capsys.readouterr().err
    before, after = panels(opened(target))[:2]
    assert np.abs(before.pixels.astype(int) - after.pixels).mean() > 10


@pytest.mark.parametrize(
    ("name", "more", "flags"),
    [
        ("clip.mp4", {}, ["--crf", "10", "--preset", "ultrafast"]),
        ("talk.keyscale.mp4", {"encoding": Encoding()}, []),
        ("clip.mkv", {"encoding": Encoding(), "rate": Fraction(30)}, []),
        ("clip.mp4", {"encoding": Encoding(), "fit": Fit.CONTAIN, "size": (200, 200)}, []),
        ("clip.mp4", {"encoding": Encoding(codec=Codec.HEVC), "size": (90, 160)}, []),
        ("clip.mp4", {"encoding": Encoding(), "keyframes": None}, []),
        ("clip.mp4", {"encoding": Encoding(), "start": 0.5, "model": ModelChoice(name="lanczos", mode=Mode.QUALITY)}, [
            "--start", "0.5",
        ]),
    ],
    ids=["flags", "default name", "rate and container", "fit", "codec", "no camera", "mode and trim"],
)  # fmt: skip
def test_a_result_alone_finds_its_source_and_its_camera_by_its_key(
    made: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    more: dict[str, Any],
    flags: list[str],
) -> None:
    """Under other names, and among others that are nearly alike."""
    clip = made(name, **more)
    where = tmp_path / "elsewhere"
    where.mkdir()
    shutil.copy(clip, where / name)
    shutil.copy(tmp_path / "talk.mp4", where / "z original.mp4")
    write_video(where / "a other.mp4", (place(n + 1) for n in range(50)), rate=25)
    camera(where, PAN).rename(where / "a other.json")
    camera(where, SLOWED).rename(where / "z camera.json")
    (where / "notes.json").write_text('{"a": 1}')
    (where / "not a film.mp4").write_text("no")
    capsys.readouterr()
    target = tmp_path / "look.png"
    assert run_command(["compare", str(where / name), "--model", "lanczos", *flags, "-o", str(target)]) == 0
    camera_name = f"and {where / 'z camera.json'}" if more.get("keyframes", "") is not None else "the whole picture"
    told = capsys.readouterr().err
    assert f"{where / name} was made of {where / 'z original.mp4'}" in told
    assert camera_name in told
    before, after = panels(opened(target))[:2]
    assert np.abs(before.pixels.astype(int) - after.pixels).mean() < 4


@pytest.mark.processes
def test_a_result_in_another_folder_finds_its_source_by_the_batchs_report(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two clips that differ in their cameras alone."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, track in (("a", SLOWED), ("b", PAN)):
        shutil.copy(source, folder / f"{name}.mp4")
        camera(folder, track).rename(folder / f"{name}.json")
    flags = ["--size", "90x160", "--model", "lanczos"]
    assert run_command(["batch", "clips", "-o", "out", "--jobs", "1", *flags]) == 0
    for name in ("a", "b"):
        assert run_command(["compare", f"out/{name}.mp4", "--model", "lanczos"]) == 0
        assert f"was made of clips/{name}.mp4 and clips/{name}.json" in capsys.readouterr().err
    assert run_command(["compare", "out/a.mp4", "--model", "lanczos", "--crf", "30"]) == 2
    (tmp_path / "out" / "report.json").write_text('{"clips": [{"output": 7}]}')
    assert run_command(["compare", "out/a.mp4", "--model", "lanczos", "-y"]) == 2
    assert "no video and camera beside out/a.mp4" in capsys.readouterr().err
    monkeypatch.chdir(folder)
    assert run_command(["compare", "../out/b.mp4", "--model", "lanczos", "-y"]) == 0
    assert "was made of b.mp4 and b.json" in capsys.readouterr().err


def test_swapped_videos_are_told(made: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, source = str(made()), str(tmp_path / "talk.mp4")
    for files, swapped in (([clip, source], True), ([source, clip], False), ([clip, clip], False)):
        assert run_command(["compare", *files, "-y", "-o", str(tmp_path / "look.png")]) == 0
        assert ("name the source first and the result second" in capsys.readouterr().err) is swapped


@pytest.mark.parametrize(
    ("spoil", "flags", "message"),
    [
        (lambda folder: (folder / "talk.mp4").unlink(), [], "no video and camera beside"),
        (lambda folder: (folder / "camera.json").unlink(), [], "no video and camera beside"),
        (lambda folder: camera(folder, PAN), [], "no video and camera beside"),
        (lambda folder: folder.exists(), ["--crf", "30"], "no video and camera beside"),
        (lambda folder: shutil.copy(folder / "talk.mp4", folder / "clip.mp4"), [], "has no job key"),
    ],
    ids=["no source", "no camera", "another camera", "other flags", "no result"],
)
def test_what_cannot_be_found_is_asked_for(
    made: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    flags: list[str],
    message: str,
) -> None:
    clip = made(encoding=Encoding())
    spoil(tmp_path)
    there = leftovers(tmp_path)
    assert run_command(["compare", str(clip), "--model", "lanczos", *flags]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "keyscale compare VIDEO RESULT KEYFRAMES.json" in told
    assert leftovers(tmp_path) == there


def test_psnr_is_measured_from_the_reference_and_sharpness_from_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """10 log10(255^2 / 3^2) = 38.59 dB; steps of 40 codes are four times those of 10."""
    flat(tmp_path / "a.mkv", [(100, 100, 100)] * 6)
    flat(tmp_path / "b.mkv", [(103, 103, 103)] * 6)
    files = [str(tmp_path / name) for name in ("a.mkv", "b.mkv")]
    for reference in ("first", "second"):
        assert run_command(["compare", *files, "-y", "--reference", reference]) == 0
        assert "PSNR 38.59 dB" in capsys.readouterr().err
    assert run_command(["compare", *files, "-y"]) == 0
    assert "PSNR" not in capsys.readouterr().err
    stripes = np.indices((96, 128)).sum(axis=0)[..., None] // 8 % 2 * np.ones(3)
    for name, low, high in (("c.mkv", 100, 110), ("d.mkv", 80, 120)):
        pictures = [(low + stripes * (high - low)).astype(np.uint8)] * 3
        write_video(tmp_path / name, pictures, rate=25, codec="ffv1", pixel_format="bgr0")
    assert run_command(["compare", str(tmp_path / "c.mkv"), str(tmp_path / "d.mkv")]) == 0
    out, err = capsys.readouterr()
    assert "the second is 4.00 times as sharp" in err
    assert out == f"{tmp_path / 'd.compare.png'}\n"


def test_measures_of_pictures() -> None:
    even = np.full((20, 30, 3), 50, np.uint8)
    assert (sharpness(even), psnr(even, even)) == (0, 100)
    edge = even.copy()
    edge[:, 15:] = 79
    # One of 29 steps across is 29 codes: the root of 29 * 29 / 29.
    assert sharpness(edge) == pytest.approx(29**0.5)
    busy = np.full((200, 300, 3), 128, np.uint8)
    busy[100:180, 200:290] = np.random.default_rng(1).integers(0, 256, (80, 90, 3))
    top, left = busiest(busy, (120, 100))
    assert top <= 100
    assert top + 100 >= 180
    assert left <= 200
    assert left + 120 >= 290
    assert busiest(busy, (1000, 1000)) == (0, 0)


def test_details_are_shown_pixel_by_pixel_where_most_is_to_be_seen(tmp_path: Path) -> None:
    picture = np.full((600, 900, 3), 128, np.uint8)
    detail = np.random.default_rng(2).integers(60, 256, (300, 500, 3), dtype=np.uint8)
    picture[260:560, 300:800] = detail
    for name, shown in (("a.mkv", picture), ("b.mkv", 255 - picture // 2)):
        write_video(tmp_path / name, [shown] * 2, rate=25, codec="ffv1", pixel_format="bgr0")
    target = tmp_path / "look.png"
    assert run_command(["compare", *(str(tmp_path / name) for name in ("a.mkv", "b.mkv")), "-o", str(target)]) == 0
    first, second = panels(opened(target))[:2]
    assert first.pixels.shape == (400, 614, 3)
    places = np.argwhere((first.pixels == detail[0, 0]).all(axis=2))
    top, left = places[0]
    np.testing.assert_array_equal(first.pixels[top : top + 300, left : left + 500], detail)
    np.testing.assert_array_equal(second.pixels, 255 - first.pixels // 2)


def test_as_a_clip_the_screen_is_split(tmp_path: Path) -> None:
    for name, colour in (("a.mkv", RED), ("b.mkv", BLUE)):
        flat(tmp_path / name, [colour] * 10)
    target = tmp_path / "split.mp4"
    assert run_command(["compare", *(str(tmp_path / name) for name in ("a.mkv", "b.mkv")), "-o", str(target)]) == 0
    assert times(target) == [Fraction(n, 25) for n in range(10)]
    with av.open(target) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24").astype(int)
            assert picture.shape == (96, 128, 3)
            assert np.abs(picture[:70, :58] - RED).max() <= 6
            assert np.abs(picture[:70, 70:] - BLUE).max() <= 6


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Page:
    """Red beside blue, brighter by the frame."""
    for name, colour in (("a <i>.mkv", RED), ("b.mkv", BLUE)):
        flat(tmp_path / name, [tuple(value + n for value in colour) for n in range(0, 50, 5)], (400, 300))  # type: ignore[misc]
    files = [str(tmp_path / name) for name in ("a <i>.mkv", "b.mkv")]
    assert run_command(["compare", *files, "-o", str(tmp_path / "x.html"), "--reference", "first"]) == 0
    return browser.open(tmp_path / "x.html")


def divided(page: Page) -> tuple[float, Pixels]:
    """Which share of the picture is the first video's, as it is seen in the middle row; and that row."""
    page.value("Promise.all([...document.images].map(image => image.decode())).then(() => true)")
    row = page.picture("#stage")[100].astype(int)
    is_red = row[:, 0] > row[:, 2]
    edge = int(np.flatnonzero(is_red).max(initial=-1)) + 1
    # Nothing of the one within the other, but for the line between them.
    assert is_red[: max(0, edge - 3)].all()
    return edge / len(row), row


@pytest.mark.processes
def test_the_slider_moves_by_keys_mouse_and_itself(page: Page) -> None:
    steps: list[tuple[Callable[[], object], float]] = [
        (lambda: None, 50), (lambda: page.key("ArrowRight"), 51), (lambda: page.key("ArrowRight", shift=True), 61),
        (lambda: page.key("ArrowLeft"), 60), (lambda: page.key(" "), 0), (lambda: page.key(" "), 100),
        (lambda: page.key("Home"), 0), (lambda: page.click("#stage", 0.3), 30),
        (lambda: page.drag("#stage", 0.3, 0.8), 80), (lambda: page.click("#slider", 0.5), 50),
    ]  # fmt: skip
    for act, share in steps:
        act()
        assert float(page.value("document.body.dataset.share")) == pytest.approx(share, abs=0.6)
        assert divided(page)[0] == pytest.approx(share / 100, abs=0.012)


@pytest.mark.processes
def test_moments_are_chosen_by_keys_and_clicks(page: Page) -> None:
    seen = []
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: page.key("ArrowDown"),
        lambda: page.click("#moments li:nth-child(8) button"),
    ]
    for act in steps:
        act()
        seen.append((page.value("document.body.dataset.moment"), int(divided(page)[1][20, 0])))
    assert [number for number, _ in seen] == ["0", "1", "7"]
    # From 200 to 245 in steps of five; eight of ten moments.
    assert [abs(red - wanted) <= 5 for (_, red), wanted in zip(seen, (200, 207, 245), strict=True)] == [True] * 3
    assert "PSNR" in page.value("document.querySelector('#words').textContent")


@pytest.mark.processes
def test_of_several_samples_any_two_are_shown(browser: Browser, tmp_path: Path) -> None:
    colours = {"one": RED, "two": BLUE, "three": (230, 60, 60)}
    files = [str(flat(tmp_path / f"{name}.mkv", [colour] * 4, (400, 300))) for name, colour in colours.items()]
    write_samples_page([files], list(colours), str(tmp_path / "x.html"), overwrite=False)
    page = browser.open(tmp_path / "x.html")
    assert divided(page)[0] == pytest.approx(0.5, abs=0.012)
    for side, name, expected in (("left", "three", (230, 30)), ("right", "one", (230, 200))):
        page.value(
            f"(() => {{ const choice = document.querySelector('#{side}'); choice.value = '{name}';"
            "choice.dispatchEvent(new Event('change')); return true; })()"
        )
        page.value("Promise.all([...document.images].map(image => image.decode())).then(() => true)")
        row = page.picture("#stage")[100].astype(int)
        assert (row[20, 0], row[-20, 0]) == pytest.approx(expected, abs=6)
    assert page.value("document.querySelector('#first').textContent") == "three"
    assert page.value("document.querySelector('#second').textContent") == "one"
    assert page.faults() == []


@pytest.mark.processes
def test_it_fetches_nothing_and_shows_pixels_at_their_size(page: Page, tmp_path: Path) -> None:
    assert page.value("document.querySelector('#left').hidden") is True
    assert page.asked_for() == [(tmp_path / "x.html").as_uri()]
    assert page.faults() == []
    assert page.value("document.querySelector('h1').textContent") == "a <i>.mkv and b.mkv"
    page.click("#actual")
    assert page.box("#stage")[2:] == (400, 300)
    page.click("#actual")
    assert page.box("#stage")[2] > 400


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["talk.mp4", "camera.json"], 2, "camera.json looks like keyframes"),
        (["talk.mp4", "nosuch.mp4"], 3, "nosuch.mp4"),
        (["nosuch.mp4", "talk.mp4"], 3, "nosuch.mp4"),
        (["talk.mp4", "talk.mp4", "-o", "x.webp"], 2, "x.webp does not end in one of"),
        (["talk.mp4", "talk.mp4", "-o", "there.png"], 4, "there.png already exists"),
        (["talk.mp4", "talk.mp4", "--reference", "both"], 2, "--reference"),
        (["talk.mp4", "talk.mp4", "nosuch.json"], 2, "nosuch.json"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_and_leaves_nothing(
    source: Path, tmp_path: Path, refused: Refused, args: list[str], code: int, message: str
) -> None:
    shutil.copy(source, tmp_path / "talk.mp4")
    refused(["compare", *args], code, message)
