"""Sound is cut and stretched as the picture is: to the sample, in step, and of exactly the planned length."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet
from support.clips import Samples, clicks_track, make_clip, onsets

from keyscale.engine.camera.timemap import Stretch, TimeMap
from keyscale.engine.errors import DecodeError
from keyscale.engine.output import decode_audio as sound_module
from keyscale.engine.output.audio import AudioTarget, choose_target, mapped_audio
from keyscale.engine.output.decode_audio import AudioReport, AudioSource, gapless, measure_audio
from keyscale.engine.output.time_stretch import stretched

SPEEDS = (0.1, 0.25, 0.5, 0.8, 1.25, 2.0, 3.0, 10.0)
RATE = 48000


def reader(track: Samples) -> Callable[[int, int], Samples]:
    """Samples by position, silence outside."""

    def read(start: int, stop: int) -> Samples:
        inside = track[:, max(0, start) : max(0, stop)]
        before = min(stop, 0) - min(start, 0)
        return np.pad(inside, ((0, 0), (before, stop - start - before - inside.shape[1])))

    return read


def played(track: Samples, speed: float, rate: int = RATE) -> Samples:
    count = round(track.shape[1] / speed)
    pieces = stretched(reader(track), samples_in=track.shape[1], samples_out=count, rate=rate)
    result = np.concatenate(list(pieces), axis=1)
    assert result.shape == (track.shape[0], count)
    return result


def mapped(
    path: Path,
    time_map: TimeMap,
    *,
    origin: Fraction = Fraction(0),
    target: AudioTarget | None = None,
    duration: Fraction | None = None,
    report: AudioReport | None = None,
    keep_going: bool = False,
) -> Samples:
    rate, layout = measure_audio(str(path), 1)
    pieces = mapped_audio(
        AudioSource(path=str(path), index=1, origin=origin, rate=rate),
        time_map=time_map,
        target=target or choose_target("aac", sample_rate=rate, layout=layout),
        duration=duration if duration is not None else Fraction(time_map.duration),
        report=report if report is not None else AudioReport(),
        keep_going=keep_going,
    )
    return np.concatenate(list(pieces), axis=1)


def pcm_clip(path: Path, track: Samples, *, rate: int = 8000, start: Fraction = Fraction(0)) -> Path:
    seconds = track.shape[1] / rate
    make_clip(
        path,
        frames=max(1, round(seconds * 10)),
        rate=10,
        sounds=[track],
        sample_rate=rate,
        audio_codec="pcm_f32le",
        audio_start=start,
    )
    return path


def noise(seconds: float, rate: int, channels: int = 1) -> Samples:
    rng = np.random.default_rng(7)
    return (0.1 * rng.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("speed", SPEEDS)
def test_every_click_is_heard_once_and_at_its_place(speed: float, rate: int) -> None:
    spacing = max(0.3, 0.08 * speed)
    times = [0.1 + spacing * number for number in range(4)]
    track = clicks_track(times, seconds=times[-1] + 0.3, sample_rate=rate)
    heard = np.array(onsets(played(track, speed, rate)[0], rate)) / rate
    assert len(heard) == len(times)
    assert np.abs(heard - np.array(times) / speed).max() < 0.002


@pytest.mark.parametrize("speed", SPEEDS)
def test_pitch_and_loudness_stay(speed: float) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(RATE * 0.6 * max(1, speed))) / RATE)
    result = played(tone[None].astype(np.float32), speed)[0]
    spectrum = np.abs(np.fft.rfft(result * np.hanning(result.size)))
    assert abs(spectrum.argmax() * RATE / result.size - 440) < 5
    assert np.sqrt(np.mean(result**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


def test_a_change_of_speed_is_no_click() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE) / RATE).astype(np.float32)[None]
    read = reader(tone)
    slow = np.concatenate(
        list(
            stretched(
                lambda start, stop: read(RATE + start, RATE + stop),
                samples_in=RATE,
                samples_out=2 * RATE,
                rate=RATE,
            )
        ),
        axis=1,
    )
    joined = np.concatenate([tone[:, :RATE], slow, tone[:, 2 * RATE :]], axis=1)[0]
    steepest = np.abs(np.diff(tone[0])).max()
    for joint in (RATE, 3 * RATE):
        assert np.abs(np.diff(joined[joint - 200 : joint + 200])).max() < 1.3 * steepest


@pytest.mark.parametrize("samples", [0, 1, 100, 1500])
def test_a_stretch_shorter_than_a_window_has_its_length(samples: int) -> None:
    for speed in (0.5, 2.0):
        out = max(1, round(samples / speed))
        pieces = stretched(reader(noise(0.1, RATE)), samples_in=samples, samples_out=out, rate=RATE)
        assert sum(piece.shape[1] for piece in pieces) == out


def test_stretching_holds_a_few_seconds_however_long_it_runs() -> None:
    rate = 8000
    rng = np.random.default_rng(1)

    def endless(start: int, stop: int) -> Samples:
        return rng.standard_normal((1, stop - start)).astype(np.float32)

    tracemalloc.start()
    for _ in stretched(endless, samples_in=120 * rate, samples_out=60 * rate, rate=rate):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_trim_is_exact_to_the_sample(tmp_path: Path) -> None:
    track = noise(3, 8000)
    path = pcm_clip(tmp_path / "in.mkv", track)
    got = mapped(path, TimeMap((Stretch(0.5, 2.25, 1.0),)))
    np.testing.assert_allclose(got, track[:, 4000:18000], atol=1e-6)


def test_time_zero_is_the_first_video_frame(tmp_path: Path) -> None:
    track = noise(2, 8000)
    path = pcm_clip(tmp_path / "in.mkv", track)
    got = mapped(path, TimeMap((Stretch(0, 1, 1.0),)), origin=Fraction(1, 2))
    np.testing.assert_allclose(got, track[:, 4000:12000], atol=1e-6)


def test_audio_that_begins_late_is_preceded_by_silence(tmp_path: Path) -> None:
    track = noise(1, 8000)
    path = pcm_clip(tmp_path / "in.mkv", track, start=Fraction(1, 4))
    got = mapped(path, TimeMap((Stretch(0, 1.25, 1.0),)))
    assert not got[:, :2000].any()
    np.testing.assert_allclose(got[:, 2000:], track, atol=1e-6)


def test_audio_that_ends_early_is_followed_by_silence(tmp_path: Path) -> None:
    path = pcm_clip(tmp_path / "in.mkv", noise(1, 8000))
    got = mapped(path, TimeMap((Stretch(0.5, 3, 1.0),)))
    assert got.shape[1] == 20000
    assert got[:, :4000].any()
    assert not got[:, 4000:].any()


def test_many_stretches_do_not_add_up_an_error(tmp_path: Path) -> None:
    rate = 44100
    path = pcm_clip(tmp_path / "in.mov", noise(3, rate), rate=rate)
    edges = np.linspace(0, 3, 32)
    time_map = TimeMap(tuple(Stretch(a, b, 1.0) for a, b in itertools.pairwise(edges)))
    got = mapped(path, time_map)
    whole = mapped(path, TimeMap((Stretch(0, 3, 1.0),)))
    np.testing.assert_array_equal(got, whole)


def test_the_planned_duration_rules_over_the_time_map(tmp_path: Path) -> None:
    path = pcm_clip(tmp_path / "in.mkv", noise(2, 8000))
    for duration in (Fraction(14, 15), Fraction(31, 30)):
        got = mapped(path, TimeMap((Stretch(0, 1, 1.0),)), duration=duration)
        assert got.shape[1] == round(duration * 8000)


def test_another_sample_rate_keeps_time(tmp_path: Path) -> None:
    times = [0.25, 0.75, 1.5]
    path = pcm_clip(tmp_path / "in.mkv", clicks_track(times, seconds=2, sample_rate=44100, channels=1), rate=44100)
    got = mapped(
        path,
        TimeMap((Stretch(0, 2, 1.0),)),
        target=choose_target("opus", sample_rate=44100, layout="mono"),
    )
    assert got.shape[1] == 96000
    assert np.abs(np.array(onsets(got[0], 48000)) / 48000 - times).max() < 0.0005


def test_a_trim_far_into_the_source_is_found_by_seeking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(
        tmp_path / "in.mp4",
        frames=60,
        rate=10,
        sounds=[clicks_track([4.5, 5.2], seconds=6, sample_rate=RATE)],
    )
    time_map = TimeMap((Stretch(4, 5.5, 1.0),))
    decoded = mapped(path, time_map)
    monkeypatch.setattr(sound_module, "_SEEK_FROM", 1.0)
    np.testing.assert_allclose(mapped(path, time_map), decoded, atol=1e-4)


def test_gaps_are_silent_overlaps_are_dropped_and_jitter_is_smoothed() -> None:
    def ones(start: int, count: int) -> tuple[int, Samples]:
        return start, np.ones((1, count), np.float32)

    def laid(*placed: tuple[int, Samples]) -> Samples:
        tape: Iterator[Samples] = gapless(iter(placed), 0, 1000, 1)
        parts = [next(tape)]
        while sum(part.shape[1] for part in parts) < 400:
            parts.append(next(tape))
        return np.concatenate(parts, axis=1)[0, :400]

    gap = laid(ones(0, 100), ones(200, 100))
    assert gap[:100].all()
    assert not gap[100:200].any()
    assert gap[200:300].all()
    assert not gap[300:].any()
    overlap = laid(ones(0, 100), (50, np.full((1, 100), 2, np.float32)))
    assert overlap[99] == 1
    assert overlap[100] == overlap[149] == 2
    assert not overlap[150:].any()
    jitter = laid(ones(0, 100), ones(104, 100), ones(197, 100))
    assert jitter[:300].all()
    assert not jitter[300:].any()


def broken_clip(path: Path, first: float = 0.5, until: float = 0.7, codec: str = "aac") -> Path:
    """A clip whose sound is unreadable from 0.5 to 0.7 s, or as said."""
    whole = make_clip(
        path.with_name("whole.mkv"),
        frames=20,
        rate=10,
        sounds=[clicks_track([0.2, 1.5], seconds=2, sample_rate=RATE)],
        audio_codec=codec,
    )
    with av.open(whole) as source, av.open(path, "w") as out:
        streams = [out.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        for packet in source.demux():
            if not packet.size:
                continue
            good: Packet[av.stream.Stream] = packet
            if packet.stream_index == 1 and first <= max(0, packet.pts or 0) * packet.time_base < until:
                good = Packet(b"\xff" * packet.size)
                good.pts, good.dts, good.duration = packet.pts, packet.dts, packet.duration
                good.time_base = packet.time_base
            good.stream = streams[packet.stream_index]
            out.mux(good)
    return path


def test_audio_that_cannot_be_decoded_is_an_error_that_names_the_time(tmp_path: Path) -> None:
    path = broken_clip(tmp_path / "broken.mkv")
    with pytest.raises(DecodeError, match=r"at 0\.5\d\d s"):
        mapped(path, TimeMap((Stretch(0, 2, 1.0),)))


def test_keeping_on_makes_it_silence_and_counts_it(tmp_path: Path) -> None:
    path = broken_clip(tmp_path / "broken.mkv")
    report = AudioReport()
    got = mapped(path, TimeMap((Stretch(0, 2, 1.0),)), report=report, keep_going=True)
    assert report.lost == 9
    assert np.abs(got[:, round(0.55 * RATE) : round(0.68 * RATE)]).max() < 1e-3
    assert np.abs(np.array(onsets(got[0], RATE)) / RATE - [0.2, 1.5]).max() < 0.005


def test_who_reads_of_sound_that_cannot_be_decoded_is_told_how_to_go_on(tmp_path: Path) -> None:
    path = broken_clip(tmp_path / "broken.mkv")
    with pytest.raises(DecodeError) as caught:
        mapped(path, TimeMap((Stretch(0, 2, 1.0),)))
    assert "audio stream 1 (aac) cannot be decoded at 0.5" in caught.value.message
    assert "--keep-going-on-decode-errors" in str(caught.value.remedy)
    assert "--no-audio" in str(caught.value.remedy)


def test_what_is_lost_counts_once_where_a_seek_ends_in_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = broken_clip(tmp_path / "broken.mkv")
    counts = []
    for seek_from in (10.0, 0.1):
        monkeypatch.setattr(sound_module, "_SEEK_FROM", seek_from)
        monkeypatch.setattr(sound_module, "_RUN_UP", 0.0)
        report = AudioReport()
        got = mapped(path, TimeMap((Stretch(0.55, 2, 1.0),)), report=report, keep_going=True)
        assert np.abs(np.array(onsets(got[0], RATE)) / RATE - [1.5 - 0.55]).max() < 0.005
        counts.append(report.lost)
    assert counts[0] == counts[1] > 0


def test_a_stream_that_its_decoder_refuses_is_told_as_a_whole(tmp_path: Path) -> None:
    path = broken_clip(tmp_path / "broken.mkv", first=0, until=2.1, codec="ac3")
    with pytest.raises(DecodeError, match=r"\(ac3\) cannot be decoded from its beginning to 0\.[34]\d\d s"):
        mapped(path, TimeMap((Stretch(0.5, 2, 1.0),)))


def test_damage_outside_the_trim_is_no_error(tmp_path: Path) -> None:
    path = broken_clip(tmp_path / "broken.mkv")
    assert mapped(path, TimeMap((Stretch(1, 2, 1.0),))).shape[1] == RATE


@pytest.mark.parametrize(
    ("codec", "rate", "layout", "expected"),
    [
        ("aac", 44100, "stereo", (44100, "stereo", "")),
        ("aac", 48000, "5.1(side)", (48000, "5.1", "")),
        ("aac", 48000, "7.1", (48000, "7.1", "")),
        ("aac", 192000, "mono", (96000, "mono", "sample rate")),
        ("aac", 8000, "2.1", (8000, "3.0", "channels 2.1")),
        ("aac", 48000, "quad", (48000, "4.0", "channels quad")),
        ("aac", 48000, "hexadecagonal", (48000, "7.1", "channels hexadecagonal")),
        ("opus", 44100, "stereo", (48000, "stereo", "")),
        ("opus", 48000, "4.0", (48000, "quad", "channels 4.0")),
    ],
)
def test_rate_and_channels_are_kept_where_the_encoder_takes_them(
    codec: str, rate: int, layout: str, expected: tuple[int, str, str]
) -> None:
    target = choose_target(codec, sample_rate=rate, layout=layout)
    assert (target.sample_rate, target.layout) == expected[:2]
    assert expected[2] in target.note
    assert bool(target.note) == bool(expected[2])


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "quad", "5.1(side)", "6.1", "7.1", "6 channels"])
@pytest.mark.parametrize("codec", ["aac", "opus"])
def test_the_encoder_takes_what_is_chosen(codec: str, layout: str) -> None:
    target = choose_target(codec, sample_rate=44100, layout=layout)
    context = av.CodecContext.create(target.encoder, "w")
    assert isinstance(context, av.AudioCodecContext)
    context.layout = target.layout
    context.format = target.format
    context.sample_rate = target.sample_rate
    context.bit_rate = target.bit_rate
    context.open()
