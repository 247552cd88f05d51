"""`--remote` on a server that enforces expiry and parts: an upload that was cut, and links that are too old."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.clips import make_clip
from support.faulty_place import FRAMES, READS_SOURCE, SIZE, FaultyPlace, asked, faulty_on
from support.numbered import planes, write_video
from support.s3.server import S3Server

from keyscale.engine.storage.bucket import Storage

pytestmark = pytest.mark.slow

PART = 8 << 20
PADDING = 3 * PART
THIRD_PART = asked(r"PUT BUCKET/temp/upscale_[^/]+/source.*partNumber=3")


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory,
    swift: S3Server,
    container_python: Path,
) -> Iterator[FaultyPlace]:
    yield from faulty_on(tmp_path_factory.mktemp("strict"), swift, container_python)


def sent_parts(place: FaultyPlace) -> int:
    """How many parts of the one unfinished upload are there."""
    with Storage(place.direct) as storage:
        (upload,) = storage.client.list_multipart_uploads(Bucket=place.direct.bucket)["Uploads"]
        named = {"Bucket": place.direct.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        return len(storage.client.list_parts(**named).get("Parts", ()))


def test_an_upload_that_was_cut_goes_on_with_the_parts_that_are_missing(strict: FaultyPlace, tmp_path: Path) -> None:
    # A source of four parts: a video, and bytes behind it that are no part of it.
    source = make_clip(tmp_path / "short.mp4", frames=FRAMES, rate=1, size=SIZE)
    padding = bytes(range(256)) * (PADDING // 256)
    box = (8 + len(padding)).to_bytes(4, "big") + b"free" + padding
    (tmp_path / "source.mkv").write_bytes(source.read_bytes() + box)
    strict.proxy.hold(THIRD_PART)
    client = strict.upscale(tmp_path)
    strict.proxy.wait_held()
    end = time.monotonic() + 30
    while sum("/source" in request for request in strict.proxy.requests) < 4 and time.monotonic() < end:
        time.sleep(0.1)  # begun, and three parts of four
    time.sleep(1)
    client.kill()
    strict.mend()
    assert any("(upload)" in key for key in strict.left())
    before = strict.proxy.sent
    follower = strict.upscale(tmp_path)
    strict.check_done(follower, tmp_path)
    assert follower.job == client.job
    assert strict.proxy.sent - before < 2.5 * PART


def test_an_excerpt_whose_sending_was_cut_goes_on_with_the_parts_that_are_missing(
    strict: FaultyPlace, tmp_path: Path
) -> None:
    # Noise: of 31 MB the trimmed half are three parts.
    random = np.random.default_rng(4)
    pictures = (random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(300))
    source = write_video(tmp_path / "noise.mp4", pictures, rate=25, options={"crf": "4", "g": "25"})
    flags = ("--start", "5", "--end", "10.5", "--size", "160x120", "--model", "lanczos", "--preset", "ultrafast")
    given = (
        "upscale",
        source,
        "-o",
        tmp_path / "out.mp4",
        *flags,
        "--fps",
        "source",
        "--chunk-seconds",
        "3",
        "--remote",
    )
    home = strict.home(tmp_path)
    strict.proxy.hold(THIRD_PART)
    client = strict.client(*given, **home)
    strict.proxy.wait_held()
    end = time.monotonic() + 60
    while sent_parts(strict) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    client.kill()
    strict.proxy.cut()
    strict.mend()
    before = strict.proxy.sent
    follower = strict.client(*given, **home)
    assert follower.end() == 0, follower.errors
    assert follower.job == client.job
    assert strict.proxy.sent - before < 1.5 * PART
    assert strict.left() == []
    assert strict.run(*given[:3], tmp_path / "here.mp4", *given[4:-1], "--local").returncode == 0
    assert planes(tmp_path / "out.mp4") == planes(tmp_path / "here.mp4")


def test_a_chunk_whose_links_expired_is_started_again_with_new_ones(strict: FaultyPlace, tmp_path: Path) -> None:
    before = strict.spawned()
    strict.proxy.hold(READS_SOURCE)
    client = strict.upscale(tmp_path, first="import keyscale.engine.remote.staging as s; s.LINK_SECONDS = 12")
    strict.proxy.wait_held(2)
    time.sleep(13)
    strict.mend()
    strict.check_done(client, tmp_path)
    assert "expired" in client.notes
    assert strict.spawned() - before > 3
