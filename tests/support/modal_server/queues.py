"""The RPCs of `modal.Queue`."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .dispatch import Caller, rpc
from .state import ENVIRONMENT, World

MOST_ITEMS = 5000
MOST_BYTES = 1 << 20
LONGEST_POLL_S = 50.0


@dataclass(kw_only=True, eq=False)
class Queue:
    """Items by partition, each with the number under which it was put."""

    id: str
    name: str
    ephemeral: bool
    beat_at: float
    """When its owner was last heard of (monotonic seconds)."""
    partitions: defaultdict[bytes, deque[tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(deque))
    count: int = 0


class Queues:
    """Queues by name, and ephemeral ones, which vanish when their owner is not heard of for `lease_s` seconds."""

    def __init__(self, world: World, *, lease_s: float) -> None:
        self._world = world
        self._lease_s = lease_s
        self._queues: dict[str, Queue] = {}

    @rpc
    async def queue_get_or_create(self, request: api_pb2.QueueGetOrCreateRequest) -> api_pb2.QueueGetOrCreateResponse:
        """A queue by its name, or a new one."""
        name = request.deployment_name
        kind = request.object_creation_type
        found = next((queue for queue in self._queues.values() if name and queue.name == name), None)
        if found is not None and kind == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Queue '{name}' already exists")
        if found is None:
            if kind == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                raise GRPCError(Status.NOT_FOUND, f"Queue '{name}' not found in environment '{ENVIRONMENT}'")
            ephemeral = kind == api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL
            found = Queue(id=self._world.new_id("qu"), name=name, ephemeral=ephemeral, beat_at=time.monotonic())
            self._queues[found.id] = found
        return api_pb2.QueueGetOrCreateResponse(queue_id=found.id, metadata=api_pb2.QueueMetadata(name=name))

    @rpc
    async def queue_get_by_id(self, request: api_pb2.QueueGetByIdRequest) -> api_pb2.QueueGetByIdResponse:
        """A queue by its id."""
        found = self._queue(request.queue_id)
        return api_pb2.QueueGetByIdResponse(queue_id=found.id, metadata=api_pb2.QueueMetadata(name=found.name))

    @rpc
    async def queue_heartbeat(self, request: api_pb2.QueueHeartbeatRequest) -> None:
        """The owner of an ephemeral queue is still there."""
        self._queue(request.queue_id).beat_at = time.monotonic()

    @rpc
    async def queue_put(self, request: api_pb2.QueuePutRequest) -> None:
        """Put items; RESOURCE_EXHAUSTED where the partition is full."""
        queue = self._queue(request.queue_id)
        partition = queue.partitions[request.partition_key]
        if any(len(value) > MOST_BYTES for value in request.values):
            raise GRPCError(Status.INVALID_ARGUMENT, "a queue item may have 1 MiB at most")
        if len(partition) + len(request.values) > MOST_ITEMS:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a queue partition holds {MOST_ITEMS} items at most")
        for value in request.values:
            queue.count += 1
            partition.append((queue.count, value))
        self._world.bell.ring()

    @rpc
    async def queue_get(self, request: api_pb2.QueueGetRequest, caller: Caller) -> api_pb2.QueueGetResponse:
        """Take up to `n_values` items, as soon as there are any."""

        def ready() -> list[bytes] | None:
            partition = self._queue(request.queue_id).partitions[request.partition_key]
            return [partition.popleft()[1] for _ in range(min(len(partition), request.n_values or 1))] or None

        found = await self._world.bell.wait(ready, caller.wait_s(min(request.timeout, LONGEST_POLL_S)))
        return api_pb2.QueueGetResponse(values=found or [])

    @rpc
    async def queue_next_items(
        self, request: api_pb2.QueueNextItemsRequest, caller: Caller
    ) -> api_pb2.QueueNextItemsResponse:
        """Look at the items behind one that was seen, and leave them there."""
        seen = int(request.last_entry_id or 0)

        def ready() -> list[api_pb2.QueueItem] | None:
            partition = self._queue(request.queue_id).partitions[request.partition_key]
            items = [api_pb2.QueueItem(value=value, entry_id=str(at)) for at, value in partition if at > seen]
            return items or None

        found = await self._world.bell.wait(ready, caller.wait_s(min(request.item_poll_timeout, LONGEST_POLL_S)))
        return api_pb2.QueueNextItemsResponse(items=found or [])

    @rpc
    async def queue_len(self, request: api_pb2.QueueLenRequest) -> api_pb2.QueueLenResponse:
        """How many items there are in a partition, or in all."""
        partitions = self._queue(request.queue_id).partitions
        chosen = partitions.values() if request.total else [partitions[request.partition_key]]
        return api_pb2.QueueLenResponse(len=sum(map(len, chosen)))

    @rpc
    async def queue_clear(self, request: api_pb2.QueueClearRequest) -> None:
        """Drop the items of a partition, or all."""
        queue = self._queue(request.queue_id)
        if request.all_partitions:
            queue.partitions.clear()
        else:
            queue.partitions.pop(request.partition_key, None)

    @rpc
    async def queue_delete(self, request: api_pb2.QueueDeleteRequest) -> None:
        """Delete a queue."""
        self._queues.pop(self._queue(request.queue_id).id)

    def forget_ephemeral(self) -> None:
        """Let all ephemeral queues vanish, as if their owners had not been heard of for long."""
        self._queues = {key: queue for key, queue in self._queues.items() if not queue.ephemeral}

    def _queue(self, queue_id: str) -> Queue:
        queue = self._queues.get(queue_id)
        if queue is not None and queue.ephemeral and time.monotonic() - queue.beat_at > self._lease_s:
            del self._queues[queue_id]
        if queue_id not in self._queues or queue is None:
            raise GRPCError(Status.NOT_FOUND, f"Queue {queue_id} not found")
        return queue
