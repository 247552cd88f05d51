"""Which container gets which input, when more containers are wanted, and what becomes of an input that fails.

The rules are those of Modal as its client 1.6.4 shows them: user code's failures and timeouts count against the
function's retry policy, lost containers do not, and for calls that a client waits for in `remote` the client itself
asks for the retries.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from modal_proto import api_pb2

from .state import (
    FAILURE,
    INTERNAL_FAILURE,
    SUCCESS,
    TERMINATED,
    TIMEOUT,
    App,
    Call,
    Function,
    Input,
    InputState,
    World,
)
from .tasks import Task, TaskState

LEAST_RETRY_DELAY_S = 1.0
MOST_INTERNAL_FAILURES = 8
CANCELLED = "Input was cancelled by user"


class Scheduler:
    """Inputs and containers of all functions."""

    def __init__(self, world: World, *, max_containers: int, failed_starts: int, retry_delay_factor: float) -> None:
        self._world = world
        self._max_containers = max_containers
        self._most_failed_starts = failed_starts
        self._retry_delay_factor = retry_delay_factor
        self.tasks: dict[str, Task] = {}
        """Containers that were started and have not ended."""

    # Calls

    def submit(self, call: Call, items: Iterable[api_pb2.FunctionPutInputsItem]) -> list[Input]:
        """Queue the inputs of a call."""
        function = self._world.function(call.function_id)
        fresh = [Input(id=self._world.new_id("in"), idx=item.idx, call=call, message=item.input) for item in items]
        for one in fresh:
            self._world.inputs[one.id] = one
        call.inputs.extend(fresh)
        function.pending.extend(fresh)
        self._world.bell.ring()
        return fresh

    def cancel(self, call: Call, *, terminate_containers: bool) -> None:
        """End a call: what is queued at once; what runs by its own container, or together with that."""
        for one in call.inputs:
            if one.state is InputState.DONE or one.cancelled_at is not None:
                continue
            one.cancelled_at = time.monotonic()
            task = self.tasks.get(one.task_id)
            if one.state is InputState.QUEUED or task is None:
                self._end(one, _result(TERMINATED, CANCELLED))
            elif terminate_containers:
                self._end(one, _result(TERMINATED, CANCELLED))
                task.end("terminated")
        self._world.bell.ring()

    def retry(self, one: Input, message: api_pb2.FunctionInput) -> None:
        """Queue an input again for a client that does the retries itself; its earlier output is forgotten."""
        if one.state is InputState.DONE:
            one.message = message
            one.retry_count += 1
            self._queue(one, delay_s=0.0)

    # Containers asking and answering

    def take(self, task: Task) -> Input | None:
        """The next input for a container that has room for one."""
        function = self._world.functions[task.function_id]
        if task.state is TaskState.STARTING:
            task.state = TaskState.READY
            function.failed_starts = 0
        if task.state is not TaskState.READY or function.current is not task.definition:
            return None
        now = time.monotonic()
        one = next((waiting for waiting in function.pending if waiting.ready_at <= now), None)
        if one is None:
            return None
        function.pending.remove(one)
        one.state, one.task_id, one.started_at = InputState.RUNNING, task.id, now
        task.inputs[one.id] = one
        return one

    def finish(self, task: Task, item: api_pb2.FunctionPutOutputsItem) -> None:
        """A container's answer for an input; ignored where the input is no longer with that container."""
        one = task.inputs.get(item.input_id)
        if one is None or one.task_id != task.id:
            return
        self._settle(one, item.result, item)

    def cancelled_inputs(self, task: Task) -> list[str] | None:
        """Inputs that a container has to cancel; None where there are none."""
        return [one.id for one in task.inputs.values() if one.cancelled_at is not None] or None

    def ended(self, task: Task) -> None:
        """A container's process is gone: its inputs go elsewhere or fail, by how it ended."""
        self.tasks.pop(task.id, None)
        function = self._world.functions[task.function_id]
        if task.state is TaskState.STARTING and task.ending in {None, "startup timeout"}:
            function.failed_starts += 1
            if function.failed_starts >= self._most_failed_starts:
                result = task.start_result or _result(FAILURE, f"Container failed to start: {task.describe_end()}")
                for one in list(function.pending):
                    self._end(one, result)
        task.state = TaskState.ENDED
        for one in list(task.inputs.values()):
            if one.cancelled_at is not None:
                self._end(one, _result(TERMINATED, CANCELLED))
            elif task.ending in {"preempted", "terminated", "stopped"}:
                self._queue(one, delay_s=0.0, first=True)
            elif task.ending == "internal failure":
                self._settle(one, _result(INTERNAL_FAILURE, "Internal failure: the worker was lost"))
            else:
                self._settle(one, _result(FAILURE, f"Container {task.id} {task.describe_end()}"))
        self._world.bell.ring()

    # The passing of time

    def look_at_the_clock(self, *, cancel_grace_s: float, most_idle_s: float) -> None:
        """Time out inputs and starts, stop idle containers, and end those that do not cancel what they should."""
        now = time.monotonic()
        for task in list(self.tasks.values()):
            function = task.definition.function
            if task.state is TaskState.STARTING and now - task.started_at > function.startup_timeout_secs:
                task.end("startup timeout")
                continue
            for one in list(task.inputs.values()):
                if now - one.started_at > function.timeout_secs:
                    message = f"Task's current input {one.id} hit its timeout of {function.timeout_secs}s"
                    task.end("terminated")
                    self._settle(one, _result(TIMEOUT, message))
                elif one.cancelled_at is not None and now - one.cancelled_at > cancel_grace_s:
                    task.end("terminated")
            replaced = self._world.functions[task.function_id].current is not task.definition
            idle_s = 0.0 if replaced else min(task.definition.scaledown_s, most_idle_s)
            if not task.inputs and now - task.idle_since > idle_s:
                self._let_go(task)
        self._world.bell.ring()

    def wanted(self) -> list[Function]:
        """Functions that need another container each, as far as their own limits and the server's allow."""
        found: list[Function] = []
        now = time.monotonic()
        for function in self._world.functions.values():
            definition = function.current
            waiting = sum(one.ready_at <= now for one in function.pending)
            if definition is None or not waiting:
                continue
            own = [task for task in self.tasks.values() if task.function_id == function.id]
            fit = [task for task in own if task.definition is definition and task.state is not TaskState.STOPPING]
            room = sum(max(0, definition.inputs_per_container - len(task.inputs)) for task in fit)
            more = -(-max(0, waiting - room) // definition.inputs_per_container)
            if definition.max_containers is not None:
                more = min(more, definition.max_containers - len(own))
            found.extend([function] * max(0, more))
        free = self._max_containers - len(self.tasks)
        if len(found) > free:
            self._make_room(len(found) - free)
        return found[: max(0, free)]

    # Taking things down

    def stop_function(self, function: Function) -> None:
        """A function that is no longer deployed: its containers end, and so do its calls."""
        function.current = None
        for task in list(self.tasks.values()):
            if task.function_id == function.id:
                for one in list(task.inputs.values()):
                    self._end(one, _result(TERMINATED, "The app was stopped"))
                task.end("terminated")
        for one in list(function.pending):
            self._end(one, _result(TERMINATED, "The app was stopped"))

    def stop_app(self, app: App) -> None:
        """Take an app down with all its functions."""
        app.state = api_pb2.APP_STATE_STOPPED
        for function in self._world.functions.values():
            if function.app_id == app.id:
                self.stop_function(function)
        self._world.bell.ring()

    # What becomes of one input

    def _settle(
        self, one: Input, result: api_pb2.GenericResult, item: api_pb2.FunctionPutOutputsItem | None = None
    ) -> None:
        policy = one.call.retry_policy
        if one.cancelled_at is not None and result.status != SUCCESS:
            self._end(one, _result(TERMINATED, CANCELLED), item)
        elif one.call.retried_by_client or result.status in {SUCCESS, TERMINATED}:
            self._end(one, result, item)
        elif result.status == INTERNAL_FAILURE:
            one.internal_failures += 1
            if one.internal_failures < MOST_INTERNAL_FAILURES:
                self._queue(one, delay_s=0.0, first=True)
            else:
                self._end(one, result, item)
        elif one.retry_count < policy.retries:
            one.retry_count += 1
            delay_s = policy.initial_delay_ms / 1000 * policy.backoff_coefficient ** (one.retry_count - 1)
            delay_s = max(LEAST_RETRY_DELAY_S, min(delay_s, policy.max_delay_ms / 1000 or delay_s))
            self._queue(one, delay_s=delay_s * self._retry_delay_factor)
        else:
            self._end(one, result, item)

    def _queue(self, one: Input, *, delay_s: float, first: bool = False) -> None:
        self._release(one)
        one.state, one.output = InputState.QUEUED, None
        one.ready_at = time.monotonic() + delay_s
        pending = self._world.functions[one.call.function_id].pending
        pending.insert(0 if first else len(pending), one)
        self._world.bell.ring()

    def _end(
        self, one: Input, result: api_pb2.GenericResult, item: api_pb2.FunctionPutOutputsItem | None = None
    ) -> None:
        task_id = one.task_id
        self._release(one)
        one.state = InputState.DONE
        one.call.entries += 1
        one.entry = one.call.entries
        one.output = api_pb2.FunctionGetOutputsItem(
            result=result,
            idx=one.idx,
            input_id=one.id,
            data_format=item.data_format if item else api_pb2.DATA_FORMAT_UNSPECIFIED,
            task_id=task_id,
            input_started_at=item.input_started_at if item else 0.0,
            output_created_at=item.output_created_at if item else time.time(),
            retry_count=one.retry_count,
        )
        self._world.bell.ring()

    def _release(self, one: Input) -> None:
        task = self.tasks.get(one.task_id)
        if task is not None and task.inputs.pop(one.id, None) is not None:
            task.idle_since = time.monotonic()
        pending = self._world.functions[one.call.function_id].pending
        if one in pending:
            pending.remove(one)
        one.task_id = ""

    def _let_go(self, task: Task) -> None:
        if task.state is TaskState.READY:
            task.state = TaskState.STOPPING
            task.ending = "stopped"
            self._world.bell.ring()

    def _make_room(self, count: int) -> None:
        idle = [task for task in self.tasks.values() if task.state is TaskState.READY and not task.inputs]
        for task in sorted(idle, key=lambda task: task.idle_since)[:count]:
            self._let_go(task)


def _result(status: api_pb2.GenericResult.GenericStatus.ValueType, text: str) -> api_pb2.GenericResult:
    return api_pb2.GenericResult(status=status, exception=text)
