"""Keyframes in the formats that people have, and what cannot be meant (docs/formats.md, docs/keyframes.md)."""

from __future__ import annotations

import io
import json
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.films import film, planned, uneven

from keyscale.engine.camera.framing import Framing, Keyframe, Segment, Units, load_framing, parse_framing
from keyscale.engine.camera.written import as_version1
from keyscale.engine.errors import FramingError
from keyscale.engine.job import Trim
from keyscale.engine.plan.describe import plan_to_json, summarise
from keyscale.engine.plan.plan import Plan

Json = dict[str, Any]
PAGE = (Path(__file__).parents[2] / "docs" / "keyframes.md").read_text(encoding="utf-8")
CLIP = film(125, 25)
"""Five seconds of 1920x1080."""


def read(document: Any) -> Framing:
    text = document if isinstance(document, str) else json.dumps(document)
    return parse_framing(text, "k.json")


def refused(document: Any) -> FramingError:
    with pytest.raises(FramingError) as caught:
        read(document)
    assert caught.value.exit_code == 2
    return caught.value


def plan_of(document: Any) -> Plan:
    """Uncut: a target of the rectangles' own shape."""
    return planned(CLIP, 25, framing=read(document), size=(608, 1080))


def at(document: Any, *times: float) -> list[list[float]]:
    """x, y, width and height that are seen at the times, in pixels."""
    framing = planned(CLIP, 25, framing=read(document)).framing
    return [[round(value, 6) for value in row] for row in framing.rects_at(np.array(times)).tolist()]


def kept(document: Any) -> None:
    """Converted, it is the same camera and the same plan."""
    original = read(document)
    again = parse_framing(as_version1(original), "converted.json")
    assert again == original
    before, after = (planned(CLIP, 30, framing=each) for each in (original, again))
    assert np.array_equal(before.rects, after.rects)
    assert np.array_equal(before.source_index, after.source_index)
    assert before.time_map == after.time_map
    assert [w for w in before.warnings if w not in original.notes] == list(after.warnings)


# The same pan in every format: x from 192 to 960 within two seconds, 608 x 1080.
START, MIDDLE, END = [192.0, 0.0, 608.0, 1080.0], [576.0, 0.0, 608.0, 1080.0], [960.0, 0.0, 608.0, 1080.0]
W = 608 / 1920


def listed(*rows: Json, **top: Any) -> Json:
    return {"keyframes": list(rows), **top}


def pan(time: str, x: str, y: str, width: str, height: str, second: Any = 2) -> list[Json]:
    return [
        {time: 0, x: 192, y: 0, width: 608, height: 1080},
        {time: second, x: 960, y: 0, width: 608, height: 1080},
    ]


