"""A source that has an address, made remotely: fetched here, staged as any file, and nothing of the link goes along."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clips import make_clip, numbers_in
from support.faulty_place import ForkedPlace
from support.range_server import SECRET, RangeServer

pytestmark = pytest.mark.loopback


def test_a_source_with_an_address_is_made_remotely(forked_place: ForkedPlace, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "talk.mp4", frames=6, rate=25, size=(64, 48))
    output = tmp_path / "out.mp4"
    flags = ("--size", "64x48", "--fps", "source", "--model", "lanczos", "--remote", "--progress", "json", "-o", output)
    own = forked_place.home(tmp_path) | {"KEYSCALE_CACHE_DIR": str(tmp_path / "cache")}
    with RangeServer() as server:
        server.objects["talks/my%20talk.mp4"] = clip.read_bytes()
        client = forked_place.client("upscale", server.url("talks/my%20talk.mp4"), *flags, **own)
        assert client.end() == 0, client.errors
        client.check()
    assert client.last["output"] == str(output)
    assert client.last["remote"]["local_frames"] == 0
    assert [number for _, number in numbers_in(output)] == list(range(6))
    assert forked_place.left() == []
    assert SECRET not in f"{client.errors}{client.notes}{client.last}{forked_place.logs()}"
