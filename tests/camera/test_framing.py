"""The keyframes file and the camera that follows from it (docs/keyframes.md)."""

from __future__ import annotations

import json
import pickle
import random
import re
import time
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from keyscale.engine.camera.framing import (
    Framing,
    Interpolation,
    Keyframe,
    Rect,
    Segment,
    cover_all,
    far_outside,
    load_framing,
    parse_framing,
)
from keyscale.engine.camera.keyframes import MAX_BYTES
from keyscale.engine.errors import FramingError, UsageError
from keyscale.engine.job import Trim

Json = dict[str, Any]


def keyframe(at: float = 0, **changes: Any) -> Json:
    return {"time": at, "x": 10, "y": 20, "width": 300, "height": 400} | changes


def read(document: Any) -> Framing:
    return parse_framing(json.dumps(document), "k.json")


def read_object(**fields: Any) -> Framing:
    return read({"keyframes": [keyframe()]} | fields)


def refused(document: Any) -> FramingError:
    """The error for a document, or for a text where a `str` or `bytes` is given."""
    text = document if isinstance(document, str | bytes) else json.dumps(document)
    with pytest.raises(FramingError) as caught:
        parse_framing(text, "k.json")
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, UsageError)
    return caught.value


def camera(*points: tuple[float, float] | tuple[float, float, str], interpolation: str = "linear") -> Framing:
    """A camera whose `x` is given as (time, x) or (time, x, "hold"), and whose size stands still."""
    return Framing(
        tuple(Keyframe(point[0], point[1], 0, 100, 100, len(point) == 3) for point in points),
        Interpolation(interpolation),
    )


def xs(framing: Framing, *times: float) -> list[float]:
    found: list[float] = framing.rects_at(np.array(times, dtype=np.float64))[:, 0].tolist()
    return found


class TestForms:
    """Every JSON form that is read."""

    def test_a_bare_list(self) -> None:
        framing = read([keyframe(), keyframe(2.5, x=-1.25)])
        assert framing == Framing((Keyframe(0, 10, 20, 300, 400), Keyframe(2.5, -1.25, 20, 300, 400)))

    def test_an_object_with_everything(self) -> None:
        framing = read(
            {
                "version": 1,
                "interpolation": "smooth",
                "keyframes": [keyframe(ease="hold"), keyframe(1, ease="linear")],
                "trim": {"start": 1.5, "end": 9},
                "segments": [{"start": 5, "end": 6, "speed": 10}, {"start": 3, "end": 5, "speed": 0.1}],
                "rotation": -2.5,
            }
        )
        assert [k.hold for k in framing.keyframes] == [True, False]
        assert framing.interpolation is Interpolation.SMOOTH
        assert framing.trim == Trim(start=1.5, end=9)
        assert framing.segments == (Segment(3, 5, 0.1), Segment(5, 6, 10)), "by start"
        assert framing.rotation == -2.5

    def test_what_is_left_out_has_a_default(self) -> None:
        framing = read_object()
        assert framing.interpolation is Interpolation.LINEAR
        assert framing.trim == Trim()
        assert framing.segments == ()
        assert framing.rotation == 0

    @pytest.mark.parametrize("name", ["linear", "smooth", "catmull-rom"])
    def test_interpolations(self, name: str) -> None:
        assert read_object(interpolation=name).interpolation == name

    def test_frames_with_a_rate(self) -> None:
        frames = [{"frame": n, "x": n, "y": 0, "width": 10, "height": 10} for n in (0, 12, 30)]
        framing = read({"fps": 24, "keyframes": frames})
        assert [k.time for k in framing.keyframes] == [0, 0.5, 1.25]

    def test_frames_and_times_in_one_file(self) -> None:
        frame = {"frame": 60, "x": 0, "y": 0, "width": 10, "height": 10}
        assert [k.time for k in read({"fps": 60, "keyframes": [keyframe(0.25), frame]}).keyframes] == [
            0.25,
            1,
        ]

    def test_a_rate_without_frames_is_tolerated(self) -> None:
        assert read_object(fps=29.97) == read_object()

    @pytest.mark.parametrize("trim", [{"start": 1}, {"end": 2}, {"start": 1, "end": 2}, {}])
    def test_either_end_of_the_trim_may_be_left_out(self, trim: Json) -> None:
        assert read_object(trim=trim).trim == Trim(**trim)

    def test_segment_data_with_trim_ends_and_segments(self) -> None:
        data = {"trim_start": 1, "trim_end": 8, "segments": [{"start": 2, "end": 3, "speed": 2}]}
        framing = read_object(segment_data=data)
        assert framing.trim == Trim(start=1, end=8)
        assert framing.segments == (Segment(2, 3, 2),)

    def test_segment_data_with_a_trim_range(self) -> None:
        assert read_object(segment_data={"trimRange": {"start": 1, "end": 8}}).trim == Trim(start=1, end=8)

    @pytest.mark.parametrize("speeds", [{"2": 4, "0": 0.5}, [0.5, 1, 4]])
    def test_segment_data_with_boundaries(self, speeds: Any) -> None:
        data = {"boundaries": [0, 2, 5, 9], "segmentSpeeds": speeds, "trimRange": {"end": 8}}
        framing = read_object(segment_data=data)
        assert framing.trim == Trim(end=8)
        assert [s for s in framing.segments if s.speed != 1] == [Segment(0, 2, 0.5), Segment(5, 9, 4)]

    @pytest.mark.parametrize("data", [{}, {"boundaries": []}, {"boundaries": [1]}, {"boundaries": [0, 5]}])
    def test_segment_data_without_speeds(self, data: Json) -> None:
        assert read_object(segment_data=data).segments == ()

    def test_the_same_trim_or_speed_given_twice_is_no_contradiction(self) -> None:
        segments = [{"start": 2, "end": 3, "speed": 2}]
        framing = read_object(
            trim={"start": 1},
            segments=segments,
            segment_data={
                "trim_start": 1.0,
                "trimRange": {"start": 1, "end": 7},
                "segments": segments,
                "boundaries": [0, 2, 3],
                "segmentSpeeds": {"1": 2},
            },
        )
        assert framing.trim == Trim(start=1, end=7)
        assert framing.segments == (Segment(2, 3, 2),)

    @pytest.mark.parametrize("version", ["1", "1.0"])
    def test_version_one(self, version: str) -> None:
        assert parse_framing(f'{{"version": {version}, "keyframes": [{json.dumps(keyframe())}]}}', "k.json")

    def test_minus_zero_is_zero(self) -> None:
        framing = parse_framing('[{"time": -0.0, "x": -0, "y": 0, "width": 1, "height": 1}]', "k.json")
        assert str(framing.keyframes[0].time) == "0.0"

    @pytest.mark.parametrize("text", ["\ufeff", b"\xef\xbb\xbf"])
    def test_a_byte_order_mark_is_tolerated(self, text: str | bytes) -> None:
        body = json.dumps([keyframe()])
        marked = text + body if isinstance(text, str) else text + body.encode()
        assert parse_framing(marked, "k.json") == parse_framing(body, "k.json")

    def test_segments_may_touch(self) -> None:
        rows = [{"start": 0, "end": 1, "speed": 2}, {"start": 1, "end": 2, "speed": 3}]
        assert len(read_object(segments=rows).segments) == 2

    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "camera é.json"
        path.write_text(json.dumps([keyframe()]), encoding="utf-8")
        assert load_framing(path) == load_framing(str(path)) == read([keyframe()])