SAME_PAN: dict[str, Any] = {
    "own names": pan("time", "x", "y", "width", "height"),
    "t, w, h": pan("t", "x", "y", "w", "h"),
    "timestamp, left, top": pan("timestamp", "left", "top", "width", "height"),
    "ms": pan("ms", "x", "y", "w", "h", 2000),
    "time_us": pan("time_us", "x", "y", "w", "h", 2_000_000),
    "corners": [
        {"t": 0, "x1": 192, "y1": 0, "x2": 800, "y2": 1080},
        {"t": 2, "x1": 960, "y1": 0, "x2": 1568, "y2": 1080},
    ],
    "edges": [
        {"t": 0, "left": 192, "top": 0, "right": 800, "bottom": 1080},
        {"t": 2, "left": 960, "top": 0, "right": 1568, "bottom": 1080},
    ],
    "centre": [
        {"t": 0, "cx": 496, "cy": 540, "w": 608, "h": 1080},
        {"t": 2, "cx": 1264, "cy": 540, "w": 608, "h": 1080},
    ],
    "clock": [row | {"time": f"00:0{row['time']}.000"} for row in pan("time", "x", "y", "width", "height")],
    "clock with hours": [row | {"time": f"0:00:0{row['time']}"} for row in pan("time", "x", "y", "width", "height")],
    "time_unit ms": listed(*pan("time", "x", "y", "w", "h", 2000), time_unit="ms"),
    "time_unit us": listed(*pan("t", "x", "y", "w", "h", 2_000_000), time_unit="us"),
    "time_unit frames": listed(*pan("time", "x", "y", "w", "h", 50), time_unit="frames"),
    "frames with a rate": listed(*pan("frame", "x", "y", "w", "h", 60), fps=30),
    "time_unit frames with a rate": listed(*pan("time", "x", "y", "w", "h", 60), time_unit="frames", fps="30/1"),
    "normalized": listed(
        {"time": 0, "x": 0.1, "y": 0, "width": W, "height": 1},
        {"time": 2, "x": 0.5, "y": 0, "width": W, "height": 1},
        units="normalized",
    ),
    "percent": listed(
        {"time": 0, "x": 10, "y": 0, "width": 100 * W, "height": 100},
        {"time": 2, "x": 50, "y": 0, "width": 100 * W, "height": 100},
        units="percent",
    ),
    "of a smaller copy": listed(
        {"time": 0, "x": 64, "y": 0, "width": 608 / 3, "height": 360},
        {"time": 2, "x": 320, "y": 0, "width": 608 / 3, "height": 360},
        source={"width": 640, "height": 360},
    ),
    "OpenCut": {
        "original_width": 1920,
        "original_height": 1080,
        "crop_width": 608,
        "crop_height": 1080,
        "target_aspect": "9:16",
        "keyframe_count": 2,
        "crop_keyframes": [{"time": 0, "x": 192, "y": 0, "w": 608, "h": 1080}, {"time": 2.0, "x": 960, "y": 0}],
    },
    "OpenCut of a smaller copy": {
        "original_width": 960,
        "original_height": 540,
        "crop_keyframes": [
            {"time": 0, "x": 96, "y": 0, "w": 304, "h": 540},
            {"time": 2, "x": 480, "y": 0, "w": 304, "h": 540},
        ],
    },
    "AutoFlip": [
        {"crop_from_location": {"x": 0.1, "y": 0, "width": W, "height": 1}, "timestamp_us": 0},
        {"crop_from_location": {"x": 0.5, "y": 0, "width": W, "height": 1}, "timestamp_us": 2_000_000},
    ],
    "AutoFlip, protobuf's JSON": {
        "frames": [
            {"cropFromLocation": {"x": 0.1, "width": W, "height": 1}, "renderToLocation": {"width": 1}},
            {"cropFromLocation": {"x": 0.5, "width": W, "height": 1}, "timestampUs": "2000000"},
        ]
    },
    "AutoFlip, pixels": [
        {"cropFromLocation": {"x": 192, "y": 0, "width": 608, "height": 1080}, "timestampUs": "0"},
        {"cropFromLocation": {"x": 960, "y": 0, "width": 608, "height": 1080}, "timestampUs": "2000000"},
    ],
    "AutoFlip, protobuf's text": f"""crop_from_location {{
  x: 0.1
  y: 0.0
  width: {W}
  height: 1.0
}}
timestamp_us: 0
crop_from_location {{ x: 0.5 y: 0 width: {W} height: 1 }}
timestamp_us: 2000000
""",
    "AutoFlip, JSON Lines": "\n".join(
        json.dumps({"cropFromLocation": {"x": x, "y": 0, "width": W, "height": 1}, "timestampUs": stamp})
        for x, stamp in ((0.1, "0"), (0.5, "2000000"))
    ),
    "Label Studio": [
        {
            "id": 1,
            "annotations": [
                {
                    "result": [
                        {
                            "id": "a",
                            "type": kind,
                            "value": {
                                "framesCount": 125,
                                "duration": 5,
                                "sequence": [
                                    {
                                        "frame": 1,
                                        "time": 0,
                                        "x": 10,
                                        "y": 0,
                                        "width": 100 * W,
                                        "height": 100,
                                        "enabled": True,
                                    },
                                    {
                                        "frame": 51,
                                        "time": 2,
                                        "x": 50,
                                        "y": 0,
                                        "width": 100 * W,
                                        "height": 100,
                                        "rotation": 0,
                                    },
                                ],
                            },
                        }
                        for kind in ("videorectangle", "labels")
                    ]
                }
            ],
            "data": {"video": "talk.mp4"},
        }
    ],
    "Label Studio by frames": {
        "framesCount": 125,
        "duration": 5,
        "sequence": [
            {"frame": 1, "x": 10, "y": 0, "width": 100 * W, "height": 100},
            {"frame": 51, "x": 50, "y": 0, "width": 100 * W, "height": 100},
        ],
    },
    "CSV": "time,x,y,width,height\n0,192,0,608,1080\n2,960,0,608,1080\n",
    "CSV with semicolons": "t;left;top;w;h\r\n0,0;192;0;608;1080\r\n2,0;960,0;0;608;1080\r\n",
    "CSV with comments": "# made by hand\ntime,x,y,width,height\n0,192,0,608,1080\n# then\n2,960,0,608,1080\n",
    "CSV of percent and frames": "# units: percent\n# fps: 50\nframe,x,y,w,h\n"
    f"0,10,0,{100 * W},100\n100,50,0,{100 * W},100",
    "CSV of milliseconds": "# time_unit = ms\nt,x,y,w,h\n0,192,0,608,1080\n2000,960,0,608,1080",
    "CSV with tabs and quotes": '"frame"\t"ms"\t"cx"\t"cy"\t"w"\t"h"\n'
    "0\t0\t496\t540\t608\t1080\n50\t2000\t1264\t540\t608\t1080",
    "CSV with a clock": "Time, X, Y, Width, Height\n00:00.000, 192, 0, 608, 1080\n\n00:02.000, 960, 0, 608, 1080\n",
    "JSON Lines": "\n".join(map(json.dumps, pan("time", "x", "y", "width", "height"))) + "\n",
    "JSON Lines with a rate": '{"fps": 50}\n' + "\n".join(map(json.dumps, pan("frame", "x", "y", "w", "h", 100))),
    "JSON Lines of parts": '{"units": "normalized", "time_unit": "ms"}\n'
    + "\n".join(json.dumps({"t": t, "x": x, "y": 0, "w": W, "h": 1}) for t, x in ((0, 0.1), (2000, 0.5))),
    "the editor's crop_data": {
        "id": 7,
        "version": 3,
        "crop_data": [
            {"frame": 0, "x": 192, "y": 0, "width": 608, "height": 1080, "origin": "permanent"},
            {"frame": 60, "x": 960, "y": 0, "width": 608, "height": 1080, "origin": "user"},
        ],
        "segments_data": None,
    },
    "the editor's database row": {
        "crop_data": json.dumps(
            [
                {"frame": 0, "x": 192, "y": 0, "width": 608, "height": 1080, "origin": "permanent"},
                {"frame": 50, "x": 960, "y": 0, "width": 608, "height": 1080, "origin": "user"},
            ]
        ),
        "timing_data": "{}",
        "segments_data": "{}",
        "framerate": 25,
    },
    "a list with origins": [
        {"frame": 0, "x": 192, "y": 0, "width": 608, "height": 1080, "origin": "permanent"},
        {"frame": 60, "x": 960, "y": 0, "width": 608, "height": 1080, "origin": "user"},
    ],
    "the editor's clips": {
        "clips": [
            {
                "fileName": "a.mp4",
                "cropKeyframes": pan("time", "x", "y", "width", "height"),
                "segments": {"boundaries": [0, 5], "segmentSpeeds": {}, "trimRange": None},
                "sourceWidth": 1920,
                "sourceHeight": 1080,
            }
        ],
        "transition": {"type": "cut"},
    },
}


