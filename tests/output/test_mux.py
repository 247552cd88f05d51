"""The finished file holds every frame of the chunks and the source's other tracks, on one timeline."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
from av.stream import AttachmentStream, Disposition
from support.clips import (
    clicks_in,
    clicks_track,
    make_chunks,
    make_clip,
    numbers_in,
    packets_of,
    sound_of,
)

from keyscale.engine.camera.timemap import Stretch, TimeMap
from keyscale.engine.errors import DecodeError, EncoderError, Interrupted, StorageError
from keyscale.engine.output.mux import Assembly, assemble
from keyscale.engine.plan.tracks import Container, TrackPlan, container_of, plan_tracks
from keyscale.engine.source.probe import StreamInfo

NTSC = Fraction(30000, 1001)
RATE = Fraction(20)


def streams_of(path: Path) -> tuple[StreamInfo, ...]:
    with av.open(path, metadata_errors="replace") as container:
        return tuple(
            StreamInfo(
                index=stream.index,
                kind=stream.type,
                codec=stream.codec_context.codec.canonical_name if stream.codec_context else None,
                attached_picture=bool(stream.disposition & Disposition.attached_pic),
            )
            for stream in container.streams
        )


def picture_index(path: Path) -> int:
    return next(s.index for s in streams_of(path) if s.kind == "video" and not s.attached_picture)


def first_shown(path: Path) -> Fraction:
    with av.open(path, metadata_errors="replace") as container:
        frame = next(container.decode(container.streams[picture_index(path)]))
        assert isinstance(frame, av.VideoFrame)
        return Fraction(frame.pts or 0) * (frame.time_base or 0)


def whole(seconds: float) -> TimeMap:
    return TimeMap((Stretch(0, seconds, 1.0),))


def plans(source: Path, output: Path, time_map: TimeMap, seconds: float) -> tuple[TrackPlan, ...]:
    return plan_tracks(
        streams_of(source), picture_index(source), container_of(output.name), time_map, source_duration=seconds
    )


def put_together(
    output: Path,
    source: Path,
    chunks: Sequence[Path],
    *,
    rate: Fraction = RATE,
    time_map: TimeMap | None = None,
    seconds: float | None = None,
    tracks: tuple[TrackPlan, ...] | None = None,
    **more: Any,
) -> Assembly:
    if time_map is None:
        frames = sum(len(packets_of(chunk, 0)) for chunk in chunks)
        time_map = whole(float(frames / rate))
    if tracks is None:
        tracks = plans(source, output, time_map, seconds if seconds is not None else time_map.end)
    return assemble(
        chunks=chunks,
        output=output,
        container=container_of(output.name),
        rate=rate,
        source=str(source),
        video_index=picture_index(source),
        origin=first_shown(source),
        time_map=time_map,
        tracks=tracks,
        **more,
    )


@pytest.fixture(autouse=True)
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that were to be brought to the disk, for which these tests do not wait."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: sizes.append(os.fstat(number).st_size))
    return sizes


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seconds at 20 a second in three files."""
    made: list[Path] = make_chunks(tmp_path_factory.mktemp("chunks"), [17, 3, 20], RATE)
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds with two tracks of sound, clicks at 0.5 and 1.25 s in the first and at 1 s in the second."""
    return Path(
        make_clip(
            tmp_path_factory.mktemp("source") / "source.mp4",
            frames=40,
            rate=20,
            sounds=[
                clicks_track([0.5, 1.25], seconds=2, sample_rate=48000),
                clicks_track([1.0], seconds=2, sample_rate=48000),
            ],
            languages=["deu", "fra"],
        )
    )


class TestPicture:
    """Chunks laid end to end."""

    @pytest.mark.parametrize("rate", [Fraction(24000, 1001), NTSC, Fraction(25), Fraction(60)])
    @pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
    def test_every_frame_is_there_in_order_on_an_exact_clock(
        self, tmp_path: Path, source: Path, rate: Fraction, name: str
    ) -> None:
        chunks = make_chunks(tmp_path, [13, 1, 2, 9], rate)
        report = put_together(tmp_path / name, source, chunks, rate=rate, tracks=())
        shown = numbers_in(tmp_path / name)
        assert report.video_frames == 25
        assert [number for _, number in shown] == list(range(25))
        precision = Fraction(1, 2000) if name.endswith("mkv") else 0
        assert all(abs(time - number / rate) <= precision for time, number in shown)
        with av.open(tmp_path / name) as container:
            assert container.streams.video[0].average_rate == rate

    def test_decoding_times_rise_and_never_pass_display(self, tmp_path: Path, source: Path, chunks: list[Path]) -> None:
        put_together(tmp_path / "out.mp4", source, chunks, tracks=())
        with av.open(tmp_path / "out.mp4") as container:
            times = [(p.dts or 0, p.pts or 0) for p in container.demux(video=0) if p.size]
        assert [dts for dts, _ in times] == sorted({dts for dts, _ in times})
        assert all(dts <= pts for dts, pts in times)

    def test_packets_are_copied_as_they_are(self, tmp_path: Path, source: Path, chunks: list[Path]) -> None:
        put_together(tmp_path / "out.mp4", source, chunks, tracks=())
        copied = [content for _, content in packets_of(tmp_path / "out.mp4", 0)]
        assert copied == [content for chunk in chunks for _, content in packets_of(chunk, 0)]

    def test_vp9_goes_into_webm(self, tmp_path: Path, source: Path) -> None:
        chunks = make_chunks(tmp_path, [5, 4], RATE, codec="libvpx-vp9", suffix=".webm", options={"cpu-used": "8"})
        put_together(tmp_path / "out.webm", source, chunks)
        assert [number for _, number in numbers_in(tmp_path / "out.webm")] == list(range(9))

    def test_hevc_in_mp4_is_tagged_as_apple_reads_it(self, tmp_path: Path, source: Path) -> None:
        options = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"}
        chunks = make_chunks(tmp_path, [4, 4], RATE, codec="libx265", options=options)
        put_together(tmp_path / "out.mp4", source, chunks, tracks=())
        with av.open(tmp_path / "out.mp4") as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"

    @pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
    def test_colour_and_size_are_kept(self, tmp_path: Path, source: Path, chunks: list[Path], name: str) -> None:
        put_together(tmp_path / name, source, chunks, tracks=())
        with av.open(tmp_path / name) as container:
            video = container.streams.video[0]
            context = video.codec_context
            assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
            assert (video.width, video.height) == (64, 64)
            assert video.sample_aspect_ratio in (None, 1)

    def test_the_index_comes_first_in_mp4(self, tmp_path: Path, source: Path, chunks: list[Path]) -> None:
        put_together(tmp_path / "out.mp4", source, chunks)
        content = (tmp_path / "out.mp4").read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")

    def test_a_chunk_of_other_settings_is_named(self, tmp_path: Path, source: Path) -> None:
        chunks = make_chunks(tmp_path, [5, 5], RATE)
        make_clip(chunks[1], frames=5, rate=RATE, options={"profile": "baseline", "bf": "0"})
        with pytest.raises(EncoderError, match=r"chunk-00001\.mp4 was encoded with other settings"):
            put_together(tmp_path / "out.mp4", source, chunks, tracks=())

    def test_a_chunk_of_another_rate_is_named(self, tmp_path: Path, source: Path) -> None:
        chunks = make_chunks(tmp_path, [5, 5], RATE)
        with pytest.raises(EncoderError, match=r"chunk-00000\.mp4 is not 25 frames a second"):
            put_together(tmp_path / "out.mp4", source, chunks, rate=Fraction(25), tracks=())

    def test_a_torn_chunk_is_named(self, tmp_path: Path, source: Path) -> None:
        chunks = make_chunks(tmp_path, [5, 5], RATE)
        chunks[1].write_bytes(chunks[1].read_bytes()[:300])
        with pytest.raises(EncoderError, match=r"chunk-00001\.mp4"):
            put_together(tmp_path / "out.mp4", source, chunks, tracks=(), time_map=whole(1))

    def test_a_codec_that_the_container_does_not_hold_is_refused(
        self, tmp_path: Path, source: Path, chunks: list[Path]
    ) -> None:
        with pytest.raises(EncoderError, match="webm does not hold h264"):
            put_together(tmp_path / "out.webm", source, chunks, tracks=())
        assert not (tmp_path / "out.webm").exists()


class TestCopiedAudio:
    """Sound whose time does not change is not touched."""

    def test_packets_are_the_source_s_own_in_every_track(
        self, tmp_path: Path, source: Path, chunks: list[Path]
    ) -> None:
        report = put_together(tmp_path / "out.mp4", source, chunks)
        assert [(track.index, track.action, track.codec) for track in report.audio] == [
            (1, "copy", "aac"),
            (2, "copy", "aac"),
        ]
        for index in (1, 2):
            assert packets_of(tmp_path / "out.mp4", index) == packets_of(source, index)
        with av.open(tmp_path / "out.mp4") as container:
            assert [stream.language for stream in container.streams.audio] == ["deu", "fra"]

    @pytest.mark.parametrize("origin", ["in.mp4", "in.mkv"])
    @pytest.mark.parametrize(
        "starts",
        [(Fraction(0), Fraction(0)), (Fraction(0), Fraction(3, 10)), (Fraction(3, 10), Fraction(0))],
        ids=["together", "audio late", "audio early"],
    )
    def test_sound_and_picture_stay_together(
        self, tmp_path: Path, chunks: list[Path], origin: str, starts: tuple[Fraction, Fraction]
    ) -> None:
        video_start, audio_start = starts
        clip = make_clip(
            tmp_path / origin,
            frames=40,
            rate=20,
            video_start=video_start,
            audio_start=audio_start,
            sounds=[clicks_track([0.75, 1.25], seconds=2.6, sample_rate=48000)],
        )
        before = clicks_in(clip)
        expected = max(0.0, float(sound_of(clip)[0] - first_shown(clip)))
        for name in ("out.mp4", "out.mov", "out.mkv"):
            report = put_together(tmp_path / name, clip, chunks)
            assert report.audio[0].action == "copy"
            assert np.abs(np.array(clicks_in(tmp_path / name)) - before).max() < 0.001
            assert first_shown(tmp_path / name) == 0
            start, _, _ = sound_of(tmp_path / name)
            # Without an edit list the packet that lies across time 0 is left out. The priming of a late track in
            # Matroska is hidden by its codec delay, of which MP4 has no equal.
            slack = 0.001 if origin.endswith("mp4") and not name.endswith("mkv") else 0.023
            assert float(start) == pytest.approx(expected, abs=slack)
            assert float(report.audio[0].start) == pytest.approx(float(start), abs=slack)

    @pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
    def test_sound_beyond_the_picture_is_cut_to_the_nearest_packet(
        self, tmp_path: Path, source: Path, name: str
    ) -> None:
        short = make_chunks(tmp_path, [30], RATE)
        time_map = whole(1.5)
        report = put_together(tmp_path / name, source, short, time_map=time_map, seconds=1.5)
        start, sound, rate = sound_of(tmp_path / name)
        assert abs(float(start) + sound.shape[1] / rate - 1.5) < 0.0125
        assert abs(report.audio[0].start + report.audio[0].duration - Fraction(3, 2)) < Fraction(1, 80)
        with av.open(tmp_path / name) as container:
            assert (container.duration or 0) / 1e6 == pytest.approx(1.5, abs=0.002)

    def test_sound_that_ends_early_stays_short(self, tmp_path: Path, source: Path, chunks: list[Path]) -> None:
        longer = [*chunks, *make_chunks(tmp_path, [20], RATE)]
        report = put_together(tmp_path / "out.mp4", source, longer)
        assert report.video_frames == 60
        assert float(report.audio[0].duration) == pytest.approx(2, abs=0.03)


class TestEncodedAudio:
    """Sound that is cut or stretched."""

    @pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
    def test_it_begins_at_zero_and_is_as_long_as_the_picture(self, tmp_path: Path, source: Path, name: str) -> None:
        more: dict[str, Any] = (
            {"codec": "libvpx-vp9", "suffix": ".webm", "options": {"cpu-used": "8"}} if name.endswith("webm") else {}
        )
        parts = make_chunks(tmp_path, [21], RATE, **more)
        report = put_together(tmp_path / name, source, parts, time_map=TimeMap((Stretch(0.3, 1.35, 1.0),)), seconds=2)
        codec = "opus" if name.endswith(("mkv", "webm")) else "aac"
        assert [(t.codec, t.action, t.start, t.duration) for t in report.audio] == [
            (codec, "encode", Fraction(0), Fraction(21, 20))
        ] * 2
        for track in (0, 1):
            start, sound, rate = sound_of(tmp_path / name, track)
            assert start == 0
            assert abs(sound.shape[1] - 1.05 * rate) <= 1024
        assert np.abs(np.array(clicks_in(tmp_path / name)) - [0.2, 0.95]).max() < 0.003
        with av.open(tmp_path / name) as container:
            assert (container.duration or 0) / 1e6 == pytest.approx(1.05, abs=0.02)

    @pytest.mark.parametrize("speed", [0.1, 0.25, 0.5, 0.8, 1.25, 2.0, 3.0, 10.0])
    @pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
    def test_clicks_keep_their_frame_after_trim_and_speed(self, tmp_path: Path, speed: float, name: str) -> None:
        length = max(0.5, 0.4 * speed)
        inside = [0.5 + 0.25 * length, 0.5 + 0.75 * length]
        times = [0.25, *inside, 0.5 + length + 0.5]
        clip = make_clip(
            tmp_path / "in.mp4",
            frames=round(20 * (length + 1.5)),
            rate=20,
            sounds=[clicks_track(times, seconds=length + 1.5, sample_rate=44100)],
            sample_rate=44100,
        )
        time_map = TimeMap(
            (Stretch(0.1, 0.5, 1.0), Stretch(0.5, 0.5 + length, speed), Stretch(0.5 + length, 1.4 + length, 1.0))
        )
        frames = round(time_map.duration * 20)
        parts = make_chunks(tmp_path, [frames], RATE)
        put_together(tmp_path / name, clip, parts, time_map=time_map, seconds=length + 1.5)
        heard = np.array(clicks_in(tmp_path / name))
        assert len(heard) == 4
        assert np.abs(heard - time_map.to_output(np.array(times))).max() < 0.005

    @pytest.mark.parametrize(("name", "channels"), [("out.mp4", 6), ("out.mkv", 6), ("out.mp4", 3)])
    def test_surround_is_kept(self, tmp_path: Path, name: str, channels: int) -> None:
        layout = {6: "5.1", 3: "2.1"}[channels]
        clip = make_clip(
            tmp_path / "in.mkv",
            frames=40,
            rate=20,
            sounds=[clicks_track([0.5], seconds=2, sample_rate=48000, channels=channels)],
            audio_codec="pcm_s16le" if channels == 3 else "ac3",
            layout=layout,
        )
        time_map = TimeMap((Stretch(0.25, 2, 1.0),))
        parts = make_chunks(tmp_path, [35], RATE, suffix=".part.mp4")
        report = put_together(tmp_path / name, clip, parts, time_map=time_map, seconds=2)
        with av.open(tmp_path / name) as container:
            assert container.streams.audio[0].layout.name == {6: "5.1", 3: "3.0"}[channels]
        assert bool(report.notes) == (channels == 3)

    def test_undecodable_sound_removes_the_output_unless_silence_will_do(
        self, tmp_path: Path, source: Path, chunks: list[Path]
    ) -> None:
        content = bytearray(source.read_bytes())
        for _, packet in packets_of(source, 1)[20:24]:
            place = content.index(packet)
            content[place : place + len(packet)] = b"\xff" * len(packet)
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(content)
        time_map = TimeMap((Stretch(0, 0.5, 1.0), Stretch(0.5, 2, 1.5)))
        with pytest.raises(DecodeError):
            put_together(tmp_path / "out.mp4", broken, chunks, time_map=time_map, seconds=2)
        assert not (tmp_path / "out.mp4").exists()
        report = put_together(tmp_path / "out.mp4", broken, chunks, time_map=time_map, seconds=2, keep_going=True)
        assert report.lost_audio == 4


class TestTheRest:
    """Subtitles, chapters, attachments, cover art and metadata."""

    @pytest.fixture
    def rich(self, tmp_path: Path) -> Path:
        return Path(
            make_clip(
                tmp_path / "rich.mkv",
                frames=40,
                rate=20,
                sounds=[clicks_track([1], seconds=2, sample_rate=48000)],
                languages=["jpn"],
                subtitles=[(0.1, 0.4, "gone"), (0.4, 0.8, "clipped"), (1.0, 1.5, "mapped"), (1.9, 2, "late")],
                chapters=[(0, 0.4, "One"), (0.4, 1.2, "Two"), (1.2, 2.0, "Three")],
                metadata={"title": "Holiday", "comment": "by the sea", "creation_time": "2024-05-06T07:08:09Z"},
                attachments=[("font.ttf", "application/x-truetype-font", b"\0\1\2" * 100)],
            )
        )

    @pytest.fixture
    def mapped(self, tmp_path: Path, rich: Path) -> Path:
        """From 0.5 s on: half a second as it is, then a second at half speed up to 1.75 s."""
        time_map = TimeMap((Stretch(0.5, 1.0, 1.0), Stretch(1.0, 1.75, 0.5)))
        parts = make_chunks(tmp_path, [40], RATE)
        put_together(tmp_path / "out.mkv", rich, parts, time_map=time_map, seconds=2)
        return tmp_path / "out.mkv"

    def test_subtitles_follow_the_time_map(self, mapped: Path) -> None:
        with av.open(mapped) as container:
            (track,) = container.streams.subtitles
            shown = [
                (float((p.pts or 0) * p.time_base), float((p.duration or 0) * p.time_base), bytes(p))
                for p in container.demux(track)
                if p.size
            ]
        assert shown == [(0.0, 0.3, b"clipped"), (0.5, 1.0, b"mapped")]

    def test_chapters_follow_the_time_map(self, mapped: Path) -> None:
        with av.open(mapped) as container:
            chapters = [
                (
                    chapter["metadata"]["title"],
                    *(float(chapter[edge] * (chapter["time_base"] or 0)) for edge in ("start", "end")),
                )
                for chapter in container.chapters()
            ]
        assert chapters == [("Two", 0.0, 0.9), ("Three", 0.9, 2.0)]

    def test_attachments_are_the_same_bytes(self, mapped: Path) -> None:
        with av.open(mapped) as container:
            (attachment,) = [stream for stream in container.streams if isinstance(stream, AttachmentStream)]
            assert attachment.name == "font.ttf"
            assert attachment.mimetype == "application/x-truetype-font"
            assert attachment.data == b"\0\1\2" * 100

    @pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
    def test_metadata_is_kept_but_for_what_is_no_longer_true(
        self, tmp_path: Path, rich: Path, chunks: list[Path], name: str
    ) -> None:
        put_together(tmp_path / name, rich, chunks, extra_metadata={"comment": "upscaled"})
        with av.open(tmp_path / name) as container:
            kept = {key.lower(): value for key, value in container.metadata.items()}
            assert kept["title"] == "Holiday"
            assert kept["comment"] == "upscaled"
            assert kept["creation_time"].startswith("2024-05-06T07:08:09")
            assert "duration" not in kept
            assert container.streams.audio[0].language == "jpn"

    def test_dispositions_are_kept(self, tmp_path: Path, chunks: list[Path]) -> None:
        clip = make_clip(
            tmp_path / "in.mkv",
            frames=40,
            rate=20,
            sounds=[clicks_track([1], seconds=2, sample_rate=48000)] * 2,
            dispositions=[Disposition.default, Disposition.visual_impaired],
        )
        put_together(tmp_path / "out.mkv", clip, chunks)
        with av.open(tmp_path / "out.mkv") as container:
            assert [stream.disposition for stream in container.streams.audio] == [
                Disposition.default,
                Disposition.visual_impaired,
            ]

    @pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
    def test_apple_keys_survive(self, tmp_path: Path, chunks: list[Path], name: str) -> None:
        key = "com.apple.quicktime.make"
        clip = make_clip(tmp_path / "in.mkv", frames=40, rate=20, metadata={key: "Orchard", "title": "Holiday"})
        put_together(tmp_path / name, clip, chunks)
        with av.open(tmp_path / name) as container:
            kept = {name.lower(): value for name, value in container.metadata.items()}
        assert kept[key] == "Orchard"
        assert kept["title"] == "Holiday"

    @pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
    def test_cover_art_is_the_same_picture(self, tmp_path: Path, shared: Path, chunks: list[Path], name: str) -> None:
        clip = shared / "clips" / "coverart_png_640x360.mp4"
        put_together(tmp_path / name, clip, chunks, seconds=2)
        (before,) = packets_of(clip, 2)
        with av.open(tmp_path / name) as container:
            (cover,) = [s for s in container.streams if s.disposition & Disposition.attached_pic]
            picture = next(packet for packet in container.demux(cover) if packet.size)
            assert bytes(picture) == before[1]


class TestRealClips:
    """Files of many makers."""

    @pytest.mark.parametrize("container", get_args(Container)[:3])
    @pytest.mark.parametrize(
        "name",
        [
            "multi_2video_2audio_2subs_nasa.mp4",
            "subs_ass_1080x720_ac3mono.mkv",
            "attachment_testsrc_640x360.mkv",
            "editlist_positive_shift_1920x1080.mp4",
            "phone_vfr_270x480_aac.mp4",
            "interlaced_480i_bff_sar32-27_testpattern_cut.ts",
            "bt601_640x428_aacmono.mov",
            "hlg_hevc10_1920x1080.mp4",
            "odd_161x121_vp9.webm",
        ],
    )
    def test_copied_tracks_keep_their_offset_and_their_number(
        self, tmp_path: Path, shared: Path, chunks: list[Path], name: str, container: Container
    ) -> None:
        clip = shared / "clips" / name
        output = tmp_path / f"out.{container}"
        tracks = plans(clip, output, whole(2), 2)
        report = put_together(output, clip, chunks, tracks=tracks, seconds=2)
        origin = first_shown(clip)
        kept = [track for track in tracks if track.action != "drop"]
        with av.open(output) as reopened:
            assert len(reopened.streams) == 1 + len(kept)
        before = {s.index: n for n, s in enumerate(s for s in streams_of(clip) if s.kind == "audio")}
        for number, track in enumerate(report.audio):
            start, _, _ = sound_of(output, number)
            if track.action == "encode":
                assert start == 0
                continue
            expected = max(Fraction(0), sound_of(clip, before[track.index])[0] - origin)
            slack = 0.03 if container == "mkv" else 0.001
            assert float(start) == pytest.approx(float(expected), abs=slack)

    @pytest.mark.parametrize("name", ["animation_bbb_1280x720_aac51.mp4", "people_dog_1280x720_rot90_aac.mp4"])
    def test_a_slowed_part_is_as_long_as_planned(self, tmp_path: Path, shared: Path, name: str) -> None:
        parts = make_chunks(tmp_path, [60], RATE)
        time_map = TimeMap((Stretch(1, 2, 1.0), Stretch(2, 3, 0.5)))
        output = tmp_path / "out.mp4"
        put_together(output, shared / "clips" / name, parts, time_map=time_map, seconds=5)
        start, sound, rate = sound_of(output)
        assert start == 0
        assert abs(sound.shape[1] / rate - 3) < 1024 / rate
        with av.open(output) as container:
            assert container.streams.video[0].metadata.get("rotate") is None


class TestConduct:
    """Progress, interruption and trouble with the disk."""

    def test_progress_rises_from_nothing_to_one(self, tmp_path: Path, source: Path, chunks: list[Path]) -> None:
        seen: list[float] = []
        put_together(tmp_path / "out.mp4", source, chunks, on_progress=seen.append)
        assert seen == sorted(set(seen))
        assert 0 < seen[0] < 0.2
        assert seen[-1] == 1

    def test_the_whole_file_is_on_the_disk_on_return(
        self, tmp_path: Path, source: Path, chunks: list[Path], flushed: list[int]
    ) -> None:
        put_together(tmp_path / "out.mp4", source, chunks)
        assert flushed == [(tmp_path / "out.mp4").stat().st_size]

    @pytest.mark.parametrize("calls", [1, 4, 5])
    def test_being_stopped_leaves_nothing_behind(
        self, tmp_path: Path, source: Path, chunks: list[Path], calls: int
    ) -> None:
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked >= calls

        with pytest.raises(Interrupted):
            put_together(tmp_path / "out.mp4", source, chunks, should_stop=stop)
        assert not (tmp_path / "out.mp4").exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
    @pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
    def test_a_full_disk_is_said_to_be_full(self, tmp_path: Path, source: Path, chunks: list[Path], name: str) -> None:
        (tmp_path / name).symlink_to("/dev/full")
        with pytest.raises(StorageError) as caught:
            put_together(tmp_path / name, source, chunks)
        assert "space" in caught.value.message.lower() + (caught.value.remedy or "").lower()
        assert not (tmp_path / name).is_symlink()

    def test_a_folder_that_is_not_there_is_a_storage_error(
        self, tmp_path: Path, source: Path, chunks: list[Path]
    ) -> None:
        with pytest.raises(StorageError):
            put_together(tmp_path / "nowhere" / "out.mp4", source, chunks)

    def test_names_with_colons_and_spaces_are_files(
        self, tmp_path: Path, source: Path, chunks: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assemble(
            chunks=chunks,
            output=Path("take 2:final %d.mp4"),
            container="mp4",
            rate=RATE,
            source=str(source),
            origin=Fraction(0),
            time_map=whole(2),
            tracks=(),
        )
        assert len(numbers_in(tmp_path / "take 2:final %d.mp4")) == 40

    def test_the_muxer_is_fed_in_order_of_time(
        self, tmp_path: Path, source: Path, chunks: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        due: list[float] = []
        merge = heapq.merge

        def watched(*feeds: Any, key: Any) -> Any:
            for timed in merge(*feeds, key=key):
                due.append(key(timed))
                yield timed

        monkeypatch.setattr("heapq.merge", watched)
        put_together(tmp_path / "out.mp4", source, chunks, time_map=TimeMap((Stretch(0, 2, 0.5),)), seconds=2)
        assert due == sorted(due)
        assert len(due) > 100
