"""The tables of docs/formats.md are those of the program and of the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import av
import pytest
from support.fuzz import KINDS, VIDEO

from keyscale.engine.camera.timemap import Stretch, TimeMap
from keyscale.engine.plan.tracks import CONTAINERS, TrackPlan, plan_tracks
from keyscale.engine.source.probe import StreamInfo

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def table(name: str) -> list[list[str]]:
    """The cells of the table between two comments, without its header."""
    match = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", PAGE, re.DOTALL)
    assert match is not None
    rows = [line for line in match[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows[2:]]


def words(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def codec_of(encoder: str) -> str:
    return av.Codec(encoder, "w").canonical_name


def planned(
    kind: Literal["audio", "subtitle", "video"], codec: str, container: str, *, channels: int = 2, cover: bool = False
) -> TrackPlan:
    stream = StreamInfo(
        index=1, kind=kind, codec=codec, sample_rate=48000, channels=channels, default=True, attached_picture=cover
    )
    return plan_tracks((stream,), 0, CONTAINERS[f".{container}"], TimeMap((Stretch(0, 1, 1),)))[0]


def test_what_is_read_is_what_the_fuzz_writes() -> None:
    written = [
        [
            f"`{kind.suffix}`",
            words({codec_of(VIDEO[name][0]) for name in kind.video}),
            words({codec_of(name) for name in kind.sound}),
        ]
        for kind in sorted(KINDS, key=lambda kind: kind.suffix)
    ]
    assert table("read") == written


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "webm"])
def test_what_is_kept_is_what_the_plan_copies(container: str) -> None:
    row = next(row for row in table("kept") if row[0] == f"`{container}`")
    # Subtitles that FFmpeg neither decodes nor encodes here can be copied all the same.
    known: dict[str, set[str]] = {"audio": set(), "video": set(), "subtitle": set(re.findall(r"\w+", row[3]))}
    for name in av.codecs_available:
        for mode in ("r", "w"):
            try:
                codec = av.Codec(name, mode)
            except ValueError:
                continue
            known.setdefault(codec.type, set()).add(codec.canonical_name)

    def copied(kind: Literal["audio", "subtitle", "video"], *, cover: bool = False) -> str:
        return words({name for name in known[kind] if planned(kind, name, container, cover=cover).action == "copy"})

    encoded = f"`{planned('audio', 'adpcm_ms', container).codec}`"
    many = f"`{planned('audio', 'adpcm_ms', container, channels=9).codec}`"
    if many != encoded:
        encoded += f", above 8 channels {many}"
    assert row[1:] == [copied("audio"), encoded, copied("subtitle"), copied("video", cover=True)]


def test_messages_of_what_is_refused_are_the_programs() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "engine" / "source").glob("*.py"))
    rows = table("refused")
    assert len(rows) > 5
    assert [message for message, _ in rows if message.strip("`") not in code] == []
