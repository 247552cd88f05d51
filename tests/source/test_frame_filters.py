"""What FFmpeg's filters tell and write of frames: of every pixel format, in several threads, after changes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from av.video.format import names  # type: ignore[attr-defined]
from av.video.reformatter import VideoReformatter
from support.clips import make_clip
from support.numbered import write_video

from keyscale.engine.source.colour import Colour, to_rgb
from keyscale.engine.source.frame_filters import AspectMeter, frame_tags, with_chroma_location

GREY = 120


def every_format() -> Iterator[av.VideoFrame]:
    """A grey frame in each pixel format that swscale reads and writes."""
    grey = av.VideoFrame.from_ndarray(np.full((32, 32, 3), GREY, np.uint8), format="rgb24")
    for name in sorted(names):
        try:
            frame = grey.reformat(format=name)
            frame.reformat(format="rgb24")
        except (av.FFmpegError, OSError, ValueError):
            continue
        if frame.format.name == name:
            yield frame


def test_every_pixel_format_is_read() -> None:
    seen = 0
    meter = AspectMeter()
    for frame in every_format():
        seen += 1
        assert meter(frame) == 1.0
        assert frame_tags(frame).sample_aspect in (None, 1)
        form = frame.format
        if form.is_rgb or form.has_palette or (form.chroma_width(8), form.chroma_height(8)) == (8, 8):
            continue
        frame.colorspace, frame.color_range = 5, 1
        for place in (1, 2, 3):
            labelled = with_chroma_location(frame, place)
            assert frame_tags(labelled).chroma_location == place
            colour = Colour(matrix=5, full_range=False, chroma_location=place)
            for deep in (False, True):
                rgb = to_rgb(frame, colour, deep=deep, reformatter=VideoReformatter()) / (257 if deep else 1)
                assert np.abs(rgb - GREY).max() <= 2.5, frame.format.name
    assert seen >= 150


def test_an_aspect_is_told_to_one_in_four_thousand(tmp_path: Path) -> None:
    meter = AspectMeter()
    for aspect in (Fraction(1), Fraction(64, 45), Fraction(10, 11), Fraction(160, 99), Fraction(4), Fraction(1, 4)):
        source = tmp_path / f"{aspect.numerator}.mkv"
        with av.open(source, "w") as out:
            stream = out.add_stream("libx264", rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.codec_context.sample_aspect_ratio = aspect
            out.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
            out.mux(stream.encode(None))
        with av.open(source) as container:
            frame = next(container.decode(video=0))
        assert frame_tags(frame).sample_aspect == aspect
        assert meter(frame) == pytest.approx(float(aspect), abs=1 / 4096)


def test_labels_leave_the_frame_alone(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", [np.full((48, 64, 3), GREY, np.uint8)] * 2)
    with av.open(source) as container:
        frame = list(container.decode(video=0))[1]
    labelled = with_chroma_location(frame, 3)
    assert (frame_tags(frame).chroma_location, frame_tags(labelled).chroma_location) == (1, 3)
    assert bytes(labelled.planes[1]) == bytes(frame.planes[1])
    assert (int(labelled.colorspace), int(labelled.color_range)) == (int(frame.colorspace), int(frame.color_range))


def test_threads_read_their_own_frames() -> None:
    """FFmpeg's log level is one for all: what one thread reads must not be lost to another that has finished."""
    grey = av.VideoFrame(32, 32, "yuv420p")
    frames = [with_chroma_location(grey, place) for place in (1, 2, 3, 4)]
    found: dict[int, set[int]] = {}

    def read(number: int) -> None:
        found[number] = {frame_tags(frames[number]).chroma_location for _ in range(50)}

    before = av.logging.get_level()
    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {number + 1} for number in range(4)}
    assert av.logging.get_level() == before


@pytest.mark.processes
def test_jobs_of_one_process_that_look_at_their_sources_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    """FFmpeg's log is listened to by one, while decoders of the others are freed; it hung within seconds."""
    clip = str(make_clip(tmp_path / "in.mp4", frames=60, rate=25, size=(320, 192)))
    program = f"""
import threading
from keyscale.engine.source.probe import probe
threads = [threading.Thread(target=lambda: [probe({clip!r}) for _ in range(40)], daemon=True) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