class TestRefusals:
    """Every error names its place, and exits with code 2."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[\n {"time": 0 "x": 1}\n]', "not JSON: Expecting ',' delimiter at line 2 column 13"),
            ("[{]", "not JSON: Expecting property name enclosed in double quotes at line 1 column 3"),
            ("// camera\n[]", "not JSON: Expecting value at line 1 column 1"),
            ("[1] [2]", "not JSON: Extra data at line 1 column 5"),
            ("", "the file is empty"),
            (" \n\t", "the file is empty"),
            (b"\xef\xbb\xbf", "the file is empty"),
            (b'[{"time": "\xff"}]', "byte 11 is not UTF-8 text"),
            ("[" + "1" * 5000 + "]", "a number has thousands of digits"),
            ("[" * 1_000_000, "lists or objects are nested too deeply"),
            ('{"a":' * 1_000_000, "lists or objects are nested too deeply"),
        ],
        ids=range(11),
    )
    def test_text_that_is_not_json(self, text: str | bytes, message: str) -> None:
        assert refused(text).message == f"k.json: {message}"

    def test_utf_16(self) -> None:
        error = refused("[]".encode("utf-16"))
        assert error.message == "k.json: byte 0 is not UTF-8 text"
        assert error.remedy == "Save the file as UTF-8."

    @pytest.mark.parametrize("pair", ["[]", '{"a":}'])
    def test_ten_thousand_levels(self, pair: str) -> None:
        refused(pair[:-1] * 10_000 + "1" + pair[-1] * 10_000)

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            (1, "the file is 1, it must be a list of keyframes or an object"),
            (None, "the file is null, it must be a list of keyframes or an object"),
            ("x", "the file is 'x', it must be a list of keyframes or an object"),
            ([], "the list of keyframes is empty"),
            ({}, "field 'keyframes' is missing"),
            ({"keyframes": []}, "the list of keyframes is empty"),
            ({"keyframes": None}, "field 'keyframes' is null, it must be a list"),
            ({"keyframes": {"0": keyframe()}}, "field 'keyframes' is an object, it must be a list"),
            ([keyframe(), 7], "keyframe 1 is 7, it must be an object"),
            ([keyframe(), [keyframe()]], "keyframe 1 is a list, it must be an object"),
        ],
    )
    def test_another_shape(self, document: Any, message: str) -> None:
        assert refused(json.dumps(document)).message == f"k.json: {message}"

    @pytest.mark.parametrize("field", ["time", "x", "y", "width", "height"])
    def test_a_missing_field(self, field: str) -> None:
        lacking = {key: value for key, value in keyframe(3).items() if key != field}
        error = refused([keyframe(), keyframe(1), keyframe(2), lacking])
        assert error.message == f"k.json: keyframe 3: field '{field}' is missing"

    @pytest.mark.parametrize("field", ["time", "x", "y", "width", "height"])
    @pytest.mark.parametrize(
        ("literal", "message"),
        [
            ("NaN", "is NaN, it must be a finite number"),
            ("Infinity", "is Infinity, it must be a finite number"),
            ("-Infinity", "is -Infinity, it must be a finite number"),
            ("1e999", "is Infinity, it must be a finite number"),
            ("1e300", "is 1e+300, it must be at most 1e+09"),
            ("9" * 400, f"is {'9' * 40}..., it must be at most 1e+09"),
            ('"12"', "is '12', it must be a number"),
            ('"\\ud800"', "is '\\ud800', it must be a number"),
            (f'"{"a" * 99}"', f"is '{'a' * 40}...', it must be a number"),
            ("true", "is true, it must be a number"),
            ("null", "is null, it must be a number"),
            ("[1]", "is a list, it must be a number"),
            ("{}", "is an object, it must be a number"),
        ],
        ids=range(13),
    )
    def test_a_value_that_is_no_number(self, field: str, literal: str, message: str) -> None:
        text = json.dumps([keyframe(), keyframe() | {field: "here"}]).replace('"here"', literal)
        assert refused(text).message == f"k.json: keyframe 1: field '{field}' {message}"

    def test_the_remedy_for_a_quoted_number(self) -> None:
        assert refused([keyframe(x="12")]).remedy == "Write the number without quotes."

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"width": 0}, "field 'width' is 0, it must be above 0"),
            ({"height": -1.5}, "field 'height' is -1.5, it must be above 0"),
            ({"width": 1e-7}, "field 'width' is 1e-07, it must be at least 1e-06"),
            ({"time": -0.1}, "field 'time' is -0.1, it must be at least 0"),
            ({"x": -2e9}, "field 'x' is -2000000000.0, it must be at least -1e+09"),
            ({"ease": "in-out"}, "field 'ease' is 'in-out', it must be hold or linear"),
            ({"ease": None}, "field 'ease' is null, it must be hold or linear"),
            ({"ease": ["hold"]}, "field 'ease' is a list, it must be hold or linear"),
            ({"zoom": 2}, "unknown key 'zoom'"),
            ({"frame": 3}, "both 'time' and 'frame' are given"),
        ],
    )
    def test_a_wrong_keyframe(self, changes: Json, message: str) -> None:
        rows = [keyframe(), keyframe(), keyframe(), keyframe(**changes)]
        assert refused(rows).message == f"k.json: keyframe 3: {message}"
        assert refused({"fps": 30, "keyframes": rows}).message == f"k.json: keyframe 3: {message}"

    @pytest.mark.parametrize(
        ("fps", "frame", "message"),
        [
            (None, 3, "keyframe 0: field 'frame' needs the top-level field 'fps', which is missing"),
            (30, -1, "keyframe 0: field 'frame' is -1, it must be at least 0"),
            (30, "3", "keyframe 0: field 'frame' is '3', it must be a number"),
            (1e-6, 1e9, "keyframe 0: field 'frame' is at 1e+15 s, it must be at most 1e+09 s"),
            (0, 3, "field 'fps' is 0, it must be above 0"),
            (-30, 3, "field 'fps' is -30, it must be above 0"),
            ("30", 3, "field 'fps' is '30', it must be a number"),
            (True, 3, "field 'fps' is true, it must be a number"),
        ],
    )
    def test_frames(self, fps: Any, frame: Any, message: str) -> None:
        row = {"frame": frame, "x": 0, "y": 0, "width": 10, "height": 10}
        document = {"keyframes": [row]} if fps is None else {"fps": fps, "keyframes": [row]}
        assert refused(document).message == f"k.json: {message}"

    def test_frames_in_a_bare_list_have_no_rate(self) -> None:
        error = refused([{"frame": 3, "x": 0, "y": 0, "width": 10, "height": 10}])
        assert error.message.endswith("needs the top-level field 'fps', which is missing")
        assert error.remedy == 'Write {"fps": 30, "keyframes": [...]}, or give \'time\' in seconds.'

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"version": 2}, "field 'version' is 2, it must be 1"),
            ({"version": "1"}, "field 'version' is '1', it must be 1"),
            ({"version": True}, "field 'version' is true, it must be 1"),
            ({"version": None}, "field 'version' is null, it must be 1"),
            (
                {"interpolation": "cubic"},
                "field 'interpolation' is 'cubic', it must be linear, smooth or catmull-rom",
            ),
            (
                {"interpolation": []},
                "field 'interpolation' is a list, it must be linear, smooth or catmull-rom",
            ),
            ({"rotation": "90"}, "field 'rotation' is '90', it must be a number"),
            ({"rotation": False}, "field 'rotation' is false, it must be a number"),
            ({"colour": 1}, "unknown key 'colour'"),
            ({"trimRange": {}}, "unknown key 'trimRange'"),
            ({"trim": {"from": 1}}, "trim: unknown key 'from'"),
            ({"trim": {"start": -1}}, "trim: field 'start' is -1, it must be at least 0"),
            ({"trim": {"start": 2, "end": 2}}, "trim: it ends at 2 s and starts at 2 s, nothing is left"),
            ({"trim": {"end": 0}}, "trim: it ends at 0 s and starts at 0 s, nothing is left"),
            ({"segments": {}}, "field 'segments' is an object, it must be a list"),
            ({"segments": [1]}, "segment 0 is 1, it must be an object"),
        ],
    )
    def test_a_wrong_top_level_field(self, fields: Json, message: str) -> None:
        assert refused({"keyframes": [keyframe()]} | fields).message == f"k.json: {message}"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"end": 3}, "field 'end' is 3, it must be above 'start', 3"),
            ({"end": 2.5}, "field 'end' is 2.5, it must be above 'start', 3"),
            ({"start": -1}, "field 'start' is -1, it must be at least 0"),
            ({"speed": 0.09}, "field 'speed' is 0.09, it must be at least 0.1"),
            ({"speed": 10.5}, "field 'speed' is 10.5, it must be at most 10"),
            ({"speed": "2"}, "field 'speed' is '2', it must be a number"),
            ({"ease": "hold"}, "unknown key 'ease'"),
        ],
    )
    def test_a_wrong_segment(self, changes: Json, message: str) -> None:
        rows = [{"start": 0, "end": 1, "speed": 2}, {"start": 3, "end": 4, "speed": 2} | changes]
        error = refused({"keyframes": [keyframe()], "segments": rows})
        assert error.message == f"k.json: segment 1: {message}"

    @pytest.mark.parametrize("field", ["start", "end", "speed"])
    def test_a_segment_without_a_field(self, field: str) -> None:
        lacking = {key: value for key, value in {"start": 0, "end": 1, "speed": 2}.items() if key != field}
        error = refused({"keyframes": [keyframe()], "segments": [lacking]})
        assert error.message == f"k.json: segment 0: field '{field}' is missing"

    def test_an_unknown_key_comes_with_the_known_ones(self) -> None:
        assert refused([keyframe(zoom=1)]).remedy == "Known here: ease, frame, height, time, width, x, y."
        misplaced = refused({"keyframes": [keyframe()], "boundaries": []})
        assert misplaced.remedy == "boundaries belongs inside segment_data."

    def test_one_keyframe_alone_is_told_how_to_be_a_list(self) -> None:
        assert refused({"time": 0}).remedy == "Put square brackets around it: [{...}]."

    def test_overlapping_segments(self) -> None:
        rows = [
            {"start": 5, "end": 9, "speed": 2},
            {"start": 0, "end": 1, "speed": 2},
            {"start": 3, "end": 5.5, "speed": 2},
        ]
        assert refused({"keyframes": [keyframe()], "segments": rows}).message == (
            "k.json: segment 0 and segment 2 overlap from 5 s"
        )

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"cuts": 1}, ": unknown key 'cuts'"),
            ({"trimRange": [0, 1, 2]}, ": trimRange is a list of 3, it must hold a start and an end"),
            ({"trimRange": 5}, ": trimRange is 5, it must be an object"),
            ({"trimRange": {"end": "1"}}, ": trimRange: field 'end' is '1', it must be a number"),
            ({"trim_end": -1}, ": field 'trim_end' is -1, it must be at least 0"),
            ({"trim_start": 3, "trim_end": 2}, ": trim: it ends at 2 s and starts at 3 s, nothing is left"),
            ({"segments": [{}]}, ": segment 0: field 'start' is missing"),
            ({"segmentSpeeds": {}}, ": field 'boundaries' is missing"),
            ({"boundaries": {"0": 1}}, ": field 'boundaries' is an object, it must be a list"),
            ({"boundaries": [0, "1"]}, ": boundary 1 is '1', it must be a number"),
            ({"boundaries": [-1, 1]}, ": boundary 0 is -1, it must be at least 0"),
            ({"boundaries": [0, 2, 2]}, ": boundary 2 is 2, it must be above boundary 1, 2"),
            (
                {"boundaries": [0, 2], "segmentSpeeds": 2},
                ": field 'segmentSpeeds' is 2, it must be an object or a list",
            ),
            (
                {"boundaries": [0, 2], "segmentSpeeds": {"1": 2}},
                ": segmentSpeeds: index '1' is out of range, there are 1 stretches between 2 boundaries",
            ),
            (
                {"boundaries": [0, 2, 3], "segmentSpeeds": [1, 1, 1]},
                ": segmentSpeeds: index '2' is out of range, there are 2 stretches between 3 boundaries",
            ),
            (
                {"boundaries": [], "segmentSpeeds": {"x": 1}},
                ": segmentSpeeds: index 'x' is out of range, there are 0 stretches between 0 boundaries",
            ),
            (
                {"boundaries": [0, 2], "segmentSpeeds": [11]},
                ": segmentSpeeds: index '0' is 11, it must be at most 10",
            ),
            (
                {"boundaries": [0, 2], "segmentSpeeds": [None]},
                ": segmentSpeeds: index '0' is null, it must be a number",
            ),
        ],
    )
    def test_wrong_segment_data(self, data: Any, message: str) -> None:
        error = refused({"keyframes": [keyframe()], "segment_data": data})
        assert error.message == f"k.json: segment_data{message}"

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {"trim": {"start": 1}, "segment_data": {"trim_start": 2}},
                "trim: start is given in 'trim' and in 'segment_data' with different values",
            ),
            (
                {"trim": {"end": 9}, "segment_data": {"trimRange": {"end": 8}}},
                "trim: end is given in 'trim' and in 'segment_data' with different values",
            ),
            (
                {"segment_data": {"trim_end": 9, "trimRange": {"end": 8}}},
                "segment_data: trim: end is given in 'trim_start' or 'trim_end' and in 'trimRange'"
                " with different values",
            ),
            (
                {"trim": {"start": 5}, "segment_data": {"trim_end": 4}},
                "trim: it ends at 4 s and starts at 5 s, nothing is left",
            ),
            (
                {"segments": [], "segment_data": {"boundaries": [0, 1], "segmentSpeeds": [2]}},
                "speed is given in 'segments' and in 'segment_data' with different values",
            ),
            (
                {"segment_data": {"segments": [], "boundaries": [0, 1], "segmentSpeeds": [2]}},
                "segment_data: speed is given in 'segments' and in 'boundaries' with different values",
            ),
        ],
    )
    def test_contradictions(self, fields: Json, message: str) -> None:
        assert refused({"keyframes": [keyframe()]} | fields).message == f"k.json: {message}"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[{"time": 0, "x": 1, "x": 1}]', "keyframe 0: key 'x' is given twice in one object"),
            ('{"keyframes": [], "keyframes": []}', "key 'keyframes' is given twice in one object"),
            (
                '{"keyframes": [], "trim": {"end": 1, "end": 2}}',
                "trim: key 'end' is given twice in one object",
            ),
            (
                '{"segment_data": {"boundaries": [0, 1], "segmentSpeeds": {"0": 1, "0": 2}}}',
                "segment_data: segmentSpeeds: key '0' is given twice in one object",
            ),
            ('[{"time": {"a": 1, "a": 1}}]', "keyframe 0: field 'time' is an object, it must be a number"),
        ],
    )
    def test_a_key_given_twice(self, text: str, message: str) -> None:
        assert refused(text).message == f"k.json: {message}"

    def test_a_framing_without_keyframes(self) -> None:
        with pytest.raises(FramingError, match="there are no keyframes"):
            Framing(())


class TestFiles:
    """Files that cannot be read are errors of the keyframes file too."""

    @staticmethod
    def refused(path: Path | str) -> FramingError:
        with pytest.raises(FramingError) as caught:
            load_framing(path)
        assert caught.value.exit_code == 2
        return caught.value

    @pytest.mark.parametrize(
        "path", [5, None, b"camera.json", ["camera.json"], 2**20000], ids=lambda path: type(path).__name__
    )
    def test_what_is_no_path(self, path: Any) -> None:
        with pytest.raises(UsageError) as caught:
            load_framing(path)
        assert caught.value.message == f"path is of type {type(path).__name__}"
        assert caught.value.remedy == "It must be a path as text, or an object such as pathlib.Path."

    @pytest.mark.parametrize("path", ["", " "])
    def test_an_empty_name_is_not_the_current_folder(self, path: str) -> None:
        with pytest.raises(UsageError) as caught:
            load_framing(path)
        assert (caught.value.message, caught.value.remedy) == ("path is empty", "Name the keyframes file.")

    def test_absent(self, tmp_path: Path) -> None:
        path = tmp_path / "absent.json"
        assert self.refused(path).message == (f"{path}: the keyframes file cannot be read: No such file or directory")

    def test_a_directory(self, tmp_path: Path) -> None:
        assert str(tmp_path) in self.refused(tmp_path).message

    def test_without_rights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(*_: object) -> NoReturn:
            raise PermissionError(13, "Permission denied")

        # chmod would not keep root out.
        monkeypatch.setattr(Path, "open", denied)
        assert self.refused(tmp_path / "k.json").message.endswith("cannot be read: Permission denied")

    def test_a_name_that_is_no_path(self) -> None:
        assert self.refused("a\0b").message == "'a\\x00b' is not a path: embedded null byte"

    def test_a_name_that_is_not_unicode(self) -> None:
        assert self.refused("k\udcff.json").message.startswith("k\\udcff.json: the keyframes file")

    def test_errors_name_the_file_as_it_was_given(self, tmp_path: Path) -> None:
        path = tmp_path / "k.json"
        path.write_text(json.dumps([keyframe(width=0)]))
        assert self.refused(path).message == f"{path}: keyframe 0: field 'width' is 0, it must be above 0"

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "k.json"
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
        assert self.refused(path).message == f"{path}: the file is larger than 64 MiB"


class TestInterpolation:
    """The camera between keyframes; numbers worked by hand where no origin is given."""

    def test_one_keyframe_stands_always(self) -> None:
        for name in Interpolation:
            assert xs(camera((3, 42), interpolation=name), 0, 3, 1e6) == [42, 42, 42]

    def test_before_the_first_and_after_the_last_the_camera_stands(self) -> None:
        for name in Interpolation:
            assert xs(camera((1, 10), (2, 20), interpolation=name), -5, 0, 0.999, 2, 3) == [
                10,
                10,
                10,
                20,
                20,
            ]

    def test_every_keyframe_is_met_exactly(self) -> None:
        points = [(0.1, 3.3), (0.7, 1 / 3), (1.9, 1e3), (2.0, -77.7)]
        for name in Interpolation:
            assert xs(camera(*points, interpolation=name), *(t for t, _ in points)) == [x for _, x in points]

    def test_linear(self) -> None:
        # x: 10 + 20 / 4; width: 100 + 100 / 4; y and height the other way.
        framing = Framing((Keyframe(2, 10, 40, 100, 500), Keyframe(6, 30, 20, 200, 100)))
        assert framing.rect_at(3) == Rect(15, 35, 125, 400)

    def test_smooth_with_two_keyframes_is_linear(self) -> None:
        assert xs(camera((0, 0), (4, 8), interpolation="smooth"), 1, 2.5) == pytest.approx([2, 5])

    def test_smooth_with_three_keyframes(self) -> None:
        # Points (0, 0), (1, 1), (3, 5): lengths 1, 2 and slopes 1, 2. At 1 the weighted harmonic mean,
        # 9 / (5/1 + 4/2) = 9/7; at the ends the three-point formula, (4*1 - 1*2)/3 = 2/3 and
        # (5*2 - 2*1)/3 = 8/3.
        # The middle of a cubic: mean of both ends + (slope at start - slope at end) * length / 8.
        # scipy.interpolate.PchipInterpolator gives 0.42261905 and 2.65476190 as well.
        found = xs(camera((0, 0), (1, 1), (3, 5), interpolation="smooth"), 0.5, 2)
        assert found == pytest.approx([0.5 + (2 / 3 - 9 / 7) / 8, 3 + (9 / 7 - 8 / 3) * 2 / 8], abs=1e-12)
        assert found == pytest.approx([0.42261905, 2.65476190], abs=1e-8)

    def test_smooth_does_not_overshoot(self) -> None:
        framing = camera((0, 0), (1, 100), (1.1, 100), (5, 0), (9, 1), interpolation="smooth")
        found = framing.rects_at(np.linspace(0, 9, 1000))[:, 0]
        assert found.min() == 0
        assert found.max() == 100

    def test_smooth_is_scipys_pchip(self) -> None:
        pchip = pytest.importorskip("scipy.interpolate").PchipInterpolator
        rng = np.random.default_rng(7)
        for _ in range(100):
            times = np.unique(rng.integers(0, 60, rng.integers(3, 12))) / 7
            if len(times) < 2:
                continue
            values = rng.choice([0.0, 1.0, 1.0, 70.0, 1920.5], (len(times), 4)) + 1
            rows = zip(times.tolist(), values.tolist(), strict=True)
            framing = Framing(tuple(Keyframe(t, *row) for t, row in rows), Interpolation.SMOOTH)
            asked = np.linspace(times[0], times[-1], 101)
            np.testing.assert_allclose(framing.rects_at(asked), pchip(times, values)(asked), atol=1e-9)

    def test_catmull_rom(self) -> None:
        # At the middle of a stretch: (-before + 9 * start + 9 * end - after) / 16, end points doubled:
        # (-100 + 900 + 990 - 100) / 16 and (-100 + 990 + 900 - 100) / 16; and a straight line beside it.
        for end in (2, 5):
            framing = camera((0, 100), (1, 110), (end, 100), interpolation="catmull-rom")
            assert xs(framing, 0.5, (1 + end) / 2) == [105.625, 105.625], "uniform in the index, not in time"
        assert xs(camera((0, 0), (1, 8), (2, 16), (3, 24), interpolation="catmull-rom"), 1.25) == [10]

    def test_catmull_rom_with_two_keyframes(self) -> None:
        # Both ends doubled: slopes of half the chord; at a quarter 8 * (u/2 + 3u^2/2 - u^3) = 1.625.
        assert xs(camera((0, 0), (1, 8), interpolation="catmull-rom"), 0.25, 0.5) == [1.625, 4]

    def test_catmull_rom_that_overshoots_to_nothing(self) -> None:
        widths = (300, 1, 1)
        framing = Framing(
            tuple(Keyframe(t, 0, 0, width, 100) for t, width in enumerate(widths)), Interpolation.CATMULL_ROM
        )
        # As above, the last keyframe doubled: (-300 + 9 + 9 - 1) / 16 is -17.6875.
        with pytest.raises(FramingError) as caught:
            framing.rect_at(1.5)
        assert caught.value.message == (
            "at 1.500 s catmull-rom overshoots: the camera's rectangle would be -17.6875 x 100 pixels"
        )
        assert caught.value.remedy is not None
        assert "smooth" in caught.value.remedy
        assert framing.rect_at(0.5).width > 0, "other times are served"

    def test_a_side_that_stands_still_stays_exactly_as_it_is(self) -> None:
        for name in Interpolation:
            framing = Framing(tuple(Keyframe(t, t * t, 0.1, 607.5 / 7, 1080) for t in range(5)), Interpolation(name))
            rows = framing.rects_at(np.linspace(0, 5, 999))
            assert {tuple(row) for row in rows[:, 1:].tolist()} == {(0.1, 607.5 / 7, 1080)}

    def test_the_order_in_the_file_does_not_matter(self) -> None:
        points = [(0.0, 5.0), (1.0, 7.0), (2.5, -3.0), (4.0, 0.0)]
        times = np.linspace(0, 5, 50)
        for name in Interpolation:
            expected = camera(*points, interpolation=name).rects_at(times)
            assert (camera(*reversed(points), interpolation=name).rects_at(times) == expected).all()

    def test_times_come_in_any_order_and_number(self) -> None:
        framing = camera((0, 0), (1, 10))
        assert xs(framing, 1, 0, 0.5, 0.5) == [10, 0, 5, 5]
        for name in Interpolation:
            assert camera((0, 0), (1, 10), interpolation=name).rects_at(np.empty(0)).shape == (0, 4)

    def test_keyframes_that_almost_coincide(self) -> None:
        points = [(0.0, -1e9), (5e-324, 1e9), (1e-300, -1e9), (1.0, 0.0), (1.0000000000000002, 1e9)]
        times = np.array([0, 5e-324, 1e-301, 1e-300, 1e-3, 0.5, 1, 2])
        for name in Interpolation:
            assert np.isfinite(camera(*points, interpolation=name).rects_at(times)).all()


class TestCuts:
    """Holds and keyframes of one time end a run; runs are interpolated apart."""

    def test_hold_stands_until_the_next_keyframe(self) -> None:
        for name in Interpolation:
            framing = camera((0, 0), (1, 10, "hold"), (2, 50), (3, 60), interpolation=name)
            assert xs(framing, 1, 1.5, np.nextafter(2, 0), 2, 2.5) == [10, 10, 10, 50, 55]

    def test_a_hold_at_the_last_keyframe_changes_nothing(self) -> None:
        assert xs(camera((0, 0), (1, 10, "hold")), 0.5, 1, 9) == [5, 10, 10]

    def test_two_keyframes_of_one_time_are_a_cut_to_the_later_in_the_file(self) -> None:
        for name in Interpolation:
            framing = camera((0, 0), (1, 10), (1, 50), (2, 60), interpolation=name)
            assert xs(framing, 0.5, 1, 1.5) == [5, 50, 55]
            assert xs(framing, np.nextafter(1, 0)) == pytest.approx([10])

    def test_at_a_cut_the_order_in_the_file_matters(self) -> None:
        framing = camera((2, 60), (1, 10), (0, 0), (1, 50))
        assert xs(framing, 0.5, 1, 1.5) == [5, 50, 55]

    def test_of_many_keyframes_of_one_time_the_middle_ones_never_show(self) -> None:
        for name in Interpolation:
            framing = camera((0, 0), (1, 10), (1, 900), (1, -900), (1, 50), (2, 60), interpolation=name)
            assert xs(framing, 0.5, 1, 1.5) == [5, 50, 55]

    def test_a_cut_at_the_first_keyframe(self) -> None:
        assert xs(camera((1, 10), (1, 50), (2, 60)), 0, 1, 1.5) == [10, 50, 55]

    def test_a_cut_at_the_last_keyframe(self) -> None:
        assert xs(camera((0, 0), (1, 10), (1, 50)), 0.5, 1, 2) == [5, 50, 50]

    @pytest.mark.parametrize("name", ["smooth", "catmull-rom"])
    def test_runs_do_not_know_each_other(self, name: str) -> None:
        first = [(0.0, 0.0), (1.0, 9.0), (2.0, 10.0)]
        second = [(3.0, 500.0), (4.0, 100.0), (6.0, 90.0)]
        both = camera(*first[:-1], (*first[-1], "hold"), *second, interpolation=name)
        before, after = np.linspace(0, 2.999, 99), np.linspace(3, 7, 99)
        alone = camera(*first, interpolation=name), camera(*second, interpolation=name)
        assert (both.rects_at(before) == alone[0].rects_at(before)).all()
        assert (both.rects_at(after) == alone[1].rects_at(after)).all()


class TestNull:
    """Editors write null for what is not set: it counts as absent, but not in a keyframe."""

    def test_optional_fields(self) -> None:
        data = {"trimRange": None, "trim_start": None, "segments": None, "boundaries": None, "segmentSpeeds": None}
        framing = read({"keyframes": [keyframe()], "trim": None, "segment_data": data, "rotation": None})
        assert (framing.trim, framing.segments, framing.rotation) == (Trim(), (), 0)
        assert read({"keyframes": [keyframe()], "segment_data": None}) == framing
        assert read({"keyframes": [keyframe()], "trim": {"start": 1, "end": None}}).trim == Trim(start=1)


class TestInside:
    """A rectangle is moved inside the frame, its size kept."""

    @pytest.mark.parametrize(
        ("rect", "expected"),
        [
            (Rect(1, 2, 30, 40), Rect(1, 2, 30, 40)),
            (Rect(-5, 2, 30, 40), Rect(0, 2, 30, 40)),
            (Rect(90, 75, 30, 40), Rect(70, 60, 30, 40)),
            (Rect(-1e9, 1e9, 30, 40), Rect(0, 60, 30, 40)),
            (Rect(0, 0, 100, 100), Rect(0, 0, 100, 100)),
            (Rect(-0.25, 5, 101, 40), Rect(0, 5, 100, 40)),
            (Rect(3, -0.5, 30, 100.5), Rect(3, 0, 30, 100)),
        ],
    )
    def test_moved(self, rect: Rect, expected: Rect) -> None:
        assert rect.inside(100, 100) == expected

    def test_larger_than_the_frame(self) -> None:
        """As in the worked cases, where catmull-rom overshoots by up to 25 pixels."""
        assert Rect(-3, 7, 130, 40).inside(100, 100) == Rect(0, 7, 100, 40)

    def test_rounding_is_no_move(self) -> None:
        still = Framing((Keyframe(0, -1e-9, 50 + 1e-9, 50, 50),))
        assert not still.inside_at(np.zeros(1), 100, 100)[1].any()

    def test_no_rows(self) -> None:
        inside, moved = camera((0, 0)).inside_at(np.empty(0), 1000, 1000)
        assert (inside.shape, moved.shape) == ((0, 4), (0,))
        assert cover_all(np.empty((0, 4)), 1).shape == (0, 4)
        assert far_outside(np.empty((0, 4)), 100, 100) == 0

    def test_the_camera_inside_the_frame(self) -> None:
        framing = camera((0, -10), (1, 10))
        inside, moved = framing.inside_at(np.array([0, 0.25, 0.75]), 200, 200)
        assert inside[:, 0].tolist() == [0, 0, 5]
        assert moved.tolist() == [True, True, False]

    @pytest.mark.parametrize("name", list(Interpolation))
    def test_a_keyframe_larger_than_the_frame_is_named_by_its_index_in_the_file(self, name: Interpolation) -> None:
        framing = Framing((Keyframe(2, 0, 0, 300, 100), Keyframe(0, 0, 0, 100, 100)), name)
        with pytest.raises(FramingError) as caught:
            framing.inside_at(np.array([0, 1.5]), 200, 200)
        assert caught.value.message == (
            "keyframe 0: the rectangle is 300 x 100 pixels, larger than the frame, 200 x 200"
        )
        assert framing.inside_at(np.array([0.0, 0.1]), 200, 200), "where it is not seen it does no harm"

    def test_overshooting_the_frame_between_keyframes_that_fit_is_shrunk(self) -> None:
        # At the middle of the first stretch (-200 + 9 * 200 + 9 * 200 - 40) / 16 = 210.
        rows = (Keyframe(0, 0, 0, 100, 200), Keyframe(1, 0, 0, 100, 200), Keyframe(2, 0, 0, 100, 40))
        framing = Framing(rows, Interpolation.CATMULL_ROM)
        assert framing.rect_at(0.5) == Rect(0, 0, 100, 210)
        assert framing.inside_at(np.array([0.5]), 200, 200)[0].tolist() == [[0, 0, 100, 200]]


class TestFarOutside:
    """A keyframe whose centre is outside the frame is probably not meant."""

    @pytest.mark.parametrize(
        ("rect", "far"),
        [
            ((10, 10, 20, 20), False),
            ((-10, 10, 20, 20), False),
            ((-10.1, 10, 20, 20), True),
            ((10, 90, 20, 20), False),
            ((10, 90.1, 20, 20), True),
            ((-20, -20, 140, 140), False),
            ((1e6, 0, 1, 1), True),
        ],
    )
    def test_moved_by_more_than_half_its_own_side(self, rect: tuple[float, float, float, float], far: bool) -> None:
        assert far_outside(np.array([rect]), 100, 100) == int(far)

    def test_keyframes_are_counted(self) -> None:
        framing = camera((0, 5000), (1, 0), (2, -5000))
        assert far_outside(framing.keyframe_rects, 1920, 1080) == 2


class TestCover:
    """A rectangle is cut about its centre to the target's aspect, never widened."""

    @pytest.mark.parametrize(
        ("rect", "aspect", "expected"),
        [
            (Rect(100, 0, 1600, 900), 9 / 16, Rect(900 - 506.25 / 2, 0, 506.25, 900)),
            (Rect(0, 100, 900, 1600), 16 / 9, Rect(0, 900 - 506.25 / 2, 900, 506.25)),
            (Rect(7, 8, 50, 50), 1, Rect(7, 8, 50, 50)),
            (Rect(-10, 0, 20, 10), 1, Rect(-5, 0, 10, 10)),
        ],
    )
    def test_cut(self, rect: Rect, aspect: float, expected: Rect) -> None:
        cut = rect.cover(aspect)
        assert (cut.x, cut.y, cut.width, cut.height) == pytest.approx(
            (expected.x, expected.y, expected.width, expected.height), abs=1e-9
        )
        assert cut.width / cut.height == pytest.approx(aspect)

    def test_rows_are_cut_like_single_rectangles(self) -> None:
        rows = np.random.default_rng(3).uniform(1, 1000, (50, 4))
        expected = [Rect(*row).cover(0.5625) for row in rows.tolist()]
        assert [Rect(*row) for row in cover_all(rows, 0.5625).tolist()] == expected


