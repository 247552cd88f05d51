"""Sources read through something else than their path: the same frames to the last bit, and errors that say what is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest
from support.numbered import SMALL, planes, small_job, write_video
from support.range_server import Fault, RangeServer
from support.varied import FRAMES, VARIED, moving, write_varied

from keyscale.engine.errors import DecodeError, InputError, KeyscaleError
from keyscale.engine.pipeline.chunks import Tally, run_chunks
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.media import OpenMedia, local_media, stream_media
from keyscale.engine.source.probe import VideoInfo, probe
from keyscale.engine.source.reader import Lost, SourceFrame, read_frames
from keyscale.engine.worker.links import LinkChanged, LinkRefused, LinkUnreachable
from keyscale.engine.worker.ranged_file import RangedFile
from keyscale.engine.workspace.folder import WorkFolder

pytestmark = pytest.mark.loopback

FAST = {"preset": "ultrafast", "bf": "0"}

UNREADABLE = {
    "audio_only_opus.mp4",
    "corrupt_vp9_invalid.webm",
    "corrupt_zero_video_frames.ts",
    "empty_0_bytes.mp4",
} | {
    "not_a_video.mp4",
    "README.md",
}


def frames(
    info: VideoInfo, wanted: list[int], open_media: OpenMedia | None = None, *, keep_going: bool = False
) -> Iterator[SourceFrame | Lost]:
    return read_frames(
        info, wanted, deep=info.bit_depth > 8, keep_going=keep_going, should_stop=lambda: False, open_media=open_media
    )


def assert_same(here: Iterator[SourceFrame | Lost], there: Iterator[SourceFrame | Lost]) -> None:
    count = 0
    for one, other in zip(here, there, strict=True):
        assert one.pts == other.pts
        assert isinstance(one, Lost) == isinstance(other, Lost)
        if isinstance(one, SourceFrame) and isinstance(other, SourceFrame):
            assert np.array_equal(one.pixels, other.pixels)
        count += 1
    assert count


def parts(info: VideoInfo) -> list[list[int]]:
    """pts of a few frames at the start, in the middle and at the end, each as one chunk would ask for them."""
    count = len(info.pts)
    starts = sorted({0, count // 3, count // 2 + 1, max(0, count - 5)})
    return [info.pts[start : start + 5].tolist() for start in starts]


def over_http(path: Path, info: VideoInfo) -> None:
    with RangeServer(path.read_bytes()) as server, RangedFile(server.url(), name=path.name) as file:
        # The place of the file is not known where a chunk is made.
        there = replace(info, path=path.name)
        for wanted in parts(info):
            assert_same(
                frames(info, wanted, keep_going=True),
                frames(there, wanted, partial(stream_media, file, there), keep_going=True),
            )


def test_the_kinds_are_what_they_are_called(tmp_path: Path) -> None:
    assert probe(write_varied(tmp_path, "interlaced MPEG-2")).interlaced
    assert probe(write_varied(tmp_path, "10 bits")).bit_depth == 10
    assert probe(write_varied(tmp_path, "turned")).orientation.transpose
    assert probe(write_varied(tmp_path, "uneven times")).variable_rate
    assert probe(write_varied(tmp_path, "hours after 0")).origin >= 7200
    for name in ("open groups, H.264", "open groups, H.264, in MP4", "open groups, HEVC"):
        assert leading_pictures(write_varied(tmp_path, name)) > 6
    assert leading_pictures(write_varied(tmp_path, "index in front")) == 0


@pytest.mark.parametrize(
    ("milliseconds", "rate", "variable"),
    [
        ([*range(0, 1000, 40), *range(6000, 7000, 40)], 25, True),
        ([*range(0, 1000, 40), *range(1000, 2000, 20)], 50, True),
        ([round(number * 1001 / 30) for number in range(30) if number % 7], "30000/1001", True),
        ([round(step * 1000 / 60) for n in range(20) for step in (5 * n, 5 * n + 2)], 24, True),
        ([100 * n + burst for n in range(12) for burst in (0, 1, 2)], "48000/1001", True),
        ([round(number * 1000 / 240) for number in range(61)], 240, False),
    ],
    ids=["a pause", "25, then 50", "frames left out", "film in fields", "bursts", "rounded"],
)
def test_the_rate_is_one_at_which_no_frame_of_an_even_stretch_is_lost(
    tmp_path: Path, milliseconds: list[int], rate: Any, variable: bool
) -> None:
    """It was the mean: 8 frames a second for 25 with a pause of five seconds."""
    path = tmp_path / "in.mkv"
    write_video(path, moving(len(milliseconds), SMALL), pts=milliseconds, time_base=Fraction(1, 1000), options=FAST)
    info = probe(path)
    assert (info.rate, info.variable_rate) == (Fraction(rate), variable)


def leading_pictures(path: Path) -> int:
    """Pictures that are coded after a keyframe and shown before it."""
    key, count = 0, 0
    with av.open(path) as container:
        for packet in container.demux(video=0):
            time = packet.pts or 0
            key = time if packet.is_keyframe else key
            count += packet.size > 0 and time < key
    return count


@pytest.mark.parametrize("name", VARIED)
def test_every_kind_of_file_reads_the_same_over_a_link(tmp_path: Path, name: str) -> None:
    path = write_varied(tmp_path, name)
    info = probe(path)
    assert len(info.pts) == FRAMES
    over_http(path, info)


@pytest.mark.slow
def test_shared_clips_read_the_same_over_a_link(shared: Path) -> None:
    clips = [path for path in sorted((shared / "clips").iterdir()) if path.name not in UNREADABLE]
    assert len(clips) > 20
    for path in clips:
        over_http(path, probe(path, tolerate_damage=True))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A minute of noise, 8 MB, with the index behind and in front."""
    folder = tmp_path_factory.mktemp("noisy")
    dice = np.random.default_rng(4)
    pictures = [dice.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(600)]
    options = {"preset": "ultrafast", "qp": "4", "g": "10", "bf": "0"}
    behind, front = folder / "behind.mp4", folder / "front.mp4"
    write_video(behind, pictures, rate=10, options=options)
    write_video(front, pictures, rate=10, options=options, container_options={"movflags": "faststart"})
    assert behind.stat().st_size > 6_000_000
    return behind, front


