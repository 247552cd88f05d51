"""`--remote` on a server that enforces expiry and parts: an upload that was cut, and links that are too old."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import make_clip
from faulty_place import FRAMES, READS_SOURCE, SIZE, FaultyPlace, asked, faulty_on
from s3.server import S3Server

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


def test_a_chunk_whose_links_expired_is_started_again_with_new_ones(strict: FaultyPlace, tmp_path: Path) -> None:
    before = strict.spawned()
    strict.proxy.hold(READS_SOURCE)
    client = strict.upscale(tmp_path, first="import keyscale.engine.runners.staging as s; s.LINK_SECONDS = 12")
    strict.proxy.wait_held(2)
    time.sleep(13)
    strict.mend()
    strict.check_done(client, tmp_path)
    assert "expired" in client.notes
    assert strict.spawned() - before > 3
