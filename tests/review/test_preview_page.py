"""The page of `keyscale preview` in a real browser: keys, clicks and time move the camera, and nothing is fetched."""

from __future__ import annotations

import html
import json
import shutil
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import Browser, Page
from support.numbered import leftovers, write_video
from support.places import LOW, PAN, SIZE, SPAN, STEP, TURNED, place, planned, previewed

from keyscale.cli.app import run
from keyscale.engine.plan.plan import Plan
from keyscale.engine.review import page as pages


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a name that a page and an address have to escape."""
    folder = tmp_path_factory.mktemp("a folder")
    return write_video(folder / "a <b>&'\"#%20: talk.mp4", (place(n) for n in range(50)), rate=25)


def made(clip: Path, name: str, *flags: str, document: Any = PAN) -> Path:
    return previewed(clip, clip.with_name(name), document, *flags)


@pytest.fixture(scope="module")
def linked(clip: Path, browser: Browser) -> Page:
    page = browser.open(made(clip, "linked.html"))
    page.wait("document.querySelector('#video').readyState >= 2")
    return page


def frame_of(page: Page) -> int:
    return int(page.value("document.body.dataset.frame"))


def outline(page: Page) -> list[float]:
    """The camera's rectangle in the window, as x, y, width and height in pixels of the source."""
    stage, drawn = (
        page.box("#stage"),
        page.value(
            "(() => { const e = document.querySelector('#camera'), m = e.getScreenCTM();"
            "return [...e.points].map(p => { const q = p.matrixTransform(m); return [q.x, q.y]; }); })()"
        ),
    )
    factor = np.array(SIZE) / stage[2:]
    points = (np.array(drawn) - stage[:2]) * factor
    return [*points.min(axis=0), *np.ptp(points, axis=0)]


def assert_shows(page: Page, plan: Plan, frame: int) -> None:
    assert frame_of(page) == frame
    # A pixel of the window is less than half of one of the source.
    assert np.abs(np.array(outline(page)) - plan.rects[frame]).max() <= 0.5


def assert_seen(page: Page, plan: Plan, frame: int, within: tuple[float, float, float] = (6, 6, 3)) -> None:
    """What the result shows: the source tells column, row and number by its colours."""
    page.wait(f"document.body.dataset.seen === '{frame}'")
    picture = page.picture("#shown")
    height, width = picture.shape[:2]
    middle = picture[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2].mean(axis=(0, 1))
    x, y, across, down = plan.rects[frame]
    wanted = [LOW + SPAN * (x + across / 2) / SIZE[0], LOW + SPAN * (y + down / 2) / SIZE[1]]
    wanted.append(LOW + STEP * plan.source_index[frame])
    assert (np.abs(middle - wanted) <= within).all(), (middle, wanted)


@pytest.mark.processes
def test_keys_move_the_camera_frame_by_frame_and_from_moment_to_moment(linked: Page, clip: Path) -> None:
    plan = planned(clip, PAN)
    linked.key("Home")
    assert_shows(linked, plan, 0)
    for key, shift, frame in [
        ("ArrowRight", False, 1), ("ArrowRight", True, 11), ("ArrowLeft", False, 10), ("ArrowLeft", True, 0),
        ("ArrowLeft", False, 0), ("ArrowDown", False, 25), ("ArrowDown", False, 35), ("ArrowUp", False, 25),
        ("End", False, 49), ("ArrowRight", False, 49), ("ArrowDown", False, 49), ("Home", False, 0),
    ]:  # fmt: skip
        linked.key(key, shift=shift)
        assert_shows(linked, plan, frame)


