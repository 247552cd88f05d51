"""Excerpts of sources: exact to the last bit for every frame that a plan needs, or none at all."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support import clips
from support.numbered import planes, small_job, write_video
from support.range_server import RangeServer
from support.varied import FRAMES, VARIED, moving, write_varied

from keyscale.engine.errors import InputError, StorageError
from keyscale.engine.job import Calm
from keyscale.engine.pipeline.chunks import Tally, run_chunks
from keyscale.engine.plan.plan import Plan, make_plan
from keyscale.engine.plan.transfer import dump_plan, for_transfer, load_plan
from keyscale.engine.remote.excerpt import SMALLEST, Excerpt, make_excerpt, worth_excerpt
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.media import OpenMedia, excerpt_media
from keyscale.engine.source.probe import probe
from keyscale.engine.source.reader import SourceFrame, read_frames
from keyscale.engine.worker.ranged_file import RangedFile
from keyscale.engine.workspace.folder import WorkFolder

DAMAGED = {"trunc_mdat.mp4", "corrupt_invalid_nalu.mp4"}
UNREADABLE = {
    "audio_only_opus.mp4",
    "corrupt_vp9_invalid.webm",
    "corrupt_zero_video_frames.ts",
    "empty_0_bytes.mp4",
} | {
    "not_a_video.mp4",
    "README.md",
}

PARTS = {"start": (0.0, 0.3), "middle": (0.45, 0.6), "end": (0.8, 1.0)}


def going() -> bool:
    return False


def planned(path: Path, start: float, end: float, **more: Any) -> Plan:
    """A plan of a part, given as shares of the whole, in chunks of half a second."""
    info = probe(path, tolerate_damage=True)
    length = float(info.duration)
    job = small_job(path, path.with_suffix(".out.mp4"), start=start * length, end=end * length, chunk_seconds=0.5)
    return make_plan(replace(job, **more), info, None, {}, {})


def frames(plan: Plan, wanted: list[int], open_media: OpenMedia | None = None) -> Iterator[Any]:
    return read_frames(
        plan.info, wanted, deep=plan.info.bit_depth > 8, keep_going=False, should_stop=going, open_media=open_media
    )


def assert_exact(plan: Plan, excerpt: Excerpt, *, each_chunk: bool = True) -> None:
    """All frames that the plan shows, in one go and as each chunk asks for them, against the source's own."""
    source = {frame.pts: frame.pixels for frame in frames(plan, plan.info.pts[np.unique(plan.source_index)].tolist())}
    spans = [(0, plan.frames), *((c.start, c.end) for c in plan.chunks if each_chunk)]
    with excerpt.path.open("rb") as file:
        for start, end in spans:
            wanted = plan.info.pts[np.unique(plan.source_index[start:end])].tolist()
            given = list(frames(plan, wanted, partial(excerpt_media, file, plan.info, begins=excerpt.begins)))
            assert [frame.pts for frame in given] == wanted
            assert all(isinstance(frame, SourceFrame) for frame in given)
            assert all(np.array_equal(frame.pixels, source[frame.pts]) for frame in given)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", VARIED)
def test_every_kind_of_file_has_an_exact_excerpt(tmp_path: Path, name: str, part: str) -> None:
    plan = planned(write_varied(tmp_path, name), *PARTS[part])
    assert len(plan.info.pts) == FRAMES
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None
    assert_exact(plan, excerpt)


@pytest.mark.slow
def test_shared_clips_have_exact_excerpts(shared: Path, tmp_path: Path) -> None:
    without = set()
    for path in sorted((shared / "clips").iterdir()):
        if path.name in UNREADABLE:
            continue
        spans = PARTS.values() if path.stat().st_size < 400_000 else [PARTS["middle"]]
        if path.name.startswith("long_362s"):
            spans = [(0.0, 0.01), (0.5, 0.505), (0.995, 1.0)]
        for start, end in spans:
            plan = planned(path, start, end)
            excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
            if excerpt is None:
                without.add(path.name)
            else:
                assert_exact(plan, excerpt, each_chunk=len(plan.chunks) < 4)
    assert without <= DAMAGED


