"""An HTTP server on loopback that stores files, serves them whole or in ranges, counts, and fails as it is told to."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

SECRET = "X-Amz-Signature=5ec7e7"  # noqa: S105
"""What the links of `RangeServer.url` carry and nothing may show."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What becomes of one request."""

    status: int | None = None
    """Answered instead of the content."""
    body: bytes = f"<Error>{SECRET}</Error>".encode()
    """With that status."""
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""
    silent_s: float = 0.0
    """Seconds without a word, then the connection is closed."""
    whole: bool = False
    """The whole file with status 200, as of a server that knows no ranges."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer or put in place of its own."""


SOURCE = "temp/source.mp4"
"""The file that a link leads to unless it is said otherwise."""


class RangeServer:
    """Holds files by path. `faults` are used up one a request, then all is well."""

    def __init__(self, content: bytes | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, bytes] = {} if content is None else {SOURCE: content}
        """By path, without the slash before it."""
        self.tag = '"first"'
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        """Befalls every request for which `faults` holds none."""
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Method and target of each request, and its headers."""
        self.ranges: list[tuple[int, int]] = []
        """First and last byte of each request for a part."""
        self.sent = 0
        """Bytes of parts written to sockets."""
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def content(self) -> bytes:
        """The file at `SOURCE`."""
        return self.objects[SOURCE]

    @content.setter
    def content(self, content: bytes) -> None:
        self.objects[SOURCE] = content

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = SOURCE) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/{path}?X-Amz-Expires=60&{SECRET}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in mid-answer are part of the tests."""


def _handler(server: RangeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def setup(self) -> None:
            super().setup()
            server.connections += 1

        def do_GET(self) -> None:
            self._serve(None)

        def do_PUT(self) -> None:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

        def _serve(self, body: bytes | None) -> None:
            server.requests.append((f"{self.command} {self.path}", dict(self.headers)))
            path = self.path.partition("?")[0].lstrip("/")
            fault = server.faults.popleft() if server.faults else server.always or Fault()
            content = server.objects.get(path, b"")
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, last = (int(asked[1]), min(int(asked[2]), len(content) - 1)) if asked else (0, len(content) - 1)
            if asked:
                server.ranges.append((first, last))
            if fault.silent_s:
                time.sleep(fault.silent_s)
                self.close_connection = True
            elif fault.status is not None:
                self._answer(fault.status, fault.body, fault.headers)
            elif body is not None:
                server.objects[path] = body
                self._answer(200, b"", fault.headers)
            elif path not in server.objects:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", fault.headers)
            elif fault.whole or asked is None:
                self._answer(200, content, fault.headers, fault.cut_after)
            elif first >= len(content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            else:
                place = {"Content-Range": f"bytes {first}-{last}/{len(content)}", "ETag": server.tag}
                self._answer(206, content[first : last + 1], place | fault.headers, fault.cut_after)

        def _answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if status == 206:
                server.sent += len(body[:cut])
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Nothing on stderr."""

    return Handler
