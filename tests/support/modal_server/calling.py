"""The RPCs by which clients call functions and containers work on the calls."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import AsyncIterator

from grpclib import GRPCError, Status
from modal._utils.jwt_utils import DecodedJwt
from modal_proto import api_pb2

from .dispatch import Caller, rpc
from .scheduler import Scheduler
from .state import ENVIRONMENT, Call, Input, InputState, World
from .tasks import Task, TaskState

LONGEST_POLL_S = 55.0
# Shorter than the 15 s between heartbeats: a cancellation is then told at once, and no heartbeat is late.
HEARTBEAT_S = 14.5


class Calling:
    """Calls, their inputs, outputs and streams, from the side of whoever calls."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self._world = world
        self._scheduler = scheduler

    @rpc
    async def function_map(self, request: api_pb2.FunctionMapRequest) -> api_pb2.FunctionMapResponse:
        """A new call, with the inputs that came along."""
        function = self._world.function(request.function_id)
        assert function.current is not None
        call = Call(
            id=self._world.new_id("fc"),
            function_id=function.id,
            kind=request.function_call_invocation_type,
            retry_policy=function.current.function.retry_policy,
        )
        self._world.calls[call.id] = call
        return api_pb2.FunctionMapResponse(
            function_call_id=call.id,
            pipelined_inputs=self._submit(call, list(request.pipelined_inputs)),
            retry_policy=call.retry_policy,
            function_call_jwt=DecodedJwt.encode_without_signature({"function_call_id": call.id}),
            sync_client_retries_enabled=True,
            max_inputs_outstanding=1000,
        )

    @rpc
    async def function_put_inputs(self, request: api_pb2.FunctionPutInputsRequest) -> api_pb2.FunctionPutInputsResponse:
        """More inputs for a call."""
        call = self._world.call(request.function_call_id)
        return api_pb2.FunctionPutInputsResponse(inputs=self._submit(call, list(request.inputs)))

    @rpc
    async def function_retry_inputs(
        self, request: api_pb2.FunctionRetryInputsRequest
    ) -> api_pb2.FunctionRetryInputsResponse:
        """A waiting client wants failed inputs to be tried again."""
        for item in request.inputs:
            payload = DecodedJwt.decode_without_verification(item.input_jwt).payload
            self._scheduler.retry(self._world.inputs[payload["input_id"]], item.input)
        return api_pb2.FunctionRetryInputsResponse(input_jwts=[item.input_jwt for item in request.inputs])

    @rpc
    async def function_get_outputs(
        self, request: api_pb2.FunctionGetOutputsRequest, caller: Caller
    ) -> api_pb2.FunctionGetOutputsResponse:
        """Outputs of a call, as soon as there are any; none where the caller's time runs out before."""
        call = self._world.call(request.function_call_id)
        first = request.start_idx if request.HasField("start_idx") else 0
        last = request.end_idx if request.HasField("end_idx") else len(call.inputs)
        seen = int(request.last_entry_id.partition("-")[0] or 0)

        def ready() -> list[Input] | None:
            done = [one for one in call.inputs if one.output is not None and one.entry > seen]
            return [one for one in done if first <= one.idx <= last] or None

        found: list[Input] = []
        if not call.expired:
            found = await self._world.bell.wait(ready, caller.wait_s(min(request.timeout, LONGEST_POLL_S))) or []
        found = sorted(found, key=lambda one: one.entry)[: request.max_values or None]
        unfinished = 0 if call.expired else sum(one.state is not InputState.DONE for one in call.inputs)
        return api_pb2.FunctionGetOutputsResponse(
            idxs=[one.idx for one in found],
            outputs=[one.output for one in found if one.output is not None],
            last_entry_id=f"{found[-1].entry if found else seen}-0",
            num_unfinished_inputs=unfinished,
        )

    @rpc
    async def function_call_get_data_out(
        self, request: api_pb2.FunctionCallGetDataRequest
    ) -> AsyncIterator[api_pb2.DataChunk]:
        """What a generator yields, as it comes."""
        call = self._world.call(request.function_call_id)
        for at in itertools.count(request.last_index + 1):
            chunk = await self._world.bell.wait(functools.partial(call.data_out.get, at), LONGEST_POLL_S)
            if chunk is None:
                return
            yield chunk

    @rpc
    async def function_call_cancel(self, request: api_pb2.FunctionCallCancelRequest) -> None:
        """Cancel a call."""
        call = self._world.call(request.function_call_id)
        self._scheduler.cancel(call, terminate_containers=request.terminate_containers)

    @rpc
    async def function_call_from_id(
        self, request: api_pb2.FunctionCallFromIdRequest
    ) -> api_pb2.FunctionCallFromIdResponse:
        """What a call consists of."""
        call = self._world.call(request.function_call_id)
        function = self._world.functions[call.function_id]
        return api_pb2.FunctionCallFromIdResponse(
            function_call_id=call.id,
            num_inputs=len(call.inputs),
            metadata=api_pb2.FunctionCallHandleMetadata(app_id=function.app_id, function_id=function.id),
        )

    @rpc
    async def function_get_call_graph(
        self, request: api_pb2.FunctionGetCallGraphRequest
    ) -> api_pb2.FunctionGetCallGraphResponse:
        """The inputs of a call, and which containers have them."""
        call = self._world.call(request.function_call_id)
        response = api_pb2.FunctionGetCallGraphResponse()
        response.function_calls.add(
            function_call_id=call.id, function_name=self._world.functions[call.function_id].name
        )
        for one in call.inputs:
            status = one.output.result.status if one.output is not None else 0
            response.inputs.add(input_id=one.id, function_call_id=call.id, task_id=one.task_id, status=status)
        return response

    @rpc
    async def function_get_current_stats(
        self, request: api_pb2.FunctionGetCurrentStatsRequest
    ) -> api_pb2.FunctionStats:
        """How busy a function is."""
        function = self._world.function(request.function_id)
        tasks = [task for task in self._scheduler.tasks.values() if task.function_id == function.id]
        return api_pb2.FunctionStats(
            backlog=len(function.pending),
            num_total_tasks=len(tasks),
            num_running_inputs=sum(len(task.inputs) for task in tasks),
        )

    @rpc
    async def task_list(self, request: api_pb2.TaskListRequest) -> api_pb2.TaskListResponse:
        """The containers of an app."""
        response = api_pb2.TaskListResponse()
        now, wall = time.monotonic(), time.time()
        for task in self._scheduler.tasks.values():
            app_id = self._world.functions[task.function_id].app_id
            if request.app_id in {"", app_id}:
                at = wall - (now - task.started_at)
                response.tasks.add(task_id=task.id, app_id=app_id, started_at=at, enqueued_at=at)
        return response

    @rpc
    async def container_stop(self, request: api_pb2.ContainerStopRequest) -> api_pb2.ContainerStopResponse:
        """End a container; what it works on goes to another."""
        task = self._scheduler.tasks.get(request.task_id)
        if task is None:
            raise GRPCError(Status.NOT_FOUND, f"Container {request.task_id} not found in environment '{ENVIRONMENT}'")
        if request.graceful and task.state is TaskState.READY:
            task.state, task.ending = TaskState.STOPPING, "stopped"
            self._world.bell.ring()
        else:
            task.end("stopped")
        return api_pb2.ContainerStopResponse()

    def _submit(
        self, call: Call, items: list[api_pb2.FunctionPutInputsItem]
    ) -> list[api_pb2.FunctionPutInputsResponseItem]:
        return [
            api_pb2.FunctionPutInputsResponseItem(
                idx=one.idx,
                input_id=one.id,
                input_jwt=DecodedJwt.encode_without_signature({"input_id": one.id, "idx": one.idx}),
            )
            for one in self._scheduler.submit(call, items)
        ]