def test_packets_keep_their_bytes_and_their_times(tmp_path: Path) -> None:
    source = write_varied(tmp_path, "uneven times")
    plan = planned(source, 0.5, 0.7)
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None

    def packets(path: Path) -> dict[Fraction, tuple[bytes, bool]]:
        with av.open(path) as container:
            return {
                (packet.pts or 0) * packet.time_base: (bytes(packet), packet.is_keyframe)
                for packet in container.demux(video=0)
                if packet.size
            }

    kept, all_of_it = packets(excerpt.path), packets(source)
    assert kept.items() <= all_of_it.items()
    assert len(kept) == excerpt.packets < FRAMES
    assert min(kept) == excerpt.begins * plan.info.time_base
    first, last = (plan.pts(n) * plan.info.time_base for n in (0, plan.frames - 1))
    assert {time for time in all_of_it if first <= time <= last} <= kept.keys()
    assert first - min(kept) < 12 * Fraction(90, 1000)  # one group of pictures


def test_it_tells_its_size_and_checksum(tmp_path: Path) -> None:
    plan = planned(write_varied(tmp_path, "index in front"), 0.5, 0.7)
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None
    content = excerpt.path.read_bytes()
    assert (excerpt.size, excerpt.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_same_part_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = planned(write_varied(tmp_path, "index in front"), 0.5, 0.7)
    contents = set()
    for name in ("a.nut", "b.nut"):
        excerpt = make_excerpt(plan, tmp_path / name, should_stop=going)
        assert excerpt is not None
        contents.add(excerpt.path.read_bytes())
    assert len(contents) == 1


def test_only_the_planned_stream_is_in_it_wherever_it_stands_in_the_source(tmp_path: Path) -> None:
    sound = clips.clicks_track([0.5], seconds=3, sample_rate=48000)
    clip = clips.make_clip(tmp_path / "clip.mp4", frames=90, rate=30, sounds=[sound], options={"g": "10"})
    source = tmp_path / "sound first.mkv"
    with av.open(clip) as before, av.open(source, "w") as out:
        order = [before.streams.audio[0].index, before.streams.video[0].index]
        streams = {index: out.add_stream_from_template(before.streams[index]) for index in order}
        for packet in before.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    plan = planned(source, 0.4, 0.6)
    assert plan.info.video_index == 1
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None
    with av.open(excerpt.path) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert_exact(plan, excerpt)


@pytest.mark.loopback
def test_chunks_made_from_an_excerpt_over_a_link_are_those_made_here(tmp_path: Path) -> None:
    """All that happens elsewhere: the plan as bytes, the excerpt behind a link, one chunk at a time."""
    source = write_varied(tmp_path, "open groups, HEVC")
    plan = prepare_plan(small_job(source, tmp_path / "out.mp4", start=0.7, end=2.6, chunk_seconds=0.5))
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None
    with WorkFolder.open_for(tmp_path / "here.mp4", "h" * 16, ".mp4", resume=False) as here:
        for _ in run_chunks(plan, plan.chunks, here, None, should_stop=going, tally=Tally()):
            pass
        expected = [planes(here.chunk(chunk)) for chunk in plan.chunks]
    assert len(expected) == 4

    received = load_plan(dump_plan(for_transfer(plan)))
    with RangeServer(excerpt.path.read_bytes()) as server:
        for chunk in reversed(received.chunks):
            with (
                RangedFile(server.url(), name="excerpt", size=excerpt.size) as file,
                WorkFolder.open_for(tmp_path / "there.mp4", "t" * 16, ".mp4", resume=False) as there,
            ):
                media = partial(excerpt_media, file, received.info, begins=excerpt.begins)
                tallies = run_chunks(received, [chunk], there, None, should_stop=going, tally=Tally(), open_media=media)
                for _ in tallies:
                    pass
                assert planes(there.chunk(chunk)) == expected[chunk.index]


def test_an_excerpt_holds_the_neighbours_that_noise_is_averaged_over(tmp_path: Path) -> None:
    chance = np.random.default_rng(7)
    pictures = [np.clip(chance.normal(120, 5, (48, 64, 3)), 0, 255).astype(np.uint8) for _ in range(70)]
    source = write_video(tmp_path / "noise.mkv", pictures, options={"qp": "0", "g": "5", "bf": "0"})
    job = small_job(source, tmp_path / "out.mp4", start=1.0, end=1.8, chunk_seconds=0.4, calm=Calm(steady=1.0))
    plan = prepare_plan(job)
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None
    assert excerpt.packets < 70

    def made(name: str, open_media: OpenMedia | None, given: Plan) -> list[list[bytes]]:
        with WorkFolder.open_for(tmp_path / name, name[0] * 16, ".mp4", resume=False) as folder:
            for chunk in reversed(given.chunks):
                for _ in run_chunks(
                    given, [chunk], folder, None, should_stop=going, tally=Tally(), open_media=open_media
                ):
                    pass
            return [planes(folder.chunk(chunk)) for chunk in given.chunks]

    with excerpt.path.open("rb") as file:
        there = made("there.mp4", partial(excerpt_media, file, plan.info, begins=excerpt.begins), plan)
    assert there == made("here.mp4", None, plan)
    without = replace(plan, job=replace(job, calm=Calm()))
    assert there != made("without.mp4", None, without)


@pytest.mark.loopback
def test_a_chunk_late_in_a_long_excerpt_reads_little_of_it(tmp_path: Path) -> None:
    dice = np.random.default_rng(4)
    pictures = [dice.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(600)]
    options = {"preset": "ultrafast", "qp": "4", "g": "10", "bf": "2"}
    source = write_video(tmp_path / "noise.mp4", pictures, rate=10, options=options)
    plan = planned(source, 0.3, 1.0)
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None
    with RangeServer(excerpt.path.read_bytes()) as server, RangedFile(server.url(), name="excerpt") as file:
        wanted = plan.info.pts[500:505].tolist()
        given = list(frames(plan, wanted, partial(excerpt_media, file, plan.info, begins=excerpt.begins)))
        assert [frame.pts for frame in given] == wanted
        assert server.sent < 0.15 * excerpt.size


def test_a_plan_of_a_whole_file_has_an_exact_excerpt_without_its_sound(shared: Path, tmp_path: Path) -> None:
    plan = planned(shared / "clips" / "ts_h264_854x480.ts", 0, 1)
    excerpt = make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)
    assert excerpt is not None
    assert_exact(plan, excerpt, each_chunk=False)