@pytest.mark.processes
def test_the_source_and_what_the_result_shows_follow(linked: Page, clip: Path) -> None:
    plan = planned(clip, PAN)
    for moves, frame in [(["Home"], 0), (["ArrowDown"], 25), (["ArrowDown", "ArrowLeft"], 34), (["ArrowRight"], 35)]:
        for key in moves:
            linked.key(key)
        assert_shows(linked, plan, frame)
        assert_seen(linked, plan, frame)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("late.mp4", {"pts": range(30, 80), "time_base": Fraction(1, 25)}),
        ("uneven.mp4", {"pts": [n * 40 + n % 3 * 9 for n in range(50)], "time_base": Fraction(1, 1000)}),
        ("reordered.mp4", {"options": {"bf": "2", "g": "250", "b-adapt": "0"}}),
        ("other.webm", {"codec": "libvpx-vp9", "options": {"crf": "20", "cpu-used": "8", "deadline": "realtime"}}),
    ],
    ids=["begins at 1.2 s", "variable rate", "B-frames", "WebM"],
)
def test_the_browser_shows_the_frame_that_the_result_shows(
    browser: Browser, tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    greys = [np.full((180, 320, 3), 60 + 3 * n, np.uint8) for n in range(50)]
    video = write_video(tmp_path / name, greys, rate=25, **more)
    plan, page = planned(video, PAN, rate=Fraction(25)), browser.open(made(video, "page.html", "--fps", "25"))
    for key, shift, frame in [
        ("Home", False, 0), ("ArrowRight", False, 1), ("ArrowRight", True, 11), ("ArrowRight", True, 21),
        ("ArrowRight", False, 22), ("ArrowRight", False, 23), ("End", False, plan.frames - 1),
    ]:  # fmt: skip
        page.key(key, shift=shift)
        page.wait(f"document.body.dataset.seen === '{frame}'")
        # Where a seek ends before its frame can be drawn, it is drawn once it can.
        deadline = time.monotonic() + 5
        while (off := abs(page.picture("#shown").mean() - 60 - 3 * plan.source_index[frame])) >= 1.4:
            assert time.monotonic() < deadline, (frame, off)


@pytest.mark.processes
def test_clicks_on_the_timeline_and_the_scrubber_move_it(linked: Page, clip: Path) -> None:
    plan = planned(clip, PAN)
    # The timeline's seconds are drawn from 56 to 996 of 1000.
    for second in (0.4, 1.6, 2.0):
        linked.click("#timeline", (56 + 940 * second / 2) / 1000)
        assert_shows(linked, plan, min(49, round(second * 25)))
    linked.drag("#timeline", (56 + 940 * 0.1) / 1000, (56 + 940 * 0.6) / 1000)
    assert_shows(linked, plan, 30)
    linked.drag("#scrub", 0.5, 1.0)
    assert_shows(linked, plan, 49)
    linked.click("#moments li:nth-child(3) button")
    assert_shows(linked, plan, 35)
    linked.click("#before")
    assert_shows(linked, plan, 25)


@pytest.mark.processes
@pytest.mark.parametrize("embed", [False, True], ids=["linked", "embedded"])
def test_it_plays_to_the_end_and_pauses(browser: Browser, clip: Path, embed: bool) -> None:
    page = browser.open(made(clip, f"plays-{embed}.html", *(["--embed"] if embed else [])))
    if not embed:
        page.wait("document.querySelector('#video').readyState >= 2")
    page.key(" ")
    page.wait("+document.body.dataset.frame > 5")
    page.key(" ")
    assert page.value("document.body.dataset.playing") == "false"
    stands = frame_of(page)
    assert 5 < stands < 49
    assert page.value("new Promise(done => setTimeout(() => done(+document.body.dataset.frame), 150))") == stands
    page.key("End")
    page.key("ArrowLeft", shift=True)
    page.click("#play")
    page.wait("document.body.dataset.playing === 'false'")
    assert frame_of(page) == 49
    assert page.faults() == []


@pytest.mark.processes
def test_nothing_but_the_source_is_loaded(linked: Page, clip: Path, browser: Browser) -> None:
    address = clip.with_name("linked.html").as_uri()
    assert {*linked.asked_for()} == {address, clip.as_uri()}
    assert linked.faults() == []
    alone = browser.open(made(clip, "alone.html", "--embed"))
    assert alone.asked_for() == [clip.with_name("alone.html").as_uri()]
    assert alone.faults() == []


@pytest.mark.processes
def test_with_embedded_frames_it_works_anywhere(browser: Browser, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "sent.html"
    shutil.move(made(clip, "sent.html", "--embed"), target)
    plan, page = planned(clip, PAN), browser.open(target)
    for key, frame in [("ArrowDown", 25), ("ArrowRight", 26), ("End", 49)]:
        page.key(key)
        assert_shows(page, plan, frame)
        assert_seen(page, plan, frame)


@pytest.mark.processes
def test_a_source_that_cannot_be_shown_is_told_and_the_camera_still_moves(browser: Browser, clip: Path) -> None:
    path = made(clip, "gone.html")
    path.write_text(path.read_text().replace('talk.mp4"', 'gone.mp4"'))
    page = browser.open(path)
    page.wait("!document.querySelector('#unplayable').hidden")
    page.key("End")
    assert_shows(page, planned(clip, PAN), 49)
    page.key(" ")
    page.wait("document.body.dataset.frame > 3 && document.body.dataset.frame < 49")


@pytest.mark.processes
def test_a_turned_camera_is_turned_in_the_page_too(browser: Browser, clip: Path) -> None:
    plan, page = planned(clip, TURNED), browser.open(made(clip, "turned.html", document=TURNED))
    page.wait("document.body.dataset.seen === '0'")
    x0, y0, x1, y1 = plan.geometry.boxes(plan.rects[:1])[0]
    assert np.abs(np.array(outline(page)) - [x0, y0, x1 - x0, y1 - y0]).max() <= 0.5
    # At the middle of the left edge the result shows the point that lies there on the turned picture.
    u, v = plan.geometry.unrotated(np.array([140.0 + 2]), np.array([90.0]))
    picture = page.picture("#shown")
    edge = picture[picture.shape[0] // 2, round(2 / 45 * picture.shape[1])].astype(float)
    assert abs(edge[0] - (LOW + SPAN * u[0] / SIZE[0])) <= 4
    assert abs(edge[1] - (LOW + SPAN * v[0] / SIZE[1])) <= 4


def test_facts_and_names_are_in_it_as_text(clip: Path) -> None:
    text = made(clip, "facts.html").read_text()
    assert html.escape("a <b>&'\"#%20: talk.mp4") in text
    assert "<b>" not in text
    data = json.loads(text.split('id="plan">')[1].split("</script>")[0])
    assert dict(data["facts"])["Target"].endswith("25 fps, 2.000 s, 50 frames, cover")
    assert data["cuts"] == [35]
    assert [each["frame"] for each in data["moments"]] == [0, 25, 35, 49]


def test_a_long_film_is_thinned_without_losing_its_cuts(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_FRAMES", 10)
    text = made(clip, "thin.html").read_text()
    data = json.loads(text.split('id="plan">')[1].split("</script>")[0])
    assert data["frames"] == 50
    assert len(data["n"]) == len(data["rects"]) == len(data["media"]) <= 18
    assert {0, 24, 25, 34, 35, 49} <= {*data["n"]}


def test_frames_are_embedded_in_a_page_alone(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "x.png"
    assert run(["preview", str(clip), "--model", "lanczos", "-o", str(target), "--embed"]) == 2
    assert "--embed goes with a page alone" in capsys.readouterr().err
    assert leftovers(tmp_path) == []