@pytest.mark.parametrize("which", [0, 1], ids=["index behind", "index in front"])
def test_a_second_in_the_middle_fetches_a_fraction_of_the_file(noisy: tuple[Path, Path], which: int) -> None:
    path = noisy[which]
    info = probe(path)
    with RangeServer(path.read_bytes()) as server, RangedFile(server.url(), name=path.name) as file:
        wanted = info.pts[300:310].tolist()
        assert_same(frames(info, wanted), frames(info, wanted, partial(stream_media, file, info)))
        # 1 s of 60, the index, what finds the format out, and 128 KiB at least from each place.
        assert server.sent < 0.12 * path.stat().st_size


def test_reading_all_of_a_file_fetches_it_once(noisy: tuple[Path, Path]) -> None:
    path = noisy[0]
    info = probe(path)
    with RangeServer(path.read_bytes()) as server, RangedFile(server.url(), name=path.name) as file:
        wanted = info.pts.tolist()
        assert len(list(frames(info, wanted, partial(stream_media, file, info)))) == 600
        assert server.sent == path.stat().st_size
        assert len(server.ranges) < 40


def chunk_of(
    folder: Path, source: Path, open_media: Callable[[VideoInfo], OpenMedia] | None, **more: Any
) -> list[bytes]:
    """The second chunk of a job on `source`, decoded."""
    plan = prepare_plan(small_job(source, folder / "out.mp4", chunk_seconds=1.0, **more))
    chunk = plan.chunks[1]
    with WorkFolder.open_for(folder / "out.mp4", "k" * 16, ".mp4", resume=False) as work:
        tallies = run_chunks(
            plan,
            [chunk],
            work,
            None,
            should_stop=Event().is_set,
            tally=Tally(),
            open_media=open_media(plan.info) if open_media else None,
        )
        for _ in tallies:
            pass
        return planes(work.chunk(chunk))


def test_a_chunk_made_over_a_link_is_the_chunk_made_here(tmp_path: Path) -> None:
    source = write_varied(tmp_path, "open groups, H.264")
    with RangeServer(source.read_bytes()) as server, RangedFile(server.url(), name="a") as file:
        there = chunk_of(tmp_path, source, lambda info: partial(stream_media, file, info))
    assert there == chunk_of(tmp_path, source, None)
    assert len(there) == 24


