"""A file behind a link, read in ranges: only the bytes that are asked for, and a little ahead of them.

Faults are those of `engine.worker.links`, and as quiet as they are about the link.
"""

from __future__ import annotations

import http.client
import io
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from keyscale.engine.patience import Patience
from keyscale.engine.worker.links import (
    LONGEST_ANSWER,
    Link,
    LinkChanged,
    LinkError,
    LinkRefused,
    LinkUnsuitable,
    Passing,
    Via,
)

__all__ = ["PATIENCE_S", "RangedFile"]

BLOCK = 1 << 17
"""Bytes of a block: what is cached as one, and the least that is fetched."""

MEMORY = 64 << 20
"""Bytes of blocks kept; those used longest ago go first."""

AHEAD_SHARE = 4
"""Of what was read in one go, this part is fetched ahead: what is never used stays a fraction of what is."""

AHEAD_BLOCKS = 32
"""Blocks fetched at once at most."""

RUNS = 8
"""Places in the file that are remembered as being read on: picture and sound may lie far apart."""

PATIENCE_S = 60.0
"""How long a server may give nothing at all, over all tries."""

SILENCE_S = 20.0
"""How long one try may wait for the server's next bytes."""

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

USE_RANGES = "Use a storage that knows HTTP ranges."


class RangedFile(io.RawIOBase):
    """A read-only, seekable file over HTTP range requests; for one thread at a time.

    Faults that may pass (lost connections, timeouts, 429, 5xx, bodies that end early) are tried again with growing
    pauses, at the byte that was reached. The first error raised is final: later reads raise it again.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        size: int | None = None,
        tag: str | None = None,
        sha256: str | None = None,
        authorization: str | None = None,
        via: Via | None = None,
        on_bytes: Callable[[int], None] | None = None,
        patience_s: float = PATIENCE_S,
        memory: int = MEMORY,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            url: an http or https link; all of it but the host is kept secret.
            name: what errors call the file.
            size: bytes that it must have, where that is known.
            tag: its ETag, without quotes, where that is known.
            sha256: of its content, where that is known: a server that stored it with the file may give another ETag.
            authorization: what every request says in its header of that name.
            via: a proxy.
            on_bytes: told how many bytes came over the network, piece by piece.
            patience_s: seconds without a single byte after which a fault that may pass becomes an error.
            memory: bytes to cache, at least a few blocks.
            rest: sleeps for the given seconds between two tries, or raises.

        Raises:
            LinkRefused: `url` is no http or https link.
        """
        super().__init__()
        self.name = name
        link = Link(url, name, authorization=authorization, via=via)
        self._server = _Server(link, size, on_bytes or (lambda _: None), patience_s, rest)
        if tag:
            self._server.expect(tag, sha256)
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._most = max(2, memory // BLOCK)
        self._runs: OrderedDict[int, int] = OrderedDict()
        self._failure: LinkError | None = None

    def __repr__(self) -> str:
        return f"<RangedFile {self.name!r} from {self._server.host}>"

    @property
    def size(self) -> int:
        """Bytes of the whole file; asked of the server where it is not known yet.

        Raises:
            LinkError: as `readinto`.
        """
        if self._server.size is None:
            self._block(0)
        assert self._server.size is not None
        return self._server.size

    @property
    def version(self) -> str | None:
        """What tells this content from others at its place: the ETag, else the time of change that the server tells.

        None before the first read, and where it says neither.
        """
        return self._server.version

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte, counted from the start, from here, or from the end; fetches nothing but the size.

        Raises:
            ValueError: before the start, or an unknown `whence`.
            LinkError: as `readinto`, where the size has to be asked for.
        """
        self._check_open()
        if whence not in {io.SEEK_SET, io.SEEK_CUR, io.SEEK_END}:
            raise ValueError(f"whence is {whence}")
        base = 0 if whence == io.SEEK_SET else self._position if whence == io.SEEK_CUR else self.size
        if base + offset < 0:
            raise ValueError(f"a seek to {base + offset}, before the file's start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer
        """Read up to the end of a block; 0 at the file's end.

        Raises:
            LinkRefused: the link expired, is not valid, or leads to a server that is not trusted.
            LinkMissing: nothing is there.
            LinkChanged: it is no longer the file that was first read.
            LinkUnsuitable: the server does not give parts of files.
            LinkUnreachable: no byte came for as long as patience lasts.
        """
        self._check_open()
        if self._position >= self.size or not len(buffer):
            return 0
        index, offset = divmod(self._position, BLOCK)
        piece = memoryview(self._block(index))[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        """Close the connection and forget what was cached."""
        server: _Server | None = self.__dict__.get("_server")  # absent where making it failed
        if server is not None:
            server.close()
            self._blocks.clear()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name} is closed")
        if self._failure is not None:
            raise self._failure

    def _block(self, index: int) -> bytes:
        found = self._blocks.get(index)
        if found is not None:
            self._blocks.move_to_end(index)
            return found
        # A read that goes on where an earlier one ended looks further ahead the longer that has been so.
        length = self._runs.pop(index, 0)
        count = 1
        while count < min(AHEAD_BLOCKS, self._most, length // AHEAD_SHARE) and index + count not in self._blocks:
            count += 1
        try:
            content = memoryview(self._server.fetch(index * BLOCK, (index + count) * BLOCK))
        except LinkError as error:
            self._failure = error
            raise
        for number, start in enumerate(range(0, len(content), BLOCK)):
            self._blocks[index + number] = bytes(content[start : start + BLOCK])
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)
        self._runs[index + count] = length + count
        while len(self._runs) > RUNS:
            self._runs.popitem(last=False)
        return self._blocks.get(index, b"")


class _Server:
    """One connection to the link's server, kept alive, and what is known of the file behind it."""

    def __init__(
        self,
        link: Link,
        size: int | None,
        on_bytes: Callable[[int], None],
        patience_s: float,
        rest: Callable[[float], object],
    ) -> None:
        self._link = link
        self.host = self._link.host
        self.size = size
        self._on_bytes = on_bytes
        self._patience_s = patience_s
        self._rest = rest
        self._connection: http.client.HTTPConnection | None = None
        self._tag: str | None = None
        self._sha256: str | None = None
        """What stands for `_tag` in the first answer: some servers tell HEAD another ETag than GET."""
        self._modified: str | None = None
        self._closed = False

    def expect(self, tag: str, sha256: str | None) -> None:
        """Take no other version than the one with this ETag, or that was stored with this SHA-256."""
        self._tag, self._sha256 = f'"{tag}"', sha256

    def fetch(self, start: int, stop: int) -> bytes:
        """Bytes `[start, stop)`, less where the file ends before `stop`."""
        content = bytearray()
        patience = Patience(self._patience_s, silence_counts=True, rest=self._rest)
        while start + len(content) < self._end(stop):
            reused, before = self._connection is not None, len(content)
            try:
                for piece in self._pieces(start + len(content), self._end(stop)):
                    content += piece
                    self._on_bytes(len(piece))
            except LinkError:
                self._drop()
                raise
            except Passing as fault:
                self._drop()
                self._check_open()
                if len(content) > before:
                    patience.renew()
                elif reused:
                    continue  # a server closes connections that were idle for long: a new one may do at once
                if not patience.bear():
                    raise self._link.unreachable(fault, self._patience_s) from None
        return bytes(content)

    @property
    def version(self) -> str | None:
        return self._tag or self._modified

    def close(self) -> None:
        self._closed = True
        self._drop()

    def _end(self, stop: int) -> int:
        return stop if self.size is None else min(stop, self.size)

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """The answer to one request, as it comes in."""
        self._check_open()
        with self._link.quietly():
            response = self._ask(start, stop)
            expected = self._judge(response, start, stop)
            while expected:
                piece = response.read(min(expected, BLOCK))
                if not piece:
                    raise Passing("the answer ended early")
                expected -= len(piece)
                yield piece
            response.read()  # marks the answer as read, so that the connection can be used again

    def _ask(self, start: int, stop: int) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._link.connection(silence_s=max(0.1, min(SILENCE_S, self._patience_s)))
        headers = self._link.headers | {"Range": f"bytes={start}-{stop - 1}"}
        self._connection.request("GET", self._link.target, headers=headers)
        return self._connection.getresponse()

    def _judge(self, response: http.client.HTTPResponse, start: int, stop: int) -> int:
        """How many bytes the answer brings, if it is what was asked for."""
        status = response.status
        if status == 206:
            return self._content(response, start, stop)
        # `rclone serve s3` says 200 and names the part all the same; others where the part is all there is.
        if status == 200 and response.headers.get("Content-Range"):
            return self._content(response, start, stop)
        length = response.headers.get("Content-Length", "")
        if status == 200 and start == 0 and length.isascii() and length.isdigit() and 0 < int(length) <= stop:
            self._identify(int(length), response)
            return int(length)
        total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
        if status == 416 and total is not None:
            self._identify(int(total[1]), response)
            if start >= int(total[1]):
                return 0
        if status == 200:
            raise self._link.fault(LinkUnsuitable, "the server gives whole files only, no parts", USE_RANGES)
        raise self._link.meaning(status, response.read(LONGEST_ANSWER))

    def _content(self, response: http.client.HTTPResponse, start: int, stop: int) -> int:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        first, last, total = (int(value) for value in found.groups()) if found else (-1, -1, -1)
        if found:
            self._identify(total, response)
        if first != start or not first <= last < min(stop, total) or response.headers.get("Content-Encoding"):
            raise self._link.fault(LinkUnsuitable, "the server gives other parts than asked for", USE_RANGES)
        return last - first + 1

    def _identify(self, total: int, response: http.client.HTTPResponse) -> None:
        """Hold the answer against the first one: bytes of two versions make no file."""
        tag = response.headers.get("ETag", "").removeprefix("W/") or None  # compression on the way makes it a weak one
        modified = response.headers.get("Last-Modified")
        if self._sha256 is not None and response.headers.get("x-amz-meta-sha256") == self._sha256:
            self._tag = tag
        self._sha256 = None
        known = [(self._tag, tag)] if self._tag and tag else [(self._modified, modified)]
        replaced = any(before and now and before != now for before, now in known)
        if (self.size is not None and total != self.size) or replaced:
            what = f"it has {total} bytes instead of {self.size}" if total != self.size else "its content was replaced"
            why = f"it changed while it was read: {what}"
            raise self._link.fault(LinkChanged, why, "Run the command again.")
        self.size, self._tag, self._modified = total, tag or self._tag, modified or self._modified

    def _check_open(self) -> None:
        if self._closed:
            why, remedy = "it was closed while it was read", "Read it before it is closed."
            raise self._link.fault(LinkRefused, why, remedy)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
