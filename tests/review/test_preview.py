"""`keyscale preview` (docs/use.md): where the camera is and what it will show, read off the pictures themselves."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.numbered import leftovers, times, write_video
from support.places import FRAMES, LOW, PAN, SIZE, SPAN, STEP, TURNED, Pixels, opened, panels, place, planned, previewed
from support.refusals import Refused

from keyscale.cli.app import run
from keyscale.engine.job import Fit, ModelChoice
from keyscale.engine.review.camera_track import moments, runs, track_of
from keyscale.engine.review.pictures import WARNING
from keyscale.engine.review.sheet import where_warned


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "talk.mp4", (place(n) for n in range(FRAMES)), rate=25)


@pytest.fixture(scope="module")
def sheet(clip: Path) -> Pixels:
    return opened(previewed(clip, clip.with_name("sheet.png"), PAN))


def test_the_rectangle_is_where_the_camera_is_to_a_pixel(clip: Path, sheet: Pixels) -> None:
    plan = planned(clip, PAN)
    chosen = moments(plan, track_of(plan))
    sources = panels(sheet)[::2]
    assert len(sources) == len(chosen)
    for panel, moment in zip(sources, chosen, strict=True):
        height, width = panel.pixels.shape[:2]
        scale = np.array([width, height, width, height])
        expected = plan.rects[moment.frame] / (*SIZE, *SIZE) * scale
        assert np.abs(np.array(panel.rectangle) * scale - expected).max() <= 1, moment


def test_beside_it_is_what_the_result_will_show(clip: Path, sheet: Pixels) -> None:
    """The source tells column, row and number by its colours."""
    plan = planned(clip, PAN)
    chosen = moments(plan, track_of(plan))
    for panel, moment in zip(panels(sheet)[1::2], chosen, strict=True):
        height, width = panel.pixels.shape[:2]
        assert abs(width / height - 90 / 160) < 0.01
        x, y, across, down = plan.rects[moment.frame]
        middle = panel.pixels[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2].mean(axis=(0, 1))
        assert abs(middle[0] - (LOW + SPAN * (x + across / 2) / SIZE[0])) <= 3
        assert abs(middle[1] - (LOW + SPAN * (y + down / 2) / SIZE[1])) <= 3
        assert abs(middle[2] - (LOW + STEP * moment.frame)) <= 3


def test_moments_are_keyframes_cuts_and_extremes_of_zoom(clip: Path) -> None:
    plan = planned(clip, PAN)
    found = {moment.frame: moment.reasons for moment in moments(plan, track_of(plan))}
    assert found == {
        0: ("start", "widest", "keyframe 1"),
        25: ("keyframe 2",),
        35: ("cut", "closest", "keyframe 3"),
        49: ("end", "keyframe 4"),
    }


@pytest.mark.parametrize(("count", "cuts"), [(3, 0), (40, 0), (40, 5), (40, 39)], ids=str)
def test_there_are_never_too_many_and_cuts_come_first(clip: Path, count: int, cuts: int) -> None:
    rows = [
        {"time": 0.04 * n, "x": 3.0 * n, "y": 10.0, "width": 90.0, "height": 160.0}
        | ({"ease": "hold"} if n < cuts else {})
        for n in range(count)
    ]
    plan = planned(clip, {"version": 1, "keyframes": rows})
    track = track_of(plan)
    found = moments(plan, track)
    frames = [moment.frame for moment in found]
    assert len(found) == min(count + 1, 12)
    assert (frames[0], frames[-1]) == (0, 49)
    assert frames == sorted(set(frames))
    assert track.cuts == tuple(range(1, cuts + 1))
    assert sum("cut" in moment.reasons for moment in found) == min(cuts, 10)
    if cuts in {0, 39} and count == 40:
        # Ten of 39 or 40, evenly.
        assert {*np.diff(frames[1:-1]).tolist()} <= {4, 5}


def test_a_rectangle_over_the_border_is_shown_where_it_was_asked_for(clip: Path, tmp_path: Path) -> None:
    document = {
        "version": 1,
        "keyframes": [
            {"time": 0.0, "x": 100.0, "y": 10.0, "width": 90.0, "height": 160.0},
            {"time": 1.0, "x": 260.0, "y": 10.0, "width": 90.0, "height": 160.0},
        ],
    }
    plan = planned(clip, document)
    track = track_of(plan)
    # From 230 on the rectangle's right is beyond 320: (230.5 - 100) / 160 of a second is frame 20.4.
    assert runs(track.outside) == [(21, 50)]
    [warning] = [text for text in where_warned(plan, track) if "over the frame's border" in text]
    assert warning.endswith("(0.84 to 2.00 s)")
    sources = panels(opened(previewed(clip, tmp_path / "sheet.png", document)))[::2]
    last = sources[-1].pixels
    dashed = np.argwhere((last == WARNING).all(axis=2))
    assert abs(dashed[:, 1].min() / last.shape[1] - 260 / 320) * last.shape[1] <= 1.5
    assert not (sources[0].pixels == WARNING).all(axis=2).any()


def test_where_a_network_is_not_enough_is_told_by_its_seconds(clip: Path) -> None:
    """90x160 pixels shown at 180x320 are within x2; 45x80, from 1.4 s on, would take x4."""
    model = ModelChoice(name="keyscale-compact-x2")
    plan = planned(clip, PAN, size=(180, 320), model=model)
    [warning] = [text for text in where_warned(plan, track_of(plan)) if "enlarged another 2.00 times" in text]
    assert warning.endswith("(1.40 to 2.00 s)")


def test_a_turned_camera_is_drawn_turned(clip: Path, tmp_path: Path) -> None:
    plan = planned(clip, TURNED)
    panel = panels(opened(previewed(clip, tmp_path / "sheet.png", TURNED)))[0]
    x0, y0, x1, y1 = plan.geometry.boxes(plan.rects[:1])[0]
    height, width = panel.pixels.shape[:2]
    scale = np.array([width, height, width, height])
    expected = np.array([x0, y0, x1 - x0, y1 - y0]) / (*SIZE, *SIZE) * scale
    assert np.abs(np.array(panel.rectangle) * scale - expected).max() <= 1.5


@pytest.mark.parametrize(
    ("size", "fit"), [((200, 300), Fit.CONTAIN), ((300, 80), Fit.COVER), ((64, 300), Fit.STRETCH)], ids=str
)
def test_other_shapes_stay_on_the_sheet(clip: Path, tmp_path: Path, size: tuple[int, int], fit: Fit) -> None:
    target = tmp_path / "sheet.png"
    flags = ["--size", f"{size[0]}x{size[1]}", "--fit", fit.value, "--model", "lanczos", "-o", str(target)]
    assert run(["preview", str(clip), *flags]) == 0
    found = panels(opened(target))
    source = found[0]
    plan = planned(clip, size=size, fit=fit)
    expected = plan.rects[0] / (*SIZE, *SIZE)
    assert np.abs(np.array(source.rectangle) - expected).max() <= 1.5 / min(source.pixels.shape[:2])
    assert source.box[2] < 1280


def test_the_name_is_that_of_the_video_unless_one_is_given(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "talk.mp4"
    video.write_bytes(clip.read_bytes())
    assert run(["preview", str(video), "--model", "lanczos"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'talk.preview.png'}\n"
    assert leftovers(tmp_path, "talk.mp4") == ["talk.preview.png"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["-o", "x.gif"], 2, "x.gif does not end in one of"),
        (["-o", "there.png"], 4, "there.png already exists"),
        (["-o", "nowhere/x.png"], 4, "cannot write nowhere/x.png"),
        (["--start", "9", "-o", "x.png"], 2, "the trim starts at 9 s (--start), but the source ends at 2.000 s"),
        (["--size", "3x3", "-o", "x.png"], 2, "target width 3 is odd"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_and_leaves_nothing(
    clip: Path, refused: Refused, flags: list[str], code: int, message: str
) -> None:
    refused(["preview", str(clip), "--model", "lanczos", *flags], code, message)


def test_a_preview_that_is_there_is_replaced_where_that_is_said(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.png"
    target.write_text("old")
    assert run(["preview", str(clip), "--model", "lanczos", "-o", str(target), "-y"]) == 0
    assert opened(target).shape[1] == 1280


def test_as_a_clip_it_has_the_camera_in_every_frame(clip: Path, tmp_path: Path) -> None:
    """At the rate and of the length of the result; half speed from 1 s to 1.4 s makes it longer."""
    document = PAN | {"segments": [{"start": 1.0, "end": 1.4, "speed": 0.5}]}
    plan = planned(clip, document)
    target = previewed(clip, tmp_path / "look.mp4", document)
    with av.open(target) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert times(target) == [Fraction(n, 25) for n in range(60)]
    for frame in (0, 12, 25, 34, 35, 44, 45, 59):
        picture = pictures[frame][: SIZE[1]]
        source, shown = picture[:, : SIZE[0]], picture[:, SIZE[0] + 8 :]
        outlined = np.argwhere((source[..., 0] > 215) & (source[..., 1] > 175) & (source[..., 2] < 105))
        (top, left), (bottom, right) = outlined.min(axis=0), outlined.max(axis=0) + 1
        x, y, across, down = plan.rects[frame]
        # Chroma has half the pixels.
        assert np.abs(np.array([left, top, right, bottom]) - [x, y, x + across, y + down]).max() <= 2.5, frame
        middle = shown[88:92, shown.shape[1] // 2 - 2 : shown.shape[1] // 2 + 2].mean(axis=(0, 1))
        number = plan.source_index[frame]
        wanted = [LOW + SPAN * (x + across / 2) / SIZE[0], LOW + SPAN * (y + down / 2) / SIZE[1], LOW + STEP * number]
        assert np.abs(middle - wanted).max() <= 4, frame


def test_a_source_that_breaks_off_leaves_no_clip(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    content = bytearray(clip.read_bytes())
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    middle = (begin + end) // 2
    content[middle:end] = bytes(end - middle)
    broken.write_bytes(content)
    flags = ["--size", "90x160", "--fps", "source", "--model", "lanczos", "--no-audio"]
    assert run(["preview", str(broken), *flags, "-o", str(tmp_path / "look.mp4")]) == 3
    assert "cannot be decoded" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["broken.mp4"]