def test_damage_within_the_part_gives_none(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "excerpt.nut"
    plan = planned(shared / "clips" / "trunc_mdat.mp4", 0.5, 1.0, keep_going_on_decode_errors=True)
    assert make_excerpt(plan, target, should_stop=going) is None
    assert not target.exists()


def test_a_codec_that_is_not_known_to_copy_exactly_gives_none(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", moving(), rate=24, codec="huffyuv", pixel_format="yuv422p")
    assert make_excerpt(planned(path, 0.4, 0.6), tmp_path / "excerpt.nut", should_stop=going) is None


def test_a_source_that_changed_since_it_was_planned_gives_none(tmp_path: Path) -> None:
    path = write_varied(tmp_path, "index in front")
    plan = planned(path, 0.4, 0.6)
    write_video(path, itertools.islice(moving(), 20), rate=24, options={"g": "5"})
    assert make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going) is None


def test_a_source_that_is_gone_is_told(tmp_path: Path) -> None:
    path = write_varied(tmp_path, "index in front")
    plan = planned(path, 0.4, 0.6)
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        make_excerpt(plan, tmp_path / "excerpt.nut", should_stop=going)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    plan = planned(write_varied(tmp_path, "index in front"), 0.4, 0.6)
    with pytest.raises(StorageError, match="cannot write"):
        make_excerpt(plan, tmp_path / "absent" / "excerpt.nut", should_stop=going)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    plan = planned(write_varied(tmp_path, "index in front"), 0.4, 0.6)
    target = tmp_path / "excerpt.nut"
    target.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        make_excerpt(plan, target, should_stop=going)
    assert not target.exists()


@pytest.mark.parametrize("asked", [1, 10, 60, 150])
def test_it_stops_when_told_to_and_leaves_nothing(tmp_path: Path, asked: int) -> None:
    plan = planned(write_varied(tmp_path, "index in front"), 0.4, 0.6)
    target = tmp_path / "excerpt.nut"
    count = itertools.count()
    assert make_excerpt(plan, target, should_stop=lambda: next(count) >= asked) is None
    assert next(count) < asked + 10
    assert not target.exists()


@pytest.mark.parametrize(
    ("part", "size", "worth"),
    [
        ((0.0, 1.0), 10 * SMALLEST, False),
        ((0.1, 0.9), 10 * SMALLEST, False),
        ((0.1, 0.3), 10 * SMALLEST, True),
        ((0.0, 0.2), 10 * SMALLEST, True),
        ((0.1, 0.3), SMALLEST - 1, False),
    ],
)
def test_it_is_worth_it_for_a_small_part_of_a_large_file(
    tmp_path: Path, part: tuple[float, float], size: int, worth: bool
) -> None:
    pictures = moving(300)
    plan = planned(write_video(tmp_path / "a.mp4", pictures, rate=24), *part)
    assert worth_excerpt(plan, size) is worth
