"""Every shared clip either becomes a verified result with the planned frames, or fails with the right exit code.

The clips are real videos, most with one special property, some corrupt; their README says which. Sizes, times and
counts below were read with `ffprobe -count_frames` semantics (every displayed frame decoded by PyAV 18 / FFmpeg 8),
and the counts are made anew in the test from decoded frames, not from the probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest
from support.numbered import leftovers, run, small_job, times

from keyscale.engine.errors import KeyscaleError
from keyscale.engine.source.probe import probe

NTSC = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)
TARGET = (54, 96)


@dataclass(frozen=True)
class Good:
    """A clip that succeeds."""

    display: tuple[int, int]
    """Size as displayed: rotation and sample aspect applied."""
    rate: Fraction | int
    """Of `--fps source`."""
    frames: int
    """Displayed frames of the source."""
    at_source_rate: int
    at_30: int
    why: str
    slow: bool = False


@dataclass(frozen=True)
class Bad:
    """A clip that fails: always with exit code 3, unreadable input."""

    says: str
    """Part of the message."""
    why: str


CLIPS: dict[str, Good | Bad] = {
    "animation_bbb_1280x720_aac51.mp4": Good((1280, 720), 25, 132, 132, 158, "25 to 30: 5.28 s; 5.1 sound"),
    "animation_bbb_800x640_sar64-45.mp4": Good((1138, 640), 30, 120, 120, 120, "800 * 64 / 45 = 1137.8 wide"),
    "attachment_testsrc_640x360.mkv": Good((640, 360), 30, 60, 60, 60, "its attachment is left out of MP4"),
    "audio_only_opus.mp4": Bad("no video stream", "sound alone"),
    "bt601_640x428_aacmono.mov": Good(
        (640, 428), NTSC, 30, 31, 31, "its last frame is stored to last 0.053 s: 1.0201 s are 30.57 frames"
    ),
    "corrupt_invalid_nalu.mp4": Bad("cannot be decoded", "a broken picture in mid-stream"),
    "corrupt_vp9_invalid.webm": Bad("no frame", "nothing in it decodes"),
    "corrupt_zero_video_frames.ts": Bad("no frame", "a picture track without pictures"),
    "coverart_png_640x360.mp4": Good((640, 360), 30, 60, 60, 60, "the cover is not the video"),
    "editlist_positive_shift_1920x1080.mp4": Good(
        (1920, 1080), 30, 270, 270, 270, "an edit list delays the picture; time starts at its first frame", slow=True
    ),
    "empty_0_bytes.mp4": Bad("empty", "0 bytes"),
    "flower_960x540_2997_aac.mp4": Good((960, 540), NTSC, 150, 150, 150, "5.005 s are 150.15 frames of 1/30 s"),
    "fragmented_1080x720.mp4": Good((1080, 720), NTSC, 30, 30, 30, "movie fragments, no index in front"),
    "hdr_vp9p2_10bit_426x240.webm": Good((426, 240), FILM, 72, 72, 90, "10 bit VP9 of 3.002 s, tagged BT.2020"),
    "hlg_hevc10_1920x1080.mp4": Good((1920, 1080), 30, 9, 9, 9, "HLG; claims 29.99 frames a second"),
    "interlaced_480i_bff_sar32-27_testpattern_cut.ts": Good(
        (853, 480), NTSC, 29, 29, 29, "720 * 32 / 27 = 853.3 wide; the recording is cut in its last frame"
    ),
    "long_362s_1920x1080_30_aac.mp4": Good((1920, 1080), 30, 10883, 10883, 10883, "six minutes", slow=True),
    "multi_2video_2audio_2subs_nasa.mp4": Good((320, 180), 25, 325, 325, 390, "the default of two pictures"),
    "not_a_video.mp4": Bad("not a video", "a line of text"),
    "odd_161x121_vp9.webm": Good((161, 121), NTSC, 30, 30, 30, "odd sides; claims 29.97 exactly"),
    "people_dog_1280x720_rot90_aac.mp4": Good(
        (720, 1280), NTSC, 149, 149, 149, "rotated by its display matrix", slow=True
    ),
    "phone_vfr_270x480_aac.mp4": Good(
        (270, 480), 30, 68, 72, 72, "variable rate: 68 frames in 2.410 s, 30 a second between gaps"
    ),
    "rot180_568x320.mov": Good((568, 320), 30, 3, 3, 3, "upside down by its display matrix"),
    "screencast_1920x1080_60_hevc_aacmono.mp4": Good(
        (1920, 1080), 60, 1021, 1021, 511, "60 to 30; 17.017 s are 510.5 frames", slow=True
    ),
    "sports_basketball_426x240_2997.mp4": Good((426, 240), NTSC, 300, 300, 300, "10.01 s"),
    "subs_ass_1080x720_ac3mono.mkv": Good((1080, 720), 30, 30, 30, 30, "claims 1000 frames a second"),
    "trunc_mdat.mp4": Bad("truncated", "its index points past its end"),
    "ts_h264_854x480.ts": Good((854, 480), 30, 30, 30, 30, "starts at a time other than 0"),
    "yuv422p_640x360.mp4": Good((640, 360), 30, 60, 60, 60, "4:2:2"),
}

LONG = "long_362s_1920x1080_30_aac.mp4"


def whole_length() -> list[object]:
    """Every clip at its own rate, and at 30 where that is another number of frames; the rest of them slowly."""
    return [
        pytest.param(
            name,
            rate,
            marks=[pytest.mark.slow] if clip.slow or (rate and clip.at_30 == clip.at_source_rate) else [],
            id=f"{name}-{rate or 'source'}",
        )
        for name, clip in CLIPS.items()
        for rate in (None, 30)
        if isinstance(clip, Good) and name != LONG
    ]


def decoded_times(path: Path, stream: int) -> list[Fraction]:
    """Times of all displayed frames, as FFmpeg decodes them, from the first on."""
    with av.open(path) as container:
        video = container.streams[stream]
        assert isinstance(video, av.VideoStream)
        video.thread_type = "AUTO"
        found = [
            Fraction(frame.pts) * frame.time_base
            for frame in container.decode(video)
            if frame.pts is not None and frame.time_base is not None and not frame.is_corrupt
        ]
    return [time - found[0] for time in found]


def test_the_table_names_every_clip(shared: Path) -> None:
    clips = {path.name for path in (shared / "clips").iterdir() if path.suffix != ".md"}
    assert clips == set(CLIPS)


@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if isinstance(clip, Good)])
def test_a_clip_is_seen_as_it_is_displayed(shared: Path, name: str) -> None:
    clip = CLIPS[name]
    assert isinstance(clip, Good)
    info = probe(shared / "clips" / name)
    assert (info.width, info.height) == clip.display
    assert info.rate == clip.rate
    assert len(info.pts) == clip.frames


@pytest.mark.parametrize(("name", "rate"), whole_length())
def test_a_clip_becomes_a_verified_result(shared: Path, tmp_path: Path, name: str, rate: int | None) -> None:
    clip = CLIPS[name]
    assert isinstance(clip, Good)
    source, output = shared / "clips" / name, tmp_path / "out.mp4"
    before = source.stat()
    result = run(small_job(source, output, size=TARGET, rate=Fraction(rate) if rate else None))

    frames = clip.at_30 if rate else clip.at_source_rate
    assert result.done.frames == result.plan.frames == frames
    target_rate = Fraction(rate or clip.rate)
    assert times(output) == [n / target_rate for n in range(frames)]
    with av.open(output) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == TARGET
    assert leftovers(tmp_path, "out.mp4") == []
    assert (source.stat().st_size, source.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)

    # The contract, from the frames that FFmpeg decodes: the last one whose time is <= n / rate plus one tick; a tick
    # of half a frame or more has nothing to forgive.
    info = result.plan.info
    source_times = decoded_times(source, info.video_index)
    assert len(source_times) == clip.frames
    slack = min(info.time_base, 1 / Fraction(clip.rate) / 2)
    expected = [max(i for i, time in enumerate(source_times) if time <= n / target_rate + slack) for n in range(frames)]
    assert result.plan.source_index.tolist() == expected


def test_a_part_of_a_long_clip(shared: Path, tmp_path: Path) -> None:
    """Far into the file, where the decoder has to seek."""
    output = tmp_path / "out.mp4"
    result = run(small_job(shared / "clips" / LONG, output, size=TARGET, start=350.0, end=351.5))
    assert result.plan.source_index.tolist() == list(range(10500, 10545))
    assert len(times(output)) == 45


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_of_a_long_clip(shared: Path, tmp_path: Path) -> None:
    clip = CLIPS[LONG]
    assert isinstance(clip, Good)
    output = tmp_path / "out.mp4"
    result = run(small_job(shared / "clips" / LONG, output, size=TARGET))
    assert result.done.frames == clip.at_source_rate
    assert times(output) == [Fraction(n, 30) for n in range(clip.at_source_rate)]
    assert result.plan.source_index.tolist() == list(range(clip.frames))


@pytest.mark.parametrize("rate", [None, Fraction(30)], ids=["source", "30"])
@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if isinstance(clip, Bad)])
def test_a_broken_clip_is_refused_and_leaves_nothing(
    shared: Path, tmp_path: Path, name: str, rate: Fraction | None
) -> None:
    clip = CLIPS[name]
    assert isinstance(clip, Bad)
    with pytest.raises(KeyscaleError, match=clip.says) as caught:
        run(small_job(shared / "clips" / name, tmp_path / "out.mp4", size=TARGET, rate=rate))
    assert caught.value.exit_code == 3
    assert name in caught.value.message
    assert caught.value.remedy
    assert leftovers(tmp_path) == []


BRIDGED = {
    # Frames lost of frames planned, as seen by decoding with FFmpeg: what is absent between first and last time.
    "corrupt_invalid_nalu.mp4": 30,
    "trunc_mdat.mp4": None,
}


@pytest.mark.parametrize("name", BRIDGED)
def test_damage_is_bridged_and_counted_when_asked(shared: Path, tmp_path: Path, name: str) -> None:
    job = small_job(shared / "clips" / name, tmp_path / "out.mp4", size=TARGET, keep_going_on_decode_errors=True)
    result = run(job)
    assert result.done.lost_frames > 0
    assert result.done.frames == result.plan.frames == len(times(result.path))
    if (planned := BRIDGED[name]) is not None:
        assert result.plan.frames == planned
    assert leftovers(tmp_path, "out.mp4") == []