class TestFraming:
    """A framing is data."""

    def test_without_a_keyframes_file_the_camera_is_the_whole_frame(self) -> None:
        framing = Framing.whole(1920, 1080)
        assert framing.rect_at(0) == framing.rect_at(7200) == Rect(0, 0, 1920, 1080)
        assert framing.trim == Trim()
        assert framing.segments == ()

    def test_frozen(self) -> None:
        framing = Framing.whole(10, 10)
        with pytest.raises(FrozenInstanceError):
            framing.rotation = 3  # type: ignore[misc]

    def test_using_it_changes_neither_equality_nor_pickling(self) -> None:
        used, fresh = (camera((0, 0), (1, 5), interpolation="smooth") for _ in range(2))
        used.rect_at(0.5)
        assert used == fresh
        assert hash(used) == hash(fresh)
        assert pickle.loads(pickle.dumps(used)) == fresh  # noqa: S301

    def test_one_time_is_computed_as_many_are(self) -> None:
        for name in Interpolation:
            framing = camera((0, 0), (1, 7), (2.2, 3), interpolation=name)
            times = np.linspace(0, 3, 37)
            many = [Rect(*row) for row in framing.rects_at(times).tolist()]
            assert [framing.rect_at(at) for at in times.tolist()] == many


class TestVectors:
    """Agreement with cases that were worked with SciPy, not with this project."""

    def test_every_case(self, shared: Path) -> None:
        vectors = json.loads((shared / "vectors" / "framing.json").read_text())
        checked = 0
        for case in vectors["cases"]:
            width, height = case["frame"]
            for name, rows in case["expect"].items():
                framing = read({"interpolation": name, "keyframes": case["keyframes"]})
                times = np.array([row["time"] for row in rows])
                inside, _ = framing.inside_at(times, width, height)
                found = {
                    "rect": framing.rects_at(times),
                    "inside": inside,
                    "cover": cover_all(inside, case["target_aspect"]),
                }
                for field, values in found.items():
                    expected = [row[field] for row in rows]
                    np.testing.assert_allclose(values, expected, rtol=0, atol=vectors["tolerance"])
                    checked += len(rows)
        assert checked >= 3 * 846


