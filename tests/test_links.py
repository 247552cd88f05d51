"""Small files fetched and sent by links, against a real HTTP server that fails as it is told to."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from keyscale.engine.errors import RemoteError
from keyscale.engine.links import fetch, send
from keyscale.engine.ranged import LinkMissing, LinkRefused, LinkUnreachable

SECRET = "X-Amz-Signature=5ec7e7"  # noqa: S105


class Server:
    """Holds objects by path. `answers` are used up one a request: a status, or `cut` and `short` for broken answers."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.answers: deque[int | str] = deque()
        self.always: int | str | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def url(self, path: str = "temp/plan") -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path}?X-Amz-Expires=60&{SECRET}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            self._serve("GET")

        def do_PUT(self) -> None:
            self._serve("PUT")

        def _serve(self, method: str) -> None:
            server.requests.append((f"{method} {self.path}", dict(self.headers)))
            path = self.path.split("?")[0].lstrip("/")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = server.answers.popleft() if server.answers else server.always
            content = server.objects.get(path, b"")
            if fault == "cut":
                self.connection.shutdown(socket.SHUT_RDWR)
            elif fault == "short":
                self._answer(200, content[: len(content) // 2], length=len(content))
            elif isinstance(fault, int):
                self._answer(fault, f"<Error>{SECRET}</Error>".encode())
            elif method == "PUT":
                server.objects[path] = body
                self._answer(200, b"")
            elif path in server.objects:
                self._answer(200, content)
            else:
                self._answer(404, b"<Error>NoSuchKey</Error>")

        def _answer(self, status: int, body: bytes, *, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing on stderr."""

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def test_a_file_is_fetched_whole(server: Server) -> None:
    server.objects["temp/plan"] = bytes(range(256)) * 100
    assert fetch(server.url(), name="the plan", most=25_600) == server.objects["temp/plan"]
    assert fetch(server.url(), name="the plan", most=25_600)


def test_the_links_path_and_query_arrive_as_they_were_signed(server: Server) -> None:
    server.objects["temp/a%20b"] = b"x"
    fetch(server.url("temp/a%20b"), name="the plan", most=10)
    assert server.requests[0][0] == f"GET /temp/a%20b?X-Amz-Expires=60&{SECRET}"


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_file_is_sent_with_its_length(server: Server, tmp_path: Path, size: int) -> None:
    path = tmp_path / "chunk.mp4"
    path.write_bytes(bytes(size))
    send(server.url("temp/chunk"), path, name="chunk 3")
    assert hashlib.sha256(server.objects["temp/chunk"]).digest() == hashlib.sha256(bytes(size)).digest()
    headers = server.requests[0][1]
    assert headers["Content-Length"] == str(size)
    assert "Transfer-Encoding" not in headers
    assert "Content-Type" not in headers, "a link is signed without one"


def test_bytes_are_sent(server: Server) -> None:
    send(server.url("temp/record"), b"{}", name="the record")
    assert server.objects["temp/record"] == b"{}"


@pytest.mark.parametrize("fault", [500, 502, 503, 408, 425, 429, "cut", "short"])
def test_what_may_pass_is_tried_again(server: Server, fault: int | str) -> None:
    server.objects["temp/plan"] = b"plan" * 1000
    server.answers += [fault, fault]
    assert fetch(server.url(), name="the plan", most=4000) == b"plan" * 1000
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [500, 503, "cut"])
def test_sending_is_tried_again_from_the_beginning(server: Server, tmp_path: Path, fault: int | str) -> None:
    path = tmp_path / "chunk.mp4"
    path.write_bytes(b"chunk" * 10_000)
    server.answers += [fault]
    send(server.url("temp/chunk"), path, name="chunk 3")
    assert server.objects["temp/chunk"] == b"chunk" * 10_000


@pytest.mark.parametrize("fault", [503, "cut"])
def test_what_does_not_pass_is_given_up_in_time(server: Server, fault: int | str) -> None:
    server.always = fault
    began = time.monotonic()
    with pytest.raises(LinkUnreachable, match=r"the plan cannot be read: 127\.0\.0\.1 did not do it within 0\.5 s"):
        fetch(server.url(), name="the plan", most=10, patience_s=0.5)
    assert 0.4 < time.monotonic() - began < 5
    assert len(server.requests) > 1


def test_where_nobody_listens_it_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/temp/plan?{SECRET}"
    with pytest.raises(LinkUnreachable) as caught:
        send(url, b"{}", name="the record", patience_s=0.3)
    assert caught.value.transient


def test_nothing_is_there(server: Server) -> None:
    with pytest.raises(LinkMissing, match=r"the plan cannot be read: it is not at 127\.0\.0\.1"):
        fetch(server.url(), name="the plan", most=10)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "the link expired or is not valid"),
        (401, "the link expired or is not valid"),
        (400, "status 400"),
        (301, "status 301"),
        (507, "status 507"),
    ],
)
@pytest.mark.parametrize("method", ["fetch", "send"])
def test_a_refusal_is_not_tried_again(server: Server, status: int, text: str, method: str) -> None:
    server.always = status
    ways: dict[str, Callable[[], object]] = {
        "fetch": lambda: fetch(server.url(), name="the plan", most=10),
        "send": lambda: send(server.url(), b"{}", name="the record"),
    }
    with pytest.raises(LinkRefused, match=text) as caught:
        ways[method]()
    assert len(server.requests) == 1
    assert not getattr(caught.value, "transient", False)


def test_more_than_the_most_is_refused(server: Server) -> None:
    server.objects["temp/plan"] = b"x" * 11
    with pytest.raises(LinkRefused, match="more than 10 bytes"):
        fetch(server.url(), name="the plan", most=10)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/plan", "plan", "http://", ""])
def test_another_kind_of_link_is_refused(url: str) -> None:
    with pytest.raises(LinkRefused, match="that is no http or https link"):
        fetch(url, name="the plan", most=10)


@pytest.mark.parametrize("fault", [301, 403, 503, "cut"])
def test_no_error_quotes_the_link(server: Server, fault: int | str) -> None:
    server.always = fault
    with pytest.raises(RemoteError) as caught:
        fetch(server.url(), name="the plan", most=10, patience_s=0.1)
    error: BaseException | None = caught.value
    while error is not None:
        assert "Signature" not in f"{error!r} {error} {getattr(error, 'remedy', '')}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_file_that_is_not_there_is_an_error_of_this_machine(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        send(server.url(), tmp_path / "absent", name="chunk 3")
    assert server.requests == []
