"""Large arguments, results and files: stored by HTTP PUT and fetched by GET, as the client does with S3."""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path

from aiohttp import web
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .dispatch import Caller, rpc
from .state import World

LARGEST = 1 << 30


class Blobs:
    """Blobs in a folder, an HTTP server for them, and the RPCs that hand out its addresses."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder
        self._keys: dict[str, tuple[str, str]] = {}
        self._runner: web.AppRunner | None = None
        self._outer = ""
        self._inner = ""

    async def start(self, socket: Path) -> None:
        self._folder.mkdir(parents=True)
        app = web.Application(client_max_size=LARGEST)
        app.router.add_put("/{blob}/{key}", self._put)
        app.router.add_get("/{blob}/{key}", self._get)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket)).start()
        inner = web.TCPSite(self._runner, "127.0.0.1", 0)
        await inner.start()
        self._inner = f"http://127.0.0.1:{self._runner.addresses[-1][1]}"

    def serve_clients_at(self, url: str) -> None:
        self._outer = url

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def read(self, blob_id: str) -> bytes:
        """The content of a blob; NOT_FOUND where it was not uploaded."""
        path = self._folder / blob_id
        if blob_id not in self._keys or not path.exists():
            raise GRPCError(Status.NOT_FOUND, f"Blob {blob_id} not found")
        return path.read_bytes()

    @rpc
    async def blob_create(self, request: api_pb2.BlobCreateRequest, caller: Caller) -> api_pb2.BlobCreateResponse:
        """Where to put a new blob."""
        blob_id = self._world.new_id("bl")
        self._keys[blob_id] = (secrets.token_urlsafe(16), base64.b64decode(request.content_sha256_base64).hex())
        return api_pb2.BlobCreateResponse(
            blob_ids=[blob_id],
            upload_urls=api_pb2.UploadUrlList(items=[self._url(blob_id, caller)]),
        )

    @rpc
    async def blob_get(self, request: api_pb2.BlobGetRequest, caller: Caller) -> api_pb2.BlobGetResponse:
        """Where to get a blob."""
        self.read(request.blob_id)
        return api_pb2.BlobGetResponse(download_url=self._url(request.blob_id, caller))

    def _url(self, blob_id: str, caller: Caller) -> str:
        # Containers have a door of their own: they go on while that of the clients is shut.
        base = self._outer if caller.task_id is None else self._inner
        return f"{base}/{blob_id}/{self._keys[blob_id][0]}"

    def _checked(self, request: web.Request) -> str:
        blob_id = request.match_info["blob"]
        if self._keys.get(blob_id, ("",))[0] != request.match_info["key"]:
            raise web.HTTPForbidden(text="no such blob, or the wrong key")
        return blob_id

    async def _put(self, request: web.Request) -> web.Response:
        blob_id = self._checked(request)
        data = await request.read()
        if hashlib.sha256(data).hexdigest() != self._keys[blob_id][1]:
            raise web.HTTPBadRequest(text="the content does not have the SHA-256 that was announced")
        (self._folder / blob_id).write_bytes(data)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return web.Response(headers={"ETag": f'"{etag}"'})

    async def _get(self, request: web.Request) -> web.FileResponse:
        path = self._folder / self._checked(request)
        if not path.exists():
            raise web.HTTPNotFound(text="the blob was not uploaded")
        return web.FileResponse(path)
