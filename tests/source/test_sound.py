"""Sound of any number and order of channels is decoded; each channel of the source is heard where it belongs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.boxes import named_channels
from support.clips import clicks_in, clicks_track
from support.numbered import run, shown, small_job
from support.sounds import LOUD, channels_of_tones, tones, tones_in, write_sound

from keyscale.engine.camera.timemap import Stretch, TimeMap
from keyscale.engine.job import Encoding
from keyscale.engine.output.audio import AudioTarget, choose_target, mapped_audio
from keyscale.engine.output.decode_audio import AudioReport, AudioSource, measure_audio
from keyscale.engine.source.probe import probe
from keyscale.engine.source.sound import Mixer, frame_of, samples_of

ALL_BUT_LFE = [0, 1, 2, None, 4, 5, 6, 7]
"""Channels of 7.1 in AAC: its LFE holds no tone above some 120 Hz."""

MANY = {
    "FLAC in MKV": (".mkv", "flac", "7.1"),
    "PCM in MKV, which names no channels": (".mkv", "pcm_s16le", "7.1"),
    "PCM in MOV": (".mov", "pcm_s24le", "7.1"),
    "Opus in MKV": (".mkv", "libopus", "7.1"),
    "AAC in MP4": (".mp4", "aac", "7.1"),
    "WavPack in MKV": (".mkv", "wavpack", "7.1"),
}


def decoded(path: Path, codec: str = "aac", *, start: float = 0.25) -> tuple[AudioTarget, list[int | None]]:
    """How a file's sound is encoded anew from `start` on, and which tone each channel for the encoder holds."""
    rate, layout = measure_audio(str(path), 1)
    target = choose_target(codec, sample_rate=rate, layout=layout)
    pieces = mapped_audio(
        AudioSource(path=str(path), index=1, origin=Fraction(0), rate=rate),
        time_map=TimeMap((Stretch(start, start + 1, 1.0),)),
        target=target,
        duration=Fraction(1),
        report=AudioReport(),
    )
    return target, tones_in(np.concatenate(list(pieces), axis=1), target.sample_rate)


@pytest.mark.parametrize("name", MANY)
def test_eight_channels_are_decoded(tmp_path: Path, name: str) -> None:
    suffix, codec, layout = MANY[name]
    source = write_sound(tmp_path / f"in{suffix}", [tones(8)], codec=codec, layout=layout)
    target, heard = decoded(source)
    assert target.layout == "7.1"
    assert heard == (ALL_BUT_LFE if codec == "aac" else list(range(8)))
    assert probe(source).streams[1].channels == 8


@pytest.mark.parametrize("start", [None, 0.25])
def test_eight_channels_are_in_the_result(tmp_path: Path, start: float | None) -> None:
    source = write_sound(tmp_path / "in.mkv", [tones(8)], codec="flac", layout="7.1", frames=40)
    result = run(small_job(source, tmp_path / "out.mp4", start=start))
    assert channels_of_tones(result.path) == (list(range(8)) if start is None else ALL_BUT_LFE)


def test_eight_channels_are_slowed_down(tmp_path: Path) -> None:
    clicks = clicks_track([0.25, 0.75], seconds=1, sample_rate=48000, channels=8)
    source = write_sound(tmp_path / "in.mkv", [clicks], codec="flac", layout="7.1")
    camera = tmp_path / "camera.json"
    camera.write_text(
        '{"version": 1, "keyframes": [{"time": 0, "x": 0, "y": 0, "width": 64, "height": 48}],'
        ' "segments": [{"start": 0, "end": 1, "speed": 0.5}]}'
    )
    result = run(small_job(source, tmp_path / "out.mp4", keyframes=str(camera)))
    assert np.abs(np.array(clicks_in(result.path)) - [0.5, 1.5]).max() < 0.005


@pytest.mark.parametrize(
    ("suffix", "codec", "count"),
    [(".mkv", "pcm_s16le", 9), (".mov", "pcm_s16le", 16), (".mkv", "wavpack", 9), (".mkv", "libopus", 9)],
)
def test_more_than_eight_are_decoded_and_told_of_where_they_do_not_fit(
    tmp_path: Path, suffix: str, codec: str, count: int
) -> None:
    source = write_sound(
        tmp_path / f"in{suffix}",
        [tones(count)],
        codec=codec,
        layout=f"{count} channels",
        options={"mapping_family": "255"} if codec == "libopus" else {},
    )
    target, heard = decoded(source, "pcm_s24le")
    assert (target.note, heard) == ("", list(range(count)))
    target, heard = decoded(source, "aac")
    assert heard == list(range(8))
    assert f"of its {count} channels the first 8" in target.note


@pytest.mark.parametrize("name", ["out.mkv", "out.mov"])
def test_more_than_eight_are_in_the_result(tmp_path: Path, name: str) -> None:
    source = write_sound(tmp_path / "in.mkv", [tones(9)], codec="pcm_s16le", layout="9 channels", frames=40)
    result = run(small_job(source, tmp_path / name, start=0.25))
    assert [(track.action, track.codec) for track in result.plan.tracks] == [("encode", "pcm_s24le")]
    assert channels_of_tones(result.path) == list(range(9))


@pytest.mark.parametrize("layout", ["5.1.4", "7.1.4", "7.1.2"])
def test_rooms_of_more_than_eight_loudspeakers_are_mixed(tmp_path: Path, layout: str) -> None:
    count = av.AudioLayout(layout).nb_channels
    source = write_sound(tmp_path / "in.mov", [tones(count)], codec="pcm_s16le", layout=layout)
    target, heard = decoded(source)
    assert heard[:3] == [0, 1, 2]
    assert f"{layout} became 7.1" in target.note


