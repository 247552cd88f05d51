"""Weights on disk: found, checked, fetched over HTTP, and read without running anything in them."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from keyscale.engine.errors import ModelError
from keyscale.engine.models import download as download_module
from keyscale.engine.models import find, load_model, weights
from keyscale.engine.models.registry import ModelSpec, WeightsFile
from keyscale.engine.models.speeds import Measured, remember

pytestmark = pytest.mark.loopback

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Server(ThreadingHTTPServer):
    """A loopback server of one file, with what real servers do wrong to be switched on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.range_answer: str | None = None
        self.statuses: list[int] = []
        """Answered first, one a request."""
        self.cuts: list[int] = []
        """Bytes after which the connection is dropped, one a request."""
        self.hold: threading.Event | None = None
        self.asked: list[str | None] = []
        """The Range header of every request."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/mirror"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.hold:
            server.hold.wait(10)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if self.path != "/mirror/tiny.pth":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            said = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            self.send_header("Content-Range", server.range_answer or said)
        self.end_headers()
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; its `weights` folder is what is returned, not made yet."""
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("KEYSCALE_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "PAUSES_S", (0.01, 0.01))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def tiny(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A model whose one file the loopback server mirrors."""
    monkeypatch.setenv("KEYSCALE_WEIGHTS_URL", server.base)
    return tiny_spec()


def tiny_spec(digest: str = DIGEST) -> ModelSpec:
    file = WeightsFile("tiny.pth", digest, len(CONTENT), "https://example.invalid/tiny.pth")
    return ModelSpec(name="tiny", family="custom", architecture="srvgg", scale=4, features=64, blocks=1, files=(file,))


def put(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


class TestDownload:
    def test_a_fresh_one(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        seen: list[tuple[int, int | None]] = []
        notes: list[str] = []
        path = weights.ensure(tiny, offline=False, on_progress=lambda *now: seen.append(now), on_note=notes.append)
        assert path == cache / "tiny.pth"
        assert path.read_bytes() == CONTENT
        assert names(cache) == {"tiny.pth"}
        assert server.asked == [None]
        assert seen == sorted(seen)
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert notes == [f"downloading tiny.pth (1.0 MB) from {server.base}/tiny.pth"]

    def test_what_is_there_is_not_fetched_again(self, tiny: ModelSpec, server: Server) -> None:
        first = weights.ensure(tiny, offline=False)
        assert weights.ensure(tiny, offline=False) == first
        assert weights.ensure(tiny, offline=True) == first
        assert len(server.asked) == 1

    def test_it_takes_up_where_an_earlier_one_broke_off(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        put(cache, "tiny.pth.part", CONTENT[:HALF])
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert server.asked == [f"bytes={HALF}-"]
        assert names(cache) == {"tiny.pth"}

    def test_a_part_that_is_whole_needs_no_connection(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        put(cache, "tiny.pth.part", CONTENT)
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert server.asked == []

    def test_a_part_longer_than_the_file_is_dropped(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        put(cache, "tiny.pth.part", CONTENT + b"x")
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert server.asked == [None]

    def test_a_server_that_ignores_ranges_sends_it_whole(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        server.ranges = False
        put(cache, "tiny.pth.part", CONTENT[:HALF])
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert server.asked == [f"bytes={HALF}-"]

    def test_a_server_that_goes_on_elsewhere_is_asked_for_the_whole(
        self, tiny: ModelSpec, cache: Path, server: Server
    ) -> None:
        server.range_answer = f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"
        put(cache, "tiny.pth.part", CONTENT[:HALF])
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert server.asked == [f"bytes={HALF}-", None]

    def test_a_range_that_cannot_be_satisfied_begins_anew(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        server.statuses = [416]
        put(cache, "tiny.pth.part", CONTENT[:HALF])
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert server.asked == [f"bytes={HALF}-", None]

    def test_a_part_of_something_else_is_found_out_and_fetched_anew(
        self, tiny: ModelSpec, cache: Path, server: Server
    ) -> None:
        put(cache, "tiny.pth.part", b"x" * HALF)
        notes: list[str] = []
        assert weights.ensure(tiny, offline=False, on_note=notes.append).read_bytes() == CONTENT
        assert server.asked == [f"bytes={HALF}-", None]
        assert "the part kept from an earlier download was wrong" in notes[1]

    def test_a_dropped_connection_is_resumed(self, tiny: ModelSpec, server: Server) -> None:
        server.cuts = [HALF]
        notes: list[str] = []
        assert weights.ensure(tiny, offline=False, on_note=notes.append).read_bytes() == CONTENT
        assert server.asked == [None, f"bytes={HALF}-"]
        assert f"ended after {HALF} of {len(CONTENT)} bytes; trying again (2 of 3)" in notes[1]

    def test_a_busy_server_is_asked_three_times(self, tiny: ModelSpec, server: Server) -> None:
        server.statuses = [503, 429]
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert len(server.asked) == 3

    def test_and_no_more(self, tiny: ModelSpec, server: Server) -> None:
        server.statuses = [500] * 9
        with pytest.raises(ModelError, match=r"tiny\.pth could not be downloaded .* answers 500"):
            weights.ensure(tiny, offline=False)
        assert len(server.asked) == 3

    def test_what_was_received_is_kept_for_the_next_run(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        server.cuts = [1000, 1000, 1000]
        with pytest.raises(ModelError):
            weights.ensure(tiny, offline=False)
        assert names(cache) == {"tiny.pth.part"}
        assert weights.ensure(tiny, offline=False).read_bytes() == CONTENT
        assert server.asked[-1] == "bytes=3000-"

    def test_two_at_once_fetch_it_once(self, tiny: ModelSpec, server: Server) -> None:
        server.hold = threading.Event()
        notes: list[str] = []
        found: list[Path] = []

        def on_note(text: str) -> None:
            notes.append(text)
            if server.hold and any(note.startswith("waiting") for note in notes):
                server.hold.set()

        threads = [
            threading.Thread(target=lambda: found.append(weights.ensure(tiny, offline=False, on_note=on_note)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 2
        assert found[0].read_bytes() == CONTENT
        assert len(server.asked) == 1
        assert "waiting for another process that downloads tiny.pth" in notes


class TestDownloadThatFails:
    def test_a_wrong_checksum(self, server: Server, tiny: ModelSpec, cache: Path) -> None:
        server.content = b"x" + CONTENT[1:]
        wrong = hashlib.sha256(server.content).hexdigest()
        with pytest.raises(ModelError, match=f"has the SHA-256 {wrong}, not {DIGEST}; it was deleted"):
            weights.ensure(tiny, offline=False)
        assert names(cache) == set()
        assert len(server.asked) == 1

    def test_an_answer_of_another_length(self, server: Server, tiny: ModelSpec, cache: Path) -> None:
        server.content = b"<html>Please log in</html>"
        with pytest.raises(ModelError, match=rf"gives 26 bytes, but tiny\.pth has {len(CONTENT)}"):
            weights.ensure(tiny, offline=False)
        assert names(cache) == set()

    def test_not_there(self, server: Server, tiny: ModelSpec) -> None:
        server.statuses = [404]
        with pytest.raises(ModelError, match="answers 404") as caught:
            weights.ensure(tiny, offline=False)
        assert caught.value.remedy is not None
        assert "KEYSCALE_WEIGHTS_URL" in caught.value.remedy
        assert len(server.asked) == 1, "asking again would not help"

    @pytest.mark.usefixtures("cache")
    def test_nobody_listens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setenv("KEYSCALE_WEIGHTS_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
            with pytest.raises(ModelError, match=r"is not reachable: .*refused") as caught:
                weights.ensure(tiny_spec(), offline=False)
        assert caught.value.remedy is not None
        assert "KEYSCALE_WEIGHTS_DIR" in caught.value.remedy

    def test_offline_opens_no_connection(self, server: Server, tiny: ModelSpec, cache: Path) -> None:
        with pytest.raises(ModelError, match="downloading is switched off") as caught:
            weights.ensure(tiny, offline=True)
        assert str(cache) in caught.value.message
        assert caught.value.remedy is not None
        assert "keyscale models fetch tiny" in caught.value.remedy
        assert server.asked == []
        assert not cache.exists()

    @pytest.mark.usefixtures("cache")
    @pytest.mark.parametrize("address", ["ftp://example.invalid/x", "file:///etc", "/srv/weights"])
    def test_a_mirror_that_is_no_web_address(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        monkeypatch.setenv("KEYSCALE_WEIGHTS_URL", address)
        with pytest.raises(ModelError, match=r"KEYSCALE_WEIGHTS_URL is .* not an http or https address"):
            weights.ensure(tiny_spec(), offline=False)

    def test_secrets_in_an_address_are_not_shown(self, server: Server, cache: Path) -> None:
        host = server.base.removeprefix("http://")
        file = WeightsFile("tiny.pth", DIGEST, len(CONTENT), f"http://user:pass@{host}/absent.pth?token=1")
        with pytest.raises(ModelError) as caught:
            download_module.download(file, cache)
        assert "user" not in caught.value.message
        assert "token" not in caught.value.message
        assert f"http://{host}/absent.pth" in caught.value.message

    def test_a_cache_that_cannot_be_written(
        self, tiny: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "file"))
        with pytest.raises(ModelError, match="cannot be written") as caught:
            weights.ensure(tiny, offline=False)
        assert caught.value.remedy is not None
        assert "KEYSCALE_CACHE_DIR" in caught.value.remedy

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")  # noqa: PTH110
    def test_a_full_disk(self, tiny: ModelSpec, cache: Path, server: Server) -> None:
        cache.mkdir(parents=True)
        (cache / "tiny.pth.part").symlink_to("/dev/full")
        with pytest.raises(ModelError, match="No space left on device") as caught:
            weights.ensure(tiny, offline=False)
        assert caught.value.remedy is not None
        assert "Free some space" in caught.value.remedy
        assert len(server.asked) == 1


class TestFinding:
    def test_the_weights_folder_comes_before_the_cache(
        self, tiny: ModelSpec, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cached = put(cache, "tiny.pth", CONTENT)
        assert weights.locate(tiny) == cached
        own = put(tmp_path / "own", "tiny.pth", CONTENT)
        monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(tmp_path / "own"))
        assert weights.locate(tiny) == weights.ensure(tiny, offline=True) == own

    def test_nowhere(self, tiny: ModelSpec) -> None:
        assert weights.locate(tiny) is None

    def test_a_weights_folder_that_is_none(
        self, tiny: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(tmp_path / "absent"))
        with pytest.raises(ModelError, match=r"KEYSCALE_WEIGHTS_DIR is .*absent, which is not a directory"):
            weights.locate(tiny)

    def test_without_any_variable_the_platform_says_where(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KEYSCALE_CACHE_DIR", raising=False)
        monkeypatch.delenv("KEYSCALE_WEIGHTS_DIR", raising=False)
        (folder,) = weights.search_dirs()
        assert folder.name == "weights"
        assert "keyscale" in folder.parent.as_posix()

    def test_a_cache_folder_beneath_the_home_is_the_same_for_weights_and_speeds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        monkeypatch.setenv("KEYSCALE_CACHE_DIR", "~/cache")
        assert weights.cache_dir() == tmp_path / "cache" / "weights"
        remember([Measured("some model", pixels=100, frames=100, value=1e-12)])
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["speeds.json"]

    @pytest.mark.parametrize("where", ["own", "cache"])
    def test_a_file_that_is_not_what_its_name_says(
        self, tiny: ModelSpec, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(tmp_path / "own"))
        (tmp_path / "own").mkdir()
        path = put(cache if where == "cache" else tmp_path / "own", "tiny.pth", b"other")
        wrong = hashlib.sha256(b"other").hexdigest()
        with pytest.raises(ModelError, match=re.escape(str(path))) as caught:
            weights.ensure(tiny, offline=False)
        assert wrong in caught.value.message
        assert DIGEST in caught.value.message
        assert caught.value.remedy is not None
        assert path.read_bytes() == b"other", "nobody's file is replaced unasked"

    @pytest.mark.usefixtures("cache")
    def test_both_forms_of_the_general_network_are_known(self, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(shared / "weights"))
        for name in ("realesr-general-x4v3", "realesr-general-wdn-x4v3"):
            assert weights.ensure(find(name), offline=True).name == f"{name}.fp16-from-ncnn.pth"
        path = weights.ensure(find("realesr-animevideov3"), offline=True)
        assert path.name == "realesr-animevideov3.pth"

    @pytest.mark.usefixtures("cache")
    def test_a_model_is_loaded_by_name(self, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYSCALE_WEIGHTS_DIR", str(shared / "weights"))
        model = load_model("Realesr-AnimeVideoV3", offline=True)
        assert model.spec == find("realesr-animevideov3")
        assert model.sha256 == model.spec.files[0].sha256
        grey = model(torch.full((1, 3, 40, 40), 0.5))
        assert grey.shape == (1, 3, 160, 160)
        assert (grey[:, :, 72:88, 72:88] - 0.5).abs().max() < 0.05, "a flat grey stays what it is"

    def test_a_path_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="there is no checkpoint at"):
            load_model(tmp_path / "absent.pth")
        with pytest.raises(ModelError, match="there is no checkpoint at") as caught:
            load_model("RealESRGAN_x4plus.pth")
        assert caught.value.remedy is not None
        assert "by its name alone" in caught.value.remedy

    def test_a_name_that_is_neither_path_nor_model(self) -> None:
        with pytest.raises(ModelError, match="there is no model named"):
            load_model("realesrgan")


class Trap:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


class TestReading:
    TENSORS = {"a": torch.ones(2), "b": torch.zeros(1, 1)}  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(
        "wrapped",
        [
            TENSORS,
            {"params": TENSORS},
            {"params_ema": TENSORS, "params": {"a": torch.zeros(2)}},
            {"state_dict": TENSORS, "epoch": 3},
        ],
        ids=["bare", "params", "averaged ones first", "state_dict"],
    )
    def test_tensors_are_found_in_their_wrapping(self, tmp_path: Path, wrapped: dict[str, Any]) -> None:
        torch.save(wrapped, tmp_path / "net.pth")
        state = weights.load_state_dict(tmp_path / "net.pth")
        assert list(state) == ["a", "b"]
        assert torch.equal(state["a"], torch.ones(2))

    @pytest.mark.parametrize("kind", ["pickle", "torch", "torch legacy"])
    def test_code_in_a_checkpoint_is_not_run(self, tmp_path: Path, kind: str) -> None:
        path, made = tmp_path / "net.pth", tmp_path / "made"
        if kind == "pickle":
            path.write_bytes(pickle.dumps({"params": Trap(made)}))
        else:
            zipped = kind == "torch"
            torch.save({"params": {"a": Trap(made)}}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match=re.escape(str(path))):
            weights.load_state_dict(path)
        assert not made.exists()

    def test_the_trap_would_have_worked(self, tmp_path: Path) -> None:
        pickle.loads(pickle.dumps(Trap(tmp_path / "made")))  # noqa: S301 - our own bytes
        assert (tmp_path / "made").exists()

    @pytest.mark.parametrize(
        "content",
        [b"", b"not a checkpoint\n" * 50, b"PK\x03\x04" + b"\0" * 500, bytes(range(256)), b"\x80\x02}q\x00."],
        ids=["empty", "text", "broken zip", "bytes", "empty dict"],
    )
    def test_what_is_no_checkpoint(self, tmp_path: Path, content: bytes) -> None:
        path = put(tmp_path, "net.pth", content)
        with pytest.raises(ModelError, match=re.escape(str(path))):
            weights.load_state_dict(path)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_a_file_that_is_cut_short(self, tmp_path: Path, share: float) -> None:
        path = tmp_path / "net.pth"
        torch.save({"params": {"a": torch.rand(1000)}}, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(ModelError, match=re.escape(str(path))):
            weights.load_state_dict(path)

    @pytest.mark.parametrize(
        ("content", "found"),
        [([1, 2], "list"), ({"a": 3}, "int under 'a'"), ({1: torch.ones(1)}, "Tensor under 1"), ({}, "dict")],
    )
    def test_what_holds_no_named_tensors(self, tmp_path: Path, content: object, found: str) -> None:
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(ModelError, match=f"holds.*{found}"):
            weights.load_state_dict(tmp_path / "net.pth")

    def test_safetensors(self, tmp_path: Path) -> None:
        safetensors.torch.save_file(self.TENSORS, tmp_path / "net.safetensors")
        assert list(weights.load_state_dict(tmp_path / "net.safetensors")) == ["a", "b"]
        with pytest.raises(ModelError, match="cannot be read as safetensors"):
            weights.load_state_dict(put(tmp_path, "broken.safetensors", b"x" * 100))

    def test_the_digest_of_a_file(self, tmp_path: Path) -> None:
        assert weights.sha256_of(put(tmp_path, "net.pth", CONTENT)) == DIGEST
        with pytest.raises(ModelError, match="cannot be read"):
            weights.sha256_of(tmp_path / "absent")


@pytest.mark.processes
def test_finding_weights_loads_no_torch() -> None:
    import subprocess

    code = "import sys, keyscale.engine.models.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
