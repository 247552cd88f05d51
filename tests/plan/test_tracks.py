"""What becomes of the tracks beside the picture is decided from the header alone."""

from __future__ import annotations

import io
from typing import Any, get_args

import av
import pytest

from keyscale.engine.camera.timemap import Stretch, TimeMap
from keyscale.engine.errors import UsageError
from keyscale.engine.plan import tracks
from keyscale.engine.plan.tracks import Container, TrackPlan, container_of, plan_tracks, video_codec_fits
from keyscale.engine.source.probe import StreamInfo

WHOLE = TimeMap((Stretch(0, 10, 1),))
VIDEO = StreamInfo(index=0, kind="video", codec="h264")
ALL: tuple[Container, ...] = get_args(Container)


def stream(kind: Any, codec: str | None, **more: Any) -> StreamInfo:
    return StreamInfo(index=1, kind=kind, codec=codec, **more)


def plan_of(one: StreamInfo, container: Container, time_map: TimeMap = WHOLE, *, audio: bool = True) -> TrackPlan:
    (plan,) = plan_tracks((VIDEO, one), 0, container, time_map, source_duration=10, audio=audio)
    return plan


@pytest.mark.parametrize(
    ("path", "container"),
    [("a.mp4", "mp4"), ("b/a.M4V", "mp4"), ("a.mov", "mov"), ("a.b.mkv", "mkv"), ("a.webm", "webm")],
)
def test_the_extension_names_the_container(path: str, container: str) -> None:
    assert container_of(path) == container


@pytest.mark.parametrize("path", ["clip", "clip.avi", "clip.mp4.part", ".mp4"])
def test_another_extension_is_refused_with_the_ones_there_are(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        container_of(path)
    assert ".mkv" in (caught.value.remedy or "")


def test_video_codecs_go_where_they_fit() -> None:
    assert video_codec_fits("mp4", "hevc")
    assert video_codec_fits("mov", "prores")
    assert not video_codec_fits("mp4", "prores")
    assert not video_codec_fits("webm", "h264")


@pytest.mark.parametrize("container", ALL)
def test_the_muxer_takes_every_codec_of_the_tables(container: Container) -> None:
    name = "matroska" if container == "mkv" else container
    with av.open(io.BytesIO(), "w", format=name) as out:
        cover = tracks._COVER[container] if container != "mkv" else frozenset()
        for table in (tracks._VIDEO[container], tracks._AUDIO[container], tracks._SUBTITLE[container], cover):
            for codec in table:
                out.add_mux_stream(codec)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("mov", "alac"), ("mkv", "dts"), ("webm", "opus")])
def test_audio_is_copied_where_time_is_unchanged_and_the_container_holds_it(container: Container, codec: str) -> None:
    assert plan_of(stream("audio", codec), container) == TrackPlan(1, "audio", "copy", codec, "")


@pytest.mark.parametrize(
    "time_map",
    [
        TimeMap((Stretch(1, 10, 1),)),
        TimeMap((Stretch(0, 8, 1),)),
        TimeMap((Stretch(0, 5, 1), Stretch(5, 10, 2))),
    ],
    ids=["start", "end", "speed"],
)
def test_audio_that_is_cut_or_stretched_is_encoded_anew(time_map: TimeMap) -> None:
    plan = plan_of(stream("audio", "aac"), "mp4", time_map)
    assert (plan.action, plan.codec) == ("encode", "aac")
    assert plan.reason


def test_rounding_to_whole_frames_at_the_end_is_no_cut() -> None:
    assert plan_of(stream("audio", "aac"), "mp4", TimeMap((Stretch(0, 9.97, 1),))).action == "copy"


@pytest.mark.parametrize(
    ("container", "codec", "encoder"),
    [("mp4", "pcm_s16le", "aac"), ("mov", "vorbis", "aac"), ("mkv", "wmav2", "opus"), ("webm", "aac", "opus")],
)
def test_audio_that_the_container_does_not_hold_is_encoded(container: Container, codec: str, encoder: str) -> None:
    plan = plan_of(stream("audio", codec), container)
    assert (plan.action, plan.codec) == ("encode", encoder)
    assert codec in plan.reason


def test_every_audio_track_is_kept() -> None:
    streams = (VIDEO, *(StreamInfo(index=i, kind="audio", codec="aac") for i in (1, 2, 3)))
    plans = plan_tracks(streams, 0, "mp4", WHOLE)
    assert [(plan.index, plan.action) for plan in plans] == [(1, "copy"), (2, "copy"), (3, "copy")]


