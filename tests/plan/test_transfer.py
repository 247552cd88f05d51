"""Plans as bytes: nothing is lost or rounded, damage and other versions are told, no folder of a user is in them."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from support.films import camera, film, planned, uneven

from keyscale.engine.errors import RemoteError
from keyscale.engine.job import Codec, Compute, Encoding, Fit, ModelChoice, Precision
from keyscale.engine.models.registry import find
from keyscale.engine.plan.plan import Plan
from keyscale.engine.plan.transfer import HEAD, LARGEST, MAGIC, PLAN_VERSION, dump_plan, for_transfer, load_plan
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.probe import Orientation, StreamInfo
from keyscale.engine.wording import Said

FIELDS_OF_VERSION_6 = "5a678d0e31d82a5a"
"""SHA-256 over every field that a plan is made of, shortened."""


def differences(one: Any, other: Any, where: str = "plan") -> Iterator[str]:
    """Where two values differ, in type as in content, down to the last bit of an array; 2 and 2.0 do not.

    A text that names options comes back as it stands, with the names of flags.
    """
    if isinstance(one, Said):
        one = str(one)
    if type(one) is not type(other) and {type(one), type(other)} != {int, float}:
        yield f"{where}: {type(one)} and {type(other)}"
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            yield from differences(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    elif isinstance(one, np.ndarray):
        if (one.dtype, one.shape, one.tobytes()) != (other.dtype, other.shape, other.tobytes()):
            yield f"{where}: {one} and {other}"
    elif isinstance(one, tuple):
        if len(one) != len(other):
            yield f"{where}: {len(one)} and {len(other)}"
        for index, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{where}[{index}]")
    elif one != other:
        yield f"{where}: {one!r} and {other!r}"


RICH_STREAMS = (
    StreamInfo(index=0, kind="video", codec="hevc", default=True),
    StreamInfo(
        index=1, kind="audio", codec="aac", language="deu", title="Ton \N{SNOWMAN}", sample_rate=44100, channels=6
    ),
    StreamInfo(index=2, kind="unknown", codec=None),
)

PLANS = {
    "plain": planned(film(90, 30)),
    "one frame": planned(film(1, 25)),
    "moving camera, several speeds, chunks": planned(
        film(900, Fraction(30000, 1001)),
        Fraction(60000, 1001),
        framing=camera(
            [(0, 0.1, 0.2, 607.5, 1080), (7.3, 1000 / 3, 0, 500.25, 889)],
            segments=[{"start": 2, "end": 5, "speed": 0.3}],
            rotation=1.5,
        ),
        models={4: find("realesr-animevideov3"), 2: find("RealESRGAN_x2plus")},
        chunk_seconds=2.5,
        start=0.5,
    ),
    "HDR, rotated, tracks, no numbers rounded": planned(
        film(
            60,
            24,
            start=-7,
            time_base=Fraction(1, 24000),
            streams=RICH_STREAMS,
            colour=Colour(matrix=9, full_range=False, primaries=9, transfer=16),
            orientation=Orientation(transpose=True, flip_x=True),
            mastering=bytes(range(256)),
            light_level=b"\0\xff",
            bit_depth=10,
            sample_aspect_ratio=Fraction(64, 45),
            notes=("a note",),
        ),
        None,
        fit=Fit.CONTAIN,
        encoding=Encoding(codec=Codec.HEVC, crf=21, preset="slow", bit_depth=10),
        compute=Compute(device="cuda:1", precision=Precision.FP16, tile=0),
        model=ModelChoice(denoise=1 / 3),
        keyframes="camera.json",
        output="out.mkv",
    ),
    "uneven times": planned(uneven([-3, 0, 40, 41, 2**40], Fraction(1, 1000), 33), start=0, end=0.03),
    "trimmed to the end of time": planned(film(30, 30), end=float("inf")),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_comes_back_equal_in_every_field_and_every_bit(plan: Plan) -> None:
    assert not list(differences(plan, load_plan(dump_plan(plan))))


def test_what_was_computed_from_a_plan_before_changes_nothing_in_the_file() -> None:
    plan = planned(film(90, 30))
    before = dump_plan(plan)
    assert plan.framing.rect_at(0)
    assert dump_plan(plan) == before


def test_the_plan_of_a_real_file_comes_back_equal(shared: Path, tmp_path: Path) -> None:
    from support.numbered import small_job

    plan = prepare_plan(small_job(shared / "clips" / "phone_vfr_270x480_aac.mp4", tmp_path / "out.mp4"))
    assert not list(differences(plan, load_plan(dump_plan(plan))))


def test_counts_beyond_64_bits_come_back() -> None:
    plan = PLANS["plain"]
    huge = dataclasses.replace(plan, estimate=dataclasses.replace(plan.estimate, macs=2**70 + 1))
    assert load_plan(dump_plan(huge)).estimate.macs == 2**70 + 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0, 5e-324])
def test_odd_floats_keep_their_bits(value: float) -> None:
    plan = PLANS["plain"]
    rects = plan.rects.copy()
    rects[3] = value
    odd = dataclasses.replace(plan, rects=rects)
    assert load_plan(dump_plan(odd)).rects.tobytes() == rects.tobytes()


def test_arrays_of_a_loaded_plan_are_ordinary_ones() -> None:
    plan = load_plan(dump_plan(PLANS["plain"]))
    for array in (plan.rects, plan.info.pts, plan.windows):
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_two_hours_at_60_frames_a_second_are_small() -> None:
    frames = 2 * 3600 * 60
    dice = np.random.default_rng(3)
    moves = dice.uniform([0, 0, 300, 500], [1000, 400, 600, 680], (7200, 4))
    plan = planned(
        dataclasses.replace(film(2, 60), pts=np.cumsum(dice.integers(505, 520, frames)).astype(np.int64)),
        60,
        framing=camera([(float(t), *each) for t, each in enumerate(moves.tolist())]),
    )
    assert plan.frames > 0.99 * frames
    data = dump_plan(plan)
    assert np.array_equal(load_plan(data).rects, plan.rects)
    assert len(data) < 10_000_000


def test_bytes_that_are_no_plan_are_told() -> None:
    for data in (b"", b"keyscale", b"\0" * 1000, MAGIC):
        with pytest.raises(RemoteError, match="no plan"):
            load_plan(data)


def test_another_version_is_told_with_both_numbers() -> None:
    data = bytearray(dump_plan(PLANS["plain"]))
    data[len(MAGIC)] = PLAN_VERSION + 1
    with pytest.raises(
        RemoteError, match=f"version {PLAN_VERSION + 1}, this program reads version {PLAN_VERSION}"
    ) as e:
        load_plan(bytes(data))
    assert "same keyscale version" in str(e.value.remedy)


def test_damage_anywhere_is_told() -> None:
    data = dump_plan(PLANS["plain"])
    for place in range(HEAD.size - 32, len(data), 97):
        broken = bytearray(data)
        broken[place] ^= 1
        with pytest.raises(RemoteError, match="damaged"):
            load_plan(bytes(broken))
    with pytest.raises(RemoteError, match="damaged"):
        load_plan(data[:-1])


def wrapped(body: bytes) -> bytes:
    """A plan file with the right checksum around any content."""
    return HEAD.pack(MAGIC, PLAN_VERSION, hashlib.sha256(body).digest()) + body


def test_content_of_another_shape_is_told() -> None:
    for body in (b"nothing deflated", zlib.compress(b"\xc1"), zlib.compress(b"\x80"), zlib.compress(b"")):
        with pytest.raises(RemoteError, match=r"cannot be (read|inflated)"):
            load_plan(wrapped(body))


def test_a_small_file_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyscale.engine.plan.transfer.LARGEST", 1 << 20)
    with pytest.raises(RemoteError, match="more than 1 MiB"):
        load_plan(wrapped(zlib.compress(bytes(LARGEST >> 8))))


def test_no_folder_of_the_user_goes_along(tmp_path: Path) -> None:
    from support.clips import make_clip
    from support.numbered import small_job

    folder = tmp_path / "holiday of Jane"
    folder.mkdir()
    source = make_clip(folder / "my clip.mp4", frames=5, rate=25)
    keyframes = folder / "camera.json"
    keyframes.write_text('{"version": 1, "keyframes": [{"time": 0, "x": 0, "y": 0, "width": 64, "height": 48}]}')
    plan = prepare_plan(small_job(source, folder / "out.mp4", keyframes=str(keyframes)))
    job = dataclasses.replace(plan.job, model=ModelChoice(name=f"{folder}/own.pth"), publish_to="r2://Jane/out.mp4")
    plan = dataclasses.replace(plan, job=job)

    sent = for_transfer(plan)

    assert b"Jane" in zlib.decompress(dump_plan(plan)[HEAD.size :])
    assert b"Jane" not in zlib.decompress(dump_plan(sent)[HEAD.size :])
    assert (sent.job.source, sent.job.output, sent.job.keyframes) == ("my clip.mp4", "out.mp4", "camera.json")
    assert (sent.info.path, sent.job.model.name) == ("my clip.mp4", "own.pth")
    changed = {"source", "output", "keyframes", "model.name", "publish_to"}
    expected = {f"plan.job.{name}" for name in changed} | {"plan.info.path"}
    assert {each.split(":")[0] for each in differences(plan, sent)} == expected


def test_a_registry_name_and_no_keyframes_stay_as_they_are() -> None:
    plan = PLANS["HDR, rotated, tracks, no numbers rounded"]
    named = dataclasses.replace(plan, job=dataclasses.replace(plan.job, model=ModelChoice(name="lanczos")))
    assert for_transfer(named).job.model.name == "lanczos"
    assert for_transfer(PLANS["plain"]).job.keyframes is None
    assert for_transfer(plan).job.model.name is None


def fields(kind: Any, seen: set[Any]) -> Iterator[str]:
    """Every field of every class that a plan is made of, with its type."""
    for inner in get_args(kind):
        yield from fields(inner, seen)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)) or kind in seen:
        return
    seen.add(kind)
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield f"{kind.__name__}.{field.name}: {field.type}"
        yield from fields(hints[field.name], seen)


def test_the_version_is_raised_when_a_field_changes() -> None:
    """A field added, renamed or retyped: raise `PLAN_VERSION` and write the new digest here."""
    text = "\n".join(sorted(fields(Plan, set())))
    assert PLAN_VERSION == 6
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == FIELDS_OF_VERSION_6, text