class TestDocumentation:
    """docs/keyframes.md says what the program does."""

    PAGE = (Path(__file__).parents[2] / "docs" / "keyframes.md").read_text(encoding="utf-8")

    def test_every_example_is_read(self) -> None:
        examples = re.findall(r"```json\n(.*?)```", self.PAGE, re.DOTALL)
        assert len(examples) == 17
        for example in examples:
            parse_framing(example, "camera.json")

    @pytest.mark.parametrize(
        "text",
        [
            '[\n{"time": 0,\n "x": 1, "y": 2; "width": 3}\n]',
            json.dumps([keyframe(), keyframe(), keyframe(), keyframe(width=0)]),
            json.dumps([keyframe(x="12")]),
            json.dumps([keyframe(), keyframe(), keyframe(y=float("nan"))]),
            json.dumps([keyframe(), keyframe(zoom=1)]),
            json.dumps([keyframe(), keyframe()]).replace('"y"', '"x"'),
            json.dumps([{"frame": 0}]),
            json.dumps({"keyframes": [keyframe()], "trim": {"start": 3, "end": 2}}),
        ],
    )
    def test_messages_are_quoted_as_they_are(self, text: str) -> None:
        with pytest.raises(FramingError) as caught:
            parse_framing(text, "camera.json")
        # Which of two keyframes is meant differs, and so does the column.
        shown = re.sub(r"\d+", "N", caught.value.message)
        assert shown in re.sub(r"\d+", "N", self.PAGE)