@pytest.mark.parametrize("name", SAME_PAN)
def test_the_same_pan_in_every_format(name: str) -> None:
    assert at(SAME_PAN[name], 0, 1, 2, 4) == [START, MIDDLE, END, END]


@pytest.mark.parametrize("name", SAME_PAN)
def test_what_is_converted_gives_the_same_plan(name: str) -> None:
    kept(SAME_PAN[name])


def cut_at(first: Any, second: Any) -> list[int]:
    return [first, second]


SAME_CUT: dict[str, Any] = {
    "ClipsAI": {
        "original_width": 1920,
        "original_height": 1080,
        "crop_width": 608,
        "crop_height": 1080,
        "segments": [
            {"speakers": [0], "start_time": 0.0, "end_time": 2.0, "x": 192, "y": 0},
            {"speakers": [1], "start_time": 2.0, "end_time": 5.0, "x": 960, "y": 0},
        ],
    },
    "ClipsAI, older": {
        "original_width": 960,
        "original_height": 540,
        "crop_width": 304,
        "crop_height": 540,
        "segments": [
            {"speakers": [], "startTime": 0.0, "endTime": 2.0, "x": 96, "y": 0},
            {"speakers": [1], "startTime": 2.0, "endTime": 5.0, "x": 480, "y": 0},
        ],
    },
    "sendcmd": "# a crop\n0.0 crop w 608, crop h 1080, crop x 192, crop y 0;\n2.0 [enter] crop x 960;\n",
    "sendcmd by intervals": "0-2 [enter] crop@c w '608', [enter] crop@c h 1080, [enter] crop@c y 0, crop@c x 192,\n"
    " [leave] crop@c x 960;",
    "sendcmd with a clock": "00:00:00 crop x 192, crop y 0, crop out_w 608, crop out_h 1080; 00:00:02.000 crop x 960",
    "hold in CSV": "time,x,y,width,height,ease\n0,192,0,608,1080,hold\n2,960,0,608,1080,\n",
    "Label Studio, not enabled": {
        "sequence": [
            {"time": 0, "x": 10, "y": 0, "width": 100 * W, "height": 100, "enabled": False},
            {"time": 2, "x": 50, "y": 0, "width": 100 * W, "height": 100, "enabled": True},
        ]
    },
    "AutoFlip, one a frame": [
        {"cropFromLocation": {"x": 0.1 if n < 50 else 0.5, "y": 0, "width": W, "height": 1}, "timestampUs": n * 40000}
        for n in range(125)
    ],
}


@pytest.mark.parametrize("name", SAME_CUT)
def test_what_stands_and_cuts(name: str) -> None:
    assert at(SAME_CUT[name], 0, 1, 1.99, 2, 4) == [START, START, START, END, END]
    kept(SAME_CUT[name])


def test_a_bare_list_with_frames_alone_still_needs_a_rate() -> None:
    assert "needs the top-level field 'fps'" in refused(pan("frame", "x", "y", "w", "h")).message