class Working:
    """The same calls from the side of the containers."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self._world = world
        self._scheduler = scheduler

    @rpc
    async def container_hello(self, caller: Caller) -> None:
        """A container says that it runs."""
        self._task(caller)

    @rpc
    async def container_heartbeat(self, caller: Caller) -> api_pb2.ContainerHeartbeatResponse:
        """Held back until there is an input to cancel, or nearly until the next heartbeat is due.

        A cancellation is told again until the container has answered for the input: it may have come before the
        container had begun.
        """
        task = self._task(caller)
        cancelled = await self._world.bell.wait(
            lambda: self._scheduler.cancelled_inputs(task), caller.wait_s(HEARTBEAT_S)
        )
        response = api_pb2.ContainerHeartbeatResponse()
        if cancelled:
            response.cancel_input_event.input_ids.extend(cancelled)
        return response

    @rpc
    async def function_get_inputs(self, caller: Caller) -> api_pb2.FunctionGetInputsResponse:
        """The next input, or the order to end."""
        task = self._task(caller)

        def ready() -> Input | TaskState | None:
            one = self._scheduler.take(task)
            stopping = task.state in {TaskState.STOPPING, TaskState.ENDED}
            return one if one is not None else TaskState.STOPPING if stopping else None

        found = await self._world.bell.wait(ready, caller.wait_s(LONGEST_POLL_S))
        response = api_pb2.FunctionGetInputsResponse()
        if isinstance(found, Input):
            response.inputs.add(
                input_id=found.id,
                input=found.message,
                function_call_id=found.call.id,
                function_call_invocation_type=found.call.kind,
                retry_count=found.retry_count,
                function_map_idx=found.idx,
            )
        elif found is not None:
            response.inputs.add(kill_switch=True)
        return response

    @rpc
    async def function_put_outputs(self, request: api_pb2.FunctionPutOutputsRequest, caller: Caller) -> None:
        """A container is done with inputs."""
        task = self._task(caller)
        for item in request.outputs:
            self._scheduler.finish(task, item)

    @rpc
    async def function_call_put_data_out(self, request: api_pb2.FunctionCallPutDataRequest) -> None:
        """What a generator yielded. One that was started again yields the same again: the first counts."""
        call = self._world.call(request.function_call_id)
        for chunk in request.data_chunks:
            call.data_out.setdefault(chunk.index, chunk)
        self._world.bell.ring()

    @rpc
    async def function_get_dynamic_concurrency(
        self, request: api_pb2.FunctionGetDynamicConcurrencyRequest
    ) -> api_pb2.FunctionGetDynamicConcurrencyResponse:
        """How many inputs a container should work on at once."""
        return api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=request.target_concurrency)

    @rpc
    async def task_result(self, request: api_pb2.TaskResultRequest, caller: Caller) -> None:
        """A container failed before it could work: the error of an import or of `@modal.enter`."""
        self._task(caller).start_result = request.result

    def _task(self, caller: Caller) -> Task:
        task = self._scheduler.tasks.get(caller.task_id or "")
        if task is None:
            raise GRPCError(Status.PERMISSION_DENIED, "only a running container may ask this")
        return task