def test_without_audio_it_is_dropped_and_nobody_is_warned() -> None:
    plan = plan_of(stream("audio", "aac"), "mp4", audio=False)
    assert plan == TrackPlan(1, "audio", "drop", "aac", "the sound is not wanted", missed=False)


def test_audio_of_an_unknown_codec_is_dropped_with_a_reason() -> None:
    plan = plan_of(stream("audio", None), "mkv")
    assert plan.action == "drop"
    assert plan.reason


@pytest.mark.parametrize(
    ("container", "codec", "action"),
    [
        ("mp4", "mov_text", "copy"),
        ("mov", "mov_text", "copy"),
        ("mp4", "subrip", "drop"),
        ("mkv", "ass", "copy"),
        ("mkv", "hdmv_pgs_subtitle", "copy"),
        ("mkv", "mov_text", "drop"),
        ("webm", "webvtt", "copy"),
        ("webm", "ass", "drop"),
    ],
)
def test_subtitles_are_copied_or_dropped_with_a_reason(container: Container, codec: str, action: str) -> None:
    plan = plan_of(stream("subtitle", codec), container, TimeMap((Stretch(2, 4, 0.5),)))
    assert plan.action == action
    assert bool(plan.reason) == (action == "drop")


def test_a_dropped_subtitle_says_which_container_holds_it() -> None:
    assert "mkv" in plan_of(stream("subtitle", "ass"), "mp4").reason
    assert "mp4" in plan_of(stream("subtitle", "mov_text"), "mkv").reason


@pytest.mark.parametrize("container", ALL)
def test_attachments_live_in_mkv(container: Container) -> None:
    plan = plan_of(stream("attachment", "ttf"), container)
    assert plan.action == ("copy" if container == "mkv" else "drop")


@pytest.mark.parametrize(
    ("container", "codec", "action"),
    [("mp4", "mjpeg", "copy"), ("mp4", "webp", "drop"), ("mkv", "png", "copy"), ("mov", "png", "drop")],
)
def test_cover_art_is_kept_where_the_container_has_a_place_for_it(
    container: Container, codec: str, action: str
) -> None:
    plan = plan_of(stream("video", codec, attached_picture=True), container)
    assert (plan.kind, plan.action) == ("cover", action)


def test_a_second_video_is_dropped_with_a_reason() -> None:
    plan = plan_of(stream("video", "h264"), "mkv")
    assert (plan.kind, plan.action) == ("video", "drop")
    assert plan.reason


def test_data_is_dropped_with_a_reason_and_a_warning_only_where_it_has_a_name() -> None:
    plan = plan_of(stream("data", None), "mov")
    assert (plan.action, plan.missed) == ("drop", False)
    assert "timecode" in plan.reason
    plan = plan_of(stream("data", "klv"), "mov")
    assert plan.missed
    assert "klv" in plan.reason


@pytest.mark.parametrize("rate", [8000, 11025, 12000])
def test_mp3_below_16_khz_is_encoded_for_mp4_alone(rate: int) -> None:
    track = stream("audio", "mp3", sample_rate=rate, channels=1)
    assert (plan_of(track, "mp4").action, plan_of(track, "mp4").codec) == ("encode", "aac")
    assert f"{rate} Hz" in plan_of(track, "mp4").reason
    assert plan_of(track, "mov").action == plan_of(track, "mkv").action == "copy"
    assert plan_of(stream("audio", "mp3", sample_rate=16000, channels=1), "mp4").action == "copy"


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("mov", "pcm_s24le"), ("mkv", "pcm_s24le")])
def test_more_than_eight_channels_are_encoded_as_pcm_where_that_holds_them(container: Container, codec: str) -> None:
    track = stream("audio", "pcm_s16le", sample_rate=48000, channels=16)
    assert plan_of(track, container, TimeMap((Stretch(1, 9, 1),))).codec == codec


def test_the_upscaled_video_has_no_plan() -> None:
    assert plan_tracks((VIDEO,), 0, "mp4", WHOLE) == ()


def test_sound_whose_times_step_back_is_encoded() -> None:
    track = StreamInfo(index=1, kind="audio", codec="aac", sample_rate=48000, channels=2, disordered=True)
    plan = plan_of(track, "mp4")
    assert (plan.action, plan.codec) == ("encode", "aac")
    assert "step back" in plan.reason
