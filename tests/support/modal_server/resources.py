"""The RPCs of what functions use: mounted files, secrets, volumes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .blobs import Blobs
from .dispatch import rpc
from .state import ENVIRONMENT, Secret, World

CREATED = {
    api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP,
    api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING,
}


class Resources:
    """Files by their SHA-256, mounts made of them, secrets by name, and the ids of volumes.

    Volumes can be named and committed, so that apps that use them deploy; no folder of theirs is shown to containers.
    """

    def __init__(self, world: World, blobs: Blobs, folder: Path) -> None:
        self._world = world
        self._blobs = blobs
        self._files = folder
        folder.mkdir(parents=True)

    @rpc
    async def mount_batched_check_existence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        """Which files still have to be sent."""
        missing = [name for name in request.sha256_hex_hashes if not (self._files / name).exists()]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    @rpc
    async def mount_put_file(self, request: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        """Store a file; one that does not have the hash it was announced with is refused."""
        data = self._blobs.read(request.data_blob_id) if request.data_blob_id else request.data
        if hashlib.sha256(data).hexdigest() != request.sha256_hex:
            raise GRPCError(Status.INVALID_ARGUMENT, "the file does not have the SHA-256 that was announced")
        (self._files / request.sha256_hex).write_bytes(data)
        return api_pb2.MountPutFileResponse(exists=True)

    @rpc
    async def mount_get_or_create(self, request: api_pb2.MountGetOrCreateRequest) -> api_pb2.MountGetOrCreateResponse:
        """A mount of files that are there already.

        One that is looked up by name is Modal's own, such as that of the client's sources. It is empty: the
        interpreter of the containers brings the client along.
        """
        absent = [file.filename for file in request.files if not (self._files / file.sha256_hex).exists()]
        if absent:
            raise GRPCError(Status.FAILED_PRECONDITION, f"files were not uploaded: {', '.join(absent)}")
        mount_id = self._world.new_id("mo")
        self._world.mounts[mount_id] = tuple(request.files)
        listing = "".join(sorted(f"{file.filename}{file.sha256_hex}" for file in request.files))
        checksum = hashlib.sha256(listing.encode()).hexdigest()
        return api_pb2.MountGetOrCreateResponse(
            mount_id=mount_id, handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex=checksum)
        )

    @rpc
    async def secret_get_or_create(
        self, request: api_pb2.SecretGetOrCreateRequest
    ) -> api_pb2.SecretGetOrCreateResponse:
        """A secret by its name, or one whose values the client sends."""
        found = next((s for s in self._world.secrets.values() if s.name and s.name == request.deployment_name), None)
        kind = request.object_creation_type
        if found is not None and kind == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Secret '{found.name}' already exists")
        if found is None and kind not in CREATED:
            raise GRPCError(
                Status.NOT_FOUND, f"Secret '{request.deployment_name}' not found in environment '{ENVIRONMENT}'"
            )
        if found is None or kind == api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            found = self.set_secret(request.deployment_name, dict(request.env_dict))
        absent = [key for key in request.required_keys if key not in found.values]
        if absent:
            raise GRPCError(
                Status.FAILED_PRECONDITION, f"Secret '{found.name}' is missing required key(s): {', '.join(absent)}"
            )
        metadata = api_pb2.SecretMetadata(name=found.name, keys=list(found.values), environment_name=ENVIRONMENT)
        return api_pb2.SecretGetOrCreateResponse(secret_id=found.id, metadata=metadata)

    @rpc
    async def volume_get_or_create(
        self, request: api_pb2.VolumeGetOrCreateRequest
    ) -> api_pb2.VolumeGetOrCreateResponse:
        """The id of a volume."""
        name = request.deployment_name
        if name not in self._world.volumes and request.object_creation_type not in CREATED:
            raise GRPCError(Status.NOT_FOUND, f"Volume '{name}' not found in environment '{ENVIRONMENT}'")
        volume_id = self._world.volumes.setdefault(name or self._world.new_id("anonymous"), self._world.new_id("vo"))
        return api_pb2.VolumeGetOrCreateResponse(volume_id=volume_id, metadata=api_pb2.VolumeMetadata(name=name))

    @rpc
    async def volume_commit(self) -> api_pb2.VolumeCommitResponse:
        """Nothing to keep: no folder was shown."""
        return api_pb2.VolumeCommitResponse(skip_reload=True)

    def set_secret(self, name: str, values: dict[str, str]) -> Secret:
        """Make a secret, or give the one of that name other values; an empty name makes a nameless one."""
        earlier = next((s for s in self._world.secrets.values() if name and s.name == name), None)
        secret = Secret(id=earlier.id if earlier else self._world.new_id("st"), name=name, values=values)
        self._world.secrets[secret.id] = secret
        return secret
