"""An HTTP proxy on loopback: it passes requests on, gives tunnels, counts both, and refuses whom it does not know."""

from __future__ import annotations

import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class ForwardProxy:
    """`tunnels` and `requests` hold what it was asked for, in order."""

    def __init__(self, *, authorization: str | None = None, refuses: int | None = None) -> None:
        """`authorization` is what clients have to give in Proxy-Authorization; `refuses` a status for all of them."""
        self.tunnels: list[str] = []
        self.requests: list[str] = []
        self.passed_on: list[dict[str, str]] = []
        """Headers of the requests that it read."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, authorization, refuses))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(proxy: ForwardProxy, authorization: str | None, refuses: int | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def _is_let_in(self) -> bool:
            known = authorization in {None, self.headers.get("Proxy-Authorization")}
            if refuses is not None or not known:
                self.send_error(refuses or 407)
            return refuses is None and known

        def do_CONNECT(self) -> None:
            proxy.tunnels.append(self.path)
            if not self._is_let_in():
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                self.send_response(200)
                self.end_headers()
                sides = {self.connection: server, server: self.connection}
                while ready := select.select(list(sides), [], [], 10)[0]:
                    for side in ready:
                        if not (piece := side.recv(1 << 16)):
                            return
                        sides[side].sendall(piece)

        def do_GET(self) -> None:
            proxy.requests.append(self.path)
            if not self._is_let_in():
                return
            proxy.passed_on.append(dict(self.headers))
            host, _, target = self.path.removeprefix("http://").partition("/")
            connection = http.client.HTTPConnection(host, timeout=10)
            own = {name: value for name, value in self.headers.items() if not name.startswith("Proxy-")}
            connection.request("GET", f"/{target}", headers=own)
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name not in {"Date", "Server", "Connection"}:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
