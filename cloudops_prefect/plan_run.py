"""One run of a plan: which command starts when, and what becomes of those that never start."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import anyio
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Completed

from cloudops_prefect.execution import CommandExecution
from cloudops_prefect.left_results import leave_result
from cloudops_prefect.models import ExecutionRequest, ExecutionResult, ExecutionStatus
from cloudops_prefect.naming import shown_name
from cloudops_prefect.publishing import PendingResult
from cloudops_prefect.records import ResultRecord
from cloudops_prefect.run_background import background_of_run
from cloudops_prefect.states import state_of
from cloudops_prefect.tasks import CommandRun, end_command_task, run_command_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from prefect.client.schemas.objects import State, TaskRun

    from cloudops_prefect.graph import Wiring
    from cloudops_prefect.services import Services

PLAN_CANCELLED = "not run: the plan was cancelled"
COMMAND_CANCELLED = "not run: it was cancelled"
IN_EARLIER_ATTEMPT = "Completed in an earlier attempt"
ENDED = {
    ExecutionStatus.FAILED: "failed",
    ExecutionStatus.TIMEOUT: "timed out",
    ExecutionStatus.CANCELLED: "was cancelled",
}


def task_run_id(flow_run_id: UUID, attempt: int, index: int) -> UUID:
    """Returns the id of a command's task run, so that who knows the run knows the commands' ids."""
    return uuid5(flow_run_id, f"{attempt}/{index}")


class PlanRun:
    """Runs the commands of a plan's graph, each as soon as what it waits for has ended.

    Attributes:
        results: How each command ended, by its index, without its output.
        executions: The commands that have been started.
        control: What cancels the run.
        routed: Whether the events of its task runs go through `TaskRunLedger.events`.
        suspended: Whether commands wait for the run to be resumed, since somebody suspended it.
        is_single: Whether it is the run of a single command, not of a plan.
        final_state: The state in which the flow run ends, once everything has ended.
    """

    def __init__(  # noqa: PLR0913
        self,
        wiring: Wiring,
        flow_run_id: UUID,
        services: Services,
        *,
        attempt: int,
        earlier: Mapping[int, ExecutionResult],
        directory: Path | None = None,
        env_from: Sequence[str] = (),
        single: bool = False,
    ) -> None:
        self.flow_run_id = flow_run_id
        self.control = services.control(flow_run_id)
        services.runs[flow_run_id] = self
        self.results: dict[int, ExecutionResult] = {}
        self.final_state: State[Any] | None = None
        self._wiring = wiring
        self._services = services
        self._attempt = attempt
        self._earlier = earlier
        self._directory = directory
        self.routed = False
        self.suspended = False
        self._env_from = env_from
        self.is_single = single
        self.executions: dict[int, CommandExecution] = {}
        self._waiting_for = [len(before) for before in wiring.predecessors]
        limit = wiring.max_concurrency
        self._own_slots = anyio.CapacityLimiter(limit or len(wiring.requests))

    async def run(self) -> dict[int, ExecutionResult]:
        """Runs everything, and returns how each command ended."""
        async with (
            background_of_run(self.control, self.executions),
            anyio.create_task_group() as tasks,
        ):
            for index in [index for index, count in enumerate(self._waiting_for) if count == 0]:
                tasks.start_soon(self._run_node, tasks, index)
        return self.results

    async def _run_node(self, tasks: anyio.abc.TaskGroup, index: int) -> None:
        try:
            self.results[index], task_run = await self._settle(index)
        except Pause:
            # The next attempt at the run begins with this command.
            self.suspended = True
            return
        if task_run is not None:
            self._services.task_runs.add(task_run, routed=self.routed)
        for successor in self._wiring.successors[index]:
            self._waiting_for[successor] -= 1
            if self._waiting_for[successor] == 0:
                tasks.start_soon(self._run_node, tasks, successor)

    async def _settle(self, index: int) -> tuple[ExecutionResult, TaskRun | None]:
        """Runs the command, or finds out why it doesn't run."""
        earlier = self._earlier.get(index)
        if earlier is not None and earlier.status is ExecutionStatus.COMPLETED:
            if earlier.execution_id == self._id(index):
                # A run that was suspended and resumed goes on with the same attempt.
                return earlier, None
            state = Completed(name="Cached", message=IN_EARLIER_ATTEMPT, data=earlier)
            return earlier, await self._record(index, state)
        async with AsyncExitStack() as slots:
            obstacle = self._obstacle(index) or await self._wait_for_slots(index, slots)
            _raise_if_suspended()
            if obstacle is None:
                return await self._run_command(index)
        result = ExecutionResult.not_run(self._request(index), self._execution_id(index), obstacle)
        self._publish(index, result, lambda: result)
        return result, await self._record(index, state_of(result))

    def _obstacle(self, index: int) -> str | None:
        if self.control.cancelled:
            return COMMAND_CANCELLED if self.is_single else PLAN_CANCELLED
        if self.control.has_cancelled(self._execution_id(index)):
            return COMMAND_CANCELLED
        if not self._wiring.stop_on_failure:
            return None
        for upstream in self._wiring.predecessors[index]:
            result = self.results[upstream]
            if result.status is ExecutionStatus.COMPLETED:
                continue
            if result.started_at is None:
                return result.error
            name = shown_name(self._request(upstream), self._services.config)
            return f"not run: {name} {ENDED[result.status]}"
        return None

    async def _wait_for_slots(self, index: int, slots: AsyncExitStack) -> str | None:
        with self.control.waiting(self._execution_id(index)):
            await slots.enter_async_context(self._own_slots)
            # A single command's flow run is what waits: it stays Pending until there is a slot.
            if not self.is_single:
                await self._services.line.turn(self.flow_run_id)
                await slots.enter_async_context(self._services.slots)
            await slots.enter_async_context(self._services.tag_limits.held(self._id(index)))
        return self._obstacle(index)

    async def _run_command(self, index: int) -> tuple[ExecutionResult, TaskRun]:
        request = self._request(index)
        execution = CommandExecution(
            request,
            self._execution_id(index),
            self._services.config,
            directory=self._directory,
            env_from=tuple(dict.fromkeys([*self._env_from, *request.env_from])),
        )
        self.executions[index] = execution
        run = CommandRun(execution, self.flow_run_id, self._id(index))
        with self.control.running(execution):
            task_run = await run_command_task(run, self._upstream(index), lambda: None)
        assert execution.result is not None  # noqa: S101 (the task has run)
        self._publish(index, execution.result, execution.result_with_output)
        return execution.result, task_run

    def in_order(self, *, with_output: bool = False) -> list[ExecutionResult]:
        """Returns the results in the plan's order, on demand with what the commands printed."""
        indices = range(len(self._wiring.requests))
        if not with_output:
            return [self.results[index] for index in indices]
        return [
            self.executions[index].result_with_output()
            if index in self.executions
            else self.results[index]
            for index in indices
        ]

    async def _record(self, index: int, state: State[Any]) -> TaskRun:
        return await end_command_task(
            self._request(index), self._id(index), self._upstream(index), state
        )

    def _publish(
        self, index: int, result: ExecutionResult, load: Callable[[], ExecutionResult]
    ) -> None:
        execution = self.executions.get(index)
        start = execution.log.start if execution is not None and execution.log else None
        record = ResultRecord(
            flow_run_id=self.flow_run_id, index=index, attempt=self._attempt, result=result
        )
        leave_result(record, start)
        pending = PendingResult(self.flow_run_id, index, self._attempt, load)
        self._services.publisher.add_result(pending)

    def _upstream(self, index: int) -> list[UUID]:
        return [self._id(other) for other in self._wiring.predecessors[index]]

    def _request(self, index: int) -> ExecutionRequest:
        return self._wiring.requests[index]

    def _execution_id(self, index: int) -> UUID:
        return self.flow_run_id if self.is_single else self._id(index)

    def _id(self, index: int) -> UUID:
        return task_run_id(self.flow_run_id, self._attempt, index)


def _raise_if_suspended() -> None:
    """Raise Prefect's `Pause` in a flow run that was suspended, as its task engine does."""
    if (context := FlowRunContext.get()) is not None:
        context.flow_run_suspension_request.raise_if_requested()