BREAKS: dict[str, tuple[Fault | None, type[KeyscaleError]]] = {
    "the link expires": (Fault(status=403), LinkRefused),
    "the server goes away": (Fault(silent_s=0.3), LinkUnreachable),
    "the connection breaks": (Fault(cut_after=0), LinkUnreachable),
    "the file is replaced": (None, LinkChanged),
}


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize("kind", BREAKS)
@pytest.mark.parametrize("form", [".mp4", ".ts", ".mkv", ".avi"])
def test_what_the_link_meets_in_mid_file_is_the_error_and_never_a_lost_frame(
    tmp_path: Path, form: str, kind: str, keep_going: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    dice = np.random.default_rng(4)
    pictures = (dice.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(60))
    options = {"preset": "ultrafast", "qp": "4", "g": "10", "bf": "0"}
    path = write_video(tmp_path / f"noise{form}", pictures, rate=10, options=options)
    info = probe(path)
    fault, expected = BREAKS[kind]
    rest: list[SourceFrame | Lost] = []
    with (
        RangeServer(path.read_bytes()) as server,
        RangedFile(server.url(), name="clip", patience_s=0.5, memory=1) as file,
    ):
        given = frames(info, info.pts.tolist(), partial(stream_media, file, info), keep_going=keep_going)
        assert all(isinstance(next(given), SourceFrame) for _ in range(3))
        server.always = fault
        server.tag = server.tag if fault else '"second"'
        with pytest.raises(expected):
            rest.extend(given)
        assert all(isinstance(frame, SourceFrame) for frame in rest)
        assert len(rest) < 50
    assert "PyAV" not in capfd.readouterr().err


@pytest.mark.parametrize("status", [403, 404])
def test_what_the_link_meets_on_opening_is_the_error(tmp_path: Path, status: int) -> None:
    path = write_varied(tmp_path, "index behind, B-frames")
    info = probe(path)
    with RangeServer(path.read_bytes()) as server, RangedFile(server.url(), name="clip") as file:
        server.always = Fault(status=status)
        with pytest.raises(KeyscaleError) as caught:
            list(frames(info, info.pts.tolist(), partial(stream_media, file, info)))
    assert type(caught.value).__name__ in {"LinkExpired", "LinkMissing"}


def test_a_broken_link_ends_a_chunk_with_the_link_s_error(tmp_path: Path) -> None:
    source = write_varied(tmp_path, "index behind, B-frames")
    with RangeServer(source.read_bytes()) as server, RangedFile(server.url(), name="a") as file:
        server.always = Fault(status=403)
        with pytest.raises(LinkRefused):
            chunk_of(tmp_path, source, lambda info: partial(stream_media, file, info))
    assert not list(tmp_path.glob(".out.mp4.keyscale/*/chunk-*"))


def test_any_error_of_a_file_object_comes_through(tmp_path: Path) -> None:
    path = write_varied(tmp_path, "index behind, B-frames")
    info = probe(path)

    class Failing(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise ZeroDivisionError("a fault of its own")

    with pytest.raises(ZeroDivisionError):
        list(frames(info, info.pts.tolist(), partial(stream_media, Failing(), info)))


def test_damage_stays_damage_over_a_link(shared: Path) -> None:
    path = shared / "clips" / "corrupt_invalid_nalu.mp4"
    info = probe(path, tolerate_damage=True)
    wanted = info.pts.tolist()
    with pytest.raises(DecodeError) as here:
        list(frames(info, wanted))
    with path.open("rb") as file, pytest.raises(DecodeError) as there:
        list(frames(info, wanted, partial(stream_media, file, info)))
    assert str(there.value) == str(here.value)


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", b"no video at all"])
def test_what_is_no_video_is_told_over_a_link_as_well(tmp_path: Path, content: bytes) -> None:
    info = probe(write_varied(tmp_path, "index behind, B-frames"))
    with pytest.raises(InputError, match="is not a video that can be read"):
        list(frames(info, info.pts.tolist(), partial(stream_media, io.BytesIO(content), info)))


def test_another_file_than_the_planned_one_is_told(tmp_path: Path) -> None:
    info = probe(write_varied(tmp_path, "index behind, B-frames"))
    there = replace(info, video_index=7)
    with pytest.raises(InputError, match="has changed"):
        list(frames(there, info.pts.tolist()))
    with pytest.raises(InputError, match="has changed"), local_media(there):
        pass


def test_a_file_object_is_used_again_and_stays_open(tmp_path: Path) -> None:
    path = write_varied(tmp_path, "index behind, B-frames")
    info = probe(path)
    with path.open("rb") as file:
        for _ in range(2):
            assert len(list(frames(info, info.pts.tolist(), partial(stream_media, file, info)))) == len(list(moving()))
        assert not file.closed
