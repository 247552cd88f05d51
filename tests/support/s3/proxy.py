"""A TCP proxy on 127.0.0.1 that can break what it carries: cut, stall, refuse, answer in the server's place."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

BLOCK = 1 << 16


class Proxy:
    """Carries bytes to a server and back, and counts them. Use it in a `with` statement."""

    def __init__(self, target: str) -> None:
        """`target` such as `http://127.0.0.1:9000`."""
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._flows = threading.Event()
        self._flows.set()
        self._listener: socket.socket | None = None
        self._fuse: int | None = None
        self._fuse_refuses = False
        self._answers: list[_Answer] = []
        self._changes: list[tuple[Callable[[str], bool], bytes, bytes]] = []
        self._gates: list[_Gate] = []
        self._held = threading.Condition(self._lock)
        self._waiting: list[tuple[str, list[_Gate]]] = []
        self.requests: list[str] = []
        """First lines of the requests that went through, without queries."""
        self.sent = 0
        """Bytes from clients to the server."""
        self.received = 0
        """Bytes from the server to clients."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        self.release()
        self.refuse()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def accept(self) -> None:
        """Take connections (again)."""
        assert self._listener is None
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._spawn(self._serve, self._listener)

    def refuse(self) -> None:
        """Break all connections, and refuse new ones until `accept`."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would leave the thread in `accept`.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections, as a router does that was switched off and on."""
        with self._lock:
            broken = list(self._sockets)
        for one in broken:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Carry nothing, but keep connections open and take new ones, until `flow`."""
        self._flows.clear()

    def flow(self) -> None:
        """Carry again."""
        self._flows.set()

    def cut_after(self, amount: int, *, then_refuse: bool = False) -> None:
        """Break all connections once so many more bytes have passed, both ways together; once only."""
        with self._lock:
            self._fuse, self._fuse_refuses = amount, then_refuse

    def answer(
        self,
        matches: Callable[[str], bool],
        status: int,
        code: str,
        *,
        message: str = "as told",
        times: int | None = None,
    ) -> None:
        """Answer requests whose first line matches, or so many of them, with an error of S3."""
        body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        with self._lock:
            self._answers.append(_Answer(matches, f"{head}Connection: close\r\n\r\n{body}".encode(), times))

    def change(self, matches: Callable[[str], bool], pattern: bytes, put: bytes) -> None:
        """Replace what a regular expression finds in the heads of answers to requests whose first line matches."""
        with self._lock:
            self._changes.append((matches, pattern, put))

    def pass_on(self) -> None:
        """Take back every `answer` and `change`."""
        with self._lock:
            self._answers.clear()
            self._changes.clear()

    @property
    def held(self) -> list[str]:
        """First lines of the requests that a `hold` keeps waiting, without queries."""
        return [line for line, _ in self._waiting]

    def hold(self, matches: Callable[[str], bool]) -> Callable[[], None]:
        """Keep requests whose first line matches waiting until `release`; all others pass.

        Returns:
            `release` for these requests alone.
        """
        gate = _Gate(matches)
        with self._lock:
            self._gates.append(gate)
        return lambda: self._open([gate])

    def release(self) -> None:
        """Let everything pass that was held, and forget what it was."""
        self._open(list(self._gates))

    def _open(self, gates: list[_Gate]) -> None:
        with self._lock:
            self._gates = [gate for gate in self._gates if gate not in gates]
            for gate in gates:
                gate.opened.set()
            self._waiting = [
                (line, own) for line, own in self._waiting if not all(gate.opened.is_set() for gate in own)
            ]

    def wait_held(self, count: int = 1, timeout_s: float = 60.0) -> None:
        """Return once so many requests are kept waiting."""
        with self._held:
            assert self._held.wait_for(lambda: len(self.held) >= count, timeout_s), f"held are only {self.held}"

    def _spawn(self, act: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=act, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=20)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = _Pair(client, server)
            with self._lock:
                self._sockets |= {client, server}
            self._spawn(self._carry, pair, True)
            self._spawn(self._carry, pair, False)

    def _carry(self, pair: _Pair, outward: bool) -> None:
        source, sink = (pair.client, pair.server) if outward else (pair.server, pair.client)
        try:
            while block := source.recv(BLOCK):
                self._flows.wait()
                answer = self._look(block, pair) if outward else None
                if not outward:
                    block = self._changed(block, pair)
                if answer is not None:
                    source.sendall(answer)
                    break
                self._count(len(block), outward)
                sink.sendall(block)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            with self._lock:
                pair.ends -= 1
                last = pair.ends == 0
                if last:
                    self._sockets -= {pair.client, pair.server}
            if last:
                pair.client.close()
                pair.server.close()

    def _changed(self, block: bytes, pair: _Pair) -> bytes:
        """What is carried of an answer's block; changes keep the length of the content."""
        with self._lock:
            changes = [change for change in self._changes if change[0](pair.line)]
        head, end, content = block.partition(b"\r\n\r\n")
        if not changes or not end or not head.startswith(b"HTTP/1.1"):
            return block
        for _, pattern, put in changes:
            head = re.sub(pattern, put, head, flags=re.IGNORECASE)
        return head + end + content

    def _look(self, block: bytes, pair: _Pair) -> bytes | None:
        """The answer to give in the server's place, where the block begins a request that has one."""
        line, end, _ = block[:4096].partition(b"\r\n")
        if not end or not line.endswith(b" HTTP/1.1"):
            return None
        text = pair.line = line.decode("ascii", "replace")
        with self._lock:
            gates = [gate for gate in self._gates if gate.matches(text)]
            if gates:
                self._waiting.append((text.split("?")[0], gates))
                self._held.notify_all()
        for gate in gates:
            gate.opened.wait()
        with self._lock:
            for answer in self._answers:
                if answer.matches(text) and answer.left != 0:
                    answer.left = None if answer.left is None else answer.left - 1
                    return answer.content
            self.requests.append(text.split("?")[0])
        return None

    def _count(self, amount: int, outward: bool) -> None:
        with self._lock:
            if outward:
                self.sent += amount
            else:
                self.received += amount
            blown = False
            if self._fuse is not None:
                self._fuse -= amount
                if self._fuse <= 0:
                    self._fuse, blown = None, True
        if blown:
            if self._fuse_refuses:
                self.refuse()
            else:
                self.cut()


@dataclass
class _Answer:
    matches: Callable[[str], bool]
    content: bytes
    left: int | None
    """How often it is given still; None for ever."""


class _Gate:
    def __init__(self, matches: Callable[[str], bool]) -> None:
        self.matches = matches
        self.opened = threading.Event()


class _Pair:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.line = ""
        """First line of the last request."""
        self.ends = 2