def test_frames_of_the_source_itself_where_it_has_no_rate() -> None:
    """Frames at 0, 40, 400 and 1000 ms: keyframe 2 stands at 0.4 s."""
    info = uneven([0, 40, 400, 1000], Fraction(1, 1000), 40)
    framing = read(listed(*pan("time", "x", "y", "w", "h", 2), time_unit="frames", trim={"start": 1}))
    plan = planned(info, 25, framing=framing)
    assert [k.time for k in plan.framing.keyframes] == [0, 0.4]
    assert plan.time_map.start == 0.04


def test_time_unit_counts_trim_and_segments_too() -> None:
    framing = read(
        listed(
            *pan("time", "x", "y", "w", "h", 2000),
            time_unit="ms",
            trim={"start": 500, "end": 4000},
            segments=[{"start": 1000, "end": 2000, "speed": 0.5}],
        )
    )
    assert (framing.trim, framing.segments) == (Trim(start=0.5, end=4), (Segment(1, 2, 0.5),))


def test_trim_and_segments_may_be_written_as_a_clock() -> None:
    framing = read(
        listed(
            *pan("time", "x", "y", "w", "h"),
            trim={"start": "00:00.500", "end": "0:00:04"},
            segments=[{"start": "00:01", "end": "00:02.000", "speed": 0.5}],
        )
    )
    assert (framing.trim, framing.segments) == (Trim(start=0.5, end=4), (Segment(1, 2, 0.5),))


# Speeds as editors store them


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"boundaries": [1, 2], "segmentSpeeds": {"0": 0.5}}, [(0, 1, 0.5), (1, 5, 1)]),
        ({"boundaries": [1, 2], "segmentSpeeds": {"1": 0.5}}, [(0, 1, 1), (1, 2, 0.5), (2, 5, 1)]),
        ({"boundaries": [1, 2], "segmentSpeeds": {"2": 2}}, [(0, 2, 1), (2, 5, 2)]),
        ({"userSplits": [1, 2], "segmentSpeeds": {"0": 0.5}}, [(0, 1, 0.5), (1, 5, 1)]),
        ({"userSplits": [3], "boundaries": [0, 3, 5], "segmentSpeeds": {"1": 2}}, [(0, 3, 1), (3, 5, 2)]),
        ({"userSplits": [], "boundaries": [], "speeds": {"0": 2}}, [(0, 5, 2)]),
        ({"boundaries": [0, 1, 2, 5], "segmentSpeeds": {"0": 0.5}}, [(0, 1, 0.5), (1, 5, 1)]),
        ({"boundaries": [0, 2, 5], "segmentSpeeds": [1, 2], "trimRange": [1, 4]}, [(1, 2, 1), (2, 4, 2)]),
        ({"userSplits": [2], "speeds": {"0": 2}, "trimRange": {"start": 1, "end": None}}, [(1, 2, 2), (2, 5, 1)]),
        ({"trimRange": [None, 4]}, [(0, 4, 1)]),
    ],
)
@pytest.mark.parametrize("place", ["segment_data", "segments_data"])
def test_boundaries_and_splits(data: Json, expected: list[tuple[float, float, float]], place: str) -> None:
    rows = pan("time", "x", "y", "width", "height")
    document = listed(*rows, segment_data=data) if place == "segment_data" else {"crop_data": rows, place: data}
    merged: list[tuple[float, float, float]] = []
    for each in planned(CLIP, 25, framing=read(document)).time_map.stretches:
        if merged and merged[-1][2] == each.speed == 1:
            merged[-1] = (merged[-1][0], each.end, 1)
        else:
            merged.append((each.start, each.end, each.speed))
    assert merged == expected
    kept(document)


def test_the_trim_of_a_clip_may_stand_beside_its_speeds() -> None:
    rows = pan("time", "x", "y", "width", "height")
    for beside in ({"trimRange": [1, 3]}, {"timing_data": '{"trimRange": {"start": 1, "end": 3}}'}):
        assert read({"cropKeyframes": rows, "segments": {"boundaries": [0, 5]}} | beside).trim == Trim(start=1, end=3)
    error = refused({"cropKeyframes": rows, "segments": {"trimRange": [0, 2]}, "trimRange": [1, 3]})
    assert "different values" in error.message


def test_frames_of_the_editor_count_at_30_a_second_and_that_is_told() -> None:
    plan = plan_of(SAME_PAN["a list with origins"])
    assert any("taken at 30 a second" in warning for warning in plan.warnings)
    assert not read(SAME_PAN["the editor's database row"]).notes


