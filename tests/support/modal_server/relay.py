"""A TCP relay in front of a server: tests shut it, as if the network or the server were gone, and open it again."""

from __future__ import annotations

import asyncio
import contextlib

CHUNK = 1 << 16


class Relay:
    """Passes bytes between a fixed port on loopback and a Unix socket.

    Shut, it either refuses connections and breaks those that exist, or lets them hang: they stay, nothing passes.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._port = 0
        self._server: asyncio.Server | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; the same each time the relay opens."""
        return self._port

    async def start(self, port: int) -> None:
        """Listen; port 0 takes any that is free."""
        self._port = port
        await self._listen()

    async def shut(self, *, hang: bool) -> None:
        """Let nothing pass any more."""
        if hang:
            self._passing.clear()
        else:
            await self.close()

    async def open(self) -> None:
        """Let everything pass again."""
        self._passing.set()
        if self._server is None:
            await self._listen()

    async def close(self) -> None:
        """Stop listening and break all connections."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        tasks = list(self._connections)
        for task, writer in self._connections.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, reuse_address=True)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._join(reader, writer)
        finally:
            del self._connections[task]
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        inner_reader, inner_writer = await asyncio.open_unix_connection(self._target)
        try:
            # Either side that ends, ends both: HTTP/2 has no use for half a connection.
            done, left = await asyncio.wait(
                [
                    asyncio.create_task(self._copy(reader, inner_writer)),
                    asyncio.create_task(self._copy(inner_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in left:
                task.cancel()
            await asyncio.gather(*done, *left, return_exceptions=True)
        finally:
            inner_writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
