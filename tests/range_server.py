"""An HTTP server on loopback that serves ranges of bytes, counts what it sends, and fails as it is told to."""

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
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""
    silent_s: float = 0.0
    """Seconds without a word, then the connection is closed."""
    whole: bool = False
    """The whole file with status 200, as of a server that knows no ranges."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer or put in place of its own."""


class RangeServer:
    """Serves one file under any path. `faults` are used up one a request, then all is well."""

    def __init__(self, content: bytes, *, tls: ssl.SSLContext | None = None) -> None:
        self.content = content
        self.tag = '"first"'
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        """Befalls every request for which `faults` holds none."""
        self.ranges: list[tuple[int, int]] = []
        """First and last byte of each request."""
        self.sent = 0
        """Bytes of content written to sockets."""
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "temp/source.mp4") -> str:
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
            fault = server.faults.popleft() if server.faults else server.always or Fault()
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            assert found is not None
            first, last = int(found[1]), min(int(found[2]), len(server.content) - 1)
            server.ranges.append((first, last))
            if fault.silent_s:
                time.sleep(fault.silent_s)
                self.close_connection = True
                return
            if fault.status is not None:
                self._answer(fault.status, b"<Error><Code>Broken</Code></Error>", fault.headers)
            elif fault.whole:
                self._answer(200, server.content, fault.headers)
            elif first >= len(server.content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(server.content)}"})
            else:
                place = {"Content-Range": f"bytes {first}-{last}/{len(server.content)}", "ETag": server.tag}
                self._answer(206, server.content[first : last + 1], place | fault.headers, fault.cut_after)

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