# What the plan tells first


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            SAME_PAN["own names"],
            "a list of keyframes: 2 keyframes from 0.000 to 2.000 s; 0.000 to 5.000 s of the video",
        ),
        (SAME_PAN["percent"], "keyscale's own format, version 1, in percent of the frame: 2 keyframes"),
        (SAME_PAN["of a smaller copy"], "scaled from 640x360"),
        (SAME_PAN["OpenCut"], "OpenCut crop_keyframes: 2 keyframes"),
        (SAME_PAN["AutoFlip"], "AutoFlip's external rendering frames, in parts of the frame: 2 keyframes"),
        (SAME_PAN["AutoFlip, protobuf's text"], "AutoFlip's external rendering frames"),
        (SAME_PAN["Label Studio"], "a Label Studio VideoRectangle sequence, in percent of the frame: 2 keyframes"),
        (SAME_PAN["CSV"], "CSV: 2 keyframes"),
        (SAME_PAN["JSON Lines"], "JSON Lines: 2 keyframes"),
        (SAME_PAN["the editor's crop_data"], "an editor's stored state: 2 keyframes"),
        (SAME_PAN["the editor's clips"], "an editor's stored state: 2 keyframes"),
        (SAME_CUT["ClipsAI"], "ClipsAI Crops: 2 keyframes"),
        (SAME_CUT["sendcmd"], "an FFmpeg sendcmd list: 2 keyframes"),
    ],
)
def test_the_plan_names_what_was_recognised(document: Any, words: str) -> None:
    plan = plan_of(document)
    rows = summarise(plan)
    assert [label for label, _ in rows[:3]] == ["Source", "Keyframes", "Camera"]
    assert words in rows[1][1]
    assert "sees 608x1080 pixels at x 192 to 960, y 0: 32% of the frame" in rows[2][1]
    told = json.loads(plan_to_json(plan))["camera"]
    assert (told["keyframes"], told["first"], told["last"]) == (2, 0, 2)


# What cannot be meant


NORMALIZED = [{"time": t, "x": x, "y": 0, "width": 0.316, "height": 1} for t, x in ((0, 0.1), (2, 0.5))]
PERCENT = [{"time": t, "x": x, "y": 0, "width": 31.6, "height": 100} for t, x in ((0, 10), (2, 50))]