@pytest.mark.parametrize(
    ("names", "heard"),
    [
        (["R", "L"], [1, 0]),
        (["L", "C", "R", "Ls", "Rs", "LFE"], [0, 2, 1, 5, 3, 4]),
        (["R", "C", "L"], [2, 0, 1]),
        (["L", "L"], [0, 1]),
        (["LFE", "L"], [0, 1]),
        (["d1", "d0"], [0, 1]),
        (["Lt", "Rt"], [0, 1]),
        (["unused", "unused"], [0, 1]),
        (["unknown", "Mono"], [0, 1]),
        (["Mono"], [0]),
        (["R"], [0]),
        (["L", "R"], [0, 1]),
    ],
)
def test_channels_named_one_by_one_are_put_in_order(tmp_path: Path, names: list[str], heard: list[int | None]) -> None:
    assert decoded(named(tmp_path / "in.mov", names))[1] == heard


def named(path: Path, names: list[str]) -> Path:
    layout = {1: "mono", 2: "stereo", 3: "3.0", 6: "5.1"}[len(names)]
    write_sound(path, [tones(len(names))], codec="pcm_s16be", layout=layout, frames=40)
    path.write_bytes(named_channels(path.read_bytes(), names))
    return path


def test_channels_named_one_by_one_are_in_the_result(tmp_path: Path) -> None:
    source = named(tmp_path / "in.mov", ["R", "C", "L"])
    assert channels_of_tones(run(small_job(source, tmp_path / "out.mp4")).path) == [2, 0, 1]
    # Copied they keep their order and their names; verification decodes them.
    copied = run(small_job(source, tmp_path / "out.mov"))
    assert [track.action for track in copied.plan.tracks] == ["copy"]
    assert channels_of_tones(copied.path) == [0, 1, 2]


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
@pytest.mark.parametrize("start", [None, 0.3])
def test_a_packet_that_holds_nothing_is_no_damage(tmp_path: Path, rate: int, start: float | None) -> None:
    """FLAC ends with one in NUT, which decoders refuse."""
    clicks = clicks_track([0.5, 0.9], seconds=0.98, sample_rate=rate)
    source = write_sound(tmp_path / "in.nut", [clicks], codec="flac", layout="stereo", rate=rate)
    with av.open(source) as container:
        assert [packet.size for packet in container.demux(audio=0) if packet.pts is not None][-1] == 0
    result = run(small_job(source, tmp_path / "out.mp4", start=start))
    assert np.abs(np.array(clicks_in(result.path)) - [0.5 - (start or 0), 0.9 - (start or 0)]).max() < 0.002


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp2", "flac"])
def test_a_packet_of_nothing_in_mid_file_is_no_damage(tmp_path: Path, codec: str) -> None:
    clicks = clicks_track([0.3, 0.7], seconds=1, sample_rate=48000)
    whole = write_sound(tmp_path / "whole.nut", [clicks], codec=codec, layout="stereo")
    with av.open(whole) as given, av.open(tmp_path / "in.nut", "w") as out:
        streams = [out.add_stream_from_template(stream, opaque=True) for stream in given.streams]
        for number, packet in enumerate(given.demux()):
            if packet.pts is None:
                continue
            if packet.stream_index == 1 and packet.pts and number % 3 == 0:
                nothing = av.Packet(b"")
                nothing.pts = nothing.dts = packet.pts - 1
                nothing.time_base, nothing.stream = packet.time_base, streams[1]
                out.mux(nothing)
            packet.stream = streams[packet.stream_index]
            out.mux(packet)
    result = run(small_job(tmp_path / "in.nut", tmp_path / "out.mp4", start=0.2))
    assert np.abs(np.array(clicks_in(result.path)) - [0.1, 0.5]).max() < 0.002


def test_without_sound_its_codec_is_not_asked(tmp_path: Path) -> None:
    source = named(tmp_path / "in.mov", ["R", "L"])
    result = run(small_job(source, tmp_path / "out.mp4", encoding=Encoding(audio=False)))
    assert (result.plan.info.streams[1].sample_rate, result.plan.info.streams[1].channels) == (None, None)
    assert [(track.action, track.reason) for track in result.plan.tracks] == [("drop", "the sound is not wanted")]
    assert shown(result.path) == list(range(40))


@pytest.mark.parametrize("form", ["u8", "u8p", "s16", "s16p", "s32", "s32p", "flt", "fltp", "dbl", "dblp"])
def test_samples_of_every_format(form: str) -> None:
    sound = tones(8, 0.02)
    for part in av.AudioResampler(form, "7.1", 48000).resample(frame_of(sound, layout="7.1", rate=48000, place=0)):
        assert np.abs(samples_of(part) - sound).max() < (0.01 if form.startswith("u8") else 1e-4)


def test_ambisonic_sound_becomes_stereo_with_its_sides() -> None:
    sound = np.zeros((4, 1024), np.float32)
    sound[0] = sound[1] = LOUD  # W and Y of something at the left
    frame = frame_of(sound, layout="ambisonic 1", rate=48000, place=0)
    (mixed,) = Mixer("stereo", 48000).mix(frame)
    assert np.allclose(mixed[0], LOUD)
    assert np.allclose(mixed[1], 0)