class TestHostileTexts:
    """Any text gives a framing or a `FramingError`: no other exception, no long wait."""

    SEEDS = (
        [keyframe(), keyframe(1.5, x=-3.25), keyframe(1.5, ease="hold"), keyframe(4)],
        {
            "version": 1,
            "interpolation": "catmull-rom",
            "keyframes": [keyframe(), keyframe(1, x=5), keyframe(2, width=7.5)],
            "trim": {"start": 1.5, "end": 9.0},
            "segments": [{"start": 3.0, "end": 5.0, "speed": 0.5}, {"start": 6, "end": 7, "speed": 2}],
            "rotation": 0.5,
        },
        {
            "fps": 30,
            "interpolation": "smooth",
            "keyframes": [{"frame": n, "x": n, "y": 1, "width": 9, "height": 16.5} for n in (0, 15, 15, 30, 90)],
            "segment_data": {
                "boundaries": [0, 1, 2.5, 4],
                "segmentSpeeds": {"0": 2, "2": 0.5},
                "trimRange": {"start": 0.5, "end": 3},
            },
        },
    )
    LITERALS = (
        "1e999",
        "-1e999",
        "-0",
        "-0.0",
        "5e-324",
        "1e308",
        "null",
        "true",
        '"1"',
        '""',
        "NaN",
        "[]",
        "{}",
    )

    def mutated(self, rng: random.Random) -> bytes:
        tokens = re.findall(r'"[^"]*"|[-+.\w]+|\s+|.', json.dumps(rng.choice(self.SEEDS)), re.DOTALL)
        for _ in range(rng.randint(1, 3)):
            a, b = sorted((rng.randrange(len(tokens)), rng.randrange(len(tokens))))
            numbers = [i for i, token in enumerate(tokens) if token[0].isdigit()]
            kind = rng.randrange(10)
            if kind == 0:
                tokens[a], tokens[b] = tokens[b], tokens[a]
            elif kind == 1:
                del tokens[a : a + rng.randint(1, 6)]
            elif kind == 2:
                tokens[a:a] = tokens[a:b]
            elif kind == 3:
                tokens[a] = tokens[b]
            elif kind < 7:
                tokens[rng.choice(numbers)] = rng.choice(self.LITERALS)
            else:
                tokens[rng.choice(numbers)] = tokens[rng.choice(numbers)]
        data = bytearray("".join(tokens).encode())
        if rng.random() < 0.2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)

    def test_mutated_files(self) -> None:
        accepted = 0
        times = np.linspace(0, 10, 50)
        for seed in range(1500):
            text = self.mutated(random.Random(seed))
            began = time.perf_counter()
            try:
                framing = parse_framing(text, "k.json")
                accepted += 1
                assert np.isfinite(framing.rects_at(times)).all()
                framing.inside_at(times, 1920, 1080)
            except FramingError:
                pass
            except Exception as error:
                pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n{text!r}")
            assert time.perf_counter() - began < 1, f"seed {seed} is slow"
        assert 100 < accepted < 1400, "mutations reach the camera as well as the refusals"

    def test_truncated_files(self) -> None:
        for document in self.SEEDS:
            text = json.dumps(document)
            for length in range(len(text)):
                refused(text[:length])


class TestScale:
    """Long videos, and files with a keyframe for every frame of a day."""

    @pytest.mark.parametrize("name", list(Interpolation))
    @pytest.mark.slow
    def test_a_million_keyframes_at_two_hours_of_frames(self, name: Interpolation) -> None:
        rows = tuple(Keyframe(i / 100, i % 977, 0, 607.5, 1080) for i in range(1_000_000))
        framing = Framing(rows, name)
        times = np.arange(432_000) / 60
        began = time.perf_counter()
        rects = framing.rects_at(times)
        assert time.perf_counter() - began < 10
        assert rects[0].tolist() == [0, 0, 607.5, 1080]
        assert rects[60, 0] == 100

    @pytest.mark.slow
    def test_reading_a_million_keyframes(self) -> None:
        row = '{"time":%.2f,"x":%d,"y":0,"width":607.5,"height":1080}'
        text = f"[{','.join(row % (i / 100, i % 977) for i in range(1_000_000))}]"
        began = time.perf_counter()
        framing = parse_framing(text, "k.json")
        assert time.perf_counter() - began < 60
        assert len(framing.keyframes) == 1_000_000
        assert framing.rect_at(9999.99).x == 999_999 % 977