@pytest.mark.parametrize(
    ("document", "question", "remedy"),
    [
        (NORMALIZED, "within 0..1: are these parts of the frame?", '"units": "normalized"'),
        (
            [{"t": 0, "cx": 0.5, "cy": 0.5, "w": 0.3, "h": 0.9}, {"t": 1, "cx": 0.6, "cy": 0.5, "w": 0.3, "h": 0.9}],
            "within 0..1",
            '"units": "normalized"',
        ),
        ("time,x,y,width,height\n0,0.2,0.1,0.5,0.5", "within 0..1", "# units: normalized"),
        *[
            (
                [{"time": 0, "x": x, "y": y, "width": 0.3, "height": height}, NORMALIZED[1]],
                f"within {reach}: are these parts of the frame?",
                '"units": "normalized"',
            )
            for x, y, height, reach in (
                (-0.01, 0, 1.01, "-0.01..1.01"),
                (0.1, -0.02, 1.04, "-0.02..1.02"),
                (1.2, 0, 1, "0..1.5"),
            )
        ],
        *[
            (
                [{"time": 0, "x": x, "y": y, "width": 31, "height": height}, PERCENT[1]],
                f"within {reach} of a 1920x1080 frame: are these percent?",
                '"units": "percent"',
            )
            for x, y, height, reach in (
                (-0.5, 0, 100.5, "-0.5..100.5"),
                (72, -1, 102, "-1..103"),
                (-4, 2, 98, "-4..100"),
            )
        ],
        (PERCENT, "within 0..100 of a 1920x1080 frame: are these percent?", '"units": "percent"'),
        ("t,x1,y1,x2,y2\n0,20,10,60,90\n1,30,10,70,90", "are these percent?", "# units: percent"),
        (
            {"crop_keyframes": [{"time": 0, "x": 30, "y": 0, "w": 40, "h": 100}]},
            "are these percent?",
            '"units": "percent"',
        ),
        (pan("time", "x", "y", "width", "height", 2000), "are these milliseconds?", '"time_unit": "ms"'),
        (
            [{"t": 700, "x": 0, "y": 0, "w": 608, "h": 1080}, {"t": 4900.5, "x": 90, "y": 0, "w": 608, "h": 1080}],
            "are these milliseconds?",
            '"time_unit": "ms"',
        ),
        (pan("time", "x", "y", "width", "height", 3_500_000), "are these microseconds?", '"time_unit": "us"'),
        (pan("time", "x", "y", "width", "height", 124), "are these frame numbers", '"time_unit": "frames"'),
        (pan("t", "x", "y", "w", "h", 75), "are these frame numbers", '"time_unit": "frames"'),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_the_unit(document: Any, question: str, remedy: str) -> None:
    with pytest.raises(FramingError) as caught:
        plan_of(document)
    assert question in caught.value.message
    assert remedy in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("units", "width", "height", "likely"),
    [
        ("normalized", 608, 1080, "pixels"),
        ("normalized", 31.6, 100, "percent"),
        ("normalized", 0.3, 1080, "pixels"),
        ("percent", 608, 1080, "pixels"),
    ],
)
def test_units_that_are_declared_wrongly_are_named(units: str, width: float, height: float, likely: str) -> None:
    with pytest.raises(FramingError) as caught:
        plan_of(listed({"time": 0, "x": 0, "y": 0, "width": width, "height": height}, units=units))
    assert f"units are declared as {units}" in caught.value.message
    assert f"a side of {max(width, height):g}: are these {likely}?" in caught.value.message
    assert f'"units": "{likely}"' in str(caught.value.remedy)


@pytest.mark.parametrize(("width", "height"), [(0.316, 1), (1, 1), (0.2, 0.5)])
def test_parts_of_the_frame_that_are_declared_as_percent_are_named(width: float, height: float) -> None:
    """The camera saw ten pixels, enlarged a hundred times."""
    with pytest.raises(FramingError) as caught:
        plan_of(listed({"time": 0, "x": 0.1, "y": 0, "width": width, "height": height}, units="percent"))
    assert "are these parts of the frame?" in caught.value.message
    assert '"units": "normalized"' in str(caught.value.remedy)
    plan_of(listed({"time": 0, "x": 10, "y": 0, "width": 2, "height": 4}, units="percent"))


def test_a_slip_beyond_the_frame_is_one_of_its_size() -> None:
    with pytest.raises(FramingError, match="larger than the frame"):
        plan_of(listed({"time": 0, "x": 0, "y": 0, "width": 0.3, "height": 1.2}, units="normalized"))


@pytest.mark.parametrize(
    ("data", "container"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "MP4 or QuickTime"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "MP4 or QuickTime"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", "Matroska or WebM"),
        (b"RIFF\xff\0\0\0AVI LIST", "AVI"),
        ((b"G@\0\x10" + bytes(184)) * 3, "MPEG-TS"),
        (b"\0\0\x01\xbaD\0\4", "MPEG"),
    ],
)
def test_a_video_in_place_of_the_keyframes_is_told_with_the_order(data: bytes, container: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.video"
    path.write_bytes(data + bytes(1000))
    with pytest.raises(FramingError) as caught:
        load_framing(path)
    assert caught.value.message == f"{path}: this is a video ({container}), not a keyframes file"
    assert caught.value.remedy == "VIDEO comes first, then KEYFRAMES.json."


@pytest.mark.parametrize(
    ("document", "declared"),
    [
        (NORMALIZED, {"units": "pixels"}),
        (PERCENT, {"units": "pixels"}),
        (pan("time", "x", "y", "width", "height", 2000), {"time_unit": "s"}),
        (pan("time", "x", "y", "width", "height", 124), {"time_unit": "s"}),
    ],
)
def test_what_is_declared_is_meant(document: Any, declared: Json) -> None:
    assert plan_of(listed(*document, **declared)).framing.keyframes[0].time == 0


@pytest.mark.parametrize(
    "document",
    [
        [{"time": 0, "x": 0, "y": 0, "width": 90, "height": 160}],
        [{"time": 0, "x": 10, "y": 10, "width": 20, "height": 36}],
        [{"time": 0, "x": 0.5, "y": 0.5, "width": 607.5, "height": 1079}],
        [{"time": 0, "x": -8, "y": 0, "width": 108, "height": 100}],
        [{"time": 0, "x": 0, "y": 0, "width": 60, "height": 107}],
        pan("time", "x", "y", "width", "height", 10),
        pan("time", "x", "y", "width", "height", 5),
        pan("time", "x", "y", "width", "height", 22.5),
        [row | {"time": row["time"] + 100} for row in pan("time", "x", "y", "width", "height")],
    ],
)
def test_what_may_be_meant_is_taken(document: Any) -> None:
    assert plan_of(document).framing.keyframes == read(document).keyframes


def test_percent_of_a_small_video_may_be_pixels() -> None:
    info = film(10, 25, width=160, height=120, stored_width=160, stored_height=120)
    assert planned(info, 25, framing=read(PERCENT), size=(32, 100)).framing.units is None


@pytest.mark.parametrize("size", [(1080, 1920), (640, 480), (1920, 800)])
def test_keyframes_of_a_picture_of_another_shape_are_refused(size: tuple[int, int]) -> None:
    document = listed(*pan("t", "x", "y", "w", "h"), source=dict(zip(("width", "height"), size, strict=True)))
    with pytest.raises(FramingError, match=f"made for a picture of {size[0]}x{size[1]}, and the video is 1920x1080"):
        plan_of(document)


@pytest.mark.parametrize("size", [(1280, 720), (854, 480), (426, 240), (3840, 2160)])
def test_sizes_of_copies_are_rounded(size: tuple[int, int]) -> None:
    whole = {"time": 0, "x": 0, "y": 0, "width": size[0], "height": size[1]}
    document = listed(whole, source={"width": size[0], "height": size[1]})
    np.testing.assert_allclose(at(document, 0), [[0, 0, 1920, 1080]])


@pytest.mark.parametrize(
    ("document", "message", "remedy"),
    [
        ([{"time": 0, "x": 0, "y": 0, "widht": 5, "height": 5}], "keyframe 0: unknown key 'widht'", "mean 'width'?"),
        ([{"time": 0, "x": 0, "y": 0, "Width": 5, "height": 5}], "keyframe 0: unknown key 'Width'", "mean 'width'?"),
        ([{"tiem": 0, "x": 0, "y": 0, "width": 5, "height": 5}], "keyframe 0: unknown key 'tiem'", "mean 'time'?"),
        ([{"time": 0, "x": 0, "y": 0, "width": 5, "hight": 5}], "unknown key 'hight'", "mean 'height'?"),
        ({"keyframe": []}, "unknown key 'keyframe'", "mean 'keyframes'?"),
        (listed(unit="percent"), "unknown key 'unit'", "mean 'units'?"),
        ("time,x,y,widht,height\n0,1,2,3,4", "line 1: unknown column 'widht'", "mean 'width'?"),
        ([{"time": 0, "x": 0, "left": 0, "y": 0, "w": 5, "h": 5}], "both 'x' and 'left' are given", "Keep one"),
        ([{"time": 0, "ms": 0, "x": 0, "y": 0, "w": 5, "h": 5}], "both 'time' and 'ms' are given", "Keep one"),
        ([{"time": 0, "x": 0, "y": 0, "w": 5, "width": 5, "h": 5}], "both 'width' and 'w' are given", "Keep one"),
        (
            [{"cx": 5, "x2": 9, "y": 0, "h": 5, "t": 0}],
            "'x2' does not go with 'cx'",
            "'cx' with 'width', or both edges",
        ),
        ([{"t": 0, "x": 0, "w": 5, "center_y": 5, "bottom": 9}], "'bottom' does not go with 'center_y'", "'y1' and"),
        ("t,x_center,right,y,h\n0,5,9,0,5", "'right' does not go with 'x_center'", "'x1' and 'x2'"),
        *[
            (
                {"keyframes": [{"time": time, "x": 0, "y": 0, "w": 5, "h": 5}], **more},
                f"keyframe 0: field 'time' is '{time}', a timecode whose last part counts frames",
                "\"00:00:02.500\" with the part of a second after a point, or give frame numbers as 'frame'",
            )
            for time, more in (("00:00:02:15", {}), ("01:00:00;02", {"fps": 30}), ("0:00:02:07", {"time_unit": "s"}))
        ],
        *[
            (
                {"keyframes": [{"time": time, "x": 0, "y": 0, "w": 5, "h": 5}]},
                f"keyframe 0: field 'time' is '{time}', it must be at least 0",
                "Times count from the first displayed frame",
            )
            for time in ("-0:02", "-00:00:02.5", "-1:00,5")
        ],
        (listed(trim={"start": "00:00:02:15"}), "trim: field 'start' is '00:00:02:15', a timecode", "after a point"),
        (listed(trim={"end": "-0:02"}), "trim: field 'end' is '-0:02', it must be at least 0", "first displayed frame"),
        ([{"time": 0, "x1": 9, "y1": 0, "x2": 9, "y2": 5}], "field 'x2' is 9, it must be above 'x1', 9", None),
        ([{"time": 0, "x1": 0, "y1": 0, "x2": 9}], "field 'y2' is missing", None),
        (
            listed({"frame": 1, "x": 0, "y": 0, "w": 5, "h": 5}, time_unit="ms"),
            "'frame' does not go with \"time_unit\"",
            "Keep",
        ),
        (listed(units="inches"), "field 'units' is 'inches', it must be pixels, normalized, percent", None),
        (listed(time_unit="min"), "field 'time_unit' is 'min', it must be s, ms, us, frames", None),
        (listed(source=[1, 2]), "source is a list, it must be an object", None),
        (listed(source={"width": 0, "height": 5}), "source: field 'width' is 0, it must be above 0", None),
        ("time,x,y,width,height\n0,1,2,3", "line 2: 4 cells, and the header has 5", None),
        ("time,x,y,width,height\n0,1,2,wide,4", "line 2: field 'width' is 'wide', it must be a number", None),
        ("time,x,y,width,height\n", "the list of keyframes is empty", "Give at least one"),
        ('{"t":0,"x":1,"y":1,"w":2,"h":2}\n{"t":1,"x":', "line 2: not JSON", None),
        ('{"t":0,"x":1,"y":1,"w":2,"h":2}\n{"t":1,"x":3}', "line 2: field 'width' is missing", None),
        ("0 crop x 5, crop y 5;", "at 0 s the crop is not known: crop w is not set", "crop w 608"),
        ("0 crop w in_w/2;", "crop w is 'in_w/2', it must be a number", "Expressions"),
        ("0 drawtext reinit text;", "a command for 'drawtext' cannot be followed", None),
        ({"clips": [{"cropKeyframes": [], "name": "a"}] * 3}, "it holds 3 clips", "Keep one clip"),
        ({"crop_data": "[{"}, "crop_data: not JSON", None),
        (
            {"sequence": [{"time": 0, "x": 1, "y": 1, "width": 9, "height": 9, "rotation": 20}]},
            "the rectangle is turned by 20 degrees",
            "upright",
        ),
        (
            [{"sequence": [{"time": 0, "x": x, "y": 1, "width": 9, "height": 9}]} for x in (1, 2)],
            "it holds 2 regions",
            "Keep the one region",
        ),
        ([{"cropFromLocation": {"x": 0, "width": 1}}], "frame 0: crop_from_location: field 'height' is missing", None),
        (
            {"crop_width": 5, "crop_height": 5, "segments": [{"start_time": 0, "end_time": 1, "x": 1}]},
            "segment 0: field 'y' is missing",
            None,
        ),
    ],
)
def test_errors_name_the_place(document: Any, message: str, remedy: str | None) -> None:
    error = refused(document)
    assert error.message.startswith("k.json: ")
    assert message in error.message
    assert (remedy or "") in (error.remedy or "")


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ('<?xml version="1.0"?>\n<mlt profile="x">', "an XML file"),
        ('<fcpxml version="1.9">', "FCPXML"),
        ("<xmeml version='4'>", "XMEML"),
        ("Adobe After Effects 8.0 Keyframe Data\n\n\tUnits Per Second\t25", "After Effects"),
        ("TITLE: Cut 1\nFCM: NON-DROP FRAME", "EDL"),
        ("1\n00:00:01,000 --> 00:00:02,000\nHello", "subtitles"),
        ("1,1,912,484,97,109,0,7,1\n2,1,912,484,97,109,0,7,1", "without a header"),
        ({"OTIO_SCHEMA": "Timeline.1", "tracks": {}}, "OpenTimelineIO"),
        ({"images": [], "annotations": [], "categories": []}, "COCO"),
        ({"annotation_results": []}, "Video Intelligence"),
        ({"v": "5.5", "fr": 30, "layers": []}, "Lottie"),
    ],
)
def test_others_are_named_with_what_would_be_needed(document: Any, name: str) -> None:
    error = refused(document)
    assert name in error.message
    assert "not read" in error.message
    assert str(error.remedy).startswith("What is needed: ")


# Standard input, and the page


class Stdin(io.TextIOWrapper):
    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode()))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(SAME_PAN["CSV"]))
    assert load_framing("-").keyframes == read(SAME_PAN["CSV"]).keyframes
    monkeypatch.setattr(sys, "stdin", Stdin("[{]"))
    with pytest.raises(FramingError, match=r"^standard input: not JSON"):
        load_framing("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(FramingError, match="standard input is closed"):
        load_framing("-")


EXAMPLES = re.findall(r"```(json|jsonl|csv|text)\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_an_example_of_every_format() -> None:
    forms = {read(text).form for _, text in EXAMPLES}
    named = {
        "OpenCut",
        "ClipsAI",
        "AutoFlip",
        "Label Studio",
        "CSV",
        "JSON Lines",
        "sendcmd",
        "stored state",
        "own format",
    }
    assert all(any(name in form for form in forms) for name in named)


@pytest.mark.parametrize("text", [text for _, text in EXAMPLES], ids=range(len(EXAMPLES)))
def test_every_example_of_the_page_is_planned_and_kept(text: str) -> None:
    info = film(300, 30)
    plan = planned(info, 30, framing=read(text))
    assert plan.frames > 0
    assert not any("outside" in warning for warning in plan.warnings)
    kept(text)


def test_the_examples_of_the_page_do_what_it_says() -> None:
    cut = next(text for _, text in EXAMPLES if "1.033333333" in text)
    for base in (None, Fraction(1, 1000)):
        plan = planned(film(60, 30, time_base=base), 30, framing=read(cut))
        assert plan.rects[:, 0].tolist() == [0] * 31 + [1200] * 29
    slides = next(text for _, text in EXAMPLES if '"time": 3, "x": 400' in text)
    plan = planned(uneven([0, 3000], Fraction(1, 1000), 1000), 30, framing=read(slides))
    assert (np.diff(plan.rects[:91, 0]) > 4).all()


def test_a_camera_of_keyframes_has_its_units_from_a_program_too() -> None:
    framing = Framing((Keyframe(0, 0.1, 0, W, 1), Keyframe(2, 0.5, 0, W, 1)), units=Units.NORMALIZED)
    plan = planned(CLIP, 25, framing=framing)
    np.testing.assert_allclose(plan.framing.rects_at(np.array([1.0])), [MIDDLE])
